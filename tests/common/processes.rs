//! What /proc tells of a process (proc(5)), and signals and limits for it.

use super::*;
use std::fs::{self, File};
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::FileExt;
use std::ptr;

/// A file of the process's directory, `status` or `net/tcp`; empty when it has ended.
pub fn proc(pid: u32, file: &str) -> String {
    let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    text(&bytes)
}

/// What a line of its status says: `2` for `Seccomp`, `0 0 0 0` for `Uid`.
pub fn status(pid: u32, name: &str) -> String {
    let status = proc(pid, "status");
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The fields of its stat behind the name, from the state letter on.
pub fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let stat = proc(pid, "stat");
    Some(stat[stat.rfind(')')? + 1..].split_whitespace().map(String::from).collect())
}

/// State letter and parent of a process, none when it does not exist.
pub fn stat(pid: u32) -> Option<(char, u32)> {
    let fields = stat_fields(pid)?;
    Some((fields.first()?.chars().next()?, fields.get(1)?.parse().ok()?))
}

/// Processor time that it has used, in clock ticks: its own, and that of children that
/// it has waited for.
pub fn ticks(pid: u32) -> [u64; 2] {
    let fields = stat_fields(pid).unwrap_or_default();
    let tick = |at: usize| fields.get(at).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    [tick(11) + tick(12), tick(13) + tick(14)]
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

/// Whether the process is blocked in this call.
pub fn calls(pid: u32, number: i64) -> bool {
    proc(pid, "syscall").split(' ').next() == Some(&number.to_string())
}

/// Whether it waits in accept. It sleeps there; strace stops it, too, at the beginning
/// and the end of the call. An emulator makes another call for it.
pub fn accepts(pid: u32) -> bool {
    (calls(pid, libc::SYS_accept) || calls(pid, libc::SYS_accept4)) && state(pid) == 'S'
}

/// Whether one of its masks of signals has this one: `SigIgn`, `ShdPnd` and so on.
pub fn has_signal(pid: u32, mask: &str, signal: i32) -> bool {
    u64::from_str_radix(&status(pid, mask), 16).is_ok_and(|mask| mask & 1 << (signal - 1) != 0)
}

/// How many of a signal wait for the process and for its thread.
pub fn pending(pid: u32, signal: i32) -> usize {
    ["ShdPnd", "SigPnd"].iter().filter(|mask| has_signal(pid, mask, signal)).count()
}

/// Open descriptors, resident and private KiB.
pub fn footprint(pid: u32) -> [isize; 3] {
    let rollup = proc(pid, "smaps_rollup");
    let kib = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    [descriptors(pid).len() as isize, kib("Rss:"), kib("Private_Dirty:")]
}

/// The regions of its memory: from, to, and the rest of the line. The kernel's page with
/// old system calls is in every process.
pub fn regions(pid: u32) -> Vec<(u64, u64, String)> {
    let maps = proc(pid, "maps");
    let regions = maps.lines().filter(|line| !line.ends_with("[vsyscall]")).map(|line| {
        let (range, rest) = line.split_once(' ').expect("a region");
        let (from, to) = range.split_once('-').expect("a range");
        let address = |text| u64::from_str_radix(text, 16).expect("an address");
        (address(from), address(to), rest.to_owned())
    });
    regions.collect()
}

/// What stands in the regions that are wanted and can be read: not in the kernel's
/// variables.
pub fn memory(pid: u32, wanted: impl Fn(&str) -> bool) -> io::Result<Vec<Vec<u8>>> {
    let file = File::open(format!("/proc/{pid}/mem"))?;
    let regions = regions(pid).into_iter().filter(|(_, _, rest)| wanted(rest));
    let read = |(from, to, _)| {
        let mut bytes = vec![0; (to - from) as usize];
        file.read_exact_at(&mut bytes, from).is_ok().then_some(bytes)
    };
    Ok(regions.filter_map(read).collect())
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

/// One TCP socket of a process, with its own port and its peer's, and how many bytes
/// have come and are not received.
#[derive(Debug)]
pub struct Tcp {
    pub listens: bool,
    pub port: u16,
    pub peer: u16,
    pub unread: usize,
    inode: String,
}

/// All TCP sockets of a process's network.
fn all_tcp_sockets(pid: u32) -> Vec<Tcp> {
    const TCP_LISTEN: &str = "0A";
    let number = |field: &str| usize::from_str_radix(field.rsplit(':').next()?, 16).ok();
    let tables = ["tcp", "tcp6"].map(|family| proc(pid, &format!("net/{family}")));
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    let sockets = lines.map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [port, peer, unread] = [1, 2, 4].map(|i| number(fields[i]).expect("hexadecimal"));
        let (port, peer, inode) = (port as u16, peer as u16, fields[9].into());
        Tcp { listens: fields[3] == TCP_LISTEN, port, peer, unread, inode }
    });
    sockets.collect()
}

/// The TCP sockets among a process's descriptors.
pub fn tcp_sockets(pid: u32) -> Vec<Tcp> {
    let open = descriptors(pid);
    let mut sockets = all_tcp_sockets(pid);
    sockets.retain(|tcp| {
        let name = format!("socket:[{}]", tcp.inode);
        open.iter().any(|(_, target)| *target == name)
    });
    sockets
}

/// Bytes that have come to the other end of this connection, on this machine, and have
/// not been received there.
pub fn unread(client: &TcpStream) -> Option<usize> {
    let ports = (client.peer_addr().unwrap().port(), client.local_addr().unwrap().port());
    let sockets = all_tcp_sockets(std::process::id());
    sockets.iter().find(|tcp| (tcp.port, tcp.peer) == ports).map(|tcp| tcp.unread)
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
