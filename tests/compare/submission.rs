//! What is compiled: one file, several, or a folder, copied to where the compiler may
//! read it. The functions of other files are linked to the file that has `main`.

use super::jail::open_to_all;
use super::source::{self, Kind, Lang};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// No C that people write is larger, and no folder of it is deeper or has more files.
const MOST_BYTES: u64 = 1 << 20;
const MOST_FILES: usize = 400;
const DEPTH: usize = 5;

/// The files of one program, where they were found.
#[derive(Clone, Debug, PartialEq)]
pub struct Submission {
    /// As the verdict and the class name it.
    pub name: String,
    /// With `main` first.
    pub files: Vec<PathBuf>,
    /// The folder that it consists of; none for single files.
    pub folder: Option<PathBuf>,
}

/// The same, copied.
pub struct Sources {
    pub files: Vec<PathBuf>,
    /// Where headers are.
    pub includes: Vec<PathBuf>,
    copy: PathBuf,
}

/// What a reader names: a file, a folder, or several files as words.
pub fn named(text: &str, service: &str) -> Submission {
    let path = Path::new(text);
    if path.is_dir() {
        let all = programs_of(path);
        let fits = |program: &&Submission| service_of(&program.files[0]) == service;
        let fitting = all.iter().find(fits).or(all.first());
        let empty = Submission { name: text.into(), files: vec![], folder: Some(path.into()) };
        return fitting.cloned().unwrap_or(empty);
    }
    let mut files: Vec<PathBuf> = match path.is_file() {
        true => vec![path.into()],
        false => text.split_whitespace().map(PathBuf::from).collect(),
    };
    files.sort_by_key(|file| !has_main(file));
    if files.len() == 1 {
        files = with_helpers(&files[0]);
    }
    Submission { name: files.first().map_or(text.into(), |file| stem(file)), files, folder: None }
}

/// What a class has written: a program for each file of the directory that has a
/// `main`, and for each in each folder there.
pub fn class(directory: &Path) -> Vec<Submission> {
    let mut all = Vec::new();
    for path in entries(directory) {
        if path.is_dir() {
            let programs = programs_of(&path);
            let name = file_name(&path);
            match programs.is_empty() {
                true => all.push(Submission { name, files: vec![], folder: Some(path) }),
                false => all.extend(programs),
            }
        } else if is_c(&path) && (has_main(&path) || !is_helper(&path)) {
            all.push(Submission { name: stem(&path), files: with_helpers(&path), folder: None });
        }
    }
    all
}

/// The programs of a folder: one for each `main` of a server, with all that has none.
fn programs_of(folder: &Path) -> Vec<Submission> {
    let mut files = Vec::new();
    collect(folder, DEPTH, &mut files);
    files.retain(|path| is_c(path));
    let included: BTreeSet<String> = files.iter().flat_map(|file| includes_of(file)).collect();
    files.retain(|file| !included.contains(&file_name(file)));
    let (mut mains, helpers): (Vec<PathBuf>, Vec<PathBuf>) =
        files.into_iter().partition(|file| has_main(file));
    if mains.iter().any(|file| is_server(file)) {
        mains.retain(|file| is_server(file));
    }
    // Without `main` the linker says what is missing.
    let (name, alone) = (file_name(folder), mains.len() <= 1);
    if mains.is_empty() && !helpers.is_empty() {
        return vec![Submission { name, files: helpers, folder: Some(folder.into()) }];
    }
    let program = |main: PathBuf| {
        let name = if alone { name.clone() } else { format!("{name}/{}", stem(&main)) };
        let files = [vec![main], helpers.clone()].concat();
        Submission { name, files, folder: Some(folder.into()) }
    };
    mains.into_iter().map(program).collect()
}

/// A file, and those beside it whose headers it includes: csapp.c for csapp.h.
fn with_helpers(main: &Path) -> Vec<PathBuf> {
    let mut files = vec![main.to_owned()];
    let mut next = 0;
    while let Some(file) = files.get(next).cloned() {
        for header in includes_of(&file).iter().filter(|name| name.ends_with(".h")) {
            let helper = main.with_file_name(header).with_extension("c");
            if helper.is_file() && !files.contains(&helper) && !has_main(&helper) {
                files.push(helper);
            }
        }
        next += 1;
    }
    files
}

/// Whether another file of its directory includes its header, so that it is linked there.
fn is_helper(file: &Path) -> bool {
    let header = format!("{}.h", stem(file));
    let beside = entries(file.parent().unwrap_or(Path::new(".")));
    beside.iter().any(|other| {
        let includes = includes_of(other);
        other != file && (includes.contains(&header) || includes.contains(&file_name(file)))
    })
}

/// The service that a C means to be: it names it somewhere, or it is echo.
pub fn service_of(file: &Path) -> &'static str {
    let path = file.to_string_lossy().to_lowercase();
    let names = path.rsplit('/').take(2).any(|name| name.contains("rot13"));
    let is_rot13 = names || text_of(file).to_lowercase().contains("rot13");
    if is_rot13 { "rot13" } else { "echo" }
}

impl Submission {
    /// Copies the files, with the headers beside them, below `room`.
    pub fn copy(&self, room: &Path) -> io::Result<Sources> {
        let copy = room.join("src");
        let mut includes = BTreeSet::new();
        let mut from = Vec::new();
        if let Some(folder) = &self.folder {
            collect(folder, DEPTH, &mut from);
        }
        for file in &self.files {
            let beside = entries(file.parent().unwrap_or(Path::new(".")));
            from.extend(beside.into_iter().filter(|path| is_c(path) || is_header(path)));
            from.push(file.clone());
        }
        for file in from.iter().take(MOST_FILES) {
            let to = self.place(file, &copy);
            fs::create_dir_all(to.parent().expect("a parent"))?;
            if file.metadata()?.len() <= MOST_BYTES {
                fs::copy(file, &to).map_err(|e| why(file, &e))?;
                open_to_all(&to);
            }
            // Others may read what is beside the original, too, such as ../common.
            if is_header(file) || self.files.contains(file) {
                includes.insert(to.parent().expect("a parent").to_owned());
                includes.extend(file.parent().and_then(|parent| parent.canonicalize().ok()));
            }
        }
        for directory in includes.iter().filter(|directory| directory.starts_with(&copy)) {
            directory.ancestors().take_while(|d| d.starts_with(&copy)).for_each(open_to_all);
        }
        let files = self.files.iter().map(|file| self.place(file, &copy)).collect();
        Ok(Sources { files, includes: includes.into_iter().collect(), copy })
    }

    /// Where the copy of a file goes: below its folder as here, or by its name.
    fn place(&self, file: &Path, copy: &Path) -> PathBuf {
        match &self.folder {
            Some(folder) => copy.join(file.strip_prefix(folder).unwrap_or(file)),
            None => copy.join(file.file_name().unwrap_or_default()),
        }
    }
}

fn why(file: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", file.display()))
}

impl Sources {
    /// What the compiler says, with the files' own names.
    pub fn as_named(&self, words: &str) -> String {
        words.replace(&format!("{}/", self.copy.display()), "")
    }
}

// ---------------------------------------------------------------- files

/// In their order; without hidden ones.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let directory = if directory == Path::new("") { Path::new(".") } else { directory };
    let all = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let hidden = |path: &PathBuf| file_name(path).starts_with(['.', '_']);
    let mut all: Vec<PathBuf> = all.filter(|path| !hidden(path)).collect();
    all.sort();
    all
}

/// All files below; a link is not followed.
fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    for path in entries(folder) {
        let Ok(kind) = path.symlink_metadata().map(|data| data.file_type()) else { continue };
        if kind.is_file() && files.len() < MOST_FILES {
            files.push(path);
        } else if kind.is_dir() && depth > 0 {
            collect(&path, depth - 1, files);
        }
    }
}

fn is_c(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "c") && path.is_file()
}

fn is_header(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "h" || e == "inc") && path.is_file()
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What was never meant to be read is left alone.
fn text_of(file: &Path) -> String {
    let small = file.metadata().is_ok_and(|data| data.is_file() && data.len() <= MOST_BYTES);
    let bytes = if small { fs::read(file).unwrap_or_default() } else { vec![] };
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether it defines `main`.
fn has_main(file: &Path) -> bool {
    let text = text_of(file);
    let tokens = source::tokens(&text, Lang::C);
    let mut depth = 0;
    let code = tokens.iter().filter(|t| !matches!(t.kind, Kind::Space | Kind::Comment));
    let code: Vec<_> = code.collect();
    code.iter().enumerate().any(|(n, token)| {
        match token.text {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        let call = code.get(n + 1).is_some_and(|next| next.text == "(");
        depth == 0 && token.text == "main" && call && {
            let after = code[n..].iter().find(|t| matches!(t.text, "{" | ";"));
            // A definition of before 1989 has declarations between.
            after.is_some_and(|t| t.text == "{") || code[n..].iter().any(|t| t.text == "{")
        }
    })
}

/// A client has none of these.
fn is_server(file: &Path) -> bool {
    let text = text_of(file).to_lowercase();
    text.contains("listen") || text.contains("accept")
}

/// The names of the files that it includes by `#include "..."`.
fn includes_of(file: &Path) -> Vec<String> {
    let name = |line: &str| {
        let rest = line.trim_start().strip_prefix('#')?.trim_start().strip_prefix("include")?;
        let name = rest.trim_start().strip_prefix('"')?.split('"').next()?;
        Some(name.rsplit('/').next()?.to_owned())
    };
    if !is_c(file) && !is_header(file) {
        return vec![];
    }
    text_of(file).lines().filter_map(name).collect()
}
