//! The live runs, as the proxy knows them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use interceptor_core::model::{Run, RunId};
use tokio::{sync::mpsc, task::AbortHandle};

use super::ported::Wanting;

/// A run that an operator released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// Until when, in microseconds of the Unix epoch.
    pub until: i64,
    /// Why.
    pub reason: String,
}

#[derive(Debug)]
struct Live {
    run: Arc<Run>,
    released: Option<Released>,
    frozen: bool,
    door: mpsc::Sender<Wanting>,
    tasks: Vec<AbortHandle>,
}

/// The live runs.
#[derive(Debug, Default)]
pub struct Runs(Mutex<BTreeMap<RunId, Live>>);

impl Runs {
    /// A run began, and these tasks serve its sockets; those of the Unix family come to the door.
    pub fn begin(&self, run: Arc<Run>, door: mpsc::Sender<Wanting>, tasks: Vec<AbortHandle>) {
        let live = Live { run: run.clone(), released: None, frozen: false, door, tasks };
        if let Some(before) = self.lock().insert(run.id, live) {
            before.tasks.iter().for_each(AbortHandle::abort);
        }
    }

    /// A run ended: nobody serves its sockets any more.
    pub fn end(&self, run: RunId) -> Option<Arc<Run>> {
        let live = self.lock().remove(&run)?;
        live.tasks.iter().for_each(AbortHandle::abort);
        Some(live.run)
    }

    /// The run, if it is live.
    pub fn find(&self, run: RunId) -> Option<Arc<Run>> {
        self.lock().get(&run).map(|live| live.run.clone())
    }

    /// Hands on what a process of a run wants. Where nobody takes it, its porter is refused.
    pub fn wants(&self, run: RunId, wanting: Wanting) {
        let door = self.lock().get(&run).map(|live| live.door.clone());
        if let Some(door) = door {
            let _ = door.try_send(wanting);
        }
    }

    /// A run was frozen; whether that is news.
    pub fn froze(&self, run: RunId) -> bool {
        self.lock().get_mut(&run).is_some_and(|live| !std::mem::replace(&mut live.frozen, true))
    }

    /// A run goes on.
    pub fn thawed(&self, run: RunId) {
        if let Some(live) = self.lock().get_mut(&run) {
            live.frozen = false;
        }
    }

    /// Releases a live run; false when there is none.
    pub fn release(&self, run: RunId, released: Released) -> bool {
        self.lock().get_mut(&run).map(|live| live.released = Some(released)).is_some()
    }

    /// Ends a release; whether there was one.
    pub fn capture_again(&self, run: RunId) -> bool {
        self.lock().get_mut(&run).and_then(|live| live.released.take()).is_some()
    }

    /// The release that is in force for a run at `now`.
    pub fn released(&self, run: RunId, now: i64) -> Option<Released> {
        self.lock().get(&run)?.released.clone().filter(|released| now < released.until)
    }

    /// All of them, oldest first.
    pub fn list(&self) -> Vec<(Arc<Run>, Option<Released>)> {
        let mut all: Vec<_> =
            self.lock().values().map(|live| (live.run.clone(), live.released.clone())).collect();
        all.sort_by_key(|(run, ..)| run.started_at);
        all
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RunId, Live>> {
        // A panic elsewhere leaves the map whole: every change is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
