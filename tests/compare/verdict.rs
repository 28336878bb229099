//! The verdict: a row for each service, a cell for each part of it, the words
//! for what is wrong, and the exit status.

use super::cost::Figure;
use super::inject::Outcome;
use super::jail::STORMS;
use super::lesson::{self, Check, count};
use super::program::NOBODY_LISTENS;
use super::roles::{self, Roles};
use super::wire::{Exchange, Verdict, difference, line_at};
use super::{Comparison, Failure, NOT_TRIED, Side};

pub const PARTS: [&str; 6] = ["compiles", "wire", "reports", "processes", "faults", "cost"];

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Colour {
    Good,
    /// Different in a way that the README's table tells, or worth knowing.
    Note,
    Untried,
    Bad,
}

/// The verdict on one part of one service, in one sentence.
#[derive(Clone, Debug)]
pub struct Cell {
    pub part: &'static str,
    pub colour: Colour,
    pub text: String,
    /// What is wrong, in a word; empty if nothing is.
    pub word: &'static str,
    /// What to change, and where; empty if nothing is to be.
    pub advice: String,
}

pub fn cells(side: &Side) -> Vec<Cell> {
    if side.failure.is_some() {
        return PARTS.iter().map(|part| failed(part, side)).collect();
    }
    vec![
        Cell { part: "compiles", ..compiles(side) },
        Cell { part: "wire", ..wire(side) },
        Cell { part: "reports", ..reports(side) },
        Cell { part: "processes", ..processes(side) },
        Cell { part: "faults", ..faults(side) },
        Cell { part: "cost", ..cost(side) },
    ]
}

/// 0: the C differs only as the README's table says; 1: it differs otherwise;
/// 2: it does not compile, or does not listen.
pub fn exit_status(comparison: &Comparison) -> i32 {
    let failed = comparison.sides.iter().any(|side| side.failure.is_some());
    let differs = comparison.sides.iter().any(|side| !words(side).is_empty());
    if failed { 2 } else { i32::from(differs) }
}

/// What is wrong with this C, each word once.
pub fn words(side: &Side) -> Vec<&'static str> {
    let mut words: Vec<&str> = Vec::new();
    let lessons = side.lessons.iter().flatten().filter(|check| !check.good());
    let of_lessons = lessons.map(Check::word);
    for word in cells(side).iter().map(|cell| cell.word).chain(of_lessons) {
        if !word.is_empty() && !words.contains(&word) {
            words.push(word);
        }
    }
    words
}

/// The same as a reader is told it.
pub fn in_words(side: &Side) -> String {
    let failure = match &side.failure {
        Some(Failure::Compile(why) | Failure::Listen(why)) => why.lines().next(),
        None => None,
    };
    match (&words(side)[..], failure) {
        ([], _) if is_other(side) => "right, another service: report".into(),
        ([], _) => "good".into(),
        (words, None) => words.join(", "),
        (words, Some(why)) => format!("{}: {why}", words.join(", ")),
    }
}

/// It is right as a server of another kind: it reports something else.
fn is_other(side: &Side) -> bool {
    let other = |exchange: &Exchange| matches!(exchange.verdict, Verdict::Other(_));
    !side.strict && side.reports.iter().flatten().any(other)
}

pub fn cell(colour: Colour, text: impl Into<String>) -> Cell {
    Cell { part: "", colour, text: text.into(), word: "", advice: String::new() }
}

fn bad(word: &'static str, text: impl Into<String>) -> Cell {
    Cell { word, ..cell(Colour::Bad, text) }
}

impl Cell {
    /// What to change, and the line of the C where one of these calls is.
    fn advise(self, change: &str, place: Option<String>) -> Cell {
        let place = place.map_or(String::new(), |place| format!(" ({place})"));
        Cell { advice: format!("{change}{place}"), ..self }
    }
}

fn failed(part: &'static str, side: &Side) -> Cell {
    let place = |calls: &[&str]| roles::place(side.source(), calls);
    let cell = match (&side.failure, part) {
        (Some(Failure::Compile(why)), "compiles") => bad("does not compile", why),
        (Some(Failure::Listen(_)), "compiles") => compiles(side),
        (Some(Failure::Listen(why)), "wire") => bad("does not listen", why)
            .advise("look at what socket, bind and listen return", place(&["bind", "listen"])),
        _ => cell(Colour::Untried, NOT_TRIED),
    };
    Cell { part, ..cell }
}

fn compiles(side: &Side) -> Cell {
    match side.warnings.matches("warning:").count() {
        0 => cell(Colour::Good, "without a warning"),
        n => cell(Colour::Note, format!("with {}", count(n, "warning"))),
    }
}

/// Those that differ, or what is said if none does.
fn exchanges<'a>(all: &'a [Exchange], all_equal: &str) -> Result<Vec<&'a Exchange>, Cell> {
    let number = |is: fn(&Verdict) -> bool| all.iter().filter(|e| is(&e.verdict)).count();
    let differs: Vec<&Exchange> = all.iter().filter(|e| e.verdict == Verdict::Differs).collect();
    let known = number(|verdict| matches!(verdict, Verdict::Known(_)));
    match differs.len() {
        0 if known == 0 => Err(cell(Colour::Good, all_equal)),
        0 => {
            let equal = number(|verdict| *verdict == Verdict::Equal);
            let text = format!("{equal} equal, {known} different as the README's table says");
            Err(cell(Colour::Note, text))
        }
        _ => Ok(differs),
    }
}

/// The first that differs, and how many more do.
fn first_of(differs: &[&Exchange], verb: &str) -> String {
    let (first, more) = (differs[0], differs.len() - 1);
    let more = if more == 0 { String::new() } else { format!(", and {more} more") };
    format!("{}: {}{more}", first.name, difference(first, verb))
}

/// How the last of several connections has ended.
fn last(end: &str) -> &str {
    end.rsplit(", then ").next().unwrap_or(end)
}

/// What to change in a server that is gone, if that is known.
fn nobody_listens(side: &Side, cell: Cell, end: &str) -> Cell {
    if end.contains("SIGPIPE") {
        let place = roles::place(side.source(), &["send", "write", "accept"]);
        return cell.advise("ignore SIGPIPE, or send with MSG_NOSIGNAL", place);
    }
    if !end.contains("Bad file descriptor") && !end.contains("closed its listening socket") {
        return cell;
    }
    let listener = Roles::of(side.source()).listener;
    let place = listener.and_then(|name| roles::place_of_close(side.source(), &name));
    cell.advise("the parent must close the connection, not the listening socket", place)
}

fn wire(side: &Side) -> Cell {
    let all_equal = format!("all {} conversations are equal", side.wire.len());
    let differs = match exchanges(&side.wire, &all_equal) {
        Ok(differs) => differs,
        Err(cell) => return cell,
    };
    let place = |calls: &[&str]| roles::place(side.source(), calls);
    let ends = |text: &str| differs.iter().find(|exchange| exchange.c.end.contains(text));
    if let Some(exchange) = ends(STORMS[0]) {
        return bad("forks without end", last(&exchange.c.end)).advise(
            "look at what accept returns before you fork, and close the connection, not the \
             listening socket",
            place(&["accept"]),
        );
    }
    if let Some(exchange) = ends(NOBODY_LISTENS) {
        let after = side.wire.iter().position(|other| other.name == exchange.name) == Some(1);
        let name = if after { "after the first client" } else { &exchange.name };
        let end = last(&exchange.c.end);
        return nobody_listens(side, bad("differs", format!("{name}: {end}")), end);
    }
    let text = first_of(&differs, "answers");
    if differs.iter().all(|exchange| exchange.only_left_open()) {
        let change = "close the connection in the parent and in the child";
        return bad("descriptor", text).advise(change, place(&["fork", "accept"]));
    }
    const SENDS: [&str; 7] =
        ["rio_writen", "writen", "fputs", "fwrite", "fprintf", "send", "write"];
    bad("differs", text).advise("send back what was received, all of it", place(&SENDS))
}

fn reports(side: &Side) -> Cell {
    let all = match &side.reports {
        Err(why) => return cell(Colour::Untried, why),
        Ok(all) => all,
    };
    let wrong = all.iter().any(|exchange| exchange.verdict == Verdict::Differs);
    let other = all.iter().find_map(|exchange| match exchange.verdict {
        Verdict::Other(how) if !wrong => Some((exchange, how)),
        _ => None,
    });
    let place = || roles::place(side.source(), &["printf", "fprintf"]);
    if let Some((exchange, how)) = other {
        let text = format!("{how}: {}", both_lines(exchange));
        let change = "report each line on standard output with these words";
        return match side.strict {
            true => bad("report", text).advise(change, place()),
            false => cell(Colour::Note, text),
        };
    }
    let all_equal = match side.service {
        "echo" => "each line is reported, with its length",
        _ => "none, as it should be",
    };
    match exchanges(all, all_equal) {
        Err(cell) => cell,
        Ok(differs) => {
            let change = "report each line with the number of its bytes, the newline too";
            bad("report", first_of(&differs, "reports")).advise(change, place())
        }
    }
}

/// What a C of another kind reports first, and what this service does.
fn both_lines(exchange: &Exchange) -> String {
    let line = |bytes: &[u8]| match bytes {
        [] => "nothing".into(),
        _ => format!("“{}”", line_at(bytes, None)),
    };
    let (theirs, here) = (line(&exchange.c.bytes), line(&exchange.forkline.bytes));
    format!("{theirs}, this service {here}")
}

fn processes(side: &Side) -> Cell {
    let checks = match &side.lessons {
        Err(why) => return cell(Colour::Untried, why),
        Ok(checks) => checks,
    };
    let red: Vec<&Check> = checks.iter().filter(|check| !check.good()).collect();
    let Some(first) = red.first() else { return all_passed(checks) };
    let mut text = format!("{}: {}", first.lesson.title, first.c.text);
    if red.len() > 1 {
        text += &format!(", and {}", count(red.len() - 1, "more check"));
    }
    let cell = bad(first.word(), text);
    match first.c.made {
        true => cell.advise(first.lesson.change, roles::place(side.source(), first.lesson.calls)),
        false => cell,
    }
}

fn all_passed(checks: &[Check]) -> Cell {
    match lesson::number(checks).saturating_sub(checks.len()) {
        0 => cell(Colour::Good, format!("all {} checks are passed", checks.len())),
        left => cell(Colour::Untried, format!("there was no time for {}", count(left, "check"))),
    }
}

fn faults(side: &Side) -> Cell {
    match &side.faults {
        Err(why) => cell(Colour::Untried, why),
        Ok(table) if table.tried == 0 => cell(Colour::Untried, "not tried: no time was left"),
        Ok(table) => {
            let (c, forkline) = (table.bad(|row| &row.c), table.bad(|row| &row.forkline));
            let worst = table.rows.first().filter(|row| row.c.rank > Outcome::ONE_ENDS);
            let mut text = format!(
                "{c} of {} faults hurt more than one connection, with forkline {forkline}",
                table.tried
            );
            if let Some(row) = worst {
                text += &format!("; worst: {} {}: {}", row.call, row.errnos[0], row.c.text);
            }
            if table.left > 0 {
                text += &format!("; no time for {} more", table.left);
            }
            cell(if worst.is_none() { Colour::Good } else { Colour::Note }, text)
        }
    }
}

fn cost(side: &Side) -> Cell {
    let figures = match &side.cost {
        Err(why) => return cell(Colour::Untried, why),
        Ok(figures) => figures,
    };
    let ratio = |part: &str| match figures.iter().find(|figure| figure.name.starts_with(part)) {
        None => "not measured".into(),
        Some(figure) if figure.is_noise() => "no difference".into(),
        Some(figure) => format!("{:.2} of the C's", Figure::ratio(figure)),
    };
    let (cpu, lines) = (ratio("CPU"), ratio("lines"));
    cell(Colour::Note, format!("forkline's CPU for a connection: {cpu}; lines a second: {lines}"))
}

impl Comparison {
    /// What a terminal is told: at most 25 lines.
    pub fn summary(&self) -> String {
        let mut lines: Vec<String> = self.mirror.faults.iter().take(2).cloned().collect();
        lines.push(self.mirror.in_words());
        for side in &self.sides {
            lines.push(format!("{}: {}{}", side.service, side.path_name(), called(side)));
            for cell in cells(side).iter().filter(|cell| cell.text != NOT_TRIED) {
                let sign = match cell.colour {
                    Colour::Good => "ok ",
                    Colour::Note | Colour::Untried => "   ",
                    Colour::Bad => "BAD",
                };
                let mut rows = cell.text.lines();
                lines.push(format!(
                    "  {sign} {:<9} {}",
                    cell.part,
                    rows.next().unwrap_or_default()
                ));
                lines.extend(rows.take(2).map(|row| format!("      {:9} {row}", "")));
                if !cell.advice.is_empty() {
                    lines.push(format!("      {:9} change: {}", "", cell.advice));
                }
            }
        }
        let slow =
            if self.seconds > MINUTE { ", longer than a minute: the machine is busy" } else { "" };
        lines.push(format!("{} ({:.0} s{slow})", self.conclusion(), self.seconds));
        lines.join("\n")
    }

    /// `verdict: echo zombie; rot13 good`
    fn conclusion(&self) -> String {
        let verdict = |side: &Side| match &in_words(side)[..] {
            "good" => format!("{} differs only as the README's table says", side.service),
            words => format!("{} {words}", side.service),
        };
        format!("verdict: {}", self.sides.iter().map(verdict).collect::<Vec<_>>().join("; "))
    }
}

/// How long `make compare` may take, in seconds.
const MINUTE: f64 = 60.0;

/// How it is started, if that is known.
pub fn called(side: &Side) -> String {
    match side.called.is_empty() {
        true => String::new(),
        false => format!(", called as: {}", side.called),
    }
}
