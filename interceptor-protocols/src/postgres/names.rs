//! What a session's names mean: prepared statements and portals, with the changes that are still under way.
//!
//! A change is planned when its message is sent and settled when the server has answered it. Promise: a name is
//! called firm only where no change that the server may still refuse, and whose refusal would not also make it pass
//! over what comes next, stands between. What does not fit the bounds is forgotten, which makes it unknown.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

/// How many names are kept.
const MAX_NAMES: usize = 10_000;
/// How much their contents may weigh together.
const MAX_WEIGHT: usize = 16 << 20;

/// Something that has a name.
pub(super) trait Weighed {
    /// About how many bytes it takes.
    fn weight(&self) -> usize;
}

#[derive(Debug)]
struct Slot<T> {
    now: Option<Arc<T>>,
    later: VecDeque<(u64, Option<Arc<T>>)>,
}

/// What a name means for a message that is about to be sent.
#[derive(Debug)]
pub(super) struct Found<T> {
    /// What it means, if anything.
    pub(super) value: Option<Arc<T>>,
    /// Whether that is certain.
    pub(super) firm: bool,
}

/// Names of one kind.
#[derive(Debug)]
pub(super) struct Names<T> {
    slots: HashMap<String, Slot<T>>,
    clears: VecDeque<u64>,
    weight: usize,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { slots: HashMap::new(), clears: VecDeque::new(), weight: 0 }
    }
}

impl<T: Weighed> Names<T> {
    /// `name` will mean `value` once the server has carried out `op`.
    pub(super) fn plan(&mut self, op: u64, name: &str, value: Option<T>) {
        let weight = value.as_ref().map_or(0, Weighed::weight);
        let fits = self.slots.len() < MAX_NAMES && self.weight.saturating_add(weight) <= MAX_WEIGHT;
        let value = if fits { value.map(Arc::new) } else { None };
        if value.is_none() && !self.slots.contains_key(name) {
            return;
        }
        self.weight = self.weight.saturating_add(value.as_ref().map_or(0, |value| value.weight()));
        let slot =
            self.slots.entry(name.to_owned()).or_insert_with(|| Slot { now: None, later: VecDeque::new() });
        slot.later.push_back((op, value));
    }

    /// No name will mean anything once the server has carried out `op`.
    pub(super) fn plan_clear(&mut self, op: u64) {
        self.clears.push_back(op);
    }

    /// The server has carried out `op` on `name`, or will never do so.
    pub(super) fn settle(&mut self, op: u64, name: &str, done: bool) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        let Some(at) = slot.later.iter().position(|(planned, _)| *planned == op) else { return };
        let Some((_, value)) = slot.later.remove(at) else { return };
        let gone = if done { std::mem::replace(&mut slot.now, value) } else { value };
        self.weight = self.weight.saturating_sub(gone.map_or(0, |gone| gone.weight()));
        if slot.now.is_none() && slot.later.is_empty() {
            self.slots.remove(name);
        }
    }

    /// The same for a clearing.
    pub(super) fn settle_clear(&mut self, op: u64, done: bool) {
        self.clears.retain(|planned| *planned != op);
        if done {
            self.clear_settled();
        }
    }

    /// Forgets what no change under way is about.
    pub(super) fn clear_settled(&mut self) {
        for slot in self.slots.values_mut() {
            if let Some(gone) = slot.now.take() {
                self.weight = self.weight.saturating_sub(gone.weight());
            }
        }
        self.slots.retain(|_, slot| !slot.later.is_empty());
    }

    /// What `name` means to a message sent now, where changes from `segment` on fail together with that message.
    pub(super) fn find(&self, name: &str, segment: u64) -> Found<T> {
        let slot = self.slots.get(name);
        let first = slot.and_then(|slot| slot.later.front()).map(|(op, _)| *op);
        let firm = first.into_iter().chain(self.clears.front().copied()).all(|op| op >= segment);
        let last = slot.and_then(|slot| slot.later.back());
        let cleared = self.clears.back().copied();
        let value = match (last, cleared) {
            (Some((op, value)), Some(clear)) if *op > clear => value.clone(),
            (_, Some(_)) => None,
            (Some((_, value)), None) => value.clone(),
            (None, None) => slot.and_then(|slot| slot.now.clone()),
        };
        Found { value, firm }
    }

    /// Changes what `name` means now.
    pub(super) fn amend(&mut self, name: &str, amend: impl FnOnce(&mut T))
    where
        T: Clone,
    {
        if let Some(now) = self.slots.get_mut(name).and_then(|slot| slot.now.as_mut()) {
            amend(Arc::make_mut(now));
        }
    }
}
