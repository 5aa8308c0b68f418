//! Who may approve: a person in a log-in session, for somebody else's agent; never a captured process, whatever it is
//! given or pretends.

use std::{os::unix::fs::PermissionsExt, process::Command};

use interceptor_tests::{Job, places, process::PATIENCE};

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
        "nsenter",
        "passed namespace",
    ];
    for way in ways {
        assert!(
            finished.stdout.lines().any(|line| line.starts_with(&format!("{way}: "))),
            "no {way} in {finished}"
        );
    }
    // What reached the daemon at all was turned away for what it is.
    for (way, why) in
        [("passed connection", "another process than the one"), ("passed folder", "a captured process")]
    {
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
