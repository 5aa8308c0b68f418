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

/// A run's names, and when each was first asked for.
#[derive(Debug, Default)]
struct Names {
    asked: HashMap<String, Instant>,
    bytes: usize,
}

/// Room for one name, which is given back unless the name goes out.
#[derive(Debug)]
pub(super) struct Room<'a> {
    carried: &'a Carried,
    run: RunId,
    /// Nothing where it counts already.
    fresh: Option<&'a str>,
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
        Ok(Room { carried: self, run, fresh: names.add(name, now).then_some(name) })
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

    /// Counts it; whether it did not count before.
    fn add(&mut self, name: &str, now: Instant) -> bool {
        if self.asked.contains_key(name) {
            return false;
        }
        self.bytes += name.len();
        self.asked.insert(name.to_owned(), now).is_none()
    }

    /// What was first asked for an hour ago counts no more.
    fn forget(&mut self, now: Instant) {
        self.asked.retain(|_, asked| now.saturating_duration_since(*asked) < HOUR);
        self.bytes = self.asked.keys().map(String::len).sum();
    }
}

impl Room<'_> {
    /// The name goes out.
    pub(super) fn used(mut self) {
        self.fresh = None;
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if let Some(name) = self.fresh
            && let Some(names) = self.carried.lock().get_mut(&self.run)
            && names.asked.remove(name).is_some()
        {
            names.bytes -= name.len();
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
        carried.forget(run());
        assert!(carried.room(run(), &long, now).is_ok());
    }
}
