//! Errors that end the program, and the line that says that IPv6 is not served.

use crate::sys::{self, Global, Sockaddr, message};
use rustix::io::Errno;

/// The call that failed first, its address and its error.
#[derive(Clone, Copy)]
struct Fault(&'static str, Sockaddr, Errno);

static FAULT: Global<Option<Fault>> = Global::new(None);

/// Whether the machine lacks the family, or does not let it be bound.
fn lacks_family(Fault(_, _, e): Fault) -> bool {
    matches!(e, Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL)
}

/// Keeps the first fault, since that is the one that matters, unless it says
/// that the machine lacks the family.
pub fn keep(call: &'static str, addr: Sockaddr, e: Errno) {
    if FAULT.get().is_none_or(lacks_family) {
        FAULT.set(Some(Fault(call, addr, e)));
    }
}

/// Logs the call that failed, and why.
fn log(Fault(call, addr, e): Fault) {
    let line = message();
    line.str(call);
    if addr.family != 0 {
        line.str(" ").addr(&addr);
    }
    line.str(": ").strerror(e.raw_os_error()).end();
}

/// The C's `error_`: logs the call that failed first, and ends the program.
pub fn error_() -> ! {
    if let Some(fault) = FAULT.get() {
        log(fault);
    }
    sys::_exit(1)
}

/// Like `error_`, for a call that has just failed.
pub fn die(call: &'static str, e: Errno) -> ! {
    FAULT.set(Some(Fault(call, Sockaddr::NONE, e)));
    error_()
}

/// Logs why IPv6 is not served, unless the machine lacks it.
pub fn log_unserved() {
    if let Some(fault) = FAULT.get().filter(|&fault| !lacks_family(fault)) {
        log(fault);
    }
}
