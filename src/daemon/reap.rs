//! Children that have ended. When the kernel is asked for any child, it looks at each,
//! the oldest first; but most that end are among the newest. So of many children the
//! newest are asked one by one: the kernel finds a child by its pid at once (since Linux
//! 5.13). All are asked now and then. One call is a third of a microsecond, and a look at
//! all of 10,000 a quarter of a millisecond: that for each of some that have ended, at
//! places that nobody knows, would be more than to ask everyone.

use super::{children, log};
use crate::sys::{self, Global};
use core::ffi::c_int;
use rustix::process::{self, Pid, WaitOptions};

/// More children than these are many.
const FEW: usize = 64;
/// After a SIGCHLD all are asked within so many microseconds for each of them: 2 seconds
/// at most.
const PACE: u64 = 61;

/// How often the newest children were asked since all were. If it is not 0, the timer
/// runs after which all are asked.
static ROUND: Global<u32> = Global::new(0);

/// Whether the server ends: then most children end, and to ask for any is quicker.
pub static DRAINING: Global<bool> = Global::new(false);

/// waitpid(2) with WNOHANG, for any child: its pid, or 0 if no other is known to have
/// ended.
///
/// Of many children it asks the newest, and each second time the newest 2, each fourth
/// time 4, and so on: half a child more on average when their number doubles.
pub fn waitpid() -> i32 {
    let n = children::count();
    if n > FEW && children::has_place() && !DRAINING.get() {
        let round = ROUND.get() + 1;
        for pid in children::pids().rev().take(1 << round.trailing_zeros()) {
            reap(Some(pid));
        }
        if round > 1 || sys::alarm(n as u64 * PACE) {
            ROUND.set(round);
            return 0;
        }
    }
    reap(None)
}

/// SIGALRM: asks all children, and then for those of others, which process 1 gets
/// (init(1)).
pub extern "C" fn reap_all(_signum: c_int) {
    ROUND.set(0);
    for pid in children::pids().rev() {
        reap(Some(pid));
    }
    while reap(None) > 0 {}
}

/// Reaps this child, or any.
fn reap(pid: Option<Pid>) -> i32 {
    let ended = match pid {
        Some(_) => process::waitpid(pid, WaitOptions::NOHANG),
        None => process::wait(WaitOptions::NOHANG),
    };
    match ended {
        Ok(Some((pid, status))) => {
            if let Some(client) = children::remove(pid) {
                log::ended(pid, client, status);
            }
            pid.as_raw_pid()
        }
        _ => 0,
    }
}
