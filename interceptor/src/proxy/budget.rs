//! What one session may still have sent back to it, of what its run has in common.
//!
//! Promise: rows are judged again at every value that a rule compares them with. Sessions of one run that stream at the
//! same time may each be ahead of the others' count by what one reading brought.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use interceptor_core::{
    Denial,
    model::{Action, RecordId, Spent},
};

use crate::gate::{PolicyGate, Subject, Tally};

/// How long the upstream may take to accept the wish to cancel.
const PATIENCE: Duration = Duration::from_secs(10);

/// The wish to cancel, on its way.
pub(super) type Cancelling = BoxFuture<'static, ()>;

/// A session's view of its run's budget.
pub(super) struct Budget {
    gate: Arc<PolicyGate>,
    subject: Arc<Subject>,
    tally: Tally,
    cancel: Box<dyn Fn() -> Cancelling + Send + Sync>,
}

impl Budget {
    /// The budget of `subject`'s run; `cancel` asks the upstream to stop what the session has under way.
    pub(super) fn new(
        gate: Arc<PolicyGate>,
        subject: Arc<Subject>,
        cancel: Box<dyn Fn() -> Cancelling + Send + Sync>,
    ) -> Self {
        let tally = gate.tallies().of(subject.run.id);
        Self { gate, subject, tally, cancel }
    }

    /// How much may pass before it is to be asked again.
    pub(super) fn room(&self) -> Spent {
        self.gate.room(&self.tally)
    }

    /// So much has passed.
    pub(super) fn passed(&self, spent: Spent) {
        self.tally.add(spent);
    }

    /// Whether a statement under way may go on.
    pub(super) fn goes_on(
        &self,
        actions: &[Action],
        place: usize,
        record: Option<RecordId>,
    ) -> Result<(), (Denial, String)> {
        self.gate.goes_on(&self.subject, actions, place, record, self.tally.total())
    }

    /// Asks the upstream to stop.
    pub(super) fn cancel(&self) -> Cancelling {
        let asked = (self.cancel)();
        Box::pin(async move {
            // One that takes too long to answer has been asked all the same.
            let _ = tokio::time::timeout(PATIENCE, asked).await;
        })
    }
}
