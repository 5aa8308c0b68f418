//! What is written down: two entries per exchange, and events. Serialised as JSON, one entry a line; field names
//! are part of the documented record format, so a change here is a change of format.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::undo::UndoRecord;

use super::{
    Action, AgentIdentity, AgentName, ApprovalId, BreakGlassId, ClientAddress, ConnectionId, Guarantee, Mode,
    OriginalDestination, PersonName, Principal, ProcessFacts, RecordId, RescueId, ResourceName, RunId,
};

/// Who wrote the statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Author {
    /// The captured process.
    Agent,
    /// The gate itself: a catalogue look-up, for instance.
    Gate,
}

/// One line of the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "kebab-case")]
pub enum Entry {
    /// Written before the permit.
    Request(Box<RequestRecord>),
    /// Written once for each request, whatever ended it.
    Outcome(OutcomeRecord),
    /// Something that is no exchange.
    Event(EventRecord),
}

/// What was asked, by whom, and what was decided. What is the same in all requests of a session stands first, then what
/// is the same each time that a statement is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// The run.
    pub run: RunId,
    /// The agent.
    pub agent: AgentIdentity,
    /// How strongly the run is captured.
    pub guarantee: Guarantee,
    /// The connection, where there is one.
    pub connection: Option<ConnectionId>,
    /// The captured end.
    pub client: Option<ClientAddress>,
    /// Where it was going.
    pub destination: Option<OriginalDestination>,
    /// The process. Shared by the records of one connection.
    pub process: Option<Arc<ProcessFacts>>,
    /// The resource, where one was named.
    pub resource: Option<ResourceName>,
    /// The protocol's name.
    pub protocol: String,
    /// Who the session is upstream.
    pub principal: Principal,
    /// What was decided.
    pub verdict: VerdictRecord,
    /// The statement, with its facts and bind values.
    pub action: Action,
    /// When, in microseconds of the Unix epoch.
    pub at: i64,
    /// Who wrote the statement.
    pub author: Author,
    /// SHA-256 of the frame that the statement stood in, in hexadecimal.
    pub frame_sha256: String,
    /// The statement's place in its frame, from 0, and how many there are.
    pub place: (u32, u32),
}

/// What the gate decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictRecord {
    /// Whether it went on.
    pub allowed: bool,
    /// Whether denials were carried out at the time.
    pub mode: Mode,
    /// What enforcement would have said, where `mode` is observe.
    pub would_be: Option<WouldBe>,
    /// The rules that decided, as `id (file:line)`.
    pub rules: Vec<String>,
    /// Why, in words for the operator.
    pub reason: String,
    /// Words for the agent, where it was refused.
    pub said: Option<String>,
    /// The hash of the policy in force.
    pub policy: String,
    /// Approver groups that the exchange would have waited for.
    pub held_for: Vec<String>,
    /// The request for approval that it waited for or went by, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalRecord>,
    /// The break-glass under which `mode` is observe, where that is why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub break_glass: Option<BreakGlassId>,
    /// The rescue that lasted, where one did: the policy is the saved one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rescue: Option<RescueId>,
    /// The rows that it was about to change, which are kept for `interceptor undo`, where a rule wants that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<UndoRecord>,
    /// The labels that were hidden in its answer, where any could come into it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub masked: Vec<MaskRecord>,
    /// How many tokens in it went to the server as what they stand for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tokens: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A label that was hidden in an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaskRecord {
    /// The label.
    pub label: String,
    /// How what carries it is known.
    pub by: MaskLayer,
    /// The places in documents that bear it, where no column that comes into the statement bears it as a whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub at: Vec<String>,
}

/// How it is known that a value carries a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaskLayer {
    /// A column that carries it comes into the statement: by its origin, or by its lineage.
    Column,
    /// Nothing is known of what comes into it, so that it may be anything.
    Unknown,
    /// By what the value looks like.
    Value,
}

/// A request for approval, as far as it had come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRecord {
    /// The request.
    pub id: ApprovalId,
    /// Who had approved.
    pub by: Vec<PersonName>,
}

/// A verdict that was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WouldBe {
    /// It would have gone on.
    Allowed,
    /// It would have been refused.
    Denied,
    /// It would have waited for a person.
    Held,
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutcomeStatus {
    /// The upstream carried it out.
    Completed,
    /// The upstream answered with an error.
    Failed,
    /// It was refused and never sent.
    Refused,
    /// It was sent, and the upstream passed it over because of an earlier error.
    Skipped,
    /// The connection ended before the answer was seen: carried out or not.
    Unknown,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeRecord {
    /// When, in microseconds of the Unix epoch.
    pub at: i64,
    /// The request.
    pub request: RecordId,
    /// How it ended.
    pub status: OutcomeStatus,
    /// Rows returned or changed, as the upstream counted them.
    pub rows: Option<u64>,
    /// Bytes sent back, or copied in.
    pub bytes: u64,
    /// From the permit to the end of the answer, in microseconds.
    pub latency_us: Option<u64>,
    /// The protocol's error code, such as an SQLSTATE.
    pub code: Option<String>,
    /// The upstream's message.
    pub message: Option<String>,
    /// The rows that it returned, where its resource records rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<RecordedRows>,
}

/// Rows of an answer, masked as for somebody who may see nothing of any label.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RecordedRows {
    /// The first that came, each with its values: texts as they are, others as `\x` and hexadecimal digits; none is NULL.
    pub rows: Vec<Vec<Option<String>>>,
    /// How many more came: beyond what is recorded of one statement, not masked with certainty, or without room in the
    /// journal.
    #[serde(default, skip_serializing_if = "is_none_left")]
    pub rows_left_out: u64,
}

impl RecordedRows {
    /// How many rows are recorded of one statement.
    pub const MOST_ROWS: usize = 1000;
    /// How many bytes they may have as JSON.
    pub const MOST_BYTES: usize = 64 * 1024;

    /// The same with none of its rows.
    #[must_use]
    pub fn emptied(&self) -> Self {
        let rows = u64::try_from(self.rows.len()).unwrap_or(u64::MAX);
        Self { rows: Vec::new(), rows_left_out: self.rows_left_out.saturating_add(rows) }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_none_left(number: &u64) -> bool {
    *number == 0
}

/// Something that is no exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// When, in microseconds of the Unix epoch.
    pub at: i64,
    /// The run, where it concerns one.
    pub run: Option<RunId>,
    /// The run's agent.
    pub agent: Option<AgentName>,
    /// What happened.
    pub kind: EventKind,
    /// In words.
    pub text: String,
    /// What a process tried, where it is about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
}

/// What a process tried, and was refused without a record of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The process, in the host's pid namespace.
    pub process: u32,
    /// Which refusal it is: one of a closed list of codes, whose `probe-...` are what ordinary clients try by themselves.
    pub code: String,
}

/// Kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// The daemon started.
    DaemonStarted,
    /// The daemon stopped in good order.
    DaemonStopped,
    /// A part of the daemon died and was started again.
    Recovered,
    /// A run began.
    RunStarted,
    /// A run was not begun: policy does not permit its launch.
    LaunchRefused,
    /// A run ended.
    RunEnded,
    /// A run was killed by an operator.
    RunKilled,
    /// A run is relayed opaquely for a time, by an operator.
    Released,
    /// A release ended.
    ReleaseEnded,
    /// Connections of a run from before its capture go on uninspected for a while, as root said.
    Kept,
    /// Some of them ended, or all.
    KeptEnded,
    /// The policy was loaded.
    PolicyLoaded,
    /// A policy was refused and the one in force stays.
    PolicyRefused,
    /// A person approved, or said no to, a request for approval.
    Decided,
    /// A person was shown labelled values of a request for approval.
    Uncovered,
    /// Requests for approval came to nothing: what they rested on changed.
    Voided,
    /// A person vouched that a captured run is their own log-in session.
    Vouched,
    /// Root broke the glass: for a while, policy is not carried out at a resource.
    GlassBroken,
    /// The glass is whole again.
    GlassMended,
    /// Somebody looked at what was done under a break-glass.
    GlassReviewed,
    /// What is in force was saved as known to be good, for a rescue.
    RescueSaved,
    /// Root began a rescue: for a while, what was saved is in force in the place of what is configured.
    RescueBegun,
    /// A rescue is over.
    RescueEnded,
    /// A labelled column is called otherwise than its label says. It stays labelled.
    LabelMoved,
    /// A credential stood in what an agent read, and was masked.
    SecretFound,
    /// Root had forgotten what columns were bound to labels.
    LabelForgotten,
    /// A run asked for more approvals than it may have open, and was frozen.
    RunFrozen,
    /// A frozen run goes on.
    RunThawed,
    /// A connection that never became a session, such as one to an unknown destination.
    ConnectionRefused,
    /// A connection to a listener of the run's own.
    Internal,
    /// A peer broke its protocol.
    ProtocolError,
    /// The kernel side lost or refused something.
    Kernel,
    /// It refused what ordinary clients try by themselves, and go on without.
    Probe,
    /// A run asked its container engine for something, or a container of its began.
    Engine,
    /// The belt behind the kernel side caught something, or somebody else changed it.
    Belt,
    /// Disk, quota or store trouble.
    Store,
}
