//! What stands in the place of a hidden value.

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::{Detector, fake};

/// A form, strongest first: where several labels hide one value, the strongest holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// Nothing: NULL.
    Null,
    /// The label's name in brackets.
    Redact,
    /// A word that may be sent back in the place of the value, where a column is compared with it for being equal:
    /// [`Tokens`](super::Tokens). The label's name in brackets for what is of no column.
    Token,
    /// A keyed digest, by which equal values can be told to be equal.
    Hash,
    /// A valid value of the same kind that is nobody's, the same for equal values.
    Fake,
    /// The last four letters and digits of a value that has at least eight of them; all punctuation.
    Partial,
}

/// How many of a value's letters and digits [`Form::Partial`] shows, and how many there must be.
const SHOWN: usize = 4;
const SHOWN_OF: usize = 8;

impl Form {
    /// The words of `labels.toml`.
    pub const WORDS: [(&str, Self); 6] = [
        ("null", Self::Null),
        ("redact", Self::Redact),
        ("token", Self::Token),
        ("hash", Self::Hash),
        ("fake", Self::Fake),
        ("partial", Self::Partial),
    ];

    /// What stands for `value`, which is of that kind; none is NULL.
    pub(super) fn of(
        self,
        value: &str,
        kind: Option<Detector>,
        label: &str,
        key: &[u8; 32],
    ) -> Option<String> {
        match self {
            Self::Null => None,
            Self::Redact | Self::Token => Some(format!("[{label}]")),
            Self::Hash => {
                Some(digest(value, key)?.iter().take(16).map(|byte| format!("{byte:02x}")).collect())
            }
            Self::Fake => Some(fake::value(kind, &digest(value, key)?)),
            Self::Partial => Some(partial(value)),
        }
    }
}

fn digest(value: &str, key: &[u8; 32]) -> Option<[u8; 32]> {
    // Any length of key will do.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(value.as_bytes());
    Some(mac.finalize().into_bytes().into())
}

fn partial(value: &str) -> String {
    if value.is_ascii() {
        return partial_ascii(value);
    }
    let all = value.chars().filter(|c| c.is_alphanumeric()).count();
    let mut hidden = if all >= SHOWN_OF { all.saturating_sub(SHOWN) } else { all };
    let hide = |c: char| {
        if !c.is_alphanumeric() {
            // Only punctuation is: a letter of a script without letters and digits would not be.
            return if c.is_ascii() { c } else { '*' };
        }
        if hidden == 0 {
            return c;
        }
        hidden = hidden.saturating_sub(1);
        '*'
    };
    value.chars().map(hide).collect()
}

/// The same of a value of which each byte is a character.
fn partial_ascii(value: &str) -> String {
    let all = value.bytes().filter(u8::is_ascii_alphanumeric).count();
    let mut hidden = if all >= SHOWN_OF { all.saturating_sub(SHOWN) } else { all };
    let mut shown = String::with_capacity(value.len());
    for byte in value.bytes() {
        let hides = byte.is_ascii_alphanumeric() && hidden > 0;
        hidden = hidden.saturating_sub(usize::from(hides));
        shown.push(if hides { '*' } else { char::from(byte) });
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_show_what_they_say() {
        let key = [7; 32];
        assert_eq!(Form::Null.of("x", None, "l", &key), None);
        assert_eq!(Form::Redact.of("x", None, "ssn", &key).as_deref(), Some("[ssn]"));
        assert_eq!(Form::Token.of("x", None, "ssn", &key).as_deref(), Some("[ssn]"));
        assert_eq!(Form::Partial.of("123-45-6789", None, "l", &key).as_deref(), Some("***-**-6789"));
        assert_eq!(Form::Partial.of("12-345", None, "l", &key).as_deref(), Some("**-***"));
        assert_eq!(Form::Partial.of("☃ab", None, "l", &key).as_deref(), Some("***"));
        assert_eq!(Form::Partial.of("é-2345-6789", None, "l", &key).as_deref(), Some("*-****-6789"));
        let one = Form::Hash.of("a", None, "l", &key).expect("a digest");
        assert_eq!(one.len(), 32);
        assert_eq!(Form::Hash.of("a", None, "l", &key), Some(one.clone()));
        assert_ne!(Form::Hash.of("a", None, "l", &[8; 32]), Some(one));
        let fake = |value, key| Form::Fake.of(value, Some(Detector::Email), "l", key).expect("a value");
        assert_eq!(fake("a@example.org", &key), fake("a@example.org", &key));
        assert_ne!(fake("a@example.org", &key), fake("b@example.org", &key));
        assert_ne!(fake("a@example.org", &key), fake("a@example.org", &[8; 32]));
    }

    #[test]
    fn the_strongest_form_comes_first() {
        assert!(
            Form::Null < Form::Redact
                && Form::Redact < Form::Token
                && Form::Token < Form::Hash
                && Form::Hash < Form::Fake
                && Form::Fake < Form::Partial
        );
    }
}
