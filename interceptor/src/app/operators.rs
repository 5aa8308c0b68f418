//! The daemon towards operators: how it is, what runs, and what they want done about it.
//!
//! Promise: whatever lets something pass, or ends it, is recorded before it is so.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use interceptor_core::model::{AgentName, EventKind, RunId};

use super::proxy::{BEAT, Daemon};
use crate::{
    channel,
    config::Basis,
    control::api::{self, Answer, Envelope, Request},
    gate::{Rules, now_us},
    helper::{Note, messages::FromProxy},
    proxy::{Released, Seen, registry::Ending},
    telemetry,
};

/// How many columns go with one message: with the longest names that there are, those fit.
const COLUMNS: usize = 24;

/// Answers operators, for ever.
pub(super) async fn serve(daemon: Arc<Daemon>) {
    let listener = match daemon.control.try_clone().and_then(channel::watch) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("the control socket cannot be served: {error}"),
    };
    loop {
        let Ok(mut guard) = listener.readable().await else { return };
        match api::accept(listener.get_ref().as_fd()) {
            Ok(Some(socket)) => {
                let daemon = daemon.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(&daemon, socket).await {
                        tracing::warn!("a control connection ended: {error:#}");
                    }
                });
            }
            Ok(None) => guard.clear_ready(),
            Err(error) => {
                tracing::warn!("the control socket: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(daemon: &Daemon, socket: OwnedFd) -> anyhow::Result<()> {
    let channel = api::accepted(socket)?.into_async()?;
    let (envelope, _) = tokio::time::timeout(Duration::from_secs(10), channel.receive()).await??;
    let (columns, answer) = match envelope {
        Envelope {
            version: api::VERSION,
            request: Request::Survey { resource, database, agent, depth, errand },
        } => daemon.survey(resource, database, agent, (depth, errand)).await,
        envelope => (Vec::new(), daemon.answer(envelope).await),
    };
    for columns in columns.chunks(COLUMNS) {
        channel.send(&Answer::Columns { columns: columns.to_vec() }, &[]).await?;
    }
    channel.send(&answer, &[]).await?;
    Ok(())
}

impl Daemon {
    async fn answer(&self, envelope: Envelope) -> Answer {
        if envelope.version != api::VERSION {
            let text = format!("the daemon speaks version {} of its API: use its own binary", api::VERSION);
            return Answer::Failed { text };
        }
        match envelope.request {
            Request::Status => self.status().await,
            Request::Runs => Answer::Runs { runs: self.runs() },
            Request::Kill { run } => self.kill(run).await,
            Request::Release { run, reason, seconds } => self.release(run, reason, seconds),
            Request::Detach { run, reason } => self.detach(run, &reason),
            Request::ForgetUnit { unit, reason } => self.forget_unit(&unit, &reason),
            Request::Reload => self.reload().await,
            Request::Rescue => self.look_at_rescue().await,
            Request::RescueSaved { text } => self.rescue_saved(text),
            Request::Survey { .. } => {
                Answer::Failed { text: "a look at a database is answered in several messages".to_owned() }
            }
            Request::ForgetLabels { resource, what } => self.forget_labels(&resource, what).await,
        }
    }

    async fn status(&self) -> Answer {
        let rules = self.rules.load();
        let kernel = match self.proxy.origins.maps().counters() {
            Ok(counters) => {
                counters.iter().map(|(counter, count)| (counter.name().to_owned(), count)).collect()
            }
            Err(error) => return Answer::Failed { text: telemetry::chain(&error) },
        };
        let runs = self.proxy.runs.list();
        Answer::Status(api::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            policy: rules.policy.hash().to_owned(),
            resources: rules.inventory.resources.len(),
            runs: runs.len(),
            kept: runs.iter().flat_map(|seen| &seen.keeping).map(|kept| kept.keep.connections.len()).sum(),
            sessions: self.proxy.registry.list().len(),
            kernel,
            synced: self.journal.synced(),
            rescue: rules.rescue.as_ref().map(|rescued| api::RescueStatus {
                rescue: rescued.rescue().clone(),
                lasts: rescued.lasts(),
            }),
            keeper: tokio::time::timeout(BEAT, self.keeper.ping()).await.is_ok_and(|pong| pong.is_ok()),
        })
    }

    fn runs(&self) -> Vec<api::RunStatus> {
        let sessions = self.proxy.registry.list();
        let of = |run: RunId| {
            sessions
                .iter()
                .filter(|session| session.run == run)
                .map(|s| (s.connection, s.resource.clone()))
                .collect()
        };
        let now = now_us();
        let runs = self.proxy.runs.list().into_iter();
        runs.map(|Seen { run, released, keeping }| api::RunStatus {
            run: run.id,
            agent: run.agent.name.clone(),
            guarantee: run.guarantee,
            mode: run.mode,
            started_at: run.started_at,
            released_until: released.map(|released| released.until).filter(|until| now < *until),
            kept: keeping.map(|keeping| api::KeptStatus {
                existing: keeping.keep.existing.to_string(),
                until: keeping.until,
                connections: keeping.keep.connections.iter().map(ToString::to_string).collect(),
            }),
            command: run.claims.get("command").cloned().unwrap_or_default(),
            sessions: of(run.id),
        })
        .collect()
    }

    /// Says something to the helper; whether it could be said.
    pub(super) async fn tell_helper(&self, message: FromProxy) -> bool {
        let said = self.helper.send(&message, &[]).await;
        said.inspect_err(|error| tracing::error!("the helper could not be told: {error}")).is_ok()
    }

    pub(super) async fn kill(&self, run: RunId) -> Answer {
        let Some(live) = self.proxy.runs.find(run) else { return no_such(run) };
        self.proxy.event(Some((run, &live.agent.name)), EventKind::RunKilled, "by an operator");
        self.proxy.registry.end_run(run, &Ending::Killed);
        match self.helper.send(&FromProxy::Kill { run }, &[]).await {
            Ok(()) => Answer::Done { text: format!("killed run {run}") },
            Err(error) => Answer::Failed { text: telemetry::chain(&error) },
        }
    }

    fn release(&self, run: RunId, reason: String, seconds: u64) -> Answer {
        let Some(live) = self.proxy.runs.find(run) else { return no_such(run) };
        if !(1..=86_400).contains(&seconds) || reason.trim().is_empty() {
            return Answer::Failed { text: "a release needs a reason and at most 24 hours".to_owned() };
        }
        let until = now_us().saturating_add(i64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000));
        let text = format!("relayed uninspected for {seconds} s: {reason}");
        if !self.proxy.event(Some((run, &live.agent.name)), EventKind::Released, text) {
            return Answer::Failed {
                text: "nothing was released: it could not be recorded; see `interceptor status`".to_owned(),
            };
        }
        self.let_go(run, live.agent.name.clone(), Released { until, reason });
        Answer::Done {
            text: format!("run {run} is relayed uninspected for {seconds} seconds; this is recorded"),
        }
    }

    /// A release is in force, and is said to be over when it is.
    fn let_go(&self, run: RunId, agent: AgentName, released: Released) {
        let left = u64::try_from(released.until.saturating_sub(now_us())).unwrap_or(0);
        self.proxy.runs.release(run, released);
        let proxy = self.proxy.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_micros(left)).await;
            if proxy.runs.released(run, now_us()).is_none() && proxy.runs.capture_again(run) {
                proxy.event(Some((run, &agent)), EventKind::ReleaseEnded, "captured again");
            }
        });
    }

    /// Records what was let go of while no daemon was there; whether it could be. Where that lasts, the kernel side lets
    /// connections out, and tells of each.
    pub(super) fn noted(&self, note: &Note) -> bool {
        let seconds = note.until.saturating_sub(note.at) / 1_000_000;
        let text = format!(
            "let go of by the kernel side while no daemon was there, for {seconds} s from {}, as noted by {}: {}",
            jiff::Timestamp::from_microsecond(note.at)
                .map_or_else(|_| note.at.to_string(), |at| at.to_string()),
            note.by,
            note.reason
        );
        let is_recorded = self.proxy.event(Some((note.run, &note.agent)), EventKind::Released, text);
        if is_recorded && now_us() < note.until && self.proxy.runs.find(note.run).is_some() {
            let released = Released { until: note.until, reason: note.reason.clone() };
            self.let_go(note.run, note.agent.clone(), released);
        }
        is_recorded
    }

    fn detach(&self, run: RunId, reason: &str) -> Answer {
        let Some(live) = self.proxy.runs.find(run) else { return no_such(run) };
        if reason.trim().is_empty() {
            return Answer::Failed { text: "detaching needs a reason".to_owned() };
        }
        let text = format!("detached, no longer captured: {reason}");
        if self.proxy.event(Some((run, &live.agent.name)), EventKind::Released, text) {
            Answer::Done { text: format!("detached run {run}; this is recorded") }
        } else {
            Answer::Failed {
                text: "nothing was detached: it could not be recorded; see `interceptor status`".to_owned(),
            }
        }
    }

    fn forget_unit(&self, unit: &str, reason: &str) -> Answer {
        if reason.trim().is_empty() {
            return Answer::Failed { text: "detaching needs a reason".to_owned() };
        }
        let text = format!("{unit} is captured no more when it starts: {reason}");
        if self.proxy.event(None, EventKind::Released, text) {
            Answer::Done { text: format!("{unit} is not captured when it starts again; this is recorded") }
        } else {
            Answer::Failed {
                text: "nothing was changed: it could not be recorded; see `interceptor status`".to_owned(),
            }
        }
    }

    async fn reload(&self) -> Answer {
        // One at a time, or the keeper and the rules here could end at different editions.
        let _alone = self.reloading.lock().await;
        let loaded = match Basis::now(&self.places) {
            Ok(basis @ Basis::Configured) => basis.rules(&self.places),
            Ok(Basis::Saved(begun, _)) => {
                let id = begun.rescue.id;
                let text = format!(
                    "nothing was changed: rescue {id} lasts, and the policy folder is not in force; \
                     `interceptor rescue end` puts it in force"
                );
                return Answer::Failed { text };
            }
            Err(error) => Err(error.into()),
        };
        let rules = match loaded {
            Ok(rules) => rules,
            Err(error) => {
                let text = telemetry::chain(&error);
                self.proxy.event(None, EventKind::PolicyRefused, format!("the one in force stays: {text}"));
                return Answer::Failed { text: format!("nothing was changed:\n{text}") };
            }
        };
        match self.put_in_force(rules).await {
            Ok(hash) => Answer::Done { text: format!("policy {hash} is in force") },
            Err(text) => Answer::Failed { text: format!("nothing was changed: {text}") },
        }
    }

    /// These rules are in force from now on, here and at the keeper, and open sessions are judged by them; the hash of
    /// their policy. To be called with `reloading` held.
    pub(super) async fn put_in_force(&self, rules: Rules) -> Result<String, String> {
        self.keeper.reload().await.map_err(|error| telemetry::chain(&error))?;
        let hash = rules.policy.hash().to_owned();
        let before = self.rules.swap(Arc::new(rules));
        self.proxy.dialler.forget();
        self.proxy.event(None, EventKind::PolicyLoaded, format!("policy {hash}"));
        self.proxy.judge_again(&before);
        self.void_approvals().await;
        Ok(hash)
    }

    /// What was asked under another policy than the one in force means nothing any more.
    pub(super) async fn void_approvals(&self) {
        let policy = self.rules.load().policy.hash().to_owned();
        match self.proxy.gate.approvals().void(&policy).await {
            Ok(0) => {}
            Ok(count) => {
                self.proxy.event(
                    None,
                    EventKind::Voided,
                    format!("approvals that are void by policy {policy}: {count}"),
                );
            }
            // They do not fit anything under this policy: what is approved has the policy's hash in it.
            Err(error) => tracing::error!("approvals were not voided: {error}"),
        }
    }
}

fn no_such(run: RunId) -> Answer {
    Answer::Failed { text: format!("there is no live run {run}: `interceptor ps` lists them") }
}
