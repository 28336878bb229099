//! What the other clients cost a client: thousands that are silent, some that stream as
//! fast as they can, or many that come and go.

use crate::client::{self, Clients, Stream};
use crate::common;
use crate::measure::{Effort, Numbers, exchange};
use crate::server::{Running, Server};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

/// Clients that are silent, for each of which some servers have a process.
pub const SILENT: [usize; 3] = [0, 1_000, 10_000];
/// What a polite client has beside it: so many streams, or connections that come and go.
pub const STREAMS: [usize; 3] = [0, 8, 50];

/// Connections that come and go beside silent ones: how many in a second, and what one
/// costs the process that accepts it. For a server without a process for each
/// connection that is all that one costs.
pub fn silent(server: &Server, effort: &Effort) -> Numbers {
    let exchange = exchange(server, 16);
    let mut numbers = Vec::new();
    for n in SILENT {
        let running = server.start().expect("it starts");
        let silent = Clients::connect_from_many(running.address, &exchange, n / effort.divisor);
        let before = running.parent_microseconds();
        let (done, seconds) = client::connections_for(running.address, &exchange, effort.time, 4);
        let cpu = running.parent_microseconds() - before;
        numbers.push((format!("beside-{n}"), done / seconds));
        numbers.push((format!("parent-{n}"), cpu / done));
        // They are not ended in order, which takes the slow ones a minute.
        drop(running);
        drop(silent);
    }
    numbers
}

/// How long a line of a polite client takes there and back, in microseconds: the
/// median, and what 1 in 100 and 1 in 1000 exceed.
pub fn fair(server: &Server, effort: &Effort) -> Numbers {
    let mut numbers = Vec::new();
    for n in STREAMS {
        let running = server.start().expect("it starts");
        let times = beside_streams(&running, server, effort, n);
        numbers.extend(percentiles(times, &n.to_string()));
    }
    let running = server.start().expect("it starts");
    let times = beside_connections(&running, server, effort);
    numbers.extend(percentiles(times, "flood"));
    numbers
}

fn beside_streams(running: &Running, server: &Server, effort: &Effort, n: usize) -> Vec<f64> {
    let mut lines = exchange(server, 64);
    lines.line = lines.line.repeat(1024);
    let (lines, stop) = (&lines, &AtomicBool::new(false));
    // They are there before the first line is sent.
    let streams: Vec<_> = (0..n).map(|_| Stream::connect(running.address, lines)).collect();
    thread::scope(|scope| {
        for mut stream in streams {
            scope.spawn(move || stream.run_until(stop));
        }
        let times = client::polite(running.address, &exchange(server, 16), effort.long());
        stop.store(true, Relaxed);
        times
    })
}

fn beside_connections(running: &Running, server: &Server, effort: &Effort) -> Vec<f64> {
    let exchange = &exchange(server, 16);
    thread::scope(|scope| {
        let others = || client::connections_for(running.address, exchange, effort.long(), 16);
        let others = scope.spawn(others);
        let times = client::polite(running.address, exchange, effort.long());
        others.join().expect("connections");
        times
    })
}

fn percentiles(mut times: Vec<f64>, beside: &str) -> Numbers {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() as f64 * share) as usize).min(times.len() - 1)];
    let named = |(name, share)| (format!("{name}-{beside}"), at(share));
    [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)].map(named).into()
}

/// Whether this process and what it starts may have as many descriptors as the silent
/// clients need.
pub fn permitted() -> Result<(), String> {
    let most = SILENT[SILENT.len() - 1] as u64 + 500;
    common::set_limit(0, libc::RLIMIT_NOFILE, u64::MAX);
    match common::set_limit(0, libc::RLIMIT_NOFILE, u64::MAX) {
        limit if limit < most => Err(format!("{limit} descriptors, {most} are needed")),
        _ => Ok(()),
    }
}
