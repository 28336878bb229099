//! Programs that speak to an echo service and do not care for lines, so the server
//! has `--raw`: a load balancer's check, a scanner, a client that waits after one byte.

use crate::common::*;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

#[test]
fn one_byte_is_answered_at_once() {
    for (service, byte, answer) in [("echo", b"u", b"u"), ("rot13", b"u", b"h")] {
        for option in ["--raw", "-R"] {
            let server = Server::start(&[option, service, "0"]);
            let client = server.connect();
            for _ in 0..3 {
                assert_eq!(say(&client, byte), answer);
            }
        }
    }
}

/// The default, so that the option is what makes the difference.
#[test]
fn without_the_option_a_byte_waits_for_its_line() {
    let server = Server::start(&["echo", "0"]);
    let client = server.connect();
    let [child] = server.wait_for_children(1)[..] else { panic!("one child") };
    (&client).write_all(b"u").expect("send");
    wait_for("it has read the byte and waits", || {
        unacknowledged(&client) == 0 && calls(child, libc::SYS_recvfrom)
    });
    assert!(nothing_to_read(&client));
    assert_eq!(exchange(client, b"\n"), b"u\n");
}

/// nmap(1) names the service by what comes back. It takes most of a minute, since it
/// waits for more after each answer.
#[test]
fn nmap_finds_an_echo_service() {
    if !tool("nmap") {
        return;
    }
    let server = Server::start(&["--raw", "echo", "0"]);
    let port = server.port.to_string();
    let report = succeeds(Command::new("nmap").args(["-n", "-sV", "-p", &port, "127.0.0.1"]));
    let line = report.lines().find(|line| line.starts_with(&format!("{port}/tcp")));
    let words: Vec<_> = line.expect("the port").split_whitespace().collect();
    assert_eq!(words, [&format!("{port}/tcp"), "open", "echo"], "{report}");
}

/// deploy/haproxy/haproxy.cfg, in a network of its own since it has fixed ports.
#[test]
fn haproxy_sees_the_server_come_and_go() {
    if !tool("haproxy") {
        return;
    }
    if !own_network() {
        return skipped("no permission for a network of its own");
    }
    let settings = scratch("haproxy");
    fs::write(&*settings, format!("global\n    stats socket {STATISTICS}\n")).expect("settings");
    let mut haproxy = Command::new("haproxy");
    haproxy.args(["-db", "-f"]).arg(&*settings).args(["-f", "deploy/haproxy/haproxy.cfg"]);
    haproxy.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let balancer = Server::launch(&mut haproxy);
    let is = |status: &str| {
        wait_for(&format!("haproxy says {status}"), || status_of() == status);
    };

    is("DOWN,L4CON");
    let mut server = Server::start(&["--raw", "-b", "127.0.0.1", "echo", "7008"]);
    is("UP,L7OK");
    assert_eq!(exchange(connect(("127.0.0.1", 7007)), b"a byte"), b"a byte");
    server.signal(libc::SIGTERM);
    assert!(server.wait().success());
    is("DOWN,L4CON");
    // A server of lines waits for the end of the line.
    let _lines = Server::start(&["-b", "127.0.0.1", "echo", "7008"]);
    is("DOWN,L7TOUT");
    println!("{}", balancer.stop().1);
}

/// Where haproxy tells its statistics.
const STATISTICS: &str = "127.0.0.1:7009";

/// The server's state and its last check, by haproxy's statistics.
fn status_of() -> String {
    let mut table = String::new();
    let ask = |mut stream: TcpStream| {
        stream.write_all(b"show stat forkline 4 -1\n")?;
        stream.read_to_string(&mut table)
    };
    if TcpStream::connect(STATISTICS).and_then(ask).is_err() {
        return String::new(); // haproxy does not listen yet
    }
    let mut lines = table.lines().map(|line| line.trim_start_matches("# ").split(','));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return table };
    let fields: Vec<_> = names.zip(values).collect();
    let field = |name| fields.iter().find(|(other, _)| *other == name).map_or("", |field| field.1);
    format!("{},{}", field("status"), field("check_status"))
}
