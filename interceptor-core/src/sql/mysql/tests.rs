mod redact;
mod servers;

use super::*;

/// What a text does, in words: each verb and what it acts on.
fn told(text: &str) -> String {
    let place = Place { database: Some("d"), names: Names::Exact };
    let facts = facts(&read(text), place, |_| Some(Kind::Table));
    let shown = |effect: &Effect| {
        let target = match &effect.target {
            Target::Resource => "-".to_owned(),
            Target::Table(object) => format!("{}.{}", object.database, object.name),
            Target::Function(object) => format!("{}.{}()", object.database, object.name),
            Target::Other { kind, name } => format!("{kind} {name}"),
            Target::Setting(name) => name.clone(),
            other => format!("{other:?}"),
        };
        format!("{} {target}", effect.verb.as_str())
    };
    let mut all: Vec<String> = facts.effects.iter().map(shown).collect();
    all.sort();
    all.join(", ")
}

const DOES: &[(&str, &str)] = &[
    ("SELECT 1", "data.read -"),
    ("", "data.read -"),
    ("select * from users;", "data.read d.users"),
    (
        "SELECT a.id, `b`.`x` FROM users a LEFT JOIN other.orders AS b ON a.id = b.user WHERE a.name LIKE 'x%' LIMIT 3",
        "data.read d.users, data.read other.orders",
    ),
    (
        "SELECT * FROM `users` WHERE id IN (SELECT user FROM secrets)",
        "data.read d.secrets, data.read d.users",
    ),
    (
        "SELECT (SELECT max(v) FROM secrets), count(*) FROM users GROUP BY a WITH ROLLUP",
        "data.read d.secrets, data.read d.users",
    ),
    (
        "SELECT * FROM a, b NATURAL JOIN c CROSS JOIN d",
        "data.read d.a, data.read d.b, data.read d.c, data.read d.d",
    ),
    ("SELECT 1 FROM a STRAIGHT_JOIN b", "data.read d.a, data.read d.b"),
    ("WITH x AS (SELECT * FROM a) SELECT * FROM x, y", "data.read d.a, data.read d.y"),
    ("WITH secrets AS (SELECT * FROM secrets) SELECT * FROM secrets", "data.read d.secrets"),
    ("WITH RECURSIVE n AS (SELECT 1 UNION ALL SELECT n + 1 FROM n) SELECT * FROM n", "data.read -"),
    ("SELECT 1 FROM dual", "data.read -"),
    ("SELECT * FROM `dual`", "data.read d.dual"),
    ("(SELECT 1 FROM a) UNION (SELECT 2 FROM b) ORDER BY 1", "data.read d.a, data.read d.b"),
    ("SELECT * FROM a FOR UPDATE", "data.lock d.a, data.read d.a"),
    ("SELECT * FROM a LOCK IN SHARE MODE", "data.lock d.a, data.read d.a"),
    ("SELECT SQL_CALC_FOUND_ROWS * FROM a", "data.read d.a"),
    ("SELECT @x := id, @@version FROM a", "data.read d.a"),
    (
        "SELECT concat('a', \"b\" 'c'), now(), date_add(now(), INTERVAL 1 DAY), cast(a AS CHAR), _utf8mb4'x', x'41' FROM a",
        "data.read d.a",
    ),
    ("SELECT row_number() OVER (PARTITION BY a ORDER BY b) FROM t", "data.read d.t"),
    ("SELECT group_concat(DISTINCT a ORDER BY b SEPARATOR ', ') FROM t", "data.read d.t"),
    ("SELECT a -> '$.x', a ->> '$.y' FROM t", "data.read d.t"),
    ("SELECT sleep(1)", "function.call d.sleep()"),
    ("SELECT other.f(a) FROM t", "data.read d.t, function.call other.f()"),
    ("SELECT `concat`(1)", "function.call d.concat()"),
    ("SELECT LOAD_FILE('/etc/passwd')", "server.reach -"),
    ("SELECT * FROM INFORMATION_SCHEMA.Tables", "data.read information_schema.tables"),
    ("INSERT INTO t (a, b) VALUES (1, 'x'), (2, ?)", "data.insert d.t"),
    ("INSERT IGNORE INTO t SET a = 1", "data.insert d.t"),
    (
        "INSERT INTO t SELECT * FROM u ON DUPLICATE KEY UPDATE a = VALUES(a)",
        "data.insert d.t, data.read d.t, data.read d.u, data.update d.t",
    ),
    ("REPLACE INTO t VALUES (1)", "data.delete d.t, data.insert d.t"),
    ("INSERT INTO t VALUES (1) RETURNING id", "data.insert d.t, data.read d.t"),
    ("UPDATE t SET a = 1", "data.update d.t"),
    ("UPDATE t SET a = a + 1 WHERE b = 2 ORDER BY c LIMIT 1", "data.read d.t, data.update d.t"),
    (
        "UPDATE t JOIN u ON t.id = u.id SET t.a = u.a",
        "data.read d.t, data.read d.u, data.update d.t, data.update d.u",
    ),
    ("DELETE FROM t", "data.delete d.t"),
    ("DELETE FROM t WHERE a IN (SELECT a FROM u)", "data.delete d.t, data.read d.t, data.read d.u"),
    (
        "DELETE t FROM t JOIN u ON t.id = u.id",
        "data.delete d.t, data.delete d.u, data.read d.t, data.read d.u",
    ),
    ("TRUNCATE t", "data.truncate d.t"),
    ("TRUNCATE TABLE o.t", "data.truncate o.t"),
    ("LOCK TABLES a READ, b AS c WRITE", "data.lock d.a, data.lock d.b"),
    ("UNLOCK TABLES", "transaction -"),
    ("START TRANSACTION READ ONLY", "transaction -"),
    ("BEGIN", "transaction -"),
    ("ROLLBACK TO SAVEPOINT x", "transaction -"),
    ("USE other", "session.change database"),
    ("SET NAMES utf8mb4 COLLATE utf8mb4_unicode_ci", "session.change names"),
    (
        "SET autocommit=0, @@session.sql_mode = 'STRICT_TRANS_TABLES'",
        "session.change autocommit, session.change sql_mode",
    ),
    ("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", "session.change transaction"),
    ("SET GLOBAL max_connections = 1", "access.change max_connections"),
    ("SET @@global.general_log = ON", "access.change general_log"),
    ("SET @x = (SELECT v FROM secrets)", "data.read d.secrets, session.change @"),
    ("SET PASSWORD = PASSWORD('x')", "access.change -"),
    ("SET ROLE admin", "access.change -"),
    ("SHOW TABLES", "data.read information_schema.tables"),
    ("SHOW FULL COLUMNS FROM users FROM d LIKE 'a%'", "data.read information_schema.columns"),
    ("SHOW WARNINGS LIMIT 10", "data.read -"),
    ("SHOW CREATE TABLE t", "data.read information_schema.columns"),
    ("DESCRIBE t", "data.read information_schema.columns"),
    ("EXPLAIN SELECT * FROM secrets", "data.read d.secrets"),
    ("GRANT ALL ON *.* TO x", "access.change -"),
    ("CREATE USER 'a'@'%' IDENTIFIED BY 'x'", "access.change -"),
    ("KILL QUERY 5", "access.change -"),
    ("FLUSH PRIVILEGES", "access.change -"),
    ("CALL p(1, (SELECT a FROM t))", "data.read d.t, function.call d.p()"),
    ("CALL o.p", "function.call o.p()"),
    (
        "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, n VARCHAR(10) NOT NULL DEFAULT 'x', KEY k (n)) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4",
        "schema.create d.t",
    ),
    ("CREATE TEMPORARY TABLE IF NOT EXISTS t AS SELECT * FROM u", "data.read d.u, schema.create d.t"),
    ("CREATE TABLE t LIKE u", "data.read d.u, schema.create d.t"),
    ("ALTER TABLE t ADD COLUMN a INT NOT NULL, DROP COLUMN b", "schema.alter d.t"),
    ("CREATE UNIQUE INDEX i ON t (a, b(10) DESC)", "schema.alter d.t"),
    ("CREATE VIEW v AS SELECT * FROM secrets", "data.read d.secrets, schema.create d.v"),
    ("CREATE DATABASE x CHARACTER SET utf8mb4", "schema.create database x"),
    ("DROP TABLE IF EXISTS a, b.c", "schema.drop b.c, schema.drop d.a"),
    ("DROP DATABASE x", "schema.drop database x"),
    ("RENAME TABLE a TO b", "schema.alter d.a, schema.create d.b, schema.drop d.a"),
    ("ANALYZE TABLE a, b", "maintenance d.a, maintenance d.b"),
];

#[test]
fn each_statement_does_what_it_says() {
    for (text, expected) in DOES {
        assert_eq!(told(text), *expected, "{text}: {:?}", read(text).unknown);
    }
}

#[test]
fn what_may_be_read_otherwise_is_unknown() {
    for text in [
        "SELECT 1 /*! FROM secrets */",
        "SELECT 1 /*!50000 , (SELECT v FROM secrets) */",
        "SELECT 1 /*M! FROM secrets */",
        "SELECT /*+ SET_VAR(sql_mode='ANSI_QUOTES') */ 1",
        "SELECT 1 /* open",
        "SELECT 'open",
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP TABLE t",
        "DELIMITER //",
        "SELECT count (*) FROM t",
        "SELECT * FROM t INTO OUTFILE '/tmp/x'",
        "SELECT 'x' INTO DUMPFILE '/tmp/x'",
        "SELECT 1 INTO @x",
        "LOAD DATA INFILE '/etc/passwd' INTO TABLE t",
        "LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE t",
        "INSTALL PLUGIN x SONAME 'x.so'",
        "PREPARE s FROM 'DROP TABLE t'",
        "EXECUTE s",
        "EXECUTE IMMEDIATE 'DROP TABLE t'",
        "HANDLER t OPEN",
        "XA START 'x'",
        "SET sql_mode = 'ANSI_QUOTES'",
        "SET @@sql_mode = concat(@@sql_mode, ',ANSI')",
        "SET NAMES gbk",
        "SET character_set_client = sjis",
        "SET STATEMENT sql_mode='ANSI_QUOTES' FOR SELECT 1",
        "CREATE TABLE t (a INT) ENGINE=MERGE UNION=(secrets)",
        "CREATE TABLE t (a INT) ENGINE=CONNECT",
        "CREATE TABLE t (a INT) ENGINE=FEDERATED CONNECTION='mysql://x'",
        "CREATE TABLE t (a INT) DATA DIRECTORY='/tmp'",
        "CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 1",
        "CREATE PROCEDURE p() SELECT 1",
        "CREATE FUNCTION f() RETURNS INT RETURN 1",
        "CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO SELECT 1",
        "ALTER TABLE t ENGINE=FEDERATED",
        "ALTER TABLE t EXCHANGE PARTITION p WITH TABLE secrets",
        "SELECT * FROM t PROCEDURE ANALYSE()",
        "SELECT \\N",
        "SELECT {d '2020-01-01'}",
        "SELECT a FROM t WHERE 1a = 2",
        "SELECT \0 1",
        "SELECT * FROM t FOR SYSTEM_TIME ALL",
        "SELECT * FROM t AS where",
        "SHOW SLAVE STATUS",
        "SHOW TABLES WHERE (SELECT 1 FROM secrets)",
        "SHOW CREATE TABLE t; DROP TABLE t",
        "USE a b",
        "COMMIT AND CHAIN",
        "TABLE secrets",
        "VALUES ROW(1), ROW((SELECT v FROM secrets)) x",
    ] {
        let facts =
            facts(&read(text), Place { database: Some("d"), names: Names::Exact }, |_| Some(Kind::Table));
        assert!(facts.unknown.is_some(), "{text}: {facts:?}");
    }
}

#[test]
fn quotes_and_comments_hide_nothing_and_make_nothing_up() {
    for (text, expected) in [
        ("SELECT 'a\\' FROM secrets -- ' FROM b", "data.read d.b"),
        ("SELECT 'a''' FROM b", "data.read d.b"),
        ("SELECT \"a\\\"b\" FROM b", "data.read d.b"),
        ("SELECT 1 -- FROM secrets\n FROM b", "data.read d.b"),
        ("SELECT 1 --1 FROM b", "data.read d.b"),
        ("SELECT 1 # FROM secrets\r FROM also\n FROM b", "data.read d.b"),
        ("SELECT /* ' */ v FROM secrets /* ' */", "data.read d.secrets"),
        ("SELECT 'x' /* a */ 'y' FROM b", "data.read d.b"),
        ("SELECT `a``b` FROM `se``crets`", "data.read d.se`crets"),
        ("SELECT '\\\\' FROM secrets", "data.read d.secrets"),
        ("SELECT N'x', b'01', 0x41 FROM b", "data.read d.b"),
    ] {
        assert_eq!(told(text), expected, "{text}: {:?}", read(text).unknown);
    }
}

#[test]
fn names_mean_what_the_server_takes_them_for() {
    let at = |text: &str, database: Option<&str>, names| {
        facts(&read(text), Place { database, names }, |_| Some(Kind::Table))
    };
    assert!(at("SELECT * FROM t", None, Names::Exact).unknown.is_some());
    let folded = at("SELECT * FROM SECRETS", Some("D"), Names::Folded);
    assert_eq!(folded, at("SELECT * FROM secrets", Some("d"), Names::Exact));
    assert!(at("SELECT * FROM sécrets", Some("d"), Names::Folded).unknown.is_some());
    assert!(at("SELECT * FROM informatıon_schema.tables", Some("d"), Names::Exact).unknown.is_some());
    let place = Place { database: Some("d"), names: Names::Exact };
    let tables = read("SELECT * FROM t, o.u, information_schema.tables").tables(place);
    assert_eq!(tables.into_iter().collect::<Vec<_>>(), [("d".into(), "t".into()), ("o".into(), "u".into())]);
}

#[test]
fn views_and_triggers_are_unknown() {
    let place = Place { database: Some("d"), names: Names::Exact };
    let unknown = |text: &str, kind| facts(&read(text), place, |_| kind).unknown.is_some();
    assert!(unknown("SELECT * FROM v", Some(Kind::View)) && unknown("SELECT * FROM v", None));
    assert!(!unknown("SELECT * FROM t", Some(Kind::Triggered)));
    assert!(unknown("INSERT INTO t VALUES (1)", Some(Kind::Triggered)));
    assert!(
        !unknown("DROP TABLE v", Some(Kind::View))
            && !unknown("SELECT * FROM information_schema.tables", None)
    );
}

#[test]
fn statements_tell_what_they_change() {
    assert_eq!(read("USE `a b`").changes, [Change::Database("a b".to_owned())]);
    assert_eq!(read("SET autocommit = 1").changes, [Change::Settings]);
    assert_eq!(read("DROP TABLE t").changes, [Change::Names]);
    assert!(read("SELECT * FROM t").changes.is_empty());
    let where_of = |text: &str| (read(text).has_where, read(text).has_limit);
    assert_eq!(where_of("DELETE FROM t"), (false, false));
    assert_eq!(where_of("DELETE FROM t WHERE a"), (true, false));
    assert_eq!(where_of("SELECT 1 LIMIT 1"), (true, true));
    assert_eq!(where_of("SELECT 1 LIMIT 1, 2"), (true, true));
    assert_eq!(where_of("SELECT a FROM t OFFSET 1 ROWS"), (true, false));
}

#[test]
fn long_and_deep_texts_are_bounded() {
    for (text, ok) in [
        (format!("SELECT 1 {}", "+ 1".repeat(900)), true),
        (format!("SELECT 1 {}", "+ 1".repeat(100_000)), false),
        (format!("SELECT {}1{}", "(".repeat(40), ")".repeat(40)), true),
        (format!("SELECT {}1{}", "(".repeat(5000), ")".repeat(5000)), false),
        (format!("SELECT {} 1", "NOT ".repeat(5000)), false),
        // Of this, the parser would make no end.
        (format!("SELECT {}1{}", "position(".repeat(40), ", 1)".repeat(40)), false),
        (format!("SELECT {}", "position('x' IN position('y' IN a)), ".repeat(40)) + "1", true),
        (format!("SELECT '{}'", "x".repeat(300_000)), false),
        (format!("SELECT 1 {}", "UNION SELECT 1 ".repeat(3000)), false),
        (format!("INSERT INTO t VALUES {}(1)", "(1, 'x'), ".repeat(2000)), true),
    ] {
        assert_eq!(read(&text).unknown.is_none(), ok, "{}", text.get(..40).unwrap_or_default());
    }
}
