//! What passes to the client is counted here, and stops where it is to be asked again.
//!
//! Promises: the values of an answer are counted one by one, before they pass; an answer is cut only before its first byte, where an error
//! takes its place, or between two of its values, where nothing well-formed can follow and the session ends.

use bytes::Bytes;
use interceptor_core::{
    model::{OutcomeStatus, Spent},
    permit::Denial,
    protocol::{Done, Step, Stopped},
};

use super::{decode::RedisDecoder, words};

/// Counts what passes.
#[derive(Debug)]
pub(super) struct Meter {
    passed: Spent,
    pub(super) room: Spent,
    asking: Asking,
    /// An answer was cut in its middle.
    pub(super) cut: bool,
}

/// Whether the caller is to be asked before the next value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asking {
    No,
    /// Before it, whatever room there is meanwhile.
    Due,
    /// It was.
    Done,
}

impl Default for Meter {
    fn default() -> Self {
        Self { passed: Spent::default(), room: Spent::UNLIMITED, asking: Asking::No, cut: false }
    }
}

impl Meter {
    /// So much passes.
    pub(super) fn count(&mut self, spent: Spent) {
        self.passed = self.passed.and(spent);
        self.room.rows = self.room.rows.saturating_sub(spent.rows);
        self.room.bytes = self.room.bytes.saturating_sub(spent.bytes);
        self.room.changed = self.room.changed.saturating_sub(spent.changed);
        if self.room.rows == 0 || self.room.bytes == 0 {
            self.asking = Asking::Due;
        }
    }

    /// What has passed since this was last asked.
    pub(super) fn take(&mut self) -> Spent {
        std::mem::take(&mut self.passed)
    }

    /// Whether the next value may pass.
    fn lets_by(&mut self) -> bool {
        let full = self.room.rows == 0 || self.room.bytes == 0;
        match self.asking {
            Asking::Done => {
                self.asking = Asking::No;
                true
            }
            Asking::No if !full => true,
            Asking::No | Asking::Due => false,
        }
    }
}

impl RedisDecoder {
    /// Whether the caller is to be asked before the next value of the answer at the front passes.
    pub(super) fn pauses(&mut self) -> Option<Step> {
        let entry = self.queue.front()?;
        let exchange = entry.exchange.filter(|_| entry.replaced.is_none())?;
        (!self.meter.lets_by()).then_some(Step::Pause { exchange, place: 0 })
    }

    /// The caller is being asked.
    pub(super) fn paused(&mut self) {
        self.meter.asking = Asking::Done;
    }

    /// The answer under way ends here.
    pub(super) fn cut(&mut self, denial: &Denial) -> Stopped {
        let Some(entry) = self.queue.front_mut() else {
            return Stopped { client: Bytes::new(), done: None };
        };
        let exchange = entry.exchange.take();
        let (client, rows, bytes) = match &self.answering {
            None => {
                entry.replaced = Some(Bytes::new());
                (words::refusal(denial), 0, 0)
            }
            Some(answering) => {
                self.meter.cut = true;
                (Bytes::new(), answering.rows, answering.bytes)
            }
        };
        let done = exchange.map(|exchange| Done {
            exchange,
            place: 0,
            status: OutcomeStatus::Failed,
            rows: Some(rows),
            bytes,
            code: Some(words::REFUSED.to_owned()),
            message: None,
            recorded: None,
        });
        Stopped { client, done }
    }
}
