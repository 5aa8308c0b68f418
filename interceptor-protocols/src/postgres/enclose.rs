//! An exchange of the client's that may go only within terms: what is carried around it, and whether what it did lasts.
//!
//! A Query outside of a transaction is put into one of ours: BEGIN, the client's own bytes, COMMIT or ROLLBACK, each of
//! ours an exchange of its own. The client's CommandComplete is kept back until COMMIT has succeeded. In a transaction
//! of the client's, or in the stretch of a pipeline, which ends as a whole, what breaks its terms is made to fail by a
//! message that cannot be parsed. What only reads is counted as it passes.
//!
//! Promises: nothing of the client's goes behind what is enclosed before it is known to last; what breaks its terms, and
//! whatever is not seen to keep them, is taken back; the client finds its session as the server's own error leaves it.
//! It must never know who set the terms, or why.

use std::sync::Arc;

use bytes::Bytes;
use interceptor_core::{
    Denial, Enclosed, Enclosure, Held, Terms,
    model::{
        Action, Binds, Effect, OutcomeStatus, Phase, RecordId, StatementFacts, StatementKind, Target, Verb,
    },
    protocol::{DecodeError, Done, Endings, Refusal, Step},
};

use super::{
    asked::{Asked, What},
    copy::FLUSH,
    decode::{PostgresDecoder, State},
    frame::Head,
    image::{Imaging, Nesting, Rows, Subject},
    meter::changed,
    outcome::end,
    own::{self, Ends, Errand, Failed, Gate, Own},
    queue::{Bounds, Changes, Entry, Kind, Places},
    refuse,
    upstream::{Fate, unexpected},
    work::{self, Work},
};

/// How an exchange would be enclosed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// It only reads: its rows are counted as they pass.
    Counted,
    /// A Query, in a transaction of ours.
    Bracketed,
    /// In the client's transaction, or in the stretch of its pipeline.
    Inside,
}

/// The exchange that is being enclosed.
#[derive(Debug)]
pub(super) struct Enclosing {
    form: Form,
    stage: Stage,
    /// Its terms, and the images that have been taken for them.
    within: Arc<Enclosed>,
    /// Takes the images.
    imaging: Option<Imaging>,
    /// Its record.
    record: Option<RecordId>,
}

/// How far it is.
#[derive(Debug)]
enum Stage {
    /// The transaction of ours is to be begun.
    Begin,
    /// The table that it changes is to be looked at.
    Look,
    /// Images of the rows that it will change are to be taken.
    Image,
    /// It is asked once more: enclosed, or with the reason why it cannot be.
    Ask(Result<(), String>),
    /// It was sent, and the server is to be told to answer.
    Flush,
    /// It was sent, and its end is awaited. Once CommandComplete has come: what it says.
    Sent(Option<Weighed>),
    /// The transaction of ours is to be ended.
    End(Ending),
    /// That could not be done: the session ends, and so does the transaction.
    Leave,
}

/// What the end of an exchange says.
#[derive(Debug)]
struct Weighed {
    /// What the client gets at the end: CommandComplete where it kept its terms, else an error.
    kept: Result<Bytes, Bytes>,
    done: Endings,
}

/// How a transaction of ours ends.
#[derive(Debug)]
enum Ending {
    /// What was done lasts: then the client gets these, and the exchange has ended so.
    Commit(Bytes, Endings),
    /// It is taken back.
    Rollback(Bytes, Endings),
}

/// Which exchange of our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Begin,
    Look,
    Image,
    End,
}

impl Enclosing {
    /// What is said of it when it is asked once more, and does this.
    fn told(&self, actions: &[Action]) -> Enclosure {
        let same = |imaging: &Imaging| actions.first().is_some_and(|action| imaging.is_of(&action.facts));
        match &self.stage {
            Stage::Ask(Err(why)) => Enclosure::Impossible(why.clone().into()),
            _ if !self.imaging.as_ref().is_none_or(same) => {
                Enclosure::Impossible("its table is another one by now: send it again".into())
            }
            _ => Enclosure::Within(self.within.clone()),
        }
    }

    /// What comes before it is asked.
    fn first(&self) -> Stage {
        if self.imaging.is_some() { Stage::Look } else { Stage::Ask(Ok(())) }
    }

    /// What follows on a part whose answer these are.
    fn next(&mut self, part: Part, rows: Rows) -> Result<Stage, String> {
        match (part, &mut self.imaging) {
            (Part::Look, Some(imaging)) => imaging.sees(rows).map(|()| Stage::Image),
            (Part::Image, Some(imaging)) => {
                let pack = Some(imaging.pack(rows)?);
                self.within = Arc::new(Enclosed { terms: self.within.terms, pack });
                Ok(Stage::Ask(Ok(())))
            }
            _ => Ok(self.first()),
        }
    }

    /// Whether it stands in a transaction of ours, or is to.
    fn is_bracketed(&self) -> bool {
        self.form == Form::Bracketed
    }
}

/// The refusal of what breaks its terms, to somebody who is not told how many rows there are.
const UNCOUNTED: &str = "it comes to other rows than was approved";

impl PostgresDecoder {
    /// How what is asked would be enclosed, or why it cannot be.
    pub(super) fn form(&self, what: &What, actions: &[Action]) -> Result<Form, &'static str> {
        let changes = actions.iter().any(|action| action.facts.changes_rows());
        match what {
            What::Query { places, opaque: false } if matches!(places.as_slice(), [place] if place.copy.is_none()) => {
                match self.status {
                    _ if !changes => Ok(Form::Counted),
                    b'I' if self.is_settled() => Ok(Form::Bracketed),
                    b'T' if self.is_settled() => Ok(Form::Inside),
                    _ => Err("something before it is still under way: send it when that has been answered"),
                }
            }
            What::Query { .. } => Err("it stands among other statements: send it alone"),
            What::Execute { opaque: false, copy: None, all: All::Rows, .. } => {
                Ok(if changes { Form::Inside } else { Form::Counted })
            }
            What::Execute { .. } => Err("it asks for a part of its rows: ask for all of them"),
            What::Open | What::Function { .. } | What::Parse { .. } | What::Bind | What::Gate(_) => {
                Err("it is not a statement: send it as one")
            }
        }
    }

    /// What the gate is told of that.
    pub(super) fn enclosure(&self, form: Result<Form, &'static str>, actions: &[Action]) -> Enclosure {
        match (&self.enclosing, form) {
            (Some(enclosing), _) => enclosing.told(actions),
            (None, Ok(_)) => Enclosure::Possible,
            (None, Err(why)) => Enclosure::Impossible(why.into()),
        }
    }

    /// What was asked may go within these terms.
    pub(super) fn begin_enclosing(&mut self, asked: Asked, terms: Terms) {
        let form = asked.form.unwrap_or(Form::Inside);
        self.work = work::read_again(asked.frame);
        let imaging = terms.undo.map(|most| self.imaging(asked.facts.as_deref(), most)).transpose();
        let within = Arc::new(Enclosed { terms, pack: None });
        let mut enclosing =
            Box::new(Enclosing { form, stage: Stage::Begin, within, imaging: None, record: None });
        match imaging {
            Err(why) => enclosing.stage = Stage::Ask(Err(why)),
            Ok(imaging) => {
                enclosing.imaging = imaging;
                if form != Form::Bracketed {
                    enclosing.stage = enclosing.first();
                }
            }
        }
        self.enclosing = Some(enclosing);
    }

    /// Begins to take images of the rows that the frame at hand changes.
    fn imaging(&self, facts: Option<&StatementFacts>, most: u64) -> Result<Imaging, String> {
        let facts = facts.ok_or("it is not one statement")?;
        if facts.has_tokens() {
            return Err("there is a token in it, so that no image of its rows can be taken".to_owned());
        }
        let portal = match &self.work {
            Some(Work::Execute { portal, .. }) => self.names.portals.find(portal, self.segment_op).value,
            _ => None,
        };
        let text = match (&self.work, &portal) {
            (Some(Work::Query { reading, .. }), _) => &reading.text,
            (_, Some(portal)) => &portal.reading.text,
            _ => return Err("what it runs is not known".to_owned()),
        };
        let given = portal.as_ref().and_then(|portal| portal.given.as_deref());
        Imaging::of(&Subject { text, facts, given, nesting: self.nesting }, most)
    }

    /// These are asked: a savepoint may be among them.
    pub(super) fn may_nest(&mut self, actions: &[Action]) {
        if self.status == b'I' && self.is_settled() && actions.len() == 1 {
            return;
        }
        let nests =
            |action: &Action| action.facts.kind == StatementKind::Transaction && !begins(&action.text);
        if actions.iter().any(nests) {
            self.nesting = Nesting::Savepoint;
        }
    }

    /// What comes before anything else that the client says.
    pub(super) fn enclosing_step(&mut self) -> Option<Step> {
        let enclosing = self.enclosing.as_mut()?;
        match &enclosing.stage {
            Stage::Ask(_) => None,
            Stage::Begin => Some(self.errand(Part::Begin, turning("BEGIN"))),
            Stage::Look => {
                let own = enclosing.imaging.as_ref().map(Imaging::table);
                own.map(|own| self.errand(Part::Look, own))
            }
            Stage::Image => {
                let own = enclosing.imaging.as_ref().and_then(Imaging::rows);
                own.map(|own| self.errand(Part::Image, own))
            }
            Stage::Flush => {
                enclosing.stage = Stage::Sent(None);
                Some(Step::Pass(Bytes::from_static(FLUSH)))
            }
            Stage::Sent(_) => Some(Step::Hold),
            Stage::End(Ending::Commit(..)) => Some(self.errand(Part::End, turning("COMMIT"))),
            Stage::End(Ending::Rollback(..)) => Some(self.errand(Part::End, turning("ROLLBACK"))),
            Stage::Leave => {
                self.state = State::Leaving;
                Some(Step::Close(Bytes::new()))
            }
        }
    }

    fn errand(&mut self, part: Part, (own, action): (Own<'_>, Action)) -> Step {
        let number = self.number();
        let ends = if self.piping { Ends::Flush } else { Ends::Sync };
        let bytes = own::messages(number, &own, ends);
        let what = What::Gate(Box::new(Gate::new(ends, Errand::Enclosing(part, Rows::default()))));
        self.cancelled = None;
        self.asked = Some(Asked::quietly(number, what));
        Step::Enquire(Held::new(number, [action], bytes))
    }

    /// What is at the gate was permitted, by this record. Those of our own exchanges are nobody's to know.
    pub(super) fn enclosed_is_recorded(&mut self, record: RecordId) {
        if let Some(enclosing) = self.enclosing.as_mut().filter(|it| matches!(it.stage, Stage::Ask(_))) {
            enclosing.record = Some(record);
        }
    }

    /// The client's exchange was sent; how its entry in the queue is bound.
    pub(super) fn enclosed_was_sent(&mut self, what: &What) -> Bounds {
        if self.skips_now() {
            // The server passes it over, and never answers it.
            self.enclosing = None;
        }
        // It went all the same, as nobody wants anything of it any more: without a transaction of ours it is like any other.
        let open = self.status != b'I';
        self.enclosing.take_if(|it| matches!(it.stage, Stage::Ask(Err(_))) && !(it.is_bracketed() && open));
        let Some(enclosing) = &mut self.enclosing else { return Bounds::None };
        match (enclosing.form, what) {
            (Form::Counted, _) => {
                let rows = enclosing.within.terms.rows;
                self.enclosing = None;
                rows.map_or(Bounds::None, Bounds::Ceiling)
            }
            (_, What::Execute { .. }) => {
                enclosing.stage = Stage::Flush;
                Bounds::Enclosed
            }
            _ => {
                enclosing.stage = Stage::Sent(None);
                Bounds::Enclosed
            }
        }
    }

    /// The client's exchange was refused after all: `error` for the client, once a transaction of ours is ended. None
    /// where there is none.
    pub(super) fn enclosed_was_refused(&mut self, error: &Bytes) -> Option<Refusal> {
        let mut enclosing = self.enclosing.take()?;
        if !enclosing.is_bracketed() || self.status == b'I' {
            return None;
        }
        enclosing.stage = Stage::End(Ending::Rollback(error.clone(), Endings::new()));
        self.enclosing = Some(enclosing);
        Some(Refusal { client: Bytes::new(), upstream: Bytes::new() })
    }

    /// An exchange of our own was refused.
    pub(super) fn part_was_refused(&mut self, part: Part, denial: &Denial) -> Refusal {
        let mut refusal = Refusal { client: Bytes::new(), upstream: Bytes::new() };
        if let Some(enclosing) = &mut self.enclosing {
            enclosing.stage = match part {
                Part::Begin | Part::Look | Part::Image => {
                    Stage::Ask(Err("what goes before it was refused: see its own record".to_owned()))
                }
                Part::End => {
                    refusal.client = refuse::farewell(denial);
                    Stage::Leave
                }
            };
        }
        refusal
    }

    /// An exchange of our own has ended, and the server is ready.
    pub(super) fn part_has_ended(
        &mut self,
        part: Part,
        answer: Result<Rows, Failed>,
        done: &mut Endings,
    ) -> Fate {
        self.enquiring = false;
        let Some(enclosing) = &mut self.enclosing else { return Fate::Swallow };
        let failed = match (part, answer) {
            (Part::End, answer) => answer.err(),
            (_, answer) => {
                let answer = answer.map_err(|failed| {
                    format!("what has to go before it failed: {} ({})", failed.message, failed.code)
                });
                let next = answer.and_then(|rows| enclosing.next(part, rows));
                enclosing.stage = next.unwrap_or_else(|why| Stage::Ask(Err(why)));
                return Fate::Swallow;
            }
        };
        let Stage::End(ending) = std::mem::replace(&mut enclosing.stage, Stage::Leave) else {
            return Fate::Swallow;
        };
        let (client, ended) = match (ending, failed) {
            (Ending::Commit(kept, ended), None) => (kept, ended),
            // Such as a constraint that was deferred.
            (Ending::Commit(_, ended), Some(failed)) => {
                let code = failed.code.clone();
                (refuse::again(&failed.body), failing(ended, &code, "what it did could not be committed"))
            }
            (Ending::Rollback(client, ended), _) => (client, ended),
        };
        if self.status != b'I' {
            // Something has kept it open, such as a cancel request that came late.
            enclosing.stage = Stage::End(Ending::Rollback(client, ended));
            return Fate::Swallow;
        }
        self.enclosing = None;
        done.extend(ended);
        Fate::Instead(refuse::and_ready(&client, self.status))
    }

    /// Whether the row that has just been counted is beyond what may be returned.
    pub(super) fn is_beyond(&self) -> bool {
        let most = self.enclosing.as_ref().and_then(|enclosing| enclosing.within.terms.rows);
        let entry = self.queue.first().filter(|entry| entry.bounds == Bounds::Enclosed);
        entry.zip(most).is_some_and(|(entry, most)| entry.rows > most)
    }

    /// CommandComplete of what is enclosed.
    pub(super) fn weigh(&mut self, head: Head, body: &[u8], done: &mut Endings) -> Result<Fate, DecodeError> {
        let Some(Enclosing { within, form, record, .. }) = self.enclosing.as_deref() else {
            return Err(unexpected(head.tag));
        };
        let (within, form, record) = (within.clone(), *form, *record);
        let count = changed(body, false);
        // What the client gets of both hangs on whose answer it is: told before that is over.
        let (completed, uncounted) = (self.completed(body), self.is_uncounted());
        let is_query = matches!(self.queue.first().map(|entry| &entry.kind), Some(Kind::Query { .. }));
        let mut ended = Endings::new();
        if is_query {
            self.end_statement(head.tag, body, &mut ended)?;
        } else {
            self.end_execute(head.tag, body, &mut ended);
        }
        // Where its answer was cut, the client has been told; a transaction of its own fails as any other.
        let cut = self.meter.stopped;
        let broken = within.broken(count).filter(|_| !cut).map(|denial| Denial { record, ..denial });
        let error = broken.as_ref().map(|denial| match uncounted {
            true => refuse::refusal(&Denial { message: UNCOUNTED.to_owned(), ..denial.clone() }),
            false => refuse::refusal(denial),
        });
        if let Some(denial) = &broken {
            ended = failing(ended, refuse::REFUSED, &denial.message);
        }
        match (form, error) {
            (Form::Bracketed, error) => {
                let kept = match error {
                    _ if cut => Err(Bytes::new()),
                    Some(error) => Err(error),
                    None => Ok(completed),
                };
                self.has_weighed(Weighed { kept, done: ended });
                Ok(Fate::Swallow)
            }
            (_, None) => {
                self.enclosing = None;
                done.extend(ended);
                Ok(Fate::Pass)
            }
            (_, Some(error)) => {
                done.extend(ended);
                if is_query {
                    self.has_weighed(Weighed { kept: Err(error), done: Endings::new() });
                } else {
                    self.enclosing = None;
                    self.refused_in = Some(self.segment);
                    self.push_back(Kind::Parse(Changes::new()), error);
                    self.meter.back = Some(refuse::failing_parse(&format!("{}broken", own::PREFIX), BROKEN));
                }
                Ok(Fate::Swallow)
            }
        }
    }

    fn has_weighed(&mut self, weighed: Weighed) {
        if let Some(enclosing) = &mut self.enclosing {
            enclosing.stage = Stage::Sent(Some(weighed));
        }
    }

    /// A message that fails takes the place of one that has ended; its error is `error` to the client.
    fn push_back(&mut self, kind: Kind, error: Bytes) {
        let mut failing = Entry::new(kind, None);
        failing.replaced = Some(error);
        self.queue.push(failing);
    }

    /// Something in the pipeline has failed. What was sent of it does not last, and may never be answered.
    pub(super) fn pipeline_has_failed(&mut self) {
        let sent = |enclosing: &Enclosing| matches!(enclosing.stage, Stage::Flush | Stage::Sent(_));
        if self.enclosing.as_deref().is_some_and(sent) {
            self.enclosing = None;
        }
    }

    /// ReadyForQuery behind an enclosed Query, whose entry is at the front. None where it goes on as any other does.
    pub(super) fn enclosed_is_ready(&mut self, done: &mut Endings) -> Result<Option<Fate>, DecodeError> {
        let Some(mut enclosing) = self.enclosing.take() else { return Ok(None) };
        let weighed = match enclosing.stage {
            Stage::Sent(weighed) => weighed,
            _ => None,
        };
        if enclosing.form != Form::Bracketed {
            let Some(Weighed { kept: Err(error), .. }) = weighed.filter(|_| self.status == b'T') else {
                return Ok(None);
            };
            self.close_front(done);
            let kind = Kind::Query { places: Places::new(), at: 0, failed: false, opaque: true };
            self.push_back(kind, error);
            self.meter.back = Some(refuse::failing_query(BROKEN));
            return Ok(Some(Fate::Swallow));
        }
        if self.status == b'I' {
            return Err(DecodeError::upstream("it ended a transaction that nothing asked it to end"));
        }
        self.close_front(done);
        self.meter.stopped = false;
        enclosing.stage = Stage::End(match weighed {
            Some(Weighed { kept: Ok(kept), done }) if self.status == b'T' => Ending::Commit(kept, done),
            // An error came behind its end, and has been told.
            Some(Weighed { kept: Ok(_), done }) => {
                Ending::Rollback(Bytes::new(), failing(done, refuse::REFUSED, "it failed behind its end"))
            }
            Some(Weighed { kept: Err(error), done }) => Ending::Rollback(error, done),
            // Its own error has been told.
            None => Ending::Rollback(Bytes::new(), Endings::new()),
        });
        self.enclosing = Some(enclosing);
        Ok(Some(Fate::Swallow))
    }

    fn close_front(&mut self, done: &mut Endings) {
        if let Some(entry) = self.queue.pop() {
            self.close_query(entry, done);
        }
    }
}

/// Whether a statement about transactions begins one: drivers send that together with what comes first in it.
fn begins(text: &str) -> bool {
    let word = text.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    word.eq_ignore_ascii_case("begin") || word.eq_ignore_ascii_case("start")
}

/// A statement that begins or ends a transaction.
fn turning(text: &'static str) -> (Own<'static>, Action) {
    let facts = StatementFacts {
        kind: StatementKind::Transaction,
        effects: vec![Effect { verb: Verb::Transaction, target: Target::Resource }],
        has_where: true,
        has_limit: false,
        unknown: None,
        provenance: None,
        dialect: interceptor_core::sql::Dialect::Postgres,
    };
    let action =
        Action { phase: Phase::Execute, text: text.into(), binds: Binds::new(), facts: facts.into() };
    (Own { text: text.into(), parameters: Vec::new() }, action)
}

/// What stands for an exchange that broke its terms.
const BROKEN: &str = "interceptor: taken back, it broke its terms";

/// The same ends, as failures.
fn failing(ended: Endings, code: &str, why: &str) -> Endings {
    let fail = |done: Done| Done {
        rows: done.rows,
        recorded: done.recorded,
        code: Some(code.to_owned()),
        message: Some(why.to_owned()),
        ..end(done.exchange, done.place, OutcomeStatus::Failed, done.bytes)
    };
    ended.into_iter().map(fail).collect()
}

/// How much of its rows an Execute asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum All {
    Rows,
    Part,
}
