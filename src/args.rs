//! The command line. Whatever is wrong with it ends the program here, before
//! it has bound anything.

use crate::SERV_PORT;
use crate::addr::{self, split_once};
use crate::children::{MOST, MOST_ACCEPTORS};
use crate::line::message;
use crate::sys::{self, Strings};
use core::net::IpAddr;

/// Also where the long names are looked up: each stands 8 bytes into a line,
/// its letter 3.
const HELP: &str = "\
usage: forkline [OPTIONS] echo PORT | rot13 [PORT]
PORT 0: any free one. rot13: 50005 if left out.

  -b, --bind ADDR \t\tlisten on this address only
  -j, --acceptors N \t\tshare the port among N (1), 0: one per processor
  -c, --max-children N \t\tat most N clients at once (1024)
  -C, --max-per-source N \tat most N from one address or /64
  -g, --grace SECS \t\ttime to finish in at the end (10)
  -t, --idle SECS \t\tclose after SECS of silence
  -u, --user UID[:GID] \t\tbecome this user
  -q, --quiet \t\t\tno reports
  -v, --verbose \t\ttell of each start and end
  -h, --help \t\t\tshow this
  -V, --version \t\tshow the version
";
const VERSION: &str = concat!("forkline ", env!("CARGO_PKG_VERSION"), "\n");

pub struct Options {
    pub service: Service,
    pub port: u16,
    /// The only address to listen on.
    pub host: Option<IpAddr>,
    pub max_children: u32,
    pub max_per_source: u32,
    /// Processes that share the port.
    pub acceptors: u32,
    /// Seconds.
    pub grace: u32,
    /// Seconds, or 0 for never.
    pub idle: u32,
    /// The user and the group to become.
    pub user: Option<(u32, u32)>,
    pub quiet: bool,
    pub verbose: bool,
}

#[derive(Clone, Copy)]
pub enum Service {
    Echo,
    Rot13,
}

impl Options {
    const DEFAULT: Options = Options {
        service: Service::Echo,
        port: SERV_PORT,
        host: None,
        max_children: 1024,
        max_per_source: u32::MAX,
        acceptors: 1,
        grace: 10,
        idle: 0,
        user: None,
        quiet: false,
        verbose: false,
    };
}

/// Options, service and port, in this order, written as for getopt_long(3).
/// With a socket that is there already echo needs no port.
pub fn parse(mut args: Strings, has_socket: bool) -> Options {
    let mut options = Options::DEFAULT;
    args.next();
    let service = loop {
        match args.next() {
            Some(b"--") => break args.next(),
            Some(arg @ [b'-', b'-', name @ ..]) => {
                let (name, value) = split_once(name, b'=');
                let mut lines = HELP.as_bytes().split(|&c| c == b'\n');
                let named =
                    |line: &&[u8]| split_once(line.get(8..).unwrap_or_default(), b' ').0 == name;
                let Some([b' ', b' ', b'-', letter, ..]) = lines.find(named) else {
                    wrong("unknown option", Some(arg))
                };
                set(&mut options, *letter, arg, value, &mut args);
            }
            Some(arg @ [b'-', _, ..]) => short_options(&mut options, arg, &mut args),
            other => break other,
        }
    };
    let port = args.next();
    options.service = match service {
        Some(b"echo") if port.is_none() && !has_socket => wrong("echo needs a port", None),
        Some(b"echo") => Service::Echo,
        Some(b"rot13") => Service::Rot13,
        Some(other) => wrong("unknown service", Some(other)),
        None => wrong("a service is missing: echo or rot13", None),
    };
    if let Some(port) = port {
        options.port = number(port, 0, u16::MAX.into(), "not a port from 0 to 65535") as u16;
    }
    match args.next() {
        Some(more) => wrong("too many arguments at", Some(more)),
        None => options,
    }
}

/// `-q`, `-b value`, `-bvalue`, or several letters in one.
fn short_options(options: &mut Options, arg: &'static [u8], args: &mut Strings) {
    let mut letters = arg.get(1..).unwrap_or_default();
    while let [letter, rest @ ..] = letters {
        let value = (takes_value(*letter) && !rest.is_empty()).then_some(rest);
        set(options, *letter, arg, value, args);
        letters = if takes_value(*letter) { &[] } else { rest };
    }
}

fn takes_value(letter: u8) -> bool {
    matches!(letter, b'b' | b'c' | b'C' | b'g' | b'j' | b't' | b'u')
}

/// Does what the option `letter`, typed as `arg`, says.
#[inline(never)]
fn set(
    options: &mut Options,
    letter: u8,
    arg: &[u8],
    value: Option<&'static [u8]>,
    args: &mut Strings,
) {
    let value = match (value, takes_value(letter)) {
        (Some(_), false) => wrong("no value goes with option", Some(arg)),
        (None, false) => &[],
        (value, true) => match value.or_else(|| args.next()) {
            Some(value) => value,
            None => wrong("a value is missing after", Some(arg)),
        },
    };
    match letter {
        b'b' => match addr::parse(value) {
            Some(ip) => options.host = Some(ip),
            None => wrong("not a numeric IPv4 or IPv6 address", Some(value)),
        },
        b'c' => options.max_children = children(value),
        b'C' => options.max_per_source = children(value),
        b'g' => options.grace = seconds(value),
        b'j' => options.acceptors = acceptors(value),
        b't' => options.idle = seconds(value),
        b'u' => options.user = Some(user(value)),
        b'q' => options.quiet = true,
        b'v' => options.verbose = true,
        b'h' => print(HELP),
        b'V' => print(VERSION),
        _ => wrong("unknown option", Some(arg)),
    }
}

fn children(value: &[u8]) -> u32 {
    number(value, 1, MOST as u32, "not a number from 1 to 32768")
}

fn acceptors(value: &[u8]) -> u32 {
    match number(value, 0, MOST_ACCEPTORS, "not a number from 0 to 64") {
        0 => sys::processors().clamp(1, MOST_ACCEPTORS),
        n => n,
    }
}

/// A day at most: more is a mistake.
fn seconds(value: &[u8]) -> u32 {
    number(value, 0, 24 * 60 * 60, "not a number from 0 to 86400")
}

/// `UID` or `UID:GID`; the group that is left out has the user's number.
fn user(value: &[u8]) -> (u32, u32) {
    let (uid, gid) = split_once(value, b':');
    // The highest number means "unchanged" to setresuid(2).
    let id = |id| number(id, 0, u32::MAX - 1, "not a numeric UID or UID:GID");
    (id(uid), id(gid.unwrap_or(uid)))
}

#[inline(never)]
fn number(value: &[u8], least: u32, most: u32, what: &str) -> u32 {
    match addr::number(value, most) {
        Some(n) if n >= least => n,
        _ => wrong(what, Some(value)),
    }
}

fn print(text: &str) -> ! {
    let _ = rustix::io::write(sys::STDOUT, text.as_bytes());
    sys::_exit(0)
}

fn wrong(what: &str, typed: Option<&[u8]>) -> ! {
    message(|line| {
        line.str(what);
        if let Some(typed) = typed {
            line.str(" ").quoted(typed);
        }
        line.str("; see forkline --help");
    });
    sys::_exit(1)
}
