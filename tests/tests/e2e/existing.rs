//! Connections from before: they are reset, or go on for a while because root says so, on the record and no longer than that.

use interceptor_tests::{
    Bed, Cgroup, Installation, Setup, Talker,
    cgroup::put,
    process::{PATIENCE, command, wait_until},
    sniffer::Sniffer,
};

use crate::{
    attach::{LONG, NOBODY, agent, run_of},
    belt::{reaches_nothing, sender, sender_to, told},
    release::{ECHO, kill_daemon, server},
};

fn attach(installation: &Installation, target: [&str; 2], existing: &str) -> String {
    let words = ["attach", "--agent", "release-bot", "--existing", existing, "--reason", "moving house"];
    run_of(&installation.interceptor(&[&words[..], &target].concat()).succeeded())
}

/// Whether anything of the kernel side's is there that is for kept connections alone.
fn is_guarded(installation: &Installation) -> bool {
    installation.places().pins().join("links/guard_kept").exists()
}

fn guarantee(installation: &Installation) -> String {
    installation.runs()[0]["guarantee"].as_str().expect("a run").to_owned()
}

#[test]
fn what_is_kept_goes_on_until_its_end_and_marks_every_record() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let mut agent = agent(&installation, &bed, NOBODY);
    let pid = agent.pid().to_string();
    let keep = ["attach", "--pid", &pid, "--agent", "release-bot", "--existing", "keep-observed"];
    installation.interceptor(&keep).failed().says("--reason");
    installation.interceptor(&[&keep[..], &["--reason", " "]].concat()).failed().says("need a reason");
    installation.interceptor(&["attach", "--pid", &pid, "--existing", "drain=0s"]).failed().says("drain=60s");
    let plan = installation.interceptor(&[&keep[..], &["--plan"]].concat()).succeeded();
    let plan = plan.says("`keep-observed` until its end").says("which go on uninspected (keep-observed): 1");
    assert!(plan.stdout.contains(&format!("to 127.0.0.1:{}, of process {pid}", bed.port())), "{plan}");

    let run = attach(&installation, ["--pid", &pid], "keep-observed");
    wait_until("the record of it", PATIENCE, || told(&installation, &run, "moving house") == 1);
    let each = format!("of process {pid} (/usr/bin/python3)");
    wait_until("each to be listed", PATIENCE, || told(&installation, &run, &each) == 1);
    assert_eq!(agent.say("before", LONG), "S", "what was there goes on");
    assert!(agent.say("dial", LONG).ends_with("Error"), "what is new is captured");
    assert!(agent.say("unused", LONG).ends_with("Error"), "and so is what was not connected");
    assert_eq!(agent.say("query", LONG), "100");
    let first = "SELECT count(*) FROM users";
    assert_eq!(installation.ended(first).one(first).at("/request/guarantee"), "observed");
    assert_eq!(guarantee(&installation), "observed");
    installation.interceptor(&["ps"]).succeeded().says("1 from before go on").says("keep-observed");
    installation.interceptor(&["status"]).succeeded().says("1 connections from before go on uninspected");
    assert!(is_guarded(&installation));

    assert_eq!(agent.say("close", LONG), "closed");
    wait_until("its end to be told", PATIENCE, || told(&installation, &run, "it ended by itself") == 1);
    wait_until("all to be captured", PATIENCE, || guarantee(&installation) == "enforced");
    wait_until("that to be told", PATIENCE, || told(&installation, &run, "everything is captured") == 1);
    assert_eq!(agent.say("query", LONG), "100");
    installation.records_once("what is enforced", |records| {
        records.with(first).iter().any(|exchange| exchange.at("/request/guarantee") == "enforced")
    });
    wait_until("nothing of it to stay", PATIENCE, || !is_guarded(&installation));
    installation.interceptor(&["detach", &run, "--reason", "the test is over"]).succeeded();
    drop(agent);
    installation.finish();
}

/// Moved processes and a captured cgroup, with the daemon dead, and alive; to beyond the host, and on it.
#[test]
fn what_drains_goes_on_for_its_time_and_no_longer() {
    let sniffer = Sniffer::new();
    let mut installation = Setup::empty().in_namespace(sniffer.namespace()).start();
    let _server = server(&sniffer);
    let host = format!("--net=/run/netns/{}", sniffer.namespace());
    let _local = Talker::start(command(&["nsenter", &host, "/usr/bin/python3", "-c", ECHO]));
    let cgroup = Cgroup::make(&installation, "drained");
    let (mut moved, mut inside, mut other) =
        (sender(&installation), sender(&installation), sender(&installation));
    let mut local = sender_to(&installation, "127.0.0.1", "::1");
    for one in [&inside, &local] {
        put(one, &cgroup.0);
    }
    for one in [&mut moved, &mut inside, &mut local, &mut other] {
        assert_eq!(one.say("keep", LONG), "heard");
    }
    assert_eq!(inside.say("keep6", LONG), "heard");
    let pid = moved.pid().to_string();
    let runs = [
        attach(&installation, ["--pid", &pid], "drain=15s"),
        attach(&installation, ["--cgroup", cgroup.0.to_str().expect("a plain path")], "drain=15s"),
    ];
    for one in [&mut moved, &mut inside, &mut local] {
        assert_eq!(one.say("kept", LONG), "heard", "what was there goes on");
    }
    assert_eq!(inside.say("kept6", LONG), "heard", "past the belt, too");
    kill_daemon(&installation);
    for one in [&mut moved, &mut inside, &mut local] {
        reaches_nothing(one, "what is new is captured");
        let said = one.say("kept", LONG);
        assert!(
            said == "heard" || said.ends_with("Error"),
            "with the daemon dead, too, while it may: {said}"
        );
    }
    for one in [&mut moved, &mut inside, &mut local] {
        wait_until("the end of it", LONG, || one.say("kept", LONG) != "heard");
    }
    let _ = sniffer.frames();
    for one in [&mut moved, &mut inside, &mut local] {
        assert!(one.say("kept", LONG).ends_with("Error"), "nobody is there, and it is over");
    }
    sniffer.saw_nothing("what has drained");

    installation.start();
    let is_over = |run: &str| told(&installation, run, "everything is captured") == 1;
    for run in &runs {
        wait_until("the record of its end", PATIENCE, || is_over(run));
        assert!(told(&installation, run, "and it was reset") > 0);
    }
    wait_until("nothing of it to stay", PATIENCE, || !is_guarded(&installation));
    let pid = other.pid().to_string();
    let last = attach(&installation, ["--pid", &pid], "drain=1s");
    wait_until("the end of it", LONG, || other.say("kept", LONG) != "heard");
    wait_until("the record of its end", PATIENCE, || is_over(&last));
    assert_eq!(told(&installation, &last, "and it was reset"), 1, "a daemon that is there resets it");
    for run in runs.iter().chain([&last]) {
        installation.interceptor(&["detach", run, "--reason", "the test is over"]).succeeded();
    }
    drop((moved, inside, local, other, cgroup));
    installation.end();
}
