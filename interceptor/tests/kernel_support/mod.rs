//! A captured run without the rest of the daemon: own places, slice, namespace and listeners, gone when dropped.

#![allow(unreachable_pub, dead_code, reason = "shared by test binaries that each use a part")]

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use interceptor::{
    kernel::{Attachment, Counter, Flow, KernelMaps, RunAddresses, RunSettings, cgroup, layer::Layer},
    places::Places,
};
use interceptor_core::model::RunId;
use nix::sched::{CloneFlags, setns, unshare};

pub mod actor;
mod reach;
pub mod stranger;
mod uring;

/// What the proxy's side of a run consists of.
pub struct Namespace {
    pub file: File,
    pub cookie: u64,
    pub tcp4: TcpListener,
    pub tcp6: TcpListener,
    pub dns4: UdpSocket,
    pub dns6: UdpSocket,
}

/// Runs something in a thread of its own: namespaces belong to threads.
pub fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    thread::spawn(work).join().expect("the thread")
}

fn run(command: &str, arguments: &[&str]) {
    let done = Command::new(command).args(arguments).status().expect(command);
    assert!(done.success(), "{command} {arguments:?}");
}

impl Namespace {
    fn new() -> Self {
        apart(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: are you root?");
            run("ip", &["link", "set", "lo", "up"]);
            run("ip", &["link", "add", "out0", "type", "veth", "peer", "name", "out1"]);
            run("ip", &["addr", "add", "10.99.0.1/24", "dev", "out0"]);
            // Whatever is sent by this device leaves at once, without asking for neighbours.
            run("ip", &["link", "set", "out0", "arp", "off"]);
            run("ip", &["link", "set", "out0", "up"]);
            run("ip", &["link", "set", "out1", "up"]);
            let tcp4 = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listen");
            let tcp6 = TcpListener::bind((Ipv6Addr::LOCALHOST, tcp4.local_addr().expect("port").port()))
                .expect("listen");
            let dns4 = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
            let dns6 = UdpSocket::bind((Ipv6Addr::LOCALHOST, dns4.local_addr().expect("port").port()))
                .expect("bind");
            for socket in [&dns4, &dns6] {
                socket.set_read_timeout(Some(Duration::from_secs(60))).expect("timeout");
            }
            let file = File::open("/proc/thread-self/ns/net").expect("namespace");
            Self { file, cookie: netns_cookie(&dns4), tcp4, tcp6, dns4, dns6 }
        })
    }
}

fn netns_cookie(socket: &UdpSocket) -> u64 {
    let (mut cookie, mut length) = (0_u64, 8 as libc::socklen_t);
    // SAFETY: the value is as long as said.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, 71, (&raw mut cookie).cast(), &raw mut length)
    };
    assert_eq!(result, 0, "SO_NETNS_COOKIE");
    cookie
}

fn beats(maps: Arc<KernelMaps>, beating: Arc<AtomicBool>) -> JoinHandle<()> {
    thread::spawn(move || {
        while beating.load(Ordering::Relaxed) {
            maps.beat().expect("beat");
            thread::sleep(Duration::from_millis(100));
        }
    })
}

/// A captured run.
pub struct Stage {
    pub places: Places,
    pub attachment: Option<Attachment>,
    pub maps: Arc<KernelMaps>,
    pub namespace: Namespace,
    pub run: RunId,
    pub cgroup: PathBuf,
    pub settings: RunSettings,
    beating: Arc<AtomicBool>,
    beater: Option<JoinHandle<()>>,
    _root: tempfile::TempDir,
}

impl Stage {
    /// Without LSM programs, so that what is seen is the same on every kernel.
    pub fn new() -> Self {
        Self::with(Layer::OFF)
    }

    pub fn with(layer: Layer) -> Self {
        let root = tempfile::tempdir().expect("folder");
        let places = Places::under(root.path());
        let attachment = Attachment::establish(&places, layer).expect("attachment");
        let namespace = Namespace::new();
        let cgroup = attachment.slice().join("run");
        fs::create_dir(&cgroup).expect("the run's cgroup");
        let run = RunId::from_random(cgroup::id(&cgroup).expect("id") * 7919);
        let settings = RunSettings {
            run,
            tcp_port: namespace.tcp4.local_addr().expect("port").port(),
            dns_port: namespace.dns4.local_addr().expect("port").port(),
            namespace: namespace.cookie,
            own: Some(RunAddresses { v4: Some(Ipv4Addr::new(10, 99, 0, 1)), v6: None }),
        };
        attachment.register_run(cgroup::id(&cgroup).expect("id"), settings).expect("register");
        let descriptors = attachment.proxy_maps().descriptors().expect("descriptors");
        let maps = Arc::new(KernelMaps::from_descriptors(descriptors).expect("maps"));
        let beating = Arc::new(AtomicBool::new(true));
        maps.beat().expect("beat");
        let beater = beats(maps.clone(), beating.clone());
        Self {
            places,
            attachment: Some(attachment),
            maps,
            namespace,
            run,
            cgroup,
            settings,
            beating,
            beater: Some(beater),
            _root: root,
        }
    }

    /// From now on the run is one without a network of its own.
    pub fn share_the_network(&mut self) {
        self.settings.own = None;
        let cgroup = cgroup::id(&self.cgroup).expect("id");
        let attachment = self.attachment.as_ref().expect("attached");
        attachment.register_run(cgroup, self.settings).expect("register");
    }

    /// No more signs of life.
    pub fn stop_beating(&mut self) {
        self.beating.store(false, Ordering::Relaxed);
        if let Some(beater) = self.beater.take() {
            beater.join().expect("beater");
        }
    }

    /// Signs of life again, by these maps.
    pub fn beat_again(&mut self, maps: KernelMaps) {
        self.maps = Arc::new(maps);
        self.maps.beat().expect("beat");
        self.beating.store(true, Ordering::Relaxed);
        self.beater = Some(beats(self.maps.clone(), self.beating.clone()));
    }

    /// Waits until the heartbeat has become stale.
    pub fn let_the_heartbeat_expire(&mut self) {
        self.stop_beating();
        thread::sleep(Duration::from_millis(2_300));
    }

    pub fn count(&self, counter: Counter) -> u64 {
        self.maps.counters().expect("counters").of(counter)
    }

    /// Starts a command inside the run.
    pub fn spawn(&self, command: &mut Command) -> Child {
        let (namespace, procs) = (self.namespace.file.as_raw_fd(), self.cgroup.join("cgroup.procs"));
        let procs = File::options().write(true).open(procs).expect("cgroup.procs");
        // SAFETY: only system calls between fork and exec.
        unsafe {
            command.pre_exec(move || {
                (&procs).write_all(b"0")?;
                let namespace = std::os::fd::BorrowedFd::borrow_raw(namespace);
                setns(namespace, CloneFlags::CLONE_NEWNET).map_err(std::io::Error::from)
            });
        }
        command.spawn().expect("a captured process")
    }

    /// Starts an actor with its script and gives what it says when it is done.
    pub fn act(&self, script: &str) -> Playing {
        self.act_with(script, None)
    }

    /// The same, with a descriptor passed on as [`actor::PASSED`].
    pub fn act_with(&self, script: &str, extra: Option<OwnedFd>) -> Playing {
        Playing(self.spawn(&mut actor_of(script, extra)))
    }

    /// The next connection to the run's listener, and where it was going.
    pub fn accept(&self, listener: &TcpListener) -> (TcpStream, Option<Flow>) {
        listener.set_nonblocking(true).expect("nonblocking");
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            match listener.accept() {
                Ok((stream, client)) => {
                    stream.set_nonblocking(false).expect("blocking");
                    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("timeout");
                    return (stream, self.maps.take_flow(self.run, client));
                }
                Err(error) => {
                    assert!(Instant::now() < end, "nobody connected: {error}");
                    thread::sleep(Duration::from_millis(5));
                }
            }
        }
    }

    /// Nobody has connected.
    pub fn assert_idle(&self) {
        for listener in [&self.namespace.tcp4, &self.namespace.tcp6] {
            listener.set_nonblocking(true).expect("nonblocking");
            assert!(listener.accept().is_err(), "somebody connected");
        }
    }

    /// Accepts, and checks where the client was going.
    pub fn accept_for(&self, listener: &TcpListener, destination: &str) -> (TcpStream, Flow) {
        let (stream, flow) = self.accept(listener);
        let flow = flow.expect("the flow of an accepted connection");
        assert_eq!(flow.destination, destination.parse::<SocketAddr>().expect("an address"));
        assert_eq!(flow.run, self.run);
        (stream, flow)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.beating.store(false, Ordering::Relaxed);
        if let Some(beater) = self.beater.take() {
            let _ = beater.join();
        }
        let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
        self.attachment = None;
        let end = Instant::now() + Duration::from_secs(5);
        while let Err(error) = Attachment::teardown(&self.places) {
            if Instant::now() > end {
                eprintln!("the stage could not be taken down: {error}");
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// An actor that is in no run, with a descriptor passed on as [`actor::PASSED`].
pub fn act_outside(script: &str, extra: OwnedFd) -> Playing {
    Playing(actor_of(script, Some(extra)).spawn().expect("a process"))
}

fn actor_of(script: &str, extra: Option<OwnedFd>) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "the_actor_plays", "--nocapture", "--test-threads=1"]);
    command.env(actor::SCRIPT, script).stdout(Stdio::null()).stderr(Stdio::piped());
    if let Some(extra) = extra {
        // SAFETY: only system calls between fork and exec; the descriptor lives in the closure.
        unsafe {
            command.pre_exec(move || {
                nix::errno::Errno::result(libc::dup2(extra.as_raw_fd(), actor::PASSED))
                    .map(drop)
                    .map_err(Into::into)
            });
        }
    }
    command
}

/// An actor at work.
pub struct Playing(pub Child);

impl Playing {
    /// What it said, when it is done.
    pub fn says(mut self) -> String {
        let mut text = String::new();
        self.0.stderr.take().expect("stderr").read_to_string(&mut text).expect("read");
        let status = self.0.wait().expect("wait");
        text.lines()
            .find_map(|line| line.strip_prefix(actor::ANSWER))
            .unwrap_or_else(|| panic!("the actor died with {status}: {text}"))
            .to_owned()
    }
}

/// Sees every packet that arrives at a device of the run's namespace.
pub struct Sniffer(OwnedFd);

pub fn sniffer(stage: &Stage, device: &'static str) -> Sniffer {
    let namespace = stage.namespace.file.try_clone().expect("namespace");
    apart(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).expect("setns");
        let every = (libc::ETH_P_ALL as u16).to_be();
        let fd = actor::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK, every.into())
            .expect("sniffer");
        let name = std::ffi::CString::new(device).expect("a name");
        // SAFETY: the address is as long as said.
        unsafe {
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = every;
            address.sll_ifindex = libc::if_nametoindex(name.as_ptr()) as i32;
            let length = size_of_val(&address) as u32;
            assert_eq!(libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length), 0);
        }
        Sniffer(fd)
    })
}

impl Sniffer {
    /// Every packet since the beginning.
    pub fn packets(&self) -> Vec<Vec<u8>> {
        thread::sleep(Duration::from_millis(100));
        let mut packets = Vec::new();
        let mut bytes = [0; 4096];
        while let Ok(length) = nix::unistd::read(&self.0, &mut bytes) {
            packets.push(bytes[..length].to_vec());
        }
        packets
    }

    pub fn assert_nothing_of(&self, secret: &[u8]) {
        for packet in self.packets() {
            assert!(!packet.windows(secret.len()).any(|part| part == secret), "on the wire: {packet:02x?}");
        }
    }
}
