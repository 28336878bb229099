//! Error texts, like strerror(3), for the errors that can occur here.

use super::inet::{number, split_once};
use super::print::Line;
use rustix::io::Errno;

/// Number, name and meaning (errno(3)). The numbers are the same on x86-64 and
/// 64-bit Arm. It is one text because a table of texts needs relocations.
const ERRORS: &str = "\
1 EPERM Operation not permitted
9 EBADF Bad file descriptor
11 EAGAIN Resource temporarily unavailable
12 ENOMEM Cannot allocate memory
13 EACCES Permission denied
22 EINVAL Invalid argument
23 ENFILE Too many open files in system
24 EMFILE Too many open files
38 ENOSYS Function not implemented
88 ENOTSOCK Not a socket
95 EOPNOTSUPP Operation not supported
97 EAFNOSUPPORT Address family not supported
98 EADDRINUSE Address already in use
99 EADDRNOTAVAIL Cannot assign requested address
105 ENOBUFS No buffer space available
107 ENOTCONN Not connected
110 ETIMEDOUT Connection timed out
113 EHOSTUNREACH No route to host";

impl Line<'_> {
    /// Appends the name of `errno`, or its number.
    pub fn errno(&mut self, errno: i32) -> &mut Self {
        match find(errno) {
            Some((name, _)) => self.bytes(name),
            None => self.num(errno as usize),
        }
    }

    /// Appends the meaning and the name of `e`, or its number.
    pub fn strerror(&mut self, e: Errno) -> &mut Self {
        match find(e.raw_os_error()) {
            Some((name, meaning)) => self.bytes(meaning).str(" (").bytes(name).str(")"),
            None => self.str("errno ").num(e.raw_os_error() as usize),
        }
    }
}

/// Name and meaning.
#[inline(never)]
fn find(errno: i32) -> Option<(&'static [u8], &'static [u8])> {
    let mut lines = Some(ERRORS.as_bytes());
    while let Some(text) = lines {
        let line;
        (line, lines) = split_once(text, b'\n');
        let (first, rest) = split_once(line, b' ');
        if number(first, 133) == Some(errno as u32) {
            let (name, meaning) = split_once(rest?, b' ');
            return Some((name, meaning?));
        }
    }
    None
}
