//! `make compare`: the C and forkline side by side, as a page and a summary.
//! Each part stands alone: `source`, `wire` and `calls` give what they found,
//! `page` writes it as HTML, and here all is put together.

pub mod calls;
pub mod page;
pub mod program;
pub mod source;
pub mod wire;

use calls::Trace;
use program::Program;
use source::{File, Pair};
use std::fs;
use std::path::{Path, PathBuf};
use wire::{Exchange, Verdict};

pub const SERVICES: [&str; 2] = ["echo", "rot13"];

pub struct Settings {
    /// The C files, in the order of `SERVICES`.
    pub c: [PathBuf; 2],
    pub cc: String,
    pub cflags: String,
    /// Where the page and the C programs go.
    pub out: PathBuf,
}

/// One service, in C and in forkline. What could not be had says why.
pub struct Side {
    pub service: &'static str,
    pub file: Result<File, String>,
    pub pairs: Vec<Pair>,
    pub warnings: String,
    pub wire: Result<Vec<Exchange>, String>,
    /// Of the C and of forkline.
    pub calls: Result<(Trace, Trace), String>,
}

pub struct Comparison {
    pub sides: Vec<Side>,
    pub rust: Vec<File>,
    /// What is wrong with pairs.txt.
    pub faults: Vec<String>,
    /// Rust that no C corresponds to.
    pub rust_alone: Vec<Pair>,
    /// The README's table of differences.
    pub differences: Vec<(String, String)>,
    /// What `make bench` has drawn: name and SVG.
    pub charts: Vec<(String, String)>,
}

/// A path in the project.
pub fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Cargo's directory for what is built.
pub fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target/tmp").into()
}

pub fn table() -> Vec<Pair> {
    source::pairs(include_str!("pairs.txt"))
}

/// src/main.rs and the other files that the pairs name.
pub fn rust_files(pairs: &[Pair]) -> Vec<File> {
    let mut names = vec!["main.rs"];
    for (name, _) in pairs.iter().flat_map(|pair| &pair.rust) {
        if !names.contains(&&**name) {
            names.push(name);
        }
    }
    names
        .iter()
        .map(|name| File::read(&project("src").join(name)).expect("a source file"))
        .collect()
}

/// The C that forkline follows.
pub fn c_files() -> Vec<File> {
    let file = |service| File::read(&project("tests/c").join(format!("{service}.c")));
    SERVICES.iter().map(|service| file(service).expect("a C file")).collect()
}

pub fn compare(settings: &Settings) -> Comparison {
    fs::create_dir_all(&settings.out).expect("the directory of the page");
    let pairs = table();
    let sides = SERVICES.iter().zip(&settings.c);
    let rust = rust_files(&pairs);
    Comparison {
        sides: sides.map(|(service, c)| side(service, c, &pairs, settings)).collect(),
        faults: source::faults(&pairs, &c_files(), &rust),
        rust,
        rust_alone: pairs.iter().filter(|pair| pair.c.is_empty()).cloned().collect(),
        differences: differences(&fs::read_to_string(project("README.md")).unwrap_or_default()),
        charts: charts(&target().join("bench")),
    }
}

fn side(service: &'static str, c: &Path, pairs: &[Pair], settings: &Settings) -> Side {
    let file = File::read(c);
    let pairs = file.as_ref().map_or(vec![], |file| source::pairs_for(pairs, service, file));
    let to = settings.out.join(format!("{service}-c"));
    let built = program::compile(c, &to, &settings.cc, &settings.cflags);
    let forkline = program::forkline(service);
    let mut side = Side {
        service,
        file,
        pairs,
        warnings: String::new(),
        wire: Err(String::new()),
        calls: Err(String::new()),
    };
    match &built {
        Err(why) => (side.wire, side.calls) = (Err(why.clone()), Err(why.clone())),
        Ok(built) => {
            side.warnings = built.warnings.clone();
            let named = |why| format!("{}: {why}", c.display());
            side.wire = wire::compare(service, built, &forkline).map_err(named);
            let trace = |program: &Program| calls::trace(program, &settings.out.join("calls"));
            side.calls = match &side.wire {
                Err(why) => Err(why.clone()),
                Ok(_) => trace(built).and_then(|c| Ok((c, trace(&forkline)?))),
            };
        }
    }
    side
}

/// The rows of the README's table `| the C | forkline |`.
pub fn differences(readme: &str) -> Vec<(String, String)> {
    let table = readme.lines().skip_while(|line| *line != "| the C | forkline |").skip(2);
    let rows = table.take_while(|line| line.starts_with('|')).filter_map(|line| {
        let (c, forkline) = line.trim_matches(['|', ' ']).split_once(" | ")?;
        Some((c.to_owned(), forkline.to_owned()))
    });
    rows.collect()
}

fn charts(bench: &Path) -> Vec<(String, String)> {
    let files = fs::read_dir(bench).into_iter().flatten().flatten().map(|file| file.path());
    let mut files: Vec<PathBuf> =
        files.filter(|file| file.extension().is_some_and(|e| e == "svg")).collect();
    files.sort();
    let chart = |file: PathBuf| {
        let name = file.file_stem()?.to_string_lossy().into_owned();
        Some((name, fs::read_to_string(&file).ok()?))
    };
    files.into_iter().filter_map(chart).collect()
}

impl Comparison {
    /// What a terminal is told.
    pub fn summary(&self) -> String {
        let mut lines = self.faults.clone();
        for side in &self.sides {
            let service = side.service;
            let mut tell = |part: &str, text: String| {
                let mut rows = text.lines();
                lines.push(format!("{part:<7} {service:<6} {}", rows.next().unwrap_or_default()));
                lines.extend(rows.map(|row| format!("{:14} {row}", "")));
            };
            tell("source", source_in_words(side));
            if !side.warnings.is_empty() {
                tell("cc", side.warnings.clone());
            }
            match &side.wire {
                // Said once: there are no calls either.
                Err(why) => tell("failed", why.clone()),
                Ok(exchanges) => {
                    tell("wire", wire_in_words(exchanges));
                    tell("calls", calls_in_words(&side.calls));
                }
            }
        }
        lines.push(match self.charts.len() {
            0 => "cost           none yet: `make bench` makes the charts".into(),
            n => format!("cost           {n} of the benchmark's charts"),
        });
        lines.join("\n")
    }
}

fn source_in_words(side: &Side) -> String {
    let Err(why) = &side.file else {
        let items: usize = side.pairs.iter().map(|pair| pair.c.len()).sum();
        let alone =
            side.pairs.iter().filter(|pair| pair.rust.is_empty()).map(|pair| pair.c.join(" "));
        let alone: Vec<String> = alone.collect();
        return match alone.len() {
            0 => format!("{items} functions, types and constants of the C, each with its mirror"),
            _ => format!("{items} of the C, without a mirror: {}", alone.join(", ")),
        };
    };
    why.clone()
}

fn wire_in_words(exchanges: &[Exchange]) -> String {
    let count = |is: fn(&Verdict) -> bool| exchanges.iter().filter(|e| is(&e.verdict)).count();
    let equal = count(|verdict| *verdict == Verdict::Equal);
    let known = count(|verdict| matches!(verdict, Verdict::Known(_)));
    let mut text = format!("{} conversations, {equal} equal", exchanges.len());
    if known > 0 {
        text += &format!(", {known} different as the README's table says");
    }
    for exchange in exchanges.iter().filter(|exchange| exchange.verdict == Verdict::Differs) {
        text += &format!("\ndifferent: {}: {}", exchange.name, difference(exchange));
    }
    text
}

/// What differs first, in a few words.
pub fn difference(exchange: &Exchange) -> String {
    let (c, forkline) = (&exchange.c, &exchange.forkline);
    let Some(at) = wire::differs_at(&c.bytes, &forkline.bytes) else {
        return format!("the C's connection was {}, forkline's {}", c.end, forkline.end);
    };
    let byte = |bytes: &[u8]| bytes.get(at).map_or("nothing".into(), |byte| format!("{byte:02x}"));
    let (ours, theirs) = (byte(&forkline.bytes), byte(&c.bytes));
    let lengths =
        format!("{} bytes from the C, {} from forkline", c.bytes.len(), forkline.bytes.len());
    format!("at offset {at} the C sent {theirs}, forkline {ours} ({lengths})")
}

fn calls_in_words(calls: &Result<(Trace, Trace), String>) -> String {
    match calls {
        Err(why) => why.clone(),
        Ok((c, forkline)) => {
            let [[a, b, c], [d, e, f]] = [c.counts(), forkline.counts()];
            format!("the C makes {a} to start, {b} as parent, {c} as child; forkline {d}, {e}, {f}")
        }
    }
}
