//! Large results: how fast they pass, and what of them stays in the proxy's memory.

use anyhow::{Context, Result};
use interceptor_tests::{interrupt, places};

use crate::{
    Extent,
    measured::{Measured, Place},
    stage::{Layout, Stage, Target, Transport},
    usage::{Memory, Watched},
};

const PART: &str = "large";

/// A result of some ten megabytes.
const ROWS: &str = "SELECT aid, bid, abalance, filler FROM pgbench_accounts";

/// A result that nobody could keep.
const MANY_ROWS: &str = "SELECT n, n, n FROM generate_series(1, 10000000) AS n";

/// The rate of the one, the memory that the other takes.
pub(crate) fn part(extent: Extent, measured: &mut Measured) -> Result<()> {
    let mut stage = Stage::start(Layout::OneCore, Transport::Clear)?;
    let rounds = match extent {
        Extent::Usual => 9,
        Extent::Full => 21,
    };
    for round in 0..=rounds {
        for target in 0..stage.targets.len() {
            let known = stage.targets.get(target).context("no such target")?;
            let (name, kind) = (known.name, known.client);
            // What the first question of a session takes besides is told apart from what rows take.
            for (load, line) in [
                ("100 000 rows", client(known.host, known.port, "rows-again", ROWS)),
                ("100 000 rows, first in their session", rows(known, ROWS)),
            ] {
                let said = stage.client(kind).tell(&line)?;
                // The first round only warms up.
                if round > 0 {
                    measured.add(
                        Place { part: PART, load, target: name },
                        "rate",
                        "1/s",
                        1.0 / seconds(&said)?,
                    );
                }
            }
        }
    }
    let growing: &[&str] = match extent {
        Extent::Usual => &["relay", "audit"],
        Extent::Full => &[
            "direct",
            "relay",
            "pgbouncer",
            "haproxy",
            "envoy",
            "pass",
            "metadata",
            "audit",
            "rows",
            "power",
        ],
    };
    for name in growing {
        let target = stage.target(name)?;
        let known = stage.targets.get(target).context("no such target")?;
        let (client, line, watched) = (known.client, rows(known, MANY_ROWS), known.watched.clone());
        let place = Place { part: PART, load: "10 000 000 rows", target: name };
        let before = memory(&watched)?;
        let mut most = before.clone();
        stage.client(client).begin(&line)?;
        let said = loop {
            interrupt::check()?;
            most = most.iter().zip(memory(&watched)?).map(|(most, now)| *most.max(&now)).collect();
            if let Some(said) = stage.client(client).ended(&line)? {
                break said;
            }
        };
        measured.add(place, "rate", "1/s", 1.0 / seconds(&said)?);
        for ((watched, before), most) in watched.iter().zip(before).zip(most) {
            let grown = most.saturating_sub(before) as f64 / 1024.0;
            measured.add(place, &format!("growth {}", watched.role), "MiB", grown);
        }
    }
    stage.finish();
    Ok(())
}

/// The line that has a target's client read a result.
fn rows(target: &Target, sql: &str) -> String {
    client(target.host, target.port, "rows", sql)
}

/// The line that has a client of ours do something with the answer to a query.
pub(crate) fn client(host: &str, port: u16, what: &str, sql: &str) -> String {
    let client = places::interceptor().with_file_name("bench-client");
    format!("{} {host} {port} {what} '{sql}'", client.display())
}

/// The seconds that a client said it took.
pub(crate) fn seconds(said: &str) -> Result<f64> {
    let found = said.lines().find_map(|line| line.strip_suffix(" seconds")?.rsplit(' ').next()?.parse().ok());
    found.with_context(|| format!("the client said no time:\n{said}"))
}

fn memory(watched: &[Watched]) -> Result<Vec<u64>> {
    watched.iter().map(|watched| watched.memory(Memory::Anonymous)).collect()
}
