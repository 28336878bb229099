//! What the C gets from its library: program entry and arguments, fork,
//! signals, exit, and the calls that rustix leaves out or wraps in a check
//! that might panic.

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
mod arch;
mod errno;
pub mod mem;

use crate::RIO_BUFSIZE;
use crate::fault::Fault;
pub use arch::{AUDIT_ARCH, rot13_blocks};
use core::ffi::{c_char, c_int, c_long, c_void};
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use core::ops::Deref;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering::Relaxed};
use rustix::fd::{AsRawFd, BorrowedFd, RawFd};
use rustix::io::{Errno, Result};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
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
    // SAFETY: argv stands behind argc, and behind its null pointer envp
    // (execve(2); the ABI's process start).
    let (args, env) = unsafe { (stack.add(1), stack.add(*stack + 2)) };
    let (args, env) = (Strings(args.cast()), Strings(env.cast()));
    arch::look_around();
    // SAFETY: `_start` reserved it, and calls this once; the kernel's new stack
    // pages hold zeros.
    crate::main(args, env, unsafe { &mut *buf })
}

/// argv or envp, as bytes.
pub struct Strings(*const *const c_char);

impl Iterator for Strings {
    type Item = &'static [u8];

    #[inline(never)]
    fn next(&mut self) -> Option<&'static [u8]> {
        // SAFETY: the array ends with a null pointer, which is not passed; its
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

/// The same value, of a call that returns a new descriptor.
fn ret_fd(value: usize) -> Result<Fd> {
    match value as RawFd {
        // SAFETY: the kernel has just made it, for us.
        fd @ 0.. => Ok(unsafe { BorrowedFd::borrow_raw(fd) }),
        _ => Err(Errno::BADF),
    }
}

/// Where `fork` has the kernel write the child's pid before the child runs.
static PID: AtomicPtr<u32> = AtomicPtr::new(null_mut());

pub fn record_forks(pid: &'static AtomicU32) {
    PID.store(pid.as_ptr(), Relaxed);
}

/// fork(2), as clone(2), which every architecture has: the child's pid in the
/// parent, nothing in the child.
pub fn fork() -> Result<Option<Pid>> {
    let pid = PID.load(Relaxed);
    let record = if pid.is_null() { 0 } else { libc::CLONE_PARENT_SETTID };
    let args = [(libc::SIGCHLD | record) as usize, 0, pid as usize];
    // SAFETY: there is one thread, so the child has all there is of the
    // process; without a stack of its own it goes on with a copy of ours. The
    // kernel writes at most to `PID`, which is there for good.
    let pid = ret(unsafe { arch::syscall(libc::SYS_clone, args) })?;
    Ok(Pid::from_raw(pid as i32))
}

/// _exit(2)
pub fn _exit(status: c_int) -> ! {
    loop {
        // SAFETY: it touches no memory, and does not return.
        unsafe { arch::syscall(libc::SYS_exit_group, [status as usize]) };
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

/// Lets handlers run on a stack of their own (sigaltstack(2)), which a fork does
/// not copy: on the stack proper the parent's would write to a page that the
/// newest child shares, which costs a fault and a copy of it.
pub fn signal_stack() {
    const STACK: usize = 64 * 1024;
    // A stack_t.
    let stack = [new_pages(STACK, false) as usize, 0, STACK];
    // SAFETY: the kernel reads `stack`, and nobody else uses that memory.
    unsafe { arch::syscall(libc::SYS_sigaltstack, [&raw const stack as usize, 0]) };
}

/// sigaction(2) with SA_RESTART and SA_ONSTACK. It cannot fail for a signal that may be caught.
#[inline(never)]
pub fn signal(signal: Signal, handler: Handler) {
    let handler = match handler {
        Handler::Ignore => libc::SIG_IGN,
        Handler::Call(handler) => handler as usize,
    };
    let flags = (libc::SA_RESTART | libc::SA_ONSTACK | arch::SA_RESTORER) as u64;
    let action = Action { handler, flags, restorer: arch::restorer as *const () as usize, mask: 0 };
    // SAFETY: the kernel reads `action`, whose mask has the 8 bytes given last.
    unsafe {
        arch::syscall(
            libc::SYS_rt_sigaction,
            [signal.as_raw() as usize, &raw const action as usize, 0, size_of_val(&action.mask)],
        );
    }
}

/// close(2). Nothing is left to do if it fails.
pub fn close(fd: Fd) {
    // SAFETY: a descriptor used after this would be an error to the kernel,
    // not to memory.
    unsafe { rustix::io::close(fd.as_raw_fd()) };
}

/// socket(2), for TCP over AF_INET or AF_INET6. Never a number that the
/// standard streams have, or what is meant for one of those that is closed
/// would go to a client: such a socket stays open, unused, in its place.
///
/// rustix's own, like its accept, checks what the compiler cannot prove and
/// might panic.
#[inline(never)]
pub fn socket(family: c_int) -> Result<Fd> {
    loop {
        let args = [family as usize, libc::SOCK_STREAM as usize];
        // SAFETY: it touches no memory.
        let fd = ret_fd(ret(unsafe { arch::syscall(libc::SYS_socket, args) })?)?;
        if fd.as_raw_fd() > libc::STDERR_FILENO {
            return Ok(fd);
        }
    }
}

/// setsockopt(2), for an option that is an int or a structure of them.
#[inline(never)]
pub fn setsockopt(fd: Fd, level: c_int, option: c_int, value: &[u32]) -> Result<()> {
    let (fd, level, option) = (fd.as_raw_fd() as usize, level as usize, option as usize);
    let (start, len) = (value.as_ptr() as usize, size_of_val(value));
    // SAFETY: the kernel reads as many bytes as it is told that `value` has.
    ret(unsafe { arch::syscall(libc::SYS_setsockopt, [fd, level, option, start, len]) })?;
    Ok(())
}

/// Bytes sent that have not been acknowledged (tcp(7), SIOCOUTQ).
pub fn unacknowledged(fd: Fd) -> u32 {
    let mut bytes = 0;
    let args = [fd.as_raw_fd() as usize, libc::TIOCOUTQ as usize, &raw mut bytes as usize];
    // SAFETY: the kernel writes an int.
    unsafe { arch::syscall(libc::SYS_ioctl, args) };
    bytes
}

/// accept(2), with the client's address.
pub fn accept(listenfd: Fd) -> Result<(Fd, SocketAddr)> {
    let mut name = Name([0; _]);
    let connfd = ret_fd(name.filled_by(libc::SYS_accept, listenfd)?)?;
    Ok((connfd, name.addr()?))
}

/// getsockname(2), for an IPv4 or IPv6 socket.
pub fn getsockname(fd: Fd) -> Result<SocketAddr> {
    let mut name = Name([0; _]);
    name.filled_by(libc::SYS_getsockname, fd)?;
    name.addr()
}

/// A sockaddr_in6. Family, port and IPv4 address lie there as in a sockaddr_in.
struct Name([u8; size_of::<libc::sockaddr_in6>()]);

impl Name {
    /// Makes a call that takes a descriptor and a place for an address.
    fn filled_by(&mut self, number: c_long, fd: Fd) -> Result<usize> {
        let mut len = self.0.len() as libc::socklen_t;
        let (name, len) = (self.0.as_mut_ptr() as usize, &raw mut len as usize);
        // SAFETY: the kernel writes as many bytes as `len` says, and `len`.
        ret(unsafe { arch::syscall(number, [fd.as_raw_fd() as usize, name, len]) })
    }

    /// An IPv4 address as such, also where it came mapped into an IPv6 one.
    #[inline(never)]
    fn addr(&self) -> Result<SocketAddr> {
        let [f0, f1, p0, p1, a, b, c, d, v6 @ .., _, _, _, _] = self.0;
        let port = u16::from_be_bytes([p0, p1]);
        let [mapped @ .., e, f, g, h] = v6;
        let v4 = match u16::from_ne_bytes([f0, f1]).into() {
            libc::AF_INET => [a, b, c, d],
            libc::AF_INET6 if mapped == *b"\0\0\0\0\0\0\0\0\0\0\xff\xff" => [e, f, g, h],
            libc::AF_INET6 => return Ok((Ipv6Addr::from_octets(v6), port).into()),
            _ => return Err(Errno::AFNOSUPPORT),
        };
        Ok((Ipv4Addr::from_octets(v4), port).into())
    }
}

/// The signals that end the service, and those that its end waits for, as the
/// kernel's `sigset_t`.
const SIGNALS: u64 = 1 << (libc::SIGCHLD - 1)
    | 1 << (libc::SIGTERM - 1)
    | 1 << (libc::SIGINT - 1)
    | 1 << (libc::SIGHUP - 1)
    | 1 << (libc::SIGQUIT - 1)
    | 1 << (libc::SIGALRM - 1);

/// sigprocmask(2): blocks the signals of the end and no other, or none at all.
pub fn block_signals(block: bool) {
    let set = if block { SIGNALS } else { 0 };
    let how = libc::SIG_SETMASK as usize;
    // SAFETY: the kernel reads `set`, whose size is given last.
    unsafe { arch::syscall(libc::SYS_rt_sigprocmask, [how, &raw const set as usize, 0, 8]) };
}

/// sigwaitinfo(2): the next of the signals of the end, which are blocked.
pub fn wait_for_signal() -> c_int {
    let set = SIGNALS;
    loop {
        let args = [&raw const set as usize, 0, 0, 8];
        // SAFETY: the kernel reads `set`, whose size is given last.
        let signal = unsafe { arch::syscall(libc::SYS_rt_sigtimedwait, args) } as c_int;
        // Not when a SIGCONT ends it (signal(7)).
        if signal > 0 {
            return signal;
        }
    }
}

/// alarm(2): SIGALRM in so many seconds. It is setitimer(2), which every
/// architecture has, and a microsecond more, or 0 would be never.
pub fn alarm(seconds: u32) {
    let timer: [u64; 4] = [0, 0, seconds.into(), 1];
    // SAFETY: the kernel reads a `struct itimerval`: four words.
    unsafe {
        arch::syscall(libc::SYS_setitimer, [libc::ITIMER_REAL as usize, &raw const timer as usize])
    };
}

/// Whether that process is a child of ours, or its zombie (waitid(2)).
pub fn is_child(pid: u32) -> bool {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    let args = [libc::P_PID as usize, pid as usize, 0, options as usize];
    // SAFETY: without a place for what it finds it touches no memory.
    ret(unsafe { arch::syscall(libc::SYS_waitid, args) }).is_ok()
}

/// A set of processors.
type Processors = [AtomicU64; 16];
/// Those that this process began with.
static PROCESSORS: Processors = [const { AtomicU64::new(0) }; _];

/// How many processors this process may use (sched_getaffinity(2)).
pub fn processors() -> u32 {
    set_or_get(libc::SYS_sched_getaffinity, &PROCESSORS);
    (0..1024).map(|i| u32::from(may_use(i))).sum()
}

/// Whether those are numbered from 0 to `n` - 1.
pub fn are_the_first(n: u32) -> bool {
    (0..n as usize).all(may_use)
}

fn may_use(i: usize) -> bool {
    PROCESSORS[i / 64 % PROCESSORS.len()].load(Relaxed) >> (i % 64) & 1 != 0
}

/// Lets this process run on the `n`th of them only, counted in a circle
/// (sched_setaffinity(2)).
pub fn stay_on(mut n: usize) {
    static ONE: Processors = [const { AtomicU64::new(0) }; _];
    for i in 0..64 * 1024 {
        if may_use(i) {
            if n == 0 {
                ONE[i / 64 % ONE.len()].store(1 << (i % 64), Relaxed);
                break;
            }
            n -= 1;
        }
    }
    set_or_get(libc::SYS_sched_setaffinity, &ONE);
}

/// Lets this process run where it might in the beginning.
pub fn run_anywhere() {
    set_or_get(libc::SYS_sched_setaffinity, &PROCESSORS);
}

fn set_or_get(call: c_long, processors: &'static Processors) {
    let args = [0, size_of_val(processors), processors.as_ptr() as usize];
    // SAFETY: the kernel reads or writes as many bytes as it is told.
    unsafe { arch::syscall(call, args) };
}

/// clock_gettime(2): milliseconds that only go up.
pub fn milliseconds() -> u64 {
    let mut now = [0u64; 2];
    let clock = libc::CLOCK_MONOTONIC_COARSE as usize;
    // SAFETY: the kernel writes a `struct timespec`: two words.
    unsafe { arch::syscall(libc::SYS_clock_gettime, [clock, &raw mut now as usize]) };
    now[0] * 1000 + now[1] / 1_000_000
}

/// What nobody outside can guess: where the kernel put our stack.
pub fn random() -> u64 {
    let here = 0u8;
    &raw const here as u64
}

/// A descriptor that is known by its number; none is 0 here, where stdin is.
pub fn fd(number: RawFd) -> Option<Fd> {
    match number {
        // SAFETY: it is not -1, which is all that could hurt.
        1.. => Some(unsafe { BorrowedFd::borrow_raw(number) }),
        _ => None,
    }
}

/// Memory of its own pages, all zero, which a fork does not copy.
pub struct Pages<T>(AtomicPtr<T>);

impl<T> Pages<T> {
    /// No memory yet: `map` it before any use.
    pub const fn unmapped() -> Pages<T> {
        Pages(AtomicPtr::new(null_mut()))
    }

    /// Maps the memory of `n` of them (mmap(2)): `shared` with the children, who
    /// see what any process writes, or kept from them, who find zeros
    /// (madvise(2), MADV_WIPEONFORK; before Linux 4.14 they get copies).
    ///
    /// # Safety
    ///
    /// Zeros are a valid `T`.
    pub unsafe fn map(&self, shared: bool, n: usize) {
        self.0.store(new_pages(n * size_of::<T>(), shared).cast(), Relaxed);
    }

    /// Makes this one of those that another has mapped.
    pub fn point_to(&self, one: &'static T) {
        self.0.store(&raw const *one as *mut T, Relaxed);
    }

    /// All of them.
    ///
    /// # Safety
    ///
    /// `map` was called with this `n`.
    pub unsafe fn all(&self, n: usize) -> &'static [T] {
        // SAFETY: the caller's.
        unsafe { core::slice::from_raw_parts(self.0.load(Relaxed), n) }
    }
}

#[inline(never)]
fn new_pages(len: usize, shared: bool) -> *mut c_void {
    let flags = if shared { MapFlags::SHARED } else { MapFlags::PRIVATE };
    // SAFETY: new pages, that nobody else has.
    unsafe {
        match mmap_anonymous(null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, flags) {
            Ok(pages) => {
                if !shared {
                    let _ = madvise(pages, len, Advice::LinuxWipeOnFork);
                }
                pages
            }
            Err(e) => Fault("mmap", e).die(None),
        }
    }
}

impl<T> Deref for Pages<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: mapped, for as long as the process is there.
        unsafe { &*self.0.load(Relaxed) }
    }
}

/// setgroups(2), setresgid(2), setresuid(2); the one that failed.
pub fn set_ids(uid: u32, gid: u32) -> core::result::Result<(), (&'static str, Errno)> {
    let (uid, gid) = (uid as usize, gid as usize);
    // SAFETY: none of them touches memory: the list of groups is empty.
    unsafe {
        ret(arch::syscall(libc::SYS_setgroups, [])).map_err(|e| ("setgroups", e))?;
        ret(arch::syscall(libc::SYS_setresgid, [gid, gid, gid])).map_err(|e| ("setresgid", e))?;
        ret(arch::syscall(libc::SYS_setresuid, [uid, uid, uid])).map_err(|e| ("setresuid", e))?;
    }
    Ok(())
}

/// seccomp(2): this filter for this process and its children, for good.
pub fn seccomp(filter: &[libc::sock_filter]) -> Result<()> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    let mode = libc::SECCOMP_SET_MODE_FILTER as usize;
    // SAFETY: the kernel reads `program` and as much of the filter as it says.
    ret(unsafe { arch::syscall(libc::SYS_seccomp, [mode, 0, &raw const program as usize]) })?;
    Ok(())
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
