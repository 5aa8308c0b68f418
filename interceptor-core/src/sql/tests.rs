//! What texts do, what is refused, and what no text may cause.

use super::*;
use crate::model::Target;

/// Effects in a short form: `data.read t`, `function.call f()`, `schema.create +t`.
fn effects(statement: &Statement) -> String {
    let dotted = |name: &Name| match &name.schema {
        Some(schema) => format!("{schema}.{}", name.name),
        None => name.name.clone(),
    };
    let mut all: Vec<String> = statement
        .effects
        .iter()
        .map(|(verb, reference)| {
            let target = match reference {
                Reference::Resource => "*".to_owned(),
                Reference::Relation(name) => dotted(name),
                Reference::Alone(name) => format!("={}", dotted(name)),
                Reference::NewRelation(name) => format!("+{}", dotted(name)),
                Reference::Function(name) => format!("{}()", dotted(name)),
                Reference::SetConfig { function, setting, value } => {
                    let [setting, value] = [setting, value].map(|word| word.as_deref().unwrap_or("?"));
                    format!("{}({setting}, {value})", dotted(function))
                }
                Reference::Attribute(name) => return format!(".{name}"),
                Reference::Other { kind, name } => format!("{kind}:{name}"),
                Reference::Setting(name) => format!("={name}"),
            };
            format!("{verb} {target}", verb = verb.as_str())
        })
        .collect();
    let own = statement.operators.iter().filter(|name| !builtin::is_builtin_operator(name));
    all.extend(own.map(|name| format!("function.call {name}()")));
    all.sort();
    all.join(", ")
}

fn one(text: &str) -> Statement {
    match analyze(text).as_deref() {
        Ok([statement]) => statement.clone(),
        other => panic!("{text}: {other:?}"),
    }
}

/// What texts do, by names as written. `.x` is an attribute, `+x` a new relation, `=x` a setting, `*` the resource.
#[rustfmt::skip]
const TABLE: &[(&str, StatementKind, &str)] = &[
    ("SELECT * FROM ONLY s.t* AS q JOIN LATERAL (SELECT * FROM u) z ON true", StatementKind::Select, "data.read s.t, data.read u"),
    ("TABLE t", StatementKind::Select, "data.read t"),
    ("SELECT 1 FROM customers c, pg_sleep(1), (VALUES (1)) v", StatementKind::Select, "data.read customers, function.call pg_sleep()"),
    ("WITH t AS (SELECT * FROM t) SELECT * FROM t UNION SELECT * FROM t", StatementKind::Select, "data.read t"),
    ("WITH RECURSIVE t AS (SELECT * FROM t) SELECT * FROM t UNION SELECT * FROM t", StatementKind::Select, ""),
    ("WITH a AS (DELETE FROM u RETURNING *) SELECT * FROM a", StatementKind::Select, "data.delete u, data.read u"),
    ("WITH a AS (SELECT 1), b AS (SELECT * FROM a) INSERT INTO a SELECT * FROM b, c", StatementKind::Insert, "data.insert a, data.read c"),
    ("SELECT 1 UNION SELECT * FROM a EXCEPT (WITH x AS (SELECT 1) SELECT * FROM x, y) ORDER BY 1", StatementKind::Select, "data.read a, data.read y"),
    ("SELECT * FROM t WHERE id IN (SELECT id FROM u) FOR UPDATE SKIP LOCKED LIMIT 5", StatementKind::Select, "data.lock t, data.read t, data.read u"),
    ("SELECT a.b, upper(c), COALESCE(x, f(1)), count(*) FILTER (WHERE y) OVER (PARTITION BY z), s.f(1) FROM t AS a", StatementKind::Select, ".b, data.read t, function.call count(), function.call f(), function.call s.f(), function.call upper()"),
    ("SELECT a === b, a OPERATOR(pg_catalog.+) b, a=-1, a<>b, x->>'a', y @> z, d <=> e FROM t", StatementKind::Select, "data.read t, function.call <=>(), function.call ===()"),
    ("UPDATE t SET a = 1", StatementKind::Update, "data.update t"),
    ("UPDATE ONLY t SET a = a + 1 WHERE b", StatementKind::Update, "data.read t, data.update t"),
    ("UPDATE t SET (a, b) = (SELECT 1, 2 FROM u)", StatementKind::Update, "data.read t, data.read u, data.update t"),
    ("DELETE FROM t", StatementKind::Delete, "data.delete t"),
    ("DELETE FROM t USING u WHERE CURRENT OF c", StatementKind::Delete, "data.delete t, data.read t, data.read u"),
    ("INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET a = excluded.a", StatementKind::Insert, ".a, data.insert t, data.read t, data.update t"),
    ("INSERT INTO t DEFAULT VALUES RETURNING id", StatementKind::Insert, "data.insert t, data.read t"),
    ("MERGE INTO t USING s ON t.a = s.a WHEN MATCHED AND f() THEN UPDATE SET a = 1 WHEN NOT MATCHED THEN INSERT VALUES (1)", StatementKind::Merge, ".a, data.insert t, data.read s, data.read t, data.update t, function.call f()"),
    ("SELECT a INTO TEMP foo FROM b", StatementKind::Select, "data.read b, schema.create +pg_temp.foo"),
    ("CREATE TABLE s.a AS SELECT * FROM b", StatementKind::Create, "data.read b, schema.create +s.a"),
    ("CREATE TEMP TABLE a (x int DEFAULT f(), LIKE q INCLUDING ALL, y int REFERENCES r(z)) INHERITS (w)", StatementKind::Create, "data.read q, function.call f(), schema.alter =w, schema.alter r, schema.create +pg_temp.a"),
    ("CREATE TABLE a AS EXECUTE p(1)", StatementKind::Create, "schema.create +a"),
    ("CREATE OR REPLACE VIEW v AS SELECT * FROM t", StatementKind::Create, "data.read t, schema.alter v, schema.create +v"),
    ("CREATE RECURSIVE VIEW v (n) AS SELECT 1 UNION ALL SELECT n FROM v, t", StatementKind::Create, "data.read t, schema.create +v"),
    ("CREATE MATERIALIZED VIEW v AS SELECT * FROM t", StatementKind::Create, "data.read t, schema.create +v"),
    ("REFRESH MATERIALIZED VIEW v", StatementKind::Maintenance, "data.update v"),
    ("CREATE INDEX CONCURRENTLY i ON t (lower(a))", StatementKind::Create, "function.call lower(), schema.alter t, schema.create index:i"),
    ("DROP TABLE IF EXISTS a, b.c CASCADE", StatementKind::Drop, "schema.drop a, schema.drop b.c, unknown *"),
    ("DROP TABLE a, b", StatementKind::Drop, "schema.drop a, schema.drop b"),
    ("DROP SCHEMA s", StatementKind::Drop, "schema.drop schema:s"),
    ("ALTER TABLE s.t OWNER TO x", StatementKind::Alter, "access.change s.t, schema.alter s.t"),
    ("ALTER TABLE t ADD COLUMN a int DEFAULT f(1), ENABLE ROW LEVEL SECURITY", StatementKind::Alter, "access.change t, function.call f(), schema.alter t"),
    ("ALTER TABLE t ATTACH PARTITION u DEFAULT", StatementKind::Alter, "schema.alter t, schema.alter u"),
    ("GRANT SELECT ON t TO u", StatementKind::Grant, "access.change t"),
    ("GRANT a TO b", StatementKind::Grant, "access.change *"),
    ("REVOKE ALL ON SCHEMA s FROM u", StatementKind::Revoke, "access.change *"),
    ("CREATE ROLE x PASSWORD 'y'", StatementKind::Create, "access.change role:x"),
    ("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO x", StatementKind::Alter, "access.change *"),
    ("COPY t FROM STDIN", StatementKind::Copy, "data.insert t"),
    ("COPY t (a) TO '/tmp/x' CSV", StatementKind::Copy, "data.read t, server.reach *"),
    ("COPY (SELECT * FROM t) TO PROGRAM 'sh'", StatementKind::Copy, "data.read t, server.reach *"),
    ("COPY (DELETE FROM t RETURNING *) TO STDOUT", StatementKind::Copy, "data.delete t, data.read t"),
    ("TRUNCATE a, ONLY b CASCADE", StatementKind::Truncate, "data.truncate a, data.truncate b, unknown *"),
    ("LOCK TABLE a IN SHARE MODE", StatementKind::Lock, "data.lock a"),
    ("EXECUTE p(f(1))", StatementKind::Execute, "function.call f()"),
    ("DEALLOCATE ALL", StatementKind::Deallocate, ""),
    ("DECLARE c CURSOR WITH HOLD FOR SELECT * FROM t", StatementKind::Declare, "data.read t"),
    ("FETCH 10 FROM c", StatementKind::Fetch, ""),
    ("CLOSE ALL", StatementKind::Close, ""),
    ("EXPLAIN ANALYZE DELETE FROM t", StatementKind::Explain, "data.delete t"),
    ("EXPLAIN (COSTS off) EXECUTE p", StatementKind::Explain, ""),
    ("DO $$ BEGIN DROP TABLE t; END $$", StatementKind::Do, "unknown *"),
    ("CALL s.p(f())", StatementKind::Call, "function.call f(), function.call s.p()"),
    ("SELECT set_config('Role', 'x', false)", StatementKind::Select, "function.call set_config(role, x)"),
    ("SELECT pg_catalog.set_config($1, f(), false)", StatementKind::Select, "function.call f(), function.call pg_catalog.set_config(?, ?)"),
    ("SET LOCAL search_path TO a, b", StatementKind::Set, "session.change =search_path"),
    ("SET TIME ZONE 'UTC'", StatementKind::Set, "session.change =timezone"),
    ("SET ROLE x", StatementKind::Set, "session.change =role, session.change role:x"),
    ("SET LOCAL ROLE \"X\"", StatementKind::Set, "session.change =role, session.change role:X"),
    ("SET SESSION ROLE /* y */ 'X'", StatementKind::Set, "session.change =role, session.change role:X"),
    ("SET ROLE NONE", StatementKind::Set, "session.change =role"),
    ("SET role TO 'x'", StatementKind::Set, "session.change =role, session.change role:x"),
    ("SET ROLE E'x'", StatementKind::Set, "session.change =role, unknown *"),
    ("SET ROLE 'x''y'", StatementKind::Set, "session.change =role, unknown *"),
    ("SET SESSION AUTHORIZATION x", StatementKind::Set, "session.change =session_authorization, session.change role:x"),
    ("SET SESSION AUTHORIZATION DEFAULT", StatementKind::Set, "session.change =session_authorization"),
    ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", StatementKind::Set, "session.change =transaction"),
    ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", StatementKind::Transaction, "transaction *"),
    ("RESET ALL", StatementKind::Reset, "session.change =all"),
    ("RESET ROLE", StatementKind::Reset, "session.change =role"),
    ("SET my.var = 'x'", StatementKind::Set, "session.change =my.var"),
    ("DISCARD ALL", StatementKind::Discard, "session.change *"),
    ("SHOW search_path", StatementKind::Show, ""),
    ("LISTEN a", StatementKind::Listen, "notify channel:a"),
    ("UNLISTEN *", StatementKind::Listen, "notify *"),
    ("NOTIFY a, 'b'", StatementKind::Notify, "notify channel:a"),
    ("VACUUM (FULL) t", StatementKind::Maintenance, "maintenance t"),
    ("ANALYZE", StatementKind::Maintenance, "maintenance *"),
    ("REINDEX TABLE t", StatementKind::Maintenance, "maintenance t"),
    ("CHECKPOINT", StatementKind::Maintenance, "maintenance *"),
    ("CLUSTER t USING i", StatementKind::Maintenance, "maintenance t"),
    ("LOAD 'x'", StatementKind::Unknown, "server.reach *"),
    ("CREATE EXTENSION dblink", StatementKind::Create, "schema.create extension:dblink, server.reach *"),
    ("CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p", StatementKind::Create, "schema.create subscription:s, server.reach *"),
    ("ALTER SYSTEM SET x = 'y'", StatementKind::Alter, "server.reach *"),
    ("CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql AS 'SELECT ((('", StatementKind::Create, "schema.create function:f"),
    ("CREATE RULE r AS ON SELECT TO t DO INSTEAD SELECT * FROM u", StatementKind::Create, "data.read u, schema.alter t, schema.create trigger:r, unknown *"),
    ("CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()", StatementKind::Create, "function.call f(), schema.alter t, schema.create trigger:g, unknown *"),
    ("CREATE POLICY p ON t USING (a = f())", StatementKind::Create, "access.change policy:p, access.change t, function.call f()"),
    ("COMMENT ON TABLE t IS 'x'", StatementKind::Comment, "schema.alter t"),
    ("COMMENT ON COLUMN t.a IS 'x'", StatementKind::Comment, "schema.alter t"),
    ("SECURITY LABEL ON TABLE t IS 'x'", StatementKind::Alter, "access.change t"),
    ("IMPORT FOREIGN SCHEMA x FROM SERVER s INTO y", StatementKind::Create, "schema.create foreign schema:x, server.reach *, unknown *"),
    ("IMPORT FOREIGN SCHEMA x EXCEPT (a) FROM SERVER s INTO y", StatementKind::Create, "schema.create foreign schema:x, server.reach *, unknown *"),
    ("IMPORT FOREIGN SCHEMA x LIMIT TO (a, \"B\") FROM SERVER s INTO y", StatementKind::Create, "schema.create +y.B, schema.create +y.a, schema.create foreign schema:x, server.reach *"),
    ("CREATE USER MAPPING FOR a SERVER s OPTIONS (password 'x')", StatementKind::Create, "access.change user mapping:a, server.reach *"),
    ("CREATE SCHEMA s CREATE TABLE t (a int)", StatementKind::Create, "schema.create schema:s, unknown *"),
    ("CREATE SEQUENCE s OWNED BY t.a", StatementKind::Create, "schema.create +s"),
    ("ALTER SEQUENCE s RESTART", StatementKind::Alter, "schema.alter s"),
    ("CREATE TYPE x AS ENUM ('a')", StatementKind::Create, "schema.create type:x"),
    ("SELECT * FROM U&\"\\0075sers\" u&\"x\\0079\"", StatementKind::Select, "data.read users"),
    ("SELECT * FROM users -- ; DROP TABLE users", StatementKind::Select, "data.read users"),
    ("SELECT * FROM t TABLESAMPLE system(1)", StatementKind::Select, "data.read t, function.call system()"),
    ("SELECT * FROM ROWS FROM (f(1), generate_series(1,2)) AS x", StatementKind::Select, "function.call f(), function.call generate_series()"),
    ("SELECT * FROM json_table('{}', '$' COLUMNS (a int PATH '$'))", StatementKind::Select, "function.call json_table()"),
    ("SELECT xmlelement(name a, f(1)), xmlparse(document x)", StatementKind::Select, "function.call f()"),
    ("SELECT substring(a from 1), substring(a, 1), extract(year from f(x)), position('a' in b), trim(both from g())", StatementKind::Select, "function.call f(), function.call g(), function.call substring()"),
    ("SELECT (c).f, c.*, (f(1)).*, d.c.x FROM c", StatementKind::Select, ".c, .f, .x, data.read c, function.call f()"),
    ("SELECT CASE WHEN a THEN f() ELSE g() END, ARRAY(SELECT 1 FROM h), EXISTS(SELECT FROM i), a = ANY(SELECT 1 FROM j), ROW(k(1)), a[l(1)], m(VARIADIC n(1)), CAST(o(1) AS int), p(q => r(1))", StatementKind::Select, "data.read h, data.read i, data.read j, function.call f(), function.call g(), function.call k(), function.call l(), function.call m(), function.call n(), function.call o(), function.call p(), function.call r()"),
    ("VALUES (f(1)), ((SELECT 1 FROM t))", StatementKind::Select, "data.read t, function.call f()"),
    ("SELECT * FROM a NATURAL JOIN (b CROSS JOIN c) ORDER BY f(1) LIMIT g(1)", StatementKind::Select, "data.read a, data.read b, data.read c, function.call f(), function.call g()"),
    ("((SELECT 1 FROM a LIMIT 1))", StatementKind::Select, "data.read a"),
    ("SELECT 1 LIMIT ALL", StatementKind::Select, ""),
    ("SELECT $1 FROM t WHERE E'a\\'b' = 'c'", StatementKind::Select, "data.read t"),
    ("SELECT * FROM t FOR UPDATE OF t NOWAIT", StatementKind::Select, "data.lock t, data.read t"),
    ("UPDATE t SET a = DEFAULT RETURNING a", StatementKind::Update, "data.read t, data.update t"),
    ("DELETE FROM t WHERE true", StatementKind::Delete, "data.delete t, data.read t"),
    ("ALTER TABLE t RENAME TO u", StatementKind::Alter, "schema.alter t"),
    ("ALTER TABLE ALL IN TABLESPACE x SET TABLESPACE y", StatementKind::Alter, "schema.alter *, unknown *"),
    ("CREATE TABLE p PARTITION OF q FOR VALUES FROM (1) TO (2)", StatementKind::Create, "schema.alter q, schema.create +p"),
    ("CREATE DATABASE x", StatementKind::Create, "schema.create database:x"),
    ("DROP OWNED BY x", StatementKind::Drop, "access.change *, unknown *"),
    ("SELECT \"ONLY\".x FROM \"ONLY\"", StatementKind::Select, ".x, data.read ONLY"),
    ("SELECT * FROM É", StatementKind::Select, "unknown *"),
    ("SELECT interval '1 day', date '2020-01-01', 'x'::s.t, 1::numeric(10,2), now() AT TIME ZONE 'utc', current_user, a COLLATE \"C\", b IS DISTINCT FROM c, d BETWEEN 1 AND 2, e NOT ILIKE 'x', NOT f, -g", StatementKind::Select, "function.call now()"),
    ("EXPLAIN CREATE TABLE a AS SELECT * FROM b", StatementKind::Explain, "data.read b, schema.create +a"),
    ("SELECT lo_import('/etc/passwd')", StatementKind::Select, "function.call lo_import()"),
    ("COMMENT ON LARGE OBJECT 1 IS 'x'", StatementKind::Comment, "schema.alter *"),
    ("GRANT SELECT ON ALL TABLES IN SCHEMA public TO x", StatementKind::Grant, "access.change *"),
    ("CREATE UNLOGGED TABLE x ()", StatementKind::Create, "schema.create +x"),
    ("WITH x AS MATERIALIZED (SELECT 1) UPDATE t SET a = x.b FROM x WHERE t.id = x.id", StatementKind::Update, ".b, .id, data.read t, data.update t"),
    ("INSERT INTO t (a) SELECT a FROM u ON CONFLICT DO NOTHING", StatementKind::Insert, "data.insert t, data.read u"),
    ("DROP FUNCTION a(int), s.b(text)", StatementKind::Drop, "schema.drop function:a, schema.drop function:s.b"),
    ("DROP SCHEMA a, b", StatementKind::Drop, "schema.drop schema:a, schema.drop schema:b"),
    ("DROP ROLE a, b", StatementKind::Drop, "access.change role:a, access.change role:b"),
    ("DROP USER MAPPING FOR x SERVER y", StatementKind::Drop, "access.change user mapping:x, server.reach *"),
    ("DROP TYPE a, s.b", StatementKind::Drop, "schema.drop type:a, schema.drop type:s.b"),
    ("DROP CAST (a AS s.b)", StatementKind::Drop, "schema.drop cast:a"),
    ("DROP TRIGGER x ON t", StatementKind::Drop, "schema.alter t, schema.drop trigger:x"),
    ("REASSIGN OWNED BY a, b TO c", StatementKind::Alter, "access.change *"),
    ("ALTER TABLE t SET SCHEMA x", StatementKind::Alter, "schema.alter schema:x, schema.alter t"),
    ("ALTER FUNCTION f(int) OWNER TO x", StatementKind::Alter, "access.change *, schema.alter function:f"),
    ("COMMENT ON COLUMN s.t.a IS 'x'", StatementKind::Comment, "schema.alter s.t"),
    ("CREATE OPERATOR === (LEFTARG = a, PROCEDURE = b)", StatementKind::Create, "function.call ===(), schema.create operator:a"),
    ("CREATE CAST (a AS b) WITH FUNCTION f(a)", StatementKind::Create, "schema.create cast:a"),
    ("DROP OPERATOR === (int, int)", StatementKind::Drop, "function.call ===(), schema.drop operator:int"),
    ("CREATE PROCEDURE s.p() LANGUAGE plpgsql AS $$ x $$", StatementKind::Create, "schema.create function:s.p"),
    ("CREATE AGGREGATE s.a (int) (sfunc = f, stype = int)", StatementKind::Create, "schema.create function:s.a"),
    ("ALTER ROLE x SET search_path = 'y'", StatementKind::Alter, "access.change role:x"),
    ("CREATE TABLESPACE x LOCATION '/x'", StatementKind::Create, "schema.create tablespace:x, server.reach *"),
    ("CREATE PUBLICATION p FOR TABLE t", StatementKind::Create, "schema.alter t, schema.create publication:p, server.reach *"),
    ("ALTER EXTENSION x ADD TABLE t", StatementKind::Alter, "schema.alter extension:x, schema.alter t, server.reach *"),
    ("CREATE FUNCTION f() RETURNS int RETURN g()", StatementKind::Create, "function.call g(), schema.create function:f"),
    ("ALTER LARGE OBJECT 1 OWNER TO x", StatementKind::Alter, "access.change *, server.reach large object:x"),
    ("CREATE COLLATION s.c FROM \"C\"", StatementKind::Create, "schema.create collation:s.c"),
    ("DROP TEXT SEARCH CONFIGURATION a", StatementKind::Drop, "schema.drop text search config:a"),
    ("ALTER SYSTEM SET x = 'y'", StatementKind::Alter, "server.reach *"),
];
/// Texts that try the guard's bounds: a beginning, what is repeated in front, the middle, what is repeated behind,
/// the end.
const HOSTILE: &[(&str, &str, &str, &str, &str)] = &[
    ("SELECT ", "", "1", "+1", ""),
    ("SELECT ", "", "1", " AND 1", ""),
    ("SELECT ", "", "1", "::int", ""),
    ("SELECT ", "", "a", ".b", ""),
    ("SELECT ", "", "a", "[1]", ""),
    ("SELECT ", "", "a", ",b", ""),
    ("SELECT ", "", "a", " COLLATE x", ""),
    ("SELECT ", "", "1", " IS NULL", ""),
    ("SELECT ", "", "1", " BETWEEN 1 AND 1", ""),
    ("SELECT ", "", "1", " = NOT 1", ""),
    ("SELECT ", "", "1", " BETWEEN 1 AND NOT 1", ""),
    ("SELECT ", "", "1", " = -1", ""),
    ("SELECT ", "", "1", " LIKE 1", ""),
    ("SELECT ", "", "1", " AT TIME ZONE 1", ""),
    ("SELECT ", "", "1", " OPERATOR(pg_catalog.+) 1", ""),
    ("SELECT ", "", "1", " < ANY(1)", ""),
    ("SELECT ", "", "1", " UNION SELECT 1", ""),
    ("SELECT ", "", "1", " INTERSECT SELECT 1", ""),
    ("SELECT ", "", "1", "; SELECT 1", ""),
    ("SELECT ", "", "1", ";", ""),
    ("SELECT ", "- ", "1", "", ""),
    ("SELECT ", "+-", "1", "", ""),
    ("SELECT ", "NOT ", "1", "", ""),
    ("SELECT ", "operator(+) ", "1", "", ""),
    ("SELECT ", "(", "1", ")", ""),
    ("SELECT ", "(SELECT ", "1", ")", ""),
    ("SELECT ", "f(", "1", ")", ""),
    ("SELECT ", "NOT (NOT - ", "1", ")", ""),
    ("SELECT ", "(SELECT 1 FROM a CROSS JOIN b CROSS JOIN c WHERE NOT ", "1", ")", ""),
    ("SELECT ", "CASE WHEN ", "1", " THEN 1 END", ""),
    ("SELECT ", "CASE WHEN 1 THEN (", "1", ") END", ""),
    ("SELECT ", "ARRAY[", "1", "]", ""),
    ("SELECT ", "ARRAY(SELECT ", "1", ")", ""),
    ("SELECT ", "EXISTS(SELECT ", "1", ")", ""),
    ("SELECT ", "CAST(", "1", " AS int)", ""),
    ("SELECT ", "x IN (SELECT ", "1", ")", ""),
    ("SELECT ", "ROW(", "1", ")", ""),
    ("SELECT ", "extract(year FROM ", "1", ")", ""),
    ("SELECT ", "json_value(", "1", ", 1)", ""),
    ("SELECT ", "coalesce(1, f(x => ", "1", "))", ""),
    ("SELECT ", "a[", "1", "]", ""),
    ("SELECT 1 FROM ", "(SELECT 1 FROM ", "a", ") x", ""),
    ("SELECT 1 FROM ", "(", "a", " CROSS JOIN b)", ""),
    ("SELECT 1 FROM ", "LATERAL (SELECT 1 FROM ", "a", ") x", ""),
    ("SELECT 1 FROM ", "", "a", " CROSS JOIN b", ""),
    ("SELECT 1 FROM ", "", "a", " NATURAL JOIN b", ""),
    ("SELECT 1 FROM ", "", "a", " JOIN b ON c", ""),
    ("SELECT 1 FROM ", "", "a JOIN b", " JOIN c", " ON 1"),
    ("SELECT 1 FROM ", "", "a", ", b", ""),
    ("SELECT 1 WHERE a IN (", "", "1", ",1", ")"),
    ("INSERT INTO t VALUES ", "", "(1)", ",(-1)", ""),
    ("UPDATE t SET ", "", "a=1", ",a=1", ""),
    ("", "WITH a AS (", "SELECT 1", ") SELECT 1", ""),
    ("WITH a AS (SELECT 1)", "", "", ", a AS (SELECT 1)", " SELECT 1"),
    ("WITH a AS (SELECT 1)", "", "", ", a AS (WITH b AS (SELECT * FROM a) SELECT * FROM b)", " SELECT 1"),
    ("", "(", "SELECT 1", ")", ""),
    ("", "(", "SELECT 1", " UNION SELECT 1)", ""),
    ("", "(SELECT 1 UNION ", "SELECT 1", ")", ""),
    ("EXPLAIN ", "(", "SELECT 1", ")", ""),
    ("CREATE VIEW v AS ", "(", "SELECT 1", ")", ""),
    ("CREATE TABLE t (a int", "", "", " CHECK (1)", ")"),
    ("CREATE TABLE t (a int DEFAULT ", "(", "1", ")", ")"),
    ("CREATE SCHEMA s ", "", "", " CREATE TABLE t ()", ""),
    ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT ", "(", "1", ")", "$$"),
    ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS E'SELECT ", "(", "1", ")", "'"),
    ("DO $$ SELECT ", "(", "1", ")", "$$"),
    ("SELECT ", "/*", "1", "*/", ""),
    ("SELECT 'a' ", "", "", "\n'b'", ""),
    ("SELECT 1 ORDER BY ", "", "1", ",1 ASC", ""),
    ("SELECT 1 GROUP BY ", "GROUPING SETS (", "1", ")", ""),
    ("SELECT 1 WINDOW w AS ()", "", "", ", w AS ()", ""),
    ("SELECT CASE", "", "", " WHEN 1 THEN 1", " END"),
    ("MERGE INTO t USING s ON 1", "", "", " WHEN MATCHED THEN DELETE", ""),
    ("GRANT a", "", "", ",a", " TO b"),
    ("SELECT sum(1) ", "", "", "FILTER (WHERE 1)", ""),
    ("SELECT a", "", "", "()", ""),
    ("SELECT * FROM json_table(1, '$' COLUMNS (", "NESTED PATH '$' COLUMNS (", "a int", ")", "))"),
];

/// Each hostile text as often repeated as the guard lets through, and then ten times as often.
fn hostile_texts() -> Vec<String> {
    let mut texts = Vec::new();
    for (begin, open, middle, close, end) in HOSTILE {
        let text = |n: usize| format!("{begin}{}{middle}{}{end}", open.repeat(n), close.repeat(n));
        let (mut passes, mut fails) = (0, 1);
        while guard::check(&text(fails)).is_ok() && fails < 100_000 {
            (passes, fails) = (fails, fails * 2);
        }
        while fails - passes > 1 {
            let n = (passes + fails) / 2;
            if guard::check(&text(n)).is_ok() { passes = n } else { fails = n }
        }
        texts.push(text(passes));
        texts.push(text(passes * 10));
    }
    texts
}

/// How long this thread has been at work, in hundredths of a second, whatever else the machine did meanwhile.
fn worked() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/stat").expect("/proc is mounted");
    let (_, behind_name) = text.rsplit_once(") ").expect("a name in brackets");
    let times = behind_name.split(' ').skip(11).take(2);
    times.map(|time| time.parse::<u64>().expect("a number")).sum()
}

#[test]
fn hostile_texts_need_little_time_and_stack() {
    let texts = hostile_texts();
    let small = std::thread::Builder::new().stack_size(1536 * 1024).spawn(move || {
        for text in texts {
            let start = worked();
            let _ = analyze(&text);
            let took = worked() - start;
            let short: String = text.chars().take(60).collect();
            // A tenth of a second when optimised; tests are not.
            assert!(took < 300, "{short}... took {took} hundredths of a second");
        }
    });
    small.expect("a thread starts").join().expect("no text overflows the stack");
}

#[test]
fn texts_do_what_the_table_says() {
    for (text, kind, told) in TABLE {
        let statement = one(text);
        assert_eq!((statement.kind, effects(&statement).as_str()), (*kind, *told), "{text}");
        assert_eq!(statement.range, 0..text.len() - trailing(text), "{text}");
    }
}

/// Bytes of the comment at the end of one text in the table.
fn trailing(text: &str) -> usize {
    text.find(" -- ").map_or(0, |at| text.len() - at)
}

#[test]
fn queries_are_found_wherever_they_hide() {
    for text in [
        "SELECT a IN (TABLE hidden)",
        "SELECT a IN (SELECT b FROM hidden)",
        "SELECT ARRAY(TABLE hidden)",
        "SELECT EXISTS(TABLE hidden)",
        "SELECT a = ANY(TABLE hidden)",
        "SELECT a < ALL(SELECT b FROM hidden)",
        "SELECT (TABLE hidden)",
        "SELECT ((((TABLE hidden))))",
        "SELECT (a, (TABLE hidden))",
        "SELECT * FROM (TABLE hidden) x",
        "SELECT * FROM LATERAL (TABLE hidden) x",
        "SELECT * FROM ((a JOIN hidden ON true) JOIN b ON true)",
        "SELECT * FROM ((SELECT 1) UNION TABLE hidden) x",
        "SELECT * FROM f((SELECT a FROM hidden))",
        "SELECT * FROM f() WITH ORDINALITY, hidden AS h (a, b)",
        "SELECT * FROM t TABLESAMPLE system((SELECT a FROM hidden))",
        "SELECT 1 ORDER BY (TABLE hidden)",
        "SELECT 1 LIMIT (TABLE hidden)",
        "SELECT 1 OFFSET (TABLE hidden)",
        "SELECT 1 FETCH FIRST (TABLE hidden) ROWS ONLY",
        "SELECT DISTINCT ON ((TABLE hidden)) 1",
        "SELECT 1 GROUP BY (TABLE hidden) HAVING (TABLE b)",
        "SELECT 1 GROUP BY GROUPING SETS ((), ((SELECT a FROM hidden)))",
        "SELECT count(*) FILTER (WHERE (TABLE hidden))",
        "SELECT sum(1) OVER (ORDER BY (TABLE hidden))",
        "SELECT sum(1) OVER w WINDOW w AS (PARTITION BY (TABLE hidden))",
        "SELECT sum(1) OVER (ROWS (SELECT a FROM hidden) PRECEDING)",
        "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY (TABLE hidden))",
        "SELECT array_agg(a ORDER BY (TABLE hidden))",
        "SELECT a[(SELECT b FROM hidden):2]",
        "SELECT CASE (TABLE hidden) WHEN 1 THEN 2 END",
        "SELECT CAST((TABLE hidden) AS int)",
        "SELECT (TABLE hidden)::int",
        "SELECT - (TABLE hidden)",
        "SELECT a AT TIME ZONE (TABLE hidden)",
        "SELECT a BETWEEN (TABLE hidden) AND 1",
        "SELECT a LIKE (TABLE hidden) ESCAPE 'x'",
        "SELECT extract(year FROM (TABLE hidden))",
        "SELECT overlay(a PLACING (TABLE hidden) FROM 1)",
        "SELECT xmlelement(name a, xmlattributes((TABLE hidden) AS b))",
        "SELECT xmlforest((TABLE hidden) AS a)",
        "SELECT json_array(TABLE hidden)",
        "SELECT json_object('a': (TABLE hidden))",
        "SELECT * FROM xmltable('/a' PASSING (TABLE hidden) COLUMNS a int)",
        "SELECT * FROM json_table((TABLE hidden), '$' COLUMNS (a int PATH '$'))",
        "VALUES (1), ((TABLE hidden))",
        "INSERT INTO t TABLE hidden",
        "INSERT INTO t VALUES ((TABLE hidden))",
        "INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET b = (TABLE hidden)",
        "INSERT INTO t VALUES (1) RETURNING (TABLE hidden)",
        "WITH a AS (INSERT INTO t TABLE hidden RETURNING *) TABLE a",
        "UPDATE t SET a = (TABLE hidden)",
        "UPDATE t SET (a, b) = (TABLE hidden)",
        "UPDATE t SET a[(SELECT b FROM hidden)] = 1",
        "UPDATE t SET a = 1 FROM hidden",
        "DELETE FROM t USING hidden",
        "DELETE FROM t WHERE a IN (TABLE hidden)",
        "MERGE INTO t USING hidden ON true WHEN MATCHED THEN DELETE",
        "MERGE INTO t USING s ON true WHEN MATCHED AND EXISTS(TABLE hidden) THEN DELETE",
        "MERGE INTO t USING s ON true WHEN NOT MATCHED THEN INSERT VALUES ((TABLE hidden))",
        "COPY (TABLE hidden) TO STDOUT",
        "COPY hidden TO STDOUT",
        "DECLARE c CURSOR FOR TABLE hidden",
        "PREPARE p AS TABLE hidden",
        "EXECUTE p((TABLE hidden))",
        "CALL p((TABLE hidden))",
        "EXPLAIN TABLE hidden",
        "EXPLAIN (ANALYZE) CREATE TABLE t AS TABLE hidden",
        "CREATE TABLE t AS TABLE hidden",
        "CREATE TABLE t (LIKE hidden)",
        "CREATE VIEW v AS TABLE hidden",
        "CREATE MATERIALIZED VIEW v AS TABLE hidden",
        "SELECT * INTO t FROM hidden",
        "(TABLE hidden)",
        "TABLE a UNION ALL TABLE hidden EXCEPT TABLE b",
        "TABLE a UNION (TABLE b INTERSECT TABLE hidden)",
        "WITH hidden AS (TABLE hidden) TABLE hidden",
        "WITH a AS (WITH hidden AS (SELECT 1) TABLE hidden) TABLE hidden",
        "WITH a AS (TABLE hidden), hidden AS (SELECT 1) TABLE hidden",
        "WITH a AS (SELECT 1) TABLE public.a UNION TABLE hidden",
        "SELECT (WITH hidden AS (SELECT 1) SELECT 1), * FROM hidden",
        "(WITH hidden AS (SELECT 1) TABLE hidden) UNION TABLE hidden",
        "SELECT 1 FROM a, hidden FOR UPDATE",
        "TABLE HiDdEn",
        "TABLE \"hidden\"",
        "TABLE U&\"\\0068idden\"",
        "TABLE/**/hidden",
        "TABLE ONLY hidden",
        "TABLE ONLY (hidden)",
        "TABLE hidden *",
        "SELECT FROM hidden",
        "SELECT 1FROM hidden",
    ] {
        let hidden = Reference::Relation(name("hidden"));
        let Ok(statements) = analyze(text) else { continue };
        let found = statements
            .iter()
            .flat_map(|one| &one.effects)
            .any(|(verb, what)| *what == hidden && *verb == Verb::DataRead || *verb == Verb::Unknown);
        assert!(found, "{text}: {statements:?}");
    }
}

#[test]
fn unbounded_changes_and_limits_are_seen() {
    for (text, has_where, has_limit) in [
        ("UPDATE t SET a = 1", false, false),
        ("UPDATE t SET a = 1 WHERE b", true, false),
        ("DELETE FROM t WHERE CURRENT OF c", true, false),
        ("WITH a AS (DELETE FROM u) SELECT 1 LIMIT 1", false, true),
        ("EXPLAIN ANALYZE DELETE FROM t", false, false),
        ("PREPARE p AS DELETE FROM t", false, false),
        ("SELECT 1 FETCH FIRST ROW ONLY", true, true),
        ("SELECT 1 LIMIT ALL", true, false),
        ("SELECT 1 LIMIT NULL", true, false),
        ("SELECT 1 UNION SELECT 2 LIMIT 1", true, true),
        ("SELECT * FROM (SELECT 1 LIMIT 1) x", true, false),
        ("((SELECT 1 LIMIT 1))", true, true),
        ("DECLARE c CURSOR FOR SELECT 1 LIMIT 1", true, true),
    ] {
        let statement = one(text);
        assert_eq!((statement.has_where, statement.has_limit), (has_where, has_limit), "{text}");
    }
}

#[test]
fn statements_are_split_as_the_server_does() {
    for (text, places) in [
        ("SELECT 1;;SELECT 2;", vec!["SELECT 1", "SELECT 2"]),
        ("/* ; */ SELECT ';' ; -- ;\nSELECT $a$;$a$", vec!["SELECT ';'", "SELECT $a$;$a$"]),
        ("SELECT E'\\';' ; TABLE t", vec!["SELECT E'\\';'", "TABLE t"]),
        ("SELECT 'a\\'; DELETE FROM t --'", vec!["SELECT 'a\\'", "DELETE FROM t"]),
        ("BEGIN; COMMIT", vec!["BEGIN", "COMMIT"]),
        ("CREATE DATABASE d ; SHOW /* x */ ALL /* y */ ;", vec!["CREATE DATABASE d", "SHOW /* x */ ALL"]),
        (
            "CREATE RULE r AS ON INSERT TO t DO (DELETE FROM a; DELETE FROM b); SELECT 1",
            vec!["CREATE RULE r AS ON INSERT TO t DO (DELETE FROM a; DELETE FROM b)", "SELECT 1"],
        ),
    ] {
        let statements = analyze(text).unwrap_or_else(|reason| panic!("{text}: {reason}"));
        let found: Vec<&str> = statements.iter().map(|statement| &text[statement.range.clone()]).collect();
        assert_eq!(found, places, "{text}");
    }
    for text in ["", " ", ";;", "-- nothing", "/* a /* b */ */"] {
        assert_eq!(one(text).kind, StatementKind::Empty, "{text:?}");
    }
}

#[test]
fn what_cannot_be_read_takes_the_batch_with_it() {
    for text in [
        "SELECT 1; SELEC 2",
        "SELECT * FROM only",
        "SELECT 1 /*! + 1 */",
        "SELECT 1 /*M! + 1 */",
        "SELECT 1a",
        "SELECT $1FROM t",
        "SELECT U&'!0041' UESCAPE '!'",
        // The server continues an escape string on the next line, the parser does not.
        "SELECT E'a'\n'b\\' FROM secret --'",
        "SELECT E'a' -- x\n'b\\' FROM secret --'",
        "SELECT 'a",
        "SELECT \"a",
        "SELECT $a$ b",
        "SELECT /* a /* b */",
        "SELECT 1\0",
        "\u{feff}SELECT 1",
        "SELECT (1",
        "SELECT 1)",
        "SELECT CASE WHEN 1 THEN 2",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END",
        "SELECT :name",
        "SELECT {a}",
        "SELECT 1 \\gexec",
    ] {
        assert!(analyze(text).is_err(), "{text}: {:?}", analyze(text));
    }
    let long = format!("SELECT '{}'", "a".repeat(MAX_BYTES));
    assert!(analyze(&long).is_err());
    assert!(analyze(&format!("SELECT {}1{}", "(".repeat(65), ")".repeat(65))).is_err());
    assert!(analyze(&format!("SELECT {}1{}", "(".repeat(64), ")".repeat(64))).is_ok());
    let values = format!("INSERT INTO t VALUES {}(1)", "(1, -2, 'x'), ".repeat(2000));
    assert!(analyze(&values).is_ok(), "{:?}", analyze(&values));
}

#[test]
fn what_cannot_be_judged_is_unknown() {
    for text in [
        "DO $$ BEGIN END $$",
        "SELECT * FROM É",
        "CREATE RULE r AS ON INSERT TO t DO INSTEAD NOTHING",
        "CREATE SCHEMA s CREATE TABLE t (a int)",
        "DROP TABLE t CASCADE",
        "SELECT * FROM GRAPH_TABLE (g MATCH (a) COLUMNS (a.x))",
        "SELECT 1 UNION WITH a AS (DELETE FROM t) SELECT 1",
    ] {
        let unknown = analyze(text).map_or(true, |all| all.iter().any(|one| one.unknown.is_some()));
        assert!(unknown, "{text}: {:?}", analyze(text));
    }
}

#[test]
fn sessions_and_transactions_are_followed() {
    use TransactionVerb::{Begin, Commit, Other, Prepared, Rollback};
    for (text, verb) in [
        ("BEGIN", Begin),
        ("START TRANSACTION READ ONLY", Begin),
        ("COMMIT AND CHAIN", Commit),
        ("END", Commit),
        ("PREPARE TRANSACTION 'x'", Commit),
        ("ROLLBACK", Rollback),
        ("ABORT", Rollback),
        ("ROLLBACK TO SAVEPOINT a", Other),
        ("SAVEPOINT a", Other),
        ("RELEASE a", Other),
        ("COMMIT PREPARED 'x'", Prepared),
        ("SET TRANSACTION READ ONLY", Other),
    ] {
        assert_eq!(one(text).transaction, Some(verb), "{text}");
    }
    let prepared = one("PREPARE \"P\" (int) AS  SELECT * FROM t WHERE a = $1 ;");
    let text = "SELECT * FROM t WHERE a = $1".to_owned();
    assert_eq!(prepared.session, Some(SessionChange::Prepared { name: "P".to_owned(), text }));
    assert_eq!(one("DEALLOCATE Foo").session, Some(SessionChange::Deallocated(Some("foo".to_owned()))));
    assert_eq!(one("DEALLOCATE PREPARE ALL").session, Some(SessionChange::Deallocated(None)));
    assert_eq!(one("DISCARD ALL").session, Some(SessionChange::Discarded));
    assert_eq!(one("DISCARD PLANS").session, None);
    for text in ["EXECUTE P(1)", "EXPLAIN ANALYZE EXECUTE p", "CREATE TABLE t AS EXECUTE p(1)"] {
        assert_eq!(one(text).executes.as_deref(), Some("p"), "{text}");
    }
}

fn object(schema: &str, name: &str) -> Object {
    Object { database: "db".to_owned(), schema: schema.to_owned(), name: name.to_owned(), oid: None }
}

fn name(name: &str) -> Name {
    Name { schema: None, name: name.to_owned() }
}

/// A catalogue with the table `users`, the view `v` on it, the table `ruled`, and some functions.
fn answer() -> Answer {
    let found = |schema: &str, name: &str, reads: Vec<Object>, has_rules| Relation::Found {
        object: object(schema, name),
        rows: Rows::Own,
        reads,
        columns: Vec::new(),
        children: Vec::new(),
        consequences: Vec::new(),
        has_rules,
    };
    let built_in = |oids: &[u32]| Function { users: Vec::new(), built_in: oids.to_vec() };
    let users = |name: &str| Function { users: vec![object("public", name)], built_in: Vec::new() };
    let functions = [
        (
            "twin",
            Function { users: ["a", "b"].map(|schema| object(schema, "twin")).into(), built_in: vec![764] },
        ),
        ("upper", built_in(&[871])),
        ("set_config", built_in(&[2078])),
        ("nextval", built_in(&[1574])),
        ("lo_import", built_in(&[764, 767])),
        ("table_to_xml", built_in(&[2923])),
        ("pg_notify", built_in(&[3036])),
        ("mine", users("mine")),
        ("dblink", users("dblink")),
        ("id", Function::default()),
        ("gone", Function::default()),
        ("json_value", Function::default()),
    ];
    Answer {
        database: "db".to_owned(),
        database_oid: None,
        role: "agent".to_owned(),
        search_path: ["pg_temp_3", "pg_catalog", "app", "public"].map(str::to_owned).to_vec(),
        relations: [
            (name("users"), found("public", "users", Vec::new(), false)),
            (name("v"), found("public", "v", vec![object("public", "users")], false)),
            (name("ruled"), found("public", "ruled", Vec::new(), true)),
            (name("none"), Relation::Missing),
        ]
        .into(),
        functions: functions.map(|(text, function)| (name(text), function)).into(),
        numbers: Default::default(),
        besides: Default::default(),
    }
}

fn told(text: &str) -> String {
    shown(&facts(&one(text), &answer()))
}

fn shown(facts: &crate::model::StatementFacts) -> String {
    let mut all: Vec<String> = facts
        .effects
        .iter()
        .map(|effect| {
            let target = match &effect.target {
                Target::Resource => "*".to_owned(),
                Target::Table(object) => format!("{}.{}", object.schema, object.name),
                Target::Function(object) => format!("{}.{}()", object.schema, object.name),
                Target::Other { kind, name } => format!("{kind}:{name}"),
                Target::Setting(name) | Target::Name(name) | Target::Label(name) => format!("={name}"),
                Target::Program(program) => format!("={}", program.path),
                Target::Image(image) => format!("={image}"),
            };
            format!("{} {target}", effect.verb.as_str())
        })
        .collect();
    all.sort();
    all.join(", ")
}

#[test]
fn names_are_resolved_by_the_catalogue() {
    for (text, expected) in [
        ("SELECT 1", "data.read *"),
        ("SHOW search_path", "data.read *"),
        ("SELECT upper(u.id) FROM users u", "data.read public.users"),
        ("SELECT * FROM v", "data.read public.users, data.read public.v"),
        ("DELETE FROM v", "data.delete public.users, data.delete public.v, data.read public.users"),
        ("DROP VIEW v", "data.read public.users, schema.drop public.v"),
        ("INSERT INTO ruled VALUES (1)", "data.insert public.ruled, unknown *"),
        ("SELECT * FROM ruled", "data.read public.ruled"),
        (
            "SELECT * FROM none",
            "data.read app.none, data.read pg_catalog.none, data.read pg_temp_3.none, data.read public.none",
        ),
        ("CREATE TABLE t (a int)", "schema.create app.t, schema.create public.t"),
        ("CREATE TABLE s.t (a int)", "schema.create s.t"),
        ("CREATE TEMP TABLE t (a int)", "schema.create pg_temp.t"),
        ("SELECT set_config('Search_Path', 'x', false)", "session.change =search_path"),
        (
            "SELECT set_config('role', 'x', true), set_config('a.b', '', true)",
            "session.change =a.b, session.change =role, session.change role:x",
        ),
        ("SELECT set_config('role', 'none', true)", "session.change =role"),
        ("SELECT set_config('role', $1, true)", "session.change =role, unknown *"),
        (
            "SELECT set_config('session_authorization', 'x' || '', true)",
            "session.change =session_authorization, unknown *",
        ),
        ("SELECT set_config(n, '', false) FROM users", "data.read public.users, unknown *"),
        ("SELECT set_config($1, '', false)", "unknown *"),
        ("SELECT set_config('ro' || 'le', '', false)", "unknown *"),
        ("SELECT set_config(E'r\\157le', '', false)", "unknown *"),
        ("SELECT set_config(new_value => 'x', setting_name => 'role', is_local => true)", "unknown *"),
        ("SELECT twin()", "function.call a.twin(), function.call b.twin(), function.call pg_catalog.twin()"),
        ("SELECT nextval('s')", "function.call pg_catalog.nextval()"),
        ("SELECT lo_import('/etc/passwd')", "server.reach *"),
        ("SELECT table_to_xml('users', true, false, '')", "unknown *"),
        ("SELECT pg_notify('a', 'b')", "notify *"),
        ("SELECT mine(1)", "function.call public.mine()"),
        ("SELECT users.mine FROM users", "data.read public.users, function.call public.mine()"),
        ("SELECT (u).mine FROM users u", "data.read public.users, function.call public.mine()"),
        ("SELECT dblink('')", "function.call public.dblink(), server.reach *"),
        ("SELECT gone()", "function.call .gone()"),
        ("SELECT json_value('{}', '$')", "data.read *"),
        ("SELECT 1 === 2", "function.call .===()"),
        ("SELECT * FROM unasked", "unknown *"),
        ("SELECT unasked()", "unknown *"),
        ("SET search_path = x", "session.change =search_path"),
    ] {
        assert_eq!(told(text), expected, "{text}");
    }
    let nothing = facts(&one("SELECT * FROM users"), &Answer::default());
    assert!(nothing.unknown.is_some());
    assert!(facts(&one("SELECT 1"), &Answer::default()).unknown.is_none());
}

#[test]
fn what_happens_besides_is_told() {
    let runs = |schema: &str, name: &str, oid| Routine {
        object: Object { oid: Some(oid), ..object(schema, name) },
        built_in: schema == "pg_catalog",
    };
    let mut answer = answer();
    answer.besides = Arc::new(Besides {
        operators: [("=".to_owned(), vec![runs("public", "equal", 20_000)])].into(),
        conversions: vec![runs("public", "cast", 20_001), runs("pg_catalog", "upper", 871)],
        event_triggers: vec![runs("public", "watch", 20_002)],
    });
    let on = |of: &[Verb], what| Consequence { of: of.to_vec(), what };
    let writes = [Verb::DataInsert, Verb::DataUpdate];
    answer.relations.insert(
        name("users"),
        Relation::Found {
            object: object("public", "users"),
            rows: Rows::Own,
            reads: Vec::new(),
            columns: Vec::new(),
            children: vec![object("public", "heirs")],
            consequences: vec![
                on(&writes, What::Runs(runs("public", "fired", 20_003))),
                on(&writes, What::Runs(runs("pg_catalog", "RI_FKey_check_ins", 1644))),
                on(&writes, What::Runs(runs("pg_catalog", "nextval", 1574))),
                on(&writes, What::Runs(runs("pg_catalog", "pg_read_file", 2624))),
                on(&[Verb::DataDelete], What::Does(Verb::DataDelete, object("public", "orders"))),
                on(&[Verb::DataRead], What::Reaches),
            ],
            has_rules: false,
        },
    );
    for (text, expected) in [
        ("SELECT id FROM users", ["read public.heirs", "read public.users", "reach", "cast"].as_slice()),
        ("INSERT INTO users VALUES (1)", &["insert public.users", "fired", "reach", "cast"]),
        (
            "DELETE FROM users",
            &["delete public.heirs", "delete public.users", "delete public.orders", "cast"],
        ),
        // One more child is nothing to those that there are.
        ("CREATE TABLE app.t () INHERITS (users)", &["create app.t", "alter public.users", "watch", "cast"]),
        ("SELECT 1 = 2", &["equal", "cast"]),
        ("SELECT 1 IN (2)", &["equal", "cast"]),
        ("SELECT 1 < 2", &["cast"]),
        ("DROP SCHEMA s", &["schema:s", "watch", "cast"]),
        ("BEGIN", &["transaction"]),
    ] {
        let facts = facts(&one(text), &answer);
        let told = shown(&facts);
        assert!(expected.iter().all(|part| told.contains(part)), "{text}: {told}");
        assert_eq!(facts.effects.len(), expected.len(), "{text}: {told}");
    }
}

#[test]
fn a_question_names_what_must_be_looked_up() {
    let asked =
        question(&analyze("SELECT f(a.b) FROM a; CREATE TABLE c (d int); SET x = 1").expect("readable"));
    assert_eq!(asked.relations, [name("a")].into());
    assert_eq!(asked.functions, [name("b"), name("f")].into());
    assert_eq!(question(&[one("SELECT 1")]), Question::default());
}

#[test]
fn a_batch_that_changes_what_names_mean_is_not_judged_by_the_old_meaning() {
    let unknown = |text: &str| -> Vec<bool> {
        let statements = analyze(text).expect("readable");
        batch_facts(&statements, &answer()).iter().map(|facts| facts.unknown.is_some()).collect()
    };
    for (text, expected) in [
        ("SELECT * FROM users; SELECT * FROM users", vec![false, false]),
        ("BEGIN; SELECT * FROM users; COMMIT", vec![false, false, false]),
        ("SET search_path = x; SELECT * FROM users", vec![false, true]),
        ("SET statement_timeout = 1; SELECT * FROM users", vec![false, false]),
        ("SET ROLE x; SELECT 1; SELECT * FROM users", vec![false, false, true]),
        ("SELECT set_config('search_path', 'x', true); SELECT * FROM users", vec![false, true]),
        ("SELECT mine(1); DELETE FROM users", vec![false, true]),
        ("ROLLBACK; SELECT * FROM users", vec![false, true]),
        ("EXECUTE p; SELECT * FROM users", vec![false, true]),
        ("CREATE TABLE t (a int); DROP TABLE users", vec![false, false]),
    ] {
        assert_eq!(unknown(text), expected, "{text}");
    }
}

#[test]
fn what_is_executed_counts() {
    let own = || facts(&one("EXECUTE p"), &Answer::default());
    let inner = facts(&one("DELETE FROM users"), &answer());
    let both = executed(own(), Some(inner));
    assert_eq!(both.kind, StatementKind::Execute);
    assert_eq!(both.effects.len(), 1);
    assert!(!both.has_where);
    assert!(executed(own(), None).unknown.is_some());
}

#[test]
fn secrets_are_taken_out() {
    for (text, expected) in [
        ("CREATE ROLE a PASSWORD 'x' LOGIN", "CREATE ROLE a PASSWORD '***' LOGIN"),
        ("alter user a with encrypted password $$x$$", "alter user a with encrypted password '***'"),
        (
            "CREATE SUBSCRIPTION s CONNECTION 'host=a password=x' PUBLICATION p",
            "CREATE SUBSCRIPTION s CONNECTION '***' PUBLICATION p",
        ),
        (
            "CREATE USER MAPPING FOR a SERVER s OPTIONS (user 'b', password 'x')",
            "CREATE USER MAPPING FOR a SERVER s OPTIONS (user '***', password '***')",
        ),
        ("SELECT dblink('host=a password=x', 'y')", "SELECT dblink('***', 'y')"),
        ("SELECT 'postgres://u:x@h/d'", "SELECT '***'"),
        ("DO $$ CREATE ROLE a PASSWORD 'x' $$", "DO '***'"),
        ("SELECT 1 FROM t WHERE a = 'b' -- c", "SELECT 1 FROM t WHERE a = 'b' -- c"),
        ("CREATE ROLE a /* x */ PASSWORD 'x'", "CREATE ROLE a PASSWORD '***'"),
        ("ALTER ROLE a PASSWORD 'x", "ALTER ROLE a PASSWORD  [the rest cannot be read]"),
    ] {
        assert_eq!(redact(text), expected);
    }
    assert_eq!(
        without_literals("SELECT 'a', $$b$$, 1.5, $1, \"c\" /* d */ FROM t -- e"),
        "SELECT ?, ?, ?, $1, \"c\" FROM t "
    );
    assert_eq!(without_literals("SELECT 12 FROM 'x"), "SELECT ?? FROM  [the rest cannot be read]");
}

/// Pieces that SQL is made of, for texts that are nearly SQL.
const PIECES: &[&str] = &[
    "SELECT",
    "FROM",
    "ONLY",
    "TABLE",
    "WITH",
    "RECURSIVE",
    "AS",
    "(",
    ")",
    "[",
    "]",
    ",",
    ";",
    ".",
    "*",
    "+",
    "-",
    "=",
    "::",
    "int",
    "a",
    "b",
    "t",
    "s.t",
    "f(",
    "'x'",
    "E'\\''",
    "$$y$$",
    "$1",
    "1",
    "1.5",
    "\"Q\"",
    "U&\"\\0061\"",
    "/* c */",
    "-- d\n",
    "INSERT INTO",
    "VALUES",
    "UPDATE",
    "SET",
    "DELETE FROM",
    "USING",
    "WHERE",
    "RETURNING",
    "UNION",
    "JOIN",
    "ON",
    "LATERAL",
    "CASE",
    "WHEN",
    "THEN",
    "END",
    "NOT",
    "AND",
    "IN",
    "EXISTS(",
    "CREATE",
    "DROP",
    "ALTER",
    "VIEW",
    "FUNCTION",
    "LANGUAGE sql",
    "PREPARE p",
    "EXECUTE p",
    "EXPLAIN",
    "COPY",
    "TO",
    "PROGRAM",
    "GRANT",
    "CASCADE",
    "BEGIN",
    "COMMIT",
    "DO",
    "CALL",
    "LIMIT",
    "FOR UPDATE",
    "MERGE INTO",
    "MATCHED",
    "É",
    "\u{a0}",
];

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(1000))]

    #[test]
    fn any_bytes_are_survived(data in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        fuzz(&data);
    }

    #[test]
    fn near_sql_is_survived(pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..40)) {
        fuzz(pieces.join(" ").as_bytes());
    }

    #[test]
    fn damaged_sql_is_survived(
        place in 0..TABLE.len(),
        at in 0..200_usize,
        with in proptest::sample::select(PIECES),
        cut in 0..4_usize,
    ) {
        let text = TABLE[place].0;
        let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let rest: String = text[at..].chars().skip(cut).collect();
        fuzz(format!("{}{with}{rest}", &text[..at]).as_bytes());
    }
}
