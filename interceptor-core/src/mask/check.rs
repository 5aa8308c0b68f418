//! Whether a run of digits or letters is what it looks like: checksums and ranges of the issuers.

/// ISO/IEC 7812-1, annex B.
pub(super) fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, u32::from(*digit)) {
            (0, digit) => digit,
            (_, digit) if digit > 4 => digit * 2 - 9,
            (_, digit) => digit * 2,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// A payment card's number: an issuer's range and length, and the check digit.
pub(super) fn card(digits: &[u8]) -> bool {
    let head =
        |length: usize| digits.iter().take(length).fold(0_u32, |sum, digit| sum * 10 + u32::from(*digit));
    let lengths: &[usize] = match (head(1), head(2), head(3), head(4)) {
        (4, ..) => &[13, 16, 19],
        (_, 51..=55, ..) | (_, _, _, 2221..=2720) => &[16],
        (_, 34 | 37, ..) => &[15],
        (_, _, 300..=305, _) | (_, 36 | 38 | 39, ..) => &[14],
        (_, _, _, 6011) | (_, 65, ..) | (_, _, 644..=649, _) | (_, _, _, 3528..=3589) => &[16],
        (_, 62, ..) => &[16, 17, 18, 19],
        (_, 50 | 56..=58, ..) | (6, ..) => &[12, 13, 14, 15, 16, 17, 18, 19],
        _ => &[],
    };
    lengths.contains(&digits.len()) && luhn(digits)
}

/// A number of the United States' social security, by what is never given out.
pub(super) fn us_ssn(area: u32, group: u32, serial: u32) -> bool {
    !matches!(area, 0 | 666 | 900..) && group != 0 && serial != 0
}

/// ISO 13616: the check digits, modulo 97. Blanks are passed over.
pub(super) fn iban(text: &[u8]) -> bool {
    let plain: Vec<u8> = text.iter().copied().filter(|byte| *byte != b' ').collect();
    if !(15..=34).contains(&plain.len()) {
        return false;
    }
    let mut turned = plain.iter().skip(4).chain(plain.iter().take(4));
    let rest = turned.try_fold(0_u32, |rest, byte| match byte {
        b'0'..=b'9' => Some((rest * 10 + u32::from(byte - b'0')) % 97),
        b'A'..=b'Z' => Some((rest * 100 + u32::from(byte - b'A') + 10) % 97),
        _ => None,
    });
    rest == Some(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits(text: &str) -> Vec<u8> {
        text.bytes().map(|byte| byte - b'0').collect()
    }

    #[test]
    fn cards_have_a_range_a_length_and_a_check_digit() {
        for good in
            ["4111111111111111", "5555555555554444", "378282246310005", "6011111111111117", "30569309025904"]
        {
            assert!(card(&digits(good)), "{good}");
        }
        for bad in ["4111111111111112", "1111111111111117", "411111111111111", "9999999999999995"] {
            assert!(!card(&digits(bad)), "{bad}");
        }
    }

    #[test]
    fn ibans_are_checked() {
        assert!(iban(b"DE89370400440532013000") && iban(b"GB82 WEST 1234 5698 7654 32"));
        assert!(!iban(b"DE89370400440532013001") && !iban(b"DE89"));
    }

    #[test]
    fn what_is_never_given_out_is_no_ssn() {
        assert!(us_ssn(123, 45, 6789));
        assert!(!us_ssn(0, 45, 6789) && !us_ssn(666, 45, 6789) && !us_ssn(900, 1, 1) && !us_ssn(123, 0, 1));
    }
}
