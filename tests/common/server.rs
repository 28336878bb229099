//! forkline and the C programs as running servers, with their output collected, and
//! other commands.

use super::*;
use std::env;
use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

/// A running server in a process group of its own. Dropping it kills it and
/// its children, and checks every message that it has written.
pub struct Server {
    pub port: u16,
    pub pid: u32,
    /// Empty unless the command's stdout is a pipe, which it is by default.
    pub stdout: Collected,
    pub stderr: Collected,
    child: Child,
    /// Once it has ended: the children that it has left behind.
    orphans: Option<Vec<u32>>,
}

impl Server {
    /// Starts forkline and returns when it is ready.
    pub fn start(args: &[&str]) -> Server {
        Server::spawn(&mut forkline(args))
    }

    /// Starts `tests/c/<service>.c` on a port that the kernel chose.
    pub fn start_c(service: &str) -> Server {
        let mut command = Command::new(compiled(service));
        if service == "echo" {
            command.arg("0");
        }
        Server::spawn(command.stdout(Stdio::piped()).stderr(Stdio::null()))
    }

    /// Starts any command that becomes a server: `forkline(args)` with its
    /// streams, limits or user changed, or a program that runs forkline.
    /// Without a readiness line (stderr elsewhere or closed) the port is read
    /// from /proc.
    pub fn spawn(command: &mut Command) -> Server {
        let mut server = Server::launch(command);
        wait_for("the server is ready", || {
            if let Some(status) = server.ended() {
                wait_for("its output ends", || server.stderr.ended());
                panic!("server ended, {status}: {}", server.stderr.text());
            }
            server.port = server.find_port().unwrap_or(0);
            server.port != 0
        });
        server
    }

    /// The same, but it may never be ready: its port is 0 for now.
    pub fn launch(command: &mut Command) -> Server {
        inherit_nothing();
        let mut child = command.process_group(0).spawn().expect("server starts");
        if let Some(pipe) = &child.stderr {
            never_full(pipe);
        }
        let stdout = Collected::from(child.stdout.take());
        let stderr = Collected::from(child.stderr.take());
        Server { port: 0, pid: child.id(), stdout, stderr, child, orphans: None }
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().expect("try_wait")?;
        self.orphans.get_or_insert_with(|| members_of(self.pid));
        Some(status)
    }

    /// Its port, once it is ready.
    pub fn find_port(&self) -> Option<u16> {
        if self.stderr.ended() {
            return listening_port(self.pid);
        }
        let lines = self.stderr.lines();
        let ready = lines.iter().find(|line| line.contains(" listening on "))?;
        ready.rsplit(':').next()?.parse().ok()
    }

    /// Connects over 127.0.0.1.
    pub fn connect(&self) -> TcpStream {
        connect(("127.0.0.1", self.port))
    }

    /// Its children, those that are zombies too.
    pub fn children(&self) -> Vec<u32> {
        children_of(self.pid)
    }

    /// Waits until it has exactly `n` children, zombies counted, and gives them.
    pub fn wait_for_children(&self, n: usize) -> Vec<u32> {
        wait_for(&format!("{n} children"), || self.children().len() == n);
        self.children()
    }

    /// Sends a signal to the server alone.
    pub fn signal(&self, signal: i32) {
        kill(self.pid as i32, signal);
    }

    /// Kills it and its children and gives all of stdout and of stderr.
    pub fn stop(self) -> (String, String) {
        let (stdout, stderr) = (self.stdout.clone(), self.stderr.clone());
        drop(self);
        wait_for("its output ends", || stdout.ended() && stderr.ended());
        (stdout.text(), stderr.text())
    }

    /// What it has said besides the ready line and the lines of its end, among
    /// which are the ends of the children that it has killed.
    pub fn other_messages(&self) -> Vec<String> {
        let lines = self.stderr.lines();
        let (ready, rest) = lines.split_first().expect("the ready line");
        assert!(ready.contains(" listening on "), "{ready}");
        let mut kills = false;
        let is_other = |line: &&String| {
            kills |= line.starts_with("forkline: kill ");
            let is_killed = kills && line.contains(" reason=signal signal=SIGKILL ");
            !is_killed && !is_of_the_end(line)
        };
        rest.iter().filter(is_other).cloned().collect()
    }

    /// Panics if there are other messages.
    pub fn has_said_nothing_else(&self) {
        assert!(self.other_messages().is_empty(), "{}", self.stderr.text());
    }

    /// Waits for its end, and for that of its output unless a child of its is left.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_for("the server ends", || {
            status = self.ended();
            let is_alone = self.orphans.as_ref().is_some_and(Vec::is_empty);
            status.is_some() && (!is_alone || self.stderr.ended())
        });
        status.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        match &self.orphans {
            None => kill(-(self.pid as i32), libc::SIGKILL),
            // By now another process may have its number, and be in its own group.
            Some(orphans) if orphans.is_empty() => {}
            Some(orphans) => {
                let left = members_of(self.pid).into_iter().filter(|pid| orphans.contains(pid));
                left.for_each(|pid| kill(pid as i32, libc::SIGKILL));
            }
        }
        let _ = self.child.wait();
        if !thread::panicking() {
            // A process elsewhere may hold the pipe for longer.
            within(Duration::from_secs(1), || self.stderr.ended());
            messages::check(&self.stderr.text());
        }
    }
}

/// `forkline: drain signal=SIGTERM children=3/1024`, `forkline: drained children=0/1024`
/// and the like.
pub fn is_of_the_end(line: &str) -> bool {
    let words: Vec<&str> = line.split(' ').collect();
    let ["forkline:", event, signal @ .., children] = &words[..] else { return false };
    let signal_fits = match signal {
        [] => matches!(*event, "reset" | "kill" | "drained"),
        [signal] => {
            matches!(*event, "drain" | "reset" | "kill") && signal.starts_with("signal=SIG")
        }
        _ => false,
    };
    let count = children.strip_prefix("children=").and_then(|count| count.split_once('/'));
    let is_number = |text: &str| text.parse::<u32>().is_ok();
    signal_fits && count.is_some_and(|(n, most)| is_number(n) && is_number(most))
}

/// What the parent says of a signal that ends it.
pub fn stop_message(event: &str, signal: i32, children: usize) -> String {
    let name = match signal {
        libc::SIGHUP => "HUP",
        libc::SIGINT => "INT",
        libc::SIGQUIT => "QUIT",
        _ => "TERM",
    };
    format!("forkline: {event} signal=SIG{name} children={children}/1024\n")
}

/// The signals that ask for the orderly end.
pub const STOP_SIGNALS: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];
/// A grace time that no test waits for.
pub const FOREVER: &str = "86400";

/// The release binary with these arguments, stdout and stderr piped.
pub fn forkline(args: &[&str]) -> Command {
    let words = command_line(args);
    let mut command = Command::new(&words[0]);
    piped(command.args(&words[1..]));
    command
}

/// A command without input, whose output is collected.
pub fn piped(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped())
}

/// The same as words. $FORKLINE may name another architecture's binary, after
/// the emulator that runs it.
pub fn command_line(args: &[&str]) -> Vec<String> {
    let emulator = env::var("FORKLINE");
    let binary = match &emulator {
        Ok(words) => words.split(' ').collect(),
        Err(_) => vec![env!("CARGO_BIN_EXE_forkline")],
    };
    binary.into_iter().chain(args.iter().copied()).map(String::from).collect()
}

/// Lets the command make these system calls before it becomes the program.
pub fn before_exec(
    command: &mut Command,
    mut calls: impl FnMut() + Send + Sync + 'static,
) -> &mut Command {
    let calls = move || {
        calls();
        Ok(())
    };
    // SAFETY: system calls are async-signal-safe, and nobody lets it do anything else.
    unsafe { command.pre_exec(calls) }
}

/// Starts the command with descriptor `fd` closed, as `fd>&-` does in a shell.
pub fn close_at_start(command: &mut Command, fd: i32) -> &mut Command {
    // SAFETY: no pointers.
    before_exec(command, move || _ = unsafe { libc::close(fd) })
}

/// Hands a descriptor to the command, as its descriptor 3.
pub fn hand_over(command: &mut Command, fd: i32) -> &mut Command {
    // SAFETY: no pointers. A dup2 alone would leave a 3 as it is, to be closed by exec.
    before_exec(command, move || _ = unsafe { libc::dup2(libc::dup(fd), 3) })
}

/// What is started from here on does not ignore the signals that a script or
/// nohup(1) makes its commands ignore, and has no descriptor that this process was
/// started with, such as those of make's jobs.
fn inherit_nothing() {
    for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP] {
        // SAFETY: it is the default for each of them.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the call takes no pointers. Descriptors of our own are closed at exec
        // as it is.
        unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
        // All tests together may need more than a shell's 1024.
        set_limit(0, libc::RLIMIT_NOFILE, u64::MAX);
    });
}

/// Runs a command that ends by itself, at most DEADLINE long.
pub fn run(command: &mut Command) -> Output {
    run_for(DEADLINE, command)
}

/// The same for tools, which take long on a machine that is busy.
pub fn run_tool(command: &mut Command) -> Output {
    run_for(10 * DEADLINE, command)
}

fn run_for(most: Duration, command: &mut Command) -> Output {
    inherit_nothing();
    command.stdin(Stdio::null()).process_group(0);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let pid = child.id() as i32;
    let stdout = Collected::from(child.stdout.take());
    let stderr = Collected::from(child.stderr.take());
    let end = Instant::now() + most;
    let late = loop {
        match child.try_wait().expect("try_wait") {
            Some(_) if stdout.ended() && stderr.ended() => break false,
            _ if Instant::now() > end => break true,
            _ => thread::sleep(Duration::from_millis(1)),
        }
    };
    if late {
        kill(-pid, libc::SIGKILL);
    }
    let status = child.wait().expect("wait");
    assert!(!late, "{command:?} did not end");
    messages::check(&stderr.text());
    Output { status, stdout: stdout.bytes(), stderr: stderr.bytes() }
}

/// What a program has written.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a tool in the project's directory and returns its stdout.
pub fn succeeds(command: &mut Command) -> String {
    let output = run_tool(command.current_dir(env!("CARGO_MANIFEST_DIR")));
    let (stdout, stderr) = (String::from_utf8(output.stdout), String::from_utf8(output.stderr));
    assert!(output.status.success(), "{command:?}: {stderr:?}");
    stdout.expect("text")
}

/// The program made from `tests/c/<name>.c` with $CC or cc, once per process.
pub fn compiled(name: &str) -> PathBuf {
    static DONE: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut done = DONE.lock().unwrap();
    if !done.iter().any(|other| other == name) {
        let new = scratch(name); // renamed when whole: another run may be using it
        let cc = env::var("CC").unwrap_or("cc".into());
        let source = format!("{}/tests/c/{name}.c", env!("CARGO_MANIFEST_DIR"));
        let mut cc = Command::new(cc);
        cc.args(["-Wall", "-Wextra", "-Werror", "-O2", "-DSERV_PORT=0", "-o"]);
        let output = run(cc.arg(&*new).arg(source));
        assert!(output.status.success(), "{}", text(&output.stderr));
        fs::rename(&*new, &program).expect("rename");
        done.push(name.into());
    }
    program
}

// ---------------------------------------------------------------- output

/// Makes a pipe large enough for all that a test makes a server say: it drops what
/// does not fit, and the thread that reads may have to wait (fcntl(2), F_SETPIPE_SZ).
fn never_full(pipe: &impl AsRawFd) {
    // SAFETY: no pointers. Where it is not permitted, the pipe stays as it is.
    unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, 1 << 20) };
}

/// Makes a pipe as small as it can be: a page of the machine. Otherwise it has 16 of
/// them, which are 64 KiB on one machine and a megabyte on another.
pub fn smallest_pipe(pipe: &impl AsRawFd) {
    // SAFETY: no pointers.
    let bytes = unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, 1) };
    assert!(bytes > 0, "F_SETPIPE_SZ: {}", std::io::Error::last_os_error());
}

/// What a process has written to a pipe; a thread keeps reading, so that the
/// pipe never fills.
#[derive(Clone)]
pub struct Collected(Arc<Mutex<(Vec<u8>, bool)>>);

impl Collected {
    /// Reads from now on until end of file; without a pipe there is nothing.
    pub fn from(pipe: Option<impl Read + Send + 'static>) -> Collected {
        let shared = Arc::new(Mutex::new((Vec::new(), pipe.is_none())));
        let Some(mut pipe) = pipe else {
            return Collected(shared);
        };
        let collected = Collected(shared.clone());
        thread::spawn(move || {
            let mut piece = [0; 65536];
            while let Ok(n @ 1..) = pipe.read(&mut piece) {
                shared.lock().unwrap().0.extend_from_slice(&piece[..n]);
            }
            shared.lock().unwrap().1 = true;
        });
        collected
    }

    pub fn bytes(&self) -> Vec<u8> {
        let bytes = self.0.lock().unwrap().0.clone();
        // What an emulator cannot do is no part of any test.
        match bytes.strip_prefix(b"forkline: serving without seccomp: ") {
            Some(rest) if env::var("FORKLINE").is_ok() => {
                let end = rest.iter().position(|&c| c == b'\n').map_or(rest.len(), |at| at + 1);
                rest[end..].to_vec()
            }
            _ => bytes,
        }
    }

    pub fn text(&self) -> String {
        text(&self.bytes())
    }

    /// The whole lines so far, without their newlines.
    pub fn lines(&self) -> Vec<String> {
        let text = self.text();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        text[..whole].lines().map(String::from).collect()
    }

    /// Every process that could write has ended or closed it.
    pub fn ended(&self) -> bool {
        self.0.lock().unwrap().1
    }

    /// Waits until this text has been written.
    pub fn wait_for(&self, text: &str) {
        wait_for(&format!("{text:?} is written"), || self.text().contains(text));
    }
}
