//! 64-bit Arm: the entry, the system call and the return from a signal handler.

use super::start::{STACK, STACK_SIZE, start};
use core::arch::{asm, naked_asm};
use core::ffi::c_long;
use core::mem::MaybeUninit;

/// The kernel jumps here, with argc, argv and envp on its stack.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn _start() -> ! {
    naked_asm!(
        "mov x29, xzr",                   // the outermost frame (AAPCS64, 6.4.6)
        "mov x30, xzr",
        "mov x0, sp",                     // the first argument of `start`
        // The end of the program's own stack.
        "adrp x1, {stack} + {size}",
        "add x1, x1, :lo12:{stack} + {size}",
        "mov sp, x1",
        "b {start}",
        stack = sym STACK,
        size = const STACK_SIZE,
        start = sym start,
    )
}

/// The system call `number` with up to six arguments (syscall(2)).
///
/// # Safety
///
/// `args` has every argument that the kernel reads for this call. The registers of
/// the others may hold anything.
pub unsafe fn syscall<const N: usize>(number: c_long, args: [usize; N]) -> usize {
    let arg = |i: usize| args.get(i).map_or(MaybeUninit::uninit(), |&arg| MaybeUninit::new(arg));
    let result;
    // SAFETY: the caller's; the instruction itself changes x0 only.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") arg(0) => result,
            in("x1") arg(1),
            in("x2") arg(2),
            in("x3") arg(3),
            in("x4") arg(4),
            in("x5") arg(5),
            options(nostack, preserves_flags),
        );
    }
    result
}

/// seccomp(2)'s number for this architecture: 64 bits, little-endian, EM_AARCH64.
pub const AUDIT_ARCH: u32 = 0xc000_0000 | libc::EM_AARCH64 as u32;

/// Where a handler returns to (sigreturn(2)).
#[unsafe(naked)]
pub unsafe extern "C" fn restorer() -> ! {
    naked_asm!("mov x8, {number}", "svc 0", number = const libc::SYS_rt_sigreturn)
}
