//! `interceptor attach`: captures processes that run already.
//!
//! Strategy: the tree is moved, frozen, into a run's cgroup; every Internet socket that it has from before is reset, since
//! the kernel side chooses its programs by a socket's cgroup, which never changes; the daemon serves the run in the
//! network namespace that the processes are in; a probe from within the cgroup shows that capture holds; only then do
//! they go on. Whatever fails before puts them back as they were. What cannot be captured so (other kinds of sockets,
//! capabilities that lead around) is a refusal that names the process. A cgroup can be captured in its place instead
//! (`in_place.rs`).

mod container;
mod created;
mod in_place;
mod sockets;
mod tree;

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

pub(crate) use self::sockets::reset_brought;
pub use self::{created::Created, in_place::detach};
use self::{
    in_place::Inhabitants,
    sockets::{Held, Swept},
    tree::Process,
};
use super::{
    Begun, Helper, LaunchError, Options, asked, bounded, daemon, preflight, probe, step,
    syscalls::{self, Side},
};
use crate::{
    helper::{
        cgroup::Tree,
        messages::{LaunchAnswer, LaunchFacts, LaunchRequest, Network, ProfileKind},
    },
    places::Places,
};

/// How long processes may take to stop.
const FREEZE: Duration = Duration::from_secs(5);

/// What attaching to a process tree does to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Its processes, each with its command.
    pub processes: Vec<(u32, String)>,
    /// Internet sockets that will be reset.
    pub sockets: usize,
    /// Unix sockets that stay connected to whoever is at their other end.
    pub unix: usize,
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
    })
}

/// Where a [`Target`] is.
enum Located {
    Process(u32),
    Cgroup(PathBuf, Inhabitants),
}

/// Says what attaching would do, and does nothing.
pub fn plan(places: &Places, target: &Target) -> Result<Plan, LaunchError> {
    preflight::may_launch()?;
    let cgroups = Tree::find(places).map_err(unfit)?;
    match located(&cgroups, target)? {
        Located::Process(pid) => planned(&tree::of(&cgroups, pid, None)?).map(|(plan, _)| plan),
        Located::Cgroup(folder, who) => in_place::plan(&cgroups, &folder, &who),
    }
}

/// Captures what runs already. `options.command` and the like are not looked at: the processes are what they are.
pub fn attach(options: &Options, target: &Target) -> Result<Attached, LaunchError> {
    preflight::may_launch()?;
    let cgroups = Tree::find(&options.places).map_err(unfit)?;
    match located(&cgroups, target)? {
        Located::Process(pid) => attach_process(options, &cgroups, pid),
        Located::Cgroup(folder, who) => in_place::attach(options, &cgroups, &folder, &who),
    }
}

fn attach_process(options: &Options, cgroups: &Tree, pid: u32) -> Result<Attached, LaunchError> {
    let processes = tree::of(cgroups, pid, None)?;
    let (plan, _) = planned(&processes)?;
    refuse(&plan)?;
    let first = processes.first().ok_or(LaunchError::NoProcess(pid))?;
    let helper = daemon::connect_or_start(options)?;
    let before = Network::Shared { cgroup_before: first.cgroup.clone() };
    let begun = begin(options, first, before, &helper)?;
    // Declared after the channel: whatever fails, they are put back before the daemon hears of it.
    let mut moved = Moved::prepare(&cgroups.directory_of(begun.run))?;
    moved.take(cgroups, pid)?;
    let (plan, held) = planned(&moved.processes)?;
    refuse(&plan)?;
    let network = File::open(format!("/proc/{pid}/ns/net")).map_err(step("open the network namespace"))?;
    reset(&network, &held)?;
    let first = syscalls::pidfd_open(Pid::from_raw(pid.cast_signed())).map_err(step("hold the process"))?;
    match asked(&helper, &LaunchRequest::Namespaces, &[network.as_fd(), first.as_fd()])? {
        (LaunchAnswer::Ready, _) => {}
        _ => return Err(LaunchError::OutOfTurn("the daemon")),
    }
    probe_from(&begun, &network)?;
    moved.stay()?;
    Ok(Attached { run: begun.run, agent: begun.agent.name, plan })
}

fn unfit(error: crate::helper::cgroup::CgroupError) -> LaunchError {
    step("find the cgroups")(io::Error::other(error))
}

fn planned(processes: &[Process]) -> Result<(Plan, Held), LaunchError> {
    let held = sockets::held_by(processes).map_err(step("look at the processes' sockets"))?;
    let mut obstacles: Vec<String> = processes.iter().filter_map(Process::obstacle).collect();
    obstacles.extend(held.obstacles.iter().cloned());
    let plan = Plan {
        processes: processes.iter().map(|process| (process.pid, process.command.join(" "))).collect(),
        sockets: held.internet.len(),
        unix: held.unix,
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

/// Resets what the processes have from before.
fn reset(network: &File, held: &Held) -> Result<(), LaunchError> {
    match sockets::sweep(network, held).map_err(step("reset the sockets from before"))? {
        Swept { left: 0, .. } => Ok(()),
        Swept { left, .. } => Err(LaunchError::Obstacle(format!(
            "{left} sockets from before could not be reset; this kernel needs CONFIG_INET_DIAG_DESTROY"
        ))),
    }
}

fn begin(
    options: &Options,
    first: &Process,
    network: Network,
    helper: &Helper,
) -> Result<Begun, LaunchError> {
    let (launcher, launcher_user) = preflight::launcher();
    let command: Vec<std::ffi::OsString> = first.command.iter().map(Into::into).collect();
    let facts = LaunchFacts {
        agent: options.agent.clone(),
        mode: Mode::Enforce,
        reason: None,
        command: bounded(&command),
        executable: first.executable.clone(),
        launcher_uid: launcher.as_raw(),
        launcher_user,
        uid: first.uid,
        capabilities: Vec::new(),
        profile: ProfileKind::Plain,
        network,
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
                    .map_err(|error| super::chain(&error))
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
