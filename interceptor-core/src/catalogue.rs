//! What all sessions to one resource share of its catalogue: how far it has come, and what names mean to whom.
//!
//! Promise: an answer is given only to sessions of which the server itself has said that they would get the same, and
//! to none for longer than to the session that asked. Nobody waits for a session that asks no more. It must never know
//! a connection.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use futures_channel::oneshot;
use futures_util::{FutureExt as _, future::Shared};

use crate::{
    mask::Labels,
    sql::{Answer, Answers, Moment, Question},
};

/// Into how many parts the time is cut for which an answer holds. In the last of them somebody asks again, so that
/// nobody has to wait for that.
pub const PARTS: u64 = 8;
/// Of how many viewers answers are kept.
const MAX_VIEWERS: usize = 16;
/// How many look-ups others wait for.
const MAX_ASKING: usize = 64;

/// How far a catalogue had come when something was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// How many changes the resource's sessions had sent.
    pub changes: u64,
    /// How many parts of an answer's time had passed.
    pub part: u64,
}

impl Stage {
    /// Whether what was true then can be taken for true `now`.
    pub fn holds(self, now: Self) -> bool {
        self.changes == now.changes && now.part.checked_sub(self.part).is_some_and(|passed| passed < PARTS)
    }

    /// Whether it can, for the last part of its time.
    pub fn is_ending(self, now: Self) -> bool {
        self.holds(now) && now.part.saturating_sub(self.part) == PARTS.saturating_sub(1)
    }

    /// Of two that hold now, the one that does so for less long.
    pub(crate) fn older(self, other: Self) -> Self {
        if self.part <= other.part { self } else { other }
    }
}

/// Whose view of the catalogue it is: sessions of which all of this is equal are given the same answers. The server
/// tells it on the session's own connection.
#[derive(Debug, Clone)]
pub struct Viewer {
    /// When the server was started, by its own word, which no two servers share.
    pub server: String,
    /// The number of the database.
    pub database: u32,
    /// The number of the effective role.
    pub role: u32,
    /// The search path as it is set.
    pub setting: String,
    /// The search path as it is, which a server may find anew later for one session than for another.
    pub search_path: Vec<String>,
    /// What the resource's labels are to the session.
    pub labels: Arc<Labels>,
}

impl Viewer {
    fn is(&self, other: &Self) -> bool {
        let Self { server, database, role, setting, search_path, labels } = self;
        (server, database, role, setting, search_path)
            == (&other.server, &other.database, &other.role, &other.setting, &other.search_path)
            && (Arc::ptr_eq(labels, &other.labels) || labels == &other.labels)
    }
}

/// The catalogue of a resource. Its stage moves on when a session may have changed what names mean to the others, and
/// with the time, for changes made around us.
pub struct Catalogue {
    changes: AtomicU64,
    time: Box<dyn Fn() -> u64 + Send + Sync>,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    views: Vec<(Viewer, Answers)>,
    asking: Vec<Asked>,
    /// Counts look-ups that others may wait for.
    count: u64,
}

/// A look-up that is under way.
#[derive(Debug)]
struct Asked {
    number: u64,
    /// For whom; none where the server is yet to tell.
    viewer: Option<Viewer>,
    question: Question,
    since: Stage,
    ended: Shared<oneshot::Receiver<()>>,
}

/// A look-up that this session has begun. It is over when this is dropped.
#[derive(Debug)]
pub struct Asking {
    catalogue: Arc<Catalogue>,
    number: u64,
    _ends: oneshot::Sender<()>,
}

/// The end of another session's look-up.
#[derive(Debug, Clone)]
pub struct Ended(Shared<oneshot::Receiver<()>>);

impl Future for Ended {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.poll_unpin(context).map(|_| ())
    }
}

/// What others have of what somebody wants to know.
#[derive(Debug, Default)]
pub struct Others {
    /// The answer, and when it was asked.
    pub answer: Option<(Answer, Stage)>,
    /// One of them asks for it now.
    pub asking: Option<Ended>,
}

impl Catalogue {
    /// One of which nothing is known. Its stage moves on with `time`, which counts the parts of an answer's time and must
    /// never go back.
    pub fn new(time: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { changes: AtomicU64::new(0), time: Box::new(time), told: Mutex::default() }
    }

    /// How far it has come.
    pub fn stage(&self) -> Stage {
        Stage { changes: self.changes.load(Ordering::Acquire), part: (self.time)() }
    }

    /// It may have changed.
    pub fn advance(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// What other sessions know `now`, or are about to, that answers `question` for `viewer`.
    pub fn others(&self, viewer: &Viewer, question: &Question, now: Moment) -> Others {
        let Some(stage) = now.stage else { return Others::default() };
        let now = shared(now.copies, stage);
        let mut told = self.told();
        let mut asking = told.asking.iter().filter(|asked| {
            asked.since.holds(stage) && asked.viewer.as_ref().is_none_or(|other| viewer.is(other))
        });
        let asking = asking.find(|asked| asked.question.covers(question));
        let asking = asking.map(|asked| Ended(asked.ended.clone()));
        let view = told.views.iter_mut().find(|(other, _)| viewer.is(other));
        let answer = view.and_then(|(_, answers)| answers.answer(question, now));
        Others { answer: answer.and_then(|(answer, asked)| Some((answer, asked.stage?))), asking }
    }

    /// Whether it may be worth while to ask as whom one asks: whether anybody at all knows `now`, or is about to, what
    /// answers `question`.
    pub fn may_be_known(&self, question: &Question, now: Moment) -> bool {
        let Some(stage) = now.stage else { return false };
        let now = shared(now.copies, stage);
        let mut told = self.told();
        told.asking.iter().any(|asked| asked.since.holds(stage) && asked.question.covers(question))
            || told.views.iter_mut().any(|(_, answers)| answers.answer(question, now).is_some())
    }

    /// This session asks now, so that others need not; none where too many do.
    pub fn ask(self: &Arc<Self>, viewer: Option<Viewer>, question: Question, now: Moment) -> Option<Asking> {
        let since = now.stage?;
        let (ends, ended) = oneshot::channel();
        let mut told = self.told();
        if told.asking.len() >= MAX_ASKING {
            return None;
        }
        told.count = told.count.wrapping_add(1);
        let number = told.count;
        told.asking.push(Asked { number, viewer, question, since, ended: ended.shared() });
        Some(Asking { catalogue: self.clone(), number, _ends: ends })
    }

    /// What the server told `viewer`, who asked at that moment.
    pub fn tell(&self, viewer: &Viewer, asked: Moment, answer: Answer) {
        let Some(stage) = asked.stage.filter(|stage| stage.holds(self.stage())) else { return };
        let mut told = self.told();
        let at = match told.views.iter().position(|(one, _)| one.is(viewer)) {
            Some(at) => at,
            None => {
                if told.views.len() >= MAX_VIEWERS {
                    told.views.clear();
                }
                told.views.push((viewer.clone(), Answers::default()));
                told.views.len().saturating_sub(1)
            }
        };
        if let Some((_, answers)) = told.views.get_mut(at) {
            answers.learn(shared(asked.copies, stage), answer);
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A moment as it is to all sessions.
fn shared(copies: u64, stage: Stage) -> Moment {
    Moment { changes: 0, segment: None, copies, stage: Some(stage) }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.catalogue.told().asking.retain(|asked| asked.number != self.number);
    }
}

impl fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Catalogue").field(&self.stage()).finish()
    }
}
