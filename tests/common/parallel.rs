//! Waiting for a condition, and working at several things at once.

use super::DEADLINE;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// Calls `work` for the numbers below `n`, on so many threads, and gives what comes of
/// each, in their order.
pub fn in_parallel<R: Send>(threads: usize, n: usize, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let take = || Some(next.fetch_add(1, Relaxed)).filter(|&i| i < n);
                while let Some(i) = take() {
                    let result = work(i);
                    results.lock().unwrap().push((i, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap();
    results.sort_by_key(|&(i, _)| i);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Polls until the condition holds; panics after DEADLINE.
pub fn wait_for(what: &str, condition: impl FnMut() -> bool) {
    assert!(within(DEADLINE, condition), "waited {DEADLINE:?} in vain: {what}");
}

/// Polls until the condition holds; false if it does not for so long.
pub fn within(time: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + time;
    while !condition() {
        if Instant::now() > end {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    true
}

/// Sets this when it is dropped: it ends a load, however the test ends.
pub struct StopAtEnd<'a>(pub &'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
