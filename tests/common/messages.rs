//! Every line that the server may write to standard error, and nothing else. The
//! manual has the same lists: tests/suite/messages.rs compares them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

/// The events with their keys, in their order. A key in brackets may be missing,
/// and of two keys with a bar between them one may be there.
pub const EVENTS: [&str; 8] = [
    "accept pid client children",
    "end pid client reason [signal|error] children [suppressed]",
    "refuse client [suppressed]",
    "fault call error [client] [suppressed]",
    "drain signal children",
    "reset [signal] children",
    "kill children",
    "drained children",
];
pub const REASONS: [&str; 6] = ["eof", "idle", "stop", "reset", "signal", "fault"];
pub const CALLS: [&str; 3] = ["accept", "fork", "NOTIFY_SOCKET"];

/// The other lines. A word in capitals stands for a value, see `FORMS`.
pub const SENTENCES: [&str; 11] = [
    "SERVICE listening on ADDRESS",
    "bind ADDRESS: ERROR",
    "socket ADDRESS: ERROR",
    "listen: ERROR",
    "accept: ERROR",
    "getsockname: ERROR",
    "change of user: ERROR",
    "serving without MADV_DONTFORK",
    "serving without seccomp: ERROR",
    "LISTEN_FDS: ERROR",
    "LISTEN_FDS is not 1: ERROR",
];

/// What may be wrong with the command line. Each line ends with `TRY`.
pub const USAGE: [&str; 10] = [
    "a service is missing: echo or rot13",
    "neither echo nor rot13: TYPED",
    "echo needs a port",
    "not a port from 0 to 65535: TYPED",
    "one argument too many: TYPED",
    "unknown option: TYPED",
    "option takes no value: TYPED",
    "value missing after TYPED",
    "TYPED TYPED: not a numeric IP address",
    "TYPED TYPED: not a number from NUMBER to NUMBER",
];
pub const TRY: &str = "; try --help";

type IsValue = fn(&str) -> bool;

/// The words in capitals, and whether a text is a value of theirs.
const FORMS: [(&str, IsValue); 5] = [
    ("SERVICE", |text| matches!(text, "echo" | "rot13")),
    ("ADDRESS", is_address),
    ("ERROR", is_explained_error),
    ("TYPED", is_typed),
    ("NUMBER", |text| number(text).is_some()),
];

/// The errors that have a name here (src/sys/errno.rs), and some a meaning.
const ERRORS: [(u32, &str); 22] = [
    (1, "EPERM"),
    (2, "ENOENT"),
    (9, "EBADF"),
    (11, "EAGAIN"),
    (12, "ENOMEM"),
    (13, "EACCES (permission denied)"),
    (22, "EINVAL"),
    (23, "ENFILE"),
    (24, "EMFILE"),
    (38, "ENOSYS"),
    (88, "ENOTSOCK"),
    (91, "EPROTOTYPE"),
    (95, "EOPNOTSUPP"),
    (97, "EAFNOSUPPORT (address family not supported)"),
    (98, "EADDRINUSE (address already in use)"),
    (99, "EADDRNOTAVAIL (address not available)"),
    (103, "ECONNABORTED"),
    (105, "ENOBUFS"),
    (107, "ENOTCONN"),
    (110, "ETIMEDOUT"),
    (111, "ECONNREFUSED"),
    (113, "EHOSTUNREACH"),
];
const SIGNALS: [(u32, &str); 5] =
    [(1, "SIGHUP"), (2, "SIGINT"), (3, "SIGQUIT"), (9, "SIGKILL"), (15, "SIGTERM")];

/// Panics if a whole line in what a server has said is none of these. What others
/// have written among them does not begin with `forkline: `.
pub fn check(said: &str) {
    let whole = said.rfind('\n').map_or(0, |end| end + 1);
    for line in said[..whole].lines().filter(|line| line.starts_with("forkline: ")) {
        parse(line).unwrap_or_else(|why| panic!("no message of forkline, {why}: {line:?}"));
    }
}

/// Says what is wrong with a line.
pub fn parse(line: &str) -> Result<(), String> {
    let text = line.strip_prefix("forkline: ").ok_or("no prefix")?;
    // Any message may tell how many were lost before it.
    let text = match text.rsplit_once(" lost=") {
        Some((text, lost)) if is_count(lost) => text,
        _ => text,
    };
    let event = |form: &&&str| form.split(' ').next() == text.split(' ').next();
    match EVENTS.iter().find(event) {
        Some(form) => parse_event(form, text),
        None if SENTENCES.iter().any(|sentence| fits(sentence, text)) => Ok(()),
        None if text.strip_suffix(TRY).is_some_and(|text| USAGE.iter().any(|u| fits(u, text))) => {
            Ok(())
        }
        None => Err("neither an event nor a sentence".into()),
    }
}

fn parse_event(form: &str, text: &str) -> Result<(), String> {
    let mut words = text.split(' ').skip(1).peekable();
    let mut values = BTreeMap::new();
    for place in form.split(' ').skip(1) {
        let is_here = |key: &str| place.trim_matches(['[', ']']).split('|').any(|k| k == key);
        let pair = words.peek().and_then(|word| word.split_once('='));
        match pair.filter(|(key, _)| is_here(key)) {
            Some((key, value)) if fits_key(key, value) => {
                values.insert(key, value);
                words.next();
            }
            Some((key, value)) => return Err(format!("{value:?} is no {key}")),
            None if place.starts_with('[') => {}
            None => return Err(format!("no {place}")),
        }
    }
    if let Some(word) = words.next() {
        return Err(format!("{word:?} is too much"));
    }
    let has = |key| values.contains_key(key);
    let (reason, call) = (values.get("reason").copied(), values.get("call").copied());
    let agree = match (reason, call) {
        (Some(reason), _) => {
            has("signal") == (reason == "signal") && has("error") == (reason == "fault")
        }
        (_, Some(call)) => has("client") == (call == "fork"),
        _ => true,
    };
    if agree { Ok(()) } else { Err("the keys do not agree".into()) }
}

fn fits_key(key: &str, value: &str) -> bool {
    let is_named = |names: &[(u32, &str)], most| {
        let name = |text: &str| text.split(' ').next() == Some(value);
        let n = number(value).filter(|n| (1..=most).contains(n));
        names.iter().any(|(_, text)| name(text))
            || n.is_some_and(|n| names.iter().all(|(other, _)| *other != n))
    };
    match key {
        "pid" | "suppressed" => is_count(value),
        "client" => is_address(value),
        "children" => value.split_once('/').is_some_and(|(n, most)| {
            let (n, most) = (number(n), number(most));
            n.is_some() && n <= most && most.is_some_and(|most| (1..=32768).contains(&most))
        }),
        "reason" => REASONS.contains(&value),
        "call" => CALLS.contains(&value),
        "signal" => is_named(&SIGNALS, 64),
        "error" => is_named(&ERRORS, 133),
        _ => false,
    }
}

/// A decimal number without a sign or leading zeros.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|n: &u32| n.to_string() == text)
}

fn is_count(text: &str) -> bool {
    number(text).is_some_and(|n| n > 0)
}

/// As std writes it (RFC 5952), with a port. IPv4 clients have IPv4 addresses.
fn is_address(text: &str) -> bool {
    let is_mapped = text.starts_with("[::ffff:") && text.contains('.');
    text.parse::<SocketAddr>().is_ok_and(|address| address.to_string() == text) && !is_mapped
}

/// `EADDRINUSE (address already in use)`, or `errno 93` without a name.
fn is_explained_error(text: &str) -> bool {
    let unnamed = text.strip_prefix("errno ").and_then(number);
    ERRORS.iter().any(|(_, name)| *name == text)
        || unnamed.is_some_and(|n| (1..=133).contains(&n) && ERRORS.iter().all(|(e, _)| *e != n))
}

/// At most 64 characters that do a terminal no harm, or the first 64 of them.
fn is_typed(text: &str) -> bool {
    let most = if text.ends_with("...") { 67 } else { 64 };
    text.len() <= most && text.bytes().all(|c| matches!(c, b' '..=b'~'))
}

/// Whether a text is a sentence of this form.
fn fits(form: &str, text: &str) -> bool {
    let first =
        |&(name, is_value): &(&'static str, IsValue)| Some((form.find(name)?, name, is_value));
    let Some((at, name, is_value)) = FORMS.iter().filter_map(first).min_by_key(|found| found.0)
    else {
        return form == text;
    };
    let Some(text) = text.strip_prefix(&form[..at]) else { return false };
    let rest = &form[at + name.len()..];
    let mut ends = (0..=text.len()).filter(|&end| text.is_char_boundary(end));
    ends.any(|end| is_value(&text[..end]) && fits(rest, &text[end..]))
}

/// What forkline shows of a text that a user typed.
pub fn shown(text: &[u8]) -> String {
    let beginning = text.iter().take(64);
    let safe = beginning.map(|&c| if (b' '..=b'~').contains(&c) { c.into() } else { '?' });
    safe.chain("...".chars().filter(|_| text.len() > 64)).collect()
}
