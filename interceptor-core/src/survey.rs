//! A look at a whole database, for people who label it: its columns, the labels that they bear, and of which kinds values
//! in them are, as far as detectors tell.
//!
//! Promise: values are looked at and dropped; what is told of them is how many.

use bytes::BytesMut;
use serde::{Deserialize, Serialize};

use crate::{
    Held,
    mask::{Detector, LabelSet, Place},
    protocol::{DecodeError, Done},
};

/// How deep a look goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Depth {
    /// At the catalogue.
    Catalogue,
    /// At some values of each table as well.
    Values,
}

/// What a relation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RelationKind {
    /// A table.
    Table,
    /// A table that is part of another one.
    Partition,
    /// A view.
    View,
    /// A materialized view.
    MaterializedView,
    /// A table of another server.
    Foreign,
}

/// A type of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Document {
    /// The document's text.
    Json,
    /// What it means.
    Jsonb,
}

/// A policy of row security that decides which rows are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowPolicy {
    /// Its name.
    pub name: String,
    /// The roles that it is for; `public` is all.
    pub roles: Vec<String>,
}

/// A column that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SurveyedColumn {
    /// Its numbers.
    pub place: Place,
    /// The schema.
    pub schema: String,
    /// The relation.
    pub relation: String,
    /// What that is.
    pub kind: RelationKind,
    /// Whether everybody may read some of the relation.
    pub public: bool,
    /// The policies of the relation, if its rows are secured.
    pub secured: Option<Vec<RowPolicy>>,
    /// Its name.
    pub name: String,
    /// Of which type of documents it is, if of one.
    pub document: Option<Document>,
    /// The labels that it bears.
    pub labels: LabelSet,
    /// How many values were looked at.
    pub sampled: u32,
    /// In how many of them each detector found something.
    pub found: Vec<(Detector, u32)>,
}

/// What is to be done next.
#[derive(Debug)]
#[must_use]
pub enum SurveyStep {
    /// More input is needed.
    Wait,
    /// Record this exchange of the gate's own, and send it.
    Send(Box<Held>),
    /// Exchanges have ended.
    Ended(Vec<Done>),
    /// That is all there is.
    Surveyed(Vec<SurveyedColumn>),
    /// It cannot be had: why, for the operator. The session is to be closed.
    Failed(String),
}

/// Looks at a database in a session of our own, which speaks a protocol and changes nothing.
pub trait Survey: Send {
    /// Takes what the upstream said; call with empty input first.
    fn step(&mut self, input: &mut BytesMut) -> Result<SurveyStep, DecodeError>;
}
