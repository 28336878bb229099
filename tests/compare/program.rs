//! The programs that are compared: forkline, and C that may not compile, never
//! listen, never answer or never end. Such a C is reported; it stops nothing.

use super::jail::{self, Jail};
use super::submission::Sources;
use crate::common::{
    self, Collected, has_ended, kill, listening_port, processors, tcp_sockets, within,
};
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// Set by tests: on a busy machine they may take long, and must judge as on a quiet one.
pub static PATIENT: AtomicBool = AtomicBool::new(false);

/// How long something may take on a quiet machine.
#[derive(Clone, Copy)]
pub struct Patience(pub Duration);

impl Patience {
    /// The same now: on a busy machine so many times as long as there are processes for
    /// each processor that want to run (proc(5), loadavg). What is judged is among them,
    /// so only tests count all.
    pub fn time(self) -> Duration {
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let numbers: Vec<f64> = load.split([' ', '/']).map_while(|n| n.parse().ok()).collect();
        let [minute, _, _, now, ..] = numbers[..] else { return self.0 };
        let crowd = minute.max(now) / processors().len() as f64;
        self.0.mul_f64(match PATIENT.load(Ordering::Relaxed) {
            true => crowd.clamp(1.0, 10.0),
            false => (crowd / 3.0).clamp(1.0, 4.0),
        })
    }
}

/// How long a program may take to listen.
pub const START: Patience = Patience(Duration::from_secs(5));
/// How long one conversation may take.
pub const CONVERSATION: Patience = Patience(Duration::from_secs(3));
/// How long children may take to end after their clients have gone.
pub const REST: Patience = Patience(Duration::from_millis(1500));
/// More than this no program writes that is asked what is asked here.
pub const MOST_OUTPUT: u64 = 1 << 21;
/// How an error begins when nobody listens.
pub const NOBODY_LISTENS: &str = "nobody listens any more";
/// How long the compiler may take.
const COMPILER: Patience = Patience(Duration::from_secs(20));

/// A program, and how it is called.
#[derive(Clone)]
pub struct Program {
    pub path: PathBuf,
    pub args: Vec<String>,
    /// What it reads from standard input: the port, if it wants it there.
    pub input: Option<String>,
    /// What a reader types to start it.
    pub called: String,
    /// What the compiler warned of.
    pub warnings: String,
    /// Processes that it has beside the first, before the first client comes.
    pub standing: usize,
    /// Where it runs and writes; none for forkline, which has no limits.
    home: Option<PathBuf>,
}

/// How a C is compiled.
#[derive(Clone, Default)]
pub struct Tools {
    pub cc: String,
    pub cppflags: String,
    pub cflags: String,
    pub ldlibs: String,
}

/// forkline as this service, on a port that the kernel chooses.
pub fn forkline(service: &str) -> Program {
    Program {
        path: env!("CARGO_BIN_EXE_forkline").into(),
        args: vec![service.into(), "0".into()],
        input: None,
        called: format!("forkline {service}"),
        warnings: String::new(),
        standing: 0,
        home: None,
    }
}

// ---------------------------------------------------------------- compiler

/// Compiles and links these sources in `room`, with flags that are words as in make.
pub fn compile(sources: &Sources, tools: &Tools, room: &Path) -> Result<Program, String> {
    let (build, runs, user) = (room.join("build"), room.join("runs"), jail::new_user());
    for (user, path) in [(None, room), (None, &*runs), (user, &*build)] {
        jail::directory_of(user, path).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    let to = build.join("program");
    let mut words = tools.cc.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or("cc"));
    if let Err(e) = Command::new(command.get_program()).arg("--version").output() {
        return Err(format!("the C compiler {:?} does not start: {e}", command.get_program()));
    }
    // A warning is shown, and is no failure, whatever the flags are.
    command.args(words).args(tools.cppflags.split_whitespace());
    command.args(tools.cflags.split_whitespace()).arg("-Wno-error");
    for directory in &sources.includes {
        command.arg("-iquote").arg(directory);
    }
    command.arg("-o").arg(&to).args(&sources.files).args(tools.ldlibs.split_whitespace());
    command.env("LC_ALL", "C").env("TMPDIR", &build);
    let (status, words) = run_compiler(&mut command, user)?;
    let words = sources.as_named(&words);
    if !status.success() {
        return Err(format!("{}\n{words}", first_error(&words)));
    }
    jail::open_to_all(&to);
    Ok(Program {
        path: to,
        args: vec![],
        input: None,
        called: String::new(),
        warnings: words,
        standing: 0,
        home: Some(runs),
    })
}

/// Its status, and what it wrote to stderr.
fn run_compiler(command: &mut Command, user: Option<u32>) -> Result<(ExitStatus, String), String> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut jail = Jail::start(command, true, user).map_err(|e| format!("{command:?}: {e}"))?;
    let stderr = Collected::from(jail.child.stderr.take());
    if !within(COMPILER.time(), || jail.is_empty() && stderr.ended()) {
        return Err(format!("the compiler needs longer than {:?}", COMPILER.0));
    }
    within(REST.time(), || jail.status().is_some());
    let status = jail.status().ok_or("the compiler was killed")?;
    Ok((status, stderr.text().trim_end().to_owned()))
}

/// What the compiler, or the linker, says first.
fn first_error(words: &str) -> &str {
    const ERRORS: [&str; 4] = ["error:", "undefined reference", "multiple definition", "ld:"];
    let is_error = |line: &&str| ERRORS.iter().any(|error| line.contains(error));
    let first = words.lines().find(is_error).or(words.lines().next());
    first.unwrap_or("the compiler fails, and says nothing")
}

// ---------------------------------------------------------------- how it is called

/// A port above 1024 that clients do not get (see `fresh_network`).
const PORT: u16 = 24117;
const LOOPBACK: &str = "127.0.0.1";

/// The arguments that are tried, in this order. `PORT` stands for the port.
const CALLS: [&[&str]; 5] =
    [&["PORT"], &[LOOPBACK, "PORT"], &["PORT", LOOPBACK], &["-p", "PORT"], &[]];

/// The same program as it wants to be called, or what was tried and what it said.
pub fn find_call(program: &Program, name: &str, port: u16) -> Result<Program, String> {
    let mut tried = Vec::new();
    for call in CALLS {
        let word = |word: &&str| word.replace("PORT", &port.to_string());
        let args: Vec<String> = call.iter().map(word).collect();
        let called = format!("./{name} {}", args.join(" ")).trim_end().to_owned();
        let input = Some(format!("{port}\n"));
        let attempt = Program { args, input, called, ..program.clone() };
        fresh_network();
        match Running::start(&attempt) {
            // One that asks for its port needs no argument.
            Ok(running) if running.fed && !attempt.args.is_empty() => {
                let called = format!("./{name}");
                let bare = Program { args: vec![], called, ..attempt.clone() };
                drop(running);
                fresh_network();
                let again = Running::start(&bare).map_err(|failure| failure.to_string())?;
                return Ok(as_found(bare, again, port));
            }
            Ok(running) => return Ok(as_found(attempt, running, port)),
            Err(failure) => {
                tried.push(attempt.called);
                let more = matches!(failure.how, How::Ended(_)) && tried.len() < CALLS.len();
                if !more {
                    return Err(format!("{failure}\ntried: {}", tried.join(", ")));
                }
            }
        }
    }
    unreachable!("the last call returns")
}

/// The program with what its first start has shown.
fn as_found(mut program: Program, running: Running, port: u16) -> Program {
    // It may make processes that wait for clients.
    thread::sleep(Duration::from_millis(100));
    program.standing = running.others().len();
    if running.fed {
        program.called += &format!(", and {port} on standard input");
    } else {
        program.input = None;
    }
    if running.port != port {
        program.called += &format!(" (its own port: {})", running.port);
    }
    program
}

/// A port for programs that take one: with a network of their own always the same.
pub fn port() -> u16 {
    match fresh_network() {
        true => PORT,
        false => {
            let any = std::net::TcpListener::bind((LOOPBACK, 0)).and_then(|l| l.local_addr());
            any.map_or(PORT, |address| address.port())
        }
    }
}

/// Gives this thread, and what it starts from now on, a new network where that is
/// permitted: no port is taken there, and none is in TIME_WAIT. A port that a C has
/// for its own is no client's.
pub fn fresh_network() -> bool {
    let fresh = common::own_network();
    if fresh {
        let _ = fs::write("/proc/sys/net/ipv4/ip_local_port_range", "61000 65000");
    }
    fresh
}

// ---------------------------------------------------------------- running

impl Program {
    /// It is forkline.
    pub fn is_ours(&self) -> bool {
        self.home.is_none()
    }

    pub fn command(&self) -> Command {
        self.under(&[])
    }

    /// The command, behind the words of one that runs it.
    pub fn under(&self, words: &[&str]) -> Command {
        let mut all = words.iter().map(|word| (*word).into()).collect::<Vec<PathBuf>>();
        all.push(self.path.clone());
        let mut command = Command::new(&all[0]);
        command.args(&all[1..]).args(&self.args);
        // Cargo's, in which the loader would look for the C's libraries first.
        command.env_remove("LD_LIBRARY_PATH");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// A program that listens. Dropping it ends it and all that it has started.
pub struct Running {
    pub port: u16,
    /// The process that listens.
    pub pid: u32,
    /// Where it was started, if it has a place of its own.
    pub home: Option<PathBuf>,
    /// It has read from standard input.
    fed: bool,
    stdin: Option<ChildStdin>,
    stdout: Collected,
    stderr: Collected,
    jail: Jail,
}

/// Why a program does not listen.
#[derive(Debug)]
pub struct StartFailure {
    pub how: How,
    /// What it has written.
    pub words: String,
}

#[derive(Debug)]
pub enum How {
    Ended(Option<ExitStatus>),
    NeverListens(Duration),
    Storm(&'static str),
    NotStarted(String),
}

impl fmt::Display for StartFailure {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.how {
            How::Ended(Some(status)) => write!(f, "it ends without listening: {status}")?,
            How::Ended(None) => write!(f, "it ends without listening")?,
            How::NeverListens(time) => write!(f, "it does not listen within {} s", time.as_secs())?,
            How::Storm(what) => write!(f, "{what}")?,
            How::NotStarted(why) => write!(f, "{why}")?,
        }
        let line = self.words.lines().next().unwrap_or_default();
        if line.is_empty() { Ok(()) } else { write!(f, "; it says: {line}") }
    }
}

impl Running {
    pub fn start(program: &Program) -> Result<Running, StartFailure> {
        Running::spawn(program, &mut program.command(), START)
    }

    /// Starts a command of `program`, which may run under another.
    pub fn spawn(
        program: &Program,
        command: &mut Command,
        patience: Patience,
    ) -> Result<Running, StartFailure> {
        let mut running = Running::launch(program, command)
            .map_err(|why| StartFailure { how: How::NotStarted(why), words: String::new() })?;
        within(patience.time(), || running.listens(program) || running.has_gone());
        if running.port != 0 {
            return Ok(running);
        }
        let how = match running.jail.storm() {
            Some(storm) => How::Storm(storm),
            None if running.has_gone() => How::Ended(running.status()),
            None => How::NeverListens(patience.0),
        };
        running.jail.end();
        within(REST.time(), || running.stdout.ended() && running.stderr.ended());
        let words = [running.stderr.text(), running.stdout.text()].concat();
        Err(StartFailure { how, words })
    }

    fn launch(program: &Program, command: &mut Command) -> Result<Running, String> {
        static RUN: AtomicU32 = AtomicU32::new(0);
        let mut user = None;
        let home = program
            .home
            .as_ref()
            .map(|home| home.join(RUN.fetch_add(1, Ordering::Relaxed).to_string()));
        if let Some(home) = &home {
            user = jail::new_user();
            jail::directory_of(user, home).map_err(|e| format!("{}: {e}", home.display()))?;
            let path = std::env::var_os("PATH").unwrap_or_default();
            command.env_clear().env("PATH", path).current_dir(home).stdin(Stdio::piped());
        }
        let mut jail = Jail::start(command, home.is_some(), user)
            .map_err(|e| format!("{}: {e}", program.path.display()))?;
        let (stdin, pid) = (jail.child.stdin.take(), jail.child.id());
        // One that writes without end is ended by SIGPIPE.
        let stdout = Collected::from(jail.child.stdout.take().map(|pipe| pipe.take(MOST_OUTPUT)));
        let stderr = Collected::from(jail.child.stderr.take().map(|pipe| pipe.take(MOST_OUTPUT)));
        Ok(Running { port: 0, pid, home, fed: false, stdin, stdout, stderr, jail })
    }

    /// Looks for a process that listens. One that waits for a line gets it.
    fn listens(&mut self, program: &Program) -> bool {
        for pid in self.jail.processes() {
            if let Some(port) = listening_port(pid) {
                (self.pid, self.port) = (pid, port);
                return true;
            }
            if let (Some(input), Some(stdin)) = (&program.input, &mut self.stdin)
                && waits_for_input(pid)
            {
                self.fed = stdin.write_all(input.as_bytes()).is_ok();
            }
        }
        false
    }

    /// Nobody is left who could listen.
    fn has_gone(&mut self) -> bool {
        self.jail.is_empty()
            || self.jail.storm().is_some()
            || self.jail.status().is_some() && self.jail.processes().is_empty()
    }

    /// The server has ended, or was ended because it forks without end.
    pub fn has_ended(&self) -> bool {
        has_ended(self.pid) || self.storm().is_some()
    }

    /// The status with which it has ended, if that is known.
    pub fn status(&self) -> Option<ExitStatus> {
        within(REST.time() / 5, || self.jail.status().is_some());
        self.jail.status()
    }

    pub fn storm(&self) -> Option<&'static str> {
        self.jail.storm()
    }

    /// What it has written to standard error.
    pub fn complaint(&self) -> String {
        self.stderr.text().lines().next_back().unwrap_or_default().to_owned()
    }

    /// All processes but the server, zombies too, and but strace.
    pub fn others(&self) -> Vec<u32> {
        let is_strace = |pid: u32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "strace\n")
        };
        let mut all = self.jail.processes();
        all.retain(|&pid| pid != self.pid && !is_strace(pid));
        all
    }

    /// The process that has the connection from this port and that was not there
    /// before, for good: a child that forks once more passes it on.
    pub fn holder(&self, before: &[u32], port: u16) -> Option<u32> {
        let new = || {
            let all = self.others().into_iter();
            all.rev().find(|pid| !before.contains(pid) && holds(*pid, port))
        };
        let mut found = None;
        within(REST.time() / 2, || {
            let last = found;
            found = new();
            if found.is_some() && found != last {
                thread::sleep(Duration::from_millis(20));
            }
            found.is_some() && found == last
        });
        found
    }

    /// Waits until no child is left; false if some are after `REST`.
    pub fn rest(&self, program: &Program) -> bool {
        within(REST.time(), || self.others().len() <= program.standing)
    }

    /// Kills all at one moment; nothing is reaped yet.
    pub fn kill_all(&self) {
        let all = self.jail.processes();
        all.iter().for_each(|&pid| kill(pid as i32, libc::SIGKILL));
        within(REST.time(), || all.iter().all(|&pid| has_ended(pid)));
    }

    /// An error of a client, and what has become of the server.
    pub fn why(&self, error: &io::Error) -> String {
        match (self.storm(), error.kind()) {
            (Some(storm), _) => storm.into(),
            (None, ErrorKind::WouldBlock | ErrorKind::TimedOut) => "no answer in time".into(),
            (None, ErrorKind::ConnectionRefused) if has_ended(self.pid) => self.why_ended(),
            (None, ErrorKind::ConnectionRefused) => {
                format!("{NOBODY_LISTENS}: the server has closed its listening socket")
            }
            (None, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                "reset by the server".into()
            }
            _ => error.to_string(),
        }
    }

    fn why_ended(&self) -> String {
        let signal = self.status().and_then(|status| status.signal());
        let how = match signal {
            Some(libc::SIGPIPE) => "is killed by SIGPIPE, since it sends to a client who has gone",
            Some(libc::SIGSEGV) => "is killed by SIGSEGV, since it uses memory that is not its own",
            Some(_) => "is killed by a signal",
            None => "has ended",
        };
        let complaint = self.complaint();
        let says = if complaint.is_empty() { "" } else { "; it says: " };
        format!("{NOBODY_LISTENS}: the server {how}{says}{complaint}")
    }

    /// Ends all; what was on its stdout.
    pub fn stop(mut self) -> Vec<u8> {
        self.jail.end();
        within(REST.time(), || self.stdout.ended());
        self.stdout.bytes()
    }

    /// Ends the server, which must have no child under way; what it and the
    /// children that it has waited for have used (wait4(2)). None for a daemon.
    pub fn usage(self) -> Option<libc::rusage> {
        if self.jail.status().is_some() {
            return None; // of a daemon's first process
        }
        kill(self.pid as i32, libc::SIGKILL);
        within(REST.time(), || self.jail.usage().is_some());
        self.jail.usage()
    }
}

/// Whether it waits in read(0, ...) (proc(5), syscall).
fn waits_for_input(pid: u32) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    call.starts_with(&format!("{} 0x0 ", libc::SYS_read))
}

/// Whether it has a listening socket.
pub fn listens(pid: u32) -> bool {
    tcp_sockets(pid).iter().any(|tcp| tcp.listens)
}

/// Whether it has the connection of the client with this port.
pub fn holds(pid: u32, port: u16) -> bool {
    tcp_sockets(pid).iter().any(|tcp| tcp.peer == port)
}
