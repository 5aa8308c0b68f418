//! The state of one connection: start-up, then the queue of what is owed and the names that the session knows.
//!
//! The client's side is in `client.rs`, the upstream's in `upstream.rs`; both only touch what is here.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use interceptor_core::{
    Terms,
    catalogue::Catalogue,
    mask::{Bindings, Hiding, Labelled, Labels, Mask, Tokens},
    model::{RecordId, Spent},
    permit::{Denial, Notice},
    protocol::{CancelKey, DecodeError, Decoder, Greeting, Side, Step, Stopped},
    sql::Moment,
};

use smallvec::smallvec;

use super::{
    action::{Change, Session},
    asked::Asked,
    circumstances::StateOfSession,
    enclose::Enclosing,
    frame::Writer,
    image::Nesting,
    known::Known,
    meter::Meter,
    need::{Sources, View},
    part::Part,
    queue::{Changes, Planned, Queue},
    refuse,
    turn::Turns,
    work::Work,
};

/// Where the connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// No StartupMessage yet.
    Start,
    /// The opening is being judged, or the log-in is under way.
    Opening,
    /// In session.
    Session,
    /// The client said goodbye; what it asked before is still answered.
    Leaving,
    /// Nothing more is decoded.
    Over,
}

/// Decodes one connection.
#[derive(Debug)]
pub(super) struct PostgresDecoder {
    pub(super) state: State,
    pub(super) asked_tls: bool,
    pub(super) asked_gss: bool,
    /// The frame that is being judged, between its parts.
    pub(super) work: Option<Work>,
    /// What the relay has been asked about.
    pub(super) asked: Option<Asked>,
    /// Whether an exchange of our own is under way.
    pub(super) enquiring: bool,
    /// Whether what is to be looked at again stands behind what has no answer yet ([`Waits::Behind`](interceptor_core::permit::Waits)).
    pub(super) behind: bool,
    /// Whether there may be a savepoint in the transaction under way.
    pub(super) nesting: Nesting,
    /// What is being enclosed, which is rare and has much to remember.
    pub(super) enclosing: Option<Box<Enclosing>>,
    pub(super) queue: Queue,
    pub(super) names: Session,
    /// The database that the client named.
    pub(super) database: String,
    /// The transaction status that the server told last.
    pub(super) status: u8,
    /// The server passes messages over until the next Sync.
    pub(super) skipping: bool,
    /// Extended messages have been sent since the last Sync or Query.
    pub(super) piping: bool,
    /// Something that takes a snapshot was sent in the transaction under way.
    pub(super) snapshot: bool,
    /// Counts exchanges handed out.
    pub(super) exchanges: u64,
    /// Counts planned changes of names.
    pub(super) ops: u64,
    /// The count of `ops` at which the stretch of messages between two Syncs began: they fail together.
    pub(super) segment_op: u64,
    /// Counts such stretches.
    pub(super) segment: u64,
    /// What the session has changed of what names mean, and of how texts are read.
    pub(super) turns: Turns,
    /// What look-ups have brought.
    pub(super) known: Known,
    /// As whom it asks, where that is known.
    pub(super) view: Option<View>,
    /// From whom what is judged now may have what it needs.
    pub(super) sources: Sources,
    /// The stretch in which a message was refused: the server passes over the rest of it for sure.
    pub(super) refused_in: Option<u64>,
    /// What the session has set, and whether it can be kept waiting.
    pub(super) state_of_session: StateOfSession,
    /// Why texts cannot be read any more: a setting that changes how.
    pub(super) unreadable: Option<String>,
    /// An error that the client is owed because our own look-up broke its pipeline.
    pub(super) owed: Option<Bytes>,
    /// The server's error to a look-up of ours that was cancelled, and the stretch of messages that it was for.
    pub(super) cancelled: Option<(u64, Bytes)>,
    /// A client's message that is taken in parts.
    pub(super) part: Option<Part>,
    /// Bytes of an upstream message that are still to be passed on.
    pub(super) streaming: usize,
    /// The upstream has said its last word.
    pub(super) gone: bool,
    pub(super) meter: Meter,
    /// The labels of the resource's data.
    pub(super) labels: Arc<Labels>,
    /// What is bound to them.
    pub(super) bindings: Arc<Bindings>,
    /// The run's tokens for them.
    pub(super) tokens: Tokens,
    /// How many copies of labelled data had been made when what is judged now was begun to be.
    pub(super) copies: u64,
    /// What was hidden last, for what answers nothing that was asked; none before anything was.
    pub(super) mask: Option<Mask>,
    /// What is hidden in rows that are recorded; none where they are not.
    pub(super) recording: Option<Arc<Hiding>>,
}

impl PostgresDecoder {
    /// A decoder for a new connection to a resource that has this catalogue, and whose data is labelled so, of a run with
    /// these tokens.
    pub(super) fn new(catalogue: Arc<Catalogue>, labelled: Labelled, tokens: Tokens) -> Self {
        let Labelled { labels, bindings } = labelled;
        Self {
            state: State::Start,
            asked_tls: false,
            asked_gss: false,
            work: None,
            asked: None,
            enquiring: false,
            behind: false,
            nesting: Nesting::None,
            enclosing: None,
            queue: Queue::default(),
            names: Session::default(),
            database: String::new(),
            status: b'I',
            skipping: false,
            piping: false,
            snapshot: false,
            exchanges: 0,
            ops: 0,
            segment_op: 0,
            segment: 0,
            turns: Turns::new(catalogue),
            known: Known::default(),
            view: None,
            sources: Sources::default(),
            refused_in: None,
            state_of_session: StateOfSession::default(),
            unreadable: None,
            owed: None,
            cancelled: None,
            part: None,
            streaming: 0,
            gone: false,
            meter: Meter::new(),
            labels,
            bindings,
            tokens,
            copies: 0,
            mask: None,
            recording: None,
        }
    }

    /// The next exchange's number.
    pub(super) fn number(&mut self) -> u64 {
        self.exchanges = self.exchanges.saturating_add(1);
        self.exchanges
    }

    fn op(&mut self) -> u64 {
        self.ops = self.ops.saturating_add(1);
        self.ops
    }

    /// Plans a change of names by a message that is being sent.
    pub(super) fn plan(&mut self, change: Change) -> Changes {
        let op = self.op();
        match change {
            Change::Prepare(name, prepared) => {
                self.names.statements.plan(op, &name, Some(prepared));
                smallvec![(op, Planned::Statement(name))]
            }
            Change::Deallocate(Some(name)) => {
                self.names.statements.plan(op, &name, None);
                smallvec![(op, Planned::Statement(name))]
            }
            Change::Deallocate(None) => {
                self.names.statements.plan_clear(op);
                smallvec![(op, Planned::AllStatements)]
            }
            Change::Bind(name, portal) => {
                self.names.portals.plan(op, &name, Some(portal));
                smallvec![(op, Planned::Portal(name))]
            }
            Change::ClosePortal(name) => {
                // A cursor is a portal too.
                self.names.portals.plan(op, &name, None);
                self.names.cursors.plan(op, &name, None);
                smallvec![(op, Planned::Portal(name.clone())), (op, Planned::Cursor(name))]
            }
            Change::Declare(name, cursor) => {
                self.names.cursors.plan(op, &name, Some(cursor));
                smallvec![(op, Planned::Cursor(name))]
            }
            Change::Discard => {
                self.names.statements.plan_clear(op);
                self.names.portals.plan_clear(op);
                self.names.cursors.plan_clear(op);
                smallvec![(op, Planned::AllStatements), (op, Planned::AllPortals), (op, Planned::AllCursors)]
            }
        }
    }

    /// The server has carried these out, or never will.
    pub(super) fn settle(&mut self, changes: Changes, done: bool) {
        for (op, planned) in changes {
            match planned {
                Planned::Statement(name) => self.names.statements.settle(op, &name, done),
                Planned::Portal(name) => self.names.portals.settle(op, &name, done),
                Planned::Cursor(name) => self.names.cursors.settle(op, &name, done),
                Planned::AllStatements => self.names.statements.settle_clear(op, done),
                Planned::AllPortals => self.names.portals.settle_clear(op, done),
                Planned::AllCursors => self.names.cursors.settle_clear(op, done),
            }
        }
    }

    /// Whether nothing is under way, so that what the server told last is how things are.
    pub(super) fn is_settled(&self) -> bool {
        self.queue.is_empty() && !self.piping
    }

    /// Whether the server passes over what the client sends now.
    pub(super) fn skips_now(&self) -> bool {
        self.skipping && !self.queue.has_sync()
    }

    /// A stretch between two Syncs ends with the message being sent.
    pub(super) fn end_segment(&mut self) {
        self.piping = false;
        self.segment = self.segment.saturating_add(1);
        self.segment_op = self.ops.saturating_add(1);
        self.turns.stretch_ended();
    }

    /// Now, as far as answers of the catalogue go.
    pub(super) fn moment(&self) -> Moment {
        Moment {
            changes: self.turns.changes(),
            segment: Some(self.segment),
            copies: self.copies,
            stage: Some(self.turns.catalogue().stage()),
        }
    }

    /// Notes a setting that the server reports.
    pub(super) fn note_setting(&mut self, name: &str, value: &str) {
        match name {
            "client_encoding" if value != "UTF8" => {
                self.unreadable =
                    Some(format!("client_encoding is {value}, and only UTF8 is read; reconnect or RESET it"));
            }
            "standard_conforming_strings" if value != "on" => {
                self.unreadable = Some("standard_conforming_strings is off; reconnect".to_owned());
            }
            _ => {}
        }
    }
}

impl Decoder for PostgresDecoder {
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

    fn next_reads(&self, input: &[u8]) -> usize {
        self.next_frame(input)
    }

    fn opened(&mut self, greeting: &Greeting, given: &CancelKey) -> Bytes {
        use bytes::BufMut as _;
        self.state = State::Session;
        self.asked = None;
        for (name, value) in &greeting.parameters {
            self.note_setting(name, value);
        }
        let (before, after) = split_negotiation(&greeting.bytes);
        let mut out = Writer::default();
        out.message(b'R', |out| out.put_u32(0));
        let ok = out.finish();
        let mut out = Writer::default();
        out.message(b'K', |out| {
            out.put_u32(given.process);
            out.put_slice(&given.secret);
        });
        out.message(b'Z', |out| out.put_u8(b'I'));
        [before, ok, after, out.finish()].concat().into()
    }

    fn record_rows(&mut self, hiding: Arc<Hiding>) {
        // Without labels it is not known of any row what it is made of.
        self.recording = Some(hiding).filter(|_| !self.labels.is_empty());
    }

    fn recorded(&mut self, number: u64, record: RecordId) {
        if self.asked.as_ref().is_some_and(|asked| asked.number == number) {
            self.enclosed_is_recorded(record);
        }
    }

    fn sent(&mut self, number: u64, mask: Mask) {
        if self.asked.as_ref().is_some_and(|asked| asked.number == number)
            && let Some(asked) = self.asked.take()
        {
            self.asked_was_sent(asked, mask);
        }
    }

    fn refuse(&mut self, number: u64, denial: &Denial) -> interceptor_core::protocol::Refusal {
        match self.asked.take() {
            Some(asked) if asked.number == number => self.asked_was_refused(asked, denial),
            other => {
                self.asked = other;
                interceptor_core::protocol::Refusal { client: Bytes::new(), upstream: Bytes::new() }
            }
        }
    }

    fn again(&mut self, number: u64) {
        match self.asked.take() {
            Some(asked) if asked.number == number => self.look_again(asked),
            other => self.asked = other,
        }
    }

    fn enclose(&mut self, number: u64, terms: Terms) {
        match self.asked.take() {
            Some(asked) if asked.number == number => self.begin_enclosing(asked, terms),
            other => self.asked = other,
        }
    }

    fn notice(&mut self, notice: &Notice) -> Option<Bytes> {
        let between = self.state == State::Session && self.streaming == 0;
        between.then(|| refuse::notice(notice))
    }

    fn passed(&mut self) -> Spent {
        self.has_passed()
    }

    fn allow(&mut self, room: Spent) {
        self.may_pass(room);
    }

    fn stop(&mut self, denial: &Denial) -> Stopped {
        self.cut(denial)
    }

    fn farewell(&mut self, denial: &Denial) -> Bytes {
        self.state = State::Over;
        refuse::farewell(denial)
    }

    fn is_idle(&self) -> bool {
        self.is_settled()
            && self.meter.back.is_none()
            && self.work.is_none()
            && self.asked.is_none()
            && self.enclosing.is_none()
            && self.part.is_none()
            && self.status == b'I'
    }
}

/// A NegotiateProtocolVersion at the beginning of a greeting must reach the client before AuthenticationOk.
fn split_negotiation(greeting: &Bytes) -> (Bytes, Bytes) {
    match super::frame::head(greeting) {
        Ok(Some(head)) if head.tag == b'v' && head.total <= greeting.len() => {
            (greeting.slice(..head.total), greeting.slice(head.total..))
        }
        _ => (Bytes::new(), greeting.clone()),
    }
}
