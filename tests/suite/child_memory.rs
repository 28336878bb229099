//! What a child has of the server's memory: the program and its own data, and
//! nothing that the server was told.

use crate::common::*;
use std::net::TcpStream;

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
