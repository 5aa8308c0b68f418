//! MySQL: a real MariaDB behind the proxy, and a real client by name and by Unix sockets.

use interceptor_tests::{
    Installation, Setup,
    mysql::{HOST, RunningMysql},
    places,
    process::run,
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
when { resource.name == "notes" };

@id("look-up")
permit (principal, action == Action::"resolve", resource is Name) when { resource.inventory };
"#;

/// One server as two resources: by name over TCP, and by its own socket behind Debian's.
fn stage() -> (RunningMysql, Installation) {
    let mysql = RunningMysql::start();
    mysql.admin(
        "USE shop; CREATE TABLE goods (id INT PRIMARY KEY, name TEXT); INSERT INTO goods VALUES (1, 'lamp'); \
         CREATE TABLE notes (id INT AUTO_INCREMENT PRIMARY KEY, text TEXT); \
         CREATE VIEW seen AS SELECT * FROM goods; CREATE TABLE many (id INT PRIMARY KEY, text TEXT); \
         INSERT INTO many SELECT seq, REPEAT('x', 100) FROM seq_1_to_100000",
    );
    let resource = |name: &str, listed: &str, upstream: &str| {
        format!(
            "[resource.{name}]\nprotocol = \"mysql\"\n{listed}\n{upstream}\n\
             tls = {{ plaintext = \"the server of a test\" }}\n[[resource.{name}.credential]]\nuser = \"app\"\n\
             secret = {{ file = \"shop\" }}\nminimum = \"mysql-native-password\"\n"
        )
    };
    let resources = [
        resource(
            "shop",
            &format!("hosts = [\"{HOST}\"]"),
            &format!("upstream = \"127.0.0.1:{}\"\ndial = \"host\"", mysql.port()),
        ),
        resource(
            "local",
            "sockets = [\"/run/mysqld/mysqld.sock\"]",
            &format!("upstream = \"unix:{}\"", mysql.socket().display()),
        ),
    ];
    let setup = Setup::empty()
        .resource(&resources.concat())
        .credential("shop", mysql.secret())
        .policy("10-test.cedar", POLICY);
    (mysql, setup.start())
}

#[test]
fn pymysql_works_and_is_judged_by_table_over_tcp_and_by_socket() {
    let (mysql, installation) = stage();
    let script = installation.script("pymysql_client.py", include_str!("../clients/pymysql_client.py"));
    let python = places::python().display().to_string();
    let finished = run(installation.captured("release-bot", &[&python, &script])).succeeded();
    for label in ["tcp", "socket"] {
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
    assert_eq!(mysql.admin("SELECT COUNT(*) FROM shop.notes"), "2");

    let records = installation.records_once("both sessions' large answers", |records| {
        records.with("FROM many").iter().filter(|one| one.status() == "completed").count() == 2
    });
    let log = mysql.general_log();
    for resource in ["shop", "local"] {
        let of = |part: &str| {
            let all = records.with(part).into_iter();
            all.filter(|one| one.at("/request/resource") == resource).collect::<Vec<_>>()
        };
        let read = of("SELECT name FROM goods WHERE id = 1");
        assert!(
            read.len() == 2 && read.iter().all(|one| one.status() == "completed"),
            "{:#?}",
            records.brief()
        );
        assert!(read.iter().all(|one| one.at("/outcome/rows") == 1 && one.verbs() == ["data.read"]));
        assert!(of("FROM many").iter().all(|one| one.at("/outcome/rows") == 100_000));
        for part in ["UPDATE goods", "FROM seen", "FROM shop.seen", "DROP TABLE"] {
            let refused = of(part);
            assert!(refused.len() == 1 && !refused[0].allowed(), "{part}: {:#?}", records.brief());
            assert_eq!(refused[0].status(), "refused");
        }
        assert!(of("FROM seen")[0].at("/request/principal/user") == "app");
        let inserts = of("INSERT INTO notes");
        assert!(inserts.len() == 2 && inserts.iter().all(|one| one.status() == "completed"));
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
