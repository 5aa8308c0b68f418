//! Unix sockets of databases on this host: what a run connects to by such a path is a resource, and judged as one.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    process::Command,
};

use interceptor_tests::{
    Bed, Installation, Job, RunningBed, Setup, Talker,
    installation::{agent_user, orders},
    places,
    process::{PATIENCE, run, wait_until},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User},
};

/// Where Debian's PostgreSQL has it, as clients spell it, and as resources.toml may.
const ASKED: &str = "/var/run/postgresql/.s.PGSQL.5432";
const LISTED: &str = "/run/postgresql/.s.PGSQL.5432";

/// At `orders` nobody sees addresses of mail.
const LABELS: &str =
    "[label.email]\nresources = [\"orders\"]\ncolumns = [\"public.users.email\"]\nmask = \"redact\"\n";

/// What reaches the server by its Unix socket, inspected and not.
const LOCAL: &str = r#"
@id("local")
permit (principal, action in [Action::"connect", Action::"data.read"], resource in Resource::"local");

@id("bare")
permit (principal, action == Action::"pass", resource == Resource::"bare");
"#;

/// `orders` by its Unix socket as well as by name, and the server's own socket as two more resources.
fn stage() -> (RunningBed, Installation) {
    let bed = Bed::default().admit("local all app scram-sha-256").run();
    let upstream = format!("unix:{}/.s.PGSQL.{}", bed.socket_folder().display(), bed.port());
    let by_both = orders(&bed, "app", "scram-sha-256").replacen(
        "hosts =",
        &format!("sockets = [{LISTED:?}]\nhosts ="),
        1,
    );
    let local = format!(
        "[resource.local]\nprotocol = \"postgres\"\nsockets = [\"/run/local/.s.PGSQL.5432\"]\n\
         upstream = {upstream:?}\ntls = {{ plaintext = \"its folder is the server's own\" }}\n\
         [[resource.local.credential]]\nuser = \"app\"\nsecret = {{ file = \"orders\" }}\n\
         [resource.bare]\nsockets = [\"/run/bare/.s.PGSQL.5432\"]\nupstream = {upstream:?}\n"
    );
    let setup = Setup::empty()
        .resource(&by_both)
        .resource(&local)
        .credential("orders", bed.secret())
        .labels(LABELS)
        .policy("10-test.cedar", interceptor_tests::installation::POLICY)
        .policy("20-local.cedar", LOCAL);
    (bed, setup.start())
}

/// One resource at a path that is no server's, and one at a path in the folder that runs work in. Nothing is logged in to.
fn bare_stage() -> (Installation, String) {
    let installation = Setup::empty().write();
    let path = installation.work().join("served").display().to_string();
    let resources = format!(
        "[resource.orders]\nprotocol = \"postgres\"\nhosts = [\"db.internal\"]\nsockets = [{LISTED:?}, {path:?}]\n"
    );
    fs::write(installation.places().configuration().join("resources.toml"), resources).expect("own file");
    (installation, path)
}

fn client(installation: &Installation, words: &[&str]) -> Vec<String> {
    installation.script("cancelled.py", include_str!("../clients/cancelled.py"));
    let script = installation.script("local_sockets.py", include_str!("../clients/local_sockets.py"));
    let python = places::python().display().to_string();
    [python, script].into_iter().chain(words.iter().map(|word| (*word).to_owned())).collect()
}

fn captured(installation: &Installation, words: &[String]) -> Command {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    installation.captured("release-bot", &words)
}

#[test]
fn a_database_is_reached_by_its_unix_socket_as_by_its_name() {
    let (bed, installation) = stage();
    let psql = |folder: &str, user: &str, sql: &str| {
        let words = ["psql", "-X", "-A", "-t", "-h", folder, "-U", user, "-d", "orders", "-f", "-"];
        Job::start(installation.captured("release-bot", &words), sql).finish(PATIENCE)
    };
    let sql = "SELECT name FROM users WHERE id = 1;\nSELECT email FROM users WHERE id = 1;\n\
               SELECT value FROM secrets;\nDROP TABLE users;\n";
    let finished = psql("/var/run/postgresql", "whoever", sql);
    assert_eq!(finished.stdout, "user1\n[email]\n", "{finished}");
    let _ = finished.says("the secrets are not for agents").says("tables are dropped by migrations only");

    let finished = run(captured(&installation, &client(&installation, &["driver", "/var/run/postgresql"])));
    let lines = ["tls: False", "extended: user7", "masked: [email]", "refused: 42501", "cancelled: 57014"];
    assert_eq!(finished.clone().succeeded().stdout.lines().collect::<Vec<_>>(), lines, "{finished}");

    // Upstream by the server's own socket: logged in to as over TCP, and where nothing is inspected, only passed.
    let finished = psql("/run/local", "whoever", "SELECT name FROM users WHERE id = 2;");
    assert_eq!(finished.stdout, "user2\n", "{finished}");
    let _ = psql("/run/local", "whoever", "DELETE FROM notes;").says("no rule permits it");
    assert_eq!(psql("/run/bare", "reader", "SELECT name FROM users WHERE id = 3;").stdout, "user3\n");
    let _ = psql("/run/elsewhere", "whoever", "SELECT 1;").says("No such file or directory");

    // Where something is labelled, a text has no values in it.
    let records = installation.ended("SELECT name FROM users WHERE id = ?");
    let exchange = records.one("SELECT name FROM users WHERE id = ?");
    let uid = User::from_name(&agent_user()).ok().flatten().expect("the agents' user").uid.as_raw();
    assert_eq!(exchange.at("/request/destination"), &format!("unix:{ASKED}"));
    assert_eq!(exchange.at("/request/client"), &serde_json::Value::Null);
    assert_eq!(exchange.at("/request/guarantee"), "structural");
    assert_eq!(exchange.at("/request/principal/user"), "app");
    assert_eq!(exchange.at("/request/process/uid"), uid);
    assert_eq!(exchange.at("/request/process/late"), false);
    let executable = exchange.at("/request/process/executable").as_str().unwrap_or_default();
    assert!(executable.ends_with("psql"), "{exchange:#?}");
    let refused = records.with("SELECT value FROM secrets");
    assert!(!refused.is_empty() && refused.iter().all(|exchange| !exchange.allowed()));
    let connects: Vec<_> = records.agents().filter(|exchange| exchange.phase() == "connect").collect();
    assert!(connects.iter().any(|connect| connect.at("/request/resource") == "orders"), "{connects:#?}");
    assert!(!bed.log().contains("secrets\""), "no statement on it got there");
    let seen = installation.interceptor(&["audit", "show", &exchange.id().to_string()]).succeeded();
    let _ = seen.says(&format!("unix:{ASKED}"));
    installation.finish();
}

#[test]
fn a_resources_unix_socket_is_a_socket_and_a_runs_own_goes_before_it() {
    let (mut installation, path) = bare_stage();
    installation.start();
    let lines = |part: &str, path: &str| -> Vec<String> {
        let finished = run(captured(&installation, &client(&installation, &[part, path]))).succeeded();
        finished.stdout.lines().map(str::to_owned).collect()
    };
    let shape = [
        "ready: True",
        "answer: True",
        "again: EISCONN",
        "peer: (0, 0, 0)",
        "packets: ENOENT",
        "datagram: ENOENT",
        "written otherwise: served",
        "relative: ENOENT",
        "upwards: ENOENT",
    ];
    assert_eq!(lines("shape", &path), shape);
    let own = [
        "before: served",
        "own: own",
        "linked: own",
        "left behind: ECONNREFUSED",
        "after: served",
        "a link to it: ENOENT ENOENT",
    ];
    assert_eq!(lines("own", &path), own);
    installation.finish();
}

/// Another thread changes the path while it is looked at, to that of somebody outside who listens.
#[test]
fn no_race_leads_from_a_resources_unix_socket_to_another() {
    let (mut installation, path) = bare_stage();
    installation.start();
    let other = installation.work().join("serveD").display().to_string();
    let words = client(&installation, &["race", &path, &other]);
    let mut racing = Job::start(captured(&installation, &words), "");
    // After the launch, so that it is not covered.
    wait_until("the run", PATIENCE, || !installation.runs().is_empty());
    let unready = format!("{other}.new");
    let outside = UnixListener::bind(&unready).expect("own folder");
    fs::set_permissions(&unready, fs::Permissions::from_mode(0o777)).expect("own file");
    fs::rename(&unready, &other).expect("own folder");
    outside.set_nonblocking(true).expect("own socket");
    wait_until("the end of the race", PATIENCE, || !racing.is_running());
    let finished = racing.finish(PATIENCE).succeeded().says("raced: 50");
    assert!(outside.accept().is_err(), "somebody came: {finished}");
    let told = installation.interceptor(&["audit", "tail", "--all", "-n", "1000"]).succeeded();
    let _ = told.says("serveD\", which is not the run's own; to serve it as a resource, list it");
    installation.finish();
}

#[test]
fn without_a_daemon_a_resources_unix_socket_is_refused() {
    let (mut installation, _) = bare_stage();
    installation.start();
    let mut agent = Talker::start(captured(&installation, &client(&installation, &["talk", ASKED])));
    assert_eq!(agent.say("", PATIENCE), "served");
    for (_, pid) in installation.roles() {
        let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
    }
    wait_until("the end of the daemon", PATIENCE, || installation.roles().is_empty());
    assert_eq!(agent.say("", PATIENCE), "ECONNREFUSED");
    installation.start();
    wait_until("the run, taken over", PATIENCE, || agent.say("", PATIENCE) == "served");
    drop(agent);
    wait_until("the end of the run", PATIENCE, || installation.runs().is_empty());
    installation.finish();
}
