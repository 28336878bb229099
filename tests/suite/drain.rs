//! The end of the server and of its children: which signals bring it, what the
//! clients still get, and that nobody is left.

use crate::common::*;
use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What asks for a drain.
const ASK: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];
/// A grace time that a test does not survive.
const FOREVER: &str = "86400";

// ---------------------------------------------------------------- random moments

const ROUNDS: usize = 100;
const CLIENTS: usize = 200;

/// 200 clients in every state, and a signal at a random moment: whatever the
/// kernel has acknowledged to a client is answered, or the client is told by a
/// reset. The test fails if a client gets an end of file before its whole answer. One
/// case is allowed: the server had to kill children, and said how many. A busy machine
/// may give a child no processor within one second of SIGQUIT. So a round may have as
/// many such clients as killed children.
#[test]
fn no_client_meets_silence() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let (next, whole, reset) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let round = next.fetch_add(1, Ordering::Relaxed);
                    if round >= ROUNDS {
                        break;
                    }
                    let random = fastrand::Rng::with_seed(seed.wrapping_add(round as u64));
                    let ends = one_round(random);
                    let resets = ends.iter().filter(|&&end| end == End::Reset).count();
                    reset.fetch_add(resets, Ordering::Relaxed);
                    whole.fetch_add(ends.len() - resets, Ordering::Relaxed);
                }
            });
        }
    });
    let (whole, reset) = (whole.into_inner(), reset.into_inner());
    println!("{ROUNDS} rounds: {whole} clients were answered, {reset} told by a reset");
    assert!(whole > ROUNDS && reset > ROUNDS, "the rounds are too tame");
}

/// How the connections ended for those clients who stayed to see it.
fn one_round(mut random: fastrand::Rng) -> Vec<End> {
    let service = ["echo", "rot13"][random.usize(..2)];
    let letter = |_| if random.u8(..40) == 0 { b'\n' } else { random.u8(b' '..b'~') };
    let text: Vec<u8> = (0..40_000).map(letter).collect();
    let answer = answer(service, &text);
    let cap = ["1024", "50"][random.usize(..2)];
    let idle = ["0", "60"][random.usize(..2)];
    let mut server =
        Server::start(&["-q", "-g", "1", "-c", cap, "-t", idle, "-b", "127.0.0.1", service, "0"]);
    let (pid, signal) = (server.pid as i32, ASK[random.usize(..3)]);
    // After so many steps of the clients, and in the midst of one: a slow machine is as
    // far as a fast one.
    let (steps, pause) = (random.usize(..120), Duration::from_micros(random.u64(..1000)));
    let done = AtomicUsize::new(0);
    let mut clients = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            wait_for("the moment of the signal", || done.load(Ordering::Relaxed) >= steps);
            thread::sleep(pause);
            kill(pid, signal);
        });
        let mut wanted = CLIENTS;
        while !has_ended(server.pid) {
            for _ in 0..wanted.min(40) {
                // Not from 127.0.0.1, or a connection to a port that is closed
                // already might be one to itself.
                match connect_from([127, 0, 0, 2], ([127, 0, 0, 1], server.port).into()) {
                    Ok(stream) => {
                        clients.push(Client::new(stream, &text, &answer, &mut random));
                        wanted -= 1;
                    }
                    Err(_) => wanted = 0,
                }
            }
            clients.retain_mut(|client| client.step());
            done.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_micros(200));
        }
    });
    assert!(server.wait().success());
    assert!(nobody_in_group(pid), "somebody is left");
    wait_for("its output ends", || server.stderr.ended());
    server.has_said_nothing_else();
    let ends = clients.iter_mut().map(Client::last_words).collect();
    let silences: Vec<_> = clients.iter().filter_map(|client| client.silence.as_ref()).collect();
    let messages = server.stderr.text();
    let killed = messages.split_once(": kill children=").and_then(|(_, rest)| {
        let (killed, _limit) = rest.split_once('/')?;
        killed.parse().ok()
    });
    assert!(silences.len() <= killed.unwrap_or(0), "silence: {silences:?}\n{messages}");
    ends
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Habit {
    /// Sends what it has to and reads what comes.
    Plain,
    /// Waits for an answer before it goes on.
    Talks,
    /// Half-closes when it has sent all.
    Shuts,
    /// Leaves with a reset.
    Resets,
    /// Closes whatever is still to come.
    Leaves,
}

struct Client<'a> {
    stream: TcpStream,
    text: &'a [u8],
    answer: &'a [u8],
    habit: Habit,
    /// Bytes that it wants to send: the text, again and again.
    budget: usize,
    /// Steps before it reads, or leaves.
    patience: u32,
    sent: usize,
    answered: usize,
    shut: bool,
    /// A send has met a reset.
    broken: bool,
    /// What it has missed, if its end of file came before the whole answer.
    silence: Option<String>,
    end: Option<End>,
}

impl<'a> Client<'a> {
    fn new(
        stream: TcpStream,
        text: &'a [u8],
        answer: &'a [u8],
        random: &mut fastrand::Rng,
    ) -> Client<'a> {
        stream.set_nonblocking(true).expect("nonblocking");
        let habit = match random.u8(..10) {
            0..5 => Habit::Plain,
            5 => Habit::Talks,
            6..8 => Habit::Shuts,
            8 => Habit::Resets,
            _ => Habit::Leaves,
        };
        let budget = match random.u8(..50) {
            0..10 => 0,
            10..25 => random.usize(1..40), // often half a line
            25..40 => random.usize(..5_000),
            40..49 => random.usize(..200_000),
            _ => random.usize(..8_000_000),
        };
        let patience = match random.u8(..10) {
            0..6 => 0,
            6..8 => random.u32(..100),
            // Now and then somebody who holds the drain to the end.
            _ => random.u32(..4) * 1000,
        };
        let (sent, answered, shut, broken) = (0, 0, false, false);
        Client {
            stream,
            text,
            answer,
            habit,
            budget,
            patience,
            sent,
            answered,
            shut,
            broken,
            silence: None,
            end: None,
        }
    }

    /// Sends and receives what can be without waiting, and stays or leaves.
    fn step(&mut self) -> bool {
        if self.end.is_some() {
            return true;
        }
        let due = self.patience == 0;
        self.patience = self.patience.saturating_sub(1);
        match self.habit {
            Habit::Resets if due && self.sent == self.budget => {
                reset(self.stream.try_clone().expect("clone"));
                return false;
            }
            Habit::Leaves if due && self.sent == self.budget => return false,
            _ if due => self.receive(),
            _ => {}
        }
        let wait = self.habit == Habit::Talks && self.sent - self.answered > 1000;
        if self.sent < self.budget && !wait {
            // Those who have much to say are quick.
            (0..=self.budget / 200_000).for_each(|_| self.send());
        } else if self.sent == self.budget && self.habit == Habit::Shuts && !self.shut {
            self.shut = true;
            self.broken |= self.stream.shutdown(Shutdown::Write).is_err();
        }
        true
    }

    fn send(&mut self) {
        let piece = &self.text[self.sent % self.text.len()..];
        let piece = &piece[..piece.len().min(self.budget - self.sent)];
        match self.stream.write(piece) {
            Ok(n) => self.sent += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.broken = true,
        }
    }

    fn receive(&mut self) {
        let mut piece = Vec::new();
        match receive_some(&self.stream, &mut piece) {
            Ok(0) if self.broken => self.end = Some(End::Reset),
            Ok(0) => self.has_closed(),
            Ok(_) => {
                let mut rest = &piece[..];
                while !rest.is_empty() {
                    let expected = &self.answer[self.answered % self.answer.len()..];
                    let n = rest.len().min(expected.len());
                    assert!(rest[..n] == expected[..n], "an answer to something else");
                    self.answered += n;
                    rest = &rest[n..];
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
                self.end = Some(End::Reset);
            }
        }
    }

    /// The end of file has come: so must have the answer to all that has been
    /// acknowledged. What has not may be told of by a reset that comes later.
    fn has_closed(&mut self) {
        let own_end = usize::from(self.shut); // it is acknowledged like a byte
        let taken = self.sent - unacknowledged(&self.stream).saturating_sub(own_end);
        if self.answered < taken {
            let (habit, sent, answered) = (self.habit, self.sent, self.answered);
            let silence = format!("{habit:?}, {taken} bytes taken of {sent}, {answered} answered");
            self.silence = Some(silence);
        }
        self.end = Some(End::Closed);
    }

    /// After the server's end: what has come, and how it ended.
    fn last_words(&mut self) -> End {
        self.stream.set_nonblocking(false).expect("blocking");
        let deadline = Instant::now() + DEADLINE;
        while self.end.is_none() && Instant::now() < deadline {
            self.receive();
        }
        if self.end.is_none() {
            // A close of the listening socket can forget a client whose handshake
            // ends at that moment: the kernel's doing (8 of 600,000 connections to
            // a socket that is only closed). Such a client has sent nothing yet,
            // and is told as soon as it does.
            assert!(self.sent == 0 && !self.shut, "silence: {:?}, {} sent", self.habit, self.sent);
            let _ = self.stream.write(b"\n");
            self.receive();
        }
        let is_known = self.broken || self.silence.is_some();
        if self.end == Some(End::Closed) && self.answered < self.sent && !is_known {
            wait_for("a reset tells what has not been answered", || {
                self.stream.take_error().expect("take_error").is_some()
            });
            self.end = Some(End::Reset);
        }
        self.end.unwrap()
    }
}

// ---------------------------------------------------------------- the good end

/// Nobody is surprised by the signal: all that was sent has been taken, so
/// everybody gets the whole answer and then the end of file.
#[test]
fn what_has_been_taken_is_answered() {
    for (service, signal) in [("echo", ASK[0]), ("rot13", ASK[1]), ("echo", ASK[2])] {
        let mut server = Server::start(&["-q", "-g", FOREVER, service, "0"]);
        let line = b"A line, ".repeat(30);
        let lines = [&line[..], b"\n"].concat();
        let texts: [&[u8]; 5] = [b"", b"half a line", b"one\ntwo", &lines, &lines.repeat(2000)];
        let clients: Vec<_> = (0..CLIENTS).map(|i| (server.connect(), texts[i % 5])).collect();
        server.wait_for_children(CLIENTS);
        thread::scope(|scope| {
            for (mut client, text) in clients.iter().map(|(client, text)| (client, text)) {
                scope.spawn(move || {
                    client.write_all(text).expect("send");
                    wait_for("all is taken", || unacknowledged(client) == 0);
                });
            }
        });
        server.signal(signal);
        for (client, text) in &clients {
            let (bytes, end) = receive_all(client);
            assert!(bytes == answer(service, text) && end == End::Closed, "{end:?}");
        }
        assert!(server.wait().success(), "signal {signal}");
        server.has_said_nothing_else();
    }
}

/// Ctrl-C in a terminal: the children get the signal too, from the terminal
/// and from the server.
#[test]
fn ctrl_c_reaches_the_children_twice() {
    let mut server = Server::start(&["-g", FOREVER, "echo", "0"]);
    let clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for mut client in &clients {
        client.write_all(b"one\ntwo").expect("send");
        assert_eq!(receive(client, 4), b"one\n");
        wait_for("all is taken", || unacknowledged(client) == 0);
    }
    kill(-(server.pid as i32), libc::SIGINT);
    for client in &clients {
        assert_eq!(receive_all(client), (b"two".to_vec(), End::Closed));
    }
    assert!(server.wait().success());
    server.stdout.wait_for("server received 3 bytes\n");
}

/// A signal between two steps of the server must not be lost, wherever: strace
/// sends one with every call that it makes, from the first to the last.
#[test]
fn a_signal_at_any_call_of_the_start_ends_it() {
    if !tool("strace") {
        return;
    }
    let output = scratch("trace");
    let server = Server::spawn(&mut strace(&output, &[], &["echo", "0"]));
    wait_for("it accepts", || fs::read_to_string(&*output).unwrap().contains("accept("));
    drop(server);
    let trace = fs::read_to_string(&*output).expect("trace");
    let mut seen = Vec::new();
    for line in trace.lines().skip(1) {
        let Some((call, _)) = line.split_once('(') else { break };
        let call = call.rsplit(' ').next().unwrap();
        seen.push(call);
        let when = seen.iter().filter(|&&other| other == call).count();
        for signal in ["TERM", "INT", "HUP"] {
            let inject = format!("inject={call}:signal={signal}:when={when}");
            let output = run(&mut strace(Path::new("/dev/null"), &[&inject], &["echo", "0"]));
            // Before the server blocks it, it ends the program by itself.
            if !seen.contains(&"rt_sigprocmask") {
                assert!(output.status.signal().is_some(), "{inject}: {output:?}");
                continue;
            }
            let messages = String::from_utf8_lossy(&output.stderr);
            let drain = format!("drain signal=SIG{signal} children=0/1024");
            let end = format!("forkline: {drain}\nforkline: drained children=0/1024\n");
            assert!(output.status.success() && messages.ends_with(&end), "{inject}: {output:?}");
        }
    }
    assert!(seen.contains(&"accept"), "{trace}");
    println!("{} calls, 3 signals each", seen.len());
}

#[test]
fn a_signal_at_any_call_of_the_service_is_a_drain() {
    if !tool("strace") {
        return;
    }
    let output = scratch("trace");
    let calls = "accept clone close recvfrom sendto wait4 rt_sigreturn rt_sigprocmask ppoll";
    for call in calls.split(' ') {
        let mut hits = 0;
        // The first of these are still the start.
        let first = match call {
            "accept" => 2,
            "rt_sigprocmask" => 3,
            _ => 1,
        };
        for when in first..first + 3 {
            let inject = format!("inject={call}:signal=TERM:when={when}");
            // With one place, so that it has to wait for it too.
            let args = ["-q", "-c", "1", "-g", FOREVER, "-b", "127.0.0.1", "echo", "0"];
            let mut server = Server::spawn(&mut strace(&output, &[&inject], &args));
            let forkline = children_of(server.pid);
            for _ in 0..3 {
                two_conversations(server.port);
            }
            forkline.iter().for_each(|&pid| kill(pid as i32, libc::SIGTERM));
            assert!(server.wait().success(), "{inject}");
            hits += fs::read_to_string(&*output).unwrap().matches("si_code=SI_KERNEL").count();
        }
        assert!(hits > 0, "no {call}");
    }
}

/// What has come before a child has made its first call is answered all the same.
#[test]
fn a_signal_at_the_first_calls_of_a_child() {
    if !tool("strace") {
        return;
    }
    for call in ["sigaltstack", "rt_sigprocmask", "close", "recvfrom"] {
        let server = Server::start(&["-v", "-g", FOREVER, "echo", "0"]);
        let client = connect_while_stopped(&server, b"one\ntwo");
        let _strace = go_on_traced(&server, &format!("inject={call}:signal=TERM:when=1"));
        assert_eq!(receive_all(&client), (b"one\ntwo".to_vec(), End::Closed), "{call}");
        server.stderr.wait_for(" reason=stop children=0/1024\n");
    }
}

/// A child that is to end before it has closed its copy of the listening socket closes
/// just that: a client that waits to be accepted is served.
#[test]
fn a_signal_to_a_new_child_leaves_the_listening_socket() {
    if !tool("strace") {
        return;
    }
    let server = Server::start(&["-v", "-c", "1", "echo", "0"]);
    let client = connect_while_stopped(&server, b"one\n");
    let waits = connect_while_stopped(&server, b"two\n");
    let strace = go_on_traced(&server, "inject=sigaltstack:signal=TERM:when=1");
    assert_eq!(receive_all(&client), (b"one\n".to_vec(), End::Closed));
    server.stderr.wait_for(" reason=stop children=0/1\n");
    assert!(receive_some(&waits, &mut Vec::new()).is_ok(), "it has no reset");
    drop(strace);
    assert_eq!(say(&server.connect(), b"three\n"), b"three\n");
}

/// Two clients at once; each gets its answer, a reset or no connection.
fn two_conversations(port: u16) {
    let connect = || connect_from([127, 0, 0, 2], ([127, 0, 0, 1], port).into()).ok();
    let clients = [connect(), connect()];
    for mut client in clients.into_iter().flatten().collect::<Vec<_>>() {
        if client.write_all(b"a line\nhalf").is_err() {
            continue; // it has met the reset
        }
        let _ = client.shutdown(Shutdown::Write);
        let (bytes, end) = receive_all(&client);
        // What comes after the server's end is not taken, nor is the client's
        // own end, but met by a reset.
        let told = end == End::Reset || unacknowledged(&client) > 1;
        assert!(told || bytes == b"a line\nhalf", "silence after {bytes:?}");
    }
}

#[test]
fn a_signal_while_it_waits_for_a_place() {
    for signal in ASK {
        let mut server = Server::start(&["-c", "2", "-g", FOREVER, "echo", "0"]);
        let served = [server.connect(), server.connect()];
        for client in &served {
            assert_eq!(say(client, b"a line\n"), b"a line\n");
        }
        let waiting: Vec<_> = (0..5).map(|_| server.connect()).collect();
        for mut client in &waiting {
            client.write_all(b"a line\n").expect("send");
        }
        wait_for("the server waits for a place", || calls(server.pid, libc::SYS_ppoll));
        server.signal(signal);
        for client in &served {
            assert_eq!(receive_all(client), (vec![], End::Closed));
        }
        for client in &waiting {
            assert_eq!(receive_all(client), (vec![], End::Reset), "signal {signal}");
        }
        assert!(server.wait().success());
    }
}

// ---------------------------------------------------------------- the hard end

/// A client who sends and never reads, and whose child waits in send.
fn deaf_client(server: &Server) -> TcpStream {
    let (client, child) = client_and_child(server);
    fill(&client, child, &b"A line that nobody hears.\n".repeat(10_000));
    client
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (first, second) in [
        (libc::SIGTERM, libc::SIGTERM),
        (libc::SIGTERM, libc::SIGINT),
        (libc::SIGINT, libc::SIGHUP),
        (libc::SIGHUP, libc::SIGQUIT),
        (libc::SIGQUIT, 0),
    ] {
        let mut server = Server::start(&["-q", "-v", "-g", FOREVER, "echo", "0"]);
        let clients = [deaf_client(&server), deaf_client(&server)];
        server.signal(first);
        if second != 0 {
            server.stderr.wait_for(&said("drain", first, 2));
            assert_eq!(server.wait_for_children(2).len(), 2);
            if second == first {
                thread::sleep(TWICE_IS_ONCE);
            }
            server.signal(second);
        }
        assert!(server.wait().success(), "signals {first} and {second}");
        server.stderr.wait_for(&said("reset", if second != 0 { second } else { first }, 2));
        server.stderr.wait_for("forkline: drained children=0/1024\n");
        for client in &clients {
            assert_eq!(receive_all(client).1, End::Reset, "signals {first} and {second}");
        }
    }
}

/// All at once: the server takes them before it has reset a connection. A child that
/// it killed then, with lines received and not answered, would leave its client a
/// plain end of file.
#[test]
fn signals_that_come_together_reset_and_do_not_kill() {
    let signals: [&[i32]; 2] =
        [&[libc::SIGQUIT, libc::SIGTERM], &[libc::SIGTERM, libc::SIGINT, libc::SIGHUP]];
    for signals in signals {
        // The reports do not fit into a pipe that nobody reads.
        let (_reader, writer) = std::io::pipe().expect("pipe");
        let mut server = Server::spawn(forkline(&["-g", FOREVER, "echo", "0"]).stdout(writer));
        let mut client = server.connect();
        client.write_all(&b"\n".repeat(10_000)).expect("send");
        let child = server.wait_for_children(1)[0];
        wait_for("its child waits to report", || calls(child, libc::SYS_write));
        stop(server.pid);
        signals.iter().for_each(|&signal| server.signal(signal));
        server.signal(libc::SIGCONT);
        assert!(server.wait().success());
        assert_eq!(receive_all(&client).1, End::Reset, "{}", server.stderr.text());
    }
}

/// What the parent says of a signal that ends it.
fn said(event: &str, signal: i32, children: usize) -> String {
    let name = match signal {
        libc::SIGHUP => "HUP",
        libc::SIGINT => "INT",
        libc::SIGQUIT => "QUIT",
        _ => "TERM",
    };
    format!("forkline: {event} signal=SIG{name} children={children}/1024\n")
}

/// In a shorter time a signal that comes again is the same one.
const TWICE_IS_ONCE: Duration = Duration::from_millis(1100);

/// A terminal that closes sends SIGHUP twice. Here both are pending when the server
/// goes on, so it takes them one directly after the other, however busy the machine is.
#[test]
fn a_signal_that_comes_twice_at_once_is_one() {
    for signal in ASK {
        let mut server = Server::start(&["-g", FOREVER, "echo", "0"]);
        let (mut client, child) = client_and_child(&server);
        client.write_all(b"half").expect("send");
        wait_for("it is taken", || unacknowledged(&client) == 0);
        stop(child);
        stop(server.pid);
        let pid = server.pid as i32;
        // One of the process and one of its thread: two of a kind would be one.
        // SAFETY: no pointers.
        let results = unsafe { [libc::kill(pid, signal), libc::tgkill(pid, pid, signal)] };
        assert_eq!(results, [0, 0]);
        assert_eq!(pending(server.pid, signal), 2);
        kill(pid, libc::SIGCONT);
        wait_for("both are taken", || pending(server.pid, signal) == 0);
        kill(child as i32, libc::SIGCONT);
        assert_eq!(receive_all(&client), (b"half".to_vec(), End::Closed));
        assert!(server.wait().success());
        wait_for("its output ends", || server.stderr.ended());
        assert!(!server.stderr.text().contains(": reset "), "{}", server.stderr.text());
    }
}

/// The terminal's Ctrl-C, twice.
#[test]
fn a_second_ctrl_c_ends_it_at_once() {
    let mut server = Server::start(&["-q", "-v", "-g", FOREVER, "echo", "0"]);
    let client = deaf_client(&server);
    kill(-(server.pid as i32), libc::SIGINT);
    server.stderr.wait_for(&said("drain", libc::SIGINT, 1));
    thread::sleep(TWICE_IS_ONCE);
    kill(-(server.pid as i32), libc::SIGINT);
    assert!(server.wait().success());
    server.stderr.wait_for(&said("reset", libc::SIGINT, 1));
    assert_eq!(receive_all(&client).1, End::Reset);
}

#[test]
fn the_grace_time_ends_for_a_client_who_never_reads() {
    for grace in ["0", "1"] {
        let mut server = Server::start(&["-q", "-g", grace, "echo", "0"]);
        let client = deaf_client(&server);
        let begin = Instant::now();
        server.signal(libc::SIGTERM);
        assert!(server.wait().success());
        assert!(begin.elapsed().as_secs() >= grace.parse().unwrap(), "{:?}", begin.elapsed());
        assert_eq!(receive_all(&client).1, End::Reset);
    }
}

#[test]
fn the_grace_time_ends_for_a_client_who_never_stops_sending() {
    let mut server = Server::start(&["-q", "-g", "1", "echo", "0"]);
    let client = server.connect();
    keep_buffer_small(&client);
    let (end, error) = thread::scope(|scope| {
        // It reads too slowly for its child to catch up: in the grace time at most 100
        // KB, while the child has more than that in its buffer of 128 KiB.
        let reader = scope.spawn(|| {
            let mut piece = [0; 512];
            loop {
                match (&client).read(&mut piece) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Ok(0) => break End::Closed,
                    Ok(_) => thread::sleep(Duration::from_millis(5)),
                    Err(_) => break End::Reset,
                }
            }
        });
        let writer = scope.spawn(|| {
            let lines = b"And another thing.\n".repeat(1000);
            loop {
                if let Err(error) = (&client).write_all(&lines) {
                    break error.kind();
                }
            }
        });
        wait_for("the child waits in send", || {
            server.children().iter().any(|&child| calls(child, libc::SYS_sendto))
        });
        server.signal(libc::SIGTERM);
        assert!(server.wait().success());
        (reader.join().unwrap(), writer.join().unwrap())
    });
    // One of them meets it first, and the other then finds the connection gone.
    assert!(end == End::Reset || error == ErrorKind::ConnectionReset, "{end:?}, {error}");
}

#[test]
fn a_stopped_child_does_not_hold_the_end() {
    let mut server = Server::start(&["-g", "0", "echo", "0"]);
    let (mut client, child) = client_and_child(&server);
    stop(child);
    client.write_all(b"a line\n").expect("send");
    wait_for("the line is taken", || unacknowledged(&client) == 0);
    server.signal(libc::SIGTERM);
    assert!(server.wait().success());
    assert_eq!(receive_all(&client), (vec![], End::Reset));
}

/// Nor does it end in silence: the kernel would close its connection as if all
/// were well, since nothing in it is unread.
#[test]
fn a_child_that_is_stopped_before_it_answers() {
    if !tool("strace") {
        return;
    }
    // If the server, which then has the processor for too short a time, says that it
    // has killed the child, nothing was shown.
    for _ in 0..20 {
        let mut server = Server::start(&["-g", "0", "echo", "0"]);
        let client = connect_while_stopped(&server, b"a line\n");
        let strace = go_on_traced(&server, "inject=recvfrom:signal=STOP:when=1");
        let child = server.wait_for_children(1)[0];
        wait_for("the child has the line and stops", || {
            unread(&client) == Some(0) && "Tt".contains(state(child))
        });
        drop(strace);
        wait_for("the child is stopped and not traced", || state(child) == 'T');
        server.signal(libc::SIGTERM);
        assert!(server.wait().success());
        wait_for("its output ends", || server.stderr.ended());
        if !server.stderr.text().contains(": kill ") {
            assert_eq!(receive_all(&client), (vec![], End::Reset));
            return;
        }
    }
    panic!("the child is always killed");
}

/// The server ends although a debugger holds its child: it kills the child. A killed
/// child cannot tell its client that an answer is missing.
#[test]
fn a_child_that_cannot_run_is_killed() {
    if !tool("strace") {
        return;
    }
    let mut server = Server::start(&["-g", "0", "echo", "0"]);
    let client = connect_while_stopped(&server, b"a line\n");
    let strace = go_on_traced(&server, "inject=recvfrom:delay_exit=1000s:when=1");
    let child = server.wait_for_children(1)[0];
    wait_for("the child has the line and is held", || {
        unread(&client) == Some(0) && state(child) == 't'
    });
    server.signal(libc::SIGTERM);
    server.stderr.wait_for("forkline: kill children=1/1024\n");
    wait_for("the child has been killed", || calls(server.pid, libc::SYS_ppoll));
    // While strace holds the child, the server does not see that it has ended.
    drop(strace);
    assert!(server.wait().success());
    assert_eq!(receive_all(&client), (vec![], End::Closed));
}

/// A client whose bytes are there before the server, which is stopped, accepts it.
fn connect_while_stopped(server: &Server, bytes: &[u8]) -> TcpStream {
    stop(server.pid);
    let mut client = server.connect();
    client.write_all(bytes).expect("send");
    wait_for("it is taken", || unacknowledged(&client) == 0);
    client
}

/// Lets a server that is stopped go on under a strace that has this fault for it and
/// for its children.
fn go_on_traced(server: &Server, inject: &str) -> Server {
    let pid = server.pid.to_string();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", inject, "-p", &pid]);
    let strace = Server::launch(&mut strace);
    wait_for("strace is attached", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
        !status.contains("TracerPid:\t0\n")
    });
    server.signal(libc::SIGCONT);
    strace
}

/// Bytes that have come to the other end of this connection, on this machine,
/// and have not been received there (proc_net_tcp, rx_queue).
fn unread(client: &TcpStream) -> Option<usize> {
    let ports = [client.peer_addr().unwrap().port(), client.local_addr().unwrap().port()];
    let port =
        |address: &str| u16::from_str_radix(address.rsplit(':').next().unwrap(), 16).unwrap();
    let tables = ["tcp", "tcp6"].map(|name| fs::read_to_string(format!("/proc/net/{name}")));
    let mut lines = tables.iter().flatten().flat_map(|table| table.lines().skip(1));
    lines.find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let unread = || usize::from_str_radix(fields[4].split_once(':').unwrap().1, 16).unwrap();
        ([port(fields[1]), port(fields[2])] == ports).then(unread)
    })
}

// ---------------------------------------------------------------- children

/// Each signal there is, to one child: what it does to the client, and nothing
/// to anybody else.
#[test]
fn every_signal_to_a_child() {
    let server = Server::start(&["-v", "echo", "0"]);
    let (bystander, other) = client_and_child(&server);
    for signal in 1..=64 {
        let (mut client, child) = client_and_child(&server);
        client.write_all(b"half").expect("send");
        wait_for("the child has it", || unacknowledged(&client) == 0 && unread(&client) == Some(0));
        kill(child as i32, signal);
        let address = client.local_addr().expect("its address");
        let reason = match signal {
            libc::SIGTERM | libc::SIGINT | libc::SIGHUP => {
                assert_eq!(receive_all(&client), (b"half".to_vec(), End::Closed), "{signal}");
                "stop".into()
            }
            libc::SIGQUIT => {
                assert_eq!(receive_all(&client), (vec![], End::Reset));
                "stop".into()
            }
            libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => {
                wait_for("the child stops", || state(child) == 'T');
                kill(child as i32, libc::SIGCONT);
                assert_eq!(exchange(client, b" a line\n"), b"half a line\n", "{signal}");
                "eof".into()
            }
            libc::SIGCONT
            | libc::SIGURG
            | libc::SIGWINCH
            | libc::SIGPIPE
            | libc::SIGXFSZ
            | libc::SIGCHLD => {
                assert_eq!(exchange(client, b" a line\n"), b"half a line\n", "{signal}");
                "eof".into()
            }
            // glibc's: a process that its posix_spawn starts ignores them.
            32 | 33 => {
                assert_eq!(exchange(client, b" a line\n"), b"half a line\n", "{signal}");
                "eof".into()
            }
            // The signal kills the child at once. It had read all that was sent, so
            // the kernel sends a plain end of file.
            _ => {
                assert_eq!(receive_all(&client), (vec![], End::Closed), "{signal}");
                match signal {
                    libc::SIGKILL => "signal signal=SIGKILL".into(),
                    other => format!("signal signal={other}"),
                }
            }
        };
        server.stderr.wait_for(&format!(
            "forkline: end pid={child} client={address} reason={reason} children=1/1024\n"
        ));
        assert_eq!(server.wait_for_children(1), [other]);
        assert_eq!(say(&bystander, b"hello\n"), b"hello\n");
    }
}

#[test]
fn a_killed_parent_takes_no_conversation_with_it() {
    let mut server = Server::start(&["-q", "rot13", "0"]);
    // Who has been answered has a child that has closed its listening socket.
    let [first, second, busy] = [(); 3].map(|()| client_and_child(&server).0);
    for mut client in [&first, &second] {
        client.write_all(b"Half ").expect("send");
    }
    let (stop, said) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(say(&busy, b"Hello\n"), b"Uryyb\n");
                said.fetch_add(1, Ordering::Relaxed);
            }
        });
        let stop = StopAtEnd(&stop);
        let children: BTreeSet<u32> = server.wait_for_children(3).into_iter().collect();
        server.signal(libc::SIGKILL);
        server.wait();
        // The port is free at once.
        let next = Server::start(&["echo", &server.port.to_string()]);
        assert_eq!(say(&next.connect(), b"Hello\n"), b"Hello\n");
        let before = said.load(Ordering::Relaxed);
        wait_for("the conversation goes on", || said.load(Ordering::Relaxed) > before + 10);
        drop(stop);
        // One ends by itself, another by a drain of its own.
        assert_eq!(exchange(first, b"a line\nEnd"), b"Unys n yvar\nRaq");
        wait_for("a child ends", || children.iter().any(|&pid| has_ended(pid)));
        for &child in &children {
            kill(child as i32, libc::SIGTERM);
        }
        assert_eq!(receive_all(&second), (b"Unys ".to_vec(), End::Closed));
        wait_for("nobody is left", || children.iter().all(|&pid| has_ended(pid)));
    });
}

#[test]
fn stopped_and_continued() {
    let mut server = Server::start(&["-g", FOREVER, "echo", "0"]);
    let (client, child) = client_and_child(&server);
    stop(server.pid);
    assert_eq!(say(&client, b"hello\n"), b"hello\n", "a child needs no parent");
    let mut late = server.connect();
    late.write_all(b"hello\n").expect("send");
    kill(server.pid as i32, libc::SIGCONT);
    assert_eq!(receive(&late, 6), b"hello\n");

    stop(child);
    (&client).write_all(b"one\ntwo").expect("send");
    wait_for("it is taken", || unacknowledged(&client) == 0);
    assert_eq!(say(&late, b"hello\n"), b"hello\n", "the others go on");
    // Asked while both are stopped, it drains when they are not.
    stop(server.pid);
    server.signal(libc::SIGTERM);
    kill(server.pid as i32, libc::SIGCONT);
    assert_eq!(receive_all(&late), (vec![], End::Closed));
    server.wait_for_children(1);
    kill(child as i32, libc::SIGCONT);
    assert_eq!(receive_all(&client), (b"one\ntwo".to_vec(), End::Closed));
    assert!(server.wait().success());
}

/// A call that has a time limit does not go on by itself after a stop (signal(7)).
#[test]
fn conversations_under_stops_and_signals_at_random() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let server = Server::start(&["-q", "-t", "60", "-c", "5", "echo", "0"]);
    let lines = b"Many lines, and none of them may be lost.\n".repeat(100_000);
    thread::scope(|scope| {
        let clients: Vec<_> =
            (0..8).map(|_| scope.spawn(|| exchange(server.connect(), &lines) == lines)).collect();
        while !clients.iter().all(|client| client.is_finished()) {
            let mut pids = server.children();
            pids.push(server.pid);
            let pid = pids[random.usize(..pids.len())] as i32;
            kill(pid, libc::SIGSTOP);
            thread::sleep(Duration::from_micros(random.u64(..2000)));
            kill(pid, libc::SIGCONT);
            kill(pid, libc::SIGCHLD);
        }
        assert!(clients.into_iter().all(|client| client.join().unwrap()));
    });
    server.wait_for_children(0);
    server.has_said_nothing_else();
}

// ---------------------------------------------------------------- how it was started

/// In the background of a script SIGINT is ignored; others may be blocked.
#[test]
fn whatever_was_ignored_or_blocked_before() {
    for signal in ASK {
        let mut command = forkline(&["-g", FOREVER, "echo", "0"]);
        // SAFETY: these calls are async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                let mut all = std::mem::zeroed();
                libc::sigfillset(&mut all);
                libc::sigprocmask(libc::SIG_SETMASK, &all, std::ptr::null_mut());
                for signal in 1..32 {
                    libc::signal(signal, libc::SIG_IGN);
                }
                Ok(())
            });
        }
        let mut server = Server::spawn(&mut command);
        let (client, _) = client_and_child(&server);
        drop(client_and_child(&server));
        server.wait_for_children(1); // SIGCHLD comes
        server.signal(signal);
        let mut ends_it = signal;
        if signal == libc::SIGHUP {
            // As nohup(1) wants it, it goes on.
            assert_eq!(say(&client, b"hello\n"), b"hello\n");
            ends_it = libc::SIGTERM;
            server.signal(ends_it);
        }
        assert_eq!(receive_all(&client), (vec![], End::Closed));
        assert!(server.wait().success());
        server.stderr.wait_for(&said("drain", ends_it, 1));
    }
}

#[test]
fn in_the_background_of_a_script() {
    let mut sh = Command::new("sh");
    sh.args(["-c", r#""$0" "$@" & wait $!"#]).args(command_line(&["-g", FOREVER, "echo", "0"]));
    let mut server = Server::spawn(piped(&mut sh));
    let forkline = children_of(server.pid)[0];
    let client = server.connect();
    assert_eq!(say(&client, b"hello\n"), b"hello\n");
    kill(forkline as i32, libc::SIGINT);
    assert_eq!(receive_all(&client), (vec![], End::Closed));
    assert!(server.wait().success());
}

/// The script that became the server had children: they are waited for, and
/// take no client's place.
#[test]
fn somebody_elses_children() {
    let mut sh = Command::new("sh");
    let script = r#"for i in 1 2 3 4 5; do sleep 1000 >/dev/null 2>&1 & done; exec "$0" "$@""#;
    sh.args(["-c", script]).args(command_line(&["-v", "-c", "1", "echo", "0"]));
    let mut server = Server::spawn(piped(&mut sh));
    let sleepers = server.wait_for_children(5);
    let (first, own) = client_and_child(&server);
    let second = server.connect();
    (&second).write_all(b"hello\n").expect("send");
    // All end in the same instant, as far as the server can see.
    stop(server.pid);
    for &sleeper in &sleepers {
        kill(sleeper as i32, libc::SIGKILL);
    }
    drop(first);
    wait_for("all are zombies", || server.children().iter().all(|&pid| state(pid) == 'Z'));
    kill(server.pid as i32, libc::SIGCONT);
    assert_eq!(receive(&second, 6), b"hello\n", "{}", server.stderr.text());
    server.wait_for_children(1);
    server.stderr.wait_for(&format!("forkline: end pid={own} "));
    let third = server.connect();
    (&third).write_all(b"hello\n").expect("send");
    drop(second);
    assert_eq!(receive(&third, 6), b"hello\n");
    server.signal(libc::SIGTERM);
    assert!(server.wait().success());
    wait_for("its output ends", || server.stderr.ended());
    let log = server.stderr.lines();
    let told = |event: &str| log.iter().filter(|line| line.contains(event)).collect::<Vec<_>>();
    assert!(told(": accept ").iter().all(|line| line.ends_with(" children=1/1")), "{log:?}");
    assert_eq!(told(": end ").len(), 3, "those of its own: {log:?}");
    assert!(log[log.len() - 2].ends_with(" reason=stop children=0/1"), "{log:?}");
    assert_eq!(log.last().unwrap(), "forkline: drained children=0/1");
}

/// forkline as process 1 of a new namespace, and its pid in this one.
fn process_1(args: &[&str]) -> Option<(Server, u32)> {
    let unshare = ["--pid", "--fork", "--mount-proc", "--kill-child"];
    if !tool("unshare") || !tool("nsenter") {
        return None;
    }
    if !run(Command::new("unshare").args(unshare).arg("true")).status.success() {
        skipped("no permission for a namespace of processes");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(unshare).args(command_line(args));
    let server = Server::spawn(piped(&mut command));
    let init = children_of(server.pid)[0];
    let status = fs::read_to_string(format!("/proc/{init}/status")).expect("status");
    assert!(status.contains(&format!("NSpid:\t{init}\t1\n")), "{status}");
    Some((server, init))
}

/// Runs a script in the namespace of process 1. What it leaves behind becomes a
/// child of process 1.
fn run_beside(init: u32, script: &str) {
    let target = ["--target", &init.to_string(), "--pid", "--", "sh", "-c", script];
    assert!(run(Command::new("nsenter").args(target)).status.success());
}

/// Every signal that process 1 of a container has no handler for is ignored,
/// and the orphans of all others become its children.
#[test]
fn as_process_1() {
    for signal in ASK {
        let args = ["-v", "-c", "2", "-g", FOREVER, "echo", "0"];
        let Some((mut server, init)) = process_1(&args) else { return };
        let clients = [server.connect(), server.connect()];
        for client in &clients {
            assert_eq!(say(client, b"hello\n"), b"hello\n");
        }
        let own = children_of(init);

        run_beside(init, "for i in 1 2 3 4 5 6; do sleep 1000 >/dev/null 2>&1 & done");
        wait_for("it has six more", || children_of(init).len() == 2 + 6);
        for orphan in children_of(init).into_iter().filter(|pid| !own.contains(pid)) {
            kill(orphan as i32, libc::SIGKILL);
        }
        wait_for("they are reaped", || children_of(init).len() == 2);

        let third = server.connect();
        (&third).write_all(b"hello\n").expect("send");
        let [mut first, second] = clients;
        drop(second);
        assert_eq!(receive(&third, 6), b"hello\n");
        first.write_all(b"half").expect("send");
        wait_for("it is taken", || unacknowledged(&first) == 0);
        kill(init as i32, signal);
        assert_eq!(receive_all(&first), (b"half".to_vec(), End::Closed));
        assert!(server.wait().success());
        wait_for("its output ends", || server.stderr.ended());
        let log = server.stderr.lines();
        assert_eq!(log.iter().filter(|line| line.contains(": end ")).count(), 3, "{log:?}");
        assert!(log[log.len() - 2].ends_with(" reason=stop children=0/2"), "{log:?}");
        assert_eq!(log.last().unwrap(), "forkline: drained children=0/2");
    }
}

/// As many as no table of children that have ended would hold, with no client
/// who wakes the server: once one by one, and once all in one instant.
#[test]
fn process_1_reaps_thousands_of_orphans() {
    let Some((server, init)) = process_1(&["-v", "echo", "0"]) else { return };
    const ORPHANS: usize = 2600;
    let orphans = format!("i=0; while [ $i -lt {ORPHANS} ]; do (: &); i=$((i + 1)); done");
    run_beside(init, &orphans);
    wait_for("all are reaped", || children_now(init).is_empty());

    stop(init);
    run_beside(init, &orphans);
    let is_zombie = |&pid: &u32| state(pid) == 'Z';
    wait_for("all are zombies", || {
        children_now(init).iter().filter(|p| is_zombie(p)).count() == ORPHANS
    });
    kill(init as i32, libc::SIGCONT);
    wait_for("all are reaped", || children_now(init).is_empty());

    assert_eq!(exchange(server.connect(), b"hello\n"), b"hello\n");
    server.stderr.wait_for(" reason=eof children=0/1024\n");
    let log = server.other_messages();
    assert!(log.len() == 2 && log[0].ends_with(" children=1/1024"), "{log:?}");
}

// ---------------------------------------------------------------- commands

fn strace(output: &Path, options: &[&str], args: &[&str]) -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(output);
    command.args(options.iter().flat_map(|option| ["-e", option]));
    piped(command.args(command_line(args)));
    command
}
