//! The command line, like getopt_long(3). An error in it ends the program
//! before anything is opened.

use crate::sys::{self, Global, Line, STDOUT, Sockaddr, Strings};
use crate::sys::{inet_pton, message, number, split_once};
use core::cell::Cell;

/// The parser reads the options from these lines: the letter from column 3, the
/// name from column 6.
const HELP: &str = "\
usage: forkline [OPTIONS] echo PORT
       forkline [OPTIONS] rot13 [PORT]
PORT 0 is any free port; rot13 without PORT listens on 50005.

  -b, --bind ADDR \t\tlisten on this address only
  -c, --max-children N \t\tserve at most N clients at once (1024)
  -C, --max-per-source N \tand at most N from one address or /64
  -g, --grace SECS \t\ttime to finish after SIGTERM (10)
  -r, --reuse-port \t\tshare the port with other servers
  -t, --idle SECS \t\tend connections that are silent for SECS
  -u, --user UID[:GID] \t\tbecome this user
  -q, --quiet \t\t\tdo not report lines
  -v, --verbose \t\tlog each client
  -h, --help \t\t\tshow this help
  -V, --version \t\tshow the version
";
const VERSION: &str = concat!("forkline ", env!("CARGO_PKG_VERSION"), "\n");

/// The most children that can be asked for.
pub const MOST_CHILDREN: u32 = 32768;
/// Seconds of a day: the longest time that can be asked for.
const DAY: u32 = 24 * 60 * 60;

#[derive(Clone, Copy)]
pub enum Service {
    Echo,
    Rot13,
}

pub struct Options {
    pub service: Cell<Service>,
    pub port: Cell<Option<u16>>,
    /// The address to listen on. Its family is 0 if none is given.
    pub host: Cell<Sockaddr>,
    pub max_children: Cell<u32>,
    pub max_per_source: Cell<u32>,
    pub grace_seconds: Cell<u32>,
    /// 0 means never.
    pub idle_seconds: Cell<u32>,
    /// The user and the group to become.
    pub user: Cell<Option<(u32, u32)>>,
    pub reuse_port: Cell<bool>,
    pub quiet: Cell<bool>,
    pub verbose: Cell<bool>,
}

pub static OPTIONS: Global<Options> = Global(Options {
    service: Cell::new(Service::Echo),
    port: Cell::new(None),
    host: Cell::new(Sockaddr::NONE),
    max_children: Cell::new(0),
    max_per_source: Cell::new(0),
    grace_seconds: Cell::new(0),
    idle_seconds: Cell::new(0),
    user: Cell::new(None),
    reuse_port: Cell::new(false),
    quiet: Cell::new(false),
    verbose: Cell::new(false),
});

/// Sets `OPTIONS`. Options may stand anywhere before `--`. With a socket that
/// was handed over echo needs no port.
pub fn getopt(mut args: Strings, has_socket: bool) -> &'static Options {
    OPTIONS.max_children.set(1024);
    OPTIONS.max_per_source.set(MOST_CHILDREN);
    OPTIONS.grace_seconds.set(10);
    let (mut operands, mut n, mut no_more_options) = ([None; 2], 0, false);
    args.next();
    while let Some(arg) = args.next() {
        match arg {
            b"--" if !no_more_options => no_more_options = true,
            [b'-', b'-', ..] if !no_more_options => long_option(arg, &mut args),
            [b'-', letters @ ..] if !no_more_options && !letters.is_empty() => {
                short_options(letters, &mut args);
            }
            _ => match operands.get_mut(n) {
                Some(operand) => (*operand, n) = (Some(arg), n + 1),
                None => wrong("one argument too many: ", arg),
            },
        }
    }
    let [service, port] = operands;
    match service {
        Some(b"echo") if port.is_none() && !has_socket => wrong("echo needs a port", b""),
        Some(b"echo") => OPTIONS.service.set(Service::Echo),
        Some(b"rot13") => OPTIONS.service.set(Service::Rot13),
        Some(other) => wrong("neither echo nor rot13: ", other),
        None => wrong("a service is missing: echo or rot13", b""),
    }
    OPTIONS.port.set(port.map(|port| Typed("port", b"", port).number(0, u16::MAX.into()) as u16));
    &OPTIONS
}

/// `--name`, `--name value` or `--name=value`
fn long_option(arg: &'static [u8], args: &mut Strings) {
    let (name, value) = split_once(arg, b'=');
    let mut lines = HELP.as_bytes().split(|&c| c == b'\n');
    let is_named = |line: &&[u8]| split_once(line.get(6..).unwrap_or_default(), b' ').0 == name;
    match lines.find(is_named) {
        Some([b' ', b' ', b'-', letter, ..]) => set(*letter, Typed("", name, b""), value, args),
        _ => wrong("unknown option: ", name),
    }
}

/// `-q`, `-b value`, `-bvalue`, or several letters in one argument
fn short_options(mut letters: &'static [u8], args: &mut Strings) {
    while let Some((name, rest)) = letters.split_at_checked(1)
        && let [letter] = name
    {
        let value = (takes_value(*letter) && !rest.is_empty()).then_some(rest);
        set(*letter, Typed("-", name, b""), value, args);
        letters = if takes_value(*letter) { &[] } else { rest };
    }
}

fn takes_value(letter: u8) -> bool {
    matches!(letter, b'b' | b'c' | b'C' | b'g' | b't' | b'u')
}

/// Does what the option `letter` says.
#[inline(never)]
fn set(letter: u8, mut typed: Typed, value: Option<&'static [u8]>, args: &mut Strings) {
    typed.2 = match (value, takes_value(letter)) {
        (Some(_), false) => wrong("option takes no value: ", typed.1),
        (None, false) => b"",
        (value, true) => {
            value.or_else(|| args.next()).unwrap_or_else(|| typed.wrong("needs a value"))
        }
    };
    match letter {
        b'b' => match inet_pton(typed.2) {
            Some(host) => OPTIONS.host.set(host),
            None => typed.wrong("not a numeric IPv4 or IPv6 address"),
        },
        b'c' => OPTIONS.max_children.set(typed.number(1, MOST_CHILDREN)),
        b'C' => OPTIONS.max_per_source.set(typed.number(1, MOST_CHILDREN)),
        b'g' => OPTIONS.grace_seconds.set(typed.number(0, DAY)),
        b'r' => OPTIONS.reuse_port.set(true),
        b't' => OPTIONS.idle_seconds.set(typed.number(0, DAY)),
        b'u' => OPTIONS.user.set(Some(typed.user())),
        b'q' => OPTIONS.quiet.set(true),
        b'v' => OPTIONS.verbose.set(true),
        b'h' => print(HELP),
        b'V' => print(VERSION),
        _ => wrong("unknown option: -", typed.1),
    }
}

/// What the user typed: a dash or a word, the option's name, and the value.
struct Typed(&'static str, &'static [u8], &'static [u8]);

impl Typed {
    #[inline(never)]
    fn number(&self, least: u32, most: u32) -> u32 {
        match number(self.2, most) {
            Some(n) if n >= least => n,
            _ => self.wrong_number(least, most),
        }
    }

    /// `UID` or `UID:GID`. A group that is left out has the user's number.
    fn user(&self) -> (u32, u32) {
        let (uid, gid) = split_once(self.2, b':');
        // The highest number means "unchanged" to setresuid(2).
        match (number(uid, u32::MAX - 1), number(gid.unwrap_or(uid), u32::MAX - 1)) {
            (Some(uid), Some(gid)) => (uid, gid),
            _ => self.wrong("not a numeric UID or UID:GID"),
        }
    }

    fn wrong_number(&self, least: u32, most: u32) -> ! {
        message(|line| {
            self.show(line).str("not a number from ").num(least as usize);
            line.str(" to ").num(most as usize);
        });
        sys::_exit(2)
    }

    #[inline(never)]
    fn wrong(&self, what: &str) -> ! {
        message(|line| _ = self.show(line).str(what));
        sys::_exit(2)
    }

    fn show<'l, 't>(&self, line: &'l mut Line<'t>) -> &'l mut Line<'t> {
        line.str(self.0).typed(self.1).str(" ").typed(self.2).str(": ")
    }
}

#[inline(never)]
fn wrong(what: &str, typed: &[u8]) -> ! {
    message(|line| _ = line.str(what).typed(typed));
    sys::_exit(2)
}

/// Prints `text` and ends the program.
fn print(text: &str) -> ! {
    let written = rustix::io::write(STDOUT, text.as_bytes());
    sys::_exit((written != Ok(text.len())) as i32)
}
