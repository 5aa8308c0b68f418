//! What each live run has spent in the last hour: counted while it passes, for all of its sessions together.
//!
//! Promise: counting never waits for anything but another count. Where the numbers come from after a restart is not
//! known here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use interceptor_core::{
    model::{RunId, Spent},
    policy::LastHour,
};

use super::now_us;

/// One run's last hour, shared by its sessions.
#[derive(Debug, Clone, Default)]
pub struct Tally(Arc<Mutex<LastHour>>);

impl Tally {
    /// Adds what was spent now.
    pub fn add(&self, spent: Spent) {
        if spent.is_nothing() {
            return;
        }
        self.lock().add(seconds(), spent);
    }

    /// What was spent in the last hour.
    pub fn total(&self) -> Spent {
        self.lock().total(seconds())
    }

    fn lock(&self) -> MutexGuard<'_, LastHour> {
        // A panic elsewhere leaves numbers that are right or a little too small, never none.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tallies of all runs.
#[derive(Debug, Default)]
pub struct Tallies(Mutex<HashMap<RunId, Tally>>);

impl Tallies {
    /// The run's tally, a new one where it has spent nothing yet.
    pub fn of(&self, run: RunId) -> Tally {
        self.lock().entry(run).or_default().clone()
    }

    /// What a run spent before this process began, with the times in seconds of the Unix epoch.
    pub fn restore(&self, run: RunId, spent: impl IntoIterator<Item = (i64, Spent)>) {
        let tally = self.of(run);
        let mut hour = tally.lock();
        spent.into_iter().for_each(|(at, spent)| hour.add(at, spent));
    }

    /// The run is over.
    pub fn forget(&self, run: RunId) {
        self.lock().remove(&run);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RunId, Tally>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seconds() -> i64 {
    now_us() / 1_000_000
}
