//! Requests for approval as the proxy meets them: asked of whoever keeps them, with news for whoever waits.
//!
//! Promises: nothing about a request is believed that its keeper has not put on disk; whoever waits hears of every
//! change. What a decision means is policy's to say, and the gate's to ask.

mod notify;
mod packs;
mod webhook;

use std::{fmt, sync::Arc};

use futures::future::BoxFuture;
use interceptor_core::{
    approval::{Decision, Shown, Standing},
    break_glass::{BreakGlass, By, Review},
    model::{ApprovalId, BreakGlassId, RecordId, ResourceName, RunId},
};
use tokio::sync::{mpsc, watch};

use crate::{
    keeper::{
        client::{AskError, KeeperClient},
        messages::{Answer as KeeperAnswer, Ask},
    },
    store::{
        docket::{Answer, Filing, Question},
        glass::GlassQuestion,
    },
};

pub use notify::{News, Notices, Notifier, NotifyError};
pub use packs::{KeptPack, Packs, Shelf};
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
    floods: Option<mpsc::Sender<RunId>>,
}

impl fmt::Debug for Approvals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Approvals").field("changes", &*self.changes.borrow()).finish_non_exhaustive()
    }
}

impl Approvals {
    /// Those that `clerk` keeps.
    pub fn new(clerk: Arc<dyn Clerk>) -> Self {
        Self { clerk, changes: watch::Sender::new(0), notices: None, floods: None }
    }

    /// The same, where people elsewhere hear of them.
    #[must_use]
    pub fn told_to(self, notices: Notices) -> Self {
        Self { notices: Some(notices), ..self }
    }

    /// The same, where runs that ask for too much are told to `floods`, to be frozen.
    #[must_use]
    pub fn with_floods_to(self, floods: mpsc::Sender<RunId>) -> Self {
        Self { floods: Some(floods), ..self }
    }

    /// A run has asked for more than it may have open: all of that is one request, whether it may go on.
    pub async fn flooded(&self, filing: Filing) -> Result<Standing, ApprovalError> {
        let run = filing.card.run;
        let standing = self.file(filing).await?;
        // One that does not fit is told again by the next request of the run, which is not frozen.
        if let Some(floods) = &self.floods {
            let _ = floods.try_send(run);
        }
        Ok(standing)
    }

    /// The request is over, without anything having been done by it.
    pub async fn close(&self, id: ApprovalId, why: &str) -> Result<Standing, ApprovalError> {
        let closed = self.standing(Question::Close { id, why: why.to_owned() }).await?;
        self.changed();
        Ok(closed)
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

    /// What stands in the place of a wish already; none where it would be opened.
    pub async fn in_place_of(&self, filing: Filing) -> Result<Option<Standing>, ApprovalError> {
        match self.ask(Question::Find(Box::new(filing))).await? {
            Answer::All(all) => Ok(all.into_iter().next()),
            Answer::Standing(standing) => Ok(Some(*standing)),
            other => Err(odd(other)),
        }
    }

    /// Where a request stands.
    pub async fn look(&self, id: ApprovalId) -> Result<Standing, ApprovalError> {
        self.standing(Question::Look(id)).await
    }

    /// The same, with what helps to decide it.
    pub async fn show(&self, id: ApprovalId) -> Result<Shown, ApprovalError> {
        match self.ask(Question::Show(id)).await? {
            Answer::Shown(shown) => Ok(*shown),
            other => Err(odd(other)),
        }
    }

    /// What is open, or was lately; newest first.
    pub async fn list(&self) -> Result<Vec<Standing>, ApprovalError> {
        match self.ask(Question::List).await? {
            Answer::All(all) => Ok(all),
            other => Err(odd(other)),
        }
    }

    /// The open approval of this shape, if there is one.
    pub async fn of_shape(&self, shape: String) -> Result<Option<Standing>, ApprovalError> {
        match self.ask(Question::Shape(shape)).await? {
            Answer::All(all) => Ok(all.into_iter().next()),
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
    pub async fn use_up(
        &self,
        id: ApprovalId,
        digest: String,
        shape: Option<String>,
        record: RecordId,
    ) -> Result<(), ApprovalError> {
        self.standing(Question::Use { id, digest, shape, record }).await.map(drop)
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

    /// What is broken, or not reviewed yet.
    pub async fn pending_glass(&self) -> Result<Vec<BreakGlass>, ApprovalError> {
        self.glass(GlassQuestion::Pending).await
    }

    /// Root breaks the glass; whoever is told about approvals is told.
    pub async fn break_glass(
        &self,
        resource: ResourceName,
        reason: String,
        by: By,
        seconds: u64,
    ) -> Result<BreakGlass, ApprovalError> {
        let broken = self.one_glass(GlassQuestion::Break { resource, reason, by, seconds }).await?;
        self.news(News::glass("glass-broken", &broken));
        Ok(broken)
    }

    /// A break-glass is over before its time.
    pub async fn mend_glass(&self, id: BreakGlassId) -> Result<BreakGlass, ApprovalError> {
        self.one_glass(GlassQuestion::End(id)).await
    }

    /// Somebody looked at what was done under a break-glass.
    pub async fn review_glass(&self, id: BreakGlassId, review: Review) -> Result<BreakGlass, ApprovalError> {
        let reviewed = self.one_glass(GlassQuestion::Review { id, review }).await?;
        self.news(News::glass("glass-reviewed", &reviewed));
        Ok(reviewed)
    }

    async fn one_glass(&self, question: GlassQuestion) -> Result<BreakGlass, ApprovalError> {
        let mut found = self.glass(question).await?;
        self.changed();
        found.pop().ok_or_else(|| ApprovalError::Kept(AskError::Mixed.to_string()))
    }

    async fn glass(&self, question: GlassQuestion) -> Result<Vec<BreakGlass>, ApprovalError> {
        match self.ask(Question::Glass(question)).await? {
            Answer::Glass(found) => Ok(found),
            other => Err(odd(other)),
        }
    }

    /// Whether anybody elsewhere hears of what happens.
    pub fn is_told(&self) -> bool {
        self.notices.is_some()
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
        Answer::Standing(_) | Answer::Shown(_) | Answer::All(_) | Answer::Voided(_) | Answer::Glass(_) => {
            ApprovalError::Kept(AskError::Mixed.to_string())
        }
    }
}
