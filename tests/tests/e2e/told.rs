//! What the catalogue told one session is told to others that ask as the same, and to nobody else.

use interceptor_tests::{Bed, Installation, Job, RunningBed, Setup, installation, process::PATIENCE};

use crate::masking::EVERYTHING;

/// `people` may be read in `public`, and in `other` not.
const FORBIDDEN: &str = "@id(\"others\")\nforbid (principal, action in Action::\"data\", resource is Table)\n\
    when { resource.schema == \"other\" };\n";

fn stage() -> (RunningBed, Installation) {
    let bed = Bed::start();
    bed.admin(
        "orders",
        "SET ROLE app; CREATE TABLE people (id int); INSERT INTO people VALUES (71); CREATE SCHEMA other;
         CREATE TABLE other.people (id int); INSERT INTO other.people VALUES (82)",
    );
    let orders = installation::orders(&bed, "app", "scram-sha-256");
    let orders = orders.replace("env = \"prod\"", "env = \"prod\"\nfacts_max_age = \"60s\"");
    let setup = Setup::empty().resource(&orders).credential("orders", bed.secret());
    let installation = setup.policy("20-told.cedar", EVERYTHING).policy("30-told.cedar", FORBIDDEN).start();
    (bed, installation)
}

/// How often it was asked what names mean, and as whom a session asks.
fn asked(bed: &RunningBed) -> (usize, usize) {
    let statements = bed.statements("app");
    let begin = |with: &str| statements.iter().filter(|text| text.starts_with(with)).count();
    (begin("/* interceptor: what the names"), begin("/* interceptor: as whom"))
}

#[test]
fn a_session_is_told_what_its_like_was_told_and_nothing_else() {
    const READ: &str = "SELECT id FROM people;\n";
    let (bed, installation) = stage();
    installation.psql(READ).says("71");
    assert_eq!(asked(&bed), (1, 0));
    installation.psql(READ).says("71");
    assert_eq!(asked(&bed), (1, 1), "it is the same");
    let words = installation.psql_words(&["-f", "-"]);
    let mut elsewhere = installation.captured("release-bot", &words);
    elsewhere.env("PGOPTIONS", "-c search_path=other");
    Job::start(elsewhere, READ).finish(PATIENCE).says("others");
    assert_eq!(asked(&bed), (2, 2), "the same text is another table there");
    // A table of the session's own hides the one that everybody knows.
    let own = format!("{READ}CREATE TEMP TABLE people (id int);\nINSERT INTO people VALUES (93);\n{READ}");
    installation.psql(&own).says("71").says("93");
    installation.psql(READ).says("71");
    let before = asked(&bed);
    // What nobody told us of: a new session has another path than the last one.
    bed.admin("orders", "ALTER ROLE app SET search_path TO other");
    installation.psql(READ).says("others");
    assert_eq!(asked(&bed), (before.0 + 1, before.1 + 1));
    installation.finish();
}

#[test]
fn of_many_sessions_that_ask_at_once_not_all_ask_the_server() {
    const MANY: usize = 16;
    let (bed, installation) = stage();
    let script = format!(
        "for i in $(seq {MANY}); do psql -X -A -t -d '{}' -c 'SELECT id FROM people' & done; wait",
        installation::DSN
    );
    let finished = installation.run("release-bot", &["sh", "-c", &script]).succeeded();
    assert_eq!(finished.stdout.matches("71").count(), MANY, "{finished}");
    let (names, viewers) = asked(&bed);
    assert!(names < MANY && viewers >= MANY / 2, "{names} asked for names, {viewers} who they are");
    installation.finish();
}
