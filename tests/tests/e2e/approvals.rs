//! Statements that wait for people: unmodified clients survive it, and what was approved is done exactly once.

use std::{process::Command, time::Duration};

use interceptor_tests::{
    Bed, Finished, Installation, Job, Logins, RunningBed, Setup, bed,
    installation::{DSN, POLICY},
    places,
    process::{PATIENCE, wait_until},
    rules::HOLDS,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Updates wait for two DBAs, and no longer than three seconds on the wire.
const UPDATES: &str = r#"
@id("user-updates-wait")
@hold("dba")
@within("3s")
forbid (principal, action == Action::"data.update", resource is Table)
when { resource.name == "users" }
unless { context.approvals.dba >= 2 };
"#;

/// A bed, an installation with [`HOLDS`] and [`UPDATES`], and people: bob and eve are DBAs, alice owns the agent.
pub(crate) struct Stage {
    pub(crate) bed: RunningBed,
    pub(crate) installation: Installation,
    pub(crate) logins: Logins,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::with(|setup| setup)
    }

    /// A captured command that is tried again until it succeeds.
    pub(crate) fn until_it_passes(&self, words: &[&str]) -> Job {
        let words: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let text = format!("until {}; do sleep 0.3; done\n", words.join(" "));
        let script = self.installation.script("again.sh", &text);
        Job::start(self.installation.captured("release-bot", &["sh", &script]), "")
    }

    /// With more in its configuration.
    pub(crate) fn with(more: impl FnOnce(Setup) -> Setup) -> Self {
        let bed = Bed::start();
        let logins = Logins::of(&["alice", "bob", "eve", "mallory"]);
        let groups = [("alice", "dba"), ("bob", "dba"), ("eve", "dba"), ("mallory", "on-call")];
        bed.admin("orders", "INSERT INTO notes (body) SELECT 'note ' || n FROM generate_series(1, 9) AS n");
        bed.admin(
            "orders",
            "CREATE TABLE counter (id int PRIMARY KEY, n int NOT NULL); ALTER TABLE counter OWNER TO app",
        );
        let installation = Setup::empty()
            .resource("approvers = [\"dba\", \"on-call\"]\n")
            .resource(&interceptor_tests::installation::orders(&bed, "app", "scram-sha-256"))
            .credential("orders", bed.secret())
            .people(&logins.people(&groups))
            .policy("10-test.cedar", POLICY)
            .policy("20-holds.cedar", HOLDS)
            .policy("21-updates.cedar", UPDATES)
            .settings("local-approval = \"on\"");
        let installation = more(installation).start();
        Self { bed, installation, logins }
    }

    pub(crate) fn says(&self, person: &str, arguments: &[&str]) -> Finished {
        let words = [&["approvals"], arguments].concat();
        self.logins.interceptor(person, self.installation.root(), &words)
    }

    pub(crate) fn notes(&self) -> String {
        self.bed.admin("orders", "SELECT string_agg(id::text, ',' ORDER BY id) FROM notes")
    }

    pub(crate) fn kill_proxy(&self) {
        for (_, pid) in self.installation.roles().iter().filter(|(role, _)| role == "proxy") {
            kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).expect("the daemon's own process");
        }
    }

    pub(crate) fn finish(self) {
        let Self { bed, installation, logins } = self;
        installation.finish();
        drop((bed, logins));
    }
}

fn python(driver: &str) -> impl Fn(&Installation, &[&str]) -> Command {
    move |installation, steps| {
        let script = installation.script("hold.py", include_str!("../clients/hold.py"));
        let python = places::python().display().to_string();
        installation.captured("release-bot", &[&[python.as_str(), &script, driver], steps].concat())
    }
}

fn node(driver: &str) -> impl Fn(&Installation, &[&str]) -> Command {
    move |installation, steps| {
        let script = installation.script("hold.cjs", include_str!("../clients/hold.cjs"));
        let mut command =
            installation.captured("release-bot", &[&["node", script.as_str(), driver], steps].concat());
        command.env("NODE_PATH", places::node_modules());
        command
    }
}

/// An eight-second hold, a denial, an expiry, and the proxy killed in the middle of a hold.
fn survives(start: impl Fn(&Installation, &[&str]) -> Command) {
    let stage = Stage::new();
    stage.bed.admin("orders", "INSERT INTO counter VALUES (1, 0)");
    let steps = [
        "once:DELETE FROM notes WHERE id = $1 -- 1",
        "once:DELETE FROM notes WHERE id = 2",
        "once:UPDATE users SET name = 'x' WHERE id = 3",
        "retry:WITH gone AS (DELETE FROM notes WHERE id = 4) UPDATE counter SET n = n + 1 WHERE id = 1",
    ];
    let job = Job::start(start(&stage.installation, &steps), "");
    let (job, first) = stage.installation.approval_of(job, "id = $1");
    std::thread::sleep(Duration::from_secs(8));
    stage.says("bob", &["approve", &first]).succeeded().says("approved, once");
    let second = stage.installation.open_approval("id = 2");
    stage
        .says("eve", &["deny", &second, "--reason", "not\u{1b}[2J today", "--suggest", "SELECT 1"])
        .succeeded();
    let fourth = stage.installation.open_approval("UPDATE counter");
    stage.kill_proxy();
    wait_until("the daemon to be back", PATIENCE, || {
        stage.says("bob", &["approve", &fourth]).status.success()
    });
    let finished = job.finish(PATIENCE).succeeded();
    for line in [
        ": done",
        "42501 denied by eve: not\\u{1b}[2J today",
        "Suggested instead: SELECT 1",
        "42501 not approved within 3 s",
        "retry the same statement",
        "UPDATE counter SET n = n + 1 WHERE id = 1: done",
        "after: alive",
    ] {
        assert!(finished.stdout.contains(line), "no {line:?} in {finished}");
    }
    assert_eq!(stage.notes(), "2,3,5,6,7,8,9");
    assert_eq!(stage.bed.admin("orders", "SELECT n FROM counter"), "1", "exactly once");
    let records = stage.installation.ended("id = $1");
    let passed = records.with("id = $1");
    let passed =
        passed.iter().find(|one| one.allowed() && one.phase() == "execute").expect("it went by its approval");
    assert_eq!(passed.at("/request/verdict/approval/id"), first.as_str());
    assert_eq!(passed.at("/request/verdict/approval/by/0"), "bob");
    stage.finish();
}

#[test]
fn psycopg_survives_a_hold() {
    survives(python("psycopg"));
}

#[test]
fn asyncpg_survives_a_hold() {
    survives(python("asyncpg"));
}

#[test]
fn pg8000_survives_a_hold() {
    survives(python("pg8000"));
}

#[test]
fn node_postgres_survives_a_hold() {
    survives(node("pg"));
}

#[test]
fn postgres_js_survives_a_hold() {
    survives(node("postgres"));
}

#[test]
fn psql_survives_a_hold() {
    let stage = Stage::new();
    let sql = "DELETE FROM notes WHERE id = 1;\nDELETE FROM notes WHERE id = 2;\n\
               UPDATE users SET name = 'x' WHERE id = 3;\nSELECT 'after', 1;\n";
    let words = stage.installation.psql_words(&["-f", "-"]);
    let job = Job::start(stage.installation.captured("release-bot", &words), sql);
    let (job, first) = stage.installation.approval_of(job, "id = 1");
    std::thread::sleep(Duration::from_secs(8));
    stage.says("bob", &["approve", &first]).succeeded();
    let second = stage.installation.open_approval("id = 2");
    stage.says("bob", &["deny", &second, "--reason", "not today"]).succeeded();
    let finished = job.finish(PATIENCE).succeeded();
    for line in
        ["DELETE 1", "held: on orders this waits for approval by dba", "denied by bob: not today", "after|1"]
    {
        assert!(finished.text().contains(line), "no {line:?} in {finished}");
    }
    assert!(finished.stderr.contains("not approved within 3 s"), "{finished}");
    assert_eq!(stage.notes(), "2,3,4,5,6,7,8,9");
    // Killed under it: psql ends, and the retry passes once.
    let words = stage.installation.psql_words(&["-c", "DELETE FROM notes WHERE id = 5"]);
    let job = stage.until_it_passes(&words);
    let third = stage.installation.open_approval("id = 5");
    stage.kill_proxy();
    wait_until("the daemon to be back", PATIENCE, || {
        stage.says("bob", &["approve", &third]).status.success()
    });
    job.finish(PATIENCE).succeeded().says("DELETE 1");
    assert_eq!(stage.notes(), "2,3,4,6,7,8,9");
    stage.finish();
}

#[test]
fn a_cancelled_wait_ends_and_leaves_the_request() {
    let stage = Stage::new();
    let words =
        stage.installation.psql_words(&["-c", "DELETE FROM notes WHERE id = 1", "-c", "SELECT 'after', 1"]);
    let job = Job::start(stage.installation.captured("release-bot", &words), "");
    let id = stage.installation.open_approval("id = 1");
    job.signal(Signal::SIGINT);
    job.finish(PATIENCE).says("cancelled while it waited");
    // The client has left; what is approved now is done for nobody.
    stage.says("bob", &["approve", &id]).succeeded();
    assert_eq!(stage.notes(), "1,2,3,4,5,6,7,8,9");
    stage.finish();
}

/// In a transaction, and where the client asked for it, the answer comes at once, with the id.
#[test]
fn what_cannot_wait_is_told_at_once_and_passes_in_the_same_run() {
    let stage = Stage::new();
    let one = "psql -X -A -t -d \"$DSN\"";
    let script = stage.installation.script(
        "many.sh",
        &format!(
            "export DSN='{DSN}'\n{one} -c 'BEGIN' -c 'DELETE FROM notes WHERE id = 1' -c 'ROLLBACK' 2>&1\n\
             PGOPTIONS='-c interceptor.hold=return' {one} -c 'DELETE FROM notes WHERE id = 2' 2>&1\n\
             until {one} -v ON_ERROR_STOP=1 -c 'BEGIN' -c 'DELETE FROM notes WHERE id = 1' -c 'COMMIT' 2>/dev/null\n\
             do sleep 0.3; done\n\
             {one} -c 'BEGIN' -c 'DELETE FROM notes WHERE id = 1' -c 'ROLLBACK' 2>&1\n"
        ),
    );
    let job = Job::start(stage.installation.captured("release-bot", &["sh", &script]), "");
    let first = stage.installation.open_approval("id = 1");
    let second = stage.installation.open_approval("id = 2");
    stage.says("bob", &["approve", &first]).succeeded();
    let finished = job.finish(PATIENCE);
    let text = finished.text();
    assert!(text.contains("a statement in a transaction is not kept waiting"), "{finished}");
    assert!(text.contains(&format!("this needs approval {second} by dba")), "{finished}");
    assert!(text.contains("COMMIT"), "{finished}");
    // Once is once: the same statement after that is a new request.
    assert_eq!(text.matches("is not kept waiting").count(), 2, "{finished}");
    assert_ne!(stage.installation.open_approval("id = 1"), first);
    assert_eq!(stage.notes(), "2,3,4,5,6,7,8,9");
    stage.finish();
}

/// What is approved is this statement in this run under this policy, and nothing else.
#[test]
fn an_approval_fits_nothing_else() {
    let stage = Stage::new();
    let words = stage.installation.psql_words(&["-c", "DELETE FROM notes WHERE id = 1"]);
    let job = Job::start(stage.installation.captured("release-bot", &words), "");
    let id = stage.installation.open_approval("id = 1");
    // The table is another one by the time that it is approved: it is asked anew.
    stage.bed.admin(
        "orders",
        "ALTER TABLE notes RENAME TO kept; CREATE TABLE notes (id int, body text); ALTER TABLE notes OWNER TO app",
    );
    stage.says("bob", &["approve", &id]).succeeded();
    let mut again = id.clone();
    wait_until("a new request", PATIENCE, || {
        again = stage.installation.open_approval("id = 1");
        again != id
    });
    // A policy that changes voids what waits.
    stage.installation.put_policy("20-holds.cedar", &format!("{HOLDS}\n// another edition\n"));
    stage.installation.interceptor(&["reload"]).succeeded();
    job.finish(PATIENCE).failed().says("is void: the policy changed");
    stage.says("bob", &["approve", &again]).failed().says("void");
    assert_eq!(stage.bed.admin("orders", "SELECT count(*) FROM kept"), "9");
    stage.finish();
}

#[test]
fn a_run_has_only_so_many_requests() {
    let stage = Stage::new();
    let flood: String = (1..=9).map(|n| format!("DELETE FROM notes WHERE id = {n};\n")).collect();
    let mut command =
        stage.installation.captured("release-bot", &stage.installation.psql_words(&["-f", "-"]));
    command.env("PGOPTIONS", "-c interceptor.hold=return");
    let finished = Job::start(command, &flood).finish(PATIENCE);
    assert_eq!(finished.stderr.matches("this needs approval").count(), 8, "{finished}");
    assert!(finished.stderr.contains("has 8 requests for approval waiting already"), "{finished}");
    stage.finish();
}

/// Kills a process of the daemon again and again, at moments that nobody chose, while approved statements are on their
/// way: each is done once, or not at all where the record says why.
fn killed(rounds: u32) {
    let mut stage = Stage::new();
    let mut kills = 0;
    for round in 1..=rounds {
        let bed = &stage.bed;
        bed.admin("orders", &format!("INSERT INTO counter VALUES ({round}, 0)"));
        let installation = &stage.installation;
        // What was killed in the last round may be on its way back, and takes no launch until then.
        wait_until("the daemon to take a launch", PATIENCE, || {
            installation.run("release-bot", &["true"]).status.success()
        });
        let sql = format!(
            "retry:WITH gone AS (DELETE FROM notes WHERE id = -1) UPDATE counter SET n = n + 1 WHERE id = {round}"
        );
        let job = Job::start(python("psycopg")(installation, &[&sql]), "");
        let (job, id) = installation.approval_of(job, &format!("WHERE id = {round}"));
        let approved = stage.says("bob", &["approve", &id]).succeeded();
        let mut random = [0; 2];
        getrandom::fill(&mut random).expect("random numbers");
        std::thread::sleep(Duration::from_millis(u64::from(random[0]) / 4));
        let role = ["proxy", "keeper", "proxy", "helper"][usize::from(random[1] % 4)];
        for (_, pid) in installation.roles().iter().filter(|(name, _)| name == role) {
            // It may be gone already.
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
            kills += 1;
        }
        if role == "helper" {
            wait_until("the whole daemon to be gone", PATIENCE, || installation.roles().is_empty());
            stage.installation.start();
        }
        let installation = &stage.installation;
        let finished = job.finish(PATIENCE);
        let done = bed_count(&stage.bed, round);
        assert!(done <= 1, "done {done} times: {finished} {approved}");
        if done == 0 {
            let text = finished.text();
            assert!(text.contains("was used for record"), "not done, and nobody says why: {finished}");
            let records = installation.records_once("its end", |records| {
                records.with(&format!("WHERE id = {round}")).iter().all(|one| !one.status().is_empty())
            });
            let passed = records.with(&format!("WHERE id = {round}"));
            let passed = passed.iter().rfind(|one| one.allowed()).expect("it was allowed once");
            assert!(["unknown", "refused"].contains(&passed.status()), "{passed:?}");
        }
    }
    println!("{kills} processes killed in {rounds} rounds");
    stage.finish();
}

fn bed_count(bed: &RunningBed, id: u32) -> u32 {
    bed.admin("orders", &format!("SELECT n FROM counter WHERE id = {id}")).parse().expect("a number")
}

#[test]
fn what_is_approved_is_done_once_whatever_dies() {
    killed(4);
}

/// The same for longer: `cargo xtask test --long`. With `INTERCEPTOR_SLICE`, a part of it.
#[test]
#[ignore = "takes an hour: run by `cargo xtask test --long`"]
fn what_is_approved_is_done_once_through_a_thousand_kills() {
    killed(if std::env::var_os("INTERCEPTOR_SLICE").is_some() { 40 } else { 1000 });
}

/// Hears the webhook, the first time badly, and checks what it hears.
const HOOK: &str = r#"
import hashlib, hmac, http.server, json, sys
port, secret, told = int(sys.argv[1]), sys.argv[2].encode(), open(sys.argv[3], "a")
class Hook(http.server.BaseHTTPRequestHandler):
    tries = 0
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        signed = self.headers["x-interceptor-timestamp"].encode() + b"." + body
        right = "sha256=" + hmac.new(secret, signed, hashlib.sha256).hexdigest()
        Hook.tries += 1
        said = json.loads(body)
        genuine = hmac.compare_digest(right, self.headers["x-interceptor-signature"])
        print(self.headers["x-interceptor-event"], genuine, said["event"], said["state"], said["groups"],
              "DELETE" in body.decode(), file=told, flush=True)
        self.send_response(500 if Hook.tries == 1 else 204)
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", port), Hook).serve_forever()
"#;

#[test]
fn a_webhook_hears_who_waits_for_whom_and_knows_that_it_is_us() {
    let (port, secret) = (bed::free_port().to_string(), "the-hooks-own-secret");
    let mut hook = Command::new("/usr/bin/python3");
    let told = tempfile::NamedTempFile::new().expect("a file");
    hook.args(["-c", HOOK, &port, secret]).arg(told.path());
    let hook = Job::start(hook, "");
    let stage = Stage::with(|setup| {
        setup
            .settings(&format!("webhook = \"http://127.0.0.1:{port}/approvals\""))
            .credential("webhook", secret)
    });
    let words = stage.installation.psql_words(&["-c", "DELETE FROM notes WHERE id = 1"]);
    let job = Job::start(stage.installation.captured("release-bot", &words), "");
    let id = stage.installation.open_approval("id = 1");
    stage.says("bob", &["approve", &id]).succeeded();
    job.finish(PATIENCE).succeeded();
    let heard = || std::fs::read_to_string(told.path()).expect("own file");
    wait_until("all of it to be heard", PATIENCE, || heard().lines().count() >= 3);
    // What is told more often than that comes a second later.
    std::thread::sleep(Duration::from_secs(3));
    hook.signal(Signal::SIGTERM);
    hook.finish(PATIENCE);
    let heard = heard();
    let lines: Vec<&str> = heard.lines().collect();
    let asked = format!("{id}/asked True asked open ['dba'] False");
    let decided = format!("{id}/decided/1 True decided open ['dba'] False");
    assert_eq!(lines, [&asked, &asked, &decided], "{heard}");
    stage.finish();
}

/// Asked for ahead, by an operator or by the agent itself: nothing is carried out by that, and what is approved passes
/// when it comes.
#[test]
fn what_was_asked_ahead_and_approved_does_not_wait() {
    let stage = Stage::new();
    let installation = &stage.installation;
    let one = "psql -X -A -t -d \"$DSN\"";
    let script = installation.script(
        "ahead.sh",
        &format!(
            "export DSN='{DSN}'\n\
             PGOPTIONS='-c interceptor.hold=ask' {one} -c 'SELECT 1' -c 'DELETE FROM notes WHERE id = 2' -c 'UPDATE notes SET body = 1' 2>&1\n\
             until [ -e go ]; do sleep 0.1; done\n\
             {one} -c 'DELETE FROM notes WHERE id = 1' -c 'DELETE FROM notes WHERE id = 2' 2>&1\n"
        ),
    );
    let job = Job::start(installation.captured("release-bot", &["sh", &script]), "");
    let second = installation.open_approval("id = 2");
    let ask = |words: &[&str]| installation.interceptor(&[&["approvals", "ask"], words].concat());
    ask(&["DELETE FROM notes WHERE id = 1"]).failed().says("say --database");
    let asked = ask(&["--database", "orders", "DELETE FROM notes WHERE id = 1"]).succeeded();
    let asked = asked.says("asked: this needs approval").says("Nothing was executed");
    let first = installation.open_approval("id = 1");
    assert!(asked.stdout.contains(&first), "{asked}");
    ask(&["--database", "orders", "UPDATE notes SET body = 'x'"]).succeeded().says("needs no approval");
    ask(&["--database", "orders", "DROP TABLE notes"]).succeeded().says("dropped by migrations only");
    ask(&["--database", "orders", "--run", "r0000000000", "SELECT 1"]).failed().says("there is no live run");
    assert_eq!(stage.notes(), "1,2,3,4,5,6,7,8,9");
    stage.says("bob", &["approve", &first]).succeeded();
    stage.says("bob", &["approve", &second]).succeeded();
    std::fs::write(installation.work().join("go"), "").expect("a file");
    let finished = job.finish(PATIENCE).succeeded();
    assert_eq!(finished.stdout.matches("DELETE 1").count(), 2, "{finished}");
    assert!(!finished.text().contains("held:"), "{finished}");
    assert_eq!(finished.text().matches("its session only asks").count(), 2, "{finished}");
    assert_eq!(stage.notes(), "3,4,5,6,7,8,9");
    assert_eq!(stage.bed.admin("orders", "SELECT count(*) FROM notes WHERE body = 'x'"), "0");
    stage.finish();
}

/// A run that asks for more than anybody can answer is one request, and stands still until somebody says what becomes
/// of it.
#[test]
fn a_flood_freezes_its_run_until_somebody_decides() {
    let freezing = HOLDS.replacen("@hold(\"dba\")", "@hold(\"dba\") @flood(\"freeze\")", 1);
    let stage = Stage::with(|setup| setup.policy("20-holds.cedar", &freezing));
    let installation = &stage.installation;
    let flood = || {
        let loud: String = (1..=40).map(|n| format!("DELETE FROM notes WHERE id = {n};\n")).collect();
        let script = installation.script("flood.sql", &loud);
        let words = installation.psql_words(&["-f"]);
        let mut command = installation.captured("release-bot", &[words, vec![script.as_str()]].concat());
        command.env("PGOPTIONS", "-c interceptor.hold=return");
        Job::start(command, "")
    };
    let job = flood();
    let state = || installation.interceptor(&["ps"]).stdout;
    wait_until("the run to be frozen", PATIENCE, || state().contains("FROZEN"));
    let one = || {
        let all = installation.approvals();
        let mut floods = all.iter().filter(|one| one["card"]["about"] == "flood" && one["state"] == "open");
        let id = floods.next().and_then(|one| one["id"].as_str().map(str::to_owned));
        assert!(floods.next().is_none(), "{all:?}");
        id
    };
    let first = one().expect("a request");
    let before = installation.approvals().len();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(installation.approvals().len(), before, "nothing goes on");
    stage.says("alice", &["approve", &first]).failed().says("answerable for this agent");
    stage.says("bob", &["show", &first]).succeeded().says("FROZEN");
    // A policy that is loaded changes nothing of that.
    installation.put_policy("20-holds.cedar", &format!("{freezing}\n// another edition\n"));
    installation.interceptor(&["reload"]).succeeded();
    assert_eq!(one(), Some(first.clone()));
    stage.says("bob", &["approve", &first]).succeeded();
    // What waited is void by the new policy, so that there is room for more, until there is none again.
    wait_until("another request or the end", PATIENCE, || {
        one().is_some_and(|id| id != first) || !state().contains("release-bot")
    });
    if let Some(second) = one() {
        stage.says("eve", &["deny", &second, "--reason", "enough"]).succeeded();
    }
    let finished = job.finish(PATIENCE);
    assert!(finished.stderr.contains("frozen until a person says"), "{finished}");
    assert_eq!(stage.notes(), "1,2,3,4,5,6,7,8,9");
    // One that nobody lets go on is ended by a no.
    let job = flood();
    wait_until("the run to be frozen", PATIENCE, || state().contains("FROZEN"));
    let third = one().expect("a request");
    stage.says("bob", &["deny", &third, "--reason", "enough"]).succeeded();
    job.finish(PATIENCE).failed();
    wait_until("the record of it", PATIENCE, || {
        let told = installation.interceptor(&["audit", "tail", "-n", "300"]).succeeded().stdout;
        told.contains("FROZEN") && told.contains("KILLED")
    });
    stage.finish();
}
