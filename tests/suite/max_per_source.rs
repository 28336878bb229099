//! The limit on the connections of one source: never one more, and no other source
//! notices.

use crate::common::*;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Instant;

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

/// A client sees the end of its connection before its child is gone. If it then comes
/// again, the server waits a moment for that child, here one that takes 10 ms longer.
#[test]
fn who_has_closed_may_come_again_at_once() {
    if emulated() || !may_attach() {
        return;
    }
    // On a machine that is busy, the child may take longer than a moment.
    let comes_again = (0..10).any(|_| {
        let server = Server::start(&["-C", "1", "echo", "0"]);
        let (client, child) = client_and_child(&server);
        let _strace = Strace::attach(child, "exit_group", "delay_enter=10000", "");
        drop(client);
        served(&server.connect())
    });
    assert!(comes_again);
}

/// Connections of 200 sources come and go, and each answer is what a model says.
#[test]
fn the_count_of_each_source_never_drifts() {
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

/// A connection from this address of ours to the server at the same address.
fn from_source(source: IpAddr, server: &Server) -> io::Result<TcpStream> {
    connect_from(source, SocketAddr::new(source, server.port))
}
