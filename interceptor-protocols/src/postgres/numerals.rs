//! Numbers as they are written in other types than text: with a fraction, an exponent or commas, behind which a detector,
//! which reads texts, does not see the number. And bytes that are written bit by bit.
//!
//! Promise: a number that is found where it stands alone is found with nothing but zeros behind its point as well.

use interceptor_core::mask::Hiding;

/// money.
const MONEY: u32 = 790;
/// int2[], int4[], int8[], oid[], and the vectors of the catalogue: commas part their elements.
const WHOLE: [u32; 6] = [1005, 1007, 1016, 1028, 22, 30];
/// The fewest digits in which a number is looked for.
const DIGITS: usize = 9;
/// The fewest bits that are read as text.
const BITS: usize = 48;
/// The longest number that is looked at.
const LONGEST: usize = 400;

/// Whether a number that is hidden is written in a text of a value of that type.
pub(super) fn hide(text: &[u8], kind: u32, hiding: &Hiding) -> bool {
    if !hiding.looks() || text.iter().filter(|byte| byte.is_ascii_digit()).count() < DIGITS {
        // But for those with an exponent.
        if memchr::memchr2(b'e', b'E', text).is_none() {
            return false;
        }
    }
    let is_part = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
    let mut numbers = text.split(|byte| !is_part(byte)).filter(|number| !number.is_empty());
    if numbers.any(|number| whole(number).is_some_and(|number| hiding.finds(number.as_bytes()))) {
        return true;
    }
    let mut strings = text.split(|byte| !matches!(byte, b'0' | b'1')).filter(|bits| bits.len() >= BITS);
    if strings.any(|bits| hiding.finds(&bytes(bits))) {
        return true;
    }
    // In rows and types of somebody's own money may stand.
    let parted = kind == MONEY || (memchr::memchr(b',', text).is_some() && !WHOLE.contains(&kind));
    parted && {
        let mut numbers = text.split(|byte| !is_part(byte) && *byte != b',');
        numbers.any(|number| thousands(number).is_some_and(|number| hiding.finds(number.as_bytes())))
    }
}

/// Whether a text is one number and nothing else.
pub(super) fn is_one(text: &[u8]) -> bool {
    matches!(text.first(), Some(b'0'..=b'9' | b'-'))
        && text.iter().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(byte))
}

/// The whole part of a number that is written with a fraction or an exponent.
fn whole(number: &[u8]) -> Option<String> {
    let number = std::str::from_utf8(number).ok().filter(|number| number.len() <= LONGEST)?;
    let number = number.trim_start_matches(['+', '-']);
    if number.contains(['e', 'E']) {
        let number: f64 = number.parse().ok()?;
        return (number.abs() < 1e19).then(|| format!("{:.0}", number.abs().trunc()));
    }
    let (whole, _) = number.split_once('.')?;
    Some(whole.to_owned())
}

/// The whole part of a number with a comma before every three digits.
fn thousands(number: &[u8]) -> Option<String> {
    let number = std::str::from_utf8(number).ok().filter(|number| number.len() <= LONGEST)?;
    let whole = number.split('.').next()?.trim_start_matches('-');
    let mut groups = whole.split(',');
    let first = groups.next().filter(|first| (1..=3).contains(&first.len()))?;
    let rest: Vec<&str> = groups.collect();
    let threes = !rest.is_empty() && rest.iter().all(|group| group.len() == 3);
    threes.then(|| first.to_owned() + &rest.concat())
}

/// The bytes that bits make.
fn bytes(bits: &[u8]) -> Vec<u8> {
    let byte = |bits: &[u8]| bits.iter().fold(0, |byte: u8, bit| byte << 1 | u8::from(*bit == b'1'));
    bits.chunks(8).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use interceptor_core::mask::{Detector, Form, Label, LabelSet, Labels, MaskKey};

    use super::*;

    #[test]
    fn numbers_are_found_however_they_are_written() {
        let detect = vec![Detector::Card, Detector::Email];
        let label = Label { name: "x".to_owned(), columns: Vec::new(), detect, form: Form::Redact };
        let labels = Labels::new("r", vec![label]).expect("labels");
        let hiding = Hiding::new(Arc::new(labels), LabelSet::ALL, &MaskKey::new([0; 32]));
        let found = |text: &str, kind| hide(text.as_bytes(), kind, &hiding);
        for (text, kind) in [
            ("4111111111111111.00", 1700),
            ("-4111111111111111.5", 1700),
            ("4.111111111111111e+15", 701),
            ("$4,111,111,111,111,111.00", 790),
            ("{1,4111111111111111.00}", 1231),
            ("[4111111111111111.00,4111111111111113.00)", 3906),
            ("(1,4.111111111111111e+15)", 600),
            ("(a,\"$4,111,111,111,111,111.00\")", 70_000),
        ] {
            assert!(found(text, kind), "{text}");
        }
        let bits: String = b"a@example.com".iter().map(|byte| format!("{byte:08b}")).collect();
        assert!(found(&bits, 1562));
        for (text, kind) in [
            ("4111111111111112.00", 1700),
            ("0.4111111111111111", 1700),
            ("1.5e+300", 701),
            ("{411,111,111,111,111,1}", 1007),
            ("2026-01-02 03:04:05.123456", 3908),
            ("(1,2.5)", 600),
        ] {
            assert!(!found(text, kind), "{text}");
        }
        assert!(!found(&"10".repeat(100), 1562));
        assert!(is_one(b"-1.5e3") && is_one(b"0") && !is_one(b"a1") && !is_one(b"1a") && !is_one(b""));
    }
}
