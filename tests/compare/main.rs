//! What `make compare` runs: writes target/compare/index.html, and the verdict
//! to the terminal; and what `make grade` runs. From the environment: ECHO_C and
//! ROT13_C, C files in place of tests/c/; CC and CFLAGS; GRADE_DIR, a directory
//! of C files to grade. Exit status: see `verdict::exit_status`.

#[path = "../common/mod.rs"]
mod common;
#[path = "mod.rs"]
mod compare;

use compare::{Settings, grade, verdict};
use std::path::Path;
use std::process::exit;
use std::{env, fs};

fn main() {
    let cc = set("CC").unwrap_or("cc".into());
    let cflags = set("CFLAGS").unwrap_or("-Wall -O2".into());
    if let Some(directory) = set("GRADE_DIR") {
        let out = compare::target().join("grade");
        exit(grade::grade(Path::new(&directory), &out, grade::LATE, &cc, &cflags));
    }
    let file = |name: &str, ours: &str| set(name).map_or(compare::project(ours), Into::into);
    let out = compare::target().join("compare");
    let settings = Settings {
        c: vec![
            ("echo", file("ECHO_C", "tests/c/echo.c")),
            ("rot13", file("ROT13_C", "tests/c/rot13.c")),
        ],
        cc,
        cflags,
        scratch: out.clone(),
        out,
        limits: None,
        late: compare::LATE,
        faults: true,
        cost: true,
    };
    let comparison = compare::compare(&settings);
    let page = settings.out.join("index.html");
    fs::write(&page, compare::page::html(&comparison)).expect("the page");
    println!("{}\npage: {}", comparison.summary(), page.display());
    exit(verdict::exit_status(&comparison));
}

fn set(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
