//! From a text to its statements: the guard, the parser, and the check that the two read the same tokens and the
//! same statements.

use std::{ops::Range, sync::Arc};

use smallvec::smallvec;
use squawk_syntax::{SourceFile, SyntaxKind, SyntaxNode, ast::AstNode};

use super::{
    CopyStream, Lineage, Meaning, Reference, Statement, Statements, TransactionVerb,
    guard::{Guarded, check},
    lexer::{Kind, Token},
    lineage::lineage,
    schema, utility,
    walk::Walk,
};
use crate::model::{SessionChange, StatementKind, Unknown, Verb};

/// Stack that must be left to parse without making one.
const STACK_LEFT: usize = 12 << 20;
/// Stack that is made otherwise; only what is touched of it takes memory.
const STACK_MADE: usize = 32 << 20;

/// What one statement does besides its effects; filled in by the modules that know its kind.
pub(super) struct Draft {
    pub(super) kind: StatementKind,
    pub(super) walk: Walk,
    pub(super) has_limit: bool,
    pub(super) session: Option<SessionChange>,
    pub(super) executes: Option<String>,
    pub(super) transaction: Option<TransactionVerb>,
    pub(super) operators: Vec<String>,
    pub(super) copy: Option<CopyStream>,
    pub(super) copied: Option<Vec<String>>,
    pub(super) lineage: Lineage,
}

impl Draft {
    pub(super) fn new(kind: StatementKind) -> Self {
        Self {
            kind,
            walk: Walk::default(),
            has_limit: false,
            session: None,
            executes: None,
            transaction: None,
            operators: Vec::new(),
            copy: None,
            copied: None,
            lineage: Lineage::default(),
        }
    }
}

/// Reads a text into its statements.
///
/// Total and bounded: whatever the text, it returns within about a tenth of a second. On a thread with less than
/// 12 MiB of stack left it runs on a stack of its own; texts that mean something need less than half a megabyte,
/// but the parser also recurses while it recovers from errors, at most once a token. Empty statements are left out, unless there is no other: then one of kind `Empty` is returned. When
/// any statement cannot be read, none is. The text is read with `standard_conforming_strings = on` and as UTF-8;
/// the caller refuses sessions with other settings.
///
/// ```
/// use interceptor_core::{model::Verb, sql::analyze};
/// let statements = analyze("SELECT 1; DELETE FROM ONLY users").expect("it can be read");
/// assert_eq!(statements.len(), 2);
/// assert_eq!(statements[1].effects[0].0, Verb::DataDelete);
/// assert!(!statements[1].has_where);
/// ```
pub fn analyze(text: &str) -> Result<Statements, Unknown> {
    let unread = |reason: String| Unknown(format!("the text cannot be read: {reason}"));
    let guarded = check(text).map_err(unread)?;
    if guarded.statements.is_empty() {
        return Ok(smallvec![finish(0..text.len(), Draft::new(StatementKind::Empty))]);
    }
    stacker::maybe_grow(STACK_LEFT, STACK_MADE, || {
        let nodes = parse(&guarded).map_err(unread)?;
        let read = nodes.iter().zip(&guarded.statements);
        Ok(read.map(|(node, tokens)| statement(text, &guarded, node, tokens)).collect())
    })
}

/// Whether no more than one place of a text's only statement writes, and that is the statement itself: what the server
/// counts at its end is then all that it writes by name.
pub fn writes_once(text: &str) -> bool {
    use SyntaxKind::{DELETE, INSERT, MERGE, UPDATE};
    let writes = |kind| matches!(kind, INSERT | UPDATE | DELETE | MERGE);
    let once = only_statement(text, |_, node| {
        let count = node.descendants().filter(|node| writes(node.kind())).count();
        count == usize::from(writes(node.kind()))
    });
    once == Some(true)
}

/// What `read` makes of the only statement of a text; none where there is another number of them, or they cannot be
/// read.
pub(super) fn only_statement<T>(text: &str, read: impl FnOnce(&Guarded, &SyntaxNode) -> T) -> Option<T> {
    let guarded = check(text).ok()?;
    stacker::maybe_grow(STACK_LEFT, STACK_MADE, || match parse(&guarded).ok()?.as_slice() {
        [node] => Some(read(&guarded, node)),
        _ => None,
    })
}

/// Parses and holds the result against the guard's own reading.
fn parse(guarded: &Guarded) -> Result<Vec<SyntaxNode>, String> {
    let parse = SourceFile::parse(&guarded.parsed);
    if let Some(error) = parse.errors().first() {
        return Err(format!("at byte {}: {}", usize::from(error.range().start()), error.message()));
    }
    let root = parse.tree().syntax().clone();
    same_tokens(&root, &guarded.tokens)?;
    let nodes: Vec<_> = root.children().filter(|node| node.kind() != SyntaxKind::EMPTY_STMT).collect();
    if nodes.len() != guarded.statements.len() {
        return Err(format!(
            "it has {} statements by one count and {} by another",
            guarded.statements.len(),
            nodes.len()
        ));
    }
    for (node, statement) in nodes.iter().zip(&guarded.statements) {
        if bytes_of(node) != Some(guarded.bytes(statement)) {
            return Err("where a statement ends is not clear".to_owned());
        }
    }
    Ok(nodes)
}

/// The bytes from the first to the last token of a node, without white space, comments and the semicolon.
fn bytes_of(node: &SyntaxNode) -> Option<Range<usize>> {
    let ends = node.last_token().filter(|token| token.kind() == SyntaxKind::SEMICOLON);
    let mut tokens = node
        .descendants_with_tokens()
        .filter_map(|element| element.into_token())
        .filter(|token| !token.kind().is_trivia() && Some(token) != ends.as_ref())
        .map(|token| token.text_range());
    let first = tokens.next()?;
    let last = tokens.last().unwrap_or(first);
    Some(first.start().into()..last.end().into())
}

/// Whether the parser cut the text as the guard did. It cuts operators into characters; all else is equal.
fn same_tokens(root: &SyntaxNode, tokens: &[Token]) -> Result<(), String> {
    let mut ours = tokens.iter().peekable();
    for token in root.descendants_with_tokens().filter_map(|element| element.into_token()) {
        if token.kind().is_trivia() {
            continue;
        }
        let range: Range<usize> = token.text_range().into();
        while ours.next_if(|our| our.range.end <= range.start).is_some() {}
        let agree = ours.peek().is_some_and(|our| match our.kind {
            Kind::Operator | Kind::Punctuation => {
                our.range.start <= range.start && range.end <= our.range.end
            }
            _ => our.range == range,
        });
        if !agree {
            return Err(format!("where a token ends is not clear, at byte {}", range.start));
        }
    }
    Ok(())
}

fn statement(text: &str, guarded: &Guarded, node: &SyntaxNode, tokens: &Range<usize>) -> Statement {
    let mut draft = draft(text, node);
    draft.walk.check_complete(node);
    let own = guarded.tokens.get(tokens.clone()).unwrap_or_default();
    draft.lineage = lineage(node, own);
    if runs_expressions(draft.kind) {
        draft.operators = operators(text, own);
    }
    finish(guarded.bytes(tokens), draft)
}

/// Whether there may be expressions in a statement of this kind.
fn runs_expressions(kind: StatementKind) -> bool {
    !matches!(
        kind,
        StatementKind::Empty
            | StatementKind::None
            | StatementKind::Transaction
            | StatementKind::Set
            | StatementKind::Reset
            | StatementKind::Show
            | StatementKind::Discard
            | StatementKind::Listen
            | StatementKind::Notify
            | StatementKind::Deallocate
            | StatementKind::Fetch
            | StatementKind::Close
            | StatementKind::Lock
            | StatementKind::Truncate
    )
}

/// Words of the grammar with the operators that they stand for, which are found by the search path like any other.
const OPERATOR_WORDS: [(&str, &[&str]); 12] = [
    ("between", &["<", "<=", ">", ">="]),
    ("case", &["="]),
    ("distinct", &["="]),
    ("escape", &["~~", "!~~"]),
    ("ilike", &["~~*", "!~~*"]),
    ("in", &["=", "<>"]),
    ("like", &["~~", "!~~"]),
    ("natural", &["="]),
    ("nullif", &["="]),
    ("overlaps", &["<", "="]),
    ("similar", &["~", "!~"]),
    ("using", &["="]),
];

/// The operators of a statement. Stars and signs of assignment are among them: they may be operators.
fn operators(text: &str, tokens: &[Token]) -> Vec<String> {
    let mut found = std::collections::BTreeSet::new();
    for token in tokens {
        let Some(written) = text.get(token.range.clone()) else { continue };
        match token.kind {
            Kind::Operator => {
                found.insert(whole_operator(written));
            }
            Kind::Word => {
                let word = OPERATOR_WORDS.iter().find(|(word, _)| written.eq_ignore_ascii_case(word));
                found.extend(word.into_iter().flat_map(|(_, operators)| operators.iter().copied()));
            }
            _ => {}
        }
    }
    found.into_iter().map(str::to_owned).collect()
}

/// An operator of several characters ends in `+` or `-` only when it has a character that SQL's own have not.
fn whole_operator(run: &str) -> &str {
    if run.contains(['~', '!', '@', '#', '%', '^', '&', '|', '`', '?']) {
        return run;
    }
    let trimmed = run.trim_end_matches(['+', '-']);
    if trimmed.is_empty() { run.get(..1).unwrap_or_default() } else { trimmed }
}

fn draft(text: &str, node: &SyntaxNode) -> Draft {
    use SyntaxKind::*;
    let kind = match node.kind() {
        SELECT | SELECT_INTO | COMPOUND_SELECT | PAREN_SELECT | TABLE | VALUES => StatementKind::Select,
        INSERT => StatementKind::Insert,
        UPDATE => StatementKind::Update,
        DELETE => StatementKind::Delete,
        MERGE => StatementKind::Merge,
        _ => {
            return utility::draft(text, node).or_else(|| schema::draft(node)).unwrap_or_else(|| {
                let mut draft = Draft::new(StatementKind::Unknown);
                draft.walk.not_understood(format!("{:?} is not a statement that is read here", node.kind()));
                draft
            });
        }
    };
    let mut draft = Draft::new(kind);
    draft.walk.walk(node);
    draft.has_limit = has_limit(node);
    draft
}

/// Whether a query has a LIMIT or FETCH FIRST that limits. One in brackets around a whole query counts.
pub(super) fn has_limit(node: &SyntaxNode) -> bool {
    use SyntaxKind::*;
    node.children().any(|child| match child.kind() {
        FETCH_CLAUSE => true,
        LIMIT_CLAUSE => !child.descendants_with_tokens().any(|e| matches!(e.kind(), ALL_KW | NULL_KW)),
        SELECT | COMPOUND_SELECT | PAREN_SELECT | VALUES | TABLE if node.kind() == PAREN_SELECT => {
            has_limit(&child)
        }
        _ => false,
    })
}

fn finish(range: Range<usize>, draft: Draft) -> Statement {
    let mut effects: Vec<(Verb, Reference)> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for effect in draft.walk.effects {
        if seen.insert(effect.clone()) {
            effects.push(effect);
        }
    }
    if draft.walk.unknown.is_some() {
        effects.push((Verb::Unknown, Reference::Resource));
    }
    let meaning = Meaning {
        kind: draft.kind,
        effects,
        has_where: !draft.walk.unbounded,
        has_limit: draft.has_limit,
        session: draft.session,
        executes: draft.executes,
        transaction: draft.transaction,
        operators: draft.operators,
        copy: draft.copy,
        copied: draft.copied,
        lineage: draft.lineage,
        unknown: draft.walk.unknown,
    };
    Statement { range, meaning: Arc::new(meaning) }
}

/// Whether a node is a statement of its own; one inside another is not read but where its kind is known.
pub(super) fn is_statement(kind: SyntaxKind) -> bool {
    squawk_syntax::ast::Stmt::can_cast(kind)
}
