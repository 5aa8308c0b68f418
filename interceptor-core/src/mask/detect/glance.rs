//! A glance at a text: what could be in it at all. Most texts hold nothing, and must cost next to nothing.
//!
//! Promise: what a glance rules out, no detector would have found, but a key without its body.

use super::class::Class;

/// The shortest run of letters that is looked into for a secret or an encoded value.
pub(super) const RUN: usize = 16;
/// The fewest digits in which a number is looked for.
const NUMBER: usize = 6;
/// The fewest in which one is, where nothing else stands: of encoded values, which are digits too, as well.
const BARE: usize = 12;
/// How many bytes are counted at once, so that a byte holds the count.
const COUNTED: usize = 240;

/// What stands in a text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Glance {
    length: usize,
    digits: usize,
    dots: usize,
    colons: usize,
    slashes: usize,
    /// `@`, `=`.
    marks: usize,
    /// A run of letters that may be a secret or encoded.
    pub(super) long: bool,
}

impl Glance {
    pub(super) fn at(text: &[u8]) -> Self {
        let mut glance = Self { length: text.len(), ..Self::default() };
        for part in text.chunks(COUNTED) {
            // Several counts in one: none is more than a byte holds.
            let sum = part.iter().fold(0_u64, |sum, byte| sum.wrapping_add(count(*byte)));
            let [digits, dots, colons, slashes, marks, ..] = sum.to_le_bytes();
            glance.digits = glance.digits.saturating_add(digits.into());
            glance.dots = glance.dots.saturating_add(dots.into());
            glance.colons = glance.colons.saturating_add(colons.into());
            glance.slashes = glance.slashes.saturating_add(slashes.into());
            glance.marks = glance.marks.saturating_add(marks.into());
        }
        glance.long = glance.digits < text.len() && has_run(text);
        glance
    }

    /// Whether it is nothing but digits, and may be encoded.
    pub(super) fn is_digits(self) -> bool {
        self.digits == self.length && self.digits >= RUN
    }

    /// Whether something may stand at an anchor.
    pub(super) fn may_be_anchored(self) -> bool {
        self.long || self.marks > 0 || (self.colons > 0 && self.slashes > 1)
    }

    /// Whether a number, or an address written with numbers, may stand in it.
    pub(super) fn may_be_number(self) -> bool {
        match self.digits == self.length {
            // Nothing but a short number is not told from any other.
            true => self.digits >= BARE,
            false => {
                self.digits >= NUMBER
                    || (self.digits >= 4 && self.dots >= 3)
                    || (self.digits >= 2 && self.long)
            }
        }
    }

    /// Whether an address in hexadecimal groups may stand in it.
    pub(super) fn may_be_groups(self, text: &[u8]) -> bool {
        self.colons >= 6 || (self.colons >= 2 && text.windows(2).any(|two| two == b"::"))
    }
}

/// What each byte counts as.
const COUNTS: [u64; 256] = {
    let mut counts = [0; 256];
    let mut byte = 0_usize;
    while byte < 256 {
        counts[byte] = match byte as u8 {
            b'0'..=b'9' => 1,
            b'.' => 1 << 8,
            b':' => 1 << 16,
            b'/' => 1 << 24,
            b'@' | b'=' => 1 << 32,
            _ => 0,
        };
        byte += 1;
    }
    counts
};

fn count(byte: u8) -> u64 {
    COUNTS.get(usize::from(byte)).copied().unwrap_or(0)
}

/// Whether a run of at least [`RUN`] such bytes stands in `text`: looks where one must reach, and back from there.
fn has_run(text: &[u8]) -> bool {
    let mut at = RUN - 1;
    while let Some(byte) = text.get(at) {
        if !Class::PART.has(*byte) {
            at += RUN;
            continue;
        }
        let back = text.get(at + 1 - RUN..at).unwrap_or_default();
        let behind = back.iter().rev().take_while(|byte| Class::PART.has(**byte)).count();
        if behind == RUN - 1 {
            return true;
        }
        // The run began there: it would reach so far.
        at += RUN - 1 - behind;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_seen_wherever_they_stand() {
        for before in 0..40 {
            for length in [1, 15, 16, 17, 40] {
                for behind in [0, 1, 20] {
                    let text = ["a ".repeat(before), "x".repeat(length), " b".repeat(behind)].concat();
                    assert_eq!(Glance::at(text.as_bytes()).long, length >= RUN, "{before} {length} {behind}");
                }
            }
        }
    }

    #[test]
    fn plain_words_hold_nothing() {
        let nothing = |text: &str| {
            let glance = Glance::at(text.as_bytes());
            !glance.may_be_anchored() && !glance.may_be_number() && !glance.may_be_groups(text.as_bytes())
        };
        assert!(
            nothing("shipped to the warehouse")
                && nothing("12345")
                && nothing("1234567890")
                && nothing("")
                && nothing("v1.2.3")
        );
        for something in ["a@b", "a=b", "a 123456", "1.2.3.4", "::1", "123456789012", "0123456789abcdef"] {
            assert!(!nothing(something), "{something}");
        }
        let many = "7".repeat(1000);
        assert_eq!(Glance::at(many.as_bytes()).digits, 1000);
    }
}
