//! What has to be known of the catalogue before something is judged, and whether it is.
//!
//! Promise: where what is known may be old, or is not certain, it is asked for first; where it cannot be, nothing is known.
//! What another session was told counts only where the server has said of both sessions that they ask as the same.

use std::sync::Arc;

use interceptor_core::{
    catalogue::{Ended, Others, Viewer},
    mask::Labelled,
    model::Action,
    permit::Held,
    protocol::Step,
    sql::{Answer, Moment, Question},
};

use super::{
    action::{self, Basis, Expanded},
    asked::{Asked, What},
    decode::PostgresDecoder,
    known::Looked,
    lookup::{self, Settings},
    own::{Ends, Errand, Gate, Sought},
    turn::Turn,
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
    Enquire(Inquiry),
}

/// How what is needed is got.
pub(super) enum Inquiry {
    /// This session asks.
    Own(Sought),
    /// Another session asks already.
    Theirs(Ended),
}

/// From whom what a message needs may be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Sources {
    /// From other sessions, and by waiting for them.
    #[default]
    All,
    /// From other sessions, for whom it was waited.
    HasWaited,
    /// From this session's own look-up alone.
    Own,
}

/// As whom this session asks the catalogue, by the server's word after so many changes of its own; none where nobody
/// else asks as the same.
#[derive(Debug)]
pub(super) struct View {
    changes: u64,
    viewer: Option<Arc<Viewer>>,
}

/// What a look-up brought.
#[derive(Clone, Copy)]
pub(super) enum Told<'a> {
    /// As whom the session asks.
    Viewer(&'a Answer),
    /// What names mean besides.
    Names(&'a Answer),
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
            && let Some((facts, asked)) =
                item.meaning().and_then(|meaning| self.known.facts(meaning, self.moment()))
            && !self.should_renew(asked)
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
            if let Some(need) = self.known_or_others(&question, now, age) {
                return need;
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
        if self.is_settled() && self.status == b'E' {
            return lack("the transaction has failed, so names cannot be looked up; ROLLBACK first");
        }
        if !self.is_outside() && !self.snapshot && !snapshot {
            return lack("looking its names up would fix the transaction's snapshot; run a query first");
        }
        self.known.refresh(&mut question, now);
        Need::Enquire(Inquiry::Own(Sought::Names(question)))
    }

    /// Whether no transaction is under way, and nothing else.
    fn is_outside(&self) -> bool {
        self.is_settled() && self.status == b'I'
    }

    /// As whom this session asks, where that is known and others may ask as the same.
    fn viewer(&self) -> Option<Arc<Viewer>> {
        let view = self.view.as_ref().filter(|view| view.changes == self.turns.changes())?;
        // What is undecided is not to be seen by others.
        view.viewer.clone().filter(|_| self.turns.undecided() == Turn::Nothing)
    }

    /// Whether what was asked then should be asked for again, before it holds no more and everybody has to wait. Not where
    /// that was tried just now, in vain.
    fn should_renew(&self, asked: Moment) -> bool {
        let now = self.moment();
        asked.is_ending(now)
            && self.is_outside()
            && self.viewer().is_some()
            && self.known.failure(now).is_none()
    }

    /// What this session or another knows of `question`, or how to come by what another does. None where this session
    /// is to ask.
    fn known_or_others(&mut self, question: &Question, now: Moment, age: Age) -> Option<Need> {
        let own = self.known.answer(question, now);
        let keep = |(answer, asked)| Some(Need::Nothing(Basis::Answer(answer, asked)));
        if own.as_ref().is_some_and(|(_, asked)| !self.should_renew(*asked)) {
            return own.and_then(keep);
        }
        if self.sources == Sources::Own || age == Age::None {
            return own.and_then(keep);
        }
        let Some(viewer) = self.viewer() else {
            let was_asked = self.view.as_ref().is_some_and(|view| view.changes == now.changes);
            let worth_it = !was_asked
                && self.is_outside()
                && self.turns.undecided() == Turn::Nothing
                && self.turns.catalogue().may_be_known(question, now);
            return worth_it.then_some(Need::Enquire(Inquiry::Own(Sought::Viewer)));
        };
        let Others { answer, asking } = self.turns.catalogue().others(&viewer, question, now);
        let theirs =
            answer.map(|(answer, stage)| (answer, Moment { segment: None, stage: Some(stage), ..now }));
        let is_fresh = theirs.as_ref().is_some_and(|(_, asked)| !self.should_renew(*asked));
        // What holds for a little longer is used while somebody sees to it, and not otherwise.
        if let Some((answer, asked)) = theirs.filter(|_| is_fresh || asking.is_some()) {
            self.known.take(asked, answer.clone());
            return keep((answer, asked));
        }
        match (own, asking) {
            (Some(own), Some(_)) => keep(own),
            (None, Some(ended)) if self.sources == Sources::All && self.is_outside() => {
                Some(Need::Enquire(Inquiry::Theirs(ended)))
            }
            (Some(_) | None, None) | (None, Some(_)) => None,
        }
    }

    /// Takes what the server said of who asked at that moment, and what it told.
    pub(super) fn learn_view(&mut self, asked: Moment, settings: Settings, told: Told<'_>) {
        if asked.changes != self.turns.changes() {
            return;
        }
        let (search_path, database) = match told {
            Told::Viewer(answer) | Told::Names(answer) => (&answer.search_path, answer.database_oid),
        };
        let viewer = settings.viewer.zip(database).map(|((server, setting, role), database)| {
            let labels = self.labels.clone();
            Arc::new(Viewer { server, database, role, setting, search_path: search_path.clone(), labels })
        });
        self.view = Some(View { changes: asked.changes, viewer });
        if let (Some(viewer), Told::Names(answer)) = (self.viewer(), told) {
            self.turns.catalogue().tell(&viewer, asked, answer.clone());
        }
    }

    /// Keeps what the catalogue's answer made of a statement, for the next time that its like is asked.
    pub(super) fn tell(&mut self, items: &[Expanded<'_>], basis: &Basis, actions: &[Action]) {
        if let ([item], [action], Basis::Answer(_, asked)) = (items, actions, basis)
            && let Some(meaning) = item.meaning()
        {
            self.known.tell(meaning, *asked, &action.facts);
        }
    }

    pub(super) fn enquire(&mut self, inquiry: Inquiry, work: Work) -> Step {
        self.work = Some(work);
        let sought = match inquiry {
            Inquiry::Own(sought) => sought,
            Inquiry::Theirs(ended) => {
                self.sources = Sources::HasWaited;
                return Step::Await(ended);
            }
        };
        let number = self.number();
        let ends = if self.piping { Ends::Flush } else { Ends::Sync };
        let request = match &sought {
            Sought::Names(question) => lookup::request(number, question, ends, &self.labels),
            Sought::Viewer => lookup::scope_request(number, ends),
        };
        let reader =
            lookup::Reader::of(Labelled { labels: self.labels.clone(), bindings: self.bindings.clone() });
        let asking = match &sought {
            Sought::Names(question) if self.is_outside() && self.turns.undecided() == Turn::Nothing => {
                let viewer = self.viewer().map(|viewer| (*viewer).clone());
                self.turns.catalogue().ask(viewer, question.clone(), self.moment())
            }
            Sought::Names(_) | Sought::Viewer => None,
        };
        let errand = Errand::Names { sought, reader, asked: self.moment(), _asking: asking };
        let what = What::Gate(Box::new(Gate::new(ends, errand)));
        self.cancelled = None;
        self.asked = Some(Asked { snapshot: ends == Ends::Flush, ..Asked::quietly(number, what) });
        Step::Enquire(Held::new(number, vec![request.action], request.bytes))
    }
}
