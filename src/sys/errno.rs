//! Error names, like strerrorname_np(3), for the errors that can occur here.

use super::inet::{number, split, split_once};
use super::print::Line;

/// Number and name (errno(3)), and a meaning where users meet it. The numbers
/// are the same on x86-64 and 64-bit Arm. It is one text because a table of
/// texts needs relocations.
const ERRORS: &str = "\
1 EPERM
9 EBADF
11 EAGAIN
12 ENOMEM
13 EACCES (permission denied)
22 EINVAL
23 ENFILE
24 EMFILE
38 ENOSYS
88 ENOTSOCK
95 EOPNOTSUPP
97 EAFNOSUPPORT (address family not supported)
98 EADDRINUSE (address already in use)
99 EADDRNOTAVAIL (address not available)
105 ENOBUFS
107 ENOTCONN
110 ETIMEDOUT
113 EHOSTUNREACH";

impl Line {
    /// Appends the name of `errno`, or its number.
    pub fn errno(&mut self, errno: i32) -> &mut Self {
        match find(errno) {
            Some(text) => self.bytes(split_once(text, b' ').0),
            None => self.num(errno as usize),
        }
    }

    /// Appends the name of `errno` and its meaning, or its number (strerror(3)).
    pub fn strerror(&mut self, errno: i32) -> &mut Self {
        match find(errno) {
            Some(text) => self.bytes(text),
            None => self.str("errno ").num(errno as usize),
        }
    }
}

#[inline(never)]
fn find(errno: i32) -> Option<&'static [u8]> {
    let mut lines = split(ERRORS.as_bytes(), b'\n').map(|line| split_once(line, b' '));
    lines.find(|line| number(line.0, 133) == Some(errno as u32))?.1
}
