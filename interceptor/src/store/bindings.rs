//! Bindings of columns to labels, as they are kept: beside the evidence, since when, for as long as nobody forgets them.
//!
//! Promises: what was to be kept is on disk before the answer that it is; what is kept again keeps the time that it was
//! kept at first. What a binding means is not known here.

use std::{path::Path, time::Duration};

use interceptor_core::{
    mask::{Awaited, Binding, Change, Place, Which},
    model::ResourceName,
};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use serde::{Deserialize, Serialize};

use super::StoreError;

/// How long another connection may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many are read at once: with the longest names that there are, those fit a message.
const PAGE: usize = 32;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS binding (
    id INTEGER PRIMARY KEY, resource TEXT NOT NULL, place TEXT NOT NULL, label TEXT NOT NULL, cause TEXT NOT NULL,
    called TEXT NOT NULL, since INTEGER NOT NULL, UNIQUE (resource, place, label, cause));
CREATE TABLE IF NOT EXISTS awaited (
    id INTEGER PRIMARY KEY, resource TEXT NOT NULL, what TEXT NOT NULL, since INTEGER NOT NULL, UNIQUE (resource, what));
";

/// What is asked about bindings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Question {
    /// What is kept of a resource's behind the one with this number, oldest first.
    Read {
        /// The resource.
        resource: ResourceName,
        /// Where to go on.
        after: After,
    },
    /// Keep this.
    Keep {
        /// The resource.
        resource: ResourceName,
        /// What is to be kept.
        changes: Vec<Change>,
    },
    /// Forget what is kept of a resource's columns that are, or were to be, called so.
    Forget {
        /// The resource.
        resource: ResourceName,
        /// Which.
        what: Which,
    },
}

/// Where reading goes on. Numbers grow, and there is none below 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct After {
    /// The last binding that was read.
    pub bound: i64,
    /// The last awaited relation.
    pub awaited: i64,
}

/// A binding that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptBinding {
    /// What it is.
    pub binding: Binding,
    /// Since when, in microseconds of the Unix epoch.
    pub since: i64,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// To [`Question::Keep`].
    Done,
    /// To [`Question::Read`].
    Kept {
        /// Bindings.
        bindings: Vec<KeptBinding>,
        /// Relations that are awaited.
        awaited: Vec<Awaited>,
        /// Where to go on; none where that is all.
        more: Option<After>,
    },
    /// How many, to [`Question::Forget`].
    Forgotten(usize),
}

/// The bindings.
#[derive(Debug)]
pub struct BindingStore(Connection);

impl BindingStore {
    /// Opens the bindings in the store's folder.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let connection = Connection::open(dir.join("bindings.sqlite"))?;
        connection.busy_timeout(PATIENCE)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(TABLES)?;
        Ok(Self(connection))
    }

    /// Answers a question.
    pub fn answer(&mut self, question: Question, now: i64) -> Result<Answer, StoreError> {
        let work = self.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let answer = match question {
            Question::Read { resource, after } => read(&work, &resource, after),
            Question::Keep { resource, changes } => {
                for change in changes {
                    keep(&work, &resource, change, now)?;
                }
                Ok(Answer::Done)
            }
            Question::Forget { resource, what } => forget(&work, &resource, &what).map(Answer::Forgotten),
        }?;
        work.commit()?;
        Ok(answer)
    }
}

fn read(work: &Transaction<'_>, resource: &ResourceName, after: After) -> Result<Answer, StoreError> {
    let page = i64::try_from(PAGE).unwrap_or(i64::MAX);
    let sql = "SELECT id, place, label, cause, called, since FROM binding WHERE resource = ? AND id > ? ORDER BY id LIMIT ?";
    let mut statement = work.prepare(sql)?;
    let mut rows = statement.query(params![resource.as_str(), after.bound, page])?;
    let (mut bindings, mut last) = (Vec::new(), after);
    while let Some(row) = rows.next()? {
        last.bound = row.get(0)?;
        let binding = Binding {
            place: serde_json::from_str(&row.get::<_, String>(1)?)?,
            label: row.get(2)?,
            cause: serde_json::from_str(&row.get::<_, String>(3)?)?,
            called: serde_json::from_str(&row.get::<_, String>(4)?)?,
        };
        bindings.push(KeptBinding { binding, since: row.get(5)? });
    }
    let sql = "SELECT id, what FROM awaited WHERE resource = ? AND id > ? ORDER BY id LIMIT ?";
    let mut statement = work.prepare(sql)?;
    let mut rows = statement.query(params![resource.as_str(), after.awaited, page])?;
    let mut awaited = Vec::new();
    while let Some(row) = rows.next()? {
        last.awaited = row.get(0)?;
        awaited.push(serde_json::from_str(&row.get::<_, String>(1)?)?);
    }
    let more = (bindings.len() >= PAGE || awaited.len() >= PAGE).then_some(last);
    Ok(Answer::Kept { bindings, awaited, more })
}

fn keep(work: &Transaction<'_>, resource: &ResourceName, change: Change, now: i64) -> Result<(), StoreError> {
    let resource = resource.as_str();
    let json = |place: &Place| serde_json::to_string(place);
    match change {
        Change::Bound(Binding { place, label, cause, called }) => {
            let sql =
                "INSERT INTO binding (resource, place, label, cause, called, since) VALUES (?, ?, ?, ?, ?, ?)
                       ON CONFLICT (resource, place, label, cause) DO UPDATE SET called = excluded.called";
            let (cause, called) = (serde_json::to_string(&cause)?, serde_json::to_string(&called)?);
            work.execute(sql, params![resource, json(&place)?, label, cause, called, now])?;
        }
        Change::Called { place, called } => {
            let sql = "UPDATE binding SET called = ? WHERE resource = ? AND place = ?";
            work.execute(sql, params![serde_json::to_string(&called)?, resource, json(&place)?])?;
        }
        Change::Awaits(awaited) => {
            let sql = "INSERT INTO awaited (resource, what, since) VALUES (?, ?, ?) ON CONFLICT DO NOTHING";
            work.execute(sql, params![resource, serde_json::to_string(&awaited)?, now])?;
        }
    }
    Ok(())
}

/// The numbers of a table's rows whose text fits.
fn fitting(
    work: &Transaction<'_>,
    sql: &str,
    resource: &ResourceName,
    fits: impl Fn(&str) -> Result<bool, serde_json::Error>,
) -> Result<Vec<i64>, StoreError> {
    let mut statement = work.prepare(sql)?;
    let mut rows = statement.query([resource.as_str()])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        if fits(&row.get::<_, String>(1)?)? {
            found.push(row.get(0)?);
        }
    }
    Ok(found)
}

fn forget(work: &Transaction<'_>, resource: &ResourceName, what: &Which) -> Result<usize, StoreError> {
    let called = |text: &str| Ok(what.is(&serde_json::from_str(text)?));
    let bound = fitting(work, "SELECT id, called FROM binding WHERE resource = ?", resource, called)?;
    let to_be = |text: &str| Ok(what.is_to_be(&serde_json::from_str(text)?));
    let awaited = fitting(work, "SELECT id, what FROM awaited WHERE resource = ?", resource, to_be)?;
    for id in &bound {
        work.execute("DELETE FROM binding WHERE id = ?", [id])?;
    }
    for id in &awaited {
        work.execute("DELETE FROM awaited WHERE id = ?", [id])?;
    }
    Ok(bound.len().saturating_add(awaited.len()))
}

#[cfg(test)]
mod tests {
    use interceptor_core::{
        mask::{Called, Cause},
        model::RecordId,
    };

    use super::*;

    fn resource(name: &str) -> ResourceName {
        name.parse().unwrap()
    }

    fn binding(relation: u32, column: &str) -> Binding {
        Binding {
            place: Place { database: 5, relation, column: 2 },
            label: "ssn".to_owned(),
            cause: Cause::Pattern("*.*.ssn".to_owned()),
            called: called(column),
        }
    }

    fn called(column: &str) -> Called {
        Called {
            database: "d".to_owned(),
            schema: "public".to_owned(),
            relation: "customers".to_owned(),
            column: column.to_owned(),
        }
    }

    fn all(store: &mut BindingStore, name: &str) -> (Vec<KeptBinding>, Vec<Awaited>) {
        let (mut all, mut to_be, mut after) = (Vec::new(), Vec::new(), After::default());
        loop {
            let question = Question::Read { resource: resource(name), after };
            match store.answer(question, 0).unwrap() {
                Answer::Kept { bindings, awaited, more } => {
                    all.extend(bindings);
                    to_be.extend(awaited);
                    match more {
                        Some(more) => after = more,
                        None => return (all, to_be),
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn keep(store: &mut BindingStore, name: &str, changes: Vec<Change>, now: i64) {
        let question = Question::Keep { resource: resource(name), changes };
        assert_eq!(store.answer(question, now).unwrap(), Answer::Done);
    }

    #[test]
    fn what_is_kept_keeps_its_time_and_its_resource() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = BindingStore::open(folder.path()).unwrap();
        let many = (0..200).map(|relation| Change::Bound(binding(relation, "ssn"))).collect();
        keep(&mut store, "orders", many, 7);
        keep(&mut store, "other", vec![Change::Bound(binding(1, "ssn"))], 8);
        keep(&mut store, "orders", vec![Change::Bound(binding(3, "ssn"))], 9);
        let place = binding(4, "").place;
        keep(&mut store, "orders", vec![Change::Called { place, called: called("open") }], 10);
        drop(store);
        let mut store = BindingStore::open(folder.path()).unwrap();
        let (kept, _) = all(&mut store, "orders");
        assert_eq!(kept.len(), 200);
        assert!(kept.iter().all(|one| one.since == 7));
        assert_eq!(kept.iter().filter(|one| one.binding.called == called("open")).count(), 1);
        assert_eq!(all(&mut store, "other").0, [KeptBinding { binding: binding(1, "ssn"), since: 8 }]);
    }

    #[test]
    fn what_is_forgotten_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = BindingStore::open(folder.path()).unwrap();
        let awaited = Awaited {
            database: 5,
            schema: Some("public".to_owned()),
            relation: "made".to_owned(),
            columns: vec![0],
            label: "ssn".to_owned(),
            record: RecordId(7),
        };
        let changes = vec![
            Change::Bound(binding(1, "ssn")),
            Change::Bound(binding(2, "open")),
            Change::Awaits(awaited.clone()),
            Change::Awaits(awaited),
        ];
        keep(&mut store, "orders", changes, 7);
        assert_eq!(all(&mut store, "orders").1.len(), 1);
        let mut forget = |relation: &str, column: Option<&str>| {
            let what = Which {
                schema: "public".to_owned(),
                relation: relation.to_owned(),
                column: column.map(str::to_owned),
            };
            store.answer(Question::Forget { resource: resource("orders"), what }, 0).unwrap()
        };
        assert_eq!(forget("customers", Some("nope")), Answer::Forgotten(0));
        assert_eq!(forget("customers", Some("open")), Answer::Forgotten(1));
        assert_eq!(forget("made", None), Answer::Forgotten(1));
        let (kept, awaited) = all(&mut store, "orders");
        assert_eq!((kept.len(), awaited.len()), (1, 0));
    }
}
