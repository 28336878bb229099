//! Messages to the operator: `forkline: EVENT key=value ...`. Only the parent
//! writes them.

use super::children::count;
use super::options::{MAX_CHILDREN, VERBOSE};
use crate::sys::{ERRORS, Global, Line, SIGNALS, Sockaddr, message, milliseconds};
use core::ffi::c_int;
use rustix::io::Errno;
use rustix::process::{Pid, WaitStatus};

/// Messages of which at most one a second is logged.
#[derive(Clone, Copy)]
pub enum Kind {
    Accept,
    Fork,
    Fault,
    Signal,
    Refuse,
}

/// For each kind: when a message was last logged, in milliseconds, and how many were
/// suppressed since.
static LIMITS: [Global<(u64, u32)>; 5] = [const { Global::new((0, 0)) }; _];

/// Whether no message of this kind was logged within the last second.
pub fn may_log(kind: Kind) -> bool {
    let (last_logged, _) = LIMITS[kind as usize].get();
    last_logged == 0 || milliseconds().wrapping_sub(last_logged) >= 1000
}

/// If a message of this kind may be logged now: how many were suppressed since the
/// last one.
fn permit(kind: Kind) -> Option<u32> {
    let (permitted, limit) = (may_log(kind), &LIMITS[kind as usize]);
    let (last_logged, suppressed) = limit.get();
    let more = (last_logged, suppressed.wrapping_add(1));
    limit.set(if permitted { (milliseconds(), 0) } else { more });
    permitted.then_some(suppressed)
}

/// A call of the parent failed, and this client, if there is one, is not served.
pub fn failed(kind: Kind, call: &str, e: Errno, client: Option<&Sockaddr>) {
    if let Some(n) = permit(kind) {
        let line = message();
        line.str("fault call=").str(call).str(" error=").name(ERRORS, e.raw_os_error());
        line.client(client).suppressed(n).end();
    }
}

/// A source has as many children as it may have.
pub fn refused(client: &Sockaddr) {
    if let Some(n) = permit(Kind::Refuse) {
        message().str("refuse").client(Some(client)).suppressed(n).end();
    }
}

/// A child has begun to serve.
pub fn accepted(pid: Pid, client: &Sockaddr) {
    if VERBOSE.get() {
        message().str("accept").pid(pid).client(Some(client)).children().end();
    }
}

/// A child has ended. Its exit status is 0, or the errno that ended it.
pub fn ended(pid: Pid, client: &Sockaddr, status: WaitStatus) {
    let (signal, errno) = (status.terminating_signal(), status.exit_status().unwrap_or(0));
    let (reason, kind) = match (signal, errno) {
        (Some(_), _) => ("signal signal=", Some(Kind::Signal)),
        (_, 0) => ("eof", None),
        (_, libc::EAGAIN) => ("idle", None),
        (_, libc::EINTR) => ("stop", None),
        (_, libc::ECONNRESET | libc::EPIPE) => ("reset", None),
        _ => ("fault error=", Some(Kind::Fault)),
    };
    let permitted = if VERBOSE.get() { Some(0) } else { kind.and_then(permit) };
    let Some(n) = permitted else { return };
    let line = message();
    line.str("end").pid(pid).client(Some(client)).str(" reason=").str(reason);
    if kind.is_some() {
        let names = if signal.is_some() { SIGNALS } else { ERRORS };
        line.name(names, signal.unwrap_or(errno));
    }
    line.children().suppressed(n).end();
}

/// The end of the server has begun or goes on, for `signal` or, if that is 0,
/// because the time is over.
pub fn stopping(event: &str, signal: c_int) {
    let line = message();
    line.str(event);
    if signal != 0 {
        line.str(" signal=").name(SIGNALS, signal);
    }
    line.children().end();
}

impl Line {
    fn pid(&mut self, pid: Pid) -> &mut Self {
        self.str(" pid=").num(pid.as_raw_pid() as usize)
    }

    fn client(&mut self, client: Option<&Sockaddr>) -> &mut Self {
        match client {
            Some(client) => self.str(" client=").addr(client),
            None => self,
        }
    }

    fn children(&mut self) -> &mut Self {
        let most = MAX_CHILDREN.get() as usize;
        self.str(" children=").num(count()).str("/").num(most)
    }

    fn suppressed(&mut self, n: u32) -> &mut Self {
        if n > 0 {
            self.str(" suppressed=").num(n as usize);
        }
        self
    }
}
