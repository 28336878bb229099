//! Nothing is lost: answers that are under way, and messages; and what nohup(1) or
//! a script does to the server.

use crate::common::*;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::thread;
use std::time::{Duration, Instant};

// ---------------------------------------------------------------- answers

/// The answers to these lines wait in the server's kernel when the end comes. A
/// line that comes after it must not destroy them: the kernel would answer it with
/// a reset.
#[test]
fn answers_under_way_survive_the_end() {
    for service in ["echo", "rot13"] {
        let mut server = Server::start(&["-q", "-g", "86400", service, "0"]);
        let (mut client, lines) = client_with_much_to_take(&server);
        let child = server.wait_for_children(1)[0];
        server.signal(libc::SIGTERM);
        wait_for("its child waits for it", || calls(child, libc::SYS_ppoll));
        client.write_all(b"one more\n").expect("send");
        let (answers, _) = receive_all(&client);
        assert!(answers == answer(service, &lines), "{} bytes", answers.len());
        assert!(server.wait().success());
    }
}

/// The same at the idle limit. The client takes a little now and then: enough for
/// its kernel to say so to the server's before the limit.
#[test]
fn answers_under_way_survive_the_idle_limit() {
    at_its_pace(|idle, pace| {
        // A server that has seen nothing taken at its first look ends it at the second.
        pace.step(idle * 2);
        let server = Server::start(&["-q", "-t", &idle.as_secs().to_string(), "echo", "0"]);
        let (mut client, lines) = client_with_much_to_take(&server);
        let mut answers = Vec::new();
        let (begin, mut piece) = (Instant::now(), [0; 8000]);
        while begin.elapsed() < idle * 13 / 10 {
            client.read_exact(&mut piece).expect("receive");
            answers.extend_from_slice(&piece);
            thread::sleep(idle / 40); // the client's pace
        }
        let _ = client.write(b"one more\n");
        answers.extend(receive_all(&client).0);
        assert!(answers.starts_with(&lines), "{} bytes", answers.len());
    });
}

/// It stalls once with little under way, and later takes 160 KB a second of much:
/// it must not be reset for the early stall.
#[test]
fn a_client_that_takes_slowly_is_served() {
    at_its_pace(|idle, pace| {
        pace.step(idle * 2);
        let server = Server::start(&["-q", "-t", &idle.as_secs().to_string(), "echo", "0"]);
        let (client, first) = client_with_much_to_take(&server);
        thread::sleep(idle * 5 / 4); // the stall
        assert!(receive(&client, first.len()) == first);
        // More than all buffers hold, so that the child waits in send, too.
        let lines = b"Many lines that are taken slowly.\n".repeat(1_000_000);
        thread::scope(|scope| {
            scope.spawn(|| (&client).write_all(&lines).expect("send"));
            let (begin, mut got) = (Instant::now(), Vec::new());
            while begin.elapsed() < idle * 5 {
                // Several of these pieces make room in its buffer that is announced.
                pace.step(idle / 5);
                got.extend(receive(&client, 16_000));
                thread::sleep(idle / 20); // the client's pace
            }
            pace.step(DEADLINE);
            got.extend(receive(&client, lines.len() - got.len()));
            assert!(got == lines);
        });
    });
}

/// What it takes within the idle limit makes no room in the server's send buffer: the
/// limit is over for the child that waits in send, but its client has taken something.
#[test]
fn a_client_that_takes_little_is_served() {
    at_its_pace(|idle, pace| {
        pace.step(idle * 2);
        let server = Server::start(&["-q", "-t", &idle.as_secs().to_string(), "echo", "0"]);
        let client = connect_with([127, 0, 0, 2], ([127, 0, 0, 1], server.port).into(), Some(8192));
        let client = client.expect("connect");
        let lines = b"Many lines of which few are taken.\n".repeat(1_000_000);
        thread::scope(|scope| {
            let sender = scope.spawn(|| (&client).write_all(&lines));
            let (begin, mut got) = (Instant::now(), Vec::new());
            while begin.elapsed() < idle * 6 {
                pace.step(idle / 5);
                got.extend(receive(&client, 500));
                thread::sleep(idle / 20); // the client's pace
            }
            assert!(lines.starts_with(&got));
            client.shutdown(Shutdown::Both).expect("shutdown");
            let _ = sender.join();
        });
    });
}

/// A client that sends for ever and takes nothing is reset once its idle limit is over
/// for the second time: the first time it had taken what its buffers hold. Sometimes it
/// is the third time: if the send buffer has a little room after the first limit, the
/// next send fills that room and then waits. Such a send returns a short count, and the
/// server judges a client only after a send that copied nothing.
#[test]
fn a_client_that_floods_and_takes_nothing_is_reset() {
    at_its_pace(|idle, pace| {
        let is_second = |_| time_to_reset(idle, pace) < idle * 5 / 2;
        assert!((0..10).any(is_second), "no attempt ended at the second limit");
    });
}

/// How long a client that sends for ever and takes nothing is served.
fn time_to_reset(idle: Duration, pace: &Pace) -> Duration {
    pace.step(DEADLINE);
    let server = Server::start(&["-q", "-t", &idle.as_secs().to_string(), "echo", "0"]);
    let mut client = server.connect();
    let lines = b"A line whose answer nobody takes.\n".repeat(10_000);
    client.set_write_timeout(Some(idle / 10)).expect("timeout");
    let begin = Instant::now();
    loop {
        pace.step(idle / 5);
        match client.write(&lines).map_err(|error| error.kind()) {
            Ok(_) | Err(ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                assert!(begin.elapsed() < idle * 7 / 2, "it goes on");
            }
            Err(_) => break,
        }
    }
    let time = begin.elapsed();
    assert!(time >= idle * 2);
    time
}

/// The idle limit counts after SIGTERM, too. The server waits for a client that takes its
/// answers. It resets one that takes nothing when the limit is over for the second time.
#[test]
fn the_idle_limit_holds_while_the_server_ends() {
    at_its_pace(|idle, pace| {
        pace.step(idle);
        let idle_limit = idle.as_secs().to_string();
        let mut server = Server::start(&["-q", "-g", "86400", "-t", &idle_limit, "echo", "0"]);
        let (slow, lines) = client_with_much_to_take(&server);
        let (stuck, _) = client_with_much_to_take(&server);
        let begin = Instant::now();
        server.signal(libc::SIGTERM);
        let mut answers = Vec::new();
        while begin.elapsed() < idle * 9 / 4 {
            pace.step(idle / 5);
            answers.extend(receive(&slow, 16_000));
            let has_both = server.children().len() == 2;
            assert!(has_both || begin.elapsed() >= idle * 2, "one ends too early");
            thread::sleep(idle / 10); // the client's pace
        }
        // A wait for a server that never ends does not count as a late step.
        pace.step(DEADLINE * 2);
        answers.extend(receive_all(&slow).0);
        assert!(answers == lines, "{} bytes", answers.len());
        assert!(server.wait().success());
        assert_eq!(receive_all(&stuck).1, End::Reset);
    });
}

// ---------------------------------------------------------------- messages

/// A file cannot tell whether a write would block. Still no message counts as lost.
#[test]
fn in_a_file_no_message_is_lost() {
    let path = scratch("messages");
    let file = File::create(&*path).expect("create");
    let mut server = Server::spawn(forkline(&["-v", "-q", "echo", "0"]).stderr(file));
    let said = || fs::read_to_string(&*path).expect("read");
    wait_for("the ready line", || said().contains(" listening on "));
    server.signal(libc::SIGTERM);
    assert!(server.wait().success());
    let said = said();
    assert!(said.ends_with("forkline: drained children=0/1024\n"), "{said}");
    assert!(!said.contains("lost="), "{said}");
}

/// A server whose standard error is a full pipe, and the end that reads it.
fn full_stderr() -> (Server, File) {
    let (reader, writer) = io::pipe().expect("pipe");
    let server =
        Server::spawn(forkline(&["-v", "-q", "echo", "0"]).stderr(writer.try_clone().unwrap()));
    let mut reader = nonblocking(&reader, OpenOptions::new().read(true));
    // It listens already, but is not ready before it says so.
    let mut said = Vec::new();
    wait_for("the ready line", || {
        let _ = reader.read_to_end(&mut said);
        said.ends_with(b"\n") && String::from_utf8_lossy(&said).contains(" listening on ")
    });
    let mut writer = nonblocking(&writer, OpenOptions::new().write(true));
    while writer.write(b"#").is_ok() {}
    (server, reader)
}

/// Opens an end of a pipe anew: this one does not block, and the server's still does.
fn nonblocking(end: &impl AsRawFd, options: &mut OpenOptions) -> File {
    let name = format!("/proc/self/fd/{}", end.as_raw_fd());
    options.custom_flags(libc::O_NONBLOCK).open(name).expect("open")
}

#[test]
fn a_standard_error_that_nobody_reads_stops_nobody() {
    let (mut server, mut reader) = full_stderr();
    for _ in 0..50 {
        assert_eq!(say(&server.connect(), b"hello\n"), b"hello\n");
    }
    server.wait_for_children(0);
    wait_for("the last end has been told", || calls(server.pid, libc::SYS_accept));
    let mut text = Vec::new();
    let _ = reader.read_to_end(&mut text); // what filled the pipe
    // The next message tells how many were lost: each of 50 starts and 50 ends.
    assert_eq!(say(&server.connect(), b"hello\n"), b"hello\n");
    wait_for("a message tells how many were lost", || {
        let _ = reader.read_to_end(&mut text);
        String::from_utf8_lossy(&text).contains(" lost=100\n")
    });
    server.signal(libc::SIGTERM);
    assert!(server.wait().success());
}

/// The end comes too.
#[test]
fn a_standard_error_that_nobody_reads_does_not_hold_the_end() {
    let (mut server, _reader) = full_stderr();
    server.signal(libc::SIGTERM);
    assert!(server.wait().success());
}

/// A terminal that nobody reads: a write to it would block for ever.
#[test]
fn a_terminal_that_nobody_reads_stops_nobody() {
    let (_person, program) = terminal().expect("a terminal");
    let mut server =
        Server::spawn(forkline(&["-v", "-q", "echo", "0"]).stderr(program.try_clone().unwrap()));
    for _ in 0..300 {
        assert_eq!(say(&server.connect(), b"hello\n"), b"hello\n");
    }
    let mut pollfd = libc::pollfd { fd: program.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one `pollfd`.
    assert_eq!(unsafe { libc::poll(&mut pollfd, 1, 0) }, 0, "the terminal is full");
    // SAFETY: no pointers.
    let flags = unsafe { libc::fcntl(program.as_raw_fd(), libc::F_GETFL) };
    assert_eq!(flags & libc::O_NONBLOCK, 0, "others' writes to it still block");
    server.signal(libc::SIGTERM);
    assert!(server.wait().success());
}

/// A write past the limit for files sends SIGXFSZ, which ends a program that
/// does not ignore it.
#[test]
fn a_standard_error_at_its_size_limit_ends_nobody() {
    let path = scratch("stderr");
    let mut command = forkline(&["-v", "-q", "echo", "0"]);
    command.stderr(File::create(&*path).expect("a file"));
    // SAFETY: the call is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit { rlim_cur: 1000, rlim_max: 1000 };
            libc::setrlimit(libc::RLIMIT_FSIZE, &limit);
            Ok(())
        });
    }
    let mut server = Server::spawn(&mut command);
    for _ in 0..50 {
        assert_eq!(say(&server.connect(), b"hello\n"), b"hello\n");
    }
    assert_eq!(fs::metadata(&*path).expect("metadata").len(), 1000);
    server.signal(libc::SIGTERM);
    assert!(server.wait().success());
}

// ---------------------------------------------------------------- signals

/// nohup(1) starts a program with SIGHUP ignored, and it stays so.
#[test]
fn under_nohup_a_hangup_is_ignored() {
    let mut command = forkline(&["-v", "echo", "0"]);
    // SAFETY: the call is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_IGN);
            Ok(())
        });
    }
    let mut server = Server::spawn(&mut command);
    let client = server.connect();
    assert_eq!(say(&client, b"hello\n"), b"hello\n");
    let child = server.wait_for_children(1)[0];
    for pid in [server.pid, child] {
        kill(pid as i32, libc::SIGHUP);
    }
    assert_eq!(say(&client, b"hello\n"), b"hello\n");
    assert_eq!(say(&server.connect(), b"hello\n"), b"hello\n");
    server.signal(libc::SIGTERM);
    assert!(server.wait().success());
    assert!(!server.stderr.text().contains("SIGHUP"), "{}", server.stderr.text());
}

// ---------------------------------------------------------------- descriptors

#[test]
fn inherited_descriptors_are_closed() {
    if emulated() {
        return;
    }
    let mut command = forkline(&["echo", "0"]);
    // SAFETY: the calls are async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            for fd in [3, 4, 5, 9, 200] {
                libc::dup2(0, fd);
            }
            Ok(())
        });
    }
    let server = Server::spawn(&mut command);
    let client = server.connect();
    assert_eq!(say(&client, b"hello\n"), b"hello\n");
    let child = server.wait_for_children(1)[0];
    // By then it has closed its copy of the connection.
    wait_for("the parent waits in accept", || calls(server.pid, libc::SYS_accept));
    for pid in [server.pid, child] {
        let open = descriptors(pid);
        let others = open.iter().filter(|(fd, _)| *fd > 2);
        let others: Vec<_> = others.collect();
        assert!(others.len() == 1 && others[0].1.starts_with("socket:"), "{open:?}");
    }
}

/// Somebody has the port on IPv6 only: half a service, and one line says so.
#[test]
fn a_port_that_is_taken_on_ipv6_is_named() {
    if !ipv6() {
        return;
    }
    own_network(); // if possible: nobody else is to have the port on IPv4
    // SAFETY: the kernel reads what it is told to: an int, and an address.
    let (taken, port) = unsafe {
        let fd = libc::socket(libc::AF_INET6, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        let on = 1i32;
        let only = libc::IPV6_V6ONLY;
        libc::setsockopt(fd, libc::IPPROTO_IPV6, only, (&raw const on).cast(), 4);
        let mut address: libc::sockaddr_in6 = std::mem::zeroed();
        address.sin6_family = libc::AF_INET6 as u16;
        let mut len = size_of_val(&address) as u32;
        assert_eq!(libc::bind(fd, (&raw const address).cast(), len), 0);
        assert_eq!(libc::listen(fd, 1), 0);
        assert_eq!(libc::getsockname(fd, (&raw mut address).cast(), &mut len), 0);
        (fd, u16::from_be(address.sin6_port))
    };
    let server = Server::start(&["echo", &port.to_string()]);
    let lines = server.stderr.lines();
    let told = format!("forkline: bind [::]:{port}: EADDRINUSE (address already in use)");
    assert_eq!(lines.first(), Some(&told));
    assert_eq!(lines.last(), Some(&format!("forkline: echo listening on 0.0.0.0:{port}")));
    assert_eq!(say(&server.connect(), b"hello\n"), b"hello\n");
    // SAFETY: no pointers.
    unsafe { libc::close(taken) };
}
