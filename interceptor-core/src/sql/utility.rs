//! Statements that are neither queries nor schema: transactions, settings, cursors, COPY, maintenance.

use squawk_syntax::{SyntaxKind, SyntaxNode};

use super::{
    CopyStream, Reference, TransactionVerb,
    analyze::{Draft, has_limit},
    copied, names,
    walk::{child_of, plain_string},
};
use crate::model::{SessionChange, StatementKind, Verb};

/// What the statement does, if it is one of these.
pub(super) fn draft(text: &str, node: &SyntaxNode) -> Option<Draft> {
    transaction(node)
        .or_else(|| session(node))
        .or_else(|| prepared(text, node))
        .or_else(|| cursor(node))
        .or_else(|| data(node))
        .or_else(|| maintenance(node))
}

fn other(kind: &str, node: &SyntaxNode) -> Result<Reference, String> {
    names::dotted(node).map(|name| Reference::Other { kind: kind.to_owned(), name })
}

impl Draft {
    /// Adds an effect on what was read, or says why it could not be.
    pub(super) fn add(&mut self, verb: Verb, reference: Result<Reference, String>) {
        match reference {
            Ok(reference) => self.walk.add(verb, reference),
            Err(reason) => self.walk.not_understood(reason),
        }
    }
}

fn transaction(node: &SyntaxNode) -> Option<Draft> {
    use SyntaxKind::*;
    let verb = match node.kind() {
        BEGIN => TransactionVerb::Begin,
        COMMIT_TRANSACTION | PREPARE_TRANSACTION => TransactionVerb::Commit,
        ROLLBACK_TRANSACTION => TransactionVerb::Rollback,
        SAVEPOINT_CREATE | RELEASE_SAVEPOINT | ROLLBACK_TO_SAVEPOINT | SET_CONSTRAINTS => {
            TransactionVerb::Other
        }
        COMMIT_PREPARED | ROLLBACK_PREPARED => TransactionVerb::Prepared,
        SET_TRANSACTION if child_of(node, SESSION_CHARACTERISTICS).is_none() => TransactionVerb::Other,
        _ => return None,
    };
    let mut draft = Draft::new(StatementKind::Transaction);
    draft.transaction = Some(verb);
    draft.walk.add(Verb::Transaction, Reference::Resource);
    Some(draft)
}

/// The setting that SET or RESET names.
fn setting(node: &SyntaxNode) -> Result<Reference, String> {
    use SyntaxKind::*;
    for part in node.descendants() {
        let name = match part.kind() {
            CONFIG_PARAMETER_REF => names::dotted(&part)?.to_lowercase(),
            SET_TIME_ZONE | RESET_TIME_ZONE => "timezone".to_owned(),
            SET_SCHEMA_VALUE => "search_path".to_owned(),
            SET_XML_OPTION => "xmloption".to_owned(),
            RESET_TRANSACTION_ISOLATION => "transaction_isolation".to_owned(),
            ALL => "all".to_owned(),
            _ => continue,
        };
        return Ok(Reference::Setting(name));
    }
    Err("which setting is meant is not clear".to_owned())
}

/// Whether a session goes on as somebody else where this setting is changed.
pub fn says_who(setting: &str) -> bool {
    matches!(setting, "role" | "session_authorization")
}

/// The role that such a setting's value names; none for what goes back to who logged in.
pub fn named_role(value: &str) -> Option<&str> {
    Some(value).filter(|value| *value != "none")
}

/// As whom the session goes on by this SET of a setting that [says who](says_who): its last word, which must stand alone.
fn becomes(node: &SyntaxNode) -> Result<Option<String>, String> {
    use SyntaxKind::*;
    let tokens = node.descendants_with_tokens().filter_map(|element| element.into_token());
    let said: Vec<_> =
        tokens.filter(|token| !token.kind().is_trivia() && token.kind() != SEMICOLON).collect();
    let unclear = || "as whom the session would go on is not clear".to_owned();
    let [.., before, last] = said.as_slice() else { return Err(unclear()) };
    if !matches!(before.kind(), ROLE_KW | TO_KW | EQ | AUTHORIZATION_KW) {
        return Err(unclear());
    }
    let value = match last.kind() {
        DEFAULT_KW => return Ok(None),
        STRING => plain_string(last.text()).ok_or_else(unclear)?,
        // Strings of other forms end in a quote too, and begin like a word.
        _ if last.text().contains(['\'', '$']) => return Err(unclear()),
        _ => names::fold(last.text())?,
    };
    Ok(named_role(&value).map(str::to_owned))
}

fn session(node: &SyntaxNode) -> Option<Draft> {
    use SyntaxKind::*;
    let named = |name: &str| Ok(Reference::Setting(name.to_owned()));
    let (kind, reference) = match node.kind() {
        SET => (StatementKind::Set, setting(node)),
        SET_ROLE => (StatementKind::Set, named("role")),
        SET_SESSION_AUTH => (StatementKind::Set, named("session_authorization")),
        SET_TRANSACTION => (StatementKind::Set, named("transaction")),
        RESET => (StatementKind::Reset, setting(node)),
        RESET_ROLE => (StatementKind::Reset, named("role")),
        RESET_SESSION_AUTH => (StatementKind::Reset, named("session_authorization")),
        DISCARD => (StatementKind::Discard, Ok(Reference::Resource)),
        SHOW => return Some(Draft::new(StatementKind::Show)),
        _ => return None,
    };
    let mut draft = Draft::new(kind);
    let who = matches!(&reference, Ok(Reference::Setting(name)) if says_who(name));
    draft.add(Verb::SessionChange, reference);
    if who && kind == StatementKind::Set {
        match becomes(node) {
            Ok(Some(name)) => {
                draft.walk.add(Verb::SessionChange, Reference::Other { kind: "role".to_owned(), name });
            }
            Ok(None) => {}
            Err(reason) => draft.walk.not_understood(reason),
        }
    }
    if child_of(node, DISCARD_ALL).is_some() {
        draft.session = Some(SessionChange::Discarded);
    }
    Some(draft)
}

fn prepared(text: &str, node: &SyntaxNode) -> Option<Draft> {
    use SyntaxKind::*;
    match node.kind() {
        PREPARE => Some(prepare(text, node)),
        EXECUTE => {
            let mut draft = Draft::new(StatementKind::Execute);
            execute(&mut draft, node);
            Some(draft)
        }
        DEALLOCATE => {
            let mut draft = Draft::new(StatementKind::Deallocate);
            match child_of(node, PREPARED_STATEMENT_REF).map(|name| names::dotted(&name)) {
                Some(Ok(name)) => draft.session = Some(SessionChange::Deallocated(Some(name))),
                Some(Err(reason)) => draft.walk.not_understood(reason),
                None => draft.session = Some(SessionChange::Deallocated(None)),
            }
            Some(draft)
        }
        EXPLAIN => Some(explain(node)),
        _ => None,
    }
}

/// EXECUTE, alone or inside EXPLAIN and CREATE TABLE AS.
pub(super) fn execute(draft: &mut Draft, node: &SyntaxNode) {
    match child_of(node, SyntaxKind::PREPARED_STATEMENT_REF).map(|name| names::dotted(&name)) {
        Some(Ok(name)) => draft.executes = Some(name),
        Some(Err(reason)) => draft.walk.not_understood(reason),
        None => draft.walk.not_understood("EXECUTE names no statement"),
    }
    if let Some(arguments) = child_of(node, SyntaxKind::ARG_LIST) {
        draft.walk.walk(&arguments);
    }
}

/// PREPARE has the effects of what it prepares: what may not be done may not be prepared.
fn prepare(text: &str, node: &SyntaxNode) -> Draft {
    use SyntaxKind::*;
    let mut draft = Draft::new(StatementKind::Prepare);
    let mut inner = None;
    for child in node.children() {
        match child.kind() {
            PREPARED_STATEMENT | PARAM_LIST => {}
            _ => inner = Some(child),
        }
    }
    let name = child_of(node, PREPARED_STATEMENT).map(|name| names::dotted(&name));
    let (Some(Ok(name)), Some(inner)) = (name, inner) else {
        draft.walk.not_understood("PREPARE has no name or no statement");
        return draft;
    };
    let range = std::ops::Range::<usize>::from(inner.text_range());
    let written = text.get(range).unwrap_or_default().trim_end_matches(';').trim().to_owned();
    draft.session = Some(SessionChange::Prepared { name, text: written });
    draft.has_limit = has_limit(&inner);
    draft.walk.walk(&inner);
    draft
}

/// EXPLAIN has the effects of what it explains, also without ANALYZE: planning can run functions.
fn explain(node: &SyntaxNode) -> Draft {
    use SyntaxKind::*;
    let mut draft = Draft::new(StatementKind::Explain);
    for child in node.children() {
        match child.kind() {
            EXPLAIN_OPTION_LIST | EXPLAIN_ANALYZE | EXPLAIN_VERBOSE => {}
            EXECUTE => execute(&mut draft, &child),
            DECLARE => cursor_query(&mut draft, &child),
            CREATE_TABLE_AS | CREATE_MATERIALIZED_VIEW => match super::schema::draft(&child) {
                Some(inner) => draft = Draft { kind: StatementKind::Explain, ..inner },
                None => draft.walk.not_understood("what is explained is not read here"),
            },
            _ => {
                draft.has_limit |= has_limit(&child);
                draft.walk.walk(&child);
            }
        }
    }
    draft
}

fn cursor_query(draft: &mut Draft, node: &SyntaxNode) {
    use SyntaxKind::*;
    for child in node.children() {
        match child.kind() {
            CURSOR | ASENSITIVE | INSENSITIVE | SCROLL | NO_SCROLL | WITH_HOLD | WITHOUT_HOLD => {}
            _ => {
                draft.has_limit |= has_limit(&child);
                draft.walk.walk(&child);
            }
        }
    }
}

/// A cursor's query is judged where it is declared; what FETCH brings was allowed then.
fn cursor(node: &SyntaxNode) -> Option<Draft> {
    use SyntaxKind::*;
    match node.kind() {
        DECLARE => {
            let mut draft = Draft::new(StatementKind::Declare);
            cursor_query(&mut draft, node);
            Some(draft)
        }
        FETCH | MOVE => Some(Draft::new(StatementKind::Fetch)),
        CLOSE => Some(Draft::new(StatementKind::Close)),
        _ => None,
    }
}

fn data(node: &SyntaxNode) -> Option<Draft> {
    use SyntaxKind::*;
    match node.kind() {
        COPY => Some(copy(node)),
        TRUNCATE => {
            let mut draft = Draft::new(StatementKind::Truncate);
            each(&mut draft, node, TABLE_RELATION_NAME, Verb::DataTruncate);
            if child_of(node, CASCADE).is_some() {
                draft.walk.not_understood("which tables TRUNCATE ... CASCADE empties is not in the text");
            }
            Some(draft)
        }
        LOCK => {
            let mut draft = Draft::new(StatementKind::Lock);
            each(&mut draft, node, RELATION_NAME, Verb::DataLock);
            Some(draft)
        }
        CALL => {
            let mut draft = Draft::new(StatementKind::Call);
            let name = child_of(node, PROCEDURE_NAME_REF).ok_or("CALL names no procedure".to_owned());
            let name = name.and_then(|name| names::parts(&name)).and_then(names::from_parts);
            draft.add(Verb::FunctionCall, name.map(Reference::Function));
            if let Some(arguments) = child_of(node, ARG_LIST) {
                draft.walk.walk(&arguments);
            }
            Some(draft)
        }
        DO => {
            let mut draft = Draft::new(StatementKind::Do);
            draft.walk.not_understood("what the code in a DO block does is not known");
            Some(draft)
        }
        LISTEN | UNLISTEN => Some(channel(StatementKind::Listen, node)),
        NOTIFY => Some(channel(StatementKind::Notify, node)),
        LOAD => {
            let mut draft = Draft::new(StatementKind::Unknown);
            draft.walk.add(Verb::ServerReach, Reference::Resource);
            Some(draft)
        }
        _ => None,
    }
}

fn channel(kind: StatementKind, node: &SyntaxNode) -> Draft {
    let mut draft = Draft::new(kind);
    let named = node.children().find(|c| matches!(c.kind(), SyntaxKind::CHANNEL | SyntaxKind::CHANNEL_REF));
    draft.add(Verb::Notify, named.map_or(Ok(Reference::Resource), |name| other("channel", &name)));
    draft
}

/// An effect on each relation named below `node`; there must be one.
fn each(draft: &mut Draft, node: &SyntaxNode, kind: SyntaxKind, verb: Verb) {
    let mut found = false;
    for name in node.descendants().filter(|part| part.kind() == kind) {
        draft.walk.relation(&[verb], &name);
        found = true;
    }
    if !found {
        draft.walk.not_understood("the statement names no relation");
    }
}

fn copy(node: &SyntaxNode) -> Draft {
    use SyntaxKind::*;
    let mut draft = Draft::new(StatementKind::Copy);
    let into = child_of(node, COPY_FROM).is_some();
    for child in node.children() {
        match child.kind() {
            COPY_TABLE => match child_of(&child, TABLE_NAME_REF) {
                Some(name) => {
                    draft.walk.relation(&[if into { Verb::DataInsert } else { Verb::DataRead }], &name);
                }
                None => draft.walk.not_understood("COPY names no table"),
            },
            COPY_QUERY => draft.walk.walk_children(&child),
            COPY_FROM | COPY_TO => {
                let standard = child.children().all(|end| matches!(end.kind(), COPY_STDIN | COPY_STDOUT));
                if !standard || child.children().next().is_none() {
                    draft.walk.add(Verb::ServerReach, Reference::Resource);
                } else {
                    draft.copy = Some(match into {
                        true => CopyStream::FromClient,
                        false => CopyStream::ToClient(copied::writing(node)),
                    });
                    draft.copied = if into { None } else { copied::columns(node) };
                }
            }
            WHERE_CLAUSE => draft.walk.walk(&child),
            COPY_OPTION_LIST | COPY_LEGACY_OPTION => {}
            kind => draft.walk.not_understood(format!("{kind:?} in COPY is not read here")),
        }
    }
    if child_of(node, COPY_FROM).is_none() && child_of(node, COPY_TO).is_none() {
        draft.walk.not_understood("COPY has no direction");
    }
    draft
}

fn maintenance(node: &SyntaxNode) -> Option<Draft> {
    use SyntaxKind::*;
    if !matches!(node.kind(), VACUUM | ANALYZE | REINDEX | CLUSTER | CHECKPOINT) {
        return None;
    }
    let mut draft = Draft::new(StatementKind::Maintenance);
    let mut named = false;
    for part in node.descendants() {
        match part.kind() {
            TABLE_NAME_REF => draft.walk.relation(&[Verb::Maintenance], &part),
            // In the old form of CLUSTER the index stands beside its table.
            INDEX_REF if node.kind() == REINDEX => draft.walk.relation(&[Verb::Maintenance], &part),
            SCHEMA_REF => draft.add(Verb::Maintenance, other("schema", &part)),
            DATABASE_REF => draft.add(Verb::Maintenance, other("database", &part)),
            CALL_EXPR | SELECT => {
                draft.walk.not_understood("an option of the statement is not a plain value")
            }
            _ => continue,
        }
        named = true;
    }
    if !named {
        draft.walk.add(Verb::Maintenance, Reference::Resource);
    }
    Some(draft)
}
