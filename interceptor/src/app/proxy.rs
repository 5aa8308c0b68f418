//! The proxy role: takes what the helper hands it, builds the road, and answers the helper.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;
use interceptor_core::{
    inventory::Launch,
    mask::MaskKey,
    model::{AgentIdentity, AgentName, EventKind, Program, Run, RunId},
};
use nix::unistd::{Uid, User};
use tokio::sync::mpsc;

use super::{
    approvals,
    floods::{self, FLOODS},
    operators, rescue,
};
use crate::{
    approval::{Approvals, Notices, Packs, Webhook},
    binding::Bound,
    channel::{self, AsyncChannel, Channel},
    config::{Basis, LocalApproval, Settings},
    gate::{PolicyGate, Rules, now_us},
    helper::{
        self, Confined, Connection, Fate, Keep, Keeping, confine,
        messages::{Attached, CallerFacts, Ended, FromProxy, LaunchFacts, ProfileKind, ToProxy},
    },
    identity::ProcessId,
    keeper::{
        self,
        client::KeeperClient,
        messages::{Answer, Ask, Hidden},
    },
    kernel::KernelMaps,
    opinion,
    places::Places,
    proxy::{
        Carried, Catalogues, Flood, Listeners, MOST_WANTING, Origins, Proxy, Runs, Seats, Wanting, Workers,
        dial::Dialler,
        observed,
        registry::{Ending, Registry},
    },
    store::{Journal, Limits, Producer},
    telemetry,
    tls::server::Terminator,
};

/// How often the kernel side is shown a sign of life; it refuses when several are missing.
pub(super) const BEAT: Duration = Duration::from_millis(250);
/// How long what was spent counts, in seconds.
const HOUR: i64 = 3600;
/// How long sessions may take to end when the daemon stops.
const DRAIN: Duration = Duration::from_secs(5);

/// Runs the role until the helper ends it.
pub(super) fn run(places: &Places) -> anyhow::Result<()> {
    let _hardened = keeper::harden()?;
    let settings = Basis::now(places)?.settings(places)?;
    if let Some(program) = &settings.second_opinion {
        // Later no program can be started.
        interceptor_protocols::postgres::ask_also(Box::new(opinion::Program::start(program)?))?;
    }
    let extent = confine(Confined::Proxy, places)?;
    tracing::debug!(?extent, "confined");
    let socket = helper::proxy_channel()?;
    // For what concerns no statement; connections have the workers.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let helper: AsyncChannel<FromProxy, ToProxy> = socket.into_async()?;
        let (daemon, flooded) = Daemon::start(places, settings, Arc::new(helper)).await?;
        daemon.serve(flooded).await
    })
}

/// What the first message carries.
struct Handed {
    keeper: OwnedFd,
    journal: OwnedFd,
    control: OwnedFd,
    approvals: OwnedFd,
    maps: Vec<OwnedFd>,
}

impl Handed {
    fn sort(attached: Vec<Attached>, descriptors: Vec<OwnedFd>) -> anyhow::Result<Self> {
        if attached.len() != descriptors.len() {
            bail!("the helper sent {} descriptors for {}", descriptors.len(), attached.len());
        }
        let (mut keeper, mut journal, mut control, mut approvals, mut maps) =
            (None, None, None, None, Vec::new());
        for (what, descriptor) in attached.into_iter().zip(descriptors) {
            match what {
                Attached::Peer => keeper = Some(descriptor),
                Attached::Journal => journal = Some(descriptor),
                Attached::Control => control = Some(descriptor),
                Attached::Approvals => approvals = Some(descriptor),
                Attached::Map => maps.push(descriptor),
                Attached::Credential(_) => bail!("the helper gave the proxy what is the keeper's"),
            }
        }
        Ok(Self {
            keeper: keeper.context("the helper sent no channel to the keeper")?,
            journal: journal.context("the helper sent no journal")?,
            control: control.context("the helper sent no control socket")?,
            approvals: approvals.context("the helper sent no approvers' socket")?,
            maps,
        })
    }
}

pub(super) struct Daemon {
    pub(super) places: Places,
    pub(super) helper: Arc<AsyncChannel<FromProxy, ToProxy>>,
    pub(super) rules: Arc<ArcSwap<Rules>>,
    pub(super) proxy: Arc<Proxy>,
    workers: Workers,
    pub(super) keeper: KeeperClient,
    pub(super) journal: Journal,
    pub(super) control: OwnedFd,
    approvers: OwnedFd,
    pub(super) local_approval: LocalApproval,
    tickets: Arc<Tickets>,
    pub(super) reloading: tokio::sync::Mutex<()>,
    pub(super) started_at: i64,
}

/// Whose executable was asked for.
#[derive(Default)]
struct Tickets(Mutex<HashMap<u64, ProcessId>>);

impl Tickets {
    fn take(&self, ticket: u64) -> Option<ProcessId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&ticket)
    }

    fn put(&self, ticket: u64, process: ProcessId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(ticket, process);
    }
}

/// The key that masks are made with, of the keeper.
async fn mask_key(keeper: &KeeperClient) -> anyhow::Result<MaskKey> {
    match keeper.ask(Ask::MaskKey).await? {
        Answer::MaskKey(Hidden(key)) => {
            let key =
                <[u8; 32]>::try_from(key.as_slice()).context("the keeper's key for masks is too short")?;
            Ok(MaskKey::new(key))
        }
        Answer::Refused(why) => bail!("the keeper gives no key for masks: {why}"),
        _ => bail!("the keeper answers another question than the one for masks"),
    }
}

/// Whether policy permits a launch by `launcher`; else why not.
fn may_launch(
    rules: &Rules,
    agent: &AgentIdentity,
    launcher: &str,
    facts: &LaunchFacts,
) -> Result<(), String> {
    let user = User::from_uid(Uid::from_raw(facts.uid)).ok().flatten();
    let program = Program {
        path: facts.executable.clone(),
        user: user.map_or_else(|| facts.uid.to_string(), |user| user.name),
        capabilities: facts.capabilities.iter().cloned().collect(),
        profile: facts.profile.name().to_owned(),
    };
    // As it would be, but for what it is not known by yet.
    let run = Run {
        id: RunId::from_random(0),
        agent: agent.clone(),
        cgroup: String::new(),
        guarantee: facts.guarantee(),
        mode: facts.mode,
        claims: BTreeMap::from([("launcher_user".to_owned(), launcher.to_owned())]),
        started_at: now_us(),
    };
    rules.may_launch(&run, program)
}

/// What goes on, for how long and why.
fn kept_text(keeping: &Keeping) -> String {
    let until = jiff::Timestamp::from_microsecond(keeping.until)
        .map_or_else(|_| keeping.until.to_string(), |until| until.to_string());
    let Keep { existing, reason, connections } = &keeping.keep;
    format!("{} connections, until {until} at the latest ({existing}): {reason}", connections.len())
}

/// Puts questions about executables to the helper, which answers each.
async fn ask_executables(
    helper: Arc<AsyncChannel<FromProxy, ToProxy>>,
    tickets: Arc<Tickets>,
    mut asked: mpsc::Receiver<ProcessId>,
) {
    let mut ticket = 0;
    while let Some(process) = asked.recv().await {
        ticket += 1;
        tickets.put(ticket, process);
        let question = FromProxy::Executable { ticket, pid: process.pid, start_time: process.start_time };
        if helper.send(&question, &[]).await.is_err() {
            return;
        }
    }
}

impl Daemon {
    async fn start(
        places: &Places,
        settings: Settings,
        helper: Arc<AsyncChannel<FromProxy, ToProxy>>,
    ) -> anyhow::Result<(Self, mpsc::Receiver<RunId>)> {
        let (ToProxy::Start { attached }, descriptors) = helper.receive().await? else {
            bail!("the helper's first message was not the start");
        };
        let handed = Handed::sort(attached, descriptors)?;
        let rules = Arc::new(ArcSwap::from_pointee(Basis::now(places)?.rules(places)?));
        let journal = Journal::from_fd(handed.journal)?;
        let limits = Limits { run_bytes: settings.run_quota_mib * 1024 * 1024 };
        let producer = Producer::attach(&journal, limits, [])?;
        let keeper = KeeperClient::start(Channel::from_socket(handed.keeper))?;
        let tickets = Arc::new(Tickets::default());
        let (ask, asked) = mpsc::channel(1024);
        tokio::spawn(ask_executables(helper.clone(), tickets.clone(), asked));
        // A full queue leaves an executable without a digest, which its record shows.
        let origins = Origins::new(
            KernelMaps::from_descriptors(handed.maps)?,
            Box::new(move |process| {
                let _ = ask.try_send(process);
            }),
        )?;
        let (floods, flooded) = mpsc::channel(FLOODS);
        let mut approvals = Approvals::new(Arc::new(keeper.clone())).with_floods_to(floods);
        if let Some(url) = &settings.webhook {
            let webhook = Webhook::new(url, keeper.clone()).context("`webhook` in interceptor.toml")?;
            approvals = approvals.told_to(Notices::start(Arc::new(webhook)));
        }
        let key = mask_key(&keeper).await?;
        let proxy = Arc::new(Proxy {
            gate: Arc::new(PolicyGate::new(
                rules.clone(),
                producer,
                settings.durability,
                approvals,
                Packs::new(Arc::new(keeper.clone())),
                Bound::new(Arc::new(keeper.clone())),
                key,
            )),
            origins,
            client_tls: Terminator::new(Arc::new(keeper.clone())),
            dialler: Dialler::new(keeper.clone()),
            catalogues: Catalogues::default(),
            registry: Arc::new(Registry::default()),
            runs: Runs::default(),
            flood: Flood::default(),
            seats: Seats::of_this_process()?,
            carried: Carried::new(settings.run_names_kib),
            // Numbers are unique within one store: they begin with the time.
            next_connection: AtomicU64::new(u64::try_from(now_us()).unwrap_or(0)),
        });
        let places = places.clone();
        let (control, approvers) = (handed.control, handed.approvals);
        let daemon = Self {
            places,
            helper,
            rules,
            proxy,
            workers: Workers::start()?,
            keeper,
            journal,
            control,
            approvers,
            local_approval: settings.local_approval(),
            tickets,
            reloading: tokio::sync::Mutex::default(),
            started_at: now_us(),
        };
        Ok((daemon, flooded))
    }

    async fn serve(self, flooded: mpsc::Receiver<RunId>) -> anyhow::Result<()> {
        let daemon = Arc::new(self);
        daemon.keeper.ping().await.context("the keeper is not there")?;
        daemon.proxy.event(None, EventKind::DaemonStarted, format!("version {}", env!("CARGO_PKG_VERSION")));
        daemon.say_what_lasts()?;
        let policy = format!("policy {}", daemon.rules.load().policy.hash());
        daemon.proxy.event(None, EventKind::PolicyLoaded, policy);
        let beating = tokio::spawn(beat(daemon.clone()));
        let watching = tokio::spawn(watch(daemon.clone()));
        daemon.void_approvals().await;
        if let Err(error) = daemon.glass_as_it_was().await {
            tracing::error!("no break-glass holds any more, if one did: {error}");
        }
        let controlling = tokio::spawn(operators::serve(daemon.clone()));
        let freezing = tokio::spawn(floods::serve(daemon.clone(), flooded));
        let outlasting = tokio::spawn(rescue::outlast(daemon.clone()));
        let approving = tokio::spawn(approvals::serve(daemon.clone(), daemon.approvers.try_clone()?));
        daemon.helper.send(&FromProxy::Up, &[]).await?;
        tokio::select! {
            ended = daemon.listen() => ended,
            // None of them ends: a proxy without one is worth less than a new one.
            _ = beating => bail!("the heartbeat stopped"),
            _ = watching => bail!("the kernel side's events can no longer be read"),
            _ = controlling => bail!("the control socket can no longer be served"),
            _ = freezing => bail!("runs can no longer be frozen"),
            _ = approving => bail!("the approvers' socket can no longer be served"),
            _ = outlasting => bail!("rescues can no longer end"),
            // Without the keeper nothing can be proven or sealed: the helper starts us both again.
            () = daemon.keeper.gone() => bail!("the keeper is gone"),
        }
    }

    async fn listen(self: &Arc<Self>) -> anyhow::Result<()> {
        loop {
            let (message, descriptors) = self.helper.receive().await?;
            match message {
                ToProxy::Start { .. } => bail!("the helper started us twice"),
                ToProxy::Requested { run, facts } => {
                    let answer = self.requested(run, &facts);
                    self.helper.send(&answer, &[]).await?;
                }
                ToProxy::Started { run, v6, ports: _, keeping } => {
                    let id = run.id;
                    match self.started(run, v6, keeping, descriptors).await {
                        Ok(()) => self.helper.send(&FromProxy::Serving { run: id }, &[]).await?,
                        Err(error) => {
                            let text = format!("its listeners cannot be served: {error:#}");
                            self.helper.send(&FromProxy::Refused { run: id, text }, &[]).await?;
                        }
                    }
                }
                ToProxy::Keep { run, keeping } => {
                    // What cannot be recorded does not go on: the launcher is told when it has waited long enough.
                    if self.keeps(run, keeping) {
                        self.helper.send(&FromProxy::Kept { run }, &[]).await?;
                    }
                }
                ToProxy::KeptEnded { run, gone, fate } => self.kept_ended(run, &gone, fate),
                ToProxy::Ended { run, how } => self.ended(run, how),
                ToProxy::Left { run, processes } => self.left(run, &processes),
                ToProxy::Brought { run, text } => self.brought(run, text),
                ToProxy::TurnedAway { run, process, path } => self.proxy.turned_away(run, process, &path),
                ToProxy::Wanted { run, caller, path } => self.wanted(run, caller, path, descriptors),
                ToProxy::Engine { run, asking } => {
                    // What is not as it must be is closed, which refuses.
                    if let Ok([launcher]) = <[OwnedFd; 1]>::try_from(descriptors) {
                        self.proxy.asked_engine(run, asking, launcher);
                    }
                }
                ToProxy::Belt { run, text } => self.caught(run, text),
                ToProxy::Noted { note } => {
                    // What cannot be recorded now is told again to the next proxy.
                    if self.noted(&note) {
                        self.helper.send(&FromProxy::Recorded { run: note.run, at: note.at }, &[]).await?;
                    }
                }
                ToProxy::Executable { ticket, found } => {
                    if let (Some(process), Some(found)) = (self.tickets.take(ticket), found) {
                        self.proxy.origins.identified(process, found.path, found.digest);
                    }
                }
                ToProxy::Carried { run, failure: Some(failure) } => {
                    tracing::error!(%run, "could not be killed, frozen or thawed: {failure}");
                }
                ToProxy::Carried { .. } => {}
                ToProxy::Drain => {
                    self.drain().await;
                    return Ok(());
                }
            }
        }
    }

    fn requested(&self, run: RunId, facts: &LaunchFacts) -> FromProxy {
        let rules = self.rules.load();
        let user = facts.launcher_user.clone().unwrap_or_else(|| facts.launcher_uid.to_string());
        let launch = Launch {
            agent: facts.agent.as_ref().map(AgentName::as_str),
            user: &user,
            executable: &facts.executable,
            argv: &facts.command,
        };
        let agent = match rules.inventory.identify(&launch) {
            Ok(agent) => agent,
            Err(error) => return FromProxy::Refused { run, text: telemetry::chain(&error) },
        };
        if let Err(reason) = may_launch(&rules, &agent, &user, facts) {
            let text = format!("{} as {}, by {user}: {reason}", facts.executable, agent.name);
            self.proxy.event(None, EventKind::LaunchRefused, text);
            return FromProxy::Refused { run, text: format!("policy does not permit the launch: {reason}") };
        }
        let authority = match fs::read_to_string(self.places.authority().join("ca.pem")) {
            Ok(authority) => authority,
            Err(error) => {
                return FromProxy::Refused {
                    run,
                    text: format!("the CA certificate cannot be read: {error}"),
                };
            }
        };
        let keeps = rules.inventory.resources.values().flat_map(|resource| resource.keeps.iter().cloned());
        let keeps: BTreeSet<String> = keeps.collect();
        // What `ps` shows.
        let mut claims = BTreeMap::from([("command".to_owned(), facts.command.join(" "))]);
        if !facts.capabilities.is_empty() {
            claims.insert("capabilities".to_owned(), facts.capabilities.join(" "));
        }
        if facts.profile != ProfileKind::Plain {
            claims.insert("profile".to_owned(), facts.profile.name().to_owned());
        }
        FromProxy::Accepted { run, agent, claims, keeps, authority }
    }

    async fn started(
        &self,
        run: Run,
        v6: bool,
        keeping: Option<Keeping>,
        descriptors: Vec<OwnedFd>,
    ) -> anyhow::Result<()> {
        let run = Arc::new(run);
        if run.started_at < self.started_at {
            // It has spent already, under a proxy that is gone.
            let spent = self.keeper.spent(run.id, now_us() / 1_000_000 - HOUR).await;
            let spent = spent.context("what it has spent cannot be read from the record")?;
            self.proxy.gate.tallies().restore(run.id, spent);
        }
        let made = helper::Listeners::from_copies(descriptors, v6)?;
        self.proxy.origins.begin_run(run.id, made.diag);
        let (tcp6, dns6) = made.v6.unzip();
        let (door, unix) = mpsc::channel(MOST_WANTING);
        let listeners = Listeners {
            tcp: made.tcp4.into_iter().chain(tcp6.into_iter().flatten()).collect(),
            dns: std::iter::once(made.dns4).chain(dns6).collect(),
            unix,
        };
        // Until it is among the live ones, it is as it is told here.
        let served = if keeping.is_some() { observed(&run) } else { run.clone() };
        let tasks = crate::proxy::serve(&self.proxy, &self.workers, &served, listeners)?;
        let text = format!("{} as {}", run.cgroup, run.agent.name);
        self.proxy.event(Some((run.id, &run.agent.name)), EventKind::RunStarted, text);
        let (id, agent) = (run.id, run.agent.name.clone());
        if let Some(keeping) = &keeping {
            let text = format!("connections from before go on still: {}", kept_text(keeping));
            self.proxy.event(Some((id, &agent)), EventKind::Kept, text);
        }
        self.proxy.runs.begin(run, door, tasks, keeping);
        Ok(())
    }

    /// Records what is to go on of a run uninspected; whether it could be.
    fn keeps(&self, run: RunId, keeping: Keeping) -> bool {
        let Some(live) = self.proxy.runs.find(run) else { return false };
        let text = format!("go on uninspected from before: {}", kept_text(&keeping));
        let each = keeping.keep.connections.iter().map(|one| format!("goes on uninspected: {one}"));
        let mut texts = std::iter::once(text).chain(each);
        texts.all(|text| self.proxy.event(Some((run, &live.agent.name)), EventKind::Kept, text))
            && self.proxy.runs.keep(run, keeping)
    }

    /// Records that some of it has ended.
    fn kept_ended(&self, run: RunId, gone: &[Connection], fate: Fate) {
        let Some(live) = self.proxy.runs.find(run) else { return };
        let tell = |text: String| {
            self.proxy.event(Some((run, &live.agent.name)), EventKind::KeptEnded, text);
        };
        let how = match fate {
            Fate::Closed => "it ended by itself",
            Fate::Reset => "its time was over, and it was reset",
        };
        gone.iter().for_each(|one| tell(format!("{one}: {how}")));
        match self.proxy.runs.end_kept(run, gone) {
            0 => tell("none is left: everything is captured".to_owned()),
            left => tell(format!("{left} go on still")),
        }
    }

    fn ended(&self, run: RunId, how: Ended) {
        self.proxy.registry.end_run(run, &Ending::Killed);
        let events = self.proxy.origins.catch_up();
        self.proxy.record(events);
        self.proxy.gate.vouched().forget(run);
        if let Some(live) = self.proxy.runs.end(run) {
            let missed = self.proxy.flood.forget(run);
            if missed > 0 {
                let text = format!("{missed} more events of the kernel side's were left out");
                self.proxy.event(Some((run, &live.agent.name)), EventKind::Kernel, text);
            }
            let how = match (how, live.claims.contains_key(helper::UNIT)) {
                (Ended::Cgroup, true) => "its unit has stopped",
                (how, _) => how.text(),
            };
            self.proxy.event(Some((run, &live.agent.name)), EventKind::RunEnded, how);
        }
        self.proxy.origins.end_run(run);
        self.proxy.gate.producer().forget_run(run);
        self.proxy.gate.tallies().forget(run);
        self.proxy.carried.forget(run);
    }

    /// Records that processes were moved out of a captured cgroup.
    fn left(&self, run: RunId, processes: &str) {
        if let Some(live) = self.proxy.runs.find(run) {
            let text = format!("moved out of its cgroup, and not captured any more: process {processes}");
            self.proxy.event(Some((run, &live.agent.name)), EventKind::Released, text);
        }
    }

    /// Records what a process had from before that was moved into a captured cgroup.
    fn brought(&self, run: RunId, text: String) {
        if let Some(live) = self.proxy.runs.find(run) {
            self.proxy.event(Some((run, &live.agent.name)), EventKind::Kernel, text);
        }
    }

    /// Somebody in a run wants to be connected to a Unix socket. What is not as it must be is closed, which refuses.
    fn wanted(&self, run: RunId, caller: CallerFacts, path: String, descriptors: Vec<OwnedFd>) {
        let mut descriptors = descriptors.into_iter();
        if let (Some(porter), None) = (descriptors.next(), descriptors.next()) {
            self.proxy.runs.wants(run, Wanting { caller, path, porter });
        }
    }

    /// Records what a run's belt caught, or that somebody took it off.
    fn caught(&self, run: RunId, text: String) {
        if let Some(live) = self.proxy.runs.find(run) {
            self.proxy.event(Some((run, &live.agent.name)), EventKind::Belt, text);
        }
    }

    async fn drain(&self) {
        self.proxy.registry.end_all(&Ending::Stopping);
        let emptied = async {
            while !self.proxy.registry.list().is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(DRAIN, emptied).await;
        self.proxy.event(None, EventKind::DaemonStopped, "in good order");
    }
}

/// Shows the kernel side that this process works: that its runtimes turn and its keeper answers.
async fn beat(daemon: Arc<Daemon>) {
    let mut every = tokio::time::interval(BEAT);
    loop {
        every.tick().await;
        daemon.workers.turn().await;
        if daemon.keeper.ping().await.is_err() {
            continue;
        }
        if let Err(error) = daemon.proxy.origins.maps().beat() {
            tracing::error!("no heartbeat: {}", telemetry::chain(&error));
        }
    }
}

/// Takes in what the kernel side sees.
async fn watch(daemon: Arc<Daemon>) {
    let ready = match daemon.proxy.origins.events_fd().and_then(channel::watch) {
        Ok(ready) => ready,
        Err(error) => return tracing::error!("the kernel side's events cannot be waited for: {error}"),
    };
    loop {
        let Ok(mut guard) = ready.readable().await else { return };
        guard.clear_ready();
        let events = daemon.proxy.origins.catch_up();
        daemon.proxy.record(events);
    }
}
