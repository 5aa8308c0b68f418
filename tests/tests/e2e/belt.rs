//! The belt to the braces: what it does when the kernel programs are taken away, and that it does nothing when they are not.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use interceptor_tests::{
    Cgroup, Installation, Setup, Talker,
    cgroup::put,
    places,
    process::{Finished, PATIENCE, command, run, wait_until},
    sniffer::{Sniffer, WORLD_V4, WORLD_V6},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    attach::{LONG, NOBODY, run_of},
    attach_cgroup::attach,
};

const SENDER: &str = include_str!("../clients/sender.py");
const EVERYTHING: [&str; 4] = ["datagram4", "datagram6", "dial4", "dial6"];
const CAUGHT: &str = "caught by the belt";

/// A process that sends beyond the host, and is not captured yet.
pub(crate) fn sender(installation: &Installation) -> Talker {
    sender_to(installation, WORLD_V4, WORLD_V6)
}

/// One that sends elsewhere.
pub(crate) fn sender_to(installation: &Installation, v4: &str, v6: &str) -> Talker {
    let script = installation.script("sender.py", SENDER);
    let mut command: Command = installation.outside(&places::tool("setpriv"));
    command.args(NOBODY).args(["/usr/bin/python3", &script, v4, v6]);
    command.current_dir("/");
    Talker::start(command)
}

pub(crate) fn attach_process(installation: &Installation, process: &Talker) -> String {
    let words = ["attach", "--pid", &process.pid().to_string(), "--agent", "release-bot"];
    run_of(&installation.interceptor(&words).succeeded())
}

/// Everything fails.
#[track_caller]
pub(crate) fn reaches_nothing(process: &mut Talker, when: &str) {
    for word in EVERYTHING {
        let said = process.say(word, LONG);
        assert!(said.ends_with("Error") || said == "closed", "{when}: {word}: {said}");
    }
}

/// Takes every program off every cgroup, although links are pinned and held.
fn take_braces_off(installation: &Installation) {
    let folder = installation.places().pins().join("links");
    let mut taken: Vec<_> =
        pins(&folder).iter().filter(|pin| is_detached(pin)).map(|pin| name(pin)).collect();
    taken.sort();
    for program in ["egress", "connect4", "sendmsg6", "guard_connect4"] {
        assert!(taken.iter().any(|name| name == program), "{program} was not taken off: {taken:?}");
    }
}

fn pins(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("links are pinned").flatten();
    let paths = entries.map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { pins(&path) } else { vec![path] }).collect()
}

fn name(pin: &Path) -> String {
    pin.file_name().expect("a pin").to_string_lossy().into_owned()
}

/// Tracepoints stay: their links cannot be taken off so.
fn is_detached(pin: &Path) -> bool {
    let words = ["link", "detach", "pinned", pin.to_str().expect("a plain path")];
    let mut command = Command::new(places::tool("bpftool"));
    command.args(words);
    run(command).status.success()
}

fn audit(installation: &Installation) -> String {
    installation.interceptor(&["audit", "tail", "--all"]).text()
}

/// How many times the record says something of a run.
pub(crate) fn told(installation: &Installation, run: &str, what: &str) -> usize {
    audit(installation).lines().filter(|line| line.contains(run) && line.contains(what)).count()
}

fn nft(sniffer: &Sniffer, words: &[&str]) -> Finished {
    let namespace = format!("--net=/run/netns/{}", sniffer.namespace());
    let nft = places::tool("nft");
    let nft = nft.to_str().expect("a plain path");
    run(command(&[&["nsenter", &namespace, nft], words].concat()))
}

/// Attached processes and a captured cgroup, with the daemon alive, and with it dead.
#[test]
fn without_programs_nothing_leaves_and_that_is_told() {
    let sniffer = Sniffer::new();
    let mut installation = Setup::empty().in_namespace(sniffer.namespace()).start();
    let cgroup = Cgroup::make(&installation, "belted");
    let (mut moved, mut inside, mut other) =
        (sender(&installation), sender(&installation), sender(&installation));
    put(&inside, &cgroup.0);
    let runs = [attach_process(&installation, &moved), attach(&installation, &cgroup.0)];
    for one in [&mut moved, &mut inside] {
        reaches_nothing(one, "the programs refuse it");
    }
    sniffer.saw_nothing("what the programs refuse");
    nft(&sniffer, &["list", "ruleset"]).succeeded().says("drop");
    let zeros = || nft(&sniffer, &["list", "ruleset"]).stdout.matches("packets 0 bytes 0").count();
    assert_eq!(zeros(), 2, "one each");

    take_braces_off(&installation);
    for one in [&mut moved, &mut inside] {
        reaches_nothing(one, "the belt drops it");
    }
    sniffer.saw_nothing("what the belt drops");
    assert_eq!(other.say("datagram4", LONG), "sent", "packets of nobody else are touched");
    assert!(!sniffer.frames().is_empty(), "the sniffer sees what leaves");
    for run in &runs {
        wait_until("the alarm", PATIENCE, || told(&installation, run, CAUGHT) > 0);
    }
    wait_until("what is told to be no longer counted", PATIENCE, || zeros() == 2);
    let before = runs.each_ref().map(|run| told(&installation, run, CAUGHT));

    let daemon = installation.daemon().expect("it runs");
    kill(Pid::from_raw(daemon.cast_signed()), Signal::SIGKILL).expect("our daemon");
    for one in [&mut moved, &mut inside] {
        reaches_nothing(one, "the belt outlives the daemon");
    }
    sniffer.saw_nothing("what the belt drops without a daemon");
    installation.start();
    for (run, before) in runs.iter().zip(before) {
        wait_until("the next daemon's alarm", PATIENCE, || told(&installation, run, CAUGHT) > before);
    }
    for one in [&mut moved, &mut inside] {
        reaches_nothing(one, "the programs are back");
    }
    for run in runs {
        installation.interceptor(&["detach", &run, "--reason", "the test is over"]).succeeded();
    }
    for one in [&mut moved, &mut inside] {
        assert_eq!(one.say("datagram4", LONG), "sent", "it is as free as before");
    }
    wait_until("the belts to be off", PATIENCE, || {
        nft(&sniffer, &["list", "tables"]).stdout.trim().is_empty()
    });
    drop((moved, inside, other, cgroup));
    let log = installation.stop().expect("it ran").text();
    assert_eq!(
        log.lines().filter(|line| line.contains("ERROR") && line.contains(CAUGHT)).count(),
        2,
        "{log}"
    );
    installation.finish_after_alarms();
}

/// A run has a network of its own, out of which nothing leads; the belt is inside.
#[test]
fn without_programs_a_run_sends_nothing_even_into_its_own_void() {
    let installation = Setup::empty().start();
    let script = installation.script("sender.py", SENDER);
    let words = ["/usr/bin/python3", &script, "203.0.113.9", "2001:db8:1::9"];
    let mut agent = Talker::start(installation.captured("release-bot", &words));
    reaches_nothing(&mut agent, "the programs refuse it");
    let run = installation.runs()[0]["run"].as_str().expect("a run").to_owned();
    // Longer than it takes to look at every belt.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(told(&installation, &run, CAUGHT), 0);
    take_braces_off(&installation);
    reaches_nothing(&mut agent, "the belt drops it");
    wait_until("the alarm", PATIENCE, || told(&installation, &run, CAUGHT) > 0);
    drop(agent);
    installation.finish_after_alarms();
}

/// What a run tried in its last moment is told, too.
#[test]
fn a_run_that_ends_before_anybody_looked_is_asked() {
    let installation = Setup::empty().start();
    let send = "import socket, struct\n\
                s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                info = struct.pack('iII', socket.if_nametoindex('eth0'), 0, 0)\n\
                try: s.sendmsg([b'x'], [(0, 8, info)], 0, ('192.0.2.77', 53))\n\
                except OSError as error: print(type(error).__name__)\n";
    installation.run("release-bot", &["/usr/bin/python3", "-c", send]).succeeded().says("PermissionError");
    wait_until("the alarm", PATIENCE, || audit(&installation).contains(CAUGHT));
    installation.finish_after_alarms();
}

/// A firewall service that begins anew takes our rules with it: they are put back, and that is told.
#[test]
fn rules_that_somebody_flushes_are_put_back() {
    let sniffer = Sniffer::new();
    let installation = Setup::empty().in_namespace(sniffer.namespace()).start();
    let process = sender(&installation);
    let run = attach_process(&installation, &process);
    let table = format!("{}-{run}", installation.places().table());
    let is_there = || nft(&sniffer, &["list", "table", "inet", &table]).stdout.contains("socket cgroupv2");
    assert!(is_there(), "{}", nft(&sniffer, &["list", "ruleset"]));
    for (times, words) in [
        (1, &["flush", "ruleset"][..]),
        (2, &["flush", "chain", "inet", &table, "output"]),
        (3, &["add", "table", "inet", &table, "{ flags dormant; }"]),
    ] {
        nft(&sniffer, words).succeeded();
        let put_back = || told(&installation, &run, "were put back") == times;
        wait_until("the record to say so", PATIENCE, put_back);
        assert!(is_there(), "after {words:?}");
    }
    nft(&sniffer, &["add", "table", "inet", "somebody-elses"]).succeeded();
    installation.interceptor(&["detach", &run, "--reason", "the test is over"]).succeeded();
    let tables = || nft(&sniffer, &["list", "tables"]).stdout;
    wait_until("the belt to be off", PATIENCE, || !tables().contains(&table));
    assert!(tables().contains("somebody-elses"));
    drop(process);
    installation.finish_after_alarms();
}
