//! What servers were seen to do, by hand, where a text can be read in two ways.

use super::*;

/// Seen on MariaDB 10.11.
const SEEN: &[(&str, &str)] = &[
    // The word holds for what follows, until the next; `@@` neither heeds nor changes it, whatever MySQL's manual leaves open.
    ("SET GLOBAL a = 1, b = 2", "access.change a, access.change b"),
    ("SET GLOBAL a = 1, @x = 1, b = 2", "access.change a, access.change b, session.change @"),
    ("SET GLOBAL a = 1, SESSION b = 2, c = 3", "access.change a, session.change b, session.change c"),
    ("SET SESSION a = 1, GLOBAL b = 2, c = 3", "access.change b, access.change c, session.change a"),
    ("SET PERSIST a = 1, b = 2", "access.change a, access.change b"),
    ("SET @@global.a = 1, b = 2", "access.change a, session.change b"),
    ("SET GLOBAL a = 1, @@session.b = 2, c = 3", "access.change a, access.change c, session.change b"),
    ("SET GLOBAL a = 1, @@b = 2", "access.change a, access.change b, session.change b"),
    // A stored function of such a name runs.
    ("SELECT any_value(a) FROM t", "data.read d.t, function.call d.any_value()"),
    (
        "SELECT regexp_like(a, 'b'), is_uuid(a), grouping(a)",
        "function.call d.grouping(), function.call d.is_uuid(), function.call d.regexp_like()",
    ),
    ("SELECT json_value(a, 'b'), chr(a)", "function.call d.chr(), function.call d.json_value()"),
    ("SELECT rank()", "function.call d.rank()"),
    ("SELECT rank() OVER (ORDER BY a) FROM t", "data.read d.t"),
    ("SELECT `rank`() OVER (ORDER BY a) FROM t", "data.read d.t, function.call d.rank()"),
    ("SELECT `date`(1), d.now()", "function.call d.date(), function.call d.now()"),
    // One that every server has is that in backticks as well, but not behind the name of a database.
    ("SELECT `load_file`('/etc/passwd')", "server.reach -"),
    ("SELECT `Load_File` ('/etc/passwd')", "server.reach -"),
    ("SELECT d.load_file('/etc/passwd')", "function.call d.load_file()"),
    ("INSERT INTO t VALUES (DEFAULT, CURRENT_DATE, UTC_TIMESTAMP, NULL, TRUE)", "data.insert d.t"),
    ("SELECT IF(a, LEFT(b, 1), REPLACE(c, 'x', 'y')), a DIV 2, CHAR(65), d.date FROM t", "data.read d.t"),
    // What a change of several tables does not change, it reads.
    (
        "DELETE t FROM t, secrets",
        "data.delete d.secrets, data.delete d.t, data.read d.secrets, data.read d.t",
    ),
    ("DELETE FROM t USING t", "data.delete d.t, data.read d.t"),
    ("UPDATE t JOIN u SET t.a = 1", "data.read d.t, data.read d.u, data.update d.t, data.update d.u"),
    ("DELETE t FROM secrets AS t", "data.delete d.secrets, data.read d.secrets"),
    // Within what a WITH makes, names of a WITH around it are those of tables again; behind it they are not.
    (
        "WITH secrets AS (SELECT 1 AS a) SELECT * FROM (WITH q AS (SELECT * FROM secrets) SELECT * FROM q) z",
        "data.read d.secrets",
    ),
    (
        "WITH secrets AS (SELECT 1 AS a) SELECT (WITH secrets AS (SELECT * FROM secrets) SELECT max(a) FROM secrets)",
        "data.read d.secrets",
    ),
    (
        "WITH RECURSIVE secrets AS (SELECT 1 AS a) SELECT * FROM (WITH RECURSIVE q AS (SELECT * FROM secrets) SELECT * FROM q) z",
        "data.read d.secrets",
    ),
    (
        "WITH x AS (SELECT 1 AS a) SELECT * FROM (WITH q AS (SELECT 1 AS a), r AS (SELECT * FROM q) SELECT r.a FROM r, x) z, x",
        "data.read -",
    ),
    // Rows are held.
    ("SELECT * FROM a, b FOR UPDATE", "data.lock d.a, data.lock d.b, data.read d.a, data.read d.b"),
    ("SELECT * FROM a FOR SHARE", "data.lock d.a, data.read d.a"),
    (
        "SELECT * FROM a WHERE b IN (SELECT c FROM e FOR UPDATE)",
        "data.lock d.e, data.read d.a, data.read d.e",
    ),
    ("INSERT INTO t SELECT * FROM a LOCK IN SHARE MODE", "data.insert d.t, data.lock d.a, data.read d.a"),
    ("CREATE TABLE t (id INT) ENGINE=Aria", "schema.create d.t"),
    (
        "CREATE TABLE t (id BIGINT UNSIGNED, p POINT, j JSON, y YEAR, i INET6, e ENUM('a'), f MEDIUMTEXT)",
        "schema.create d.t",
    ),
    ("SET default_storage_engine = InnoDB", "session.change default_storage_engine"),
    (
        "SET storage_engine = 'myisam', enforce_storage_engine = NULL",
        "session.change enforce_storage_engine, session.change storage_engine",
    ),
    ("DROP TRIGGER x", "schema.drop trigger d.x"),
    ("DROP EVENT e.X", "schema.drop event e.x"),
];

#[test]
fn what_servers_were_seen_to_do_is_said() {
    for (text, expected) in SEEN {
        assert_eq!(told(text), *expected, "{text}: {:?}", read(text).unknown);
    }
}

/// What does more than its words say at first sight, on one server or another.
const MORE: &[&str] = &[
    "SET @x = 1, PASSWORD = PASSWORD('x')",
    "SET PASSWORD = PASSWORD('x'), @y = (SELECT v FROM secrets)",
    "SET ROLE NONE, @y = (SELECT v FROM secrets)",
    "SET NAMES utf8mb4, @y = (SELECT v FROM secrets)",
    "SET default_storage_engine = CONNECT",
    "SET default_tmp_storage_engine = 'FEDERATED'",
    "SET @@storage_engine = @x",
    "SET GLOBAL enforce_storage_engine = SPIDER",
    "SET enforce_storage_engine = 17",
    "SET system_versioning_asof = '2020-01-01'",
    "SET debug_dbug = 'd:t:o,/tmp/x'",
    // A login that may not read the table was seen to have the server read it.
    "SET innodb_ft_user_stopword_table = 'd/secrets'",
    "CREATE TABLE n (LIKE secrets)",
    "CREATE TABLE n (TABLE secrets)",
    "CREATE TABLE n (a somewhat)",
    "ALTER TABLE n ADD SYSTEM VERSIONING",
    "ALTER TABLE n DROP SYSTEM VERSIONING",
    "ALTER TABLE n MODIFY a somewhat",
    "SELECT NEXT VALUE FOR share",
    "SELECT PREVIOUS VALUE FOR share",
    "SELECT SQL_CACHE * FROM secrets",
    "SELECT SQL_CACHE * FROM (secrets)",
    "SELECT DISTINCT sql_cache * FROM secrets",
    "SELECT 1 end FROM secrets",
    "SELECT a FROM t end UNION SELECT v FROM secrets",
    "BINLOG 'x'",
    "EXPLAIN TABLE secrets",
    "TRUNCATE TABLE select",
    "SELECT $a$ FROM secrets $a$",
    "SELECT * FROM `#mysql50#secrets`",
    "SELECT * FROM `sec\u{1f600}ret`",
    "SELECT @\u{e9}",
    "SELECT d.`s\u{e9}cret`()",
];

#[test]
fn what_does_more_than_it_says_is_unknown() {
    let place = Place { database: Some("d"), names: Names::Exact };
    for text in MORE {
        assert!(
            facts(&read(text), place, |_| Some(Kind::Table)).unknown.is_some(),
            "{text}: {:?}",
            read(text)
        );
    }
}

#[test]
fn a_built_in_function_stands_right_at_its_bracket() {
    for name in builtin::ADJACENT {
        for gap in [" ", "\n", "/**/"] {
            assert!(read(&format!("SELECT {name}{gap}(1)")).unknown.is_some(), "{name}");
        }
    }
}

#[test]
fn letters_are_not_taken_for_spaces_or_for_those_of_keywords() {
    for (text, expected) in [
        ("SELECT * FROM \u{3000}secrets", "data.read d.\u{3000}secrets"),
        ("SELECT * FROM secrets\u{a0}, b", "data.read d.b, data.read d.secrets\u{a0}"),
        ("SELECT * FROM a \u{17f}traight_join, b", "data.read d.a, data.read d.b"),
        ("SELECT max(1), m\u{e0}x FROM a", "data.read d.a"),
    ] {
        assert_eq!(told(text), expected, "{text}: {:?}", read(text).unknown);
    }
}

#[test]
fn names_are_folded_wherever_they_stand() {
    let at = |text: &str, names| {
        facts(&read(text), Place { database: Some("D"), names }, |_| Some(Kind::Table)).effects
    };
    for (written, same) in [
        ("DROP DATABASE SHOP", "DROP DATABASE shop"),
        ("CREATE DATABASE Shop", "CREATE DATABASE shop"),
        ("SELECT SHOP.f()", "SELECT shop.f()"),
        ("SELECT f()", "SELECT d.f()"),
        ("CALL Shop.P()", "CALL shop.p()"),
        ("DROP FUNCTION SHOP.f", "DROP FUNCTION shop.f"),
        ("DROP TRIGGER SHOP.T", "DROP TRIGGER shop.t"),
        ("DROP SEQUENCE S", "DROP SEQUENCE d.s"),
    ] {
        assert_eq!(at(written, Names::Folded), at(same, Names::Folded), "{written}");
        assert_ne!(at(written, Names::Exact), at(same, Names::Exact), "{written}");
    }
    for text in ["DROP DATABASE sh\u{f6}p", "SELECT sh\u{f6}p.f()"] {
        let unknown = |names| at(text, names).iter().any(|effect| effect.verb == Verb::Unknown);
        assert!(unknown(Names::Folded) && !unknown(Names::Exact), "{text}");
    }
}

#[test]
fn many_names_take_no_time() {
    let names: Vec<String> = (0..5000).map(|number| format!("a{number}")).collect();
    let made: Vec<String> = names.iter().map(|name| format!("{name} AS (SELECT * FROM b{name})")).collect();
    let started = std::time::Instant::now();
    for text in [
        format!("DROP TABLE {}", names.join(", ")),
        format!("SELECT * FROM {} FOR UPDATE", names.join(", ")),
        format!("WITH {} SELECT * FROM {}", made[..900].join(", "), names[..900].join(", ")),
    ] {
        let reading = read(&text);
        let place = Place { database: Some("d"), names: Names::Exact };
        let told = facts(&reading, place, |_| Some(Kind::Table));
        assert!(!told.effects.is_empty());
    }
    assert!(started.elapsed() < std::time::Duration::from_secs(5));
    let many = format!("WITH {} SELECT 1", made[..900].join(", "));
    assert!(read(&many).unknown.is_some());
}
