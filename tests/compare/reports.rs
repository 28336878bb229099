//! What the servers report on standard output: through a terminal, where the C
//! library writes line by line, and into a pipe, where it does not.

use super::program::{CONVERSATION, Program, REST, Running};
use super::wire::{Answer, Conversation, Exchange, Step, Verdict, sent, talk};
use crate::common::{self, Collected, within};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Lines of several lengths, in one piece, and a last one that is unfinished.
fn conversation() -> Conversation {
    let long = "x".repeat(999);
    let bytes = format!("a\n\nHello, world\n{long}\nlast").into_bytes();
    let connections = vec![vec![Step::Send(bytes), Step::Finish]];
    Conversation { name: "reports", connections, row: None }
}

pub fn compare(service: &str, c: &Program, forkline: &Program) -> Result<Vec<Exchange>, String> {
    let bytes = sent(&conversation());
    let ((before, c_terminal), (_, ours)) = (terminal(c)?, terminal(forkline)?);
    let equal = |same| if same { Verdict::Equal } else { Verdict::Differs };
    let mut exchanges = vec![Exchange {
        name: "through a terminal".into(),
        sent: bytes.clone(),
        verdict: equal(c_terminal.bytes == ours.bytes),
        c: c_terminal,
        forkline: ours,
    }];
    if service == "echo" {
        let (c, forkline) = (pipe(c, &before)?, pipe(forkline, "")?);
        let verdict = match c.bytes.is_empty() && !forkline.bytes.is_empty() {
            true => Verdict::Known("echo reports through stdio"),
            false => equal(c.bytes == forkline.bytes),
        };
        exchanges.push(Exchange { name: "into a pipe".into(), sent: bytes, c, forkline, verdict });
    }
    Ok(exchanges)
}

/// What it writes to a terminal before it has a client, and because of one.
fn terminal(program: &Program) -> Result<(String, Answer), String> {
    let (master, slave) = pty().map_err(|e| format!("no terminal: {e}"))?;
    let output = Collected::from(Some(master));
    let mut command = program.command();
    let server = Running::spawn_with_stdout(command.stdout(slave), program.limits(), Some);
    drop(command); // it holds the terminal's other end
    let server = server?;
    let before = output.text();
    let end = talk(server.port, &conversation(), &mut CONVERSATION.time()).end;
    server.rest();
    server.stop();
    within(REST.time(), || output.ended());
    let bytes = output.bytes().split_off(before.len());
    Ok((before, Answer { bytes, end }))
}

/// What it writes into a pipe, without what it writes before it has a client.
fn pipe(program: &Program, before: &str) -> Result<Answer, String> {
    let server = Running::start(program)?;
    let end = talk(server.port, &conversation(), &mut CONVERSATION.time()).end;
    server.rest();
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
