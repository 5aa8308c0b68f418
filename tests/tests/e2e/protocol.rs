//! The parts of PostgreSQL's protocol beside statements and rows: COPY, large values and objects, replication.

use std::{fs, time::Duration};

use interceptor_tests::{
    Bed, Installation, Job, RunningBed, Setup,
    installation::{DSN, orders},
    places,
    process::{self, wait_until},
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

/// The anonymous memory of a process, in bytes.
fn anonymous(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or(0) * 1024
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

/// What a dump must carry besides plain tables.
const MORE: &str = "SET ROLE app;
CREATE TABLE photos (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, bytes bytea, made timestamptz DEFAULT now());
INSERT INTO photos (bytes) SELECT decode(repeat(md5(n::text), 50), 'hex') FROM generate_series(1, 200) AS n;
CREATE SEQUENCE tickets START 7; SELECT nextval('tickets');
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE INDEX ON users (lower(name));
CREATE MATERIALIZED VIEW totals AS SELECT user_id, count(*) AS n FROM orders GROUP BY user_id;
SELECT lo_from_bytea(4242, decode(repeat('00ff10', 10000), 'hex'));";

/// Every table, sequence and large object, with a checksum of what is in it.
fn checksums(bed: &RunningBed, database: &str) -> Vec<String> {
    let named = |kinds: &str| {
        let names = format!(
            "SELECT oid::regclass FROM pg_class WHERE relkind IN ({kinds}) AND relnamespace IN
             ('public'::regnamespace, 'private'::regnamespace) ORDER BY oid::regclass::text"
        );
        bed.admin(database, &names).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let sum = |what: &str, name: &str| {
        format!("{name} {}", bed.admin(database, &format!("SELECT {what} FROM {name} AS t")))
    };
    let tables = named("'r', 'p', 'v', 'm'");
    let rows = "count(*), md5(string_agg(t::text, ',' ORDER BY t::text))";
    let sequences = named("'S'");
    let objects = bed.admin(database, "SELECT oid, md5(lo_get(oid)) FROM pg_largeobject_metadata");
    let tables = tables.iter().map(|name| sum(rows, name));
    tables.chain(sequences.iter().map(|name| sum("last_value, is_called", name))).chain([objects]).collect()
}

#[test]
fn pg_dump_and_pg_restore() {
    let bed = Bed::start();
    bed.admin("orders", MORE);
    bed.admin("postgres", "CREATE DATABASE orders_copy OWNER app");
    bed.admin("orders_copy", "ALTER SCHEMA public OWNER TO app");
    let copy = orders(&bed, "app", "scram-sha-256")
        .replace("resource.orders", "resource.orders-copy")
        .replace("hosts = [\"db.internal\"]", "hosts = [\"copy.internal\"]");
    let agents = include_str!("../../../policies/dump-and-restore/agents.toml");
    let installation = Setup::empty()
        .agent(agents)
        .resource(&orders(&bed, "app", "scram-sha-256"))
        .resource(&copy)
        .credential("orders", bed.secret())
        .policy("10-dump.cedar", include_str!("../../../policies/dump-and-restore/10-dump.cedar"))
        .policy("20-restore.cedar", include_str!("../../../policies/dump-and-restore/20-restore.cedar"))
        .policy("30-guardrails.cedar", include_str!("../../../policies/dump-and-restore/30-guardrails.cedar"))
        .start();
    let dump = installation.work().join("dump").display().to_string();
    let words = ["pg_dump", "-Fc", "--no-owner", "--no-privileges", "-f", &dump, "-d", DSN];
    installation.run("dumper", &words).succeeded();
    let target = DSN.replace("db.internal", "copy.internal").replace("dbname=orders", "dbname=orders_copy");
    let words = ["pg_restore", "--no-owner", "--exit-on-error", "-d", &target, &dump];
    installation.run("restorer", &words).succeeded();
    let (before, after) = (checksums(&bed, "orders"), checksums(&bed, "orders_copy"));
    assert!(before.len() > 12 && before.iter().any(|line| line.starts_with("4242|")), "{before:#?}");
    assert_eq!(before, after);
    // What the dumper may not do.
    let words = ["psql", "-X", "-d", DSN, "-c", "DELETE FROM users WHERE id = 1"];
    installation.run("dumper", &words).failed().says("A dump changes nothing");
    let records = installation.ended("COPY public.users");
    let dumped = records.with("COPY public.users (id, name, email) TO stdout");
    assert!(dumped.iter().any(|copy| copy.at("/outcome/rows") == 100), "{:#?}", records.brief());
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
