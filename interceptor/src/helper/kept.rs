//! Connections that processes had before they were captured, and that root lets go on for a while.
//!
//! Promises: the record says which they are before the processes go on; the kernel side has their end before they do; when their
//! time is over they are reset, and where no daemon is there to do so, nothing of theirs is sent any more. What ends by itself is
//! told of. A new daemon goes on where the last one was.

use std::{
    fmt, io,
    net::SocketAddr,
    path::Path,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use interceptor_core::model::RunId;
use serde::{Deserialize, Serialize};

use super::{
    Foreign,
    described::Described,
    messages::{LaunchAnswer, ToProxy},
    runs::network_of,
    supervisor::{Event, Reply, Supervisor, answer},
};
use crate::{launch::attach::Diag, telemetry};

/// The longest time that connections from before may go on, in seconds: as long as a release.
const LONGEST: u64 = 86_400;
/// How many connections of one run may go on. Each is told of by itself.
pub const MOST_KEPT: usize = 256;
/// How often they are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// By how much the kernel side's time is longer: what the daemon resets says so to its peer.
const GRACE: Duration = Duration::from_secs(1);

/// What becomes of the connections that processes have when they are captured. Everything else that they have is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Existing {
    /// They are reset: nothing goes on uninspected.
    Reset,
    /// They may go on for so many seconds, to come to their end.
    Drain(u64),
    /// They may go on until they end by themselves, but for no longer than a day.
    KeepObserved,
}

impl Existing {
    /// For how long connections may go on.
    pub fn time(self) -> Duration {
        Duration::from_secs(match self {
            Self::Reset => 0,
            Self::Drain(seconds) => seconds.min(LONGEST),
            Self::KeepObserved => LONGEST,
        })
    }
}

impl fmt::Display for Existing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset => f.write_str("reset"),
            Self::Drain(seconds) => write!(f, "drain={seconds}s"),
            Self::KeepObserved => f.write_str("keep-observed"),
        }
    }
}

/// A text that is no [`Existing`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write `reset`, `drain=60s` (from 1s to 24h), or `keep-observed`")]
pub struct NotExisting;

impl FromStr for Existing {
    type Err = NotExisting;

    fn from_str(text: &str) -> Result<Self, NotExisting> {
        match (text, text.strip_prefix("drain=")) {
            ("reset", _) => Ok(Self::Reset),
            ("keep-observed", _) => Ok(Self::KeepObserved),
            (_, Some(time)) => {
                let time: jiff::SignedDuration = time.parse().map_err(|_| NotExisting)?;
                let seconds = u64::try_from(time.as_secs()).map_err(|_| NotExisting)?;
                if (1..=LONGEST).contains(&seconds) { Ok(Self::Drain(seconds)) } else { Err(NotExisting) }
            }
            (_, None) => Err(NotExisting),
        }
    }
}

/// A connection from before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    /// Its own end.
    pub own: SocketAddr,
    /// The other.
    pub peer: SocketAddr,
    /// The interface that it is bound to, or 0.
    pub interface: u32,
    /// The kernel's number for its socket, which no other ever gets.
    pub cookie: u64,
    /// A process that has it.
    pub process: u32,
    /// That one's name.
    pub name: String,
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { own, peer, process, name, .. } = self;
        write!(f, "TCP from {own} to {peer}, of process {process} ({name})")
    }
}

/// Connections that a launcher wants to go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// For how long.
    pub existing: Existing,
    /// Why.
    pub reason: String,
    /// Which.
    pub connections: Vec<Connection>,
}

/// Connections that go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keeping {
    /// What root chose, and why; those that are there still.
    pub keep: Keep,
    /// Until when at most, in microseconds of the Unix epoch.
    pub until: i64,
}

/// How a connection from before ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// By itself.
    Closed,
    /// Its time was over.
    Reset,
}

/// A launcher that waits until the record has what it keeps.
pub(super) struct Waiting {
    keeping: Keeping,
    reply: Reply,
    since: Instant,
}

impl Supervisor {
    /// A launcher says that its run holds: it stays captured, once the record has what goes on.
    pub(super) fn hold(&mut self, run: RunId, keep: Option<Keep>, reply: Reply) {
        let Some(keep) = keep else { return self.settle(run, None, reply) };
        let refused = match &keep {
            _ if !self.is_up() => Some("the daemon's proxy is starting again: try once more in a moment"),
            Keep { existing: Existing::Reset, .. } => Some("what is reset does not go on"),
            Keep { reason, .. } if reason.trim().is_empty() => Some("what goes on needs a reason"),
            Keep { connections, .. } if !(1..=MOST_KEPT).contains(&connections.len()) => {
                Some("none, or too many, connections are to go on")
            }
            _ => None,
        };
        if let Some(text) = refused {
            return answer(reply, LaunchAnswer::Refused { text: text.to_owned() });
        }
        let time = i64::try_from(keep.existing.time().as_micros()).unwrap_or(0);
        let until = jiff::Timestamp::now().as_microsecond().saturating_add(time);
        let keeping = Keeping { keep, until };
        self.tell(ToProxy::Keep { run, keeping: keeping.clone() }, Vec::new());
        self.waiting.insert(run, Waiting { keeping, reply, since: Instant::now() });
    }

    /// The record has what a run keeps: it goes on.
    pub(super) fn keep_recorded(&mut self, run: RunId) {
        let Some(Waiting { keeping, reply, .. }) = self.waiting.remove(&run) else { return };
        match self.keep(run, &keeping.keep) {
            Ok(()) => self.settle(run, Some(keeping), reply),
            Err(error) => {
                let text = format!("nothing goes on: {}", telemetry::chain(error.as_ref()));
                answer(reply, LaunchAnswer::Refused { text });
            }
        }
    }

    /// Turns launchers away that wait for a proxy which does not answer, or is gone.
    pub(super) fn give_up_waiting(&mut self, is_late: impl Fn(Duration) -> bool) {
        let late = |waiting: &Waiting| is_late(waiting.since.elapsed());
        let runs: Vec<RunId> =
            self.waiting.iter().filter(|(_, waiting)| late(waiting)).map(|(run, _)| *run).collect();
        for Waiting { reply, .. } in runs.iter().filter_map(|run| self.waiting.remove(run)) {
            let text = "what is to go on could not be recorded: see `interceptor status`".to_owned();
            answer(reply, LaunchAnswer::Refused { text });
        }
    }

    fn keep(&self, run: RunId, keep: &Keep) -> Result<(), Foreign> {
        self.capture.keep(run, &cookies(&keep.connections), keep.existing.time() + GRACE)
    }

    /// Goes on with what an earlier daemon let go on. What the kernel side knows no time of is over.
    pub(super) fn keep_on(&mut self, run: RunId, keeping: &Keeping, directory: &Path) {
        if self.capture.kept_for(run).is_none() {
            let over = self.capture.keep(run, &cookies(&keeping.keep.connections), Duration::ZERO);
            if let Err(error) = over {
                tracing::error!(%run, %error, "connections from before cannot be held any more");
            }
        }
        if let Err(error) = self.watch_kept(run, keeping.keep.connections.clone(), directory) {
            // The kernel side ends them all the same.
            tracing::error!(%run, %error, "connections from before cannot be looked at");
        }
    }

    /// Looks after what goes on, until all of it has ended.
    pub(super) fn watch_kept(
        &mut self,
        run: RunId,
        connections: Vec<Connection>,
        directory: &Path,
    ) -> io::Result<()> {
        let diag = Arc::new(Diag::open(&network_of(directory)?)?);
        let (events, capture) = (self.events.clone(), Arc::clone(&self.capture));
        let task = tokio::spawn(async move {
            let mut left = connections;
            while !left.is_empty() {
                tokio::time::sleep(LOOK).await;
                // The run is over, or was let go of.
                let Some(time) = capture.kept_for(run) else { return };
                let (diag, looked_at) = (Arc::clone(&diag), std::mem::take(&mut left));
                let looked = tokio::task::spawn_blocking(move || look(&diag, looked_at, time));
                let Ok(looked) = looked.await else { return };
                left = looked.left;
                for (gone, fate) in [(looked.closed, Fate::Closed), (looked.reset, Fate::Reset)] {
                    if !gone.is_empty() && events.send(Event::KeptEnded(run, gone, fate)).await.is_err() {
                        return;
                    }
                }
            }
        });
        if let Some(before) = self.kept_watches.insert(run, task.abort_handle()) {
            before.abort();
        }
        Ok(())
    }

    /// Connections from before have ended.
    pub(super) fn end_kept(&mut self, run: RunId, gone: Vec<Connection>, fate: Fate) {
        if !self.runs.contains_key(&run) {
            return;
        }
        if let Err(error) = self.capture.unkeep(run, &gone) {
            tracing::error!(%run, "the kernel side: {}", telemetry::chain(error.as_ref()));
        }
        if let Some(mut described) = Described::find(&self.places, run) {
            described.keeping = described.keeping.and_then(|mut keeping| {
                keeping.keep.connections.retain(|one| !gone.contains(one));
                (!keeping.keep.connections.is_empty()).then_some(keeping)
            });
            if let Err(error) = described.write(&self.places) {
                tracing::error!(%run, %error, "what a run keeps could not be written down");
            }
        }
        self.tell(ToProxy::KeptEnded { run, gone, fate }, Vec::new());
    }

    /// Forgets what a run keeps: the run is over, or let go of.
    pub(super) fn forget_kept(&mut self, run: RunId) {
        if let Some(watch) = self.kept_watches.remove(&run) {
            watch.abort();
        }
        let keeping = Described::find(&self.places, run).and_then(|described| described.keeping);
        if let Some(Keeping { keep, .. }) = keeping
            && let Err(error) = self.capture.unkeep(run, &keep.connections)
        {
            tracing::error!(%run, "the kernel side: {}", telemetry::chain(error.as_ref()));
        }
        if let Some(Waiting { reply, .. }) = self.waiting.remove(&run) {
            answer(reply, LaunchAnswer::Refused { text: "the run is over already".to_owned() });
        }
    }
}

/// What became of connections since they were last looked at.
#[derive(Default)]
struct Looked {
    left: Vec<Connection>,
    closed: Vec<Connection>,
    reset: Vec<Connection>,
}

/// Looks at each, and resets it if its time is over but for the kernel side's grace.
fn look(diag: &Diag, connections: Vec<Connection>, time: Duration) -> Looked {
    let mut looked = Looked::default();
    for connection in connections {
        match diag.has(&connection) {
            Ok(false) => looked.closed.push(connection),
            Ok(true) if time > GRACE => looked.left.push(connection),
            Ok(true) => match diag.reset(&connection) {
                Ok(()) => looked.reset.push(connection),
                Err(error) => {
                    tracing::error!(%error, "{connection}: it could not be reset, and is held by the kernel side alone");
                    looked.left.push(connection);
                }
            },
            Err(error) => {
                tracing::warn!(%error, "{connection}: it could not be looked at");
                looked.left.push(connection);
            }
        }
    }
    looked
}

/// The kernel's numbers for the sockets of connections.
pub fn cookies(connections: &[Connection]) -> Vec<u64> {
    connections.iter().map(|connection| connection.cookie).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_one_of_three() {
        for (text, choice) in [
            ("reset", Existing::Reset),
            ("drain=60s", Existing::Drain(60)),
            ("drain=2m", Existing::Drain(120)),
            ("keep-observed", Existing::KeepObserved),
        ] {
            assert_eq!(text.parse(), Ok(choice));
        }
        for wrong in ["", "drain", "drain=", "drain=0s", "drain=-5s", "drain=25h", "drain=x", "keep", "Reset"]
        {
            assert_eq!(wrong.parse::<Existing>(), Err(NotExisting), "{wrong}");
        }
        assert_eq!(Existing::Drain(120).to_string().parse(), Ok(Existing::Drain(120)));
        assert_eq!(Existing::KeepObserved.time(), Duration::from_secs(86_400));
    }
}
