//! The table of children, and the two limits on their number.

use super::options::{MAX_CHILDREN, MAX_PER_SOURCE, MOST_CHILDREN};
use crate::sys::{Global, Sockaddr};
use rustix::process::Pid;

/// At most half of the places are taken, so one of so many is free.
const NEAR: usize = 64;

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
    /// The children in the first `count` places, the newest last, but for those that
    /// `remove` has moved.
    children: [Global<Child>; MOST_CHILDREN as usize],
    /// Sources, for `-C`, and how many children each has. A source stands in one of the
    /// `NEAR` places from its hash on; who has none has left it.
    sources: [Global<(u64, i32)>; 2 * MOST_CHILDREN as usize + NEAR],
}

/// Only the parent has this memory: it lies behind everything else (link.ld),
/// and a fork does not copy it.
// SAFETY: it is all zeros, as `.bss` is.
#[unsafe(link_section = ".bss.parent")]
pub static TABLE: Table = Table {
    count: Global::new(0),
    client: Global::new(Sockaddr::NONE),
    children: [const { Global::new(Child { pid: 0, client: Sockaddr::NONE }) }; _],
    sources: [const { Global::new((0, 0)) }; _],
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

#[inline(never)]
fn children() -> &'static [Global<Child>] {
    TABLE.children.get(..count()).unwrap_or_default()
}

/// Whether there may be one more child.
pub fn has_place() -> bool {
    count() < MAX_CHILDREN.get() as usize
}

/// Whether the source of `client` may have one more child.
pub fn may_have_one_more() -> bool {
    add_to_source(client(), 0) < MAX_PER_SOURCE.get() as i32
}

/// Changes the number of children of a client's source, and returns it.
///
/// Nobody can choose sources that come together: the kernel puts the program at a random
/// address.
fn add_to_source(client: &Sockaddr, change: i32) -> i32 {
    let (source, secret) = (source(client), &raw const TABLE as u64);
    let hash = ((source ^ secret).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as usize;
    let near = TABLE.sources.get(hash..hash + NEAR).unwrap_or_default();
    let mut own = None;
    for place in near {
        match place.get() {
            (owner, _) if owner == source => {
                own = Some(place);
                break;
            }
            (_, 0) => own = own.or(Some(place)),
            _ => {}
        }
    }
    let Some(place) = own else { return 0 };
    let children = 0.max(place.get().1 + change);
    place.set((source, children));
    children
}

/// Adds a child of `client`.
pub fn add(pid: Pid) {
    let n = count();
    if let Some(place) = TABLE.children.get(n) {
        place.set(Child { pid: pid.as_raw_pid(), client: TABLE.client.get() });
        TABLE.count.set(n + 1);
        add_to_source(client(), 1);
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
    let client = unsafe { &(*last.as_ptr()).client };
    add_to_source(client, -1);
    Some(client)
}

/// The pids of all children, mostly the newest last. Who reads from the end may remove the
/// one just read.
pub fn pids() -> impl DoubleEndedIterator<Item = Pid> {
    children().iter().filter_map(|child| Pid::from_raw(child.get().pid))
}

/// What counts as one source: an IPv4 address, or the /64 network of an IPv6 address.
fn source(client: &Sockaddr) -> u64 {
    match client.v4() {
        // No IPv6 network begins with 32 ones: they are multicast (RFC 4291, section 2.7).
        Some(v4) => u64::from(u32::MAX) << 32 | u64::from(u32::from_be_bytes(v4)),
        None => (u128::from_be_bytes(client.v6) >> 64) as u64,
    }
}
