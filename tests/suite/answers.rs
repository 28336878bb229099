//! What a client sees is what it sees of the C programs, byte for byte, save
//! where the README's table says otherwise.
use crate::common::*;
use fastrand::Rng;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

const ECHO_LIMIT: usize = 1023; // MAXN - 1
const ROT13_LIMIT: usize = 4096; // MAX_LINE
/// The longest line that the rot13 C holds, its newline counted.
const ROT13_C_HOLDS: usize = 4097;

/// On both sides of every length at which something changes: the services'
/// limits, the buffer of the C's reader, and some long ones.
const LENGTHS: [usize; 16] = [
    0, 1, 1022, 1023, 1024, 1025, 4095, 4096, 4097, 4098, 8191, 8192, 8193, 131_071, 131_072,
    131_073,
];

/// Panics with the place of the first difference instead of kilobytes of bytes.
#[track_caller]
fn assert_same(got: &[u8], expected: &[u8], what: &str) {
    let same = got.iter().zip(expected).take_while(|(a, b)| a == b).count();
    assert!(
        got == expected,
        "{what}: {} bytes instead of {}, different from byte {same} on",
        got.len(),
        expected.len()
    );
}

// ---------------------------------------------------------------- random streams

/// The same random streams to forkline and to the C. Each stream goes in
/// random pieces, every other one in step.
fn compare(service: &str, limit: usize) {
    const STREAMS: u64 = 500;
    let seed =
        std::env::var("FORKLINE_SEED").map_or_else(|_| fastrand::u64(..), |s| s.parse().unwrap());
    let server = Server::start(&[service, "0"]);
    let c = Server::start_c(service);

    for n in 0..STREAMS {
        let mut rng = Rng::with_seed(seed.wrapping_add(n));
        let mut bytes = random_stream(&mut rng);
        let what = format!("FORKLINE_SEED={seed} {service} stream {n}");
        let mut talk = |server: &Server, limit, bytes: &[u8]| {
            let pieces = random_pieces(&mut rng, bytes);
            match n % 2 {
                0 => exchange_pieces(server.connect(), &pieces),
                _ => in_step(server.connect(), &pieces, limit, &what),
            }
        };

        assert_same(&talk(&server, limit, &bytes), &answer(service, &bytes), &what);
        let mut c_limit = limit;
        if service == "rot13" {
            bytes = lossless(&bytes);
            c_limit = usize::MAX;
            assert_same(&talk(&server, limit, &bytes), &answer(service, &bytes), &what);
        }
        assert_same(
            &talk(&c, c_limit, &bytes),
            &answer(service, &bytes),
            &format!("{what}, the C"),
        );
    }
}

/// Zero to six of everything that may matter, one after the other.
fn random_stream(rng: &mut Rng) -> Vec<u8> {
    let mut stream = Vec::new();
    for _ in 0..rng.usize(0..=6) {
        let kind = rng.u32(0..7);
        let length = match kind {
            0 | 1 => rng.usize(0..200),
            2 | 3 => LENGTHS[rng.usize(0..13)] + rng.usize(0..=1),
            4 => rng.usize(0..3000),
            5 => 256,
            _ if rng.u32(0..20) == 0 => rng.usize(0..400_000),
            _ => rng.usize(0..10_000),
        };
        let start = stream.len();
        stream.resize_with(start + length, || rng.u8(..));
        let part = &mut stream[start..];
        match kind {
            4 => part.fill(b'\n'),
            5 => {
                (0..256).for_each(|i| part[i] = i as u8);
                rng.shuffle(part);
            }
            6 => {} // a newline now and then, by chance
            _ => part.iter_mut().filter(|b| **b == b'\n').for_each(|b| *b = b'n'),
        }
        if kind < 4 && rng.u32(0..8) > 0 {
            stream.push(b'\n');
        }
    }
    stream
}

/// The stream with newlines added until the rot13 C loses nothing of it: no
/// line longer than it holds, none unfinished.
fn lossless(stream: &[u8]) -> Vec<u8> {
    let mut lines = Vec::new();
    let mut length = 0;
    for &byte in stream {
        if length == ROT13_C_HOLDS - 1 && byte != b'\n' {
            lines.push(b'\n');
            length = 0;
        }
        lines.push(byte);
        length = if byte == b'\n' { 0 } else { length + 1 };
    }
    if length > 0 {
        lines.push(b'\n');
    }
    lines
}

/// Cuts the bytes for that many writes, all small or of any size.
fn random_pieces<'a>(rng: &mut Rng, bytes: &'a [u8]) -> Vec<&'a [u8]> {
    let longest = match bytes.len() {
        0..5000 => [2, 16, 256, 1500, 5000],
        _ => [256, 1500, 1500, 5000, 20_000],
    };
    let longest = longest[rng.usize(0..5)];
    let mut pieces = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rng.usize(1..=longest).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// Sends each piece only when all that is due for those before has come.
fn in_step(mut stream: TcpStream, pieces: &[&[u8]], limit: usize, what: &str) -> Vec<u8> {
    let mut answer = Vec::new();
    let (mut due, mut unfinished) = (0, 0);
    for piece in pieces {
        for &byte in *piece {
            unfinished += 1;
            if byte == b'\n' || unfinished == limit {
                due += unfinished;
                unfinished = 0;
            }
        }
        stream.write_all(piece).expect("send");
        while answer.len() < due {
            let n = receive_some(&stream, &mut answer).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_ne!(n, 0, "{what}: end of file after {} bytes of {due} due", answer.len());
        }
        assert_eq!(answer.len(), due, "{what}: bytes of an unfinished line");
    }
    stream.shutdown(Shutdown::Write).expect("shutdown");
    stream.read_to_end(&mut answer).expect("receive");
    answer
}

#[test]
fn echo_streams_are_as_in_the_c() {
    compare("echo", ECHO_LIMIT);
}

#[test]
fn rot13_streams_are_as_in_the_c() {
    compare("rot13", ROT13_LIMIT);
}

// ---------------------------------------------------------------- limits

#[test]
fn lines_around_each_limit_are_answered_as_in_the_c() {
    for service in ["echo", "rot13"] {
        let server = Server::start(&[service, "0"]);
        let c = Server::start_c(service);
        for length in LENGTHS {
            for (before, after) in [("", ""), ("", "\n"), ("short\n", ""), ("short\n", "\n")] {
                let text: Vec<u8> = (b'A'..=b'z').cycle().take(length).collect();
                let bytes = [before.as_bytes(), &text, after.as_bytes()].concat();
                let what = format!("{service}: {before:?}, {length} bytes, {after:?}");
                assert_same(&exchange(server.connect(), &bytes), &answer(service, &bytes), &what);
                if service == "echo" || lossless(&bytes) == bytes {
                    let what = format!("{what}, the C");
                    assert_same(&exchange(c.connect(), &bytes), &answer(service, &bytes), &what);
                }
            }
        }
    }
}

#[test]
fn every_byte_comes_back_and_letters_alone_are_rotated() {
    let all: Vec<u8> = (0..=255).collect();
    let echo = Server::start(&["echo", "0"]);
    let answer = exchange(echo.connect(), &all);
    assert_eq!(answer, all);
    let rot13 = Server::start(&["rot13", "0"]);
    let answer = exchange(rot13.connect(), &all);
    let changed: Vec<u8> = all.iter().copied().filter(|&b| answer[b as usize] != b).collect();
    assert_eq!(changed, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz");
    assert_eq!(&answer[b'A' as usize..=b'Z' as usize], b"NOPQRSTUVWXYZABCDEFGHIJKLM");
    assert_eq!(&answer[b'a' as usize..=b'z' as usize], b"nopqrstuvwxyzabcdefghijklm");
}

/// Sends bytes that must not be answered yet.
fn hold(mut stream: &TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).expect("send");
    stream.set_read_timeout(Some(Duration::from_millis(200))).expect("timeout");
    let error = receive_some(stream, &mut Vec::new()).expect_err("answered before the newline");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
}

#[test]
fn an_open_connection_answers_at_the_newline() {
    let cases = [
        (Server::start(&["echo", "0"]), "hello\n"),
        (Server::start_c("echo"), "hello\n"),
        (Server::start(&["rot13", "0"]), "uryyb\n"),
        (Server::start_c("rot13"), "uryyb\n"),
    ];
    for (server, answer) in cases {
        let mut stream = server.connect();
        hold(&stream, b"hel");
        for end in [&b"lo\n"[..], b"hello\n", b"hello\n"] {
            stream.write_all(end).unwrap();
            assert_eq!(receive(&stream, 6), answer.as_bytes());
        }
    }
}

#[test]
fn an_open_connection_answers_at_the_longest_length() {
    let cases = [
        (Server::start(&["echo", "0"]), ECHO_LIMIT),
        (Server::start_c("echo"), ECHO_LIMIT),
        (Server::start(&["rot13", "0"]), ROT13_LIMIT),
    ];
    for (server, limit) in cases {
        let mut stream = server.connect();
        hold(&stream, &vec![b'.'; limit - 1]);
        stream.write_all(b".").unwrap();
        assert_eq!(receive(&stream, limit), vec![b'.'; limit]);
        for _ in 0..20 {
            stream.write_all(&vec![b'-'; 3 * limit]).unwrap();
            assert_eq!(receive(&stream, 3 * limit), vec![b'-'; 3 * limit]);
            stream.write_all(b"\n").unwrap();
            assert_eq!(receive(&stream, 1), b"\n");
        }
    }
}

// ---------------------------------------------------------------- differences

#[test]
fn rot13_gives_a_long_line_back_whole() {
    let server = Server::start(&["rot13", "0"]);
    let c = Server::start_c("rot13");
    for length in [ROT13_C_HOLDS + 1, 5000, 8192, 8193, 100_000, 3_000_000] {
        let mut line = vec![b'a'; length];
        line[length - 2..].copy_from_slice(b"z\n");
        let whole = answer("rot13", &line);
        assert_same(&exchange(server.connect(), &line), &whole, &format!("{length} bytes"));
        if length > 100_000 {
            continue; // the C makes a system call for each byte
        }
        let c_gives = exchange(c.connect(), &line);
        assert_same(&c_gives, &whole[..ROT13_C_HOLDS], &format!("{length} bytes, the C"));
    }
}

#[test]
fn rot13_sends_an_unfinished_last_line() {
    let server = Server::start(&["rot13", "0"]);
    let c = Server::start_c("rot13");
    assert_eq!(exchange(server.connect(), b"one\nlast"), b"bar\nynfg");
    assert_eq!(exchange(c.connect(), b"one\nlast"), b"bar\n");
}
