//! The command line. Whatever is wrong with it ends the program here, before
//! anything is opened.

use crate::SERV_PORT;
use crate::addr;
use crate::line::message;
use crate::sys::{self, Args};
use core::net::IpAddr;

const HELP: &str = "\
usage: forkline [OPTIONS] echo PORT
       forkline [OPTIONS] rot13 [PORT]

echo sends every line back and reports its length on standard output;
rot13 sends it back with its letters rotated by 13, on port 50005 unless
PORT is given. PORT 0 lets the kernel choose. One child process serves each
connection.

  -b, --bind ADDR   listen on this numeric IPv4 or IPv6 address only
  -q, --quiet       echo: report nothing
  -h, --help        show this help
  -V, --version     show the version
";
const VERSION: &str = concat!("forkline ", env!("CARGO_PKG_VERSION"), "\n");

pub struct Options {
    pub service: Service,
    pub port: u16,
    /// The only address to listen on.
    pub host: Option<IpAddr>,
    pub quiet: bool,
}

#[derive(Clone, Copy)]
pub enum Service {
    Echo,
    Rot13,
}

/// Options, service and port, in this order, as getopt_long(3) reads them.
pub fn parse(mut args: Args) -> Options {
    let mut options = Options { service: Service::Echo, port: SERV_PORT, host: None, quiet: false };
    args.next();
    let service = loop {
        match args.next() {
            Some(b"--") => break args.next(),
            Some(arg @ [b'-', b'-', name @ ..]) => long_option(&mut options, arg, name, &mut args),
            Some(arg @ [b'-', _, ..]) => short_options(&mut options, arg, &mut args),
            other => break other,
        }
    };
    let port = args.next();
    options.service = match service {
        Some(b"echo") if port.is_none() => wrong("echo needs a port", None),
        Some(b"echo") => Service::Echo,
        Some(b"rot13") => Service::Rot13,
        Some(other) => wrong("unknown service", Some(other)),
        None => wrong("a service is missing: echo or rot13", None),
    };
    if let Some(port) = port {
        options.port = match addr::number(port, u16::MAX.into()) {
            Some(port) => port as u16,
            None => wrong("not a port from 0 to 65535", Some(port)),
        };
    }
    match args.next() {
        Some(more) => wrong("too many arguments at", Some(more)),
        None => options,
    }
}

/// `--name`, `--name value` or `--name=value`.
fn long_option(options: &mut Options, arg: &'static [u8], name: &'static [u8], args: &mut Args) {
    let mut parts = name.splitn(2, |&c| c == b'=');
    let letter = match parts.next() {
        Some(b"bind") => b'b',
        Some(b"quiet") => b'q',
        Some(b"help") => b'h',
        Some(b"version") => b'V',
        _ => wrong("unknown option", Some(arg)),
    };
    match (parts.next(), takes_value(letter)) {
        (Some(_), false) => wrong("no value goes with option", Some(arg)),
        (None, true) => set(options, letter, arg, args.next()),
        (value, _) => set(options, letter, arg, value),
    }
}

/// `-q`, `-b value`, `-bvalue`, or several letters in one.
fn short_options(options: &mut Options, arg: &'static [u8], args: &mut Args) {
    let mut letters = arg.get(1..).unwrap_or_default();
    while let [letter, rest @ ..] = letters {
        if takes_value(*letter) {
            let value = if rest.is_empty() { args.next() } else { Some(rest) };
            return set(options, *letter, arg, value);
        }
        set(options, *letter, arg, None);
        letters = rest;
    }
}

fn takes_value(letter: u8) -> bool {
    letter == b'b'
}

/// Does what the option `letter`, typed as `arg`, says.
fn set(options: &mut Options, letter: u8, arg: &[u8], value: Option<&[u8]>) {
    if takes_value(letter) && value.is_none() {
        wrong("a value is missing after", Some(arg));
    }
    let value = value.unwrap_or_default();
    match letter {
        b'b' => match addr::parse(value) {
            Some(ip) => options.host = Some(ip),
            None => wrong("not a numeric IPv4 or IPv6 address", Some(value)),
        },
        b'q' => options.quiet = true,
        b'h' => print(HELP),
        b'V' => print(VERSION),
        _ => wrong("unknown option", Some(arg)),
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
