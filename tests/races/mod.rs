//! A signal at every instruction of the server. It is stepped with ptrace to each
//! moment between two waits, and gets its signals there. What is between two of
//! its steps is so tried for sure, and not only when the machine is unlucky.
//!
//! `make races` tries every moment; the test every 16th, and of the pairs of events
//! every 64th, each time others. Broken servers show that the trials can fail.

mod broken;
mod tracee;
mod trial;

use crate::common::*;
use broken::BROKEN;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};
use tracee::Tracee;
use trial::{Child, Event, Parent, Trial, When};

#[test]
fn a_signal_at_every_16th_moment() {
    if permitted() {
        assert!(all(16, 64));
    }
}

/// Whether one process may step another; says `skipped:` when it may not.
pub fn permitted() -> bool {
    if emulated() {
        return false;
    }
    let server = Server::start(&["echo", "0"]);
    match Tracee::attach(server.pid) {
        Ok(tracee) => tracee.let_go(),
        Err(error) => {
            skipped(&format!("no ptrace: {error}"));
            return false;
        }
    }
    true
}

/// Tries every `stride`th moment of the server, and of pairs of events every
/// `pair_stride`th. Tries the broken servers at every moment, until they are caught
/// or, if the strides are 1, to the end. Prints what has come of it, and tells
/// whether the server passed and the others did not.
pub fn all(stride: usize, pair_stride: usize) -> bool {
    let begin = Instant::now();
    let program = PathBuf::from(&command_line(&[])[0]);
    let programs = broken::build();
    let mut series = Vec::new();
    series.extend(singles(&program).into_iter().map(|trial| Series::new(trial, stride, false)));
    series.extend(pairs(&program).into_iter().map(|trial| Series::new(trial, pair_stride, false)));
    let own = series.len();
    series.extend(BROKEN.iter().zip(&programs).map(|(broken, program)| {
        Series::new(broken.trial(program), 1, stride > 1) // few moments are the wrong ones
    }));
    try_all(&series);
    let (own, others) = series.split_at(own);
    let failures: Vec<String> = own.iter().flat_map(Series::failures).collect();
    failures.iter().take(20).for_each(|failure| println!("{failure}"));
    let tried: usize = own.iter().map(Series::tried).sum();
    let seconds = begin.elapsed().as_secs();
    println!("races  {tried} moments tried, {} failed, {seconds} seconds", failures.len());
    let mut good = failures.is_empty();
    for (broken, series) in BROKEN.iter().zip(others) {
        let (caught, tried) = (series.failures().len(), series.tried());
        let word = if caught > 0 { "caught" } else { "NOT CAUGHT" };
        println!("broken: {}: {word}, at {caught} of {tried} moments", broken.name);
        good &= caught > 0;
    }
    good
}

/// Every event for the parent, with and without a place that is free, some also with
/// many children; and two signals for a child.
fn singles(program: &Path) -> Vec<Box<dyn Trial + '_>> {
    let mut trials: Vec<Box<dyn Trial>> = Vec::new();
    let when = When::Together;
    for room in [true, false] {
        for event in Event::ALL {
            let events = vec![event];
            let many = false;
            trials.push(Box::new(Parent { program, events, when, room, many, broken: false }));
        }
        for event in [Event::Term, Event::Child, Event::Alarm] {
            let (events, many) = (vec![event], true);
            trials.push(Box::new(Parent { program, events, when, room, many, broken: false }));
        }
    }
    for event in [Event::Term, Event::Quit] {
        for shut in [false, true] {
            trials.push(Box::new(Child { program, event, shut, broken: false }));
        }
    }
    trials
}

/// Every pair of events for the parent.
fn pairs(program: &Path) -> Vec<Box<dyn Trial + '_>> {
    let mut trials: Vec<Box<dyn Trial>> = Vec::new();
    let mut add = |events, when, room| {
        let many = false;
        trials.push(Box::new(Parent { program, events, when, room, many, broken: false }));
    };
    for (i, &first) in Event::ALL.iter().enumerate() {
        for &second in &Event::ALL[i..] {
            add(vec![first, second], When::Together, true);
        }
        for second in Event::ALL {
            add(vec![first, second], When::OneThenOther, false);
        }
    }
    trials
}

/// A trial, at one moment after the other.
struct Series<'a> {
    trial: Box<dyn Trial + 'a>,
    stride: usize,
    /// Whether the first failure is enough.
    once: bool,
    tried: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl<'a> Series<'a> {
    fn new(trial: Box<dyn Trial + 'a>, stride: usize, once: bool) -> Series<'a> {
        Series { trial, stride, once, tried: AtomicUsize::new(0), failures: Mutex::new(vec![]) }
    }

    fn run(&self) {
        let moments = self.trial.moments().into_iter();
        for moment in moments.skip(fastrand::usize(..self.stride)).step_by(self.stride) {
            self.tried.fetch_add(1, Relaxed);
            if let Err(why) = self.trial.at(moment) {
                let failure = format!("{}, {moment:?}: {why}", self.trial);
                self.failures.lock().unwrap().push(failure);
                if self.once {
                    return;
                }
            }
        }
    }

    fn tried(&self) -> usize {
        self.tried.load(Relaxed)
    }

    fn failures(&self) -> Vec<String> {
        self.failures.lock().unwrap().clone()
    }
}

/// Some series at once, for a trial waits most of the time; and says how far it is.
fn try_all(series: &[Series]) {
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !within(Duration::from_secs(30), || is_done.load(Relaxed)) {
                let tried: usize = series.iter().map(Series::tried).sum();
                println!("{tried} moments so far");
            }
        });
        let _done = StopAtEnd(&is_done);
        in_parallel(2 * processors().len(), series.len(), |i| series[i].run());
    });
}
