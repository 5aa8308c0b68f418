//! Values that tell by themselves what they are, wherever they stand.
//!
//! The road: the sieve (`sieve.rs`) tells of most texts that they are clean. Of all others a glance (`glance.rs`) tells
//! what could be in them at all; one automaton finds the signs and words that values are known by (`anchored.rs`), one walk
//! the groups of digits (`numbers.rs`, `person.rs`), and what they find is checked before it is a hit. One level of base64
//! and of hexadecimal is looked into (`encoded.rs`).
//!
//! Promise: time is linear in the text, whatever it is.

mod anchored;
mod bits;
mod check;
mod class;
mod context;
mod encoded;
mod glance;
mod groups;
mod numbers;
mod person;
mod sieve;

use std::ops::Range;

use anchored::Anchored;
use class::Class;
use encoded::{UUID, uuid_at};
use glance::Glance;
use numbers::Numbers;

/// What can be detected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Detector {
    /// Payment cards: issuers' ranges, and the check digit of ISO/IEC 7812.
    Card,
    /// E-mail addresses below a top-level domain that there is.
    Email,
    /// Telephone numbers: as they are written internationally, with the prefix of a long-distance call, in brackets, or
    /// in North America; others beside a word that says so.
    Phone,
    /// International bank account numbers: ISO 13616.
    Iban,
    /// Social security numbers of the United States, written in groups or beside their name.
    UsSsn,
    /// Numbers that other countries give to persons, by their check digits.
    NationalId,
    /// IPv4 and IPv6 addresses.
    Ip,
    /// Addresses of pages, below a top-level domain that there is.
    Url,
    /// JSON web tokens.
    Jwt,
    /// Access key ids of AWS.
    AwsKey,
    /// Tokens of well-known services, by their prefixes.
    ApiToken,
    /// Private keys in PEM, and PuTTY's.
    PrivateKey,
    /// URLs with a password in them, and passwords as connections are written.
    UrlPassword,
}

impl Detector {
    /// The words of `labels.toml`.
    pub const WORDS: [(&str, Self); 13] = [
        ("card", Self::Card),
        ("email", Self::Email),
        ("phone", Self::Phone),
        ("iban", Self::Iban),
        ("us_ssn", Self::UsSsn),
        ("national_id", Self::NationalId),
        ("ip", Self::Ip),
        ("url", Self::Url),
        ("jwt", Self::Jwt),
        ("aws_key", Self::AwsKey),
        ("api_token", Self::ApiToken),
        ("private_key", Self::PrivateKey),
        ("url_password", Self::UrlPassword),
    ];
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
    anchored: Option<Anchored>,
    numbers: Option<Numbers>,
    groups: bool,
}

impl Detectors {
    /// Those that find nothing.
    pub fn none() -> Self {
        Self { anchored: None, numbers: None, groups: false }
    }

    /// Makes these ready. An error is a bug of ours in an anchor or a word.
    pub fn new(detectors: &[Detector]) -> Result<Self, String> {
        Ok(Self {
            anchored: Anchored::new(detectors)?,
            numbers: Numbers::new(detectors)?,
            groups: detectors.contains(&Detector::Ip),
        })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.anchored.is_none() && self.numbers.is_none()
    }

    /// What is found in `text`, in order. What overlaps is told apart no further.
    pub fn find(&self, text: &[u8]) -> Vec<Hit> {
        let is_anchored = || self.anchored.as_ref().is_some_and(|anchored| anchored.touches(text));
        if self.is_empty() || sieve::is_clean(text, is_anchored) {
            return Vec::new();
        }
        self.unsifted(text)
    }

    /// The same without the sieve.
    fn unsifted(&self, text: &[u8]) -> Vec<Hit> {
        // Identifiers of which there are many, and none is text.
        if text.len() == UUID && uuid_at(text, 0) {
            return Vec::new();
        }
        let glance = Glance::at(text);
        let mut hits = Vec::new();
        // In a digest, which is longer than anything that is written so, nothing can stand but what it encodes.
        let digest = glance.long && text.len() > numbers::WORD && Class::HEX.run(text, 0) == text.len();
        if !digest {
            self.plain(text, glance, &mut hits);
        }
        if glance.long || glance.is_digits() {
            encoded::runs(text, |run, decoded| {
                let mut inner = Vec::new();
                self.plain(decoded, Glance::at(decoded), &mut inner);
                hits.extend(inner.first().map(|hit| Hit { range: run, detector: hit.detector }));
            });
        }
        in_order(hits)
    }

    fn plain(&self, text: &[u8], glance: Glance, hits: &mut Vec<Hit>) {
        if let Some(anchored) = &self.anchored
            && glance.may_be_anchored()
        {
            anchored.find(text, hits);
        }
        if let Some(numbers) = &self.numbers
            && glance.may_be_number()
        {
            numbers.find(text, hits);
        }
        if self.groups && glance.may_be_groups(text) {
            groups::find(text, hits);
        }
    }
}

/// Calls `look` with each run of `text` that is base64 or hexadecimal of something that reads as text, and with that.
pub(super) fn encoded(text: &[u8], look: impl FnMut(Range<usize>, &[u8])) {
    if Glance::at(text).long {
        encoded::runs(text, look);
    }
}

/// Hits that overlap are one.
fn in_order(mut hits: Vec<Hit>) -> Vec<Hit> {
    if hits.len() < 2 {
        return hits;
    }
    // Of those that begin at one place the longest says what it is.
    hits.sort_by_key(|hit| (hit.range.start, std::cmp::Reverse(hit.range.end)));
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

/// Whether neither a letter nor a digit stands right before or behind. The letter of an escaped line end is none.
fn stands_alone(text: &[u8], range: &Range<usize>) -> bool {
    let letter = |at: usize| text.get(at).filter(|byte| byte.is_ascii_alphanumeric()).map(|_| at);
    let before = range.start.checked_sub(1).and_then(letter).is_none_or(|at| is_escape(text, at));
    before && letter(range.end).is_none()
}

/// Whether the letter at `at` is that of an escaped line end or blank.
fn is_escape(text: &[u8], at: usize) -> bool {
    matches!(text.get(at), Some(b'n' | b'r' | b't'))
        && at.checked_sub(1).and_then(|at| text.get(at)) == Some(&b'\\')
}

#[cfg(test)]
mod tests;
