//! The end of the service: SIGTERM, SIGINT and SIGHUP let every child answer
//! what its client has sent; a second one, SIGQUIT or the end of the grace time
//! ends the children at once.

use crate::children;
use crate::fault;
use crate::line::message;
use crate::sys::{self, Fd, Handler, close};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering::Relaxed};
use rustix::fd::AsRawFd;
use rustix::net::{Shutdown, shutdown};
use rustix::process::{Signal, getpid, kill_process};

/// The signals that ask for a drain.
const ASK: [Signal; 3] = [Signal::TERM, Signal::INT, Signal::HUP];
/// The signal that ends a child without an answer, and its client's
/// connection with a reset.
const ABORT: Signal = Signal::QUIT;

// For the handlers. Each is written once, or a child would have to copy its page.
static PARENT: AtomicI32 = AtomicI32::new(0);
static LISTENFD: AtomicI32 = AtomicI32::new(0);
static CONNFD: AtomicI32 = AtomicI32::new(0);
/// This is an acceptor, whose end is the main process's to command.
static SUPERVISED: AtomicBool = AtomicBool::new(false);
/// How many signals have asked for the end.
static ASKED: AtomicU32 = AtomicU32::new(0);

/// Catches the signals. One that comes before there is a listening socket
/// ends the program: it has nothing to drain.
pub fn on_signals() {
    PARENT.store(getpid().as_raw_pid(), Relaxed);
    sys::signal_stack();
    for signal in ASK {
        sys::signal(signal, Handler::Call(drain_handler));
    }
    sys::signal(ABORT, Handler::Call(abort_handler));
    // Whatever our parent had blocked.
    sys::block_signals(false);
}

/// From now on this process is an acceptor.
pub fn supervised() {
    PARENT.store(getpid().as_raw_pid(), Relaxed);
    SUPERVISED.store(true, Relaxed);
}

/// What the parent's handler closes, so that accept fails whichever comes
/// first, the signal or the call.
pub fn listening(listenfd: Fd) {
    LISTENFD.store(listenfd.as_raw_fd(), Relaxed);
}

/// What a child's handler ends. The parent calls this, so that there is no
/// moment at which a child does not know.
pub fn connected(connfd: Fd) {
    // It is the lowest free number, so nearly always the same.
    if CONNFD.load(Relaxed) != connfd.as_raw_fd() {
        CONNFD.store(connfd.as_raw_fd(), Relaxed);
    }
}

/// This process's pid, but in a child its parent's.
pub fn parent() -> i32 {
    PARENT.load(Relaxed)
}

pub fn asked() -> bool {
    ASKED.load(Relaxed) > 0
}

/// Tells the children to end, waits for them up to `grace` seconds, and ends
/// this process. `sigchld_handler` is called for what it does: SIGCHLD, like
/// the other signals, is blocked and waited for here.
pub fn drain(grace: u32, sigchld_handler: extern "C" fn(i32)) -> ! {
    sys::block_signals(true);
    let (mut signal, mut seconds) = (Signal::TERM, grace);
    if SUPERVISED.load(Relaxed) {
        seconds += 1; // the main process's end comes first
    }
    if ASKED.load(Relaxed) > 1 {
        (signal, seconds) = (ABORT, 1);
    }
    loop {
        children::settle();
        if children::verbose() && !SUPERVISED.load(Relaxed) {
            message(|line| {
                _ = line
                    .str("drain, signal ")
                    .num(signal.as_raw() as usize)
                    .places(children::count())
            });
        }
        for pid in children::pids() {
            let _ = kill_process(pid, signal);
            if signal == ABORT {
                // Or one that is stopped could not reset its connection.
                let _ = kill_process(pid, Signal::CONT);
            }
        }
        sys::alarm(seconds);
        loop {
            sigchld_handler(libc::SIGCHLD);
            children::settle();
            if children::pids().next().is_none() {
                sys::_exit(0);
            }
            match sys::wait_for_signal() {
                libc::SIGCHLD => {}
                libc::SIGALRM => break,
                libc::SIGQUIT if signal == Signal::TERM => break,
                _ if !SUPERVISED.load(Relaxed) => break,
                _ => {}
            }
        }
        // Those that are stopped do not hear the first.
        signal = if signal == Signal::TERM { ABORT } else { Signal::KILL };
        seconds = 1;
    }
}

extern "C" fn drain_handler(sig: i32) {
    if in_parent() {
        // A terminal's Ctrl-C is the main process's to pass on, and one is enough.
        if !SUPERVISED.load(Relaxed) || sig == libc::SIGTERM && !asked() {
            ask(1);
        }
    } else if let Some(connfd) = sys::fd(CONNFD.load(Relaxed)) {
        // What has arrived can still be read; then comes the end of file.
        let _ = shutdown(connfd, Shutdown::Read);
    }
}

extern "C" fn abort_handler(_sig: i32) {
    if in_parent() {
        ask(2);
    } else if let Some(connfd) = sys::fd(CONNFD.load(Relaxed)) {
        fault::reset(connfd);
        sys::_exit(1);
    }
}

fn in_parent() -> bool {
    getpid().as_raw_pid() == parent()
}

/// Closes the listening socket, so that accept fails.
pub fn ask(times: u32) {
    let Some(listenfd) = sys::fd(LISTENFD.load(Relaxed)) else { sys::_exit(0) };
    if ASKED.fetch_add(times, Relaxed) == 0 {
        close(listenfd);
    }
    children::event();
}
