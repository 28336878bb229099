//! Lines of text on the stack, like printf(3).

use super::call::{STDERR, STDOUT, poll_out, write_now};
use super::global::Global;
use super::inet::Sockaddr;
use super::mem::copy;
use core::mem::MaybeUninit;
use rustix::io::{Errno, write};

/// Bytes of text that a `Line` holds. Less than PIPE_BUF, so the text of one
/// `write` stays in one piece when others write to the same pipe (pipe(7)).
const CAPACITY: usize = 512;

pub struct Line {
    len: usize,
    text: [MaybeUninit<u8>; CAPACITY],
}

/// Twice the messages that could not be written since the last one, and 1 more if
/// one of them was cut short: the next begins with a newline.
static LOST: Global<usize> = Global::new(0);

/// What a message to the operator begins with. The newline is for a message behind one
/// that was cut short.
const PREFIX: &str = "\nforkline: ";

/// The message that is being written. Only the parent has it, since it names clients
/// (link.ld).
// SAFETY: it is all zeros, as `.bss` is.
#[unsafe(link_section = ".bss.parent.message")]
static mut MESSAGE: Line = Line { len: 0, text: [MaybeUninit::new(0); _] };

/// A message to the operator that begins with `text`: a line with room for the prefix.
/// `end` writes it.
#[inline(never)]
pub fn message(text: &str) -> &'static mut Line {
    let line = &raw mut MESSAGE;
    // SAFETY: there is one at a time, since no handler runs while one is being written.
    let line = unsafe { &mut *line };
    line.len = PREFIX.len();
    line.str(text)
}

impl Line {
    /// Appends `text`, or as much of it as there is room for.
    pub fn str(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    pub fn bytes(&mut self, text: &[u8]) -> &mut Self {
        self.len += copy(self.text.get_mut(self.len..).unwrap_or_default(), text);
        self
    }

    pub fn num(&mut self, n: usize) -> &mut Self {
        self.digits(n, 10)
    }

    /// Appends `n` in base `base`, at most 16, in lower case.
    pub fn digits(&mut self, n: usize, base: usize) -> &mut Self {
        if n >= base {
            self.digits(n / base, base);
        }
        let digit = (n % base) as u8;
        self.bytes(&[if digit < 10 { b'0' + digit } else { b'a' + digit - 10 }])
    }

    /// Appends `127.0.0.1:7007` or `[::1]:7007` (RFC 5952, section 6).
    pub fn addr(&mut self, addr: &Sockaddr) -> &mut Self {
        match addr.v4() {
            Some(octets) => {
                for (i, &octet) in octets.iter().enumerate() {
                    self.str(if i > 0 { "." } else { "" }).num(octet.into());
                }
            }
            None => _ = self.str("[").ipv6(&addr.v6).str("]"),
        }
        self.str(":").num(u16::from_be_bytes(addr.port).into())
    }

    /// The longest run of zeros, the first of equals, is written as "::"
    /// (RFC 5952, section 4.2).
    fn ipv6(&mut self, octets: &[u8; 16]) -> &mut Self {
        let groups = octets.as_chunks::<2>().0;
        let (mut gap, mut zeros, mut run) = (8, 1, 0);
        for (i, &group) in groups.iter().enumerate() {
            run = if group == [0, 0] { run + 1 } else { 0 };
            if run > zeros {
                (gap, zeros) = (i + 1 - run, run);
            }
        }
        for (i, &group) in groups.iter().enumerate() {
            if i == gap {
                self.str("::");
            } else if i < gap || i >= gap + zeros {
                self.str(if i > 0 && i != gap + zeros { ":" } else { "" });
                self.digits(u16::from_be_bytes(group).into(), 16);
            }
        }
        self
    }

    /// Appends the beginning of a text that a user typed, safe for a terminal.
    pub fn typed(&mut self, text: &[u8]) -> &mut Self {
        for &c in text.iter().take(64) {
            self.bytes(&[if matches!(c, b' '..=b'~') { c } else { b'?' }]);
        }
        self.str(if text.len() > 64 { "..." } else { "" })
    }

    /// Writes the line to standard error. It does not wait for a reader: a message
    /// that does not fit is lost, and the next one says how many were.
    pub fn end(&mut self) {
        copy(&mut self.text, PREFIX.as_bytes());
        let lost = LOST.get();
        if lost > 0 {
            self.str(" lost=").num(lost / 2);
        }
        let text = self.str("\n").text();
        let text = text.get(!lost & 1..).unwrap_or_default();
        let written = write_now(STDERR, text);
        LOST.set(if written == text.len() { 0 } else { (lost + 2) | (written > 0) as usize });
    }

    fn text(&self) -> &[u8] {
        // SAFETY: `bytes` has written these, and `end` the prefix.
        unsafe { self.text[..self.len.min(CAPACITY)].assume_init_ref() }
    }

    /// Writes a report and empties the line. It tries again if a write would
    /// block; what a short write leaves is lost, as after an error.
    fn report(&mut self) {
        while let Err(Errno::AGAIN | Errno::INTR) = write(STDOUT, self.text()) {
            poll_out(STDOUT, u32::MAX);
        }
        self.len = 0;
    }
}

/// Bytes of a report, at most.
const LONGEST: usize = 32;

/// printf(3): writes `server received N bytes` to standard output for each line.
pub fn report(lines: &[u8]) {
    let mut report = Line { len: 0, text: [MaybeUninit::uninit(); CAPACITY] };
    for line in lines.split_inclusive(|&c| c == b'\n') {
        if report.len > CAPACITY - LONGEST {
            report.report();
        }
        report.str("server received ").num(line.len()).str(" bytes\n");
    }
    report.report();
}
