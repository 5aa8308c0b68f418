//! The seam between the relay and a protocol: bytes in, steps out.
//!
//! A decoder is pure, total and bounded: no clock, no socket, no panic, a limit for each field. It never hands out
//! a client's bytes except as [`Step::Pass`] (nothing to judge; its protocol's README lists what) or inside a
//! [`Held`]. It must never know policy, records or sockets.

use std::{fmt, sync::Arc};

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use crate::{
    catalogue::{Catalogue, Ended},
    enclosure::Terms,
    estimate::Estimating,
    inventory::DataIn,
    mask::{Hiding, Labelled, Mask, Tokens},
    model::{Action, OutcomeStatus, Principal, RecordId, RecordedRows, Spent},
    permit::{Circumstances, Denial, Held, Notice},
    sql::Dialect,
    survey::{Depth, Survey},
    undo::{Pack, Restore},
};

/// One of the two peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The captured process.
    Client,
    /// The resource.
    Upstream,
}

/// A peer broke its protocol, or used a part of it that we do not speak. The connection cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {what}", match .guilty { Side::Client => "client", Side::Upstream => "upstream" })]
pub struct DecodeError {
    /// Who did it.
    pub guilty: Side,
    /// What was wrong, for the operator.
    pub what: String,
}

impl DecodeError {
    /// The client's fault.
    pub fn client(what: impl Into<String>) -> Self {
        Self { guilty: Side::Client, what: what.into() }
    }

    /// The upstream's fault.
    pub fn upstream(what: impl Into<String>) -> Self {
        Self { guilty: Side::Upstream, what: what.into() }
    }
}

/// What the relay must do next. `Wait` means that the decoder needs more bytes from the side it was asked about,
/// `Hold` that it needs the other side's; after any other step, ask again.
#[derive(Debug)]
#[must_use]
pub enum Step {
    /// More input is needed.
    Wait,
    /// What this side said has to wait for something that the other side will say; more input does not help.
    Hold,
    /// Forward to the other side; there is nothing to judge in it.
    Pass(Bytes),
    /// Send back to the side that was asked about.
    Reply(Bytes),
    /// Send these, then begin TLS as the server towards the client. Empty when TLS begins at once.
    StartTls(Bytes),
    /// The client wants a session: judge it, then dial, log in, and call [`Decoder::opened`].
    Open(Opening),
    /// The client wants another session's exchange cancelled; it never answers.
    Cancel(CancelKey),
    /// Judge this exchange of the client's, then call [`Decoder::sent`] or [`Decoder::refuse`]. No more bytes of
    /// the client are to be decoded until then; the upstream's may be.
    Ask(Held),
    /// Record this exchange of the gate's own, send it upstream, and go on with **the upstream's** side until the
    /// decoder gives a step for the client's again. The client is held meanwhile.
    Enquire(Held),
    /// Another session is asking what is needed here: ask again when it has its answer, or when that takes long.
    Await(Ended),
    /// Forward the upstream's bytes to the client; exchanges in `done` have ended.
    Answer {
        /// What the client gets; may be empty.
        bytes: Bytes,
        /// Which exchanges ended, oldest first.
        done: Endings,
    },
    /// As much as [`Decoder::allow`] gave room for has passed of this exchange's answer, and more has come: judge it
    /// again, then call [`Decoder::allow`] or [`Decoder::stop`].
    Pause {
        /// [`Held::number`].
        exchange: u64,
        /// Which of [`Held::actions`].
        place: usize,
    },
    /// As many rows as its terms allow have passed of this exchange's answer, and more has come: call
    /// [`Decoder::stop`].
    Exceeds {
        /// [`Held::number`].
        exchange: u64,
        /// Which of [`Held::actions`].
        place: usize,
        /// How many rows that is.
        rows: u64,
    },
    /// The side asked about said goodbye: send the bytes on, then close.
    Close(Bytes),
}

/// How one statement of an exchange ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// [`Held::number`].
    pub exchange: u64,
    /// Which of [`Held::actions`].
    pub place: usize,
    /// How it ended.
    pub status: OutcomeStatus,
    /// Rows returned or changed, where the upstream said so.
    pub rows: Option<u64>,
    /// Bytes sent back for it, or streamed in by it.
    pub bytes: u64,
    /// The protocol's error code.
    pub code: Option<String>,
    /// The upstream's message.
    pub message: Option<String>,
    /// The rows that it returned, where they are recorded.
    pub recorded: Option<RecordedRows>,
}

/// How some exchanges ended, oldest first. Nearly always it is one, which takes no memory of its own.
pub type Endings = SmallVec<[Done; 1]>;

/// A client's wish to open a session.
#[derive(Debug)]
pub struct Opening {
    /// What is judged; its bytes are never sent, since the log-in is ours.
    pub held: Held,
    /// Whom and what the client named.
    pub claimed: Principal,
    /// Parameters to send upstream, in order, without user and database.
    pub parameters: Vec<(String, String)>,
    /// The protocol version that the client asked for, as the protocol encodes it.
    pub version: u32,
    /// What becomes of the session once it is open.
    pub then: Inspection,
}

/// A session of our own: what it asks for when it opens, and what it does then.
pub struct Own<T: ?Sized> {
    /// What it asks for.
    pub opening: Opening,
    /// What it does, behind the log-in.
    pub work: Box<T>,
}

/// Whether what a session carries is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inspection {
    /// Each exchange is judged.
    Full,
    /// It is relayed as it comes: what was judged is that.
    None,
}

/// What names a session to be cancelled, as we gave it to the client.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CancelKey {
    /// The process number that the client was given.
    pub process: u32,
    /// The secret that the client was given.
    pub secret: Bytes,
}

impl fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelKey").field("process", &self.process).field("secret", &"***").finish()
    }
}

/// What an upstream said when the log-in was done.
#[derive(Debug, Clone)]
pub struct Greeting {
    /// Bytes for the client between its log-in and its first command, such as parameters, without a cancel key.
    pub bytes: Bytes,
    /// Settings that the upstream reported.
    pub parameters: Vec<(String, String)>,
    /// The upstream's own cancel key.
    pub cancel: Option<CancelKey>,
}

/// What the relay does with a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// For the client now.
    pub client: Bytes,
    /// For the upstream in place of what was refused, so that the server itself fails; empty where nothing is.
    pub upstream: Bytes,
}

/// What becomes of an exchange whose answer is cut short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// For the client now. What the upstream still answers reaches it no more.
    pub client: Bytes,
    /// How the exchange ended, where it is told of one.
    pub done: Option<Done>,
}

/// Decodes one connection's both directions.
pub trait Decoder: Send {
    /// Takes whole frames from `input` and says what to do with them.
    fn step(&mut self, side: Side, input: &mut BytesMut) -> Result<Step, DecodeError>;
    /// How much of the client's `input` its next step reads at the most, in bytes: all of it where a decoder cannot tell. What it took
    /// before and goes on with does not count.
    fn next_reads(&self, input: &[u8]) -> usize {
        input.len()
    }
    /// The session is open upstream; `given` is the cancel key for the client. What to tell the client.
    fn opened(&mut self, greeting: &Greeting, given: &CancelKey) -> Bytes;
    /// From here on the rows of answers are recorded, with what is hidden so.
    fn record_rows(&mut self, hiding: Arc<Hiding>);
    /// The exchange of the last `Ask` was permitted, and this is its record, for words that name it.
    fn recorded(&mut self, number: u64, record: RecordId);
    /// The exchange of the last `Ask` or `Enquire` has been sent; `mask` is what becomes of its answer.
    fn sent(&mut self, number: u64, mask: Mask);
    /// The exchange of the last `Open`, `Ask` or `Enquire` was refused; after an `Enquire` the client's side goes on
    /// without the answer.
    fn refuse(&mut self, number: u64, denial: &Denial) -> Refusal;
    /// What is known for the exchange of the last `Ask` may not hold any more: nothing was sent, and a later step of
    /// the client's side asks the same exchange anew, once it is behind nothing ([`Waits::Behind`](crate::permit::Waits)).
    fn again(&mut self, number: u64);
    /// The exchange of the last `Ask` may go within these terms: nothing was sent, and the next steps of the client's side
    /// enclose it and ask the same exchange anew, with what became of that.
    fn enclose(&mut self, number: u64, terms: Terms);
    /// Words for the client that change nothing in its session; none where the stream is in the middle of something.
    fn notice(&mut self, notice: &Notice) -> Option<Bytes>;
    /// What has passed to the client since this was last asked.
    fn passed(&mut self) -> Spent;
    /// How much more may pass before [`Step::Pause`].
    fn allow(&mut self, room: Spent);
    /// The exchange of the last `Pause` or `Exceeds` may not go on: the client is told so in the middle of the answer, and the
    /// session is left as the server's own error would leave it. The caller asks the upstream to cancel it.
    fn stop(&mut self, denial: &Denial) -> Stopped;
    /// The session ends for a reason of ours: a last word to the client, in the protocol's own form.
    fn farewell(&mut self, denial: &Denial) -> Bytes;
    /// Whether no exchange is under way and the session could be closed without loss.
    fn is_idle(&self) -> bool;
}

/// A question that a log-in puts to whoever holds the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// The password itself is wanted.
    Cleartext,
    /// PostgreSQL's md5 response for this user and salt.
    Md5 {
        /// The user name, part of the hash.
        user: String,
        /// The server's salt.
        salt: [u8; 4],
    },
    /// SASL: choose one of these mechanisms and begin (RFC 5802).
    SaslBegin {
        /// What the server offers.
        mechanisms: Vec<String>,
    },
    /// SASL: answer the server's first message.
    SaslContinue {
        /// The server-first-message.
        message: Bytes,
    },
    /// SASL: verify the server's final message.
    SaslFinish {
        /// The server-final-message.
        message: Bytes,
    },
    /// MySQL's `mysql_native_password` response for this scramble.
    MysqlNative {
        /// The server's scramble.
        scramble: [u8; 20],
    },
    /// MySQL's `caching_sha2_password` response for this scramble.
    CachingSha2 {
        /// The server's scramble.
        scramble: [u8; 20],
    },
    /// The password itself, which `caching_sha2_password` wants behind its response where it does not know the hash yet.
    CachingSha2Full,
    /// The upstream accepted the client without any proof of a password.
    Nothing,
}

/// An answer to a [`Challenge`]. Its `Debug` prints no bytes.
#[derive(Clone, PartialEq, Eq)]
pub enum Proof {
    /// What to send: a password, an md5 response, or a SASL response.
    Response(zeroize::Zeroizing<Vec<u8>>),
    /// The mechanism chosen and the client-first-message.
    Begin {
        /// The chosen mechanism.
        mechanism: String,
        /// The client-first-message.
        message: Vec<u8>,
    },
    /// Accepted; nothing to send.
    Accepted,
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Response(_) => "Response(***)",
            Self::Begin { .. } => "Begin(***)",
            Self::Accepted => "Accepted",
        })
    }
}

/// What the dialler must do next in a log-in.
#[derive(Debug)]
#[must_use]
pub enum LoginStep {
    /// More input is needed.
    Wait,
    /// Send these.
    Send(Bytes),
    /// Begin TLS as the client.
    StartTls,
    /// Get a proof and hand it to [`Login::prove`].
    Prove(Challenge),
    /// Logged in. What remains in the input belongs to the session.
    Ready(Greeting),
    /// The upstream refused.
    Refused {
        /// The protocol's error code.
        code: String,
        /// The upstream's message.
        message: String,
        /// Its error as it came, where it is about what the client asked for, not about who we are.
        answer: Option<Bytes>,
    },
}

/// Logs in upstream as somebody else than the client claimed to be.
pub trait Login: Send {
    /// Takes what the upstream said; call with empty input first.
    fn step(&mut self, input: &mut BytesMut) -> Result<LoginStep, DecodeError>;
    /// The answer to the last `Prove`.
    fn prove(&mut self, proof: Proof) -> Result<LoginStep, DecodeError>;
}

/// What a client of our own that asks ahead must do next.
#[derive(Debug)]
#[must_use]
pub enum AskStep {
    /// More input is needed.
    Wait,
    /// Send these.
    Send(Bytes),
    /// What the session says of it, for people.
    Told(String),
}

/// Asks for approval of one statement in a session of its own that does nothing else.
pub trait Asker: Send {
    /// Takes what the session said; call with empty input first.
    fn step(&mut self, input: &mut BytesMut) -> Result<AskStep, DecodeError>;
}

/// How the connection to the upstream is secured before the log-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpstreamTls {
    /// The protocol's own way of asking for TLS, without which nothing is sent.
    Required,
    /// None: a named exception in the inventory.
    Plaintext,
}

/// One protocol of the registry.
pub trait Protocol: Send + Sync {
    /// Its name in `resources.toml`.
    fn name(&self) -> &'static str;
    /// The port it is usually found at.
    fn default_port(&self) -> u16;
    /// What the data of its resources is kept in.
    fn data(&self) -> DataIn;
    /// What its texts are written in; none where it is not spoken to in SQL.
    fn dialect(&self) -> Option<Dialect>;
    /// The ALPN names that its TLS uses, both ways.
    fn alpn(&self) -> &'static [&'static [u8]];
    /// A decoder for a new connection to a resource that has this catalogue, and whose data is labelled so, of a run with
    /// these tokens.
    fn open(&self, catalogue: Arc<Catalogue>, labelled: Labelled, tokens: Tokens) -> Box<dyn Decoder>;
    /// A log-in as `principal`, for what the client asked in `opening`.
    fn login(&self, principal: &Principal, opening: &Opening, tls: UpstreamTls) -> Box<dyn Login>;
    /// A client that asks for approval of `text` in `database`; none where the protocol has nothing to wait with.
    fn ask(&self, database: &str, text: &str) -> Option<Box<dyn Asker>>;
    /// A session of our own that brings the rows of `pack` back, and what it asks for when it opens, as `principal`; none
    /// for a protocol that has no packs.
    fn restore(&self, pack: &Pack, principal: &Principal) -> Option<Own<dyn Restore>>;
    /// A session of our own that guesses how many rows `action` would return or change, and what it asks for when it opens,
    /// as `principal` under these circumstances; or why nothing can be guessed.
    fn estimate(
        &self,
        action: &Action,
        principal: &Principal,
        circumstances: &Circumstances,
    ) -> Result<Own<dyn Estimating>, String>;
    /// A session of our own that looks at a database whose data is labelled so, and what it asks for when it opens, as
    /// `principal`; none for a protocol that has no columns.
    fn survey(&self, labelled: Labelled, depth: Depth, principal: &Principal) -> Option<Own<dyn Survey>>;
    /// The bytes of an out-of-band cancel request, to be sent on a connection of its own, with the TLS negotiation
    /// (if any) that `login` would do first; none for a protocol whose servers give no keys.
    fn cancel(&self, key: &CancelKey) -> Option<Bytes>;
}
