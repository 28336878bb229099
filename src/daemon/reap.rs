//! Children that have ended. When the kernel is asked for any child, it looks at each,
//! the oldest first; and most that end are among the newest. So many children are asked
//! one by one: the kernel finds a child by its pid at once (since Linux 5.13).

use super::{children, log};
use crate::sys::{self, Global};
use core::ffi::c_int;
use rustix::process::{self, Pid, WaitOptions};

/// All children are asked so many microseconds for each of them after a SIGCHLD, which
/// is 2 seconds at most. To ask one takes less than one.
const PACE: u64 = 61;

/// More children than these are many: 64, unless it is better to ask for any, as in the
/// drain, in which most have ended.
pub static MANY: Global<usize> = Global::new(0);
/// How often the newest children were asked since all were. If it is not 0, the timer
/// runs after which all are asked.
static ROUND: Global<u32> = Global::new(0);

/// waitpid(2) with WNOHANG, for any child: its pid, or 0 if no other is known to have
/// ended.
///
/// Of many children it asks the newest, and each second time the newest 2, each fourth
/// time 4, and so on: half a child more on average when their number doubles.
pub fn waitpid() -> i32 {
    let n = children::count();
    if n > MANY.get() {
        let round = ROUND.get() + 1;
        ask(1 << round.trailing_zeros());
        if round > 1 || sys::alarm(n as u64 * PACE) {
            ROUND.set(round);
            if children::has_place() {
                return 0;
            }
        }
    }
    reap(None)
}

/// SIGALRM: asks all children, and for those of others, which process 1 gets (init(1)).
pub extern "C" fn ask_all(_signum: c_int) {
    ROUND.set(0);
    ask(usize::MAX);
    while reap(None) > 0 {}
}

/// Asks the newest children one by one.
fn ask(newest: usize) {
    for pid in children::pids().rev().take(newest) {
        reap(Some(pid));
    }
}

/// Reaps this child, or any.
fn reap(pid: Option<Pid>) -> i32 {
    let reaped = match pid {
        Some(_) => process::waitpid(pid, WaitOptions::NOHANG),
        None => process::wait(WaitOptions::NOHANG),
    };
    match reaped {
        Ok(Some((pid, status))) => {
            if let Some(client) = children::remove(pid) {
                log::ended(pid, &client, status);
            }
            pid.as_raw_pid()
        }
        _ => 0,
    }
}
