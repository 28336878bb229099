//! Exercises under the pairs of the page: a change of the C, and the check that
//! turns red. A test makes each change and looks.
#![allow(dead_code)] // the page shows the tasks, only the test makes the changes

use super::Side;
use super::wire::{Exchange, Verdict};

pub struct Exercise {
    pub service: &'static str,
    /// The function of the C under which it stands.
    pub item: &'static str,
    pub task: &'static str,
    /// The change: this text of the project's C, and what replaces it.
    pub from: &'static str,
    pub to: &'static str,
    /// The check: the id of a lesson, or the name of a conversation or report.
    pub red: &'static str,
    pub why: &'static str,
}

pub const EXERCISES: &[Exercise] = &[
    Exercise {
        service: "echo",
        item: "sighandler",
        task: "Take the `while` away, so that the handler waits once.",
        from: "while (waitpid(-1, 0, WNOHANG) > 0)\n        ;",
        to: "waitpid(-1, 0, WNOHANG);",
        red: "moment",
        why: "One signal stands for 20 children, and the handler reaps one of them.",
    },
    Exercise {
        service: "echo",
        item: "sighandler",
        task: "Take `WNOHANG` away (write 0).",
        from: "WNOHANG) > 0",
        to: "0) > 0",
        red: "death",
        why: "The handler waits for the next child to end, and the parent accepts nobody meanwhile.",
    },
    Exercise {
        service: "echo",
        item: "main",
        task: "Take the parent's `close(connfd)` away.",
        from: "        if (close(connfd) < 0)\n            error_(\"close\");\n    }\n}",
        to: "    }\n}",
        red: "descriptors",
        why: "The parent's copy stays open for ever; the client does not see the end of file either.",
    },
    Exercise {
        service: "echo",
        item: "main",
        task: "Take the child's `close(listenfd)` away.",
        from: "            if (close(listenfd) < 0)\n                error_(\"close\");\n",
        to: "",
        red: "child",
        why: "The child has inherited the listening socket, and keeps it.",
    },
    Exercise {
        service: "echo",
        item: "echo",
        task: "Report `n - 1` bytes, as if the newline did not count.",
        from: "(int)n);",
        to: "(int)n - 1);",
        red: "through a terminal",
        why: "The text counts the newline.",
    },
    Exercise {
        service: "rot13",
        item: "rot13_char",
        task: "Write `'l'` in place of the first `'m'`.",
        from: "c <= 'm'",
        to: "c <= 'l'",
        red: "binary: every byte value",
        why: "The letter m is not rotated any more. Only a test that sends every byte is sure to see it.",
    },
    Exercise {
        service: "rot13",
        item: "child_run",
        task: "Take `outbuf_used = 0` after `send` away.",
        from: "            outbuf_used = 0;\n",
        to: "",
        red: "a burst of a thousand lines",
        why: "Each answer begins with all lines before it.",
    },
    Exercise {
        service: "rot13",
        item: "main",
        task: "Take the parent's `close(conn_fd)` away.",
        from: "            close(conn_fd);\n",
        to: "            ;\n",
        red: "end",
        why: "The connection has a second descriptor, in the parent, so its end is never sent.",
    },
    Exercise {
        service: "rot13",
        item: "tcp_server_listen",
        task: "Take `setsockopt` away.",
        from: "    setsockopt(listenfd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));\n",
        to: "    (void)on;\n",
        red: "again",
        why: "The port stays taken while an old connection is in TIME_WAIT.",
    },
    Exercise {
        service: "rot13",
        item: "main",
        task: "Take `signal(SIGCHLD, ...)` away.",
        from: "    signal(SIGCHLD, sigchld_handler);\n",
        to: "",
        red: "zombies",
        why: "Nobody waits for the children that have ended.",
    },
];

/// The checks of this C that are red.
pub fn red(side: &Side) -> Vec<String> {
    let differs = |all: &[Exchange]| {
        let differs = all.iter().filter(|exchange| exchange.verdict == Verdict::Differs);
        differs.map(|exchange| exchange.name.clone()).collect::<Vec<_>>()
    };
    let lessons = side.lessons.iter().flatten().filter(|check| !check.good());
    let mut red: Vec<String> = lessons.map(|check| check.lesson.id.into()).collect();
    red.extend(differs(&side.wire));
    red.extend(side.reports.iter().flat_map(|reports| differs(reports)));
    red
}
