//! The comparison as one HTML file that asks for nothing else: its style is in
//! it, it has no script, and its policy forbids every request. It begins with
//! the verdict; what is long is folded.

use super::calls::{self, Call, Trace};
use super::cost::{Figure, median};
use super::exercise::{EXERCISES, Exercise};
use super::inject::{Outcome, Process, Row as Fault};
use super::lines;
use super::picture;
use super::roles;
use super::source::{self, File, Pair, escape};
use super::verdict::{self, Cell, Colour, PARTS};
use super::wire::{self, Answer, Exchange, Row, Verdict, difference};
use super::{Comparison, Side};
use std::collections::BTreeMap;
use std::fmt::Write;

pub fn html(comparison: &Comparison) -> String {
    let each = |part: fn(&Side) -> String| in_each(comparison, part);
    let parts = [
        ("verdict", "Verdict", verdict_part(comparison)),
        ("source", "Source", source_part(comparison)),
        (
            "wire",
            "Wire",
            WIRE_LEAD.to_owned() + &in_each(comparison, |side| exchanges(&side.wire, comparison)),
        ),
        (
            "reports",
            "Reports",
            REPORTS_LEAD.to_owned() + &in_each(comparison, |side| reports(side, comparison)),
        ),
        ("processes", "Processes", PROCESSES_LEAD.to_owned() + &each(lessons)),
        ("pictures", "Pictures", PICTURES_LEAD.to_owned() + &each(pictures)),
        ("faults", "Faults", FAULTS_LEAD.to_owned() + &each(faults)),
        ("calls", "Calls", calls_part(comparison)),
        ("cost", "Cost", cost_part(comparison)),
    ];
    let (mut nav, mut body) = (String::new(), String::new());
    for (id, title, part) in parts {
        let _ = write!(nav, "<a href=#{id}>{title}</a>");
        let _ = write!(body, "<section class=part id={id}><h2>{title}</h2>{part}</section>");
    }
    let names: Vec<String> = comparison
        .sides
        .iter()
        .filter_map(|side| Some(code(&side.source().first()?.name)))
        .collect();
    format!(
        "{}<a class=skip href=#verdict>To the verdict</a>\
<header><h1>forkline beside the C</h1><p>What is the same and what is not: {} on the left, \
<code>src/main.rs</code> on the right.</p></header><nav aria-label=Parts>{nav}</nav>\
<main>{body}</main></body></html>\n",
        head("forkline beside the C"),
        names.join(" and "),
    )
}

/// A page up to its body: its style is in it, and it may ask for nothing.
pub fn head(title: &str) -> String {
    format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8>\
<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; \
style-src 'unsafe-inline'; img-src data:\">\
<meta name=viewport content=\"width=device-width, initial-scale=1\">\
<meta name=color-scheme content=\"light dark\"><link rel=icon href=data:,>\
<title>{title}</title><style>{}</style></head><body>",
        include_str!("page.css"),
    )
}

/// A heading and a part for each service that could be judged.
fn in_each(comparison: &Comparison, part: impl Fn(&Side) -> String) -> String {
    let section = |side: &Side| {
        let html = match side.failure {
            Some(_) => "<p class=lead>Not tried: see <a href=#verdict>the verdict</a>.</p>".into(),
            None => part(side),
        };
        format!("<h3>{}</h3>{html}", side.service)
    };
    comparison.sides.iter().map(section).collect()
}

/// Text in which `` ` `` marks code, and `‹›` what differs.
fn words(text: &str) -> String {
    let pieces = text.split('`').enumerate();
    let html: String =
        pieces.map(|(n, piece)| if n % 2 == 1 { code(piece) } else { escape(piece) }).collect();
    marked(&html)
}

fn marked(html: &str) -> String {
    html.replace('‹', "<mark>").replace('›', "</mark>")
}

fn code(text: &str) -> String {
    format!("<code>{}</code>", escape(text))
}

/// What could not be had, with the compiler's or the program's words.
fn failure(why: &str) -> String {
    format!("<pre class=failure>{}</pre>", escape(why))
}

/// What is folded, with its summary.
fn folded(open: bool, summary: &str, html: &str) -> String {
    let open = if open { " open" } else { "" };
    format!("<details{open}><summary>{summary}</summary>{html}</details>")
}

// ---------------------------------------------------------------- verdict

fn verdict_part(comparison: &Comparison) -> String {
    let mut html = String::from("<table class=verdict><thead><tr><th>");
    for part in PARTS {
        let _ = write!(html, "<th>{part}");
    }
    html += "</thead><tbody>";
    for side in &comparison.sides {
        let _ = write!(html, "<tr><th>{} <br>{}", side.service, code(&side.path_name()));
        if !side.called.is_empty() {
            let _ = write!(html, "<span class=called>called as: {}</span>", code(&side.called));
        }
        for cell in verdict::cells(side) {
            html += &cell_html(&cell);
        }
    }
    html += "</tbody></table>";
    for side in comparison.sides.iter().filter(|side| !side.warnings.is_empty()) {
        let warnings = failure(&side.warnings);
        html += &folded(
            false,
            &format!("What the compiler warns of in {}", code(&side.path_name())),
            &warnings,
        );
    }
    html
}

/// A colour's name in the style sheet, and its sign.
pub fn sign(colour: Colour) -> (&'static str, &'static str) {
    match colour {
        Colour::Good => ("good", "✓"),
        Colour::Note => ("note", "≈"),
        Colour::Untried => ("untried", "–"),
        Colour::Bad => ("bad", "✗"),
    }
}

fn cell_html(cell: &Cell) -> String {
    let (class, sign) = sign(cell.colour);
    let part = cell.part;
    let word = if cell.word.is_empty() { String::new() } else { format!("<b>{}</b> ", cell.word) };
    let mut lines = cell.text.lines();
    // What a program says may have any sign in it.
    let first = marked(&escape(lines.next().unwrap_or_default()));
    let more: Vec<&str> = lines.collect();
    let more = if more.is_empty() { String::new() } else { failure(&more.join("\n")) };
    let text = match part {
        "compiles" => format!("<span>{word}{first}</span>"),
        _ => format!("<a href=#{part}>{word}{first}</a>"),
    };
    let advice = match cell.advice.is_empty() {
        true => String::new(),
        false => format!("<p class=advice>Change: {}</p>", escape(&cell.advice)),
    };
    format!(
        "<td class={class} data-part={part}><span class=sign>{sign}</span> {text}{advice}{more}"
    )
}

// ---------------------------------------------------------------- source

fn source_part(comparison: &Comparison) -> String {
    let mut html = String::from(SOURCE_LEAD);
    for side in &comparison.sides {
        let _ = write!(html, "<h3>{}</h3>", side.service);
        match &side.files {
            Err(why) => html += &failure(why),
            Ok(files) => {
                html += &side_lead(side);
                let open = served_by(&side.pairs);
                for n in 0..side.pairs.len() {
                    let html_of = |is_open| {
                        pair_html(&side.pairs, n, files, &comparison.rust, side.service, is_open)
                    };
                    html += &html_of(open == Some(n));
                }
            }
        }
    }
    html += "<h3>Only in forkline</h3>";
    for n in 0..comparison.rust_alone.len() {
        html += &pair_html(&comparison.rust_alone, n, &[], &comparison.rust, "rust", false);
    }
    html
}

const SOURCE_LEAD: &str = "<p class=lead>Each function of the C beside its mirror. Lines that say \
the same are level, and have no tint. A tinted line has no line on the other side that says the \
same; the reason stands below.</p><p class=lead>To do an exercise, copy the project’s \
<code>tests/c/echo.c</code> (or <code>rot13.c</code>) to <code>copy.c</code>, change the copy, and \
run <code>make compare ECHO_C=copy.c</code> (or <code>ROT13_C=copy.c</code>).</p>\
<input type=checkbox id=all><label for=all>open all</label>";

/// The pair of the function that serves a client.
fn served_by(pairs: &[Pair]) -> Option<usize> {
    let serves = |pair: &Pair| {
        let named = pair.rust.iter().any(|(_, name)| name == "echo" || name == "child_run");
        named && !pair.c.is_empty()
    };
    pairs.iter().position(serves)
}

fn side_lead(side: &Side) -> String {
    let mut text = String::new();
    let alone: Vec<String> = side
        .pairs
        .iter()
        .filter(|pair| pair.rust.is_empty())
        .map(|pair| pair.c.join(" "))
        .collect();
    if !alone.is_empty() {
        let _ = write!(text, "Without a mirror: `{}`. ", alone.join("`, `"));
    }
    if !side.is_ours() {
        text += "Which lines of this C are level is a guess, made by the names and calls in them.";
    }
    if text.is_empty() { text } else { format!("<p class=lead>{}</p>", words(&text)) }
}

/// The name of a pair in the page's addresses.
pub fn id(pair: &Pair, prefix: &str) -> String {
    let name = pair.c.first().or(pair.rust.first().map(|(_, name)| name));
    format!("{prefix}-{}", name.map_or("", String::as_str))
}

/// A line of a file: its number, its text, its HTML.
struct Line<'f> {
    number: usize,
    text: &'f str,
    html: String,
}

/// The lines of these items, and their places: `main.rs:97 echo`.
fn lines<'f>(file: &'f File, names: &[String]) -> (Vec<Line<'f>>, Vec<String>) {
    let coloured = source::coloured(&file.text, file.lang);
    let texts: Vec<&str> = file.text.split('\n').collect();
    let (mut lines, mut places) = (Vec::new(), Vec::new());
    for item in names.iter().filter_map(|name| file.item(name)) {
        places.push(format!("{}:{} <b>{}</b>", escape(&file.name), item.line, escape(&item.name)));
        for number in item.first..=item.last {
            let (text, html) = (texts[number - 1], coloured[number - 1].clone());
            lines.push(Line { number, text, html });
        }
    }
    (lines, places)
}

/// Number `n` of `pairs`; all of them say which names mean the same.
fn pair_html(
    pairs: &[Pair],
    n: usize,
    c_files: &[File],
    rust: &[File],
    prefix: &str,
    open: bool,
) -> String {
    let pair = &pairs[n];
    let (mut c, mut c_places) = (Vec::new(), Vec::new());
    for name in &pair.c {
        let file = c_files.iter().find(|file| file.item(name).is_some());
        let (lines, places) =
            file.map(|file| lines(file, std::slice::from_ref(name))).unwrap_or_default();
        c.extend(lines);
        c_places.extend(places);
    }
    let (mut r, mut r_places) = (Vec::new(), Vec::new());
    for file in rust {
        let names = pair.rust.iter().filter(|(name, _)| *name == file.name);
        let names: Vec<String> = names.map(|(_, name)| name.clone()).collect();
        let (lines, places) = lines(file, &names);
        r.extend(lines);
        r_places.extend(places);
    }
    let rows = level(pairs, pair, &c, &r);

    let place = |places: &[String], none: &str| match places {
        [] => format!("<span class=none>{none}</span>"),
        _ => places.iter().map(|place| format!("<code>{place}</code>")).collect(),
    };
    let (left, right) = (place(&c_places, "not in the C"), place(&r_places, "no mirror"));
    let why =
        if pair.why.is_empty() { "" } else { &format!("<p class=why>{}</p>", words(&pair.why)) };
    let id = id(pair, prefix);
    let open = if open { " open" } else { "" };
    format!(
        "<details class=pair{open}><summary><span>{left}</span><span>{right}</span></summary>\
<div id=\"{}\">{why}<div class=both style=\"--rows:{}\">{}{}</div>{}{}</div></details>",
        escape(&id),
        rows.len().max(1),
        column(&c, rows.iter().map(|row| (row.c, row.same)), "c", pair),
        column(&r, rows.iter().map(|row| (row.rust, row.same)), "rust", pair),
        reasons(&pair.reasons[0], &c, &pair.file) + &reasons(&pair.reasons[1], &r, "main.rs"),
        exercises(prefix, &pair.c),
    )
}

/// As the table says; for a C of the reader's own, a guess by the words.
fn level(pairs: &[Pair], pair: &Pair, c: &[Line], rust: &[Line]) -> Vec<source::Level> {
    let numbered = |lines: &[Line]| -> Vec<(usize, String)> {
        lines.iter().map(|line| (line.number, line.text.to_owned())).collect()
    };
    let texts =
        |lines: &[Line]| -> Vec<String> { lines.iter().map(|line| line.text.to_owned()).collect() };
    lines::level(pair, &numbered(c), &numbered(rust))
        .unwrap_or_else(|| source::level(&texts(c), &texts(rust), pairs))
}

/// One language's lines of a pair, each in the row where it belongs.
fn column(
    lines: &[Line],
    rows: impl Iterator<Item = (Option<usize>, bool)>,
    class: &str,
    pair: &Pair,
) -> String {
    let reasons = &pair.reasons[usize::from(class == "rust")];
    let mut html = format!("<pre class=\"side {class}\">");
    for (row, (index, same)) in rows.enumerate() {
        let Some(line) = index.map(|index| &lines[index]) else { continue };
        let indent = line.text.chars().take_while(|c| *c == ' ').count();
        let says = line.text.contains(|c: char| c.is_alphanumeric());
        let same = if pair.level.is_empty() { same } else { !reasons.contains_key(&line.number) };
        let alone = if says && !same { " class=alone" } else { "" };
        let _ = write!(
            html,
            "<code{alone} style=\"grid-row:{};--in:{}\" data-n={}>{}\n</code>",
            row + 1,
            indent + 4,
            line.number,
            line.html
        );
    }
    html + "</pre>"
}

/// Why some of these lines have none on the other side. Neighbours share a reason.
fn reasons(reasons: &BTreeMap<usize, String>, lines: &[Line], file: &str) -> String {
    let alone: Vec<(usize, &String)> =
        lines.iter().filter_map(|line| Some((line.number, reasons.get(&line.number)?))).collect();
    let html = |same: &[(usize, &String)]| {
        let numbers: Vec<String> = same.iter().map(|(number, _)| number.to_string()).collect();
        let places = code(&format!("{file}:{}", numbers.join(", ")));
        format!("<p class=why>{places} {}</p>", words(same[0].1))
    };
    alone.chunk_by(|a, b| a.1 == b.1).map(html).collect()
}

/// The exercises of these items of the C.
fn exercises(service: &str, items: &[String]) -> String {
    let of_pair = |exercise: &&Exercise| {
        exercise.service == service && items.iter().any(|item| item == exercise.item)
    };
    let list: String = EXERCISES.iter().filter(of_pair).map(exercise_html).collect();
    if list.is_empty() { list } else { format!("<ul class=exercises>{list}</ul>") }
}

fn exercise_html(exercise: &Exercise) -> String {
    let service = exercise.service;
    let lesson = super::lesson::LESSONS.iter().find(|lesson| lesson.id == exercise.red);
    let (part, name) = match lesson {
        Some(lesson) => ("processes", lesson.title),
        None if exercise.red == "through a terminal" => ("reports", "through a terminal"),
        None => ("wire", exercise.red),
    };
    let answer = format!(
        "<p>“{}” of {service}, among the <a href=#{part}>{part}</a>. {}</p>",
        escape(name),
        words(exercise.why)
    );
    let task = format!("Exercise: {} Which check turns red?", words(exercise.task));
    format!("<li>{}", folded(false, &task, &answer))
}

// ---------------------------------------------------------------- wire

const WIRE_LEAD: &str = "<p class=lead>The same bytes to both, on connections of their own. \
<span class=nl>↵</span> is a newline. What is no text is shown in hexadecimal.</p>";
const REPORTS_LEAD: &str = "<p class=lead>What each writes to standard output. To a terminal the C \
library writes line by line; into a pipe it waits for a full buffer, and <code>_exit</code> throws \
that away.</p>";

fn reports(side: &Side, comparison: &Comparison) -> String {
    match &side.reports {
        Err(why) => failure(why),
        Ok(reports) => exchanges(reports, comparison),
    }
}

/// The first that differs is open.
fn exchanges(exchanges: &[Exchange], comparison: &Comparison) -> String {
    let first = exchanges.iter().position(|exchange| exchange.verdict == Verdict::Differs);
    let html = |(n, exchange)| exchange_html(exchange, first == Some(n), &comparison.differences);
    exchanges.iter().enumerate().map(html).collect()
}

fn exchange_html(exchange: &Exchange, open: bool, differences: &[(String, String)]) -> String {
    let (c, forkline) = (&exchange.c, &exchange.forkline);
    let at = wire::differs_at(&c.bytes, &forkline.bytes);
    let (class, badge, why) = match exchange.verdict {
        Verdict::Equal => ("equal", "equal", String::new()),
        Verdict::Known(key) => {
            let row = differences.iter().find(|(c, _)| c.starts_with(key));
            let why = row.map(|(c, forkline)| {
                format!("<b>The C:</b> {}. <b>forkline:</b> {}.", words(c), words(forkline))
            });
            ("known", "different on purpose", why.unwrap_or_else(|| words(key)))
        }
        Verdict::Other(how) => ("known", "another service", escape(how)),
        Verdict::Differs => {
            ("differs", "different", marked(&escape(&difference(exchange, "gives"))))
        }
    };
    let why = if why.is_empty() { why } else { format!("<p class=why>{why}</p>") };
    let mut dumps = dump("sent", &exchange.sent, None, "");
    if exchange.verdict == Verdict::Equal {
        dumps += &dump("both gave", &c.bytes, None, &c.end);
    } else {
        let gave = |title: &str, answer: &Answer| dump(title, &answer.bytes, at, &answer.end);
        dumps += &(gave("the C gave", c) + &gave("forkline gave", forkline));
    }
    let open = if open { " open" } else { "" };
    format!(
        "<details class=\"exchange {class}\"{open}><summary><span>{}</span> <span class=badge>{badge}\
</span></summary>{why}<div class=dumps>{dumps}</div></details>",
        escape(&exchange.name)
    )
}

fn dump(title: &str, bytes: &[u8], at: Option<usize>, end: &str) -> String {
    let mut html = format!("<figure><figcaption>{title} <span>{}", number(bytes.len()));
    html += if bytes.len() == 1 { " byte" } else { " bytes" };
    if !end.is_empty() {
        let _ = write!(html, ", {}", escape(end));
    }
    html += "</span></figcaption><pre class=dump>";
    html += &match wire::is_text(bytes) {
        true => text_rows(bytes, at),
        false => hex_rows(bytes, at),
    };
    html + "</pre></figure>"
}

/// Text as text. Long lines and long texts are shown in part.
fn text_rows(bytes: &[u8], at: Option<usize>) -> String {
    let mut html = String::new();
    for row in wire::text(bytes, at) {
        match row {
            Row::Gap(n) => {
                // Of whole lines, or of a part of one.
                let lines = html.is_empty() || html.ends_with('\n');
                let _ = write!(html, "<span class=gap>… {} bytes more …</span>", number(n));
                html += if lines { "\n" } else { "" };
            }
            Row::Bytes(offset, bytes) => {
                for (n, &byte) in bytes.iter().enumerate() {
                    html += &match at {
                        Some(at) if offset + n >= at => format!("<mark>{}</mark>", glyph(byte)),
                        _ => glyph(byte),
                    };
                }
                html += if bytes.ends_with(b"\n") { "\n" } else { "" };
            }
        }
    }
    html
}

fn hex_rows(bytes: &[u8], at: Option<usize>) -> String {
    let mut html = String::new();
    for row in wire::dump(bytes, at) {
        let (offset, bytes) = match row {
            Row::Gap(n) => {
                let _ = writeln!(html, "<span class=gap>      {} bytes more</span>", number(n));
                continue;
            }
            Row::Bytes(offset, bytes) => (offset, bytes),
        };
        let _ = write!(html, "<span class=offset>{offset:04x}</span>  ");
        let mark = |n: usize, text: String| match at {
            Some(at) if offset + n >= at => format!("<mark>{text}</mark>"),
            _ => text,
        };
        for n in 0..8 {
            let text = bytes.get(n).map_or("  ".into(), |byte| mark(n, format!("{byte:02x}")));
            html += &text;
            html.push(' ');
        }
        html.push(' ');
        for (n, &byte) in bytes.iter().enumerate() {
            html += &mark(n, glyph(byte));
        }
        html.push('\n');
    }
    html
}

fn glyph(byte: u8) -> String {
    match byte {
        b'\n' => "<span class=nl>↵</span>".into(),
        b' '..=b'~' => escape(&char::from(byte).to_string()),
        _ => "<span class=nl>·</span>".into(),
    }
}

/// With commas at the thousands.
fn number(n: usize) -> String {
    match n {
        0..1000 => n.to_string(),
        _ => format!("{},{:03}", number(n / 1000), n % 1000),
    }
}

// ---------------------------------------------------------------- processes

const PROCESSES_LEAD: &str = "<p class=lead>The two lessons of both C texts, reap your children and \
close what you do not need, and what a process for each connection is good for.</p>";
const PICTURES_LEAD: &str = "<p class=lead>Who holds which socket, at four moments, as the traced \
calls say. What is still open at the end and should not be is red.</p>";

fn lessons(side: &Side) -> String {
    let checks = match &side.lessons {
        Err(why) => return failure(why),
        Ok(checks) => checks,
    };
    let mut html = String::from(
        "<table class=lessons><thead><tr><th>check<th>the C<th>forkline<th>the lesson</thead><tbody>",
    );
    for check in checks {
        let lesson = check.lesson;
        let _ = write!(html, "<tr><th>{}", escape(lesson.title));
        for (seen, who) in [(Some(&check.c), "the C"), (check.forkline.as_ref(), "forkline")] {
            let (class, sign, text) = match seen {
                None => ("untried", "–", "not tried"),
                Some(seen) if seen.good => ("good", "✓", &*seen.text),
                Some(seen) => ("bad", "✗", &*seen.text),
            };
            let text = escape(text);
            let _ = write!(
                html,
                "<td class={class} data-who=\"{who}\"><span class=sign>{sign}</span> {text}"
            );
        }
        let _ = write!(html, "<td class=lesson>{}", escape(lesson.sentence));
        if !check.good() && check.c.made {
            let place = roles::place(side.source(), lesson.calls)
                .map_or(String::new(), |place| format!(" ({})", code(&place)));
            let _ = write!(html, "<p class=advice>Change: {}{place}</p>", escape(lesson.change));
        }
    }
    html + "</tbody></table>"
}

fn pictures(side: &Side) -> String {
    let (c, forkline) = match &side.calls {
        Err(why) => return failure(why),
        Ok(calls) => calls,
    };
    let (name, ours) = (side.path_name(), "forkline".to_owned());
    let (of_c, of_forkline) = (picture::moments(c), picture::moments(forkline));
    if of_c == of_forkline {
        return pictures_of(&format!("{name}, and forkline just the same"), of_c);
    }
    pictures_of(&name, of_c) + &pictures_of(&ours, of_forkline)
}

fn pictures_of(name: &str, moments: Option<[picture::Moment; 4]>) -> String {
    let Some(moments) = moments else {
        return failure(&format!("{name}: no child was forked for the connection"));
    };
    let mut html = format!("<figure class=pictures><figcaption>{}</figcaption>", escape(name));
    for (n, moment) in moments.iter().enumerate() {
        let (svg, title) = (picture::svg(moment, n), picture::MOMENTS[n]);
        let _ = write!(html, "<div><p>{}. {title}</p>{svg}</div>", n + 1);
    }
    html + "</figure>"
}

// ---------------------------------------------------------------- faults

const FAULTS_LEAD: &str = "<p class=lead>Every call of the C that can fail, with the errors that a \
server can meet, at its first and its second time. Three clients then send three lines each. Worst \
first.</p>";

fn faults(side: &Side) -> String {
    let table = match &side.faults {
        Err(why) => return failure(why),
        Ok(table) => table,
    };
    let hurts = |row: &&Fault| row.c.rank.max(row.forkline.rank) >= Outcome::ZOMBIE;
    let (bad, rest): (Vec<&Fault>, Vec<&Fault>) = table.rows.iter().partition(hurts);
    let (n, left) = (bad.iter().map(|row| row.faults()).sum::<usize>(), table.left);
    let mut html = fault_rows(&bad);
    let others = format!(
        "The other {} of {}, in which at most that connection ends",
        table.tried - n,
        table.tried
    );
    html += &folded(false, &others, &fault_rows(&rest));
    if left > 0 {
        let _ = write!(html, "<p class=lead>There was no time for {left} more.</p>");
    }
    html
}

fn fault_rows(rows: &[&Fault]) -> String {
    let mut html = String::from(
        "<table class=faults><thead><tr><th>call<th>error<th>the C<th>forkline</thead><tbody>",
    );
    for row in rows {
        let process = if row.process == Process::Child { "child" } else { "parent" };
        let time = match row.times[..] {
            [1] => "first time",
            [_] => "second time",
            _ => "both times",
        };
        let _ = write!(
            html,
            "<tr><th><code>{}</code> <span>{process}, {time}</span><td class=errnos>{}",
            row.call,
            row.errnos.join(" ")
        );
        for (outcome, who) in [(&row.c, "the C"), (&row.forkline, "forkline")] {
            let class = match outcome.rank {
                Outcome::GOES_ON => "good",
                1..Outcome::ZOMBIE => "note",
                _ => "bad",
            };
            let _ = write!(html, "<td class={class} data-who=\"{who}\">{}", escape(&outcome.text));
        }
    }
    html + "</tbody></table>"
}

// ---------------------------------------------------------------- calls

fn calls_part(comparison: &Comparison) -> String {
    let said: String = calls::LINES.iter().map(|line| code(line.trim_end()) + " ").collect();
    let lead = format!(
        "<p class=lead>One conversation with each, as strace saw it: the client says {said}and \
leaves. A tinted call is one that only the C, or only forkline, makes there.</p>"
    );
    lead + &in_each(comparison, |side| match &side.calls {
        Err(why) => failure(why),
        Ok((c, forkline)) => calls_html(c, forkline),
    })
}

fn calls_html(c: &Trace, forkline: &Trace) -> String {
    let ([c0, c1, c2], [f0, f1, f2]) = (c.counts(), forkline.counts());
    let total = |[a, b, c]: [usize; 3]| a + b + c;
    let level = format!(
        "<div class=traces>{}{}</div>",
        trace_html("parent", &c.parent, &forkline.parent),
        trace_html("child", &c.child, &forkline.child),
    );
    format!(
        "<table class=counts><thead><tr><th>calls<th>the C<th>forkline</thead><tbody>\
<tr><th>parent, until it accepts<td>{c0}<td>{f0}<tr><th>parent, from then on<td>{c1}<td>{f1}\
<tr><th>child<td>{c2}<td>{f2}<tr class=sum><th>together<td>{}<td>{}</tbody></table>{}{}{}",
        total(c.counts()),
        total(forkline.counts()),
        folded(false, "Call by call", &level),
        folded(false, "By name", &names_html(c, forkline)),
        folded(false, "strace’s own words", &raw_html(c, forkline)),
    )
}

fn trace_html(process: &str, c: &[Call], forkline: &[Call]) -> String {
    let mut html = format!(
        "<table class=trace><caption>{process}</caption>\
<thead><tr><th>the C<th>forkline</thead><tbody>"
    );
    for (c, forkline) in calls::level(c, forkline) {
        html += "<tr>";
        for (call, other) in [(c, forkline), (forkline, c)] {
            html += &match call {
                None => "<td class=gap>".into(),
                Some(call) => {
                    let class = match other {
                        None if call.name.is_empty() => "event",
                        None => "alone",
                        Some(_) if call.name.is_empty() => "event",
                        Some(_) => "same",
                    };
                    format!("<td class={class}>{}", call_html(call))
                }
            };
        }
    }
    html + "</tbody></table>"
}

fn call_html(call: &Call) -> String {
    let rest = escape(&call.rest);
    match call.name.as_str() {
        "" => format!("<i>{}</i>", rest.split(' ').next().unwrap_or_default()),
        name => format!("<b>{name}</b><span title=\"{rest}\">{rest}</span>"),
    }
}

fn names_html(c: &Trace, forkline: &Trace) -> String {
    let mut names: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
    for (n, calls) in [&c.parent, &c.child, &forkline.parent, &forkline.child].iter().enumerate() {
        for call in calls.iter().filter(|call| !call.name.is_empty()) {
            names.entry(&call.name).or_default()[n] += 1;
        }
    }
    let mut html = String::from(
        "<table class=counts><thead><tr><th><th colspan=2>the C<th colspan=2>forkline\
<tr><th>call<th>parent<th>child<th>parent<th>child</thead><tbody>",
    );
    for (name, counts) in names {
        let _ = write!(html, "<tr><th><code>{name}</code>");
        for n in counts {
            let _ = if n == 0 { write!(html, "<td>") } else { write!(html, "<td>{n}") };
        }
    }
    html + "</tbody></table>"
}

fn raw_html(c: &Trace, forkline: &Trace) -> String {
    let mut html = String::new();
    for (who, trace) in [("the C", c), ("forkline", forkline)] {
        for (process, calls) in [("parent", &trace.parent), ("child", &trace.child)] {
            let text: Vec<String> =
                calls.iter().map(|call| format!("{}{}", call.name, call.rest)).collect();
            let _ = write!(html, "<h4>{who}, {process}</h4>{}", raw(&text.join("\n")));
        }
    }
    html
}

fn raw(text: &str) -> String {
    format!("<pre class=raw>{}</pre>", escape(text))
}

// ---------------------------------------------------------------- cost

fn cost_part(comparison: &Comparison) -> String {
    if comparison.charts.is_empty() {
        let figures = in_each(comparison, |side| match &side.cost {
            Err(why) => failure(why),
            Ok(figures) => figures.iter().map(figure_html).collect(),
        });
        return COST_LEAD.to_owned() + &figures;
    }
    let chart = |(name, svg): &(String, String)| {
        // As an image of its own: its style and ids stay in it.
        let url: String = svg.bytes().map(|byte| format!("%{byte:02x}")).collect();
        format!(
            "<div class=scroll tabindex=0 role=region aria-label=\"{name}\"><img class=chart \
alt=\"{name}: bars by make bench\" src=\"data:image/svg+xml,{url}\"></div>",
            name = escape(name)
        )
    };
    let charts: String = comparison.charts.iter().map(chart).collect();
    format!("<p class=lead>Measured on this machine by <code>make bench</code>.</p>{charts}")
}

const COST_LEAD: &str = "<p class=lead>A few seconds in paired rounds: good for large differences. \
Bars are medians, lines go from the least to the most. Where the lines of both overlap, the difference \
is no larger than the noise. <code>make bench</code> measures for longer.</p>";

/// A bar for each program, as SVG.
fn figure_html(figure: &Figure) -> String {
    let better = if figure.more_is_better { "more is better" } else { "less is better" };
    let most = figure.c.iter().chain(&figure.forkline).copied().fold(f64::MIN_POSITIVE, f64::max);
    let mut html = format!(
        "<figure class=bars><figcaption>{} <span>{better}; {}</span></figcaption>\
<svg viewBox=\"0 0 480 52\" role=img aria-label=\"the C {:.1}, forkline {:.1}\">",
        escape(figure.name),
        match figure.is_noise() {
            true => "no difference".into(),
            false => format!("forkline : C = {:.2}", figure.ratio()),
        },
        median(figure.c.clone()),
        median(figure.forkline.clone()),
    );
    for (n, (who, class, rounds)) in
        [("the C", "c", &figure.c), ("forkline", "rust", &figure.forkline)].into_iter().enumerate()
    {
        let (at, y) = (|value: f64| 70.0 + 310.0 * value / most, 4 + 25 * n);
        let (least, top) =
            rounds.iter().fold((f64::MAX, 0.0f64), |(a, b), &x| (a.min(x), b.max(x)));
        let middle = median(rounds.clone());
        let shown = if middle < 100.0 { format!("{middle:.1}") } else { number(middle as usize) };
        let _ = write!(
            html,
            "<text x=64 y={} text-anchor=end>{who}</text><rect class={class} x=70 y={y} width=\"{:.1}\" height=20 />\
<path d=\"M{:.1} {}H{:.1}\"/><text x=\"{:.1}\" y={}>{shown}</text>",
            y + 15,
            at(middle) - 70.0,
            at(least),
            y + 10,
            at(top),
            at(top) + 6.0,
            y + 15,
        );
    }
    html + "</svg></figure>"
}
