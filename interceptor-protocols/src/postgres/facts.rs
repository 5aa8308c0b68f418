//! The one place where this protocol asks `core` what a text means.

use interceptor_core::{
    model::{StatementFacts, StatementKind, Unknown, Verb},
    sql::{Answer, Name, Question, Reference, Statement, TransactionVerb},
};

/// Reads a text.
pub(super) fn read(text: &str) -> Result<Vec<Statement>, Unknown> {
    standin::analyze(text)
}

/// What must be looked up for these.
pub(super) fn question(statements: &[Statement]) -> Question {
    standin::question(statements)
}

/// What one statement does.
pub(super) fn facts(statement: &Statement, answer: &Answer) -> StatementFacts {
    standin::facts(statement, answer)
}

// INTEGRATION: a crude stand-in until `core::sql` has its functions; only tests of the wire depend on it.
mod standin {
    use interceptor_core::model::{Effect, Object, SessionChange, Target};
    use interceptor_core::sql::Relation;

    use super::*;

    pub(super) fn analyze(text: &str) -> Result<Vec<Statement>, Unknown> {
        let mut at = 0;
        let mut out = Vec::new();
        for part in text.split(';') {
            let range = at..at + part.len();
            at += part.len() + 1;
            if part.trim().is_empty() {
                continue;
            }
            let words: Vec<String> = part.split_whitespace().map(str::to_lowercase).collect();
            let word = |n: usize| words.get(n).map_or("", String::as_str);
            let after =
                |key: &str| words.iter().position(|w| w == key).and_then(|n| words.get(n + 1)).cloned();
            let name = |n: String| Name { schema: None, name: n };
            let (kind, verb, relation) = match word(0) {
                "select" => (StatementKind::Select, Verb::DataRead, after("from")),
                "insert" => (StatementKind::Insert, Verb::DataInsert, after("into")),
                "delete" => (StatementKind::Delete, Verb::DataDelete, after("from")),
                "update" => (StatementKind::Update, Verb::DataUpdate, Some(word(1).to_owned())),
                "drop" => (StatementKind::Drop, Verb::SchemaDrop, Some(word(2).to_owned())),
                "create" => (StatementKind::Create, Verb::SchemaCreate, None),
                "set" => (StatementKind::Set, Verb::SessionChange, None),
                "lock" => (StatementKind::Lock, Verb::DataLock, Some(word(2).to_owned())),
                "copy" => (StatementKind::Copy, Verb::DataRead, None),
                "begin" | "commit" | "rollback" => (StatementKind::Transaction, Verb::Transaction, None),
                "prepare" => (StatementKind::Prepare, Verb::DataRead, None),
                "execute" => (StatementKind::Execute, Verb::DataRead, None),
                "deallocate" => (StatementKind::Deallocate, Verb::SessionChange, None),
                "declare" => (StatementKind::Declare, Verb::DataRead, after("from")),
                "fetch" => (StatementKind::Fetch, Verb::DataRead, None),
                _ => return Err(Unknown(format!("{:?} is not read", word(0)))),
            };
            let mut effects =
                vec![(verb, relation.map_or(Reference::Resource, |n| Reference::Relation(name(n))))];
            if word(0) == "declare" {
                effects
                    .push((Verb::DataRead, Reference::Other { kind: "cursor".into(), name: word(1).into() }));
            }
            if word(0) == "fetch" {
                effects = vec![(
                    Verb::DataRead,
                    Reference::Other { kind: "cursor".into(), name: after("from").unwrap_or_default() },
                )];
            }
            out.push(Statement {
                range,
                kind,
                effects,
                has_where: true,
                has_limit: false,
                session: match word(0) {
                    "prepare" => Some(SessionChange::Prepared {
                        name: word(1).to_owned(),
                        text: words.iter().skip(3).cloned().collect::<Vec<_>>().join(" "),
                    }),
                    "deallocate" => {
                        Some(SessionChange::Deallocated(Some(word(1).to_owned()).filter(|w| w != "all")))
                    }
                    _ => None,
                },
                executes: (word(0) == "execute").then(|| word(1).to_owned()),
                transaction: match word(0) {
                    "begin" => Some(TransactionVerb::Begin),
                    "commit" => Some(TransactionVerb::Commit),
                    "rollback" => Some(TransactionVerb::Rollback),
                    _ => None,
                },
                unknown: None,
            });
        }
        Ok(out)
    }

    pub(super) fn question(statements: &[Statement]) -> Question {
        let mut question = Question::default();
        for (_, reference) in statements.iter().flat_map(|s| &s.effects) {
            if let Reference::Relation(name) = reference {
                question.relations.insert(name.clone());
            }
        }
        question
    }

    pub(super) fn facts(statement: &Statement, answer: &Answer) -> StatementFacts {
        let mut unknown = None;
        let mut effects = Vec::new();
        for (verb, reference) in &statement.effects {
            let target = match reference {
                Reference::Relation(name) => match answer.relations.get(name) {
                    Some(Relation::Found { object, .. }) => Target::Table(object.clone()),
                    Some(Relation::Missing) => Target::Table(Object {
                        database: answer.database.clone(),
                        schema: String::new(),
                        name: name.name.clone(),
                        oid: None,
                    }),
                    None => {
                        unknown = Some(Unknown(format!("{} was not looked up", name.name)));
                        Target::Resource
                    }
                },
                _ => Target::Resource,
            };
            effects.push(Effect { verb: if unknown.is_some() { Verb::Unknown } else { *verb }, target });
        }
        StatementFacts { kind: statement.kind, effects, has_where: true, has_limit: false, unknown }
    }
}
