//! What the C lacks and a service needs to be left running. As in CS:APP, a
//! wrapper has the name of the call that it makes and deals with what can go
//! wrong, so that the server reads as if nothing could.

mod children;
mod confine;
mod connection;
mod end;
mod fault;
mod listen;
mod log;
mod notify;
mod options;
mod reap;

use crate::sys::{self, Fd, Strings, message};
use children::TABLE;
pub use connection::{_exit, close, recv, send};
pub use end::catch_signals;
pub use fault::error_;
pub use listen::{bind, getaddrinfo, listen, sd_listen_fds, setsockopt, socket};
use options::{QUIET, RAW};
pub use options::{Service, getopt};
pub use reap::waitpid;
use rustix::fd::AsRawFd;
use rustix::io::Errno;

/// Milliseconds between two attempts of accept(2) or fork(2) when the system lacks
/// something.
const RETRY: u32 = 100;
/// Milliseconds for a child to end whose client has left.
const MOMENT: u32 = 50;

/// Does the last things before the first connection, writes the ready line and
/// tells the service manager.
pub fn ready(listenfd: Fd, service: Service, env: Strings) {
    let addr = sys::getsockname(listenfd).unwrap_or_else(|e| fault::die("getsockname", e));
    end::LISTENFD.set(listenfd.as_raw_fd());
    sys::reopen_terminal();
    sys::close_all_but(listenfd);
    let manager = notify::connect(env);
    fault::log_unserved();
    confine::confine();
    let name = match service {
        Service::Echo => "echo",
        Service::Rot13 => "rot13",
    };
    message(name).str(" listening on ").addr(&addr).end();
    notify::ready(manager);
}

/// accept(2). It refuses a client whose source has as many children as it may have. It
/// waits while the server has as many as it may have, and for memory and descriptors.
/// After a stop signal it returns the connections that come at once, and then drains.
pub fn accept(listenfd: Fd) -> Fd {
    loop {
        let is_full = !children::has_place();
        if end::is_over(is_full) {
            end::drain(listenfd);
        }
        if is_full {
            // If the handler's wait for a child failed, no other SIGCHLD comes for it.
            if waitpid() == 0 {
                sys::pause(end::NOTHING, u32::MAX);
            }
            continue;
        }
        match end::unblocked(|| sys::accept(listenfd, &TABLE.client)) {
            Ok(connfd) if may_serve() => {
                connection::set(connfd);
                return connfd;
            }
            Ok(connfd) => {
                log::refused(children::client());
                sys::close(connfd);
            }
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(_) if end::is_stopping() => end::drain(listenfd),
            Err(e @ (Errno::BADF | Errno::INVAL | Errno::NOTSOCK)) => fault::die("accept", e),
            Err(e) => {
                log::failed(log::Kind::Accept, "accept", e, None);
                sys::pause(end::NOTHING, RETRY);
            }
        }
    }
}

/// Whether the client's source may have one more child. A client sees the end of its
/// connection before its child is gone, so this waits a moment for that; but not for each
/// of many clients that are refused.
fn may_serve() -> bool {
    let mut begin = 0;
    while !children::may_have_one_more() {
        let now = sys::milliseconds();
        begin = if begin == 0 { now } else { begin };
        if now - begin >= MOMENT.into() || !log::may_log(log::Kind::Refuse) {
            return false;
        }
        reap::reap_all(0);
        if !children::may_have_one_more() {
            sys::pause(end::NOTHING, MOMENT);
        }
    }
    true
}

/// fork(2): 0 in the child, which is ready to serve; -1 after a stop signal. It waits for
/// memory and for processes.
pub fn fork() -> i32 {
    loop {
        match sys::fork() {
            Ok(None) => {
                connection::begin(end::is_stopping());
                return 0;
            }
            Ok(Some(pid)) => {
                children::add(pid);
                log::accepted(pid, children::client());
                return pid.as_raw_pid();
            }
            Err(_) if end::is_stopping() => {
                connection::reset_at_close();
                return -1;
            }
            Err(e) => {
                log::failed(log::Kind::Fork, "fork", e, Some(children::client()));
                sys::pause(end::NOTHING, RETRY);
            }
        }
    }
}

/// Whether bytes are answered as they arrive, with `--raw`.
pub fn raw() -> bool {
    RAW.get()
}

/// printf(3): `server received N bytes` for each line, unless the server is quiet.
pub fn report(lines: &[u8]) {
    if !QUIET.get() {
        sys::report(lines);
    }
}
