//! The unprivileged roles: the keeper and the proxy, started together, since neither is of use without the other.
//!
//! Each runs as its own user with no capability and no way to one; its channel to the helper is its standard input;
//! it dies with the helper. The process that [holds](super::held) listeners is started the same way, and outlives the helper.

use std::{
    ffi::OsString,
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Child, Command, ExitStatus, Stdio},
};

use nix::{
    sys::{
        prctl,
        resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit},
        signal::Signal,
        socket::{AddressFamily, SockFlag, SockType, socketpair},
    },
    unistd::{Gid, Uid},
};

use super::{
    ground::Accounts,
    messages::{Attached, FromKeeper, FromProxy, ToKeeper, ToProxy},
};
use crate::{
    channel::{self, Channel},
    engine::{FromBroker, ToBroker},
    launch::{
        filter::Filter,
        privileges::{self, Gain},
        syscalls,
    },
};

/// How many of systemd's credentials are handed on: as many descriptors as a message takes besides the others.
const CREDENTIALS: usize = channel::MAX_DESCRIPTORS - 2;

/// How this program is told to be a role: its arguments.
#[derive(Debug, Clone)]
pub struct Roles {
    /// As the proxy.
    pub proxy: Vec<OsString>,
    /// As the keeper.
    pub keeper: Vec<OsString>,
    /// As the process that holds listeners when no daemon lives.
    pub holder: Vec<OsString>,
}

/// What the roles get from the helper besides their channels.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) journal: OwnedFd,
    pub(super) control: OwnedFd,
    pub(super) approvals: OwnedFd,
    pub(super) maps: Vec<OwnedFd>,
}

/// A running pair.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) proxy: Child,
    pub(super) keeper: Child,
    pub(super) to_proxy: Channel<ToProxy, FromProxy>,
    pub(super) to_keeper: Channel<ToKeeper, FromKeeper>,
}

impl Pair {
    /// Starts both and hands them what they need. To be called from the thread with which they are to die.
    pub(super) fn start(roles: &Roles, accounts: Accounts, handed: &Handed) -> io::Result<Self> {
        let (to_keeper, keepers) = channel::pair::<ToKeeper, FromKeeper>()?;
        let (to_proxy, proxys) = channel::pair::<ToProxy, FromProxy>()?;
        let (one, other) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let keeper = start(&roles.keeper, accounts.keeper, keepers.as_fd())?;
        let proxy = match start(&roles.proxy, accounts.proxy, proxys.as_fd()) {
            Ok(proxy) => proxy,
            Err(error) => {
                end(keeper);
                return Err(error);
            }
        };
        let pair = Self { proxy, keeper, to_proxy, to_keeper };
        match pair.hand_over(handed, one.as_fd(), other.as_fd()) {
            Ok(()) => Ok(pair),
            Err(error) => {
                pair.end();
                Err(error)
            }
        }
    }

    fn hand_over(&self, handed: &Handed, keepers: BorrowedFd<'_>, proxys: BorrowedFd<'_>) -> io::Result<()> {
        let credentials = credentials();
        let mut attached = vec![Attached::Peer, Attached::Journal];
        let mut descriptors = vec![keepers, handed.journal.as_fd()];
        for (name, file) in &credentials {
            attached.push(Attached::Credential(name.clone()));
            descriptors.push(file.as_fd());
        }
        self.to_keeper.send(&ToKeeper::Start { attached }, &descriptors).map_err(io::Error::other)?;
        let mut attached = vec![Attached::Peer, Attached::Journal, Attached::Control, Attached::Approvals];
        let mut descriptors =
            vec![proxys, handed.journal.as_fd(), handed.control.as_fd(), handed.approvals.as_fd()];
        attached.extend(handed.maps.iter().map(|_| Attached::Map));
        descriptors.extend(handed.maps.iter().map(AsFd::as_fd));
        self.to_proxy.send(&ToProxy::Start { attached }, &descriptors).map_err(io::Error::other)
    }

    /// Kills both and reaps them.
    pub(super) fn end(self) {
        end(self.proxy);
        end(self.keeper);
    }
}

/// What systemd gave the service, opened for the keeper, which may not. What cannot be opened is missed when it is
/// asked for.
fn credentials() -> Vec<(String, fs::File)> {
    let Some(folder) = std::env::var_os("CREDENTIALS_DIRECTORY") else { return Vec::new() };
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, fs::File::open(entry.path()).ok()?)))
        .take(CREDENTIALS)
        .collect()
}

/// Kills a role, if it still runs, and reaps it.
pub(super) fn end(mut role: Child) {
    let _ = role.kill();
    let _ = role.wait();
}

/// How a role ended, for the log.
pub(super) fn describe(status: ExitStatus) -> String {
    match status.signal().and_then(|number| Signal::try_from(number).ok()) {
        Some(signal) => format!("was ended by {signal}"),
        None => status.to_string(),
    }
}

/// How long a role lives.
enum Life {
    /// No longer than the thread that starts it.
    Ours,
    /// As long as it wants, in the cgroup that this is the way into; it says nothing.
    ItsOwn(fs::File),
}

/// Starts a role as `account`, with its channel as standard input. To be called from the thread with which it is to die.
pub(crate) fn start(
    arguments: &[OsString],
    account: (Uid, Gid),
    channel: BorrowedFd<'_>,
) -> io::Result<Child> {
    spawn(arguments, account, channel, Life::Ours)
}

/// Starts one that outlives this process, in the cgroup that `entry` is the way into.
pub(super) fn start_lasting(
    arguments: &[OsString],
    account: (Uid, Gid),
    channel: BorrowedFd<'_>,
    entry: fs::File,
) -> io::Result<Child> {
    spawn(arguments, account, channel, Life::ItsOwn(entry))
}

fn spawn(
    arguments: &[OsString],
    account: (Uid, Gid),
    channel: BorrowedFd<'_>,
    life: Life,
) -> io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("interceptor")
        .args(arguments)
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| kept(name.to_str())))
        .current_dir("/")
        .stdin(Stdio::from(channel.try_clone_to_owned()?))
        .stdout(Stdio::null());
    let (uid, gid) = account;
    if let Life::ItsOwn(_) = life {
        // Whoever waits for the end of what the daemon says does not wait for this one.
        command.stderr(Stdio::null());
    }
    let filter = Filter::of_role()?;
    syscalls::before_exec(&mut command, move || {
        if let Life::ItsOwn(entry) = &life {
            nix::unistd::write(entry, b"0")?;
        }
        nix::unistd::setsid()?;
        syscalls::close_from_three(true)?;
        // Many connections; and secrets that must not be swapped out.
        raise(Resource::RLIMIT_NOFILE, 1 << 16)?;
        raise(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY)?;
        privileges::drop_all(uid, gid, &[], Gain::Nothing)?;
        if let Life::Ours = life {
            // After the change of user, which clears it.
            prctl::set_pdeathsig(Signal::SIGKILL)?;
        }
        syscalls::restore_signals()?;
        filter.install()
    });
    let child = command.spawn()?;
    keep_from_being_ended(&child.id().to_string());
    Ok(child)
}

/// Without it, an agent that eats the memory would have the kernel end its guard first.
pub(super) fn keep_from_being_ended(process: &str) {
    let _ = fs::write(format!("/proc/{process}/oom_score_adj"), "-900");
}

/// Raises a limit to `wanted`, or as far as this host lets root go.
fn raise(limit: Resource, wanted: u64) -> io::Result<()> {
    if setrlimit(limit, wanted, wanted).is_ok() {
        return Ok(());
    }
    let (_, highest) = getrlimit(limit)?;
    Ok(setrlimit(limit, highest, highest)?)
}

/// Only what changes how a role logs, and whether this is a host of CI jobs.
fn kept(name: Option<&str>) -> bool {
    matches!(name, Some("PATH" | "CI" | "RUST_LOG" | "RUST_BACKTRACE" | "NO_COLOR" | "LANG" | "TZ"))
}

/// The helper's end of the proxy's life: what `main` of the proxy role begins with.
pub fn proxy_channel() -> io::Result<Channel<FromProxy, ToProxy>> {
    syscalls::take_standard_input().map(Channel::from_socket)
}

/// The same for the broker role, whose channel is to a launcher.
pub fn broker_channel() -> io::Result<Channel<FromBroker, ToBroker>> {
    syscalls::take_standard_input().map(Channel::from_socket)
}

/// The same for the keeper role.
pub fn keeper_channel() -> io::Result<Channel<FromKeeper, ToKeeper>> {
    syscalls::take_standard_input().map(Channel::from_socket)
}
