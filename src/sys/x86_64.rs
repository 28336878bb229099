//! x86-64: the entry, the system call and the return from a signal handler.

use super::start::{STACK, STACK_SIZE, start};
use core::arch::{asm, naked_asm};
use core::ffi::c_long;
use core::mem::MaybeUninit;

/// The kernel jumps here, with argc, argv and envp on its stack.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn _start() -> ! {
    naked_asm!(
        "xor ebp, ebp",                       // the outermost frame (ABI, 3.4.1)
        "mov rdi, rsp",                       // the first argument of `start`
        "lea rsp, [rip + {stack} + {size}]", // the end of the program's own stack
        "call {start}",
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
    // SAFETY: the caller's; the instruction itself changes rax, rcx and r11 only.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as usize => result,
            in("rdi") arg(0),
            in("rsi") arg(1),
            in("rdx") arg(2),
            in("r10") arg(3),
            in("r8") arg(4),
            in("r9") arg(5),
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack, preserves_flags),
        );
    }
    result
}

/// seccomp(2)'s number for this architecture: 64 bits, little-endian, EM_X86_64.
pub const AUDIT_ARCH: u32 = 0xc000_0000 | libc::EM_X86_64 as u32;

/// Where a handler returns to (sigreturn(2)).
#[unsafe(naked)]
pub unsafe extern "C" fn restorer() -> ! {
    naked_asm!("mov eax, {number}", "syscall", number = const libc::SYS_rt_sigreturn)
}
