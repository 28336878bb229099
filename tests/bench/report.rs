//! The results: a table for people, JSON for programs, a chart for the README.

use crate::measure::{Figure, Numbers, figures};
use crate::server::{field, first_line};
use std::collections::HashMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// What all others are compared with.
pub const FLOOR: &str = "floor";

pub struct Report {
    rounds: usize,
    quick: bool,
    servers: Vec<String>,
    figures: Vec<Figure>,
    /// What each round gave, by figure and server.
    samples: HashMap<(String, usize), Vec<f64>>,
    /// System calls of a connection by name, for each server.
    calls: Vec<Numbers>,
}

/// All rounds of one figure of one server.
struct Summary {
    median: f64,
    least: f64,
    most: f64,
    /// To the floor: the median of the rounds' ratios.
    ratio: Option<f64>,
}

impl Report {
    pub fn new(rounds: usize, quick: bool, servers: Vec<String>) -> Report {
        let calls = servers.iter().map(|_| Vec::new()).collect();
        Report { rounds, quick, servers, figures: figures(), samples: HashMap::new(), calls }
    }

    pub fn add(&mut self, server: usize, numbers: Numbers) {
        for (key, number) in numbers {
            self.samples.entry((key, server)).or_default().push(number);
        }
    }

    pub fn add_calls(&mut self, server: usize, calls: Numbers) {
        let sum = calls.iter().map(|call| call.1).sum();
        self.add(server, vec![("calls".into(), sum)]);
        self.calls[server] = calls;
    }

    fn summary(&self, key: &str, server: usize) -> Option<Summary> {
        let samples = self.samples.get(&(key.into(), server))?;
        let floor = self.samples.get(&(key.into(), self.find(FLOOR)?))?;
        let ratios = samples.iter().zip(floor).map(|(sample, floor)| sample / floor).collect();
        Some(Summary {
            median: median(samples.clone()),
            least: samples.iter().copied().fold(f64::INFINITY, f64::min),
            most: samples.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            ratio: Some(median(ratios)).filter(|ratio| ratio.is_finite()),
        })
    }

    fn find(&self, server: &str) -> Option<usize> {
        self.servers.iter().position(|name| name == server)
    }

    pub fn print(&self) {
        println!("{}", self.title());
        println!("Each cell: median of {} rounds, spread from the least to the most,", self.rounds);
        println!("ratio to the floor (the median of the rounds' ratios).");
        let mut tables: Vec<&str> = self.figures.iter().map(|figure| figure.table).collect();
        tables.dedup();
        for table in tables {
            self.print_table(table);
        }
        self.print_calls();
        self.print_targets();
    }

    fn print_table(&self, table: &str) {
        let measured = |figure: &&Figure| self.summary(&figure.key, 0).is_some();
        let columns = self.figures.iter().filter(|figure| figure.table == table).filter(measured);
        let columns: Vec<&Figure> = columns.collect();
        if columns.is_empty() {
            return;
        }
        println!("\n{table}");
        print!("{:22}", "");
        columns.iter().for_each(|figure| print!("{:>23}", figure.heading));
        println!();
        for (i, server) in self.servers.iter().enumerate() {
            print!("{server:22}");
            for figure in &columns {
                let Some(s) = self.summary(&figure.key, i) else { continue };
                let spread = 100.0 * (s.most - s.least) / s.median;
                let spread = if s.median > 0.0 { format!("{spread:.0}%") } else { "-".into() };
                let ratio = s.ratio.map_or("-".into(), |ratio| format!("{ratio:.2}"));
                print!("{:>10} {spread:>5} {ratio:>6}", short(s.median));
            }
            println!();
        }
    }

    fn print_calls(&self) {
        if self.calls.iter().all(Vec::is_empty) {
            return;
        }
        println!("\nSystem calls of a connection");
        for (server, calls) in self.servers.iter().zip(&self.calls) {
            let calls = calls.iter().map(|(name, n)| format!("{name} {}", short(*n)));
            println!("{server:22} {}", calls.collect::<Vec<_>>().join(", "));
        }
    }

    /// What forkline is meant to reach.
    fn print_targets(&self) {
        let mut lines = String::new();
        let mut target = |key: &str, server: &str, what: &str, to: &str, limit: f64| {
            let Some(ratio) = self.ratio(key, server, to) else { return };
            let met = if what == "at most" { ratio <= limit } else { ratio >= limit };
            let verdict = if met { "" } else { "   NOT MET" };
            let _ = writeln!(
                lines,
                "{key:20} {server:22} {what} {limit:4} of {to:17} {ratio:8.2}{verdict}"
            );
        };
        for server in ["forkline echo -q", "forkline rot13", "forkline echo"] {
            target("cpu", server, "at most", FLOOR, 1.05);
        }
        target("connections-all", "forkline echo -q -j 0", "at least", "forkline echo -q", 1.4);
        target("stream-64", "forkline echo -q", "at least", FLOOR, 0.95);
        target("stream-64", "forkline rot13", "at least", FLOOR, 0.95);
        target("stream-64", "forkline echo -q", "at least", "tcpserver cat", 1.0);
        target("stream-64", "forkline rot13", "at least", "tcpserver cat", 1.0);
        target("stream-64", "forkline echo", "at least", "C echo", 5.0);
        target("stream-64", "forkline rot13", "at least", "C rot13", 150.0);
        for n in [1, 50, 300, 1000] {
            let key = format!("requests-{n}");
            for to in [FLOOR, "C echo", "Go echo"] {
                target(&key, "forkline echo", "at least", to, 1.0);
            }
        }
        let value =
            |key, server| self.find(server).and_then(|i| Some(self.summary(key, i)?.median));
        for server in ["forkline echo -q", "forkline rot13", "forkline echo"] {
            let more = value("faults", server).zip(value("faults", FLOOR)).map(|(a, b)| a - b);
            for (what, limit, number) in [
                ("minor faults more than the floor's", 1.0, more),
                ("KiB of PSS", 8.0, value("pss", server)),
            ] {
                let Some(number) = number else { continue };
                let verdict = if number <= limit { "" } else { "   NOT MET" };
                let _ = writeln!(lines, "{server:22} at most {limit} {what}: {number:.2}{verdict}");
            }
        }
        if !lines.is_empty() {
            print!("\nTargets\n{lines}");
        }
    }

    /// The median of the rounds' ratios of two servers.
    fn ratio(&self, key: &str, server: &str, to: &str) -> Option<f64> {
        let samples = |name| self.samples.get(&(key.to_string(), self.find(name)?));
        let pairs = samples(server)?.iter().zip(samples(to)?);
        Some(median(pairs.map(|(a, b)| a / b).collect()))
    }

    fn title(&self) -> String {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let model = model.unwrap_or_default().trim_start_matches(['\t', ' ', ':']);
        let cpus = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory = field(&meminfo, "MemTotal:") / (1 << 20) as f64;
        let (date, kernel) = (first_line("date", "+%Y-%m-%d"), first_line("uname", "-sr"));
        let quick = if self.quick { ", QUICK: for trying only" } else { "" };
        format!("forkline bench, {date}, {cpus} x {model}, {memory:.0} GiB, {kernel}{quick}")
    }

    /// The same as `bench.json` and `bench.svg`.
    pub fn write(&self, directory: &Path) {
        for (name, text) in [("bench.json", self.json()), ("bench.svg", self.svg())] {
            let file = directory.join(name);
            fs::write(&file, text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            println!("wrote {}", file.display());
        }
    }

    fn json(&self) -> String {
        let mut out =
            format!("{{\n  \"title\": {:?},\n  \"rounds\": {},\n", self.title(), self.rounds);
        let _ = write!(out, "  \"quick\": {},\n  \"figures\": [", self.quick);
        let mut first = true;
        for figure in &self.figures {
            if self.summary(&figure.key, 0).is_none() {
                continue;
            }
            let _ = write!(out, "{}\n    {{\"key\": {:?}, ", comma(&mut first), figure.key);
            let _ =
                write!(out, "\"table\": {:?}, \"heading\": {:?}, ", figure.table, figure.heading);
            let _ = write!(out, "\"more_is_better\": {}, \"servers\": {{", figure.more_is_better);
            let mut first = true;
            for (i, server) in self.servers.iter().enumerate() {
                let Some(s) = self.summary(&figure.key, i) else { continue };
                let ratio = s.ratio.map_or("null".into(), |ratio| ratio.to_string());
                let samples = &self.samples[&(figure.key.clone(), i)];
                let _ = write!(out, "{}\n      {server:?}: ", comma(&mut first));
                let _ = write!(out, "{{\"median\": {}, \"ratio\": {ratio}, ", s.median);
                let _ = write!(out, "\"rounds\": {samples:?}}}");
            }
            out += "\n    }}";
        }
        out += "\n  ],\n  \"calls\": {";
        let mut first = true;
        for (server, calls) in self.servers.iter().zip(&self.calls) {
            let calls = calls.iter().map(|(name, n)| format!("{name:?}: {n}"));
            let calls = calls.collect::<Vec<_>>().join(", ");
            let _ = write!(out, "{}\n    {server:?}: {{{calls}}}", comma(&mut first));
        }
        out + "\n  }\n}\n"
    }

    /// A panel of bars for each figure that is worth one, two panels in a row.
    fn svg(&self) -> String {
        const PANEL: usize = 480;
        const BAR: usize = 17;
        let in_chart = |figure: &&Figure| figure.in_chart && self.summary(&figure.key, 0).is_some();
        let panels: Vec<&Figure> = self.figures.iter().filter(in_chart).collect();
        let height = self.servers.len() * BAR + 46;
        let (width, rows) = (2 * PANEL, panels.len().div_ceil(2));
        let mut out = String::new();
        let _ = write!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {}\" \
             width=\"{width}\" font-family=\"sans-serif\" font-size=\"11\" fill=\"#24292f\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
             <text x=\"12\" y=\"22\" font-size=\"13\" font-weight=\"bold\">{}</text>\n\
             <text x=\"12\" y=\"40\">Bars: median of {} rounds; lines: least to most; \
             in brackets: ratio to the floor. make bench</text>\n",
            rows * height + 56,
            escape(&self.title()),
            self.rounds
        );
        for (i, figure) in panels.iter().enumerate() {
            let (x, y) = (i % 2 * PANEL, 56 + i / 2 * height);
            let _ = writeln!(out, "<g transform=\"translate({x},{y})\">");
            self.panel(&mut out, figure, BAR);
            out += "</g>\n";
        }
        out + "</svg>\n"
    }

    fn panel(&self, out: &mut String, figure: &Figure, bar: usize) {
        const LEFT: f64 = 135.0;
        const LONGEST: f64 = 250.0;
        let better = if figure.more_is_better { "more is better" } else { "less is better" };
        let _ = writeln!(
            out,
            "<text x=\"12\" y=\"16\" font-weight=\"bold\">{}: {} ({better})</text>",
            escape(figure.table),
            escape(&figure.heading)
        );
        let rows: Vec<Option<Summary>> =
            (0..self.servers.len()).map(|i| self.summary(&figure.key, i)).collect();
        let most = rows.iter().flatten().map(|s| s.most).fold(0.0, f64::max);
        for (i, (server, row)) in self.servers.iter().zip(&rows).enumerate() {
            let Some(s) = row else { continue };
            let at = |value: f64| LEFT + LONGEST * value.max(0.0) / most.max(f64::MIN_POSITIVE);
            let (y, colour) = (24 + i * bar, colour(server));
            let (end, least, top) = (at(s.median), at(s.least), at(s.most));
            let ratio = s.ratio.map_or(String::new(), |ratio| format!(" ({ratio:.2})"));
            let _ = writeln!(
                out,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
                 <rect x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"{}\" fill=\"{colour}\"/>\
                 <path d=\"M{least:.1} {}H{top:.1}\" stroke=\"#24292f\"/>\
                 <text x=\"{:.1}\" y=\"{}\">{}{ratio}</text>",
                LEFT - 6.0,
                y + bar - 6,
                escape(server),
                end - LEFT,
                bar - 4,
                y + bar / 2 - 2,
                top.max(end) + 5.0,
                y + bar - 6,
                short(s.median)
            );
        }
    }
}

fn colour(server: &str) -> &'static str {
    match server.split(' ').next() {
        Some("forkline") => "#0969da",
        Some(FLOOR) => "#57606a",
        Some("C") => "#bf8700",
        Some("other") => "#8250df",
        _ => "#afb8c1",
    }
}

fn comma(first: &mut bool) -> &'static str {
    if std::mem::take(first) { "" } else { "," }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// Three digits or more, none that means nothing.
fn short(number: f64) -> String {
    let digits = if number.abs() < 10.0 { 2 } else { (number.abs() < 100.0) as usize };
    format!("{number:.digits$}")
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let (low, high) = ((numbers.len() - 1) / 2, numbers.len() / 2);
    (numbers[low] + numbers[high]) / 2.0
}
