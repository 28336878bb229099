//! `rot13_char` for many bytes at once: a compiler that has to keep the program
//! small does not do this by itself.

use crate::rot13_char;
use crate::sys::rot13_blocks;

/// Rotates the letters of `text`.
pub fn rot13(text: &mut [u8]) {
    let (blocks, rest) = text.as_chunks_mut();
    rot13_blocks(blocks);
    for ch in rest {
        *ch = rot13_char(*ch);
    }
}
