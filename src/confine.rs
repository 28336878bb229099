//! What the running server may still do: an unprivileged user, and one seccomp
//! filter, installed once and inherited by every child, that allows the calls
//! it makes and ends the process at any other (seccomp(2)).

use crate::fault::Fault;
use crate::sys;
use core::ffi::c_long;
use core::mem::offset_of;
use libc::{seccomp_data, sock_filter};
use rustix::thread::set_no_new_privs;

/// Drops the groups, the group and the user, all of them for good.
pub fn become_user((uid, gid): (u32, u32)) {
    if let Err((call, e)) = sys::set_ids(uid, gid) {
        Fault(call, e).die(None);
    }
}

/// Installs the filter, or says why it cannot and goes on.
pub fn confine() {
    const FILTER: Filter = filter();
    static CODE: [sock_filter; FILTER.len] = *FILTER.code.first_chunk().unwrap();
    if let Err(e) = set_no_new_privs(true).and_then(|()| sys::seccomp(&CODE)) {
        Fault("serving without seccomp", e).warn();
    }
}

/// Every call after start-up, in the order of how often.
const fn filter() -> Filter {
    let mut f = Filter { code: [RET_KILL; _], len: 0, call: 0, rule: 0 };
    f.begin();
    f.any_of(&[
        // One connection,
        libc::SYS_recvfrom,
        libc::SYS_sendto,
        libc::SYS_write,
        libc::SYS_accept,
        libc::SYS_close,
        libc::SYS_wait4,
        libc::SYS_rt_sigreturn,
        libc::SYS_exit_group,
        // faults,
        libc::SYS_clock_gettime,
        libc::SYS_nanosleep,
        libc::SYS_restart_syscall,
        // the drain,
        libc::SYS_getpid,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigtimedwait,
        libc::SYS_setitimer,
        // acceptors and who watches them,
        libc::SYS_getppid,
        libc::SYS_waitid,
        // and what a debugger makes of a call that it cancels: no call at all.
        -1,
    ]);
    // A fork: no thread, no namespace.
    f.call(libc::SYS_clone)
        .argument(0, &[libc::SIGCHLD, libc::SIGCHLD | libc::CLONE_PARENT_SETTID])
        .allow();
    // The wait for a place.
    f.call(libc::SYS_futex).argument(1, &[libc::FUTEX_WAIT, libc::FUTEX_WAKE]).allow();
    // An acceptor on its own processor, its child on any, and the end of both's parent.
    f.call(libc::SYS_sched_setaffinity).argument(0, &[0]).allow();
    f.call(libc::SYS_prctl).argument(0, &[libc::PR_SET_PDEATHSIG]).allow();
    // The idle limit and the reset.
    let options = [libc::SO_LINGER, libc::SO_RCVTIMEO, libc::SO_SNDTIMEO];
    f.call(libc::SYS_setsockopt).argument(1, &[libc::SOL_SOCKET]).argument(2, &options).allow();
    f.call(libc::SYS_ioctl).argument(1, &[libc::TIOCOUTQ as i32]).allow();
    f.call(libc::SYS_shutdown).argument(1, &[libc::SHUT_RD]).allow();
    // The drain: one process at a time, never all.
    f.call(libc::SYS_kill)
        .positive(0)
        .argument(1, &[libc::SIGTERM, libc::SIGQUIT, libc::SIGKILL, libc::SIGCONT, libc::SIGCHLD]);
    f.allow();
    f.push(RET_KILL);
    f
}

const RET_KILL: sock_filter = op(libc::BPF_RET, libc::SECCOMP_RET_KILL_PROCESS, 0, 0);
const RET_ALLOW: sock_filter = op(libc::BPF_RET, libc::SECCOMP_RET_ALLOW, 0, 0);

/// Loads the word of `seccomp_data` at this offset.
const fn load(offset: usize) -> sock_filter {
    op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset as u32, 0, 0)
}

/// Jumps over `yes` operations if the word is `k`, else over `no`.
const fn equal(k: u32, yes: u8, no: u8) -> sock_filter {
    op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k, yes, no)
}

/// One operation of a filter program, of the kernel's BPF.
pub const fn op(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

/// A filter in the making, by the compiler.
struct Filter {
    code: [sock_filter; 128],
    len: usize,
    /// The call in hand, and where its operations begin.
    call: u32,
    rule: usize,
}

impl Filter {
    const fn push(&mut self, op: sock_filter) {
        self.code[self.len] = op;
        self.len += 1;
    }

    const fn begin(&mut self) {
        self.push(load(offset_of!(seccomp_data, arch)));
        self.push(equal(sys::AUDIT_ARCH, 1, 0));
        self.push(RET_KILL);
        self.push(load(offset_of!(seccomp_data, nr)));
    }

    /// Allows these calls, whatever their arguments.
    const fn any_of(&mut self, calls: &[c_long]) {
        let mut left = calls.len();
        while left > 0 {
            let others = (left == 1) as u8;
            self.push(equal(calls[calls.len() - left] as u32, left as u8 - 1, others));
            left -= 1;
        }
        self.push(RET_ALLOW);
    }

    /// What is pushed from here to `allow` is for this call.
    const fn call(&mut self, number: c_long) -> &mut Filter {
        self.push(RET_KILL); // `allow` knows how far to jump
        self.call = number as u32;
        self.rule = self.len;
        self
    }

    /// Argument `index`, an int, must be one of these.
    const fn argument(&mut self, index: usize, allowed: &[i32]) -> &mut Filter {
        self.push(load(offset_of!(seccomp_data, args) + 8 * index));
        let mut left = allowed.len();
        while left > 0 {
            self.push(equal(allowed[allowed.len() - left] as u32, left as u8, 0));
            left -= 1;
        }
        self.push(RET_KILL);
        self
    }

    /// Argument `index`, an int, must be above 0.
    const fn positive(&mut self, index: usize) -> &mut Filter {
        self.push(load(offset_of!(seccomp_data, args) + 8 * index));
        self.push(equal(0, 1, 0));
        self.push(op(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 1 << 31, 0, 1));
        self.push(RET_KILL);
        self
    }

    const fn allow(&mut self) {
        self.push(RET_ALLOW);
        self.code[self.rule - 1] = equal(self.call, 0, (self.len - self.rule) as u8);
    }
}
