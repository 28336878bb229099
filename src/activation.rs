//! Socket activation: a listening socket that systemd, or whoever speaks its
//! protocol, has opened for us (sd_listen_fds(3)).

use crate::fault::Fault;
use crate::line::message;
use crate::sys::{self, Fd, Strings};
use crate::{addr, drain};
use rustix::io::ioctl_fionbio;
use rustix::net::listen;

/// The first descriptor that is handed over.
const SD_LISTEN_FDS_START: i32 = 3;

/// The socket that the environment names, if it is for this process.
pub fn socket(env: Strings) -> Option<Fd> {
    let (mut pid, mut fds) = (None, None);
    for variable in env {
        if let Some(value) = variable.strip_prefix(b"LISTEN_PID=") {
            pid = addr::number(value, i32::MAX as u32);
        } else if let Some(value) = variable.strip_prefix(b"LISTEN_FDS=") {
            fds = addr::number(value, i32::MAX as u32);
        }
    }
    if pid? != drain::parent() as u32 {
        return None;
    }
    let listenfd = sys::fd(SD_LISTEN_FDS_START)?;
    if fds? != 1 {
        message(|line| _ = line.str("LISTEN_FDS is not 1"));
        sys::_exit(1)
    }
    // What listens already gets the longest queue that the system allows; what
    // cannot listen fails here.
    if let Err(e) = listen(listenfd, i32::MAX) {
        Fault("LISTEN_FDS", e).die(None);
    }
    // So that no connection takes the number of a standard stream: see there.
    if let Ok(fd) = sys::socket(libc::AF_INET) {
        sys::close(fd);
    }
    // Whoever opened it may have polled it; here accept blocks.
    let _ = ioctl_fionbio(listenfd, false);
    Some(listenfd)
}
