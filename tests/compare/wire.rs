//! The same conversations with the C and with forkline: what came back, byte
//! for byte.

use super::both;
use super::jail::STORMS;
use super::program::{CONVERSATION, NOBODY_LISTENS, Patience, Program, Running, StartFailure};
use crate::common::{answer, receive_some, reset, within};
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// What a client does with one connection.
pub enum Step {
    Send(Vec<u8>),
    /// Waits until so many bytes have come back.
    Receive(usize),
    /// No more is sent; all that comes back is read.
    Finish,
    Reset,
}
use Step::*;

pub struct Conversation {
    pub name: &'static str,
    /// A list for each connection, one after the other.
    pub connections: Vec<Vec<Step>>,
    /// How the row of the README's table begins that explains a difference.
    pub row: Option<&'static str>,
}

/// The conversations that both services have.
pub fn conversations() -> Vec<Conversation> {
    let one = |name, bytes: &[u8]| Conversation {
        name,
        connections: vec![vec![Send(bytes.to_vec()), Finish]],
        row: None,
    };
    let line = |length| {
        let mut line: Vec<u8> = (b'a'..=b'z').cycle().take(length).collect();
        line.push(b'\n');
        line
    };
    let burst: String = (1..=1000).map(|n| format!("line {n}\n")).collect();
    let mut binary: Vec<u8> = (0..=255).collect();
    binary.push(b'\n');
    let (past, unfinished) = ("rot13 drops what goes past", "rot13 drops an unfinished");
    vec![
        one("a line", b"Hello, world\n"),
        one("an empty line", b"\n"),
        one("a line longer than echo's limit of 1023 bytes", &line(1500)),
        Conversation {
            row: Some(past),
            ..one("a line longer than rot13's limit of 4096 bytes", &line(5000))
        },
        Conversation {
            row: Some(past),
            ..one("a line longer than the C's buffer of 8192 bytes", &line(9000))
        },
        one("binary: every byte value", &binary),
        Conversation { row: Some(unfinished), ..one("an unfinished line", b"one\nlast") },
        one("a burst of a thousand lines", burst.as_bytes()),
        Conversation {
            name: "a reset in the middle of a line, then another client",
            connections: vec![
                vec![Send(b"one\n".to_vec()), Receive(4), Send(b"half a".to_vec()), Reset],
                vec![Send(b"again\n".to_vec()), Finish],
            ],
            row: None,
        },
    ]
}

/// What came back, and how each connection ended.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Answer {
    pub bytes: Vec<u8>,
    pub end: String,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Verdict {
    Equal,
    /// As the row of the README's table that begins so says.
    Known(&'static str),
    /// Right, though not as this service has it: how.
    Other(&'static str),
    Differs,
}

/// The patience with a server that was silent once.
const SHORT: Patience = Patience(Duration::from_millis(500));

/// The end of a connection that does not end.
const LEFT_OPEN: &str = "left open, with nothing more coming";

pub struct Exchange {
    pub name: String,
    pub sent: Vec<u8>,
    pub c: Answer,
    pub forkline: Answer,
    pub verdict: Verdict,
}

/// All conversations, each program in a network of its own.
pub fn compare(
    service: &str,
    c: &Program,
    forkline: &Program,
) -> Result<Vec<Exchange>, StartFailure> {
    let (c, forkline) = both(|| answers(c), || answers(forkline));
    let (c, forkline) = (c?, forkline.expect("forkline listens"));
    let exchange = |((conversation, c), forkline): ((Conversation, Answer), Answer)| {
        let sent = sent(&conversation);
        let verdict = verdict(service, &sent, conversation.row, &c, &forkline);
        Exchange { name: conversation.name.into(), sent, c, forkline, verdict }
    };
    Ok(conversations().into_iter().zip(c).zip(forkline).map(exchange).collect())
}

fn answers(program: &Program) -> Result<Vec<Answer>, StartFailure> {
    let (server, mut patience) = (Running::start(program)?, CONVERSATION.time());
    Ok(conversations().iter().map(|one| talk(&server, one, &mut patience)).collect())
}

impl Exchange {
    /// The answer is right, or as the README's table says, but the connection
    /// does not end.
    pub fn only_left_open(&self) -> bool {
        let (c, forkline) = (&self.c.bytes, &self.forkline.bytes);
        let known = *c == as_the_rot13_c(&self.sent) && *forkline == answer("rot13", &self.sent);
        (c == forkline || known) && self.c.end.contains(LEFT_OPEN)
    }
}

/// Why it is not worth looking further, if the C serves nobody, or one client.
pub fn unfit(exchanges: &[Exchange]) -> Option<&'static str> {
    let ends = |exchange: &Exchange, text| exchange.c.end.contains(text);
    let refuses = |exchange: &Exchange| ends(exchange, NOBODY_LISTENS);
    match exchanges {
        _ if exchanges.iter().any(|one| ends(one, STORMS[0])) => Some(STORMS[0]),
        [first, ..] if first.c.bytes.is_empty() => Some("it does not answer a line in time"),
        [_, second, ..] if refuses(second) => Some("nobody listens after the first client"),
        _ => None,
    }
}

pub fn sent(conversation: &Conversation) -> Vec<u8> {
    let sends = conversation.connections.iter().flatten().filter_map(|step| match step {
        Send(bytes) => Some(&bytes[..]),
        _ => None,
    });
    sends.flatten().copied().collect()
}

/// A row of the table explains only what it says: the C's answer is the one
/// that its fault makes, and forkline's is the right one.
pub fn verdict(
    service: &str,
    sent: &[u8],
    row: Option<&'static str>,
    c: &Answer,
    forkline: &Answer,
) -> Verdict {
    match row {
        _ if c == forkline => Verdict::Equal,
        Some(row)
            if service == "rot13"
                && c.end == forkline.end
                && c.bytes == as_the_rot13_c(sent)
                && forkline.bytes == answer("rot13", sent) =>
        {
            Verdict::Known(row)
        }
        _ => Verdict::Differs,
    }
}

/// Of each finished line, what its buffer of MAX_LINE + 1 bytes holds.
pub fn as_the_rot13_c(bytes: &[u8]) -> Vec<u8> {
    let lines = bytes.split_inclusive(|&b| b == b'\n').filter(|line| line.ends_with(b"\n"));
    lines.flat_map(|line| answer("rot13", &line[..line.len().min(4097)])).collect()
}

/// One conversation, at most `patience` long. With a server that was silent
/// once, patience is short from then on.
pub fn talk(server: &Running, conversation: &Conversation, patience: &mut Duration) -> Answer {
    let mut answer = Answer::default();
    let mut ends = Vec::new();
    let end = Instant::now() + *patience;
    for steps in &conversation.connections {
        let end = connection(server.port, steps, &mut answer.bytes, end);
        ends.push(end.unwrap_or_else(|e| match is_late(&e) {
            true => {
                *patience = SHORT.time();
                LEFT_OPEN.into()
            }
            false => server.why(&e),
        }));
    }
    answer.end = ends.join(", then ");
    answer
}

/// Connects to a server whose queue may be full.
pub fn connect(port: u16, end: Instant) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), left(end))?;
    stream.set_write_timeout(Some(left(end)))?;
    Ok(stream)
}

/// More than this is no answer to anything that is sent here.
const ENDLESS: usize = 1 << 20;

/// Does the steps; how the connection ended.
fn connection(port: u16, steps: &[Step], bytes: &mut Vec<u8>, end: Instant) -> io::Result<String> {
    let mut stream = connect(port, end)?;
    for step in steps {
        stream.set_write_timeout(Some(left(end)))?;
        match step {
            Send(piece) => stream.write_all(piece)?,
            Receive(n) => {
                let due = bytes.len() + n;
                while bytes.len() < due && receive_until(&stream, bytes, end)? > 0 {}
            }
            Finish => {
                stream.shutdown(Shutdown::Write)?;
                while receive_until(&stream, bytes, end)? > 0 {}
            }
            Reset => {
                // A reset takes with it what the server has not read yet.
                within(SHORT.time(), || has_been_read(port, &stream));
                reset(stream);
                return Ok("reset by the client".into());
            }
        }
    }
    Ok("closed by the server".into())
}

/// Whether the server has nothing left to read of this client (proc(5), net/tcp).
fn has_been_read(port: u16, client: &TcpStream) -> bool {
    let Ok(own) = client.local_addr() else { return true };
    let ends = [format!(":{port:04X}"), format!(":{:04X}", own.port())];
    let tables = ["tcp", "tcp6"].map(|name| {
        fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default()
    });
    let unread = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_its =
            fields.len() > 4 && fields[1].ends_with(&ends[0]) && fields[2].ends_with(&ends[1]);
        is_its && !fields[4].ends_with(":00000000")
    };
    !tables.iter().flat_map(|table| table.lines()).any(unread)
}

/// `receive_some`, which fails when the time is over or the answer endless.
pub fn receive_until(stream: &TcpStream, bytes: &mut Vec<u8>, end: Instant) -> io::Result<usize> {
    if Instant::now() >= end {
        return Err(ErrorKind::TimedOut.into());
    }
    if bytes.len() > ENDLESS {
        bytes.truncate(ENDLESS);
        return Err(io::Error::other("stopped by us: it sends without end"));
    }
    stream.set_read_timeout(Some(left(end)))?;
    receive_some(stream, bytes)
}

/// Nothing came in time.
pub fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

/// A timeout of 0 is not allowed.
fn left(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

// ---------------------------------------------------------------- dump

/// Bytes in a row of a dump.
const WIDTH: usize = 8;

/// A row of a dump, or how many bytes are left out.
#[derive(Debug, PartialEq)]
pub enum Row<'a> {
    /// The offset of the first, and the bytes.
    Bytes(usize, &'a [u8]),
    Gap(usize),
}

/// The rows worth reading: the first, the last, and those where it begins to
/// differ.
pub fn dump(bytes: &[u8], differs_at: Option<usize>) -> Vec<Row<'_>> {
    let all = bytes.len().div_ceil(WIDTH);
    let near = |n: usize| {
        let at = differs_at.map(|at| at / WIDTH);
        n < 6 || n + 2 >= all || at.is_some_and(|at| n.abs_diff(at) <= 1)
    };
    let mut rows: Vec<Row> = Vec::new();
    for (n, piece) in bytes.chunks(WIDTH).enumerate() {
        match rows.last_mut() {
            _ if near(n) || all <= 40 => rows.push(Row::Bytes(n * WIDTH, piece)),
            Some(Row::Gap(left)) => *left += piece.len(),
            _ => rows.push(Row::Gap(piece.len())),
        }
    }
    rows
}

/// Whether a reader sees more in the characters than in the bytes.
pub fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b'\n' | b' '..=b'~'))
}

/// Text in pieces worth reading: the first lines, the last, and those where it
/// begins to differ; of a long line its beginning, its end and that place.
pub fn text(bytes: &[u8], differs_at: Option<usize>) -> Vec<Row<'_>> {
    const LINES: usize = 6;
    const PIECE: usize = 40;
    let all: Vec<&[u8]> = bytes.split_inclusive(|&b| b == b'\n').collect();
    let mut rows: Vec<Row> = Vec::new();
    let mut add = |offset, piece, shown: bool| match rows.last_mut() {
        _ if shown => rows.push(Row::Bytes(offset, piece)),
        Some(Row::Gap(left)) => *left += piece.len(),
        _ => rows.push(Row::Gap(piece.len())),
    };
    let mut offset = 0;
    for (n, line) in all.iter().enumerate() {
        let here = |at: usize| at + 1 >= offset && at <= offset + line.len();
        if !(n < LINES || n + 2 >= all.len() || differs_at.is_some_and(here)) {
            add(offset, line, false);
        } else {
            let last = line.len().saturating_sub(1) / PIECE;
            for (n, piece) in line.chunks(PIECE).enumerate() {
                let from = offset + n * PIECE;
                let here = |at: usize| at + PIECE > from && at <= from + piece.len();
                add(from, piece, last < 4 || n == 0 || n == last || differs_at.is_some_and(here));
            }
        }
        offset += line.len();
    }
    rows
}

/// Where two answers begin to differ, if they do.
pub fn differs_at(a: &[u8], b: &[u8]) -> Option<usize> {
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    (a != b).then_some(same)
}

/// What differs first, in a few words; what differs is marked `‹so›`.
pub fn difference(exchange: &Exchange, verb: &str) -> String {
    let (c, forkline) = (&exchange.c, &exchange.forkline);
    let Some(at) = differs_at(&c.bytes, &forkline.bytes) else {
        return format!("the connection is {}, right is {}", c.end, forkline.end);
    };
    if [NOBODY_LISTENS, STORMS[0]].iter().any(|end| c.end.contains(end)) {
        return c.end.clone();
    }
    if c.bytes.is_empty() {
        let right = line_at(&forkline.bytes, None);
        return format!("it {verb} nothing, right is “{right}”; the connection is {}", c.end);
    }
    if let Some(greeting) = c.bytes.strip_suffix(&forkline.bytes[..]) {
        return format!("it sends ‹{}› before the answer", line_at(greeting, None));
    }
    if let Some(more) = c.bytes.strip_prefix(&forkline.bytes[..]) {
        return format!("it sends ‹{}› after the answer", line_at(more, None));
    }
    let (theirs, right) = (line_at(&c.bytes, Some(at)), line_at(&forkline.bytes, Some(at)));
    format!("it {verb} “{theirs}”, right is “{right}”")
}

/// The line around a place, which is marked, or the first line, as text. What is no
/// text is a dot.
pub fn line_at(bytes: &[u8], at: Option<usize>) -> String {
    const AROUND: usize = 24;
    let end = at.unwrap_or(0).min(bytes.len());
    let newline = bytes[..end].iter().rposition(|&byte| byte == b'\n');
    let first = newline.map_or(0, |newline| newline + 1);
    let from = first.max(end.saturating_sub(AROUND));
    let mut text = String::from(if from > first { "…" } else { "" });
    for (n, &byte) in bytes.iter().enumerate().skip(from) {
        let shown = match byte {
            b'\n' => '↵',
            b' '..=b'~' => char::from(byte),
            _ => '·',
        };
        text += &if Some(n) == at { format!("‹{shown}›") } else { shown.into() };
        if byte == b'\n' && n >= end {
            break;
        }
        if n > from + 2 * AROUND {
            text.push('…');
            break;
        }
    }
    if at == Some(bytes.len()) { text + "‹nothing more›" } else { text }
}
