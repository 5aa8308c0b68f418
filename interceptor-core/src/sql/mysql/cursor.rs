//! Reads tokens one by one, for statements that need no parser, and writes them down for the parser otherwise.

use super::{
    Name,
    lexer::{Kind, Token, unquoted},
    words::is_reserved,
};

/// Tokens of a text that are still to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    rest: &'a [Token],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str, rest: &'a [Token]) -> Self {
        Self { text, rest }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn written(&self, token: &Token) -> &'a str {
        self.text.get(token.range.clone()).unwrap_or_default()
    }

    /// What comes next.
    pub(super) fn kind(&self) -> Option<Kind> {
        self.rest.first().map(|token| token.kind)
    }

    /// Takes the next token, as written.
    pub(super) fn next(&mut self) -> Option<(Kind, &'a str)> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some((first.kind, self.written(first)))
    }

    fn word_at(&self, place: usize) -> Option<&'a str> {
        self.rest.get(place).filter(|token| token.kind == Kind::Word).map(|token| self.written(token))
    }

    /// Whether these words come next.
    pub(super) fn sees(&self, words: &[&str]) -> bool {
        let fits = |(place, word): (usize, &&str)| {
            self.word_at(place).is_some_and(|found| found.eq_ignore_ascii_case(word))
        };
        words.iter().enumerate().all(fits)
    }

    /// Takes these words, if they come next.
    pub(super) fn takes(&mut self, words: &[&str]) -> bool {
        let sees = self.sees(words);
        if sees {
            self.rest = self.rest.get(words.len()..).unwrap_or_default();
        }
        sees
    }

    /// Takes one of these words, if one comes next.
    pub(super) fn takes_any(&mut self, words: &[&str]) -> Option<usize> {
        let found = words.iter().position(|word| self.sees(&[word]))?;
        self.rest = self.rest.get(1..).unwrap_or_default();
        Some(found)
    }

    /// Takes a token of that kind, if it comes next.
    pub(super) fn takes_kind(&mut self, kind: Kind) -> Option<&'a str> {
        (self.kind() == Some(kind)).then(|| self.next()).flatten().map(|(_, written)| written)
    }

    /// Takes that operator, if it comes next.
    pub(super) fn takes_operator(&mut self, operator: &str) -> bool {
        let sees = self
            .rest
            .first()
            .is_some_and(|token| token.kind == Kind::Operator && self.written(token) == operator);
        if sees {
            self.rest = self.rest.get(1..).unwrap_or_default();
        }
        sees
    }

    /// Takes a name, as the server has it; a reserved word is none.
    pub(super) fn identifier(&mut self) -> Option<String> {
        match self.rest.first()?.kind {
            Kind::Word if self.word_at(0).is_some_and(is_reserved) => None,
            Kind::Word => self.next().map(|(_, written)| written.to_owned()),
            Kind::Quoted => self.next().map(|(_, written)| unquoted(written)),
            _ => None,
        }
    }

    /// Takes a name that may stand behind a database's.
    pub(super) fn name(&mut self) -> Option<Name> {
        let first = self.identifier()?;
        if self.takes_kind(Kind::Dot).is_none() {
            return Some(Name { database: None, name: first });
        }
        Some(Name { database: Some(first), name: self.identifier()? })
    }

    /// Takes names with commas between.
    pub(super) fn names(&mut self) -> Option<Vec<Name>> {
        let mut names = vec![self.name()?];
        while self.takes_kind(Kind::Comma).is_some() {
            names.push(self.name()?);
        }
        Some(names)
    }

    /// Whether these words stand anywhere in what is left.
    pub(super) fn has(&self, words: &[&str]) -> bool {
        (0..self.rest.len())
            .any(|place| Self { rest: self.rest.get(place..).unwrap_or_default(), ..*self }.sees(words))
    }

    /// Takes what stands before the next comma at this level.
    pub(super) fn take_part(&mut self) -> Self {
        let mut depth = 0_usize;
        let end = self.rest.iter().position(|token| {
            match token.kind {
                Kind::Open => depth += 1,
                Kind::Close => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && token.kind == Kind::Comma
        });
        let (part, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        Self { text: self.text, rest: part }
    }

    /// What stands before these words, if they are its end.
    pub(super) fn without_end(self, words: &[&str]) -> Option<Self> {
        let at = self.rest.len().saturating_sub(words.len());
        let (before, end) = self.rest.split_at(at);
        let fits = Self { text: self.text, rest: end }.sees(words) && end.len() == words.len();
        fits.then_some(Self { rest: before, ..self })
    }

    /// What is left, for the parser: without comments, a space between any two tokens, and of each string only that it is
    /// one. Strings that follow each other are one, as to the server. A word with letters that the parser might take for
    /// spaces, or for those of its keywords, stands in backticks.
    pub(super) fn canonical(&self) -> String {
        let mut out = String::new();
        let mut previous = None;
        for token in self.rest {
            let kind = token.kind;
            if kind == Kind::Text && previous == Some(Kind::Text) {
                continue;
            }
            out.push(' ');
            match kind {
                Kind::Text => out.push_str("'x'"),
                Kind::Variable => out.push_str("@v"),
                Kind::Number => out.push_str(&number(self.written(token))),
                Kind::Word if !self.written(token).is_ascii() => {
                    out.extend(["`", self.written(token), "`"]);
                }
                _ => out.push_str(self.written(token)),
            }
            previous = Some(kind);
        }
        out
    }
}

/// A number as any parser reads it.
fn number(written: &str) -> String {
    match written.get(..2) {
        Some("0x" | "0b") => "0".to_owned(),
        _ => written.to_owned(),
    }
}
