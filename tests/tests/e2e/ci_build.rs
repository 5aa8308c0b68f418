//! The `ci` profile: images that a run builds, by a real Docker engine's own builder.

use std::{fs, time::Duration};

use interceptor_tests::{
    Bed, Job, Setup,
    process::{Finished, PATIENCE, wait_until},
};

use crate::engine::{DefaultRuntime, Engine, job, said};

const JOB: &str = include_str!("../clients/ci_build.sh");
/// A job asks its engine for some fifty things.
const LONG: Duration = PATIENCE.saturating_mul(4);

/// The steps of a build are captured as the run is, it fetches nothing, and what comes of it is the run's alone.
#[test]
fn a_build_is_the_runs() {
    let bed = Bed::start();
    let mut installation = Setup::of(&bed).start();
    let engine = Engine::start(&installation, DefaultRuntime::Ours);
    // What is no run's is the ordinary runtime's, with what that gives.
    engine
        .client(&["run", "--detach", "--name", "outsider", "base", "httpd", "-f", "-p", "8125"])
        .succeeded();
    let bounds = ["exec", "outsider", "grep", "CapBnd", "/proc/self/status"];
    engine.client(&bounds).succeeded().says("00000000a80425fb");
    engine.client(&["tag", "base", "shared"]).succeeded();
    engine.client(&["commit", "--change", "ONBUILD RUN true", "outsider", "triggers"]).succeeded();
    let before = engine.client(&["images", "--all", "--quiet", "--no-trunc"]).succeeded().stdout;

    let script = installation.script("ci_build.sh", JOB);
    let program = Engine::program();
    let start = |name: &str| {
        let words = ["/bin/sh", script.as_str(), program.to_str().expect("a plain path"), name];
        Job::start(job(&installation, &engine, &words), "")
    };
    let mut jobs = ["one", "two"].map(start);
    let id = |name: &str| {
        let path = installation.work().join(format!("id-{name}"));
        fs::read_to_string(path).map(|id| id.trim().to_owned()).unwrap_or_default()
    };
    for (job, name) in jobs.iter_mut().zip(["one", "two"]) {
        wait_until(name, LONG, || {
            installation.work().join(format!("ready-{name}")).exists() || !job.is_running()
        });
    }
    let ids = [id("one"), id("two")];
    assert!(ids.iter().all(|id| id.starts_with("sha256:")) && ids[0] != ids[1], "{ids:?}");
    for (name, other) in [("one", &ids[1]), ("two", &ids[0])] {
        fs::write(installation.work().join(format!("other-{name}.new")), other).expect("own folder");
        let (from, to) = (format!("other-{name}.new"), format!("other-{name}"));
        fs::rename(installation.work().join(from), installation.work().join(to)).expect("own folder");
    }
    // To everybody else the name means what it meant.
    engine.client(&["run", "--rm", "shared", "ls", "/count"]).failed();
    let done: Vec<Finished> = jobs.into_iter().map(|job| job.finish(LONG).succeeded()).collect();
    let [one, two] = &ids;
    for (done, (own, other)) in done.iter().zip([(one, two), (two, one)]) {
        check(done, own);
        assert!(!said(done, "images").contains(other), "{done}");
    }

    let records = installation.ended("SELECT count(*) FROM users");
    let asked = records.with("SELECT count(*) FROM users");
    assert_eq!(
        asked.len(),
        2,
        "each once: the second build of a run takes it from the cache, and no other run does"
    );
    assert!(asked.iter().all(|one| one.allowed() && one.at("/request/guarantee") == "structural"));
    let audit = installation.interceptor(&["audit", "tail", "--all", "-n", "2000"]).succeeded().text();
    for part in [
        "POST /build of docker.io/library/app:1, docker.io/library/shared:latest upon base (",
        "is built",
        "192.0.2.1:81",
    ] {
        assert!(audit.contains(part), "{part}: {audit}");
    }
    let left = engine.client(&["images", "--all", "--quiet", "--no-trunc"]).succeeded().stdout;
    assert_eq!(sorted(&left), sorted(&before), "what they built is gone with them");
    let names = engine.client(&["ps", "--all", "--format", "{{.Names}}"]).succeeded();
    assert_eq!(names.stdout.trim(), "outsider");
    engine.client(&["rm", "--force", "outsider"]).succeeded();
    installation.stop();
    installation.finish();
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

fn check(done: &Finished, own: &str) {
    let says = |what: &str, part: &str| {
        let line = said(done, what);
        assert!(line.contains(part), "{what}: {line:?}, without {part:?}\n{done}");
    };
    says("built", "Successfully built");
    says("again", "/count  ---> Using cache");
    assert_eq!(said(done, "count"), "100", "{done}");
    assert_eq!(said(done, "elsewhere"), "", "{done}");
    assert_eq!(said(done, "status"), "CapBnd:\t00000000800405fb Seccomp:\t2", "{done}");
    assert_eq!(said(done, "page"), "hello hello", "{done}");
    says("untagged", "Untagged: app:2");
    assert_eq!(said(done, "kept"), "100", "{done}");
    assert!(!said(done, "copied").contains("interceptor"), "{done}");
    for name in ["app:1", "app:2", "shared:latest"] {
        says("listed", name);
    }
    for what in ["url", "hidden-url"] {
        says(what, "fetched by the engine");
    }
    for what in ["unknown", "copied-from"] {
        says(what, "docker pull nowhere.invalid/x:1");
    }
    says("later", "ONBUILD");
    says("frontend", "leave them out");
    says("triggered", "build upon another");
    says("fresh", "\"pull\"");
    says("cached", "\"cachefrom\"");
    says("parent", "\"cgroupparent\"");
    says("network", "networkmode");
    assert!(!said(done, "buildkit").contains("Successfully"), "{done}");
    says("other", "No such image");
    says("images", own);
    assert!(!said(done, "built").contains("/count  ---> Using cache"), "nobody else's step: {done}");
}
