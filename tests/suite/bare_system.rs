//! A system that has nothing but the server's file: no /dev, no /proc, and no open
//! descriptor, as for the first process of a machine without a console.

use crate::common::*;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

/// forkline in a directory of its own, which is its root.
fn alone(args: &[&str]) -> (Scratch, Command) {
    let directory = scratch("root");
    fs::create_dir(&*directory).expect("a directory");
    fs::hard_link(&command_line(&[])[0], directory.join("forkline")).expect("a link");
    let mut command = Command::new("/forkline");
    piped(command.args(args));
    let root = CString::new(directory.as_os_str().as_bytes()).expect("a path");
    // SAFETY: the paths end with NUL.
    before_exec(&mut command, move || unsafe {
        libc::chroot(root.as_ptr());
        libc::chdir(c"/".as_ptr());
    });
    (directory, command)
}

#[test]
fn without_dev_and_proc_it_serves() {
    if emulated() || !root() {
        return;
    }
    for args in [["-v", "-g10", "echo", "0"], ["-v", "-u65534", "rot13", "0"]] {
        let (_directory, mut command) = alone(&args);
        let mut server = Server::spawn(&mut command);
        assert_eq!(exchange(server.connect(), LINE), answer(args[2], LINE));
        server.signal(libc::SIGTERM);
        assert!(server.wait().success());
    }
}

#[test]
fn without_any_open_descriptor_it_serves() {
    if emulated() || !root() {
        return;
    }
    let (_directory, mut command) = alone(&["-v", "-g10", "echo", "0"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    for fd in 0..3 {
        close_at_start(&mut command, fd);
    }
    let mut server = Server::spawn(&mut command);
    for _ in 0..3 {
        assert_eq!(exchange(server.connect(), LINE), LINE);
    }
    server.signal(libc::SIGTERM);
    assert!(server.wait().success());
}

/// It opens a terminal anew by its name in /proc, so that no message blocks it.
#[test]
fn without_proc_a_terminal_takes_messages() {
    if emulated() || !root() {
        return;
    }
    let (person, program) = terminal().expect("a terminal");
    let said = Collected::from(Some(person));
    let (_directory, mut command) = alone(&["-v", "echo", "0"]);
    let server = Server::spawn(command.stderr(program));
    assert_eq!(exchange(server.connect(), LINE), LINE);
    wait_for("the end is told", || said.text().contains(" reason=eof "));
}
