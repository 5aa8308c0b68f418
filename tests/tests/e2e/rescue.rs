//! What was saved as known to be good is in force for a while, whatever became of the policy or the daemon.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use interceptor_tests::{
    Bed, Finished, Installation, Job, RunningBed, Setup, cgroup,
    installation::{DSN, orders},
    leaks::cgroup_root,
    places,
    process::{PATIENCE, run, wait_until},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::masking::EVERYTHING;

const LABELS: &str = "[label.email]\ncolumns = [\"public.users.email\"]\nmask = \"redact\"\n";
const REFUSING: &str = "@id(\"broken\")\nforbid (principal, action == Action::\"connect\", resource);\n";
const EMAIL: &str = "user1@example.org";
const SELECT: &str = "SELECT email FROM users WHERE id = 1";
/// The same without its literal.
const RECORDED: &str = "SELECT email FROM users";

/// A server, and an installation that knows it as `orders`, chosen for a rescue, and as `ledger`, which is not.
fn stage() -> (RunningBed, Installation) {
    let bed = Bed::start();
    let plain = orders(&bed, "app", "scram-sha-256");
    let ledger = plain
        .replace("resource.orders", "resource.ledger")
        .replace("[\"db.internal\"]", "[\"ledger.internal\"]");
    let installation = Setup::empty()
        .resource(&plain.replace("env =", "rescue = \"unmasked\"\nenv ="))
        .resource(&ledger)
        .credential("orders", bed.secret())
        .labels(LABELS)
        .policy("10-test.cedar", EVERYTHING)
        .start();
    (bed, installation)
}

fn psql(installation: &Installation, host: &str) -> Finished {
    let source = DSN.replace("db.internal", host);
    installation.run("release-bot", &["psql", "-X", "-A", "-t", "-d", &source, "-c", SELECT])
}

/// What an agent reads of `orders`.
fn read(installation: &Installation) -> String {
    psql(installation, "db.internal").succeeded().stdout.trim().to_owned()
}

fn rescue(installation: &Installation, words: &[&str]) -> Finished {
    installation.interceptor(&[&["rescue"], words].concat())
}

/// The same from within the captured slice, as root.
fn captured(installation: &Installation, words: &[&str]) -> Finished {
    let cgroup = cgroup_root().join(installation.places().slice()).join("intruder");
    fs::create_dir(&cgroup).expect("the tests run as root");
    let mut command = installation.outside(&places::tool("sh"));
    let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", cgroup.display());
    command.args(["-c", &enter, "sh"]).arg(places::interceptor());
    command.arg("--root").arg(installation.root()).arg("rescue").args(words);
    let finished = run(command);
    cgroup::remove(&cgroup);
    finished
}

fn saved(installation: &Installation) -> PathBuf {
    installation.places().rescue().join("saved")
}

fn helper(installation: &Installation) -> u32 {
    let roles = installation.roles();
    roles.iter().find(|(role, _)| role == "helper").unwrap_or_else(|| panic!("no daemon: {roles:?}")).1
}

fn executable(installation: &Installation) -> PathBuf {
    fs::read_link(format!("/proc/{}/exe", helper(installation))).expect("it lives")
}

fn append(path: &Path, text: &str) {
    let file = OpenOptions::new().append(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).expect("the tests run as root");
}

#[test]
fn what_was_saved_is_in_force_for_what_was_chosen_and_says_so() {
    let (_bed, installation) = stage();
    let begin = ["--reason", "the new policy\u{1b}[2J refuses all", "--for", "10m"];
    rescue(&installation, &begin).failed().says("nothing is saved").says("rescue save");
    rescue(&installation, &["save"]).succeeded().says("is saved for a rescue, by root");
    rescue(&installation, &["check"]).succeeded().says("orders (UNMASKED); every other resource is refused");
    assert_ne!(read(&installation), EMAIL, "it is masked");

    installation.put_policy("99-broken.cedar", REFUSING);
    rescue(&installation, &["save"]).failed().says("reload` first");
    installation.interceptor(&["reload"]).succeeded();
    psql(&installation, "db.internal").failed().says("refused by rule broken");

    rescue(&installation, &["--reason", " ", "--for", "10m"]).failed().says("say why");
    rescue(&installation, &["--reason", "x", "--for", "25h"]).failed().says("24 hours");
    rescue(&installation, &["end"]).failed().says("no rescue lasts");
    captured(&installation, &begin).failed().says("this is a captured run");
    let begun =
        rescue(&installation, &begin).succeeded().says("the policy that was saved").says("orders (UNMASKED)");
    assert!(begun.stdout.starts_with("RESCUE ") && !begun.stdout.contains('\u{1b}'), "{begun}");
    let id = begun.stdout.split_whitespace().nth(1).expect("its id").to_owned();
    assert_eq!(read(&installation), EMAIL, "what was chosen is shown");
    psql(&installation, "ledger.internal").failed().says("ledger is not available now");
    for command in ["status", "ps"] {
        let said = installation.interceptor(&[command]).succeeded();
        assert!(said.stdout.starts_with(&format!("RESCUE      {id} until ")), "{said}");
    }
    installation.interceptor(&["reload"]).failed().says("rescue end");
    rescue(&installation, &["save"]).failed().says("nothing was saved");
    let records = installation.ended(RECORDED);
    let shown = records.with(RECORDED).into_iter().rfind(|one| one.allowed()).expect("it passed");
    assert_eq!(shown.at("/request/verdict/rescue"), id.as_str());
    let refused =
        records.0.iter().find(|one| one.at("/request/resource") == "ledger").expect("it was refused");
    assert_eq!(refused.at("/request/verdict/rescue"), id.as_str());
    assert!(refused.at("/request/verdict/rules/0").as_str().is_some_and(|rule| rule.starts_with("rescue (")));

    rescue(&installation, &["end"]).succeeded().says("is over; policy");
    psql(&installation, "db.internal").failed().says("refused by rule broken");
    append(&saved(&installation).join("etc/policies/10-test.cedar"), "\n");
    rescue(&installation, &begin)
        .failed()
        .says("was changed since it was saved")
        .says("interceptor rescue save");
    psql(&installation, "db.internal").failed().says("refused by rule broken");
    let mut told = installation.interceptor(&["audit", "tail", "-n", "200"]).succeeded();
    for line in ["RESCUE", "the new policy\\u{1b}[2J refuses all", "is saved for a rescue", "root ended it"] {
        told = told.says(line);
    }
    installation.finish();
}

#[test]
fn the_saved_daemon_takes_over_and_ends_closed_where_the_configuration_is_broken() {
    let (_bed, mut installation) = stage();
    rescue(&installation, &["save"]).succeeded();
    installation.stop();
    // Another build serves, and what is configured breaks.
    let other = installation.work().join("interceptor");
    fs::copy(places::interceptor(), &other).expect("own folder");
    append(&other, "\n");
    let mut command = installation.outside(&other);
    command.arg("--root").arg(installation.root()).arg("daemon");
    let daemon = Job::start(command, "");
    wait_until("it to serve", PATIENCE, || installation.interceptor(&["status"]).status.success());
    assert_eq!(executable(&installation), other);
    let agents = installation.places().configuration().join("agents.toml");
    let good = fs::read_to_string(&agents).expect("it is there");
    append(&agents, "nonsense");

    let binary = saved(&installation).join("interceptor");
    for _ in ["in the place of another", "where there is none"] {
        let begun = rescue(&installation, &["--reason", "the new build", "--for", "10m"]).succeeded();
        begun.says("the daemon that was saved serves");
        assert_eq!(executable(&installation), binary);
        assert_eq!(read(&installation), EMAIL);
        kill(Pid::from_raw(helper(&installation).cast_signed()), Signal::SIGKILL).expect("our daemon");
        wait_until("its roles to be gone", PATIENCE, || installation.roles().is_empty());
    }
    daemon.finish(PATIENCE).succeeded();
    // Whichever binary is started while it lasts: it is the saved one that serves.
    installation.start();
    assert_eq!(executable(&installation), binary);
    assert_eq!(read(&installation), EMAIL);

    let again = rescue(&installation, &["--reason", "for a moment more", "--for", "1s"]).succeeded();
    again.says("the policy that was saved");
    wait_until("it to be over", PATIENCE, || {
        let said = installation.interceptor(&["status"]).stdout;
        said.contains("is over, and what is configured cannot be loaded: everything is refused")
    });
    psql(&installation, "db.internal").failed().says("its rescue is over");
    installation.interceptor(&["reload"]).failed().says("agents.toml");
    fs::write(&agents, good).expect("the tests run as root");
    installation.interceptor(&["reload"]).succeeded();
    assert_ne!(read(&installation), EMAIL, "it is masked again");
    installation.finish();
}
