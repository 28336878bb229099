//! Copying, searching and comparing.
//!
//! The compiler makes a copy a call of memcpy(3) or memmove(3) where it can.
//! Neither exists here, so a program that needs one does not link. `copy` and
//! `memmove` are volatile: the compiler leaves those alone.

use super::arch::{BITS, equal};
use core::mem::MaybeUninit;

/// Copies as much of `src` as `dest` holds, and returns how much.
pub fn copy(dest: &mut [MaybeUninit<u8>], src: &[u8]) -> usize {
    let n = dest.len().min(src.len());
    // SAFETY: both have `n` bytes, and a mutable slice overlaps no other.
    unsafe { forwards(dest.as_mut_ptr().cast(), src.as_ptr(), n) };
    n
}

/// Moves `n` bytes of `buf` from index `from` on to its beginning (memmove(3)).
pub fn memmove(buf: &mut [u8], from: usize, n: usize) {
    if buf.get(from..from.wrapping_add(n)).is_some() {
        let dest = buf.as_mut_ptr();
        // SAFETY: `buf` has `n` bytes from `from` on, which is not below 0.
        unsafe { forwards(dest, dest.add(from), n) };
    }
}

/// # Safety
///
/// Both places have `n` bytes; if they overlap, `dest` is the lower.
unsafe fn forwards(dest: *mut u8, src: *const u8, n: usize) {
    for i in 0..n {
        // SAFETY: the caller's; each byte is read before it is overwritten.
        unsafe { dest.add(i).write_volatile(src.add(i).read_volatile()) };
    }
}

/// The index of the first `c` (memchr(3)).
pub fn memchr(text: &[u8], c: u8) -> Option<usize> {
    let (blocks, rest) = text.as_chunks();
    for (i, block) in blocks.iter().enumerate() {
        let found = equal(*block, c);
        if found != 0 {
            return Some(16 * i + (found.trailing_zeros() / BITS) as usize);
        }
    }
    let at = rest.iter().position(|&b| b == c)?;
    Some(16 * blocks.len() + at)
}

/// The index of the last `c` (memrchr(3)).
pub fn memrchr(text: &[u8], c: u8) -> Option<usize> {
    let (rest, blocks) = text.as_rchunks();
    for (i, block) in blocks.iter().enumerate().rev() {
        let found = equal(*block, c);
        if found != 0 {
            return Some(rest.len() + 16 * i + (found.ilog2() / BITS) as usize);
        }
    }
    rest.iter().rposition(|&b| b == c)
}

/// Whether two texts differ (bcmp(3)). The compiler calls it.
///
/// # Safety
///
/// As in C: both places have `n` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    // SAFETY: the caller's. Volatile, or this would become a call of itself.
    let differ = |i| unsafe { a.add(i).read_volatile() != b.add(i).read_volatile() };
    (0..n).any(differ) as i32
}
