//! `interceptor attach`: captures processes that run already.
//!
//! Strategy: the tree is moved, frozen, into a run's cgroup; every Internet socket that it has from before is reset, since
//! the kernel side chooses its programs by a socket's cgroup, which never changes (root may have connections go on for a while
//! instead, on the record); the daemon serves the run in the
//! network namespace that the processes are in; a probe from within the cgroup shows that capture holds; only then do
//! they go on. Whatever fails before puts them back as they were. What cannot be captured so (other kinds of sockets,
//! capabilities that lead around) is a refusal that names the process. A cgroup can be captured in its place instead
//! (`in_place.rs`).

mod container;
mod created;
mod diag;
mod in_place;
mod sockets;
mod tree;
mod unit;

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use interceptor_core::model::{AgentName, Mode, RunId};
use nix::{
    fcntl::OFlag,
    libc,
    sched::{CloneFlags, setns},
    sys::wait::waitpid,
    unistd::{self, Pid},
};

pub use self::{
    created::Created,
    in_place::detach,
    sockets::Fate,
    unit::{DropIn, Lasting, NotUnit, Unit, remove_drop_in},
};
pub(crate) use self::{diag::Diag, sockets::reset_brought};
use self::{
    in_place::Inhabitants,
    sockets::{Held, Swept},
    tree::Process,
    unit::{Shown, Starting},
};
use super::{
    Begun, Helper, LaunchError, Options, asked, bounded, daemon, preflight, probe, step,
    syscalls::{self, Side},
};
use crate::{
    helper::{
        self, Existing, Keep,
        cgroup::Tree,
        messages::{LaunchAnswer, LaunchFacts, LaunchRequest, Network, ProfileKind},
    },
    places::Places,
};

/// How long processes may take to stop.
const FREEZE: Duration = Duration::from_secs(5);

/// What attaching to a process tree does to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Its processes, each with its command.
    pub processes: Vec<(u32, String)>,
    /// Internet sockets.
    pub sockets: usize,
    /// Those of them that the kernel's tables have, and what can become of each; looked for only where nothing is done.
    pub shown: Vec<(String, Fate)>,
    /// Unix sockets that stay connected to whoever is at their other end.
    pub unix: usize,
    /// Handles of processes outside, which stay: which process, and who has it.
    pub handles: Vec<String>,
    /// What makes attaching impossible, each with what to do.
    pub obstacles: Vec<String>,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The run.
    pub run: RunId,
    /// Its agent.
    pub agent: AgentName,
    /// What it was done to.
    pub plan: Plan,
    /// How many connections go on.
    pub kept: usize,
}

/// How attaching ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// What runs is captured.
    Attached(Attached),
    /// The unit does not run; it is captured from its next start on.
    Prepared,
    /// The unit's cgroup has been captured ever since an earlier start.
    Already(RunId),
}

/// What to attach to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A process, with all that descend from it: they are moved.
    Process(u32),
    /// A cgroup, as somebody names it: it is captured in its place.
    Cgroup(PathBuf),
    /// A container, by its runtime's id: its cgroup is captured in its place.
    Container(String),
    /// A container that its runtime is just making: as [`Target::Container`], before anything of its own runs.
    Created(Created),
    /// A service of systemd's: its cgroup is captured in its place, and so is that of each later start.
    Unit(Unit, DropIn),
    /// A service that systemd is just starting, whose drop-in has called this process.
    Starting(Unit),
}

/// The folder of the cgroup to capture, and who is in it.
fn located(cgroups: &Tree, target: &Target) -> Result<Located, LaunchError> {
    Ok(match target {
        Target::Process(pid) => Located::Process(*pid),
        Target::Cgroup(path) => Located::Cgroup(path.clone(), Inhabitants::Whoever),
        Target::Container(id) => Located::Cgroup(container::find(cgroups, id)?, Inhabitants::Whoever),
        Target::Created(created) => {
            let (folder, first) = created.find(cgroups)?;
            Located::Cgroup(folder, Inhabitants::Created(first))
        }
        Target::Unit(unit, _) => match Shown::of(unit)?.cgroup(cgroups)? {
            Some(folder) => Located::Cgroup(folder, Inhabitants::Whoever),
            None => Located::Nowhere,
        },
        Target::Starting(unit) => {
            let Starting { folder, first } = Starting::find(cgroups, unit)?;
            Located::Cgroup(folder, Inhabitants::Starting(first))
        }
    })
}

/// Where a [`Target`] is.
enum Located {
    Process(u32),
    Cgroup(PathBuf, Inhabitants),
    /// It does not run.
    Nowhere,
}

/// Says what attaching would do, and does nothing.
pub fn plan(places: &Places, target: &Target) -> Result<Plan, LaunchError> {
    preflight::may_launch()?;
    let cgroups = Tree::find(places).map_err(unfit)?;
    let mut plan = match located(&cgroups, target)? {
        Located::Process(pid) => {
            let processes = tree::of(&cgroups, pid, None)?;
            let (mut plan, held) = planned(&processes)?;
            plan.shown = shown(&processes, &held)?;
            plan
        }
        Located::Cgroup(folder, who) => in_place::plan(&cgroups, &folder, &who)?,
        Located::Nowhere => Plan::default(),
    };
    if let Target::Unit(unit, _) = target {
        plan.obstacles.extend(Shown::of(unit)?.obstacles());
    }
    Ok(plan)
}

/// Captures what runs already. `options.command` and the like are not looked at: the processes are what they are.
pub fn attach(options: &Options, target: &Target, existing: Existing) -> Result<Done, LaunchError> {
    if let Target::Starting(unit) = target
        && let Some(run) = already(&options.places, unit)?
    {
        return Ok(Done::Already(run));
    }
    preflight::may_launch()?;
    if existing != Existing::Reset && options.reason.as_ref().is_none_or(|reason| reason.trim().is_empty()) {
        return Err(LaunchError::Obstacle(
            "connections that go on uninspected need a reason: say `--reason \"...\"`".to_owned(),
        ));
    }
    let cgroups = Tree::find(&options.places).map_err(unfit)?;
    let chosen = Chosen { existing, unit: unit_of(target) };
    let found = located(&cgroups, target)?;
    let installed = match target {
        Target::Unit(unit, drop_in) => {
            refuse(&plan(&options.places, target)?)?;
            Some(drop_in.clone().install(unit)?)
        }
        _ => None,
    };
    let done = match found {
        Located::Process(pid) => Done::Attached(attach_process(options, &cgroups, pid, &chosen)?),
        Located::Cgroup(folder, Inhabitants::Starting(first)) => {
            Done::Attached(in_place::attach_starting(options, &cgroups, &folder, &first, &chosen)?)
        }
        Located::Cgroup(folder, who) => {
            Done::Attached(in_place::attach(options, &cgroups, &folder, &who, &chosen)?)
        }
        Located::Nowhere => Done::Prepared,
    };
    if let Some(installed) = installed {
        installed.stay();
    }
    Ok(done)
}

/// What was said of what is captured.
struct Chosen {
    /// What becomes of connections that are there.
    existing: Existing,
    /// The unit that it is.
    unit: Option<String>,
}

fn unit_of(target: &Target) -> Option<String> {
    match target {
        Target::Unit(unit, _) | Target::Starting(unit) => Some(unit.to_string()),
        Target::Process(_) | Target::Cgroup(_) | Target::Container(_) | Target::Created(_) => None,
    }
}

/// The run that this process is in already, if it is the unit's: an earlier start left its cgroup behind.
fn already(places: &Places, unit: &Unit) -> Result<Option<RunId>, LaunchError> {
    let cgroups = Tree::find(places).map_err(unfit)?;
    let name = unit::own_cgroup()?;
    let run = helper::captured_at(places, &cgroups, &name);
    Ok(run
        .filter(|run| run.claims.get(helper::UNIT).is_some_and(|own| *own == unit.to_string()))
        .map(|run| run.id))
}

fn attach_process(
    options: &Options,
    cgroups: &Tree,
    pid: u32,
    chosen: &Chosen,
) -> Result<Attached, LaunchError> {
    let processes = tree::of(cgroups, pid, None)?;
    let (plan, _) = planned(&processes)?;
    refuse(&plan)?;
    let first = processes.first().ok_or(LaunchError::NoProcess(pid))?;
    let helper = daemon::connect_or_start(options)?;
    let before = Network::Shared { cgroup_before: first.cgroup.clone() };
    let begun = begin(options, first, before, chosen, &helper)?;
    // Declared after the channel: whatever fails, they are put back before the daemon hears of it.
    let mut moved = Moved::prepare(&cgroups.directory_of(begun.run))?;
    moved.take(cgroups, pid)?;
    let (plan, held) = planned(&moved.processes)?;
    refuse(&plan)?;
    let network = File::open(format!("/proc/{pid}/ns/net")).map_err(step("open the network namespace"))?;
    let keep = reset(options, &network, (&moved.processes, &held), chosen.existing)?;
    let kept = kept_by(keep.as_ref());
    let first = syscalls::pidfd_open(Pid::from_raw(pid.cast_signed())).map_err(step("hold the process"))?;
    match asked(&helper, &LaunchRequest::Namespaces, &[network.as_fd(), first.as_fd()])? {
        (LaunchAnswer::Ready, _) => {}
        _ => return Err(LaunchError::OutOfTurn("the daemon")),
    }
    probe_from(&begun, &network)?;
    settle(&helper, keep)?;
    moved.stay()?;
    Ok(Attached { run: begun.run, agent: begun.agent.name, plan, kept })
}

fn unfit(error: helper::cgroup::CgroupError) -> LaunchError {
    step("find the cgroups")(io::Error::other(error))
}

fn planned(processes: &[Process]) -> Result<(Plan, Held), LaunchError> {
    let held = sockets::held_by(processes).map_err(step("look at the processes' sockets"))?;
    let mut obstacles: Vec<String> = processes.iter().filter_map(Process::obstacle).collect();
    obstacles.extend(held.obstacles.iter().cloned());
    let plan = Plan {
        processes: processes.iter().map(|process| (process.pid, process.command.join(" "))).collect(),
        sockets: held.internet.len(),
        shown: Vec::new(),
        unix: held.unix,
        handles: held.handles.clone(),
        obstacles,
    };
    Ok((plan, held))
}

fn refuse(plan: &Plan) -> Result<(), LaunchError> {
    match plan.obstacles.first() {
        Some(obstacle) => Err(LaunchError::Obstacle(obstacle.clone())),
        None => Ok(()),
    }
}

/// The sockets that the processes have, as far as the kernel's tables of their network have them.
fn shown(processes: &[Process], held: &Held) -> Result<Vec<(String, Fate)>, LaunchError> {
    let Some(first) = processes.first() else { return Ok(Vec::new()) };
    let network = File::open(format!("/proc/{}/ns/net", first.pid));
    network.and_then(|network| sockets::shown(&network, held)).map_err(step("look at the sockets"))
}

/// Resets what the processes have from before, and has nobody from elsewhere come to it, but for what is to go on.
fn reset(
    options: &Options,
    network: &File,
    (processes, held): (&[Process], &Held),
    existing: Existing,
) -> Result<Option<Keep>, LaunchError> {
    match sockets::sweep(network, held, existing).map_err(step("reset the sockets from before"))? {
        Swept { left: 0, kept, stay, .. } => {
            sockets::shut_in(processes, &stay).map_err(step("shut in the sockets from before"))?;
            let reason = options.reason.clone().unwrap_or_default();
            Ok((!kept.is_empty()).then_some(Keep { existing, reason, connections: kept }))
        }
        Swept { left, .. } => Err(LaunchError::Obstacle(format!(
            "{left} sockets from before could not be reset; this kernel needs CONFIG_INET_DIAG_DESTROY"
        ))),
    }
}

fn kept_by(keep: Option<&Keep>) -> usize {
    keep.map_or(0, |keep| keep.connections.len())
}

/// Tells the daemon that capture holds, and what is to go on; from here on nobody but root undoes it.
fn settle(helper: &Helper, keep: Option<Keep>) -> Result<(), LaunchError> {
    match asked(helper, &LaunchRequest::Settled { keep }, &[])? {
        (LaunchAnswer::Settled, _) => Ok(()),
        _ => Err(LaunchError::OutOfTurn("the daemon")),
    }
}

fn begin(
    options: &Options,
    first: &Process,
    network: Network,
    chosen: &Chosen,
    helper: &Helper,
) -> Result<Begun, LaunchError> {
    let (launcher, launcher_user) = preflight::launcher();
    let command: Vec<std::ffi::OsString> = first.command.iter().map(Into::into).collect();
    let facts = LaunchFacts {
        agent: options.agent.clone(),
        mode: Mode::Enforce,
        reason: options.reason.clone(),
        command: bounded(&command),
        executable: first.executable.clone(),
        launcher_uid: launcher.as_raw(),
        launcher_user,
        uid: first.uid,
        capabilities: Vec::new(),
        profile: ProfileKind::Plain,
        network,
        existing: chosen.existing,
        unit: chosen.unit.clone(),
        // Its environment is what it is, and nobody replaces anything in it.
        secrets: Vec::new(),
    };
    super::begun(helper, facts)
}

/// Processes in a frozen cgroup of the run's, which are put back with this value unless they are to stay.
struct Moved {
    folder: PathBuf,
    processes: Vec<Process>,
    root: PathBuf,
}

impl Moved {
    fn prepare(run: &Path) -> Result<Self, LaunchError> {
        let folder = run.join("attached");
        fs::create_dir(&folder).map_err(step("create a cgroup in the run's"))?;
        fs::write(folder.join("cgroup.freeze"), "1").map_err(step("freeze the run's cgroup"))?;
        Ok(Self { folder, processes: Vec::new(), root: PathBuf::new() })
    }

    /// Moves the tree of `pid`, until nothing of it is outside, and waits until all of it stands still.
    fn take(&mut self, cgroups: &Tree, pid: u32) -> Result<(), LaunchError> {
        cgroups.root().clone_into(&mut self.root);
        loop {
            // What was moved cannot fork any more; what was not may have.
            let known = |one: &Process| self.processes.iter().any(|moved| moved.pid == one.pid);
            let all = tree::of(cgroups, pid, Some(&self.folder))?;
            let more: Vec<Process> = all.into_iter().filter(|one| !known(one)).collect();
            if more.is_empty() {
                break;
            }
            for process in more {
                match fs::write(self.folder.join("cgroup.procs"), process.pid.to_string()) {
                    // It has ended.
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    Err(error) => return Err(step("move a process into the run")(error)),
                    Ok(()) => self.processes.push(process),
                }
            }
        }
        await_frozen(&self.folder)
    }

    /// Lets them go on, captured.
    fn stay(mut self) -> Result<(), LaunchError> {
        thaw(&self.folder).map_err(step("let the processes go on"))?;
        self.processes.clear();
        Ok(())
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        for process in &self.processes {
            let before = self.root.join(process.cgroup.trim_start_matches('/')).join("cgroup.procs");
            if fs::write(before, process.pid.to_string()).is_err() {
                let _ = fs::write(self.root.join("cgroup.procs"), process.pid.to_string());
            }
        }
        let _ = thaw(&self.folder);
    }
}

/// Whether everything in a cgroup has come to stand still.
fn stands_still(folder: &Path) -> bool {
    fs::read_to_string(folder.join("cgroup.events"))
        .is_ok_and(|events| events.lines().any(|line| line == "frozen 1"))
}

/// Waits until everything in a cgroup that is being frozen stands still.
fn await_frozen(folder: &Path) -> Result<(), LaunchError> {
    let begun = Instant::now();
    while !stands_still(folder) {
        if begun.elapsed() > FREEZE {
            let late = io::Error::from(io::ErrorKind::TimedOut);
            return Err(step("stop the processes: one is busy in the kernel")(late));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn thaw(folder: &Path) -> io::Result<()> {
    fs::write(folder.join("cgroup.freeze"), "0")
}

/// Tries the run from a process that is born in its cgroup, in the network of the attached ones.
fn probe_from(begun: &Begun, network: &File) -> Result<(), LaunchError> {
    let pipe = || -> io::Result<(OwnedFd, OwnedFd)> { Ok(unistd::pipe2(OFlag::O_CLOEXEC)?) };
    let (told, tell) = pipe().map_err(step("make a pipe"))?;
    match syscalls::clone_into(begun.cgroup.as_fd(), 0).map_err(step("make a prober"))? {
        Side::Child => {
            let tried = setns(network, CloneFlags::CLONE_NEWNET).map_err(|errno| errno.to_string());
            let v6 = Path::new("/proc/self/net/if_inet6").exists();
            let tried = tried.and_then(|()| {
                probe::reaches_proxy(begun.run, v6)
                    .and_then(|()| probe::nothing_else(v6))
                    .map_err(|error| crate::telemetry::chain(&error))
            });
            if let Err(text) = &tried {
                let _ = File::from(tell).write_all(text.as_bytes());
            }
            syscalls::leave(tried.is_err().into())
        }
        Side::Parent(child) => {
            drop(tell);
            let mut text = String::new();
            File::from(told).read_to_string(&mut text).map_err(step("hear from the prober"))?;
            let ended = waitpid(child.pid, None).map_err(|e| step("wait for the prober")(e.into()))?;
            if text.is_empty() && ended == nix::sys::wait::WaitStatus::Exited(child.pid, 0) {
                return Ok(());
            }
            Err(LaunchError::Obstacle(format!("capture does not hold, so nothing was attached: {text}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Where a process is.
    fn cgroup_of(pid: u32) -> String {
        fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("a live process")
    }

    #[test]
    fn what_is_not_captured_in_the_end_is_as_it_was() {
        let root = tempfile::tempdir().expect("folder");
        let cgroups = Tree::find(&Places::under(root.path())).expect("cgroup2");
        let run = RunId::from_random(std::process::id().into());
        fs::create_dir(cgroups.slice()).expect("slice");
        let folder = cgroups.create(run).expect("the run's cgroup");
        let script = "while :; do sleep 0.01; echo; done";
        let mut child =
            Command::new("sh").args(["-c", script]).stdout(std::process::Stdio::piped()).spawn().expect("sh");
        let before = cgroup_of(child.id());
        let mut moved = Moved::prepare(&folder).expect("a frozen cgroup");
        moved.take(&cgroups, child.id()).expect("the tree is moved");
        assert!(cgroup_of(child.id()).contains(&run.to_string()) && stands_still(&moved.folder));
        // As when a later step fails.
        drop(moved);
        assert_eq!(cgroup_of(child.id()), before);
        let mut output = child.stdout.take().expect("piped");
        // It goes on.
        for _ in 0..20 {
            output.read_exact(&mut [0; 1]).expect("it writes");
        }
        child.kill().expect("own child");
        child.wait().expect("own child");
        cgroups.remove(run, Duration::from_secs(5)).expect("the cgroup goes");
        fs::remove_dir(cgroups.slice()).expect("the slice goes");
    }
}
