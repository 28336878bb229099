//! Client, parent and child with their descriptors at the four moments that
//! the rot13 text tells of, from the calls that strace saw.

use super::calls::{Call, Trace};
use super::inject::listening_socket;
use super::source::escape;
use std::fmt::Write;

/// What the parent and the child hold at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moment {
    pub parent: Vec<Fd>,
    /// None before the fork.
    pub child: Option<Vec<Fd>>,
}

/// A socket that a process holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Fd {
    pub number: String,
    pub listens: bool,
}

pub const MOMENTS: [&str; 4] = ["listening", "connected", "forked", "closed on both sides"];

/// The moments of the first connection of this trace; none without one.
pub fn moments(trace: &Trace) -> Option<[Moment; 4]> {
    let number = listening_socket(&trace.parent);
    let accept = trace.parent.iter().position(|call| call.name.starts_with("accept"))?;
    let connection = trace.parent[accept].rest.rsplit("= ").next()?;
    let connection = connection.split(' ').next()?.to_owned();
    let forks = |call: &Call| matches!(&*call.name, "clone" | "clone3" | "fork" | "vfork");
    let fork = accept + trace.parent[accept..].iter().position(forks)?;
    let next = |calls: &[Call]| calls.iter().position(|call| call.name.starts_with("accept"));
    let until = next(&trace.parent[fork..]).map_or(trace.parent.len(), |n| fork + n);

    let listening = Fd { number, listens: true };
    let both = vec![listening.clone(), Fd { number: connection, listens: false }];
    let talks = |call: &Call| ["read", "recvfrom", "recvmsg"].contains(&&*call.name);
    let serves = trace.child.iter().position(talks).unwrap_or(trace.child.len());
    Some([
        Moment { parent: vec![listening], child: None },
        Moment { parent: both.clone(), child: None },
        Moment { parent: both.clone(), child: Some(both.clone()) },
        Moment {
            parent: without_closed(&both, &trace.parent[fork..until]),
            child: Some(without_closed(&both, &trace.child[..serves])),
        },
    ])
}

fn without_closed(fds: &[Fd], calls: &[Call]) -> Vec<Fd> {
    let closed = |fd: &&Fd| {
        let closes = format!("({})", fd.number);
        calls.iter().any(|call| call.name == "close" && call.rest.starts_with(&closes))
    };
    fds.iter().filter(|fd| !closed(fd)).cloned().collect()
}

// ---------------------------------------------------------------- drawing

const WIDTH: usize = 220;
const HEIGHT: usize = 210;

/// One moment of one program. What should be closed by now is marked.
pub fn svg(moment: &Moment, n: usize) -> String {
    let last = n == 3;
    let mut html = format!(
        "<svg class=picture viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=img aria-label=\"{}\">",
        escape(&in_words(moment, n))
    );
    // The client is on the left, the parent above, the child below.
    let (client, absent) = if n == 0 { ("no client", " absent") } else { ("client", "") };
    let _ = write!(
        html,
        "<g class=\"box{absent}\"><rect x=2 y=75 width=62 height=50 rx=6 />\
<text x=33 y=104 text-anchor=middle>{client}</text></g>"
    );
    process(&mut html, "parent", 8, Some(&moment.parent), |fd| last && !fd.listens);
    process(&mut html, "child", 112, moment.child.as_deref(), |fd| last && fd.listens);
    html + "</svg>"
}

/// A process with its sockets, and a line to the client from each connection.
fn process(
    html: &mut String,
    name: &str,
    y: usize,
    fds: Option<&[Fd]>,
    wrong: impl Fn(&Fd) -> bool,
) {
    let absent = if fds.is_none() { " absent" } else { "" };
    let _ = write!(
        html,
        "<g class=\"box{absent}\"><rect x=100 y={y} width=118 height=90 rx=6 />\
<text x=159 y={} text-anchor=middle>{}</text></g>",
        y + 18,
        if fds.is_none() { "no child yet" } else { name }
    );
    for (row, fd) in fds.unwrap_or_default().iter().enumerate() {
        let at = y + 28 + 30 * row;
        let class = match wrong(fd) {
            true => "fd wrong",
            false if fd.listens => "fd listens",
            false => "fd",
        };
        let what = if fd.listens { "listens" } else { "client" };
        let _ = write!(
            html,
            "<g class=\"{class}\"><rect x=108 y={at} width=102 height=24 rx=4 />\
<text x=159 y={} text-anchor=middle>{} {what}</text>",
            at + 16,
            escape(&fd.number)
        );
        if !fd.listens {
            let _ = write!(html, "<path d=\"M64 100L108 {}\"/>", at + 12);
        }
        *html += "</g>";
    }
}

/// The same for those who do not see it.
pub fn in_words(moment: &Moment, n: usize) -> String {
    let list = |fds: &[Fd]| {
        let words = fds.iter().map(|fd| {
            let what = if fd.listens { "listening socket" } else { "connection" };
            format!("{what} {}", fd.number)
        });
        words.collect::<Vec<_>>().join(" and ")
    };
    let mut text = format!("{}: the parent holds {}", MOMENTS[n], list(&moment.parent));
    if let Some(child) = &moment.child {
        let _ = write!(text, ", the child {}", list(child));
    }
    text
}
