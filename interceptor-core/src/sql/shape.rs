//! A text's shape: what it is but for the values of its plain literals, so that texts which differ in those alone need
//! be read only once.
//!
//! Promise: texts of one shape are cut into the same tokens, and those that may differ are such that every lexer cuts
//! them alike: numbers of digits alone with at most one point inside, and strings in plain quotes without a quote or a
//! backslash in them. It must never know whether a statement's meaning hangs on such a value.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    ops::Range,
};

use super::{
    guard::{MAX_BYTES, MAX_TOKENS},
    lexer::{Kind, Style, Tokens},
};

/// A fingerprint of a shape. The keys of its hashes are secret and drawn at start, so that nobody can make two
/// shapes have one.
pub(super) type Key = [u64; 2];

/// The secret keys of the fingerprints.
#[derive(Debug, Default)]
pub(super) struct Keys([RandomState; 2]);

/// What does not occur in UTF-8, and so ends a token.
const END: u8 = 0xff;

/// The fingerprint of a text of one statement, and where that stands in it. None for texts that have no statement or
/// several, or that cannot be cut.
pub(super) fn of(text: &str, keys: &Keys) -> Option<(Key, Range<usize>)> {
    if text.len() > MAX_BYTES || text.contains(['\0', '\u{feff}']) {
        return None;
    }
    let mut hashers = keys.0.each_ref().map(BuildHasher::build_hasher);
    let range = cut(text, |apart, token, written| {
        for hasher in &mut hashers {
            hasher.write(&[u8::from(apart)]);
            hasher.write(lifted(token, written).unwrap_or(written.as_bytes()));
            hasher.write(&[END]);
        }
    })?;
    Some((hashers.map(|hasher| hasher.finish()), range))
}

/// A statement with its plain literals left open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Its tokens, each behind a space where something stands before it. What stands for a literal that is left open is
    /// no token.
    pub tokens: Vec<String>,
    /// The literals that are left open, as they are written here, in order.
    pub free: Vec<String>,
}

/// The shape of a text of one statement. None where [`Readings`](super::Readings) would not take one like it for the
/// same: several statements, or what cannot be cut.
pub fn shape(text: &str) -> Option<Shape> {
    if text.len() > MAX_BYTES || text.contains(['\0', '\u{feff}']) {
        return None;
    }
    let (mut tokens, mut free) = (Vec::new(), Vec::new());
    cut(text, |apart, token, written| {
        let open = lifted(token, written).map(String::from_utf8_lossy);
        free.extend(open.is_some().then(|| written.to_owned()));
        tokens.push(format!("{}{}", if apart { " " } else { "" }, open.as_deref().unwrap_or(written)));
    })?;
    Some(Shape { tokens, free })
}

/// Gives the tokens of a text's only statement to `each`, with whether something stands before them, and says where the
/// statement is.
fn cut(text: &str, mut each: impl FnMut(bool, Kind, &str)) -> Option<Range<usize>> {
    let mut tokens = Tokens::new(text);
    let mut range: Option<Range<usize>> = None;
    let mut previous = None;
    let mut ended = false;
    for _ in 0..=MAX_TOKENS {
        let Some(token) = tokens.next().ok()? else { return range };
        if token.kind == Kind::Semicolon {
            // What stands before the first token says nothing either.
            ended |= range.is_some();
            continue;
        }
        // Strings that follow each other may be one, by what stands between them.
        let strings = matches!((previous, token.kind), (Some(Kind::String(_)), Kind::String(_)));
        if ended || strings {
            return None;
        }
        let begin = range.as_ref().map_or(token.range.start, |range| range.start);
        let apart = range.is_some_and(|range| range.end < token.range.start);
        each(apart, token.kind, text.get(token.range.clone())?);
        range = Some(begin..token.range.end);
        previous = Some(token.kind);
    }
    None
}

/// What stands for a literal whose value may differ. No token is written so.
fn lifted(kind: Kind, written: &str) -> Option<&'static [u8]> {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    match kind {
        Kind::Number if digits(written) => Some(b"\x01"),
        Kind::Number => {
            let (whole, fraction) = written.split_once('.')?;
            (digits(whole) && digits(fraction)).then_some(b"\x02")
        }
        Kind::String(Style::Plain) => {
            let inside = written.strip_prefix('\'')?.strip_suffix('\'')?;
            (!inside.contains(['\'', '\\'])).then_some(b"\x03")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_literals_alone_make_no_difference() {
        let keys = Keys::default();
        let key = |text: &str| of(text, &keys).map(|(key, _)| key);
        let same = [
            "SELECT a FROM t WHERE b = 1 AND c = 'x' LIMIT 1.5",
            "SELECT a FROM t WHERE b = 4711 AND c = 'é -- ; /*' LIMIT 22.0",
            " SELECT a  FROM t /* x */ WHERE b = 0 AND c = '' LIMIT 1.5 ;; -- y",
        ];
        assert!(key(same[0]).is_some());
        assert!(same.iter().all(|text| key(text) == key(same[0])));
        for other in [
            "SELECT a FROM t WHERE b = 1 AND c = 'x' LIMIT 1",
            "SELECT a FROM t WHERE b = 1 AND c = \"x\" LIMIT 1.5",
            "SELECT a FROM t WHERE b = 1 AND c = 1 LIMIT 1.5",
            "SELECT a FROM t WHERE b = 1 AND c = 'x''y' LIMIT 1.5",
            "SELECT a FROM t WHERE b = 1 AND c = 'x\\' LIMIT 1.5",
            "SELECT a FROM t WHERE b = 1 AND c = E'x' LIMIT 1.5",
            "SELECT a FROM t WHERE b = $1 AND c = 'x' LIMIT 1.5",
            "SELECT A FROM t WHERE b = 1 AND c = 'x' LIMIT 1.5",
            "SELECT a FROM t WHERE b =1 AND c = 'x' LIMIT 1.5",
            "SELECT a FROM t WHERE b = 0x1 AND c = 'x' LIMIT 1.5",
        ] {
            assert!(key(other).is_some_and(|other| Some(other) != key(same[0])), "{other}");
        }
        assert_ne!(key("SELECT 1 < = 2"), key("SELECT 1 <= 2"));
        assert_ne!(key("SELECT a b"), key("SELECT ab"));
        for none in
            ["", ";", "SELECT 1; SELECT 2", "SELECT 'a' 'b'", "SELECT 'a", "SELECT 1\0", "/*! x */ SELECT 1"]
        {
            assert_eq!(key(none), None, "{none}");
        }
        for (one, other, same) in
            [(same[0], same[1], true), (same[0], same[2], true), ("SELECT 1", "SELECT x", false)]
        {
            let tokens = |text| shape(text).map(|shape| shape.tokens);
            assert_eq!(tokens(one) == tokens(other), same, "{one} {other}");
        }
        assert_eq!(shape(same[1]).expect("a shape").free, ["4711", "'é -- ; /*'", "22.0"]);
        assert_eq!(shape("SELECT 1; SELECT 2"), None);
        assert_eq!(of("; SELECT 1 ; ", &keys).map(|(_, range)| range), Some(2..10));
    }
}
