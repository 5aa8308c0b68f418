//! Takes secrets, or all literals, out of a text before it is recorded or shown.
//!
//! Promise: rather too much is taken out than too little. A text in which anything speaks of passwords keeps none of its literals,
//! and one that cannot be cut into tokens keeps nothing: in it, anything may be a literal.

use std::{borrow::Cow, iter};

use super::{
    super::{
        guard::{MAX_BYTES, MAX_TOKENS},
        redact::looks_secret,
    },
    lexer::{Kind, Token, tokens, unquoted},
};

/// What speaks of passwords wherever it stands: in words, names, comments and strings, and in what strings are put together to.
const TELLING: [&str; 6] = ["authentication", "identified", "password", "passwd", "passphrase", "pwd"];
/// Words that come with strings that are connections or proofs, or the text of another statement. What the tables of the
/// database `mysql` hold, such as hashes, stands in the order of their columns.
const CARRIERS: [&str; 9] = [
    "auth",
    "challenge_response",
    "connection",
    "execute",
    "immediate",
    "mysql",
    "pass",
    "prepare",
    "wsrep_sst_auth",
];
/// Functions whose arguments are keys and passwords.
const KEYED: [&str; 18] = [
    "aes_decrypt",
    "aes_encrypt",
    "asymmetric_decrypt",
    "asymmetric_derive",
    "asymmetric_encrypt",
    "asymmetric_sign",
    "create_asymmetric_pub_key",
    "decode",
    "des_decrypt",
    "des_encrypt",
    "encode",
    "encrypt",
    "kdf",
    "keyring_key_store",
    "md5",
    "sha",
    "sha1",
    "sha2",
];

/// The text with passwords taken out: every literal of a text that may set or give one, or that may become another statement,
/// and every string elsewhere that looks like it carries one.
pub fn redact(text: &str) -> Cow<'_, str> {
    let Some(tokens) = readable(text) else { return Cow::Owned(unread(text)) };
    let literals: Vec<&Token> = tokens.iter().filter(|token| is_literal(text, token)).collect();
    if carries(text, &tokens, &literals) {
        // Where a session's `sql_mode` reads backslashes otherwise, what looks like a word may be of a string.
        let hides = |token: &Token| {
            matches!(token.kind, Kind::Text | Kind::Variable) && written(text, token).contains('\\')
        };
        return Cow::Owned(if tokens.iter().any(hides) {
            unread(text)
        } else {
            replaced(text, &tokens, |token| instead(text, token, ["'***'", "@'***'"]))
        });
    }
    let is_secret = |token: &Token| token.kind == Kind::Text && looks_secret(written(text, token));
    if !tokens.iter().any(is_secret) && !comments(text, &tokens).any(looks_secret) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(replaced(text, &tokens, |token| is_secret(token).then_some("'***'")))
}

/// The text with every string and number replaced by `?`, and without its comments.
pub fn without_literals(text: &str) -> Cow<'_, str> {
    let Some(tokens) = readable(text) else { return Cow::Owned(unread(text)) };
    Cow::Owned(replaced(text, &tokens, |token| instead(text, token, ["?", "@?"])))
}

/// Whether a password may be among the literals.
fn carries(text: &str, tokens: &[Token], literals: &[&Token]) -> bool {
    let is_carrier = |token: &Token| {
        let word = written(text, token);
        let name = match token.kind {
            Kind::Word => Cow::Borrowed(word),
            Kind::Quoted => Cow::Owned(unquoted(word)),
            Kind::Variable => match word.strip_prefix("@@") {
                Some(system) => Cow::Borrowed(system.rsplit('.').next().unwrap_or_default()),
                // A user's: it may become another statement, in parts.
                None => return true,
            },
            _ => return false,
        };
        CARRIERS.iter().chain(&KEYED).any(|one| one.eq_ignore_ascii_case(&name))
    };
    let together: String = literals.iter().map(|token| meaning(written(text, token))).collect();
    let tells = |text: &str| {
        let lower = text.to_ascii_lowercase();
        TELLING.iter().any(|word| lower.contains(word))
    };
    tokens.iter().any(is_carrier) || tells(text) || tells(&together)
}

/// What a literal says.
fn meaning(written: &str) -> Cow<'_, str> {
    match written.as_bytes() {
        [b'0', b'x', ..] | [b'x' | b'X', b'\'', ..] => Cow::Owned(counted(written, 16, 2)),
        [b'0', b'b', ..] | [b'b' | b'B', b'\'', ..] => Cow::Owned(counted(written, 2, 8)),
        [b'0'..=b'9' | b'.', ..] => Cow::Borrowed(written),
        _ => Cow::Owned(unquoted(written)),
    }
}

/// The letters whose bytes stand in digits, so many to a byte, behind two letters of another meaning.
fn counted(written: &str, base: u32, to_a_byte: usize) -> String {
    let digits = written.get(2..).unwrap_or_default().trim_end_matches('\'');
    // The first byte may want for digits.
    let (first, rest) = digits.split_at_checked(digits.len() % to_a_byte).unwrap_or(("", digits));
    let bytes = iter::once(first.as_bytes()).chain(rest.as_bytes().chunks(to_a_byte));
    let byte = |digits: &[u8]| u8::from_str_radix(str::from_utf8(digits).ok()?, base).ok();
    String::from_utf8_lossy(&bytes.filter_map(byte).collect::<Vec<u8>>()).into_owned()
}

fn is_literal(text: &str, token: &Token) -> bool {
    instead(text, token, ["", ""]).is_some()
}

/// What stands for a token that is a literal, and what for a string behind an `@`: it may be the host of an account.
fn instead(text: &str, token: &Token, [literal, behind]: [&'static str; 2]) -> Option<&'static str> {
    match token.kind {
        Kind::Text | Kind::Number => Some(literal),
        Kind::Variable => written(text, token).contains(['\'', '"']).then_some(behind),
        _ => None,
    }
}

/// The tokens of a text that may be cut like that. In character sets where a backtick is the half of a letter, what looks like a
/// name may have strings in it.
fn readable(text: &str) -> Option<Vec<Token>> {
    let tokens = (text.len() <= MAX_BYTES).then(|| tokens(text, MAX_TOKENS).ok())??;
    let has_quotes = |token: &Token| token.kind == Kind::Quoted && written(text, token).contains(['\'', '"']);
    (!tokens.iter().any(has_quotes) && !is_cut_otherwise(text, &tokens)).then_some(tokens)
}

/// Whether a session whose `sql_mode` has a backslash for a letter like any other reads other tokens in it.
fn is_cut_otherwise(text: &str, by_default: &[Token]) -> bool {
    // A letter as long that no token but a string has: as a backslash then.
    let plain = text.contains('\\').then(|| text.replace('\\', "\u{1}"));
    plain.is_some_and(|plain| tokens(&plain, MAX_TOKENS).is_ok_and(|tokens| tokens != by_default))
}

fn written<'a>(text: &'a str, token: &Token) -> &'a str {
    text.get(token.range.clone()).unwrap_or_default()
}

/// What stands between the tokens, and behind the last.
fn comments<'a>(text: &'a str, tokens: &'a [Token]) -> impl Iterator<Item = &'a str> {
    let starts = tokens.iter().map(|token| token.range.start).chain([text.len()]);
    let ends = iter::once(0).chain(tokens.iter().map(|token| token.range.end));
    ends.zip(starts).filter_map(|(end, start)| text.get(end..start))
}

/// The tokens, with white space between them as it was and a space for each comment.
fn replaced(text: &str, tokens: &[Token], with: impl Fn(&Token) -> Option<&'static str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for token in tokens {
        let gap = text.get(at..token.range.start).unwrap_or_default();
        out.push_str(if gap.trim().is_empty() { gap } else { " " });
        out.push_str(with(token).unwrap_or_else(|| written(text, token)));
        at = token.range.end;
    }
    out
}

/// What stands for a text of which nothing may be kept.
fn unread(text: &str) -> String {
    format!("[{} bytes that cannot be read]", text.len())
}
