//! What `make compare` runs: writes target/compare/index.html, and the verdict
//! to the terminal; and what `make grade` runs. From the environment: ECHO_C and
//! ROT13_C, a C file, several or a folder in place of tests/c/; CC, CPPFLAGS, CFLAGS and
//! LDLIBS; GRADE_DIR, a directory of C to grade; STRICT=1: a right server of another
//! kind is wrong. Exit status: see `verdict::exit_status`.

#[path = "../common/mod.rs"]
mod common;
#[path = "mod.rs"]
mod compare;

use compare::grade::Rules;
use compare::program::{Patience, Tools};
use compare::{Settings, grade, jail, submission, verdict};
use std::path::Path;
use std::process::exit;
use std::{env, fs};

fn main() {
    jail::permit_namespaces();
    let tools = Tools {
        cc: set("CC").unwrap_or("cc".into()),
        cppflags: set("CPPFLAGS").unwrap_or_default(),
        cflags: set("CFLAGS").unwrap_or("-Wall -O2".into()),
        ldlibs: set("LDLIBS").unwrap_or_default(),
    };
    let strict = set("STRICT").is_some_and(|value| value != "0");
    if let Some(directory) = set("GRADE_DIR") {
        let out = compare::target().join("grade");
        let rules = Rules { tools, strict, late: Patience(grade::LATE).time(), faults: true };
        let status = grade::grade(Path::new(&directory), &out, &rules);
        jail::remove_left_files();
        exit(status);
    }
    let c = |service: &'static str, name: &str| {
        let ours = compare::project(&format!("tests/c/{service}.c"));
        let text = set(name).unwrap_or(ours.to_string_lossy().into_owned());
        (service, submission::named(&text, service))
    };
    let settings = Settings {
        c: vec![c("echo", "ECHO_C"), c("rot13", "ROT13_C")],
        tools,
        out: compare::target().join("compare"),
        strict,
        late: Patience(compare::LATE).time(),
        faults: true,
        cost: true,
    };
    let comparison = compare::compare(&settings);
    jail::remove_left_files();
    let page = settings.out.join("index.html");
    fs::write(&page, compare::page::html(&comparison)).expect("the page");
    println!("{}\npage: {}", comparison.summary(), page.display());
    exit(verdict::exit_status(&comparison));
}

fn set(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
