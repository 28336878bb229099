//! The connection of a child: its calls with the errors dealt with, the idle limit, and
//! the two ways in which it ends.

use super::options::IDLE;
use crate::sys::{self, Fd, Global, TcpInfo, setsockopt, sigset};
use core::ffi::c_int;
use libc::{SIGALRM, SIGCHLD, SO_RCVTIMEO, SOL_SOCKET};
use rustix::fd::AsRawFd;
use rustix::io::Errno;

/// What a child blocks: it has no children to reap.
const CHILD_BLOCKS: u64 = sigset(SIGCHLD) | sigset(SIGALRM);
/// How many milliseconds recv waits before it looks whether the client is silent, when
/// the child is to end. What was under way before comes in that time.
const PATIENCE: u32 = 400;

/// The connection of the child that is forked next; in a child, its own.
static CONNFD: Global<i32> = Global::new(0);
/// Why the child is to end when its client is silent: EINTR for a signal, EAGAIN for the
/// idle limit. 0 if it is not to.
static REASON: Global<c_int> = Global::new(0);
/// The bytes that the client had acknowledged when `look` last found that they have become
/// more, and when that was, in milliseconds.
static PROGRESS: Global<(u32, u64)> = Global::new((0, 0));

/// Stores the connection for the child that is forked next. The parent does it, so a
/// signal never finds a child without its connection.
pub fn set(connfd: Fd) {
    // It is the lowest free number, so it nearly always is the same. A write
    // would copy the page, which the last child shares.
    if CONNFD.get() != connfd.as_raw_fd() {
        CONNFD.set(connfd.as_raw_fd());
    }
}

/// The first step of a child: it sets the idle limit and unblocks signals. If the server
/// `is_stopping`, the child is to end, as those are that were forked before.
pub fn begin(is_stopping: bool) {
    if IDLE.get() > 0 {
        set_timeout(SO_RCVTIMEO, IDLE.get());
        set_timeout(libc::SO_SNDTIMEO, IDLE.get());
    }
    if is_stopping {
        end(libc::SIGTERM);
    }
    sys::disable_sigaltstack();
    sys::sigmask(CHILD_BLOCKS);
}

/// recv(2): the number of bytes, 0 at the end of file. An error ends the child. When the
/// child is to end, a silence of the client acts as an end of file, as the idle limit does.
#[inline(always)]
pub fn recv(fd: Fd, buf: &mut [u8]) -> usize {
    loop {
        match sys::recv(fd, buf) {
            Ok(n) => return n,
            Err(e) if is_over(fd, e) => return 0,
            Err(_) => {}
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
            look(fd, false);
            n
        }
        Ok(n) => n,
        Err(e) => {
            // If no byte counts as acknowledged, TCP_INFO is missing, and nothing shows
            // whether the client takes its answers.
            if is_timeout(e) && look(fd, true).acknowledged == 0 {
                reset(e);
            }
            0
        }
    }
}

/// After an error of recv: whether nothing more is to be read. Otherwise the call is to be
/// made again.
fn is_over(fd: Fd, e: Errno) -> bool {
    let is_to_end = REASON.get() != 0;
    let is_over = is_timeout(e) && {
        let info = look(fd, true);
        !info.has_more & (info.is_silent | !is_to_end)
    };
    if is_over {
        to_end(e);
    }
    is_over
}

/// Whether a call has failed because of its time limit, and not for a signal. For any
/// other error the child ends here.
fn is_timeout(e: Errno) -> bool {
    match e {
        Errno::INTR => false,
        Errno::AGAIN => true,
        _ => reset(e),
    }
}

/// From now on the child is to end when its client is silent.
fn to_end(reason: Errno) {
    if REASON.get() == 0 {
        REASON.set(reason.raw_os_error());
    }
    set_timeout(SO_RCVTIMEO, PATIENCE);
}

fn set_timeout(option: c_int, milliseconds: u32) {
    if let Some(connfd) = sys::fd(CONNFD.get()) {
        sys::set_timeout(connfd, option, milliseconds);
    }
}

/// Looks at the connection. If the client has answers to acknowledge, and has not done so
/// for the idle limit, the child `may_end` here.
fn look(connfd: Fd, may_end: bool) -> TcpInfo {
    let (info, (acknowledged, time)) = (sys::tcp_info(connfd), PROGRESS.get());
    if info.has_more {
        let now = sys::milliseconds();
        if info.acknowledged != acknowledged || time == 0 {
            PROGRESS.set((info.acknowledged, now));
        } else if may_end && IDLE.get() > 0 && now - time >= IDLE.get().into() {
            reset(Errno::AGAIN);
        }
    }
    info
}

/// What a signal asks of a child: SIGQUIT to reset its connection, any other to end when
/// its client is silent.
pub fn end(signum: c_int) {
    match signum {
        libc::SIGQUIT => reset(Errno::INTR),
        _ => to_end(Errno::INTR),
    }
}

/// close(2). When the child is to end, it waits until the client has acknowledged
/// everything. A reset ends the wait, too.
pub fn close(fd: Fd) {
    if REASON.get() != 0 && fd.as_raw_fd() == CONNFD.get() {
        linger(fd);
    }
    sys::close(fd);
}

/// Waits for the client, which has ended its side, without looking all the time: in the
/// smallest buffer there is room when almost nothing is left. Then it looks, and less and
/// less often.
fn linger(connfd: Fd) {
    setsockopt(connfd, SOL_SOCKET, libc::SO_SNDBUF, &[0]);
    let mut wait = 5;
    while look(connfd, true).has_more {
        // A reset ends this wait, too.
        if sys::poll_out(connfd, 1000) {
            sys::pause(CHILD_BLOCKS, wait);
            wait = 640.min(2 * wait);
        }
    }
}

/// Ends a child whose client may lack an answer. The reset tells the client.
fn reset(reason: Errno) -> ! {
    reset_at_close();
    sys::_exit(reason.raw_os_error())
}

/// Makes the end of the connection a reset (socket(7), SO_LINGER; RFC 9293, section 3.6).
pub fn reset_at_close() {
    if let Some(connfd) = sys::fd(CONNFD.get()) {
        // On, for 0 seconds.
        setsockopt(connfd, SOL_SOCKET, libc::SO_LINGER, &[1, 0]);
    }
}

/// _exit(2) of a child that has answered everything: with `status`, or with the errno
/// that ended its input.
pub fn _exit(status: c_int) -> ! {
    let reason = REASON.get();
    sys::_exit(if reason == 0 { status } else { reason })
}
