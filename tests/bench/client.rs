//! The load: one process with one thread that makes as few system calls as it
//! can, the same for every server. Every answer is compared, but a stream's
//! only at its beginning.

use crate::common::connect_from;
use std::ffi::c_int;
use std::io::{Error, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// Nothing here may wait longer for a server.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a client sends, and what it must get back.
pub struct Exchange {
    pub line: Vec<u8>,
    pub answer: Vec<u8>,
}

struct Client {
    stream: TcpStream,
    /// Bytes of the answer that have come.
    got: usize,
}

impl Client {
    fn connect(address: SocketAddrV4) -> Client {
        Client { stream: TcpStream::connect(address).expect("connect"), got: 0 }
    }

    /// For a connection that is kept, what is worth three more calls.
    fn patient(self) -> Client {
        self.stream.set_nodelay(true).expect("nodelay");
        self.stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        self.stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
        self
    }

    fn send(&mut self, exchange: &Exchange) {
        self.stream.write_all(&exchange.line).expect("send");
    }

    /// Receives once; true when the answer is whole.
    fn receive(&mut self, exchange: &Exchange) -> bool {
        let mut bytes = [0; 1024];
        let n = self.stream.read(&mut bytes).expect("receive");
        let whole = exchange.answer.get(self.got..self.got + n);
        assert!(n > 0 && whole == Some(&bytes[..n]), "a wrong answer");
        self.got += n;
        if self.got < exchange.answer.len() {
            return false;
        }
        self.got = 0;
        true
    }
}

/// Keeps this thread on one processor (sched_setaffinity(2)).
pub fn stay_on(processor: usize) {
    // SAFETY: zeros are an empty set, and the kernel reads as much as it is told.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(processor, &mut set);
        assert_eq!(libc::sched_setaffinity(0, size_of_val(&set), &set), 0);
    }
}

/// Connects, exchanges one line, closes: `n` times, `parallel` at a time.
pub fn connections(address: SocketAddrV4, exchange: &Exchange, n: usize, parallel: usize) {
    connections_while(address, exchange, parallel, |begun| begun < n);
}

/// The same for some time: how many, and in how many seconds.
pub fn connections_for(
    address: SocketAddrV4,
    exchange: &Exchange,
    time: Duration,
    parallel: usize,
) -> (f64, f64) {
    let begin = Instant::now();
    let n = connections_while(address, exchange, parallel, |_| begin.elapsed() < time);
    (n as f64, begin.elapsed().as_secs_f64())
}

/// Connects while there shall be `more` than have begun.
fn connections_while(
    address: SocketAddrV4,
    exchange: &Exchange,
    parallel: usize,
    more: impl Fn(usize) -> bool,
) -> usize {
    let mut clients: Vec<Option<Client>> = (0..parallel).map(|_| None).collect();
    let mut epoll = Epoll::new(parallel);
    let (mut begun, mut ended) = (0, 0);
    let begin = |epoll: &Epoll, clients: &mut Vec<Option<Client>>, slot, begun: &mut usize| {
        if more(*begun) {
            *begun += 1;
            let mut client = Client::connect(address);
            client.send(exchange);
            epoll.add(&client.stream, slot);
            clients[slot] = Some(client);
        }
    };
    (0..parallel).for_each(|slot| begin(&epoll, &mut clients, slot, &mut begun));
    while ended < begun {
        for slot in epoll.wait() {
            if clients[slot].as_mut().is_some_and(|client| client.receive(exchange)) {
                clients[slot] = None; // closes it
                ended += 1;
                begin(&epoll, &mut clients, slot, &mut begun);
            }
        }
    }
    ended
}

/// A client that sends a line each 2 ms: the microseconds until each came back, but for
/// the first one, which waits to be accepted.
pub fn polite(address: SocketAddrV4, exchange: &Exchange, time: Duration) -> Vec<f64> {
    let mut client = Client::connect(address).patient();
    client.send(exchange);
    while !client.receive(exchange) {}
    let (begin, mut times) = (Instant::now(), Vec::new());
    while begin.elapsed() < time {
        let sent = Instant::now();
        client.send(exchange);
        while !client.receive(exchange) {}
        times.push(sent.elapsed().as_secs_f64() * 1e6);
        thread::sleep(Duration::from_millis(2));
    }
    times
}

/// Connections that are kept, each of which has exchanged one line.
pub struct Clients {
    clients: Vec<Client>,
    epoll: Epoll,
}

impl Clients {
    pub fn connect(address: SocketAddrV4, exchange: &Exchange, n: usize) -> Clients {
        Clients::connect_with(exchange, n, |_| Client::connect(address))
    }

    /// The same from many addresses: an address has 28,000 ports.
    pub fn connect_from_many(address: SocketAddrV4, exchange: &Exchange, n: usize) -> Clients {
        Clients::connect_with(exchange, n, |i| {
            let from = Ipv4Addr::new(127, 0, 1, 1 + (i / 4000) as u8);
            let stream = connect_from(from, address.into()).expect("connect");
            Client { stream, got: 0 }
        })
    }

    /// At most 8 are waiting to be accepted at once: some servers' queues are short.
    fn connect_with(exchange: &Exchange, n: usize, connect: impl Fn(usize) -> Client) -> Clients {
        let mut all = Clients { clients: Vec::with_capacity(n), epoll: Epoll::new(n.min(1024)) };
        while all.clients.len() < n {
            let first = all.clients.len();
            for slot in first..n.min(first + 8) {
                let mut client = connect(slot).patient();
                client.send(exchange);
                all.epoll.add(&client.stream, slot);
                all.clients.push(client);
            }
            for client in &mut all.clients[first..] {
                while !client.receive(exchange) {}
            }
        }
        all
    }

    /// Lines there and back, with one under way for each client, and in how
    /// many seconds.
    pub fn requests(&mut self, exchange: &Exchange, time: Duration) -> (f64, f64) {
        if self.clients.len() == 1 {
            return round_trips(&mut self.clients[0], exchange, time);
        }
        let begin = Instant::now();
        self.clients.iter_mut().for_each(|client| client.send(exchange));
        let mut done = self.clients.len();
        while begin.elapsed() < time {
            for slot in self.epoll.wait() {
                if self.clients[slot].receive(exchange) {
                    done += 1;
                    self.clients[slot].send(exchange);
                }
            }
        }
        self.clients.iter_mut().for_each(|client| while !client.receive(exchange) {});
        (done as f64, begin.elapsed().as_secs_f64())
    }
}

/// The same for one client, which can do without epoll.
fn round_trips(client: &mut Client, exchange: &Exchange, time: Duration) -> (f64, f64) {
    let begin = Instant::now();
    let mut done = 0;
    while begin.elapsed() < time {
        client.send(exchange);
        while !client.receive(exchange) {}
        done += 1;
    }
    (done as f64, begin.elapsed().as_secs_f64())
}

/// One connection that sends the same lines again and again while it takes
/// what comes back.
pub struct Stream<'a> {
    client: Client,
    lines: &'a Exchange,
    sent: usize,
}

impl Stream<'_> {
    pub fn connect(address: SocketAddrV4, lines: &Exchange) -> Stream<'_> {
        Stream { client: Client::connect(address).patient(), lines, sent: 0 }
    }

    /// Bytes that came back, and in how many seconds. They are compared with
    /// what was sent, or thrown away by the kernel, so that the server is what
    /// limits (tcp(7), MSG_TRUNC).
    pub fn run(&mut self, time: Duration, compare: bool) -> (f64, f64) {
        let begin = Instant::now();
        let mut done = 0;
        while begin.elapsed() < time || done == 0 {
            let (sent, n) = (self.send(), self.receive(compare));
            done += n;
            if sent == 0 && n == 0 {
                self.wait();
            }
        }
        (done as f64, begin.elapsed().as_secs_f64())
    }

    /// Streams until it is told to stop.
    pub fn run_until(&mut self, stop: &AtomicBool) {
        while !stop.load(Relaxed) {
            if self.send() == 0 && self.receive(false) == 0 {
                self.wait();
            }
        }
    }

    fn send(&mut self) -> usize {
        let rest = &self.lines.line[self.sent..];
        let (fd, flags) = (self.client.stream.as_raw_fd(), libc::MSG_DONTWAIT);
        // SAFETY: the kernel reads as many bytes as it is told `rest` has.
        let n = some(unsafe { libc::send(fd, rest.as_ptr().cast(), rest.len(), flags) });
        self.sent = (self.sent + n) % self.lines.line.len();
        n
    }

    fn receive(&mut self, compare: bool) -> usize {
        let (fd, flags) = (self.client.stream.as_raw_fd(), libc::MSG_DONTWAIT);
        if compare {
            return self.compare();
        }
        // SAFETY: with MSG_TRUNC the kernel writes nothing.
        let n = unsafe { libc::recv(fd, std::ptr::null_mut(), 1 << 30, flags | libc::MSG_TRUNC) };
        assert_ne!(n, 0, "the server has closed the stream");
        some(n)
    }

    fn compare(&mut self) -> usize {
        let (fd, answer) = (self.client.stream.as_raw_fd(), &self.lines.answer);
        let mut bytes = [0; 65536];
        let room = bytes.len().min(answer.len() - self.client.got);
        // SAFETY: so many bytes may be written to `bytes`.
        let n = unsafe { libc::recv(fd, bytes.as_mut_ptr().cast(), room, libc::MSG_DONTWAIT) };
        assert_ne!(n, 0, "the server has closed the stream");
        let n = some(n);
        assert!(answer[self.client.got..][..n] == bytes[..n], "a wrong answer");
        self.client.got = (self.client.got + n) % answer.len();
        n
    }

    fn wait(&self) {
        let (fd, events) = (self.client.stream.as_raw_fd(), libc::POLLIN | libc::POLLOUT);
        let mut poll = libc::pollfd { fd, events, revents: 0 };
        // SAFETY: one structure, as told.
        let n = unsafe { libc::poll(&mut poll, 1, PATIENCE.as_millis() as c_int) };
        assert_eq!(n, 1, "the stream stands still");
    }
}

/// The bytes that a call that does not wait has moved.
fn some(result: isize) -> usize {
    let error = Error::last_os_error();
    assert!(result >= 0 || error.kind() == ErrorKind::WouldBlock, "{error}");
    result.max(0) as usize
}

/// epoll(7), level-triggered, for input.
struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    fn new(most: usize) -> Epoll {
        // SAFETY: it takes no pointers.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        assert!(fd >= 0, "{}", Error::last_os_error());
        // SAFETY: the kernel has just made it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Epoll { fd, events: vec![libc::epoll_event { events: 0, u64: 0 }; most] }
    }

    fn add(&self, stream: &TcpStream, slot: usize) {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: slot as u64 };
        let (epoll, fd) = (self.fd.as_raw_fd(), stream.as_raw_fd());
        // SAFETY: the kernel reads one structure.
        let result = unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &mut event) };
        assert_eq!(result, 0, "{}", Error::last_os_error());
    }

    /// The slots that have something to receive.
    fn wait(&mut self) -> impl Iterator<Item = usize> + use<> {
        let (room, patience) = (self.events.len() as c_int, PATIENCE.as_millis() as c_int);
        // SAFETY: there is room for so many.
        let n = unsafe {
            libc::epoll_wait(self.fd.as_raw_fd(), self.events.as_mut_ptr(), room, patience)
        };
        assert!(n > 0, "no answer comes");
        let slots: Vec<usize> = self.events[..n as usize].iter().map(|e| e.u64 as usize).collect();
        slots.into_iter()
    }
}
