//! One trial: a server or a child is stepped to one moment, gets its signals
//! there, and goes on. Then everybody must have what is due to them.

use super::tracee::{Call, Moment, Tracee};
use crate::common::*;
use std::fmt;
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// What happens to the server, or to a child.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    Term,
    Hup,
    Quit,
    /// A child that serves a client ends.
    Child,
    /// A child ends that the server's program had before it became the server.
    Foreign,
    /// SIGALRM: the timer is over.
    Alarm,
}

impl Event {
    pub const ALL: [Event; 6] =
        [Event::Term, Event::Hup, Event::Quit, Event::Child, Event::Foreign, Event::Alarm];

    /// The signal that asks for the end.
    fn stop(self) -> Option<i32> {
        match self {
            Event::Term => Some(libc::SIGTERM),
            Event::Hup => Some(libc::SIGHUP),
            Event::Quit => Some(libc::SIGQUIT),
            Event::Child | Event::Foreign | Event::Alarm => None,
        }
    }
}

/// Where the events come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    /// All at the moment, which is counted from accept's return with a client.
    Together,
    /// The first while the server waits in accept; the moment of the second is
    /// counted from there, through the handler.
    OneThenOther,
}

/// What a trial of the parent tries, at any of its moments.
pub struct Parent<'a> {
    pub program: &'a Path,
    pub events: Vec<Event>,
    pub when: When,
    /// Whether there is a place for one more client, so that the parent comes back
    /// to accept. Otherwise it waits for a place.
    pub room: bool,
    /// Whether there are so many children that they are asked one by one.
    pub many: bool,
    /// Whether the server is one that must fail. Then a server that waits while
    /// something is due has failed, and nobody waits for the deadline.
    pub broken: bool,
}

/// The same for a child.
pub struct Child<'a> {
    pub program: &'a Path,
    pub event: Event,
    /// Whether the client has ended its input; otherwise the child's last moment is
    /// before it waits for more.
    pub shut: bool,
    pub broken: bool,
}

impl fmt::Display for Parent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let place = if self.room { "a place is free" } else { "no place is free" };
        let many = if self.many { ", many children" } else { "" };
        write!(f, "parent, {:?} {:?}, {place}{many}", self.events, self.when)
    }
}

impl fmt::Display for Child<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let shut = if self.shut { "the client has ended its input" } else { "the client stays" };
        write!(f, "child, {:?}, {shut}", self.event)
    }
}

/// Something that is tried at each of its moments.
pub trait Trial: fmt::Display + Sync {
    fn moments(&self) -> Vec<Moment>;
    /// Tries one of them. Gives what is wrong.
    fn at(&self, moment: Moment) -> Result<(), String>;
}

/// A signal within this time after the first is the same request; a second one is a second
/// later (README), with some time for the server to take it.
const SURELY_ONE: Duration = Duration::from_millis(900);
/// More than the children of which the kernel is asked for any.
const MANY: usize = 65;
/// A child that is killed tells its client nothing.
const KILL: &str = "forkline: kill ";
/// A line, and a piece that is answered at the end.
const TEXT: &[u8] = b"a line\nhalf";

// ---------------------------------------------------------------- the trials

impl Parent<'_> {
    /// The server is held in accept, with a client that waits, and the first event
    /// has come if the moments are counted from there.
    fn begin(&self) -> (Scene, Tracee) {
        let mut scene = Scene::new(self);
        let mut tracee = Tracee::attach(scene.server.pid).expect("ptrace");
        scene.asks();
        if self.when == When::OneThenOther {
            scene.give(self.events[0]);
            tracee.is_interrupted();
        }
        (scene, tracee)
    }

    /// Whether the signals let the clients have their answers, if all came within
    /// this time.
    fn is_gentle(&self, time: Duration) -> bool {
        let stops: Vec<i32> = self.events.iter().filter_map(|event| event.stop()).collect();
        !stops.contains(&libc::SIGQUIT) && (stops.len() == 1 || time < SURELY_ONE)
    }
}

impl Trial for Parent<'_> {
    fn moments(&self) -> Vec<Moment> {
        let (scene, mut tracee) = self.begin();
        tracee.moments(|tracee, call| scene.parent_may(tracee, call))
    }

    fn at(&self, moment: Moment) -> Result<(), String> {
        let (mut scene, mut tracee) = self.begin();
        let mut way = tracee.go_to(moment, |tracee, call| scene.parent_may(tracee, call));
        // SIGQUIT ends the children at once, each when it runs, and the parent's way depends
        // on that. A way that nobody finds again has no such moment.
        for _ in 0..10 {
            if way.is_ok() || !self.events.contains(&Event::Quit) {
                break;
            }
            (scene, tracee) = self.begin();
            way = tracee.go_to(moment, |tracee, call| scene.parent_may(tracee, call));
        }
        if way.is_err() && self.events.contains(&Event::Quit) {
            return Ok(());
        }
        way?;
        let accepted = tracee.has_made(libc::SYS_accept) > 0;
        let given = usize::from(self.when == When::OneThenOther);
        for &event in &self.events[given..] {
            scene.give(event);
        }
        tracee.let_go();
        if scene.stopped {
            scene.all_are_told()?;
            let gentle = self.is_gentle(scene.begin.elapsed());
            scene.last_is_right(LINE, gentle && accepted)?;
            scene.early_are_right(gentle)?;
        } else {
            scene.goes_on()?;
        }
        scene.is_gone()
    }
}

impl Child<'_> {
    /// The child is held at its beginning.
    fn begin(&self) -> (Scene, Tracee) {
        let mut scene = Scene::new(&Parent {
            program: self.program,
            events: vec![],
            when: When::Together,
            room: true,
            many: false,
            broken: self.broken,
        });
        let parent = Tracee::attach(scene.server.pid).expect("ptrace");
        let client = scene.asks();
        (&client.stream).write_all(TEXT).expect("send");
        if self.shut {
            client.stream.shutdown(Shutdown::Write).expect("shutdown");
        }
        (scene, parent.forks())
    }

    /// Its last moment is before its end, or before it waits for more input.
    fn may(&self, child: &Tracee, call: Call) -> bool {
        let received = child.has_made(libc::SYS_recvfrom) > 0;
        let waits = call.number == libc::SYS_recvfrom && received && !self.shut;
        !waits && call.number != libc::SYS_exit_group
    }
}

impl Trial for Child<'_> {
    fn moments(&self) -> Vec<Moment> {
        let (_stage, mut child) = self.begin();
        child.moments(|child, call| self.may(child, call))
    }

    fn at(&self, moment: Moment) -> Result<(), String> {
        let (mut scene, mut child) = self.begin();
        child.go_to(moment, |child, call| self.may(child, call))?;
        kill(child.pid() as i32, self.event.stop().expect("a signal"));
        child.let_go();
        scene.all_are_told()?;
        scene.last_is_right(&[LINE, TEXT].concat(), self.event == Event::Term)?;
        scene.goes_on_without_it()?;
        scene.is_gone()
    }
}

// ---------------------------------------------------------------- the scene

/// A server and everybody around it.
struct Scene {
    begin: Instant,
    server: Server,
    /// The most children at once.
    cap: usize,
    /// Clients that are served already, with their children.
    early: Vec<(Client, u32)>,
    foreign: Vec<u32>,
    /// The client that is accepted while the server is stepped, once it is there.
    last: Option<Client>,
    /// A signal has asked for the end.
    stopped: bool,
    /// The children that have ended.
    ended: Vec<u32>,
    broken: bool,
}

impl Scene {
    /// The server waits in accept.
    fn new(trial: &Parent) -> Scene {
        let count = |event| trial.events.iter().filter(|&&other| other == event).count();
        let early = count(Event::Child).max(1) + if trial.many { MANY } else { 0 };
        let cap = early + 1 + usize::from(trial.room);
        let mut command = Command::new(trial.program);
        let cap_arg = cap.to_string();
        command.args(["-c", &cap_arg, "-g", "86400", "-t", "60", "-b", "127.0.0.1", "echo", "0"]);
        let foreign = count(Event::Foreign);
        if foreign > 0 {
            with_children(&mut command, foreign);
        }
        let server = Server::spawn(piped(&mut command));
        let mut scene = Scene {
            begin: Instant::now(),
            foreign: children_now(server.pid),
            server,
            cap,
            early: vec![],
            last: None,
            stopped: false,
            ended: vec![],
            broken: trial.broken,
        };
        assert_eq!(scene.foreign.len(), foreign);
        for _ in 0..early {
            scene.serve_one();
        }
        wait_for("it waits in accept", || calls(scene.server.pid, libc::SYS_accept));
        scene
    }

    fn serve_one(&mut self) {
        let before = children_now(self.server.pid);
        let client = self.server.connect();
        say(&client, LINE);
        let after = children_now(self.server.pid);
        let child = after.into_iter().find(|pid| !before.contains(pid)).expect("its child");
        self.early.push((Client::new(client), child));
    }

    /// One more client comes and sends a line.
    fn asks(&mut self) -> &Client {
        self.last.insert(Client::new(ask(&self.server)))
    }

    /// Lets something happen while the server is stopped.
    fn give(&mut self, event: Event) {
        let child = match event {
            Event::Child => {
                // The oldest: of many the newest are asked first.
                let (client, child) = self.early.remove(0);
                drop(client);
                child
            }
            Event::Foreign => {
                let child = self.foreign.pop().expect("a foreign child");
                kill(child as i32, libc::SIGKILL);
                child
            }
            Event::Alarm => return self.server.signal(libc::SIGALRM),
            Event::Term | Event::Hup | Event::Quit => {
                self.stopped = true;
                return self.server.signal(event.stop().unwrap());
            }
        };
        wait_for("the child ends", || has_ended(child));
        self.ended.push(child);
    }

    /// Whether the parent may make this call while it is stepped: not if its way
    /// ends there, since it would wait, or be no more.
    fn parent_may(&self, parent: &Tracee, call: Call) -> bool {
        match call.number {
            libc::SYS_exit_group => false,
            libc::SYS_accept => self.stopped || parent.has_made(libc::SYS_accept) == 0,
            // It waits for a place or, after a signal, for the end of its children.
            libc::SYS_ppoll if call.first_argument == 0 => {
                if self.stopped {
                    self.own_children_end();
                }
                self.stopped
            }
            _ => true,
        }
    }

    /// Waits for the end of all children that have been told to end.
    fn own_children_end(&self) {
        wait_for("the children end", || {
            let own = children_now(self.server.pid).into_iter();
            own.filter(|pid| !self.foreign.contains(pid)).all(has_ended)
        });
    }

    // ------------------------------------------------------------ checks

    /// No signal has asked for the end: all are served, and no zombie stays.
    fn goes_on(&mut self) -> Result<(), String> {
        self.due("the accepted client has its answer", |scene| scene.last_has(LINE))?;
        self.due("no zombie stays", |scene| {
            let is_ours = |pid| stat(pid).is_some_and(|(_, parent)| parent == scene.server.pid);
            !scene.ended.iter().any(|&pid| is_ours(pid))
        })?;
        let mut next = Client::new(ask(&self.server));
        self.early.clear();
        self.due("a place that is free is used", |_| next.look().bytes == LINE)?;
        drop(next);
        self.goes_on_without_it()
    }

    /// All clients leave, and so do their children. Then SIGTERM ends the server.
    fn goes_on_without_it(&mut self) -> Result<(), String> {
        self.last = None;
        self.early.clear();
        self.due("no child stays", |scene| children_now(scene.server.pid).is_empty())?;
        self.server.signal(libc::SIGTERM);
        Ok(())
    }

    /// The last client has its end, and so have the others, if the server was told.
    fn all_are_told(&mut self) -> Result<(), String> {
        self.due("the last client has its end", |scene| {
            scene.last.as_mut().is_some_and(|client| client.look().end.is_some())
        })?;
        self.due("the other clients have their end", |scene| {
            let mut early = scene.early.iter_mut();
            !scene.stopped || early.all(|(client, _)| client.look().end.is_some())
        })
    }

    /// The last client has the whole answer and the end of file; or, if it need
    /// not be `answered`, a reset.
    fn last_is_right(&self, answer: &[u8], answered: bool) -> Result<(), String> {
        let client = self.last.as_ref().expect("a client");
        match client.end {
            Some(End::Closed) if client.bytes == answer => Ok(()),
            Some(End::Reset) if !answered => Ok(()),
            Some(End::Closed) if !answered && self.may_have_killed() => Ok(()),
            end => Err(format!("{end:?} after {:?}", String::from_utf8_lossy(&client.bytes))),
        }
    }

    /// A second after the reset the server kills who is left.
    fn may_have_killed(&self) -> bool {
        let late = self.begin.elapsed() >= Duration::from_secs(1);
        late && self.server.stderr.text().contains(KILL)
    }

    /// The others have the end of file or, if the signals were not `gentle`, a reset.
    fn early_are_right(&self, gentle: bool) -> Result<(), String> {
        let reset = self.early.iter().any(|(client, _)| client.end == Some(End::Reset));
        if gentle && reset { Err("another client was reset".into()) } else { Ok(()) }
    }

    fn last_has(&mut self, answer: &[u8]) -> bool {
        self.last.as_mut().is_some_and(|client| client.look().bytes == answer)
    }

    /// The server has ended and left nobody, and has counted right.
    fn is_gone(&mut self) -> Result<(), String> {
        let mut status = None;
        self.due("the server ends", |scene| {
            status = scene.server.ended();
            status.is_some()
        })?;
        self.due("its output ends", |scene| scene.server.stderr.ended())?;
        let said = self.server.stderr.text();
        let drained = format!("forkline: drained children=0/{}\n", self.cap);
        let fine = said.ends_with(&drained) && self.server.other_messages().is_empty();
        if !status.unwrap().success() || !fine {
            return Err(format!("{}: {said}", status.unwrap()));
        }
        self.due("no process stays", |scene| {
            let group = scene.server.pid;
            nobody_in_group(group as i32) || members_of(group).into_iter().all(has_ended)
        })
    }

    /// Waits until something is so. In vain, if the deadline passes, or if the
    /// server is broken and waits for ever.
    fn due(
        &mut self,
        what: &str,
        mut condition: impl FnMut(&mut Scene) -> bool,
    ) -> Result<(), String> {
        let (mut met, mut looks) = (false, 0);
        within(DEADLINE, || {
            met = condition(self);
            let waits = self.broken && self.all_wait();
            looks = if waits { looks + 1 } else { 0 };
            met || looks == LOOKS
        });
        if met {
            return Ok(());
        }
        let pid = self.server.pid;
        Err(format!("in vain: {what}; state {}, call {}", state(pid), proc(pid, "syscall")))
    }

    /// The parent waits for clients or children, and no child runs.
    fn all_wait(&self) -> bool {
        let pid = self.server.pid;
        (calls(pid, libc::SYS_accept) || calls(pid, libc::SYS_ppoll))
            && children_now(pid).iter().all(|&child| state(child) != 'R')
    }
}

/// How often in a row, a millisecond apart, a broken server is seen to wait before it is
/// taken to wait for ever: for longer than a child waits to see whether its client is
/// silent, twice.
const LOOKS: usize = 1500;

/// The program that is started has so many children already, which wait to be
/// killed.
fn with_children(command: &mut Command, n: usize) {
    // SAFETY: no pointers.
    before_exec(command, move || unsafe {
        for _ in 0..n {
            if libc::fork() == 0 {
                libc::close_range(0, u32::MAX, 0);
                loop {
                    libc::pause();
                }
            }
        }
    });
}

/// A client, and what has come to it.
struct Client {
    stream: TcpStream,
    bytes: Vec<u8>,
    end: Option<End>,
}

impl Client {
    fn new(stream: TcpStream) -> Client {
        stream.set_nonblocking(true).expect("nonblocking");
        Client { stream, bytes: vec![], end: None }
    }

    /// Takes what has come.
    fn look(&mut self) -> &Client {
        while self.end.is_none() {
            match receive_some(&self.stream, &mut self.bytes) {
                Ok(0) => self.end = Some(End::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
                    self.end = Some(End::Reset);
                }
            }
        }
        self
    }
}
