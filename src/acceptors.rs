//! Several processes that accept, one for each processor: they share the port,
//! and the kernel gives each its own connections (socket(7), SO_REUSEPORT). The
//! main process watches them.

use crate::args::Options;
use crate::confine::op;
use crate::fault::{Fault, pause};
use crate::sys::{self, Fd, close, setsockopt};
use crate::{children, drain, idle, open_listenfd};
use core::net::IpAddr;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use libc::{
    BPF_A, BPF_ABS, BPF_ALU, BPF_K, BPF_LD, BPF_MISC, BPF_MOD, BPF_RET, BPF_RSH, BPF_TAX, BPF_W,
    BPF_X, BPF_XOR,
};
use libc::{SKF_AD_CPU, SKF_AD_OFF, SKF_NET_OFF};
use rustix::fd::{AsRawFd, RawFd};
use rustix::io::{Errno, Result};
use rustix::process::{
    Signal, getpid, getppid, kill_process, set_child_subreaper, set_parent_process_death_signal,
};

/// This process may use one processor only.
static PINNED: AtomicBool = AtomicBool::new(false);

/// Opens a listening socket for each acceptor, beside the first; one that was
/// handed over they share.
pub fn open(first: Fd, inherited: bool, port: u16, options: &Options) {
    if options.acceptors < 2 {
        return;
    }
    let processors = sys::processors();
    // Orphans come to us.
    let _ = set_child_subreaper(Some(getpid()));
    if !inherited {
        // The first was bound without it, so that no other server can have the port.
        let _ = setsockopt(first, libc::SOL_SOCKET, libc::SO_REUSEPORT, &[1]);
    }
    for (i, acceptor) in children::acceptors().iter().enumerate() {
        let listenfd = if i == 0 || inherited { first } else { another(options.host, port) };
        acceptor.listenfd.store(listenfd.as_raw_fd(), Relaxed);
    }
    // Each acceptor gets its own: the sources that it alone counts, or what its
    // processor has received. Otherwise the kernel spreads them by a hash.
    let by_source = options.max_per_source != u32::MAX;
    let word = match by_source {
        true => SKF_NET_OFF + 12,
        false if options.acceptors == processors && sys::are_the_first(processors) => {
            SKF_AD_OFF + SKF_AD_CPU
        }
        false => return,
    };
    let chosen = match inherited {
        // It may share its port with others, whose choice is not ours.
        true => Err(Errno::INVAL),
        false => choose_by(word as u32, first, options.acceptors),
    };
    if let Err(e) = chosen
        && by_source
    {
        Fault("-C counts in each acceptor", e).warn();
    }
}

fn another(host: Option<IpAddr>, port: u16) -> Fd {
    match open_listenfd(host, port, true) {
        Ok(listenfd) => {
            idle::find_dead_peers(listenfd);
            listenfd
        }
        Err((addr, fault)) => fault.die(Some(&addr)),
    }
}

/// Lets this word say which of the `n` acceptors has a connection: the processor
/// that received it, or its source, which is an IPv4 address or the second half
/// of an IPv6 network's 64 bits: they have the same place.
fn choose_by(word: u32, listenfd: Fd, n: u32) -> Result<()> {
    // Both halves of the word count; a processor has but one.
    let code = [
        op(BPF_LD | BPF_W | BPF_ABS, word, 0, 0),
        op(BPF_MISC | BPF_TAX, 0, 0, 0),
        op(BPF_ALU | BPF_RSH | BPF_K, 16, 0, 0),
        op(BPF_ALU | BPF_XOR | BPF_X, 0, 0, 0),
        op(BPF_ALU | BPF_MOD | BPF_K, n, 0, 0),
        op(BPF_RET | BPF_A, 0, 0, 0),
    ];
    let at = code.as_ptr() as u64;
    // A sock_fprog.
    let program = [code.len() as u32, 0, at as u32, (at >> 32) as u32];
    setsockopt(listenfd, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &program)
}

/// Returns in each acceptor, with its listening socket, or at once if there is
/// to be one only: the main process.
pub fn start(listenfd: Fd, options: &Options) -> Fd {
    if options.acceptors < 2 {
        return listenfd;
    }
    sys::block_signals(true);
    let mut again = false;
    while !drain::asked() {
        let (mut replaced, mut failed) = (false, false);
        for (i, acceptor) in children::acceptors().iter().enumerate() {
            if !acceptor.runs.load(Relaxed) {
                match sys::fork() {
                    Ok(None) => return serve(i, acceptor),
                    Ok(Some(pid)) => {
                        children::watch(pid, i);
                        replaced = again;
                    }
                    Err(e) => {
                        Fault("fork", e).warn();
                        failed = true;
                    }
                }
            }
        }
        if replaced || failed {
            // So that one that ends whatever we do costs little.
            pause();
        }
        if failed {
            // Not by an alarm: one that comes late would end the grace time.
            let _ = kill_process(getpid(), Signal::CHILD);
        }
        again = true;
        match sys::wait_for_signal() {
            libc::SIGCHLD => children::reap(0),
            signal => drain::ask(if signal == libc::SIGQUIT { 2 } else { 1 }),
        }
    }
    close_but(listenfd.as_raw_fd());
    drain::drain(options.grace, children::reap)
}

/// Begins this acceptor.
fn serve(i: usize, own: &'static children::Children) -> Fd {
    let main = drain::parent();
    // With the main process goes the port, but no conversation.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    if getppid().map_or(0, |pid| pid.as_raw_pid()) != main {
        sys::_exit(0);
    }
    drain::supervised();
    children::become_acceptor(own);
    sys::stay_on(i);
    PINNED.store(true, Relaxed);
    let Some(listenfd) = sys::fd(own.listenfd.load(Relaxed)) else { sys::_exit(1) };
    close_but(listenfd.as_raw_fd());
    drain::listening(listenfd);
    sys::block_signals(false);
    listenfd
}

/// Closes the listening sockets but this one.
fn close_but(own: RawFd) {
    for acceptor in children::acceptors() {
        let number = acceptor.listenfd.load(Relaxed);
        if number != own
            && let Some(listenfd) = sys::fd(number)
        {
            close(listenfd);
        }
    }
}

/// Lets a child that has served its first burst go where there is room.
pub fn let_go() {
    if PINNED.load(Relaxed) {
        PINNED.store(false, Relaxed);
        sys::run_anywhere();
    }
}
