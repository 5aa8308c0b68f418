//! What statements do besides what they name, as a real server's catalogue tells it.

use super::*;
use interceptor_core::model::Target;

const SCHEMA: &str = "
create function f(int) returns int language plpgsql as 'begin return 1; end';
create function g(int) returns int language plpgsql immutable as 'begin return 1; end';
create function same(int, int) returns boolean language sql as 'select $1 operator(pg_catalog.=) $2';
create function fired() returns trigger language plpgsql as 'begin return new; end';
create table parent (id int primary key, x int default f(1));
create table child (id serial primary key, p int references parent on delete cascade);
create table grandchild (id int, c int references child on delete set null);
create trigger t after insert or delete on child for each row execute function fired();
create table checked (a int, check (f(a) > 0));
create table indexed (a int);
create index on indexed (g(a));
create view v as select f(id) from parent where id > 0;
create view vv as select * from v;
create materialized view mv as select f(id) as a from parent;
create table ruled (a int);
create rule r as on insert to ruled do also delete from parent;
create table part (a int) partition by range (a);
create table part1 partition of part for values from (1) to (10);
create table base (a int);
create table heir () inherits (base);
create table secured (a int);
alter table secured enable row level security;
create policy p on secured using (f(a) = 1 and exists (select 1 from grandchild));
create operator === (leftarg = int, rightarg = int, function = same);
create schema other;
create function other.less(int, int) returns boolean language sql as 'select true';
create operator other.< (leftarg = int, rightarg = int, function = other.less);
create role clerk;
create schema clerk authorization clerk;
create table clerk.parent (id int);
alter table clerk.parent owner to clerk;
create extension file_fdw;
create server files foreign data wrapper file_fdw;
create foreign table far (a text) server files options (filename '/dev/null');
";

#[rustfmt::skip]
const TABLE: &[(&str, &str)] = &[
    ("SELECT x FROM parent", "data.read parent"),
    ("SELECT 1 = 2", "data.read *"),
    ("SELECT 1 === 2", "function.call same()"),
    ("SELECT 1 < 2", "data.read *"),
    ("INSERT INTO parent (id) VALUES (1)", "data.insert parent, function.call f()"),
    ("INSERT INTO child (p) VALUES (1)", "data.insert child, function.call fired()"),
    ("UPDATE grandchild SET id = 1", "data.update grandchild"),
    ("DELETE FROM parent", "data.delete child, data.delete parent, data.update grandchild, function.call fired()"),
    ("DELETE FROM child", "data.delete child, data.update grandchild, function.call fired()"),
    ("WITH gone AS (DELETE FROM child RETURNING *) SELECT * FROM gone", "data.delete child, data.read child, data.update grandchild, function.call fired()"),
    ("INSERT INTO checked VALUES (1) ON CONFLICT DO NOTHING", "data.insert checked, function.call f()"),
    ("SELECT * FROM checked", "data.read checked"),
    ("UPDATE indexed SET a = 2", "data.update indexed, function.call g()"),
    ("SELECT * FROM indexed", "data.read indexed"),
    ("ANALYZE indexed", "function.call g(), maintenance indexed"),
    ("SELECT * FROM vv", "data.read parent, data.read v, data.read vv, function.call f()"),
    ("SELECT * FROM mv", "data.read mv"),
    ("REFRESH MATERIALIZED VIEW mv", "data.read parent, data.update mv, function.call f()"),
    ("INSERT INTO ruled VALUES (1)", "data.insert ruled, unknown *"),
    ("SELECT * FROM ruled", "data.read ruled"),
    ("SELECT * FROM part", "data.read part"),
    ("SELECT * FROM base", "data.read base, data.read heir"),
    ("DELETE FROM base", "data.delete base, data.delete heir"),
    ("INSERT INTO base VALUES (1)", "data.insert base"),
    ("SELECT * FROM secured", "data.read grandchild, data.read secured, function.call f()"),
    ("SELECT * FROM far", "data.read far, server.reach *"),
    ("MERGE INTO child USING parent ON p = parent.id WHEN MATCHED THEN DELETE", "data.delete child, data.read child, data.read parent, data.update grandchild, function.call fired()"),
    ("ALTER TABLE checked ADD COLUMN b int", "function.call f(), schema.alter checked"),
    // In one transaction with what makes it, a name may be anything of the path.
    ("BEGIN", "transaction *"),
    ("CREATE TEMP TABLE parent (id int)", "schema.create pg_temp.parent"),
    ("SELECT 'hidden' FROM parent", "data.read temporary parent"),
    ("ROLLBACK", "transaction *"),
    ("SELECT 'back' FROM parent", "data.read parent"),
    ("SET search_path TO other, public", "session.change =search_path"),
    ("SELECT 1 < 3", "function.call less()"),
    ("SET search_path TO public", "session.change =search_path"),
    ("BEGIN", "transaction *"),
    ("SET LOCAL search_path TO other, public", "session.change =search_path"),
    ("SELECT 1 < 4", "function.call less()"),
    ("COMMIT", "transaction *"),
    ("SELECT 1 < 5", "data.read *"),
    ("SELECT set_config('search_path', 'other, public', false)", "session.change =search_path"),
    ("SELECT 1 < 6", "function.call less()"),
    ("RESET search_path", "session.change =search_path"),
    ("SELECT 1 < 7", "data.read *"),
    ("SET search_path TO other, public", "session.change =search_path"),
    ("DISCARD ALL", "session.change *"),
    ("SELECT 1 < 8", "data.read *"),
    ("SET ROLE clerk", "session.change =role, session.change role:clerk"),
    ("SELECT 'theirs' FROM parent", "data.read clerk.parent"),
    ("RESET ROLE", "session.change =role"),
    ("SELECT 'ours' FROM parent", "data.read parent"),
    ("SET SESSION AUTHORIZATION clerk", "session.change =session_authorization, session.change role:clerk"),
    ("SELECT 'theirs again' FROM parent", "data.read clerk.parent"),
    ("RESET SESSION AUTHORIZATION", "session.change =session_authorization"),
    // Last: they concern every statement.
    ("CREATE DOMAIN small AS int CHECK (f(VALUE) > 0)", "function.call f(), schema.create type:small"),
    ("SELECT count(1) FROM parent", "data.read parent, function.call f()"),
    ("DROP DOMAIN small", "function.call f(), schema.drop type:small"),
];

fn effects(action: &Action) -> String {
    let object = |object: &interceptor_core::model::Object| match object.schema.as_str() {
        "public" | "other" => object.name.clone(),
        temporary if temporary.starts_with("pg_temp_") => format!("temporary {}", object.name),
        schema => format!("{schema}.{}", object.name),
    };
    let mut all: Vec<String> = action
        .facts
        .effects
        .iter()
        .map(|effect| {
            let target = match &effect.target {
                Target::Resource => "*".to_owned(),
                Target::Table(table) => object(table),
                Target::Function(function) => format!("{}()", object(function)),
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
fn what_happens_besides_is_told() {
    let cluster = Cluster::start();
    // Around the relay, so that nothing of it is known there.
    let made = Command::new("psql")
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", SCHEMA, "-d"])
        .arg(format!("host=127.0.0.1 port={} user=postgres dbname=postgres", cluster.port))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let (port, log) = listen(0, cluster.port);
    let script: String = TABLE.iter().map(|(text, _)| format!("{text};\n")).collect();
    let said = psql(port, &script);
    let log = log.lock().unwrap();
    assert_eq!(log.actions.len(), TABLE.len(), "{said}");
    for ((text, expected), action) in TABLE.iter().zip(&log.actions) {
        assert_eq!(action.text, *text);
        assert_eq!(effects(action), *expected, "{text}: {:?}", action.facts.unknown);
    }
}

#[test]
fn a_thousand_statements_cost_a_look_up_for_each_new_fact() {
    let cluster = Cluster::start();
    let (port, log) = listen(0, cluster.port);
    let mut script = "create table one (a int);\ncreate table two (a int);\n".to_owned();
    for number in 0..250 {
        script.push_str(&format!(
            "begin;\nupdate one set a = a + {number} where a = {number};\n\
             insert into two values ({number});\ncommit;\n"
        ));
    }
    let said = psql(port, &script);
    let log = log.lock().unwrap();
    assert_eq!(log.actions.len(), 1002, "{said}");
    assert!(log.actions.iter().all(|action| action.facts.unknown.is_none()));
    // Where each table goes, and then what each name means.
    assert_eq!(log.gate, 4);
}
