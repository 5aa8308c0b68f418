//! The upstream's side: each answer attributed to the one command under way, counted, and passed on as it comes.
//!
//! Promises: rows are counted before they pass; an answer is cut only between two packets, and nothing of it reaches the
//! client after that; what answers nothing that was asked is an error.

use bytes::{Buf as _, Bytes, BytesMut};
use interceptor_core::{
    mask::Mask,
    model::{OutcomeStatus, Spent},
    permit::Denial,
    protocol::{DecodeError, Done, Endings, Step, Stopped},
};

use super::{
    client::After,
    decode::{MysqlDecoder, State},
    frame::{self, Fields, HEAD, Malformed, WHOLE},
    lookup::{self, Errand},
    words,
};

/// The longest packet that is read as a whole, in bytes.
const MAX_READ: usize = 1 << 20;
/// How many rows of our own look-ups are taken.
const MAX_ROWS: usize = 16;
/// SERVER_STATUS_IN_TRANS.
pub(super) const IN_TRANSACTION: u16 = 1;
/// SERVER_MORE_RESULTS_EXISTS.
const MORE: u16 = 8;
/// SERVER_STATUS_CURSOR_EXISTS.
const CURSOR: u16 = 64;

/// The answer that is owed.
#[derive(Debug)]
pub(super) struct Owed {
    /// The exchange that its end is told of; none for what was not judged.
    pub(super) exchange: Option<u64>,
    pub(super) after: After,
    phase: Phase,
    /// The packet that comes now continues a row.
    continues: bool,
    /// Of the last packet.
    sequence: u8,
    rows: u64,
    changed: u64,
    bytes: u64,
    /// The client has its end already.
    stopped: bool,
    /// What a look-up of our own has brought.
    found: Vec<Vec<Option<String>>>,
}

/// What comes next of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// OK or an error, and nothing more.
    Word,
    /// OK with what was prepared, or an error.
    Prepared,
    /// OK, an error, or how many columns there are.
    First,
    /// So many packets, and then rows.
    Columns(u64),
    Rows,
    /// So many packets, and then nothing more.
    Rest(u64),
}

/// What a packet means for the answer.
enum Met {
    Goes,
    Ends(End),
}

/// How an answer has ended.
struct End {
    error: Option<ErrorPacket>,
}

/// ERR_Packet.
pub(super) struct ErrorPacket {
    pub(super) code: String,
    pub(super) message: String,
}

impl ErrorPacket {
    pub(super) fn read(payload: Bytes) -> Result<Self, Malformed> {
        let mut fields = Fields::new(payload);
        fields.u8()?;
        let number = fields.u16()?;
        let rest = fields.rest();
        let (state, message) = match rest.split_first_chunk::<6>() {
            Some(([b'#', state @ ..], message)) => (String::from_utf8_lossy(state).into_owned(), message),
            _ => ("HY000".to_owned(), &*rest),
        };
        Ok(Self {
            code: format!("{number} ({state})"),
            message: String::from_utf8_lossy(message).into_owned(),
        })
    }
}

impl Owed {
    pub(super) fn new(exchange: Option<u64>, after: After) -> Self {
        let phase = match after {
            After::Word | After::Reset => Phase::Word,
            After::Prepared(_) => Phase::Prepared,
            After::Nothing | After::Executed { .. } | After::Gate(_) => Phase::First,
        };
        Self {
            exchange,
            after,
            phase,
            continues: false,
            sequence: 0,
            rows: 0,
            changed: 0,
            bytes: 0,
            stopped: false,
            found: Vec::new(),
        }
    }

    fn goes_nowhere(&self) -> bool {
        self.stopped || matches!(self.after, After::Gate(_))
    }

    fn is_row(&self, length: usize, first: Option<u8>) -> bool {
        self.phase == Phase::Rows && !matches!((first, length), (Some(0xff), _) | (Some(0xfe), ..9))
    }

    /// Whether the client is in the middle of a row, or of a packet of one.
    fn is_within_row(&self) -> bool {
        self.continues && !self.goes_nowhere()
    }

    /// A whole packet that is no row.
    fn meet(&mut self, payload: Bytes) -> Result<(Met, Option<u16>), Malformed> {
        let mut fields = Fields::new(payload.clone());
        let first = fields.u8()?;
        // Nothing else begins with it, and clients take it for the end wherever it comes.
        if first == 0xff {
            return Ok((Met::Ends(End { error: Some(ErrorPacket::read(payload)?) }), None));
        }
        match self.phase {
            Phase::Prepared if first == 0 => {
                let id = fields.u32()?;
                let (columns, parameters) = (fields.u16()?, fields.u16()?);
                self.after.prepared_as(id, parameters)?;
                let packets = |count: u16| if count == 0 { 0 } else { u64::from(count).saturating_add(1) };
                self.phase = Phase::Rest(packets(columns).saturating_add(packets(parameters)));
                Ok((self.rest(), None))
            }
            Phase::Word | Phase::First if first == 0 => {
                self.changed = self.changed.saturating_add(fields.integer()?);
                fields.integer()?;
                let status = fields.u16()?;
                if self.phase == Phase::Word && status & MORE != 0 {
                    return Err(Malformed);
                }
                Ok((self.ended(status), Some(status)))
            }
            Phase::Word | Phase::Prepared => Err(Malformed),
            Phase::First => {
                let mut count = Fields::new(payload);
                let columns = count.integer()?;
                // A client without the extensions that put something behind it would not see that.
                if columns == 0 || !count.is_empty() {
                    return Err(Malformed);
                }
                self.phase = Phase::Columns(columns);
                Ok((Met::Goes, None))
            }
            Phase::Columns(0) => {
                // Rows behind a cursor would come by a command that is not spoken.
                if end_of_file(first, fields)? & CURSOR != 0 {
                    return Err(Malformed);
                }
                self.phase = Phase::Rows;
                Ok((Met::Goes, None))
            }
            Phase::Columns(left) => {
                self.phase = Phase::Columns(left.saturating_sub(1));
                Ok((Met::Goes, None))
            }
            Phase::Rows => {
                let status = end_of_file(first, fields)?;
                Ok((self.ended(status), Some(status)))
            }
            Phase::Rest(left) => {
                self.phase = Phase::Rest(left.saturating_sub(1));
                Ok((self.rest(), None))
            }
        }
    }

    fn rest(&self) -> Met {
        if self.phase == Phase::Rest(0) { Met::Ends(End { error: None }) } else { Met::Goes }
    }

    fn ended(&mut self, status: u16) -> Met {
        if status & MORE == 0 {
            return Met::Ends(End { error: None });
        }
        self.phase = Phase::First;
        Met::Goes
    }
}

/// The status flags of an EOF_Packet.
fn end_of_file(first: u8, mut fields: Fields) -> Result<u16, Malformed> {
    fields.u16()?;
    let status = fields.u16()?;
    if first == 0xfe && fields.is_empty() { Ok(status) } else { Err(Malformed) }
}

impl MysqlDecoder {
    pub(super) fn upstream(&mut self, input: &mut BytesMut) -> Result<Step, DecodeError> {
        let (mut ready, before) = (0, input.len());
        match self.take(input, &mut ready) {
            Ok(Some(step)) => Ok(step),
            Err(error) if ready == 0 => Err(error),
            // What goes nowhere was taken all the same.
            Ok(None) if ready == 0 && input.len() == before => Ok(Step::Wait),
            // What is in order passes first. What is not stays where it is, and is met again.
            Ok(None) | Err(_) => {
                Ok(Step::Answer { bytes: input.split_to(ready).freeze(), done: Endings::new() })
            }
        }
    }

    /// Takes packets until the answer ends or something else is to be done; as much as `ready` says may pass.
    fn take(&mut self, input: &mut BytesMut, ready: &mut usize) -> Result<Option<Step>, DecodeError> {
        loop {
            let rest = input.get(*ready..).unwrap_or_default();
            if self.streaming > 0 {
                let part = self.streaming.min(rest.len());
                if part == 0 {
                    return Ok(None);
                }
                self.streaming -= part;
                *ready = ready.saturating_add(part);
                self.drop_if_nowhere(input, ready);
                continue;
            }
            let Some(head) = frame::head(rest) else { return Ok(None) };
            // Behind an empty packet stands the next one's head.
            let first = rest.get(HEAD).copied().filter(|_| head.length > 0);
            let Some(owed) = &mut self.owed else { return self.unasked(input, head, *ready).map(Some) };
            if first.is_none() && head.length > 0 {
                return Ok(None);
            }
            if head.sequence != owed.sequence.wrapping_add(1) {
                return Err(DecodeError::upstream(
                    "a packet out of sequence: its answers are not what we take them for",
                ));
            }
            if head.length == 0 && !owed.continues {
                return Err(DecodeError::upstream("an empty packet where an answer is due"));
            }
            if owed.phase == Phase::First && first == Some(0xfb) {
                return Err(DecodeError::upstream(
                    "it asked for a file of the client's, which never goes; use INSERT in place of LOAD DATA LOCAL",
                ));
            }
            if owed.continues || owed.is_row(head.length, first) {
                if !owed.continues
                    && !owed.stopped
                    && !matches!(owed.after, After::Gate(_))
                    && !self.meter.lets_by()
                {
                    if *ready > 0 {
                        return Ok(None);
                    }
                    return Ok(Some(self.pause()));
                }
                if !self.row(head, input)? {
                    return Ok(None);
                }
                continue;
            }
            if head.length > MAX_READ {
                return Err(DecodeError::upstream("a packet over 1 MB that is no row"));
            }
            if rest.len() < head.total() {
                return Ok(None);
            }
            let payload = Bytes::copy_from_slice(rest.get(HEAD..head.total()).unwrap_or_default());
            let met =
                owed.meet(payload).map_err(|_| DecodeError::upstream("an answer that cannot be read"))?;
            owed.sequence = head.sequence;
            owed.bytes = owed.bytes.saturating_add(u64::try_from(head.total()).unwrap_or(u64::MAX));
            if let Some(status) = met.1 {
                self.status = status;
            }
            *ready = ready.saturating_add(head.total());
            self.drop_if_nowhere(input, ready);
            if let Met::Ends(end) = met.0 {
                let done = self.end(end);
                return Ok(Some(Step::Answer { bytes: input.split_to(*ready).freeze(), done }));
            }
        }
    }

    /// What passes nowhere is dropped. Nothing else is ready before it: whether it passes changes only between two calls.
    fn drop_if_nowhere(&self, input: &mut BytesMut, ready: &mut usize) {
        if self.owed.as_ref().is_some_and(Owed::goes_nowhere) {
            input.advance(*ready);
            *ready = 0;
        }
    }

    /// A last word of the server's, or what breaks the protocol.
    fn unasked(
        &mut self,
        input: &mut BytesMut,
        head: frame::Head,
        ready: usize,
    ) -> Result<Step, DecodeError> {
        let is_error = head.length > 0 && input.get(HEAD).is_none_or(|byte| *byte == 0xff);
        if ready > 0 || !is_error || head.length > MAX_READ {
            return Err(DecodeError::upstream("a packet that answers nothing that was asked"));
        }
        if input.len() < head.total() {
            return Ok(Step::Wait);
        }
        self.state = State::Over;
        Ok(Step::Close(input.split_to(head.total()).freeze()))
    }

    /// A packet of a row; whether it could be taken.
    fn row(&mut self, head: frame::Head, input: &mut BytesMut) -> Result<bool, DecodeError> {
        let Some(owed) = &mut self.owed else { return Ok(false) };
        if matches!(owed.after, After::Gate(_)) {
            if head.length > MAX_READ || owed.found.len() >= MAX_ROWS {
                return Err(DecodeError::upstream("too much in answer to a look-up of ours"));
            }
            if input.len() < head.total() {
                return Ok(false);
            }
            let payload = input.split_to(head.total()).freeze().slice(HEAD..);
            owed.sequence = head.sequence;
            let row = lookup::row(payload).map_err(|_| DecodeError::upstream("a malformed row"))?;
            owed.found.push(row);
            return Ok(true);
        }
        let length = u64::try_from(head.total()).unwrap_or(u64::MAX);
        let rows = u64::from(!owed.continues);
        owed.continues = head.length == WHOLE;
        owed.sequence = head.sequence;
        owed.rows = owed.rows.saturating_add(rows);
        owed.bytes = owed.bytes.saturating_add(length);
        if !owed.stopped {
            let spent = Spent { rows, bytes: length, ..Spent::default() };
            self.meter.count(spent);
        }
        self.streaming = head.total();
        Ok(true)
    }

    fn pause(&mut self) -> Step {
        self.meter.asks();
        let exchange = self.owed.as_ref().and_then(|owed| owed.exchange);
        exchange.map_or(Step::Wait, |exchange| Step::Pause { exchange, place: 0 })
    }

    /// The answer has ended.
    fn end(&mut self, end: End) -> Endings {
        let Some(owed) = self.owed.take() else { return Endings::new() };
        let failed = end.error.is_some();
        let is_result = owed.phase == Phase::Rows || owed.rows > 0;
        let rows = if is_result { owed.rows } else { owed.changed };
        self.settle(owed.after, &owed.found, failed);
        if !owed.stopped {
            self.meter.count(Spent { changed: owed.changed, ..Spent::default() });
        }
        let done = |exchange| Done {
            exchange,
            place: 0,
            status: if failed { OutcomeStatus::Failed } else { OutcomeStatus::Completed },
            // Of one that failed, what came before that has passed.
            rows: (is_result || !failed).then_some(rows),
            bytes: owed.bytes,
            code: end.error.as_ref().map(|error| error.code.clone()),
            message: end.error.as_ref().map(|error| error.message.clone()),
            recorded: None,
        };
        // Of one that was cut, the end has been told.
        owed.exchange.filter(|_| !owed.stopped).map(done).into_iter().collect()
    }

    /// What follows from an answer.
    fn settle(&mut self, after: After, found: &[Vec<Option<String>>], failed: bool) {
        match after {
            After::Gate(errand) => {
                let Some(work) = &mut self.work else { return };
                match errand {
                    Errand::Settings => self.settings = lookup::settings(found).filter(|_| !failed),
                    Errand::Tables(tables) => work.found = lookup::tables(&tables, found).filter(|_| !failed),
                }
            }
            After::Prepared(made) => self.keep(made, failed),
            After::Executed { id, types } => self.keep_types(id, types, failed),
            After::Reset if !failed => self.made.undone(),
            After::Word | After::Reset | After::Nothing => {}
        }
    }

    /// The answer under way ends here.
    pub(super) fn cut(&mut self, denial: &Denial) -> Stopped {
        let Some(owed) = &mut self.owed else { return Stopped { client: Bytes::new(), done: None } };
        owed.stopped = true;
        let done = owed.exchange.map(|exchange| Done {
            exchange,
            place: 0,
            status: OutcomeStatus::Failed,
            rows: Some(owed.rows),
            bytes: owed.bytes,
            code: Some("1142 (42000)".to_owned()),
            message: None,
            recorded: None,
        });
        Stopped { client: words::refusal(owed.sequence.wrapping_add(1), denial), done }
    }

    /// Nothing can be masked here: what was to be does not pass.
    pub(super) fn shows(&mut self, mask: &Mask) {
        if !matches!(mask, Mask::Nothing) {
            self.must_hide = true;
        }
    }

    /// Whether what were said to the client now would be taken for a part of a row.
    pub(super) fn is_within_row(&self) -> bool {
        self.owed
            .as_ref()
            .is_some_and(|owed| owed.is_within_row() || (self.streaming > 0 && !owed.goes_nowhere()))
    }

    /// The sequence number of a word to the client.
    pub(super) fn next_sequence(&self) -> u8 {
        match (&self.state, &self.owed) {
            (State::Start, _) => 0,
            (State::Session, Some(owed)) if !owed.goes_nowhere() => owed.sequence.wrapping_add(1),
            (State::Session, _) => 1,
            (State::Greeted | State::Opening | State::Over, _) => self.sequence,
        }
    }
}
