//! The gate as one session meets it: what stays the same for a session is worked out once, and a yes that can only be
//! given again is remembered.
//!
//! Promise: a remembered yes is one that the policy in force gave this session for the same facts in the same phase,
//! where no rule that may take part reads anything else ([`Policy::is_steady`]). Each exchange has its own record all
//! the same. A new policy finds nothing remembered.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::Guard;
use futures::future::BoxFuture;
use interceptor_core::{
    Client, Gate, Held, Judgement, Verdict,
    inventory::RecordLevel,
    mask::{Bindings, Keeping, Labels},
    model::{Action, Author, Phase, StatementFacts},
    permit::Waits,
};

#[cfg(doc)]
use interceptor_core::policy::Policy;

use super::{
    Durability, Estimator, NOBODY, PolicyGate, Rules, Settled, Stance, Subject, ask, entries, level_of,
    terms, unrecorded,
};
use crate::store::{RequestHead, RequestRuling};

/// How many answers a session remembers.
const REMEMBERED: usize = 64;

/// One session's gate.
pub struct SessionGate {
    gate: Arc<PolicyGate>,
    subject: Arc<Subject>,
    estimator: Arc<dyn Estimator>,
    /// What is bound to the labels of its resource.
    bindings: Arc<Bindings>,
    memory: Mutex<Memory>,
}

/// What holds while the same rules are in force, and carried out in the same way.
#[derive(Debug)]
struct Memory {
    rules: Arc<Rules>,
    stance: Stance,
    /// Where nothing can be written, every exchange is refused on the long way round.
    writing: Option<Arc<Writing>>,
    answers: Vec<Known>,
}

/// How the session's entries are written.
#[derive(Debug)]
struct Writing {
    level: RecordLevel,
    labels: Arc<Labels>,
    /// The half that says who.
    head: RequestHead,
}

/// An answer that is remembered, and to what.
#[derive(Debug)]
struct Known {
    phase: Phase,
    facts: Arc<StatementFacts>,
    answer: Arc<Answer>,
}

/// What was said of a statement.
#[derive(Debug)]
struct Answer {
    settled: Settled,
    ruling: RequestRuling,
    /// Whether it holds for all that is the same.
    steady: bool,
    /// Whether a rule wants more before it may go.
    terms: Bound,
}

/// Whether an exchange may go as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    /// It may.
    Free,
    /// Only within terms.
    Within,
}

impl fmt::Debug for SessionGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionGate").field("subject", &self.subject).finish_non_exhaustive()
    }
}

impl SessionGate {
    /// The gate of a session, at whose resource `estimator` has guesses made.
    pub fn new(gate: Arc<PolicyGate>, subject: Arc<Subject>, estimator: Arc<dyn Estimator>) -> Self {
        let memory = Mutex::new(Memory::of(&gate, gate.rules(), &subject));
        let bindings = gate.bindings(&subject);
        Self { gate, subject, estimator, bindings, memory }
    }

    /// What policy says of `action` alone, and how that is written.
    fn answer(&self, action: &Action) -> Option<(Arc<Answer>, Arc<Writing>)> {
        // A panic elsewhere leaves it whole: every change is one call.
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let in_force = self.gate.rules.load();
        let stance = self.gate.stance(&in_force, &self.subject);
        if !Arc::ptr_eq(&in_force, &memory.rules) || memory.stance != stance {
            *memory = Memory::of(&self.gate, Guard::into_inner(in_force), &self.subject);
        }
        let answer = match memory.known(action) {
            Some(answer) => answer.clone(),
            None => {
                let answer = Arc::new(memory.ask(&self.gate, &self.subject, action)?);
                if answer.steady {
                    memory.remember(action, answer.clone());
                }
                answer
            }
        };
        Some((answer, memory.writing.clone()?))
    }
}

impl Memory {
    fn of(gate: &PolicyGate, rules: Arc<Rules>, subject: &Subject) -> Self {
        let (stance, level) = (gate.stance(&rules, subject), level_of(&rules, subject));
        let labels = PolicyGate::labels(&rules, subject);
        let head = entries::head(subject, level, &labels).ok();
        let writing = head.map(|head| Arc::new(Writing { level, labels, head }));
        Self { rules, stance, writing, answers: Vec::new() }
    }

    fn ask(&self, gate: &PolicyGate, subject: &Subject, action: &Action) -> Option<Answer> {
        let spent = gate.spent(&self.rules, subject);
        let judgement = ask(&self.rules, subject, action, (0, 1), spent, &NOBODY);
        let policy = &self.rules.policy;
        // A person is believed for a while.
        let steady = matches!(judgement, Judgement::Allowed { .. })
            && policy.is_steady(&action.facts)
            && !subject.is_a_persons();
        let free = terms::has_none(&self.rules, self.stance, action, &judgement);
        let terms = if free { Bound::Free } else { Bound::Within };
        let mut settled = Settled::new(self.stance, vec![judgement]);
        settled.mask = Some(gate.mask_of(&self.rules, subject, action));
        let ruling = settled.ruling(0, &action.facts, policy.hash(), settled.mask.as_ref()).ok()?;
        Some(Answer { settled, ruling, steady, terms })
    }

    /// What was said of the same. A statement that is asked again nearly always has the very facts that it had.
    fn known(&self, action: &Action) -> Option<&Arc<Answer>> {
        let in_its_phase = || self.answers.iter().filter(|known| known.phase == action.phase);
        let same = in_its_phase().find(|known| Arc::ptr_eq(&known.facts, &action.facts));
        same.or_else(|| in_its_phase().find(|known| known.facts == action.facts)).map(|known| &known.answer)
    }

    fn remember(&mut self, action: &Action, answer: Arc<Answer>) {
        if self.answers.len() >= REMEMBERED {
            self.answers.clear();
        }
        if self.answers.capacity() == 0 {
            // Many sessions ask one thing only.
            self.answers.reserve_exact(1);
        }
        self.answers.push(Known { phase: action.phase, facts: action.facts.clone(), answer });
    }
}

impl Gate for SessionGate {
    fn judge_now(&self, held: &Held, author: Author) -> Option<Verdict> {
        let ([action], Author::Agent) = (held.actions(), author) else { return None };
        if self.bindings.keeping() != Keeping::Done || !action.carried().is_empty() {
            return None;
        }
        if self.gate.durability == Durability::Power || held.circumstances().waits == Waits::OnlyAsks {
            return None;
        }
        let (answer, writing) = self.answer(action)?;
        if matches!(answer.settled.judgement, Judgement::Held { .. }) || answer.terms == Bound::Within {
            return None;
        }
        let Writing { level, labels, head } = writing.as_ref();
        let committed = entries::with_room(|requests| {
            entries::write(requests, head, held, author, (0, *level, labels), &answer.ruling)?;
            self.gate.producer.commit(held.digest(), head, requests)
        });
        match committed {
            Ok(receipt) => Some(self.gate.verdict(&self.subject, (held, author), &answer.settled, &receipt)),
            Err(error) if error.passes() => None,
            Err(error) => Some(Verdict::Deny(unrecorded(&error))),
        }
    }

    fn judge<'a>(&'a self, held: &'a Held, author: Author, client: &'a dyn Client) -> BoxFuture<'a, Verdict> {
        Box::pin(async move {
            let estimator = self.estimator.as_ref();
            let verdict = self.gate.judge_waiting(&self.subject, (held, author), client, estimator).await;
            match author {
                Author::Agent => self.gate.bind(&self.subject, held, verdict).await,
                Author::Gate => verdict,
            }
        })
    }
}
