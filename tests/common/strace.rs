//! strace(1): forkline under it, and processes to which it is attached.

use super::*;
use std::fs;
use std::path::Path;
use std::process::{Child, Command};

/// strace with these options, which writes to `log`. Its `inject` makes calls fail,
/// wait or bring a signal.
pub fn strace(log: &Path, options: &str) -> Command {
    let mut command = Command::new("strace");
    piped(command.args(options.split(' ')).arg("-o").arg(log));
    command
}

/// forkline and its children under strace.
pub fn traced(log: &Path, options: &str, args: &[&str]) -> Command {
    let mut command = strace(log, &format!("-f -qq {options}"));
    command.args(command_line(args));
    command
}

/// What makes a call fail, or what else strace's `inject` can do to it. Only what is
/// traced can fail: other calls may fail beside this one.
pub fn tampering(call: &str, how: &str) -> String {
    let calls = "accept,recvfrom,sendto,write,pwritev2,ppoll,getsockopt,ioctl,wait4,kill";
    format!("-e signal=none -e trace={call},{calls} -e inject={call}:{how}")
}

/// Whether strace's log has a failure of this call.
pub fn injected(call: &str, log: &Path) -> bool {
    let log = fs::read_to_string(log).unwrap_or_default();
    let is_the_call = |line: &str| {
        let mut words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.any(|word| word == call)
    };
    log.lines().any(|line| line.ends_with("(INJECTED)") && is_the_call(line))
}

/// Whether strace is here and may attach to a server, which has IPv6; says `skipped:`
/// when it may not.
pub fn may_attach() -> bool {
    if !tool("strace") || !ipv6() {
        return false;
    }
    let server = Server::start(&["echo", "0"]);
    let attach = format!("-p {}", server.pid);
    let strace = Server::launch(&mut strace(Path::new("/dev/null"), &attach));
    let may = || strace.stderr.text().contains("attached");
    wait_for("strace attaches or ends", || may() || strace.stderr.ended());
    if !may() {
        skipped(strace.stderr.text().trim());
    }
    may()
}

/// A running strace, which ends when it is dropped; whom it traces goes on.
pub struct Strace {
    process: Child,
    /// The call that it tampers with.
    call: String,
    pub log: Scratch,
}

impl Strace {
    /// Tampers with a call of a process; `more` are further options.
    pub fn attach(pid: u32, call: &str, how: &str, more: &str) -> Strace {
        let log = scratch("strace");
        let options = format!("-p {pid} {} {more}", tampering(call, how));
        let mut process = strace(&log, options.trim_end()).spawn().expect("strace");
        let stderr = Collected::from(process.stderr.take());
        wait_for("strace is attached", || {
            let (ended, words) = (stderr.ended(), stderr.text());
            assert!(!ended || words.contains("attached"), "{words}");
            words.contains("attached")
        });
        Strace { process, call: call.into(), log }
    }

    pub fn injected(&self) -> bool {
        self.has_failed(&self.call)
    }

    pub fn has_failed(&self, call: &str) -> bool {
        injected(call, &self.log)
    }

    /// Acts until the fault has been met.
    pub fn until_injected(&self, mut act: impl FnMut()) {
        wait_for(&format!("{} fails", self.call), || {
            let injected = self.injected();
            if !injected {
                act();
            }
            injected
        });
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        kill(self.process.id() as i32, libc::SIGTERM);
        let _ = self.process.wait();
    }
}

/// Lets a server that is stopped go on under a strace that tampers with this call of
/// it and of its children.
pub fn go_on_traced(server: &Server, call: &str, how: &str) -> Strace {
    let strace = Strace::attach(server.pid, call, how, "-f");
    server.signal(libc::SIGCONT);
    strace
}
