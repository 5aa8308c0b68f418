//! Values that are digits: in groups, with letters at their ends, or with a word beside them.
//!
//! Promise: each group of digits is looked at with a bounded number of those that follow it.

use std::ops::Range;

use super::{
    Detector, Hit, check,
    class::Class,
    context::{Context, Country, Meaning, Words},
    encoded::{UUID, uuid_at},
    is_escape, person, stands_alone,
};

/// How many groups of digits one value has at most.
pub(super) const GROUPS: usize = 7;
/// How many digits one value has at most.
pub(super) const DIGITS: usize = 19;
/// How many characters stand between two groups at most.
const GAP: usize = 3;

/// How many groups are kept before they are looked at.
const KEPT: usize = 16;
/// The longest word with digits in it that is a value.
pub(super) const WORD: usize = 34;

/// Digits beside each other.
#[derive(Debug, Clone, Copy, Default)]
struct Group {
    start: usize,
    end: usize,
}

impl Group {
    fn len(self) -> usize {
        self.end - self.start
    }
}

/// Groups with little between them.
#[derive(Debug, Default)]
struct Run {
    groups: [Group; KEPT],
    count: usize,
}

impl Run {
    fn groups(&self) -> &[Group] {
        self.groups.get(..self.count).unwrap_or_default()
    }

    fn is_full(&self) -> bool {
        self.count == KEPT
    }

    fn add(&mut self, group: Group) {
        if let Some(place) = self.groups.get_mut(self.count) {
            *place = group;
            self.count += 1;
        }
    }

    /// Keeps the last ones, with which a value may have begun.
    fn turn(&mut self) {
        let kept = GROUPS - 1;
        self.groups.copy_within(self.count.saturating_sub(kept)..self.count, 0);
        self.count = self.count.min(kept);
    }
}

/// Neighbouring groups of digits, as one value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number<'a> {
    pub(super) text: &'a [u8],
    groups: &'a [Group],
    count: usize,
}

/// The digits of a number, from 0 to 9 each.
#[derive(Debug)]
pub(super) struct Digits {
    all: [u8; DIGITS],
    count: usize,
}

impl std::ops::Deref for Digits {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.all.get(..self.count).unwrap_or_default()
    }
}

impl<'a> Number<'a> {
    fn of(text: &'a [u8], groups: &'a [Group]) -> Self {
        Self { text, groups, count: groups.iter().map(|group| group.len()).sum() }
    }

    /// Its digits, of which no value has more.
    pub(super) fn digits(&self) -> Digits {
        let mut digits = Digits { all: [0; DIGITS], count: 0 };
        let each =
            self.groups.iter().flat_map(|group| self.text.get(group.start..group.end).unwrap_or_default());
        for (place, byte) in digits.all.iter_mut().zip(each) {
            *place = byte.wrapping_sub(b'0');
            digits.count += 1;
        }
        digits
    }

    /// One of its digits.
    fn digit(&self, place: usize) -> u8 {
        let mut before = 0;
        for group in self.groups {
            if place < before + group.len() {
                return self.text.get(group.start + place - before).map_or(0, |byte| byte.wrapping_sub(b'0'));
            }
            before += group.len();
        }
        0
    }

    /// Whether its digits and groups are such that it may be anything.
    fn may_be_something(&self, words: &Words<'_>) -> bool {
        self.count >= 9
            || self.groups.len() == 4
            || self.digit(0) == 0
            || matches!(self.before(), Some(b'+' | b'('))
            || words.may_be()
    }

    /// Where it stands.
    pub(super) fn range(&self) -> Range<usize> {
        let start = self.groups.first().map_or(0, |group| group.start);
        start..self.groups.last().map_or(start, |group| group.end)
    }

    /// Whether its groups have these lengths.
    pub(super) fn has_lengths(&self, lengths: &[usize]) -> bool {
        self.groups.iter().map(|group| group.len()).eq(lengths.iter().copied())
    }

    fn length(&self, place: usize) -> usize {
        self.groups.get(place).map_or(0, |group| group.len())
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
        let group = self.groups.get(place).and_then(|group| self.text.get(group.start..group.end))?;
        group.iter().try_fold(0_u32, |sum, byte| sum.checked_mul(10)?.checked_add(u32::from(byte - b'0')))
    }

    fn before(&self) -> Option<u8> {
        self.text.get(self.range().start.checked_sub(1)?).copied()
    }

    /// Whether it stands behind a point, as a part of a number, or before one.
    fn is_fraction(&self) -> bool {
        let range = self.range();
        let digit = |at: Option<usize>| at.and_then(|at| self.text.get(at)).is_some_and(u8::is_ascii_digit);
        (self.before() == Some(b'.') && digit(range.start.checked_sub(2)))
            || (self.text.get(range.end) == Some(&b'.') && digit(Some(range.end + 1)))
    }

    /// Whether the groups of which it is one part go on with the same sign.
    fn is_inside_groups(&self) -> bool {
        self.groups.len() > 2 && self.is_fraction()
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
        let words = Words::of(&self.context, text);
        let mut run = Run::default();
        let mut at = 0;
        while let Some(digits) = Class::DIGIT.next(text, at) {
            let word = word_around(text, at, digits);
            at = word.end;
            if uuid_at(text, word.start) {
                at = word.start + UUID;
                continue;
            }
            if word.len() <= WORD
                && let Some(hit) = self.worded(text, word.clone(), digits)
            {
                at = at.max(hit.range.end);
                hits.push(hit);
                continue;
            }
            // Behind a letter no number begins.
            if digits > word.start {
                continue;
            }
            let length =
                text.get(word.clone()).map_or(0, |w| w.iter().take_while(|b| b.is_ascii_digit()).count());
            let group = Group { start: word.start, end: word.start + length };
            let last = run.groups().last();
            let follows = last.and_then(|last| text.get(last.end..group.start)).is_some_and(is_gap);
            if !follows || run.is_full() {
                self.run(&words, text, run.groups(), hits);
                if follows { run.turn() } else { run.count = 0 }
            }
            run.add(group);
        }
        self.run(&words, text, run.groups(), hits);
    }

    /// Looks at every few neighbouring groups of a run.
    fn run(&self, words: &Words<'_>, text: &[u8], groups: &[Group], hits: &mut Vec<Hit>) {
        let digits: usize = groups.iter().map(|group| group.len()).sum();
        let decimal = match groups {
            [one, two] => text.get(one.end..two.start) == Some(b".") && !is_behind(text, one.start, b'+'),
            _ => false,
        };
        // A few digits, a number with a fraction, or a short number and nothing else.
        let alone = groups.len() == 1 && digits < 12 && digits == text.len();
        if (digits < 6 && groups.len() < 4) || decimal || alone {
            return;
        }
        let mut first = 0;
        while let Some(rest) = groups.get(first..).filter(|rest| !rest.is_empty()) {
            first += self.from(words, text, rest, hits);
        }
    }

    /// Looks at what begins with the first of these groups; how many are done with.
    fn from(&self, words: &Words<'_>, text: &[u8], groups: &[Group], hits: &mut Vec<Hit>) -> usize {
        let whole = |count: usize| groups.get(..count).map(|some| Number::of(text, some));
        // Nothing is written as a date with a year is, and nothing begins inside of one.
        if groups.first().is_some_and(|year| year.len() == 4) && whole(3).is_some_and(|three| three.is_date())
        {
            return 3;
        }
        let mut counts = [0; GROUPS];
        let mut sum = 0;
        for (count, group) in counts.iter_mut().zip(groups) {
            sum += group.len();
            *count = sum;
        }
        for count in (1..=groups.len().min(GROUPS)).rev() {
            let digits = counts.get(count - 1).copied().unwrap_or(0);
            // What is shorter still has fewer.
            if digits < 6 && !(count == 4 && digits >= 4) {
                if count < 4 {
                    break;
                }
                continue;
            }
            if digits > DIGITS {
                continue;
            }
            let Some(number) = whole(count).filter(|number| number.may_be_something(words)) else { continue };
            if let Some(hit) = self.number(words, &number) {
                hits.push(hit);
                return count;
            }
            if count == 3 && number.is_date() {
                return count;
            }
        }
        1
    }

    /// A value that begins with this word, the first of whose digits stands at `digits`.
    fn worded(&self, text: &[u8], Range { start, end }: Range<usize>, digits: usize) -> Option<Hit> {
        let length = end - start;
        let wants = |detector| self.wanted.contains(&detector);
        let hit = |range, detector| Some(Hit { range, detector });
        if wants(Detector::Iban)
            && digits == start + 2
            && let Some(range) = check::iban_at(text, digits)
            && !is_joined(text, &range)
        {
            return hit(range, Detector::Iban);
        }
        if wants(Detector::NationalId)
            && person::has_length(length)
            && let Some(range) = person::worded(text, start, digits)
        {
            return hit(range, Detector::NationalId);
        }
        None
    }

    fn number(&self, words: &Words<'_>, number: &Number<'_>) -> Option<Hit> {
        let range = number.range();
        let says = |meaning| words.say(meaning, range.start, range.end);
        let alone = stands_alone(number.text, &range) && !number.is_fraction();
        let joined = alone && is_joined(number.text, &range);
        self.wanted.iter().copied().find_map(|detector| {
            let range = match detector {
                Detector::Phone => phone(number, words),
                _ if !alone => None,
                Detector::Card => is_card(number, joined, says).then(|| range.clone()),
                Detector::UsSsn => is_us_ssn(number, says).then(|| range.clone()),
                Detector::Ip => is_ip(number, says).then(|| range.clone()),
                Detector::NationalId => {
                    let is_person = number.count >= 9
                        && !joined
                        && !(number.groups.len() == 1 && !words.may_be() && !person::is_strong(number.count))
                        && person::number(number, |country: Country| says(Meaning::Person(country)));
                    is_person.then(|| range.clone())
                }
                _ => None,
            };
            range.map(|range| Hit { range, detector })
        })
    }
}

fn is_card(number: &Number<'_>, joined: bool, says: impl Fn(Meaning) -> bool) -> bool {
    if !(12..=DIGITS).contains(&number.count) || !check::luhn(&number.digits()) {
        return false;
    }
    let fours = number.groups.iter().rev().skip(1).all(|group| group.len() == 4);
    let printed = fours || number.has_lengths(&[4, 6, 5]) || number.has_lengths(&[4, 6, 4]);
    let whole = number.groups.len() == 1;
    if !whole && (joined || !printed || !number.is_parted_by(b" -.")) {
        return false;
    }
    // Barcodes are as long as an old card's number, and have a check digit of another kind.
    let barcode = whole && number.count == 13 && check::ean13(&number.digits());
    (check::card(&number.digits()) && !barcode) || says(Meaning::Card)
}

fn is_us_ssn(number: &Number<'_>, says: impl Fn(Meaning) -> bool) -> bool {
    if number.count != 9 {
        return false;
    }
    let part = |from: usize, to: usize| {
        number.digits().iter().take(to).skip(from).fold(0, |sum, digit| sum * 10 + u32::from(*digit))
    };
    let written = number.has_lengths(&[3, 2, 4]) && number.is_parted_by(b" -.");
    check::us_ssn(part(0, 3), part(3, 5), part(5, 9))
        && (written || (number.groups.len() == 1 && says(Meaning::UsSsn)))
}

fn is_ip(number: &Number<'_>, says: impl Fn(Meaning) -> bool) -> bool {
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
        && !says(Meaning::Version)
}

/// The range of a telephone number, with its extension.
fn phone(number: &Number<'_>, words: &Words<'_>) -> Option<Range<usize>> {
    if !(6..=15).contains(&number.count) {
        return None;
    }
    let range = number.range();
    let bracket = number.before() == Some(b'(');
    let outer = range.start - usize::from(bracket);
    let plus = outer.checked_sub(1).and_then(|at| number.text.get(at)) == Some(&b'+');
    let start = outer - usize::from(plus);
    let spelled = is_spelled(number, plus, bracket);
    if !spelled && !is_told(number, words) {
        return None;
    }
    let end = extended(number.text, range.end);
    let fits = number.gaps().all(is_phone_gap) && !number.is_inside_groups();
    (fits && stands_alone(number.text, &(start..end))).then_some(start..end)
}

/// Whether its form tells that it is a telephone number.
fn is_spelled(number: &Number<'_>, plus: bool, bracket: bool) -> bool {
    if plus {
        return number.count >= 8;
    }
    let several = number.groups.len() > 1;
    let digit = |place: usize| number.digit(place);
    let american = |from: usize| {
        number.groups.iter().skip(from).map(|group| group.len()).eq([3, 3, 4]) && {
            let first: usize = number.groups.iter().take(from).map(|group| group.len()).sum();
            digit(first) > 1 && digit(first + 3) > 1
        }
    };
    let last = number.length(number.groups.len().saturating_sub(1));
    let area = || {
        let closed = number.gaps().next().is_some_and(|gap| gap.starts_with(b")"));
        closed && (8..=12).contains(&number.count) && last >= 3
    };
    match (digit(0), digit(1)) {
        _ if !several => false,
        _ if bracket && area() => true,
        (0, 0) => number.count >= 11 && number.length(0) >= 3,
        (0, _) => {
            (9..=12).contains(&number.count)
                && (2..=5).contains(&number.length(0))
                && number.gaps().all(|gap| matches!(gap, b" " | b") " | b")"))
                && last >= 2
        }
        (1, _) => number.length(0) == 1 && number.count == 11 && american(1),
        _ => number.count == 10 && american(0) && !number.is_parted_by(b"/"),
    }
}

/// Whether a word beside it tells that it is one.
fn is_told(number: &Number<'_>, words: &Words<'_>) -> bool {
    let (range, groups) = (number.range(), number.groups.len());
    let bare = groups == 1 && number.count >= 7;
    let parted = (2..=5).contains(&groups) && (1..groups).all(|place| number.length(place) >= 2);
    // Two groups with a point between are a fraction; a dash ties it to a word.
    let fraction = groups == 2 && number.is_parted_by(b".");
    let dash = range.start.saturating_sub(1);
    let joined = number.before() == Some(b'-') && !stands_alone(number.text, &(dash..dash));
    (bare || parted)
        && number.count <= 13
        && !fraction
        && !joined
        && !number.is_date()
        && words.say(Meaning::Phone, range.start, range.end)
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

/// Whether that stands right before `at`.
fn is_behind(text: &[u8], at: usize, sign: u8) -> bool {
    at.checked_sub(1).and_then(|at| text.get(at)) == Some(&sign)
}

/// The word around a digit, not before `from`: letters and digits beside each other, without the letter of an escaped
/// line end.
fn word_around(text: &[u8], from: usize, digit: usize) -> Range<usize> {
    let before = text.get(from..digit).unwrap_or_default();
    let start = digit - before.iter().rev().take_while(|byte| Class::WORD.has(**byte)).count();
    let escaped = start < digit && is_escape(text, start);
    start + usize::from(escaped)..digit + Class::WORD.run(text, digit)
}

/// Whether a dash ties it to letters, as in a UUID.
fn is_joined(text: &[u8], range: &Range<usize>) -> bool {
    let tied = |dash: Option<usize>, letter: Option<usize>| {
        let at = |at: Option<usize>| at.and_then(|at| text.get(at));
        at(dash) == Some(&b'-') && at(letter).is_some_and(u8::is_ascii_alphanumeric)
    };
    tied(range.start.checked_sub(1), range.start.checked_sub(2)) || tied(Some(range.end), Some(range.end + 1))
}
