//! A request entry as text, in two halves: who asks, which is the same for all that a session asks and is written
//! once, and what is asked. Joined they are the JSON of a [`RequestRecord`], byte for byte; a test holds them to it.
//!
//! Nothing here decides anything, and nothing here allocates once a [`Requests`] has grown to what it is used for.

use interceptor_core::model::{
    Action, AgentIdentity, Author, BindValue, ClientAddress, ConnectionId, ExchangeDigest, Guarantee,
    OriginalDestination, Phase, Principal, ProcessFacts, ResourceName, RunId, VerdictRecord,
};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

#[cfg(doc)]
use interceptor_core::model::RequestRecord;

/// Who asks: the first fields of a [`RequestRecord`].
#[derive(Debug, Serialize)]
pub struct Who<'a> {
    /// The run.
    pub run: RunId,
    /// The agent.
    pub agent: &'a AgentIdentity,
    /// How strongly the run is captured.
    pub guarantee: Guarantee,
    /// The connection, where there is one.
    pub connection: Option<ConnectionId>,
    /// The captured end.
    pub client: Option<ClientAddress>,
    /// Where it was going.
    pub destination: Option<OriginalDestination>,
    /// The process.
    pub process: Option<&'a ProcessFacts>,
    /// The resource, where one was named.
    pub resource: Option<&'a ResourceName>,
    /// The protocol's name.
    pub protocol: &'a str,
    /// Who the session is upstream.
    pub principal: &'a Principal,
}

/// What one statement asks, and what was decided: the other fields.
#[derive(Debug, Serialize)]
pub struct What<'a> {
    /// When, in microseconds of the Unix epoch.
    pub at: i64,
    /// Who wrote the statement.
    pub author: Author,
    /// The statement.
    pub action: Statement<'a>,
    /// The frame that it stood in.
    #[serde(serialize_with = "hexadecimal")]
    pub frame_sha256: ExchangeDigest,
    /// Its place in its frame, from 0, and how many there are.
    pub place: (u32, u32),
    /// A [`VerdictRecord`].
    pub verdict: &'a RawValue,
}

/// An [`Action`] whose facts are text already.
#[derive(Debug, Serialize)]
pub struct Statement<'a> {
    /// The form it came in.
    pub phase: Phase,
    /// The text, as it may be written down.
    pub text: &'a str,
    /// Bind values that may be written down.
    pub binds: &'a [BindValue],
    /// Its facts.
    pub facts: &'a RawValue,
}

fn hexadecimal<S: Serializer>(digest: &ExchangeDigest, serializer: S) -> Result<S::Ok, S::Error> {
    let mut text = [0; 64];
    hex::encode_to_slice(digest.0, &mut text).map_err(serde::ser::Error::custom)?;
    serializer.serialize_str(std::str::from_utf8(&text).map_err(serde::ser::Error::custom)?)
}

/// [`What`], read back by the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WhatRead {
    at: i64,
    author: Author,
    action: Action,
    frame_sha256: String,
    place: (u32, u32),
    pub(super) verdict: VerdictRecord,
}

/// The half that a session's requests share.
#[derive(Debug)]
pub struct RequestHead {
    pub(super) run: RunId,
    pub(super) json: Box<[u8]>,
    check: u64,
}

impl RequestHead {
    /// The half that says `who`.
    pub fn new(who: &Who<'_>) -> Result<Self, serde_json::Error> {
        let json = serde_json::to_vec(who)?.into_boxed_slice();
        let check = xxh3_64(&json);
        Ok(Self { run: who.run, json, check })
    }
}

/// The request entries of one exchange, under one head, before they have numbers.
#[derive(Debug, Default)]
pub struct Requests {
    bytes: Vec<u8>,
    /// Where each ends in `bytes`, and its check.
    ends: Vec<(usize, u64)>,
}

impl Requests {
    /// Adds the entry of one more statement.
    pub fn push(&mut self, head: &RequestHead, what: &What<'_>) -> Result<(), serde_json::Error> {
        let start = self.bytes.len();
        serde_json::to_writer(&mut self.bytes, what)?;
        let own = self.bytes.get(start..).unwrap_or_default();
        self.ends.push((self.bytes.len(), xxh3_64_with_seed(own, head.check)));
        Ok(())
    }

    /// Forgets them and keeps the room.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// How much room it keeps.
    pub fn room(&self) -> usize {
        self.bytes.capacity()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The second halves, each with the check of the whole.
    pub(super) fn each(&self) -> impl Iterator<Item = (&[u8], u64)> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|(end, _)| *end));
        starts
            .zip(&self.ends)
            .map(|(start, (end, check))| (self.bytes.get(start..*end).unwrap_or_default(), *check))
    }
}

/// The check of an entry whose text is `head` and `body`. It finds accidents, such as pages lost with the power, not
/// malice: the chain does that.
pub(super) fn check(head: &[u8], body: &[u8]) -> u64 {
    xxh3_64_with_seed(body, xxh3_64(head))
}

/// The text of the whole entry.
pub(super) fn joined(head: &[u8], body: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(head.len() + body.len());
    join(head, body, &mut text)?;
    Some(text)
}

/// Writes the text of the whole entry behind `text`.
pub(super) fn join(head: &[u8], body: &[u8], text: &mut Vec<u8>) -> Option<()> {
    text.extend_from_slice(head.strip_suffix(b"}")?);
    text.push(b',');
    text.extend_from_slice(body.strip_prefix(b"{")?);
    Some(())
}
