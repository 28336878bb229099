//! What the service manager is told (sd_notify(3)).

use super::log::{Kind, failed};
use crate::sys::{self, Global, Sockaddr, Strings};
use rustix::fd::AsRawFd;
use rustix::io::write;

/// The socket to the service manager, or 0 if there is none.
static SOCKET: Global<i32> = Global::new(0);

/// Opens the socket that the environment names. The filter of calls allows no
/// new one later.
pub fn connect(env: Strings) {
    if let Some(path) = env.getenv(b"NOTIFY_SOCKET") {
        match sys::connect(path) {
            Ok(fd) => SOCKET.set(fd.as_raw_fd()),
            Err(e) => failed(Kind::Fault, "NOTIFY_SOCKET", e, &Sockaddr::NONE),
        }
    }
}

/// Tells a new state. It does not wait, and a manager that is gone does no harm.
pub fn notify(state: &str) {
    if let Some(fd) = sys::fd(SOCKET.get()) {
        let _ = write(fd, state.as_bytes());
    }
}
