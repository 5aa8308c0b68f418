//! MySQL: a real MariaDB behind the proxy, and real clients by name, over TLS, and by Unix sockets.

use std::process::Command;

use interceptor_tests::{
    Installation, Job, Logins, Setup,
    installation::{AGENT, OBSERVED},
    mysql::{self, RunningMysql},
    places,
    process::{PATIENCE, run},
    rules::{BUDGET, HOLDS},
};

const POLICY: &str = r#"
@id("shop-sessions")
permit (
    principal,
    action in [Action::"connect", Action::"data.read", Action::"session.change", Action::"transaction"],
    resource
);

@id("shop-notes")
permit (principal, action in Action::"data.write", resource is Table)
when { resource.name == "notes" || resource.name == "kinds" };

@id("look-up")
permit (principal, action == Action::"resolve", resource is Name) when { resource.inventory };
"#;

/// One server as two resources: by name over TLS, and by its own socket behind Debian's.
fn stage(more: impl FnOnce(Setup) -> Setup) -> (RunningMysql, Installation) {
    let mysql = RunningMysql::start();
    mysql.admin(
        "USE shop; CREATE TABLE goods (id INT PRIMARY KEY, name TEXT); INSERT INTO goods VALUES (1, 'lamp'); \
         CREATE TABLE notes (id INT AUTO_INCREMENT PRIMARY KEY, text TEXT); \
         CREATE TABLE kinds (note TEXT, number BIGINT, price DECIMAL(6, 2), moment DATETIME, nothing INT, ratio DOUBLE); \
         CREATE VIEW seen AS SELECT * FROM goods; CREATE TABLE many (id INT PRIMARY KEY, text TEXT); \
         INSERT INTO many SELECT seq, REPEAT('x', 100) FROM seq_1_to_100000",
    );
    let setup = Setup::empty()
        .resource("approvers = [\"dba\"]\n")
        .resource(&(mysql.by_name() + &mysql.by_socket()))
        .credential("shop", mysql.secret())
        .policy("10-test.cedar", POLICY);
    (mysql, more(setup).start())
}

fn python(installation: &Installation, name: &str, text: &str) -> Command {
    let script = installation.script(name, text);
    installation.captured("release-bot", &[&places::python().display().to_string(), &script])
}

/// The server's own command line client.
fn client(installation: &Installation, options: &[&str], words: &[&str]) -> Command {
    let all = mysql::client(words);
    installation.captured_with(options, &all.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn pymysql_works_and_is_judged_by_table_by_name_over_tls_and_by_socket() {
    let (mysql, installation) = stage(|setup| setup);
    let client = python(&installation, "pymysql_client.py", include_str!("../clients/pymysql_client.py"));
    let finished = run(client).succeeded();
    for label in ["tcp", "tls", "socket"] {
        for expected in [
            "read: (('lamp',),)".to_owned(),
            "goes on: (('lamp',),)".to_owned(),
            "limited: (('lamp',),)".to_owned(),
            format!("transaction: (('kept by {label}',),)"),
            "wrong: 1054".to_owned(),
            "many: 100000 5000050000".to_owned(),
        ] {
            let line = format!("{label} {expected}");
            assert!(finished.stdout.lines().any(|one| one == line), "{line}: {finished}");
        }
        for part in ["write", "view", "limited view", "drop"] {
            let start = format!("{label} {part} refused: ");
            let line = finished.stdout.lines().find(|one| one.starts_with(&start)).unwrap_or_default();
            assert!(line.contains("interceptor: ") && line.contains("record "), "{line:?}: {finished}");
        }
    }
    assert_eq!(mysql.admin("SELECT name FROM shop.goods"), "lamp", "what was refused was not carried out");
    assert_eq!(mysql.admin("SELECT COUNT(*) FROM shop.notes"), "3");

    let records = installation.records_once("the sessions' large answers", |records| {
        records.with("FROM many").iter().filter(|one| one.status() == "completed").count() == 3
    });
    let log = mysql.general_log();
    for (resource, sessions) in [("shop", 2), ("local", 1)] {
        let of = |part: &str| {
            let all = records.with(part).into_iter();
            all.filter(|one| one.at("/request/resource") == resource).collect::<Vec<_>>()
        };
        let read = of("SELECT name FROM goods WHERE id = 1");
        assert!(
            read.len() == 2 * sessions && read.iter().all(|one| one.status() == "completed"),
            "{:#?}",
            records.brief()
        );
        assert!(read.iter().all(|one| one.at("/outcome/rows") == 1 && one.verbs() == ["data.read"]));
        assert!(of("FROM many").iter().all(|one| one.at("/outcome/rows") == 100_000));
        for part in ["UPDATE goods", "FROM seen", "FROM shop.seen", "DROP TABLE"] {
            let refused = of(part);
            assert!(refused.len() == sessions && !refused[0].allowed(), "{part}: {:#?}", records.brief());
            assert_eq!(refused[0].status(), "refused");
        }
        assert!(of("FROM seen")[0].at("/request/principal/user") == "app");
        let inserts = of("INSERT INTO notes");
        assert!(inserts.len() == 2 * sessions && inserts.iter().all(|one| one.status() == "completed"));
    }
    // The server saw each statement that the records call completed, and none that they call refused.
    for one in records.agents().filter(|one| one.phase() == "query") {
        let carried_out = log.contains(one.statement());
        match one.status() {
            "completed" => assert!(carried_out, "{}: {log}", one.statement()),
            "refused" => assert!(!carried_out, "{}: {log}", one.statement()),
            _ => {}
        }
    }
    let all = format!("{:?}", records.0);
    assert!(!all.contains(mysql.secret()), "our password stands in no record");
    assert!(!all.contains("the-agents-own"), "nor does the agent's");
    installation.finish();
}

#[test]
fn prepared_statements_of_the_usual_drivers_are_judged_with_their_values() {
    let (mysql, installation) = stage(|setup| setup);
    let client = python(&installation, "mysql_prepared.py", include_str!("../clients/mysql_prepared.py"));
    let finished = run(client).succeeded();
    for line in ["read: [('lamp',)]", "again: []", "kinds: True", "goes on: [(1000,)]"] {
        assert!(finished.stdout.lines().any(|one| one == line), "{line}: {finished}");
    }
    let script = installation.script("mysql2.cjs", include_str!("../clients/mysql2.cjs"));
    let mut node = installation.captured("release-bot", &["node", &script]);
    node.env("NODE_PATH", places::node_modules());
    let nodes = run(node).succeeded();
    for line in [
        r#"text: [{"name":"lamp"}]"#,
        r#"prepared: [{"name":"lamp"}]"#,
        r#"at once: [{"n":100000}] true"#,
        r#"tls: [{"name":"lamp"}] true"#,
    ] {
        assert!(nodes.stdout.lines().any(|one| one == line), "{line}: {nodes}");
    }
    for (finished, part) in [(&finished, "write"), (&finished, "view"), (&nodes, "write")] {
        let start = format!("{part} refused: ");
        let line = finished.stdout.lines().find(|one| one.starts_with(&start)).unwrap_or_default();
        assert!(line.contains("interceptor: ") && line.contains("record "), "{line:?}: {finished}");
    }
    assert_eq!(mysql.admin("SELECT name FROM shop.goods"), "lamp", "what was refused was not carried out");
    let records = installation.ended("INSERT INTO kinds");
    let inserts = records.with("INSERT INTO kinds");
    let executed = inserts.iter().find(|one| one.phase() == "execute").expect("its execution is recorded");
    assert_eq!((executed.status(), executed.at("/outcome/rows").as_u64()), ("completed", Some(1)));
    let binds = executed.at("/request/action/binds").to_string();
    for value in ["a note", "1099511627776", "12.50"] {
        assert!(binds.contains(value), "{value}: {binds}");
    }
    installation.finish();
}

#[test]
fn the_servers_own_client_is_told_what_is_refused_and_why() {
    let (mysql, installation) = stage(|setup| setup);
    let words = ["--table", "--force", "--database=shop"];
    let input = "SELECT * FROM goods;\nSHOW TABLES;\nDELETE FROM goods;\nSELECT * FROM goods; DROP TABLE goods;\n\
                 SELECT name AS still FROM goods;\n";
    let finished = Job::start(client(&installation, &AGENT, &words), input).finish(PATIENCE);
    let _ = finished
        .says("|  1 | lamp |")
        .says("interceptor: ")
        .says("no rule permits it")
        .says("| still |")
        .says("data.delete on table shop.goods of `shop`");
    let found =
        installation.interceptor(&["audit", "search", "--refused", "--table", "shop.goods"]).succeeded();
    let _ = found.says("DELETE FROM goods");
    assert_eq!(mysql.admin("SELECT COUNT(*) FROM shop.goods"), "1");
    installation.finish();
}

#[test]
fn an_answer_ends_where_the_budget_does() {
    let (_mysql, installation) = stage(|setup| setup.policy("20-budget.cedar", BUDGET));
    let words = ["--batch", "--quick", "--force", "--skip-column-names", "--database=shop"];
    let input = "SELECT id FROM many ORDER BY id;\nSELECT name FROM goods;\nSELECT 1;\n";
    let finished = Job::start(client(&installation, &AGENT, &words), input).finish(PATIENCE);
    assert_eq!(finished.stdout.lines().count(), 1000, "{finished}");
    let told = finished.stderr.matches("the hour's rows are used up").count();
    assert_eq!(told, 3, "the session goes on, with nothing more to read: {finished}");
    let records = installation.ended("SELECT id FROM many");
    let cut = records.one("SELECT id FROM many");
    assert_eq!((cut.status(), cut.at("/outcome/rows").as_u64()), ("failed", Some(1000)));
    assert!(!records.one("SELECT name FROM goods").allowed());
    installation.finish();
}

#[test]
fn a_statement_waits_for_a_person_and_goes_once() {
    let logins = Logins::of(&["bob"]);
    let (mysql, installation) = stage(|setup| {
        setup
            .people(&logins.people(&[("bob", "dba")]))
            .policy("20-holds.cedar", HOLDS)
            .settings("local-approval = \"on\"")
    });
    mysql.admin("INSERT INTO shop.notes (text) VALUES ('one'), ('two'), ('three')");
    let waits = |text: &str| {
        let words = ["--table", "--database=shop", "--execute", text];
        installation.approval_of(Job::start(client(&installation, &AGENT, &words), ""), text)
    };
    let (job, approval) = waits("DELETE FROM notes WHERE id = 1");
    assert_eq!(mysql.admin("SELECT COUNT(*) FROM shop.notes"), "3", "it waits");
    logins.interceptor("bob", installation.root(), &["approvals", "approve", &approval]).succeeded();
    let _ = job.finish(PATIENCE).succeeded();
    assert_eq!(mysql.admin("SELECT GROUP_CONCAT(id) FROM shop.notes"), "2,3");
    let (job, approval) = waits("DELETE FROM notes WHERE id = 2");
    let deny = ["approvals", "deny", &approval, "--reason", "it is kept"];
    logins.interceptor("bob", installation.root(), &deny).succeeded();
    let denied = job.finish(PATIENCE);
    assert!(!denied.status.success(), "{denied}");
    let _ = denied.says("denied by bob: it is kept");
    assert_eq!(mysql.admin("SELECT GROUP_CONCAT(id) FROM shop.notes"), "2,3");
    installation.finish();
    drop(logins);
}

#[test]
fn what_is_only_observed_goes_on_and_is_marked() {
    let (mysql, installation) = stage(|setup| setup);
    run(client(
        &installation,
        &OBSERVED,
        &["--database=shop", "--execute", "UPDATE goods SET name = 'desk' WHERE id = 1"],
    ))
    .succeeded();
    assert_eq!(mysql.admin("SELECT name FROM shop.goods"), "desk");
    let records = installation.ended("UPDATE goods");
    let one = records.one("UPDATE goods");
    assert!(one.allowed() && one.status() == "completed");
    assert_eq!(one.at("/request/verdict/mode"), "observe");
    assert_eq!(one.at("/request/verdict/would_be"), "denied");
    installation.finish();
}

/// Some procedures may be called.
const CALLS: &str = r#"
@id("shop-procedures")
permit (principal, action == Action::"function.call", resource is Function)
when { resource.name == "report" || resource.name == "broken" };
"#;

#[test]
fn calls_bring_all_their_results_and_files_stay_where_they_are() {
    let (mysql, installation) = stage(|setup| setup.policy("20-calls.cedar", CALLS));
    for body in [
        "report(IN least INT) BEGIN SELECT id, name FROM shop.goods WHERE id >= least; SELECT COUNT(*) FROM shop.many; \
         INSERT INTO shop.kinds (note) VALUES ('reported'); END",
        "broken() BEGIN SELECT 1; SELECT nothing FROM shop.goods; END",
        "unkind() DELETE FROM shop.goods",
    ] {
        let text = format!("DELIMITER $\nCREATE PROCEDURE shop.{body}$");
        mysql.admin(&text);
    }
    let calls = python(&installation, "mysql_calls.py", include_str!("../clients/mysql_calls.py"));
    let finished = run(calls).succeeded();
    for line in [
        "pymysql results: [((1, 'lamp'),), ((100000,),), []]",
        "pymysql goes on: (('lamp',),)",
        r#"pymysql broken: [((1,),)] (1054, "Unknown column 'nothing' in 'SELECT'")"#,
        "in the middle: 1136",
        "refused in it: True",
        "transaction: (('before',), ('behind',))",
        "number: 0",
        "again: (('lamp',),)",
        "connector results: [[(1, 'lamp')], [(100000,)]]",
        "connector goes on: [('lamp',)]",
        // Reset between two uses, each finds a session as it began.
        "pool 0: [(None,)] [('lamp',)]",
        "pool 1: [(None,)] [('lamp',)]",
        "pool 2: [(None,)] [('lamp',)]",
    ] {
        assert!(finished.stdout.lines().any(|one| one == line), "{line}: {finished}");
    }
    let script = installation.script("mysql2_calls.cjs", include_str!("../clients/mysql2_calls.cjs"));
    let mut node = installation.captured("release-bot", &["node", &script]);
    node.env("NODE_PATH", places::node_modules());
    let nodes = run(node).succeeded();
    for line in [
        r#"results: [[{"id":1,"name":"lamp"}],[{"COUNT(*)":100000}]]"#,
        r#"prepared results: [[{"id":1,"name":"lamp"}],[{"COUNT(*)":100000}]]"#,
        "broken: 1054 42S22 Unknown column 'nothing' in 'SELECT'",
        r#"goes on: [{"name":"lamp"}]"#,
        r#"pool: [[{"name":"lamp"}],[],[]]"#,
    ] {
        assert!(nodes.stdout.lines().any(|one| one == line), "{line}: {nodes}");
    }
    for (finished, part) in [
        (&finished, "pymysql not called: 1142"),
        (&finished, "file refused: 1142"),
        (&finished, "connector file refused: 1142"),
        (&nodes, "file refused: 1142"),
        (&nodes, "change user refused: 1235"),
    ] {
        let line = finished.stdout.lines().find(|one| one.starts_with(part)).unwrap_or_default();
        assert!(line.contains("interceptor: "), "{part}: {finished}");
    }
    assert_eq!(mysql.admin("SELECT COUNT(*) FROM shop.goods"), "1", "what was not to be called was not");
    let records = installation.records_once("the drivers' calls", |records| {
        records.with("CALL report").iter().filter(|one| one.phase() != "prepare").count() == 4
            && records.with("CALL broken").len() == 2
    });
    for one in records.with("CALL report").iter().filter(|one| one.phase() != "prepare") {
        assert_eq!(
            (one.status(), one.at("/outcome/rows").as_u64()),
            ("completed", Some(2)),
            "rows of both results"
        );
    }
    for one in records.with("CALL broken") {
        assert_eq!((one.status(), one.at("/outcome/rows").as_u64()), ("failed", Some(1)), "one had passed");
    }
    installation.finish();
}

#[test]
fn a_file_stays_where_it_is_even_where_nothing_is_refused() {
    let (mysql, installation) = stage(|setup| setup);
    let words = ["--table", "--force", "--local-infile=1", "--database=shop"];
    let input = "LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE notes (text);\nSELECT 'on' AS goes;\n";
    for (options, word) in
        [(&AGENT[..], "interceptor: "), (&OBSERVED, "disabled the local infile capability")]
    {
        let finished = Job::start(client(&installation, options, &words), input).finish(PATIENCE);
        let _ = finished.says(word).says("| on   |");
    }
    assert_eq!(mysql.admin("SELECT COUNT(*) FROM shop.notes"), "0");
    installation.finish();
}
