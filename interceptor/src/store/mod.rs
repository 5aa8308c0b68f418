//! Evidence: the journal, the chained segments, checkpoints, and the index that can be rebuilt.
//!
//! The proxy appends to the [`Journal`] through a [`Producer`]; the keeper's [`Writer`] carries entries to the
//! segments, which are the truth, and signs checkpoints; [`Reader`] answers people; [`verify()`] trusts nobody.
//! Nothing here decides what may be sent, and nothing here may change a line once it is synced.

pub mod bindings;
mod checkpoint;
pub mod docket;
pub mod glass;
mod index;
mod journal;
mod line;
pub mod packs;
mod reader;
mod recover;
mod request;
mod retention;
mod segment;
mod tree;
mod verify;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

pub use checkpoint::{Checkpoint, LogKey, NotALogKey, SignedCheckpoint, checkpoints};
pub use index::rebuild;
pub use journal::{DEFAULT_SIZE, Journal, JournalError, Limits, MINIMUM_SIZE, Producer, Receipt, Space};
pub use line::Line;
pub use reader::{Export, Filter, FullRecord, Reader};
pub use recover::RecoveryReport;
pub use request::{RequestHead, RequestRuling, Requests, Statement, What, Who};
pub use verify::{Fault, Proven, Report, verify, verify_since};
pub use writer::Writer;

/// Why the store could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file could not be used.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// There is no room for more evidence; requests are refused until there is.
    #[error("no space left below {0}: free disk space, or raise `total_bytes` or lower `retention`")]
    NoSpace(PathBuf),
    /// A file does not hold what it should.
    #[error("{path} is damaged: {why}; see `interceptor audit verify`")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How it shows.
        why: String,
    },
    /// The signing key is somebody else's too.
    #[error("{path} must belong to user {uid} with mode 0600: whoever reads it can forge checkpoints")]
    KeyExposed {
        /// The key's file.
        path: PathBuf,
        /// Who should own it.
        uid: u32,
    },
    /// Another keeper writes to this store.
    #[error("{0} is in use by another keeper")]
    InUse(PathBuf),
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The index failed; it can be rebuilt from the segments.
    #[error("the index failed; `interceptor audit reindex` rebuilds it")]
    Index(#[from] rusqlite::Error),
    /// An entry could not be turned into text or back.
    #[error("an entry could not be read or written as JSON")]
    Json(#[from] serde_json::Error),
}

impl StoreError {
    fn io(path: &Path, source: io::Error) -> Self {
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return Self::NoSpace(path.to_owned());
        }
        Self::Io { path: path.to_owned(), source }
    }

    fn damaged(path: &Path, why: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), why: why.into() }
    }
}

/// How soon after a group commit the next one begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// At once: permits wait for the disk.
    Prompt,
    /// After as long as the last one took: nobody waits, and a disk that is slow to sync does not take the processor
    /// from those who are served.
    Easy,
}

/// How the keeper's side behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// A segment is sealed when it is longer.
    pub segment_bytes: u64,
    /// Lines after which a checkpoint is signed.
    pub checkpoint_lines: u64,
    /// Time after which a checkpoint is signed when there are new lines.
    pub checkpoint_every: Duration,
    /// The least time between two group commits.
    pub commit_interval: Duration,
    /// Whether somebody waits for each.
    pub pace: Pace,
    /// Sealed segments are kept at least so long; for ever when `None`.
    pub retention: Option<Duration>,
    /// All segments together; beyond it requests are refused.
    pub total_bytes: u64,
    /// Free bytes of the disk below which an event warns.
    pub free_warn: u64,
    /// Free bytes of the disk below which requests are refused.
    pub free_refuse: u64,
}

impl Default for Config {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            segment_bytes: 64 * MIB,
            checkpoint_lines: 1000,
            checkpoint_every: Duration::from_secs(10),
            commit_interval: Duration::from_millis(1),
            pace: Pace::Prompt,
            retention: None,
            total_bytes: u64::MAX,
            free_warn: 1024 * MIB,
            free_refuse: 256 * MIB,
        }
    }
}

/// The names within the audit folder.
mod places {
    use std::path::{Path, PathBuf};

    pub(super) fn segments(dir: &Path) -> PathBuf {
        dir.join("segments")
    }
    pub(super) fn checkpoints(dir: &Path) -> PathBuf {
        dir.join("checkpoints")
    }
    pub(super) fn key(dir: &Path) -> PathBuf {
        dir.join("log.key")
    }
    pub(super) fn public_key(dir: &Path) -> PathBuf {
        dir.join("log.pub")
    }
    pub(super) fn index(dir: &Path) -> PathBuf {
        dir.join("index.sqlite")
    }
    pub(super) fn quarantine(dir: &Path) -> PathBuf {
        dir.join("quarantine")
    }
    pub(super) fn lock(dir: &Path) -> PathBuf {
        dir.join("lock")
    }
}

/// Microseconds of the Unix epoch, for the keeper's own entries.
fn now() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}
