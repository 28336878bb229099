//! The connection of a child: its calls with the errors dealt with, the idle limit, and
//! the two ways in which it ends.

use super::options::IDLE_SECONDS;
use crate::sys::{self, Fd, Global, setsockopt, sigset};
use core::ffi::c_int;
use libc::{SIGCHLD, SOL_SOCKET};
use rustix::fd::AsRawFd;
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use rustix::thread::Timespec;

/// What a child blocks: it has no children.
const CHILD_BLOCKS: u64 = sigset(SIGCHLD);
/// How often `linger` looks at what the client has acknowledged.
const LOOKS_PER_SECOND: u32 = 100;
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000_000 / LOOKS_PER_SECOND as i64 };

/// The connection of the child that is forked next; in a child, its own.
static CONNFD: Global<i32> = Global::new(0);
/// The errno that ended a child's input, or 0 for its client's end of file.
static REASON: Global<c_int> = Global::new(0);
/// The bytes that the client had acknowledged when `look` last found more to acknowledge.
static ACKNOWLEDGED: Global<u64> = Global::new(0);

/// What the client has acknowledged since the last look.
enum Acknowledged {
    All,
    Some,
    Nothing,
}

/// Stores the connection for the child that is forked next. The parent does it, so a
/// signal never finds a child without its connection.
pub fn set(connfd: Fd) {
    // It is the lowest free number, so it nearly always is the same. A write
    // would copy the page, which the last child shares.
    if CONNFD.get() != connfd.as_raw_fd() {
        CONNFD.set(connfd.as_raw_fd());
    }
}

/// The first step of a child: it unblocks signals and sets the idle limit. After that
/// time without a byte recv and send fail with EAGAIN (socket(7), SO_RCVTIMEO).
pub fn begin() {
    sys::disable_sigaltstack();
    sys::sigmask(CHILD_BLOCKS);
    let seconds = IDLE_SECONDS.get();
    if seconds > 0
        && let Some(connfd) = sys::fd(CONNFD.get())
    {
        // Two 64-bit numbers, little-endian: seconds and microseconds.
        let timeval = [seconds, 0, 0, 0];
        setsockopt(connfd, SOL_SOCKET, libc::SO_RCVTIMEO, &timeval);
        setsockopt(connfd, SOL_SOCKET, libc::SO_SNDTIMEO, &timeval);
    }
}

/// recv(2): the number of bytes, 0 at the end of file. An error ends the child.
/// The idle limit acts as an end of file.
#[inline(always)]
pub fn recv(fd: Fd, buf: &mut [u8]) -> usize {
    loop {
        match sys::recv(fd, buf) {
            Ok(n) => return n,
            Err(e) if may_retry(fd, e) => {}
            Err(e) => {
                stop_reading(fd, e);
                return 0;
            }
        }
    }
}

/// send(2): the number of bytes, 0 if it is to be called again. An error ends the
/// child.
#[inline(always)]
pub fn send(fd: Fd, buf: &[u8]) -> usize {
    match sys::send(fd, buf) {
        // A signal or the idle limit ended the call, and no errno tells which. The next
        // look compares with what the client has acknowledged so far.
        Ok(n) if n < buf.len() => {
            look(fd);
            n
        }
        Ok(n) => n,
        Err(e) if may_retry(fd, e) => 0,
        // There is room again. But if no byte counts as acknowledged, TCP_INFO is missing,
        // and nothing shows whether the client takes its answers.
        Err(e) if sys::acknowledged(fd).0 == 0 => reset(fd, e),
        Err(_) => 0,
    }
}

/// Whether the call is to be made again after this error: a signal ended it, or the
/// client acknowledges its answers. False: the idle limit is over, and the client has
/// acknowledged all. In any other case the child ends here.
fn may_retry(fd: Fd, e: Errno) -> bool {
    match e {
        Errno::INTR => true,
        Errno::AGAIN => match look(fd) {
            Acknowledged::All => false,
            Acknowledged::Some => true,
            Acknowledged::Nothing => reset(fd, e),
        },
        _ => reset(fd, e),
    }
}

/// Compares what the client has acknowledged with the last look.
fn look(connfd: Fd) -> Acknowledged {
    match sys::acknowledged(connfd) {
        (_, false) => Acknowledged::All,
        (n, true) if ACKNOWLEDGED.replace(n) != n => Acknowledged::Some,
        _ => Acknowledged::Nothing,
    }
}

/// What a signal asks of a child: SIGQUIT to reset its connection, any other to answer
/// what its client has sent, and to end.
pub fn end(signum: c_int) {
    if let Some(connfd) = sys::fd(CONNFD.get()) {
        match signum {
            libc::SIGQUIT => reset(connfd, Errno::INTR),
            _ => stop_reading(connfd, Errno::INTR),
        }
    }
}

/// From now on recv gives the end of file once nothing is left to read. Linux still takes
/// what arrives later: a client that never pauses is served until the grace time ends.
fn stop_reading(connfd: Fd, reason: Errno) {
    REASON.set(reason.raw_os_error());
    let _ = shutdown(connfd, Shutdown::Read);
}

/// close(2). A connection whose input was ended here is not closed before the client
/// has acknowledged everything.
pub fn close(fd: Fd) {
    if REASON.get() != 0 && fd.as_raw_fd() == CONNFD.get() {
        linger(fd);
    }
    sys::close(fd);
}

/// Waits until the client has acknowledged everything, or is gone. A close with answers
/// under way would lose them if the client sent one more byte: the kernel answers
/// that with a reset (RFC 1122, section 4.2.2.13).
fn linger(connfd: Fd) {
    let mut looks = 0;
    // shutdown fails if the connection is gone.
    while sys::acknowledged(connfd).1 && shutdown(connfd, Shutdown::Read).is_ok() {
        sys::pause(CHILD_BLOCKS, Some(&mut { LOOK }));
        looks += 1;
        if looks == IDLE_SECONDS.get() * LOOKS_PER_SECOND {
            if let Acknowledged::Nothing = look(connfd) {
                reset(connfd, Errno::AGAIN);
            }
            looks = 0;
        }
    }
}

/// Ends a child whose client may lack an answer. The reset tells the client
/// (socket(7), SO_LINGER; RFC 9293, section 3.6).
fn reset(connfd: Fd, reason: Errno) -> ! {
    // On, for 0 seconds.
    setsockopt(connfd, SOL_SOCKET, libc::SO_LINGER, &[1, 0]);
    sys::_exit(reason.raw_os_error())
}

/// _exit(2) of a child that has answered everything: with `status`, or with the errno
/// that ended its input.
pub fn _exit(status: c_int) -> ! {
    let reason = REASON.get();
    sys::_exit(if reason == 0 { status } else { reason })
}
