//! The proxy's side of the journal: numbers entries, publishes them, and hands out the only proof of it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{Ordering, fence},
    },
    time::Duration,
};

use interceptor_core::{
    model::{EventKind, EventRecord, ExchangeDigest, OutcomeRecord, RecordId, RequestRecord, RunId},
    permit::Committed,
};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{
    EVENT_ROOM, FRAME_HEADER, FrameHeader, Journal, JournalError, Kind, OUTCOME_ROOM, Space, at, futex,
    payload_check,
};

/// How often a waiting task looks again; the runtime's timer is no finer.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// The most bytes that one exchange may publish at once, whatever the ring's size.
const LONGEST_WRITE: u64 = 64 * 1024 * 1024;

/// Proof that an exchange's request entries are published. Made only by [`Producer::commit_requests`].
#[derive(Debug)]
pub struct Receipt {
    digest: ExchangeDigest,
    records: Vec<RecordId>,
}

impl Committed for Receipt {
    fn digest(&self) -> ExchangeDigest {
        self.digest
    }

    fn records(&self) -> &[RecordId] {
        &self.records
    }
}

/// What a producer may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of entries that one run may write. Outcomes count, and are never refused.
    pub run_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { run_bytes: 4 * 1024 * 1024 * 1024 }
    }
}

/// Appends entries. Clones share one place in the journal.
#[derive(Debug, Clone)]
pub struct Producer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    journal: Journal,
    epoch: u64,
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    head: u64,
    next: u64,
    open: HashMap<RecordId, RunId>,
    /// How many of `open` are each run's.
    owing: HashMap<RunId, u64>,
    used: HashMap<RunId, u64>,
}

/// An entry that has its text but no number yet.
struct Draft {
    kind: Kind,
    payload: Vec<u8>,
    check: u64,
}

impl Draft {
    fn new(kind: Kind, entry: &impl Serialize) -> Result<Self, JournalError> {
        let payload = serde_json::to_vec(entry)?;
        let check = payload_check(&payload);
        Ok(Self { kind, payload, check })
    }

    fn size(&self) -> u64 {
        FRAME_HEADER + self.payload.len() as u64
    }
}

impl Producer {
    /// Takes over as the journal's producer. Whoever was it before must be gone, and is refused from now on if it is
    /// not; its requests without an outcome are ended by the keeper (`unknown`, or `refused` where they were). `used`
    /// is what live runs have written already, as the keeper counted it.
    pub fn attach(
        journal: &Journal,
        limits: Limits,
        used: impl IntoIterator<Item = (RunId, u64)>,
    ) -> Result<Self, JournalError> {
        let epoch = journal.map.word(at::EPOCH).fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        let (head, next) = journal.end()?;
        let (open, owing) = (HashMap::new(), HashMap::new());
        let state = State { head, next, open, owing, used: used.into_iter().collect() };
        let producer = Self {
            shared: Arc::new(Shared { journal: journal.clone(), epoch, limits, state: Mutex::new(state) }),
        };
        let mark = Draft { kind: Kind::Attach, payload: Vec::new(), check: payload_check(&[]) };
        let mut state = producer.lock();
        producer.room(&state, mark.size(), 0, 0)?;
        producer.publish(&mut state, &[mark]);
        drop(state);
        Ok(producer)
    }

    /// Publishes the request entries of one exchange, all or none, and reserves room for their outcomes.
    pub fn commit_requests(
        &self,
        digest: ExchangeDigest,
        entries: &[RequestRecord],
    ) -> Result<Receipt, JournalError> {
        let drafts = entries.iter().map(|e| Draft::new(Kind::Request, e)).collect::<Result<Vec<_>, _>>()?;
        self.commit_drafts(digest, entries, &drafts)
    }

    /// As [`Producer::commit_requests`], but waits for room until `deadline` when the journal, or the run's share of it, is full. Cancel safe:
    /// nothing is published by a call that did not return.
    pub async fn commit_requests_by(
        &self,
        digest: ExchangeDigest,
        entries: &[RequestRecord],
        deadline: Instant,
    ) -> Result<Receipt, JournalError> {
        let drafts = entries.iter().map(|e| Draft::new(Kind::Request, e)).collect::<Result<Vec<_>, _>>()?;
        loop {
            match self.commit_drafts(digest, entries, &drafts) {
                Err(JournalError::Full | JournalError::Owing { .. }) if Instant::now() < deadline => {
                    sleep(LOOK_AGAIN).await;
                }
                done => return done,
            }
        }
    }

    /// Publishes how a request ended. There is always room for it; a long message is cut.
    pub fn append_outcome(&self, mut outcome: OutcomeRecord) -> Result<(), JournalError> {
        let draft = fit_outcome(&mut outcome)?;
        let mut state = self.lock();
        self.current()?;
        let run = state.open.remove(&outcome.request).ok_or(JournalError::NotOpen(outcome.request))?;
        if let Some(owing) = state.owing.get_mut(&run) {
            *owing = owing.saturating_sub(1);
            if *owing == 0 {
                state.owing.remove(&run);
            }
        }
        *state.used.entry(run).or_default() += draft.size();
        self.publish(&mut state, &[draft]);
        Ok(())
    }

    /// Publishes an event and gives its sequence number. What a run can cause as often as it likes counts towards
    /// what the run may write; what operators and the daemon itself do does not.
    pub fn append_event(&self, event: &EventRecord) -> Result<u64, JournalError> {
        let draft = Draft::new(Kind::Event, event)?;
        let mut state = self.lock();
        self.current()?;
        if let Some(run) = event.run.filter(|_| is_the_runs_doing(event.kind)) {
            let used = state.used.entry(run).or_default();
            if used.saturating_add(draft.size()) > self.shared.limits.run_bytes {
                return Err(JournalError::Quota { run, limit: self.shared.limits.run_bytes });
            }
            *used = used.saturating_add(draft.size());
        }
        self.room(&state, draft.size(), 0, 0)?;
        let seq = state.next;
        self.publish(&mut state, &[draft]);
        Ok(seq)
    }

    /// Waits until everything up to `seq` is on disk, for `durability = "power"`. `Full` when `deadline` comes first.
    pub async fn wait_synced(&self, seq: u64, deadline: Instant) -> Result<(), JournalError> {
        loop {
            self.current()?;
            if self.shared.journal.synced() >= seq {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(JournalError::Full);
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// How many requests have no outcome yet.
    pub fn open_requests(&self) -> usize {
        self.lock().open.len()
    }

    /// Forgets what an ended run has used.
    pub fn forget_run(&self, run: RunId) {
        self.lock().used.remove(&run);
    }

    fn commit_drafts(
        &self,
        digest: ExchangeDigest,
        entries: &[RequestRecord],
        drafts: &[Draft],
    ) -> Result<Receipt, JournalError> {
        let size: u64 = drafts.iter().map(Draft::size).sum();
        let mut state = self.lock();
        self.current()?;
        if self.shared.journal.space() == Space::Refuse {
            return Err(JournalError::NoSpace);
        }
        self.quota(&state, entries, drafts)?;
        self.share(&state, entries)?;
        self.room(&state, size, drafts.len() as u64, EVENT_ROOM)?;
        let records: Vec<_> = (state.next..).take(drafts.len()).map(RecordId).collect();
        for ((record, entry), draft) in records.iter().zip(entries).zip(drafts) {
            state.open.insert(*record, entry.run);
            *state.owing.entry(entry.run).or_default() += 1;
            *state.used.entry(entry.run).or_default() += draft.size();
        }
        self.publish(&mut state, drafts);
        Ok(Receipt { digest, records })
    }

    fn quota(&self, state: &State, entries: &[RequestRecord], drafts: &[Draft]) -> Result<(), JournalError> {
        let limit = self.shared.limits.run_bytes;
        let mut asked: HashMap<RunId, u64> = HashMap::new();
        for (entry, draft) in entries.iter().zip(drafts) {
            let used = asked
                .entry(entry.run)
                .or_insert_with(|| state.used.get(&entry.run).copied().unwrap_or_default());
            *used = used.saturating_add(draft.size() + OUTCOME_ROOM);
            if *used > limit {
                return Err(JournalError::Quota { run: entry.run, limit });
            }
        }
        Ok(())
    }

    /// Whether a run that leaves requests open leaves room for the others' too: the room for their outcomes may be a
    /// quarter of the journal.
    fn share(&self, state: &State, entries: &[RequestRecord]) -> Result<(), JournalError> {
        let most = self.shared.journal.capacity() / 4 / OUTCOME_ROOM;
        let Some(run) = entries.first().map(|entry| entry.run) else { return Ok(()) };
        let owing = state.owing.get(&run).copied().unwrap_or_default();
        // One exchange alone is judged by its size.
        if owing > 0 && owing.saturating_add(entries.len() as u64) > most {
            return Err(JournalError::Owing { run, most });
        }
        Ok(())
    }

    /// Whether `size` bytes fit, with an outcome for each open and each of `requests` new requests, and `spare`.
    fn room(&self, state: &State, size: u64, requests: u64, spare: u64) -> Result<(), JournalError> {
        let journal = &self.shared.journal;
        let capacity = journal.capacity();
        let kept = (state.open.len() as u64 + requests).saturating_mul(OUTCOME_ROOM).saturating_add(spare);
        let need = size.saturating_add(kept);
        let alone = size.saturating_add(requests.saturating_mul(OUTCOME_ROOM)).saturating_add(EVENT_ROOM);
        if size > LONGEST_WRITE.min(capacity / 4) || alone > capacity {
            return Err(JournalError::TooLarge(size));
        }
        let tail = journal.map.word(at::TAIL).load(Ordering::Acquire);
        let used = state.head.wrapping_sub(tail);
        let free = capacity.checked_sub(used).ok_or(JournalError::Superseded)?;
        if need > free { Err(JournalError::Full) } else { Ok(()) }
    }

    /// Refuses when another producer or a reset has come since.
    fn current(&self) -> Result<(), JournalError> {
        let epoch = self.shared.journal.map.word(at::EPOCH).load(Ordering::Acquire);
        if epoch == self.shared.epoch { Ok(()) } else { Err(JournalError::Superseded) }
    }

    /// Writes the frames beyond `head`, then publishes them all by one store.
    fn publish(&self, state: &mut State, drafts: &[Draft]) {
        let map = &self.shared.journal.map;
        let (mut head, mut next) = (state.head, state.next);
        for draft in drafts {
            let length = draft.payload.len() as u32;
            let header = FrameHeader::new(draft.kind, length, next, self.shared.epoch, draft.check);
            map.put(head, &header.to_bytes());
            map.put(head.wrapping_add(FRAME_HEADER), &draft.payload);
            head = head.wrapping_add(draft.size());
            next += u64::from(draft.kind != Kind::Attach);
        }
        map.word(at::HEAD).store(head, Ordering::Release);
        (state.head, state.next) = (head, next);
        // Pairs with the fence in `Consumer::sleep`: either it sees the new head, or we see that it sleeps.
        fence(Ordering::SeqCst);
        let sleeping = map.word32(at::SLEEPING);
        if sleeping.load(Ordering::Relaxed) != 0 {
            sleeping.store(0, Ordering::Relaxed);
            futex::wake(sleeping);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere while the lock was held leaves at worst an unpublished frame beyond `head`.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a run can cause such events without end.
fn is_the_runs_doing(kind: EventKind) -> bool {
    match kind {
        EventKind::ConnectionRefused | EventKind::Internal | EventKind::ProtocolError | EventKind::Kernel => {
            true
        }
        EventKind::DaemonStarted
        | EventKind::DaemonStopped
        | EventKind::Recovered
        | EventKind::RunStarted
        | EventKind::RunEnded
        | EventKind::RunKilled
        | EventKind::Released
        | EventKind::ReleaseEnded
        | EventKind::PolicyLoaded
        | EventKind::PolicyRefused
        | EventKind::Store => false,
    }
}

/// Cuts an outcome until it fits into [`OUTCOME_ROOM`].
fn fit_outcome(outcome: &mut OutcomeRecord) -> Result<Draft, JournalError> {
    if let Some(code) = &mut outcome.code {
        cut(code, 64);
    }
    loop {
        let draft = Draft::new(Kind::Outcome, outcome)?;
        if draft.size() <= OUTCOME_ROOM {
            return Ok(draft);
        }
        match &mut outcome.message {
            Some(message) if !message.is_empty() => {
                let half = message.len() / 2;
                cut(message, half);
            }
            _ => outcome.code = None,
        }
    }
}

fn cut(text: &mut String, most: usize) {
    let end = (0..=most.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    text.truncate(end);
}
