//! The state of one connection: what was asked, what is owed, and where both streams stand.
//!
//! The client's side is in `client.rs`, the upstream's in `upstream.rs`; both only touch what is here.

use std::{collections::VecDeque, sync::Arc};

use bytes::{Bytes, BytesMut};
use interceptor_core::{
    Terms,
    mask::{Hiding, Labelled, Labels, Mask},
    model::{RecordId, Spent},
    permit::{Denial, Notice},
    protocol::{CancelKey, DecodeError, Decoder, Greeting, Refusal, Side, Step, Stopped},
};

use crate::meter::Meter;

use super::{
    client::{Asked, Ready, Tail},
    command::Scan,
    queue::{Entry, Kind, Queue, Queued},
    upstream::Answering,
    words,
};

/// Where the connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing has come yet, or only what begins TLS.
    Start(Began),
    /// The opening is being judged, or the log-in is under way.
    Opening,
    /// In session.
    Session,
    /// The client said goodbye; what it asked before is still answered.
    Leaving,
    /// Nothing more is decoded.
    Over,
}

/// How a connection began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Began {
    Plain,
    Tls,
}

/// Whether what is sent is queued by the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transaction {
    None,
    /// MULTI was sent, or carried out, and neither EXEC nor DISCARD.
    Open,
}

/// How many subscriptions there are, as the server told last.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Subscribed {
    pub(super) channels: u64,
    pub(super) patterns: u64,
    pub(super) shards: u64,
}

impl Subscribed {
    pub(super) fn is_none(self) -> bool {
        (self.channels, self.patterns, self.shards) == (0, 0, 0)
    }
}

/// Decodes one connection.
#[derive(Debug)]
pub(super) struct RedisDecoder {
    pub(super) state: State,
    pub(super) scan: Scan,
    /// What is left of a command that was too long to be held.
    pub(super) tail: Option<Tail>,
    /// What is to be asked anew.
    pub(super) again: Option<Ready>,
    /// What the relay has been asked about.
    pub(super) asked: Option<Asked>,
    /// Counts exchanges handed out.
    pub(super) exchanges: u64,
    /// Whether what is sent now is queued.
    pub(super) sends_into: Transaction,
    /// Whether what is answered now was queued.
    pub(super) answers_from: Transaction,
    pub(super) queue: Queue,
    pub(super) queued: VecDeque<Queued>,
    pub(super) subscribed: Subscribed,
    /// The answer under way.
    pub(super) answering: Option<Answering>,
    pub(super) meter: Meter,
    /// An answer was cut in its middle.
    pub(super) is_cut: bool,
    /// The labels of the resource's data.
    pub(super) labels: Arc<Labels>,
    /// What was hidden last, for what answers nothing that was asked; none before anything was.
    pub(super) mask: Option<Mask>,
}

impl RedisDecoder {
    /// A decoder for a new connection to a resource whose data is labelled so.
    pub(super) fn new(labelled: Labelled) -> Self {
        Self {
            state: State::Start(Began::Plain),
            scan: Scan::default(),
            tail: None,
            again: None,
            asked: None,
            exchanges: 0,
            sends_into: Transaction::None,
            answers_from: Transaction::None,
            queue: Queue::default(),
            queued: VecDeque::new(),
            subscribed: Subscribed::default(),
            answering: None,
            meter: Meter::default(),
            is_cut: false,
            labels: labelled.labels,
            mask: None,
        }
    }

    /// The next exchange's number.
    pub(super) fn number(&mut self) -> u64 {
        self.exchanges = self.exchanges.saturating_add(1);
        self.exchanges
    }

    /// Bytes of ours for the client, behind all that it is owed: now, where that is nothing.
    pub(super) fn say(&mut self, bytes: Bytes) -> Bytes {
        if self.queue.is_empty() && self.answering.is_none() {
            return bytes;
        }
        let kind = Kind::Ours(bytes);
        self.queue.push(Entry { kind, exchange: None, replaced: None, mask: Mask::Nothing, changes: 0 });
        Bytes::new()
    }
}

impl Decoder for RedisDecoder {
    fn step(&mut self, side: Side, input: &mut BytesMut) -> Result<Step, DecodeError> {
        let step = match side {
            Side::Client => self.client(input),
            Side::Upstream => self.upstream(input),
        };
        if step.is_err() {
            self.state = State::Over;
        }
        step
    }

    fn opened(&mut self, _greeting: &Greeting, _given: &CancelKey) -> Bytes {
        // A server says nothing before it is asked.
        self.state = State::Session;
        Bytes::new()
    }

    fn record_rows(&mut self, _hiding: Arc<Hiding>) {
        // There are no rows: the inventory refuses to want them recorded.
    }

    fn recorded(&mut self, _number: u64, _record: RecordId) {}

    fn sent(&mut self, number: u64, mask: Mask) {
        if let Some(asked) = self.asked.take_if(|asked| asked.number == number) {
            self.was_sent(asked, mask);
        }
    }

    fn refuse(&mut self, number: u64, denial: &Denial) -> Refusal {
        if self.state == State::Opening {
            self.state = State::Over;
            return Refusal { client: words::refusal(denial), upstream: Bytes::new() };
        }
        match self.asked.take_if(|asked| asked.number == number) {
            Some(asked) => self.was_refused(asked, denial),
            None => Refusal { client: Bytes::new(), upstream: Bytes::new() },
        }
    }

    fn again(&mut self, number: u64) {
        self.again = self.asked.take_if(|asked| asked.number == number).map(|asked| asked.ready);
    }

    fn enclose(&mut self, number: u64, _terms: Terms) {
        // Asked anew as it was: that it cannot be enclosed, it says itself.
        self.again(number);
    }

    fn notice(&mut self, _notice: &Notice) -> Option<Bytes> {
        // Whatever is said to a client, it takes for the answer.
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
        self.state = State::Over;
        // In the middle of an answer it would be taken for a part of it.
        if self.answering.is_some() { Bytes::new() } else { words::refusal(denial) }
    }

    fn is_idle(&self) -> bool {
        self.queue.is_empty()
            && self.answering.is_none()
            && self.asked.is_none()
            && self.again.is_none()
            && self.tail.is_none()
            && self.sends_into == Transaction::None
            && self.subscribed.is_none()
    }
}
