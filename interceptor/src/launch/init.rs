//! The first process of a run: it builds the run from inside, starts the agent, passes signals on, reaps, and takes
//! the whole process tree with it when it ends.
//!
//! It is born in the run's cgroup and namespaces, is root until the agent is executed, and then keeps nothing but
//! the right to signal it. It must never execute anything but the agent.

use std::{
    ffi::CString,
    fs,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::PermissionsExt, net::UnixListener},
    },
    path::PathBuf,
};

use interceptor_core::model::RunId;
use nix::{
    errno::Errno,
    fcntl::OFlag,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        signal::{SigSet, Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{self, Gid, Pid, Uid},
};
use serde::{Deserialize, Serialize};

use super::{
    Capability, Elevation,
    filter::{Guard, RunFilter},
    mounts::{self, View},
    netlink,
    privileges::{self, Gain},
    probe,
    relay::Stream,
    syscalls::{self, Side},
};
use crate::{channel::Channel, engine::SOCKET};

/// From the first process to the launcher.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromInit {
    /// Namespaces, network and mounts stand. Carries the master of the agent's terminal, if it has one, and what listens where
    /// the run looks for a container engine, if it may have containers.
    Furnished,
    /// The agent's filter stands; only the agent's own process says so. Carries where its calls wait for the porter.
    Filtered { guard: Guard },
    /// The agent is executed.
    Started,
    /// Nothing was executed, or nothing could be.
    Failed { status: u8, text: String },
}

/// From the launcher to the first process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToInit {
    /// Everything outside stands: probe, then execute.
    Go,
}

/// Everything that the first process has to know.
pub(super) struct Plan {
    pub(super) run: RunId,
    pub(super) view: View,
    pub(super) streams: [Stream; 3],
    pub(super) terminal: bool,
    /// Whether to listen where the run looks for a container engine.
    pub(super) engine: bool,
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    pub(super) capabilities: Vec<Capability>,
    pub(super) elevation: Elevation,
    pub(super) folder: PathBuf,
    pub(super) executable: CString,
    pub(super) arguments: Vec<CString>,
    pub(super) environment: Vec<CString>,
    /// Whether to try the finished run before the command is executed.
    pub(super) probe: bool,
}

/// A failure before the agent ran, with the exit status that stands for it.
struct Failure {
    status: u8,
    text: String,
}

fn failure(doing: &str) -> impl FnOnce(io::Error) -> Failure + '_ {
    move |error| Failure { status: super::OWN_FAILURE, text: format!("could not {doing}: {error}") }
}

/// The life of a run's first process.
pub(super) fn live(channel: Channel<FromInit, ToInit>, plan: Plan) -> ! {
    let agent = match start(&channel, plan) {
        Ok(agent) => agent,
        Err(Failure { status, text }) => {
            let _ = channel.send(&FromInit::Failed { status, text }, &[]);
            syscalls::leave(status.into());
        }
    };
    let told = settle(&channel);
    drop(channel);
    match told {
        Ok(()) => watch(agent),
        Err(_) => syscalls::leave(super::OWN_FAILURE.into()),
    }
}

fn start(channel: &Channel<FromInit, ToInit>, mut plan: Plan) -> Result<Pid, Failure> {
    // A launcher that dies while the run is being built takes it along.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|e| failure("watch the launcher")(e.into()))?;
    unshare(CloneFlags::CLONE_NEWCGROUP).map_err(|e| failure("make a cgroup namespace")(e.into()))?;
    let v6 = netlink::furnish().map_err(failure("furnish the network namespace"))?;
    mounts::furnish(&plan.view).map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        Failure { status: super::OWN_FAILURE, text: format!("{error}: {cause}") }
    })?;
    let terminal = if plan.terminal { Some(open_terminal(plan.uid)?) } else { None };
    let engine = if plan.engine { Some(listen_as_engine()?) } else { None };
    let handed: Vec<_> = terminal.iter().map(|(master, _)| master).chain(&engine).map(AsFd::as_fd).collect();
    channel
        .send(&FromInit::Furnished, &handed)
        .map_err(|e| failure("tell the launcher")(io::Error::other(e)))?;
    drop(handed);
    drop(engine);
    let (ToInit::Go, _) =
        channel.receive().map_err(|e| failure("hear from the launcher")(io::Error::other(e)))?;
    let guard = if plan.probe { tried(plan.run, v6)? } else { Guard::Nothing };
    let filter = RunFilter::new(guard, plan.elevation).map_err(failure("make the system call filter"))?;
    if let Some((_, slave)) = terminal {
        for stream in &mut plan.streams {
            if matches!(stream, Stream::Terminal) {
                let copy = slave.try_clone().map_err(failure("open the agent's terminal"))?;
                *stream = Stream::File(copy.into());
            }
        }
    }
    execute(channel, &plan, &filter)
}

/// Listens where clients of a container engine connect to; whoever is in the run may.
fn listen_as_engine() -> Result<OwnedFd, Failure> {
    let listen = || {
        let listener = UnixListener::bind(SOCKET)?;
        fs::set_permissions(SOCKET, fs::Permissions::from_mode(0o666))?;
        Ok(listener.into())
    };
    listen().map_err(failure("listen as the container engine"))
}

/// Tries the finished run; says what holds of its Unix sockets.
fn tried(run: RunId, v6: bool) -> Result<Guard, Failure> {
    let tried = probe::reaches_proxy(run, v6).and_then(|()| probe::nothing_else(v6));
    tried.and_then(|()| probe::unix_guard()).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Failure {
            status: super::OWN_FAILURE,
            text: format!("the run is not captured, so nothing was executed: {error}{cause}"),
        }
    })
}

/// A pseudo-terminal of the run's own, which the agent's user owns.
fn open_terminal(uid: Uid) -> Result<(OwnedFd, OwnedFd), Failure> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let opened = nix::fcntl::open("/dev/pts/ptmx", flags, nix::sys::stat::Mode::empty())
        .map_err(io::Error::from)
        .and_then(|master| {
            syscalls::unlock_terminal(master.as_fd())?;
            let slave = syscalls::terminal_peer(master.as_fd())?;
            unistd::fchown(&slave, Some(uid), None)?;
            Ok((master, slave))
        });
    opened.map_err(failure("open the agent's terminal"))
}

/// Forks the agent and waits until it is executed.
fn execute(channel: &Channel<FromInit, ToInit>, plan: &Plan, filter: &RunFilter) -> Result<Pid, Failure> {
    let (told, tell) = unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| failure("make a pipe")(e.into()))?;
    match syscalls::fork().map_err(failure("fork"))? {
        Side::Parent(agent) => {
            drop(tell);
            let mut report = Vec::new();
            fs::File::from(told).read_to_end(&mut report).map_err(failure("hear from the agent"))?;
            match report.split_first() {
                None => Ok(agent),
                Some((status, text)) => {
                    Err(Failure { status: *status, text: String::from_utf8_lossy(text).into_owned() })
                }
            }
        }
        Side::Child => {
            let Failure { status, text } = become_agent(channel, plan, filter);
            let mut report = vec![status];
            report.extend(text.into_bytes());
            let _ = fs::File::from(tell).write_all(&report);
            syscalls::leave(status.into())
        }
    }
}

/// Turns into the agent; comes back only with the reason why not.
fn become_agent(channel: &Channel<FromInit, ToInit>, plan: &Plan, filter: &RunFilter) -> Failure {
    // As root still, so that it does not take giving up new privileges, which a run with sudo does not.
    let filtered = filter.install().map_err(failure("filter system calls"));
    let told = filtered.and_then(|calls| shed(plan).map(|()| calls)).and_then(|calls| {
        let told = channel.send(&FromInit::Filtered { guard: filter.guard() }, &[calls.as_fd()]);
        told.map_err(|e| failure("tell the launcher")(io::Error::other(e)))
    });
    if let Err(error) = told {
        return error;
    }
    let mut errno = syscalls::execute(&plan.executable, &plan.arguments, &plan.environment);
    if errno == Errno::ENOEXEC {
        // A script without a first line that says how: a shell's business, as everywhere.
        let mut arguments = vec![c"sh".to_owned(), plan.executable.clone()];
        arguments.extend(plan.arguments.iter().skip(1).cloned());
        errno = syscalls::execute(&c"/bin/sh".to_owned(), &arguments, &plan.environment);
    }
    let status = if errno == Errno::ENOENT { super::NOT_FOUND } else { super::NOT_EXECUTABLE };
    let command = plan.executable.to_string_lossy();
    Failure { status, text: format!("could not execute {command}: {}", io::Error::from(errno)) }
}

fn shed(plan: &Plan) -> Result<(), Failure> {
    unistd::setsid().map_err(|e| failure("make a session")(e.into()))?;
    for (number, stream) in (0..).zip(&plan.streams) {
        if let Stream::File(file) = stream {
            syscalls::place(file.as_fd(), number).map_err(failure("place a standard stream"))?;
        }
    }
    if plan.terminal {
        syscalls::take_terminal().map_err(failure("take the terminal"))?;
    }
    syscalls::close_from_three(true).map_err(failure("close descriptors"))?;
    let installing: Vec<_>;
    let gain = match plan.elevation {
        Elevation::Refused => Gain::Nothing,
        Elevation::BySetUserId => {
            installing = Capability::installing().collect();
            Gain::AtMost(&installing)
        }
    };
    privileges::drop_all(plan.uid, plan.gid, &plan.capabilities, gain)
        .map_err(failure("give up privileges"))?;
    unistd::chdir(&plan.folder)
        .map_err(|e| failure(&format!("enter {} inside the run", plan.folder.display()))(e.into()))?;
    syscalls::restore_signals().map_err(failure("restore signals"))
}

/// Gives up everything that watching does not need.
fn settle(channel: &Channel<FromInit, ToInit>) -> io::Result<()> {
    unistd::chdir("/")?;
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    for number in 0..3 {
        syscalls::place(null.as_fd(), number)?;
    }
    privileges::keep_kill_only()?;
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    channel.send(&FromInit::Started, &[]).map_err(io::Error::other)?;
    // It may have died before its death could be signalled.
    let mut wait = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
    let hung_up = poll(&mut wait, PollTimeout::ZERO)? > 0;
    if hung_up { Err(io::Error::from(io::ErrorKind::BrokenPipe)) } else { Ok(()) }
}

/// Passes signals to the agent and reaps until it ends; then ends alike.
fn watch(agent: Pid) -> ! {
    if syscalls::close_from_three(false).is_err() {
        syscalls::leave(super::OWN_FAILURE.into());
    }
    let every = SigSet::all();
    loop {
        match every.wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(status) = reap(agent) {
                    syscalls::leave(status);
                }
            }
            Ok(signal) => drop(kill(agent, signal)),
            // A real-time signal, or an interruption.
            Err(_) => {}
        }
    }
}

/// Takes note of every child that ended; the agent's exit status when it was among them.
fn reap(agent: Pid) -> Option<i32> {
    let mut ended = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == agent => ended = Some(status),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == agent => {
                ended = Some(128 + signal as libc::c_int)
            }
            Ok(WaitStatus::StillAlive) | Err(_) => return ended,
            Ok(_) => {}
        }
    }
}
