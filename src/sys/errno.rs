//! Names of errors and signals, like strerrorname_np(3), for those that are usual
//! here. Others are numbers.

use super::print::Line;
use super::text::{number, split_once};

/// Number and name (errno(3)), and a meaning where users meet it. The numbers
/// are the same on x86-64 and 64-bit Arm. It is one text because a table of
/// texts needs relocations.
pub const ERRORS: &str = "\
1 EPERM
2 ENOENT
9 EBADF
11 EAGAIN
12 ENOMEM
13 EACCES (permission denied)
22 EINVAL
23 ENFILE
24 EMFILE
38 ENOSYS
88 ENOTSOCK
91 EPROTOTYPE
95 EOPNOTSUPP
97 EAFNOSUPPORT (address family not supported)
98 EADDRINUSE (address already in use)
99 EADDRNOTAVAIL (address not available)
103 ECONNABORTED
105 ENOBUFS
107 ENOTCONN
110 ETIMEDOUT
111 ECONNREFUSED
113 EHOSTUNREACH";

/// Number and name of the signals that an operator sends (signal(7)).
pub const SIGNALS: &str = "\
1 SIGHUP
2 SIGINT
3 SIGQUIT
9 SIGKILL
15 SIGTERM";

impl Line {
    /// Appends the name of error or signal `n`, or its number.
    pub fn name(&mut self, names: &'static str, n: i32) -> &mut Self {
        match find(names, n) {
            Some(text) => self.bytes(split_once(text, b' ').0),
            None => self.num(n as usize),
        }
    }

    /// Appends the name of `errno` and its meaning, or its number (strerror(3)).
    pub fn strerror(&mut self, errno: i32) -> &mut Self {
        match find(ERRORS, errno) {
            Some(text) => self.bytes(text),
            None => self.str("errno ").num(errno as usize),
        }
    }
}

/// The text that belongs to `n`.
pub fn find(names: &'static str, n: i32) -> Option<&'static [u8]> {
    let mut lines = names.as_bytes().split(|&c| c == b'\n').map(|line| split_once(line, b' '));
    lines.find(|line| number(line.0, 133) == Some(n as u32))?.1
}
