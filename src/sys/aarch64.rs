//! 64-bit Arm: the entry, the system call, the way back from a signal, and
//! sixteen bytes at once.

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
        "sub x9, sp, #16384",
        "ldrb w9, [x9]",           // what the deepest of those need is ours from now on
        "b {start}",
        size = const RIO_BUFSIZE,
        start = sym super::start,
    )
}

/// The system call `number` with up to five arguments (syscall(2)).
///
/// # Safety
///
/// The arguments are what that call asks for.
pub unsafe fn syscall<const N: usize>(number: c_long, args: [usize; N]) -> usize {
    let arg = |i: usize| if i < N { args[i] } else { 0 };
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
            options(nostack, preserves_flags),
        );
    }
    result
}

/// What seccomp(2) calls this architecture's calls: 64 bits, little-endian, EM_AARCH64.
pub const AUDIT_ARCH: u32 = 0xc000_0000 | libc::EM_AARCH64 as u32;

/// The kernel knows the flag here too, and uses its own way back without it.
pub const SA_RESTORER: c_int = 0x0400_0000;

/// Where a handler returns to (sigreturn(2)).
#[unsafe(naked)]
pub unsafe extern "C" fn restorer() -> ! {
    naked_asm!("mov x8, {number}", "svc 0", number = const libc::SYS_rt_sigreturn)
}

/// A bit for each byte of `block` that is `c`, the lowest for the first.
pub fn equal(block: [u8; 16], c: u8) -> u32 {
    block.iter().rev().fold(0, |bits, &b| bits << 1 | u32::from(b == c))
}

/// There is one kind only.
pub fn look_around() {}

/// rot13 of each byte.
pub fn rot13_blocks(blocks: &mut [[u8; 32]]) {
    for byte in blocks.as_flattened_mut() {
        *byte = crate::rot13_char(*byte);
    }
}
