//! Masking against a real server: what is shown, what stands for the rest, and to whom. That nothing leaks: `corpus.rs`.

use interceptor_tests::{
    Bed, Finished, Installation, Job, RunningBed, Setup, installation::DSN, places, process::PATIENCE, seeds,
};

pub(crate) const LABELS: &str = r#"
[label.secret]
columns = ["public.people.code", "public.people.tags", "public.things.kind", "*.*.*_code"]
mask = "redact"

[label.card]
columns = ["public.people.number"]
detect = ["card", "us_ssn"]
mask = "null"

[label.email]
detect = ["email"]
mask = "redact"
"#;

/// Everything but seeing: what is stopped is stopped by masking alone.
pub(crate) const EVERYTHING: &str = r#"
@id("everything")
permit (
    principal,
    action in [
        Action::"connect", Action::"data", Action::"schema", Action::"transaction", Action::"session.change",
        Action::"cancel", Action::"function.call", Action::"server.reach", Action::"maintenance", Action::"notify",
        Action::"access.change", Action::"resolve"
    ],
    resource
);
"#;

pub(crate) const SEEING: &str = r#"
@id("sees")
permit (principal, action in Action::"see", resource is Label in Resource::"orders");
"#;

/// A server with seeded values, and an installation with these rules that labels them.
pub(crate) fn stage(policies: &[&str]) -> (RunningBed, Installation) {
    let bed = Bed::default().with("shared_preload_libraries", "pg_stat_statements").run();
    bed.admin("orders", include_str!("../corpus/masking.sql"));
    let mut setup = Setup::of(&bed).labels(LABELS);
    for (place, policy) in policies.iter().enumerate() {
        setup = setup.policy(&format!("{}0-masking.cedar", place + 2), policy);
    }
    (bed, setup.start())
}

/// What a driver says of lists of statements, each statement in a line of JSON; `undone` keeps none of what they do.
pub(crate) fn driver(installation: &Installation, way: &[&str], cases: &[Vec<&str>]) -> Finished {
    let script = installation.script("masking.py", include_str!("../clients/masking.py"));
    let python = places::python().display().to_string();
    let words = [&[python.as_str(), &script, DSN], way].concat();
    let input = serde_json::to_string(cases).unwrap();
    let finished = Job::start(installation.captured("release-bot", &words), &input).finish(PATIENCE * 4);
    assert!(!finished.timed_out && finished.stdout.trim_end().ends_with("done"), "{finished}");
    finished
}

/// The same of single statements.
pub(crate) fn each(installation: &Installation, way: &str, statements: &[&str]) -> Finished {
    let cases: Vec<Vec<&str>> = statements.iter().map(|statement| vec![*statement]).collect();
    driver(installation, &[way], &cases)
}

/// Nothing that is seeded reached the client.
#[track_caller]
pub(crate) fn is_clean(finished: &Finished) {
    has_none_of(finished, &seeds::all());
}

/// None of these values reached the client.
#[track_caller]
pub(crate) fn has_none_of(finished: &Finished, values: &[&str]) {
    assert!(!finished.timed_out, "{finished}");
    assert_eq!(seeds::lines(&finished.text(), values), [] as [&str; 0]);
}

/// What is not labelled arrives as it is, whatever stands beside it.
#[test]
fn what_is_not_labelled_is_shown() {
    let (_bed, installation) = stage(&[EVERYTHING]);
    let finished = installation.psql(
        "SELECT id, name, code FROM people WHERE id = 1;\n\
         SELECT count(*), max(id), upper(max(name)) FROM people WHERE name LIKE 'name%';\n\
         SELECT number_of, harmless, name FROM renamed WHERE number_of = 2;\n\
         SELECT next FROM computed WHERE id = 1;\n\
         SELECT n.name, s.body FROM people n LEFT JOIN scratch s ON s.id = n.id WHERE n.id = 3 ORDER BY n.name;\n\
         SELECT nope FROM people;\n\
         COPY users (id, name) TO STDOUT;\n",
    );
    finished
        .says("1|name1|[secret]")
        .says("3|3|NAME3")
        .says("2|[secret]|name2")
        .says("name3|")
        .says("100\tuser100")
        .says("column \"nope\" does not exist");
    for way in ["psycopg-text", "psycopg-binary", "asyncpg"] {
        let finished = each(
            &installation,
            way,
            &["SELECT id, name, code, number FROM people WHERE id = 1", "SELECT * FROM users WHERE id = 7"],
        );
        assert!(finished.stdout.contains("(1, 'name1', '[secret]', None)"), "{finished}");
        assert!(finished.stdout.contains("(7, 'user7', '[email]')"), "{finished}");
    }
    installation.finish();
}

/// A table that is copied comes masked, however it is written.
#[test]
fn a_copied_table_is_masked() {
    let (_bed, installation) = stage(&[EVERYTHING]);
    let copied = |text: &str| installation.psql(&format!("{text};\n"));
    copied("COPY people (id, code, number, name) TO STDOUT").says("1\t[secret]\t\\N\tname1");
    copied("COPY people (code, id) TO STDOUT (FORMAT csv, HEADER)").says("code,id").says("[secret],3");
    copied("COPY talk (id, body, mails) TO STDOUT CSV").says("1,,{[email]}");
    copied("COPY scratch TO STDOUT");
    copied("COPY users (id, name) TO STDOUT CSV").says("7,user7");
    let binary = copied("COPY people (name, code) TO STDOUT BINARY");
    assert!(binary.stdout.contains("PGCOPY") && binary.stdout.contains("name2"), "{binary}");
    is_clean(&binary);
    // As an option says that is not followed.
    let refused = copied("COPY people (code) TO STDOUT (FORMAT csv, DELIMITER ';')");
    assert!(refused.stderr.contains("label.copy"), "{refused}");
    for text in [
        "COPY people TO STDOUT",
        "COPY talk TO STDOUT",
        "COPY heirs TO STDOUT (FORMAT csv)",
        "COPY parts_1 TO STDOUT (FORMAT binary)",
    ] {
        is_clean(&copied(text));
    }
    installation.finish();
}

/// What stands inside of values is masked there, and the rest of them shown.
#[test]
fn values_inside_of_values_are_masked_in_place() {
    let (_bed, installation) = stage(&[EVERYTHING]);
    let finished = installation.psql("SELECT tags FROM people WHERE id = 2;\nSELECT doc, mails FROM talk;\n");
    finished.says("{\"[secret]\"}").says("{\"m\": \"[email]\", \"n\": null}|{\"[email]\"}");
    for way in ["psycopg-text", "psycopg-binary", "asyncpg"] {
        let texts = ["SELECT tags FROM people WHERE id = 2", "SELECT mails, doc FROM talk"];
        let finished = each(&installation, way, &texts);
        assert!(finished.stdout.contains("['[secret]']"), "{finished}");
        assert!(finished.stdout.contains("['[email]']"), "{finished}");
        is_clean(&finished);
    }
    installation.finish();
}

/// Whoever may see sees; the record is masked all the same.
#[test]
fn a_rule_lets_see() {
    let (_bed, mut installation) = stage(&[EVERYTHING, SEEING]);
    let finished = installation.psql(
        "SELECT code, number FROM people WHERE code = 'zqx-pepper-' || 8812;\nSELECT body FROM talk;\nCOPY people (code) TO STDOUT;\n\
         SELECT id FROM people WHERE code = 'zqx-sesame-4711';\nCOPY (SELECT code FROM people) TO STDOUT;\nSELECT 'walter.white@example.org';\n",
    );
    finished.says("zqx-pepper-8812|4111111111111111").says("078-05-1120").says("zqx-tarragon-93");
    let records = installation.ended("COPY (");
    assert!(records.one("COPY (").verbs().contains(&"label.copy"));
    assert!(!records.one("COPY people").verbs().contains(&"label.copy"));
    let export = installation.interceptor(&["--json", "audit", "export", "--format", "jsonl"]).succeeded();
    assert_eq!(seeds::lines(&export.stdout, &seeds::all()), [] as [&str; 0]);
    is_clean(&installation.stop().expect("the daemon"));
    installation.finish();
}

/// A rule for one label shows that one alone, and a reload takes it away from sessions that are open.
#[test]
fn one_label_is_not_another() {
    let one = "@id(\"mail\") permit (principal, action == Action::\"see\", resource is Label in Resource::\"orders\") \
               when { resource.name == \"email\" };";
    let (_bed, installation) = stage(&[EVERYTHING, one]);
    let finished = installation.psql("SELECT body FROM talk;\nSELECT code FROM people WHERE id = 1;\nSELECT email FROM users WHERE id = 3;\n");
    let records = installation.ended("SELECT code FROM people");
    let why = installation
        .interceptor(&["why", &records.one("SELECT code FROM people").id().to_string()])
        .succeeded();
    let why = why.says("secret: columns that carry it").says("resource.name == \"secret\"");
    assert!(!why.stdout.contains("\"email\""), "{why}");
    let finished = finished.says("[secret]").says("user3@example.org");
    assert!(!finished.stdout.contains("078-05-1120"), "{finished}");
    installation.finish();
}

/// Equal values can be told to be equal after the daemon was started anew, and nobody else reads the key.
#[test]
fn digests_outlive_the_daemon() {
    let bed = Bed::start();
    let labels = "[label.email]\ncolumns = [\"public.users.email\"]\nmask = \"hash\"\n";
    let mut installation = Setup::of(&bed).labels(labels).start();
    let digest = |installation: &Installation| {
        installation.psql("SELECT email FROM users WHERE id = 3").succeeded().stdout.trim().to_owned()
    };
    let before = digest(&installation);
    assert!(before.len() == 32 && before.bytes().all(|byte| byte.is_ascii_hexdigit()), "{before:?}");
    installation.stop();
    installation.start();
    assert_eq!(digest(&installation), before);
    let key = std::fs::metadata(installation.places().authority().join("mask.key")).expect("the key's file");
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&key.permissions()) & 0o777, 0o600);
    installation.finish();
}

/// Where a label says so, how many rows a statement comes to is told nobody from whom it is hidden, of relations that bear it;
/// the record has it.
#[test]
fn what_a_hidden_label_decides_is_not_counted() {
    let filters = "@id(\"filters\") permit (principal, action == Action::\"label.filter\", resource is Label in Resource::\"orders\");";
    let bed = Bed::start();
    bed.admin(
        "orders",
        "SET ROLE app; CREATE TABLE people (id int, name text, code text);
         INSERT INTO people SELECT n, 'name', 'zqx-' || n FROM generate_series(1, 7) AS n; CREATE TABLE other (id int)",
    );
    let labels =
        "[label.secret]\ncolumns = [\"public.people.code\"]\nmask = \"redact\"\ncounts = \"hidden\"\n";
    let setup = Setup::of(&bed).labels(labels).policy("20-masking.cedar", EVERYTHING);
    let installation = setup.policy("30-filters.cedar", filters).start();
    let update = "UPDATE people SET name = 'x' WHERE code LIKE 'zqx-%'";
    let finished = installation.psql(&format!(
        "{update};\nUPDATE people SET name = 'y' WHERE id < 4;\nINSERT INTO other SELECT generate_series(1, 5);\n\
         SELECT name FROM people WHERE id = 1;\n"
    ));
    finished.says("UPDATE 0\nUPDATE 0\nINSERT 0 5\ny");
    for way in ["psycopg-simple", "psycopg-text", "psycopg-binary"] {
        let finished = each(&installation, way, &[update, "UPDATE other SET id = 0 WHERE id < 6"]);
        assert!(!finished.stdout.contains("UPDATE 7"), "{finished}");
        finished.says("UPDATE 0").says("UPDATE 5");
    }
    let finished = each(&installation, "asyncpg", &[update, "SELECT id, code FROM people WHERE id = 2"]);
    assert!(finished.stdout.contains("(2, '[secret]')"), "{finished}");
    let records = installation.ended("UPDATE people SET name = ? WHERE code");
    let updates = records.with("UPDATE people SET name = ? WHERE code");
    let counted = updates.iter().filter(|one| one.at("/outcome/rows") == 7).count();
    assert!(counted >= 5, "the record has {counted} with their counts: {:#?}", records.brief());
    installation.finish();
}
