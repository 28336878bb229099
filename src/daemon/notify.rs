//! Messages to the service manager (sd_notify(3)).

use super::log::{Kind, failed};
use crate::sys::{self, Global, Strings};
use rustix::fd::AsRawFd;
use rustix::io::{Errno, Result, write};

/// How many milliseconds the start waits for room in the manager's queue.
const LONGEST_WAIT: u32 = 5000;

/// The socket to the service manager, or 0 if there is none.
static SOCKET: Global<i32> = Global::new(0);

/// Opens the socket that the environment names. The filter of calls allows no
/// new one later.
pub fn connect(env: Strings) -> Result<()> {
    if let Some(path) = env.getenv(b"NOTIFY_SOCKET") {
        SOCKET.set(sys::connect(path)?.as_raw_fd());
    }
    Ok(())
}

/// Tells the manager that the server is ready. If its queue is full, this waits.
pub fn ready(mut result: Result<()>) {
    if let Some(fd) = sys::fd(SOCKET.get()) {
        while let Err(e) = write(fd, b"READY=1") {
            if e != Errno::AGAIN || !sys::poll_out(fd, LONGEST_WAIT) {
                result = Err(e);
                break;
            }
        }
    }
    if let Err(e) = result {
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
