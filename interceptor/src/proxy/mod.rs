//! From an accepted connection to its end: origin, destination, session, relay.
//!
//! A connection whose origin the kernel side does not know is rejected; one that goes nowhere we know is refused
//! and recorded; everything else meets the gate. The proxy holds no secret but what must go out in clear, and
//! knows the kernel only through what it remembers of a flow.

mod absent;
mod ahead;
mod budget;
mod carried;
mod catalogues;
#[cfg(test)]
mod cost_tests;
pub mod destination;
pub mod dial;
mod engine;
mod estimate;
mod flood;
mod leg;
mod listen;
mod names;
mod opaque;
mod origin;
mod own;
mod patient;
mod ported;
pub mod registry;
mod relay;
mod restore;
mod runs;
mod seats;
mod session;
pub mod stream;
mod survey;
mod turns;
mod wheel;
mod workers;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use interceptor_common::Counter;
use interceptor_core::{
    model::{AgentName, Attempt, Connection, ConnectionId, EventKind, EventRecord, RunId},
    protocol::DecodeError,
};

pub use ahead::{NotAsked, ask};
pub use carried::Carried;
pub use catalogues::Catalogues;
pub use flood::Flood;
pub use listen::{Listeners, serve};
pub use origin::Origins;
pub use ported::{MOST_WANTING, Wanting};
pub use restore::{NotRestored, Restoring};
pub use runs::{Released, Runs, Seen, observed};
pub use seats::Seats;
pub use survey::{Surveyed, Surveying};
pub use workers::Workers;

use self::{dial::Dialler, flood::Told, registry::Registry};
use crate::{
    gate::{PolicyGate, Rules, now_us},
    kernel::{
        KernelEvent, Occurrence,
        refusal::{Code, protocol_name},
    },
    store::JournalError,
    tls::server::Terminator,
};

/// What all connections share.
pub struct Proxy {
    /// Judges and records.
    pub gate: Arc<PolicyGate>,
    /// Knows where connections came from.
    pub origins: Origins,
    /// TLS towards agents.
    pub client_tls: Terminator,
    /// The way upstream.
    pub dialler: Dialler,
    /// What the sessions to a resource share of its catalogue.
    pub catalogues: Catalogues,
    /// Open sessions.
    pub registry: Arc<Registry>,
    /// Live runs.
    pub runs: Runs,
    /// Holds back events that come too fast.
    pub flood: Flood,
    /// How many connections there may be at once.
    pub seats: Seats,
    /// What names may carry out of the host.
    pub carried: Carried,
    /// The next connection's number.
    pub next_connection: AtomicU64,
}

impl Proxy {
    /// A number for a new connection.
    fn number(&self) -> ConnectionId {
        ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed))
    }

    /// Records something that is no exchange; whether it could be.
    pub fn event(&self, run: Option<(RunId, &AgentName)>, kind: EventKind, text: impl Into<String>) -> bool {
        self.write(run, kind, text.into(), None)
    }

    /// Records what a process tried, and was refused by what has no words for it.
    fn attempted(&self, run: Option<(RunId, &AgentName)>, process: u32, what: &str, code: Code) {
        let kind = match code {
            Code::Probe(_) => EventKind::Probe,
            Code::Refused(_) => EventKind::Kernel,
        };
        let text = format!("process {process}: {what} ({})", code.name());
        self.write(run, kind, text, Some(Attempt { process, code: code.name().to_owned() }));
    }

    fn write(
        &self,
        run: Option<(RunId, &AgentName)>,
        kind: EventKind,
        text: String,
        attempt: Option<Attempt>,
    ) -> bool {
        let (run, agent) = (run.map(|(run, _)| run), run.map(|(_, agent)| agent.clone()));
        let event = EventRecord { at: now_us(), run, agent, kind, text, attempt };
        match self.gate.producer().append_event(&event) {
            Ok(_) => true,
            // A run that makes noise beyond its share fills neither the store nor the log.
            Err(error @ JournalError::Quota { .. }) => {
                tracing::debug!(?kind, "an event was not recorded: {error}");
                false
            }
            Err(error) => {
                tracing::error!(?kind, "an event could not be recorded: {error}");
                false
            }
        }
    }

    /// Records what the kernel side saw besides processes.
    pub fn record(&self, events: Vec<KernelEvent>) {
        for event in events {
            let run = event.run.and_then(|run| self.runs.find(run));
            let of = run.as_deref().map(|run| (run.id, &run.agent.name));
            let can_flood = match event.what {
                Occurrence::Internal { .. } | Occurrence::Refused(_) | Occurrence::Released { .. } => true,
                Occurrence::Fork { .. } | Occurrence::Exec { .. } | Occurrence::Exit => false,
            };
            if can_flood && !self.told_enough(event.run, of) {
                continue;
            }
            let pid = event.process.pid;
            match event.what {
                Occurrence::Internal { destination, .. } => {
                    let text = format!("process {pid} connected to the run's own listener at {destination}");
                    self.event(of, EventKind::Internal, text);
                }
                Occurrence::Refused(refused) => self.attempted(of, pid, &refused.in_words(), refused.code()),
                Occurrence::Released { destination, protocol } => {
                    let to = destination.map_or("somewhere".to_owned(), |to| to.to_string());
                    let name = protocol_name(protocol);
                    let text = format!("process {pid}: {name} to {to} went out as it was, uninspected");
                    self.event(of, EventKind::Released, text);
                }
                Occurrence::Fork { .. } | Occurrence::Exec { .. } | Occurrence::Exit => {}
            }
        }
    }

    /// Records that a process wanted to reach a Unix socket that is not its run's own, and was not served.
    pub fn turned_away(&self, run: RunId, process: u32, path: &str) {
        let Some(live) = self.runs.find(run) else { return };
        let of = Some((live.id, &live.agent.name));
        if self.told_enough(Some(run), of) {
            let what = match self.gate.rules().inventory.by_socket(path) {
                Some(resource) => {
                    format!("Unix socket {path:?} of `{}`, which was not served", resource.name)
                }
                None => {
                    let hint = destination::sockets_hint();
                    format!("Unix socket {path:?}, which is not the run's own; {hint}")
                }
            };
            self.attempted(of, process, &what, Code::Refused(Counter::RefusedUnix));
        }
    }

    /// Whether one more event of the kernel side's is to be written for a run now: a process that tries in a loop
    /// must not fill the record. What is left out is counted, and the count is written.
    fn told_enough(&self, run: Option<RunId>, of: Option<(RunId, &AgentName)>) -> bool {
        match self.flood.one_more(run, now_us()) {
            Told::Now => true,
            Told::NowAfter(missed) => {
                self.event(of, EventKind::Kernel, format!("{missed} more events of this kind were left out"));
                true
            }
            Told::NotNow => false,
        }
    }

    /// Records that a peer broke its protocol.
    fn broken(&self, connection: &Connection, error: &DecodeError) {
        let text = format!("connection {} to {}: {error}", connection.id, connection.destination);
        self.event(Some((connection.run.id, &connection.run.agent.name)), EventKind::ProtocolError, text);
    }

    /// Records that a connection came to nothing.
    fn refused(&self, connection: &Connection, why: &str) {
        let text = format!("connection {} to {}: {why}", connection.id, connection.destination);
        self.event(Some((connection.run.id, &connection.run.agent.name)), EventKind::ConnectionRefused, text);
    }

    /// Judges every open session by the rules now in force, after `before`, and ends those that they no longer allow
    /// or whose resource is another now.
    pub fn judge_again(&self, before: &Rules) {
        self.registry.judge_again(|subject, opening| self.gate.still_allows(before, subject, opening));
    }
}
