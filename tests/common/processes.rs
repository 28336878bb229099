//! What /proc tells of a process (proc(5)), and signals and limits for it.

use super::*;
use std::fs;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::ptr;

/// State letter and parent of a process, none when it does not exist (proc(5)).
pub fn stat(pid: u32) -> Option<(char, u32)> {
    let line = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let line = String::from_utf8_lossy(&line);
    let mut fields = line[line.rfind(')')? + 1..].split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}

/// Its state letter, `-` when it does not exist.
pub fn state(pid: u32) -> char {
    stat(pid).map_or('-', |(state, _)| state)
}

/// Stops a process and waits until it has stopped.
pub fn stop(pid: u32) {
    kill(pid as i32, libc::SIGSTOP);
    wait_for("the process stops", || state(pid) == 'T');
}

/// It has ended. An orphan's zombie is its new parent's business.
pub fn has_ended(pid: u32) -> bool {
    matches!(state(pid), '-' | 'Z')
}

/// Whether the process is blocked in this call (proc(5), syscall).
pub fn calls(pid: u32, number: i64) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    call.split(' ').next() == Some(&number.to_string())
}

/// How many of a signal wait for the process and for its thread (proc(5), ShdPnd
/// and SigPnd).
pub fn pending(pid: u32, signal: i32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let masks = status.lines().filter_map(|line| {
        line.strip_prefix("ShdPnd:\t").or_else(|| line.strip_prefix("SigPnd:\t"))
    });
    let masks = masks.map(|mask| u64::from_str_radix(mask, 16).expect("hexadecimal"));
    masks.filter(|mask| mask & 1 << (signal - 1) != 0).count()
}

/// The children of a process, zombies too.
pub fn children_of(pid: u32) -> Vec<u32> {
    pids().filter(|&child| matches!(stat(child), Some((_, parent)) if parent == pid)).collect()
}

/// The processes of a group, zombies too.
pub fn members_of(group: u32) -> Vec<u32> {
    // SAFETY: getpgid takes no pointers.
    pids().filter(|&pid| unsafe { libc::getpgid(pid as i32) } == group as i32).collect()
}

/// No process of the group exists, not even a zombie.
pub fn nobody_in_group(group: i32) -> bool {
    // SAFETY: no pointers.
    unsafe { libc::kill(-group, 0) != 0 }
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The same from one file, for those who ask all the time (proc(5)): it may miss
/// some while others end.
pub fn children_now(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("children");
    list.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect()
}

/// How many children the process has had at one moment, at least. The list alone may
/// name more: one that has ended while it was read, and one that has come since. Who
/// is still there afterwards was there together with all others.
pub fn children_at_once(pid: u32) -> usize {
    let is_child = |&&child: &&u32| stat(child).is_some_and(|(_, parent)| parent == pid);
    children_now(pid).iter().filter(is_child).count()
}

/// Sets a soft limit of a process, 0 for this one, and gives the one before (prlimit(2)).
pub fn set_limit(pid: u32, resource: libc::__rlimit_resource_t, soft: u64) -> u64 {
    let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limits outlive the calls.
    let results = unsafe {
        let first = libc::prlimit(pid as i32, resource, ptr::null(), &mut before);
        let limit = libc::rlimit { rlim_cur: soft.min(before.rlim_max), ..before };
        [first, libc::prlimit(pid as i32, resource, &limit, ptr::null_mut())]
    };
    assert_eq!(results, [0, 0], "prlimit: {}", io::Error::last_os_error());
    before.rlim_cur
}

/// Lets a process open no more descriptors, and gives the limit before.
pub fn no_more_descriptors(pid: u32) -> u64 {
    let open = descriptors(pid);
    let free = (0..).find(|n| open.iter().all(|(fd, _)| fd != n)).unwrap();
    set_limit(pid, libc::RLIMIT_NOFILE, free.into())
}

/// What each open descriptor of a process points to: `socket:[4026]`, `/dev/null`.
pub fn descriptors(pid: u32) -> Vec<(u32, String)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    let open = entries.flatten().filter_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, target.to_string_lossy().into_owned()))
    });
    open.collect()
}

/// One TCP socket of a process, with its own port and its peer's.
#[derive(Debug)]
pub struct Tcp {
    pub listens: bool,
    pub port: u16,
    pub peer: u16,
}

/// The TCP sockets among a process's descriptors.
pub fn tcp_sockets(pid: u32) -> Vec<Tcp> {
    const TCP_LISTEN: &str = "0A";
    let port = |address: &str| u16::from_str_radix(address.rsplit(':').next()?, 16).ok();
    let open = descriptors(pid);
    let mut sockets = Vec::new();
    for family in ["tcp", "tcp6"] {
        let table = fs::read_to_string(format!("/proc/{pid}/net/{family}")).unwrap_or_default();
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let socket = format!("socket:[{}]", fields[9]);
            if open.iter().any(|(_, target)| *target == socket) {
                let (own, peer) = (port(fields[1]).unwrap(), port(fields[2]).unwrap());
                sockets.push(Tcp { listens: fields[3] == TCP_LISTEN, port: own, peer });
            }
        }
    }
    sockets
}

/// Resets the connection of a child that is stopped, after an end of file, and waits
/// until the child's end is gone: what the child does then meets the reset.
pub fn reset_unseen(client: TcpStream, child: u32) {
    let port = client.local_addr().expect("its address").port();
    client.shutdown(Shutdown::Write).expect("shutdown");
    reset(client);
    let is_there = || tcp_sockets(child).iter().any(|tcp| tcp.peer == port);
    wait_for("the reset has come", || !is_there());
}

/// The port of the process's listening TCP socket.
pub fn listening_port(pid: u32) -> Option<u16> {
    tcp_sockets(pid).iter().find(|tcp| tcp.listens).map(|tcp| tcp.port)
}

/// kill(2); a process that is gone already is no error.
pub fn kill(pid: i32, signal: i32) {
    // SAFETY: kill takes no pointers.
    unsafe { libc::kill(pid, signal) };
}
