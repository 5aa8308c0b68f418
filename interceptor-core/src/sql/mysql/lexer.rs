//! MySQL's tokens, as its manual's chapter "Language Structure" has them, for the default `sql_mode`: quotes of both
//! kinds are strings, a backslash escapes.
//!
//! Promise: a text that the server might cut otherwise is an error, above all one with a comment that a server carries
//! out. It must never know what a statement does.

use std::ops::Range;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A word: a keyword or a name.
    Word,
    /// A name in backticks.
    Quoted,
    /// A string, of either quote, or in hexadecimal or binary between quotes.
    Text,
    Number,
    /// A user's or the system's variable.
    Variable,
    /// `?`.
    Parameter,
    Open,
    Close,
    Comma,
    Dot,
    Semicolon,
    Operator,
}

/// A token, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) range: Range<usize>,
}

/// Longest first.
const OPERATORS: [&str; 25] = [
    "<=>", "->>", "<>", "!=", "<=", ">=", "<<", ">>", "&&", "||", ":=", "->", "+", "-", "*", "/", "%", "=",
    "<", ">", "!", "&", "|", "^", "~",
];

/// The tokens of `text`, of which there may be `most`.
pub(super) fn tokens(text: &str, most: usize) -> Result<Vec<Token>, String> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens: Vec<Token> = Vec::new();
    while let Some(token) = lexer.next()? {
        if tokens.len() >= most {
            return Err(format!("it has more than {most} tokens"));
        }
        tokens.push(token);
    }
    Ok(tokens)
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at.saturating_add(ahead)).copied()
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_while(&mut self, fits: impl Fn(u8) -> bool) -> usize {
        let start = self.at;
        while self.peek(0).is_some_and(&fits) {
            self.at += 1;
        }
        self.at - start
    }

    /// Passes by white space and comments.
    fn skip(&mut self) -> Result<(), String> {
        loop {
            self.skip_while(is_space);
            let line = match (self.peek(0), self.peek(1)) {
                (Some(b'#'), _) => true,
                (Some(b'-'), Some(b'-')) => {
                    self.peek(2).is_none_or(|byte| is_space(byte) || byte.is_ascii_control())
                }
                (Some(b'/'), Some(b'*')) => {
                    self.comment()?;
                    continue;
                }
                _ => return Ok(()),
            };
            if !line {
                return Ok(());
            }
            self.skip_while(|byte| byte != b'\n');
        }
    }

    fn comment(&mut self) -> Result<(), String> {
        let rest = self.rest();
        if rest.starts_with("/*!") || rest.starts_with("/*M!") || rest.starts_with("/*+") {
            return Err("it has a comment that some servers carry out (`/*!`, `/*M!`, `/*+`)".to_owned());
        }
        let length = rest.get(2..).and_then(|inside| inside.find("*/"));
        self.at = self.at.saturating_add(length.ok_or("a comment does not end")?).saturating_add(4);
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Token>, String> {
        self.skip()?;
        let Some(byte) = self.peek(0) else { return Ok(None) };
        let start = self.at;
        let single = |kind| (1, kind);
        let (length, kind) = match byte {
            b'\'' | b'"' => (self.quoted(byte, 0)?, Kind::Text),
            b'`' => (self.quoted(byte, 0)?, Kind::Quoted),
            b'x' | b'X' | b'b' | b'B' | b'n' | b'N' if self.peek(1) == Some(b'\'') => {
                (self.quoted(b'\'', 1)?, Kind::Text)
            }
            b'0'..=b'9' => return self.number(start).map(Some),
            b'.' if self.peek(1).is_some_and(|byte| byte.is_ascii_digit()) => {
                return self.number(start).map(Some);
            }
            b'@' => (self.variable()?, Kind::Variable),
            b'?' => single(Kind::Parameter),
            b'(' => single(Kind::Open),
            b')' => single(Kind::Close),
            b',' => single(Kind::Comma),
            b'.' => single(Kind::Dot),
            b';' => single(Kind::Semicolon),
            // MySQL 9 may begin a string with it.
            b'$' => return Err("a word begins with `$`".to_owned()),
            byte if is_word(byte) => {
                let length = self.rest().bytes().take_while(|byte| is_word(*byte)).count();
                (length, Kind::Word)
            }
            _ => {
                let found = OPERATORS.iter().find(|operator| self.rest().starts_with(**operator));
                let found = found.ok_or_else(|| {
                    format!("{:?} is not read here", self.rest().chars().next().unwrap_or_default())
                })?;
                (found.len(), Kind::Operator)
            }
        };
        self.at = start.saturating_add(length);
        let range = start..self.at;
        let written = self.text.get(range.clone()).unwrap_or_default();
        // Servers keep names in three bytes to a letter, and differ in what they make of the others.
        if matches!(kind, Kind::Word | Kind::Quoted) && written.chars().any(|letter| letter > '\u{ffff}') {
            return Err("a name has a letter beyond U+FFFF".to_owned());
        }
        Ok(Some(Token { kind, range }))
    }

    /// How long the quoted thing is whose quote stands `before` bytes on.
    fn quoted(&self, quote: u8, before: usize) -> Result<usize, String> {
        let mut length = before.saturating_add(1);
        loop {
            match self.peek(length) {
                None => return Err("a quote does not end".to_owned()),
                Some(b'\\') if quote != b'`' => length += 2,
                Some(byte) if byte == quote => {
                    length += 1;
                    if self.peek(length) != Some(quote) {
                        return Ok(length);
                    }
                    length += 1;
                }
                Some(_) => length += 1,
            }
        }
    }

    fn number(&mut self, start: usize) -> Result<Token, String> {
        let behind_a_name = |at: usize| {
            at.checked_sub(1)
                .and_then(|at| self.text.as_bytes().get(at))
                .is_some_and(|byte| is_word(*byte) || matches!(byte, b'`' | b'.' | b'@'))
        };
        if behind_a_name(start) {
            return Err("a number stands right behind a name".to_owned());
        }
        let base = match (self.peek(0), self.peek(1)) {
            (Some(b'0'), Some(b'x')) => Some(16),
            (Some(b'0'), Some(b'b')) => Some(2),
            _ => None,
        };
        if let Some(base) = base {
            self.at += 2;
            let digits = self.skip_while(|byte| char::from(byte).is_digit(base));
            if digits == 0 {
                return Err("a number without digits".to_owned());
            }
        } else {
            self.skip_while(|byte| byte.is_ascii_digit());
            if self.peek(0) == Some(b'.') {
                self.at += 1;
                self.skip_while(|byte| byte.is_ascii_digit());
            }
            if matches!(self.peek(0), Some(b'e' | b'E')) {
                self.at += 1;
                if matches!(self.peek(0), Some(b'+' | b'-')) {
                    self.at += 1;
                }
                if self.skip_while(|byte| byte.is_ascii_digit()) == 0 {
                    return Err("a number whose exponent has no digits".to_owned());
                }
            }
        }
        if self.peek(0).is_some_and(|byte| is_word(byte) || byte == b'.') {
            return Err("a number runs into a word".to_owned());
        }
        Ok(Token { kind: Kind::Number, range: start..self.at })
    }

    fn variable(&self) -> Result<usize, String> {
        let system = usize::from(self.peek(1) == Some(b'@'));
        let before = 1 + system;
        match self.peek(before) {
            Some(quote @ (b'\'' | b'"' | b'`')) if system == 0 => self.quoted(quote, before),
            Some(byte) if is_word(byte) => {
                let rest = self.text.get(self.at.saturating_add(before)..).unwrap_or_default();
                let length = rest.bytes().take_while(|byte| is_word(*byte) || *byte == b'.').count();
                if !rest.get(..length).is_some_and(str::is_ascii) {
                    return Err("a variable with other letters than ASCII's".to_owned());
                }
                Ok(before.saturating_add(length))
            }
            _ => Err("an `@` without a name".to_owned()),
        }
    }
}

/// What a quoted name or a string means: without its quotes, with its escapes undone.
pub(super) fn unquoted(written: &str) -> String {
    let start = written.find(['\'', '"', '`']).unwrap_or(0);
    let inside = written.get(start..).unwrap_or_default();
    let mut characters = inside.chars();
    let Some(quote) = characters.next() else { return String::new() };
    let mut out = String::with_capacity(inside.len());
    while let Some(character) = characters.next() {
        match character {
            '\\' if quote != '`' => match characters.next() {
                Some('0') => out.push('\0'),
                Some('b') => out.push('\u{8}'),
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some('t') => out.push('\t'),
                Some('Z') => out.push('\u{1a}'),
                Some(other) => out.push(other),
                None => {}
            },
            character if character == quote => {
                // Doubled, or the end.
                if characters.next() != Some(quote) {
                    break;
                }
                out.push(quote);
            }
            character => out.push(character),
        }
    }
    out
}
