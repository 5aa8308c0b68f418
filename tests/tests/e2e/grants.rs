//! `labels grants`: what it prints keeps a role at the server from what an agent may not see, and from nothing else.

use interceptor_tests::{Bed, Setup};

use crate::masking::EVERYTHING;

const LABELS: &str = r#"
[label.secret]
columns = ["public.people.code", "public.papers.doc -> $.person.ssn", "public.papers.doc -> $.\"it's\"",
    "public.papers.old -> $.person.ssn", "public.papers.several -> $.cards[*].no", "public.papers.words -> $.ssn",
    "public.papers.code", "public.own.code", "public.own.doc -> $.ssn", "other.papers.doc -> $.ssn"]
mask = "redact"

[label.email]
detect = ["email"]
mask = "redact"
"#;

const SCHEMA: &str = r#"
CREATE ROLE narrow LOGIN; CREATE ROLE wide LOGIN;
SET ROLE app;
CREATE TABLE people (id int, name text, code text);
INSERT INTO people VALUES (1, 'Ann', 'zqx');
GRANT SELECT (code) ON people TO PUBLIC;
CREATE TABLE papers (id int, doc jsonb, old json, several jsonb, words text, code text, note text);
INSERT INTO papers VALUES
    (1, '{"person": {"ssn": "zqx", "name": "Ann"}, "it''s": ["zqx"], "a": 1}', '{"person": {"ssn": "zqx", "name": "Ann"}}',
        '{"cards": [{"no": "zqx"}]}', '{"ssn": "zqx"}', 'zqx', 'plain'),
    (2, '{"person": [{"ssn": "zqx"}], "a": 2}', '{"person": {"s\u0073n": "zqx"}}', NULL, NULL, NULL, NULL),
    (3, '[{"person": {"ssn": "zqx"}}]', '{"person": {"ssn": "zqx\u0000"}}', NULL, NULL, NULL, NULL),
    (4, '{"person": 5}', '{"person": {"ssn": "zqx"}, "person": {"ssn": "zqx", "name": "Bob"}}', NULL, NULL, NULL, NULL),
    (5, '"text"', '[[{"person": {"ssn": "zqx"}}]]', NULL, NULL, NULL, NULL), (6, NULL, NULL, NULL, NULL, NULL, NULL),
    (7, '{"person": {"ssn": {"deep": "zqx"}, "list": [1]}}', 'true', NULL, NULL, NULL, NULL);
CREATE TABLE own (id int, whose name, code text, doc jsonb);
INSERT INTO own VALUES (1, 'narrow', 'zqx', '{"ssn": "zqx"}'), (2, 'wide', 'zqx', '{"ssn": "zqx"}');
ALTER TABLE own ENABLE ROW LEVEL SECURITY;
CREATE POLICY "of their \ own" ON own FOR SELECT USING (whose = current_user);
CREATE POLICY wide ON own TO wide USING (true);
"#;

#[test]
fn the_role_reads_what_is_not_hidden_and_nothing_else() {
    let bed = Bed::start();
    bed.admin("orders", SCHEMA);
    let installation = Setup::of(&bed).labels(LABELS).policy("20-everything.cedar", EVERYTHING).start();
    let print = |database: &[&str]| {
        let words = [&["labels", "grants", "orders", "--role", "narrow"], database].concat();
        installation.interceptor(&words).succeeded()
    };
    let grants = print(&["--database", "orders"]);
    for said in [
        "detectors find cannot be withheld by grants: email",
        "secured by \"of their \\ own\" (for all), \"wide\" (for \"wide\")",
        "no means to take $.cards[*].no out",
        "neither json nor jsonb",
        "would read as its owner",
    ] {
        assert!(grants.stdout.contains(said), "no {said}: {grants}");
    }
    let reads = |sql: &str| bed.as_role("orders", "narrow", sql);
    let no = |sql: &str| {
        let finished = reads(sql);
        assert!(
            finished.stderr.contains("permission denied") && finished.stdout.is_empty(),
            "{sql}: {finished}"
        );
    };
    let documents = "\
        1|{\"a\": 1, \"person\": {\"name\": \"Ann\"}}|{\"person\": {\"name\": \"Ann\"}}|plain\n\
        2|{\"a\": 2}||\n\
        3|||\n\
        4|{\"person\": 5}|{\"person\": {\"name\": \"Bob\"}}|\n\
        5|\"text\"||\n\
        6|||\n\
        7|{\"person\": {\"list\": [1]}}|true|\n";
    // As often as it is run.
    for _ in 0..2 {
        bed.admin("orders", &grants.stdout);
        assert_eq!(
            reads("SELECT * FROM interceptor_narrow.papers ORDER BY id").succeeded().stdout,
            documents
        );
        assert_eq!(reads("SELECT id, name FROM people").succeeded().stdout, "1|Ann\n");
        assert_eq!(reads("SELECT id, note FROM papers WHERE id = 1").succeeded().stdout, "1|plain\n");
        assert_eq!(reads("SELECT id, whose FROM own").succeeded().stdout, "1|narrow\n");
        for column in ["doc", "old", "several", "words", "code"] {
            no(&format!("SELECT {column} FROM papers"));
        }
        for sql in [
            "SELECT code FROM people",
            "SELECT 1 FROM people WHERE code LIKE 'z%'",
            "SELECT p FROM papers p",
            "SELECT code FROM own",
            "SELECT doc FROM own",
            "SELECT count(*) FROM own WHERE doc IS NOT NULL",
            "UPDATE interceptor_narrow.papers SET note = ''",
            "CREATE TABLE interceptor_narrow.mine (x int)",
        ] {
            no(sql);
        }
        // Conditions of the role's own see what the view shows, and no more.
        let cheap = "SET client_min_messages = notice; CREATE FUNCTION pg_temp.tell(jsonb) RETURNS bool COST 0.0001 LANGUAGE plpgsql AS \
                     'BEGIN RAISE NOTICE ''%'', $1; RETURN true; END'; SELECT id FROM interceptor_narrow.papers WHERE pg_temp.tell(doc)";
        let told = reads(cheap).succeeded();
        assert!(told.stderr.contains("Ann") && !told.stderr.contains("zqx"), "{told}");
    }
    // The view is gone once a rule has nothing hidden.
    installation.put_policy(
        "30-sees.cedar",
        "@id(\"sees\") permit (principal, action == Action::\"see\", resource is Label);",
    );
    installation.interceptor(&["reload"]).succeeded();
    bed.admin("orders", &print(&[]).stdout);
    assert!(reads("SELECT 1 FROM interceptor_narrow.papers").stderr.contains("does not exist"));
    assert!(reads("SELECT doc FROM papers").succeeded().stdout.contains("zqx"));
    installation.finish();
}
