//! The helper's one loop: roles that come and go, launches, and runs from their beginning to their end.
//!
//! Everything that happens is an event, handled one after the other; nothing in here waits for anybody.

use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    path::Path,
    process::Child,
    sync::Arc,
    time::{Duration, Instant},
};

use interceptor_core::model::{Run, RunId};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Semaphore, mpsc},
    task::{AbortHandle, JoinHandle},
};

use super::{
    Capture, HelperError,
    callers::Wanted,
    cgroup::{CgroupError, Tree},
    described,
    executable::Executables,
    failed,
    ground::{self, Accounts},
    held::Held,
    kept::{Connection, Fate, Waiting},
    launches::{self, Answered, Asked},
    listeners::Listeners,
    messages::{Asking, Ended, FromProxy, LaunchAnswer, LaunchFacts, Ports, ToProxy},
    proxy_link::ProxyLink,
    released::Note,
    roles::{self, Handed, Pair, Roles},
    runs::Accepted,
};
use crate::{places::Places, telemetry};

/// Something that the loop has to handle.
#[derive(Debug)]
pub(super) enum Event {
    /// The proxy of this pair says something.
    Proxy(u64, FromProxy),
    /// The keeper of this pair works.
    KeeperUp(u64),
    /// A role of this pair is gone.
    Gone(u64, &'static str, String),
    /// A launcher asks.
    Asked(Asked),
    /// A run is over.
    RunEnded(RunId, Ended),
    /// These processes were moved out of a captured cgroup.
    Left(RunId, Vec<u32>),
    /// A process was moved into a captured cgroup and had sockets from before; what became of them.
    Brought(RunId, String),
    /// Connections of a run from before have ended.
    KeptEnded(RunId, Vec<Connection>, Fate),
    /// A process of a run wanted to reach a Unix socket that is not the run's own.
    TurnedAway { run: RunId, process: u32, path: String },
    /// A process of a run wants to be connected to a Unix socket.
    Wanted(Wanted),
    /// A run wants something of its container engine. Who holds the other end of the descriptor hears whether it may.
    Engine { run: RunId, asking: Asking, descriptors: Vec<OwnedFd> },
}

pub(super) type Reply = tokio::sync::oneshot::Sender<Answered>;

/// How far a run has come.
pub(super) enum Stage {
    /// The proxy is asked whether it may be.
    Requested { facts: LaunchFacts, reply: Reply, since: Instant },
    /// It has a cgroup, and the launcher builds it.
    Begun { run: Run },
    /// The proxy has its listeners, and has not said that it serves them.
    Starting { served: Served, reply: Reply, since: Instant },
    /// It is served.
    Served(Served),
}

/// What is needed to give a run to another proxy.
pub(super) struct Served {
    pub(super) run: Run,
    pub(super) ports: Ports,
    pub(super) listeners: Listeners,
}

/// The roles that run.
struct Roled {
    proxy: Child,
    keeper: Child,
    link: ProxyLink,
    since: Instant,
    proxy_up: bool,
    keeper_up: bool,
}

/// How long a proxy may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long roles may take to finish what they are doing when the daemon stops.
const DRAIN: Duration = Duration::from_secs(10);
/// How long a run's processes may take to go once they are killed.
pub(super) const REMOVAL: Duration = Duration::from_secs(10);
/// How often the kernel side is rid of what nobody will ask for.
const SWEEP: Duration = Duration::from_secs(5);
/// How many questions about executables are worked on.
const HASHING: usize = 256;

pub(super) struct Supervisor {
    pub(super) places: Places,
    pub(super) tree: Tree,
    pub(super) capture: Arc<dyn Capture>,
    roles: Roles,
    accounts: Accounts,
    handed: Handed,
    /// Listeners that outlive this process.
    pub(super) held: Held,
    pub(super) events: mpsc::Sender<Event>,
    arriving: mpsc::Receiver<Event>,
    pair: Option<Roled>,
    /// The number of the pair that runs, or ran last.
    number: u64,
    failures: u32,
    /// Which role was lost, and how, before the daemon ever served.
    first_loss: Option<(&'static str, String)>,
    restart_at: Option<Instant>,
    has_served: bool,
    swept_at: Instant,
    pub(super) runs: BTreeMap<RunId, Stage>,
    /// Launchers that wait until the record has what their runs keep.
    pub(super) waiting: BTreeMap<RunId, Waiting>,
    /// Who looks after what runs keep.
    pub(super) kept_watches: BTreeMap<RunId, AbortHandle>,
    executables: Arc<Executables>,
    hashing: Arc<Semaphore>,
}

impl Supervisor {
    pub(super) fn new(
        places: Places,
        tree: Tree,
        capture: Arc<dyn Capture>,
        (roles, accounts): (Roles, Accounts),
        handed: Handed,
        held: Held,
    ) -> Self {
        let (events, arriving) = mpsc::channel(1024);
        Self {
            places,
            tree,
            capture,
            roles,
            accounts,
            handed,
            held,
            events,
            arriving,
            pair: None,
            number: 0,
            failures: 0,
            first_loss: None,
            restart_at: None,
            has_served: false,
            swept_at: Instant::now(),
            runs: BTreeMap::new(),
            waiting: BTreeMap::new(),
            kept_watches: BTreeMap::new(),
            executables: Arc::default(),
            hashing: Arc::new(Semaphore::new(HASHING)),
        }
    }

    /// Until SIGTERM or SIGINT. `ready` is called once, when the first launch could be served.
    pub(super) async fn serve(mut self, ready: impl FnOnce() -> io::Result<()>) -> Result<(), HelperError> {
        let mut terminate = signal(SignalKind::terminate()).map_err(failed("watch for signals"))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed("watch for signals"))?;
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        let mut ready = Some(ready);
        let mut accepting: Option<JoinHandle<()>> = None;
        self.adopt();
        self.start_pair();
        let ended = loop {
            if !self.has_served && self.failures > 0 {
                break Err(self.first_failure());
            }
            if self.is_up()
                && let Some(ready) = ready.take()
            {
                self.has_served = true;
                let listener = ground::listener(&self.places.launch_socket())?;
                accepting = Some(tokio::spawn(launches::accept(listener, self.events.clone())));
                ready().map_err(failed("say that the daemon is ready"))?;
            }
            tokio::select! {
                Some(event) = self.arriving.recv() => self.handle(event),
                _ = tick.tick() => self.tick(),
                _ = terminate.recv() => break Ok(()),
                _ = interrupt.recv() => break Ok(()),
            }
        };
        if let Some(accepting) = accepting {
            accepting.abort();
        }
        self.stop().await;
        ended
    }

    fn first_failure(&mut self) -> HelperError {
        let (mut role, mut how) = self.first_loss.take().unwrap_or(("keeper or proxy", "ended".to_owned()));
        if let Some(pair) = &mut self.pair {
            for (name, child) in [("keeper", &mut pair.keeper), ("proxy", &mut pair.proxy)] {
                if let Ok(Some(status)) = child.try_wait() {
                    (role, how) = (name, roles::describe(status));
                }
            }
        }
        HelperError::Role { role, how }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Proxy(number, message) if number == self.number => self.hear(message),
            Event::KeeperUp(number) if number == self.number => self.mark_up(|pair| pair.keeper_up = true),
            Event::Gone(number, role, how) if number == self.number => self.lose_pair(role, &how),
            // From a pair that is gone already.
            Event::Proxy(..) | Event::KeeperUp(_) | Event::Gone(..) => {}
            Event::Asked(Asked::Begin(facts, reply)) => self.request(facts, reply),
            Event::Asked(Asked::Namespaces(run, namespace, init, reply)) => {
                if let Err((reply, error)) = self.start_run(run, namespace, init, reply) {
                    tracing::warn!(%run, %error, "a run could not be started");
                    answer(reply, LaunchAnswer::Refused { text: error.to_string() });
                    self.end_run(run, Ended::Processes, "it could not be started");
                }
            }
            Event::Asked(Asked::Settled(run, keep, reply)) => self.hold(run, keep, reply),
            Event::Asked(Asked::Detach(run, reply)) => self.detach(run, reply),
            Event::Asked(Asked::Abandoned(run)) => self.abandon(run),
            Event::RunEnded(run, how) => self.end_run(run, how, "the run ended before it was served"),
            Event::Left(run, processes) => self.report_left(run, &processes),
            Event::Brought(run, text) => self.report_brought(run, text),
            Event::KeptEnded(run, gone, fate) => self.end_kept(run, gone, fate),
            Event::TurnedAway { run, process, path } => {
                if self.runs.contains_key(&run) {
                    self.tell(ToProxy::TurnedAway { run, process, path }, Vec::new());
                }
            }
            Event::Wanted(wanted) => self.introduce(wanted),
            Event::Engine { run, asking, descriptors } => {
                // What is dropped here is refused.
                if self.is_up() && self.runs.contains_key(&run) && descriptors.len() == 1 {
                    self.offer(ToProxy::Engine { run, asking }, descriptors);
                }
            }
        }
    }

    fn hear(&mut self, message: FromProxy) {
        match message {
            FromProxy::Up => self.mark_up(|pair| pair.proxy_up = true),
            FromProxy::Accepted { run, agent, claims, keeps, authority } => {
                if let Some(Stage::Requested { facts, reply, .. }) = self.take_requested(run) {
                    self.accept(run, facts, Accepted { agent, claims, keeps, authority }, reply);
                }
            }
            FromProxy::Refused { run, text } => match self.take_requested(run) {
                Some(Stage::Requested { reply, .. }) => answer(reply, LaunchAnswer::Refused { text }),
                _ if matches!(self.runs.get(&run), Some(Stage::Starting { .. })) => {
                    self.end_run(run, Ended::Processes, &text);
                }
                // A run from before the proxy was started again: it stays, refused everything.
                _ => tracing::error!(%run, text, "the proxy cannot serve a run"),
            },
            FromProxy::Serving { run } => match self.runs.remove(&run) {
                Some(Stage::Starting { served, reply, .. }) => {
                    self.runs.insert(run, Stage::Served(served));
                    answer(reply, LaunchAnswer::Ready);
                }
                Some(other) => drop(self.runs.insert(run, other)),
                None => {}
            },
            FromProxy::Kept { run } => self.keep_recorded(run),
            FromProxy::Executable { ticket, pid, start_time } => self.look_up(ticket, pid, start_time),
            FromProxy::Recorded { run, at } => {
                if let Err(error) = Note::remove(&self.places, run, at) {
                    tracing::error!(%run, %error, "a note of a release stays, and will be recorded again");
                }
            }
            FromProxy::Kill { run } => self.carry_out(run, Tree::kill),
            FromProxy::Freeze { run } => self.carry_out(run, Tree::freeze),
            FromProxy::Thaw { run } => self.carry_out(run, Tree::thaw),
        }
    }

    /// Has what was let go of without a daemon recorded.
    fn tell_notes(&self) {
        let (notes, unread) = Note::all(&self.places);
        for path in unread {
            tracing::error!("{} is no note of a release that could be read: look at it", path.display());
        }
        for note in notes {
            tracing::warn!(run = %note.run, "let go of while no daemon was there, by {}: {}", note.by, note.reason);
            self.tell(ToProxy::Noted { note }, Vec::new());
        }
    }

    fn carry_out(&self, run: RunId, what: fn(&Path) -> Result<(), CgroupError>) {
        let failure = match self.runs.get(&run) {
            Some(stage) => what(&self.directory_of(run, stage)).err().map(|error| error.to_string()),
            None => Some("there is no such run".to_owned()),
        };
        self.tell(ToProxy::Carried { run, failure }, Vec::new());
    }

    /// Only captured processes are the proxy's to know of.
    fn look_up(&self, ticket: u64, pid: u32, start_time: u64) {
        let Some(pair) = &self.pair else { return };
        let Ok(permit) = Arc::clone(&self.hashing).try_acquire_owned() else {
            self.tell(ToProxy::Executable { ticket, found: None }, Vec::new());
            return;
        };
        let (queue, executables) = (pair.link.queue(), Arc::clone(&self.executables));
        tokio::task::spawn_blocking(move || {
            let captured = Tree::is_captured(&pid.to_string()).unwrap_or(false);
            let found = captured.then(|| executables.of(pid, start_time)).flatten();
            // A proxy that does not take answers will be missed elsewhere.
            let _ = queue.try_send((ToProxy::Executable { ticket, found }, Vec::new()));
            drop(permit);
        });
    }

    pub(super) fn is_up(&self) -> bool {
        self.pair.as_ref().is_some_and(|pair| pair.proxy_up && pair.keeper_up)
    }

    fn mark_up(&mut self, mark: impl FnOnce(&mut Roled)) {
        let was_up = self.is_up();
        if let Some(pair) = &mut self.pair {
            mark(pair);
        }
        if self.is_up() && !was_up {
            tracing::info!("proxy and keeper serve");
            self.set_denial(false);
            self.tell_notes();
        }
    }

    fn set_denial(&self, deny: bool) {
        if let Err(error) = self.capture.deny_all(deny) {
            tracing::error!(%error, deny, "the kernel side did not take the setting");
        }
    }

    /// Starts both roles and gives them every run that is served.
    fn start_pair(&mut self) {
        self.restart_at = None;
        self.number += 1;
        let started = Pair::start(&self.roles, self.accounts, &self.handed).and_then(|pair| {
            let Pair { proxy, keeper, to_proxy, to_keeper } = pair;
            match ProxyLink::open(self.number, to_proxy, to_keeper, &self.events) {
                Ok(link) => Ok(Roled {
                    proxy,
                    keeper,
                    link,
                    since: Instant::now(),
                    proxy_up: false,
                    keeper_up: false,
                }),
                Err(error) => {
                    roles::end(proxy);
                    roles::end(keeper);
                    Err(error)
                }
            }
        });
        match started {
            Ok(pair) => self.pair = Some(pair),
            Err(error) => return self.lose_pair("pair of roles", &format!("does not start: {error}")),
        }
        for stage in self.runs.values() {
            if let Stage::Served(served) = stage
                && let Err(error) = self.hand_out(served)
            {
                tracing::error!(run = %served.run.id, %error, "a run could not be handed to the new proxy");
            }
        }
    }

    /// Refuses everything, ends the other role too, and plans the next start.
    fn lose_pair(&mut self, role: &'static str, how: &str) {
        tracing::error!(role, how, "a role is gone: everything is refused until it is back");
        self.set_denial(true);
        let lived = self.pair.as_ref().map_or(Duration::ZERO, |pair| pair.since.elapsed());
        self.failures = if lived > Duration::from_secs(30) { 1 } else { self.failures.saturating_add(1) };
        if !self.has_served {
            // The first start fails as a whole; how a role ended is told from its status.
            std::thread::sleep(Duration::from_millis(50));
            self.first_loss = Some((role, how.to_owned()));
            return;
        }
        if let Some(pair) = self.pair.take() {
            roles::end(pair.proxy);
            roles::end(pair.keeper);
        }
        self.give_up_waiting(|_| true);
        let waiting = std::mem::take(&mut self.runs);
        for (run, stage) in waiting {
            let cgroup = self.cgroup_of(run, &stage);
            match stage {
                Stage::Requested { reply, .. } | Stage::Starting { reply, .. } => {
                    let text = "the daemon's proxy ended: try once more in a moment".to_owned();
                    answer(reply, LaunchAnswer::Refused { text });
                    self.discard(run, &cgroup);
                }
                stage @ (Stage::Begun { .. } | Stage::Served(_)) => drop(self.runs.insert(run, stage)),
            }
        }
        let wait = Duration::from_millis(100).saturating_mul(1 << self.failures.min(7)).min(PATIENCE);
        self.restart_at = Some(Instant::now() + wait);
    }

    fn tick(&mut self) {
        if self.restart_at.is_some_and(|at| at <= Instant::now()) {
            self.start_pair();
        }
        if self.swept_at.elapsed() > SWEEP {
            self.swept_at = Instant::now();
            if let Err(error) = self.capture.maintain() {
                tracing::error!("the kernel side is not in force: {}", telemetry::chain(error.as_ref()));
            }
            self.capture.sweep();
            self.inspect_belts();
            self.adopt_late();
            self.hold_again();
        }
        self.give_up_waiting(|elapsed| elapsed > PATIENCE);
        let late: Vec<RunId> = self
            .runs
            .iter()
            .filter(|(_, stage)| match stage {
                Stage::Requested { since, .. } | Stage::Starting { since, .. } => since.elapsed() > PATIENCE,
                Stage::Begun { .. } | Stage::Served(_) => false,
            })
            .map(|(run, _)| *run)
            .collect();
        for run in late {
            tracing::error!(%run, "the proxy did not answer in time");
            self.end_run(
                run,
                Ended::Processes,
                "the daemon's proxy does not answer: see `interceptor status`",
            );
        }
    }

    /// Has all listeners held anew where who held them is gone.
    fn hold_again(&mut self) {
        if !self.held.is_lost() {
            return;
        }
        tracing::warn!("who held listeners for the next daemon is gone: another one does from now on");
        self.held.start_over();
        for stage in self.runs.values() {
            if let Stage::Starting { served, .. } | Stage::Served(served) = stage {
                self.held.hold(served.run.id, &served.listeners);
            }
        }
    }

    pub(super) fn tell(&self, message: ToProxy, descriptors: Vec<OwnedFd>) {
        let Some(pair) = &self.pair else { return };
        if !pair.link.tell(message, descriptors) {
            let events = self.events.clone();
            let number = self.number;
            tokio::spawn(async move {
                let _ = events.send(Event::Gone(number, "proxy", "does not take messages".to_owned())).await;
            });
        }
    }

    /// Says something that may be dropped; whether it was queued.
    pub(super) fn offer(&self, message: ToProxy, descriptors: Vec<OwnedFd>) -> bool {
        self.pair.as_ref().is_some_and(|pair| pair.link.offer(message, descriptors))
    }

    /// Lets the roles finish, and leaves the kernel side in force exactly when captured processes remain.
    async fn stop(mut self) {
        let path = self.places.launch_socket();
        let _ = ground::remove_socket(&path);
        self.inspect_belts();
        self.tell(ToProxy::Drain, Vec::new());
        if let Some(mut pair) = self.pair.take() {
            let begun = Instant::now();
            let has_ended = |child: &mut Child| !matches!(child.try_wait(), Ok(None));
            while self.has_served
                && begun.elapsed() < DRAIN
                && !(has_ended(&mut pair.proxy) && has_ended(&mut pair.keeper))
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            self.set_denial(true);
            roles::end(pair.proxy);
            roles::end(pair.keeper);
        }
        let _ = ground::remove_socket(&self.places.control_socket());
        let is_populated = |run: RunId| Tree::is_populated(&self.tree.directory_of(run));
        if self.tree.runs().into_iter().any(is_populated) || self.has_cgroups_in_place() {
            tracing::info!("captured processes remain: they are refused everything until the daemon is back");
            return;
        }
        self.held.end();
        for run in self.tree.runs() {
            described::forget(&self.places, run);
            let _ = self.tree.remove(run, REMOVAL);
        }
        for run in std::mem::take(&mut self.runs).into_keys() {
            if let Err(error) = self.capture.take_belt_off(run, None) {
                tracing::error!(%run, "a run's belt remains: {}", telemetry::chain(error.as_ref()));
            }
        }
        if let Err(error) = self.capture.remove() {
            tracing::error!(%error, "the kernel side could not be removed");
        }
        self.tree.dismantle();
    }
}

pub(super) fn answer(reply: Reply, answer: LaunchAnswer) {
    // A launcher that is gone needs no answer.
    let _ = reply.send((answer, None));
}
