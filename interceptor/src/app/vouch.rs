//! The daemon towards people who say that a captured run is their own log-in session.
//!
//! Promises: it is said by a person of people.toml from a log-in session that is not captured, of a run that was a session
//! before it was captured; it is recorded before it is believed, and it is believed for hours at most.

use std::time::Duration;

use interceptor_core::{
    inventory::Person,
    model::{EventKind, RunId},
};

use super::proxy::Daemon;
use crate::{
    control::{
        approvals::{Answer, Vouching},
        caller::Caller,
    },
    gate::Work,
    helper,
    identity::login,
};

/// For how long it is believed at most, in seconds: a day's work.
const LONGEST: u64 = 8 * 3600;

impl Daemon {
    pub(super) fn vouch(&self, caller: &Caller, person: &Person, run: RunId, said: Vouching) -> Answer {
        let Vouching { seconds, shell, programs } = said;
        let failed = |text: String| Answer::Failed { text };
        if !(1..=LONGEST).contains(&seconds) {
            return failed("say for how long: at most 8 hours".to_owned());
        }
        let Some(live) = self.proxy.runs.find(run) else {
            return failed(format!("there is no live run {run}: `interceptor ps` lists them"));
        };
        if !live.claims.contains_key(helper::CGROUP_BEFORE) {
            return failed(format!(
                "run {run} is agent {}'s: only a log-in session that was captured by `interceptor attach --pid` can be a \
                 person's",
                live.agent.name
            ));
        }
        if programs.is_empty() || programs.iter().any(|program| !program.starts_with('/')) {
            return failed("name the programs that you start yourself, by their whole paths".to_owned());
        }
        let Some(shell) = login::shell(shell, person.uid) else {
            return failed(format!("process {shell} is in no log-in session of yours"));
        };
        let who = format!("{} (uid {}, session {})", person.name, person.uid, caller.session);
        let list = programs.join(", ");
        let text = format!(
            "{who} vouches for {seconds} s that this is their own log-in session: what process {} starts of {list}",
            shell.pid
        );
        if !self.proxy.event(Some((run, &live.agent.name)), EventKind::Vouched, text) {
            return failed(
                "nothing was believed: it could not be recorded; see `interceptor status`".to_owned(),
            );
        }
        self.proxy.gate.vouched().set(
            run,
            person.uid,
            Work { shell, programs },
            Duration::from_secs(seconds),
        );
        Answer::Vouched {
            text: format!(
                "for {seconds} s policy knows {} in run {run}: in what process {} starts of {list}, and nothing else",
                person.name, shell.pid
            ),
        }
    }
}
