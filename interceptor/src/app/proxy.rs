//! The proxy role: takes what the helper hands it, builds the road, and answers the helper and the operator.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;
use interceptor_core::{
    inventory::Launch,
    mask::MaskKey,
    model::{AgentName, EventKind, Run, RunId},
};
use tokio::sync::mpsc;

use super::{
    approvals,
    floods::{self, FLOODS},
};
use crate::{
    approval::{Approvals, Notices, Packs, Webhook},
    channel::{self, AsyncChannel, Channel},
    config::{Folder, LocalApproval, Settings},
    control::api::{self, Answer, Envelope, Request},
    gate::{PolicyGate, Rules, now_us},
    helper::{
        self,
        messages::{Attached, FromProxy, LaunchFacts, Ports, ToProxy},
    },
    identity::ProcessId,
    keeper::{self, client::KeeperClient},
    kernel::KernelMaps,
    places::Places,
    proxy::{
        Epochs, Flood, Listeners, Origins, Proxy, Released, Runs, Workers,
        dial::Dialler,
        registry::{Ending, Registry},
    },
    store::{Journal, Limits, Producer},
    telemetry,
    tls::server::Terminator,
};

/// How often the kernel side is shown a sign of life; it refuses when several are missing.
const BEAT: Duration = Duration::from_millis(250);
/// How long what was spent counts, in seconds.
const HOUR: i64 = 3600;
/// How long sessions may take to end when the daemon stops.
const DRAIN: Duration = Duration::from_secs(5);

/// Runs the role until the helper ends it.
pub(super) fn run(places: &Places) -> anyhow::Result<()> {
    let _hardened = keeper::harden()?;
    let socket = helper::proxy_channel()?;
    // For what concerns no statement; connections have the workers.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let helper: AsyncChannel<FromProxy, ToProxy> = socket.into_async()?;
        let (daemon, flooded) = Daemon::start(places, Arc::new(helper)).await?;
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
    places: Places,
    helper: Arc<AsyncChannel<FromProxy, ToProxy>>,
    pub(super) rules: Arc<ArcSwap<Rules>>,
    pub(super) proxy: Arc<Proxy>,
    workers: Workers,
    keeper: KeeperClient,
    journal: Journal,
    control: OwnedFd,
    approvers: OwnedFd,
    pub(super) local_approval: LocalApproval,
    tickets: Arc<Tickets>,
    reloading: tokio::sync::Mutex<()>,
    started_at: i64,
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
        helper: Arc<AsyncChannel<FromProxy, ToProxy>>,
    ) -> anyhow::Result<(Self, mpsc::Receiver<RunId>)> {
        let (ToProxy::Start { attached }, descriptors) = helper.receive().await? else {
            bail!("the helper's first message was not the start");
        };
        let handed = Handed::sort(attached, descriptors)?;
        let settings = Settings::read(places)?;
        let rules = Arc::new(ArcSwap::from_pointee(Folder::in_force(places)?.load()?));
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
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|error| anyhow::anyhow!("no random key for masks: {error}"))?;
        let key = MaskKey::new(key);
        let proxy = Arc::new(Proxy {
            gate: Arc::new(PolicyGate::new(
                rules.clone(),
                producer,
                settings.durability,
                approvals,
                Packs::new(Arc::new(keeper.clone())),
                key,
            )),
            origins,
            client_tls: Terminator::new(Arc::new(keeper.clone())),
            dialler: Dialler::new(keeper.clone()),
            epochs: Epochs::default(),
            registry: Arc::new(Registry::default()),
            runs: Runs::default(),
            flood: Flood::default(),
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
        let policy = format!("policy {}", daemon.rules.load().policy.hash());
        daemon.proxy.event(None, EventKind::PolicyLoaded, policy);
        let beating = tokio::spawn(beat(daemon.clone()));
        let watching = tokio::spawn(watch(daemon.clone()));
        daemon.void_approvals().await;
        if let Err(error) = daemon.glass_as_it_was().await {
            tracing::error!("no break-glass holds any more, if one did: {error}");
        }
        let controlling = tokio::spawn(control(daemon.clone()));
        let freezing = tokio::spawn(floods::serve(daemon.clone(), flooded));
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
                ToProxy::Started { run, v6, ports } => {
                    let id = run.id;
                    match self.started(run, v6, ports, descriptors).await {
                        Ok(()) => self.helper.send(&FromProxy::Serving { run: id }, &[]).await?,
                        Err(error) => {
                            let text = format!("its listeners cannot be served: {error:#}");
                            self.helper.send(&FromProxy::Refused { run: id, text }, &[]).await?;
                        }
                    }
                }
                ToProxy::Ended { run } => self.ended(run),
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
        FromProxy::Accepted { run, agent, claims, keeps, authority }
    }

    async fn started(
        &self,
        run: Run,
        v6: bool,
        _ports: Ports,
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
        let listeners = Listeners {
            tcp: made.tcp4.into_iter().chain(tcp6.into_iter().flatten()).collect(),
            dns: std::iter::once(made.dns4).chain(dns6).collect(),
        };
        let tasks = crate::proxy::serve(&self.proxy, &self.workers, &run, listeners)?;
        let text = format!("{} as {}", run.cgroup, run.agent.name);
        self.proxy.event(Some((run.id, &run.agent.name)), EventKind::RunStarted, text);
        self.proxy.runs.begin(run, tasks);
        Ok(())
    }

    fn ended(&self, run: RunId) {
        self.proxy.registry.end_run(run, &Ending::Killed);
        let events = self.proxy.origins.catch_up();
        self.proxy.record(events);
        if let Some(live) = self.proxy.runs.end(run) {
            let missed = self.proxy.flood.forget(run);
            if missed > 0 {
                let text = format!("{missed} more events of the kernel side's were left out");
                self.proxy.event(Some((run, &live.agent.name)), EventKind::Kernel, text);
            }
            self.proxy.event(Some((run, &live.agent.name)), EventKind::RunEnded, "its last process is gone");
        }
        self.proxy.origins.end_run(run);
        self.proxy.gate.producer().forget_run(run);
        self.proxy.gate.tallies().forget(run);
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
            Request::Reload => self.reload().await,
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
        Answer::Status(api::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            policy: rules.policy.hash().to_owned(),
            resources: rules.inventory.resources.len(),
            runs: self.proxy.runs.list().len(),
            sessions: self.proxy.registry.list().len(),
            kernel,
            synced: self.journal.synced(),
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
        runs.map(|(run, released)| api::RunStatus {
            run: run.id,
            agent: run.agent.name.clone(),
            guarantee: run.guarantee,
            mode: run.mode,
            started_at: run.started_at,
            released_until: released.map(|released| released.until).filter(|until| now < *until),
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
        self.proxy.runs.release(run, Released { until, reason });
        let (proxy, agent) = (self.proxy.clone(), live.agent.name.clone());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            if proxy.runs.released(run, now_us()).is_none() && proxy.runs.capture_again(run) {
                proxy.event(Some((run, &agent)), EventKind::ReleaseEnded, "captured again");
            }
        });
        Answer::Done {
            text: format!("run {run} is relayed uninspected for {seconds} seconds; this is recorded"),
        }
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

    async fn reload(&self) -> Answer {
        // One at a time, or the keeper and the rules here could end at different editions.
        let _alone = self.reloading.lock().await;
        let loaded = Folder::in_force(&self.places).and_then(|folder| folder.load());
        let rules = match loaded {
            Ok(rules) => rules,
            Err(error) => {
                let text = telemetry::chain(&error);
                self.proxy.event(None, EventKind::PolicyRefused, format!("the one in force stays: {text}"));
                return Answer::Failed { text: format!("nothing was changed:\n{text}") };
            }
        };
        if let Err(error) = self.keeper.reload().await {
            return Answer::Failed { text: format!("nothing was changed: {}", telemetry::chain(&error)) };
        }
        let hash = rules.policy.hash().to_owned();
        let before = self.rules.swap(Arc::new(rules));
        self.proxy.dialler.forget();
        self.proxy.event(None, EventKind::PolicyLoaded, format!("policy {hash}"));
        self.proxy.judge_again(&before);
        self.void_approvals().await;
        Answer::Done { text: format!("policy {hash} is in force") }
    }
}

impl Daemon {
    /// What was asked under another policy than the one in force means nothing any more.
    async fn void_approvals(&self) {
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

/// Answers operators.
async fn control(daemon: Arc<Daemon>) {
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
    let answer = daemon.answer(envelope).await;
    channel.send(&answer, &[]).await?;
    Ok(())
}
