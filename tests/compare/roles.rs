//! What the functions of a C do, whatever they are called: the one that serves a
//! client, the SIGCHLD handler, the one that listens; and where its calls are.

use super::source::{File, Kind, Lang, Token, tokens};

/// The names of what a C has for each purpose.
#[derive(Debug, Default, PartialEq)]
pub struct Roles {
    /// What the child calls with the connection.
    pub service: Option<String>,
    /// What is given to signal or sigaction for SIGCHLD.
    pub handler: Option<String>,
    /// Not main, and it calls listen.
    pub opener: Option<String>,
    /// Not the service, and they call read or recv, write or send.
    pub reader: Option<String>,
    pub writer: Option<String>,
    /// The variable of the listening socket.
    pub listener: Option<String>,
}

/// What each of these is called in the C that forkline follows.
const OURS: [(&str, [&str; 2]); 5] = [
    ("service", ["echo", "child_run"]),
    ("handler", ["sighandler", "sigchld_handler"]),
    ("opener", ["open_listenfd", "tcp_server_listen"]),
    ("reader", ["rio_readlineb", ""]),
    ("writer", ["rio_writen", ""]),
];

impl Roles {
    pub fn of(files: &[File]) -> Roles {
        let mut roles = Roles::default();
        let mut calls = Vec::new();
        for file in files {
            let all = tokens(&file.text, Lang::C);
            let code = all.into_iter().filter(|t| !matches!(t.kind, Kind::Space | Kind::Comment));
            calls.push((file, code.collect::<Vec<_>>()));
        }
        let is_function = |name: &str| files.iter().any(|file| file.item(name).is_some());
        for (_, code) in &calls {
            roles.find_names(code, &is_function);
        }
        for (file, code) in &calls {
            roles.find_callers(file, code);
        }
        roles
    }

    fn find_names(&mut self, code: &[Token], is_function: &dyn Fn(&str) -> bool) {
        if let Some((connection, listener)) = accepted(code) {
            let mut served = service(code, &connection, is_function);
            // A thread gets the function by its name.
            served = served.or_else(|| argument(code, "pthread_create", 2));
            self.service = self.service.take().or(served);
            self.listener = self.listener.take().or(listener);
        }
        let given = argument(code, "signal", 1).filter(|_| names(code, "SIGCHLD"));
        let handler = handler(code).or(given).filter(|name| is_function(name));
        self.handler = self.handler.take().or(handler);
    }

    fn find_callers(&mut self, file: &File, code: &[Token]) {
        let caller = |calls: &[&str], but: &[&Option<String>]| {
            let at =
                code.windows(2).filter(|pair| calls.contains(&pair[0].text) && pair[1].text == "(");
            let items = at.filter_map(|pair| {
                file.items.iter().find(|item| (item.line..=item.last).contains(&pair[0].line))
            });
            let names = items.map(|item| item.name.clone());
            names
                .into_iter()
                .find(|name| name != "main" && but.iter().all(|other| other.as_ref() != Some(name)))
        };
        let opener = caller(&["listen"], &[]);
        let reader = caller(&["read", "recv"], &[&self.service]);
        let writer = caller(&["write", "send"], &[&self.service, &reader]);
        for (role, found) in
            [(&mut self.opener, opener), (&mut self.reader, reader), (&mut self.writer, writer)]
        {
            *role = role.take().or(found);
        }
    }

    /// The name here of what is called so in the C that forkline follows.
    pub fn here(&self, ours: &str) -> Option<&str> {
        let (role, _) = OURS.iter().find(|(_, names)| names.contains(&ours))?;
        let name = match *role {
            "service" => &self.service,
            "handler" => &self.handler,
            "opener" => &self.opener,
            "reader" => &self.reader,
            _ => &self.writer,
        };
        name.as_deref()
    }
}

fn names(code: &[Token], word: &str) -> bool {
    code.iter().any(|token| token.text == word)
}

/// A call by its name or its wrapper's: `accept` or `Accept`.
fn is_call(code: &[Token], n: usize, name: &str) -> bool {
    let next = code.get(n + 1).is_some_and(|next| next.text == "(");
    // `int Accept(` declares it.
    let declared = n > 0 && code[n - 1].kind == Kind::Word && code[n - 1].text != "return";
    code[n].kind == Kind::Word && code[n].text.eq_ignore_ascii_case(name) && next && !declared
}

/// The variables of the connection and of the listening socket.
fn accepted(code: &[Token]) -> Option<(String, Option<String>)> {
    let call =
        (0..code.len()).find(|&n| is_call(code, n, "accept") || is_call(code, n, "accept4"))?;
    let equals = code[..call].iter().rposition(|token| token.text == "=")?;
    let listener = code.get(call + 2).filter(|token| token.kind == Kind::Word);
    let connection = code[..equals].iter().rfind(|token| token.kind == Kind::Word)?;
    Some((connection.text.into(), listener.map(|token| token.text.into())))
}

/// The function of this C that is called with the connection, after fork if possible.
fn service(code: &[Token], connection: &str, is_function: &dyn Fn(&str) -> bool) -> Option<String> {
    let from = (0..code.len()).find(|&n| is_call(code, n, "fork")).unwrap_or(0);
    let takes = |n: usize| {
        let end = code[n..].iter().position(|token| token.text == ";").unwrap_or(0);
        let arguments = &code[n..n + end];
        let close = code[n].text.eq_ignore_ascii_case("close");
        let known = code[n].kind == Kind::Word && is_function(code[n].text) && !close;
        known && is_call(code, n, code[n].text) && arguments.iter().any(|t| t.text == connection)
    };
    (from..code.len()).chain(0..from).find(|&n| takes(n)).map(|n| code[n].text.into())
}

/// The name that stands as argument `n` of the first call of this name.
fn argument(code: &[Token], call: &str, n: usize) -> Option<String> {
    let calls = (0..code.len()).filter(|&at| is_call(code, at, call));
    let arguments = calls.map(|at| {
        let end = code[at..].iter().position(|token| token.text == ";").unwrap_or(0);
        code[at + 2..(at + end).max(at + 2)].split(|token| token.text == ",").collect::<Vec<_>>()
    });
    let mut fitting = arguments.filter(|all| {
        call != "signal"
            || all.first().is_some_and(|first| first.iter().any(|t| t.text == "SIGCHLD"))
    });
    fitting.find_map(|all| all.get(n)?.iter().find(|t| t.kind == Kind::Word).map(|t| t.text.into()))
}

/// What stands in the sigaction for SIGCHLD: the last one before the call.
fn handler(code: &[Token]) -> Option<String> {
    let call = code.windows(3).position(|three| {
        three[0].text.eq_ignore_ascii_case("sigaction") && three[2].text == "SIGCHLD"
    })?;
    let field =
        code[..call].iter().rposition(|t| t.text == "sa_handler" || t.text == "sa_sigaction")?;
    code[field + 1..].iter().find(|token| token.kind == Kind::Word).map(|token| token.text.into())
}

/// Where one of these calls is, the best first: `echo.c:41`, and its line.
pub fn place(files: &[File], calls: &[&str]) -> Option<String> {
    calls.iter().find_map(|call| files.iter().find_map(|file| place_in(file, call, |_| true)))
}

/// Where the listening socket is closed last.
pub fn place_of_close(files: &[File], listener: &str) -> Option<String> {
    let closes = |line: &str| {
        let rest = line.split("close").nth(1).unwrap_or_default().trim_start_matches([' ', '(']);
        rest.trim_start().starts_with(listener)
    };
    files.iter().find_map(|file| place_in(file, "close", closes))
}

/// The last call in this file on a line that fits: where a server calls it, the
/// functions around it stand above.
fn place_in(file: &File, call: &str, fits: impl Fn(&str) -> bool) -> Option<String> {
    let all = tokens(&file.text, Lang::C);
    let code: Vec<Token> =
        all.into_iter().filter(|t| !matches!(t.kind, Kind::Space | Kind::Comment)).collect();
    let text = |n: usize| file.text.lines().nth(code[n].line - 1).unwrap_or_default().trim();
    let at = (0..code.len()).rev().find(|&n| is_call(&code, n, call) && fits(text(n)))?;
    Some(format!("{}:{}: {}", file.name, code[at].line, text(at)))
}
