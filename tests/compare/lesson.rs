//! The two lessons of both C texts, on a running server: reap your children,
//! and close what you do not need; and what a process for each connection is
//! good for.

use super::program::{CONVERSATION, Program, REST, Running, children};
use super::wire::{connect, receive_until, why};
use crate::common::{children_of, descriptors, has_ended, kill, state, tcp_sockets, within};
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Instant;

const LINE: &[u8] = b"Hello\n";

pub struct Lesson {
    pub id: &'static str,
    pub title: &'static str,
    /// What a C that fails here is told in one word.
    pub word: &'static str,
    /// What the texts teach by it.
    pub sentence: &'static str,
    look: fn(&Scene) -> io::Result<Seen>,
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
    pub forkline: Seen,
}

impl Check {
    pub fn good(&self) -> bool {
        self.c.good && self.forkline.good
    }

    /// What is wrong, in a word.
    pub fn word(&self) -> &'static str {
        if self.c.made { self.lesson.word } else { "differs" }
    }
}

pub const LESSONS: &[Lesson] = &[
    Lesson {
        id: "zombies",
        title: "zombies after 200 connections",
        word: "zombie",
        sentence: "A server runs for a long time, so a SIGCHLD handler has to reap each child that has ended.",
        look: zombies_of_many,
    },
    Lesson {
        id: "moment",
        title: "zombies after 20 children that end at one moment",
        word: "zombie",
        sentence: "Signals do not queue: one SIGCHLD can stand for many children, so the handler has to wait in a loop.",
        look: zombies_of_one_moment,
    },
    Lesson {
        id: "descriptors",
        title: "the parent's descriptors before and after 200 connections",
        word: "descriptor",
        sentence: "Parent and child share one entry of the file table. If the parent keeps its copy, the entry is never freed, and in the end memory runs out.",
        look: descriptors_of_parent,
    },
    Lesson {
        id: "child",
        title: "does the child hold the listening socket?",
        word: "descriptor",
        sentence: "The child talks to its client only, so it closes the listening socket.",
        look: child_listens,
    },
    Lesson {
        id: "parent",
        title: "does the parent hold the connection?",
        word: "descriptor",
        sentence: "The parent leaves the client to the child, so it closes its copy of the connection.",
        look: parent_connected,
    },
    Lesson {
        id: "end",
        title: "the client's end of file, after it has sent its own",
        word: "descriptor",
        sentence: "A connection ends when its last descriptor is closed, the parent's and the child's.",
        look: end_of_file,
    },
    Lesson {
        id: "silent",
        title: "two clients while a third is silent",
        word: "differs",
        sentence: "Each client has a process of its own, so no client waits for another.",
        look: two_and_a_silent_one,
    },
    Lesson {
        id: "death",
        title: "a child that is killed, and the other clients",
        word: "differs",
        sentence: "Processes share no memory: what happens to one does not touch another.",
        look: death_of_a_child,
    },
    Lesson {
        id: "again",
        title: "the same port again at once",
        word: "differs",
        sentence: "With SO_REUSEADDR a server can start again at once, while old connections are in TIME_WAIT.",
        look: bind_again,
    },
];

/// One server for one lesson.
pub struct Scene<'a> {
    program: &'a Program,
    server: Running,
}

/// The lessons of one program, as many as are begun before `end`.
fn look(program: &Program, end: Instant) -> Vec<Seen> {
    let seen = |lesson: &Lesson| {
        let server = Running::start(program).map_err(io::Error::other);
        let scene = server.map(|server| Scene { program, server });
        let seen = scene.and_then(|scene| (lesson.look)(&scene));
        seen.unwrap_or_else(|e| Seen { good: false, text: why(&e), made: false })
    };
    LESSONS.iter().take_while(|_| Instant::now() < end).map(seen).collect()
}

/// The lessons of both, at the same time.
pub fn compare(c: &Program, forkline: &Program, end: Instant) -> Vec<Check> {
    let (c, forkline) = thread::scope(|scope| {
        let c = scope.spawn(|| look(c, end));
        (c.join(), look(forkline, end))
    });
    let pairs = c.expect("the C's lessons").into_iter().zip(forkline);
    let check = |(lesson, (c, forkline))| Check { lesson, c, forkline };
    LESSONS.iter().zip(pairs).map(check).collect()
}

fn seen(good: bool, text: impl Into<String>) -> io::Result<Seen> {
    Ok(Seen { good, text: text.into(), made: true })
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
    fn client(&self) -> io::Result<TcpStream> {
        Ok(self.clients(1)?.remove(0))
    }

    /// So many of them at once.
    fn clients(&self, n: usize) -> io::Result<Vec<TcpStream>> {
        let end = Instant::now() + CONVERSATION.time() / 2;
        let clients = (0..n).map(|_| connect(self.server.port, end));
        let clients = clients.collect::<io::Result<Vec<_>>>()?;
        clients.iter().try_for_each(|mut client| client.write_all(LINE))?;
        clients.iter().try_for_each(|client| answered(client, end))?;
        Ok(clients)
    }

    /// Has one more line answered.
    fn say(&self, mut stream: &TcpStream) -> io::Result<()> {
        stream.write_all(LINE)?;
        answered(stream, Instant::now() + CONVERSATION.time() / 2)
    }

    /// So many conversations of one line, one after the other.
    fn conversations(&self, n: usize) -> io::Result<()> {
        let end = Instant::now() + 2 * CONVERSATION.time();
        for done in 0..n {
            if Instant::now() > end {
                return Err(io::Error::other(format!("only {done} of {n} connections in time")));
            }
            self.client()
                .map_err(|e| io::Error::other(format!("client {}: {}", done + 1, why(&e))))?;
        }
        self.server.rest();
        Ok(())
    }

    /// The zombies that are left when all clients have gone.
    fn zombies(&self) -> io::Result<Seen> {
        self.server.rest();
        let left = children_of(self.server.pid);
        let zombies = left.iter().filter(|&&child| state(child) == 'Z').count();
        if zombies < left.len() {
            let alive = count(left.len() - zombies, "child process");
            return Err(io::Error::other(format!(
                "{alive} not ended, though the clients have gone"
            )));
        }
        seen(left.is_empty(), count(zombies, "zombie"))
    }

    /// The child that has this client.
    fn child_of(&self, client: &TcpStream) -> io::Result<u32> {
        let port = client.local_addr()?.port();
        let serves = |child: &u32| tcp_sockets(*child).iter().any(|tcp| tcp.peer == port);
        let found = children_of(self.server.pid).into_iter().find(serves);
        found.ok_or_else(|| io::Error::other("no child has this connection"))
    }
}

/// What the answer is does not matter here.
fn answered(stream: &TcpStream, end: Instant) -> io::Result<()> {
    match receive_until(stream, &mut Vec::new(), end)? {
        0 => Err(io::Error::other("the connection ends without an answer")),
        _ => Ok(()),
    }
}

fn zombies_of_many(scene: &Scene) -> io::Result<Seen> {
    scene.conversations(200)?;
    scene.zombies()
}

/// The parent is stopped while they end, so that it gets one signal for all.
fn zombies_of_one_moment(scene: &Scene) -> io::Result<Seen> {
    let clients = scene.clients(20)?;
    let all = children(scene.server.pid);
    kill(scene.server.pid as i32, libc::SIGSTOP);
    within(REST.time(), || state(scene.server.pid) == 'T');
    drop(clients);
    within(REST.time(), || all.iter().all(|&child| has_ended(child)));
    kill(scene.server.pid as i32, libc::SIGCONT);
    scene.zombies()
}

fn descriptors_of_parent(scene: &Scene) -> io::Result<Seen> {
    let open = || descriptors(scene.server.pid).len();
    scene.conversations(1)?;
    let before = open();
    scene.conversations(200)?;
    within(REST.time(), || open() <= before);
    let after = open();
    seen(after <= before, format!("{before}, then {after}"))
}

fn child_listens(scene: &Scene) -> io::Result<Seen> {
    let client = scene.client()?;
    let child = scene.child_of(&client)?;
    let closed = within(REST.time() / 3, || !tcp_sockets(child).iter().any(|tcp| tcp.listens));
    seen(closed, if closed { "no" } else { "yes, it is open in the child" })
}

fn parent_connected(scene: &Scene) -> io::Result<Seen> {
    let client = scene.client()?;
    let port = client.local_addr()?.port();
    let holds = || tcp_sockets(scene.server.pid).iter().any(|tcp| tcp.peer == port);
    let closed = within(REST.time() / 3, || !holds());
    seen(closed, if closed { "no" } else { "yes, it is open in the parent" })
}

fn end_of_file(scene: &Scene) -> io::Result<Seen> {
    let client = scene.client()?;
    client.shutdown(Shutdown::Write)?;
    let end = Instant::now() + CONVERSATION.time() / 2;
    loop {
        match receive_until(&client, &mut Vec::new(), end) {
            Ok(0) => return seen(true, "it comes"),
            Ok(_) => {}
            Err(_) => return seen(false, "it never comes: the connection stays open"),
        }
    }
}

fn two_and_a_silent_one(scene: &Scene) -> io::Result<Seen> {
    let _silent = connect(scene.server.port, Instant::now() + CONVERSATION.time())?;
    let two = scene.client().and_then(|first| Ok((first, scene.client()?)));
    let served = two.and_then(|(first, second)| scene.say(&first).and(scene.say(&second)));
    seen(served.is_ok(), served.map_or("they wait for it", |()| "both are served"))
}

fn death_of_a_child(scene: &Scene) -> io::Result<Seen> {
    let (victim, other) = (scene.client()?, scene.client()?);
    let child = scene.child_of(&victim)?;
    kill(child as i32, libc::SIGKILL);
    within(REST.time(), || has_ended(child));
    let unhurt = scene.say(&other).and_then(|()| scene.client());
    seen(unhurt.is_ok(), unhurt.map_or("they are no longer served", |_| "they are served on"))
}

/// The server's end of the connection closes first, so its port is in TIME_WAIT.
fn bind_again(scene: &Scene) -> io::Result<Seen> {
    let client = scene.client()?;
    kill(-(scene.server.pid as i32), libc::SIGKILL);
    within(REST.time(), || has_ended(scene.server.pid));
    let mut rest = Vec::new();
    while receive_until(&client, &mut rest, Instant::now() + REST.time()).is_ok_and(|n| n > 0) {}
    drop(client);
    let again = scene.program.at_port(scene.server.port).and_then(|again| Running::start(&again));
    match again {
        Ok(again) if again.port == scene.server.port => seen(true, "it listens again"),
        Ok(_) => seen(false, "it listens on another port"),
        Err(why) => seen(false, format!("it {}", why.replace('\n', ": "))),
    }
}
