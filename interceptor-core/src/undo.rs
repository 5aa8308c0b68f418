//! Undo packs: the rows that a statement was about to change, as they were, and the statements that bring them back.
//!
//! Promises: a pack is taken before its statement is sent, and holds every row that it changes or nothing at all; a row
//! that was changed since is never overwritten; values are written so that they mean the same whatever the settings.
//! Nothing here talks to a server or keeps anything.

use std::fmt::{self, Write as _};

use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    model::{Object, Principal, ResourceName, Run, Verb},
    permit::Held,
    protocol::{DecodeError, Done},
    text::is_hidden,
};

/// How many rows a rule has taken images of, where it does not say.
pub const ROWS: u64 = 1000;
/// The most that a rule may say.
pub const MOST_ROWS: u64 = 10_000;
/// The longest pack, in bytes.
pub const LONGEST_PACK: usize = 4 << 20;

/// The rows that one statement changed, as they were before.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pack {
    /// [`Verb::DataUpdate`] or [`Verb::DataDelete`].
    pub verb: Verb,
    /// The table.
    pub table: Object,
    /// The number of the transaction that the statement ran in, with its epoch.
    pub transaction: u64,
    /// The table's columns, in order.
    pub columns: Vec<Column>,
    /// Each row's values, in the server's text form; none is NULL.
    pub rows: Vec<Vec<Option<String>>>,
}

/// A column of a pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: Role,
}

impl fmt::Debug for Pack {
    /// Without what is in its rows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, table, rows, .. } = self;
        f.debug_struct("Pack")
            .field("verb", verb)
            .field("table", table)
            .field("rows", &rows.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Packed {
    /// Without what is in its rows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packed").field("record", &self.record).finish_non_exhaustive()
    }
}

/// What a column is to a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The rows are found again by it: it is of the primary key.
    Key,
    /// The statement set it.
    Set,
    /// The server works it out by itself.
    Generated,
    /// None of these.
    Plain,
}

/// What stands in a record of a pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndoRecord {
    /// How many rows it holds.
    pub rows: u64,
    /// SHA-256 of it as it is kept, in hexadecimal.
    pub sha256: String,
}

/// A pack as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Packed {
    /// Its JSON.
    pub json: Vec<u8>,
    /// What a record says of it.
    pub record: UndoRecord,
}

/// A pack and whose it is: what is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Undo {
    /// The run that the statement came from.
    pub run: Run,
    /// The resource.
    pub resource: ResourceName,
    /// Who the session was upstream.
    pub principal: Principal,
    /// The rows.
    pub pack: Pack,
}

impl Undo {
    /// It as it is kept.
    pub fn packed(&self) -> Result<Packed, serde_json::Error> {
        let json = serde_json::to_vec(self)?;
        let sha256 = format!("{:x}", Sha256::digest(&json));
        let rows = u64::try_from(self.pack.rows.len()).unwrap_or(u64::MAX);
        Ok(Packed { json, record: UndoRecord { rows, sha256 } })
    }
}

/// What is to be done next to bring rows back.
#[derive(Debug)]
#[must_use]
pub enum RestoreStep {
    /// More input is needed.
    Wait,
    /// Record this exchange of the gate's own, and send it.
    Send(Held),
    /// The same, where it makes all that came before it last.
    Commit(Held),
    /// Exchanges have ended.
    Ended(Vec<Done>),
    /// The rows are back.
    Restored,
    /// They are not, and nothing lasts: why, for the operator. The session is to be closed.
    Failed(String),
}

/// Brings rows back on a session of our own, which speaks a protocol.
pub trait Restore: Send {
    /// Takes what the upstream said; call with empty input first.
    fn step(&mut self, input: &mut BytesMut) -> Result<RestoreStep, DecodeError>;
}

impl Pack {
    /// What its table is called, where every part is in quotes.
    pub fn table_name(&self) -> String {
        format!("{}.{}", quoted(&self.table.schema), quoted(&self.table.name))
    }

    /// The statements that bring its rows back, one a row, each of which changes just one row or has come too late.
    pub fn statements(&self) -> Vec<String> {
        self.rows.iter().map(|row| self.statement(row)).collect()
    }

    fn statement(&self, row: &[Option<String>]) -> String {
        let table = self.table_name();
        let columns = || self.columns.iter().zip(row);
        if self.verb == Verb::DataUpdate {
            let sets: Vec<String> = columns()
                .filter(|(column, _)| column.role == Role::Set)
                .map(|(column, value)| format!("{} = {}", quoted(&column.name), literal(value.as_deref())))
                .collect();
            let mut out = format!("UPDATE ONLY {table} SET {} WHERE ", sets.join(", "));
            for (column, value) in columns().filter(|(column, _)| column.role == Role::Key) {
                let _ = write!(out, "{} = {} AND ", quoted(&column.name), literal(value.as_deref()));
            }
            // Rows carry the number without its epoch.
            let _ = write!(out, "xmin = '{}'", self.transaction & u64::from(u32::MAX));
            return out;
        }
        let given = || columns().filter(|(column, _)| column.role != Role::Generated);
        let names: Vec<String> = given().map(|(column, _)| quoted(&column.name)).collect();
        let values: Vec<String> = given().map(|(_, value)| literal(value.as_deref())).collect();
        format!(
            "INSERT INTO {table} ({}) OVERRIDING SYSTEM VALUE VALUES ({})",
            names.join(", "),
            values.join(", ")
        )
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A value as a string that reads the same whatever `standard_conforming_strings` is, and in which everything can be
/// seen.
pub fn literal(value: Option<&str>) -> String {
    let Some(value) = value else { return "NULL".to_owned() };
    if !value.chars().any(|c| c == '\\' || is_hidden(c)) {
        return format!("'{}'", value.replace('\'', "''"));
    }
    let mut out = String::from("E'");
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("''"),
            '\n' => out.push_str("\\n"),
            c if is_hidden(c) => {
                let _ = write!(out, "\\U{:08X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(verb: Verb, columns: &[(&str, Role)], row: &[Option<&str>]) -> Pack {
        Pack {
            verb,
            table: Object {
                database: "orders".to_owned(),
                schema: "s".to_owned(),
                name: "a\"b".to_owned(),
                oid: Some(7),
            },
            transaction: (1 << 32) + 12,
            columns: columns
                .iter()
                .map(|(name, role)| Column { name: (*name).to_owned(), role: *role })
                .collect(),
            rows: vec![row.iter().map(|value| value.map(str::to_owned)).collect()],
        }
    }

    #[test]
    fn rows_come_back_as_they_were() {
        let columns = [("id", Role::Key), ("v", Role::Set), ("g", Role::Generated), ("n", Role::Plain)];
        let row = [Some("1"), Some("it's \\ "), Some("2"), None];
        assert_eq!(
            pack(Verb::DataDelete, &columns, &row).statements(),
            ["INSERT INTO \"s\".\"a\"\"b\" (\"id\", \"v\", \"n\") OVERRIDING SYSTEM VALUE VALUES \
              ('1', E'it''s \\\\ ', NULL)"]
        );
        assert_eq!(
            pack(Verb::DataUpdate, &columns, &row).statements(),
            ["UPDATE ONLY \"s\".\"a\"\"b\" SET \"v\" = E'it''s \\\\ ' WHERE \"id\" = '1' AND xmin = '12'"]
        );
        assert_eq!(literal(Some("a\u{1b}[2J\n\u{202e}")), "E'a\\U0000001B[2J\\n\\U0000202E'");
    }
}
