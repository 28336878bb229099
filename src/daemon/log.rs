//! Messages to the operator: `forkline: EVENT key=value ...`. Only the parent
//! writes them.

use super::children::count;
use super::options::OPTIONS;
use crate::sys::{Global, Line, Sockaddr, message, milliseconds};
use core::cell::Cell;
use core::ffi::c_int;
use rustix::io::Errno;
use rustix::process::{Pid, WaitStatus};

/// When a message was last written, in milliseconds, and how many like it were
/// suppressed since.
struct Limit {
    last_written: Cell<u64>,
    suppressed: Cell<u32>,
}

/// Messages that are written once a second at most, for each errno or signal.
#[derive(Clone, Copy)]
enum Kind {
    Accept,
    Fork,
    Fault,
    Signal,
    Refuse,
}

static LIMITS: Global<[[Limit; 256]; 5]> = Global(
    [const { [const { Limit { last_written: Cell::new(0), suppressed: Cell::new(0) } }; _] }; _],
);

/// Whether a message of this kind may be written now, and how many were
/// suppressed since the last one.
#[inline(never)]
fn suppressed(kind: Kind, code: c_int) -> Option<u32> {
    let limit = &LIMITS[kind as usize][code as usize % 256];
    let (now, last) = (milliseconds(), limit.last_written.get());
    if last != 0 && now.wrapping_sub(last) < 1000 {
        limit.suppressed.set(limit.suppressed.get().wrapping_add(1));
        return None;
    }
    limit.last_written.set(now);
    Some(limit.suppressed.take())
}

/// accept(2) failed, and is tried again.
pub fn accept_failed(e: Errno) {
    if let Some(suppressed) = suppressed(Kind::Accept, e.raw_os_error()) {
        message(|line| {
            _ = line.str("fault call=accept error=").errno(e.raw_os_error()).suppressed(suppressed)
        });
    }
}

/// fork(2) failed: this client is not served.
pub fn fork_failed(e: Errno, client: Sockaddr) {
    if let Some(suppressed) = suppressed(Kind::Fork, e.raw_os_error()) {
        message(|line| {
            line.str("fault call=fork error=").errno(e.raw_os_error());
            line.str(" client=").addr(&client).suppressed(suppressed);
        });
    }
}

/// A source has as many children as it may have.
pub fn refused(client: Sockaddr) {
    if let Some(suppressed) = suppressed(Kind::Refuse, 0) {
        message(|line| _ = line.str("refuse client=").addr(&client).suppressed(suppressed));
    }
}

/// A child has begun to serve.
pub fn accepted(pid: Pid, client: Sockaddr) {
    if OPTIONS.verbose.get() {
        message(|line| _ = line.str("accept pid=").process(pid, &client).children());
    }
}

/// A child has ended. Its exit status is 0, or the errno that ended it.
pub fn ended(pid: Pid, client: Sockaddr, status: WaitStatus) {
    let (signal, errno) = (status.terminating_signal(), status.exit_status().unwrap_or(0));
    let (reason, kind) = match (signal, errno) {
        (Some(_), _) => ("signal signal=", Some(Kind::Signal)),
        (_, 0) => ("eof", None),
        (_, libc::EAGAIN) => ("idle", None),
        (_, libc::EINTR) => ("stop", None),
        (_, libc::ECONNRESET | libc::EPIPE) => ("reset", None),
        _ => ("fault error=", Some(Kind::Fault)),
    };
    let suppressed = match kind {
        _ if OPTIONS.verbose.get() => 0,
        Some(kind) => match suppressed(kind, signal.unwrap_or(errno)) {
            Some(suppressed) => suppressed,
            None => return,
        },
        None => return,
    };
    message(|line| {
        line.str("end pid=").process(pid, &client).str(" reason=").str(reason);
        match kind {
            Some(Kind::Signal) => _ = line.signal(signal.unwrap_or(0)),
            Some(_) => _ = line.errno(errno),
            None => {}
        }
        line.children().suppressed(suppressed);
    });
}

/// The end of the server has begun or goes on, for `signal` or, if that is 0,
/// because the time is over.
pub fn stopping(event: &str, signal: c_int) {
    message(|line| {
        line.str(event);
        if signal != 0 {
            line.str(" signal=").signal(signal);
        }
        line.children();
    });
}

/// The names of the signals from 1 on.
const SIGNALS: &str = "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM";

impl Line<'_> {
    fn process(&mut self, pid: Pid, client: &Sockaddr) -> &mut Self {
        self.num(pid.as_raw_pid() as usize).str(" client=").addr(client)
    }

    fn children(&mut self) -> &mut Self {
        let most = OPTIONS.max_children.get() as usize;
        self.str(" children=").num(count()).str("/").num(most)
    }

    fn suppressed(&mut self, n: u32) -> &mut Self {
        if n > 0 {
            self.str(" suppressed=").num(n as usize);
        }
        self
    }

    /// Appends the name or the number of a signal.
    fn signal(&mut self, signal: c_int) -> &mut Self {
        match SIGNALS.as_bytes().split(|&c| c == b' ').nth(signal as usize - 1) {
            Some(name) => self.str("SIG").bytes(name),
            None => self.num(signal as usize),
        }
    }
}
