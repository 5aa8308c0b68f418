//! The control API: JSON over a `SOCK_SEQPACKET` Unix socket, one packet a message.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use interceptor_core::{
    mask::Which,
    model::{AgentName, ConnectionId, Guarantee, Mode, RecordId, ResourceName, RunId},
    rescue::Rescue,
    survey::{Depth, Document, RelationKind, RowPolicy},
};
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, setsockopt, socket,
            sockopt::{PeerCredentials, ReceiveTimeout, SendTimeout},
        },
        time::{TimeVal, TimeValLike},
    },
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use crate::{
    channel::{Channel, ChannelError},
    helper::cgroup::Tree,
};

pub use crate::channel::accept;

/// Which messages these are. A client of another version is told so.
pub const VERSION: u32 = 1;

/// A question, over this socket or the approvers'.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope<R = Request> {
    /// [`VERSION`] of whoever asks.
    pub version: u32,
    /// What is asked.
    pub request: R,
}

/// What can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How the daemon is.
    Status,
    /// Which runs there are.
    Runs,
    /// End a run and everything in it.
    Kill {
        /// The run.
        run: RunId,
    },
    /// Relay a run opaquely for a time.
    Release {
        /// The run.
        run: RunId,
        /// Why, for the record.
        reason: String,
        /// For how long, in seconds.
        seconds: u64,
    },
    /// Record that a run's processes are about to be taken out of capture.
    Detach {
        /// The run.
        run: RunId,
        /// Why, for the record.
        reason: String,
    },
    /// Record that a unit which does not run is about to be captured no more at its starts.
    ForgetUnit {
        /// The unit.
        unit: String,
        /// Why, for the record.
        reason: String,
    },
    /// Load the policy folder again.
    Reload,
    /// Do what root's note of a rescue says, or that there is none any more.
    Rescue,
    /// Record that what is in force is about to be saved for a rescue.
    RescueSaved {
        /// What, in words.
        text: String,
    },
    /// Which columns there are, and which labels they bear. Answered in several messages, of which the last is
    /// [`Answer::Surveyed`].
    Survey {
        /// Where.
        resource: ResourceName,
        /// In which database; none is all those that something is known to be bound in.
        database: Option<String>,
        /// As which agent; none where that makes no difference.
        agent: Option<AgentName>,
        /// How deep.
        depth: Depth,
        /// For what, in the words of the command line.
        errand: Errand,
    },
    /// Columns that are called so are not bound to labels any more.
    ForgetLabels {
        /// Where.
        resource: ResourceName,
        /// Which.
        what: Which,
    },
}

/// What is answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Status),
    /// To [`Request::Runs`].
    Runs {
        /// The live runs, oldest first.
        runs: Vec<RunStatus>,
    },
    /// To [`Request::Survey`], as often as there is more.
    Columns {
        /// Some columns.
        columns: Vec<ColumnStatus>,
    },
    /// To [`Request::Survey`], at its end.
    Surveyed {
        /// The databases that were looked at.
        databases: Vec<String>,
        /// Who the sessions were there.
        user: String,
        /// The labels hidden from the agent whose values are found wherever they stand.
        found_anywhere: Vec<String>,
    },
    /// Done as asked.
    Done {
        /// What was done, in words.
        text: String,
    },
    /// Not done.
    Failed {
        /// Why, and how to mend it.
        text: String,
    },
}

/// How the daemon is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The binary's version.
    pub version: String,
    /// Since when, in microseconds of the Unix epoch.
    pub started_at: i64,
    /// The hash of the policy in force.
    pub policy: String,
    /// How many resources the inventory has.
    pub resources: usize,
    /// Live runs.
    pub runs: usize,
    /// Open sessions.
    pub sessions: usize,
    /// Connections from before their runs' capture that go on uninspected.
    pub kept: usize,
    /// The kernel side's counters by name.
    pub kernel: Vec<(String, u64)>,
    /// The newest entry that is on disk.
    pub synced: u64,
    /// The rescue that the rules are in force for, where it is one.
    pub rescue: Option<RescueStatus>,
    /// Whether the keeper answers; without it nothing new is allowed.
    pub keeper: bool,
}

/// A rescue.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RescueStatus {
    /// Which.
    pub rescue: Rescue,
    /// Whether it lasts; otherwise it is over, what is configured could not be loaded, and everything is refused.
    pub lasts: bool,
}

/// What a look at a database is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Errand {
    /// `labels show`.
    Show,
    /// `labels grants`.
    Grants,
    /// `labels scan`.
    Scan,
}

impl Errand {
    /// In the words of the command line.
    pub fn words(self) -> &'static str {
        match self {
            Self::Show => "labels show",
            Self::Grants => "labels grants",
            Self::Scan => "labels scan",
        }
    }
}

/// A column of a resource.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ColumnStatus {
    /// The database.
    pub database: String,
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
    /// The column.
    pub column: String,
    /// Of which type of documents it is, if of one.
    pub document: Option<Document>,
    /// The labels that it bears.
    pub labels: Vec<LabelStatus>,
    /// What the agent may see of it.
    pub sight: Sight,
    /// How many of its values were looked at.
    pub sampled: u32,
    /// In how many of them each detector found something.
    pub found: Vec<(String, u32)>,
}

/// What an agent may see of a column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sight {
    /// All.
    All,
    /// Its documents, without what stands at these places, written as in labels.toml.
    Without(Vec<String>),
    /// Nothing.
    Nothing,
}

/// A label that a column bears.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LabelStatus {
    /// Its name.
    pub label: String,
    /// Why it is borne.
    pub through: Through,
    /// Since when it is bound itself, in microseconds of the Unix epoch.
    pub since: Option<i64>,
}

/// Why a column bears a label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Through {
    /// It was found by this pattern.
    Pattern(String),
    /// The statement with this record copied labelled data into it.
    Copied(RecordId),
    /// Another column's data comes into it: it is a view's, generated, or of a part, an heir or a whole of it.
    Another,
}

/// A live run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunStatus {
    /// The run.
    pub run: RunId,
    /// Its agent.
    pub agent: AgentName,
    /// How strongly it is captured.
    pub guarantee: Guarantee,
    /// Whether verdicts are carried out.
    pub mode: Mode,
    /// Since when, in microseconds of the Unix epoch.
    pub started_at: i64,
    /// Until when it is released, in microseconds of the Unix epoch.
    pub released_until: Option<i64>,
    /// Connections from before its capture that go on uninspected, if any do.
    pub kept: Option<KeptStatus>,
    /// What was started.
    pub command: String,
    /// Open sessions.
    pub sessions: Vec<(ConnectionId, ResourceName)>,
}

/// Connections from before a run's capture.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeptStatus {
    /// What root chose.
    pub existing: String,
    /// Until when at most, in microseconds of the Unix epoch.
    pub until: i64,
    /// Each that goes on still, in words.
    pub connections: Vec<String>,
}

/// Why a daemon could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No daemon listens.
    #[error(
        "no daemon runs here ({0}): start one with `interceptor daemon` as root, or by `interceptor run`"
    )]
    NotRunning(String),
    /// The socket cannot be used.
    #[error("the daemon's socket {0} cannot be used")]
    Unreachable(String, #[source] io::Error),
    /// The socket is not for this user.
    #[error("{0} is for root only: run it with sudo")]
    NotRoot(String),
    /// Inside of a run there is no socket.
    #[error("this is a captured run: nothing in it may control the interceptor; ask from outside")]
    Captured,
    /// The conversation broke.
    #[error("the daemon did not answer")]
    Channel(#[from] ChannelError),
}

/// Asks the daemon that listens at `path`.
pub fn ask(path: &Path, request: Request) -> Result<Answer, ControlError> {
    ask_for_many(path, request, |_| ())
}

/// The same of a daemon that may hang: an error when it takes longer.
pub fn ask_within(path: &Path, request: Request, seconds: i64) -> Result<Answer, ControlError> {
    converse(reach(path, Some(seconds))?, request, |_| ())
}

/// The same, where [`Answer::Columns`] may come before the answer: those are for `column`.
pub fn ask_for_many(
    path: &Path,
    request: Request,
    column: impl FnMut(ColumnStatus),
) -> Result<Answer, ControlError> {
    converse(reach(path, None)?, request, column)
}

/// The daemon's first process, which listens at `path`.
pub fn daemon(path: &Path) -> Result<Pid, ControlError> {
    let socket = reach(path, Some(1))?;
    let unreachable = |errno: Errno| ControlError::Unreachable(path.display().to_string(), errno.into());
    Ok(Pid::from_raw(getsockopt(&socket, PeerCredentials).map_err(unreachable)?.pid()))
}

/// A socket that is connected to `path`, and waits so many seconds at most, or for as long as it takes.
fn reach(path: &Path, seconds: Option<i64>) -> Result<OwnedFd, ControlError> {
    let down = |error: nix::Error| {
        let at = path.display().to_string();
        match error {
            // The launcher sets it; a hint for the message only.
            _ if std::env::var_os("INTERCEPTOR_RUN").is_some() => ControlError::Captured,
            Errno::EACCES | Errno::EPERM => ControlError::NotRoot(at),
            Errno::ENOENT | Errno::ECONNREFUSED => ControlError::NotRunning(at),
            error => ControlError::Unreachable(at, error.into()),
        }
    };
    // For the message only: the daemon would hang up.
    if Tree::is_captured("self").is_ok_and(|captured| captured) {
        return Err(ControlError::Captured);
    }
    let address = UnixAddr::new(path).map_err(down)?;
    let descriptor =
        socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).map_err(down)?;
    if let Some(seconds) = seconds {
        setsockopt(&descriptor, ReceiveTimeout, &TimeVal::seconds(seconds)).map_err(down)?;
        setsockopt(&descriptor, SendTimeout, &TimeVal::seconds(seconds)).map_err(down)?;
    }
    connect(descriptor.as_raw_fd(), &address).map_err(down)?;
    Ok(descriptor)
}

fn converse(
    socket: OwnedFd,
    request: Request,
    mut column: impl FnMut(ColumnStatus),
) -> Result<Answer, ControlError> {
    let channel: Channel<Envelope, Answer> = Channel::from_socket(socket);
    channel.send(&Envelope { version: VERSION, request }, &[])?;
    loop {
        match channel.receive()?.0 {
            Answer::Columns { columns } => columns.into_iter().for_each(&mut column),
            answer => return Ok(answer),
        }
    }
}

/// Why a caller is turned away.
#[derive(Debug, thiserror::Error)]
pub enum Intruder {
    /// Its credentials cannot be had.
    #[error("the caller cannot be identified")]
    Nameless(#[from] io::Error),
    /// It is not root.
    #[error("uid {0} may not control the interceptor: run as root")]
    NotRoot(u32),
    /// It is captured.
    #[error("a captured process may not control the interceptor")]
    Captured,
}

/// Who is at the other end of `socket`: root, and outside every captured run, or nobody we talk to.
pub fn admit(socket: BorrowedFd<'_>) -> Result<(), Intruder> {
    let peer = getsockopt(&socket, PeerCredentials).map_err(io::Error::from)?;
    if peer.uid() != 0 {
        return Err(Intruder::NotRoot(peer.uid()));
    }
    if Tree::is_captured(&peer.pid().to_string())? { Err(Intruder::Captured) } else { Ok(()) }
}

/// The server's end of one conversation.
pub fn accepted(socket: OwnedFd) -> Result<Channel<Answer, Envelope>, Intruder> {
    admit(socket.as_fd())?;
    Ok(Channel::from_socket(socket))
}
