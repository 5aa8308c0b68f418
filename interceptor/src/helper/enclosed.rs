//! Runs whose cgroup is captured in its place, from the helper's side: taken, watched, taken over, let go of.
//!
//! Promises: such a run stays captured, daemon or not, until root lets go of it or its cgroup is removed; nothing in it is
//! killed or moved by its end; what a launcher began and did not finish is undone.

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use interceptor_core::model::{Run, RunId};

use super::{
    Foreign,
    cgroup::Tree,
    described::{self, Described, Progress},
    in_place::{self, InPlace, LOOK, Moves, Watch},
    kept::{Keeping, cookies},
    messages::{Ended, LaunchAnswer, ToProxy},
    runs::network_of,
    supervisor::{Event, Reply, Served, Stage, Supervisor, answer},
};
use crate::{launch::attach, telemetry};

impl Supervisor {
    /// Whether a run's cgroup is somebody else's.
    pub(super) fn is_in_place(&self, run: &Run) -> bool {
        run.cgroup != self.tree.name_of(run.id)
    }

    /// The folder of a cgroup that may be captured in its place.
    pub(super) fn find_in_place(&self, cgroup: &str) -> Result<PathBuf, Foreign> {
        let found = InPlace::find(&self.tree, Path::new(cgroup))?;
        match found.name() == cgroup {
            true => Ok(found.directory().to_owned()),
            false => Err(format!("{cgroup} is not the name of a cgroup from the hierarchy's root").into()),
        }
    }

    /// Captures a run's cgroup. It is refused everything until the run is registered.
    pub(super) fn enclose(&self, run: &Run) -> Result<(), Foreign> {
        let directory = self.find_in_place(&run.cgroup)?;
        in_place::mark(&directory, run.id)?;
        self.capture.enclose(run.id, &directory)
    }

    /// Watches a captured cgroup from here on. What is in it and is not among those that `watch` has seen was moved in, or born
    /// there.
    pub(super) fn watch_in_place(&self, run: RunId, mut watch: Watch) {
        let (events, tree, places) = (self.events.clone(), self.tree.clone(), self.places.clone());
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                let Ok(Moves { come, left }) = watch.look(&tree) else {
                    let _ = events.send(Event::RunEnded(run, Ended::Cgroup)).await;
                    return;
                };
                let inside = if come.is_empty() { BTreeSet::new() } else { watch.numbers() };
                let places = places.clone();
                let rid = tokio::task::spawn_blocking(move || {
                    let described = if come.is_empty() { None } else { Described::find(&places, run) };
                    let keeping = described.and_then(|described| described.keeping);
                    let kept = keeping.map_or_else(Vec::new, |keeping| cookies(&keeping.keep.connections));
                    rid_of_brought(&come, |cgroup, cookie| {
                        cgroup.is_some_and(|cgroup| inside.contains(&cgroup)) || kept.contains(&cookie)
                    })
                });
                let rid = rid.await;
                let said = (!left.is_empty()).then_some(Event::Left(run, left));
                let reset = rid.unwrap_or_default().into_iter().map(|text| Event::Brought(run, text));
                for event in said.into_iter().chain(reset) {
                    if events.send(event).await.is_err() {
                        return;
                    }
                }
            }
        });
    }

    /// Tells everybody that a process has brought connections along.
    pub(super) fn report_brought(&self, run: RunId, text: String) {
        if self.runs.contains_key(&run) {
            tracing::warn!(%run, "{text}");
            self.tell(ToProxy::Brought { run, text }, Vec::new());
        }
    }

    /// Tells everybody that processes are not captured any more: only root can have moved them.
    pub(super) fn report_left(&self, run: RunId, processes: &[u32]) {
        if !self.runs.contains_key(&run) {
            return;
        }
        let processes = processes.iter().map(|pid| named(*pid)).collect::<Vec<_>>().join(", ");
        tracing::error!(
            %run,
            "moved out of a captured cgroup by somebody, and not captured any more: process {processes}"
        );
        self.tell(ToProxy::Left { run, processes }, Vec::new());
    }

    /// From here on it stays captured, whatever becomes of its launcher, and what it keeps goes on.
    pub(super) fn settle(&mut self, run: RunId, keeping: Option<Keeping>, reply: Reply) {
        match self.try_settle(run, keeping) {
            Ok(()) => answer(reply, LaunchAnswer::Settled),
            Err(error) => {
                answer(reply, LaunchAnswer::Refused { text: format!("it does not stay captured: {error}") });
            }
        }
    }

    fn try_settle(&mut self, run: RunId, keeping: Option<Keeping>) -> io::Result<()> {
        let over = || io::Error::other("the run is over already");
        let described = Described::find(&self.places, run).ok_or_else(over)?;
        let is_in_place = self.is_in_place(&described.run);
        if let Some(keeping) = &keeping {
            let directory = self.tree.directory(&described.run.cgroup);
            self.watch_kept(run, keeping.keep.connections.clone(), &directory)?;
        }
        let Some(Stage::Served(served)) = self.runs.get(&run) else { return Err(over()) };
        Described { progress: Progress::Settled, keeping, ..described }.write(&self.places)?;
        if is_in_place {
            // Not before: the sockets that it had when it was captured still said their farewells.
            self.put_belt_on(&served.run, &served.listeners);
        }
        Ok(())
    }

    /// Ends a run whose launcher went away before it had said that all is well.
    pub(super) fn abandon(&mut self, run: RunId) {
        let is_in_place =
            self.runs.get(&run).is_some_and(|stage| self.cgroup_of(run, stage) != self.tree.name_of(run));
        let how = if is_in_place { Ended::Detached } else { Ended::Processes };
        self.end_run(run, how, "its launcher went away");
    }

    /// Lets go of a cgroup as it is.
    pub(super) fn detach(&mut self, run: RunId, reply: Reply) {
        let cgroup = match Described::find(&self.places, run) {
            Some(described) if self.is_in_place(&described.run) => described.run.cgroup,
            _ => {
                let text = format!("run {run} is no cgroup that is captured where it is");
                return answer(reply, LaunchAnswer::Refused { text });
            }
        };
        self.inspect_last(run);
        match self.release(run, &self.tree.directory(&cgroup)) {
            Ok(()) => {
                self.runs.remove(&run);
                self.forget_kept(run);
                self.tell(ToProxy::Ended { run, how: Ended::Detached }, Vec::new());
                answer(reply, LaunchAnswer::Detached);
            }
            Err(error) => {
                let text = format!("it stays captured: {}", telemetry::chain(error.as_ref()));
                answer(reply, LaunchAnswer::Refused { text });
            }
        }
    }

    /// Takes a run's cgroup out of capture and touches nothing in it. The cgroup may be gone, and another have its name.
    pub(super) fn release(&mut self, run: RunId, directory: &Path) -> Result<(), Foreign> {
        self.capture.release(run, directory)?;
        self.take_belt_off(run, directory)?;
        if in_place::is_marked_as(directory, run) {
            // A launcher that was killed half-way, or the gate, may have frozen it.
            Tree::thaw(directory)?;
            in_place::unmark(directory)?;
        }
        described::forget(&self.places, run);
        self.held.let_go(run);
        Ok(())
    }

    /// Takes over a cgroup that an earlier daemon captured. What cannot be served stays captured, is refused everything, and is
    /// tried again; only what is gone, or was never settled, is let go of.
    pub(super) fn adopt_in_place(&mut self, described: Described) {
        let (run, cgroup) = (described.run.id, described.run.cgroup.clone());
        let is_there = in_place::is_marked_as(&self.tree.directory(&cgroup), run);
        if !is_there || described.progress == Progress::Tried {
            let why = if is_there { "its launcher never finished" } else { "its cgroup is gone" };
            tracing::error!(%run, cgroup, "a cgroup of an earlier daemon's is not captured any more: {why}");
            return self.discard(run, &cgroup);
        }
        match self.take_over_in_place(described) {
            Ok(served) => {
                tracing::info!(%run, cgroup, "took over a captured cgroup");
                if let Err(error) = self.hand_out(&served) {
                    tracing::error!(%run, %error, "a run could not be handed to the proxy");
                }
                self.runs.insert(run, Stage::Served(served));
            }
            Err(error) => {
                tracing::error!(%run, cgroup, %error, "a captured cgroup cannot be served: it is refused everything");
            }
        }
    }

    /// Tries those again that could not be served.
    pub(super) fn adopt_late(&mut self) {
        for described in Described::all(&self.places) {
            if self.is_in_place(&described.run) && !self.runs.contains_key(&described.run.id) {
                self.adopt_in_place(described);
            }
        }
    }

    fn take_over_in_place(&mut self, described: Described) -> Result<Served, Foreign> {
        let directory = self.tree.directory(&described.run.cgroup);
        let namespace = self.namespace_of(described.run.id, &directory)?;
        let (ports, listeners) = self.listeners_of(&described.run, described.ports, namespace.as_fd())?;
        self.capture.enclose(described.run.id, &directory)?;
        self.register(&described.run, ports, &listeners)?;
        self.put_belt_on(&described.run, &listeners);
        Described { ports, ..described.clone() }.write(&self.places)?;
        self.held.hold(described.run.id, &listeners);
        // What was moved in while no daemon was there is seen at its first look.
        self.watch_in_place(described.run.id, Watch::begin(directory.clone())?);
        if let Some(keeping) = &described.keeping {
            self.keep_on(described.run.id, keeping, &directory);
        }
        Ok(Served { run: described.run, ports, listeners })
    }

    /// The network namespace that a captured cgroup is served in: that of its processes; without any, the one that it was served in,
    /// where what was held shows that, or else this process's own. What comes from another one is refused.
    fn namespace_of(&self, run: RunId, directory: &Path) -> io::Result<OwnedFd> {
        match Tree::processes(directory).is_empty().then(|| self.held.namespace_of(run)).flatten() {
            Some(namespace) => Ok(namespace),
            None => network_of(directory).map(OwnedFd::from),
        }
    }

    /// Whether cgroups are captured in their places, for which the kernel side has to stay in force.
    pub(super) fn has_cgroups_in_place(&self) -> bool {
        Described::all(&self.places).iter().any(|described| self.is_in_place(&described.run))
    }
}

/// Resets what processes have brought along that came into a captured cgroup, but for what `stays` by the number of the cgroup
/// that it was made in, or by its cookie; says what there is to say.
fn rid_of_brought(come: &[u32], stays: impl Fn(Option<u64>, u64) -> bool) -> Vec<String> {
    let said = come.iter().filter_map(|pid| match attach::reset_brought(*pid, &stays) {
        Ok(0) => None,
        Ok(count) => {
            Some(format!("process {} was moved in: {count} sockets from before were reset", named(*pid)))
        }
        Err(error) => Some(format!(
            "process {} was moved in, and its sockets from before may still be open: {error}",
            named(*pid)
        )),
    });
    said.collect()
}

/// A process, for people.
fn named(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("{pid} ({})", name.trim())
}
