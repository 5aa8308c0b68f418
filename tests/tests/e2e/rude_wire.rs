//! Rudeness that the protocol allows: what nobody does comes out as with the server itself, or is refused; memory is
//! bounded, records are complete, and neighbours notice nothing.

use std::{fs, time::Duration};

use interceptor::helper::Accounts;
use interceptor_tests::{
    Bed, Installation, Job, RunningBed, Setup,
    process::{self, PATIENCE, wait_until},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// What the trials do beyond what most tests permit.
const POLICY: &str = r#"
@id("noise")
permit (principal, action in [Action::"notify", Action::"function.call"], resource in Resource::"orders")
when { context.phase != Phase::"connect" };
"#;

fn installation(bed: &RunningBed) -> Installation {
    bed.admin(
        "orders",
        "CREATE FUNCTION noisy(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RAISE NOTICE ''number %'', $1; RETURN $1; END'",
    );
    let installation = Setup::of(bed).policy("20-noise.cedar", POLICY).start();
    installation.script("wire.py", include_str!("../clients/wire.py"));
    installation.script("unkind.py", include_str!("../clients/unkind.py"));
    installation
}

fn trials(installation: &Installation, names: &[&str]) -> Job {
    let words = [&["/usr/bin/python3", "unkind.py"], names].concat();
    Job::start(installation.captured("release-bot", &words), "")
}

/// The process of a role, and a number of its in kB from /proc.
fn pid(installation: &Installation, role: &str) -> u32 {
    let roles = installation.roles();
    roles.iter().find(|(name, _)| name == role).unwrap_or_else(|| panic!("no {role} in {roles:?}")).1
}

fn anonymous_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process that lives");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

/// Every record ends, no session is left behind upstream, and the daemon is who it was.
fn all_is_well(installation: Installation, bed: &RunningBed, before: &[(String, u32)]) {
    installation.psql("SELECT 'still', count(*) FROM users;\n").says("still|100");
    // One that was started just now bears its parent's name for a moment.
    wait_until("every process of the daemon to be the same", PATIENCE, || installation.roles() == before);
    installation.records_once("every outcome", |records| {
        records.0.iter().all(|exchange| !exchange.status().is_empty())
    });
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
    wait_until("the sessions upstream to end", PATIENCE, || bed.admin("orders", sessions) == "0");
    installation.finish();
}

#[test]
fn what_nobody_does_comes_out_as_with_the_server() {
    let bed = Bed::start();
    let installation = installation(&bed);
    let before = installation.roles();
    let names = ["half_close", "byte_by_byte", "many_syncs", "many_portals", "held_cursor", "between_rows"];
    let finished = trials(&installation, &names).finish(PATIENCE).succeeded();
    assert_eq!(finished.stdout.matches(": done").count(), names.len(), "{finished}");
    all_is_well(installation, &bed, &before);
}

#[test]
fn a_copy_that_the_server_ends_in_the_middle() {
    let bed = Bed::start();
    let installation = installation(&bed);
    let before = installation.roles();
    trials(&installation, &["copy_breaks", "copy_is_left"]).finish(PATIENCE).succeeded();
    let records = installation.ended("left out");
    for (mark, count, code) in [
        ("broken out", 2, "22012"),
        ("broken in", 3, "22P02"),
        ("left in", 1, "57P01"),
        ("left out", 1, "57P01"),
    ] {
        let ended: Vec<_> = records
            .with(mark)
            .into_iter()
            .filter(|exchange| exchange.phase() != "prepare")
            .map(|exchange| (exchange.status().to_owned(), exchange.at("/outcome/code").clone()))
            .collect();
        assert_eq!(ended.len(), count, "{mark}: {:#?}", records.brief());
        assert!(ended.iter().all(|(_, said)| said == code), "{mark}: {ended:?}");
    }
    all_is_well(installation, &bed, &before);
}

#[test]
fn torn_connections_and_a_storm_of_cancels_leave_nothing_behind() {
    let bed = Bed::start();
    let installation = installation(&bed);
    let before = installation.roles();
    trials(&installation, &["resets", "cancel_storm"]).finish(Duration::from_secs(300)).succeeded();
    all_is_well(installation, &bed, &before);
}

/// A client that does not read is not buffered for: what it asked for waits in the server.
#[test]
fn a_client_that_reads_late_costs_bounded_memory() {
    let bed = Bed::start();
    let installation = installation(&bed);
    let before = installation.roles();
    let job = trials(&installation, &["reads_late"]);
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND wait_event = 'ClientWrite'";
    wait_until("both to wait for the client", PATIENCE, || bed.admin("orders", waiting) == "2");
    installation.psql("SELECT 'meanwhile', count(*) FROM users;\n").says("meanwhile|100");
    let anonymous = anonymous_kib(pid(&installation, "proxy"));
    assert!(anonymous < 64 << 10, "the proxy holds {anonymous} kB of its own, of results of 100 MB");
    installation.script("read-now", "");
    job.finish(Duration::from_secs(300)).succeeded().says("reads_late: done");
    all_is_well(installation, &bed, &before);
}

/// Waits until the client has seen rows, and forgets it.
fn rows_flow(installation: &Installation) {
    let sign = installation.work().join("rows-flow");
    wait_until("the rows to flow", PATIENCE, || sign.exists());
    fs::remove_file(sign).expect("a folder of the test's");
}

#[test]
fn a_server_that_goes_in_the_middle_of_a_result() {
    let bed = Bed::start();
    let installation = installation(&bed);
    let before = installation.roles();
    let active = "SELECT pid FROM pg_stat_activity WHERE usename = 'app' AND query LIKE '%''left''%' AND state = 'active'";
    // By the administrator's word: the server says why, and the client hears it.
    let job = trials(&installation, &["is_left"]);
    rows_flow(&installation);
    bed.admin("orders", &format!("SELECT pg_terminate_backend(({active}))"));
    job.finish(PATIENCE).succeeded().says("left: 57P01 terminating connection");
    // Without a word.
    let job = trials(&installation, &["is_left"]);
    rows_flow(&installation);
    let backend: i32 = bed.admin("orders", active).parse().expect("a process");
    kill(Pid::from_raw(backend), Signal::SIGKILL).expect("the server's process");
    let finished = job.finish(PATIENCE).succeeded();
    assert!(finished.stdout.contains("after rows"), "{finished}");
    wait_until("the server to recover", PATIENCE, || {
        bed.as_role("postgres", "postgres", "SELECT 1").status.success()
    });
    // Whether the server carried out what it did not answer, nobody knows.
    let records = installation.ended("'left'");
    let statuses: Vec<_> = records.with("'left'").iter().map(|exchange| exchange.status()).collect();
    assert!(
        statuses.len() == 2 && statuses.iter().all(|status| ["failed", "unknown"].contains(status)),
        "{statuses:?}"
    );
    all_is_well(installation, &bed, &before);
}

/// With hardly a file descriptor left, whoever cannot be served is turned away, and nobody else is hurt.
#[test]
fn a_crowd_without_file_descriptors() {
    let bed = Bed::start();
    let installation = installation(&bed);
    let before = installation.roles();
    let proxy = pid(&installation, "proxy").to_string();
    // A process's own user may lower its limits; root may not everywhere.
    let (user, group) = Accounts::find().proxy;
    let (user, group) = (format!("--reuid={user}"), format!("--regid={group}"));
    let limit = ["setpriv", &user, &group, "--clear-groups", "prlimit", "--pid", &proxy, "--nofile=64:64"];
    process::run(process::command(&limit)).succeeded();
    trials(&installation, &["crowd"]).finish(Duration::from_secs(300)).succeeded();
    all_is_well(installation, &bed, &before);
}
