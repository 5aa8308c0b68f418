//! Kinds of bytes as bits, a block at a time: sixteen bytes cost what one would by itself.

use wide::u8x16;

/// How many bytes a block has at most.
pub(super) const BLOCK: usize = 64;

/// Which bytes of a block are what: the lowest bit is the first byte's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bits {
    /// ASCII digits.
    pub(super) digits: u64,
    /// ASCII letters and digits.
    pub(super) words: u64,
    /// What secrets and encoded values are made of, but `=`.
    pub(super) parts: u64,
    /// What stands between the groups of a number.
    pub(super) gaps: u64,
    pub(super) spaces: u64,
    pub(super) dots: u64,
    pub(super) colons: u64,
    pub(super) slashes: u64,
    pub(super) pluses: u64,
    /// What is seldom, and means much: `@`, `=`, `(`, `\`.
    pub(super) signs: u64,
}

impl Bits {
    /// Of the first [`BLOCK`] bytes.
    #[inline]
    pub(super) fn of(text: &[u8]) -> Self {
        let mut bits = Self::default();
        let (wholes, rest) = text.as_chunks::<16>();
        let mut place = 0;
        for whole in wholes.iter().take(BLOCK / 16) {
            bits.add(Sixteen::new(*whole), WHOLE, place);
            place += 16;
        }
        if !rest.is_empty() && place < BLOCK {
            match text.last_chunk::<16>() {
                // Some are looked at twice.
                Some(last) => bits.add(Sixteen::new(*last), WHOLE, text.len() - 16),
                None => bits.add(Sixteen::new(short(text).to_le_bytes()), below(text.len()), 0),
            }
        }
        bits
    }

    /// Adds those of `there` among sixteen bytes.
    #[inline]
    fn add(&mut self, bytes: Sixteen, there: u64, place: usize) {
        let digits = bytes.within(b'0', 9);
        let words = digits | bytes.lower().within(b'a', 25);
        self.digits |= digits << place;
        self.words |= words << place;
        self.parts |= words << place;
        // Most have nothing else, and what follows costs more.
        if words == there {
            return;
        }
        let [space, dot, dash, slash] = [b' ', b'.', b'-', b'/'].map(|byte| bytes.are(byte));
        let plus = bytes.are(b'+');
        self.parts |= (dash | slash | plus | bytes.are(b'_')) << place;
        self.gaps |= (space | dot | dash | slash | bytes.are(b')')) << place;
        self.spaces |= space << place;
        self.dots |= dot << place;
        self.slashes |= slash << place;
        self.pluses |= plus << place;
        self.colons |= bytes.are(b':') << place;
        self.signs |=
            [b'@', b'=', b'(', b'\\'].map(|byte| bytes.are(byte)).iter().fold(0, |a, b| a | b) << place;
    }

    /// The same without what stands from `end` on.
    pub(super) fn before(self, end: usize) -> Self {
        let kept = below(end);
        let Self { digits, words, parts, gaps, spaces, dots, colons, slashes, pluses, signs } = self;
        Self {
            digits: digits & kept,
            words: words & kept,
            parts: parts & kept,
            gaps: gaps & kept,
            spaces: spaces & kept,
            dots: dots & kept,
            colons: colons & kept,
            slashes: slashes & kept,
            pluses: pluses & kept,
            signs: signs & kept,
        }
    }

    /// ASCII letters.
    pub(super) fn letters(&self) -> u64 {
        self.words & !self.digits
    }

    /// Everything that means something.
    pub(super) fn known(&self) -> u64 {
        self.parts | self.gaps | self.colons | self.signs
    }
}

/// All of sixteen.
const WHOLE: u64 = 0xffff;

/// The bits below `place`.
pub(super) fn below(place: usize) -> u64 {
    !u64::MAX.checked_shl(place as u32).unwrap_or(0)
}

/// Whether all of a text is written in hexadecimal digits.
#[inline]
pub(super) fn is_hex(text: &[u8]) -> bool {
    let are = |bytes: [u8; 16], there: u64| {
        let bytes = Sixteen::new(bytes);
        bytes.within(b'0', 9) | bytes.lower().within(b'a', 5) == there
    };
    let (wholes, _) = text.as_chunks::<16>();
    let rest = match text.last_chunk::<16>() {
        Some(last) => are(*last, WHOLE),
        None => are(short(text).to_le_bytes(), below(text.len())),
    };
    rest && wholes.iter().all(|whole| are(*whole, WHOLE))
}

/// Fewer than sixteen bytes, with nothing behind them.
#[inline]
fn short(bytes: &[u8]) -> u128 {
    // The last ones lie over some of the first.
    let behind = |length: usize| bytes.len().saturating_sub(length) * 8;
    if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        return u128::from(u64::from_le_bytes(*first)) | u128::from(u64::from_le_bytes(*last)) << behind(8);
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let four = |bytes: &[u8; 4]| u64::from(u32::from_le_bytes(*bytes));
        return u128::from(four(first) | four(last) << behind(4));
    }
    bytes.iter().rev().fold(0, |all, byte| all << 8 | u128::from(*byte))
}

/// Sixteen bytes at once.
#[derive(Debug, Clone, Copy)]
struct Sixteen(u8x16);

impl Sixteen {
    #[inline]
    fn new(bytes: [u8; 16]) -> Self {
        Self(u8x16::new(bytes))
    }

    /// Which are `byte`.
    #[inline]
    fn are(self, byte: u8) -> u64 {
        self.0.simd_eq(u8x16::splat(byte)).to_bitmask().into()
    }

    /// Which are `first` or one of the `more` behind it.
    #[inline]
    fn within(self, first: u8, more: u8) -> u64 {
        let from = self.0 - u8x16::splat(first);
        from.min(u8x16::splat(more)).simd_eq(from).to_bitmask().into()
    }

    /// With small letters for large ones.
    #[inline]
    fn lower(self) -> Self {
        Self(self.0 | u8x16::splat(0x20))
    }
}

/// Whether at least `1 << DOUBLINGS` bits stand beside each other.
pub(super) fn has_run<const DOUBLINGS: u32>(bits: u64) -> bool {
    (0..DOUBLINGS).fold(bits, |bits, doubling| bits & bits >> (1 << doubling)) != 0
}

/// How many bits stand beside each other right below `place`.
pub(super) fn ones_below(bits: u64, place: u32) -> u32 {
    bits.checked_shl(u64::BITS - place).map_or(0, u64::leading_ones)
}

/// How many bits stand beside each other from `place` on.
pub(super) fn ones_from(bits: u64, place: u32) -> u32 {
    (bits >> place).trailing_ones()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_say_what_bytes_are() {
        let all: Vec<u8> = (0..=255).collect();
        let digit = |byte: u8| byte.is_ascii_digit();
        let word = |byte: u8| byte.is_ascii_alphanumeric();
        let part = |byte: u8| word(byte) || b"+-/_".contains(&byte);
        for length in 0..=80 {
            for start in 0..=176 {
                let block = &all[start..start + length];
                let bits = Bits::of(block);
                let expected = |is: &dyn Fn(u8) -> bool| {
                    let each = block.iter().take(BLOCK).enumerate();
                    each.fold(0, |all, (place, byte)| all | u64::from(is(*byte)) << place)
                };
                assert_eq!(bits.digits, expected(&digit));
                assert_eq!(bits.words, expected(&word));
                assert_eq!(bits.parts, expected(&part));
                assert_eq!(bits.gaps, expected(&|byte| b" ).-/".contains(&byte)));
                assert_eq!(bits.signs, expected(&|byte| b"@=(\\".contains(&byte)));
                let each =
                    [(bits.spaces, b' '), (bits.dots, b'.'), (bits.colons, b':'), (bits.slashes, b'/')];
                for (bits, byte) in each.into_iter().chain([(bits.pluses, b'+')]) {
                    assert_eq!(bits, expected(&|other| other == byte), "{start} {length} {byte}");
                }
                assert_eq!(bits.before(length / 2), Bits::of(&block[..(length / 2).min(BLOCK)]));
            }
        }
    }

    #[test]
    fn hexadecimal_is_told() {
        for length in 0..50 {
            let text = "0123456789abcdefABCDEF".repeat(3).into_bytes()[..length].to_vec();
            assert!(is_hex(&text), "{length}");
            for place in 0..length {
                for byte in *b"/:@G`g\xc1" {
                    let mut text = text.clone();
                    text[place] = byte;
                    assert!(!is_hex(&text), "{length} {place}");
                }
            }
        }
    }

    #[test]
    fn runs_of_bits_are_told() {
        assert!(has_run::<4>(0xffff << 48) && !has_run::<4>(0x7fff << 20) && !has_run::<4>(0));
        assert_eq!([ones_below(0b110, 3), ones_below(0b110, 0), ones_below(u64::MAX, 64)], [2, 0, 64]);
        assert_eq!([ones_from(0b110, 1), ones_from(u64::MAX, 0), ones_from(u64::MAX, 63)], [2, 64, 1]);
    }
}
