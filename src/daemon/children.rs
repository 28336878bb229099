//! The table of children, and the two limits on their number.

use super::options::{MAX_PER_SOURCE, MOST_CHILDREN};
use crate::sys::{Global, Sockaddr};
use rustix::process::Pid;

#[derive(Clone, Copy)]
struct Child {
    pid: i32,
    client: Sockaddr,
}

#[repr(C)]
pub struct Table {
    count: Global<usize>,
    /// The client that was accepted last: its child is forked next.
    pub client: Global<Sockaddr>,
    /// The children in the first `count` places, in no order.
    children: [Global<Child>; MOST_CHILDREN as usize],
}

/// Only the parent has this memory: it lies behind everything else (link.ld),
/// and a fork does not copy it.
// SAFETY: it is all zeros, as `.bss` is.
#[unsafe(link_section = ".bss.parent")]
pub static TABLE: Table = Table {
    count: Global::new(0),
    client: Global::new(Sockaddr::NONE),
    children: [const { Global::new(Child { pid: 0, client: Sockaddr::NONE }) }; _],
};

/// The client that was accepted last, in its place: a copy on the stack would be in the
/// memory of the next child.
pub fn client() -> &'static Sockaddr {
    // SAFETY: only accept writes it, and nobody keeps this until then.
    unsafe { &*TABLE.client.as_ptr() }
}

pub fn count() -> usize {
    TABLE.count.get()
}

fn children() -> &'static [Global<Child>] {
    TABLE.children.get(..count()).unwrap_or_default()
}

/// Whether the source of `client` may have one more child.
pub fn may_have_one_more() -> bool {
    let most = MAX_PER_SOURCE.get();
    let own = source(TABLE.client.get());
    let same = || children().iter().filter(|child| source(child.get().client) == own).count();
    most == MOST_CHILDREN || same() < most as usize
}

/// Adds a child of `client`.
pub fn add(pid: Pid) {
    let n = count();
    if let Some(place) = TABLE.children.get(n) {
        place.set(Child { pid: pid.as_raw_pid(), client: TABLE.client.get() });
        TABLE.count.set(n + 1);
    }
}

/// Removes a child and returns its client, in the table. Returns nothing for any other
/// process, such as an orphan that we get as process 1 (init(1)).
pub fn remove(pid: Pid) -> Option<&'static Sockaddr> {
    // The newest is looked at first: a short connection ends before old ones.
    let place = children().iter().rfind(|child| child.get().pid == pid.as_raw_pid())?;
    let (last, others) = children().split_last()?;
    TABLE.count.set(others.len());
    last.set(place.replace(last.get()));
    // SAFETY: it is written only when another child is added, and nobody keeps this until then.
    Some(unsafe { &(*last.as_ptr()).client })
}

/// The pids of all children. No child may be removed while they are read.
pub fn pids() -> impl Iterator<Item = Pid> {
    children().iter().filter_map(|child| Pid::from_raw(child.get().pid))
}

/// What counts as one source: an IPv4 address, or the /64 network of an IPv6
/// address.
fn source(client: Sockaddr) -> u64 {
    match client.v4() {
        // No IPv6 network begins with 32 ones: they are multicast (RFC 4291, section 2.7).
        Some(v4) => u64::from(u32::MAX) << 32 | u64::from(u32::from_be_bytes(v4)),
        None => (u128::from_be_bytes(client.v6) >> 64) as u64,
    }
}
