//! What the running server may still do.

use crate::common::*;
use std::process::Command;

#[test]
fn parent_and_child_are_filtered() {
    if emulated() {
        return;
    }
    let server = Server::start(&["echo", "0"]);
    let _client = server.connect();
    let child = server.wait_for_children(1)[0];
    for pid in [server.pid, child] {
        assert_eq!(status(pid, "Seccomp"), "2");
        assert_eq!(status(pid, "Seccomp_filters"), "1");
        assert_eq!(status(pid, "NoNewPrivs"), "1");
    }
}

#[test]
fn without_seccomp_it_says_so_and_serves() {
    if !tool("strace") {
        return;
    }
    for (call, error) in [("seccomp", "ENOSYS"), ("seccomp", "EINVAL"), ("prctl", "EINVAL")] {
        let fault = format!("-e inject={call}:error={error}");
        let server = Server::spawn(&mut traced("/dev/null".as_ref(), &fault, &["echo", "0"]));
        assert_eq!(exchange(server.connect(), b"hello\n"), b"hello\n");
        let lines = server.stderr.lines();
        assert_eq!(lines[0], format!("forkline: serving without seccomp: {error}"));
        let forkline = server.children()[0];
        assert_eq!(status(forkline, "Seccomp"), "0");
    }
}

/// Else a child would have the addresses of all clients, and nobody would know.
#[test]
fn without_madvise_it_says_so_and_serves() {
    if !tool("strace") {
        return;
    }
    for (when, error) in [(1, "EINVAL"), (2, "EINVAL"), (1, "ENOSYS")] {
        let fault = format!("-e inject=madvise:error={error}:when={when}");
        let server = Server::spawn(&mut traced("/dev/null".as_ref(), &fault, &["echo", "0"]));
        assert_eq!(exchange(server.connect(), b"hello\n"), b"hello\n");
        let lines = server.stderr.lines();
        assert_eq!(lines[0], "forkline: serving without MADV_DONTFORK", "{error}");
    }
}

// ---------------------------------------------------------------- users

#[test]
fn it_becomes_the_user_for_good() {
    if !root() {
        return;
    }
    for (user, uid, gid) in [("65534", 65534, 65534), ("1234:4321", 1234, 4321)] {
        let server = Server::start(&["-u", user, "echo", "0"]);
        let client = server.connect();
        let child = server.wait_for_children(1)[0];
        for pid in [server.pid, child] {
            assert_eq!(status(pid, "Uid"), format!("{uid} {uid} {uid} {uid}"));
            assert_eq!(status(pid, "Gid"), format!("{gid} {gid} {gid} {gid}"));
            assert_eq!(status(pid, "Groups"), "");
            for capabilities in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                assert_eq!(status(pid, capabilities), "0000000000000000");
            }
        }
        assert_eq!(exchange(client, b"hello\n"), b"hello\n");
    }
}

/// A starter that is not root may have some, and one that is may have asked to keep all.
#[test]
fn no_capability_survives_the_change_of_user() {
    if !root() || !tool("setpriv") {
        return;
    }
    let capabilities = "+setuid,+setgid,+kill,+dac_read_search";
    let not_root = [
        "--reuid=1000",
        "--regid=1000",
        "--clear-groups",
        &format!("--inh-caps={capabilities}"),
        &format!("--ambient-caps={capabilities}"),
    ];
    for starter in [&not_root[..], &["--securebits=+no_setuid_fixup"]] {
        let mut setpriv = Command::new("setpriv");
        setpriv.args(starter).args(command_line(&["-u", "65534", "echo", "0"]));
        let server = Server::spawn(piped(&mut setpriv));
        let _client = server.connect();
        let child = server.wait_for_children(1)[0];
        for pid in [server.pid, child] {
            assert_eq!(status(pid, "Uid"), "65534 65534 65534 65534");
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                assert_eq!(status(pid, set), "0000000000000000", "{set} after {starter:?}");
            }
        }
    }
}

// ---------------------------------------------------------------- the filter

mod filter {
    use super::*;
    use libc::*;
    use std::io;
    use std::ptr::null_mut;

    /// The arguments of setsockopt and getsockopt.
    const fn option(fd: u64, level: c_int, name: c_int, len: u64) -> [u64; 6] {
        [fd, level as u64, name as u64, 0, len, 0]
    }
    const NOWAIT: u64 = RWF_NOWAIT as u64;
    const CLOCK: u64 = CLOCK_MONOTONIC as u64;

    /// Calls that an attacker would want, with arguments as they would be.
    const FATAL: &[(&str, c_long, [u64; 6])] = &[
        ("execve", SYS_execve, [0; 6]),
        ("execveat", SYS_execveat, [0; 6]),
        ("openat", SYS_openat, [AT_FDCWD as u64, 0, 0, 0, 0, 0]),
        ("openat2", SYS_openat2, [0; 6]),
        ("read", SYS_read, [0; 6]),
        ("socket", SYS_socket, [AF_INET as u64, SOCK_STREAM as u64, 0, 0, 0, 0]),
        ("socketpair", SYS_socketpair, [0; 6]),
        ("bind", SYS_bind, [4, 0, 0, 0, 0, 0]),
        ("listen", SYS_listen, [4, 1, 0, 0, 0, 0]),
        ("sendmsg", SYS_sendmsg, [4, 0, 0, 0, 0, 0]),
        ("recvmsg", SYS_recvmsg, [4, 0, 0, 0, 0, 0]),
        ("mmap", SYS_mmap, [0, 4096, (PROT_READ | PROT_EXEC) as u64, 34, u64::MAX, 0]),
        ("mmap of data", SYS_mmap, [0, 4096, PROT_READ as u64, 34, u64::MAX, 0]),
        ("mprotect", SYS_mprotect, [0, 4096, (PROT_READ | PROT_EXEC) as u64, 0, 0, 0]),
        ("memfd_create", SYS_memfd_create, [0; 6]),
        (
            "clone of a thread",
            SYS_clone,
            [(CLONE_VM | CLONE_THREAD | CLONE_SIGHAND) as u64, 0, 0, 0, 0, 0],
        ),
        ("clone of a namespace", SYS_clone, [(CLONE_NEWUSER | SIGCHLD) as u64, 0, 0, 0, 0, 0]),
        ("clone3", SYS_clone3, [0; 6]),
        ("ptrace", SYS_ptrace, [PTRACE_TRACEME as u64, 0, 0, 0, 0, 0]),
        ("process_vm_readv", SYS_process_vm_readv, [1, 0, 0, 0, 0, 0]),
        ("pidfd_open", SYS_pidfd_open, [1, 0, 0, 0, 0, 0]),
        ("kill of all", SYS_kill, [-1i32 as u64, SIGKILL as u64, 0, 0, 0, 0]),
        ("kill of all, in 32 bits", SYS_kill, [u32::MAX as u64, SIGKILL as u64, 0, 0, 0, 0]),
        ("kill of the group", SYS_kill, [0, SIGKILL as u64, 0, 0, 0, 0]),
        ("kill with SIGSTOP", SYS_kill, [1, SIGSTOP as u64, 0, 0, 0, 0]),
        ("tgkill", SYS_tgkill, [1, 1, SIGKILL as u64, 0, 0, 0]),
        ("shutdown of sending", SYS_shutdown, [4, SHUT_WR as u64, 0, 0, 0, 0]),
        ("setsockopt of a filter", SYS_setsockopt, option(4, SOL_SOCKET, SO_ATTACH_FILTER, 0)),
        ("setsockopt of TCP", SYS_setsockopt, option(4, SOL_TCP, SO_LINGER, 0)),
        ("getsockopt", SYS_getsockopt, [4, 0, 0, 0, 0, 0]),
        ("getsockopt of TCP_CONGESTION", SYS_getsockopt, option(4, SOL_TCP, TCP_CONGESTION, 0)),
        ("setsockopt of SO_REUSEPORT", SYS_setsockopt, option(4, SOL_SOCKET, SO_REUSEPORT, 4)),
        ("close_range", SYS_close_range, [3, u32::MAX as u64, 0, 0, 0, 0]),
        ("accept4", SYS_accept4, [3, 0, 0, 0, 0, 0]),
        ("futex", SYS_futex, [0, FUTEX_WAKE as u64, 1, 0, 0, 0]),
        ("setitimer of SIGPROF", SYS_setitimer, [ITIMER_PROF as u64, 0, 0, 0, 0, 0]),
        ("setitimer that stores", SYS_setitimer, [ITIMER_REAL as u64, 0, 8, 0, 0, 0]),
        ("nanosleep", SYS_nanosleep, [0; 6]),
        ("rt_sigaction", SYS_rt_sigaction, [SIGTERM as u64, 0, 0, 8, 0, 0]),
        ("rt_sigtimedwait", SYS_rt_sigtimedwait, [0; 6]),
        ("getppid", SYS_getppid, [0; 6]),
        ("waitid", SYS_waitid, [P_ALL as u64, 0, 0, WEXITED as u64, 0, 0]),
        ("madvise", SYS_madvise, [0; 6]),
        ("munmap", SYS_munmap, [0; 6]),
        ("brk", SYS_brk, [0; 6]),
        ("sched_setaffinity", SYS_sched_setaffinity, [0, 128, 0, 0, 0, 0]),
        ("prctl", SYS_prctl, [PR_SET_DUMPABLE as u64, 1, 0, 0, 0, 0]),
        ("seccomp", SYS_seccomp, [0; 6]),
        ("setresuid", SYS_setresuid, [0; 6]),
        ("io_uring_setup", SYS_io_uring_setup, [1, 0, 0, 0, 0, 0]),
        ("bpf", SYS_bpf, [0; 6]),
        ("unshare", SYS_unshare, [CLONE_NEWUSER as u64, 0, 0, 0, 0, 0]),
        ("mount", SYS_mount, [0; 6]),
        ("dup", SYS_dup, [4, 0, 0, 0, 0, 0]),
        ("fcntl", SYS_fcntl, [4, 0, 0, 0, 0, 0]),
        ("ioctl", SYS_ioctl, [4, 0, 0, 0, 0, 0]),
        ("ioctl of FIONBIO", SYS_ioctl, [4, FIONBIO, 0, 0, 0, 0]),
        ("ioctl of TIOCOUTQ", SYS_ioctl, [4, TIOCOUTQ, 0, 0, 0, 0]),
        ("connect", SYS_connect, [4, 0, 0, 0, 0, 0]),
        ("shutdown", SYS_shutdown, [4, SHUT_WR as u64, 0, 0, 0, 0]),
        ("sendto with an address", SYS_sendto, [4, 0, 0, 0, 0, 16]),
        // It would write over what others have written, also in a file for appending.
        ("pwritev2 that does not append", SYS_pwritev2, [2, 0, 0, 0, 0, 0x20]),
        ("pwritev2 that does not append, at the end", SYS_pwritev2, [2, 0, 0, u64::MAX, 0, 0x20]),
        ("pwritev2 at an offset", SYS_pwritev2, [2, 0, 0, 0, 0, NOWAIT]),
        ("pwritev2 at 4 GiB - 1", SYS_pwritev2, [2, 0, 0, u32::MAX as u64, 0, NOWAIT]),
        ("pwritev2 at -4 GiB", SYS_pwritev2, [2, 0, 0, (u32::MAX as u64) << 32, 0, NOWAIT]),
        ("pwritev2 that waits", SYS_pwritev2, [2, 0, 0, u64::MAX, 0, 0]),
        // The processor time of process 1 (clock_getcpuclockid(3)).
        ("clock_gettime of a process", SYS_clock_gettime, [(!1u32 << 3 | 2) as u64, 0, 0, 0, 0, 0]),
        ("a call of the future", 1000, [0; 6]),
    ];

    /// Calls that 64-bit Arm has not.
    #[cfg(target_arch = "x86_64")]
    const FATAL_HERE: &[(&str, c_long, [u64; 6])] = &[
        ("open", SYS_open, [0; 6]),
        ("creat", SYS_creat, [0; 6]),
        ("stat", SYS_stat, [0; 6]),
        ("unlink", SYS_unlink, [0; 6]),
        ("fork", SYS_fork, [0; 6]),
        ("vfork", SYS_vfork, [0; 6]),
        ("poll", SYS_poll, [0; 6]),
        ("alarm", SYS_alarm, [0; 6]),
        ("an x32 call", 0x4000_0000 | SYS_getpid, [0; 6]),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    const FATAL_HERE: &[(&str, c_long, [u64; 6])] = &[];

    /// Calls that the server makes, and what the kernel says of these. Those that
    /// end the child, or return to a handler, or fork are made by each connection.
    const ALLOWED: &[(&str, c_long, [u64; 6], c_int)] = &[
        ("recvfrom", SYS_recvfrom, [999, 0, 0, 0, 0, 0], -EBADF),
        ("sendto", SYS_sendto, [999, 0, 0, 0, 0, 0], -EBADF),
        ("write", SYS_write, [999, 0, 0, 0, 0, 0], -EBADF),
        ("rt_sigprocmask", SYS_rt_sigprocmask, [0, 0, 0, 999, 0, 0], -EINVAL),
        ("accept", SYS_accept, [999, 0, 0, 0, 0, 0], -EBADF),
        ("close", SYS_close, [999, 0, 0, 0, 0, 0], -EBADF),
        ("wait4", SYS_wait4, [u64::MAX, 0, 0, 0, 0, 0], -ECHILD),
        ("sigaltstack", SYS_sigaltstack, [1, 0, 0, 0, 0, 0], -EFAULT),
        ("clock_gettime", SYS_clock_gettime, [CLOCK, 1, 0, 0, 0, 0], -EFAULT),
        ("ppoll", SYS_ppoll, [0, 0, 1, 0, 0, 0], -EFAULT),
        ("pwritev2", SYS_pwritev2, [999, 0, 0, u64::MAX, 0, NOWAIT], -EBADF),
        ("SO_LINGER", SYS_setsockopt, option(999, SOL_SOCKET, SO_LINGER, 8), -EBADF),
        ("SO_SNDBUF", SYS_setsockopt, option(999, SOL_SOCKET, SO_SNDBUF, 4), -EBADF),
        ("SO_RCVTIMEO", SYS_setsockopt, option(999, SOL_SOCKET, SO_RCVTIMEO, 16), -EBADF),
        ("SO_SNDTIMEO", SYS_setsockopt, option(999, SOL_SOCKET, SO_SNDTIMEO, 16), -EBADF),
        ("TCP_INFO", SYS_getsockopt, option(999, SOL_TCP, TCP_INFO, 0), -EBADF),
        ("SIGTERM", SYS_kill, [i32::MAX as u64, SIGTERM as u64, 0, 0, 0, 0], -ESRCH),
        ("SIGQUIT", SYS_kill, [i32::MAX as u64, SIGQUIT as u64, 0, 0, 0, 0], -ESRCH),
        ("SIGKILL", SYS_kill, [i32::MAX as u64, SIGKILL as u64, 0, 0, 0, 0], -ESRCH),
        ("SIGCONT", SYS_kill, [i32::MAX as u64, SIGCONT as u64, 0, 0, 0, 0], -ESRCH),
        ("SIGALRM", SYS_setitimer, [ITIMER_REAL as u64, 1, 0, 0, 0, 0], -EFAULT),
        ("no call", -1, [0; 6], -ENOSYS),
    ];

    /// Calls that are allowed with arguments of zero.
    const ALLOWED_WITH_ZEROS: &[c_long] = &[
        SYS_recvfrom,
        SYS_write,
        SYS_rt_sigprocmask,
        SYS_accept,
        SYS_close,
        SYS_wait4,
        SYS_rt_sigreturn,
        SYS_exit_group,
        SYS_sigaltstack,
        SYS_ppoll,
        SYS_getpid,
        SYS_setitimer,
        SYS_sendto,
        SYS_setitimer,
    ];

    #[test]
    fn any_other_call_is_fatal() {
        if emulated() {
            return;
        }
        let server = Server::start(&["-v", "echo", "0"]);
        let fatal = || FATAL.iter().chain(FATAL_HERE);
        for &(name, call, args) in fatal() {
            match attempt(&server, call, args) {
                Ok(end) => assert_eq!(end, Err(SIGSYS), "{name}"),
                Err(e) => return skipped(&format!("no ptrace: {e}")),
            }
        }
        assert!(FATAL.len() >= 30);
        for &(name, call, args, result) in ALLOWED {
            let expected = Ok(result.into());
            assert_eq!(attempt(&server, call, args).expect("ptrace"), expected, "{name}");
        }
        assert_eq!(exchange(server.connect(), b"hello\n"), b"hello\n");
        let told = |line: &&String| line.contains(" reason=signal signal=31 ");
        wait_for("the ends are told", || {
            server.stderr.lines().iter().filter(told).count() == fatal().count()
        });
    }

    #[test]
    fn no_number_of_a_call_is_forgotten() {
        if emulated() {
            return;
        }
        let server = Server::start(&["-q", "echo", "0"]);
        for call in 0..=LAST_CALL {
            // 335 and 336 on x86-64, uretprobe and uprobe: newer kernels ask no filter.
            if cfg!(target_arch = "x86_64") && [335, 336].contains(&call) {
                continue;
            }
            let mut args = [0; 6];
            if call == SYS_ppoll {
                args[2] = 1; // a time that cannot be read; 0 means for ever
            }
            let end = match attempt(&server, call, args) {
                Ok(end) => end,
                Err(e) => return skipped(&format!("no ptrace: {e}")),
            };
            let allowed = ALLOWED_WITH_ZEROS.contains(&call);
            assert_eq!(end != Err(SIGSYS), allowed, "call {call}: {end:?}");
        }
    }

    /// There are 470 or so today.
    const LAST_CALL: c_long = 511;

    /// Makes a child that waits in recv make this call, and gives its result or exit
    /// status, or the signal that ended the child.
    fn attempt(server: &Server, call: c_long, args: [u64; 6]) -> io::Result<Result<i64, c_int>> {
        let client = server.connect();
        let mut child = 0;
        wait_for("the child waits", || {
            child = children_now(server.pid).first().map_or(0, |&pid| pid as pid_t);
            child != 0 && calls(child as u32, SYS_recvfrom)
        });
        // SAFETY: ptrace(2) and waitpid(2) with places of ours for what they give.
        let result = unsafe {
            if ptrace(PTRACE_ATTACH, child, 0, 0) != 0 {
                return Err(io::Error::last_os_error());
            }
            let mut status = 0;
            assert_eq!(waitpid(child, &mut status, 0), child);
            let mut registers: user_regs_struct = std::mem::zeroed();
            let mut place =
                iovec { iov_base: (&raw mut registers).cast(), iov_len: size_of_val(&registers) };
            let place = &raw mut place;
            assert_eq!(ptrace(PTRACE_GETREGSET, child, NT_PRSTATUS, place), 0);
            prepare(&mut registers, call, args);
            assert_eq!(ptrace(PTRACE_SETREGSET, child, NT_PRSTATUS, place), 0);
            assert_eq!(ptrace(PTRACE_SINGLESTEP, child, 0, 0), 0);
            assert_eq!(waitpid(child, &mut status, 0), child);
            if WIFSIGNALED(status) {
                Err(WTERMSIG(status))
            } else if WIFEXITED(status) {
                Ok(WEXITSTATUS(status).into())
            } else {
                assert_eq!(ptrace(PTRACE_GETREGSET, child, NT_PRSTATUS, place), 0);
                ptrace(PTRACE_KILL, child, 0, 0);
                waitpid(child, null_mut(), 0);
                Ok(result_of(&registers))
            }
        };
        drop(client);
        wait_for("its end", || children_now(server.pid).is_empty());
        Ok(result)
    }

    /// It stands behind a syscall instruction, which is two bytes; no call is to be
    /// restarted.
    #[cfg(target_arch = "x86_64")]
    fn prepare(registers: &mut user_regs_struct, call: c_long, args: [u64; 6]) {
        registers.rip -= 2;
        registers.orig_rax = u64::MAX;
        registers.rax = call as u64;
        [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9] =
            args;
    }

    #[cfg(target_arch = "x86_64")]
    fn result_of(registers: &user_regs_struct) -> i64 {
        registers.rax as i64
    }

    /// It stands at the svc instruction: to restart the call, the kernel has put it back.
    #[cfg(target_arch = "aarch64")]
    fn prepare(registers: &mut user_regs_struct, call: c_long, args: [u64; 6]) {
        registers.regs[8] = call as u64;
        registers.regs[..6].copy_from_slice(&args);
    }

    #[cfg(target_arch = "aarch64")]
    fn result_of(registers: &user_regs_struct) -> i64 {
        registers.regs[0] as i64
    }
}
