//! DESIGN.md's "How to add a service": its steps are made in a copy of the project, as
//! they are written there, and the tests that can notice are run on it.

use crate::common::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// The tests that a new service can fail. Their modules are all that is compiled.
const TESTS: [&str; 8] = [
    "answers::upper_answers_in_capital_letters",
    "binary::",
    "command_line::",
    "compare::every_line",
    "compare::the_reasons",
    "listening::it_says",
    "message_list::",
    "wings::",
];

/// One change of a step: the file (none: every file of the program, the tests and the
/// manual), and the lines, each with ` `, `-` or `+` before it.
struct Change<'a> {
    file: Option<&'a str>,
    lines: Vec<&'a str>,
}

/// The changes of the page, in their order.
fn changes(page: &str) -> Vec<Change<'_>> {
    let (_, recipe) = page.split_once("\n## How to add a service\n").expect("the recipe");
    let (mut changes, mut file, mut goes_on) = (Vec::new(), None, false);
    for line in recipe.lines().take_while(|line| !line.starts_with("## ")) {
        if let Some((_, step)) = line.split_once(". ").filter(|(n, _)| n.parse::<u32>().is_ok()) {
            file = step.strip_prefix('`').and_then(|step| step.split('`').next());
        }
        let code = line.strip_prefix("       ");
        match (code, changes.last_mut()) {
            (Some(code), Some(Change { lines, .. })) if goes_on => lines.push(code),
            (Some(code), _) => changes.push(Change { file, lines: vec![code] }),
            (None, _) => {}
        }
        goes_on = code.is_some();
    }
    changes
}

impl Change<'_> {
    /// The lines without those that have this mark, and without the marks.
    fn without(&self, mark: char) -> Vec<&str> {
        self.lines.iter().filter(|line| !line.starts_with(mark)).map(|line| &line[1..]).collect()
    }

    fn make(&self, texts: &mut BTreeMap<PathBuf, String>) {
        let (old, new) = (self.without('+').join("\n"), self.without('-').join("\n"));
        let Some(file) = self.file else {
            let is_meant =
                |file: &Path| ["src", "tests", "deploy"].iter().any(|d| file.starts_with(d));
            let texts = texts.iter_mut().filter(|(file, _)| is_meant(file));
            return texts.for_each(|(_, text)| *text = text.replace(&old, &new));
        };
        let text = texts.get_mut(Path::new(file)).unwrap_or_else(|| panic!("no {file}"));
        if old.is_empty() {
            return *text += &format!("{new}\n");
        }
        let (old, new) = (format!("\n{old}\n"), format!("\n{new}\n"));
        assert_eq!(text.matches(&old).count(), 1, "{file} has this once:{old}");
        *text = text.replace(&old, &new);
    }
}

/// The project's files, by their names.
fn project() -> BTreeMap<PathBuf, String> {
    let mut find = Command::new("find");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target");
    find.arg(ROOT).args(["-name", ".git", "-prune", "-o", "-path"]).arg(target);
    let files = succeeds(find.args(["-prune", "-o", "-type", "f", "-print"]));
    let texts = files.lines().filter_map(|file| {
        let name = Path::new(file).strip_prefix(ROOT).expect("below the root").into();
        Some((name, fs::read_to_string(file).ok()?)) // a picture is no text
    });
    texts.collect()
}

#[test]
fn the_recipe_for_a_service_makes_one_that_passes_the_tests() {
    if emulated() {
        return;
    }
    let mut texts = project();
    let page = texts[Path::new("DESIGN.md")].clone();
    changes(&page).iter().for_each(|change| change.make(&mut texts));
    let modules = TESTS.map(|test| test.split_once("::").expect("a module").0);
    let modules = BTreeSet::from(modules).into_iter().map(|name| format!("mod {name};\n"));
    let index = "#[path = \"../common/mod.rs\"]\nmod common;\n".to_owned();
    texts.insert("tests/suite/main.rs".into(), index + &modules.collect::<String>());
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("recipe");
    texts.iter().for_each(|(file, text)| write_if_changed(&copy.join(file), text));
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "test",
        "--release",
        "--locked",
        "--offline",
        "--test=suite",
        "--target-dir=built",
    ]);
    cargo.arg("--").args(TESTS);
    let output = run_tool(cargo.current_dir(&copy));
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(stdout.contains(&format!("test {} ... ok", TESTS[0])), "{stdout}");
}
