//! People who vouched that a captured run is their own log-in session.
//!
//! Promise: it is believed for a while, and of those connections alone whose process the kernel says to be in a log-in
//! session of theirs, started by the very shell that they named, and by way of no program that they did not name. It ends
//! with the run, and with this process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use interceptor_core::model::{Descent, RunId};
use tokio::time::Instant;

use crate::identity::login::Shell;

/// What people said of runs.
#[derive(Debug, Default)]
pub struct Vouched(Mutex<HashMap<RunId, Vouch>>);

#[derive(Debug, Clone)]
struct Vouch {
    uid: u32,
    work: Work,
    until: Instant,
}

/// What of a session is a person's own work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// The shell, as [`login::shell`](crate::identity::login::shell) names it.
    pub shell: Shell,
    /// The paths of the programs that they start from it.
    pub programs: Vec<String>,
}

impl Work {
    /// Whether a process that descends so is started by it.
    fn covers(&self, descent: &Descent) -> bool {
        let named = |program: &String| self.programs.contains(program);
        self.shell.is(descent.pid, descent.start_time) && descent.programs.iter().all(named)
    }
}

impl Vouched {
    /// The user `uid` says that `work` in `run` is theirs, for so long; what was said of it before is not so any more.
    pub fn set(&self, run: RunId, uid: u32, work: Work, time: Duration) {
        self.all().insert(run, Vouch { uid, work, until: Instant::now() + time });
    }

    /// The run has ended.
    pub fn forget(&self, run: RunId) {
        self.all().remove(&run);
    }

    /// Whether what `uid` said of `run` is believed at a time of what descends so.
    fn is_of(&self, run: RunId, uid: u32, descent: &Descent, at: Instant) -> bool {
        let all = self.all();
        all.get(&run).is_some_and(|vouch| vouch.uid == uid && at < vouch.until && vouch.work.covers(descent))
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
    /// Whom the process descends from.
    pub descent: Descent,
    /// What people said.
    pub vouched: Arc<Vouched>,
}

impl Login {
    /// The user whose session `run` is.
    pub(super) fn of(&self, run: RunId) -> Option<u32> {
        self.vouched.is_of(run, self.uid, &self.descent, Instant::now()).then_some(self.uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PSQL: &str = "/usr/bin/psql";

    #[test]
    fn it_is_believed_of_that_persons_work_for_that_time() {
        let vouched = Arc::new(Vouched::default());
        let (run, other) = (RunId::from_random(1), RunId::from_random(2));
        let descent = |pid, programs: &[&str]| Descent {
            pid,
            start_time: 20_000_000,
            programs: programs.iter().map(|program| (*program).to_owned()).collect(),
        };
        let login = |uid, descent| Login { uid, descent, vouched: vouched.clone() };
        let own = |uid| login(uid, descent(7, &[PSQL]));
        let work = Work { shell: Shell { pid: 7, ticks: 2 }, programs: vec![PSQL.to_owned()] };
        assert_eq!(own(1001).of(run), None, "nobody said so");
        vouched.set(run, 1001, work, Duration::from_secs(60));
        assert_eq!(own(1001).of(run), Some(1001));
        assert_eq!((own(1002).of(run), own(1001).of(other)), (None, None));
        let of = |descent| login(1001, descent).of(run);
        assert_eq!(of(descent(7, &[])), Some(1001), "the shell itself");
        assert_eq!(of(descent(8, &[PSQL])), None, "another that was there before");
        assert_eq!(of(descent(7, &[PSQL, "/opt/agent"])), None, "by way of what nobody named");
        assert_eq!(
            of(Descent { start_time: 30_000_000, ..descent(7, &[PSQL]) }),
            None,
            "another of that number"
        );
        assert!(!vouched.is_of(run, 1001, &descent(7, &[]), Instant::now() + Duration::from_secs(61)));
        vouched.forget(run);
        assert_eq!(own(1001).of(run), None);
    }
}
