//! The keeper's side of the journal. What it reads was written by the proxy, which may be in an enemy's hands: every
//! length, number and text is checked, the bytes are copied out before they are looked at, and what does not fit is
//! an error value. It keeps its own place and never believes the shared one.

use std::{
    collections::HashMap,
    os::unix::fs::FileExt,
    sync::atomic::{Ordering, fence},
    time::Duration,
};

use interceptor_core::model::{EventKind, EventRecord, OutcomeRecord, RecordId, RequestRecord, RunId};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    FRAME_HEADER, FrameHeader, Journal, JournalError, Kind, PAGE, Space, at, boot_tag, check, futex,
};
use crate::store::request::{RulingRead, WhatRead, join};

/// Bytes of one group commit: more would make the first of them wait for the last.
const GROUP: u64 = 1024 * 1024;
/// Bytes of parts of one kind that are remembered.
const MOST_KNOWN: usize = 1024 * 1024;

/// What a frame carries: what the keeper must know of it, and its text.
#[derive(Debug)]
pub(in crate::store) enum Body<'a> {
    /// A new producer: what is open from before is its own no more.
    Attach,
    Request {
        run: RunId,
        allowed: bool,
        /// What the session's requests share, what was ruled, and what is this one's own.
        text: [&'a [u8]; 3],
    },
    Outcome {
        request: RecordId,
        text: &'a [u8],
    },
    Event {
        run: Option<RunId>,
        kind: EventKind,
        text: &'a [u8],
    },
}

/// A checked frame: its text is byte for byte what our own writer makes of what it says.
#[derive(Debug)]
pub(in crate::store) struct Frame<'a> {
    pub(in crate::store) seq: u64,
    pub(in crate::store) body: Body<'a>,
    /// Bytes in the ring.
    pub(in crate::store) size: u64,
}

/// Bytes of the ring, copied out.
#[derive(Debug, Default)]
pub(in crate::store) struct Group {
    bytes: Vec<u8>,
    at: usize,
}

/// Reads frames and tells the producer how far they are synced.
#[derive(Debug)]
pub(in crate::store) struct Consumer {
    journal: Journal,
    tail: u64,
    epoch: Option<u64>,
    heads: Known<RunId>,
    /// And whether they allowed it.
    rulings: Known<bool>,
    /// Room to put a text together, and to write it again to see that it is ours.
    whole: Vec<u8>,
    again: Vec<u8>,
}

/// Parts of requests that were checked before, with what the keeper must know of them: a session's head and a
/// statement's ruling are the same each time.
#[derive(Debug)]
struct Known<T> {
    parts: HashMap<u64, (Box<[u8]>, T)>,
    bytes: usize,
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self { parts: HashMap::new(), bytes: 0 }
    }
}

impl<T: Copy> Known<T> {
    fn get(&self, part: &[u8]) -> Option<T> {
        let (known, what) = self.parts.get(&check([part]))?;
        (**known == *part).then_some(*what)
    }

    fn learn(&mut self, part: &[u8], what: T) {
        if self.bytes.saturating_add(part.len()) > MOST_KNOWN {
            self.parts.clear();
            self.bytes = 0;
        }
        self.bytes = self.bytes.saturating_add(part.len());
        self.parts.insert(check([part]), (part.into(), what));
    }
}

/// A frame as it stands in the ring.
struct Raw<'a> {
    header: FrameHeader,
    kind: Kind,
    /// Head, ruling and the rest; the first two are empty but in requests.
    text: [&'a [u8]; 3],
}

impl<'a> Raw<'a> {
    fn size(&self) -> u64 {
        FRAME_HEADER + self.text.iter().map(|part| part.len() as u64).sum::<u64>()
    }

    /// The text of an entry that is no request.
    fn payload(&self) -> &'a [u8] {
        let [_, _, own] = self.text;
        own
    }
}

impl Journal {
    /// The space the keeper last told of.
    pub(super) fn space(&self) -> Space {
        match self.map.word32(at::SPACE).load(Ordering::Relaxed) {
            0 => Space::Enough,
            1 => Space::Low,
            _ => Space::Refuse,
        }
    }

    /// Where the published frames end, and the next sequence number.
    pub(super) fn end(&self) -> Result<(u64, u64), JournalError> {
        let tail = self.map.word(at::TAIL).load(Ordering::Acquire);
        let mut last = self.synced();
        let head = self.map.word(at::HEAD).load(Ordering::Acquire);
        let (mut place, mut buffer) = (tail, Vec::new());
        while place != head {
            self.copy_out(place, head, self.map.capacity / 2, &mut buffer)?;
            let mut rest = buffer.as_slice();
            let before = place;
            while let Some(frame) = next_raw(&mut rest)? {
                place = place.wrapping_add(frame.size());
                last = last.max(frame.header.seq.saturating_sub(u64::from(frame.kind == Kind::Attach)));
            }
            if place == before {
                return Err(damaged("a frame has no end"));
            }
        }
        let next = last.checked_add(1).ok_or_else(|| damaged("its numbers are used up"))?;
        Ok((head, next))
    }

    /// Copies what is published from `place` on, at most `most` bytes. Half the ring is longer than any frame.
    fn copy_out(&self, place: u64, head: u64, most: u64, buffer: &mut Vec<u8>) -> Result<(), JournalError> {
        let capacity = self.map.capacity;
        let published = head.wrapping_sub(place);
        if published > capacity {
            return Err(damaged("its end lies outside the ring"));
        }
        let offset = place % capacity;
        let length = published.min(most);
        let first = length.min(capacity - offset);
        let size = |n: u64| usize::try_from(n).map_err(|_| damaged("it is too long"));
        buffer.clear();
        buffer.resize(size(length)?, 0);
        let (front, back) = buffer.split_at_mut(size(first)?);
        // Read by system call, not through the mapping: the bytes cannot change under us, and a file that was cut
        // short is an error, not a signal.
        self.file.read_exact_at(front, PAGE + offset)?;
        self.file.read_exact_at(back, PAGE)?;
        Ok(())
    }
}

impl Consumer {
    /// Takes the keeper's place at the journal.
    pub(in crate::store) fn new(journal: &Journal) -> Self {
        let tail = journal.map.word(at::TAIL).load(Ordering::Acquire);
        Self {
            journal: journal.clone(),
            tail,
            epoch: None,
            heads: Known::default(),
            rulings: Known::default(),
            whole: Vec::new(),
            again: Vec::new(),
        }
    }

    pub(in crate::store) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Copies the next published frames into `group`; whether there are any.
    pub(in crate::store) fn read(&mut self, group: &mut Group) -> Result<bool, JournalError> {
        self.check_length()?;
        group.at = 0;
        group.bytes.clear();
        let head = self.journal.map.word(at::HEAD).load(Ordering::Acquire);
        if head == self.tail {
            return Ok(false);
        }
        // At least one, however long.
        let half = self.journal.capacity() / 2;
        for most in [GROUP.min(half), half] {
            self.journal.copy_out(self.tail, head, most, &mut group.bytes)?;
            if next_raw(&mut group.bytes.as_slice())?.is_some() {
                return Ok(true);
            }
        }
        Err(damaged("a frame has no end"))
    }

    /// The next frame of `group`; `None` at its end.
    pub(in crate::store) fn next<'g>(
        &mut self,
        group: &'g mut Group,
    ) -> Result<Option<Frame<'g>>, JournalError> {
        let Group { bytes, at } = group;
        let mut rest = bytes.get(*at..).unwrap_or_default();
        let Some(raw) = next_raw(&mut rest)? else { return Ok(None) };
        *at = bytes.len() - rest.len();
        self.check_one(&raw).map(Some)
    }

    fn check_one<'g>(&mut self, raw: &Raw<'g>) -> Result<Frame<'g>, JournalError> {
        let epoch = raw.header.epoch;
        let attach = raw.kind == Kind::Attach;
        if self.epoch.is_some_and(|current| if attach { epoch <= current } else { epoch != current }) {
            return Err(damaged("a frame is of another producer"));
        }
        let text = raw.payload();
        let body = match raw.kind {
            Kind::Attach => Body::Attach,
            Kind::Request => self.request(raw)?,
            Kind::Outcome => {
                let outcome: OutcomeRecord = self.ours(raw, text)?;
                Body::Outcome { request: outcome.request, text }
            }
            Kind::Event => {
                let event: EventRecord = self.ours(raw, text)?;
                Body::Event { run: event.run, kind: event.kind, text }
            }
        };
        self.epoch = Some(epoch);
        Ok(Frame { seq: raw.header.seq, body, size: raw.size() })
    }

    fn request<'g>(&mut self, raw: &Raw<'g>) -> Result<Body<'g>, JournalError> {
        let [head, ruling, own] = raw.text;
        let _: WhatRead = self.ours(raw, own)?;
        let (run, allowed) = match (self.heads.get(head), self.rulings.get(ruling)) {
            (Some(run), Some(allowed)) => (run, allowed),
            // Both others being whole by themselves, what is left of the whole is the head and nothing else.
            _ => {
                let allowed = self.ours::<RulingRead>(raw, ruling)?.allowed();
                let mut whole = std::mem::take(&mut self.whole);
                whole.clear();
                join(raw.text, &mut whole).ok_or_else(|| damaged("a request has no head"))?;
                let RequestRecord { run, .. } = self.ours(raw, &whole)?;
                self.whole = whole;
                self.heads.learn(head, run);
                self.rulings.learn(ruling, allowed);
                (run, allowed)
            }
        };
        Ok(Body::Request { run, allowed, text: raw.text })
    }

    /// What `text` says, if it is byte for byte what our own writer makes of that.
    fn ours<T: DeserializeOwned + Serialize>(
        &mut self,
        raw: &Raw<'_>,
        text: &[u8],
    ) -> Result<T, JournalError> {
        let wrong = |e: serde_json::Error| damaged(&format!("frame {} is no entry: {e}", raw.header.seq));
        let said: T = serde_json::from_slice(text).map_err(wrong)?;
        self.again.clear();
        serde_json::to_writer(&mut self.again, &said).map_err(wrong)?;
        if self.again == text { Ok(said) } else { Err(damaged("an entry is not written as ours are")) }
    }

    /// Frames of `size` bytes are synced, up to `seq`.
    pub(in crate::store) fn taken(&mut self, size: u64, seq: u64) {
        self.tail = self.tail.wrapping_add(size);
        let map = &self.journal.map;
        map.word(at::BASE).store(seq, Ordering::Release);
        map.word(at::TAIL).store(self.tail, Ordering::Release);
    }

    /// Whether all that is published was taken.
    pub(in crate::store) fn is_drained(&self) -> bool {
        self.journal.map.word(at::HEAD).load(Ordering::Acquire) == self.tail
    }

    /// What lies in the ring and cannot be read, for quarantine.
    pub(in crate::store) fn remains(&self) -> Result<Vec<u8>, JournalError> {
        let mut bytes = Vec::new();
        let head = self.journal.map.word(at::HEAD).load(Ordering::Acquire);
        let end = if head.wrapping_sub(self.tail) > self.journal.capacity() {
            self.tail.wrapping_add(self.journal.capacity())
        } else {
            head
        };
        self.journal.copy_out(self.tail, end, self.journal.capacity(), &mut bytes)?;
        Ok(bytes)
    }

    /// Empties the ring and shuts the producer out; numbers go on after `base`.
    pub(in crate::store) fn reset(&mut self, base: u64) {
        let map = &self.journal.map;
        self.epoch = Some(map.word(at::EPOCH).fetch_add(1, Ordering::AcqRel).wrapping_add(1));
        map.word(at::BASE).store(base, Ordering::Release);
        map.word(at::HEAD).store(0, Ordering::Release);
        map.word(at::TAIL).store(0, Ordering::Release);
        self.tail = 0;
    }

    /// Tells producers about room in the store.
    pub(in crate::store) fn tell(&self, space: Space) {
        self.journal.map.word32(at::SPACE).store(space as u32, Ordering::Relaxed);
    }

    /// Sleeps until a producer publishes, at most for `timeout`.
    pub(in crate::store) fn sleep(&self, timeout: Duration) {
        let map = &self.journal.map;
        let sleeping = map.word32(at::SLEEPING);
        sleeping.store(1, Ordering::Relaxed);
        // Pairs with the fence in `Producer::publish`.
        fence(Ordering::SeqCst);
        if map.word(at::HEAD).load(Ordering::Acquire) == self.tail {
            futex::wait(sleeping, 1, timeout);
        }
        sleeping.store(0, Ordering::Relaxed);
    }

    /// Marks the journal as in use in this boot. `false` when frames may have been lost with the power since it was
    /// last used, or when it is new.
    pub(in crate::store) fn begin(&self) -> Result<bool, JournalError> {
        let boot = boot_tag()?;
        let before = self.journal.map.word(at::BOOT).swap(boot, Ordering::AcqRel);
        Ok(before == boot || before == STOPPED)
    }

    /// Marks the journal as stopped in good order, when nothing is left in it.
    pub(in crate::store) fn end(&self) -> Result<(), JournalError> {
        if self.is_drained() {
            self.journal.map.word(at::BOOT).store(STOPPED, Ordering::Release);
            self.journal.file.sync_data()?;
        }
        Ok(())
    }

    /// The mapping of a file that was cut kills whoever touches it; look before.
    fn check_length(&self) -> Result<(), JournalError> {
        let length = self.journal.file.metadata()?.len();
        if length == PAGE + self.journal.capacity() { Ok(()) } else { Err(damaged("its file was cut")) }
    }
}

/// The boot tag after a stop in good order.
const STOPPED: u64 = 1;

fn damaged(why: &str) -> JournalError {
    JournalError::Damaged(why.to_owned())
}

/// Takes the next frame off `rest`; `None` at the end, which is also in the middle of a frame that goes on beyond
/// what was copied.
fn next_raw<'a>(rest: &mut &'a [u8]) -> Result<Option<Raw<'a>>, JournalError> {
    if rest.is_empty() {
        return Ok(None);
    }
    let Some((header, after)) = rest.split_at_checked(FRAME_HEADER as usize) else { return Ok(None) };
    let header = FrameHeader::from_bytes(header).ok_or_else(|| damaged("a frame has no header"))?;
    let kind = Kind::from_u32(header.kind).ok_or_else(|| damaged("a frame is of no known kind"))?;
    let Some((payload, after)) = after.split_at_checked(header.length as usize) else { return Ok(None) };
    let (head, ruling) = match kind {
        Kind::Request => (header.head as usize, header.ruling as usize),
        Kind::Attach | Kind::Outcome | Kind::Event => (0, 0),
    };
    let split = payload.split_at_checked(head).and_then(|(head, rest)| {
        let (ruling, own) = rest.split_at_checked(ruling)?;
        Some([head, ruling, own])
    });
    let text = split.ok_or_else(|| damaged("a part beyond its frame"))?;
    if header.check != check(text) ^ header.mix() {
        return Err(damaged("a frame does not match its checksum"));
    }
    *rest = after;
    Ok(Some(Raw { header, kind, text }))
}
