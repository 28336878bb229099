//! Connections to a server: what a client sends, receives and notices.

use super::*;
use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, FromRawFd};
use std::os::linux::net::TcpStreamExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;
use std::time::{Duration, Instant};

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

/// A client whose bytes are there before the server, which is stopped, accepts it.
pub fn connect_while_stopped(server: &Server, bytes: &[u8]) -> TcpStream {
    stop(server.pid);
    let mut client = server.connect();
    client.write_all(bytes).expect("send");
    wait_for("it is taken", || unacknowledged(&client) == 0);
    client
}

/// Whether a line comes back: a refused client gets an end of file or a reset.
pub fn served(mut stream: &TcpStream) -> bool {
    let mut answer = [0; 3];
    stream.write_all(b"12\n").is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && answer == *b"12\n"
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

/// Sets an option of a socket, if there is a value, and gives it.
pub fn socket_option(socket: &impl AsFd, level: i32, option: i32, value: Option<i32>) -> i32 {
    let (fd, mut now, mut len) = (socket.as_fd().as_raw_fd(), 0, 4);
    // SAFETY: the option's value is an int, and lives longer than the calls.
    let results = unsafe {
        let set = |new: i32| libc::setsockopt(fd, level, option, (&raw const new).cast(), 4);
        let set = value.map_or(0, set);
        [set, libc::getsockopt(fd, level, option, (&raw mut now).cast(), &mut len)]
    };
    assert_eq!(results, [0, 0], "{}", io::Error::last_os_error());
    now
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
