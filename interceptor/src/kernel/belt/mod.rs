//! The belt to the braces: nftables rules that drop what a run's packets may never be, and count each.
//!
//! The programs are what captures; where all of them are in force, nothing comes this far. A run in a network namespace of
//! its own gets a table there that lets nothing leave or enter but through `lo`. One that shares its network gets a table
//! there that drops what its cgroup's sockets send by any other interface; packets of nobody else are touched.
//!
//! A run that root has let go of passes it for as long, and so do connections from before its capture that may go on: they
//! stand in sets that forget them in time by themselves.
//!
//! Promises: rules are put in as a whole; they outlive this process; a counter is told once, and so is that somebody else
//! changed the rules, which are then put back. Netfilter's output hook comes before a cgroup's egress program: what reaches
//! the belt has passed the programs at connect and send, and the egress program was still to come.

mod ruleset;

use std::{
    collections::BTreeMap,
    fmt, io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use interceptor_core::model::RunId;
use nix::{
    libc,
    sched::{CloneFlags, setns, unshare},
};

use self::ruleset::{chain, chains, element, kept_element, object, released_set, rule, ruleset, set, table};
use super::{
    KernelError, cgroup,
    maps::lock,
    nftables::{Attributes, Nftables, Verb, find},
};
use crate::places::Places;

/// The counter of what would have left, and of what would have entered.
const LEFT: &str = "left";
const ENTERED: &str = "entered";

/// What a belt goes around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Girth {
    /// All of a network namespace.
    Namespace,
    /// The sockets of a cgroup and of those below it.
    Cgroup {
        /// How deep it lies.
        level: u32,
        /// Its number: one that is made anew has another.
        id: u64,
    },
}

impl Girth {
    /// Around the cgroup that is there now.
    pub fn of_cgroup(path: &Path) -> Result<Self, KernelError> {
        Ok(Self::Cgroup { level: cgroup::level(path)?, id: cgroup::id(path)? })
    }
}

/// What a belt around a cgroup lets by for a while.
#[derive(Debug, Clone, Default)]
pub struct Passing {
    /// For how much longer everything may pass, if it ever might.
    pub released: Option<Duration>,
    /// Connections from before that may, by their own and their peers' addresses,
    pub kept: Vec<(SocketAddr, SocketAddr)>,
    /// and for how much longer.
    pub kept_for: Duration,
}

/// What a belt has to say.
#[derive(Debug)]
enum Alarm {
    /// It held something.
    Caught { left: u64, entered: u64, was_open: bool },
    /// Somebody else changed or removed its rules. They are back.
    PutBack,
    /// They are not.
    Lost(io::Error),
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caught { left, entered, was_open: true } => write!(
                f,
                "caught by the belt: {left} packets that would have left, and {entered} that would have entered, by another \
                 interface than lo; the run, or connections from before, were let go of for a while: what is left of that is \
                 caught, too"
            ),
            Self::Caught { left, entered, was_open: false } => write!(
                f,
                "caught by the belt, having passed the programs at connect and send: {left} packets that would have left, and \
                 {entered} that would have entered, by another interface than lo"
            ),
            Self::PutBack => f.write_str(
                "the belt's nftables rules were changed or removed by somebody, and were put back",
            ),
            Self::Lost(error) => write!(
                f,
                "the belt's nftables rules were changed or removed by somebody, and could not be put back: {error}"
            ),
        }
    }
}

/// The belts of one installation's runs.
#[derive(Debug)]
pub struct Belts {
    /// What every table's name begins with.
    stem: String,
    worn: Mutex<BTreeMap<RunId, Belt>>,
}

impl Belts {
    /// None so far.
    pub fn of(places: &Places) -> Self {
        Self { stem: format!("{}-", places.table()), worn: Mutex::default() }
    }

    /// Puts a belt on a run, in place of one that an earlier daemon put on it there, which is asked what it has caught.
    /// `netfilter` is a socket for `NETLINK_NETFILTER` in the run's network namespace.
    pub fn put_on(
        &self,
        run: RunId,
        netfilter: OwnedFd,
        girth: Girth,
        passing: Passing,
    ) -> Result<(), KernelError> {
        let table = self.table_of(run);
        let belt = Belt::put_on(netfilter, table, girth, passing).map_err(KernelError::belt("put in"))?;
        lock(&self.worn).insert(run, belt);
        Ok(())
    }

    /// Lets connections from before that are no more pass a run's belt no longer.
    pub fn unkeep(&self, run: RunId, gone: &[(SocketAddr, SocketAddr)]) -> Result<(), KernelError> {
        match lock(&self.worn).get_mut(&run) {
            Some(belt) => belt.unkeep(gone).map_err(KernelError::belt("close")),
            None => Ok(()),
        }
    }

    /// Lets a run's cgroup pass the belt that a daemon put on it in `namespace`, for `time`. Where there is none, nothing is
    /// held.
    pub fn let_pass(
        &self,
        run: RunId,
        namespace: BorrowedFd<'_>,
        cgroup: &Path,
        time: Duration,
    ) -> Result<(), KernelError> {
        let (table, id) = (self.table_of(run), cgroup::id(cgroup)?);
        // One that is there already would keep its time.
        let opened = element(&table, set::RELEASED, &id.to_ne_bytes(), time);
        let batch = [(Verb::DeleteElement, released_set(&table)), (Verb::NewElement, opened)];
        let opened = within(namespace, Nftables::open).and_then(|mut nftables| nftables.commit(&batch));
        match opened {
            Err(error) if !is_absent(&error) => Err(KernelError::belt("open")(error)),
            _ => Ok(()),
        }
    }

    fn table_of(&self, run: RunId) -> String {
        format!("{}{run}", self.stem)
    }

    /// Takes a run's belt off. `elsewhere` is where to look for one that an earlier daemon put on.
    pub fn take_off(&self, run: RunId, elsewhere: Option<BorrowedFd<'_>>) -> Result<(), KernelError> {
        let worn = lock(&self.worn).remove(&run);
        let taken = match (worn, elsewhere) {
            // It goes with the namespace.
            (Some(Belt { girth: Girth::Namespace, .. }), _) | (None, None) => Ok(()),
            (Some(mut belt), _) => remove(&mut belt.nftables, &belt.table),
            (None, Some(namespace)) => match within(namespace, Nftables::open) {
                Ok(mut nftables) => remove(&mut nftables, &self.table_of(run)),
                Err(error) if is_absent(&error) => Ok(()),
                Err(error) => Err(error),
            },
        };
        taken.map_err(KernelError::belt("remove"))
    }

    /// Looks at a run's belt, or at every one, and says what is to be said.
    pub fn inspect(&self, only: Option<RunId>) -> Vec<(RunId, String)> {
        let mut worn = lock(&self.worn);
        let chosen = worn.iter_mut().filter(|(run, _)| only.is_none_or(|only| **run == only));
        chosen
            .flat_map(|(run, belt)| belt.inspect().into_iter().map(|alarm| (*run, alarm.to_string())))
            .collect()
    }

    /// Removes, in this process's own network namespace, belts of runs that are gone.
    pub fn shed(&self) -> Result<(), KernelError> {
        let shed = || {
            let mut nftables = Nftables::open()?;
            let tables = nftables.list(Verb::GetTable, &Attributes::default())?;
            let worn = lock(&self.worn);
            let gone = tables.iter().filter_map(|table| {
                let name = std::str::from_utf8(find(table, table::NAME)?).ok()?.trim_end_matches('\0');
                let run: RunId = name.strip_prefix(&self.stem)?.parse().ok()?;
                (!worn.contains_key(&run)).then_some(name)
            });
            for name in gone {
                remove(&mut nftables, name)?;
            }
            Ok(())
        };
        shed().map_err(KernelError::belt("remove"))
    }
}

/// Tries both kinds of belt in a network namespace that nobody else sees.
pub(super) fn probe() -> Result<(), KernelError> {
    let tried = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let mut nftables = Nftables::open()?;
        for girth in [Girth::Namespace, Girth::Cgroup { level: 1, id: 1 }] {
            let time = Duration::from_secs(1);
            let passing = Passing { released: Some(time), kept: probe_connections(), kept_for: time };
            nftables.commit(&ruleset("probe", girth, &passing))?;
        }
        Ok(())
    });
    joined(tried.join()).map_err(KernelError::belt("put in"))
}

fn probe_connections() -> Vec<(SocketAddr, SocketAddr)> {
    use std::net::{Ipv4Addr, Ipv6Addr};
    [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
        .map(|address| (SocketAddr::new(address, 1), SocketAddr::new(address, 2)))
        .to_vec()
}

/// One run's rules.
#[derive(Debug)]
struct Belt {
    nftables: Nftables,
    table: String,
    girth: Girth,
    /// What passes, counted from here on.
    passing: Passing,
    since: Instant,
    /// Whether anything ever might.
    was_open: bool,
    /// The rules as the kernel showed them when they were put in.
    shape: Vec<u8>,
    /// What is to be said at the next look.
    unsaid: Vec<Alarm>,
    lost: bool,
}

impl Belt {
    fn put_on(netfilter: OwnedFd, table: String, girth: Girth, passing: Passing) -> io::Result<Self> {
        let nftables = Nftables::over(netfilter)?;
        let was_open = passing.released.is_some() || !passing.kept.is_empty();
        let (since, shape, unsaid) = (Instant::now(), Vec::new(), Vec::new());
        let mut belt = Self { nftables, table, girth, passing, since, was_open, shape, unsaid, lost: false };
        match belt.take() {
            Ok(caught) => belt.unsaid.extend(caught),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
        belt.fasten()?;
        Ok(belt)
    }

    fn fasten(&mut self) -> io::Result<()> {
        let left = |time: Duration| time.saturating_sub(self.since.elapsed());
        let passing = Passing {
            released: self.passing.released.map(left),
            kept: self.passing.kept.clone(),
            kept_for: left(self.passing.kept_for),
        };
        self.nftables.commit(&ruleset(&self.table, self.girth, &passing))?;
        self.shape = self.look()?;
        Ok(())
    }

    fn unkeep(&mut self, gone: &[(SocketAddr, SocketAddr)]) -> io::Result<()> {
        self.passing.kept.retain(|kept| !gone.contains(kept));
        for connection in gone {
            let batch = [(Verb::DeleteElement, kept_element(&self.table, *connection, None))];
            match self.nftables.commit(&batch) {
                // Its time is over by itself.
                Err(error) if !is_absent(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn inspect(&mut self) -> Vec<Alarm> {
        let mut alarms = std::mem::take(&mut self.unsaid);
        // Where it cannot be read, the shape is another, too.
        alarms.extend(self.take().ok().flatten());
        if self.look().is_ok_and(|shape| shape == self.shape) {
            return alarms;
        }
        match self.fasten() {
            Ok(()) => {
                self.lost = false;
                alarms.push(Alarm::PutBack);
            }
            Err(error) if !self.lost => {
                self.lost = true;
                alarms.push(Alarm::Lost(error));
            }
            Err(_) => {}
        }
        alarms
    }

    /// What was caught since it was last asked.
    fn take(&mut self) -> io::Result<Option<Alarm>> {
        let left = self.take_counter(LEFT)?;
        let entered = match self.girth {
            Girth::Namespace => self.take_counter(ENTERED)?,
            Girth::Cgroup { .. } => 0,
        };
        let was_open = self.was_open;
        Ok((left > 0 || entered > 0).then_some(Alarm::Caught { left, entered, was_open }))
    }

    fn take_counter(&mut self, name: &str) -> io::Result<u64> {
        let named = Attributes::default().text(object::TABLE, &self.table).text(object::NAME, name);
        let found = self.nftables.get(Verb::TakeObject, &named.number(object::KIND, object::COUNTER))?;
        let packets = find(&found, object::DATA).and_then(|data| find(data, object::PACKETS));
        let packets = packets.and_then(|packets| packets.try_into().ok()).map(u64::from_be_bytes);
        packets.ok_or_else(|| io::Error::other("a counter of nftables cannot be read"))
    }

    /// The table, its chains and its rules as the kernel shows them. Each has a number that no other ever gets.
    fn look(&mut self) -> io::Result<Vec<u8>> {
        let table = Attributes::default().text(table::NAME, &self.table);
        let mut shape = self.nftables.get(Verb::GetTable, &table)?;
        for chain in chains(self.girth) {
            let named = Attributes::default().text(chain::TABLE, &self.table).text(chain::NAME, chain.name);
            shape.extend(self.nftables.get(Verb::GetChain, &named)?);
        }
        let rules = Attributes::default().text(rule::TABLE, &self.table);
        shape.extend(self.nftables.list(Verb::GetRule, &rules)?.concat());
        Ok(shape)
    }
}

fn remove(nftables: &mut Nftables, table: &str) -> io::Result<()> {
    match nftables.commit(&[(Verb::DeleteTable, Attributes::default().text(table::NAME, table))]) {
        Err(error) if !is_absent(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Whether there is no such table, or can be none since the kernel has no nftables.
fn is_absent(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    matches!(code, Some(libc::ENOENT | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT))
}

/// Does something on a thread in `namespace`, which ends with it.
fn within<T: Send + 'static>(
    namespace: BorrowedFd<'_>,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let namespace = namespace.try_clone_to_owned()?;
    let thread = thread::Builder::new().name("belt".to_owned()).spawn(move || {
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
        work()
    })?;
    joined(thread.join())
}

fn joined<T>(ended: thread::Result<io::Result<T>>) -> io::Result<T> {
    ended.unwrap_or_else(|_| Err(io::Error::other("the thread that speaks to nftables ended early")))
}
