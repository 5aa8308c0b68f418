//! Unmodified clients: connect, TLS, simple, extended, pipelined, cancelled and refused work.

use std::time::Duration;

use interceptor_tests::{
    Bed, Finished, Installation, Job, Setup,
    installation::DSN,
    places,
    process::{self, PATIENCE, wait_until},
};
use nix::sys::signal::Signal;

/// What every client must have printed, besides its own.
#[track_caller]
fn did_everything(finished: Finished, lines: &[&str]) {
    let finished = finished.succeeded();
    for line in ["connect: ok", "refused: 42501", "tables are dropped by migrations only", "after: "]
        .iter()
        .chain(lines)
    {
        assert!(finished.stdout.contains(line), "no {line:?} in {finished}");
    }
}

/// What the record must hold after any of the clients.
#[track_caller]
fn is_recorded(installation: &Installation, bed: &interceptor_tests::RunningBed) {
    let records = installation.ended("DROP TABLE users");
    let refused = records.with("DROP TABLE users");
    assert!(
        refused.iter().all(|drop| !drop.allowed() && drop.status() == "refused"),
        "{:#?}",
        records.brief()
    );
    assert!(refused.iter().any(|drop| drop.verbs().contains(&"schema.drop")));
    assert_eq!(refused[0].at("/request/agent/name"), "release-bot");
    assert_eq!(refused[0].at("/request/resource"), "orders");
    assert_eq!(refused[0].at("/request/principal/user"), "app");
    assert_eq!(refused[0].at("/request/guarantee"), "structural");
    assert!(!bed.log().contains("DROP TABLE users\""), "the server never saw the statement");
    assert_eq!(bed.admin("orders", "SELECT count(*) FROM users"), "100");
}

#[test]
fn psql() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let finished = installation.psql(
        "SELECT 'one', name FROM users WHERE id = 1;\n\
         SELECT 'two', 1 \\; SELECT 'three', 2;\n\
         DROP TABLE users;\n\
         BEGIN; INSERT INTO notes (body) VALUES ('kept out');\nDROP TABLE users;\nSELECT 1;\nROLLBACK;\n\
         PREPARE p(int) AS SELECT name FROM users WHERE id = $1;\nEXECUTE p(5);\n\
         SELECT 'after', count(*) FROM users;\n\
         SELECT ssl_in_use FROM (SELECT 'yes' AS ssl_in_use) AS x;\n\\conninfo\n",
    );
    let finished = finished.says("one|user1").says("three|2").says("42501").says("user5").says("after|100");
    let finished = finished.says("25P02").says("SSL connection");
    assert!(finished.stderr.contains("migrations only") && finished.stderr.contains("HINT:"), "{finished}");
    is_recorded(&installation, &bed);
    let records = installation.ended("'after'");
    assert_eq!(records.one("'one'").at("/outcome/rows"), 1);
    assert_eq!(records.one("kept out").status(), "completed");
    assert_eq!(bed.admin("orders", "SELECT count(*) FROM notes"), "0");
    installation.finish();
}

#[test]
fn psql_cancels_by_ctrl_c() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let words = installation.psql_words(&["-c", "SELECT count(*) FROM generate_series(1, 2000000000)"]);
    let job = Job::start(installation.captured("release-bot", &words), "");
    let active = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND query LIKE '%2000000000%' \
                  AND state = 'active'";
    wait_until("the query to run", PATIENCE, || bed.admin("orders", active) == "1");
    job.signal(Signal::SIGINT);
    job.finish(Duration::from_secs(60)).failed().says("57014");
    let records = installation.records_once("the cancel", |records| {
        records.agents().any(|exchange| exchange.verbs().contains(&"cancel"))
    });
    assert_eq!(records.one("2000000000").at("/outcome/code"), "57014");
    installation.finish();
}

#[test]
fn the_certificate_is_the_hosts_own_and_is_verified() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let authority = installation.interceptor(&["ca", "print"]).succeeded().stdout;
    assert!(authority.contains("BEGIN CERTIFICATE"));
    // Without the roots that `run` lays out, the same client does not believe it.
    let words = ["env", "-u", "PGSSLROOTCERT", "psql", "-X", "-d", DSN, "-c", "SELECT 1"];
    let finished = installation.run("release-bot", &words).failed();
    assert!(finished.stderr.contains("root certificate"), "{finished}");
    installation.finish();
}

#[test]
fn psycopg3() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    installation.script("cancelled.py", include_str!("../clients/cancelled.py"));
    let script = installation.script("psycopg3.py", include_str!("../clients/psycopg3.py"));
    let python = places::python().display().to_string();
    let lines = [
        "tls: True",
        "simple: user1",
        "extended: user7",
        "pipelined: user11 user12 user13",
        "cancelled: 57014",
    ];
    let finished = installation.run("release-bot", &[&python, &script]);
    did_everything(
        finished,
        &[&lines[..], &["refused-extended: 42501", "transaction: 25P02", "after: 100"]].concat(),
    );
    is_recorded(&installation, &bed);
    let records = installation.ended("SELECT name FROM users WHERE id = $1");
    let bound = records.with("SELECT name FROM users WHERE id = $1");
    let seven = bound.iter().find(|exchange| exchange.at("/request/action/binds/0/value") == "7");
    assert!(seven.is_some(), "the bind value is recorded: {:#?}", bound);
    assert_eq!(bed.admin("orders", "SELECT count(*) FROM notes"), "0", "the transaction was undone");
    installation.finish();
}

/// TLS without a word before it, and protocol 3.2 with its long cancel keys, end to end.
#[test]
fn the_newest_protocol() {
    let bed = Bed::newest().run();
    let installation = Setup::of(&bed).start();
    installation.script("cancelled.py", include_str!("../clients/cancelled.py"));
    let script = installation.script("newest.py", include_str!("../clients/newest.py"));
    let python = places::python().display().to_string();
    let lines = ["direct: True user7", "3.2: user7", "cancelled: 57014", "3.0: user7"];
    let finished = installation.run("release-bot", &[&python, &script]).succeeded();
    for line in lines {
        assert!(finished.stdout.contains(line), "no {line:?} in {finished}");
    }
    let records = installation.records_once("the cancel", |records| {
        records.agents().any(|exchange| exchange.verbs().contains(&"cancel"))
    });
    assert_eq!(records.one("2000000000").at("/outcome/code"), "57014");
    installation.finish();
}

#[test]
fn asyncpg() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let script = installation.script("asyncpg.py", include_str!("../clients/asyncpg.py"));
    let python = places::python().display().to_string();
    let lines =
        ["extended: user7", "pipelined: 3", "cancelled: ok", "refused-extended: 42501", "cursor: [1, 2, 3]"];
    did_everything(installation.run("release-bot", &[&python, &script]), &lines);
    is_recorded(&installation, &bed);
    installation.finish();
}

#[test]
fn pg8000() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let script = installation.script("pg8000.py", include_str!("../clients/pg8000.py"));
    let python = places::python().display().to_string();
    let lines =
        ["simple: user1", "extended: user7", "prepared: user11 user12 user13", "refused-extended: 42501"];
    did_everything(installation.run("release-bot", &[&python, &script]), &lines);
    is_recorded(&installation, &bed);
    installation.finish();
}

#[test]
fn node_postgres() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let script = installation.script("node-pg.cjs", include_str!("../clients/node-pg.cjs"));
    let mut command = installation.captured("release-bot", &["node", &script]);
    command.env("NODE_PATH", places::node_modules());
    let lines = ["simple: user1", "extended: user7", "queued: user11 user12 user13", "cancelled: 57014"];
    did_everything(process::run(command), &[&lines[..], &["refused-extended: 42501"]].concat());
    is_recorded(&installation, &bed);
    installation.finish();
}

#[test]
fn rust_client() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let client = places::rust_client().display().to_string();
    let lines = ["extended: user7", "pipelined: user11@example.org user12@example.org user13@example.org"];
    let finished = installation.run("release-bot", &[&client, "db.internal", "5432", "orders"]);
    did_everything(finished, &[&lines[..], &["cancelled: 57014"]].concat());
    is_recorded(&installation, &bed);
    installation.finish();
}
