//! The children there are, and how many of them each source has: the two caps.
//!
//! Only the parent uses this memory, and a fork gives its child none of it, so
//! a fork shares nothing that the parent writes. `ended` is the signal handler's,
//! all else the main program's; what they tell each other is one word each.

use crate::args::Options;
use crate::fault::{self, Fault};
use crate::line::{Line, message};
use crate::sys::{self, Pages};
use core::net::{IpAddr, SocketAddr};
use core::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed,
};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitStatus, getpid, kill_process};
use rustix::thread::futex;

/// The most children that can be asked for.
pub const MOST: usize = 32768;
/// A map is at most half full, so that a search ends soon.
const SLOTS: usize = 2 * MOST;

struct Children {
    /// Children ever forked, and foreign ones ever reaped.
    begun: AtomicUsize,
    /// How many of those have been reaped; the pids of the last of them.
    ended: AtomicUsize,
    ended_pids: [AtomicU32; SLOTS],
    /// How many of those have left the maps.
    settled: AtomicUsize,
    /// Counts the signals that the wait for a free place must notice.
    events: AtomicU32,
    /// Each child's source.
    sources: Map,
    /// Each source's children.
    counts: Map,
}

static CHILDREN: Pages<Children> = Pages::unmapped();
// Children read these too.
static MAX: AtomicUsize = AtomicUsize::new(0);
static MAX_PER_SOURCE: AtomicU32 = AtomicU32::new(0);
static VERBOSE: AtomicBool = AtomicBool::new(false);

/// To be called once, before the first child.
pub fn limit(options: &Options) {
    // SAFETY: numbers may be zero.
    unsafe { CHILDREN.map(false) };
    MAX.store(options.max_children as usize, Relaxed);
    VERBOSE.store(options.verbose, Relaxed);
    MAX_PER_SOURCE.store(options.max_per_source, Relaxed);
    MASK.store((2 * options.max_children).next_power_of_two() as usize - 1, Relaxed);
    SEED.store(sys::random() | 1, Relaxed);
}

/// Returns when one more child may be forked, or none ever again because a
/// signal has ended the service.
pub fn wait_for_place() {
    let children = &*CHILDREN;
    loop {
        // Whatever changes after this makes the wait return at once.
        let seen = children.events.load(Acquire);
        settle();
        if taken() < MAX.load(Relaxed) || crate::drain::asked() {
            return;
        }
        let _ = futex::wait(&children.events, futex::Flags::PRIVATE, seen, None);
    }
}

/// Counts a child for this client before it is forked, and returns the number
/// of children with it; nothing if its source has as many as it may.
pub fn admit(client: &SocketAddr) -> Option<usize> {
    settle();
    let children = &*CHILDREN;
    let source = source(client);
    let of_source = children.counts.get(source).unwrap_or(0);
    if of_source >= MAX_PER_SOURCE.load(Relaxed).into() {
        fault::refuse(client, of_source);
        return None;
    }
    children.counts.set(source, of_source + 1);
    children.begun.store(children.begun.load(Relaxed) + 1, Relaxed);
    Some(taken())
}

/// The child that `admit` counted is there.
pub fn forked(pid: Pid, client: &SocketAddr) {
    let pid = pid.as_raw_pid() as u64;
    // One that had this pid before may have ended since.
    while CHILDREN.sources.get(pid).is_some() && unsettled() > 0 {
        settle_one();
    }
    CHILDREN.sources.set(pid, source(client));
}

/// The child that `admit` counted could not be forked.
pub fn not_forked(client: &SocketAddr, e: Errno) {
    let children = &*CHILDREN;
    Fault("fork", e).warn();
    children.begun.store(children.begun.load(Relaxed) - 1, Relaxed);
    uncount(source(client));
}

/// The child that `admit` counted tells that it serves.
pub fn tell_start(client: &SocketAddr, n: usize) {
    if verbose() {
        message(|line| {
            line.str("accept ").addr(client).str(" pid ").num(getpid().as_raw_pid() as usize);
            line.places(n);
        });
    }
}

/// Whether the signal handler may reap: what it has reaped and nobody has
/// settled must fit the list. `settle` asks for the rest.
pub fn room() -> bool {
    unsettled() <= MASK.load(Relaxed) | 1023
}

/// The signal handler has reaped this one.
pub fn ended(pid: Pid, status: WaitStatus) {
    let children = &*CHILDREN;
    let ended = children.ended.load(Relaxed);
    children.ended_pid(ended).store(pid.as_raw_pid() as u32, Relaxed);
    children.ended.store(ended + 1, Relaxed);
    event();
    if !verbose() && !status.signaled() {
        return;
    }
    message(|line| {
        line.str("end pid ").num(pid.as_raw_pid() as usize);
        match status.terminating_signal() {
            Some(signal) => line.str(" signal ").num(signal as usize),
            None => line.str(" exit ").num(status.exit_status().unwrap_or(0) as usize),
        };
        line.places(count());
    });
}

/// Makes `wait_for_place` look again.
pub fn event() {
    CHILDREN.events.fetch_add(1, Relaxed);
}

/// Takes those who have ended out of the maps.
#[inline(never)]
pub fn settle() {
    let full = !room();
    while unsettled() > 0 {
        settle_one();
    }
    if full {
        // The signal handler has left some for later.
        let _ = kill_process(getpid(), Signal::CHILD);
    }
}

#[inline(never)]
fn settle_one() {
    let children = &*CHILDREN;
    let settled = children.settled.load(Relaxed);
    let pid = children.ended_pid(settled).load(Relaxed);
    match children.sources.remove(pid.into()) {
        Some(source) => uncount(source),
        // Somebody else's child, left to us as process 1 (init(1)).
        None => children.begun.store(children.begun.load(Relaxed) + 1, Relaxed),
    }
    children.settled.store(settled + 1, Relaxed);
}

/// The pids of all children that have not been settled.
pub fn pids() -> impl Iterator<Item = Pid> {
    CHILDREN.sources.keys().filter_map(|pid| Pid::from_raw(pid as i32))
}

/// The children that have not been settled: what the caps go by, since the
/// signal handler does not change it.
fn taken() -> usize {
    let children = &*CHILDREN;
    children.begun.load(Relaxed) - children.settled.load(Relaxed)
}

/// The children that have not been reaped.
#[inline(never)]
pub fn count() -> usize {
    let children = &*CHILDREN;
    children.begun.load(Relaxed).saturating_sub(children.ended.load(Relaxed))
}

pub fn verbose() -> bool {
    VERBOSE.load(Relaxed)
}

#[inline(never)]
fn unsettled() -> usize {
    let children = &*CHILDREN;
    children.ended.load(Acquire).wrapping_sub(children.settled.load(Relaxed))
}

fn uncount(source: u64) {
    let children = &*CHILDREN;
    match children.counts.get(source) {
        Some(n) if n > 1 => children.counts.set(source, n - 1),
        _ => _ = children.counts.remove(source),
    }
}

/// What counts as one source: an IPv4 address, or the /64 of an IPv6 one.
/// Never 0: that marks a free slot.
#[inline(never)]
fn source(client: &SocketAddr) -> u64 {
    match client.ip() {
        // No IPv6 network begins with 32 ones: they are multicast (RFC 4291, section 2.7).
        IpAddr::V4(ip) => 0xffff_ffff << 32 | u64::from(ip.to_bits()),
        IpAddr::V6(ip) => ((ip.to_bits() >> 64) as u64).max(1),
    }
}

impl Children {
    /// Where the pid of the `n`th that ended stands. There is room for the
    /// orphans of others too, however low the cap.
    fn ended_pid(&self, n: usize) -> &AtomicU32 {
        &self.ended_pids[n & (MASK.load(Relaxed) | 1023) & (SLOTS - 1)]
    }
}

impl Line<'_> {
    /// Appends how many of the places for children are taken.
    #[inline(never)]
    pub fn places(&mut self, taken: usize) -> &mut Self {
        self.str(" ").num(taken).str("/").num(MAX.load(Relaxed))
    }
}

/// A map from numbers other than 0 to numbers: open addressing, with a hash
/// that differs from start to start, so that colliding addresses are hard to
/// choose.
struct Map {
    slots: [(AtomicU64, AtomicU64); SLOTS],
}

/// The slots in use, less one: all ones in binary. At least twice the cap.
static MASK: AtomicUsize = AtomicUsize::new(0);
/// What makes the hash differ.
static SEED: AtomicU64 = AtomicU64::new(0);

impl Map {
    #[inline(never)]
    fn get(&self, key: u64) -> Option<u64> {
        let (found, value) = self.slot(self.find(key));
        (found.load(Relaxed) == key).then(|| value.load(Relaxed))
    }

    fn set(&self, key: u64, new: u64) {
        let (free, value) = self.slot(self.find(key));
        value.store(new, Relaxed);
        free.store(key, Relaxed);
    }

    /// Closes the gap with the entries behind it that belong before it
    /// (Knuth, The Art of Computer Programming, volume 3, algorithm 6.4R).
    fn remove(&self, key: u64) -> Option<u64> {
        let value = self.get(key)?;
        let mut gap = self.find(key);
        let mut at = gap;
        loop {
            at = self.after(at);
            let (next, next_value) = self.slot(at);
            let next = next.load(Relaxed);
            if next == 0 {
                self.slot(gap).0.store(0, Relaxed);
                return Some(value);
            }
            if self.distance(self.home(next), at) >= self.distance(gap, at) {
                self.slot(gap).0.store(next, Relaxed);
                self.slot(gap).1.store(next_value.load(Relaxed), Relaxed);
                gap = at;
            }
        }
    }

    fn keys(&self) -> impl Iterator<Item = u64> {
        self.slots.iter().map(|slot| slot.0.load(Relaxed)).filter(|&key| key != 0)
    }

    /// Where `key` is, or the free slot where it belongs.
    fn find(&self, key: u64) -> usize {
        let mut at = self.home(key);
        while ![0, key].contains(&self.slot(at).0.load(Relaxed)) {
            at = self.after(at);
        }
        at
    }

    fn home(&self, key: u64) -> usize {
        let mixed = (key ^ key >> 32).wrapping_mul(SEED.load(Relaxed));
        (mixed >> 32) as usize & MASK.load(Relaxed)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & MASK.load(Relaxed)
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & MASK.load(Relaxed)
    }

    fn slot(&self, at: usize) -> &(AtomicU64, AtomicU64) {
        &self.slots[at % SLOTS]
    }
}
