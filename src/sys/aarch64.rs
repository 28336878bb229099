//! 64-bit Arm: the entry, the system call, fork, and the way back from a signal.

use crate::RIO_BUFSIZE;
use core::arch::{asm, naked_asm};
use core::ffi::{c_int, c_long};

/// As on x86-64: see there.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn _start() -> ! {
    naked_asm!(
        "mov x29, xzr",            // no frame lies further out (AAPCS64, 6.4.6)
        "mov x30, xzr",
        "mov x0, sp",              // argc is here: the first argument
        "sub x1, x0, {size}",      // the buffer: the second
        "and x1, x1, #-4096",
        "sub x1, x1, #2048",       // half a page for the frames
        "mov sp, x1",
        "b {start}",
        size = const RIO_BUFSIZE,
        start = sym super::start,
    )
}

/// The system call `number` with up to four arguments (syscall(2)).
///
/// # Safety
///
/// The arguments are what that call asks for.
pub unsafe fn syscall(number: c_long, a: usize, b: usize, c: usize, d: usize) -> usize {
    let result;
    // SAFETY: the caller's; the instruction itself changes x0 only.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a => result,
            in("x1") b,
            in("x2") c,
            in("x3") d,
            options(nostack, preserves_flags),
        );
    }
    result
}

/// There is no fork here: clone(2) without flags but the signal at the end.
///
/// # Safety
///
/// The process has one thread.
pub unsafe fn fork() -> usize {
    // SAFETY: the caller's; no stack, so the child goes on with a copy of ours.
    unsafe { syscall(libc::SYS_clone, libc::SIGCHLD as usize, 0, 0, 0) }
}

/// The kernel knows the flag here too, and uses its own way back without it.
pub const SA_RESTORER: c_int = 0x0400_0000;

/// Where a handler returns to (sigreturn(2)).
#[unsafe(naked)]
pub unsafe extern "C" fn restorer() -> ! {
    naked_asm!("mov x8, {number}", "svc 0", number = const libc::SYS_rt_sigreturn)
}
