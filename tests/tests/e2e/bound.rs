//! Labels that stay where they are, whatever happens to names.

use interceptor_tests::{Bed, Installation, RunningBed, Setup};

const LABELS: &str = r#"
[label.secret]
columns = ["public.people.code"]
mask = "redact"
"#;

/// Everything but seeing.
const EVERYTHING: &str = r#"
@id("everything")
permit (
    principal,
    action in [
        Action::"connect", Action::"data", Action::"schema", Action::"transaction", Action::"session.change",
        Action::"function.call", Action::"resolve"
    ],
    resource
);
"#;

const SCHEMA: &str = "
SET ROLE app;
CREATE TABLE people (id int PRIMARY KEY, name text, code text);
INSERT INTO people SELECT n, 'name' || n, 'zqx-' || n FROM generate_series(1, 3) AS n;
CREATE VIEW seen AS SELECT id, code AS harmless FROM people;
CREATE TABLE scratch (id int, body text, note text);
CREATE SCHEMA elsewhere;
";

fn stage(policies: &[&str]) -> (RunningBed, Installation) {
    let bed = Bed::start();
    bed.admin("orders", SCHEMA);
    let mut setup = Setup::of(&bed).labels(LABELS);
    for (place, policy) in policies.iter().enumerate() {
        setup = setup.policy(&format!("{}0-bound.cedar", place + 2), policy);
    }
    (bed, setup.start())
}

/// Renamed around us: column, table and schema. It stays hidden, over a restart of the daemon as well, and people are told.
#[test]
fn what_is_renamed_around_us_stays_hidden_and_is_told() {
    let (bed, mut installation) = stage(&[EVERYTHING]);
    installation.psql("SELECT code FROM people WHERE id = 1;\n").says("[secret]");
    bed.admin("orders", "ALTER TABLE people RENAME COLUMN code TO open");
    installation.psql("SELECT open, upper(open), name FROM people WHERE id = 1;\n").says("[secret]||name1");
    let told = |installation: &Installation, part: &str| {
        let tail = installation.interceptor(&["audit", "tail", "--all", "-n", "1000"]).succeeded();
        tail.stdout.lines().filter(|line| line.contains("LABEL") && line.contains(part)).count()
    };
    assert_eq!(told(&installation, "public.people.code"), 1);
    bed.admin("orders", "ALTER TABLE people RENAME TO folk; ALTER TABLE folk SET SCHEMA elsewhere");
    installation.stop();
    installation.start();
    let finished = installation.psql(
        "SELECT open FROM elsewhere.folk WHERE id = 2;\nSELECT harmless FROM seen WHERE id = 3;\nTABLE elsewhere.folk;\n\
         SELECT id FROM elsewhere.folk WHERE open LIKE 'zqx%';\n",
    );
    let finished = finished.says("[secret]").says("label").says("1|name1|[secret]");
    assert!(!finished.text().contains("zqx-"), "{finished}");
    assert_eq!(told(&installation, "is now elsewhere.folk.open"), 1);
    assert_eq!(told(&installation, "labels forget orders"), 2);
    // Another table of the old name is labelled by its name alone.
    bed.admin("orders", "SET ROLE app; CREATE TABLE people (id int, code text, open text); INSERT INTO people VALUES (1, 'zqx-1', 'plain')");
    installation.psql("SELECT code, open FROM people;\n").says("[secret]|plain");
    let forget = |column: &str| installation.interceptor(&["labels", "forget", "orders", column]);
    forget("elsewhere.folk.code").failed().says("called elsewhere.folk.code was bound");
    forget("folk").failed().says("SCHEMA.RELATION");
    forget("elsewhere.folk.open").succeeded().says("forgot 1 bindings");
    installation.psql("SELECT open FROM elsewhere.folk WHERE id = 2;\n").says("zqx-2");
    forget("public.people.code").succeeded();
    installation.psql("SELECT code FROM people;\n").says("[secret]");
    installation.finish();
}
