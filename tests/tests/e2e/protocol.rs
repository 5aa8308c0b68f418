//! The parts of PostgreSQL's protocol beside statements and rows: COPY, large values and objects, calls by number,
//! replication.

use std::{fs, time::Duration};

use interceptor_tests::{
    Bed, Installation, Job, RunningBed, Setup,
    audit::Exchange,
    installation::DSN,
    places,
    process::{self, anonymous, wait_until},
};

/// psql's \copy and COPY both ways; what the policy keeps from a SELECT it keeps from a COPY as well.
#[test]
fn psql_copies() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let finished = installation.psql(
        "\\copy notes (body) from stdin\nfirst\nsecond\n\\.\n\
         COPY notes (body) FROM STDIN (FORMAT csv);\n\"third, quoted\"\n\\.\n\
         COPY notes FROM STDIN;\nnot a number\tx\n\\.\n\
         COPY secrets TO STDOUT;\nCOPY (SELECT name FROM innocent) TO STDOUT;\n\
         COPY notes TO PROGRAM 'cat';\nCOPY secrets FROM STDIN;\n\
         \\copy (SELECT body FROM notes ORDER BY id) to stdout (format csv)\n\
         SELECT 'after', count(*) FROM notes;\n",
    );
    let finished = finished.says("first\nsecond\n\"third, quoted\"").says("22P02").says("after|3");
    assert_eq!(finished.stderr.matches("secrets are not for agents").count(), 3, "{finished}");
    assert!(!finished.text().contains("the-guarded-value"), "{finished}");
    let records = installation.ended("'after'");
    let copied = records.one("COPY  notes ( body ) FROM STDIN");
    assert_eq!((copied.at("/outcome/rows"), copied.verbs()), (&2.into(), vec!["data.insert"]));
    assert!(copied.at("/outcome/bytes").as_u64().is_some_and(|bytes| bytes > 12));
    assert_eq!(records.one("COPY notes FROM STDIN").at("/outcome/code"), "22P02");
    let program = records.one("TO PROGRAM");
    assert!(program.verbs().contains(&"server.reach") && program.status() == "refused");
    installation.finish();
}

#[test]
fn a_large_value_is_never_in_memory() {
    const SIZE: u64 = 16 << 20;
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let script = installation.script("large.py", include_str!("../clients/large.py"));
    let python = places::python().display().to_string();
    let (_, proxy) = installation.roles().into_iter().find(|(role, _)| role == "proxy").expect("a proxy");
    let before = anonymous(proxy);
    assert!(before > 0, "the proxy's memory can be read");
    let mut job =
        Job::start(installation.captured("release-bot", &[&python, &script, &SIZE.to_string()]), "");
    let mut most = before;
    wait_until("the client to end", Duration::from_secs(240), || {
        most = most.max(anonymous(proxy));
        !job.is_running()
    });
    let finished = job.finish(Duration::from_secs(10)).succeeded();
    for line in ["bound", "returned"] {
        finished.stdout.contains(&format!("{line}: {SIZE}")).then_some(()).expect("a line for each way");
    }
    assert!(finished.stdout.contains("copied in: 1"), "{finished}");
    assert!(finished.stdout.contains(&format!("copied out: {}", SIZE + 1)), "{finished}");
    let grown = most.saturating_sub(before);
    assert!(grown < 8 << 20, "the proxy grew by {grown} bytes for values of {SIZE}");
    let records = installation.ended("length($1");
    let bound = records.with("length($1");
    let told = bound.iter().find_map(|exchange| exchange.at("/request/action/binds/0/cut_from").as_u64());
    assert_eq!(told, Some(SIZE), "{:#?}", records.brief());
    installation.finish();
}

/// psycopg2's large objects, whose every call is a function by its number, and one of somebody's own, called so by hand.
#[test]
fn functions_are_called_by_their_number() {
    const NUMBERS: &str = r#"
@id("numbers")
permit (principal, action == Action::"function.call", resource is Function in Resource::"orders")
when {
  resource.schema == "pg_catalog" &&
    ["lo_close", "lo_create", "lo_creat", "lo_lseek64", "lo_open", "lo_tell64", "lo_truncate64", "lo_unlink", "loread",
     "lowrite"].contains(resource.name) ||
  resource.schema == "public" && resource.name == "twice"
};
"#;
    let bed = Bed::start();
    bed.admin(
        "orders",
        "CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT 2 * $1';
         CREATE FUNCTION thrice(int) RETURNS int LANGUAGE sql AS 'SELECT 3 * $1'",
    );
    let installation = Setup::of(&bed).policy("20-numbers.cedar", NUMBERS).start();
    installation.script("wire.py", include_str!("../clients/wire.py"));
    let script = installation.script("by_number.py", include_str!("../clients/by_number.py"));
    let python = places::python().display().to_string();
    let finished = installation.run("release-bot", &[&python, &script]).succeeded();
    for line in ["large object: done", "by number: done"] {
        assert!(finished.stdout.contains(line), "no {line:?} in {finished}");
    }
    let records = installation.ended("");
    let target = |exchange: &Exchange| {
        let of = |key: &str| {
            exchange.at(&format!("/request/action/facts/effects/0/target/function/{key}")).clone()
        };
        (of("schema"), of("name"), exchange.at("/request/action/binds/0/value").clone(), exchange.allowed())
    };
    let called: Vec<_> =
        records.agents().filter(|one| one.verbs() == ["function.call"]).map(target).collect();
    let is = |schema: &str, name: &str, value: &str, allowed: bool| {
        called.contains(&(schema.into(), name.into(), value.into(), allowed))
    };
    assert!(is("public", "twice", "21", true) && is("public", "thrice", "21", false), "{called:#?}");
    assert!(called.iter().filter(|(_, name, ..)| name == "lowrite").count() > 1, "{called:#?}");
    assert!(!records.agents().any(|one| one.verbs().contains(&"unknown")), "{:#?}", records.brief());
    // A look-up before each of the six calls, since the one before may have changed anything, and none for large objects.
    let asked =
        records.0.iter().filter(|one| one.is_gates_own() && one.at("/request/action/binds/3/value") != "{}");
    assert_eq!(asked.count(), 6, "{:#?}", records.brief());
    installation.finish();
}

/// A bed whose role may replicate.
fn replicating() -> RunningBed {
    let bed = Bed::default().with("wal_level", "logical").run();
    bed.admin("postgres", "ALTER ROLE app REPLICATION");
    bed
}

#[test]
fn replication_is_refused_where_no_rule_passes_it() {
    let bed = replicating();
    let installation = Setup::of(&bed).start();
    let words = ["pg_basebackup", "-D", "refused", "-X", "none", "-c", "fast", "-d", DSN];
    installation.run("release-bot", &words).failed().says("replicate");
    let words = ["pg_recvlogical", "-d", DSN, "--slot", "s", "--create-slot"];
    installation.run("release-bot", &words).failed().says("replicate");
    assert_eq!(bed.admin("postgres", "SELECT count(*) FROM pg_replication_slots"), "0");
    let records = installation.ended("uninspected: replication");
    assert!(records.with("uninspected: replication").iter().all(|one| one.status() == "refused"));
    installation.finish();
}

#[test]
fn replication_is_passed_by_a_rule_and_marked() {
    let bed = replicating();
    let rule = "@id(\"replication\")\npermit (principal, action == Action::\"replicate\", resource);\n";
    let installation = Setup::of(&bed).policy("20-replication.cedar", rule).start();
    let backup = installation.work().join("backup");
    let words = ["pg_basebackup", "-D", "backup", "-X", "fetch", "-c", "fast", "--no-sync", "-d", DSN, "-w"];
    installation.run("release-bot", &words).succeeded();
    assert!(backup.join("PG_VERSION").exists());
    for more in [&["--create-slot", "-P", "test_decoding"][..], &["--drop-slot"]] {
        let words = [&["pg_recvlogical", "-d", DSN, "--slot", "s"], more].concat();
        installation.run("release-bot", &words).succeeded();
    }
    let is_streaming = "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'pg_receivewal'";
    fs::create_dir(installation.work().join("wal")).expect("own folder");
    process::run(process::command(&["chmod", "777", &installation.work().join("wal").display().to_string()]))
        .succeeded();
    let words = ["pg_receivewal", "-D", "wal", "--no-sync", "-d", DSN];
    let job = Job::start(installation.captured("release-bot", &words), "");
    wait_until("the log to stream", process::PATIENCE, || bed.admin("postgres", is_streaming) == "1");
    job.signal(nix::sys::signal::Signal::SIGINT);
    job.finish(Duration::from_secs(60));
    let records = installation.ended("uninspected: replication");
    let passed = records.with("uninspected: replication");
    assert!(passed.iter().all(|one| one.at("/request/action/phase") == "pass" && one.allowed()));
    assert!(passed.iter().all(|one| one.verbs().contains(&"replicate")), "{:#?}", records.brief());
    let bytes = passed.iter().filter_map(|one| one.at("/outcome/bytes").as_u64());
    assert!(bytes.max().is_some_and(|most| most > 10 << 20), "the backup is counted: {:#?}", records.brief());
    installation.finish();
}

/// What a client is told that asks for what is not spoken.
#[test]
fn other_encodings_are_refused_clearly() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let latin = format!("{DSN} client_encoding=LATIN1");
    let ran: fn(&Installation, &str) -> _ =
        |installation, dsn| installation.run("release-bot", &["psql", "-X", "-d", dsn, "-c", "SELECT 1"]);
    ran(&installation, &latin).failed().says("use UTF8");
    // One that insists on GSSAPI's encryption is told that there is none; others go on with TLS.
    ran(&installation, &format!("{DSN} gssencmode=prefer")).succeeded();
    installation.finish();
}
