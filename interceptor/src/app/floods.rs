//! Runs that ask people for more than anybody can answer: frozen where policy says so, until a person says whether they
//! may go on.
//!
//! Promise: a run is frozen by the kernel, so that it stays so whatever becomes of the daemon. A yes thaws it, a no ends
//! it; without either it stays as it is, and can be killed.

use std::sync::Arc;

use interceptor_core::{
    approval::{Says, Standing},
    model::{EventKind, RunId},
};
use tokio::sync::mpsc;

use super::proxy::Daemon;
use crate::helper::messages::FromProxy;

/// How many runs may wait to be frozen.
pub(super) const FLOODS: usize = 64;

/// Freezes, for ever.
pub(super) async fn serve(daemon: Arc<Daemon>, mut floods: mpsc::Receiver<RunId>) {
    while let Some(run) = floods.recv().await {
        daemon.freeze(run).await;
    }
}

impl Daemon {
    async fn freeze(&self, run: RunId) {
        let Some(live) = self.proxy.runs.find(run) else { return };
        if !self.tell_helper(FromProxy::Freeze { run }).await {
            return;
        }
        if self.proxy.runs.froze(run) {
            let text = "frozen: it asks people for more than it may have open";
            self.proxy.event(Some((run, &live.agent.name)), EventKind::RunFrozen, text);
        }
    }

    /// What was said of a run that had asked for too much.
    pub(super) async fn flood_decided(&self, standing: &Standing, says: &Says) -> Standing {
        let run = standing.card.run;
        let over = match says {
            Says::Approve { .. } => self.thaw(run).await.then_some("the run goes on"),
            Says::Deny { .. } => {
                self.kill(run).await;
                None
            }
        };
        match over {
            None => standing.clone(),
            Some(why) => match self.proxy.gate.approvals().close(standing.id, why).await {
                Ok(closed) => closed,
                Err(error) => {
                    tracing::error!(%run, "{error}");
                    standing.clone()
                }
            },
        }
    }

    async fn thaw(&self, run: RunId) -> bool {
        let thawed = self.tell_helper(FromProxy::Thaw { run }).await;
        if thawed && let Some(live) = self.proxy.runs.find(run) {
            self.proxy.runs.thawed(run);
            self.proxy.event(Some((run, &live.agent.name)), EventKind::RunThawed, "it goes on");
        }
        thawed
    }
}
