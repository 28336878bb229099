//! What `strerror` is to the C, for the errors that can occur here.

use crate::addr::{number, split_once};
use crate::line::Line;
use rustix::io::Errno;

/// Number, meaning and name (errno(3)); the numbers are the same on x86-64 and
/// 64-bit Arm. One text, since a table of texts would need relocations.
const TEXTS: &str = "\
1 Operation not permitted (EPERM)
9 Bad file descriptor (EBADF)
11 Resource temporarily unavailable (EAGAIN)
12 Cannot allocate memory (ENOMEM)
13 Permission denied (EACCES)
22 Invalid argument (EINVAL)
23 Too many open files in system (ENFILE)
24 Too many open files (EMFILE)
38 Function not implemented (ENOSYS)
88 Not a socket (ENOTSOCK)
95 Operation not supported (EOPNOTSUPP)
97 Address family not supported (EAFNOSUPPORT)
98 Address already in use (EADDRINUSE)
99 Cannot assign requested address (EADDRNOTAVAIL)
105 No buffer space available (ENOBUFS)
110 Connection timed out (ETIMEDOUT)
113 No route to host (EHOSTUNREACH)";

impl Line<'_> {
    /// Appends the meaning and name of `e`, or its number.
    pub fn errno(&mut self, e: Errno) -> &mut Self {
        let mut entries = Some(TEXTS.as_bytes());
        while let Some(text) = entries {
            let entry;
            (entry, entries) = split_once(text, b'\n');
            let (errno, text) = split_once(entry, b' ');
            if number(errno, 133) == Some(e.raw_os_error() as u32) {
                return self.bytes(text.unwrap_or_default());
            }
        }
        self.str("errno ").num(e.raw_os_error() as usize)
    }
}
