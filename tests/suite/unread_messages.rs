//! Messages that cannot be written, or that nobody reads: they are counted, and hold
//! nobody.

use crate::common::*;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

/// A file cannot tell whether a write would block. Still no message counts as lost.
#[test]
fn in_a_file_no_message_is_lost() {
    let path = scratch("messages");
    let file = File::create(&*path).expect("create");
    let mut server = Server::spawn(forkline(&["-v", "-q", "echo", "0"]).stderr(file));
    let said = || fs::read_to_string(&*path).expect("read");
    wait_for("the ready line", || said().contains(" listening on "));
    server.signal(libc::SIGTERM);
    assert!(server.wait().success());
    let said = said();
    assert!(said.ends_with("forkline: drained children=0/1024\n"), "{said}");
    assert!(!said.contains("lost="), "{said}");
}

/// A server whose standard error is a full pipe, and the end that reads it.
fn full_stderr() -> (Server, File) {
    let (reader, writer) = io::pipe().expect("pipe");
    let server =
        Server::spawn(forkline(&["-v", "-q", "echo", "0"]).stderr(writer.try_clone().unwrap()));
    let mut reader = nonblocking(&reader, OpenOptions::new().read(true));
    // It listens already, but is not ready before it says so.
    let mut said = Vec::new();
    wait_for("the ready line", || {
        let _ = reader.read_to_end(&mut said);
        said.ends_with(b"\n") && text(&said).contains(" listening on ")
    });
    smallest_pipe(&writer); // not before: an emulator's server has two lines to say
    let mut writer = nonblocking(&writer, OpenOptions::new().write(true));
    while writer.write(b"#").is_ok() {}
    (server, reader)
}

/// Opens an end of a pipe anew: this one does not block, and the server's still does.
fn nonblocking(end: &impl AsRawFd, options: &mut OpenOptions) -> File {
    let name = format!("/proc/self/fd/{}", end.as_raw_fd());
    options.custom_flags(libc::O_NONBLOCK).open(name).expect("open")
}

#[test]
fn a_standard_error_that_nobody_reads_stops_nobody() {
    if emulated() {
        return;
    }
    let (mut server, mut reader) = full_stderr();
    for _ in 0..50 {
        assert_eq!(say(&server.connect(), b"hello\n"), b"hello\n");
    }
    server.wait_for_children(0);
    wait_for("the last end has been told", || accepts(server.pid));
    let mut got = Vec::new();
    let _ = reader.read_to_end(&mut got); // what filled the pipe
    // The next message tells how many were lost: each of 50 starts and 50 ends.
    assert_eq!(say(&server.connect(), b"hello\n"), b"hello\n");
    wait_for("a message tells how many were lost", || {
        let _ = reader.read_to_end(&mut got);
        text(&got).contains(" lost=100\n")
    });
    server.signal(libc::SIGTERM);
    assert!(server.wait().success());
}

/// The end comes too.
#[test]
fn a_standard_error_that_nobody_reads_does_not_hold_the_end() {
    let (mut server, _reader) = full_stderr();
    server.signal(libc::SIGTERM);
    assert!(server.wait().success());
}

/// A terminal that nobody reads: a write to it would block for ever.
#[test]
fn a_terminal_that_nobody_reads_stops_nobody() {
    let (_person, program) = terminal().expect("a terminal");
    let mut server =
        Server::spawn(forkline(&["-v", "-q", "echo", "0"]).stderr(program.try_clone().unwrap()));
    for _ in 0..300 {
        assert_eq!(say(&server.connect(), b"hello\n"), b"hello\n");
    }
    let mut pollfd = libc::pollfd { fd: program.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one `pollfd`.
    assert_eq!(unsafe { libc::poll(&mut pollfd, 1, 0) }, 0, "the terminal is full");
    // SAFETY: no pointers.
    let flags = unsafe { libc::fcntl(program.as_raw_fd(), libc::F_GETFL) };
    assert_eq!(flags & libc::O_NONBLOCK, 0, "others' writes to it still block");
    server.signal(libc::SIGTERM);
    assert!(server.wait().success());
}

/// The file has room for a part of a message, and later for more.
#[test]
fn a_message_behind_one_that_was_cut_short_is_a_line_of_its_own() {
    let path = scratch("stderr");
    let mut command = forkline(&["-v", "-q", "echo", "0"]);
    command.stderr(File::create(&*path).expect("a file"));
    before_exec(&mut command, || _ = set_limit(0, libc::RLIMIT_FSIZE, 1000));
    let mut server = Server::spawn(&mut command);
    let said = || fs::read_to_string(&*path).expect("read");
    while said().len() < 1000 {
        assert_eq!(say(&server.connect(), LINE), LINE);
    }
    // Another is lost altogether.
    server.wait_for_children(0);
    drop(client_and_child(&server));
    server.wait_for_children(0);
    wait_for("it waits", || accepts(server.pid));
    set_limit(server.pid, libc::RLIMIT_FSIZE, u64::MAX);
    server.signal(libc::SIGTERM);
    assert!(server.wait().success());
    let said = said();
    let (whole, rest) = (&said[..1000], &said[1000..]);
    let is_cut = !whole.ends_with('\n');
    let rest = if is_cut { rest.strip_prefix('\n') } else { Some(rest) };
    let rest = rest.unwrap_or_else(|| panic!("two messages on one line: {said}"));
    let lines: Vec<&str> = rest.lines().collect();
    assert!(lines[0].starts_with("forkline: drain signal=SIGTERM children=0/1024 lost="), "{said}");
    assert_eq!(lines[1..], ["forkline: drained children=0/1024"], "{said}");
}
