//! What the servers report on standard output: through a terminal, where the C
//! library writes line by line, and into a pipe, where it does not.

use super::both;
use super::program::{CONVERSATION, MOST_OUTPUT, Program, REST, Running, START};
use super::wire::{Answer, Conversation, Exchange, Step, Verdict, as_the_rot13_c, sent, talk};
use crate::common::{self, Collected, within};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;

/// Lines of several lengths, in one piece, and a last one that is unfinished.
fn conversation() -> Conversation {
    let long = "x".repeat(999);
    let bytes = format!("a\n\nHello, world\n{long}\nlast").into_bytes();
    let connections = vec![vec![Step::Send(bytes), Step::Finish]];
    Conversation { name: "reports", connections, row: None }
}

/// None for a C whose answers to these lines are wrong: what it reports of them says
/// nothing then.
pub fn compare(service: &str, c: &Program, forkline: &Program) -> Result<Vec<Exchange>, String> {
    let ((before, c_terminal, answer), (_, ours, right)) = {
        let (c, forkline) = both(|| terminal(c), || terminal(forkline));
        (c?, forkline.expect("forkline reports"))
    };
    let bytes = sent(&conversation());
    if answer != right && (service != "rot13" || answer != as_the_rot13_c(&bytes)) {
        return Err("not judged: the answers to these lines are wrong".into());
    }
    let mut exchanges = vec![Exchange {
        name: "through a terminal".into(),
        sent: bytes.clone(),
        verdict: verdict(&c_terminal.bytes, &ours.bytes, bytes.len()),
        c: c_terminal,
        forkline: ours,
    }];
    if service == "echo" {
        let (c, forkline) = both(|| pipe(c, &before), || pipe(forkline, ""));
        let (c, forkline) = (c?, forkline.expect("forkline reports"));
        let verdict = match (&exchanges[0].verdict, c.bytes.is_empty()) {
            (Verdict::Other(how), _) => Verdict::Other(how),
            (_, true) => Verdict::Known("echo reports through stdio"),
            _ => verdict(&c.bytes, &forkline.bytes, bytes.len()),
        };
        exchanges.push(Exchange { name: "into a pipe".into(), sent: bytes, c, forkline, verdict });
    }
    Ok(exchanges)
}

/// A server of another kind reports what it wants to. One that has the words of this
/// one must count right: of each line, or of each block that it reads.
fn verdict(c: &[u8], forkline: &[u8], all: usize) -> Verdict {
    const WORDS: [&str; 2] = ["server received ", " bytes"];
    let text = String::from_utf8_lossy(c);
    let count = |line: &str| {
        let number = line.strip_prefix(WORDS[0])?.strip_suffix(WORDS[1])?;
        number.parse::<usize>().ok()
    };
    let counts: Vec<usize> = text.lines().filter_map(count).collect();
    let right: Vec<usize> = String::from_utf8_lossy(forkline).lines().filter_map(count).collect();
    match () {
        () if c == forkline => Verdict::Equal,
        () if c.is_empty() => Verdict::Other("it reports nothing"),
        () if counts.is_empty() => Verdict::Other("it reports in words of its own"),
        () if counts == right => Verdict::Other("it reports more than the lines"),
        () if counts.iter().sum::<usize>() == all => Verdict::Other("it reports blocks, not lines"),
        () => Verdict::Differs,
    }
}

/// What it writes to a terminal before it has a client, and because of one; and what
/// it answers.
fn terminal(program: &Program) -> Result<(String, Answer, Vec<u8>), String> {
    let (master, slave) = pty().map_err(|e| format!("no terminal: {e}"))?;
    let output = Collected::from(Some(master.take(MOST_OUTPUT)));
    let mut command = program.command();
    let server = Running::spawn(program, command.stdout(slave), START);
    drop(command); // it holds the terminal's other end
    let server = server.map_err(|failure| failure.to_string())?;
    let before = output.text();
    let answer = talk(&server, &conversation(), &mut CONVERSATION.time());
    server.rest(program);
    server.stop();
    within(REST.time(), || output.ended());
    let bytes = output.bytes().split_off(before.len());
    Ok((before, Answer { bytes, end: answer.end }, answer.bytes))
}

/// What it writes into a pipe, without what it writes before it has a client.
fn pipe(program: &Program, before: &str) -> Result<Answer, String> {
    let server = Running::start(program).map_err(|failure| failure.to_string())?;
    let end = talk(&server, &conversation(), &mut CONVERSATION.time()).end;
    server.rest(program);
    let text = String::from_utf8_lossy(&server.stop()).replacen(before, "", 1);
    Ok(Answer { bytes: text.into_bytes(), end })
}

/// A terminal that changes nothing of what is written to it.
fn pty() -> io::Result<(File, File)> {
    let result = |value: i32| if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value) };
    let (master, slave) = common::terminal()?;
    // SAFETY: the kernel fills and reads a termios.
    unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        result(libc::tcgetattr(slave.as_raw_fd(), &mut settings))?;
        libc::cfmakeraw(&mut settings);
        result(libc::tcsetattr(slave.as_raw_fd(), libc::TCSANOW, &settings))?;
    }
    Ok((master, slave))
}
