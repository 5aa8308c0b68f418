//! Estimates: how many rows a statement would return or change, as the resource itself guesses beforehand.
//!
//! Promises: an estimate is a hint for people and never decides anything; nothing of the statement is carried out for it,
//! so that there is none where the resource would have to run code of somebody's own to guess. Nothing here talks to
//! a server.

use serde::{Deserialize, Serialize};

use crate::{
    permit::Held,
    protocol::{DecodeError, Done},
};

/// What a resource guessed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Estimate {
    /// About so many rows are returned or changed.
    Rows(u64),
    /// Nothing was guessed: why.
    None(String),
}

/// What is to be done next to get an estimate.
#[derive(Debug)]
#[must_use]
pub enum EstimateStep {
    /// More input is needed.
    Wait,
    /// Record this exchange of the gate's own, and send it.
    Send(Box<Held>),
    /// Exchanges have ended.
    Ended(Vec<Done>),
    /// This is it.
    Over(Estimate),
}

/// Gets one estimate in a session of its own, which has just been opened.
pub trait Estimating: Send {
    /// Takes what the server said; call with empty input first.
    fn step(&mut self, input: &mut bytes::BytesMut) -> Result<EstimateStep, DecodeError>;
}
