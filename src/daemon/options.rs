//! The command line, like getopt_long(3). An error in it ends the program
//! before the server opens its listening socket.

use crate::sys::{self, Global, Line, STDOUT, Sockaddr, Strings};
use crate::sys::{inet_pton, message, number, split_once};
use core::cell::Cell;

/// The parser reads the options from these lines: the letter from column 3, the
/// name from column 6.
const HELP: &str = "\
usage: forkline [OPTIONS] echo PORT | rot13 [PORT]
PORT 0: any free one. rot13 without PORT: 50005.

  -b, --bind ADDR \t\tlisten on ADDR only
  -c, --max-children N \t\tat most N clients (1024)
  -C, --max-per-source N \tat most N of one address or /64
  -g, --grace SECS \t\ttime to finish at SIGTERM (10)
  -r, --reuse-port \t\tshare the port
  -R, --raw \t\t\tbytes, not lines
  -t, --idle SECS \t\tend after SECS of silence
  -u, --user UID[:GID] \t\tbecome UID
  -q, --quiet \t\t\tno reports
  -v, --verbose \t\tlog clients
  -h, --help \t\t\tthis help
  -V, --version \t\tthe version
";
const VERSION: &str = concat!("forkline ", env!("CARGO_PKG_VERSION"), "\n");

#[derive(Clone, Copy)]
pub enum Service {
    Echo,
    Rot13,
}

/// What the options set.
#[derive(Clone, Copy)]
pub enum Setting {
    MaxChildren,
    MaxPerSource,
    GraceSeconds,
    /// 0 means never.
    IdleSeconds,
    /// `NOBODY` means that the user stays.
    Uid,
    Gid,
    /// 1 or 0, like all that follow.
    ReusePort,
    Raw,
    Quiet,
    Verbose,
}

/// The most children that can be asked for.
pub const MOST_CHILDREN: u32 = 32768;
/// Seconds of a day: the longest time that can be asked for.
const DAY: u32 = 24 * 60 * 60;
/// The number that means "unchanged" to setresuid(2).
pub const NOBODY: u32 = u32::MAX;

/// In the order of `Setting`: the option's letter, the value without it, and
/// the least and the greatest value. An option that takes no value sets 1. `-u`
/// sets two values and has its own bounds.
const SETTINGS: [(u8, u32, u32, u32); 10] = [
    (b'c', 1024, 1, MOST_CHILDREN),
    (b'C', MOST_CHILDREN, 1, MOST_CHILDREN),
    (b'g', 10, 0, DAY),
    (b't', 0, 0, DAY),
    (b'u', NOBODY, 0, 0),
    (0, NOBODY, 0, 0),
    (b'r', 0, 1, 1),
    (b'R', 0, 1, 1),
    (b'q', 0, 1, 1),
    (b'v', 0, 1, 1),
];

static VALUES: Global<[Cell<u32>; 10]> = Global([const { Cell::new(0) }; _]);
/// The address to listen on, if one was given.
pub static HOST: Global<Cell<Sockaddr>> = Global(Cell::new(Sockaddr::NONE));

impl Setting {
    pub fn get(self) -> u32 {
        VALUES[self as usize].get()
    }
}

/// Reads the options, and returns the service and the port. Options may stand
/// anywhere before `--`. With a socket that was handed over echo needs no port.
pub fn getopt(mut args: Strings, has_socket: bool) -> (Service, Option<u16>) {
    for (value, setting) in VALUES.iter().zip(&SETTINGS) {
        value.set(setting.1);
    }
    let (mut service, mut port, mut no_more_options) = (None, None, false);
    args.next();
    while let Some(arg) = args.next() {
        match arg {
            b"--" if !no_more_options => no_more_options = true,
            [b'-', b'-', ..] if !no_more_options => {
                let (name, value) = split_once(arg, b'=');
                option(name, value, &mut args);
            }
            [b'-', _, ..] if !no_more_options => short_options(arg, &mut args),
            _ if service.is_none() => service = Some(arg),
            _ if port.is_none() => port = Some(arg),
            _ => wrong("one argument too many: ", arg),
        }
    }
    let service = match service {
        Some(b"echo") if port.is_none() && !has_socket => wrong("echo needs a port", b""),
        Some(b"echo") => Service::Echo,
        Some(b"rot13") => Service::Rot13,
        Some(other) => wrong("neither echo nor rot13: ", other),
        None => wrong("a service is missing: echo or rot13", b""),
    };
    let wrong_port = |port| wrong("not a port from 0 to 65535: ", port);
    (service, port.map(|port| number(port, 65535).unwrap_or_else(|| wrong_port(port)) as u16))
}

/// `-q`, `-b value`, `-bvalue`, or several letters in one argument
fn short_options(arg: &'static [u8], args: &mut Strings) {
    let mut letters = arg.get(1..).unwrap_or_default();
    while let [letter, rest @ ..] = letters {
        let value = (!rest.is_empty()).then_some(rest);
        letters = if option(&[b'-', *letter], value, args) { &[] } else { rest };
    }
}

/// Does what the option `name` says. Returns whether it takes a value, which is
/// `value` or the next argument.
fn option(name: &[u8], value: Option<&'static [u8]>, args: &mut Strings) -> bool {
    let mut lines =
        HELP.as_bytes().split(|&c| c == b'\n').filter_map(|line| line.split_at_checked(6));
    let found =
        lines.find(|(short, rest)| short[2..4] == *name || split_once(rest, b' ').0 == name);
    let Some(([_, _, _, letter, ..], rest)) = found else {
        wrong("unknown option: ", name);
    };
    let takes_value = split_once(rest, b' ').1.unwrap_or_default().first() != Some(&b'\t');
    let is_long = name.len() > 2;
    let value = match value {
        Some(_) if is_long && !takes_value => wrong("option takes no value: ", name),
        _ if !takes_value => b"1",
        value => {
            value.or_else(|| args.next()).unwrap_or_else(|| wrong("value missing after ", name))
        }
    };
    match (letter, SETTINGS.iter().zip(&*VALUES).find(|(setting, _)| setting.0 == *letter)) {
        (b'h', _) => print(HELP),
        (b'V', _) => print(VERSION),
        (b'u', _) => {
            let (uid, gid) = split_once(value, b':');
            let id = |text| Cell::new(typed_number(name, text, 0, NOBODY - 1));
            VALUES[Setting::Uid as usize].swap(&id(uid));
            VALUES[Setting::Gid as usize].swap(&id(gid.unwrap_or(uid)));
        }
        (_, Some((&(_, _, least, most), cell))) => cell.set(typed_number(name, value, least, most)),
        (_, None) => HOST.set(inet_pton(value).unwrap_or_else(|| {
            wrong_value(&mut message(), name, value).str("not a numeric IP address").end();
            sys::_exit(2)
        })),
    }
    takes_value
}

/// The value of the option `name`, a number in these bounds.
fn typed_number(name: &[u8], value: &[u8], least: u32, most: u32) -> u32 {
    match number(value, most) {
        Some(n) if n >= least => n,
        _ => {
            let mut line = message();
            wrong_value(&mut line, name, value).str("not a number from ").num(least as usize);
            line.str(" to ").num(most as usize).end();
            sys::_exit(2)
        }
    }
}

fn wrong_value<'a>(line: &'a mut Line, name: &[u8], value: &[u8]) -> &'a mut Line {
    line.typed(name).str(" ").typed(value).str(": ")
}

fn wrong(what: &str, typed: &[u8]) -> ! {
    message().str(what).typed(typed).end();
    sys::_exit(2)
}

/// Prints `text` and ends the program.
fn print(text: &str) -> ! {
    let written = rustix::io::write(STDOUT, text.as_bytes());
    sys::_exit((written != Ok(text.len())) as i32)
}
