//! Signals.

use super::arch::{self, syscall};
use super::start::KERNEL_STACK;
use core::ffi::{c_int, c_void};
use rustix::thread::Timespec;

/// The kernel's `struct sigaction`, which is not the C library's.
#[repr(C)]
struct Action {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

/// A handler, or `SIG_IGN`.
pub type Handler = Option<extern "C" fn(c_int)>;
pub const SIG_IGN: Handler = None;

/// signal(2), as the C library makes it: sigaction(2) with SA_RESTART. The
/// handler runs with all other signals blocked, on a stack of its own.
pub fn signal(signum: c_int, handler: Handler) {
    let handler = handler.map_or(libc::SIG_IGN, |handler| handler as usize);
    let flags = (libc::SA_RESTART | libc::SA_ONSTACK | arch::SA_RESTORER) as u64;
    let restorer = arch::restorer as *const () as usize;
    let action = Action { handler, flags, restorer, mask: !0 };
    // SAFETY: the kernel reads `action`, whose mask has the 8 bytes given last.
    unsafe {
        let size = size_of_val(&action.mask);
        syscall(libc::SYS_rt_sigaction, [signum as usize, &raw const action as usize, 0, size]);
    }
}

/// A set of signals, as the kernel has it.
#[derive(Clone, Copy)]
pub struct Sigset(u64);

impl Sigset {
    pub const fn of(signals: &[c_int]) -> Sigset {
        let (mut bits, mut i) = (0, 0);
        while i < signals.len() {
            bits |= 1 << (signals[i] - 1);
            i += 1;
        }
        Sigset(bits)
    }
}

/// Blocks these signals and no other (sigprocmask(2), SIG_SETMASK).
pub fn sigmask(blocked: Sigset) {
    let set = &raw const blocked.0 as usize;
    // SAFETY: the kernel reads `blocked`, whose size is given last.
    unsafe { syscall(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as usize, set, 0, 8]) };
}

/// Lets all signals in until one comes or `time` is over, and takes what has
/// passed from `time`; false when it is over (ppoll(2)).
pub fn pause(time: Option<&mut Timespec>) -> bool {
    let (time, none) = (time.map_or(0, |time| &raw mut *time as usize), 0u64);
    // SAFETY: the kernel reads no descriptor and the set, whose size is given
    // last. It writes the time that is left.
    let ready = unsafe { syscall(libc::SYS_ppoll, [0, 0, time, &raw const none as usize, 8]) };
    ready != 0
}

/// Bytes of the handlers' stack.
const STACK: usize = 64 * 1024;

/// Lets handlers run on the stack that the kernel made (sigaltstack(2)), or, if
/// `flags` is SS_DISABLE, on the program's stack. There the parent's handler
/// would write to a page that the newest child shares, which costs a page fault.
pub fn sigaltstack(flags: c_int) {
    let ss_sp = (KERNEL_STACK.get().wrapping_sub(STACK) & !15) as *mut c_void;
    let stack = libc::stack_t { ss_sp, ss_flags: flags, ss_size: STACK };
    // SAFETY: the kernel reads `stack`. The kernel's stack has 128 KiB at least,
    // and nobody else uses it below the arguments.
    unsafe { syscall(libc::SYS_sigaltstack, [&raw const stack as usize, 0]) };
}
