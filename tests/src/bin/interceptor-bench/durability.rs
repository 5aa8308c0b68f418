//! Records as fast as they come: committed, chained and on disk.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use interceptor_tests::{Installation, interrupt};

use crate::{
    Extent,
    measured::{Measured, Place},
    pgbench::{Amount, Load, Mode, SELECT},
    stage::{Layout, Stage, Transport},
};

/// Statements of a pipeline.
const DEPTH: usize = 50;

/// From the first statement until the disk has everything.
pub(crate) fn part(extent: Extent, measured: &mut Measured) -> Result<()> {
    let mut stage = Stage::start(Layout::Free, Transport::Clear)?;
    let single = stage.file("select.sql", SELECT);
    let mut text = "\\startpipeline\n".to_owned();
    for _ in 0..DEPTH {
        text.write_str(SELECT)?;
    }
    let pipeline = stage.file("pipeline.sql", &(text + "\\endpipeline\n"));
    let rounds = match extent {
        Extent::Usual => 5,
        Extent::Full => 11,
    };
    let amount = Amount::For(Duration::from_secs(1));
    for _ in 0..rounds {
        for name in ["audit", "power"] {
            for (script, load) in
                [(&single, "prepared, 8 clients"), (&pipeline, "prepared, 8 clients, pipelines of 50")]
            {
                let place = Place { part: "durability", load, target: name };
                let call = Load { script, mode: Mode::Prepared, clients: 8, amount, more: "" };
                let target = stage.target(name)?;
                let before = settled(stage.installation(name)?)?;
                let begun = Instant::now();
                call.run(&mut stage, target)?;
                let after = settled(stage.installation(name)?)?;
                // A record is two entries: what was asked, and how it ended.
                let records = after.0.saturating_sub(before.0) as f64 / 2.0;
                measured.add(
                    place,
                    "records on disk",
                    "1/s",
                    records / after.1.duration_since(begun).as_secs_f64(),
                );
            }
        }
    }
    stage.finish();
    Ok(())
}

/// The newest entry on disk, once it has been that for a while, and when it was first seen.
fn settled(installation: &Installation) -> Result<(u64, Instant)> {
    let mut seen = (0, Instant::now());
    loop {
        interrupt::check()?;
        let newest =
            installation.status().get("synced").and_then(serde_json::Value::as_u64).context("no entry")?;
        if newest != seen.0 {
            seen = (newest, Instant::now());
        } else if seen.1.elapsed() > Duration::from_millis(200) {
            return Ok(seen);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
