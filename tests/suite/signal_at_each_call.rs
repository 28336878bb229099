//! A stop signal with any call that the server or a child makes: between two steps it
//! must not be lost.

use crate::common::*;
use std::fs;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

/// A signal between two steps of the server must not be lost, wherever: strace
/// sends one with every call that it makes, from the first to the last.
#[test]
fn a_signal_at_any_call_of_the_start_ends_it() {
    if !tool("strace") {
        return;
    }
    let output = scratch("trace");
    let server = Server::spawn(&mut traced(&output, "-e signal=none", &["echo", "0"]));
    wait_for("it accepts", || fs::read_to_string(&*output).unwrap().contains("accept("));
    drop(server);
    let trace = fs::read_to_string(&*output).expect("trace");
    let mut seen = Vec::new();
    for line in trace.lines().skip(1) {
        let Some((call, _)) = line.split_once('(') else { break };
        let call = call.rsplit(' ').next().unwrap();
        seen.push(call);
        let when = seen.iter().filter(|&&other| other == call).count();
        for signal in ["TERM", "INT", "HUP"] {
            let inject = format!("-e inject={call}:signal={signal}:when={when}");
            let output = run(&mut traced(Path::new("/dev/null"), &inject, &["echo", "0"]));
            // Before the server blocks it, it ends the program by itself.
            if !seen.contains(&"rt_sigprocmask") {
                assert!(output.status.signal().is_some(), "{inject}: {output:?}");
                continue;
            }
            let messages = text(&output.stderr);
            let drain = format!("drain signal=SIG{signal} children=0/1024");
            let end = format!("forkline: {drain}\nforkline: drained children=0/1024\n");
            assert!(output.status.success() && messages.ends_with(&end), "{inject}: {output:?}");
        }
    }
    assert!(seen.contains(&"accept"), "{trace}");
    println!("{} calls, 3 signals each", seen.len());
}

#[test]
fn a_signal_at_any_call_of_the_service_is_a_drain() {
    if !tool("strace") {
        return;
    }
    let output = scratch("trace");
    let calls = "accept clone close recvfrom sendto wait4 rt_sigreturn rt_sigprocmask ppoll";
    for call in calls.split(' ') {
        let mut hits = 0;
        // The first of these are still the start.
        let first = match call {
            "accept" => 2,
            "rt_sigprocmask" => 3,
            _ => 1,
        };
        for when in first..first + 3 {
            let inject = format!("-e inject={call}:signal=TERM:when={when}");
            // With one place, so that it has to wait for it too.
            let args = ["-q", "-c", "1", "-g", FOREVER, "-b", "127.0.0.1", "echo", "0"];
            let mut server = Server::spawn(&mut traced(&output, &inject, &args));
            let forkline = children_of(server.pid);
            for _ in 0..3 {
                two_conversations(server.port);
            }
            forkline.iter().for_each(|&pid| kill(pid as i32, libc::SIGTERM));
            assert!(server.wait().success(), "{inject}");
            hits += fs::read_to_string(&*output).unwrap().matches("si_code=SI_KERNEL").count();
        }
        assert!(hits > 0, "no {call}");
    }
}

/// What has come before a child has made its first call is answered all the same.
#[test]
fn a_signal_at_the_first_calls_of_a_child_loses_no_answer() {
    if !tool("strace") {
        return;
    }
    for call in ["sigaltstack", "rt_sigprocmask", "close", "recvfrom"] {
        let server = Server::start(&["-v", "-g", FOREVER, "echo", "0"]);
        let client = connect_while_stopped(&server, b"one\ntwo");
        let _strace = go_on_traced(&server, call, "signal=TERM:when=1");
        assert_eq!(receive_all(&client), (b"one\ntwo".to_vec(), End::Closed), "{call}");
        server.stderr.wait_for(" reason=stop children=0/1024\n");
    }
}

/// A child that is to end before it has closed its copy of the listening socket closes
/// just that: a client that waits to be accepted is served.
#[test]
fn a_signal_to_a_new_child_leaves_the_listening_socket() {
    if !tool("strace") {
        return;
    }
    let server = Server::start(&["-v", "-c", "1", "echo", "0"]);
    let client = connect_while_stopped(&server, b"one\n");
    let waits = connect_while_stopped(&server, b"two\n");
    let strace = go_on_traced(&server, "sigaltstack", "signal=TERM:when=1");
    assert_eq!(receive_all(&client), (b"one\n".to_vec(), End::Closed));
    server.stderr.wait_for(" reason=stop children=0/1\n");
    assert!(receive_some(&waits, &mut Vec::new()).is_ok(), "it has no reset");
    drop(strace);
    assert_eq!(say(&server.connect(), b"three\n"), b"three\n");
}

/// Two clients at once; each gets its answer, a reset or no connection.
fn two_conversations(port: u16) {
    let connect = || connect_from([127, 0, 0, 2], ([127, 0, 0, 1], port).into()).ok();
    let clients = [connect(), connect()];
    for mut client in clients.into_iter().flatten().collect::<Vec<_>>() {
        if client.write_all(b"a line\nhalf").is_err() {
            continue; // it has met the reset
        }
        let _ = client.shutdown(Shutdown::Write);
        let (bytes, end) = receive_all(&client);
        // What comes after the server's end is not taken, nor is the client's
        // own end, but met by a reset.
        let told = end == End::Reset || unacknowledged(&client) > 1;
        assert!(told || bytes == b"a line\nhalf", "silence after {bytes:?}");
    }
}
