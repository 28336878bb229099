//! System calls. Each was tried with rustix 1.1.6: the function that makes it, or why it
//! is made by the program itself. What can panic does not link (panic.rs); the panic's
//! symbol stands in brackets. "More" are bytes of the file, on x86-64 and 64-bit Arm.
//! `runtime` is hidden and may change at any time: its name has a random part, and a
//! program that uses it does not build with the next one.
//!
//! | call | rustix |
//! |---|---|
//! | accept | no: `net::acceptfrom` can panic: `OwnedFd` asserts "not -1" (`assert_failed`) |
//! | bind | `net::bind` |
//! | clock_gettime | no: `time::clock_gettime` can panic (`assert_failed`); 2,700 more: the vDSO |
//! | clone | no: `runtime::kernel_fork` stores a pid in the child's memory; 64 and 104 more |
//! | close | `io::close` |
//! | close_range | no: not there |
//! | connect | `net::connect`, but its `SocketAddrUnix` can panic (`panic_bounds_check`) |
//! | dup3 | no: `stdio::dup2_stderr` makes dup2 on x86-64; 32 and 24 more |
//! | exit_group | no: `runtime::exit_group`; 48 and 120 more |
//! | getpid | `process::getpid` |
//! | getsockname | no: `net::getsockname` can panic: it asserts the address's length (`panic`) |
//! | getsockopt | no: TCP_INFO is not there |
//! | ioctl | `io::ioctl_fionbio`, `termios::isatty` |
//! | kill | `process::kill_process` |
//! | listen | `net::listen` |
//! | madvise | not yet: `mm::madvise` is as large |
//! | openat | no: `fs::open` can panic, like accept |
//! | ppoll | `event::poll`; in `pause` no: it takes no set of signals |
//! | prctl | `thread::set_no_new_privs` |
//! | pwritev2 | `io::pwritev2` |
//! | recvfrom | no: `net::recv` is not inlined: a function of 91 bytes; 96 and 16 more |
//! | rt_sigaction | no: `runtime::kernel_sigaction`; 16 and 24 more |
//! | rt_sigprocmask | no: `runtime::kernel_sigprocmask` stores the old set; 16 and 0 more |
//! | rt_sigreturn | no: not there |
//! | seccomp | no: `thread::set_secure_computing_mode` takes no filter |
//! | sendto | no: `net::send` is not inlined: a function of 73 bytes; 48 and 8 more |
//! | setgroups, setresgid, setresuid | `thread::set_thread_groups`, `_res_gid`, `_res_uid` |
//! | setsockopt | no: `net::sockopt` has a function for each option; 128 and 136 more |
//! | shutdown | `net::shutdown` |
//! | sigaltstack | no: `runtime::kernel_sigaltstack` stores the old stack; 16 and 8 more |
//! | socket | no: `net::socket` can panic, like accept |
//! | wait4 | `process::wait` |
//! | write | `io::write` |

use super::arch::syscall;
use super::inet::Sockaddr;
use super::mem::copy;
use super::signal::timespec;
use super::start::STACK;
use core::cell::Cell;
use core::ffi::{c_int, c_long};
use core::mem::MaybeUninit;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsRawFd, BorrowedFd, RawFd};
use rustix::io::{Errno, IoSlice, ReadWriteFlags, Result, pwritev2, retry_on_intr, write};
use rustix::net::addr::{SocketAddrArg, SocketAddrOpaque};
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
    // SAFETY: there is one thread. Without a new stack the child goes on with
    // a copy of this one. The kernel reads no other argument without a flag for it.
    let pid = ret(unsafe { syscall(libc::SYS_clone, [libc::SIGCHLD as usize, 0]) })?;
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

/// An address for bind(2) or connect(2), as the kernel has it.
pub struct Address<'a, T: ?Sized>(pub &'a T);

// SAFETY: `f` gets the value and its size. If that is no address, the call fails.
unsafe impl<T: ?Sized> SocketAddrArg for Address<'_, T> {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, u32) -> R) -> R {
        f((&raw const *self.0).cast(), size_of_val(self.0) as u32)
    }
}

/// Connects a datagram socket to the one at `path`, or, if that begins with `@`, to the
/// abstract one of that name (connect(2), unix(7)). It does not block.
pub fn connect(path: &[u8]) -> Result<Fd> {
    let mut addr = [MaybeUninit::uninit(); size_of::<libc::sockaddr_un>()];
    let len = 2 + copy(&mut addr[2..], path);
    if len < 2 + path.len() {
        return Err(Errno::INVAL);
    }
    addr[0].write(libc::AF_UNIX as u8);
    addr[1].write(0);
    if path.first() == Some(&b'@') {
        addr[2].write(0);
    }
    let fd = socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK)?;
    rustix::net::connect(fd, &Address(&addr[..len])).inspect_err(|_| close(fd)).map(|()| fd)
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

/// setsockopt(2), for an option that is an int or a structure of ints; whether it
/// succeeded. Mostly that is ignored, as in the C.
#[inline(never)]
pub fn setsockopt(fd: Fd, level: c_int, option: c_int, value: &[u32]) -> bool {
    let (fd, level, option) = (fd.as_raw_fd() as usize, level as usize, option as usize);
    let (start, len) = (value.as_ptr() as usize, size_of_val(value));
    // SAFETY: the kernel reads `value`, whose size is given last.
    unsafe { syscall(libc::SYS_setsockopt, [fd, level, option, start, len]) == 0 }
}

/// Limits how long a call on a socket waits: recv and accept with SO_RCVTIMEO, send with
/// SO_SNDTIMEO (socket(7)). After so many milliseconds it fails with EAGAIN.
pub fn set_timeout(fd: Fd, option: c_int, milliseconds: u32) -> bool {
    // Two 64-bit numbers, little-endian: seconds and microseconds.
    let value = [milliseconds / 1000, 0, milliseconds % 1000 * 1000, 0];
    setsockopt(fd, libc::SOL_SOCKET, option, &value)
}

/// getsockopt(2), for an option of at most so many ints. What the kernel does not have
/// stays as it is.
pub fn getsockopt(fd: Fd, level: c_int, option: c_int, value: &mut [u32]) {
    let (fd, level, option) = (fd.as_raw_fd() as usize, level as usize, option as usize);
    let mut len = size_of_val(value);
    let args = [fd, level, option, value.as_mut_ptr() as usize, &raw mut len as usize];
    // SAFETY: the kernel writes at most `len` bytes of `value`, and `len`.
    unsafe { syscall(libc::SYS_getsockopt, args) };
}

/// Writes `text` unless that would block; how many bytes were written (pwritev2(2),
/// RWF_NOWAIT).
pub fn write_now(fd: Fd, text: &[u8]) -> usize {
    // The offset -1 means the current file position.
    let written = match pwritev2(fd, &[IoSlice::new(text)], u64::MAX, ReadWriteFlags::NOWAIT) {
        // Not every file can tell whether it would block.
        Err(_) if poll_out(fd, 0) => retry_on_intr(|| write(fd, text)),
        written => written,
    };
    written.unwrap_or(0)
}

/// Waits until a write would not block, at most for so many milliseconds; whether that
/// is so (poll(2), POLLOUT).
pub fn poll_out(fd: Fd, milliseconds: u32) -> bool {
    let timeout = timespec(milliseconds);
    !matches!(poll(&mut [PollFd::new(&fd, PollFlags::OUT)], Some(&timeout)), Ok(0))
}

/// What TCP knows of a connection.
pub struct TcpInfo {
    /// Bytes that the peer has acknowledged, modulo 2^32.
    pub acknowledged: u32,
    /// Whether it has more to acknowledge.
    pub has_more: bool,
    /// No segment has come for as long as TCP waits for an acknowledgement before it sends
    /// again (RFC 6298): as long as one takes to come that was lost at first.
    pub is_silent: bool,
}

/// Asks for it (tcp(7), TCP_INFO). Without TCP_INFO, as in an emulator, the peer has
/// acknowledged nothing, has nothing to acknowledge and is silent.
pub fn tcp_info(fd: Fd) -> TcpInfo {
    // `struct tcp_info`, up to tcpi_notsent_bytes (linux/tcp.h).
    let mut info = [0; 37];
    getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info);
    TcpInfo {
        acknowledged: info[30], // tcpi_bytes_acked, the low half
        // tcpi_unacked, tcpi_notsent_bytes; tcpi_state: a closed connection keeps them.
        has_more: info[6] | info[36] != 0 && info[0] as u8 != 7,
        // tcpi_last_data_recv, tcpi_last_ack_recv; tcpi_rto, in microseconds
        is_silent: info[13].min(info[14]) >= info[2] >> 10,
    }
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
    // SAFETY: as for `close`. An empty range is an error.
    let close_range = |first, last| unsafe { syscall(libc::SYS_close_range, [first, last, 0]) };
    close_range(3, kept - 1);
    close_range(kept + 1, u32::MAX as usize);
}

/// Milliseconds since an unknown moment (clock_gettime(2)).
pub fn milliseconds() -> u64 {
    let mut now = [0u64; 2];
    let clock = libc::CLOCK_MONOTONIC as usize;
    // SAFETY: the kernel writes a `struct timespec`: two words.
    unsafe { syscall(libc::SYS_clock_gettime, [clock, &raw mut now as usize]) };
    now[0] * 1000 + now[1] / 1_000_000
}

/// The first byte of the program's constants, in its first page, and the last one of
/// its code (link.ld).
#[unsafe(link_section = ".rodata.first")]
static FIRST: u8 = 0;
#[unsafe(link_section = ".last")]
static LAST: u8 = 0;

/// Lets children have the program and its memory below `end`, and nothing else: not
/// the arguments and the environment, nor what lies from `end` on, nor the vdso, which
/// may lie between the program and its memory on 64-bit Arm (madvise(2), MADV_DONTFORK).
/// Returns whether that is so.
pub fn dont_fork_beyond(end: *const u8) -> bool {
    let advise = |from: usize, to: usize, advice: c_int| {
        let args = [from, to - from, advice as usize];
        // SAFETY: it changes no memory of this process, and its children use nothing else.
        let done = ret(unsafe { syscall(libc::SYS_madvise, args) });
        // ENOMEM: somewhere nothing is mapped. The rest is done.
        matches!(done, Ok(_) | Err(Errno::NOMEM))
    };
    // All of a process is below isize::MAX. With usize::MAX the end could wrap to 0, when
    // the kernel rounds the length up to its pages: EINVAL.
    advise(0, &raw const STACK as usize, libc::MADV_DONTFORK)
        & advise(end as usize, isize::MAX as usize, libc::MADV_DONTFORK)
        & advise(&raw const FIRST as usize & !4095, &raw const LAST as usize + 1, libc::MADV_DOFORK)
}

/// seccomp(2): this filter for this process and its children, for good.
pub fn seccomp(filter: &[libc::sock_filter]) -> Result<()> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    let mode = libc::SECCOMP_SET_MODE_FILTER as usize;
    // SAFETY: the kernel reads `program` and the filter, whose length it gives.
    ret(unsafe { syscall(libc::SYS_seccomp, [mode, 0, &raw const program as usize]) }).map(|_| ())
}
