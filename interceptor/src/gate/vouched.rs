//! People who vouched that a captured run is their own log-in session.
//!
//! Promise: it is believed for a while, and of those connections alone whose process the kernel says to be in a log-in
//! session of theirs. It ends with the run, and with this process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use interceptor_core::model::RunId;
use tokio::time::Instant;

/// What people said of runs.
#[derive(Debug, Default)]
pub struct Vouched(Mutex<HashMap<RunId, Vouch>>);

#[derive(Debug, Clone, Copy)]
struct Vouch {
    uid: u32,
    until: Instant,
}

impl Vouched {
    /// The user `uid` says that `run` is theirs, for so long; what was said of it before is not so any more.
    pub fn set(&self, run: RunId, uid: u32, time: Duration) {
        self.all().insert(run, Vouch { uid, until: Instant::now() + time });
    }

    /// The run has ended.
    pub fn forget(&self, run: RunId) {
        self.all().remove(&run);
    }

    /// Whether what `uid` said of `run` is believed at a time.
    fn is_of(&self, run: RunId, uid: u32, at: Instant) -> bool {
        self.all().get(&run).is_some_and(|vouch| vouch.uid == uid && at < vouch.until)
    }

    // A panic elsewhere leaves it whole: every change is one call.
    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<RunId, Vouch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The log-in session that a process is in.
#[derive(Debug, Clone)]
pub struct Login {
    /// Its user, as PAM has set it.
    pub uid: u32,
    /// What people said.
    pub vouched: Arc<Vouched>,
}

impl Login {
    /// The user whose session `run` is.
    pub(super) fn of(&self, run: RunId) -> Option<u32> {
        self.vouched.is_of(run, self.uid, Instant::now()).then_some(self.uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_believed_of_that_person_for_that_time() {
        let vouched = Arc::new(Vouched::default());
        let (run, other) = (RunId::from_random(1), RunId::from_random(2));
        let login = |uid| Login { uid, vouched: vouched.clone() };
        assert_eq!(login(1001).of(run), None, "nobody said so");
        vouched.set(run, 1001, Duration::from_secs(60));
        assert_eq!(login(1001).of(run), Some(1001));
        assert_eq!((login(1002).of(run), login(1001).of(other)), (None, None));
        assert!(!vouched.is_of(run, 1001, Instant::now() + Duration::from_secs(61)));
        vouched.forget(run);
        assert_eq!(login(1001).of(run), None);
    }
}
