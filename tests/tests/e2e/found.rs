//! An agent's own credential, where it stands in what the agent may read.

use base64::Engine as _;
use interceptor_tests::{
    Bed, Finished, Installation, RunningBed, Setup,
    process::{PATIENCE, wait_until},
};

use crate::masking::EVERYTHING;

/// Something has to be labelled; the notes are not.
const LABELS: &str = r#"
[label.mail]
columns = ["public.people.mail"]
mask = "redact"
"#;

const SEEING: &str = r#"
@id("sees")
permit (principal, action in Action::"see", resource is Label in Resource::"orders");
"#;

fn stage(labels: &str, policies: &[&str], secret: Option<&str>) -> (RunningBed, Installation) {
    let bed = Bed::start();
    let secret_in_force = secret.unwrap_or(bed.secret()).to_owned();
    bed.admin(
        "orders",
        &format!(
            "SET ROLE app; CREATE TABLE people (id int, mail text); INSERT INTO people VALUES (1, 'a@example.org');\
             CREATE TABLE jots (id int, body text, doc jsonb, raw bytea, parts text[]);\
             INSERT INTO jots SELECT 1, 'pw is ' || s || ' ok', jsonb_build_object('pw', s), s::bytea, ARRAY['x', s]\
                 FROM (VALUES ('{secret_in_force}')) AS v(s);\
             CREATE FUNCTION tell() RETURNS int LANGUAGE plpgsql AS\
                 'BEGIN RAISE NOTICE ''%'', (SELECT body FROM jots LIMIT 1); RETURN 1; END';\
             RESET ROLE; ALTER ROLE app PASSWORD '{secret_in_force}'"
        ),
    );
    let mut setup = Setup::of(&bed).labels(labels).credential("orders", &secret_in_force);
    for (place, policy) in policies.iter().enumerate() {
        setup = setup.policy(&format!("{}0-found.cedar", place + 2), policy);
    }
    (bed, setup.start())
}

const READING: &str = "SELECT 'plain', body FROM jots;\n\
     SELECT 'base64', encode(convert_to(body, 'UTF8'), 'base64') FROM jots;\n\
     SELECT 'hex', encode(convert_to(body, 'UTF8'), 'hex'), raw FROM jots;\n\
     SELECT 'json', doc FROM jots;\nSELECT 'array', parts FROM jots;\n\
     SELECT 'error', body::int FROM jots;\nSELECT tell();\n\
     LISTEN heard;\nSELECT pg_notify('heard', body) FROM jots;\nSELECT 'heard';\n\
     COPY jots (body, parts) TO STDOUT;\nCOPY jots (body) TO STDOUT (FORMAT csv);\nCOPY (SELECT body FROM jots) TO STDOUT;\n\
     COPY jots (raw) TO STDOUT;\n";

fn forms(secret: &str) -> Vec<String> {
    let hex = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let body = format!("pw is {secret} ok");
    let whole: String = body.bytes().map(|byte| format!("{byte:02x}")).collect();
    let base64 = base64::engine::general_purpose::STANDARD.encode(&body);
    vec![secret.to_owned(), hex, whole, base64]
}

#[track_caller]
fn is_clean(finished: &Finished, secret: &str) {
    let text = finished.text().replace('\n', "");
    for form in forms(secret) {
        assert!(!text.contains(&form), "{form}: {finished}");
    }
}

#[test]
fn an_agents_credential_is_masked_wherever_it_stands() {
    for policies in [&[EVERYTHING][..], &[EVERYTHING, SEEING]] {
        let (bed, mut installation) = stage(LABELS, policies, None);
        let finished = installation.psql(READING);
        is_clean(&finished, bed.secret());
        let seen = finished.stdout.matches("[secret]").count();
        assert!(seen >= 6, "{seen}: {finished}");
        assert!(finished.stdout.contains("plain|pw is [secret] ok"), "{finished}");
        installation.psql("SELECT mail FROM people;\nSELECT id, 'whole' FROM jots;\n").says("1|whole");
        wait_until("it is told", PATIENCE, || {
            let tail = installation.interceptor(&["audit", "tail", "--all", "-n", "1000"]).succeeded();
            tail.stdout.lines().any(|line| line.contains("SECRET") && line.contains("a credential of orders"))
        });
        let log = installation.stop().expect("the daemon");
        assert!(!log.text().contains(bed.secret()) && !log.text().contains("could be guessed"), "{log}");
        installation.finish();
    }
}

/// One that can be guessed is not looked for, which the operator is told, once; nor is any where nothing is labelled.
#[test]
fn a_weak_credential_is_told_of_and_not_looked_for() {
    let (_bed, mut installation) = stage(LABELS, &[EVERYTHING], Some("correct-horse"));
    for _ in 0..2 {
        installation.psql("SELECT body FROM jots;\n").says("pw is correct-horse ok");
    }
    let log = installation.stop().expect("the daemon").text();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("could be guessed")).collect();
    assert_eq!(told.len(), 1, "{log}");
    assert!(told[0].contains("resource orders") && told[0].contains("24 characters"), "{log}");
    assert!(!log.contains("correct-horse"), "{log}");
    installation.finish();
    let (bed, mut installation) = stage("", &[EVERYTHING], None);
    installation.psql("SELECT body FROM jots;\n").says(bed.secret());
    installation.stop();
    installation.finish();
}
