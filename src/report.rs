//! The C's `printf`, for a burst of lines.

use crate::MAXN;
use crate::line::Line;
use crate::sys::STDOUT;
use crate::sys::mem::find;
use core::mem::MaybeUninit;

/// Bytes of one report, at most: a little more than the longest has.
const LONGEST: usize = 32;

/// Writes `server received N bytes` for each line in `lines`, or piece of one.
/// One text serves all lines in turn that have the same length.
pub fn report(mut lines: &[u8]) {
    let mut texts = ([MaybeUninit::uninit(); _], [MaybeUninit::uninit(); _]);
    let (mut out, mut last) = (Line::new(&mut texts.0), Line::new(&mut texts.1));
    let mut reported = 0;
    while !lines.is_empty() {
        let longest = lines.len().min(MAXN - 1);
        let n = find(&lines[..longest], b'\n').map_or(longest, |newline| newline + 1);
        if n != reported {
            last.clear().str("server received ").num(n).str(" bytes\n");
            reported = n;
        }
        if out.room() < LONGEST {
            out.write(STDOUT);
        }
        out.append::<LONGEST>(&last);
        lines = lines.get(n..).unwrap_or_default();
    }
    out.write(STDOUT);
}
