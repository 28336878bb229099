//! What if a signal comes between fork and the next calls of the parent and of the
//! child? strace holds one of them there, before or after the call (`delay_enter`,
//! `delay_exit`), and in the meantime the parent gets SIGTERM or SIGKILL.

use crate::common::*;
use crate::faults::run_all;
use std::fs;
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Who {
    Parent,
    /// strace follows the fork, and then the parent is held, too, if it makes the call.
    Child,
}
use Who::{Child, Parent};

/// Who is held, at which call, and at which of those since strace has attached, in the
/// order of the calls. The parent waits in accept at that moment.
const MOMENTS: &[(Who, &str, i64, u32)] = &[
    (Parent, "clone", libc::SYS_clone, 1),
    (Parent, "pwritev2", libc::SYS_pwritev2, 1), // "accept", with -v
    (Parent, "close", libc::SYS_close, 1),
    (Parent, "rt_sigprocmask", libc::SYS_rt_sigprocmask, 2), // the first is before the fork
    (Parent, "accept", libc::SYS_accept, 2),
    (Child, "sigaltstack", libc::SYS_sigaltstack, 1),
    (Child, "rt_sigprocmask", libc::SYS_rt_sigprocmask, 1),
    (Child, "setsockopt", libc::SYS_setsockopt, 1), // with -t
    (Child, "setsockopt", libc::SYS_setsockopt, 2),
    (Child, "close", libc::SYS_close, 1), // of the listening socket
    (Child, "recvfrom", libc::SYS_recvfrom, 1),
    (Child, "write", libc::SYS_write, 1),
    (Child, "sendto", libc::SYS_sendto, 1),
    (Child, "recvfrom", libc::SYS_recvfrom, 2),
];

/// Microseconds. It need not be long: a signal that comes later must do no harm either.
const SHORT: u32 = 500_000;
/// Longer than any test waits; it ends with strace.
const LONG: u32 = 100_000_000;

/// A server of which one process is held at a call, on behalf of a client that has said
/// a line.
struct Held {
    server: Server,
    client: TcpStream,
    strace: Strace,
}

fn hold(
    &(who, call, number, when): &(Who, &'static str, i64, u32),
    side: &str,
    delay: u32,
) -> Held {
    let server = Server::start(&["-v", "-t", "60", "echo", "0"]);
    wait_for("it accepts", || accepts(server.pid));
    let how = format!("delay_{side}={delay}:when={when}");
    let strace = Strace::attach(server.pid, call, &how, if who == Child { "-f" } else { "" });
    let client = ask(&server);
    let (mut child, mut samples) = (None, 0);
    wait_for("it is held, or was", || {
        child = child.or_else(|| server.children().pop());
        let Some(pid) = (if who == Parent { Some(server.pid) } else { child }) else {
            return false;
        };
        // strace stops it for a moment at other calls, too.
        let at_call = calls(pid, number);
        samples = if at_call && state(pid) == 't' { samples + 1 } else { 0 };
        let log = fs::read_to_string(&*strace.log).unwrap_or_default();
        let is_of = |line: &str| who == Parent || line.starts_with(&pid.to_string());
        let was_held = log.lines().any(|line| is_of(line) && line.contains("DELAYED"))
            || at_call && state(pid) == 'S' && child.is_some(); // it waits in the call
        samples == 10 || was_held
    });
    Held { server, client, strace }
}

/// Holds a process at each of these moments, before and after the call.
fn at_all_moments(wanted: impl Fn(Who) -> bool, act: impl Fn(Held) + Sync) {
    if !may_attach() {
        return;
    }
    let moments = MOMENTS.iter().filter(|moment| wanted(moment.0));
    let sides = moments.flat_map(|moment| [(moment, "enter"), (moment, "exit")]);
    // The last calls of both wait for a client.
    let waits = |call| matches!(call, &(_, "accept" | "recvfrom", _, 2));
    let moments: Vec<_> = sides.filter(|(call, side)| *side == "enter" || !waits(call)).collect();
    let outcomes = run_all(&moments, |&(moment, side)| {
        act(hold(moment, side, SHORT));
        String::new()
    });
    let failed = moments.iter().zip(outcomes).filter(|(_, outcome)| !outcome.is_empty());
    let failed = failed.map(|(((who, call, _, when), side), outcome)| {
        format!("\n{who:?}, {call} {when} {side}: {outcome}")
    });
    let failed: String = failed.collect();
    assert!(failed.is_empty(), "{failed}");
}

#[test]
fn sigterm_while_a_child_begins_loses_no_answer() {
    at_all_moments(
        |_| true,
        |Held { mut server, client, strace: _strace }| {
            server.signal(libc::SIGTERM);
            assert_eq!(receive_all(&client), (LINE.to_vec(), End::Closed));
            assert_eq!(server.wait().code(), Some(0));
            wait_for("nobody is left", || members_of(server.pid).into_iter().all(has_ended));
            let (stdout, stderr) = server.stop();
            assert_eq!(stdout, "server received 6 bytes\n");
            let events =
                stderr.lines().skip(1).map(|line| line.split(' ').nth(1).unwrap_or_default());
            assert_eq!(
                events.collect::<Vec<_>>(),
                ["accept", "drain", "end", "drained"],
                "{stderr}"
            );
        },
    );
}

#[test]
fn sigkill_while_a_child_begins_frees_the_port() {
    at_all_moments(
        |who| who == Child,
        |Held { mut server, client, strace: _strace }| {
            let child = server.children()[0];
            server.signal(libc::SIGKILL);
            assert_eq!(server.wait().signal(), Some(libc::SIGKILL));
            wait_for("the child has closed its listening socket", || !listens(child));
            let new = Server::start(&["echo", &server.port.to_string()]);
            assert_eq!(exchange(new.connect(), LINE), LINE);
            assert_eq!(receive(&client, LINE.len()), LINE);
            assert_eq!(exchange(client, LINE), LINE);
            wait_for("nobody is left", || members_of(server.pid).into_iter().all(has_ended));
        },
    );
}

/// Until its first `close` a child has the listening socket, too. If it cannot run so
/// far, and the parent is killed, nobody else can listen on the port, and clients wait
/// for somebody who will not accept them. Then they are reset.
#[test]
fn a_child_that_has_not_closed_the_listening_socket_keeps_the_port() {
    if !may_attach() {
        return;
    }
    let Held { mut server, client, strace } = hold(&MOMENTS[5], "enter", LONG);
    let child = server.wait_for_children(1)[0];
    server.signal(libc::SIGKILL);
    assert_eq!(server.wait().signal(), Some(libc::SIGKILL));
    assert!(listens(child));
    let port = server.port.to_string();
    let second = run(&mut forkline(&["echo", &port]));
    let words = text(&second.stderr);
    assert!(words.contains("EADDRINUSE"), "{words}");
    let in_vain = ask(&server);
    drop(strace);
    assert_eq!(receive_all(&in_vain), (vec![], End::Reset));
    let new = Server::start(&["echo", &port]);
    assert_eq!(exchange(new.connect(), LINE), LINE);
    assert_eq!(exchange(client, b""), LINE);
}

fn listens(pid: u32) -> bool {
    listening_port(pid).is_some()
}
