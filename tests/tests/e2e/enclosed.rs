//! Approvals of a shape: whatever has it passes, within a ceiling on the rows that are really changed or returned.

use std::process::Command;

use interceptor_tests::{Installation, Job, installation::DSN, places, process::PATIENCE};

use crate::approvals::Stage;

/// A read of one table waits too, and a table may be changed whose constraint is looked at when it is committed.
const READS: &str = r#"
@id("notes-wait")
@hold("dba")
@within("60s")
forbid (principal, action == Action::"data.read", resource is Table)
when { resource.name == "counter" }
unless { context.approvals.dba >= 1 };
"#;

fn checksum(stage: &Stage) -> String {
    stage.bed.admin("orders", "SELECT md5(string_agg(n::text, ',' ORDER BY id)) FROM notes AS n")
}

#[test]
fn a_shape_passes_within_its_ceiling_alone() {
    let stage = Stage::with(|setup| setup.policy("30-reads.cedar", READS));
    stage.bed.admin("orders", "INSERT INTO counter SELECT n, n FROM generate_series(1, 20) AS n");
    stage.bed.admin(
        "orders",
        "CREATE TABLE held (id int PRIMARY KEY); CREATE TABLE holds (id int REFERENCES held DEFERRABLE INITIALLY \
         DEFERRED); INSERT INTO held VALUES (1), (2); INSERT INTO holds VALUES (2); ALTER TABLE held OWNER TO app; \
         ALTER TABLE holds OWNER TO app",
    );
    let delete = |from: u32, to: u32| format!("DELETE FROM notes WHERE id >= {from} AND id < {to};\n");
    let sql = [
        delete(9, 10),
        delete(7, 9),
        delete(1, 7),
        "SELECT 'still here', count(*) FROM notes;\n".to_owned(),
        "BEGIN;\n".to_owned(),
        delete(6, 7),
        "SELECT 'in between', count(*) FROM notes;\n".to_owned(),
        delete(1, 6),
        "SELECT 1;\nCOMMIT;\n".to_owned(),
        "DELETE FROM notes WHERE id = -1 \\; DELETE FROM notes WHERE id = -2;\n".to_owned(),
        "DELETE FROM held WHERE id = 1;\nDELETE FROM held WHERE id = 2;\n".to_owned(),
        "SELECT n FROM counter WHERE id < 2;\nSELECT n FROM counter WHERE id < 9;\n".to_owned(),
        "SELECT 'after', 1;\n".to_owned(),
    ];
    let words = stage.installation.psql_words(&["-f", "-"]);
    let mut command = stage.installation.captured("release-bot", &words);
    command.env("PGOPTIONS", "-c client_min_messages=warning");
    let job = Job::start(command, &sql.concat());
    let first = stage.installation.open_approval("id >= 9");
    stage.says("bob", &["show", &first]).succeeded().says("with --shape").says("9, 10");
    stage.says("bob", &["approve", &first, "--shape", "--rows", "2"]).succeeded().says("at most 2 rows each");
    // Two statements in one frame have no shape, and wait by themselves.
    let both = stage.installation.open_approval("id = -1");
    stage.says("bob", &["approve", &both, "--shape"]).failed().says("approve this one alone");
    stage.says("bob", &["deny", &both, "--reason", "one by one"]).succeeded();
    let held = stage.installation.open_approval("held WHERE id = 1");
    stage.says("eve", &["approve", &held, "--shape", "--for", "10m"]).succeeded().says("for 600 s");
    let reads = stage.installation.open_approval("counter WHERE id < 2");
    stage.says("eve", &["approve", &reads, "--shape", "--rows", "3"]).succeeded();
    let finished = job.finish(PATIENCE);
    let text = finished.text();
    for line in [
        "DELETE 1",
        "DELETE 2",
        "it comes to 6 rows, and was approved for at most 2",
        "still here|6",
        "in between|5",
        "it comes to 5 rows, and was approved for at most 2",
        "current transaction is aborted",
        "denied by bob: one by one",
        "violates foreign key constraint",
        "it comes to more rows, and was approved for at most 3",
        "after|1",
    ] {
        assert!(text.contains(line), "no {line:?} in {finished}");
    }
    assert_eq!(
        stage.notes(),
        "1,2,3,4,5,6",
        "what broke its terms, or whose transaction did, was taken back"
    );
    assert_eq!(stage.bed.admin("orders", "SELECT string_agg(id::text, ',') FROM held"), "2");
    let records = stage.installation.ended("'after'");
    let over: Vec<_> = records.with("id >= 1 AND id < 7");
    let over = over.iter().find(|one| one.allowed()).expect("it was sent");
    assert_eq!((over.status(), over.at("/outcome/code").as_str()), ("failed", Some("42501")));
    assert_eq!(over.at("/request/verdict/approval/id"), first.as_str());
    let own: Vec<&str> =
        records.0.iter().filter(|one| one.is_gates_own()).map(|one| one.statement()).collect();
    for text in ["BEGIN", "COMMIT", "ROLLBACK"] {
        assert!(own.contains(&text), "{text} of ours is recorded");
    }
    stage.finish();
}

/// Who is not told how many rows there are is told so neither by what keeps to a ceiling, nor by what breaks it.
#[test]
fn a_ceiling_does_not_tell_what_is_not_counted() {
    let labels =
        "[label.secret]\ncolumns = [\"public.notes.body\"]\nmask = \"redact\"\ncounts = \"hidden\"\n";
    let stage = Stage::with(|setup| setup.labels(labels));
    let sql = "DELETE FROM notes WHERE id >= 9 AND id < 10;\nDELETE FROM notes WHERE id >= 7 AND id < 9;\n\
               DELETE FROM notes WHERE id >= 1 AND id < 7;\nSELECT 'after', 1;\n";
    let words = stage.installation.psql_words(&["-f", "-"]);
    let job = Job::start(stage.installation.captured("release-bot", &words), sql);
    let first = stage.installation.open_approval("id >= ?");
    stage.says("bob", &["approve", &first, "--shape", "--rows", "2"]).succeeded();
    let finished = job.finish(PATIENCE);
    let text = finished.text();
    assert_eq!(text.matches("DELETE 0").count(), 2, "{finished}");
    assert!(
        text.contains("it comes to other rows than was approved") && text.contains("after|1"),
        "{finished}"
    );
    for told in ["DELETE 1", "DELETE 2", "DELETE 6", " rows,", "6 rows", "at most 2"] {
        assert!(!text.contains(told), "{told} is told: {finished}");
    }
    assert_eq!(stage.notes(), "1,2,3,4,5,6");
    let records = stage.installation.ended("'after'");
    let told = records.with("DELETE FROM notes");
    assert!(told.iter().any(|one| one.at("/outcome/rows") == 2), "the record has it: {:#?}", records.brief());
    stage.finish();
}

/// What waits already is let go by an approval of its shape.
#[test]
fn what_waits_is_let_go_by_its_shape() {
    let stage = Stage::new();
    let script = stage.installation.script(
        "both.sh",
        &format!("for id in 1 2 3; do psql -X -A -t -d '{DSN}' -c \"DELETE FROM notes WHERE id = $id\" & done; wait\n"),
    );
    let job = Job::start(stage.installation.captured("release-bot", &["sh", &script]), "");
    for id in 1..=3 {
        stage.installation.open_approval(&format!("id = {id}"));
    }
    let one = stage.installation.open_approval("id = 2");
    stage.says("bob", &["approve", &one, "--shape", "--rows", "1"]).succeeded();
    let finished = job.finish(PATIENCE).succeeded();
    assert_eq!(finished.stdout.matches("DELETE 1").count(), 3, "{finished}");
    assert_eq!(stage.notes(), "4,5,6,7,8,9");
    stage.finish();
}

fn drivers_keep_it(command: impl Fn(&Installation, &[&str]) -> Command) {
    let stage = Stage::new();
    let before = checksum(&stage);
    let steps = [
        "once:DELETE FROM notes WHERE id >= $1 AND id < 100 -- 100",
        "once:DELETE FROM notes WHERE id >= $1 AND id < 100 -- 3",
        "once:DELETE FROM notes WHERE id >= 100",
        "once:DELETE FROM notes WHERE id >= 2",
        "once:DELETE FROM notes WHERE id >= $1 AND id < 100 -- 8",
    ];
    let job = Job::start(command(&stage.installation, &steps), "");
    let first = stage.installation.open_approval("id < 100");
    stage.says("bob", &["show", &first]).succeeded().says("100, $1");
    stage.says("bob", &["approve", &first, "--shape", "--rows", "2"]).succeeded();
    let second = stage.installation.open_approval("id >= 100");
    assert_eq!(checksum(&stage), before, "seven rows are more than two");
    stage.says("bob", &["approve", &second, "--shape", "--rows", "2"]).succeeded();
    let finished = job.finish(PATIENCE).succeeded();
    for line in [
        "42501 it comes to 7 rows, and was approved for at most 2",
        "42501 it comes to 8 rows, and was approved for at most 2",
        "after: alive",
    ] {
        assert!(finished.stdout.contains(line), "no {line:?} in {finished}");
    }
    assert_eq!(stage.notes(), "1,2,3,4,5,6,7");
    stage.finish();
}

#[test]
fn psycopg_keeps_to_a_ceiling() {
    drivers_keep_it(python("psycopg"));
}

#[test]
fn asyncpg_keeps_to_a_ceiling() {
    drivers_keep_it(python("asyncpg"));
}

fn python(driver: &str) -> impl Fn(&Installation, &[&str]) -> Command {
    move |installation, steps| {
        let script = installation.script("hold.py", include_str!("../clients/hold.py"));
        let python = places::python().display().to_string();
        installation.captured("release-bot", &[&[python.as_str(), &script, driver], steps].concat())
    }
}
