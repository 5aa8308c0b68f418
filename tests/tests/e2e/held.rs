//! Listeners across the daemon's death: nobody else has their ports meanwhile, and the next daemon serves by the same ones.

use std::{
    fs::{self, File},
    net::{TcpListener, UdpSocket},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
    time::Duration,
};

use interceptor::channel::Channel;
use interceptor_tests::{
    Bed, Cgroup, Installation, RunningBed, Setup,
    cgroup::put,
    process::{PATIENCE, wait_until},
};
use nix::{
    sched::{CloneFlags, setns},
    sys::{
        signal::{Signal, kill},
        socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
    },
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    attach::{LONG, NOBODY, agent, run_of},
    attach_cgroup::attach,
    crash::{accounts_agree, load, nothing_is_on_its_way, progress},
    release::kill_daemon,
};

/// A run's listeners, as the tables of its network show them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listening {
    /// A process of the run, in the host's pid namespace.
    pub(crate) process: u32,
    pub(crate) tcp: u16,
    pub(crate) dns: u16,
}

impl Listening {
    /// By what the helper has written of a run.
    fn of(installation: &Installation, run: &str) -> Self {
        let described = fs::read(installation.places().runs().join(format!("{run}.json"))).expect("it lives");
        let described: Value = serde_json::from_slice(&described).expect("JSON");
        let port = |name: &str| {
            let port = described["ports"][name].as_u64().and_then(|port| u16::try_from(port).ok());
            port.expect("a port")
        };
        let process = described["init"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a process");
        Self { process, tcp: port("tcp"), dns: port("dns") }
    }

    /// The kernel's numbers of the sockets.
    pub(crate) fn sockets(&self) -> Vec<String> {
        let of = |table: &str| {
            let port = if table.starts_with("tcp") { self.tcp } else { self.dns };
            let port = format!(":{port:04X}");
            let lines = fs::read_to_string(format!("/proc/{}/net/{table}", self.process)).expect("it lives");
            let all = lines.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            let own = all.filter(|words| {
                let is_there = table.starts_with("udp") || words.get(3) == Some(&"0A");
                is_there && words.get(1).is_some_and(|address| address.ends_with(&port))
            });
            own.map(|words| format!("{table} {}", words[9])).collect::<Vec<_>>()
        };
        let mut found: Vec<_> = ["tcp", "tcp6", "udp", "udp6"].into_iter().flat_map(of).collect();
        found.sort();
        found
    }

    /// Whether root, in the run's own network, cannot have the ports.
    fn are_taken(self) -> bool {
        let namespace = File::open(format!("/proc/{}/ns/net", self.process)).expect("it lives");
        let tried = std::thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("the tests run as root");
            let Self { tcp, dns, .. } = self;
            TcpListener::bind(("127.0.0.1", tcp)).is_err() && UdpSocket::bind(("127.0.0.1", dns)).is_err()
        });
        tried.join().expect("it does not panic")
    }
}

/// Puts something else into the hands of who holds a run's listeners.
fn hold_falsely(socket_of_holder: &Path, run: &str) {
    let socket =
        socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    connect(socket.as_raw_fd(), &UnixAddr::new(socket_of_holder).expect("a path")).expect("it listens");
    let channel = Channel::<Value, Value>::from_socket(socket);
    channel.send(&json!("GiveBack"), &[]).expect("it hears");
    let mut all: Vec<(Value, Vec<OwnedFd>)> = Vec::new();
    while all.last().is_none_or(|(what, _)| *what != json!("Done")) {
        all.push(channel.receive().expect("it answers"));
    }
    let (_, mut held) = all.into_iter().find(|(what, _)| what["Held"]["run"] == run).expect("it is held");
    held[0] = TcpListener::bind("127.0.0.1:0").expect("a port").into();
    let held: Vec<_> = held.iter().map(AsFd::as_fd).collect();
    channel.send(&json!({ "Hold": { "run": run } }), &held).expect("it hears");
    channel.send(&json!("GiveBack"), &[]).expect("it hears");
    while channel.receive().expect("it answers").0 != json!("Done") {}
}

#[track_caller]
fn moves_on(bed: &RunningBed) {
    let before = progress(bed);
    wait_until("the load to move on", PATIENCE, || progress(bed) > before + 20);
}

/// A new proxy is told of runs one after the other, once it serves; what one asks before is answered then, if its resolver waits that long.
#[track_caller]
fn all_are_known(installation: &Installation, runs: &[&String]) {
    wait_until("all runs to be known", PATIENCE, || installation.runs().len() == runs.len());
}

#[test]
fn listeners_are_held_across_the_daemons_death() {
    let bed = Bed::start();
    let mut installation = Setup::of(&bed).start();
    let busy = load(&installation, "busy");
    moves_on(&bed);
    let launched = installation.runs()[0]["run"].as_str().expect("a run").to_owned();
    let (mut moved, mut inside) = (agent(&installation, &bed, NOBODY), agent(&installation, &bed, NOBODY));
    let cgroup = Cgroup::make(&installation, "held");
    put(&inside, &cgroup.0);
    let words = ["attach", "--pid", &moved.pid().to_string(), "--agent", "release-bot"];
    let attached = run_of(&installation.interceptor(&words).succeeded());
    let enclosed = attach(&installation, &cgroup.0);
    let runs = [&launched, &attached, &enclosed];
    let listening = runs.map(|run| Listening::of(&installation, run));
    let before = listening.map(|one| one.sockets());
    assert!(before.iter().all(|sockets| sockets.len() >= 4), "TCP and DNS, twice: {before:?}");

    for _ in 0..3 {
        kill_daemon(&installation);
        assert!(listening.into_iter().all(Listening::are_taken), "nobody else has their ports");
        assert_eq!(listening.map(|one| one.sockets()), before);
        nothing_is_on_its_way(&bed);
        let down = progress(&bed);
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(progress(&bed), down, "rows were written while the daemon was down");
        installation.start();
        assert_eq!(listening.map(|one| one.sockets()), before, "they are the same");
        moves_on(&bed);
        all_are_known(&installation, &runs);
        assert_eq!(moved.say("query", LONG), "100");
        assert_eq!(inside.say("query", LONG), "100");
    }

    kill_daemon(&installation);
    let holder = installation.holder().expect("who holds");
    kill(Pid::from_raw(holder.cast_signed()), Signal::SIGKILL).expect("it is ours");
    wait_until("the listeners to be gone", PATIENCE, || listening.iter().all(|one| one.sockets().is_empty()));
    installation.start();
    moves_on(&bed);
    all_are_known(&installation, &runs);
    assert_eq!(moved.say("query", LONG), "100");
    assert_eq!(inside.say("query", LONG), "100");
    let listening = runs.map(|run| Listening::of(&installation, run));
    let anew = listening.map(|one| one.sockets());
    for (new, old) in anew.iter().zip(&before) {
        assert!(new.len() == old.len() && !new.iter().any(|socket| old.contains(socket)), "{new:?} {old:?}");
    }

    kill_daemon(&installation);
    hold_falsely(&installation.places().holder_socket(), &attached);
    installation.start();
    moves_on(&bed);
    all_are_known(&installation, &runs);
    assert_eq!(moved.say("query", LONG), "100", "what is false is not served");
    let after = runs.map(|run| Listening::of(&installation, run).sockets());
    assert_eq!((&after[0], &after[2]), (&anew[0], &anew[2]), "what is true is the same");
    assert!(!after[1].iter().any(|socket| anew[1].contains(socket)), "{after:?}");

    for run in [&attached, &enclosed] {
        installation.interceptor(&["detach", run, "--reason", "the test is over"]).succeeded();
    }
    busy.signal(Signal::SIGTERM);
    busy.finish(PATIENCE);
    wait_until("the end of the runs", PATIENCE, || installation.runs().is_empty());
    wait_until("nothing to be held", PATIENCE, || installation.holder().is_none());
    let is_open = |installation: &Installation| {
        installation.records().agents().any(|exchange| exchange.status().is_empty())
    };
    wait_until("all outcomes", PATIENCE, || !is_open(&installation));
    accounts_agree(&bed, &installation);
    drop((moved, inside, cgroup));
    let said = installation.stop().expect("it ran").succeeded();
    let _ = said.says("what was held for it is refused").says("did not come back");
    installation.finish();
}
