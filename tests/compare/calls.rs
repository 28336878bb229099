//! The system calls of one conversation, by strace, the C's beside forkline's.

use super::jail::namespace_pid;
use super::program::{CONVERSATION, Program, REST, Running, START};
use super::source::align;
use super::wire::{connect, receive_until};
use crate::common::{stat, within};
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// What the client says, a line at a time.
pub const LINES: [&str; 2] = ["Hello\n", "Why not?\n"];

/// A line of strace: a call, or what happened to the process.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Empty for a signal and the end.
    pub name: String,
    /// Arguments and result.
    pub rest: String,
}

/// What a server made of one conversation.
#[derive(Default)]
pub struct Trace {
    pub parent: Vec<Call>,
    pub child: Vec<Call>,
}

/// Traces one conversation with the program; `home` is for forkline, which has none.
pub fn trace(program: &Program, home: &Path) -> Result<Trace, String> {
    if Command::new("strace").arg("-V").output().is_err() {
        return Err("strace is not installed".into());
    }
    let own = home.join("calls");
    let to = if program.is_ours() { own.to_string_lossy() } else { "calls".into() };
    let mut strace = program.under(&["strace", "-ff", "-q", "-a1", "-s64", "-o", &to]);
    let server = Running::spawn(program, &mut strace, START).map_err(|e| e.to_string())?;
    let home = server.home.clone().unwrap_or(home.into());
    let parent = format!("calls.{}", namespace_pid(server.pid).unwrap_or(server.pid));
    converse(&server).map_err(|e| format!("the conversation: {}", server.why(&e)))?;
    server.rest(program);
    within(REST.time(), || matches!(stat(server.pid), Some(('S', _))));
    server.stop();
    read_traces(&home, &parent).ok_or("no child was made for it".into())
}

fn converse(server: &Running) -> io::Result<()> {
    let end = Instant::now() + CONVERSATION.time();
    let mut stream = connect(server.port, end)?;
    let (mut answer, mut due) = (Vec::new(), 0);
    for line in LINES {
        stream.write_all(line.as_bytes())?;
        due += line.len();
        // An answer of another length is shown by the calls.
        while answer.len() < due && receive_until(&stream, &mut answer, end).is_ok_and(|n| n > 0) {}
    }
    Ok(())
}

/// Of the parent, whose file has this name, and of the child that has talked most.
fn read_traces(home: &Path, parent: &str) -> Option<Trace> {
    let mut traces: Vec<(String, Vec<Call>)> = Vec::new();
    for file in fs::read_dir(home).ok()?.flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        if name.starts_with("calls.") {
            traces.push((name, calls(&fs::read_to_string(file.path()).ok()?)));
            let _ = fs::remove_file(file.path());
        }
    }
    let at = traces.iter().position(|(name, _)| name == parent)?;
    let (_, parent) = traces.swap_remove(at);
    let talk = |(_, calls): &(String, Vec<Call>)| calls.iter().filter(|call| talks(call)).count();
    let (_, child) = traces.into_iter().max_by_key(talk)?;
    Some(Trace { parent, child })
}

/// Whether it sends or receives.
fn talks(call: &Call) -> bool {
    ["read", "recvfrom", "recvmsg", "write", "sendto", "sendmsg"].contains(&&*call.name)
}

/// What strace wrote of one process. What we did to end it is left out.
pub fn calls(text: &str) -> Vec<Call> {
    let lines = text.lines().filter(|line| !line.starts_with("+++ killed by SIGKILL"));
    let call = |line: &str| match line.split_once('(') {
        Some((name, rest)) if name.chars().all(|c| c.is_alphanumeric() || c == '_') => {
            Call { name: name.into(), rest: format!("({rest}") }
        }
        _ => Call { name: String::new(), rest: line.trim_matches(['-', '+', ' ']).into() },
    };
    lines.map(call).collect()
}

/// Names of calls that do the same to a socket, or make the same.
const SAME: [[&str; 2]; 3] = [["read", "recvfrom"], ["write", "sendto"], ["clone", "fork"]];

/// The calls of the C and of forkline level with each other.
pub fn level<'t>(c: &'t [Call], forkline: &'t [Call]) -> Vec<(Option<&'t Call>, Option<&'t Call>)> {
    let gain = |a: &Call, b: &Call| {
        let alike = SAME.iter().any(|same| same.contains(&&*a.name) && same.contains(&&*b.name));
        let (of_a, of_b) = (subject(a), subject(b));
        match a.name == b.name {
            true if of_a == of_b => 3.0,
            // Another descriptor.
            true if of_a.parse::<u32>().is_ok() && of_b.parse::<u32>().is_ok() => 1.0,
            false if alike => 2.0,
            _ => 0.0,
        }
    };
    let rows = align(c, forkline, gain);
    rows.into_iter().map(|(a, b)| (a.map(|a| &c[a]), b.map(|b| &forkline[b]))).collect()
}

/// The argument that tells what a call is about.
fn subject(call: &Call) -> &str {
    let which = match call.name.as_str() {
        "socket" => 1,
        "setsockopt" => 2,
        "mmap" => 3,
        // Of itself: none.
        "execve" => return "",
        _ => 0,
    };
    let arguments = call.rest.trim_start_matches('(');
    arguments.split([',', ')']).nth(which).unwrap_or_default().trim()
}

impl Trace {
    /// Calls up to the first accept, those of the parent after it, those of
    /// the child.
    pub fn counts(&self) -> [usize; 3] {
        let count = |calls: &[Call]| calls.iter().filter(|call| !call.name.is_empty()).count();
        let ready = self.parent.iter().position(|call| call.name.starts_with("accept"));
        let ready = ready.unwrap_or(self.parent.len());
        [count(&self.parent[..ready]), count(&self.parent[ready..]), count(&self.child)]
    }
}
