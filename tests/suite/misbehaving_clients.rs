//! Clients that are slow, silent or gone: each costs its own child, nobody else.

use crate::common::*;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

const SERVICES: [&str; 2] = ["echo", "rot13"];

#[test]
fn single_bytes_are_answered_at_their_newline() {
    let text = b"\nOne byte.\n\0\r\nThe end";
    for service in SERVICES {
        let server = Server::start(&[service, "0"]);
        let mut client = server.connect();
        let child = server.wait_for_children(1)[0];
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            for byte in line {
                let (_, sleeps) = comes_to_rest(child);
                client.write_all(&[*byte]).expect("send");
                wait_for("the child has taken the byte", || {
                    at_rest(child).is_some_and(|(_, now)| now > sleeps)
                });
                if *byte != b'\n' {
                    assert!(nothing_to_read(&client), "{service}: answered before the newline");
                }
            }
            if line.ends_with(b"\n") {
                assert_eq!(receive(&client, line.len()), answer(service, line));
            }
        }
        client.shutdown(Shutdown::Write).expect("shutdown");
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).expect("receive");
        assert_eq!(rest, answer(service, b"The end"));
        is_undisturbed(&server);
    }
}

#[test]
fn a_reset_ends_its_child_and_is_not_worth_a_word() {
    let lines = b"a line\n".repeat(10_000);
    type Moment = (&'static str, fn(&Server, &TcpStream, &[u8]));
    let moments: [Moment; 7] = [
        ("before the first byte", |_, _, _| ()),
        ("in a line", |_, client, _| send(client, b"half a line")),
        ("before the answer is read", |_, client, _| send(client, b"a line\n")),
        ("in a conversation", |_, client, _| {
            send(client, b"a line\nhalf");
            receive(client, 7);
        }),
        ("among many lines", |_, client, lines| send(client, lines)),
        ("after a half-close", |_, client, lines| {
            send(client, lines);
            client.shutdown(Shutdown::Write).expect("shutdown");
        }),
        ("while the child waits to send", |server, client, lines| {
            fill(client, server.wait_for_children(1)[0], lines);
        }),
    ];
    for service in SERVICES {
        let server = Server::start(&["-q", service, "0"]);
        for (moment, act) in moments {
            // A close with answers unread is a reset, too.
            for (settled, end) in [(false, reset as fn(_)), (true, reset), (true, drop)] {
                let client = server.connect();
                act(&server, &client, &lines);
                if settled {
                    wait_for("the child waits or is gone", || {
                        server.children().into_iter().all(|child| at_rest(child).is_some())
                    });
                }
                end(client);
                wait_for(&format!("the child ends after a reset {moment}"), || {
                    server.children().is_empty()
                });
            }
        }
        is_undisturbed(&server);
    }
}

#[test]
fn resets_at_random_moments_disturb_nobody() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for service in SERVICES {
        let server = Server::start(&["-q", service, "0"]);
        let bystander = server.connect();
        for _ in 0..500 {
            assert_eq!(say(&bystander, b"123\n"), b"123\n");
            let client = server.connect();
            for _ in 0..random.usize(0..4) {
                let bytes: Vec<u8> = (0..random.usize(0..3000)).map(|_| random.u8(..)).collect();
                send(&client, &bytes);
            }
            if random.bool() {
                client.shutdown(Shutdown::Write).expect("shutdown");
            }
            match random.u8(..3) {
                0 => drop(client),
                _ => reset(client),
            }
        }
        drop(bystander);
        is_undisturbed(&server);
    }
}

#[test]
fn a_half_close_first_and_then_everything_is_read() {
    let mut text = b"a line of an unhurried client\n".repeat(2_000);
    text.extend(b"and no newline");
    for service in SERVICES {
        let server = Server::start(&[service, "0"]);
        let mut client = server.connect();
        send(&client, &text);
        client.shutdown(Shutdown::Write).expect("shutdown");
        server.wait_for_children(0); // all is in the socket, the child has gone
        let mut got = Vec::new();
        client.read_to_end(&mut got).expect("receive");
        assert_eq!(got, answer(service, &text));
        is_undisturbed(&server);
    }
}

#[test]
fn a_client_that_does_not_read_blocks_its_child_and_loses_nothing() {
    for service in SERVICES {
        let server = Server::start(&["-q", service, "0"]);
        let mut client = server.connect();
        let child = server.wait_for_children(1)[0];
        let line = |n: usize| format!("line {n} of the megabytes that nobody reads\n").into_bytes();
        let lines: Vec<u8> = (0..20_000).flat_map(line).collect();
        let sent = fill(&client, child, &lines);
        assert!(sent > 1 << 20, "blocked after only {sent} bytes");
        stays_at_rest(child);

        // A stopped process's send returns with what it has sent so far.
        stop(child);
        kill(child as i32, libc::SIGCHLD);
        kill(child as i32, libc::SIGCONT);
        let reader = client.try_clone().expect("clone");
        let got = thread::scope(|scope| {
            let reading = scope.spawn(|| read_while_signals_cut_sends_short(&reader, child));
            client.write_all(b"and more\nthe end").expect("send");
            client.shutdown(Shutdown::Write).expect("shutdown");
            reading.join().expect("reader")
        });
        let sent: Vec<u8> = lines.iter().cycle().take(sent).copied().collect();
        let sent = [&sent[..], b"and more\nthe end"].concat();
        assert_eq!(got.len(), sent.len());
        assert!(got == answer(service, &sent), "the bytes differ");
        is_undisturbed(&server);
    }
}

/// A send that is interrupted after it has taken some bytes returns their number
/// (send(2)); SIGCHLD has a handler in the child too.
fn read_while_signals_cut_sends_short(client: &TcpStream, child: u32) -> Vec<u8> {
    let mut got = Vec::new();
    while receive_some(client, &mut got).expect("receive") > 0 {
        kill(child as i32, libc::SIGCHLD);
    }
    got
}

#[test]
fn silence_costs_no_time() {
    let server = Server::start(&["echo", "0"]);
    stays_at_rest(server.pid);
    let client = server.connect();
    stays_at_rest(server.wait_for_children(1)[0]);
    send(&client, b"half a line");
    stays_at_rest(server.wait_for_children(1)[0]);
    stays_at_rest(server.pid);
}

/// An urgent byte is a part of the line (RFC 6093). Else it would vanish, and the line
/// with it if it is the newline.
#[test]
fn urgent_data_is_answered_in_its_place() {
    for lines in [[b"abc", b"!", b"def\n"], [b"abc", b"\n", b"def\n"]] as [[&[u8]; 3]; 2] {
        let server = Server::start(&["-q", "echo", "0"]);
        let mut client = server.connect();
        client.write_all(lines[0]).expect("send");
        // SAFETY: one byte.
        let sent =
            unsafe { libc::send(client.as_raw_fd(), lines[1].as_ptr().cast(), 1, libc::MSG_OOB) };
        assert_eq!(sent, 1);
        assert_eq!(exchange(client, lines[2]), lines.concat());
    }
}

#[test]
fn clients_that_say_nothing_leave_nothing_behind() {
    let server = Server::start(&["echo", "0"]);
    for _ in 0..100 {
        drop(server.connect());
        reset(server.connect());
        server.connect().shutdown(Shutdown::Write).expect("shutdown");
    }
    is_undisturbed(&server);
    server.stdout.wait_for("server received 1 bytes\n");
    assert_eq!(server.stop().0, "server received 12 bytes\nserver received 1 bytes\n");
}

/// A line, a half-close and a reset, all before the child looks: the line is
/// still received, its answer meets EPIPE and so SIGPIPE. The C echo shows that
/// it does: it ignores nothing.
#[test]
fn an_answer_to_a_closed_connection_does_not_kill() {
    // SAFETY: no pointers. Orphans come to this process, which can wait for them.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
    let forkline = |service| Server::start(&["-q", service, "0"]);
    for service in SERVICES {
        let status = answer_to_nobody(forkline(service));
        assert!(libc::WIFEXITED(status), "{service}: wait status {status:#x}");
    }
    let status = answer_to_nobody(Server::start_c("echo"));
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGPIPE);
}

fn answer_to_nobody(server: Server) -> i32 {
    let client = server.connect();
    let child = server.wait_for_children(1)[0];
    stop(child);
    send(&client, b"a line\n");
    reset_unseen(client, child);

    server.signal(libc::SIGKILL);
    let adopted = Some(('T', std::process::id()));
    wait_for("this process has adopted the child", || stat(child) == adopted);
    kill(child as i32, libc::SIGCONT);
    let mut status = 0;
    wait_for("the child ends", || {
        // SAFETY: status outlives the call.
        unsafe { libc::waitpid(child as i32, &mut status, libc::WNOHANG) == child as i32 }
    });
    status
}

fn send(mut client: &TcpStream, bytes: &[u8]) {
    client.write_all(bytes).expect("send");
}

/// Processor time used (in clock ticks, proc(5)) and how often it has gone to
/// sleep, of a process that sleeps now.
fn at_rest(pid: u32) -> Option<(u64, u64)> {
    let switches = status(pid, "voluntary_ctxt_switches").parse().ok()?;
    (state(pid) == 'S').then_some((ticks(pid)[0], switches))
}

fn comes_to_rest(pid: u32) -> (u64, u64) {
    let mut rest = None;
    wait_for("the process sleeps", || {
        rest = at_rest(pid);
        rest.is_some()
    });
    rest.unwrap()
}

/// Over a while it neither runs nor wakes.
fn stays_at_rest(pid: u32) {
    wait_for("the process blocks and stays so", || {
        let before = at_rest(pid);
        thread::sleep(Duration::from_millis(300)); // the time it is watched
        before.is_some() && at_rest(pid) == before
    });
}

/// Nobody is left, nothing was said, and the next client is served.
fn is_undisturbed(server: &Server) {
    server.wait_for_children(0);
    assert_eq!(exchange(server.connect(), b"12345678901\n.").len(), 13);
    server.wait_for_children(0);
    server.has_said_nothing_else();
}
