//! Capabilities that a run may keep, by name, each with what it costs. Those that reach out of the run, or past what
//! hides the host from it, are never kept.

use std::{fmt, str::FromStr};

/// A capability that a run may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    name: &'static str,
    number: u8,
    cost: &'static str,
}

const FILES: &str = "any file that the run sees, whoever owns it";
const IDENTITY: &str = "the run's processes may become any user";
const INSIDE: &str = "nothing outside of the run";

/// In the order of `linux/capability.h`.
const KEPT: &[Capability] = &[
    Capability { name: "chown", number: 0, cost: FILES },
    Capability { name: "dac_override", number: 1, cost: FILES },
    Capability { name: "fowner", number: 3, cost: FILES },
    Capability { name: "fsetid", number: 4, cost: FILES },
    Capability { name: "kill", number: 5, cost: INSIDE },
    Capability { name: "setgid", number: 6, cost: IDENTITY },
    Capability { name: "setuid", number: 7, cost: IDENTITY },
    Capability { name: "setpcap", number: 8, cost: INSIDE },
    Capability { name: "net_bind_service", number: 10, cost: INSIDE },
    Capability { name: "net_raw", number: 13, cost: "raw and packet sockets stay refused; little is gained" },
    Capability { name: "ipc_lock", number: 14, cost: "memory that cannot be swapped" },
    Capability { name: "sys_chroot", number: 18, cost: INSIDE },
    Capability { name: "sys_nice", number: 23, cost: "more than its share of the processors" },
    Capability {
        name: "audit_write",
        number: 29,
        cost: "the host's audit log stays closed; little is gained",
    },
    Capability { name: "setfcap", number: 31, cost: "files that give others rights, if a person runs them" },
];

/// What programs that install software need of root.
const INSTALLING: &[&str] = &[
    "chown",
    "dac_override",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "net_bind_service",
    "sys_chroot",
    "setfcap",
];

/// Those that are asked for most and never kept.
const REFUSED: &[(&str, &str)] = &[
    ("sys_admin", "it undoes the run's view of the host"),
    ("net_admin", "it changes the run's network and may load socket programs"),
    ("bpf", "it may load kernel programs"),
    ("perfmon", "it reads the kernel's memory"),
    ("sys_ptrace", "it reads the memory of every process that it sees"),
    ("sys_module", "it loads code into the kernel"),
    ("sys_rawio", "it reaches devices and memory"),
    ("mknod", "it makes nodes of the host's disks"),
    ("dac_read_search", "it opens files by number, past what hides them"),
    ("sys_boot", "it ends the host"),
    ("sys_time", "it sets the host's clock"),
    ("syslog", "it reads the kernel's log"),
];

/// Why a capability cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityError {
    /// It would undo the run.
    #[error("{0} is never kept: {1}; run what needs it outside, or do without")]
    Refused(&'static str, &'static str),
    /// No such thing, or none that was looked at.
    #[error("no run may keep a capability {0:?}; those that may be kept are {names}", names = names())]
    Unknown(String),
}

fn names() -> String {
    KEPT.iter().map(|capability| capability.name).collect::<Vec<_>>().join(", ")
}

impl FromStr for Capability {
    type Err = CapabilityError;

    /// By its name, with or without `CAP_`, in any case.
    fn from_str(text: &str) -> Result<Self, CapabilityError> {
        let lower = text.to_ascii_lowercase();
        let name = lower.strip_prefix("cap_").unwrap_or(&lower);
        if let Some((name, reason)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
            return Err(CapabilityError::Refused(name, reason));
        }
        let found = KEPT.iter().find(|capability| capability.name == name).copied();
        found.ok_or_else(|| CapabilityError::Unknown(text.to_owned()))
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Capability {
    /// Its number in the kernel.
    pub(crate) fn number(self) -> u8 {
        self.number
    }

    /// Those that root has in a run whose set-user-id programs work.
    pub(crate) fn installing() -> impl Iterator<Item = Self> {
        KEPT.iter().filter(|kept| INSTALLING.contains(&kept.name)).copied()
    }

    /// What keeping it costs.
    pub fn cost(self) -> &'static str {
        self.cost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_undoes_a_run_is_never_kept() {
        assert_eq!("CAP_NET_RAW".parse::<Capability>().map(Capability::number), Ok(13));
        assert!(matches!("sys_admin".parse::<Capability>(), Err(CapabilityError::Refused("sys_admin", _))));
        assert!(matches!("mknod".parse::<Capability>(), Err(CapabilityError::Refused(..))));
        assert!(matches!("all".parse::<Capability>(), Err(CapabilityError::Unknown(_))));
        assert_eq!(Capability::installing().count(), INSTALLING.len());
        assert!(KEPT.iter().all(|kept| REFUSED.iter().all(|(refused, _)| *refused != kept.name)));
    }
}
