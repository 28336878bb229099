//! Several processes that accept: `-j`.

use crate::activation;
use crate::common::*;
use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// What is told when the kernel cannot choose the acceptor by the source.
const EACH_ALONE: &str = "-C counts in each acceptor: Invalid argument (EINVAL)";

/// A server and its acceptors, once they are all there.
fn start(n: usize, args: &[&str]) -> (Server, Vec<u32>) {
    let n_arg = n.to_string();
    let server = Server::start(&[&["-j", &n_arg], args].concat());
    wait_for("all accept", || acceptors(&server).len() == n);
    let acceptors = acceptors(&server);
    (server, acceptors)
}

/// Those of the main process's children that listen: the others are orphans.
fn acceptors(server: &Server) -> Vec<u32> {
    let listening = sockets(server.pid);
    let mut children = children_now(server.pid);
    // One has begun when it has closed the others' sockets.
    children.retain(|&pid| matches!(&sockets(pid)[..], [one] if listening.contains(one)));
    children
}

/// All that serve a connection, orphans too.
fn serving(server: &Server) -> Vec<u32> {
    let listening = sockets(server.pid);
    let main = children_now(server.pid);
    let mut all: Vec<_> = main.iter().flat_map(|&pid| children_of_now(pid)).collect();
    all.extend(main);
    all.retain(|&pid| {
        let sockets = sockets(pid);
        !sockets.is_empty() && sockets.iter().all(|socket| !listening.contains(socket))
    });
    all
}

/// Not by their states, which are in a table of all sockets of the machine.
fn sockets(pid: u32) -> Vec<String> {
    let targets = descriptors(pid).into_iter().map(|(_, target)| target);
    targets.filter(|target| target.starts_with("socket:")).collect()
}

/// The children of a process that may have ended.
fn children_of_now(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect()
}

/// It is answered, or told that it will not be.
fn is_answered(mut client: &TcpStream) -> bool {
    let mut answer = [0; LINE.len()];
    let result = client.write_all(LINE).and_then(|()| client.read_exact(&mut answer));
    match result.map_err(|error| error.kind()) {
        Ok(()) => answer == LINE,
        Err(ErrorKind::WouldBlock | ErrorKind::TimedOut) => panic!("neither answered nor told"),
        Err(_) => false,
    }
}

/// Nobody but zombies, which belong to whoever takes orphans here.
fn nobody_is_left(server: &Server) {
    wait_for("nobody is left", || members_of(server.pid).into_iter().all(has_ended));
}

// ---------------------------------------------------------------- the port

#[test]
fn everybody_is_answered() {
    for service in ["echo", "rot13"] {
        let (server, _) = start(3, &["-q", service, "0"]);
        let serve = |address: &str| {
            let clients: Vec<_> = (0..30).map(|_| connect((address, server.port))).collect();
            for line in [&b"one\n"[..], b"two\n", b"three\n"] {
                for client in &clients {
                    assert_eq!(say(client, line), answer(service, line));
                }
            }
        };
        serve("127.0.0.1");
        if ipv6() {
            serve("::1");
        }
    }
    let (server, _) = start(2, &["-b", "127.0.0.1", "-q", "echo", "0"]);
    assert!(is_answered(&server.connect()));
}

#[test]
fn connections_are_spread_over_all() {
    let n = processors().len() + 2;
    let (server, acceptors) = start(n, &["-q", "echo", "0"]);
    let clients: Vec<_> = (0..400).map(|_| ask(&server)).collect();
    assert!(clients.iter().all(|client| receive(client, LINE.len()) == LINE));
    let shares: Vec<_> = acceptors.iter().map(|&pid| children_of(pid).len()).collect();
    assert_eq!(shares.iter().sum::<usize>(), 400);
    assert_eq!(sockets(server.pid).len(), n);
    assert!(shares.iter().all(|&share| share > 80 / n), "{shares:?}");
}

#[test]
fn another_server_is_refused() {
    let (server, _) = start(2, &["-q", "echo", "0"]);
    let port = server.port.to_string();
    for args in
        [&["-j", "2", "echo", &port][..], &["echo", &port], &["-b", "127.0.0.1", "echo", &port]]
    {
        let output = run(&mut forkline(args));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && error.contains("(EADDRINUSE)"), "{error}");
    }
    assert!(is_answered(&server.connect()));
}

#[test]
fn each_has_its_processor_and_a_long_conversation_any() {
    let may_use = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t"));
        list.expect("Cpus_allowed_list").to_owned()
    };
    let own = may_use(std::process::id());
    let n = processors().len();
    let server = Server::start(&["-j", "0", "-q", "echo", "0"]);
    if n == 1 {
        return skipped("one processor");
    }
    wait_for("one for each processor", || acceptors(&server).len() == n.min(64));
    let used: BTreeSet<_> = acceptors(&server).into_iter().map(may_use).collect();
    assert!(
        used.len() == n.min(64) && used.iter().all(|list| list.parse::<usize>().is_ok()),
        "{used:?}"
    );
    let client = ask(&server);
    receive(&client, LINE.len());
    let child = serving(&server)[0];
    assert!(used.contains(&may_use(child)));
    assert_eq!(say(&client, LINE), LINE);
    assert_eq!(may_use(child), own);
}

#[test]
fn a_socket_that_was_handed_over_is_shared() {
    let listener = activation::listener();
    let environment = activation::ENVIRONMENT;
    let mut server =
        Server::spawn(&mut activation::activated(&listener, environment, "-j 2 -q echo"));
    wait_for("both accept", || acceptors(&server).len() == 2);
    let pids = acceptors(&server);
    let mut clients = Vec::new();
    wait_for("both have served", || {
        clients.push(ask(&server));
        receive(clients.last().unwrap(), LINE.len());
        pids.iter().all(|&pid| !children_of(pid).is_empty())
    });
    server.signal(libc::SIGTERM);
    assert!(server.wait().success());
    // The next instance finds it as it was, and tells what it cannot do.
    let args = "-j 2 -C 1 -q echo";
    let next = Server::spawn(&mut activation::activated(&listener, environment, args));
    assert!(is_answered(&next.connect()));
    next.stderr.wait_for(EACH_ALONE);
}

/// Its clients have the grace time, and no more.
#[test]
fn one_that_is_told_to_end_is_replaced_whoever_holds_it() {
    let (server, before) = start(2, &["-q", "-g", "0", "echo", "0"]);
    let client = ask(&server);
    assert_eq!(receive(&client, LINE.len()), LINE);
    let held = before.iter().find(|&&pid| !children_of(pid).is_empty()).expect("its acceptor");
    stop(children_of(*held)[0]);
    kill(*held as i32, libc::SIGTERM);
    wait_for("another has its place", || {
        let now = acceptors(&server);
        now.len() == 2 && !now.contains(held)
    });
    assert_eq!(receive_all(&client).1, End::Reset);
}

#[test]
fn wrong_numbers() {
    for number in ["65", "-1", "x", "", "1.5", "4294967298"] {
        let output = run(&mut forkline(&["-j", number, "echo", "0"]));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("not a number from 0 to 64"), "{number}: {error}");
        assert_eq!(output.status.code(), Some(1));
    }
    let output = run(&mut forkline(&["-j"]));
    assert!(String::from_utf8_lossy(&output.stderr).contains("a value is missing after '-j'"));
    let (server, _) = start(64, &["-q", "echo", "0"]);
    assert!(is_answered(&server.connect()));
}

/// What a connection costs is the same, but that the kernel records the child.
#[test]
fn a_connection_takes_the_same_system_calls() {
    if !tool("strace") {
        return;
    }
    let calls = |n: &str, acceptor: fn(u32) -> Vec<u32>| {
        let trace = scratch("calls");
        let mut strace = Command::new("strace");
        strace.args(["-ff", "-q", "-a1", "-o"]).arg(&*trace).arg(env!("CARGO_BIN_EXE_forkline"));
        let mut strace = Server::spawn(
            strace
                .args(["-j", n, "echo", "0"])
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped()),
        );
        let main = children_of(strace.pid)[0];
        let count: usize = n.parse().unwrap();
        wait_for("all sleep", || {
            let all = acceptor(main);
            all.len() == count
                && all.iter().all(|&pid| state(pid) == 'S' && sockets(pid).len() == 1)
        });
        let all = acceptor(main);
        let client = ask(&strace);
        receive(&client, LINE.len());
        let (pid, child) =
            all.iter().find_map(|&pid| Some((pid, *children_of(pid).first()?))).unwrap();
        drop(client);
        wait_for("the child is gone", || stat(child).is_none());
        wait_for("it waits", || state(pid) == 'S');
        kill(main as i32, libc::SIGKILL);
        strace.wait();
        let read = |pid| {
            let file = format!("{}.{pid}", trace.display());
            let text = fs::read_to_string(&file).expect("strace's output");
            let names = text.lines().map(|line| line.split(['(', '{']).next().unwrap().to_owned());
            names.collect::<Vec<_>>()
        };
        let parent = read(pid);
        let first = parent.iter().position(|call| call == "accept").expect("accept");
        let result = (parent[first..].to_vec(), read(child));
        for entry in fs::read_dir(trace.parent().unwrap()).unwrap().flatten() {
            if entry.path().to_string_lossy().starts_with(&*trace.to_string_lossy()) {
                let _ = fs::remove_file(entry.path());
            }
        }
        result
    };
    assert_eq!(calls("1", |main| vec![main]), calls("2", children_of));
}

// ---------------------------------------------------------------- the caps

/// Each client that has been answered has a place until it leaves.
#[test]
fn the_cap_is_for_all_together() {
    const CAP: usize = 3;
    // With -C too, where a count that drifted would refuse somebody.
    for args in [&["-c", "3", "-v", "echo", "0"][..], &["-c", "3", "-C", "10", "-v", "echo", "0"]] {
        let (server, _) = start(4, args);
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for thread in 0..16 {
                let (server, now, most) = (&server, &now, &most);
                scope.spawn(move || {
                    for _ in 0..100 {
                        let client = connect((Ipv4Addr::new(127, 0, 0, 2 + thread), server.port));
                        assert_eq!(say(&client, LINE), LINE);
                        most.fetch_max(1 + now.fetch_add(1, Relaxed), Relaxed);
                        (0..5).for_each(|_| assert_eq!(say(&client, LINE), LINE));
                        now.fetch_sub(1, Relaxed);
                    }
                });
            }
        });
        assert_eq!(most.into_inner(), CAP);
        wait_for("all have ended", || serving(&server).is_empty());
        is_exact(&server, CAP);
        let lines = server.stderr.lines();
        let accepted: Vec<_> = lines.iter().filter(|line| line.contains(" accept ")).collect();
        assert!(accepted.len() >= 1600);
        let count = |line: &str| line.rsplit(' ').next().unwrap().to_owned();
        assert!(accepted.iter().all(|line| ["1/3", "2/3", "3/3"].contains(&&*count(line))));
    }
}

/// So many are served and not one more; each that leaves lets one in,
/// whichever acceptors they have.
fn is_exact(server: &Server, cap: usize) {
    let mut served: Vec<_> = (0..cap).map(|_| ask(server)).collect();
    assert!(served.iter().all(|client| receive(client, LINE.len()) == LINE), "fewer than {cap}");
    let mut waiting: Vec<_> = (0..3 * cap.min(8)).map(|_| ask(server)).collect();
    // The kernel has them; those who accept have had the time to.
    thread::sleep(Duration::from_millis(100));
    while !waiting.is_empty() {
        assert!(waiting.iter().all(nothing_to_read), "more than {cap}");
        drop(served.swap_remove(0));
        let mut next = 0;
        wait_for("one that waits is served", || {
            let answered = waiting.iter().position(|client| !nothing_to_read(client));
            next = answered.unwrap_or(0);
            answered.is_some()
        });
        let client = waiting.swap_remove(next);
        assert_eq!(receive(&client, LINE.len()), LINE);
        served.push(client);
    }
    drop(served);
    wait_for("all have ended", || serving(server).is_empty());
}

/// Whichever acceptor there is for it, a source has so many and no more.
#[test]
fn the_cap_of_a_source_is_exact() {
    let (server, _) = start(4, &["-C", "2", "-q", "echo", "0"]);
    let (only_v4, _) = start(4, &["-b", "127.0.0.1", "-C", "2", "-q", "echo", "0"]);
    let mut kept = Vec::new();
    for last in 1..=30 {
        let from = || {
            connect_from([127, 0, 0, last], ([127, 0, 0, 1], server.port).into()).expect("connect")
        };
        source_has_two(&from, &mut kept);
        let from = || {
            connect_from([127, 0, 0, last], ([127, 0, 0, 1], only_v4.port).into()).expect("connect")
        };
        source_has_two(&from, &mut kept);
    }
    assert!(!server.stderr.text().contains(EACH_ALONE), "{}", server.stderr.text());
}

#[test]
fn the_cap_of_an_ipv6_source_is_exact() {
    if !tool("ip") {
        return;
    }
    if !own_network() || !ipv6() {
        return skipped("no network of its own");
    }
    let (server, _) = start(4, &["-C", "2", "-q", "echo", "0"]);
    let mut kept = Vec::new();
    for net in 1..=20 {
        for host in 1..=4 {
            add_address(&format!("2001:db8:{net:x}::{host:x}"));
        }
        let next = AtomicUsize::new(0);
        let from = || {
            // A host of the network after the other.
            let host = 1 + next.fetch_add(1, Relaxed) % 4;
            let ip = Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, host as u16);
            connect_from(ip, (Ipv6Addr::LOCALHOST, server.port).into()).expect("connect")
        };
        source_has_two(&from, &mut kept);
    }
}

fn source_has_two(from: &dyn Fn() -> TcpStream, kept: &mut Vec<TcpStream>) {
    let (first, second) = (from(), from());
    assert!(is_answered(&first) && is_answered(&second), "fewer than two");
    for _ in 0..5 {
        assert!(!is_answered(&from()), "a third");
    }
    drop(first);
    let mut again = None;
    wait_for("a place is free again", || {
        again = Some(from());
        is_answered(again.as_ref().unwrap())
    });
    assert!(!is_answered(&from()), "a third");
    kept.extend(again);
    kept.push(second);
}

/// The conversations of acceptors that were killed count, until they end.
#[test]
fn a_source_keeps_its_conversations_when_acceptors_die() {
    let (server, mut pids) = start(3, &["-C", "2", "-q", "echo", "0"]);
    let from = |last| {
        connect_from([127, 0, 0, last], ([127, 0, 0, 1], server.port).into()).expect("connect")
    };
    let mut kept: Vec<_> =
        (1..=20).flat_map(|last| [(last, from(last)), (last, from(last))]).collect();
    assert!(kept.iter().all(|(_, client)| is_answered(client)));
    for _ in 0..3 {
        pids = kill_all(&server, &pids);
        for (last, client) in &kept {
            assert!(is_answered(client), "a conversation has ended");
            assert!(!is_answered(&from(*last)), "a third of {last}");
        }
    }
    for last in 1..=20 {
        for _ in 0..2 {
            kept.remove(0);
            wait_for("a place is free again", || {
                let client = from(last);
                let answered = is_answered(&client);
                if answered {
                    kept.push((last, client));
                }
                answered
            });
        }
        assert!(!is_answered(&from(last)), "a third of {last}");
    }
}

/// Kills all acceptors and gives those that come in their place.
fn kill_all(server: &Server, pids: &[u32]) -> Vec<u32> {
    pids.iter().for_each(|&pid| kill(pid as i32, libc::SIGKILL));
    let mut new = Vec::new();
    wait_for("others come", || {
        new = acceptors(server);
        new.len() == pids.len() && new.iter().all(|pid| !pids.contains(pid))
    });
    new
}

// ---------------------------------------------------------------- deaths

#[test]
fn acceptors_are_killed_under_load() {
    const CAP: usize = 12;
    const KILLS: usize = 40;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut server, _) = start(3, &["-q", "-c", "12", "echo", "0"]);
    let (done, answered, told) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for thread in 0..16 {
            let (server, done, answered, told) = (&server, &done, &answered, &told);
            scope.spawn(move || {
                while !done.load(Relaxed) {
                    let client = connect((Ipv4Addr::new(127, 0, 0, 2 + thread), server.port));
                    let first = is_answered(&client);
                    // Who has been answered has a child, and that goes on.
                    assert!(!first || say(&client, LINE) == LINE);
                    if first { answered } else { told }.fetch_add(1, Relaxed);
                }
            });
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..KILLS {
                let mut pids = Vec::new();
                wait_for("all accept", || {
                    pids = acceptors(&server);
                    pids.len() == 3
                });
                thread::sleep(Duration::from_micros(random.u64(..20_000)));
                kill(*random.choice(&pids).unwrap() as i32, libc::SIGKILL);
            }
        }));
        done.store(true, Relaxed);
        result.expect("no panic");
    });
    let (answered, told) = (answered.into_inner(), told.into_inner());
    println!("{answered} answered, {told} told otherwise");
    assert!(answered > 100 && told <= KILLS, "{answered} answered, {told} told otherwise");
    wait_for("all accept", || acceptors(&server).len() == 3);
    is_exact(&server, CAP);
    let lines = server.stderr.lines();
    let ends = lines
        .iter()
        .filter(|line| line.contains("end acceptor pid ") && line.contains(" signal 9 "));
    assert!(ends.count() > KILLS / 2, "{}", server.stderr.text());
    server.signal(libc::SIGTERM);
    assert!(server.wait().success());
    nobody_is_left(&server);
}

/// What waits in the kernel for an acceptor that dies is served by the next.
#[test]
fn what_is_queued_outlives_its_acceptor() {
    let (server, pids) = start(2, &["-q", "echo", "0"]);
    pids.iter().for_each(|&pid| stop(pid));
    let clients: Vec<_> = (0..100).map(|_| ask(&server)).collect();
    assert!(clients.iter().all(nothing_to_read));
    kill_all(&server, &pids);
    assert!(clients.iter().all(|client| receive(client, LINE.len()) == LINE));
}

#[test]
fn one_that_always_dies_does_not_spin() {
    let (server, _) = start(2, &["-q", "echo", "0"]);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        children_now(server.pid).iter().for_each(|&pid| kill(pid as i32, libc::SIGKILL));
    }
    let ends = server.stderr.lines().len() - 1;
    assert!((2..=2 * 21).contains(&ends), "{ends} in two seconds");
    wait_for("it goes on", || acceptors(&server).len() == 2);
    assert!(is_answered(&server.connect()));
}

/// An acceptor that is asked to end lets its clients finish.
#[test]
fn one_may_be_asked_to_end() {
    let n = processors().len() + 1;
    let (server, pids) = start(n, &["-q", "echo", "0"]);
    let clients: Vec<_> = (0..50).map(|_| ask(&server)).collect();
    assert!(clients.iter().all(|client| receive(client, LINE.len()) == LINE));
    let its_own = children_of(pids[0]).len();
    kill(pids[0] as i32, libc::SIGTERM);
    kill(pids[0] as i32, libc::SIGTERM);
    wait_for("it ends", || has_ended(pids[0]));
    let ended = clients.iter().filter(|client| has_ended_or_answers(client)).count();
    assert_eq!(ended, its_own);
    wait_for("another comes", || {
        acceptors(&server).len() == n && !acceptors(&server).contains(&pids[0])
    });
    server.stderr.wait_for(&format!("end acceptor pid {} exit 0 ", pids[0]));
    (0..20).for_each(|_| assert!(is_answered(&server.connect())));
}

/// Whether its connection has ended; if not, its line is answered.
fn has_ended_or_answers(mut client: &TcpStream) -> bool {
    if client.write_all(LINE).is_err() {
        return true;
    }
    match receive_some(client, &mut Vec::new()) {
        Ok(n) => n == 0,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "neither answered nor told");
            true
        }
    }
}

#[test]
fn a_killed_main_process_takes_no_conversation_with_it() {
    let (mut server, pids) = start(3, &["-q", "echo", "0"]);
    let clients: Vec<_> = (0..50).map(|_| ask(&server)).collect();
    assert!(clients.iter().all(|client| receive(client, LINE.len()) == LINE));
    server.signal(libc::SIGKILL);
    server.wait();
    wait_for("the acceptors end", || pids.iter().all(|&pid| has_ended(pid)));
    let port = server.port.to_string();
    let next = Server::start(&["-j", "2", "-q", "echo", &port]);
    assert!(is_answered(&next.connect()));
    assert!(clients.iter().all(|client| say(client, LINE) == LINE));
    drop(clients);
    nobody_is_left(&server);
}

// ---------------------------------------------------------------- the end

/// Also those whose acceptor was killed before.
#[test]
fn everybody_is_answered_in_the_end() {
    for (signal, everybody) in
        [(libc::SIGTERM, false), (libc::SIGHUP, false), (libc::SIGINT, true), (libc::SIGTERM, true)]
    {
        let (mut server, pids) = start(4, &["-g", "86400", "-q", "echo", "0"]);
        let texts: [&[u8]; 4] = [b"", b"half a line", b"one\ntwo", &b"a line\n".repeat(2000)];
        let clients: Vec<_> = (0..200).map(|i| (server.connect(), texts[i % 4])).collect();
        wait_for("all are served", || serving(&server).len() == 200);
        kill(pids[1] as i32, libc::SIGKILL);
        wait_for("another comes", || {
            acceptors(&server).iter().filter(|pid| !pids.contains(pid)).count() == 1
        });
        thread::scope(|scope| {
            for (mut client, text) in clients.iter().map(|(client, text)| (client, text)) {
                scope.spawn(move || {
                    client.write_all(text).expect("send");
                    wait_for("all is taken", || unacknowledged(client) == 0);
                });
            }
        });
        // A terminal signals all of them, as does who stops a control group.
        kill(if everybody { -(server.pid as i32) } else { server.pid as i32 }, signal);
        for (client, text) in &clients {
            let (bytes, end) = receive_all(client);
            assert!(
                bytes == *text && end == End::Closed,
                "{end:?} after {} of {}",
                bytes.len(),
                text.len()
            );
        }
        assert!(server.wait().success(), "signal {signal}");
        nobody_is_left(&server);
        assert!(TcpStream::connect(("127.0.0.1", server.port)).is_err());
        let lines = server.stderr.lines();
        assert_eq!(lines.len(), 2, "{lines:?}");
    }
}

/// Clients that hold the end: a second signal resets them, or the grace time's end.
#[test]
fn who_holds_the_end_is_reset() {
    let first = [
        (libc::SIGTERM, "86400", Some(libc::SIGINT)),
        (libc::SIGQUIT, "86400", None),
        (libc::SIGTERM, "1", None),
    ];
    for (signal, grace, second) in first {
        let (mut server, pids) = start(3, &["-v", "-g", grace, "echo", "0"]);
        let clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
        wait_for("all are served", || serving(&server).len() == 20);
        let text = b"a line that nobody reads\n".repeat(1 << 19);
        thread::scope(|scope| {
            for mut client in &clients {
                let text = &text;
                scope.spawn(move || client.write_all(text).expect_err("a reset"));
            }
            wait_for("all are stuck", || serving(&server).iter().all(|&pid| sleeps_in_send(pid)));
            kill(pids[0] as i32, libc::SIGKILL);
            stop(serving(&server)[0]);
            wait_for("another comes", || {
                !acceptors(&server).contains(&pids[0]) && acceptors(&server).len() == 3
            });
            // As a terminal does it, from whom the acceptors have it too.
            let everybody = -(server.pid as i32);
            kill(if second.is_some() { everybody } else { -everybody }, signal);
            let is_refused = (0..100).any(|_| {
                thread::sleep(Duration::from_millis(10));
                connect_from([127, 0, 0, 2], ([127, 0, 0, 1], server.port).into()).is_err()
            });
            assert!(is_refused, "it still listens");
            if let Some(second) = second {
                thread::sleep(Duration::from_millis(200));
                assert_eq!(serving(&server).len(), 20, "one signal is one signal");
                server.stderr.wait_for("forkline: drain, signal 15 20/");
                server.signal(second);
            }
            server.stderr.wait_for("forkline: drain, signal 3 20/");
            assert!(server.wait().success());
        });
        nobody_is_left(&server);
        let drains =
            server.stderr.lines().into_iter().filter(|line| line.contains("drain")).count();
        assert!(drains <= 3, "only the main process tells: {}", server.stderr.text());
    }
}

fn sleeps_in_send(pid: u32) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    call.split(' ').next().and_then(|number| number.parse().ok()) == Some(libc::SYS_sendto)
}

// ---------------------------------------------------------------- many

#[test]
fn two_thousand_connections() {
    many(2_000);
}

/// `cargo test --release --locked --test forkline many_connections -- --ignored`
#[test]
#[ignore = "takes a minute"]
fn many_connections() {
    many(100_000);
}

fn many(connections: usize) {
    own_network(); // if possible: nobody else is to meet so many ports in TIME_WAIT
    let server = Server::start(&["-j", "0", "-q", "echo", "0"]);
    let answered = AtomicUsize::new(0);
    thread::scope(|scope| {
        for thread in 0..16 {
            let (server, answered) = (&server, &answered);
            scope.spawn(move || {
                for _ in 0..connections / 16 {
                    let client = connect((Ipv4Addr::new(127, 0, 0, 2 + thread), server.port));
                    assert!(is_answered(&client), "lost");
                    answered.fetch_add(1, Relaxed);
                }
            });
        }
    });
    assert_eq!(answered.into_inner(), connections / 16 * 16);
    wait_for("none is left", || serving(&server).is_empty());
    assert_eq!(server.stderr.lines().len(), 1, "{}", server.stderr.text());
}
