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
    model::{EventKind, EventRecord, ExchangeDigest, OutcomeRecord, RecordId, RecordedRows, RunId},
    permit::{Committed, Records},
};
use tokio::time::{Instant, sleep};

use super::{
    EVENT_ROOM, FRAME_HEADER, FrameHeader, Journal, JournalError, Kind, OUTCOME_ROOM, Space, at, check, futex,
};
use crate::store::{RequestHead, Requests, request::Parts};

/// How often a waiting task looks again; the runtime's timer is no finer.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// The most bytes that one exchange may publish at once, whatever the ring's size.
const LONGEST_WRITE: u64 = 64 * 1024 * 1024;

/// Proof that an exchange's request entries are published. Made only by [`Producer::commit`].
#[derive(Debug)]
pub struct Receipt {
    digest: ExchangeDigest,
    records: Records,
}

impl Committed for Receipt {
    fn digest(&self) -> ExchangeDigest {
        self.digest
    }

    fn records(&self) -> Records {
        self.records
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
    /// Room for the text of an outcome.
    text: Vec<u8>,
}

/// An entry that has its text but no number yet.
#[derive(Clone, Copy)]
struct Draft<'a> {
    kind: Kind,
    /// What a session's requests share; empty but in requests.
    head: &'a [u8],
    /// What is the same each time that a statement is asked; empty but in requests.
    ruling: &'a [u8],
    own: &'a [u8],
    check: u64,
}

impl<'a> Draft<'a> {
    fn whole(kind: Kind, text: &'a [u8]) -> Self {
        Self { kind, head: &[], ruling: &[], own: text, check: check([&[], &[], text]) }
    }

    fn length(&self) -> usize {
        self.head.len() + self.ruling.len() + self.own.len()
    }

    fn size(&self) -> u64 {
        FRAME_HEADER + self.length() as u64
    }
}

/// The entries of `requests`.
fn drafts<'a>(head: &'a RequestHead, requests: &'a Requests) -> impl Iterator<Item = Draft<'a>> {
    requests.each().map(|Parts { ruling, own, check }| Draft {
        kind: Kind::Request,
        head: &head.json,
        ruling,
        own,
        check,
    })
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
        let used = used.into_iter().collect();
        let state = State { head, next, open, owing, used, text: Vec::new() };
        let producer = Self {
            shared: Arc::new(Shared { journal: journal.clone(), epoch, limits, state: Mutex::new(state) }),
        };
        let mark = Draft::whole(Kind::Attach, &[]);
        let mut state = producer.lock();
        producer.room(&state, mark.size(), 0, 0)?;
        producer.publish(&mut state, [mark]);
        drop(state);
        Ok(producer)
    }

    /// Publishes the request entries of one exchange, all or none, and reserves room for their outcomes.
    pub fn commit(
        &self,
        digest: ExchangeDigest,
        head: &RequestHead,
        requests: &Requests,
    ) -> Result<Receipt, JournalError> {
        let (count, run) = (requests.len() as u64, head.run);
        let size: u64 = drafts(head, requests).map(|draft| draft.size()).sum();
        let mut state = self.lock();
        self.current()?;
        if self.shared.journal.space() == Space::Refuse {
            return Err(JournalError::NoSpace);
        }
        self.quota(&state, run, size.saturating_add(count.saturating_mul(OUTCOME_ROOM)))?;
        self.share(&state, run, count)?;
        self.room(&state, size, count, EVENT_ROOM)?;
        let records = Records::new(RecordId(state.next), requests.len());
        state.open.extend(records.iter().map(|record| (record, run)));
        *state.owing.entry(run).or_default() += count;
        *state.used.entry(run).or_default() += size;
        self.publish(&mut state, drafts(head, requests));
        Ok(Receipt { digest, records })
    }

    /// As [`Producer::commit`], but waits for room until `deadline` when the journal, or the run's share of it, is
    /// full. Cancel safe: nothing is published by a call that did not return.
    pub async fn commit_by(
        &self,
        digest: ExchangeDigest,
        head: &RequestHead,
        requests: &Requests,
        deadline: Instant,
    ) -> Result<Receipt, JournalError> {
        loop {
            match self.commit(digest, head, requests) {
                Err(error) if error.passes() && Instant::now() < deadline => sleep(LOOK_AGAIN).await,
                done => return done,
            }
        }
    }

    /// Publishes how a request ended. There is always room for it; a long message is cut. Rows are only published where
    /// the run may write so much, and what other outcomes need is left; else it is said that they were left out.
    pub fn append_outcome(&self, mut outcome: OutcomeRecord) -> Result<(), JournalError> {
        let mut state = self.lock();
        let mut text = std::mem::take(&mut state.text);
        let recorded = outcome.recorded.take();
        outcome.recorded = recorded.as_ref().map(RecordedRows::emptied);
        let appended = fit_outcome(&mut outcome, &mut text).and_then(|()| {
            let rows = recorded.filter(|recorded| !recorded.rows.is_empty());
            let whole = rows
                .map(|rows| serde_json::to_vec(&OutcomeRecord { recorded: Some(rows), ..outcome.clone() }));
            self.append_fitting(&mut state, outcome.request, (&text, whole.transpose()?.as_deref()))
        });
        state.text = text;
        appended
    }

    /// Publishes `whole` where there is room for more than the text of an outcome that always fits, else that.
    fn append_fitting(
        &self,
        state: &mut State,
        request: RecordId,
        (text, whole): (&[u8], Option<&[u8]>),
    ) -> Result<(), JournalError> {
        self.current()?;
        let run = state.open.remove(&request).ok_or(JournalError::NotOpen(request))?;
        let text = whole.filter(|whole| self.has_room_for(state, run, whole)).unwrap_or(text);
        if let Some(owing) = state.owing.get_mut(&run) {
            *owing = owing.saturating_sub(1);
            if *owing == 0 {
                state.owing.remove(&run);
            }
        }
        let draft = Draft::whole(Kind::Outcome, text);
        *state.used.entry(run).or_default() += draft.size();
        self.publish(state, [draft]);
        Ok(())
    }

    /// Whether an outcome may be as long as that, which `run`'s request has that is not open any more.
    fn has_room_for(&self, state: &State, run: RunId, text: &[u8]) -> bool {
        let size = FRAME_HEADER + text.len() as u64;
        self.shared.journal.space() != Space::Refuse
            && self.quota(state, run, size).is_ok()
            && self.room(state, size, 0, EVENT_ROOM).is_ok()
    }

    /// Publishes an event and gives its sequence number. What a run can cause as often as it likes counts towards
    /// what the run may write; what operators and the daemon itself do does not.
    pub fn append_event(&self, event: &EventRecord) -> Result<u64, JournalError> {
        let text = serde_json::to_vec(event)?;
        let draft = Draft::whole(Kind::Event, &text);
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
        self.publish(&mut state, [draft]);
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

    fn quota(&self, state: &State, run: RunId, wanted: u64) -> Result<(), JournalError> {
        let limit = self.shared.limits.run_bytes;
        let used = state.used.get(&run).copied().unwrap_or_default();
        if used.saturating_add(wanted) > limit { Err(JournalError::Quota { run, limit }) } else { Ok(()) }
    }

    /// Whether a run that leaves requests open leaves room for the others' too: the room for their outcomes may be a
    /// quarter of the journal.
    fn share(&self, state: &State, run: RunId, count: u64) -> Result<(), JournalError> {
        let most = self.shared.journal.capacity() / 4 / OUTCOME_ROOM;
        let owing = state.owing.get(&run).copied().unwrap_or_default();
        // One exchange alone is judged by its size.
        if owing > 0 && owing.saturating_add(count) > most {
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
    fn publish<'a>(&self, state: &mut State, drafts: impl IntoIterator<Item = Draft<'a>>) {
        let map = &self.shared.journal.map;
        let (mut head, mut next) = (state.head, state.next);
        for draft in drafts {
            let mut header = FrameHeader {
                length: draft.length() as u32,
                kind: draft.kind as u32,
                seq: next,
                epoch: self.shared.epoch,
                check: 0,
                head: draft.head.len() as u32,
                ruling: draft.ruling.len() as u32,
            };
            header.check = draft.check ^ header.mix();
            let mut place = head;
            for part in [&header.to_bytes()[..], draft.head, draft.ruling, draft.own] {
                map.put(place, part);
                place = place.wrapping_add(part.len() as u64);
            }
            head = place;
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
        EventKind::ConnectionRefused
        | EventKind::Internal
        | EventKind::ProtocolError
        | EventKind::Kernel
        | EventKind::Probe
        | EventKind::Engine => true,
        EventKind::DaemonStarted
        | EventKind::DaemonStopped
        | EventKind::Recovered
        | EventKind::RunStarted
        | EventKind::LaunchRefused
        | EventKind::RunEnded
        | EventKind::RunKilled
        | EventKind::Released
        | EventKind::ReleaseEnded
        | EventKind::Kept
        | EventKind::KeptEnded
        | EventKind::Decided
        | EventKind::Uncovered
        | EventKind::Voided
        | EventKind::GlassBroken
        | EventKind::GlassMended
        | EventKind::GlassReviewed
        | EventKind::RescueSaved
        | EventKind::RescueBegun
        | EventKind::RescueEnded
        | EventKind::Vouched
        | EventKind::LabelMoved
        | EventKind::SecretFound
        | EventKind::LabelForgotten
        | EventKind::RunFrozen
        | EventKind::RunThawed
        | EventKind::PolicyLoaded
        | EventKind::PolicyRefused
        | EventKind::Belt
        | EventKind::Store => false,
    }
}

/// Writes an outcome to `text`, and cuts it until it fits into [`OUTCOME_ROOM`].
fn fit_outcome(outcome: &mut OutcomeRecord, text: &mut Vec<u8>) -> Result<(), JournalError> {
    if let Some(code) = &mut outcome.code {
        cut(code, 64);
    }
    loop {
        text.clear();
        serde_json::to_writer(&mut *text, outcome)?;
        if FRAME_HEADER + text.len() as u64 <= OUTCOME_ROOM {
            return Ok(());
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
