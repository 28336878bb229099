//! Messages to the service manager (sd_notify(3)).

use super::log::{Kind, failed};
use crate::sys::{self, Fd, Global, Strings};
use rustix::fd::AsRawFd;
use rustix::io::{Errno, Result, write};
use rustix::thread::Timespec;

/// How long the start waits for room in the manager's queue.
const LONGEST_WAIT: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// The socket to the service manager, or 0 if there is none.
static SOCKET: Global<i32> = Global::new(0);

/// Opens the socket that the environment names. The filter of calls allows no
/// new one later.
pub fn connect(env: Strings) -> Option<Result<Fd>> {
    env.getenv(b"NOTIFY_SOCKET").map(sys::connect)
}

/// Tells the manager that the server is ready. If its queue is full, this waits.
pub fn ready(manager: Option<Result<Fd>>) {
    let result = manager.map(|connected| {
        let fd = connected?;
        SOCKET.set(fd.as_raw_fd());
        loop {
            match write(fd, b"READY=1") {
                Err(Errno::AGAIN) if sys::poll_out(fd, Some(&LONGEST_WAIT)) => {}
                result => return result,
            }
        }
    });
    if let Some(Err(e)) = result {
        failed(Kind::Fault, "NOTIFY_SOCKET", e, None);
    }
}

/// Tells the manager that the server ends. It does not wait, and a manager that is gone
/// does no harm.
pub fn stopping() {
    if let Some(fd) = sys::fd(SOCKET.get()) {
        let _ = write(fd, b"STOPPING=1");
    }
}
