//! The comparison as one HTML file that asks for nothing else: its style is in
//! it, it has no script, and its policy forbids every request.

use super::calls::{self, Call, Trace};
use super::source::{self, File, Pair, escape};
use super::wire::{self, Answer, Exchange, Row, Verdict};
use super::{Comparison, Side, difference};
use std::collections::BTreeMap;
use std::fmt::Write;

pub fn html(comparison: &Comparison) -> String {
    let parts = [
        ("source", "Source", source_part(comparison)),
        ("wire", "Wire", wire_part(comparison)),
        ("calls", "System calls", calls_part(comparison)),
        ("cost", "Cost", cost_part(comparison)),
    ];
    let mut nav = String::new();
    let mut body = String::new();
    for (id, title, part) in parts {
        let _ = write!(nav, "<a href=#{id}>{title}</a>");
        let _ = write!(body, "<section class=part id={id}><h2>{title}</h2>{part}</section>");
    }
    let names: Vec<String> = comparison
        .sides
        .iter()
        .filter_map(|side| Some(code(&side.file.as_ref().ok()?.name)))
        .collect();
    format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8>\
<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; \
style-src 'unsafe-inline'; img-src data:\">\
<meta name=viewport content=\"width=device-width, initial-scale=1\">\
<meta name=color-scheme content=\"light dark\"><link rel=icon href=data:,>\
<title>forkline beside the C</title><style>{}</style></head><body>\
<a class=skip href=#source>To the comparison</a>\
<header><h1>forkline beside the C</h1><p>What is the same and what is not: {} on the left, \
<code>src/main.rs</code> on the right.</p></header><nav aria-label=Parts>{nav}</nav>\
<main>{body}</main></body></html>\n",
        include_str!("page.css"),
        names.join(" and "),
    )
}

/// Text in which `` ` `` marks code.
fn words(text: &str) -> String {
    let pieces = text.split('`').enumerate();
    pieces.map(|(n, piece)| if n % 2 == 1 { code(piece) } else { escape(piece) }).collect()
}

fn code(text: &str) -> String {
    format!("<code>{}</code>", escape(text))
}

/// What could not be had, with the compiler's or the program's words.
fn failure(why: &str) -> String {
    format!("<pre class=failure>{}</pre>", escape(why))
}

// ---------------------------------------------------------------- source

fn source_part(comparison: &Comparison) -> String {
    let mut html = String::from(
        "<p class=lead>Lines that say the same are level. A tinted line has no line opposite it that does.</p>",
    );
    for side in &comparison.sides {
        let _ = write!(html, "<h3>{}</h3>", side.service);
        match &side.file {
            Err(why) => html += &failure(why),
            Ok(file) => {
                html += &index(&side.pairs, side.service);
                if !side.warnings.is_empty() {
                    html += &failure(&format!("The compiler warns:\n{}", side.warnings));
                }
                for n in 0..side.pairs.len() {
                    html += &pair_html(&side.pairs, n, Some(file), &comparison.rust, side.service);
                }
            }
        }
    }
    html += "<h3>Only in forkline</h3>";
    html += &index(&comparison.rust_alone, "rust");
    for n in 0..comparison.rust_alone.len() {
        html += &pair_html(&comparison.rust_alone, n, None, &comparison.rust, "rust");
    }
    html
}

/// The name of a pair in the page's addresses.
pub fn id(pair: &Pair, prefix: &str) -> String {
    let name = pair.c.first().or(pair.rust.first().map(|(_, name)| name));
    format!("{prefix}-{}", name.map_or("", String::as_str))
}

fn index(pairs: &[Pair], prefix: &str) -> String {
    let link = |pair: &Pair| {
        let rust: Vec<&str> = pair.rust.iter().map(|(_, name)| &**name).collect();
        let names = if pair.c.is_empty() { rust.join(" ") } else { pair.c.join(" ") };
        format!("<li><a href=\"#{}\">{}</a>", escape(&id(pair, prefix)), code(&names))
    };
    format!("<ul class=index>{}</ul>", pairs.iter().map(link).collect::<String>())
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
    c_file: Option<&File>,
    rust: &[File],
    prefix: &str,
) -> String {
    let pair = &pairs[n];
    let (c, c_places) = c_file.map_or_else(Default::default, |file| lines(file, &pair.c));
    let (mut r, mut r_places) = (Vec::new(), Vec::new());
    for file in rust {
        let names = pair.rust.iter().filter(|(name, _)| *name == file.name);
        let names: Vec<String> = names.map(|(_, name)| name.clone()).collect();
        let (lines, places) = lines(file, &names);
        r.extend(lines);
        r_places.extend(places);
    }
    let texts = |lines: &[Line<'_>]| lines.iter().map(|l| l.text.to_owned()).collect::<Vec<_>>();
    let rows = source::level(&texts(&c), &texts(&r), pairs);

    let place = |places: &[String], none: &str| match places {
        [] => format!("<span class=none>{none}</span>"),
        _ => places.iter().map(|place| format!("<code>{place}</code>")).collect(),
    };
    let (left, right) = (place(&c_places, "not in the C"), place(&r_places, "no mirror"));
    let why = match pair.why.as_str() {
        "" => String::new(),
        why => format!("<p class=why>{}</p>", words(why)),
    };
    format!(
        "<article class=pair id=\"{}\"><h4><span>{left}</span><span>{right}</span></h4>{why}\
<div class=both style=\"--rows:{}\">{}{}</div></article>",
        escape(&id(pair, prefix)),
        rows.len().max(1),
        column(&c, rows.iter().map(|row| (row.c, row.same)), "c"),
        column(&r, rows.iter().map(|row| (row.rust, row.same)), "rust"),
    )
}

/// One language's lines of a pair, each in the row where it belongs.
fn column(
    lines: &[Line],
    rows: impl Iterator<Item = (Option<usize>, bool)>,
    class: &str,
) -> String {
    let mut html = format!("<pre class=\"side {class}\">");
    for (row, (index, same)) in rows.enumerate() {
        let Some(line) = index.map(|index| &lines[index]) else { continue };
        let indent = line.text.chars().take_while(|c| *c == ' ').count();
        let says = line.text.contains(|c: char| c.is_alphanumeric());
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

// ---------------------------------------------------------------- wire

fn wire_part(comparison: &Comparison) -> String {
    let mut html = String::from(
        "<p class=lead>The same bytes to both, on connections of their own. \
<span class=nl>↵</span> is a newline, · any other byte that is no text.</p>",
    );
    for side in &comparison.sides {
        let _ = write!(html, "<h3>{}</h3>", side.service);
        match &side.wire {
            Err(why) => html += &failure(why),
            Ok(exchanges) => {
                for exchange in exchanges {
                    html += &exchange_html(exchange, &comparison.differences);
                }
            }
        }
    }
    html
}

fn exchange_html(exchange: &Exchange, differences: &[(String, String)]) -> String {
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
        Verdict::Differs => ("differs", "different", words(&difference(exchange))),
    };
    let why = if why.is_empty() { why } else { format!("<p class=why>{why}</p>") };
    let mut dumps = dump("sent", &exchange.sent, None, "");
    if exchange.verdict == Verdict::Equal {
        dumps += &answer("both gave", c, None);
    } else {
        dumps += &answer("the C gave", c, at);
        dumps += &answer("forkline gave", forkline, at);
    }
    format!(
        "<article class=\"exchange {class}\"><h4><span>{}</span> <span class=badge>{badge}</span></h4>\
{why}<div class=dumps>{dumps}</div></article>",
        escape(&exchange.name)
    )
}

fn answer(title: &str, answer: &Answer, at: Option<usize>) -> String {
    dump(title, &answer.bytes, at, &answer.end)
}

fn dump(title: &str, bytes: &[u8], at: Option<usize>, end: &str) -> String {
    let mut html = format!("<figure><figcaption>{title} <span>{}", number(bytes.len()));
    html += if bytes.len() == 1 { " byte" } else { " bytes" };
    if !end.is_empty() {
        let _ = write!(html, ", {}", escape(end));
    }
    html += "</span></figcaption><pre class=dump>";
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
    html + "</pre></figure>"
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

// ---------------------------------------------------------------- calls

fn calls_part(comparison: &Comparison) -> String {
    let said: String = calls::LINES.iter().map(|line| code(line.trim_end()) + " ").collect();
    let mut html = format!(
        "<p class=lead>One conversation with each, as strace saw it: the client says {said}and \
leaves. A tinted call is one that only the C, or only forkline, makes there.</p>"
    );
    for side in &comparison.sides {
        let _ = write!(html, "<h3>{}</h3>", side.service);
        html += &match &side.calls {
            Err(why) => failure(why),
            Ok((c, forkline)) => calls_html(side, c, forkline),
        };
    }
    html
}

fn calls_html(side: &Side, c: &Trace, forkline: &Trace) -> String {
    let ([c0, c1, c2], [f0, f1, f2]) = (c.counts(), forkline.counts());
    let total = |[a, b, c]: [usize; 3]| a + b + c;
    format!(
        "<div class=traces>{}<div>{}\
<table class=counts><caption>Calls</caption><thead><tr><th><th>the C<th>forkline</thead><tbody>\
<tr><th>parent, until it accepts<td>{c0}<td>{f0}<tr><th>parent, from then on<td>{c1}<td>{f1}\
<tr><th>child<td>{c2}<td>{f2}<tr class=sum><th>together<td>{}<td>{}</tbody></table>\
<details open><summary>By name</summary>{}</details></div></div>\
<details><summary>strace’s own words, {}</summary>{}</details>",
        trace_html("parent", &c.parent, &forkline.parent),
        trace_html("child", &c.child, &forkline.child),
        total(c.counts()),
        total(forkline.counts()),
        names_html(c, forkline),
        side.service,
        raw_html(c, forkline),
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
        return "<p class=lead>Not measured yet: run <code>make bench</code>, then <code>make \
compare</code> again, and its charts stand here.</p>"
            .into();
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
