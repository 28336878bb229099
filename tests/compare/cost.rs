//! What a connection and a line cost, measured at once: in each round the C and
//! forkline in turn, so that what changes on the machine changes for both.

use super::calls::Trace;
use super::program::{Patience, Program, Running, fresh_network};
use super::wire::{connect, is_late, receive_until};
use crate::common::answer;
use std::io::{self, Write};
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;
const CONNECTIONS: usize = 100;
/// How long lines go there and back in a round.
const LINES: Duration = Duration::from_millis(150);
/// How long a line may take.
const ANSWER: Patience = Patience(Duration::from_secs(1));
/// How long it may take; no round is begun when two thirds are over.
pub const MOST: Patience = Patience(Duration::from_secs(6));

/// One number of both programs: what each round gave.
pub struct Figure {
    pub name: &'static str,
    pub more_is_better: bool,
    pub c: Vec<f64>,
    pub forkline: Vec<f64>,
}

impl Figure {
    /// The ratio of the medians, forkline's to the C's: what the bars show.
    pub fn ratio(&self) -> f64 {
        median(self.forkline.clone()) / median(self.c.clone())
    }

    /// No round of one is above all of the other.
    pub fn is_noise(&self) -> bool {
        let range = |rounds: &[f64]| {
            rounds
                .iter()
                .fold((f64::MAX, f64::MIN), |(least, most), &x| (least.min(x), most.max(x)))
        };
        let ((c, c_most), (forkline, forkline_most)) = (range(&self.c), range(&self.forkline));
        c <= forkline_most && forkline <= c_most
    }
}

pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

pub fn compare(
    service: &str,
    [c, forkline]: [&Program; 2],
    traces: Option<[&Trace; 2]>,
) -> Result<Vec<Figure>, String> {
    let (begin, most) = (Instant::now(), MOST.time());
    let text = |e: io::Error| if is_late(&e) { "no answer in time".into() } else { e.to_string() };
    let before = [start_cost(c).map_err(text)?, start_cost(forkline).map_err(text)?];
    let mut rounds: [Vec<[f64; 3]>; 2] = Default::default();
    for round in 0..ROUNDS {
        for turn in 0..2 {
            // Each is first in turn.
            let which = (round + turn) % 2;
            let program = [c, forkline][which];
            let measured = measure(service, program, before[which], begin + most).map_err(text)?;
            rounds[which].push(measured);
        }
        if begin.elapsed() > 2 * most / 3 {
            break;
        }
    }
    let column = |which: usize, n: usize| rounds[which].iter().map(|round| round[n]).collect();
    let figure = |name, n, more_is_better| Figure {
        name,
        more_is_better,
        c: column(0, n),
        forkline: column(1, n),
    };
    let mut figures = vec![
        figure("CPU of a connection with one line, µs", 0, false),
        figure("minor page faults of a connection", 1, false),
        figure("lines of 64 bytes there and back, a second", 2, true),
    ];
    if let Some([c, forkline]) = traces {
        let calls = |trace: &Trace| vec![trace.counts()[1..].iter().sum::<usize>() as f64];
        let (name, c, forkline) =
            ("system calls of a connection with two lines", calls(c), calls(forkline));
        figures.insert(2, Figure { name, more_is_better: false, c, forkline });
    }
    Ok(figures)
}

/// In a network of its own.
fn start(program: &Program) -> io::Result<Running> {
    fresh_network();
    Running::start(program).map_err(|failure| io::Error::other(failure.to_string()))
}

/// CPU and faults of a server that is only started.
fn start_cost(program: &Program) -> io::Result<[f64; 2]> {
    used(start(program)?)
}

fn used(server: Running) -> io::Result<[f64; 2]> {
    let usage = server.usage().ok_or(io::Error::other("not measured: it is a daemon"))?;
    let microseconds = |t: libc::timeval| t.tv_sec as f64 * 1e6 + t.tv_usec as f64;
    Ok([microseconds(usage.ru_utime) + microseconds(usage.ru_stime), usage.ru_minflt as f64])
}

/// CPU and faults of a connection, and lines a second.
fn measure(
    service: &str,
    program: &Program,
    before: [f64; 2],
    end: Instant,
) -> io::Result<[f64; 3]> {
    let server = start(program)?;
    let line = [&[b'x'; 63][..], b"\n"].concat();
    let due = answer(service, &line);
    for _ in 0..CONNECTIONS {
        if Instant::now() > end {
            return Err(io::Error::other("not measured: it is too slow"));
        }
        round_trips(server.port, &line, &due, Duration::ZERO)?;
    }
    server.rest(program);
    let [cpu, faults] = used(server)?;
    let server = start(program)?;
    let lines = round_trips(server.port, &line, &due, LINES)?;
    let each = |with: f64, without: f64| (with - without).max(0.0) / CONNECTIONS as f64;
    Ok([each(cpu, before[0]), each(faults, before[1]), lines])
}

/// One client for so long, one line at least; lines a second.
fn round_trips(port: u16, line: &[u8], due: &[u8], time: Duration) -> io::Result<f64> {
    let (begin, limit) = (Instant::now(), ANSWER.time());
    let mut stream = connect(port, begin + limit)?;
    stream.set_nodelay(true)?;
    let (mut done, mut got) = (0, Vec::new());
    while done == 0 || begin.elapsed() < time {
        stream.write_all(line)?;
        got.clear();
        while got.len() < line.len() && receive_until(&stream, &mut got, begin + limit)? > 0 {}
        if got != due {
            return Err(io::Error::other("a wrong answer"));
        }
        done += 1;
    }
    Ok(done as f64 / begin.elapsed().as_secs_f64())
}
