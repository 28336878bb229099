//! `rot13_char` for sixteen bytes at once: a compiler that has to keep the
//! program small does not do this by itself.

use crate::rot13_char;
use crate::sys::rot13_block;

/// Rotates the letters of `text`.
pub fn rot13(text: &mut [u8]) {
    let (blocks, rest) = text.as_chunks_mut();
    for block in blocks {
        *block = rot13_block(*block);
    }
    for ch in rest {
        *ch = rot13_char(*ch);
    }
}
