//! What the gate asks the server itself, on the session's own connection: how it reads texts, which database is current, and
//! what the tables of a statement are.
//!
//! Promise: no setting of the session changes what is read in an answer. Names go in hexadecimal and come in it, so that no
//! character set makes anything else of them; each answer is one row of a known width under a LIMIT of its own, whose values
//! are counted by the server, so that nothing is read in what is missing. Another answer is none.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use interceptor_core::{
    model::{Action, Binds, Effect, Phase, StatementFacts, StatementKind, Target, Verb},
    sql::{
        Dialect,
        mysql::{Charset, Kind, Names, reads_otherwise},
    },
};

use super::frame::{Fields, Malformed, packet, text};

/// How many tables of one statement are looked up.
pub(super) const MOST: usize = 32;

/// What holds for the texts of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) charset: Charset,
    pub(super) names: Names,
    pub(super) database: Option<String>,
    /// The word of `sql_mode` that makes texts mean something else.
    pub(super) otherwise: Option<String>,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Errand {
    Settings,
    Tables(Vec<(String, String)>),
}

/// What the server says of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Is(Kind),
    /// It shows none, and would show none: the login has not the right TRIGGER.
    TriggersUnseen,
}

/// What each table of a statement is.
pub(super) type Found = BTreeMap<(String, String), Look>;

const SETTINGS: &str = "SELECT 1, HEX(@@SESSION.sql_mode), HEX(@@SESSION.character_set_client), \
                        @@GLOBAL.lower_case_table_names, HEX(DATABASE()) LIMIT 1";
/// Who is logged in, as the tables of rights write it.
const GRANTEE: &str =
    "CAST(GRANTEE AS BINARY) = CAST(CONCAT('''', REPLACE(CURRENT_USER(), '@', '''@'''), '''') AS BINARY)";

/// A table's three values: how much of that name is no table with rows of its own, how many triggers it has, and how many
/// rights there are to see them.
fn values((database, name): &(String, String)) -> String {
    let [database_text, name_text] = [database, name].map(|part| format!("_utf8 X'{}'", hex::encode(part)));
    let [exact, escaped, table] =
        [database, &escaped(database), name].map(|part| format!("X'{}'", hex::encode(part)));
    let may = format!("PRIVILEGE_TYPE = 'TRIGGER' AND {GRANTEE}");
    format!(
        "(SELECT COUNT(*) - COUNT(CASE WHEN TABLE_TYPE IN \
         ('BASE TABLE', 'SYSTEM VERSIONED', 'TEMPORARY', 'SEQUENCE', 'SYSTEM VIEW') THEN 1 END) \
         FROM information_schema.TABLES WHERE TABLE_SCHEMA = {database_text} AND TABLE_NAME = {name_text}), \
         (SELECT COUNT(*) FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = {database_text} \
         AND EVENT_OBJECT_TABLE = {name_text}), \
         (SELECT COUNT(*) FROM information_schema.USER_PRIVILEGES WHERE {may}) + \
         (SELECT COUNT(*) FROM information_schema.TABLE_PRIVILEGES WHERE {may} \
         AND CAST(TABLE_SCHEMA AS BINARY) = {exact} AND CAST(TABLE_NAME AS BINARY) = {table}) + \
         (SELECT COUNT(*) > 0 AND COUNT(CASE WHEN PRIVILEGE_TYPE = 'TRIGGER' THEN 1 END) = COUNT(DISTINCT TABLE_SCHEMA) \
         FROM information_schema.SCHEMA_PRIVILEGES WHERE {GRANTEE} AND CAST(TABLE_SCHEMA AS BINARY) IN ({exact}, {escaped}))"
    )
}

/// A database's name as the pattern that means it alone.
fn escaped(database: &str) -> String {
    let each = database.chars().map(|letter| match letter {
        '_' | '%' | '\\' => format!("\\{letter}"),
        other => other.to_string(),
    });
    each.collect()
}

impl Errand {
    /// What asks for the tables of these names; none where there are too many, or where the server has other letters for one.
    pub(super) fn for_tables(tables: Vec<(String, String)>) -> Option<Self> {
        let is_known = |name: &str| name.chars().all(|letter| letter <= '\u{ffff}' && letter != '\0');
        let all = tables.iter().all(|(database, name)| is_known(database) && is_known(name));
        (all && tables.len() <= MOST).then_some(Self::Tables(tables))
    }

    /// The text that asks it.
    fn text(&self) -> String {
        match self {
            Self::Settings => SETTINGS.to_owned(),
            Self::Tables(tables) => {
                format!("SELECT 1, {} LIMIT 1", tables.iter().map(values).collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// The command that asks it, and what that does.
    pub(super) fn command(&self) -> (Bytes, Action) {
        let text = self.text();
        let payload = [&[super::client::QUERY], text.as_bytes()].concat();
        let target = Target::Other { kind: "catalogue".to_owned(), name: "information_schema".to_owned() };
        let facts = StatementFacts {
            kind: StatementKind::Select,
            effects: vec![Effect { verb: Verb::DataRead, target }],
            has_where: true,
            has_limit: true,
            unknown: None,
            provenance: None,
            dialect: Dialect::MySql,
        };
        let action =
            Action { phase: Phase::Query, text: text.into(), binds: Binds::new(), facts: Arc::new(facts) };
        (packet(0, &payload), action)
    }
}

/// The values of a row of a text answer.
pub(super) fn row(payload: Bytes) -> Result<Vec<Option<String>>, Malformed> {
    let mut fields = Fields::new(payload);
    let mut values = Vec::new();
    while !fields.is_empty() {
        if fields.rest().first() == Some(&0xfb) {
            fields.u8()?;
            values.push(None);
        } else {
            values.push(Some(text(&fields.counted()?)?));
        }
    }
    Ok(values)
}

/// What these rows say of the session.
pub(super) fn settings(rows: &[Vec<Option<String>>]) -> Option<Settings> {
    let [row] = rows else { return None };
    let [Some(one), Some(mode), Some(charset), Some(folds), database] = row.as_slice() else { return None };
    let plain = |value: &str| String::from_utf8(hex::decode(value).ok()?).ok();
    let names = match folds.as_str() {
        "0" => Names::Exact,
        "1" | "2" => Names::Folded,
        _ => return None,
    };
    let database = match database {
        Some(database) => Some(plain(database)?),
        None => None,
    };
    let settings = Settings {
        charset: Charset::named(&plain(charset)?),
        names,
        database,
        otherwise: reads_otherwise(&plain(mode)?).map(str::to_owned),
    };
    (one == "1").then_some(settings)
}

/// What these rows say of `tables`. One of which nothing is there is the session's own alone, or none.
pub(super) fn tables(tables: &[(String, String)], rows: &[Vec<Option<String>>]) -> Option<Found> {
    let [row] = rows else { return None };
    let (one, counts) = row.split_first()?;
    let counts: Vec<u64> =
        counts.iter().map(|count| count.as_deref()?.parse().ok()).collect::<Option<_>>()?;
    if one.as_deref() != Some("1") || counts.len() != tables.len().checked_mul(3)? {
        return None;
    }
    let look = |counts: &[u64]| match counts {
        [0, 0, 0] => Some(Look::TriggersUnseen),
        [0, 0, _] => Some(Look::Is(Kind::Table)),
        [0, _, _] => Some(Look::Is(Kind::Triggered)),
        [_, _, _] => Some(Look::Is(Kind::View)),
        _ => None,
    };
    tables.iter().cloned().zip(counts.chunks(3)).map(|(table, counts)| Some((table, look(counts)?))).collect()
}

#[cfg(test)]
#[path = "lookup_tests.rs"]
mod tests;
