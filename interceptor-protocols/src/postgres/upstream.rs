//! The upstream's side: its answers, attributed to what is owed, and passed on in as few pieces as they came.
//!
//! Promise: rows are never gathered; a message is changed or kept back only where it answers a look-up of ours, a
//! message that we replaced, or a COPY that we do not speak. An answer that nothing asked for is the upstream's fault.

use bytes::{Bytes, BytesMut};
use interceptor_core::{
    model::OutcomeStatus,
    protocol::{DecodeError, Done, Step},
};

use super::{
    decode::{Known, PostgresDecoder, State},
    frame::{self, Fields, Head, MAX_WHOLE},
    queue::{Changes, Entry, Gate, Kind},
    refuse,
};

/// The fields of an ErrorResponse that matter here.
#[derive(Debug, Default)]
pub(super) struct ErrorFields {
    pub(super) fatal: bool,
    pub(super) code: String,
    pub(super) message: String,
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
enum Fate {
    /// It goes on as it is.
    Pass,
    /// It goes no further.
    Swallow,
    /// The client gets this instead.
    Instead(Bytes),
    /// The upstream gets this back, the client nothing.
    Back(Bytes),
}

impl PostgresDecoder {
    pub(super) fn upstream(&mut self, input: &mut BytesMut) -> Result<Step, DecodeError> {
        if self.state == State::Over && !self.gone {
            return Ok(Step::Wait);
        }
        if self.work.is_none()
            && self.asked.is_none()
            && let Some(owed) = self.owed.take()
        {
            return Ok(Step::Answer { bytes: owed, done: Vec::new() });
        }
        // How much of the input goes on as it is.
        let mut ready = 0_usize;
        let mut done = Vec::new();
        loop {
            if self.streaming > 0 {
                let part = self.streaming.min(input.len().saturating_sub(ready));
                if part == 0 {
                    break;
                }
                self.streaming = self.streaming.saturating_sub(part);
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
            if self.may_stream(head)? {
                self.streaming = head.total;
                continue;
            }
            if head.total > MAX_WHOLE {
                return Err(DecodeError::upstream(format!(
                    "message {:?} of {} bytes; at most {MAX_WHOLE} are taken",
                    char::from(head.tag),
                    head.total
                )));
            }
            if rest.len() < head.total {
                break;
            }
            if self.is_special(head.tag) && ready > 0 {
                break;
            }
            let body = Bytes::copy_from_slice(rest.get(5..head.total).unwrap_or_default());
            match self.receive(head, body, &mut done)? {
                Fate::Pass => ready = ready.saturating_add(head.total),
                // Only special messages end so, and nothing was ready before them.
                fate => {
                    let _ = input.split_to(head.total);
                    return Ok(match fate {
                        Fate::Instead(bytes) => Step::Answer { bytes, done },
                        Fate::Back(bytes) => Step::Reply(bytes),
                        Fate::Swallow | Fate::Pass => Step::Answer { bytes: Bytes::new(), done },
                    });
                }
            }
        }
        if ready == 0 && done.is_empty() {
            return Ok(if self.gone { self.last_word() } else { Step::Wait });
        }
        Ok(Step::Answer { bytes: input.split_to(ready).freeze(), done })
    }

    fn last_word(&mut self) -> Step {
        self.state = State::Over;
        Step::Close(Bytes::new())
    }

    /// Rows go on as they come, however long.
    fn may_stream(&mut self, head: Head) -> Result<bool, DecodeError> {
        if head.tag == b'N' || head.tag == b'A' {
            return Ok(true);
        }
        if head.tag != b'D' || self.queue.first().is_some_and(Entry::is_gate) {
            return Ok(false);
        }
        let skipping = self.skipping;
        match self.queue.front() {
            Some(entry)
                if !skipping
                    && matches!(entry.kind, Kind::Query { failed: false, .. } | Kind::Execute(_)) =>
            {
                entry.rows = entry.rows.saturating_add(1);
                entry.bytes = entry.bytes.saturating_add(u64::try_from(head.total).unwrap_or(u64::MAX));
                Ok(true)
            }
            _ => Err(unexpected(head.tag)),
        }
    }

    /// Whether the message may become something else than passed on.
    fn is_special(&self, tag: u8) -> bool {
        let front = self.queue.first();
        match tag {
            b'S' => false,
            b'G' => true,
            b'E' | b'Z' => {
                front.is_some_and(|entry| entry.is_gate() || entry.replaced.is_some()) || self.skipping
            }
            _ => front.is_some_and(Entry::is_gate),
        }
    }

    fn receive(&mut self, head: Head, body: Bytes, done: &mut Vec<Done>) -> Result<Fate, DecodeError> {
        match head.tag {
            b'S' => {
                let mut fields = Fields::new(body);
                let read = fields.string().and_then(|name| fields.string().map(|value| (name, value)));
                let (name, value) = read.map_err(|_| DecodeError::upstream("a malformed ParameterStatus"))?;
                self.note_setting(&name, &value);
                Ok(Fate::Pass)
            }
            b'E' => self.error(head, body, done),
            b'Z' => self.ready(&body, done),
            tag if self.skipping => Err(unexpected(tag)),
            tag => self.answer(tag, head, body, done),
        }
    }

    fn answer(
        &mut self,
        tag: u8,
        head: Head,
        body: Bytes,
        done: &mut Vec<Done>,
    ) -> Result<Fate, DecodeError> {
        let Some(entry) = self.queue.front() else { return Err(unexpected(tag)) };
        if entry.replaced.is_some() {
            return Err(DecodeError::upstream("it carried out what no PostgreSQL can parse"));
        }
        entry.bytes = entry.bytes.saturating_add(u64::try_from(head.total).unwrap_or(u64::MAX));
        match (&mut entry.kind, tag) {
            (Kind::Gate(gate), _) => {
                gate_answer(gate, tag, body)?;
                if gate.stage == 5 && !gate.sync {
                    self.end_gate(done);
                }
                return Ok(Fate::Swallow);
            }
            (Kind::Query { failed: false, .. }, b'T') | (Kind::Describe { told: true, .. }, b'T' | b'n') => {
                if matches!(entry.kind, Kind::Describe { .. }) {
                    self.queue.pop();
                }
            }
            (Kind::Query { failed: false, .. }, b'C' | b'I') => self.end_statement(tag, &body, done)?,
            (Kind::Query { failed: false, .. } | Kind::Execute(_), b'G') => {
                return Ok(Fate::Back(refuse::copy_fail()));
            }
            (Kind::Query { .. } | Kind::Execute(_), b'H' | b'W') => {
                return Err(DecodeError::upstream("it began a COPY, which is not spoken yet"));
            }
            (Kind::Function { failed: false }, b'V') => {
                if let Some(exchange) = entry.exchange {
                    done.push(end(exchange, 0, OutcomeStatus::Completed, entry.bytes));
                }
                // ReadyForQuery still follows.
                entry.exchange = None;
            }
            (Kind::Describe { told, statement }, b't') if !*told => {
                *told = true;
                let statement = statement.clone();
                let types = parameter_types(body)?;
                if let Some(name) = statement {
                    self.names.statements.amend(&name, |prepared| prepared.types = types);
                }
            }
            (Kind::Parse(_), b'1') | (Kind::Bind(_), b'2') | (Kind::Close(_), b'3') => self.end_plain(done),
            (Kind::Execute(_), b'C' | b'I' | b's') => self.end_execute(tag, &body, done),
            _ => return Err(unexpected(tag)),
        }
        Ok(Fate::Pass)
    }

    /// ParseComplete, BindComplete, CloseComplete.
    fn end_plain(&mut self, done: &mut Vec<Done>) {
        let Some(entry) = self.queue.pop() else { return };
        if let Some(exchange) = entry.exchange {
            done.push(end(exchange, 0, OutcomeStatus::Completed, entry.bytes));
        }
        if let Kind::Parse(changes) | Kind::Bind(changes) | Kind::Close(changes) = entry.kind {
            self.settle(changes, true);
        }
    }

    fn end_execute(&mut self, tag: u8, body: &Bytes, done: &mut Vec<Done>) {
        let Some(entry) = self.queue.pop() else { return };
        if let Some(exchange) = entry.exchange {
            let rows = if tag == b's' { Some(entry.rows) } else { rows(body, entry.rows) };
            done.push(Done { rows, ..end(exchange, 0, OutcomeStatus::Completed, entry.bytes) });
        }
        if let Kind::Execute(changes) = entry.kind {
            self.settle(changes, tag == b'C');
        }
    }

    /// CommandComplete or EmptyQueryResponse in a simple query.
    fn end_statement(&mut self, tag: u8, body: &Bytes, done: &mut Vec<Done>) -> Result<(), DecodeError> {
        let mut settled = Changes::new();
        if let Some(entry) = self.queue.front()
            && let Kind::Query { places, at, opaque, .. } = &mut entry.kind
        {
            let (rows, bytes) = (rows(body, entry.rows), entry.bytes);
            (entry.rows, entry.bytes) = (0, 0);
            if *opaque {
                // However many statements it has, they are one action; the last one tells how it went.
                entry.bytes = bytes;
                entry.rows = rows.unwrap_or(0);
                return Ok(());
            }
            // Statements that answer nothing are passed by, except by the answer to a text without any other.
            while tag == b'C' && places.get(*at).is_some_and(|(answers, _)| !answers) {
                if let Some(exchange) = entry.exchange {
                    done.push(end(exchange, *at, OutcomeStatus::Completed, 0));
                }
                *at = at.saturating_add(1);
            }
            let Some((_, changes)) = places.get_mut(*at) else {
                return Err(DecodeError::upstream("it answered more statements than were judged"));
            };
            settled = std::mem::take(changes);
            if let Some(exchange) = entry.exchange {
                done.push(Done { rows, ..end(exchange, *at, OutcomeStatus::Completed, bytes) });
            }
            *at = at.saturating_add(1);
        }
        self.settle(settled, true);
        Ok(())
    }

    fn error(&mut self, head: Head, body: Bytes, done: &mut Vec<Done>) -> Result<Fate, DecodeError> {
        let error = ErrorFields::read(body);
        if error.fatal {
            self.gone = true;
            if let Some(entry) = self.queue.front()
                && let Some(exchange) = entry.exchange.take()
            {
                let place = match entry.kind {
                    Kind::Query { at, .. } => at,
                    _ => 0,
                };
                // Carried out or not: a COMMIT may have been.
                done.push(Done {
                    code: Some(error.code),
                    message: Some(error.message),
                    ..end(exchange, place, OutcomeStatus::Unknown, entry.bytes)
                });
            }
            return Ok(Fate::Pass);
        }
        let skipping = self.skipping;
        let Some(entry) = self.queue.front() else { return Err(unexpected(head.tag)) };
        if skipping {
            return Err(unexpected(head.tag));
        }
        entry.bytes = entry.bytes.saturating_add(u64::try_from(head.total).unwrap_or(u64::MAX));
        let fate = entry.replaced.take().map_or(Fate::Pass, Fate::Instead);
        match &mut entry.kind {
            // The end of an implicit transaction may fail, at its Sync.
            Kind::Sync => Ok(fate),
            Kind::Gate(gate) => {
                gate.failed = Some((error.code, error.message));
                if !gate.sync {
                    self.skipping = true;
                    self.end_gate(done);
                }
                Ok(Fate::Swallow)
            }
            Kind::Query { failed: false, .. } | Kind::Function { failed: false } => {
                self.fail_query(&error, done);
                Ok(fate)
            }
            Kind::Query { .. } | Kind::Function { .. } => Err(unexpected(head.tag)),
            Kind::Parse(_) | Kind::Bind(_) | Kind::Close(_) | Kind::Describe { .. } | Kind::Execute(_) => {
                self.fail_extended(&error, done);
                Ok(fate)
            }
        }
    }

    fn fail_query(&mut self, error: &ErrorFields, done: &mut Vec<Done>) {
        let mut changes = Changes::new();
        if let Some(entry) = self.queue.front() {
            let (first, count) = match &mut entry.kind {
                Kind::Query { places, at, failed, .. } => {
                    *failed = true;
                    changes.extend(places.iter_mut().flat_map(|(_, changes)| std::mem::take(changes)));
                    // A failing statement is never one that answers nothing.
                    while places.get(*at).is_some_and(|(answers, _)| !answers) {
                        if let Some(exchange) = entry.exchange {
                            done.push(end(exchange, *at, OutcomeStatus::Completed, 0));
                        }
                        *at = at.saturating_add(1);
                    }
                    (*at, places.len().max(1))
                }
                Kind::Function { failed } => {
                    *failed = true;
                    (0, 1)
                }
                _ => (0, 0),
            };
            if let Some(exchange) = entry.exchange.take() {
                done.push(Done {
                    code: Some(error.code.clone()),
                    message: Some(error.message.clone()),
                    ..end(exchange, first, OutcomeStatus::Failed, entry.bytes)
                });
                let rest = first.saturating_add(1)..count;
                done.extend(rest.map(|place| end(exchange, place, OutcomeStatus::Skipped, 0)));
            }
        }
        self.settle(changes, false);
    }

    fn fail_extended(&mut self, error: &ErrorFields, done: &mut Vec<Done>) {
        self.skipping = true;
        if let Some(entry) = self.queue.pop() {
            if let Some(exchange) = entry.exchange {
                done.push(Done {
                    code: Some(error.code.clone()),
                    message: Some(error.message.clone()),
                    ..end(exchange, 0, OutcomeStatus::Failed, entry.bytes)
                });
            }
            self.settle(changes_of(entry.kind), false);
        }
        if let Some(Entry { kind: Kind::Gate(gate), exchange, .. }) = self.queue.take_skipped_gate() {
            done.extend(exchange.map(|exchange| end(exchange, 0, OutcomeStatus::Skipped, 0)));
            let why = "an earlier message of the same pipeline failed, so its names cannot be looked up";
            self.learn(*gate, Err(why.to_owned()));
        }
    }

    /// The look-up at the front has ended.
    fn end_gate(&mut self, done: &mut Vec<Done>) {
        let Some(Entry { kind: Kind::Gate(mut gate), exchange, bytes, .. }) = self.queue.pop() else {
            return;
        };
        match gate.failed.take() {
            Some((code, message)) => {
                done.extend(exchange.map(|exchange| Done {
                    code: Some(code),
                    message: Some(message.clone()),
                    ..end(exchange, 0, OutcomeStatus::Failed, bytes)
                }));
                if !gate.sync {
                    self.owed = Some(refuse::lookup_failed(&message));
                }
                self.learn(*gate, Err(format!("its names could not be looked up: {message}")));
            }
            None => {
                let rows = u64::try_from(gate.reader.len()).ok();
                done.extend(
                    exchange
                        .map(|exchange| Done { rows, ..end(exchange, 0, OutcomeStatus::Completed, bytes) }),
                );
                let reader = std::mem::take(&mut gate.reader);
                let answer = reader.finish(&gate.question).map(|(answer, settings)| {
                    self.note_setting("client_encoding", &settings.client_encoding);
                    self.note_setting("standard_conforming_strings", &settings.standard_strings);
                    self.proven = gate.changes;
                    answer
                });
                self.learn(*gate, answer);
            }
        }
    }

    fn learn(&mut self, gate: Gate, answer: Result<interceptor_core::sql::Answer, String>) {
        self.enquiring = false;
        let Gate { segment, changes, question, .. } = gate;
        self.known = Some(Known { segment, changes, question, answer });
    }

    fn ready(&mut self, body: &Bytes, done: &mut Vec<Done>) -> Result<Fate, DecodeError> {
        let status = match body.first() {
            Some(status @ (b'I' | b'T' | b'E')) if body.len() == 1 => *status,
            _ => return Err(DecodeError::upstream("a malformed ReadyForQuery")),
        };
        if self.skipping {
            self.skipping = false;
            while self.queue.first().is_some_and(|entry| !entry.ends_skipping()) {
                if let Some(entry) = self.queue.pop() {
                    self.skip(entry, done);
                }
            }
        }
        let fate = match self.queue.first().map(|entry| &entry.kind) {
            Some(Kind::Sync) => {
                self.queue.pop();
                Fate::Pass
            }
            Some(Kind::Gate(gate)) if gate.sync => {
                if gate.stage < 5 && gate.failed.is_none() {
                    return Err(unexpected(b'Z'));
                }
                self.end_gate(done);
                Fate::Swallow
            }
            Some(Kind::Query { .. } | Kind::Function { .. }) => {
                if let Some(entry) = self.queue.pop() {
                    self.close_query(entry, done);
                }
                Fate::Pass
            }
            _ => return Err(unexpected(b'Z')),
        };
        self.status = status;
        if status == b'I' {
            self.names.portals.clear_settled();
        }
        if self.is_settled() {
            self.snapshot &= status == b'T';
            self.proven = self.changes;
        }
        Ok(fate)
    }

    /// A message that the server passed over.
    fn skip(&mut self, entry: Entry, done: &mut Vec<Done>) {
        if let Some(exchange) = entry.exchange {
            let places = match &entry.kind {
                Kind::Query { places, .. } => places.len().max(1),
                _ => 1,
            };
            done.extend((0..places).map(|place| end(exchange, place, OutcomeStatus::Skipped, 0)));
        }
        self.settle(changes_of(entry.kind), false);
    }

    /// ReadyForQuery after a simple query: whatever has not answered by now never will.
    fn close_query(&mut self, entry: Entry, done: &mut Vec<Done>) {
        if let (Some(exchange), Kind::Query { places, at, failed: false, opaque }) =
            (entry.exchange, &entry.kind)
        {
            if *opaque {
                let rows = Some(entry.rows).filter(|rows| *rows > 0);
                done.push(Done { rows, ..end(exchange, 0, OutcomeStatus::Completed, entry.bytes) });
            } else {
                let left = places.iter().enumerate().skip(*at);
                done.extend(left.map(|(place, (answers, _))| {
                    let status = if *answers { OutcomeStatus::Unknown } else { OutcomeStatus::Completed };
                    end(exchange, place, status, 0)
                }));
            }
        }
        self.settle(changes_of(entry.kind), false);
    }
}

fn changes_of(kind: Kind) -> Changes {
    match kind {
        Kind::Query { places, .. } => places.into_iter().flat_map(|(_, changes)| changes).collect(),
        Kind::Parse(changes) | Kind::Bind(changes) | Kind::Close(changes) | Kind::Execute(changes) => changes,
        Kind::Function { .. } | Kind::Describe { .. } | Kind::Sync | Kind::Gate(_) => Changes::new(),
    }
}

fn gate_answer(gate: &mut Gate, tag: u8, body: Bytes) -> Result<(), DecodeError> {
    gate.stage = match (gate.stage, tag) {
        (0, b'1') => 1,
        (1, b'2') => 2,
        (2, b'D') => {
            // Too long an answer is no answer; the rest of it is still read.
            if gate.reader.row(body).is_err() {
                gate.reader.spoil();
            }
            2
        }
        (2, b'C') => 3,
        (3, b'3') => 4,
        (4, b'3') => 5,
        _ => return Err(unexpected(tag)),
    };
    Ok(())
}

fn parameter_types(body: Bytes) -> Result<Vec<u32>, DecodeError> {
    let mut fields = Fields::new(body);
    let read = fields.count().and_then(|count| (0..count).map(|_| fields.u32()).collect());
    read.map_err(|_| DecodeError::upstream("a malformed ParameterDescription"))
}

/// The number at the end of a command tag, else the rows seen.
fn rows(body: &Bytes, seen: u64) -> Option<u64> {
    let tag = body.strip_suffix(&[0]).unwrap_or(body);
    let number = std::str::from_utf8(tag).ok()?.rsplit(' ').next()?.parse().ok();
    number.or((seen > 0).then_some(seen))
}

fn end(exchange: u64, place: usize, status: OutcomeStatus, bytes: u64) -> Done {
    Done { exchange, place, status, rows: None, bytes, code: None, message: None }
}

fn unexpected(tag: u8) -> DecodeError {
    DecodeError::upstream(format!("message {:?} answers nothing that was asked", char::from(tag)))
}
