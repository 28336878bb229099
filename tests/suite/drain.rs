//! The orderly end: what the kernel has acknowledged to a client is answered, and then
//! everybody gets an end of file.

use crate::common::*;
use std::io::Write;
use std::thread;

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
        wait_for("its output ends", || server.stderr.ended());
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

/// The answers to these lines wait in the server's kernel when the end comes. A
/// line that comes after it must not destroy them: the kernel would answer it with
/// a reset.
#[test]
fn answers_under_way_survive_the_end() {
    if emulated() {
        return;
    }
    for service in ["echo", "rot13"] {
        let mut server = Server::start(&["-q", "-g", "86400", service, "0"]);
        let (mut client, lines) = client_with_much_to_take(&server);
        let child = server.wait_for_children(1)[0];
        server.signal(libc::SIGTERM);
        wait_for("its child waits for it", || calls(child, libc::SYS_ppoll));
        client.write_all(b"one more\n").expect("send");
        let (answers, _) = receive_all(&client);
        assert!(answers == answer(service, &lines), "{} bytes", answers.len());
        assert!(server.wait().success());
    }
}
