//! The end of clients who do not end by themselves: a second signal or the end of the
//! grace time resets them, and a child that cannot run is killed.

use crate::common::*;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn a_second_signal_ends_it_at_once() {
    for (first, second, group) in [
        (libc::SIGTERM, libc::SIGTERM, false),
        (libc::SIGTERM, libc::SIGINT, false),
        (libc::SIGINT, libc::SIGINT, true), // Ctrl-C in a terminal, twice
        (libc::SIGINT, libc::SIGHUP, false),
        (libc::SIGHUP, libc::SIGQUIT, false),
        (libc::SIGQUIT, 0, false),
    ] {
        let mut server = Server::start(&["-q", "-v", "-g", FOREVER, "echo", "0"]);
        let clients = [deaf_client(&server), deaf_client(&server)];
        let pid = server.pid as i32;
        let send = |signal| kill(if group { -pid } else { pid }, signal);
        send(first);
        if second != 0 {
            server.stderr.wait_for(&stop_message("drain", first, 2));
            assert_eq!(server.wait_for_children(2).len(), 2);
            if second != libc::SIGQUIT {
                thread::sleep(ONE_REQUEST);
            }
            send(second);
        }
        assert!(server.wait().success(), "signals {first} and {second}");
        server.stderr.wait_for(&stop_message("reset", if second != 0 { second } else { first }, 2));
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
fn signals_that_come_together_with_sigquit_reset_and_do_not_kill() {
    let signals: [&[i32]; 2] =
        [&[libc::SIGQUIT, libc::SIGTERM], &[libc::SIGQUIT, libc::SIGINT, libc::SIGHUP]];
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

#[test]
fn the_grace_time_ends_for_a_client_who_never_reads() {
    for grace in [0, 3] {
        let mut server = Server::start(&["-q", "-g", &grace.to_string(), "echo", "0"]);
        let client = deaf_client(&server);
        let begin = Instant::now();
        server.signal(libc::SIGTERM);
        assert!(server.wait().success());
        let time = begin.elapsed().as_secs();
        assert!((grace..2 * grace + 3).contains(&time), "{grace} s: {:?}", begin.elapsed());
        assert_eq!(receive_all(&client).1, End::Reset);
    }
}

/// The grace time does not begin anew when a child ends, also where a system call does not
/// tell the time that is left (personality(2), STICKY_TIMEOUTS).
#[test]
fn the_grace_time_is_one_for_all_clients() {
    let words = command_line(&["-q", "-g", "2", "echo", "0"]);
    let mut plain = Command::new(&words[0]);
    plain.args(&words[1..]);
    let mut sticky = Command::new("setarch");
    sticky.args(["-T"]).args(&words);
    for command in [&mut plain, &mut sticky] {
        if command.get_program() == "setarch" && !tool("setarch") {
            continue;
        }
        let mut server = Server::spawn(piped(command));
        let stuck = deaf_client(&server);
        let mut others: Vec<_> = (0..12).map(|_| deaf_client(&server)).collect();
        let begin = Instant::now();
        server.signal(libc::SIGTERM);
        while server.ended().is_none() {
            thread::sleep(Duration::from_millis(400)); // until the next client leaves
            others.pop().into_iter().for_each(reset);
        }
        let time = begin.elapsed();
        assert!((2..5).contains(&time.as_secs()), "{command:?}: {time:?}");
        assert_eq!(receive_all(&stuck).1, End::Reset);
    }
}

#[test]
fn the_grace_time_ends_for_a_client_who_never_stops_sending() {
    let mut server = Server::start(&["-q", "-g", "1", "echo", "0"]);
    let client = server.connect();
    keep_buffer_small(&client);
    let (end, error) = thread::scope(|scope| {
        // It reads too slowly for its child to catch up: in the grace time at most 100
        // KB, while more than that waits in its receive queue.
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
fn a_child_that_is_stopped_before_it_answers_resets() {
    if !tool("strace") {
        return;
    }
    // If the server, which then has the processor for too short a time, says that it
    // has killed the child, nothing was shown.
    for _ in 0..20 {
        let mut server = Server::start(&["-g", "0", "echo", "0"]);
        let client = connect_while_stopped(&server, b"a line\n");
        let strace = go_on_traced(&server, "recvfrom", "signal=STOP:when=1");
        let child = server.wait_for_children(1)[0];
        wait_for("the child has the line and stops", || {
            unread(&client) == Some(0) && "Tt".contains(state(child))
        });
        drop(strace);
        wait_for("the child is stopped and not traced", || state(child) == 'T');
        server.signal(libc::SIGTERM);
        assert!(server.wait().success());
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
    let strace = go_on_traced(&server, "recvfrom", "delay_exit=1000s:when=1");
    let child = server.wait_for_children(1)[0];
    wait_for("the child has the line and is held", || {
        unread(&client) == Some(0) && state(child) == 't'
    });
    let begin = Instant::now();
    server.signal(libc::SIGTERM);
    server.stderr.wait_for("forkline: kill children=1/1024\n");
    let time = begin.elapsed();
    assert!((1..10).contains(&time.as_secs()), "{time:?}");
    wait_for("the child has been killed", || calls(server.pid, libc::SYS_ppoll));
    // While strace holds the child, the server does not see that it has ended.
    drop(strace);
    assert!(server.wait().success());
    assert_eq!(receive_all(&client), (vec![], End::Closed));
}

/// A client who sends and never reads, and whose child waits in send.
fn deaf_client(server: &Server) -> TcpStream {
    let (client, child) = client_and_child(server);
    fill(&client, child, &b"A line that nobody hears.\n".repeat(10_000));
    client
}

/// In a shorter time a further signal is the same request, unless it is SIGQUIT.
const ONE_REQUEST: Duration = Duration::from_millis(1100);
