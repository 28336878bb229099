//! What every test needs: forkline and the C programs as running servers, with
//! their output collected, and ways to wait, look into /proc and talk to them.
//!
//! ```ignore
//! let server = Server::start(&["echo", "0"]);
//! assert_eq!(exchange(server.connect(), b"hello\n"), b"hello\n");
//! server.stdout.wait_for("server received 6 bytes\n");
//! ```
#![allow(dead_code)] // each test file uses its own part of this

pub mod messages;

use fastrand::Rng;
use std::cell::Cell;
use std::env;
use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{
    IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket,
};
use std::ops::Deref;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::linux::net::TcpStreamExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

/// The longest that anything here waits before the test fails: far longer than it
/// takes where many others want the processors too.
pub const DEADLINE: Duration = Duration::from_secs(120);

// ---------------------------------------------------------------- servers

/// A running server in a process group of its own. Dropping it kills it and
/// its children, and checks every message that it has written.
pub struct Server {
    pub port: u16,
    pub pid: u32,
    /// Empty unless the command's stdout is a pipe, which it is by default.
    pub stdout: Collected,
    pub stderr: Collected,
    child: Child,
    /// Once it has ended: the children that it has left behind.
    orphans: Option<Vec<u32>>,
}

impl Server {
    /// Starts forkline and returns when it is ready.
    pub fn start(args: &[&str]) -> Server {
        Server::spawn(&mut forkline(args))
    }

    /// Starts `tests/c/<service>.c` on a port that the kernel chose.
    pub fn start_c(service: &str) -> Server {
        let mut command = Command::new(compiled(service));
        if service == "echo" {
            command.arg("0");
        }
        Server::spawn(command.stdout(Stdio::piped()).stderr(Stdio::null()))
    }

    /// Starts any command that becomes a server: `forkline(args)` with its
    /// streams, limits or user changed, or a program that runs forkline.
    /// Without a readiness line (stderr elsewhere or closed) the port is read
    /// from /proc.
    pub fn spawn(command: &mut Command) -> Server {
        let mut server = Server::launch(command);
        wait_for("the server is ready", || {
            if let Some(status) = server.ended() {
                wait_for("its output ends", || server.stderr.ended());
                panic!("server ended, {status}: {}", server.stderr.text());
            }
            server.port = server.find_port().unwrap_or(0);
            server.port != 0
        });
        server
    }

    /// The same, but it may never be ready: its port is 0 for now.
    pub fn launch(command: &mut Command) -> Server {
        inherit_nothing();
        let mut child = command.process_group(0).spawn().expect("server starts");
        if let Some(pipe) = &child.stderr {
            never_full(pipe);
        }
        let stdout = Collected::from(child.stdout.take());
        let stderr = Collected::from(child.stderr.take());
        Server { port: 0, pid: child.id(), stdout, stderr, child, orphans: None }
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().expect("try_wait")?;
        self.orphans.get_or_insert_with(|| members_of(self.pid));
        Some(status)
    }

    /// Its port, once it is ready.
    pub fn find_port(&self) -> Option<u16> {
        if self.stderr.ended() {
            return listening_port(self.pid);
        }
        let lines = self.stderr.lines();
        let ready = lines.iter().find(|line| line.contains(" listening on "))?;
        ready.rsplit(':').next()?.parse().ok()
    }

    /// Connects over 127.0.0.1.
    pub fn connect(&self) -> TcpStream {
        connect(("127.0.0.1", self.port))
    }

    /// Its children, those that are zombies too.
    pub fn children(&self) -> Vec<u32> {
        children_of(self.pid)
    }

    /// Waits until it has exactly `n` children, zombies counted, and gives them.
    pub fn wait_for_children(&self, n: usize) -> Vec<u32> {
        wait_for(&format!("{n} children"), || self.children().len() == n);
        self.children()
    }

    /// Sends a signal to the server alone.
    pub fn signal(&self, signal: i32) {
        kill(self.pid as i32, signal);
    }

    /// Kills it and its children and gives all of stdout and of stderr.
    pub fn stop(self) -> (String, String) {
        let (stdout, stderr) = (self.stdout.clone(), self.stderr.clone());
        drop(self);
        wait_for("its output ends", || stdout.ended() && stderr.ended());
        (stdout.text(), stderr.text())
    }

    /// What it has said besides the ready line and the lines of its end, among
    /// which are the ends of the children that it has killed.
    pub fn other_messages(&self) -> Vec<String> {
        let lines = self.stderr.lines();
        let (ready, rest) = lines.split_first().expect("the ready line");
        assert!(ready.contains(" listening on "), "{ready}");
        let mut kills = false;
        let is_other = |line: &&String| {
            kills |= line.starts_with("forkline: kill ");
            let is_killed = kills && line.contains(" reason=signal signal=SIGKILL ");
            !is_killed && !is_of_the_end(line)
        };
        rest.iter().filter(is_other).cloned().collect()
    }

    /// Panics if there are other messages.
    pub fn has_said_nothing_else(&self) {
        assert!(self.other_messages().is_empty(), "{}", self.stderr.text());
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_for("the server ends", || {
            status = self.ended();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        match &self.orphans {
            None => kill(-(self.pid as i32), libc::SIGKILL),
            // By now another process may have its number, and be in its own group.
            Some(orphans) if orphans.is_empty() => {}
            Some(orphans) => {
                let left = members_of(self.pid).into_iter().filter(|pid| orphans.contains(pid));
                left.for_each(|pid| kill(pid as i32, libc::SIGKILL));
            }
        }
        let _ = self.child.wait();
        if !thread::panicking() {
            // A process elsewhere may hold the pipe for longer.
            within(Duration::from_secs(1), || self.stderr.ended());
            messages::check(&self.stderr.text());
        }
    }
}

/// `forkline: drain signal=SIGTERM children=3/1024`, `forkline: drained children=0/1024`
/// and the like.
pub fn is_of_the_end(line: &str) -> bool {
    let words: Vec<&str> = line.split(' ').collect();
    let ["forkline:", event, signal @ .., children] = &words[..] else { return false };
    let signal_fits = match signal {
        [] => matches!(*event, "reset" | "kill" | "drained"),
        [signal] => {
            matches!(*event, "drain" | "reset" | "kill") && signal.starts_with("signal=SIG")
        }
        _ => false,
    };
    let count = children.strip_prefix("children=").and_then(|count| count.split_once('/'));
    let is_number = |text: &str| text.parse::<u32>().is_ok();
    signal_fits && count.is_some_and(|(n, most)| is_number(n) && is_number(most))
}

/// The release binary with these arguments, stdout and stderr piped.
pub fn forkline(args: &[&str]) -> Command {
    let words = command_line(args);
    let mut command = Command::new(&words[0]);
    piped(command.args(&words[1..]));
    command
}

/// A command without input, whose output is collected.
pub fn piped(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped())
}

/// The same as words. $FORKLINE may name another architecture's binary, after
/// the emulator that runs it.
pub fn command_line(args: &[&str]) -> Vec<String> {
    let emulator = env::var("FORKLINE");
    let binary = match &emulator {
        Ok(words) => words.split(' ').collect(),
        Err(_) => vec![env!("CARGO_BIN_EXE_forkline")],
    };
    binary.into_iter().chain(args.iter().copied()).map(String::from).collect()
}

/// Starts the command with descriptor `fd` closed, as `fd>&-` does in a shell.
pub fn close_at_start(command: &mut Command, fd: i32) -> &mut Command {
    // SAFETY: close is async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            libc::close(fd);
            Ok(())
        })
    }
}

/// What is started from here on does not ignore the signals that a script or
/// nohup(1) makes its commands ignore, and has no descriptor that this process was
/// started with, such as those of make's jobs.
fn inherit_nothing() {
    for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP] {
        // SAFETY: it is the default for each of them.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the call takes no pointers. Descriptors of our own are closed at exec
        // as it is.
        unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
        // All tests together may need more than a shell's 1024.
        set_limit(0, libc::RLIMIT_NOFILE, u64::MAX);
    });
}

/// Runs a command that ends by itself, at most DEADLINE long.
pub fn run(command: &mut Command) -> Output {
    run_for(DEADLINE, command)
}

/// The same for tools, which take long on a machine that is busy.
pub fn run_tool(command: &mut Command) -> Output {
    run_for(10 * DEADLINE, command)
}

fn run_for(most: Duration, command: &mut Command) -> Output {
    inherit_nothing();
    command.stdin(Stdio::null()).process_group(0);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let pid = child.id() as i32;
    let stdout = Collected::from(child.stdout.take());
    let stderr = Collected::from(child.stderr.take());
    let end = Instant::now() + most;
    let late = loop {
        match child.try_wait().expect("try_wait") {
            Some(_) if stdout.ended() && stderr.ended() => break false,
            _ if Instant::now() > end => break true,
            _ => thread::sleep(Duration::from_millis(1)),
        }
    };
    if late {
        kill(-pid, libc::SIGKILL);
    }
    let status = child.wait().expect("wait");
    assert!(!late, "{command:?} did not end");
    messages::check(&stderr.text());
    Output { status, stdout: stdout.bytes(), stderr: stderr.bytes() }
}

/// Runs a tool in the project's directory and returns its stdout.
pub fn succeeds(command: &mut Command) -> String {
    let output = run_tool(command.current_dir(env!("CARGO_MANIFEST_DIR")));
    let (stdout, stderr) = (String::from_utf8(output.stdout), String::from_utf8(output.stderr));
    assert!(output.status.success(), "{command:?}: {stderr:?}");
    stdout.expect("text")
}

/// The program made from `tests/c/<name>.c` with $CC or cc, once per process.
pub fn compiled(name: &str) -> PathBuf {
    static DONE: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut done = DONE.lock().unwrap();
    if !done.iter().any(|other| other == name) {
        let new = scratch(name); // renamed when whole: another run may be using it
        let cc = env::var("CC").unwrap_or("cc".into());
        let source = format!("{}/tests/c/{name}.c", env!("CARGO_MANIFEST_DIR"));
        let mut cc = Command::new(cc);
        cc.args(["-Wall", "-Wextra", "-Werror", "-O2", "-DSERV_PORT=0", "-o"]);
        let output = run(cc.arg(&*new).arg(source));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::rename(&*new, &program).expect("rename");
        done.push(name.into());
    }
    program
}

// ---------------------------------------------------------------- output

/// Makes a pipe large enough for all that a test makes a server say: it drops what
/// does not fit, and the thread that reads may have to wait (fcntl(2), F_SETPIPE_SZ).
fn never_full(pipe: &impl AsRawFd) {
    // SAFETY: no pointers. Where it is not permitted, the pipe stays as it is.
    unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, 1 << 20) };
}

/// What a process has written to a pipe; a thread keeps reading, so that the
/// pipe never fills.
#[derive(Clone)]
pub struct Collected(Arc<Mutex<(Vec<u8>, bool)>>);

impl Collected {
    /// Reads from now on until end of file; without a pipe there is nothing.
    pub fn from(pipe: Option<impl Read + Send + 'static>) -> Collected {
        let shared = Arc::new(Mutex::new((Vec::new(), pipe.is_none())));
        let Some(mut pipe) = pipe else {
            return Collected(shared);
        };
        let collected = Collected(shared.clone());
        thread::spawn(move || {
            let mut piece = [0; 65536];
            while let Ok(n @ 1..) = pipe.read(&mut piece) {
                shared.lock().unwrap().0.extend_from_slice(&piece[..n]);
            }
            shared.lock().unwrap().1 = true;
        });
        collected
    }

    pub fn bytes(&self) -> Vec<u8> {
        let bytes = self.0.lock().unwrap().0.clone();
        // What an emulator cannot do is no part of any test.
        match bytes.strip_prefix(b"forkline: serving without seccomp: ") {
            Some(rest) if env::var("FORKLINE").is_ok() => {
                let end = rest.iter().position(|&c| c == b'\n').map_or(rest.len(), |at| at + 1);
                rest[end..].to_vec()
            }
            _ => bytes,
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// The whole lines so far, without their newlines.
    pub fn lines(&self) -> Vec<String> {
        let text = self.text();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        text[..whole].lines().map(String::from).collect()
    }

    /// Every process that could write has ended or closed it.
    pub fn ended(&self) -> bool {
        self.0.lock().unwrap().1
    }

    /// Waits until this text has been written.
    pub fn wait_for(&self, text: &str) {
        wait_for(&format!("{text:?} is written"), || self.text().contains(text));
    }
}

// ---------------------------------------------------------------- clients

/// A connection whose reads and writes fail after DEADLINE.
pub fn connect(address: impl ToSocketAddrs) -> TcpStream {
    prepared(TcpStream::connect(address).expect("connect"))
}

fn prepared(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
    stream.set_write_timeout(Some(DEADLINE)).expect("timeout");
    stream.set_nodelay(true).expect("nodelay");
    stream
}

/// The same from an address that the kernel would not choose by itself.
pub fn connect_from(source: impl Into<IpAddr>, to: SocketAddr) -> io::Result<TcpStream> {
    connect_with(source, to, None)
}

/// The same with a receive buffer of so many bytes from the first one on.
pub fn connect_with(
    source: impl Into<IpAddr>,
    to: SocketAddr,
    buffer: Option<i32>,
) -> io::Result<TcpStream> {
    let result = |value: i32| if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value) };
    let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let (from, to) = (sockaddr((source.into(), 0).into()), sockaddr(to));
    let len = from.len() as u32;
    // SAFETY: the socket is new and ours; of each address and of each option
    // the kernel reads as many bytes as it is told.
    let stream = unsafe {
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
        let stream = TcpStream::from_raw_fd(result(libc::socket(family, kind, 0))?);
        let fd = stream.as_raw_fd();
        // The port is chosen by connect, which may take one that is in TIME_WAIT
        // elsewhere (ip(7)).
        let (option, on) = (libc::IP_BIND_ADDRESS_NO_PORT, 1i32);
        libc::setsockopt(fd, libc::SOL_IP, option, (&raw const on).cast(), 4);
        if let Some(bytes) = buffer {
            let (level, option) = (libc::SOL_SOCKET, libc::SO_RCVBUF);
            libc::setsockopt(fd, level, option, (&raw const bytes).cast(), 4);
        }
        result(libc::bind(fd, from.as_ptr().cast(), len))?;
        result(libc::connect(fd, to.as_ptr().cast(), len))?;
        stream
    };
    Ok(prepared(stream))
}

/// As a sockaddr_in6; a sockaddr_in is the beginning of one (ip(7), ipv6(7)).
fn sockaddr(address: SocketAddr) -> [u8; size_of::<libc::sockaddr_in6>()] {
    let mut bytes = [0; _];
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 } as u16;
    bytes[..2].copy_from_slice(&family.to_ne_bytes());
    bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => bytes[4..8].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => bytes[8..24].copy_from_slice(&ip.octets()),
    }
    bytes
}

/// Sends the bytes, half-closes, and gives all that comes back.
pub fn exchange(stream: TcpStream, bytes: &[u8]) -> Vec<u8> {
    exchange_pieces(stream, &[bytes])
}

/// The same with a write for each piece. Sending and receiving go on at once,
/// so that neither side can block the other.
pub fn exchange_pieces(stream: TcpStream, pieces: &[&[u8]]) -> Vec<u8> {
    let mut answer = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            pieces.iter().for_each(|piece| (&stream).write_all(piece).expect("send"));
            stream.shutdown(Shutdown::Write).expect("shutdown");
        });
        while receive_some(&stream, &mut answer).expect("receive") > 0 {}
    });
    answer
}

/// Appends what has come, 0 bytes at end of file. Acknowledged at once: the
/// servers leave Nagle's algorithm on, and a delay of 40 ms for each of many
/// small lines adds up (TCP_QUICKACK, tcp(7)).
pub fn receive_some(mut stream: &TcpStream, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let mut piece = [0; 65536];
    stream.set_quickack(true)?;
    let n = loop {
        match stream.read(&mut piece) {
            // A timeout rules out a restart, though no handler runs (signal(7)).
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => break result?,
        }
    };
    bytes.extend_from_slice(&piece[..n]);
    Ok(n)
}

/// Receives exactly `n` bytes.
pub fn receive(mut stream: &TcpStream, n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    stream.read_exact(&mut bytes).expect("receive");
    bytes
}

/// Sends the bytes and receives as many.
pub fn say(mut stream: &TcpStream, bytes: &[u8]) -> Vec<u8> {
    stream.write_all(bytes).expect("send");
    receive(stream, bytes.len())
}

/// What the service answers to these bytes.
pub fn answer(service: &str, bytes: &[u8]) -> Vec<u8> {
    let rotated = |&byte: &u8| match byte {
        b'a'..=b'z' => (byte - b'a' + 13) % 26 + b'a',
        b'A'..=b'Z' => (byte - b'A' + 13) % 26 + b'A',
        other => other,
    };
    if service == "echo" { bytes.to_vec() } else { bytes.iter().map(rotated).collect() }
}

/// What `ask` sends, for tests to which it does not matter.
pub const LINE: &[u8] = b"hello\n";

/// A client that has sent a line.
pub fn ask(server: &Server) -> TcpStream {
    let mut client = server.connect();
    client.write_all(LINE).expect("send");
    client
}

/// A client, and the lines that it has sent, which were all answered: but not all
/// answers have come to it yet, since it has read none.
pub fn client_with_much_to_take(server: &Server) -> (TcpStream, Vec<u8>) {
    let before = server.children();
    let mut client = server.connect();
    keep_buffer_small(&client);
    let mut child = 0;
    wait_for("its child", || {
        child = server.children().into_iter().find(|pid| !before.contains(pid)).unwrap_or(0);
        child != 0
    });
    let text = b"A line that is one of many.\n".repeat(20_000);
    client.write_all(&text).expect("send");
    wait_for("all is answered", || {
        unacknowledged(&client) == 0 && calls(child, libc::SYS_recvfrom)
    });
    (client, text)
}

/// Keeps the kernel from enlarging the client's receive buffer, so that only so much
/// can be sent to a client who reads nothing (SO_RCVBUF, socket(7)).
pub fn keep_buffer_small(client: &TcpStream) {
    let bytes = 65536i32;
    let (fd, value) = (client.as_raw_fd(), (&raw const bytes).cast());
    // SAFETY: the option's value is an int.
    let result = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, value, 4) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// A client and the child that serves it.
pub fn client_and_child(server: &Server) -> (TcpStream, u32) {
    let before = server.children();
    let client = server.connect();
    say(&client, LINE);
    let child = server.children().into_iter().find(|pid| !before.contains(pid));
    (client, child.expect("a child that answers"))
}

/// Sends these bytes again and again and reads nothing, until the child waits in send
/// and the client would wait too; gives how many it has sent. They are more than the
/// client's buffer takes, so the child cannot get rid of its answers.
pub fn fill(mut client: &TcpStream, child: u32, bytes: &[u8]) -> usize {
    keep_buffer_small(client);
    client.set_nonblocking(true).expect("nonblocking");
    let mut sent = 0;
    wait_for("the child waits in send", || match client.write(&bytes[sent % bytes.len()..]) {
        Ok(n) => {
            sent += n;
            false
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
            calls(child, libc::SYS_sendto)
        }
    });
    client.set_nonblocking(false).expect("blocking");
    sent
}

/// Open, and with nothing to read.
pub fn nothing_to_read(client: &TcpStream) -> bool {
    client.set_nonblocking(true).expect("nonblocking");
    let result = client.peek(&mut [0]);
    client.set_nonblocking(false).expect("blocking");
    matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// How a connection ends for its client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// The end of file: the other side has sent all that it wanted to.
    Closed,
    Reset,
}

/// Receives to the end.
pub fn receive_all(stream: &TcpStream) -> (Vec<u8>, End) {
    let mut bytes = Vec::new();
    loop {
        match receive_some(stream, &mut bytes) {
            // A reset in answer to what was sent too late comes after the end.
            Ok(0) if stream.take_error().expect("SO_ERROR").is_some() => {
                return (bytes, End::Reset);
            }
            Ok(0) => return (bytes, End::Closed),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return (bytes, End::Reset),
            Err(error) => panic!("receive: {error}"),
        }
    }
}

/// Bytes that this end has sent and that the other's kernel has not
/// acknowledged (tcp(7), SIOCOUTQ).
pub fn unacknowledged(stream: &TcpStream) -> usize {
    let mut bytes: i32 = 0;
    // SAFETY: the kernel writes an int.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &mut bytes) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    bytes as usize
}

/// Closes the connection with a reset (SO_LINGER of 0 seconds, socket(7)).
pub fn reset(stream: TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the option's value and its size are those of a linger.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of_val(&linger) as u32,
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// The two ends of a new terminal, for a person and for a program (pty(7)). Neither
/// is inherited by what another test starts at this moment.
pub fn terminal() -> io::Result<(File, File)> {
    let result = |value: i32| if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value) };
    let mut name = [0; 64];
    // SAFETY: the descriptor is new and ours, and the name has room for 64 bytes.
    let person = unsafe {
        let fd = result(libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC))?;
        let person = File::from_raw_fd(fd);
        result(libc::grantpt(fd))?;
        result(libc::unlockpt(fd))?;
        result(-libc::ptsname_r(fd, name.as_mut_ptr(), name.len()))?;
        person
    };
    // SAFETY: ptsname_r has ended it with a NUL.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
    let mut options = File::options();
    let program = options.read(true).write(true).custom_flags(libc::O_NOCTTY).open(name)?;
    Ok((person, program))
}

// ---------------------------------------------------------------- what users type

/// What forkline shows of a text that a user typed.
pub fn shown(text: &[u8]) -> String {
    let beginning = text.iter().take(64);
    let safe = beginning.map(|&c| if (b' '..=b'~').contains(&c) { c.into() } else { '?' });
    safe.chain("...".chars().filter(|_| text.len() > 64)).collect()
}

/// An address in 2001:db8::/32 (RFC 3849), often with runs of zeros.
pub fn some_ipv6(random: &mut Rng) -> Ipv6Addr {
    let mut groups = [0; 8];
    groups[..2].copy_from_slice(&[0x2001, 0xdb8]);
    for group in &mut groups[2..] {
        *group = if random.bool() { 0 } else { random.u16(..) >> random.u8(..16) };
    }
    groups.into()
}

/// One of the ways to write an address.
pub fn typed(ip: IpAddr, random: &mut Rng) -> String {
    let IpAddr::V6(ip) = ip else { return ip.to_string() };
    let groups = ip.segments().map(|group| format!("{group:04x}"));
    let [.., a, b, c, d] = ip.octets();
    match random.u8(..4) {
        0 => ip.to_string(),
        1 => ip.to_string().to_uppercase(),
        2 => groups.join(":"),
        _ => format!("{}:{a}.{b}.{c}.{d}", groups[..6].join(":")),
    }
}

/// Puts one of these characters in, takes up to two out, or exchanges them.
pub fn mutate(text: &mut Vec<u8>, characters: &[u8], random: &mut Rng) {
    let at = random.usize(..=text.len());
    let end = (at + random.usize(..=2)).min(text.len());
    let new = random.choice(characters).filter(|_| random.bool());
    text.splice(at..end, new.copied());
}

// ---------------------------------------------------------------- waiting

/// Polls until the condition holds; panics after DEADLINE.
pub fn wait_for(what: &str, condition: impl FnMut() -> bool) {
    assert!(within(DEADLINE, condition), "waited {DEADLINE:?} in vain: {what}");
}

/// Polls until the condition holds; false if it does not for so long.
pub fn within(time: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + time;
    while !condition() {
        if Instant::now() > end {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    true
}

/// The steps of a client who must be quicker than a limit of the server's, and whether
/// it was, as far as it depends on this machine.
pub struct Pace {
    /// When the step began, how long it may take, and whether one took longer.
    step: Cell<(Instant, Duration)>,
    late: Cell<bool>,
}

impl Pace {
    /// One step ends and the next begins.
    pub fn step(&self, most: Duration) {
        let (begin, limit) = self.step.replace((Instant::now(), most));
        self.late.set(self.late.get() || begin.elapsed() > limit);
    }
}

/// A test with an idle limit, two seconds at first. If it fails after a busy machine
/// has kept the client from its pace, it is made again with one twice as long.
pub fn at_its_pace(test: impl Fn(Duration, &Pace)) {
    for seconds in [2, 4, 8, 16, 32] {
        let step = Cell::new((Instant::now(), DEADLINE));
        let pace = Pace { step, late: Cell::new(false) };
        let result = catch_unwind(AssertUnwindSafe(|| test(Duration::from_secs(seconds), &pace)));
        pace.step(DEADLINE);
        match result {
            Ok(()) => return,
            Err(panic) if !pace.late.get() => resume_unwind(panic),
            Err(_) => {}
        }
    }
    panic!("the machine is too busy for any pace");
}

/// Sets this when it is dropped: it ends a load, however the test ends.
pub struct StopAtEnd<'a>(pub &'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

// ---------------------------------------------------------------- /proc

/// State letter and parent of a process, none when it does not exist (proc(5)).
pub fn stat(pid: u32) -> Option<(char, u32)> {
    let line = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let line = String::from_utf8_lossy(&line);
    let mut fields = line[line.rfind(')')? + 1..].split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}

/// Its state letter, `-` when it does not exist.
pub fn state(pid: u32) -> char {
    stat(pid).map_or('-', |(state, _)| state)
}

/// Stops a process and waits until it has stopped.
pub fn stop(pid: u32) {
    kill(pid as i32, libc::SIGSTOP);
    wait_for("the process stops", || state(pid) == 'T');
}

/// It has ended. An orphan's zombie is its new parent's business.
pub fn has_ended(pid: u32) -> bool {
    matches!(state(pid), '-' | 'Z')
}

/// Whether the process is blocked in this call (proc(5), syscall).
pub fn calls(pid: u32, number: i64) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    call.split(' ').next() == Some(&number.to_string())
}

/// How many of a signal wait for the process and for its thread (proc(5), ShdPnd
/// and SigPnd).
pub fn pending(pid: u32, signal: i32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let masks = status.lines().filter_map(|line| {
        line.strip_prefix("ShdPnd:\t").or_else(|| line.strip_prefix("SigPnd:\t"))
    });
    let masks = masks.map(|mask| u64::from_str_radix(mask, 16).expect("hexadecimal"));
    masks.filter(|mask| mask & 1 << (signal - 1) != 0).count()
}

/// The children of a process, zombies too.
pub fn children_of(pid: u32) -> Vec<u32> {
    pids().filter(|&child| matches!(stat(child), Some((_, parent)) if parent == pid)).collect()
}

/// The processes of a group, zombies too.
pub fn members_of(group: u32) -> Vec<u32> {
    // SAFETY: getpgid takes no pointers.
    pids().filter(|&pid| unsafe { libc::getpgid(pid as i32) } == group as i32).collect()
}

/// No process of the group exists, not even a zombie.
pub fn nobody_in_group(group: i32) -> bool {
    // SAFETY: no pointers.
    unsafe { libc::kill(-group, 0) != 0 }
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The same from one file, for those who ask all the time (proc(5)): it may miss
/// some while others end.
pub fn children_now(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("children");
    list.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect()
}

/// How many children the process has had at one moment, at least. The list alone may
/// name more: one that has ended while it was read, and one that has come since. Who
/// is still there afterwards was there together with all others.
pub fn children_at_once(pid: u32) -> usize {
    let is_child = |&&child: &&u32| stat(child).is_some_and(|(_, parent)| parent == pid);
    children_now(pid).iter().filter(is_child).count()
}

/// Sets a soft limit of a process, 0 for this one, and gives the one before (prlimit(2)).
pub fn set_limit(pid: u32, resource: libc::__rlimit_resource_t, soft: u64) -> u64 {
    let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limits outlive the calls.
    let results = unsafe {
        let first = libc::prlimit(pid as i32, resource, ptr::null(), &mut before);
        let limit = libc::rlimit { rlim_cur: soft.min(before.rlim_max), ..before };
        [first, libc::prlimit(pid as i32, resource, &limit, ptr::null_mut())]
    };
    assert_eq!(results, [0, 0], "prlimit: {}", io::Error::last_os_error());
    before.rlim_cur
}

/// Lets a process open no more descriptors, and gives the limit before.
pub fn no_more_descriptors(pid: u32) -> u64 {
    let open = descriptors(pid);
    let free = (0..).find(|n| open.iter().all(|(fd, _)| fd != n)).unwrap();
    set_limit(pid, libc::RLIMIT_NOFILE, free.into())
}

/// What each open descriptor of a process points to: `socket:[4026]`, `/dev/null`.
pub fn descriptors(pid: u32) -> Vec<(u32, String)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    let open = entries.flatten().filter_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, target.to_string_lossy().into_owned()))
    });
    open.collect()
}

/// One TCP socket of a process, with its own port and its peer's.
#[derive(Debug)]
pub struct Tcp {
    pub listens: bool,
    pub port: u16,
    pub peer: u16,
}

/// The TCP sockets among a process's descriptors.
pub fn tcp_sockets(pid: u32) -> Vec<Tcp> {
    const TCP_LISTEN: &str = "0A";
    let port = |address: &str| u16::from_str_radix(address.rsplit(':').next()?, 16).ok();
    let open = descriptors(pid);
    let mut sockets = Vec::new();
    for family in ["tcp", "tcp6"] {
        let table = fs::read_to_string(format!("/proc/{pid}/net/{family}")).unwrap_or_default();
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let socket = format!("socket:[{}]", fields[9]);
            if open.iter().any(|(_, target)| *target == socket) {
                let (own, peer) = (port(fields[1]).unwrap(), port(fields[2]).unwrap());
                sockets.push(Tcp { listens: fields[3] == TCP_LISTEN, port: own, peer });
            }
        }
    }
    sockets
}

/// Resets the connection of a child that is stopped, after an end of file, and waits
/// until the child's end is gone: what the child does then meets the reset.
pub fn reset_unseen(client: TcpStream, child: u32) {
    let port = client.local_addr().expect("its address").port();
    client.shutdown(Shutdown::Write).expect("shutdown");
    reset(client);
    let is_there = || tcp_sockets(child).iter().any(|tcp| tcp.peer == port);
    wait_for("the reset has come", || !is_there());
}

/// The port of the process's listening TCP socket.
pub fn listening_port(pid: u32) -> Option<u16> {
    tcp_sockets(pid).iter().find(|tcp| tcp.listens).map(|tcp| tcp.port)
}

/// kill(2); a process that is gone already is no error.
pub fn kill(pid: i32, signal: i32) {
    // SAFETY: kill takes no pointers.
    unsafe { libc::kill(pid, signal) };
}

// ---------------------------------------------------------------- the machine

/// The processors that this process may use (sched_getaffinity(2)).
pub fn processors() -> Vec<usize> {
    // SAFETY: zeros are an empty set, which the kernel fills.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        assert_eq!(libc::sched_getaffinity(0, size_of_val(&set), &mut set), 0);
        set
    };
    // SAFETY: these are the bits of the set.
    (0..libc::CPU_SETSIZE as usize).filter(|&i| unsafe { libc::CPU_ISSET(i, &set) }).collect()
}

/// Gives a network of our own one more address (ip-address(8)).
pub fn add_address(address: &str) {
    let mut ip = Command::new("ip");
    ip.args(["addr", "add", &format!("{address}/128"), "dev", "lo", "nodad"]);
    assert!(run(&mut ip).status.success(), "{address}");
}

/// Whether an emulator runs forkline, which has calls and memory of its own; says
/// `skipped:` when it does.
pub fn emulated() -> bool {
    let emulated = env::var_os("FORKLINE").is_some();
    if emulated {
        tell_skipped("this would look at the emulator");
    }
    emulated
}

/// Whether a program is installed and of use; says `skipped:` when it is not.
pub fn tool(name: &str) -> bool {
    if name == "strace" && emulated() {
        return false;
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).any(|directory| directory.join(name).is_file());
    if !found {
        skipped(&format!("no {name} here"));
    }
    found
}

/// Whether this is root; says `skipped:` when it is not.
pub fn root() -> bool {
    // SAFETY: it cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        skipped("not root");
    }
    root
}

/// Whether the machine has IPv6; says `skipped:` when it has not.
pub fn ipv6() -> bool {
    let found = TcpListener::bind("[::1]:0").is_ok();
    if !found {
        skipped("no IPv6 here");
    }
    found
}

/// Gives this thread, and what it starts from now on, a network that has
/// loopback only (`unshare -n`, `ip link set lo up`); false where that is not
/// permitted.
pub fn own_network() -> bool {
    // SAFETY: no pointers.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return false;
    }
    // SAFETY: all its fields are numbers.
    let mut lo: libc::ifreq = unsafe { std::mem::zeroed() };
    lo.ifr_name[..2].copy_from_slice(&b"lo".map(|c| c as libc::c_char));
    lo.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    // SAFETY: for this request (netdevice(7)) the kernel reads an ifreq.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &lo) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    true
}

/// Says so where the test's captured output would hide it; with
/// FORKLINE_TEST_ALL=1 nothing may be skipped.
pub fn skipped(why: &str) {
    assert!(env::var("FORKLINE_TEST_ALL").as_deref() != Ok("1"), "skipped: {why}");
    tell_skipped(why);
}

fn tell_skipped(why: &str) {
    let test = thread::current().name().unwrap_or("test").to_owned();
    let _ = writeln!(io::stderr(), "skipped: {test}: {why}");
}

/// A path for a file or directory of this test alone, removed in the end.
pub struct Scratch(PathBuf);

pub fn scratch(name: &str) -> Scratch {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("{name}-{}-{n}", std::process::id());
    Scratch(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name))
}

/// The same for a socket: its path may have 107 bytes at most (unix(7)).
pub fn scratch_socket() -> Scratch {
    Scratch(env::temp_dir().join(format!("forkline-{:016x}", fastrand::u64(..))))
}

impl Deref for Scratch {
    type Target = Path;
    fn deref(&self) -> &Path {
        &self.0
    }
}

impl AsRef<std::ffi::OsStr> for Scratch {
    fn as_ref(&self) -> &std::ffi::OsStr {
        self.0.as_ref()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0).or_else(|_| fs::remove_dir_all(&self.0));
    }
}
