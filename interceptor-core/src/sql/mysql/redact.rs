//! Takes secrets, or all literals, out of a text before it is recorded or shown. What cannot be cut into tokens loses
//! everything from its first quote on.

use std::borrow::Cow;

use super::{
    super::{
        guard::{MAX_BYTES, MAX_TOKENS},
        redact::looks_secret,
    },
    lexer::{Kind, Token, tokens},
};

/// Words with which the strings of a statement may be passwords.
const CARRIERS: [&str; 9] =
    ["identified", "password", "user", "server", "master", "replica", "connection", "using", "auth"];
/// Functions whose arguments are keys and passwords.
const KEYED: [&str; 6] = ["aes_encrypt", "aes_decrypt", "encode", "decode", "des_encrypt", "encrypt"];

/// The text with passwords taken out: every string of a statement that may set or give one, and every string elsewhere that
/// looks like it carries one.
pub fn redact(text: &str) -> Cow<'_, str> {
    let Some(tokens) = readable(text) else { return Cow::Owned(cut(text)) };
    let words = tokens.iter().filter(|token| token.kind == Kind::Word).map(|token| written(text, token));
    let mut first = None;
    let mut carries = false;
    for word in words {
        let first = *first.get_or_insert(word);
        let changes = ["create", "alter", "set", "grant", "change", "execute"]
            .iter()
            .any(|one| one.eq_ignore_ascii_case(first));
        carries |= changes && CARRIERS.iter().any(|one| one.eq_ignore_ascii_case(word));
        carries |=
            KEYED.iter().any(|one| one.eq_ignore_ascii_case(word)) || word.eq_ignore_ascii_case("password");
    }
    let masked = |token: &Token| token.kind == Kind::Text && (carries || looks_secret(written(text, token)));
    if !carries && !tokens.iter().any(masked) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(replaced(text, &tokens, |token| masked(token).then_some("'***'")))
}

/// The text with every string and number replaced by `?`, and without its comments.
pub fn without_literals(text: &str) -> Cow<'_, str> {
    let Some(tokens) = readable(text) else { return Cow::Owned(cut(text)) };
    Cow::Owned(replaced(text, &tokens, |token| {
        matches!(token.kind, Kind::Text | Kind::Number).then_some("?")
    }))
}

fn readable(text: &str) -> Option<Vec<Token>> {
    (text.len() <= MAX_BYTES).then(|| tokens(text, MAX_TOKENS).ok())?
}

fn written<'a>(text: &'a str, token: &Token) -> &'a str {
    text.get(token.range.clone()).unwrap_or_default()
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

fn cut(text: &str) -> String {
    let end =
        text.find(['\'', '"', '`', '#', '@']).into_iter().chain(text.find("--")).chain(text.find("/*")).min();
    let kept = text.get(..end.unwrap_or(text.len())).unwrap_or_default();
    let kept: String = kept.chars().take(4096).map(|c| if c.is_ascii_digit() { '?' } else { c }).collect();
    if kept.len() < text.len() { format!("{kept} [the rest cannot be read]") } else { kept }
}
