//! The launcher's side of a run's containers: it starts their broker, has what that lets through recorded and judged, admits
//! each container that the engine's runtime is to make, and looks at it before it begins.
//!
//! Promises: nothing that a run asks its engine for is done before the proxy says that its entry is committed; no container begins that is
//! not in the run's cgroup, in its network and behind a filter; all end with the run. Nothing that an agent wrote is read here: of
//! the broker and the runtime come typed messages. Must never know what the engine's interface is.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::{self, File},
    io::{self, IoSliceMut},
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    process::Child,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use interceptor_core::model::RunId;
use nix::{
    cmsg_space,
    fcntl::{OFlag, openat},
    sys::{
        socket::{
            AddressFamily, Backlog, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, bind,
            getsockopt, listen, recvmsg, setsockopt, socket,
            sockopt::{PeerCredentials, ReceiveTimeout},
        },
        stat::{Mode, mkdirat},
        time::{TimeVal, TimeValLike},
    },
    unistd::Gid,
};

use super::{
    LaunchError,
    daemon::Daemon,
    filter::Guard,
    porter::Attendant,
    step,
    syscalls::{self, same_file},
};
use crate::{
    channel::{self, Channel},
    engine::{
        AGENT, Asking, CONTAINERS, Cadence, Came, FromBroker, FromDoor, Heard, ToBroker, ToDoor, UnixSockets,
    },
    helper::{
        Accounts,
        cgroup::Tree,
        messages::{LaunchRequest, ProfileKind},
        start_role,
    },
    places::Places,
};

/// How long the removal of a run's containers is waited for.
const REMOVAL: Duration = Duration::from_secs(15);
/// How long the proxy may take to record what is asked for, and to have it judged.
const HEARING_SECONDS: i64 = 15;
/// The longest description of a container that is read with its filter; what is longer is cut.
const DESCRIPTION: usize = 4096;

/// What a run has besides its command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Profile {
    /// Nothing.
    Plain,
    /// What CI jobs need: containers.
    Ci {
        /// The socket of the container engine that makes them.
        engine: PathBuf,
        /// The arguments with which this program is the containers' broker.
        broker: Vec<OsString>,
    },
}

impl Profile {
    /// What clients need to know that do not find it out by themselves. The cleaner of testcontainers is a container that holds the
    /// engine's socket: here, containers end with the run.
    pub(super) fn variables(&self) -> Vec<(String, String)> {
        let variables: &[(&str, &str)] = match self {
            Self::Plain => &[],
            Self::Ci { .. } => &[
                ("TESTCONTAINERS_RYUK_DISABLED", "true"),
                ("TESTCONTAINERS_HOST_OVERRIDE", "localhost"),
                ("TESTCONTAINERS_CONNECTION_MODE", "docker_host"),
                // Newer clients bring a builder of their own.
                ("DOCKER_BUILDKIT", "0"),
            ],
        };
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// As it is told.
    pub(super) fn kind(&self) -> ProfileKind {
        match self {
            Self::Plain => ProfileKind::Plain,
            Self::Ci { .. } => ProfileKind::Ci,
        }
    }
}

/// A broker that has an engine, and nobody to serve yet. It dies with this value.
pub(super) struct Broker {
    process: Child,
    channel: Arc<Channel<ToBroker, FromBroker>>,
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Broker {
    /// Starts one, if the profile has containers.
    pub(super) fn start(profile: &Profile) -> Result<Option<Self>, LaunchError> {
        let Profile::Ci { engine, broker } = profile else { return Ok(None) };
        let data = fs::metadata(engine).ok().filter(|data| data.file_type().is_socket());
        let data = data.ok_or_else(|| {
            LaunchError::Obstacle(format!(
                "no container engine listens at {}: start it, or say where by `--engine`",
                engine.display()
            ))
        })?;
        let (channel, brokers) = channel::pair().map_err(step("make a channel"))?;
        let account = (Accounts::find().proxy.0, Gid::from_raw(data.gid()));
        let process =
            start_role(broker, account, brokers.as_fd()).map_err(step("start the containers' broker"))?;
        drop(brokers);
        let started = Self { process, channel: Arc::new(channel) };
        started.say(&ToBroker::Look { engine: engine.clone() }, &[])?;
        match started.channel.receive() {
            Ok((FromBroker::Fit, _)) => Ok(Some(started)),
            Ok((FromBroker::Unfit { text }, _)) => Err(LaunchError::Obstacle(text)),
            Ok(_) => Err(LaunchError::OutOfTurn(WHO)),
            Err(source) => Err(LaunchError::Talk { who: WHO, source }),
        }
    }

    fn say(&self, what: &ToBroker, descriptors: &[std::os::fd::BorrowedFd<'_>]) -> Result<(), LaunchError> {
        self.channel.send(what, descriptors).map_err(|source| LaunchError::Talk { who: WHO, source })
    }
}

const WHO: &str = "the containers' broker";

/// The agent's own cgroup in that of a run which may have containers in another.
pub(super) fn agents_own(cgroup: &OwnedFd) -> Result<OwnedFd, LaunchError> {
    let (flags, mode) = (OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::from_bits_truncate(0o755));
    let made = || -> nix::Result<OwnedFd> {
        mkdirat(cgroup, AGENT, mode)?;
        openat(cgroup, AGENT, flags, mode)
    };
    made().map_err(|errno| step("make the agent's own cgroup")(errno.into()))
}

/// What the broker and the door need of a run.
pub(super) struct Run {
    pub(super) id: RunId,
    pub(super) places: Places,
    /// The folder that it works in.
    pub(super) folder: PathBuf,
}

/// A run whose containers are seen to.
pub(super) struct Containers {
    broker: Broker,
    over: mpsc::Receiver<()>,
    sockets: [PathBuf; 2],
}

impl Drop for Containers {
    fn drop(&mut self) {
        for path in &self.sockets {
            let _ = fs::remove_file(path);
        }
    }
}

/// Who admits containers.
struct Doorman {
    tree: Tree,
    run: RunId,
    folder: PathBuf,
    working: File,
    network: File,
    /// The namespace, by a path that leads there as long as the run's first process is not reaped.
    named: PathBuf,
    unix: UnixSockets,
    daemon: Arc<Daemon>,
}

impl Containers {
    /// Serves the run at `listener`, from now on. `first` is its first process.
    pub(super) fn attend(
        broker: Broker,
        run: Run,
        listener: &OwnedFd,
        (network, first): (File, nix::unistd::Pid),
        (attendant, guard): (Attendant, Guard),
        daemon: Arc<Daemon>,
    ) -> Result<Self, LaunchError> {
        let Run { id, places, folder } = run;
        let tree = Tree::find(&places).map_err(|error| step("find the cgroups")(io::Error::other(error)))?;
        let sockets = [places.door(id), places.calls(id)];
        let door = listening(&sockets[0], SockType::SeqPacket).map_err(step("listen for the runtime"))?;
        let calls = listening(&sockets[1], SockType::Stream).map_err(step("listen for containers' calls"))?;
        let doorman = Arc::new(Doorman {
            tree,
            run: id,
            working: File::open(&folder).map_err(step("open the current folder"))?,
            folder: folder.clone(),
            network,
            named: format!("/proc/{first}/ns/net").into(),
            unix: match guard {
                Guard::Hooks => UnixSockets::All,
                Guard::Nothing => UnixSockets::Connected,
            },
            daemon: Arc::clone(&daemon),
        });
        let (tell, over) = mpsc::channel();
        let channel = Arc::clone(&broker.channel);
        let started = thread::Builder::new()
            .name("containers".into())
            .spawn(move || {
                hear(&channel, &daemon);
                // Whoever waits no more needs no word.
                let _ = tell.send(());
            })
            .and_then(|_| thread::Builder::new().name("door".into()).spawn(move || admit(&door, &doorman)))
            .and_then(|_| {
                thread::Builder::new().name("calls".into()).spawn(move || take(&calls, &attendant))
            });
        started.map_err(step("see to the run's containers"))?;
        let made = Self { broker, over, sockets };
        made.broker.say(&ToBroker::Serve { run: id, slice: places.slice(), folder }, &[listener.as_fd()])?;
        Ok(made)
    }

    /// Has what is left of them removed.
    pub(super) fn end(self) {
        if self.broker.say(&ToBroker::End, &[]).is_ok() && self.over.recv_timeout(REMOVAL).is_ok() {
            return;
        }
        eprintln!(
            "interceptor run: the run's containers have ended, and may not all be removed: `docker ps -a`"
        );
    }
}

/// A socket that root alone may connect to.
fn listening(path: &Path, kind: SockType) -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listen(&socket, Backlog::MAXCONN)?;
    Ok(socket)
}

/// The next that comes from root.
fn accepted(listener: &OwnedFd) -> io::Result<OwnedFd> {
    loop {
        let socket = syscalls::accept(listener.as_fd())?;
        if getsockopt(&socket, PeerCredentials).is_ok_and(|peer| peer.uid() == 0) {
            return Ok(socket);
        }
    }
}

/// The way to the proxy for one thing that is asked for, for as long as it is under way.
type Proxy = Channel<Came, Heard>;

/// Tells the daemon of everything that the broker is asked for, and of what came of it, until its end.
fn hear(broker: &Channel<ToBroker, FromBroker>, daemon: &Daemon) {
    let mut under_way: HashMap<u64, Proxy> = HashMap::new();
    while let Ok((message, _)) = broker.receive() {
        let (number, asking) = match message {
            FromBroker::Asked { number, asking } => (number, asking),
            FromBroker::Ended { number, came } => {
                // A proxy that hears nothing by its channel's end writes down that nobody knows.
                if let (Some(proxy), Some(came)) = (under_way.remove(&number), came) {
                    let _ = proxy.send(&came, &[]);
                }
                continue;
            }
            FromBroker::Fit | FromBroker::Unfit { .. } | FromBroker::Over => return,
        };
        let takes_a_while = matches!(asking, Asking::Pull { .. });
        let answer = match ask(daemon, asking) {
            Ok((Heard::Recorded, proxy)) => {
                if takes_a_while {
                    under_way.insert(number, proxy);
                }
                ToBroker::Recorded
            }
            Ok((Heard::Refused { text }, _)) => ToBroker::Refused { text },
            Err(_) => ToBroker::Unrecorded,
        };
        if broker.send(&answer, &[]).is_err() {
            return;
        }
    }
}

/// What the proxy says to what is asked for. An error is a refusal.
fn ask(daemon: &Daemon, asking: Asking) -> Result<(Heard, Proxy), LaunchError> {
    let pair = channel::pair().map_err(step("make a channel"))?;
    let (proxy, theirs): (Proxy, Channel<Heard, Came>) = pair;
    setsockopt(&proxy, ReceiveTimeout, &TimeVal::seconds(HEARING_SECONDS))
        .map_err(|errno| step("limit the wait for the proxy")(errno.into()))?;
    daemon.tell(&LaunchRequest::Engine { asking }, &[theirs.as_fd()])?;
    drop(theirs);
    let heard = proxy.receive().map_err(|source| LaunchError::Talk { who: "the proxy", source })?;
    Ok((heard.0, proxy))
}

fn admit(door: &OwnedFd, doorman: &Arc<Doorman>) {
    while let Ok(socket) = accepted(door) {
        let doorman = Arc::clone(doorman);
        // Where no thread can be had, the runtime hears nothing, and makes nothing.
        let _ = thread::Builder::new().spawn(move || doorman.serve(&Channel::from_socket(socket)));
    }
}

impl Doorman {
    fn serve(&self, runtime: &Channel<FromDoor, ToDoor>) {
        let Ok((ToDoor::Admit { container }, _)) = runtime.receive() else { return };
        let admitted =
            FromDoor::Admitted { network: self.named.clone(), folder: self.folder.clone(), unix: self.unix };
        if runtime.send(&admitted, &[self.working.as_fd()]).is_err() {
            return;
        }
        let Ok((ToDoor::Made { pid }, _)) = runtime.receive() else { return };
        let answer = match self.look(&container, pid) {
            Ok(()) => FromDoor::Begin,
            Err(text) => FromDoor::Refused { text },
        };
        // If it does not hear that it may, it makes nothing.
        let _ = runtime.send(&answer, &[]);
    }

    /// Looks at a container's first process, which has run nothing of its own.
    fn look(&self, container: &str, pid: u32) -> Result<(), String> {
        let cgroup = self.tree.directory_of(self.run).join(CONTAINERS);
        if !self.tree.holds(&cgroup, pid) {
            return Err(format!("container {container} is not in the run's cgroup"));
        }
        let network = File::open(format!("/proc/{pid}/ns/net")).map_err(|error| error.to_string())?;
        if !same_file(&network, &self.network).map_err(|error| error.to_string())? {
            return Err(format!("container {container} is not in the run's network"));
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| error.to_string())?;
        let is_filtered = |line: &str| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2");
        if !status.lines().any(is_filtered) {
            return Err(format!("container {container} has no filter of system calls"));
        }
        let text = format!("container {} begins, captured", container.get(..12).unwrap_or(container));
        match ask(&self.daemon, Asking::Call { cadence: Cadence::Each, text }) {
            Ok((Heard::Recorded, _)) => Ok(()),
            Ok((Heard::Refused { text }, _)) => Err(text),
            Err(_) => Err("it cannot be recorded that it begins: start the daemon, and try again".to_owned()),
        }
    }
}

/// Gives the porter what containers' filters have their calls wait at.
fn take(calls: &OwnedFd, attendant: &Attendant) {
    while let Ok(socket) = accepted(calls) {
        // A container whose calls nobody answers waits, and does nothing.
        if let Ok(listener) = received(&socket) {
            let _ = attendant.attend_also(listener);
        }
    }
}

/// The one descriptor that the runtime sends, with a description that is of no interest here.
fn received(socket: &OwnedFd) -> io::Result<OwnedFd> {
    let mut description = [0; DESCRIPTION];
    let mut parts = [IoSliceMut::new(&mut description)];
    let mut space = cmsg_space!([std::os::fd::RawFd; 4]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let mut found = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = part {
            // SAFETY: the kernel has just made these descriptors for us.
            found.extend(descriptors.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let one = <[OwnedFd; 1]>::try_from(found);
    one.map(|[one]| one)
        .map_err(|wrong| io::Error::other(format!("{} descriptors instead of 1", wrong.len())))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::helper::messages::LaunchAnswer;

    /// A process that runs nothing else, in a cgroup.
    struct Sleeper(Child);

    impl Sleeper {
        fn start(words: &[&str], cgroup: &Path) -> Self {
            let mut command = Command::new(words.first().expect("a program"));
            let sleeper = Self(command.args(words.iter().skip(1)).spawn().expect("it is there"));
            fs::write(cgroup.join("cgroup.procs"), sleeper.0.id().to_string()).expect("moved");
            sleeper
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A daemon's side of what is asked for: the launcher's word, and the way to it.
    fn asked(daemon: &Channel<LaunchAnswer, LaunchRequest>) -> (Asking, Channel<Heard, Came>) {
        let (LaunchRequest::Engine { asking }, mut descriptors) = daemon.receive().expect("asked") else {
            panic!("something else is said");
        };
        (asking, Channel::from_socket(descriptors.pop().expect("a channel")))
    }

    #[test]
    fn what_nobody_answers_for_is_not_done() {
        let root = tempfile::tempdir().expect("a folder");
        let (helper, theirs) = channel::pair().expect("a channel");
        let daemon = Daemon::of(helper, &Places::under(root.path()), RunId::from_random(7));
        let call = || Asking::Call { cadence: Cadence::Each, text: "x".to_owned() };
        let answering = thread::spawn(move || {
            let refused = Heard::Refused { text: "no".to_owned() };
            for answer in [Some(Heard::Recorded), Some(refused), None] {
                let (_, launcher) = asked(&theirs);
                answer.iter().for_each(|answer| launcher.send(answer, &[]).expect("heard"));
            }
        });
        assert!(matches!(ask(&daemon, call()), Ok((Heard::Recorded, _))));
        assert!(matches!(ask(&daemon, call()), Ok((Heard::Refused { text }, _)) if text == "no"));
        assert!(ask(&daemon, call()).is_err(), "its channel was closed");
        answering.join().expect("answered");
        assert!(ask(&daemon, call()).is_err(), "there is no daemon");
    }

    #[test]
    fn what_came_of_a_pull_is_told_to_who_permitted_it() {
        let root = tempfile::tempdir().expect("a folder");
        let (helper, theirs) = channel::pair().expect("a channel");
        let daemon = Daemon::of(helper, &Places::under(root.path()), RunId::from_random(7));
        let (ours, broker) = channel::pair::<ToBroker, FromBroker>().expect("a channel");
        let hearing = thread::spawn(move || hear(&ours, &daemon));
        let image = "debian:12".parse().expect("an image");
        let asking = Asking::Pull { image, platform: String::new() };
        let ends = [Some(Came::Done { text: "sha256:0".to_owned() }), None];
        for (number, came) in (1..).zip(ends) {
            broker.send(&FromBroker::Asked { number, asking: asking.clone() }, &[]).expect("asked");
            let (heard, launcher) = asked(&theirs);
            assert_eq!(heard, asking);
            launcher.send(&Heard::Recorded, &[]).expect("heard");
            assert_eq!(broker.receive().expect("answered").0, ToBroker::Recorded);
            broker.send(&FromBroker::Ended { number: 0, came: came.clone() }, &[]).expect("of another");
            broker.send(&FromBroker::Ended { number, came: came.clone() }, &[]).expect("told");
            assert_eq!(launcher.receive().ok().map(|(came, _)| came), came, "nothing where it is broken off");
        }
        drop(broker);
        hearing.join().expect("it ends with the broker");
    }

    #[test]
    fn what_is_not_the_runs_does_not_begin() {
        let root = tempfile::tempdir().expect("a folder");
        let places = Places::under(root.path());
        let tree = Tree::find(&places).expect("cgroup2");
        let (run, own) = (RunId::from_random(7), tree.directory_of(RunId::from_random(7)));
        fs::create_dir_all(own.join(CONTAINERS)).expect("a cgroup");
        fs::create_dir_all(own.join(AGENT)).expect("a cgroup");
        let (helper, _daemon) = channel::pair().expect("a channel");
        let doorman = Doorman {
            tree: tree.clone(),
            run,
            folder: root.path().to_owned(),
            working: File::open(root.path()).expect("own folder"),
            network: File::open("/proc/self/ns/net").expect("/proc is mounted"),
            named: PathBuf::new(),
            unix: UnixSockets::All,
            daemon: Arc::new(Daemon::of(helper, &places, run)),
        };
        let sleep = ["sleep", "1000"];
        let plain = |cgroup: &str| Sleeper::start(&sleep, &own.join(cgroup));
        let looked =
            |sleeper: &Sleeper| doorman.look("0123456789abcdef", sleeper.0.id()).expect_err("not one's own");
        let (beside, unfiltered) = (plain(AGENT), plain(CONTAINERS));
        assert!(looked(&beside).contains("cgroup"));
        assert!(looked(&unfiltered).contains("filter"));
        let apart = Sleeper::start(&["unshare", "--net", "sleep", "1000"], &own.join(CONTAINERS));
        // It leaves the network before it becomes what it runs.
        let name = format!("/proc/{}/comm", apart.0.id());
        while fs::read_to_string(&name).is_ok_and(|name| name.trim() != "sleep") {
            thread::sleep(Duration::from_millis(5));
        }
        assert!(looked(&apart).contains("network"));
        drop((beside, unfiltered, apart));
        tree.remove(run, Duration::from_secs(5)).expect("the cgroup goes");
        fs::remove_dir(tree.slice()).expect("the slice goes");
    }
}
