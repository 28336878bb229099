//! The end at a random moment: whatever the clients are doing, nobody is left
//! without an answer or a reset.

use crate::common::*;
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

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
    let resets = in_parallel(4, ROUNDS, |round| {
        let random = fastrand::Rng::with_seed(seed.wrapping_add(round as u64));
        let ends = one_round(random);
        (ends.len(), ends.iter().filter(|&&end| end == End::Reset).count())
    });
    let reset: usize = resets.iter().map(|(_, resets)| resets).sum();
    let whole = resets.iter().map(|(ends, _)| ends).sum::<usize>() - reset;
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
    let (pid, signal) = (server.pid as i32, STOP_SIGNALS[random.usize(..3)]);
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
