//! The table of children, and the two limits on their number.

use super::options::MOST_CHILDREN;
use super::options::Setting::MaxPerSource;
use crate::sys::{Global, Sockaddr};
use core::cell::Cell;
use rustix::process::Pid;

const MOST: usize = MOST_CHILDREN as usize;

#[repr(C)]
pub struct Table {
    count: Cell<usize>,
    /// The client that was accepted last: its child is forked next.
    pub client: Cell<Sockaddr>,
    /// The children in the first `count` places, in no order.
    pids: [Cell<i32>; MOST],
    clients: [Cell<Sockaddr>; MOST],
}

/// Only the parent has this memory: it lies behind everything else (link.ld),
/// and a fork does not copy it.
// SAFETY: it is all zeros, as `.bss` is.
#[unsafe(link_section = ".bss.parent")]
pub static TABLE: Global<Table> = Global(Table {
    count: Cell::new(0),
    client: Cell::new(Sockaddr::NONE),
    pids: [const { Cell::new(0) }; _],
    clients: [const { Cell::new(Sockaddr::NONE) }; _],
});

pub fn count() -> usize {
    TABLE.count.get().min(MOST)
}

/// Whether the source of `client` may have one more child.
pub fn may_have_one_more() -> bool {
    let most = MaxPerSource.get() as usize;
    let own = source(&TABLE.client);
    let clients = TABLE.clients.iter().take(count());
    most == MOST || clients.filter(|client| source(client) == own).count() < most
}

/// Adds a child of `client`.
pub fn add(pid: Pid) {
    let n = count();
    TABLE.pids[n % MOST].set(pid.as_raw_pid());
    TABLE.clients[n % MOST].set(TABLE.client.get());
    TABLE.count.set(n + 1);
}

/// Removes a child and returns its client. Returns nothing for any other process,
/// such as an orphan that we get as process 1 (init(1)).
pub fn remove(pid: Pid) -> Option<Sockaddr> {
    // The newest is looked at first: a short connection ends before old ones.
    let pids = TABLE.pids.get(..count())?;
    let i = pids.iter().rposition(|other| other.get() == pid.as_raw_pid())?;
    let (client, last) = (TABLE.clients[i % MOST].get(), pids.len() - 1);
    TABLE.pids[i % MOST].set(TABLE.pids[last % MOST].get());
    TABLE.clients[i % MOST].set(TABLE.clients[last % MOST].get());
    TABLE.count.set(last);
    Some(client)
}

/// The pids of all children. No child may be removed while they are read.
pub fn pids() -> impl Iterator<Item = Pid> {
    TABLE.pids.iter().take(count()).filter_map(|pid| Pid::from_raw(pid.get()))
}

/// What counts as one source: an IPv4 address, or the /64 network of an IPv6
/// address.
fn source(client: &Cell<Sockaddr>) -> u64 {
    let client = client.get();
    let [a, b, c, d, e, f, g, h, ..] = client.v6;
    u64::from_be_bytes(match client.v4() {
        // No IPv6 network begins with 32 ones: they are multicast (RFC 4291, section 2.7).
        Some([a, b, c, d]) => [255, 255, 255, 255, a, b, c, d],
        None => [a, b, c, d, e, f, g, h],
    })
}
