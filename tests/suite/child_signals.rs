//! Signals to a child, or to its parent while it serves: they are the matter of that
//! process, and nobody else notices.

use crate::common::*;
use std::collections::BTreeSet;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Each signal there is: what it does to the child's client, what the log tells, and
/// nothing to anybody else.
#[test]
fn a_signal_to_a_child_disturbs_no_other_connection() {
    if emulated() {
        return;
    }
    set_limit(0, libc::RLIMIT_CORE, 0);
    let server = Server::start(&["-v", "echo", "0"]);
    let (mut bystander, other) = client_and_child(&server);
    for signal in 1..=64 {
        let (mut client, child) = client_and_child(&server);
        bystander.write_all(b"half ").expect("send");
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
            libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN => {
                wait_for("the child stops", || state(child) == 'T');
                kill(child as i32, libc::SIGCONT);
                assert_eq!(exchange(client, b" a line\n"), b"half a line\n", "{signal}");
                "eof".into()
            }
            // glibc's 32 and 33: a process that its posix_spawn starts ignores them.
            libc::SIGCONT
            | libc::SIGURG
            | libc::SIGWINCH
            | libc::SIGPIPE
            | libc::SIGXFSZ
            | libc::SIGCHLD
            | libc::SIGALRM
            | libc::SIGTTOU
            | 32
            | 33 => {
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
        bystander.write_all(b"a line\n").expect("send");
        assert_eq!(receive(&bystander, 12), b"half a line\n", "signal {signal}");
    }
    assert_eq!(say(&server.connect(), LINE), LINE);
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
fn a_stop_of_the_server_or_of_a_child_loses_nothing() {
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
fn stops_and_signals_at_random_lose_nothing() {
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
