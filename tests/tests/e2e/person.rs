//! The same query for an agent and for a person: who is a person is said by one, of their own log-in session.

use std::time::Duration;

use interceptor_tests::{
    Job, Talker, places,
    process::{PATIENCE, wait_until},
};

use crate::approvals::Stage;

const LONG: Duration = Duration::from_secs(30);
const LABELS: &str = "[label.secret]\ncolumns = [\"public.people.code\"]\nmask = \"redact\"\n";
const SEEING: &str = r#"
@id("bob-sees")
permit (principal, action == Action::"see", resource is Label in Resource::"orders")
when { context.person == "bob" };

@id("eve-sees")
permit (principal == Person::"eve", action == Action::"see", resource is Label in Resource::"orders");
"#;
/// What `timeout` starts is an agent's.
const AGENTS: &str = "[agent.desk]\nowner = \"bob\"\n[agent.helper]\nowner = \"bob\"\n[[agent.helper.hint]]\nexecutable = \"/usr/bin/timeout\"\n";

#[test]
fn the_same_query_is_masked_for_an_agent_and_clear_for_a_person() {
    let stage = Stage::with(|setup| setup.labels(LABELS).agent(AGENTS).policy("30-seeing.cedar", SEEING));
    stage.bed.admin(
        "orders",
        "SET ROLE app; CREATE TABLE people (id int, code text); INSERT INTO people VALUES (1, 'zqx-1')",
    );
    let installation = &stage.installation;
    let root = installation.root().display().to_string();
    let script = include_str!("../clients/person.py");
    let mut person = Talker::start(stage.logins.session("bob", &["/usr/bin/python3", "-c", script, &root]));
    let pid = person.say("pid", LONG);
    let attached = installation.interceptor(&["attach", "--pid", &pid, "--agent", "desk"]).succeeded();
    let run = attached.stdout.split_whitespace().find(|word| word.len() == 11 && word.starts_with('r'));
    let run = run.expect("a run").to_owned();
    assert_eq!(person.say("see", LONG), "[secret]|", "without a word it is nobody's");
    // It is said by people alone, of their own session, and from outside of it.
    let psql = places::postgres_tool("psql").display().to_string();
    let work = ["--shell", &pid, "--program", "/usr/bin/psql", "--program", &psql];
    let said = |time| [&["vouch", run.as_str(), "--for", time][..], &work].concat();
    let vouch = said("5m");
    installation.interceptor(&[&["approvals"], &vouch[..]].concat()).failed().says("root alone is nobody");
    assert!(person.say(&format!("vouch {run}"), LONG).contains("captured"));
    assert_eq!(person.say("see", LONG), "[secret]|");
    stage.says("eve", &vouch).failed().says("in no log-in session of yours");
    assert_eq!(person.say("see", LONG), "[secret]|", "eve is not who is logged in there");
    stage
        .says("bob", &["vouch", &run, "--for", "5m", "--shell", &pid, "--program", "psql"])
        .failed()
        .says("whole paths");
    stage.says("bob", &said("9h")).failed().says("at most 8 hours");
    stage.says("bob", &vouch).succeeded().says("policy knows bob");
    assert_eq!(person.say("see", LONG), "zqx-1|ZQX-1");
    assert_eq!(person.say("see /usr/bin/timeout 20", LONG), "[secret]|", "an agent below is no person");
    // Nor is one that nobody knows: what it starts is not bob's, also where it puts psql into its own place.
    assert_eq!(person.say("see /usr/bin/nice", LONG), "[secret]|", "nice has psql take its place");
    assert_eq!(person.say("see /usr/bin/setsid --fork --wait", LONG), "[secret]|");
    assert_eq!(person.say("see", LONG), "zqx-1|ZQX-1");
    stage.says("bob", &[&vouch[..], &["--program", "/usr/bin/nice"]].concat()).succeeded();
    assert_eq!(person.say("see /usr/bin/nice", LONG), "zqx-1|ZQX-1", "it was named");
    as_their_own_principal(&stage);
    // An agent's run, launched or not by the same person, sees what an agent sees.
    installation.psql("SELECT code, upper(code) FROM people WHERE id = 1;\n").says("[secret]|");
    wait_until("the ended run to be forgotten", PATIENCE, || installation.runs().len() == 1);
    let asleep = Job::start(installation.captured("release-bot", &["sleep", "60"]), "");
    let mut launched = String::new();
    wait_until("the other run", PATIENCE, || {
        let runs = installation.runs();
        let other = runs.iter().find(|other| other["run"].as_str() != Some(&run));
        launched = other.and_then(|other| other["run"].as_str()).unwrap_or_default().to_owned();
        !launched.is_empty()
    });
    stage
        .says("bob", &[&["vouch", launched.as_str(), "--for", "5m"][..], &work].concat())
        .failed()
        .says("is agent release-bot's");
    installation.interceptor(&["kill", &launched]).succeeded();
    asleep.finish(PATIENCE);
    // It is for a while.
    stage.says("bob", &said("1s")).succeeded();
    wait_until("the end of the time", PATIENCE, || person.say("see", LONG) == "[secret]|");
    let tail = installation.interceptor(&["audit", "tail", "--all", "-n", "1000"]).succeeded();
    tail.says("vouches for 300 s that this is their own log-in session");
    let export = installation.interceptor(&["--json", "audit", "export", "--format", "jsonl"]).succeeded();
    assert!(!export.stdout.contains("zqx-1"));
    drop(person);
    stage.finish();
}

/// A rule for the person themselves will do as well.
fn as_their_own_principal(stage: &Stage) {
    let root = stage.installation.root().display().to_string();
    let script = include_str!("../clients/person.py");
    let mut eve = Talker::start(stage.logins.session("eve", &["/usr/bin/python3", "-c", script, &root]));
    let pid = eve.say("pid", LONG);
    let attached = stage.installation.interceptor(&["attach", "--pid", &pid, "--agent", "desk"]).succeeded();
    let run = attached.stdout.split_whitespace().find(|word| word.len() == 11 && word.starts_with('r'));
    let run = run.expect("a run");
    assert_eq!(eve.say("see", LONG), "[secret]|");
    let psql = places::postgres_tool("psql").display().to_string();
    stage
        .says(
            "eve",
            &["vouch", run, "--for", "5m", "--shell", &pid, "--program", "/usr/bin/psql", "--program", &psql],
        )
        .succeeded();
    assert_eq!(eve.say("see", LONG), "zqx-1|ZQX-1");
    stage.installation.interceptor(&["kill", run]).succeeded();
}
