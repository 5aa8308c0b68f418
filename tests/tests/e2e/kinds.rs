//! Types: a labelled column of any is masked or NULL, and so is a value that tells by itself what it is, in text and in
//! binary.

use interceptor_tests::{Bed, Installation, RunningBed, Setup};

use crate::masking::{EVERYTHING, each, has_none_of};

const MAIL: &str = "walter.white@example.org";
const CARD: &str = "4111111111111111";
/// What stands in the columns that are labelled, and tells nothing by itself.
const SEEDED: &str = "zqx-sesame-4711";

const LABELS: &str = r#"
[label.secret]
columns = ["public.labelled.*"]
mask = "redact"

[label.card]
detect = ["card"]
mask = "null"

[label.email]
detect = ["email", "ip", "us_ssn"]
mask = "redact"
"#;

const TYPES: &str = "
SET ROLE app;
CREATE TYPE pair AS (a text, n bigint);
CREATE TYPE nest AS (p pair, l text[], r int8range);
CREATE TYPE mood AS ENUM ('calm', 'walter.white@example.org', 'zqx-sesame-4711');
CREATE TYPE words AS RANGE (subtype = text);
CREATE TYPE longs AS RANGE (subtype = int8);
CREATE DOMAIN word AS text CHECK (value <> '');
CREATE DOMAIN sum AS numeric(30, 2);
";

/// Types, and a value of each in which a mail address or a card's number stands.
const TELLING: &[(&str, &str)] = &[
    ("text", "'MAIL'"),
    ("varchar(40)", "'MAIL'"),
    ("char(30)", "'MAIL'"),
    ("name", "'MAIL'"),
    ("word", "'MAIL'"),
    ("mood", "'MAIL'"),
    ("bytea", "'MAIL'"),
    ("xml", "'<a>MAIL</a>'"),
    ("json", "'{\"a\": \"MAIL\"}'"),
    ("jsonb", "'{\"a\": [CARD, CARD.0]}'"),
    ("int8", "CARD"),
    ("numeric", "CARD"),
    ("numeric(30, 2)", "CARD"),
    ("sum", "CARD"),
    ("float8", "CARD"),
    ("money", "CARD::numeric::money"),
    ("text[]", "ARRAY['a', 'MAIL']"),
    ("text[][]", "'[0:0][2:3]={{a,MAIL}}'"),
    ("int8[]", "ARRAY[1, CARD]"),
    ("numeric(30, 2)[]", "ARRAY[1, CARD]"),
    ("money[]", "ARRAY[CARD::numeric::money]"),
    ("bytea[]", "ARRAY['MAIL'::bytea]"),
    ("jsonb[]", "ARRAY['{\"a\": \"MAIL\"}'::jsonb]"),
    ("word[]", "ARRAY['MAIL']::word[]"),
    ("mood[]", "ARRAY['calm', 'MAIL']::mood[]"),
    ("pair", "ROW('MAIL', 1)"),
    ("pair", "ROW('a', CARD)"),
    ("pair[]", "ARRAY[ROW('MAIL', 1), ROW('a', CARD)]::pair[]"),
    ("nest", "ROW(ROW('a', 1), ARRAY['MAIL'], NULL)"),
    ("nest", "ROW(ROW('a', CARD), ARRAY['a'], NULL)"),
    ("nest", "ROW(NULL, NULL, int8range(1, CARD))"),
    ("nest[]", "ARRAY[ROW(ROW('MAIL', 1), NULL, NULL)]::nest[]"),
    ("int8range", "int8range(CARD, CARD + 2)"),
    ("int8range", "int8range(NULL, CARD)"),
    ("numrange", "numrange(CARD.00, CARD.50)"),
    ("int8range[]", "ARRAY[int8range(1, 2), int8range(CARD, NULL)]"),
    ("int8multirange", "int8multirange(int8range(1, 2), int8range(CARD, CARD + 1))"),
    ("nummultirange", "nummultirange(numrange(1, CARD.5))"),
    ("words", "words('MAIL', 'z')"),
    ("longs", "longs(1, CARD)"),
    ("longs_multi", "longs_multi(longs(1, CARD))"),
    ("inet", "'192.168.7.11'"),
    ("cidr", "'192.168.7.0/24'"),
    ("inet[]", "ARRAY['192.168.7.11'::inet]"),
    ("tsvector", "'''MAIL'':1 b:2'"),
    ("tsquery", "'''MAIL'' & b'"),
    ("point", "point(1, CARD)"),
    ("box", "box(point(1, 1), point(CARD, 2))"),
    ("polygon", "'((1,1),(2,CARD),(3,3))'"),
    ("path", "'[(1,1),(CARD,2)]'"),
    ("circle", "'<(1,1),CARD>'"),
    ("jsonpath", "'$.a ? (@ == \"MAIL\")'"),
    ("refcursor", "'MAIL'"),
];

/// Types with a value of each that nothing is known of but its column.
const PLAIN: &[(&str, &str)] = &[
    ("text", "'SEED'"),
    ("name", "'SEED'"),
    ("word", "'SEED'"),
    ("mood", "'SEED'"),
    ("bytea", "'SEED'"),
    ("xml", "'<a>SEED</a>'"),
    ("json", "'\"SEED\"'"),
    ("jsonb", "'{\"SEED\": 1}'"),
    ("text[]", "ARRAY['SEED']"),
    ("text[][]", "'[0:0][2:3]={{a,SEED}}'"),
    ("word[]", "ARRAY['SEED']::word[]"),
    ("bytea[]", "ARRAY['SEED'::bytea]"),
    ("pair", "ROW('SEED', 1)"),
    ("pair[]", "ARRAY[ROW('SEED', 1)]::pair[]"),
    ("nest", "ROW(ROW('SEED', 1), ARRAY['SEED'], NULL)"),
    ("words", "words('SEED', 'zz')"),
    ("tsvector", "'''SEED'':1'"),
    ("varbit", "('x' || encode('SEED', 'hex'))::varbit"),
];

/// Of any type, what a column of which nothing is known and nothing is to be found shows.
const OPEN: &[(&str, &str, &str)] = &[
    ("int4range", "int4range(1, 7)", "[1,7)"),
    ("int8range", "int8range(1, NULL)", "[1,)"),
    ("tstzrange", "tstzrange('2026-01-02 03:04:05+00', NULL)", "2026"),
    ("daterange", "daterange('2026-01-02', '2026-02-03')", "2026"),
    ("int8multirange", "int8multirange(int8range(1, 7))", "[1,7)"),
    ("words", "words('a', 'b')", "[a,b)"),
    ("pair", "ROW('abc', 17)", "(abc,17)"),
    ("nest", "ROW(ROW('abc', 17), ARRAY['d'], int8range(1, 7))", "abc"),
    ("mood", "'calm'", "calm"),
    ("money", "1234.56::numeric::money", "1,234.56"),
    ("interval", "interval '1 day 02:03:04'", "02:03:04"),
    ("bit(8)", "B'10110001'", "10110001"),
    ("macaddr", "'08:00:2b:01:02:03'", "08:00:2b:01:02:03"),
    ("numeric(12, 2)", "1234567.89", "1234567.89"),
    ("float8", "1.5e300", "1.5e+300"),
    ("point", "point(1, 2.5)", "(1,2.5)"),
    ("int4[]", "'[2:4]={100,200,300}'", "[2:4]={100,200,300}"),
    ("uuid", "'550e8400-e29b-41d4-a716-446655440000'", "550e8400"),
];

fn written(value: &str) -> String {
    value.replace("MAIL", MAIL).replace("CARD", CARD).replace("SEED", SEEDED)
}

/// A table with a column `cN` for each.
fn table(name: &str, columns: &[(&str, &str)]) -> String {
    let kind = |kind: &str| kind.replace("longs_multi", "longs_multirange");
    let columns: Vec<(String, String)> = columns
        .iter()
        .map(|(of, value)| (kind(of), written(&value.replace("longs_multi", "longs_multirange"))))
        .collect();
    let typed: Vec<String> =
        columns.iter().enumerate().map(|(place, (kind, _))| format!("c{place} {kind}")).collect();
    let values: Vec<&str> = columns.iter().map(|(_, value)| value.as_str()).collect();
    format!(
        "CREATE TABLE {name} ({}); INSERT INTO {name} VALUES ({});\n",
        typed.join(", "),
        values.join(", ")
    )
}

fn stage() -> (RunningBed, Installation) {
    let bed = Bed::start();
    let open: Vec<(&str, &str)> = OPEN.iter().map(|(kind, value, _)| (*kind, *value)).collect();
    let tables = [("telling", TELLING), ("labelled", PLAIN), ("open", &open)];
    let tables: String = tables.iter().map(|(name, columns)| table(name, columns)).collect();
    bed.admin("orders", &format!("{TYPES}{tables}"));
    let installation = Setup::of(&bed).labels(LABELS).policy("20-kinds.cedar", EVERYTHING).start();
    (bed, installation)
}

/// Each column by itself, all in one row, and all copied.
fn statements() -> Vec<String> {
    let each = |table: &str, count: usize| {
        (0..count).map(|place| format!("SELECT c{place} FROM {table}")).collect::<Vec<_>>()
    };
    let whole = [
        "SELECT * FROM telling",
        "SELECT * FROM labelled",
        "SELECT t FROM telling t",
        "SELECT l FROM labelled l",
    ];
    let whole = whole.map(str::to_owned).to_vec();
    let copies = [
        "COPY telling TO STDOUT",
        "COPY labelled TO STDOUT",
        "COPY telling TO STDOUT CSV",
        "COPY labelled TO STDOUT CSV",
    ];
    [each("telling", TELLING.len()), each("labelled", PLAIN.len()), whole, copies.map(str::to_owned).to_vec()]
        .concat()
}

/// What may come of a value: nothing, or what stands for it.
fn is_hidden(shown: &str) -> bool {
    let left = ["[email]", "[secret]", "NULL", "None", "null"]
        .iter()
        .fold(shown.to_owned(), |left, part| left.replace(part, ""));
    // What stands beside it in its array, row or document.
    !left.contains("4111")
        && !left.contains("4,111")
        && !left.contains("white")
        && !left.contains("192.168")
        && !left.contains("zqx")
}

#[test]
fn values_of_every_type_are_masked_or_null() {
    let (_bed, installation) = stage();
    let all = [MAIL, CARD, "192.168.7.11", SEEDED];
    let statements = statements();
    let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
    let text: String = statements.iter().map(|statement| format!("{statement};\n")).collect();
    let finished = installation.psql(&(text + "SELECT 'the end', 1;\n")).says("the end|1").says("[email]");
    has_none_of(&finished, &all);
    let shown: Vec<&str> = finished.stdout.lines().filter(|line| !is_hidden(line)).collect();
    assert_eq!(shown, [] as [&str; 0], "{finished}");
    for way in ["psycopg-text", "psycopg-binary", "asyncpg"] {
        let finished = each(&installation, way, &statements);
        assert!(finished.stdout.trim_end().ends_with("done"), "{finished}");
        has_none_of(&finished, &all);
        for line in finished.stdout.lines() {
            assert!(is_hidden(line), "{way}: {line}");
            // As the server sends an int8, and the digits of a numeric.
            let escaped = [r"\x0e\x9b\x08\xa5h\xf1\xc7", r"\x10\x0f\x04W\x04W\x04W"];
            assert!(escaped.iter().all(|bytes| !line.contains(bytes)), "{way}: {line}");
        }
    }
    let binary = ["COPY labelled TO STDOUT BINARY", "COPY telling TO STDOUT BINARY"];
    for copy in binary {
        has_none_of(&installation.psql(&format!("{copy};\n")), &all);
    }
    installation.finish();
}

#[test]
fn values_in_which_nothing_is_found_are_shown_whatever_their_type() {
    let (_bed, installation) = stage();
    let statements: Vec<String> = (0..OPEN.len()).map(|place| format!("SELECT c{place} FROM open")).collect();
    let text: String = statements.iter().map(|statement| format!("{statement};\n")).collect();
    let finished = installation.psql(&text);
    for (place, (kind, _, shown)) in OPEN.iter().enumerate() {
        let line = finished.stdout.lines().nth(place).unwrap_or_default();
        assert!(line.contains(shown), "{kind}: {line:?}\n{finished}");
    }
    let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
    for way in ["psycopg-binary", "asyncpg"] {
        let finished = each(&installation, way, &statements);
        for (place, (kind, ..)) in OPEN.iter().enumerate() {
            let begins = format!("{{\"case\": {place}, \"step\": 0, \"ended\": \"answered\"");
            let line = finished.stdout.lines().find(|line| line.starts_with(&begins)).unwrap_or_default();
            assert!(!line.is_empty() && !line.contains("None,)"), "{way}: {kind}: {line:?}\n{finished}");
        }
    }
    installation.finish();
}

/// asyncpg asks the catalogue what types are made of, in a recursive query of its own.
#[test]
fn a_driver_that_asks_for_types_reads_values_of_them() {
    let (bed, installation) = stage();
    let wanted = [
        ("pair", "<Record a='abc' n=17>"),
        ("nest", "<Record p=<Record a='abc' n=17> l=['d'] r=<Range [1, 7)>>"),
        ("mood", "'calm'"),
        ("int4range", "<Range [1, 7)>"),
    ];
    let column = |kind: &str| OPEN.iter().position(|(of, ..)| *of == kind).expect("a column");
    let statements = wanted.map(|(kind, _)| format!("SELECT c{} FROM open", column(kind)));
    let more = ["SELECT c FROM more", "SELECT x FROM more", "SELECT l FROM more"];
    bed.admin(
        "orders",
        "SET ROLE app; CREATE TABLE more (c pair[], x xml, l longs); INSERT INTO more VALUES \
         (ARRAY[ROW('abc', 17)]::pair[], '<a>b</a>', longs(1, 7))",
    );
    let statements: Vec<&str> = statements.iter().map(String::as_str).chain(more).collect();
    let shown = wanted.map(|(_, shown)| shown);
    let more = ["[<Record a='abc' n=17>]", "'<a>b</a>'", "<Range [1, 7)>"];
    let finished = each(&installation, "asyncpg", &statements);
    for (place, shown) in shown.iter().chain(&more).enumerate() {
        let begins = format!("{{\"case\": {place}, \"step\": 0, \"ended\": \"answered\"");
        let line = finished.stdout.lines().find(|line| line.starts_with(&begins)).unwrap_or_default();
        assert!(line.contains(shown), "{shown}: {line:?}\n{finished}");
    }
    installation.finish();
}
