//! How the listening socket comes about: opened here, or handed over.

use super::fault::{die, keep, tell_unserved};
use super::options::{HOSTS, Service, Setting::ReusePort};
use super::{confine, end, idle};
use crate::sys::{self, Fd, Sockaddr, Strings, message, number, split_once};
use rustix::fd::AsRawFd;
use rustix::io::ioctl_fionbio;
use rustix::process::getpid;

/// getaddrinfo(3): the addresses to try. Without `-b` that is every address of
/// both families, and then, where there is no IPv6, every IPv4 address.
pub fn getaddrinfo(port: u16) -> impl Iterator<Item = Sockaddr> {
    let hosts = HOSTS.iter().map(move |host| host.get().with_port(port));
    hosts.filter(|host| host.family != 0)
}

/// socket(2), with the options that the command line asks for.
pub fn socket(p: &Sockaddr) -> Option<Fd> {
    let fd = sys::socket(p.family).inspect_err(|&e| keep("socket", *p, e)).ok()?;
    if (p.family, p.v6) == (Sockaddr::ANY6.family, Sockaddr::ANY6.v6) {
        // IPv4 clients too, whatever the system's default is.
        setsockopt(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0);
    }
    if ReusePort.is_on() {
        setsockopt(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1);
    }
    Some(fd)
}

/// setsockopt(2), for an int. Like the C, it goes on without the option.
pub fn setsockopt(fd: Fd, level: i32, optname: i32, optval: u32) {
    let _ = sys::setsockopt(fd, level, optname, &[optval]);
}

/// bind(2); whether it succeeded.
pub fn bind(fd: Fd, addr: &Sockaddr) -> bool {
    sys::bind(fd, addr).inspect_err(|&e| keep("bind", *addr, e)).is_ok()
}

/// listen(2). A failure ends the program.
pub fn listen(fd: Fd, backlog: i32) {
    rustix::net::listen(fd, backlog).unwrap_or_else(|e| die("listen", e));
}

/// The first descriptor that is handed over.
const SD_LISTEN_FDS_START: i32 = 3;

/// The listening socket that systemd has opened for this process, if the
/// environment names one (sd_listen_fds(3)).
pub fn sd_listen_fds(env: Strings) -> Option<Fd> {
    let getenv = |name: &[u8]| {
        let mut values = env.filter_map(|variable| match split_once(variable, b'=') {
            (found, Some(value)) if found == name => number(value, i32::MAX as u32),
            _ => None,
        });
        values.next()
    };
    if getenv(b"LISTEN_PID")? != getpid().as_raw_pid() as u32 {
        return None;
    }
    if getenv(b"LISTEN_FDS")? != 1 {
        message().str("LISTEN_FDS is not 1").end();
        sys::_exit(1)
    }
    let listenfd = sys::fd(SD_LISTEN_FDS_START)?;
    // A socket that listens already gets the longest queue that the system
    // allows. A socket that cannot listen fails here.
    rustix::net::listen(listenfd, i32::MAX).unwrap_or_else(|e| die("LISTEN_FDS", e));
    // See `sys::socket`: it keeps the numbers of the standard streams in use.
    if let Ok(fd) = sys::socket(libc::AF_INET as u16) {
        sys::close(fd);
    }
    // accept must block.
    let _ = ioctl_fionbio(listenfd, false);
    Some(listenfd)
}

/// Does the last things before the first connection and writes the ready line.
pub fn ready(listenfd: Fd, service: Service) {
    let addr = sys::getsockname(listenfd).unwrap_or_else(|e| die("getsockname", e));
    idle::keep_alive(listenfd);
    end::LISTENFD.set(listenfd.as_raw_fd());
    sys::close_all_but(listenfd);
    tell_unserved();
    confine::confine();
    let service = match service {
        Service::Echo => "echo",
        Service::Rot13 => "rot13",
    };
    message().str(service).str(" listening on ").addr(&addr).end();
}
