//! C and Rust source side by side: a scanner for both, the functions, types
//! and constants of a file, which mirrors which, and which lines are level.

use super::roles::Roles;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;

// ---------------------------------------------------------------- tokens

#[derive(Clone, Copy, PartialEq)]
pub enum Lang {
    C,
    Rust,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Kind {
    Space,
    Comment,
    /// A string, or a character.
    Text,
    Number,
    Word,
    /// A line of the C preprocessor, up to a comment.
    Directive,
    Sign,
}

pub struct Token<'a> {
    pub kind: Kind,
    pub text: &'a str,
    /// The line that it begins on, from 1.
    pub line: usize,
}

/// The whole text as tokens; what is no C and no Rust still gives some.
pub fn tokens(text: &str, lang: Lang) -> Vec<Token<'_>> {
    let mut tokens: Vec<Token> = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let (kind, len) = token(rest, first, lang);
        let (text, after) = rest.split_at(len);
        tokens.push(Token { kind, text, line });
        line += text.matches('\n').count();
        rest = after;
    }
    tokens
}

/// What `rest` begins with, and how many bytes of it that is.
fn token(rest: &str, first: char, lang: Lang) -> (Kind, usize) {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let until = |end: &str| rest[2..].find(end).map_or(rest.len(), |at| at + 2);
    let while_ = |is: &dyn Fn(char) -> bool| rest.find(|c| !is(c)).unwrap_or(rest.len());
    match first {
        _ if first.is_whitespace() => (Kind::Space, while_(&char::is_whitespace)),
        _ if rest.starts_with("//") => (Kind::Comment, until("\n")),
        _ if rest.starts_with("/*") => (Kind::Comment, (until("*/") + 2).min(rest.len())),
        '#' if lang == Lang::C => (Kind::Directive, directive(rest)),
        '"' => (Kind::Text, quoted(rest, '"')),
        '\'' if lang == Lang::C => (Kind::Text, quoted(rest, '\'')),
        '\'' if rest[1..].starts_with('\\') || rest.chars().nth(2) == Some('\'') => {
            (Kind::Text, quoted(rest, '\''))
        }
        '0'..='9' => (Kind::Number, while_(&word)),
        // A lifetime is one too.
        '\'' => (Kind::Word, 1 + rest[1..].find(|c| !word(c)).unwrap_or(rest.len() - 1)),
        _ if word(first) => (Kind::Word, while_(&word)),
        _ => (Kind::Sign, first.len_utf8()),
    }
}

/// The length of a directive: to the end of the line that no `\` continues,
/// or to a comment.
fn directive(rest: &str) -> usize {
    let mut len = 0;
    for line in rest.split_inclusive('\n') {
        let comment = line.find("/*").or(line.find("//"));
        let end = comment.unwrap_or(line.trim_end_matches(['\n', '\r']).len());
        if comment.is_some() || !line[..end].ends_with('\\') {
            return len + line[..end].trim_end().len();
        }
        len += line.len();
    }
    len
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

const C_KEYWORDS: &str = " auto break case char const continue default do double else enum extern \
    float for goto if inline int long register restrict return short signed sizeof static struct \
    switch typedef union unsigned void volatile while ";
const RUST_KEYWORDS: &str = " as break const continue crate dyn else enum extern false fn for if \
    impl in let loop match mod move mut pub ref return self static struct super trait true type \
    unsafe use where while ";

fn keyword(word: &str, lang: Lang) -> bool {
    let keywords = if lang == Lang::C { C_KEYWORDS } else { RUST_KEYWORDS };
    keywords.contains(&format!(" {word} "))
}

/// The text as HTML, line by line. Nothing in it is markup but ours.
pub fn coloured(text: &str, lang: Lang) -> Vec<String> {
    let mut lines = vec![String::new()];
    let tokens = tokens(text, lang);
    for (i, token) in tokens.iter().enumerate() {
        let call = tokens.get(i + 1).is_some_and(|next| next.text == "(" || next.text == "!");
        let class = match token.kind {
            Kind::Comment => "co",
            Kind::Text => "st",
            Kind::Number => "nu",
            Kind::Directive => "di",
            Kind::Word if keyword(token.text, lang) => "ke",
            Kind::Word if call => "fn",
            Kind::Word if token.text.starts_with(|c: char| c.is_uppercase()) => "ty",
            Kind::Word if token.text.ends_with("_t") || token.text.starts_with('\'') => "ty",
            _ => "",
        };
        for (n, piece) in token.text.split('\n').enumerate() {
            if n > 0 {
                lines.push(String::new());
            }
            let line = lines.last_mut().expect("a line");
            match class {
                _ if piece.trim().is_empty() => line.push_str(piece),
                "" => line.push_str(&escape(piece)),
                _ => line.push_str(&format!("<span class={class}>{}</span>", escape(piece))),
            }
        }
    }
    lines
}

pub fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

// ---------------------------------------------------------------- items

/// A source file.
pub struct File {
    /// As people name it: `echo.c`, `main.rs`.
    pub name: String,
    pub lang: Lang,
    pub text: String,
    pub items: Vec<Item>,
    /// What stands above the first item: imports. Its name is `head`.
    pub head: Option<Item>,
}

/// A function, a type or a constant.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub name: String,
    /// Where it is declared.
    pub line: usize,
    /// Its lines, with the comment above it, and with code behind it that is in
    /// no item, such as `#endif`.
    pub first: usize,
    pub last: usize,
}

impl File {
    /// Reads it. Bytes that are no UTF-8 are no error: they are in a comment.
    pub fn read(path: &Path) -> Result<File, String> {
        let bytes = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(File::new(&name, String::from_utf8_lossy(&bytes).replace("\r\n", "\n")))
    }

    pub fn new(name: &str, text: String) -> File {
        let lang = if name.ends_with(".rs") { Lang::Rust } else { Lang::C };
        let (items, head) = items(&text, lang);
        File { name: name.into(), lang, items, head, text }
    }

    pub fn item(&self, name: &str) -> Option<&Item> {
        self.items.iter().chain(&self.head).find(|item| item.name == name)
    }
}

/// The items at the top level, and for Rust those in an `impl`; and what stands
/// above them.
fn items(text: &str, lang: Lang) -> (Vec<Item>, Option<Item>) {
    let all = tokens(text, lang);
    let code: Vec<&Token> =
        all.iter().filter(|t| !matches!(t.kind, Kind::Space | Kind::Comment)).collect();
    let mut items = Vec::new();
    let (mut start, mut depth, mut body) = (0, 0usize, false);
    for (i, token) in code.iter().enumerate() {
        let declaration = &code[start..=i];
        let outer = lang == Lang::Rust && matches!(declaration[0].text, "impl" | "mod");
        let ended = match token.text {
            _ if token.kind == Kind::Directive => depth == 0,
            // Its contents are items themselves.
            "{" if depth == 0 && outer => true,
            "(" | "[" | "{" => {
                body |= depth == 0 && token.text == "{" && has_body(declaration, lang);
                depth += 1;
                false
            }
            // It closes an `impl`.
            "}" if depth == 0 => true,
            ")" | "]" | "}" => {
                depth = depth.saturating_sub(1);
                depth == 0 && token.text == "}" && body
            }
            ";" => depth == 0 && !is_old_style(declaration, lang),
            _ => false,
        };
        if ended {
            if let Some(name) = name(declaration, lang, body) {
                let (line, last) = (name.line, token.line + token.text.matches('\n').count());
                let first = comment_above(&all, declaration[0].line);
                let name = name_in(name).to_owned();
                items.push(Item { name, line, first, last });
            }
            (start, body) = (i + 1, false);
        }
    }
    with_all_code(items, &code)
}

/// Each item with the code up to the next one, and as an item what is above all.
fn with_all_code(mut items: Vec<Item>, code: &[&Token]) -> (Vec<Item>, Option<Item>) {
    let line = |token: &&Token| token.line + token.text.matches('\n').count();
    let end = |before: usize| code.iter().map(line).filter(|&line| line < before).max();
    for i in 0..items.len() {
        let next = items.get(i + 1).map_or(usize::MAX, |next| next.first);
        items[i].last = items[i].last.max(end(next).unwrap_or(0));
    }
    let head = end(items.first().map_or(usize::MAX, |item| item.first)).map(|last| {
        let first = code[0].line;
        Item { name: "head".into(), line: first, first, last }
    });
    (items, head)
}

/// `int main(argc, argv) int argc;`: the body of a function comes after it.
fn is_old_style(declaration: &[&Token], lang: Lang) -> bool {
    let close = declaration.iter().position(|token| token.text == ")");
    let after = close.map_or(&[][..], |close| &declaration[close + 1..]);
    let called = close.is_some() && declaration.iter().any(|token| token.text == "(");
    let types =
        after.len() > 2 && after.iter().take(2).all(|t| t.kind == Kind::Word || t.text == "*");
    let attribute = declaration.iter().any(|token| token.text.starts_with("__"));
    lang == Lang::C && called && types && !attribute && declaration[0].text != "typedef"
}

/// Whether the `{` that ends this begins what the item ends with.
fn has_body(declaration: &[&Token], lang: Lang) -> bool {
    let words = |words: &[&str]| declaration.iter().any(|token| words.contains(&token.text));
    match lang {
        Lang::C => {
            let before = declaration.len().checked_sub(2).map_or("", |n| declaration[n].text);
            before == ")" || before == ";"
        }
        Lang::Rust => words(&["fn", "struct", "enum", "extern", "union", "trait"]),
    }
}

/// The token that names what is declared, if it is an item.
fn name<'t, 'a>(declaration: &[&'t Token<'a>], lang: Lang, body: bool) -> Option<&'t Token<'a>> {
    let before = |sign: &str| {
        let at = declaration.iter().position(|token| token.text == sign)?;
        declaration[..at].iter().rev().find(|token| token.kind == Kind::Word).copied()
    };
    let after = |keyword: &str| {
        let mut pairs = declaration.windows(2);
        let pair = pairs.find(|pair| pair[0].text == keyword && pair[1].kind == Kind::Word)?;
        Some(pair[1])
    };
    let first = declaration[0];
    match (lang, first.text) {
        // One that has a value.
        (Lang::C, text) if text.starts_with("#define") => {
            (text.split_whitespace().count() > 2).then_some(first)
        }
        (Lang::C, "typedef") => declaration.iter().rev().find(|t| t.kind == Kind::Word).copied(),
        (Lang::C, "struct" | "union" | "enum") if !body => before("{"),
        (Lang::C, _) if body => before("("),
        (Lang::C, _) => None,
        (Lang::Rust, "use" | "mod" | "impl") => None,
        (Lang::Rust, _) => ["fn", "struct", "enum", "static", "const"].into_iter().find_map(after),
    }
}

/// `#define NAME ...` names NAME.
fn name_in<'a>(token: &Token<'a>) -> &'a str {
    let text = token.text.trim_start_matches("#define").trim_start();
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// The first line of the comments that end just above this line.
fn comment_above(tokens: &[Token], mut line: usize) -> usize {
    for (i, token) in tokens.iter().enumerate().rev() {
        let alone =
            i == 0 || tokens[i - 1].kind == Kind::Space && tokens[i - 1].text.contains('\n');
        let last = token.line + token.text.matches('\n').count();
        if token.kind == Kind::Comment && alone && last + 1 == line {
            line = token.line;
        }
    }
    line
}

// ---------------------------------------------------------------- pairs

/// Items that mirror each other: a heading of lines.txt.
#[derive(Clone, Default)]
pub struct Pair {
    /// `echo.c`; empty for Rust that no C corresponds to.
    pub file: String,
    pub c: Vec<String>,
    /// File and name.
    pub rust: Vec<(String, String)>,
    pub why: String,
    /// Which line of the C is level with which of the Rust, and how much that
    /// matters. Empty for a C of the reader's own.
    pub level: BTreeMap<(usize, usize), f64>,
    /// The reasons of the lines that have no counterpart, of the C and of the Rust.
    pub reasons: [BTreeMap<usize, String>; 2],
}

/// The pairs for a C of the reader's own, which stands for `service`.c and may lack
/// functions, or have others. Those of other names are found by what they do.
pub fn pairs_for(pairs: &[Pair], service: &str, files: &[File]) -> Vec<Pair> {
    let own = format!("{service}.c");
    let is_own = super::c_files().iter().any(|ours| files.iter().all(|f| f.text == ours.text));
    let item = |name: &str| files.iter().find_map(|file| file.item(name));
    let roles = Roles::of(files);
    let mut mine: Vec<Pair> = pairs.iter().filter(|pair| pair.file == own).cloned().collect();
    for pair in &mut mine {
        if !is_own {
            (pair.level, pair.reasons) = Default::default();
        }
        let (here, missing): (Vec<String>, Vec<String>) =
            pair.c.iter().cloned().partition(|name| item(name).is_some());
        let other = pair.c.first().and_then(|name| roles.here(name));
        pair.c = here;
        if pair.c.is_empty() {
            pair.c =
                other.filter(|name| item(name).is_some()).map(String::from).into_iter().collect();
            let name = files.first().map_or("The C", |file| &file.name);
            pair.why = match &pair.c[..] {
                [] => format!("{name} has no `{}`.", missing.join("`, `")),
                [other, ..] => format!("`{other}` does what `{}` does in {own}.", missing[0]),
            };
        }
    }
    let known: BTreeSet<String> = mine.iter().flat_map(|pair| pair.c.clone()).collect();
    let others = files.iter().flat_map(|file| &file.items);
    let others = others.filter(|item| !known.contains(&item.name));
    let why = format!("No mirror: the C that forkline follows ({own}) has no such name.");
    mine.extend(others.map(|item| Pair {
        file: own.clone(),
        c: vec![item.name.clone()],
        why: why.clone(),
        ..Pair::default()
    }));
    let line =
        |pair: &Pair| pair.c.iter().filter_map(|name| item(name)).map(|item| item.line).min();
    mine.sort_by_key(|pair| line(pair).unwrap_or(usize::MAX));
    mine
}

// ---------------------------------------------------------------- level lines

/// What C and Rust call by different names, beside what lines.txt says.
const SAME: &[(&str, &str)] = &[
    ("while", "loop"),
    ("read", "recv"),
    ("write", "send"),
    ("printf", "report"),
    ("if", "match"),
    ("switch", "match"),
    ("case", "b'"),
    ("ch", "c"),
    ("recv", "rioreadlines"),
    ("send", "riowriten"),
    ("bufp", "usrbuf"),
    ("conn", "connfd"),
    ("riofd", "fd"),
    ("riocnt", "cnt"),
    ("riobufptr", "bufptr"),
    ("riobuf", "buf"),
    ("nleft", "usrbuf"),
];

/// Two lines that are level, or one that has none opposite it. `same`: they
/// say the same; else they only share the room between lines that do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    pub c: Option<usize>,
    pub rust: Option<usize>,
    pub same: bool,
}

/// Two lists of lines against each other, each in its order, so that those
/// that have most in common are level.
pub fn level(c: &[String], rust: &[String], pairs: &[Pair]) -> Vec<Level> {
    let c: Vec<Words> = c.iter().map(|line| words(line, Lang::C, pairs)).collect();
    let rust: Vec<Words> = rust.iter().map(|line| words(line, Lang::Rust, pairs)).collect();
    let mut common = HashMap::new();
    for word in c.iter().chain(&rust).flat_map(|line| line.0.keys()) {
        *common.entry(word.clone()).or_insert(0.0) += 1.0;
    }
    let gain = |a: &Words, b: &Words| {
        let shared =
            a.0.iter().filter_map(|(word, weight)| Some((word, weight.min(*b.0.get(word)?))));
        let shared: f64 = shared.map(|(word, weight)| weight / common[word]).sum();
        match (a.1, b.1) {
            _ if a.1 != b.1 => 0.0,
            (Shape::Comment | Shape::Sign, _) => shared + 0.02,
            // Hardly more than an `if` in common.
            _ if shared < 0.05 => 0.0,
            _ => shared,
        }
    };
    rows(align(&c, &rust, gain))
}

/// What has no line opposite it shares the room between lines that have.
pub fn rows(aligned: Vec<(Option<usize>, Option<usize>)>) -> Vec<Level> {
    let alone = |row: &(Option<usize>, Option<usize>)| row.0.is_none() || row.1.is_none();
    let mut rows: Vec<Level> = Vec::new();
    for run in aligned.chunk_by(|a, b| alone(a) && alone(b)) {
        let c: Vec<Option<usize>> = run.iter().map(|row| row.0).filter(Option::is_some).collect();
        let rust: Vec<Option<usize>> =
            run.iter().map(|row| row.1).filter(Option::is_some).collect();
        let same = run.len() == 1 && c.len() == rust.len();
        let height = c.len().max(rust.len());
        // What stands above the first that is the same, stands just above it.
        let shift = |side: &[Option<usize>]| if rows.is_empty() { height - side.len() } else { 0 };
        let (c_shift, rust_shift) = (shift(&c), shift(&rust));
        let at = |side: &[Option<usize>], n: usize, shift| {
            n.checked_sub(shift).and_then(|n| *side.get(n)?)
        };
        let level = |n| Level { c: at(&c, n, c_shift), rust: at(&rust, n, rust_shift), same };
        rows.extend((0..height).map(level));
    }
    rows
}

/// The alignment with the highest sum of gains (Needleman and Wunsch's): pairs
/// of indices, or one alone, where a pair would gain nothing.
pub fn align<T, U>(
    left: &[T],
    right: &[U],
    gain: impl Fn(&T, &U) -> f64,
) -> Vec<(Option<usize>, Option<usize>)> {
    let (n, m) = (left.len(), right.len());
    let mut best = vec![vec![0.0f64; m + 1]; n + 1];
    for i in (0..n).rev() {
        for j in (0..m).rev() {
            let both = match gain(&left[i], &right[j]) {
                gain if gain > 0.0 => best[i + 1][j + 1] + gain,
                _ => f64::MIN,
            };
            best[i][j] = both.max(best[i + 1][j]).max(best[i][j + 1]);
        }
    }
    let (mut i, mut j, mut rows) = (0, 0, Vec::new());
    while i < n || j < m {
        if i < n && (j == m || best[i][j] == best[i + 1][j]) {
            rows.push((Some(i), None));
            i += 1;
        } else if j < m && (i == n || best[i][j] == best[i][j + 1]) {
            rows.push((None, Some(j)));
            j += 1;
        } else {
            rows.push((Some(i), Some(j)));
            (i, j) = (i + 1, j + 1);
        }
    }
    rows
}

#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Empty,
    Comment,
    /// Braces alone.
    Sign,
    Code,
}

/// What a line says, in words that C and Rust share, with their weights, and
/// what it is.
struct Words(BTreeMap<String, f64>, Shape);

fn words(line: &str, lang: Lang, pairs: &[Pair]) -> Words {
    let plain = |word: &str| word.replace('_', "").to_lowercase();
    let mut words: BTreeMap<String, f64> = BTreeMap::new();
    let (mut comment, mut code) = (false, false);
    let tokens = tokens(line, lang);
    for (i, token) in tokens.iter().enumerate() {
        comment |= token.kind == Kind::Comment;
        code |= !matches!(token.kind, Kind::Comment | Kind::Space | Kind::Sign);
        if !matches!(token.kind, Kind::Word | Kind::Number | Kind::Text | Kind::Directive) {
            continue;
        }
        let weight = match tokens.get(i + 1).map(|next| next.text) {
            _ if token.kind == Kind::Number || keyword(token.text, lang) => 0.3,
            Some("(") => 2.0,
            _ => 1.0,
        };
        let mut add = |word| {
            let known = words.entry(word).or_insert(weight);
            *known = weight.max(*known);
        };
        for word in token.text.split(|c: char| !c.is_alphanumeric() && c != '_') {
            let mirrors =
                pairs.iter().filter(|pair| lang == Lang::C && pair.c.contains(&word.into()));
            let mirrors = mirrors.flat_map(|pair| &pair.rust).map(|(_, name)| plain(name));
            let mirrors: Vec<String> = mirrors.collect();
            if !mirrors.contains(&plain(word)) {
                mirrors.into_iter().for_each(&mut add);
            }
            let word = plain(word);
            let same = SAME.iter().filter(|(c, _)| lang == Lang::C && *c == word);
            same.for_each(|(_, rust)| add((*rust).to_owned()));
            add(word);
        }
    }
    words.remove("");
    let shape = match line.trim() {
        "" => Shape::Empty,
        _ if code => Shape::Code,
        _ if comment => Shape::Comment,
        _ => Shape::Sign,
    };
    Words(words, shape)
}
