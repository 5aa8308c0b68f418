//! What runs want of their container engines: in the record, and judged where it is more than a call, before it is done.
//!
//! Promises: nobody hears that something may be done before its entry is committed, as durably as a permit needs it; what
//! cannot be committed, and what is of no live run, is not answered, which refuses; an image is fetched by policy's permit
//! alone, and nobody is waited for. Must never know what the engine's interface is.

use std::{os::fd::OwnedFd, sync::Arc};

use bytes::Bytes;
use interceptor_core::{
    Held, Verdict,
    model::{
        Action, Author, Binds, EventKind, EventRecord, Image, OutcomeStatus, Phase, Principal, Run, RunId,
        StatementFacts, Target, Verb,
    },
};

use super::Proxy;
use crate::{
    channel::{AsyncChannel, Channel, ChannelError},
    gate::{Ledger, Subject, now_us},
    helper::messages::{Asking, Cadence, Came, Heard},
    store::JournalError,
};

/// The protocol's name in the record.
const PROTOCOL: &str = "docker";

type Launcher = AsyncChannel<Heard, Came>;

impl Proxy {
    /// Answers the launcher of a run, that wants something of its container engine.
    pub fn asked_engine(self: &Arc<Self>, run: RunId, asking: Asking, launcher: OwnedFd) {
        let proxy = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = proxy.answer_engine(run, asking, launcher).await {
                tracing::debug!(%run, "what was asked of a container engine was not answered: {error}");
            }
        });
    }

    async fn answer_engine(&self, run: RunId, asking: Asking, launcher: OwnedFd) -> Result<(), ChannelError> {
        let launcher: Launcher = Channel::from_socket(launcher).into_async()?;
        let Some(live) = self.runs.find(run) else { return Ok(()) };
        match asking {
            Asking::Call { cadence, text } => match self.is_recorded(&live, cadence, text).await {
                true => launcher.send(&Heard::Recorded, &[]).await,
                false => Ok(()),
            },
            Asking::Pull { image, platform } => self.pull(live, image, &platform, &launcher).await,
        }
    }

    /// Records a call, or counts it where it is one of too many that may come in a loop; whether the record has it.
    async fn is_recorded(&self, run: &Run, cadence: Cadence, text: String) -> bool {
        let of = Some((run.id, &run.agent.name));
        if cadence == Cadence::Loop && !self.told_enough(Some(run.id), of) {
            return true;
        }
        let agent = Some(run.agent.name.clone());
        let event = EventRecord {
            at: now_us(),
            run: Some(run.id),
            agent,
            kind: EventKind::Engine,
            text,
            attempt: None,
        };
        match self.gate.note(&event).await {
            Ok(()) => true,
            // A run that makes noise beyond its share does not fill the log.
            Err(error @ JournalError::Quota { .. }) => {
                tracing::debug!(run = %run.id, "a call to a container engine is refused: {error}");
                false
            }
            Err(error) => {
                tracing::error!(run = %run.id, "a call to a container engine is refused: {error}");
                false
            }
        }
    }

    /// Has it judged whether an image may be fetched, and waits for what comes of it.
    async fn pull(
        &self,
        run: Arc<Run>,
        image: Image,
        platform: &str,
        launcher: &Launcher,
    ) -> Result<(), ChannelError> {
        let text = match platform {
            "" => format!("pull {image}"),
            platform => format!("pull {image} for {platform}"),
        };
        let subject = Subject {
            run,
            connection: None,
            resource: None,
            protocol: PROTOCOL,
            principal: Principal::default(),
            login: None,
            sought: Arc::default(),
        };
        let facts = StatementFacts::single(Verb::Pull, Target::Image(image)).into();
        let action = Action { phase: Phase::Pull, text: text.clone().into(), binds: Binds::new(), facts };
        let held = Held::new(0, vec![action], Bytes::from(text));
        let permit = match self.gate.judge_for(&subject, &held, Author::Agent).await {
            Verdict::Allow(permit, _) => permit,
            Verdict::Deny(denial) => {
                let text = format!("{}. {}", denial.message, denial.hint);
                return launcher.send(&Heard::Refused { text }, &[]).await;
            }
            // Nobody is waited for, and there are no terms to keep.
            Verdict::Again | Verdict::Enclose(_) => return Ok(()),
        };
        let mut ledger = Ledger::new(self.gate.producer().clone());
        ledger.sent(0, permit.records());
        // The call itself is the broker's: the permit is consumed by telling it so.
        if held.release(permit).is_err() {
            return Ok(());
        }
        if let Err(error) = launcher.send(&Heard::Recorded, &[]).await {
            let why = "nobody waited for the answer".to_owned();
            ledger.ended_whole(0, OutcomeStatus::Refused, 0, Some(why));
            return Err(error);
        }
        match launcher.receive().await? {
            (Came::Done { text }, _) => ledger.ended_whole(0, OutcomeStatus::Completed, 0, Some(text)),
            (Came::Failed { text }, _) => ledger.ended_whole(0, OutcomeStatus::Failed, 0, Some(text)),
        }
        Ok(())
    }
}
