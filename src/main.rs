//! Two fork-per-connection servers of the C teaching texts in one program:
//! CS:APP's concurrent `echo` and the `rot13` server. Read this file beside
//! `tests/c/echo.c` and `tests/c/rot13.c`: it has their functions, in their order and
//! with their names, but for these:
//!
//! - `Rio` is `rio_t`, as Rust writes the names of types.
//! - What both have is here once: `sigchld_handler` is also echo's `sighandler`, and
//!   `open_listenfd` is also rot13's `tcp_server_listen`.
//! - `report` is echo's `printf`.
//! - `sd_listen_fds`, `getopt`, `catch_signals`, `ready` and `raw` have no C line.
//!
//! 1. Every line here has its line in the C, or a reason in
//!    `tests/compare/lines.txt`.
//! 2. `sys` is what the C gets from its C library. It imports nothing of the rest.
//! 3. `daemon` is what the C lacks: limits, messages, an orderly end. Its
//!    wrappers have the names of the calls, as CS:APP's `Accept` and `Fork` do,
//!    and deal with every error. It knows `sys` only.
//! 4. A connection costs the C's system calls and four of `daemon`'s. A child's own
//!    memory is its stack: the buffer is there, as in the C.

#![no_std]
#![no_main]

mod daemon;
mod sys;

use daemon::{_exit, accept, bind, close, fork, getaddrinfo, listen, recv, send};
use daemon::{Service, catch_signals, error_, getopt, raw, ready, report};
use daemon::{sd_listen_fds, setsockopt, socket, waitpid};
use libc::{SIGCHLD, SIGPIPE, SO_REUSEADDR, SOL_SOCKET};
use sys::{Fd, SIG_IGN, Strings, memmove, signal};

/// A longer line is echoed in pieces of `MAXN - 1` bytes: the C keeps one for its NUL.
const MAXN: usize = 1024;
/// Connections that may wait in the kernel to be accepted.
const LISTENQ: i32 = 1024;
/// A longer line is rotated in pieces of this many bytes.
const MAX_LINE: usize = 4096;
/// Where rot13 listens when no port is given.
const SERV_PORT: u16 = 50005;

/// CS:APP's buffered reader. It reads into the caller's buffer and has none of its own.
struct Rio {
    /// The descriptor that is read from.
    fd: Fd,
    /// Bytes in the buffer that were not yet returned.
    cnt: usize,
    /// The index of the first of them.
    bufptr: usize,
}

/// Starts with no bytes.
fn rio_readinitb(fd: Fd) -> Rio {
    Rio { fd, cnt: 0, bufptr: 0 }
}

/// Receives more bytes behind the others. Returns their number, 0 at end of file.
#[inline(always)]
fn rio_read(rp: &mut Rio, usrbuf: &mut [u8]) -> usize {
    let n = recv(rp.fd, usrbuf.get_mut(rp.cnt..).unwrap_or_default());
    rp.cnt += n;
    n
}

/// Returns all whole lines that have arrived. A longer line comes in pieces. They are one
/// byte shorter than the buffer: the C keeps the last byte for its NUL. Returns what is
/// left at end of file, and then nothing. Blocks until there is something to return.
fn rio_readlineb<'b>(rp: &mut Rio, usrbuf: &'b mut [u8]) -> Option<&'b mut [u8]> {
    let (_, usrbuf) = usrbuf.split_last_mut()?;
    memmove(usrbuf, rp.bufptr, rp.cnt);
    let n = loop {
        if rio_read(rp, usrbuf) == 0 || raw() {
            break rp.cnt;
        }
        let newline = usrbuf.get(..rp.cnt)?.iter().rposition(|&c| c == b'\n');
        if let Some(newline) = newline {
            break newline + 1;
        }
        if rp.cnt == usrbuf.len() {
            break rp.cnt;
        }
    };
    rp.bufptr = n;
    rp.cnt -= n;
    usrbuf.get_mut(..n).filter(|lines| !lines.is_empty())
}

/// Sends all of `usrbuf`.
fn rio_writen(fd: Fd, mut usrbuf: &[u8]) {
    while !usrbuf.is_empty() {
        let written = send(fd, usrbuf);
        usrbuf = usrbuf.get(written..).unwrap_or_default();
    }
}

/// The echo service: reports each line and sends it back. It is not inlined: `main`
/// would have the buffers of both services on its stack, and a child more pages of it.
#[inline(never)]
fn echo(connfd: Fd) {
    let mut buf = [0; MAXN];
    let mut rio = rio_readinitb(connfd);
    while let Some(lines) = rio_readlineb(&mut rio, &mut buf) {
        report(lines);
        rio_writen(connfd, lines);
    }
}

/// Rotates an ASCII letter by 13; any other byte stays.
fn rot13_char(c: u8) -> u8 {
    match c {
        b'a'..=b'm' | b'A'..=b'M' => c + 13,
        b'n'..=b'z' | b'N'..=b'Z' => c - 13,
        _ => c,
    }
}

/// The rot13 service: sends each line back with its letters rotated.
#[inline(never)]
fn child_run(fd: Fd) {
    let mut outbuf = [0; MAX_LINE + 1];
    let mut rio = rio_readinitb(fd);
    while let Some(lines) = rio_readlineb(&mut rio, &mut outbuf) {
        lines.iter_mut().for_each(|ch| *ch = rot13_char(*ch));
        rio_writen(fd, lines);
    }
}

/// Reaps every child that has ended: signals do not queue.
extern "C" fn sigchld_handler(_sig: i32) {
    while waitpid() > 0 {}
}

/// Listens on the port at the first address that can be bound; nothing if there
/// is none.
fn open_listenfd(port: u16) -> Option<Fd> {
    let mut listp = getaddrinfo(port);
    let listenfd = loop {
        let p = listp.next()?;
        let Some(listenfd) = socket(&p) else {
            continue;
        };
        setsockopt(listenfd, SOL_SOCKET, SO_REUSEADDR, 1);
        if bind(listenfd, &p) {
            break listenfd;
        }
        close(listenfd);
    };
    listen(listenfd, LISTENQ);
    Some(listenfd)
}

/// Accepts for ever, a child for each connection.
#[unsafe(no_mangle)] // SAFETY: `sys` calls it by this name, with this signature
fn main(args: Strings, env: Strings) -> ! {
    let handed_over = sd_listen_fds(env);
    let (service, port) = getopt(args, handed_over.is_some());
    catch_signals();
    signal(SIGCHLD, Some(sigchld_handler));
    signal(SIGPIPE, SIG_IGN);
    let open = || open_listenfd(port.unwrap_or(SERV_PORT));
    let Some(listenfd) = handed_over.or_else(open) else {
        error_();
    };
    ready(listenfd, service, env);
    loop {
        let connfd = accept(listenfd);
        if fork() == 0 {
            close(listenfd);
            match service {
                Service::Echo => echo(connfd),
                Service::Rot13 => child_run(connfd),
            }
            close(connfd);
            _exit(0);
        }
        close(connfd);
    }
}
