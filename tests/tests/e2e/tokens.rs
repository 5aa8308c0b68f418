//! Tokens against a real server: they find their row, and tell nobody what they stand for.

use interceptor_tests::{
    Bed, Finished, Installation, Job, RunningBed, Setup, installation::DSN, places, process::PATIENCE,
};

use crate::masking::EVERYTHING;

const LABELS: &str = r#"
[label.secret]
columns = ["public.people.code", "*.*.*_code"]
mask = "token"

[label.phone]
columns = ["public.people.phone"]
mask = "token"
"#;

const SCHEMA: &str = r#"
SET ROLE app;
CREATE TABLE people (id int PRIMARY KEY, name text, code varchar(40) UNIQUE, phone text, note text);
INSERT INTO people VALUES (1, 'ada', 'zqx-sesame-4711', 'zqx-tel-1', 'a'), (2, 'bob', 'zqx''pepper\8812', 'zqx-tel-2', 'b'),
    (3, 'cy', 'zqx-tarragon-93', 'zqx-sesame-4711', 'c'), (4, 'dee', repeat('zqx-long-', 4), 'zqx-tel-4', 'd');
CREATE TABLE mine (id int, a_code text, body text);
CREATE VIEW seen AS SELECT id, code FROM people;
CREATE TABLE others (id int, note text, code text);
INSERT INTO others VALUES (1, 'x', 'zqx-sesame-4711');
CREATE FUNCTION tell(text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE NOTICE ''%'', $1; RETURN true; END';
"#;

/// What may not be seen anywhere. Each holds a sign that no token has, or is longer than a token's letters repeat by
/// chance: `zqx` alone stands in one random token of some seven hundred.
const SEEDED: [&str; 5] = ["sesame", "pepper", "tarragon", "zqx-", "zqx'"];

fn stage(policies: &[&str]) -> (RunningBed, Installation) {
    let bed = Bed::start();
    bed.admin("orders", SCHEMA);
    let mut setup = Setup::of(&bed).labels(LABELS);
    for (place, policy) in policies.iter().enumerate() {
        setup = setup.policy(&format!("{}0-tokens.cedar", place + 2), policy);
    }
    (bed, setup.start())
}

/// psql that reads tokens into variables before it goes on with `sql`.
fn psql(installation: &Installation, sql: &str) -> Finished {
    let reads = "SELECT code AS t1, phone AS p1 FROM people WHERE id = 1 \\gset\n\
                 SELECT code AS t2 FROM people WHERE id = 2 \\gset\n\
                 SELECT code AS t3, phone AS p3 FROM people WHERE id = 3 \\gset\n\\echo token: :t1\n";
    installation.psql(&format!("{reads}{sql}"))
}

#[track_caller]
fn is_clean(finished: &Finished) {
    let said = finished.text();
    for value in SEEDED {
        assert!(!said.contains(value), "{value}: {finished}");
    }
}

#[track_caller]
fn nothing_is_recorded(installation: &mut Installation) {
    let export = installation.interceptor(&["--json", "audit", "export", "--format", "jsonl"]).succeeded();
    let log = installation.stop().expect("the daemon");
    for value in SEEDED {
        assert!(!export.stdout.contains(value), "{value} is recorded");
        assert!(!log.text().contains(value), "{value} is logged");
    }
}

#[test]
fn a_token_finds_its_row_through_psql_and_no_other_run_has_it() {
    let (bed, mut installation) = stage(&[EVERYTHING]);
    let finished = psql(
        &installation,
        "SELECT 'a', id, name FROM people WHERE code = :'t1';\n\
         SELECT 'b', id FROM people p WHERE :'t2' = p.code;\n\
         SELECT 'c', id FROM people WHERE code = :'t1' OR code = :'t3' AND phone = :'p3' ORDER BY id;\n\
         SELECT 'd', count(*) FROM people WHERE NOT code = :'t1';\n\
         UPDATE people SET note = 'found' WHERE code = :'t2' RETURNING 'e', id, code = 'x', code;\n\
         BEGIN;\nDELETE FROM people WHERE code = :'t3' RETURNING 'f', id;\nROLLBACK;\n\
         SELECT 'g', m.id FROM people m WHERE m.id IN (SELECT id FROM people WHERE code = :'t1');\n\
         SELECT 'h', code = code FROM people WHERE id = 1;\n",
    );
    for row in ["a|1|ada", "b|2", "c|1\nc|3", "d|3", "e|2||tok_secret_", "f|3", "g|1"] {
        assert!(finished.stdout.contains(row), "{row}: {finished}");
    }
    is_clean(&finished);
    assert_eq!(bed.admin("orders", "SELECT note FROM people WHERE id = 2"), "found");
    let token = |finished: &Finished| {
        let line = finished.stdout.lines().find_map(|line| line.strip_prefix("token: ")).expect("a token");
        line.to_owned()
    };
    let first = token(&finished);
    assert!(first.starts_with("tok_secret_") && first.len() < 80, "{first}");
    // Another run has another, and cannot use this one.
    let other = psql(&installation, &format!("SELECT 'other', id FROM people WHERE code = '{first}';\n"));
    assert_ne!(token(&other), first);
    assert!(other.text().contains("label secret") && !other.stdout.contains("other|"), "{other}");
    // The record has neither, and says that there were some.
    let records = installation.ended("SELECT ?, id, name FROM people WHERE code = ?");
    let one = records.one("SELECT ?, id, name FROM people WHERE code = ?");
    assert_eq!(one.at("/request/verdict/tokens"), 1, "{:#?}", records.brief());
    installation.interceptor(&["why", &one.id().to_string()]).succeeded().says("1 in it went to the server");
    nothing_is_recorded(&mut installation);
    installation.finish();
}

fn driver(installation: &Installation, way: &str, steps: &[(&str, &[&str])]) -> Finished {
    let script = installation.script("tokens.py", include_str!("../clients/tokens.py"));
    let python = places::python().display().to_string();
    let words = [python.as_str(), &script, DSN, way];
    let mut all = vec![serde_json::json!("SELECT code FROM people WHERE id = 2")];
    all.extend(steps.iter().map(|step| serde_json::json!(step)));
    let input = serde_json::Value::from(all).to_string();
    let finished = Job::start(installation.captured("release-bot", &words), &input).finish(PATIENCE * 2);
    assert!(finished.stdout.trim_end().ends_with("done"), "{finished}");
    finished
}

fn drivers_find_the_row(way: &str) {
    let (bed, mut installation) = stage(&[EVERYTHING]);
    let finished = driver(
        &installation,
        way,
        &[
            ("SELECT id, name FROM people WHERE code = $1", &["{token}"]),
            ("SELECT id, name FROM people WHERE code = '{token}'", &[]),
            ("UPDATE people SET note = 'by token' WHERE code = $1", &["{token}"]),
            ("SELECT id FROM people WHERE code = $1", &["zqx-sesame-4711"]),
            ("SELECT id FROM people WHERE phone = $1", &["{token}"]),
            ("SELECT id FROM people WHERE code LIKE $1", &["{token}"]),
            ("SELECT id, code FROM people WHERE note = $1", &["{token}"]),
            ("SELECT id FROM people WHERE code = $1 || ''", &["{token}"]),
            ("SELECT id FROM people WHERE code = $1 AND code::int = 1", &["{token}"]),
            ("SELECT 1 / (id - id) FROM people WHERE code = $1", &["{token}"]),
        ],
    );
    let found = |number: usize, what: &str| {
        let begin = format!("{number} [");
        let lines: Vec<&str> = finished.stdout.lines().filter(|line| line.starts_with(&begin)).collect();
        assert_eq!(lines.len(), 2, "{number}: {finished}");
        assert!(lines.iter().all(|line| line.contains(what)), "{number}: {what}: {finished}");
    };
    found(0, "[(2, 'bob')]");
    found(1, "[(2, 'bob')]");
    found(2, "rows:");
    for refused in [3, 4, 5, 7, 8] {
        found(refused, "label");
    }
    found(6, "[]");
    found(9, "withheld");
    is_clean(&finished);
    assert_eq!(bed.admin("orders", "SELECT id FROM people WHERE note = 'by token'"), "2");
    installation.stop();
    installation.finish();
}

#[test]
fn a_token_finds_its_row_through_psycopg_in_text() {
    drivers_find_the_row("psycopg-text");
}

#[test]
fn a_token_finds_its_row_through_psycopg_in_binary() {
    drivers_find_the_row("psycopg-binary");
}

#[test]
fn a_token_finds_its_row_through_asyncpg() {
    drivers_find_the_row("asyncpg");
}

/// What a hostile agent makes of a token, to learn what it stands for: none of it is carried out with the value, whatever
/// is said of it.
const DECRYPTIONS: &[&str] = &[
    // Anywhere but in a comparison with its own column it is a text like others.
    "SELECT :'t1', length(:'t1'), upper(:'t1')",
    "SELECT code = :'t1' FROM people",
    "SELECT code = :'t1' AS same, id FROM people WHERE code = :'t1'",
    "INSERT INTO mine (id, body) VALUES (1, :'t1') RETURNING body",
    "SELECT body, length(body) FROM mine",
    "UPDATE people SET note = :'t1' WHERE code = :'t1' RETURNING note, length(note)",
    "SELECT id FROM people WHERE code < :'t1'",
    "SELECT id FROM people WHERE code LIKE :'t1'",
    "SELECT id FROM people WHERE code = :'t1' || ''",
    "SELECT id FROM people WHERE code = :'t1'::text",
    "SELECT id FROM people WHERE code = upper(:'t1')",
    "SELECT id FROM people WHERE (code, id) = (:'t1', 1)",
    "SELECT id FROM people WHERE code = ANY (ARRAY[:'t1'])",
    "SELECT id FROM people WHERE CASE WHEN code = :'t1' THEN length(:'t1') > 3 END",
    "SELECT id FROM people WHERE code = :'t1' OR code LIKE 'zqx-s%'",
    "SELECT id FROM people WHERE code = :'t1' ORDER BY code",
    // Another column, label, or relation.
    "SELECT id FROM people WHERE phone = :'t1'",
    "SELECT id FROM people WHERE code = :'p1'",
    "SELECT id, note FROM people WHERE note = :'t1'",
    "SELECT 'others', id FROM others WHERE code = :'t1'",
    "SELECT id FROM seen WHERE code = :'t1'",
    "SELECT q.code FROM people p, (SELECT note AS code FROM people) q WHERE q.code = :'t1'",
    "SELECT 'others', o.id FROM people p JOIN others o ON true WHERE o.code = :'t1' AND p.id = 1",
    "SELECT v.code FROM (VALUES ('zqx-guess')) AS v(code), people p WHERE v.code = :'t1'",
    "SELECT m.id FROM mine AS m(id, code), people p WHERE m.code = :'t1'",
    "WITH people AS (SELECT 1 AS id, 'x' AS code) SELECT id FROM people WHERE code = :'t1'",
    // What shows the text that the server has.
    "SELECT current_query(), id FROM people WHERE code = :'t1'",
    "SELECT query FROM pg_stat_activity, people WHERE code = :'t1'",
    "SELECT query, id FROM pg_stat_activity, people WHERE code = :'t1' AND pid = pg_backend_pid()",
    "EXPLAIN VERBOSE SELECT id FROM people WHERE code = :'t1'",
    "EXPLAIN ANALYZE SELECT id FROM people WHERE code = :'t1'",
    "PREPARE p AS SELECT id FROM people WHERE code = :'t1'",
    "EXECUTE p",
    // The twelfth word of either is a string.
    "PREPARE q(text, text, text, text, text) AS SELECT id, $5 AS said FROM people WHERE code = 'x' OR id = 1",
    "EXECUTE q ('a', 'b', 'c', 'd', :'t1')",
    "DECLARE c CURSOR WITH HOLD FOR SELECT id FROM people WHERE code = :'t1'",
    "SELECT statement FROM pg_prepared_statements",
    "SELECT statement FROM pg_cursors",
    "COPY (SELECT id FROM people WHERE code = :'t1') TO STDOUT",
    "CREATE VIEW v AS SELECT id FROM people WHERE code = :'t1'",
    "SELECT pg_get_viewdef('v')",
    "CREATE TABLE t AS SELECT id FROM people WHERE code = :'t1'",
    // Errors and notices that quote it.
    "SELECT id FROM people WHERE code = :'t1' AND tell(code)",
    "SELECT id FROM people WHERE code = :'t1' AND code::int = 1",
    "SELECT id FROM people WHERE code = :'t1' AND nope = 1",
    "SELECT 1 / (id - id) FROM people WHERE code = :'t1'",
    "UPDATE people SET id = 2 WHERE code = :'t1'",
    "SET client_min_messages = log",
    "SET debug_print_parse = on",
    "SET log_parameter_max_length_on_error = -1",
    "SELECT id FROM people WHERE code = :'t1'",
    // Cut, forged, doubled.
    "SELECT id FROM people WHERE code = left(:'t1', 30)",
    "SELECT id FROM people WHERE code = 'tok_secret_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'",
];

/// Whoever may filter learns no more from a token, either.
#[test]
fn no_token_is_decrypted_for_whoever_may_filter() {
    let filters = "@id(\"filters\") permit (principal, action == Action::\"label.filter\", resource is Label in Resource::\"orders\");";
    let (_bed, mut installation) = stage(&[EVERYTHING, filters]);
    let text: String = DECRYPTIONS.iter().map(|text| format!("{text};\n")).collect();
    let finished = psql(&installation, &(text + "SELECT 'the end', 1;\n"));
    assert!(finished.stdout.contains("the end|1"), "{finished}");
    is_clean(&finished);
    nothing_is_recorded(&mut installation);
    installation.finish();
}

#[test]
fn no_token_is_decrypted_elsewhere() {
    let (bed, mut installation) = stage(&[EVERYTHING]);
    let text: String = DECRYPTIONS.iter().map(|text| format!("{text};\n")).collect();
    let finished = psql(&installation, &(text + "SELECT 'the end', 1;\n"));
    assert!(finished.stdout.contains("the end|1"), "{finished}");
    assert!(!finished.stdout.contains("others|"), "{finished}");
    is_clean(&finished);
    assert_eq!(bed.admin("orders", "SELECT count(*) FROM mine WHERE body LIKE 'zqx%'"), "0");
    assert_eq!(bed.admin("orders", "SELECT count(*) FROM people WHERE note LIKE 'zqx%'"), "0");
    assert_eq!(bed.admin("orders", "SELECT count(*) FROM people WHERE note LIKE 'tok_secret_%'"), "1");
    nothing_is_recorded(&mut installation);
    installation.finish();
}

/// Names that mean something else when a prepared statement is carried out than when its token was replaced. Whatever is
/// said of it, it is not carried out.
#[test]
fn a_prepared_token_is_compared_with_nothing_else_later() {
    let moved = "its names do not mean any more";
    let (_bed, mut installation) = stage(&[EVERYTHING]);
    // By the rules, and where they are not carried out.
    for said in [moved, "42601"] {
        if said != moved {
            let glass = ["break-glass", "orders", "--reason", "a test", "--for", "5m"];
            installation.interceptor(&glass).succeeded();
        }
        for way in ["psycopg-binary", "asyncpg"] {
            let finished = driver(
                &installation,
                way,
                &[
                    ("SELECT id, name FROM people WHERE code = '{token}'", &[]),
                    ("SELECT id, name FROM people WHERE code = $1", &["{token}"]),
                    (
                        "CREATE TEMP TABLE IF NOT EXISTS people (id int, name text, code text, phone text)",
                        &[],
                    ),
                    ("INSERT INTO pg_temp.people VALUES (7, 'guessed', $1)", &["zqx'pepper\\8812"]),
                    ("SELECT id, name FROM people WHERE code = '{token}'", &[]),
                    ("SELECT id, name FROM people WHERE code = $1", &["{token}"]),
                ],
            );
            assert!(finished.stdout.contains("0 ['rows:', [(2, 'bob')]]"), "{way}: {finished}");
            assert!(!finished.stdout.contains("guessed"), "{way}: {finished}");
            for later in [said, "5 ['rows:', []]"] {
                assert!(finished.stdout.contains(later), "{way}: {later}: {finished}");
            }
        }
    }
    installation.stop();
    installation.finish();
}

/// Whoever may choose values and read their tokens could guess. So nobody may who may not filter.
#[test]
fn no_token_is_made_of_what_an_agent_chose() {
    let (_bed, mut installation) = stage(&[EVERYTHING]);
    let finished = psql(
        &installation,
        "SELECT 'zqx-sesame-4711' AS code;\n\
         SELECT code FROM people WHERE false UNION ALL SELECT 'zqx-sesame-4711';\n\
         INSERT INTO people (id, code) VALUES (9, 'zqx-guess') RETURNING code;\n\
         UPDATE people SET code = 'zqx-guess' WHERE id = 3 RETURNING code;\n\
         INSERT INTO mine (id, a_code) VALUES (1, 'zqx-sesame-4711') RETURNING a_code;\n\
         CREATE TEMP TABLE own AS SELECT 'zqx-sesame-4711'::text AS b_code;\n\
         SELECT 'own', b_code, :'t1' FROM own;\n\
         SELECT 'equal', b_code FROM own WHERE b_code = :'t1';\n\
         CREATE VIEW guess AS SELECT code FROM people UNION ALL SELECT 'zqx-sesame-4711';\n\
         SELECT 'view', code FROM guess;\n\
         SELECT 'view', code FROM seen;\n\
         COPY people (code) FROM STDIN;\nzqx-guess\n\\.\n",
    );
    let text = finished.text();
    let token = text.lines().find_map(|line| line.strip_prefix("token: ")).expect("a token");
    let own = text.lines().find(|line| line.starts_with("own|")).expect("a row");
    assert!(own.starts_with("own|tok_secret_"), "{finished}");
    assert!(!own.starts_with(&format!("own|{token}")), "a token of its own column: {finished}");
    assert!(!text.lines().any(|line| line.starts_with("equal|")), "{finished}");
    assert!(text.contains("view|[secret]") && !text.contains("view|tok"), "{finished}");
    assert!(text.matches("label secret").count() >= 4, "{finished}");
    installation.stop();
    installation.finish();
}

/// An image of rows is found by the statement's own text: with a token in it there would be none, so that it is refused.
#[test]
fn a_token_and_images_of_rows_do_not_go_together() {
    let undo = "@id(\"undo\") @undo(\"5\") permit (principal, action == Action::\"data.update\", resource);";
    let (bed, mut installation) =
        stage(&[&EVERYTHING.replace("Action::\"data\"", "Action::\"data.read\""), undo]);
    let finished = psql(
        &installation,
        "UPDATE people SET note = 'kept' WHERE id = 1;\nUPDATE people SET note = 'lost' WHERE code = :'t2';\n",
    );
    assert!(finished.text().contains("token in it"), "{finished}");
    is_clean(&finished);
    assert_eq!(bed.admin("orders", "SELECT count(*) FROM people WHERE note = 'kept'"), "1");
    assert_eq!(bed.admin("orders", "SELECT count(*) FROM people WHERE note = 'lost'"), "0");
    installation.stop();
    installation.finish();
}
