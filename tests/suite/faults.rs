//! Every system call that the server makes, failed once with every errno of its
//! man page, the first, the second and the hundredth time it is made (strace's
//! `inject`), and what that costs. `tests/suite/expected/faults.txt` says what; with
//! FORKLINE_BLESS=1 it is written anew.
//!
//! strace counts the calls of each process from the moment it attaches. Calls
//! of the parent are counted over many connections; those of a child over many
//! lines of one client, from its first wait for a line on.

use crate::common::*;
use std::env;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const EXPECTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/expected/faults.txt");
/// What the drain finds unanswered.
const HALF: &[u8] = b"half a line";
/// How many injections run at once: most of the time they wait.
const THREADS: usize = 8;

// All errnos of section ERRORS of a call's man page (man-pages 6.03), those that
// can only befall another use of it too.

pub const ACCEPT: &str = "EAGAIN EBADF ECONNABORTED EFAULT EINTR EINVAL EMFILE ENFILE ENOBUFS ENOMEM \
    ENOTSOCK EOPNOTSUPP EPERM EPROTO ENOSR ESOCKTNOSUPPORT EPROTONOSUPPORT ETIMEDOUT \
    ENETDOWN ENOPROTOOPT EHOSTDOWN ENONET EHOSTUNREACH ENETUNREACH"; // the last six: "Error handling"
pub const BIND: &str = "EACCES EADDRINUSE EBADF EINVAL ENOTSOCK EADDRNOTAVAIL EFAULT ELOOP \
    ENAMETOOLONG ENOENT ENOMEM ENOTDIR EROFS";
pub const CLOCK_GETTIME: &str = "EACCES EFAULT EINVAL ENODEV EOPNOTSUPP EPERM";
pub const CLONE: &str = // fork(2) has some of them; ERESTARTNOINTR never reaches a program
    "EACCES EAGAIN EBUSY EEXIST EINVAL ENOMEM ENOSPC ENOSYS EOPNOTSUPP EPERM EUSERS";
pub const CLOSE: &str = "EBADF EINTR EIO ENOSPC EDQUOT";
const CAPSET: &str = "EFAULT EINVAL EPERM";
const CLOSE_RANGE: &str = "EINVAL EMFILE ENOMEM";
const CONNECT: &str = "EACCES EPERM EADDRINUSE EADDRNOTAVAIL EAFNOSUPPORT EAGAIN EALREADY EBADF \
    ECONNREFUSED EFAULT EINPROGRESS EINTR EISCONN ENETUNREACH ENOTSOCK EPROTOTYPE ETIMEDOUT";
const GETSOCKNAME: &str = "EBADF EFAULT EINVAL ENOBUFS ENOTSOCK";
pub const GETSOCKOPT: &str = "EBADF EFAULT EINVAL ENOPROTOOPT ENOTSOCK";
pub const IOCTL: &str = "EBADF EFAULT EINVAL ENOTTY";
pub const KILL: &str = "EINVAL EPERM ESRCH";
const LISTEN: &str = "EADDRINUSE EBADF ENOTSOCK EOPNOTSUPP";
pub const MADVISE: &str = "EACCES EAGAIN EBADF EBUSY EFAULT EINVAL EIO ENOMEM EPERM EHWPOISON";
pub const PPOLL: &str = "EFAULT EINTR EINVAL ENOMEM";
const PRCTL: &str = "EACCES EBADF EBUSY EFAULT EINVAL ENODEV ENXIO EOPNOTSUPP EPERM ERANGE";
pub const PWRITEV2: &str = // also those of write(2) and lseek(2)
    "EAGAIN EBADF EDESTADDRREQ EDQUOT EFAULT EFBIG EINTR EINVAL EIO ENOSPC ENXIO EOPNOTSUPP \
    EOVERFLOW EPERM EPIPE ESPIPE";
pub const RECV: &str = "EAGAIN EBADF ECONNREFUSED EFAULT EINTR EINVAL ENOMEM ENOTCONN ENOTSOCK \
    EPIPE ETIMEDOUT ECONNRESET EHOSTUNREACH"; // the last four: tcp(7), ip(7)
const SECCOMP: &str = "EACCES EBUSY EFAULT EINVAL ENOMEM EOPNOTSUPP ESRCH";
pub const SEND: &str = "EACCES EAGAIN EALREADY EBADF ECONNRESET EDESTADDRREQ EFAULT EINTR EINVAL \
    EISCONN EMSGSIZE ENOBUFS ENOMEM ENOTCONN ENOTSOCK EOPNOTSUPP EPIPE \
    ETIMEDOUT EHOSTUNREACH"; // the last two: tcp(7), ip(7)
const SETGROUPS: &str = "EFAULT EINVAL ENOMEM EPERM";
const SETRESUID: &str = "EAGAIN EINVAL EPERM"; // and setresgid(2)
pub const SETITIMER: &str = "EFAULT EINVAL";
pub const SETSOCKOPT: &str = "EBADF EFAULT EINVAL ENOPROTOOPT ENOTSOCK";
pub const SIGACTION: &str = "EFAULT EINVAL";
pub const SIGALTSTACK: &str = "EFAULT EINVAL ENOMEM EPERM";
pub const SIGPROCMASK: &str = "EFAULT EINVAL";
pub const SOCKET: &str = "EACCES EAFNOSUPPORT EINVAL EMFILE ENFILE ENOBUFS ENOMEM EPROTONOSUPPORT";
pub const WAIT4: &str = "EAGAIN ECHILD EINTR EINVAL ESRCH";
pub const WRITE: &str =
    "EAGAIN EBADF EDESTADDRREQ EDQUOT EFAULT EFBIG EINTR EINVAL EIO ENOSPC EPERM EPIPE";

/// Makes the server issue a call, and tells what its failing has cost.
type Scene = fn(&Fault) -> String;

const USER: &str = "start, as a user";

/// A scene, a call that is made in it, its errnos, and which of its calls fail.
///
/// Not here: calls without errors (exit_group(2), getpid(2), rt_sigreturn(2));
/// those that only a terminal needs (openat(2), dup3(2));
/// the drain's close of the listening socket, since Linux closes a descriptor
/// whatever it reports (close(2)), and strace makes the call not happen; and the
/// parent's rt_sigprocmask for each connection, which fails only if it is given
/// something else, and without which chance decides when signals come.
const CALLS: &[(&str, Scene, &str, &str, &[u32])] = &[
    ("start", start, "rt_sigprocmask", SIGPROCMASK, &[1]),
    ("start", start, "sigaltstack", SIGALTSTACK, &[1]),
    ("start", start, "rt_sigaction", SIGACTION, &[1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ("start", start, "socket", SOCKET, &[1]),
    ("start", start, "setsockopt", SETSOCKOPT, &[1, 2, 3, 4, 5, 6, 7, 8]),
    ("start", start, "getsockopt", GETSOCKOPT, &[1]),
    ("start", start, "bind", BIND, &[1]),
    ("start", start, "listen", LISTEN, &[1]),
    ("start", start, "getsockname", GETSOCKNAME, &[1]),
    ("start", start, "ioctl", IOCTL, &[1]),
    ("start", start, "close_range", CLOSE_RANGE, &[1, 2]),
    ("start", start, "madvise", MADVISE, &[1, 2]),
    ("start", start, "prctl", PRCTL, &[1]),
    ("start", start, "seccomp", SECCOMP, &[1]),
    ("start", start, "pwritev2", PWRITEV2, &[1]),
    ("start, no pwritev2", start_no_pwritev2, "ppoll", PPOLL, &[1]),
    ("start, no pwritev2", start_no_pwritev2, "write", WRITE, &[1]),
    ("start, one address", start_one_address, "socket", SOCKET, &[1]),
    ("start, one address", start_one_address, "bind", BIND, &[1]),
    ("start, shared port", start_shared_port, "setsockopt", SETSOCKOPT, &[2]),
    ("start, notified", start_notified, "socket", SOCKET, &[2]),
    ("start, notified", start_notified, "connect", CONNECT, &[1]),
    ("start, notified", start_notified, "write", WRITE, &[1]),
    (USER, start_as_a_user, "setgroups", SETGROUPS, &[1]),
    (USER, start_as_a_user, "setresgid", SETRESUID, &[1]),
    (USER, start_as_a_user, "setresuid", SETRESUID, &[1]),
    (USER, start_as_a_user, "capset", CAPSET, &[1]),
    ("start, activated", start_activated, "listen", LISTEN, &[1]),
    ("start, activated", start_activated, "setsockopt", SETSOCKOPT, &[1, 2, 3, 4, 5]),
    ("start, activated", start_activated, "getsockopt", GETSOCKOPT, &[1]),
    ("start, activated", start_activated, "socket", SOCKET, &[1]),
    ("start, activated", start_activated, "ioctl", IOCTL, &[1]),
    ("parent", parent, "accept", ACCEPT, &[1, 2, 100]),
    ("parent", parent, "clone", CLONE, &[1, 2, 100]),
    ("parent", parent, "close", CLOSE, &[1, 2, 100]),
    ("parent", parent, "wait4", WAIT4, &[1, 2, 100]),
    ("parent", parent, "pwritev2", PWRITEV2, &[1, 2, 100]),
    ("parent, no pwritev2", parent_no_pwritev2, "ppoll", PPOLL, &[1, 2, 100]),
    ("parent, no pwritev2", parent_no_pwritev2, "write", WRITE, &[1, 2, 100]),
    ("parent, at the cap", parent_at_the_cap, "ppoll", PPOLL, &[1, 2, 100]),
    ("parent, many clients", parent_many, "setitimer", SETITIMER, &[1, 2]),
    ("parent, many clients", parent_many, "wait4", WAIT4, &[1, 2, 100]),
    ("parent, in want", parent_in_want, "clock_gettime", CLOCK_GETTIME, &[1, 2, 100]),
    ("parent, in want", parent_in_want, "ppoll", PPOLL, &[1, 2, 100]),
    ("child", child, "recvfrom", RECV, &[1, 2, 100]),
    ("child", child, "sendto", SEND, &[1, 2, 100]),
    ("child", child, "write", WRITE, &[1, 2, 100]),
    ("child", child, "close", CLOSE, &[1]),
    ("child, in a fault", child_in_a_fault, "setsockopt", SETSOCKOPT, &[1]),
    ("child, at the idle limit", child_at_the_idle_limit, "getsockopt", GETSOCKOPT, &[1]),
    ("child, stdout full", child_stdout_full, "ppoll", PPOLL, &[1]),
    ("child, told to end", child_told_to_end, "getsockopt", GETSOCKOPT, &[1, 2]),
    ("child, told to end", child_told_to_end, "setsockopt", SETSOCKOPT, &[1, 2]),
    ("child, told to end", child_told_to_end, "ppoll", PPOLL, &[1, 2]),
    ("child, new", new_child, "sigaltstack", SIGALTSTACK, &[1]),
    ("child, new", new_child, "setsockopt", SETSOCKOPT, &[1, 2]),
    ("child, new, and parent", new_child, "rt_sigprocmask", SIGPROCMASK, &[1]),
    ("child, new, and parent", new_child, "pwritev2", PWRITEV2, &[1]),
    ("child, new, and parent", new_child, "write", WRITE, &[1]),
    ("child, new, and parent", new_child, "close", CLOSE, &[1]),
    ("drain", drain, "kill", KILL, &[1, 2, 100]),
    ("drain", drain, "ppoll", PPOLL, &[1]),
    ("drain", drain, "wait4", WAIT4, &[1, 2]),
    ("drain", drain, "pwritev2", PWRITEV2, &[1, 2]),
    ("drain, child stopped", drain_stopped, "ppoll", PPOLL, &[1, 2, 100]),
    ("reset, child stopped", reset_stopped, "kill", KILL, &[1, 2, 3]),
    ("reset, child stopped", reset_stopped, "ppoll", PPOLL, &[1, 2]),
];

#[derive(Clone)]
pub struct Fault {
    pub call: &'static str,
    pub errno: &'static str,
    /// Which of the calls: 1 is the first.
    pub when: u32,
    /// All calls after that one fail too.
    pub for_ever: bool,
}

impl Fault {
    /// Makes calls of a process fail.
    pub fn attach(&self, pid: u32, more: &str) -> Strace {
        Strace::attach(pid, self.call, &self.how(), more)
    }

    fn how(&self) -> String {
        let plus = if self.for_ever { "+" } else { "" };
        format!("error={}:when={}{plus}", self.errno, self.when)
    }
}

#[test]
fn a_call_that_fails_once_costs_what_the_table_says() {
    if !may_attach() {
        return;
    }
    let root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if !root {
        skipped("the faults of -u: not root");
    }
    let wanted = |line: &str| root || !line.starts_with(USER);
    let mut faults = Vec::new();
    for &(name, scene, call, errnos, whens) in CALLS.iter().filter(|call| wanted(call.0)) {
        for errno in errnos.split_whitespace() {
            let once = |&when| (name, scene, Fault { call, errno, when, for_ever: false });
            faults.extend(whens.iter().map(once));
        }
    }
    let outcomes = run_all(&faults, |(_, scene, fault)| {
        // A child that could end but was killed had no processor for a second: that
        // is no outcome.
        let mut attempts = (0..5).map(|_| scene(fault));
        let first = attempts.find(|outcome| !outcome.contains("; kill"));
        first.unwrap_or_else(|| scene(fault))
    });
    let _ = writeln!(io::stderr(), "{} faults injected (call, errno, moment)", faults.len());
    compare(&table(faults.iter().map(|fault| (fault.0, &fault.2)).zip(outcomes)), wanted);
}

/// What each of these comes to, several at once, in their order. A panic is an
/// outcome too.
pub fn run_all<T: Sync>(all: &[T], run: impl Fn(&T) -> String + Sync) -> Vec<String> {
    in_parallel(THREADS, all.len(), |i| {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(&all[i])));
        outcome.unwrap_or_else(|panic| match panic.downcast::<String>() {
            Ok(words) => format!("PANIC: {words}"),
            Err(_) => "PANIC".into(),
        })
    })
}

/// A line for each scene, call and errno, with all moments at which the same happened.
fn table<'a>(all: impl Iterator<Item = ((&'a str, &'a Fault), String)>) -> String {
    let mut lines: Vec<(String, String, String)> = Vec::new();
    for ((name, Fault { call, errno, when, .. }), outcome) in all {
        let what = format!("{name}: {call} {errno}");
        match lines.last_mut() {
            Some(last) if (&last.0, &last.2) == (&what, &outcome) => {
                last.1 += &format!(" {when}");
            }
            _ => lines.push((what, when.to_string(), outcome)),
        }
    }
    lines.iter().map(|(what, whens, outcome)| format!("{what} {whens}: {outcome}\n")).collect()
}

fn compare(happened: &str, wanted: impl Fn(&str) -> bool) {
    if env::var_os("FORKLINE_BLESS").is_some() {
        fs::write(EXPECTED, happened).expect("write");
    }
    let expected = fs::read_to_string(EXPECTED).unwrap_or_default();
    let expected: Vec<&str> = expected.lines().filter(|line| wanted(line)).collect();
    let happened: Vec<&str> = happened.lines().collect();
    let missing = expected.iter().filter(|line| !happened.contains(line));
    let new = happened.iter().filter(|line| !expected.contains(line));
    let differences = missing.map(|line| format!("\n- {line}"));
    let differences: String = differences.chain(new.map(|line| format!("\n+ {line}"))).collect();
    assert!(differences.is_empty(), "{EXPECTED}:{differences}");
}

// ---------------------------------------------------------------- scenes

fn start(fault: &Fault) -> String {
    start_with(fault, "", &["echo", "0"])
}

/// The call has no place in old kernels, nor for every file.
pub const NO_PWRITEV2: &str = "-e inject=pwritev2:error=EOPNOTSUPP";

fn start_no_pwritev2(fault: &Fault) -> String {
    start_with(fault, NO_PWRITEV2, &["echo", "0"])
}

fn start_one_address(fault: &Fault) -> String {
    start_with(fault, "", &["-b", "127.0.0.1", "echo", "0"])
}

fn start_shared_port(fault: &Fault) -> String {
    start_with(fault, "", &["-r", "echo", "0"])
}

fn start_as_a_user(fault: &Fault) -> String {
    start_with(fault, "", &["-u", "65534", "echo", "0"])
}

fn start_with(fault: &Fault, more: &str, args: &[&str]) -> String {
    let log = scratch("strace");
    begin(strace_forkline(fault, &log, more).args(args), fault, &log)
}

/// A service manager waits for word.
fn start_notified(fault: &Fault) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("forkline-faults-{}-{n}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let _manager = UnixDatagram::bind_addr(&address).expect("bind");
    let log = scratch("strace");
    let mut command = strace_forkline(fault, &log, "");
    begin(command.env("NOTIFY_SOCKET", format!("@{name}")).args(["echo", "0"]), fault, &log)
}

fn start_activated(fault: &Fault) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let listenfd = listener.as_raw_fd();
    let log = scratch("strace");
    let traced = strace_forkline(fault, &log, "");
    let mut command = Command::new("sh");
    command.args(["-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec strace \"$@\"", "sh"]);
    hand_over(&mut command, listenfd);
    begin(command.args(traced.get_args()).arg("echo"), fault, &log)
}

/// forkline under strace; with -D the process that is started becomes forkline.
pub fn strace_forkline(fault: &Fault, log: &Scratch, more: &str) -> Command {
    let options = format!("-D {} {more}", tampering(fault.call, &fault.how()));
    let mut command = strace(log, options.trim_end());
    command.args(command_line(&[]));
    command
}

fn begin(command: &mut Command, fault: &Fault, log: &Scratch) -> String {
    conclude(launch(command, fault, log), &[])
}

/// Starts the server, which ends or is ready after its fault.
pub fn launch(command: &mut Command, fault: &Fault, log: &Scratch) -> Server {
    let mut server = Server::launch(piped(command));
    wait_for("it ends, or is ready after its fault", || {
        if injected(fault.call, log) {
            let unsaid = fault.call == "write";
            let port = if unsaid { listening_port(server.pid) } else { server.find_port() };
            server.port = port.unwrap_or(0);
        }
        server.ended().is_some() || server.port != 0
    });
    server
}

/// Connections, one after the other.
fn parent(fault: &Fault) -> String {
    connections(fault, "")
}

fn parent_no_pwritev2(fault: &Fault) -> String {
    connections(fault, NO_PWRITEV2)
}

fn connections(fault: &Fault, more: &str) -> String {
    let verbose = matches!(fault.call, "pwritev2" | "ppoll" | "write");
    let server = Server::start(&[if verbose { "-v" } else { "-q" }, "-c", "2", "echo", "0"]);
    let strace = fault.attach(server.pid, more);
    let mut endings = Vec::new();
    strace.until_injected(|| endings.push(converse(&server)));
    if verbose {
        let told = || server.other_messages().len();
        let lost = (fault.call == "write" && fault.errno != "EINTR") as usize;
        let all = 2 * endings.len(); // an accept and an end for each
        wait_for("all but one are told", || told() + lost == all);
    }
    conclude(server, &endings)
}

/// A client waits until another ends.
fn parent_at_the_cap(fault: &Fault) -> String {
    let server = Server::start(&["-q", "-c", "2", "echo", "0"]);
    let (idle, mut client) = (ask(&server), ask(&server));
    let strace = fault.attach(server.pid, "");
    strace.until_injected(|| {
        assert_eq!(receive(&client, LINE.len()), LINE);
        client = ask(&server);
    });
    assert_eq!(receive(&client, LINE.len()), LINE);
    drop((idle, client));
    conclude(server, &[])
}

/// So many clients that their children are asked one by one.
fn parent_many(fault: &Fault) -> String {
    let server = Server::start(&["-q", "-c", "1000", "echo", "0"]);
    let clients: Vec<_> = (0..100).map(|_| server.connect()).collect();
    clients.iter().for_each(|client| assert_eq!(say(client, LINE), LINE));
    let (strace, mut endings) = (fault.attach(server.pid, ""), Vec::new());
    strace.until_injected(|| endings.push(converse(&server)));
    drop(clients);
    conclude(server, &endings)
}

/// accept fails for want of descriptors.
fn parent_in_want(fault: &Fault) -> String {
    let server = Server::start(&["-q", "-c", "2", "echo", "0"]);
    wait_for("it waits", || accepts(server.pid));
    let before = no_more_descriptors(server.pid);
    // The accept that waits already has a descriptor.
    assert_eq!(converse(&server), Ending::Answered);
    let client = ask(&server);
    server.stderr.wait_for("EMFILE");
    let strace = fault.attach(server.pid, "");
    strace.until_injected(|| {
        server.signal(libc::SIGCHLD); // it ends the pause between two attempts
        wait_for("it pauses", || state(server.pid) == 'S');
    });
    set_limit(server.pid, libc::RLIMIT_NOFILE, before);
    assert_eq!(receive(&client, LINE.len()), LINE);
    drop(client);
    conclude(server, &[])
}

/// One client, line after line.
fn child(fault: &Fault) -> String {
    one_client(fault, "")
}

fn child_in_a_fault(fault: &Fault) -> String {
    one_client(fault, "-e inject=recvfrom:error=ENOTCONN:when=1")
}

fn child_at_the_idle_limit(fault: &Fault) -> String {
    one_client(fault, "-e inject=recvfrom:error=EAGAIN:when=1")
}

fn child_stdout_full(fault: &Fault) -> String {
    one_client(fault, "-e inject=write:error=EAGAIN:when=1")
}

fn one_client(fault: &Fault, more: &str) -> String {
    let server = Server::start(&["echo", "0"]);
    let mut client = ask(&server);
    assert_eq!(receive(&client, LINE.len()), LINE);
    let child = server.wait_for_children(1)[0];
    wait_for("the child waits for a line", || calls(child, libc::SYS_recvfrom));
    let strace = fault.attach(child, more);
    if fault.call == "close" {
        client.shutdown(Shutdown::Write).expect("shutdown");
    }
    // The first recv is the one that strace has interrupted and lets go on.
    let takes_lines = match fault.call {
        "recvfrom" => fault.when > 1,
        call => matches!(call, "sendto" | "write" | "ppoll"),
    };
    let mut broken = None;
    strace.until_injected(|| {
        if takes_lines && broken.is_none() {
            let mut answer = [0; LINE.len()];
            let line = client.write_all(LINE).and_then(|()| client.read_exact(&mut answer));
            broken = line.err().map(|error| error.kind());
            wait_for("the child waits for a line", || "SZ-".contains(state(child)));
        }
    });
    let ending = match broken {
        Some(ErrorKind::UnexpectedEof) => "end of file",
        Some(_) => "reset",
        None => match finish(&server, client, b"") {
            Ending::Answered => "answered",
            Ending::Cut => "end of file",
            Ending::Reset => "reset",
            Ending::Open => "left open",
        },
    };
    format!("{ending}, {}", conclude(server, &[]))
}

/// The client has not taken all answers yet, and may have ended its side.
fn child_told_to_end(fault: &Fault) -> String {
    let server = Server::start(&["-q", "echo", "0"]);
    let (client, text) = client_with_much_to_take(&server);
    let child = server.wait_for_children(1)[0];
    let strace = fault.attach(child, "");
    kill(child as i32, libc::SIGTERM);
    if fault.call != "getsockopt" {
        client.shutdown(Shutdown::Write).expect("shutdown");
    }
    strace.until_injected(|| ());
    let ending = match receive_all(&client) {
        (bytes, End::Closed) if bytes == text => "answered",
        (_, End::Closed) => "end of file",
        (_, End::Reset) => "reset",
    };
    format!("{ending}, {}", conclude(server, &[]))
}

/// A child from its first instruction on, so the parent too.
fn new_child(fault: &Fault) -> String {
    let server = Server::start(&["-v", "-t", "60", "echo", "0"]);
    let strace = fault.attach(server.pid, "-f");
    let mut endings = Vec::new();
    strace.until_injected(|| endings.push(converse(&server)));
    drop(strace);
    conclude(server, &endings)
}

/// SIGTERM, while each child has half a line that it has not answered.
fn drain(fault: &Fault) -> String {
    // If its wait fails for all that have ended at once, it tries again at the end of
    // the grace time, in which they must have ended.
    let grace = if fault.call == "wait4" { "10" } else { FOREVER };
    let server = Server::start(&["-g", grace, "-v", "echo", "0"]);
    let n = fault.when.max(3) as usize;
    let clients: Vec<TcpStream> = (0..n).map(|_| half_a_line(&server)).collect();
    server.wait_for_children(n);
    let strace = fault.attach(server.pid, "");
    server.signal(libc::SIGTERM);
    if fault.call == "kill" {
        // Who was not told stays until another signal comes.
        server.wait_for_children(1);
        server.signal(libc::SIGQUIT);
    }
    let outcome = conclude_drain(server, clients);
    assert!(strace.injected());
    outcome
}

/// A child that is stopped keeps the parent waiting.
fn drain_stopped(fault: &Fault) -> String {
    let server = Server::start(&["-g", FOREVER, "echo", "0"]);
    let client = half_a_line(&server);
    let child = server.wait_for_children(1)[0];
    stop(child);
    let strace = fault.attach(server.pid, "");
    server.signal(libc::SIGTERM);
    strace.until_injected(|| {
        wait_for("it waits for a signal", || state(server.pid) == 'S');
        server.signal(libc::SIGCHLD);
    });
    kill(child as i32, libc::SIGCONT);
    conclude_drain(server, vec![client])
}

/// A child that is stopped is told to reset its connection.
fn reset_stopped(fault: &Fault) -> String {
    let server = Server::start(&["-g", "0", "-v", "echo", "0"]);
    let client = half_a_line(&server);
    stop(server.wait_for_children(1)[0]);
    let strace = fault.attach(server.pid, "");
    server.signal(libc::SIGTERM);
    let outcome = conclude_drain(server, vec![client]);
    assert!(strace.injected());
    outcome
}

pub fn half_a_line(server: &Server) -> TcpStream {
    let mut client = server.connect();
    client.write_all(HALF).expect("send");
    client
}

fn conclude_drain(mut server: Server, clients: Vec<TcpStream>) -> String {
    let status = server.wait().code();
    let endings: Vec<_> = clients.into_iter().map(|client| finish(&server, client, HALF)).collect();
    format!("{}ends with status {}{}", costs(&endings), status.unwrap_or(-1), told(server))
}

// ---------------------------------------------------------------- what it costs

/// How a connection ends for a client who has sent something and half-closed.
#[derive(Debug, PartialEq)]
enum Ending {
    Answered,
    /// End of file before the whole answer.
    Cut,
    Reset,
    /// Answered, but open when no child is left.
    Open,
}

fn converse(server: &Server) -> Ending {
    let Ok(mut client) = TcpStream::connect(("127.0.0.1", server.port)) else {
        return Ending::Reset;
    };
    match client.write_all(LINE) {
        Ok(()) => finish(server, client, LINE),
        Err(_) => Ending::Reset,
    }
}

/// Half-closes, and receives to the end.
fn finish(server: &Server, mut client: TcpStream, expected: &[u8]) -> Ending {
    let _ = client.shutdown(Shutdown::Write); // fails after a reset
    let port = client.local_addr().expect("its address").port();
    client.set_read_timeout(Some(Duration::from_millis(20))).expect("timeout");
    let (mut answer, mut ending) = (Vec::new(), None);
    wait_for("the connection ends", || {
        ending = match client.read_to_end(&mut answer) {
            Ok(_) if answer == expected => Some(Ending::Answered),
            Ok(_) => Some(Ending::Cut),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let left_open = answer == expected && keeps_open(server, port);
                left_open.then_some(Ending::Open)
            }
            Err(_) => Some(Ending::Reset),
        };
        ending.is_some()
    });
    ending.unwrap()
}

/// Whether the server holds the connection of the client at this port, though it
/// waits for others and no child is left.
fn keeps_open(server: &Server, port: u16) -> bool {
    state(server.pid) == 'S'
        && children_now(server.pid).is_empty()
        && tcp_sockets(server.pid).iter().any(|tcp| tcp.peer == port)
}

/// The connections that did not end well.
fn costs(endings: &[Ending]) -> String {
    let count = |these: &[Ending], what| match endings
        .iter()
        .filter(|ending| these.contains(ending))
        .count()
    {
        0 => String::new(),
        n => format!("{n} {what}, "),
    };
    count(&[Ending::Cut, Ending::Reset], "lost") + &count(&[Ending::Open], "left open")
}

/// Ten good connections after these, or the end; and what the server has said.
fn conclude(mut server: Server, endings: &[Ending]) -> String {
    if server.ended().is_none() && (0..10).all(|_| converse(&server) == Ending::Answered) {
        // Both places of a cap of 2 are still there.
        let two = [ask(&server), ask(&server)];
        assert!(two.iter().all(|client| receive(client, LINE.len()) == LINE));
        drop(two);
        let reaps = if reaps_all(&server) { "" } else { ", reaps nobody" };
        return format!("{}serves{reaps}{}", costs(endings), told(server));
    }
    let status = server.wait();
    let status = status.code().map_or(status.to_string(), |code| format!("status {code}"));
    format!("ends with {status}{}", told(server))
}

/// Whether it waits for all who have ended. It will not if they stay zombies while it
/// sleeps and has no SIGCHLD to come, over many looks: one might fall between a
/// child's end and the signal.
fn reaps_all(server: &Server) -> bool {
    let (mut reaped, mut looks) = (false, 0);
    wait_for("it reaps them or never will", || {
        let children = children_now(server.pid);
        reaped = children.is_empty();
        let never = children.iter().all(|&child| state(child) == 'Z')
            && state(server.pid) == 'S'
            && pending(server.pid, libc::SIGCHLD) == 0;
        looks = if never { looks + 1 } else { 0 };
        reaped || looks == 20
    });
    reaped
}

/// Each thing that was said and is no part of the service, without what differs
/// from run to run.
fn told(server: Server) -> String {
    const USUAL: [&str; 5] =
        ["accept", "end reason=eof", "end reason=stop", "drain signal=SIGTERM", "drained"];
    let mut told = String::new();
    for line in server.stop().1.lines() {
        let line = without(&["pid=", "client=", "children=", "suppressed="], line);
        if line.contains("listening on 0.0.0.0") {
            told.insert_str(0, " IPv4 only");
        } else if line.contains("listening on") || USUAL.contains(&&*line) {
            continue;
        } else if !told.contains(&line) {
            told += &format!("; {line}");
        }
    }
    told
}

/// A message without its first word and without the words that begin with these keys.
pub fn without(keys: &[&str], line: &str) -> String {
    let line = line.strip_prefix("forkline: ").unwrap_or(line);
    let words = line.split(' ').filter(|word| !keys.iter().any(|key| word.starts_with(key)));
    words.collect::<Vec<_>>().join(" ")
}
