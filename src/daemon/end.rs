//! The end of the server. SIGTERM, SIGINT and SIGHUP let every child answer what its
//! client has sent (the drain). A second one, SIGQUIT or the end of the grace time
//! resets the connections that are left.

use super::options::GRACE_SECONDS;
use super::{children, connection, log, notify, reap};
use crate::sys::{self, Fd, Global, SIG_IGN, signal};
use core::ffi::c_int;
use libc::{SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use rustix::process::{Signal, getpid, kill_process};

/// Milliseconds in which further signals are the same request to stop: systemd, sudo and
/// a terminal that closes send several.
const ONE_REQUEST: u32 = 1000;
/// Milliseconds after the request in which connections are accepted whose handshake was
/// under way.
const HANDSHAKE: u32 = 200;

/// What a stop does to the children, in the order in which it is tried.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Serving,
    Drain,
    Reset,
    Kill,
}

static STAGE: Global<Stage> = Global::new(Stage::Serving);
/// When the stage began, in milliseconds.
static BEGIN: Global<u64> = Global::new(0);
/// The pid of the parent.
static PARENT: Global<i32> = Global::new(0);
/// The listening socket.
pub static LISTENFD: Global<i32> = Global::new(0);
/// Whether it was opened here. Who waits on one that was handed over is left to the next
/// server.
pub static IS_OWN: Global<bool> = Global::new(false);

/// What the parent blocks while it does not wait: everything.
const PARENT_BLOCKS: u64 = !0;
/// What it blocks while it waits.
pub const NOTHING: u64 = 0;

/// Catches the signals that end the server. From now on the parent takes signals
/// only where it waits, so a handler never meets it between two steps.
pub fn catch_signals() {
    PARENT.set(getpid().as_raw_pid());
    sys::sigmask(PARENT_BLOCKS);
    sys::enable_sigaltstack();
    for signum in [SIGTERM, SIGINT, SIGQUIT, SIGHUP] {
        let before = signal(signum, Some(stop_handler));
        // A shell ignores two for a job in the background, and nohup(1) SIGHUP.
        if signum != SIGTERM && before == libc::SIG_IGN {
            signal(signum, SIG_IGN);
        }
    }
    signal(SIGALRM, Some(reap::reap_all));
    // A write past the file size limit then is an error.
    signal(libc::SIGXFSZ, SIG_IGN);
    // In the background of a terminal with `stty tostop`, a write would stop the server.
    signal(libc::SIGTTOU, SIG_IGN);
}

/// The parent goes to the next stage, a child ends. After a reset signals do nothing: a
/// child that is killed does not tell its client that an answer is missing.
extern "C" fn stop_handler(signum: c_int) {
    if getpid().as_raw_pid() != PARENT.get() {
        return connection::end(signum);
    }
    match STAGE.get() {
        Stage::Serving => next_stage(signum),
        Stage::Drain if signum == SIGQUIT || elapsed() >= ONE_REQUEST => next_stage(signum),
        _ => {}
    }
}

/// Begins the next stage, for a signal or, if `signum` is 0, because the time is over.
/// accept, whether it is waiting now or called later, goes on for a moment or fails.
#[inline(never)]
fn next_stage(signum: c_int) {
    let before = STAGE.get();
    let (stage, event, signal) = match before {
        Stage::Serving if signum != SIGQUIT => (Stage::Drain, "drain", Signal::TERM),
        Stage::Serving | Stage::Drain => (Stage::Reset, "reset", Signal::QUIT),
        _ => (Stage::Kill, "kill", Signal::KILL),
    };
    STAGE.set(stage);
    BEGIN.set(sys::milliseconds());
    if before == Stage::Serving {
        notify::stopping();
    }
    if let Some(listenfd) = sys::fd(LISTENFD.get())
        && (stage != Stage::Drain
            || !IS_OWN.get()
            || GRACE_SECONDS.get() == 0
            || !sys::set_timeout(listenfd, libc::SO_RCVTIMEO, HANDSHAKE))
    {
        sys::close(listenfd);
    }
    log::stopping(event, signum);
    for pid in children::pids() {
        let _ = kill_process(pid, signal);
        if stage == Stage::Reset {
            // A stopped child cannot reset its connection.
            let _ = kill_process(pid, Signal::CONT);
        }
    }
}

/// Makes `call` with the signals unblocked. A signal that comes just before the call is
/// not missed. Its handler has already run: it has removed the child that ended, or
/// accept does not wait for long.
pub fn unblocked<T>(call: impl FnOnce() -> T) -> T {
    sys::sigmask(NOTHING);
    let result = call();
    sys::sigmask(PARENT_BLOCKS);
    result
}

pub fn is_stopping() -> bool {
    STAGE.get() != Stage::Serving
}

/// Milliseconds since the stage began.
fn elapsed() -> u32 {
    sys::milliseconds().wrapping_sub(BEGIN.get()) as u32
}

/// Whether the server is stopping and accepts no more.
pub fn is_over(is_full: bool) -> bool {
    is_stopping() && (is_full || elapsed() >= HANDSHAKE)
}

/// Waits for the children, stage by stage, and ends the program.
pub fn drain(listenfd: Fd) -> ! {
    // Unless it is closed already.
    sys::close(listenfd);
    reap::DRAINING.set(true);
    loop {
        let stage = STAGE.get();
        let time = 1000 * if stage == Stage::Drain { GRACE_SECONDS.get() } else { 1 };
        while STAGE.get() == stage && children::count() > 0 {
            sys::pause(NOTHING, time.saturating_sub(elapsed()) + 1);
            if elapsed() > time {
                break;
            }
        }
        // If the handler's wait for a child failed, no other SIGCHLD comes for it.
        while reap::waitpid() > 0 {}
        if children::count() == 0 {
            log::stopping("drained", 0);
            sys::_exit(0);
        }
        if STAGE.get() == stage {
            next_stage(0);
        }
    }
}
