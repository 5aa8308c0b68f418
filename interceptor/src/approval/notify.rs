//! People elsewhere hear that something waits for them, or was decided.
//!
//! Promises: what is told has a key of its own, told once as long as the receiver says that it has it, and again when
//! it does not; whoever waits for an approval never waits for a notifier. No statement is told, since whoever hears may
//! not be whoever may see it. A notifier that cannot be reached is logged, and changes nothing.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use interceptor_core::{approval::Standing, break_glass::BreakGlass};
use serde::Serialize;
use tokio::sync::mpsc;

/// How much may wait to be told.
const QUEUE: usize = 256;
/// How many keys are remembered.
const REMEMBERED: usize = 1024;
/// How often something is told in vain.
const TRIES: u32 = 6;
/// How long is waited before the second try; twice as long before each that follows.
const AGAIN: Duration = Duration::from_secs(1);

/// Why nobody was told.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotifyError(pub String);

/// A way to tell people.
pub trait Notifier: Send + Sync {
    /// Tells once; an error means that it may not have been heard.
    fn tell<'a>(&'a self, news: &'a News) -> BoxFuture<'a, Result<(), NotifyError>>;
}

/// What is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Names it; the same for the same news.
    pub key: String,
    /// JSON.
    pub body: String,
}

/// The body of [`News`].
#[derive(Serialize)]
struct Body<'a> {
    event: &'a str,
    approval: String,
    state: String,
    agent: &'a str,
    owner: Option<&'a str>,
    run: String,
    resource: &'a str,
    groups: &'a [String],
    rules: Vec<&'a str>,
    approved_by: Vec<String>,
    opened_at: i64,
    closes_at: i64,
}

/// The body of [`News`] about a break-glass.
#[derive(Serialize)]
struct GlassBody<'a> {
    event: &'a str,
    break_glass: String,
    resource: &'a str,
    reason: &'a str,
    by: String,
    opened_at: i64,
    closes_at: i64,
    reviewed_by: Option<&'a str>,
}

impl News {
    /// Somebody asks.
    pub fn asked(standing: &Standing) -> Self {
        Self::of("asked", format!("{}/asked", standing.id), standing)
    }

    /// Somebody decided.
    pub fn decided(standing: &Standing) -> Self {
        Self::of("decided", format!("{}/decided/{}", standing.id, standing.decisions.len()), standing)
    }

    /// The glass was broken, or that was looked at.
    pub fn glass(event: &str, glass: &BreakGlass) -> Self {
        let body = GlassBody {
            event,
            break_glass: glass.id.to_string(),
            resource: glass.resource.as_str(),
            reason: &glass.reason,
            by: glass.by.in_words(),
            opened_at: glass.opened_at,
            closes_at: glass.closes_at,
            reviewed_by: glass.review.as_ref().map(|review| review.person.as_str()),
        };
        Self { key: format!("{}/{event}", glass.id), body: serde_json::to_string(&body).unwrap_or_default() }
    }

    fn of(event: &str, key: String, standing: &Standing) -> Self {
        let card = &standing.card;
        let body = Body {
            event,
            approval: standing.id.to_string(),
            state: standing.state.to_string(),
            agent: card.agent.name.as_str(),
            owner: card.agent.owner.as_deref(),
            run: card.run.to_string(),
            resource: card.resource.as_str(),
            groups: &card.groups,
            rules: card.rules.iter().map(|rule| rule.id.as_str()).collect(),
            approved_by: standing.people().iter().map(ToString::to_string).collect(),
            opened_at: standing.opened_at,
            closes_at: standing.closes_at,
        };
        // Text and numbers always serialise; an empty body still has its key.
        Self { key, body: serde_json::to_string(&body).unwrap_or_default() }
    }
}

/// What is to be told.
#[derive(Debug, Clone)]
pub struct Notices(mpsc::Sender<News>);

impl Notices {
    /// Tells through `notifier`, one after the other.
    pub fn start(notifier: Arc<dyn Notifier>) -> Self {
        let (queue, mut news) = mpsc::channel::<News>(QUEUE);
        tokio::spawn(async move {
            let mut told: VecDeque<String> = VecDeque::new();
            while let Some(news) = news.recv().await {
                if told.contains(&news.key) {
                    continue;
                }
                if told.len() >= REMEMBERED {
                    told.pop_front();
                }
                told.push_back(news.key.clone());
                tell(notifier.as_ref(), &news).await;
            }
        });
        Self(queue)
    }

    /// Adds something.
    pub(super) fn tell(&self, news: News) {
        if let Err(error) = self.0.try_send(news) {
            tracing::error!("approvers were not told: {error}");
        }
    }
}

async fn tell(notifier: &dyn Notifier, news: &News) {
    let mut wait = AGAIN;
    for left in (0..TRIES).rev() {
        match notifier.tell(news).await {
            Ok(()) => return,
            Err(error) if left == 0 => tracing::error!(key = news.key, "approvers were not told: {error}"),
            Err(error) => {
                tracing::warn!(key = news.key, "approvers are told again in {wait:?}: {error}");
                tokio::time::sleep(wait).await;
                wait = wait.saturating_mul(2);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Hears every third time.
    #[derive(Default)]
    struct Deaf(Mutex<Vec<String>>);

    impl Notifier for Deaf {
        fn tell<'a>(&'a self, news: &'a News) -> BoxFuture<'a, Result<(), NotifyError>> {
            let mut heard = self.0.lock().unwrap();
            heard.push(news.key.clone());
            let well = heard.len().is_multiple_of(3);
            Box::pin(std::future::ready(if well { Ok(()) } else { Err(NotifyError("deaf".to_owned())) }))
        }
    }

    #[tokio::test]
    async fn what_was_not_heard_is_told_again_and_nothing_twice() {
        let deaf = Arc::new(Deaf::default());
        let notices = Notices::start(deaf.clone());
        for key in ["a", "a", "b", "c"] {
            notices.tell(News { key: key.to_owned(), body: String::new() });
        }
        // The third is told only when the second is done with.
        while deaf.0.lock().unwrap().last().is_none_or(|key| key != "c") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(deaf.0.lock().unwrap()[..7], ["a", "a", "a", "b", "b", "b", "c"]);
    }
}
