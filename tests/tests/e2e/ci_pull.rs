//! The `ci` profile: images that a run has its engine fetch, from a real registry.

use std::fs;

use interceptor_tests::{
    Job, Setup,
    process::{Finished, PATIENCE},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::engine::{DefaultRuntime, Engine, Registry, await_file, job, said};

const JOB: &str = include_str!("../clients/ci_pull.sh");

/// The engine fetches what policy permits, by its whole name, and nothing else; the record has it first, and what came of it.
#[test]
fn an_image_is_fetched_where_policy_permits_it() {
    let mut installation = Setup::empty().start();
    let engine = Engine::start(&installation, DefaultRuntime::Ordinary);
    let registry = Registry::start(&engine);
    let place = &registry.place;
    installation.put_policy(
        "10-images.cedar",
        &format!(
            "@id(\"team-base\")\npermit (principal, action == Action::\"pull\", resource is Image)\n\
             when {{ resource.registry == \"{place}\" && resource.repository == \"team/base\" }};\n\
             @id(\"no-other\")\n@say(\"other images come from the platform team\")\n\
             forbid (principal, action == Action::\"pull\", resource is Image)\n\
             when {{ resource.repository == \"team/other\" }};\n"
        ),
    );
    installation.interceptor(&["reload"]).succeeded();
    let script = installation.script("ci_pull.sh", JOB);
    let program = Engine::program();
    let words = ["/bin/sh", script.as_str(), program.to_str().expect("a plain path"), place];
    let mut running = Job::start(job(&installation, &engine, &words), "");
    await_file(&installation, &mut running, "ready");
    let (base, missing) = (registry.named("team/base:1"), registry.named("team/base:2"));
    let records = installation.ended(&format!("pull {missing}"));

    // The proxy hears of nothing any more, though it is there: nothing may be done.
    let roles = installation.roles();
    let (_, proxy) = roles.iter().find(|(role, _)| role == "proxy").expect("a proxy");
    let proxy = Pid::from_raw(proxy.cast_signed());
    kill(proxy, Signal::SIGSTOP).expect("it is there");
    fs::write(installation.work().join("stopped"), "").expect("own folder");
    let done = running.finish(PATIENCE);
    // It may have been replaced.
    let _ = kill(proxy, Signal::SIGCONT);
    let done = done.succeeded();
    let says = |what: &str, part: &str| {
        let line = said(&done, what);
        assert!(line.contains(part), "{what}: {line:?}, without {part:?}\n{done}");
    };
    says("pulled", "Downloaded newer image");
    assert!(!said(&done, "used").is_empty(), "{done}");
    says("asked", "other images come from the platform team");
    says("other", "other images come from the platform team");
    says("missing", "not found");
    says("all", "tag or digest");
    says("imported", "fromSrc");
    says("log-in", "without a log-in");
    assert_eq!(said(&done, "named"), "", "{done}");
    assert!(!said(&done, "by-name").is_empty(), "{done}");
    says("unnamed", "Untagged: mine");
    says("removed", "is the host's");
    says("sent", "images are the host's");
    let names = engine.client(&["images", "--format", "{{.Repository}}"]).succeeded();
    assert!(!names.stdout.contains("mine") && names.stdout.contains("team/base"), "{names}");
    for what in ["unrecorded", "unjudged"] {
        says(what, "cannot be recorded");
    }
    let names = engine.client(&["ps", "--all", "--format", "{{.Names}}"]).succeeded();
    assert!(!names.stdout.contains("unrecorded"), "{names}");

    let of = |name: &str| -> Vec<_> { records.with(&format!("pull {name}")) };
    let [pulled] = of(&base).try_into().expect("once: with the log-in it is refused unasked");
    assert!(pulled.allowed() && pulled.status() == "completed", "{pulled:?}");
    assert_eq!((pulled.verbs(), pulled.phase()), (vec!["pull"], "pull"));
    assert_eq!(pulled.at("/request/guarantee"), "structural");
    assert_eq!(pulled.at("/request/agent/name"), "release-bot");
    assert_eq!(pulled.at("/request/action/facts/effects/0/target/image/registry"), place.as_str());
    let digests = engine.client(&["inspect", "--format", "{{.RepoDigests}}", &base]).succeeded();
    let digest = pulled.at("/outcome/message").as_str().unwrap_or_default();
    assert!(digest.starts_with("sha256:") && digests.stdout.contains(digest), "{digest}, {digests}");
    let [failed] = of(&missing).try_into().expect("once");
    assert!(failed.allowed() && failed.status() == "failed", "{failed:?}");
    let others = of(&registry.named("team/other:1"));
    assert_eq!(others.len(), 2, "asked for by run, and by pull");
    assert!(others.iter().all(|other| !other.allowed() && other.status() == "refused"), "{others:?}");
    let held: Finished = engine.client(&["image", "inspect", &registry.named("team/other:1")]);
    held.failed();
    installation.stop();
    installation.finish();
}
