//! The exchanges of one connection that went upstream and have not ended: each gets exactly one outcome entry,
//! whatever ends it, a dropped task included.

use std::{collections::VecDeque, time::Instant};

use interceptor_core::{
    model::{Action, Actions, OutcomeRecord, OutcomeStatus, RecordId},
    permit::Records,
    protocol::Done,
};

use super::now_us;
use crate::store::Producer;

/// Room for how many exchanges a ledger keeps when nothing is owed any more.
const KEPT: usize = 16;

/// Outcomes that are still owed.
#[derive(Debug)]
pub struct Ledger {
    producer: Producer,
    /// By their numbers. Answers come in the order of what they answer, so that it is the first that ends.
    open: VecDeque<Sent>,
}

#[derive(Debug)]
struct Sent {
    number: u64,
    at: Instant,
    records: Records,
    /// How many have not ended.
    left: usize,
    /// Which have, where there are several.
    ended: Vec<bool>,
    /// What it does, for whoever judges it again while it is under way.
    actions: Actions,
}

impl Sent {
    fn now(number: u64, records: Records) -> Self {
        let ended = if records.len() > 1 { vec![false; records.len()] } else { Vec::new() };
        Self { number, at: Instant::now(), records, left: records.len(), ended, actions: Actions::new() }
    }

    /// The record at `place`, unless it has ended.
    fn open(&self, place: usize) -> Option<RecordId> {
        let ended = self.left == 0 || self.ended.get(place).copied().unwrap_or(false);
        self.records.get(place).filter(|_| !ended)
    }

    /// The same, once.
    fn end(&mut self, place: usize) -> Option<RecordId> {
        let record = self.open(place)?;
        if let Some(ended) = self.ended.get_mut(place) {
            *ended = true;
        }
        self.left -= 1;
        Some(record)
    }
}

impl Ledger {
    /// An empty ledger.
    pub fn new(producer: Producer) -> Self {
        // Most sessions have one under way at most, and keep its place while they are idle.
        Self { producer, open: VecDeque::with_capacity(1) }
    }

    /// Where the exchange `number` is, or where it would be.
    fn place(&self, number: u64) -> Result<usize, usize> {
        self.open.binary_search_by_key(&number, |sent| sent.number)
    }

    fn find(&self, number: u64) -> Option<&Sent> {
        self.open.get(self.place(number).ok()?)
    }

    /// The exchange `number`, whose statements have these records, has been sent.
    pub fn sent(&mut self, number: u64, records: Records) {
        if records.is_empty() {
            return;
        }
        // A number stands for one exchange; what is sent under it once more has records of its own, and both owe.
        let (Ok(place) | Err(place)) = self.place(number);
        self.open.insert(place, Sent::now(number, records));
    }

    /// What the exchange `number` does.
    pub fn does(&mut self, number: u64, actions: Actions) {
        if let Ok(place) = self.place(number)
            && let Some(sent) = self.open.get_mut(place)
        {
            sent.actions = actions;
        }
    }

    /// The statements of an exchange under way, and the record of the one at `place`.
    pub fn under_way(&self, number: u64, place: usize) -> (&[Action], Option<RecordId>) {
        let Some(sent) = self.find(number) else { return (&[], None) };
        (&sent.actions, sent.open(place))
    }

    /// One statement ended.
    pub fn ended(&mut self, done: Done) {
        let Ok(place) = self.place(done.exchange) else { return };
        let Some(sent) = self.open.get_mut(place) else { return };
        let Some(request) = sent.end(done.place) else { return };
        let latency_us = u64::try_from(sent.at.elapsed().as_micros()).ok();
        if sent.left == 0 {
            self.open.remove(place);
        }
        if self.open.is_empty() && self.open.capacity() > KEPT {
            self.open = VecDeque::with_capacity(1);
        }
        append(
            &self.producer,
            OutcomeRecord {
                at: now_us(),
                request,
                status: done.status,
                rows: done.rows,
                bytes: done.bytes,
                latency_us,
                code: done.code,
                message: done.message,
                recorded: done.recorded,
            },
        );
    }

    /// A whole exchange of one statement ended in `status`, after `bytes` came back.
    pub fn ended_whole(&mut self, number: u64, status: OutcomeStatus, bytes: u64, message: Option<String>) {
        let recorded = None;
        self.ended(Done {
            exchange: number,
            place: 0,
            status,
            rows: None,
            bytes,
            code: None,
            message,
            recorded,
        });
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        const WHY: &str = "the connection ended before the answer was seen";
        for sent in &mut self.open {
            for request in (0..sent.records.len()).filter_map(|place| sent.end(place)) {
                write(&self.producer, request, OutcomeStatus::Unknown, Some(WHY));
            }
        }
    }
}

/// Writes the outcome of something that took no time and gave nothing back.
pub(super) fn write(producer: &Producer, request: RecordId, status: OutcomeStatus, message: Option<&str>) {
    let outcome = OutcomeRecord {
        at: now_us(),
        request,
        status,
        rows: None,
        bytes: 0,
        latency_us: None,
        code: None,
        message: message.map(str::to_owned),
        recorded: None,
    };
    append(producer, outcome);
}

fn append(producer: &Producer, outcome: OutcomeRecord) {
    let request = outcome.request;
    if let Err(error) = producer.append_outcome(outcome) {
        // The keeper writes `unknown` for a request whose outcome never comes.
        tracing::error!(%request, "an outcome could not be recorded: {error}");
    }
}
