//! The same fault in both programs: every call that can fail, with the errors that a
//! server can meet, injected by strace at its first and its second time. It is the same
//! set each time. If time runs out, whole sections are left out.
//!
//! strace counts a process's calls from the moment it attaches. So calls of the
//! parent are injected from its start, at the places that its trace tells; calls
//! of a child from its fork, by a strace that attaches to the waiting parent.

use super::both;
use super::calls::{Call, Trace};
use super::program::{How, Patience, Program, REST, Running, START, StartFailure, fresh_network};
use super::wire::{connect, is_late, receive_until};
use crate::common::{state, within};
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::net::Shutdown;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// How long a client waits for an answer here. Hundreds of faults are tried.
const PATIENCE: Patience = Patience(Duration::from_millis(1200));
/// How long a program may take to listen, or not, after a fault.
const SOON: Patience = Patience(Duration::from_secs(2));
/// How many are tried at once: most of the time they wait.
const THREADS: usize = 8;

/// A call by its purpose, its names as a system call, the errors of its man page that a
/// server can meet (man-pages 6.03), and the process it is made in.
struct Purpose {
    name: &'static str,
    calls: &'static [&'static str],
    errnos: &'static str,
    process: Process,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Process {
    Parent,
    Child,
}
use Process::{Child as InChild, Parent as InParent};

const CLOSE: &str = "EBADF EINTR EIO";
const PURPOSES: &[Purpose] = &[
    Purpose { name: "signal", calls: &["rt_sigaction"], errnos: "EINVAL", process: InParent },
    Purpose {
        name: "socket",
        calls: &["socket"],
        errnos: "EMFILE ENOBUFS EAFNOSUPPORT",
        process: InParent,
    },
    Purpose {
        name: "setsockopt",
        calls: &["setsockopt"],
        errnos: "ENOPROTOOPT",
        process: InParent,
    },
    Purpose {
        name: "bind",
        calls: &["bind"],
        errnos: "EADDRINUSE EACCES EADDRNOTAVAIL",
        process: InParent,
    },
    Purpose { name: "listen", calls: &["listen"], errnos: "EADDRINUSE", process: InParent },
    Purpose {
        name: "accept",
        calls: &["accept", "accept4"],
        errnos: "ECONNABORTED EINTR EMFILE ENFILE ENOBUFS ENOMEM EPROTO EPERM ENETDOWN",
        process: InParent,
    },
    Purpose {
        name: "fork",
        calls: &["clone", "clone3", "fork", "vfork"],
        errnos: "EAGAIN ENOMEM",
        process: InParent,
    },
    Purpose { name: "close", calls: &["close"], errnos: CLOSE, process: InParent },
    Purpose {
        name: "wait",
        calls: &["wait4", "waitid"],
        errnos: "ECHILD EINTR",
        process: InParent,
    },
    Purpose {
        name: "receive",
        calls: &["read", "recvfrom", "recvmsg"],
        errnos: "EINTR ECONNRESET ETIMEDOUT ENOMEM EHOSTUNREACH",
        process: InChild,
    },
    Purpose {
        name: "send",
        calls: &["write", "sendto", "sendmsg"],
        errnos: "EINTR ECONNRESET EPIPE ENOBUFS ENOMEM ETIMEDOUT",
        process: InChild,
    },
    Purpose { name: "close", calls: &["close"], errnos: CLOSE, process: InChild },
];

/// What a program made of a fault. The higher the rank, the worse.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Outcome {
    pub rank: u8,
    pub text: String,
}

impl Outcome {
    pub const GOES_ON: u8 = 0;
    pub const DOES_NOT_START: u8 = 1;
    pub const ONE_ENDS: u8 = 2;
    pub const ZOMBIE: u8 = 3;
    pub const ONE_HANGS: u8 = 4;
    pub const LOSES_DATA: u8 = 5;
    pub const INVENTS_DATA: u8 = 6;
    /// From here on it hurts more than the one connection.
    pub const HANGS: u8 = 7;
    pub const NEVER_LISTENS: u8 = 8;
    pub const ENDS: u8 = 9;
    pub const SPINS: u8 = 10;
    pub const STORM: u8 = 11;

    fn new(rank: u8, text: impl Into<String>) -> Outcome {
        Outcome { rank, text: text.into() }
    }
}

/// A row of the table: the same call at the same time with the same outcomes.
pub struct Row {
    pub call: &'static str,
    pub process: Process,
    /// 1 is the first.
    pub times: Vec<usize>,
    pub errnos: Vec<&'static str>,
    pub c: Outcome,
    pub forkline: Outcome,
}

impl Row {
    /// The same call with the same outcomes.
    fn is_like(&self, other: &Row) -> bool {
        let key = |row: &Row| (row.call, row.process, row.c.clone(), row.forkline.clone());
        key(self) == key(other)
    }

    pub fn faults(&self) -> usize {
        self.errnos.len() * self.times.len()
    }
}

pub struct Table {
    /// Worst of the C first.
    pub rows: Vec<Row>,
    pub tried: usize,
    /// Those that there was no time for.
    pub left: usize,
}

impl Table {
    /// How many faults hurt more than one connection.
    pub fn bad(&self, of: fn(&Row) -> &Outcome) -> usize {
        let bad = self.rows.iter().filter(|row| of(row).rank >= Outcome::HANGS);
        bad.map(Row::faults).sum()
    }
}

/// A program of which faults are tried.
struct Subject<'a> {
    program: &'a Program,
    /// What a client gets when nothing fails.
    usual: Vec<u8>,
}

impl<'a> Subject<'a> {
    /// None if a client is not served even without a fault.
    fn new(program: &'a Program) -> Result<Subject<'a>, String> {
        let server = Running::start(program).map_err(|failure| failure.to_string())?;
        let (end, usual) = talk(server.port, None);
        drop(server);
        let subject = Subject { program, usual };
        let why = match end {
            Ok(()) => match plain(&subject) {
                Outcome { rank: Outcome::GOES_ON, .. } => return Ok(subject),
                plain => plain.text,
            },
            Err(e) if is_late(&e) => "a client waits for ever".into(),
            Err(_) => "a connection ends before the client has said all".into(),
        };
        Err(format!("not tried: without any fault {why}"))
    }
}

/// One fault in one program: the system call and which of the process's calls.
#[derive(Clone, Copy)]
struct Fault {
    process: Process,
    call: &'static str,
    when: usize,
    errno: &'static str,
}

/// The same fault in both programs.
struct Pair {
    purpose: &'static Purpose,
    /// 1 is the first.
    time: usize,
    c: Fault,
    forkline: Fault,
}

impl Pair {
    /// All of a section are tried, or none: the first times in the parent, in the child,
    /// then the second times.
    fn section(&self) -> (usize, bool) {
        (self.time, self.purpose.process == InChild)
    }
}

/// Of the C and of forkline, as many faults as there is time for.
pub fn compare(
    [c, forkline]: [&Program; 2],
    [of_c, of_forkline]: [&Trace; 2],
    end: Instant,
) -> Result<Table, String> {
    if Instant::now() > end {
        return Err("not tried: no time was left".into());
    }
    let (c, forkline) = both(|| Subject::new(c), || Subject::new(forkline));
    let (c, forkline) = (c?, forkline.map_err(|why| format!("forkline: {why}"))?);
    let pairs = pairs(of_c, of_forkline);
    // With one network for all, a port can be used once at a time.
    let threads = if fresh_network() { THREADS } else { 1 };
    let mut outcomes = in_parallel(threads, pairs.len(), end, |n| {
        let of_c = twice(end, || inject(&c, pairs[n].c));
        let late = Instant::now() > end;
        (!late).then(|| (of_c, twice(end, || inject(&forkline, pairs[n].forkline))))
    });
    for section in pairs.chunk_by(|a, b| a.section() == b.section()) {
        let of_section = |n: &usize| pairs[*n].section() == section[0].section();
        if (0..pairs.len()).filter(of_section).any(|n| outcomes[n].is_none()) {
            (0..pairs.len()).filter(of_section).for_each(|n| outcomes[n] = None);
        }
    }
    Ok(table(&pairs, outcomes))
}

fn table(pairs: &[Pair], outcomes: Vec<Option<(Outcome, Outcome)>>) -> Table {
    let tried = outcomes.iter().flatten().count();
    let mut rows: Vec<Row> = Vec::new();
    for (pair, outcome) in pairs.iter().zip(outcomes) {
        let Some((c, forkline)) = outcome else { continue };
        let (call, process, errno) = (pair.purpose.name, pair.purpose.process, pair.c.errno);
        let new = Row { call, process, times: vec![pair.time], errnos: vec![errno], c, forkline };
        let like = |row: &Row| row.is_like(&new) && row.times == new.times;
        match rows.iter_mut().find(|row| like(row)) {
            Some(row) => row.errnos.push(errno),
            None => rows.push(new),
        }
    }
    let mut rows = both_times(rows);
    rows.sort_by_key(|row| std::cmp::Reverse((row.c.rank, row.forkline.rank)));
    Table { rows, tried, left: pairs.len() - tried }
}

/// All faults, first times first.
fn pairs(of_c: &Trace, of_forkline: &Trace) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for purpose in PURPOSES {
        let times = moments(purpose, of_c).into_iter().zip(moments(purpose, of_forkline));
        for (n, (in_c, in_forkline)) in times.enumerate() {
            for errno in purpose.errnos.split_whitespace() {
                let fault = |(call, when)| Fault { process: purpose.process, call, when, errno };
                let (c, forkline) = (fault(in_c), fault(in_forkline));
                pairs.push(Pair { purpose, time: n + 1, c, forkline });
            }
        }
    }
    pairs.sort_by_key(Pair::section);
    pairs
}

/// One row in place of two where the first and the second time are alike.
fn both_times(rows: Vec<Row>) -> Vec<Row> {
    let mut merged: Vec<Row> = Vec::new();
    for new in rows {
        match merged.iter_mut().find(|row| row.is_like(&new) && row.errnos == new.errnos) {
            Some(row) => row.times.extend(new.times),
            None => merged.push(new),
        }
    }
    merged
}

/// Does `work` for each number below `n`, several at once, until `end`. It may
/// give up.
pub fn in_parallel<T: Send>(
    threads: usize,
    n: usize,
    end: Instant,
    work: impl Fn(usize) -> Option<T> + Sync,
) -> Vec<Option<T>> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    done.lock().unwrap().resize_with(n, || None);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while Instant::now() < end
                    && let i = next.fetch_add(1, Ordering::Relaxed)
                    && i < n
                {
                    let result = work(i);
                    let mut done: MutexGuard<Vec<_>> = done.lock().unwrap();
                    done[i] = result;
                }
            });
        }
    });
    done.into_inner().unwrap()
}

// ---------------------------------------------------------------- where

/// The system call that this purpose is reached by, and which of the process's
/// calls of that name are its first and second.
fn moments(purpose: &Purpose, trace: &Trace) -> Vec<(&'static str, usize)> {
    let calls = if purpose.process == InParent { &trace.parent } else { &trace.child };
    let socket = listening_socket(&trace.parent);
    let first_accept = position(&trace.parent, |call| call.name.starts_with("accept"));
    let relevant = |(n, call): (usize, &Call)| {
        let on = |fd: &str| {
            call.rest.starts_with(&format!("({fd}, ")) || call.rest.starts_with(&format!("({fd})"))
        };
        match purpose.name {
            "socket" => call.rest.contains("SOCK_STREAM") && call.rest.contains("AF_INET"),
            "setsockopt" | "bind" | "listen" => on(&socket) && n < first_accept,
            "signal" => call.rest.starts_with("(SIGCHLD"),
            "close" if purpose.process == InParent => n > first_accept,
            "send" => !on("1") && !on("2"),
            _ => true,
        }
    };
    let Some(&name) = purpose.calls.iter().find(|name| {
        calls.iter().enumerate().any(|(n, call)| call.name == **name && relevant((n, call)))
    }) else {
        return Vec::new();
    };
    let same = calls.iter().enumerate().filter(|(_, call)| call.name == name);
    let hits = same.enumerate().filter(|(_, call)| relevant(*call)).map(|(n, _)| n + 1);
    let mut hits: Vec<usize> = hits.take(2).collect();
    // What is done for each connection is done a second time for the second.
    let each = matches!((purpose.name, purpose.process), ("accept" | "fork" | "close", InParent));
    if each && hits.len() == 1 {
        hits.push(hits[0] + 1);
    }
    hits.into_iter().map(|n| (name, n)).collect()
}

fn position(calls: &[Call], is: impl Fn(&Call) -> bool) -> usize {
    calls.iter().position(is).unwrap_or(calls.len())
}

/// The descriptor that the parent listens on.
pub fn listening_socket(parent: &[Call]) -> String {
    let listen = parent.iter().find(|call| call.name == "listen");
    let arguments = listen.map_or("", |call| call.rest.trim_start_matches('('));
    arguments.split([',', ')']).next().unwrap_or_default().to_owned()
}

// ---------------------------------------------------------------- what happens

fn plain(subject: &Subject) -> Outcome {
    fresh_network();
    match Running::start(subject.program) {
        Ok(server) => serve(subject, server, true),
        Err(why) => not_started(&why, ""),
    }
}

/// What only time tells, that something never comes, is tried a second time.
fn twice(end: Instant, attempt: impl Fn() -> Outcome) -> Outcome {
    match attempt() {
        hangs @ Outcome { rank: Outcome::HANGS | Outcome::ONE_HANGS, .. }
            if Instant::now() < end =>
        {
            hangs.min(attempt())
        }
        outcome => outcome,
    }
}

fn inject(subject: &Subject, fault: Fault) -> Outcome {
    fresh_network();
    let Fault { process, call, when, errno } = fault;
    let trace = format!("trace={call}");
    let inject = format!("inject={call}:error={errno}:when={when}");
    let mut strace = vec!["strace", "-q", "-o", "/dev/null", "-e", &trace, "-e", &inject];
    let program = subject.program;
    // Linux closes a descriptor whatever it reports (close(2)), but strace makes
    // the call not happen: what follows from an open descriptor is not judged.
    let wait_for_end = call != "close";
    if process == InParent {
        // With -D the process that we start becomes the program.
        strace.push("-D");
        return match Running::spawn(program, &mut program.under(&strace), SOON) {
            Ok(server) => serve(subject, server, wait_for_end),
            Err(why) => not_started(&why, call),
        };
    }
    let server = match Running::spawn(program, &mut program.command(), START) {
        Ok(server) => server,
        Err(why) => return not_started(&why, call),
    };
    let pid = server.pid.to_string();
    strace.extend(["-f", "-p", &pid]);
    let _tracer = match attach(&strace, server.pid) {
        Ok(tracer) => tracer,
        Err(why) => return Outcome::new(Outcome::GOES_ON, why),
    };
    serve(subject, server, wait_for_end)
}

/// A strace beside the server, killed when dropped.
struct Tracer(Child);

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn attach(strace: &[&str], pid: u32) -> Result<Tracer, String> {
    let mut command = Command::new(strace[0]);
    command.args(&strace[1..]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let tracer = Tracer(command.spawn().map_err(|e| format!("strace: {e}"))?);
    let attached = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
    };
    match within(REST.time(), attached) {
        true => Ok(tracer),
        false => Err("not tried: strace may not attach".into()),
    }
}

/// A program that ends after `listen` may end before we see it listen.
fn not_started(why: &StartFailure, call: &str) -> Outcome {
    match &why.how {
        How::Storm(storm) => Outcome::new(Outcome::STORM, *storm),
        How::NeverListens(_) => Outcome::new(Outcome::NEVER_LISTENS, "it never listens"),
        How::Ended(Some(status)) if status.signal().is_some() => {
            Outcome::new(Outcome::ENDS, ended(*status))
        }
        _ if call.starts_with("accept") => Outcome::new(Outcome::ENDS, "the server ends"),
        _ => Outcome::new(Outcome::DOES_NOT_START, "it does not start, and ends"),
    }
}

/// Three clients, one after the other, and what is left then.
fn serve(subject: &Subject, server: Running, wait_for_end: bool) -> Outcome {
    let clients = || client(&server, &subject.usual, wait_for_end);
    let clients = [clients(), clients(), clients()];
    let hang = clients.iter().filter(|outcome| outcome.rank == Outcome::ONE_HANGS).count();
    let mut worst = clients.into_iter().max().expect("three clients");
    if hang > 1 {
        worst = worst.max(Outcome::new(Outcome::HANGS, "clients wait for ever"));
    }
    let refused = worst.rank > Outcome::GOES_ON
        && connect(server.port, Instant::now() + PATIENCE.time()).is_err();
    let at_rest = || {
        !wait_for_end
            || server.others().len() <= subject.program.standing && state(server.pid) != 'R'
    };
    let rests = within(PATIENCE.time(), || server.has_ended() || !refused && at_rest());
    match server.storm() {
        Some(storm) => Outcome::new(Outcome::STORM, storm),
        None if server.has_ended() => {
            let text = server.status().map_or("the server ends".into(), ended);
            worst.max(Outcome::new(Outcome::ENDS, text))
        }
        None if rests || !wait_for_end => worst,
        None => worst.max(left(&server, subject.program)),
    }
}

fn ended(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("the server is killed by signal {signal}"),
        None => "the server ends".into(),
    }
}

/// What a client is told, and how that differs from what is usual.
fn client(server: &Running, usual: &[u8], wait_for_end: bool) -> Outcome {
    let due = (!wait_for_end).then_some(usual.len());
    let (result, got) = talk(server.port, due);
    let (rank, text) = match result {
        _ if got.len() > usual.len() => (Outcome::INVENTS_DATA, "it sends more than it received"),
        _ if !usual.starts_with(&got) => (Outcome::LOSES_DATA, "it loses a line and goes on"),
        Ok(()) if got == usual => (Outcome::GOES_ON, "it goes on"),
        Err(e) if is_late(&e) => (Outcome::ONE_HANGS, "that client waits for ever"),
        _ => (Outcome::ONE_ENDS, "that connection ends"),
    };
    Outcome::new(rank, text)
}

/// Three lines and the end of file, and what came back. A line that is not answered
/// does not keep the client from sending the next. The end comes with so many bytes, or
/// with the server's end of file.
fn talk(port: u16, due: Option<usize>) -> (io::Result<()>, Vec<u8>) {
    const LINES: [&[u8]; 3] = [b"one\n", b"two\n", b"three\n"];
    let end = Instant::now() + PATIENCE.time();
    let (mut got, mut sent) = (Vec::new(), 0);
    let mut talk = || {
        let mut stream = connect(port, end)?;
        for line in LINES {
            stream.write_all(line)?;
            sent += line.len();
            let next = Instant::now() + PATIENCE.time() / 5;
            while got.len() < sent {
                match receive_until(&stream, &mut got, next) {
                    Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                    Ok(_) => {}
                    Err(e) if is_late(&e) => break,
                    Err(e) => return Err(e),
                }
            }
        }
        stream.shutdown(Shutdown::Write)?;
        while due.is_none_or(|due| got.len() < due) && receive_until(&stream, &mut got, end)? > 0 {}
        Ok::<_, io::Error>(())
    };
    (talk(), got)
}

/// What is left of the children long after all clients have gone.
fn left(server: &Running, program: &Program) -> Outcome {
    let left = server.others();
    let alive: Vec<u32> = left.iter().copied().filter(|&child| state(child) != 'Z').collect();
    match () {
        () if spins(server.pid) || alive.iter().any(|&child| spins(child)) => {
            Outcome::new(Outcome::SPINS, "it spins")
        }
        () if alive.len() > program.standing => {
            Outcome::new(Outcome::ONE_HANGS, "a child never ends")
        }
        () if left.len() > program.standing => Outcome::new(Outcome::ZOMBIE, "it leaves a zombie"),
        () => Outcome::new(Outcome::GOES_ON, "it goes on"),
    }
}

/// Whether a process that has nothing to do uses a tenth of a second of CPU.
fn spins(pid: u32) -> bool {
    let Some(before) = cpu_ticks(pid) else { return false };
    if state(pid) != 'R' {
        return false;
    }
    within(REST.time(), || {
        state(pid) != 'R' || cpu_ticks(pid).is_none_or(|now| now >= before + 10)
    });
    cpu_ticks(pid).is_some_and(|now| now >= before + 10)
}

/// User and system time in hundredths of a second (proc(5)).
fn cpu_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat[stat.rfind(')')? + 2..].split(' ').collect();
    Some(fields[11].parse::<u64>().ok()? + fields[12].parse::<u64>().ok()?)
}
