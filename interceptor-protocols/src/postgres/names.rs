//! What a session's names mean: prepared statements and portals, with the changes that are still under way.
//!
//! A change is planned when its message is sent and settled when the server has answered it. Promise: a name is
//! called firm only where no change that the server may still refuse, and whose refusal would not also make it pass
//! over what comes next, stands between. What does not fit the bounds is forgotten, which makes it unknown.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use smol_str::SmolStr;

/// How many names are kept.
const MAX_NAMES: usize = 10_000;
/// How much their contents may weigh together.
const MAX_WEIGHT: usize = 16 << 20;

/// How many changes of a name have their room kept where none is under way.
const KEPT_CHANGES: usize = 4;
/// How much what means nothing any more may weigh for its room to be kept.
const MAX_SPARE: usize = 4 << 10;

/// The name of a statement, a portal or a cursor. Short ones, as clients make up, take no memory of their own.
pub(super) type Name = SmolStr;

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
    slots: HashMap<Name, Slot<T>>,
    clears: VecDeque<u64>,
    weight: usize,
    /// What meant something until now: the next takes its room.
    spare: Option<Arc<T>>,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { slots: HashMap::new(), clears: VecDeque::new(), weight: 0, spare: None }
    }
}

impl<T: Weighed> Names<T> {
    /// `name` will mean `value` once the server has carried out `op`.
    pub(super) fn plan(&mut self, op: u64, name: &Name, value: Option<T>) {
        let weight = value.as_ref().map_or(0, Weighed::weight);
        let fits = self.slots.len() < MAX_NAMES && self.weight.saturating_add(weight) <= MAX_WEIGHT;
        let value = value.filter(|_| fits).map(|value| self.shared(value));
        if value.is_none() && !self.slots.contains_key(name) {
            return;
        }
        self.weight = self.weight.saturating_add(value.as_ref().map_or(0, |value| value.weight()));
        let slot =
            self.slots.entry(name.clone()).or_insert_with(|| Slot { now: None, later: VecDeque::new() });
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
        if slot.later.is_empty() {
            slot.later.shrink_to(KEPT_CHANGES);
            // The unnamed one comes again with nearly every statement.
            if slot.now.is_none() && !name.is_empty() {
                self.slots.remove(name);
            }
        }
        self.let_go(gone);
    }

    fn shared(&mut self, value: T) -> Arc<T> {
        let Some(mut spare) = self.spare.take() else { return Arc::new(value) };
        match Arc::get_mut(&mut spare) {
            Some(room) => *room = value,
            None => return Arc::new(value),
        }
        spare
    }

    fn let_go(&mut self, gone: Option<Arc<T>>) {
        let weight = gone.as_ref().map_or(0, |gone| gone.weight());
        self.weight = self.weight.saturating_sub(weight);
        self.spare = gone.filter(|_| weight <= MAX_SPARE);
    }

    /// The same for a clearing.
    pub(super) fn settle_clear(&mut self, op: u64, done: bool) {
        self.clears.retain(|planned| *planned != op);
        if done {
            self.clear_settled();
            self.spare = None;
        }
    }

    /// Forgets what no change under way is about.
    pub(super) fn clear_settled(&mut self) {
        let mut spare = None;
        self.slots.retain(|name, slot| {
            if let Some(gone) = slot.now.take() {
                let weight = gone.weight();
                self.weight = self.weight.saturating_sub(weight);
                spare = Some(gone).filter(|_| weight <= MAX_SPARE);
            }
            !slot.later.is_empty() || name.is_empty()
        });
        self.spare = spare.or(self.spare.take());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    struct Thing(&'static str, usize);

    impl Weighed for Thing {
        fn weight(&self) -> usize {
            self.1
        }
    }

    const UNNAMED: Name = Name::new_static("");

    fn bound(names: &mut Names<Thing>, op: u64, thing: Thing) -> Arc<Thing> {
        names.plan(op, &UNNAMED, Some(thing));
        names.settle(op, "", true);
        names.find("", op).value.unwrap()
    }

    #[test]
    fn what_somebody_holds_keeps_its_room() {
        let mut names = Names::default();
        let first = bound(&mut names, 1, Thing("first", 1));
        names.clear_settled();
        assert_eq!(names.find("", 2).value, None, "it means nothing any more");
        bound(&mut names, 2, Thing("second", 1));
        assert_eq!(*first, Thing("first", 1));
    }

    #[test]
    fn room_is_used_again_and_only_where_it_is_small() {
        let mut names = Names::default();
        let room = Arc::as_ptr(&bound(&mut names, 1, Thing("first", 1)));
        names.clear_settled();
        let second = bound(&mut names, 2, Thing("second", MAX_SPARE + 1));
        assert_eq!((Arc::as_ptr(&second), &*second), (room, &Thing("second", MAX_SPARE + 1)));
        drop(second);
        names.clear_settled();
        assert_eq!((names.spare.as_deref(), names.weight), (None, 0));
        bound(&mut names, 3, Thing("third", 1));
        names.clear_settled();
        assert!(names.spare.is_some());
        names.plan_clear(4);
        names.settle_clear(4, true);
        assert_eq!(names.spare, None, "whoever discards everything keeps nothing");
    }

    #[test]
    fn a_change_that_failed_leaves_what_was() {
        let mut names = Names::default();
        bound(&mut names, 1, Thing("first", 1));
        names.plan(2, &UNNAMED, Some(Thing("second", 1)));
        names.settle(2, "", false);
        assert_eq!(names.find("", 3).value.as_deref(), Some(&Thing("first", 1)));
        bound(&mut names, 3, Thing("third", 1));
        assert_eq!(names.weight, 1);
    }

    #[test]
    fn many_changes_under_way_leave_little_behind() {
        let mut names = Names::default();
        for op in 0..10_000 {
            names.plan(op, &UNNAMED, Some(Thing("each", 1)));
        }
        for op in 0..10_000 {
            names.settle(op, "", true);
        }
        names.clear_settled();
        assert!(names.slots.values().all(|slot| slot.later.capacity() <= KEPT_CHANGES));
        assert_eq!(names.weight, 0);
    }
}
