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
    is_issued(digits) && luhn(digits)
}

/// Whether issuers give out numbers that begin so and are as long.
pub(super) fn is_issued(digits: &[u8]) -> bool {
    let head =
        |length: usize| digits.iter().take(length).fold(0_u32, |sum, digit| sum * 10 + u32::from(*digit));
    let lengths: &[usize] = match (head(1), head(2), head(3), head(4)) {
        (4, ..) => &[13, 16, 19],
        (_, 51..=55, ..) | (_, _, _, 2221..=2720) | (_, _, _, 2200..=2204 | 9792) => &[16],
        (_, 34 | 37, ..) | (_, _, _, 1800 | 2131) => &[15],
        (_, _, 300..=305, _) | (_, 36 | 38 | 39, ..) => &[14],
        (_, _, _, 3528..=3589) => &[16],
        (_, _, _, 6011) | (_, 60 | 65 | 81, ..) | (_, _, 508 | 644..=649, _) => &[16],
        (_, 62, ..) => &[16, 17, 18, 19],
        (_, _, _, 5018 | 5020 | 5038 | 5893 | 6304 | 6390 | 6759 | 6761..=6763) => {
            &[12, 13, 14, 15, 16, 17, 18, 19]
        }
        (_, 56..=58, ..) => &[12, 13, 16, 19],
        _ => &[],
    };
    lengths.contains(&digits.len())
}

/// The check digit of barcodes of thirteen digits.
pub(super) fn ean13(digits: &[u8]) -> bool {
    let each = digits.iter().enumerate();
    let sum: u32 = each.map(|(place, digit)| u32::from(*digit) * if place % 2 == 0 { 1 } else { 3 }).sum();
    digits.len() == 13 && sum.is_multiple_of(10)
}

/// A number of the United States' social security, by what is never given out.
pub(super) fn us_ssn(area: u32, group: u32, serial: u32) -> bool {
    !matches!(area, 0 | 666 | 900..) && group != 0 && serial != 0
}

/// How long account numbers are, by country: the registry of ISO 13616.
fn iban_length(country: [u8; 2]) -> Option<usize> {
    Some(match &country {
        b"NO" => 15,
        b"BE" => 16,
        b"DK" | b"FK" | b"FI" | b"FO" | b"GL" | b"NL" | b"SD" => 18,
        b"MK" | b"SI" => 19,
        b"AT" | b"BA" | b"EE" | b"KZ" | b"LT" | b"LU" | b"MN" | b"XK" => 20,
        b"CH" | b"CR" | b"HR" | b"LI" | b"LV" => 21,
        b"BG" | b"BH" | b"DE" | b"GB" | b"GE" | b"IE" | b"ME" | b"RS" | b"VA" => 22,
        b"AE" | b"GI" | b"IL" | b"IQ" | b"OM" | b"SO" | b"TL" => 23,
        b"AD" | b"CZ" | b"ES" | b"MD" | b"PK" | b"RO" | b"SA" | b"SE" | b"SK" | b"TN" | b"VG" => 24,
        b"LY" | b"PT" | b"ST" => 25,
        b"IS" | b"TR" => 26,
        b"BI" | b"DJ" | b"FR" | b"GR" | b"IT" | b"MC" | b"MR" | b"SM" => 27,
        b"AL" | b"AZ" | b"BY" | b"CY" | b"DO" | b"GT" | b"HN" | b"HU" | b"LB" | b"NI" | b"PL" | b"SV" => 28,
        b"BR" | b"EG" | b"PS" | b"QA" | b"UA" => 29,
        b"JO" | b"KW" | b"MU" | b"YE" => 30,
        b"MT" | b"SC" => 31,
        b"LC" => 32,
        b"RU" => 33,
        _ => return None,
    })
}

/// The account number of ISO 13616 whose check digits begin at `digits`; where it stands. A blank or dash may stand
/// behind every fourth of its letters.
pub(super) fn iban_at(text: &[u8], digits: usize) -> Option<std::ops::Range<usize>> {
    let start = digits.checked_sub(2)?;
    let [a, b] = *text.get(start..digits)? else { return None };
    let length = iban_length([a, b].map(|letter| letter.to_ascii_uppercase()))?;
    let mut plain = Vec::with_capacity(length);
    let mut end = start;
    while plain.len() < length {
        match text.get(end)? {
            byte if byte.is_ascii_alphanumeric() => plain.push(byte.to_ascii_uppercase()),
            b' ' | b'-' if plain.len().is_multiple_of(4) => {}
            _ => return None,
        }
        end += 1;
    }
    (super::stands_alone(text, &(start..end)) && iban(&plain)).then_some(start..end)
}

/// The check digits, modulo 97.
fn iban(plain: &[u8]) -> bool {
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
        for good in ["DE89370400440532013000", "GB82 WEST 1234 5698 7654 32", "de89-3704-0044-0532-0130-00"] {
            assert_eq!(iban_at(good.as_bytes(), 2), Some(0..good.len()), "{good}");
        }
        for bad in ["DE89370400440532013001", "DE89", "DE893704004405320130001", "XX89370400440532013000"] {
            assert_eq!(iban_at(bad.as_bytes(), 2), None, "{bad}");
        }
    }

    #[test]
    fn barcodes_have_a_check_digit_of_their_own() {
        assert!(ean13(&digits("4006381333931")) && !ean13(&digits("4006381333932")));
    }

    #[test]
    fn what_is_never_given_out_is_no_ssn() {
        assert!(us_ssn(123, 45, 6789));
        assert!(!us_ssn(0, 45, 6789) && !us_ssn(666, 45, 6789) && !us_ssn(900, 1, 1) && !us_ssn(123, 0, 1));
    }
}
