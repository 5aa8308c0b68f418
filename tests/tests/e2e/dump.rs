//! pg_dump and pg_restore under the policy that is written for them.

use std::{
    env,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use interceptor_tests::{
    Bed, Installation, RunningBed, Setup,
    installation::{DSN, orders},
    places,
    process::anonymous,
};

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
    // A sum, since no text may be as long as a large table.
    let rows = "count(*), sum(hashtextextended(t::text, 0)::numeric)";
    let sequences = named("'S'");
    let objects = bed.admin(database, "SELECT oid, md5(lo_get(oid)) FROM pg_largeobject_metadata");
    let tables = tables.iter().map(|name| sum(rows, name));
    tables.chain(sequences.iter().map(|name| sum("last_value, is_called", name))).chain([objects]).collect()
}

/// An empty database of the restorer's own.
fn copy_to(bed: &RunningBed, database: &str) {
    bed.admin("postgres", &format!("CREATE DATABASE {database} OWNER app"));
    bed.admin(database, "ALTER SCHEMA public OWNER TO app");
}

/// With the policy that permits a dump of `orders` and a restore into `orders_copy`.
fn installation(bed: &RunningBed) -> Installation {
    let copy = orders(bed, "app", "scram-sha-256")
        .replace("resource.orders", "resource.orders-copy")
        .replace("hosts = [\"db.internal\"]", "hosts = [\"copy.internal\"]");
    let agents = include_str!("../../../policies/dump-and-restore/agents.toml");
    Setup::empty()
        .agent(agents)
        .resource(&orders(bed, "app", "scram-sha-256"))
        .resource(&copy)
        .credential("orders", bed.secret())
        .policy("10-dump.cedar", include_str!("../../../policies/dump-and-restore/10-dump.cedar"))
        .policy("20-restore.cedar", include_str!("../../../policies/dump-and-restore/20-restore.cedar"))
        .policy("30-guardrails.cedar", include_str!("../../../policies/dump-and-restore/30-guardrails.cedar"))
        .start()
}

/// Where the restorer restores to.
fn target() -> String {
    DSN.replace("db.internal", "copy.internal").replace("dbname=orders", "dbname=orders_copy")
}

const DUMP: [&str; 4] = ["pg_dump", "-Fc", "--no-owner", "--no-privileges"];
const RESTORE: [&str; 3] = ["pg_restore", "--no-owner", "--exit-on-error"];

#[test]
fn pg_dump_and_pg_restore() {
    let bed = Bed::start();
    bed.admin("orders", MORE);
    copy_to(&bed, "orders_copy");
    let installation = installation(&bed);
    let dump = installation.work().join("dump").display().to_string();
    installation.run("dumper", &[&DUMP[..], &["-f", &dump, "-d", DSN]].concat()).succeeded();
    installation.run("restorer", &[&RESTORE[..], &["-d", &target(), &dump]].concat()).succeeded();
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

/// As many tables of a hundred megabytes, and a value as large.
fn fill(bed: &RunningBed, tables: u32) {
    for table in 1..=tables {
        bed.admin(
            "orders",
            &format!(
                "SET ROLE app; CREATE TABLE bulk_{table} AS
                 SELECT n AS id, repeat(md5(n::text), 28) AS body, n * 1.5 AS amount
                 FROM generate_series(1, 107500) AS n; ALTER TABLE bulk_{table} ADD PRIMARY KEY (id)"
            ),
        );
    }
    let value = "decode(repeat('00ff10ab', 25 << 20), 'hex')";
    bed.admin("orders", &format!("SET ROLE app; CREATE TABLE large AS SELECT 1 AS id, {value} AS bytes"));
}

/// Runs `dump` into `restore`, looking `meanwhile` at something; gives how long it took.
fn pipe(mut dump: Command, mut restore: Command, mut meanwhile: impl FnMut()) -> Duration {
    let begun = Instant::now();
    let mut dumping = dump.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("a dump");
    let input = dumping.stdout.take().expect("a pipe");
    let mut restoring = restore.stdin(input).spawn().expect("a restore");
    // Or the pipe's end stays open here when nobody reads any more.
    drop(restore);
    let status = loop {
        meanwhile();
        match restoring.try_wait().expect("a child") {
            Some(status) => break status,
            None if begun.elapsed() < Duration::from_secs(1800) => {
                std::thread::sleep(Duration::from_millis(50));
            }
            None => {
                let _ = restoring.kill();
                break restoring.wait().expect("a child");
            }
        }
    };
    let dumped = dumping.wait().expect("a child");
    assert!(status.success() && dumped.success(), "{status}, {dumped}");
    begun.elapsed()
}

/// The issue's own measure: a captured gigabyte, streamed from one database into another, arrives as it was, and the
/// proxy holds no more of it than of a small one. Prints what `docs/performance.md` tells.
#[test]
#[ignore = "takes minutes: cargo xtask test --long"]
fn a_gigabyte_is_dumped_and_restored() {
    let bed = Bed::start();
    // A slice of it is a tenth.
    let tables = if env::var_os("INTERCEPTOR_SLICE").is_some() { 1 } else { 10 };
    fill(&bed, tables);
    copy_to(&bed, "orders_copy");
    copy_to(&bed, "orders_direct");
    let size: u64 = bed.admin("postgres", "SELECT pg_database_size('orders')").parse().expect("a number");
    assert!(size > u64::from(tables) * 107_374_183, "{size} bytes are no gigabyte, or no tenth of one");
    let installation = installation(&bed);
    let direct = |words: &[&str], database: &str| {
        let dsn = format!("host=127.0.0.1 port={} user=app dbname={database} sslmode=require", bed.port());
        let mut command = installation.outside(Path::new(&places::postgres_tool(words[0])));
        command.args(&words[1..]).args(["-d", &dsn]).env("PGPASSWORD", bed.secret());
        command
    };
    let alone = pipe(direct(&DUMP, "orders"), direct(&RESTORE, "orders_direct"), || ());
    let (_, proxy) = installation.roles().into_iter().find(|(role, _)| role == "proxy").expect("a proxy");
    let before = anonymous(proxy);
    let mut most = before;
    let captured = pipe(
        installation.captured("dumper", &[&DUMP[..], &["-d", DSN]].concat()),
        installation.captured("restorer", &[&RESTORE[..], &["-d", &target()]].concat()),
        || most = most.max(anonymous(proxy)),
    );
    let grown = most.saturating_sub(before);
    println!(
        "{} MB: direct {:.1} s, captured {:.1} s; the proxy's anonymous memory {} kB before, {} kB at most",
        size / 1_000_000,
        alone.as_secs_f64(),
        captured.as_secs_f64(),
        before / 1024,
        most / 1024
    );
    assert!(before > 0 && grown < 16 << 20, "the proxy grew by {grown} bytes");
    let expected = checksums(&bed, "orders");
    assert_eq!(expected, checksums(&bed, "orders_copy"));
    assert_eq!(expected, checksums(&bed, "orders_direct"));
    let records = installation.ended("COPY public.large");
    let sent =
        records.with("COPY public.").iter().filter_map(|one| one.at("/outcome/bytes").as_u64()).sum::<u64>();
    assert!(
        sent > u64::from(tables) * 200_000_000,
        "the record tells of {sent} bytes each way: {:#?}",
        records.brief()
    );
    installation.finish();
}
