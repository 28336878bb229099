//! System calls. The program uses rustix for a call if rustix's code for it cannot
//! panic. The other calls are made here, and `recv` and `send`, which must be inlined.

use super::arch::syscall;
use super::inet::Sockaddr;
use super::mem::copy;
use core::cell::Cell;
use core::ffi::{c_int, c_long};
use core::mem::MaybeUninit;
use rustix::fd::{AsRawFd, BorrowedFd, RawFd};
use rustix::io::{Errno, Result, retry_on_intr, write};
use rustix::process::Pid;
use rustix::termios::isatty;

/// A descriptor. As in C, it is open until `close`.
pub type Fd = BorrowedFd<'static>;

// SAFETY: it is not -1. `borrow_raw` also asks that the descriptor stays open. Here an
// `Fd` is what an int is in C: no memory depends on it, and a call on a descriptor that
// is not open fails with EBADF.
pub const STDOUT: Fd = unsafe { BorrowedFd::borrow_raw(libc::STDOUT_FILENO) };
// SAFETY: likewise.
pub const STDERR: Fd = unsafe { BorrowedFd::borrow_raw(libc::STDERR_FILENO) };

/// This number as a descriptor; `None` for a standard stream and a negative number.
pub fn fd(number: RawFd) -> Option<Fd> {
    // SAFETY: likewise.
    (number > libc::STDERR_FILENO).then(|| unsafe { BorrowedFd::borrow_raw(number) })
}

/// A system call's result: a number, or an error from -4095 to -1.
fn ret(value: usize) -> Result<usize> {
    match value as isize {
        error @ -4095..0 => Err(Errno::from_raw_os_error(-error as i32)),
        _ => Ok(value),
    }
}

/// fork(2): the child's pid in the parent, nothing in the child. It is made as
/// clone(2), which every architecture has.
pub fn fork() -> Result<Option<Pid>> {
    let args = [libc::SIGCHLD as usize, 0];
    // SAFETY: there is one thread. Without a new stack the child goes on with
    // a copy of this one. The kernel reads no other argument without a flag for it.
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

/// socket(2). It never returns the number of a standard stream: if one
/// of those is closed, a socket that is not used takes its place. Otherwise a
/// client would get what is written to that stream.
pub fn socket(domain: c_int, kind: c_int) -> Result<Fd> {
    loop {
        let args = [domain as usize, kind as usize, 0];
        // SAFETY: it touches no memory.
        if let Some(fd) = fd(ret(unsafe { syscall(libc::SYS_socket, args) })? as RawFd) {
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

/// Connects a datagram socket to the one at `path`, or, if that begins with `@`, to the
/// abstract one of that name (connect(2), unix(7)). It does not block.
pub fn connect(path: &[u8]) -> Result<Fd> {
    let mut addr = [MaybeUninit::uninit(); size_of::<libc::sockaddr_un>()];
    let len = 2 + copy(&mut addr[2..], path);
    if len < 2 + path.len() {
        return Err(Errno::INVAL);
    }
    copy(&mut addr, &(libc::AF_UNIX as u16).to_ne_bytes());
    if path.first() == Some(&b'@') {
        addr[2].write(0);
    }
    let fd = socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK)?;
    let args = [fd.as_raw_fd() as usize, addr.as_ptr() as usize, len];
    // SAFETY: the kernel reads `len` bytes, which have been written.
    ret(unsafe { syscall(libc::SYS_connect, args) }).inspect_err(|_| close(fd))?;
    Ok(fd)
}

/// accept(2). It stores the client's address.
pub fn accept(listenfd: Fd, addr: &Cell<Sockaddr>) -> Result<Fd> {
    fd(ret(store_addr(libc::SYS_accept, listenfd, addr))? as RawFd).ok_or(Errno::BADF)
}

/// recv(2). It is inlined: when Linux switches processes, it clears the processor's
/// return stack buffer, so the return of a function that has waited is mispredicted.
#[inline(always)]
pub fn recv(fd: Fd, buf: &mut [u8]) -> Result<usize> {
    let args = [fd.as_raw_fd() as usize, buf.as_mut_ptr() as usize, buf.len(), 0, 0, 0];
    // SAFETY: the kernel writes at most as many bytes as `buf` has, and no address.
    ret(unsafe { syscall(libc::SYS_recvfrom, args) })
}

/// send(2), inlined for the same reason.
#[inline(always)]
pub fn send(fd: Fd, buf: &[u8]) -> Result<usize> {
    let args = [fd.as_raw_fd() as usize, buf.as_ptr() as usize, buf.len(), 0, 0, 0];
    // SAFETY: the kernel reads `buf`, whose size is given, and no address.
    ret(unsafe { syscall(libc::SYS_sendto, args) })
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

/// setsockopt(2), for an option that is an int or a structure of ints. An error
/// is ignored, as in the C.
#[inline(never)]
pub fn setsockopt(fd: Fd, level: c_int, option: c_int, value: &[u32]) {
    let (fd, level, option) = (fd.as_raw_fd() as usize, level as usize, option as usize);
    let (start, len) = (value.as_ptr() as usize, size_of_val(value));
    // SAFETY: the kernel reads `value`, whose size is given last.
    unsafe { syscall(libc::SYS_setsockopt, [fd, level, option, start, len]) };
}

/// Writes `text` unless that would block; whether all of it was written
/// (pwritev2(2), RWF_NOWAIT).
pub fn write_now(fd: Fd, text: &[u8]) -> bool {
    let iovec = [text.as_ptr() as usize, text.len()];
    let (number, iovec) = (fd.as_raw_fd() as usize, &raw const iovec as usize);
    // The offset -1 means the current file position.
    let args = [number, iovec, 1, usize::MAX, 0, libc::RWF_NOWAIT as usize];
    // SAFETY: the kernel reads one `struct iovec` and the text.
    match ret(unsafe { syscall(libc::SYS_pwritev2, args) }) {
        // Not every file can tell whether it would block.
        Err(_) if can_write(fd, false) => retry_on_intr(|| write(fd, text)) == Ok(text.len()),
        written => written == Ok(text.len()),
    }
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

/// Bytes that the peer has acknowledged, and whether it has more to acknowledge
/// (tcp(7), TCP_INFO). Without TCP_INFO, as in an emulator: 0 and false.
pub fn acknowledged(fd: Fd) -> (u64, bool) {
    // `struct tcp_info`, up to tcpi_notsent_bytes (linux/tcp.h).
    let mut info = MaybeUninit::<[u64; 19]>::uninit();
    let mut len = size_of_val(&info);
    let (fd, at, len_at) =
        (fd.as_raw_fd() as usize, info.as_mut_ptr() as usize, &raw mut len as usize);
    let args = [fd, libc::IPPROTO_TCP as usize, libc::TCP_INFO as usize, at, len_at];
    // SAFETY: the kernel writes at most `len` bytes of `info`, and `len`.
    if unsafe { syscall(libc::SYS_getsockopt, args) } != 0 || len < size_of_val(&info) {
        return (0, false);
    }
    // SAFETY: the kernel has written all of it.
    let info = unsafe { info.assume_init_ref() };
    // Word 15 is tcpi_bytes_acked. The low halves of words 3 and 18 are tcpi_unacked
    // and tcpi_notsent_bytes.
    (info[15], (info[3] | info[18]) as u32 != 0)
}

/// Opens a terminal on standard error anew, for writes that do not block. Other
/// processes keep their own open file description, which still blocks. If the terminal
/// cannot be opened, a message may block.
pub fn reopen_terminal() {
    if isatty(STDERR) {
        let flags = libc::O_WRONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
        let path = c"/proc/self/fd/2".as_ptr() as usize;
        // SAFETY: the kernel reads the path, which ends with NUL, and no mode
        // without O_CREAT.
        let fd = unsafe { syscall(libc::SYS_openat, [0, path, flags as usize]) };
        // SAFETY: after an error `fd` is no descriptor, and nothing changes.
        unsafe { syscall(libc::SYS_dup3, [fd, libc::STDERR_FILENO as usize, 0]) };
    }
}

/// Closes all descriptors from 3 on but `kept` (close_range(2)).
pub fn close_all_but(kept: Fd) {
    let kept = kept.as_raw_fd() as usize;
    for (first, last) in [(3, kept - 1), (kept + 1, u32::MAX as usize)] {
        // SAFETY: as for `close`. An empty range is an error.
        unsafe { syscall(libc::SYS_close_range, [first, last, 0]) };
    }
}

/// Whether wait4(2) finds a child by its pid, without a look at all: since Linux 5.13.
/// This call has been there since 5.15; it is asked to do nothing (process_mrelease(2)).
pub fn finds_child() -> bool {
    // SAFETY: it touches no memory.
    ret(unsafe { syscall(libc::SYS_process_mrelease, [usize::MAX, 0]) }) != Err(Errno::NOSYS)
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
    // All of a process is below isize::MAX. With usize::MAX the end could wrap to 0, when
    // the kernel rounds the length up to its pages: EINVAL.
    for (from, len) in [(0, start), (end, isize::MAX as usize - end)] {
        // SAFETY: it changes no memory of this process, and its children use nothing
        // there. It fails with ENOMEM where nothing is mapped, and does the rest.
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
