//! Copying, and the memory functions that the compiler calls (memcpy(3),
//! memmove(3), memset(3), memcmp(3), bcmp(3)). It calls them through a table
//! of addresses, which would need relocations: a debug build may, a release
//! build that does fails to link, so its code copies with `copy` and `shift`.
//!
//! Copies are volatile, or the compiler would see what a loop does and call the
//! function that it is in.

use super::arch;
use core::mem::MaybeUninit;

/// Fills `dest` from `src`, as far as both go, and returns how far.
pub fn copy(dest: &mut [MaybeUninit<u8>], src: &[u8]) -> usize {
    let n = dest.len().min(src.len());
    // SAFETY: both have `n` bytes, and a mutable slice overlaps no other.
    unsafe { forwards(dest.as_mut_ptr().cast(), src.as_ptr(), n) };
    n
}

/// Moves the bytes of `buf` from the index `from` on to its beginning.
pub fn shift(buf: &mut [u8], from: usize) {
    let n = buf.len().saturating_sub(from);
    let start = buf.as_mut_ptr();
    // SAFETY: bytes `from` to `from + n` are those of `buf`, and the others are lower.
    unsafe { forwards(start, start.wrapping_add(from), n) };
}

/// Eight bytes, wherever they lie.
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Word(u64);

/// # Safety
///
/// `n` bytes at both places; if they overlap, `dest` is the lower.
unsafe fn forwards(dest: *mut u8, src: *const u8, n: usize) {
    let words = n / size_of::<Word>();
    for i in 0..words {
        // SAFETY: the caller's; all is read before it is overwritten.
        unsafe { dest.cast::<Word>().add(i).write_volatile(src.cast::<Word>().add(i).read()) };
    }
    for i in words * size_of::<Word>()..n {
        // SAFETY: likewise.
        unsafe { dest.add(i).write_volatile(src.add(i).read_volatile()) };
    }
}

/// memchr(3): where the first `c` is.
pub fn find(text: &[u8], c: u8) -> Option<usize> {
    let (blocks, rest) = text.as_chunks();
    for (i, block) in blocks.iter().enumerate() {
        let hits = arch::equal(*block, c);
        if hits != 0 {
            return Some(16 * i + hits.trailing_zeros() as usize);
        }
    }
    let at = rest.iter().position(|&b| b == c)?;
    Some(16 * blocks.len() + at)
}

/// memrchr(3): where the last `c` is.
pub fn find_last(text: &[u8], c: u8) -> Option<usize> {
    let (rest, blocks) = text.as_rchunks();
    for (i, block) in blocks.iter().enumerate().rev() {
        let hits = arch::equal(*block, c);
        if hits != 0 {
            return Some(rest.len() + 16 * i + hits.ilog2() as usize);
        }
    }
    rest.iter().rposition(|&b| b == c)
}

/// # Safety
///
/// As in C: `n` bytes at both places, which do not overlap.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(dest: *mut u8, src: *const u8, n: usize) -> *mut u8 {
    // SAFETY: the caller's.
    unsafe { forwards(dest, src, n) };
    dest
}

/// # Safety
///
/// As in C: `n` bytes at both places.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(dest: *mut u8, src: *const u8, n: usize) -> *mut u8 {
    if dest.cast_const() <= src {
        // SAFETY: the caller's, and `dest` is the lower.
        unsafe { forwards(dest, src, n) };
        return dest;
    }
    for i in (0..n).rev() {
        // SAFETY: the caller's; each byte is read before it is overwritten.
        unsafe { dest.add(i).write_volatile(src.add(i).read_volatile()) };
    }
    dest
}

/// # Safety
///
/// As in C: `n` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(dest: *mut u8, c: i32, n: usize) -> *mut u8 {
    for i in 0..n {
        // SAFETY: the caller's.
        unsafe { dest.add(i).write_volatile(c as u8) };
    }
    dest
}

/// # Safety
///
/// As in C: `n` bytes at both places.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    for i in 0..n {
        // SAFETY: the caller's.
        let (a, b) = unsafe { (a.add(i).read_volatile(), b.add(i).read_volatile()) };
        if a != b {
            return a as i32 - b as i32;
        }
    }
    0
}

/// # Safety
///
/// As in C: `n` bytes at both places.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    // SAFETY: the caller's.
    unsafe { memcmp(a, b, n) }
}
