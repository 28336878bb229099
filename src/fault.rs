//! What goes wrong while serving, and what that costs.

use crate::drain;
use crate::line::{Line, message};
use crate::sys::{self, Fd, Pages};
use core::net::SocketAddr;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use rustix::io::Errno;
use rustix::thread::{Timespec, nanosleep};

/// The call that failed, and why.
#[derive(Clone, Copy)]
pub struct Fault(pub &'static str, pub Errno);

impl Fault {
    /// Says so on stderr.
    pub fn warn(self) {
        let kind = self.1.raw_os_error() as usize ^ self.0.as_ptr() as usize;
        if let Some(more) = said(kind) {
            message(|line| _ = line.str(self.0).str(": ").errno(self.1).more(more));
        }
    }

    /// Ends a connection that it befell: the client, who may lack an answer,
    /// is told by a reset. A client that did so itself, or was idle for too
    /// long while we sent, needs no words.
    pub fn end(self, connfd: Fd) {
        if !matches!(self.1, Errno::CONNRESET | Errno::PIPE | Errno::AGAIN) {
            self.warn();
        }
        reset(connfd);
    }

    /// The C's `error_`.
    pub fn die(self, at: Option<&SocketAddr>) -> ! {
        message(|line| {
            line.str(self.0);
            if let Some(addr) = at {
                line.str(" ").addr(addr);
            }
            line.str(": ").errno(self.1);
        });
        sys::_exit(1)
    }
}

/// Lets the close of `connfd` be a reset, which drops what is not yet
/// delivered and tells the client (socket(7), SO_LINGER; RFC 9293, 3.6).
pub fn reset(connfd: Fd) {
    // On, for no seconds.
    let _ = sys::setsockopt(connfd, libc::SOL_SOCKET, libc::SO_LINGER, &[1, 0]);
}

/// A client that may not have one more child.
pub fn refuse(client: &SocketAddr, children: u64) {
    if let Some(more) = said(0) {
        let children = children as usize;
        message(|line| {
            _ = line.str("refuse ").addr(client).str(", it has ").num(children).more(more)
        });
    }
}

/// The next connection and its client, or nothing once a signal has asked for
/// the end. A connection that came to nothing is passed over, want of memory
/// or descriptors is waited out, and only a socket that is no listening socket
/// (any more) ends the server.
pub fn accept(listenfd: Fd) -> Option<(Fd, SocketAddr)> {
    loop {
        let e = match sys::accept(listenfd) {
            Ok(connection) => return Some(connection),
            Err(_) if drain::asked() => return None,
            Err(e) => e,
        };
        match e {
            Errno::INTR | Errno::CONNABORTED => {}
            Errno::BADF | Errno::INVAL | Errno::NOTSOCK => Fault("accept", e).die(None),
            _ => {
                Fault("accept", e).warn();
                pause();
            }
        }
    }
}

/// A tenth of a second, or until a signal comes that is not blocked: a child's end.
pub fn pause() {
    let _ = nanosleep(&Timespec { tv_sec: 0, tv_nsec: 100_000_000 });
}

/// When each kind of thing was last said, in milliseconds, and how often it
/// has happened since. Shared with all children: a thousand of them may lose
/// their clients in the same second.
struct Said([(AtomicU64, AtomicU32); 256]);

static SAID: Pages<Said> = Pages::unmapped();

/// To be called once, before the first fault.
pub fn start() {
    // SAFETY: numbers may be zero.
    unsafe { SAID.map(true, 1) };
}

/// Whether this kind of thing may be said again, and how often it has happened
/// unsaid.
fn said(kind: usize) -> Option<u32> {
    let (last, more) = &SAID.0[kind % SAID.0.len()];
    let (now, then) = (sys::milliseconds(), last.load(Relaxed));
    if then != 0 && now.wrapping_sub(then) < 1000 {
        more.fetch_add(1, Relaxed);
        return None;
    }
    last.store(now, Relaxed);
    Some(more.swap(0, Relaxed))
}

impl Line<'_> {
    fn more(&mut self, more: u32) -> &mut Self {
        if more > 0 {
            self.str(", and ").num(more as usize).str(" more like it before");
        }
        self
    }
}
