//! What a PostgreSQL text does, as far as its text tells, and what must be asked of the catalogue to tell the rest.
//!
//! The road: [`analyze`] reads a text into [`Statement`]s whose references are names as written;
//! [`question`] says which names must be looked up on the session's own connection; [`facts`] joins the two into
//! [`StatementFacts`] for policy. What cannot be read is `unknown`, never guessed: a batch in which one statement
//! is unreadable has no readable statement.
//!
//! Nothing here talks to a server or knows the wire protocol.

mod analyze;
mod answers;
mod builtin;
mod change;
mod compared;
mod copied;
mod facts;
mod fuzz;
mod guard;
mod kinds;
mod lexer;
mod lineage;
pub mod mysql;
mod names;
mod number;
mod opinion;
mod puts;
mod qualify;
mod readings;
mod redact;
mod schema;
mod shape;
#[cfg(test)]
mod tests;
mod trace;
mod utility;
mod walk;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    ops::{Deref, Range},
    sync::Arc,
};

pub use analyze::{analyze, writes_once};
pub use answers::{Answers, Moment};
pub use change::{Change, change};
pub use compared::{Compared, literal};
pub use facts::{batch_facts, executed, facts, needs_answer, question, shifts_names};
pub use fuzz::fuzz;
pub use guard::{MAX_BYTES, MAX_CHAIN, MAX_DEPTH, MAX_NESTING, MAX_TOKENS};
pub use lineage::{Lineage, Output, Uses};
pub use number::{called, calling, parameters};
pub use opinion::{Disagreement, Opinion, SecondOpinion, Told, compare};
pub use puts::{Column as PutColumn, Put};
pub use qualify::qualified;
pub use readings::{AskedAlready, Readings};
pub use redact::{redact, without_literals};
use serde::{Deserialize, Serialize};
pub use shape::{Shape, shape};
use smallvec::SmallVec;
pub use trace::{handed_on, replacing, trace};
pub use utility::{named_role, says_who};

use crate::{
    mask::LabelSet,
    model::{Object, SessionChange, StatementKind, Unknown, Verb},
};

/// Whose rules a text is cut into tokens by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// PostgreSQL's.
    #[default]
    Postgres,
    /// MySQL's and MariaDB's.
    MySql,
}

impl Dialect {
    /// Whether a record leaves it out.
    pub(crate) fn is_postgres(&self) -> bool {
        *self == Self::Postgres
    }

    /// [`redact`] by its rules.
    pub fn redact(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::Postgres => redact(text),
            Self::MySql => mysql::redact(text),
        }
    }

    /// [`without_literals`] by its rules.
    pub fn without_literals(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::Postgres => without_literals(text),
            Self::MySql => mysql::without_literals(text),
        }
    }
}

/// A name as written, each part folded as the server folds it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The schema, where one was written.
    pub schema: Option<String>,
    /// The last part.
    pub name: String,
}

/// What a statement's effect acts on, by name as written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    /// The resource as a whole.
    Resource,
    /// A relation that should exist.
    Relation(Name),
    /// A relation that should exist, without what inherits from it already.
    Alone(Name),
    /// A relation that the statement makes.
    NewRelation(Name),
    /// A function that is called.
    Function(Name),
    /// A function that is called under the name of the one that changes a setting, with the setting that the text
    /// names, in lower case, if it does.
    SetConfig {
        /// Its name.
        function: Name,
        /// The setting.
        setting: Option<String>,
        /// What the text sets it to, if that is a plain string.
        value: Option<String>,
    },
    /// What stands behind a dot: a column, or the function of that name applied to the row before the dot.
    Attribute(String),
    /// An object of another kind.
    Other {
        /// The SQL word, such as `schema` or `role`.
        kind: String,
        /// Its name as written, folded.
        name: String,
    },
    /// A session setting, in lower case.
    Setting(String),
}

/// What a statement does to the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionVerb {
    /// BEGIN, START TRANSACTION.
    Begin,
    /// COMMIT, END, PREPARE TRANSACTION.
    Commit,
    /// ROLLBACK, ABORT.
    Rollback,
    /// SAVEPOINT, RELEASE, ROLLBACK TO, SET TRANSACTION, SET CONSTRAINTS.
    Other,
    /// COMMIT PREPARED, ROLLBACK PREPARED: the end of a transaction that any session may have begun.
    Prepared,
}

/// Which way a COPY streams on the session's own connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyStream {
    /// COPY ... FROM STDIN.
    FromClient,
    /// COPY ... TO STDOUT, and how its rows are written: none where it has options that are not followed.
    ToClient(Option<CopyWriting>),
}

/// How rows are written that are copied to the client, as without further options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyWriting {
    /// A line each, with tabs between values.
    Text,
    /// A line each, with commas between values.
    Csv,
    /// The same, with a line of names before them.
    CsvWithHeader,
    /// Lengths and bytes.
    Binary,
}

/// One statement of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Where it stands in the text, in bytes, without the semicolon.
    pub range: Range<usize>,
    /// What it means, which other texts may mean as well.
    pub meaning: Arc<Meaning>,
}

/// The statements of a text. Nearly always it is one, which takes no memory of its own.
pub type Statements = SmallVec<[Statement; 1]>;

impl Meaning {
    /// Whether it is a COPY to the client of whatever columns a relation has.
    pub fn copies_all_columns(&self) -> bool {
        matches!(self.copy, Some(CopyStream::ToClient(_))) && self.copied.as_ref().is_some_and(Vec::is_empty)
    }
}

impl Deref for Statement {
    type Target = Meaning;

    fn deref(&self) -> &Meaning {
        &self.meaning
    }
}

/// What a statement means, wherever it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meaning {
    /// Its kind.
    pub kind: StatementKind,
    /// What it does, by names as written; in order, without repetition.
    pub effects: Vec<(Verb, Reference)>,
    /// Whether every UPDATE and DELETE in it has a WHERE clause.
    pub has_where: bool,
    /// Whether the outermost query has a LIMIT or FETCH FIRST.
    pub has_limit: bool,
    /// What it changes of the session when it succeeds.
    pub session: Option<SessionChange>,
    /// The SQL-level prepared statement that it executes.
    pub executes: Option<String>,
    /// What it does to the transaction.
    pub transaction: Option<TransactionVerb>,
    /// The operators in it, each once: those that are written, and those that its grammar stands for.
    pub operators: Vec<String>,
    /// Which way its data streams on the session's own connection, if it is a COPY that does so.
    pub copy: Option<CopyStream>,
    /// The columns that it names if it copies a table to the client; none of them stands for all.
    pub copied: Option<Vec<String>>,
    /// What its values are made of.
    pub lineage: Lineage,
    /// What about it could not be understood.
    pub unknown: Option<Unknown>,
}

/// Names to be looked up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Question {
    /// Relations.
    pub relations: BTreeSet<Name>,
    /// Functions.
    pub functions: BTreeSet<Name>,
    /// Functions by their numbers.
    pub numbers: BTreeSet<u32>,
}

impl Question {
    /// How much is asked for.
    pub fn len(&self) -> usize {
        self.relations.len().saturating_add(self.functions.len()).saturating_add(self.numbers.len())
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it asks for all that the other asks for.
    pub fn covers(&self, other: &Self) -> bool {
        self.relations.is_superset(&other.relations)
            && self.functions.is_superset(&other.functions)
            && self.numbers.is_superset(&other.numbers)
    }
}

/// What the catalogue said, on the session's own connection with its own role and search path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// The current database.
    pub database: String,
    /// Its OID.
    pub database_oid: Option<u32>,
    /// The effective role.
    pub role: String,
    /// The effective search path, `pg_catalog` included, first match first.
    pub search_path: Vec<String>,
    /// Each relation asked for.
    pub relations: BTreeMap<Name, Relation>,
    /// Each function asked for.
    pub functions: BTreeMap<Name, Function>,
    /// Each function asked for by its number; none where there is none now.
    pub numbers: BTreeMap<u32, Option<Numbered>>,
    /// What holds whatever was asked for.
    pub besides: Arc<Besides>,
}

/// Code of somebody's own that statements run without naming it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Besides {
    /// What operators run, by their names, which the search path finds and which are not the server's own.
    pub operators: BTreeMap<String, Vec<Routine>>,
    /// What converting a value may run: casts, and what domains check.
    pub conversions: Vec<Routine>,
    /// What a change of the schema runs.
    pub event_triggers: Vec<Routine>,
}

/// A function, procedure or aggregate by the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routine {
    /// What it is.
    pub object: Object,
    /// Whether it is the server's own: in `pg_catalog`, with an OID below 16384.
    pub built_in: bool,
}

/// A function by its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered {
    /// What it is.
    pub routine: Routine,
    /// The types of its parameters.
    pub parameters: Vec<u32>,
}

/// What else happens when something is done to a relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consequence {
    /// What brings it about.
    pub of: Vec<Verb>,
    /// What happens.
    pub what: What,
}

/// See [`Consequence`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Code is run: of a trigger, a view, row security, a default, a check or an index.
    Runs(Routine),
    /// Something is done to another relation, by a foreign key or in filling a materialized view.
    Does(Verb, Object),
    /// Another server is asked.
    Reaches,
}

/// A column of a relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its number in the relation, from 1.
    pub number: i16,
    /// Its name.
    pub name: String,
    /// The labels that it carries: by its name, by that of what it is inherited from or by, or by what it shows.
    pub labels: LabelSet,
}

/// Whose rows are read out of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// Its own, or those of its partitions and heirs: it is a table.
    Own,
    /// Those of others, or of another server.
    Others,
}

/// A relation by the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Relation {
    /// It exists.
    Found {
        /// What it is.
        object: Object,
        /// Whose rows it has.
        rows: Rows,
        /// Relations that it reads when it is a view or has row security, through all levels.
        reads: Vec<Object>,
        /// Its columns, where the resource has labels.
        columns: Vec<Column>,
        /// Its inheritance children, to which is done what is done to it. Partitions are part of it and not listed.
        children: Vec<Object>,
        /// What else happens.
        consequences: Vec<Consequence>,
        /// Whether user-written rules other than a view's own SELECT rule are attached to it: what a write does
        /// is then unknown.
        has_rules: bool,
    },
    /// It does not exist now.
    Missing,
}

/// The functions that a name could mean, by its arguments. None where there is no such function now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Function {
    /// Those that are not built in, each name once.
    pub users: Vec<Object>,
    /// Those that are built in (`pg_catalog`, OID below 16384): all overloads.
    pub built_in: Vec<u32>,
}
