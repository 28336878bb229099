//! A line of text on the stack: what `printf` is to the C. What most messages
//! need is not inlined: it would be a quarter of the program.

use crate::sys::mem::copy;
use crate::sys::{Fd, STDERR};
use core::mem::MaybeUninit;
use rustix::io::{retry_on_intr, write};

/// Bytes of text a `Line` holds. Below PIPE_BUF, so that what one `write`
/// carries stays in one piece, whoever else writes there (pipe(7)).
const CAPACITY: usize = 512;

/// Where a `Line` keeps its text.
pub type Text = [MaybeUninit<u8>; CAPACITY];

pub struct Line<'a> {
    text: &'a mut Text,
    len: usize,
}

/// Tells the operator, in the form that all messages have, what `build` appends.
pub fn message(build: impl FnOnce(&mut Line)) {
    let mut text = [MaybeUninit::uninit(); CAPACITY];
    let mut line = Line::new(&mut text);
    build(line.str("forkline: "));
    line.end();
}

impl<'a> Line<'a> {
    pub fn new(text: &'a mut Text) -> Line<'a> {
        Line { text, len: 0 }
    }

    /// Appends `text`; what does not fit is left out.
    pub fn str(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    #[inline(never)]
    pub fn num(&mut self, n: usize) -> &mut Self {
        self.digits(n, 10)
    }

    /// `n` in `base`, at most 16, in lower case.
    #[inline(never)]
    pub fn digits(&mut self, n: usize, base: usize) -> &mut Self {
        if n >= base {
            self.digits(n / base, base);
        }
        let digit = (n % base) as u8;
        self.bytes(&[if digit < 10 { b'0' + digit } else { b'a' + digit - 10 }])
    }

    /// The beginning of what a user typed, in quotes, fit for a terminal.
    pub fn quoted(&mut self, typed: &[u8]) -> &mut Self {
        self.str("'");
        for &c in typed.iter().take(64) {
            self.bytes(&[if matches!(c, b' '..=b'~') { c } else { b'?' }]);
        }
        self.str(if typed.len() > 64 { "...'" } else { "'" })
    }

    #[inline(never)]
    fn end(&mut self) {
        self.str("\n").write(STDERR);
    }

    pub fn clear(&mut self) -> &mut Self {
        self.len = 0;
        self
    }

    /// Appends a line of at most `MOST` bytes, at the cost of a copy of `MOST`.
    pub fn append<const MOST: usize>(&mut self, line: &Line) {
        let text: Option<&[MaybeUninit<u8>; MOST]> = line.text.first_chunk();
        let free = self.text.get_mut(self.len..).and_then(|free| free.first_chunk_mut());
        if let (Some(text), Some(free)) = (text, free) {
            *free = *text;
            self.len += line.len.min(MOST);
        }
    }

    /// Bytes that still fit.
    pub fn room(&self) -> usize {
        CAPACITY - self.len.min(CAPACITY)
    }

    /// Writes the text with one `write` and empties it. If that fails there is
    /// nobody left to tell.
    #[inline(never)]
    pub fn write(&mut self, fd: Fd) {
        let len = self.len.min(CAPACITY);
        // SAFETY: `bytes` and `append` have written these.
        let text = unsafe { self.text[..len].assume_init_ref() };
        let _ = retry_on_intr(|| write(fd, text));
        self.len = 0;
    }

    #[inline(never)]
    pub fn bytes(&mut self, text: &[u8]) -> &mut Self {
        let len = self.len.min(CAPACITY);
        self.len = len + copy(&mut self.text[len..], text);
        self
    }
}
