//! The programs that are compared: forkline, and C that may not compile, never
//! listen, never answer or never end. Such a C is reported; it stops nothing.

use crate::common::{Collected, kill, listening_port, processors, within};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Set by tests: on a busy machine they may take long, and must judge as on a quiet one.
pub static PATIENT: AtomicBool = AtomicBool::new(false);

/// How long something may take on a quiet machine.
#[derive(Clone, Copy)]
pub struct Patience(pub Duration);

impl Patience {
    /// The same now: for tests so many times as long as there are processes for each
    /// processor that want to run (proc(5), loadavg).
    pub fn time(self) -> Duration {
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let numbers: Vec<f64> = load.split([' ', '/']).map_while(|n| n.parse().ok()).collect();
        match numbers[..] {
            [minute, _, _, now, ..] if PATIENT.load(Ordering::Relaxed) => {
                let crowd = minute.max(now) / processors().len() as f64;
                self.0.mul_f64(crowd.clamp(1.0, 10.0))
            }
            _ => self.0,
        }
    }
}

/// How long a program may take to listen.
pub const START: Patience = Patience(Duration::from_secs(5));
/// How long one conversation may take.
pub const CONVERSATION: Patience = Patience(Duration::from_secs(3));
/// How long children may take to end after their clients have gone.
pub const REST: Patience = Patience(Duration::from_millis(1500));
/// How long the compiler may take.
const COMPILER: Patience = Patience(Duration::from_secs(15));

/// A program that takes the port as its last argument.
#[derive(Clone)]
pub struct Program {
    pub path: PathBuf,
    pub args: Vec<String>,
    /// What the compiler warned of.
    pub warnings: String,
    /// How it was compiled.
    build: Option<Build>,
}

/// How a C file is compiled, and what limits the compiler and the program have.
#[derive(Clone)]
pub struct Build {
    pub source: PathBuf,
    pub to: PathBuf,
    pub cc: String,
    pub cflags: String,
    pub limits: Option<Limits>,
}

/// Limits for a C that nobody has read yet.
#[derive(Clone, Copy)]
pub struct Limits {
    /// The user that it runs as, if we are root: only that makes the limit of
    /// processes hold.
    pub user: Option<u32>,
}

impl Limits {
    const MEMORY: u64 = 1 << 30;
    const CPU_SECONDS: u64 = 20;
    /// For a user of its own, and for one who has other processes.
    const PROCESSES: [u64; 2] = [400, 4000];
    const FILE_SIZE: u64 = 16 << 20;

    /// Makes the command run under these limits (setrlimit(2)).
    fn apply(self, command: &mut Command) {
        let [own, shared] = Limits::PROCESSES;
        let mut processes = shared;
        if let Some(user) = self.user {
            command.uid(user).gid(user);
            processes = own;
        }
        let limits = [
            (libc::RLIMIT_AS, Limits::MEMORY),
            (libc::RLIMIT_CPU, Limits::CPU_SECONDS),
            (libc::RLIMIT_FSIZE, Limits::FILE_SIZE),
            (libc::RLIMIT_CORE, 0),
            (libc::RLIMIT_NPROC, processes),
        ];
        // SAFETY: setrlimit is async-signal-safe and reads one structure.
        unsafe {
            command.pre_exec(move || {
                for (resource, most) in limits {
                    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
                    libc::setrlimit(resource, &limit);
                }
                Ok(())
            });
        }
    }
}

/// forkline as this service, on a port that the kernel chooses.
pub fn forkline(service: &str) -> Program {
    let args = vec![service.into(), "0".into()];
    let (path, warnings) = (env!("CARGO_BIN_EXE_forkline").into(), String::new());
    Program { path, args, warnings, build: None }
}

/// Whether the port of this C can be set by the compiler.
fn has_port_macro(source: &Path) -> Result<bool, String> {
    let text = fs::read(source).map_err(|e| format!("{}: {e}", source.display()))?;
    Ok(String::from_utf8_lossy(&text).contains("#ifndef SERV_PORT"))
}

/// Compiles a C file with `cc` and `cflags`, which are words as in make.
pub fn compile(build: &Build, port: u16) -> Result<Program, String> {
    let mut words = build.cc.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or("cc"));
    // A warning is shown, and is no failure, whatever the flags are.
    command.args(words).args(build.cflags.split_whitespace()).arg("-Wno-error");
    if has_port_macro(&build.source)? {
        command.arg(format!("-DSERV_PORT={port}"));
    }
    command.arg("-o").arg(&build.to).arg(&build.source);
    if let Err(e) = Command::new(command.get_program()).arg("--version").output() {
        return Err(format!("the C compiler {:?} does not start: {e}", command.get_program()));
    }
    let name = build.source.display();
    let (status, words) = match run_at_most(COMPILER.time(), &mut command, build.limits) {
        Some(ended) => ended,
        None => return Err(format!("{name}: the compiler needs longer than {:?}", COMPILER.0)),
    };
    let (args, path) = (vec![port.to_string()], build.to.clone());
    match status.success() {
        true => Ok(Program { path, args, warnings: words, build: Some(build.clone()) }),
        false => Err(format!("{name} does not compile:\n{words}")),
    }
}

/// Runs a command; its status and what it wrote to stderr, none if it took longer.
fn run_at_most(
    time: Duration,
    command: &mut Command,
    limits: Option<Limits>,
) -> Option<(ExitStatus, String)> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    if let Some(limits) = limits {
        limits.apply(command);
    }
    let mut child = command.spawn().ok()?;
    let stderr = Collected::from(child.stderr.take());
    let ended = within(time, || matches!(child.try_wait(), Ok(Some(_))) && stderr.ended());
    if !ended {
        kill(-(child.id() as i32), libc::SIGKILL);
    }
    let status = child.wait().ok()?;
    ended.then(|| (status, stderr.text().trim_end().to_owned()))
}

impl Program {
    /// The same program for this port. One that has its own keeps it.
    pub fn at_port(&self, port: u16) -> Result<Program, String> {
        if let Some(build) = &self.build
            && has_port_macro(&build.source)?
        {
            let to = build.to.with_extension("again");
            return compile(&Build { to, ..build.clone() }, port);
        }
        let mut again = self.clone();
        again.args.pop();
        again.args.push(port.to_string());
        Ok(again)
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.args);
        command
    }

    pub fn limits(&self) -> Option<Limits> {
        self.build.as_ref()?.limits
    }
}

/// A program that listens. Dropping it kills it and its children.
pub struct Running {
    pub port: u16,
    /// The server; under strace, strace's child.
    pub pid: u32,
    stdout: Collected,
    child: Child,
}

impl Running {
    pub fn start(program: &Program) -> Result<Running, String> {
        Running::spawn(&mut program.command(), program.limits(), Some)
    }

    /// Starts a command of which `server` gives the pid of the server. Its
    /// output is collected, unless the command says where it goes.
    pub fn spawn(
        command: &mut Command,
        limits: Option<Limits>,
        server: impl Fn(u32) -> Option<u32>,
    ) -> Result<Running, String> {
        command.stdout(Stdio::piped());
        Running::spawn_with_stdout(command, limits, server)
    }

    pub fn spawn_with_stdout(
        command: &mut Command,
        limits: Option<Limits>,
        server: impl Fn(u32) -> Option<u32>,
    ) -> Result<Running, String> {
        prepare(command, limits);
        let mut child = command.spawn().map_err(|e| format!("{command:?}: {e}"))?;
        let stdout = Collected::from(child.stdout.take());
        let stderr = Collected::from(child.stderr.take());
        let mut running = Running { port: 0, pid: child.id(), stdout, child };
        within(START.time(), || {
            running.pid = server(running.child.id()).unwrap_or(running.child.id());
            running.port = listening_port(running.pid).unwrap_or(0);
            running.port != 0 || running.ended().is_some()
        });
        if running.port != 0 {
            return Ok(running);
        }
        let what = match running.ended() {
            Some(status) => format!("ended without listening: {status}"),
            None => format!("did not listen within {} s", START.0.as_secs()),
        };
        within(REST.time(), || {
            running.stdout.ended() && stderr.ended() || running.ended().is_none()
        });
        let words = [running.stdout.text(), stderr.text()].concat();
        Err(format!("{what}\n{}", words.trim_end()).trim_end().into())
    }

    /// The status with which the command has ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits until no child is left; false if some are after `REST`.
    pub fn rest(&self) -> bool {
        within(REST.time(), || children(self.pid).is_empty())
    }

    /// Ends the server and waits for the command; all that was on its stdout.
    pub fn stop(mut self) -> Vec<u8> {
        for pid in children(self.pid).into_iter().chain([self.pid]) {
            kill(pid as i32, libc::SIGKILL);
        }
        within(REST.time(), || self.ended().is_some() && self.stdout.ended());
        self.stdout.bytes()
    }

    /// Ends the server, which must have no child under way; what it and the
    /// children that it has waited for have used (wait4(2)).
    pub fn usage(self) -> libc::rusage {
        kill(self.pid as i32, libc::SIGKILL);
        // SAFETY: zeros are a valid rusage, and the kernel fills it.
        unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::wait4(self.pid as i32, std::ptr::null_mut(), 0, &mut usage);
            usage
        }
    }
}

fn prepare(command: &mut Command, limits: Option<Limits>) {
    // Cargo's, in which the loader would look for the C's libraries first.
    command.env_remove("LD_LIBRARY_PATH");
    command.stdin(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    if let Some(limits) = limits {
        limits.apply(command);
    }
    // SAFETY: prctl is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            // Not longer than the thread that started it; strace may attach.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY);
            Ok(())
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        kill(-(self.child.id() as i32), libc::SIGKILL);
        let _ = self.child.wait();
    }
}

/// The children of a process, zombies too, from one file: cheap, though it may
/// miss some while others end (proc(5)).
pub fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
