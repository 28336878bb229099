//! What is measured, and how.

use crate::beside::{self, SILENT, STREAMS};
use crate::client::{self, Clients, Exchange, Stream};
use crate::common;
use crate::server::{self, Class, Running, Server, field};
use std::fs;
use std::net::SocketAddrV4;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// What one part gives for one server: a number for each key.
pub type Numbers = Vec<(String, f64)>;

/// What can be measured alone. Every server is measured in each round.
pub struct Part {
    pub name: &'static str,
    /// What must be installed.
    pub tool: Option<&'static str>,
    /// For each `Class`: rounds, and seconds that one server's turn takes on
    /// two processors.
    pub rounds: [usize; 3],
    pub seconds: [f64; 3],
    pub measure: fn(&Server, &Effort) -> Numbers,
}

/// In the order in which they are measured. Rounds times seconds times servers
/// are less than ten minutes.
pub const PARTS: [Part; 9] = [
    Part {
        name: "calls",
        tool: Some("strace"),
        rounds: [1, 1, 1],
        seconds: [0.3, 0.3, 0.5],
        measure: calls,
    },
    Part {
        name: "connections",
        tool: None,
        rounds: [30, 8, 3],
        seconds: [0.3, 0.4, 0.6],
        measure: connections,
    },
    Part {
        name: "pinned",
        tool: None,
        rounds: [20, 0, 0],
        seconds: [0.8, 0.0, 0.0],
        measure: pinned,
    },
    Part {
        name: "lines",
        tool: None,
        rounds: [16, 4, 2],
        seconds: [2.2, 2.2, 7.0],
        measure: lines,
    },
    Part {
        name: "stream",
        tool: None,
        rounds: [12, 12, 3],
        seconds: [0.5, 0.5, 0.5],
        measure: stream,
    },
    Part {
        name: "memory",
        tool: None,
        rounds: [6, 6, 2],
        seconds: [0.3, 0.3, 0.4],
        measure: memory,
    },
    Part {
        name: "silent",
        tool: None,
        rounds: [3, 1, 0],
        seconds: [6.0, 6.0, 0.0],
        measure: beside::silent,
    },
    Part {
        name: "fair",
        tool: None,
        rounds: [3, 2, 1],
        seconds: [4.5, 4.5, 5.0],
        measure: beside::fair,
    },
    Part {
        name: "public",
        tool: Some("echo_bench"),
        rounds: [4, 2, 1],
        seconds: [2.1, 2.1, 2.3],
        measure: public,
    },
];

/// One number that each server gets in each round.
pub struct Figure {
    pub key: String,
    /// The table that it is in, and its heading there.
    pub table: &'static str,
    pub heading: String,
    pub more_is_better: bool,
    pub in_chart: bool,
}

/// Clients with one line under way each.
pub const CLIENTS: [usize; 4] = [1, 50, 300, 1000];

/// How much is done: all of it, or enough to try the benchmark.
pub struct Effort {
    connections: usize,
    calls: usize,
    pub time: Duration,
    idle: usize,
    /// For one of so many clients.
    pub divisor: usize,
}

impl Effort {
    pub const FULL: Effort = Effort {
        connections: 2000,
        calls: 100,
        time: Duration::from_millis(400),
        idle: 500,
        divisor: 1,
    };
    pub const QUICK: Effort = Effort {
        connections: 200,
        calls: 20,
        time: Duration::from_millis(50),
        idle: 50,
        divisor: 10,
    };

    /// For what happens now and then.
    pub fn long(&self) -> Duration {
        self.time * 5 / 2
    }
}

pub fn figures() -> Vec<Figure> {
    let mut all = Vec::new();
    let mut add = |key: &str, table, heading: &str, more_is_better, in_chart| {
        let (key, heading) = (key.into(), heading.into());
        all.push(Figure { key, table, heading, more_is_better, in_chart })
    };
    let table = "A connection that exchanges one line";
    add("cpu", table, "CPU, us", false, true);
    add("faults", table, "minor faults", false, true);
    add("calls", table, "system calls", false, true);
    add("connections", table, "connections in a second", true, true);
    let table = "The same with a client on each processor";
    add("one", table, "one server, connections in a second", true, false);
    add("each", table, "a server on each processor too, connections in a second", true, false);
    add("gain", table, "ratio of these two", true, true);
    for n in CLIENTS {
        let heading =
            if n == 1 { "1 client, on the server's processor" } else { &format!("{n} clients") };
        add(&format!("lines-{n}"), "Lines of 512 bytes in a second", heading, true, true);
    }
    for n in CLIENTS {
        let heading =
            if n == 1 { "1 client, on the server's processor" } else { &format!("{n} clients") };
        add(&format!("line-cpu-{n}"), "CPU of such a line, us", heading, false, false);
    }
    add("stream", "A stream of 64-byte lines", "MB in a second", true, true);
    let table = "Memory of an idle connection, KiB";
    add("tables", table, "page tables", false, true);
    add("own", table, "its own pages", false, true);
    add("pss", table, "PSS", false, false);
    add("memory", table, "growth of the system's, both ends", false, true);
    let table = "Connections beside silent clients, 4 at a time";
    for n in SILENT {
        let heading = format!("{n} silent clients, connections in a second");
        add(&format!("beside-{n}"), table, &heading, true, n > 0);
    }
    for n in SILENT {
        let heading = format!("{n} silent clients, CPU of the parent for one, us");
        add(&format!("parent-{n}"), table, &heading, false, n > 0);
    }
    let table = "A polite client, a line each 2 ms: us there and back";
    let streams = STREAMS.map(|n| (n.to_string(), format!("{n} that stream")));
    let flood = ("flood".into(), "connections that come and go".into());
    for (key, others) in streams.into_iter().chain([flood]) {
        for share in ["p50", "p99", "p99.9"] {
            let heading = format!("{share} beside {others}");
            add(&format!("{share}-{key}"), table, &heading, false, share == "p50" && key == "50");
        }
    }
    let table = "rust_echo_bench, 50 clients, 512 bytes";
    add("public", table, "answers in a second", true, true);
    add("size", "The program", "bytes of the file", false, false);
    all
}

impl Part {
    pub fn seconds(&self, server: &Server) -> f64 {
        self.seconds[server.class as usize]
    }

    /// Rounds for a server; `given` instead, where one is not enough.
    pub fn rounds(&self, server: &Server, given: Option<usize>) -> usize {
        let rounds = match self.name == "pinned" && !server.shares() {
            true => 0,
            false => self.rounds[server.class as usize],
        };
        given.filter(|_| rounds > 0 && self.rounds[0] > 1).unwrap_or(rounds)
    }
}

/// Less work for those that take many times as long.
fn share(n: usize, server: &Server) -> usize {
    if server.class == Class::Slow { n / 4 } else { n }
}

pub fn exchange(server: &Server, bytes: usize) -> Exchange {
    let mut line = b"The quick brown fox jumps over the lazy dog. ".repeat(bytes / 45 + 1);
    line.truncate(bytes - 1);
    line.push(b'\n');
    Exchange { answer: server.answer(&line), line }
}

fn connections(server: &Server, effort: &Effort) -> Numbers {
    let (exchange, n) = (exchange(server, 16), share(effort.connections, server));
    let without = server.start().expect("it starts").end();
    let running = server.start().expect("it starts");
    let begin = Instant::now();
    client::connections(running.address, &exchange, n, 16);
    let rate = n as f64 / begin.elapsed().as_secs_f64();
    let with = running.end();
    let each = |with: f64, without: f64| (with - without) / n as f64;
    vec![
        ("cpu".into(), each(with.microseconds, without.microseconds)),
        ("faults".into(), each(with.faults, without.faults)),
        ("connections".into(), rate),
    ]
}

/// One server that may run anywhere, and one on each processor that share a
/// port, with the same load: a thread of clients on each processor.
fn pinned(server: &Server, effort: &Effort) -> Numbers {
    let running = server.start().expect("it starts");
    let one = connections_everywhere(running.address, server, effort);
    running.end();
    let port = server::free_port();
    let start = |processor| server.start_shared(port, processor).expect("it starts");
    let running: Vec<Running> = common::processors().into_iter().map(start).collect();
    let each = connections_everywhere(running[0].address, server, effort);
    for running in running {
        running.end();
    }
    vec![("one".into(), one), ("each".into(), each), ("gain".into(), each / one)]
}

/// Connections in a second.
fn connections_everywhere(address: SocketAddrV4, server: &Server, effort: &Effort) -> f64 {
    let (exchange, processors) = (exchange(server, 16), common::processors());
    let begin = Instant::now();
    thread::scope(|scope| {
        for &processor in &processors {
            let exchange = &exchange;
            scope.spawn(move || {
                client::stay_on(processor);
                client::connections(address, exchange, effort.connections, 16);
            });
        }
    });
    (processors.len() * effort.connections) as f64 / begin.elapsed().as_secs_f64()
}

fn lines(server: &Server, effort: &Effort) -> Numbers {
    let processor = common::processors()[0];
    // One client's lines are up to three times as fast when the server happens
    // to run on the same processor: there it is kept, with all that it starts.
    let alone = || {
        client::stay_on(processor);
        lines_of(server, effort, 1)
    };
    let alone = thread::scope(|scope| scope.spawn(alone).join().expect("one client"));
    let more = CLIENTS.into_iter().filter(|&n| n > 1);
    alone.into_iter().chain(more.flat_map(|n| lines_of(server, effort, n))).collect()
}

fn lines_of(server: &Server, effort: &Effort, n: usize) -> Numbers {
    let exchange = exchange(server, 512);
    let running = server.start().expect("it starts");
    let mut clients = Clients::connect(running.address, &exchange, n);
    clients.requests(&exchange, effort.time / 5);
    let before = running.microseconds();
    let (done, seconds) = clients.requests(&exchange, effort.time);
    let cpu = running.microseconds() - before;
    drop(clients);
    running.end();
    vec![(format!("lines-{n}"), done / seconds), (format!("line-cpu-{n}"), cpu / done)]
}

/// Some servers have megabytes left to answer in the end, so this one is not
/// ended in order.
fn stream(server: &Server, effort: &Effort) -> Numbers {
    const LINES: usize = 4096;
    let mut lines = exchange(server, 64);
    lines.line = lines.line.repeat(LINES);
    lines.answer = lines.answer.repeat(LINES);
    let running = server.start().expect("it starts");
    let mut stream = Stream::connect(running.address, &lines);
    stream.run(effort.time / 4, true);
    let (bytes, seconds) = stream.run(effort.time, false);
    vec![("stream".into(), bytes / 1e6 / seconds)]
}

fn memory(server: &Server, effort: &Effort) -> Numbers {
    let (exchange, n) = (exchange(server, 512), share(effort.idle, server));
    let running = server.start().expect("it starts");
    running.settle();
    let (before, used) = (running.memory(), used());
    let clients = Clients::connect(running.address, &exchange, n);
    let all = self::used() - used;
    let after = running.memory();
    drop(clients);
    running.end();
    let parts = ["tables", "own", "pss"].into_iter().zip(after.iter().zip(before));
    let grown = parts.map(|(key, (after, before))| (key, after - before));
    let each = |(key, sum): (&str, f64)| (key.into(), sum / n as f64);
    let mut numbers: Numbers = grown.chain([("memory", all)]).map(each).collect();
    numbers.push(("size".into(), server.size() as f64));
    numbers
}

/// The regions of a child's memory, as /proc/PID/maps has them.
pub fn maps(server: &Server) -> String {
    let running = server.start().expect("it starts");
    let clients = Clients::connect(running.address, &exchange(server, 16), 1);
    let children = common::children_of(running.pid);
    let maps = children.first().map(|pid| fs::read_to_string(format!("/proc/{pid}/maps")));
    drop(clients);
    running.end();
    maps.and_then(Result::ok).unwrap_or_default()
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

/// What anybody can run: github.com/haraldh/rust_echo_bench.
fn public(server: &Server, _: &Effort) -> Numbers {
    let running = server.start().expect("it starts");
    let mut command = Command::new("echo_bench");
    command.args(["--address", &running.address.to_string(), "--duration", "2"]);
    let output = command.args(["--number", "50", "--length", "512"]).output().expect("echo_bench");
    running.end();
    // Speed: 27131 request/sec, 27131 response/sec
    let text = String::from_utf8_lossy(&output.stdout);
    let words: Vec<&str> = text.split_whitespace().collect();
    let at = words.iter().position(|&word| word == "response/sec").expect("its result");
    vec![("public".into(), words[at - 1].parse().expect("a number"))]
}

/// The system calls of one connection, and which, as strace counts them: all
/// but exit_group, which does not return. Each connection is over before the
/// next, or a signal might come for two children, and the counts would differ
/// from run to run.
fn calls(server: &Server, effort: &Effort) -> Numbers {
    let without = counted(server, 0);
    let mut calls = counted(server, effort.calls);
    for (name, n) in &mut calls {
        let other = without.iter().find(|call| call.0 == *name);
        *n = (*n - other.map_or(0.0, |call| call.1)) / effort.calls as f64;
    }
    calls.retain(|call| call.1 > 0.004);
    let sum = calls.iter().map(|call| call.1).sum();
    let mut numbers = vec![("calls".into(), sum)];
    numbers.extend(calls.into_iter().map(|(name, n)| (format!("call {name}"), n)));
    numbers
}

fn counted(server: &Server, connections: usize) -> Numbers {
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
