//! What approvers say to the daemon, and hear: JSON over a socket of their own, which anybody may connect to and only
//! people may decide over.

use std::{io, os::fd::AsRawFd, path::Path};

use interceptor_core::{
    approval::{Says, Shown, Standing},
    break_glass::BreakGlass,
    model::{ApprovalId, BreakGlassId, RecordId, ResourceName, RunId},
};
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
};
use serde::{Deserialize, Serialize};

use super::api::{ControlError, Envelope, VERSION};
use crate::channel::Channel;

/// What a person says is their own work in a log-in session.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vouching {
    /// For how long that is to be believed, in seconds.
    pub seconds: u64,
    /// The number of the shell's process.
    pub shell: u32,
    /// The paths of the programs that they start from it.
    pub programs: Vec<String>,
}

/// What can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// What is open, or was lately.
    List,
    /// The same, once it has changed since an answer with this count, or after half a minute.
    Watch {
        /// [`Answer::List`]'s count.
        seen: u64,
    },
    /// One request, whole.
    Show {
        /// Which.
        id: ApprovalId,
    },
    /// What would bring back the rows that this record's statement changed, from this byte of the text on.
    Images {
        /// Which.
        record: RecordId,
        /// From where.
        from: usize,
    },
    /// Bring them back.
    Undo {
        /// Those of which record.
        record: RecordId,
    },
    /// Yes or no.
    Decide {
        /// To which.
        id: ApprovalId,
        /// For which of the person's groups, where there are several.
        group: Option<String>,
        /// What.
        says: Says,
    },
    /// Ask for approval of a statement before anybody sends it.
    Ask {
        /// Whose; the only one where none is named.
        run: Option<RunId>,
        /// Where; where the run has a session, or the only one, where none is named.
        resource: Option<ResourceName>,
        /// In which database; that of the run's session, where none is named.
        database: Option<String>,
        /// The statement.
        text: String,
    },
    /// A run is the caller's own log-in session.
    Vouch {
        /// The run.
        run: RunId,
        /// What of it.
        said: Vouching,
    },
    /// Break the glass.
    BreakGlass {
        /// Where.
        resource: ResourceName,
        /// Why.
        reason: String,
        /// For how long, in seconds.
        seconds: u64,
    },
    /// The break-glass at this resource is over.
    Mend {
        /// Where.
        resource: ResourceName,
    },
    /// A break-glass was looked at afterwards.
    Review {
        /// Which.
        id: BreakGlassId,
        /// What was found.
        note: String,
    },
}

/// What is answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// To [`Request::List`] and [`Request::Watch`].
    List {
        /// Counts changes.
        seen: u64,
        /// Newest first, cut short.
        approvals: Vec<Standing>,
        /// What is broken, or not reviewed yet.
        glass: Vec<BreakGlass>,
    },
    /// To [`Request::Show`].
    Approval(Box<Shown>),
    /// Decided.
    Decided {
        /// What, in words.
        text: String,
        /// Where the request stands now.
        approval: Box<Standing>,
    },
    /// To [`Request::Ask`].
    Asked {
        /// What the session said of it.
        text: String,
        /// The request, where it needs one.
        id: Option<ApprovalId>,
    },
    /// To what is about a break-glass.
    Glass {
        /// What was done, in words.
        text: String,
        /// How it is now.
        glass: Box<BreakGlass>,
    },
    /// To [`Request::Images`]: as much of the text as goes into a message; nothing at its end.
    Images {
        /// The statements, a line each.
        text: String,
        /// Who has used them.
        used: Option<String>,
    },
    /// To [`Request::Undo`].
    Undone {
        /// What, in words.
        text: String,
    },
    /// To [`Request::Vouch`].
    Vouched {
        /// What, in words.
        text: String,
    },
    /// Not done.
    Failed {
        /// Why, and how to mend it.
        text: String,
    },
}

/// Asks the daemon whose approvers' socket is at `path`.
pub fn ask(path: &Path, request: Request) -> Result<Answer, ControlError> {
    let at = || path.display().to_string();
    let down = |errno: Errno| match errno {
        // The launcher sets it; a hint for the message only.
        _ if std::env::var_os("INTERCEPTOR_RUN").is_some() => ControlError::Captured,
        Errno::ENOENT | Errno::ECONNREFUSED => ControlError::NotRunning(at()),
        errno => ControlError::Unreachable(at(), io::Error::from(errno)),
    };
    let address = UnixAddr::new(path).map_err(down)?;
    let descriptor =
        socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).map_err(down)?;
    connect(descriptor.as_raw_fd(), &address).map_err(down)?;
    let channel: Channel<Envelope<Request>, Answer> = Channel::from_socket(descriptor);
    channel.send(&Envelope { version: VERSION, request }, &[])?;
    Ok(channel.receive()?.0)
}
