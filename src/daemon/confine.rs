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
use rustix::thread::{set_no_new_privs, set_thread_groups};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};

/// Gives up what serving does not need.
pub fn confine() {
    if UID.get() != NOBODY {
        let (uid, gid) = (process::Uid::from_raw(UID.get()), process::Gid::from_raw(GID.get()));
        set_thread_groups(&[]).unwrap_or_else(|e| die("setgroups", e));
        set_thread_res_gid(gid, gid, gid).unwrap_or_else(|e| die("setresgid", e));
        set_thread_res_uid(uid, uid, uid).unwrap_or_else(|e| die("setresuid", e));
    }
    sys::dont_fork_beyond((&raw const TABLE).cast());
    if let Err(e) = set_no_new_privs(true).and_then(|()| sys::seccomp(&CODE)) {
        message().str("serving without seccomp: ").strerror(e.raw_os_error()).end();
    }
}

/// The calls after the start, whatever their arguments, the most frequent first.
const CALLS: &[c_long] = &[
    // A connection.
    SYS_recvfrom,
    SYS_write,
    SYS_rt_sigprocmask,
    SYS_accept,
    SYS_close,
    SYS_wait4,
    SYS_rt_sigreturn,
    SYS_exit_group,
    SYS_sigaltstack,
    // A message, a wait, a signal.
    SYS_clock_gettime,
    SYS_ppoll,
    SYS_pwritev2,
    SYS_getpid,
    // Not a call: the number that a debugger sets to cancel a call.
    -1,
];

/// The index of an argument, and the values that it may have. No values: it must
/// be above 0.
type Argument = (usize, &'static [i32]);

/// The calls with certain arguments only.
const RULES: &[(c_long, &[Argument])] = &[
    // To the peer only: there is no address.
    (SYS_sendto, &[(5, &[0])]),
    // No thread, no namespace.
    (SYS_clone, &[(0, &[SIGCHLD])]),
    // The end of a connection.
    (SYS_setsockopt, &[(1, &[SOL_SOCKET]), (2, &[SO_LINGER, SO_SNDBUF, SO_RCVTIMEO, SO_SNDTIMEO])]),
    (SYS_getsockopt, &[(1, &[IPPROTO_TCP]), (2, &[TCP_INFO])]),
    // The drain: one process at a time, never all.
    (SYS_kill, &[(0, &[]), (1, &[SIGTERM, SIGQUIT, SIGKILL, SIGCONT])]),
];

const FILTER: Filter = filter();
static CODE: [sock_filter; FILTER.len] = *FILTER.code.first_chunk().unwrap();

/// A program of the kernel's BPF.
struct Filter {
    code: [sock_filter; 128],
    len: usize,
}

const fn filter() -> Filter {
    let mut filter = Filter { code: [KILL; _], len: 0 };
    filter.argument(offset_of!(seccomp_data, arch), &[sys::AUDIT_ARCH as i32]);
    filter.push(load(offset_of!(seccomp_data, nr)));
    let mut left = CALLS.len();
    while left > 0 {
        // To the end of this list: there the call is allowed.
        let call = CALLS[CALLS.len() - left] as u32;
        filter.push(equal(call, left as u8 - 1, (left == 1) as u8));
        left -= 1;
    }
    filter.push(ALLOW);
    let mut i = 0;
    while i < RULES.len() {
        let start = filter.len;
        filter.len += 1;
        let (call, arguments) = RULES[i];
        let mut j = 0;
        while j < arguments.len() {
            let (index, values) = arguments[j];
            filter.argument(offset_of!(seccomp_data, args) + 8 * index, values);
            j += 1;
        }
        filter.push(ALLOW);
        filter.code[start] = equal(call as u32, 0, (filter.len - start - 1) as u8);
        i += 1;
    }
    filter.push(KILL);
    filter
}

impl Filter {
    const fn push(&mut self, op: sock_filter) {
        self.code[self.len] = op;
        self.len += 1;
    }

    /// Kills the process unless the word at `offset` has one of the values.
    const fn argument(&mut self, offset: usize, values: &[i32]) {
        self.push(load(offset));
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

/// One operation: `code`, its operand `k`, and how many operations to skip if a
/// comparison is true or false.
const fn op(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

/// Loads the word of `seccomp_data` at this offset.
const fn load(offset: usize) -> sock_filter {
    op(BPF_LD | BPF_W | BPF_ABS, offset as u32, 0, 0)
}

/// Compares the word with `k`.
const fn equal(k: u32, jt: u8, jf: u8) -> sock_filter {
    op(BPF_JMP | BPF_JEQ | BPF_K, k, jt, jf)
}

const KILL: sock_filter = op(BPF_RET, SECCOMP_RET_KILL_PROCESS, 0, 0);
const ALLOW: sock_filter = op(BPF_RET, SECCOMP_RET_ALLOW, 0, 0);
