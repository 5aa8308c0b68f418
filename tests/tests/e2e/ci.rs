//! The `ci` profile: containers of a run's, by a real Docker engine.

use std::{fs, os::unix::net::UnixListener};

use interceptor_tests::{
    Bed, Job, Setup, places,
    process::{PATIENCE, run, wait_until},
};
use nix::sys::signal::Signal;

use crate::engine::{DefaultRuntime, Engine, await_file, job, said};

const JOB: &str = include_str!("../clients/ci.sh");

/// Containers of a run are captured before they begin, are the run's alone, and have nothing that leads around.
#[test]
fn containers_of_a_run_are_captured() {
    let bed = Bed::start();
    let mut installation = Setup::of(&bed).start();
    let engine = Engine::start(&installation, DefaultRuntime::Ordinary);
    let outsider = ["create", "--name", "outsider", "base", "true"];
    engine.client(&outsider).succeeded();
    engine
        .client(&["run", "--runtime", "interceptor", "base", "true"])
        .failed()
        .says("containers of runs only");
    let _outside = UnixListener::bind(installation.work().join("outside")).expect("own folder");
    let script = installation.script("ci.sh", JOB);
    let program = Engine::program();
    let words = ["/bin/sh", script.as_str(), program.to_str().expect("a plain path")];
    let mut running = Job::start(job(&installation, &engine, &words), "");
    await_file(&installation, &mut running, "ready");
    let records = installation.ended("SELECT count(*) FROM users");
    let request = records.one("SELECT count(*) FROM users");
    assert_eq!(request.at("/request/guarantee"), "structural");
    assert_eq!(request.at("/request/agent/name"), "release-bot");
    let audit = installation.interceptor(&["audit", "tail", "--all", "-n", "1000"]).succeeded().text();
    installation.stop();
    fs::write(installation.work().join("gone"), "").expect("own folder");
    let done = running.finish(PATIENCE).succeeded();
    let says = |what: &str, part: &str| {
        let line = said(&done, what);
        assert!(line.contains(part), "{what}: {line:?}, without {part:?}\n{done}");
    };
    assert_eq!(said(&done, "query"), "100", "{done}");
    says("port", "127.0.0.1:8123");
    assert_eq!(said(&done, "served"), "hello", "{done}");
    assert_eq!(said(&done, "joined"), "0 hello", "{done}");
    assert_eq!(said(&done, "unix"), "outside: Connection refused own: connected", "{done}");
    assert_eq!(said(&done, "capabilities"), "CapBnd:\t00000000800405fb Seccomp:\t2", "{done}");
    assert!(!said(&done, "inside").contains("moved"), "{done}");
    for part in [
        "ping: permission denied",
        "unshare(0x40000000): Operation not permitted",
        "mount: permission denied",
    ] {
        says("inside", part);
    }
    says("inside", "mknod: /tmp/sda: Operation not permitted");
    assert_eq!(said(&done, "listed"), "web", "{done}");
    says("copied", "links of the host's");
    says("another", "No such container: outsider");
    says("removed", "web");
    says("privileged", "Privileged");
    says("host-file", "cannot be shown to a container");
    says("link", "leads out of the run's folder");
    says("unconfined", "SecurityOpt");
    says("pull", "no rule permits it");
    says("build", "the engine makes by its default runtime");
    says("unrecorded", "cannot be recorded");
    for part in [
        "192.0.2.1:81",
        "begins, captured",
        "/containers/create of image \"base\": passed",
        "/build: refused",
    ] {
        assert!(audit.contains(part), "{part}: {audit}");
    }
    let left = engine.client(&["ps", "--all", "--format", "{{.Names}}"]).succeeded();
    assert!(!left.stdout.contains("left"), "what the run left is removed: {left}");
    assert!(left.stdout.contains("outsider"), "and nothing else: {left}");
    installation.start();
    installation.finish();
}

/// A library for tests makes its containers by itself, and they are the run's.
#[test]
fn testcontainers_work() {
    let installation = Setup::empty().start();
    let engine = Engine::start(&installation, DefaultRuntime::Ordinary);
    let script =
        installation.script("testcontainers_run.py", include_str!("../clients/testcontainers_run.py"));
    let python = places::python().display().to_string();
    let done = run(job(&installation, &engine, &[&python, &script])).succeeded();
    assert_eq!(said(&done, "served"), "200 True", "{done}");
    assert_eq!(said(&done, "exec"), "0 0", "{done}");
    let audit = installation.interceptor(&["audit", "tail", "--all", "-n", "1000"]).succeeded().text();
    assert!(audit.contains("begins, captured") && audit.contains("/exec"), "{audit}");
    let left = engine.client(&["ps", "--all", "--quiet"]).succeeded();
    assert_eq!(left.stdout, "", "{left}");
    installation.finish();
}

/// A launcher that is killed takes the containers along; without an engine, or with one that cannot make them, nothing is run.
#[test]
fn containers_end_with_their_launcher() {
    let mut installation = Setup::empty().start();
    let engine = Engine::start(&installation, DefaultRuntime::Ordinary);
    let program = Engine::program();
    let script = "\"$0\" run -d --name left base httpd -f -p 8124 && touch ready && sleep 1000";
    let words = ["/bin/sh", "-c", script, program.to_str().expect("a plain path")];
    let mut running = Job::start(job(&installation, &engine, &words), "");
    await_file(&installation, &mut running, "ready");
    assert!(engine.client(&["ps", "--format", "{{.Names}}"]).succeeded().stdout.contains("left"));
    running.signal(Signal::SIGKILL);
    running.finish(PATIENCE);
    wait_until("the run's end", PATIENCE, || installation.runs().is_empty());
    wait_until("the container's end", PATIENCE, || {
        engine.client(&["ps", "--format", "{{.Names}}"]).succeeded().stdout.trim().is_empty()
    });
    let names = fs::read_dir(installation.places().runs()).expect("it is there").flatten();
    assert_eq!(names.map(|entry| entry.file_name()).collect::<Vec<_>>(), Vec::<std::ffi::OsString>::new());

    let options = ["--agent", "release-bot", "--profile", "ci"];
    let nowhere = ["--engine", "/nowhere.sock"];
    run(installation.captured_with(&[&options[..], &nowhere].concat(), &["true"]))
        .failed()
        .says("no container engine listens");
    let mut elsewhere = job(&installation, &engine, &["true"]);
    elsewhere.current_dir("/");
    run(elsewhere).failed().says("launch it from a folder that belongs to");
    installation.put_policy(
        "00-launch.cedar",
        "@id(\"plain\") permit (principal, action == Action::\"launch\", resource is Program) when { resource.profile == \"\" };",
    );
    installation.interceptor(&["reload"]).succeeded();
    run(job(&installation, &engine, &["true"])).failed().says("policy does not permit the launch");
    installation.stop();
    installation.finish();
}
