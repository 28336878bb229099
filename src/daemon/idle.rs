//! Connections on which nothing happens: silent clients and dead ones.

use super::options::Setting::IdleSeconds;
use crate::sys::{self, Fd, Global, setsockopt};
use core::cell::Cell;
use libc::{IPPROTO_TCP, SOL_SOCKET};

/// Makes recv and send on a connection fail with EAGAIN after the idle limit
/// without a byte (socket(7), SO_RCVTIMEO).
pub fn limit(connfd: Fd) {
    let seconds = IdleSeconds.get();
    if seconds > 0 {
        // Two 64-bit numbers, little-endian: seconds and microseconds.
        let timeval = [seconds, 0, 0, 0];
        let _ = setsockopt(connfd, SOL_SOCKET, libc::SO_RCVTIMEO, &timeval);
        let _ = setsockopt(connfd, SOL_SOCKET, libc::SO_SNDTIMEO, &timeval);
    }
}

/// The bytes that the client had not acknowledged when `is_taking` was last
/// asked; 0 if something has been received or sent since.
static LAST_LEFT: Global<Cell<u32>> = Global(Cell::new(0));

/// Whether the client, which has sent nothing for the idle limit, takes what was
/// sent to it. The first time the answer is yes if anything is left to take.
pub fn is_taking(connfd: Fd) -> bool {
    let left = sys::unacknowledged(connfd);
    let last = LAST_LEFT.replace(left);
    left > 0 && (last == 0 || left < last)
}

/// Something was received or sent.
pub fn progress() {
    // A write costs a page fault, so it is left out where it can be.
    if LAST_LEFT.get() != 0 {
        LAST_LEFT.set(0);
    }
}

/// Lets TCP keep-alive find a peer that is gone, in two minutes: a probe after
/// one minute of silence, and two more, 20 seconds apart (tcp(7), TCP_KEEPIDLE).
/// Connections inherit this from the listening socket.
pub fn keep_alive(listenfd: Fd) {
    for (level, option, value) in [
        (SOL_SOCKET, libc::SO_KEEPALIVE, 1),
        (IPPROTO_TCP, libc::TCP_KEEPIDLE, 60),
        (IPPROTO_TCP, libc::TCP_KEEPINTVL, 20),
        (IPPROTO_TCP, libc::TCP_KEEPCNT, 3),
    ] {
        let _ = setsockopt(listenfd, level, option, &[value]);
    }
}
