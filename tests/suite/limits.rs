//! The caps and the idle limit.

use crate::common::*;
use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Instant;

// ---------------------------------------------------------------- children

#[test]
fn at_the_cap_clients_wait_for_a_place() {
    let server = Server::start(&["-v", "-c", "2", "echo", "0"]);
    let mut clients: Vec<_> = (0..5).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.write_all(b"a line\n").expect("send");
    }
    server.wait_for_children(2);
    for client in clients {
        assert_eq!(receive(&client, 7), b"a line\n");
        assert!(children_at_once(server.pid) <= 2);
    }
    assert_counts(&server, 5, 2);
}

/// Each connection is told once, with a number of children up to `most`, and
/// after the last end there is none.
fn assert_counts(server: &Server, connections: usize, most: usize) {
    let ends = || server.stderr.lines().iter().filter(|line| line.contains(" end ")).count();
    wait_for("the last end is told", || ends() == connections);
    let lines = server.stderr.lines();
    let count = |line: &str| {
        let (_, count) = line.rsplit_once(" children=").expect("a count");
        let (taken, of) = count.split_once('/').expect("n/max");
        assert_eq!(of, most.to_string());
        taken.parse::<usize>().expect("a number")
    };
    let accepts: Vec<_> = lines.iter().filter(|line| line.contains(" accept ")).collect();
    assert_eq!(accepts.len(), connections);
    assert!(accepts.iter().all(|line| (1..=most).contains(&count(line))));
    let ends: Vec<_> = lines.iter().filter(|line| line.contains(" end ")).collect();
    assert_eq!(ends.len(), connections);
    assert_eq!(count(ends.last().unwrap()), 0);
}

// ---------------------------------------------------------------- sources

#[test]
fn a_source_has_so_many_connections_and_no_more() {
    let server = Server::start(&["-C", "2", "echo", "0"]);
    let from = |last| from_source([127, 0, 0, last].into(), &server).expect("connect");
    let (first, second) = (from(1), from(1));
    assert!(served(&first) && served(&second));
    assert!(!served(&from(1)), "the third of one source");
    assert!(served(&from(2)), "another source");
    server.stderr.wait_for("forkline: refuse client=127.0.0.1:");
    drop(first);
    server.wait_for_children(1);
    assert!(served(&from(1)), "a place is free again");
    // The client of a mapped address is the same source.
    let only_v4 = Server::start(&["-b", "127.0.0.1", "-C", "1", "echo", "0"]);
    let kept = from_source([127, 0, 0, 1].into(), &only_v4).expect("connect");
    assert!(served(&kept) && !served(&only_v4.connect()));
}

#[test]
fn refusals_are_counted_and_told_once_a_second() {
    let server = Server::start(&["-C", "1", "echo", "0"]);
    let kept = server.connect();
    assert!(served(&kept));
    let start = Instant::now();
    let mut refused = Vec::new();
    wait_for("a line that counts", || {
        let client = server.connect();
        assert!(!served(&client));
        refused.push(client.local_addr().expect("its address").to_string());
        server.stderr.text().contains(" suppressed=")
    });
    let lines = server.stderr.lines();
    let told: Vec<_> = lines.iter().filter(|line| line.contains("refuse")).collect();
    // The server's clock ticks up to 10 ms late.
    assert!(told.len() as u128 <= 1 + (start.elapsed().as_millis() + 10) / 1000, "{told:?}");
    assert_eq!(*told[0], format!("forkline: refuse client={}", refused[0]));
    // All between the first and this one.
    let (line, counted) = told[1].split_once(" suppressed=").expect("a count");
    let counted: usize = counted.parse().expect("a number");
    let last = refused.get(counted + 1).expect("so many were refused");
    assert_eq!(line, format!("forkline: refuse client={last}"));
}

#[test]
fn the_network_of_64_bits_is_one_ipv6_source() {
    if !tool("ip") {
        return;
    }
    if !own_network() || !ipv6() {
        return skipped("no network of its own");
    }
    for address in ["2001:db8:1::1", "2001:db8:1::2", "2001:db8:2::1"] {
        add_address(address);
    }
    let server = Server::start(&["-C", "1", "rot13", "0"]);
    let from = |text: &str| {
        let ip: Ipv6Addr = text.parse().expect("an address");
        from_source(ip.into(), &server).unwrap_or_else(|e| panic!("{text}: {e}"))
    };
    let routed = || from_source("2001:db8:2::1".parse().unwrap(), &server);
    wait_for("the addresses are routed", || routed().is_ok_and(|client| served(&client)));
    server.wait_for_children(0);
    let first = from("2001:db8:1::1");
    assert!(served(&first));
    assert!(!served(&from("2001:db8:1::2")), "the same network");
    server.stderr.wait_for("forkline: refuse client=[2001:db8:1::2]:");
    let (other, loopback, ipv4) = (from("2001:db8:2::1"), from("::1"), server.connect());
    assert!(served(&other) && served(&loopback) && served(&ipv4), "three other sources");
}

/// Connections of 200 sources come and go, and each answer is what a model says.
#[test]
fn the_counts_never_drift() {
    let server = Server::start(&["-C", "2", "-c", "4096", "echo", "0"]);
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut open: HashMap<u8, Vec<TcpStream>> = HashMap::new();
    for step in 0..400 {
        let source = random.u8(1..=200);
        let streams = open.entry(source).or_default();
        if !streams.is_empty() && random.bool() {
            streams.swap_remove(random.usize(..streams.len()));
            let left = open.values().map(Vec::len).sum();
            server.wait_for_children(left);
            continue;
        }
        let stream = from_source([127, 0, 1, source].into(), &server).expect("connect");
        assert_eq!(served(&stream), streams.len() < 2, "seed {seed} step {step}");
        if streams.len() < 2 {
            streams.push(stream);
        }
    }
    drop(open);
    server.wait_for_children(0);
}

/// Whether a line comes back: a refused client gets an end of file or a reset.
fn served(mut stream: &TcpStream) -> bool {
    let mut answer = [0; 3];
    stream.write_all(b"12\n").is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && answer == *b"12\n"
}

/// A connection from this address of ours to the server at the same address.
fn from_source(source: IpAddr, server: &Server) -> io::Result<TcpStream> {
    connect_from(source, SocketAddr::new(source, server.port))
}

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

/// What it has sent cannot be answered, so it is told: never a clean end.
#[test]
fn a_client_that_does_not_read_is_reset() {
    let server = Server::start(&["-q", "-t", "1", "echo", "0"]);
    let mut client = server.connect();
    let line = [b"y".repeat(999), b"\n".to_vec()].concat();
    let error = loop {
        if let Err(error) = client.write_all(&line) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    server.wait_for_children(0);
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

#[test]
fn every_connection_is_kept_alive() {
    if !tool("ss") {
        return;
    }
    let server = Server::start(&["echo", "0"]);
    let client = server.connect();
    assert!(served(&client));
    let ports = format!("sport = :{}", server.port);
    let shown = run(Command::new("ss").args(["-tnoH", "state", "established", &ports]));
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("timer:(keepalive,"), "{shown}");
}
