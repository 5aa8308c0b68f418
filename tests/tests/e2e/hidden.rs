//! Statements that hide what they do: each is judged for what it is.

use interceptor_tests::{Bed, Installation, RunningBed, Setup};

const GUARDED: &str = "the-guarded-value";

fn stage() -> (RunningBed, Installation) {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    (bed, installation)
}

/// Every way of the issue's list to read a guarded table or to drop one, as psql sends it; with a part of its text by
/// which the record is found.
const HIDDEN: &[(&str, &str)] = &[
    ("SELECT 1 \\; SELECT value FROM secrets \\; SELECT 2", "value FROM secrets"),
    ("SELECT * FROM ONLY secrets", "FROM ONLY secrets"),
    ("TABLE secrets", "TABLE secrets"),
    ("SELECT * FROM innocent", "innocent"),
    ("SELECT /* x */ value FROM/**/secrets -- y\n", "/**/secrets"),
    ("SELECT value FROM U&\"\\0073ecrets\"", "0073ecrets"),
    ("SELECT value FROM U&\"!0073ecrets\" UESCAPE '!'", "value FROM U&"),
    ("SELECT value FROM \"secrets\" AS users", "\"secrets\" AS users"),
    ("SELECT value FROM public . secrets", "public . secrets"),
    ("WITH users AS (SELECT value FROM secrets) SELECT * FROM users", "WITH users"),
    ("SELECT (SELECT value FROM secrets LIMIT 1)", "SELECT (SELECT"),
    ("SELECT * FROM users UNION ALL SELECT id, value, value FROM secrets", "UNION ALL"),
    ("SELECT peek()", "peek()"),
    ("DO $$ BEGIN PERFORM value FROM secrets; END $$", "PERFORM value"),
    ("DO 'BEGIN EXECUTE ''DROP TABLE users''; END'", "EXECUTE ''DROP"),
    ("EXPLAIN ANALYZE SELECT value FROM secrets", "EXPLAIN ANALYZE"),
    ("COPY secrets TO STDOUT", "COPY secrets"),
    ("COPY (SELECT value FROM secrets) TO STDOUT", "COPY (SELECT"),
    ("SELECT * FROM private.users", "private.users"),
    ("CREATE TEMP TABLE t AS SELECT value FROM secrets", "CREATE TEMP TABLE t"),
    ("SELECT value INTO TEMP t FROM secrets", "INTO TEMP t"),
    ("INSERT INTO notes (body) SELECT value FROM secrets RETURNING body", "INSERT INTO notes"),
    ("UPDATE notes SET body = value FROM secrets RETURNING body", "UPDATE notes"),
    ("DELETE FROM notes USING secrets RETURNING value", "USING secrets"),
    (
        "MERGE INTO notes USING secrets ON true WHEN NOT MATCHED THEN INSERT (body) VALUES (value)",
        "MERGE INTO",
    ),
    ("SELECT table_to_xml('secrets', true, false, '')", "table_to_xml"),
    ("SELECT query_to_xml('SELECT value FROM secrets', true, false, '')", "query_to_xml"),
    ("SELECT pg_read_file('PG_VERSION')", "pg_read_file"),
    ("SELECT lo_import('/etc/passwd')", "lo_import"),
    ("CREATE VIEW v AS SELECT value FROM secrets", "CREATE VIEW v"),
    ("CREATE RULE r AS ON SELECT TO notes DO INSTEAD SELECT * FROM secrets", "CREATE RULE r"),
    ("LOCK TABLE secrets", "LOCK TABLE secrets"),
    ("DROP TABLE IF EXISTS users", "IF EXISTS users"),
    ("drop\ttable\nusers cascade", "cascade"),
    ("ALTER TABLE users RENAME TO gone", "RENAME TO gone"),
    ("TRUNCATE secrets", "TRUNCATE secrets"),
];

#[test]
fn hidden_reads_and_drops_are_judged() {
    let (bed, installation) = stage();
    let text: String = HIDDEN.iter().map(|(sql, _)| format!("{sql};\n")).collect();
    let finished = installation.psql(&text);
    assert!(!finished.stdout.contains(GUARDED), "{finished}");
    assert!(!finished.timed_out, "{finished}");
    let records = installation.ended("TRUNCATE secrets");
    let mut passed = Vec::new();
    for (sql, part) in HIDDEN {
        let found = records.with(part);
        if found.is_empty() || found.iter().any(|exchange| exchange.allowed()) {
            passed.push(format!("{sql}: {} records", found.len()));
        }
    }
    assert!(passed.is_empty(), "not refused, or not recorded: {passed:#?}\n{finished}");
    let log = bed.statements("app").join("\n");
    assert!(!log.contains("secrets\""), "the server saw none of them");
    for line in log.lines() {
        assert!(!line.contains("value FROM") && !line.starts_with("DROP"), "the server saw {line:?}");
    }
    assert_eq!(bed.admin("orders", "SELECT count(*) FROM users"), "100");
    installation.finish();
}

#[test]
fn a_batch_is_judged_whole() {
    let (bed, installation) = stage();
    let finished = installation
        .psql("INSERT INTO notes (body) VALUES ('first') \\; DROP TABLE users \\; SELECT 'last';\n");
    assert!(finished.stderr.contains("42501") && !finished.stdout.contains("last"), "{finished}");
    assert_eq!(
        bed.admin("orders", "SELECT count(*) FROM notes"),
        "0",
        "nothing of the batch was carried out"
    );
    let records = installation.ended("DROP TABLE users");
    let places: Vec<_> =
        records.with("").iter().filter(|one| one.at("/request/place/1") == 3).map(|one| one.id()).collect();
    assert_eq!(places.len(), 3, "a record for each statement of the frame: {:#?}", records.brief());
    installation.finish();
}

#[test]
fn a_changed_search_path_changes_what_a_prepared_statement_reads() {
    let (_bed, installation) = stage();
    let finished = installation.psql(
        "PREPARE p AS SELECT name FROM users WHERE id = 1;\nEXECUTE p;\nSET search_path = private;\nEXECUTE p;\n\
         SELECT name FROM users;\nRESET search_path;\nEXECUTE p;\n",
    );
    assert!(finished.stdout.contains("user1"), "{finished}");
    assert!(!finished.stdout.contains(GUARDED), "{finished}");
    assert_eq!(finished.stderr.matches("42501").count(), 2, "{finished}");
    installation.finish();
}

#[test]
fn set_config_is_a_change_of_settings() {
    let (_bed, installation) = stage();
    let finished = installation.psql(
        "SELECT set_config('search_path', 'private', false);\n\
         SELECT set_config(name, 'private', false) FROM pg_settings WHERE name = 'search_path';\n\
         SELECT 'then', name FROM users WHERE id = 1;\n",
    );
    assert!(!finished.stdout.contains(GUARDED), "{finished}");
    let records = installation.ended("'then'");
    let named = records.one("set_config('search_path'");
    assert_eq!(named.verbs(), ["session.change"], "{:#?}", records.brief());
    assert_eq!(named.at("/request/action/facts/effects/0/target/setting"), "search_path");
    let unnamed = records.one("set_config(name");
    assert!(unnamed.verbs().contains(&"unknown") && !unnamed.allowed(), "{:#?}", records.brief());
    installation.finish();
}

#[test]
fn a_cursor_is_judged_where_it_is_declared() {
    let (_bed, installation) = stage();
    let finished = installation.psql(
        "BEGIN;\nDECLARE c CURSOR FOR SELECT value FROM secrets;\nFETCH ALL c;\nROLLBACK;\n\
         BEGIN;\nDECLARE d CURSOR FOR SELECT name FROM users ORDER BY id;\nFETCH 2 d;\nCOMMIT;\n",
    );
    assert!(finished.stdout.contains("user2") && !finished.stdout.contains(GUARDED), "{finished}");
    let records = installation.ended("FETCH 2 d");
    assert!(!records.one("DECLARE c").allowed() && records.one("DECLARE d").allowed());
    installation.finish();
}

#[test]
fn a_refusal_in_a_pipeline_fails_as_the_server_would() {
    let (bed, installation) = stage();
    let script = installation.script(
        "pipeline.py",
        r#"
import psycopg
DSN = "host=db.internal dbname=orders user=whoever password=whatever sslmode=verify-full"
with psycopg.connect(DSN, autocommit=True) as session:
    try:
        with session.pipeline():
            session.execute("INSERT INTO notes (body) VALUES (%s)", ["before"])
            session.execute("SELECT value FROM secrets WHERE id = %s", [1])
            session.execute("INSERT INTO notes (body) VALUES (%s)", ["behind"])
    except psycopg.Error as error:
        print("failed with", error.sqlstate)
    print("then", session.execute("SELECT count(*) FROM users").fetchone()[0])
"#,
    );
    let python = interceptor_tests::places::python().display().to_string();
    let finished = installation.run("release-bot", &[&python, &script]).succeeded();
    assert!(
        finished.stdout.contains("failed with 42501") && finished.stdout.contains("then 100"),
        "{finished}"
    );
    assert_eq!(
        bed.admin("orders", "SELECT count(*) FROM notes"),
        "0",
        "what came before is undone with the implicit transaction, what came behind is skipped"
    );
    let records = installation.ended("SELECT count(*) FROM users");
    let inserts = records.with("INSERT INTO notes");
    let done = inserts.iter().filter(|one| one.phase() == "execute" && one.status() == "completed");
    assert_eq!(done.count(), 1, "the server answered the first alone: {:#?}", records.brief());
    installation.finish();
}
