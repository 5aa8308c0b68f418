//! A request entry as text, in three parts: who asks, which is the same for all that a session asks; what was decided,
//! which is the same each time that a statement is asked; and what is this one's own. The first two are written once.
//! Joined the three are the JSON of a [`RequestRecord`], byte for byte; a test holds them to it.
//!
//! Nothing here decides anything, and nothing here allocates once a [`Requests`] has grown to what it is used for.

use interceptor_core::model::{
    AgentIdentity, Author, BindValue, Binds, ClientAddress, ConnectionId, ExchangeDigest, Guarantee,
    OriginalDestination, Phase, Principal, ProcessFacts, ResourceName, RunId, StatementFacts, VerdictRecord,
};
use serde::{Deserialize, Serialize, Serializer};
use xxhash_rust::xxh3::xxh3_64_with_seed;

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

/// What one statement asks: the last fields.
#[derive(Debug, Serialize)]
pub struct What<'a> {
    /// The statement.
    pub action: Statement<'a>,
    /// When, in microseconds of the Unix epoch.
    pub at: i64,
    /// Who wrote the statement.
    pub author: Author,
    /// The frame that it stood in.
    #[serde(serialize_with = "hexadecimal")]
    pub frame_sha256: ExchangeDigest,
    /// Its place in its frame, from 0, and how many there are.
    pub place: (u32, u32),
}

/// An action without its facts.
#[derive(Debug, Serialize)]
pub struct Statement<'a> {
    /// The form it came in.
    pub phase: Phase,
    /// The text, as it may be written down.
    pub text: &'a str,
    /// Bind values that may be written down.
    pub binds: &'a [BindValue],
}

fn hexadecimal<S: Serializer>(digest: &ExchangeDigest, serializer: S) -> Result<S::Ok, S::Error> {
    let mut text = [0; 64];
    hex::encode_to_slice(digest.0, &mut text).map_err(serde::ser::Error::custom)?;
    serializer.serialize_str(std::str::from_utf8(&text).map_err(serde::ser::Error::custom)?)
}

/// The fields between: what was decided, and upon which facts.
#[derive(Debug, Serialize, Deserialize)]
struct Ruled<V, F> {
    verdict: V,
    action: Does<F>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Does<F> {
    facts: F,
}

/// The middle part, read back by the keeper.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct RulingRead(Ruled<VerdictRecord, StatementFacts>);

impl RulingRead {
    /// Whether the statement may have been sent.
    pub(super) fn allowed(&self) -> bool {
        self.0.verdict.allowed
    }
}

/// [`What`], read back by the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WhatRead {
    action: StatementRead,
    at: i64,
    author: Author,
    frame_sha256: String,
    place: (u32, u32),
}

#[derive(Debug, Serialize, Deserialize)]
struct StatementRead {
    phase: Phase,
    text: String,
    binds: Binds,
}

/// The part that a session's requests share.
#[derive(Debug)]
pub struct RequestHead {
    pub(super) run: RunId,
    pub(super) json: Box<[u8]>,
    check: u64,
}

impl RequestHead {
    /// The part that says `who`.
    pub fn new(who: &Who<'_>) -> Result<Self, serde_json::Error> {
        let json = serde_json::to_vec(who)?.into_boxed_slice();
        let check = check([&*json]);
        Ok(Self { run: who.run, json, check })
    }
}

/// The part that is the same each time that a statement is asked.
#[derive(Debug)]
pub struct RequestRuling {
    json: Box<[u8]>,
}

impl RequestRuling {
    /// The part that says `verdict`, which was reached upon `facts`.
    pub fn new(verdict: &VerdictRecord, facts: &StatementFacts) -> Result<Self, serde_json::Error> {
        let json = serde_json::to_vec(&Ruled { verdict, action: Does { facts } })?.into_boxed_slice();
        Ok(Self { json })
    }

    /// Its text.
    #[cfg(test)]
    pub(super) fn json(&self) -> &[u8] {
        &self.json
    }

    /// One that nobody ruled.
    #[cfg(test)]
    pub(super) fn from_json(json: String) -> Self {
        Self { json: json.into_bytes().into() }
    }
}

/// The request entries of one exchange, under one head, before they have numbers.
#[derive(Debug, Default)]
pub struct Requests {
    bytes: Vec<u8>,
    ends: Vec<Ends>,
}

/// Where an entry's two parts end in [`Requests::bytes`], and the check of the whole.
#[derive(Debug, Clone, Copy)]
struct Ends {
    ruling: usize,
    own: usize,
    check: u64,
}

/// A request entry's parts behind its head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) ruling: &'a [u8],
    pub(super) own: &'a [u8],
    /// Of the head too.
    pub(super) check: u64,
}

impl Requests {
    /// Adds the entry of one more statement.
    pub fn push(
        &mut self,
        head: &RequestHead,
        ruling: &RequestRuling,
        what: &What<'_>,
    ) -> Result<(), serde_json::Error> {
        self.bytes.extend_from_slice(&ruling.json);
        let start = self.bytes.len();
        serde_json::to_writer(&mut self.bytes, what)?;
        let own = self.bytes.get(start..).unwrap_or_default();
        let check =
            [&*ruling.json, own].into_iter().fold(head.check, |sum, part| xxh3_64_with_seed(part, sum));
        self.ends.push(Ends { ruling: start, own: self.bytes.len(), check });
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

    /// What stands behind the head, of each.
    pub(super) fn each(&self) -> impl Iterator<Item = Parts<'_>> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|ends| ends.own));
        starts.zip(&self.ends).map(|(start, ends)| Parts {
            ruling: self.bytes.get(start..ends.ruling).unwrap_or_default(),
            own: self.bytes.get(ends.ruling..ends.own).unwrap_or_default(),
            check: ends.check,
        })
    }
}

/// The check of an entry whose text is in `parts`. It finds accidents, such as pages lost with the power, not malice:
/// the chain does that.
pub(super) fn check<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    parts.into_iter().fold(0, |sum, part| xxh3_64_with_seed(part, sum))
}

/// Writes the text of the whole entry behind `text`; `None` where the parts are not of one entry.
pub(super) fn join([head, ruling, own]: [&[u8]; 3], text: &mut Vec<u8>) -> Option<()> {
    text.extend_from_slice(head.strip_suffix(b"}")?);
    text.push(b',');
    text.extend_from_slice(ruling.strip_prefix(b"{")?.strip_suffix(b"}}")?);
    text.push(b',');
    text.extend_from_slice(own.strip_prefix(br#"{"action":{"#)?);
    Some(())
}
