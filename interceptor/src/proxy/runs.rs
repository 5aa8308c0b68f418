//! The live runs, as the proxy knows them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use interceptor_core::model::{Guarantee, Run, RunId};
use tokio::{sync::mpsc, task::AbortHandle};

use super::ported::Wanting;
use crate::helper::{Connection, Keeping};

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
    /// What goes on uninspected, and the run as it is meanwhile.
    keeps: Option<(Keeping, Arc<Run>)>,
    released: Option<Released>,
    frozen: bool,
    door: mpsc::Sender<Wanting>,
    tasks: Vec<AbortHandle>,
}

impl Live {
    /// The run as strongly as it is captured now.
    fn run(&self) -> &Arc<Run> {
        self.keeps.as_ref().map_or(&self.run, |(_, observed)| observed)
    }
}

/// A run while connections of its own go on uninspected.
pub fn observed(run: &Run) -> Arc<Run> {
    Arc::new(Run { guarantee: Guarantee::Observed, ..run.clone() })
}

/// A live run, as operators see it.
#[derive(Debug)]
pub struct Seen {
    /// The run.
    pub run: Arc<Run>,
    /// Until when it is let go of, if it is.
    pub released: Option<Released>,
    /// What goes on uninspected.
    pub keeping: Option<Keeping>,
}

/// The live runs.
#[derive(Debug, Default)]
pub struct Runs(Mutex<BTreeMap<RunId, Live>>);

impl Runs {
    /// A run began, and these tasks serve its sockets; those of the Unix family come to the door. Some connections of its own
    /// may go on.
    pub fn begin(
        &self,
        run: Arc<Run>,
        door: mpsc::Sender<Wanting>,
        tasks: Vec<AbortHandle>,
        keeping: Option<Keeping>,
    ) {
        let keeps = keeping.map(|keeping| (keeping, observed(&run)));
        let live = Live { run: run.clone(), keeps, released: None, frozen: false, door, tasks };
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
        self.lock().get(&run).map(|live| live.run().clone())
    }

    /// A run as strongly as it is captured now; as it is given where it is not live yet.
    pub fn as_it_is(&self, run: &Arc<Run>) -> Arc<Run> {
        self.find(run.id).unwrap_or_else(|| run.clone())
    }

    /// Connections of a live run go on; whether there is one.
    pub fn keep(&self, run: RunId, keeping: Keeping) -> bool {
        let mut lives = self.lock();
        let Some(live) = lives.get_mut(&run) else { return false };
        live.keeps = Some((keeping, observed(&live.run)));
        true
    }

    /// Some of them have ended: how many go on.
    pub fn end_kept(&self, run: RunId, gone: &[Connection]) -> usize {
        let mut lives = self.lock();
        let Some(live) = lives.get_mut(&run) else { return 0 };
        let Some((keeping, _)) = &mut live.keeps else { return 0 };
        keeping.keep.connections.retain(|one| !gone.contains(one));
        let left = keeping.keep.connections.len();
        if left == 0 {
            live.keeps = None;
        }
        left
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
    pub fn list(&self) -> Vec<Seen> {
        let seen = |live: &Live| Seen {
            run: live.run().clone(),
            released: live.released.clone(),
            keeping: live.keeps.as_ref().map(|(keeping, _)| keeping.clone()),
        };
        let mut all: Vec<_> = self.lock().values().map(seen).collect();
        all.sort_by_key(|seen| seen.run.started_at);
        all
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RunId, Live>> {
        // A panic elsewhere leaves the map whole: every change is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
