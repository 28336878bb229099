//! `make soak`: very many connections, most of them good, while
//! children are killed and everybody is stopped and continued at random.
//! FORKLINE_SOAK says how many at a cap of 16; a million unless given. Then come
//! half as many at a cap of 512.

#[path = "../common/mod.rs"]
mod common;

use common::*;
use std::env;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// The cap on children, the clients' threads, and the connections that each
/// makes at once and ends together: all places are taken, and at first most
/// clients wait.
const LOADS: [(usize, usize, usize); 3] = [(16, 64, 1), (16, 4, 4), (512, 16, 32)];
/// Connections before the server's memory is measured for the first time.
const WARM_UP: usize = 10_000;

/// What has become of the connections, and of the server.
#[derive(Default)]
struct Tally {
    /// Got every answer.
    served: AtomicUsize,
    /// Left or reset by the client in the middle.
    left: AtomicUsize,
    /// Ended by the server before every answer, which the client noticed.
    lost: AtomicUsize,
    /// Signals to children that may have ended them.
    kills: AtomicUsize,
    /// The most children at once.
    most: AtomicUsize,
}

#[test]
#[ignore = "takes minutes: make soak"]
fn soak() {
    let connections = env::var("FORKLINE_SOAK").map_or(1_000_000, |n| n.parse().expect("a number"));
    let seed = fastrand::u64(..);
    println!("{connections} connections, seed {seed}");
    set_limit(0, libc::RLIMIT_CORE, 0);
    for (cap, threads, batch) in LOADS {
        let cap_arg = cap.to_string();
        let mut command = forkline(&["-c", &cap_arg, "echo", "0"]);
        let mut server = Server::spawn(command.stdout(Stdio::null()));
        let run = |connections| {
            let tally = Tally::default();
            load(&server, &tally, (threads, batch), connections, seed);
            within(DEADLINE, || children_now(server.pid).is_empty());
            tally
        };
        run(WARM_UP);
        let before = footprint(server.pid);
        let tally = run(connections / 2);
        let zombies = children_now(server.pid).len();
        let [leaked, growth, _] = footprint(server.pid);
        let (leaked, growth) = (leaked - before[0], growth - before[1]);
        let [served, left, lost, kills, most] =
            [tally.served, tally.left, tally.lost, tally.kills, tally.most]
                .map(AtomicUsize::into_inner);
        println!(
            "cap {cap}: {served} served, {left} left, {lost} lost to {kills} signals, {most} at once at most; \
             leaked {leaked} descriptors, {zombies} zombies, growth {growth} KiB"
        );
        assert!(server.ended().is_none(), "the server has ended");
        assert_eq!((leaked, zombies), (0, 0));
        assert!(growth <= 0 && lost <= kills && most <= cap);
        let mut messages = server.other_messages();
        messages.retain(|line| !line.contains(" reason=signal signal="));
        assert_eq!(messages, [""; 0]);
    }
}

/// So many connections from these threads, under random faults.
fn load(
    server: &Server,
    tally: &Tally,
    (threads, batch): (usize, usize),
    connections: usize,
    seed: u64,
) {
    let (begun, done) = (&AtomicUsize::new(0), &AtomicBool::new(false));
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(move || torment(server, tally, done, seed));
        let clients = (1..=threads as u64).map(|n| {
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed.wrapping_add(n));
                while begun.fetch_add(batch, Relaxed) < connections {
                    converse(server, tally, batch, &mut random);
                }
            })
        });
        let clients: Vec<_> = clients.collect();
        while !within(Duration::from_secs(10), || clients.iter().all(|client| client.is_finished()))
        {
            let n = begun.load(Relaxed);
            let rate = n as u64 / start.elapsed().as_secs();
            println!("{n} of {connections}, {rate} a second, {} lost", tally.lost.load(Relaxed));
        }
        done.store(true, Relaxed);
    });
}

// ---------------------------------------------------------------- clients

/// Some connections, which all begin before the first has said a word and end
/// together.
fn converse(server: &Server, tally: &Tally, batch: usize, random: &mut fastrand::Rng) {
    // At many addresses: the ports of closed connections, in TIME_WAIT, do not run out.
    let address = Ipv4Addr::new(127, 0, random.u8(..), random.u8(1..255));
    let clients: Vec<TcpStream> = (0..batch).map(|_| connect((address, server.port))).collect();
    for client in &clients {
        let many = b"one of many lines\n".repeat(random.usize(1..2000));
        let end = match random.u8(..20) {
            0 => leave(client, b""),
            1 => leave(client, b"half a line"),
            2 => leave(client, &many),
            3 => polite(client, b"a line\nand half a line"),
            4 => polite(client, &many),
            _ => polite(client, b"hello\n"),
        };
        let count = match end {
            Ok(true) => &tally.served,
            Ok(false) => &tally.left,
            Err(error) => {
                use ErrorKind::{BrokenPipe, ConnectionReset, NotConnected, UnexpectedEof};
                let told = [BrokenPipe, ConnectionReset, NotConnected, UnexpectedEof];
                assert!(told.contains(&error.kind()), "neither an answer nor an end: {error}");
                &tally.lost
            }
        };
        count.fetch_add(1, Relaxed);
    }
}

/// Sends the text and waits for the answer, with half a line at its end up to
/// the end of file.
fn polite(mut client: &TcpStream, text: &[u8]) -> io::Result<bool> {
    client.write_all(text)?;
    if !text.ends_with(b"\n") {
        client.shutdown(Shutdown::Write)?;
    }
    let mut answer = vec![0; text.len()];
    client.read_exact(&mut answer)?;
    assert!(answer == text, "another answer");
    Ok(true)
}

/// Sends the text and leaves, by a reset as soon as the batch ends.
fn leave(mut client: &TcpStream, text: &[u8]) -> io::Result<bool> {
    let _ = client.write_all(text); // fails where the child was killed
    reset(client.try_clone()?);
    Ok(false)
}

// ---------------------------------------------------------------- faults

/// Random signals to random children, and to the server those that may not
/// disturb it, until it is done.
fn torment(server: &Server, tally: &Tally, done: &AtomicBool, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let pause = |random: &mut fastrand::Rng| {
        thread::sleep(Duration::from_micros(random.u64(..3000)));
    };
    while !done.load(Relaxed) {
        let children = children_now(server.pid);
        tally.most.fetch_max(children.len(), Relaxed);
        match random.choice(&children).and_then(|&child| process(child, server.pid)) {
            Some(child) if random.u8(..4) > 0 => {
                let signal = random.i32(1..=64);
                tally.kills.fetch_add(1, Relaxed);
                send(&child, signal);
                pause(&mut random);
                send(&child, libc::SIGCONT);
            }
            Some(child) => {
                send(&child, libc::SIGSTOP);
                pause(&mut random);
                send(&child, libc::SIGCONT);
            }
            None => {
                let harmless = [libc::SIGCHLD, libc::SIGPIPE, libc::SIGURG, libc::SIGWINCH];
                server.signal(*random.choice(&harmless).unwrap());
            }
        }
        if random.u8(..10) == 0 {
            server.signal(libc::SIGSTOP);
            pause(&mut random);
            server.signal(libc::SIGCONT);
        }
        pause(&mut random);
    }
}

/// A handle on this child, or none if the pid has come to mean another process
/// (pidfd_open(2)).
fn process(pid: u32, parent: u32) -> Option<OwnedFd> {
    // SAFETY: the call takes no pointers, and its descriptor is new.
    let child = unsafe {
        match libc::syscall(libc::SYS_pidfd_open, pid, 0) {
            fd @ 0.. => OwnedFd::from_raw_fd(fd as i32),
            _ => return None,
        }
    };
    stat(pid).is_some_and(|(_, ppid)| ppid == parent).then_some(child)
}

/// pidfd_send_signal(2); a process that has ended is no error.
fn send(process: &OwnedFd, signal: i32) {
    // SAFETY: the null pointer is allowed.
    unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, 0, 0) };
}
