//! What the running server may still do. It becomes an unprivileged user, and
//! installs one seccomp filter, which every child inherits: it allows the calls
//! that the server makes and kills a process that makes another (seccomp(2)).

use super::children::TABLE;
use super::listen::die;
use super::options::OPTIONS;
use crate::sys::{self, message};
use core::ffi::c_long;
use core::mem::offset_of;
use libc::*;
use rustix::thread::set_no_new_privs;

/// Gives up what serving does not need.
pub fn confine() {
    if let Some((uid, gid)) = OPTIONS.user.get()
        && let Err((call, e)) = sys::set_ids(uid, gid)
    {
        die(call, e);
    }
    sys::dont_fork_beyond((&raw const TABLE).cast());
    if let Err(e) = set_no_new_privs(true).and_then(|()| sys::seccomp(&CODE)) {
        message(|line| _ = line.str("serving without seccomp: ").strerror(e));
    }
}

/// A system call, and for each argument that matters its index and the values
/// that it may have. No values: it must be above 0.
type Rule = (c_long, &'static [(usize, &'static [i32])]);

/// Every call after the start, the most frequent first.
const RULES: &[Rule] = &[
    // A connection.
    (SYS_recvfrom, &[]),
    (SYS_sendto, &[]),
    (SYS_write, &[]),
    (SYS_rt_sigprocmask, &[]),
    (SYS_accept, &[]),
    (SYS_close, &[]),
    (SYS_wait4, &[]),
    (SYS_rt_sigreturn, &[]),
    (SYS_exit_group, &[]),
    (SYS_sigaltstack, &[]),
    (SYS_clone, &[(0, &[SIGCHLD])]), // no thread, no namespace
    // A message, a wait, a signal.
    (SYS_clock_gettime, &[]),
    (SYS_ppoll, &[]),
    (SYS_restart_syscall, &[]),
    (SYS_getpid, &[]),
    // The end of a connection.
    (SYS_setsockopt, &[(1, &[SOL_SOCKET]), (2, &[SO_LINGER, SO_RCVTIMEO, SO_SNDTIMEO])]),
    (SYS_ioctl, &[(1, &[TIOCOUTQ as i32])]),
    (SYS_shutdown, &[(1, &[SHUT_RD])]),
    // The drain: one process at a time, never all.
    (SYS_kill, &[(0, &[]), (1, &[SIGTERM, SIGQUIT, SIGKILL, SIGCONT])]),
    // No call: a debugger that cancels a call makes this of it.
    (-1, &[]),
];

const FILTER: Filter = Filter::new(RULES);
static CODE: [sock_filter; FILTER.len] = *FILTER.code.first_chunk().unwrap();

/// A program of the kernel's BPF.
struct Filter {
    code: [sock_filter; 128],
    len: usize,
}

/// One operation: `code`, its operand `k`, and the operations to skip if a
/// comparison is true or false.
const fn op(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

/// Loads the word of `seccomp_data` at this offset.
const fn load(offset: usize) -> sock_filter {
    op(BPF_LD | BPF_W | BPF_ABS, offset as u32, 0, 0)
}

/// Goes on at the next operation if the word is `k`; skips `jf` operations if not.
const fn equal(k: u32, jt: u8, jf: u8) -> sock_filter {
    op(BPF_JMP | BPF_JEQ | BPF_K, k, jt, jf)
}

const KILL: sock_filter = op(BPF_RET, SECCOMP_RET_KILL_PROCESS, 0, 0);
const ALLOW: sock_filter = op(BPF_RET, SECCOMP_RET_ALLOW, 0, 0);

impl Filter {
    const fn new(rules: &[Rule]) -> Filter {
        let mut filter = Filter { code: [KILL; _], len: 0 };
        filter.push(load(offset_of!(seccomp_data, arch)));
        filter.push(equal(sys::AUDIT_ARCH, 1, 0));
        filter.push(KILL);
        filter.push(load(offset_of!(seccomp_data, nr)));
        let mut i = 0;
        while i < rules.len() {
            filter.rule(rules[i]);
            i += 1;
        }
        filter.push(KILL);
        filter
    }

    const fn push(&mut self, op: sock_filter) {
        self.code[self.len] = op;
        self.len += 1;
    }

    const fn rule(&mut self, (call, arguments): Rule) {
        let start = self.len;
        self.len += 1; // for the comparison with `call`
        let mut i = 0;
        while i < arguments.len() {
            self.argument(arguments[i].0, arguments[i].1);
            i += 1;
        }
        self.push(ALLOW);
        self.code[start] = equal(call as u32, 0, (self.len - start - 1) as u8);
    }

    /// Kills the process unless this argument, an int, has one of the values.
    const fn argument(&mut self, index: usize, values: &[i32]) {
        self.push(load(offset_of!(seccomp_data, args) + 8 * index));
        if values.is_empty() {
            self.push(equal(0, 1, 0));
            self.push(op(BPF_JMP | BPF_JSET | BPF_K, 1 << 31, 0, 1)); // the sign
        }
        let mut left = values.len();
        while left > 0 {
            self.push(equal(values[values.len() - left] as u32, left as u8, 0));
            left -= 1;
        }
        self.push(KILL);
    }
}
