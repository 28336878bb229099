//! Copying, filling and comparing.
//!
//! The compiler makes a copy a call of memcpy(3) or memmove(3) where it can.
//! Neither exists here, so a program that needs one does not link. All here is
//! volatile: the compiler would make a loop a call of the function that it is in.

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

/// Fills `n` bytes with `c` (memset(3)). On 64-bit Arm the compiler calls it for the
/// buffers of the services.
///
/// # Safety
///
/// As in C: there are `n` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(dest: *mut u8, c: i32, n: usize) -> *mut u8 {
    for i in 0..n {
        // SAFETY: the caller's.
        unsafe { dest.add(i).write_volatile(c as u8) };
    }
    dest
}

/// Whether two texts differ (bcmp(3)). The compiler calls it.
///
/// # Safety
///
/// As in C: both places have `n` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    // SAFETY: the caller's.
    let differ = |i| unsafe { a.add(i).read_volatile() != b.add(i).read_volatile() };
    (0..n).any(differ) as i32
}
