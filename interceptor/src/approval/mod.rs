//! Requests for approval as the proxy meets them: asked of whoever keeps them, with news for whoever waits.
//!
//! Promises: nothing about a request is believed that its keeper has not put on disk; whoever waits hears of every
//! change. What a decision means is policy's to say, and the gate's to ask.

mod notify;
mod webhook;

use std::{fmt, sync::Arc};

use futures::future::BoxFuture;
use interceptor_core::{
    approval::{Decision, Standing},
    model::{ApprovalId, RecordId},
};
use tokio::sync::watch;

use crate::{
    keeper::{
        client::{AskError, KeeperClient},
        messages::{Answer as KeeperAnswer, Ask},
    },
    store::docket::{Answer, Filing, Question},
};

pub use notify::{News, Notices, Notifier, NotifyError};
pub use webhook::{Webhook, WebhookError};

/// Keeps requests for approval. A seam: the keeper's process, or in tests the docket itself.
pub trait Clerk: Send + Sync {
    /// Answers a question; or says, for the operator, why it cannot.
    fn ask(&self, question: Question) -> BoxFuture<'_, Result<Answer, String>>;
}

impl Clerk for KeeperClient {
    fn ask(&self, question: Question) -> BoxFuture<'_, Result<Answer, String>> {
        Box::pin(async move {
            match KeeperClient::ask(self, Ask::Approval(question)).await {
                Ok(KeeperAnswer::Approval(answer)) => Ok(answer),
                Ok(_) => Err(AskError::Mixed.to_string()),
                Err(error) => Err(error.to_string()),
            }
        })
    }
}

/// Why a request could not be had, or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalError {
    /// It cannot be kept.
    #[error("requests for approval cannot be kept: {0}")]
    Kept(String),
    /// It may not be so.
    #[error("{0}")]
    No(String),
    /// The run has too many.
    #[error("this run has {0} requests for approval waiting already")]
    TooMany(u32),
}

/// All requests.
#[derive(Clone)]
pub struct Approvals {
    clerk: Arc<dyn Clerk>,
    changes: watch::Sender<u64>,
    notices: Option<Notices>,
}

impl fmt::Debug for Approvals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Approvals").field("changes", &*self.changes.borrow()).finish_non_exhaustive()
    }
}

impl Approvals {
    /// Those that `clerk` keeps.
    pub fn new(clerk: Arc<dyn Clerk>) -> Self {
        Self { clerk, changes: watch::Sender::new(0), notices: None }
    }

    /// The same, where people elsewhere hear of them.
    #[must_use]
    pub fn told_to(self, notices: Notices) -> Self {
        Self { notices: Some(notices), ..self }
    }

    /// Counts what changes, for whoever waits for it.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Where it stands; opened where nothing stands in its place.
    pub async fn file(&self, filing: Filing) -> Result<Standing, ApprovalError> {
        let filed = self.standing(Question::File(Box::new(filing))).await?;
        self.changed();
        self.news(News::asked(&filed));
        Ok(filed)
    }

    /// Where a request stands.
    pub async fn look(&self, id: ApprovalId) -> Result<Standing, ApprovalError> {
        self.standing(Question::Look(id)).await
    }

    /// What is open, or was lately; newest first.
    pub async fn list(&self) -> Result<Vec<Standing>, ApprovalError> {
        match self.ask(Question::List).await? {
            Answer::All(all) => Ok(all),
            other => Err(odd(other)),
        }
    }

    /// Somebody decided.
    pub async fn decide(&self, id: ApprovalId, decision: Decision) -> Result<Standing, ApprovalError> {
        let decided = self.standing(Question::Decide { id, decision }).await?;
        self.changed();
        self.news(News::decided(&decided));
        Ok(decided)
    }

    /// The exchange with this record is about to be sent by an approval.
    pub async fn use_up(&self, id: ApprovalId, digest: &str, record: RecordId) -> Result<(), ApprovalError> {
        self.standing(Question::Use { id, digest: digest.to_owned(), record }).await.map(drop)
    }

    /// A policy came into force: what was asked under another means nothing any more. How many requests that ended.
    pub async fn void(&self, policy: &str) -> Result<usize, ApprovalError> {
        let answer = self.ask(Question::Void { policy: policy.to_owned() }).await;
        // Whoever waits sees for itself that the policy is another.
        self.changed();
        match answer? {
            Answer::Voided(count) => Ok(count),
            other => Err(odd(other)),
        }
    }

    fn news(&self, news: News) {
        if let Some(notices) = &self.notices {
            notices.tell(news);
        }
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    async fn standing(&self, question: Question) -> Result<Standing, ApprovalError> {
        match self.ask(question).await? {
            Answer::Standing(standing) => Ok(*standing),
            other => Err(odd(other)),
        }
    }

    async fn ask(&self, question: Question) -> Result<Answer, ApprovalError> {
        self.clerk.ask(question).await.map_err(ApprovalError::Kept)
    }
}

fn odd(answer: Answer) -> ApprovalError {
    match answer {
        Answer::No(why) => ApprovalError::No(why),
        Answer::TooMany(count) => ApprovalError::TooMany(count),
        Answer::Standing(_) | Answer::All(_) | Answer::Voided(_) => {
            ApprovalError::Kept(AskError::Mixed.to_string())
        }
    }
}
