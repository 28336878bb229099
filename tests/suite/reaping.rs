//! Reaping when there are many children: each one that ends is found, the oldest too,
//! though the kernel is not asked to look at all of them for each.

use crate::common::*;
use std::fs;
use std::net::TcpStream;

/// More than the number up to which the kernel is asked for any child.
const MANY: usize = 200;

fn clients(server: &Server) -> Vec<TcpStream> {
    let clients: Vec<_> = (0..MANY).map(|_| server.connect()).collect();
    clients.iter().for_each(|client| assert_eq!(say(client, LINE), LINE));
    clients
}

/// Nobody connects, and no other child ends, so no event but the timer leads to it.
#[test]
fn old_children_are_reaped_though_nothing_else_happens() {
    let server = Server::start(&["-q", "-c", "1000", "echo", "0"]);
    let mut clients = clients(&server);
    for at in [0, MANY / 2, MANY / 3, 1, 0, MANY - 6] {
        clients.remove(at);
        wait_for("it is reaped", || children_now(server.pid).len() == clients.len());
    }
    drop(clients);
    server.wait_for_children(0);
    server.has_said_nothing_else();
}

#[test]
fn many_that_end_at_one_moment_are_all_reaped() {
    let server = Server::start(&["-v", "-c", "1000", "echo", "0"]);
    let mut clients = clients(&server);
    for left in [MANY - 1, MANY / 2, 0] {
        let children = children_now(server.pid);
        stop(server.pid);
        clients.truncate(left);
        let zombies = || children.iter().filter(|&&child| state(child) == 'Z').count();
        wait_for("they are zombies", || zombies() == children.len() - left);
        server.signal(libc::SIGCONT);
        wait_for("they are reaped", || children_now(server.pid).len() == left);
    }
    let ends = || server.stderr.text().matches(" reason=eof ").count();
    wait_for("each end is logged once", || ends() == MANY);
    server.stderr.wait_for(" reason=eof children=0/1000\n");
}

#[test]
fn at_the_cap_the_place_of_an_old_child_is_used() {
    let server = Server::start(&["-q", "-c", &MANY.to_string(), "echo", "0"]);
    let mut clients = clients(&server);
    for at in [0, MANY / 2, MANY - 1] {
        let next = ask(&server);
        assert!(nothing_to_read(&next), "no place is free");
        clients.remove(at);
        assert_eq!(receive(&next, LINE.len()), LINE);
        clients.push(next);
    }
}

/// What a connection costs does not grow with the clients beside it: its child, one of
/// the newest, is asked for by its pid.
#[test]
fn a_child_that_ends_does_not_make_the_kernel_look_at_all() {
    if emulated() || !may_attach() {
        return;
    }
    let server = Server::start(&["-q", "-c", "1000", "echo", "0"]);
    let clients = clients(&server);
    let log = scratch("strace");
    let options = format!("-p {} -e trace=wait4,rt_sigreturn", server.pid);
    let strace = Server::launch(&mut strace(&log, &options));
    wait_for("strace is attached", || strace.stderr.text().contains("attached"));
    for _ in 0..50 {
        assert_eq!(say(&server.connect(), LINE), LINE);
    }
    wait_for("they are reaped", || children_now(server.pid).len() == clients.len());
    strace.signal(libc::SIGINT);
    wait_for("strace ends", || strace.stderr.ended());
    let log = fs::read_to_string(&*log).expect("strace's log");
    let (mut handler, mut by_pid, mut any) = ("", 0, 0);
    for line in log.lines() {
        match line.split('(').next() {
            _ if line.starts_with("--- ") => handler = line,
            Some("wait4") if line.starts_with("wait4(-1,") => {
                any += usize::from(handler.contains("SIGCHLD"));
            }
            Some("wait4") => by_pid += 1,
            _ => {}
        }
    }
    assert!(by_pid > 0 && any == 0, "{by_pid} by pid, {any} of all:\n{log}");
}
