//! Proof that an exchange may go upstream.
//!
//! An exchange's bytes are private to its [`Held`]; they come out only against a [`Permit`] for the same bytes; a
//! permit is minted only from an allowing [`Judgement`] and a [`Committed`] record, and is consumed by use. What goes is
//! what was judged, but for tokens in it, which go as what they stand for.
//! Nothing here knows how records are stored or what a protocol looks like.

use std::{collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;
use futures_core::future::BoxFuture;
use serde::Serialize;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{
    enclosure::{Enclosure, Terms},
    mask::Mask,
    model::{Action, Actions, Author, ExchangeDigest, RecordId},
};

/// An exchange whose bytes wait for a permit.
#[derive(Debug)]
pub struct Held {
    number: u64,
    actions: Actions,
    bytes: Bytes,
    digest: ExchangeDigest,
    circumstances: Circumstances,
    /// What is sent in the place of `bytes`.
    sent: Option<Clear>,
}

/// An exchange in which tokens are replaced by what they stand for. Its `Debug` prints none of it.
pub struct Clear(Zeroizing<Vec<u8>>);

impl Clear {
    /// What is sent.
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }

    /// Its bytes, which are wiped when they are not needed any more.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self.0)
    }
}

impl fmt::Debug for Clear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clear(***)")
    }
}

/// What the meaning of an exchange hangs on besides its text, and whether its client can be kept waiting.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Circumstances {
    /// As what its names were looked up, where they had to be.
    pub naming: Option<Arc<Naming>>,
    /// Settings that the session has made itself, each with a digest of what made it; of a text that is shown only nearly as it
    /// was sent, its bytes' digest too.
    pub settings: Option<Arc<BTreeMap<String, String>>>,
    /// Whether it can wait for a person.
    pub waits: Waits,
    /// Whether it can go within terms, or does.
    pub enclosure: Enclosure,
}

/// What names mean hangs on this.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Naming {
    /// The role.
    pub role: String,
    /// The schemas that are looked in.
    pub search_path: Vec<String>,
}

/// Whether an exchange can wait for a person where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Waits {
    /// There is no session yet, or the protocol has no words for it.
    #[default]
    Never,
    /// A transaction is under way, which would keep its locks.
    InTransaction,
    /// What was sent before it has no answer yet, so that nobody knows whether a transaction is under way. One comes by
    /// itself: it is asked again then.
    Behind,
    /// The client asked to be told at once.
    AskedNotTo,
    /// The session only asks ahead: whatever is said of it, nothing is carried out.
    OnlyAsks,
    /// It can.
    Here,
}

impl Held {
    /// Holds `bytes`, which do `actions` when they are sent. `number` is the decoder's own count, by which its
    /// [`Done`](crate::protocol::Done) names the exchange again.
    pub fn new(number: u64, actions: impl Into<Actions>, bytes: Bytes) -> Self {
        let actions = actions.into();
        let digest = ExchangeDigest(Sha256::digest(&bytes).into());
        Self { number, actions, bytes, digest, circumstances: Circumstances::default(), sent: None }
    }

    /// The same, under these circumstances.
    #[must_use]
    pub fn under(self, circumstances: Circumstances) -> Self {
        Self { circumstances, ..self }
    }

    /// The same, where this is sent: what is judged and recorded, but for tokens in it that go as what they stand for.
    #[must_use]
    pub fn replaced_by(self, sent: Option<Clear>) -> Self {
        Self { sent, ..self }
    }

    /// What its meaning hangs on besides its text.
    pub fn circumstances(&self) -> &Circumstances {
        &self.circumstances
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
    pub fn open(self, permit: Permit) -> Result<(Bytes, Actions), WrongPermit> {
        let sent = self.sent.map_or(self.bytes, Clear::into_bytes);
        if permit.digest == self.digest { Ok((sent, self.actions)) } else { Err(WrongPermit) }
    }
}

/// A permit was shown for an exchange that it was not minted for. A bug of ours; nothing is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this permit belongs to another exchange")]
pub struct WrongPermit;

/// Records whose numbers follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Records {
    first: RecordId,
    count: usize,
}

impl Records {
    /// `count` records from `first` on.
    pub fn new(first: RecordId, count: usize) -> Self {
        Self { first, count }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The one at `place`, from 0.
    pub fn get(&self, place: usize) -> Option<RecordId> {
        let on = u64::try_from(place).ok().filter(|_| place < self.count)?;
        self.first.0.checked_add(on).map(RecordId)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = RecordId> + use<> {
        let all = *self;
        (0..all.count).filter_map(move |place| all.get(place))
    }
}

/// Proof that an exchange's request entries are committed: in the kernel's hands, so that they outlive the
/// process. The store is the only implementor.
pub trait Committed {
    /// The exchange that the entries describe.
    fn digest(&self) -> ExchangeDigest;
    /// The records, in the order of [`Held::actions`].
    fn records(&self) -> Records;
}

/// Leave to send one exchange, once.
#[derive(Debug)]
#[must_use = "a permit that is not consumed means an exchange that was judged and never sent"]
pub struct Permit {
    digest: ExchangeDigest,
    records: Records,
}

impl Permit {
    /// Mints the permit for a judged and recorded exchange; a judgement that does not allow mints none.
    pub fn mint(judgement: &Judgement, committed: &impl Committed) -> Option<Self> {
        matches!(judgement, Judgement::Allowed { .. })
            .then(|| Self { digest: committed.digest(), records: committed.records() })
    }

    /// The records that its outcome belongs to.
    pub fn records(&self) -> Records {
        self.records
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

impl Judgement {
    /// Whether it is a yes.
    pub fn allows(&self) -> bool {
        matches!(self, Self::Allowed { .. })
    }
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

/// Something to tell a client that waits, in words for the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What it waits for.
    pub message: String,
    /// What to know or do meanwhile.
    pub hint: String,
}

/// Why a client is not waited for any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GaveUp {
    /// It is gone.
    Left,
    /// It asked for its exchange to be cancelled.
    Cancelled,
}

/// The client of an exchange that waits for a person.
pub trait Client: Send + Sync {
    /// Tells it something.
    fn tell(&self, notice: Notice);
    /// Resolves when it does not wait any more.
    fn gave_up(&self) -> BoxFuture<'_, GaveUp>;
}

/// What the gate says of an exchange.
#[derive(Debug)]
#[must_use]
pub enum Verdict {
    /// It waited, and people have approved it; or it is to wait, and whether it can hangs on answers that are under way
    /// ([`Waits::Behind`]), and nothing of it was recorded. Meanwhile what is known of it may have changed: it is to be
    /// looked at anew and asked once more.
    Again,
    /// It may be sent within these terms, and nothing of it was recorded yet: it is to be enclosed in them and asked once
    /// more, or asked once more with the reason why it cannot be.
    Enclose(Terms),
    /// It may be sent, and this is hidden in the answer.
    Allow(Permit, Mask),
    /// It may not.
    Deny(Denial),
}

/// Judges one session's exchanges and writes their request entries.
pub trait Gate: Send + Sync {
    /// The same as [`Gate::judge`], where it can be had without waiting; `None` means that nothing was recorded and
    /// nothing decided.
    fn judge_now(&self, held: &Held, author: Author) -> Option<Verdict>;

    /// Judges `held` by the policy in force (an exchange of the gate's own is recorded, and always allowed) and
    /// records it. A refused exchange's outcome is recorded here too; a permitted one's is the caller's to record.
    /// `client` is whoever waits for it.
    fn judge<'a>(&'a self, held: &'a Held, author: Author, client: &'a dyn Client) -> BoxFuture<'a, Verdict>;
}
