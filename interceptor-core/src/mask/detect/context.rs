//! Words beside a number that say what it is, where its form alone does not.

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

    /// Whether a word near `from..to` says that what stands there is of that meaning.
    pub(super) fn says(&self, meaning: Meaning, text: &[u8], from: usize, to: usize) -> bool {
        let before = text.get(from.saturating_sub(BEFORE_REACH)..from).unwrap_or_default();
        let named = |found: aho_corasick::Match| WORDS.get(found.pattern().as_usize());
        if self
            .before
            .find_overlapping_iter(before)
            .any(|word| named(word).is_some_and(|(_, m)| *m == meaning))
        {
            return true;
        }
        let behind = text.get(to..text.len().min(to.saturating_add(BEHIND_REACH))).unwrap_or_default();
        meaning == Meaning::Phone && self.behind.find(behind).is_some()
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
            context.says(meaning, text.as_bytes(), from, from + 1)
        };
        assert!(says(Meaning::Phone, "Phone: 5") && says(Meaning::Phone, "5 mobile"));
        assert!(says(Meaning::UsSsn, "my SSN is 5") && says(Meaning::Version, "Version 5"));
        assert!(says(Meaning::Person(Country::Brazil), "CPF 5"));
        assert!(!says(Meaning::Phone, "order 5") && !says(Meaning::Card, "Phone: 5"));
        assert!(!says(Meaning::Phone, &format!("phone{}5", " ".repeat(60))));
    }
}
