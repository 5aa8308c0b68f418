//! The keeper's side: drains the journal, chains its entries into the segment, syncs them in groups, signs
//! checkpoints, and only then tells the proxy how far it came.
//!
//! What could not be written stays in memory and in the journal until it can; meanwhile the journal fills up and the
//! proxy refuses.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use interceptor_core::model::{Entry, EventKind, EventRecord, OutcomeRecord, OutcomeStatus, RecordId, RunId};
use nix::fcntl::Flock;

use super::{
    Config, JournalError, Pace, Space, StoreError,
    checkpoint::{LogKey, Signing},
    index::IndexThread,
    journal::{Body, Consumer, Frame, Group},
    line::{self, Header, Line, Open, SegmentTag},
    now, places,
    segment::{self, ChainEnd},
};

/// How long the keeper sleeps at most: what it looks after by the clock waits no longer.
const IDLE: Duration = Duration::from_millis(100);
/// How often in a row it looks by its own clock, each after the time between two commits, before it sleeps until it is
/// woken: about as long as it sleeps.
const LOOKS: u32 = 100;
/// How long it rests at most between two commits.
const LONGEST_REST: Duration = Duration::from_millis(20);
/// How long it waits before it tries again to write.
const RETRY: Duration = Duration::from_millis(250);
/// How many damaged pieces are kept for inspection.
const MOST_QUARANTINED: usize = 16;

/// Writes the store. There is one, in the keeper.
pub struct Writer {
    pub(super) dir: PathBuf,
    pub(super) config: Config,
    pub(super) store: String,
    pub(super) signing: Signing,
    pub(super) consumer: Consumer,
    pub(super) file: File,
    pub(super) segment: u64,
    pub(super) length: u64,
    pub(super) end: ChainEnd,
    pub(super) open: BTreeMap<RecordId, Open>,
    pub(super) used: HashMap<RunId, u64>,
    /// What was copied out of the journal, and the line that is being made: kept for their room.
    pub(super) group: Group,
    pub(super) line: Vec<u8>,
    /// Lines that are chained but not yet in the file.
    pub(super) out: Vec<u8>,
    /// Bytes of the journal that `out` (and skipped replays) came from.
    pub(super) taken: u64,
    /// Until the first new entry, entries that are in the segments already are passed over.
    pub(super) replaying: bool,
    /// Lines that the newest checkpoint covers.
    pub(super) signed: u64,
    pub(super) signed_at: Instant,
    pub(super) space: Space,
    pub(super) looked_at: Option<Instant>,
    pub(super) index: Option<IndexThread>,
    /// Held for as long as this is the keeper.
    pub(super) _lock: Flock<File>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("dir", &self.dir).field("seq", &self.end.seq).finish_non_exhaustive()
    }
}

impl Writer {
    /// Carries everything that is published to the segments, syncs it, and gives the number of frames. Damaged
    /// frames are set aside, an event says so, and the producer must attach again.
    pub fn drain(&mut self) -> Result<usize, StoreError> {
        self.flush()?;
        let mut group = std::mem::take(&mut self.group);
        let drained = self.drain_into(&mut group);
        self.group = group;
        drained
    }

    fn drain_into(&mut self, group: &mut Group) -> Result<usize, StoreError> {
        let mut count = 0;
        let mut more = self.consumer.read(group);
        loop {
            // The good ones are taken first; the bad one is then the first.
            let why = match more.and_then(|more| if more { self.consumer.next(group) } else { Ok(None) }) {
                Ok(None) => break,
                Ok(Some(frame)) => match self.take(frame)? {
                    Ok(()) => {
                        count += 1;
                        more = Ok(true);
                        continue;
                    }
                    Err(why) => why,
                },
                Err(JournalError::Damaged(why)) => why,
                Err(error) => return Err(error.into()),
            };
            self.flush()?;
            return self.quarantine(&why).map(|()| count);
        }
        self.flush()?;
        Ok(count)
    }

    /// Drains until `stop`, signs, watches the disk, and stops in good order. Only an error that cannot be waited out
    /// ends it early.
    pub fn run(mut self, stop: &AtomicBool) -> Result<(), StoreError> {
        let mut looks = 0;
        while !stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            match self.drain().and_then(|count| self.look_after().map(|()| count)) {
                Ok(0) => {
                    self.wait(looks);
                    looks = 0;
                }
                Ok(_) => {
                    looks = self.looks();
                    thread::sleep(self.rest(began.elapsed()));
                }
                Err(error @ (StoreError::NoSpace(_) | StoreError::Io { .. })) => {
                    tracing::error!(%error, "records cannot be written; requests are refused until they can");
                    thread::sleep(RETRY);
                }
                Err(error) => return Err(error),
            }
        }
        self.close()
    }

    /// How often to look for entries, by its own clock, once there were some.
    fn looks(&self) -> u32 {
        match self.config.pace {
            Pace::Prompt => 0,
            // To wake somebody takes longer than to judge a statement, most of all where another processor has to be
            // woken with it: whoever is served while there is work does not have to.
            Pace::Easy => LOOKS,
        }
    }

    /// Waits for entries: looks so often, or sleeps until it is woken where it is not to look.
    fn wait(&self, looks: u32) {
        if looks == 0 {
            return self.consumer.sleep(IDLE);
        }
        for _ in 0..looks {
            thread::sleep(self.config.commit_interval);
            if !self.consumer.is_drained() {
                return;
            }
        }
    }

    /// How long to wait after a commit that took so long.
    fn rest(&self, took: Duration) -> Duration {
        let least = self.config.commit_interval.saturating_sub(took);
        match self.config.pace {
            Pace::Prompt => least,
            // A disk that hangs must not make the journal run full.
            Pace::Easy => least.max(took.min(LONGEST_REST)),
        }
    }

    /// Writes what is left, signs it, and marks the journal as stopped in good order. The producer should be gone.
    pub fn close(mut self) -> Result<(), StoreError> {
        while self.drain()? > 0 {}
        self.sign()?;
        Ok(self.consumer.end()?)
    }

    /// Records an event of the keeper's own.
    pub fn note(&mut self, event: EventRecord) -> Result<(), StoreError> {
        self.flush()?;
        self.own(Entry::Event(event), None, None)?;
        self.flush()
    }

    /// Bytes that each run not yet ended has written: what a new producer starts its quotas with.
    pub fn usage(&self) -> Vec<(RunId, u64)> {
        self.used.iter().map(|(run, bytes)| (*run, *bytes)).collect()
    }

    /// The public key that verifies this store.
    pub fn public_key(&self) -> LogKey {
        self.signing.public()
    }

    /// The newest sequence number that is on disk.
    pub fn last_seq(&self) -> u64 {
        self.end.seq
    }

    /// Chains one frame. The inner error is the producer's fault.
    fn take(&mut self, frame: Frame<'_>) -> Result<Result<(), String>, StoreError> {
        if let Body::Attach = frame.body {
            if frame.seq > self.end.seq + 1 {
                return Ok(Err(format!("a producer begins at {}, after {}", frame.seq, self.end.seq)));
            }
            self.end_open_before(frame.seq)?;
        } else if self.replaying && frame.seq <= self.end.seq {
            // Written before the last keeper died, and not yet said to be.
        } else if frame.seq != self.end.seq + 1 {
            return Ok(Err(format!("entry {} came after {}", frame.seq, self.end.seq)));
        } else {
            self.replaying = false;
            if let Err(why) = self.account(&frame) {
                return Ok(Err(why));
            }
            self.line.clear();
            if line::write(frame.seq, &frame.body, &mut self.line).is_none() {
                return Ok(Err(format!("entry {} has no text", frame.seq)));
            }
            (self.end.seq, self.end.sub) = (frame.seq, 0);
            self.end.append(&self.line, &mut self.out);
        }
        self.taken += frame.size;
        Ok(Ok(()))
    }

    /// Keeps the open requests and the runs' use up to date.
    fn account(&mut self, frame: &Frame<'_>) -> Result<(), String> {
        let run = match frame.body {
            Body::Request { run, allowed, .. } => {
                let id = RecordId(frame.seq);
                self.open.insert(id, Open { id, allowed, run });
                run
            }
            Body::Outcome { request, .. } => match self.open.remove(&request) {
                Some(open) => open.run,
                None => {
                    return Err(format!("entry {} ends request {request}, which is not open", frame.seq));
                }
            },
            Body::Event { run, kind, .. } => {
                if let (Some(run), EventKind::RunEnded) = (run, kind) {
                    self.used.remove(&run);
                }
                return Ok(());
            }
            Body::Attach => return Ok(()),
        };
        *self.used.entry(run).or_default() += frame.size;
        Ok(())
    }

    /// Ends what a dead producer left open.
    fn end_open_before(&mut self, first: u64) -> Result<(), StoreError> {
        let live = self.open.split_off(&RecordId(first));
        for open in std::mem::replace(&mut self.open, live).into_values() {
            let status = if open.allowed { OutcomeStatus::Unknown } else { OutcomeStatus::Refused };
            let outcome = OutcomeRecord {
                at: now(),
                request: open.id,
                status,
                rows: None,
                bytes: 0,
                latency_us: None,
                code: None,
                message: None,
                recorded: None,
            };
            self.own(Entry::Outcome(outcome), None, None)?;
        }
        Ok(())
    }

    /// Chains an entry of the keeper's own.
    pub(super) fn own(
        &mut self,
        entry: Entry,
        skipped: Option<u64>,
        first_segment: Option<u64>,
    ) -> Result<(), StoreError> {
        self.end.sub += 1;
        self.chain(&Line { seq: self.end.seq, sub: self.end.sub, skipped, first_segment, entry })?;
        if let Some(skipped) = skipped {
            (self.end.seq, self.end.sub) = (skipped, 0);
        }
        Ok(())
    }

    pub(super) fn own_event(
        &mut self,
        kind: EventKind,
        text: String,
        skipped: Option<u64>,
    ) -> Result<(), StoreError> {
        self.own(
            Entry::Event(EventRecord { at: now(), run: None, agent: None, kind, text, attempt: None }),
            skipped,
            None,
        )
    }

    fn chain(&mut self, line: &Line) -> Result<(), StoreError> {
        self.end.append(&serde_json::to_vec(line)?, &mut self.out);
        Ok(())
    }

    /// Writes and syncs what is chained, tells the producer, seals and signs when it is time.
    pub(super) fn flush(&mut self) -> Result<(), StoreError> {
        if !self.out.is_empty() {
            let written = self.file.write_all_at(&self.out, self.length).and_then(|()| self.file.sync_data());
            if let Err(error) = written {
                self.set_space(Space::Refuse);
                // All of it is written again: after a failed sync the kernel may have dropped any page of it.
                let _ = self.file.set_len(self.length);
                return Err(StoreError::io(&segment::path(&self.dir, self.segment), error));
            }
            self.length += self.out.len() as u64;
            self.out.clear();
        }
        if self.taken > 0 {
            self.consumer.taken(self.taken, self.end.seq);
            self.taken = 0;
        }
        if self.length >= self.config.segment_bytes {
            self.seal()?;
        }
        if self.end.tree.size() - self.signed >= self.config.checkpoint_lines {
            self.sign()?;
        }
        if let Some(index) = &self.index {
            index.wake();
        }
        Ok(())
    }

    /// Signs the segment's end and begins the next.
    fn seal(&mut self) -> Result<(), StoreError> {
        self.sign()?;
        let used = self.usage();
        let (end, bytes) = header(&self.store, self.segment + 1, &self.end, self.open.values(), used)?;
        self.file = segment::create(&self.dir, self.segment + 1, &bytes)?;
        self.segment += 1;
        (self.end, self.length) = (end, bytes.len() as u64);
        Ok(())
    }

    /// Signs a checkpoint over all synced lines, unless there is one.
    pub(super) fn sign(&mut self) -> Result<(), StoreError> {
        if self.end.tree.size() == self.signed || !self.out.is_empty() {
            return Ok(());
        }
        let path = places::checkpoints(&self.dir);
        let note = self.signing.sign(self.end.tree.size(), &self.end.tree.root()) + "\n";
        let append = || {
            let mut file = OpenOptions::new().append(true).create(true).mode(0o640).open(&path)?;
            let length = file.metadata()?.len();
            file.write_all(note.as_bytes()).and_then(|()| file.sync_data()).inspect_err(|_| {
                // A torn note would hide the ones after it.
                let _ = file.set_len(length);
            })
        };
        append().map_err(|e| StoreError::io(&path, e))?;
        self.signed = self.end.tree.size();
        self.signed_at = Instant::now();
        Ok(())
    }

    /// Sets aside what lies in the journal and cannot be read, and shuts the producer out.
    pub(super) fn quarantine(&mut self, why: &str) -> Result<(), StoreError> {
        let kept = match self.consumer.remains() {
            Ok(bytes) => save(&self.dir, "journal", &bytes)?,
            Err(error) => format!("nothing could be kept: {error}"),
        };
        let skipped = self.end.seq.saturating_add(self.consumer.journal().most_entries());
        let text = format!("the journal was damaged ({why}) and emptied; what was in it: {kept}");
        tracing::error!(%why, %kept, "the journal was damaged and emptied");
        self.own_event(EventKind::Store, text, Some(skipped))?;
        self.flush()?;
        self.consumer.reset(skipped);
        Ok(())
    }

    pub(super) fn set_space(&mut self, space: Space) {
        self.space = space;
        self.consumer.tell(space);
    }
}

/// The header line of segment `number` after `end`, and the chain's end with it.
pub(super) fn header<'a>(
    store: &str,
    number: u64,
    end: &ChainEnd,
    open: impl Iterator<Item = &'a Open>,
    used: Vec<(RunId, u64)>,
) -> Result<(ChainEnd, Vec<u8>), StoreError> {
    let header = Header {
        entry: SegmentTag::Segment,
        store: store.to_owned(),
        segment: number,
        after_seq: end.seq,
        after_sub: end.sub,
        lines: end.tree.size(),
        previous: end.hash.as_str().to_owned(),
        tree: end.tree.peaks(),
        open: open.copied().collect(),
        used,
    };
    let mut end = end.clone();
    let mut bytes = Vec::new();
    end.append(&serde_json::to_vec(&header)?, &mut bytes);
    Ok((end, bytes))
}

/// Saves damaged bytes for inspection, and says where.
pub(super) fn save(dir: &Path, what: &str, bytes: &[u8]) -> Result<String, StoreError> {
    let folder = places::quarantine(dir);
    std::fs::create_dir_all(&folder).map_err(|e| StoreError::io(&folder, e))?;
    let kept = std::fs::read_dir(&folder).map_err(|e| StoreError::io(&folder, e))?.count();
    if kept >= MOST_QUARANTINED {
        return Ok(format!("{} bytes, not kept: {MOST_QUARANTINED} pieces are kept already", bytes.len()));
    }
    let path = folder.join(format!("{what}-{kept:02}.bin"));
    std::fs::write(&path, bytes).map_err(|e| StoreError::io(&path, e))?;
    Ok(path.display().to_string())
}
