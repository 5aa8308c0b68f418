//! Where an answer stops for the caller to be asked again, and how it is cut.
//!
//! Promises: the values of an answer are counted one by one, before they pass; an answer is cut only before its first byte, where an error
//! takes its place, or between two of its values, where nothing well-formed can follow and the session ends.

use bytes::Bytes;
use interceptor_core::{
    model::OutcomeStatus,
    permit::Denial,
    protocol::{Done, Step, Stopped},
};

use super::{decode::RedisDecoder, words};

impl RedisDecoder {
    /// Whether the caller is to be asked before the next value of the answer at the front passes.
    pub(super) fn pauses(&mut self) -> Option<Step> {
        let entry = self.queue.front()?;
        let exchange = entry.exchange.filter(|_| entry.replaced.is_none())?;
        (!self.meter.lets_by()).then_some(Step::Pause { exchange, place: 0 })
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
                self.is_cut = true;
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
