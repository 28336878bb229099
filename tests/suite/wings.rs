//! How `src` is built: which file imports which, and how long things are.
//!
//! `sys` imports nothing else of the crate, `daemon` imports `sys`, and `main.rs`
//! imports both. No file imports itself by way of others. A file with `mod x;`
//! imports that file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const SRC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");

/// The text of each file, by its name below `src`.
fn sources() -> BTreeMap<String, String> {
    let mut sources = BTreeMap::new();
    for directory in ["", "sys", "daemon"] {
        for entry in fs::read_dir(Path::new(SRC).join(directory)).expect("src").flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(SRC).unwrap().to_str().unwrap().to_owned();
                sources.insert(name, fs::read_to_string(&path).expect("a source file"));
            } else {
                let known = ["sys", "daemon", "sys/link.ld"].map(|name| Path::new(SRC).join(name));
                assert!(known.contains(&path), "{path:?}: what is it?");
            }
        }
    }
    sources
}

// ---------------------------------------------------------------- imports

/// The module that a file is: `["sys", "call"]`, `["sys"]` for its `mod.rs`.
fn module(file: &str) -> Vec<&str> {
    let mut path: Vec<&str> = file.trim_end_matches(".rs").split('/').collect();
    match path.last() {
        Some(&("main" | "mod")) => _ = path.pop(),
        // One of them is compiled, as this module.
        Some(&("x86_64" | "aarch64")) => *path.last_mut().unwrap() = "arch",
        _ => {}
    }
    path
}

fn starts_with(path: &[&str], beginning: &[String]) -> bool {
    path.len() >= beginning.len() && path.iter().zip(beginning).all(|(a, b)| a == b)
}

/// The words and signs of the code, without comments, strings and characters.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    for line in text.lines() {
        let line = line.split("//").next().unwrap();
        // No string in src spans lines and holds a path.
        for code in line.split('"').step_by(2) {
            let mut rest = code;
            while let Some(first) = rest.chars().next() {
                let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
                let end = match word.unwrap_or(rest.len()) {
                    0 if rest.starts_with("::") => 2,
                    0 => first.len_utf8(),
                    end => end,
                };
                if !first.is_whitespace() {
                    tokens.push(rest[..end].to_owned());
                }
                rest = &rest[end..];
            }
        }
    }
    tokens
}

/// The paths from here on: `a::{b, c::d}` is `a::b` and `a::c::d`. Gives the
/// number of tokens.
fn paths(tokens: &[String], prefix: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let (mut path, mut at) = (prefix.to_vec(), 0);
    loop {
        if tokens[at] == "{" {
            at += 1;
            while tokens[at] != "}" {
                at += paths(&tokens[at..], &path, found);
                at += usize::from(tokens[at] == ",");
            }
            return at + 1;
        }
        path.push(tokens[at].clone());
        at += 1;
        if tokens.get(at).is_none_or(|token| token != "::") {
            found.push(path);
            return at;
        }
        at += 1;
    }
}

/// Every path in a file that begins with `crate` or `super`, from the crate on.
fn crate_paths(file: &str, text: &str) -> Vec<Vec<String>> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        let begins =
            ["crate", "super"].contains(&&*tokens[at]) && (at == 0 || tokens[at - 1] != "::");
        if begins && tokens.get(at + 1).is_some_and(|token| token == "::") {
            paths(&tokens[at..], &[], &mut found);
        }
    }
    let from_crate = |path: Vec<String>| {
        let mut base: Vec<String> = module(file).iter().map(|&name| name.to_owned()).collect();
        for name in path {
            match &*name {
                "crate" => base.clear(),
                "super" => _ = base.pop().expect("a module above"),
                "self" => {}
                _ => base.push(name),
            }
        }
        base
    };
    found.into_iter().map(from_crate).collect()
}

/// The modules that a file declares: `mod x;`.
fn declared(text: &str) -> Vec<String> {
    let tokens = tokens(text);
    let declarations = tokens.windows(3).filter(|three| three[0] == "mod" && three[2] != "::");
    let names = declarations.map(|three| {
        assert_eq!(three[2], ";", "a module of its own file is expected: {}", three[1]);
        three[1].clone()
    });
    names.collect()
}

/// For each file the files that it imports.
fn graph(sources: &BTreeMap<String, String>) -> BTreeMap<&str, BTreeSet<&str>> {
    let files_of = |importer: &str, path: &[String]| {
        // What is no module is an item of the last module before it; so is what has
        // the name of a module that is private to another wing.
        let is_module = |n: usize| sources.keys().any(|file| module(file) == path[..n]);
        let is_near = |n: usize| n == 0 || starts_with(&module(importer), &path[..n - 1]);
        let mut all = (0..=path.len()).rev();
        let n = all.find(|&n| is_module(n) && is_near(n)).expect("the crate at least");
        let files = sources.keys().filter(|file| module(file) == path[..n]);
        files.map(|file| &**file).collect::<Vec<_>>()
    };
    let mut graph = BTreeMap::new();
    for (file, text) in sources {
        let mut imports = BTreeSet::new();
        for path in crate_paths(file, text) {
            imports.extend(files_of(file, &path));
        }
        for name in declared(text) {
            let path: Vec<String> =
                module(file).iter().map(|name| name.to_string()).chain([name]).collect();
            imports.extend(files_of(file, &path));
        }
        graph.insert(&**file, imports);
    }
    graph
}

/// The files of a circle, if there is one: each imports the next, and the last is
/// the first.
fn circle<'a>(graph: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Option<Vec<&'a str>> {
    fn visit<'a>(
        file: &'a str,
        graph: &BTreeMap<&'a str, BTreeSet<&'a str>>,
        path: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> bool {
        if let Some(start) = path.iter().position(|&other| other == file) {
            path.drain(..start);
            path.push(file);
            return true;
        }
        if done.contains(file) {
            return false;
        }
        path.push(file);
        if graph[file].iter().any(|next| visit(next, graph, path, done)) {
            return true;
        }
        path.pop();
        done.insert(file);
        false
    }
    let (mut path, mut done) = (Vec::new(), BTreeSet::new());
    let found = graph.keys().any(|file| visit(file, graph, &mut path, &mut done));
    found.then_some(path)
}

#[test]
fn each_wing_imports_only_what_it_may() {
    let sources = sources();
    for (file, imports) in graph(&sources) {
        for import in imports {
            let may = matches!(
                (file.split_once('/'), import.split_once('/')),
                (Some(("sys", _)), Some(("sys", _)))
                    | (Some(("daemon", _)), Some(("daemon", _)) | Some(("sys", "mod.rs")))
                    | (None, Some((_, "mod.rs")))
            );
            assert!(may, "src/{file} imports src/{import}");
        }
    }
    for (file, text) in sources.iter().filter(|(file, _)| file.starts_with("sys/")) {
        assert!(!tokens(text).contains(&"crate".into()), "src/{file} has a path with crate::");
    }
}

#[test]
fn no_imports_run_in_a_circle() {
    let sources = sources();
    let graph = graph(&sources);
    if let Some(circle) = circle(&graph) {
        panic!("these files import each other: {}", circle.join(" -> "));
    }
    // The circles that there were would be found.
    for (file, import) in [
        ("main.rs", "daemon/mod.rs"),
        ("daemon/mod.rs", "daemon/end.rs"),
        ("daemon/end.rs", "daemon/children.rs"),
        ("daemon/end.rs", "sys/mod.rs"),
        ("sys/call.rs", "sys/aarch64.rs"),
    ] {
        assert!(graph[file].contains(import), "src/{file} does not import src/{import}");
    }
}

#[test]
fn a_circle_is_found() {
    let sources = [
        ("main.rs", "mod sys;\nuse sys::a;"),
        ("sys/mod.rs", "mod a; mod b;\nmod c;"),
        ("sys/a.rs", "use super::{b::{self, B}, c};"),
        ("sys/b.rs", "fn f() { super::c::g(); } // use super::a;"),
        ("sys/c.rs", ""),
    ];
    let mut sources = BTreeMap::from(sources.map(|(file, text)| (file.into(), text.into())));
    assert_eq!(circle(&graph(&sources)), None);
    sources.insert("sys/c.rs".into(), "use super::a::X;".into());
    assert_eq!(circle(&graph(&sources)).unwrap().len(), 4, "a, b, c, a");
    sources.insert("sys/c.rs".into(), "use super::X;".into());
    let expected = ["sys/mod.rs", "sys/a.rs", "sys/b.rs", "sys/c.rs", "sys/mod.rs"];
    assert_eq!(circle(&graph(&sources)).unwrap(), expected);
}

// ---------------------------------------------------------------- sizes

/// Neither blank nor comment.
fn is_code(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with("//")
}

/// The name and the lines of each function.
fn functions(text: &str) -> Vec<(String, Vec<&str>)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut functions = Vec::new();
    for (start, line) in lines.iter().enumerate().filter(|(_, line)| is_code(line)) {
        let Some((before, after)) = line.split_once("fn ") else { continue };
        let words = ["pub", "const", "unsafe", "extern", "safe", "\"C\""];
        if !before.split_whitespace().all(|word| words.contains(&word)) {
            continue;
        }
        let name = after.split(['(', '<']).next().unwrap().to_owned();
        // As rustfmt writes it: the end stands as far right as the beginning.
        let indent = &line[..line.len() - line.trim_start().len()];
        let end = format!("{indent}}}");
        let length = match line.ends_with([';', '}']) {
            true => 1,
            false => 1 + lines[start..].iter().position(|&line| line == end).expect("its end"),
        };
        functions.push((name, lines[start..start + length].to_vec()));
    }
    functions
}

#[test]
fn it_is_short() {
    let sources = sources();
    let all: usize =
        sources.values().map(|text| text.lines().filter(|line| is_code(line)).count()).sum();
    assert!(all <= 1770, "{all} code lines");
    let mut longest = (0, String::new());
    for (file, text) in &sources {
        for (name, lines) in functions(text) {
            longest = longest.max((lines.len(), format!("{name} in src/{file}")));
        }
    }
    assert!((10..=40).contains(&longest.0), "{longest:?}");
    let functions = functions(&sources["main.rs"]);
    let code_lines = |name: &str| {
        let (_, lines) = functions.iter().find(|(other, _)| other == name).expect(name);
        lines.iter().filter(|line| is_code(line)).count()
    };
    let (main, echo) = (code_lines("main"), code_lines("echo"));
    assert!((10..=30).contains(&main), "main has {main} code lines");
    assert!((5..=11).contains(&echo), "echo has {echo} code lines");
    println!("{all} code lines, main {main}, echo {echo}, the longest: {longest:?}");
}
