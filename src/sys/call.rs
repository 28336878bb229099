//! System calls. rustix makes a call if its code for it cannot panic; the others
//! are made here.

use super::arch::syscall;
use super::inet::Sockaddr;
use core::cell::Cell;
use core::ffi::{c_int, c_long};
use rustix::fd::{AsRawFd, BorrowedFd, RawFd};
use rustix::io::{Errno, Result, retry_on_intr, write};
use rustix::process::Pid;

/// A descriptor. As in C, it is open until `close`.
pub type Fd = BorrowedFd<'static>;

// SAFETY: the program never closes them.
pub const STDOUT: Fd = unsafe { BorrowedFd::borrow_raw(libc::STDOUT_FILENO) };
// SAFETY: likewise.
pub const STDERR: Fd = unsafe { BorrowedFd::borrow_raw(libc::STDERR_FILENO) };

/// The descriptor with this number; none for 0 and below.
pub fn fd(number: RawFd) -> Option<Fd> {
    match number {
        // SAFETY: it is not -1, the one value that `BorrowedFd` forbids. A
        // descriptor that is not open is an error to the kernel only.
        1.. => Some(unsafe { BorrowedFd::borrow_raw(number) }),
        _ => None,
    }
}

/// A system call's result: a number, or an error from -4095 to -1.
fn ret(value: usize) -> Result<usize> {
    match value as isize {
        error @ -4095..0 => Err(Errno::from_raw_os_error(-error as i32)),
        _ => Ok(value),
    }
}

/// The result of a call that returns a new descriptor.
fn ret_fd(value: usize) -> Result<Fd> {
    match ret(value)? as RawFd {
        // SAFETY: the kernel has just made it, for us.
        fd @ 0.. => Ok(unsafe { BorrowedFd::borrow_raw(fd) }),
        _ => Err(Errno::BADF),
    }
}

/// fork(2): the child's pid in the parent, nothing in the child. It is made as
/// clone(2), which every architecture has.
pub fn fork() -> Result<Option<Pid>> {
    let args = [libc::SIGCHLD as usize, 0];
    // SAFETY: there is one thread. Without a new stack the child goes on with
    // a copy of this one.
    let pid = ret(unsafe { syscall(libc::SYS_clone, args) })?;
    Ok(Pid::from_raw(pid as i32))
}

/// _exit(2)
pub fn _exit(status: c_int) -> ! {
    loop {
        // SAFETY: it touches no memory and does not return.
        unsafe { syscall(libc::SYS_exit_group, [status as usize]) };
    }
}

/// close(2). An error is ignored: the descriptor is closed all the same.
pub fn close(fd: Fd) {
    // SAFETY: a descriptor that is used after this is an error to the kernel,
    // not to memory.
    unsafe { rustix::io::close(fd.as_raw_fd()) };
}

/// socket(2), for TCP. It never returns the number of a standard stream: if one
/// of those is closed, a socket that is not used takes its place. Otherwise a
/// client would get what is written to that stream.
#[inline(never)]
pub fn socket(family: u16) -> Result<Fd> {
    loop {
        let args = [family as usize, libc::SOCK_STREAM as usize, 0];
        // SAFETY: it touches no memory.
        let fd = ret_fd(unsafe { syscall(libc::SYS_socket, args) })?;
        if fd.as_raw_fd() > libc::STDERR_FILENO {
            return Ok(fd);
        }
    }
}

/// bind(2)
pub fn bind(fd: Fd, addr: &Sockaddr) -> Result<()> {
    let args = [fd.as_raw_fd() as usize, &raw const *addr as usize, size_of_val(addr)];
    // SAFETY: the kernel reads the address, whose size is given last.
    ret(unsafe { syscall(libc::SYS_bind, args) })?;
    Ok(())
}

/// accept(2). It stores the client's address.
pub fn accept(listenfd: Fd, addr: &Cell<Sockaddr>) -> Result<Fd> {
    ret_fd(store_addr(libc::SYS_accept, listenfd, addr))
}

/// getsockname(2), for an IPv4 or IPv6 socket.
pub fn getsockname(fd: Fd) -> Result<Sockaddr> {
    let addr = Cell::new(Sockaddr::NONE);
    ret(store_addr(libc::SYS_getsockname, fd, &addr))?;
    match addr.get().family as c_int {
        libc::AF_INET | libc::AF_INET6 => Ok(addr.get()),
        _ => Err(Errno::AFNOSUPPORT),
    }
}

/// Makes a call that takes a descriptor and stores an address.
fn store_addr(number: c_long, fd: Fd, addr: &Cell<Sockaddr>) -> usize {
    let mut len = size_of_val(addr) as libc::socklen_t;
    let args = [fd.as_raw_fd() as usize, addr.as_ptr() as usize, &raw mut len as usize];
    // SAFETY: the kernel writes at most `len` bytes of the address, any of
    // which make a `Sockaddr`, and `len`.
    unsafe { syscall(number, args) }
}

/// setsockopt(2), for an option that is an int or a structure of ints.
#[inline(never)]
pub fn setsockopt(fd: Fd, level: c_int, option: c_int, value: &[u32]) -> Result<()> {
    let (fd, level, option) = (fd.as_raw_fd() as usize, level as usize, option as usize);
    let (start, len) = (value.as_ptr() as usize, size_of_val(value));
    // SAFETY: the kernel reads `value`, whose size is given last.
    ret(unsafe { syscall(libc::SYS_setsockopt, [fd, level, option, start, len]) })?;
    Ok(())
}

/// Writes `text` unless that would block; whether it did (pwritev2(2), RWF_NOWAIT).
pub fn write_now(fd: Fd, text: &[u8]) -> bool {
    let iovec = [text.as_ptr() as usize, text.len()];
    let (number, iovec) = (fd.as_raw_fd() as usize, &raw const iovec as usize);
    // At the file position, which is -1.
    let args = [number, iovec, 1, usize::MAX, 0, libc::RWF_NOWAIT as usize];
    // SAFETY: the kernel reads one `struct iovec` and the text.
    let written = ret(unsafe { syscall(libc::SYS_pwritev2, args) }).is_ok();
    // Not every file can tell whether it would block.
    written || can_write(fd, false) && retry_on_intr(|| write(fd, text)).is_ok()
}

/// Whether a write would not block (poll(2), POLLOUT). With `wait` it returns
/// when that is so.
pub fn can_write(fd: Fd, wait: bool) -> bool {
    let mut pollfd = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    let mut now = [0u64; 2];
    let time = if wait { 0 } else { &raw mut now as usize };
    // SAFETY: the kernel reads and writes one `pollfd`, and the time if there is
    // one.
    unsafe { syscall(libc::SYS_ppoll, [&raw mut pollfd as usize, 1, time, 0, 0]) != 0 }
}

/// Bytes sent that the peer has not acknowledged (tcp(7), SIOCOUTQ).
pub fn unacknowledged(fd: Fd) -> u32 {
    let mut bytes = 0;
    let args = [fd.as_raw_fd() as usize, libc::TIOCOUTQ as usize, &raw mut bytes as usize];
    // SAFETY: the kernel writes an int.
    unsafe { syscall(libc::SYS_ioctl, args) };
    bytes
}

/// Closes all descriptors from 3 on but `kept` (close_range(2)).
pub fn close_all_but(kept: Fd) {
    let kept = kept.as_raw_fd() as usize;
    for (first, last) in [(3, kept.wrapping_sub(1)), (kept + 1, u32::MAX as usize)] {
        if first <= last {
            // SAFETY: as for `close`.
            unsafe { syscall(libc::SYS_close_range, [first, last, 0]) };
        }
    }
}

/// Milliseconds since an unknown moment (clock_gettime(2)).
pub fn milliseconds() -> u64 {
    let mut now = [0u64; 2];
    let clock = libc::CLOCK_MONOTONIC_COARSE as usize;
    // SAFETY: the kernel writes a `struct timespec`: two words.
    unsafe { syscall(libc::SYS_clock_gettime, [clock, &raw mut now as usize]) };
    now[0] * 1000 + now[1] / 1_000_000
}

/// It stands in the first page of the program (link.ld).
#[unsafe(link_section = ".rodata.first")]
static FIRST: u8 = 0;

/// Lets children have the program and its memory below `end`, and nothing else:
/// not the arguments, the environment and what lies from `end` on (madvise(2),
/// MADV_DONTFORK).
pub fn dont_fork_beyond(end: *const u8) {
    let (start, end) = (&raw const FIRST as usize & !4095, end as usize);
    for (from, len) in [(0, start), (end, (usize::MAX - end) & !4095)] {
        // SAFETY: it changes no memory of this process. It fails with ENOMEM
        // where nothing is mapped, and does the rest.
        unsafe { syscall(libc::SYS_madvise, [from, len, libc::MADV_DONTFORK as usize]) };
    }
}

/// seccomp(2): this filter for this process and its children, for good.
pub fn seccomp(filter: &[libc::sock_filter]) -> Result<()> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    let mode = libc::SECCOMP_SET_MODE_FILTER as usize;
    // SAFETY: the kernel reads `program` and the filter, whose length it gives.
    ret(unsafe { syscall(libc::SYS_seccomp, [mode, 0, &raw const program as usize]) })?;
    Ok(())
}
