//! Connections on which nothing happens: silent clients and dead ones.

use crate::fault::Fault;
use crate::sys::{self, Fd, setsockopt};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use libc::{IPPROTO_TCP, SOL_SOCKET};
use rustix::net::{Shutdown, shutdown};

/// Lets recv and send on a connection fail with EAGAIN after so many seconds
/// without a byte, or never for 0 (socket(7), SO_RCVTIMEO).
pub fn limit(connfd: Fd, seconds: u32) {
    if seconds == 0 {
        return;
    }
    // Two 64-bit numbers, little-endian: seconds and microseconds.
    let timeval = [seconds, 0, 0, 0];
    for option in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
        if let Err(e) = setsockopt(connfd, SOL_SOCKET, option, &timeval) {
            Fault("setsockopt", e).warn();
        }
    }
}

/// Whether the client, though silent, has taken some of what was sent since
/// this was last asked. The first time it has the benefit of the doubt.
pub fn is_taking(connfd: Fd) -> bool {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let left = sys::unacknowledged(connfd);
    left > 0 && TAKEN.swap(!left, Relaxed) < !left
}

/// The limit has come: what has arrived is served, then comes the end of file.
pub fn end_of_input(connfd: Fd) -> usize {
    let _ = shutdown(connfd, Shutdown::Read);
    0
}

/// A peer that is gone without a word, with nothing under way to it, is noticed
/// in two minutes: a probe after one, and three more (tcp(7), TCP_KEEPIDLE).
/// Connections inherit this.
pub fn find_dead_peers(listenfd: Fd) {
    for (level, option, value) in [
        (SOL_SOCKET, libc::SO_KEEPALIVE, 1),
        (IPPROTO_TCP, libc::TCP_KEEPIDLE, 60),
        (IPPROTO_TCP, libc::TCP_KEEPINTVL, 20),
        (IPPROTO_TCP, libc::TCP_KEEPCNT, 3),
    ] {
        if let Err(e) = setsockopt(listenfd, level, option, &[value]) {
            Fault("setsockopt", e).warn();
        }
    }
}
