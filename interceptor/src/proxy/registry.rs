//! The sessions that are open now: to list them, to find the owner of a cancel key, and to end them.
//!
//! A session is registered before it is judged, so that a change of policy in between still finds it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use interceptor_core::{
    Denial,
    model::{Action, ConnectionId, Principal, ResourceName, RunId},
    protocol::CancelKey,
};
use tokio::sync::watch;

use crate::gate::Subject;

/// Why a session is ended from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The policy in force no longer allows the session.
    Policy,
    /// The run was killed by an operator.
    Killed,
    /// The daemon stops.
    Stopping,
    /// The gate could not go on.
    Refused(Denial),
}

impl Ending {
    /// In words for the agent.
    pub fn denial(&self) -> Denial {
        let (rule, message, hint) = match self {
            Self::Refused(denial) => return denial.clone(),
            Self::Policy => (
                "policy-changed",
                "the connection was ended: the policy changed and no longer allows it",
                "Ask the operator; a new connection will be refused with the rule's name.",
            ),
            Self::Killed => {
                ("killed", "the connection was ended: an operator stopped this run", "Do not reconnect.")
            }
            Self::Stopping => (
                "stopping",
                "the connection was ended: the interceptor is being restarted",
                "Connect again in a few seconds.",
            ),
        };
        Denial { record: None, rule: rule.to_owned(), message: message.to_owned(), hint: hint.to_owned() }
    }
}

/// Waits for a session's ending.
#[derive(Debug, Clone)]
pub struct Told {
    ending: watch::Receiver<Option<Ending>>,
    cancels: Cancels,
}

/// Requests to cancel what waits for a person in a session, where the upstream knows nothing of it yet.
#[derive(Debug, Clone, Default)]
pub struct Cancels(Arc<watch::Sender<u64>>);

impl Cancels {
    /// What the client asks from now on.
    pub fn listen(&self) -> Cancelled {
        Cancelled(self.0.subscribe())
    }

    /// Whether anything waited, which it does no more. What is only about to wait will not.
    fn ask(&self) -> bool {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
        // Whoever waits listens besides whoever may wait.
        self.0.receiver_count() > 1
    }
}

/// A client's wish that its exchange be cancelled, from when it went to the gate.
#[derive(Debug)]
pub struct Cancelled(watch::Receiver<u64>);

impl Cancelled {
    /// Resolves when it asks, or has asked.
    pub async fn asked(&self) {
        let mut cancels = self.0.clone();
        // Without its session nobody asks any more.
        if cancels.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Told {
    /// Resolves when the session must end, and never otherwise. Cancel safe.
    pub async fn wait(&mut self) -> Ending {
        match self.ending.wait_for(Option::is_some).await {
            Ok(ending) => ending.clone().unwrap_or(Ending::Stopping),
            // The entry is gone before its relay only when the daemon is going down.
            Err(_) => Ending::Stopping,
        }
    }

    /// Where the client asks for what waits in its session to be cancelled.
    pub fn cancels(&self) -> Cancels {
        self.cancels.clone()
    }
}

/// One open session, as `interceptor ps` shows it.
#[derive(Debug, Clone)]
pub struct OpenSession {
    /// Its connection.
    pub connection: ConnectionId,
    /// Its run.
    pub run: RunId,
    /// Its resource.
    pub resource: ResourceName,
    /// Since when, in microseconds of the Unix epoch.
    pub since: i64,
}

#[derive(Debug)]
struct Entry {
    shown: OpenSession,
    subject: Arc<Subject>,
    opening: Vec<Action>,
    key: Option<(CancelKey, Option<CancelKey>)>,
    tell: watch::Sender<Option<Ending>>,
    cancels: Cancels,
}

/// All open sessions.
#[derive(Debug, Default)]
pub struct Registry {
    entries: Mutex<HashMap<ConnectionId, Entry>>,
}

/// Takes the session off the list when dropped.
#[derive(Debug)]
pub struct Registered {
    registry: Arc<Registry>,
    connection: ConnectionId,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.lock().remove(&self.connection);
    }
}

impl Registered {
    /// From now on a cancel request with `given` from the same run means the upstream's key `theirs`.
    pub fn keyed(&self, given: CancelKey, theirs: Option<CancelKey>) {
        if let Some(entry) = self.registry.lock().get_mut(&self.connection) {
            entry.key = Some((given, theirs));
        }
    }
}

impl Registry {
    /// Puts a session on the list. `opening` is what is judged again when the policy changes.
    pub fn register(
        self: &Arc<Self>,
        shown: OpenSession,
        subject: Arc<Subject>,
        opening: Vec<Action>,
    ) -> (Registered, Told) {
        let (tell, ending) = watch::channel(None);
        let cancels = Cancels::default();
        let told = Told { ending, cancels: cancels.clone() };
        let connection = shown.connection;
        self.lock().insert(connection, Entry { shown, subject, opening, key: None, tell, cancels });
        (Registered { registry: self.clone(), connection }, told)
    }

    /// The session and the upstream's key that `given` stands for, if a session of the same run at the same resource
    /// owns it: a key is never sent to another upstream than the one that gave it.
    pub fn owner(
        &self,
        run: RunId,
        resource: &ResourceName,
        given: &CancelKey,
    ) -> Option<(Arc<Subject>, CancelKey)> {
        self.lock().values().find_map(|entry| match &entry.key {
            Some((key, Some(theirs)))
                if entry.shown.run == run && entry.shown.resource == *resource && key == given =>
            {
                Some((entry.subject.clone(), theirs.clone()))
            }
            _ => None,
        })
    }

    /// Cancels what waits for a person in the session that owns `given`; whether anything did. Then the upstream has
    /// nothing to cancel.
    pub fn cancel_wait(&self, run: RunId, resource: &ResourceName, given: &CancelKey) -> bool {
        self.lock().values().any(|entry| {
            let owns = entry.key.as_ref().is_some_and(|(key, _)| key == given);
            owns && entry.shown.run == run && entry.shown.resource == *resource && entry.cancels.ask()
        })
    }

    /// What is open now.
    pub fn list(&self) -> Vec<OpenSession> {
        let mut all: Vec<_> = self.lock().values().map(|entry| entry.shown.clone()).collect();
        all.sort_by_key(|session| session.connection);
        all
    }

    /// At which resources `run` has sessions, and who it is there; each once.
    pub fn principals(&self, run: RunId) -> Vec<(ResourceName, Principal)> {
        let mut all: Vec<(ResourceName, Principal)> = Vec::new();
        for entry in self.lock().values().filter(|entry| entry.shown.run == run) {
            let one = (entry.shown.resource.clone(), entry.subject.principal.clone());
            if !all.contains(&one) {
                all.push(one);
            }
        }
        all
    }

    /// Ends every session of `run`.
    pub fn end_run(&self, run: RunId, ending: &Ending) {
        self.end_where(ending, |entry| entry.shown.run == run);
    }

    /// Ends every session.
    pub fn end_all(&self, ending: &Ending) {
        self.end_where(ending, |_| true);
    }

    /// Ends the sessions whose opening `allowed` no longer allows.
    pub fn judge_again(&self, allowed: impl Fn(&Subject, &[Action]) -> bool) {
        self.end_where(&Ending::Policy, |entry| !allowed(&entry.subject, &entry.opening));
    }

    fn end_where(&self, ending: &Ending, fits: impl Fn(&Entry) -> bool) {
        for entry in self.lock().values().filter(|entry| fits(entry)) {
            // What a person or policy ended is not merely restarted.
            entry.tell.send_if_modified(|told| {
                let first = matches!(told, None | Some(Ending::Stopping));
                if first {
                    *told = Some(ending.clone());
                }
                first
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ConnectionId, Entry>> {
        // A panic elsewhere leaves the map whole: every change is one call.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
