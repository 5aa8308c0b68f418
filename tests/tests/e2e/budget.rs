//! Budgets: a result that uses one up ends in the middle, and the count outlives a reload and the proxy.

use std::{
    os::unix::process::CommandExt,
    process::{Child, Stdio},
};

use interceptor_tests::{
    Bed, Installation, Records, Setup,
    installation::{DSN, POLICY},
    places,
    process::{PATIENCE, wait_until},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const ROWS: &str = "@id(\"hourly-rows\")\n@say(\"the hour's rows are used up\")\n\
                    forbid (principal, action == Action::\"data.read\", resource)\n\
                    when { context.spent.rows >= 1000 };\n";
const CHANGED: &str = "@id(\"hourly-changes\")\n@say(\"the hour's changes are used up\")\n\
                       forbid (principal, action == Action::\"data.update\", resource)\n\
                       when { context.spent.changed >= 50 };\n";

fn with(rule: &str) -> String {
    format!("{POLICY}\n{rule}")
}

fn psycopg(installation: &Installation, words: &[&str]) -> String {
    let script = installation.script("budget.py", include_str!("../clients/budget.py"));
    let python = places::python().display().to_string();
    let words = [&[python.as_str(), &script, DSN], words].concat();
    installation.run("release-bot", &words).succeeded().stdout
}

/// A captured psycopg that has read 900 rows and waits to be told to go on.
fn waiting(installation: &Installation) -> Child {
    let script = installation.script("budget.py", include_str!("../clients/budget.py"));
    let python = places::python().display().to_string();
    let mut command = installation.captured("release-bot", &[&python, &script, DSN, "wait"]);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).spawn().expect("run");
    wait_until("the first 900 rows", PATIENCE, || {
        let records = installation.records();
        let found = records.with("LIMIT 900");
        found.iter().any(|exchange| exchange.at("/outcome/rows").as_u64() == Some(900))
    });
    child
}

fn goes_on(mut child: Child) -> String {
    drop(child.stdin.take());
    let output = child.wait_with_output().expect("run");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_result_ends_where_the_budget_does() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).policy("20-budget.cedar", ROWS).start();
    for kind in ["simple", "extended"] {
        let said = psycopg(&installation, &["stream", kind]);
        assert!(said.contains("first: 1000 rows, then 42501 the hour's rows are used up"), "{kind}: {said}");
        assert!(said.contains("status: IDLE") && said.contains("usable: yes"), "{kind}: {said}");
        assert!(said.contains("next: 0 rows, then 42501"), "{kind}: {said}");
    }
    let said = psycopg(&installation, &["transaction"]);
    assert!(said.contains("first: 1000 rows, then 42501"), "{said}");
    assert!(said.contains("status: INERROR") && said.contains("inside: 25P02"), "{said}");
    assert!(said.contains("usable: IDLE"), "{said}");
    let records = installation.ended("users AS b");
    let cut: Vec<_> = records.with("users AS b").into_iter().filter(|one| one.status() == "failed").collect();
    assert_eq!(cut.len(), 3, "{:#?}", records.brief());
    for one in cut {
        assert!(one.allowed());
        assert_eq!(one.at("/outcome/rows"), 1000);
        assert_eq!(one.at("/outcome/code"), "42501");
        let message = one.at("/outcome/message").as_str().unwrap_or_default();
        assert!(message.contains("hourly-rows"), "{message}");
    }
    // The gate asked the server to stop, and says so.
    let cancels = |records: &Records| {
        let own = records.0.iter().filter(|one| one.is_gates_own() && one.verbs().contains(&"cancel"));
        own.count()
    };
    installation.records_once("three cancels", |records| cancels(records) == 3);
    installation.finish();
}

#[test]
fn psql_is_told_and_goes_on() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).policy("20-budget.cedar", ROWS).start();
    let finished = installation.psql(
        "SELECT 'short', id FROM users WHERE id = 7;\n\
         SELECT a.id FROM users AS a, users AS b;\n\
         BEGIN; ROLLBACK;\n\\echo still-here\n\
         SELECT 'late', id FROM users WHERE id = 7;\n",
    );
    let finished = finished.says("short|7").says("still-here").says("hour's rows are used up");
    assert!(!finished.stdout.contains("late|7"), "{finished}");
    assert!(finished.stderr.contains("42501") && finished.stderr.contains("answer ends here"), "{finished}");
    installation.finish();
}

#[test]
fn changes_beyond_the_budget_fail_their_transaction() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).policy("20-budget.cedar", CHANGED).start();
    let finished = installation.psql(
        "BEGIN;\nUPDATE users SET name = 'undone';\nSELECT 1;\nCOMMIT;\n\
         SELECT 'kept', count(*) FROM users WHERE name = 'undone';\n",
    );
    let finished = finished.says("hour's changes are used up").says("25P02").says("kept|0");
    assert!(finished.stdout.contains("ROLLBACK"), "{finished}");
    // Outside of a transaction it is done when its count is known: the next one is refused.
    let finished = installation.psql(
        "UPDATE users SET name = 'once';\nUPDATE users SET name = 'twice';\n\
         SELECT 'once', count(*) FROM users WHERE name = 'once';\n",
    );
    let finished = finished.says("UPDATE 100").says("once|100");
    assert!(finished.stderr.contains("hour's changes are used up"), "{finished}");
    installation.finish();
}

#[test]
fn what_was_spent_before_a_reload_counts_after_it() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let child = waiting(&installation);
    installation.put_policy("10-test.cedar", &with(ROWS));
    installation.interceptor(&["reload"]).succeeded();
    let said = goes_on(child);
    assert!(said.contains("first: 900 rows\n"), "{said}");
    assert!(said.contains("second: 100 rows, then 42501"), "{said}");
    installation.finish();
}

#[test]
fn what_was_spent_before_the_proxy_died_counts_after_it() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).policy("20-budget.cedar", ROWS).start();
    let child = waiting(&installation);
    let proxy = |installation: &Installation| {
        installation.roles().into_iter().find(|(role, _)| role == "proxy").map(|(_, pid)| pid)
    };
    let before = proxy(&installation).expect("a proxy");
    kill(Pid::from_raw(before.cast_signed()), Signal::SIGKILL).expect("it lives");
    wait_until("another proxy", PATIENCE, || proxy(&installation).is_some_and(|now| now != before));
    let said = goes_on(child);
    assert!(said.contains("second: 100 rows, then 42501"), "{said}");
    installation.finish();
}
