//! lines.txt: for each line of the C its line of the Rust, or the reason why it
//! has none, and the reverse. It tells the page which lines are level.

use super::source::{self, File, Kind, Level, Pair};
use std::collections::{BTreeMap, BTreeSet};

/// The file whose every line must be in the table, beside the C.
const MIRROR: &str = "main.rs";

/// A heading of lines.txt with the rows below it.
pub struct Group {
    /// Its line in lines.txt.
    number: usize,
    pub pair: Pair,
    rows: Vec<Row>,
}

impl Group {
    /// The files of the Rust that it names.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        let rows = self.rows.iter().filter_map(|row| Some(other_file(&row.texts[1])?.0));
        self.pair.rust.iter().map(|(file, _)| &**file).chain(rows)
    }
}

struct Row {
    number: usize,
    /// The texts of the C and of the Rust; a side that has no line is "-".
    texts: [String; 2],
    why: String,
}

pub fn groups(text: &str) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (number, line) in text.lines().enumerate().map(|(n, line)| (n + 1, line.trim())) {
        // `#include` is a line of the C.
        if line.is_empty() || line == "#" || line.starts_with("# ") {
            continue;
        }
        let spaced = format!("{line} ");
        let mut fields = spaced.splitn(3, " | ").map(|field| field.trim().to_owned());
        let (Some(c), Some(rust)) = (fields.next(), fields.next()) else {
            panic!("lines.txt:{number}: not `C | Rust | reason`: {line}");
        };
        let mut why = fields.next().unwrap_or_default();
        if let Some(c) = c.strip_prefix("==") {
            groups.push(Group { number, pair: pair(c, &rust, why), rows: vec![] });
            continue;
        }
        let rows = &mut groups.last_mut().expect("lines.txt begins with a heading").rows;
        if why == "\"" {
            why = rows.last().map_or(String::new(), |above| above.why.clone());
        }
        rows.push(Row { number, texts: [c, rust], why });
    }
    groups
}

/// The items of a heading: `echo.c: names` and `file: names`, by default of main.rs.
fn pair(c: &str, rust: &str, why: String) -> Pair {
    let (file, c) = c.split_once(": ").unwrap_or_default();
    let (rust_file, rust) = rust.split_once(": ").unwrap_or((MIRROR, rust));
    let names = |text: &str| text.split_whitespace().map(String::from).collect::<Vec<_>>();
    Pair {
        file: file.trim().into(),
        c: names(c),
        rust: names(rust).into_iter().map(|name| (rust_file.to_owned(), name)).collect(),
        why,
        ..Pair::default()
    }
}

// ---------------------------------------------------------------- code lines

/// The lines of a file by their numbers; number 0 is none.
struct Lines<'f> {
    file: &'f File,
    /// Trimmed and without comments.
    code: Vec<String>,
    /// The line to which it belongs: itself, or for brackets alone the line that
    /// opened them.
    owner: Vec<usize>,
}

impl<'f> Lines<'f> {
    fn new(file: &'f File) -> Lines<'f> {
        let (mut code, mut opened, mut closes) = (vec![String::new(); 2], vec![], BTreeMap::new());
        for token in source::tokens(&file.text, file.lang) {
            for (n, piece) in token.text.split('\n').enumerate() {
                if n > 0 {
                    code.push(String::new());
                }
                if token.kind != Kind::Comment {
                    code.last_mut().expect("a line").push_str(piece);
                }
            }
            match token.text {
                "{" | "(" | "[" => opened.push(token.line),
                "}" | ")" | "]" => {
                    let line = opened.pop().unwrap_or(0);
                    closes.entry(token.line).or_insert(line);
                }
                _ => {}
            }
        }
        let code: Vec<String> = code.iter().map(|line| line.trim().to_owned()).collect();
        let (mut owner, mut above) = (vec![0; code.len()], 0);
        for (line, text) in code.iter().enumerate().filter(|(_, text)| !text.is_empty()) {
            owner[line] = match closes.get(&line) {
                _ if !is_brackets(text) => line,
                Some(&opening) if opening < line => owner[opening],
                _ => owner[above],
            };
            above = line;
        }
        Lines { file, code, owner }
    }

    fn is_code(&self, line: usize) -> bool {
        self.code.get(line).is_some_and(|text| !text.is_empty())
    }

    fn numbers(&self) -> impl Iterator<Item = usize> {
        (1..self.code.len()).filter(|&line| self.is_code(line))
    }

    /// The lines that a row may mean by this text; none if it is "-".
    fn candidates(&self, names: &[&String], text: &str) -> Option<(Vec<usize>, bool)> {
        match text.split_once(": ") {
            _ if text == "-" || other_file(text).is_some() => None,
            Some((name, text)) if self.file.item(name).is_some() => {
                Some((self.matches(&[&name.to_owned()], text), false))
            }
            _ => Some((self.matches(names, text), true)),
        }
    }

    /// The lines of these items that are this text, or, if there is none, have it
    /// in them.
    fn matches(&self, names: &[&String], text: &str) -> Vec<usize> {
        let items = names.iter().filter_map(|name| self.file.item(name));
        let scope: Vec<usize> = items.flat_map(|item| item.first..=item.last).collect();
        let find = |is: &dyn Fn(&str) -> bool| -> Vec<usize> {
            scope
                .iter()
                .copied()
                .filter(|&line| self.is_code(line) && is(&self.code[line]))
                .collect()
        };
        let whole = find(&|code| code == text);
        if whole.is_empty() { find(&|code| code.contains(text)) } else { whole }
    }

    /// The last line of brackets that belongs to this one.
    fn end(&self, line: usize) -> Option<usize> {
        self.numbers().filter(|&end| end != line && self.owner[end] == line).last()
    }
}

/// The file that a row names, if it is not that of the heading, and the rest.
pub fn other_file(text: &str) -> Option<(&str, &str)> {
    text.split_once(": ").filter(|(file, _)| file.ends_with(".rs"))
}

fn is_brackets(code: &str) -> bool {
    let rest = code.replace("else", "");
    !rest.trim().is_empty() && rest.chars().all(|c| "{}()[]; ,".contains(c))
}

// ---------------------------------------------------------------- the mirror

/// What the table says of these files.
#[derive(Default)]
pub struct Mirror {
    pub pairs: Vec<Pair>,
    pub faults: Vec<String>,
    /// The code lines of main.rs that have their line in the C, and all of them but those
    /// of functions that no C has.
    pub mirrored: usize,
    pub all: usize,
    new: BTreeSet<Place>,
    /// The lines that have a counterpart, and the reasons of those that have none.
    anchored: BTreeSet<Place>,
    reasons: BTreeMap<Place, String>,
}

/// A file and a line of it.
type Place = (String, usize);

pub fn mirror(groups: &[Group], c: &[File], rust: &[File]) -> Mirror {
    let (c, rust): (Vec<_>, Vec<_>) =
        (c.iter().map(Lines::new).collect(), rust.iter().map(Lines::new).collect());
    let mut mirror = Mirror::default();
    for group in groups {
        let c = c.iter().find(|lines| lines.file.name == group.pair.file);
        mirror.group(group, c, &rust);
    }
    for lines in c.iter().chain(rust.iter().filter(|lines| lines.file.name == MIRROR)) {
        mirror.cover(lines);
    }
    let reasons = &mirror.reasons;
    for pair in &mut mirror.pairs {
        let rust_file = pair.rust.first().map_or("", |(file, _)| file);
        pair.reasons = [&pair.file, rust_file].map(|file| {
            let of_file = reasons.iter().filter(|((name, _), _)| name == file);
            of_file.map(|((_, line), why)| (*line, why.clone())).collect()
        });
    }
    mirror
}

impl Mirror {
    pub fn in_words(&self) -> String {
        let (n, m) = (self.mirrored, self.all);
        format!("mirror  {MIRROR}  {n} of {m} lines have their line in the C")
    }

    fn fault(&mut self, number: usize, what: &str) {
        self.faults.push(format!("lines.txt:{number}: {what}"));
    }

    fn group(&mut self, group: &Group, c: Option<&Lines>, all: &[Lines]) {
        let name = group.pair.rust.first().map_or(MIRROR, |(file, _)| file);
        let sides = [c, all.iter().find(|lines| lines.file.name == name)];
        let mut pair = group.pair.clone();
        let rust: Vec<&String> = pair.rust.iter().map(|(_, name)| name).collect();
        let names = [pair.c.iter().collect(), rust];
        for (names, lines) in names.iter().zip(sides) {
            let missing = names.iter().filter(|n| lines.and_then(|l| l.file.item(n)).is_none());
            missing.for_each(|n| self.fault(group.number, &format!("no file has `{n}`")));
        }
        if let (true, Some(lines)) = (pair.c.is_empty(), sides[1]) {
            let items = names[1].iter().filter_map(|name| lines.file.item(name));
            let new = items.flat_map(|item| item.first..=item.last);
            self.new.extend(new.map(|line| (lines.file.name.clone(), line)));
        }
        let [c, rust] = [0, 1].map(|side| match sides[side] {
            Some(lines) => self.resolve(group, side, lines, &names[side]),
            None => vec![None; group.rows.len()],
        });
        for ((row, c), rust) in group.rows.iter().zip(c).zip(rust) {
            let place = |anchor: Option<Anchor>, side: usize| {
                Some((sides[side]?.file.name.clone(), anchor?.line))
            };
            let rust_place = place(rust, 1).or_else(|| self.elsewhere(row, all));
            self.row(row, place(c, 0), rust_place);
            if let (Some(c), Some(rust), [Some(c_lines), Some(rust_lines)]) = (c, rust, sides)
                && c.in_order
                && rust.in_order
            {
                let known = pair.level.keys().any(|key| key.0 == c.line || key.1 == rust.line);
                pair.level.insert((c.line, rust.line), if known { 0.9 } else { 1.0 });
                if let Some(ends) = c_lines.end(c.line).zip(rust_lines.end(rust.line)) {
                    pair.level.entry(ends).or_insert(0.5);
                }
            }
        }
        self.pairs.push(pair);
    }

    /// The line that a row names in a file of its own: `file.rs: function: text`.
    fn elsewhere(&mut self, row: &Row, all: &[Lines]) -> Option<Place> {
        let (file, text) = other_file(&row.texts[1])?;
        let (name, text) = text.split_once(": ").unwrap_or(("", text));
        let lines = all.iter().find(|lines| lines.file.name == file);
        match lines.map_or(vec![], |lines| lines.matches(&[&name.to_owned()], text))[..] {
            [line] => Some((file.into(), line)),
            [] => {
                self.fault(row.number, &format!("no line of {file} has: {text}"));
                None
            }
            ref found => {
                self.fault(row.number, &format!("lines {found:?} of {file} have: {text}"));
                None
            }
        }
    }

    /// For each row the line on this side.
    fn resolve(
        &mut self,
        group: &Group,
        side: usize,
        lines: &Lines,
        names: &[&String],
    ) -> Vec<Option<Anchor>> {
        let all = group.rows.iter().map(|row| lines.candidates(names, &row.texts[side]));
        let all: Vec<Option<(Vec<usize>, bool)>> = all.collect();
        let sure = |row: &Option<(Vec<usize>, bool)>| match row {
            Some((found, true)) if found.len() == 1 => Some(found[0]),
            _ => None,
        };
        let (mut anchors, mut last, file) = (Vec::new(), 0, &lines.file.name);
        for (n, row) in group.rows.iter().enumerate() {
            let Some((mut found, in_order)) = all[n].clone() else {
                anchors.push(None);
                continue;
            };
            if found.len() > 1 && in_order {
                // One of several like it stands between those of the rows above and below.
                let above = all[..n].iter().rev().find_map(sure).unwrap_or(0);
                let below = all[n..].iter().find_map(sure).unwrap_or(usize::MAX);
                found.retain(|line| (above..=below).contains(line));
            }
            let text = &row.texts[side];
            match found[..] {
                [line] if in_order && line < last => {
                    self.fault(row.number, &format!("{file}:{line} is out of order: {text}"));
                }
                [line] if in_order => last = line,
                [_] => {}
                [] => self.fault(row.number, &format!("no line of {file} has: {text}")),
                _ => self.fault(row.number, &format!("lines {found:?} of {file} have: {text}")),
            }
            anchors.push(found.first().map(|&line| Anchor { line, in_order }));
        }
        anchors
    }

    /// Notes what a row says of its lines.
    fn row(&mut self, row: &Row, c: Option<Place>, rust: Option<Place>) {
        let places: Vec<Place> = c.into_iter().chain(rust).collect();
        let known = |place: &Place, mirror: &Mirror| {
            mirror.reasons.contains_key(place)
                || places.len() == 1 && mirror.anchored.contains(place)
        };
        for (file, line) in
            places.iter().filter(|place| known(place, self)).cloned().collect::<Vec<_>>()
        {
            self.fault(row.number, &format!("{file}:{line} is in a row above, too"));
        }
        if let [place] = &places[..] {
            self.reasons.insert(place.clone(), row.why.clone());
        } else {
            self.anchored.extend(places);
        }
        let one_side = row.texts.iter().any(|text| text == "-");
        if one_side && !is_reason(&row.why) {
            self.fault(row.number, &format!("this is no reason: {:?}", row.why));
        }
    }

    /// Finds the lines of a file of which no row says anything, and counts.
    fn cover(&mut self, lines: &Lines) {
        let file = &lines.file.name;
        let place = |line: usize| (file.clone(), lines.owner[line]);
        for line in lines.numbers() {
            let mirrored = self.anchored.contains(&place(line));
            if !mirrored && !self.reasons.contains_key(&place(line)) {
                let code = &lines.code[line];
                self.faults.push(format!("{file}:{line} has no row in lines.txt: {code}"));
            }
            if file == MIRROR && !self.new.contains(&place(line)) {
                self.mirrored += usize::from(mirrored);
                self.all += 1;
            }
        }
    }
}

/// A line that a row means. Not in order are lines of another function, and
/// lines that the C has in another order: `name: text`.
#[derive(Clone, Copy)]
struct Anchor {
    line: usize,
    in_order: bool,
}

/// Whether it says something: a word or two that fit every line do not.
fn is_reason(why: &str) -> bool {
    const EMPTY: &str = " a an and c does for forkline has in is it its line needed no none not \
        of only rust that the there this to unnecessary unneeded ";
    let words = why.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_lowercase);
    words.filter(|word| !word.is_empty() && !EMPTY.contains(&format!(" {word} "))).count() > 2
}

// ---------------------------------------------------------------- the page

/// The lines of a pair, with their numbers, as the table says which are level;
/// none if it says nothing of this C.
pub fn level(pair: &Pair, c: &[(usize, String)], rust: &[(usize, String)]) -> Option<Vec<Level>> {
    let is_comment = |text: &str| text.trim_start().starts_with(['/', '*']);
    let gain = |c: &(usize, String), rust: &(usize, String)| match pair.level.get(&(c.0, rust.0)) {
        Some(gain) => *gain,
        None if is_comment(&c.1) && is_comment(&rust.1) => 0.01,
        None => 0.0,
    };
    (!pair.level.is_empty()).then(|| source::rows(source::align(c, rust, gain)))
}
