//! The system calls that a run may make, and those of the daemon's own processes, of which one holds listeners.
//!
//! Strategy: two filters. The first lets only calls through that are known to this build; a newer one answers
//! `ENOSYS`, as on an older kernel, and so does clone3(2), whose flags no filter can read: libraries then use
//! clone(2). The second refuses, with `EPERM`, what leads around the hooks or out of the run: families that no hook
//! sees, io_uring, namespaces, mounts, kernel programs, keyrings, typing into terminals. Both hold for every process of
//! the run and cannot be taken off; a call of another architecture (32-bit programs) ends its process. A run has a third
//! one, which has its bind(2), connect(2) and sendto(2) by name wait for the [porter](super::porter).

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use serde::{Deserialize, Serialize};

use super::{Elevation, porter, syscalls};

/// The last system call that was looked at: `file_setattr`, of Linux 6.17. Those before it are known on every
/// architecture.
const LAST: i64 = 469;

/// `open_tree_attr`, of Linux 6.15.
const OPEN_TREE_ATTR: i64 = 467;

/// Refused whatever their arguments.
const NEVER: &[i64] = &[
    // Sockets and connections made by the kernel behind every filter's back.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Other namespaces, other views.
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_open_tree,
    OPEN_TREE_ATTR,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    // Files by number, past every mount.
    libc::SYS_open_by_handle_at,
    // The kernel itself.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    // Keyrings belong to users, not to runs, and the kernel asks helpers on the host for keys.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
];

/// Every kind of namespace.
const NAMESPACES: &[libc::c_int] = &[
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// `CLONE_NEWTIME`, which shares its bit with the exit signal of clone(2): for unshare(2) alone.
const CLONE_NEWTIME: libc::c_int = 0x80;

/// Families that runs have sockets of; the hooks see to the Internet's.
const FAMILIES: &[libc::c_int] = &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Refused to the daemon's roles besides: nobody who takes one over may look into the other.
const NEVER_OF_ROLES: &[i64] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
];

/// What the helper does that nobody else may: kernel programs and where they are pinned, listeners in other networks, the end of
/// sockets that processes bring into a captured cgroup.
const ONLY_OF_THE_HELPER: &[i64] = &[libc::SYS_bpf, libc::SYS_mount, libc::SYS_setns, libc::SYS_pidfd_getfd];

/// What the helper speaks to: interfaces, sockets, and the rules of belts.
const HELPERS_NETLINK: &[libc::c_int] =
    &[libc::NETLINK_ROUTE, libc::NETLINK_SOCK_DIAG, libc::NETLINK_NETFILTER];

/// What the process that holds listeners may do with whatever it has: close it, and end.
const HOLDING: &[i64] = &[
    libc::SYS_close,
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// What it may do only where it is spoken to.
const HEARING: &[i64] = &[libc::SYS_recvmsg, libc::SYS_recvfrom, libc::SYS_sendmsg, libc::SYS_getsockopt];

/// The filters of one process tree, ready to be installed.
pub(crate) struct Filter(Vec<BpfProgram>);

/// What the kernel side does about Unix sockets of runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Guard {
    /// Its hooks refuse what the porter does not do itself.
    Hooks,
    /// The kernel has no such hooks (before Linux 6.7).
    Nothing,
}

/// The filters of a run.
pub(super) struct RunFilter {
    guard: Guard,
    filter: Filter,
    asking: BpfProgram,
    /// For a run whose set-user-id programs work.
    unaudited: Option<BpfProgram>,
}

impl RunFilter {
    /// Without hooks, datagrams could be sent by name past the porter: then there are no sockets for them.
    pub(super) fn new(guard: Guard, elevation: Elevation) -> io::Result<Self> {
        let mut refused = refused().map_err(io::Error::other)?;
        if guard == Guard::Nothing {
            for call in [libc::SYS_socket, libc::SYS_socketpair] {
                refused.entry(call).or_default().extend(datagrams().map_err(io::Error::other)?);
            }
        }
        let unaudited = match elevation {
            Elevation::Refused => None,
            Elevation::BySetUserId => Some(unaudited()?),
        };
        Ok(Self { guard, filter: Filter::of(refused)?, asking: asking()?, unaudited })
    }

    /// What it was made for.
    pub(super) fn guard(&self) -> Guard {
        self.guard
    }

    /// Holds from now on, for the calling thread and whatever it becomes or makes. What is asked waits at what is returned.
    pub(super) fn install(&self) -> io::Result<OwnedFd> {
        self.filter.install()?;
        if let Some(program) = &self.unaudited {
            // What was put in force last has the word where several refuse.
            syscalls::install_filter(program, 0)?;
        }
        porter::install(&self.asking)
    }
}

impl Filter {
    /// For a role of the daemon's, which needs bpf(2) for the maps that it is handed and has no right to more.
    pub(crate) fn of_role() -> io::Result<Self> {
        let mut refused = refused().map_err(io::Error::other)?;
        refused.remove(&libc::SYS_bpf);
        refused.extend(NEVER_OF_ROLES.iter().map(|number| (*number, Vec::new())));
        Self::of(refused)
    }

    /// For the helper, which is root: what it needs of that, and no more. Its roles begin with it and add their own.
    pub(crate) fn of_helper() -> io::Result<Self> {
        let mut refused = refused().map_err(io::Error::other)?;
        refused.extend(NEVER_OF_ROLES.iter().map(|number| (*number, Vec::new())));
        for number in ONLY_OF_THE_HELPER {
            refused.remove(number);
        }
        let only_networks = || -> Result<_, seccompiler::BackendError> {
            let others =
                NAMESPACES.iter().filter(|flag| **flag != libc::CLONE_NEWNET).chain([&CLONE_NEWTIME]);
            let unshared =
                others.map(|flag| SeccompRule::new(vec![has(0, *flag)?])).collect::<Result<_, _>>()?;
            let entered = vec![SeccompRule::new(vec![unlike(1, libc::CLONE_NEWNET)?])?];
            Ok([
                (libc::SYS_unshare, unshared),
                (libc::SYS_setns, entered),
                (libc::SYS_socket, sockets(HELPERS_NETLINK)?),
            ])
        };
        refused.extend(only_networks().map_err(io::Error::other)?);
        Self::of(refused)
    }

    /// For the process that holds listeners: it may accept at `door`, and hear and speak on the descriptor `spoken_on`; neither on
    /// anything that it holds.
    pub(crate) fn of_holder(door: BorrowedFd<'_>, spoken_on: RawFd) -> io::Result<Self> {
        let only = |argument, value| -> io::Result<Vec<SeccompRule>> {
            let like = like(argument, value).and_then(|like| SeccompRule::new(vec![like]));
            Ok(vec![like.map_err(io::Error::other)?])
        };
        let mut rules: Rules = HOLDING.iter().map(|number| (*number, Vec::new())).collect();
        for number in HEARING {
            rules.insert(*number, only(0, spoken_on)?);
        }
        rules.insert(libc::SYS_accept4, only(0, door.as_raw_fd())?);
        // Whether a descriptor is open: a build for tests asks before it closes one.
        rules.insert(libc::SYS_fcntl, only(1, libc::F_GETFD)?);
        Ok(Self(vec![compiled(rules, errno(libc::EPERM), SeccompAction::Allow)?]))
    }

    fn of(refused: Rules) -> io::Result<Self> {
        Ok(Self(vec![
            compiled(known(), errno(libc::ENOSYS), SeccompAction::Allow)?,
            compiled(refused, SeccompAction::Allow, errno(libc::EPERM))?,
        ]))
    }

    /// Holds from now on, for the calling thread and whatever it becomes or makes; it must have given up new privileges, or be
    /// root.
    pub(crate) fn install(&self) -> io::Result<()> {
        self.0.iter().try_for_each(|program| syscalls::install_filter(program, 0).map(drop))
    }
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn errno(number: libc::c_int) -> SeccompAction {
    SeccompAction::Errno(number.unsigned_abs())
}

fn compiled(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> io::Result<BpfProgram> {
    #[cfg(target_arch = "x86_64")]
    const ARCHITECTURE: TargetArch = TargetArch::x86_64;
    #[cfg(target_arch = "aarch64")]
    const ARCHITECTURE: TargetArch = TargetArch::aarch64;
    let filter = SeccompFilter::new(rules, otherwise, matched, ARCHITECTURE).map_err(io::Error::other)?;
    BpfProgram::try_from(filter).map_err(io::Error::other)
}

/// The calls that name a socket's address. The library knows no action that asks: another one stands in.
fn asking() -> io::Result<BpfProgram> {
    const RETURN: u16 = 0x06;
    let named = SeccompCondition::new(4, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0);
    let named = named.and_then(|named| SeccompRule::new(vec![named])).map_err(io::Error::other)?;
    let rules = BTreeMap::from([
        (libc::SYS_bind, Vec::new()),
        (libc::SYS_connect, Vec::new()),
        (libc::SYS_sendto, vec![named]),
    ]);
    let mut program = compiled(rules, SeccompAction::Allow, SeccompAction::Trace(0))?;
    for instruction in &mut program {
        if instruction.code == RETURN && instruction.k == libc::SECCOMP_RET_TRACE {
            instruction.k = libc::SECCOMP_RET_USER_NOTIF;
        }
    }
    Ok(program)
}

/// Tells programs that want to write to the host's audit log that there is none: those that act for a user give up where
/// they are not allowed to.
fn unaudited() -> io::Result<BpfProgram> {
    let audit = || -> Result<_, seccompiler::BackendError> {
        SeccompRule::new(vec![like(0, libc::AF_NETLINK)?, like(2, libc::NETLINK_AUDIT)?])
    };
    let rules = BTreeMap::from([(libc::SYS_socket, vec![audit().map_err(io::Error::other)?])]);
    let nothing = SeccompAction::Errno(libc::EPROTONOSUPPORT.unsigned_abs());
    compiled(rules, SeccompAction::Allow, nothing)
}

/// Sockets of the Unix family for datagrams, by both of their names.
fn datagrams() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    const KINDS: u64 = 0xf;
    [libc::SOCK_DGRAM, libc::SOCK_RAW]
        .into_iter()
        .map(|kind| {
            let kind = condition(1, SeccompCmpOp::MaskedEq(KINDS), kind)?;
            SeccompRule::new(vec![like(0, libc::AF_UNIX)?, kind])
        })
        .collect()
}

/// Every call up to [`LAST`], but for clone3.
fn known() -> Rules {
    (0..=LAST).filter(|number| *number != libc::SYS_clone3).map(|number| (number, Vec::new())).collect()
}

fn refused() -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = NEVER.iter().map(|number| (*number, Vec::new())).collect();
    rules.insert(libc::SYS_socket, sockets(&[libc::NETLINK_ROUTE])?);
    rules.insert(libc::SYS_socketpair, vec![SeccompRule::new(vec![unlike(0, libc::AF_UNIX)?])?]);
    let namespaces = NAMESPACES.iter().map(|flag| SeccompRule::new(vec![has(0, *flag)?]));
    let mut unshared = namespaces.collect::<Result<Vec<_>, _>>()?;
    rules.insert(libc::SYS_clone, unshared.clone());
    unshared.push(SeccompRule::new(vec![has(0, CLONE_NEWTIME)?])?);
    rules.insert(libc::SYS_unshare, unshared);
    rules.insert(
        libc::SYS_ioctl,
        vec![
            SeccompRule::new(vec![like(1, libc::TIOCSTI as libc::c_int)?])?,
            SeccompRule::new(vec![like(1, libc::TIOCLINUX as libc::c_int)?])?,
        ],
    );
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_mknod, device_nodes(1)?);
    rules.insert(libc::SYS_mknodat, device_nodes(2)?);
    Ok(rules)
}

/// Sockets of all families but [`FAMILIES`], and of all protocols of netlink but these.
fn sockets(netlink: &[libc::c_int]) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    // None of them: each condition must hold.
    let families = FAMILIES.iter().map(|family| unlike(0, *family));
    let protocols = netlink.iter().map(|protocol| unlike(2, *protocol));
    Ok(vec![
        SeccompRule::new(families.collect::<Result<_, _>>()?)?,
        SeccompRule::new(
            [like(0, libc::AF_NETLINK)].into_iter().chain(protocols).collect::<Result<_, _>>()?,
        )?,
    ])
}

type Condition = Result<SeccompCondition, seccompiler::BackendError>;

fn condition(argument: u8, operator: SeccompCmpOp, value: libc::c_int) -> Condition {
    // The kernel, too, reads only the lower half of these arguments.
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, u64::from(value.cast_unsigned()))
}

fn like(argument: u8, value: libc::c_int) -> Condition {
    condition(argument, SeccompCmpOp::Eq, value)
}

fn unlike(argument: u8, value: libc::c_int) -> Condition {
    condition(argument, SeccompCmpOp::Ne, value)
}

fn has(argument: u8, flag: libc::c_int) -> Condition {
    condition(argument, SeccompCmpOp::MaskedEq(u64::from(flag.cast_unsigned())), flag)
}

/// A node of a device, whoever may make one: it would lie on the host's own file system.
fn device_nodes(mode: u8) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let kinds = [libc::S_IFCHR, libc::S_IFBLK].into_iter();
    kinds
        .map(|kind| {
            let operator = SeccompCmpOp::MaskedEq(libc::S_IFMT.into());
            SeccompRule::new(vec![condition(mode, operator, kind.cast_signed())?])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use nix::{
        errno::Errno,
        sched::{CloneFlags, setns, unshare},
        sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket},
    };

    use super::*;

    #[test]
    fn the_filters_fit_into_the_kernel() {
        let runs = [Guard::Hooks, Guard::Nothing]
            .map(|guard| RunFilter::new(guard, Elevation::BySetUserId).expect("a run's"));
        let door = io::stdin();
        let own = [Filter::of_role(), Filter::of_helper(), Filter::of_holder(door.as_fd(), 4)]
            .map(|filter| filter.expect("a role's"));
        let more = runs.iter().flat_map(|run| run.unaudited.iter().chain([&run.asking]));
        let both = runs.iter().map(|run| &run.filter).chain(&own).flat_map(|Filter(programs)| programs);
        // BPF_MAXINSNS
        assert!(both.chain(more).all(|program| !program.is_empty() && program.len() <= 4096));
    }

    /// What a thread with the helper's filter can still do, of what it could do without.
    #[test]
    fn the_helper_keeps_what_it_needs_of_root() {
        let tried = std::thread::spawn(|| {
            // As root; the helper gives up new privileges besides.
            Filter::of_helper().and_then(|filter| filter.install()).expect("it is taken");
            let network = std::fs::File::open("/proc/thread-self/ns/net").expect("its own network");
            let netlink =
                |protocol| socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol);
            let needed = [
                setns(&network, CloneFlags::CLONE_NEWNET).is_ok(),
                netlink(SockProtocol::NetlinkSockDiag).is_ok(),
                netlink(SockProtocol::NetlinkNetFilter).is_ok(),
                unshare(CloneFlags::CLONE_NEWNET).is_ok(),
            ];
            let itself = std::process::id().cast_signed();
            // SAFETY: none of them is passed memory.
            let raw = |number, one: i64| unsafe { libc::syscall(number, one, 0, 0, 0, 0) } < 0 && Errno::last() == Errno::EPERM;
            let refused = [
                setns(
                    std::fs::File::open("/proc/self/ns/mnt").expect("its own mounts"),
                    CloneFlags::CLONE_NEWNS,
                ) == Err(Errno::EPERM),
                unshare(CloneFlags::CLONE_NEWNS) == Err(Errno::EPERM),
                netlink(SockProtocol::NetlinkAudit).err() == Some(Errno::EPERM),
                socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None).err()
                    == Some(Errno::EPERM),
                raw(libc::SYS_ptrace, libc::PTRACE_TRACEME.into()),
                raw(libc::SYS_process_vm_writev, itself.into()),
                raw(libc::SYS_io_uring_setup, 1),
                raw(libc::SYS_finit_module, -1),
                raw(libc::SYS_kexec_load, 0),
                raw(libc::SYS_keyctl, 0),
            ];
            (needed, refused)
        });
        assert_eq!(tried.join().expect("it does not panic"), ([true; 4], [true; 10]));
    }

    #[test]
    fn three_calls_are_asked_about() {
        let asks = asking().expect("a program");
        let asked = asks.iter().filter(|one| one.k == libc::SECCOMP_RET_USER_NOTIF).count();
        assert!(asked > 0 && asks.iter().all(|one| one.k != libc::SECCOMP_RET_TRACE));
    }
}
