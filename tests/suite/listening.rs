//! Where the server listens, and what it says if it cannot.

use crate::common::*;
use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

#[test]
fn it_says_once_where_it_listens() {
    let forms: [(&[&str], &str); 14] = [
        (&["echo", "0"], "echo listening on [::]"),
        (&["rot13", "0"], "rot13 listening on [::]"),
        (&["--", "echo", "000"], "echo listening on [::]"),
        (&["-q", "-q", "--quiet", "--", "rot13", "0"], "rot13 listening on [::]"),
        (&["rot13", "-q", "0", "--verbose"], "rot13 listening on [::]"),
        (&["echo", "0", "--"], "echo listening on [::]"),
        (&["-b", "::1", "-b", "127.0.0.1", "echo", "0"], "echo listening on 127.0.0.1"),
        (&["-b127.0.0.2", "echo", "0"], "echo listening on 127.0.0.2"),
        (&["--bind=0.0.0.0", "rot13", "0"], "rot13 listening on 0.0.0.0"),
        (&["--bind", "::1", "echo", "0"], "echo listening on [::1]"),
        (&["-qb::1", "echo", "0"], "echo listening on [::1]"),
        (&["-qb", "0:0:0:0:0:0:0:1", "echo", "0"], "echo listening on [::1]"),
        (&["-b", "::", "echo", "0"], "echo listening on [::]"),
        (&["-b", "::0.0.0.1", "echo", "0"], "echo listening on [::1]"),
    ];
    let forms = if ipv6() { &forms[..] } else { &forms[6..9] };
    for (args, where_) in forms {
        let server = Server::start(args);
        assert_eq!(server.stderr.text(), format!("forkline: {where_}:{}\n", server.port));
        // The kernel's table may lack a line while others change.
        wait_for("its port is there", || listening_port(server.pid) == Some(server.port));
        assert_eq!(server.stdout.text(), "");
    }
}

#[test]
fn one_server_answers_over_ipv4_and_ipv6() {
    if !ipv6() {
        return;
    }
    for args in [&["echo", "0"][..], &["rot13", "0"], &["-b", "::", "echo", "0"]] {
        let server = Server::start(args);
        answers_at(&server, &["127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1"]);
    }
    for service in ["echo", "rot13"] {
        let c = Server::start_c(service);
        answers_at(&c, &["127.0.0.1"]);
        assert!(TcpStream::connect(("::1", c.port)).is_err(), "the C serves IPv4 alone");
    }
}

#[test]
fn a_bound_server_answers_nowhere_else() {
    let everywhere = ["127.0.0.1", "127.0.0.2", "127.255.255.254", "::1", "::ffff:127.0.0.1"];
    let all: [(&str, &[&str]); 4] = [
        ("127.0.0.1", &["127.0.0.1", "::ffff:127.0.0.1"]),
        ("127.0.0.2", &["127.0.0.2"]),
        ("0.0.0.0", &["127.0.0.1", "127.0.0.2", "127.255.255.254", "::ffff:127.0.0.1"]),
        ("::1", &["::1"]),
    ];
    let (everywhere, all) = match ipv6() {
        true => (&everywhere[..], &all[..]),
        false => (&everywhere[..3], &all[..2]),
    };
    for (host, there) in all {
        let server = Server::start(&["-b", host, "echo", "0"]);
        answers_at(&server, there);
        for elsewhere in everywhere.iter().filter(|address| !there.contains(address)) {
            let address: IpAddr = elsewhere.parse().unwrap();
            let refused = TcpStream::connect((address, server.port)).expect_err(elsewhere);
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{host} {elsewhere}");
        }
    }
}

#[test]
fn a_port_in_use_is_named_with_the_reason() {
    let first = Server::start(&["echo", "0"]);
    let port = &first.port.to_string();
    let in_use = |address| format!("bind {address}:{port}: EADDRINUSE (address already in use)");
    fails(&in_use("127.0.0.1"), &mut forkline(&["-b", "127.0.0.1", "rot13", port]));
    fails(&in_use("0.0.0.0"), &mut forkline(&["-b", "0.0.0.0", "rot13", port]));
    if ipv6() {
        fails(&in_use("[::]"), &mut forkline(&["rot13", port]));
        fails(&in_use("[::1]"), &mut forkline(&["-b", "::1", "echo", port]));
    }
    answers_at(&first, &["127.0.0.1"]);
}

#[test]
fn without_a_port_rot13_takes_50005() {
    if !own_network() {
        return skipped("no permission for a network of its own");
    }
    let server = Server::start(&["rot13"]);
    assert_eq!(server.port, 50005);
    assert_eq!(exchange(server.connect(), b"Hello\n"), b"Uryyb\n");
    fails("bind [::]:50005: EADDRINUSE (address already in use)", &mut forkline(&["rot13"]));
}

/// Neither a conversation that outlives the server nor those that it ended
/// (their ports are in TIME_WAIT) keep the next one from the port.
#[test]
fn the_port_can_be_bound_again_at_once() {
    let mut first = Server::start(&["echo", "0"]);
    // Their children have closed the listening socket: they have answered.
    let (ended, child) = client_and_child(&first);
    let (mut kept, _) = client_and_child(&first);
    kill(child as i32, libc::SIGKILL); // it closes first, so the TIME_WAIT is at this port
    assert_eq!(receive_some(&ended, &mut Vec::new()).expect("end of file"), 0);
    drop(ended);
    first.signal(libc::SIGKILL);
    first.wait();

    let second = Server::start(&["rot13", &first.port.to_string()]);
    kept.write_all(b"Hello\n").expect("send");
    assert_eq!(receive(&kept, 6), b"Hello\n");
    assert_eq!(exchange(second.connect(), b"Hello\n"), b"Uryyb\n");
}

#[test]
fn a_port_without_permission_is_named_with_the_reason() {
    if emulated() {
        return;
    }
    let first_free = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if first_free.is_ok_and(|port| port.trim() == "0" || port.trim() == "1") {
        return skipped("everyone may use port 1 here");
    }
    let binary = File::open(env!("CARGO_BIN_EXE_forkline")).expect("the binary");
    // By descriptor: another user may not be allowed to walk its path.
    let mut command = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()));
    // SAFETY: no pointers.
    if unsafe { libc::geteuid() } == 0 {
        command.uid(65534).gid(65534);
    }
    command.args(["-b", "127.0.0.1", "echo", "1"]);
    fails("bind 127.0.0.1:1: EACCES (permission denied)", &mut command);
}

#[test]
fn an_address_that_is_not_here_is_named_in_its_standard_form() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let have_ipv6 = ipv6();
    for _ in 0..300 {
        let ip: IpAddr = match have_ipv6 && random.u8(..4) > 0 {
            true => some_ipv6(&mut random).into(),
            false => Ipv4Addr::from(random.u32(..)).into(),
        };
        if TcpListener::bind((ip, 0)).is_ok() {
            continue;
        }
        let (typed, port) = (typed(ip, &mut random), random.u16(1024..));
        let address = SocketAddr::new(ip, port);
        fails(
            &format!("bind {address}: EADDRNOTAVAIL (address not available)"),
            &mut forkline(&["-b", &typed, "echo", &port.to_string()]),
        );
    }
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
    let shown = text(&shown.stdout);
    assert!(shown.contains("timer:(keepalive,"), "{shown}");
}

// ---------------------------------------------------------------- no IPv6

/// A kernel without it, and one that does not let it be bound.
#[test]
fn without_ipv6_it_listens_on_ipv4() {
    if !tool("strace") {
        return;
    }
    let plain = Server::start(&["-b", "127.0.0.1", "echo", "0"]);
    for fault in ["socket:error=EAFNOSUPPORT:when=1", "bind:error=EADDRNOTAVAIL:when=1"] {
        let server = Server::spawn(&mut faulty(fault, &["echo", "0"]));
        let ready = format!("forkline: echo listening on 0.0.0.0:{}\n", server.port);
        assert_eq!(server.stderr.text(), ready);
        answers_at(&server, &["127.0.0.1", "127.0.0.2"]);
        let forkline = children_of(server.pid)[0];
        assert_eq!(sockets(forkline), sockets(plain.pid), "the first candidate is closed");
    }
}

#[test]
fn the_failure_that_mattered_is_the_one_named() {
    if !tool("strace") {
        return;
    }
    let held = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = &held.local_addr().expect("address").port().to_string();
    let (no_family, other) = ("socket:error=EAFNOSUPPORT:when=1", "bind:error=EACCES:when=1");
    let unsupported = "EAFNOSUPPORT (address family not supported)";
    fails(
        &format!("bind 0.0.0.0:{port}: EADDRINUSE (address already in use)"),
        &mut faulty(no_family, &["echo", port]),
    );
    fails(
        &format!("bind [::]:{port}: EACCES (permission denied)"),
        &mut faulty(other, &["echo", port]),
    );
    fails(
        &format!("socket [::1]:{port}: {unsupported}"),
        &mut faulty(no_family, &["-b", "::1", "echo", port]),
    );
    fails(
        &format!("socket 0.0.0.0:{port}: {unsupported}"),
        &mut faulty("socket:error=EAFNOSUPPORT", &["echo", port]),
    );
    fails(
        "listen: EADDRINUSE (address already in use)",
        &mut faulty("listen:error=EADDRINUSE", &["-b", "127.0.0.1", "echo", "0"]),
    );
}

/// IPv6 turned off by its sysctl.
#[test]
fn with_ipv6_disabled_it_answers_over_ipv4() {
    const SWITCH: &str = "/proc/sys/net/ipv6/conf/all/disable_ipv6";
    if !ipv6() {
        return;
    }
    if !own_network() {
        return skipped("no permission for a network of its own");
    }
    fs::write(SWITCH, "1").expect(SWITCH);
    TcpListener::bind("[::1]:0").expect_err("no ::1 any more");
    let server = Server::start(&["echo", "0"]);
    answers_at(&server, &["127.0.0.1", "127.0.0.2"]);
    fails(
        "bind [::1]:7: EADDRNOTAVAIL (address not available)",
        &mut forkline(&["-b", "::1", "echo", "7"]),
    );
}

/// Somebody has the port on IPv6 only: half a service, and one line says so.
#[test]
fn a_port_that_is_taken_on_ipv6_is_named() {
    if !ipv6() {
        return;
    }
    own_network(); // if possible: nobody else is to have the port on IPv4
    let taken = TcpListener::bind("[::1]:0").expect("bind");
    let port = taken.local_addr().expect("its address").port();
    let server = Server::start(&["echo", &port.to_string()]);
    let lines = server.stderr.lines();
    let told = format!("forkline: bind [::]:{port}: EADDRINUSE (address already in use)");
    assert_eq!(lines.first(), Some(&told));
    assert_eq!(lines.last(), Some(&format!("forkline: echo listening on 0.0.0.0:{port}")));
    assert_eq!(say(&server.connect(), b"hello\n"), b"hello\n");
}

// ---------------------------------------------------------------- helpers

/// One line on stderr, nothing on stdout, exit status 1.
fn fails(message: &str, command: &mut Command) {
    ends_with(1, message, command);
}

pub fn ends_with(status: i32, message: &str, command: &mut Command) {
    let output = run(command);
    assert_eq!(text(&output.stderr), format!("forkline: {message}\n"));
    assert_eq!(text(&output.stdout), "");
    assert_eq!(output.status.code(), Some(status), "{message}");
}

/// Forkline with a fault injected into a system call (strace(1), "Tampering").
fn faulty(fault: &str, args: &[&str]) -> Command {
    traced(Path::new("/dev/null"), &format!("-e inject={fault}"), args)
}

fn answers_at(server: &Server, addresses: &[&str]) {
    for address in addresses {
        let ip: IpAddr = address.parse().expect(address);
        assert_eq!(exchange(connect((ip, server.port)), b"123\n"), b"123\n", "{address}");
    }
}

fn sockets(pid: u32) -> usize {
    descriptors(pid).iter().filter(|(_, target)| target.starts_with("socket:")).count()
}
