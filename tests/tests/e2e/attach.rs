//! Processes that ran before they were captured.

use std::{path::Path, process::Command, time::Duration};

use interceptor_tests::{
    Bed, Installation, RunningBed, Setup, Talker, places,
    process::{Finished, PATIENCE, wait_until},
};

const AGENT: &str = include_str!("../clients/attached.py");
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// An agent that nobody has captured yet, with what `setpriv` is told besides.
pub(crate) fn agent(installation: &Installation, bed: &RunningBed, rights: &[&str]) -> Talker {
    let script = installation.script("attached.py", AGENT);
    let mut command: Command = installation.outside(&places::tool("setpriv"));
    command.args(rights).args(["/usr/bin/python3", &script, &bed.port().to_string()]);
    command.env("HOME", "/").current_dir("/");
    Talker::start(command)
}

pub(crate) const NOBODY: &[&str] =
    &["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"];

/// The run that `attach` says it began.
pub(crate) fn run_of(attached: &Finished) -> String {
    let run = attached.stdout.split_whitespace().find(|word| word.len() == 11 && word.starts_with('r'));
    run.expect("a run").to_owned()
}

/// Whatever a process had before it was attached leads nowhere, nor does anything new but by way of the proxy.
pub(crate) fn has_lost_what_it_had(agent: &mut Talker) {
    for (word, why) in [
        ("before", "a connection from before is reset"),
        ("dial", "the database's own port is no resource"),
        ("datagrams", "a socket from before sends nothing"),
        ("datagram", "and a new one neither"),
    ] {
        let said = agent.say(word, LONG);
        assert!(said.ends_with("Error") || said == "closed", "{why}: {said}");
    }
    assert_eq!(agent.say("unused", LONG), "PermissionError", "a socket from before connects to nothing");
}

#[test]
fn a_process_is_captured_as_it_runs_and_let_go_again() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let mut agent = agent(&installation, &bed, NOBODY);
    let pid = agent.pid().to_string();
    assert_eq!(agent.say("dial", LONG), "S", "without capture it reaches the database itself");
    installation
        .interceptor(&["attach", "--pid", &pid, "--plan"])
        .succeeded()
        .says("Internet sockets from before, which are reset: 3");
    assert_eq!(agent.say("dial", LONG), "S", "a plan changes nothing");

    let attached = installation.interceptor(&["attach", "--pid", &pid, "--agent", "release-bot"]).succeeded();
    let run = run_of(&attached);
    has_lost_what_it_had(&mut agent);
    assert_eq!(agent.say("query", LONG), "100", "what policy permits goes through");
    let records = installation.ended("SELECT count(*) FROM users");
    assert_eq!(records.one("SELECT count(*) FROM users").at("/request/guarantee"), "enforced");
    let listed = installation.runs();
    assert_eq!(listed[0]["guarantee"], "enforced");

    for (words, why) in [
        (vec!["attach", "--pid", &pid], "captured already"),
        (vec!["attach", "--pid", "1"], "the host's first"),
        (vec!["detach", &run, "--reason", " "], "--reason"),
    ] {
        installation.interceptor(&words).failed().says(why);
    }
    installation.interceptor(&["detach", &run, "--reason", "the test is over"]).succeeded();
    assert_eq!(agent.say("dial", LONG), "S", "it is as free as before");
    wait_until("the run's end", PATIENCE, || installation.runs().is_empty());
    let audit = || installation.interceptor(&["audit", "tail", "--all"]).text();
    wait_until("the record of it", PATIENCE, || audit().contains("the test is over"));
    drop(agent);
    installation.finish();
}

/// What could go around is not captured in part: it stays as it was, and the refusal says why.
#[test]
fn what_could_go_around_is_not_attached() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let raw = ["--reuid=65534", "--clear-groups", "--inh-caps=-all,+net_raw", "--ambient-caps=-all,+net_raw"];
    for (rights, why) in [(&raw[..], "net_raw"), (&["--bounding-set=-all"], "runs as root")] {
        let mut privileged = agent(&installation, &bed, rights);
        let pid = privileged.pid().to_string();
        installation.interceptor(&["attach", "--pid", &pid]).failed().says(why);
        assert_eq!(privileged.say("dial", LONG), "S");
    }
    let script =
        "import socket, sys\nheld = socket.socket(40, 1)\nprint('ready', flush=True)\nsys.stdin.read()\n";
    let mut command = installation.outside(Path::new("/usr/bin/setpriv"));
    command.args(NOBODY).args(["/usr/bin/python3", "-c", script]);
    let other = Talker::start(command);
    installation.interceptor(&["attach", "--pid", &other.pid().to_string()]).failed().says("family 40");
    drop(other);
    // A connection of another network than the process is in.
    let script = format!(
        "exec 5<>/dev/tcp/127.0.0.1/{}; exec unshare --net setpriv {} sh -c 'echo ready; read line'",
        bed.port(),
        NOBODY.join(" ")
    );
    let mut command = installation.outside(Path::new("/bin/bash"));
    command.args(["-c", &script]);
    let apart = Talker::start(command);
    let pid = apart.pid().to_string();
    installation.interceptor(&["attach", "--pid", &pid]).failed().says("another network namespace");
    let end = || installation.runs().is_empty();
    wait_until("the end of what was begun", PATIENCE, end);
    drop(apart);
    installation.finish();
}

/// A run that was attached outlives the daemon, refused, and is served by the next.
#[test]
fn an_attached_run_is_taken_over() {
    let bed = Bed::start();
    let mut installation = Setup::of(&bed).start();
    let mut agent = agent(&installation, &bed, NOBODY);
    let pid = agent.pid().to_string();
    installation.interceptor(&["attach", "--pid", &pid, "--agent", "release-bot"]).succeeded();
    installation.stop();
    let said = agent.say("dial", LONG);
    assert!(said.ends_with("Error"), "with the daemon gone everything is refused: {said}");
    installation.start();
    assert_eq!(agent.say("query", LONG), "100");
    drop(agent);
    wait_until("the run's end", PATIENCE, || installation.runs().is_empty());
    installation.finish();
}
