//! What the names that each live run has looked up may carry out of the host: whoever serves a zone reads every name that is
//! asked for in it, so that a permit to look up its names is one to tell it something.
//!
//! Promises: of what this host's resolver is asked for a run within an hour, different names come to no more than the bound,
//! however many ask at once; the same name again tells nobody anything, and is free. What is known is gone with this process,
//! which no run can end.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use interceptor_core::model::RunId;

/// How long a name counts.
const HOUR: Duration = Duration::from_secs(3600);

/// The names of all live runs.
#[derive(Debug)]
pub struct Carried {
    /// How many bytes of names a run has.
    most: usize,
    runs: Mutex<HashMap<RunId, Names>>,
}

/// A run's names.
#[derive(Debug, Default)]
struct Names {
    asked: HashMap<String, Asked>,
    bytes: usize,
}

/// What is known of a name.
#[derive(Debug)]
struct Asked {
    /// When it was first asked for.
    first: Instant,
    /// Questions that nobody has decided yet.
    open: u32,
    /// Whether it went out.
    out: bool,
}

/// Room for one name. When the last question for it is decided, it is given back, unless the name went out by one of them.
#[derive(Debug)]
pub(super) struct Room<'a> {
    carried: &'a Carried,
    run: RunId,
    name: &'a str,
}

/// There is no room for another name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Carried {
    /// At most `kib` KiB for each run.
    pub fn new(kib: u64) -> Self {
        let most = usize::try_from(kib.saturating_mul(1024)).unwrap_or(usize::MAX);
        Self { most, runs: Mutex::default() }
    }

    /// Room for `name`, which `run` asks for at `now`.
    pub(super) fn room<'a>(&'a self, run: RunId, name: &'a str, now: Instant) -> Result<Room<'a>, Full> {
        let mut runs = self.lock();
        let names = runs.entry(run).or_default();
        if !names.has_room(name, self.most) {
            names.forget(now);
        }
        if !names.has_room(name, self.most) {
            return Err(Full);
        }
        names.add(name, now);
        Ok(Room { carried: self, run, name })
    }

    /// The run is over.
    pub fn forget(&self, run: RunId) {
        self.lock().remove(&run);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RunId, Names>> {
        // A panic elsewhere leaves a name that counts too much, or none.
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Names {
    fn has_room(&self, name: &str, most: usize) -> bool {
        self.asked.contains_key(name) || self.bytes.saturating_add(name.len()) <= most
    }

    /// Counts it, if it does not count already.
    fn add(&mut self, name: &str, now: Instant) {
        if let Some(asked) = self.asked.get_mut(name) {
            asked.open += 1;
        } else {
            self.bytes += name.len();
            self.asked.insert(name.to_owned(), Asked { first: now, open: 1, out: false });
        }
    }

    /// What was first asked for an hour ago counts no more, once it is decided.
    fn forget(&mut self, now: Instant) {
        self.asked.retain(|_, asked| asked.open > 0 || now.saturating_duration_since(asked.first) < HOUR);
        self.bytes = self.asked.keys().map(String::len).sum();
    }
}

impl Room<'_> {
    /// The name goes out.
    pub(super) fn used(self) {
        if let Some(asked) =
            self.carried.lock().get_mut(&self.run).and_then(|names| names.asked.get_mut(self.name))
        {
            asked.out = true;
        }
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        let mut runs = self.carried.lock();
        // Nothing of a run that is over.
        let Some(names) = runs.get_mut(&self.run) else { return };
        let Some(asked) = names.asked.get_mut(self.name) else { return };
        asked.open -= 1;
        if asked.open == 0 && !asked.out {
            names.asked.remove(self.name);
            names.bytes -= self.name.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> RunId {
        RunId::from_random(1)
    }

    #[test]
    fn different_names_fill_it_for_an_hour() {
        let (carried, now) = (Carried::new(1), Instant::now());
        let asked = |name: &str, now| carried.room(run(), name, now).map(Room::used);
        for number in 0..64 {
            assert_eq!(asked(&format!("{number:016}"), now), Ok(()));
        }
        assert_eq!(asked("a", now), Err(Full));
        assert_eq!(asked(&format!("{:016}", 5), now), Ok(()), "the same again is free");
        assert_eq!(asked("a", now + HOUR - Duration::from_secs(1)), Err(Full));
        assert_eq!(asked("a", now + HOUR), Ok(()));
        assert!(carried.room(RunId::from_random(2), &"b".repeat(1024), now).is_ok(), "each run has its own");
    }

    #[test]
    fn what_does_not_go_out_does_not_count() {
        let (carried, now) = (Carried::new(1), Instant::now());
        let long = "c".repeat(1024);
        let room = carried.room(run(), &long, now).expect("room");
        assert!(carried.room(run(), "d", now).is_err(), "it counts while nobody knows whether it goes out");
        drop(room);
        carried.room(run(), "d", now).expect("room").used();
        assert!(carried.room(run(), &long, now).is_err());
        // Whoever is refused first takes nothing back of what goes out for another.
        let (refused, goes) = (carried.room(run(), "d", now), carried.room(run(), "d", now));
        goes.expect("room").used();
        drop(refused);
        assert!(carried.room(run(), &long, now).is_err());
        carried.forget(run());
        let fresh = "e".repeat(1024);
        let (refused, goes) = (carried.room(run(), &fresh, now), carried.room(run(), &fresh, now));
        drop(refused);
        assert!(carried.room(run(), "f", now).is_err(), "another question for it is open");
        goes.expect("room").used();
        assert!(carried.room(run(), "f", now).is_err());
        carried.forget(run());
        assert!(carried.room(run(), &long, now).is_ok());
    }
}
