//! Kinds of bytes, by a table: texts in which letters and digits alternate would cost a wrong guess at each.

/// A kind, or several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Class(u8);

impl Class {
    /// ASCII letters and digits.
    pub(super) const WORD: Self = Self(1);
    /// ASCII digits.
    pub(super) const DIGIT: Self = Self(2);
    /// What secrets and encoded values are made of.
    pub(super) const PART: Self = Self(4);
    /// Hexadecimal digits.
    pub(super) const HEX: Self = Self(8);
    /// What IPv6 addresses are made of.
    pub(super) const GROUP: Self = Self(16);

    /// Whether a byte is of the kind.
    pub(super) fn has(self, byte: u8) -> bool {
        OF.get(usize::from(byte)).is_some_and(|classes| classes & self.0 != 0)
    }

    /// How many bytes of the kind stand beside each other from `from` on.
    pub(super) fn run(self, text: &[u8], from: usize) -> usize {
        text.get(from..).map_or(0, |rest| rest.iter().position(|byte| !self.has(*byte)).unwrap_or(rest.len()))
    }

    /// Where the first byte of the kind stands from `from` on.
    pub(super) fn next(self, text: &[u8], from: usize) -> Option<usize> {
        text.get(from..)?.iter().position(|byte| self.has(*byte)).map(|skip| from + skip)
    }
}

const OF: [u8; 256] = {
    let mut all = [0; 256];
    let mut byte = 0_usize;
    while byte < 256 {
        let letter = byte as u8;
        let word = letter.is_ascii_alphanumeric();
        let hex = letter.is_ascii_hexdigit();
        let part = word || matches!(letter, b'+' | b'/' | b'-' | b'_' | b'=');
        all[byte] = word as u8 * Class::WORD.0
            + letter.is_ascii_digit() as u8 * Class::DIGIT.0
            + part as u8 * Class::PART.0
            + hex as u8 * Class::HEX.0
            + (hex || matches!(letter, b':' | b'.')) as u8 * Class::GROUP.0;
        byte += 1;
    }
    all
};
