//! The end of the server. SIGTERM, SIGINT and SIGHUP let every child answer what its
//! client has sent (the drain). A second one, SIGQUIT or the end of the grace time
//! resets the connections that are left.

use super::options::GRACE_SECONDS;
use super::{children, connection, log, notify};
use crate::sys::{self, Global, SIG_IGN, signal, sigset};
use core::ffi::c_int;
use libc::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use rustix::process::{Signal, WaitOptions, getpid, kill_process, wait};
use rustix::thread::Timespec;

/// What a stop does to the children, in the order in which it is tried.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Serving,
    Drain,
    Reset,
    Kill,
}

static STAGE: Global<Stage> = Global::new(Stage::Serving);
/// The signal that asked for the stage, or 0 for the end of a time, and when it did, in
/// milliseconds.
static SIGNAL: Global<(c_int, u64)> = Global::new((0, 0));
/// The pid of the parent.
static PARENT: Global<i32> = Global::new(0);
/// The listening socket, which the first signal closes.
pub static LISTENFD: Global<i32> = Global::new(0);

/// What the parent blocks while it does not wait.
const PARENT_BLOCKS: u64 =
    sigset(SIGCHLD) | sigset(SIGTERM) | sigset(SIGINT) | sigset(SIGHUP) | sigset(SIGQUIT);
/// What it blocks while it waits.
pub const NOTHING: u64 = 0;

/// Catches the signals that end the server. From now on the parent takes signals
/// only where it waits, so a handler never meets it between two steps.
pub fn catch_signals() {
    PARENT.set(getpid().as_raw_pid());
    sys::sigmask(PARENT_BLOCKS);
    sys::enable_sigaltstack();
    let catch = |signum| signal(signum, Some(stop_handler));
    catch(SIGTERM);
    catch(SIGINT);
    catch(SIGQUIT);
    // nohup(1) ignores it for the program that it starts.
    if catch(SIGHUP) == libc::SIG_IGN {
        signal(SIGHUP, SIG_IGN);
    }
    // A write past the file size limit then is an error.
    signal(libc::SIGXFSZ, SIG_IGN);
    // In the background of a terminal with `stty tostop`, a write would stop the server.
    signal(libc::SIGTTOU, SIG_IGN);
}

/// The parent goes to the next stage, a child ends.
extern "C" fn stop_handler(signum: c_int) {
    if getpid().as_raw_pid() != PARENT.get() {
        return connection::end(signum);
    }
    // A terminal that closes sends SIGHUP twice.
    let (now, (last_signal, last)) = (sys::milliseconds(), SIGNAL.get());
    if signum != last_signal || now.wrapping_sub(last) >= 1000 {
        SIGNAL.set((signum, now));
        request_stop(signum);
    }
}

/// Goes to the next stage for a signal. That never is Kill: a child that is killed does
/// not tell its client that an answer is missing. The first signal closes the listening
/// socket. Then accept fails, whether it is waiting now or called later.
fn request_stop(signum: c_int) {
    let stage = STAGE.replace(match STAGE.get() {
        Stage::Serving if signum != SIGQUIT => Stage::Drain,
        _ => Stage::Reset,
    });
    if stage == Stage::Serving
        && let Some(listenfd) = sys::fd(LISTENFD.get())
    {
        sys::close(listenfd);
    }
}

/// Makes `call` with the signals unblocked. A signal that comes just before the call is
/// not missed. Its handler has already run: it has removed the child that ended, or
/// it has closed the listening socket, so that accept fails.
pub fn unblocked<T>(call: impl FnOnce() -> T) -> T {
    sys::sigmask(NOTHING);
    let result = call();
    sys::sigmask(PARENT_BLOCKS);
    result
}

pub fn is_stopping() -> bool {
    STAGE.get() != Stage::Serving
}

/// Waits for the children, stage by stage, and ends the program.
pub fn drain() -> ! {
    notify::stopping();
    loop {
        let stage = STAGE.get();
        let (event, signal, seconds) = match stage {
            Stage::Serving | Stage::Drain => ("drain", Signal::TERM, GRACE_SECONDS.get()),
            Stage::Reset => ("reset", Signal::QUIT, 1),
            Stage::Kill => ("kill", Signal::KILL, 1),
        };
        log::stopping(event, SIGNAL.get().0);
        for pid in children::pids() {
            let _ = kill_process(pid, signal);
            if stage == Stage::Reset {
                // A stopped child cannot reset its connection.
                let _ = kill_process(pid, Signal::CONT);
            }
        }
        let mut left = Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
        while STAGE.get() == stage && children::count() > 0 && sys::pause(NOTHING, Some(&mut left))
        {
        }
        // If the handler's wait for a child failed, no other SIGCHLD comes for it.
        while waitpid() > 0 {}
        if children::count() == 0 {
            log::stopping("drained", 0);
            sys::_exit(0);
        }
        if STAGE.get() == stage {
            SIGNAL.set((0, 0));
            STAGE.set(if stage == Stage::Drain { Stage::Reset } else { Stage::Kill });
        }
    }
}

/// waitpid(2) with WNOHANG, for any child: its pid, or 0 if none has ended.
pub fn waitpid() -> i32 {
    match wait(WaitOptions::NOHANG) {
        Ok(Some((pid, status))) => {
            if let Some(client) = children::remove(pid) {
                log::ended(pid, client, status);
            }
            pid.as_raw_pid()
        }
        _ => 0,
    }
}
