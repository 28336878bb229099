//! `server received N bytes` on stdout: which, when, whole, and harmless
//! wherever stdout leads.
use crate::common::*;
use fastrand::Rng;
use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::thread;

/// The report on a line or piece of that many bytes.
fn report(n: usize) -> String {
    format!("server received {n} bytes\n")
}

/// The reports on a conversation: on each line, on each 1023 bytes of a longer
/// one, and on the rest.
fn reports(bytes: &[u8]) -> String {
    let lines = bytes.split_inclusive(|&b| b == b'\n');
    lines.flat_map(|line| line.chunks(1023)).map(|piece| report(piece.len())).collect()
}

/// The text with its lines sorted.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    lines.sort_unstable();
    lines
}

/// All of a file, whose offset the server shares, without moving that.
fn content(file: &File) -> String {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// A new file that has no name any more.
fn unnamed_file(options: &mut OpenOptions) -> File {
    options.read(true).create_new(true).open(&*scratch("reports")).unwrap()
}

/// A pipe whose reader never waits: what is read must be there already.
fn impatient_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = io::pipe().unwrap();
    set_flags(&reader, libc::O_NONBLOCK);
    (reader, writer)
}

/// Sets the flags of an open file, which all have who share it (fcntl(2), F_SETFL).
fn set_flags(file: &impl AsRawFd, flags: i32) {
    // SAFETY: F_SETFL takes an integer.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// A pipe that nobody reads any more.
fn broken_pipe() -> Stdio {
    io::pipe().unwrap().1.into()
}

// ---------------------------------------------------------------- which

#[test]
fn each_line_and_each_piece_has_its_report() {
    let long = |n| vec![b'x'; n];
    let line = |n| [long(n), b"\n".to_vec()].concat();
    let cases: [(Vec<u8>, &[usize]); 16] = [
        (b"".to_vec(), &[]),
        (b"hello\n".to_vec(), &[6]),
        (b"\n".to_vec(), &[1]),
        (b"\n\n\n".to_vec(), &[1, 1, 1]),
        (b"a\r\n".to_vec(), &[3]),
        (b"a\rb\n".to_vec(), &[4]),
        (b"\0\n".to_vec(), &[2]),
        (b"a\0b\0\0\n\0".to_vec(), &[6, 1]),
        (b"\xff\xfe\n\x80".to_vec(), &[3, 1]),
        (b"one\ntwo, unfinished".to_vec(), &[4, 15]),
        (line(1022), &[1023]),
        (line(1023), &[1023, 1]),
        (line(1024), &[1023, 2]),
        (long(1023), &[1023]),
        (long(3000), &[1023, 1023, 954]),
        ([line(9), line(2046), line(9)].concat(), &[10, 1023, 1023, 1, 10]),
    ];
    for (bytes, counts) in cases {
        let server = Server::start(&["echo", "0"]);
        assert_eq!(exchange(server.connect(), &bytes), bytes);
        let expected: String = counts.iter().map(|&n| report(n)).collect();
        let (stdout, stderr) = server.stop();
        assert_eq!(stdout, expected, "{:?}", String::from_utf8_lossy(&bytes));
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn on_a_terminal_the_reports_are_those_of_the_c() {
    let mut rng = Rng::new();
    let mut bytes = Vec::new();
    for _ in 0..300 {
        let length = if rng.bool() { rng.usize(0..100) } else { rng.usize(1000..4000) };
        bytes.resize_with(bytes.len() + length, || rng.u8(..));
        bytes.push(b'\n');
    }
    let mut c = Command::new(compiled("echo"));
    for command in [&mut forkline(&["echo", "0"]), c.arg("0")] {
        let (person, program) = terminal().expect("a terminal");
        let server = Server::spawn(command.stdout(program).stderr(Stdio::null()));
        let screen = Collected::from(Some(person));
        assert_eq!(exchange(server.connect(), &bytes), bytes);
        let expected = reports(&bytes).replace('\n', "\r\n");
        wait_for("all reports", || screen.bytes().len() >= expected.len());
        assert_eq!(screen.text(), expected);
    }
}

#[test]
fn through_a_pipe_the_c_loses_its_reports() {
    let c = Server::start_c("echo");
    assert_eq!(exchange(c.connect(), b"hello\n"), b"hello\n");
    c.wait_for_children(0);
    assert_eq!(c.stop().0, "");
}

#[test]
fn quiet_leaves_the_reports_out() {
    for quiet in ["-q", "--quiet"] {
        let server = Server::start(&[quiet, "echo", "0"]);
        let bytes = b"hello\n".repeat(10_000);
        assert_eq!(exchange(server.connect(), &bytes), bytes);
        let (stdout, stderr) = server.stop();
        assert_eq!((stdout.as_str(), stderr.lines().count()), ("", 1), "{stderr}");
    }
}

#[test]
fn rot13_writes_no_reports() {
    let server = Server::start(&["rot13", "0"]);
    assert_eq!(exchange(server.connect(), b"hello\nlast"), b"uryyb\nynfg");
    let (stdout, stderr) = server.stop();
    assert_eq!((stdout.as_str(), stderr.lines().count()), ("", 1), "{stderr}");
}

// ---------------------------------------------------------------- when

#[test]
fn a_report_is_there_before_its_echo() {
    let file = unnamed_file(OpenOptions::new().write(true));
    let (mut pipe, writer) = impatient_pipe();
    let to_file = Server::spawn(forkline(&["echo", "0"]).stdout(file.try_clone().unwrap()));
    let to_pipe = Server::spawn(forkline(&["echo", "0"]).stdout(writer));
    let (mut file_client, mut pipe_client) = (to_file.connect(), to_pipe.connect());
    let mut expected = String::new();
    for n in 1..=1000 {
        let line = [vec![b'.'; n - 1], b"\n".to_vec()].concat();
        expected += &report(n);

        file_client.write_all(&line).unwrap();
        receive(&file_client, n);
        assert!(content(&file) == expected, "line {n}");

        pipe_client.write_all(&line).unwrap();
        receive(&pipe_client, n);
        let mut bytes = [0; 100];
        let got = pipe.read(&mut bytes).expect("a report in the pipe");
        assert_eq!(String::from_utf8_lossy(&bytes[..got]), report(n));
    }
}

// ---------------------------------------------------------------- whole

const CLIENTS: usize = 50;

/// All clients send at once, in many writes, and have their echo. Gives the
/// reports that there must be, sorted.
fn many_clients(server: &Server, lines: usize) -> Vec<String> {
    let conversations: Vec<Vec<u8>> = (0..CLIENTS)
        .map(|client| {
            let length = |n| (client * 7 + n * n) % 1500;
            (0..lines).flat_map(|n| [vec![b'x'; length(n)], b"\n".to_vec()].concat()).collect()
        })
        .collect();
    let streams: Vec<_> = conversations.iter().map(|_| server.connect()).collect();
    server.wait_for_children(CLIENTS);
    thread::scope(|scope| {
        for (stream, bytes) in streams.into_iter().zip(&conversations) {
            scope.spawn(move || assert!(exchange(stream, bytes) == *bytes, "the echo differs"));
        }
    });
    let all: String = conversations.iter().map(|bytes| reports(bytes)).collect();
    sorted(&all).into_iter().map(String::from).collect()
}

#[test]
fn reports_of_many_children_are_whole_in_a_pipe() {
    let server = Server::start(&["echo", "0"]);
    let expected = many_clients(&server, 300);
    assert!(sorted(&server.stop().0) == expected, "lines lost, doubled or torn");
}

#[test]
fn reports_of_many_children_are_whole_in_a_file() {
    for options in [OpenOptions::new().write(true), OpenOptions::new().append(true)] {
        let file = unnamed_file(options);
        let server = Server::spawn(forkline(&["echo", "0"]).stdout(file.try_clone().unwrap()));
        let expected = many_clients(&server, 300);
        assert!(sorted(&content(&file)) == expected, "lines lost, doubled or torn");
    }
}

/// Also where a write would not wait, because somebody who has the pipe too has
/// told it so.
#[test]
fn a_full_pipe_makes_the_children_wait() {
    for flags in [0, libc::O_NONBLOCK] {
        let (mut pipe, writer) = io::pipe().unwrap();
        smallest_pipe(&writer);
        set_flags(&writer, flags);
        let server = Server::spawn(forkline(&["echo", "0"]).stdout(writer.try_clone().unwrap()));
        let (expected, got) = thread::scope(|scope| {
            let clients = scope.spawn(|| many_clients(&server, 300));
            let waits = |&pid: &u32| calls(pid, libc::SYS_write) || calls(pid, libc::SYS_ppoll);
            wait_for("a child waits", || server.children().iter().any(waits));
            drop(writer);
            let reader = scope.spawn(move || {
                let mut got = String::new();
                pipe.read_to_string(&mut got).unwrap();
                got
            });
            let expected = clients.join();
            kill(-(server.pid as i32), libc::SIGKILL); // the reader's end of file
            (expected.unwrap(), reader.join().unwrap())
        });
        assert!(sorted(&got) == expected, "lines lost, doubled or torn");
    }
}

#[test]
fn no_write_tears_a_line() {
    if !tool("strace") {
        return;
    }
    let log = scratch("strace");
    let options = "-D -s 9999 -e trace=write,writev -e signal=none";
    let server = Server::spawn(&mut traced(&log, options, &["echo", "0"]));
    let bytes = [b"\n".repeat(5000), b"123456789\n".repeat(5000), vec![b'x'; 50_000]].concat();
    assert_eq!(exchange(server.connect(), &bytes), bytes);
    server.wait_for_children(0);
    server.stop();

    let log = std::fs::read_to_string(&*log).unwrap();
    let writes: Vec<&str> = log.lines().filter(|call| call.contains(" write(1, ")).collect();
    assert!(!writes.is_empty() && !log.contains("writev"), "{log}");
    let mut all = String::new();
    for call in writes {
        let text = call.split('"').nth(1).unwrap().replace("\\n", "\n");
        assert!(text.ends_with('\n') && text.len() <= libc::PIPE_BUF, "{call}");
        assert!(call.ends_with(&format!("= {}", text.len())), "{call}");
        all += &text;
    }
    assert!(all == reports(&bytes));
}

// ---------------------------------------------------------------- harmless

/// Three clients, two of them at once, are served whatever the reports meet.
fn serves(server: &Server) {
    let bytes = [b"hello\n".repeat(2000), vec![b'x'; 5000]].concat();
    let mut other = server.connect();
    for _ in 0..2 {
        assert!(exchange(server.connect(), &bytes) == bytes, "the echo differs");
        other.write_all(b"12345\n").unwrap();
        assert_eq!(receive(&other, 6), b"12345\n");
    }
    server.wait_for_children(1);
}

#[test]
fn stdout_that_fails_does_not_hurt() {
    let null = || Stdio::from(OpenOptions::new().write(true).open("/dev/null").unwrap());
    let full = || Stdio::from(OpenOptions::new().write(true).open("/dev/full").unwrap());
    let read_only = || Stdio::from(File::open("/dev/null").unwrap());
    for stdout in [null, full, read_only, broken_pipe] {
        serves(&Server::spawn(forkline(&["echo", "0"]).stdout(stdout())));
        serves(&Server::spawn(forkline(&["echo", "0"]).stderr(stdout())));
        serves(&Server::spawn(forkline(&["echo", "0"]).stdout(stdout()).stderr(stdout())));
    }
}

/// What does not fit into the file, a report or a message, is an error and not SIGXFSZ,
/// which ends a program that does not ignore it.
#[test]
fn a_limit_on_the_size_of_files_does_not_hurt() {
    let file = unnamed_file(OpenOptions::new().write(true));
    let server = Server::spawn(forkline(&["echo", "0"]).stdout(file.try_clone().unwrap()));
    set_limit(server.pid, libc::RLIMIT_FSIZE, 48);
    serves(&server);
    assert_eq!(content(&file).len(), 48);
    assert_eq!(server.other_messages(), [""; 0]);

    let file = unnamed_file(OpenOptions::new().write(true));
    let mut command = forkline(&["-v", "-q", "echo", "0"]);
    let mut server = Server::spawn(command.stderr(file.try_clone().unwrap()));
    set_limit(server.pid, libc::RLIMIT_FSIZE, 100);
    serves(&server);
    assert_eq!(content(&file).len(), 100);
    server.signal(libc::SIGTERM);
    assert!(server.wait().success());
}

#[test]
fn a_reader_that_goes_away_does_not_hurt() {
    let (mut reader, writer) = impatient_pipe();
    let server = Server::spawn(forkline(&["echo", "0"]).stdout(writer));
    let mut stream = server.connect();
    stream.write_all(b"1\n").unwrap();
    assert_eq!(receive(&stream, 2), b"1\n");
    let mut text = [0; 24];
    reader.read_exact(&mut text).unwrap();
    assert_eq!(text, *report(2).as_bytes());
    drop(reader);
    for _ in 0..100 {
        stream.write_all(b"2\n").unwrap();
        assert_eq!(receive(&stream, 2), b"2\n");
    }
    drop(stream);
    serves(&server);
}

/// Every combination of stdin, stdout and stderr closed. A descriptor that the
/// server opens then has the number of one of them, and a report written there
/// would reach a client.
#[test]
fn closed_descriptors_do_not_hurt() {
    for closed in 0..8 {
        let is_closed = |fd| closed & 1 << fd != 0;
        for service in ["echo", "rot13"] {
            let mut command = forkline(&[service, "0"]);
            for fd in (0..3).filter(|&fd| is_closed(fd)) {
                close_at_start(&mut command, fd);
            }
            let server = Server::spawn(&mut command);
            let bytes = [b"123\n".repeat(2000), vec![b'.'; 5000]].concat();
            let mut other = server.connect();
            for _ in 0..2 {
                let answer = exchange(server.connect(), &bytes);
                assert!(answer == bytes, "{service}, closed {closed:03b}: the answer differs");
                other.write_all(b"45678\n").unwrap();
                assert_eq!(receive(&other, 6), b"45678\n");
            }
            server.wait_for_children(1);
            let (stdout, stderr) = server.stop();
            let reported = service == "echo" && !is_closed(1);
            let expected = [reports(&bytes), report(6), reports(&bytes), report(6)].concat();
            assert_eq!(stdout, if reported { &*expected } else { "" }, "closed {closed:03b}");
            assert_eq!(stderr.lines().count(), !is_closed(2) as usize, "{stderr}");
        }
    }
}

/// A start that fails says so on stderr or nowhere: never in another file that
/// happens to have that number.
#[test]
fn closed_descriptors_do_not_change_a_failed_start() {
    let busy = Server::start(&["echo", "0"]);
    for closed in 0..8 {
        let port = busy.port.to_string();
        let mut command = forkline(&["echo", &port]);
        for fd in (0..3).filter(|fd| closed & 1 << fd != 0) {
            close_at_start(&mut command, fd);
        }
        let output = run(&mut command);
        assert_eq!(output.status.code(), Some(1), "closed {closed:03b}");
        assert_eq!(output.stdout, b"");
        let lines = output.stderr.iter().filter(|&&b| b == b'\n').count();
        assert_eq!(lines, (closed & 4 == 0) as usize, "closed {closed:03b}");
    }
}
