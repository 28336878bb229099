//! The end of a server whose clients are far away. Bytes that are on their way when
//! SIGTERM comes are answered, too: the network here has a round trip and loses packets.

use crate::common::*;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

// ---------------------------------------------------------------- the network

/// Two hosts, each a network namespace with one device (the kernel's tun.rst), and a
/// thread that carries packets between them.
struct Network {
    /// Of the server and of the clients.
    hosts: [File; 2],
    stop: Arc<AtomicBool>,
    /// A packet had to wait, since the machine had no processor for the thread.
    late: Arc<AtomicBool>,
    carrier: Option<JoinHandle<()>>,
}

/// A packet may come this late. The server takes a silence of 400 ms for the end.
const LATE: Duration = Duration::from_millis(100);

const SERVER: usize = 0;
const CLIENT: usize = 1;
const ADDRESSES: [&str; 2] = ["10.9.0.1", "10.9.0.2"];

impl Network {
    /// A round trip takes so many milliseconds, and so many of a hundred packets are
    /// lost. `None` where that is not permitted.
    fn new(round_trip: u64, loss: u32) -> Option<Network> {
        let skip = |why: &str| {
            skipped(why);
            None
        };
        if !tool("ip") {
            return None;
        }
        let open = || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")
        };
        let (mut hosts, mut devices) = (Vec::new(), Vec::new());
        for (address, peer) in [(ADDRESSES[0], ADDRESSES[1]), (ADDRESSES[1], ADDRESSES[0])] {
            if !own_network() {
                return skip("no permission for a network of its own");
            }
            // The device comes to the network in which the file is opened.
            let Ok(device) = open() else { return skip("no /dev/net/tun") };
            set_up(&device, address, peer);
            hosts.push(File::open("/proc/thread-self/ns/net").expect("the namespace"));
            devices.push(device);
        }
        let (stop, late) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let delay = Duration::from_micros(round_trip * 500);
        let carrier = thread::spawn({
            let (stop, late) = (stop.clone(), late.clone());
            let devices = devices.try_into().expect("two");
            move || carry(&devices, delay, loss, &stop, &late)
        });
        Some(Network { hosts: hosts.try_into().expect("two"), stop, late, carrier: Some(carrier) })
    }

    /// From now on this thread, and what it starts, is at this host.
    fn enter(&self, host: usize) {
        // SAFETY: no pointers.
        let result = unsafe { libc::setns(self.hosts[host].as_raw_fd(), libc::CLONE_NEWNET) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }

    /// Starts forkline at the server's host.
    fn start(&self, args: &[&str]) -> Server {
        self.enter(SERVER);
        let server = Server::start(args);
        self.enter(CLIENT);
        server
    }

    /// Makes a round until the network has carried all its packets in time.
    fn in_time(&self, round: impl Fn() -> Result<(), String>) {
        for _ in 0..10 {
            self.late.store(false, Relaxed);
            let result = round();
            if !self.late.load(Relaxed) {
                return result.unwrap_or_else(|why| panic!("{why}"));
            }
        }
        panic!("the machine is too busy for a network");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let _ = self.carrier.take().map(JoinHandle::join);
    }
}

/// Gives the device its addresses.
fn set_up(device: &File, address: &str, peer: &str) {
    const NAME: &[u8] = b"path";
    const TUNSETIFF: libc::Ioctl = 0x4004_54ca; // linux/if_tun.h
    // SAFETY: all its fields are numbers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(NAME) {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: for this request the kernel reads and writes an ifreq.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), TUNSETIFF, &mut request) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    // A queue for all that is sent while the carrier is not scheduled.
    let commands =
        [format!("addr add {address} peer {peer} dev path"), "link set path up qlen 10000".into()];
    for command in commands {
        let output = run(Command::new("ip").args(command.split(' ')));
        assert!(output.status.success(), "{command}: {output:?}");
    }
}

/// Carries packets from each device to the other, until it is stopped.
fn carry(devices: &[File; 2], delay: Duration, loss: u32, stop: &AtomicBool, late: &AtomicBool) {
    let mut under_way = VecDeque::new();
    let mut packet = [0; 65536];
    while !stop.load(Relaxed) {
        let mut ready = devices.each_ref().map(|device| libc::pollfd {
            fd: device.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        });
        let next = under_way.front().map(|&(due, ..): &(Instant, usize, Vec<u8>)| due);
        let wait = next.map_or(Duration::from_millis(50), |due| due - Instant::now());
        let time = libc::timespec { tv_sec: 0, tv_nsec: wait.as_nanos() as i64 };
        let begin = Instant::now();
        // SAFETY: two `pollfd`, a time and no signals.
        unsafe { libc::ppoll(ready.as_mut_ptr(), 2, &time, std::ptr::null()) };
        for from in [SERVER, CLIENT] {
            while let Ok(n) = (&devices[from]).read(&mut packet) {
                if fastrand::u32(..100) >= loss {
                    let packet = packet[..n].to_vec();
                    under_way.push_back((Instant::now() + delay, 1 - from, packet));
                }
            }
        }
        while under_way.front().is_some_and(|&(due, ..)| due <= Instant::now()) {
            let (_, to, packet) = under_way.pop_front().unwrap();
            let _ = (&devices[to]).write(&packet);
        }
        if begin.elapsed() > wait + LATE {
            late.store(true, Relaxed);
        }
    }
}

// ---------------------------------------------------------------- the clients

#[derive(Clone, Copy, Debug, PartialEq)]
enum Habit {
    /// Sends 500 KB, half-closes and reads, as `nc -N` does with a file.
    Batch,
    /// The same, but it reads slowly.
    Slow,
    /// Sends 20 lines, one each 5 ms, half-closes and reads.
    Pipelines,
    /// Sends 10 lines, one each 150 ms, half-closes and reads.
    Thinks,
    /// Sends a line, waits for the answer, and so on.
    Talks,
    /// Has its answer, and says nothing more.
    Silent,
}
use Habit::{Batch, Pipelines, Silent, Slow, Talks, Thinks};

const LINE_OF_MANY: &[u8] = b"A line of many that are under way at once.\n";

/// Plays a client to the end of its connection: what it has sent, and what has come.
fn play(stream: &TcpStream, habit: Habit) -> (usize, usize, End) {
    let (pieces, piece, pause) = match habit {
        Batch | Slow => (500, LINE_OF_MANY.repeat(25), 0),
        Pipelines => (20, LINE_OF_MANY.to_vec(), 5),
        Thinks => (10, LINE_OF_MANY.to_vec(), 150),
        Talks => return talk(stream),
        Silent => (0, vec![], 0),
    };
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sent = 0;
            for _ in 0..pieces {
                if (&mut &*stream).write_all(&piece).is_err() {
                    return (sent, true);
                }
                sent += piece.len();
                thread::sleep(Duration::from_millis(pause)); // the client's pace
            }
            (sent, habit != Silent && stream.shutdown(Shutdown::Write).is_err())
        });
        let (mut bytes, mut some) = (Vec::new(), [0; 16384]);
        let end = loop {
            match (&mut &*stream).read(&mut some) {
                Ok(0) if stream.take_error().expect("SO_ERROR").is_none() => break End::Closed,
                Ok(n @ 1..) => bytes.extend_from_slice(&some[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("{habit:?} hangs"),
                _ => break End::Reset,
            }
            if habit == Slow {
                thread::sleep(Duration::from_millis(10)); // the client's pace
            }
        };
        let (sent, broken) = sender.join().unwrap();
        assert!(piece.repeat(pieces).starts_with(&bytes), "{habit:?}: an answer to something else");
        (sent, bytes.len(), if broken { End::Reset } else { end })
    })
}

fn talk(mut stream: &TcpStream) -> (usize, usize, End) {
    let (mut sent, mut answered) = (0, 0);
    loop {
        if stream.write_all(LINE).is_err() {
            return (sent, answered, End::Reset);
        }
        sent += LINE.len();
        while answered < sent {
            match stream.read(&mut [0; LINE.len()]) {
                Ok(0) => return (sent, answered, End::Closed),
                Ok(n) => answered += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("a talk hangs"),
                Err(_) => return (sent, answered, End::Reset),
            }
        }
    }
}

/// What came of a client.
#[derive(Debug)]
struct Outcome {
    habit: Habit,
    sent: usize,
    answered: usize,
    end: End,
    /// From the signal to the end.
    time: Duration,
}

/// Clients with these habits, and SIGTERM at a random moment of their work.
fn round(network: &Network, args: &[&str], habits: &[Habit]) -> (Vec<Outcome>, Duration) {
    let mut server = network.start(args);
    let streams: Vec<_> =
        habits.iter().map(|_| connect((ADDRESSES[SERVER], server.port))).collect();
    for (_, stream) in habits.iter().zip(&streams).filter(|(habit, _)| **habit == Silent) {
        say(stream, LINE);
    }
    server.wait_for_children(habits.len());
    thread::scope(|scope| {
        let begin = Instant::now();
        let moment = Duration::from_millis(fastrand::u64(..200));
        let clients = habits.iter().zip(&streams).map(|(&habit, stream)| {
            scope.spawn(move || {
                let (sent, answered, end) = play(stream, habit);
                Outcome { habit, sent, answered, end, time: begin.elapsed().saturating_sub(moment) }
            })
        });
        let clients: Vec<_> = clients.collect();
        thread::sleep(moment);
        server.signal(libc::SIGTERM);
        assert!(server.wait().success());
        let time = begin.elapsed() - moment;
        server.has_said_nothing_else();
        (clients.into_iter().map(|client| client.join().unwrap()).collect(), time)
    })
}

// ---------------------------------------------------------------- the tests

/// Milliseconds of a round trip, and how many packets of a hundred are lost.
const NETWORKS: [(u64, u32); 4] = [(0, 0), (40, 0), (150, 0), (40, 1)];

/// Makes so many rounds with each network, all networks at once.
fn on_all_networks(rounds: usize, round: impl Fn(&Network) -> Result<(), String> + Sync) {
    in_parallel(NETWORKS.len(), NETWORKS.len(), |i| {
        let (round_trip, loss) = NETWORKS[i];
        let Some(network) = Network::new(round_trip, loss) else { return };
        for _ in 0..rounds {
            network.in_time(|| {
                round(&network).map_err(|why| format!("{round_trip} ms, {loss} % lost: {why}"))
            });
        }
    });
}

/// Clients that end by themselves: each has the whole answer and the end of file, and a
/// silent one is not waited for.
fn what_is_under_way_is_answered(network: &Network) -> Result<(), String> {
    let habits = [Batch, Batch, Slow, Slow, Pipelines, Pipelines, Pipelines, Thinks, Silent];
    let (outcomes, time) = round(network, &["-q", "-g", "30", "echo", "0"], &habits);
    let is_wrong = |outcome: &&Outcome| {
        outcome.answered != outcome.sent
            || outcome.end != End::Closed
            || outcome.habit == Silent && outcome.time > Duration::from_secs(5)
    };
    println!("{time:?}, {outcomes:?}");
    match outcomes.iter().find(is_wrong) {
        Some(outcome) => Err(format!("{outcome:?}")),
        None if time > Duration::from_secs(15) => Err(format!("the end takes {time:?}")),
        None => Ok(()),
    }
}

#[test]
fn a_drain_answers_what_is_under_way() {
    on_all_networks(2, what_is_under_way_is_answered);
}

#[test]
#[ignore = "takes minutes: make faults"]
fn many_drains_answer_what_is_under_way() {
    on_all_networks(20, what_is_under_way_is_answered);
}

/// Clients that never pause are served until the grace time ends, and then told by a
/// reset. No line is answered in part.
#[test]
fn a_conversation_goes_on_until_the_grace_time_ends() {
    on_all_networks(1, |network| {
        let (outcomes, time) = round(network, &["-q", "-g", "2", "echo", "0"], &[Talks; 5]);
        let is_wrong = |outcome: &&Outcome| {
            let partly = !outcome.answered.is_multiple_of(LINE.len());
            partly || outcome.end == End::Closed || outcome.time < Duration::from_secs(2)
        };
        println!("{time:?}, {outcomes:?}");
        outcomes.iter().find(is_wrong).map_or(Ok(()), |outcome| Err(format!("{outcome:?}")))
    });
}

/// Connections whose handshake is under way when SIGTERM comes.
#[test]
fn a_drain_accepts_connections_that_are_under_way() {
    let Some(network) = Network::new(150, 0) else { return };
    network.in_time(|| {
        let mut server = network.start(&["-q", "-g", "30", "echo", "0"]);
        let ends: Vec<_> = thread::scope(|scope| {
            let port = server.port;
            let clients = (0..20).map(|_| {
                thread::sleep(Duration::from_millis(2));
                scope.spawn(move || {
                    let mut client = TcpStream::connect((ADDRESSES[SERVER], port)).ok()?;
                    client.write_all(LINE).ok()?;
                    Some(receive_all(&client))
                })
            });
            let clients: Vec<_> = clients.collect();
            thread::sleep(Duration::from_millis(40)); // the first packets arrive after 75 ms
            server.signal(libc::SIGTERM);
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        assert!(server.wait().success());
        let answered = Some((LINE.to_vec(), End::Closed));
        let lost = ends.iter().filter(|end| **end != answered).count();
        if lost == 0 { Ok(()) } else { Err(format!("{lost} of {} are lost", ends.len())) }
    });
}
