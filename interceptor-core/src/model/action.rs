//! An exchange in protocol-neutral form: what policy judges and what the record keeps.

use std::{collections::BTreeSet, sync::Arc};

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use smol_str::SmolStr;

use super::Image;
use crate::{
    mask::{Carried, Provenance},
    sql::Dialect,
};

/// What an effect does. Each is one Cedar action of the same name ([`Verb::as_str`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Verb {
    /// Open a session to a resource.
    #[serde(rename = "connect")]
    Connect,
    /// Read rows.
    #[serde(rename = "data.read")]
    DataRead,
    /// Add rows.
    #[serde(rename = "data.insert")]
    DataInsert,
    /// Change rows.
    #[serde(rename = "data.update")]
    DataUpdate,
    /// Remove rows.
    #[serde(rename = "data.delete")]
    DataDelete,
    /// Empty a table.
    #[serde(rename = "data.truncate")]
    DataTruncate,
    /// Take an explicit lock on a table.
    #[serde(rename = "data.lock")]
    DataLock,
    /// Make an object.
    #[serde(rename = "schema.create")]
    SchemaCreate,
    /// Change an object.
    #[serde(rename = "schema.alter")]
    SchemaAlter,
    /// Remove an object.
    #[serde(rename = "schema.drop")]
    SchemaDrop,
    /// Grants, roles, ownership, policies of the server itself.
    #[serde(rename = "access.change")]
    AccessChange,
    /// Settings of the session: SET, RESET, set_config, SET ROLE, DISCARD.
    #[serde(rename = "session.change")]
    SessionChange,
    /// BEGIN, COMMIT, ROLLBACK, savepoints, two-phase commit.
    #[serde(rename = "transaction")]
    Transaction,
    /// Call a function that is not on the list of harmless built-in ones.
    #[serde(rename = "function.call")]
    FunctionCall,
    /// Make the server reach beyond its data: files, programs, other servers, large objects.
    #[serde(rename = "server.reach")]
    ServerReach,
    /// VACUUM, ANALYZE, REINDEX, CLUSTER, CHECKPOINT.
    #[serde(rename = "maintenance")]
    Maintenance,
    /// LISTEN, UNLISTEN, NOTIFY.
    #[serde(rename = "notify")]
    Notify,
    /// Cancel a running statement of one's own.
    #[serde(rename = "cancel")]
    Cancel,
    /// Relay a resource without inspecting it.
    #[serde(rename = "pass")]
    Pass,
    /// Speak the replication protocol, which is relayed without being inspected.
    #[serde(rename = "replicate")]
    Replicate,
    /// Be shown what a label hides. Never an effect of a statement, which is carried out either way.
    #[serde(rename = "see")]
    See,
    /// Let what a label hides decide which rows there are, or their order.
    #[serde(rename = "label.filter")]
    LabelFilter,
    /// Put what a label hides where it cannot be followed: into a table, a function, a setting, a COPY.
    #[serde(rename = "label.copy")]
    LabelCopy,
    /// Look up a name.
    #[serde(rename = "resolve")]
    Resolve,
    /// Start a program captured, or capture one that runs.
    #[serde(rename = "launch")]
    Launch,
    /// Have the container engine fetch an image.
    #[serde(rename = "pull")]
    Pull,
    /// Something that could not be understood.
    #[serde(rename = "unknown")]
    Unknown,
}

impl Verb {
    /// Every verb, in the order of the schema.
    pub const ALL: [Self; 27] = [
        Self::Connect,
        Self::DataRead,
        Self::DataInsert,
        Self::DataUpdate,
        Self::DataDelete,
        Self::DataTruncate,
        Self::DataLock,
        Self::SchemaCreate,
        Self::SchemaAlter,
        Self::SchemaDrop,
        Self::AccessChange,
        Self::SessionChange,
        Self::Transaction,
        Self::FunctionCall,
        Self::ServerReach,
        Self::Maintenance,
        Self::Notify,
        Self::Cancel,
        Self::Pass,
        Self::Replicate,
        Self::See,
        Self::LabelFilter,
        Self::LabelCopy,
        Self::Resolve,
        Self::Launch,
        Self::Pull,
        Self::Unknown,
    ];

    /// The name of the Cedar action, and the word that people are shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::DataRead => "data.read",
            Self::DataInsert => "data.insert",
            Self::DataUpdate => "data.update",
            Self::DataDelete => "data.delete",
            Self::DataTruncate => "data.truncate",
            Self::DataLock => "data.lock",
            Self::SchemaCreate => "schema.create",
            Self::SchemaAlter => "schema.alter",
            Self::SchemaDrop => "schema.drop",
            Self::AccessChange => "access.change",
            Self::SessionChange => "session.change",
            Self::Transaction => "transaction",
            Self::FunctionCall => "function.call",
            Self::ServerReach => "server.reach",
            Self::Maintenance => "maintenance",
            Self::Notify => "notify",
            Self::Cancel => "cancel",
            Self::Pass => "pass",
            Self::Replicate => "replicate",
            Self::See => "see",
            Self::LabelFilter => "label.filter",
            Self::LabelCopy => "label.copy",
            Self::Resolve => "resolve",
            Self::Launch => "launch",
            Self::Pull => "pull",
            Self::Unknown => "unknown",
        }
    }
}

/// An object of a resource, fully named.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Object {
    /// The database.
    pub database: String,
    /// The schema. Empty for objects that have none.
    pub schema: String,
    /// The name, as the catalogue spells it.
    pub name: String,
    /// The catalogue's number for it, where it exists.
    pub oid: Option<u32>,
}

impl Object {
    /// What its name is looked for in, and what policy calls that: its schema, or its database where there are no schemas.
    pub fn place(&self) -> (&'static str, &str) {
        if self.schema.is_empty() { ("database", &self.database) } else { ("schema", &self.schema) }
    }

    /// Its name as people are shown it, with what it is in.
    pub fn shown(&self) -> String {
        match self.place().1 {
            "" => self.name.clone(),
            place => format!("{place}.{}", self.name),
        }
    }
}

/// What an effect acts on: becomes the resource of a Cedar question.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The resource itself.
    Resource,
    /// A table, view, sequence or any other relation.
    Table(Object),
    /// A function or procedure.
    Function(Object),
    /// A database object of another kind: schema, type, role, extension... `kind` is the SQL word in lower case.
    Other {
        /// The SQL word, such as `schema` or `role`.
        kind: String,
        /// Its name as written, folded as the server folds it.
        name: String,
    },
    /// A session setting, in lower case.
    Setting(String),
    /// A DNS name, in lower case without the final dot.
    Name(String),
    /// A label of the resource.
    Label(String),
    /// A program that is launched.
    Program(Program),
    /// An image that the container engine is to fetch.
    Image(Image),
}

/// A program that is launched, and as what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Where it lies.
    pub path: String,
    /// The user that it runs as: the name, or the number of one that has none.
    pub user: String,
    /// The capabilities that it keeps, such as `net_raw`.
    #[serde(default)]
    pub capabilities: BTreeSet<String>,
    /// The profile of the run, such as `ci`; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub profile: String,
}

impl Target {
    /// What has the same name, whichever it is now.
    #[must_use]
    pub fn without_number(self) -> Self {
        match self {
            Self::Table(object) => Self::Table(Object { oid: None, ..object }),
            Self::Function(object) => Self::Function(Object { oid: None, ..object }),
            other => other,
        }
    }
}

/// One thing an exchange does to one target: one policy question.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Effect {
    /// What is done.
    pub verb: Verb,
    /// To what.
    pub target: Target,
}

/// In which form the exchange came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// A session is opened.
    Connect,
    /// Text that is carried out at once.
    Query,
    /// Text that is only prepared; no bind values yet.
    Prepare,
    /// A prepared statement is carried out, with its bind values.
    Execute,
    /// A request to stop another exchange.
    Cancel,
    /// A connection that is relayed uninspected.
    Pass,
    /// A name look-up.
    Resolve,
    /// A launch.
    Launch,
    /// An image is fetched.
    Pull,
}

/// The kind of a statement, a closed list that policy may compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is the SQL statement of that name")]
pub enum StatementKind {
    Select,
    Insert,
    Update,
    Delete,
    Merge,
    Truncate,
    Copy,
    Create,
    Alter,
    Drop,
    Grant,
    Revoke,
    Set,
    Reset,
    Show,
    Discard,
    Transaction,
    Prepare,
    Execute,
    Deallocate,
    Declare,
    Fetch,
    Close,
    Explain,
    Call,
    Do,
    Lock,
    Listen,
    Notify,
    Maintenance,
    Comment,
    /// An empty statement.
    Empty,
    /// Not a statement: opening, cancelling, passing, resolving.
    None,
    /// A statement that is none of these, or could not be read.
    Unknown,
}

/// Why something could not be understood.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[error("{0}")]
pub struct Unknown(pub String);

/// A change that a statement makes to the session when it succeeds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionChange {
    /// SQL-level PREPARE: from now on `name` means `text`.
    Prepared {
        /// The statement's name, folded as the server folds it.
        name: String,
        /// The text behind AS.
        text: String,
    },
    /// DEALLOCATE of one name, or of all (`None`).
    Deallocated(Option<String>),
    /// DISCARD ALL: prepared statements, cursors and settings are gone.
    Discarded,
}

/// What is known of one statement before policy is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StatementFacts {
    /// Its kind.
    pub kind: StatementKind,
    /// What it does, an entry per verb and target, in order and without repetition. Never empty.
    pub effects: Vec<Effect>,
    /// Whether every UPDATE and DELETE in it has a WHERE clause. True where there are none.
    pub has_where: bool,
    /// Whether the outermost query has a LIMIT or FETCH FIRST.
    pub has_limit: bool,
    /// Why it is not fully understood, if so. Then `effects` has an entry with [`Verb::Unknown`].
    pub unknown: Option<Unknown>,
    /// Where what it answers comes from, where the resource has labels.
    #[serde(skip)]
    pub provenance: Option<Arc<Provenance>>,
    /// By whose rules its text is written: how secrets are taken out of that, and which names are the server's own.
    #[serde(default, skip_serializing_if = "Dialect::is_postgres")]
    pub dialect: Dialect,
}

impl StatementFacts {
    /// Facts of something that is no SQL statement and does one thing.
    pub fn single(verb: Verb, target: Target) -> Self {
        Self {
            kind: StatementKind::None,
            effects: vec![Effect { verb, target }],
            has_where: true,
            has_limit: false,
            unknown: None,
            provenance: None,
            dialect: Dialect::default(),
        }
    }

    /// The same, of a text that is written by these rules.
    #[must_use]
    pub fn written_in(self, dialect: Dialect) -> Self {
        Self { dialect, ..self }
    }

    /// Whether tokens in it go to the server as what they stand for.
    pub fn has_tokens(&self) -> bool {
        self.provenance.as_ref().is_some_and(|provenance| provenance.replaced > 0)
    }

    /// Facts of something that could not be understood.
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self {
            kind: StatementKind::Unknown,
            unknown: Some(Unknown(reason.into())),
            ..Self::single(Verb::Unknown, Target::Resource)
        }
    }
}

/// A parameter of a prepared statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindValue {
    /// The type's name where it is known, else its OID in decimal.
    pub r#type: SmolStr,
    /// The value in text form; `None` is NULL. Binary values of types we do not decode are `\x` and hexadecimal.
    pub value: Option<SmolStr>,
    /// Set when the value was cut: its full length in bytes.
    pub cut_from: Option<u64>,
}

/// A text as it came: a part of the bytes that it came in, which live as long as it does, or its own.
pub type Text = ByteString;

/// The values of an exchange. One or two, as nearly all have, take no memory of their own.
pub type Binds = SmallVec<[BindValue; 2]>;

/// The actions of an exchange. Nearly all have one, which takes no memory of its own.
pub type Actions = SmallVec<[Action; 1]>;

/// An exchange, or one statement of a batch, in protocol-neutral form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// What it does. Shared by all that mean the same.
    pub facts: Arc<StatementFacts>,
    /// The form it came in.
    pub phase: Phase,
    /// The exact text. Empty where the exchange has none.
    pub text: Text,
    /// Bind values, in order.
    pub binds: Binds,
}

impl Action {
    /// Where it puts labelled data.
    pub fn carried(&self) -> &[Carried] {
        match (self.phase, &self.facts.provenance) {
            (Phase::Query | Phase::Execute, Some(provenance)) => &provenance.carried,
            // What is prepared puts nothing anywhere.
            _ => &[],
        }
    }
}
