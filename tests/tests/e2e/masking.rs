//! Masking against a real server: whatever an agent writes, no seeded value reaches it, the record, or a log.

use interceptor_tests::{
    Bed, Finished, Installation, Job, RunningBed, Setup, installation::DSN, places, process::PATIENCE,
};

/// Values that nobody may see. They have no shape that a detector knows, so that columns alone tell what they are.
const SEEDED: [&str; 3] = ["zqx-sesame-4711", "zqx-pepper-8812", "zqx-tarragon-93"];
/// Values that tell by themselves what they are.
const TELLING: [&str; 3] = ["4111111111111111", "walter.white@example.org", "078-05-1120"];

const LABELS: &str = r#"
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

const SEEING: &str = r#"
@id("sees")
permit (principal, action in Action::"see", resource is Label in Resource::"orders");
"#;

const SCHEMA: &str = r#"
SET ROLE app;
CREATE TYPE pair AS (a text, b text);
CREATE TABLE people (id int PRIMARY KEY, name text, code text UNIQUE, number text, tags text[], loud text
    GENERATED ALWAYS AS (upper(code)) STORED);
INSERT INTO people SELECT n, 'name' || n, c, '4111111111111111', ARRAY[c] FROM
    (VALUES (1, 'zqx-sesame-4711'), (2, 'zqx-pepper-8812'), (3, 'zqx-tarragon-93')) AS v(n, c);
UPDATE people SET tags = ARRAY['a'];
CREATE TABLE parts (id int, part_code text) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
INSERT INTO parts SELECT id, code FROM people;
CREATE TABLE heirs (more text) INHERITS (people);
INSERT INTO heirs (id, code) VALUES (9, 'zqx-tarragon-93');
CREATE VIEW renamed AS SELECT id AS number_of, code AS harmless, name FROM people;
CREATE VIEW nested AS SELECT harmless AS plain, number_of FROM renamed;
CREATE VIEW computed AS SELECT id, code || '!' AS loud, id + 1 AS next FROM people;
CREATE MATERIALIZED VIEW kept AS SELECT code AS k FROM people;
CREATE TABLE talk (id int, body text, doc jsonb, raw bytea, num numeric, big bigint, mails text[], p pair);
INSERT INTO talk VALUES (1, 'mail walter.white@example.org now, ssn 078-05-1120',
    '{"m": "walter.white@example.org", "n": 4111111111111111}', 'walter.white@example.org', 4111111111111111,
    4111111111111111, ARRAY['walter.white@example.org'], ROW('walter.white@example.org', '078-05-1120'));
CREATE TABLE things (id int, kind text);
INSERT INTO things SELECT id, code FROM people;
CREATE SCHEMA clean;
CREATE TABLE clean.things (id int, kind text);
CREATE TABLE scratch (id int, body text);
CREATE FUNCTION peep() RETURNS text LANGUAGE sql STABLE AS 'SELECT code FROM people LIMIT 1';
CREATE FUNCTION tell() RETURNS int LANGUAGE plpgsql AS
    'BEGIN RAISE NOTICE ''%'', (SELECT code FROM people LIMIT 1); RETURN 1; END';
CREATE FUNCTION fail() RETURNS int LANGUAGE plpgsql AS
    'BEGIN RAISE EXCEPTION ''%'', (SELECT code FROM people LIMIT 1) USING DETAIL = (SELECT code FROM people LIMIT 1); END';
CREATE TABLE twice (id int, a_code text);
INSERT INTO twice SELECT n, code FROM people, generate_series(1, 2) AS n;
CREATE TABLE refs (id int, r_code text REFERENCES people (code));
INSERT INTO refs SELECT id, code FROM people WHERE id < 4;
CREATE TABLE keys (k text PRIMARY KEY);
CREATE TABLE checked (id int, c_code text NOT NULL CHECK (c_code LIKE 'zqx%'));
INSERT INTO checked SELECT id, code FROM people WHERE id < 4;
CREATE FUNCTION everyone() RETURNS SETOF people LANGUAGE sql STABLE AS 'SELECT * FROM ONLY people';
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN RAISE NOTICE ''%'', (SELECT code FROM people LIMIT 1); RETURN NEW; END';
CREATE TABLE noisy (id int);
CREATE TRIGGER noise BEFORE INSERT ON noisy FOR EACH ROW EXECUTE FUNCTION keep();
ANALYZE people;
"#;

fn stage(policies: &[&str]) -> (RunningBed, Installation) {
    let bed = Bed::start();
    bed.admin("orders", SCHEMA);
    let mut setup = Setup::of(&bed).labels(LABELS);
    for (place, policy) in policies.iter().enumerate() {
        setup = setup.policy(&format!("{}0-masking.cedar", place + 2), policy);
    }
    (bed, setup.start())
}

/// Every way that we know to write a statement whose answer, error, notice or trace holds what is labelled.
const TRICKS: &[&str] = &[
    // Origins.
    "SELECT code FROM people",
    "SELECT * FROM people",
    "TABLE people",
    "SELECT code AS id, number AS x FROM people AS p",
    "SELECT x FROM (SELECT code AS x FROM people) AS q",
    "WITH q AS (SELECT code FROM people) SELECT * FROM q",
    "WITH RECURSIVE q(n, c) AS (SELECT 1, code FROM people UNION ALL SELECT n + 1, c FROM q WHERE n < 2) SELECT c FROM q",
    "SELECT code FROM ONLY people",
    "SELECT (p).code FROM people p",
    "SELECT p FROM people p",
    "SELECT p.* FROM people p JOIN scratch ON true RIGHT JOIN people q ON true",
    "SELECT loud FROM people",
    "SELECT part_code FROM parts",
    "SELECT part_code FROM parts_1",
    "SELECT code FROM heirs",
    "SELECT harmless FROM renamed",
    "SELECT plain FROM nested",
    "SELECT * FROM nested",
    "SELECT loud FROM computed",
    "SELECT k FROM kept",
    "SELECT \"code\" FROM public.\"people\"",
    "SELECT U&\"\\0063ode\" FROM people",
    "UPDATE people SET name = name RETURNING code",
    "UPDATE people SET name = name RETURNING *",
    "DELETE FROM heirs RETURNING code",
    "INSERT INTO people (id) VALUES (50) ON CONFLICT (id) DO UPDATE SET name = 'x' RETURNING code",
    // Computed.
    "SELECT upper(code), lower(code), reverse(code), md5(code), code || '' FROM people",
    "SELECT code::varchar, code::bytea, code::name, CAST(code AS text) COLLATE \"C\" FROM people",
    "SELECT encode(code::bytea, 'base64'), encode(code::bytea, 'hex'), encode(convert_to(code, 'UTF8'), 'escape') FROM people",
    "SELECT substr(code, 1, 1), substr(code, 2, 1), substr(code, 3, 1), substr(code, 4, 1), ascii(code) FROM people",
    "SELECT left(code, 8), right(code, 8), split_part(code, '-', 2), regexp_replace(code, '^zqx-', '') FROM people",
    "SELECT string_to_array(code, NULL) FROM people",
    "SELECT regexp_split_to_table(code, '') FROM people",
    "SELECT coalesce(code, ''), CASE WHEN true THEN code END, nullif(code, ''), greatest(code, '') FROM people",
    "SELECT max(code), min(code), array_agg(code), string_agg(code, ',') FROM people",
    "SELECT row_to_json(p), to_jsonb(p), p::text, hstore_out FROM people p, (SELECT 1 AS hstore_out) h",
    "SELECT row_to_json(p) FROM people p",
    "SELECT p.row_to_json FROM people p",
    "SELECT to_jsonb(people) ->> 'code' FROM people",
    "SELECT json_agg(p), jsonb_agg(p.*), json_build_object('a', code), xmlforest(code) FROM people p",
    "SELECT array_agg(p)::text, array(SELECT code FROM people), ROW(p.*)::text FROM people p",
    "SELECT concat(p), concat_ws(',', p.*), format('%s', p) FROM people p",
    "SELECT (SELECT code FROM people LIMIT 1)",
    "SELECT (SELECT string_agg(c, '') FROM (SELECT code AS c FROM people) q)",
    "SELECT id::text FROM scratch UNION ALL SELECT code FROM people",
    "SELECT * FROM scratch UNION ALL SELECT id, code FROM people",
    "SELECT body FROM (SELECT id, body FROM scratch UNION ALL SELECT id, code FROM people) q",
    "SELECT id || '' FROM (SELECT * FROM scratch UNION ALL SELECT id, code FROM people) AS q(n, id)",
    "SELECT unnest(ARRAY[code]) FROM people",
    "SELECT u FROM people, unnest(ARRAY[code]) AS u",
    "SELECT j.* FROM people p, jsonb_each_text(to_jsonb(p)) AS j",
    "SELECT j.* FROM people p, json_to_record(row_to_json(p)) AS j(code text, id int)",
    "SELECT (ARRAY[code])[1], (ARRAY(SELECT code FROM people))[1] FROM people",
    "SELECT column1 FROM (VALUES ((SELECT code FROM people LIMIT 1))) v",
    "SELECT upper(upper) FROM (SELECT upper(code) FROM people) q",
    "SELECT first_value(code) OVER (), lag(code) OVER (), string_agg(code, '') OVER () FROM people",
    "SELECT code FROM people FULL JOIN (SELECT code FROM people) q USING (code)",
    "SELECT a.code || '' FROM people a, LATERAL (SELECT a.code AS c) b",
    "SELECT xmlelement(name a, code), xmlagg(xmlelement(name b, code)) FROM people GROUP BY id, code",
    "SELECT jsonb_path_query(to_jsonb(p), '$.code') FROM people p",
    // Functions and texts.
    "SELECT peep()",
    "SELECT * FROM peep()",
    "SELECT tell()",
    "SELECT fail()",
    "SELECT query_to_xml('SELECT code FROM people', true, false, '')",
    "SELECT table_to_xml('people', true, false, '')",
    "SELECT ts_stat('SELECT to_tsvector(code) FROM people')",
    "DO $$ BEGIN RAISE NOTICE '%', (SELECT code FROM people LIMIT 1); END $$",
    "DO $$ BEGIN RAISE EXCEPTION '%', (SELECT code FROM people LIMIT 1); END $$",
    // Written elsewhere.
    "CREATE TABLE stolen AS SELECT code AS c FROM people",
    "SELECT c FROM stolen",
    "CREATE TEMP TABLE stolen_too AS SELECT * FROM people",
    "SELECT * FROM stolen_too",
    "SELECT code INTO TEMP stolen_three FROM people",
    "SELECT * FROM stolen_three",
    "INSERT INTO scratch SELECT id, code FROM people",
    "INSERT INTO scratch TABLE parts",
    "UPDATE scratch SET body = code FROM people",
    "INSERT INTO scratch VALUES (1, (SELECT code FROM people LIMIT 1))",
    "WITH q AS (SELECT code AS c FROM people) INSERT INTO scratch SELECT 1, c FROM q RETURNING body",
    "INSERT INTO scratch SELECT 1, peep()",
    "UPDATE scratch SET body = peep()",
    "CREATE TABLE stolen_four AS SELECT peep() AS c",
    "SELECT c FROM stolen_four",
    "SELECT set_config('my.peep', peep(), false)",
    "SHOW my.peep",
    "SELECT pg_notify('heard', peep())",
    "PREPARE taking(text) AS INSERT INTO scratch VALUES (1, $1)",
    "EXECUTE taking(peep())",
    "MERGE INTO scratch s USING people p ON s.id = p.id WHEN NOT MATCHED THEN INSERT VALUES (p.id, p.code)",
    "SELECT * FROM scratch",
    "CREATE VIEW stolen_view AS SELECT code AS c FROM people",
    "SELECT c FROM stolen_view",
    "CREATE FUNCTION taken() RETURNS SETOF text LANGUAGE sql AS 'SELECT code FROM people'",
    "SELECT taken()",
    "ALTER TABLE people RENAME COLUMN code TO open",
    "ALTER TABLE people RENAME TO others",
    "ALTER TABLE people ADD COLUMN other text GENERATED ALWAYS AS (lower(code)) STORED",
    "ALTER TABLE talk ADD COLUMN x text",
    "SELECT set_config('my.code', code, false) FROM people",
    "SELECT current_setting('my.code', true)",
    "SHOW my.code",
    "SELECT pg_notify('heard', code) FROM people",
    "SELECT lo_from_bytea(0, code::bytea) FROM people",
    // Deciding.
    "SELECT id FROM people WHERE code LIKE 'zqx-s%'",
    "SELECT id FROM people ORDER BY code",
    "SELECT id, code FROM people ORDER BY 2",
    "SELECT count(*) FROM people GROUP BY code HAVING max(code) > 'a'",
    "SELECT DISTINCT code FROM people",
    "SELECT generate_series(1, ascii(code)) FROM people WHERE id = 1",
    "SELECT code FROM people INTERSECT SELECT 'x' || 4711",
    // Errors.
    "SELECT code::int FROM people",
    "SELECT 1 / (CASE WHEN code > '' THEN 0 ELSE 1 END) FROM people",
    "SELECT id FROM people WHERE code::int = 1",
    "INSERT INTO people (id, code) SELECT 77, code FROM people",
    "UPDATE people SET id = 1 WHERE id = 2",
    "UPDATE people SET code = 'x'",
    "SELECT ('{\"a\": \"' || code || '\"')::json FROM people",
    "SELECT no_such_column FROM people",
    // The server's own.
    "SELECT most_common_vals, histogram_bounds FROM pg_stats WHERE tablename = 'people'",
    "SELECT * FROM pg_stats WHERE tablename = 'people'",
    "SELECT stavalues1::text, stavalues2::text FROM pg_statistic",
    "SELECT query FROM pg_stat_activity",
    "EXPLAIN ANALYZE SELECT * FROM people",
    // Out by COPY and cursors.
    "COPY people TO STDOUT",
    "COPY people (code) TO STDOUT (FORMAT csv)",
    "COPY (SELECT code FROM people) TO STDOUT (FORMAT binary)",
    "COPY renamed TO STDOUT",
    "COPY (SELECT harmless FROM renamed) TO STDOUT",
    "COPY talk (body, mails) TO STDOUT",
    "COPY talk TO STDOUT (FORMAT csv)",
    // More origins: what keeps its column's number, and what looks as if it did.
    "SELECT (code), ((code)), people.code, public.people.code FROM people",
    "SELECT (people).code, (people.*).code, (p.p).code FROM people, (SELECT p FROM people p) p",
    "WITH q AS MATERIALIZED (SELECT code FROM people) SELECT code FROM q",
    "SELECT b.c FROM people a, LATERAL (SELECT a.code AS c) b",
    "SELECT code, kind FROM people JOIN things ON things.id = people.id",
    "SELECT a_code FROM twice JOIN people USING (id)",
    "SELECT * FROM people NATURAL JOIN refs",
    "SELECT people FROM people",
    "SELECT p.*::people FROM people p",
    "SELECT ROW(p.*), ROW(code, id) FROM people p",
    "SELECT code FROM people FOR UPDATE",
    "SELECT code FROM people TABLESAMPLE SYSTEM (100)",
    "SELECT everyone()",
    "SELECT * FROM everyone()",
    "SELECT (everyone()).code",
    "SELECT e.code FROM everyone() AS e WITH ORDINALITY",
    "SELECT * FROM ROWS FROM (unnest(ARRAY(SELECT code FROM people)), generate_series(1, 3))",
    "SELECT tags[1], (ARRAY[code, name])[1:2] FROM people",
    "EXPLAIN (ANALYZE, VERBOSE, COSTS OFF) SELECT code FROM people WHERE code > 'a'",
    "INSERT INTO noisy VALUES (1)",
    // More that is computed.
    "SELECT code = 'zqx-sesame-4711', code IS NOT DISTINCT FROM 'a', code IN ('a'), code LIKE 'z%', code ~ 'q' FROM people",
    "SELECT length(code), strpos(code, 'ses'), hashtext(code), octet_length(code), bit_length(code) FROM people",
    "SELECT to_json(code), quote_literal(code), quote_ident(code), translate(code, 'a', 'b'), overlay(code placing 'x' from 1) FROM people",
    "SELECT initcap(code), repeat(code, 2), lpad(code, 40), replace(code, '-', '_'), to_tsvector('simple', code) FROM people",
    "SELECT decode(encode(code::bytea, 'base64'), 'base64'), get_byte(code::bytea, 3), sha256(code::bytea) FROM people",
    "SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY code), mode() WITHIN GROUP (ORDER BY code) FROM people",
    "SELECT max(code) FILTER (WHERE id = 1), array_agg(code ORDER BY id), json_object_agg(id, code) FROM people",
    "SELECT first_value(code) OVER w, nth_value(code, 2) OVER w FROM people WINDOW w AS (ORDER BY id)",
    "SELECT code FROM people UNION SELECT body FROM scratch",
    "SELECT body FROM scratch UNION ALL (SELECT code FROM people ORDER BY id LIMIT 1)",
    "VALUES ((SELECT code FROM people WHERE id = 1)), ('x')",
    "SELECT x.* FROM json_populate_record(NULL::people, (SELECT row_to_json(p) FROM people p LIMIT 1)) AS x",
    "SELECT x.* FROM people p, jsonb_to_record(to_jsonb(p)) AS x(code text)",
    "SELECT xmltable.* FROM people p, XMLTABLE('/a' PASSING xmlelement(name a, p.code) COLUMNS c text PATH '.')",
    "SELECT k, v FROM people p, jsonb_each_text(to_jsonb(p)) AS e(k, v)",
    "SELECT regexp_matches(code, '(.*)'), regexp_split_to_array(code, '-') FROM people",
    "SELECT string_to_table(code, NULL) FROM people",
    "SELECT array_to_string(ARRAY(SELECT code FROM people), ','), array_position(ARRAY(SELECT code FROM people), 'zqx-sesame-4711')",
    "SELECT cursor_to_xml('c', 1, true, false, '')",
    "SELECT database_to_xml(true, false, ''), schema_to_xml('public', true, false, '')",
    // More that decides.
    "SELECT s.id FROM scratch s JOIN people p ON p.code = s.body",
    "SELECT id FROM people WHERE code IN (SELECT body FROM scratch)",
    "SELECT id FROM scratch WHERE EXISTS (SELECT 1 FROM people WHERE code LIKE 'zqx-s%')",
    "SELECT id FROM scratch WHERE (SELECT code FROM people WHERE id = 1) LIKE 'zqx%'",
    "SELECT count(*) FILTER (WHERE code LIKE 'zqx-s%') FROM people",
    "SELECT DISTINCT ON (code) id FROM people",
    "SELECT id FROM people LIMIT (SELECT ascii(code) - 121 FROM people WHERE id = 1)",
    "SELECT id, count(*) FROM people GROUP BY GROUPING SETS ((id), (code))",
    "SELECT row_number() OVER (PARTITION BY code ORDER BY id) FROM people",
    "SELECT pg_sleep(CASE WHEN code LIKE 'zqx-s%' THEN 0.01 ELSE 0 END) FROM people",
    "SELECT id FROM people WHERE CASE WHEN code LIKE 'zqx-s%' THEN 1 / 0 = 1 ELSE true END",
    // Errors that quote what they are about.
    "SELECT code::regclass FROM people",
    "SELECT code::regproc, code::regprocedure FROM people",
    "SELECT code::regtype FROM people",
    "SELECT code::regrole FROM people",
    "SELECT code::regnamespace FROM people",
    "SELECT code::regconfig FROM people",
    "SELECT code::regcollation FROM people",
    "SELECT code::regoper FROM people",
    "SELECT to_tsvector(code::regconfig, 'x') FROM people",
    "SELECT has_table_privilege(code, 'select') FROM people",
    "SELECT has_schema_privilege(code, 'usage'), pg_has_role(code, 'usage') FROM people",
    "SELECT has_column_privilege('people', code, 'select') FROM people",
    "SELECT current_setting(code) FROM people",
    "SELECT set_config(code, 'x', false) FROM people",
    "SELECT pg_get_serial_sequence('people', code) FROM people",
    "SELECT nextval(code), currval(code) FROM people",
    "SELECT timezone(code, now()), date_trunc(code, now()) FROM people",
    "SELECT now() AT TIME ZONE code FROM people",
    "SELECT encode('x', code), convert('x'::bytea, code, 'utf8') FROM people",
    "SELECT code::date, code::uuid, code::inet, code::json, code::xml, code::interval, code::point FROM people",
    "SELECT code::json FROM people",
    "SELECT code::uuid FROM people",
    "SELECT code::int4range FROM people",
    "SELECT code::jsonpath FROM people",
    "SELECT code::tsquery FROM people",
    "SELECT '{}'::jsonb #> code::text[] FROM people",
    "SELECT regexp_replace('x', '(' || code, '') FROM people",
    "SELECT 'x' LIKE code ESCAPE code FROM people",
    "SELECT to_number(code, '9'), to_date(code, 'YYYY') FROM people",
    "SELECT format(code || '%', 1) FROM people",
    "SELECT xpath(code, '<a/>'::xml) FROM people",
    "SELECT xmlparse(document '<a>' || code) FROM people",
    "SELECT code::char(3)::int, code::\"char\"::int FROM people",
    "UPDATE people SET id = NULL WHERE id = 1",
    "UPDATE checked SET c_code = NULL WHERE id = 1",
    "UPDATE checked SET id = 7, c_code = 'no' WHERE id = 1",
    "INSERT INTO checked (id) VALUES (8)",
    "DELETE FROM people WHERE id = 1",
    "CREATE UNIQUE INDEX ON twice (a_code)",
    "CREATE INDEX ON twice ((a_code::int))",
    "ALTER TABLE twice ADD PRIMARY KEY (a_code)",
    "ALTER TABLE twice ADD CONSTRAINT x CHECK (a_code::int > 1)",
    "ALTER TABLE twice ADD FOREIGN KEY (a_code) REFERENCES keys (k)",
    "ALTER TABLE twice ALTER COLUMN a_code TYPE int USING a_code::int",
    "ALTER TABLE twice ADD EXCLUDE USING btree (a_code WITH =)",
    "CREATE STATISTICS st ON id, a_code FROM twice",
    // More of the server's own.
    "SELECT * FROM pg_stats_ext, pg_stats_ext_exprs",
    "SELECT most_common_vals::text::text[] FROM pg_stats WHERE tablename = 'people'",
    "SELECT to_jsonb(s) FROM pg_stats s WHERE tablename = 'people'",
    "SELECT * FROM pg_stat_activity, pg_prepared_statements, pg_cursors",
    "SELECT pg_get_expr('x'::pg_node_tree, 0)",
    "SELECT convert_from(data, 'utf8') FROM pg_largeobject",
    // Out of the database.
    "COPY people TO '/tmp/never'",
    "COPY people TO PROGRAM 'cat'",
    "COPY (SELECT code FROM people) TO PROGRAM 'cat'",
    "SELECT pg_read_file('PG_VERSION'), pg_ls_dir('.')",
    "SELECT lo_export(1, '/tmp/never')",
    "SELECT * FROM dblink('dbname=orders', 'SELECT code FROM people') AS d(c text)",
    "CREATE SUBSCRIPTION s CONNECTION 'dbname=orders' PUBLICATION p",
    "CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw",
    "CREATE PUBLICATION p FOR TABLE people",
    "SELECT * FROM pg_create_logical_replication_slot('s', 'test_decoding')",
    "CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO scratch VALUES (1, NEW.code); RETURN NEW; END'",
    "CREATE TRIGGER t AFTER UPDATE ON people FOR EACH ROW EXECUTE FUNCTION keep()",
    "CREATE RULE r AS ON UPDATE TO people DO ALSO INSERT INTO scratch VALUES (1, OLD.code)",
    "CREATE POLICY p ON people USING (code LIKE 'zqx-s%')",
    // Values that tell by themselves.
    "SELECT * FROM talk",
    "SELECT body, doc, raw, num, big, mails, p FROM talk",
    "SELECT body || '', doc ->> 'm', num::text, big + 0, mails[1], (p).a FROM talk",
    "SELECT encode(body::bytea, 'hex'), encode(doc::text::bytea, 'base64') FROM talk",
    "SELECT array_agg(t), row_to_json(t) FROM talk t GROUP BY id",
    "SELECT body::int FROM talk",
];

/// What may only be sent as several statements of one text.
const TOGETHER: &str = "
BEGIN;
DECLARE c CURSOR FOR SELECT code, upper(code) FROM people;
FETCH ALL FROM c;
DECLARE b BINARY CURSOR FOR SELECT code FROM people;
FETCH 2 FROM b;
COMMIT;
PREPARE p(int) AS SELECT code, reverse(code) FROM people WHERE id >= $1;
EXECUTE p(1);
BEGIN; CREATE TEMP TABLE people (id int, code text); ROLLBACK;
BEGIN;
DECLARE early CURSOR FOR SELECT upper(kind), kind FROM things;
CREATE TEMP TABLE things (id int, kind text);
FETCH ALL FROM early;
ROLLBACK;
DECLARE held CURSOR WITH HOLD FOR SELECT upper(kind), kind FROM things;
SET search_path TO clean, public;
FETCH ALL FROM held;
RESET search_path;
SELECT 1 \\; SELECT code FROM people \\; SELECT 2;
LISTEN heard;
SELECT pg_notify('heard', body) FROM talk;
SELECT 'heard';
BEGIN; INSERT INTO scratch VALUES (5, 'x'); SELECT body, (SELECT code FROM people LIMIT 1) FROM scratch; ROLLBACK;
";

/// Where any of these values is found in `text`, plain or encoded.
pub(crate) fn leaks(text: &str, values: &[&str]) -> Vec<String> {
    use base64::Engine as _;
    let squeezed: String =
        text.chars().filter(|c| c.is_ascii_alphanumeric()).collect::<String>().to_lowercase();
    let mut found = Vec::new();
    for value in values {
        let bare: String =
            value.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
        let hex: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
        let upper: String = value.to_uppercase().bytes().map(|byte| format!("{byte:02x}")).collect();
        let url: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let base64 = base64::engine::general_purpose::STANDARD_NO_PAD.encode(value);
        let md5 = format!("{:x}", <md5::Md5 as md5::Digest>::digest(value.as_bytes()));
        let forms = [
            ("plain", text.contains(*value)),
            ("any case, split", squeezed.contains(&bare)),
            ("reversed", squeezed.contains(&bare.chars().rev().collect::<String>())),
            ("hex", text.to_lowercase().contains(&hex) || text.to_lowercase().contains(&upper)),
            ("url", text.contains(&url)),
            // The last letters hang on what follows.
            ("base64", text.contains(&base64[..base64.len() - 2])),
            ("md5", text.contains(&md5)),
            // The telling part alone.
            (
                "in part",
                value
                    .split('-')
                    .nth(1)
                    .filter(|part| part.len() > 4)
                    .is_some_and(|part| squeezed.contains(part)),
            ),
        ];
        found.extend(forms.iter().filter(|(_, leaks)| *leaks).map(|(form, _)| format!("{value} ({form})")));
    }
    found
}

/// Lines of `text` in which something leaks.
pub(crate) fn leaking(text: &str, values: &[&str]) -> Vec<String> {
    let lines = text.lines().filter(|line| !leaks(line, values).is_empty());
    lines.map(str::to_owned).chain(leaks(text, values)).collect()
}

pub(crate) fn driver(installation: &Installation, way: &str, statements: &[&str]) -> Finished {
    let script = installation.script("masking.py", include_str!("../clients/masking.py"));
    let python = places::python().display().to_string();
    let words = [python.as_str(), &script, DSN, way];
    let input = serde_json::to_string(statements).unwrap();
    Job::start(installation.captured("release-bot", &words), &input).finish(PATIENCE * 4)
}

#[track_caller]
pub(crate) fn is_clean(finished: &Finished, values: &[&str]) {
    assert!(!finished.timed_out, "{finished}");
    let said = format!("{}\n{}", finished.stdout, finished.stderr);
    assert_eq!(leaking(&said, values), [] as [&str; 0]);
}

/// The record and the daemon's log hold nothing either. What an agent itself wrote into a text is its own, unless a
/// detector knows it.
#[track_caller]
fn nothing_is_recorded(installation: &mut Installation) {
    let export = installation.interceptor(&["--json", "audit", "export", "--format", "jsonl"]).succeeded();
    assert!(export.stdout.lines().count() > 50);
    let values = [&SEEDED[..], &TELLING[..]].concat();
    let answers: Vec<&str> =
        export.stdout.lines().filter(|line| !line.contains("\"author\":\"gate\"")).collect();
    assert_eq!(leaking(&answers.join("\n"), &values), [] as [&str; 0]);
    let log = installation.stop().expect("the daemon");
    is_clean(&log, &values);
}

fn all() -> Vec<&'static str> {
    [&SEEDED[..], &TELLING[..]].concat()
}

#[test]
fn the_check_itself_finds_what_leaks() {
    for text in [
        "zqx-sesame-4711",
        "ZQX-SESAME-4711",
        "z|q|x|-|s|e|s|a|m|e|-|4|7|1|1",
        "1174-emases-xqz",
        "7a71782d736573616d652d34373131",
        "enF4LXNlc2FtZS00NzEx",
        "sesame",
    ] {
        assert!(!leaks(text, &SEEDED).is_empty(), "{text}");
    }
    assert!(leaks("name1 [secret] 17", &all()).is_empty());
}

#[test]
fn nothing_leaks_through_psql() {
    let (bed, mut installation) = stage(&[EVERYTHING]);
    // COPY TO STDOUT too is one text.
    let text: String = TRICKS.iter().map(|trick| format!("{trick};\n")).collect();
    let finished = installation.psql(&(text + TOGETHER + "\nSELECT 'the end', 1;\n"));
    assert!(finished.stdout.contains("the end|1"), "{finished}");
    assert!(finished.stdout.contains("[secret]") && finished.stdout.contains("[email]"), "{finished}");
    is_clean(&finished, &all());
    assert_eq!(bed.admin("orders", "SELECT count(*) FROM scratch WHERE body LIKE 'zqx%'"), "0");
    assert_eq!(
        bed.admin("orders", "SELECT count(*) FROM pg_class WHERE relname LIKE 'stolen%' AND relkind = 'r'"),
        "0"
    );
    nothing_is_recorded(&mut installation);
    installation.finish();
}

fn nothing_leaks_through(way: &str) {
    let (_bed, mut installation) = stage(&[EVERYTHING]);
    let finished = driver(&installation, way, TRICKS);
    assert!(finished.stdout.trim_end().ends_with("done"), "{finished}");
    assert!(finished.stdout.contains("[secret]") && finished.stdout.contains("[email]"), "{finished}");
    is_clean(&finished, &all());
    nothing_is_recorded(&mut installation);
    installation.finish();
}

#[test]
fn nothing_leaks_through_psycopg_in_text() {
    nothing_leaks_through("psycopg-text");
}

#[test]
fn nothing_leaks_through_psycopg_in_binary() {
    nothing_leaks_through("psycopg-binary");
}

#[test]
fn nothing_leaks_through_asyncpg() {
    nothing_leaks_through("asyncpg");
}

/// What may decide is not seen for that: statements that were refused before are carried out now, and masked.
#[test]
fn nothing_leaks_where_labelled_data_may_decide() {
    let filters = "@id(\"filters\") permit (principal, action == Action::\"label.filter\", resource is Label in Resource::\"orders\");";
    let (_bed, mut installation) = stage(&[EVERYTHING, filters]);
    for way in ["psycopg-text", "asyncpg"] {
        let finished = driver(&installation, way, TRICKS);
        assert!(finished.stdout.trim_end().ends_with("done"), "{finished}");
        is_clean(&finished, &all());
    }
    installation
        .psql("SELECT id, code FROM people WHERE code LIKE 'zqx-p%';\nSELECT DISTINCT code FROM people WHERE id < 3;\n")
        .says("2|[secret]");
    nothing_is_recorded(&mut installation);
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
    let tricks = TRICKS.iter().filter(|trick| !not_followed.iter().any(|part| trick.contains(part)));
    let tricks: Vec<&str> = tricks.copied().collect();
    for way in ["psycopg-text", "psycopg-binary", "asyncpg"] {
        let finished = driver(&installation, way, &tricks);
        assert!(finished.stdout.trim_end().ends_with("done"), "{finished}");
        is_clean(&finished, &all());
    }
    let text: String = tricks.iter().map(|trick| format!("{trick};\n")).collect();
    is_clean(&installation.psql(&text), &all());
    // They were carried out.
    assert_ne!(bed.admin("orders", "SELECT count(*) FROM scratch WHERE body LIKE 'zqx%'"), "0");
    assert_ne!(
        bed.admin("orders", "SELECT count(*) FROM pg_class WHERE relname LIKE 'stolen%' AND relkind = 'r'"),
        "0"
    );
    nothing_is_recorded(&mut installation);
    installation.finish();
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
        let finished = driver(
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
    is_clean(&binary, &all());
    // As an option says that is not followed.
    let refused = copied("COPY people (code) TO STDOUT (FORMAT csv, DELIMITER ';')");
    assert!(refused.stderr.contains("label.copy"), "{refused}");
    for text in [
        "COPY people TO STDOUT",
        "COPY talk TO STDOUT",
        "COPY heirs TO STDOUT (FORMAT csv)",
        "COPY parts_1 TO STDOUT (FORMAT binary)",
    ] {
        is_clean(&copied(text), &all());
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
        let finished = driver(&installation, way, &texts);
        assert!(finished.stdout.contains("['[secret]']"), "{finished}");
        assert!(finished.stdout.contains("['[email]']"), "{finished}");
        is_clean(&finished, &all());
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
    assert_eq!(leaking(&export.stdout, &all()), [] as [&str; 0]);
    is_clean(&installation.stop().expect("the daemon"), &all());
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
