//! What this machine has and permits, and files of a test's own.

use super::*;
use std::env;
use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{TcpListener, UdpSocket};
use std::ops::Deref;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// The processors that this process may use (sched_getaffinity(2)).
pub fn processors() -> Vec<usize> {
    // SAFETY: zeros are an empty set, which the kernel fills.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        assert_eq!(libc::sched_getaffinity(0, size_of_val(&set), &mut set), 0);
        set
    };
    // SAFETY: these are the bits of the set.
    (0..libc::CPU_SETSIZE as usize).filter(|&i| unsafe { libc::CPU_ISSET(i, &set) }).collect()
}

/// Gives a network of our own one more address (ip-address(8)).
pub fn add_address(address: &str) {
    let mut ip = Command::new("ip");
    ip.args(["addr", "add", &format!("{address}/128"), "dev", "lo", "nodad"]);
    assert!(run(&mut ip).status.success(), "{address}");
}

/// Whether an emulator runs forkline; says `skipped:` when it does. It has calls, memory
/// and a thread of its own, but no seccomp, no subreapers and no TCP_INFO, and keeps a
/// few signals for itself.
pub fn emulated() -> bool {
    let emulated = env::var_os("FORKLINE").is_some();
    if emulated {
        tell_skipped("not in an emulator");
    }
    emulated
}

/// Whether a program is installed and of use; says `skipped:` when it is not.
pub fn tool(name: &str) -> bool {
    if name == "strace" && emulated() {
        return false;
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).any(|directory| directory.join(name).is_file());
    if !found {
        skipped(&format!("no {name} here"));
    }
    found
}

/// Whether this is root; says `skipped:` when it is not.
pub fn root() -> bool {
    // SAFETY: it cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        skipped("not root");
    }
    root
}

/// Whether the machine has IPv6; says `skipped:` when it has not.
pub fn ipv6() -> bool {
    let found = TcpListener::bind("[::1]:0").is_ok();
    if !found {
        skipped("no IPv6 here");
    }
    found
}

/// Gives this thread, and what it starts from now on, a network that has
/// loopback only (`unshare -n`, `ip link set lo up`); false where that is not
/// permitted.
pub fn own_network() -> bool {
    // SAFETY: no pointers.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return false;
    }
    // SAFETY: all its fields are numbers.
    let mut lo: libc::ifreq = unsafe { std::mem::zeroed() };
    lo.ifr_name[..2].copy_from_slice(&b"lo".map(|c| c as libc::c_char));
    lo.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    // SAFETY: for this request (netdevice(7)) the kernel reads an ifreq.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &lo) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    true
}

/// Says so where the test's captured output would hide it; with
/// FORKLINE_TEST_ALL=1 nothing may be skipped.
pub fn skipped(why: &str) {
    assert!(env::var("FORKLINE_TEST_ALL").as_deref() != Ok("1"), "skipped: {why}");
    tell_skipped(why);
}

fn tell_skipped(why: &str) {
    let test = thread::current().name().unwrap_or("test").to_owned();
    let _ = writeln!(io::stderr(), "skipped: {test}: {why}");
}

/// Writes a file unless it is there already: cargo builds what is newer.
pub fn write_if_changed(file: &Path, text: &str) {
    if fs::read_to_string(file).ok().as_deref() != Some(text) {
        fs::create_dir_all(file.parent().unwrap()).expect("a directory");
        fs::write(file, text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
}

/// A path for a file or directory of this test alone, removed in the end.
pub struct Scratch(PathBuf);

pub fn scratch(name: &str) -> Scratch {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("{name}-{}-{n}", std::process::id());
    Scratch(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name))
}

/// The same for a socket: its path may have 107 bytes at most (unix(7)).
pub fn scratch_socket() -> Scratch {
    Scratch(env::temp_dir().join(format!("forkline-{:016x}", fastrand::u64(..))))
}

impl Deref for Scratch {
    type Target = Path;
    fn deref(&self) -> &Path {
        &self.0
    }
}

impl AsRef<std::ffi::OsStr> for Scratch {
    fn as_ref(&self) -> &std::ffi::OsStr {
        self.0.as_ref()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0).or_else(|_| fs::remove_dir_all(&self.0));
    }
}

/// The two ends of a new terminal, for a person and for a program (pty(7)). Neither
/// is inherited by what another test starts at this moment.
pub fn terminal() -> io::Result<(File, File)> {
    let result = |value: i32| if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value) };
    let mut name = [0; 64];
    // SAFETY: the descriptor is new and ours, and the name has room for 64 bytes.
    let person = unsafe {
        let fd = result(libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC))?;
        let person = File::from_raw_fd(fd);
        result(libc::grantpt(fd))?;
        result(libc::unlockpt(fd))?;
        result(-libc::ptsname_r(fd, name.as_mut_ptr(), name.len()))?;
        person
    };
    // SAFETY: ptsname_r has ended it with a NUL.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
    let mut options = File::options();
    let program = options.read(true).write(true).custom_flags(libc::O_NOCTTY).open(name)?;
    Ok((person, program))
}
