//! The helper whole, against the real kernel, with stand-ins for the kernel programs, the proxy and the keeper. The
//! daemon and its roles are this test binary again: `daemon`, `proxy` and `keeper` are no tests on their own.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use interceptor_core::model::{AgentIdentity, AgentName, Mode};
use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::{
        signal::{Signal, kill},
        socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
    },
    unistd::Pid,
};

use super::{messages::*, *};
use crate::{
    channel::Channel,
    launch::{furnish_network, syscalls},
};

mod held;

const ROOT: &str = "INTERCEPTOR_TEST_ROOT";
/// Whom the process that holds listeners runs as.
const HOLDER: u32 = 64_792;

struct NoKernel(PathBuf);

impl NoKernel {
    fn note(&self, line: &str) -> Result<(), Foreign> {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&self.0)?;
        Ok(writeln!(file, "{line}")?)
    }
}

impl Capture for NoKernel {
    fn deny_all(&self, deny: bool) -> Result<(), Foreign> {
        self.note(&format!("deny {deny}"))
    }
    fn maintain(&self) -> Result<(), Foreign> {
        Ok(())
    }
    fn register(&self, cgroup: &Path, network: RunNetwork) -> Result<(), Foreign> {
        assert!(cgroup.is_dir() && network.namespace != 0);
        self.note("register")
    }
    fn forget(&self, cgroup: &Path) -> Result<(), Foreign> {
        assert!(cgroup.is_dir());
        self.note("forget")
    }
    fn enclose(&self, _: RunId, cgroup: &Path) -> Result<(), Foreign> {
        assert!(cgroup.is_dir());
        self.note("enclose")
    }
    fn release(&self, _: RunId, _: &Path) -> Result<(), Foreign> {
        self.note("release")
    }
    fn put_belt_on(&self, _: RunId, _: OwnedFd, around: Around<'_>, _: &[Connection]) -> Result<(), Foreign> {
        assert!(
            matches!(around, Around::Namespace) || matches!(around, Around::Cgroup(path) if path.is_dir())
        );
        Ok(())
    }
    fn take_belt_off(&self, _: RunId, _: Option<BorrowedFd<'_>>) -> Result<(), Foreign> {
        Ok(())
    }
    fn inspect_belts(&self, _: Option<RunId>) -> Vec<(RunId, String)> {
        Vec::new()
    }
    fn shed_belts(&self) -> Result<(), Foreign> {
        Ok(())
    }
    fn keep(&self, _: RunId, cookies: &[u64], _: Duration) -> Result<(), Foreign> {
        self.note(&format!("keep {}", cookies.len()))
    }
    fn unkeep(&self, _: RunId, gone: &[Connection]) -> Result<(), Foreign> {
        self.note(&format!("unkeep {}", gone.len()))
    }
    fn kept_for(&self, _: RunId) -> Option<Duration> {
        None
    }
    fn descriptors(&self) -> Result<Vec<OwnedFd>, Foreign> {
        Ok(vec![File::open("/dev/null")?.into()])
    }
    fn sweep(&self) {}
    fn remove(&self) -> Result<(), Foreign> {
        self.note("remove")
    }
}

#[test]
#[ignore = "the daemon of the other tests"]
fn daemon() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    let role = |name: &str| ["--exact", name, "--ignored", "--nocapture"].map(Into::into).to_vec();
    let log = Path::new(&root).join("kernel.log");
    let options = Options {
        places: Places::under(Path::new(&root)),
        roles: Roles {
            proxy: role("helper::tests::proxy"),
            keeper: role("helper::tests::keeper"),
            holder: role("helper::tests::holder"),
        },
        announce: true,
        capture: Box::new(move |_| Ok(Arc::new(NoKernel(log)))),
        journal: Box::new(|places, accounts| {
            assert_eq!(fs::metadata(places.audit())?.permissions().mode() & 0o777, 0o700);
            assert_ne!(accounts.proxy, accounts.keeper);
            Ok(tempfile::tempfile()?.into())
        }),
    };
    if let Err(error) = run(options) {
        eprintln!("daemon: {error}");
        std::process::exit(1);
    }
    std::process::exit(0);
}

#[test]
#[ignore = "the holder of the other tests"]
fn holder() {
    if std::env::args().len() < 4 {
        return;
    }
    let _ = hold();
}

#[test]
#[ignore = "the keeper of the other tests"]
fn keeper() {
    if std::env::args().len() < 4 {
        return;
    }
    let Ok(channel) = keeper_channel() else { return };
    let Ok((ToKeeper::Start { attached }, descriptors)) = channel.receive() else { return };
    assert_eq!((attached, descriptors.len()), (vec![Attached::Peer, Attached::Journal], 2));
    channel.send(&FromKeeper::Up, &[]).expect("send");
    let peer: Channel<u32, u32> = Channel::from_socket(descriptors.into_iter().next().expect("peer"));
    let _ = peer.receive();
}

#[test]
#[ignore = "the proxy of the other tests"]
fn proxy() {
    let Ok(channel) = proxy_channel() else { return };
    let channel = Arc::new(channel);
    let Ok((ToProxy::Start { attached }, _peer)) = channel.receive() else { return };
    assert_eq!(
        attached,
        [Attached::Peer, Attached::Journal, Attached::Control, Attached::Approvals, Attached::Map]
    );
    channel.send(&FromProxy::Up, &[]).expect("send");
    while let Ok((message, descriptors)) = channel.receive() {
        let answer = match message {
            ToProxy::Requested { run, facts } if facts.executable == "/forbidden" => {
                FromProxy::Refused { run, text: "not this one".to_owned() }
            }
            ToProxy::Requested { run, facts } if facts.executable == "/hostile" => {
                FromProxy::Refused { run, text: attack(&channel) }
            }
            ToProxy::Requested { run, .. } => accepted(run),
            ToProxy::Started { run, v6, .. } => {
                let listeners = Listeners::from_copies(descriptors, v6).expect("listeners");
                for listener in listeners.tcp4 {
                    thread::spawn(move || serve(listener.into(), run.id));
                }
                FromProxy::Serving { run: run.id.to_owned() }
            }
            ToProxy::Drain => return,
            _ => continue,
        };
        channel.send(&answer, &[]).expect("send");
    }
}

fn accepted(run: RunId) -> FromProxy {
    FromProxy::Accepted {
        run,
        agent: AgentIdentity { name: AgentName::unknown(), owner: None, groups: Vec::new() },
        claims: Default::default(),
        keeps: Default::default(),
        authority: "certificate".to_owned(),
    }
}

/// What a proxy that was taken over may ask of the helper, about what is not its own; what it gets.
fn attack(channel: &Channel<FromProxy, ToProxy>) -> String {
    let run = RunId::from_random(u64::MAX);
    let start_time = |pid| start_ticks(pid).unwrap_or_default() * executable::TICK_NS;
    let helper = nix::unistd::getppid().as_raw().cast_unsigned();
    let (of_helper, of_first) = (start_time(helper), start_time(1));
    for message in [
        accepted(run),
        FromProxy::Refused { run, text: "no".to_owned() },
        FromProxy::Serving { run },
        FromProxy::Up,
        FromProxy::Kill { run },
        FromProxy::Freeze { run },
        FromProxy::Thaw { run },
        FromProxy::Executable { ticket: 1, pid: helper, start_time: of_helper },
        FromProxy::Executable { ticket: 2, pid: 1, start_time: of_first },
    ] {
        channel.send(&message, &[]).expect("send");
    }
    let answers = (0..5).map(|_| match channel.receive().expect("an answer").0 {
        ToProxy::Carried { failure: Some(_), .. } => "refused",
        ToProxy::Executable { found: None, .. } => "nothing",
        _ => "more than that",
    });
    let mut answers: Vec<_> = answers.collect();
    answers.sort_unstable();
    format!("{} {of_first}", answers.join(" "))
}

fn serve(listener: TcpListener, run: RunId) {
    for stream in listener.incoming().flatten() {
        let _ = (&stream).write_all(probe_answer(run).as_bytes());
    }
}

/// A daemon of its own, ended and swept when the test is over.
struct Daemon {
    root: tempfile::TempDir,
    child: Child,
}

impl Daemon {
    fn start() -> Self {
        let root = tempfile::Builder::new().prefix("helper").tempdir_in("/tmp").expect("folder");
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).expect("mode");
        fs::create_dir(root.path().join("etc")).expect("folder");
        let child = Self::spawn(root.path());
        Self { root, child }
    }

    fn spawn(root: &Path) -> Child {
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "helper::tests::daemon", "--ignored", "--nocapture"])
            .env(ROOT, root)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("daemon");
        let lines = BufReader::new(child.stdout.take().expect("output")).lines();
        let said: Vec<String> =
            lines.map_while(Result::ok).take_while(|line| !line.ends_with("ready")).collect();
        assert!(child.try_wait().expect("daemon").is_none(), "{said:?}");
        child
    }

    /// Ends the helper, and with it its roles, by a signal that it cannot see.
    fn kill(&mut self) {
        let roles = [64_790, 64_791].map(|uid| self.role(uid).expect("role"));
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
        until("the roles end with the helper", || roles.into_iter().all(has_ended));
    }

    fn start_again(&mut self) {
        self.child = Self::spawn(self.root.path());
    }

    fn places(&self) -> Places {
        Places::under(self.root.path())
    }

    fn tree(&self) -> Tree {
        Tree::find(&self.places()).expect("cgroup2")
    }

    /// The role's process: a child of the daemon with the role's user.
    fn role(&self, uid: u32) -> Option<u32> {
        let parent = format!("PPid:\t{}\n", self.child.id());
        let user = format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n");
        let processes = fs::read_dir("/proc").expect("proc").flatten();
        processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(|pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/status"))
                .is_ok_and(|status| status.contains(&parent) && status.contains(&user))
        })
    }

    fn kernel_log(&self) -> String {
        fs::read_to_string(self.root.path().join("kernel.log")).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let tree = self.tree();
        let _ = tree.end_holder(Duration::from_secs(5));
        for run in tree.runs() {
            let _ = tree.remove(run, Duration::from_secs(5));
        }
        for name in [self.places().slice(), self.places().daemon_cgroup()] {
            let path = tree.root().join(name);
            until("the cgroup goes", || !path.exists() || fs::remove_dir(&path).is_ok());
        }
    }
}

fn has_ended(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}/exe")).exists()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

type Launcher = Channel<LaunchRequest, LaunchAnswer>;

fn launcher(places: &Places) -> Launcher {
    let socket =
        socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).expect("socket");
    connect(socket.as_raw_fd(), &UnixAddr::new(&places.launch_socket()).expect("path")).expect("connect");
    Channel::from_socket(socket)
}

fn begin(launcher: &Launcher, executable: &str) -> (LaunchAnswer, Vec<OwnedFd>) {
    begin_in(launcher, executable, Network::Own)
}

fn begin_in(launcher: &Launcher, executable: &str, network: Network) -> (LaunchAnswer, Vec<OwnedFd>) {
    let facts = LaunchFacts {
        agent: None,
        mode: Mode::Enforce,
        reason: None,
        command: vec![executable.to_owned()],
        executable: executable.to_owned(),
        launcher_uid: 0,
        launcher_user: None,
        uid: 65_534,
        capabilities: Vec::new(),
        profile: ProfileKind::Plain,
        network,
        existing: Existing::Reset,
        unit: None,
        secrets: Vec::new(),
    };
    launcher.send(&LaunchRequest::Begin { version: VERSION, facts: Box::new(facts) }, &[]).expect("send");
    launcher.receive().expect("receive")
}

/// A run whose first process sleeps.
struct Sleeper {
    id: RunId,
    init: Child,
    ports: Ports,
}

impl Sleeper {
    fn launch(daemon: &Daemon) -> Self {
        let launcher = launcher(&daemon.places());
        let (LaunchAnswer::Begun { run, .. }, descriptors) = begin(&launcher, "/bin/sleep") else {
            panic!("refused")
        };
        assert_eq!(descriptors.len(), 1);
        let mut command = Command::new("/bin/sleep");
        let procs = daemon.tree().directory_of(run).join("cgroup.procs");
        syscalls::before_exec(command.arg("1000"), move || {
            fs::write(&procs, "0")?;
            unshare(CloneFlags::CLONE_NEWNET)?;
            furnish_network()?;
            Ok(())
        });
        let init = command.spawn().expect("sleep");
        let pid = Pid::from_raw(i32::try_from(init.id()).expect("pid"));
        let namespace = File::open(format!("/proc/{pid}/ns/net")).expect("namespace");
        let pidfd = syscalls::pidfd_open(pid).expect("pidfd");
        launcher.send(&LaunchRequest::Namespaces, &[namespace.as_fd(), pidfd.as_fd()]).expect("send");
        let (answer, _) = launcher.receive().expect("receive");
        assert_eq!(answer, LaunchAnswer::Ready);
        Self { id: run, init, ports: Ports::default() }
    }

    fn inside<T: Send + 'static>(&self, body: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = File::open(format!("/proc/{}/ns/net", self.init.id())).expect("namespace");
        let thread = thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("setns");
            body()
        });
        thread.join().expect("thread")
    }

    /// The kernel's numbers of the sockets that have the run's ports.
    fn sockets(&self) -> Vec<String> {
        let ports = [self.ports.tcp, self.ports.dns].map(|port| format!(":{port:04X}"));
        let of = |table: &str| {
            let lines = fs::read_to_string(format!("/proc/{}/net/{table}", self.init.id())).expect("a table");
            let own = lines.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).filter(|words| {
                let is_listener = table.starts_with("udp") || words[3] == "0A";
                is_listener && ports.iter().any(|port| words[1].ends_with(port))
            });
            own.map(|words| format!("{table} {}", words[9])).collect::<Vec<_>>()
        };
        let mut found: Vec<_> = ["tcp", "tcp6", "udp", "udp6"].into_iter().flat_map(of).collect();
        found.sort();
        found
    }

    /// Whether nobody in the run's network can have its ports.
    fn has_its_ports(&self) -> bool {
        let Ports { tcp, dns } = self.ports;
        self.inside(move || {
            TcpListener::bind(("127.0.0.1", tcp)).is_err() && UdpSocket::bind(("127.0.0.1", dns)).is_err()
        })
    }

    /// What the proxy says to a connection from inside.
    fn answered(&self) -> String {
        let port = self.ports.tcp;
        self.inside(move || {
            let mut text = String::new();
            let stream = TcpStream::connect(("127.0.0.1", port));
            let _ = stream.map(|stream| {
                let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
                stream.take(64).read_to_string(&mut text)
            });
            text
        })
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.init.kill();
        let _ = self.init.wait();
    }
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).expect("pid"))
}

#[test]
fn a_run_is_served_until_its_first_process_ends() {
    let daemon = Daemon::start();
    let sleeper = Sleeper::launch(&daemon);
    assert_eq!(sleeper.answered(), probe_answer(sleeper.id));
    let port = sleeper.ports.tcp;
    assert!(sleeper.inside(move || TcpListener::bind(("127.0.0.1", port)).is_err()));
    let (id, tree) = (sleeper.id, daemon.tree());
    assert!(Tree::is_populated(&tree.directory_of(id)));
    drop(sleeper);
    until("the run's cgroup goes", || !tree.directory_of(id).exists());
    assert_eq!(fs::read_dir(daemon.places().runs()).expect("runs").count(), 0);
    assert_eq!(daemon.kernel_log(), "deny true\ndeny false\nregister\nforget\n");
}

#[test]
fn the_roles_have_no_privilege() {
    let daemon = Daemon::start();
    for uid in [64_790, 64_791] {
        let role = daemon.role(uid).expect("the role runs");
        let status = fs::read_to_string(format!("/proc/{role}/status")).expect("status");
        for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert!(status.contains(&format!("{name}:\t0000000000000000\n")), "{status}");
        }
        assert!(status.contains("NoNewPrivs:\t1\n") && status.contains("Groups:\t \n"), "{status}");
        let cgroup = fs::read_to_string(format!("/proc/{role}/cgroup")).expect("cgroup");
        assert!(cgroup.contains(&format!("0::/{}\n", daemon.places().daemon_cgroup())), "{cgroup}");
    }
}

#[test]
fn a_proxy_that_is_killed_comes_back_and_gets_the_same_listeners() {
    let daemon = Daemon::start();
    let sleeper = Sleeper::launch(&daemon);
    let proxy = daemon.role(64_790).expect("proxy");
    let keeper = daemon.role(64_791).expect("keeper");
    kill(pid(proxy), Signal::SIGKILL).expect("kill");
    let port = sleeper.ports.tcp;
    until("another proxy serves", || {
        assert!(sleeper.inside(move || TcpListener::bind(("127.0.0.1", port)).is_err()), "the port was free");
        daemon.role(64_790).is_some_and(|now| now != proxy)
    });
    assert_eq!(sleeper.answered(), probe_answer(sleeper.id));
    assert_ne!(daemon.role(64_791), Some(keeper), "the keeper is new too");
    assert!(
        daemon.kernel_log().starts_with("deny true\ndeny false\nregister\ndeny true\n"),
        "{}",
        daemon.kernel_log()
    );
}

#[test]
fn a_new_helper_takes_live_runs_over() {
    let mut daemon = Daemon::start();
    let sleeper = Sleeper::launch(&daemon);
    let roles = [64_790, 64_791].map(|uid| daemon.role(uid).expect("role"));
    daemon.child.kill().expect("kill");
    daemon.child.wait().expect("wait");
    until("the roles end with the helper", || {
        roles.iter().all(|role| !Path::new(&format!("/proc/{role}/exe")).exists())
    });
    assert_eq!(sleeper.answered(), "");
    daemon.child = Daemon::spawn(daemon.root.path());
    assert_eq!(sleeper.answered(), probe_answer(sleeper.id));
    let (id, tree) = (sleeper.id, daemon.tree());
    drop(sleeper);
    until("the run's cgroup goes", || !tree.directory_of(id).exists());
}

/// A proxy that was taken over has no say about what is not its own, and learns nothing of processes outside of runs.
#[test]
fn a_hostile_proxy_gets_nothing_that_is_not_its_own() {
    let daemon = Daemon::start();
    let sleeper = Sleeper::launch(&daemon);
    let (LaunchAnswer::Refused { text }, _) = begin(&launcher(&daemon.places()), "/hostile") else {
        panic!("it was not refused")
    };
    let (got, started) = text.rsplit_once(' ').expect("what it got");
    assert_eq!(got, "nothing nothing refused refused refused");
    assert_ne!(started, "0", "it asked for a process that is there");
    assert_eq!(sleeper.answered(), probe_answer(sleeper.id));
    assert_eq!(daemon.tree().runs(), [sleeper.id]);
    drop(Sleeper::launch(&daemon));
}

#[test]
fn what_ends_while_no_helper_runs_is_removed_by_the_next() {
    let mut daemon = Daemon::start();
    let sleeper = Sleeper::launch(&daemon);
    daemon.child.kill().expect("kill");
    daemon.child.wait().expect("wait");
    let (id, tree) = (sleeper.id, daemon.tree());
    drop(sleeper);
    daemon.child = Daemon::spawn(daemon.root.path());
    until("the run's cgroup goes", || !tree.directory_of(id).exists());
    assert_eq!(fs::read_dir(daemon.places().runs()).expect("runs").count(), 0);
}

#[test]
fn a_daemon_that_is_told_to_end_leaves_nothing_or_what_is_needed() {
    let mut daemon = Daemon::start();
    let sleeper = Sleeper::launch(&daemon);
    kill(pid(daemon.child.id()), Signal::SIGTERM).expect("kill");
    assert!(daemon.child.wait().expect("wait").success());
    assert!(!daemon.kernel_log().contains("remove"), "a run lives: {}", daemon.kernel_log());
    assert!(daemon.kernel_log().ends_with("deny true\n"));
    daemon.child = Daemon::spawn(daemon.root.path());
    assert_eq!(sleeper.answered(), probe_answer(sleeper.id));
    let (id, tree) = (sleeper.id, daemon.tree());
    drop(sleeper);
    until("the run's cgroup goes", || !tree.directory_of(id).exists());
    kill(pid(daemon.child.id()), Signal::SIGTERM).expect("kill");
    assert!(daemon.child.wait().expect("wait").success());
    assert!(daemon.kernel_log().ends_with("deny true\nremove\n"));
    assert!(!tree.slice().exists() && !tree.root().join(daemon.places().daemon_cgroup()).exists());
    assert!(!daemon.places().launch_socket().exists() && !daemon.places().control_socket().exists());
}

#[test]
fn refusals_and_abandoned_launches_leave_nothing() {
    let daemon = Daemon::start();
    let tree = daemon.tree();
    let refused = launcher(&daemon.places());
    let (answer, _) = begin(&refused, "/forbidden");
    assert_eq!(answer, LaunchAnswer::Refused { text: "not this one".to_owned() });
    assert!(tree.runs().is_empty());
    let abandoned = launcher(&daemon.places());
    let (LaunchAnswer::Begun { run, .. }, _) = begin(&abandoned, "/bin/true") else { panic!("refused") };
    assert!(tree.directory_of(run).exists());
    drop(abandoned);
    until("the abandoned run's cgroup goes", || !tree.directory_of(run).exists());
    let outsider = launcher(&daemon.places());
    let (LaunchAnswer::Begun { .. }, _) = begin(&outsider, "/bin/true") else { panic!("refused") };
    let mut sleep = Command::new("/bin/sleep").arg("1000").spawn().expect("sleep");
    let namespace = File::open("/proc/self/ns/net").expect("namespace");
    let pidfd = syscalls::pidfd_open(pid(sleep.id())).expect("pidfd");
    outsider.send(&LaunchRequest::Namespaces, &[namespace.as_fd(), pidfd.as_fd()]).expect("send");
    assert!(
        matches!(outsider.receive().expect("receive").0, LaunchAnswer::Refused { text } if text.contains("cgroup"))
    );
    sleep.kill().expect("kill");
    sleep.wait().expect("wait");
    until("all cgroups go", || tree.runs().is_empty());
}

/// A cgroup that is captured in its place is let go of when its launcher does not say that all is well, and stays when it
/// does.
#[test]
fn a_cgroup_in_its_place_is_captured_only_once_it_is_settled() {
    let daemon = Daemon::start();
    let directory = daemon.tree().root().join(format!("helper-in-place-{}", std::process::id()));
    fs::create_dir(&directory).expect("a cgroup");
    let mut sleep = Command::new("/bin/sleep").arg("1000").spawn().expect("sleep");
    fs::write(directory.join("cgroup.procs"), sleep.id().to_string()).expect("moved");
    let captured = || Tree::is_captured(&sleep.id().to_string()).expect("it lives");
    let capture = || {
        let launcher = launcher(&daemon.places());
        let name = format!("/{}", directory.file_name().and_then(|name| name.to_str()).expect("a name"));
        let (answer, _) = begin_in(&launcher, "/bin/sleep", Network::InPlace { cgroup: name });
        let LaunchAnswer::Begun { run, .. } = answer else { panic!("{answer:?}") };
        assert!(!captured());
        let namespace = File::open("/proc/self/ns/net").expect("namespace");
        let pidfd = syscalls::pidfd_open(pid(sleep.id())).expect("pidfd");
        launcher.send(&LaunchRequest::Namespaces, &[namespace.as_fd(), pidfd.as_fd()]).expect("send");
        assert_eq!(launcher.receive().expect("receive").0, LaunchAnswer::Ready);
        assert!(captured());
        (launcher, run)
    };
    let (abandoned, _) = capture();
    fs::write(directory.join("cgroup.freeze"), "1").expect("frozen");
    drop(abandoned);
    until("it is let go of", || !captured());
    assert!(!Tree::is_frozen(&directory));

    let (settled, run) = capture();
    settled.send(&LaunchRequest::Settled { keep: None }, &[]).expect("send");
    assert_eq!(settled.receive().expect("receive").0, LaunchAnswer::Settled);
    drop(settled);
    let detached = |run| {
        let launcher = launcher(&daemon.places());
        launcher.send(&LaunchRequest::Detach { version: VERSION, run }, &[]).expect("send");
        launcher.receive().expect("receive").0
    };
    assert!(matches!(detached(RunId::from_random(7)), LaunchAnswer::Refused { .. }));
    assert!(captured());
    assert_eq!(detached(run), LaunchAnswer::Detached);
    assert!(!captured() && sleep.try_wait().expect("wait").is_none());
    assert_eq!(daemon.kernel_log().matches("enclose").count(), 2);
    assert_eq!(daemon.kernel_log().matches("release").count(), 2);
    sleep.kill().expect("kill");
    sleep.wait().expect("wait");
    until("the cgroup goes", || fs::remove_dir(&directory).is_ok());
}

/// What was held shows which network it is of when nobody is in the cgroup who could.
#[test]
fn an_empty_cgroup_in_its_place_is_served_where_it_was() {
    let mut daemon = Daemon::start();
    let directory = daemon.tree().root().join(format!("helper-empty-{}", std::process::id()));
    fs::create_dir(&directory).expect("a cgroup");
    let mut command = Command::new("/bin/sleep");
    syscalls::before_exec(command.arg("1000"), || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        furnish_network().map(drop)
    });
    let mut sleep = command.spawn().expect("sleep");
    fs::write(directory.join("cgroup.procs"), sleep.id().to_string()).expect("moved");
    let launcher = launcher(&daemon.places());
    let name = format!("/{}", directory.file_name().and_then(|name| name.to_str()).expect("a name"));
    let (answer, _) = begin_in(&launcher, "/bin/sleep", Network::InPlace { cgroup: name });
    let LaunchAnswer::Begun { run, .. } = answer else { panic!("{answer:?}") };
    let namespace = File::open(format!("/proc/{}/ns/net", sleep.id())).expect("namespace");
    let pidfd = syscalls::pidfd_open(pid(sleep.id())).expect("pidfd");
    launcher.send(&LaunchRequest::Namespaces, &[namespace.as_fd(), pidfd.as_fd()]).expect("send");
    assert_eq!(launcher.receive().expect("receive").0, LaunchAnswer::Ready);
    launcher.send(&LaunchRequest::Settled { keep: None }, &[]).expect("send");
    assert_eq!(launcher.receive().expect("receive").0, LaunchAnswer::Settled);
    let before = fs::read_to_string(daemon.places().marks(run)).expect("noted");
    sleep.kill().expect("kill");
    sleep.wait().expect("wait");
    let places = daemon.places();
    daemon.kill();
    daemon.start_again();
    assert_eq!(fs::read_to_string(places.marks(run)).expect("noted"), before, "the same sockets and network");
    let answered = thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).expect("setns");
        let Some(Ports { tcp, .. }) = Ports::shared().next() else { panic!("no port") };
        let mut text = String::new();
        let stream = TcpStream::connect(("127.0.0.1", tcp)).expect("it is served there");
        stream.take(64).read_to_string(&mut text).expect("an answer");
        text
    });
    assert_eq!(answered.join().expect("thread"), probe_answer(run));
    let detaching = self::launcher(&places);
    detaching.send(&LaunchRequest::Detach { version: VERSION, run }, &[]).expect("send");
    assert_eq!(detaching.receive().expect("receive").0, LaunchAnswer::Detached);
    until("the cgroup goes", || fs::remove_dir(&directory).is_ok());
}

#[test]
fn there_is_one_daemon_and_it_says_what_is_wrong() {
    let daemon = Daemon::start();
    let second = || {
        let output = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "helper::tests::daemon", "--ignored", "--nocapture"])
            .env(ROOT, daemon.root.path())
            .output()
            .expect("daemon");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(second().contains("runs already"));
    let configuration = daemon.places().configuration().to_owned();
    fs::set_permissions(&configuration, fs::Permissions::from_mode(0o777)).expect("mode");
    let said = second();
    assert!(said.contains("can be changed by others than root: chmod go-w it"), "{said}");
}
