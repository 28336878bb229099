//! How the listening socket comes about: opened here, or handed over.

use super::end;
use super::fault::{die, keep};
use super::options::{HOSTS, REUSE_PORT};
use crate::sys::{self, Address, Fd, Sockaddr, Strings, number};
use libc::{IPPROTO_TCP, SOL_SOCKET};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::process::getpid;

/// getaddrinfo(3): the addresses to try. Without `-b` these are `[::]`, which is every
/// address of both families, and then `0.0.0.0`, in case `[::]` cannot be bound.
pub fn getaddrinfo(port: u16) -> impl Iterator<Item = Sockaddr> {
    HOSTS.iter().map(move |host| host.get().with_port(port)).filter(|host| host.family != 0)
}

/// socket(2), with the options that the command line asks for.
pub fn socket(p: &Sockaddr) -> Option<Fd> {
    let fd = sys::socket(p.family.into(), libc::SOCK_STREAM)
        .inspect_err(|&e| keep("socket", *p, e))
        .ok()?;
    // `[::]` takes IPv4 clients, too, whatever the system's default is (ipv6(7)).
    setsockopt(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0);
    setsockopt(fd, SOL_SOCKET, libc::SO_REUSEPORT, REUSE_PORT.get().into());
    Some(fd)
}

/// setsockopt(2), for an int. Like the C, it goes on without the option.
pub fn setsockopt(fd: Fd, level: i32, optname: i32, optval: u32) {
    sys::setsockopt(fd, level, optname, &[optval]);
}

/// bind(2); whether it succeeded.
pub fn bind(fd: Fd, addr: &Sockaddr) -> bool {
    rustix::net::bind(fd, &Address(addr)).inspect_err(|&e| keep("bind", *addr, e)).is_ok()
}

/// listen(2). A failure ends the program.
pub fn listen(fd: Fd, backlog: i32) {
    set_inherited(fd);
    rustix::net::listen(fd, backlog).unwrap_or_else(|e| die("listen", e));
    end::IS_OWN.set(true);
}

/// The first descriptor that is handed over.
const SD_LISTEN_FDS_START: i32 = 3;

/// The listening socket that systemd has opened for this process, if the
/// environment names one (sd_listen_fds(3)).
pub fn sd_listen_fds(env: Strings) -> Option<Fd> {
    let getenv = |name| number(env.getenv(name)?, i32::MAX as u32);
    if getenv(b"LISTEN_PID")? != getpid().as_raw_pid() as u32 {
        return None;
    }
    if getenv(b"LISTEN_FDS").filter(|&n| n > 0)? > 1 {
        die("LISTEN_FDS is not 1", Errno::INVAL);
    }
    let listenfd = sys::fd(SD_LISTEN_FDS_START)?;
    set_inherited(listenfd);
    // A socket that listens already gets the longest queue that the system
    // allows. A socket that cannot listen fails here.
    rustix::net::listen(listenfd, i32::MAX).unwrap_or_else(|e| die("LISTEN_FDS", e));
    // An unused socket takes the place of each standard stream that is closed, so
    // that no connection does. `ready` closes the one that is left over.
    let _ = sys::socket(libc::AF_INET, libc::SOCK_STREAM);
    // accept must block.
    let _ = ioctl_fionbio(listenfd, false);
    Some(listenfd)
}

/// Sets what connections inherit from the listening socket: urgent data stays in its
/// place (RFC 6093), and TCP keep-alive finds a peer that is gone in two minutes, with a
/// probe after one minute of silence, and two more, 20 seconds apart (tcp(7)). A socket
/// that is handed over with keep-alive has times of its own.
fn set_inherited(listenfd: Fd) {
    setsockopt(listenfd, SOL_SOCKET, libc::SO_OOBINLINE, 1);
    let mut on = [0];
    sys::getsockopt(listenfd, SOL_SOCKET, libc::SO_KEEPALIVE, &mut on);
    if on == [0] {
        setsockopt(listenfd, SOL_SOCKET, libc::SO_KEEPALIVE, 1);
        setsockopt(listenfd, IPPROTO_TCP, libc::TCP_KEEPIDLE, 60);
        setsockopt(listenfd, IPPROTO_TCP, libc::TCP_KEEPINTVL, 20);
        setsockopt(listenfd, IPPROTO_TCP, libc::TCP_KEEPCNT, 3);
    }
}
