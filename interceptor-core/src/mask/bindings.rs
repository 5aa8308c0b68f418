//! Bindings: which columns bear a label by their numbers, which no renaming changes.
//!
//! Promises: a column that was seen to bear a label bears it, however it and what it stands in are called later, for as
//! long as the pattern that it was found by stands in the label, or, where labelled data was copied into it, until
//! somebody forgets it. While it is not known what is bound, everything bears every label. Who keeps bindings, and since
//! when there are any, is not known here.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};

use super::{Carried, Destination, LabelSet, Labels};
use crate::model::RecordId;

/// How many columns of one resource may be bound.
pub const MOST: usize = 65_536;
const NO_DATABASE: &str = "the number of the database that it goes to is not known";
/// Relations below are the server's own, which nobody renames.
const FIRST_OWN: u32 = 16_384;

/// A column by its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The database's OID.
    pub database: u32,
    /// The relation's OID.
    pub relation: u32,
    /// The column's number in it; 0 is all of its columns.
    pub column: i16,
}

/// What a column is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Called {
    /// The database.
    pub database: String,
    /// The schema.
    pub schema: String,
    /// The relation.
    pub relation: String,
    /// The column; `*` where all are meant.
    pub column: String,
}

impl fmt::Display for Called {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.schema, self.relation, self.column)
    }
}

/// Why a column is bound.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Cause {
    /// Its name fitted this pattern when it was seen.
    Pattern(String),
    /// The statement with this record copied labelled data into it.
    Copied(RecordId),
}

/// A label that a column bears.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// The column.
    pub place: Place,
    /// The label's name.
    pub label: String,
    /// Why so.
    pub cause: Cause,
    /// What it was called when it was last seen.
    pub called: Called,
}

/// A relation that a statement was to make out of labelled data: whatever stands under that name is bound when it is
/// seen, since nobody can tell which one came of the statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Awaited {
    /// The database's OID.
    pub database: u32,
    /// The schema that it may be in; none is the session's own for temporary ones.
    pub schema: Option<String>,
    /// Its name.
    pub relation: String,
    /// The numbers of its columns that bear the label.
    pub columns: Vec<i16>,
    /// The label's name.
    pub label: String,
    /// The statement's record.
    pub record: RecordId,
}

impl Awaited {
    fn is(&self, database: u32, seen: &Seen<'_>) -> bool {
        let schema = match &self.schema {
            Some(schema) => schema == seen.schema,
            None => is_temporary(seen.schema),
        };
        schema && self.database == database && self.relation == seen.name
    }
}

/// Which columns are meant, by what they were called last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Which {
    /// The schema.
    pub schema: String,
    /// The relation.
    pub relation: String,
    /// The column; none is all of them.
    pub column: Option<String>,
}

impl Which {
    /// Reads `SCHEMA.RELATION` or `SCHEMA.RELATION.COLUMN`, each as the catalogue spells it.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.splitn(3, '.').collect();
        let (schema, relation, column) = match parts.as_slice() {
            [schema, relation] => (schema, relation, None),
            [schema, relation, column] => (schema, relation, Some((*column).to_owned())),
            _ => return None,
        };
        let named = parts.iter().all(|part| !part.is_empty());
        named.then(|| Self { schema: (*schema).to_owned(), relation: (*relation).to_owned(), column })
    }

    /// Whether that is one of them.
    pub fn is(&self, called: &Called) -> bool {
        let column = self.column.as_ref().is_none_or(|column| *column == called.column);
        column && self.schema == called.schema && self.relation == called.relation
    }

    /// Whether they are to be in that.
    pub fn is_to_be(&self, awaited: &Awaited) -> bool {
        self.relation == awaited.relation && awaited.schema.as_ref() == Some(&self.schema)
    }
}

/// What is to be kept of what has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Change {
    /// A column is bound.
    Bound(Binding),
    /// A bound column is called otherwise.
    Called {
        /// Which.
        place: Place,
        /// How.
        called: Called,
    },
    /// A relation is awaited.
    Awaits(Awaited),
}

/// A bound column that no pattern of its label fits any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The label's name.
    pub label: String,
    /// What it was called.
    pub from: Called,
    /// What it is called now.
    pub to: Called,
}

/// What a column of a relation is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundColumn {
    /// Its number; 0 is all of them.
    pub number: i16,
    /// What it was called when it was last seen.
    pub called: String,
    /// The labels.
    pub labels: LabelSet,
}

/// A relation as the catalogue showed it.
#[derive(Debug)]
pub struct Seen<'a> {
    /// Its OID.
    pub relation: u32,
    /// Its schema.
    pub schema: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its columns, by their numbers; empty where they were not asked for.
    pub columns: Vec<(i16, &'a str)>,
    /// The relations that pass their names to its columns, itself among them.
    pub family: Vec<(&'a str, &'a str)>,
    /// Their OIDs.
    pub kin: Vec<u32>,
}

/// The bindings of one resource, which all its sessions share.
#[derive(Debug)]
pub struct Bindings {
    state: RwLock<State>,
    /// Counts what columns came to bear besides by their names, and what was forgotten of that.
    copies: AtomicU64,
}

#[derive(Debug)]
enum State {
    /// What is bound is not known.
    Unknown,
    Known(Table),
}

#[derive(Debug, Default)]
struct Table {
    bound: BTreeMap<(u32, u32), Vec<Binding>>,
    awaited: Vec<Awaited>,
    count: usize,
    /// What is not kept yet.
    changes: Vec<Change>,
    /// Of what has moved nobody was told yet.
    moved: Vec<Moved>,
    /// More was to be bound than there is room for.
    full: bool,
}

/// What nobody was told yet.
#[derive(Debug, Default)]
pub struct News {
    /// What is to be kept.
    pub changes: Vec<Change>,
    /// Whom to warn of what.
    pub moved: Vec<Moved>,
}

/// Whether all that has come is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// It is.
    Done,
    /// There is something to be kept.
    Owed,
    /// There is no room for more.
    Full,
}

impl Bindings {
    /// What is bound is not known yet.
    pub fn unknown() -> Self {
        Self { state: RwLock::new(State::Unknown), copies: AtomicU64::new(0) }
    }

    /// What is bound is just this.
    pub fn known(bindings: Vec<Binding>, awaited: Vec<Awaited>) -> Self {
        let new = Self::unknown();
        new.learn(bindings, awaited);
        new
    }

    /// From here on, what is bound is just this.
    pub fn learn(&self, bindings: Vec<Binding>, awaited: Vec<Awaited>) {
        let mut table = Table { awaited, ..Table::default() };
        bindings.into_iter().for_each(|binding| table.add(binding));
        *self.write() = State::Known(table);
        self.copies.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether it is known what is bound.
    pub fn is_known(&self) -> bool {
        matches!(*self.read(), State::Known(_))
    }

    /// Moves on whenever a column comes to bear what its name does not tell, or bears it no more.
    pub fn copies(&self) -> u64 {
        self.copies.load(Ordering::Acquire)
    }

    /// Whether all that has come is kept.
    pub fn keeping(&self) -> Keeping {
        match &*self.read() {
            State::Known(table) if table.full => Keeping::Full,
            State::Known(table) if !table.changes.is_empty() || !table.moved.is_empty() => Keeping::Owed,
            State::Known(_) | State::Unknown => Keeping::Done,
        }
    }

    /// What is to be kept, and of what nobody was told. It is given once: what cannot be kept is given back.
    pub fn news(&self) -> News {
        match &mut *self.write() {
            State::Known(table) => {
                News { changes: std::mem::take(&mut table.changes), moved: std::mem::take(&mut table.moved) }
            }
            State::Unknown => News::default(),
        }
    }

    /// This could not be kept, or nobody could be told.
    pub fn owe(&self, news: News) {
        if let State::Known(table) = &mut *self.write() {
            let News { changes, moved } = news;
            table.changes.splice(0..0, changes);
            table.moved.splice(0..0, moved);
        }
    }

    /// Takes note of relations of a database: what their names say is bound, and what moved is told.
    pub fn seen(&self, labels: &Labels, database: (u32, &str), relations: &[Seen<'_>]) {
        let mut state = self.write();
        let State::Known(table) = &mut *state else { return };
        let before = table.count;
        for seen in relations {
            table.made(database, seen);
        }
        if table.count != before {
            self.copies.fetch_add(1, Ordering::AcqRel);
        }
        for seen in relations {
            table.rename(labels, database, seen);
            table.name(labels, database, seen);
        }
    }

    /// What the columns of a relation are bound to; none where that is not known.
    pub fn of(&self, labels: &Labels, database: u32, relation: u32) -> Option<Vec<BoundColumn>> {
        let state = self.read();
        let State::Known(table) = &*state else { return None };
        let bound = table.bound.get(&(database, relation)).into_iter().flatten();
        let each = bound.filter_map(|binding| {
            let labels = active(labels, binding)?;
            Some(BoundColumn { number: binding.place.column, called: binding.called.column.clone(), labels })
        });
        Some(each.collect())
    }

    /// Labelled data is about to be copied by the statement with that record. The error says why it cannot be followed.
    pub fn copied(&self, labels: &Labels, carried: &[Carried], record: RecordId) -> Result<(), &'static str> {
        let mut state = self.write();
        let State::Known(table) = &mut *state else { return Err("it is not known what bears which label") };
        for Carried { to, labels: set } in carried {
            for label in labels.names(*set).filter(|label| *label != Labels::STATISTICS) {
                table.copied(to, label, record)?;
            }
        }
        if table.full {
            return Err("too many columns are bound to labels");
        }
        self.copies.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// What is called so is not bound any more, until its name tells it anew.
    pub fn forget(&self, what: &Which) {
        let State::Known(table) = &mut *self.write() else { return };
        for bound in table.bound.values_mut() {
            bound.retain(|binding| !what.is(&binding.called));
        }
        table.bound.retain(|_, bound| !bound.is_empty());
        table.count = table.bound.values().map(Vec::len).sum();
        table.full &= table.count >= MOST;
        table.awaited.retain(|awaited| !what.is_to_be(awaited));
        table.changes.retain(|change| match change {
            Change::Bound(Binding { called, .. }) | Change::Called { called, .. } => !what.is(called),
            Change::Awaits(awaited) => !what.is_to_be(awaited),
        });
        // What was told of the columns before is asked anew.
        self.copies.fetch_add(1, Ordering::AcqRel);
    }

    // A panic elsewhere leaves it whole enough: what is bound is only added to.
    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn add(&mut self, binding: Binding) {
        let of = self.bound.entry((binding.place.database, binding.place.relation)).or_default();
        let same = |one: &Binding| {
            (one.place, &one.label, &one.cause) == (binding.place, &binding.label, &binding.cause)
        };
        if !of.iter().any(same) {
            of.push(binding);
            self.count = self.count.saturating_add(1);
        }
    }

    /// Binds a column that is not bound so yet.
    fn bind(&mut self, binding: Binding) {
        let of = self.bound.get(&(binding.place.database, binding.place.relation)).into_iter().flatten();
        let mut of = of.filter(|one| one.label == binding.label && one.place == binding.place);
        // A second copy into the same column tells nothing new.
        let known = of.any(|one| match (&one.cause, &binding.cause) {
            (Cause::Copied(_), Cause::Copied(_)) => true,
            (one, other) => one == other,
        });
        if known {
            return;
        }
        if self.count >= MOST {
            self.full = true;
            return;
        }
        // What is temporary is gone before whoever keeps bindings is asked for them again.
        if !is_temporary(&binding.called.schema) {
            self.changes.push(Change::Bound(binding.clone()));
        }
        self.add(binding);
    }

    /// What was awaited is bound.
    fn made(&mut self, database: (u32, &str), seen: &Seen<'_>) {
        let fits = |awaited: &&Awaited| awaited.is(database.0, seen);
        for awaited in self.awaited.iter().filter(fits).cloned().collect::<Vec<_>>() {
            for column in &awaited.columns {
                let name = seen.columns.iter().find(|(number, _)| number == column);
                let called = called(database.1, seen, name.map_or("*", |(_, name)| name));
                let place = Place { database: database.0, relation: seen.relation, column: *column };
                let cause = Cause::Copied(awaited.record);
                self.bind(Binding { place, label: awaited.label.clone(), cause, called });
            }
        }
    }

    /// What is called otherwise is told, where its name does not say any more what it bears.
    fn rename(&mut self, labels: &Labels, database: (u32, &str), seen: &Seen<'_>) {
        let Some(bound) = self.bound.get_mut(&(database.0, seen.relation)) else { return };
        for binding in bound {
            let column = seen.columns.iter().find(|(number, _)| *number == binding.place.column);
            let name = match (binding.place.column, column) {
                (0, _) => "*",
                (_, Some((_, name))) => name,
                // Its columns were not asked for, or it is gone.
                (_, None) => &binding.called.column.clone(),
            };
            let now = called(database.1, seen, name);
            if now == binding.called {
                continue;
            }
            let place = binding.place;
            self.changes.push(Change::Called { place, called: now.clone() });
            let from = std::mem::replace(&mut binding.called, now.clone());
            let by_name = |family: &(&str, &str)| {
                labels.fitting(family.0, family.1, name).any(|(label, _)| *label == binding.label)
            };
            let tells = seen.family.iter().any(by_name);
            let moved = Moved { label: binding.label.clone(), from, to: now };
            let is_pattern = matches!(binding.cause, Cause::Pattern(_));
            if is_pattern && !tells && active(labels, binding).is_some() && !self.moved.contains(&moved) {
                self.moved.push(moved);
            }
        }
    }

    /// What its name tells is bound.
    fn name(&mut self, labels: &Labels, database: (u32, &str), seen: &Seen<'_>) {
        if seen.relation < FIRST_OWN || is_temporary(seen.schema) {
            return;
        }
        for (number, column) in &seen.columns {
            let fitting: Vec<(String, String)> = seen
                .family
                .iter()
                .flat_map(|(schema, relation)| labels.fitting(schema, relation, column))
                .filter(|(label, _)| *label != Labels::STATISTICS)
                .map(|(label, pattern)| (label.to_owned(), pattern.to_string()))
                .collect();
            let patterns = fitting.into_iter().map(|(label, pattern)| (label, Cause::Pattern(pattern)));
            for (label, cause) in patterns.chain(self.copied_into_kin(database.0, seen, column)) {
                let place = Place { database: database.0, relation: seen.relation, column: *number };
                let called = called(database.1, seen, column);
                self.bind(Binding { place, label, cause, called });
            }
        }
    }

    /// What was copied into the columns called so of its kin: rows of theirs may stand in it, and it may leave them.
    fn copied_into_kin(&self, database: u32, seen: &Seen<'_>, column: &str) -> Vec<(String, Cause)> {
        let others = seen.kin.iter().filter(|oid| **oid != seen.relation);
        let bound = others.filter_map(|oid| self.bound.get(&(database, *oid))).flatten();
        let copied = bound.filter(|one| {
            matches!(one.cause, Cause::Copied(_)) && (one.place.column == 0 || one.called.column == column)
        });
        copied.map(|one| (one.label.clone(), one.cause.clone())).collect()
    }

    fn copied(&mut self, to: &Destination, label: &str, record: RecordId) -> Result<(), &'static str> {
        match to {
            Destination::Relation { database, object, columns } => {
                let relation = object.oid.ok_or("the number of the relation that it goes to is not known")?;
                let database = database.ok_or(NO_DATABASE)?;
                for (column, name) in columns {
                    let called = Called {
                        database: object.database.clone(),
                        schema: object.schema.clone(),
                        relation: object.name.clone(),
                        column: name.clone(),
                    };
                    let place = Place { database, relation, column: *column };
                    let cause = Cause::Copied(record);
                    self.bind(Binding { place, label: label.to_owned(), cause, called });
                }
            }
            Destination::New { database, schemas, name, columns } => {
                let database = database.ok_or(NO_DATABASE)?;
                if self.awaited.len() >= MOST {
                    return Err("too many relations are awaited");
                }
                let named = schemas.iter().filter(|schema| !is_temporary(schema)).cloned();
                for schema in named.map(Some).chain([None]) {
                    self.awaits(Awaited {
                        database,
                        schema,
                        relation: name.clone(),
                        columns: columns.clone(),
                        label: label.to_owned(),
                        record,
                    });
                }
            }
        }
        Ok(())
    }

    fn awaits(&mut self, awaited: Awaited) {
        let same = |one: &Awaited| Awaited { record: awaited.record, ..one.clone() } == awaited;
        if self.awaited.iter().any(same) {
            return;
        }
        if awaited.schema.is_some() {
            self.changes.push(Change::Awaits(awaited.clone()));
        }
        self.awaited.push(awaited);
    }
}

fn called(database: &str, seen: &Seen<'_>, column: &str) -> Called {
    Called {
        database: database.to_owned(),
        schema: seen.schema.to_owned(),
        relation: seen.name.to_owned(),
        column: column.to_owned(),
    }
}

/// What a binding stands for by the labels that there are now.
fn active(labels: &Labels, binding: &Binding) -> Option<LabelSet> {
    let (place, label) = labels.iter().enumerate().find(|(_, label)| label.name == binding.label)?;
    match &binding.cause {
        Cause::Pattern(pattern) => {
            let standing = label.columns.iter().find(|one| one.to_string() == *pattern)?;
            Some(labels.of_pattern(place, standing))
        }
        // Where in a document it went nobody follows.
        Cause::Copied(_) => Some(LabelSet::of(place)),
    }
}

/// Whether relations in that schema end with their session.
fn is_temporary(schema: &str) -> bool {
    schema == "pg_temp" || schema.starts_with("pg_temp_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{mask::labels::tests::labels, model::Object};

    const LABELS: &str =
        "[label.ssn]\ncolumns = [\"public.customers.ssn\", \"*.*.*_ssn\"]\nmask = \"null\"\n";

    fn seen<'a>(relation: u32, schema: &'a str, name: &'a str, columns: &[(i16, &'a str)]) -> Seen<'a> {
        Seen {
            relation,
            schema,
            name,
            columns: columns.to_vec(),
            family: vec![(schema, name)],
            kin: vec![relation],
        }
    }

    fn none() -> Bindings {
        Bindings::known(Vec::new(), Vec::new())
    }

    fn bears(bindings: &Bindings, relation: u32, column: i16) -> bool {
        let of = bindings.of(&labels(LABELS), 5, relation).expect("it is known");
        of.iter().any(|one| one.number == column || one.number == 0)
    }

    fn look(bindings: &Bindings, seen: &Seen<'_>) {
        bindings.seen(&labels(LABELS), (5, "d"), std::slice::from_ref(seen));
    }

    #[test]
    fn what_is_renamed_stays_bound_and_is_told_once() {
        let bindings = none();
        look(&bindings, &seen(20_000, "public", "customers", &[(1, "id"), (2, "ssn")]));
        assert!(bears(&bindings, 20_000, 2) && !bears(&bindings, 20_000, 1));
        let News { changes, moved } = bindings.news();
        assert!(matches!(changes.as_slice(), [Change::Bound(_)]) && moved.is_empty());
        for (schema, name, column, tells) in [
            ("public", "customers", "open", true),
            ("public", "customers", "open", false),
            ("public", "others", "open", true),
            ("clean", "others", "open", true),
            // It fits the other pattern.
            ("clean", "others", "a_ssn", false),
            ("public", "customers", "ssn", false),
        ] {
            look(&bindings, &seen(20_000, schema, name, &[(1, "id"), (2, column)]));
            assert!(bears(&bindings, 20_000, 2) && !bears(&bindings, 20_000, 1), "{schema}.{name}.{column}");
            assert_eq!(bindings.news().moved.len(), usize::from(tells), "{schema}.{name}.{column}");
        }
        assert_eq!(bindings.keeping(), Keeping::Done);
        assert!(!bears(&bindings, 20_001, 2), "a table of another number is another table");
    }

    #[test]
    fn a_pattern_that_is_gone_binds_nothing() {
        let bindings = none();
        look(&bindings, &seen(20_000, "public", "customers", &[(2, "ssn")]));
        let of = |text: &str| bindings.of(&labels(text), 5, 20_000).expect("it is known").len();
        assert_eq!(of(LABELS), 1);
        assert_eq!(of("[label.ssn]\ncolumns = [\"public.customers.open\"]\nmask = \"null\"\n"), 0);
        assert_eq!(of("[label.other]\ncolumns = [\"public.customers.ssn\"]\nmask = \"null\"\n"), 0);
    }

    #[test]
    fn what_is_not_known_is_told_apart_from_nothing() {
        let bindings = Bindings::unknown();
        look(&bindings, &seen(20_000, "public", "customers", &[(2, "ssn")]));
        assert!(bindings.of(&labels(LABELS), 5, 20_000).is_none() && bindings.news().changes.is_empty());
        assert!(bindings.copied(&labels(LABELS), &[], RecordId(1)).is_err());
        bindings.learn(Vec::new(), Vec::new());
        assert_eq!(bindings.of(&labels(LABELS), 5, 20_000), Some(Vec::new()));
    }

    #[test]
    fn what_is_copied_into_a_parent_is_bound_in_its_parts() {
        let bindings = none();
        let to = notes();
        bindings.copied(&labels(LABELS), &carried(to), RecordId(7)).expect("it is followed");
        let part = seen(20_006, "public", "notes_1", &[(1, "note"), (2, "id")]);
        look(&bindings, &Seen { kin: vec![20_005, 20_006], ..part });
        assert!(bears(&bindings, 20_006, 1) && !bears(&bindings, 20_006, 2));
    }

    /// A column of a table.
    fn notes() -> Destination {
        let object = Object {
            database: "d".to_owned(),
            schema: "public".to_owned(),
            name: "notes".to_owned(),
            oid: Some(20_005),
        };
        Destination::Relation { database: Some(5), object, columns: vec![(3, "note".to_owned())] }
    }

    fn carried(to: Destination) -> [Carried; 1] {
        [Carried { to, labels: LabelSet::of(0) }]
    }

    #[test]
    fn copies_are_bound_until_they_are_forgotten() {
        let bindings = none();
        let to = notes();
        let before = bindings.copies();
        bindings.copied(&labels(LABELS), &carried(to.clone()), RecordId(7)).expect("it is followed");
        assert!(bears(&bindings, 20_005, 3) && !bears(&bindings, 20_005, 1));
        assert!(bindings.copies() > before);
        assert_eq!(bindings.news().changes.len(), 1);
        bindings.copied(&labels(LABELS), &carried(to), RecordId(8)).expect("it is followed");
        assert_eq!(bindings.keeping(), Keeping::Done, "the second copy tells nothing new");
        let before = bindings.copies();
        bindings.forget(&Which::parse("public.notes").expect("a relation"));
        assert!(bindings.copies() > before, "answers from before tell of it still");
    }

    #[test]
    fn what_is_made_is_bound_when_it_is_seen() {
        let bindings = none();
        let to = Destination::New {
            database: Some(5),
            schemas: vec!["clean".to_owned(), "public".to_owned()],
            name: "made".to_owned(),
            columns: vec![2],
        };
        bindings.copied(&labels(LABELS), &carried(to.clone()), RecordId(7)).expect("it is followed");
        let columns = [(1, "id"), (2, "s")];
        look(&bindings, &seen(20_001, "other", "made", &columns));
        assert!(!bears(&bindings, 20_001, 2), "it cannot be in that schema");
        look(&bindings, &seen(20_002, "public", "made", &columns));
        assert!(bears(&bindings, 20_002, 2) && !bears(&bindings, 20_002, 1));
        look(&bindings, &seen(20_003, "clean", "made", &columns));
        look(&bindings, &seen(20_004, "pg_temp_3", "made", &columns));
        assert!(bears(&bindings, 20_003, 2) && bears(&bindings, 20_004, 2), "which one it was is not known");
        let changes = bindings.news().changes;
        let temporary =
            |change: &Change| matches!(change, Change::Bound(one) if one.place.relation == 20_004);
        assert!(!changes.iter().any(temporary), "what is temporary is not kept");
    }

    #[test]
    fn what_could_not_be_kept_is_owed() {
        let bindings = none();
        look(&bindings, &seen(20_000, "public", "customers", &[(2, "ssn")]));
        assert_eq!(bindings.keeping(), Keeping::Owed);
        let news = bindings.news();
        assert_eq!(bindings.keeping(), Keeping::Done);
        bindings.owe(news);
        assert_eq!(bindings.keeping(), Keeping::Owed);
    }

    #[test]
    fn there_is_an_end_to_what_can_be_bound() {
        let (bindings, labels) = (none(), labels(LABELS));
        for relation in 0..u32::try_from(MOST).expect("few") + 1 {
            let seen = seen(20_000 + relation, "public", "customers", &[(2, "ssn")]);
            bindings.seen(&labels, (5, "d"), &[seen]);
        }
        assert_eq!(bindings.keeping(), Keeping::Full);
    }
}
