//! What `make compare` runs: writes target/compare/index.html, and what it
//! found, in short, to the terminal. From the environment: ECHO_C and ROT13_C,
//! C files in place of tests/c/; CC and CFLAGS.

#[path = "../common/mod.rs"]
mod common;
#[path = "mod.rs"]
mod compare;

use std::{env, fs};

fn main() {
    let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let file = |name: &str, ours: &str| set(name).map_or(compare::project(ours), Into::into);
    let settings = compare::Settings {
        c: [file("ECHO_C", "tests/c/echo.c"), file("ROT13_C", "tests/c/rot13.c")],
        cc: set("CC").unwrap_or("cc".into()),
        cflags: set("CFLAGS").unwrap_or("-Wall -O2".into()),
        out: compare::target().join("compare"),
    };
    let comparison = compare::compare(&settings);
    let page = settings.out.join("index.html");
    fs::write(&page, compare::page::html(&comparison)).expect("the page");
    println!("{}\npage           {}", comparison.summary(), page.display());
}
