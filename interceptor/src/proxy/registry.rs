//! The sessions that are open now: to list them, to find the owner of a cancel key, and to end them.
//!
//! A session is registered before it is judged, so that a change of policy in between still finds it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use interceptor_core::{
    Denial,
    model::{Action, ConnectionId, Principal, ResourceName, RunId},
    protocol::CancelKey,
};
use tokio::sync::Notify;

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

/// What comes for a session from outside. Small, since every idle session has one.
#[derive(Debug, Default)]
struct Post {
    ending: Mutex<Option<Ending>>,
    /// Counts requests to cancel.
    cancels: AtomicU64,
    /// How many wait for such a request.
    waiting: AtomicUsize,
    /// Wakes whoever looks for either.
    news: Notify,
}

impl Post {
    /// Tells of the ending where `may_follow` says so of what was told before.
    fn end(&self, ending: &Ending, may_follow: impl Fn(Option<&Ending>) -> bool) {
        // A panic elsewhere leaves it whole: every change is one store.
        let mut told = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        if may_follow(told.as_ref()) {
            *told = Some(ending.clone());
            self.news.notify_waiters();
        }
    }

    /// Cancels what waits for a person; whether anything did, which it does no more. What is only about to wait will
    /// not.
    fn cancel_wait(&self) -> bool {
        self.cancels.fetch_add(1, Ordering::SeqCst);
        self.news.notify_waiters();
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Ends with what `look` finds, which is asked again at all news.
    async fn find<T>(&self, look: impl Fn(&Self) -> Option<T>) -> T {
        loop {
            // Made before it is looked, so that news in between are not missed.
            let news = self.news.notified();
            if let Some(found) = look(self) {
                return found;
            }
            news.await;
        }
    }
}

/// Waits for a session's ending.
#[derive(Debug, Clone)]
pub struct Told(Arc<Post>);

/// Requests to cancel what waits for a person in a session, where the upstream knows nothing of it yet.
#[derive(Debug, Clone)]
pub struct Cancels(Arc<Post>);

impl Cancels {
    /// What the client asks from now on.
    pub fn listen(&self) -> Cancelled {
        Cancelled { post: self.0.clone(), before: self.0.cancels.load(Ordering::SeqCst) }
    }
}

/// A client's wish that its exchange be cancelled, from when it went to the gate.
#[derive(Debug)]
pub struct Cancelled {
    post: Arc<Post>,
    before: u64,
}

impl Cancelled {
    /// Resolves when it asks, or has asked.
    pub async fn asked(&self) {
        let Self { post, before } = self;
        let _waiting = Waiting::at(post);
        post.find(|post| (post.cancels.load(Ordering::SeqCst) != *before).then_some(())).await;
    }
}

/// Counted among those who wait for a request to cancel, until it is dropped.
struct Waiting<'a>(&'a Post);

impl<'a> Waiting<'a> {
    fn at(post: &'a Post) -> Self {
        post.waiting.fetch_add(1, Ordering::SeqCst);
        Self(post)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Told {
    /// Resolves when the session must end, and never otherwise. Cancel safe.
    pub async fn wait(&self) -> Ending {
        self.0.find(|post| post.ending.lock().unwrap_or_else(PoisonError::into_inner).clone()).await
    }

    /// Where the client asks for what waits in its session to be cancelled.
    pub fn cancels(&self) -> Cancels {
        Cancels(self.0.clone())
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
    post: Arc<Post>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        // It is gone before its relay only when the daemon is going down.
        self.post.end(&Ending::Stopping, |told| told.is_none());
    }
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
        let post = Arc::<Post>::default();
        let told = Told(post.clone());
        let connection = shown.connection;
        self.lock().insert(connection, Entry { shown, subject, opening, key: None, post });
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
            owns && entry.shown.run == run && entry.shown.resource == *resource && entry.post.cancel_wait()
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
            entry.post.end(ending, |told| matches!(told, None | Some(Ending::Stopping)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ConnectionId, Entry>> {
        // A panic elsewhere leaves the map whole: every change is one call.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn an_ending_is_told_before_and_while_it_is_waited_for_and_a_harder_one_stays() {
        let post = Arc::<Post>::default();
        let waits = Told(post.clone());
        let mut waiting = Box::pin(waits.wait());
        assert_eq!(waiting.as_mut().now_or_never(), None);
        let may_follow = |told: Option<&Ending>| matches!(told, None | Some(Ending::Stopping));
        post.end(&Ending::Killed, may_follow);
        post.end(&Ending::Stopping, may_follow);
        assert_eq!(waiting.now_or_never(), Some(Ending::Killed));
        assert_eq!(Told(post).wait().now_or_never(), Some(Ending::Killed));
    }

    #[test]
    fn a_cancel_is_heard_from_when_it_was_listened_for() {
        let post = Arc::<Post>::default();
        assert!(!post.cancel_wait(), "nobody waits");
        let listens = Cancels(post.clone()).listen();
        let mut asked = Box::pin(listens.asked());
        assert_eq!(asked.as_mut().now_or_never(), None, "what was before is not meant");
        assert!(post.cancel_wait());
        assert_eq!(asked.now_or_never(), Some(()));
        let listens = Cancels(post.clone()).listen();
        assert!(!post.cancel_wait(), "it is about to wait");
        assert_eq!(listens.asked().now_or_never(), Some(()), "and does not");
    }
}
