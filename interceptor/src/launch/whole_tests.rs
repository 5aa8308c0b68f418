//! The whole of a launch with the real helper and the real kernel side: only the proxy and the keeper are stand-ins.
//! As in `tests`, the ignored ones are this binary in another part.

use std::{
    fs,
    io::Write,
    net::{SocketAddr, TcpListener},
    os::{fd::BorrowedFd, unix::fs::PermissionsExt},
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    tests::{authority, trust},
    *,
};
use crate::{
    helper::{
        self, Around, Capture, Connection, Foreign, Listeners, Roles, RunNetwork, cgroup::Tree, messages::*,
    },
    kernel::{
        Attachment, Belts, Girth, KernelMaps, Passing, RunAddresses, RunSettings, cgroup, layer::Layer,
    },
};

const ROOT: &str = "INTERCEPTOR_TEST_ROOT";
const SCRIPT: &str = "INTERCEPTOR_TEST_SCRIPT";

fn part(name: &str, root: &Path) -> Vec<OsString> {
    // A filter that skips nothing carries the folder, since the daemon starts with an empty environment.
    let name = format!("launch::whole_tests::{name}");
    ["--exact", &name, "--ignored", "--nocapture", "--skip"]
        .map(OsString::from)
        .into_iter()
        .chain([root.into()])
        .collect()
}

fn given_root() -> Option<PathBuf> {
    env::args_os().skip_while(|argument| argument != "--skip").nth(1).map(PathBuf::from)
}

struct Kernel {
    attachment: Attachment,
    belts: Belts,
    places: Places,
}

fn capture(places: &Places) -> Result<Arc<dyn Capture>, Foreign> {
    let attachment = Attachment::establish(places, Layer::AVAILABLE)?;
    Ok(Arc::new(Kernel { attachment, belts: Belts::of(places), places: places.clone() }))
}

impl Capture for Kernel {
    fn deny_all(&self, deny: bool) -> Result<(), Foreign> {
        Ok(self.attachment.deny_all(deny)?)
    }

    fn maintain(&self) -> Result<(), Foreign> {
        Ok(())
    }

    fn register(&self, path: &Path, network: RunNetwork) -> Result<(), Foreign> {
        let settings = RunSettings {
            run: network.run,
            tcp_port: network.ports.tcp,
            dns_port: network.ports.dns,
            namespace: network.namespace,
            own: network.own.map(|(v4, v6)| RunAddresses { v4: Some(v4), v6 }),
        };
        Ok(self.attachment.register_run(cgroup::id(path)?, settings)?)
    }

    fn forget(&self, path: &Path) -> Result<(), Foreign> {
        Ok(self.attachment.forget_run(cgroup::id(path)?)?)
    }

    fn enclose(&self, run: RunId, path: &Path) -> Result<(), Foreign> {
        Ok(self.attachment.enclose(run, path)?)
    }

    fn release(&self, run: RunId, path: &Path) -> Result<(), Foreign> {
        Ok(self.attachment.release(run, path)?)
    }

    fn keep(&self, run: RunId, cookies: &[u64], time: Duration) -> Result<(), Foreign> {
        Ok(self.attachment.keep(run, cookies, time)?)
    }
    fn unkeep(&self, run: RunId, gone: &[Connection]) -> Result<(), Foreign> {
        Ok(self.attachment.unkeep(run, &helper::cookies(gone))?)
    }
    fn kept_for(&self, run: RunId) -> Option<Duration> {
        self.attachment.kept_for(run)
    }
    fn put_belt_on(
        &self,
        run: RunId,
        netfilter: OwnedFd,
        around: Around<'_>,
        _: &[Connection],
    ) -> Result<(), Foreign> {
        assert_eq!(around, Around::Namespace);
        Ok(self.belts.put_on(run, netfilter, Girth::Namespace, Passing::default())?)
    }

    fn take_belt_off(&self, run: RunId, elsewhere: Option<BorrowedFd<'_>>) -> Result<(), Foreign> {
        Ok(self.belts.take_off(run, elsewhere)?)
    }

    fn inspect_belts(&self, only: Option<RunId>) -> Vec<(RunId, String)> {
        self.belts.inspect(only)
    }

    fn shed_belts(&self) -> Result<(), Foreign> {
        Ok(self.belts.shed()?)
    }

    fn descriptors(&self) -> Result<Vec<OwnedFd>, Foreign> {
        Ok(self.attachment.proxy_maps().descriptors()?)
    }

    fn sweep(&self) {
        self.attachment.sweep(Duration::from_secs(30));
    }

    fn remove(&self) -> Result<(), Foreign> {
        Ok(Attachment::teardown(&self.places)?)
    }
}

#[test]
#[ignore = "the launcher of the other tests"]
fn whole_launcher() {
    let (Some(root), Ok(script)) = (env::var_os(ROOT), env::var(SCRIPT)) else { return };
    let root = Path::new(&root);
    env::set_current_dir("/").expect("folder");
    let options = Options {
        places: Places::under(root),
        agent: None,
        mode: Mode::Enforce,
        reason: None,
        user: Some("nobody".to_owned()),
        capabilities: Vec::new(),
        elevation: Elevation::Refused,
        profile: Profile::Plain,
        command: ["bash", "-c", &script].map(OsString::from).to_vec(),
        daemon: part("whole_daemon", root),
        trust,
    };
    let status = launch(&options).unwrap_or_else(|error| {
        eprintln!("launch: {}", crate::telemetry::chain(&error));
        error.status()
    });
    std::process::exit(status.into());
}

#[test]
#[ignore = "the daemon of the other tests"]
fn whole_daemon() {
    let Some(root) = given_root() else { return };
    println!();
    let done = helper::run(helper::Options {
        places: Places::under(&root),
        roles: Roles {
            proxy: part("whole_proxy", &root),
            keeper: part("whole_keeper", &root),
            holder: part("whole_holder", &root),
        },
        announce: true,
        capture: Box::new(capture),
        journal: Box::new(|_, _| Ok(tempfile::tempfile()?.into())),
    });
    if let Err(error) = &done {
        eprintln!("{}", crate::telemetry::chain(error));
    }
    std::process::exit(i32::from(done.is_err()));
}

#[test]
#[ignore = "the holder of the other tests"]
fn whole_holder() {
    let Some(_) = given_root() else { return };
    let _ = helper::hold();
}

#[test]
#[ignore = "the keeper of the other tests"]
fn whole_keeper() {
    let Some(_) = given_root() else { return };
    let channel = helper::keeper_channel().expect("channel");
    let (ToKeeper::Start { .. }, mut descriptors) = channel.receive().expect("start");
    channel.send(&FromKeeper::Up, &[]).expect("send");
    let peer: Channel<u32, u32> = Channel::from_socket(descriptors.remove(0));
    let _ = peer.receive();
}

#[test]
#[ignore = "the proxy of the other tests"]
fn whole_proxy() {
    let Some(root) = given_root() else { return };
    let channel = helper::proxy_channel().expect("channel");
    let Ok((ToProxy::Start { attached }, mut descriptors)) = channel.receive() else { panic!("start") };
    let first = attached.iter().position(|what| *what == Attached::Map).expect("maps");
    let maps = Arc::new(KernelMaps::from_descriptors(descriptors.split_off(first)).expect("maps"));
    let beating = Arc::clone(&maps);
    beating.beat().expect("beat");
    thread::spawn(move || {
        while beating.beat().is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
    });
    let mute = Arc::new(AtomicBool::new(root.join("etc/mute").exists()));
    channel.send(&FromProxy::Up, &[]).expect("send");
    while let Ok((message, descriptors)) = channel.receive() {
        let answer = match message {
            ToProxy::Requested { run, .. } => FromProxy::Accepted {
                run,
                agent: AgentIdentity { name: AgentName::unknown(), owner: None, groups: Vec::new() },
                claims: Default::default(),
                keeps: Default::default(),
                authority: authority(),
            },
            ToProxy::Started { run, v6, .. } => {
                let listeners = Listeners::from_copies(descriptors, v6).expect("listeners");
                let tcp6 = listeners.v6.into_iter().flat_map(|(tcp6, _)| tcp6);
                for listener in listeners.tcp4.into_iter().chain(tcp6) {
                    let (maps, mute) = (Arc::clone(&maps), Arc::clone(&mute));
                    thread::spawn(move || serve(listener.into(), run.id, &maps, &mute));
                }
                FromProxy::Serving { run: run.id }
            }
            ToProxy::Drain => return,
            _ => continue,
        };
        channel.send(&answer, &[]).expect("send");
    }
}

/// Answers probes only, and says to others where they wanted to go.
fn serve(listener: TcpListener, run: RunId, maps: &KernelMaps, mute: &AtomicBool) {
    for mut stream in listener.incoming().flatten() {
        let client: SocketAddr = stream.peer_addr().expect("peer");
        let text = match maps.take_flow(run, client) {
            _ if mute.load(Ordering::Relaxed) => continue,
            Some(flow) if is_probe(flow.destination) => probe_answer(run),
            Some(flow) => format!("wanted {}\n", flow.destination),
            None => continue,
        };
        let _ = stream.write_all(text.as_bytes());
    }
}

/// An installation of its own, swept when the test is over.
struct Installation(tempfile::TempDir);

impl Installation {
    fn new() -> Self {
        let root = tempfile::Builder::new().prefix("whole").tempdir_in("/tmp").expect("folder");
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).expect("mode");
        fs::create_dir(root.path().join("etc")).expect("folder");
        Self(root)
    }

    fn launch(&self, script: &str) -> Output {
        Command::new(env::current_exe().expect("this binary"))
            .args(["--exact", "launch::whole_tests::whole_launcher", "--ignored", "--nocapture"])
            .env(ROOT, self.0.path())
            .env(SCRIPT, format!("echo BEGIN; {script}"))
            .stdin(std::process::Stdio::null())
            .output()
            .expect("launcher")
    }

    fn daemons(&self) -> Vec<i32> {
        let root = self.0.path().as_os_str().as_bytes();
        let processes = fs::read_dir("/proc").expect("proc").flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let has = |part: &[u8]| line.windows(part.len()).any(|window| window == part);
            has(root) && has(b"whole_daemon")
        })
        .collect()
    }

    fn stop(&self) {
        for pid in self.daemons() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM);
        }
        let begun = Instant::now();
        while !self.daemons().is_empty() && begun.elapsed() < Duration::from_secs(60) {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        self.stop();
        let _ = Attachment::teardown(&Places::under(self.0.path()));
    }
}

fn text(output: &Output) -> (String, String) {
    let [said, errors] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    (said.split_once("BEGIN\n").map(|(_, said)| said.to_owned()).unwrap_or_default(), errors)
}

#[test]
fn a_launch_starts_the_daemon_proves_capture_and_leaves_nothing() {
    let installation = Installation::new();
    let script = "for to in 192.0.2.9/5432 2001:db8::9/5432 8.8.8.8/443; do cat < /dev/tcp/$to; done; exit 6";
    let output = installation.launch(script);
    let (said, errors) = text(&output);
    assert_eq!(said, "wanted 192.0.2.9:5432\nwanted [2001:db8::9]:5432\nwanted 8.8.8.8:443\n", "{errors}");
    assert_eq!(output.status.code(), Some(6), "{errors}");
    assert_eq!(installation.daemons().len(), 1);
    let second = installation.launch("cat < /dev/tcp/10.0.0.1/80");
    assert_eq!(text(&second).0, "wanted 10.0.0.1:80\n", "{}", text(&second).1);
    assert_eq!(installation.daemons().len(), 1);
    let places = Places::under(installation.0.path());
    let tree = Tree::find(&places).expect("cgroup2");
    // The daemon hears of a run's end at the same time as the launcher.
    let begun = Instant::now();
    while fs::read_dir(places.runs()).expect("runs").count() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the daemon still describes a run that ended");
        thread::sleep(Duration::from_millis(20));
    }
    installation.stop();
    assert!(!tree.slice().exists() && !places.pins().exists() && installation.daemons().is_empty());
}

#[test]
fn without_an_answer_to_the_probe_nothing_is_executed() {
    let installation = Installation::new();
    fs::write(installation.0.path().join("etc/mute"), "").expect("file");
    let output = installation.launch("true");
    let (said, errors) = text(&output);
    assert_eq!(output.status.code(), Some(OWN_FAILURE.into()), "{errors}");
    assert!(said.is_empty() && !String::from_utf8_lossy(&output.stdout).contains("BEGIN"));
    assert!(errors.contains("the run is not captured, so nothing was executed"), "{errors}");
}

#[test]
fn two_launches_at_once_share_one_daemon() {
    let installation = Installation::new();
    thread::scope(|scope| {
        let both = [0, 1].map(|_| scope.spawn(|| installation.launch("echo done")));
        for launched in both {
            let output = launched.join().expect("thread");
            assert_eq!(text(&output).0, "done\n", "{}", text(&output).1);
        }
    });
    assert_eq!(installation.daemons().len(), 1);
}

#[test]
fn a_daemon_that_cannot_start_is_named_with_its_reason() {
    let installation = Installation::new();
    fs::remove_dir(installation.0.path().join("etc")).expect("folder");
    let output = installation.launch("true");
    let (_, errors) = text(&output);
    assert_eq!(output.status.code(), Some(OWN_FAILURE.into()));
    assert!(
        errors.contains("the daemon does not start: ") && errors.contains("interceptor init"),
        "{errors}"
    );
}
