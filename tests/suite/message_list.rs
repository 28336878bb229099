//! The parser that every message of the other tests passes (tests/common/messages.rs),
//! and the manual, which must have the same lists.

use crate::common::messages::{CALLS, EVENTS, REASONS, SENTENCES, USAGE, parse};
use crate::common::*;
use std::collections::BTreeSet;
use std::fs;

/// At least one of each event and sentence.
const RIGHT: &[&str] = &[
    "accept pid=25598 client=127.0.0.1:50000 children=3/1024",
    "accept pid=25598 client=[2001:db8::1]:50000 children=1024/1024 lost=7",
    "end pid=9 client=[::1]:50000 reason=eof children=0/1",
    "end pid=9 client=192.0.2.1:1 reason=idle children=0/32768",
    "end pid=9 client=192.0.2.1:1 reason=stop children=2/1024",
    "end pid=9 client=192.0.2.1:1 reason=reset children=2/1024",
    "end pid=9 client=192.0.2.1:1 reason=signal signal=SIGKILL children=2/1024 suppressed=5",
    "end pid=9 client=192.0.2.1:1 reason=signal signal=31 children=2/1024 lost=3",
    "end pid=9 client=192.0.2.1:1 reason=fault error=ETIMEDOUT children=2/1024",
    "end pid=9 client=192.0.2.1:1 reason=fault error=93 children=2/1024 suppressed=1 lost=1",
    "refuse client=192.0.2.1:1 suppressed=12",
    "fault call=accept error=EMFILE",
    "fault call=fork error=EAGAIN client=192.0.2.1:1 suppressed=2",
    "fault call=NOTIFY_SOCKET error=ENOENT",
    "drain signal=SIGTERM children=3/1024",
    "reset children=3/1024",
    "reset signal=SIGQUIT children=3/1024",
    "kill children=1/1024",
    "drained children=0/1024",
    "echo listening on [::]:7007",
    "rot13 listening on 0.0.0.0:50005 lost=1",
    "bind [::]:7007: EADDRINUSE (address already in use)",
    "socket 127.0.0.1:7007: errno 93",
    "listen: EADDRINUSE (address already in use)",
    "accept: EINVAL",
    "getsockname: EAFNOSUPPORT (address family not supported)",
    "change of user: EPERM",
    "serving without MADV_DONTFORK",
    "serving without seccomp: EINVAL",
    "LISTEN_FDS: ENOTSOCK",
    "LISTEN_FDS is not 1: EINVAL",
    "a service is missing: echo or rot13; try --help",
    "neither echo nor rot13: ; try --help",
    "echo needs a port; try --help",
    "not a port from 0 to 65535: 65536; try --help",
    "one argument too many: now then; try --help",
    "unknown option: --no=; try --help",
    "option takes no value: --quiet; try --help",
    "value missing after -c; try --help",
    "--bind localhost: not a numeric IP address; try --help",
    "-c 0: not a number from 1 to 32768; try --help",
];

/// Each is one step away from a right one.
const WRONG: &[&str] = &[
    "",
    "accept",
    "accepted pid=9 client=127.0.0.1:50000 children=3/1024",
    "accept pid=9 client=127.0.0.1:50000 children=1025/1024",
    "accept pid=9 client=127.0.0.1:50000 children=1/0",
    "accept pid=9 client=127.0.0.1:50000 children=1",
    "accept pid=9 client=127.0.0.1 children=3/1024",
    "accept pid=9 client=127.0.0.1:65536 children=3/1024",
    "accept pid=9 client=[::ffff:127.0.0.1]:50000 children=3/1024",
    "accept pid=9 client=[2001:db8:0:0:0:0:0:1]:50000 children=3/1024",
    "accept pid=0 client=127.0.0.1:50000 children=3/1024",
    "accept pid=-9 client=127.0.0.1:50000 children=3/1024",
    "accept client=127.0.0.1:50000 pid=9 children=3/1024",
    "accept pid=9 pid=9 client=127.0.0.1:50000 children=3/1024",
    "accept pid=9  client=127.0.0.1:50000 children=3/1024",
    "accept pid=9 client=127.0.0.1:50000 children=3/1024 ",
    "accept pid=9 client=127.0.0.1:50000 children=3/1024 suppressed=2",
    "accept pid=9 client=127.0.0.1:50000 children=3/1024 lost=0",
    "end pid=9 client=127.0.0.1:50000 reason=boredom children=3/1024",
    "end pid=9 client=127.0.0.1:50000 reason=eof signal=SIGKILL children=3/1024",
    "end pid=9 client=127.0.0.1:50000 reason=signal children=3/1024",
    "end pid=9 client=127.0.0.1:50000 reason=signal signal=KILL children=3/1024",
    "end pid=9 client=127.0.0.1:50000 reason=signal signal=9 children=3/1024",
    "end pid=9 client=127.0.0.1:50000 reason=signal signal=65 children=3/1024",
    "end pid=9 client=127.0.0.1:50000 reason=signal error=EPERM children=3/1024",
    "end pid=9 client=127.0.0.1:50000 reason=fault children=3/1024",
    "end pid=9 client=127.0.0.1:50000 reason=fault error=1 children=3/1024",
    "end pid=9 client=127.0.0.1:50000 reason=fault error=EWRONG children=3/1024",
    "refuse client=127.0.0.1:50000 suppressed=0",
    "refuse client=127.0.0.1:50000 suppressed=1 suppressed=1",
    "fault call=listen error=EINVAL",
    "fault call=accept error=EMFILE client=127.0.0.1:50000",
    "fault call=fork error=EAGAIN",
    "fault error=EAGAIN call=accept",
    "drain children=3/1024",
    "drained signal=SIGTERM children=0/1024",
    "finger listening on [::]:7007",
    "echo listening on [::]",
    "bind [::]:7007: EADDRINUSE",
    "bind [::]:7007: EACCES (address already in use)",
    "bind 7007: EPERM",
    "listen: errno 22",
    "listen: errno 0",
    "open: EPERM",
    "LISTEN_FDS is not 1",
    "echo needs a port",
    "listen: EPERM; try --help",
    "neither echo nor rot13: \u{1b}[2J; try --help",
    "neither echo nor rot13: 12345678901234567890123456789012345678901234567890123456789012345; try --help",
    "-c 0: not a number from 1 to many; try --help",
];

#[test]
fn the_parser_takes_every_message_and_nothing_else() {
    for text in RIGHT {
        assert_eq!(parse(&format!("forkline: {text}")), Ok(()), "{text}");
        assert!(parse(text).is_err(), "no prefix");
    }
    for text in WRONG {
        assert!(parse(&format!("forkline: {text}")).is_err(), "{text:?}");
    }
}

/// The others stand in child_signals.rs.
#[test]
fn the_log_tells_a_reset_and_an_idle_client() {
    let server = Server::start(&["-v", "echo", "0"]);
    let client = ask(&server);
    assert_eq!(receive(&client, LINE.len()), LINE);
    reset(client);
    server.stderr.wait_for(" reason=reset children=0/1024\n");
    let server = Server::start(&["-v", "-t", "1", "echo", "0"]);
    let _client = server.connect();
    server.stderr.wait_for(" reason=idle children=0/1024\n");
}

fn manual() -> String {
    fs::read_to_string("deploy/man/forkline.8").expect("manual")
}

/// What stands in the manual between two lines.
fn between<'a>(manual: &'a str, start: &str, end: &str) -> &'a str {
    let from = manual.find(&format!("\n{start}\n")).expect(start);
    let len = manual[from..].find(&format!("\n{end}\n")).expect(end);
    &manual[from..from + len]
}

/// The heads of the items that are set in this way.
fn heads<'a>(text: &'a str, macro_name: &str) -> Vec<&'a str> {
    let head = format!(".It {macro_name} ");
    text.lines().filter_map(|line| line.strip_prefix(&head)).collect()
}

/// A form as mdoc(7) has it: `Oo signal | error Oc`.
fn mdoc(form: &str) -> String {
    form.replace('[', "Oo ").replace(']', " Oc").replace('|', " | ")
}

#[test]
fn the_manual_has_the_events_and_keys_of_the_parser() {
    let manual = manual();
    let messages = between(&manual, ".Ss Messages", ".Ss Signals");
    let lists: Vec<_> = messages.split("\n.Bl ").skip(1).map(|list| heads(list, "Cm")).collect();
    let [events, keys, reasons] = &lists[..] else { panic!("{lists:?}") };
    assert_eq!(*events, EVENTS.map(mdoc));
    assert_eq!(*reasons, REASONS);
    let is_separator = |c: char| matches!(c, ' ' | '[' | ']' | '|');
    let words = EVENTS.iter().flat_map(|form| form.split(is_separator).skip(1));
    let all: BTreeSet<_> = words.filter(|key| !key.is_empty()).chain(["lost"]).collect();
    assert_eq!(BTreeSet::from_iter(keys.iter().copied()), all);
    assert_eq!(keys.len(), all.len(), "{keys:?}");
}

/// `end reason=eof` and so on for the events that need different answers.
fn rows() -> BTreeSet<String> {
    let events = EVENTS.iter().flat_map(|form| {
        let name = form.split(' ').next().unwrap();
        match name {
            "end" => REASONS.map(|reason| format!("end reason={reason}")).to_vec(),
            "fault" => CALLS.map(|call| format!("fault call={call}")).to_vec(),
            _ => vec![name.into()],
        }
    });
    let keys = ["suppressed=N", "lost=N"].map(String::from);
    let sentences = SENTENCES.iter().chain(&USAGE).map(|form| form.to_string());
    events.chain(sentences).chain(keys).collect()
}

#[test]
fn the_manual_tells_what_to_do_about_each_message() {
    let manual = manual();
    let diagnostics = between(&manual, ".Sh DIAGNOSTICS", ".Sh SEE ALSO");
    let told = heads(diagnostics, "Sy");
    let rows = rows();
    assert_eq!(told.iter().map(|head| head.to_string()).collect::<BTreeSet<_>>(), rows);
    assert_eq!(told.len(), rows.len(), "one of them stands there twice");
}
