//! Copying, and the memory functions that the compiler calls (memcpy(3),
//! memmove(3), memset(3), memcmp(3), bcmp(3)). It calls them through a table
//! of addresses, which would need relocations: a debug build may, a release
//! build that does fails to link, so its code copies with `copy` and `shift`.
//!
//! All is volatile, or the compiler would see what a loop does and call the
//! function that it is in. Byte by byte is enough for command lines, messages
//! and the rest of a line.

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

/// # Safety
///
/// `n` bytes at both places; if they overlap, `dest` is the lower.
unsafe fn forwards(dest: *mut u8, src: *const u8, n: usize) {
    for i in 0..n {
        // SAFETY: the caller's; each byte is read before it is overwritten.
        unsafe { dest.add(i).write_volatile(src.add(i).read_volatile()) };
    }
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
