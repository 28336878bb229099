//! The command line, like getopt_long(3). An error in it ends the program
//! before anything is opened.

use crate::sys::{self, Global, Line, STDOUT, Sockaddr, Strings};
use crate::sys::{inet_pton, message, number, split, split_once};
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
/// the least and the greatest value. An option that takes no value sets 1.
const SETTINGS: [(u8, u32, u32, u32); 9] = [
    (b'c', 1024, 1, MOST_CHILDREN),
    (b'C', MOST_CHILDREN, 1, MOST_CHILDREN),
    (b'g', 10, 0, DAY),
    (b't', 0, 0, DAY),
    (b'u', NOBODY, 0, NOBODY - 1),
    (0, NOBODY, 0, NOBODY - 1),
    (b'r', 0, 1, 1),
    (b'q', 0, 1, 1),
    (b'v', 0, 1, 1),
];

static VALUES: Global<[Cell<u32>; 9]> = Global([const { Cell::new(0) }; _]);
/// The addresses to try to listen on.
pub static HOSTS: Global<[Cell<Sockaddr>; 2]> = Global([const { Cell::new(Sockaddr::NONE) }; _]);

impl Setting {
    pub fn get(self) -> u32 {
        VALUES[self as usize].get()
    }

    pub fn is_on(self) -> bool {
        self.get() > 0
    }
}

/// Reads the options, and returns the service and the port. Options may stand
/// anywhere before `--`. With a socket that was handed over echo needs no port.
pub fn getopt(mut args: Strings, has_socket: bool) -> (Service, Option<u16>) {
    for (value, setting) in VALUES.iter().zip(&SETTINGS) {
        value.set(setting.1);
    }
    HOSTS[0].set(Sockaddr::ANY6);
    HOSTS[1].set(Sockaddr::ANY);
    let (mut service, mut port, mut no_more_options) = (None, None, false);
    args.next();
    while let Some(arg) = args.next() {
        match arg {
            b"--" if !no_more_options => no_more_options = true,
            [b'-', b'-', ..] if !no_more_options => long_option(arg, &mut args),
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

/// `--name`, `--name value` or `--name=value`
fn long_option(arg: &'static [u8], args: &mut Strings) {
    let (name, value) = split_once(arg, b'=');
    let mut lines = split(HELP.as_bytes(), b'\n');
    let is_named = |line: &&[u8]| split_once(line.get(6..).unwrap_or_default(), b' ').0 == name;
    match lines.find(is_named) {
        Some([b' ', b' ', b'-', letter, ..]) => set(*letter, name, value, args),
        _ => wrong("unknown option: ", name),
    }
}

/// `-q`, `-b value`, `-bvalue`, or several letters in one argument
fn short_options(mut arg: &'static [u8], args: &mut Strings) {
    while let [_, rest @ ..] = arg
        && let [letter, value @ ..] = rest
    {
        let attached = takes_value(*letter) && !value.is_empty();
        set(*letter, &[b'-', *letter], attached.then_some(value), args);
        arg = if takes_value(*letter) { &[] } else { rest };
    }
}

fn takes_value(letter: u8) -> bool {
    matches!(letter, b'b' | b'c' | b'C' | b'g' | b't' | b'u')
}

/// Does what the option `letter` says. The user typed it as `name`.
#[inline(never)]
fn set(letter: u8, name: &[u8], value: Option<&'static [u8]>, args: &mut Strings) {
    let value = match value {
        Some(_) if !takes_value(letter) => wrong("option takes no value: ", name),
        None if takes_value(letter) => args.next(),
        value => value.or(Some(b"1")),
    };
    let value = value.unwrap_or_else(|| wrong("value missing after ", name));
    match (letter, SETTINGS.iter().zip(&*VALUES).find(|(setting, _)| setting.0 == letter)) {
        (b'h', _) => print(HELP),
        (b'V', _) => print(VERSION),
        (b'b', _) => match inet_pton(value) {
            Some(host) => {
                HOSTS[0].set(host);
                HOSTS[1].set(Sockaddr::NONE);
            }
            None => {
                wrong_value(&mut message(), name, value).str("not a numeric IP address").end();
                sys::_exit(2)
            }
        },
        (b'u', _) => {
            let (uid, gid) = split_once(value, b':');
            let id = |text| Cell::new(typed_number(name, text, 0, NOBODY - 1));
            VALUES[Setting::Uid as usize].swap(&id(uid));
            VALUES[Setting::Gid as usize].swap(&id(gid.unwrap_or(uid)));
        }
        (_, Some((&(_, _, least, most), cell))) => cell.set(typed_number(name, value, least, most)),
        (_, None) => wrong("unknown option: ", name),
    }
}

/// The value of the option `name`, a number in these bounds.
#[inline(never)]
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

#[inline(never)]
fn wrong_value<'a>(line: &'a mut Line, name: &[u8], value: &[u8]) -> &'a mut Line {
    line.typed(name).str(" ").typed(value).str(": ")
}

#[inline(never)]
fn wrong(what: &str, typed: &[u8]) -> ! {
    message().str(what).typed(typed).end();
    sys::_exit(2)
}

/// Prints `text` and ends the program.
fn print(text: &str) -> ! {
    let written = rustix::io::write(STDOUT, text.as_bytes());
    sys::_exit((written != Ok(text.len())) as i32)
}
