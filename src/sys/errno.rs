//! What `strerror` is to the C, for the errors that can occur here.

use crate::line::Line;
use rustix::io::Errno;

impl Line<'_> {
    /// Appends the meaning and name of `e` (errno(3)), or its number.
    pub fn errno(&mut self, e: Errno) -> &mut Self {
        let text = match e {
            Errno::ACCESS => "Permission denied (EACCES)",
            Errno::ADDRINUSE => "Address already in use (EADDRINUSE)",
            Errno::ADDRNOTAVAIL => "Cannot assign requested address (EADDRNOTAVAIL)",
            Errno::AFNOSUPPORT => "Address family not supported by protocol (EAFNOSUPPORT)",
            Errno::AGAIN => "Resource temporarily unavailable (EAGAIN)",
            Errno::BADF => "Bad file descriptor (EBADF)",
            Errno::CONNABORTED => "Software caused connection abort (ECONNABORTED)",
            Errno::CONNRESET => "Connection reset by peer (ECONNRESET)",
            Errno::FAULT => "Bad address (EFAULT)",
            Errno::HOSTUNREACH => "No route to host (EHOSTUNREACH)",
            Errno::INTR => "Interrupted system call (EINTR)",
            Errno::INVAL => "Invalid argument (EINVAL)",
            Errno::MFILE => "Too many open files (EMFILE)",
            Errno::NETDOWN => "Network is down (ENETDOWN)",
            Errno::NETUNREACH => "Network is unreachable (ENETUNREACH)",
            Errno::NFILE => "Too many open files in system (ENFILE)",
            Errno::NOBUFS => "No buffer space available (ENOBUFS)",
            Errno::NOMEM => "Cannot allocate memory (ENOMEM)",
            Errno::NOSYS => "Function not implemented (ENOSYS)",
            Errno::NOTCONN => "Transport endpoint is not connected (ENOTCONN)",
            Errno::NOTSOCK => "Socket operation on non-socket (ENOTSOCK)",
            Errno::OPNOTSUPP => "Operation not supported (EOPNOTSUPP)",
            Errno::PERM => "Operation not permitted (EPERM)",
            Errno::PIPE => "Broken pipe (EPIPE)",
            Errno::PROTO => "Protocol error (EPROTO)",
            Errno::TIMEDOUT => "Connection timed out (ETIMEDOUT)",
            _ => return self.str("errno ").num(e.raw_os_error() as usize),
        };
        self.str(text)
    }
}
