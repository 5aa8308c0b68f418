//! Words beside a number that say what it is, where its form alone does not.

use std::cell::OnceCell;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

/// What a word says of a number beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It is a telephone number.
    Phone,
    /// It is a payment card's.
    Card,
    /// It is a number of the United States' social security.
    UsSsn,
    /// It is this country's number for a person.
    Person(Country),
    /// It is a version, and no address.
    Version,
}

/// Whose number a word names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Country {
    Canada,
    Australia,
    Britain,
    Poland,
    Turkey,
    Germany,
    Brazil,
    Netherlands,
    Thailand,
    Sweden,
    SouthAfrica,
    Norway,
}

const WORDS: &[(&str, Meaning)] = &[
    ("phone", Meaning::Phone),
    ("tel:", Meaning::Phone),
    ("tel.", Meaning::Phone),
    ("tel ", Meaning::Phone),
    ("mobile", Meaning::Phone),
    ("cell", Meaning::Phone),
    ("fax", Meaning::Phone),
    ("call ", Meaning::Phone),
    ("call me", Meaning::Phone),
    ("calling", Meaning::Phone),
    ("answering", Meaning::Phone),
    ("dial", Meaning::Phone),
    ("reach me", Meaning::Phone),
    ("reach us", Meaning::Phone),
    ("reach you", Meaning::Phone),
    ("whatsapp", Meaning::Phone),
    ("sms", Meaning::Phone),
    ("text me", Meaning::Phone),
    ("message", Meaning::Phone),
    ("contact", Meaning::Phone),
    ("hotline", Meaning::Phone),
    ("desk:", Meaning::Phone),
    ("office:", Meaning::Phone),
    ("telefon", Meaning::Phone),
    ("téléphone", Meaning::Phone),
    ("portable", Meaning::Phone),
    ("handy", Meaning::Phone),
    ("card", Meaning::Card),
    ("visa", Meaning::Card),
    ("mastercard", Meaning::Card),
    ("amex", Meaning::Card),
    ("pan:", Meaning::Card),
    (" cc ", Meaning::Card),
    ("cc:", Meaning::Card),
    ("ssn", Meaning::UsSsn),
    ("social security", Meaning::UsSsn),
    ("version", Meaning::Version),
    ("release", Meaning::Version),
    ("build", Meaning::Version),
    ("social insurance", Meaning::Person(Country::Canada)),
    ("tfn", Meaning::Person(Country::Australia)),
    ("tax file", Meaning::Person(Country::Australia)),
    ("nhs", Meaning::Person(Country::Britain)),
    ("pesel", Meaning::Person(Country::Poland)),
    ("kimlik", Meaning::Person(Country::Turkey)),
    ("tckn", Meaning::Person(Country::Turkey)),
    ("steuer", Meaning::Person(Country::Germany)),
    ("cpf", Meaning::Person(Country::Brazil)),
    ("bsn", Meaning::Person(Country::Netherlands)),
    ("thai id", Meaning::Person(Country::Thailand)),
    ("personnummer", Meaning::Person(Country::Sweden)),
    ("rsa id", Meaning::Person(Country::SouthAfrica)),
    ("identity n", Meaning::Person(Country::SouthAfrica)),
    ("id number", Meaning::Person(Country::SouthAfrica)),
    ("fødselsnummer", Meaning::Person(Country::Norway)),
    ("fodselsnummer", Meaning::Person(Country::Norway)),
];

/// Words that stand behind a telephone number.
const BEHIND: &[&str] = &["office", "fax", "mobile", "phone", "cell", "home", "work", "desk"];
/// How far from a number its word may stand.
const BEFORE_REACH: usize = 40;
const BEHIND_REACH: usize = 9;

/// Looks for such words.
#[derive(Debug, Clone)]
pub(super) struct Context {
    before: AhoCorasick,
    behind: AhoCorasick,
}

impl Context {
    /// An error is a bug of ours in a word.
    pub(super) fn new() -> Result<Self, String> {
        let build = |words: Vec<&str>| {
            let mut builder = AhoCorasick::builder();
            builder.ascii_case_insensitive(true).kind(Some(AhoCorasickKind::DFA));
            builder.build(words).map_err(|error| error.to_string())
        };
        let before = build(WORDS.iter().map(|(word, _)| *word).collect())?;
        Ok(Self { before, behind: build(BEHIND.to_vec())? })
    }
}

/// The words of one text, which is looked through once, if at all.
#[derive(Debug)]
pub(super) struct Words<'a> {
    context: &'a Context,
    text: &'a [u8],
    /// Where each word ends, in order, and what it says.
    ends: OnceCell<Option<Vec<(usize, Meaning)>>>,
    lettered: OnceCell<bool>,
}

impl<'a> Words<'a> {
    pub(super) fn of(context: &'a Context, text: &'a [u8]) -> Self {
        Self { context, text, ends: OnceCell::new(), lettered: OnceCell::new() }
    }

    /// Whether it may have any: most texts with numbers have nothing else.
    pub(super) fn may_be(&self) -> bool {
        *self
            .lettered
            .get_or_init(|| self.text.windows(3).any(|three| three.iter().all(u8::is_ascii_alphabetic)))
    }

    /// None where the text has no words at all.
    fn ends(&self) -> Option<&[(usize, Meaning)]> {
        let ends = self.ends.get_or_init(|| {
            if !self.may_be() {
                return None;
            }
            let found = self.context.before.find_overlapping_iter(self.text);
            let named =
                |word: aho_corasick::Match| Some((word.end(), WORDS.get(word.pattern().as_usize())?.1));
            Some(found.filter_map(named).collect())
        });
        ends.as_deref()
    }

    /// Whether a word near `from..to` says that what stands there is of that meaning.
    pub(super) fn say(&self, meaning: Meaning, from: usize, to: usize) -> bool {
        let Some(ends) = self.ends() else { return false };
        let first = ends.partition_point(|(end, _)| *end < from.saturating_sub(BEFORE_REACH));
        let near = ends.get(first..).unwrap_or_default().iter().take_while(|(end, _)| *end <= from);
        if near.into_iter().any(|(_, said)| *said == meaning) {
            return true;
        }
        meaning == Meaning::Phone && {
            let reach = self.text.len().min(to.saturating_add(BEHIND_REACH));
            let behind = self.text.get(to..reach).unwrap_or_default();
            behind.len() >= 4 && self.context.behind.find(behind).is_some()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_speak_for_what_stands_near() {
        let context = Context::new().expect("the words are right");
        let says = |meaning, text: &str| {
            let from = text.find('5').expect("a number");
            Words::of(&context, text.as_bytes()).say(meaning, from, from + 1)
        };
        assert!(says(Meaning::Phone, "Phone: 5") && says(Meaning::Phone, "5 mobile"));
        assert!(says(Meaning::UsSsn, "my SSN is 5") && says(Meaning::Version, "Version 5"));
        assert!(says(Meaning::Person(Country::Brazil), "CPF 5"));
        assert!(!says(Meaning::Phone, "order 5") && !says(Meaning::Card, "Phone: 5"));
        assert!(!says(Meaning::Phone, &format!("phone{}5", " ".repeat(60))));
    }
}
