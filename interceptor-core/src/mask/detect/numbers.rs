//! Values that are digits: in groups, with letters at their ends, or with a word beside them.
//!
//! Promise: each group of digits is looked at with a bounded number of those that follow it.

use std::ops::Range;

use super::{
    Detector, Hit, check,
    context::{Context, Country, Meaning},
    person, stands_alone,
};

/// How many groups of digits one value has at most.
const GROUPS: usize = 7;
/// How many digits one value has at most.
const DIGITS: usize = 19;
/// How many characters stand between two groups at most.
const GAP: usize = 3;

/// Neighbouring groups of digits, as one value.
#[derive(Debug)]
pub(super) struct Number<'a> {
    pub(super) text: &'a [u8],
    groups: &'a [Range<usize>],
    digits: [u8; DIGITS],
    count: usize,
}

impl<'a> Number<'a> {
    fn of(text: &'a [u8], groups: &'a [Range<usize>]) -> Option<Self> {
        let mut digits = [0; DIGITS];
        let mut count = 0;
        for group in groups {
            for byte in text.get(group.clone())? {
                *digits.get_mut(count)? = byte.wrapping_sub(b'0');
                count += 1;
            }
        }
        Some(Self { text, groups, digits, count })
    }

    pub(super) fn digits(&self) -> &[u8] {
        self.digits.get(..self.count).unwrap_or_default()
    }

    /// Where it stands.
    pub(super) fn range(&self) -> Range<usize> {
        let start = self.groups.first().map_or(0, |group| group.start);
        start..self.groups.last().map_or(start, |group| group.end)
    }

    /// Whether its groups have these lengths.
    pub(super) fn has_lengths(&self, lengths: &[usize]) -> bool {
        self.groups.iter().map(Range::len).eq(lengths.iter().copied())
    }

    fn length(&self, place: usize) -> usize {
        self.groups.get(place).map_or(0, Range::len)
    }

    /// What stands between the groups.
    fn gaps(&self) -> impl Iterator<Item = &[u8]> {
        self.groups.windows(2).filter_map(|pair| match pair {
            [one, next] => self.text.get(one.end..next.start),
            _ => None,
        })
    }

    /// Whether one and the same of `signs` stands between all groups.
    pub(super) fn is_parted_by(&self, signs: &[u8]) -> bool {
        signs.iter().any(|sign| self.gaps().all(|gap| gap == [*sign]))
    }

    /// The value of a group.
    fn value(&self, place: usize) -> Option<u32> {
        let group = self.text.get(self.groups.get(place)?.clone())?;
        group.iter().try_fold(0_u32, |sum, byte| sum.checked_mul(10)?.checked_add(u32::from(byte - b'0')))
    }

    fn before(&self) -> Option<u8> {
        self.text.get(self.range().start.checked_sub(1)?).copied()
    }

    /// Whether it reads as a date.
    fn is_date(&self) -> bool {
        let value = |place| self.value(place).unwrap_or(u32::MAX);
        let [a, b, c] = [0, 1, 2].map(value);
        let (day, month) = (1..=31_u32, 1..=12_u32);
        let lengths = [self.length(0), self.length(1), self.length(2)];
        match (self.groups.len(), lengths) {
            (3, [4, 1..=2, 1..=2]) => (1900..=2199).contains(&a) && month.contains(&b) && day.contains(&c),
            (3, [1..=2, 1..=2, 2 | 4]) => {
                (day.contains(&a) && month.contains(&b)) || (month.contains(&a) && day.contains(&b))
            }
            _ => false,
        }
    }
}

/// Finds numbers.
#[derive(Debug, Clone)]
pub(super) struct Numbers {
    wanted: Vec<Detector>,
    context: Context,
}

impl Numbers {
    /// For those of `wanted` that are numbers; none where none is. An error is a bug of ours in a word.
    pub(super) fn new(wanted: &[Detector]) -> Result<Option<Self>, String> {
        use Detector::*;
        let all = [Card, UsSsn, Ip, NationalId, Iban, Phone];
        let wanted: Vec<Detector> = all.into_iter().filter(|one| wanted.contains(one)).collect();
        if wanted.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self { wanted, context: Context::new()? }))
    }

    pub(super) fn find(&self, text: &[u8], hits: &mut Vec<Hit>) {
        let mut groups: Vec<Range<usize>> = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let rest = text.get(at..).unwrap_or_default();
            let Some(start) = rest.iter().position(u8::is_ascii_digit).map(|skip| at + skip) else { break };
            let length = text.get(start..).map_or(0, |t| t.iter().take_while(|b| b.is_ascii_digit()).count());
            let group = start..start + length;
            let follows = groups.last().and_then(|last| text.get(last.end..group.start)).is_some_and(is_gap);
            if !follows {
                self.run(text, &groups, hits);
                groups.clear();
            }
            at = group.end;
            groups.push(group);
        }
        self.run(text, &groups, hits);
    }

    /// Looks at every few neighbouring groups of a run.
    fn run(&self, text: &[u8], groups: &[Range<usize>], hits: &mut Vec<Hit>) {
        let mut first = 0;
        while first < groups.len() {
            if let Some(hit) = groups.get(first).and_then(|group| self.worded(text, group)) {
                first += groups.iter().skip(first).take_while(|group| group.start < hit.range.end).count();
                hits.push(hit);
                continue;
            }
            let longest = (first + GROUPS).min(groups.len());
            let mut next = first + 1;
            for end in (first + 1..=longest).rev() {
                let Some(number) = groups.get(first..end).and_then(|some| Number::of(text, some)) else {
                    continue;
                };
                if let Some(hit) = self.number(&number) {
                    hits.push(hit);
                    next = end;
                    break;
                }
                // Nothing begins inside of a date.
                if number.is_date() {
                    next = end;
                    break;
                }
            }
            first = next;
        }
    }

    /// A value with letters in it, of which this group is the first with digits.
    fn worded(&self, text: &[u8], group: &Range<usize>) -> Option<Hit> {
        let wants = |detector| self.wanted.contains(&detector);
        let hit = |range, detector| Some(Hit { range, detector });
        if wants(Detector::Iban)
            && let Some(range) = check::iban_at(text, group.start)
        {
            return hit(range, Detector::Iban);
        }
        if wants(Detector::NationalId)
            && let Some(range) = person::worded(text, group)
        {
            return hit(range, Detector::NationalId);
        }
        None
    }

    fn number(&self, number: &Number<'_>) -> Option<Hit> {
        if number.count < 4 {
            return None;
        }
        let range = number.range();
        let alone = stands_alone(number.text, &range);
        self.wanted.iter().copied().find_map(|detector| {
            let range = match detector {
                Detector::Card => (alone && self.is_card(number)).then(|| range.clone()),
                Detector::UsSsn => (alone && self.is_us_ssn(number)).then(|| range.clone()),
                Detector::Ip => (alone && self.is_ip(number)).then(|| range.clone()),
                Detector::NationalId => (alone && self.is_person(number)).then(|| range.clone()),
                Detector::Phone => self.phone(number),
                _ => None,
            };
            range.map(|range| Hit { range, detector })
        })
    }

    fn says(&self, meaning: Meaning, number: &Number<'_>) -> bool {
        let range = number.range();
        self.context.says(meaning, number.text, range.start, range.end)
    }

    fn is_card(&self, number: &Number<'_>) -> bool {
        if number.count < 12 || !check::card(number.digits()) {
            return false;
        }
        match number.groups.len() {
            // Barcodes are as long as an old card's number, and have a check digit of another kind.
            1 if number.count == 13 && check::ean13(number.digits()) => self.says(Meaning::Card, number),
            1 => true,
            _ => {
                let fours = number.groups.iter().rev().skip(1).all(|group| group.len() == 4);
                let known = number.has_lengths(&[4, 6, 5]) || number.has_lengths(&[4, 6, 4]);
                (fours || known) && number.is_parted_by(b" -.")
            }
        }
    }

    fn is_us_ssn(&self, number: &Number<'_>) -> bool {
        if number.count != 9 {
            return false;
        }
        let part = |from: usize, to: usize| {
            number.digits().iter().take(to).skip(from).fold(0, |sum, digit| sum * 10 + u32::from(*digit))
        };
        let written = number.has_lengths(&[3, 2, 4]) && number.is_parted_by(b" -.");
        check::us_ssn(part(0, 3), part(3, 5), part(5, 9))
            && (written || (number.groups.len() == 1 && self.says(Meaning::UsSsn, number)))
    }

    fn is_ip(&self, number: &Number<'_>) -> bool {
        let part = |place| {
            let led = number.length(place) > 1
                && number.groups.get(place).and_then(|group| number.text.get(group.start)) == Some(&b'0');
            !led && number.value(place).is_some_and(|value| value < 256)
        };
        number.groups.len() == 4
            && number.is_parted_by(b".")
            && (0..4).all(part)
            && number.value(0) != Some(0)
            && number.text.get(number.range().end) != Some(&b'.')
            && !self.says(Meaning::Version, number)
    }

    fn is_person(&self, number: &Number<'_>) -> bool {
        person::number(number, |country: Country| self.says(Meaning::Person(country), number))
    }

    /// The range of a telephone number, with its extension.
    fn phone(&self, number: &Number<'_>) -> Option<Range<usize>> {
        if !(6..=15).contains(&number.count) || !number.gaps().all(is_phone_gap) {
            return None;
        }
        let range = number.range();
        let bracket = number.before() == Some(b'(');
        let outer = range.start - usize::from(bracket);
        let plus = outer.checked_sub(1).and_then(|at| number.text.get(at)) == Some(&b'+');
        let start = outer - usize::from(plus);
        let end = extended(number.text, range.end);
        if !stands_alone(number.text, &(start..end)) {
            return None;
        }
        let digit = |place: usize| number.digits().get(place).copied().unwrap_or(0);
        let closed = bracket && number.gaps().next().is_some_and(|gap| gap.starts_with(b")"));
        let last = number.length(number.groups.len().saturating_sub(1));
        let several = number.groups.len() > 1;
        let american = |from: usize| {
            number.groups.iter().skip(from).map(Range::len).eq([3, 3, 4]) && {
                let first: usize = number.groups.iter().take(from).map(Range::len).sum();
                digit(first) > 1 && digit(first + 3) > 1
            }
        };
        let international = plus && number.count >= 8;
        let dialled =
            digit(0) == 0 && digit(1) == 0 && several && number.count >= 11 && number.length(0) >= 3;
        let long_distance = number.has_lengths(&[1, 3, 3, 4]) && digit(0) == 1 && american(1);
        let trunk = digit(0) == 0
            && digit(1) != 0
            && several
            && (9..=12).contains(&number.count)
            && (2..=5).contains(&number.length(0))
            && number.gaps().all(|gap| matches!(gap, b" " | b") " | b")"))
            && last >= 2;
        let area = closed && (8..=12).contains(&number.count) && last >= 3;
        let spelled = international
            || dialled
            || long_distance
            || trunk
            || area
            || (number.count == 10 && american(0) && !number.is_parted_by(b"/"));
        let told = || {
            let groups = number.groups.len();
            let bare = groups == 1 && number.count >= 7;
            let parted = (2..=5).contains(&groups) && (1..groups).all(|place| number.length(place) >= 2);
            number.count <= 13 && (bare || parted) && !number.is_date() && self.says(Meaning::Phone, number)
        };
        (spelled || told()).then_some(start..end)
    }
}

/// Whether groups with that between them may be one value.
fn is_gap(gap: &[u8]) -> bool {
    (1..=GAP).contains(&gap.len()) && gap.iter().all(|byte| b" ().-/".contains(byte))
}

/// Whether that may stand inside a telephone number.
fn is_phone_gap(gap: &[u8]) -> bool {
    matches!(gap, b" " | b"-" | b"." | b"/" | b")" | b") " | b")-" | b" (" | b"(" | b" - " | b"-(")
}

/// The end of a telephone number that ends at `end`, with its extension.
fn extended(text: &[u8], end: usize) -> usize {
    let rest = text.get(end..).unwrap_or_default();
    let Some(mark) = ["x", " x", " ext ", " ext. "].iter().find(|mark| rest.starts_with(mark.as_bytes()))
    else {
        return end;
    };
    let rest = rest.get(mark.len()..).unwrap_or_default();
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if (1..=6).contains(&digits) { end + mark.len() + digits } else { end }
}
