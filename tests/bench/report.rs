//! The results: tables for people, JSON for programs; `chart.rs` draws them.

use crate::measure::{CLIENTS, Figure, Numbers, figures};
use crate::server::{BARE_C, BEFORE, QUIET, field};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The figure, the server, what it is compared with (with nothing if that is
/// empty), and the limit.
type Goal = (String, &'static str, &'static str, &'static str, f64);

/// What forkline is meant to reach.
fn goals() -> Vec<Goal> {
    let mut goals: Vec<Goal> = vec![
        ("cpu".into(), QUIET, BARE_C, "at most", 0.97),
        ("connections".into(), QUIET, BARE_C, "at least", 1.03),
        ("gain".into(), QUIET, "", "at least", 1.3),
        ("stream".into(), QUIET, BARE_C, "at least", 1.0),
        ("stream".into(), "forkline rot13", BARE_C, "at least", 0.6),
        ("parent-10000".into(), QUIET, BARE_C, "at most", 0.2),
        ("p50-50".into(), QUIET, "Go", "at most", 0.01),
        ("p50-50".into(), QUIET, "tokio", "at most", 0.01),
        ("p99-50".into(), QUIET, BARE_C, "at most", 1.0),
        ("tables".into(), QUIET, "", "at most", 12.0),
        ("own".into(), QUIET, "", "at most", 4.0),
    ];
    for server in ["forkline echo", QUIET] {
        for (to, limit) in [(BARE_C, 0.98), ("Go", 1.0)] {
            let goal = |n| (format!("lines-{n}"), server, to, "at least", limit);
            goals.extend(CLIENTS.map(goal));
        }
    }
    goals
}

pub struct Report {
    pub seconds: f64,
    /// The memory of one of forkline's children.
    pub maps: Option<String>,
    pub servers: Vec<String>,
    pub figures: Vec<Figure>,
    quick: bool,
    /// What each round gave, by figure and server.
    samples: BTreeMap<(String, usize), Vec<f64>>,
}

/// Some rounds' numbers, or ratios.
pub struct Spread {
    pub least: f64,
    pub median: f64,
    pub most: f64,
    pub rounds: usize,
}

impl Spread {
    fn new(mut numbers: Vec<f64>) -> Option<Spread> {
        numbers.retain(|number| number.is_finite());
        numbers.sort_by(f64::total_cmp);
        let (least, most) = (*numbers.first()?, *numbers.last()?);
        let rounds = numbers.len();
        let median = (numbers[(rounds - 1) / 2] + numbers[rounds / 2]) / 2.0;
        Some(Spread { least, median, most, rounds })
    }

    fn range(&self) -> String {
        format!("{} - {}", short(self.least), short(self.most))
    }
}

impl Report {
    pub fn new(quick: bool, servers: Vec<String>) -> Report {
        let samples = BTreeMap::new();
        Report { seconds: 0.0, maps: None, servers, figures: figures(), quick, samples }
    }

    pub fn add(&mut self, server: usize, numbers: Numbers) {
        for (key, number) in numbers {
            self.samples.entry((key, server)).or_default().push(number);
        }
    }

    fn samples(&self, key: &str, server: &str) -> Option<&Vec<f64>> {
        let server = self.servers.iter().position(|name| name == server)?;
        self.samples.get(&(key.into(), server))
    }

    pub fn spread(&self, key: &str, server: &str) -> Option<Spread> {
        Spread::new(self.samples(key, server)?.clone())
    }

    /// The ratios of two servers in the same rounds.
    pub fn ratios(&self, key: &str, server: &str, to: &str) -> Option<Spread> {
        let pairs = self.samples(key, server)?.iter().zip(self.samples(key, to)?);
        Spread::new(pairs.map(|(a, b)| a / b).collect())
    }

    pub fn print(&self) {
        println!("{}", self.title());
        println!("A ratio to bare C is the median of the ratios in each round.");
        let mut tables: Vec<&str> = self.figures.iter().map(|figure| figure.table).collect();
        tables.dedup();
        tables.into_iter().for_each(|table| self.print_table(table));
        self.print_calls();
        if let Some(maps) = &self.maps {
            println!("\n/proc/PID/maps of a child of {QUIET}\n{}", maps.trim_end());
        }
        self.print_before();
        self.print_goals();
    }

    fn print_table(&self, table: &str) {
        let measured = |figure: &&Figure| self.spread(&figure.key, BARE_C).is_some();
        let figures = self.figures.iter().filter(|figure| figure.table == table);
        let figures: Vec<&Figure> = figures.filter(measured).collect();
        if figures.is_empty() {
            return;
        }
        println!(
            "\n{table}\n{:19}{:>9}{:>19}{:>11}{:>15}{:>8}",
            "", "median", "least - most", "to bare C", "least - most", "rounds"
        );
        for figure in figures {
            let better = if figure.more_is_better { "more" } else { "less" };
            println!(" {} ({better} is better)", figure.heading);
            self.servers.iter().for_each(|server| self.print_row(&figure.key, server));
        }
    }

    fn print_row(&self, key: &str, server: &str) {
        let Some(spread) = self.spread(key, server) else { return };
        let (median, range) = (short(spread.median), spread.range());
        let (ratio, ratios) = self
            .ratios(key, server, BARE_C)
            .filter(|_| server != BARE_C)
            .map_or(("-".into(), "-".into()), |ratios| (short(ratios.median), ratios.range()));
        let rounds = spread.rounds;
        println!("  {server:17}{median:>9}{range:>19}{ratio:>11}{ratios:>15}{rounds:>8}");
    }

    fn calls(&self, server: usize) -> impl Iterator<Item = (&str, f64)> {
        self.samples
            .iter()
            .filter(move |((_, i), _)| *i == server)
            .filter_map(|((key, _), n)| Some((key.strip_prefix("call ")?, n[0])))
    }

    fn print_calls(&self) {
        let lines = self.servers.iter().enumerate().filter_map(|(i, server)| {
            let calls: Vec<String> =
                self.calls(i).map(|(name, n)| format!("{name} {}", short(n))).collect();
            (!calls.is_empty()).then(|| format!("  {server:17} {}", calls.join(", ")))
        });
        let lines: Vec<String> = lines.collect();
        if !lines.is_empty() {
            println!("\nSystem calls of a connection\n{}", lines.join("\n"));
        }
    }

    fn print_before(&self) {
        if !self.servers.iter().any(|server| server == BEFORE) {
            return;
        }
        println!("\nBefore, and {QUIET} now; ratio of each round, and its spread");
        for figure in &self.figures {
            let [before, now] = [BEFORE, QUIET].map(|server| self.spread(&figure.key, server));
            let ratios = self.ratios(&figure.key, QUIET, BEFORE);
            let (Some(before), Some(now)) = (before, now) else { continue };
            let (before, now) = (short(before.median), short(now.median));
            let ratio =
                ratios.map_or("-".into(), |r| format!("{} ({})", short(r.median), r.range()));
            println!("  {:13}{before:>9} {now:>9}   {ratio}", figure.key);
        }
    }

    /// What is reached is told, and nothing depends on it.
    fn print_goals(&self) {
        let mut heading = "\nGoals: the median of the rounds, and the spread\n";
        for (key, server, to, what, limit) in goals() {
            let reached = match to {
                "" => self.spread(&key, server),
                to => self.ratios(&key, server, to),
            };
            let Some(reached) = reached else { continue };
            let met =
                if what == "at most" { reached.median <= limit } else { reached.median >= limit };
            let verdict = if met { "" } else { "  not met" };
            let (median, range) = (short(reached.median), reached.range());
            println!(
                "{heading}  {key:13}{server:17}{what:>8} {limit:4} {to:7}{median:>7} ({range}){verdict}"
            );
            heading = "";
        }
    }

    pub fn title(&self) -> String {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let model = model.unwrap_or_default().trim_start_matches(['\t', ' ', ':']);
        let cpus = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory = field(&meminfo, "MemTotal:") / (1 << 20) as f64;
        let (date, kernel) = (first_line("date", "+%Y-%m-%d"), first_line("uname", "-sr"));
        let quick = if self.quick { ", QUICK: for trying only" } else { "" };
        format!(
            "forkline bench, {date}, {cpus} x {model}, {memory:.0} GiB, {kernel}, {:.0} s{quick}",
            self.seconds
        )
    }

    /// The same as `bench.json` and `bench.svg`.
    pub fn write(&self, directory: &Path) {
        let json = serde_json::to_string_pretty(&self.json()).expect("JSON");
        for (name, text) in [("bench.json", json), ("bench.svg", self.svg())] {
            let file = directory.join(name);
            fs::write(&file, text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            println!("wrote {}", file.display());
        }
    }

    /// Every number of every round, by figure and server.
    fn json(&self) -> Value {
        let mut figures = json!({});
        for ((key, server), rounds) in &self.samples {
            figures[key][&self.servers[*server]] = json!(rounds);
        }
        json!({ "title": self.title(), "figures": figures })
    }
}

/// The first line of what a command prints, for the record of the machine.
fn first_line(command: &str, argument: &str) -> String {
    let output = Command::new(command).arg(argument).output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().into()
}

/// Three digits or more, none that means nothing.
pub fn short(number: f64) -> String {
    let digits = if number.abs() < 10.0 { 2 } else { (number.abs() < 100.0) as usize };
    format!("{number:.digits$}")
}
