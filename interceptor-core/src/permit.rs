//! Proof that an exchange may go upstream.
//!
//! An exchange's bytes are private to its [`Held`]; they come out only against a [`Permit`] for the same bytes; a
//! permit is minted only from an allowing [`Judgement`] and a [`Committed`] record, and is consumed by use.
//! Nothing here knows how records are stored or what a protocol looks like.

use bytes::Bytes;
use futures_core::future::BoxFuture;
use sha2::{Digest, Sha256};

use crate::model::{Action, Author, ExchangeDigest, RecordId, Session};

/// An exchange whose bytes wait for a permit.
#[derive(Debug)]
pub struct Held {
    number: u64,
    actions: Vec<Action>,
    bytes: Bytes,
    digest: ExchangeDigest,
}

impl Held {
    /// Holds `bytes`, which do `actions` when they are sent. `number` is the decoder's own count, by which its
    /// [`Done`](crate::protocol::Done) names the exchange again.
    pub fn new(number: u64, actions: Vec<Action>, bytes: Bytes) -> Self {
        let digest = ExchangeDigest(Sha256::digest(&bytes).into());
        Self { number, actions, bytes, digest }
    }

    /// The decoder's number for it.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What it does: one entry per statement, at least one.
    pub fn actions(&self) -> &[Action] {
        &self.actions
    }

    /// What a permit for it must name.
    pub fn digest(&self) -> ExchangeDigest {
        self.digest
    }

    /// The bytes, against the permit for just these.
    pub fn release(self, permit: Permit) -> Result<Bytes, WrongPermit> {
        self.open(permit).map(|(bytes, _)| bytes)
    }

    /// The bytes, against the permit for just these, and what they do: for whoever judges it again while it is
    /// under way.
    pub fn open(self, permit: Permit) -> Result<(Bytes, Vec<Action>), WrongPermit> {
        if permit.digest == self.digest { Ok((self.bytes, self.actions)) } else { Err(WrongPermit) }
    }
}

/// A permit was shown for an exchange that it was not minted for. A bug of ours; nothing is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this permit belongs to another exchange")]
pub struct WrongPermit;

/// Proof that an exchange's request entries are committed: in the kernel's hands, so that they outlive the
/// process. The store is the only implementor.
pub trait Committed {
    /// The exchange that the entries describe.
    fn digest(&self) -> ExchangeDigest;
    /// The records, in the order of [`Held::actions`].
    fn records(&self) -> &[RecordId];
}

/// Leave to send one exchange, once.
#[derive(Debug)]
#[must_use = "a permit that is not consumed means an exchange that was judged and never sent"]
pub struct Permit {
    digest: ExchangeDigest,
    records: Vec<RecordId>,
}

impl Permit {
    /// Mints the permit for a judged and recorded exchange; a judgement that does not allow mints none.
    pub fn mint(judgement: &Judgement, committed: &impl Committed) -> Option<Self> {
        matches!(judgement, Judgement::Allowed { .. })
            .then(|| Self { digest: committed.digest(), records: committed.records().to_vec() })
    }

    /// The records that its outcome belongs to.
    pub fn records(&self) -> &[RecordId] {
        &self.records
    }
}

/// A policy rule that took part in a decision.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Its `@id`.
    pub id: String,
    /// The file it stands in.
    pub file: String,
    /// The line it begins at, from 1.
    pub line: usize,
    /// Its `@say`.
    pub say: Option<String>,
}

/// What policy says of an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Judgement {
    /// Every question was answered yes.
    Allowed {
        /// The permitting rules.
        rules: Vec<Rule>,
        /// Why, for the operator. Empty for the ordinary case.
        reason: String,
    },
    /// Some question was answered no.
    Denied {
        /// The forbidding rules; empty when nothing permitted it.
        rules: Vec<Rule>,
        /// Why, for the operator: which verb and target, and what would allow it.
        reason: String,
    },
    /// It would be allowed once these groups approved.
    Held {
        /// The holding rules.
        rules: Vec<Rule>,
        /// Why, for the operator.
        reason: String,
        /// Groups that must approve, each once.
        approvers: Vec<String>,
    },
}

/// A refusal, in words for the agent. The operator's words are in the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The record of the refused statement.
    pub record: Option<RecordId>,
    /// The rule that refused, or a word for the reason where no rule did (`default-deny`, `unknown`, `internal`).
    pub rule: String,
    /// One sentence: what was refused and why.
    pub message: String,
    /// One sentence: what to do next.
    pub hint: String,
}

/// What the gate says of an exchange.
#[derive(Debug)]
#[must_use]
pub enum Verdict {
    /// It may be sent.
    Allow(Permit),
    /// It may not.
    Deny(Denial),
}

/// Judges exchanges and writes their request entries.
pub trait Gate: Send + Sync {
    /// Judges `held` by the policy in force (an exchange of the gate's own is recorded, and always allowed) and
    /// records it. A refused exchange's outcome is recorded here too; a permitted one's is the caller's to record.
    fn judge<'a>(&'a self, session: &'a Session, held: &'a Held, author: Author) -> BoxFuture<'a, Verdict>;
}
