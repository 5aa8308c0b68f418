//! Who is acting: processes as the kernel saw them, and the run and agent they belong to.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{AgentName, RunId};

/// SHA-256 of an executable file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ExecutableDigest(pub [u8; 32]);

impl fmt::Display for ExecutableDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ExecutableDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<ExecutableDigest> for String {
    fn from(digest: ExecutableDigest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for ExecutableDigest {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let bytes = text.as_bytes();
        let mut digest = [0; 32];
        if bytes.len() != 64 || !text.is_ascii() {
            return Err(format!("{text:?} is not a SHA-256 digest"));
        }
        for (slot, pair) in digest.iter_mut().zip(bytes.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|e| e.to_string())?;
            *slot = u8::from_str_radix(pair, 16).map_err(|e| e.to_string())?;
        }
        Ok(Self(digest))
    }
}

/// One process, as recorded by the kernel at fork and exec. Executable and argv are hints: an interpreter is
/// everybody's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessFacts {
    /// Thread group id in the host's pid namespace.
    pub pid: u32,
    /// Nanoseconds since boot, from `task_struct`; with `pid` it names one process for ever.
    pub start_time: u64,
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// The path of the executable, where it could be read.
    pub executable: Option<String>,
    /// SHA-256 of the executable, where it could be read in time.
    pub digest: Option<ExecutableDigest>,
    /// The argument vector at exec, cut at the kernel's limit.
    pub argv: Vec<String>,
    /// Parent first, up to the run's first process.
    pub ancestry: Vec<Ancestor>,
    /// The cgroup that the process was in when it connected.
    pub cgroup: String,
    /// Whether any of this was read after the connection was accepted rather than at connect time.
    pub late: bool,
    /// Whom it descends from. None where not every fork and exec in between was seen.
    #[serde(skip)]
    pub descent: Option<Descent>,
}

/// From which process one descends that was there when its run was captured, and by way of which programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descent {
    /// Thread group id of that process, in the host's pid namespace.
    pub pid: u32,
    /// When that started, in nanoseconds since boot.
    pub start_time: u64,
    /// Every program that was executed since by the process and by those in between, as its path was given; also those
    /// that another has taken the place of.
    pub programs: Vec<String>,
}

impl ProcessFacts {
    /// The same with nothing but the names of programs, for where their arguments may have values that are masked.
    #[must_use]
    pub fn without_arguments(mut self) -> Self {
        let all = self.ancestry.iter_mut().map(|above| &mut above.argv).chain([&mut self.argv]);
        for argv in all.filter(|argv| argv.len() > 1) {
            argv.truncate(1);
            argv.push("[masked]".to_owned());
        }
        self
    }
}

/// A process above another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ancestor {
    /// Thread group id in the host's pid namespace.
    pub pid: u32,
    /// Nanoseconds since boot.
    pub start_time: u64,
    /// The path of the executable, where it is known.
    pub executable: Option<String>,
    /// The argument vector at exec.
    pub argv: Vec<String>,
}

/// How strongly a run is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guarantee {
    /// An empty network namespace: without our kernel programs there is no network at all.
    Structural,
    /// The host's network behind our kernel programs.
    Enforced,
    /// Seen, but not held back.
    Observed,
}

/// Whether a verdict is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// A denial is a refusal.
    Enforce,
    /// Everything is forwarded and the verdict that would have been is recorded.
    Observe,
}

/// Who an agent is, resolved once at capture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentIdentity {
    /// The agent's name, or `unknown`.
    pub name: AgentName,
    /// The person answerable for it.
    pub owner: Option<String>,
    /// Groups that policy may name.
    pub groups: Vec<String>,
}

/// One captured process tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The run's id.
    pub id: RunId,
    /// Who it is.
    pub agent: AgentIdentity,
    /// The cgroup directory, from the cgroup2 root.
    pub cgroup: String,
    /// How strongly it is captured.
    pub guarantee: Guarantee,
    /// Whether its verdicts are carried out.
    pub mode: Mode,
    /// Verified claims about the launch (`launcher_uid`, `launcher_user`): what policy may read besides the name.
    pub claims: BTreeMap<String, String>,
    /// Since when, in microseconds of the Unix epoch.
    pub started_at: i64,
}
