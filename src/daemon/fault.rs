//! Errors that end the program, and the line that says that IPv6 is not served.

use crate::sys::{self, Global, Sockaddr, message};
use rustix::io::Errno;

/// The call that failed first, its address and its error.
static FAULT: Global<Option<(&str, Sockaddr, Errno)>> = Global::new(None);

/// Whether there is a fault that matters: the machine may lack the family, or not let
/// it be bound.
fn matters() -> bool {
    let lacks_family = |e| matches!(e, Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL);
    FAULT.get().is_some_and(|(_, _, e)| !lacks_family(e))
}

/// Keeps the first fault that matters, or the last one if none does.
pub fn keep(call: &'static str, addr: &Sockaddr, e: Errno) {
    if !matters() {
        FAULT.set(Some((call, *addr, e)));
    }
}

/// Logs the call that failed, and why.
fn log() {
    if let Some((call, addr, e)) = FAULT.get() {
        let line = message(call);
        if addr.family != 0 {
            line.str(" ").addr(&addr);
        }
        line.str(": ").strerror(e.raw_os_error()).end();
    }
}

/// The C's `error_`: logs the call that failed first, and ends the program.
pub fn error_() -> ! {
    log();
    sys::_exit(1)
}

/// Like `error_`, for a call that has just failed.
pub fn die(call: &'static str, e: Errno) -> ! {
    FAULT.set(Some((call, Sockaddr::NONE, e)));
    error_()
}

/// Logs why IPv6 is not served, unless the machine lacks it.
pub fn log_unserved() {
    if matters() {
        log();
    }
}
