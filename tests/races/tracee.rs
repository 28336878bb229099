//! A process that is held and stepped with ptrace(2).

use crate::common::*;
use libc::*;
use std::io;
use std::thread;

/// The instruction that makes a system call: its bits among those of a word.
#[cfg(target_arch = "x86_64")]
const SYSCALL: (i64, i64) = (0xffff, 0x050f); // syscall
#[cfg(target_arch = "aarch64")]
const SYSCALL: (i64, i64) = (0xffff_ffff, 0xd400_0001); // svc #0

/// Bits of a stop at a system call (PTRACE_O_TRACESYSGOOD).
const AT_CALL: c_int = SIGTRAP | 0x80;

/// A stop because it has forked (PTRACE_O_TRACEFORK).
const FORKED: c_int = SIGTRAP | PTRACE_EVENT_FORK << 8;

/// A moment of a program's way: so many system calls, and then so many
/// instructions.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    calls: usize,
    steps: usize,
    /// The next instruction: its place in its page, for the kernel puts the program
    /// at another page each time.
    instruction: u64,
}

#[derive(Clone, Copy)]
pub struct Call {
    pub number: c_long,
    pub first_argument: u64,
    /// Below 0 for an error.
    pub result: i64,
}

/// Only the thread that has attached may use it.
pub struct Tracee {
    pid: pid_t,
    /// It waits in a call, which it makes again when it goes on.
    waits: bool,
    /// The calls that it has made.
    made: Vec<Call>,
}

impl Tracee {
    /// Stops a process that waits in a call.
    pub fn attach(pid: u32) -> io::Result<Tracee> {
        let tracee = Tracee { pid: pid as pid_t, waits: true, made: vec![] };
        // SAFETY: no pointers.
        if unsafe { ptrace(PTRACE_ATTACH, tracee.pid, 0, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
        assert_eq!(tracee.stop(), Ok(SIGSTOP));
        tracee.set_options(PTRACE_O_TRACESYSGOOD);
        Ok(tracee)
    }

    /// Lets the process go on until it has forked, and gives its child, which has
    /// not gone a step yet.
    pub fn forks(self) -> Tracee {
        self.set_options(PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK);
        assert_eq!(self.go_on(PTRACE_CONT), Ok(FORKED));
        let mut pid: c_ulong = 0;
        // SAFETY: the kernel writes one word.
        unsafe { ptrace(PTRACE_GETEVENTMSG, self.pid, 0, &mut pid) };
        let child = Tracee { pid: pid as pid_t, waits: false, made: vec![] };
        assert_eq!(child.stop(), Ok(SIGSTOP));
        self.let_go();
        child
    }

    pub fn pid(&self) -> u32 {
        self.pid as u32
    }

    /// A signal has come to it while it waited: it leaves the call.
    pub fn is_interrupted(&mut self) {
        self.waits = false;
    }

    /// Lets the process run, with all signals that have come.
    pub fn let_go(self) {
        // SAFETY: no pointers.
        let result = unsafe { ptrace(PTRACE_DETACH, self.pid, 0, 0) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
    }

    /// How often it has made this call with success.
    pub fn has_made(&self, number: c_long) -> usize {
        self.made.iter().filter(|call| call.number == number && call.result >= 0).count()
    }

    // ---------------------------------------------------------------- its way

    /// Goes the whole way and gives its moments. The way ends before the first
    /// call that `may` forbids.
    pub fn moments(&mut self, mut may: impl FnMut(&Tracee, Call) -> bool) -> Vec<Moment> {
        let mut moments = Vec::new();
        loop {
            let calls = self.made.len();
            for steps in 0.. {
                moments.push(Moment { calls, steps, instruction: self.instruction() });
                if self.is_before_call() {
                    break;
                }
                self.step().expect("a step");
            }
            if !self.call(&mut may).expect("a call") {
                return moments;
            }
        }
    }

    /// Goes the same way to one moment.
    pub fn go_to(
        &mut self,
        moment: Moment,
        mut may: impl FnMut(&Tracee, Call) -> bool,
    ) -> Result<(), String> {
        let mut on_its_way = true;
        for _ in 0..moment.calls {
            on_its_way &= self.call(&mut may)?;
        }
        for _ in 0..moment.steps {
            self.step()?;
        }
        on_its_way &= self.instruction() == moment.instruction;
        if on_its_way { Ok(()) } else { Err("it goes another way".into()) }
    }

    /// Goes on by one instruction, or to the first one of a handler.
    fn step(&mut self) -> Result<(), String> {
        self.waits = false;
        match self.go_on(PTRACE_SINGLESTEP)? {
            SIGTRAP => Ok(()),
            other => Err(format!("no step, but {other:#x}")),
        }
    }

    /// Goes on until its next call has returned; or only to its beginning, if `may`
    /// forbids it.
    fn call(&mut self, may: &mut impl FnMut(&Tracee, Call) -> bool) -> Result<bool, String> {
        self.waits = false;
        self.go_on_to_call()?;
        let mut call = self.look();
        if !may(self, call) {
            return Ok(false);
        }
        self.go_on_to_call().map_err(|why| format!("system call {}: {why}", call.number))?;
        call.result = self.look().result;
        self.made.push(call);
        Ok(true)
    }

    /// Goes on to the beginning of its next call, or from there to its end.
    fn go_on_to_call(&self) -> Result<(), String> {
        match self.go_on(PTRACE_SYSCALL)? {
            AT_CALL => Ok(()),
            other => Err(format!("no call, but {other:#x}")),
        }
    }

    // ---------------------------------------------------------------- ptrace

    fn set_options(&self, options: c_int) {
        // SAFETY: no pointers.
        unsafe { ptrace(PTRACE_SETOPTIONS, self.pid, 0, options) };
    }

    /// Goes on until it stops, other than for a signal, which it takes.
    fn go_on(&self, request: c_uint) -> Result<c_int, String> {
        let mut signal = 0;
        loop {
            // SAFETY: no pointers.
            unsafe { ptrace(request, self.pid, 0, signal) };
            match self.stop()? {
                stop @ (SIGTRAP | AT_CALL | FORKED) => return Ok(stop),
                other => signal = other,
            }
        }
    }

    /// Waits until it stops, and tells why.
    fn stop(&self) -> Result<c_int, String> {
        let mut status = 0;
        // SAFETY: the kernel writes an int.
        let mut stopped = || unsafe { waitpid(self.pid, &mut status, __WALL | WNOHANG) != 0 };
        // Nearly always it takes microseconds.
        let soon = (0..200).any(|_| {
            thread::yield_now();
            stopped()
        });
        if !soon && !within(DEADLINE, stopped) {
            return Err("it does not come back".into());
        }
        match WIFSTOPPED(status) {
            true => Ok(status >> 8),
            false => Err(format!("it has ended, status {status:#x}")),
        }
    }

    /// The call at whose beginning or end it stands.
    fn look(&self) -> Call {
        let info = self.info();
        // SAFETY: the kernel has written this half of the union at the beginning of
        // a call, and the other at its end.
        unsafe {
            let entry = info.u.entry;
            let result = info.u.exit.sval;
            Call { number: entry.nr as c_long, first_argument: entry.args[0], result }
        }
    }

    /// Whether the next thing that it does is a call.
    fn is_before_call(&self) -> bool {
        // SAFETY: no pointers of this process.
        let code = unsafe { ptrace(PTRACE_PEEKTEXT, self.pid, self.info().instruction_pointer, 0) };
        self.waits || code & SYSCALL.0 == SYSCALL.1
    }

    /// Where the next instruction stands in its page.
    fn instruction(&self) -> u64 {
        self.info().instruction_pointer % 4096
    }

    fn info(&self) -> ptrace_syscall_info {
        // SAFETY: all its fields are numbers, and the kernel writes as many bytes
        // as it is told.
        unsafe {
            let mut info: ptrace_syscall_info = std::mem::zeroed();
            let size = size_of_val(&info);
            let result = ptrace(PTRACE_GET_SYSCALL_INFO, self.pid, size, &mut info);
            assert!(result > 0, "{}", io::Error::last_os_error());
            info
        }
    }
}
