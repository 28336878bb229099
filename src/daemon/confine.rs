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
    (SYS_setsockopt, &[(1, &[SOL_SOCKET]), (2, &[SO_LINGER, SO_RCVTIMEO, SO_SNDTIMEO])]),
    (SYS_getsockopt, &[(1, &[IPPROTO_TCP]), (2, &[TCP_INFO])]),
    (SYS_shutdown, &[(1, &[SHUT_RD])]),
    // Only SIGALRM, and no memory is written.
    (SYS_setitimer, &[(0, &[ITIMER_REAL]), (2, &[0])]),
    // The drain: one process at a time, never all.
    (SYS_kill, &[(0, &[]), (1, &[SIGTERM, SIGQUIT, SIGKILL, SIGCONT])]),
];

const FILTER: Filter = filter();
static CODE: [sock_filter; SIZE - FILTER.start] = *FILTER.code.last_chunk().unwrap();

/// The most operations that the filter may have. The last one allows a call, the one
/// before it kills the process.
const SIZE: usize = 128;
const ALLOW: usize = SIZE - 1;
const KILL: usize = SIZE - 2;

/// A program of the kernel's BPF. It is written from its end, since jumps lead forward.
struct Filter {
    code: [sock_filter; SIZE],
    start: usize,
}

const fn filter() -> Filter {
    let mut filter = Filter { code: [sock_filter { code: 0, jt: 0, jf: 0, k: 0 }; _], start: SIZE };
    filter.put(BPF_RET, SECCOMP_RET_ALLOW, 0, 0);
    filter.put(BPF_RET, SECCOMP_RET_KILL_PROCESS, 0, 0);
    let mut i = RULES.len();
    while i > 0 {
        i -= 1;
        let (call, arguments) = RULES[i];
        let (mut next, other) = (ALLOW, filter.start);
        let mut j = arguments.len();
        while j > 0 {
            j -= 1;
            filter.argument(arguments[j], next);
            next = filter.start;
        }
        filter.jump(BPF_JEQ, call as u32, next, other);
    }
    i = CALLS.len();
    while i > 0 {
        i -= 1;
        filter.jump(BPF_JEQ, CALLS[i] as u32, ALLOW, filter.start);
    }
    filter.load(offset_of!(seccomp_data, nr));
    filter.jump(BPF_JEQ, sys::AUDIT_ARCH, filter.start, KILL);
    filter.load(offset_of!(seccomp_data, arch));
    filter
}

impl Filter {
    /// Puts one operation before all others: `code`, its operand `k`, and how many
    /// operations to skip if a comparison is true or false.
    const fn put(&mut self, code: u32, k: u32, jt: usize, jf: usize) {
        self.start -= 1;
        self.code[self.start] = sock_filter { code: code as u16, jt: jt as u8, jf: jf as u8, k };
    }

    /// Loads the word of `seccomp_data` at this offset.
    const fn load(&mut self, offset: usize) {
        self.put(BPF_LD | BPF_W | BPF_ABS, offset as u32, 0, 0);
    }

    /// Compares the word with `k` and goes on there.
    const fn jump(&mut self, test: u32, k: u32, yes: usize, no: usize) {
        self.put(BPF_JMP | test | BPF_K, k, yes - self.start, no - self.start);
    }

    /// Goes to `next` if the argument has one of its values, and kills otherwise.
    const fn argument(&mut self, (index, values): Argument, next: usize) {
        let mut other = KILL;
        let mut i = values.len();
        while i > 0 {
            i -= 1;
            self.jump(BPF_JEQ, values[i] as u32, next, other);
            other = self.start;
        }
        if values.is_empty() {
            self.jump(BPF_JSET, 1 << 31, KILL, next); // the sign
            self.jump(BPF_JEQ, 0, KILL, self.start);
        }
        self.load(offset_of!(seccomp_data, args) + 8 * index);
    }
}
