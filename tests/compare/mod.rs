//! `make compare`: the C and forkline side by side, as a verdict and a page.
//! `submission` says what is compiled, `program` how it is called, `jail` where it runs.
//! Each part stands alone: `source`, `roles`, `wire`, `reports`, `lesson`, `calls`,
//! `inject`, `cost` and `picture` give what they found, `verdict` judges it,
//! `page` writes it as HTML, and here all is put together.

pub mod calls;
pub mod cost;
pub mod exercise;
pub mod grade;
pub mod inject;
pub mod jail;
pub mod lesson;
pub mod lines;
pub mod page;
pub mod picture;
pub mod program;
pub mod reports;
pub mod roles;
pub mod source;
pub mod submission;
pub mod verdict;
pub mod wire;

use calls::Trace;
use cost::Figure;
use jail::Room;
use lesson::Check;
use lines::{Group, Mirror};
use program::{Program, Tools, fresh_network};
use source::{File, Pair};
use std::fs;
use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use submission::Submission;
use wire::Exchange;

pub const SERVICES: [&str; 2] = ["echo", "rot13"];

/// Of the minute that `make compare` may take, what is left for all but the cost.
pub const LATE: Duration = Duration::from_secs(42);

pub struct Settings {
    /// The C, each with its service.
    pub c: Vec<(&'static str, Submission)>,
    pub tools: Tools,
    /// Where the page goes.
    pub out: PathBuf,
    /// A right server of another kind is not right.
    pub strict: bool,
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
    pub submission: Submission,
    pub strict: bool,
    pub files: Result<Vec<File>, String>,
    pub pairs: Vec<Pair>,
    /// How it is started.
    pub called: String,
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
    /// The name of the file with `main` alone.
    pub fn path_name(&self) -> String {
        let file = self.submission.files.first().and_then(|file| file.file_name());
        file.map_or(self.submission.name.clone(), |name| name.to_string_lossy().into_owned())
    }

    /// Whether it is the project's own C.
    pub fn is_ours(&self) -> bool {
        let ours = project(&format!("tests/c/{}.c", self.service));
        let [file] = &self.submission.files[..] else { return false };
        file.canonicalize().is_ok_and(|path| Some(path) == ours.canonicalize().ok())
    }

    pub fn source(&self) -> &[File] {
        self.files.as_ref().map_or(&[], |files| files)
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
    fs::create_dir_all(&settings.out).expect("the directory of the page");
    let room = Room::new(&settings.out);
    let mirror = mirror();
    let pairs = &mirror.pairs;
    let judge = |(service, c): &(&'static str, Submission)| {
        let mut side = new_side(service, c, pairs, settings.strict);
        let built = judge(&mut side, settings, &room.path().join(service), begin);
        (side, built)
    };
    let mut sides = Vec::new();
    for (mut side, built) in of_each(&settings.c, judge) {
        // Alone: nothing else may disturb what is measured.
        if let Some(built) = built.filter(|_| settings.cost) {
            side.cost = in_network(|| measure(&side, &built, begin + settings.late));
        }
        sides.push(side);
    }
    drop(room);
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

/// Both at once; one after the other where they would meet each other's ports.
fn of_each<T: Sync, U: Send>(items: &[T], work: impl Fn(&T) -> U + Sync) -> Vec<U> {
    if !in_network(fresh_network) {
        return items.iter().map(|item| in_network(|| work(item))).collect();
    }
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = items.iter().map(|item| scope.spawn(move || work(item))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a judgement")).collect()
    })
}

/// Two programs at the same time, each in a network of its own.
pub fn both<T: Send, U: Send>(
    c: impl FnOnce() -> T + Send,
    forkline: impl FnOnce() -> U + Send,
) -> (T, U) {
    thread::scope(|scope| {
        let c = scope.spawn(|| in_network(c));
        let forkline = in_network(forkline);
        (c.join().expect("the C's side"), forkline)
    })
}

fn new_side(service: &'static str, c: &Submission, pairs: &[Pair], strict: bool) -> Side {
    let files = c.files.iter().map(|file| File::read(file)).collect::<Result<Vec<_>, _>>();
    let files = match files {
        Ok(files) if files.is_empty() => Err(format!("{}: no C file", c.name)),
        files => files,
    };
    Side {
        service,
        submission: c.clone(),
        strict,
        pairs: files.as_ref().map_or(vec![], |files| source::pairs_for(pairs, service, files)),
        files,
        called: String::new(),
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
fn judge(side: &mut Side, settings: &Settings, room: &Path, begin: Instant) -> Option<Program> {
    let service = side.service;
    let tell = |what: &str| progress(&format!("{service}: {what}"));
    tell("compiling");
    let compiled = match compile(side, settings, room) {
        Ok(compiled) => compiled,
        Err(why) => return fail(side, Failure::Compile(why)),
    };
    side.warnings = compiled.warnings.clone();
    let name = side.path_name().trim_end_matches(".c").to_owned();
    let found = in_network(|| program::find_call(&compiled, &name, program::port()));
    let built = match found {
        Ok(built) => built,
        Err(why) => return fail(side, Failure::Listen(why)),
    };
    side.called = built.called.clone();
    let forkline = program::forkline(service);
    tell("conversations");
    side.wire = match wire::compare(service, &built, &forkline) {
        Ok(exchanges) => exchanges,
        Err(why) => return fail(side, Failure::Listen(why.to_string())),
    };
    if let Some(why) = wire::unfit(&side.wire) {
        let why = format!("not tried: {why}");
        (side.reports, side.lessons) = (Err(why.clone()), Err(why));
        return None;
    }
    tell("reports");
    side.reports = reports::compare(service, &built, &forkline);
    tell("processes");
    // Time is left for the faults.
    let late = begin + settings.late;
    let checks = lesson::compare(&built, &forkline, late);
    if !checks[0].c.good {
        let why = format!("not tried: {}", checks[0].c.text);
        side.lessons = Ok(checks);
        (side.calls, side.faults) = (Err(why.clone()), Err(why));
        return Some(built);
    }
    side.lessons = Ok(checks);
    tell("system calls");
    let trace = |program: &Program| in_network(|| calls::trace(program, room));
    side.calls = trace(&built).and_then(|c| Ok((c, trace(&forkline)?)));
    if settings.faults {
        tell("the same faults in both");
        side.faults = match &side.calls {
            Err(why) => Err(why.clone()),
            Ok((c, of_forkline)) => inject::compare([&built, &forkline], [c, of_forkline], late),
        };
    }
    Some(built)
}

fn compile(side: &Side, settings: &Settings, room: &Path) -> Result<Program, String> {
    side.files.as_ref().map_err(String::clone)?;
    let sources = side.submission.copy(room).map_err(|e| e.to_string())?;
    program::compile(&sources, &settings.tools, room)
}

fn fail(side: &mut Side, failure: Failure) -> Option<Program> {
    side.failure = Some(failure);
    None
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

/// Runs this in a thread with a network of its own, where that is permitted.
fn in_network<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let work = || {
            fresh_network();
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
