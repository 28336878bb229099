//! What reads texts, against other readers of the same: std's parsers for numbers
//! and addresses, and models of the command line and of socket activation that were
//! written for this test. Every input is taken or refused as the other reader does
//! it, and understood in the same way.
//!
//! Numbers and addresses are read here, by the server's own source. Command lines
//! and environments are given to the real program, a process for each, so `make
//! test` takes a part of them; `make parsers` takes all (FORKLINE_PARSERS=N for N).
//! The inputs are random, and the same each time: number i is made from the seed i.

#[path = "../common/mod.rs"]
mod common;

use common::messages::TRY;
use common::*;
use fastrand::Rng;
use std::ffi::CString;
use std::io::{self, Write};
use std::iter::once;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU64, Ordering};
use sys::inet::{Sockaddr, inet_pton};
use sys::print::message;
use sys::text::{number, split_once};

/// The server's own files. What they use from other files is here in a form for
/// tests: a message is kept instead of written.
#[allow(dead_code)]
#[path = "../../src/sys"]
mod sys {
    mod global;
    pub mod inet;
    pub mod print;
    pub mod text;

    pub mod call {
        use rustix::fd::BorrowedFd;
        use std::cell::RefCell;

        // SAFETY: nothing is written to them here.
        pub const STDOUT: BorrowedFd = unsafe { BorrowedFd::borrow_raw(1) };
        // SAFETY: likewise.
        pub const STDERR: BorrowedFd = unsafe { BorrowedFd::borrow_raw(2) };

        thread_local! { pub static WRITTEN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) } }

        pub fn write_now(_: BorrowedFd, text: &[u8]) -> usize {
            WRITTEN.set(text.to_vec());
            text.len()
        }

        pub fn poll_out(_: BorrowedFd, _: u32) -> bool {
            true
        }
    }

    mod mem {
        use std::mem::MaybeUninit;

        pub fn copy(dest: &mut [MaybeUninit<u8>], src: &[u8]) -> usize {
            dest.iter_mut().zip(src).map(|(to, &from)| _ = to.write(from)).count()
        }
    }
}

/// Inputs that need no process.
const MANY: u64 = 200_000;

/// Inputs that need a process each.
fn processes() -> u64 {
    let number = std::env::var("FORKLINE_PARSERS").unwrap_or("4000".into());
    number.parse().expect("FORKLINE_PARSERS is a number")
}

// ---------------------------------------------------------------- numbers and addresses

/// A number as a user may write it: often near `most`, often wrong.
fn some_number(rng: &mut Rng, most: u64) -> Vec<u8> {
    let n: u128 = match rng.u8(..6) {
        0 => rng.u64(..=most).into(),
        1 => rng.u64(..10).into(),
        2 => u128::from(most) + u128::from(rng.u64(..3)),
        3 => most.saturating_sub(rng.u64(..3)).into(),
        // What a parser would take that lets a number overflow.
        4 => u128::from(rng.u64(..=most)) + (1 << *rng.choice(&[16, 31, 32, 63, 64]).unwrap()),
        _ => rng.u128(..) >> rng.u32(..128),
    };
    let zeros = if rng.u8(..4) == 0 { rng.usize(..30) } else { 0 };
    let mut text = format!("{}{n}", "0".repeat(zeros)).into_bytes();
    if rng.u8(..3) == 0 {
        mutate(&mut text, b"0123456789+-. _:,exa\x80\xff\x00", rng);
    }
    text
}

#[test]
fn just_the_numbers_that_are_ones_are_taken() {
    let mut taken = 0;
    for i in 0..MANY {
        let mut rng = Rng::with_seed(i);
        let most = *rng.choice(&[0, 1, 9, 133, 255, 32768, 65535, 86400]).unwrap();
        let most = if rng.bool() { most } else { rng.u32(..) | rng.u32(..) << rng.u32(..32) };
        let text = some_number(&mut rng, most.into());
        let found = number(&text, most);
        assert_eq!(found, plain_number(&text, most), "{i}: {text:?}, at most {most}");
        taken += u64::from(found.is_some());
    }
    assert!((MANY / 5..MANY * 4 / 5).contains(&taken), "{taken} were taken");
}

/// What std says, without the plus that it allows.
fn plain_number(text: &[u8], most: u32) -> Option<u32> {
    let text = str::from_utf8(text).ok().filter(|text| !text.starts_with('+'))?;
    text.parse().ok().filter(|&n| n <= most)
}

#[test]
fn just_the_addresses_that_are_ones_are_taken() {
    let mut taken = 0;
    for i in 0..MANY {
        let mut rng = Rng::with_seed(i);
        let text = some_address(&mut rng);
        let found = inet_pton(&text).map(|found| {
            let port = rng.u16(..);
            let ip = match found.family.into() {
                libc::AF_INET => IpAddr::from(found.v4().expect("an IPv4 address")),
                family => {
                    assert_eq!(family, libc::AF_INET6, "{i}");
                    IpAddr::from(found.v6)
                }
            };
            assert_eq!(found.port, [0; 2]);
            assert_eq!(printed(&found.with_port(port)), shown_address(ip, port), "{i}");
            ip
        });
        let shown = String::from_utf8_lossy(&text);
        assert_eq!(found, std_address(&text), "{i}: {shown}");
        taken += u64::from(found.is_some());
    }
    assert!((MANY / 5..MANY * 4 / 5).contains(&taken), "{taken} were taken");
}

fn std_address(text: &[u8]) -> Option<IpAddr> {
    str::from_utf8(text).ok()?.parse().ok()
}

/// An address as a user may write it, often wrong.
fn some_address(rng: &mut Rng) -> Vec<u8> {
    const PARTS: &[&str] = &[":", ":", "::", ".", "0", "1", "00", "ffff", "fFfF", "255", "12345"];
    match rng.u8(..4) {
        // Of parts that belong there, in any order.
        0 => (0..rng.usize(1..20)).flat_map(|_| rng.choice(PARTS).unwrap().bytes()).collect(),
        1 => (0..rng.usize(..24)).map(|_| rng.u8(..)).collect(),
        _ => {
            let ip = match rng.bool() {
                true => some_ipv6(rng).into(),
                false => IpAddr::from((rng.u32(..) >> rng.u8(..32)).to_be_bytes()),
            };
            let mut text = typed(ip, rng).into_bytes();
            for _ in 0..rng.usize(..=3) {
                mutate(&mut text, b"0123456789afAFgx::::....%/[ -+", rng);
            }
            text
        }
    }
}

/// Which IPv6 addresses have which runs of zeros: all 256 of them, and random ones.
#[test]
fn an_address_is_printed_in_its_standard_form() {
    for i in 0..MANY {
        let mut rng = Rng::with_seed(i);
        let mut groups = [0; 8];
        for (n, group) in groups.iter_mut().enumerate() {
            if i >> n & 1 == 1 {
                *group = rng.u16(1..) >> rng.u8(..16);
            }
        }
        if rng.u8(..8) == 0 {
            // An IPv4 address in an IPv6 address, or nearly so.
            groups[..6].copy_from_slice(&[0, 0, 0, 0, 0, u16::MAX << rng.u8(..2)]);
        }
        let (ip, port) = (Ipv6Addr::from(groups), rng.u16(..));
        let mut addr = Sockaddr::any(libc::AF_INET6).with_port(port);
        addr.v6 = ip.octets();
        assert_eq!(printed(&addr), shown_address(ip.into(), port));
    }
}

/// What the server prints.
fn printed(addr: &Sockaddr) -> String {
    let line = String::from_utf8(written(|| message("").addr(addr).end()));
    let line = line.expect("ASCII");
    line.strip_prefix("forkline: ").and_then(|line| line.strip_suffix('\n')).unwrap().to_owned()
}

/// What is written while `print` runs. One thread at a time: the server has no others.
fn written(print: impl FnOnce()) -> Vec<u8> {
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE.lock();
    print();
    sys::call::WRITTEN.take()
}

/// What std prints (RFC 5952), with a mapped IPv4 address as such.
fn shown_address(ip: IpAddr, port: u16) -> String {
    SocketAddr::new(ip.to_canonical(), port).to_string()
}

#[test]
fn numbers_and_typed_texts_are_printed_as_std_does() {
    for i in 0..MANY {
        let mut rng = Rng::with_seed(i);
        let n = rng.usize(..) >> rng.u32(..64);
        let text: Vec<u8> = (0..rng.usize(..70)).map(|_| rng.u8(..)).collect();
        let line = written(|| message("").num(n).str(" ").digits(n, 16).typed(&text).end());
        let expected = format!("forkline: {n} {n:x}{}\n", shown(&text));
        assert_eq!(String::from_utf8_lossy(&line), expected, "{i}");
    }
}

#[test]
fn a_long_message_loses_its_end_only() {
    for length in 0..1500 {
        let text = "x".repeat(length);
        let line = written(|| message(&text).str(&text).end());
        let mut expected = format!("forkline: {text}{text}\n");
        expected.truncate(511); // one byte is for the newline behind a message that was cut
        assert_eq!(String::from_utf8_lossy(&line), expected);
    }
}

#[test]
fn a_text_is_split_where_its_separators_are() {
    for i in 0..MANY {
        let mut rng = Rng::with_seed(i);
        let text: Vec<u8> =
            (0..rng.usize(..12)).map(|_| *rng.choice(b"a=:.\xff").unwrap()).collect();
        let separator = *rng.choice(b"=:.\n").unwrap();
        let mut two = text.splitn(2, |&c| c == separator);
        assert_eq!(
            split_once(&text, separator),
            (two.next().unwrap(), two.next()),
            "{i}: {text:?}"
        );
    }
}

// ---------------------------------------------------------------- the options

#[derive(Clone)]
enum Takes {
    /// It is a flag.
    Nothing,
    /// A number; what it is without the option; and which it may be.
    Number(u32, RangeInclusive<u32>),
    /// UID or UID:GID.
    User,
    Address,
    /// It prints the help or the version and ends the program.
    Ends,
}

/// Letter, name and value of each option. Those that set numbers stand first. An option
/// that is missing here, or too many, fails `the_table_has_the_options_of_the_help`.
const OPTIONS: &[(u8, &str, Takes)] = &[
    (b'c', "max-children", Takes::Number(1024, 1..=32768)),
    (b'C', "max-per-source", Takes::Number(32768, 1..=32768)),
    (b'g', "grace", Takes::Number(10, 0..=86400)),
    (b't', "idle", Takes::Number(0, 0..=86400)),
    (b'u', "user", Takes::User),
    (b'r', "reuse-port", Takes::Nothing),
    (b'R', "raw", Takes::Nothing),
    (b'q', "quiet", Takes::Nothing),
    (b'v', "verbose", Takes::Nothing),
    (b'b', "bind", Takes::Address),
    (b'h', "help", Takes::Ends),
    (b'V', "version", Takes::Ends),
];

/// No user: the server stays who it is. A user or a group has a number below it.
const NOBODY: u32 = u32::MAX;

#[test]
fn the_table_has_the_options_of_the_help() {
    let help = run(&mut forkline(&["--help"])).stdout;
    let help = String::from_utf8(help).expect("ASCII");
    let lines = help.lines().filter_map(|line| line.strip_prefix("  -"));
    let mut found: Vec<String> =
        lines.map(|line| line.split([' ', '\t']).take(2).collect::<Vec<_>>().join(" ")).collect();
    let mut table: Vec<String> =
        OPTIONS.iter().map(|(c, name, _)| format!("{}, --{name}", char::from(*c))).collect();
    found.sort();
    table.sort();
    assert_eq!(found, table);
}

// ---------------------------------------------------------------- a model of the command line

type Word = Vec<u8>;

/// What a right command line asks for.
#[derive(Debug, PartialEq)]
struct Settings {
    service: &'static str,
    port: u16,
    host: IpAddr,
    /// In the order of `OPTIONS`.
    numbers: Vec<u32>,
}

/// Why the program does not start.
#[derive(Debug, PartialEq)]
enum Stop {
    Printed(u8),
    Wrong(String),
}

fn wrong<T>(what: &str, typed: &[u8]) -> Result<T, Stop> {
    Err(Stop::Wrong(format!("{what}{}{TRY}", shown(typed))))
}

/// One option of the command line: how the user named it, which it is, its value.
struct Given {
    name: String,
    option: usize,
    value: Option<Word>,
}

/// Reads the options in the order of the command line and then the operands.
fn understood(words: &[Word]) -> Result<Settings, Stop> {
    let mut words = words.iter().cloned();
    let mut operands = Vec::new();
    let mut settings = defaults();
    while let Some(word) = words.next() {
        match &word[..] {
            b"--" => {
                operands.extend(words.by_ref());
            }
            [b'-', b'-', long @ ..] => apply(long_option(long)?, &mut words, &mut settings)?,
            [b'-', letters @ ..] if !letters.is_empty() => {
                let mut letters = letters;
                while let [letter, rest @ ..] = letters {
                    let (option, attached) = short_option(*letter, rest)?;
                    apply(option, &mut words, &mut settings)?;
                    letters = if attached { &[] } else { rest };
                }
            }
            _ => operands.push(word),
        }
        if let Some(third) = operands.get(2) {
            return wrong("one argument too many: ", third);
        }
    }
    services(&operands, settings)
}

fn defaults() -> Settings {
    let number = |(_, _, takes): &(u8, &str, Takes)| match takes {
        Takes::Nothing => vec![0],
        Takes::Number(without, _) => vec![*without],
        Takes::User => vec![NOBODY; 2],
        Takes::Address | Takes::Ends => vec![],
    };
    let numbers = OPTIONS.iter().flat_map(number).collect();
    Settings { service: "", port: 0, host: Ipv6Addr::UNSPECIFIED.into(), numbers }
}

/// `name` or `name=value`
fn long_option(text: &[u8]) -> Result<Given, Stop> {
    let mut parts = text.splitn(2, |&c| c == b'=');
    let name = [b"--", parts.next().unwrap()].concat();
    let is_named = |(_, long, _): &(u8, &str, Takes)| *long.as_bytes() == name[2..];
    let Some(option) = OPTIONS.iter().position(is_named) else {
        return wrong("unknown option: ", &name);
    };
    let value = parts.next().map(Word::from);
    if value.is_some() && matches!(OPTIONS[option].2, Takes::Nothing | Takes::Ends) {
        return wrong("option takes no value: ", &name);
    }
    Ok(Given { name: shown(&name), option, value })
}

/// A letter and what is attached to it; whether that is its value.
fn short_option(letter: u8, rest: &[u8]) -> Result<(Given, bool), Stop> {
    let Some(option) = OPTIONS.iter().position(|option| option.0 == letter) else {
        return wrong("unknown option: -", &[letter]);
    };
    let is_flag = matches!(OPTIONS[option].2, Takes::Nothing | Takes::Ends);
    if is_flag && rest.first() == Some(&b'=') {
        return wrong("option takes no value: -", &[letter]);
    }
    let attached = !is_flag && !rest.is_empty();
    let name = format!("-{}", char::from(letter));
    Ok((Given { name, option, value: attached.then(|| rest.into()) }, attached))
}

/// Does what an option says; its value may be the next word.
fn apply(
    Given { name, option, value }: Given,
    words: &mut impl Iterator<Item = Word>,
    settings: &mut Settings,
) -> Result<(), Stop> {
    let (letter, _, takes) = &OPTIONS[option];
    // Every option before it has a number, and one of them two.
    let user = OPTIONS.iter().position(|(.., takes)| matches!(takes, Takes::User)).unwrap();
    let at = option + usize::from(option > user);
    let value = match takes {
        Takes::Ends => return Err(Stop::Printed(*letter)),
        Takes::Nothing => {
            settings.numbers[at] = 1;
            return Ok(());
        }
        _ => match value.or_else(|| words.next()) {
            Some(value) => value,
            None => return wrong(&format!("value missing after {name}"), b""),
        },
    };
    let bad = |value: &[u8], why: &str| wrong(&format!("{name} {}: {why}", shown(value)), b"");
    let within = |value: &[u8], least: u32, most: u32| {
        let range = format!("not a number from {least} to {most}");
        let found = plain_number(value, most).filter(|&n| n >= least);
        found.map_or_else(|| bad(value, &range).map(|()| 0), Ok)
    };
    match takes {
        Takes::Number(_, range) => {
            settings.numbers[at] = within(&value, *range.start(), *range.end())?;
        }
        Takes::User => {
            let mut ids = value.splitn(2, |&c| c == b':');
            let uid = ids.next().unwrap();
            for (at, id) in [(at, uid), (at + 1, ids.next().unwrap_or(uid))] {
                settings.numbers[at] = match plain_number(id, NOBODY - 1) {
                    Some(id) => id,
                    None => within(&value, 0, NOBODY - 1)?,
                };
            }
        }
        _ => match std_address(&value) {
            Some(host) => settings.host = host,
            None => return bad(&value, "not a numeric IP address"),
        },
    }
    Ok(())
}

/// The operands: the service and its port.
fn services(operands: &[Word], settings: Settings) -> Result<Settings, Stop> {
    let (service, port) = match operands {
        [] => return wrong("a service is missing: echo or rot13", b""),
        [service] if service == b"echo" => return wrong("echo needs a port", b""),
        [service] if service == b"rot13" => ("rot13", &b"50005"[..]),
        [service, port] if service == b"echo" => ("echo", &port[..]),
        [service, port] if service == b"rot13" => ("rot13", &port[..]),
        [other, ..] => return wrong("neither echo nor rot13: ", other),
    };
    match plain_number(port, u16::MAX.into()) {
        Some(n) => Ok(Settings { service, port: n as u16, ..settings }),
        None => wrong("not a port from 0 to 65535: ", port),
    }
}

// ---------------------------------------------------------------- command lines

/// What a command line may ask for.
#[derive(Clone, Copy, PartialEq)]
enum Values {
    Any,
    /// What can be served here.
    Served,
}

/// A right command line, unless a value is wrong: options and operands in a random
/// order, in one of the ways to write each.
fn some_command_line(rng: &mut Rng, values: Values) -> Vec<Word> {
    let mut line: Vec<Vec<Word>> =
        (0..rng.usize(..5)).map(|_| some_option(rng, values)).filter(|o| !o.is_empty()).collect();
    let port = match values {
        Values::Any if rng.u8(..4) > 0 => rng.u16(..).to_string().into(),
        Values::Any => some_number(rng, 65535),
        Values::Served => "0".repeat(rng.usize(1..4)).into(),
    };
    let mut operands = vec![rng.choice(["echo", "rot13"]).unwrap().into(), port];
    if values == Values::Any && rng.u8(..8) == 0 {
        operands.pop();
    }
    let mut at = rng.usize(..=line.len());
    for operand in operands {
        line.insert(at, vec![operand]);
        at = rng.usize(at + 1..=line.len());
    }
    if rng.u8(..4) == 0 {
        // Behind all options, and in front of an operand if that is last.
        let ends_with_operand = line.last().is_some_and(|words| !words[0].starts_with(b"-"));
        line.insert(line.len() - usize::from(ends_with_operand), vec![b"--".to_vec()]);
    }
    line.concat()
}

/// One option, or several flags and an option in one word.
fn some_option(rng: &mut Rng, values: Values) -> Vec<Word> {
    let (letter, name, takes) = rng.choice(OPTIONS).unwrap();
    let is_rare = matches!(takes, Takes::Ends) && (values == Values::Served || rng.u8(..8) > 0);
    // SAFETY: no pointers.
    let is_root = unsafe { libc::geteuid() } == 0;
    if is_rare || values == Values::Served && matches!(takes, Takes::User) && !is_root {
        return vec![];
    }
    let value = match takes {
        Takes::Nothing | Takes::Ends => None,
        Takes::Number(_, range) if values == Values::Any && rng.u8(..4) == 0 => {
            Some(some_number(rng, (*range.end()).into()))
        }
        Takes::Number(_, range) => Some(rng.u32(range.clone()).to_string().into()),
        Takes::User => Some(some_user(rng, values)),
        Takes::Address => Some(match values {
            Values::Any if rng.bool() => some_address(rng),
            Values::Any => some_ipv6(rng).to_string().into(),
            Values::Served => {
                let here = ["127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1"];
                typed(rng.choice(here).unwrap().parse().unwrap(), rng).into()
            }
        }),
    };
    let flags = OPTIONS.iter().filter(|option| matches!(option.2, Takes::Nothing));
    let flags: Vec<u8> = flags.map(|flag| flag.0).filter(|_| rng.u8(..8) == 0).collect();
    let short = [b"-", &flags[..], &[*letter]].concat();
    let long = format!("--{name}").into_bytes();
    match (value, rng.u8(..4)) {
        (None, 0..2) => vec![long],
        (None, _) => vec![short],
        (Some(value), 0) => vec![long, value],
        (Some(value), 1) => vec![[&long[..], b"=", &value].concat()],
        // An empty value cannot be attached.
        (Some(value), 2) => vec![[short, value].concat()],
        (Some(value), _) => vec![short, value],
    }
}

fn some_user(rng: &mut Rng, values: Values) -> Word {
    let id = |rng: &mut Rng| match values {
        Values::Any if rng.u8(..4) == 0 => some_number(rng, (NOBODY - 1).into()),
        _ => rng.u32(..NOBODY).to_string().into(),
    };
    let uid = id(rng);
    if rng.bool() { uid } else { [uid, id(rng)].join(&b':') }
}

/// Changes a few words of a command line.
fn change(line: &mut Vec<Word>, rng: &mut Rng) {
    const WORDS: &[&str] = &["--", "-", "", "echo", "7", "-q", "-b", "--idle", "-qv", "--=", "---"];
    for _ in 0..rng.usize(..3) {
        let at = rng.usize(..=line.len());
        let Some(word) = line.get_mut(at).filter(|_| rng.u8(..3) > 0) else {
            line.insert(at, rng.choice(WORDS).unwrap().as_bytes().to_vec());
            continue;
        };
        match rng.u8(..8) {
            0 => _ = line.remove(at),
            1 => line.truncate(at),
            2 => line.rotate_left(at),
            3 => *word = word.repeat(rng.usize(2..40)),
            _ => mutate(word, b"-=:. 0129bcCgtuqvhVrxechorot13\x1b\n\x7f\xe9\xff", rng),
        }
    }
}

#[test]
fn every_command_line_is_understood_as_by_the_model() {
    if emulated() || !ipv6() {
        return;
    }
    let help = String::from_utf8(run(&mut forkline(&["--help"])).stdout).expect("ASCII");
    let version = concat!("forkline ", env!("CARGO_PKG_VERSION"), "\n");
    let (right, printed) = (AtomicU64::new(0), AtomicU64::new(0));
    let n = processes();
    each(n, |i, rng| {
        let mut line = some_command_line(rng, Values::Any);
        change(&mut line, rng);
        // What cannot be an argument.
        line.iter_mut().for_each(|word| word.retain(|&c| c != 0));
        let expected = match understood(&line) {
            Ok(settings) => {
                right.fetch_add(1, Ordering::Relaxed);
                let address = shown_address(settings.host, settings.port);
                (1, String::new(), format!("forkline: socket {address}: EMFILE\n"))
            }
            Err(Stop::Printed(letter)) => {
                printed.fetch_add(1, Ordering::Relaxed);
                (0, if letter == b'h' { help.clone() } else { version.into() }, String::new())
            }
            Err(Stop::Wrong(message)) => (2, String::new(), format!("forkline: {message}\n")),
        };
        let (_, answer) = answered(&line, &[]);
        assert_eq!(answer, expected, "{i}: {}", readable(&line));
    });
    let (right, printed) = (right.into_inner(), printed.into_inner());
    println!("{n} command lines, {right} right, {printed} printed");
    assert!((n / 10..n * 2 / 3).contains(&right) && printed > n / 100, "{right}, {printed}");
}

fn readable(words: &[Word]) -> String {
    words.iter().map(|word| format!("\"{}\" ", word.escape_ascii())).collect()
}

/// Calls `test` for the numbers below `n`, on all processors.
fn each(n: u64, test: impl Fn(u64, &mut Rng) + Sync) {
    in_parallel(processors().len(), n as usize, |i| test(i as u64, &mut Rng::with_seed(i as u64)));
}

/// Runs forkline where it can open nothing: a right command line ends with EMFILE.
/// Gives its pid, and its exit status and output. In the environment `PID` stands for
/// its pid.
fn answered(words: &[Word], environment: &[Word]) -> (u32, (i32, String, String)) {
    let program = env!("CARGO_BIN_EXE_forkline");
    let words = once(program.as_bytes()).chain(words.iter().map(|word| &word[..]));
    let words: Vec<CString> = words.map(|word| CString::new(word).expect("no NUL")).collect();
    let mut variables: Vec<Word> =
        environment.iter().map(|variable| [&variable[..], &[0; ROOM]].concat()).collect();
    let mut command = Command::new(program);
    let pointers = |texts: &mut dyn Iterator<Item = *const u8>| {
        texts.chain(once(std::ptr::null())).map(|text| text as usize).collect::<Vec<_>>()
    };
    let argv = pointers(&mut words.iter().map(|word| word.as_ptr().cast()));
    let envp = pointers(&mut variables.iter().map(|variable| variable.as_ptr()));
    before_exec(piped(&mut command), move || {
        set_limit(0, libc::RLIMIT_NOFILE, 3);
        set_limit(0, libc::RLIMIT_CPU, 20); // should it loop
        variables.iter_mut().for_each(|variable| put_own_pid(variable));
        // SAFETY: these are arrays of texts with a null pointer at the end.
        unsafe { libc::execve(words[0].as_ptr(), argv.as_ptr().cast(), envp.as_ptr().cast()) };
    });
    let child = command.spawn().expect("forkline starts");
    let pid = child.id();
    let output = child.wait_with_output().expect("wait");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (pid, (code(output.status), text(output.stdout), text(output.stderr)))
}

/// The exit status; -1 for any signal.
fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or(-1)
}

// ---------------------------------------------------------------- values

/// Right command lines: what they ask for is what the server has in its memory, and
/// says on its ready line. Where it has a setting is not known. But there must be a place
/// that has the right value in every server.
#[test]
fn a_server_has_the_settings_of_its_command_line() {
    if emulated() || !ipv6() {
        return;
    }
    let mut places: Vec<Vec<usize>> = Vec::new();
    for i in 0..processes() / 20 {
        let line = some_command_line(&mut Rng::with_seed(i), Values::Served);
        let words: Vec<String> =
            line.iter().map(|word| String::from_utf8(word.clone()).unwrap()).collect();
        let settings = understood(&line).expect("a right command line");
        let server = Server::start(&words.iter().map(|word| &word[..]).collect::<Vec<_>>());
        let address = shown_address(settings.host, server.port);
        let ready = format!("forkline: {} listening on {address}\n", settings.service);
        assert_eq!(server.stderr.text(), ready, "{words:?}");
        let data = match data(server.pid) {
            Ok(data) => data,
            Err(error) => return skipped(&format!("its memory cannot be read: {error}")),
        };
        if places.is_empty() {
            places = vec![(0..data.len()).collect(); settings.numbers.len()];
        }
        for (n, (places, number)) in places.iter_mut().zip(&settings.numbers).enumerate() {
            // The group has no value without a user.
            if n != GID || settings.numbers[UID] != u32::MAX {
                let number = if n == IDLE { 1000 * number } else { *number };
                let value = &number.to_ne_bytes()[..if n < FLAGS { 4 } else { 1 }];
                places.retain(|&at| data[at..].starts_with(value));
            }
            assert!(!places.is_empty(), "{words:?}: setting {n} is not {number}");
        }
    }
}

/// Which of the numbers are the idle limit, which the server has in milliseconds, user and
/// group, and the first that is a flag: a byte.
const IDLE: usize = 3;
const UID: usize = 4;
const GID: usize = 5;
const FLAGS: usize = 6;

/// The memory that a process may write to, besides its stack (proc(5), maps and mem).
fn data(pid: u32) -> io::Result<Vec<u8>> {
    let regions = memory(pid, |region| region.starts_with("rw-p ") && !region.contains("[stack]"))?;
    Ok(regions.concat())
}

// ---------------------------------------------------------------- activation

/// Stands for the pid of the process that is started.
const PID: u8 = b'#';
/// Bytes behind each variable: for the pid, and the NUL at the end.
const ROOM: usize = 16;

/// Puts the pid of this process in the place of `PID`. It allocates nothing.
fn put_own_pid(variable: &mut [u8]) {
    let Some(at) = variable.iter().position(|&c| c == PID) else { return };
    let mut digits = [0; ROOM];
    let mut rest = &mut digits[..];
    write!(rest, "{}", std::process::id()).expect("room for a pid");
    let n = ROOM - rest.len();
    variable.copy_within(at + 1..variable.len() - n, at + n);
    variable[at..at + n].copy_from_slice(&digits[..n]);
}

/// Variables of socket activation, often right.
fn some_environment(rng: &mut Rng) -> Vec<Word> {
    let mut variables = Vec::new();
    for _ in 0..rng.usize(1..4) {
        let (name, right) = *rng.choice(&[("LISTEN_PID", "#"), ("LISTEN_FDS", "1")]).unwrap();
        let value = match rng.u8(..6) {
            0 => some_number(rng, i32::MAX as u64),
            1 => format!("{}{right}", "0".repeat(rng.usize(..9))).into(),
            _ => right.into(),
        };
        let mut variable = [name.as_bytes(), b"=", &value].concat();
        if rng.u8(..8) == 0 {
            mutate(&mut variable, b"LISTENPIDFDS_= +-012#", rng);
        }
        variable.retain(|&c| c != 0);
        variables.push(variable);
    }
    if rng.bool() {
        let others = ["", "=", "PATH=/bin", "LISTEN_PIDS=1", "LISTEN_FDNAMES=x", "LISTEN_PID"];
        variables.insert(rng.usize(..=variables.len()), rng.choice(others).unwrap().into());
    }
    variables
}

/// The first of the variables with this name, if it is a number (getenv(3)).
fn variable(environment: &[Word], name: &str) -> Option<u32> {
    let mut values = environment
        .iter()
        .filter_map(|variable| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    plain_number(values.next()?, i32::MAX as u32)
}

/// The socket that is handed over would be descriptor 3, which is not open here.
#[test]
fn just_the_environment_that_is_meant_for_it_is_followed() {
    if emulated() {
        return;
    }
    let followed = AtomicU64::new(0);
    let n = processes();
    each(n, |i, rng| {
        let environment = some_environment(rng);
        let (pid, answer) = answered(&[b"echo".to_vec()], &environment);
        let put = |variable: &Word| match variable.iter().position(|&c| c == PID) {
            Some(at) => [&variable[..at], pid.to_string().as_bytes(), &variable[at + 1..]].concat(),
            None => variable.clone(),
        };
        let full: Vec<Word> = environment.iter().map(put).collect();
        let fds =
            variable(&full, "LISTEN_FDS").filter(|_| variable(&full, "LISTEN_PID") == Some(pid));
        let (status, message) = match fds {
            None | Some(0) => (2, "echo needs a port; try --help"),
            Some(1) => (1, "LISTEN_FDS: EBADF"),
            Some(_) => (1, "LISTEN_FDS is not 1: EINVAL"),
        };
        followed.fetch_add(u64::from(fds.is_some()), Ordering::Relaxed);
        let expected = (status, String::new(), format!("forkline: {message}\n"));
        assert_eq!(answer, expected, "{i}: {}, pid {pid}", readable(&environment));
    });
    let followed = followed.into_inner();
    println!("{n} environments, {followed} followed");
    assert!((n / 10..n * 9 / 10).contains(&followed), "{followed}");
}
