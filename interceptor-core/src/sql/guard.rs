//! Bounds what the parser is given: size, tokens, nesting and the length of chains, so that no text can take
//! more than about a tenth of a second or the stack that [`super::analyze`] sees to. Also finds where statements end, which
//! the parser must agree with.
//!
//! It must never know what a statement does.

use std::ops::Range;

use super::lexer::{Kind, Style, Token, tokens};

/// Longest text, in bytes.
pub const MAX_BYTES: usize = 256 * 1024;
/// Most tokens in a text.
pub const MAX_TOKENS: usize = 20_000;
/// Deepest nesting of brackets and CASE.
pub const MAX_NESTING: usize = 64;
/// Deepest recursion of the parser by other means as well: prefix operators and joins without a condition,
/// summed over all open brackets.
pub const MAX_DEPTH: usize = 192;
/// Most tokens between two commas at the same level: the parser is quadratic in the length of a chain.
pub const MAX_CHAIN: usize = 2_000;
/// Longest operator; PostgreSQL itself stops at 63 bytes.
const MAX_OPERATOR: usize = 24;

/// A text that may be parsed.
pub(super) struct Guarded {
    /// All tokens.
    pub(super) tokens: Vec<Token>,
    /// The tokens of each statement that is not empty, as places in `tokens`, without the semicolon.
    pub(super) statements: Vec<Range<usize>>,
    /// What to parse: the text with the bodies of routines blanked out, byte for byte as long.
    pub(super) parsed: String,
}

impl Guarded {
    /// The bytes that a statement covers.
    pub(super) fn bytes(&self, statement: &Range<usize>) -> Range<usize> {
        let all = self.tokens.get(statement.clone()).unwrap_or_default();
        match (all.first(), all.last()) {
            (Some(first), Some(last)) => first.range.start..last.range.end,
            _ => 0..0,
        }
    }
}

/// Checks `text` against the bounds, or says which one it breaks.
pub(super) fn check(text: &str) -> Result<Guarded, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("it is longer than {MAX_BYTES} bytes"));
    }
    if text.contains('\0') {
        return Err("it has a NUL byte".to_owned());
    }
    if text.contains('\u{feff}') {
        return Err("it has a byte order mark".to_owned());
    }
    let tokens = tokens(text, MAX_TOKENS)?;
    let statements = Bounds::new(text).run(&tokens)?;
    let parsed = blank_routine_bodies(text, &tokens, &statements);
    Ok(Guarded { tokens, statements, parsed })
}

/// What is open at one level of nesting.
#[derive(Default)]
struct Level {
    case: bool,
    /// Tokens since the last comma.
    chain: usize,
    /// Prefix operators and joins since the last comma.
    recursion: usize,
}

struct Bounds<'a> {
    text: &'a str,
    levels: Vec<Level>,
    depth: usize,
    previous: Previous,
}

/// What stood before, as far as telling a prefix operator from an infix one needs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Previous {
    Operand,
    Is,
    Dot,
    Star,
    Begin,
    Other,
}

impl<'a> Bounds<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, levels: vec![Level::default()], depth: 0, previous: Previous::Other }
    }

    fn run(mut self, tokens: &[Token]) -> Result<Vec<Range<usize>>, String> {
        let mut statements = Vec::new();
        let mut start = 0;
        for (place, token) in tokens.iter().enumerate() {
            if token.kind == Kind::Semicolon && self.levels.len() == 1 {
                if start < place {
                    statements.push(start..place);
                }
                start = place + 1;
            }
            self.step(token)?;
        }
        if self.levels.len() > 1 {
            return Err("a bracket or CASE is not closed".to_owned());
        }
        if start < tokens.len() {
            statements.push(start..tokens.len());
        }
        Ok(statements)
    }

    fn step(&mut self, token: &Token) -> Result<(), String> {
        let word = self.text.get(token.range.clone()).unwrap_or_default();
        match token.kind {
            Kind::Open => self.open(false)?,
            Kind::Close => self.close(false)?,
            // Behind an operator a comma is an error, from which the parser recovers without unwinding.
            Kind::Comma if self.previous == Previous::Other => self.count(1, 0)?,
            Kind::Comma | Kind::Semicolon => self.reset(),
            Kind::Word => self.word(word)?,
            Kind::Operator => {
                if word.len() > MAX_OPERATOR {
                    return Err(format!("an operator is longer than {MAX_OPERATOR} characters"));
                }
                let prefix = self.previous != Previous::Operand;
                // The parser reads an operator a character at a time, and each may be a prefix of the next.
                self.count(word.len(), if prefix { word.len() } else { word.len() - 1 })?;
            }
            Kind::QuotedWord | Kind::String(_) | Kind::Number | Kind::Parameter | Kind::Punctuation => {
                self.count(1, 0)?;
            }
        }
        self.previous = match token.kind {
            Kind::QuotedWord | Kind::String(_) | Kind::Number | Kind::Parameter | Kind::Close => {
                Previous::Operand
            }
            Kind::Word => previous_of_word(word),
            Kind::Punctuation if word == "." => Previous::Dot,
            Kind::Operator if word == "*" => Previous::Star,
            _ => Previous::Other,
        };
        Ok(())
    }

    fn word(&mut self, word: &str) -> Result<(), String> {
        let is = |other: &str| word.eq_ignore_ascii_case(other);
        if self.previous == Previous::Dot {
            return self.count(1, 0);
        }
        if is("atomic") && self.previous == Previous::Begin {
            return Err("BEGIN ATOMIC is not read".to_owned());
        }
        if is("case") {
            self.open(true)?;
        } else if is("end") && self.levels.last().is_some_and(|level| level.case) {
            self.close(true)?;
        }
        let prefix = is("not") && !matches!(self.previous, Previous::Operand | Previous::Is);
        self.count(1, usize::from(prefix || is("join") || is("operator")))
    }

    fn open(&mut self, case: bool) -> Result<(), String> {
        self.count(1, 0)?;
        self.levels.push(Level { case, ..Level::default() });
        if self.levels.len() - 1 > MAX_NESTING {
            return Err(format!("it is nested deeper than {MAX_NESTING}"));
        }
        Ok(())
    }

    fn close(&mut self, case: bool) -> Result<(), String> {
        let closed = self.levels.pop().filter(|level| level.case == case && !self.levels.is_empty());
        let closed = closed.ok_or("a bracket is closed that is not open")?;
        self.depth = self.depth.saturating_sub(closed.recursion);
        Ok(())
    }

    fn count(&mut self, chain: usize, recursion: usize) -> Result<(), String> {
        let level = self.levels.last_mut().ok_or("a bracket is closed that is not open")?;
        level.chain += chain;
        level.recursion += recursion;
        self.depth += recursion;
        if level.chain > MAX_CHAIN {
            return Err(format!("an expression has more than {MAX_CHAIN} tokens without a comma"));
        }
        if self.depth > MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} prefix operators and joins are stacked"));
        }
        Ok(())
    }

    fn reset(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            level.chain = 0;
            self.depth = self.depth.saturating_sub(std::mem::take(&mut level.recursion));
        }
    }
}

fn previous_of_word(word: &str) -> Previous {
    const OPERATOR_WORDS: [&str; 43] = [
        "all",
        "and",
        "any",
        "between",
        "by",
        "case",
        "cast",
        "collate",
        "distinct",
        "else",
        "escape",
        "except",
        "from",
        "having",
        "ilike",
        "in",
        "intersect",
        "is",
        "isnull",
        "like",
        "limit",
        "not",
        "notnull",
        "offset",
        "on",
        "operator",
        "or",
        "over",
        "overlaps",
        "returning",
        "select",
        "set",
        "similar",
        "some",
        "symmetric",
        "then",
        "to",
        "union",
        "using",
        "values",
        "when",
        "where",
        "zone",
    ];
    let lower = word.to_ascii_lowercase();
    match lower.as_str() {
        "is" => Previous::Is,
        "begin" => Previous::Begin,
        other if OPERATOR_WORDS.binary_search(&other).is_ok() => Previous::Other,
        _ => Previous::Operand,
    }
}

/// The parser reads the body of a routine in a language it knows as a text of its own, behind this guard's back.
/// A body's effects come when the routine is called, so nothing is lost by not reading it.
fn blank_routine_bodies(text: &str, tokens: &[Token], statements: &[Range<usize>]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for statement in statements {
        let all = tokens.get(statement.clone()).unwrap_or_default();
        let has = |word: &str| {
            all.iter().any(|token| {
                token.kind == Kind::Word
                    && text.get(token.range.clone()).is_some_and(|t| t.eq_ignore_ascii_case(word))
            })
        };
        if !has("function") && !has("procedure") {
            continue;
        }
        for token in all {
            let Kind::String(style) = token.kind else { continue };
            let written = text.get(token.range.clone()).unwrap_or_default();
            let quote = match style {
                Style::Dollar => written.get(1..).and_then(|r| r.find('$')).map_or(0, |at| at + 2),
                Style::Escape | Style::Unicode | Style::Bits | Style::Plain => {
                    written.find('\'').map_or(0, |at| at + 1)
                }
            };
            let closing = if style == Style::Dollar { quote } else { 1 };
            let inside = (token.range.start + quote)..token.range.end.saturating_sub(closing);
            bytes.get_mut(inside).unwrap_or_default().fill(b' ');
        }
    }
    // Only whole characters inside strings were replaced, by ASCII.
    String::from_utf8(bytes).unwrap_or_default()
}
