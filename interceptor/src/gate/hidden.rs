//! What is hidden in the answer to an exchange: the labels of its resource that policy does not let the caller see.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use interceptor_core::{
    Held,
    inventory::RecordLevel,
    mask::{Hiding, LabelSet, Labels, Mask, MaskKey, Sought, Tokens},
    model::{
        Action, Binds, EventKind, EventRecord, Mode, Phase, ResourceName, RunId, StatementFacts, Target,
        Text, Verb,
    },
};

use super::{NOBODY, PolicyGate, Rules, Subject, level_of, now_us};

/// How many different sets of hidden labels are kept ready.
const KEPT: usize = 256;

/// Makes masks.
#[derive(Debug)]
pub(super) struct Masks {
    key: MaskKey,
    ready: Mutex<HashMap<(String, LabelSet, usize), Ready>>,
    /// What is looked for in the sessions of each run at a resource.
    sought: Mutex<HashMap<(RunId, ResourceName), Weak<Sought>>>,
}

/// What hides a set of labels, and whose labels they are.
#[derive(Debug)]
struct Ready {
    of: Arc<Labels>,
    /// Held, so that its address is nobody else's.
    _sought: Arc<Sought>,
    hiding: Arc<Hiding>,
}

impl Masks {
    /// Those whose digests are made with `key`.
    pub(super) fn new(key: MaskKey) -> Self {
        Self { key, ready: Mutex::default(), sought: Mutex::default() }
    }

    /// The tokens of `run` for a resource with these labels.
    pub(super) fn tokens(&self, labels: &Labels, run: RunId) -> Tokens {
        self.key.tokens(labels, run)
    }

    /// `sought` as it is known already for that run at that resource: what was found is counted for a run.
    fn sought(&self, run: RunId, resource: &ResourceName, sought: Sought) -> Arc<Sought> {
        // A panic elsewhere leaves it whole: every change is one call.
        let mut known = self.sought.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (run, resource.clone());
        if let Some(same) = known.get(&key).and_then(Weak::upgrade).filter(|known| known.is(&sought)) {
            return same;
        }
        if known.len() >= KEPT {
            known.retain(|_, sought| sought.strong_count() > 0);
        }
        let sought = Arc::new(sought);
        known.insert(key, Arc::downgrade(&sought));
        sought
    }

    fn of(&self, labels: Arc<Labels>, hidden: LabelSet, sought: &Arc<Sought>) -> Mask {
        if hidden.is_empty() && sought.is_empty() {
            return Mask::Nothing;
        }
        // A panic elsewhere leaves it whole: every change is one call.
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (labels.resource().to_owned(), hidden, Arc::as_ptr(sought).addr());
        if let Some(found) = ready.get(&key)
            && Arc::ptr_eq(&found.of, &labels)
        {
            return Mask::Of(found.hiding.clone());
        }
        if ready.len() >= KEPT {
            ready.clear();
        }
        let hiding = Arc::new(Hiding::new(labels.clone(), hidden, &self.key).with(sought.clone()));
        ready.insert(key, Ready { of: labels, _sought: sought.clone(), hiding: hiding.clone() });
        Mask::Of(hiding)
    }
}

impl PolicyGate {
    /// The tokens of `run` for a resource with these labels.
    pub fn tokens(&self, labels: &Labels, run: RunId) -> Tokens {
        self.masks.tokens(labels, run)
    }

    /// What is looked for in the sessions of `run` at `resource`.
    pub fn sought(&self, run: RunId, resource: &ResourceName, sought: Sought) -> Arc<Sought> {
        self.masks.sought(run, resource, sought)
    }

    /// Records that secrets were found in what passed, if any were since this was last asked.
    pub fn record_found(&self, subject: &Subject) {
        let count = subject.sought().take_found();
        let Some(resource) = subject.resource.as_ref().filter(|_| count > 0) else { return };
        let text = format!(
            "a credential of {resource}, or of another resource of the same agent, stood in {count} values that were read at \
             {resource}, and was masked: find where it is stored, remove it and replace it"
        );
        tracing::warn!("{text}");
        let event = EventRecord {
            at: now_us(),
            run: Some(subject.run.id),
            agent: Some(subject.run.agent.name.clone()),
            kind: EventKind::SecretFound,
            text,
            attempt: None,
        };
        if let Err(error) = self.producer.append_event(&event) {
            tracing::error!("that a credential was found is not recorded: {error}");
        }
    }

    /// What is hidden in the rows that are recorded of the subject's session, in which these are the labels: all of them,
    /// whoever the subject is. None where no rows are.
    pub fn recording(&self, subject: &Subject, labels: &Arc<Labels>) -> Option<Arc<Hiding>> {
        let rules = self.rules();
        // Other labels by now: the session is about to end.
        let records =
            level_of(&rules, subject) == RecordLevel::Rows && Self::labels(&rules, subject) == *labels;
        if !records || labels.is_empty() {
            return None;
        }
        // What the client gets is what counts as found.
        let sought = Arc::new(subject.sought().apart());
        let hiding = Hiding::new(labels.clone(), LabelSet::ALL, &self.masks.key).with(sought);
        Some(Arc::new(hiding))
    }

    /// The mask of the answer to `held`.
    pub(super) fn mask(&self, rules: &Rules, subject: &Subject, held: &Held) -> Mask {
        let actions = held.actions().iter();
        self.hiding(rules, subject, actions.enumerate(), held.actions().len())
    }

    /// The mask of the answer to `action`, which stands alone.
    pub(super) fn mask_of(&self, rules: &Rules, subject: &Subject, action: &Action) -> Mask {
        self.hiding(rules, subject, [(0, action)].into_iter(), 1)
    }

    fn hiding<'a>(
        &self,
        rules: &Rules,
        subject: &Subject,
        actions: impl Iterator<Item = (usize, &'a Action)>,
        count: usize,
    ) -> Mask {
        let Some(resource) = &subject.resource else { return Mask::Nothing };
        let labels = rules.inventory.labels(resource);
        // To observe is to let everything pass, as every record of it says. A broken glass uncovers nothing.
        let stance = self.stance(rules, subject);
        if labels.is_empty() || (stance.mode == Mode::Observe && stance.glass.is_none()) {
            return Mask::Nothing;
        }
        // As was chosen for it beforehand. Credentials are hidden all the same.
        if rules.unmasks(Some(resource)) && rules.outlived().is_none() {
            return self.masks.of(labels, LabelSet::NONE, subject.sought());
        }
        let (mut hidden, nobody) = (LabelSet::NONE, NOBODY);
        for (place, action) in actions {
            let spent = self.spent(rules, subject);
            let asked = subject.asks(action, (place, count), spent, &nobody);
            // What the agent may not see, its person may.
            let person = asked.person.and_then(|uid| rules.inventory.by_uid(uid));
            let from_person = person.map_or(LabelSet::ALL, |person| rules.policy.hidden_from(person, &asked));
            hidden = hidden.or(rules.policy.hidden(&asked).and(from_person));
        }
        self.masks.of(labels, hidden, subject.sought())
    }

    /// The labels whose data the subject may not see in the answer to something that reads it.
    pub fn hidden_from(&self, subject: &Subject) -> LabelSet {
        let action = Action {
            phase: Phase::Query,
            text: Text::new(),
            binds: Binds::new(),
            facts: StatementFacts::single(Verb::DataRead, Target::Resource).into(),
        };
        let rules = self.rules();
        let spent = self.spent(&rules, subject);
        rules.policy.hidden(&subject.asks(&action, (0, 1), spent, &NOBODY))
    }

    /// The labels of the subject's resource.
    pub(super) fn labels(rules: &Rules, subject: &Subject) -> Arc<Labels> {
        let name = subject.resource.as_ref();
        name.map_or_else(|| Arc::new(Labels::none("")), |name| rules.inventory.labels(name))
    }
}
