//! Several servers on one port: `-r`.

use crate::common::*;
use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;

/// What a client says. It is one packet, so it comes whole or not at all.
const TEXT: &[u8] = b"one\ntwo\nand half a line";

/// Two servers that share a port. They say whom they accept.
fn two_servers() -> [Server; 2] {
    let first = Server::start(&["-r", "-v", "echo", "0"]);
    let second = Server::start(&["-r", "-v", "echo", &first.port.to_string()]);
    assert_eq!(first.port, second.port);
    [first, second]
}

/// Clients come until each server has a child that has answered one.
fn both_serve(servers: &[Server; 2]) -> Vec<TcpStream> {
    let mut clients = Vec::new();
    wait_for("both have answered", || {
        let client = servers[0].connect();
        assert_eq!(say(&client, LINE), LINE);
        clients.push(client);
        servers.iter().all(|server| !server.children().is_empty())
    });
    clients
}

#[test]
fn without_it_a_second_server_is_refused() {
    for first in [&["echo", "0"][..], &["-r", "echo", "0"]] {
        let server = Server::start(first);
        let port = server.port.to_string();
        for second in [&["echo", &port][..], &["-r", "echo", &port]] {
            if first[0] == "-r" && second[0] == "-r" {
                continue;
            }
            let output = run(&mut forkline(second));
            let said = text(&output.stderr);
            assert!(said.contains(" EADDRINUSE ") && output.status.code() == Some(1), "{said}");
        }
        assert_eq!(exchange(server.connect(), LINE), LINE);
    }
}

#[test]
fn two_servers_share_a_port() {
    let servers = two_servers();
    let clients = both_serve(&servers);
    let children = servers.each_ref().map(|server| server.children().len());
    assert_eq!(children[0] + children[1], clients.len());
    for client in &clients {
        assert_eq!(say(client, LINE), LINE);
    }
}

#[test]
fn each_has_its_processor() {
    if !tool("taskset") {
        return;
    }
    let [first, second, ..] = processors()[..] else {
        return skipped("one processor");
    };
    let pinned = |processor: usize, port: &str| {
        let mut taskset = Command::new("taskset");
        taskset.args(["-c", &processor.to_string()]).args(command_line(&["-r", "echo", port]));
        Server::spawn(piped(&mut taskset))
    };
    let one = pinned(first, "0");
    let other = pinned(second, &one.port.to_string());
    let servers = [one, other];
    let _clients = both_serve(&servers);
    for (server, processor) in servers.iter().zip([first, second]) {
        for pid in server.children().into_iter().chain([server.pid]) {
            assert_eq!(status(pid, "Cpus_allowed_list"), processor.to_string());
        }
    }
}

/// What a server has not accepted is reset when its socket closes; what it has
/// accepted is answered. The other one serves whoever comes later.
#[test]
fn one_is_drained_and_the_other_goes_on() {
    let [mut first, second] = two_servers();
    let accepted = |server: &Server| server.stderr.text().matches(": accept ").count();
    let (done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for n in 0..4 {
            let (port, done, answered) = (first.port, &done, &answered);
            scope.spawn(move || {
                while !done.load(Relaxed) {
                    let whole = is_answered(Ipv4Addr::new(127, 0, 0, 2 + n), port);
                    answered.fetch_add(whole.into(), Relaxed);
                }
            });
        }
        let stop = StopAtEnd(&done);
        wait_for("both serve", || accepted(&first) > 20 && accepted(&second) > 20);
        first.signal(libc::SIGTERM);
        assert!(first.wait().success());
        let before = (accepted(&second), answered.load(Relaxed));
        wait_for("the other goes on", || {
            accepted(&second) > before.0 + 20 && answered.load(Relaxed) > before.1 + 20
        });
        drop(stop);
    });
    let messages = first.other_messages();
    let ends = messages.iter().filter(|line| line.contains(": end ")).count();
    assert_eq!(ends, accepted(&first));
    let badly = messages.iter().find(|line| {
        line.contains(": end ")
            && !["eof", "stop"].iter().any(|reason| line.contains(&format!(" reason={reason} ")))
    });
    assert_eq!(badly, None);
    assert_eq!(exchange(second.connect(), TEXT), TEXT);
    println!("{} answered, {} by the first", answered.into_inner(), ends);
}

/// A conversation from this address: everything is answered, or nothing and a
/// reset tells so.
fn is_answered(source: Ipv4Addr, port: u16) -> bool {
    let Ok(mut client) = connect_from(source, ([127, 0, 0, 1], port).into()) else {
        return false;
    };
    if client.write_all(TEXT).is_err() {
        return false;
    }
    let _ = client.shutdown(Shutdown::Write); // fails after a reset
    let (bytes, end) = receive_all(&client);
    match &bytes[..] {
        b"" => assert_eq!(end, End::Reset, "neither an answer nor a reset"),
        all => assert!(all == TEXT && end == End::Closed, "{end:?} after {} bytes", all.len()),
    }
    end == End::Closed
}
