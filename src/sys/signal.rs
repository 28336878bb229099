//! Signals.

use super::arch::{self, syscall};
use super::start::KERNEL_STACK;
use core::ffi::{c_int, c_void};
use rustix::thread::Timespec;

/// A handler, or `SIG_IGN`.
pub type Handler = Option<extern "C" fn(c_int)>;
pub const SIG_IGN: Handler = None;

/// The flag that says that `restorer` is given (linux/signal.h).
const SA_RESTORER: c_int = 0x0400_0000;

/// signal(2), as the C library makes it: sigaction(2) with SA_RESTART. The
/// handler runs with all other signals blocked, on a stack of its own. Returns
/// the handler before, as a number.
pub fn signal(signum: c_int, handler: Handler) -> usize {
    let handler = handler.map_or(libc::SIG_IGN, |handler| handler as usize);
    let flags = (libc::SA_RESTART | libc::SA_ONSTACK | SA_RESTORER) as usize;
    // The kernel's `struct sigaction`, which is not the C library's: handler,
    // flags, restorer, and the signals to block.
    let action = [handler, flags, arch::restorer as *const () as usize, !0];
    let mut old = [0; 4];
    let (new, old_at) = (&raw const action as usize, &raw mut old as usize);
    // SAFETY: the kernel reads `action` and writes `old`, whose last words are
    // sets of this size.
    unsafe { syscall(libc::SYS_rt_sigaction, [signum as usize, new, old_at, SIGSET]) };
    old[0]
}

/// Bytes of a set of signals.
const SIGSET: usize = 8;

/// The set of this signal alone: a bit.
pub const fn sigset(signal: c_int) -> u64 {
    1 << (signal - 1)
}

/// Blocks these signals and no other (sigprocmask(2), SIG_SETMASK).
pub fn sigmask(blocked: u64) {
    let args = [libc::SIG_SETMASK as usize, &raw const blocked as usize, 0, SIGSET];
    // SAFETY: the kernel reads `blocked`, whose size is given last.
    unsafe { syscall(libc::SYS_rt_sigprocmask, args) };
}

/// Waits with only these signals blocked until a signal comes, at most for so many
/// milliseconds (ppoll(2)).
pub fn pause(blocked: u64, milliseconds: u32) {
    let mut time = timespec(milliseconds);
    let (time_at, set) = (&raw mut time as usize, &raw const blocked as usize);
    // SAFETY: the kernel reads no descriptor and the set, whose size is given
    // last. It writes the time that is left.
    unsafe { syscall(libc::SYS_ppoll, [0, 0, time_at, set, SIGSET]) };
}

/// This time as the kernel has it.
pub fn timespec(milliseconds: u32) -> Timespec {
    let (tv_sec, tv_nsec) = (milliseconds / 1000, milliseconds % 1000 * 1_000_000);
    Timespec { tv_sec: tv_sec.into(), tv_nsec: tv_nsec.into() }
}

/// Sends SIGALRM once, after this time (setitimer(2)); whether that is so.
pub fn alarm(microseconds: u64) -> bool {
    // A `struct itimerval`: no interval; seconds and microseconds.
    let value = [0, 0, microseconds / 1_000_000, microseconds % 1_000_000];
    let args = [libc::ITIMER_REAL as usize, &raw const value as usize, 0];
    // SAFETY: the kernel reads `value`.
    unsafe { syscall(libc::SYS_setitimer, args) == 0 }
}

/// Bytes of the handlers' stack.
const STACK: usize = 64 * 1024;

/// From now on handlers run on the stack that the kernel made. The parent's do: on the
/// program's stack they would write to a page that the newest child shares, which costs
/// a page fault.
pub fn enable_sigaltstack() {
    sigaltstack(0);
}

/// From now on handlers run on the program's stack. A child's do: it has no other.
pub fn disable_sigaltstack() {
    sigaltstack(libc::SS_DISABLE);
}

/// sigaltstack(2), with the stack that the kernel made.
fn sigaltstack(ss_flags: c_int) {
    let ss_sp = (KERNEL_STACK.get().wrapping_sub(STACK) & !15) as *mut c_void;
    let stack = libc::stack_t { ss_sp, ss_flags, ss_size: STACK };
    // SAFETY: the kernel reads `stack`. Nobody else uses the kernel's stack below
    // the arguments. It has 128 KiB there, or what RLIMIT_STACK allows: a handler
    // that needs more is a fault.
    unsafe { syscall(libc::SYS_sigaltstack, [&raw const stack as usize, 0]) };
}
