//! What the root role says to the launcher, the proxy and the keeper, and they to it.
//!
//! Every type refuses unknown fields and names, every text is bounded before it is used, and descriptors are
//! checked against what their message must carry. The launcher is root; the proxy is not trusted with more than
//! these verbs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{SocketAddr, SocketAddrV4, SocketAddrV6},
};

use interceptor_core::model::{AgentIdentity, AgentName, ExecutableDigest, Guarantee, Mode, Run, RunId};
use serde::{Deserialize, Serialize};

use super::{
    held::FromHolder,
    kept::{Connection, Existing, Fate, Keep, Keeping},
    released::Note,
};
use crate::channel::survives;
pub use crate::engine::{Asking, Cadence, Came, Heard};

/// The version of these messages; both sides of the launch socket must have the same.
pub const VERSION: u32 = 6;

/// The longest command line that is told, in bytes; what is longer is cut.
pub const COMMAND_LIMIT: usize = 16 * 1024;

/// The address that a launcher's probe of IPv4 dials: it names no resource, and only the proxy answers there, with
/// [`probe_answer`].
pub const PROBE_V4: SocketAddrV4 = SocketAddrV4::new(std::net::Ipv4Addr::new(198, 18, 0, 0), 1);

/// The address that a launcher's probe of IPv6 dials.
pub const PROBE_V6: SocketAddrV6 =
    SocketAddrV6::new(std::net::Ipv6Addr::new(0xfd69, 0x6e74, 0x6572, 0, 0, 0, 0, 0), 1, 0, 0);

/// Whether `destination` is the one that a launcher's probe dials.
pub fn is_probe(destination: SocketAddr) -> bool {
    destination == SocketAddr::V4(PROBE_V4) || destination == SocketAddr::V6(PROBE_V6)
}

/// What the proxy writes to a probe before it closes: which run it takes the prober for.
pub fn probe_answer(run: RunId) -> String {
    format!("interceptor {run}\n")
}

/// What network a run has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Network {
    /// An empty namespace of its own, which the launcher makes.
    Own,
    /// That of processes which were there before: they are attached, and come from this cgroup.
    Shared {
        /// From the hierarchy's root.
        cgroup_before: String,
    },
    /// That of processes which were there before, in a cgroup that is captured where it is.
    InPlace {
        /// The cgroup, from the hierarchy's root.
        cgroup: String,
    },
}

impl Network {
    /// How strongly a run with it is captured.
    pub fn guarantee(&self) -> Guarantee {
        match self {
            Self::Own => Guarantee::Structural,
            Self::Shared { .. } | Self::InPlace { .. } => Guarantee::Enforced,
        }
    }
}

/// What a run has besides the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum ProfileKind {
    /// Nothing.
    Plain,
    /// What CI jobs need: containers.
    Ci,
}

impl ProfileKind {
    /// Its name in policy; that of nothing is empty.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Ci => "ci",
        }
    }
}

/// What is known of a launch before its agent is resolved. The launcher is root, so these are facts, but for the
/// command, which is a hint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchFacts {
    /// The agent's name from the command line; without one, `agents.toml` decides by the command.
    pub agent: Option<AgentName>,
    /// Whether verdicts are carried out.
    pub mode: Mode,
    /// Why, when they are not.
    pub reason: Option<String>,
    /// The command and its arguments, cut at [`COMMAND_LIMIT`].
    pub command: Vec<String>,
    /// Where the command was found.
    pub executable: String,
    /// Who launched it.
    pub launcher_uid: u32,
    /// That user's name, where there is one.
    pub launcher_user: Option<String>,
    /// Whom it runs as.
    pub uid: u32,
    /// Capabilities that it keeps.
    pub capabilities: Vec<String>,
    /// What it has besides.
    pub profile: ProfileKind,
    /// What network it has.
    pub network: Network,
    /// What becomes of connections that it has from before.
    pub existing: Existing,
    /// The unit of systemd's that it is, where somebody named it as one.
    pub unit: Option<String>,
    /// Names of the environment's variables that hold a secret; never their values.
    pub secrets: Vec<String>,
}

impl LaunchFacts {
    /// How strongly it is captured at first: not wholly, where connections are to go on.
    pub fn guarantee(&self) -> Guarantee {
        match self.existing {
            Existing::Reset => self.network.guarantee(),
            Existing::Drain(_) | Existing::KeepObserved => Guarantee::Observed,
        }
    }
}

/// From a launcher to the helper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum LaunchRequest {
    /// May this be run, and where?
    Begin {
        /// [`VERSION`].
        version: u32,
        /// What is launched.
        facts: Box<LaunchFacts>,
    },
    /// The namespaces stand. Carries the network namespace and a pidfd of the run's first process, in this order.
    Namespaces,
    /// Something in the run that is served wanted to reach a Unix socket that is not the run's own. Not answered.
    TurnedAway {
        /// The process, in the host's pid namespace.
        process: u32,
        /// Where it wanted to go, as it said.
        path: String,
    },
    /// Something in the run that is served wants to be connected to a Unix socket that is not the run's own. Carries a pidfd of
    /// the process, and an end of a [`Porting`] channel for the proxy; who closes that one has refused.
    Wanted {
        /// The process's real user.
        uid: u32,
        /// Where it wants to go, as it said.
        path: String,
    },
    /// From the launcher of a run that lives, to a daemon that was started after it. The first message, or none.
    Attend {
        /// [`VERSION`].
        version: u32,
        /// The run.
        run: RunId,
    },
    /// What was there before is captured, tried, and rid of what it had, but for what is to go on. Without this word it is let go
    /// of when the launcher is gone.
    Settled {
        /// What is to go on, if anything.
        keep: Option<Keep>,
    },
    /// What the run that is served wants of its container engine. Carries an end of a [`Heard`] channel for the proxy; who closes
    /// that one has refused.
    Engine {
        /// What.
        asking: Asking,
    },
    /// Let go of a cgroup that is captured where it is. The first message, or none.
    Detach {
        /// [`VERSION`].
        version: u32,
        /// The run.
        run: RunId,
    },
}

/// From the helper to a launcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum LaunchAnswer {
    /// The run exists. Carries its cgroup directory.
    Begun {
        /// The run.
        run: RunId,
        /// Who it is.
        agent: AgentIdentity,
        /// Environment variables whose secrets it keeps.
        keeps: BTreeSet<String>,
        /// The CA certificate that it has to trust, in PEM.
        authority: String,
    },
    /// Listeners stand, the kernel knows the run, the proxy serves it; or it is listened to what its launcher tells.
    Ready,
    /// It is captured from now on, whatever becomes of the launcher.
    Settled,
    /// It is captured no more.
    Detached,
    /// It may not be run, or not now.
    Refused {
        /// Why and what to do, in one line.
        text: String,
    },
}

/// From a run's porter to the proxy, over a channel of one call's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Ported {
    /// The caller's socket is connected. Carries the other end.
    Connected,
}

/// From the proxy to a run's porter, over the same channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Porting {
    /// The path is a resource's: the caller may be connected.
    Come,
    /// No resource has this path.
    Nobodys,
}

/// The process that a porter acts for, as the helper made it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallerFacts {
    /// Its number, in the host's pid namespace.
    pub pid: u32,
    /// When it started, in clock ticks since the boot.
    pub ticks: u64,
    /// Its real user.
    pub uid: u32,
    /// The kernel's number of the cgroup that it is in.
    pub cgroup: u64,
}

/// A descriptor that goes with [`ToProxy::Start`] or [`ToKeeper::Start`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Attached {
    /// The channel between proxy and keeper.
    Peer,
    /// The journal's shared mapping.
    Journal,
    /// The operator's listening socket.
    Control,
    /// The approvers' listening socket.
    Approvals,
    /// A file of `$CREDENTIALS_DIRECTORY`, by name.
    Credential(String),
    /// A kernel map; the kernel side knows their order.
    Map,
}

/// Which ports a run's listeners have on loopback, in the run's namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ports {
    /// TCP, on 127.0.0.1 and `[::1]`.
    pub tcp: u16,
    /// DNS over UDP, on 127.0.0.1 and `[::1]`.
    pub dns: u16,
}

impl Default for Ports {
    /// Above the range from which the kernel takes ephemeral ports, and registered to nobody.
    fn default() -> Self {
        Self { tcp: 61_443, dns: 61_453 }
    }
}

impl Ports {
    /// Where others may have ports, too: each of these is tried until one pair is free.
    pub fn shared() -> impl Iterator<Item = Self> {
        (61_500..61_900).step_by(2).map(|tcp| Self { tcp, dns: tcp + 1 })
    }
}

/// From the helper to the proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum ToProxy {
    /// The first message. Carries one descriptor per entry, in order.
    Start {
        /// What the descriptors are.
        attached: Vec<Attached>,
    },
    /// Somebody wants to launch; answer with [`FromProxy::Accepted`] or [`FromProxy::Refused`].
    Requested {
        /// The id that it would have.
        run: RunId,
        /// What is known.
        facts: LaunchFacts,
    },
    /// A run's listeners, to be served at once; answer with [`FromProxy::Serving`]. Sent again to a new proxy.
    /// Carries the descriptors that [`Listeners`](super::Listeners) names, in its order.
    Started {
        /// The run.
        run: Run,
        /// Whether IPv6 listeners are among the descriptors.
        v6: bool,
        /// Their ports.
        ports: Ports,
        /// What an earlier proxy has recorded as going on, and still does.
        keeping: Option<Keeping>,
    },
    /// Connections of a run from before are to go on; answer with [`FromProxy::Kept`].
    Keep {
        /// The run.
        run: RunId,
        /// Which.
        keeping: Keeping,
    },
    /// Some of them have ended.
    KeptEnded {
        /// The run.
        run: RunId,
        /// Which.
        gone: Vec<Connection>,
        /// How.
        fate: Fate,
    },
    /// The run is over.
    Ended {
        /// The run.
        run: RunId,
        /// Why.
        how: Ended,
    },
    /// Processes of a run's cgroup were moved out of it, and are not captured any more.
    Left {
        /// The run.
        run: RunId,
        /// Which, as text.
        processes: String,
    },
    /// A process was moved into a run's cgroup, and had sockets from before.
    Brought {
        /// The run.
        run: RunId,
        /// What became of them.
        text: String,
    },
    /// A process of a run wanted to reach a Unix socket that is not the run's own.
    TurnedAway {
        /// The run.
        run: RunId,
        /// The process, in the host's pid namespace.
        process: u32,
        /// Where it wanted to go, as it said.
        path: String,
    },
    /// A process of a run wants to be connected to a Unix socket. Carries an end of a [`Porting`] channel to the run's porter.
    Wanted {
        /// The run.
        run: RunId,
        /// The process.
        caller: CallerFacts,
        /// Where it wants to go, as it said.
        path: String,
    },
    /// What a run wants of its container engine. Carries an end of a [`Heard`] channel to the run's launcher.
    Engine {
        /// The run.
        run: RunId,
        /// What.
        asking: Asking,
    },
    /// A run's belt has something to say.
    Belt {
        /// The run.
        run: RunId,
        /// What.
        text: String,
    },
    /// A run was let go of while no daemon was there; answer with [`FromProxy::Recorded`].
    Noted {
        /// What was noted then.
        note: Note,
    },
    /// The answer to [`FromProxy::Executable`].
    Executable {
        /// The question's number.
        ticket: u64,
        /// What was found; nothing when the process was gone, or was another one by then.
        found: Option<ExecutableFacts>,
    },
    /// The answer to [`FromProxy::Kill`], [`FromProxy::Freeze`] and [`FromProxy::Thaw`].
    Carried {
        /// The run.
        run: RunId,
        /// What went wrong, if anything did.
        failure: Option<String>,
    },
    /// Finish what is under way and end.
    Drain,
}

/// Why a run is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Ended {
    /// Its last process is gone, or was never there.
    Processes,
    /// The cgroup that was captured where it was has been removed, or something took its mark away.
    Cgroup,
    /// The cgroup that was captured where it was has been let go of.
    Detached,
}

impl Ended {
    /// In words, for the record.
    pub fn text(self) -> &'static str {
        match self {
            Self::Processes => "its last process is gone",
            Self::Cgroup => "its cgroup is gone: one that is made anew by that name is not captured",
            Self::Detached => "its cgroup is not captured any more",
        }
    }
}

/// A process's executable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecutableFacts {
    /// Its path in the process's own mount namespace.
    pub path: String,
    /// Its digest; nothing when it is too large to hash in time.
    pub digest: Option<ExecutableDigest>,
}

/// From the proxy to the helper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum FromProxy {
    /// It can judge: policy is loaded, the keeper answers.
    Up,
    /// The run may be.
    Accepted {
        /// The run.
        run: RunId,
        /// Who it is.
        agent: AgentIdentity,
        /// Verified claims besides those that the helper adds itself.
        claims: BTreeMap<String, String>,
        /// Environment variables whose secrets it keeps.
        keeps: BTreeSet<String>,
        /// The CA certificate that it has to trust, in PEM.
        authority: String,
    },
    /// The run may not be.
    Refused {
        /// The run.
        run: RunId,
        /// Why, in one line.
        text: String,
    },
    /// The run's listeners are served.
    Serving {
        /// The run.
        run: RunId,
    },
    /// What is to go on of a run is in the record.
    Kept {
        /// The run.
        run: RunId,
    },
    /// A note is in the record.
    Recorded {
        /// Of which run.
        run: RunId,
        /// Its time.
        at: i64,
    },
    /// What does this process execute?
    Executable {
        /// A number that comes back with the answer.
        ticket: u64,
        /// The process, in the host's pid namespace.
        pid: u32,
        /// Its start time in nanoseconds since boot: it must be the same process still.
        start_time: u64,
    },
    /// Kill every process of the run.
    Kill {
        /// The run.
        run: RunId,
    },
    /// Let no process of the run go on, until [`FromProxy::Thaw`].
    Freeze {
        /// The run.
        run: RunId,
    },
    /// Let the run's processes go on.
    Thaw {
        /// The run.
        run: RunId,
    },
}

/// From the helper to the keeper, which is to end when its channel to the proxy does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum ToKeeper {
    /// The first message. Carries one descriptor per entry, in order.
    Start {
        /// What the descriptors are.
        attached: Vec<Attached>,
    },
}

/// From the keeper to the helper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum FromKeeper {
    /// The record can be written and the CA key is there.
    Up,
}

/// Reads any bytes as each of the messages that cross a privilege boundary: the fuzz target's whole body. What can
/// be read must come out the same when it is written and read again.
pub fn fuzz(bytes: &[u8]) {
    survives::<LaunchRequest>(bytes);
    survives::<LaunchAnswer>(bytes);
    survives::<ToProxy>(bytes);
    survives::<FromProxy>(bytes);
    survives::<FromKeeper>(bytes);
    survives::<FromHolder>(bytes);
    survives::<Ported>(bytes);
    survives::<Porting>(bytes);
    survives::<Heard>(bytes);
    survives::<Came>(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_refused() {
        assert!(serde_json::from_str::<FromProxy>(r#"{"Kill":{"run":"r0000000001"}}"#).is_ok());
        for wrong in [
            r#"{"Kill":{"run":"r0000000001","also":1}}"#,
            r#"{"Kill":{"run":"../../etc"}}"#,
            r#"{"Chmod":{"run":"r0000000001"}}"#,
            r#"{"Freeze":{}}"#,
            r#""Kill""#,
        ] {
            assert!(serde_json::from_str::<FromProxy>(wrong).is_err(), "{wrong}");
            fuzz(wrong.as_bytes());
        }
    }
}
