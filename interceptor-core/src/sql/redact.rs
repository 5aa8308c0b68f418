//! Takes secrets, or all literals, out of a text before it is recorded or shown.
//!
//! It works on tokens rather than on the syntax tree, so that a statement that cannot be parsed keeps no secret
//! either; what cannot even be cut into tokens loses everything from its first quote on.

use std::{borrow::Cow, ops::Range};

use super::{
    guard::{MAX_BYTES, MAX_TOKENS},
    lexer::{Kind, Token, tokens},
};

/// What stands for a literal that was taken out.
const MASK: &str = "'***'";

/// Second words of CREATE and ALTER statements that may carry passwords and connection strings.
const CARRIERS: [&str; 9] =
    ["foreign", "group", "publication", "role", "server", "subscription", "system", "user", "extension"];

/// The text with passwords and connection strings taken out: every string of statements that make or change
/// roles, user mappings, servers and subscriptions, and every string elsewhere that looks like it carries a
/// password. Text that cannot be read loses all its literals.
///
/// ```
/// use interceptor_core::sql::redact;
/// assert_eq!(redact("ALTER ROLE a PASSWORD 'hunter2'"), "ALTER ROLE a PASSWORD '***'");
/// assert_eq!(redact("SELECT 'hunter2'"), "SELECT 'hunter2'");
/// ```
pub fn redact(text: &str) -> Cow<'_, str> {
    if is_bare(text) {
        return Cow::Borrowed(text);
    }
    let Some(tokens) = readable(text) else { return Cow::Owned(cut(text)) };
    let mut masked: Vec<(Range<usize>, &str)> = Vec::new();
    for statement in tokens.split(|token| token.kind == Kind::Semicolon) {
        let carries = carries_secrets(text, statement);
        for token in statement {
            let written = text.get(token.range.clone()).unwrap_or_default();
            if matches!(token.kind, Kind::String(_)) && (carries || looks_secret(written)) {
                masked.push((token.range.clone(), MASK));
            }
        }
    }
    if carries_any(text, &tokens) {
        masked.extend(comments(text, &tokens));
        masked.sort_by_key(|(range, _)| range.start);
    }
    replace(text, &masked)
}

/// The text with every string and number replaced by `?`, and without its comments: what is recorded where only
/// metadata may be.
///
/// ```
/// use interceptor_core::sql::without_literals;
/// assert_eq!(without_literals("SELECT * FROM t WHERE a = 'x' AND b < 5"), "SELECT * FROM t WHERE a = ? AND b < ?");
/// ```
pub fn without_literals(text: &str) -> Cow<'_, str> {
    let Some(tokens) = readable(text) else { return Cow::Owned(cut(text)) };
    let mut masked = comments(text, &tokens);
    masked.extend(
        tokens
            .iter()
            .filter(|token| matches!(token.kind, Kind::String(_) | Kind::Number))
            .map(|token| (token.range.clone(), "?")),
    );
    masked.sort_by_key(|(range, _)| range.start);
    replace(text, &masked)
}

/// Whether there can be neither a string nor a comment in it: then it carries nothing that would be taken out. What
/// most statements are, and much quicker seen than tokens.
fn is_bare(text: &str) -> bool {
    let bytes = text.as_bytes();
    let opens = |(at, byte): (usize, &u8)| match byte {
        b'\'' | b'"' => true,
        // A parameter is a dollar sign and a digit, and so never the beginning of a string.
        b'$' => !bytes.get(at + 1).is_some_and(u8::is_ascii_digit),
        b'-' => bytes.get(at + 1) == Some(&b'-'),
        b'/' => bytes.get(at + 1) == Some(&b'*'),
        _ => false,
    };
    bytes.len() <= MAX_BYTES && !bytes.iter().enumerate().any(opens)
}

fn readable(text: &str) -> Option<Vec<Token>> {
    (text.len() <= MAX_BYTES).then(|| tokens(text, MAX_TOKENS).ok())?
}

fn word_is(text: &str, token: Option<&Token>, words: &[&str]) -> bool {
    let word = token.filter(|token| token.kind == Kind::Word).and_then(|token| text.get(token.range.clone()));
    word.is_some_and(|word| words.iter().any(|w| w.eq_ignore_ascii_case(word)))
}

fn carries_secrets(text: &str, statement: &[Token]) -> bool {
    word_is(text, statement.first(), &["create", "alter"])
        && (word_is(text, statement.get(1), &CARRIERS)
            || statement.iter().any(|token| word_is(text, Some(token), &["password", "connection"])))
}

fn carries_any(text: &str, tokens: &[Token]) -> bool {
    tokens.split(|token| token.kind == Kind::Semicolon).any(|statement| carries_secrets(text, statement))
}

/// `password=`, `PASSWORD '`, `scheme://user:secret@host`.
pub(super) fn looks_secret(literal: &str) -> bool {
    let lower = literal.to_ascii_lowercase();
    let named = ["password", "passwd", "pwd"].iter().any(|word| {
        lower.match_indices(word).any(|(at, _)| {
            let after = lower.get(at + word.len()..).unwrap_or_default();
            after.trim_start().starts_with(['=', ':', '\'', '$'])
        })
    });
    let in_url = lower.split_once("://").is_some_and(|(_, rest)| {
        rest.split(['/', ' '])
            .next()
            .is_some_and(|authority| authority.contains('@') && authority.contains(':'))
    });
    // The closing quote behind a literal that is only the word is no assignment.
    named && lower.trim_matches('\'') != "password" || in_url
}

/// What lies between tokens and is not white space.
fn comments<'a>(text: &str, tokens: &[Token]) -> Vec<(Range<usize>, &'a str)> {
    let starts = std::iter::once(0).chain(tokens.iter().map(|token| token.range.end));
    let ends = tokens.iter().map(|token| token.range.start).chain([text.len()]);
    starts
        .zip(ends)
        .filter(|(start, end)| text.get(*start..*end).is_some_and(|gap| !gap.trim().is_empty()))
        .map(|(start, end)| (start..end, " "))
        .collect()
}

fn replace<'a>(text: &'a str, masked: &[(Range<usize>, &str)]) -> Cow<'a, str> {
    if masked.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for (range, with) in masked {
        out.push_str(text.get(at..range.start).unwrap_or_default());
        out.push_str(with);
        at = range.end;
    }
    out.push_str(text.get(at..).unwrap_or_default());
    Cow::Owned(out)
}

/// For text that is no sequence of tokens: nothing from the first quote, dollar or comment on, and no digits.
fn cut(text: &str) -> String {
    let comment = [text.find("--"), text.find("/*"), text.find(['\'', '"', '$'])].into_iter().flatten().min();
    let kept = text.get(..comment.unwrap_or(text.len())).unwrap_or_default();
    let kept: String = kept.chars().take(4096).map(|c| if c.is_ascii_digit() { '?' } else { c }).collect();
    if kept.len() < text.len() { format!("{kept} [the rest cannot be read]") } else { kept }
}
