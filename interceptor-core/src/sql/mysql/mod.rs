//! What a MySQL or MariaDB text does, as far as its text tells.
//!
//! The road: [`read`] cuts a text into tokens of our own, reads short statements by these alone, and gives the others to
//! `sqlparser` without their comments and strings, so that nothing in these can be read in two ways. [`Reading::tables`] are
//! the names to look up on the session's own connection; [`facts`] joins the two. What is not on a list is `unknown`.
//!
//! Promise: one text is one statement. A text is read as a server reads it whose `sql_mode` has none of
//! [`READ_OTHERWISE`] and whose `character_set_client` is one of those that [`Charset`] takes; whoever calls has to know
//! that of the session. It must never know the wire protocol.

mod builtin;
mod cursor;
mod ddl;
mod expr;
mod fuzz;
mod guard;
mod lexer;
mod redact;
mod rows;
mod set;
mod settings;
mod show;
#[cfg(test)]
mod tests;
mod utility;
mod walk;
mod words;

use std::{
    collections::{BTreeSet, HashSet},
    hash::Hash,
};

pub use fuzz::fuzz;
pub use redact::{redact, without_literals};
pub use settings::{Charset, READ_OTHERWISE, reads_otherwise};

use super::Dialect;
use crate::model::{Effect, Object, StatementFacts, StatementKind, Target, Unknown, Verb};

/// Stack that must be left to parse without making one.
const STACK_LEFT: usize = 12 << 20;
/// Stack that is made otherwise; only what is touched of it takes memory.
const STACK_MADE: usize = 32 << 20;

/// A table, routine or other object that belongs to a database, as written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The database, where one was written.
    pub database: Option<String>,
    /// The name.
    pub name: String,
}

/// What an effect acts on, as written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    /// The resource as a whole.
    Resource,
    /// A table or view.
    Table(Name),
    /// A routine.
    Function(Name),
    /// An object of another kind.
    Other {
        /// The SQL word.
        kind: &'static str,
        /// Its name.
        name: Name,
    },
    /// A setting of the session, in lower case.
    Setting(String),
}

/// What a statement changes of how those after it are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// USE: names without a database mean this one from now on.
    Database(String),
    /// Settings are other than they were.
    Settings,
    /// Names may mean something else, to everybody.
    Names,
}

/// A statement as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Its kind.
    pub kind: StatementKind,
    /// What it does, in order, and without repetition once it was read to its end.
    pub effects: Vec<(Verb, Reference)>,
    /// Whether an UPDATE or DELETE in it has a WHERE clause; true where there is none.
    pub has_where: bool,
    /// Whether the outermost query has a LIMIT.
    pub has_limit: bool,
    /// What it changes for the statements after it, when it succeeds.
    pub changes: Vec<Change>,
    /// Why it is not understood.
    pub unknown: Option<String>,
}

/// What the server says of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A table with rows of its own, nothing that the session can see, or one of the server's own tables.
    Table,
    /// A table with triggers.
    Triggered,
    /// A view: what it reads stands elsewhere.
    View,
}

/// Where a statement is carried out.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The current database.
    pub database: Option<&'a str>,
    /// How the server compares names.
    pub names: Names,
}

/// How the server compares names of tables and databases (`lower_case_table_names`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// As they are written.
    Exact,
    /// In lower case.
    Folded,
}

/// Reads a text. Total and bounded.
pub fn read(text: &str) -> Reading {
    let reading = stacker::maybe_grow(STACK_LEFT, STACK_MADE, || match guard::check(text) {
        Ok(tokens) => utility::statement(text, &tokens),
        Err(why) => Reading::unknown(StatementKind::Unknown, why),
    });
    Reading { effects: distinct(reading.effects), ..reading }
}

/// Each once, where it stood first.
fn distinct<T: Clone + Eq + Hash>(mut list: Vec<T>) -> Vec<T> {
    let mut seen = HashSet::with_capacity(list.len());
    list.retain(|one| seen.insert(one.clone()));
    list
}

impl Reading {
    /// One that is yet to be filled.
    pub(super) fn of(kind: StatementKind) -> Self {
        let (effects, changes) = (Vec::new(), Vec::new());
        Self { kind, effects, has_where: true, has_limit: false, changes, unknown: None }
    }

    fn unknown(kind: StatementKind, why: impl Into<String>) -> Self {
        let mut reading = Self::of(kind);
        reading.not_understood(why);
        reading
    }

    /// It does one thing.
    fn doing(kind: StatementKind, verb: Verb, reference: Reference) -> Self {
        let mut reading = Self::of(kind);
        reading.add(verb, reference);
        reading
    }

    fn changing(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }

    fn add(&mut self, verb: Verb, reference: Reference) {
        self.effects.push((verb, reference));
    }

    /// The first reason holds.
    fn not_understood(&mut self, why: impl Into<String>) {
        if self.unknown.is_none() {
            self.unknown = Some(why.into());
            self.add(Verb::Unknown, Reference::Resource);
        }
    }

    /// The tables that it names, as the server has them at `place`; none of the server's own.
    pub fn tables(&self, place: Place<'_>) -> BTreeSet<(String, String)> {
        let named = self.effects.iter().filter_map(|(_, reference)| match reference {
            Reference::Table(name) => object(name, place).ok(),
            _ => None,
        });
        named
            .filter(|object| !is_of_server(&object.database))
            .map(|object| (object.database, object.name))
            .collect()
    }
}

/// Databases whose names are the same in any case, and whose tables are the server's own.
const OF_SERVER: [&str; 2] = ["information_schema", "performance_schema"];

fn is_of_server(database: &str) -> bool {
    OF_SERVER.iter().any(|own| own.eq_ignore_ascii_case(database))
}

/// `text` as the server has it that compares names like that.
fn folded(text: &str, names: Names) -> Result<String, String> {
    match names {
        Names::Exact => Ok(text.to_owned()),
        Names::Folded if text.is_ascii() => Ok(text.to_ascii_lowercase()),
        // Its own rules for other letters are the server's alone.
        Names::Folded => Err(format!("the server does not tell `{text}` from names with similar letters")),
    }
}

/// What a name means at `place`.
fn object(name: &Name, place: Place<'_>) -> Result<Object, String> {
    let database = name.database.as_deref().or(place.database);
    let database =
        database.ok_or_else(|| format!("no database is selected, so that `{}` names nothing", name.name))?;
    let of_server = is_of_server(database);
    let names = if of_server { Names::Folded } else { place.names };
    let (database, name) = (folded(database, names)?, folded(&name.name, names)?);
    let may_be = |own: &&str| database.chars().count() == own.len();
    if !of_server && !database.is_ascii() && OF_SERVER.iter().any(may_be) {
        return Err(format!("the server may take `{database}` for one of its own"));
    }
    Ok(Object { database, schema: String::new(), name, oid: None })
}

/// What the name of a routine means at `place`. Without a database it may be nobody's: what policy is asked about is its name.
fn routine(name: &Name, place: Place<'_>) -> Result<Object, String> {
    let database = name.database.as_deref().or(place.database).unwrap_or_default();
    let database = folded(database, place.names)?;
    // Any server takes routines for the same whose names differ in case alone.
    Ok(Object { database, schema: String::new(), name: folded(&name.name, Names::Folded)?, oid: None })
}

/// The name of an object of that kind, in its database where it has one.
fn other(kind: &str, name: &Name, place: Place<'_>) -> Result<String, String> {
    // As with routines.
    let names = if kind == "event" { Names::Folded } else { place.names };
    let own = folded(&name.name, names)?;
    match name.database.as_deref().or(place.database) {
        Some(database) if kind != "database" => Ok(format!("{}.{own}", folded(database, place.names)?)),
        _ => Ok(own),
    }
}

/// What the reading means at `place`, where `kind` says what the server says of the tables that it names; none where that
/// could not be had.
pub fn facts(reading: &Reading, place: Place<'_>, kind: impl Fn(&Object) -> Option<Kind>) -> StatementFacts {
    let mut unknown = reading.unknown.clone();
    let mut effects = Vec::with_capacity(reading.effects.len());
    for (verb, reference) in &reading.effects {
        let target = match reference {
            Reference::Resource => Ok(Target::Resource),
            Reference::Other { kind, name } => {
                other(kind, name, place).map(|name| Target::Other { kind: (*kind).to_owned(), name })
            }
            Reference::Setting(name) => Ok(Target::Setting(name.clone())),
            Reference::Table(name) => object(name, place).map(|object| {
                let why = not_known(*verb, &object, is_of_server(&object.database), &kind);
                unknown = unknown.take().or(why);
                Target::Table(object)
            }),
            Reference::Function(name) => routine(name, place).map(Target::Function),
        };
        let target = target.unwrap_or_else(|why| {
            unknown.get_or_insert(why);
            Target::Resource
        });
        effects.push(Effect { verb: *verb, target });
    }
    if unknown.is_some() {
        effects.push(Effect { verb: Verb::Unknown, target: Target::Resource });
    }
    if effects.is_empty() {
        effects.push(Effect { verb: Verb::DataRead, target: Target::Resource });
    }
    StatementFacts {
        kind: reading.kind,
        effects: distinct(effects),
        has_where: reading.has_where,
        has_limit: reading.has_limit,
        unknown: unknown.map(Unknown),
        provenance: None,
        dialect: Dialect::MySql,
    }
}

/// Why what is done to an object may do more than its name says.
fn not_known(
    verb: Verb,
    object: &Object,
    of_server: bool,
    kind: &impl Fn(&Object) -> Option<Kind>,
) -> Option<String> {
    let shown = format!("{}.{}", object.database, object.name);
    let touches_rows = matches!(
        verb,
        Verb::DataRead
            | Verb::DataInsert
            | Verb::DataUpdate
            | Verb::DataDelete
            | Verb::DataLock
            | Verb::DataTruncate
    );
    if of_server || !touches_rows {
        return None;
    }
    match kind(object) {
        Some(Kind::Table) => None,
        Some(Kind::Triggered) if matches!(verb, Verb::DataRead | Verb::DataLock | Verb::DataTruncate) => None,
        Some(Kind::Triggered) => Some(format!("`{shown}` has triggers, and what they do is not looked up")),
        Some(Kind::View) => Some(format!("`{shown}` is a view, and what it reads is not looked up")),
        None => Some(format!("what `{shown}` is could not be looked up")),
    }
}
