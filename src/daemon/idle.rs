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
        setsockopt(connfd, SOL_SOCKET, libc::SO_RCVTIMEO, &timeval);
        setsockopt(connfd, SOL_SOCKET, libc::SO_SNDTIMEO, &timeval);
    }
}

/// The bytes that the client had acknowledged when `has_taken` was last called and
/// more was left to take.
static ACKNOWLEDGED: Global<Cell<u64>> = Global(Cell::new(0));

/// Whether the client has taken something since the last call; nothing if there is
/// nothing left to take.
pub fn has_taken(connfd: Fd) -> Option<bool> {
    let (acknowledged, has_more) = sys::acknowledged(connfd);
    has_more.then(|| ACKNOWLEDGED.replace(acknowledged) != acknowledged)
}

/// Lets TCP keep-alive find a peer that is gone, in two minutes: a probe after
/// one minute of silence, and two more, 20 seconds apart (tcp(7), TCP_KEEPIDLE).
/// Connections inherit this from the listening socket.
pub fn keep_alive(listenfd: Fd) {
    setsockopt(listenfd, SOL_SOCKET, libc::SO_KEEPALIVE, &[1]);
    setsockopt(listenfd, IPPROTO_TCP, libc::TCP_KEEPIDLE, &[60]);
    setsockopt(listenfd, IPPROTO_TCP, libc::TCP_KEEPINTVL, &[20]);
    setsockopt(listenfd, IPPROTO_TCP, libc::TCP_KEEPCNT, &[3]);
}
