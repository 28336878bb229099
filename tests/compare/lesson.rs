//! The two lessons of both C texts, on a running server: reap your children,
//! and close what you do not need; and what a process for each connection is
//! good for.

use super::inject::in_parallel;
use super::program::{CONVERSATION, Program, REST, Running, fresh_network, holds, listens};
use super::wire::{connect, is_late, receive_until};
use crate::common::{descriptors, has_ended, kill, state, within};
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const LINE: &[u8] = b"Hello\n";
/// How many are tried at once: most of the time they wait.
const THREADS: usize = 3;

pub struct Lesson {
    pub id: &'static str,
    pub title: &'static str,
    /// What a C that fails here is told in one word.
    pub word: &'static str,
    /// What the texts teach by it.
    pub sentence: &'static str,
    /// What to change, and the calls where to look for it, the best first.
    pub change: &'static str,
    pub calls: &'static [&'static str],
    /// It is about a process for each client: nothing for a server without.
    of_children: bool,
    look: fn(&Scene) -> Looked,
}

/// What was seen, and whether it is as it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub good: bool,
    pub text: String,
    /// False if the check could not be made.
    pub made: bool,
}

pub struct Check {
    pub lesson: &'static Lesson,
    pub c: Seen,
    /// None if there was no time.
    pub forkline: Option<Seen>,
}

impl Check {
    /// Of the C: what forkline does is no fault of it.
    pub fn good(&self) -> bool {
        self.c.good
    }

    /// What is wrong, in a word.
    pub fn word(&self) -> &'static str {
        if self.c.made { self.lesson.word } else { "differs" }
    }
}

/// Why a lesson shows nothing.
enum Trouble {
    Network(io::Error),
    Other(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Network(error)
    }
}

type Looked = Result<Seen, Trouble>;

pub const LESSONS: &[Lesson] = &[
    Lesson {
        id: "process",
        title: "a process for each client",
        word: "process",
        sentence: "Each client has a process of its own, so the program that talks to it can be written as if there were no other.",
        change: "call fork after accept, and let the child talk to the client",
        calls: &["accept"],
        of_children: false,
        look: process_for_each,
    },
    Lesson {
        id: "zombies",
        title: "zombies after 200 connections",
        word: "zombie",
        sentence: "A server runs for a long time, so a SIGCHLD handler has to reap each child that has ended.",
        change: "install a handler for SIGCHLD that calls waitpid(-1, NULL, WNOHANG) in a loop",
        calls: &["sigaction", "signal", "waitpid", "wait", "fork"],
        of_children: true,
        look: zombies_of_many,
    },
    Lesson {
        id: "moment",
        title: "zombies after 20 children that end at one moment",
        word: "zombie",
        sentence: "Signals do not queue: one SIGCHLD can stand for many children, so the handler has to wait in a loop.",
        change: "let the handler call waitpid(-1, NULL, WNOHANG) until it returns no child",
        calls: &["waitpid", "wait", "wait3", "sigaction", "signal", "fork"],
        of_children: true,
        look: zombies_of_one_moment,
    },
    Lesson {
        id: "descriptors",
        title: "the server's descriptors before and after 50 connections",
        word: "descriptor",
        sentence: "Parent and child share one entry of the file table. If the parent keeps its copy, the entry is never freed, and in the end memory runs out.",
        change: "close the connection in the parent too, after fork",
        calls: &["fork", "accept"],
        of_children: false,
        look: descriptors_of_parent,
    },
    Lesson {
        id: "child",
        title: "does the child hold the listening socket?",
        word: "descriptor",
        sentence: "The child talks to its client only, so it closes the listening socket.",
        change: "close the listening socket in the child, after fork",
        calls: &["fork"],
        of_children: true,
        look: child_listens,
    },
    Lesson {
        id: "parent",
        title: "does the parent hold the connection?",
        word: "descriptor",
        sentence: "The parent leaves the client to the child, so it closes its copy of the connection.",
        change: "close the connection in the parent, after fork",
        calls: &["fork"],
        of_children: true,
        look: parent_connected,
    },
    Lesson {
        id: "end",
        title: "the client's end of file, after it has sent its own",
        word: "descriptor",
        sentence: "A connection ends when its last descriptor is closed, the parent's and the child's.",
        change: "close the connection in the parent and in the child",
        calls: &["fork", "accept"],
        of_children: false,
        look: end_of_file,
    },
    Lesson {
        id: "silent",
        title: "two clients while a third is silent",
        word: "differs",
        sentence: "Each client has a process of its own, so no client waits for another.",
        change: "let the parent call accept again at once, and never wait for a client or a child",
        calls: &["accept"],
        of_children: true,
        look: two_and_a_silent_one,
    },
    Lesson {
        id: "death",
        title: "a child that is killed, and the other clients",
        word: "differs",
        sentence: "Processes share no memory: what happens to one does not touch another.",
        change: "let the handler wait with WNOHANG, and let accept be called again when a signal interrupts it",
        calls: &["waitpid", "wait", "accept"],
        of_children: true,
        look: death_of_a_child,
    },
    Lesson {
        id: "again",
        title: "the same port again at once",
        word: "differs",
        sentence: "With SO_REUSEADDR a server can start again at once, while old connections are in TIME_WAIT.",
        change: "set SO_REUSEADDR with setsockopt before bind",
        calls: &["bind", "listen"],
        of_children: false,
        look: bind_again,
    },
];

/// One server for one lesson.
pub struct Scene<'a> {
    program: &'a Program,
    server: Running,
}

/// The lessons of one program, as many as are begun before `end`. Those about
/// children only if it has a process for each client.
fn look(program: &Program, end: Instant) -> Vec<(&'static Lesson, Seen)> {
    let process = look_twice(program, &LESSONS[0]);
    let forks = process.good;
    let rest: Vec<&Lesson> =
        LESSONS[1..].iter().filter(|lesson| forks || !lesson.of_children).collect();
    let seen = in_parallel(THREADS, rest.len(), end, |n| Some(look_twice(program, rest[n])));
    let seen = rest.into_iter().zip(seen).filter_map(|(lesson, seen)| Some((lesson, seen?)));
    [(&LESSONS[0], process)].into_iter().chain(seen).collect()
}

/// How many lessons there are for a program of this kind.
pub fn number(checks: &[Check]) -> usize {
    let forks = checks.first().is_none_or(|check| check.c.good);
    LESSONS.iter().filter(|lesson| forks || !lesson.of_children).count()
}

/// What could not be seen, is tried a second time.
fn look_twice(program: &Program, lesson: &Lesson) -> Seen {
    let first = look_once(program, lesson);
    if first.made { first } else { look_once(program, lesson) }
}

/// In a network of its own.
fn look_once(program: &Program, lesson: &Lesson) -> Seen {
    fresh_network();
    let text = match Running::start(program) {
        Err(failure) => failure.to_string(),
        Ok(server) => {
            let scene = Scene { program, server };
            match (lesson.look)(&scene) {
                Ok(seen) => return seen,
                Err(Trouble::Other(text)) => text,
                Err(Trouble::Network(error)) => scene.server.why(&error),
            }
        }
    };
    Seen { good: false, text, made: false }
}

/// The lessons of both, at the same time. forkline's time is its own.
pub fn compare(c: &Program, forkline: &Program, end: Instant) -> Vec<Check> {
    let (c, forkline) = thread::scope(|scope| {
        let c = scope.spawn(|| look(c, end));
        let forkline = scope.spawn(|| look(forkline, Instant::now() + Duration::from_secs(40)));
        (c.join().expect("the C's lessons"), forkline.join().expect("forkline's lessons"))
    });
    let of_forkline = |lesson: &Lesson| {
        let found = forkline.iter().find(|(other, _)| other.id == lesson.id);
        found.map(|(_, seen)| seen.clone())
    };
    let check = |(lesson, c)| Check { lesson, c, forkline: of_forkline(lesson) };
    c.into_iter().map(check).collect()
}

fn seen(good: bool, text: impl Into<String>) -> Looked {
    Ok(Seen { good, text: text.into(), made: true })
}

fn trouble<T>(text: impl Into<String>) -> Result<T, Trouble> {
    Err(Trouble::Other(text.into()))
}

/// `3 zombies`
pub fn count(n: usize, what: &str) -> String {
    let ending = match what {
        _ if n == 1 => "",
        _ if what.ends_with('s') => "es",
        _ => "s",
    };
    format!("{n} {what}{ending}")
}

impl Scene<'_> {
    /// A client that has had a line answered, so its child is there.
    fn client(&self) -> Result<TcpStream, Trouble> {
        let stream = connect(self.server.port, soon())?;
        self.say(&stream)?;
        Ok(stream)
    }

    /// Has one more line answered. What the answer is does not matter here.
    fn say(&self, mut stream: &TcpStream) -> Result<(), Trouble> {
        stream.write_all(LINE)?;
        match receive_until(stream, &mut Vec::new(), soon())? {
            0 => trouble("the connection ends without an answer"),
            _ => Ok(()),
        }
    }

    /// So many conversations of one line, one after the other, each to its end.
    fn conversations(&self, n: usize) -> Result<(), Trouble> {
        let end = Instant::now() + 3 * CONVERSATION.time();
        for done in 0..n {
            if Instant::now() > end {
                return trouble(format!("only {done} of {n} connections in time"));
            }
            self.client().map_err(|trouble| match trouble {
                Trouble::Network(error) => {
                    Trouble::Other(format!("client {}: {}", done + 1, self.server.why(&error)))
                }
                other => other,
            })?;
            within(REST.time() / 10, || self.alive() <= self.program.standing);
        }
        Ok(())
    }

    /// How many processes there are besides the server that have not ended.
    fn alive(&self) -> usize {
        self.server.others().iter().filter(|&&pid| !has_ended(pid)).count()
    }

    /// The zombies of so many children that are left when all clients have gone. Some
    /// servers reap when the next client comes.
    fn zombies(&self, all: usize) -> Looked {
        within(REST.time(), || self.alive() <= self.program.standing);
        within(REST.time() / 3, || self.zombies_now().is_empty());
        let alive = self.alive().saturating_sub(self.program.standing);
        if alive > 0 {
            let alive = count(alive, "child process");
            return trouble(format!("{alive} not ended, though the clients have gone"));
        }
        let zombies = self.zombies_now();
        if zombies.is_empty() {
            return seen(true, "none");
        }
        drop(self.client()?);
        match within(REST.time() / 3, || zombies.iter().all(|&pid| has_gone(pid))) {
            true => seen(true, "some, which go when the next client comes"),
            false if zombies.len() < all => seen(false, "some of the children stay zombies"),
            false => seen(false, count(zombies.len(), "zombie")),
        }
    }

    fn zombies_now(&self) -> Vec<u32> {
        self.server.others().into_iter().filter(|&pid| state(pid) == 'Z').collect()
    }

    /// A client, and the new process that has its connection. A child that forks once
    /// more passes it on.
    fn connected(&self) -> Result<(TcpStream, u32), Trouble> {
        let before = self.server.others();
        let stream = connect(self.server.port, soon())?;
        let port = stream.local_addr()?.port();
        match self.server.holder(&before, port) {
            Some(pid) => Ok((stream, pid)),
            None => trouble("no process of its own has this connection"),
        }
    }
}

fn has_gone(pid: u32) -> bool {
    state(pid) == '-'
}

/// When a client's patience ends.
fn soon() -> Instant {
    Instant::now() + CONVERSATION.time() / 2
}

fn process_for_each(scene: &Scene) -> Looked {
    const NONE: &str = "it makes no process for a connection";
    let before = scene.server.others();
    let silent = connect(scene.server.port, soon())?;
    let port = silent.local_addr()?.port();
    if scene.server.holder(&before, port).is_some() {
        return seen(true, "yes");
    }
    if before.iter().any(|&pid| holds(pid, port)) {
        return seen(false, "its processes are made before the clients come, not one for each");
    }
    let pid = scene.server.pid;
    if fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|tasks| tasks.count() > 1) {
        return seen(false, format!("{NONE}: each client has a thread"));
    }
    match scene.client() {
        Ok(_) => seen(false, format!("{NONE}: one process serves all clients in turn")),
        Err(Trouble::Network(error)) if is_late(&error) => seen(
            false,
            format!("{NONE}: it serves one client after the other, and the others wait"),
        ),
        Err(trouble) => Err(trouble),
    }
}

fn zombies_of_many(scene: &Scene) -> Looked {
    scene.conversations(200)?;
    scene.zombies(200)
}

/// The parent is stopped while they end, so that it gets one signal for all.
fn zombies_of_one_moment(scene: &Scene) -> Looked {
    let clients = (0..20).map(|_| scene.client()).collect::<Result<Vec<_>, _>>()?;
    let all = scene.server.others();
    kill(scene.server.pid as i32, libc::SIGSTOP);
    within(REST.time(), || state(scene.server.pid) == 'T');
    drop(clients);
    within(REST.time(), || {
        all.iter().filter(|&&pid| !has_ended(pid)).count() <= scene.program.standing
    });
    kill(scene.server.pid as i32, libc::SIGCONT);
    scene.zombies(20)
}

fn descriptors_of_parent(scene: &Scene) -> Looked {
    let open = || descriptors(scene.server.pid).len();
    scene.conversations(1)?;
    let before = open();
    scene.conversations(50)?;
    within(REST.time() / 3, || open() <= before);
    let after = open();
    seen(after <= before, format!("{before}, then {after}"))
}

fn child_listens(scene: &Scene) -> Looked {
    let (_client, child) = scene.connected()?;
    let closed = within(REST.time() / 3, || !listens(child));
    seen(closed, if closed { "no" } else { "yes, it is open in the child" })
}

fn parent_connected(scene: &Scene) -> Looked {
    let (client, _child) = scene.connected()?;
    let port = client.local_addr()?.port();
    let closed = within(REST.time() / 3, || !holds(scene.server.pid, port));
    seen(closed, if closed { "no" } else { "yes, it is open in the parent" })
}

fn end_of_file(scene: &Scene) -> Looked {
    let client = scene.client()?;
    // The server may have closed already.
    let _ = client.shutdown(Shutdown::Write);
    let end = soon();
    loop {
        match receive_until(&client, &mut Vec::new(), end) {
            Ok(0) => return seen(true, "it comes"),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                return seen(true, "it comes, as a reset");
            }
            Err(_) => return seen(false, "it never comes: the connection stays open"),
        }
    }
}

fn two_and_a_silent_one(scene: &Scene) -> Looked {
    let _silent = connect(scene.server.port, soon())?;
    let served = scene.client().and_then(|first| Ok((first, scene.client()?)));
    match served {
        Ok(_) => seen(true, "both are served"),
        Err(Trouble::Network(error)) if is_late(&error) => seen(false, "they wait for it"),
        Err(trouble) => Err(trouble),
    }
}

fn death_of_a_child(scene: &Scene) -> Looked {
    let ((_victim, child), (other, _)) = (scene.connected()?, scene.connected()?);
    kill(child as i32, libc::SIGKILL);
    within(REST.time(), || has_ended(child));
    match scene.say(&other).and_then(|()| scene.client()) {
        Ok(_) => seen(true, "they are served on"),
        Err(Trouble::Network(error)) if is_late(&error) => seen(false, "they are no longer served"),
        Err(trouble) => Err(trouble),
    }
}

/// The server's end of the connection closes first, so its port is in TIME_WAIT.
fn bind_again(scene: &Scene) -> Looked {
    let (client, port) = (scene.client()?, scene.server.port);
    scene.server.kill_all();
    let mut rest = Vec::new();
    while receive_until(&client, &mut rest, Instant::now() + REST.time()).is_ok_and(|n| n > 0) {}
    drop(client);
    let mut again = scene.program.clone();
    // forkline had a port that the kernel chose.
    again.args.iter_mut().filter(|arg| *arg == "0").for_each(|arg| *arg = port.to_string());
    match Running::start(&again) {
        Ok(again) if again.port == port => seen(true, "it listens again"),
        Ok(_) => seen(true, "it has another port each time"),
        Err(failure) => seen(false, failure.to_string()),
    }
}
