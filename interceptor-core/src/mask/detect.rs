//! Values that tell by themselves what they are, wherever they stand.
//!
//! Promise: time is linear in the text. One automaton finds what has letters, one runs of digits; what they find is
//! checked (`check.rs`) before it is a hit. One level of base64 and of hexadecimal is looked into.

use std::ops::Range;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use regex_automata::meta::Regex;

use super::check;

/// What can be detected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Detector {
    /// Payment cards: issuers' ranges, and the check digit of ISO/IEC 7812.
    Card,
    /// E-mail addresses.
    Email,
    /// Telephone numbers: international with `+`, and of North America where they are written in groups.
    Phone,
    /// International bank account numbers: ISO 13616.
    Iban,
    /// Social security numbers of the United States, written in groups.
    UsSsn,
    /// IPv4 and IPv6 addresses.
    Ip,
    /// JSON web tokens.
    Jwt,
    /// Access key ids of AWS.
    AwsKey,
    /// Tokens of well-known services, by their prefixes.
    ApiToken,
    /// Private keys in PEM.
    PrivateKey,
    /// URLs with a password in them.
    UrlPassword,
}

impl Detector {
    /// The words of `labels.toml`.
    pub const WORDS: [(&str, Self); 11] = [
        ("card", Self::Card),
        ("email", Self::Email),
        ("phone", Self::Phone),
        ("iban", Self::Iban),
        ("us_ssn", Self::UsSsn),
        ("ip", Self::Ip),
        ("jwt", Self::Jwt),
        ("aws_key", Self::AwsKey),
        ("api_token", Self::ApiToken),
        ("private_key", Self::PrivateKey),
        ("url_password", Self::UrlPassword),
    ];

    /// What it looks like where it has letters.
    fn pattern(self) -> Option<&'static str> {
        Some(match self {
            Self::Card | Self::Phone | Self::UsSsn => return None,
            Self::Email => r"[A-Za-z0-9.!#$%&'*+/=?^_~-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}",
            Self::Iban => r"[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?",
            Self::Ip => r"(?:[0-9A-Fa-f]{0,4}:){2,8}[0-9A-Fa-f.]{0,15}",
            Self::Jwt => r"eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]*",
            Self::AwsKey => r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}",
            Self::ApiToken => {
                r"(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255}|glpat-[A-Za-z0-9_-]{20,}|xox[abeoprs]-[A-Za-z0-9-]{10,}|[sr]k_(?:live|test)_[A-Za-z0-9]{16,}|AIza[A-Za-z0-9_-]{35}|sk-ant-[A-Za-z0-9_-]{20,}|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{40,})"
            }
            Self::PrivateKey => {
                r"(?s)-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\z)"
            }
            Self::UrlPassword => r"[A-Za-z][A-Za-z0-9+.-]{1,30}://[^\s:/@]*:[^\s@]+@[^\s]*",
        })
    }

    /// Whether what fits the pattern is what it looks like. `alone` says that neither a letter nor a digit stands right
    /// before or behind it. What may fail here fits in a bounded number of bytes, so that time stays linear.
    fn holds(self, text: &[u8], alone: bool) -> bool {
        match self {
            Self::Iban | Self::Ip | Self::AwsKey if !alone => false,
            Self::Iban => check::iban(text),
            Self::Ip => std::str::from_utf8(text)
                .is_ok_and(|text| text.len() > 2 && text.parse::<std::net::Ipv6Addr>().is_ok()),
            _ => true,
        }
    }
}

/// A value that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Where, in bytes.
    pub range: Range<usize>,
    /// What it is.
    pub detector: Detector,
}

/// Several detectors that look at once.
#[derive(Debug, Clone)]
pub struct Detectors {
    worded: Vec<Detector>,
    words: Option<Regex>,
    digits: Option<Regex>,
    numbers: Vec<Detector>,
}

/// Runs of digits in groups.
const DIGITS: &str = r"[0-9][0-9 ().-]{5,}[0-9]";
/// How many groups of digits one value has at most.
const GROUPS: usize = 7;
/// The shortest run that is looked into for an encoded value.
const ENCODED: usize = 16;
const BASE64: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, BASE64);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, BASE64);

impl Detectors {
    /// Those that find nothing.
    pub fn none() -> Self {
        Self { worded: Vec::new(), words: None, digits: None, numbers: Vec::new() }
    }

    /// Makes these ready. An error is a bug of ours in a pattern.
    pub fn new(detectors: &[Detector]) -> Result<Self, String> {
        let wrong = |error: regex_automata::meta::BuildError| error.to_string();
        let worded: Vec<Detector> =
            detectors.iter().copied().filter(|detector| detector.pattern().is_some()).collect();
        let patterns: Vec<&str> = worded.iter().filter_map(|detector| detector.pattern()).collect();
        let build = |patterns: &[&str]| {
            Regex::builder()
                .syntax(regex_automata::util::syntax::Config::new().unicode(false).utf8(false))
                .configure(Regex::config().utf8_empty(false))
                .build_many(patterns)
                .map_err(wrong)
        };
        let words = if patterns.is_empty() { None } else { Some(build(&patterns)?) };
        let is_number = |detector: &Detector| {
            matches!(detector, Detector::Card | Detector::Phone | Detector::UsSsn | Detector::Ip)
        };
        let numbers: Vec<Detector> = detectors.iter().copied().filter(is_number).collect();
        let digits = if numbers.is_empty() { None } else { Some(build(&[DIGITS])?) };
        Ok(Self { worded, words, digits, numbers })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.words.is_none() && self.digits.is_none()
    }

    /// What is found in `text`, in order. What overlaps is told apart no further.
    pub fn find(&self, text: &[u8]) -> Vec<Hit> {
        let mut hits = self.plain(text);
        if text.len() >= ENCODED {
            self.encoded(text, &mut hits);
        }
        hits.sort_by_key(|hit| (hit.range.start, hit.range.end));
        let mut merged: Vec<Hit> = Vec::with_capacity(hits.len());
        for hit in hits {
            match merged.last_mut() {
                Some(last) if hit.range.start < last.range.end => {
                    last.range.end = last.range.end.max(hit.range.end);
                }
                _ => merged.push(hit),
            }
        }
        merged
    }

    fn plain(&self, text: &[u8]) -> Vec<Hit> {
        let mut hits = Vec::new();
        if let Some(words) = &self.words {
            let mut at = 0;
            while let Some(found) = words.find(regex_automata::Input::new(text).range(at..)) {
                let detector = self.worded.get(found.pattern().as_usize()).copied();
                let value = text.get(found.range()).unwrap_or_default();
                match detector {
                    Some(detector) if detector.holds(value, stands_alone(text, &found.range())) => {
                        hits.push(Hit { range: found.range(), detector });
                        at = found.end().max(at + 1);
                    }
                    _ => at = found.start() + 1,
                }
                if at > text.len() {
                    break;
                }
            }
        }
        if let Some(digits) = &self.digits {
            for found in digits.find_iter(text) {
                self.groups(text, found.range(), &mut hits);
            }
        }
        hits
    }

    /// Looks at every few neighbouring groups of digits of a run.
    fn groups(&self, text: &[u8], run: Range<usize>, hits: &mut Vec<Hit>) {
        let mut groups: Vec<Range<usize>> = Vec::new();
        for at in run {
            if !text.get(at).is_some_and(u8::is_ascii_digit) {
                continue;
            }
            match groups.last_mut() {
                Some(last) if last.end == at => last.end = at + 1,
                _ => groups.push(at..at + 1),
            }
        }
        let mut first = 0;
        while first < groups.len() {
            let longest = (first + GROUPS).min(groups.len());
            let found = (first + 1..=longest).rev().find_map(|end| {
                let some = groups.get(first..end)?;
                self.number(text, some).map(|hit| (hit, end))
            });
            match found {
                Some((hit, end)) => {
                    hits.push(hit);
                    first = end;
                }
                None => first += 1,
            }
        }
    }

    fn number(&self, text: &[u8], groups: &[Range<usize>]) -> Option<Hit> {
        let (first, last) = (groups.first()?, groups.last()?);
        let range = first.start..last.end;
        if !stands_alone(text, &range) {
            return None;
        }
        let digits: Vec<u8> = groups
            .iter()
            .flat_map(|group| text.get(group.clone()).unwrap_or_default())
            .map(|byte| byte - b'0')
            .collect();
        let apart: Vec<&[u8]> =
            groups.windows(2).filter_map(|pair| text.get(pair.first()?.end..pair.last()?.start)).collect();
        let lengths: Vec<usize> = groups.iter().map(Range::len).collect();
        let value = |place: usize| {
            let group = groups.get(place).and_then(|group| text.get(group.clone()));
            group.and_then(|group| std::str::from_utf8(group).ok()?.parse::<u32>().ok()).unwrap_or(0)
        };
        let all_apart = |by: &[&[u8]]| apart.iter().all(|gap| by.contains(gap));
        let plus = first.start.checked_sub(1).and_then(|at| text.get(at)) == Some(&b'+');
        self.numbers
            .iter()
            .copied()
            .find(|detector| match detector {
                Detector::Card => all_apart(&[b" ", b"-"]) && check::card(&digits),
                Detector::UsSsn => {
                    lengths == [3, 2, 4]
                        && all_apart(&[b" ", b"-", b"."])
                        && check::us_ssn(value(0), value(1), value(2))
                }
                Detector::Ip => {
                    lengths.len() == 4 && all_apart(&[b"."]) && (0..4).all(|place| value(place) < 256)
                }
                Detector::Phone => {
                    let american = |lengths: &[usize]| lengths == [3, 3, 4];
                    (plus && (8..=15).contains(&digits.len()))
                        || (american(&lengths) && digits.first() > Some(&1) && digits.get(3) > Some(&1))
                        || (digits.first() == Some(&1)
                            && lengths.first() == Some(&1)
                            && lengths.get(1..).is_some_and(american))
                }
                _ => false,
            })
            .map(|detector| Hit { range, detector })
    }

    /// Looks into runs that may be base64 or hexadecimal.
    fn encoded(&self, text: &[u8], hits: &mut Vec<Hit>) {
        let is_part =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=');
        let mut at = 0;
        while at < text.len() {
            let length =
                text.get(at..).map_or(0, |rest| rest.iter().take_while(|byte| is_part(byte)).count());
            // `\x` is how the server marks bytes in hexadecimal.
            let marked =
                text.get(at) == Some(&b'x') && at.checked_sub(1).and_then(|at| text.get(at)) == Some(&b'\\');
            if length >= ENCODED
                && let Some(run) = text.get(at + usize::from(marked)..at + length)
                && let Some(detector) =
                    decoded(run).into_iter().find_map(|inner| Some(self.plain(&inner).first()?.detector))
            {
                hits.push(Hit { range: at..at + length, detector });
            }
            at += length.max(1);
        }
    }
}

/// What a run decodes to.
fn decoded(run: &[u8]) -> Vec<Vec<u8>> {
    let hexadecimal = (run.len().is_multiple_of(2) && run.iter().all(u8::is_ascii_hexdigit)).then(|| {
        let digit =
            |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).unwrap_or(0);
        run.chunks_exact(2)
            .map(|pair| pair.iter().fold(0_u8, |sum, byte| sum.wrapping_mul(16).wrapping_add(digit(*byte))))
            .collect()
    });
    let engines = [STANDARD, URL_SAFE];
    hexadecimal.into_iter().chain(engines.into_iter().filter_map(|engine| engine.decode(run).ok())).collect()
}

/// Whether neither a letter nor a digit stands right before or behind.
fn stands_alone(text: &[u8], range: &Range<usize>) -> bool {
    let before = range.start.checked_sub(1).and_then(|at| text.get(at));
    let alone = |byte: Option<&u8>| byte.is_none_or(|byte| !byte.is_ascii_alphanumeric());
    alone(before) && alone(text.get(range.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Detectors {
        Detectors::new(&Detector::WORDS.map(|(_, detector)| detector)).expect("the patterns are right")
    }

    #[test]
    fn values_are_found_where_they_stand() {
        use Detector::*;
        let detectors = all();
        for (text, value, detector) in [
            ("write to bob.o'neil+x@mail.example.com.", "bob.o'neil+x@mail.example.com", Email),
            ("card 4111 1111 1111 1111, thanks", "4111 1111 1111 1111", Card),
            ("5555555555554444", "5555555555554444", Card),
            ("ssn=123-45-6789;", "123-45-6789", UsSsn),
            ("call +49 30 901820 now", "49 30 901820", Phone),
            ("call (415) 555-2671", "415) 555-2671", Phone),
            ("to DE89370400440532013000.", "DE89370400440532013000", Iban),
            ("from 192.168.7.11:80", "192.168.7.11", Ip),
            ("from 2001:db8::ff00:42:8329 on", "2001:db8::ff00:42:8329", Ip),
            ("AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE", AwsKey),
            ("postgres://u:hunter2@db/x y", "postgres://u:hunter2@db/x", UrlPassword),
        ] {
            let hits = detectors.find(text.as_bytes());
            let found: Vec<_> = hits.iter().map(|hit| (&text[hit.range.clone()], hit.detector)).collect();
            assert_eq!(found, [(value, detector)], "{text}");
        }
    }

    #[test]
    fn several_values_are_found_beside_each_other() {
        let hits = all().find(b"123-45-6789 4111111111111111 12 89bob@example.com");
        let found: Vec<_> = hits.iter().map(|hit| hit.detector).collect();
        assert_eq!(found, [Detector::UsSsn, Detector::Card, Detector::Email]);
    }

    #[test]
    fn what_only_looks_like_a_value_is_not_found() {
        let detectors = all();
        for text in [
            "2024-11-26 06:03:09.123456+00",
            "order 1234567890123456",
            "550e8400-e29b-41d4-a716-446655440000",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "version 10.4.2",
            "000-12-3456",
            "a@b",
            "4111111111111111222",
            "x4111111111111111",
            "{\"a\": [1, 2, 3], \"b\": null}",
        ] {
            assert_eq!(detectors.find(text.as_bytes()), [], "{text}");
        }
    }

    #[test]
    fn one_level_of_encoding_is_looked_into() {
        let detectors = all();
        let hexadecimal = "3132332d34352d36373839";
        let longer = "626f62406578616d706c652e636f6d";
        for text in
            ["MTIzLTQ1LTY3ODk=", longer, "x \\x626f62406578616d706c652e636f6d", "Ym9iQGV4YW1wbGUuY29t"]
        {
            assert_eq!(detectors.find(text.as_bytes()).len(), 1, "{text}");
        }
        assert_eq!(detectors.find(hexadecimal.as_bytes()).len(), 1);
    }

    #[test]
    fn time_is_bounded_whatever_the_text() {
        let detectors = all();
        for text in [
            "1 ".repeat(50_000),
            "a@".repeat(50_000),
            "a.b".repeat(30_000),
            "eyJ".repeat(30_000),
            "A1:".repeat(30_000),
        ] {
            let begun = std::time::Instant::now();
            detectors.find(text.as_bytes());
            assert!(begun.elapsed().as_secs() < 20, "{}", &text[..10]);
        }
    }
}
