//! What the C gets from its library: program entry and arguments, fork,
//! signals, exit, and the calls that rustix leaves out or wraps in a check
//! that might panic.

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
mod arch;
mod errno;
pub mod mem;

use crate::RIO_BUFSIZE;
use core::ffi::{c_char, c_int};
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use core::ptr::null;
use rustix::fd::{AsRawFd, BorrowedFd, RawFd};
use rustix::io::{Errno, Result};
use rustix::process::{Pid, Signal};

/// A descriptor. As in C, it is open until `close`.
pub type Fd = BorrowedFd<'static>;

// SAFETY: nothing in this program closes them.
pub const STDOUT: Fd = unsafe { BorrowedFd::borrow_raw(libc::STDOUT_FILENO) };
// SAFETY: likewise.
pub const STDERR: Fd = unsafe { BorrowedFd::borrow_raw(libc::STDERR_FILENO) };

/// The buffer of a connection, in `_start`'s stack frame.
pub type Buf = [u8; RIO_BUFSIZE];

/// What `_start` calls: `stack` is where the kernel left argc and argv.
///
/// # Safety
///
/// `stack` and `buf` are as `_start` gives them, and nobody else uses `buf`.
unsafe extern "C" fn start(stack: *const usize, buf: *mut Buf) -> ! {
    // SAFETY: argv stands behind argc (execve(2); the ABI's process start).
    let args = Args(unsafe { stack.add(1) }.cast());
    // SAFETY: `_start` reserved it, and calls this once; the kernel's new stack
    // pages hold zeros.
    crate::main(args, unsafe { &mut *buf })
}

/// argv, as bytes.
pub struct Args(*const *const c_char);

impl Iterator for Args {
    type Item = &'static [u8];

    fn next(&mut self) -> Option<&'static [u8]> {
        // SAFETY: argv ends with a null pointer, which is not passed; its
        // strings end with NUL, and are there as long as the process.
        unsafe {
            let arg = *self.0;
            if arg.is_null() {
                return None;
            }
            self.0 = self.0.add(1);
            // Volatile, or this would become a call of strlen.
            let len = (0..).take_while(|&i| arg.add(i).read_volatile() != 0).count();
            Some(core::slice::from_raw_parts(arg.cast(), len))
        }
    }
}

/// A system call's result: a number, or from -4095 to -1 an error.
fn ret(value: usize) -> Result<usize> {
    match value as isize {
        error @ -4095..0 => Err(Errno::from_raw_os_error(-error as i32)),
        _ => Ok(value),
    }
}

/// The same for a call that returns a new descriptor.
fn ret_fd(value: usize) -> Result<Fd> {
    match ret(value)? as RawFd {
        // SAFETY: the kernel has just made it, for us.
        fd @ 0.. => Ok(unsafe { BorrowedFd::borrow_raw(fd) }),
        _ => Err(Errno::BADF),
    }
}

/// fork(2): the child's pid in the parent, nothing in the child.
pub fn fork() -> Result<Option<Pid>> {
    // SAFETY: there is one thread, so the child has all there is of the process.
    let pid = ret(unsafe { arch::fork() })?;
    Ok(Pid::from_raw(pid as i32))
}

/// _exit(2)
pub fn _exit(status: c_int) -> ! {
    loop {
        // SAFETY: it touches no memory, and does not return.
        unsafe { arch::syscall(libc::SYS_exit_group, status as usize, 0, 0, 0) };
    }
}

/// The kernel's `struct sigaction`, which is not the C library's.
#[repr(C)]
struct Action {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

/// What a signal does.
pub enum Handler {
    Ignore,
    Call(extern "C" fn(c_int)),
}

/// sigaction(2) with SA_RESTART. It cannot fail for a signal that may be caught.
pub fn signal(signal: Signal, handler: Handler) {
    let handler = match handler {
        Handler::Ignore => libc::SIG_IGN,
        Handler::Call(handler) => handler as usize,
    };
    let flags = (libc::SA_RESTART | arch::SA_RESTORER) as u64;
    let action = Action { handler, flags, restorer: arch::restorer as *const () as usize, mask: 0 };
    // SAFETY: the kernel reads `action`, whose mask has the 8 bytes given last.
    unsafe {
        arch::syscall(
            libc::SYS_rt_sigaction,
            signal.as_raw() as usize,
            &raw const action as usize,
            null::<Action>() as usize,
            size_of_val(&action.mask),
        );
    }
}

/// close(2). Nothing is left to do if it fails.
pub fn close(fd: Fd) {
    // SAFETY: a descriptor used after this would be an error to the kernel,
    // not to memory.
    unsafe { rustix::io::close(fd.as_raw_fd()) };
}

/// socket(2), for TCP over the family of `addr`. Never a number that the
/// standard streams have, or what is meant for one of those that is closed
/// would go to a client: such a socket stays open, unused, in its place.
///
/// rustix's own, like its accept, checks what the compiler cannot prove and
/// might panic.
pub fn socket(addr: &SocketAddr) -> Result<Fd> {
    let family = if addr.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET } as usize;
    loop {
        // SAFETY: it touches no memory.
        let fd = ret_fd(unsafe {
            arch::syscall(libc::SYS_socket, family, libc::SOCK_STREAM as usize, 0, 0)
        })?;
        if fd.as_raw_fd() > libc::STDERR_FILENO {
            return Ok(fd);
        }
    }
}

/// accept(2)
pub fn accept(listenfd: Fd) -> Result<Fd> {
    let fd = listenfd.as_raw_fd() as usize;
    // SAFETY: without a place for the address it touches no memory.
    ret_fd(unsafe { arch::syscall(libc::SYS_accept, fd, 0, 0, 0) })
}

/// getsockname(2), for an IPv4 or IPv6 socket.
pub fn getsockname(fd: Fd) -> Result<SocketAddr> {
    // A sockaddr_in6; its family, port and IPv4 address lie as in a sockaddr_in.
    let mut name = [0u8; size_of::<libc::sockaddr_in6>()];
    let mut len = name.len() as libc::socklen_t;
    let fd = fd.as_raw_fd() as usize;
    // SAFETY: the kernel writes at most `len` bytes to `name`, and `len`.
    ret(unsafe {
        arch::syscall(
            libc::SYS_getsockname,
            fd,
            name.as_mut_ptr() as usize,
            &raw mut len as usize,
            0,
        )
    })?;
    let [f0, f1, p0, p1, a, b, c, d, v6 @ .., _, _, _, _] = name;
    let port = u16::from_be_bytes([p0, p1]);
    Ok(match u16::from_ne_bytes([f0, f1]) as c_int {
        libc::AF_INET6 => (Ipv6Addr::from_octets(v6), port).into(),
        _ => (Ipv4Addr::new(a, b, c, d), port).into(),
    })
}

/// In a release build no panic can be reached, and this proves it: the symbol
/// exists nowhere, so that a program that needs it does not link.
#[cfg(not(debug_assertions))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    unsafe extern "C" {
        fn a_panic_is_reachable() -> !;
    }
    // SAFETY: it is never linked, let alone called.
    unsafe { a_panic_is_reachable() }
}

#[cfg(debug_assertions)]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    let place = info.location();
    crate::line::message(|line| {
        line.str("panic in ").str(place.map_or("", |at| at.file()));
        line.str(" at line ").num(place.map_or(0, |at| at.line() as usize));
    });
    _exit(101)
}

/// The core library, as it comes, names this for panics that unwind. Ours
/// do not; a release build drops the reference, a debug build cannot.
#[cfg(debug_assertions)]
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
