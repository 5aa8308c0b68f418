//! What a person may see of a request whose card is masked.
//!
//! Promises: values that a card masks are kept in memory alone, for as many requests as [`REMEMBERED`], and are shown to
//! nobody whom policy does not let see every label that comes into them. That somebody was shown them is the caller's
//! to record.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use interceptor_core::{
    Held,
    approval::{Card, LONGEST_CARD},
    inventory::Person,
    mask::LabelSet,
    model::{Action, ApprovalId, ProcessFacts},
};

use super::{NOBODY, PolicyGate, Rules, Subject};

/// How many requests are remembered.
const REMEMBERED: usize = 64;

/// What was asked lately, as it was sent.
#[derive(Default)]
pub(super) struct Clear(Mutex<VecDeque<(ApprovalId, Arc<Sent>)>>);

impl fmt::Debug for Clear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clear(***)")
    }
}

struct Sent {
    subject: Subject,
    actions: Vec<Action>,
}

/// A request as whoever may see its labels is shown it. Its `Debug` prints no values.
pub struct Uncovered {
    /// The statements, without passwords.
    pub statements: Vec<Action>,
    /// The process that asks.
    pub process: Option<ProcessFacts>,
    /// The labels whose values are in them.
    pub labels: Vec<String>,
}

impl fmt::Debug for Uncovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uncovered").field("labels", &self.labels).finish_non_exhaustive()
    }
}

impl Clear {
    /// `held` is what request `id`, whose card masks some of it, is about.
    pub(super) fn remember(&self, id: ApprovalId, card: &Card, subject: &Subject, held: &Held) {
        let values = |action: &Action| -> usize {
            let binds = action.binds.iter().filter_map(|bind| bind.value.as_ref());
            action.text.len().saturating_add(binds.map(|bind| bind.len()).sum())
        };
        let bytes: usize = held.actions().iter().map(values).sum();
        if card.labels.is_empty() || !card.whole || bytes > LONGEST_CARD {
            return;
        }
        let without_password = |action: &Action| Action {
            text: action.facts.dialect.redact(&action.text).into_owned().into(),
            ..action.clone()
        };
        let actions = held.actions().iter().map(without_password).collect();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(known, _)| *known != id);
        all.push_back((id, Arc::new(Sent { subject: subject.clone(), actions })));
        let over = all.len().saturating_sub(REMEMBERED);
        all.drain(..over);
    }

    fn find(&self, id: ApprovalId) -> Option<Arc<Sent>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().find(|(known, _)| *known == id).map(|(_, sent)| sent.clone())
    }
}

impl PolicyGate {
    /// Request `id` without masks, where `person` may see all that they hide. None where not, or where it is not
    /// remembered.
    pub fn uncovered(&self, rules: &Rules, person: &Person, id: ApprovalId) -> Option<Uncovered> {
        let sent = self.clear.find(id)?;
        let labels = Self::labels(rules, &sent.subject);
        let nobody = &NOBODY;
        let (mut present, mut hidden) = (LabelSet::NONE, LabelSet::NONE);
        for (place, action) in sent.actions.iter().enumerate() {
            let spent = self.spent(rules, &sent.subject);
            let asked = sent.subject.asks(action, (place, sent.actions.len()), spent, nobody);
            present = present.or(labels.within(action));
            hidden = hidden.or(rules.policy.hidden_from(person, &asked));
        }
        let may = !labels.is_empty() && hidden.and(present).is_empty();
        may.then(|| Uncovered {
            statements: sent.actions.clone(),
            process: sent.subject.process().cloned(),
            labels: labels.names(present).map(str::to_owned).collect(),
        })
    }
}
