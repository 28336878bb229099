//! `make bench`: forkline beside bare C, the C and other servers. In each round
//! every server is measured in turn, so that what changes on the machine changes
//! for all, and the ratio of two of them is taken round by round.
//!
//!     cargo bench --locked --bench bench -- [PART...] [SERVER...]
//!
//! A part is one of calls, connections, pinned, lines, stream, memory, silent, fair
//! and public; without one all are measured. A server is chosen by a part of its
//! name; bare C always takes part. In the environment:
//!
//! - FORKLINE: the forkline to measure, if not the one just built
//! - FORKLINE_BEFORE: another one, to compare it with
//! - FORKLINE_BENCH_ROUNDS: how many rounds for every server, however long they take
//! - FORKLINE_BENCH_QUICK=1: little work and one round, to try the benchmark

mod beside;
mod chart;
mod client;
#[path = "../common/mod.rs"]
mod common;
mod measure;
mod report;
mod server;

use measure::{Effort, Numbers, PARTS, Part};
use report::Report;
use server::Server;
use std::env;
use std::io::{self, IsTerminal};
use std::panic::{RefUnwindSafe, catch_unwind};
use std::time::Instant;

/// With the rounds of `PARTS`, seconds for all.
const LIMIT: f64 = 600.0;

fn main() {
    let begin = Instant::now();
    let arguments: Vec<String> = env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let is_part = |word: &&str| PARTS.iter().any(|part| part.name == *word);
    let (chosen, words): (Vec<&str>, Vec<&str>) =
        arguments.iter().map(String::as_str).partition(is_part);
    let mut parts: Vec<Part> = PARTS.into_iter().collect();
    parts.retain(|part| chosen.is_empty() || chosen.contains(&part.name));
    parts.retain(|part| match part.tool.map_or(Ok(()), server::present) {
        Ok(()) => true,
        Err(why) => {
            println!("skipped: {}: {why}", part.name);
            false
        }
    });
    if let Err(why) = beside::permitted() {
        println!("skipped: silent: {why}");
        parts.retain(|part| part.name != "silent");
    }
    let quick = env::var("FORKLINE_BENCH_QUICK").is_ok_and(|value| value == "1");
    let given = env::var("FORKLINE_BENCH_ROUNDS").ok().and_then(|n| n.parse().ok());
    let servers = server::all(&words);
    let report = Report::new(quick, servers.iter().map(|server| server.name.clone()).collect());
    let given = given.or(quick.then_some(1));
    let mut run = Run { begin, given, quick, parts, servers, planned: 0.0, took: vec![], report };
    run.all();
    run.report.seconds = begin.elapsed().as_secs_f64();
    run.report.print();
    run.report.write(&server::directory());
    println!("seconds: {}; all {:.0}", run.took.join(", "), begin.elapsed().as_secs_f64());
}

struct Run {
    begin: Instant,
    /// How many rounds, if somebody has said so.
    given: Option<usize>,
    quick: bool,
    parts: Vec<Part>,
    servers: Vec<Server>,
    /// Seconds that what has been done should have taken.
    planned: f64,
    /// Each part, and its seconds.
    took: Vec<String>,
    report: Report,
}

impl Run {
    fn all(&mut self) {
        let total = self.plan(self.parts.len());
        for at in 0..self.parts.len() {
            let (begin, end) = (Instant::now(), LIMIT * self.plan(at + 1) / total);
            let rounds = |server| self.parts[at].rounds(server, self.given);
            for round in 0..self.servers.iter().map(rounds).max().unwrap_or(0) {
                // On a slow machine every part has less rounds.
                let late = self.begin.elapsed().as_secs_f64() > end;
                if late && self.given.is_none() && round > 2 {
                    break;
                }
                self.round(at, round, total);
            }
            self.planned = self.plan(at + 1);
            let seconds = begin.elapsed().as_secs_f64();
            self.took.push(format!("{} {seconds:.0}", self.parts[at].name));
        }
        progress("");
        let named = |server: &&Server| server.name == server::QUIET;
        if self.parts.iter().any(|part| part.name == "memory") {
            self.report.maps = self.servers.iter().find(named).map(measure::maps);
        }
    }

    /// Seconds for the first parts.
    fn plan(&self, parts: usize) -> f64 {
        let turns = self.parts[..parts].iter().flat_map(|part| {
            let rounds = |server| part.rounds(server, self.given) as f64;
            self.servers.iter().map(move |server| rounds(server) * part.seconds(server))
        });
        turns.sum()
    }

    fn round(&mut self, at: usize, round: usize, total: f64) {
        let part = &self.parts[at];
        let effort = if self.quick { Effort::QUICK } else { Effort::FULL };
        let mut turns: Vec<usize> = (0..self.servers.len()).collect();
        turns.retain(|&i| round < part.rounds(&self.servers[i], self.given));
        // A server is faster or slower for a moment after another. So it comes as often
        // before its neighbour as after it.
        let first = round / 2 % turns.len();
        turns.rotate_left(first);
        if round % 2 == 1 {
            turns.reverse();
        }
        for i in turns {
            let server = &self.servers[i];
            let rounds = part.rounds(server, self.given);
            let so_far = self.begin.elapsed().as_secs_f64();
            // As much slower as it has been so far.
            let pace = if self.planned > 10.0 { so_far / self.planned } else { 1.0 };
            progress(&format!(
                "{}: {}, round {} of {rounds}; {so_far:.0} s of about {:.0}",
                part.name,
                server.name,
                round + 1,
                so_far + (total - self.planned).max(0.0) * pace
            ));
            self.report.add(i, persist(|| (part.measure)(server, &effort)));
            self.planned += part.seconds(server);
        }
    }
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
