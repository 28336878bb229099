//! Numeric addresses: what `inet_pton` and `inet_ntop` are to the C. Those of
//! `core::net` can panic, or need `core::fmt`, which is larger than the server.

use crate::line::Line;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An IPv4 address of four decimal numbers, or an IPv6 address (RFC 4291,
/// section 2.2); nothing for any other text.
pub fn parse(text: &[u8]) -> Option<IpAddr> {
    match parse_v4(text) {
        Some(ip) => Some(IpAddr::V4(ip)),
        None => parse_v6(text).map(IpAddr::V6),
    }
}

/// A number of decimal digits and nothing else, at most `max`.
#[inline(never)]
pub fn number(text: &[u8], max: u32) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u32, |n, &c| {
        let digit = (c as char).to_digit(10)?;
        n.checked_mul(10)?.checked_add(digit).filter(|&n| n <= max)
    })
}

/// `text` before the first `separator`, and what is behind it, if there is one.
#[inline(never)]
pub fn split_once(text: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    let at = text.iter().position(|&c| c == separator).unwrap_or(text.len());
    (text.get(..at).unwrap_or_default(), text.get(at + 1..))
}

#[inline(never)]
fn parse_v4(text: &[u8]) -> Option<Ipv4Addr> {
    let (mut octets, mut rest) = ([0; 4], Some(text));
    for octet in &mut octets {
        let part;
        (part, rest) = split_once(rest?, b'.');
        // A leading zero would be octal to inet_aton(3).
        if part.len() > 1 && part.first() == Some(&b'0') {
            return None;
        }
        *octet = number(part, 255)? as u8;
    }
    rest.is_none().then_some(Ipv4Addr::from_octets(octets))
}

fn parse_v6(text: &[u8]) -> Option<Ipv6Addr> {
    let gap = text.windows(2).position(|two| two == b"::");
    let (mut groups, n) = groups(text.get(..gap.unwrap_or(text.len()))?, gap.is_none())?;
    if let Some(gap) = gap {
        let (after, m) = self::groups(text.get(gap + 2..)?, true)?;
        // "::" stands for one group of zeros at least.
        let zeros = 8usize.checked_sub(n + m).filter(|&zeros| zeros > 0)?;
        for (group, after) in groups.iter_mut().skip(n + zeros).zip(after) {
            *group = after;
        }
    } else if n != 8 {
        return None;
    }
    Some(Ipv6Addr::from_segments(groups))
}

/// Groups of hexadecimal digits between colons, and how many there are. At the
/// end of the address the last two may be written as an IPv4 address.
fn groups(text: &[u8], at_end: bool) -> Option<([u16; 8], usize)> {
    let (mut groups, mut n) = ([0; 8], 0);
    let mut rest = (!text.is_empty()).then_some(text);
    while let Some(text) = rest {
        let part;
        (part, rest) = split_once(text, b':');
        if at_end
            && rest.is_none()
            && let Some(v4) = parse_v4(part)
        {
            let [a, b, c, d] = v4.octets();
            *groups.get_mut(n)? = u16::from_be_bytes([a, b]);
            *groups.get_mut(n + 1)? = u16::from_be_bytes([c, d]);
            return Some((groups, n + 2));
        }
        if part.is_empty() || part.len() > 4 {
            return None;
        }
        for &c in part {
            let digit = (c as char).to_digit(16)?;
            let group = groups.get_mut(n)?;
            *group = *group << 4 | digit as u16;
        }
        n += 1;
    }
    Some((groups, n))
}

impl Line<'_> {
    /// Appends `127.0.0.1:7007` or `[::1]:7007` (RFC 5952, section 6).
    pub fn addr(&mut self, addr: &SocketAddr) -> &mut Self {
        match addr.ip() {
            IpAddr::V4(ip) => self.ipv4(ip),
            IpAddr::V6(ip) => self.str("[").ipv6(ip).str("]"),
        };
        self.str(":").num(addr.port().into())
    }

    fn ipv4(&mut self, ip: Ipv4Addr) -> &mut Self {
        for (i, &octet) in ip.octets().iter().enumerate() {
            self.str(if i > 0 { "." } else { "" }).num(octet.into());
        }
        self
    }

    /// The longest run of zeros, the first of equals, is written as "::"
    /// (RFC 5952, section 4.2).
    fn ipv6(&mut self, ip: Ipv6Addr) -> &mut Self {
        let groups = ip.segments();
        let (mut gap, mut zeros) = (8, 1);
        for start in 0..8 {
            let run = groups.iter().skip(start).take_while(|&&group| group == 0).count();
            if run > zeros {
                (gap, zeros) = (start, run);
            }
        }
        for (i, &group) in groups.iter().enumerate() {
            if i == gap {
                self.str("::");
            } else if i < gap || i >= gap + zeros {
                if i > 0 && i != gap + zeros {
                    self.str(":");
                }
                self.digits(group.into(), 16);
            }
        }
        self
    }
}
