//! `make compare`: the C and forkline side by side, as a verdict and a page.
//! Each part stands alone: `source`, `wire`, `reports`, `lesson`, `calls`,
//! `inject`, `cost` and `picture` give what they found, `verdict` judges it,
//! `page` writes it as HTML, and here all is put together.

pub mod calls;
pub mod cost;
pub mod exercise;
pub mod grade;
pub mod inject;
pub mod lesson;
pub mod lines;
pub mod page;
pub mod picture;
pub mod program;
pub mod reports;
pub mod source;
pub mod verdict;
pub mod wire;

use crate::common::own_network;
use calls::Trace;
use cost::Figure;
use inject::Subject;
use lesson::Check;
use lines::{Group, Mirror};
use program::{Build, Limits, Program};
use source::{File, Pair};
use std::fs;
use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use wire::Exchange;

pub const SERVICES: [&str; 2] = ["echo", "rot13"];

/// Of the minute that `make compare` may take, what is left for all but the cost.
pub const LATE: Duration = Duration::from_secs(42);

pub struct Settings {
    /// The C files, each with its service.
    pub c: Vec<(&'static str, PathBuf)>,
    pub cc: String,
    pub cflags: String,
    /// Where the page goes.
    pub out: PathBuf,
    /// Where the C programs and strace's files go.
    pub scratch: PathBuf,
    pub limits: Option<Limits>,
    /// Faults are tried until then, and nothing long is begun later.
    pub late: Duration,
    /// Whether to try the faults and to measure the cost, which takes longest.
    pub faults: bool,
    pub cost: bool,
}

/// Why a C could not be judged at all.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    Compile(String),
    Listen(String),
}

/// One service, in C and in forkline. What could not be had says why.
pub struct Side {
    pub service: &'static str,
    /// The C file, as it was named to us.
    pub path: PathBuf,
    pub file: Result<File, String>,
    pub pairs: Vec<Pair>,
    pub warnings: String,
    pub failure: Option<Failure>,
    pub wire: Vec<Exchange>,
    pub reports: Result<Vec<Exchange>, String>,
    pub lessons: Result<Vec<Check>, String>,
    /// Of the C and of forkline.
    pub calls: Result<(Trace, Trace), String>,
    pub faults: Result<inject::Table, String>,
    pub cost: Result<Vec<Figure>, String>,
}

impl Side {
    /// The file's name alone.
    pub fn path_name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Whether it is the project's own C.
    pub fn is_ours(&self) -> bool {
        let ours = project(&format!("tests/c/{}.c", self.service));
        self.path.canonicalize().is_ok_and(|path| Some(path) == ours.canonicalize().ok())
    }
}

pub struct Comparison {
    pub sides: Vec<Side>,
    pub rust: Vec<File>,
    /// What lines.txt says, and what is wrong with it.
    pub mirror: Mirror,
    /// Rust that no C corresponds to.
    pub rust_alone: Vec<Pair>,
    /// The README's table of differences.
    pub differences: Vec<(String, String)>,
    /// What `make bench` has drawn: name and SVG.
    pub charts: Vec<(String, String)>,
    /// How long it took.
    pub seconds: f64,
}

/// A path in the project.
pub fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Cargo's directory for what is built.
pub fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target/tmp").into()
}

pub fn table() -> Vec<Group> {
    lines::groups(include_str!("lines.txt"))
}

/// What lines.txt says of the project's own files.
pub fn mirror() -> Mirror {
    let groups = table();
    lines::mirror(&groups, &c_files(), &rust_files(&groups))
}

/// src/main.rs and the other files that the table names.
pub fn rust_files(groups: &[Group]) -> Vec<File> {
    let mut names = vec!["main.rs"];
    for name in groups.iter().flat_map(lines::Group::files) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let read = |name: &&str| {
        let file = File::read(&project("src").join(name)).expect("a source file");
        File { name: (*name).into(), ..file }
    };
    names.iter().map(read).collect()
}

/// The C that forkline follows.
pub fn c_files() -> Vec<File> {
    let file = |service| File::read(&project("tests/c").join(format!("{service}.c")));
    SERVICES.iter().map(|service| file(service).expect("a C file")).collect()
}

pub fn compare(settings: &Settings) -> Comparison {
    let begin = Instant::now();
    for directory in [&settings.out, &settings.scratch] {
        fs::create_dir_all(directory).expect("the directories of the page");
    }
    let mirror = mirror();
    let pairs = &mirror.pairs;
    let judge = |(service, c): &(&'static str, PathBuf)| {
        let mut side = new_side(service, c, pairs);
        let built = judge(&mut side, settings, begin);
        (side, built)
    };
    // Both at once, each in a network of its own where that is permitted.
    let judged: Vec<(Side, Option<Program>)> = thread::scope(|scope| {
        let threads: Vec<_> =
            settings.c.iter().map(|c| scope.spawn(move || in_network(|| judge(c)))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a judgement")).collect()
    });
    let mut sides = Vec::new();
    for (mut side, built) in judged {
        // Alone: nothing else may disturb what is measured.
        if let Some(built) = built.filter(|_| settings.cost) {
            side.cost = in_network(|| measure(&side, &built, begin + settings.late));
        }
        sides.push(side);
    }
    progress("");
    Comparison {
        sides,
        rust: rust_files(&table()),
        rust_alone: pairs.iter().filter(|pair| pair.c.is_empty()).cloned().collect(),
        mirror,
        differences: differences(&fs::read_to_string(project("README.md")).unwrap_or_default()),
        charts: charts(&target().join("bench")),
        seconds: begin.elapsed().as_secs_f64(),
    }
}

fn new_side(service: &'static str, c: &Path, pairs: &[Pair]) -> Side {
    let file = File::read(c);
    Side {
        service,
        path: c.into(),
        pairs: file.as_ref().map_or(vec![], |file| source::pairs_for(pairs, service, file)),
        file,
        warnings: String::new(),
        failure: None,
        wire: vec![],
        reports: Err(NOT_TRIED.into()),
        lessons: Err(NOT_TRIED.into()),
        calls: Err(NOT_TRIED.into()),
        faults: Err(NOT_TRIED.into()),
        cost: Err(NOT_TRIED.into()),
    }
}

const NOT_TRIED: &str = "not tried";

/// Everything but the cost; the program, if it can be measured.
fn judge(side: &mut Side, settings: &Settings, begin: Instant) -> Option<Program> {
    let service = side.service;
    let tell = |what: &str| progress(&format!("{service}: {what}"));
    tell("compiling");
    let built = match program::compile(&build(side, settings), 0) {
        Ok(built) => built,
        Err(why) => return fail(side, Failure::Compile(why)),
    };
    side.warnings = built.warnings.clone();
    let forkline = program::forkline(service);
    tell("conversations");
    side.wire = match wire::compare(service, &built, &forkline) {
        Ok(exchanges) => exchanges,
        Err(why) => return fail(side, Failure::Listen(why)),
    };
    tell("reports");
    side.reports = reports::compare(service, &built, &forkline);
    if wire::silent(&side.wire) {
        side.lessons = Err("not tried: it does not answer a line in time".into());
        return None;
    }
    tell("processes");
    let late = begin + settings.late;
    side.lessons = Ok(in_network(|| lesson::compare(&built, &forkline, late)));
    tell("system calls");
    let trace = |program: &Program, name: &str| {
        in_network(|| calls::trace(program, &settings.scratch.join(format!("{service}-{name}"))))
    };
    side.calls = trace(&built, "calls").and_then(|c| Ok((c, trace(&forkline, "our-calls")?)));
    if settings.faults {
        tell("the same faults in both");
        side.faults = faults(side, &built, &forkline, late);
    }
    Some(built)
}

fn fail(side: &mut Side, failure: Failure) -> Option<Program> {
    side.failure = Some(failure);
    None
}

fn build(side: &Side, settings: &Settings) -> Build {
    Build {
        source: side.path.clone(),
        to: settings.scratch.join(format!("{}-c", side.service)),
        cc: settings.cc.clone(),
        cflags: settings.cflags.clone(),
        limits: settings.limits,
    }
}

fn faults(
    side: &Side,
    c: &Program,
    forkline: &Program,
    end: Instant,
) -> Result<inject::Table, String> {
    let (of_c, of_forkline) = side.calls.as_ref().map_err(String::clone)?;
    let service = side.service;
    inject::compare(
        &Subject { service, program: c, trace: of_c },
        &Subject { service, program: forkline, trace: of_forkline },
        end,
    )
}

fn measure(side: &Side, c: &Program, late: Instant) -> Result<Vec<Figure>, String> {
    // The other service's cost may have been measured since.
    if Instant::now() > late + cost::MOST.time() / 2 {
        return Err("not measured: no time was left".into());
    }
    if verdict::words(side).contains(&"zombie") {
        return Err("not measured: what children use that nobody waits for is not counted".into());
    }
    progress(&format!("{}: cost", side.service));
    let traces = side.calls.as_ref().ok().map(|(c, forkline)| [c, forkline]);
    cost::compare(side.service, [c, &program::forkline(side.service)], traces)
}

/// Runs this in a thread with a network of its own, where that is permitted: a
/// port that a C insists on is free there.
fn in_network<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let work = || {
            own_network();
            work()
        };
        scope.spawn(work).join().expect("the work in a network of its own")
    })
}

/// One line on a terminal that is written over and over.
fn progress(text: &str) {
    if stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
    }
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
