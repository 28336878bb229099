//! What the C lacks and a service needs to be left running. As in CS:APP, a
//! wrapper has the name of the call that it makes and deals with what can go
//! wrong, so that the server reads as if nothing could.

mod children;
mod confine;
mod end;
mod fault;
mod idle;
mod listen;
mod log;
mod notify;
mod options;

use crate::sys::{self, Fd, Sockaddr};
use children::TABLE;
pub use end::{catch_signals, waitpid};
pub use fault::error_;
use idle::has_taken;
pub use listen::{bind, getaddrinfo, listen, ready, sd_listen_fds, setsockopt, socket};
use options::Setting::{MaxChildren, Quiet, Raw};
pub use options::{Service, getopt};
use rustix::fd::AsRawFd;
use rustix::io::Errno;
use rustix::thread::Timespec;

/// Time between two attempts of accept(2) when the system lacks something.
const RETRY: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// accept(2). It refuses a client whose source has as many children as it may have. It
/// waits while the server has as many as it may have, and for memory and descriptors.
/// After a stop signal it drains and does not return. If a connection was just being
/// accepted when the signal came, it returns that one first.
pub fn accept(listenfd: Fd) -> Fd {
    loop {
        while children::count() >= MaxChildren.get() as usize && !end::is_stopping() {
            // If the handler's wait for a child failed, no other SIGCHLD comes for it.
            if waitpid() == 0 {
                sys::pause(end::ALL_IN, None);
            }
        }
        match end::with_signals(|| sys::accept(listenfd, &TABLE.client)) {
            Ok(connfd) if children::may_have_one_more() => return connfd,
            Ok(connfd) => {
                log::refused(&TABLE.client.get());
                sys::close(connfd);
            }
            Err(_) if end::is_stopping() => end::drain(),
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(e @ (Errno::BADF | Errno::INVAL | Errno::NOTSOCK)) => fault::die("accept", e),
            Err(e) => {
                log::failed(log::Kind::Accept, "accept", e, &Sockaddr::NONE);
                sys::pause(end::ALL_IN, Some(&mut { RETRY }));
            }
        }
    }
}

/// fork(2): 0 in the child, -1 if it failed. The child is ready to serve.
pub fn fork(connfd: Fd) -> i32 {
    end::connected(connfd);
    match sys::fork() {
        Ok(None) => {
            end::in_child();
            idle::limit(connfd);
            0
        }
        Ok(Some(pid)) => {
            children::add(pid);
            log::accepted(pid, &TABLE.client.get());
            pid.as_raw_pid()
        }
        Err(e) => {
            log::failed(log::Kind::Fork, "fork", e, &TABLE.client.get());
            -1
        }
    }
}

/// recv(2): the number of bytes, 0 at the end of file. An error ends the child.
/// The idle limit acts as an end of file.
#[inline(always)]
pub fn recv(fd: Fd, buf: &mut [u8]) -> usize {
    loop {
        match sys::recv(fd, buf) {
            Ok(n) => return n,
            Err(e) if has_taken_all(fd, e) => {
                end::stop_reading(fd, e);
                return 0;
            }
            Err(_) => {}
        }
    }
}

/// send(2): the number of bytes, 0 if it is to be called again. An error ends the
/// child.
#[inline(always)]
pub fn send(fd: Fd, buf: &[u8]) -> usize {
    match sys::send(fd, buf) {
        // A signal or the idle limit ended the call, and no errno tells which. From now
        // on has_taken compares with what the client has taken so far.
        Ok(n) if n < buf.len() => {
            has_taken(fd);
            n
        }
        Ok(n) => n,
        // The client has taken everything, and no byte counts as taken: TCP_INFO is
        // missing, and nothing shows whether the client takes anything.
        Err(e) if has_taken_all(fd, e) && sys::acknowledged(fd).0 == 0 => end::reset(fd, e),
        Err(_) => 0,
    }
}

/// After an error of recv or send. True: the idle limit is over, and the client has
/// taken everything. False: the call is to be made again, after a signal or because
/// the client takes its answers. In any other case the child ends here.
fn has_taken_all(fd: Fd, e: Errno) -> bool {
    match e {
        Errno::INTR => false,
        Errno::AGAIN => match has_taken(fd) {
            None => true,
            Some(true) => false,
            Some(false) => end::reset(fd, e),
        },
        _ => end::reset(fd, e),
    }
}

/// The longest line that the reader waits for: `lines`, or a single byte with `--raw`.
pub fn maxlen(lines: usize) -> usize {
    if Raw.get() > 0 { 1 } else { lines }
}

/// printf(3) for a burst of lines: `server received N bytes` for each, unless
/// the server is quiet.
pub fn report(lines: &[u8], maxlen: usize) {
    if Quiet.get() == 0 {
        sys::report(lines, maxlen);
    }
}

/// close(2). A connection whose input was ended here is not closed before the
/// client has taken everything.
pub fn close(fd: Fd) {
    // Not the listening socket: its end would be that of the whole server.
    if end::REASON.get() != 0 && fd.as_raw_fd() != end::LISTENFD.get() {
        end::linger(fd);
    }
    sys::close(fd);
}

/// _exit(2) of a child that has answered everything.
pub fn _exit(_status: i32) -> ! {
    sys::_exit(end::REASON.get())
}
