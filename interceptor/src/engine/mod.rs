//! Containers of a run: what it may ask a Docker engine for, and what its containers are made into.
//!
//! Two processes stand between a run and the engine, and neither trusts the other's work. The **broker**
//! ([`broker`]) reads what the run writes: it lets the calls of a list through, rewrites what makes a container, and has each
//! recorded before it goes on. The **runtime** ([`runtime`]) is what the engine calls to make a container: it reads the bundle
//! that came of it, tightens it to what a run may be, and starts the ordinary runtime with that. So whatever the engine was
//! told, by whatever way, no container of a run begins that is not in the run's cgroup and network, behind its filter.
//!
//! Promise: a call or a field that is not known here is refused. Must never know how the kernel side captures: the
//! launcher admits each container, and looks at it before it begins.

pub mod broker;
mod build;
mod bundle;
mod context;
mod create;
mod dockerfile;
mod filter;
mod images;
mod mounts;
mod own;
mod progress;
mod pull;
mod refusal;
mod routes;
pub mod runtime;
mod upstream;
mod view;

use std::path::{Path, PathBuf};

use interceptor_core::model::{Image, RunId};
use serde::{Deserialize, Serialize};

/// The name that the engine must know the runtime by.
pub const RUNTIME: &str = "interceptor";
/// The name of the same as the default one: what is of no run it leaves to the ordinary runtime.
pub const RUNTIME_OF_ALL: &str = "interceptor-of-all";
/// Where the engine's socket is on most hosts.
pub const SOCKET: &str = "/run/docker.sock";
/// The folder of a run's cgroup that its containers are in. The agent's processes are in another one, since cgroups that have
/// processes themselves cannot give their children controllers.
pub const CONTAINERS: &str = "containers";
/// The folder of a run's cgroup that the agent's processes are in, if the run may have containers.
pub const AGENT: &str = "agent";

/// Who makes the cgroups of an engine's containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum CgroupDriver {
    /// The runtime.
    Cgroupfs,
    /// systemd, which the runtime is asked not to ask.
    Systemd,
}

impl CgroupDriver {
    /// What the engine is told to make a run's containers below.
    fn parent(self, slice: &str, run: RunId) -> String {
        match self {
            Self::Cgroupfs => format!("/{slice}/{run}/{CONTAINERS}"),
            Self::Systemd => format!("interceptor-{run}.slice"),
        }
    }

    /// The run that a bundle's path of a cgroup is of, where it was told so.
    fn run_of(slice: &str, path: &str) -> Option<RunId> {
        if let Some((parent, _)) = path.split_once(':') {
            return parent.strip_prefix("interceptor-")?.strip_suffix(".slice")?.parse().ok();
        }
        let (parent, _) = path.rsplit_once('/')?;
        let run = parent.strip_prefix(&format!("/{slice}/"))?.strip_suffix(&format!("/{CONTAINERS}"))?;
        run.parse().ok()
    }
}

/// Which sockets of the Unix family a container may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum UnixSockets {
    /// All.
    All,
    /// None for datagrams, which this kernel cannot keep from being sent by name.
    Connected,
}

/// How often a run can cause something to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Cadence {
    /// It costs the engine something: each is told.
    Each,
    /// As often as the run likes.
    Loop,
}

/// What a run wants of its engine: told to the daemon first, and done if that is recorded and may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Asking {
    /// A call that the broker lets through, or what came of one.
    Call {
        /// How often there can be such.
        cadence: Cadence,
        /// In words.
        text: String,
    },
    /// An image of a registry, which the engine would fetch by itself: policy must permit it.
    Pull {
        /// Which.
        image: Image,
        /// For which kind of machine; empty for this one's.
        platform: String,
    },
}

/// What the daemon says to that. Who hears nothing, because the channel closed or in too long a time, does nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Heard {
    /// Its entry is committed, and it may be done.
    Recorded,
    /// It may not be done.
    Refused {
        /// Why, for who asked.
        text: String,
    },
}

/// What came of something that took a while. Where it is broken off the channel closes without it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Came {
    /// It was done.
    Done {
        /// What the engine says that it is.
        text: String,
    },
    /// It was not done.
    Failed {
        /// Why, in the engine's words.
        text: String,
    },
}

/// From the launcher to the broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum ToBroker {
    /// The first message: look whether this engine will do.
    Look {
        /// Its socket.
        engine: PathBuf,
    },
    /// Serve a run. Carries the listening socket.
    Serve {
        /// The run.
        run: RunId,
        /// The name of the cgroup that runs are in.
        slice: String,
        /// The folder that it works in: what it may show its containers.
        folder: PathBuf,
    },
    /// What was asked is recorded: it may go on.
    Recorded,
    /// It could not be recorded: it may not.
    Unrecorded,
    /// It may not go on by policy.
    Refused {
        /// Why, for who asked.
        text: String,
    },
    /// The run is over: remove its containers.
    End,
}

/// From the broker to the launcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum FromBroker {
    /// The engine will do.
    Fit,
    /// It will not.
    Unfit {
        /// Why, and what to do.
        text: String,
    },
    /// The run asks for something, which waits for [`ToBroker::Recorded`].
    Asked {
        /// A number of its own.
        number: u64,
        /// What.
        asking: Asking,
    },
    /// Something that took a while is over. Not answered.
    Ended {
        /// Its number.
        number: u64,
        /// What came of it; nothing where it was broken off.
        came: Option<Came>,
    },
    /// Its containers are removed.
    Over,
}

/// From the runtime to the launcher of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum ToDoor {
    /// A container of the run's is to be made.
    Admit {
        /// Its id.
        container: String,
    },
    /// It is made, and nothing of its own has run.
    Made {
        /// Its first process.
        pid: u32,
    },
}

/// From the launcher of a run to the runtime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum FromDoor {
    /// It may be made so. Carries the run's working folder.
    Admitted {
        /// The network namespace that it is in, by a path.
        network: PathBuf,
        /// Where the working folder is.
        folder: PathBuf,
        /// Which sockets it may have.
        unix: UnixSockets,
    },
    /// It may begin.
    Begin,
    /// It may not be, or not begin.
    Refused {
        /// Why.
        text: String,
    },
}

/// Whether a path has nothing in it that leads back or nowhere.
fn is_plain(path: &Path) -> bool {
    use std::path::Component;
    path.is_absolute()
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_known_by_where_its_containers_are() {
        let run = RunId::from_random(7);
        let slice = "interceptor-0.slice";
        let path = format!("{}/abc", CgroupDriver::Cgroupfs.parent(slice, run));
        assert_eq!(CgroupDriver::run_of(slice, &path), Some(run));
        let path = format!("{}:docker:abc", CgroupDriver::Systemd.parent(slice, run));
        assert_eq!(CgroupDriver::run_of(slice, &path), Some(run));
        for other in
            ["/docker/abc", "system.slice:docker:abc", "abc", "", "/interceptor.slice/x/containers/abc"]
        {
            assert_eq!(CgroupDriver::run_of(slice, other), None, "{other}");
        }
        assert_eq!(CgroupDriver::run_of(slice, &format!("/other.slice/{run}/containers/abc")), None);
    }
}
