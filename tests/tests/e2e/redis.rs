//! Redis: a real server behind the proxy, and real clients by name, over TLS, and by Unix sockets.

use std::process::Command;

use interceptor_tests::{
    Installation, Job, Logins, Setup,
    installation::{AGENT, OBSERVED},
    leaks, places,
    process::{PATIENCE, run},
    redis::{self, HOST, RunningRedis},
    rules::{BUDGET, HOLDS},
};

const POLICY: &str = r#"
@id("cache-sessions")
permit (
    principal,
    action in [Action::"connect", Action::"data.read", Action::"session.change", Action::"transaction"],
    resource
);

@id("cache-own-keys")
permit (principal, action in Action::"data.write", resource is Object)
when { resource.kind == "key" && resource.name like "agent:*" };

@id("cache-news")
permit (principal, action == Action::"notify", resource is Object)
when { resource.name == "news" || (resource.kind == "channels" && resource.name == "other.*") || resource.name == "other.x" };

@id("cache-leaves-channels")
permit (principal, action == Action::"notify", resource is Resource);

@id("cache-no-secrets")
@say("the secrets are not for agents")
forbid (principal, action in Action::"data", resource is Object)
when { resource.kind == "key" && resource.name like "secret:*" };

@id("look-up")
permit (principal, action == Action::"resolve", resource is Name) when { resource.inventory };
"#;

/// In `masked` nobody sees addresses of mail.
const LABELS: &str = "[label.email]\nresources = [\"masked\"]\ndetect = [\"email\"]\nmask = \"redact\"\n";

/// One server as three resources: over TLS by name and by Debian's socket, by its own socket, and with labels.
fn stage(more: impl FnOnce(Setup) -> Setup) -> (RunningRedis, Installation) {
    let redis = RunningRedis::start();
    for words in [
        &["SET", "users:1", "one"][..],
        &["SET", "secret:1", "the-guarded-value"],
        &["HSET", "users:map", "a", "1"],
        &["SET", "users:mail", "write to walter.white@example.org now"],
        &["HSET", "users:mails", "a", "walter.white@example.org"],
    ] {
        redis.admin(words);
    }
    let tls = format!(
        "upstream = \"127.0.0.1:{}\"\ndial = \"host\"\ntls = {{ roots = {:?}, server_name = \"{HOST}\" }}\n",
        redis.port(),
        redis.roots()
    );
    let credential = |name: &str| {
        format!(
            "[[resource.{name}.credential]]\nuser = \"app\"\nsecret = {{ file = \"cache\" }}\nminimum = \"cleartext\"\n"
        )
    };
    let resources = format!(
        "[resource.cache]\nprotocol = \"redis\"\nhosts = [\"{HOST}\"]\nsockets = [\"/run/redis/redis-server.sock\"]\n{tls}{}\
         [resource.masked]\nprotocol = \"redis\"\nhosts = [\"masked.internal\"]\n{tls}{}{}",
        credential("cache"),
        credential("masked"),
        redis.by_socket("/run/local/redis.sock"),
    );
    let setup = Setup::empty()
        .resource("approvers = [\"dba\"]\n")
        .resource(&resources)
        .credential("cache", redis.secret())
        .labels(LABELS)
        .policy("10-test.cedar", POLICY);
    (redis, more(setup).start())
}

/// What it is to do; nothing where its input says that.
fn cli(installation: &Installation, options: &[&str], words: &[&str]) -> Command {
    let log_in = ["-h", HOST, "--user", "whoever", "--pass", "the-agents-own", "--no-auth-warning"];
    let all = redis::client(&[&log_in, words].concat());
    installation.captured_with(options, &all.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn redis_cli_works_and_is_judged_by_key() {
    let (redis, installation) = stage(|setup| setup);
    let input = "GET users:1\nSET agent:1 one\nSET users:1 two\nGET secret:1\nSELECT 0\nHELLO 3\nHGETALL users:map\nGET users:1\n";
    let finished = Job::start(cli(&installation, &AGENT, &[]), input).finish(PATIENCE).succeeded();
    let lines: Vec<&str> = finished.stdout.lines().collect();
    assert_eq!(lines.first(), Some(&"one"), "{finished}");
    assert!(lines.contains(&"OK") && lines.last() == Some(&"one"), "{finished}");
    let _ = finished
        .says("NOPERM interceptor: ")
        .says("no rule permits it")
        .says("the secrets are not for agents (rule cache-no-secrets, record ");
    assert_eq!(redis.admin(&["GET", "users:1"]), "one", "what was refused was not carried out");
    assert_eq!(redis.admin(&["GET", "agent:1"]), "one");

    let records = installation.ended("GET \"users:1\"");
    let read = records.with("GET \"users:1\"");
    let exchange = read.first().expect("a record");
    assert_eq!((exchange.status(), exchange.verbs()), ("completed", vec!["data.read"]));
    assert_eq!(exchange.at("/outcome/rows"), 1);
    assert_eq!(exchange.at("/request/principal/user"), "app");
    assert_eq!(exchange.at("/request/resource"), "cache");
    let written = records.one("SET \"agent:1\" 'one'");
    assert_eq!(written.verbs(), ["data.insert", "data.update"]);
    let refused = records.one("SET \"users:1\" 'two'");
    assert!(!refused.allowed() && refused.status() == "refused");
    let all = format!("{:?}", records.0);
    assert!(!all.contains(redis.secret()), "our password stands in no record");
    assert!(records.with("AUTH").is_empty(), "the agent's log-in is not recorded");
    installation.finish();
}

#[test]
fn redis_py_does_all_that_it_does_directly_but_what_is_refused() {
    let (redis, installation) = stage(|setup| setup);
    let script = installation.script("redis_client.py", include_str!("../clients/redis_client.py"));
    let python = places::python().display().to_string();
    let finished = run(installation.captured("release-bot", &[&python, &script])).succeeded();
    let commands = [
        "read: one",
        "written: True one",
        "mixed: True",
        "flush: True",
        "unknown: True",
        "monitor: True",
        "goes on: one {'a': '1'}",
        "exec: [True, 2]",
        "nothing of it: 2 one",
        "pipeline: 10001 [5000] 5000 5001 10000",
        "blocked: ",
        "large: True 67108864 True",
        "large refused: True",
        "after it: b'one' 1",
        "tls: one",
        "masked: write to [email] now {'a': '[email]'} one",
        "local: one True",
    ];
    let lines: Vec<&str> = finished.stdout.lines().collect();
    for expected in commands {
        assert!(lines.iter().any(|line| line.starts_with(expected)), "{expected}: {finished}");
    }
    assert_eq!(lines.iter().filter(|line| **line == "local: one True").count(), 2, "{finished}");
    for protocol in [2, 3] {
        let heard =
            format!("heard {protocol}: ('message', 'news', 'hello') ('pmessage', 'other.x', 'world')");
        assert!(lines.contains(&heard.as_str()), "{heard}: {finished}");
        assert!(lines.contains(&format!("published {protocol}: 1 1").as_str()), "{finished}");
        assert!(lines.contains(&format!("refused {protocol}: True").as_str()), "{finished}");
    }
    let _ = finished.clone().says("forbidden: interceptor: the secrets are not for agents");
    assert_eq!(redis.admin(&["GET", "users:1"]), "one");
    assert_eq!(redis.admin(&["EXISTS", "users:large", "agent:large"]), "0");

    // What a transaction carried out has ended with it; what one did not was passed over.
    let records = installation.ended("SET \"agent:count\" '100'");
    let statuses =
        |part: &str| records.with(part).iter().map(|one| one.status().to_owned()).collect::<Vec<_>>();
    assert_eq!(statuses("SET \"agent:count\" '1'"), ["completed"; 2]);
    assert_eq!(statuses("SET \"agent:count\" '100'"), ["skipped"; 2]);
    let wrong = records.with("LRANGE \"users:1\"");
    assert!(wrong.iter().all(|one| one.at("/outcome/code") == "WRONGTYPE"), "{:#?}", records.brief());
    let local = records.0.iter().filter(|one| one.at("/request/resource") == "local");
    assert!(local.count() > 0, "the socket is decoded");
    for (role, pid) in installation.roles().iter().filter(|(role, _)| role == "helper") {
        let found = leaks::memory_contains(*pid, redis.secret().as_bytes());
        assert_eq!(found, Some(false), "in the memory of the {role}");
    }
    installation.finish();
}

#[test]
fn an_answer_ends_where_the_budget_does() {
    let (redis, installation) = stage(|setup| setup.policy("20-budget.cedar", BUDGET));
    let values: Vec<String> = (1..=1500).map(|number| format!("value-{number}")).collect();
    let push =
        [&["RPUSH", "users:list"], &values.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat();
    redis.admin(&push);
    // Nothing well-formed can follow in the middle of an answer, so that the session ends with it.
    let input = "LRANGE users:list 0 -1\nLRANGE users:list 0 10\n";
    let finished = Job::start(cli(&installation, &AGENT, &[]), input).finish(PATIENCE);
    let _ = finished.clone().says("the hour's rows are used up");
    let records = installation.ended("LRANGE \"users:list\" '0' '-1'");
    let cut = records.one("LRANGE \"users:list\" '0' '-1'");
    // What the client asks of its own accord counts as well.
    let rows = cut.at("/outcome/rows").as_u64().expect("what passed is counted");
    assert!(cut.status() == "failed" && rows > 0 && rows < 1000, "{rows}");
    let last = finished.stdout.lines().filter(|line| line.contains("value-")).count();
    assert!(last as u64 <= rows, "{last} of {rows}: {finished}");
    assert!(!records.one("LRANGE \"users:list\" '0' '10'").allowed());
    installation.finish();
}

#[test]
fn a_command_waits_for_a_person_and_goes_once() {
    let logins = Logins::of(&["bob"]);
    let (redis, installation) = stage(|setup| {
        setup
            .people(&logins.people(&[("bob", "dba")]))
            .policy("20-holds.cedar", HOLDS)
            .settings("local-approval = \"on\"")
    });
    redis.admin(&["MSET", "agent:1", "one", "agent:2", "two"]);
    let waits = |key: &str| {
        let text = format!("DEL \"{key}\"");
        installation.approval_of(Job::start(cli(&installation, &AGENT, &["DEL", key]), ""), &text)
    };
    let (job, approval) = waits("agent:1");
    assert_eq!(redis.admin(&["EXISTS", "agent:1"]), "1", "it waits");
    logins.interceptor("bob", installation.root(), &["approvals", "approve", &approval]).succeeded();
    assert_eq!(job.finish(PATIENCE).succeeded().stdout.trim(), "1");
    let (job, approval) = waits("agent:2");
    let deny = ["approvals", "deny", &approval, "--reason", "it is kept"];
    logins.interceptor("bob", installation.root(), &deny).succeeded();
    let _ = job.finish(PATIENCE).says("denied by bob: it is kept");
    assert_eq!(redis.admin(&["EXISTS", "agent:1", "agent:2"]), "1");
    installation.finish();
    drop(logins);
}

#[test]
fn what_is_only_observed_goes_on_and_is_marked() {
    let (redis, installation) = stage(|setup| setup);
    run(cli(&installation, &OBSERVED, &["SET", "users:1", "two"])).succeeded();
    assert_eq!(redis.admin(&["GET", "users:1"]), "two");
    let records = installation.ended("SET \"users:1\" 'two'");
    let one = records.one("SET \"users:1\" 'two'");
    assert!(one.allowed() && one.status() == "completed");
    assert_eq!(one.at("/request/verdict/mode"), "observe");
    assert_eq!(one.at("/request/verdict/would_be"), "denied");
    installation.finish();
}
