//! That nothing leaks: every way that we know to write a statement whose answer, error, notice or trace holds what is
//! labelled, against a real server and through real clients. The statements, and what must become of each, are data:
//! `tests/corpus/masking.txt`, whose headings are the rows of what masking has to hold against.

use std::{collections::BTreeMap, fmt::Write as _};

use interceptor_tests::{Finished, Installation, Job, process::PATIENCE, seeds};

use crate::masking::{EVERYTHING, SEEING, driver, is_clean, stage};

const WAYS: [&str; 5] = ["psql", "psycopg-simple", "psycopg-text", "psycopg-binary", "asyncpg"];

/// One statement of the corpus.
#[derive(Debug)]
struct Trick {
    heading: &'static str,
    /// What becomes of it where nobody may see: `masked`, `refused` by us, or `failed` as the server says.
    ends: &'static str,
    /// Whether it `shows` something seeded where everything may be seen, or is `silent`.
    clear: &'static str,
    sql: &'static str,
}

/// The statements: those of one list belong together, in order.
fn corpus() -> Vec<Vec<Trick>> {
    let mut cases: Vec<Vec<Trick>> = Vec::new();
    let mut heading = "";
    for line in include_str!("../corpus/masking.txt").lines() {
        if let Some(next) = line.strip_prefix("## ") {
            heading = next;
            continue;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (marks, sql) = line.split_once(" | ").unwrap_or_else(|| panic!("{line:?} has no marks"));
        let (goes_on, marks) = marks.strip_prefix("+ ").map_or((false, marks), |marks| (true, marks));
        let [ends, clear] = marks.split_whitespace().collect::<Vec<_>>().try_into().expect("two marks");
        let trick = Trick { heading, ends, clear, sql };
        match cases.last_mut().filter(|_| goes_on) {
            Some(case) => case.push(trick),
            None => cases.push(vec![trick]),
        }
    }
    cases
}

fn statements(cases: &[Vec<Trick>]) -> Vec<Vec<&'static str>> {
    cases.iter().map(|case| case.iter().map(|trick| trick.sql).collect()).collect()
}

/// What somebody was told of one statement.
#[derive(Debug, Default, Clone)]
struct Told {
    ended: String,
    said: String,
}

type Place = (usize, usize);

/// By case and step, what a driver told.
fn by_driver(finished: &Finished) -> BTreeMap<Place, Told> {
    let mut all: BTreeMap<Place, Told> = BTreeMap::new();
    for line in finished.stdout.lines().filter(|line| line.starts_with('{')) {
        let told: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let number = |key: &str| usize::try_from(told[key].as_u64().expect(key)).expect(key);
        let text = |key: &str| told[key].as_str().expect(key).to_owned();
        let of = all.entry((number("case"), number("step"))).or_default();
        of.said.push_str(&text("said"));
        if told["ended"] != "again" {
            of.ended = text("ended");
        }
    }
    all
}

/// The same of psql, which says before each statement, on both of its outputs, which one comes.
fn by_psql(installation: &Installation, cases: &[Vec<Trick>], around: [&str; 2]) -> BTreeMap<Place, Told> {
    let mut text = String::new();
    for (case, tricks) in cases.iter().enumerate() {
        let _ = writeln!(text, "{}", around[0]);
        for (step, trick) in tricks.iter().enumerate() {
            let _ = writeln!(text, "\\echo @@{case} {step}\n\\warn @@{case} {step}\n{};", trick.sql);
        }
        let _ = writeln!(text, "\\echo @@\n\\warn @@\n{}", around[1]);
    }
    let words = installation.psql_words(&["-f", "-"]);
    let finished = Job::start(installation.captured("release-bot", &words), &text).finish(PATIENCE * 2);
    let mut told: BTreeMap<Place, Told> = BTreeMap::new();
    for output in [&finished.stdout, &finished.stderr] {
        for part in output.split("@@").skip(1) {
            let (place, said) = part.split_once('\n').unwrap_or((part, ""));
            let Some((case, step)) = place.split_once(' ') else { continue };
            let place = (case.parse().expect("a number"), step.parse().expect("a number"));
            told.entry(place).or_default().said.push_str(said);
        }
    }
    for told in told.values_mut() {
        let failed = told.said.split_once("ERROR:  ").map(|(_, error)| error.get(..5).unwrap_or_default());
        told.ended = match failed {
            None => "answered".to_owned(),
            Some("42501") if told.said.contains("DETAIL:  Rule ") => "refused".to_owned(),
            Some(code) => format!("failed {code}"),
        };
    }
    told
}

/// One way to the server: what was told of each statement.
fn by(way: &str, installation: &Installation, cases: &[Vec<Trick>], undone: bool) -> BTreeMap<Place, Told> {
    match (way, undone) {
        ("psql", false) => by_psql(installation, cases, [""; 2]),
        ("psql", true) => by_psql(installation, cases, ["BEGIN;", "ROLLBACK;"]),
        (way, false) => by_driver(&driver(installation, &[way], &statements(cases))),
        (way, true) => by_driver(&driver(installation, &[way, "undone"], &statements(cases))),
    }
}

/// What must not be so, of each statement for which `is` says something.
fn wrong(
    cases: &[Vec<Trick>],
    told: &BTreeMap<Place, Told>,
    is: impl Fn(&Trick, &Told) -> Option<String>,
) -> Vec<String> {
    let all = cases
        .iter()
        .enumerate()
        .flat_map(|(case, tricks)| tricks.iter().enumerate().map(move |(step, trick)| ((case, step), trick)));
    all.filter_map(|(place, trick)| {
        let told = told.get(&place).unwrap_or_else(|| panic!("nothing was told of {}", trick.sql));
        Some(format!("{}, under {:?}: {}", trick.sql, trick.heading, is(trick, told)?))
    })
    .collect()
}

/// No way to the server leaks, each statement ends as it should, and nothing is written down.
#[track_caller]
fn nothing_leaks_by(way: &str) {
    let (bed, mut installation) = stage(&[EVERYTHING]);
    let cases = corpus();
    let told = by(way, &installation, &cases, false);
    let wrong = wrong(&cases, &told, |trick, told| {
        let found = seeds::found(&told.said, &seeds::all());
        // What a driver cannot read has reached it all the same.
        let ended = told.ended.split(' ').next().unwrap_or_default();
        (!found.is_empty() || (ended != trick.ends && ended != "unread"))
            .then(|| format!("{} {found:?} {}", told.ended, told.said))
    });
    assert_eq!(wrong, [] as [&str; 0]);
    let masked = told.values().filter(|told| told.said.contains("[secret]")).count();
    assert!(masked > 40, "only {masked} answers have anything masked in them");
    assert_eq!(bed.admin("orders", "SELECT count(*) FROM scratch WHERE body LIKE 'zqx%'"), "0");
    let stolen = "SELECT count(*) FROM pg_class WHERE relname LIKE 'stolen%' AND relkind = 'r'";
    assert_eq!(bed.admin("orders", stolen), "0");
    nothing_is_written_down(&mut installation);
    installation.finish();
}

/// Neither the record nor any other file of the daemon's, nor its log, holds anything.
#[track_caller]
fn nothing_is_written_down(installation: &mut Installation) {
    let export = installation.interceptor(&["--json", "audit", "export", "--format", "jsonl"]).succeeded();
    assert!(export.stdout.lines().count() > 200);
    assert_eq!(seeds::lines(&export.stdout, &seeds::all()), [] as [&str; 0]);
    is_clean(&installation.stop().expect("the daemon"));
    assert_eq!(seeds::files(installation.root(), &seeds::all()), [] as [&str; 0]);
}

#[test]
fn nothing_leaks_through_psql() {
    nothing_leaks_by("psql");
}

#[test]
fn nothing_leaks_through_psycopg_in_the_simple_protocol() {
    nothing_leaks_by("psycopg-simple");
}

#[test]
fn nothing_leaks_through_psycopg_in_text() {
    nothing_leaks_by("psycopg-text");
}

#[test]
fn nothing_leaks_through_psycopg_in_binary() {
    nothing_leaks_by("psycopg-binary");
}

#[test]
fn nothing_leaks_through_asyncpg() {
    nothing_leaks_by("asyncpg");
}

/// The check can fail: to somebody who may see everything, each statement that shows something is found leaking, by the same
/// check of the same answers.
#[test]
fn in_the_clear_the_same_statements_are_found_leaking() {
    let (_bed, installation) = stage(&[EVERYTHING, SEEING]);
    let cases = corpus();
    assert!(cases.iter().flatten().filter(|trick| trick.clear == "shows").count() > 190);
    for way in WAYS {
        let told = by(way, &installation, &cases, true);
        let wrong = wrong(&cases, &told, |trick, told| {
            let leaks = !seeds::found(&told.said, &seeds::all()).is_empty();
            (leaks != (trick.clear == "shows") && told.ended != "unread")
                .then(|| format!("{} {}", told.ended, told.said))
        });
        assert_eq!(wrong, [] as [&str; 0], "{way}");
        assert!(told.values().filter(|told| told.ended == "unread").count() < 10);
    }
    installation.finish();
}

/// What may decide is not seen for that: statements that were refused before are carried out now, and masked.
#[test]
fn nothing_leaks_where_labelled_data_may_decide() {
    let filters = "@id(\"filters\") permit (principal, action == Action::\"label.filter\", resource is Label in Resource::\"orders\");";
    let (_bed, mut installation) = stage(&[EVERYTHING, filters]);
    let cases = statements(&corpus());
    for way in ["psycopg-simple", "asyncpg"] {
        is_clean(&driver(&installation, &[way], &cases));
    }
    installation
        .psql("SELECT id, code FROM people WHERE code LIKE 'zqx-p%';\nSELECT DISTINCT code FROM people WHERE id < 3;\n")
        .says("2|[secret]");
    nothing_is_written_down(&mut installation);
    installation.finish();
}

/// What may be copied is masked wherever it is read again: labels go along, into whatever was made or written before. But
/// for settings, which are not followed, and renaming, after which the other tricks have nothing to read.
#[test]
fn nothing_leaks_where_labelled_data_may_be_copied() {
    let copies = "@id(\"copies\") permit (principal, action in [Action::\"label.filter\", Action::\"label.copy\"], \
                  resource is Label in Resource::\"orders\");";
    let (bed, mut installation) = stage(&[EVERYTHING, copies]);
    let not_followed = ["set_config(", "SHOW my", "current_setting('my", "ALTER TABLE people RENAME"];
    let follows =
        |case: &Vec<&str>| !not_followed.iter().any(|part| case.iter().any(|sql| sql.contains(part)));
    let cases: Vec<Vec<&str>> = statements(&corpus()).into_iter().filter(follows).collect();
    for way in ["psycopg-simple", "psycopg-binary", "asyncpg"] {
        is_clean(&driver(&installation, &[way], &cases));
    }
    let text: String = cases.iter().flatten().map(|sql| format!("{sql};\n")).collect();
    is_clean(&installation.psql(&text));
    // They were carried out.
    assert_ne!(bed.admin("orders", "SELECT count(*) FROM scratch WHERE body LIKE 'zqx%'"), "0");
    let stolen = "SELECT count(*) FROM pg_class WHERE relname LIKE 'stolen%' AND relkind = 'r'";
    assert_ne!(bed.admin("orders", stolen), "0");
    nothing_is_written_down(&mut installation);
    installation.finish();
}

/// What psql alone does: several statements of one message, and what others are told of.
#[test]
fn nothing_leaks_out_of_batches_and_notifications() {
    let text = "SELECT 1 \\; SELECT code FROM people \\; SELECT 2;\nLISTEN heard;\nNOTIFY heard, 'walter.white@example.org';\n\
                SELECT pg_notify('heard', body) FROM talk;\nSELECT 'heard';\nSELECT 'the end', 1;\n";
    let (_bed, installation) = stage(&[EVERYTHING]);
    let finished = installation.psql(text).says("the end|1").says("[secret]");
    is_clean(&finished.says("Asynchronous notification \"heard\" with payload \"[email]\""));
    installation.finish();
    let (_bed, installation) = stage(&[EVERYTHING, SEEING]);
    let clear = installation.psql(text).says("zqx-sesame-4711").says("078-05-1120");
    clear.says("with payload \"walter.white@example.org\"");
    installation.finish();
}
