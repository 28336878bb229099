//! `make grade`: judges every C program of a directory, each under limits and in a
//! network of its own where that is permitted (see `jail`). Writes a page for each, and
//! all of them as a table.

use super::lesson::{Check, LESSONS, Lesson};
use super::program::{Tools, fresh_network};
use super::source::escape;
use super::submission::{self, Submission};
use super::verdict::{self, Cell, Colour};
use super::{Comparison, NOT_TRIED, Settings, Side, compare, page};
use std::fmt::Write;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// For thirty programs in ten minutes, two at once.
pub const LATE: Duration = Duration::from_secs(32);
const AT_ONCE: usize = 2;

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

/// How a class is judged.
pub struct Rules {
    pub tools: Tools,
    pub strict: bool,
    /// For each program, as in `Settings`.
    pub late: Duration,
    pub faults: bool,
}

/// Judges all; 1 if there is nothing to judge.
pub fn grade(directory: &Path, out: &Path, rules: &Rules) -> i32 {
    let class = submission::class(directory);
    if class.is_empty() {
        eprintln!("{}: no file that ends with .c, and no folder", directory.display());
        return 1;
    }
    fs::create_dir_all(out).expect("the directory of the pages");
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    // Ports that a C insists on would collide.
    let at_once =
        if thread::scope(|s| s.spawn(fresh_network).join().unwrap()) { AT_ONCE } else { 1 };
    let judge_next = || {
        while let Some(program) = class.get(next.fetch_add(1, Ordering::Relaxed)) {
            let row = judge(program, out, rules);
            println!("{:<30} {:<6} {} ({:.0} s)", row.name, row.service, row.words, row.seconds);
            rows.lock().unwrap().push(row);
        }
    };
    thread::scope(|scope| {
        (0..at_once).for_each(|_| drop(scope.spawn(judge_next)));
    });
    let mut rows = rows.into_inner().unwrap();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    for (name, text) in [("grade.csv", csv(&rows)), ("index.html", html(&rows))] {
        fs::write(out.join(name), text).expect("the table");
    }
    println!("page: {}", out.join("index.html").display());
    0
}

fn judge(c: &Submission, out: &Path, rules: &Rules) -> Row {
    let service = c.files.first().map_or("echo", |file| submission::service_of(file));
    let settings = Settings {
        c: vec![(service, c.clone())],
        tools: rules.tools.clone(),
        out: out.join(&c.name),
        strict: rules.strict,
        late: rules.late,
        faults: rules.faults,
        // It tells nothing about the program, and is another each time.
        cost: false,
    };
    match catch_unwind(AssertUnwindSafe(|| compare(&settings))) {
        Ok(comparison) => row(c.name.clone(), &settings, &comparison),
        Err(_) => panicked(c.name.clone(), service),
    }
}

fn row(name: String, settings: &Settings, comparison: &Comparison) -> Row {
    fs::write(settings.out.join("index.html"), page::html(comparison)).expect("its page");
    let side = &comparison.sides[0];
    Row {
        page: format!("{}/index.html", name.replace('%', "%25").replace('#', "%23")),
        name,
        service: side.service,
        status: verdict::exit_status(comparison),
        words: verdict::in_words(side),
        checks: checks(side),
        seconds: comparison.seconds,
    }
}

/// Something of ours failed, and says so above.
fn panicked(name: String, service: &'static str) -> Row {
    let words = "could not be judged".into();
    Row { name, service, page: String::new(), status: 1, words, checks: vec![], seconds: 0.0 }
}

/// The parts of the verdict but the cost, with each lesson in place of the processes.
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
        "cost" => vec![],
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
