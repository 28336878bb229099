//! 64-bit Arm: the entry, the system call, the return from a signal handler,
//! and sixteen bytes at once.

use super::start::{MEMORY, STACK, start};
use core::arch::aarch64::*;
use core::arch::{asm, naked_asm};
use core::ffi::{c_int, c_long};
use core::mem::{MaybeUninit, transmute};

/// The kernel jumps here, with argc, argv and envp on its stack.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn _start() -> ! {
    naked_asm!(
        "mov x29, xzr",                   // the outermost frame (AAPCS64, 6.4.6)
        "mov x30, xzr",
        "mov x0, sp",                     // the first argument of `start`
        // The end of the program's own stack. The buffer begins there: the second
        // argument.
        "adrp x1, {memory} + {size}",
        "add x1, x1, :lo12:{memory} + {size}",
        "mov sp, x1",
        "b {start}",
        memory = sym MEMORY,
        size = const STACK,
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

/// The flag that says that `restorer` is given.
pub const SA_RESTORER: c_int = 0x0400_0000;

/// Where a handler returns to (sigreturn(2)).
#[unsafe(naked)]
pub unsafe extern "C" fn restorer() -> ! {
    naked_asm!("mov x8, {number}", "svc 0", number = const libc::SYS_rt_sigreturn)
}

/// Bits of `equal`'s result for each byte.
pub const BITS: u32 = 4;

/// Sets the bits of each byte of `block` that is `c`, the lowest for the first byte.
#[inline(always)]
pub fn equal(block: [u8; 16], c: u8) -> u64 {
    // SAFETY: every 64-bit Arm has NEON, and any 16 bytes are a vector.
    unsafe {
        let bytes = transmute::<[u8; 16], uint8x16_t>(block);
        let same = vreinterpretq_u16_u8(vceqq_u8(bytes, vdupq_n_u8(c)));
        // Four bits of each byte: NEON has no instruction that takes one.
        vget_lane_u64(vreinterpret_u64_u8(vshrn_n_u16(same, 4)), 0)
    }
}

/// Rotates the letters of `block` by 13. A letter's number in the alphabet is
/// below 26; other bytes' numbers, which are unsigned, are not.
#[inline(always)]
pub fn rot13_block(block: [u8; 16]) -> [u8; 16] {
    // SAFETY: every 64-bit Arm has NEON; any 16 bytes are a vector and the reverse.
    unsafe {
        let bytes = transmute::<[u8; 16], uint8x16_t>(block);
        let lower = vorrq_u8(bytes, vdupq_n_u8(0x20));
        let number = vsubq_u8(lower, vdupq_n_u8(b'a'));
        let below = |n: u8| vcltq_u8(number, vdupq_n_u8(n));
        // Every letter moves back by 13, one of the first half also on by 26.
        let back = vandq_u8(below(26), vdupq_n_u8(13));
        let on = vandq_u8(below(13), vdupq_n_u8(26));
        transmute::<uint8x16_t, [u8; 16]>(vaddq_u8(vsubq_u8(bytes, back), on))
    }
}
