//! What the running server may still do. It becomes an unprivileged user, and
//! installs one seccomp filter, which every child inherits: it allows the calls
//! that the server makes and kills a process that makes another (seccomp(2)).

use super::children::TABLE;
use super::fault::die;
use super::options::{GID, NOBODY, UID};
use crate::sys::{self, message};
use core::ffi::c_long;
use core::mem::offset_of;
use libc::*;
use rustix::process;
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use rustix::thread::{set_no_new_privs, set_thread_groups};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};

/// Gives up what serving does not need.
pub fn confine() {
    if UID.get() != NOBODY {
        let (uid, gid) = (process::Uid::from_raw(UID.get()), process::Gid::from_raw(GID.get()));
        let none = CapabilitySet::empty();
        let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
        set_thread_groups(&[])
            .and_then(|()| set_thread_res_gid(gid, gid, gid))
            .and_then(|()| set_thread_res_uid(uid, uid, uid))
            // The change of user leaves them if the starter was not root (capabilities(7)).
            .and_then(|()| set_capabilities(None, none))
            .unwrap_or_else(|e| die("change of user", e));
    }
    if !sys::dont_fork_beyond((&raw const TABLE).cast()) {
        message("serving without MADV_DONTFORK").end();
    }
    if let Err(e) = set_no_new_privs(true).and_then(|()| sys::seccomp(&CODE)) {
        message("serving without seccomp: ").strerror(e.raw_os_error()).end();
    }
}

/// Half of an argument: twice the argument's index, and 1 more for the upper half. And
/// the values that it may have. No values: it must be above 0.
type Argument = (usize, &'static [i32]);

/// The calls after the start, with the arguments that are limited. DESIGN.md has the
/// reason for each. The kernel runs the filter to the end for a call with arguments only.
const RULES: &[(c_long, &[Argument])] = &[
    // A connection. There is no address: to the peer only.
    (SYS_sendto, &[(2 * 5, &[0])]),
    (SYS_recvfrom, &[]),
    (SYS_write, &[]),
    // No thread, no namespace.
    (SYS_clone, &[(0, &[SIGCHLD])]),
    (SYS_rt_sigprocmask, &[]),
    (SYS_accept, &[]),
    (SYS_close, &[]),
    (SYS_wait4, &[]),
    (SYS_rt_sigreturn, &[]),
    (SYS_exit_group, &[]),
    (SYS_sigaltstack, &[]),
    // A message, where the file's position is. A child could write over others.
    (SYS_pwritev2, &[(2 * 3, &[-1]), (2 * 3 + 1, &[-1]), (2 * 5, &[RWF_NOWAIT])]),
    // A wait, a signal.
    (SYS_clock_gettime, &[(0, &[CLOCK_MONOTONIC])]),
    (SYS_ppoll, &[]),
    (SYS_getpid, &[]),
    // The end of a connection.
    (
        SYS_setsockopt,
        &[(2, &[SOL_SOCKET]), (2 * 2, &[SO_LINGER, SO_SNDBUF, SO_RCVTIMEO, SO_SNDTIMEO])],
    ),
    (SYS_getsockopt, &[(2, &[IPPROTO_TCP]), (2 * 2, &[TCP_INFO])]),
    // SIGALRM only. The old value is not asked for.
    (SYS_setitimer, &[(0, &[ITIMER_REAL]), (2 * 2, &[0])]),
    // The drain: one process at a time, never all.
    (SYS_kill, &[(0, &[]), (2, &[SIGTERM, SIGQUIT, SIGKILL, SIGCONT])]),
    // Not a call: the number that a debugger sets to cancel a call.
    (-1, &[]),
];

const FILTER: Filter = filter();
static CODE: [sock_filter; LONGEST - FILTER.start] = *FILTER.code.last_chunk().unwrap();

/// Operations of a filter, at most: what a jump can skip.
const LONGEST: usize = 128;
/// Where it kills the process, and where it allows the call.
const KILL: usize = LONGEST - 2;
const ALLOW: usize = LONGEST - 1;

/// A program of the kernel's BPF. It grows from its end to `start`, so that each jump
/// knows how far it goes.
struct Filter {
    code: [sock_filter; LONGEST],
    start: usize,
}

const fn filter() -> Filter {
    let mut filter = Filter { code: [op(BPF_RET, SECCOMP_RET_ALLOW, 0, 0); _], start: KILL };
    filter.code[KILL] = op(BPF_RET, SECCOMP_RET_KILL_PROCESS, 0, 0);
    let mut i = RULES.len();
    while i > 0 {
        i -= 1;
        let (call, arguments) = RULES[i];
        let (next_rule, mut then) = (filter.start, ALLOW);
        let mut j = arguments.len();
        while j > 0 {
            j -= 1;
            let (half, values) = arguments[j];
            filter.argument(offset_of!(seccomp_data, args) + 4 * half, values, then);
            then = filter.start;
        }
        filter.jump(BPF_JEQ, call as u32, then, next_rule);
    }
    filter.load(offset_of!(seccomp_data, nr));
    let then = filter.start;
    filter.argument(offset_of!(seccomp_data, arch), &[sys::AUDIT_ARCH as i32], then);
    filter
}

impl Filter {
    const fn push(&mut self, op: sock_filter) {
        self.start -= 1;
        self.code[self.start] = op;
    }

    /// Goes on at `then` if the word at `offset` has one of the values.
    const fn argument(&mut self, offset: usize, values: &[i32], then: usize) {
        if values.is_empty() {
            self.jump(BPF_JEQ, 0, KILL, then);
            self.jump(BPF_JSET, 1 << 31, KILL, self.start); // the sign
        }
        let (mut left, mut otherwise) = (values.len(), KILL);
        while left > 0 {
            left -= 1;
            self.jump(BPF_JEQ, values[left] as u32, then, otherwise);
            otherwise = self.start;
        }
        self.load(offset);
    }

    /// Compares the word with `k`, and goes on at `yes` or `no`.
    const fn jump(&mut self, comparison: u32, k: u32, yes: usize, no: usize) {
        let (yes, no) = (yes - self.start, no - self.start);
        self.push(op(BPF_JMP | BPF_K | comparison, k, yes as u8, no as u8));
    }

    /// Loads the word of `seccomp_data` at this offset.
    const fn load(&mut self, offset: usize) {
        self.push(op(BPF_LD | BPF_W | BPF_ABS, offset as u32, 0, 0));
    }
}

/// One operation: `code`, its operand `k`, and how many operations to skip if a
/// comparison is true or false.
const fn op(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}
