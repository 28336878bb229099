//! The command line: what is wrong with it is named, and nothing is opened.

use crate::common::messages::TRY;
use crate::common::*;
use crate::listening::ends_with;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

/// What is said about it, and the command line.
const WRONG: &[(&str, &[&str])] = &[
    ("a service is missing: echo or rot13", &[]),
    ("a service is missing: echo or rot13", &["--"]),
    ("a service is missing: echo or rot13", &["-q"]),
    ("a service is missing: echo or rot13", &["-b", "::1"]),
    ("neither echo nor rot13: ", &["", "7"]),
    ("neither echo nor rot13: -", &["-", "7"]),
    ("neither echo nor rot13: Echo", &["Echo", "7"]),
    ("neither echo nor rot13: echo ", &["echo ", "7"]),
    ("neither echo nor rot13: ech", &["ech", "7"]),
    ("neither echo nor rot13: 7", &["7"]),
    ("neither echo nor rot13: -q", &["--", "-q", "7"]),
    ("neither echo nor rot13: --", &["--", "--", "7"]),
    ("unknown option: -x", &["-x", "echo", "7"]),
    ("unknown option: -x", &["-qx", "echo", "7"]),
    ("unknown option: -Q", &["-Q", "echo", "7"]),
    ("unknown option: -7", &["-7"]),
    ("unknown option: --binds", &["--binds", "::1", "echo", "7"]),
    ("unknown option: --qui", &["--qui", "echo", "7"]),
    ("unknown option: --", &["--=x", "echo", "7"]),
    ("unknown option: ---", &["---", "echo", "7"]),
    ("option takes no value: --quiet", &["--quiet=1", "echo", "7"]),
    ("option takes no value: --help", &["--help="]),
    ("option takes no value: --reuse-port", &["--reuse-port=yes", "echo", "7"]),
    ("option takes no value: --version", &["-v", "--version=1"]),
    ("option takes no value: -r", &["-r=1", "echo", "7"]),
    ("option takes no value: -v", &["-qv=1", "echo", "7"]),
    ("unknown option: -=", &["-=1", "echo", "7"]),
    ("value missing after -b", &["-b"]),
    ("value missing after -b", &["-qb"]),
    ("value missing after --bind", &["--bind"]),
    ("value missing after --idle", &["echo", "7", "--idle"]),
    ("-c 0: not a number from 1 to 32768", &["-c", "0", "echo", "7"]),
    ("-c 32769: not a number from 1 to 32768", &["-c32769", "echo", "7"]),
    ("--max-per-source 0: not a number from 1 to 32768", &["--max-per-source=0", "echo", "7"]),
    ("-g -1: not a number from 0 to 86400", &["-g", "-1", "echo", "7"]),
    ("-t 86401: not a number from 0 to 86400", &["-t", "86401", "echo", "7"]),
    ("-t : not a number from 0 to 86400", &["-t", "", "echo", "7"]),
    ("-u root: not a number from 0 to 4294967294", &["-u", "root", "echo", "7"]),
    ("-u 1:: not a number from 0 to 4294967294", &["-u", "1:", "echo", "7"]),
    ("-u 4294967295: not a number from 0 to 4294967294", &["-u", "4294967295", "echo", "7"]),
    ("-c +5: not a number from 1 to 32768", &["-rqvc+5", "echo", "7"]),
    ("--max-children : not a number from 1 to 32768", &["--max-children=", "echo", "7"]),
    ("-C 32769: not a number from 1 to 32768", &["echo", "-C", "32769", "7"]),
    ("--grace echo: not a number from 0 to 86400", &["--grace", "echo", "7"]),
    ("--idle 1.5: not a number from 0 to 86400", &["--idle=1.5", "echo", "7"]),
    ("-u :1: not a number from 0 to 4294967294", &["-u:1", "echo", "7"]),
    ("-u 1:2:3: not a number from 0 to 4294967294", &["-u1:2:3", "echo", "7"]),
    ("--user 1:nobody: not a number from 0 to 4294967294", &["--user=1:nobody", "echo", "7"]),
    ("-u 1:4294967295: not a number from 0 to 4294967294", &["-u", "1:4294967295", "echo", "7"]),
    ("echo needs a port", &["echo"]),
    ("echo needs a port", &["-q", "--", "echo"]),
    ("echo needs a port", &["echo", "-q"]),
    ("one argument too many: 8", &["echo", "7", "8"]),
    ("one argument too many: 8", &["echo", "7", "-q", "8"]),
    ("one argument too many: -q", &["rot13", "--", "7", "-q"]),
    ("one argument too many: ", &["rot13", "7", ""]),
];

/// Each between two bars.
const NO_PORTS: &str = concat!(
    "| |-1|-0|+7| 7|7 |7\n|7a|a7|0x7|7.0|7,0|1e3|1_0|--|-q|http|65536|65537|99999|4294967295|",
    "4294967296|4294967303|18446744073709551616|18446744073709551623|99999999999999999999|٧|７",
);

/// Likewise.
const NO_ADDRESSES: &str = concat!(
    "| |localhost|echo|-q|--|*|7|0|0x7f000001|1.2.3|1.2.3.4.5|1.2.3.|.1.2.3|1..2.3|1.2.3.4.|",
    " 1.2.3.4|1.2.3.4 |1.2.3.-4|1.2.3.+4|256.0.0.1|1.2.3.256|1.2.3.4294967297|01.2.3.4|",
    "0x1.2.3.4|1.2.3.4:7|1.2.3.a|:|:::|:1|1:|::1:|:1::|::g|::12345|1::2::3|1:2:3:4:5:6:7|",
    "1:2:3:4:5:6:7:8:9|1:2:3:4:5:6:7:8::|::1:2:3:4:5:6:7:8|1:2:3:4::5:6:7:8|[::1]|::1%lo|",
    "fe80::1%1|::1/128|::+1|::-1|::1.2.3|::1.2.3.256|::1.2.3.4:5|1.2.3.4::|",
    "1:2:3:4:5:6:7:1.2.3.4|::ffff:1.2.3.4.5|::1 ",
);

#[test]
fn a_wrong_command_line_is_named_and_opens_nothing() {
    let watched = tool("strace");
    for (message, args) in WRONG {
        refuses(message, args, watched);
    }
    for port in NO_PORTS.split('|') {
        let message = format!("{NO_PORT}: {}", shown(port.as_bytes()));
        refuses(&message, &["echo", "--", port], watched);
        refuses(&message, &["rot13", "--", port], watched);
    }
    for address in NO_ADDRESSES.split('|') {
        refuses(&no_address("-b", address), &["-b", address, "echo", "7"], watched);
    }
    refuses(&no_address("-b", "localhost"), &["-blocalhost", "echo", "7"], watched);
    refuses(&no_address("--bind", "localhost"), &["echo", "7", "--bind=localhost"], watched);
}

/// What the terminal would take as a command, and what is not UTF-8.
#[test]
fn a_wrong_argument_is_shown_safely() {
    let all: Vec<u8> = (1..=255).collect();
    let red = b"\x1b[31m\nforkline: \xff\xfe\x80";
    for bytes in all.chunks(64).chain([&red[..]]) {
        refuses(
            &format!("neither echo nor rot13: {}", shown(bytes)),
            &[OsStr::from_bytes(bytes)],
            false,
        );
    }
    let long = "x".repeat(100_000);
    let beginning = &long[..64];
    refuses(&format!("neither echo nor rot13: {beginning}..."), &[&long], false);
    refuses(&format!("neither echo nor rot13: {beginning}"), &[beginning], false);
}

#[test]
fn help_and_version_go_to_stdout() {
    let version = concat!("forkline ", env!("CARGO_PKG_VERSION"), "\n");
    for args in [&["-V"][..], &["--version"], &["-qV"], &["-b", "::1", "-V", "nonsense"]] {
        let output = run(&mut forkline(args));
        assert_eq!((text(&output.stdout), text(&output.stderr)), (version.into(), "".into()));
        assert_eq!(output.status.code(), Some(0), "{args:?}");
    }
    for args in [&["-h"][..], &["--help"], &["-qh"], &["-h", "-x"]] {
        let output = run(&mut forkline(args));
        assert_eq!(text(&output.stderr), "");
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        let help = text(&output.stdout);
        assert!(help.starts_with("usage: forkline ") && help.ends_with('\n'), "{help}");
        for named in ["echo", "rot13", "-b, --bind", "-q, --quiet", "-h, --help", "-V, --version"] {
            assert!(help.contains(named), "no {named} in the help");
        }
    }
}

#[test]
fn help_that_cannot_be_written_is_a_failure() {
    for argument in ["--help", "--version"] {
        let mut sh = Command::new("sh");
        sh.args(["-c", r#""$0" "$@" >/dev/full"#]).args(command_line(&[argument]));
        assert_eq!(run(&mut sh).status.code(), Some(1), "{argument}");
    }
}

const NO_PORT: &str = "not a port from 0 to 65535";

fn no_address(option: &str, value: &str) -> String {
    format!("{option} {value}: not a numeric IP address")
}

/// It says so and ends with status 2, without a socket call where strace can tell.
fn refuses(message: &str, args: &[impl AsRef<OsStr>], watched: bool) {
    let calls = scratch("calls");
    let mut command = forkline(&[]);
    if watched {
        command = traced(&calls, "-e trace=network", &[]);
    }
    ends_with(2, &format!("{message}{TRY}"), command.args(args));
    if watched {
        assert_eq!(fs::read_to_string(&*calls).expect("strace's output"), "");
    }
}
