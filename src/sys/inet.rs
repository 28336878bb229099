//! Numeric addresses, like inet_pton(3). Those of `core::net` can panic or need
//! `core::fmt`, which is larger than the server.

use super::text::{number, split_once};
use libc::{AF_INET, AF_INET6};

/// An IPv4 or IPv6 address with its port, as the kernel has it: a `sockaddr_in6`,
/// in which family, port and IPv4 address stand as in a `sockaddr_in` (ip(7), ipv6(7)).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Sockaddr {
    /// 0 if this is no address.
    pub family: u16,
    pub port: [u8; 2],
    v4: [u8; 4],
    pub v6: [u8; 16],
    scope_id: u32,
}

impl Sockaddr {
    pub const NONE: Sockaddr =
        Sockaddr { family: 0, port: [0; 2], v4: [0; 4], v6: [0; 16], scope_id: 0 };

    /// Every address of this family.
    pub fn any(family: i32) -> Sockaddr {
        Sockaddr { family: family as u16, ..Sockaddr::NONE }
    }

    pub fn with_port(self, port: u16) -> Sockaddr {
        Sockaddr { port: port.to_be_bytes(), ..self }
    }

    /// The IPv4 address, also one that is mapped into IPv6 (RFC 4291, section 2.5.5.2).
    pub fn v4(&self) -> Option<[u8; 4]> {
        let v6 = u128::from_be_bytes(self.v6);
        match v6 >> 32 {
            _ if i32::from(self.family) == AF_INET => Some(self.v4),
            0xffff => Some((v6 as u32).to_be_bytes()),
            _ => None,
        }
    }
}

/// An IPv4 address of four decimal numbers, or an IPv6 address (RFC 4291,
/// section 2.2), with port 0; nothing for any other text.
pub fn inet_pton(text: &[u8]) -> Option<Sockaddr> {
    match parse_v4(text) {
        Some(v4) => Some(Sockaddr { v4: v4.to_be_bytes(), ..Sockaddr::any(AF_INET) }),
        None => Some(Sockaddr { v6: parse_v6(text)?.to_be_bytes(), ..Sockaddr::any(AF_INET6) }),
    }
}

fn parse_v4(text: &[u8]) -> Option<u32> {
    let (mut v4, mut rest) = (0, Some(text));
    for _ in 0..4 {
        let part;
        (part, rest) = split_once(rest?, b'.');
        // inet_aton(3) takes a number with a leading zero as octal.
        if let [b'0', _, ..] = part {
            return None;
        }
        v4 = v4 << 8 | number(part, 255)?;
    }
    rest.is_none().then_some(v4)
}

fn parse_v6(text: &[u8]) -> Option<u128> {
    let gap = text.windows(2).position(|two| two == b"::");
    let (mut v6, n) = parse_groups(text.get(..gap.unwrap_or(text.len()))?, gap.is_none())?;
    let Some(gap) = gap else {
        return (n == 8).then_some(v6);
    };
    let (after, m) = parse_groups(text.get(gap + 2..)?, true)?;
    for _ in n..8 {
        v6 <<= 16;
    }
    // "::" stands for one group of zeros at least.
    (n + m < 8).then_some(v6 | after)
}

/// The value of hexadecimal groups between colons, and their number. The last two
/// groups of an address may be written as an IPv4 address.
fn parse_groups(text: &[u8], at_end: bool) -> Option<(u128, usize)> {
    let (mut v6, mut n) = (0, 0);
    let mut rest = (!text.is_empty()).then_some(text);
    while let Some(text) = rest {
        let part;
        (part, rest) = split_once(text, b':');
        if at_end
            && rest.is_none()
            && let Some(v4) = parse_v4(part)
        {
            return Some((v6 << 32 | u128::from(v4), n + 2));
        }
        if part.is_empty() || part.len() > 4 {
            return None;
        }
        let group =
            part.iter().try_fold(0, |group, &c| Some(group << 4 | (c as char).to_digit(16)?));
        v6 = v6 << 16 | u128::from(group?);
        n += 1;
    }
    Some((v6, n))
}
