//! What a child has of the server's memory: the program and its own data, and
//! nothing that the server was told.

use crate::common::*;
use std::cell::Cell;
use std::io::Write;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};

const VARIABLE: &str = "FORKLINE_TEST_VARIABLE";
const VALUE: &str = "a value that only its owner knows";
/// An address that no other text spells like this.
const ARGUMENT: &str = "--bind=0::ffff:127.0.0.1";

/// A server that was told these, and a client with its child.
fn start() -> (Server, TcpStream, u32) {
    let server = Server::spawn(forkline(&["-v", ARGUMENT, "echo", "0"]).env(VARIABLE, VALUE));
    let client = server.connect();
    assert_eq!(say(&client, LINE), LINE);
    let child = server.wait_for_children(1)[0];
    (server, client, child)
}

/// Where the kernel puts things differs from start to start.
#[test]
fn a_child_has_the_program_and_one_writable_region() {
    if emulated() {
        return;
    }
    for _ in 0..50 {
        let (server, _client, child) = start();
        let regions = regions(child);
        let is_program = |rest: &str| rest.starts_with("r-xp ") && rest.ends_with("/forkline");
        let is_data = |rest: &str| rest.starts_with("rw-p ") && !rest.contains('/');
        match &regions[..] {
            [(_, _, program), (_, _, data)] if is_program(program) && is_data(data) => {}
            _ => panic!("child {regions:#?}, parent {:#?}", self::regions(server.pid)),
        }
    }
}

#[test]
fn a_child_knows_neither_arguments_nor_environment() {
    if emulated() {
        return;
    }
    let (server, _client, child) = start();
    let contents = |pid| memory(pid, |_| true).map(|regions| regions.concat());
    let (of_parent, of_child) = match (contents(server.pid), contents(child)) {
        (Ok(parent), Ok(child)) => (parent, child),
        (Err(error), _) | (_, Err(error)) => {
            return skipped(&format!("no look into a process's memory: {error}"));
        }
    };
    let contains =
        |memory: &[u8], text: &str| memory.windows(text.len()).any(|part| part == text.as_bytes());
    for text in [VARIABLE, VALUE, ARGUMENT, "PATH="] {
        assert!(contains(&of_parent, text), "the parent has no {text}");
        assert!(!contains(&of_child, text), "the child has {text}");
    }
    assert!(contains(&of_child, "hello\n"), "the child has its client's line");
}

/// Each client has an address of its own. The parent writes them in messages and keeps
/// them in its table; what it has left on its stack is in the next child's memory.
#[test]
fn a_child_knows_no_other_clients_address() {
    if emulated() || !may_attach() {
        return;
    }
    let ipv6 = root() && own_network();
    let next = Cell::new(0u8);
    let new_address = || {
        let n = next.replace(next.get() + 1);
        if !ipv6 || n.is_multiple_of(2) {
            return IpAddr::from([127, 83, 167, 50 + n]);
        }
        let address = format!("2001:db8:a753:b1c9:77e5:39d1:5bf3:c0{n:02x}");
        add_address(&address);
        address.parse().expect("an address")
    };
    for (name, args, act) in SCENES {
        let server = Server::start(args);
        let (mut others, mut clients) = (Vec::new(), Vec::new());
        // A second time, for the other family.
        for _ in 0..2 {
            let from = new_address();
            let connect = || connect_from(from, to(&server, from)).expect("connect");
            clients.extend(act(&server, &connect));
            others.push(from);
            let before = server.children();
            let from = new_address();
            let looker = connect_from(from, to(&server, from)).expect("connect");
            assert_eq!(say(&looker, LINE), LINE);
            let child = server.children().into_iter().find(|pid| !before.contains(pid));
            let of_child = memory(child.expect("its child"), |_| true).expect("memory").concat();
            let of_parent = memory(server.pid, |_| true).expect("memory").concat();
            for other in &others {
                assert_eq!(found(&of_child, *other), None, "{name}: {other} is known to {from}");
            }
            assert_ne!(found(&of_parent, from), None, "the parent has it");
            drop(looker);
            server.wait_for_children(before.len());
            others.push(from);
        }
    }
}

type Act = fn(&Server, &dyn Fn() -> TcpStream) -> Option<TcpStream>;

/// Every kind of message that has an address, and what makes the server write it for a
/// client. Who stays is returned.
const SCENES: [(&str, &[&str], Act); 7] = [
    ("accept", &["-v", "echo", "0"], |_, connect| {
        let client = connect();
        assert_eq!(say(&client, LINE), LINE);
        Some(client)
    }),
    ("end", &["-v", "echo", "0"], |server, connect| {
        assert_eq!(exchange(connect(), LINE), LINE);
        server.wait_for_children(0);
        None
    }),
    // The parent finds that it has ended where it waits for a place, not in the handler.
    ("end at the limit", &["-v", "-c", "1", "echo", "0"], |server, connect| {
        let strace = Strace::attach(server.pid, "clone", "delay_exit=300000", "");
        assert_eq!(exchange(connect(), LINE), LINE);
        server.wait_for_children(0);
        drop(strace);
        None
    }),
    ("end by a signal", &["echo", "0"], |server, connect| {
        let client = connect();
        assert_eq!(say(&client, LINE), LINE);
        kill(server.wait_for_children(1)[0] as i32, libc::SIGSEGV);
        assert_eq!(receive_all(&client).0, b"");
        server.wait_for_children(0);
        None
    }),
    ("end by a fault", &["-v", "echo", "0"], |server, connect| {
        let client = connect();
        assert_eq!(say(&client, LINE), LINE);
        let child = server.wait_for_children(1)[0];
        let strace = Strace::attach(child, "recvfrom", "error=ETIMEDOUT", "");
        // strace may interrupt the child's call, and the next one fails at once.
        let _ = (&client).write(LINE);
        receive_all(&client);
        server.wait_for_children(0);
        drop(strace);
        None
    }),
    ("refuse", &["-C", "1", "echo", "0"], |server, connect| {
        let client = connect();
        assert_eq!(say(&client, LINE), LINE);
        let refused = connect();
        assert_eq!(receive_all(&refused).0, b"");
        server.stderr.wait_for("forkline: refuse ");
        Some(client)
    }),
    ("fault of fork", &["echo", "0"], |server, connect| {
        let strace = Strace::attach(server.pid, "clone", "error=EAGAIN", "");
        let client = connect();
        server.stderr.wait_for("forkline: fault call=fork ");
        drop(strace);
        assert_eq!(say(&client, LINE), LINE);
        Some(client)
    }),
];

/// The server, for a client with this address.
fn to(server: &Server, from: IpAddr) -> SocketAddr {
    let loopback = match from {
        IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(loopback, server.port)
}

/// The form in which memory has this address: as text, or as the kernel has it.
fn found(memory: &[u8], address: IpAddr) -> Option<&'static str> {
    let bytes = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let has = |part: &[u8]| memory.windows(part.len()).any(|bytes| bytes == part);
    match has(address.to_string().as_bytes()) {
        true => Some("text"),
        false => has(&bytes).then_some("bytes"),
    }
}
