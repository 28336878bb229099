//! Two fork-per-connection servers of the C teaching texts as one program:
//! CS:APP's concurrent `echo` and the `rot13` server. Read this file beside
//! `tests/c/echo.c` and `tests/c/rot13.c`; it has their order and their names.
//! What C gets from its library is in `sys`, the command line in `args`, the
//! text of messages in `line`.

#![no_std]
#![no_main]

mod acceptors;
mod activation;
mod addr;
mod args;
mod children;
mod confine;
mod drain;
mod fault;
mod idle;
mod line;
mod report;
mod rot13;
mod sys;

use args::{Options, Service};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use fault::Fault;
use line::message;
use report::report;
use rot13::rot13;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, bind, listen, recv, send};
use rustix::process::{Signal, WaitOptions, wait};
use sys::mem::{find_last, shift};
use sys::{Buf, Fd, Handler, Strings, close, setsockopt};

/// A longer line is echoed in pieces of `MAXN - 1` bytes: the C keeps one for its NUL.
const MAXN: usize = 1024;
/// A longer line is rotated in pieces of this many bytes.
const MAX_LINE: usize = 4096;
/// Where rot13 listens when no port is given.
const SERV_PORT: u16 = 50005;
/// Connections that may wait in the kernel to be accepted.
const LISTENQ: i32 = 1024;
/// Bytes of `Rio`'s buffer: what one `recv` can bring.
const RIO_BUFSIZE: usize = 128 * 1024;

/// CS:APP's buffered reader, `rio_t`. Where that returns one line, this
/// returns every whole line that has arrived.
struct Rio<'a> {
    fd: Fd,
    buf: &'a mut Buf,
    /// The bytes of `buf` that hold data.
    cnt: usize,
    /// Those of them that `rio_readlines` returned last.
    taken: usize,
}

/// `rio_readinitb`
fn rio_readinitb<'a>(fd: Fd, buf: &'a mut Buf) -> Rio<'a> {
    let (cnt, taken) = (0, 0);
    Rio { fd, buf, cnt, taken }
}

/// `rio_readlineb`, for bursts: blocks until there is a whole line, or
/// `maxlen` bytes of a longer one, or the end of file, and returns all lines
/// and pieces of `maxlen` bytes there are; nothing at end of file.
fn rio_readlines<'r>(rp: &'r mut Rio, maxlen: usize) -> Result<&'r mut [u8], Fault> {
    // The clamps never bite: they show the compiler what always holds.
    let mut cnt = rp.cnt.min(RIO_BUFSIZE);
    let taken = rp.taken.min(cnt);
    shift(&mut rp.buf[..cnt], taken);
    cnt -= taken;
    let whole = loop {
        let free = &mut rp.buf[cnt.min(RIO_BUFSIZE)..];
        let nread = match retry_on_intr(|| recv(rp.fd, &mut *free, RecvFlags::empty())) {
            Ok((nread, _)) => nread,
            Err(Errno::AGAIN) if idle::is_taking(rp.fd) => continue,
            Err(Errno::AGAIN) => idle::end_of_input(rp.fd),
            Err(e) => return Err(Fault("recv", e)),
        };
        cnt = (cnt + nread).min(RIO_BUFSIZE);
        let tail = find_last(&rp.buf[..cnt], b'\n').map_or(cnt, |newline| cnt - newline - 1);
        if rp.cnt > 0 && nread > 0 {
            acceptors::let_go();
        }
        if nread == 0 {
            break cnt;
        } else if cnt > tail % maxlen {
            break cnt - tail % maxlen;
        }
    };
    (rp.cnt, rp.taken) = (cnt, whole);
    Ok(&mut rp.buf[..whole])
}

/// `rio_writen`: returns when everything is sent.
fn rio_writen(fd: Fd, mut usrbuf: &[u8]) -> Result<(), Fault> {
    while !usrbuf.is_empty() {
        let nwritten = match retry_on_intr(|| send(fd, usrbuf, SendFlags::empty())) {
            Err(Errno::AGAIN) if idle::is_taking(fd) => 0,
            sent => sent.map_err(|e| Fault("send", e))?,
        };
        usrbuf = usrbuf.get(nwritten..).unwrap_or_default();
    }
    Ok(())
}

/// The echo service: report each line, send it back.
fn echo(connfd: Fd, buf: &mut Buf, quiet: bool) -> Result<(), Fault> {
    let mut rio = rio_readinitb(connfd, buf);
    loop {
        let lines = rio_readlines(&mut rio, MAXN - 1)?;
        if lines.is_empty() {
            return Ok(());
        }
        if !quiet {
            report(lines);
        }
        rio_writen(connfd, lines)?;
    }
}

/// The letter 13 places on; any other byte as it is.
fn rot13_char(c: u8) -> u8 {
    match c {
        b'a'..=b'm' | b'A'..=b'M' => c + 13,
        b'n'..=b'z' | b'N'..=b'Z' => c - 13,
        _ => c,
    }
}

/// The rot13 service.
fn child_run(fd: Fd, outbuf: &mut Buf) -> Result<(), Fault> {
    let mut rio = rio_readinitb(fd, outbuf);
    loop {
        let lines = rio_readlines(&mut rio, MAX_LINE)?;
        if lines.is_empty() {
            return Ok(());
        }
        rot13(lines);
        rio_writen(fd, lines)?;
    }
}

/// Reaps every child that has ended: one signal may stand for many.
extern "C" fn sigchld_handler(_sig: i32) {
    while children::room()
        && let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG)
    {
        children::ended(pid, status);
    }
}

/// A listening socket, bound to `host`, or without one to every address of
/// both families, or of IPv4 where there is no IPv6; the first on its port, or
/// `another` beside it.
fn open_listenfd(
    host: Option<IpAddr>,
    port: u16,
    another: bool,
) -> Result<Fd, (SocketAddr, Fault)> {
    let any = [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
    let candidates = host.as_ref().map_or(&any[..], core::slice::from_ref);
    let mut failed = (SocketAddr::new(any[0], port), Fault("socket", Errno::AFNOSUPPORT));
    for &host in candidates {
        let addr = SocketAddr::new(host, port);
        match bound_socket(&addr, another) {
            Ok(listenfd) => {
                listen(listenfd, LISTENQ).map_err(|e| (addr, Fault("listen", e)))?;
                return Ok(listenfd);
            }
            // The first failure is the one that matters, unless the machine lacks that family.
            Err(fault) if failed.1.1 == Errno::AFNOSUPPORT => failed = (addr, fault),
            Err(_) => {}
        }
    }
    Err(failed)
}

/// One candidate of `open_listenfd`.
fn bound_socket(addr: &SocketAddr, another: bool) -> Result<Fd, Fault> {
    let family = if addr.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
    let fd = sys::socket(family).map_err(|e| Fault("socket", e))?;
    // Bind again at once after a restart, though old connections are in TIME_WAIT.
    let _ = setsockopt(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &[1]);
    if another {
        let _ = setsockopt(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, &[1]);
    }
    if addr.ip() == Ipv6Addr::UNSPECIFIED {
        // Whatever the system's default: IPv4 clients too.
        let _ = setsockopt(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &[0]);
    }
    bind(fd, addr).inspect_err(|_| close(fd)).map_err(|e| Fault("bind", e))?;
    Ok(fd)
}

fn main(args: Strings, env: Strings, buf: &mut Buf) -> ! {
    fault::start();
    drain::on_signals();
    let inherited = activation::socket(env);
    let options = args::parse(args, inherited.is_some());
    children::limit(&options);
    sys::signal(Signal::CHILD, Handler::Call(sigchld_handler));
    sys::signal(Signal::PIPE, Handler::Ignore);
    let listenfd =
        match inherited.map_or_else(|| open_listenfd(options.host, options.port, false), Ok) {
            Ok(listenfd) => listenfd,
            Err((addr, fault)) => fault.die(Some(&addr)),
        };
    let listenfd = start(listenfd, inherited.is_some(), &options);
    loop {
        children::wait_for_place();
        let Some((connfd, client)) = fault::accept(listenfd) else {
            drain::drain(options.grace, sigchld_handler);
        };
        if let Some(n) = children::admit(&client) {
            drain::connected(connfd);
            match sys::fork() {
                Ok(None) => {
                    close(listenfd);
                    children::tell_start(&client, n);
                    idle::limit(connfd, options.idle);
                    let served = match options.service {
                        Service::Echo => echo(connfd, buf, options.quiet),
                        Service::Rot13 => child_run(connfd, buf),
                    };
                    if let Err(fault) = served {
                        fault.end(connfd);
                    }
                    close(connfd);
                    sys::_exit(0);
                }
                Ok(Some(pid)) => children::forked(pid, &client),
                Err(e) => children::not_forked(&client, e),
            }
        }
        close(connfd);
    }
}

/// What C has no counterpart of: the limits, and the line that tells people,
/// scripts and tests that, and where, the server is ready.
fn start(listenfd: Fd, inherited: bool, options: &Options) -> Fd {
    let name = match options.service {
        Service::Echo => "echo",
        Service::Rot13 => "rot13",
    };
    let addr = match sys::getsockname(listenfd) {
        Ok(addr) => addr,
        Err(e) => Fault("getsockname", e).die(None),
    };
    idle::find_dead_peers(listenfd);
    drain::listening(listenfd);
    acceptors::open(listenfd, inherited, addr.port(), options);
    if let Some(ids) = options.user {
        confine::become_user(ids);
    }
    confine::confine();
    message(|line| _ = line.str(name).str(" listening on ").addr(&addr));
    acceptors::start(listenfd, options)
}
