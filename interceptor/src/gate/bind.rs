//! What an exchange makes of labels' bindings, at the gate: what was found when its names were looked up is kept before it
//! goes, and so is where it puts labelled data.
//!
//! Promise: nothing is permitted whose traces could not be kept.

use std::sync::Arc;

use interceptor_core::{
    Denial, Held, Verdict,
    approval::words,
    mask::{Bindings, Labelled, Labels, Moved},
    model::{EventKind, EventRecord},
    permit::Records,
};

use super::{PolicyGate, Subject, Unsent, now_us};

/// What is told about what cannot be kept.
const UNBOUND: &str = "Nothing was executed. Ask the operator to run `interceptor status` on this host.";

impl PolicyGate {
    /// What is bound to the labels of the subject's resource.
    pub(super) fn bindings(&self, subject: &Subject) -> Arc<Bindings> {
        match &subject.resource {
            Some(resource) => self.bound.of(resource),
            None => Labelled::nothing("").bindings,
        }
    }

    /// The verdict on `held` once what it makes of bindings is kept.
    pub(super) async fn bind(&self, subject: &Subject, held: &Held, verdict: Verdict) -> Verdict {
        let Verdict::Allow(permit, mask) = verdict else { return verdict };
        let records = permit.records();
        let mut unsent = Unsent { producer: &self.producer, records, why: None };
        match self.kept(subject, held, records).await {
            Ok(()) => {
                unsent.sent();
                Verdict::Allow(permit, mask)
            }
            Err(why) => {
                unsent.why = Some(why.clone());
                Verdict::Deny(Denial {
                    record: records.get(0),
                    rule: "labels".to_owned(),
                    message: format!("refused: what is labelled could not be kept ({why})"),
                    hint: UNBOUND.to_owned(),
                })
            }
        }
    }

    /// Has what was found at the subject's resource kept. The error is for the operator.
    pub async fn keep_bound(&self, subject: &Subject) -> Result<(), String> {
        let Some(resource) = &subject.resource else { return Ok(()) };
        let labels = Self::labels(&self.rules(), subject);
        self.bound.keep(resource, |moved| self.moved(subject, &labels, moved)).await
    }

    async fn kept(&self, subject: &Subject, held: &Held, records: Records) -> Result<(), String> {
        let (Some(resource), labels) = (&subject.resource, Self::labels(&self.rules(), subject)) else {
            return Ok(());
        };
        if labels.is_empty() {
            return Ok(());
        }
        for (action, record) in
            held.actions().iter().zip(records.iter()).filter(|(action, _)| !action.carried().is_empty())
        {
            self.bound.of(resource).copied(&labels, action.carried(), record)?;
        }
        self.keep_bound(subject).await
    }

    /// Records that a labelled column is called otherwise; whether it could be.
    fn moved(&self, subject: &Subject, labels: &Labels, moved: &Moved) -> bool {
        let Moved { label, from, to } = moved;
        let resource = labels.resource();
        let text = format!(
            "column {} of database {} at {resource}, which bears the label {label}, is now {}: it stays labelled; write its \
             new name into labels.toml, or take the label from it with `interceptor labels forget {resource} {}`",
            words(&from.to_string()),
            words(&to.database),
            words(&to.to_string()),
            words(&to.to_string()),
        );
        tracing::warn!("{text}");
        let event = EventRecord {
            at: now_us(),
            run: Some(subject.run.id),
            agent: Some(subject.run.agent.name.clone()),
            kind: EventKind::LabelMoved,
            text,
            attempt: None,
        };
        let written = self.producer.append_event(&event);
        written.inspect_err(|error| tracing::error!("a renamed column was not recorded: {error}")).is_ok()
    }
}
