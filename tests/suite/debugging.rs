//! Tools that people point at the program.

use crate::common::*;
use std::env;
use std::path::Path;
use std::process::Command;

#[test]
fn ldd_finds_no_libraries_and_does_not_crash() {
    if emulated() || !tool("ldd") {
        return;
    }
    // Its loader takes part in this: a crash of it would be told here.
    let output = run(Command::new("ldd").args(command_line(&[])));
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    let right = ["not a dynamic executable", "statically linked"];
    assert!(right.contains(&said.trim()), "{said:?}");
}

/// With what `cargo build` leaves out: the names and lines of the source, and the frame
/// pointers by which gdb finds the callers.
#[test]
fn gdb_shows_where_parent_and_child_are() {
    if emulated() || !tool("gdb") {
        return;
    }
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gdb");
    let mut cargo = Command::new(env::var("CARGO").unwrap_or("cargo".into()));
    cargo.args(["build", "--release", "--locked", "--target-dir"]).arg(&directory);
    cargo.env("CARGO_PROFILE_RELEASE_STRIP", "none").env("CARGO_PROFILE_RELEASE_DEBUG", "true");
    cargo.env("RUSTFLAGS", "-C force-frame-pointers=yes");
    succeeds(&mut cargo);
    let mut command = Command::new(directory.join("release/forkline"));
    let server = Server::spawn(piped(command.args(["echo", "0"])));
    let (_client, child) = client_and_child(&server);
    for (pid, call, function) in [(server.pid, "accept", "main"), (child, "recv", "echo")] {
        wait_for("it waits", || accepts(pid) || calls(pid, libc::SYS_recvfrom));
        let mut gdb = Command::new("gdb");
        let trace = text(&run(gdb.args(["-batch", "-ex", "bt", "-p", &pid.to_string()])).stdout);
        if !trace.contains("#0 ") {
            return skipped("gdb may not attach");
        }
        let frame = |name: &str| trace.lines().any(|line| line.contains(&format!("::{name} (")));
        assert!(frame(call) && frame(function), "{trace}");
    }
}

#[test]
fn perf_attaches() {
    if emulated() || !tool("perf") {
        return;
    }
    let server = Server::start(&["-q", "echo", "0"]);
    let data = scratch("perf");
    let mut perf = Command::new("perf");
    perf.args(["stat", "-x,", "-e", "cpu-clock", "-p", &server.pid.to_string(), "-o"]).arg(&*data);
    let mut perf = Server::launch(piped(perf.args(["sleep", "0.2"])));
    assert_eq!(exchange(server.connect(), LINE), LINE);
    let status = perf.wait();
    assert!(status.success(), "{status}: {}", perf.stderr.text());
}
