//! The command line, and how a listening socket comes about.

use crate::common::*;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

// ---------------------------------------------------------------- command line

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
    ("unknown option: -=", &["-r=1", "echo", "7"]),
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
    ("-u : not a number from 0 to 4294967294", &["-u", "1:", "echo", "7"]),
    ("-u 4294967295: not a number from 0 to 4294967294", &["-u", "4294967295", "echo", "7"]),
    ("-c +5: not a number from 1 to 32768", &["-rqvc+5", "echo", "7"]),
    ("--max-children : not a number from 1 to 32768", &["--max-children=", "echo", "7"]),
    ("-C 32769: not a number from 1 to 32768", &["echo", "-C", "32769", "7"]),
    ("--grace echo: not a number from 0 to 86400", &["--grace", "echo", "7"]),
    ("--idle 1.5: not a number from 0 to 86400", &["--idle=1.5", "echo", "7"]),
    ("-u : not a number from 0 to 4294967294", &["-u:1", "echo", "7"]),
    ("-u 2:3: not a number from 0 to 4294967294", &["-u1:2:3", "echo", "7"]),
    ("--user nobody: not a number from 0 to 4294967294", &["--user=1:nobody", "echo", "7"]),
    ("-u 4294967295: not a number from 0 to 4294967294", &["-u", "1:4294967295", "echo", "7"]),
    ("echo needs a port", &["echo"]),
    ("echo needs a port", &["-q", "--", "echo"]),
    ("echo needs a port", &["echo", "-q"]),
    ("one argument too many: 8", &["echo", "7", "8"]),
    ("one argument too many: 8", &["echo", "7", "-q", "8"]),
    ("one argument too many: -q", &["rot13", "--", "7", "-q"]),
    ("one argument too many: ", &["rot13", "7", ""]),
];

const NO_PORTS: &[&str] = &[
    "",
    " ",
    "-1",
    "-0",
    "+7",
    " 7",
    "7 ",
    "7\n",
    "7a",
    "a7",
    "0x7",
    "7.0",
    "7,0",
    "1e3",
    "1_0",
    "--",
    "-q",
    "http",
    "65536",
    "65537",
    "99999",
    "4294967295",
    "4294967296",
    "4294967303",
    "18446744073709551616",
    "18446744073709551623",
    "99999999999999999999",
    "٧",
    "７",
];

const NO_ADDRESSES: &[&str] = &[
    "",
    " ",
    "localhost",
    "echo",
    "-q",
    "--",
    "*",
    "7",
    "0",
    "0x7f000001",
    "1.2.3",
    "1.2.3.4.5",
    "1.2.3.",
    ".1.2.3",
    "1..2.3",
    "1.2.3.4.",
    " 1.2.3.4",
    "1.2.3.4 ",
    "1.2.3.-4",
    "1.2.3.+4",
    "256.0.0.1",
    "1.2.3.256",
    "1.2.3.4294967297",
    "01.2.3.4",
    "0x1.2.3.4",
    "1.2.3.4:7",
    "1.2.3.a",
    ":",
    ":::",
    ":1",
    "1:",
    "::1:",
    ":1::",
    "::g",
    "::12345",
    "1::2::3",
    "1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:8:9",
    "1:2:3:4:5:6:7:8::",
    "::1:2:3:4:5:6:7:8",
    "1:2:3:4::5:6:7:8",
    "[::1]",
    "::1%lo",
    "fe80::1%1",
    "::1/128",
    "::+1",
    "::-1",
    "::1.2.3",
    "::1.2.3.256",
    "::1.2.3.4:5",
    "1.2.3.4::",
    "1:2:3:4:5:6:7:1.2.3.4",
    "::ffff:1.2.3.4.5",
    "::1 ",
];

#[test]
fn a_wrong_command_line_is_named_and_opens_nothing() {
    let traced = tool("strace");
    for (message, args) in WRONG {
        refuses(message, args, traced);
    }
    for port in NO_PORTS {
        let message = format!("{NO_PORT}: {}", shown(port.as_bytes()));
        refuses(&message, &["echo", "--", port], traced);
        refuses(&message, &["rot13", "--", port], traced);
    }
    for address in NO_ADDRESSES {
        refuses(&no_address("-b", address), &["-b", address, "echo", "7"], traced);
    }
    refuses(&no_address("-b", "localhost"), &["-blocalhost", "echo", "7"], traced);
    refuses(&no_address("--bind", "localhost"), &["echo", "7", "--bind=localhost"], traced);
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

// ---------------------------------------------------------------- listening

#[test]
fn it_says_once_where_it_listens() {
    let forms: [(&[&str], &str); 14] = [
        (&["echo", "0"], "echo listening on [::]"),
        (&["rot13", "0"], "rot13 listening on [::]"),
        (&["--", "echo", "000"], "echo listening on [::]"),
        (&["-q", "-q", "--quiet", "--", "rot13", "0"], "rot13 listening on [::]"),
        (&["rot13", "-q", "0", "--verbose"], "rot13 listening on [::]"),
        (&["echo", "0", "--"], "echo listening on [::]"),
        (&["-b", "::1", "-b", "127.0.0.1", "echo", "0"], "echo listening on 127.0.0.1"),
        (&["-b127.0.0.2", "echo", "0"], "echo listening on 127.0.0.2"),
        (&["--bind=0.0.0.0", "rot13", "0"], "rot13 listening on 0.0.0.0"),
        (&["--bind", "::1", "echo", "0"], "echo listening on [::1]"),
        (&["-qb::1", "echo", "0"], "echo listening on [::1]"),
        (&["-qb", "0:0:0:0:0:0:0:1", "echo", "0"], "echo listening on [::1]"),
        (&["-b", "::", "echo", "0"], "echo listening on [::]"),
        (&["-b", "::0.0.0.1", "echo", "0"], "echo listening on [::1]"),
    ];
    let forms = if ipv6() { &forms[..] } else { &forms[6..9] };
    for (args, where_) in forms {
        let server = Server::start(args);
        assert_eq!(server.stderr.text(), format!("forkline: {where_}:{}\n", server.port));
        // The kernel's table may lack a line while others change.
        wait_for("its port is there", || listening_port(server.pid) == Some(server.port));
        assert_eq!(server.stdout.text(), "");
    }
}

#[test]
fn one_server_answers_over_ipv4_and_ipv6() {
    if !ipv6() {
        return;
    }
    for args in [&["echo", "0"][..], &["-b", "::", "echo", "0"]] {
        let server = Server::start(args);
        answers_at(&server, &["127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1"]);
    }
}

#[test]
fn a_bound_server_answers_nowhere_else() {
    let everywhere = ["127.0.0.1", "127.0.0.2", "127.255.255.254", "::1", "::ffff:127.0.0.1"];
    let all: [(&str, &[&str]); 4] = [
        ("127.0.0.1", &["127.0.0.1", "::ffff:127.0.0.1"]),
        ("127.0.0.2", &["127.0.0.2"]),
        ("0.0.0.0", &["127.0.0.1", "127.0.0.2", "127.255.255.254", "::ffff:127.0.0.1"]),
        ("::1", &["::1"]),
    ];
    let (everywhere, all) = match ipv6() {
        true => (&everywhere[..], &all[..]),
        false => (&everywhere[..3], &all[..2]),
    };
    for (host, there) in all {
        let server = Server::start(&["-b", host, "echo", "0"]);
        answers_at(&server, there);
        for elsewhere in everywhere.iter().filter(|address| !there.contains(address)) {
            let address: IpAddr = elsewhere.parse().unwrap();
            let refused = TcpStream::connect((address, server.port)).expect_err(elsewhere);
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{host} {elsewhere}");
        }
    }
}

#[test]
fn a_port_in_use_is_named_with_the_reason() {
    let first = Server::start(&["echo", "0"]);
    let port = &first.port.to_string();
    let in_use = |address| format!("bind {address}:{port}: EADDRINUSE (address already in use)");
    fails(&in_use("127.0.0.1"), &mut forkline(&["-b", "127.0.0.1", "rot13", port]));
    fails(&in_use("0.0.0.0"), &mut forkline(&["-b", "0.0.0.0", "rot13", port]));
    if ipv6() {
        fails(&in_use("[::]"), &mut forkline(&["rot13", port]));
        fails(&in_use("[::1]"), &mut forkline(&["-b", "::1", "echo", port]));
    }
    answers_at(&first, &["127.0.0.1"]);
}

#[test]
fn without_a_port_rot13_takes_50005() {
    if !own_network() {
        return skipped("no permission for a network of its own");
    }
    let server = Server::start(&["rot13"]);
    assert_eq!(server.port, 50005);
    assert_eq!(exchange(server.connect(), b"Hello\n"), b"Uryyb\n");
    fails("bind [::]:50005: EADDRINUSE (address already in use)", &mut forkline(&["rot13"]));
}

/// Neither a conversation that outlives the server nor those that it ended
/// (their ports are in TIME_WAIT) keep the next one from the port.
#[test]
fn the_port_can_be_bound_again_at_once() {
    let mut first = Server::start(&["echo", "0"]);
    // Their children have closed the listening socket: they have answered.
    let (ended, child) = client_and_child(&first);
    let (mut kept, _) = client_and_child(&first);
    kill(child as i32, libc::SIGKILL); // it closes first, so the TIME_WAIT is at this port
    assert_eq!(receive_some(&ended, &mut Vec::new()).expect("end of file"), 0);
    drop(ended);
    first.signal(libc::SIGKILL);
    first.wait();

    let second = Server::start(&["rot13", &first.port.to_string()]);
    kept.write_all(b"Hello\n").expect("send");
    assert_eq!(receive(&kept, 6), b"Hello\n");
    assert_eq!(exchange(second.connect(), b"Hello\n"), b"Uryyb\n");
}

#[test]
fn a_port_without_permission_is_named_with_the_reason() {
    let first_free = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if first_free.is_ok_and(|port| port.trim() == "0" || port.trim() == "1") {
        return skipped("everyone may use port 1 here");
    }
    let binary = File::open(env!("CARGO_BIN_EXE_forkline")).expect("the binary");
    // By descriptor: another user may not be allowed to walk its path.
    let mut command = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()));
    // SAFETY: no pointers.
    if unsafe { libc::geteuid() } == 0 {
        command.uid(65534).gid(65534);
    }
    command.args(["-b", "127.0.0.1", "echo", "1"]);
    fails("bind 127.0.0.1:1: EACCES (permission denied)", &mut command);
}

#[test]
fn an_address_that_is_not_here_is_named_in_its_standard_form() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let have_ipv6 = ipv6();
    for _ in 0..300 {
        let ip: IpAddr = match have_ipv6 && random.u8(..4) > 0 {
            true => some_ipv6(&mut random).into(),
            false => Ipv4Addr::from(random.u32(..)).into(),
        };
        if TcpListener::bind((ip, 0)).is_ok() {
            continue;
        }
        let (typed, port) = (typed(ip, &mut random), random.u16(1024..));
        let address = SocketAddr::new(ip, port);
        fails(
            &format!("bind {address}: EADDRNOTAVAIL (address not available)"),
            &mut forkline(&["-b", &typed, "echo", &port.to_string()]),
        );
    }
}

// ---------------------------------------------------------------- no IPv6

/// A kernel without it, and one that does not let it be bound.
#[test]
fn without_ipv6_it_listens_on_ipv4() {
    if !tool("strace") {
        return;
    }
    let plain = Server::start(&["-b", "127.0.0.1", "echo", "0"]);
    for fault in ["socket:error=EAFNOSUPPORT:when=1", "bind:error=EADDRNOTAVAIL:when=1"] {
        let server = Server::spawn(&mut faulty(fault, &["echo", "0"]));
        let ready = format!("forkline: echo listening on 0.0.0.0:{}\n", server.port);
        assert_eq!(server.stderr.text(), ready);
        answers_at(&server, &["127.0.0.1", "127.0.0.2"]);
        let forkline = children_of(server.pid)[0];
        assert_eq!(sockets(forkline), sockets(plain.pid), "the first candidate is closed");
    }
}

#[test]
fn the_failure_that_mattered_is_the_one_named() {
    if !tool("strace") {
        return;
    }
    let held = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = &held.local_addr().expect("address").port().to_string();
    let (no_family, other) = ("socket:error=EAFNOSUPPORT:when=1", "bind:error=EACCES:when=1");
    let unsupported = "EAFNOSUPPORT (address family not supported)";
    fails(
        &format!("bind 0.0.0.0:{port}: EADDRINUSE (address already in use)"),
        &mut faulty(no_family, &["echo", port]),
    );
    fails(
        &format!("bind [::]:{port}: EACCES (permission denied)"),
        &mut faulty(other, &["echo", port]),
    );
    fails(
        &format!("socket [::1]:{port}: {unsupported}"),
        &mut faulty(no_family, &["-b", "::1", "echo", port]),
    );
    fails(
        &format!("socket 0.0.0.0:{port}: {unsupported}"),
        &mut faulty("socket:error=EAFNOSUPPORT", &["echo", port]),
    );
    fails(
        "listen: EADDRINUSE (address already in use)",
        &mut faulty("listen:error=EADDRINUSE", &["-b", "127.0.0.1", "echo", "0"]),
    );
}

/// IPv6 turned off by its sysctl.
#[test]
fn with_ipv6_disabled_it_answers_over_ipv4() {
    const SWITCH: &str = "/proc/sys/net/ipv6/conf/all/disable_ipv6";
    if !ipv6() {
        return;
    }
    if !own_network() {
        return skipped("no permission for a network of its own");
    }
    fs::write(SWITCH, "1").expect(SWITCH);
    TcpListener::bind("[::1]:0").expect_err("no ::1 any more");
    let server = Server::start(&["echo", "0"]);
    answers_at(&server, &["127.0.0.1", "127.0.0.2"]);
    fails(
        "bind [::1]:7: EADDRNOTAVAIL (address not available)",
        &mut forkline(&["-b", "::1", "echo", "7"]),
    );
}

// ---------------------------------------------------------------- helpers

const NO_PORT: &str = "not a port from 0 to 65535";

fn no_address(option: &str, value: &str) -> String {
    format!("{option} {value}: not a numeric IP address")
}

/// It says so and ends with status 2, without a socket call where strace can tell.
fn refuses(message: &str, args: &[impl AsRef<OsStr>], traced: bool) {
    let calls = scratch("calls");
    let mut command = forkline(&[]);
    if traced {
        command = strace(&["-e", "trace=network"], &calls);
    }
    ends_with(2, message, command.args(args));
    if traced {
        assert_eq!(fs::read_to_string(&*calls).expect("strace's output"), "");
    }
}

/// One line on stderr, nothing on stdout, exit status 1.
fn fails(message: &str, command: &mut Command) {
    ends_with(1, message, command);
}

fn ends_with(status: i32, message: &str, command: &mut Command) {
    let output = run(command);
    assert_eq!(text(&output.stderr), format!("forkline: {message}\n"));
    assert_eq!(text(&output.stdout), "");
    assert_eq!(output.status.code(), Some(status), "{message}");
}

/// Forkline with a fault injected into a system call (strace(1), "Tampering").
fn faulty(fault: &str, args: &[&str]) -> Command {
    let mut command = strace(&["-e", &format!("inject={fault}")], Path::new("/dev/null"));
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn strace(options: &[&str], output: &Path) -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq"]).args(options).arg("-o").arg(output);
    command.arg(env!("CARGO_BIN_EXE_forkline"));
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn answers_at(server: &Server, addresses: &[&str]) {
    for address in addresses {
        let ip: IpAddr = address.parse().expect(address);
        assert_eq!(exchange(connect((ip, server.port)), b"Hello\n"), b"Hello\n", "{address}");
    }
}

fn sockets(pid: u32) -> usize {
    descriptors(pid).iter().filter(|(_, target)| target.starts_with("socket:")).count()
}
