//! The root role: loads the kernel side, makes runs, hands out descriptors. Parses nothing that an agent wrote.
//!
//! Promises: one daemon per installation; a role that dies means refusal until it is back; a run's ports are never
//! free while the run lives and somebody [holds](held) them; a new helper takes live runs over; whoever asks for a run is root and
//! not captured.
//! It keeps of root what it needs: a filter of system calls leaves it kernel programs, networks and processes of its own.
//! It must never know policy, protocols or credentials, and never reads from an agent's connection.

mod belts;
mod callers;
pub mod cgroup;
mod confine;
mod described;
mod enclosed;
mod executable;
mod ground;
mod held;
pub mod in_place;
mod kept;
mod launches;
mod listeners;
pub mod messages;
mod proxy_link;
mod released;
mod roles;
mod runs;
mod supervisor;

#[cfg(test)]
mod tests;

use std::{
    error::Error,
    io::{self, Write},
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
    time::Duration,
};

use interceptor_core::model::RunId;
use nix::{
    sys::{
        prctl,
        resource::{Resource, setrlimit},
    },
    unistd::geteuid,
};

pub use confine::{Confined, confine};
pub(crate) use executable::start_ticks;
pub use ground::{Accounts, GroundError, Lock, lock};
pub use held::hold;
pub use kept::{Connection, Existing, Fate, Keep, Keeping, MOST_KEPT, NotExisting, cookies};
pub use listeners::{Listeners, cpus};
pub use released::Note;
pub(crate) use roles::start as start_role;
pub use roles::{Roles, broker_channel, keeper_channel, proxy_channel};
pub use runs::{
    CGROUP_BEFORE, Captured, UNIT, captured, captured_at, directory_of, known, live, network_of, run_of_unit,
};

use self::{
    cgroup::Tree,
    held::{Become, Held, Passed},
    messages::Ports,
    roles::Handed,
    supervisor::Supervisor,
};
use crate::{
    launch::{self, filter::Filter},
    places::Places,
};

/// An error of a part that the helper does not know.
pub type Foreign = Box<dyn Error + Send + Sync>;

/// What the kernel side must know of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunNetwork {
    /// The run.
    pub run: RunId,
    /// The ports of its listeners.
    pub ports: Ports,
    /// The cookie of its network namespace.
    pub namespace: u64,
    /// Its own addresses, the second where the kernel has IPv6; nothing when the namespace is not its own.
    pub own: Option<(Ipv4Addr, Option<Ipv6Addr>)>,
}

/// What a run's belt goes around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Around<'a> {
    /// All of the network namespace, which is the run's own.
    Namespace,
    /// What this cgroup's sockets send, in a network namespace that others use, too.
    Cgroup(&'a Path),
}

/// The kernel side, as far as the helper drives it.
pub trait Capture: Send + Sync {
    /// Refuses everything, or redirects again.
    fn deny_all(&self, deny: bool) -> Result<(), Foreign>;
    /// Puts itself in force again where somebody took it out; called before a run begins, and every few seconds.
    fn maintain(&self) -> Result<(), Foreign>;
    /// Makes a run known: its sockets are redirected from here on.
    fn register(&self, cgroup: &Path, network: RunNetwork) -> Result<(), Foreign>;
    /// Forgets it, before its cgroup is removed.
    fn forget(&self, cgroup: &Path) -> Result<(), Foreign>;
    /// Puts itself in force on a cgroup that is not below the slice, before the run is registered, and again when a new
    /// daemon takes it over.
    fn enclose(&self, run: RunId, cgroup: &Path) -> Result<(), Foreign>;
    /// Forgets such a run and leaves its cgroup, which may be gone.
    fn release(&self, run: RunId, cgroup: &Path) -> Result<(), Foreign>;
    /// Puts a belt on a run before it is served, in place of one that an earlier daemon put on it. `netfilter` is a socket
    /// for `NETLINK_NETFILTER` in its network namespace; `kept` are connections from before that may pass while they last.
    fn put_belt_on(
        &self,
        run: RunId,
        netfilter: OwnedFd,
        around: Around<'_>,
        kept: &[Connection],
    ) -> Result<(), Foreign>;
    /// Takes it off. `elsewhere` is where to look for one that an earlier daemon put on.
    fn take_belt_off(&self, run: RunId, elsewhere: Option<BorrowedFd<'_>>) -> Result<(), Foreign>;
    /// What a run's belt, or every one, has to say since it was last asked; called every few seconds.
    fn inspect_belts(&self, only: Option<RunId>) -> Vec<(RunId, String)>;
    /// Removes the belts of runs that are gone; called when a daemon has taken over what there is.
    fn shed_belts(&self) -> Result<(), Foreign>;
    /// Lets connections of a run from before, by the cookies of their sockets, go on for `time` and no longer.
    fn keep(&self, run: RunId, cookies: &[u64], time: Duration) -> Result<(), Foreign>;
    /// Forgets those that have ended.
    fn unkeep(&self, run: RunId, gone: &[Connection]) -> Result<(), Foreign>;
    /// For how much longer what a run keeps may go on: nothing at all where that is over, none where it keeps nothing.
    fn kept_for(&self, run: RunId) -> Option<Duration>;
    /// Maps that the proxy works with, in the kernel side's order.
    fn descriptors(&self) -> Result<Vec<OwnedFd>, Foreign>;
    /// Removes what no process can ask for any more; called every few seconds.
    fn sweep(&self);
    /// Takes everything out of the kernel; called when no captured process is left and the daemon stops.
    fn remove(&self) -> Result<(), Foreign>;
}

/// Puts the kernel side in force.
pub type Establish = Box<dyn FnOnce(&Places) -> Result<Arc<dyn Capture>, Foreign>>;
/// Opens the journal.
pub type OpenJournal = Box<dyn FnOnce(&Places, Accounts) -> Result<OwnedFd, Foreign>>;

/// What the helper is made of, from the wiring.
pub struct Options {
    /// The installation.
    pub places: Places,
    /// How this program becomes the other roles.
    pub roles: Roles,
    /// Whether to write the line `ready` to standard output when the daemon serves, and to close it then.
    pub announce: bool,
    /// Puts the kernel side in force; it is told to refuse everything until the roles are up.
    pub capture: Establish,
    /// Opens the journal that proxy and keeper share, making it when it is missing; the accounts are for its owner.
    pub journal: OpenJournal,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("places", &self.places)
            .field("roles", &self.roles)
            .finish_non_exhaustive()
    }
}

/// Why the daemon did not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// Not root.
    #[error("the daemon must be started by root: use `sudo`")]
    NotRoot,
    /// From inside a run.
    #[error("this process is captured itself: start the daemon from outside of the run")]
    Captured,
    /// The folders are not as they must be.
    #[error(transparent)]
    Ground(#[from] GroundError),
    /// The cgroup tree is not as it must be.
    #[error(transparent)]
    Cgroup(#[from] cgroup::CgroupError),
    /// The kernel side refused.
    #[error("the kernel side could not be put in force")]
    Capture(#[source] Foreign),
    /// The journal could not be had.
    #[error("the journal could not be opened")]
    Journal(#[source] Foreign),
    /// A system call failed.
    #[error("could not {step}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// The roles do not come up.
    #[error("the {role} {how} before it could serve")]
    Role {
        /// Which.
        role: &'static str,
        /// How it ended.
        how: String,
    },
}

fn failed(step: &'static str) -> impl FnOnce(io::Error) -> HelperError {
    move |source| HelperError::Io { step, source }
}

/// `interceptor daemon`: stands up, serves until it is told to end, and leaves the kernel side in force when captured
/// processes remain.
pub fn run(options: Options) -> Result<(), HelperError> {
    if !geteuid().is_root() {
        return Err(HelperError::NotRoot);
    }
    if Tree::is_captured("self").map_err(failed("read this process's own cgroup"))? {
        return Err(HelperError::Captured);
    }
    // Before anything is opened.
    let passed = Passed::take();
    harden().map_err(failed("take from itself what it does not need"))?;
    let Options { places, roles, announce, capture, journal } = options;
    let accounts = Accounts::find();
    ground::prepare(&places, accounts)?;
    // Sockets are nobody's but root's from the moment that they exist.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let _only_one = lock(&places)?;
    let tree = Tree::find(&places)?;
    tree.prepare()?;
    let capture = capture(&places).map_err(HelperError::Capture)?;
    capture.deny_all(true).map_err(HelperError::Capture)?;
    let handed = Handed {
        journal: journal(&places, accounts).map_err(HelperError::Journal)?,
        control: ground::listener(&places.control_socket())?,
        approvals: ground::approvers_listener(&places.approvals_socket())?,
        maps: capture.descriptors().map_err(HelperError::Capture)?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed("start the runtime"))?;
    let as_what = Become { arguments: roles.holder.clone(), account: accounts.holder };
    let held = Held::new(&places, &tree, passed, as_what);
    // One thread for everything that starts a role: a role dies with the thread that started it.
    runtime.block_on(async {
        let supervisor = Supervisor::new(places, tree, capture, (roles, accounts), handed, held);
        supervisor.serve(move || if announce { say_ready() } else { Ok(()) }).await
    })
}

/// Before there are other threads, which would not have it.
fn harden() -> io::Result<()> {
    prctl::set_dumpable(false)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    roles::keep_from_being_ended("self");
    prctl::set_no_new_privs()?;
    Filter::of_helper()?.install()
}

/// Tells a waiting launcher, and lets go of it.
fn say_ready() -> io::Result<()> {
    let mut output = io::stdout();
    output.write_all(b"ready\n")?;
    output.flush()?;
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    launch::syscalls::place(std::os::fd::AsFd::as_fd(&null), 1)
}
