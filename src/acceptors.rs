//! Several processes that accept, one for each processor: they share the port,
//! and the kernel gives each its own connections (socket(7), SO_REUSEPORT). The
//! main process watches them.

use crate::args::Options;
use crate::fault::{Fault, pause};
use crate::sys::{self, Fd, close, setsockopt};
use crate::{LISTENQ, bound_socket, children, drain, idle};
use core::net::SocketAddr;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use libc::{BPF_ABS, BPF_ALU, BPF_K, BPF_LD, sock_filter};
use rustix::fd::AsRawFd;
use rustix::net::listen;
use rustix::process::{Signal, getppid, set_child_subreaper, set_parent_process_death_signal};

/// This process may use one processor only.
static PINNED: AtomicBool = AtomicBool::new(false);

/// Opens a listening socket for each acceptor, beside the first; one that was
/// handed over they share.
pub fn open(first: Fd, inherited: bool, addr: &SocketAddr, options: &Options) {
    let n = options.acceptors as usize;
    if n < 2 {
        return;
    }
    // Orphans come to us.
    let _ = set_child_subreaper(Some(rustix::process::getpid()));
    // The first was bound without it, so that no other server has this port.
    let _ = setsockopt(first, libc::SOL_SOCKET, libc::SO_REUSEPORT, &[!inherited as u32]);
    let addr = SocketAddr::new(options.host.unwrap_or(addr.ip()), addr.port());
    let processors = sys::processors().count().max(1);
    for (i, acceptor) in children::acceptors() {
        let listenfd = if i == 0 || inherited { first } else { another(&addr) };
        acceptor.listenfd.store(listenfd.as_raw_fd(), Relaxed);
        acceptor.processor.store(sys::processors().nth(i % processors).unwrap_or(0), Relaxed);
    }
    if options.max_per_source != u32::MAX
        && let Err(e) = choose_by_source(first, options.acceptors)
    {
        Fault("each acceptor counts its sources alone", e).warn();
    }
}

fn another(addr: &SocketAddr) -> Fd {
    let listenfd = match bound_socket(addr, true) {
        Ok(listenfd) => listenfd,
        Err(fault) => fault.die(Some(addr)),
    };
    if let Err(e) = listen(listenfd, LISTENQ) {
        Fault("listen", e).die(Some(addr));
    }
    idle::find_dead_peers(listenfd);
    listenfd
}

/// Lets the source alone say which of the `n` acceptors has a connection, so
/// that this one can count all of them.
fn choose_by_source(listenfd: Fd, n: u32) -> rustix::io::Result<()> {
    const NET: u32 = libc::SKF_NET_OFF as u32;
    let op = |code: u32, k| sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let load = |at| op(BPF_LD | libc::BPF_W | BPF_ABS, NET + at);
    let code = [
        // The version stands in the first four bits (RFC 791, RFC 8200).
        op(BPF_LD | libc::BPF_B | BPF_ABS, NET),
        sock_filter { jt: 2, ..op(libc::BPF_JMP | libc::BPF_JGE, 0x60) },
        load(12),
        op(libc::BPF_JMP | libc::BPF_JA, 4),
        load(8),
        op(libc::BPF_MISC | libc::BPF_TAX, 0),
        load(12),
        op(BPF_ALU | libc::BPF_XOR | libc::BPF_X, 0),
        // Some mixing.
        op(BPF_ALU | libc::BPF_MUL | BPF_K, 0x9e37_79b1),
        op(BPF_ALU | libc::BPF_RSH | BPF_K, 16),
        op(BPF_ALU | libc::BPF_MOD | BPF_K, n),
        op(libc::BPF_RET | libc::BPF_A, 0),
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
        let mut replaced = false;
        for (i, acceptor) in children::acceptors() {
            if !acceptor.runs.load(Relaxed) {
                match sys::fork() {
                    Ok(None) => return serve(acceptor),
                    Ok(Some(pid)) => {
                        children::watch(pid, i);
                        replaced = again;
                    }
                    Err(e) => {
                        Fault("fork", e).warn();
                        sys::alarm(1);
                    }
                }
            }
        }
        if replaced {
            // So that one that ends whatever we do costs little.
            pause();
        }
        again = true;
        match sys::wait_for_signal() {
            libc::SIGCHLD => children::reap(0),
            libc::SIGALRM => {}
            libc::SIGQUIT => drain::ask(2),
            _ => drain::ask(1),
        }
    }
    for (_, acceptor) in children::acceptors() {
        sys::fd(acceptor.listenfd.load(Relaxed)).map(close);
    }
    drain::drain(options.grace, children::reap)
}

/// Begins this acceptor.
fn serve(own: &'static children::Children) -> Fd {
    let main = drain::parent();
    // With the main process goes the port, but no conversation.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    if getppid().map_or(0, |pid| pid.as_raw_pid()) != main {
        sys::_exit(0);
    }
    drain::supervised();
    children::become_acceptor(own);
    sys::stay_on(own.processor.load(Relaxed));
    PINNED.store(true, Relaxed);
    let own = own.listenfd.load(Relaxed);
    for (_, acceptor) in children::acceptors() {
        let other = acceptor.listenfd.load(Relaxed);
        if other != own {
            sys::fd(other).map(close);
        }
    }
    let listenfd = match sys::fd(own) {
        Some(listenfd) => listenfd,
        None => sys::_exit(1),
    };
    drain::listening(listenfd);
    sys::block_signals(false);
    listenfd
}

/// Lets a child that has served its first burst go where there is room.
pub fn let_go() {
    if PINNED.load(Relaxed) {
        PINNED.store(false, Relaxed);
        sys::run_anywhere();
    }
}
