//! Opening the store: finds the chain's end, cuts an unsynced end, and takes what the journal still holds.
//! A segment that was cut behind a signed checkpoint is never repaired: the keeper refuses to start on it.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    time::Instant,
};

use interceptor_core::model::{Entry, EventKind, RecordId, RunId};
use nix::fcntl::{Flock, FlockArg};

use super::{
    Config, Journal, Space, StoreError, Writer,
    checkpoint::{Checkpoint, LogKey, Signing, notes},
    index::IndexThread,
    journal::{Consumer, FRAME_HEADER, Group},
    line::{self, ChainHash, Header, Open, Parsed},
    places,
    segment::{self, ChainEnd, Lines},
    tree::Tree,
    writer::{header, save},
};

/// What opening the store found and mended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecoveryReport {
    /// The store's id.
    pub store: String,
    /// The last sequence number on disk before the journal was drained.
    pub last_seq: u64,
    /// Entries that the journal still held.
    pub replayed: usize,
    /// Bytes of an unsynced end that were cut.
    pub cut: u64,
    /// Where an unreadable end was saved.
    pub saved: Option<String>,
    /// Requests without an outcome: their producer may still live.
    pub open_requests: usize,
    /// Whether numbers were skipped, because entries may have been lost with the power.
    pub skipped: bool,
}

/// The last segment, read back.
struct Last {
    store: String,
    number: u64,
    length: u64,
    /// Bytes behind the last good line, and whether they are more than a torn line.
    rest: u64,
    suspicious: bool,
    end: ChainEnd,
    open: BTreeMap<RecordId, Open>,
    used: HashMap<RunId, u64>,
}

impl Writer {
    /// Opens the store at `dir`, or makes one, and drains `journal` into it. The folder and all in it belong to the
    /// caller's user; the key is its alone.
    pub fn open(dir: &Path, journal: &Journal, config: Config) -> Result<(Self, RecoveryReport), StoreError> {
        let folder = places::segments(dir);
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o750).create(&folder).map_err(|e| StoreError::io(&folder, e))?;
        let lock = lock(dir)?;
        let last = find_last(dir)?;
        let (last, fresh) = match last {
            Some(last) => (last, false),
            None => (begin_store(dir)?, true),
        };
        let signing = Signing::open_or_create(&places::key(dir), &format!("interceptor/{}", last.store))?;
        let signed = mend_checkpoints(dir, &signing.public())?;
        if signed > last.end.tree.size() {
            let why = format!("a checkpoint covers {signed} lines, and there are {}", last.end.tree.size());
            return Err(StoreError::damaged(&segment::path(dir, last.number), why));
        }
        write_public_key(dir, &signing.public())?;
        let (file, saved) = cut(dir, &last)?;
        let report = RecoveryReport {
            store: last.store.clone(),
            last_seq: last.end.seq,
            cut: last.rest,
            saved,
            ..RecoveryReport::default()
        };
        let writer = Self {
            dir: dir.to_owned(),
            config,
            store: last.store,
            signing,
            consumer: Consumer::new(journal),
            file,
            segment: last.number,
            length: last.length,
            end: last.end,
            open: last.open,
            used: last.used,
            group: Group::default(),
            line: Vec::new(),
            out: Vec::new(),
            taken: 0,
            replaying: true,
            signed,
            signed_at: Instant::now(),
            space: Space::Enough,
            looked_at: None,
            index: None,
            _lock: lock,
        };
        writer.recover(report, fresh)
    }

    fn recover(
        mut self,
        mut report: RecoveryReport,
        fresh: bool,
    ) -> Result<(Self, RecoveryReport), StoreError> {
        let whole = self.consumer.begin()? || fresh;
        if let Some(saved) = &report.saved {
            let text = format!("the last segment's end could not be read; it was cut and kept as {saved}");
            self.own_event(EventKind::Recovered, text, None)?;
        }
        loop {
            match self.drain()? {
                0 => break,
                count => report.replayed += count,
            }
        }
        if !whole {
            // Numbers that were given out, and perhaps told to an agent, must not come again.
            let skipped = self.end.seq.saturating_add(self.consumer.journal().most_entries());
            let text = "the host or the journal was lost; the last entries may be missing".to_owned();
            self.own_event(EventKind::Recovered, text, Some(skipped))?;
            self.flush()?;
            self.consumer.reset(skipped);
            report.skipped = true;
        } else if self.consumer.journal().synced() < self.end.seq {
            self.consumer.taken(0, self.end.seq);
        }
        self.flush()?;
        report.open_requests = self.open.len();
        self.index = Some(IndexThread::start(&self.dir));
        Ok((self, report))
    }
}

fn lock(dir: &Path) -> Result<Flock<File>, StoreError> {
    let path = places::lock(dir);
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(|e| StoreError::io(&path, e))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| StoreError::InUse(dir.to_owned()))
}

fn begin_store(dir: &Path) -> Result<Last, StoreError> {
    let mut id = [0; 8];
    getrandom::fill(&mut id).map_err(|e| StoreError::io(dir, io::Error::other(e.to_string())))?;
    let store = hex::encode(id);
    let (end, bytes) = header(&store, 1, &ChainEnd::empty(), [].iter(), Vec::new())?;
    segment::create(dir, 1, &bytes)?;
    Ok(Last {
        store,
        number: 1,
        length: bytes.len() as u64,
        rest: 0,
        suspicious: false,
        end,
        open: BTreeMap::new(),
        used: HashMap::new(),
    })
}

/// Reads the last segment that has a whole header line; one that has none was being made, and is removed.
fn find_last(dir: &Path) -> Result<Option<Last>, StoreError> {
    for (number, path) in segment::list(dir)?.into_iter().rev() {
        if let Some(last) = read_last(&path, number)? {
            return Ok(Some(last));
        }
        std::fs::remove_file(&path).map_err(|e| StoreError::io(&path, e))?;
    }
    Ok(None)
}

fn read_last(path: &Path, number: u64) -> Result<Option<Last>, StoreError> {
    let size = std::fs::metadata(path).map_err(|e| StoreError::io(path, e))?.len();
    let mut lines = Lines::open(path, 0)?;
    let Some(first) = lines.next()?.filter(|line| line.whole) else { return Ok(None) };
    let damaged = || StoreError::damaged(path, "its first line is no segment header");
    let (hash, json) = line::split(first.bytes).ok_or_else(damaged)?;
    let Ok(Parsed::Header(header)) = line::parse(json) else { return Err(damaged()) };
    let mut end = before(&header).ok_or_else(damaged)?;
    if !end.follow(hash, json) || header.segment != number {
        return Err(damaged());
    }
    let mut last = Last {
        store: header.store,
        number,
        length: first.bytes.len() as u64 + 1,
        rest: 0,
        suspicious: false,
        end,
        open: header.open.iter().map(|open| (open.id, *open)).collect(),
        used: header.used.into_iter().collect(),
    };
    while let Some(found) = lines.next()? {
        if !found.whole {
            break;
        }
        if !last.follow(found.bytes) {
            last.suspicious = true;
            break;
        }
        last.length += found.bytes.len() as u64 + 1;
    }
    last.rest = size.saturating_sub(last.length);
    Ok(Some(last))
}

/// The chain's end before the segment that `header` opens.
pub(super) fn before(header: &Header) -> Option<ChainEnd> {
    let hash = header.previous.as_bytes().try_into().ok().map(ChainHash)?;
    let tree = Tree::from_peaks(header.lines, &header.tree)?;
    Some(ChainEnd { hash, seq: header.after_seq, sub: header.after_sub, tree })
}

impl Last {
    /// Takes the next line; `false` when it is not one.
    fn follow(&mut self, bytes: &[u8]) -> bool {
        let Some((hash, json)) = line::split(bytes) else { return false };
        let Ok(Parsed::Line(line)) = line::parse(json) else { return false };
        if self.end.hash.then(json) != hash {
            return false;
        }
        self.end.follow(hash, json);
        (self.end.seq, self.end.sub) = line.skipped.map_or((line.seq, line.sub), |skipped| (skipped, 0));
        // What the frame was in the journal, nearly.
        let size = json.len() as u64 + FRAME_HEADER;
        match line.entry {
            Entry::Request(request) => {
                let id = RecordId(line.seq);
                self.open.insert(id, Open { id, allowed: request.verdict.allowed, run: request.run });
                *self.used.entry(request.run).or_default() += size;
            }
            Entry::Outcome(outcome) => {
                if let Some(open) = self.open.remove(&outcome.request) {
                    *self.used.entry(open.run).or_default() += size;
                }
            }
            Entry::Event(event) if event.kind == EventKind::RunEnded => {
                event.run.map(|run| self.used.remove(&run));
            }
            Entry::Event(_) => {}
        }
        true
    }
}

/// Cuts what is behind the last good line. What is more than a torn line is saved first.
fn cut(dir: &Path, last: &Last) -> Result<(File, Option<String>), StoreError> {
    let path = segment::path(dir, last.number);
    let open = || OpenOptions::new().read(true).write(true).open(&path);
    let file = open().map_err(|e| StoreError::io(&path, e))?;
    let mut saved = None;
    if last.rest > 0 {
        if last.suspicious {
            let bytes = std::fs::read(&path).map_err(|e| StoreError::io(&path, e))?;
            let start = usize::try_from(last.length).unwrap_or(usize::MAX);
            saved = Some(save(dir, "segment", bytes.get(start..).unwrap_or_default())?);
        }
        let cut = file.set_len(last.length).and_then(|()| file.sync_all());
        cut.map_err(|e| StoreError::io(&path, e))?;
    }
    Ok((file, saved))
}

/// Cuts a torn note off the checkpoints, and gives how many lines the newest one covers.
fn mend_checkpoints(dir: &Path, key: &LogKey) -> Result<u64, StoreError> {
    let path = places::checkpoints(dir);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(StoreError::io(&path, error)),
    };
    // Each note has two empty lines: within, and behind it.
    let ends: Vec<_> = text.match_indices("\n\n").map(|(at, gap)| at + gap.len()).collect();
    let whole = ends.chunks_exact(2).last().and_then(|pair| pair.last()).copied().unwrap_or(0);
    if whole < text.len() {
        let file = OpenOptions::new().write(true).open(&path).map_err(|e| StoreError::io(&path, e))?;
        file.set_len(whole as u64).and_then(|()| file.sync_all()).map_err(|e| StoreError::io(&path, e))?;
    }
    match notes(text.get(..whole).unwrap_or_default()).last() {
        None => Ok(0),
        Some(note) => Checkpoint::verify(note, key)
            .map(|checkpoint| checkpoint.size)
            .ok_or_else(|| StoreError::damaged(&path, "its newest checkpoint is not signed by log.key")),
    }
}

fn write_public_key(dir: &Path, key: &LogKey) -> Result<(), StoreError> {
    let path = places::public_key(dir);
    let text = format!("{key}\n");
    if std::fs::read_to_string(&path).is_ok_and(|found| found == text) {
        return Ok(());
    }
    std::fs::write(&path, text).map_err(|e| StoreError::io(&path, e))
}
