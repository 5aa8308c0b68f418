//! The glass is broken: policy is recorded and not carried out, for a while, until somebody looks at it.

use interceptor_tests::process::{PATIENCE, wait_until};

use crate::approvals::Stage;

/// Held by policy, and refused by it: neither happens while the glass is broken.
const STATEMENTS: [&str; 2] = ["DELETE FROM notes WHERE id = 1", "DROP TABLE IF EXISTS nothing_here"];

fn psql(stage: &Stage, sql: &str) -> interceptor_tests::Finished {
    let mut command =
        stage.installation.captured("release-bot", &stage.installation.psql_words(&["-c", sql]));
    command.env("PGOPTIONS", "-c interceptor.hold=return");
    interceptor_tests::process::run(command)
}

#[test]
fn while_the_glass_is_broken_everything_passes_and_is_recorded_so() {
    let stage = Stage::new();
    STATEMENTS.iter().for_each(|sql| drop(psql(&stage, sql).failed()));
    let installation = &stage.installation;
    let glass = |words: &[&str]| installation.interceptor(&[&["break-glass", "orders"], words].concat());
    glass(&["--reason", " ", "--for", "5m"]).failed().says("say why");
    glass(&["--reason", "pager", "--for", "2h"]).failed().says("at most an hour");
    stage
        .logins
        .interceptor(
            "bob",
            installation.root(),
            &["break-glass", "orders", "--reason", "pager", "--for", "5m"],
        )
        .failed()
        .says("only root breaks the glass");
    let broken = glass(&["--reason", "the pager\u{1b}[2J went", "--for", "5m"])
        .succeeded()
        .says("policy is not carried out for 300 s")
        .says("the pager\\u{1b}[2J went")
        .says("nobody was paged");
    let id = broken.stdout.split_whitespace().find(|word| word.starts_with('b') && word.len() == 12);
    let id = id.expect("its id").trim_end_matches(':').to_owned();
    STATEMENTS.iter().for_each(|sql| drop(psql(&stage, sql).succeeded()));
    assert_eq!(stage.notes(), "2,3,4,5,6,7,8,9");
    // Whatever dies, it lasts as long as was said.
    stage.kill_proxy();
    wait_until("the daemon to be back", PATIENCE, || {
        psql(&stage, "DELETE FROM notes WHERE id = 2").status.success()
    });
    stage.says("bob", &["review", &id, "--note", "fine"]).failed().says("still open");
    glass(&["--end"]).succeeded().says("is over");
    STATEMENTS.iter().for_each(|sql| drop(psql(&stage, sql).failed()));
    let records = installation.ended("DROP TABLE IF EXISTS nothing_here");
    let passed: Vec<_> =
        records.with("DROP TABLE IF EXISTS nothing_here").into_iter().filter(|one| one.allowed()).collect();
    assert_eq!(passed.len(), 1, "{passed:?}");
    assert_eq!(passed[0].at("/request/verdict/break_glass"), id.as_str());
    assert_eq!(passed[0].at("/request/verdict/would_be"), "denied");
    // It blocks the next until somebody else has looked at it.
    glass(&["--reason", "again", "--for", "1m"]).failed().says("blocks the next");
    stage.says("bob", &["list"]).succeeded().says("waits for its review");
    stage.says("bob", &["review", &id, "--note", " "]).failed().says("say what you found");
    stage.says("bob", &["review", &id, "--note", "one row, restored"]).succeeded().says("reviewed by bob");
    let broken = glass(&["--reason", "again", "--for", "1s"]).succeeded();
    broken.says("by uid 0 without a log-in session");
    let tail = || installation.interceptor(&["audit", "tail", "-n", "200"]).succeeded();
    wait_until("the end of its time", PATIENCE, || tail().stdout.contains("its time is over"));
    psql(&stage, "DELETE FROM notes WHERE id = 3").failed();
    let mut told = tail();
    for line in ["GLASS", "policy is carried out again, by uid 0", "its time is over", "reviewed by bob"] {
        told = told.says(line);
    }
    stage.finish();
}
