//! The idle limit: a client that sends nothing and takes nothing is left, and one that
//! does either is not.

use crate::common::*;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

// ---------------------------------------------------------------- silence

#[test]
fn a_silent_client_is_left_and_half_a_line_is_answered() {
    let server = Server::start(&["-t", "1", "rot13", "0"]);
    // Before they have children, whose time runs.
    stop(server.pid);
    let silent = server.connect();
    let mut half = server.connect();
    half.write_all(b"a line\nhalf").expect("send");
    server.signal(libc::SIGCONT);
    assert_eq!(receive(&half, 11), b"n yvar\nunys");
    for client in [silent, half] {
        assert_eq!(receive_some(&client, &mut Vec::new()).expect("end of file"), 0);
    }
    server.wait_for_children(0);
    server.has_said_nothing_else();
}

#[test]
fn a_client_that_sends_now_and_then_is_not_left() {
    at_its_pace(|idle, pace| {
        let server = Server::start(&["-t", &idle.as_secs().to_string(), "echo", "0"]);
        let start = Instant::now();
        let mut client = server.connect();
        while start.elapsed() < idle * 5 / 2 {
            pace.step(idle * 9 / 10);
            client.write_all(b"x").expect("send");
            thread::sleep(idle / 4); // the client's pace, not a wait
        }
        client.write_all(b"\n").expect("send");
        assert_eq!(receive(&client, 2)[0], b'x');
    });
}

/// 1024 silent clients have every place; the good one waits until they are left.
#[test]
fn silent_clients_cannot_keep_a_good_one_out() {
    let server = Server::start(&["-t", "2", "echo", "0"]);
    let silent: Vec<_> = (0..1024).map(|_| server.connect()).collect();
    let good = server.connect();
    assert!(served(&good));
    drop(silent);
}

// ---------------------------------------------------------------- answers under way

/// The same at the idle limit. The client takes a little now and then: enough for
/// its kernel to say so to the server's before the limit.
#[test]
fn answers_under_way_survive_the_idle_limit() {
    if emulated() {
        return;
    }
    at_its_pace(|idle, pace| {
        // A server that has seen nothing taken at its first look ends it at the second.
        pace.step(idle * 2);
        let server = Server::start(&["-q", "-t", &idle.as_secs().to_string(), "echo", "0"]);
        let (mut client, lines) = client_with_much_to_take(&server);
        let mut answers = Vec::new();
        let (begin, mut piece) = (Instant::now(), [0; 8000]);
        while begin.elapsed() < idle * 13 / 10 {
            client.read_exact(&mut piece).expect("receive");
            answers.extend_from_slice(&piece);
            thread::sleep(idle / 40); // the client's pace
        }
        let _ = client.write(b"one more\n");
        answers.extend(receive_all(&client).0);
        assert!(answers.starts_with(&lines), "{} bytes", answers.len());
    });
}

/// It stalls once with little under way, and later takes 160 KB a second of much:
/// it must not be reset for the early stall.
#[test]
fn a_client_that_takes_slowly_is_served() {
    if emulated() {
        return;
    }
    at_its_pace(|idle, pace| {
        pace.step(idle * 2);
        let server = Server::start(&["-q", "-t", &idle.as_secs().to_string(), "echo", "0"]);
        let (client, first) = client_with_much_to_take(&server);
        thread::sleep(idle * 5 / 4); // the stall
        assert!(receive(&client, first.len()) == first);
        // More than all buffers hold, so that the child waits in send, too.
        let lines = b"Many lines that are taken slowly.\n".repeat(1_000_000);
        thread::scope(|scope| {
            scope.spawn(|| (&client).write_all(&lines).expect("send"));
            let (begin, mut got) = (Instant::now(), Vec::new());
            while begin.elapsed() < idle * 5 {
                // Several of these pieces make room in its buffer that is announced.
                pace.step(idle / 5);
                got.extend(receive(&client, 16_000));
                thread::sleep(idle / 20); // the client's pace
            }
            pace.step(DEADLINE);
            got.extend(receive(&client, lines.len() - got.len()));
            assert!(got == lines);
        });
    });
}

/// What it takes within the idle limit makes no room in the server's send buffer: the
/// limit is over for the child that waits in send, but its client has taken something.
#[test]
fn a_client_that_takes_little_is_served() {
    if emulated() {
        return;
    }
    at_its_pace(|idle, pace| {
        pace.step(idle * 2);
        let server = Server::start(&["-q", "-t", &idle.as_secs().to_string(), "echo", "0"]);
        let client = connect_with([127, 0, 0, 2], ([127, 0, 0, 1], server.port).into(), Some(8192));
        let client = client.expect("connect");
        let lines = b"Many lines of which few are taken.\n".repeat(1_000_000);
        thread::scope(|scope| {
            let sender = scope.spawn(|| (&client).write_all(&lines));
            let (begin, mut got) = (Instant::now(), Vec::new());
            while begin.elapsed() < idle * 6 {
                pace.step(idle / 5);
                got.extend(receive(&client, 500));
                thread::sleep(idle / 20); // the client's pace
            }
            assert!(lines.starts_with(&got));
            client.shutdown(Shutdown::Both).expect("shutdown");
            let _ = sender.join();
        });
    });
}

/// A client that sends for ever and takes nothing is reset once its idle limit is over
/// for the second time: the first time it had taken what its buffers hold. Mostly it
/// is the third time: if the send buffer has a little room after the first limit, the
/// next send fills that room and then waits. Such a send returns a short count, and the
/// server judges a client only after a send that copied nothing.
#[test]
fn a_client_that_floods_and_takes_nothing_is_reset() {
    if emulated() {
        return;
    }
    at_its_pace(|idle, pace| {
        assert!(time_to_reset(idle, pace) < idle * 7 / 2);
    });
}

/// How long a client that sends for ever and takes nothing is served.
fn time_to_reset(idle: Duration, pace: &Pace) -> Duration {
    pace.step(DEADLINE);
    let server = Server::start(&["-q", "-t", &idle.as_secs().to_string(), "echo", "0"]);
    let mut client = server.connect();
    let lines = b"A line whose answer nobody takes.\n".repeat(10_000);
    client.set_write_timeout(Some(idle / 10)).expect("timeout");
    let begin = Instant::now();
    loop {
        pace.step(idle / 5);
        match client.write(&lines).map_err(|error| error.kind()) {
            Ok(_) | Err(ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                assert!(begin.elapsed() < idle * 7 / 2, "it goes on");
            }
            // What it has sent cannot be answered, so it is told: never a clean end.
            Err(error) => break assert_eq!(error, ErrorKind::ConnectionReset),
        }
    }
    server.wait_for_children(0);
    let time = begin.elapsed();
    assert!(time >= idle * 2);
    time
}

/// The idle limit counts after SIGTERM, too. The server waits for a client that takes its
/// answers. It resets one that takes nothing for so long.
#[test]
fn the_idle_limit_holds_while_the_server_ends() {
    if emulated() {
        return;
    }
    at_its_pace(|idle, pace| {
        pace.step(idle);
        let idle_limit = idle.as_secs().to_string();
        let mut server = Server::start(&["-q", "-g", "86400", "-t", &idle_limit, "echo", "0"]);
        let (slow, lines) = client_with_much_to_take(&server);
        let (stuck, _) = client_with_much_to_take(&server);
        let begin = Instant::now();
        server.signal(libc::SIGTERM);
        let mut answers = Vec::new();
        while begin.elapsed() < idle * 9 / 4 {
            pace.step(idle / 5);
            answers.extend(receive(&slow, 16_000));
            let has_both = server.children().len() == 2;
            assert!(has_both || begin.elapsed() >= idle, "one ends too early");
            thread::sleep(idle / 10); // the client's pace
        }
        // A wait for a server that never ends does not count as a late step.
        pace.step(DEADLINE * 2);
        answers.extend(receive_all(&slow).0);
        assert!(answers == lines, "{} bytes", answers.len());
        assert!(server.wait().success());
        assert_eq!(receive_all(&stuck).1, End::Reset);
    });
}
