//! `make grade`: judges every C file of a directory, each under limits, as a
//! user of its own if we are root, and in a network of its own where that is
//! permitted. Writes a page for each, and all of them as a table.

use super::lesson::{Check, LESSONS, Lesson};
use super::program::Limits;
use super::source::escape;
use super::verdict::{self, Cell, Colour};
use super::{Comparison, Failure, NOT_TRIED, Settings, Side, compare, page};
use crate::common::own_network;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// For thirty programs in ten minutes, two at once.
pub const LATE: Duration = Duration::from_secs(25);
const AT_ONCE: usize = 2;
/// The first of the users that the programs run as. Nobody has such a number, and
/// another run at the same time has others.
const FIRST_USER: u32 = 1_900_000_000;

/// One program, judged.
struct Row {
    name: String,
    service: &'static str,
    /// Where its page is, seen from the table.
    page: String,
    status: i32,
    words: String,
    checks: Vec<(&'static str, Cell)>,
    seconds: f64,
}

/// Judges all; 1 if there is nothing to judge.
pub fn grade(directory: &Path, out: &Path, late: Duration, cc: &str, cflags: &str) -> i32 {
    let files = c_files(directory);
    if files.is_empty() {
        eprintln!("{}: no file that ends with .c", directory.display());
        return 1;
    }
    fs::create_dir_all(out).expect("the directory of the pages");
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    // Ports that a C insists on would collide.
    let at_once = if thread::scope(|s| s.spawn(own_network).join().unwrap()) { AT_ONCE } else { 1 };
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let n = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(file) = files.get(n)
                {
                    let row = judge(file, n, out, late, cc, cflags);
                    println!(
                        "{:<30} {:<6} {} ({:.0} s)",
                        row.name, row.service, row.words, row.seconds
                    );
                    rows.lock().unwrap().push(row);
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    for (name, text) in [("grade.csv", csv(&rows)), ("index.html", html(&rows))] {
        fs::write(out.join(name), text).expect("the table");
    }
    println!("page: {}", out.join("index.html").display());
    0
}

fn c_files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries
        .filter(|path| path.extension().is_some_and(|e| e == "c") && path.is_file())
        .collect();
    files.sort();
    files
}

/// The service that a C means to be: it names it somewhere, or it is echo.
fn service_of(file: &Path) -> &'static str {
    let text = fs::read(file).map(|text| String::from_utf8_lossy(&text).to_lowercase());
    let name = file.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let is_rot13 = name.contains("rot13") || text.is_ok_and(|text| text.contains("rot13"));
    if is_rot13 { "rot13" } else { "echo" }
}

fn judge(file: &Path, n: usize, out: &Path, late: Duration, cc: &str, cflags: &str) -> Row {
    let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let scratch = std::env::temp_dir().join(format!("forkline-grade-{}-{n}", std::process::id()));
    let copy = scratch.join(file.file_name().unwrap_or_default());
    fs::create_dir_all(&scratch).expect("a directory for the program");
    fs::copy(file, &copy).expect("a copy of the program");
    // Only root may give files away.
    let user = FIRST_USER + 100 * std::process::id() + n as u32;
    let give = |path: &Path| chown(path, Some(user), Some(user));
    let user = give(&scratch).and_then(|()| give(&copy)).is_ok().then_some(user);
    let settings = Settings {
        c: vec![(service_of(file), copy)],
        cc: cc.into(),
        cflags: cflags.into(),
        out: out.join(&name),
        scratch: scratch.clone(),
        limits: Some(Limits { user }),
        late,
        faults: true,
        cost: true,
    };
    let judged = catch_unwind(AssertUnwindSafe(|| compare(&settings)));
    // What has left its process group too.
    if let Some(user) = user {
        let _ = Command::new("sh").args(["-c", "kill -9 -1"]).uid(user).gid(user).status();
    }
    let _ = fs::remove_dir_all(&scratch);
    match judged {
        Ok(comparison) => row(name, &settings, comparison),
        Err(_) => panicked(name, settings.c[0].0),
    }
}

fn row(name: String, settings: &Settings, mut comparison: Comparison) -> Row {
    // The directory is gone, so its name helps nobody.
    let scratch = format!("{}/", settings.scratch.display());
    for side in &mut comparison.sides {
        side.warnings = side.warnings.replace(&scratch, "");
        if let Some(Failure::Compile(why) | Failure::Listen(why)) = &mut side.failure {
            *why = why.replace(&scratch, "");
        }
    }
    let page = settings.out.join("index.html");
    fs::write(page, page::html(&comparison)).expect("its page");
    let side = &comparison.sides[0];
    let words = verdict::words(side).join(", ");
    Row {
        page: format!("{name}/index.html"),
        name,
        service: side.service,
        status: verdict::exit_status(&comparison),
        words: if words.is_empty() { "good".into() } else { words },
        checks: checks(side),
        seconds: comparison.seconds,
    }
}

/// Something of ours failed, and says so above.
fn panicked(name: String, service: &'static str) -> Row {
    let words = "could not be judged".into();
    Row { name, service, page: String::new(), status: 1, words, checks: vec![], seconds: 0.0 }
}

/// The parts of the verdict, with each lesson in place of the processes.
fn checks(side: &Side) -> Vec<(&'static str, Cell)> {
    let made: &[Check] = side.lessons.as_ref().map_or(&[], |lessons| lessons);
    let lesson = |lesson: &'static Lesson| {
        let check = made.iter().find(|check| check.lesson.id == lesson.id);
        let cell = match check {
            None => verdict::cell(Colour::Untried, NOT_TRIED),
            Some(check) if check.good() => verdict::cell(Colour::Good, &*check.c.text),
            Some(check) => verdict::cell(Colour::Bad, &*check.c.text),
        };
        (lesson.id, cell)
    };
    let parts = verdict::cells(side).into_iter().flat_map(|cell| match cell.part {
        "processes" => LESSONS.iter().map(lesson).collect(),
        part => vec![(part, cell)],
    });
    parts.collect()
}

/// A field as RFC 4180 has it.
fn field(text: &str) -> String {
    format!("\"{}\"", text.lines().next().unwrap_or_default().replace('"', "\"\""))
}

/// The names of the columns, from a program that was judged.
fn columns(rows: &[Row]) -> Vec<&'static str> {
    let row = rows.iter().find(|row| !row.checks.is_empty());
    row.map_or(vec![], |row| row.checks.iter().map(|(name, _)| *name).collect())
}

fn csv(rows: &[Row]) -> String {
    let mut csv = format!("program,service,status,verdict,{},seconds\r\n", columns(rows).join(","));
    for row in rows {
        let _ = write!(
            csv,
            "{},{},{},{}",
            field(&row.name),
            row.service,
            row.status,
            field(&row.words)
        );
        for (_, cell) in &row.checks {
            let value = if cell.colour == Colour::Good { "ok" } else { &cell.text };
            let _ = write!(csv, ",{}", field(value));
        }
        let _ = write!(csv, ",{:.1}\r\n", row.seconds);
    }
    csv
}

fn html(rows: &[Row]) -> String {
    let mut html = page::head("The class")
        + "<header><h1>The class</h1><p>One row for each \
program, one column for each check. Point at a mark to read what was seen; the name leads to the \
program's page.</p></header><main><div class=scroll tabindex=0 role=region aria-label=Grades>\
<table class=class><thead><tr><th>program<th>service<th>verdict";
    for column in columns(rows) {
        let _ = write!(html, "<th>{column}");
    }
    html += "</thead><tbody>";
    for row in rows {
        let (name, page) = (escape(&row.name), escape(&row.page));
        let class = if row.status == 0 { "good" } else { "bad" };
        let _ = write!(
            html,
            "<tr><th><a href=\"{page}\">{name}</a><td>{}<td class={class}>{}",
            row.service,
            escape(&row.words)
        );
        for (_, cell) in &row.checks {
            let (class, sign) = page::sign(cell.colour);
            let text = escape(cell.text.lines().next().unwrap_or_default());
            let _ =
                write!(html, "<td class={class} title=\"{text}\"><span class=sign>{sign}</span>");
        }
    }
    html + "</tbody></table></div></main></body></html>\n"
}
