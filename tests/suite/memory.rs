//! What a child has of the server's memory: the program and its own data, and
//! nothing that the server was told.

use crate::common::*;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

const VARIABLE: &str = "FORKLINE_TEST_VARIABLE";
const VALUE: &str = "a value that only its owner knows";
/// An address that no other text spells like this.
const ARGUMENT: &str = "--bind=0::ffff:127.0.0.1";

/// A server that was told these, and a client with its child.
fn start() -> (Server, std::net::TcpStream, u32) {
    let server = Server::spawn(forkline(&["-v", ARGUMENT, "echo", "0"]).env(VARIABLE, VALUE));
    let client = server.connect();
    assert_eq!(say(&client, LINE), LINE);
    let child = server.wait_for_children(1)[0];
    (server, client, child)
}

/// The regions of a process's memory: from, to, and the rest of the line (proc(5),
/// maps). The kernel's page with old system calls is in every process.
fn regions(pid: u32) -> Vec<(u64, u64, String)> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("maps");
    let regions = maps.lines().filter(|line| !line.ends_with("[vsyscall]")).map(|line| {
        let (range, rest) = line.split_once(' ').expect("a region");
        let (from, to) = range.split_once('-').expect("a range");
        let address = |text| u64::from_str_radix(text, 16).expect("an address");
        (address(from), address(to), rest.to_owned())
    });
    regions.collect()
}

/// All of its memory that can be read.
fn memory(pid: u32) -> Vec<u8> {
    let file = File::open(format!("/proc/{pid}/mem")).expect("mem");
    let mut memory = Vec::new();
    for (from, to, _) in regions(pid) {
        let mut region = vec![0; (to - from) as usize];
        // The kernel's variables cannot be read like this.
        if file.read_exact_at(&mut region, from).is_ok() {
            memory.extend(region);
        }
    }
    memory
}

#[test]
fn a_child_has_the_program_and_one_writable_region() {
    if emulated() {
        return;
    }
    let (_server, _client, child) = start();
    let regions = regions(child);
    let is_program = |rest: &str| rest.starts_with("r-xp ") && rest.ends_with("/forkline");
    let is_data = |rest: &str| rest.starts_with("rw-p ") && !rest.contains('/');
    match &regions[..] {
        [(_, _, program), (_, _, data)] => {
            assert!(is_program(program) && is_data(data), "{regions:?}")
        }
        _ => panic!("{regions:#?}"),
    }
}

#[test]
fn a_child_knows_neither_arguments_nor_environment() {
    if emulated() {
        return;
    }
    let (server, _client, child) = start();
    if let Err(error) = File::open(format!("/proc/{child}/mem")) {
        return skipped(&format!("no look into a child's memory: {error}"));
    }
    let contains =
        |memory: &[u8], text: &str| memory.windows(text.len()).any(|part| part == text.as_bytes());
    let (of_parent, of_child) = (memory(server.pid), memory(child));
    for text in [VARIABLE, VALUE, ARGUMENT, "PATH="] {
        assert!(contains(&of_parent, text), "the parent has no {text}");
        assert!(!contains(&of_child, text), "the child has {text}");
    }
    assert!(contains(&of_child, "hello\n"), "the child has its client's line");
}
