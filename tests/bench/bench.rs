//! `make bench`: forkline beside the C programs, other servers and a floor that
//! does nothing but the system calls. In each round every server is measured
//! in turn, so that what changes on the machine changes for all.
//!
//!     cargo bench --bench bench -- [MODE...] [SERVER...]
//!
//! A mode is one of connections, clients, stream, memory, start and calls;
//! without one all are measured. A server is chosen by a part of its name; the
//! floor always takes part. In the environment:
//!
//! - FORKLINE_BENCH_ROUNDS: how many rounds (5)
//! - FORKLINE_BENCH_QUICK=1: little work, to try the benchmark
//! - FORKLINE_BENCH_OTHER: more commands to measure, separated by `;`, each a
//!   forkline without its port: `/tmp/old/forkline -q echo`

mod client;
#[path = "../common/mod.rs"]
mod common;
mod measure;
mod report;
mod server;

use measure::{CALLS, Effort, GROUPS, Numbers};
use report::Report;
use server::Server;
use std::env;
use std::io::{self, IsTerminal};
use std::panic::{RefUnwindSafe, catch_unwind};

fn main() {
    let modes: Vec<&str> = GROUPS.into_iter().chain([CALLS]).collect();
    let arguments: Vec<String> = env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let (mut chosen, names): (Vec<&str>, Vec<&str>) =
        arguments.iter().map(String::as_str).partition(|argument| modes.contains(argument));
    if chosen.is_empty() {
        chosen = modes;
    }
    let quick = env::var("FORKLINE_BENCH_QUICK").is_ok_and(|value| value == "1");
    let effort = if quick { Effort::QUICK } else { Effort::FULL };
    let rounds = env::var("FORKLINE_BENCH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);

    let wanted = |server: &Server| {
        let named = |name: &&str| server.name.contains(*name);
        names.is_empty() || server.name == report::FLOOR || names.iter().any(named)
    };
    let servers: Vec<Server> = server::all().into_iter().filter(wanted).collect();
    let mut report = Report::new(rounds, quick, servers.iter().map(|s| s.name.clone()).collect());
    if chosen.contains(&CALLS) && server::installed("strace", "system calls") {
        for (i, server) in servers.iter().enumerate() {
            progress(&format!("{CALLS}: {}", server.name));
            report.add_calls(i, persist(|| measure::calls(server, &effort)));
        }
    }
    for round in 0..rounds {
        for group in GROUPS.into_iter().filter(|group| chosen.contains(group)) {
            for turn in 0..servers.len() {
                // Each is once first.
                let i = (turn + round) % servers.len();
                let server = &servers[i];
                progress(&format!("round {} of {rounds}, {group}: {}", round + 1, server.name));
                report.add(i, persist(|| measure::measure(group, server, &effort)));
            }
        }
    }
    progress("");
    report.print();
    report.write(&server::directory());
}

/// A failure, which has been shown, need not cost minutes of work: it is tried
/// three times.
fn persist(measure: impl Fn() -> Numbers + RefUnwindSafe) -> Numbers {
    (0..3).find_map(|_| catch_unwind(&measure).ok()).expect("it can be measured")
}

/// One line on stderr that is written over and over.
fn progress(text: &str) {
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
    } else if !text.is_empty() {
        eprintln!("{text}");
    }
}
