//! The nouns of the project, each with its own type, so that a client address cannot stand where an original
//! destination belongs. Plain data: no behaviour beyond parsing and printing.

mod action;
mod address;
mod identity;
mod ids;
mod image;
mod record;
mod session;
mod spent;

pub use action::{
    Action, Actions, BindValue, Binds, Effect, Object, Phase, Program, SessionChange, StatementFacts,
    StatementKind, Target, Text, Unknown, Verb,
};
pub use address::{ClientAddress, OriginalDestination, SocketPath, SyntheticAddress, UNIX};
pub use identity::{AgentIdentity, Ancestor, Descent, ExecutableDigest, Guarantee, Mode, ProcessFacts, Run};
pub use ids::{
    AgentName, ApprovalId, BreakGlassId, ConnectionId, ExchangeDigest, GroupName, LabelName, PersonName,
    RecordId, RescueId, ResourceName, RuleId, RunId,
};
pub use image::{Image, NotAnImage};
pub use record::{
    ApprovalRecord, Attempt, Author, Entry, EventKind, EventRecord, MaskLayer, MaskRecord, OutcomeRecord,
    OutcomeStatus, RecordedRows, RequestRecord, VerdictRecord, WouldBe,
};
pub use session::{Connection, Principal, Session};
pub use spent::Spent;
