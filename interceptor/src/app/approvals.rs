//! The daemon towards approvers: who they are, what they may see, and what becomes of what they say.
//!
//! Promises: a decision is that of a person of people.toml in a log-in session of theirs, whatever user they have
//! become; it is recorded before it counts; what it is enough for is not said here, since policy says it at the gate.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use interceptor_core::{
    approval::{self, About, Card, Decision, Says, Shown, Standing, State, Uses},
    inventory::{Inventory, Person},
    model::{ApprovalId, EventKind, EventRecord},
};

use super::{ahead::Place, proxy::Daemon};
use crate::{
    approval::ApprovalError,
    channel::{self, Channel},
    config::LocalApproval,
    control::{
        api::{self, Envelope},
        approvals::{Answer, Request},
        caller::{Caller, Stranger},
    },
    gate::{Uncovered, now_us},
    telemetry,
};

/// How long a watcher waits for news.
const WATCHED: Duration = Duration::from_secs(30);
/// How long a caller may take to ask.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many callers are listened to at once.
const CALLERS: usize = 64;

/// Answers approvers, for ever.
pub(super) async fn serve(daemon: Arc<Daemon>, socket: OwnedFd) {
    let listener = match channel::watch(socket) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("the approvers' socket cannot be served: {error}"),
    };
    let room = Arc::new(tokio::sync::Semaphore::new(CALLERS));
    loop {
        let Ok(mut guard) = listener.readable().await else { return };
        match channel::accept(listener.get_ref().as_fd()) {
            Ok(Some(socket)) => {
                // Whoever comes when all are busy is let go: anybody may come.
                let Ok(place) = room.clone().try_acquire_owned() else { continue };
                let daemon = daemon.clone();
                tokio::spawn(async move {
                    let _place = place;
                    if let Err(error) = converse(&daemon, socket).await {
                        tracing::debug!("an approver's connection ended: {error:#}");
                    }
                });
            }
            Ok(None) => guard.clear_ready(),
            Err(error) => {
                tracing::warn!("the approvers' socket: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(daemon: &Daemon, socket: OwnedFd) -> anyhow::Result<()> {
    let channel = Channel::<Answer, Envelope<Request>>::from_socket(socket).into_async()?;
    let (envelope, sender) = tokio::time::timeout(PATIENCE, channel.receive_signed()).await??;
    let answer = match Caller::identify(channel.as_fd(), sender) {
        Ok(caller) => daemon.approver(&caller, envelope).await,
        Err(stranger) => {
            daemon.turned_away(&stranger);
            Answer::Failed { text: telemetry::chain(&stranger) }
        }
    };
    channel.send(&answer, &[]).await?;
    Ok(())
}

pub(super) fn failed(error: &ApprovalError) -> Answer {
    Answer::Failed { text: error.to_string() }
}

impl Daemon {
    fn turned_away(&self, stranger: &Stranger) {
        if matches!(stranger, Stranger::Captured | Stranger::Passed) {
            // Somebody tries. Whoever cannot be named is in no run's account.
            tracing::warn!("an approver was turned away: {stranger}");
        }
    }

    async fn approver(&self, caller: &Caller, envelope: Envelope<Request>) -> Answer {
        if envelope.version != api::VERSION {
            let text = format!("the daemon speaks version {} of its API: use its own binary", api::VERSION);
            return Answer::Failed { text };
        }
        let rules = self.rules.load_full();
        let person = caller.decides().and_then(|uid| rules.inventory.by_uid(uid));
        if person.is_none() && caller.uid != 0 {
            return Answer::Failed { text: nobody(caller, &rules.inventory) };
        }
        match envelope.request {
            Request::List => self.all().await,
            Request::Watch { seen } => {
                let mut changes = self.proxy.gate.approvals().changes();
                let _ = tokio::time::timeout(WATCHED, changes.wait_for(|count| *count != seen)).await;
                self.all().await
            }
            Request::Show { id } => match self.proxy.gate.approvals().show(id).await {
                Ok(shown) => Answer::Approval(Box::new(self.uncovered(caller, person, shown))),
                Err(error) => failed(&error),
            },
            Request::Images { record, from } => self.images(record, from).await,
            Request::Undo { record } => match (person, self.local_approval) {
                (_, LocalApproval::Off) => Answer::Failed { text: OFF.to_owned() },
                (None, LocalApproval::On) => Answer::Failed { text: nobody(caller, &rules.inventory) },
                (Some(person), LocalApproval::On) => self.undo(caller, person, record).await,
            },
            Request::Vouch { run, said } => match (person, self.local_approval) {
                (_, LocalApproval::Off) => Answer::Failed { text: OFF.to_owned() },
                (None, LocalApproval::On) => Answer::Failed { text: nobody(caller, &rules.inventory) },
                (Some(person), LocalApproval::On) => self.vouch(caller, person, run, said),
            },
            Request::Decide { id, group, says } => match (person, self.local_approval) {
                (_, LocalApproval::Off) => Answer::Failed { text: OFF.to_owned() },
                (None, LocalApproval::On) => Answer::Failed { text: nobody(caller, &rules.inventory) },
                (Some(person), LocalApproval::On) => {
                    self.decide(caller, person, id, group.as_deref(), says).await
                }
            },
            Request::Ask { run, resource, database, text } => {
                self.ask(caller, Place { run, resource, database }, &text).await
            }
            Request::BreakGlass { resource, reason, seconds } => {
                self.break_glass(caller, person, resource, reason, seconds).await
            }
            Request::Mend { resource } => self.mend(caller, person, &resource).await,
            Request::Review { id, note } => match person {
                Some(person) => self.review(person, id, note).await,
                None => Answer::Failed { text: nobody(caller, &rules.inventory) },
            },
        }
    }

    async fn all(&self) -> Answer {
        let approvals = self.proxy.gate.approvals();
        let seen = *approvals.changes().borrow();
        match (approvals.list().await, approvals.pending_glass().await) {
            (Ok(approvals), Ok(glass)) => Answer::List { seen, approvals, glass },
            (Err(error), _) | (_, Err(error)) => failed(&error),
        }
    }

    /// A request as `person` may see it. That they were shown what labels hide is recorded first.
    fn uncovered(&self, caller: &Caller, person: Option<&Person>, shown: Shown) -> Shown {
        let (id, card) = (shown.standing.id, &shown.standing.card);
        let rules = self.rules.load();
        let found = person.and_then(|person| Some((person, self.proxy.gate.uncovered(&rules, person, id)?)));
        let Some((person, found)) = found else { return shown };
        let text = format!(
            "approval {id}: {} (uid {}, session {}) was shown the values that these labels hide: {}",
            person.name,
            person.uid,
            caller.session,
            found.labels.join(", ")
        );
        if !self.proxy.event(Some((card.run, &card.agent.name)), EventKind::Uncovered, text) {
            return shown;
        }
        let Uncovered { statements, process, labels: uncovered } = found;
        let card = Card { statements, process, ..shown.standing.card };
        Shown { uncovered, standing: Standing { card, ..shown.standing }, ..shown }
    }

    async fn decide(
        &self,
        caller: &Caller,
        person: &Person,
        id: ApprovalId,
        group: Option<&str>,
        says: Says,
    ) -> Answer {
        let approvals = self.proxy.gate.approvals();
        let standing = match approvals.look(id).await {
            Ok(standing) => standing,
            Err(error) => return failed(&error),
        };
        if standing.state != State::Open {
            return Answer::Failed {
                text: format!("approval {id} is {}: nothing was changed", standing.state),
            };
        }
        let group = match approval::weigh(person, &standing.card, group, &says) {
            Ok(group) => group,
            Err(error) => return Answer::Failed { text: error.to_string() },
        };
        let text = format!(
            "approval {id}: {} (uid {}, session {}) for {group}: {}",
            person.name,
            person.uid,
            caller.session,
            told(&says)
        );
        let event = EventRecord {
            at: now_us(),
            run: Some(standing.card.run),
            agent: Some(standing.card.agent.name.clone()),
            kind: EventKind::Decided,
            text: text.clone(),
            attempt: None,
        };
        if let Err(error) = self.proxy.gate.producer().append_event(&event) {
            return Answer::Failed {
                text: format!("nothing was decided: it could not be recorded ({error})"),
            };
        }
        let decision = Decision { person: person.name.clone(), group, says: says.clone(), at: now_us() };
        match approvals.decide(id, decision).await {
            Ok(standing) if standing.card.about == About::Flood => {
                let standing = self.flood_decided(&standing, &says).await;
                Answer::Decided { text, approval: Box::new(standing) }
            }
            Ok(standing) => Answer::Decided { text, approval: Box::new(standing) },
            Err(error) => failed(&error),
        }
    }
}

/// What was said, for the record.
fn told(says: &Says) -> String {
    match says {
        Says::Approve { uses: Uses::Once, seconds } => format!("approved, once, within {seconds} s"),
        Says::Approve { uses: Uses::Any, seconds } => format!("approved for {seconds} s"),
        Says::Approve { uses: Uses::Shape { rows }, seconds } => {
            format!("approved all of its shape for {seconds} s, at most {rows} rows each")
        }
        Says::Deny { reason, .. } => format!("denied: {}", approval::words(reason)),
    }
}

const OFF: &str = "approving on this host is off, as it is where CI jobs run: approve elsewhere, or set \
                   `local-approval = \"on\"` in interceptor.toml and start the daemon again";

/// Why this process is nobody who may decide.
fn nobody(caller: &Caller, inventory: &Inventory) -> String {
    match caller.login {
        None => "only a person may decide, from a log-in session of theirs (ssh or console, not a service): \
                 root alone is nobody"
            .to_owned(),
        Some(login) if caller.decides().is_none() => {
            format!("uid {} in a session of uid {login} is nobody who may decide", caller.uid)
        }
        Some(login) if inventory.people.is_empty() => {
            format!("people.toml lists nobody, so that uid {login} may not decide: add `[person.NAME]` there")
        }
        Some(login) => format!("people.toml knows nobody with uid {login}: add them there"),
    }
}
