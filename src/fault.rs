//! What goes wrong while serving, and what that costs.

use crate::line::message;
use crate::sys::{self, Fd};
use core::net::SocketAddr;
use rustix::io::Errno;
use rustix::thread::{Timespec, nanosleep};

/// The call that failed, and why.
#[derive(Clone, Copy, PartialEq)]
pub struct Fault(pub &'static str, pub Errno);

impl Fault {
    /// Says so on stderr. Not of a reset: that is the client's right.
    pub fn warn(self) {
        if !matches!(self.1, Errno::CONNRESET | Errno::PIPE) {
            message(|line| _ = line.str(self.0).str(": ").errno(self.1));
        }
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

/// The next connection. A connection that came to nothing is passed over, want
/// of memory or descriptors is waited out, and only a socket that is no
/// listening socket (any more) ends the server.
pub fn accept(listenfd: Fd) -> Fd {
    let mut said = None;
    loop {
        let e = match sys::accept(listenfd) {
            Ok(connfd) => return connfd,
            Err(e) => e,
        };
        match e {
            Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP | Errno::FAULT => {
                Fault("accept", e).die(None)
            }
            Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => {
                if said != Some(e) {
                    Fault("accept", e).warn();
                    said = Some(e);
                }
                let _ = nanosleep(&Timespec { tv_sec: 0, tv_nsec: 100_000_000 });
            }
            // Interrupted, or what befell that connection (accept(2), "Error handling").
            _ => {}
        }
    }
}
