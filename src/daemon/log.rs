//! Messages to the operator: `forkline: EVENT key=value ...`. Only the parent
//! writes them.

use super::children::count;
use super::options::{MAX_CHILDREN, VERBOSE};
use crate::sys::{ERRORS, Global, Line, SIGNALS, Sockaddr, find, message, milliseconds};
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
        let line = message("fault call=");
        line.str(call).str(" error=").name(ERRORS, e.raw_os_error());
        line.client(client).suppressed(n).end();
    }
}

/// A source has as many children as it may have.
pub fn refused(client: &Sockaddr) {
    if let Some(n) = permit(Kind::Refuse) {
        message("refuse").client(Some(client)).suppressed(n).end();
    }
}

/// A child has begun to serve.
pub fn accepted(pid: Pid, client: &Sockaddr) {
    if VERBOSE.get() {
        message("accept").pid(pid).client(Some(client)).children().end();
    }
}

/// The exit status of a child, and why it ended. Any other is the errno of a fault.
const REASONS: &str = "0 eof\n4 stop\n11 idle\n32 reset\n104 reset";

/// A child has ended.
pub fn ended(pid: Pid, client: &Sockaddr, status: WaitStatus) {
    let (signal, errno) = (status.terminating_signal(), status.exit_status().unwrap_or(0));
    let (reason, kind) = match signal {
        Some(_) => (None, Kind::Signal),
        None => (find(REASONS, errno), Kind::Fault),
    };
    let permitted = match reason {
        _ if VERBOSE.get() => Some(0),
        Some(_) => None,
        None => permit(kind),
    };
    let Some(n) = permitted else { return };
    let line = message("end").pid(pid).client(Some(client)).str(" reason=");
    match (reason, signal) {
        (Some(reason), _) => line.bytes(reason),
        (_, Some(signal)) => line.str("signal signal=").name(SIGNALS, signal),
        _ => line.str("fault error=").name(ERRORS, errno),
    };
    line.children().suppressed(n).end();
}

/// The end of the server has begun or goes on, for `signal` or, if that is 0,
/// because the time is over.
pub fn stopping(event: &str, signal: c_int) {
    let line = message(event);
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
