//! The end of the server and of a child. SIGTERM, SIGINT and SIGHUP let every
//! child answer what its client has sent (the drain). A second one, SIGQUIT or
//! the end of the grace time resets the connections that are left.

use super::options::Setting::{GraceSeconds, IdleSeconds};
use super::{children, idle, log, notify};
use crate::sys::{self, Fd, Global, SIG_IGN, signal, sigset};
use core::cell::Cell;
use core::ffi::c_int;
use libc::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use rustix::fd::AsRawFd;
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
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

/// How often `linger` looks at what the client has taken.
const LOOKS_PER_SECOND: u32 = 100;
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000_000 / LOOKS_PER_SECOND as i64 };

static STAGE: Global<Cell<Stage>> = Global(Cell::new(Stage::Serving));
/// The signal that asked for the stage, or 0 for the end of a time.
static SIGNAL: Global<Cell<c_int>> = Global(Cell::new(0));
/// When that was, in milliseconds.
static SIGNAL_TIME: Global<Cell<u64>> = Global(Cell::new(0));
/// The pid of the parent.
static PARENT: Global<Cell<i32>> = Global(Cell::new(0));
/// The listening socket, which `next_stage` closes.
pub static LISTENFD: Global<Cell<i32>> = Global(Cell::new(0));
/// The connection of the child that was forked last.
static CONNFD: Global<Cell<i32>> = Global(Cell::new(0));
/// The exit status of a child that has answered everything: the errno of what
/// ended its input, or 0 for its client's end of file.
pub static REASON: Global<Cell<c_int>> = Global(Cell::new(0));

/// What the parent blocks while it does not wait.
const PARENT_BLOCKS: u64 =
    sigset(SIGCHLD) | sigset(SIGTERM) | sigset(SIGINT) | sigset(SIGHUP) | sigset(SIGQUIT);
/// What it blocks while it waits.
pub const ALL_IN: u64 = 0;
/// What a child blocks: it has no children.
const CHILD_BLOCKS: u64 = sigset(SIGCHLD);

/// Catches the signals that end the server. From now on the parent takes signals
/// only where it waits, so a handler never meets it between two steps.
pub fn catch_signals() {
    PARENT.set(getpid().as_raw_pid());
    sys::sigmask(PARENT_BLOCKS);
    sys::sigaltstack(0);
    for signum in [SIGTERM, SIGINT, SIGQUIT, SIGHUP] {
        let before = signal(signum, Some(stop_handler));
        // nohup(1) ignores it for the program that it starts.
        if signum == SIGHUP && before == libc::SIG_IGN {
            signal(SIGHUP, SIG_IGN);
        }
    }
    // A write past the file size limit then is an error.
    signal(libc::SIGXFSZ, SIG_IGN);
}

/// The parent goes to the next stage. A child, which has CONNFD, ends.
extern "C" fn stop_handler(signum: c_int) {
    if getpid().as_raw_pid() == PARENT.get() {
        // A terminal that closes sends SIGHUP twice.
        let (now, last) = (sys::milliseconds(), SIGNAL_TIME.get());
        if signum != SIGNAL.get() || now.wrapping_sub(last) >= 1000 {
            SIGNAL_TIME.set(now);
            next_stage(signum);
        }
    } else if let Some(connfd) = sys::fd(CONNFD.get()) {
        match signum {
            SIGQUIT => reset(connfd, Errno::INTR),
            _ => stop_reading(connfd, Errno::INTR),
        }
    }
}

/// Goes to the next stage, for a signal or, if `signum` is 0, because the time is
/// over. A signal never leads to Kill: a child that is killed does not tell its
/// client that an answer is missing. The first step closes the listening socket.
/// Then accept fails, whether it is waiting now or called later.
fn next_stage(signum: c_int) {
    SIGNAL.set(signum);
    let stage = STAGE.replace(match STAGE.get() {
        Stage::Serving if signum != SIGQUIT => Stage::Drain,
        Stage::Reset | Stage::Kill if signum == 0 => Stage::Kill,
        _ => Stage::Reset,
    });
    if stage == Stage::Serving {
        sys::fd(LISTENFD.get()).into_iter().for_each(sys::close);
    }
}

/// Takes signals during `call`. A signal that comes just before the call is not
/// missed. Its handler has already run: it has removed the child that ended, or
/// it has closed the listening socket, so that accept fails.
pub fn with_signals<T>(call: impl FnOnce() -> T) -> T {
    sys::sigmask(ALL_IN);
    let result = call();
    sys::sigmask(PARENT_BLOCKS);
    result
}

pub fn is_stopping() -> bool {
    STAGE.get() != Stage::Serving
}

/// Waits for the children, stage by stage, and ends the program.
pub fn drain() -> ! {
    notify::notify("STOPPING=1");
    loop {
        let stage = STAGE.get();
        let (event, signal, seconds) = match stage {
            Stage::Serving | Stage::Drain => ("drain", Signal::TERM, GraceSeconds.get()),
            Stage::Reset => ("reset", Signal::QUIT, 1),
            Stage::Kill => ("kill", Signal::KILL, 1),
        };
        log::stopping(event, SIGNAL.get());
        for pid in children::pids() {
            let _ = kill_process(pid, signal);
            if stage == Stage::Reset {
                // A stopped child cannot reset its connection.
                let _ = kill_process(pid, Signal::CONT);
            }
        }
        let mut left = Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
        while STAGE.get() == stage && children::count() > 0 && sys::pause(ALL_IN, Some(&mut left)) {
        }
        // If the handler's wait for a child failed, no other SIGCHLD comes for it.
        while waitpid() > 0 {}
        if children::count() == 0 {
            log::stopping("drained", 0);
            sys::_exit(0);
        }
        if STAGE.get() == stage {
            next_stage(0);
        }
    }
}

/// waitpid(2) with WNOHANG, for any child: its pid, or 0 if none has ended.
pub fn waitpid() -> i32 {
    match wait(WaitOptions::NOHANG) {
        Ok(Some((pid, status))) => {
            if let Some(client) = children::remove(pid) {
                log::ended(pid, &client, status);
            }
            pid.as_raw_pid()
        }
        _ => 0,
    }
}

/// Stores the connection for the child that is forked next. The parent does it,
/// so a signal never finds a child without its connection.
pub fn connected(connfd: Fd) {
    // It is the lowest free number, so it nearly always is the same. A write
    // would copy the page, which the last child shares.
    if CONNFD.get() != connfd.as_raw_fd() {
        CONNFD.set(connfd.as_raw_fd());
    }
}

/// The first step of a child: it takes signals all the time.
pub fn in_child() {
    sys::sigaltstack(libc::SS_DISABLE);
    sys::sigmask(CHILD_BLOCKS);
}

/// From now on recv gives the end of file once nothing is left to read. Linux still takes
/// what arrives later: a client that never pauses is served until the grace time ends.
pub fn stop_reading(connfd: Fd, reason: Errno) {
    REASON.set(reason.raw_os_error());
    let _ = shutdown(connfd, Shutdown::Read);
}

/// Ends a child whose client may lack an answer. The reset tells the client
/// (socket(7), SO_LINGER; RFC 9293, section 3.6).
pub fn reset(connfd: Fd, reason: Errno) -> ! {
    // On, for 0 seconds.
    sys::setsockopt(connfd, libc::SOL_SOCKET, libc::SO_LINGER, &[1, 0]);
    sys::_exit(reason.raw_os_error())
}

/// Waits until the client has taken everything, or is gone. A close with answers
/// under way would lose them if the client sent one more byte: the kernel answers
/// that with a reset (RFC 1122, section 4.2.2.13).
pub fn linger(connfd: Fd) {
    let mut looks = 0;
    // shutdown fails if the connection is gone.
    while sys::acknowledged(connfd).1 && shutdown(connfd, Shutdown::Read).is_ok() {
        sys::pause(CHILD_BLOCKS, Some(&mut { LOOK }));
        looks += 1;
        if looks == IdleSeconds.get() * LOOKS_PER_SECOND {
            if idle::has_taken(connfd) == Some(false) {
                reset(connfd, Errno::AGAIN);
            }
            looks = 0;
        }
    }
}
