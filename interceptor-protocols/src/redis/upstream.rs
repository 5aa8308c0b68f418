//! The upstream's side: answers are attributed, counted, and shown without what is hidden.
//!
//! Promises: what is passed on ends where an answer ends; what subscriptions bring belongs to no command; of a string that is looked
//! through no part passes before all of it is here, and one too long for that does not pass.

use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use interceptor_core::{
    mask::{Hiding, Mask},
    model::{OutcomeStatus, Spent},
    protocol::{DecodeError, Done, Endings, Step},
};

use super::{
    decode::{RedisDecoder, State, Transaction},
    queue::{Entry, Kind, Queued},
    reply::{self, Nesting, Part},
    subscribed::{Next, Whose},
};

/// The longest string that is looked through, in bytes.
const LOOKED: usize = 1 << 20;
/// What stands for a string that is too long to be looked through.
const TOO_LONG: &[u8] = b"[masked: longer than 1 MiB]";

/// An answer under way.
#[derive(Debug)]
pub(super) struct Answering {
    whose: Whose,
    nesting: Nesting,
    /// The mark that it began with.
    first: Option<u8>,
    /// The string under way.
    string: Option<Rest>,
    /// How many values it had.
    values: u64,
    /// How many rows and bytes of it have passed.
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// What it is as a whole, where it is one line.
    line: Line,
    done: Endings,
}

/// The rest of a string, with the end of its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Passes(usize),
    Dropped(usize),
}

/// An answer of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Line {
    Queued,
    Error(Failure),
    Null,
    Other,
}

/// An error, as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    code: String,
    message: String,
}

/// What was taken of the input, and what of it the client gets.
#[derive(Debug, Default)]
struct Taken {
    at: usize,
    /// None while the client gets it as it is.
    out: Option<BytesMut>,
}

impl Taken {
    fn rest<'a>(&self, input: &'a [u8]) -> &'a [u8] {
        input.get(self.at..).unwrap_or_default()
    }

    fn as_is(&mut self, input: &[u8], count: usize) {
        let end = self.at.saturating_add(count);
        if let Some(out) = &mut self.out {
            out.extend_from_slice(input.get(self.at..end).unwrap_or_default());
        }
        self.at = end;
    }

    fn instead(&mut self, input: &[u8], count: usize, bytes: &[u8]) {
        let before = input.get(..self.at).unwrap_or_default();
        self.out.get_or_insert_with(|| BytesMut::from(before)).extend_from_slice(bytes);
        self.at = self.at.saturating_add(count);
    }

    fn len(&self) -> usize {
        self.out.as_ref().map_or(self.at, BytesMut::len)
    }

    fn finish(self, input: &mut BytesMut) -> Bytes {
        match self.out {
            None => input.split_to(self.at.min(input.len())).freeze(),
            Some(out) => {
                input.advance(self.at.min(input.len()));
                out.freeze()
            }
        }
    }
}

/// How values are shown.
#[derive(Debug)]
enum Shown {
    AsTheyAre,
    /// Without what is found in them.
    Looked(Arc<Hiding>),
    /// Not at all.
    Not,
}

impl Answering {
    fn new(whose: Whose) -> Self {
        Self {
            whose,
            nesting: Nesting::default(),
            first: None,
            string: None,
            values: 0,
            rows: 0,
            bytes: 0,
            line: Line::Other,
            done: Endings::new(),
        }
    }

    /// Whether all of it has come.
    fn is_over(&self) -> bool {
        self.first.is_some() && self.string.is_none() && self.nesting.is_between()
    }
}

impl RedisDecoder {
    pub(super) fn upstream(&mut self, input: &mut BytesMut) -> Result<Step, DecodeError> {
        if self.is_cut {
            self.state = State::Over;
            return Ok(Step::Close(Bytes::new()));
        }
        if matches!(self.state, State::Start(_) | State::Opening | State::Over) {
            return Ok(Step::Wait);
        }
        if let Some(answering) = self.answering.take() {
            return self.go_on(answering, input);
        }
        if let Some(Kind::Ours(bytes)) = self.queue.front().map(|entry| entry.kind.clone()) {
            self.queue.pop();
            return Ok(Step::Answer { bytes, done: Endings::new() });
        }
        match self.next(input)? {
            Next::Unknown => Ok(Step::Wait),
            Next::Confirmation(confirmation) => Ok(self.confirmed(input, confirmation)),
            Next::Is(whose) => {
                if whose == Whose::Front
                    && let Some(step) = self.pauses()
                {
                    self.meter.asks();
                    return Ok(step);
                }
                self.go_on(Answering::new(whose), input)
            }
        }
    }

    /// Takes what has come of an answer.
    fn go_on(&mut self, mut answering: Answering, input: &mut BytesMut) -> Result<Step, DecodeError> {
        let mut taken = Taken::default();
        while !answering.is_over() {
            if let Some(rest) = answering.string {
                if !self.take_string(&mut answering, input, &mut taken, rest) {
                    break;
                }
                continue;
            }
            let Some(part) = reply::part(taken.rest(input))? else { break };
            if answering.whose == Whose::Front
                && answering.nesting.depth() == 1
                && let Some(step) = self.pauses()
            {
                if taken.at > 0 {
                    break;
                }
                self.answering = Some(answering);
                self.meter.asks();
                return Ok(step);
            }
            if !self.take_part(&mut answering, input, &mut taken, part)? {
                break;
            }
        }
        let done = std::mem::take(&mut answering.done);
        if answering.is_over() {
            return Ok(self.ended(answering, input, taken, done));
        }
        let waits = taken.at == 0;
        if answering.first.is_some() {
            self.answering = Some(answering);
        }
        if waits { Ok(Step::Wait) } else { Ok(Step::Answer { bytes: taken.finish(input), done }) }
    }

    /// Takes what has come of a string under way; false where it needs more.
    fn take_string(
        &mut self,
        answering: &mut Answering,
        input: &[u8],
        taken: &mut Taken,
        rest: Rest,
    ) -> bool {
        let (Rest::Passes(left) | Rest::Dropped(left)) = rest;
        let part = left.min(taken.rest(input).len());
        let left = left.saturating_sub(part);
        let rest = match rest {
            Rest::Passes(_) => {
                taken.as_is(input, part);
                self.passes(answering, part);
                Rest::Passes(left)
            }
            Rest::Dropped(_) => {
                taken.instead(input, part, b"");
                Rest::Dropped(left)
            }
        };
        if left > 0 {
            answering.string = Some(rest);
            return false;
        }
        answering.string = None;
        self.value(answering, None);
        true
    }

    fn passes(&mut self, answering: &mut Answering, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        answering.bytes = answering.bytes.saturating_add(bytes);
        self.meter.count(Spent { bytes, ..Spent::default() });
    }

    /// Takes a part; false where it needs more.
    fn take_part(
        &mut self,
        answering: &mut Answering,
        input: &[u8],
        taken: &mut Taken,
        part: Part,
    ) -> Result<bool, DecodeError> {
        let shown = self.shown(answering);
        let before = taken.len();
        let mut ends = None;
        match part {
            Part::Line { mark, total } => {
                ends = Some(take_line(&shown, answering, input, taken, (mark, total)))
            }
            Part::Null { total } => {
                keep(&shown, input, taken, total);
                if answering.nesting.is_between() {
                    answering.line = Line::Null;
                }
                ends = Some(None);
            }
            Part::String { mark, header, length } => {
                match take_text(&shown, answering, input, taken, (mark, header, length)) {
                    Text::NeedsMore => return Ok(false),
                    Text::Begun => {}
                    Text::Whole => ends = Some((mark == b'!').then(|| Failure::of(b""))),
                }
            }
            Part::Values { total, count, .. } => {
                keep(&shown, input, taken, total);
                let left = answering.nesting.left();
                let outermost = answering.nesting.is_between();
                answering.nesting.begin(count)?;
                if !outermost {
                    self.row(answering, left, None);
                }
            }
        }
        if answering.first.is_none() {
            answering.first = taken_mark(part);
        }
        let passed = taken.len().saturating_sub(before);
        self.passes(answering, passed);
        if let Some(failure) = ends {
            self.value(answering, failure);
        }
        Ok(true)
    }

    /// A value that is no array has ended.
    fn value(&mut self, answering: &mut Answering, failure: Option<Failure>) {
        if answering.nesting.is_between() {
            // The answer is this value.
            let is_row = answering.first == Some(b'$') && answering.line == Line::Other;
            self.rows(answering, u64::from(is_row));
            return;
        }
        let left = answering.nesting.left();
        answering.nesting.ended();
        self.row(answering, left, failure);
    }

    /// Counts a value of the outermost array, if one has ended since so many were left.
    fn row(&mut self, answering: &mut Answering, left: u64, failure: Option<Failure>) {
        if answering.nesting.left() >= left {
            return;
        }
        answering.values = answering.values.saturating_add(1);
        // Of a map, a name and its value are one.
        let whole = answering.first != Some(b'%') || answering.values.is_multiple_of(2);
        self.rows(answering, u64::from(whole));
        let is_exec = self.queue.front().is_some_and(|entry| entry.kind == Kind::Exec);
        if answering.whose == Whose::Front
            && is_exec
            && let Some(queued) = self.queued.pop_front()
        {
            self.queued_ended(answering, &queued, failure);
        }
    }

    fn rows(&mut self, answering: &mut Answering, rows: u64) {
        let swallowed = self.queue.front().is_some_and(|entry| entry.replaced.is_some());
        if answering.whose == Whose::Front && swallowed {
            return;
        }
        answering.rows = answering.rows.saturating_add(rows);
        self.meter.count(Spent { rows, ..Spent::default() });
    }

    fn queued_ended(&mut self, answering: &mut Answering, queued: &Queued, failure: Option<Failure>) {
        if failure.is_none() {
            self.meter.count(Spent { changed: queued.changes, ..Spent::default() });
        }
        answering.done.extend(queued.exchange.map(|exchange| end(exchange, failure)));
    }

    /// How the values of an answer are shown.
    fn shown(&self, answering: &Answering) -> Shown {
        let mask = match (answering.whose, self.queue.front()) {
            (Whose::Front, Some(entry)) if entry.replaced.is_some() => return Shown::Not,
            (Whose::Front, Some(entry)) => match (&entry.kind, self.queued.front()) {
                // What is hidden in either.
                (Kind::Exec, Some(Queued { mask: mask @ Mask::Of(_), .. })) => mask,
                _ => &entry.mask,
            },
            (Whose::Front, None) => return Shown::Not,
            (Whose::Nobody, _) => match &self.mask {
                Some(mask) => mask,
                None if self.labels.is_empty() => return Shown::AsTheyAre,
                None => return Shown::Not,
            },
        };
        match mask {
            Mask::Of(hiding) if hiding.looks() => Shown::Looked(hiding.clone()),
            Mask::Of(_) | Mask::Nothing => Shown::AsTheyAre,
        }
    }

    /// All of an answer has come.
    fn ended(
        &mut self,
        mut answering: Answering,
        input: &mut BytesMut,
        mut taken: Taken,
        mut done: Endings,
    ) -> Step {
        if answering.whose == Whose::Nobody {
            return Step::Answer { bytes: taken.finish(input), done };
        }
        let Some(entry) = self.queue.pop() else { return Step::Answer { bytes: taken.finish(input), done } };
        if let Some(replaced) = &entry.replaced {
            taken.instead(input, 0, replaced);
        }
        let line = std::mem::replace(&mut answering.line, Line::Other);
        let failure = match &line {
            Line::Error(failure) => Some(failure.clone()),
            Line::Queued | Line::Null | Line::Other => None,
        };
        match entry.kind {
            Kind::Multi if failure.is_none() => self.answers_from = Transaction::Open,
            Kind::Multi if self.answers_from == Transaction::None && self.queue.is_empty() => {
                // It did not begin, and nothing was sent into it.
                self.sends_into = Transaction::None;
            }
            Kind::Exec | Kind::Discard => {
                self.answers_from = Transaction::None;
                let skipped = self.queued.drain(..).filter_map(|queued| queued.exchange);
                done.extend(
                    skipped.map(|exchange| Done { status: OutcomeStatus::Skipped, ..end(exchange, None) }),
                );
            }
            Kind::Plain if line == Line::Queued && self.answers_from == Transaction::Open => {
                let Entry { exchange, mask, changes, .. } = entry;
                self.queued.push_back(Queued { exchange, mask, changes });
                return Step::Answer { bytes: taken.finish(input), done };
            }
            Kind::Plain | Kind::Multi | Kind::Confirmations { .. } | Kind::Ours(_) => {}
        }
        if let Some(exchange) = entry.exchange {
            if failure.is_none() {
                self.meter.count(Spent { changed: entry.changes, ..Spent::default() });
            }
            // A line says no number of anything.
            let is_line = answering.first.is_some_and(|first| b"+-:,#(_".contains(&first));
            let rows = (!is_line || line == Line::Null).then_some(answering.rows);
            done.push(Done { rows, bytes: answering.bytes, ..end(exchange, failure) });
        }
        Step::Answer { bytes: taken.finish(input), done }
    }
}

/// How far a string was taken.
enum Text {
    /// Not at all: all of it must be here.
    NeedsMore,
    /// Its first line.
    Begun,
    /// All of it.
    Whole,
}

/// Takes a line that is a value; its failure, where it is an error.
fn take_line(
    shown: &Shown,
    answering: &mut Answering,
    input: &[u8],
    taken: &mut Taken,
    (mark, total): (u8, usize),
) -> Option<Failure> {
    let line = taken.rest(input).get(1..total.saturating_sub(2)).unwrap_or_default().to_vec();
    let covered = cover(shown, &line);
    let told = match (shown, mark) {
        (Shown::Not, _) => Some(Vec::new()),
        (_, b'+' | b'-') => covered.as_ref().map(|covered| one_line(mark, covered)),
        // Where it stood nothing but a number may.
        _ => covered.as_ref().map(|covered| string(b'$', covered)),
    };
    match told {
        None => taken.as_is(input, total),
        Some(told) => taken.instead(input, total, &told),
    }
    let failure = (mark == b'-').then(|| Failure::of(covered.as_deref().unwrap_or(&line)));
    if answering.nesting.is_between() {
        answering.line = match (mark, &failure) {
            (_, Some(failure)) => Line::Error(failure.clone()),
            (b'+', None) if line == b"QUEUED" => Line::Queued,
            (b'_', None) => Line::Null,
            _ => Line::Other,
        };
    }
    failure
}

/// Takes a string, or what comes before it.
fn take_text(
    shown: &Shown,
    answering: &mut Answering,
    input: &[u8],
    taken: &mut Taken,
    (mark, header, length): (u8, usize, usize),
) -> Text {
    let rest = length.saturating_add(2);
    let whole = header.saturating_add(rest);
    match shown {
        Shown::AsTheyAre => {
            taken.as_is(input, header);
            answering.string = Some(Rest::Passes(rest));
            return Text::Begun;
        }
        Shown::Not => {
            taken.instead(input, header, b"");
            answering.string = Some(Rest::Dropped(rest));
            return Text::Begun;
        }
        Shown::Looked(_) if length > LOOKED => {
            taken.instead(input, header, &string(b'$', TOO_LONG));
            answering.string = Some(Rest::Dropped(rest));
            return Text::Begun;
        }
        Shown::Looked(_) => {}
    }
    let all = taken.rest(input).get(..whole);
    let Some(text) = all.and_then(|all| all.get(header..whole.saturating_sub(2))) else {
        return Text::NeedsMore;
    };
    // What stands before the text of a verbatim string says its form.
    let (form, text) = match (mark, text.split_at_checked(4)) {
        (b'=', Some((form, text))) => (form.to_vec(), text),
        _ => (Vec::new(), text),
    };
    match cover(shown, text) {
        None => taken.as_is(input, whole),
        Some(covered) => taken.instead(input, whole, &string(mark, &[form, covered].concat())),
    }
    Text::Whole
}

/// The mark that an answer with this first part begins with.
fn taken_mark(part: Part) -> Option<u8> {
    Some(match part {
        Part::Line { mark, .. } | Part::String { mark, .. } | Part::Values { mark, .. } => mark,
        Part::Null { .. } => b'_',
    })
}

fn keep(shown: &Shown, input: &[u8], taken: &mut Taken, total: usize) {
    match shown {
        Shown::Not => taken.instead(input, total, b""),
        Shown::AsTheyAre | Shown::Looked(_) => taken.as_is(input, total),
    }
}

/// What stands for a text; none where it is shown as it is.
fn cover(shown: &Shown, text: &[u8]) -> Option<Vec<u8>> {
    match shown {
        Shown::Looked(hiding) => hiding.inline(text),
        Shown::AsTheyAre | Shown::Not => None,
    }
}

fn string(mark: u8, text: &[u8]) -> Vec<u8> {
    [format!("{}{}\r\n", char::from(mark), text.len()).as_bytes(), text, b"\r\n"].concat()
}

fn one_line(mark: u8, text: &[u8]) -> Vec<u8> {
    let text = text.iter().map(|byte| if b"\r\n".contains(byte) { b' ' } else { *byte });
    std::iter::once(mark).chain(text).chain(*b"\r\n").collect()
}

impl Failure {
    /// That of an error's line.
    fn of(line: &[u8]) -> Self {
        let message = String::from_utf8_lossy(line).into_owned();
        let code = message.split(' ').next().unwrap_or_default().to_owned();
        Self { code, message }
    }
}

/// How an exchange ended.
pub(super) fn end(exchange: u64, failure: Option<Failure>) -> Done {
    let status = if failure.is_some() { OutcomeStatus::Failed } else { OutcomeStatus::Completed };
    let (code, message) = failure.map(|failure| (failure.code, failure.message)).unzip();
    Done { exchange, place: 0, status, rows: None, bytes: 0, code, message, recorded: None }
}
