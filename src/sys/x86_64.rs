//! x86-64: the entry, the system call, the way back from a signal, and many
//! bytes at once.

use crate::RIO_BUFSIZE;
use core::arch::x86_64::*;
use core::arch::{asm, naked_asm};
use core::ffi::{c_int, c_long};
use core::mem::transmute;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The kernel jumps here with argc, argv and the rest on the stack. The
/// connection's buffer is set aside below them: rustc would touch every page
/// of so large a local to see whether the stack overflows. It begins in the
/// page in which the frames below it end, so that a short line, its reader and
/// its child's stack are one page.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn _start() -> ! {
    naked_asm!(
        "xor ebp, ebp",            // no frame lies further out (ABI, 3.4.1)
        "mov rdi, rsp",            // argc is here: the first argument
        "lea rsi, [rsp - {size}]", // the buffer: the second
        "and rsi, -4096",
        "add rsi, -2048",          // half a page for the frames
        "mov rsp, rsi",
        "mov al, [rsp - 16384]",   // what the deepest of those need is ours from now on
        "call {start}",
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
    // SAFETY: the caller's; the instruction itself changes rcx and r11 only.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as usize => result,
            in("rdi") arg(0),
            in("rsi") arg(1),
            in("rdx") arg(2),
            in("r10") arg(3),
            in("r8") arg(4),
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack, preserves_flags),
        );
    }
    result
}

/// What seccomp(2) calls this architecture's calls: 64 bits, little-endian, EM_X86_64.
pub const AUDIT_ARCH: u32 = 0xc000_0000 | libc::EM_X86_64 as u32;

pub const SA_RESTORER: c_int = 0x0400_0000;

/// Where a handler returns to (sigreturn(2)): there is no other way on x86-64.
#[unsafe(naked)]
pub unsafe extern "C" fn restorer() -> ! {
    naked_asm!("mov eax, {number}", "syscall", number = const libc::SYS_rt_sigreturn)
}

/// A bit for each byte of `block` that is `c`, the lowest for the first.
#[inline(always)]
pub fn equal(block: [u8; 16], c: u8) -> u32 {
    // SAFETY: every x86-64 has SSE2, and any 16 bytes are a vector.
    unsafe {
        let bytes = transmute::<[u8; 16], __m128i>(block);
        _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(c as i8))) as u32
    }
}

/// Whether the processor has 32-byte vectors and the kernel keeps them (AVX2).
static AVX2: AtomicBool = AtomicBool::new(false);

/// Finds out what the processor can do (Intel's manual, volume 1, 14.7.1).
pub fn look_around() {
    const OSXSAVE: u32 = 1 << 27;
    const SSE_AND_AVX_STATE: u64 = 2 | 4;
    // SAFETY: OSXSAVE is whether there is xgetbv.
    let kept = || unsafe { _xgetbv(0) } & SSE_AND_AVX_STATE == SSE_AND_AVX_STATE;
    let has_avx2 = __cpuid(0).eax >= 7 && __cpuid_count(7, 0).ebx & 1 << 5 != 0;
    AVX2.store(has_avx2 && __cpuid(1).ecx & OSXSAVE != 0 && kept(), Relaxed);
}

/// rot13 of each byte.
pub fn rot13_blocks(blocks: &mut [[u8; 32]]) {
    if AVX2.load(Relaxed) {
        // SAFETY: as was found out.
        return unsafe { rot13_avx2(blocks) };
    }
    for block in blocks.as_flattened_mut().as_chunks_mut().0 {
        *block = rot13_sse2(*block);
    }
}

/// Letters, numbered from -128, are below -128 + 26, and the first half of
/// them below -128 + 13. Nothing else is.
#[inline(always)]
fn rot13_sse2(block: [u8; 16]) -> [u8; 16] {
    // SAFETY: every x86-64 has SSE2; any 16 bytes are a vector, and it is 16 bytes.
    unsafe {
        let bytes = transmute::<[u8; 16], __m128i>(block);
        let lower = _mm_or_si128(bytes, _mm_set1_epi8(0x20));
        let letter = _mm_sub_epi8(lower, _mm_set1_epi8(b'a'.wrapping_sub(128) as i8));
        let below = |n: i8| _mm_cmpgt_epi8(_mm_set1_epi8(-128 + n), letter);
        // 13 places back, and for the first half 26 on.
        let back = _mm_and_si128(below(26), _mm_set1_epi8(13));
        let on = _mm_and_si128(below(13), _mm_set1_epi8(26));
        transmute::<__m128i, [u8; 16]>(_mm_add_epi8(_mm_sub_epi8(bytes, back), on))
    }
}

/// The same, with twice as many bytes in a vector.
#[target_feature(enable = "avx2")]
fn rot13_avx2(blocks: &mut [[u8; 32]]) {
    for block in blocks {
        // SAFETY: any 32 bytes are a vector.
        let bytes = unsafe { transmute::<[u8; 32], __m256i>(*block) };
        let lower = _mm256_or_si256(bytes, _mm256_set1_epi8(0x20));
        let letter = _mm256_sub_epi8(lower, _mm256_set1_epi8(b'a'.wrapping_sub(128) as i8));
        let below = |n: i8| _mm256_cmpgt_epi8(_mm256_set1_epi8(-128 + n), letter);
        let back = _mm256_and_si256(below(26), _mm256_set1_epi8(13));
        let on = _mm256_and_si256(below(13), _mm256_set1_epi8(26));
        // SAFETY: a vector is 32 bytes.
        *block = unsafe {
            transmute::<__m256i, [u8; 32]>(_mm256_add_epi8(_mm256_sub_epi8(bytes, back), on))
        };
    }
}
