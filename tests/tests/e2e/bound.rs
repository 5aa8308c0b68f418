//! Labels that stay where they are, whatever happens to names.

use interceptor_tests::{
    Bed, Installation, RunningBed, Setup, installation,
    process::{PATIENCE, wait_until},
};

use crate::masking::EVERYTHING;

const LABELS: &str = r#"
[label.secret]
columns = ["public.people.code"]
mask = "redact"
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
    let told = |installation: &Installation, part: &str, times: usize| {
        wait_until(&format!("{times} events with {part:?}"), PATIENCE, || {
            let tail = installation.interceptor(&["audit", "tail", "--all", "-n", "1000"]).succeeded();
            tail.stdout.lines().filter(|line| line.contains("LABEL") && line.contains(part)).count() == times
        });
    };
    told(&installation, "public.people.code", 1);
    bed.admin("orders", "ALTER TABLE people RENAME TO folk; ALTER TABLE folk SET SCHEMA elsewhere");
    installation.stop();
    installation.start();
    let finished = installation.psql(
        "SELECT open FROM elsewhere.folk WHERE id = 2;\nSELECT harmless FROM seen WHERE id = 3;\nTABLE elsewhere.folk;\n\
         SELECT id FROM elsewhere.folk WHERE open LIKE 'zqx%';\n",
    );
    let finished = finished.says("[secret]").says("label").says("1|name1|[secret]");
    assert!(!finished.text().contains("zqx-"), "{finished}");
    told(&installation, "is now elsewhere.folk.open", 1);
    told(&installation, "labels forget orders", 2);
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

const COPYING: &str = r#"
@id("copies")
permit (principal, action in [Action::"label.copy", Action::"label.filter"], resource is Label in Resource::"orders");
"#;

/// Ways to copy what is labelled, each with what then shows that it went there, and what must be shown of it.
const COPIES: &[(&str, &str, &str)] = &[
    (
        "CREATE TABLE c1 AS SELECT id, code AS c FROM people",
        "SELECT id, c FROM c1 WHERE id = 1",
        "1|[secret]",
    ),
    (
        "CREATE TEMP TABLE c2 AS SELECT upper(code) AS c, name FROM people",
        "SELECT c, name FROM c2 ORDER BY name LIMIT 1",
        "[secret]|name1",
    ),
    ("SELECT code AS c, id INTO c3 FROM people", "SELECT c, id FROM c3 WHERE id = 2", "[secret]|2"),
    (
        "CREATE TABLE c4 (a, b) AS SELECT * FROM (SELECT id, code FROM people) q",
        "SELECT b FROM c4 WHERE true",
        "[secret]",
    ),
    (
        "INSERT INTO scratch (note, id) SELECT code, id FROM people",
        "SELECT id, body, note FROM scratch WHERE id = 1",
        "1||[secret]",
    ),
    (
        "INSERT INTO t5 SELECT id, code || '!' FROM people RETURNING id, body, upper(body)",
        "SELECT id, body FROM t5 WHERE id = 3",
        "3|[secret]",
    ),
    (
        "UPDATE t6 SET body = p.code FROM people p WHERE p.id = t6.id RETURNING body, note",
        "SELECT body, note FROM t6",
        "[secret]|plain",
    ),
    (
        "MERGE INTO t7 USING people p ON t7.id = p.id WHEN MATCHED THEN UPDATE SET note = p.code WHEN NOT MATCHED THEN INSERT (id, body) VALUES (p.id, p.name)",
        "SELECT id, body, note FROM t7 WHERE id = 1",
        "1|plain|[secret]",
    ),
    (
        "INSERT INTO t8 (id, body) SELECT id, code FROM people ON CONFLICT (id) DO UPDATE SET note = excluded.body",
        "SELECT body, note FROM t8 WHERE id = 1",
        "[secret]|[secret]",
    ),
    (
        "PREPARE taking AS INSERT INTO t9 SELECT id, code FROM people; EXECUTE taking",
        "SELECT id, body FROM t9 WHERE id = 1",
        "1|[secret]",
    ),
    (
        "BEGIN; CREATE TABLE c10 AS SELECT code AS c FROM people; SELECT c FROM c10 LIMIT 1; COMMIT",
        "SELECT c FROM c10 LIMIT 1",
        "[secret]",
    ),
    (
        "ALTER TABLE people ALTER COLUMN name TYPE text USING code",
        "SELECT name FROM people WHERE id = 1",
        "[secret]",
    ),
    ("INSERT INTO shown SELECT id, code FROM folk", "SELECT body FROM t11 WHERE id = 1", "[secret]"),
    ("INSERT INTO part_1 SELECT id, code FROM folk", "SELECT body FROM parts WHERE id = 1", "[secret]"),
    ("INSERT INTO again SELECT id, c FROM c1", "SELECT body FROM again WHERE id = 1", "[secret]"),
    (
        "WITH q AS (UPDATE t12 SET body = code FROM folk WHERE folk.id = t12.id RETURNING body) SELECT body, body || '' FROM q",
        "SELECT body FROM t12",
        "[secret]",
    ),
];

const TARGETS: &str = "
SET ROLE app;
CREATE TABLE t5 (id int, body text); CREATE TABLE t6 (id int, body text, note text); INSERT INTO t6 VALUES (1, '', 'plain');
CREATE TABLE t7 (id int, body text, note text); INSERT INTO t7 VALUES (1, 'plain', '');
CREATE TABLE t8 (id int PRIMARY KEY, body text, note text); INSERT INTO t8 VALUES (1, 'plain', '');
CREATE TABLE t9 (id int, body text); CREATE TABLE t11 (id int, body text); CREATE VIEW shown AS SELECT id AS n, body AS b FROM t11;
CREATE TABLE parts (id int, body text) PARTITION BY RANGE (id); CREATE TABLE part_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE again (id int, body text); CREATE TABLE t12 (id int, body text); INSERT INTO t12 VALUES (1, '');
CREATE VIEW folk AS SELECT id, code FROM people;
";

/// What a rule lets be copied takes its label along, and nothing else takes one.
#[test]
fn copies_bear_the_label_of_what_was_copied() {
    let (bed, mut installation) = stage(&[EVERYTHING, COPYING]);
    bed.admin("orders", TARGETS);
    let text: String = COPIES
        .iter()
        .flat_map(|(copy, read, _)| {
            [
                format!("{copy};\n"),
                format!("SELECT '>', '{}';\n", read.replace('\'', "''")),
                format!("{read};\n"),
            ]
        })
        .collect();
    let finished = installation.psql(&text);
    assert!(!finished.text().to_lowercase().contains("zqx-"), "{finished}");
    for (copy, read, shown) in COPIES {
        let marker = format!(">|{read}\n");
        let (_, after) =
            finished.stdout.split_once(&marker).unwrap_or_else(|| panic!("no {marker:?}: {finished}"));
        assert_eq!(after.lines().next(), Some(*shown), "{copy}: {finished}");
    }
    // They are there, for whoever comes with another session, or after a restart.
    for table in ["c1", "c3", "t5", "t9", "t11", "part_1", "again"] {
        let count = format!("SELECT count(*) FROM {table} AS t WHERE t::text LIKE '%zqx-%'");
        assert_eq!(bed.admin("orders", &count), "3", "{table}");
    }
    bed.admin("orders", "ALTER TABLE c3 RENAME TO other; ALTER TABLE other RENAME COLUMN c TO d");
    installation.stop();
    installation.start();
    let finished = installation.psql(
        "SELECT d FROM other;\nTABLE t5;\nSELECT note FROM t8 WHERE id = 1;\nSELECT name FROM people;\nSELECT id, body FROM scratch;\n\
         SELECT c FROM c10;\nSELECT upper(body) FROM parts;\n",
    );
    assert!(!finished.text().to_lowercase().contains("zqx-"), "{finished}");
    finished.says("[secret]").says("3|[secret]").says("2|");
    let copied = installation.psql("COPY c1 TO STDOUT;\nCOPY (SELECT c FROM c1) TO STDOUT;\n");
    assert!(!copied.text().to_lowercase().contains("zqx-"), "{copied}");
    copied.says("1\t[secret]").says("refused");
    installation.finish();
}

/// Whatever bears a label is listed, through what, and since when; what was seen so is bound.
#[test]
fn every_labelled_column_is_shown() {
    let (bed, installation) = stage(&[EVERYTHING, COPYING]);
    bed.admin("orders", TARGETS);
    let show = |more: &[&str]| installation.interceptor(&[&["labels", "show", "orders"], more].concat());
    show(&[]).failed().says("say which database with --database");
    show(&["--database", "nope"]).failed().says("cannot be looked at");
    let shown = show(&["--database", "orders"]).succeeded();
    let line = |finished: &interceptor_tests::Finished, column: &str| {
        let line = finished.stdout.lines().find(|line| line.starts_with(column));
        line.unwrap_or_else(|| panic!("no {column} in {finished}")).to_owned()
    };
    assert!(line(&shown, "public.people.code ").contains("its name"), "{shown}");
    assert!(line(&shown, "public.seen.harmless ").contains("what the view shows"), "{shown}");
    assert!(!shown.stdout.contains("people.name"), "{shown}");
    // It was bound by that alone, and is shown without being told where to look.
    bed.admin("orders", "ALTER TABLE people RENAME COLUMN code TO open");
    installation
        .psql("SELECT open FROM people WHERE id = 1;\nINSERT INTO t5 SELECT id, open FROM people;\n")
        .says("[secret]");
    let again = show(&[]).succeeded();
    let since = |line: &str| line.split_whitespace().skip(2).take(2).collect::<Vec<_>>().join(" ");
    let (before, after) = (line(&shown, "public.people.code "), line(&again, "public.people.open "));
    assert_eq!(since(&before), since(&after));
    assert!(after.contains("the pattern public.people.code"), "{again}");
    let record = installation.ended("INSERT INTO t5").one("INSERT INTO t5").id();
    assert!(line(&again, "public.t5.body ").contains(&format!("a copy, record {record}")), "{again}");
    let records = installation.records();
    let looks = records
        .0
        .iter()
        .filter(|one| one.is_gates_own() && one.statement().contains("which columns there are"));
    assert_eq!(looks.count(), 2, "each look is recorded");
    installation.finish();
}

/// The grants keep the role from the columns by the server's own means.
#[test]
fn grants_do_the_same_at_the_server() {
    let (bed, installation) = stage(&[EVERYTHING]);
    bed.admin("orders", &format!("{TARGETS} GRANT SELECT ON people TO PUBLIC; RESET ROLE; CREATE ROLE narrow LOGIN; CREATE SCHEMA unreachable; CREATE TABLE unreachable.t (x int); CREATE SCHEMA \"a\"\"b\"; GRANT USAGE ON SCHEMA \"a\"\"b\" TO app; CREATE TABLE \"a\"\"b\".\"c d\" (x int)"));
    let grants = installation
        .interceptor(&["labels", "grants", "orders", "--database", "orders", "--role", "narrow"])
        .succeeded();
    bed.admin("orders", &grants.stdout);
    let reads = |sql: &str| {
        bed.admin("orders", &format!("SET ROLE narrow; DO $$ BEGIN PERFORM {sql}; EXCEPTION WHEN insufficient_privilege THEN RAISE NOTICE 'no'; SET my.no = 'no'; END $$; SELECT coalesce(current_setting('my.no', true), 'yes')"))
    };
    for (sql, may) in [
        ("id, name FROM people", "yes"),
        ("code FROM people", "no"),
        ("* FROM people", "no"),
        ("id FROM people WHERE code LIKE 'z%'", "no"),
        ("p FROM people p", "no"),
        ("id FROM seen", "yes"),
        ("harmless FROM seen", "no"),
        ("code FROM folk", "no"),
        ("* FROM scratch", "yes"),
        ("x FROM \"a\"\"b\".\"c d\"", "yes"),
        ("x FROM unreachable.t", "no"),
    ] {
        assert_eq!(reads(sql), may, "{sql}: {grants}");
    }
    // What a rule lets the agent see is granted.
    installation.put_policy(
        "30-sees.cedar",
        "@id(\"sees\") permit (principal, action == Action::\"see\", resource is Label);",
    );
    installation.interceptor(&["reload"]).succeeded();
    let grants = installation.interceptor(&["labels", "grants", "orders", "--role", "narrow"]).succeeded();
    bed.admin("orders", &grants.stdout);
    assert_eq!(reads("code FROM people"), "yes");
    installation.finish();
}

/// What looks as if it needed a label is proposed, and the proposal is one that holds.
#[test]
fn labels_are_proposed_without_a_value() {
    let (bed, installation) = stage(&[EVERYTHING]);
    bed.admin(
        "orders",
        "SET ROLE app; CREATE TABLE contacts (id int, reach text, home_phone text, remark text, raw bytea); INSERT INTO contacts \
         SELECT n, 'walter' || n || '@example.org', '1', 'nothing', 'walter@example.org' FROM generate_series(1, 300) AS n; \
         CREATE TABLE locked (token text); RESET ROLE; CREATE TABLE foreigners (email text)",
    );
    let scan = || installation.interceptor(&["labels", "scan", "orders", "--database", "orders"]).succeeded();
    let proposed = scan();
    for part in [
        "\"public.contacts.reach\", # email in 200 of 200 values",
        "\"public.contacts.raw\", # email in 200 of 200 values",
        "\"public.contacts.home_phone\", # it is called phone",
        "\"public.locked.token\", # it is called token",
        "\"public.foreigners.email\", # it is called email",
        "\"public.users.email\"",
    ] {
        assert!(proposed.stdout.contains(part), "no {part}: {proposed}");
    }
    for no in ["walter", "people.code", "contacts.id", "remark"] {
        assert!(!proposed.stdout.contains(no), "{no}: {proposed}");
    }
    let path = installation.places().configuration().join("labels.toml");
    let mut labels = std::fs::read_to_string(&path).unwrap();
    let added = proposed
        .stdout
        .lines()
        .filter(|line| !line.starts_with("+++"))
        .filter_map(|line| line.strip_prefix('+'));
    added.for_each(|line| labels += &format!("{line}\n"));
    std::fs::write(&path, labels).unwrap();
    installation.interceptor(&["reload"]).succeeded();
    scan().says("nothing that has no label");
    installation.psql("SELECT reach, remark FROM contacts WHERE id = 7;\n").says("[email]|nothing");
    let export = installation.interceptor(&["--json", "audit", "export", "--format", "jsonl"]).succeeded();
    assert!(!export.stdout.contains("walter"));
    installation.finish();
}

/// A partition that is detached around us, and a child that inherits no more, keep the labels that they had as parts: those of
/// patterns and those of copies, also where their columns have other numbers.
#[test]
fn what_leaves_its_parent_keeps_its_labels() {
    let copies = "@id(\"copies\") permit (principal, action in [Action::\"label.filter\", Action::\"label.copy\"], \
                  resource is Label in Resource::\"orders\");";
    let bed = Bed::start();
    bed.admin(
        "orders",
        "SET ROLE app; CREATE TABLE people (id int, gone int, code text, note text) PARTITION BY RANGE (id);
         ALTER TABLE people DROP COLUMN gone;
         CREATE TABLE people_1 (note text, code text, id int);
         CREATE TABLE people_2 PARTITION OF people FOR VALUES FROM (10) TO (20);
         ALTER TABLE people ATTACH PARTITION people_1 FOR VALUES FROM (0) TO (10);
         INSERT INTO people VALUES (1, 'zqx-1', 'plain'), (11, 'zqx-11', 'plain');
         CREATE TABLE heirs (id int, code text); CREATE TABLE heir (more text) INHERITS (heirs);
         INSERT INTO heir VALUES (1, 'zqx-1', 'more');",
    );
    let labels =
        "[label.secret]\ncolumns = [\"public.people.code\", \"public.heirs.code\"]\nmask = \"redact\"\n";
    let installation = Setup::of(&bed)
        .labels(labels)
        .policy("20-bound.cedar", EVERYTHING)
        .policy("30-copies.cedar", copies)
        .start();
    installation.psql("SELECT code FROM people;\nSELECT code FROM heirs;\nUPDATE people SET note = code WHERE id = 1;\n")
        .says("[secret]\n[secret]\n[secret]\nUPDATE 1");
    installation.psql("SELECT note, code FROM people;\n");
    bed.admin(
        "orders",
        "ALTER TABLE people DETACH PARTITION people_1; ALTER TABLE people DETACH PARTITION people_2;
         ALTER TABLE heir NO INHERIT heirs; ALTER TABLE people_1 RENAME COLUMN code TO open;",
    );
    let finished = installation.psql(
        "SELECT id, open, upper(open), note FROM people_1;\nSELECT id, code, note FROM people_2;\nSELECT * FROM heir;\n",
    );
    let finished = finished.says("1|[secret]||[secret]").says("11|[secret]|[secret]").says("1|[secret]|more");
    assert!(!finished.text().contains("zqx-"), "{finished}");
    installation.finish();
}

/// A table is copied whole by the columns that it has, not by those that it had when it was read last.
#[test]
fn a_table_that_is_altered_around_us_is_copied_by_what_it_is_now() {
    let bed = Bed::start();
    bed.admin(
        "orders",
        "SET ROLE app; CREATE TABLE people (id int, note text, code text); INSERT INTO people VALUES (1, 'note', 'zqx-1')",
    );
    let orders = installation::orders(&bed, "app", "scram-sha-256");
    let orders = orders.replace("env = \"prod\"", "env = \"prod\"\nfacts_max_age = \"60s\"");
    let setup = Setup::empty().resource(&orders).credential("orders", bed.secret()).labels(LABELS);
    let installation = setup.policy("20-bound.cedar", EVERYTHING).start();
    let (seen, go) = (installation.work().join("seen"), installation.work().join("go"));
    let wait =
        format!("\\! touch {}; while [ ! -e {} ]; do sleep 0.05; done\n", seen.display(), go.display());
    let text = format!(
        "COPY people TO STDOUT;\n{wait}COPY people TO STDOUT;\n\
         BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT id FROM people;\nCOPY people TO STDOUT;\nROLLBACK;\n\
         BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT id FROM people;\nCOPY people (id, code) TO STDOUT;\nROLLBACK;\n"
    );
    let words = installation.psql_words(&["-f", "-"]);
    let job = interceptor_tests::Job::start(installation.captured("release-bot", &words), &text);
    wait_until("the first copy", PATIENCE, || seen.exists());
    // As many columns as before, in other places.
    bed.admin("orders", "ALTER TABLE people DROP COLUMN note, ADD COLUMN other text DEFAULT 'other'");
    std::fs::write(&go, "").expect("own folder");
    let finished = job.finish(PATIENCE);
    let finished = finished
        .says("1\tnote\t[secret]")
        .says("1\t[secret]\tother")
        .says("name the columns")
        .says("1\t[secret]\n");
    assert!(!finished.text().contains("zqx-"), "{finished}");
    installation.finish();
}
