//! Random texts of the kinds that users type.

use fastrand::Rng;
use std::net::{IpAddr, Ipv6Addr};

/// An address in 2001:db8::/32 (RFC 3849), often with runs of zeros.
pub fn some_ipv6(random: &mut Rng) -> Ipv6Addr {
    let mut groups = [0; 8];
    groups[..2].copy_from_slice(&[0x2001, 0xdb8]);
    for group in &mut groups[2..] {
        *group = if random.bool() { 0 } else { random.u16(..) >> random.u8(..16) };
    }
    groups.into()
}

/// One of the ways to write an address.
pub fn typed(ip: IpAddr, random: &mut Rng) -> String {
    let IpAddr::V6(ip) = ip else { return ip.to_string() };
    let groups = ip.segments().map(|group| format!("{group:04x}"));
    let [.., a, b, c, d] = ip.octets();
    match random.u8(..4) {
        0 => ip.to_string(),
        1 => ip.to_string().to_uppercase(),
        2 => groups.join(":"),
        _ => format!("{}:{a}.{b}.{c}.{d}", groups[..6].join(":")),
    }
}

/// Puts one of these characters in, takes up to two out, or exchanges them.
pub fn mutate(text: &mut Vec<u8>, characters: &[u8], random: &mut Rng) {
    let at = random.usize(..=text.len());
    let end = (at + random.usize(..=2)).min(text.len());
    let new = random.choice(characters).filter(|_| random.bool());
    text.splice(at..end, new.copied());
}
