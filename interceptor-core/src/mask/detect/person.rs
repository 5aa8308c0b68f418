//! Numbers that countries give to persons: by their groups, dates and check digits.
//!
//! A number without groups or letters is told from any other only where its checks leave less than one in a thousand, or
//! a word beside it says what it is.

use std::ops::Range;

use super::{check, context::Country, numbers::Number, stands_alone};

/// Whether checks of numbers of so many digits leave so little that nothing else need tell what they are.
pub(super) fn is_strong(digits: usize) -> bool {
    matches!(digits, 15 | 18)
}

/// Whether it is one. `says` tells whether a word beside it names a country's.
pub(super) fn number(number: &Number<'_>, says: impl Fn(Country) -> bool) -> bool {
    let digits = number.digits();
    let digits = &*digits;
    let bare = number.has_lengths(&[digits.len()]);
    let parted = |lengths: &[usize], signs: &[u8]| number.has_lengths(lengths) && number.is_parted_by(signs);
    let told = |country| bare && says(country);
    match digits.len() {
        9 => {
            (parted(&[3, 3, 3], b" -") && check::luhn(digits) && digits.first() != Some(&8))
                || (told(Country::Canada) && check::luhn(digits))
                || ((told(Country::Australia) || (parted(&[3, 3, 3], b" ") && says(Country::Australia)))
                    && weighted(digits, &[1, 4, 3, 7, 5, 8, 6, 9, 10], 11))
                || (told(Country::Netherlands) && dutch(digits))
        }
        10 => {
            ((parted(&[6, 4], b"-+") || told(Country::Sweden)) && birth(digits) && check::luhn(digits))
                || (parted(&[4, 5, 1], b" ") && australian_medicare(digits))
                || ((bare || parted(&[3, 3, 4], b" -")) && says(Country::Britain) && british_health(digits))
        }
        11 => {
            (told(Country::Poland) && polish(digits))
                || (told(Country::Turkey) && turkish(digits))
                || ((parted(&[2, 3, 3, 3], b" ") || told(Country::Germany)) && german(digits))
                || ((brazilian_groups(number) || told(Country::Brazil)) && brazilian(digits))
                || (belgian_groups(number) && belgian(digits))
                || ((parted(&[6, 5], b" ") || told(Country::Norway)) && norwegian(digits))
        }
        12 => {
            (parted(&[4, 4, 4], b" -") && !matches!(digits.first(), Some(0 | 1)) && verhoeff(digits))
                || (parted(&[8, 4], b"-")
                    && digits.get(2..).is_some_and(|ten| birth(ten) && check::luhn(ten)))
        }
        13 => {
            ((told(Country::SouthAfrica) || parted(&[6, 4, 2, 1], b" ")) && south_african(digits))
                || (parted(&[6, 7], b"-") && korean(digits))
                || ((parted(&[1, 4, 5, 2, 1], b"- ") || told(Country::Thailand)) && thai(digits))
                || (parted(&[3, 4, 4, 2], b".") && digits.starts_with(&[7, 5, 6]) && check::ean13(digits))
        }
        15 => (bare || parted(&[1, 2, 2, 2, 3, 3, 2], b" ")) && french(digits),
        18 => bare && chinese(digits, None),
        _ => false,
    }
}

/// Whether a word of so many letters and digits may be a number with letters, or the beginning of one.
pub(super) fn has_length(word: usize) -> bool {
    matches!(word, 6 | 9 | 11 | 16 | 18)
}

/// A value with letters that begins at `start`, and its digits at `digits`; where it stands.
pub(super) fn worded(text: &[u8], start: usize, digits: usize) -> Option<Range<usize>> {
    let is_part = |byte: &&u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
    let end = text.len().min(start + 19);
    let length = text.get(start..end)?.iter().take_while(is_part).count();
    let value = text.get(start..start + length)?;
    let fits = match (digits - start, length) {
        (0, 9) => spanish(value, 0),
        (0, 18) => {
            let digits = value.strip_suffix(b"X").filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
            let digits: Vec<u8> = digits.iter().map(|byte| byte - b'0').collect();
            chinese(&digits, Some(10))
        }
        (0, 6 | 11) => return finnish_at(text, start),
        (1, 9) => singaporean(value) || spanish(value.get(1..)?, u32::from(*value.first()?)),
        (2, 9) => british_insurance(value),
        (6, 16) => italian(value),
        _ => false,
    };
    let range = start..start + length;
    (fits && stands_alone(text, &range)).then_some(range)
}

/// The sign of the century, and then the rest, stand behind the date.
fn finnish_at(text: &[u8], start: usize) -> Option<Range<usize>> {
    let range = start..start + 11;
    let value = text.get(range.clone())?;
    let sign = value.get(6)?;
    let fits = matches!(sign, b'-' | b'+' | b'A'..=b'F' | b'U'..=b'Y') && finnish(value);
    (fits && stands_alone(text, &range)).then_some(range)
}

/// Whether the remainder of the weighted sum is nothing.
fn weighted(digits: &[u8], weights: &[u32], modulo: u32) -> bool {
    digits.len() == weights.len() && sum(digits, weights).is_multiple_of(modulo)
}

fn sum(digits: &[u8], weights: &[u32]) -> u32 {
    digits.iter().zip(weights).map(|(digit, weight)| u32::from(*digit) * weight).sum()
}

fn pair(digits: &[u8], at: usize) -> u32 {
    digits.iter().skip(at).take(2).fold(0, |sum, digit| sum * 10 + u32::from(*digit))
}

fn whole(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(*digit))
}

/// Whether it begins with a date: year, month, day of two digits each.
fn birth(digits: &[u8]) -> bool {
    (1..=12).contains(&pair(digits, 2)) && (1..=31).contains(&pair(digits, 4))
}

fn dutch(digits: &[u8]) -> bool {
    let (eight, last) = (sum(digits, &[9, 8, 7, 6, 5, 4, 3, 2]), digits.get(8).copied().unwrap_or(0));
    (eight + 110 - u32::from(last)).is_multiple_of(11)
}

fn australian_medicare(digits: &[u8]) -> bool {
    let check = digits.get(8).copied().map(u32::from);
    matches!(digits.first(), Some(2..=6)) && Some(sum(digits, &[1, 3, 7, 9, 1, 3, 7, 9]) % 10) == check
}

fn british_health(digits: &[u8]) -> bool {
    let check = (11 - sum(digits, &[10, 9, 8, 7, 6, 5, 4, 3, 2]) % 11) % 11;
    digits.get(9).copied().map(u32::from) == Some(check)
}

fn polish(digits: &[u8]) -> bool {
    // The century is told by what is added to the month.
    let month = pair(digits, 2) % 20;
    (1..=12).contains(&month)
        && (1..=31).contains(&pair(digits, 4))
        && weighted(digits, &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1], 10)
}

fn turkish(digits: &[u8]) -> bool {
    let odd: u32 = digits.iter().take(9).step_by(2).map(|digit| u32::from(*digit)).sum();
    let even: u32 = digits.iter().take(8).skip(1).step_by(2).map(|digit| u32::from(*digit)).sum();
    let ten: u32 = digits.iter().take(10).map(|digit| u32::from(*digit)).sum();
    let at = |place: usize| digits.get(place).copied().map(u32::from);
    at(0) != Some(0) && at(9) == Some((odd * 7 + 100 - even) % 10) && at(10) == Some(ten % 10)
}

/// ISO 7064, modulo 11 and 10.
fn german(digits: &[u8]) -> bool {
    let product = digits.iter().take(10).fold(10_u32, |product, digit| {
        let rest = (u32::from(*digit) + product) % 10;
        (if rest == 0 { 10 } else { rest }) * 2 % 11
    });
    let check = (11 - product) % 10;
    digits.first() != Some(&0) && digits.get(10).copied().map(u32::from) == Some(check)
}

fn brazilian_groups(number: &Number<'_>) -> bool {
    let range = number.range();
    number.has_lengths(&[3, 3, 3, 2]) && number.text.get(range.end - 3) == Some(&b'-')
}

fn brazilian(digits: &[u8]) -> bool {
    let check = |length: u32| {
        let weights: Vec<u32> = (2..=length + 1).rev().collect();
        sum(digits, &weights) * 10 % 11 % 10
    };
    let at = |place: usize| digits.get(place).copied().map(u32::from);
    let all_alike = digits.windows(2).all(|two| two.first() == two.last());
    !all_alike && at(9) == Some(check(9)) && at(10) == Some(check(10))
}

fn belgian_groups(number: &Number<'_>) -> bool {
    number.has_lengths(&[2, 2, 2, 3, 2])
}

fn belgian(digits: &[u8]) -> bool {
    let nine = whole(digits.get(..9).unwrap_or_default());
    let check = u64::from(pair(digits, 9));
    // Since 2000 a 2 stands before it.
    birth(digits) && [nine, nine + 2_000_000_000].iter().any(|number| 97 - number % 97 == check)
}

fn norwegian(digits: &[u8]) -> bool {
    (1..=31).contains(&pair(digits, 0))
        && (1..=12).contains(&pair(digits, 2))
        && weighted(digits.get(..10).unwrap_or_default(), &[3, 7, 6, 1, 8, 9, 4, 5, 2, 1], 11)
        && weighted(digits, &[5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1], 11)
}

/// The check digit of Verhoeff, by the group of the pentagon's symmetries.
fn verhoeff(digits: &[u8]) -> bool {
    let times = |a: u8, b: u8| match (a < 5, b < 5) {
        (true, true) => (a + b) % 5,
        (true, false) => (a + b) % 5 + 5,
        (false, true) => (a + 5 - b) % 5 + 5,
        (false, false) => (a + 5 - b) % 5,
    };
    const TURN: [u8; 10] = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4];
    let turned = |digit: u8, times: usize| {
        (0..times).fold(digit, |digit, _| TURN.get(usize::from(digit)).copied().unwrap_or(0))
    };
    let all = digits.iter().rev().enumerate();
    all.fold(0, |sum, (place, digit)| times(sum, turned(*digit, place % 8))) == 0
}

fn south_african(digits: &[u8]) -> bool {
    birth(digits)
        && matches!(digits.get(10), Some(0..=2))
        && matches!(digits.get(11), Some(8 | 9))
        && check::luhn(digits)
}

/// Since 2020 its last digit is no check any more.
fn korean(digits: &[u8]) -> bool {
    birth(digits) && matches!(digits.get(6), Some(1..=8))
}

fn thai(digits: &[u8]) -> bool {
    let check = (11 - sum(digits, &[13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2]) % 11) % 10;
    digits.first() != Some(&0) && digits.get(12).copied().map(u32::from) == Some(check)
}

fn french(digits: &[u8]) -> bool {
    let number = whole(digits.get(..13).unwrap_or_default());
    matches!(digits.first(), Some(1 | 2))
        && (1..=12).contains(&pair(digits, 3))
        && 97 - number % 97 == u64::from(pair(digits, 13))
}

/// `last` is the value of the last place where that is a letter.
fn chinese(digits: &[u8], last: Option<u32>) -> bool {
    let seventeen = || sum(digits, &[7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2]);
    let last = last.or_else(|| digits.get(17).copied().map(u32::from));
    matches!(pair(digits, 6), 19 | 20)
        && digits.get(8..).is_some_and(birth)
        && last.is_some_and(|last| (seventeen() + last) % 11 == 1)
}

/// `value` is eight digits and a letter, or seven after a letter.
fn spanish(value: &[u8], letter: u32) -> bool {
    const LETTERS: &[u8; 23] = b"TRWAGMYFPDXBNJZSQVHLCKE";
    let lead = match letter {
        0 => 0,
        // X, Y, Z.
        88..=90 => letter - 88,
        _ => return false,
    };
    let Some((last, digits)) = value.split_last() else { return false };
    if !digits.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let number = digits.iter().fold(lead, |sum, byte| sum * 10 + u32::from(byte - b'0'));
    LETTERS.get(number as usize % 23) == Some(last)
}

fn singaporean(value: &[u8]) -> bool {
    let (Some(first), Some(last), Some(digits)) = (value.first(), value.last(), value.get(1..8)) else {
        return false;
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let digits: Vec<u8> = digits.iter().map(|byte| byte - b'0').collect();
    let plain = sum(&digits, &[2, 7, 6, 5, 4, 3, 2]) as usize;
    let (letters, add): (&[u8; 11], usize) = match first {
        b'S' => (b"JZIHGFEDCBA", 0),
        b'T' => (b"JZIHGFEDCBA", 4),
        b'F' => (b"XWUTRQPNMLK", 0),
        b'G' => (b"XWUTRQPNMLK", 4),
        _ => return false,
    };
    letters.get((plain + add) % 11) == Some(last)
}

fn british_insurance(value: &[u8]) -> bool {
    let [a, b, digits @ .., suffix] = value else { return false };
    let never = [*b"BG", *b"GB", *b"KN", *b"NK", *b"NT", *b"TN", *b"ZZ"];
    !b"DFIQUV".contains(a)
        && !b"DFIOQUV".contains(b)
        && !never.contains(&[*a, *b])
        && digits.iter().all(u8::is_ascii_digit)
        && matches!(suffix, b'A'..=b'D')
}

fn italian(value: &[u8]) -> bool {
    /// What letters and digits are worth at odd places.
    const ODD: [u32; 26] =
        [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23];
    let worth = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'Z' => Some(byte - b'A'),
        _ => None,
    };
    let Some((last, rest)) = value.split_last() else { return false };
    let sum = rest.iter().enumerate().try_fold(0_u32, |sum, (place, byte)| {
        let worth = worth(*byte)?;
        let even = place % 2 == 1;
        Some(sum + if even { u32::from(worth) } else { *ODD.get(usize::from(worth))? })
    });
    let form = b"AAAAAA00A00A000A";
    let fits = value.iter().zip(form).all(|(byte, form)| byte.is_ascii_digit() == form.is_ascii_digit());
    fits && sum.is_some_and(|sum| u32::from(*last) == u32::from(b'A') + sum % 26)
}

fn finnish(value: &[u8]) -> bool {
    const LETTERS: &[u8; 31] = b"0123456789ABCDEFHJKLMNPRSTUVWXY";
    let digits: Vec<u8> = value
        .iter()
        .enumerate()
        .filter(|(place, _)| !matches!(place, 6 | 10))
        .map(|(_, byte)| byte.wrapping_sub(b'0'))
        .collect();
    if digits.iter().any(|digit| *digit > 9) {
        return false;
    }
    (1..=31).contains(&pair(&digits, 0))
        && (1..=12).contains(&pair(&digits, 2))
        && LETTERS.get(usize::try_from(whole(&digits) % 31).unwrap_or(31)) == value.get(10)
}
