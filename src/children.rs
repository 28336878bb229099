//! The children there are, and how many of them each source has: the two caps.
//!
//! Only the parent uses this memory. `ended` is the signal handler's, all else
//! the main program's; what they tell each other is one word each. A fork gives
//! its child none of it, so it shares nothing that the parent writes.
//!
//! With several acceptors there is a table for each and one for the main
//! process, in memory that all share, their children too: each sees what all
//! have `taken`, and the main process what an acceptor that died has left.

use crate::args::Options;
use crate::drain;
use crate::fault::{self, Fault};
use crate::line::{Line, message};
use crate::sys::{self, Pages};
use core::net::{IpAddr, SocketAddr};
use core::sync::atomic::{
    AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed,
    Ordering::Release, Ordering::SeqCst,
};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, wait};
use rustix::thread::futex;

/// The most children that can be asked for.
pub const MOST: usize = 32768;
/// The most acceptors that can be asked for.
pub const MOST_ACCEPTORS: u32 = 64;
/// A map is at most half full, so that a search ends soon.
const SLOTS: usize = 2 * MOST;

#[repr(C)]
pub struct Children {
    /// The places that its children have.
    taken: AtomicUsize,
    /// How many have been reaped; the pids of the last stand in `ended_pids`.
    ended: AtomicUsize,
    /// How many of those have left the maps.
    settled: AtomicUsize,
    /// In the first table, for all: counts what the wait for a free place must
    /// notice.
    events: AtomicU32,
    /// Whether the acceptor is in that wait.
    waits: AtomicBool,
    /// The child that is being recorded, by the kernel, and its source.
    last: AtomicU32,
    last_source: AtomicU64,
    /// How many of its predecessors' children have ended, and have left `counts`.
    orphans_ended: AtomicUsize,
    orphans_settled: AtomicUsize,
    /// The acceptor's listening socket, and whether the acceptor is there.
    pub listenfd: AtomicI32,
    pub runs: AtomicBool,
    ended_pids: [AtomicU32; SLOTS],
    /// Each child's source.
    sources: Map,
    /// Each source's children.
    counts: Map,
    /// The sources of the last of its predecessors' children that have ended.
    orphans: [AtomicU64; SLOTS],
}

/// This process's own table.
static CHILDREN: Pages<Children> = Pages::unmapped();
/// All tables, the main process's last.
static TABLES: Pages<Children> = Pages::unmapped();
static N_TABLES: AtomicUsize = AtomicUsize::new(0);
// Children read these too.
static MAX: AtomicUsize = AtomicUsize::new(0);
static MAX_PER_SOURCE: AtomicU32 = AtomicU32::new(0);
static VERBOSE: AtomicBool = AtomicBool::new(false);

/// To be called once, before the first child.
pub fn limit(options: &Options) {
    let acceptors = options.acceptors as usize;
    let n = if acceptors > 1 { acceptors + 1 } else { 1 };
    // SAFETY: numbers may be zero.
    unsafe { TABLES.map(n > 1, n) };
    N_TABLES.store(n, Relaxed);
    CHILDREN.point_to(table(n - 1));
    MAX.store(options.max_children as usize, Relaxed);
    VERBOSE.store(options.verbose, Relaxed);
    MAX_PER_SOURCE.store(options.max_per_source, Relaxed);
    // The main process's has the acceptors too.
    let slots = (2 * (options.max_children as usize + n - 1)).next_power_of_two();
    MASK.store(slots.min(SLOTS) - 1, Relaxed);
    SEED.store(sys::random() | 1, Relaxed);
}

fn tables() -> &'static [Children] {
    // SAFETY: as they were mapped.
    unsafe { TABLES.all(N_TABLES.load(Relaxed)) }
}

/// The table of acceptor `i`.
fn table(i: usize) -> &'static Children {
    tables().get(i).unwrap_or_else(|| &CHILDREN)
}

/// Those of all acceptors.
pub fn acceptors() -> &'static [Children] {
    tables().split_last().map_or(&[], |(_, acceptors)| acceptors)
}

/// Returns when one more child may be forked, or none ever again because a
/// signal has ended the service.
pub fn wait_for_place() {
    let (all, children) = (table(0), &*CHILDREN);
    loop {
        // Whatever changes after this makes the wait return at once.
        let seen = all.events.load(SeqCst);
        settle();
        if taken() < MAX.load(Relaxed) || drain::asked() {
            return;
        }
        children.waits.store(true, SeqCst);
        let _ = futex::wait(&all.events, futex::Flags::empty(), seen, None);
        children.waits.store(false, Relaxed);
    }
}

/// Counts a child for this client before it is forked, and returns the number
/// of children with it; nothing if its source has as many as it may.
pub fn admit(client: &SocketAddr) -> Option<usize> {
    let children = &*CHILDREN;
    let source = source(client);
    loop {
        settle();
        let of_source = children.counts.get(source).unwrap_or(0);
        if of_source >= MAX_PER_SOURCE.load(Relaxed).into() {
            fault::refuse(client, of_source);
            return None;
        }
        children.taken.fetch_add(1, SeqCst);
        let taken = taken();
        if taken <= MAX.load(Relaxed) {
            children.counts.set(source, of_source + 1);
            children.last_source.store(source, Relaxed);
            return Some(taken);
        }
        // Another acceptor was quicker.
        give_back(children);
        wait_for_place();
        if drain::asked() {
            return None;
        }
    }
}

/// The child that `admit` counted is there.
pub fn forked(pid: Pid, client: &SocketAddr) {
    let pid = pid.as_raw_pid() as u64;
    // One that had this pid before may have ended since.
    while CHILDREN.sources.get(pid).is_some() && unsettled() > 0 {
        settle_one();
    }
    CHILDREN.sources.set(pid, source(client));
    CHILDREN.last.store(0, Relaxed);
}

/// The child that `admit` counted could not be forked.
pub fn not_forked(client: &SocketAddr, e: Errno) {
    let children = &*CHILDREN;
    Fault("fork", e).warn();
    give_back(children);
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
    children.ended.store(ended + 1, Release);
    give_back(children);
    if verbose() || status.signaled() {
        tell_end("end pid ", pid, status);
    }
}

fn tell_end(what: &str, pid: Pid, status: WaitStatus) {
    message(|line| {
        line.str(what).num(pid.as_raw_pid() as usize);
        match status.terminating_signal() {
            Some(signal) => line.str(" signal ").num(signal as usize),
            None => line.str(" exit ").num(status.exit_status().unwrap_or(0) as usize),
        };
        line.places(count());
    });
}

/// Makes `wait_for_place` look again.
pub fn event() {
    let (all, own) = (table(0), &raw const *CHILDREN);
    all.events.fetch_add(1, SeqCst);
    // Our own wait ends by the signal in whose handler this is.
    if tables().iter().any(|table| &raw const *table != own && table.waits.load(SeqCst)) {
        let _ = futex::wake(&all.events, futex::Flags::empty(), MOST_ACCEPTORS);
    }
}

fn give_back(children: &Children) {
    children.taken.fetch_sub(1, SeqCst);
    event();
}

/// Takes those who have ended out of the maps.
#[inline(never)]
pub fn settle() {
    let full = !room();
    while unsettled() > 0 {
        settle_one();
    }
    let children = &*CHILDREN;
    let mut orphans = children.orphans_settled.load(Relaxed);
    while orphans != children.orphans_ended.load(Acquire) {
        uncount(children.orphans[orphans % SLOTS].load(Relaxed));
        orphans += 1;
        children.orphans_settled.store(orphans, Relaxed);
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
        None => _ = children.taken.fetch_add(1, Relaxed),
    }
    children.settled.store(settled + 1, Relaxed);
}

/// Main process: acceptor `i` is there.
pub fn watch(pid: Pid, i: usize) {
    CHILDREN.sources.set(pid.as_raw_pid() as u64, i as u64);
    table(i).runs.store(true, Relaxed);
}

/// This process is that acceptor.
pub fn become_acceptor(acceptor: &'static Children) {
    CHILDREN.point_to(acceptor);
    sys::record_forks(&acceptor.last);
}

/// Main process: reaps acceptors and the children that they have left.
pub extern "C" fn reap(_sig: i32) {
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        let main = &*CHILDREN;
        let key = pid.as_raw_pid() as u64;
        let acceptor = main.sources.remove(key);
        if let Some(i) = acceptor {
            take_over(i as usize);
        }
        for (i, acceptor) in acceptors().iter().enumerate() {
            if let Some(source) = main.sources.remove(orphan(i, key)) {
                let ended = acceptor.orphans_ended.load(Relaxed);
                acceptor.orphans[ended % SLOTS].store(source, Relaxed);
                acceptor.orphans_ended.store(ended + 1, Release);
                give_back(main);
            }
        }
        if verbose() || status.signaled() || acceptor.is_some() && !drain::asked() {
            let what = if acceptor.is_some() { "end acceptor pid " } else { "end pid " };
            tell_end(what, pid, status);
        }
    }
}

/// What an orphan of acceptor `i` has for a key: acceptors have their pid.
fn orphan(i: usize, pid: u64) -> u64 {
    (i as u64 + 1) << 32 | pid
}

/// Main process: acceptor `i` has ended, wherever it was, and what children it
/// has left are ours now. Its table is made ready for its successor.
fn take_over(i: usize) {
    let (main, dead) = (&*CHILDREN, table(i));
    // As it would have: then nothing stands in its lists.
    CHILDREN.point_to(dead);
    settle();
    CHILDREN.point_to(main);
    let last = dead.last.swap(0, Relaxed);
    if last != 0 {
        dead.sources.set(last.into(), dead.last_source.load(Relaxed));
    }
    for (pid, _) in dead.sources.entries() {
        // It may have been reaped, and not been noted any more; or stand there
        // twice, if a removal was cut short: then the first is right.
        if main.sources.get(orphan(i, pid)).is_none() && sys::is_child(pid as u32) {
            main.sources.set(orphan(i, pid), dead.sources.get(pid).unwrap_or(1));
            main.taken.fetch_add(1, SeqCst);
            if drain::asked()
                && let Some(pid) = Pid::from_raw(pid as i32)
            {
                let _ = kill_process(pid, Signal::TERM);
            }
        }
    }
    dead.taken.store(0, SeqCst);
    dead.waits.store(false, Relaxed);
    dead.sources.clear();
    dead.counts.clear();
    for (key, source) in main.sources.entries() {
        if key >> 32 == i as u64 + 1 {
            dead.counts.set(source, dead.counts.get(source).unwrap_or(0) + 1);
        }
    }
    dead.runs.store(false, Relaxed);
    event();
}

/// The pids of all children that have not been settled.
pub fn pids() -> impl Iterator<Item = Pid> {
    CHILDREN.sources.entries().filter_map(|(pid, _)| Pid::from_raw(pid as i32))
}

/// The places that are taken, those of our own children until they have been
/// settled: what the cap goes by, since the signal handler does not change it.
fn taken() -> usize {
    count().wrapping_add(unsettled())
}

/// The children that have not been reaped.
#[inline(never)]
pub fn count() -> usize {
    tables().iter().fold(0, |n, table| n.wrapping_add(table.taken.load(SeqCst)))
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
        let taken = (taken as isize).max(0); // foreign ones that have ended
        self.str(" ").num(taken as usize).str("/").num(MAX.load(Relaxed))
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
        free.store(key, Release);
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
                // In this order, so that no key ever has another's value.
                self.slot(gap).1.store(next_value.load(Relaxed), Relaxed);
                self.slot(gap).0.store(next, Release);
                gap = at;
            }
        }
    }

    fn entries(&self) -> impl Iterator<Item = (u64, u64)> {
        let slots = self.slots.iter().take(MASK.load(Relaxed) + 1);
        slots.map(|slot| (slot.0.load(Relaxed), slot.1.load(Relaxed))).filter(|slot| slot.0 != 0)
    }

    fn clear(&self) {
        self.slots.iter().take(MASK.load(Relaxed) + 1).for_each(|slot| slot.0.store(0, Relaxed));
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
