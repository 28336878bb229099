//! Faults that never end: every system call that the server makes fails with every
//! errno of its man page, from its first, its second or its hundredth time on
//! (strace's `inject`, `when=1+`). While that lasts, the server must be quiet: less
//! than a tenth of a processor, and about one message a second of each kind. Then
//! SIGTERM must end it, and nobody may be left.
//!
//! `tests/suite/expected/lasting_faults.txt` says what happens. `make test` looks at one
//! errno of each call, from the first time on; `make faults` looks at all, and with
//! FORKLINE_BLESS=1 it writes the file anew. What cannot be so is in EXCEPTIONS,
//! with the reason.
//!
//! At the end come pairs of faults that can meet.

use crate::common::*;
use crate::faults::*;
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::{Duration, Instant};

const EXPECTED: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/expected/lasting_faults.txt");
/// How long a fault is watched.
const WATCHED: Duration = Duration::from_secs(1);
/// More than the grace time (1 s then), and a second each for the reset and the kill.
const HANGS: Duration = Duration::from_secs(5);
/// Failures a second, at most: a child looks at its client a hundred times. A
/// process that spins makes thousands; with many others, and with strace, it may then
/// still use little of the processor.
const MOST_FAILURES: u128 = 300;
const ALWAYS: &[u32] = &[1, 2, 100];

/// Brings the server to the fault. It lasts when the scene returns, or begins at
/// SIGTERM.
type Scene = fn(&Row) -> Lasting;

/// A scene, a call that is made in it, its errnos, and from which call on it fails.
///
/// Calls that are made once in a life are not here: faults.rs has them. Of
/// rt_sigprocmask only the parent's second call for each connection is here, which lets
/// signals in. If the others fail, signals are never blocked, and chance decides what
/// the handlers interrupt.
const CALLS: &[(&str, Scene, &str, &str, &[u32])] = &[
    ("start", start, "rt_sigaction", SIGACTION, &[1, 2]),
    ("start", start, "socket", SOCKET, &[1]),
    ("start", start, "setsockopt", SETSOCKOPT, &[1, 2]),
    ("start", start, "bind", BIND, &[1]),
    ("start", start, "madvise", MADVISE, &[1]),
    ("start", start, "pwritev2", PWRITEV2, &[1]),
    ("start, no pwritev2", start, "ppoll", PPOLL, &[1]),
    ("start, no pwritev2", start, "write", WRITE, &[1]),
    ("parent", connections, "rt_sigprocmask", SIGPROCMASK, &[2, 100]),
    ("parent", connections, "accept", ACCEPT, ALWAYS),
    ("parent", connections, "clone", CLONE, ALWAYS),
    ("parent", connections, "close", CLOSE, ALWAYS),
    ("parent", connections, "wait4", WAIT4, ALWAYS),
    ("parent, verbose", connections, "pwritev2", PWRITEV2, ALWAYS),
    ("parent, no pwritev2", connections, "ppoll", PPOLL, ALWAYS),
    ("parent, no pwritev2", connections, "write", WRITE, ALWAYS),
    ("parent, at the cap", parent_at_the_cap, "ppoll", PPOLL, ALWAYS),
    ("parent, at the cap", parent_at_the_cap, "wait4", WAIT4, ALWAYS),
    ("parent, in want", parent_in_want, "clock_gettime", CLOCK_GETTIME, ALWAYS),
    ("parent, in want", parent_in_want, "ppoll", PPOLL, ALWAYS),
    ("child", child, "recvfrom", RECV, ALWAYS),
    ("child", child, "sendto", SEND, ALWAYS),
    ("child", child, "write", WRITE, ALWAYS),
    ("child", child_at_its_end, "close", CLOSE, &[1]),
    ("child, in a fault", child_that_fails, "setsockopt", SETSOCKOPT, &[1]),
    ("child, at the idle limit", child_that_fails, "getsockopt", GETSOCKOPT, &[1]),
    ("child, idle client that takes", child_with_taker, "recvfrom", "EAGAIN", &[1]),
    ("child, stdout full", child_stdout_full, "ppoll", PPOLL, &[1]),
    ("child, told to end", child_with_taker, "getsockopt", GETSOCKOPT, &[1, 2]),
    ("child, told to end", child_with_taker, "setsockopt", SETSOCKOPT, &[1, 2]),
    ("child, told to end", child_with_taker, "ppoll", PPOLL, ALWAYS),
    ("new child, and parent", connections, "sigaltstack", SIGALTSTACK, &[1]),
    ("new child, and parent", connections, "setsockopt", SETSOCKOPT, &[1, 2]),
    ("new child, and parent", connections, "close", CLOSE, &[1]),
    ("drain", drain, "kill", KILL, ALWAYS),
    ("drain", drain, "ppoll", PPOLL, &[1]),
    ("drain", drain, "wait4", WAIT4, &[1, 2]),
    ("drain", drain, "close", CLOSE, &[1]),
    ("drain", drain, "clock_gettime", CLOCK_GETTIME, &[1]),
    ("drain", drain, "pwritev2", PWRITEV2, &[1, 2]),
    ("drain, child stopped", drain_stopped, "ppoll", PPOLL, ALWAYS),
];

/// What a row does instead of being quiet and ending.
#[derive(Clone, Copy, PartialEq)]
enum Instead {
    Spins,
    Hangs,
    /// Both.
    SpinsAndHangs,
    /// Says too much.
    Chatters,
    /// Ends before its children.
    Leaves,
}
use Instead::{Chatters, Hangs, Leaves, Spins, SpinsAndHangs};

/// Scenes, a call, its errnos if not all, and what happens instead.
type Exception = (&'static [&'static str], &'static str, &'static str, Instead);

const NO_PWRITEV2_SCENES: &[&str] = &["start, no pwritev2", "parent, no pwritev2"];

/// None of these can happen for ever, as far as we know, but that one.
const EXCEPTIONS: &[Exception] = &[
    // Each EINTR stands for a signal, and each ECONNABORTED for a connection, so they
    // end when nobody sends any more. The parent writes with its signals blocked:
    // there, EINTR cannot come at all.
    (&["parent"], "accept", "EINTR ECONNABORTED", Spins),
    (&["child"], "recvfrom", "EINTR", Spins),
    (&["child"], "sendto", "EINTR", Spins),
    (&["child"], "write", "EINTR", Spins),
    (NO_PWRITEV2_SCENES, "write", "EINTR", SpinsAndHangs),
    // A write that would block, to a file of which poll says that it would not: one of
    // the two is wrong. A report is not dropped for that.
    (&["child"], "write", "EAGAIN", Spins),
    // It comes after the idle limit only. The client has taken everything, so there is
    // room again, and the child tries again.
    (&["child"], "sendto", "EAGAIN", Spins),
    // Without descriptors and with valid addresses ppoll can only wait, or be
    // interrupted. A server that cannot wait must spin; and since it takes signals only
    // while it waits, it does not notice SIGTERM either, or the end of a child.
    (&["parent, at the cap", "parent, in want"], "ppoll", "", SpinsAndHangs),
    (&["drain", "drain, child stopped"], "ppoll", "", SpinsAndHangs),
    (NO_PWRITEV2_SCENES, "ppoll", "", Hangs),
    (&["child, told to end", "child, stdout full"], "ppoll", "", Spins),
    // The wait for any child, without waiting, fails only if there is none. A child that
    // is never reaped is killed again each second.
    (&["parent", "parent, at the cap", "drain"], "wait4", "", Hangs),
    // The one that can happen: a security module may forbid signals. The children that
    // are not told go on to serve, and the server waits for them.
    (&["drain"], "kill", "", Hangs),
    // It comes after a time limit only, and here there is none.
    (&["child, idle client that takes"], "recvfrom", "EAGAIN", Spins),
    // The mask is valid, and there is nothing else that could fail. If signals cannot be
    // let in again, accept does not notice them.
    (&["parent"], "rt_sigprocmask", "", Hangs),
    // Without a clock, every message is the first for a second. This clock has existed
    // since Linux 2.6.32.
    (&["parent, in want"], "clock_gettime", "", Chatters),
    // Without a handler, SIGTERM kills the parent alone, as SIGKILL does. The handler and
    // the signals are valid.
    (&["start"], "rt_sigaction", "", Leaves),
];

/// One fault.
struct Row {
    name: &'static str,
    scene: Scene,
    fault: Fault,
    /// More options of strace.
    more: &'static str,
}

/// A fault that has begun, or begins at SIGTERM.
struct Lasting {
    server: Server,
    clients: Vec<TcpStream>,
    strace: Option<Strace>,
    /// What must stay as long.
    _kept: Option<Box<dyn Any>>,
}

impl Lasting {
    /// How many calls have failed by the fault.
    fn failures(&self) -> usize {
        let log = self.strace.as_ref().map(|strace| fs::read_to_string(&*strace.log));
        log.map_or(0, |log| log.unwrap_or_default().matches("(INJECTED)").count())
    }
}

#[test]
fn a_fault_that_never_ends_leaves_it_quiet_and_endable() {
    look(|row, errnos| row.fault.when == 1 && errnos.starts_with(row.fault.errno), false);
}

#[test]
#[ignore = "takes minutes: make faults"]
fn all_faults_that_never_end() {
    look(|_, _| true, env::var_os("FORKLINE_BLESS").is_some());
}

fn look(wanted: impl Fn(&Row, &str) -> bool, bless: bool) {
    if !may_attach() {
        return;
    }
    let mut rows = Vec::new();
    for &(name, scene, call, errnos, whens) in CALLS {
        for errno in errnos.split_whitespace() {
            let row =
                |&when| Row { name, scene, fault: lasts(call, errno, when), more: more(name) };
            rows.extend(whens.iter().map(row).filter(|row| wanted(row, errnos)));
        }
    }
    let outcomes = run_all(&rows, outcome);
    let _ = writeln!(io::stderr(), "{} faults that never end", rows.len());
    if bless {
        fs::write(EXPECTED, table(&rows, &outcomes)).expect("write");
    }
    let expected = expected();
    let mut differences = String::new();
    for (row, outcome) in rows.iter().zip(&outcomes) {
        let Fault { call, errno, when, .. } = row.fault;
        let what = format!("{}: {call} {when}+ {errno}", row.name);
        let before = expected.get(&what).map_or("", String::as_str);
        if before != outcome {
            differences += &format!("\n- {what}: {before}\n+ {what}: {outcome}");
        }
    }
    assert!(differences.is_empty(), "{EXPECTED}:{differences}");
}

/// Pairs of faults that can meet: the scene, the first fault with its moment (and
/// whether it lasts), the second one, and the outcome. Others stand above, as scenes in
/// which another fault has brought the child to the call: recv and setsockopt, recv and
/// getsockopt, recv and shutdown, write and ppoll.
const PAIRS: &[(&str, Scene, Fault, &str, &str)] = &[
    // A machine without memory soon has no descriptors either. The client that is not
    // forked for waits, and no other is accepted meanwhile.
    (
        "neither memory nor descriptors",
        connections,
        lasts("clone", "ENOMEM", 1),
        "-e inject=accept:error=EMFILE:when=2+2",
        "ends with status 0; fault call=fork",
    ),
    // The same with the limit on processes, reached by zombies that a wait has missed.
    (
        "fork fails, and a wait",
        connections,
        lasts("clone", "EAGAIN", 2),
        "-e inject=wait4:error=EINTR:when=1",
        "ends with status 0; fault call=fork",
    ),
    // A full disk or a reader that is gone says nothing about descriptors, so they meet.
    (
        "accept fails, and what tells it",
        connections,
        lasts("accept", "EMFILE", 1),
        "-e inject=pwritev2:error=EAGAIN -e inject=write:error=EIO",
        "ends with status 0",
    ),
    // A child that ends interrupts the pause, and is not reaped.
    (
        "a pause is interrupted, and a wait fails",
        parent_in_want,
        once("ppoll", "EINTR", 1),
        "-e inject=wait4:error=EINTR:when=1+2",
        "ends with status 0; fault call=accept",
    ),
    // One terminal or script has both ends, the client's and the reports', and closes.
    (
        "nobody takes reports or answers",
        child,
        lasts("write", "EPIPE", 1),
        "-e inject=sendto:error=EPIPE:when=1+",
        "ends with status 0",
    ),
    // Signals come while the report does not fit and while the next line is awaited.
    (
        "signals meet a report and a recv",
        child,
        once("write", "EAGAIN", 1),
        "-e inject=ppoll:error=EINTR:when=1 -e inject=recvfrom:error=EINTR:when=1..3",
        "ends with status 0",
    ),
    // The client resets just when it has been idle for too long.
    (
        "the client is gone at the idle limit",
        child_that_fails,
        lasts("getsockopt", "EINVAL", 1),
        "-e inject=recvfrom:error=EAGAIN",
        "ends with status 0",
    ),
    // A child ends by itself just when it is told to: there is nobody to signal, and the
    // wait for it is missed too. (Here it is a live one, which the reset then ends.)
    (
        "a signal has no child, and a wait fails",
        drain,
        once("kill", "ESRCH", 1),
        "-e inject=wait4:error=EINTR:when=1..2",
        "ends with status 0 after the grace time",
    ),
    // The machine goes down: nobody reads the messages.
    (
        "the end cannot be told",
        drain,
        lasts("pwritev2", "EAGAIN", 1),
        "-e inject=write:error=EPIPE:when=1+ -e inject=kill:error=ESRCH:when=1",
        "ends with status 0",
    ),
];

const fn once(call: &'static str, errno: &'static str, when: u32) -> Fault {
    Fault { call, errno, when, for_ever: false }
}

const fn lasts(call: &'static str, errno: &'static str, when: u32) -> Fault {
    Fault { call, errno, when, for_ever: true }
}

#[test]
fn two_faults_at_once_leave_it_quiet_and_endable() {
    if !may_attach() {
        return;
    }
    let outcomes = run_all(PAIRS, |&(name, scene, ref fault, more, _)| {
        outcome(&Row { name, scene, fault: fault.clone(), more })
    });
    for (pair, outcome) in PAIRS.iter().zip(outcomes) {
        assert_eq!(outcome, pair.4, "{}", pair.0);
    }
}

/// What strace needs for a scene besides the fault.
fn more(name: &str) -> &'static str {
    match name {
        "start, no pwritev2" | "parent, no pwritev2" => NO_PWRITEV2,
        "child, in a fault" => "-e inject=recvfrom:error=ENOTCONN:when=1",
        "child, at the idle limit" => "-e inject=recvfrom:error=EAGAIN",
        "new child, and parent" => "-f",
        _ => "",
    }
}

/// A line for each scene, call and outcome with the moments and the errnos, `all` of
/// them or some.
fn table(rows: &[Row], outcomes: &[String]) -> String {
    let mut text = String::new();
    for &(name, _, call, errnos, _) in CALLS {
        let mut whens: Vec<((&str, &str), String)> = Vec::new(); // of an errno and an outcome
        for (row, outcome) in rows.iter().zip(outcomes) {
            if (row.name, row.fault.call) == (name, call) {
                let key = (row.fault.errno, &**outcome);
                let when = format!(" {}+", row.fault.when);
                match whens.iter_mut().find(|other| other.0 == key) {
                    Some(other) => other.1 += &when,
                    None => whens.push((key, when)),
                }
            }
        }
        let mut lines: Vec<((String, &str), String)> = Vec::new();
        for ((errno, outcome), when) in whens {
            let key = (when, outcome);
            match lines.iter_mut().find(|line| line.0 == key) {
                Some(line) => line.1 += &format!(" {errno}"),
                None => lines.push((key, errno.into())),
            }
        }
        let every = errnos.split_whitespace().collect::<Vec<_>>().join(" ");
        for ((when, outcome), some) in lines {
            let some = if some == every { "all" } else { &some };
            text += &format!("{name}: {call}{when} {some}: {outcome}\n");
        }
    }
    text
}

/// The table, with an entry for each row.
fn expected() -> BTreeMap<String, String> {
    let text = fs::read_to_string(EXPECTED).unwrap_or_default();
    let mut outcomes = BTreeMap::new();
    for line in text.lines() {
        let (name, rest) = line.split_once(": ").expect(line);
        let (what, outcome) = rest.split_once(": ").expect(line);
        let (call, what) = what.split_once(' ').expect(line);
        let (whens, mut errnos): (Vec<&str>, Vec<&str>) =
            what.split(' ').partition(|word| word.ends_with('+'));
        if errnos == ["all"] {
            let row = CALLS.iter().find(|row| (row.0, row.2) == (name, call));
            errnos = row.map_or("", |row| row.3).split_whitespace().collect();
        }
        for when in whens {
            for errno in &errnos {
                outcomes.insert(format!("{name}: {call} {when} {errno}"), outcome.to_string());
            }
        }
    }
    outcomes
}

// ---------------------------------------------------------------- what happens

fn outcome(row: &Row) -> String {
    let instead = exception(row);
    let mut lasting = (row.scene)(row);
    let mut outcome = String::new();
    let begun = lasting.strace.as_ref().is_none_or(Strace::injected);
    if begun {
        outcome += &watch(&mut lasting, instead);
    }
    let early = lasting.server.ended().is_some();
    lasting.server.signal(libc::SIGTERM);
    let server = &mut lasting.server;
    if within(if hangs(instead) { HANGS } else { 2 * DEADLINE }, || server.ended().is_some()) {
        let at_once = if early { "at once " } else { "" };
        let status = server.wait();
        let status = status.code().map_or(status.to_string(), |code| format!("status {code}"));
        outcome += &format!("ends {at_once}with {status}");
        let members = || members_of(server.pid).into_iter();
        let patience = if instead == Some(Leaves) { WATCHED } else { DEADLINE };
        if !within(patience, || members().all(has_ended)) {
            outcome += ", leaves children";
        }
    } else {
        if !begun {
            outcome += &watch(&mut lasting, instead);
        }
        outcome += "does not end";
    }
    if let Some(strace) = &lasting.strace {
        let others = row.more.split(' ').filter_map(|option| option.strip_prefix("inject="));
        let others = others.filter_map(|option| option.split(':').next());
        for call in others.chain([row.fault.call]) {
            assert!(strace.has_failed(call), "{call} never failed");
        }
    }
    outcome + &told(lasting.server)
}

fn hangs(instead: Option<Instead>) -> bool {
    matches!(instead, Some(Hangs | SpinsAndHangs))
}

fn exception(row: &Row) -> Option<Instead> {
    let Fault { call, errno, .. } = row.fault;
    let fits = |exception: &&Exception| {
        let errnos = exception.2;
        let errno_fits = errnos.is_empty() || errnos.split(' ').any(|other| other == errno);
        exception.0.contains(&row.name) && exception.1 == call && errno_fits
    };
    EXCEPTIONS.iter().find(fits).map(|exception| exception.3)
}

/// What is wrong while the fault lasts and clients come and speak. Under load one
/// look may mislead, so there are more if it is not as expected.
fn watch(lasting: &mut Lasting, instead: Option<Instead>) -> String {
    let expected =
        (matches!(instead, Some(Spins | SpinsAndHangs)), matches!(instead, Some(Chatters)));
    let mut found = (false, false);
    for _ in 0..if expected == (false, false) { 3 } else { 20 } {
        match look_once(lasting) {
            Some(now) => found = now,
            None => break,
        }
        if found == expected {
            break;
        }
    }
    let (spins, chatters) = found;
    let words = |is, words| if is { words } else { "" };
    format!("{}{}", words(spins, "spins, "), words(chatters, "says too much, "))
}

/// Whether the server spins, and whether it says too much; nothing if it ends.
fn look_once(lasting: &mut Lasting) -> Option<(bool, bool)> {
    let (said, failures) = (lasting.server.stderr.lines().len(), lasting.failures());
    let (used, start) = (processor_time(&lasting.server), Instant::now());
    within(WATCHED, || {
        poke(lasting);
        within(WATCHED / 4, || lasting.server.ended().is_some())
    });
    if lasting.server.ended().is_some() {
        return None;
    }
    let (used, time) = (processor_time(&lasting.server).saturating_sub(used), start.elapsed());
    let failures = (lasting.failures() - failures) as u128 * 1000 / time.as_millis();
    let mut kinds = BTreeMap::new();
    for kind in lasting.server.stderr.lines()[said..].iter().filter_map(|line| kind(line)) {
        *kinds.entry(kind).or_insert(0) += 1;
    }
    let chatters = kinds.values().any(|&n| n > start.elapsed().as_secs() + 2);
    Some((used > time / 10 || failures > MOST_FAILURES, chatters))
}

/// Each client says a line, and one more comes, if they can.
fn poke(lasting: &mut Lasting) {
    for client in &mut lasting.clients {
        client.set_nonblocking(true).expect("nonblocking");
        let _ = client.write_all(LINE);
    }
    if let Ok(mut client) = TcpStream::connect(("127.0.0.1", lasting.server.port)) {
        let _ = client.write_all(LINE);
        lasting.clients.push(client);
    }
}

/// What the server, its children and those that it has reaped have used (proc(5)).
fn processor_time(server: &Server) -> Duration {
    let [own, reaped] = ticks(server.pid);
    let children: u64 = server.children().into_iter().map(|pid| ticks(pid)[0]).sum();
    // SAFETY: no pointers.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as u64;
    Duration::from_millis((own + reaped + children) * 1000 / per_second)
}

/// A message without what differs from run to run and from errno to errno; none for
/// what a server says in any case.
fn kind(line: &str) -> Option<String> {
    const USUAL: [&str; 5] = ["accept", "drain", "drained", "reset", "kill"];
    let line = without(&["pid=", "client=", "children=", "suppressed=", "lost=", "error="], line);
    // An error that ends the server.
    if let Some((what, _)) = line.rsplit_once(": ") {
        return Some(format!("{what}: ..."));
    }
    let usual = line.contains(" listening on [::]")
        || USUAL.iter().any(|usual| line == *usual || line == format!("{usual} signal=SIGTERM"))
        || ["eof", "stop", "reset", "idle", "signal signal=SIGKILL"]
            .iter()
            .any(|end| line == format!("end reason={end}"));
    (!usual).then_some(line)
}

/// Whether there was a reset before the end, and the kinds of all that was said.
fn told(server: Server) -> String {
    let text = server.stop().1;
    let reset = text.lines().any(|line| line.starts_with("forkline: reset "));
    let late =
        if reset && text.contains("forkline: drained ") { " after the grace time" } else { "" };
    let kinds: BTreeSet<String> = text.lines().filter_map(kind).collect();
    kinds.iter().fold(late.into(), |told, kind| format!("{told}; {kind}"))
}

// ---------------------------------------------------------------- scenes

fn lasting(server: Server, clients: Vec<TcpStream>, strace: Strace) -> Lasting {
    Lasting { server, clients, strace: Some(strace), _kept: None }
}

/// Seconds that suffice for an orderly end on a busy machine; few if there is none.
fn grace(row: &Row) -> &'static str {
    if hangs(exception(row)) { "1" } else { "5" }
}

fn attach(pid: u32, row: &Row) -> Strace {
    row.fault.attach(pid, row.more)
}

fn start(row: &Row) -> Lasting {
    let log = scratch("strace");
    let mut command = strace_forkline(&row.fault, &log, row.more);
    command.args(["-v", "-g", grace(row), "echo", "0"]);
    let server = launch(&mut command, &row.fault, &log);
    Lasting { server, clients: vec![], strace: None, _kept: Some(Box::new(log)) }
}

/// Connections, one after the other. strace follows the children if it is about them.
fn connections(row: &Row) -> Lasting {
    let more: &[&str] = match row.name {
        "parent, verbose" | "parent, no pwritev2" => &["-v"],
        "new child, and parent" => &["-t", "60"],
        _ => &["-q"],
    };
    let server = Server::start(&[more, &["-g", grace(row), "echo", "0"]].concat());
    let strace = attach(server.pid, row);
    strace.until_injected(|| {
        let client = ask(&server);
        wait_for("an answer, the end or the fault", || {
            !nothing_to_read(&client) || strace.injected()
        });
    });
    lasting(server, vec![], strace)
}

/// A client waits until another ends.
fn parent_at_the_cap(row: &Row) -> Lasting {
    let server = Server::start(&["-q", "-c", "2", "-g", grace(row), "echo", "0"]);
    let clients = (0..3).map(|_| ask(&server)).collect();
    server.wait_for_children(2);
    let strace = attach(server.pid, row);
    interrupt_until_injected(&server, &strace);
    lasting(server, clients, strace)
}

/// accept fails for want of descriptors.
fn parent_in_want(row: &Row) -> Lasting {
    let server = Server::start(&["-q", "-g", grace(row), "echo", "0"]);
    wait_for("it waits", || accepts(server.pid));
    no_more_descriptors(server.pid);
    // The accept that waits already has a descriptor.
    let clients = vec![ask(&server), ask(&server)];
    server.stderr.wait_for("EMFILE");
    let strace = attach(server.pid, row);
    interrupt_until_injected(&server, &strace);
    lasting(server, clients, strace)
}

/// Ends the parent's pauses early.
fn interrupt_until_injected(server: &Server, strace: &Strace) {
    strace.until_injected(|| {
        server.signal(libc::SIGCHLD);
        wait_for("it pauses", || state(server.pid) == 'S' || strace.injected());
    });
}

/// One client, line after line.
fn child(row: &Row) -> Lasting {
    one_client(forkline(&["-g", grace(row), "echo", "0"]), row, |client, strace| {
        let _ = client.write_all(LINE);
        wait_for("an answer, the end or the fault", || {
            !nothing_to_read(client) || strace.injected()
        });
        if !nothing_to_read(client) {
            let _ = client.read(&mut [0; LINE.len()]);
        }
    })
}

fn child_at_its_end(row: &Row) -> Lasting {
    one_client(forkline(&["-g", grace(row), "echo", "0"]), row, |client, _| {
        let _ = client.shutdown(Shutdown::Write);
    })
}

/// Its first recv fails as soon as strace lets it go on.
fn child_that_fails(row: &Row) -> Lasting {
    one_client(forkline(&["-g", grace(row), "echo", "0"]), row, |_, _| ())
}

/// Nobody reads the reports.
fn child_stdout_full(row: &Row) -> Lasting {
    let (reader, mut writer) = io::pipe().expect("pipe");
    // SAFETY: no pointers.
    unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    let mut command = forkline(&["-g", grace(row), "echo", "0"]);
    command.stdout(writer.try_clone().expect("dup"));
    let act = |client: &mut TcpStream, _: &Strace| {
        while writer.write(&[b'\n'; 4096]).is_ok() {}
        let _ = client.write_all(LINE);
    };
    let lasting = one_client(command, row, act);
    Lasting { _kept: Some(Box::new(reader)), ..lasting }
}

/// A child that waits for its second line; the client acts until the fault.
fn one_client(
    mut command: Command,
    row: &Row,
    mut act: impl FnMut(&mut TcpStream, &Strace),
) -> Lasting {
    let server = Server::spawn(&mut command);
    let mut client = ask(&server);
    assert_eq!(receive(&client, LINE.len()), LINE);
    let child = server.wait_for_children(1)[0];
    wait_for("the child waits for a line", || calls(child, libc::SYS_recvfrom));
    let strace = attach(child, row);
    strace.until_injected(|| act(&mut client, &strace));
    lasting(server, vec![client], strace)
}

/// The client has sent all, and does not take the answers.
fn child_with_taker(row: &Row) -> Lasting {
    let server = Server::start(&["-q", "-g", grace(row), "echo", "0"]);
    let (client, _) = client_with_much_to_take(&server);
    let child = server.wait_for_children(1)[0];
    let strace = attach(child, row);
    if row.fault.call != "recvfrom" {
        kill(child as i32, libc::SIGTERM);
    }
    if matches!(row.fault.call, "ppoll" | "setsockopt") {
        client.shutdown(Shutdown::Write).expect("shutdown");
    }
    strace.until_injected(|| ());
    lasting(server, vec![client], strace)
}

/// SIGTERM, while each child has half a line that it has not answered.
fn drain(row: &Row) -> Lasting {
    let server = Server::start(&["-q", "-g", grace(row), "echo", "0"]);
    let n = row.fault.when.max(3) as usize;
    let clients = (0..n).map(|_| half_a_line(&server)).collect();
    server.wait_for_children(n);
    let strace = attach(server.pid, row);
    lasting(server, clients, strace)
}

/// A child that is stopped keeps the parent waiting. The next SIGTERM is the second.
fn drain_stopped(row: &Row) -> Lasting {
    let server = Server::start(&["-q", "echo", "0"]);
    let client = half_a_line(&server);
    stop(server.wait_for_children(1)[0]);
    let strace = attach(server.pid, row);
    server.signal(libc::SIGTERM);
    interrupt_until_injected(&server, &strace);
    lasting(server, vec![client], strace)
}
