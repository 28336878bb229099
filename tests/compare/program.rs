//! The programs that are compared: forkline, and C that may not compile, never
//! listen or never answer, which is reported and not the end of everything.

use crate::common::{Collected, children_of, kill, listening_port, run, within};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long any of them may take to listen, to answer, to end: a busy machine
/// must not look like a fault.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A program that is started with these arguments.
pub struct Program {
    pub path: PathBuf,
    pub args: Vec<String>,
    /// What the compiler warned of.
    pub warnings: String,
}

/// forkline as this service, on a port that the kernel chooses.
pub fn forkline(service: &str) -> Program {
    let args = vec![service.into(), "0".into()];
    Program { path: env!("CARGO_BIN_EXE_forkline").into(), args, warnings: String::new() }
}

/// Compiles a C file with `cc` and `cflags`, which are words as in make.
pub fn compile(source: &Path, to: &Path, cc: &str, cflags: &str) -> Result<Program, String> {
    let text = std::fs::read(source).map_err(|e| format!("{}: {e}", source.display()))?;
    let mut words = cc.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or("cc"));
    // A warning is shown, and is no failure, whatever the flags are.
    command.args(words).args(cflags.split_whitespace()).arg("-Wno-error");
    if String::from_utf8_lossy(&text).contains("#ifndef SERV_PORT") {
        command.arg("-DSERV_PORT=0");
    }
    command.arg("-o").arg(to).arg(source);
    if let Err(e) = Command::new(command.get_program()).arg("--version").output() {
        return Err(format!("the C compiler {:?} does not start: {e}", command.get_program()));
    }
    let output = run(&mut command);
    let words = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    match output.status.success() {
        true => Ok(Program { path: to.into(), args: vec!["0".into()], warnings: words }),
        false => Err(format!("{} does not compile:\n{words}", source.display())),
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
        let mut command = Command::new(&program.path);
        Running::spawn(command.args(&program.args), Some)
    }

    /// Starts a command of which `server` gives the pid of the server.
    pub fn spawn(
        command: &mut Command,
        server: impl Fn(u32) -> Option<u32>,
    ) -> Result<Running, String> {
        // Cargo's, in which the loader would look for the C's libraries first.
        command.env_remove("LD_LIBRARY_PATH");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.process_group(0).spawn().map_err(|e| format!("{command:?}: {e}"))?;
        let stdout = Collected::from(child.stdout.take());
        let stderr = Collected::from(child.stderr.take());
        let mut running = Running { port: 0, pid: child.id(), stdout, child };
        soon(|| {
            running.pid = server(running.child.id()).unwrap_or(running.child.id());
            running.port = listening_port(running.pid).unwrap_or(0);
            running.port != 0 || matches!(running.child.try_wait(), Ok(Some(_)))
        });
        if running.port != 0 {
            return Ok(running);
        }
        let what = match running.child.try_wait() {
            Ok(Some(status)) => format!("ended without listening: {status}"),
            _ => format!("did not listen within {} s", PATIENCE.as_secs()),
        };
        let all_read = || running.stdout.ended() && stderr.ended();
        soon(|| all_read() || matches!(running.child.try_wait(), Ok(None)));
        let words = [running.stdout.text(), stderr.text()].concat();
        Err(format!("{what}\n{}", words.trim_end()).trim_end().into())
    }

    /// Waits until no child is left.
    pub fn rest(&self) {
        soon(|| children_of(self.pid).is_empty());
    }

    /// Ends the server and waits for the command; all that was on its stdout.
    pub fn stop(mut self) -> Vec<u8> {
        kill(self.pid as i32, libc::SIGKILL);
        soon(|| matches!(self.child.try_wait(), Ok(Some(_))) && self.stdout.ended());
        self.stdout.bytes()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        kill(-(self.child.id() as i32), libc::SIGKILL);
        let _ = self.child.wait();
    }
}

/// Polls until the condition holds, or patience ends.
pub fn soon(condition: impl FnMut() -> bool) -> bool {
    within(PATIENCE, condition)
}
