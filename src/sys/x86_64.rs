//! x86-64: the entry, the system call, the return from a signal handler, and
//! sixteen bytes at once.

use super::start::{MEMORY, STACK, start};
use core::arch::x86_64::*;
use core::arch::{asm, naked_asm};
use core::ffi::{c_int, c_long};
use core::mem::{MaybeUninit, transmute};

/// The kernel jumps here, with argc, argv and envp on its stack.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn _start() -> ! {
    naked_asm!(
        "xor ebp, ebp",                       // the outermost frame (ABI, 3.4.1)
        "mov rdi, rsp",                       // the first argument of `start`
        "lea rsp, [rip + {memory} + {size}]", // the end of the program's own stack
        "mov rsi, rsp",                       // the buffer begins there: the second argument
        "call {start}",
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

/// The flag that says that `restorer` is given.
pub const SA_RESTORER: c_int = 0x0400_0000;

/// Where a handler returns to (sigreturn(2)).
#[unsafe(naked)]
pub unsafe extern "C" fn restorer() -> ! {
    naked_asm!("mov eax, {number}", "syscall", number = const libc::SYS_rt_sigreturn)
}

/// Bits of `equal`'s result for each byte.
pub const BITS: u32 = 1;

/// Sets the bits of each byte of `block` that is `c`, the lowest for the first byte.
#[inline(always)]
pub fn equal(block: [u8; 16], c: u8) -> u64 {
    // SAFETY: every x86-64 has SSE2, and any 16 bytes are a vector.
    unsafe {
        let bytes = transmute::<[u8; 16], __m128i>(block);
        _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(c as i8))) as u64
    }
}

/// Rotates the letters of `block` by 13. A letter's number in the alphabet,
/// counted from -128 in a signed byte, is below -128 + 26; other bytes' are not.
#[inline(always)]
pub fn rot13_block(block: [u8; 16]) -> [u8; 16] {
    // SAFETY: every x86-64 has SSE2; any 16 bytes are a vector and the reverse.
    unsafe {
        let bytes = transmute::<[u8; 16], __m128i>(block);
        let lower = _mm_or_si128(bytes, _mm_set1_epi8(0x20));
        let number = _mm_sub_epi8(lower, _mm_set1_epi8(b'a'.wrapping_sub(128) as i8));
        let below = |n: i8| _mm_cmpgt_epi8(_mm_set1_epi8(-128 + n), number);
        // Every letter moves back by 13, one of the first half also on by 26.
        let back = _mm_and_si128(below(26), _mm_set1_epi8(13));
        let on = _mm_and_si128(below(13), _mm_set1_epi8(26));
        transmute::<__m128i, [u8; 16]>(_mm_add_epi8(_mm_sub_epi8(bytes, back), on))
    }
}
