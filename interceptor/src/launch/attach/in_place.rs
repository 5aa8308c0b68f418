//! A cgroup that is captured where it is, with whatever runs in it now and later.
//!
//! Strategy: the kernel side is put in force on the cgroup first, and a probe from within shows that it holds; nothing has
//! been lost so far, and nothing new gets out any more. Then everything in it is frozen, looked at once more, rid of the
//! Internet sockets that it has, and let go on. Only after that is the daemon told to keep it captured: if this process ends
//! before, or refuses, the cgroup is let go of as it is.

use std::{
    fs::{self, File},
    os::fd::AsFd,
    path::Path,
};

use interceptor_core::model::RunId;
use nix::unistd::Pid;

use super::{
    super::{
        LaunchError, Options, asked, daemon, preflight, step,
        syscalls::{self, same_file},
    },
    Attached, Chosen, Plan, await_frozen, begin,
    created::Created,
    kept_by, planned, probe_from, refuse, reset, settle, shown, thaw,
    tree::{self, Process},
    unit::Starting,
};
use crate::{
    helper::{
        cgroup::Tree,
        in_place::{InPlace, Unfit},
        messages::{LaunchAnswer, LaunchRequest, Network, VERSION},
    },
    places::Places,
};

/// What is in the cgroup.
pub(super) enum Inhabitants {
    /// Whatever runs in it.
    Whoever,
    /// The first process of a container that is being made, as it will be.
    Created(Process),
    /// The first process of a service that is being started, as it will be; and this one, which its drop-in has called.
    Starting(Process),
}

impl Inhabitants {
    fn look(&self, cgroup: &InPlace) -> Result<Vec<Process>, LaunchError> {
        match self {
            Self::Whoever => tree::in_cgroup(cgroup),
            Self::Created(first) => Created::alone(cgroup, first),
            Self::Starting(first) => Starting::alone(cgroup, first),
        }
    }
}

/// Says what capturing the cgroup would do.
pub(super) fn plan(cgroups: &Tree, path: &Path, who: &Inhabitants) -> Result<Plan, LaunchError> {
    let cgroup = InPlace::find(cgroups, path).map_err(unfit)?;
    let processes = who.look(&cgroup)?;
    let (mut plan, held) = planned(&processes)?;
    match network_of(&processes) {
        Ok(_) => plan.shown = shown(&processes, &held)?,
        Err(error) => plan.obstacles.push(crate::telemetry::chain(&error)),
    }
    Ok(plan)
}

/// Captures the cgroup.
pub(super) fn attach(
    options: &Options,
    cgroups: &Tree,
    path: &Path,
    who: &Inhabitants,
    chosen: &Chosen,
) -> Result<Attached, LaunchError> {
    let cgroup = InPlace::find(cgroups, path).map_err(unfit)?;
    let processes = who.look(&cgroup)?;
    refuse(&planned(&processes)?.0)?;
    let (network, first) = network_of(&processes)?;
    let handle =
        syscalls::pidfd_open(Pid::from_raw(first.pid.cast_signed())).map_err(step("hold the process"))?;
    let helper = daemon::connect_or_start(options)?;
    let whole = Network::InPlace { cgroup: cgroup.name().to_owned() };
    let begun = begin(options, first, whole, chosen, &helper)?;
    match asked(&helper, &LaunchRequest::Namespaces, &[network.as_fd(), handle.as_fd()])? {
        (LaunchAnswer::Ready, _) => {}
        _ => return Err(LaunchError::OutOfTurn("the daemon")),
    }
    probe_from(&begun, &network)?;
    // Declared after the channel: whatever fails, they go on before the daemon hears of it.
    let frozen = Frozen::freeze(cgroup.directory())?;
    let processes = who.look(&cgroup)?;
    let (plan, held) = planned(&processes)?;
    refuse(&plan)?;
    let (now, _) = network_of(&processes)?;
    if !same_file(&now, &network).map_err(step("compare network namespaces"))? {
        return Err(LaunchError::Obstacle(
            "its processes have gone to another network namespace: try again".to_owned(),
        ));
    }
    let keep = reset(options, &network, (&processes, &held), chosen.existing)?;
    let kept = kept_by(keep.as_ref());
    // Before they go on.
    settle(&helper, keep)?;
    frozen.thaw()?;
    Ok(Attached { run: begun.run, agent: begun.agent.name, plan, kept })
}

/// Captures the cgroup of a service before it begins. Nothing is there that had to be frozen or reset: what it will be is
/// `first`, and this process, which ends, is alone in it.
pub(super) fn attach_starting(
    options: &Options,
    cgroups: &Tree,
    path: &Path,
    first: &Process,
    chosen: &Chosen,
) -> Result<Attached, LaunchError> {
    let cgroup = InPlace::find(cgroups, path).map_err(unfit)?;
    Starting::alone(&cgroup, first)?;
    let network = File::open("/proc/self/ns/net").map_err(step("open the network namespace"))?;
    let handle = syscalls::pidfd_open(Pid::this()).map_err(step("hold this process"))?;
    // One that were started from here would be the unit's.
    let helper = daemon::find(&options.places)?;
    let whole = Network::InPlace { cgroup: cgroup.name().to_owned() };
    let begun = begin(options, first, whole, chosen, &helper)?;
    match asked(&helper, &LaunchRequest::Namespaces, &[network.as_fd(), handle.as_fd()])? {
        (LaunchAnswer::Ready, _) => {}
        _ => return Err(LaunchError::OutOfTurn("the daemon")),
    }
    probe_from(&begun, &network)?;
    let processes = Starting::alone(&cgroup, first)?;
    settle(&helper, None)?;
    let processes = processes.iter().map(|process| (process.pid, process.command.join(" "))).collect();
    let plan = Plan { processes, ..Plan::default() };
    Ok(Attached { run: begun.run, agent: begun.agent.name, plan, kept: 0 })
}

/// Has the daemon let go of a cgroup that is captured in its place, after that was recorded.
pub fn detach(places: &Places, run: RunId) -> Result<(), LaunchError> {
    preflight::may_launch()?;
    let helper = daemon::find(places)?;
    match asked(&helper, &LaunchRequest::Detach { version: VERSION, run }, &[])? {
        (LaunchAnswer::Detached, _) => Ok(()),
        _ => Err(LaunchError::OutOfTurn("the daemon")),
    }
}

fn unfit(error: Unfit) -> LaunchError {
    LaunchError::Obstacle(crate::telemetry::chain(&error))
}

/// The one network namespace that all of them are in, and the process that it was opened by.
fn network_of(processes: &[Process]) -> Result<(File, &Process), LaunchError> {
    let mut found: Option<(File, &Process)> = None;
    for process in processes {
        let opened = match File::open(format!("/proc/{}/ns/net", process.pid)) {
            Ok(opened) => opened,
            // It has ended meanwhile.
            Err(_) if !Path::new("/proc").join(process.pid.to_string()).exists() => continue,
            Err(error) => return Err(step("open the network namespace")(error)),
        };
        match &found {
            None => found = Some((opened, process)),
            Some((first, other))
                if !same_file(first, &opened).map_err(step("compare network namespaces"))? =>
            {
                return Err(LaunchError::Obstacle(format!(
                    "processes {} ({}) and {} ({}) are in different network namespaces, and a run is served in one: name \
                     cgroups that have one each",
                    other.pid,
                    other.name(),
                    process.pid,
                    process.name()
                )));
            }
            Some(_) => {}
        }
    }
    found.ok_or_else(|| LaunchError::Obstacle("all its processes have ended".to_owned()))
}

/// A cgroup in which nothing goes on, until this value is gone.
struct Frozen<'a>(&'a Path);

impl<'a> Frozen<'a> {
    fn freeze(folder: &'a Path) -> Result<Self, LaunchError> {
        let frozen = Self(folder);
        fs::write(folder.join("cgroup.freeze"), "1").map_err(step("freeze the cgroup"))?;
        await_frozen(folder)?;
        Ok(frozen)
    }

    fn thaw(self) -> Result<(), LaunchError> {
        thaw(self.0).map_err(step("let the processes go on"))
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let _ = thaw(self.0);
    }
}
