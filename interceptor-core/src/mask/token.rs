//! Tokens: words that stand for the values of a labelled column, and may be sent back in their place where that very
//! column is compared with one for being equal.
//!
//! Promises: a token is given for what a column of a table holds, and for nothing else; it tells of its value no more than
//! the label and about how long it is, and which others of the same run and column are equal; what is no token of this run,
//! label and column stands for nothing, however it was made. Nothing here knows where in a statement one may stand.

use aes_siv::{KeyInit as _, siv::Aes128Siv};
use data_encoding::BASE32_NOPAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{Form, Labels};
use crate::model::RunId;

/// The longest value that a token can stand for, in bytes.
const LONGEST: usize = 1024;
/// Values are filled up to a multiple of this many bytes, so that tokens do not tell how long they are.
const STEP: usize = 16;
/// What the keys of tokens of columns are derived for. What is found by its form has none.
const LAYER: &[u8] = b"token of a column";

/// A column of a table, by its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stands {
    /// The table.
    pub relation: u32,
    /// The column there.
    pub column: i16,
}

impl Stands {
    fn bytes(self) -> [u8; 6] {
        let ([a, b, c, d], [e, f]) = (self.relation.to_be_bytes(), self.column.to_be_bytes());
        [a, b, c, d, e, f]
    }
}

/// One run's tokens for one resource. Its `Debug` prints no key.
#[derive(Default)]
pub struct Tokens {
    /// By the place of the label; none where it is masked otherwise.
    keys: Vec<Option<Key>>,
}

/// What tokens of one label are made with.
struct Key {
    prefix: String,
    key: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens(***)")
    }
}

impl Tokens {
    /// Those that are made with `key`.
    pub(super) fn new(key: &[u8; 32], labels: &Labels, run: RunId) -> Self {
        let run = run.to_string();
        let of = |label: &str| {
            // Any length of key will do.
            let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(key).ok()?;
            for part in [LAYER, labels.resource().as_bytes(), label.as_bytes(), run.as_bytes()] {
                mac.update(&(part.len() as u64).to_be_bytes());
                mac.update(part);
            }
            let key = Zeroizing::new(mac.finalize().into_bytes().into());
            Some(Key { prefix: format!("tok_{label}_"), key })
        };
        let each = labels.iter().map(|label| (label.form == Form::Token).then(|| of(&label.name)).flatten());
        Self { keys: each.collect() }
    }

    /// The token of a value of that column, which bears the label at `label`; none where no token can stand for it.
    pub fn give(&self, label: usize, stands: Stands, value: &str) -> Option<String> {
        let key = self.keys.get(label)?.as_ref()?;
        if value.len() > LONGEST || value.contains('\0') {
            return None;
        }
        let mut filled = Zeroizing::new(value.as_bytes().to_vec());
        filled.resize(value.len().next_multiple_of(STEP).max(STEP), 0);
        let sealed = Aes128Siv::new(key.key.as_slice().into()).encrypt([stands.bytes()], &filled).ok()?;
        Some(format!("{}{}", key.prefix, BASE32_NOPAD.encode(&sealed).to_ascii_lowercase()))
    }

    /// The value that `token` stands for where that column, which bears the label at `label`, is compared with it; none
    /// where it is no token of it.
    pub fn take(&self, label: usize, stands: Stands, token: &str) -> Option<Zeroizing<String>> {
        let key = self.keys.get(label)?.as_ref()?;
        let sealed = token.strip_prefix(&key.prefix).filter(|sealed| sealed.len() <= 2 * (LONGEST + STEP))?;
        // As it was given: one value has one token.
        let is_given = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let sealed = sealed.bytes().all(is_given).then(|| sealed.to_ascii_uppercase())?;
        let sealed = BASE32_NOPAD.decode(sealed.as_bytes()).ok()?;
        let siv = &mut Aes128Siv::new(key.key.as_slice().into());
        let mut filled = Zeroizing::new(siv.decrypt([stands.bytes()], &sealed).ok()?);
        let length = filled.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        filled.truncate(length);
        std::str::from_utf8(&filled).ok().map(|value| Zeroizing::new(value.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::{MaskKey, labels::tests::labels};

    const HERE: Stands = Stands { relation: 16384, column: 2 };

    fn tokens(key: u8, run: u64) -> Tokens {
        let labels = labels(
            "[label.ssn]\ncolumns = [\"*.*.ssn\"]\nmask = \"token\"\n[label.id]\ncolumns = [\"*.*.id\"]\nmask = \
             \"token\"\n[label.x]\ncolumns = [\"*.*.x\"]\nmask = \"hash\"\n",
        );
        MaskKey::new([key; 32]).tokens(&labels, RunId::from_random(run << 32))
    }

    #[test]
    fn a_token_stands_for_its_value_in_its_own_column_alone() {
        let tokens = tokens(1, 7);
        for value in ["", "123-45-6789", "é☃", "sixteen letters.", &"x".repeat(LONGEST)] {
            let token = tokens.give(0, HERE, value).expect("a token");
            assert!(token.starts_with("tok_ssn_"), "{token}");
            assert_eq!(tokens.give(0, HERE, value).as_ref(), Some(&token), "the same again");
            assert_eq!(tokens.take(0, HERE, &token).expect("its value").as_str(), value);
            let other = [Stands { relation: 16385, ..HERE }, Stands { column: 3, ..HERE }];
            assert!(other.into_iter().all(|other| tokens.take(0, other, &token).is_none()), "another column");
            assert!(tokens.take(1, HERE, &token).is_none(), "another label");
            let renamed = token.replace("tok_ssn_", "tok_id_");
            assert!(tokens.take(1, HERE, &renamed).is_none(), "another label under its name");
            assert!(tokens.take(0, HERE, &token.to_uppercase()).is_none());
            for end in 0..token.len() {
                assert!(tokens.take(0, HERE, &token[..end]).is_none(), "cut");
            }
            let flipped = |at: usize| {
                let mut bytes = token.clone().into_bytes();
                bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
                String::from_utf8(bytes).expect("ASCII")
            };
            for at in 8..token.len().min(80) {
                assert_ne!(flipped(at), token);
                assert!(tokens.take(0, HERE, &flipped(at)).is_none(), "forged");
            }
        }
    }

    #[test]
    fn each_run_host_label_and_column_has_tokens_of_its_own() {
        let token = |key, run, label, stands| tokens(key, run).give(label, stands, "v").expect("a token");
        let other = Stands { column: 3, ..HERE };
        let all = [
            token(1, 7, 0, HERE),
            token(1, 8, 0, HERE),
            token(2, 7, 0, HERE),
            token(1, 7, 1, HERE),
            token(1, 7, 0, other),
        ];
        let behind = |token: &String| token.rsplit('_').next().map(str::to_owned);
        let distinct: std::collections::BTreeSet<_> = all.iter().map(behind).collect();
        assert_eq!(distinct.len(), all.len(), "{all:?}");
    }

    #[test]
    fn what_no_token_can_stand_for_has_none() {
        let tokens = tokens(1, 7);
        assert_eq!(tokens.give(0, HERE, &"x".repeat(LONGEST + 1)), None);
        assert_eq!(tokens.give(0, HERE, "a\0b"), None);
        assert_eq!(tokens.give(2, HERE, "v"), None, "it is masked otherwise");
        assert_eq!(tokens.give(9, HERE, "v"), None);
        let length = |value| tokens.give(0, HERE, value).map(|token| token.len());
        assert_eq!(length("a"), length("fifteen letters"), "how long it is does not show");
        assert_eq!(format!("{tokens:?}"), "Tokens(***)");
    }
}
