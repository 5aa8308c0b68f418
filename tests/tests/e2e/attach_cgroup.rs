//! Cgroups that are captured where they are.

use std::{fs, os::unix::fs::chown, path::Path, process::Command, time::Duration};

use interceptor_tests::{
    Bed, Cgroup, Installation, Setup, Talker,
    cgroup::put,
    leaks, places,
    process::{PATIENCE, run as run_command, wait_until},
};

use crate::attach::{LONG, NOBODY, agent, has_lost_what_it_had, run_of};

const UNMARK: &str = include_str!("../clients/unmark.py");

fn cgroup_of(process: &Talker) -> String {
    fs::read_to_string(format!("/proc/{}/cgroup", process.pid())).expect("it lives")
}

pub(crate) fn attach(installation: &Installation, cgroup: &Path) -> String {
    let path = cgroup.to_str().expect("a plain path");
    let words = ["attach", "--cgroup", path, "--agent", "release-bot"];
    let attached = installation.interceptor(&words).succeeded();
    run_of(&attached)
}

#[test]
fn a_cgroup_is_captured_where_it_is_and_let_go_again() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let outer = Cgroup::make(&installation, "service");
    let cgroup = outer.below("worker").parent().map(Path::to_owned).expect("itself");
    let mut agent = agent(&installation, &bed, NOBODY);
    let mut later = self::agent(&installation, &bed, NOBODY);
    let mut other = self::agent(&installation, &bed, NOBODY);
    put(&agent, &cgroup.join("worker"));
    let whereabouts = cgroup_of(&agent);
    installation
        .interceptor(&["attach", "--cgroup", outer.name(), "--plan"])
        .succeeded()
        .says("Internet sockets from before, which are reset: 3");
    assert_eq!(agent.say("before", LONG), "S", "a plan changes nothing");
    assert_eq!(agent.say("dial", LONG), "S", "a plan changes nothing");

    let run = attach(&installation, &cgroup);
    assert_eq!(cgroup_of(&agent), whereabouts, "nobody is moved");
    has_lost_what_it_had(&mut agent);
    assert_eq!(agent.say("query", LONG), "100", "what policy permits goes through, from a child of it");
    let records = installation.ended("SELECT count(*) FROM users");
    assert_eq!(records.one("SELECT count(*) FROM users").at("/request/guarantee"), "enforced");
    assert_eq!(other.say("dial", LONG), "S", "who is elsewhere is not captured");

    put(&later, &cgroup);
    let said = later.say("dial", LONG);
    assert!(said.ends_with("Error"), "who is moved in is captured: {said}");
    assert_eq!(later.say("unused", LONG), "PermissionError");
    assert_eq!(later.say("query", LONG), "100");
    let audit = || installation.interceptor(&["audit", "tail", "--all"]).text();
    let brought = format!("process {} (python3) was moved in: ", later.pid());
    wait_until("what it brought to be reset", PATIENCE, || audit().contains(&brought));
    assert!(later.say("before", LONG).ends_with("Error"), "a connection that it brought is gone");

    let worker = cgroup.join("worker");
    let inner = worker.to_str().expect("a plain path");
    for (words, why) in [
        (vec!["attach", "--cgroup", outer.name()], "captured already"),
        (vec!["attach", "--cgroup", inner], "captured already"),
        (vec!["detach", &run, "--reason", " "], "--reason"),
    ] {
        installation.interceptor(&words).failed().says(why);
    }
    let pid = other.pid().to_string();
    put(&other, &cgroup);
    installation.interceptor(&["attach", "--pid", &pid]).failed().says("captured already");

    installation.interceptor(&["detach", &run, "--reason", "the test is over"]).succeeded();
    assert_eq!(cgroup_of(&agent), whereabouts, "nobody is moved");
    assert_eq!(agent.say("dial", LONG), "S", "it is as free as before");
    assert_eq!(later.say("dial", LONG), "S");
    wait_until("the run's end", PATIENCE, || installation.runs().is_empty());
    wait_until("the record of it", PATIENCE, || {
        let audit = audit();
        audit.contains("the test is over") && audit.contains("is not captured any more")
    });
    // And once more, since nothing of the first time remains.
    let run = attach(&installation, &cgroup);
    assert!(agent.say("dial", LONG).ends_with("Error"));
    installation.interceptor(&["detach", &run, "--reason", "again"]).succeeded();
    drop((agent, later, other, outer));
    installation.finish();
}

/// Who is moved out is missed, and a cgroup that is removed ends its run; one that is made anew is not captured.
#[test]
fn what_leaves_a_captured_cgroup_is_recorded_and_so_is_its_end() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let cgroup = Cgroup::make(&installation, "job");
    let mut agent = agent(&installation, &bed, NOBODY);
    put(&agent, &cgroup.0);
    attach(&installation, &cgroup.0);
    assert!(agent.say("dial", LONG).ends_with("Error"));
    let audit = || installation.interceptor(&["audit", "tail", "--all"]).text();
    // So that it has been seen in there.
    std::thread::sleep(Duration::from_millis(500));
    put(&agent, &leaks::cgroup_root());
    let left = format!("not captured any more: process {}", agent.pid());
    wait_until("the record to say so", PATIENCE, || audit().contains(&left));
    assert_eq!(agent.say("dial", LONG), "S", "only root can do that, and it is no more captured");

    put(&agent, &cgroup.0);
    assert!(agent.say("dial", LONG).ends_with("Error"), "an empty one stays captured");
    put(&agent, &leaks::cgroup_root());
    fs::remove_dir(&cgroup.0).expect("it is empty");
    fs::create_dir(&cgroup.0).expect("made anew");
    wait_until("the run's end", PATIENCE, || installation.runs().is_empty());
    wait_until("the record of it", PATIENCE, || audit().contains("its cgroup is gone"));
    put(&agent, &cgroup.0);
    attach(&installation, &cgroup.0);
    assert!(agent.say("dial", LONG).ends_with("Error"));
    drop(agent);
    wait_until("the process to be gone", PATIENCE, || fs::remove_dir(&cgroup.0).is_ok());
    wait_until("the run's end", PATIENCE, || installation.runs().is_empty());
    drop(cgroup);
    installation.finish();
}

/// Whoever a captured cgroup is delegated to cannot take its mark away, nor in a user namespace of their own: by the mark others
/// know that it is captured.
#[test]
fn the_mark_of_a_captured_cgroup_stays() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let cgroup = Cgroup::make(&installation, "delegated");
    for path in [cgroup.0.clone(), cgroup.0.join("cgroup.procs"), cgroup.0.join("cgroup.subtree_control")] {
        chown(path, Some(65534), Some(65534)).expect("given away");
    }
    let agent = agent(&installation, &bed, NOBODY);
    put(&agent, &cgroup.0);
    let run = attach(&installation, &cgroup.0);
    let script = installation.script("unmark.py", UNMARK);
    let own_view = &["unshare", "--user", "--map-root-user", "--cgroup", "--mount"];
    for (apart, said) in [(&[][..], "possible at 1 places"), (own_view, "possible at 2 places")] {
        let words = [NOBODY, apart, &["/usr/bin/python3", &script, cgroup.name()]].concat();
        let inside = format!("echo $$ > {}/cgroup.procs; exec setpriv {}", cgroup.name(), words.join(" "));
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &inside]).current_dir("/");
        run_command(command).succeeded().says(said);
    }
    installation.interceptor(&["attach", "--cgroup", cgroup.name()]).failed().says(&run);
    installation.interceptor(&["detach", &run, "--reason", "the test is over"]).succeeded();
    drop((agent, cgroup));
    installation.finish();
}

/// Nobody commands from within a captured cgroup, not even root; from any other cgroup root does.
#[test]
fn nobody_commands_from_within() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let (free, cgroup) = (Cgroup::make(&installation, "free"), Cgroup::make(&installation, "held"));
    let agent = agent(&installation, &bed, NOBODY);
    put(&agent, &cgroup.0);
    let run = attach(&installation, &cgroup.0);
    let root = installation.root().to_str().expect("a plain path");
    let program = places::interceptor();
    let program = program.to_str().expect("a plain path");
    let command_from = |cgroup: &Cgroup, words: &str| {
        let inside =
            format!("echo $$ > {}/cgroup.procs; exec {program} --root {root} {words}", cgroup.name());
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &inside]);
        run_command(command)
    };
    let detach = format!("detach {run} --reason mine");
    for words in ["ps", "status", &detach, "run --user nobody -- true", "attach --pid 2"] {
        command_from(&cgroup, words).failed().says("captured");
    }
    command_from(&free, "ps").succeeded().says(&run);
    command_from(&free, &detach).succeeded();
    drop((agent, free, cgroup));
    installation.finish();
}

/// It outlives the daemon, refused, and is served by the next, even where nobody was in it meanwhile.
#[test]
fn a_captured_cgroup_is_taken_over() {
    let bed = Bed::start();
    let mut installation = Setup::of(&bed).start();
    let (cgroup, empty) = (Cgroup::make(&installation, "kept"), Cgroup::make(&installation, "emptied"));
    let mut agent = agent(&installation, &bed, NOBODY);
    let mut other = self::agent(&installation, &bed, NOBODY);
    put(&agent, &cgroup.0);
    put(&other, &empty.0);
    let runs = [attach(&installation, &cgroup.0), attach(&installation, &empty.0)];
    put(&other, &leaks::cgroup_root());
    installation.stop();
    put(&other, &empty.0);
    for one in [&mut agent, &mut other] {
        let said = one.say("dial", LONG);
        assert!(said.ends_with("Error"), "with the daemon gone everything is refused: {said}");
    }
    put(&other, &leaks::cgroup_root());
    // Seen by no daemon.
    let mut later = self::agent(&installation, &bed, NOBODY);
    put(&later, &cgroup.0);
    installation.start();
    let audit = || installation.interceptor(&["audit", "tail", "--all"]).text();
    let brought = format!("process {} (python3) was moved in: ", later.pid());
    wait_until("what it brought to be reset", PATIENCE, || audit().contains(&brought));
    assert!(later.say("before", LONG).ends_with("Error"), "a connection that it brought is gone");
    put(&other, &empty.0);
    for one in [&mut agent, &mut other] {
        assert_eq!(one.say("query", LONG), "100");
        assert!(one.say("dial", LONG).ends_with("Error"));
    }
    for run in runs {
        installation.interceptor(&["detach", &run, "--reason", "the test is over"]).succeeded();
    }
    assert_eq!(agent.say("dial", LONG), "S");
    drop((agent, other, later, cgroup, empty));
    installation.finish();
}

/// What cannot be captured whole is refused, says why, and stays as it was.
#[test]
fn what_cannot_be_captured_whole_is_refused() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let root = leaks::cgroup_root();
    let refused = |path: &Path, why: &str| {
        let words = ["attach", "--cgroup", path.to_str().expect("a plain path")];
        installation.interceptor(&words).failed().says(why);
        installation.interceptor(&[&words[..], &["--plan"]].concat()).failed();
    };
    refused(&root, "the whole host");
    refused(Path::new("/"), "the whole host");
    refused(&root.join(installation.places().slice()), "interceptor's own");
    refused(&root.join(installation.places().daemon_cgroup()), "interceptor's own");
    refused(&root.join("no-such"), "there is no cgroup");
    refused(&root.join("no-such/../.."), "there is no cgroup");
    refused(Path::new("/etc"), "is not below");
    if let Some(first) =
        ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids"].iter().find(|path| Path::new(path).is_dir())
    {
        refused(Path::new(first), "version 1");
    }

    let cgroup = Cgroup::make(&installation, "unfit");
    refused(&cgroup.0, "has no process");
    let mut plain = agent(&installation, &bed, NOBODY);
    put(&plain, &cgroup.0);
    let mut apart: Command = Command::new("/usr/bin/unshare");
    apart.args(["--net", "/usr/bin/setpriv"]).args(NOBODY);
    apart.args(["/bin/sh", "-c", "echo ready; read line"]);
    let elsewhere = Talker::start(apart);
    put(&elsewhere, &cgroup.0);
    refused(&cgroup.0, "different network namespaces");
    drop(elsewhere);
    let privileged = agent(&installation, &bed, &["--bounding-set=-all"]);
    put(&privileged, &cgroup.0);
    refused(&cgroup.0, "runs as root");
    drop(privileged);
    fs::write(cgroup.0.join("cgroup.freeze"), "1").expect("frozen");
    refused(&cgroup.0, "is frozen");
    fs::write(cgroup.0.join("cgroup.freeze"), "0").expect("thawed");
    let threads = cgroup.below("threads");
    fs::write(threads.join("cgroup.type"), "threaded").expect("threaded");
    refused(&threads, "threaded");
    refused(&cgroup.0, "threaded");
    fs::remove_dir(&threads).expect("it is empty");
    let below = cgroup.below("below");
    put(&plain, &below);
    chown(cgroup.0.join("cgroup.procs"), Some(65534), None).expect("given away");
    refused(&below, "belongs to uid 65534");
    assert_eq!(plain.say("dial", LONG), "S");
    assert!(installation.runs().is_empty());
    drop((plain, cgroup));
    installation.finish();
}
