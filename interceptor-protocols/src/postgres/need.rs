//! What has to be known of the catalogue before something is judged, and whether it is.
//!
//! Promise: where what is known may be old, or is not certain, it is asked for first; where it cannot be, nothing is known.

use interceptor_core::{
    mask::Labelled,
    model::Action,
    permit::Held,
    protocol::Step,
    sql::{Answer, Question},
};

use super::{
    action::{self, Basis, Expanded},
    asked::{Asked, What},
    decode::PostgresDecoder,
    known::Looked,
    lookup,
    own::{Ends, Errand, Gate},
    work::Work,
};

/// What judging needs to know.
pub(super) struct Wanted {
    pub(super) question: Question,
    /// Whether it needs the catalogue at all.
    pub(super) catalogue: bool,
    /// Whether what is judged takes a snapshot, so that a look-up before it changes nothing.
    pub(super) snapshot: bool,
    /// Whether it is certain what is run.
    pub(super) firm: bool,
    /// How old what is known of it may be.
    pub(super) age: Age,
}

/// How old what is known may be that something is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    /// As old as is known to hold.
    Any,
    /// It is asked for anew, right before.
    None,
}

/// What is needed for judging.
pub(super) enum Need {
    Nothing(Basis),
    Enquire(Question),
}

impl PostgresDecoder {
    /// What is needed before these can be judged. `firm` is false where a name's meaning hangs on answers that have
    /// not come: a look-up then also waits for them.
    pub(super) fn need(&mut self, items: &[Expanded<'_>], firm: bool) -> Need {
        // Which columns it has nobody tells beside the rows.
        let copies_all = items.iter().any(|item| item.statement().copies_all_columns());
        let age = if copies_all && !self.labels.is_empty() { Age::None } else { Age::Any };
        if firm
            && age == Age::Any
            && self.turns.is_proven()
            && let [item] = items
            && let Some(facts) = item.meaning().and_then(|meaning| self.known.facts(meaning, self.moment()))
        {
            return Need::Nothing(Basis::Told(facts));
        }
        self.find(Wanted {
            question: action::question(items),
            catalogue: action::needs_catalogue(items),
            snapshot: items.iter().any(|item| action::takes_snapshot(item.statement())),
            firm,
            age,
        })
    }

    pub(super) fn find(&mut self, wanted: Wanted) -> Need {
        let Wanted { mut question, catalogue, snapshot, firm, age } = wanted;
        let now = self.moment();
        let lack = |why: &str| Need::Nothing(Basis::Nothing(why.to_owned()));
        let fresh = match (age, self.known.looked()) {
            (Age::Any, _) | (Age::None, Looked::Now) => true,
            (Age::None, Looked::Before) => false,
            (Age::None, Looked::Past) => {
                return lack("the transaction sees an older catalogue than COPY does; name the columns");
            }
        };
        if firm && fresh && self.turns.is_proven() {
            if !catalogue {
                return Need::Nothing(Basis::Answer(Answer::default(), now));
            }
            if let Some((answer, asked)) = self.known.answer(&question, now) {
                return Need::Nothing(Basis::Answer(answer, asked));
            }
        }
        if let Some(why) = self.known.failure(now) {
            return lack(why);
        }
        if self.skips_now() {
            return lack("an earlier message of the same pipeline failed, so its names cannot be looked up");
        }
        if question.len() > lookup::MAX_NAMES {
            return lack(&format!("it has more than {} names", lookup::MAX_NAMES));
        }
        let settled = self.is_settled();
        if settled && self.status == b'E' {
            return lack("the transaction has failed, so names cannot be looked up; ROLLBACK first");
        }
        let outside = settled && self.status == b'I';
        if !outside && !self.snapshot && !snapshot {
            return lack("looking its names up would fix the transaction's snapshot; run a query first");
        }
        self.known.refresh(&mut question, now);
        Need::Enquire(question)
    }

    /// Keeps what the catalogue's answer made of a statement, for the next time that its like is asked.
    pub(super) fn tell(&mut self, items: &[Expanded<'_>], basis: &Basis, actions: &[Action]) {
        if let ([item], [action], Basis::Answer(_, asked)) = (items, actions, basis)
            && let Some(meaning) = item.meaning()
        {
            self.known.tell(meaning, *asked, &action.facts);
        }
    }

    pub(super) fn enquire(&mut self, question: Question, work: Work) -> Step {
        let number = self.number();
        let ends = if self.piping { Ends::Flush } else { Ends::Sync };
        let request = lookup::request(number, &question, ends, &self.labels);
        let reader =
            lookup::Reader::of(Labelled { labels: self.labels.clone(), bindings: self.bindings.clone() });
        let errand = Errand::Names { question, reader, asked: self.moment() };
        self.work = Some(work);
        let what = What::Gate(Box::new(Gate::new(ends, errand)));
        self.cancelled = None;
        self.asked = Some(Asked { snapshot: ends == Ends::Flush, ..Asked::quietly(number, what) });
        Step::Enquire(Held::new(number, vec![request.action], request.bytes))
    }
}
