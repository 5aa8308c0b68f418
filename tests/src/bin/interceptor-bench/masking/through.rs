//! Results that have to be masked, through the product: how fast they pass, what of them stays in memory, and whether
//! anything of a labelled column arrives.

use anyhow::{Context, Result, ensure};
use interceptor_tests::{RunningBed, bed, interrupt};

use super::{PART, corpora::Corpora};
use crate::{
    Extent,
    driver::Driver,
    large::{client, seconds},
    measured::{Measured, Place},
    stage::{self, Layout, Transport},
    usage::{Memory, Watched},
};

/// What the agent's resources have labelled: one is looked through for every value, the other has columns alone.
fn labels(corpora: &Corpora) -> String {
    let words = interceptor_core::mask::Detector::WORDS.map(|(word, _)| format!("{word:?}")).join(", ");
    let columns: Vec<String> = corpora.b.labelled.iter().map(|name| format!("\"public.b.{name}\"")).collect();
    format!(
        "[label.values]\nresources = [\"orders\"]\ndetect = [{words}]\nmask = \"redact\"\n\n\
         [label.seeded]\nresources = [\"metadata\"]\ncolumns = [{}]\nmask = \"redact\"\n\n\
         [label.code]\nresources = [\"metadata\"]\ncolumns = [\"public.million.code\"]\nmask = \"partial\"\n",
        columns.join(", ")
    )
}

/// How often each row of the corpus stands in the table.
const TIMES: usize = 100;

/// The tables: B, its plain columns alone, those with a value in one of a hundred cells, and a million short rows.
fn tables(bed: &RunningBed, corpora: &Corpora) {
    let quoted = |value: &str| format!("'{}'", value.replace('\'', "''"));
    let columns = |names: &[String]| names.join(", ");
    let (all, labelled) = (&corpora.b.columns, corpora.b.labelled.len());
    let plain = columns(all.get(labelled..).unwrap_or_default());
    let typed: Vec<String> = all.iter().map(|name| format!("{name} text")).collect();
    let rows: Vec<String> = corpora
        .b
        .rows
        .iter()
        .map(|row| format!("({})", row.split('\t').map(quoted).collect::<Vec<_>>().join(", ")))
        .collect();
    let hits = all.len() - labelled;
    for sql in [
        format!("CREATE TABLE seed ({})", typed.join(", ")),
        format!("INSERT INTO seed VALUES {}", rows.join(", ")),
        format!("CREATE TABLE b AS SELECT seed.* FROM seed, generate_series(1, {TIMES})"),
        format!("CREATE TABLE clean AS SELECT {plain} FROM b"),
        format!(
            "CREATE TABLE sparse AS SELECT * FROM clean; UPDATE sparse SET note = 'ask bob' || ctid || '@example.com' \
             WHERE (ctid::text::point)[1]::int % 100 < {hits}; VACUUM FULL sparse"
        ),
        "CREATE TABLE million AS SELECT n AS id, 'name' || n AS name, md5(n::text) AS code, n % 7 AS kind \
         FROM generate_series(1, 1000000) AS n"
            .to_owned(),
    ] {
        for one in sql.split("; ") {
            bed.admin("orders", &format!("SET ROLE app; {one}"));
        }
    }
}

pub(super) fn part(corpora: &Corpora, extent: Extent, measured: &mut Measured) -> Result<()> {
    eprintln!("  results through the product");
    Layout::OneCore.enter()?;
    let bed = stage::bed();
    tables(&bed, corpora);
    let port = bed::free_port();
    let relay = stage::beside("raw-relay", &[&port.to_string(), &bed.port().to_string()]);
    let ours = stage::installation(&bed, Transport::Clear).labels(&labels(corpora)).start();
    let mut outside = Driver::outside(&ours)?;
    let mut captured = Driver::captured(&ours, ours.work())?;
    let watched = stage::daemon(&ours);
    let proxy = watched.iter().find(|one| one.role == "proxy").context("the proxy")?;
    let beside = Watched { role: "proxy".to_owned(), pid: relay.pid() };
    let rounds = match extent {
        Extent::Usual => 5,
        Extent::Full => 11,
    };
    let local = "127.0.0.1";
    for round in 0..=rounds {
        for (load, table, host) in [
            ("no hit", "clean", bed::HOST),
            ("1 % of cells with hits", "sparse", bed::HOST),
            ("a million rows, one column masked", "million", "metadata.internal"),
        ] {
            let sql = format!("SELECT * FROM {table}");
            for (target, driver, host, port, watched) in
                [("relay", &mut outside, local, port, &beside), ("masked", &mut captured, host, 5432, proxy)]
            {
                interrupt::check()?;
                let before = watched.processor()?;
                let said = driver.tell(&client(host, port, "rows", &sql))?;
                let used = watched.processor()?.saturating_sub(before);
                // The first round only warms up.
                if round > 0 {
                    let place = Place { part: PART, load, target };
                    measured.add(place, "rate", "MB/s", bytes(&said)? / 1e6 / seconds(&said)?);
                    measured.add(place, "rate of a core", "MB/s", bytes(&said)? / 1e6 / used.as_secs_f64());
                }
            }
        }
    }
    let line = client("metadata.internal", 5432, "rows", "SELECT * FROM million");
    let before = proxy.memory(Memory::Anonymous)?;
    let mut most = before;
    captured.begin(&line)?;
    while captured.ended(&line)?.is_none() {
        interrupt::check()?;
        most = most.max(proxy.memory(Memory::Anonymous)?);
    }
    let place = Place { part: PART, load: "a million rows, one column masked", target: "masked" };
    measured.add(place, "growth", "MiB", most.saturating_sub(before) as f64 / 1024.0);
    for format in ["text", "binary"] {
        let sql = "SELECT * FROM b";
        let seeded = leaked(&outside.tell(&client(local, port, &format!("leaks-{format}"), sql))?)?;
        ensure!(seeded > 0.0, "the check finds nothing where all is open");
        let said = captured.tell(&client("metadata.internal", 5432, &format!("leaks-{format}"), sql))?;
        let place = Place { part: PART, load: "B: a table of forty columns", target: "masked" };
        measured.add(place, &format!("values leaked, {format}"), "", leaked(&said)?);
    }
    drop((outside, captured));
    ours.finish();
    drop(relay);
    Ok(())
}

fn bytes(said: &str) -> Result<f64> {
    number_before(said, " bytes")
}

fn leaked(said: &str) -> Result<f64> {
    number_before(said, " leaked")
}

fn number_before(said: &str, word: &str) -> Result<f64> {
    let found = said.lines().find_map(|line| line.split(word).next()?.rsplit(' ').next()?.parse().ok());
    found.with_context(|| format!("the client said no number before{word}:\n{said}"))
}
