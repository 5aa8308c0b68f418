//! Labels on places in JSON documents: what stands there is masked there, and what is computed is hidden.

use interceptor_tests::{Bed, Installation, RunningBed, Setup};

use crate::masking::{EVERYTHING, each, has_none_of};

/// What stands at the labelled places, and nowhere else.
const SEEDED: [&str; 4] = ["zqx-sesame-4711", "zqx-pepper-8812", "zqx-tarragon-93", "904711223"];

const LABELS: &str = r#"
[label.secret]
columns = ["public.papers.doc -> $.person.ssn", "public.papers.doc -> $.cards[*].*", "public.papers.old -> $.person.ssn"]
mask = "redact"

[label.number]
columns = ["public.papers.doc -> $.person.number"]
mask = "partial"

[label.email]
detect = ["email"]
mask = "redact"
"#;

const SCHEMA: &str = r#"
SET ROLE app;
CREATE TABLE papers (id int PRIMARY KEY, doc jsonb, old json, note text);
INSERT INTO papers VALUES
    (1, '{"person": {"ssn": "zqx-sesame-4711", "name": "Ann", "number": 904711223}, "cards": [{"no": "zqx-pepper-8812"}, {"code": ["zqx-tarragon-93"]}],
          "mail": "a@example.org"}', '{"person": {"s\u0073n": "zqx-sesame-4711", "ssn": ["zqx-pepper-8812"]}}', 'plain'),
    (2, '{"person": [{"ssn": {"deep": "zqx-tarragon-93"}}], "id": 17}', '{"person": {"ssn": null, "name": "Bob"}}', 'plain'),
    (3, '[1, 2]', '"text"', 'plain'), (4, NULL, NULL, 'plain');
CREATE VIEW shown AS SELECT id, doc AS paper, doc ->> 'id' AS computed FROM papers;
CREATE TABLE kept (id int, doc jsonb);
CREATE TABLE made (id int, doc jsonb, loud text GENERATED ALWAYS AS (doc ->> 'person') STORED);
"#;

fn stage(policies: &[&str]) -> (RunningBed, Installation) {
    let bed = Bed::start();
    bed.admin("orders", SCHEMA);
    let mut setup = Setup::of(&bed).labels(LABELS);
    for (place, policy) in policies.iter().enumerate() {
        setup = setup.policy(&format!("{}0-places.cedar", place + 2), policy);
    }
    (bed, setup.start())
}

const TRICKS: &[&str] = &[
    "SELECT doc, old FROM papers",
    "SELECT * FROM papers",
    "TABLE papers",
    "SELECT p.doc AS note FROM papers AS p",
    "SELECT doc ->> 'person', doc -> 'person' -> 'ssn', doc #>> '{person,ssn}' FROM papers",
    "SELECT doc['person']['ssn'], doc::text, old::text, old::jsonb FROM papers",
    "SELECT jsonb_path_query(doc, '$.person.ssn') FROM papers",
    "SELECT jsonb_pretty(doc), to_json(doc), doc || '{}'::jsonb, jsonb_build_object('a', doc) FROM papers",
    "SELECT row_to_json(p), to_jsonb(p), p FROM papers p",
    "SELECT array_agg(doc), jsonb_agg(doc), json_object_agg(id, old) FROM papers",
    "SELECT key, value FROM papers, jsonb_each(doc)",
    "SELECT value FROM papers, jsonb_each_text(doc -> 'person')",
    "SELECT * FROM papers, jsonb_to_record(doc) AS x(person jsonb, cards jsonb)",
    "SELECT ARRAY[doc] FROM papers",
    "SELECT doc FROM papers UNION ALL SELECT doc FROM papers",
    "SELECT (SELECT doc FROM papers LIMIT 1)",
    "SELECT coalesce(doc, '{}') FROM papers",
    "SELECT paper, computed FROM shown",
    "UPDATE papers SET note = note RETURNING doc",
    "UPDATE papers SET doc = jsonb_build_object('open', doc -> 'person') WHERE id = 1 RETURNING doc",
    "INSERT INTO kept SELECT id, doc FROM papers",
    "INSERT INTO made SELECT id, doc FROM papers",
    "CREATE TABLE taken AS SELECT doc FROM papers",
    "SELECT id FROM papers WHERE doc -> 'person' ->> 'ssn' LIKE 'zqx%'",
    "SELECT id FROM papers ORDER BY doc",
    "SELECT ('{\"a\":' || doc::text || '}')::int FROM papers",
];

#[test]
fn what_stands_at_a_place_is_masked_there() {
    let (_bed, installation) = stage(&[EVERYTHING]);
    let text: String = TRICKS.iter().map(|trick| format!("{trick};\n")).collect();
    let finished = installation.psql(&(text + "SELECT 'the end', 1;\n"));
    let finished = finished.says("the end|1").says("label.filter").says("label.copy");
    let finished = finished
        .says(r#""ssn": "[secret]", "name": "Ann", "number": "*****1223""#)
        .says(r#""cards": [{"no": "[secret]"}, {"code": "[secret]"}]"#)
        .says(r#""mail": "[email]""#)
        .says(r#"{"person": {"s\u0073n": "[secret]", "ssn": "[secret]"}}"#)
        .says(r#"{"id": 17, "person": [{"ssn": "[secret]"}]}"#)
        .says(r#"{"person": {"ssn": null, "name": "Bob"}}"#);
    has_none_of(&finished, &SEEDED);
    for way in ["psycopg-text", "psycopg-binary", "asyncpg"] {
        let finished = each(&installation, way, TRICKS);
        assert!(finished.stdout.trim_end().ends_with("done"), "{finished}");
        assert!(finished.stdout.contains("[secret]") && finished.stdout.contains("Ann"), "{finished}");
        has_none_of(&finished, &SEEDED);
    }
    installation.finish();
}

#[test]
fn documents_are_copied_with_their_places_masked() {
    let (_bed, installation) = stage(&[EVERYTHING]);
    let copied = |text: &str| installation.psql(&format!("{text};\n"));
    copied("COPY papers (id, doc) TO STDOUT").says(r#"2	{"id": 17, "person": [{"ssn": "[secret]"}]}"#);
    copied("COPY papers (old) TO STDOUT").says(r#"{"person": {"s\\u0073n": "[secret]", "ssn": "[secret]"}}"#);
    copied("COPY papers (doc) TO STDOUT CSV")
        .says(r#""{""id"": 17, ""person"": [{""ssn"": ""[secret]""}]}""#);
    let binary = copied("COPY papers (id, doc, old) TO STDOUT BINARY");
    assert!(binary.stdout.contains(r#"{"id": 17, "person": [{"ssn": "[secret]"}]}"#), "{binary}");
    for text in ["COPY papers TO STDOUT", "COPY papers TO STDOUT CSV", "COPY papers TO STDOUT BINARY"] {
        has_none_of(&copied(text), &SEEDED);
    }
    installation.finish();
}

/// What documents are put into bears the label as a whole; where a document was found to bear it stays in mind, however
/// it is called.
#[test]
fn copies_bear_the_label_as_a_whole_and_names_do_not_matter() {
    let copies = "@id(\"copies\") permit (principal, action in [Action::\"label.copy\", Action::\"label.filter\"], \
                  resource is Label in Resource::\"orders\");";
    let (bed, mut installation) = stage(&[EVERYTHING, copies]);
    let shown = installation.psql("SELECT doc -> 'id', doc FROM papers WHERE id = 2;\n");
    shown.says(r#"|{"id": 17, "person": [{"ssn": "[secret]"}]}"#);
    let finished = installation.psql(
        "INSERT INTO kept SELECT id, doc FROM papers;\nSELECT 'kept', doc FROM kept WHERE id = 2;\n\
         UPDATE papers SET doc = jsonb_build_object('open', doc -> 'person') WHERE id = 2;\n\
         SELECT 'moved', doc FROM papers WHERE id = 2;\nSELECT 'old', old FROM papers WHERE id = 1;\n",
    );
    has_none_of(&finished, &SEEDED);
    let kept: Vec<&str> = finished.stdout.lines().filter(|line| line.contains('|')).collect();
    assert_eq!(
        kept,
        ["kept|", "moved|", r#"old|{"person": {"s\u0073n": "[secret]", "ssn": "[secret]"}}"#],
        "{finished}"
    );
    bed.admin("orders", "ALTER TABLE papers RENAME COLUMN old TO open");
    installation.stop();
    installation.start();
    let renamed = installation.psql("SELECT open, note FROM papers WHERE id = 1;\n");
    renamed.says(r#"{"person": {"s\u0073n": "[secret]", "ssn": "[secret]"}}|plain"#);
    let records = installation.ended("SELECT open");
    let why = installation.interceptor(&["why", &records.one("SELECT open").id().to_string()]).succeeded();
    why.says("secret: columns that carry it");
    let shown = installation.interceptor(&["labels", "show", "orders"]).succeeded();
    shown.says("public.papers.open").says("the pattern public.papers.old -> $.person.ssn");
    installation.finish();
}
