//! How things end: completions, errors, and what a failing server passes over, told of the exchanges they belong to.

use bytes::Bytes;
use interceptor_core::{
    model::OutcomeStatus,
    protocol::{DecodeError, Done, Endings},
    sql::{Answer, Moment, Question},
};

use super::{
    decode::PostgresDecoder,
    frame::Head,
    image::Nesting,
    need::Told,
    own::{Ends, Errand, Failed, Gate, Sought},
    queue::{Bounds, Changes, Entry, Kind, Place},
    recorded::ended,
    refuse,
    upstream::{ErrorFields, Fate, unexpected},
};

/// The isolation level in which every statement has a snapshot of its own, and so sees the catalogue as it is.
const READ_COMMITTED: &str = "read committed";
/// `query_canceled`: by a cancel request, or by a timeout that the client has set.
const QUERY_CANCELED: &str = "57014";

impl PostgresDecoder {
    /// ParseComplete, BindComplete, CloseComplete.
    pub(super) fn end_plain(&mut self, done: &mut Endings) {
        let Some(entry) = self.queue.pop() else { return };
        if let Some(exchange) = entry.exchange {
            done.push(end(exchange, 0, OutcomeStatus::Completed, entry.bytes));
        }
        if let Kind::Parse(changes) | Kind::Bind(changes) | Kind::Close(changes) = entry.kind {
            self.settle(changes, true);
        }
    }

    pub(super) fn end_execute(&mut self, tag: u8, body: &[u8], done: &mut Endings) {
        let Some(mut entry) = self.queue.pop() else { return };
        if let Some(exchange) = entry.exchange {
            let rows = if tag == b's' { Some(entry.rows) } else { rows(body, entry.rows) };
            let recorded = ended(&mut entry.gathered, rows);
            done.push(Done { rows, recorded, ..end(exchange, 0, OutcomeStatus::Completed, entry.bytes) });
        }
        if let Kind::Execute { changes, .. } = entry.kind {
            self.settle(changes, tag == b'C');
        }
    }

    /// CommandComplete or EmptyQueryResponse in a simple query.
    pub(super) fn end_statement(
        &mut self,
        tag: u8,
        body: &[u8],
        done: &mut Endings,
    ) -> Result<(), DecodeError> {
        let mut settled = Changes::new();
        if let Some(entry) = self.queue.front()
            && let Kind::Query { places, at, opaque, .. } = &mut entry.kind
        {
            let (rows, bytes) = (rows(body, entry.rows), entry.bytes);
            (entry.rows, entry.bytes) = (0, 0);
            entry.veil.end();
            if *opaque {
                // However many statements it has, they are one action; the last one tells how it went.
                entry.bytes = bytes;
                entry.rows = rows.unwrap_or(0);
                return Ok(());
            }
            // Statements that answer nothing are passed by, except by the answer to a text without any other.
            while tag == b'C' && places.get(*at).is_some_and(|place| !place.answers) {
                if let Some(exchange) = entry.exchange {
                    done.push(end(exchange, *at, OutcomeStatus::Completed, 0));
                }
                *at = at.saturating_add(1);
            }
            let Some(place) = places.get_mut(*at) else {
                return Err(DecodeError::upstream("it answered more statements than were judged"));
            };
            settled = std::mem::take(&mut place.changes);
            let recorded = ended(&mut entry.gathered, rows);
            if let Some(exchange) = entry.exchange {
                done.push(Done { rows, recorded, ..end(exchange, *at, OutcomeStatus::Completed, bytes) });
            }
            *at = at.saturating_add(1);
        }
        self.settle(settled, true);
        Ok(())
    }

    pub(super) fn error(&mut self, head: Head, body: Bytes, done: &mut Endings) -> Result<Fate, DecodeError> {
        let mut error = ErrorFields::read(body.clone());
        error.quotes = !self.labels.is_empty();
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
                    message: recordable(&error),
                    code: Some(error.code),
                    recorded: ended(&mut entry.gathered, None),
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
                if error.code == QUERY_CANCELED && gate.errand.comes_before() {
                    self.cancelled = Some((self.segment, refuse::again(&body)));
                }
                let message = recordable(&error).unwrap_or_else(|| format!("error {}", error.code));
                gate.failed = Some(Failed { code: error.code, message, body });
                if gate.ends == Ends::Flush {
                    self.skipping = true;
                    return Ok(self.end_gate(done));
                }
                Ok(Fate::Swallow)
            }
            Kind::Query { failed: false, .. } | Kind::Function { failed: false } => {
                self.fail_query(&error, done);
                Ok(fate)
            }
            Kind::Query { .. } | Kind::Function { .. } => Err(unexpected(head.tag)),
            Kind::Parse(_)
            | Kind::Bind(_)
            | Kind::Close(_)
            | Kind::Describe { .. }
            | Kind::Execute { .. } => {
                self.fail_extended(&error, done);
                Ok(fate)
            }
        }
    }

    pub(super) fn fail_query(&mut self, error: &ErrorFields, done: &mut Endings) {
        let mut changes = Changes::new();
        if let Some(entry) = self.queue.front() {
            let (first, count) = match &mut entry.kind {
                Kind::Query { places, at, failed, .. } => {
                    *failed = true;
                    changes.extend(places.iter_mut().flat_map(|place| std::mem::take(&mut place.changes)));
                    // A failing statement is never one that answers nothing.
                    while places.get(*at).is_some_and(|place| !place.answers) {
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
                    message: recordable(error),
                    recorded: ended(&mut entry.gathered, None),
                    ..end(exchange, first, OutcomeStatus::Failed, entry.bytes)
                });
                let rest = first.saturating_add(1)..count;
                done.extend(rest.map(|place| end(exchange, place, OutcomeStatus::Skipped, 0)));
            }
        }
        self.settle(changes, false);
    }

    pub(super) fn fail_extended(&mut self, error: &ErrorFields, done: &mut Endings) {
        self.skipping = true;
        if let Some(mut entry) = self.queue.pop() {
            self.pipeline_has_failed();
            if let Some(exchange) = entry.exchange {
                done.push(Done {
                    code: Some(error.code.clone()),
                    message: recordable(error),
                    recorded: ended(&mut entry.gathered, None),
                    ..end(exchange, 0, OutcomeStatus::Failed, entry.bytes)
                });
            }
            self.settle(changes_of(entry.kind), false);
        }
        if let Some(Entry { kind: Kind::Gate(gate), exchange, .. }) = self.queue.take_skipped_gate() {
            done.extend(exchange.map(|exchange| end(exchange, 0, OutcomeStatus::Skipped, 0)));
            let why = "an earlier message of the same pipeline failed, so its names cannot be looked up";
            let failed = Failed { code: error.code.clone(), message: why.to_owned(), body: Bytes::new() };
            match gate.errand {
                Errand::Names { asked, .. } => self.learn(asked, Err(why.to_owned())),
                Errand::Enclosing(part, _) => drop(self.part_has_ended(part, Err(failed), done)),
            }
        }
    }

    /// The exchange of our own at the front has ended.
    pub(super) fn end_gate(&mut self, done: &mut Endings) -> Fate {
        let Some(Entry { kind: Kind::Gate(gate), exchange, bytes, .. }) = self.queue.pop() else {
            return Fate::Swallow;
        };
        let rows = gate.rows();
        done.extend(exchange.map(|exchange| match &gate.failed {
            Some(failed) => Done {
                code: Some(failed.code.clone()),
                message: Some(failed.message.clone()),
                ..end(exchange, 0, OutcomeStatus::Failed, bytes)
            },
            None => Done { rows, ..end(exchange, 0, OutcomeStatus::Completed, bytes) },
        }));
        let Gate { ends, errand, failed, .. } = *gate;
        match (errand, failed) {
            (Errand::Enclosing(part, _), Some(failed)) => {
                if ends == Ends::Flush {
                    let cancelled = self.cancelled.as_ref().map(|(_, error)| error.clone());
                    self.owed = Some(cancelled.unwrap_or_else(|| refuse::lookup_failed(&failed.message)));
                }
                return self.part_has_ended(part, Err(failed), done);
            }
            (Errand::Enclosing(part, rows), None) => return self.part_has_ended(part, Ok(rows), done),
            (Errand::Names { asked, .. }, Some(Failed { message, .. })) => {
                if ends == Ends::Flush {
                    let cancelled = self.cancelled.as_ref().map(|(_, error)| error.clone());
                    self.owed = Some(cancelled.unwrap_or_else(|| refuse::lookup_failed(&message)));
                }
                self.learn(asked, Err(format!("its names could not be looked up: {message}")));
            }
            (Errand::Names { sought, reader, mut asked, _asking }, None) => {
                let empty = Question::default();
                let question = match &sought {
                    Sought::Names(question) => question,
                    Sought::Viewer => &empty,
                };
                let answer = reader.finish(question).map(|(answer, settings)| {
                    self.note_setting("client_encoding", &settings.client_encoding);
                    self.note_setting("standard_conforming_strings", &settings.standard_strings);
                    self.turns.prove(asked.changes);
                    let own_snapshot = ends == Ends::Sync && self.status == b'I';
                    if !own_snapshot && settings.isolation != READ_COMMITTED {
                        asked.stage = None;
                    }
                    let told = match &sought {
                        Sought::Names(_) => Told::Names(&answer),
                        Sought::Viewer => Told::Viewer(&answer),
                    };
                    self.learn_view(asked, settings, told);
                    answer
                });
                match (sought, answer) {
                    (Sought::Viewer, Ok(_)) => self.enquiring = false,
                    (Sought::Viewer | Sought::Names(_), answer) => self.learn(asked, answer),
                }
            }
        }
        Fate::Swallow
    }

    pub(super) fn learn(&mut self, asked: Moment, answer: Result<Answer, String>) {
        self.enquiring = false;
        self.known.learn(asked, answer);
    }

    pub(super) fn ready(&mut self, body: &[u8], done: &mut Endings) -> Result<Fate, DecodeError> {
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
        self.status = status;
        let fate = match self.queue.first().map(|entry| (&entry.kind, entry.bounds)) {
            Some((Kind::Sync, _)) => {
                self.queue.pop();
                Fate::Pass
            }
            Some((Kind::Gate(gate), _)) if gate.ends == Ends::Sync => {
                if !gate.is_answered() {
                    return Err(unexpected(b'Z'));
                }
                self.end_gate(done)
            }
            Some((Kind::Query { .. }, Bounds::Enclosed)) if self.enclosing.is_some() => {
                match self.enclosed_is_ready(done)? {
                    Some(fate) => fate,
                    None => self.query_is_ready(done),
                }
            }
            Some((Kind::Query { .. } | Kind::Function { .. }, _)) => self.query_is_ready(done),
            _ => return Err(unexpected(b'Z')),
        };
        if status == b'I' {
            self.names.portals.clear_settled();
            if self.queue.is_empty() {
                self.nesting = Nesting::None;
            }
        }
        self.turns.answered();
        if self.is_settled() {
            self.snapshot &= status == b'T';
            self.turns.settled(status);
        }
        Ok(fate)
    }

    fn query_is_ready(&mut self, done: &mut Endings) -> Fate {
        if let Some(entry) = self.queue.pop() {
            self.close_query(entry, done);
        }
        Fate::Pass
    }

    /// A message that the server passed over.
    pub(super) fn skip(&mut self, entry: Entry, done: &mut Endings) {
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
    pub(super) fn close_query(&mut self, mut entry: Entry, done: &mut Endings) {
        let recorded = ended(&mut entry.gathered, None);
        if let (Some(exchange), Kind::Query { places, at, failed: false, opaque }) =
            (entry.exchange, &entry.kind)
        {
            if *opaque {
                let rows = Some(entry.rows).filter(|rows| *rows > 0);
                done.push(Done { rows, recorded, ..end(exchange, 0, OutcomeStatus::Completed, entry.bytes) });
            } else {
                let left = places.iter().enumerate().skip(*at);
                done.extend(left.map(|(place, Place { answers, .. })| {
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
        Kind::Query { places, .. } => places.into_iter().flat_map(|place| place.changes).collect(),
        Kind::Parse(changes) | Kind::Bind(changes) | Kind::Close(changes) | Kind::Execute { changes, .. } => {
            changes
        }
        Kind::Function { .. } | Kind::Describe { .. } | Kind::Sync | Kind::Gate(_) => Changes::new(),
    }
}

/// The number at the end of a command tag, else the rows seen.
fn rows(body: &[u8], seen: u64) -> Option<u64> {
    let tag = body.strip_suffix(&[0]).unwrap_or(body);
    let number = std::str::from_utf8(tag).ok()?.rsplit(' ').next()?.parse().ok();
    number.or((seen > 0).then_some(seen))
}

/// The server's words as far as they may be written down. Those about values quote rows (`invalid input syntax for
/// type integer: "..."`) and literals, and where data is labelled any may: of them the code must do.
fn recordable(error: &ErrorFields) -> Option<String> {
    if error.quotes {
        return None;
    }
    let about_names_or_the_server = match error.code.get(..2)? {
        "08" | "0A" | "25" | "28" | "2B" | "3B" | "3D" | "3F" | "40" | "53" | "54" | "55" | "57" | "58" => {
            true
        }
        // A syntax error quotes the text where it ends to make sense, be it a literal.
        "42" => error.code != "42601",
        _ => false,
    };
    about_names_or_the_server.then(|| error.message.clone())
}

pub(super) fn end(exchange: u64, place: usize, status: OutcomeStatus, bytes: u64) -> Done {
    Done { exchange, place, status, rows: None, bytes, code: None, message: None, recorded: None }
}
