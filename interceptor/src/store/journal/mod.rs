//! The journal: a preallocated file that the proxy (producer) and the keeper (consumer) both map. A published frame
//! is in the kernel's hands and outlives `kill -9` of either; the keeper carries it to the segments and syncs it.
//!
//! Promises: n entries are published by one store of `head`, all or none; sequence numbers never repeat; an outcome
//! always has room. The file is never sparse: a full disk cannot kill whoever writes to the mapping.
//! Nothing here knows policy, protocols or what the segments look like.

mod consumer;
mod futex;
mod producer;

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use memmap2::{MmapOptions, MmapRaw};
use nix::fcntl::{FallocateFlags, fallocate};

use super::request::check;

pub(super) use consumer::{Body, Consumer, Frame, Group};
pub use producer::{Limits, Producer, Receipt};

/// The ring's size where the configuration names none.
pub const DEFAULT_SIZE: u64 = 16 * 1024 * 1024;
/// The smallest ring that holds the reserves and still has room for work.
pub const MINIMUM_SIZE: u64 = 256 * 1024;

const PAGE: u64 = 4096;
const MAGIC: u64 = u64::from_le_bytes(*b"intcptrj");
const VERSION: u32 = 3;
/// Bytes before each payload.
pub(super) const FRAME_HEADER: u64 = 40;
/// No payload is shorter, so a ring of n bytes holds fewer than `n / SHORTEST_FRAME` entries.
const SHORTEST_FRAME: u64 = FRAME_HEADER + 32;
/// Room kept for the outcome of each open request; outcomes are cut to fit.
const OUTCOME_ROOM: u64 = 1024;
/// Room that requests cannot take: for events and for the mark of a new producer.
const EVENT_ROOM: u64 = 64 * 1024;

/// Places in the header page. Producer's and consumer's words stand on cache lines of their own.
mod at {
    pub(super) const MAGIC: usize = 0;
    pub(super) const VERSION: usize = 8;
    pub(super) const CAPACITY: usize = 16;
    /// Where the producer's next byte goes. Grows for ever; modulo the capacity it is an offset in the ring.
    pub(super) const HEAD: usize = 64;
    /// Grows with each producer and each reset: frames of an earlier epoch are dead.
    pub(super) const EPOCH: usize = 128;
    /// All before this place is synced to the segments.
    pub(super) const TAIL: usize = 192;
    /// The last sequence number that is synced, or skipped.
    pub(super) const BASE: usize = 200;
    /// [`super::Space`] as the keeper sees it.
    pub(super) const SPACE: usize = 208;
    /// 1 while the keeper sleeps: a futex.
    pub(super) const SLEEPING: usize = 256;
    /// The boot in which the journal was last used: a tag of the kernel's boot id, or 1 after a stop in good order.
    pub(super) const BOOT: usize = 320;
}

/// Why the journal cannot be used, or took no entry. Each is a refusal for the exchange that waits for it.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The keeper has fallen behind.
    #[error("the journal is full: the keeper is behind or stopped; see `interceptor status`")]
    Full,
    /// One exchange's entries are longer than the ring may hold at once.
    #[error(
        "a record of {0} bytes is longer than the journal takes; raise the journal's size, or send less at once"
    )]
    TooLarge(u64),
    /// The run has more statements under way than there may be at once.
    #[error("run {run} has {most} statements under way: wait for some to end, or raise the journal's size")]
    Owing {
        /// The run.
        run: interceptor_core::model::RunId,
        /// How many it may have.
        most: u64,
    },
    /// The run has used up its share of the store.
    #[error("run {run} has used its {limit} bytes of the store; raise `run_bytes` or start a new run")]
    Quota {
        /// The run.
        run: interceptor_core::model::RunId,
        /// Its share.
        limit: u64,
    },
    /// The keeper asked for no more requests.
    #[error("the store has no space left: free disk space or raise `total_bytes`")]
    NoSpace,
    /// Another producer, or the keeper, has taken over.
    #[error("this producer was superseded; attach to the journal again")]
    Superseded,
    /// An outcome for a request that is not open: never made here, or already ended.
    #[error("request {0} is not open")]
    NotOpen(interceptor_core::model::RecordId),
    /// The file is not a journal, or was changed by something that is not ours.
    #[error("the journal is damaged: {0}; the keeper sets it aside and makes a new one when it starts")]
    Damaged(String),
    /// An entry could not be turned into text.
    #[error("an entry could not be written as JSON")]
    Json(#[from] serde_json::Error),
    /// The operating system refused.
    #[error("the journal failed")]
    Io(#[from] io::Error),
}

impl JournalError {
    /// Whether waiting may help: the keeper takes entries away, and the run's own statements end.
    pub fn passes(&self) -> bool {
        matches!(self, Self::Full | Self::Owing { .. })
    }
}

/// What the keeper tells producers about room in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Enough.
    Enough,
    /// Little: operators were warned.
    Low,
    /// Requests are refused; outcomes and events still go through.
    Refuse,
}

#[derive(Debug)]
struct Map {
    raw: MmapRaw,
    capacity: u64,
}

/// A mapped journal. Clones share the mapping.
#[derive(Debug, Clone)]
pub struct Journal {
    map: Arc<Map>,
    file: Arc<File>,
}

impl Journal {
    /// Makes a new journal at `path` with a ring of `size` bytes, all of it allocated and written.
    pub fn create(path: &Path, size: u64) -> Result<Self, JournalError> {
        let temporary = path.with_extension("new");
        let _ = std::fs::remove_file(&temporary);
        let made = Self::create_at(&temporary, size.max(MINIMUM_SIZE));
        if made.is_err() {
            // The error that counts is the one from making it.
            let _ = std::fs::remove_file(&temporary);
        }
        let journal = made?;
        std::fs::rename(&temporary, path)?;
        if let Some(parent) = path.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(journal)
    }

    fn create_at(path: &Path, size: u64) -> Result<Self, JournalError> {
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        let length = i64::try_from(size.saturating_add(PAGE))
            .map_err(|_| JournalError::Damaged(format!("a size of {size} bytes is not possible")))?;
        fallocate(&file, FallocateFlags::empty(), 0, length).map_err(io::Error::from)?;
        // Allocated extents still need conversion at the first write, which may want metadata space: write them now.
        let zeros = vec![0; 1 << 16];
        let mut left = size + PAGE;
        while left > 0 {
            let part = zeros.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            file.write_all(zeros.get(..part).unwrap_or_default())?;
            left -= part as u64;
        }
        let map = Map::new(&file, size)?;
        map.word32(at::VERSION).store(VERSION, Ordering::Relaxed);
        map.word(at::CAPACITY).store(size, Ordering::Relaxed);
        map.word(at::MAGIC).store(MAGIC, Ordering::Release);
        file.sync_all()?;
        Ok(Self { map: Arc::new(map), file: Arc::new(file) })
    }

    /// Maps a journal from its descriptor, such as one that came over a socket.
    pub fn from_fd(descriptor: OwnedFd) -> Result<Self, JournalError> {
        Self::from_file(File::from(descriptor))
    }

    /// Opens the journal at `path`.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        Self::from_file(OpenOptions::new().read(true).write(true).open(path)?)
    }

    /// Opens the journal at `path`, or makes one. A damaged one is set aside as `<path>.damaged`; the keeper's
    /// recovery then sees a fresh journal and skips the numbers that the damaged one may have given out.
    pub fn open_or_create(path: &Path, size: u64) -> Result<Self, JournalError> {
        match Self::open(path) {
            Err(JournalError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                Self::create(path, size)
            }
            Err(JournalError::Damaged(_)) => {
                std::fs::rename(path, path.with_extension("damaged"))?;
                Self::create(path, size)
            }
            other => other,
        }
    }

    fn from_file(file: File) -> Result<Self, JournalError> {
        let length = file.metadata()?.len();
        let size = length.checked_sub(PAGE).filter(|size| *size >= MINIMUM_SIZE);
        let size = size.ok_or_else(|| JournalError::Damaged(format!("it is only {length} bytes long")))?;
        let map = Map::new(&file, size)?;
        let known = map.word(at::MAGIC).load(Ordering::Acquire) == MAGIC
            && map.word32(at::VERSION).load(Ordering::Relaxed) == VERSION
            && map.word(at::CAPACITY).load(Ordering::Relaxed) == size;
        if !known {
            return Err(JournalError::Damaged("its header is not one of this version".to_owned()));
        }
        Ok(Self { map: Arc::new(map), file: Arc::new(file) })
    }

    /// The last sequence number that is on disk (or was skipped).
    pub fn synced(&self) -> u64 {
        self.map.word(at::BASE).load(Ordering::Acquire)
    }

    /// The ring's size in bytes.
    pub fn capacity(&self) -> u64 {
        self.map.capacity
    }

    /// More numbers than the ring can have given out without the keeper's having synced them.
    pub(super) fn most_entries(&self) -> u64 {
        self.map.capacity / SHORTEST_FRAME + 1
    }
}

impl AsFd for Journal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Map {
    fn new(file: &File, capacity: u64) -> Result<Self, JournalError> {
        let length = usize::try_from(capacity.saturating_add(PAGE))
            .map_err(|_| JournalError::Damaged("it is too long to map".to_owned()))?;
        Ok(Self { raw: MmapOptions::new().len(length).map_raw(file)?, capacity })
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: every offset is a constant of `at`, 8-byte aligned and within the header page, which is mapped
        // for as long as `self` lives; the word is only ever touched as an atomic, by either process.
        unsafe { AtomicU64::from_ptr(self.raw.as_mut_ptr().add(offset).cast()) }
    }

    fn word32(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as in `word`.
        unsafe { AtomicU32::from_ptr(self.raw.as_mut_ptr().add(offset).cast()) }
    }

    /// Copies `bytes` into the ring from place `position`, around the end where it must.
    fn put(&self, position: u64, bytes: &[u8]) {
        let offset = position % self.capacity;
        let room = usize::try_from(self.capacity - offset).unwrap_or(usize::MAX);
        let (first, rest) = bytes.split_at(bytes.len().min(room));
        debug_assert!(rest.len() as u64 <= offset);
        for (start, part) in [(offset, first), (0, rest)] {
            // SAFETY: `start + part.len()` is at most `capacity`, and the mapping is `PAGE + capacity` bytes. The
            // bytes lie outside `[tail, head)`: no reader looks at them before `head` is stored, and this process
            // has one writer, behind the producer's lock.
            unsafe {
                let to = self.raw.as_mut_ptr().add(PAGE as usize + start as usize);
                std::ptr::copy_nonoverlapping(part.as_ptr(), to, part.len());
            }
        }
    }
}

/// What an entry's frame is, in the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    /// A producer begins; the number is its first one.
    Attach = 1,
    Request = 2,
    Outcome = 3,
    Event = 4,
}

impl Kind {
    fn from_u32(number: u32) -> Option<Self> {
        [Self::Attach, Self::Request, Self::Outcome, Self::Event].into_iter().find(|k| *k as u32 == number)
    }
}

/// The bytes before a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FrameHeader {
    length: u32,
    kind: u32,
    seq: u64,
    epoch: u64,
    check: u64,
    /// How much of the payload is the head that a session's requests share; 0 but in requests.
    head: u32,
    /// How much behind it is the ruling; 0 but in requests.
    ruling: u32,
}

impl FrameHeader {
    /// Spreads the other fields over 64 bits. The check finds accidents (pages lost with the power), not malice.
    fn mix(&self) -> u64 {
        let fields = (u64::from(self.length) << 32) | u64::from(self.kind);
        let parts = (u64::from(self.ruling) << 32) | u64::from(self.head);
        [fields, self.seq, self.epoch, parts]
            .into_iter()
            .fold(MAGIC, |sum, field| (sum ^ field).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29))
    }

    fn to_bytes(self) -> [u8; FRAME_HEADER as usize] {
        let mut bytes = [0; FRAME_HEADER as usize];
        bytes[..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.kind.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.seq.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.check.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.head.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.ruling.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
        let half = |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        Some(Self {
            length: half(0)?,
            kind: half(4)?,
            seq: word(8)?,
            epoch: word(16)?,
            check: word(24)?,
            head: half(32)?,
            ruling: half(36)?,
        })
    }
}

/// A tag of this boot of the kernel; never 0 or 1.
pub(super) fn boot_tag() -> io::Result<u64> {
    let id = std::fs::read("/proc/sys/kernel/random/boot_id")?;
    Ok(check([id.as_slice()]) | 2)
}
