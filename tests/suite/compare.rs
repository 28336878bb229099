//! `make compare` and `make grade`: the pairing of C and Rust, the checks, the
//! verdict on good and bad C, and the page as a browser shows it.
#[allow(clippy::module_inception)]
#[path = "../compare/mod.rs"]
mod compare;

use crate::common::*;
use compare::calls::{self, Call};
use compare::exercise::{self, EXERCISES};
use compare::grade::Rules;
use compare::inject::Outcome;
use compare::lesson::LESSONS;
use compare::lines;
use compare::picture;
use compare::program::{PATIENT, Patience, Tools};
use compare::roles::Roles;
use compare::source::{self, File, Kind, Lang, Level};
use compare::submission::{self, Submission};
use compare::wire::{self, Answer, Row, Verdict};
use compare::{Comparison, Settings, grade, page, project, verdict};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver};

// ---------------------------------------------------------------- source

/// Every line of both C files and of main.rs has its line on the other side, or
/// a reason.
#[test]
fn every_line_has_its_mirror_or_a_reason() {
    let mirror = compare::mirror();
    assert!(mirror.faults.is_empty(), "{}", mirror.faults.join("\n"));
    println!("{}", mirror.in_words());
    assert!(mirror.mirrored * 100 >= mirror.all * 85, "{}", mirror.in_words());
}

/// What the reasons name is there: `src/daemon/end.rs`, `daemon::recv`, `sys::close`.
#[test]
fn the_reasons_name_what_is_there() {
    let table = fs::read_to_string(project("tests/compare/lines.txt")).unwrap();
    for name in table.split('`').skip(1).step_by(2) {
        let there = match name.split_once("::") {
            Some((wing @ ("daemon" | "sys"), function)) => {
                let files = fs::read_dir(project("src").join(wing)).unwrap();
                let mut texts = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
                texts.any(|text| text.contains(&format!("pub fn {function}(")))
            }
            _ => !name.starts_with("src/") || project(name).exists(),
        };
        assert!(there, "lines.txt names `{name}`");
    }
}

/// Each line in turn has a new line behind it, or is another: each time the
/// fault is told.
#[test]
fn a_line_that_is_new_or_changed_is_missed() {
    let groups = compare::table();
    for (side, n) in [(0, 0), (0, 1), (1, 0)] {
        let files = || [compare::c_files(), compare::rust_files(&groups)];
        let text = files()[side][n].text.clone();
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let change = |new: &str| {
                let mut files = files();
                let changed = [&lines[..at], &[new], &lines[at + 1..]].concat().join("\n");
                files[side][n] = File::new(&files[side][n].name, changed);
                lines::mirror(&groups, &files[0], &files[1]).faults.join("\n")
            };
            if line.ends_with([';', '{', '}']) && !line.trim().starts_with(['/', '*']) {
                let (new, name) = (format!("{line}\nnew_line();"), &files()[side][n].name);
                let told = format!("{name}:{} has no row in lines.txt: new_line();", at + 2);
                assert!(change(&new).contains(&told), "{told}: not in\n{}", change(&new));
            }
            let signs = line.trim_end_matches(|c: char| !c.is_alphanumeric());
            if line.ends_with(';') && signs.contains(char::is_alphanumeric) {
                assert_ne!(change("other();"), "", "{line}");
            }
        }
    }
}

/// A small table, and what is told when one of its rows is another.
#[test]
fn a_table_that_is_wrong_is_told() {
    const TABLE: &str = "== own.c: f | f\nint f() | fn f()\n\
        int n; | - | It is declared below, with its value.\none(); | one();\n\
        - | three(); | The service needs this call, in daemon.\n\
        two(); | if yes() {\ntwo(); | two();";
    let mirror = |table: &str| {
        let c = "int f()\n{\n int n;\n one();\n two(); /* ; */\n}\n";
        let rust = "fn f() {\n one();\n three();\n if yes() {\n  two();\n }\n}\n";
        let [c, rust] = [("own.c", c), ("main.rs", rust)].map(|(n, t)| File::new(n, t.into()));
        lines::mirror(&lines::groups(table), &[c], &[rust])
    };
    let whole = mirror(TABLE);
    assert_eq!(whole.faults, [""; 0]);
    assert_eq!((whole.mirrored, whole.all), (6, 7));
    let cases = [
        ("one(); | one();\n", "", "own.c:4 has no row in lines.txt: one();"),
        ("one(); | one();\n", "", "main.rs:2 has no row in lines.txt: one();"),
        ("one(); | one();", "one(); | uno();", "lines.txt:4: no line of main.rs has: uno();"),
        ("one(); | one();", "one(); | (", "lines [1, 2, 3"),
        ("It is declared below, with its value.", "", "lines.txt:3: this is no reason: \"\""),
        ("It is declared below, with its value.", "Rust.", "this is no reason: \"Rust.\""),
        ("It is declared below, with its value.", "Not needed in Rust.", "this is no reason"),
        ("int n; | -", "int n; | fn f()", ""),
        ("one(); | one();", "one(); | -", "this is no reason"),
        ("int n;", "two();", "out of order"),
        (
            "one(); | one();",
            "one(); | one();\none(); | - | It has two rows of different kinds.",
            "is in a row above, too",
        ),
        ("own.c: f | f", "own.c: f g | f", "lines.txt:1: no file has `g`"),
    ];
    for (from, to, told) in cases {
        assert!(TABLE.contains(from), "{from}");
        let faults = mirror(&TABLE.replace(from, to)).faults.join("\n");
        let right = if told.is_empty() { faults.is_empty() } else { faults.contains(told) };
        assert!(right, "{from:?} as {to:?}: not {told:?} but\n{faults}");
    }
}

/// The functions that the scanner finds are those whose names stand at the
/// left margin, as they do in this project's C, and every item's line has its
/// name, its first and last lines are whole.
#[test]
fn the_scanner_finds_every_item() {
    for file in compare::c_files() {
        let lines: Vec<&str> = file.text.lines().collect();
        let functions = lines.windows(2).filter(|pair| pair[1] == "{" && pair[0].contains('('));
        let name = |line: &str| {
            let before = line.split('(').next().unwrap();
            before.rsplit([' ', '*']).next().unwrap().to_owned()
        };
        for function in functions.map(|pair| name(pair[0])) {
            assert!(file.item(&function).is_some(), "{function} in {}", file.name);
        }
    }
    let groups = compare::table();
    for file in compare::c_files().iter().chain(&compare::rust_files(&groups)) {
        let lines: Vec<&str> = file.text.lines().collect();
        for item in &file.items {
            let (line, last) = (lines[item.line - 1], lines[item.last - 1]);
            assert!(
                line.contains(&item.name)
                    || lines[item.line..item.last].concat().contains(&item.name)
            );
            // The line that opens an `impl` belongs to the item above it.
            let ends = last.ends_with(['}', ';', ')']) || last.starts_with("impl ");
            assert!(ends || line.contains("define"), "{item:?}: {last}");
            assert!(item.first == 1 || !lines[item.first - 2].trim_start().starts_with("//"));
        }
    }
}

#[test]
fn items_of_awkward_sources() {
    let c = "#define A 1 /* { */\n#ifndef B\n#define B \\\n  2\n#endif\nint proto(int);\n\
             static char s[] = \"}{\";\n/* doc */\nstruct t {\n int a;\n};\nchar q(void) { return '{'; }\n\
             int main(int argc, char **argv)\n{ if (1) { s[0] = 0; } }\n";
    let names = |file: &File| file.items.iter().map(|item| item.name.clone()).collect::<Vec<_>>();
    let file = File::new("own.c", c.into());
    assert_eq!(names(&file), ["A", "B", "t", "q", "main"]);
    assert_eq!((file.item("t").unwrap().first, file.item("t").unwrap().last), (8, 11));
    let rust = "use a::{b, c};\nconst X: [u8; 2] = [1; 2];\n/// Doc.\n#[inline]\nfn f<'a>(x: &'a u8) \
                -> char {\n '{'\n}\nstruct U(u8);\nimpl U {\n const fn g(&self) {}\n}\nfn h() {}\n";
    let file = File::new("own.rs", rust.into());
    assert_eq!(names(&file), ["X", "f", "U", "g", "h"]);
    assert_eq!((file.item("f").unwrap().first, file.item("f").unwrap().last), (3, 7));
    for unfinished in ["int main() { \"", "#define", "/*", "'", "}}}", "impl", "#", "x(", "é'ü"] {
        File::new("own.c", unfinished.into());
        File::new("own.rs", unfinished.into());
    }
}

/// Colours add nothing and lose nothing.
#[test]
fn coloured_source_is_the_source() {
    let mut files = compare::c_files();
    files.push(File::read(&project("src/main.rs")).unwrap());
    files.push(File::read(&project("tests/compare/source.rs")).unwrap());
    files.push(File::new("own.c", "char *s = \"<b>&amp;\"; // 注释 '\n#if 0\n\tit's\n".into()));
    for file in files {
        let whole: String = source::tokens(&file.text, file.lang).iter().map(|t| t.text).collect();
        assert_eq!(whole, file.text);
        let html = source::coloured(&file.text, file.lang).join("\n");
        let mut plain = String::new();
        for piece in html.split('<') {
            let text = piece.rsplit_once('>').map_or(piece, |(_, text)| text);
            plain += text;
        }
        let plain = plain.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
        assert_eq!(plain.replace("&amp;", "&"), file.text);
    }
}

#[test]
fn tokens_are_told_apart() {
    let kinds = |text, lang| {
        let tokens = source::tokens(text, lang).into_iter().filter(|t| t.kind != Kind::Space);
        tokens.map(|token| (token.kind, token.text.to_owned())).collect::<Vec<_>>()
    };
    let rust = kinds("let x: &'a u8 = b'\\''; // it's", Lang::Rust);
    assert!(rust.contains(&(Kind::Word, "'a".into())), "{rust:?}");
    assert!(rust.contains(&(Kind::Text, "'\\''".into())), "{rust:?}");
    assert_eq!(rust.last(), Some(&(Kind::Comment, "// it's".into())));
    let c = kinds("#include <x.h> /* y */\nc = '\"';", Lang::C);
    assert_eq!(c[0], (Kind::Directive, "#include <x.h>".into()));
    assert_eq!(c[1], (Kind::Comment, "/* y */".into()));
    assert!(c.contains(&(Kind::Text, "'\"'".into())), "{c:?}");
}

/// Every line once and in order; what says the same is level.
#[test]
fn level_lines() {
    let lines = |text: &str| text.lines().map(String::from).collect::<Vec<_>>();
    let c = lines(
        "int f(int fd)\n{\n    while (more) {\n        read(fd);\n        close(fd);\n    }\n}",
    );
    let rust =
        lines("fn f(fd: Fd) {\n    loop {\n        let n = recv(fd);\n    }\n    quite_else();\n}");
    let rows = source::level(&c, &rust, &[]);
    assert!(rows.iter().filter_map(|row| row.c).eq(0..c.len()), "{rows:?}");
    assert!(rows.iter().filter_map(|row| row.rust).eq(0..rust.len()), "{rows:?}");
    for (c, rust) in [(0, 0), (2, 1), (3, 2), (5, 3), (6, 5)] {
        let level = Level { c: Some(c), rust: Some(rust), same: true };
        assert!(rows.contains(&level), "{level:?} not in {rows:?}");
    }
    assert!(rows.contains(&Level { c: Some(4), rust: None, same: false }), "{rows:?}");
    assert!(rows.contains(&Level { c: None, rust: Some(4), same: false }), "{rows:?}");

    // What has no line opposite it shares the room, above the first level line
    // with its end.
    let c = lines("// a\nint f()\n{\n    one();\n    two();\n}");
    let rust = lines("// b\n// c\n// d\nfn f()\n    three();\n}");
    let rows = source::level(&c, &rust, &[]);
    assert!(rows.len() <= 8, "{rows:?}");
    assert_eq!(rows[2], Level { c: Some(0), rust: Some(2), same: true });
}

// ---------------------------------------------------------------- wire

#[test]
fn a_row_of_the_table_explains_only_what_it_says() {
    let answer = |bytes: &[u8]| Answer { bytes: bytes.into(), end: "closed".into() };
    let verdict = |row, c: &[u8], forkline: &[u8]| {
        wire::verdict("rot13", b"one\nlast", row, &answer(c), &answer(forkline))
    };
    let key = "rot13 drops an unfinished";
    let row = Some(key);
    assert_eq!(verdict(row, b"bar\nynfg", b"bar\nynfg"), Verdict::Equal);
    assert_eq!(verdict(row, b"bar\n", b"bar\nynfg"), Verdict::Known(key));
    assert_eq!(verdict(None, b"bar\n", b"bar\nynfg"), Verdict::Differs);
    assert_eq!(verdict(row, b"bar", b"bar\nynfg"), Verdict::Differs);
    assert_eq!(verdict(row, b"bar\n", b"bar\nYnfg"), Verdict::Differs);
    let broken = Answer { end: "reset".into(), ..answer(b"bar\n") };
    let verdict = wire::verdict("rot13", b"one\nlast", row, &broken, &answer(b"bar\nynfg"));
    assert_eq!(verdict, Verdict::Differs);
}

#[test]
fn a_dump_shows_where_it_differs() {
    let bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
    let rows = wire::dump(&bytes, Some(500));
    assert!(rows.contains(&Row::Bytes(496, &bytes[496..504])), "{rows:?}");
    let shown: usize = rows
        .iter()
        .map(|row| match row {
            Row::Bytes(_, bytes) => bytes.len(),
            Row::Gap(left_out) => *left_out,
        })
        .sum();
    assert_eq!(shown, 1000);
    assert!(rows.len() < 20);
    assert_eq!(wire::differs_at(b"abc", b"abd"), Some(2));
    assert_eq!(wire::differs_at(b"abc", b"ab"), Some(2));
    assert_eq!(wire::differs_at(b"abc", b"abc"), None);
}

/// Every byte is shown or counted, and the place where it differs is shown.
#[test]
fn a_text_is_shown_in_part() {
    let lines: String = (1..=100).map(|n| format!("line {n}\n")).collect();
    let long = "x".repeat(5000) + "\n";
    let texts = [&lines[..], &long, "", "\n", "a\nlast"];
    for (text, at) in
        texts.iter().flat_map(|&text| [None, Some(text.len() / 2)].map(|at| (text, at)))
    {
        let (mut next, mut shown, rows) = (0, 0, wire::text(text.as_bytes(), at));
        for row in &rows {
            match row {
                Row::Bytes(offset, bytes) => {
                    assert_eq!(
                        (*offset, &text.as_bytes()[next..next + bytes.len()]),
                        (next, *bytes)
                    );
                    shown += bytes.len();
                    next += bytes.len();
                }
                Row::Gap(left_out) => next += left_out,
            }
        }
        assert_eq!(next, text.len());
        assert!(shown <= 500, "{rows:?}");
        let shows = |at: usize| {
            rows.iter().any(|row| matches!(row, Row::Bytes(from, bytes) if (*from..from + bytes.len()).contains(&at)))
        };
        assert!(text.is_empty() || at.is_none_or(shows), "{at:?} in {rows:?}");
    }
    assert!(
        wire::is_text(lines.as_bytes()) && !wire::is_text(b"a\0") && !wire::is_text("ü".as_bytes())
    );
}

/// Both lines as text, and what differs is marked.
#[test]
fn a_difference_is_told_in_words() {
    let told = |c: &[u8], forkline: &[u8]| {
        let answer = |bytes: &[u8]| Answer { bytes: bytes.into(), end: "closed".into() };
        let (name, sent, verdict) = (String::new(), vec![], Verdict::Differs);
        let (c, forkline) = (answer(c), answer(forkline));
        wire::difference(&wire::Exchange { name, sent, c, forkline, verdict }, "answers")
    };
    let long = [b'x'; 200];
    let cut = "…xxxxxxxxxxxxxxxxxxxxxxxx";
    let cases: &[(&[u8], &[u8], &str)] = &[
        (b"one\ntwo\n", b"one\ntoo\n", "it answers “t‹w›o↵”, right is “t‹o›o↵”"),
        (b"one\n", b"one\n\xfftwo", "it answers “‹nothing more›”, right is “‹·›two”"),
        (b"", b"one\n", "it answers nothing, right is “one↵”; the connection is closed"),
        (b"Hello!\none\n", b"one\n", "it sends ‹Hello!↵› before the answer"),
        (b"one\nBye", b"one\n", "it sends ‹Bye› after the answer"),
        (&long[1..], &long, &format!("it answers “{cut}‹nothing more›”, right is “{cut}‹x›”")),
    ];
    for (c, forkline, text) in cases {
        assert_eq!(told(c, forkline), *text);
    }
}

/// What functions are for is found whatever they are called.
#[test]
fn roles_are_found_by_what_is_done() {
    let roles = |text: &str| Roles::of(&[File::new("own.c", text.into())]);
    let found = roles(
        "void gone(int s) {}\nvoid talk(int a, int b) { read(a, 0, 0); }\n\
         int open_it() { listen(3, 5); }\nint main() { struct sigaction x; x.sa_handler = gone;\n\
         sigaction(SIGCHLD, &x, 0); if ((c = Accept(s, 0, 0)) < 0) ; if (fork() == 0) { close(s); \
         talk(0, c); } }",
    );
    let name = |name: &str| Some(name.to_owned());
    assert_eq!(found.service, name("talk"));
    assert_eq!(found.handler, name("gone"));
    assert_eq!(found.opener, name("open_it"));
    assert_eq!(found.listener, name("s"));
    let found = roles(
        "static void on(sig) int sig; { }\nint main() { signal(SIGINT, off);\n\
         signal(SIGCHLD, on); int n = accept(l, 0, 0); for (;;) read(n, b, 1); }",
    );
    assert_eq!((found.handler, found.service), (name("on"), None));
    assert_eq!(roles("int main() { accept("), Roles { listener: None, ..roles("") });
}

/// A file, several, a folder with several programs, and what belongs to each.
#[test]
fn what_is_compiled_is_found() {
    let names = |c: &Submission| {
        let name = |file: &PathBuf| file.file_name().unwrap().to_string_lossy().into_owned();
        c.files.iter().map(name).collect::<Vec<_>>().join(" ")
    };
    let class = project("tests/compare/class");
    let file = |name: &str| class.join(name).to_string_lossy().into_owned();
    for text in [file("rio_style"), file("rio_style/server.c")] {
        assert_eq!(names(&submission::named(&text, "echo")), "server.c rio.c");
    }
    let two = [file("rio_style/rio.c"), file("rio_style/server.c")].join(" ");
    assert_eq!(names(&submission::named(&two, "echo")), "server.c rio.c");
    let all = submission::class(&class);
    assert_eq!(all.len(), fs::read_dir(&class).unwrap().count());
    let folder = scratch("folder");
    fs::create_dir_all(&*folder).unwrap();
    for (name, text) in [
        ("echo.c", "#include \"part.c\"\nint main(void) { listen(3, 5); }"),
        ("rot13.c", "int main(argc) int argc; { listen(3, 5); }"),
        ("client.c", "int main(void) { connect(); }"),
        ("part.c", "int part;"),
        ("more.c", "/* main( */ int more;"),
    ] {
        fs::write(folder.join(name), text).unwrap();
    }
    let rot13 = submission::named(&folder.to_string_lossy(), "rot13");
    assert_eq!(names(&rot13), "rot13.c more.c");
    assert_eq!(names(&submission::named(&folder.to_string_lossy(), "echo")), "echo.c more.c");
    assert_eq!(names(&submission::named("/nowhere/echo.c", "echo")), "echo.c");
}

// ---------------------------------------------------------------- calls

#[test]
fn calls_of_the_same_name_and_descriptor_are_level() {
    let c = calls::calls(
        "close(3)                          = 0\nread(4, \"a\\n\", 8192) = 2\nwrite(4, \"a\\n\", 2) = 2\n\
         --- SIGCHLD {si_signo=SIGCHLD} ---\n+++ killed by SIGKILL +++\n",
    );
    let forkline = calls::calls(
        "close(3) = 0\nrecvfrom(4, \"a\\n\", 131072, 0, NULL, NULL) = 2\n\
         write(1, \"server received 2 bytes\\n\", 24) = 24\nsendto(4, \"a\\n\", 2, 0, NULL, 0) = 2\n",
    );
    assert_eq!(c.len(), 4);
    let name = |call: Option<&Call>| call.map_or("", |call| &call.name).to_owned();
    let rows = calls::level(&c, &forkline);
    let rows: Vec<_> = rows.into_iter().map(|(c, f)| (name(c), name(f))).collect();
    let expected = [("close", "close"), ("read", "recvfrom"), ("", "write"), ("write", "sendto")];
    let expected = expected.map(|(c, f)| (c.to_owned(), f.to_owned()));
    assert_eq!(rows[..4], expected);
}

/// What a parent that never closes the connection holds in the end.
#[test]
fn pictures_from_calls() {
    let parent = calls::calls(
        "socket(AF_INET, SOCK_STREAM, IPPROTO_IP) = 3\nlisten(3, 5) = 0\naccept(3, NULL, NULL) = 4\n\
         clone(child_stack=NULL, flags=SIGCHLD) = 77\naccept(3, NULL, NULL) = ?\n",
    );
    let child = calls::calls("close(3) = 0\nread(4, \"\", 8192) = 0\nclose(4) = 0\n");
    let moments = picture::moments(&calls::Trace { parent, child }).unwrap();
    let words: Vec<String> =
        moments.iter().enumerate().map(|(n, moment)| picture::in_words(moment, n)).collect();
    let expected = [
        "listening: the parent holds listening socket 3",
        "connected: the parent holds listening socket 3 and connection 4",
        "forked: the parent holds listening socket 3 and connection 4, the child listening socket 3 and connection 4",
        "closed on both sides: the parent holds listening socket 3 and connection 4, the child connection 4",
    ];
    assert_eq!(words, expected);
    assert_eq!(picture::svg(&moments[3], 3).matches("fd wrong").count(), 1);
}

// ---------------------------------------------------------------- the whole

/// Of this C, each with its service.
fn settings(c: Vec<(&'static str, Submission)>, name: &str) -> Settings {
    PATIENT.store(true, Ordering::Relaxed);
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // Other tests use the processors too, and other programs.
    let late = 30 * compare::LATE;
    Settings { c, tools: tools(), out, strict: false, late, faults: false, cost: false }
}

fn tools() -> Tools {
    let cc = std::env::var("CC").unwrap_or("cc".into());
    Tools { cc, cflags: "-O2 -Wall".into(), ..Tools::default() }
}

fn file(service: &'static str, path: &Path) -> (&'static str, Submission) {
    (service, submission::named(&path.to_string_lossy(), service))
}

fn ours(service: &'static str) -> (&'static str, Submission) {
    file(service, &project(&format!("tests/c/{service}.c")))
}

/// A file with the project's C of this service, each first text replaced by the second.
fn changed(service: &str, name: &str, changes: &[(&str, &str)]) -> PathBuf {
    let mut text = fs::read_to_string(project(&format!("tests/c/{service}.c"))).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{from:?} is not in {service}.c");
        text = text.replacen(from, to, 1);
    }
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.c"));
    fs::write(&file, text).unwrap();
    file
}

/// Of a C of this service alone, without what takes longest.
fn judged(service: &'static str, name: &str, c: PathBuf) -> Comparison {
    compare::compare(&settings(vec![file(service, &c)], name))
}

/// Of the project's C, with everything; made once.
fn full() -> &'static Comparison {
    static FULL: OnceLock<Comparison> = OnceLock::new();
    FULL.get_or_init(|| {
        let both = vec![ours("echo"), ours("rot13")];
        compare::compare(&Settings { faults: true, cost: true, ..settings(both, "ours") })
    })
}

#[test]
fn our_c_differs_as_the_readme_says() {
    let comparison = full();
    let summary = comparison.summary();
    assert_eq!(verdict::exit_status(comparison), 0, "{summary}");
    assert!(summary.lines().count() <= 24, "{summary}");
    for side in &comparison.sides {
        for exchange in side.wire.iter().chain(side.reports.as_ref().unwrap()) {
            let (name, verdict) = (&exchange.name, &exchange.verdict);
            if let Verdict::Known(key) = verdict {
                let row = comparison.differences.iter().find(|(c, _)| c.starts_with(key));
                assert!(row.is_some(), "{name}: no row of the README's table begins {key:?}");
            }
        }
        assert_eq!(side.lessons.as_ref().unwrap().len(), LESSONS.len());
        assert_eq!(side.cost.as_ref().unwrap().len(), if side.calls.is_ok() { 4 } else { 3 });
    }
    if tool("strace") {
        comparison.sides.iter().for_each(calls_and_faults);
    }
}

fn calls_and_faults(side: &compare::Side) {
    let (c, forkline) = side.calls.as_ref().unwrap_or_else(|why| panic!("{why}"));
    for trace in [c, forkline] {
        let accepts = trace.parent.iter().filter(|call| call.name.starts_with("accept"));
        assert!(accepts.count() >= 2, "{:?}", trace.parent);
        assert_eq!(trace.child.last().unwrap().rest, "exited with 0");
        let moments = picture::moments(trace).expect("a child was forked");
        let held: Vec<usize> = moments.iter().map(|moment| moment.parent.len()).collect();
        assert_eq!(held, [1, 2, 2, 1]);
        assert_eq!(moments[3].child.as_ref().unwrap().len(), 1);
    }
    let table = side.faults.as_ref().unwrap_or_else(|why| panic!("{why}"));
    let calls: BTreeSet<&str> = table.rows.iter().map(|row| row.call).collect();
    let expected = "accept bind close fork listen receive send setsockopt signal socket wait";
    assert_eq!(calls.into_iter().collect::<Vec<_>>().join(" "), expected);
    for row in &table.rows {
        let (name, least) =
            (format!("{} {:?}: {:?}", row.call, row.errnos, row.forkline), Outcome::ONE_ENDS);
        assert!(row.forkline.rank <= row.c.rank.max(least), "{name}");
    }
    let loses = table.rows.iter().find(|row| row.call == "send" && row.errnos.contains(&"ENOBUFS"));
    assert_eq!(loses.unwrap().c.rank, Outcome::LOSES_DATA);
}

#[test]
fn a_good_c_of_somebody_else_is_good() {
    let theirs = |service| file(service, &project(&format!("tests/compare/class/{service}.c")));
    let comparison = compare::compare(&settings(vec![theirs("echo"), theirs("rot13")], "theirs"));
    assert_eq!(verdict::exit_status(&comparison), 0, "{}", comparison.summary());
    let html = page::html(&comparison);
    assert!(html.contains("is a guess") && html.contains("Without a mirror"), "{html}");
}

/// What a class writes: a name, changes of the project's C, and the verdict.
struct Work {
    name: &'static str,
    service: &'static str,
    changes: &'static [(&'static str, &'static str)],
    status: i32,
    words: &'static str,
}

const CLASS: &[Work] = &[
    Work {
        name: "no-reaping",
        service: "echo",
        changes: &[("signal(SIGCHLD, sighandler);", "")],
        status: 1,
        words: "zombie",
    },
    Work {
        name: "leak",
        service: "rot13",
        changes: &[("            close(conn_fd);\n", "            ;\n")],
        status: 1,
        words: "descriptor",
    },
    Work {
        name: "no-report",
        service: "echo",
        changes: &[("printf(\"server received %d bytes\\n\", (int)n);", "")],
        status: 0,
        words: "right, another service: report",
    },
    Work {
        name: "no-newlines",
        service: "echo",
        changes: &[("rio_writen(connfd, buf, n);", "rio_writen(connfd, buf, n - 1);")],
        status: 1,
        words: "differs",
    },
    Work {
        name: "no-semicolon",
        service: "echo",
        changes: &[("rio_t rio;", "rio_t rio")],
        status: 2,
        words: "does not compile: no-semicolon.c:99:5: error: expected",
    },
    Work {
        name: "deaf",
        service: "rot13",
        changes: &[("int rt2 = listen(listenfd, 1024);", "for (;;) ;\n    int rt2 = 0;")],
        status: 2,
        words: "does not listen: it does not listen within 5 s",
    },
    Work {
        name: "storm",
        service: "echo",
        changes: &[
            ("error_(\"accept\");", "connfd = -1;"),
            ("echo(connfd);", "if (connfd < 0) _exit(1); echo(connfd);"),
            (
                "if (close(connfd) < 0)\n            error_(\"close\");\n    }\n}",
                "close(listenfd);\n}}",
            ),
        ],
        status: 1,
        words: "forks without end",
    },
];

/// More at once would only wait for the processors.
fn four_at_once<T: Sync>(items: &[T], test: impl Fn(&T) + Sync) {
    for four in items.chunks(4) {
        std::thread::scope(|scope| four.iter().for_each(|item| drop(scope.spawn(|| test(item)))));
    }
}

#[test]
fn a_c_that_is_nowhere_is_said_to_be() {
    let comparison = judged("echo", "nowhere", "/nowhere/echo.c".into());
    let summary = comparison.summary();
    assert!(summary.contains("/nowhere/echo.c: No such file"), "{summary}");
    assert_eq!(verdict::exit_status(&comparison), 2);
}

#[test]
fn what_differs_is_told() {
    let (from, to) =
        ("rio_writen(connfd, buf, n);", "buf[0] ^= 32;\n        rio_writen(connfd, buf, n);");
    let comparison = judged("echo", "shout", changed("echo", "shout", &[(from, to)]));
    let summary = comparison.summary();
    let told = "a line: it answers “‹h›ello, world↵”, right is “‹H›ello, world↵”";
    assert!(summary.contains(told), "{summary}");
    let change = "change: send back what was received, all of it (shout.c:103: ";
    assert!(summary.contains(change), "{summary}");
    let html = page::html(&comparison);
    assert!(html.contains("right is “<mark>H</mark>ello, world↵”"), "{html}");
}

/// A C whose functions have other names: they stand beside those that do the same.
#[test]
fn a_c_with_other_names_is_shown_as_it_is() {
    let text = fs::read_to_string(project("tests/c/echo.c")).unwrap();
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("names.c");
    let text = text.replace("rio_writen(", "write_all(").replace("echo(", "talk(");
    fs::write(&file, text + "\nint unused(void) { return 0; }\n").unwrap();
    let html = page::html(&judged("echo", "names", file));
    assert!(html.contains("Without a mirror: <code>unused</code>"));
    for (theirs, ours) in [("write_all", "rio_writen"), ("talk", "echo")] {
        let told = format!("<code>{theirs}</code> does what <code>{ours}</code> does in echo.c");
        assert!(html.contains(&told), "{told}");
    }
    assert!(html.contains("<details class=pair open><summary><span><code>names.c:93 <b>talk</b>"));
}

/// Each exercise of the page: the change is made, and its check turns red.
#[test]
fn every_exercise_turns_its_check_red() {
    four_at_once(EXERCISES, |exercise| {
        let service = exercise.service;
        let file = &compare::c_files()[usize::from(service == "rot13")];
        assert!(file.item(exercise.item).is_some(), "{}", exercise.item);
        let name = format!("exercise-{service}-{}", exercise.red);
        let c = changed(service, &name, &[(exercise.from, exercise.to)]);
        let comparison = judged(service, &name, c);
        let red = exercise::red(&comparison.sides[0]);
        assert!(red.iter().any(|red| red == exercise.red), "{}: red is {red:?}", exercise.task);
        assert_eq!(verdict::exit_status(&comparison), 1, "{}", comparison.summary());
    });
    for service in compare::SERVICES {
        let n = EXERCISES.iter().filter(|exercise| exercise.service == service).count();
        assert!((3..=5).contains(&n), "{n} exercises for {service}");
    }
}

/// A row and a page for each program; one is a folder whose name has a space.
#[test]
fn a_class_is_graded() {
    PATIENT.store(true, Ordering::Relaxed);
    let (class, out) = (scratch("class"), scratch("grade"));
    let folder = class.join("Ada B");
    fs::create_dir_all(folder.join("deeper")).unwrap();
    for work in CLASS {
        let name = format!("graded-{}", work.name);
        let to = class.join(format!("{}.c", work.name));
        fs::rename(changed(work.service, &name, work.changes), to).unwrap();
    }
    for (name, to) in
        [("server.c", "server.c"), ("rio.c", "deeper/rio.c"), ("rio.h", "deeper/rio.h")]
    {
        fs::copy(project("tests/compare/class/rio_style").join(name), folder.join(to)).unwrap();
    }
    fs::write(folder.join("client.c"), "int main(void) { return connect(0, 0, 0); }").unwrap();
    let rules = Rules { tools: tools(), strict: false, late: 30 * grade::LATE, faults: false };
    assert_eq!(grade::grade(&class, &out, &rules), 0);
    let csv = fs::read_to_string(out.join("grade.csv")).unwrap();
    let rows: Vec<&str> = csv.lines().collect();
    assert_eq!(rows.len(), 1 + 8, "{csv}");
    assert!(rows[1].starts_with("\"Ada B\",echo,0,\"good\",\"ok\",\"ok\""), "{csv}");
    for Work { name, service, status, words, .. } in CLASS {
        let begin = format!("\"{name}\",{service},{status},\"{words}");
        assert!(rows.iter().any(|row| row.starts_with(&begin)), "{begin} is not in\n{csv}");
        let html = fs::read_to_string(out.join(name).join("index.html")).unwrap();
        let word = words.split(':').next().unwrap();
        assert!(*status == 0 || html.contains(&format!("<b>{word}</b>")), "{name}");
    }
    assert_eq!(grade::grade(Path::new("/nowhere"), &out, &rules), 1);
}

/// The first comment of a C in tests/compare/class says what is right.
fn right_words(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let line = text.lines().next().unwrap();
    let right = line.split("right: ").nth(1).unwrap_or_else(|| panic!("{}", file.display()));
    right.split(". ").next().unwrap().to_owned()
}

/// How people call it, and what makes no process for each client: as each says itself.
#[test]
fn programs_of_other_kinds_are_judged() {
    let some = [
        ("asks_for_port", "./asks_for_port, and 24117 on standard input"),
        ("host_and_port", "./host_and_port 127.0.0.1 24117"),
        ("select", "./select 24117"),
        ("prefork", "./prefork 24117"),
        ("double_fork", "./double_fork 24117"),
        ("after_accept", "./after_accept 24117"),
        ("waits_for_child", "./waits_for_child 24117"),
    ];
    four_at_once(&some, |(name, called)| {
        let c = project(&format!("tests/compare/class/{name}.c"));
        let right = right_words(&c);
        let comparison = judged("echo", name, c);
        let (side, summary) = (&comparison.sides[0], comparison.summary());
        assert_eq!(verdict::in_words(side), right, "{summary}");
        assert!(!root_here() || side.called == *called, "{}", side.called);
        let lessons: Vec<&str> =
            side.lessons.iter().flatten().map(|check| check.lesson.id).collect();
        let expected = match right.as_str() {
            "process" => "process descriptors end again",
            _ => "process zombies moment descriptors child parent end silent death again",
        };
        assert_eq!(lessons.join(" "), expected, "{summary}");
        assert!(page::html(&comparison).contains("called as: "), "{summary}");
    });
}

/// Whether the programs have a network of their own, so that their port is known.
fn root_here() -> bool {
    std::thread::spawn(own_network).join().unwrap()
}

/// A daemon is judged, and ends with its judgement; a storm of processes too.
#[test]
fn what_a_c_starts_ends_with_its_judgement() {
    let changes = [
        ("#include <unistd.h>", "#include <unistd.h>\n#include <sys/prctl.h>"),
        (
            "signal(SIGCHLD, sighandler);",
            "if (fork() > 0) return 0; setsid(); if (fork() > 0) return 0;\n\
             prctl(PR_SET_NAME, \"compared-daemon\"); signal(SIGCHLD, sighandler);",
        ),
    ];
    let daemon = changed("echo", "daemon", &changes);
    let comparison = judged("echo", "daemon", daemon);
    assert_eq!(verdict::in_words(&comparison.sides[0]), "good", "{}", comparison.summary());
    let left = fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name == "compared-daemon\n")
    });
    assert_eq!(left.count(), 0);
}

/// The same class twice: the same table but for the times, and each program as its
/// first comment says.
#[test]
#[ignore = "`make class` runs it: ten minutes"]
fn the_class_is_judged_twice() {
    let class = project("tests/compare/class");
    let out = compare::target().join("class");
    let rules = || Rules {
        tools: tools(),
        strict: false,
        late: Patience(grade::LATE).time(),
        faults: true,
    };
    let table = || {
        let _ = fs::remove_dir_all(&out);
        assert_eq!(grade::grade(&class, &out, &rules()), 0);
        let csv = fs::read_to_string(out.join("grade.csv")).unwrap();
        let rows = csv.lines().map(|row| row.rsplit_once(',').unwrap().0.to_owned());
        rows.collect::<Vec<_>>()
    };
    let first = table();
    for program in submission::class(&class) {
        let right = right_words(&program.files[0]);
        let begins = |row: &&String| row.starts_with(&format!("\"{}\",", program.name));
        let row = first.iter().find(begins).unwrap();
        assert!(row.contains(&format!(",\"{right}")), "{right} is right, and not\n{row}");
    }
    assert_eq!(first, table());
}

// ---------------------------------------------------------------- the page

/// Headless Chromium, spoken to over pipes (the DevTools protocol).
struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    profile: PathBuf,
    session: Value,
    id: u64,
    /// What it has told unasked.
    events: Vec<Value>,
}

impl Browser {
    fn start() -> Browser {
        let profile = scratch("chromium").to_path_buf();
        let mut sh = Command::new("sh");
        // It reads commands on descriptor 3 and answers on 4.
        sh.args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", "sh", "chromium"]);
        sh.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
        ]);
        sh.args(["--disable-background-networking", "--disable-component-update"]);
        sh.args(["--disable-sync", "--hide-scrollbars", "--remote-debugging-pipe"]);
        sh.arg(format!("--user-data-dir={}", profile.display()));
        let mut child = sh.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sh");
        let commands = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        let (sender, messages) = mpsc::channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while answers.read_until(0, &mut message).is_ok_and(|n| n > 0) {
                let json = serde_json::from_slice(&message[..message.len() - 1]).expect("JSON");
                if sender.send(json).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let (session, id, events) = (Value::Null, 0, Vec::new());
        let mut browser = Browser { child, commands, messages, profile, session, id, events };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        browser.session = browser.call("Target.attachToTarget", attach)["sessionId"].clone();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.id += 1;
        let mut command = json!({"id": self.id, "method": method, "params": params});
        if !self.session.is_null() {
            command["sessionId"] = self.session.clone();
        }
        let mut bytes = serde_json::to_vec(&command).unwrap();
        bytes.push(0);
        self.commands.write_all(&bytes).expect("Chromium listens");
        loop {
            let message = self.messages.recv_timeout(3 * DEADLINE).expect(method);
            if message["id"] == self.id {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url}));
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.messages.recv_timeout(3 * DEADLINE).expect("the page loads");
            self.events.push(event);
        }
    }

    fn resize(&mut self, width: u32, scheme: &str) {
        let size = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size);
        let scheme = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": scheme}));
    }

    /// The value of a JavaScript expression.
    fn ask(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", params);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// A picture of what the selector names, at most 2000 pixels of it.
    fn picture(&mut self, selector: &str, file: &Path) {
        let mut clip = self.ask(&format!(
            "(() => {{ scrollTo(0, 0); const r = document.querySelector({selector:?}).getBoundingClientRect();\
             return {{x: 0, y: r.top, width: innerWidth, height: Math.min(r.height, 2000), scale: 1}} }})()"
        ));
        clip["scale"] = json!(1);
        let params = json!({"format": "png", "clip": clip, "captureBeyondViewport": true});
        let picture = self.call("Page.captureScreenshot", params);
        fs::write(file, base64(picture["data"].as_str().unwrap())).expect("the picture");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Its helpers may still be writing there.
        wait_for("Chromium's files are gone", || {
            fs::remove_dir_all(&self.profile).is_ok() || !self.profile.exists()
        });
    }
}

/// RFC 4648, section 4.
fn base64(text: &str) -> Vec<u8> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => panic!("no base64: {c}"),
    };
    let text = text.trim_end_matches('=').as_bytes();
    let group = |four: &[u8]| {
        let bits = four.iter().fold(0u32, |bits, &c| bits << 6 | u32::from(value(c)));
        (bits << (6 * (4 - four.len()))).to_be_bytes()[1..four.len()].to_vec()
    };
    text.chunks(4).flat_map(group).collect()
}

#[test]
fn the_page_in_chromium() {
    if !tool("chromium") {
        return;
    }
    let comparison = full();
    let out = compare::target().join("compare");
    fs::create_dir_all(&out).unwrap();
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ours/index.html");
    fs::write(&file, page::html(comparison)).unwrap();

    let mut browser = Browser::start();
    browser.resize(1400, "light");
    browser.open(&format!("file://{}", file.display()));
    let height = browser.ask("document.documentElement.scrollHeight").as_u64().unwrap();
    println!("the page is {height} pixels tall");
    assert!(height <= 9200, "the page is {height} pixels tall");
    assert_eq!(browser.ask("document.querySelector('main h2').textContent"), "Verdict");
    for width in [400, 1400] {
        for scheme in ["light", "dark"] {
            browser.resize(width, scheme);
            browser.picture("body", &out.join(format!("page-{width}-{scheme}.png")));
            contents_stay_in_view(&mut browser);
        }
    }
    // The README's picture.
    browser.resize(1120, "light");
    browser.picture("#verdict", &out.join("verdict.png"));
    let print = json!({"printBackground": true, "preferCSSPageSize": true});
    let pdf = browser.call("Page.printToPDF", print);
    fs::write(out.join("page.pdf"), base64(pdf["data"].as_str().unwrap())).unwrap();
    everything_can_be_read(&mut browser, comparison, &out);
    links_lead_somewhere(&mut browser);

    for event in &browser.events {
        let method = event["method"].as_str().unwrap_or_default();
        let url = event["params"]["request"]["url"].as_str().unwrap_or("file:");
        assert!(url.starts_with("file:") || url.starts_with("data:"), "asked for {url}");
        assert_ne!(method, "Runtime.exceptionThrown", "{event}");
        assert_ne!(method, "Log.entryAdded", "{event}");
    }
}

/// All that is folded is opened, and looked at in both widths and schemes.
fn everything_can_be_read(browser: &mut Browser, comparison: &Comparison, out: &Path) {
    browser.resize(1400, "light");
    browser.ask("document.querySelectorAll('details').forEach(details => details.open = true)");
    every_pair_stands_there(browser, comparison);
    names_stick(browser);
    for width in [400, 1400] {
        for scheme in ["light", "dark"] {
            browser.resize(width, scheme);
            nothing_overflows(browser, width);
            text_can_be_read(browser, scheme);
            for part in
                ["source", "wire", "reports", "processes", "pictures", "faults", "calls", "cost"]
            {
                let file = out.join(format!("{part}-{width}-{scheme}.png"));
                browser.picture(&format!("#{part}"), &file);
            }
        }
    }
}

/// The table of contents is at the top of the window wherever one reads.
fn contents_stay_in_view(browser: &mut Browser) {
    let top = browser.ask(
        "(() => { scrollTo(0, document.body.scrollHeight / 2); \
         const top = document.querySelector('nav').getBoundingClientRect().top; scrollTo(0, 0); return top })()",
    );
    assert_eq!(top, 0);
}

/// Every item of the C and of main.rs, with the number and text of its line;
/// a function's first line level with that of its mirror of the same name.
fn every_pair_stands_there(browser: &mut Browser, comparison: &Comparison) {
    let mut shown = BTreeSet::new();
    let sides = comparison.sides.iter().map(|side| (side.service, &side.pairs, side.source()));
    for (prefix, pairs, c) in sides.chain([("rust", &comparison.rust_alone, &[][..])]) {
        for pair in pairs {
            let id = page::id(pair, prefix);
            let c_items = pair.c.iter().map(|name| ("c", &c[0], name));
            let rust_items = pair.rust.iter().map(|(file, name)| {
                ("rust", comparison.rust.iter().find(|f| f.name == *file).unwrap(), name)
            });
            for (side, file, name) in c_items.chain(rust_items) {
                let item = file.item(name).unwrap();
                let line = file.text.lines().nth(item.line - 1).unwrap();
                let selector = format!("[id=\"{id}\"] .side.{side} code[data-n=\"{}\"]", item.line);
                let text =
                    browser.ask(&format!("document.querySelector({selector:?})?.textContent"));
                assert_eq!(text, format!("{line}\n"), "{selector}");
                shown.insert((file.name.clone(), name.clone()));
            }
            let same = |name: &&String| pair.rust.iter().find(|(_, rust)| rust == *name);
            if let (Some(name), Some(c)) = (pair.c.first(), c.first())
                && let Some((file, _)) = same(&name)
                && c.text.lines().any(|line| line.contains(&format!(" {name}(")))
            {
                let top = |side, file: &File| {
                    let line = file.item(name).unwrap().line;
                    format!(
                        "document.querySelector('[id=\"{id}\"] .side.{side} [data-n=\"{line}\"]')\
                         .getBoundingClientRect().top"
                    )
                };
                let rust = comparison.rust.iter().find(|f| f.name == *file).unwrap();
                let tops = (browser.ask(&top("c", c)), browser.ask(&top("rust", rust)));
                assert_eq!(tops.0, tops.1, "{name} is not level with its mirror");
            }
        }
    }
    for file in compare::c_files().iter().chain(&comparison.rust[..1]) {
        for item in &file.items {
            assert!(shown.contains(&(file.name.clone(), item.name.clone())), "{item:?}");
        }
    }
}

fn nothing_overflows(browser: &mut Browser, width: u32) {
    // But a call's arguments, which are cut, and stand below in full, and a
    // chart and the table of contents, which scroll in their frames.
    let wide = browser.ask(
        "[...document.querySelectorAll('body *')].filter(e => !e.closest('.trace td, .skip, .scroll, nav, svg') && \
         getComputedStyle(e).display != 'inline' && \
         (e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0 || e.getBoundingClientRect().right > innerWidth))\
         .map(e => e.tagName + ' ' + e.className + ' ' + e.scrollWidth + ' of ' + e.clientWidth + ' ' + e.textContent.slice(0, 80))",
    );
    assert_eq!(wide, json!([]), "at {width}");
    let page = browser.ask("document.documentElement.scrollWidth");
    assert_eq!(page, width, "the page is wider than {width}");
}

/// Contrast of at least 4.5 between every text and what is behind it (WCAG
/// 2.2, 1.4.3).
fn text_can_be_read(browser: &mut Browser, scheme: &str) {
    let faint = browser.ask(
        "(() => { const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});\
         const known = {}; const rgb = c => known[c] ??= (() => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1);\
           return [...canvas.getImageData(0, 0, 1, 1).data] })();\
         const light = c => { const [r, g, b] = rgb(c).map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);\
           return .2126 * r + .7152 * g + .0722 * b };\
         const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;\
           if (rgb(c)[3] == 255) return c } return 'white' };\
         const seen = new Map();\
         for (const e of document.querySelectorAll('body *')) {\
           if (![...e.childNodes].some(n => n.nodeType == 3 && n.data.trim())) continue;\
           const pair = [getComputedStyle(e).color, behind(e)]; seen.set(pair.join(' on '), pair) }\
         const ratio = ([a, b]) => { [a, b] = [light(a), light(b)].sort((x, y) => y - x); return (a + .05) / (b + .05) };\
         return [...seen].filter(([, pair]) => ratio(pair) < 4.5).map(([name, pair]) => name + ': ' + ratio(pair).toFixed(2)) })()",
    );
    assert_eq!(faint, json!([]), "{scheme}");
}

/// The names of a pair stay in sight while its lines pass.
fn names_stick(browser: &mut Browser) {
    let place = browser.ask(
        "(() => { const pair = document.getElementById('echo-main').closest('details'); \
         scrollTo(0, pair.getBoundingClientRect().top + scrollY + pair.offsetHeight / 2); \
         return pair.querySelector('summary').getBoundingClientRect().top - \
           document.querySelector('nav').getBoundingClientRect().bottom })()",
    );
    assert!(place.as_f64().unwrap().abs() < 1.5, "the names are {place} below the top");
}

fn links_lead_somewhere(browser: &mut Browser) {
    let dead = browser.ask(
        "[...document.querySelectorAll('a')].map(a => a.getAttribute('href'))\
         .filter(href => !document.getElementById(href.slice(1)))",
    );
    assert_eq!(dead, json!([]));
    // The first key press of somebody without a mouse.
    for kind in ["keyDown", "keyUp"] {
        let tab = json!({"type": kind, "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9});
        browser.call("Input.dispatchKeyEvent", tab);
    }
    assert_eq!(browser.ask("document.activeElement.tagName"), "A");
}
