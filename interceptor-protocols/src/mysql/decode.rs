//! The state of one connection. The client's side is in `client.rs`, the upstream's in `answer.rs`.
//!
//! One command is under way at a time: what a client sends before its answer waits.

use std::{collections::BTreeMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use interceptor_core::{
    Terms,
    mask::{Hiding, Mask},
    model::{RecordId, Spent},
    permit::{Denial, Notice},
    protocol::{CancelKey, DecodeError, Decoder, Greeting, Refusal, Side, Step, Stopped},
};

use crate::meter::Meter;

use super::{
    answer::{IN_TRANSACTION, Owed},
    client::{Asked, Prepared, What, Work},
    lookup::Settings,
    made::Made,
    words,
};

/// Where the connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing was said.
    Start,
    /// The client was greeted.
    Greeted,
    /// The opening is being judged, or the log-in is under way.
    Opening,
    Session,
    Over,
}

/// Decodes one connection.
#[derive(Debug)]
pub(super) struct MysqlDecoder {
    pub(super) state: State,
    /// Of what is said next to a client that has no session yet.
    pub(super) sequence: u8,
    pub(super) secured: bool,
    pub(super) exchanges: u64,
    pub(super) asked: Option<Asked>,
    /// The command that is being looked at.
    pub(super) work: Option<Work>,
    pub(super) owed: Option<Owed>,
    /// Bytes of a row that are still to come.
    pub(super) streaming: usize,
    /// The status flags that the server told last.
    pub(super) status: u16,
    /// What holds for texts, where that is known.
    pub(super) settings: Option<Settings>,
    /// What the session has made of itself.
    pub(super) made: Made,
    pub(super) statements: BTreeMap<u32, Arc<Prepared>>,
    pub(super) meter: Meter,
    /// Something was to be masked.
    pub(super) must_hide: bool,
}

impl Default for MysqlDecoder {
    fn default() -> Self {
        Self {
            state: State::Start,
            sequence: 0,
            secured: false,
            exchanges: 0,
            asked: None,
            work: None,
            owed: None,
            streaming: 0,
            status: 0,
            settings: None,
            made: Made::default(),
            statements: BTreeMap::new(),
            meter: Meter::default(),
            must_hide: false,
        }
    }
}

impl MysqlDecoder {
    /// The next exchange's number.
    pub(super) fn number(&mut self) -> u64 {
        self.exchanges = self.exchanges.saturating_add(1);
        self.exchanges
    }
}

impl Decoder for MysqlDecoder {
    fn step(&mut self, side: Side, input: &mut BytesMut) -> Result<Step, DecodeError> {
        if self.must_hide {
            self.state = State::Over;
            return Err(DecodeError::upstream(
                "its answers would have to be masked, which is not done for MySQL",
            ));
        }
        let step = match side {
            Side::Client => self.client(input),
            Side::Upstream if self.state == State::Session => self.upstream(input),
            Side::Upstream => Ok(Step::Wait),
        };
        if step.is_err() {
            self.sequence = self.next_sequence();
            self.state = State::Over;
        }
        step
    }

    /// Clients take from it whether each statement is a transaction of its own.
    fn opened(&mut self, greeting: &Greeting, _: &CancelKey) -> Bytes {
        self.state = State::Session;
        self.asked = None;
        let told = greeting.parameters.iter().find(|(name, _)| name == super::STATUS);
        self.status = told.and_then(|(_, value)| value.parse().ok()).unwrap_or_default();
        words::ok(self.sequence, self.status)
    }

    /// The inventory has no such resource whose rows are recorded.
    fn record_rows(&mut self, _: Arc<Hiding>) {
        self.must_hide = true;
    }

    fn recorded(&mut self, _: u64, _: RecordId) {}

    fn sent(&mut self, number: u64, mask: Mask) {
        match self.asked.take() {
            Some(asked) if asked.number == number => {
                self.shows(&mask);
                self.asked_was_sent(asked);
            }
            other => self.asked = other,
        }
    }

    fn refuse(&mut self, number: u64, denial: &Denial) -> Refusal {
        let client = match self.asked.take() {
            Some(Asked { number: asked, what }) if asked == number => match what {
                What::Open => {
                    self.state = State::Over;
                    words::no_session(self.sequence, denial)
                }
                // The statement is judged without it.
                What::Gate(_) => Bytes::new(),
                What::Command(_) => words::refusal(1, denial),
            },
            other => {
                self.asked = other;
                Bytes::new()
            }
        };
        Refusal { client, upstream: Bytes::new() }
    }

    fn again(&mut self, number: u64) {
        match self.asked.take() {
            Some(Asked { number: asked, what: What::Command(work) }) if asked == number => {
                self.work = Some((*work).anew());
                self.settings = None;
            }
            other => self.asked = other,
        }
    }

    /// Nothing is ever said to be possible within terms: it is looked at once more, and refused.
    fn enclose(&mut self, number: u64, _: Terms) {
        self.again(number);
    }

    fn notice(&mut self, _: &Notice) -> Option<Bytes> {
        None
    }

    fn passed(&mut self) -> Spent {
        self.meter.take()
    }

    fn allow(&mut self, room: Spent) {
        self.meter.allow(room);
    }

    fn stop(&mut self, denial: &Denial) -> Stopped {
        self.cut(denial)
    }

    fn farewell(&mut self, denial: &Denial) -> Bytes {
        let sequence = self.next_sequence();
        let is_within_row = self.is_within_row();
        self.state = State::Over;
        if is_within_row { Bytes::new() } else { words::farewell(sequence, denial) }
    }

    fn is_idle(&self) -> bool {
        self.owed.is_none()
            && self.asked.is_none()
            && self.work.is_none()
            && self.status & IN_TRANSACTION == 0
    }
}
