//! The orderly end: what the kernel has acknowledged to a client is answered, and then
//! everybody gets an end of file.

use crate::common::*;
use std::io::Write;
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

/// Nobody is surprised by the signal: all that was sent has been taken, so
/// everybody gets the whole answer and then the end of file.
#[test]
fn what_has_been_taken_is_answered() {
    for (service, signal) in
        [("echo", STOP_SIGNALS[0]), ("rot13", STOP_SIGNALS[1]), ("echo", STOP_SIGNALS[2])]
    {
        let mut server = Server::start(&["-q", "-g", FOREVER, service, "0"]);
        let line = b"A line, ".repeat(30);
        let lines = [&line[..], b"\n"].concat();
        let texts: [&[u8]; 5] = [b"", b"half a line", b"one\ntwo", &lines, &lines.repeat(2000)];
        let clients: Vec<_> = (0..200).map(|i| (server.connect(), texts[i % 5])).collect();
        server.wait_for_children(200);
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
fn a_ctrl_c_that_comes_to_a_child_twice_loses_no_answer() {
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

/// A terminal that closes sends SIGHUP twice. Here both are pending when the server
/// goes on, so it takes them one directly after the other, however busy the machine is.
#[test]
fn a_signal_that_comes_twice_at_once_is_one() {
    for signal in STOP_SIGNALS {
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
        assert!(!server.stderr.text().contains(": reset "), "{}", server.stderr.text());
    }
}

#[test]
fn a_signal_while_it_waits_for_a_place_ends_it() {
    for signal in STOP_SIGNALS {
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

/// The answers to these lines wait in the server's kernel when the end comes. A line that
/// comes after it must not destroy them: the kernel would answer it with a reset. It is
/// answered, too.
#[test]
fn answers_under_way_survive_the_end() {
    if emulated() {
        return;
    }
    for service in ["echo", "rot13"] {
        let mut server = Server::start(&["-q", "-g", FOREVER, service, "0"]);
        let (mut client, mut lines) = client_with_much_to_take(&server);
        server.signal(libc::SIGTERM);
        server.stderr.wait_for(": drain ");
        client.write_all(b"one more\n").expect("send");
        lines.extend(b"one more\n");
        assert!(receive_all(&client) == (answer(service, &lines), End::Closed));
        assert!(server.wait().success());
    }
}

/// They wait there, too, if the client has ended its side. Its child waits until it has
/// everything.
#[test]
fn a_client_that_has_half_closed_is_waited_for() {
    if emulated() {
        return;
    }
    let mut server = Server::start(&["-q", "-g", FOREVER, "echo", "0"]);
    let (client, lines) = client_with_much_to_take(&server);
    let child = server.wait_for_children(1)[0];
    server.signal(libc::SIGTERM);
    server.stderr.wait_for(": drain ");
    client.shutdown(Shutdown::Write).expect("shutdown");
    wait_for("its child waits for it", || calls(child, libc::SYS_ppoll));
    thread::sleep(Duration::from_secs(1)); // a client that does not read
    assert_eq!(server.children(), [child]);
    assert!(receive_all(&client) == (lines, End::Closed));
    assert!(server.wait().success());
}

/// Clients that read nothing, of which some have ended their side: their children wait,
/// and do not look all the time. With a reset a client is gone at once, however long its
/// child has waited.
#[test]
fn a_drain_does_not_poll() {
    if emulated() {
        return;
    }
    // A busy machine may be late.
    let is_soon = |_| drain_of_clients_that_do_not_read() < Duration::from_millis(200);
    assert!((0..10).any(is_soon), "children look too seldom");
}

/// Gives the time from the clients' resets to the end of the server.
fn drain_of_clients_that_do_not_read() -> Duration {
    let mut server = Server::start(&["-q", "-g", FOREVER, "echo", "0"]);
    let clients = [(); 4].map(|()| client_with_much_to_take(&server).0);
    let children = server.wait_for_children(4);
    server.signal(libc::SIGTERM);
    server.stderr.wait_for(": drain ");
    for client in &clients[..2] {
        client.shutdown(Shutdown::Write).expect("shutdown");
    }
    thread::sleep(Duration::from_secs(1)); // it may look often at first
    let waits = |&pid: &u32| status(pid, "voluntary_ctxt_switches").parse::<u64>().unwrap();
    let before: Vec<u64> = children.iter().map(waits).collect();
    let begin = Instant::now();
    thread::sleep(Duration::from_secs(2)); // the time it is watched
    let seconds = begin.elapsed().as_secs() + 1;
    let after: Vec<u64> = children.iter().map(waits).collect();
    let most = before.iter().zip(&after).map(|(before, after)| after - before).max().unwrap();
    assert!(most <= 4 * seconds, "{most} looks in {seconds} seconds");
    let begin = Instant::now();
    clients.into_iter().for_each(reset);
    assert!(server.wait().success());
    begin.elapsed()
}

// ---------------------------------------------------------------- signals

/// systemd's SendSIGHUP, sudo and a wrapper at a terminal send two signals: they are one
/// request to stop, also a little while later.
#[test]
fn signals_within_a_second_are_one_request() {
    for later in [0, 700] {
        let begin_to_end = || {
            let mut server = Server::start(&["-q", "-g", FOREVER, "echo", "0"]);
            let (client, lines) = client_with_much_to_take(&server);
            let begin = Instant::now();
            server.signal(libc::SIGTERM);
            server.stderr.wait_for(&stop_message("drain", libc::SIGTERM, 1));
            thread::sleep(Duration::from_millis(later));
            server.signal(libc::SIGHUP);
            server.signal(libc::SIGINT);
            server.signal(libc::SIGTERM);
            let taken = || {
                [libc::SIGHUP, libc::SIGINT, libc::SIGTERM]
                    .iter()
                    .all(|&signal| pending(server.pid, signal) == 0)
            };
            wait_for("all are taken", taken);
            let time = begin.elapsed();
            let whole = receive_all(&client) == (lines, End::Closed);
            assert!(server.wait().success());
            wait_for("its output ends", || server.stderr.ended());
            let is_one = whole && !server.stderr.text().contains(": reset ");
            // On a busy machine the second may be over.
            (time < Duration::from_millis(950)).then_some(is_one)
        };
        let is_one = (0..20).find_map(|_| begin_to_end());
        assert!(is_one.expect("a machine that is not too busy"), "{later} ms later");
    }
}

// ---------------------------------------------------------------- the queue

/// Connections that wait to be accepted are served first.
#[test]
fn what_waits_in_the_queue_is_answered() {
    for signal in STOP_SIGNALS {
        let mut server = Server::start(&["-q", "-g", FOREVER, "echo", "0"]);
        stop(server.pid);
        let clients: Vec<_> = (0..100).map(|_| ask(&server)).collect();
        server.signal(signal);
        kill(server.pid as i32, libc::SIGCONT);
        for client in &clients {
            assert_eq!(receive_all(client), (LINE.to_vec(), End::Closed), "signal {signal}");
        }
        assert!(server.wait().success());
    }
}

/// SIGQUIT and a grace time of 0 wait for nobody.
#[test]
fn what_waits_in_the_queue_is_reset_where_nobody_is_waited_for() {
    for (grace, signal) in [(FOREVER, libc::SIGQUIT), ("0", libc::SIGTERM)] {
        let mut server = Server::start(&["-q", "-g", grace, "echo", "0"]);
        stop(server.pid);
        let clients: Vec<_> = (0..10).map(|_| ask(&server)).collect();
        server.signal(signal);
        kill(server.pid as i32, libc::SIGCONT);
        for client in &clients {
            assert_eq!(receive_all(client), (vec![], End::Reset), "signal {signal}");
        }
        assert!(server.wait().success());
    }
}

/// Clients that come one after the other while the server is told to stop: each that has
/// connected within the moment in which it still accepts is answered. The next ones are
/// refused, and the server ends.
#[test]
fn clients_that_come_meanwhile_are_answered_or_refused() {
    let round = || {
        let mut server = Server::start(&["-q", "-g", FOREVER, "echo", "0"]);
        let address = ([127, 0, 0, 1], server.port).into();
        let begin = Instant::now();
        let mut clients = Vec::new();
        for i in 0..60 {
            if i == 20 {
                server.signal(libc::SIGTERM);
            }
            let client = connect_from([127, 0, 0, 2], address).expect("connect");
            (&client).write_all(LINE).expect("send");
            clients.push(client);
        }
        let in_time = begin.elapsed() < Duration::from_millis(150);
        let answered = clients.iter().all(|client| receive_all(client).0 == LINE);
        assert!(server.wait().success());
        assert!(connect_from([127, 0, 0, 2], address).is_err());
        in_time.then_some(answered)
    };
    let answered = (0..20).find_map(|_| round());
    assert!(answered.expect("a machine that is not too busy"));
}

/// The moment in which it still accepts ends.
#[test]
fn without_clients_it_ends_soon() {
    let mut server = Server::start(&["-g", FOREVER, "echo", "0"]);
    let begin = Instant::now();
    server.signal(libc::SIGTERM);
    assert!(server.wait().success());
    let time = begin.elapsed();
    assert!(time >= Duration::from_millis(200) && time.as_secs() < 5, "{time:?}");
}
