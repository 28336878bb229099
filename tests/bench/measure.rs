//! What is measured, and how.

use crate::client::{self, Clients, Exchange, Stream};
use crate::common;
use crate::server::{self, Server, field};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// One number that each server gets in each round.
pub struct Figure {
    pub key: String,
    /// The table that it is a column of, and the column's heading.
    pub table: &'static str,
    pub heading: String,
    pub more_is_better: bool,
    pub in_chart: bool,
}

/// In the order in which they are measured.
pub const GROUPS: [&str; 5] = ["connections", "clients", "stream", "memory", "start"];
/// Once for all rounds: the number does not change.
pub const CALLS: &str = "calls";
/// Clients with one line under way each.
const CLIENTS: [usize; 4] = [1, 50, 300, 1000];
/// Bytes of a line of a stream, its newline included.
const LINES: [usize; 4] = [1, 64, 1000, 100_000];

/// How much is done: all of it, or enough to try the benchmark.
pub struct Effort {
    pub connections: usize,
    pub calls: usize,
    pub requests: Duration,
    pub stream: Duration,
    pub idle: usize,
    pub starts: usize,
}

impl Effort {
    pub const FULL: Effort = Effort {
        connections: 2000,
        calls: 1000,
        requests: Duration::from_millis(400),
        stream: Duration::from_millis(300),
        idle: 500,
        starts: 20,
    };
    pub const QUICK: Effort = Effort {
        connections: 500,
        calls: 50,
        requests: Duration::from_millis(100),
        stream: Duration::from_millis(100),
        idle: 100,
        starts: 5,
    };
}

pub fn figures() -> Vec<Figure> {
    let mut all = Vec::new();
    let mut add = |key: String, table, heading: &str, more_is_better, in_chart| {
        let heading = heading.into();
        all.push(Figure { key, table, heading, more_is_better, in_chart })
    };
    let table = "A connection that exchanges one line";
    add("cpu".into(), table, "CPU, us", false, true);
    add("faults".into(), table, "minor faults", false, true);
    add("calls".into(), table, "system calls", false, true);
    add("connections".into(), table, "connections/s", true, true);
    add("connections-all".into(), table, "clients everywhere/s", true, true);
    let table = "Context switches of such a connection";
    add("voluntary".into(), table, "voluntary", false, false);
    add("involuntary".into(), table, "involuntary", false, false);
    for (key, table, better, in_chart) in [
        ("requests", "512-byte lines there and back per second", true, true),
        ("request-cpu", "CPU of one such line, us", false, false),
        ("request-voluntary", "Voluntary context switches of one such line", false, false),
        ("request-involuntary", "Involuntary context switches of one such line", false, false),
    ] {
        for n in CLIENTS {
            let heading = if n == 1 { "1 client" } else { &format!("{n} clients") };
            add(format!("{key}-{n}"), table, heading, better, in_chart);
        }
    }
    for (key, table, better, in_chart) in [
        ("stream", "MB/s of one connection", true, true),
        ("stream-cpu", "CPU of such a MB, us", false, false),
    ] {
        for n in LINES {
            let heading = format!("lines of {n} byte{}", if n == 1 { "" } else { "s" });
            add(format!("{key}-{n}"), table, &heading, better, in_chart);
        }
    }
    let table = "An idle connection, KiB";
    add("pss".into(), table, "PSS", false, true);
    add("tables".into(), table, "page tables", false, false);
    add("memory".into(), table, "all, both ends", false, true);
    let table = "The program";
    add("size".into(), table, "bytes of the file", false, true);
    add("ready".into(), table, "us until ready", false, true);
    all
}

/// What one group gives for one server: a number for each key.
pub type Numbers = Vec<(String, f64)>;

pub fn measure(group: &str, server: &Server, effort: &Effort) -> Numbers {
    match group {
        "connections" => connections(server, effort),
        "clients" => clients(server, effort),
        "stream" => stream(server, effort),
        "memory" => memory(server, effort),
        _ => start(server, effort),
    }
}

fn exchange(server: &Server, bytes: usize) -> Exchange {
    let mut line = b"The quick brown fox jumps over the lazy dog. ".repeat(bytes / 45 + 1);
    line.truncate(bytes - 1);
    line.push(b'\n');
    Exchange { answer: server.answer(&line), line }
}

fn connections(server: &Server, effort: &Effort) -> Numbers {
    let exchange = exchange(server, 16);
    let without = server.start().expect("it starts").end();
    let running = server.start().expect("it starts");
    let begin = Instant::now();
    client::connections(running.address, &exchange, effort.connections, 16);
    let rate = effort.connections as f64 / begin.elapsed().as_secs_f64();
    let with = running.end();
    let everywhere = connections_everywhere(server, &exchange, effort);
    let each = |with: f64, without: f64| (with - without) / effort.connections as f64;
    vec![
        ("cpu".into(), each(with.microseconds, without.microseconds)),
        ("faults".into(), each(with.faults, without.faults)),
        ("voluntary".into(), each(with.voluntary, without.voluntary)),
        ("involuntary".into(), each(with.involuntary, without.involuntary)),
        ("connections".into(), rate),
        ("connections-all".into(), everywhere),
    ]
}

/// Connections per second, with a client's thread on each processor.
fn connections_everywhere(server: &Server, exchange: &Exchange, effort: &Effort) -> f64 {
    let processors = common::processors();
    let running = server.start().expect("it starts");
    let begin = Instant::now();
    thread::scope(|scope| {
        for &processor in &processors {
            let address = running.address;
            scope.spawn(move || {
                client::stay_on(processor);
                client::connections(address, exchange, effort.connections, 16);
            });
        }
    });
    let rate = (processors.len() * effort.connections) as f64 / begin.elapsed().as_secs_f64();
    running.end();
    rate
}

fn clients(server: &Server, effort: &Effort) -> Numbers {
    let exchange = exchange(server, 512);
    let running = server.start().expect("it starts");
    let mut numbers = Vec::new();
    for n in CLIENTS {
        let mut clients = Clients::connect(running.address, &exchange, n);
        clients.requests(&exchange, effort.requests / 5);
        let before = running.scheduled();
        let (done, seconds) = clients.requests(&exchange, effort.requests);
        let after = running.scheduled();
        let mut add = |key, number| numbers.push((format!("{key}-{n}"), number));
        add("requests", done / seconds);
        add("request-cpu", (after.microseconds - before.microseconds) / done);
        add("request-voluntary", (after.voluntary - before.voluntary) / done);
        add("request-involuntary", (after.involuntary - before.involuntary) / done);
        drop(clients);
        running.settle();
    }
    running.end();
    numbers
}

fn stream(server: &Server, effort: &Effort) -> Numbers {
    const CHUNK: usize = 256 * 1024;
    let mut numbers = Vec::new();
    for n in LINES.into_iter().filter(|&n| n <= server.longest) {
        let mut lines = exchange(server, n);
        lines.line = lines.line.repeat(CHUNK / n);
        lines.answer = lines.answer.repeat(CHUNK / n);
        // One for each: some have megabytes left to answer in the end.
        let running = server.start().expect("it starts");
        let mut stream = Stream::connect(running.address, &lines);
        stream.run(effort.stream / 3, true);
        let before = running.scheduled();
        let (bytes, seconds) = stream.run(effort.stream, false);
        let after = running.scheduled();
        numbers.push((format!("stream-{n}"), bytes / 1e6 / seconds));
        let cpu = after.microseconds - before.microseconds;
        numbers.push((format!("stream-cpu-{n}"), cpu / (bytes / 1e6)));
    }
    numbers
}

fn memory(server: &Server, effort: &Effort) -> Numbers {
    let exchange = exchange(server, 512);
    let running = server.start().expect("it starts");
    running.settle();
    let (pss, tables) = running.memory();
    let used = used();
    let clients = Clients::connect(running.address, &exchange, effort.idle);
    let all = self::used() - used;
    let (with_pss, with_tables) = running.memory();
    drop(clients);
    running.end();
    let each = |sum: f64| sum / effort.idle as f64;
    vec![
        ("pss".into(), each(with_pss - pss)),
        ("tables".into(), each(with_tables - tables)),
        ("memory".into(), each(all)),
    ]
}

/// KiB of memory that the machine's processes, and the kernel for them, have in
/// use. What is free or available tells less: the processors keep thousands of
/// free pages for themselves (proc(5)).
fn used() -> f64 {
    let _ = fs::read("/proc/sys/vm/stat_refresh"); // for root: counts what is pending
    let meminfo = fs::read_to_string("/proc/meminfo").expect("meminfo");
    let parts = ["AnonPages:", "Slab:", "KernelStack:", "PageTables:", "Percpu:"];
    parts.iter().map(|part| field(&meminfo, part)).sum()
}

/// The median of several starts.
fn start(server: &Server, effort: &Effort) -> Numbers {
    let once = |_| {
        let running = server.start().expect("it starts");
        let ready = running.ready as f64 / 1e3;
        running.end();
        ready
    };
    let mut ready: Vec<f64> = (0..effort.starts).map(once).collect();
    ready.sort_by(f64::total_cmp);
    vec![("size".into(), server.size() as f64), ("ready".into(), ready[effort.starts / 2])]
}

/// The system calls of one connection by name, as strace counts them, where it
/// is installed: all but exit_group, which does not return. Each connection is
/// over before the next, or a signal might come for two children, and the
/// counts would differ from run to run.
pub fn calls(server: &Server, effort: &Effort) -> Numbers {
    let counted = |connections: usize| {
        let counts = server::directory().join("strace");
        let tracer = ["strace", "-f", "-c", "-o", counts.to_str().expect("UTF-8 path")];
        let exchange = exchange(server, 16);
        let running = server.start_under(&tracer).expect("it starts");
        running.settle();
        for _ in 0..connections {
            client::connections(running.address, &exchange, 1, 1);
            running.settle();
        }
        running.end();
        parse(&fs::read_to_string(counts).expect("strace's counts"))
    };
    let without = counted(0);
    let mut calls = counted(effort.calls);
    for (name, n) in &mut calls {
        let other = without.iter().find(|call| call.0 == *name);
        *n = (*n - other.map_or(0.0, |call| call.1)) / effort.calls as f64;
    }
    calls.retain(|call| call.1 > 0.004);
    calls.sort_by(|a, b| a.0.cmp(&b.0));
    calls
}

/// `% time, seconds, usecs/call, calls, errors or nothing, name`
fn parse(counts: &str) -> Numbers {
    let lines = counts.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let calls = lines.filter_map(|fields| {
        let (name, n) = (fields.last()?.to_string(), fields.get(3)?.parse().ok()?);
        fields[0].parse::<f64>().ok().filter(|_| name != "total")?;
        Some((name, n))
    });
    calls.collect()
}
