//! What the gate asks the server itself, on the session's own connection: how it reads texts, which database is current, and
//! what the tables of a statement are.
//!
//! Promise: names go in hexadecimal, so that no setting makes anything else of them.

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

/// What each table of a statement is.
pub(super) type Found = BTreeMap<(String, String), Kind>;

impl Errand {
    /// The text that asks it.
    fn text(&self) -> String {
        match self {
            Self::Settings => "SELECT @@SESSION.sql_mode, @@SESSION.character_set_client, @@GLOBAL.lower_case_table_names, DATABASE()".to_owned(),
            Self::Tables(tables) => {
                let ask = |(place, (database, name)): (usize, &(String, String))| {
                    let [database, name] = [database, name].map(|part| format!("_utf8 X'{}'", hex::encode(part)));
                    format!(
                        "SELECT {place}, TABLE_TYPE FROM information_schema.TABLES WHERE TABLE_SCHEMA = {database} AND \
                         TABLE_NAME = {name} UNION ALL SELECT {place}, 'TRIGGER' FROM information_schema.TRIGGERS WHERE \
                         EVENT_OBJECT_SCHEMA = {database} AND EVENT_OBJECT_TABLE = {name}"
                    )
                };
                tables.iter().enumerate().map(ask).collect::<Vec<_>>().join(" UNION ALL ")
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
    let [Some(mode), Some(charset), Some(folds), database] = row.as_slice() else { return None };
    let names = if folds == "0" { Names::Exact } else { Names::Folded };
    Some(Settings {
        charset: Charset::named(charset),
        names,
        database: database.clone(),
        otherwise: reads_otherwise(mode).map(str::to_owned),
    })
}

/// What these rows say of `tables`. One that nothing is said of is not there, or the session's own alone.
pub(super) fn tables(tables: &[(String, String)], rows: &[Vec<Option<String>>]) -> Option<Found> {
    let mut found: Found = tables.iter().map(|table| (table.clone(), Kind::Table)).collect();
    for row in rows {
        let [Some(place), Some(kind)] = row.as_slice() else { return None };
        let table = tables.get(place.parse::<usize>().ok()?)?;
        let kind = match kind.as_str() {
            "BASE TABLE" | "SYSTEM VERSIONED" | "TEMPORARY" | "SEQUENCE" | "SYSTEM VIEW" => continue,
            "TRIGGER" => Kind::Triggered,
            _ => Kind::View,
        };
        let entry = found.get_mut(table)?;
        if *entry != Kind::View {
            *entry = kind;
        }
    }
    Some(found)
}
