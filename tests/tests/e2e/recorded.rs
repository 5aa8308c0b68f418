//! Rows in the record: masked as for somebody who may see nothing, whoever reads them.

use interceptor_tests::{Bed, Installation, RunningBed, Setup, installation, seeds};
use serde_json::{Value, json};

use crate::masking::{EVERYTHING, LABELS, SEEING, each, is_clean};

/// Columns whose values an agent sees as tokens.
const MARKS: &str = "[label.mark]\ncolumns = [\"public.marks.mark\"]\nmask = \"token\"\n";
const REVIEWED: &str = "[reviewed]\norders = { by = \"alice\", on = \"2026-11-20\" }\n";

fn bed() -> RunningBed {
    let bed = Bed::default().with("shared_preload_libraries", "pg_stat_statements").run();
    bed.admin("orders", include_str!("../corpus/masking.sql"));
    bed.admin(
        "orders",
        "SET ROLE app; CREATE TABLE marks (id int, mark text); INSERT INTO marks VALUES (1, 'zqx-sesame-4711')",
    );
    bed
}

/// An installation at `bed` that records rows, with these rules and labels.
fn setup(bed: &RunningBed, mode: &str, policies: &[&str], labels: &str) -> Setup {
    let resource = installation::orders(bed, "app", "scram-sha-256");
    let resource = resource.replacen("env = ", &format!("record = \"rows\"\nmode = {mode:?}\nenv = "), 1);
    let setup = Setup::empty().resource(&resource).credential("orders", bed.secret()).labels(labels);
    let setup = setup.policy("10-test.cedar", installation::POLICY);
    let named = policies.iter().enumerate();
    named
        .fold(setup, |setup, (place, policy)| setup.policy(&format!("{}0-recorded.cedar", place + 2), policy))
}

/// What the record has of the rows of each statement with that part, those of `prepare` left out.
fn recorded(installation: &Installation, part: &str) -> Vec<Value> {
    let records = installation.ended(part);
    let carried_out = records.with(part).into_iter().filter(|one| one.phase() != "prepare");
    carried_out.map(|one| one.at("/outcome/recorded").clone()).collect()
}

fn reads_and_is_recorded(bed: &RunningBed, mode: &str, policies: &[&str], sees: &[&str]) {
    let labels = format!("{LABELS}{MARKS}{REVIEWED}");
    let mut installation = setup(bed, mode, policies, &labels).start();
    let people = "SELECT id, name, code, number FROM people WHERE id = 1";
    let (mail, mark) = ("SELECT mails, doc FROM talk", "SELECT mark FROM marks");
    let finished = installation.psql(&format!(
        "{people};\n{mail};\n{mark};\nSELECT upper(code) FROM people WHERE id < 3;\nCOPY people (id, code) TO STDOUT;\n\
         SELECT generate_series(1, 1500);\nUPDATE scratch SET id = 1;\n"
    ));
    sees.iter().for_each(|value| assert!(finished.stdout.contains(value), "{value}: {finished}"));
    for way in ["psycopg-text", "psycopg-binary"] {
        let finished = each(&installation, way, &[people, mail, mark]);
        assert!(finished.stdout.contains(sees[0]), "{finished}");
    }

    let text = json!({ "rows": [["1", "name1", "[secret]", null]] });
    let binary = json!({ "rows": [["\\x00000001", "name1", "[secret]", null]] });
    assert_eq!(recorded(&installation, "FROM people WHERE id = ?"), [text.clone(), text, binary]);
    let of_mail = recorded(&installation, "SELECT mails");
    let masked = json!({ "rows": [["{\"[email]\"}", "{\"m\": \"[email]\", \"n\": null}"]] });
    assert_eq!(of_mail[..2], [masked.clone(), masked]);
    let whole = hex(&of_mail[2]["rows"][0][1]);
    assert!(whole.ends_with("{\"m\": \"[email]\", \"n\": null}"), "{whole:?}");
    let no_token = json!({ "rows": [["[mark]"]] });
    assert_eq!(recorded(&installation, "FROM marks"), [no_token.clone(), no_token.clone(), no_token]);
    assert_eq!(recorded(&installation, "upper(code)"), [json!({ "rows": [[null], [null]] })]);
    assert_eq!(recorded(&installation, "COPY people"), [json!({ "rows": [], "rows_left_out": 3 })]);
    assert_eq!(recorded(&installation, "UPDATE scratch"), [Value::Null]);
    let long = &recorded(&installation, "generate_series")[0];
    assert_eq!((long["rows"].as_array().map(Vec::len), &long["rows_left_out"]), (Some(1000), &json!(500)));
    assert_eq!((&long["rows"][0], &long["rows"][999]), (&json!(["1"]), &json!(["1000"])));

    let id = installation.ended("generate_series").one("generate_series").id().to_string();
    installation.interceptor(&["why", &id]).says("1000 recorded, 500 that came are not recorded");
    for show in [["audit", "show", &id], ["audit", "replay", &id]] {
        let show = show.as_slice();
        let shown = installation.interceptor(show).succeeded();
        let shown = shown.says("\"1000\"").says("500 rows that came are not recorded");
        assert!(!shown.stdout.contains("\"1001\""), "{shown}");
    }
    installation.interceptor(&["audit", "replay", &id]).says("\"name1\" | \"[secret]\" | NULL");
    let export = installation.interceptor(&["--json", "audit", "export", "--format", "jsonl"]).succeeded();
    assert_eq!(seeds::lines(&export.stdout, &seeds::all()), [] as [&str; 0]);
    is_clean(&installation.stop().expect("the daemon"));
    installation.interceptor(&["audit", "verify"]).succeeded();
    assert_eq!(seeds::files(installation.root(), &seeds::all()), [] as [&str; 0]);
    installation.finish();
}

/// What stands behind `\\x`, as far as it is text.
fn hex(value: &Value) -> String {
    let digits = value.as_str().and_then(|text| text.strip_prefix("\\x")).expect("binary");
    let pairs = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
    pairs.map(|pair| char::from(u8::from_str_radix(pair, 16).expect("hexadecimal"))).collect()
}

#[test]
fn rows_are_recorded_masked_whoever_sees_them() {
    let bed = bed();
    reads_and_is_recorded(&bed, "enforce", &[EVERYTHING], &["[secret]", "tok_mark_", "[email]"]);
    let clear = ["zqx-sesame-4711", "4111111111111111"];
    reads_and_is_recorded(&bed, "enforce", &[EVERYTHING, SEEING], &clear);
    reads_and_is_recorded(&bed, "observe", &[EVERYTHING], &clear);
}

/// Without a review, or without labels, nothing is loaded; a reload that takes the review away leaves what is in force.
#[test]
fn rows_are_recorded_only_where_labels_were_reviewed() {
    let bed = Bed::start();
    for (labels, part) in [
        (LABELS, "its labels were not reviewed"),
        (REVIEWED, "`orders` has no label"),
        ("", "`orders` has no label"),
        (&format!("{LABELS}[reviewed]\norders = {{ by = \"alice\", on = \"soon\" }}\n"), "YYYY-MM-DD"),
    ] {
        let installation = setup(&bed, "enforce", &[EVERYTHING], labels).write();
        let checked = installation.interceptor(&["policy", "check"]).failed().says(part);
        let at = if part == "YYYY-MM-DD" { "labels.toml:" } else { "resources.toml:1:" };
        assert!(checked.text().contains(at), "{checked}");
    }
}
