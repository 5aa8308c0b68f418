//! The sieve before the detectors: most cells of a table are short, and their bytes taken as bits tell at once that nothing
//! is in them.
//!
//! Promise: where it says that a text is clean no detector finds anything in it. Nothing else is asked of it: what it does
//! not let through, clean or not, is looked at as ever.

use std::cell::OnceCell;

use super::{
    bits::{BLOCK, Bits, below, has_run, is_hex, ones_below, ones_from},
    check,
    encoded::{self, UUID, uuid_at},
    numbers,
};

/// The shortest account number.
const SHORTEST_ACCOUNT: u32 = 15;
/// How long a Finnish number of a person is.
const FINNISH: usize = 11;
/// The fewest digits in which a number is looked for, where nothing else stands.
const BARE: u32 = 12;

/// Whether nothing can be found in `text`. `is_anchored` tells whether an anchor stands in it.
#[inline]
pub(super) fn is_clean(text: &[u8], is_anchored: impl Fn() -> bool) -> bool {
    if text.len() <= BLOCK {
        let bits = Bits::of(text);
        return Sieve { text, bits, is_piece: false }.is_clean(is_anchored);
    }
    // The whole text is looked at for anchors, but once.
    let anchored = OnceCell::new();
    let is_anchored = || *anchored.get_or_init(&is_anchored);
    // Colons and slashes let anchors count wherever they stand, in one piece or in several.
    let (mut colons, mut slashes) = (0, 0);
    let mut rest = text;
    loop {
        let bits = Bits::of(rest);
        let end = match rest.len() {
            ..=BLOCK => rest.len(),
            _ => match cut(&bits) {
                0 => return false,
                end => end,
            },
        };
        let Some((piece, behind)) = rest.split_at_checked(end) else { return false };
        let bits = bits.before(end);
        if !(Sieve { text: piece, bits, is_piece: true }).is_clean(is_anchored) {
            return false;
        }
        colons += bits.colons.count_ones();
        slashes += bits.slashes.count_ones();
        if behind.is_empty() {
            return colons == 0 || slashes < 2 || !is_anchored();
        }
        rest = behind;
    }
}

/// Where a longer text may be cut, of which that is the first block: no value goes on beyond. 0 where there is no place.
fn cut(bits: &Bits) -> usize {
    let plain = !bits.known();
    if plain > 1 {
        return (u64::BITS - 1 - plain.leading_zeros()) as usize;
    }
    // Behind a word of letters only account numbers go on, after four letters or twice as many.
    let letters = bits.letters();
    let mut spaces = bits.spaces & letters << 1;
    while spaces != 0 {
        let place = u64::BITS - 1 - spaces.leading_zeros();
        if !ones_below(bits.words, place).is_multiple_of(4) {
            return place as usize;
        }
        spaces &= !(1 << place);
    }
    0
}

/// A text of one block, or a piece of a longer one.
#[derive(Debug)]
struct Sieve<'a> {
    text: &'a [u8],
    bits: Bits,
    is_piece: bool,
}

impl Sieve<'_> {
    #[inline]
    fn is_clean(&self, is_anchored: impl Fn() -> bool) -> bool {
        let bits = &self.bits;
        if bits.signs != 0 || (bits.colons != 0 && self.may_be_address()) {
            return false;
        }
        let letters = bits.letters();
        let count = bits.digits.count_ones();
        let length = self.text.len();
        let long = has_run::<4>(bits.parts);
        if long {
            if length == UUID && !self.is_piece && uuid_at(self.text, 0) {
                return true;
            }
            let digest = length > numbers::WORD && bits.words == below(length) && is_hex(self.text);
            // What stands in other pieces may be known by an anchor only.
            let may_be_anchored = self.is_piece || (letters != 0 && !digest);
            if (may_be_anchored && is_anchored()) || encoded::may_be(self.text, bits.parts) {
                return false;
            }
            if digest {
                return true;
            }
        }
        let few = match count {
            0..2 => true,
            2..4 => !long && !self.is_piece,
            4..6 => !long && !self.is_piece && bits.dots.count_ones() < 3,
            _ => count < BARE && count as usize == length,
        };
        few || !self.may_be_number(self.is_piece || letters & letters >> 1 & letters >> 2 != 0)
    }

    /// Whether an address of a page, or one in hexadecimal groups, may stand in it.
    fn may_be_address(&self) -> bool {
        let doubled = self.bits.colons & self.bits.colons >> 1 != 0;
        doubled || self.bits.colons.count_ones() >= 6 || self.bits.slashes.count_ones() >= 2
    }

    /// Whether a number, or a value with digits and letters, may stand in it. `lettered`: there may be words that say what
    /// a number is.
    fn may_be_number(&self, lettered: bool) -> bool {
        let mut run = Run::default();
        let mut left = self.bits.digits;
        while left != 0 {
            let digit = left.trailing_zeros();
            let before = ones_below(self.bits.words, digit);
            let start = digit - before;
            let end = digit + ones_from(self.bits.words, digit);
            left &= u64::MAX.checked_shl(end).unwrap_or(0);
            if self.may_be_worded(start, digit, end) {
                return true;
            }
            if before > 0 {
                continue;
            }
            let length = ones_from(self.bits.digits, digit);
            let gap = start - run.end.min(start);
            let joined = run.count > 0
                && (1..=3).contains(&gap)
                && (self.bits.gaps >> run.end) & below(gap as usize) == below(gap as usize);
            if !joined {
                if self.may_be_something(&run, lettered) {
                    return true;
                }
                run = Run::default();
            }
            if !run.add(start, length) {
                return true;
            }
        }
        self.may_be_something(&run, lettered)
    }

    /// Whether a value with letters may begin at `start`, in the word that ends at `end` and has its first digit at
    /// `digit`.
    fn may_be_worded(&self, start: u32, digit: u32, end: u32) -> bool {
        let length = end - start;
        // An account number may have blanks in it.
        if digit - start == 2 && (self.bits.words >> start).count_ones() >= SHORTEST_ACCOUNT {
            return true;
        }
        let dated = length == 6 && self.text.len() >= start as usize + FINNISH;
        if !dated && !matches!(length, 9 | 11 | 16 | 18) {
            return false;
        }
        let digits = (self.bits.digits >> start & below(length as usize)).count_ones();
        match (digit - start, length, digits) {
            (0, 6, _) => matches!(self.text.get(end as usize), Some(b'-' | b'+')),
            (0, 11, 9 | 10) | (0, 9, 8) | (1, 9, 7) | (2, 9, 6) | (6, 16, 7) | (0, 18, 17) => true,
            _ => false,
        }
    }

    /// Whether a number may begin with any of the run's groups.
    fn may_be_something(&self, run: &Run, lettered: bool) -> bool {
        if run.digits < 6 && run.count < 4 {
            return false;
        }
        if run.count == 2 && self.is_decimal(run) {
            return false;
        }
        let mut first = 0;
        while first < run.count {
            if run.length(first) == 4 && self.is_date(run, first) {
                first += 3;
                continue;
            }
            if self.may_begin(run, first, lettered) {
                return true;
            }
            first += 1;
        }
        false
    }

    /// Whether a number may begin with that group.
    fn may_begin(&self, run: &Run, first: usize, lettered: bool) -> bool {
        let start = run.start(first);
        let plus = self.bits.pluses != 0 && self.is_behind(start, b'+');
        let zero = self.text.get(start) == Some(&b'0');
        let (mut digits, mut shape, mut longest) = (0, 0, 0);
        for count in 1..=(run.count - first).min(numbers::GROUPS) {
            let length = run.length(first + count - 1);
            digits += length;
            shape |= (length as u64) << (8 * (count - 1));
            longest = longest.max(length);
            if digits > numbers::DIGITS {
                return false;
            }
            let may = match count {
                1 => (12..).contains(&digits) && (matches!(digits, 15 | 18) || self.is_issued(start, digits)),
                4 if longest <= 3 && self.bits.dots.count_ones() >= 3 => true,
                _ if digits >= 9 => {
                    zero || (run.length(first) == 4 && digits >= 12) || SHAPES.contains(&shape)
                }
                _ => false,
            };
            // A word may say of almost anything that it is a telephone number, and of some that they are something else.
            let told = || match (count, digits) {
                (1, 9..) => true,
                (1..=5, 6..=13) => (count > 1 || digits > 6) && !self.is_tied(start),
                _ => false,
            };
            if may || (plus && digits >= 8) || (lettered && told()) {
                return true;
            }
        }
        false
    }

    fn is_issued(&self, start: usize, length: usize) -> bool {
        let mut digits = [0; numbers::DIGITS];
        let written = self.text.get(start..start + length).unwrap_or_default();
        for (digit, byte) in digits.iter_mut().zip(written) {
            *digit = byte.wrapping_sub(b'0');
        }
        digits.get(..length).is_some_and(check::is_issued)
    }

    /// Whether it is a number with a fraction. What stands behind the end of a UUID is looked at by itself.
    fn is_decimal(&self, run: &Run) -> bool {
        let start = run.start(0);
        let end = start + run.length(0);
        run.start(1) == end + 1
            && self.bits.dots >> end & 1 == 1
            && !self.is_behind(start, b'+')
            && !self.is_tied(start)
    }

    /// Whether that sign stands right before `at`.
    fn is_behind(&self, at: usize, sign: u8) -> bool {
        at.checked_sub(1).and_then(|at| self.text.get(at)) == Some(&sign)
    }

    /// Whether a dash ties it to what stands before.
    fn is_tied(&self, at: usize) -> bool {
        let letter = at.checked_sub(2).and_then(|at| self.text.get(at));
        self.is_behind(at, b'-') && letter.is_some_and(u8::is_ascii_alphanumeric)
    }

    /// Whether three groups from `first` on are a date with its year before it, as most are written.
    fn is_date(&self, run: &Run, first: usize) -> bool {
        let two = |group: usize| {
            let start = run.start(group);
            let digits = self.text.get(start..start + 2).and_then(|two| two.first_chunk::<2>());
            digits.map_or(0, |[a, b]| a.wrapping_sub(b'0') * 10 + b.wrapping_sub(b'0'))
        };
        first + 3 <= run.count
            && (run.length(first + 1), run.length(first + 2)) == (2, 2)
            && (19..=21).contains(&two(first))
            && (1..=12).contains(&two(first + 1))
            && (1..=31).contains(&two(first + 2))
    }
}

/// Groups of digits with little between them.
#[derive(Debug, Default)]
struct Run {
    starts: [u8; KEPT],
    lengths: [u8; KEPT],
    count: usize,
    digits: usize,
    end: u32,
}

/// How many groups are kept: of a run of more, nothing is said.
const KEPT: usize = 8;

impl Run {
    /// False where there are too many.
    fn add(&mut self, start: u32, length: u32) -> bool {
        let (Some(place), Some(lengths)) =
            (self.starts.get_mut(self.count), self.lengths.get_mut(self.count))
        else {
            return false;
        };
        // Both are less than a block.
        (*place, *lengths) = (start as u8, length as u8);
        self.count += 1;
        self.digits += length as usize;
        self.end = start + length;
        true
    }

    fn start(&self, group: usize) -> usize {
        self.starts.get(group).copied().unwrap_or(0).into()
    }

    fn length(&self, group: usize) -> usize {
        self.lengths.get(group).copied().unwrap_or(0).into()
    }
}

/// The groups in which numbers are written that nothing else tells.
const SHAPES: [u64; 17] = [
    shape(&[3, 2, 4]),
    shape(&[3, 3, 4]),
    shape(&[1, 3, 3, 4]),
    shape(&[3, 3, 3]),
    shape(&[6, 4]),
    shape(&[4, 5, 1]),
    shape(&[2, 3, 3, 3]),
    shape(&[3, 3, 3, 2]),
    shape(&[2, 2, 2, 3, 2]),
    shape(&[6, 5]),
    shape(&[4, 4, 4]),
    shape(&[8, 4]),
    shape(&[6, 4, 2, 1]),
    shape(&[6, 7]),
    shape(&[1, 4, 5, 2, 1]),
    shape(&[3, 4, 4, 2]),
    shape(&[1, 2, 2, 2, 3, 3, 2]),
];

/// Lengths of groups in one number.
const fn shape(lengths: &[u8]) -> u64 {
    let mut shape = 0;
    let mut place = lengths.len();
    while place > 0 {
        place -= 1;
        shape = shape << 8 | lengths[place] as u64;
    }
    shape
}
