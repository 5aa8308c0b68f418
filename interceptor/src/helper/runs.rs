//! Runs, from a launcher's question to the removal of the last trace.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use interceptor_core::model::{AgentIdentity, Guarantee, Run, RunId};

use super::{
    Foreign, RunNetwork,
    cgroup::Tree,
    described::{self, Described, Progress},
    in_place::{self, Watch},
    kept::Existing,
    listeners::Listeners,
    messages::{Ended, LaunchAnswer, LaunchFacts, Network, Ports, ToProxy},
    supervisor::{Event, REMOVAL, Reply, Served, Stage, Supervisor, answer},
};
use crate::{
    launch::{ADDRESS_V4, ADDRESS_V6, syscalls},
    places::Places,
    telemetry,
};

/// How often a run whose processes were attached is looked at.
const LEFT: Duration = Duration::from_millis(200);
/// The claim that says where attached processes came from.
pub const CGROUP_BEFORE: &str = "cgroup_before";
/// The claim that says of which unit a cgroup is.
pub const UNIT: &str = "unit";

/// What the proxy says of a run that may be.
pub(super) struct Accepted {
    pub(super) agent: AgentIdentity,
    pub(super) claims: BTreeMap<String, String>,
    pub(super) keeps: BTreeSet<String>,
    pub(super) authority: String,
}

impl Supervisor {
    pub(super) fn request(&mut self, facts: LaunchFacts, reply: Reply) {
        if !self.is_up() {
            let text = "the daemon's proxy is starting again: try once more in a moment".to_owned();
            return answer(reply, LaunchAnswer::Refused { text });
        }
        let Some(run) = self.fresh_id() else {
            return answer(
                reply,
                LaunchAnswer::Refused { text: "no randomness to name the run by".to_owned() },
            );
        };
        self.runs.insert(run, Stage::Requested { facts: facts.clone(), reply, since: Instant::now() });
        self.tell(ToProxy::Requested { run, facts }, Vec::new());
    }

    fn fresh_id(&self) -> Option<RunId> {
        let mut bytes = [0; 8];
        loop {
            getrandom::fill(&mut bytes).ok()?;
            let run = RunId::from_random(u64::from_ne_bytes(bytes));
            if !self.runs.contains_key(&run) && !self.tree.directory_of(run).exists() {
                return Some(run);
            }
        }
    }

    /// From built namespaces to listeners that the proxy has. Hands the reply back with the reason why not.
    pub(super) fn start_run(
        &mut self,
        id: RunId,
        namespace: OwnedFd,
        init: OwnedFd,
        reply: Reply,
    ) -> Result<(), (Reply, Foreign)> {
        let run = match self.runs.get(&id) {
            Some(Stage::Begun { run }) => run.clone(),
            _ => return Err((reply, "this run was not begun".into())),
        };
        let made = (|| -> Result<Served, Foreign> {
            let pid = process_of(&init)?;
            if !self.tree.holds(&self.tree.directory(&run.cgroup), pid) {
                return Err("the run's first process is not in the run's cgroup".into());
            }
            let (ports, listeners) = match run.guarantee {
                Guarantee::Structural => {
                    let ports = Ports::default();
                    (ports, Listeners::make(namespace.as_fd(), ports)?)
                }
                Guarantee::Enforced | Guarantee::Observed => Listeners::make_shared(namespace.as_fd())?,
            };
            let mut described = Described::new(run.clone(), pid, ports)?;
            if self.is_in_place(&run) {
                described.progress = Progress::Tried;
                described.write(&self.places)?;
                self.enclose(&run)?;
            }
            self.register(&run, ports, &listeners)?;
            described.write(&self.places)?;
            self.held.hold(run.id, &listeners);
            if !self.is_in_place(&run) {
                self.put_belt_on(&run, &listeners);
            }
            self.watch(&run, init)?;
            Ok(Served { run, ports, listeners })
        })();
        let served = match made {
            Ok(served) => served,
            Err(error) => return Err((reply, error)),
        };
        if let Err(error) = self.hand_out(&served) {
            return Err((reply, error));
        }
        self.runs.insert(id, Stage::Starting { served, reply, since: Instant::now() });
        Ok(())
    }

    pub(super) fn register(&self, run: &Run, ports: Ports, listeners: &Listeners) -> Result<(), Foreign> {
        let network = RunNetwork {
            run: run.id,
            ports,
            namespace: listeners.cookie,
            own: (run.guarantee == Guarantee::Structural)
                .then(|| (ADDRESS_V4, listeners.v6.is_some().then_some(ADDRESS_V6))),
        };
        self.capture.register(&self.tree.directory(&run.cgroup), network)
    }

    /// Gives a run's listeners to the proxy that there is; without one, the next will get them.
    pub(super) fn hand_out(&self, served: &Served) -> Result<(), Foreign> {
        let message = ToProxy::Started {
            run: served.run.clone(),
            v6: served.listeners.v6.is_some(),
            ports: served.ports,
            keeping: Described::find(&self.places, served.run.id).and_then(|described| described.keeping),
        };
        self.tell(message, served.listeners.copies()?);
        Ok(())
    }

    fn watch(&self, run: &Run, init: OwnedFd) -> io::Result<()> {
        if self.is_in_place(run) {
            let mut watch = Watch::begin(self.tree.directory(&run.cgroup))?;
            // The launcher sees to those that are in it.
            let _ = watch.look(&self.tree);
            self.watch_in_place(run.id, watch);
            return Ok(());
        }
        let (events, directory) = (self.events.clone(), self.tree.directory(&run.cgroup));
        let (run, guarantee) = (run.id, run.guarantee);
        tokio::spawn(async move {
            if guarantee == Guarantee::Structural {
                // A launched run ends with its first process. What cannot be watched is ended.
                if let Err(error) = syscalls::readable(&init).await {
                    tracing::error!(%run, %error, "a run cannot be watched");
                }
            } else {
                // Attached processes may outlive the first, or be taken out again.
                while Tree::is_populated(&directory) {
                    tokio::time::sleep(LEFT).await;
                }
            }
            let _ = events.send(Event::RunEnded(run, Ended::Processes)).await;
        });
        Ok(())
    }

    /// The cgroup of a run, from the hierarchy's root; where it will be, when it has none yet.
    pub(super) fn cgroup_of(&self, run: RunId, stage: &Stage) -> String {
        match stage {
            Stage::Requested { .. } => self.tree.name_of(run),
            Stage::Begun { run } => run.cgroup.clone(),
            Stage::Starting { served, .. } | Stage::Served(served) => served.run.cgroup.clone(),
        }
    }

    /// The directory of that cgroup.
    pub(super) fn directory_of(&self, run: RunId, stage: &Stage) -> PathBuf {
        self.tree.directory(&self.cgroup_of(run, stage))
    }

    /// Forgets a run, whatever stage it is in, and kills what is left of it, but in a cgroup that is captured in its place,
    /// which is let go of. A launcher that still waits is told why.
    pub(super) fn end_run(&mut self, run: RunId, how: Ended, why: &str) {
        let Some(stage) = self.runs.remove(&run) else { return };
        let cgroup = self.cgroup_of(run, &stage);
        if let Stage::Requested { reply, .. } | Stage::Starting { reply, .. } = stage {
            answer(reply, LaunchAnswer::Refused { text: why.to_owned() });
        }
        self.forget_kept(run);
        self.inspect_last(run);
        self.discard(run, &cgroup);
        self.tell(ToProxy::Ended { run, how }, Vec::new());
    }

    pub(super) fn discard(&mut self, run: RunId, cgroup: &str) {
        let directory = self.tree.directory(cgroup);
        if cgroup != self.tree.name_of(run) {
            if let Err(error) = self.release(run, &directory) {
                tracing::error!(%run, %error, "a cgroup could not be let go of: it stays captured");
            }
            return;
        }
        described::forget(&self.places, run);
        self.held.let_go(run);
        if let Err(error) = self.take_belt_off(run, &directory) {
            tracing::error!(%run, "a run's belt remains: {}", telemetry::chain(error.as_ref()));
        }
        if !directory.exists() {
            return;
        }
        if let Err(error) = self.capture.forget(&directory) {
            tracing::error!(%run, %error, "the kernel side did not forget a run");
        }
        let tree = self.tree.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = tree.remove(run, REMOVAL) {
                tracing::error!(%run, %error, "a run's cgroup remains");
            }
        });
    }

    /// Takes over what an earlier helper left: live runs have their listeners back, or get new ones; the rest is removed.
    pub(super) fn adopt(&mut self) {
        self.held.take_back();
        let mut left = self.tree.runs();
        for described in Described::all(&self.places) {
            let (run, cgroup) = (described.run.id, described.run.cgroup.clone());
            if self.is_in_place(&described.run) {
                self.adopt_in_place(described);
                continue;
            }
            left.retain(|other| *other != run);
            match self.take_over(described) {
                Ok(served) => {
                    tracing::info!(%run, "took over a run");
                    self.runs.insert(run, Stage::Served(served));
                }
                Err(error) => {
                    tracing::warn!(%run, %error, "a run of an earlier daemon is ended");
                    self.discard(run, &cgroup);
                }
            }
        }
        for run in left {
            let cgroup = self.tree.name_of(run);
            self.discard(run, &cgroup);
        }
        self.held.close_rest();
        if let Err(error) = self.capture.shed_belts() {
            tracing::warn!("belts of runs that are gone may remain: {}", telemetry::chain(error.as_ref()));
        }
    }

    fn take_over(&mut self, described: Described) -> Result<Served, Foreign> {
        let attached = described.run.guarantee != Guarantee::Structural;
        let directory = self.tree.directory(&described.run.cgroup);
        let first = match Tree::processes(&directory).first() {
            Some(first) if attached => *first,
            _ => described.init,
        };
        let pid = i32::try_from(first)?;
        let init = syscalls::pidfd_open(nix::unistd::Pid::from_raw(pid))?;
        let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
        // Asked after both were opened: they belong to this process, then.
        let alive =
            if attached { self.tree.holds(&directory, first) } else { described.is_alive(&self.tree) };
        if !alive {
            return Err("its first process is gone".into());
        }
        let Described { run, ports, keeping, .. } = described;
        let (ports, listeners) = self.listeners_of(&run, ports, namespace.as_fd())?;
        self.register(&run, ports, &listeners)?;
        self.put_belt_on(&run, &listeners);
        let described = Described { keeping, ..Described::new(run.clone(), first, ports)? };
        described.write(&self.places)?;
        self.held.hold(run.id, &listeners);
        self.watch(&run, init)?;
        if let Some(keeping) = &described.keeping {
            self.keep_on(run.id, keeping, &directory);
        }
        Ok(Served { run, ports, listeners })
    }

    /// The listeners of a run of an earlier helper's: those that were held, or else new ones.
    pub(super) fn listeners_of(
        &mut self,
        run: &Run,
        ports: Ports,
        namespace: BorrowedFd<'_>,
    ) -> Result<(Ports, Listeners), Foreign> {
        match self.held.take(run.id, ports, namespace) {
            Ok(listeners) => {
                tracing::info!(run = %run.id, "its listeners were held, and are taken up");
                return Ok((ports, listeners));
            }
            Err(why) if why.is_innocent() => {
                tracing::warn!(run = %run.id, "its listeners are made anew: {why}");
            }
            Err(why) => {
                let why = telemetry::chain(&why);
                tracing::error!(run = %run.id, "what was held for it is refused, and its listeners are made anew: {why}");
            }
        }
        let made = match run.guarantee {
            Guarantee::Structural => Listeners::make_again(namespace, ports),
            // Somebody else may have taken the ports while nobody of ours had them.
            Guarantee::Enforced | Guarantee::Observed => Listeners::make_shared(namespace),
        };
        Ok(made?)
    }

    /// The stage of a run that waits for the proxy's word; any other stays where it is.
    pub(super) fn take_requested(&mut self, run: RunId) -> Option<Stage> {
        match self.runs.remove(&run)? {
            stage @ Stage::Requested { .. } => Some(stage),
            other => {
                self.runs.insert(run, other);
                None
            }
        }
    }

    /// Makes room for a run that the proxy accepts.
    pub(super) fn accept(&mut self, id: RunId, facts: LaunchFacts, accepted: Accepted, reply: Reply) {
        let Accepted { agent, mut claims, keeps, authority } = accepted;
        claims.extend(own_claims(&facts));
        let cgroup = match &facts.network {
            Network::Own | Network::Shared { .. } => self.tree.name_of(id),
            Network::InPlace { cgroup } => cgroup.clone(),
        };
        let run = Run {
            id,
            agent: agent.clone(),
            cgroup,
            guarantee: facts.network.guarantee(),
            mode: facts.mode,
            claims,
            started_at: jiff::Timestamp::now().as_microsecond(),
        };
        if let Err(error) = self.capture.maintain() {
            let text = format!("the kernel side is not in force: {}", telemetry::chain(error.as_ref()));
            return answer(reply, LaunchAnswer::Refused { text });
        }
        let made = match &facts.network {
            Network::Own | Network::Shared { .. } => self.tree.create(id).map_err(Foreign::from),
            Network::InPlace { cgroup } => self.find_in_place(cgroup),
        };
        match made {
            Ok(cgroup) => {
                self.runs.insert(id, Stage::Begun { run });
                let begun = LaunchAnswer::Begun { run: id, agent, keeps, authority };
                // A launcher that is gone is reported as having abandoned the run.
                let _ = reply.send((begun, Some(cgroup)));
            }
            Err(error) => {
                answer(reply, LaunchAnswer::Refused { text: telemetry::chain(error.as_ref()) });
            }
        }
    }
}

fn own_claims(facts: &LaunchFacts) -> BTreeMap<String, String> {
    let mut claims = BTreeMap::from([
        ("launcher_uid".to_owned(), facts.launcher_uid.to_string()),
        ("uid".to_owned(), facts.uid.to_string()),
    ]);
    claims.extend(facts.launcher_user.clone().map(|user| ("launcher_user".to_owned(), user)));
    if facts.existing != Existing::Reset {
        claims.insert("existing".to_owned(), facts.existing.to_string());
    }
    claims.extend(facts.unit.clone().map(|unit| (UNIT.to_owned(), unit)));
    claims.extend(facts.reason.clone().map(|reason| ("reason".to_owned(), reason)));
    if let Network::Shared { cgroup_before } = &facts.network {
        claims.insert(CGROUP_BEFORE.to_owned(), cgroup_before.clone());
    }
    claims
}

/// How a run's processes came to be captured, where they were there before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Captured {
    /// They were moved into a cgroup of ours.
    Moved {
        /// Where they were before, from the hierarchy's root.
        cgroup_before: String,
    },
    /// Their cgroup is captured in its place.
    InPlace {
        /// The unit that it is of, where it was captured as one.
        unit: Option<String>,
    },
}

/// How the processes of a run came to be captured; nothing for a run that was launched, or is not there.
pub fn captured(places: &Places, tree: &Tree, run: RunId) -> Option<Captured> {
    let Described { run, .. } = Described::find(places, run)?;
    if run.cgroup != tree.name_of(run.id) {
        return Some(Captured::InPlace { unit: run.claims.get(UNIT).cloned() });
    }
    let cgroup_before = run.claims.get(CGROUP_BEFORE).cloned()?;
    Some(Captured::Moved { cgroup_before })
}

/// The run that a cgroup, by its name, is captured as in its place, if it is.
pub fn captured_at(places: &Places, tree: &Tree, cgroup: &str) -> Option<Run> {
    let mut known = known(places).into_iter();
    known.find(|run| run.cgroup == cgroup && in_place::is_marked_as(&tree.directory(cgroup), run.id))
}

/// The run that a unit is captured as, while it runs.
pub fn run_of_unit(places: &Places, unit: &str) -> Option<RunId> {
    let mut known = known(places).into_iter();
    known.find(|run| run.claims.get(UNIT).is_some_and(|own| own == unit)).map(|run| run.id)
}

/// The runs that a daemon has described, whether or not one lives.
pub fn known(places: &Places) -> Vec<Run> {
    Described::all(places).into_iter().map(|described| described.run).collect()
}

/// The network namespace that a cgroup's processes are in; of an empty one, that of this process.
pub fn network_of(directory: &Path) -> io::Result<File> {
    let first = Tree::processes(directory).first().map_or("self".to_owned(), u32::to_string);
    File::open(format!("/proc/{first}/ns/net"))
}

/// The directory of a run's cgroup.
pub fn directory_of(places: &Places, tree: &Tree, run: RunId) -> PathBuf {
    match Described::find(places, run) {
        Some(Described { run, .. }) => tree.directory(&run.cgroup),
        None => tree.directory_of(run),
    }
}

/// The runs that have processes, whether or not a daemon serves them.
pub fn live(places: &Places, tree: &Tree) -> Vec<RunId> {
    let described = Described::all(places).into_iter().map(|described| described.run.id);
    let known: BTreeSet<RunId> = tree.runs().into_iter().chain(described).collect();
    known.into_iter().filter(|run| Tree::is_populated(&directory_of(places, tree, *run))).collect()
}

/// The process behind a pidfd, in this pid namespace.
pub(super) fn process_of(pidfd: &OwnedFd) -> io::Result<u32> {
    let facts = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let pid = facts.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    pid.ok_or_else(|| io::Error::other("this is no handle on a living process"))
}
