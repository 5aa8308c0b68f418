//! Who may approve: a person in a log-in session, for somebody else's agent; never a captured process, whatever it is
//! given or pretends.

use std::{os::unix::fs::PermissionsExt, process::Command};

use interceptor_tests::{
    Job,
    audit::{Exchange, Records},
    installation::DSN,
    places,
    process::{PATIENCE, wait_until},
};

use crate::approvals::Stage;

#[test]
fn only_people_approve_and_not_for_themselves() {
    let stage = Stage::new();
    let words = stage.installation.psql_words(&["-c", "UPDATE users SET email = name WHERE id = 3"]);
    let job = stage.until_it_passes(&words);
    let id = stage.installation.open_approval("UPDATE users");
    let approve = ["approve", &id];
    // Root without a session is nobody, though it may look.
    stage.installation.interceptor(&["approvals", "approve", &id]).failed().says("root alone is nobody");
    stage.installation.interceptor(&["approvals", "show", &id]).succeeded().says("user-updates-wait");
    stage.says("root", &approve).failed().says("knows nobody with uid 0");
    stage.says("alice", &approve).failed().says("answerable for this agent");
    stage.says("mallory", &approve).failed().says("in none of the groups");
    // Words without end decide nothing.
    let endless = "\u{1b}[2J no".repeat(9_000);
    let refused = stage.says("bob", &["deny", &id, "--reason", &endless]).failed();
    assert!(refused.text().len() < 2 * endless.len() && !refused.stdout.contains('\u{1b}'), "{refused}");
    stage.says("bob", &approve).succeeded();
    stage.says("bob", &approve).failed().says("nobody counts twice");
    // One of two: it still waits.
    let open = stage.installation.open_approval("UPDATE users");
    assert_eq!(open, id);
    stage.says("eve", &["show", &id]).succeeded().says("approved by bob").says("data.update public.users");
    stage.says("eve", &approve).succeeded();
    job.finish(PATIENCE).succeeded().says("UPDATE 1");
    stage.says("eve", &["approve", &id]).failed().says("used by record");
    assert_eq!(stage.bed.admin("orders", "SELECT email FROM users WHERE id = 3"), "user3");
    stage.finish();
}

/// Whoever decides sees how the like was decided, and what else the run did.
#[test]
fn a_request_is_shown_with_what_is_around_it() {
    let stage = Stage::new();
    let sql = "SELECT 'before';\nDELETE FROM notes WHERE id = 1;\nDELETE FROM notes WHERE id = 2;\nUPDATE users SET name = 'x' WHERE id = 3;\n";
    let words = stage.installation.psql_words(&["-f", "-"]);
    let job = Job::start(stage.installation.captured("release-bot", &words), sql);
    let first = stage.installation.open_approval("id = 1");
    stage.says("bob", &["deny", &first, "--reason", "not\u{1b}[2J that one"]).succeeded();
    let second = stage.installation.open_approval("id = 2");
    let shown = stage.says("bob", &["show", &second]).succeeded();
    let shown = shown
        .says("decided before")
        .says("denied: not\\u{1b}[2J that one by bob")
        .says("what else the run did");
    assert!(shown.stdout.contains("allowed SELECT 'before'"), "{shown}");
    println!("{}", shown.stdout);
    stage.says("bob", &["approve", &second]).succeeded();
    let third = stage.installation.open_approval("UPDATE users");
    let shown = stage.says("bob", &["show", &third]).succeeded();
    assert!(!shown.stdout.contains("decided before"), "nothing like it was: {shown}");
    job.finish(PATIENCE);
    stage.finish();
}

/// Hands in what no run has: the approvers' folder, a connection that was made outside, and the mount namespace.
const DOOR: &str = r#"
import array, os, socket, sys, time
door, runtime = sys.argv[1:]
inside = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
while inside.connect_ex(door) != 0:
    time.sleep(0.05)
folder = os.open(runtime, os.O_RDONLY | os.O_DIRECTORY)
outside = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
outside.connect(runtime + "/approvals.sock")
mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY)
rights = array.array("i", [folder, outside.fileno(), mounts])
inside.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
inside.recv(1)
"#;

#[test]
fn a_captured_root_approves_nothing() {
    let stage = Stage::new();
    let installation = &stage.installation;
    let words = installation.psql_words(&["-c", "DELETE FROM notes WHERE id = 1"]);
    let waiting = Job::start(installation.captured("release-bot", &words), "");
    let id = installation.open_approval("id = 1");
    // The one folder that a run and the host have in common.
    let porch = installation.work().join("porch");
    std::fs::create_dir(&porch).expect("a folder");
    std::fs::set_permissions(&porch, PermissionsExt::from_mode(0o777)).expect("its mode");
    let door = porch.join("door");
    let mut outside = Command::new("/usr/bin/python3");
    outside.args(["-c", DOOR]).arg(&door).arg(installation.places().runtime());
    let outside = Job::start(outside, "");
    let script = installation.script("pretend.py", include_str!("../clients/pretend.py"));
    let (door, root) = (door.display().to_string(), installation.root().display().to_string());
    let (product, uid) = (places::interceptor().display().to_string(), stage.logins.uid("bob").to_string());
    let mut command = installation.command(&["run", "--user", "root", "--agent", "release-bot", "--"]);
    command
        .args(["/usr/bin/python3", &script, &door, &id, &product, &root, &uid])
        .current_dir(installation.work());
    let finished = interceptor_tests::process::run(command).succeeded();
    outside.finish(PATIENCE).succeeded();
    let ways = [
        "socket",
        "product",
        "forged session",
        "product with it",
        "passed connection",
        "passed folder",
        "entered folder",
        "nsenter",
        "passed namespace",
    ];
    for way in ways {
        assert!(
            finished.stdout.lines().any(|line| line.starts_with(&format!("{way}: "))),
            "no {way} in {finished}"
        );
    }
    // What reached the daemon at all was turned away for what it is. Its sockets are none of the run's.
    for (way, why) in [
        ("passed connection", "another process than the one"),
        ("passed folder", "No such file"),
        ("entered folder", "Connection refused"),
    ] {
        let line = finished.stdout.lines().find(|line| line.starts_with(way)).unwrap_or_default();
        assert!(line.contains(why), "{line} in {finished}");
    }
    assert!(!finished.stdout.contains("decided") && !finished.stdout.contains("exit 0"), "{finished}");
    assert_eq!(installation.open_approval("id = 1"), id, "nothing was decided");
    // The same wish from the right place is heard.
    stage.says("bob", &["approve", &id]).succeeded();
    waiting.finish(PATIENCE).succeeded();
    let mode =
        std::fs::metadata(installation.places().control_socket()).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    stage.finish();
}

/// A guess is made where nothing of anybody's would run for it, and the statement itself never is.
#[test]
fn a_request_says_how_many_rows_the_server_guesses() {
    let stage = Stage::new();
    let admin = |sql| stage.bed.admin("orders", sql);
    admin("CREATE SCHEMA other; CREATE TABLE other.notes (id int); GRANT ALL ON SCHEMA other TO app");
    admin(
        "GRANT ALL ON other.notes TO app; INSERT INTO other.notes SELECT 1 FROM generate_series(1, 40); ANALYZE",
    );
    let rows = |text: &str, words: &[&str], guess: &str| {
        let job = Job::start(stage.installation.captured("release-bot", words), "");
        let id = stage.installation.open_approval(text);
        let shown = stage.says("bob", &["show", &id]).succeeded();
        let told = shown.stdout.lines().find(|line| line.trim_start().starts_with("rows")).expect("a guess");
        assert!(told.contains(guess), "{text}: {told}");
        stage.says("bob", &["deny", &id, "--reason", "no"]).succeeded();
        job.finish(PATIENCE);
    };
    let psql = |sql: &[&'static str]| stage.installation.psql_words(sql);
    rows("id > 0", &psql(&["-c", "DELETE FROM notes WHERE id > 0"]), "about 9,");
    let path = ["-c", "SET search_path = other, public", "-c", "DELETE FROM notes WHERE id = 1"];
    rows("id = 1", &psql(&path), "about 40,");
    let bound = format!(
        "import psycopg\nwith psycopg.connect('{DSN}', autocommit=True) as session:\n    session.execute('DELETE FROM notes WHERE id < %s', (4,))\n"
    );
    let python = places::python().display().to_string();
    let script = stage.installation.script("bound.py", &bound);
    rows("id < $1", &[&python, &script], "about ");
    // Whatever would run by planning it leaves a row behind.
    admin(
        "CREATE FUNCTION shout(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN upper($1); END'",
    );
    admin("CREATE INDEX ON notes (shout(body))");
    rows("id > 1", &psql(&["-c", "DELETE FROM notes WHERE id > 1"]), "no guess: notes is a view or foreign");
    assert_eq!(stage.notes(), "1,2,3,4,5,6,7,8,9", "nothing was carried out");
    let records = stage.installation.records_once("three guesses", |records| planned(records).count() == 3);
    for guess in planned(&records) {
        assert!(guess.is_gates_own() && !guess.statement().contains("id > 0"), "{}", guess.statement());
    }
    stage.finish();
}

fn planned(records: &Records) -> impl Iterator<Item = &Exchange> {
    records.0.iter().filter(|exchange| exchange.statement().contains("EXPLAIN (FORMAT JSON)"))
}

/// Values that a card masks are shown to those alone who may see them, and the record says so.
#[test]
fn whoever_may_see_a_label_sees_its_values_on_a_request() {
    let stage = Stage::with(|setup| {
        setup
            .labels("[label.secret]\ncolumns = [\"public.notes.body\"]\nmask = \"redact\"\n")
            .policy("30-labels.cedar", SEEING)
    });
    let words = stage.installation.psql_words(&["-c", "DELETE FROM notes WHERE body = 'note 3'"]);
    let job = Job::start(stage.installation.captured("release-bot", &words), "");
    let id = stage.installation.open_approval("DELETE FROM notes");
    let eve = stage.says("eve", &["show", &id]).succeeded().says("literals and values are masked here");
    let root = stage.installation.interceptor(&["approvals", "show", &id]).succeeded();
    assert!(!eve.stdout.contains("note 3") && !root.stdout.contains("note 3"), "{eve}\n{root}");
    let lines = |part: &str| -> Vec<String> {
        let all = stage.installation.interceptor(&["--json", "audit", "tail", "--all"]).succeeded().stdout;
        all.lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
    };
    assert_eq!(lines("was shown the values"), Vec::<String>::new());
    let bob = stage.says("bob", &["show", &id]).succeeded().says("that you were shown them is recorded");
    println!("{}", bob.stdout);
    bob.says("'note 3'");
    wait_until("the record of it", PATIENCE, || lines("was shown the values").len() == 1);
    let shown = lines("was shown the values").remove(0);
    assert!(shown.contains("bob") && shown.contains("hide: secret"), "{shown}");
    // Neither the statement nor the process that sent it is recorded with the value; whoever launched the run wrote it.
    let told = lines("note 3");
    assert!(told.iter().all(|line| line.contains("run-started")), "{told:#?}");
    stage.says("bob", &["approve", &id]).succeeded();
    job.finish(PATIENCE).succeeded().says("DELETE 1");
    stage.finish();
}

const SEEING: &str = r#"
@id("agents-filter")
permit (principal is Agent, action == Action::"label.filter", resource is Label in Resource::"orders");
@id("bob-sees")
permit (principal == Person::"bob", action == Action::"see", resource is Label in Resource::"orders");
"#;
