//! A second opinion of a text: what another parser says that is in it, held against what was read here.
//!
//! Promise: whatever is in the opinion and not in the reading, a reading of another kind, and an opinion that could not
//! be had are a disagreement. That more is read here than there is none: it is judged as well.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use super::{Name, Reference, Statement};
use crate::model::StatementKind;

/// What another parser says of a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Opinion {
    /// It was read, statement by statement.
    Read(Vec<Told>),
    /// It cannot be read, and why.
    Refused(String),
}

/// What it says of one statement.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// PostgreSQL's word for its kind, such as `SelectStmt` (`parsenodes.h`).
    pub kind: String,
    /// The relations that it names, as schema and name; an empty schema where none is written.
    pub relations: BTreeSet<(String, String)>,
    /// The names of its WITH queries.
    pub with: BTreeSet<String>,
    /// The last parts of the names of functions that it calls.
    pub functions: BTreeSet<String>,
    /// Whether it is SET CONSTRAINTS, whose names are those of constraints.
    pub sets_constraints: bool,
    /// Whether it is IMPORT FOREIGN SCHEMA, which names its tables without the schema that it makes them in.
    pub imports: bool,
}

/// Where readings differ, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disagreement(pub String);

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Somebody who reads texts by other means.
pub trait SecondOpinion: fmt::Debug + Send + Sync {
    /// What it says of `text`, or why it says nothing.
    fn of(&self, text: &str) -> Result<Opinion, String>;
}

/// Functions that PostgreSQL's parser makes of grammar: they are no calls in the text, and only compute.
const GRAMMAR: [&str; 17] = [
    "btrim",
    "date_part",
    "extract",
    "is_normalized",
    "like_escape",
    "ltrim",
    "normalize",
    "overlaps",
    "overlay",
    "pg_collation_for",
    "position",
    "rtrim",
    "similar_to_escape",
    "substring",
    "system_user",
    "timezone",
    "xmlexists",
];

/// Holds what was read here against an opinion of the same text.
pub fn compare(statements: &[Statement], opinion: &Opinion) -> Result<(), Disagreement> {
    let told = match opinion {
        Opinion::Read(told) => told,
        Opinion::Refused(why) => return Err(Disagreement(format!("it does not read it: {why}"))),
    };
    // A text of nothing is one statement here.
    let read: Vec<&Statement> =
        statements.iter().filter(|statement| statement.kind != StatementKind::Empty).collect();
    if told.len() != read.len() {
        return Err(Disagreement(format!("it reads {} statements, not {}", told.len(), read.len())));
    }
    read.into_iter().zip(told).try_for_each(|(statement, told)| one(statement, told))
}

fn one(statement: &Statement, told: &Told) -> Result<(), Disagreement> {
    if statement.unknown.is_some() {
        return Ok(());
    }
    if kinds(&told.kind).is_some_and(|kinds| !kinds.contains(&statement.kind)) {
        return Err(Disagreement(format!("it reads {}, not {:?}", told.kind, statement.kind)));
    }
    let (relations, functions) = named(statement);
    // A row type is a relation to the parser and a type to us.
    let is_type = |(_, reference): &(_, Reference)| matches!(reference, Reference::Other { kind, .. } if kind == "type");
    let types = told.sets_constraints || statement.effects.iter().any(is_type);
    for (schema, name) in &told.relations {
        let schema = if schema == "pg_temp" { "" } else { schema };
        let known = (schema.is_empty() && told.with.contains(name))
            || relations.contains(&(schema, name.as_str()))
            || told.imports && relations.iter().any(|(_, known)| known == name);
        if !types && !known {
            return Err(Disagreement(format!("it reads a relation {schema}.{name}")));
        }
    }
    let missed = |name: &&String| !functions.contains(name.as_str()) && !GRAMMAR.contains(&name.as_str());
    match told.functions.iter().find(missed) {
        Some(name) => Err(Disagreement(format!("it reads a call of {name}"))),
        None => Ok(()),
    }
}

/// The relations and functions that were read here.
fn named(statement: &Statement) -> (BTreeSet<(&str, &str)>, BTreeSet<&str>) {
    let (mut relations, mut functions) = (BTreeSet::new(), BTreeSet::new());
    for (_, reference) in &statement.effects {
        match reference {
            Reference::Relation(Name { schema, name })
            | Reference::Alone(Name { schema, name })
            | Reference::NewRelation(Name { schema, name }) => {
                // A temporary one has a schema of ours.
                let schema = schema.as_deref().filter(|schema| *schema != "pg_temp");
                relations.insert((schema.unwrap_or_default(), name.as_str()));
            }
            Reference::Function(Name { name, .. })
            | Reference::SetConfig { function: Name { name, .. }, .. }
            | Reference::Attribute(name) => drop(functions.insert(name.as_str())),
            Reference::Resource | Reference::Other { .. } | Reference::Setting(_) => {}
        }
    }
    (relations, functions)
}

/// What a statement may be here, by PostgreSQL's word for it; nothing where the words do not correspond.
fn kinds(word: &str) -> Option<&'static [StatementKind]> {
    use StatementKind as K;
    Some(match word {
        "SelectStmt" => &[K::Select],
        "InsertStmt" => &[K::Insert],
        "UpdateStmt" => &[K::Update],
        "DeleteStmt" => &[K::Delete],
        "MergeStmt" => &[K::Merge],
        "CopyStmt" => &[K::Copy],
        "TransactionStmt" => &[K::Transaction],
        "VariableSetStmt" => &[K::Set, K::Reset, K::Transaction],
        "VariableShowStmt" => &[K::Show],
        "PrepareStmt" => &[K::Prepare],
        "ExecuteStmt" => &[K::Execute],
        "DeallocateStmt" => &[K::Deallocate],
        "DeclareCursorStmt" => &[K::Declare],
        "FetchStmt" => &[K::Fetch],
        "ClosePortalStmt" => &[K::Close],
        "ExplainStmt" => &[K::Explain],
        "LockStmt" => &[K::Lock],
        "TruncateStmt" => &[K::Truncate],
        "CallStmt" => &[K::Call],
        "DoStmt" => &[K::Do],
        "ListenStmt" | "UnlistenStmt" => &[K::Listen],
        "NotifyStmt" => &[K::Notify],
        "DiscardStmt" => &[K::Discard],
        "VacuumStmt" | "ReindexStmt" | "ClusterStmt" | "CheckPointStmt" | "RefreshMatViewStmt" => {
            &[K::Maintenance]
        }
        "GrantStmt" | "GrantRoleStmt" => &[K::Grant, K::Revoke],
        "DropStmt" | "DropRoleStmt" | "DropdbStmt" | "DropOwnedStmt" => &[K::Drop],
        "CreateStmt" | "CreateTableAsStmt" | "ViewStmt" | "IndexStmt" | "CreateSeqStmt"
        | "CreateSchemaStmt" | "CreateFunctionStmt" | "CreateRoleStmt" | "CreatePolicyStmt" => &[K::Create],
        "AlterTableStmt" | "AlterSeqStmt" | "AlterRoleStmt" | "RenameStmt" | "AlterOwnerStmt" => &[K::Alter],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::analyze;

    fn told(kind: &str, relations: &[&str], functions: &[&str]) -> Told {
        Told {
            kind: kind.to_owned(),
            relations: relations.iter().map(|name| (String::new(), (*name).to_owned())).collect(),
            functions: functions.iter().map(|name| (*name).to_owned()).collect(),
            ..Told::default()
        }
    }

    fn differs(text: &str, told: Vec<Told>) -> Option<String> {
        let statements = analyze(text).expect("it can be read");
        compare(&statements, &Opinion::Read(told)).err().map(|why| why.0)
    }

    #[test]
    fn who_reads_less_than_there_is_is_told_so() {
        let text = "SELECT f(a) FROM t";
        assert_eq!(differs(text, vec![told("SelectStmt", &["t"], &["f"])]), None);
        assert_eq!(differs(text, vec![told("SelectStmt", &[], &[])]), None, "more is judged as well");
        for (told, why) in [
            (vec![told("SelectStmt", &["t", "u"], &["f"])], "it reads a relation .u"),
            (vec![told("SelectStmt", &["t"], &["f", "g"])], "it reads a call of g"),
            (vec![told("DeleteStmt", &["t"], &["f"])], "it reads DeleteStmt, not Select"),
            (Vec::new(), "it reads 0 statements, not 1"),
        ] {
            assert_eq!(differs(text, told).as_deref(), Some(why));
        }
        let refused = Opinion::Refused("syntax error".to_owned());
        let statements = analyze(text).expect("it can be read");
        assert!(compare(&statements, &refused).is_err());
    }

    #[test]
    fn grammar_and_with_are_no_disagreement() {
        let mut with = told("SelectStmt", &["t", "w"], &["substring"]);
        with.with.insert("w".to_owned());
        assert_eq!(
            differs("WITH w AS (SELECT 1 FROM t) SELECT substring(x from 2) FROM w", vec![with]),
            None
        );
    }
}
