//! `@undo`: what is about to change is kept as it was, exactly, or nothing is changed.

use std::process::Command;

use interceptor_tests::{
    Installation, Job, places,
    process::{PATIENCE, wait_until},
};

use nix::sys::signal::Signal;

use crate::approvals::Stage;

/// Whatever takes rows away, or what was in them, can be undone up to five rows; one kind of change is held besides.
const UNDO: &str = r#"
@id("undoable")
@undo("5")
permit (principal, action in [Action::"data.update", Action::"data.delete", Action::"data.truncate"], resource);

@id("some-wait")
@hold("dba")
@within("60s")
@undo("2")
forbid (principal, action == Action::"data.delete", resource is Table)
when { resource.name == "users" }
unless { context.approvals.dba >= 1 };
"#;

fn stage() -> Stage {
    let stage = Stage::with(|setup| setup.policy("20-holds.cedar", UNDO));
    stage.bed.admin(
        "orders",
        "CREATE TABLE odd (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \"a b\" text, n numeric(9, 3), f float8, \
         t timestamptz, b bytea, j jsonb, g int GENERATED ALWAYS AS (n::int) STORED); INSERT INTO odd (\"a b\", n, f, t, b, j) \
         VALUES ('it''s \\ \"q\"', 1.5, 0.1, '2024-02-29 12:00:00.123456+05:30', '\\x00ff5c27', '{\"a\": [1, null]}'), \
         (NULL, NULL, 'NaN', 'infinity', NULL, NULL), ('', 2, '-0', NULL, '', 'null'); ALTER TABLE odd OWNER TO app",
    );
    stage
}

pub(crate) fn checksum(stage: &Stage, table: &str) -> String {
    let sql = format!("SELECT md5(string_agg(t::text, '|' ORDER BY id)) FROM {table} AS t");
    stage.bed.admin("orders", &sql)
}

#[test]
fn what_changes_is_kept_as_it_was_and_what_cannot_be_is_refused() {
    let stage = stage();
    let before = checksum(&stage, "notes");
    let refused = [
        ("DELETE FROM notes WHERE id >= 1", "it changes more than the 5 rows"),
        ("DELETE FROM notes USING users WHERE notes.id = users.id", "it reads other tables"),
        ("DELETE FROM notes WHERE id IN (SELECT 1)", "has a query inside"),
        ("DELETE FROM notes WHERE random() < 2", "answers differently each time (random)"),
        ("UPDATE notes SET id = 20 WHERE id = 1", "it changes id, by which"),
        ("TRUNCATE notes", "it does more than change one table"),
        ("WITH d AS (DELETE FROM notes WHERE id = 1 RETURNING id) SELECT * FROM d", "not one plain"),
        ("DELETE FROM notes WHERE id = 1 \\; DELETE FROM notes WHERE id = 2", "send it alone"),
        (
            "SET datestyle = 'SQL, DMY'; DELETE FROM notes WHERE id = 1; RESET datestyle",
            "values lose something",
        ),
    ];
    let mut sql: String = refused.iter().map(|(text, _)| format!("{text};\n")).collect();
    sql += "DELETE FROM notes WHERE id >= 8 RETURNING id;\nBEGIN;\nUPDATE odd SET n = 7 WHERE id = 1;\nSAVEPOINT s;\n\
            UPDATE odd SET n = 8 WHERE id = 2;\nROLLBACK;\nSELECT 'after', 1;\n";
    let words = stage.installation.psql_words(&["-f", "-"]);
    let finished = Job::start(stage.installation.captured("release-bot", &words), &sql).finish(PATIENCE);
    for (text, why) in refused {
        assert!(finished.stderr.contains(why), "{text}: no {why:?} in {finished}");
    }
    for line in ["DELETE 2", "UPDATE 1", "behind a SAVEPOINT", "after|1"] {
        assert!(finished.text().contains(line), "no {line:?} in {finished}");
    }
    assert_eq!(stage.notes(), "1,2,3,4,5,6,7");
    assert_ne!(checksum(&stage, "notes"), before);
    let records = stage.installation.ended("'after'");
    let went = records.one("id >= 8");
    assert_eq!(went.at("/request/verdict/undo/rows"), 2);
    assert_eq!(went.at("/request/verdict/undo/sha256").as_str().map(str::len), Some(64));
    let images =
        records.0.iter().find(|one| one.is_gates_own() && one.statement().contains("FOR UPDATE OF notes"));
    assert_eq!(images.expect("the images are an exchange of their own").status(), "completed");
    stage.finish();
}

/// A row comes between the images and the statement: then the statement does more than can be undone.
#[test]
fn what_comes_in_between_is_caught() {
    let stage = stage();
    let before = checksum(&stage, "notes");
    std::thread::scope(|scope| {
        // Taking images goes on under this lock, deleting waits for it.
        let other = scope.spawn(|| {
            stage.bed.admin(
                "orders",
                "BEGIN; LOCK TABLE notes IN SHARE MODE; INSERT INTO notes (id, body) VALUES (100, 'new'); \
                 DO $$ BEGIN FOR i IN 1..1200 LOOP EXIT WHEN EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted); \
                 PERFORM pg_sleep(0.1); END LOOP; END $$; COMMIT",
            )
        });
        wait_until("the lock", PATIENCE, || {
            stage.bed.admin(
                "orders",
                "SELECT count(*) FROM pg_locks WHERE mode = 'ShareLock' AND relation = 'notes'::regclass",
            ) == "1"
        });
        let words = stage.installation.psql_words(&[
            "-c",
            "DELETE FROM notes WHERE id >= 8",
            "-c",
            "SELECT 'after', 1",
        ]);
        let finished = Job::start(stage.installation.captured("release-bot", &words), "").finish(PATIENCE);
        finished.says("rows came or went while it was under way: images were taken of 2").says("after|1");
        other.join().expect("the other session");
    });
    stage.bed.admin("orders", "DELETE FROM notes WHERE id = 100");
    assert_eq!(checksum(&stage, "notes"), before);
    stage.finish();
}

fn python(driver: &str) -> impl Fn(&Installation, &[&str]) -> Command {
    move |installation, steps| {
        let script = installation.script("hold.py", include_str!("../clients/hold.py"));
        let python = places::python().display().to_string();
        installation.captured("release-bot", &[&[python.as_str(), &script, driver], steps].concat())
    }
}

/// Values that are bound find the same rows, in text and in binary; a hold and its own ceiling come together with it.
fn drivers_are_imaged(command: impl Fn(&Installation, &[&str]) -> Command) {
    let stage = stage();
    stage.bed.admin("orders", "INSERT INTO users SELECT n, 'x', 'y' FROM generate_series(101, 110) AS n");
    let steps = [
        "once:DELETE FROM notes WHERE id >= $1 -- 8",
        "once:DELETE FROM notes WHERE id >= $1 AND body <> 'x' -- 1",
        "once:UPDATE odd SET n = n + 1, f = NULL WHERE id < $1 -- 3",
        "once:DELETE FROM users WHERE id > $1 -- 108",
        "once:DELETE FROM users WHERE id > $1 -- 105",
    ];
    let job = Job::start(command(&stage.installation, &steps), "");
    for _ in 0..2 {
        let id = stage.installation.open_approval("FROM users");
        stage.says("bob", &["approve", &id]).succeeded();
        wait_until("it to go", PATIENCE, || {
            let open = stage.installation.approvals();
            !open.iter().any(|one| one["id"] == id.as_str() && one["state"] == "open")
                || stage.bed.admin("orders", "SELECT count(*) FROM users WHERE id > 108") == "0"
        });
    }
    let finished = job.finish(PATIENCE).succeeded();
    for line in ["it changes more than the 5 rows", "it changes more than the 2 rows", "after: alive"] {
        assert!(finished.stdout.contains(line), "no {line:?} in {finished}");
    }
    assert_eq!(stage.notes(), "1,2,3,4,5,6,7");
    let records = stage.installation.ended("DELETE FROM users WHERE id >");
    for (text, rows) in [("id >= $1", 2), ("UPDATE odd", 2)] {
        let found = records.with(text);
        let went = found.iter().find(|one| one.allowed() && one.phase() == "execute").expect("it went");
        assert_eq!(
            (went.at("/request/verdict/undo/rows"), went.status()),
            (&rows.into(), "completed"),
            "{text}"
        );
    }
    stage.finish();
}

#[test]
fn psycopg_is_imaged() {
    drivers_are_imaged(python("psycopg"));
}

#[test]
fn asyncpg_is_imaged() {
    drivers_are_imaged(python("asyncpg"));
}

/// A stage on which an agent has sent this; the number of the record of the statement with this part.
fn sent(stage: &Stage, sql: &str, part: &str) -> String {
    let words = stage.installation.psql_words(&["-c", sql]);
    Job::start(stage.installation.captured("release-bot", &words), "").finish(PATIENCE).succeeded();
    stage.installation.ended(part).with(part).last().expect("its record").id().to_string()
}

fn undo(stage: &Stage, person: &str, arguments: &[&str]) -> interceptor_tests::Finished {
    let words = [&["undo"], arguments].concat();
    stage.logins.interceptor(person, stage.installation.root(), &words)
}

#[test]
fn an_undone_statement_leaves_the_rows_as_they_were() {
    let stage = stage();
    for (sql, table) in [
        ("DELETE FROM notes WHERE id >= 5", "notes"),
        ("DELETE FROM odd AS o WHERE o.id < 9", "odd"),
        (
            "UPDATE odd SET (n, f) = (n * 2, 7), \"a b\" = 'x', t = NULL, b = '\\x01', j = '1' WHERE id <= 3",
            "odd",
        ),
    ] {
        let before = checksum(&stage, table);
        let record = sent(&stage, sql, sql.get(..14).expect("long enough"));
        assert_ne!(checksum(&stage, table), before, "{sql}");
        // Root may look; only a person may do it.
        let shown = stage.installation.interceptor(&["undo", &record]).succeeded();
        let rows = shown
            .stdout
            .lines()
            .filter(|line| line.starts_with("INSERT ") || line.starts_with("UPDATE "))
            .count();
        assert_eq!(rows, if table == "notes" { 5 } else { 3 }, "{shown}");
        stage.installation.interceptor(&["undo", &record, "--run"]).failed().says("only a person may decide");
        undo(&stage, "alice", &[&record, "--run"]).failed().says("answerable for this agent");
        undo(&stage, "bob", &[&record, "--run"]).succeeded().says("are as they were before record");
        assert_eq!(checksum(&stage, table), before, "{sql}");
        undo(&stage, "eve", &[&record, "--run"]).failed().says("was used by bob");
        assert_eq!(checksum(&stage, table), before, "{sql}");
        stage.installation.interceptor(&["undo", &record]).succeeded().says("used by bob");
    }
    let records = stage.installation.records();
    let own: Vec<_> = records
        .0
        .iter()
        .filter(|one| one.is_gates_own() && one.statement().contains("INSERT INTO"))
        .collect();
    assert_eq!(own.len(), 8);
    assert!(own.iter().all(|one| !one.statement().contains("note ") && one.status() == "completed"));
    assert!(
        own[0].at("/request/verdict/reason").as_str().is_some_and(|reason| reason.contains("wanted by bob"))
    );
    stage.finish();
}

/// What has happened since is not overwritten, and what never lasted is not undone.
#[test]
fn what_has_changed_since_stays() {
    let stage = stage();
    let record = sent(&stage, "UPDATE odd SET n = 8 WHERE id <= 2", "UPDATE odd");
    stage.bed.admin("orders", "UPDATE odd SET j = '5' WHERE id = 2");
    let now = checksum(&stage, "odd");
    undo(&stage, "bob", &[&record, "--run"]).failed().says("a row was changed since");
    assert_eq!(checksum(&stage, "odd"), now);
    let record = sent(&stage, "DELETE FROM notes WHERE id = 9", "id = 9");
    stage.bed.admin("orders", "INSERT INTO notes VALUES (9, 'another')");
    let now = checksum(&stage, "notes");
    undo(&stage, "bob", &[&record, "--run"]).failed().says("duplicate key");
    assert_eq!(checksum(&stage, "notes"), now);
    let words = stage.installation.psql_words(&[
        "-c",
        "BEGIN",
        "-c",
        "DELETE FROM notes WHERE id = 8",
        "-c",
        "ROLLBACK",
    ]);
    Job::start(stage.installation.captured("release-bot", &words), "").finish(PATIENCE).succeeded();
    let record = stage.installation.ended("id = 8").one("id = 8").id().to_string();
    undo(&stage, "bob", &[&record, "--run"]).failed().says("did not last");
    let record = sent(&stage, "DELETE FROM notes WHERE id = 7", "id = 7");
    stage.bed.admin("orders", "ALTER TABLE notes RENAME TO kept; CREATE TABLE notes (id int, body text)");
    undo(&stage, "bob", &[&record, "--run"]).failed().says("its table is another one");
    assert_eq!(stage.bed.admin("orders", "SELECT count(*) FROM notes"), "0");
    stage.bed.admin("orders", "DROP TABLE notes; ALTER TABLE kept RENAME TO notes");
    undo(&stage, "bob", &["999999"]).failed().says("there are no images");
    undo(&stage, "bob", &[&record, "--run"]).succeeded();
    stage.finish();
}

/// A client that is killed while its change is enclosed leaves neither a transaction nor a lock behind, and its record
/// says how it ended.
#[test]
fn a_client_that_dies_in_the_middle_leaves_nothing_open() {
    let stage = stage();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            stage.bed.admin(
                "orders",
                "BEGIN; LOCK TABLE notes IN SHARE MODE; DO $$ BEGIN FOR i IN 1..1200 LOOP \
                 EXIT WHEN EXISTS (SELECT 1 FROM pg_class WHERE relname = 'go_on'); PERFORM pg_sleep(0.1); END LOOP; \
                 END $$; COMMIT",
            )
        });
        let words = stage.installation.psql_words(&["-c", "DELETE FROM notes WHERE id >= 8"]);
        let job = Job::start(stage.installation.captured("release-bot", &words), "");
        wait_until("the change to wait", PATIENCE, || {
            stage.bed.admin("orders", "SELECT count(*) FROM pg_locks WHERE NOT granted") != "0"
        });
        job.signal(Signal::SIGKILL);
        job.finish(PATIENCE);
        stage.bed.admin("orders", "CREATE TABLE go_on ()");
        other.join().expect("the other session");
    });
    wait_until("nothing to be open", PATIENCE, || {
        stage.bed.admin(
            "orders",
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state <> 'idle'",
        ) == "0"
    });
    let records = stage.installation.ended("id >= 8");
    let kept = stage.notes();
    let lasted = match records.one("id >= 8").status() {
        "completed" => kept == "1,2,3,4,5,6,7",
        "unknown" => true,
        other => panic!("{other}"),
    };
    assert!(lasted, "{kept} {:?}", records.brief());
    stage.finish();
}
