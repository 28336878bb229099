//! Servers that are broken in the ways that concurrent servers are broken: the
//! source with one piece changed. The trials must catch them.

use super::trial::{Child, Event, Parent, Trial, When};
use crate::common::write_if_changed;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub struct Broken {
    pub name: &'static str,
    /// Files, a piece of the text of each, which it has once, and what replaces it.
    changes: &'static [(&'static str, &'static str, &'static str)],
    /// What is tried with it.
    tried: Tried,
}

enum Tried {
    Parent(&'static [Event]),
    /// The same with many children.
    Many(&'static [Event]),
    Child(Event),
}

pub const BROKEN: &[Broken] = &[
    // A signal between the look at the flag and the call is lost.
    Broken {
        name: "looks at a flag before accept, and leaves the listening socket as it is",
        changes: &[
            (
                "daemon/mod.rs",
                "end::unblocked(|| sys::accept(listenfd, &TABLE.client))",
                "end::unblocked(|| match end::is_stopping() {
                    true => Err(Errno::INTR),
                    false => sys::accept(listenfd, &TABLE.client),
                })",
            ),
            ("daemon/end.rs", "sys::fd(LISTENFD.get())", "sys::fd(0)"),
        ],
        tried: Tried::Parent(&[Event::Term]),
    },
    // A child that ends while the parent adds another is added again, or never removed.
    Broken {
        name: "counts in the handler and outside, and blocks no signal",
        changes: &[("daemon/end.rs", "sys::sigmask(PARENT_BLOCKS);\n    result", "result")],
        tried: Tried::Parent(&[Event::Child]),
    },
    // One SIGCHLD may stand for two children.
    Broken {
        name: "reaps one child for each signal",
        changes: &[("main.rs", "while waitpid() > 0 {}", "waitpid();")],
        tried: Tried::Parent(&[Event::Child, Event::Foreign]),
    },
    // The newest of many children are asked, and nobody asks the others.
    Broken {
        name: "asks only the newest of many children",
        changes: &[(
            "daemon/reap.rs",
            "    for pid in children::pids().rev() {
        reap(Some(pid));
    }
    while reap(None) > 0 {}
",
            "",
        )],
        tried: Tried::Many(&[Event::Child]),
    },
    // A signal to a child that does not know its connection yet is lost.
    Broken {
        name: "tells a child its connection after it takes signals",
        changes: &[
            (
                "daemon/connection.rs",
                "static REASON:",
                "static NEXT: Global<c_int> = Global::new(0);\nstatic REASON:",
            ),
            (
                "daemon/connection.rs",
                "    if CONNFD.get() != connfd.as_raw_fd() {
        CONNFD.set(connfd.as_raw_fd());
    }",
                "    NEXT.set(connfd.as_raw_fd());",
            ),
            (
                "daemon/connection.rs",
                "    sys::sigmask(CHILD_BLOCKS);\n",
                "    sys::sigmask(CHILD_BLOCKS);\n    CONNFD.set(NEXT.get());\n",
            ),
        ],
        tried: Tried::Child(Event::Term),
    },
    // A signal's limit for recv is replaced by the idle limit, which is longer.
    Broken {
        name: "sets a child's idle limit after it takes signals",
        changes: &[
            (
                "daemon/connection.rs",
                "pub fn begin(is_stopping: bool) {\n",
                "pub fn begin(is_stopping: bool) {\n    sys::disable_sigaltstack();\n    \
                 sys::sigmask(CHILD_BLOCKS);\n",
            ),
            (
                "daemon/connection.rs",
                "    sys::disable_sigaltstack();\n    sys::sigmask(CHILD_BLOCKS);\n}",
                "}",
            ),
        ],
        tried: Tried::Child(Event::Term),
    },
    // A client that is accepted after the signal is waited for until the grace time ends.
    Broken {
        name: "does not tell a child that it forks after the signal",
        changes: &[("daemon/mod.rs", "begin(end::is_stopping())", "begin(false)")],
        tried: Tried::Parent(&[Event::Term]),
    },
];

impl Broken {
    /// The server's source with the changes.
    fn write_sources(&self, src: &Path, to: &Path) {
        assert!(self.changes.iter().all(|(file, ..)| src.join(file).is_file()), "{}", self.name);
        for wing in ["", "daemon", "sys"] {
            for entry in fs::read_dir(src.join(wing)).expect("src").flatten() {
                let file = entry.path();
                if file.extension().is_none_or(|extension| extension != "rs") {
                    continue;
                }
                let name = file.strip_prefix(src).unwrap();
                let mut text = read(&file);
                for (_, from, with) in self.changes.iter().filter(|(of, ..)| name == Path::new(of))
                {
                    assert_eq!(text.matches(from).count(), 1, "{from:?} in {}", name.display());
                    text = text.replace(from, with);
                }
                write_if_changed(&to.join(name), &text);
            }
        }
    }

    /// What must catch it.
    pub fn trial<'a>(&self, program: &'a Path) -> Box<dyn Trial + 'a> {
        match self.tried {
            Tried::Parent(events) | Tried::Many(events) => {
                let (events, when) = (events.to_vec(), When::Together);
                let many = matches!(self.tried, Tried::Many(_));
                Box::new(Parent { program, events, when, room: true, many, broken: true })
            }
            Tried::Child(event) => Box::new(Child { program, event, shut: false, broken: true }),
        }
    }
}

/// Builds them all, as programs of one package, and gives their paths.
pub fn build() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let package = Path::new(env!("CARGO_TARGET_TMPDIR")).join("broken");
    for file in ["Cargo.lock", "build.rs", "src/sys/link.ld"] {
        write_if_changed(&package.join(file), &read(&root.join(file)));
    }
    let mut manifest = without_targets(&read(&root.join("Cargo.toml")));
    for (i, broken) in BROKEN.iter().enumerate() {
        manifest += &format!("[[bin]]\nname = \"broken-{i}\"\npath = \"broken-{i}/main.rs\"\n");
        broken.write_sources(&root.join("src"), &package.join(format!("broken-{i}")));
    }
    write_if_changed(&package.join("Cargo.toml"), &manifest);
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--release", "--locked", "--offline", "--target-dir"])
        .arg(package.join("target"));
    let output = cargo.current_dir(&package).stdin(Stdio::null()).output().expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let built = package.join("target/release");
    (0..BROKEN.len()).map(|i| built.join(format!("broken-{i}"))).collect()
}

/// A manifest without its programs and tests.
fn without_targets(manifest: &str) -> String {
    let mut kept = String::new();
    let mut is_kept = true;
    for line in manifest.lines() {
        if line.starts_with('[') {
            is_kept = !line.starts_with("[[");
        }
        if is_kept {
            kept += &format!("{line}\n");
        }
    }
    kept
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}
