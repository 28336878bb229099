//! The cap on children: never more, never stuck, nobody forgotten.

use crate::common::*;
use std::fs;
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Each connection is told once, with a number of children up to `most`, and
/// after the last end there is none.
fn assert_counts(server: &Server, connections: usize, most: usize) {
    let ends = || server.stderr.lines().iter().filter(|line| line.contains(" end ")).count();
    wait_for("the last end is told", || ends() == connections);
    let lines = server.stderr.lines();
    let count = |line: &str| {
        let (_, count) = line.rsplit_once(" children=").expect("a count");
        let (taken, of) = count.split_once('/').expect("n/max");
        assert_eq!(of, most.to_string());
        taken.parse::<usize>().expect("a number")
    };
    let accepts: Vec<_> = lines.iter().filter(|line| line.contains(" accept ")).collect();
    assert_eq!(accepts.len(), connections);
    assert!(accepts.iter().all(|line| (1..=most).contains(&count(line))));
    let ends: Vec<_> = lines.iter().filter(|line| line.contains(" end ")).collect();
    assert_eq!(ends.len(), connections);
    assert_eq!(count(ends.last().unwrap()), 0);
}

const CAP: usize = 16;

/// Sixteen are served and sixteen wait for them to end, all in one instant.
#[test]
fn twenty_thousand_connections_in_bursts_leave_nothing_behind() {
    own_network(); // if possible: nobody else is to meet 20,000 ports in TIME_WAIT
    let server = Server::start(&["-c", "16", "echo", "0"]);
    let serve = |connections: usize| {
        let mut served = burst(&server, 0);
        for n in 1..connections / CAP {
            assert!(served.iter().all(|client| receive(client, LINE.len()) == LINE));
            let waiting = burst(&server, n);
            if n % 10 == 0 {
                // All at once also for the server, who hears of them by one signal.
                let children = children_now(server.pid);
                assert_eq!(children.len(), CAP, "all of them serve");
                stop(server.pid);
                drop(served);
                wait_for("16 zombies", || children.iter().all(|&child| state(child) == 'Z'));
                server.signal(libc::SIGCONT);
            } else {
                drop(served);
            }
            served = waiting;
        }
        assert!(served.iter().all(|client| receive(client, LINE.len()) == LINE));
        drop(served);
        server.wait_for_children(0);
        footprint(server.pid)
    };
    let (mut before, mut after) = ([0; 3], [0; 3]);
    let most = while_watching(&server, || {
        before = serve(4_000); // everything has been touched once
        after = serve(20_000);
    });
    assert!(most <= CAP, "{most} children");
    // The kernel may have taken some of the file's pages before, and given them back since.
    const FILE: isize = 20;
    let memory_grown = after[1..].iter().zip(&before[1..]).any(|(a, b)| *a > b + FILE);
    // An emulator's memory is its own business.
    let grown = after[0] > before[0] || memory_grown && std::env::var_os("FORKLINE").is_none();
    assert!(!grown, "descriptors, resident and private KiB: {before:?}, then {after:?}");
    wait_for("24000 reports", || server.stdout.lines().len() == 24_000);
    server.has_said_nothing_else();
}

#[test]
fn clients_beyond_the_limit_wait_for_a_place_and_are_all_served() {
    let server = Server::start(&["-v", "-q", "-c", "16", "echo", "0"]);
    let most = while_watching(&server, || {
        // Once all places are taken for sure: later that depends on the scheduler.
        let first = burst(&server, 0);
        assert!(first.iter().all(|client| receive(client, LINE.len()) == LINE));
        assert_eq!(children_now(server.pid).len(), CAP);
        drop(first);
        thread::scope(|scope| {
            for _ in 0..4 * CAP {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let mut client = server.connect();
                        for _ in 0..20 {
                            client.write_all(LINE).expect("send");
                            assert_eq!(receive(&client, LINE.len()), LINE);
                        }
                    }
                });
            }
        });
    });
    assert!(most <= CAP, "{most} children");
    assert_counts(&server, CAP + 40 * CAP, CAP);
}

#[test]
fn ten_thousand_clients_are_served_at_once() {
    const MANY: usize = 10_000;
    set_limit(0, libc::RLIMIT_NOFILE, u64::MAX);
    let descriptors = set_limit(0, libc::RLIMIT_NOFILE, u64::MAX) as usize;
    let pids = number_in("/proc/sys/kernel/pid_max", "");
    let free = number_in("/proc/meminfo", "MemAvailable:") / MANY;
    if descriptors < MANY + 500 || pids < 2 * MANY || free < 200 {
        let why = format!("{descriptors} descriptors, {pids} pids, {free} KiB for each child");
        return skipped(&why);
    }
    let server = Server::start(&["-q", "-c", "10000", "echo", "0"]);
    let mut clients = Vec::new();
    while clients.len() < MANY {
        // No more than the kernel's queue for the server takes.
        let new: Vec<_> = (0..500).map(|_| ask(&server)).collect();
        for client in new {
            let is_answered = receive_some(&client, &mut Vec::new()).is_ok_and(|n| n > 0);
            if !is_answered && server.stderr.text().contains("forkline: fault call=fork ") {
                return skipped(server.stderr.text().trim());
            }
            assert!(is_answered, "{}", server.stderr.text());
            clients.push(client);
        }
    }
    assert_eq!(children_now(server.pid).len(), MANY);

    let next = ask(&server);
    for mut client in &clients {
        client.write_all(LINE).expect("send");
        assert_eq!(receive(client, LINE.len()), LINE);
    }
    assert_eq!(children_now(server.pid).len(), MANY);
    next.set_nonblocking(true).expect("nonblocking");
    let waits = next.peek(&mut [0]).map_err(|error| error.kind());
    assert_eq!(waits, Err(ErrorKind::WouldBlock), "no place is free");
    next.set_nonblocking(false).expect("blocking");
    clients.pop();
    assert_eq!(receive(&next, LINE.len()), LINE);

    drop((clients, next));
    wait_for("all have ended", || children_now(server.pid).is_empty());
    assert_eq!(receive(&ask(&server), LINE.len()), LINE);
    server.has_said_nothing_else();
}

/// Sixteen clients, each of whom has sent a line.
fn burst(server: &Server, n: usize) -> Vec<TcpStream> {
    // At several addresses: the ports of closed connections, in TIME_WAIT, do not run out.
    let address = Ipv4Addr::new(127, 0, 0, 2 + (n % 8) as u8);
    let clients: Vec<_> = (0..CAP).map(|_| connect((address, server.port))).collect();
    for mut client in &clients {
        client.write_all(LINE).expect("send");
    }
    clients
}

/// The most children that the server was seen to have while this goes on.
fn while_watching(server: &Server, act: impl FnOnce()) -> usize {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(children_at_once(server.pid));
                thread::sleep(Duration::from_micros(50));
            }
            most
        });
        let result = catch_unwind(AssertUnwindSafe(act));
        done.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| resume_unwind(panic));
        watcher.join().expect("watcher")
    })
}

/// The number behind this word in a file of /proc.
fn number_in(file: &str, word: &str) -> usize {
    let text = fs::read_to_string(file).expect(file);
    let line = text.lines().find_map(|line| line.strip_prefix(word)).expect(word);
    line.split_whitespace().next().unwrap().parse().expect("a number")
}
