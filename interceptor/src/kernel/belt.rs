//! The belt to the braces: nftables rules that drop what a run's packets may never be, and count each.
//!
//! The programs are what captures; where all of them are in force, nothing comes this far. A run in a network namespace of
//! its own gets a table there that lets nothing leave or enter but through `lo`. One that shares its network gets a table
//! there that drops what its cgroup's sockets send by any other interface; packets of nobody else are touched.
//!
//! A run that root has let go of passes it for as long: its cgroup then stands in a set that forgets it in time by itself.
//!
//! Promises: rules are put in as a whole; they outlive this process; a counter is told once, and so is that somebody else
//! changed the rules, which are then put back. Netfilter's output hook comes before a cgroup's egress program: what reaches
//! the belt has passed the programs at connect and send, and the egress program was still to come.

use std::{
    collections::BTreeMap,
    fmt, io,
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

use super::{
    KernelError, cgroup,
    maps::lock,
    nftables::{Attributes, Nftables, Verb, find},
};
use crate::places::Places;

/// The loopback interface is the first of every network namespace.
const LOOPBACK: u32 = 1;
/// After every rule of the host's own: what leaves is decided by then.
const LAST: i32 = i32::MAX;
/// The counter of what would have left, and of what would have entered.
const LEFT: &str = "left";
const ENTERED: &str = "entered";
/// The set of cgroups that are let go of.
const RELEASED: &str = "released";

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

/// What a belt has to say.
#[derive(Debug)]
enum Alarm {
    /// It held something.
    Caught { left: u64, entered: u64, was_released: bool },
    /// Somebody else changed or removed its rules. They are back.
    PutBack,
    /// They are not.
    Lost(io::Error),
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caught { left, entered, was_released: true } => write!(
                f,
                "caught by the belt: {left} packets that would have left, and {entered} that would have entered, by another \
                 interface than lo; the run was let go of for a while, and what it opened then is caught, too"
            ),
            Self::Caught { left, entered, was_released: false } => write!(
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
    /// `netfilter` is a socket for `NETLINK_NETFILTER` in the run's network namespace; `released` says for how much longer the
    /// run is let go of, if it ever was.
    pub fn put_on(
        &self,
        run: RunId,
        netfilter: OwnedFd,
        girth: Girth,
        released: Option<Duration>,
    ) -> Result<(), KernelError> {
        let table = self.table_of(run);
        let open_until = released.map(|left| Instant::now() + left);
        let belt = Belt::put_on(netfilter, table, girth, open_until).map_err(KernelError::belt("put in"))?;
        lock(&self.worn).insert(run, belt);
        Ok(())
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
        let emptied = Attributes::default().text(set::OF_TABLE, &table).text(set::OF_SET, RELEASED);
        let batch = [(Verb::DeleteElement, emptied), (Verb::NewElement, element(&table, id, time))];
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
            nftables.commit(&ruleset("probe", girth, Some(Duration::from_secs(1))))?;
        }
        Ok(())
    });
    joined(tried.join()).map_err(KernelError::belt("put in"))
}

/// One run's rules.
#[derive(Debug)]
struct Belt {
    nftables: Nftables,
    table: String,
    girth: Girth,
    /// Until when its cgroup passes, or passed.
    open_until: Option<Instant>,
    /// The rules as the kernel showed them when they were put in.
    shape: Vec<u8>,
    /// What is to be said at the next look.
    unsaid: Vec<Alarm>,
    lost: bool,
}

impl Belt {
    fn put_on(
        netfilter: OwnedFd,
        table: String,
        girth: Girth,
        open_until: Option<Instant>,
    ) -> io::Result<Self> {
        let nftables = Nftables::over(netfilter)?;
        let mut belt =
            Self { nftables, table, girth, open_until, shape: Vec::new(), unsaid: Vec::new(), lost: false };
        match belt.take() {
            Ok(caught) => belt.unsaid.extend(caught),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
        belt.fasten()?;
        Ok(belt)
    }

    fn fasten(&mut self) -> io::Result<()> {
        let open_for = self.open_until.map(|until| until.saturating_duration_since(Instant::now()));
        self.nftables.commit(&ruleset(&self.table, self.girth, open_for))?;
        self.shape = self.look()?;
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
        let was_released = self.open_until.is_some();
        Ok((left > 0 || entered > 0).then_some(Alarm::Caught { left, entered, was_released }))
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

/// A base chain of a belt.
#[derive(Debug, Clone, Copy)]
struct Chain {
    name: &'static str,
    /// `NF_INET_LOCAL_IN` or `NF_INET_LOCAL_OUT`.
    hook: u32,
    /// The `meta` key of the interface that counts there.
    interface: u32,
    counter: &'static str,
}

const OUTPUT: Chain = Chain { name: "output", hook: 3, interface: 5, counter: LEFT };
const INPUT: Chain = Chain { name: "input", hook: 1, interface: 4, counter: ENTERED };

fn chains(girth: Girth) -> &'static [Chain] {
    match girth {
        Girth::Namespace => &[OUTPUT, INPUT],
        Girth::Cgroup { .. } => &[OUTPUT],
    }
}

/// Everything of a belt, in place of what has its name. A cgroup that is let go of passes it for so long.
fn ruleset(table: &str, girth: Girth, open_for: Option<Duration>) -> Vec<(Verb, Attributes)> {
    let named = Attributes::default().text(table::NAME, table);
    // A table that is not there cannot be deleted, so it is made first.
    let mut batch =
        vec![(Verb::NewTable, named.clone()), (Verb::DeleteTable, named.clone()), (Verb::NewTable, named)];
    for chain in chains(girth) {
        batch.push((Verb::NewObject, counter(table, chain.counter)));
        batch.push((Verb::NewChain, base_chain(table, chain)));
        let elsewhere = expressions::not_through(chain.interface, LOOPBACK);
        match girth {
            Girth::Namespace => {
                // What the kernel itself tells its neighbours. Captured processes have no such sockets.
                for protocol in [libc::IPPROTO_ICMPV6, libc::IPPROTO_IGMP] {
                    let kernels = expressions::of_protocol(protocol as u8);
                    let all = [&elsewhere[..], &kernels, &[expressions::drop()]].concat();
                    batch.push((Verb::NewRule, in_chain(table, chain, &all)));
                }
                let all =
                    [&elsewhere[..], &[expressions::counted(chain.counter), expressions::drop()]].concat();
                batch.push((Verb::NewRule, in_chain(table, chain, &all)));
            }
            Girth::Cgroup { level, id } => {
                batch.push((Verb::NewSet, set(table)));
                batch.extend(
                    open_for
                        .filter(|time| !time.is_zero())
                        .map(|time| (Verb::NewElement, element(table, id, time))),
                );
                let all = [
                    &elsewhere[..],
                    &expressions::of_cgroup(level, id),
                    &[expressions::found(RELEASED), expressions::accept()],
                ];
                batch.push((Verb::NewRule, in_chain(table, chain, &all.concat())));
                let all = [
                    &elsewhere[..],
                    &expressions::of_cgroup(level, id),
                    &[expressions::counted(chain.counter), expressions::drop()],
                ];
                batch.push((Verb::NewRule, in_chain(table, chain, &all.concat())));
            }
        }
    }
    batch
}

/// Cgroups that are let go of, each for a time.
fn set(table: &str) -> Attributes {
    Attributes::default()
        .text(set::TABLE, table)
        .text(set::NAME, RELEASED)
        .number(set::FLAGS, set::WITH_TIMEOUTS)
        .number(set::KEY_TYPE, set::CGROUP)
        .number(set::KEY_LENGTH, 8)
        .number(set::ID, 1)
}

fn element(table: &str, id: u64, time: Duration) -> Attributes {
    let key = Attributes::default().bytes(set::VALUE, &id.to_ne_bytes());
    // None is for ever.
    let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    let one = Attributes::default().nested(set::KEY, &key).long(set::TIMEOUT, milliseconds);
    Attributes::default()
        .text(set::OF_TABLE, table)
        .text(set::OF_SET, RELEASED)
        .nested(set::ELEMENTS, &Attributes::default().nested(set::ELEMENT, &one))
}

fn counter(table: &str, name: &str) -> Attributes {
    let zero = Attributes::default().bytes(object::BYTES, &[0; 8]).bytes(object::PACKETS, &[0; 8]);
    Attributes::default()
        .text(object::TABLE, table)
        .text(object::NAME, name)
        .number(object::KIND, object::COUNTER)
        .nested(object::DATA, &zero)
}

fn base_chain(table: &str, chain: &Chain) -> Attributes {
    let hook = Attributes::default()
        .number(chain::HOOK_NUMBER, chain.hook)
        .number(chain::HOOK_PRIORITY, LAST.cast_unsigned());
    Attributes::default()
        .text(chain::TABLE, table)
        .text(chain::NAME, chain.name)
        .nested(chain::HOOK, &hook)
        .number(chain::POLICY, chain::ACCEPT)
        .text(chain::TYPE, "filter")
}

fn in_chain(table: &str, chain: &Chain, expressions: &[Attributes]) -> Attributes {
    let list = expressions.iter().fold(Attributes::default(), |list, one| list.nested(rule::ELEMENT, one));
    Attributes::default()
        .text(rule::TABLE, table)
        .text(rule::CHAIN, chain.name)
        .nested(rule::EXPRESSIONS, &list)
}

/// `NFTA_TABLE_*`
mod table {
    pub(super) const NAME: u16 = 1;
}

/// `NFTA_CHAIN_*` and `NFTA_HOOK_*`
mod chain {
    pub(super) const TABLE: u16 = 1;
    pub(super) const NAME: u16 = 3;
    pub(super) const HOOK: u16 = 4;
    pub(super) const POLICY: u16 = 5;
    pub(super) const TYPE: u16 = 7;
    pub(super) const HOOK_NUMBER: u16 = 1;
    pub(super) const HOOK_PRIORITY: u16 = 2;
    /// `NF_ACCEPT`
    pub(super) const ACCEPT: u32 = 1;
}

/// `NFTA_RULE_*`
mod rule {
    pub(super) const TABLE: u16 = 1;
    pub(super) const CHAIN: u16 = 2;
    pub(super) const EXPRESSIONS: u16 = 4;
    pub(super) const ELEMENT: u16 = 1;
}

/// `NFTA_SET_*` and `NFTA_SET_ELEM_*`
mod set {
    pub(super) const TABLE: u16 = 1;
    pub(super) const NAME: u16 = 2;
    pub(super) const FLAGS: u16 = 3;
    pub(super) const KEY_TYPE: u16 = 4;
    pub(super) const KEY_LENGTH: u16 = 5;
    pub(super) const ID: u16 = 10;
    pub(super) const OF_TABLE: u16 = 1;
    pub(super) const OF_SET: u16 = 2;
    pub(super) const ELEMENTS: u16 = 3;
    pub(super) const ELEMENT: u16 = 1;
    pub(super) const KEY: u16 = 1;
    pub(super) const VALUE: u16 = 1;
    pub(super) const TIMEOUT: u16 = 4;
    /// `NFT_SET_TIMEOUT`
    pub(super) const WITH_TIMEOUTS: u32 = 0x10;
    /// What `nft` knows keys of this kind as; the kernel does not look at it.
    pub(super) const CGROUP: u32 = 48;
}

/// `NFTA_OBJ_*` and `NFTA_COUNTER_*`
mod object {
    pub(super) const TABLE: u16 = 1;
    pub(super) const NAME: u16 = 2;
    pub(super) const KIND: u16 = 3;
    pub(super) const DATA: u16 = 4;
    pub(super) const BYTES: u16 = 1;
    pub(super) const PACKETS: u16 = 2;
    /// `NFT_OBJECT_COUNTER`
    pub(super) const COUNTER: u32 = 1;
}

/// What rules are made of.
mod expressions {
    use super::{Attributes, object};

    /// The register that values are compared in.
    const REGISTER: u32 = 1;
    const EQUAL: u32 = 0;
    const UNEQUAL: u32 = 1;

    fn expression(name: &str, data: &Attributes) -> Attributes {
        Attributes::default().text(1, name).nested(2, data)
    }

    fn compared(operator: u32, value: &[u8]) -> Attributes {
        let value = Attributes::default().bytes(1, value);
        expression("cmp", &Attributes::default().number(1, REGISTER).number(2, operator).nested(3, &value))
    }

    fn meta(key: u32) -> Attributes {
        expression("meta", &Attributes::default().number(2, key).number(1, REGISTER))
    }

    /// Goes on where the interface is another.
    pub(super) fn not_through(key: u32, interface: u32) -> [Attributes; 2] {
        [meta(key), compared(UNEQUAL, &interface.to_ne_bytes())]
    }

    /// Goes on where the transport is this one.
    pub(super) fn of_protocol(protocol: u8) -> [Attributes; 2] {
        // `NFT_META_L4PROTO`
        [meta(16), compared(EQUAL, &[protocol])]
    }

    /// Goes on where the packet is of a socket of this cgroup, or of one below it.
    pub(super) fn of_cgroup(level: u32, id: u64) -> [Attributes; 2] {
        // `NFT_SOCKET_CGROUPV2`
        let socket = Attributes::default().number(1, 3).number(2, REGISTER).number(3, level);
        [expression("socket", &socket), compared(EQUAL, &id.to_ne_bytes())]
    }

    /// Counts.
    pub(super) fn counted(counter: &str) -> Attributes {
        expression("objref", &Attributes::default().number(1, object::COUNTER).text(2, counter))
    }

    /// Goes on where what was compared last stands in a set.
    pub(super) fn found(set: &str) -> Attributes {
        expression("lookup", &Attributes::default().text(1, set).number(2, REGISTER))
    }

    /// Ends the packet.
    pub(super) fn drop() -> Attributes {
        verdict(0)
    }

    /// Lets the packet by.
    pub(super) fn accept() -> Attributes {
        verdict(1)
    }

    /// `NF_DROP` or `NF_ACCEPT`, put into the register that holds the verdict.
    fn verdict(code: u32) -> Attributes {
        let code = Attributes::default().number(1, code);
        let verdict = Attributes::default().nested(2, &code);
        expression("immediate", &Attributes::default().number(1, 0).nested(2, &verdict))
    }
}
