//! One child per connection: whose it is, what it holds and how it ends.

use crate::common::*;
use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::thread;

#[test]
fn every_connection_has_its_own_child_of_the_server() {
    let server = Server::start(&["echo", "0"]);
    let clients: Vec<_> = (0..5).map(|_| server.connect()).collect();
    let ports: BTreeSet<u16> = clients.iter().map(local_port).collect();
    let children = server.wait_for_children(5);
    wait_for("each child holds one connection and no listening socket", || {
        let served = children.iter().filter_map(|&child| match tcp_sockets(child)[..] {
            [Tcp { listens: false, peer, .. }] => Some(peer),
            _ => None,
        });
        served.collect::<BTreeSet<u16>>() == ports
    });
    wait_for("the server holds its listening socket and no connection", || {
        matches!(tcp_sockets(server.pid)[..], [Tcp { listens: true, .. }])
    });
}

#[test]
fn a_child_ends_with_its_own_connection() {
    let server = Server::start(&["rot13", "0"]);
    let clients: Vec<_> = (0..3).map(|_| server.connect()).collect();
    server.wait_for_children(3);
    for client in clients {
        let child = child_of(&server, &client);
        let others: Vec<_> = server.children().into_iter().filter(|&pid| pid != child).collect();
        drop(client);
        wait_for("its child is gone", || stat(child).is_none());
        assert_eq!(server.children(), others);
    }
}

#[test]
fn twenty_thousand_connections_leave_nothing_behind() {
    own_network(); // if possible: nobody else is to meet 20,000 ports in TIME_WAIT
    let server = Server::start(&["echo", "0"]);
    let serve = |connections: usize| {
        thread::scope(|scope| {
            for thread in 0..4 {
                // Each thread at an address of its own, or these ports would run out.
                let address = (Ipv4Addr::new(127, 0, 0, 2 + thread), server.port);
                scope.spawn(move || {
                    for _ in 0..connections / 4 {
                        assert_eq!(say(&connect(address), b"hello\n"), b"hello\n");
                    }
                });
            }
        });
        server.wait_for_children(0);
        footprint(server.pid)
    };
    let before = serve(4_000); // everything has been touched once
    let after = serve(20_000);
    // The kernel may have taken some of the file's pages before, and given them back since.
    const FILE: isize = 20;
    let memory_grown = after[1..].iter().zip(&before[1..]).any(|(a, b)| *a > b + FILE);
    // An emulator's memory is its own business.
    let grown = after[0] > before[0] || memory_grown && std::env::var_os("FORKLINE").is_none();
    assert!(!grown, "descriptors, resident and private KiB: {before:?}, then {after:?}");
    wait_for("24000 reports", || server.stdout.lines().len() == 24_000);
    server.has_said_nothing_else();
}

#[test]
fn children_that_end_together_are_all_reaped() {
    let server = Server::start(&["rot13", "0"]);
    for _ in 0..5 {
        let clients = two_hundred(&server);
        drop(clients);
        server.wait_for_children(0);
    }
    for _ in 0..5 {
        let clients = two_hundred(&server);
        for child in server.children() {
            kill(child as i32, libc::SIGKILL);
        }
        server.wait_for_children(0);
        drop(clients);
    }
}

/// One SIGCHLD stands for all 200: signals do not queue.
#[test]
fn children_that_end_while_the_server_is_stopped_are_all_reaped() {
    let server = Server::start(&["echo", "0"]);
    for _ in 0..3 {
        let clients = two_hundred(&server);
        stop(server.pid);
        let children = server.children();
        drop(clients);
        wait_for("200 zombies", || children.iter().all(|&child| state(child) == 'Z'));
        server.signal(libc::SIGCONT);
        server.wait_for_children(0);
    }
    assert_eq!(say(&server.connect(), b"hello\n"), b"hello\n");
}

#[test]
fn a_signal_to_a_child_disturbs_no_other_connection() {
    if emulated() {
        return;
    }
    let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit outlives the call.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &no_core) };
    let server = Server::start(&["echo", "0"]);
    let bystander = server.connect();
    let kept = server.wait_for_children(1);
    for signal in 1..=64 {
        let client = server.connect();
        assert_eq!(say(&client, b"before\n"), b"before\n");
        let child = *server.children().iter().find(|pid| !kept.contains(pid)).unwrap();
        (&bystander).write_all(b"half ").expect("send");

        let ignored = has_signal(child, "SigIgn", signal);
        kill(child as i32, signal);
        match signal {
            libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => {
                wait_for("the child stops", || state(child) == 'T');
                kill(child as i32, libc::SIGCONT);
                assert_eq!(say(&client, b"after\n"), b"after\n", "signal {signal}");
            }
            // Ignored by default, or handled by forkline.
            libc::SIGCONT | libc::SIGURG | libc::SIGWINCH | libc::SIGCHLD => {
                assert_eq!(say(&client, b"after\n"), b"after\n", "signal {signal}");
            }
            // SIGPIPE, and what forkline was started with: SIGINT and SIGQUIT in a
            // script's background, 32 and 33 after glibc's posix_spawn.
            _ if ignored => {
                assert_eq!(say(&client, b"after\n"), b"after\n", "signal {signal}");
            }
            _ => assert!(has_ended(&client), "signal {signal}"),
        }
        (&bystander).write_all(b"a line\n").expect("send");
        assert_eq!(receive(&bystander, 12), b"half a line\n", "signal {signal}");
        drop(client);
        wait_for("the child is reaped", || server.children() == kept);
    }
    assert_eq!(say(&server.connect(), b"hello\n"), b"hello\n");
    let messages = server.other_messages();
    let told =
        |line: &String| line.starts_with("forkline: end ") && line.contains(" reason=signal ");
    assert!(messages.iter().all(told), "{messages:#?}");
}

/// The connection ends, by end of file or by a reset.
fn has_ended(client: &TcpStream) -> bool {
    match receive_some(client, &mut Vec::new()) {
        Ok(n) => n == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

fn two_hundred(server: &Server) -> Vec<TcpStream> {
    let clients = (0..200).map(|_| server.connect()).collect();
    server.wait_for_children(200);
    clients
}

fn child_of(server: &Server, client: &TcpStream) -> u32 {
    let port = local_port(client);
    let mut found = None;
    wait_for("a child holds the connection", || {
        let mut children = server.children().into_iter();
        found = children.find(|&child| tcp_sockets(child).iter().any(|tcp| tcp.peer == port));
        found.is_some()
    });
    found.unwrap()
}

fn local_port(stream: &TcpStream) -> u16 {
    stream.local_addr().expect("local address").port()
}
