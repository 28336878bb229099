//! A listening socket from systemd, or from whoever speaks its protocol
//! (sd_listen_fds(3)), and what the server tells the service manager (sd_notify(3)).

use crate::common::*;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// forkline with `socket` as descriptor 3 and the environment that says so.
pub fn activated(socket: &impl AsFd, environment: &str, args: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{environment} exec \"$@\" {args}"), "sh"]);
    command.args(command_line(&[]));
    hand_over(piped(&mut command), socket.as_fd().as_raw_fd());
    command
}

pub const ENVIRONMENT: &str = "LISTEN_PID=$$ LISTEN_FDS=1";

pub fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a listening socket")
}

fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().expect("its address").port()
}

#[test]
fn it_serves_on_the_socket_that_it_is_given() {
    for (args, answer) in [("echo", b"hello\n"), ("echo 1", b"hello\n"), ("rot13", b"uryyb\n")] {
        let listener = listener();
        let server = Server::spawn(&mut activated(&listener, ENVIRONMENT, args));
        assert_eq!(server.port, port(&listener));
        assert_eq!(exchange(server.connect(), b"hello\n"), answer);
        let ours = |tcp: &&Tcp| tcp.listens;
        assert_eq!(tcp_sockets(server.pid).iter().filter(ours).count(), 1, "it bound nothing");
    }
}

#[test]
fn a_socket_that_does_not_block_is_no_burden() {
    let listener = listener();
    listener.set_nonblocking(true).expect("O_NONBLOCK");
    let server = Server::spawn(&mut activated(&listener, ENVIRONMENT, "echo"));
    assert_eq!(exchange(server.connect(), b"hello\n"), b"hello\n");
    wait_for("it waits in accept", || accepts(server.pid));
    server.has_said_nothing_else();
}

#[test]
fn closed_standard_streams_do_not_reach_a_client() {
    let listener = listener();
    let args = "echo 0<&- 1>&- 2>&-";
    let mut server = activated(&listener, ENVIRONMENT, args).spawn().expect("start");
    for _ in 0..3 {
        let stream = connect(("127.0.0.1", port(&listener)));
        assert_eq!(exchange(stream, b"hello\n"), b"hello\n");
    }
    kill(server.id() as i32, libc::SIGTERM);
    assert!(server.wait().expect("wait").success());
}

#[test]
fn a_drain_leaves_the_socket_to_the_next_one() {
    let listener = listener();
    let mut first = Server::spawn(&mut activated(&listener, ENVIRONMENT, "echo"));
    assert_eq!(exchange(first.connect(), b"hello\n"), b"hello\n");
    first.signal(libc::SIGTERM);
    assert!(first.wait().success());
    // It waits in the queue for the next one.
    let mut client = connect(("127.0.0.1", port(&listener)));
    client.write_all(b"hello\n").expect("send");
    let _second = Server::spawn(&mut activated(&listener, ENVIRONMENT, "echo"));
    assert_eq!(receive(&client, 6), b"hello\n");
}

/// Keep-alive, and its three times in seconds and probes.
fn keep_alive(socket: &impl AsFd) -> [i32; 4] {
    [
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
    ]
    .map(|(level, option)| socket_option(socket, level, option, None))
}

#[test]
fn a_socket_without_keep_alive_gets_it() {
    let listener = listener();
    assert_eq!(keep_alive(&listener)[0], 0);
    let _server = Server::spawn(&mut activated(&listener, ENVIRONMENT, "echo"));
    assert_eq!(keep_alive(&listener), [1, 60, 20, 3]);
}

/// A socket unit's own times are not undone.
#[test]
fn a_socket_with_keep_alive_keeps_its_times() {
    let listener = listener();
    socket_option(&listener, libc::SOL_SOCKET, libc::SO_KEEPALIVE, Some(1));
    socket_option(&listener, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, Some(300));
    socket_option(&listener, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, Some(7));
    let before = keep_alive(&listener);
    let _server = Server::spawn(&mut activated(&listener, ENVIRONMENT, "echo"));
    assert_eq!(keep_alive(&listener), before);
}

/// So do the connections that wait when the signal comes.
#[test]
fn a_drain_leaves_the_queue_to_the_next_one() {
    let listener = listener();
    let mut first = Server::spawn(&mut activated(&listener, ENVIRONMENT, "echo"));
    stop(first.pid);
    let clients: Vec<_> = (0..10).map(|_| ask(&first)).collect();
    first.signal(libc::SIGTERM);
    kill(first.pid as i32, libc::SIGCONT);
    assert!(first.wait().success());
    let _second = Server::spawn(&mut activated(&listener, ENVIRONMENT, "echo"));
    for client in &clients {
        assert_eq!(receive(client, LINE.len()), LINE);
    }
}

#[test]
fn what_is_meant_for_another_process_is_ignored() {
    for environment in [
        "LISTEN_PID=1 LISTEN_FDS=1",
        "LISTEN_FDS=1",
        "LISTEN_PID=$$",
        "LISTEN_PID=x LISTEN_FDS=1",
        "LISTEN_PID=$$ LISTEN_FDS=0",
    ] {
        let listener = listener();
        let server = Server::spawn(&mut activated(&listener, environment, "echo 0"));
        assert_ne!(server.port, port(&listener), "{environment}");
        let output = run(&mut activated(&listener, environment, "echo"));
        let said = text(&output.stderr);
        assert!(said.starts_with("forkline: echo needs a port"), "{environment}: {said}");
    }
}

#[test]
fn what_cannot_be_served_is_named() {
    let refuses = |socket: &dyn AsFd, environment, expected: &str| {
        let output = run(&mut activated(&socket.as_fd(), environment, "echo"));
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(text(&output.stderr), expected);
    };
    let two = "LISTEN_PID=$$ LISTEN_FDS=2";
    let listener = listener();
    refuses(&listener, two, "forkline: LISTEN_FDS is not 1: EINVAL\n");
    let file = File::open("/dev/null").expect("open");
    let no_socket = "forkline: LISTEN_FDS: ENOTSOCK\n";
    refuses(&file, ENVIRONMENT, no_socket);
    let udp = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let no_listener = "forkline: LISTEN_FDS: EOPNOTSUPP\n";
    refuses(&udp, ENVIRONMENT, no_listener);
    // What systemd hands over with Accept=yes.
    let connection = connect(("127.0.0.1", port(&listener)));
    refuses(&connection, ENVIRONMENT, "forkline: LISTEN_FDS: EINVAL\n");
}

#[test]
fn systemd_hands_it_a_socket() {
    if !tool("systemd-socket-activate") {
        return;
    }
    // A port of its own, since it takes no 0.
    if !own_network() {
        return skipped("no permission for a network of its own");
    }
    let mut activate = Command::new("systemd-socket-activate");
    activate.args(["-l", "[::]:7007"]).args(command_line(&["rot13"]));
    // forkline, and its line on stderr, come with the first client.
    let mut server = Server::spawn(piped(&mut activate).stderr(Stdio::null()));
    assert_eq!(exchange(server.connect(), b"Hello\n"), b"Uryyb\n");
    if !emulated() {
        assert_eq!(proc(server.pid, "comm"), "forkline\n");
    }
    assert_eq!(exchange(connect(("::1", server.port)), b"Uryyb\n"), b"Hello\n");
    server.signal(libc::SIGTERM);
    assert!(server.wait().success());
}

// ---------------------------------------------------------------- the service manager

/// A service manager's socket, at a path or with an abstract name, and what
/// NOTIFY_SOCKET says of it.
fn managers() -> [(UnixDatagram, String, Scratch); 2] {
    ["", "@"].map(|kind| {
        let path = scratch_socket();
        let name = path.to_str().expect("text").to_owned();
        let socket = match kind {
            "@" => SocketAddr::from_abstract_name(&name).and_then(|a| UnixDatagram::bind_addr(&a)),
            _ => UnixDatagram::bind(&name),
        };
        let socket = socket.expect("a socket");
        socket.set_read_timeout(Some(DEADLINE)).expect("timeout");
        (socket, format!("{kind}{name}"), path)
    })
}

fn next_state(manager: &UnixDatagram) -> String {
    let mut state = [0; 100];
    let n = manager.recv(&mut state).expect("a state");
    text(&state[..n])
}

#[test]
fn the_service_manager_is_told_of_the_start_and_the_end() {
    for (manager, name, _path) in managers() {
        let mut command = forkline(&["echo", "0"]);
        let mut server = Server::launch(command.env("NOTIFY_SOCKET", &name));
        assert_eq!(next_state(&manager), "READY=1", "{name}");
        // It is ready indeed.
        server.stderr.wait_for(" listening on ");
        server.port = server.find_port().expect("its port");
        let client = server.connect();
        assert_eq!(say(&client, LINE), LINE);
        manager.set_nonblocking(true).expect("nonblocking");
        let nothing = manager.recv(&mut [0]).expect_err("no more than that");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        manager.set_nonblocking(false).expect("blocking");
        drop(client);
        // The end is told when it begins: this client has not taken its answers yet.
        let (client, lines) = client_with_much_to_take(&server);
        server.signal(libc::SIGTERM);
        assert_eq!(next_state(&manager), "STOPPING=1", "{name}");
        assert!(emulated() || server.children().len() == 1);
        assert!(receive_all(&client).0 == lines);
        assert!(server.wait().success());
        server.has_said_nothing_else();
    }
}

/// It is ready when the filter is installed and the ready line is written. No time depends
/// on the clock that an administrator may set.
#[test]
fn it_is_ready_when_all_else_is_done() {
    if !tool("strace") {
        return;
    }
    let [(manager, name, _path), _] = managers();
    let log = scratch("strace");
    let mut strace = Command::new("strace");
    strace.args(["-e", "trace=seccomp,write,pwritev2,clock_gettime,clock_nanosleep", "-o"]);
    strace.arg(&*log).args(command_line(&["-v", "-g", "1", "echo", "0"]));
    let mut server = Server::spawn(piped(strace.env("NOTIFY_SOCKET", &name)));
    assert_eq!(next_state(&manager), "READY=1");
    let client = server.connect();
    assert_eq!(say(&client, LINE), LINE);
    children_of(server.pid).iter().for_each(|&pid| kill(pid as i32, libc::SIGTERM));
    assert!(server.wait().success());
    let calls = fs::read_to_string(&*log).expect("strace's output");
    let at = |what: &str| calls.find(what).unwrap_or_else(|| panic!("no {what}: {calls}"));
    assert!(at("seccomp(") < at(" listening on "), "{calls}");
    assert!(at(" listening on ") < at("READY=1"), "{calls}");
    assert!(at("READY=1") < at("STOPPING=1") && at("STOPPING=1") < at(": end pid="), "{calls}");
    assert!(at("clock_gettime(CLOCK_MONOTONIC") > 0 && !calls.contains("REALTIME"), "{calls}");
}

/// systemd may hand over a socket and listen for the state too.
#[test]
fn a_server_on_a_socket_that_it_is_given_tells_its_state() {
    let listener = listener();
    for (manager, name, _path) in managers() {
        let environment = format!("{ENVIRONMENT} NOTIFY_SOCKET='{name}'");
        let server = Server::spawn(&mut activated(&listener, &environment, "echo"));
        assert_eq!(next_state(&manager), "READY=1");
        assert_eq!(exchange(server.connect(), LINE), LINE);
        server.signal(libc::SIGQUIT);
        assert_eq!(next_state(&manager), "STOPPING=1");
    }
}

#[test]
fn a_service_manager_that_cannot_be_told_is_no_obstacle() {
    for (manager, name, _path) in managers() {
        // Nobody listens any more: the path is left, the abstract name is not.
        drop(manager);
        let server = Server::spawn(forkline(&["echo", "0"]).env("NOTIFY_SOCKET", &name));
        assert_eq!(exchange(server.connect(), LINE), LINE);
        server.stderr.wait_for("\nforkline: fault call=NOTIFY_SOCKET error=ECONNREFUSED\n");
    }
    let too_long = Path::new("/").join("x".repeat(108));
    for (path, error) in [(&*scratch_socket(), "ENOENT"), (&*too_long, "EINVAL")] {
        let server = Server::spawn(forkline(&["echo", "0"]).env("NOTIFY_SOCKET", path));
        server.stderr.wait_for(&format!("\nforkline: fault call=NOTIFY_SOCKET error={error}\n"));
    }
    // A socket of another kind.
    let path = scratch_socket();
    let _stream = UnixListener::bind(&*path).expect("bind");
    let server = Server::spawn(forkline(&["echo", "0"]).env("NOTIFY_SOCKET", &*path));
    server.stderr.wait_for("\nforkline: fault call=NOTIFY_SOCKET error=EPROTOTYPE\n");
}

/// Fills the manager's queue, as many services that start at once do.
fn fill_queue(manager: &UnixDatagram) {
    let address = manager.local_addr().expect("its address");
    let other = UnixDatagram::unbound().expect("a socket");
    other.set_nonblocking(true).expect("nonblocking");
    while other.send_to_addr(b"#", &address).is_ok() {}
}

/// The manager is slow: without this word it would take the start for a failure.
#[test]
fn the_start_waits_for_room_in_the_managers_queue() {
    for (manager, name, _path) in managers() {
        fill_queue(&manager);
        let server = Server::spawn(forkline(&["echo", "0"]).env("NOTIFY_SOCKET", &name));
        let mut state = String::new();
        wait_for("all others are read", || {
            state = next_state(&manager);
            state != "#"
        });
        assert_eq!(state, "READY=1");
        assert_eq!(exchange(server.connect(), LINE), LINE);
        server.has_said_nothing_else();
    }
}

/// A manager that reads nothing, and one that goes away.
#[test]
fn a_service_manager_that_does_not_read_delays_the_start_only() {
    for (manager, name, _path) in managers() {
        fill_queue(&manager);
        let begin = Instant::now();
        let mut server = Server::spawn(forkline(&["echo", "0"]).env("NOTIFY_SOCKET", &name));
        server.stderr.wait_for("\nforkline: fault call=NOTIFY_SOCKET error=EAGAIN\n");
        assert!(begin.elapsed() >= Duration::from_secs(5), "{:?}", begin.elapsed());
        assert_eq!(exchange(server.connect(), LINE), LINE);
        // The end does not wait for room, nor does it say more.
        let begin = Instant::now();
        server.signal(libc::SIGTERM);
        assert!(server.wait().success());
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
        assert_eq!(server.other_messages().len(), 1, "{}", server.stderr.text());
    }
}

/// One that goes away before the end.
#[test]
fn a_service_manager_that_goes_away_is_no_obstacle() {
    for (manager, name, path) in managers() {
        let mut server = Server::spawn(forkline(&["echo", "0"]).env("NOTIFY_SOCKET", &name));
        assert_eq!(next_state(&manager), "READY=1");
        drop((manager, path));
        assert_eq!(exchange(server.connect(), LINE), LINE);
        server.signal(libc::SIGTERM);
        assert!(server.wait().success());
        server.has_said_nothing_else();
    }
}
