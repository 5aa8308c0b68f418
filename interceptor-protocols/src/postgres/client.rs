//! The client's side: what it sends, judged frame by frame.
//!
//! Promise: a frame goes on as [`Step::Pass`] only if it is one of Describe, Close, Flush, Sync, Terminate, or a Bind
//! of a statement that this session prepared; everything else is held. A look-up comes before judging wherever a
//! name's meaning, or the way in which a text is read, is not certain without one.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use interceptor_core::{
    model::{Action, Actions, Binds, Phase, StatementFacts, Text},
    permit::{Clear, Held, Waits},
    protocol::{DecodeError, Inspection, Opening, Step},
    sql::Answer,
};

use smallvec::smallvec;

use super::{
    action::{self, Basis, Change, Prepared, Reading},
    asked::{Asked, What},
    bind::{self, Bind},
    circumstances,
    copy::CopyIn,
    decode::{PostgresDecoder, State},
    described::Described,
    enclose::All,
    facts,
    frame::{self, Fields, MAX_BIND, MAX_CALL, MAX_SMALL, MAX_TEXT, Malformed},
    large::LargeBind,
    names::{Found, Name},
    need::{Age, Need, Sources, Wanted},
    part::{Part, Way},
    queue::{Entry, Kind, Places},
    refuse,
    startup::{self, First},
    token::Frame,
    turn::{self, Turn},
    veil::Behind,
    work::{Work, own_name, read, read_large},
};

/// Where the text of a Query begins.
const QUERY_TEXT: usize = 5;

impl PostgresDecoder {
    pub(super) fn client(&mut self, input: &mut BytesMut) -> Result<Step, DecodeError> {
        match self.state {
            State::Start => self.start(input),
            State::Opening | State::Leaving | State::Over => Ok(Step::Wait),
            State::Session if self.asked.is_some() || self.enquiring || self.is_behind() => Ok(Step::Wait),
            State::Session => match (self.enclosing_step(), self.work.take()) {
                (Some(step), work) => {
                    self.work = work;
                    Ok(step)
                }
                (None, Some(work)) => self.judge(work),
                (None, None) => self.next(input),
            },
        }
    }

    /// How much of `input` the client's next step reads: a frame, unless it goes on with something or takes data.
    pub(super) fn next_frame(&self, input: &[u8]) -> usize {
        let goes_on = self.state != State::Session || self.work.is_some() || self.part.is_some();
        match frame::head(input) {
            Ok(Some(head)) if !goes_on && self.copy_in() == CopyIn::None => head.total.min(input.len()),
            _ => input.len(),
        }
    }

    fn start(&mut self, input: &mut BytesMut) -> Result<Step, DecodeError> {
        let Some(first) = startup::first(input)? else { return Ok(Step::Wait) };
        match first {
            First::Tls | First::DirectTls if self.asked_tls => {
                Err(DecodeError::client("asked for TLS inside TLS"))
            }
            First::Tls if !input.is_empty() => {
                Err(DecodeError::client("bytes in clear after its request for TLS: somebody is in between"))
            }
            First::Tls => {
                self.asked_tls = true;
                Ok(Step::StartTls(Bytes::from_static(b"S")))
            }
            First::DirectTls => {
                self.asked_tls = true;
                Ok(Step::StartTls(Bytes::new()))
            }
            First::Gss if self.asked_gss || !input.is_empty() => {
                Err(DecodeError::client("asked for GSSAPI encryption twice, or did not wait for the answer"))
            }
            First::Gss => {
                self.asked_gss = true;
                Ok(Step::Reply(Bytes::from_static(b"N")))
            }
            First::Cancel(key) => {
                self.state = State::Over;
                Ok(Step::Cancel(key))
            }
            First::Session(wish) => {
                let mut wish = *wish;
                if wish.then == Inspection::None {
                    facts::unwatched(&mut wish.action, &self.labels);
                }
                self.state = State::Opening;
                self.database.clone_from(&wish.claimed.database);
                let number = self.number();
                self.state_of_session.begin(&wish.parameters);
                self.asked = Some(Asked::quietly(number, What::Open));
                Ok(Step::Open(Opening {
                    held: Held::new(number, vec![wish.action], Bytes::new()),
                    claimed: wish.claimed,
                    parameters: wish.parameters,
                    version: wish.version,
                    then: wish.then,
                }))
            }
        }
    }

    fn next(&mut self, input: &mut BytesMut) -> Result<Step, DecodeError> {
        self.sources = Sources::All;
        if let Some(step) = self.part(input)? {
            return Ok(step);
        }
        match self.copy_in() {
            CopyIn::None => {}
            CopyIn::MayBegin => return Ok(if input.is_empty() { Step::Wait } else { self.hold() }),
            CopyIn::Open => return self.copy_data(input),
        }
        let head = frame::head(input).map_err(|_| DecodeError::client("a message of impossible length"))?;
        let Some(head) = head else { return Ok(Step::Wait) };
        let limit = match head.tag {
            b'Q' | b'P' => MAX_TEXT,
            // It is read as it passes.
            b'B' => usize::MAX,
            b'F' => MAX_CALL,
            b'E' | b'D' | b'C' | b'H' | b'S' | b'X' => MAX_SMALL,
            // Such as what was under way when the COPY failed. The server would pass it over.
            b'd' | b'c' | b'f' => return Ok(self.drop_message(head, input)),
            other => {
                return Err(DecodeError::client(format!(
                    "message {:?} is not one that a client sends in a session",
                    char::from(other)
                )));
            }
        };
        if head.total > limit {
            return Err(DecodeError::client(format!(
                "message {:?} of {} bytes; at most {limit} are taken",
                char::from(head.tag),
                head.total
            )));
        }
        let is_large = head.tag == b'B' && head.total > MAX_BIND;
        let wanted = if is_large { MAX_BIND } else { head.total };
        if input.len() < wanted {
            return Ok(Step::Wait);
        }
        if self.queue.is_full() {
            return Err(DecodeError::client("too many messages without waiting for an answer"));
        }
        let frame = input.split_to(wanted).freeze();
        let malformed =
            |_: Malformed| DecodeError::client(format!("a malformed {:?} message", char::from(head.tag)));
        match head.tag {
            b'B' if is_large => {
                let large = Box::new(read_large(&frame).map_err(malformed)?);
                let left = head.total.saturating_sub(wanted);
                self.judge(Work::LargeBind { first: frame, large, left })
            }
            b'Q' | b'P' | b'B' | b'E' | b'F' => {
                let work = read(head.tag, frame).map_err(malformed)?;
                self.judge(work)
            }
            b'X' => {
                self.state = State::Leaving;
                Ok(Step::Close(frame))
            }
            tag => self.plain(tag, frame).map_err(malformed),
        }
    }

    /// Messages in which there is nothing to judge.
    fn plain(&mut self, tag: u8, frame: Bytes) -> Result<Step, Malformed> {
        let mut fields = Fields::of(&frame);
        let kind = match tag {
            b'S' => {
                fields.end()?;
                self.end_segment();
                Some(Kind::Sync)
            }
            b'H' => {
                fields.end()?;
                None
            }
            _ => {
                let of = fields.u8()?;
                let name = own_name(fields.name()?)?;
                fields.end()?;
                self.piping = true;
                Some(match (tag, of) {
                    (b'D', b'S') => {
                        let found = self.names.statements.find(&name, self.segment_op).value;
                        let rows = found.map(|prepared| prepared.described.clone());
                        Kind::Describe { statement: Some(name), told: false, rows }
                    }
                    (b'D', b'P') => {
                        let found = self.names.portals.find(&name, self.segment_op).value;
                        let rows =
                            found.map(|portal| portal.described.get_or_init(Described::default).clone());
                        Kind::Describe { statement: None, told: true, rows }
                    }
                    (b'C', b'S') => Kind::Close(self.plan(Change::Deallocate(Some(name)))),
                    (b'C', b'P') => Kind::Close(self.plan(Change::ClosePortal(name))),
                    _ => return Err(Malformed),
                })
            }
        };
        if let Some(kind) = kind {
            self.queue.push(Entry::new(kind, None));
        }
        Ok(Step::Pass(frame))
    }

    fn judge(&mut self, work: Work) -> Result<Step, DecodeError> {
        self.behind = false;
        // Once: what is known holds for these, and rows that come when there are more are not shown.
        self.copies = self.bindings.copies();
        match work {
            Work::Query { .. } => self.judge_query(work),
            Work::Parse { .. } => self.judge_parse(work),
            // Behind a refused message of the same pipeline nothing is carried out, and what has no text of its own
            // says nothing new: it is dropped, as the server would drop it.
            Work::Bind { .. } | Work::Execute { .. } if self.refused_in == Some(self.segment) => {
                Ok(Step::Pass(Bytes::new()))
            }
            Work::LargeBind { left, .. } if self.refused_in == Some(self.segment) => Ok(self.drop_rest(left)),
            Work::Bind { frame, bind } => self.judge_bind(frame, bind),
            Work::LargeBind { first, large, left } => self.judge_large_bind(first, large, left),
            Work::Execute { frame, portal, all } => self.judge_execute(frame, portal, all),
            Work::Function { frame, call } => Ok(self.judge_function(frame, call)),
        }
    }

    /// A call by number. What large objects' functions do, and those that only compute, is known without a look-up,
    /// whatever the search path is.
    fn judge_function(&mut self, frame: Bytes, call: bind::Call) -> Step {
        let question = facts::calling(call.function);
        let need = if question.is_empty() {
            Need::Nothing(Basis::Answer(Answer::default(), self.moment()))
        } else {
            self.find(Wanted { question, catalogue: true, snapshot: true, firm: true, age: Age::Any })
        };
        let (facts, binds) = match need {
            Need::Enquire(question) => return self.enquire(question, Work::Function { frame, call }),
            Need::Nothing(Basis::Answer(answer, _)) => {
                let (mut facts, types) = facts::called(call.function, &self.database, &answer);
                facts.provenance = facts::of_call(&facts, &self.labels);
                (Arc::new(facts), call.values(types))
            }
            Need::Nothing(Basis::Told(facts)) => (facts, call.values(&[])),
            Need::Nothing(Basis::Nothing(why)) => (Arc::new(StatementFacts::unknown(why)), call.values(&[])),
        };
        let turn = turn::of_call(&facts);
        let action = Action { phase: Phase::Execute, text: Text::new(), binds, facts };
        let provenance = action.facts.provenance.clone();
        self.ask(What::Function { provenance }, smallvec![action], frame, (turn, true))
    }

    fn judge_query(&mut self, work: Work) -> Result<Step, DecodeError> {
        let Work::Query { frame, reading } = work else { return Ok(Step::Wait) };
        let opaque = What::Query { places: Places::new(), opaque: true };
        let statements = match (&self.unreadable, &reading.statements) {
            (Some(why), _) => {
                let why = why.clone();
                return Ok(self.ask_unknown(opaque, Phase::Query, &reading.text, Binds::new(), &why, frame));
            }
            (None, Err(why)) => {
                return Ok(self.ask_unknown(
                    opaque,
                    Phase::Query,
                    &reading.text,
                    Binds::new(),
                    &why.0,
                    frame,
                ));
            }
            (None, Ok(statements)) => statements,
        };
        let expansion = self.names.expand(&reading.text, statements, self.segment_op);
        let basis = match self.need(&expansion.items, expansion.firm) {
            Need::Enquire(question) => {
                drop(expansion);
                return Ok(self.enquire(question, Work::Query { frame, reading }));
            }
            Need::Nothing(basis) => basis,
        };
        let items = &expansion.items;
        let undecided = self.turns.undecided();
        let mut actions =
            action::actions(Phase::Query, &reading.text, items, &basis, &[], undecided, &self.labels);
        self.tell(items, &basis, &actions);
        let (frame, _) = self.with_tokens((frame, QUERY_TEXT), (&reading.text, statements), &mut actions);
        let told = items.iter().zip(&actions);
        let places = told.map(|(item, action)| item.place(&reading.text, &action.facts)).collect();
        let turn = turn::of_all(items, &actions, undecided);
        let what = What::Query { places, opaque: items.is_empty() };
        let snapshot = items.iter().any(|item| action::takes_snapshot(item.statement()));
        drop(expansion);
        Ok(self.ask(what, actions, frame, (turn, snapshot)))
    }

    fn judge_parse(&mut self, work: Work) -> Result<Step, DecodeError> {
        let Work::Parse { frame, name, reading, types } = work else { return Ok(Step::Wait) };
        let prepared = |provenance| Prepared::new(reading.clone(), types.clone(), provenance);
        let why = match (&self.unreadable, &reading.statements) {
            (Some(why), _) => Some(why.clone()),
            (None, Err(why)) => Some(why.0.clone()),
            (None, Ok(statements)) if statements.len() > 1 => {
                Some("several statements in one Parse".to_owned())
            }
            (None, Ok(_)) => None,
        };
        if let Some(why) = why {
            let what = What::Parse { name: name.clone(), prepared: prepared(None) };
            return Ok(self.ask_unknown(what, Phase::Prepare, &reading.text, Binds::new(), &why, frame));
        }
        let statements = reading.statements.as_deref().unwrap_or_default();
        let expansion = self.names.expand(&reading.text, statements, self.segment_op);
        let basis = match self.need(&expansion.items, expansion.firm) {
            Need::Enquire(question) => {
                drop(expansion);
                return Ok(self.enquire(question, Work::Parse { frame, name, reading, types }));
            }
            Need::Nothing(basis) => basis,
        };
        let items = &expansion.items;
        let undecided = self.turns.undecided();
        let mut actions =
            action::actions(Phase::Prepare, &reading.text, items, &basis, &[], undecided, &self.labels);
        self.tell(items, &basis, &actions);
        let text_at = QUERY_TEXT.saturating_add(name.len()).saturating_add(1);
        let (frame, replaced) = self.with_tokens((frame, text_at), (&reading.text, statements), &mut actions);
        let snapshot = items.iter().any(|item| action::takes_snapshot(item.statement()));
        let provenance = actions.first().and_then(|action| action.facts.provenance.clone());
        let what = What::Parse { name: name.clone(), prepared: prepared(provenance).replacing(replaced) };
        Ok(self.ask(what, actions, frame, (Turn::Nothing, snapshot)))
    }

    /// A Bind runs nothing that its statement was not judged for at Parse; its values are judged with its Execute.
    /// The look-up for that comes before the Bind where it can, so that it stays outside the pipeline.
    fn judge_bind(&mut self, frame: Bytes, bind: Bind) -> Result<Step, DecodeError> {
        let (found, need) = self.bound_statement(&bind.statement);
        let basis = match need {
            Need::Enquire(question) => return Ok(self.enquire(question, Work::Bind { frame, bind })),
            Need::Nothing(basis) => basis,
        };
        let Some(prepared) = found.value.filter(|_| found.firm) else {
            let why = "no prepared statement of that name is known on this session";
            return Ok(self.ask_unknown(
                What::Bind,
                Phase::Execute,
                &Text::new(),
                bind.values(&[]),
                why,
                frame,
            ));
        };
        match self.bind_tokens(&bind, &prepared, &basis) {
            Ok((sent, replaced)) => {
                self.bound(bind, &prepared, replaced);
                Ok(Step::Pass(sent.map_or(frame, Clear::into_bytes)))
            }
            Err(why) => {
                let values = bind.values(&prepared.types);
                let frame = Frame::failing(frame, &What::Bind, why);
                Ok(self.ask_unknown(What::Bind, Phase::Execute, &prepared.reading.text, values, why, frame))
            }
        }
    }

    /// The same for one that is read as it passes. One that would have to be held whole to be judged is not taken.
    fn judge_large_bind(
        &mut self,
        first: Bytes,
        large: Box<LargeBind>,
        left: usize,
    ) -> Result<Step, DecodeError> {
        let (found, need) = self.bound_statement(large.statement());
        if let Need::Enquire(question) = need {
            return Ok(self.enquire(question, Work::LargeBind { first, large, left }));
        }
        match found.value.filter(|_| found.firm) {
            Some(prepared) => {
                self.part = Some(Part { left, way: Way::Bound(large, prepared) });
                Ok(Step::Pass(first))
            }
            // The server passes it over.
            None if self.skips_now() => Ok(self.drop_rest(left)),
            None => Err(DecodeError::client(format!(
                "a Bind of more than {MAX_BIND} bytes of a statement that this session is not known to have prepared",
            ))),
        }
    }

    /// A prepared statement, and what is needed to judge it.
    fn bound_statement(&mut self, name: &str) -> (Found<Prepared>, Need) {
        let found = self.names.statements.find(name, self.segment_op);
        let (text, statements) = match &found.value {
            Some(prepared) => {
                (&*prepared.reading.text, prepared.reading.statements.as_deref().unwrap_or_default())
            }
            None => ("", [].as_slice()),
        };
        let expansion = self.names.expand(text, statements, self.segment_op);
        let need = self.need(&expansion.items, expansion.firm && found.firm);
        drop(expansion);
        (found, need)
    }

    fn judge_execute(&mut self, frame: Bytes, name: Name, all: All) -> Result<Step, DecodeError> {
        let found = self.names.portals.find(&name, self.segment_op);
        let cursor = self.names.cursors.find(&name, self.segment_op);
        let firm = found.firm && (found.value.is_some() || cursor.firm);
        let replaced = found.value.as_ref().map(|portal| portal.replaced.clone()).unwrap_or_default();
        let (reading, binds, behind) = match (found.value, cursor.value) {
            (Some(portal), _) => (portal.reading.clone(), portal.binds.clone(), portal.behind()),
            (None, Some(cursor)) => (cursor.reading.clone(), Binds::new(), Behind::default()),
            (None, None) => (
                Arc::new(Reading::unread(Text::new(), "no portal of that name is known on this session")),
                Binds::new(),
                Behind::default(),
            ),
        };
        let statements = match &reading.statements {
            Ok(statements) if statements.len() <= 1 => statements.as_slice(),
            _ => &[],
        };
        let expansion = self.names.expand(&reading.text, statements, self.segment_op);
        let need = self.need(&expansion.items, expansion.firm && firm);
        let basis = match need {
            Need::Enquire(question) => {
                drop(expansion);
                return Ok(self.enquire(question, Work::Execute { frame, portal: name, all }));
            }
            Need::Nothing(basis) => basis,
        };
        let mut why = match (&self.unreadable, &reading.statements) {
            (Some(why), _) => Some(why.clone()),
            (None, Err(why)) => Some(why.0.clone()),
            (None, Ok(statements)) if statements.len() > 1 => {
                Some("several statements in one Parse".to_owned())
            }
            (None, Ok(_)) if !firm => Some("what the portal runs is not certain".to_owned()),
            (None, Ok(_)) => None,
        };
        let items = &expansion.items;
        let undecided = self.turns.undecided();
        let mut actions =
            action::actions(Phase::Execute, &reading.text, items, &basis, &binds, undecided, &self.labels);
        let mut moved = None;
        if let (None, [action]) = (&why, actions.as_mut_slice()) {
            self.tell(items, &basis, std::slice::from_ref(action));
            moved = self.still_replaced(action, &replaced).err();
            why = moved.map(str::to_owned);
        }
        if let Some(why) = why {
            let what = What::Execute {
                changes: Vec::new(),
                copy: None,
                opaque: true,
                all,
                provenance: None,
                behind,
            };
            drop(expansion);
            let frame = match moved {
                Some(why) => Frame::failing(frame, &what, why),
                None => frame.into(),
            };
            return Ok(self.ask_unknown(what, Phase::Execute, &reading.text, binds, &why, frame));
        }
        let turn = turn::of_all(items, &actions, undecided);
        let snapshot = items.iter().any(|item| action::takes_snapshot(item.statement()));
        let changes = items.iter().zip(&actions);
        let changes = changes.flat_map(|(item, action)| item.changes(&reading.text, &action.facts)).collect();
        let copy = items.iter().find_map(|item| item.statement().copy);
        let provenance = actions.first().and_then(|action| action.facts.provenance.clone());
        let what = What::Execute { changes, copy, opaque: false, all, provenance, behind };
        drop(expansion);
        Ok(self.ask(what, actions, frame, (turn, snapshot)))
    }

    fn ask(
        &mut self,
        what: What,
        actions: Actions,
        frame: impl Into<Frame>,
        (turn, snapshot): (Turn, bool),
    ) -> Step {
        self.known.is_judged();
        let frame: Frame = frame.into();
        let number = self.number();
        let cancelled = self.cancelled.take().filter(|(segment, _)| *segment == self.segment);
        let cancelled = cancelled.map(|(_, error)| error);
        let frame = if cancelled.is_some() { what.failing(refuse::CANCELLED).into() } else { frame };
        let form = self.form(&what, &actions);
        let mut circumstances = self.circumstances(&what, &actions, form);
        if cancelled.is_some() {
            // Its client waits for nothing any more.
            circumstances.waits = Waits::Never;
        }
        let sets = circumstances::sets(&actions);
        self.may_nest(&actions);
        let form = form.ok();
        let facts = actions.first().filter(|_| actions.len() == 1).map(|action| action.facts.clone());
        // Each of its own counts as one.
        let copies = |action: &&Action| !action.carried().is_empty();
        let own = u64::try_from(actions.iter().filter(copies).count()).unwrap_or(u64::MAX);
        let judged_at = self.copies.wrapping_add(own);
        self.asked = Some(Asked {
            number,
            what,
            turn,
            snapshot,
            cancelled,
            frame: frame.came.clone(),
            sets,
            form,
            facts,
            judged_at,
        });
        Step::Ask(Held::new(number, actions, frame.came).under(circumstances).replaced_by(frame.sent))
    }

    fn ask_unknown(
        &mut self,
        what: What,
        phase: Phase,
        text: &Text,
        binds: Binds,
        why: &str,
        frame: impl Into<Frame>,
    ) -> Step {
        self.ask(what, action::unknown(phase, text.clone(), binds, why), frame, (Turn::Catalogue, false))
    }
}
