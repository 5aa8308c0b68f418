//! `interceptor run`: from a command line to a captured process tree, or to nothing at all.
//!
//! Promises: the command is executed only when its cgroup, namespaces, mounts, listeners and kernel side stand and
//! a probe from inside has shown that they hold; whatever fails before that leaves nothing behind; the command's
//! terminal, signals and exit status are the caller's. Knows nothing of protocols, policy or credentials: what an
//! agent may do, the daemon says.

pub mod attach;
mod capabilities;
mod containers;
mod copied;
mod daemon;
mod environment;
mod error;
pub(crate) mod filter;
mod init;
mod mounts;
mod netlink;
mod porter;
mod preflight;
pub(crate) mod privileges;
mod probe;
mod relay;
pub mod selftest;
pub(crate) mod syscalls;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod whole_tests;

use std::{
    collections::BTreeSet,
    env,
    ffi::{CString, OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use interceptor_core::{
    model::{AgentIdentity, AgentName, Mode, RunId},
    password,
};
use nix::{
    libc,
    sys::{
        signal::{SigSet, Signal},
        wait::{WaitStatus, waitpid},
    },
};

pub use capabilities::Capability;
pub use containers::Profile;
pub use error::LaunchError;
#[cfg(test)]
pub(crate) use netlink::furnish as furnish_network;
pub use netlink::{ADDRESS_V4, ADDRESS_V6};

pub use self::daemon::start as start_daemon;
pub(crate) use self::preflight::launcher;
use self::{
    containers::{Broker, Containers},
    daemon::Daemon,
    environment::Environment,
    error::step,
    init::{FromInit, Plan, ToInit},
    mounts::{Overlay, System, View},
    preflight::Account,
    relay::Streams,
    syscalls::{Child, Side},
};
use crate::{
    channel::{self, Channel},
    helper::{
        Existing,
        messages::{COMMAND_LIMIT, LaunchAnswer, LaunchFacts, LaunchRequest, Network, VERSION},
    },
    places::Places,
};

/// The exit status when the command was not run: 125, as `env` and `nohup` have it.
pub const OWN_FAILURE: u8 = 125;
/// The exit status when the command exists but cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// The exit status when the command does not exist.
pub const NOT_FOUND: u8 = 127;

/// What to launch, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The installation.
    pub places: Places,
    /// `--agent`; without it, `agents.toml` decides by the command.
    pub agent: Option<AgentName>,
    /// Whether verdicts are carried out.
    pub mode: Mode,
    /// Why, when they are not.
    pub reason: Option<String>,
    /// `--user`: a name or number.
    pub user: Option<String>,
    /// Capabilities that the run keeps; by default none.
    pub capabilities: Vec<Capability>,
    /// Whether its programs may become root.
    pub elevation: Elevation,
    /// What it has besides.
    pub profile: Profile,
    /// The command and its arguments.
    pub command: Vec<OsString>,
    /// The arguments with which this program is the daemon, and writes the line `ready` to its standard output when
    /// it serves.
    pub daemon: Vec<OsString>,
    /// Makes what a run needs to trust the CA with this certificate (PEM). The folder is where the files will be,
    /// inside the run.
    pub trust: fn(certificate: &str, folder: &Path) -> Trust,
}

/// Whether programs of a run may become root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Elevation {
    /// Never.
    Refused,
    /// By programs such as sudo, whose file says so: root then has what installing software takes, in a copy of the host's system.
    BySetUserId,
}

/// What makes the programs of a run trust the CA.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// Files to make and to lay over the distribution's bundles.
    pub files: Vec<TrustFile>,
    /// Environment variables; the agent's own setting of the same name gives way.
    pub environment: Vec<(String, String)>,
}

/// A file that the programs of a run read roots from.
#[derive(Debug, Clone)]
pub struct TrustFile {
    /// Its name in the folder.
    pub name: String,
    /// Paths that show it too, where the host has them.
    pub over: Vec<PathBuf>,
    /// Its contents.
    pub contents: Vec<u8>,
}

impl Options {
    /// The capabilities that processes of the run have, or may come to have.
    fn reachable(&self) -> Vec<Capability> {
        let gained = match self.elevation {
            Elevation::Refused => None,
            Elevation::BySetUserId => Some(Capability::installing()),
        };
        let gained = gained.into_iter().flatten().filter(|one| !self.capabilities.contains(one));
        self.capabilities.iter().copied().chain(gained).collect()
    }
}

/// Launches, waits, and ends as the command ended. To be called from a process with one thread.
pub fn run(options: &Options) -> ExitCode {
    match launch(options) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("interceptor run: {}", crate::telemetry::chain(&error));
            ExitCode::from(error.status())
        }
    }
}

fn launch(options: &Options) -> Result<u8, LaunchError> {
    preflight::may_launch()?;
    preflight::may_look()?;
    if options.mode == Mode::Observe && options.reason.is_none() {
        return Err(LaunchError::NoReason);
    }
    let account = preflight::account(options.user.as_deref())?;
    let command = options.command.first().ok_or(LaunchError::NoCommand)?;
    let executable = preflight::find_command(command, env::var_os("PATH"))?;
    let streams = Streams::of_caller()?;
    let folder = env::current_dir().map_err(step("find the current folder"))?;
    if options.profile != Profile::Plain || options.elevation != Elevation::Refused {
        preflight::given_up(&folder, &account)?;
    }
    let broker = Broker::start(&options.profile)?;
    let helper = daemon::connect_or_start(options)?;
    let begun = begin(options, &account, &executable, &helper)?;
    let (environment, trust) = environment_of(options, &account, &begun);
    announce(options, &begun, &environment);
    let plan = plan(options, &account, &executable, begun.run, environment, trust, &streams)?;
    let run = containers::Run { id: begun.run, places: options.places.clone(), folder };
    enter(helper, &options.places, &begun.cgroup, plan, streams, broker.map(|broker| (broker, run)))
}

/// A run that the daemon has made room for.
struct Begun {
    run: RunId,
    agent: AgentIdentity,
    keeps: BTreeSet<String>,
    authority: String,
    cgroup: OwnedFd,
}

type Helper = Channel<LaunchRequest, LaunchAnswer>;

fn begin(
    options: &Options,
    account: &Account,
    executable: &Path,
    helper: &Helper,
) -> Result<Begun, LaunchError> {
    let (launcher, launcher_user) = launcher();
    let facts = LaunchFacts {
        agent: options.agent.clone(),
        mode: options.mode,
        reason: options.reason.clone(),
        command: bounded(&options.command),
        executable: executable.to_string_lossy().into_owned(),
        launcher_uid: launcher.as_raw(),
        launcher_user,
        uid: account.uid.as_raw(),
        capabilities: options.reachable().iter().map(ToString::to_string).collect(),
        profile: options.profile.kind(),
        network: Network::Own,
        existing: Existing::Reset,
        unit: None,
        secrets: environment::secret_names(env::vars_os()),
    };
    begun(helper, facts)
}

/// Asks whether this may be run, and where.
fn begun(helper: &Helper, facts: LaunchFacts) -> Result<Begun, LaunchError> {
    match asked(helper, &LaunchRequest::Begin { version: VERSION, facts: Box::new(facts) }, &[])? {
        (LaunchAnswer::Begun { run, agent, keeps, authority }, mut descriptors) => Ok(Begun {
            run,
            agent,
            keeps,
            authority,
            cgroup: descriptors.pop().ok_or(LaunchError::OutOfTurn("the daemon"))?,
        }),
        _ => Err(LaunchError::OutOfTurn("the daemon")),
    }
}

fn asked(
    helper: &Helper,
    request: &LaunchRequest,
    descriptors: &[std::os::fd::BorrowedFd<'_>],
) -> Result<(LaunchAnswer, Vec<OwnedFd>), LaunchError> {
    let talk = |source| LaunchError::Talk { who: "the daemon", source };
    helper.send(request, descriptors).map_err(talk)?;
    match helper.receive().map_err(talk)? {
        (LaunchAnswer::Refused { text }, _) => Err(LaunchError::Refused(text)),
        answer => Ok(answer),
    }
}

/// The command as it is told: lossy, without passwords, and cut where it is too long.
fn bounded(command: &[OsString]) -> Vec<String> {
    let mut left = COMMAND_LIMIT;
    let mut told = Vec::new();
    for argument in command {
        let text = password::hidden(&argument.to_string_lossy());
        left = match left.checked_sub(text.len().max(1)) {
            Some(left) => left,
            None => break,
        };
        told.push(text);
    }
    told
}

/// The agent's environment, and the files that its trust variables name.
fn environment_of(options: &Options, account: &Account, begun: &Begun) -> (Environment, Vec<Overlay>) {
    let mut inherited: Vec<(OsString, OsString)> = env::vars_os().collect();
    let mut own = |name: &str, value: Option<&OsStr>| {
        if let Some(value) = value {
            inherited.retain(|(known, _)| known != name);
            inherited.push((name.into(), value.to_owned()));
        }
    };
    let name = account.name.as_deref().map(OsStr::new);
    own("USER", name);
    own("LOGNAME", name);
    // One without an entry among the host's users has no home; the caller's is not its own.
    own("HOME", Some(account.home.as_deref().map_or(OsStr::new("/"), Path::as_os_str)));
    own("SHELL", account.shell.as_deref().map(Path::as_os_str));
    // It may name a folder that the run does not see.
    inherited.retain(|(known, _)| known != "TMPDIR");
    let trust = (options.trust)(&begun.authority, Path::new(mounts::OWN));
    let files =
        trust.files.into_iter().map(|TrustFile { name, over, contents }| Overlay { name, over, contents });
    let mut added = trust.environment;
    added.push(("INTERCEPTOR_RUN".to_owned(), begun.run.to_string()));
    added.extend(options.profile.variables());
    (environment::prepare(begun.run, inherited, &begun.keeps, added), files.collect())
}

/// Tells the caller, on standard error, what the agent does not.
fn announce(options: &Options, begun: &Begun, environment: &Environment) {
    eprintln!("interceptor: run {} of agent {}", begun.run, begun.agent.name);
    for capability in &options.capabilities {
        eprintln!("interceptor: capability {capability} kept: {}", capability.cost());
    }
    if options.elevation == Elevation::BySetUserId {
        eprintln!(
            "interceptor: sudo works: what root changes of the host's system is a copy's, in memory, and gone with the run; but it \
             reads every file that the run sees, and writes whatever lies in the current folder, and in the user's home, whoever \
             owns it"
        );
    }
    if let Profile::Ci { engine, .. } = &options.profile {
        eprintln!(
            "interceptor: profile ci: containers by the engine at {}: root in them reads and writes whatever lies in the current \
             folder, whoever owns it; they share the run's network and end with it",
            engine.display()
        );
    }
    if !environment.kept.is_empty() {
        eprintln!("interceptor: real secrets kept for passed resources: {}", environment.kept.join(", "));
    }
    if !environment.replaced.is_empty() {
        eprintln!("interceptor: secrets replaced by placeholders: {}", environment.replaced.join(", "));
    }
}

fn plan(
    options: &Options,
    account: &Account,
    executable: &Path,
    run: RunId,
    environment: Environment,
    trust: Vec<Overlay>,
    streams: &Streams,
) -> Result<Plan, LaunchError> {
    let folder = env::current_dir().map_err(step("find the current folder"))?;
    let sockets = mounts::named_sockets().map_err(step("list the host's sockets"))?;
    let places = &options.places;
    let hidden = [places.configuration(), places.state(), places.runtime()].map(Path::to_owned);
    let view = View {
        hidden: hidden.to_vec(),
        kept: std::iter::once(&folder)
            .chain(&account.home)
            .cloned()
            .chain([folder.join(executable)])
            .collect(),
        sockets,
        files: mounts::name_service().into_iter().chain(trust).collect(),
        system: match options.elevation {
            Elevation::Refused => System::Hosts,
            Elevation::BySetUserId => System::Copied { but: preflight::own_folders(&folder, account) },
        },
    };
    Ok(Plan {
        run,
        view,
        streams: streams.for_agent().map_err(step("prepare the standard streams"))?,
        terminal: streams.terminal.is_some(),
        engine: options.profile != Profile::Plain,
        uid: account.uid,
        gid: account.gid,
        capabilities: options.capabilities.clone(),
        elevation: options.elevation,
        executable: preflight::kernel_text(folder.join(executable).as_os_str())?,
        folder,
        arguments: options
            .command
            .iter()
            .map(|text| preflight::kernel_text(text))
            .collect::<Result<_, _>>()?,
        environment: kernel_environment(environment)?,
        probe: true,
    })
}

fn kernel_environment(environment: Environment) -> Result<Vec<CString>, LaunchError> {
    let variables = environment.variables.into_iter();
    variables
        .map(|(mut text, value)| {
            text.push("=");
            text.push(value);
            // The text may be a secret: it is not shown.
            CString::new(text.as_bytes()).map_err(|_| LaunchError::Nul("the environment".to_owned()))
        })
        .collect()
}

/// Makes the run's first process, gets the daemon to serve it, and stays with it to its end.
fn enter(
    helper: Helper,
    places: &Places,
    cgroup: &OwnedFd,
    plan: Plan,
    streams: Streams,
    containers: Option<(Broker, containers::Run)>,
) -> Result<u8, LaunchError> {
    const NAMESPACES: i32 =
        libc::CLONE_NEWNET | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    let (outside, inside) = channel::pair::<ToInit, FromInit>().map_err(step("make a channel"))?;
    let mask = SigSet::all().thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK);
    let mask = mask.map_err(|e| step("block signals")(e.into()))?;
    let flags = u64::try_from(NAMESPACES).map_err(|e| step("make namespaces")(io::Error::other(e)))?;
    let beside = containers.is_some().then(|| containers::agents_own(cgroup)).transpose()?;
    let cgroup = beside.as_ref().unwrap_or(cgroup);
    match syscalls::clone_into(cgroup.as_fd(), flags).map_err(step("make the run's first process"))? {
        Side::Child => {
            drop((outside, helper, streams, beside));
            // The broker is the launcher's to end.
            std::mem::forget(containers);
            init::live(inside, plan)
        }
        Side::Parent(child) => {
            let run = plan.run;
            drop((inside, plan));
            mask.thread_set_mask().map_err(|e| step("unblock signals")(e.into()))?;
            let daemon = Arc::new(Daemon::of(helper, places, run));
            Launched(child).attend(daemon, &outside, streams, containers)
        }
    }
}

/// A first process that dies with this value.
struct Launched(Child);

impl Drop for Launched {
    fn drop(&mut self) {
        // It may have ended and been reaped long ago: a pidfd never names another process.
        let _ = syscalls::pidfd_signal(self.0.pidfd.as_fd(), Signal::SIGKILL);
    }
}

impl Launched {
    fn attend(
        &self,
        daemon: Arc<Daemon>,
        init: &Channel<ToInit, FromInit>,
        streams: Streams,
        containers: Option<(Broker, containers::Run)>,
    ) -> Result<u8, LaunchError> {
        let mut handed = match heard(init)? {
            (FromInit::Furnished, descriptors) => descriptors,
            _ => return Err(LaunchError::OutOfTurn("the run's first process")),
        };
        let listener = if containers.is_some() { handed.pop() } else { None };
        let master = handed.pop();
        let network = self.get_served(&daemon.helper())?;
        relay::forwarded().thread_block().map_err(|e| step("block signals")(e.into()))?;
        let mut relay = streams.hand_over(master)?;
        init.send(&ToInit::Go, &[])
            .map_err(|source| LaunchError::Talk { who: "the run's first process", source })?;
        let told = match heard(init)? {
            (FromInit::Filtered { guard }, mut descriptors) => descriptors.pop().map(|calls| (calls, guard)),
            _ => None,
        };
        let (calls, guard) = told.ok_or(LaunchError::OutOfTurn("the run's first process"))?;
        let copy = network.try_clone().map_err(step("keep the run's network namespace"))?;
        let attendant = porter::attend(calls, guard, copy, listener.as_ref(), Arc::clone(&daemon))
            .map_err(step("see to the run's Unix sockets"))?;
        let containers = match (containers, listener) {
            (Some((broker, run)), Some(listener)) => {
                let (run_in, porter) = ((network, self.0.pid), (attendant, guard));
                Some(Containers::attend(broker, run, &listener, run_in, porter, daemon)?)
            }
            (None, None) => None,
            _ => return Err(LaunchError::OutOfTurn("the run's first process")),
        };
        match heard(init)? {
            (FromInit::Started, _) => {}
            _ => return Err(LaunchError::OutOfTurn("the run's first process")),
        }
        relay.until_end(self.0.pidfd.as_fd()).map_err(step("stay with the run"))?;
        drop(relay);
        if let Some(containers) = containers {
            containers.end();
        }
        self.exit_status()
    }

    /// Gets the daemon to serve the run; gives its network namespace.
    fn get_served(&self, helper: &Helper) -> Result<File, LaunchError> {
        let network = File::open(format!("/proc/{}/ns/net", self.0.pid))
            .map_err(step("open the run's network namespace"))?;
        match asked(helper, &LaunchRequest::Namespaces, &[network.as_fd(), self.0.pidfd.as_fd()])? {
            (LaunchAnswer::Ready, _) => Ok(network),
            _ => Err(LaunchError::OutOfTurn("the daemon")),
        }
    }

    fn exit_status(&self) -> Result<u8, LaunchError> {
        match waitpid(self.0.pid, None).map_err(|e| step("wait for the run")(e.into()))? {
            WaitStatus::Exited(_, status) => Ok(u8::try_from(status).unwrap_or(OWN_FAILURE)),
            // `interceptor kill`, or the daemon's end of it.
            WaitStatus::Signaled(_, signal, _) => Ok(128 + signal as u8),
            _ => Err(LaunchError::OutOfTurn("the kernel")),
        }
    }
}

fn heard(init: &Channel<ToInit, FromInit>) -> Result<(FromInit, Vec<OwnedFd>), LaunchError> {
    match init.receive() {
        Ok((FromInit::Failed { status, text }, _)) => Err(LaunchError::Inside(status, text)),
        Ok(message) => Ok(message),
        Err(source) => Err(LaunchError::Talk { who: "the run's first process", source }),
    }
}
