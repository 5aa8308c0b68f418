//! The upstream's side: its answers, attributed to what is owed, and passed on in as few pieces as they came.
//!
//! Promise: rows are never gathered; a message is changed or kept back only where it answers a look-up of ours, a
//! message that we replaced. An answer that nothing asked for is the upstream's fault.

use bytes::{Buf as _, Bytes, BytesMut};
use interceptor_core::{
    model::OutcomeStatus,
    protocol::{DecodeError, Done, Endings, Step},
};

use super::{
    copy::Copying,
    decode::{PostgresDecoder, State},
    described,
    frame::{self, Fields, Head, MAX_WHOLE},
    outcome::end,
    own::Ends,
    queue::{Bounds, Entry, Kind},
    unveil::malformed,
    veil::MAX_ROW,
};

/// The fields of an ErrorResponse that matter here.
#[derive(Debug, Default)]
pub(super) struct ErrorFields {
    pub(super) fatal: bool,
    pub(super) code: String,
    pub(super) message: String,
    /// Whether its words may quote what is labelled.
    pub(super) quotes: bool,
}

impl ErrorFields {
    /// Reads a body; what is missing stays empty.
    pub(super) fn read(body: Bytes) -> Self {
        /// How much of a message is kept.
        const MAX_MESSAGE: usize = 4096;
        let mut fields = Fields::new(body);
        let mut error = Self::default();
        while let Ok(kind @ 1..) = fields.u8() {
            let Ok(text) = fields.text() else { break };
            let text = String::from_utf8_lossy(text.get(..text.len().min(MAX_MESSAGE)).unwrap_or_default());
            match kind {
                b'V' => error.fatal = matches!(&*text, "FATAL" | "PANIC"),
                b'C' => error.code = text.into_owned(),
                b'M' => error.message = text.into_owned(),
                _ => {}
            }
        }
        error
    }
}

/// What becomes of a message that was taken whole.
pub(super) enum Fate {
    /// It goes on as it is.
    Pass,
    /// It goes no further.
    Swallow,
    /// The client gets this instead.
    Instead(Bytes),
}

impl PostgresDecoder {
    pub(super) fn upstream(&mut self, input: &mut BytesMut) -> Result<Step, DecodeError> {
        if let Some(step) = self.before_input() {
            return Ok(step);
        }
        // How much of the input goes on as it is.
        let mut ready = 0_usize;
        // What goes on in another form, before it.
        let mut covered = BytesMut::new();
        let mut done = Endings::new();
        loop {
            if self.streaming > 0 {
                let Some(part) = self.stream_on(input, ready) else { break };
                ready = ready.saturating_add(part);
                continue;
            }
            if self.gone {
                break;
            }
            let rest = input.get(ready..).unwrap_or_default();
            let head =
                frame::head(rest).map_err(|_| DecodeError::upstream("a message of impossible length"))?;
            let Some(head) = head else { break };
            let whole = rest.len() >= head.total;
            if (matches!(head.tag, b'D' | b'd') || whole)
                && let Some(pause) = self.pauses(head, rest)
            {
                if ready == 0 && done.is_empty() && covered.is_empty() {
                    self.paused();
                    return Ok(pause);
                }
                break;
            }
            if !whole && self.is_recorded(head) {
                break;
            }
            if self.is_veiled(head.tag) {
                if !whole {
                    too_long(head, MAX_ROW)?;
                    break;
                }
                self.veiled(head, input, &mut ready, &mut covered)?;
                continue;
            }
            if !covered.is_empty() {
                break;
            }
            if self.may_stream(head)? {
                self.begin_stream(head, rest.get(5..head.total));
                continue;
            }
            too_long(head, MAX_WHOLE)?;
            if rest.len() < head.total {
                break;
            }
            if self.is_special(head.tag) && ready > 0 {
                break;
            }
            let body = rest.get(5..head.total).unwrap_or_default();
            match self.fate(head, body, &mut done)? {
                Fate::Pass => ready = ready.saturating_add(head.total),
                // Only special messages end so, and nothing was ready before them.
                fate => {
                    let _ = input.split_to(head.total);
                    return Ok(match fate {
                        Fate::Instead(bytes) => Step::Answer { bytes, done },
                        Fate::Swallow | Fate::Pass => Step::Answer { bytes: Bytes::new(), done },
                    });
                }
            }
        }
        if !covered.is_empty() {
            return Ok(Step::Answer { bytes: covered.freeze(), done });
        }
        if ready == 0 && done.is_empty() {
            return Ok(if self.gone { self.last_word() } else { Step::Wait });
        }
        Ok(Step::Answer { bytes: input.split_to(ready).freeze(), done })
    }

    /// Takes a row or copied data that is looked at, behind `ready` bytes that go on as they are: it goes on with them, or
    /// they and what it has become are `covered`.
    fn veiled(
        &mut self,
        head: Head,
        input: &mut BytesMut,
        ready: &mut usize,
        covered: &mut BytesMut,
    ) -> Result<(), DecodeError> {
        self.may_stream(head)?;
        let beyond = self.is_beyond();
        let frame = input.get(*ready..).and_then(|rest| rest.get(5..head.total)).unwrap_or_default();
        if !beyond {
            self.record_row(head, Some(frame));
        }
        let hidden = if beyond { Some(0) } else { self.first_hidden(head.tag, frame) };
        if hidden.is_none() && covered.is_empty() {
            *ready = ready.saturating_add(head.total);
            return Ok(());
        }
        let before = std::mem::take(ready);
        covered.reserve(input.len());
        covered.extend_from_slice(input.get(..before).unwrap_or_default());
        input.advance(before);
        let frame = input.get(..head.total).unwrap_or_default();
        match hidden {
            None => covered.extend_from_slice(frame),
            Some(_) if beyond => {}
            Some(place) => {
                self.cover(frame.get(5..).unwrap_or_default(), (head.tag, place), covered)?;
            }
        }
        input.advance(head.total);
        Ok(())
    }

    /// What comes before anything that the upstream says.
    fn before_input(&mut self) -> Option<Step> {
        if self.state == State::Over {
            return Some(Step::Wait);
        }
        if let Some(bytes) = self.meter.back.take() {
            return Some(Step::Reply(bytes));
        }
        if self.work.is_some() || self.asked.is_some() {
            return None;
        }
        self.owed.take().map(|owed| Step::Answer { bytes: owed, done: Endings::new() })
    }

    /// A message goes on as it comes, or goes nowhere; `body` is its body, where it has come whole.
    fn begin_stream(&mut self, head: Head, body: Option<&[u8]>) {
        self.streaming = head.total;
        let is_row = matches!(head.tag, b'D' | b'd');
        let beyond = self.meter.stopped || self.is_beyond();
        self.meter.swallowing = beyond && is_row;
        if is_row && !beyond {
            self.record_row(head, body);
        }
    }

    /// How much more of the streaming message goes on as it is; none where nothing can be done now.
    fn stream_on(&mut self, input: &mut BytesMut, ready: usize) -> Option<usize> {
        if self.meter.swallowing {
            return (ready == 0 && self.swallow(input)).then_some(0);
        }
        let part = self.streaming.min(input.len().saturating_sub(ready));
        self.streaming = self.streaming.saturating_sub(part);
        (part > 0).then_some(part)
    }

    fn fate(&mut self, head: Head, body: &[u8], done: &mut Endings) -> Result<Fate, DecodeError> {
        // What it is about, before it is taken for answered.
        let said = self.said(head.tag, body)?;
        // An error to an exchange of our own may reach the client later, in another's place.
        let own = head.tag == b'E' && self.queue.first().is_some_and(Entry::is_gate);
        let body = match &said {
            Some(said) if own => said.get(5..).unwrap_or_default(),
            _ => body,
        };
        let fate = match (self.receive(head, body, done)?, said) {
            (Fate::Pass, Some(said)) => Fate::Instead(said),
            (fate, _) => fate,
        };
        if head.tag == b'C' {
            self.passed_end();
        }
        if self.meter.stopped { self.behind_cut(head.tag, fate) } else { Ok(fate) }
    }

    fn last_word(&mut self) -> Step {
        self.state = State::Over;
        Step::Close(Bytes::new())
    }

    /// Rows go on as they come, however long.
    fn may_stream(&mut self, head: Head) -> Result<bool, DecodeError> {
        if matches!(head.tag, b'N' | b'A') {
            return Ok(self.labels.is_empty());
        }
        if !matches!(head.tag, b'D' | b'd') || self.queue.first().is_some_and(Entry::is_gate) {
            return Ok(false);
        }
        let skipping = self.skipping;
        match self.queue.front() {
            Some(entry)
                if !skipping
                    && matches!(entry.kind, Kind::Query { failed: false, .. } | Kind::Execute { .. })
                    && entry.copying == (head.tag == b'd').then_some(Copying::Out) =>
            {
                entry.rows = entry.rows.saturating_add(u64::from(head.tag == b'D'));
                entry.bytes = entry.bytes.saturating_add(u64::try_from(head.total).unwrap_or(u64::MAX));
                if !self.meter.stopped {
                    self.meter.row(head.total);
                }
                Ok(true)
            }
            _ => Err(unexpected(head.tag)),
        }
    }

    /// Whether the message may become something else than passed on.
    fn is_special(&self, tag: u8) -> bool {
        let front = self.queue.first();
        match tag {
            b'E' | b'N' | b'A' | b'S' | b'V' if !self.labels.is_empty() => true,
            b'C' if !self.labels.without_counts().is_empty() => true,
            b'S' => false,
            _ if self.meter.stopped => true,
            b'E' | b'Z' => {
                let changed =
                    |entry: &Entry| entry.is_gate() || entry.replaced.is_some() || is_enclosed(entry);
                front.is_some_and(changed) || self.skipping
            }
            b'C' => front.is_some_and(|entry| entry.is_gate() || is_enclosed(entry)),
            _ => front.is_some_and(Entry::is_gate),
        }
    }

    fn receive(&mut self, head: Head, body: &[u8], done: &mut Endings) -> Result<Fate, DecodeError> {
        match head.tag {
            b'S' => {
                let mut fields = Fields::new(Bytes::copy_from_slice(body));
                let read = fields.string().and_then(|name| fields.string().map(|value| (name, value)));
                let (name, value) = read.map_err(|_| DecodeError::upstream("a malformed ParameterStatus"))?;
                self.note_setting(&name, &value);
                Ok(Fate::Pass)
            }
            b'E' => self.error(head, Bytes::copy_from_slice(body), done),
            // Not where there is nothing to be masked: there they go on as they come.
            b'N' | b'A' => Ok(Fate::Pass),
            b'Z' => self.ready(body, done),
            tag if self.skipping => Err(unexpected(tag)),
            tag => self.answer(tag, head, body, done),
        }
    }

    fn answer(&mut self, tag: u8, head: Head, body: &[u8], done: &mut Endings) -> Result<Fate, DecodeError> {
        let Some(entry) = self.queue.front() else { return Err(unexpected(tag)) };
        if entry.replaced.is_some() {
            return Err(DecodeError::upstream("it carried out what no PostgreSQL can parse"));
        }
        if matches!(tag, b'C' | b'I' | b's') && !entry.ends_copy(tag) {
            return Err(unexpected(tag));
        }
        entry.bytes = entry.bytes.saturating_add(u64::try_from(head.total).unwrap_or(u64::MAX));
        match (&mut entry.kind, tag) {
            (Kind::Gate(gate), _) => {
                gate.answer(tag, Bytes::copy_from_slice(body))?;
                if gate.is_answered() && gate.ends == Ends::Flush {
                    return Ok(self.end_gate(done));
                }
                return Ok(Fate::Swallow);
            }
            (Kind::Query { failed: false, .. } | Kind::Execute { .. }, b'C')
                if entry.bounds == Bounds::Enclosed =>
            {
                return self.weigh(head, body, done);
            }
            // It changes rows, all at once: it ends in no other way.
            (Kind::Query { .. } | Kind::Execute { .. }, b'I' | b's') if entry.bounds == Bounds::Enclosed => {
                return Err(unexpected(tag));
            }
            (Kind::Query { failed: false, .. }, b'T') => self.describe(body)?,
            (Kind::Describe { told: true, rows, .. }, b'T' | b'n') => {
                if let (Some(rows), b'T') = (rows, tag) {
                    rows.set(described::read(Bytes::copy_from_slice(body)).map_err(|_| malformed(tag))?);
                }
                self.queue.pop();
            }
            (Kind::Query { failed: false, .. }, b'C' | b'I') => self.end_statement(tag, body, done)?,
            (Kind::Query { failed: false, .. } | Kind::Execute { .. }, b'G' | b'H' | b'c') => {
                entry.copy_answer(tag)?;
                match tag {
                    b'H' => self.begin_copy(body)?,
                    b'c' => self.end_copy()?,
                    _ => {}
                }
            }
            (Kind::Function { failed: false }, b'V') => {
                // ReadyForQuery still follows.
                let (exchange, bytes) = (entry.exchange.take(), entry.bytes);
                let recorded = self.unrecorded();
                done.extend(
                    exchange.map(|exchange| Done {
                        recorded,
                        ..end(exchange, 0, OutcomeStatus::Completed, bytes)
                    }),
                );
            }
            (Kind::Describe { told, statement, .. }, b't') if !*told => {
                *told = true;
                let statement = statement.clone();
                let types = parameter_types(body)?;
                if let Some(name) = statement {
                    self.names.statements.amend(&name, |prepared| prepared.types = types);
                }
            }
            (Kind::Parse(_), b'1') | (Kind::Bind(_), b'2') | (Kind::Close(_), b'3') => self.end_plain(done),
            (Kind::Execute { .. }, b'C' | b'I' | b's') => self.end_execute(tag, body, done),
            _ => return Err(unexpected(tag)),
        }
        Ok(Fate::Pass)
    }
}

fn is_enclosed(entry: &Entry) -> bool {
    entry.bounds == Bounds::Enclosed
}

/// A message that has to be held whole must not be longer than that.
fn too_long(head: Head, limit: usize) -> Result<(), DecodeError> {
    if head.total <= limit {
        return Ok(());
    }
    Err(DecodeError::upstream(format!(
        "message {:?} of {} bytes; at most {limit} are taken",
        char::from(head.tag),
        head.total
    )))
}

fn parameter_types(body: &[u8]) -> Result<Vec<u32>, DecodeError> {
    let mut fields = Fields::new(Bytes::copy_from_slice(body));
    let read = fields.count().and_then(|count| (0..count).map(|_| fields.u32()).collect());
    read.map_err(|_| DecodeError::upstream("a malformed ParameterDescription"))
}

pub(super) fn unexpected(tag: u8) -> DecodeError {
    DecodeError::upstream(format!("message {:?} answers nothing that was asked", char::from(tag)))
}
