//! Cuts a text into tokens as PostgreSQL does with `standard_conforming_strings = on`.
//!
//! It exists beside the parser's own lexer so that the two can be held against each other: a text that they cut
//! differently is refused. What PostgreSQL versions disagree about (a number that runs into a word, an escape
//! string that is continued on the next line, `UESCAPE`) is refused here. It must never know what a statement
//! means.

use std::ops::Range;

/// What a token is, as far as the guard and the facts need to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A keyword or an identifier without quotes.
    Word,
    /// `"..."` or `U&"..."`.
    QuotedWord,
    /// A string of any style, dollar quotes included.
    String(Style),
    /// A number.
    Number,
    /// `$1`.
    Parameter,
    /// A run of operator characters.
    Operator,
    /// `(` or `[`.
    Open,
    /// `)` or `]`.
    Close,
    /// `;`
    Semicolon,
    /// `,`
    Comma,
    /// `.`, `:` and their doubles, `:=`.
    Punctuation,
}

/// How a string is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// `'...'`, `N'...'`
    Plain,
    /// `E'...'`
    Escape,
    /// `U&'...'`
    Unicode,
    /// `B'...'`, `X'...'`
    Bits,
    /// `$tag$...$tag$`
    Dollar,
}

/// One token: what it is, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    /// What it is.
    pub(super) kind: Kind,
    /// Its bytes in the text.
    pub(super) range: Range<usize>,
}

/// All tokens of `text`, without white space and comments, or why it cannot be cut. At most `limit` tokens.
pub(super) fn tokens(text: &str, limit: usize) -> Result<Vec<Token>, String> {
    let mut tokens = Tokens::new(text);
    let mut found = Vec::new();
    while let Some(token) = tokens.next()? {
        if found.len() >= limit {
            return Err(format!("it has more than {limit} tokens"));
        }
        found.push(token);
    }
    Ok(found)
}

/// Cuts a text one token after the other.
pub(super) struct Tokens<'a> {
    lexer: Lexer<'a>,
    previous: Option<Kind>,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { lexer: Lexer { text, at: 0 }, previous: None }
    }

    /// The next token, or why there is none; nothing at the end of the text.
    pub(super) fn next(&mut self) -> Result<Option<Token>, String> {
        let lexer = &mut self.lexer;
        lexer.skip_trivia()?;
        let start = lexer.at;
        let Some(kind) = lexer.next_kind()? else { return Ok(None) };
        let range = start..lexer.at;
        if kind == Kind::Word
            && lexer.text.get(range.clone()).is_some_and(|w| w.eq_ignore_ascii_case("uescape"))
        {
            return Err("UESCAPE is not read".to_owned());
        }
        if let (Kind::String(_), Some(Kind::String(style))) = (kind, self.previous)
            && style != Style::Plain
        {
            return Err("a string with escapes is continued by another string".to_owned());
        }
        self.previous = Some(kind);
        Ok(Some(Token { kind, range }))
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

fn starts_word(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

fn continues_word(c: char) -> bool {
    starts_word(c) || c.is_ascii_digit() || c == '$'
}

fn is_operator(c: char) -> bool {
    matches!(
        c,
        '~' | '!' | '@' | '#' | '^' | '&' | '|' | '`' | '?' | '+' | '-' | '*' | '/' | '%' | '<' | '>' | '='
    )
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn eat_while(&mut self, fits: impl Fn(char) -> bool) {
        let rest = self.rest();
        let length = rest.find(|c| !fits(c)).unwrap_or(rest.len());
        self.at += length;
    }

    fn skip_trivia(&mut self) -> Result<(), String> {
        loop {
            // A vertical tab is white space only from PostgreSQL 16 on.
            self.eat_while(|c| matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}'));
            if self.rest().starts_with("--") {
                self.eat_while(|c| c != '\n' && c != '\r');
            } else if self.rest().starts_with("/*") {
                self.block_comment()?;
            } else {
                return Ok(());
            }
        }
    }

    fn block_comment(&mut self) -> Result<(), String> {
        let inside = self.rest().get(2..).unwrap_or_default();
        if inside.starts_with('!') || inside.starts_with("M!") || inside.starts_with("m!") {
            return Err("it has a comment that some servers execute".to_owned());
        }
        let mut depth = 0_usize;
        loop {
            let rest = self.rest();
            if rest.starts_with("/*") {
                depth += 1;
                self.at += 2;
            } else if rest.starts_with("*/") {
                depth -= 1;
                self.at += 2;
                if depth == 0 {
                    return Ok(());
                }
            } else if self.bump().is_none() {
                return Err("a comment does not end".to_owned());
            }
        }
    }

    fn next_kind(&mut self) -> Result<Option<Kind>, String> {
        let Some(first) = self.peek() else { return Ok(None) };
        let kind = match first {
            '\'' => self.string(Style::Plain, 1)?,
            '"' => self.quoted_word(1)?,
            '0'..='9' => self.number()?,
            '.' if self.rest().get(1..).is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit())) => {
                self.number()?
            }
            '$' => self.dollar()?,
            '(' | '[' => self.single(Kind::Open),
            ')' | ']' => self.single(Kind::Close),
            ';' => self.single(Kind::Semicolon),
            ',' => self.single(Kind::Comma),
            '.' | ':' => self.punctuation(),
            c if is_operator(c) => self.operator(),
            c if starts_word(c) => self.word_or_prefixed()?,
            other => return Err(format!("the character {:?} belongs to no token", other)),
        };
        Ok(Some(kind))
    }

    fn single(&mut self, kind: Kind) -> Kind {
        self.at += 1;
        kind
    }

    fn punctuation(&mut self) -> Kind {
        let rest = self.rest();
        let double = rest.starts_with("..") || rest.starts_with("::") || rest.starts_with(":=");
        self.at += if double { 2 } else { 1 };
        Kind::Punctuation
    }

    /// A run of operator characters, which a comment's beginning ends.
    fn operator(&mut self) -> Kind {
        let rest = self.rest();
        let length = rest.find(|c| !is_operator(c)).unwrap_or(rest.len());
        let run = rest.get(..length).unwrap_or_default();
        let comment = run.find("--").into_iter().chain(run.find("/*")).min();
        self.at += comment.unwrap_or(length).max(1);
        Kind::Operator
    }

    fn word_or_prefixed(&mut self) -> Result<Kind, String> {
        let mut ahead = self.rest().chars().map(|c| c.to_ascii_lowercase());
        match (ahead.next(), ahead.next(), ahead.next()) {
            (Some('e'), Some('\''), _) => self.string(Style::Escape, 2),
            (Some('n'), Some('\''), _) => self.string(Style::Plain, 2),
            (Some('b' | 'x'), Some('\''), _) => self.string(Style::Bits, 2),
            (Some('u'), Some('&'), Some('\'')) => self.string(Style::Unicode, 3),
            (Some('u'), Some('&'), Some('"')) => self.quoted_word(3),
            _ => {
                self.eat_while(continues_word);
                Ok(Kind::Word)
            }
        }
    }

    fn string(&mut self, style: Style, opening: usize) -> Result<Kind, String> {
        self.at += opening;
        loop {
            match self.bump() {
                Some('\\') if style == Style::Escape => {
                    self.bump();
                }
                Some('\'') if self.peek() == Some('\'') => {
                    self.bump();
                }
                Some('\'') => return Ok(Kind::String(style)),
                Some(_) => {}
                None => return Err("a string does not end".to_owned()),
            }
        }
    }

    fn quoted_word(&mut self, opening: usize) -> Result<Kind, String> {
        self.at += opening;
        loop {
            match self.bump() {
                Some('"') if self.peek() == Some('"') => {
                    self.bump();
                }
                Some('"') => return Ok(Kind::QuotedWord),
                Some(_) => {}
                None => return Err("a quoted name does not end".to_owned()),
            }
        }
    }

    fn dollar(&mut self) -> Result<Kind, String> {
        let rest = self.rest();
        let tag_end = rest.get(1..).and_then(|inside| inside.find('$')).map(|at| at + 2);
        let tag = tag_end.and_then(|end| rest.get(..end)).filter(|tag| {
            let name = tag.trim_matches('$');
            name.is_empty() || name.starts_with(starts_word) && name.chars().all(continues_word)
        });
        if let Some(tag) = tag {
            let length = tag.len();
            let closing = rest.get(length..).and_then(|body| body.find(tag));
            let closing = closing.ok_or("a dollar-quoted string does not end")?;
            self.at += length + closing + length;
            return Ok(Kind::String(Style::Dollar));
        }
        self.at += 1;
        let digits = self.at;
        self.eat_while(|c| c.is_ascii_digit());
        if self.at == digits {
            return Err("a $ stands alone".to_owned());
        }
        self.refuse_word_after("a parameter").map(|()| Kind::Parameter)
    }

    fn number(&mut self) -> Result<Kind, String> {
        let rest = self.rest();
        let mut ahead = rest.chars().map(|c| c.to_ascii_lowercase());
        if let (Some('0'), Some('x' | 'o' | 'b')) = (ahead.next(), ahead.next()) {
            self.at += 2;
            self.eat_while(|c| c.is_ascii_hexdigit() || c == '_');
            return self.refuse_word_after("a number").map(|()| Kind::Number);
        }
        self.eat_while(|c| c.is_ascii_digit() || c == '_');
        let rest = self.rest();
        if rest.starts_with('.') && !rest.starts_with("..") {
            self.at += 1;
            self.eat_while(|c| c.is_ascii_digit() || c == '_');
        }
        let rest = self.rest();
        if rest.starts_with(['e', 'E']) {
            let after = rest.get(1..).unwrap_or_default();
            let unsigned = after.strip_prefix(['+', '-']).unwrap_or(after);
            if unsigned.starts_with(|c: char| c.is_ascii_digit()) {
                self.at += 1 + after.len() - unsigned.len();
                self.eat_while(|c| c.is_ascii_digit() || c == '_');
            }
        }
        self.refuse_word_after("a number").map(|()| Kind::Number)
    }

    /// PostgreSQL up to 14 reads `1abc` as two tokens, later versions refuse it.
    fn refuse_word_after(&self, what: &str) -> Result<(), String> {
        if self.peek().is_some_and(continues_word) {
            return Err(format!("{what} runs into a word"));
        }
        Ok(())
    }
}
