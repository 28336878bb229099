//! Two fork-per-connection servers of the C teaching texts in one program:
//! CS:APP's concurrent `echo` and the `rot13` server. Read this file beside
//! `tests/c/echo.c` and `tests/c/rot13.c`: it has their functions, in their
//! order and with their names.
//!
//! 1. Every line here has its line in the C, or a reason in
//!    `tests/compare/lines.txt`.
//! 2. `sys` is what the C gets from its C library. It imports nothing of the rest.
//! 3. `daemon` is what the C lacks: limits, messages, an orderly end. Its
//!    wrappers have the names of the calls, as CS:APP's `Accept` and `Fork` do,
//!    and deal with every error. It knows `sys` only.
//! 4. A connection costs the C's system calls and four of `daemon`'s, and no
//!    memory but the page that its child writes to.

#![no_std]
#![no_main]

mod daemon;
mod sys;

use daemon::{_exit, accept, bind, close, fork, getaddrinfo, listen, recv, send};
use daemon::{Service, catch_signals, error_, getopt, maxlen, ready, report};
use daemon::{sd_listen_fds, setsockopt, socket, waitpid};
use libc::{SIGCHLD, SIGPIPE, SO_REUSEADDR, SOL_SOCKET};
use sys::{BUFSIZ, Buf, Fd, SIG_IGN, Strings, memmove, memrchr, rot13_block, signal};

/// A longer line is echoed in pieces of `MAXN - 1` bytes: the C keeps one for its NUL.
const MAXN: usize = 1024;
/// What one `recv` can bring.
const RIO_BUFSIZE: usize = BUFSIZ;
/// Connections that may wait in the kernel to be accepted.
const LISTENQ: i32 = 1024;
/// A longer line is rotated in pieces of this many bytes.
const MAX_LINE: usize = 4096;
/// Where rot13 listens when no port is given.
const SERV_PORT: u16 = 50005;

/// CS:APP's buffered reader, `rio_t`. Where that returns one line, this one
/// returns every whole line that has arrived.
struct Rio<'a> {
    /// The descriptor that is read from.
    fd: Fd,
    /// Bytes that were read and not yet returned.
    cnt: usize,
    /// The index of the first of them.
    bufptr: usize,
    buf: &'a mut [u8; RIO_BUFSIZE],
}

/// Starts with an empty buffer.
fn rio_readinitb(fd: Fd, buf: &mut Buf) -> Rio<'_> {
    Rio { fd, cnt: 0, bufptr: 0, buf }
}

/// Receives more bytes behind the others. Returns their number, 0 at end of file.
#[inline(always)]
fn rio_read(rp: &mut Rio) -> usize {
    let n = recv(rp.fd, rp.buf.get_mut(rp.cnt..).unwrap_or_default());
    rp.cnt += n;
    n
}

/// Returns all whole lines that have arrived, and all pieces of `maxlen` bytes
/// of a longer line; at end of file also what is left, and then nothing. Blocks
/// until there is something to return.
///
/// On x86-64 it is inlined, with the system call: when Linux switches processes, it
/// clears the processor's return stack buffer, so the return of a function that has
/// waited is mispredicted. That costs 5 % of a line. On 64-bit Arm this is not
/// measured, and the file would be larger than 16 KiB.
#[cfg_attr(target_arch = "x86_64", inline(always))]
fn rio_readlines<'r>(rp: &'r mut Rio, maxlen: usize) -> Option<&'r mut [u8]> {
    memmove(rp.buf, rp.bufptr, rp.cnt);
    let n = loop {
        if rio_read(rp) == 0 {
            break rp.cnt;
        }
        let last = memrchr(rp.buf.get(..rp.cnt)?, b'\n').map_or(0, |newline| newline + 1);
        let whole = last + (rp.cnt - last) / maxlen * maxlen;
        if whole > 0 {
            break whole;
        }
    };
    rp.bufptr = n;
    rp.cnt -= n;
    rp.buf.get_mut(..n).filter(|lines| !lines.is_empty())
}

/// Sends all of `usrbuf`.
#[cfg_attr(target_arch = "x86_64", inline(always))]
fn rio_writen(fd: Fd, mut usrbuf: &[u8]) {
    while !usrbuf.is_empty() {
        let written = send(fd, usrbuf);
        usrbuf = usrbuf.get(written..).unwrap_or_default();
    }
}

/// The echo service: reports each line and sends it back.
fn echo(connfd: Fd, buf: &mut Buf) {
    let mut rio = rio_readinitb(connfd, buf);
    while let Some(lines) = rio_readlines(&mut rio, maxlen(MAXN - 1)) {
        report(lines, MAXN - 1);
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
fn child_run(fd: Fd, outbuf: &mut Buf) {
    let mut rio = rio_readinitb(fd, outbuf);
    while let Some(lines) = rio_readlines(&mut rio, maxlen(MAX_LINE)) {
        let (blocks, rest) = lines.as_chunks_mut();
        blocks.iter_mut().for_each(|block| *block = rot13_block(*block));
        rest.iter_mut().for_each(|ch| *ch = rot13_char(*ch));
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
fn main(args: Strings, env: Strings, buf: &mut Buf) -> ! {
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
        if fork(connfd) == 0 {
            close(listenfd);
            match service {
                Service::Echo => echo(connfd, buf),
                Service::Rot13 => child_run(connfd, buf),
            }
            close(connfd);
            _exit(0);
        }
        close(connfd);
    }
}
