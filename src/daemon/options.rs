//! The command line, like getopt_long(3). An error in it ends the program
//! before the server opens its listening socket.

use crate::sys::{self, Global, Line, STDOUT, Sockaddr, Strings};
use crate::sys::{inet_pton, lines, message, number, split_once};

/// `letter` finds the options here: the letter in column 3, the name from column 6.
const HELP: &str = "\
usage: forkline [OPTIONS] echo PORT | rot13 [PORT]
PORT 0: any free. rot13 without PORT: 50005.

  -b, --bind ADDR \t\tlisten on ADDR
  -c, --max-children N \t\tat most N clients (1024)
  -C, --max-per-source N \tat most N of one address or /64
  -g, --grace SECS \t\ttime to finish at SIGTERM (10)
  -r, --reuse-port \t\tshare the port
  -R, --raw \t\t\tbytes, not lines
  -t, --idle SECS \t\tend after SECS idle
  -u, --user UID[:GID] \t\tbecome UID
  -q, --quiet \t\t\tno reports
  -v, --verbose \t\tlog clients
  -h, --help \t\t\thelp
  -V, --version \t\tversion
";
const VERSION: &str = concat!("forkline ", env!("CARGO_PKG_VERSION"), "\n");

#[derive(Clone, Copy)]
pub enum Service {
    Echo,
    Rot13,
}

/// The addresses to try, in this order; with -b only that one.
pub static HOSTS: [Global<Sockaddr>; 2] = [const { Global::new(Sockaddr::NONE) }; 2];
/// -c
pub static MAX_CHILDREN: Global<u32> = Global::new(0);
/// -C: `MOST_CHILDREN` means no limit.
pub static MAX_PER_SOURCE: Global<u32> = Global::new(0);
/// -g
pub static GRACE_SECONDS: Global<u32> = Global::new(0);
/// -r
pub static REUSE_PORT: Global<bool> = Global::new(false);
/// -R
pub static RAW: Global<bool> = Global::new(false);
/// -t, in milliseconds: 0 means never.
pub static IDLE: Global<u32> = Global::new(0);
/// -u: `NOBODY` means that the user stays.
pub static UID: Global<u32> = Global::new(0);
pub static GID: Global<u32> = Global::new(0);
/// -q
pub static QUIET: Global<bool> = Global::new(false);
/// -v
pub static VERBOSE: Global<bool> = Global::new(false);

/// The most children that can be asked for.
pub const MOST_CHILDREN: u32 = 32768;
/// Seconds of a day: the longest time that can be asked for.
const DAY: u32 = 24 * 60 * 60;
/// The number that means "unchanged" to setresuid(2).
pub const NOBODY: u32 = u32::MAX;

/// Reads the options, and returns the service and the port. Options may stand
/// anywhere before `--`. With a socket that was handed over echo needs no port.
pub fn getopt(mut args: Strings, has_socket: bool) -> (Service, Option<u16>) {
    HOSTS[0].set(Sockaddr::any(libc::AF_INET6));
    HOSTS[1].set(Sockaddr::any(libc::AF_INET));
    MAX_CHILDREN.set(1024);
    MAX_PER_SOURCE.set(MOST_CHILDREN);
    GRACE_SECONDS.set(10);
    UID.set(NOBODY);
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
        None => wrong("a service is missing: echo or rot13", b""),
        Some(name) if name == b"rot13" => Service::Rot13,
        Some(name) if name != b"echo" => wrong("neither echo nor rot13: ", name),
        _ if port.is_none() && !has_socket => wrong("echo needs a port", b""),
        _ => Service::Echo,
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

/// The letter of the option `name`, which is `-c` or `--max-children`.
fn letter(name: &[u8]) -> Option<u8> {
    lines(HELP.as_bytes()).find_map(|line| {
        let (short, long) = line.split_at_checked(6)?;
        (short[2..4] == *name || split_once(long, b' ').0 == name).then_some(short[3])
    })
}

/// Does what the option `name` says. Returns whether it takes a value, which is
/// `value` or the next argument.
fn option(name: &[u8], value: Option<&'static [u8]>, args: &mut Strings) -> bool {
    let letter = letter(name).unwrap_or_else(|| wrong("unknown option: ", name));
    let takes_value = matches!(letter, b'b' | b'c' | b'C' | b'g' | b't' | b'u');
    let has_value = value.is_some_and(|value| name.len() > 2 || value.first() == Some(&b'='));
    if !takes_value && has_value {
        wrong("option takes no value: ", name);
    }
    let value = if takes_value { value.or_else(|| args.next()) } else { Some(&b""[..]) };
    let value = value.unwrap_or_else(|| wrong("value missing after ", name));
    match letter {
        b'b' => {
            let Some(host) = inet_pton(value) else {
                usage(wrong_value(name, value).str("not a numeric IP address"))
            };
            HOSTS[0].set(host);
            HOSTS[1].set(Sockaddr::NONE);
        }
        b'c' => MAX_CHILDREN.set(typed_number(name, value, 1, MOST_CHILDREN)),
        b'C' => MAX_PER_SOURCE.set(typed_number(name, value, 1, MOST_CHILDREN)),
        b'g' => GRACE_SECONDS.set(typed_number(name, value, 0, DAY)),
        b'r' => REUSE_PORT.set(true),
        b'R' => RAW.set(true),
        b't' => IDLE.set(1000 * typed_number(name, value, 0, DAY)),
        b'u' => {
            let (uid, gid) = split_once(value, b':');
            let most = NOBODY - 1;
            match (number(uid, most), number(gid.unwrap_or(uid), most)) {
                (Some(uid), Some(gid)) => (UID.set(uid), GID.set(gid)),
                // It is no number, either: the program ends.
                _ => (UID.set(typed_number(name, value, 0, most)), ()),
            };
        }
        b'q' => QUIET.set(true),
        b'v' => VERBOSE.set(true),
        b'h' => print(HELP),
        _ => print(VERSION),
    }
    takes_value
}

/// The value of the option `name`, a number in these bounds.
fn typed_number(name: &[u8], value: &[u8], least: u32, most: u32) -> u32 {
    if let Some(n) = number(value, most).filter(|&n| n >= least) {
        return n;
    }
    let line = wrong_value(name, value).str("not a number from ");
    usage(line.num(least as usize).str(" to ").num(most as usize))
}

fn wrong_value(name: &[u8], value: &[u8]) -> &'static mut Line {
    message("").typed(name).str(" ").typed(value).str(": ")
}

fn wrong(what: &str, typed: &[u8]) -> ! {
    usage(message(what).typed(typed))
}

/// Ends the program with this message.
fn usage(line: &mut Line) -> ! {
    line.str("; try --help").end();
    sys::_exit(2)
}

/// Prints `text` and ends the program.
fn print(text: &str) -> ! {
    let written = rustix::io::write(STDOUT, text.as_bytes());
    sys::_exit((written != Ok(text.len())) as i32)
}
