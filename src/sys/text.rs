//! Reading texts.

/// A number of decimal digits and nothing else, at most `max`.
pub fn number(text: &[u8], max: u32) -> Option<u32> {
    let n = text.iter().try_fold(0u64, |n, &c| {
        let digit = (c as char).to_digit(10)?;
        Some(10 * n + u64::from(digit)).filter(|&n| n <= max.into())
    });
    n.filter(|_| !text.is_empty()).map(|n| n as u32)
}

/// The text before the first `separator`, and the text behind it if there is one.
pub fn split_once(text: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    let at = text.iter().position(|&c| c == separator).unwrap_or(text.len());
    (text.get(..at).unwrap_or_default(), text.get(at + 1..))
}
