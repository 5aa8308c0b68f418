//! The kernel's door: loads our programs, attaches them to the captured slice, and owns their maps and pins.
//!
//! Promises: no other module says `aya`; links and maps are pinned and outlive this process, after which captured
//! connections are refused for want of a heartbeat; new programs are attached before old ones are released; what
//! cannot be established is an error, never a half-capture. It must never know of policy, protocols or records.

mod abi;
mod attachment;
mod belt;
mod btf;
pub mod cgroup;
pub mod diag;
mod events;
mod kept;
pub mod layer;
mod load;
mod log;
mod maps;
mod neighbours;
mod nftables;
mod pins;
pub mod probe;
pub mod refusal;
mod release;
mod sys;
mod unix;

use std::{io, path::PathBuf};

use interceptor_common::RUN_LEVELS;
use interceptor_core::model::RunId;

pub use abi::{Flow, ProcessRef, RunAddresses, RunSettings};
pub use attachment::{Attachment, HEARTBEAT_LIMIT};
pub use belt::{Belts, Girth, Passing};
pub use events::{EventReader, KernelEvent, Occurrence};
pub use interceptor_common::Counter;
pub use log::KernelLog;
pub use maps::{Counters, KernelMaps};
pub use release::KnownRuns;

/// Why the kernel side cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// No cgroup2 hierarchy.
    #[error("this host has no cgroup2 mount: mount one (`mount -t cgroup2 none /sys/fs/cgroup/unified`)")]
    NoCgroup2,
    /// A file, folder or mount could not be worked on.
    #[error("cannot {what} {}", path.display())]
    Place {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A folder that others could have tampered with.
    #[error("{} must be a folder owned by root with mode {expected:o}; it is not: remove it", path.display())]
    Untrusted {
        /// The folder.
        path: PathBuf,
        /// The mode that it must have.
        expected: u32,
    },
    /// The kernel's type information lacks something.
    #[error("the kernel's BTF (/sys/kernel/btf/vmlinux) {0}: a kernel with CONFIG_DEBUG_INFO_BTF is needed")]
    Btf(String),
    /// The object, a program or a map was refused.
    #[error(
        "the kernel refused {what}: root, and Linux 6.1 or newer, are needed; `interceptor doctor` says more"
    )]
    Refused {
        /// What was refused.
        what: String,
        /// What the library said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It is not captured.
    #[error("the kernel side knows no run {0}: nothing of it is captured")]
    Unknown(RunId),
    /// It was launched.
    #[error(
        "run {0} has a network of its own, and nothing leads out of it but the interceptor: it cannot be let go of"
    )]
    OwnNetwork(RunId),
    /// The belt, which nothing hangs on.
    #[error("could not {what} nftables rules")]
    Belt {
        /// What was being done.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Another program does not let ours run.
    #[error(
        "program {program} is on {hook} at {} so that no other may be there: have its owner attach it with \
         BPF_F_ALLOW_MULTI (systemd does where the unit says Delegate=yes), or take another cgroup", cgroup.display()
    )]
    Alone {
        /// Its name, or its number.
        program: String,
        /// The hook.
        hook: &'static str,
        /// Where it is attached.
        cgroup: PathBuf,
    },
    /// The layer of LSM programs is wanted whole.
    #[error(
        "the LSM programs, which interceptor.toml asks for (`lsm = \"required\"`), are not to be had here: {0}"
    )]
    Layer(String),
    /// Strict labels are wanted.
    #[error(
        "strict labels, which interceptor.toml asks for (`labels = \"strict\"`), are not to be had here: {0}"
    )]
    Labels(String),
    /// The set of descriptors is not the one that [`KernelMaps::descriptors`] gives.
    #[error("the helper handed over {0} kernel descriptors that do not fit this version")]
    Descriptors(usize),
    /// Processes are still captured.
    #[error("{} still has processes: end the runs first", .0.display())]
    Populated(PathBuf),
    /// A cgroup is captured where it is.
    #[error("run {0} is a cgroup that is captured where it is: `interceptor detach {0}` first")]
    Enclosed(RunId),
    /// Runs would be at more depths of the tree than the kernel side looks at.
    #[error(
        "{} lies {level} deep, and runs at {RUN_LEVELS} other depths are captured already: detach one, or name a cgroup \
         at a depth where one is",
        path.display()
    )]
    Depths {
        /// The cgroup.
        path: PathBuf,
        /// Its depth.
        level: u32,
    },
}

impl KernelError {
    fn place(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Place { what, path: path.into(), source }
    }

    fn belt(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Belt { what, source }
    }

    fn refused<E>(what: impl Into<String>) -> impl FnOnce(E) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        move |source| Self::Refused { what: what.into(), source: Box::new(source) }
    }
}
