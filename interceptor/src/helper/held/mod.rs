//! Listeners that outlive the helper: in the hands of systemd or, where there is none, of a process that does nothing else.
//!
//! Promises: a run's ports stay taken while no daemon lives; what comes back is used only if it is, socket by socket, what
//! was noted when it was given away; anything else is closed, said in the log, and made anew. Nothing else rests on it: a daemon
//! to which nothing comes back serves as well. It must never know what is said over a listener.

mod holder;
mod manager;
mod marks;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use interceptor_core::model::RunId;
use nix::unistd::{Gid, Uid};

pub use self::holder::hold;
pub(super) use self::{holder::FromHolder, manager::Passed};
use self::{
    holder::Holder,
    manager::Manager,
    marks::{Marks, Unfit},
};
use super::{Foreign, cgroup::Tree, listeners::Listeners, messages::Ports};
use crate::{launch::syscalls, places::Places, telemetry};

/// How long a process that holds may take to be gone once it is killed.
const GOING: Duration = Duration::from_secs(5);

/// How this program becomes the process that holds.
#[derive(Debug)]
pub(super) struct Become {
    /// Its arguments.
    pub(super) arguments: Vec<OsString>,
    /// Whom it runs as.
    pub(super) account: (Uid, Gid),
}

/// Who holds.
#[derive(Debug)]
enum Hands {
    /// systemd, which started the daemon.
    Manager(Manager),
    /// A process of our own, while there is something to hold.
    Holder { as_what: Become, now: Option<Holder> },
}

/// What is held for the next helper, and what the one before had held for this one.
#[derive(Debug)]
pub(super) struct Held {
    places: Places,
    tree: Tree,
    hands: Hands,
    passed: Vec<Passed>,
    found: BTreeMap<RunId, Vec<OwnedFd>>,
    given: BTreeSet<RunId>,
}

impl Held {
    /// `passed` is what this process was started with; `as_what` is needed where no service manager holds.
    pub(super) fn new(places: &Places, tree: &Tree, passed: Vec<Passed>, as_what: Become) -> Self {
        let manager = Manager::of_environment().unwrap_or_else(|error| {
            tracing::warn!(%error, "the service manager cannot be spoken to: it holds no listeners");
            None
        });
        let hands = manager.map_or(Hands::Holder { as_what, now: None }, Hands::Manager);
        let (found, given) = (BTreeMap::new(), BTreeSet::new());
        Self { places: places.clone(), tree: tree.clone(), hands, passed, found, given }
    }

    /// Takes back what an earlier helper had held, whoever holds it, out of every other hand: what is then closed here is closed
    /// for good, and its port is free.
    pub(super) fn take_back(&mut self) {
        if let Err(error) = self.take_from_manager() {
            tracing::error!(%error, "the service manager may still hold what it has passed");
        }
        match holder::take_back(&self.places) {
            Ok(found) => found.into_iter().for_each(|(run, sockets)| self.find(run, sockets)),
            Err(error) => {
                tracing::error!("what was held does not come back: {}", telemetry::chain(error.as_ref()));
            }
        }
        if let Err(error) = self.tree.end_holder(GOING) {
            tracing::error!("who held may still hold: {}", telemetry::chain(&error));
        }
    }

    fn take_from_manager(&mut self) -> Result<(), Foreign> {
        let passed = std::mem::take(&mut self.passed);
        if passed.is_empty() {
            return Ok(());
        }
        let names: BTreeSet<String> = passed.iter().map(|one| one.name.clone()).collect();
        for Passed { name, descriptor } in passed {
            match name.parse() {
                Ok(run) => self.find(run, vec![descriptor]),
                Err(_) => {
                    tracing::warn!("what the service manager passed as {name:?} is no run's: it is closed")
                }
            }
        }
        match &self.hands {
            Hands::Manager(manager) => {
                names.iter().try_for_each(|name| manager.remove(name))?;
                Ok(manager.settle()?)
            }
            Hands::Holder { .. } => Err("descriptors were passed, and no socket to speak of them".into()),
        }
    }

    fn find(&mut self, run: RunId, sockets: Vec<OwnedFd>) {
        self.found.entry(run).or_default().extend(sockets);
    }

    /// The listeners of a run, if what was held for it is what was given away. `namespace` is the one that the run is in.
    pub(super) fn take(
        &mut self,
        run: RunId,
        ports: Ports,
        namespace: BorrowedFd<'_>,
    ) -> Result<Listeners, Unfit> {
        let sockets = self.found.remove(&run).ok_or(Unfit::Nobody)?;
        Marks::find(&self.places, run).ok_or(Unfit::Unnoted)?.recognise(sockets, ports, namespace)
    }

    /// The network namespace that a run was served in, by what was held for it: nobody else may be there to show it.
    pub(super) fn namespace_of(&self, run: RunId) -> Option<OwnedFd> {
        let noted = Marks::find(&self.places, run)?;
        let first = self.found.get(&run)?.iter().find(|socket| noted.is_of_namespace(socket.as_fd()))?;
        syscalls::network_of(first.as_fd()).ok()
    }

    /// Closes what no run has asked for.
    pub(super) fn close_rest(&mut self) {
        for run in std::mem::take(&mut self.found).into_keys() {
            tracing::info!(%run, "listeners were held for a run that is over: they are closed");
        }
    }

    /// Has a run's listeners held from now on. Where that cannot be, the next helper will make new ones.
    pub(super) fn hold(&mut self, run: RunId, listeners: &Listeners) {
        if let Err(error) = self.try_hold(run, listeners) {
            let why = telemetry::chain(error.as_ref());
            tracing::warn!(%run, "a run's listeners are not held, and would not outlive this daemon: {why}");
        }
    }

    fn try_hold(&mut self, run: RunId, listeners: &Listeners) -> Result<(), Foreign> {
        // Before they are: what comes back unnoted is refused.
        Marks::of(listeners)?.write(&self.places, run)?;
        let is_first = self.given.is_empty();
        self.given.insert(run);
        let sockets = listeners.serving();
        match &mut self.hands {
            Hands::Manager(manager) => Ok(manager.store(&run.to_string(), &sockets)?),
            Hands::Holder { as_what, now } => {
                if is_first {
                    *now = Some(Holder::start(&self.places, &self.tree, as_what)?);
                }
                // One that is gone with what others gave it is replaced with all of that.
                let Some(holder) = now else { return Ok(()) };
                Ok(holder.hold(run, &sockets).inspect_err(|_| end(now))?)
            }
        }
    }

    /// Whether what was given away is lost, with the process that had it. Then it is to [start over](Held::start_over).
    pub(super) fn is_lost(&mut self) -> bool {
        match &mut self.hands {
            Hands::Manager(_) => false,
            Hands::Holder { now, .. } => {
                !self.given.is_empty() && !now.as_mut().is_some_and(Holder::is_there)
            }
        }
    }

    /// Has nothing held, so that everything can be given away anew.
    pub(super) fn start_over(&mut self) {
        self.given.clear();
        if let Hands::Holder { now, .. } = &mut self.hands {
            end(now);
        }
    }

    /// Has nothing of a run's held any more. The process that holds ends with the last of them.
    pub(super) fn let_go(&mut self, run: RunId) {
        if !self.given.remove(&run) {
            return;
        }
        let told = match &mut self.hands {
            Hands::Manager(manager) => manager.remove(&run.to_string()).map_err(Foreign::from),
            Hands::Holder { now, .. } if self.given.is_empty() => {
                end(now);
                Ok(())
            }
            Hands::Holder { now, .. } => {
                let told = now.as_ref().map_or(Ok(()), |holder| holder.let_go(run));
                told.inspect_err(|_| end(now)).map_err(Foreign::from)
            }
        };
        if let Err(error) = told {
            let why = telemetry::chain(error.as_ref());
            tracing::warn!(%run, "the listeners of a run that is over may still be held: {why}");
        }
    }

    /// Has nothing held any more: no captured process is left.
    pub(super) fn end(&mut self) {
        let all = self.given.clone();
        all.iter().for_each(|run| self.let_go(*run));
        if let Hands::Manager(manager) = &self.hands
            && !all.is_empty()
            && let Err(error) = manager.settle()
        {
            tracing::warn!(%error, "the service manager may still hold listeners");
        }
    }
}

fn end(now: &mut Option<Holder>) {
    if let Some(holder) = now.take() {
        holder.end();
    }
}
