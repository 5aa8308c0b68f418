//! What passes to the client is counted here, and stops where it is to be asked again.
//!
//! Promises: rows are counted one by one, before they pass; an answer is cut only between two of its messages. Once it is
//! cut, nothing that the server still answers reaches the client before the next ReadyForQuery, and a transaction that
//! the server itself has not failed by then is failed.

use bytes::{Buf as _, Bytes, BytesMut};
use interceptor_core::{
    model::{OutcomeStatus, Spent},
    permit::Denial,
    protocol::{DecodeError, Done, Step, Stopped},
};

use super::{
    copy::Copying,
    decode::PostgresDecoder,
    frame::Head,
    outcome::end,
    queue::{Bounds, Entry, Kind, Places},
    recorded::ended,
    refuse,
    upstream::Fate,
};

/// The words of command tags whose number says how many rows were changed.
const CHANGING: [&[u8]; 4] = [b"INSERT ", b"UPDATE ", b"DELETE ", b"MERGE "];

/// Counts what passes.
#[derive(Debug)]
pub(super) struct Meter {
    passed: Spent,
    room: Spent,
    /// The caller is to be asked before the next row, whatever room it gives meanwhile.
    asks: bool,
    /// Where the end of the statement under way stands.
    end: End,
    /// The answer was cut: nothing passes before ReadyForQuery.
    pub(super) stopped: bool,
    /// The message that is streaming goes nowhere.
    pub(super) swallowing: bool,
    /// For the upstream, before anything else.
    pub(super) back: Option<Bytes>,
}

/// The end of a statement, which says how many rows it changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It has not been seen.
    ToCome,
    /// It has been counted, and the caller is to be asked.
    ToAsk,
    /// It has been counted.
    Counted,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self {
            passed: Spent::default(),
            room: Spent::UNLIMITED,
            asks: false,
            end: End::ToCome,
            stopped: false,
            swallowing: false,
            back: None,
        }
    }

    /// A row of so many bytes passes.
    pub(super) fn row(&mut self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.count(Spent { rows: 1, bytes, ..Spent::default() });
    }

    fn count(&mut self, spent: Spent) {
        self.passed = self.passed.and(spent);
        self.room.rows = self.room.rows.saturating_sub(spent.rows);
        self.room.bytes = self.room.bytes.saturating_sub(spent.bytes);
        self.room.changed = self.room.changed.saturating_sub(spent.changed);
    }

    fn is_full(&self) -> bool {
        self.room.rows == 0 || self.room.bytes == 0
    }
}

impl PostgresDecoder {
    /// Whether the caller is to be asked before this message passes. It stands at the beginning of `rest`.
    pub(super) fn pauses(&mut self, head: Head, rest: &[u8]) -> Option<Step> {
        if self.meter.stopped || self.skipping {
            return None;
        }
        let front = self.queue.first();
        if let (b'D', Some(entry)) = (head.tag, front)
            && let Bounds::Ceiling(rows) = entry.bounds
            && entry.rows >= rows
        {
            return answering(entry).map(|(exchange, place)| Step::Exceeds { exchange, place, rows });
        }
        let enclosed = front.is_some_and(|entry| entry.bounds == Bounds::Enclosed);
        let full = match head.tag {
            b'D' | b'd' => {
                self.meter.asks |= self.meter.is_full();
                self.meter.asks
            }
            b'C' => {
                if self.meter.end == End::ToCome {
                    let copied =
                        self.queue.first().is_some_and(|entry| entry.copying == Some(Copying::InEnded));
                    let changed = changed(rest.get(5..head.total)?, copied).unwrap_or(0);
                    self.meter.count(Spent { changed, ..Spent::default() });
                    // Outside of a transaction it is done: the next statement is refused. What is enclosed has terms
                    // of its own.
                    let asks =
                        self.status == b'T' && !enclosed && changed > 0 && self.meter.room.changed == 0;
                    self.meter.end = if asks { End::ToAsk } else { End::Counted };
                }
                self.meter.end == End::ToAsk
            }
            _ => false,
        };
        if !full {
            return None;
        }
        self.queue.first().and_then(answering).map(|(exchange, place)| Step::Pause { exchange, place })
    }

    /// The caller is being asked.
    pub(super) fn paused(&mut self) {
        self.meter.asks = false;
        if self.meter.end == End::ToAsk {
            self.meter.end = End::Counted;
        }
    }

    /// What has passed since this was last asked.
    pub(super) fn has_passed(&mut self) -> Spent {
        std::mem::take(&mut self.meter.passed)
    }

    /// So much more may pass.
    pub(super) fn may_pass(&mut self, room: Spent) {
        self.meter.room = room;
    }

    /// The answer under way ends here.
    pub(super) fn cut(&mut self, denial: &Denial) -> Stopped {
        self.meter.stopped = true;
        let segment = self.segment;
        let behind = self.queue.has_sync();
        let mut done = None;
        if let Some(entry) = self.queue.front()
            && let Some((exchange, place)) = answering(entry)
        {
            done = Some(Done {
                // What a COPY streams is told in rows at its end only.
                rows: entry.copying.is_none().then_some(entry.rows),
                code: Some(refuse::REFUSED.to_owned()),
                recorded: ended(&mut entry.gathered, None),
                ..end(exchange, place, OutcomeStatus::Failed, entry.bytes)
            });
            if matches!(entry.kind, Kind::Execute { .. }) {
                entry.exchange = None;
                if !behind {
                    // The client does not know yet that its pipeline has failed; what it sends until Sync is dropped.
                    self.refused_in = Some(segment);
                }
            }
        }
        Stopped { client: refuse::refusal(denial), done }
    }

    /// What becomes of a message behind a cut: at most ReadyForQuery goes on, once a transaction has failed.
    pub(super) fn behind_cut(&mut self, tag: u8, fate: Fate) -> Result<Fate, DecodeError> {
        match (tag, fate) {
            (b'G', _) => {
                // Nobody will send it any data.
                if let Some(entry) = self.queue.front() {
                    entry.copying = Some(Copying::InEnded);
                }
                self.meter.back = Some(refuse::copy_fail());
                Ok(Fate::Swallow)
            }
            (b'Z', Fate::Pass) => {
                self.meter.stopped = false;
                if self.status != b'T' {
                    return Ok(Fate::Pass);
                }
                // Nor can anything be put into the middle of a message.
                if !self.queue.is_empty() || self.part.is_some() {
                    return Err(DecodeError::client(
                        "something was sent behind a statement whose answer was cut, in a transaction that has failed",
                    ));
                }
                let mut failing = Entry::new(
                    Kind::Query { places: Places::new(), at: 0, failed: false, opaque: true },
                    None,
                );
                // The client has its error already.
                failing.replaced = Some(Bytes::new());
                self.end_segment();
                self.queue.push(failing);
                self.meter.back = Some(refuse::failing_transaction());
                Ok(Fate::Swallow)
            }
            (b'S', fate @ (Fate::Pass | Fate::Instead(_))) => Ok(fate),
            _ => Ok(Fate::Swallow),
        }
    }

    /// Drops what has come of a message that goes nowhere; whether there was any.
    pub(super) fn swallow(&mut self, input: &mut BytesMut) -> bool {
        let part = self.streaming.min(input.len());
        input.advance(part);
        self.streaming = self.streaming.saturating_sub(part);
        self.meter.swallowing = self.streaming > 0;
        part > 0
    }

    /// The message has ended: the next end of a statement is another's.
    pub(super) fn passed_end(&mut self) {
        self.meter.end = End::ToCome;
    }
}

/// The exchange whose rows come now, and which of its statements they answer.
fn answering(entry: &Entry) -> Option<(u64, usize)> {
    match &entry.kind {
        Kind::Query { at, failed: false, places, opaque } => {
            // Statements that answer nothing are passed by.
            let skipped = places.iter().skip(*at).take_while(|place| !place.answers).count();
            let at = if *opaque { 0 } else { at.saturating_add(skipped) };
            entry.exchange.map(|exchange| (exchange, at))
        }
        Kind::Execute { .. } => entry.exchange.map(|exchange| (exchange, 0)),
        _ => None,
    }
}

/// The rows that a command tag says were changed; `copied` says that the statement was a COPY from the client.
pub(super) fn changed(body: &[u8], copied: bool) -> Option<u64> {
    let tag = body.strip_suffix(&[0]).unwrap_or(body);
    let changes = CHANGING.iter().any(|word| tag.starts_with(word)) || (copied && tag.starts_with(b"COPY "));
    changes.then_some(())?;
    std::str::from_utf8(tag).ok()?.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tags_of_changes_say_how_many_rows_were_changed() {
        assert_eq!(changed(b"INSERT 0 5\0", false), Some(5));
        assert_eq!(changed(b"UPDATE 12\0", false), Some(12));
        assert_eq!(changed(b"DELETE 0\0", false), Some(0));
        assert_eq!(changed(b"MERGE 3\0", false), Some(3));
        assert_eq!(changed(b"SELECT 9\0", false), None);
        assert_eq!(changed(b"UPDATE\0", false), None);
        assert_eq!(changed(b"", false), None);
        assert_eq!((changed(b"COPY 4\0", false), changed(b"COPY 4\0", true)), (None, Some(4)));
    }
}
