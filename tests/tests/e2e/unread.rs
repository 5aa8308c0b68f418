//! A catalogue that cannot be read: nobody knows where values come from, so that none is shown.

use interceptor_tests::{Bed, Setup};

use crate::masking::{EVERYTHING, each, has_none_of};

const SEEDED: [&str; 1] = ["zqx-sesame-4711"];

const READS: [&str; 5] = [
    "SELECT code, name FROM people",
    "SELECT code || '' FROM people",
    "SELECT body FROM shown",
    "TABLE part",
    "SELECT p FROM people AS p",
];

/// What the role may not read any more is read by the server itself as before, for what the agent sends.
#[test]
fn nothing_is_shown_where_the_catalogue_cannot_be_read() {
    let bed = Bed::start();
    bed.admin(
        "orders",
        "SET ROLE app; CREATE TABLE people (code text, name text) PARTITION BY LIST (name);
         CREATE TABLE part PARTITION OF people DEFAULT; INSERT INTO people VALUES ('zqx-sesame-4711', 'Ann');
         RESET ROLE; CREATE SCHEMA closed; CREATE VIEW closed.below AS SELECT code AS below FROM people;
         CREATE VIEW shown AS SELECT below AS body FROM closed.below; GRANT SELECT ON shown TO app",
    );
    let labels = "[label.secret]\ncolumns = [\"public.people.code\"]\nmask = \"redact\"\n";
    let installation = Setup::of(&bed).labels(labels).policy("20-everything.cedar", EVERYTHING).start();
    let all: String = READS.iter().map(|text| format!("{text};\n")).collect();
    // All of it can be read but the schema of what the view shows.
    has_none_of(&installation.psql(&all).says("[secret]|Ann"), &SEEDED);
    let catalogue = [
        "pg_attribute",
        "pg_class",
        "pg_namespace",
        "pg_inherits",
        "pg_depend",
        "pg_rewrite",
        "pg_proc",
        "pg_type",
    ];
    for relation in catalogue {
        bed.admin("orders", &format!("REVOKE SELECT ON pg_catalog.{relation} FROM PUBLIC"));
        let finished = installation.psql(&all);
        has_none_of(&finished, &SEEDED);
        for way in ["psycopg-simple", "psycopg-binary"] {
            has_none_of(&each(&installation, way, &READS), &SEEDED);
        }
        bed.admin("orders", &format!("GRANT SELECT ON pg_catalog.{relation} TO PUBLIC"));
    }
    // It was the gate's question that failed, in sessions that had not asked before.
    let refused = installation.records();
    let failed = refused.0.iter().filter(|one| one.is_gates_own() && one.status() == "failed").count();
    assert!(failed >= catalogue.len(), "{failed} look-ups failed");
    installation.psql("SELECT code, name FROM people;\n").says("[secret]|Ann");
    installation.finish();
}
