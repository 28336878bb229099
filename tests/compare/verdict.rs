//! The verdict: a row for each service, a cell for each part of it, the words
//! for what is wrong, and the exit status.

use super::inject::Outcome;
use super::lesson::{Check, LESSONS, count};
use super::wire::{Exchange, Verdict, difference};
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
}

pub fn cells(side: &Side) -> Vec<Cell> {
    if side.failure.is_some() {
        return PARTS.iter().map(|part| failed(part, side)).collect();
    }
    vec![
        Cell { part: "compiles", ..compiles(side) },
        Cell { part: "wire", ..wire(&side.wire) },
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

pub fn cell(colour: Colour, text: impl Into<String>) -> Cell {
    Cell { part: "", colour, text: text.into(), word: "" }
}

fn bad(word: &'static str, text: impl Into<String>) -> Cell {
    Cell { word, ..cell(Colour::Bad, text) }
}

fn failed(part: &'static str, side: &Side) -> Cell {
    let cell = match (&side.failure, part) {
        (Some(Failure::Compile(why)), "compiles") => bad("does not compile", why),
        (Some(Failure::Listen(_)), "compiles") => compiles(side),
        (Some(Failure::Listen(why)), "wire") => bad("does not listen", why),
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

/// The first that differs, and how many more do.
fn exchanges(exchanges: &[Exchange], word: &'static str, all_equal: &str) -> Cell {
    let number = |is: fn(&Verdict) -> bool| exchanges.iter().filter(|e| is(&e.verdict)).count();
    let differs: Vec<&Exchange> =
        exchanges.iter().filter(|e| e.verdict == Verdict::Differs).collect();
    let known = number(|verdict| matches!(verdict, Verdict::Known(_)));
    match &differs[..] {
        [] if known == 0 => cell(Colour::Good, all_equal),
        [] => {
            let equal = number(|verdict| *verdict == Verdict::Equal);
            let text = format!("{equal} equal, {known} different as the README's table says");
            cell(Colour::Note, text)
        }
        [first, rest @ ..] => {
            let mut text = format!("{}: {}", first.name, difference(first));
            if !rest.is_empty() {
                text += &format!(", and {} more", rest.len());
            }
            let left_open = differs.iter().all(|exchange| exchange.only_left_open());
            bad(if left_open { "descriptor" } else { word }, text)
        }
    }
}

fn wire(all: &[Exchange]) -> Cell {
    exchanges(all, "differs", &format!("all {} conversations are equal", all.len()))
}

fn reports(side: &Side) -> Cell {
    let all = match &side.reports {
        Err(why) => return bad("report", why),
        Ok(all) => all,
    };
    let missing = all.iter().find(|e| e.c.bytes.is_empty() && e.verdict == Verdict::Differs);
    match (missing, side.service) {
        (Some(e), _) => bad("report", format!("{}: it reports nothing", e.name)),
        (None, "echo") => exchanges(all, "report", "each line is reported, with its length"),
        _ => exchanges(all, "report", "none, as it should be"),
    }
}

fn processes(side: &Side) -> Cell {
    let checks = match &side.lessons {
        Err(why) => return cell(Colour::Untried, why),
        Ok(checks) => checks,
    };
    let red: Vec<&Check> = checks.iter().filter(|check| !check.good()).collect();
    let Some(first) = red.first() else {
        return match LESSONS.len() - checks.len() {
            0 => cell(Colour::Good, format!("all {} checks are passed", checks.len())),
            left => bad("differs", format!("too slow: no time for {}", count(left, "check"))),
        };
    };
    let (seen, who) = match first.c.good {
        true => (&first.forkline, "forkline: "),
        false => (&first.c, ""),
    };
    let mut text = format!("{who}{}: {}", first.lesson.title, seen.text);
    if red.len() > 1 {
        text += &format!(", and {}", count(red.len() - 1, "more check"));
    }
    bad(first.word(), text)
}

fn faults(side: &Side) -> Cell {
    match &side.faults {
        Err(why) => cell(Colour::Untried, why),
        Ok(table) if table.tried == 0 => cell(Colour::Untried, "not tried: no time was left"),
        Ok(table) => {
            let (c, forkline) = (table.bad(|row| &row.c), table.bad(|row| &row.forkline));
            let worst = table.rows.first().filter(|row| row.c.rank >= Outcome::ZOMBIE);
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
            cell(if c == 0 { Colour::Good } else { Colour::Note }, text)
        }
    }
}

fn cost(side: &Side) -> Cell {
    match &side.cost {
        Err(why) => cell(Colour::Untried, why),
        Ok(figures) => {
            let ratio = |part: &str| {
                let figure = figures.iter().find(|figure| figure.name.starts_with(part));
                figure.map_or(f64::NAN, |figure| figure.ratio())
            };
            let text = format!(
                "forkline takes {:.2} of the C's CPU for a connection and answers {:.2} times its lines",
                ratio("CPU"),
                ratio("lines")
            );
            cell(Colour::Good, text)
        }
    }
}

impl Comparison {
    /// What a terminal is told: at most 25 lines.
    pub fn summary(&self) -> String {
        let mut lines: Vec<String> = self.mirror.faults.iter().take(2).cloned().collect();
        lines.push(self.mirror.in_words());
        for side in &self.sides {
            lines.push(format!("{}: {}", side.service, side.path.display()));
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
                lines.extend(rows.take(3).map(|row| format!("      {:9} {row}", "")));
            }
        }
        lines.push(format!("{} ({:.0} s)", self.conclusion(), self.seconds));
        lines.join("\n")
    }

    /// `verdict: echo zombie, rot13 as it should be`
    fn conclusion(&self) -> String {
        let verdict = |side: &Side| match &words(side)[..] {
            [] => format!("{} differs only as the README's table says", side.service),
            words => format!("{} {}", side.service, words.join(", ")),
        };
        format!("verdict: {}", self.sides.iter().map(verdict).collect::<Vec<_>>().join("; "))
    }
}
