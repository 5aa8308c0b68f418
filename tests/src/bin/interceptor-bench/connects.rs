//! A new session for each transaction: rate, and processor time.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::{
    Extent,
    measured::{Measured, Place},
    pgbench::{Amount, Load, Mode, SELECT},
    stage::{Layout, Stage, Transport},
    usage,
};

/// Connects, asks one simple query, and ends, over and over.
pub(crate) fn part(extent: Extent, measured: &mut Measured) -> Result<()> {
    let mut stage = Stage::start(Layout::OneCore, Transport::Clear)?;
    let script = stage.file("select.sql", SELECT);
    let amount = Amount::For(Duration::from_secs(1));
    let load = Load { script: &script, mode: Mode::Simple, clients: 1, amount, more: "-C" };
    let rounds = match extent {
        Extent::Usual => 5,
        Extent::Full => 11,
    };
    for round in 0..=rounds {
        for target in 0..stage.targets.len() {
            let (done, used) = usage::spent(&mut stage, target, |stage| load.run(stage, target))?;
            let known = stage.targets.get(target).context("no such target")?;
            let place = Place { part: "connects", load: "a session for each query", target: known.name };
            // The first round only warms up.
            if round > 0 {
                measured.add(place, "rate", "1/s", done.rate);
                for (role, used) in used {
                    let each = used.as_secs_f64() * 1e6 / done.transactions as f64;
                    measured.add(place, &format!("processor {role}"), "us", each);
                }
            }
        }
    }
    stage.finish();
    Ok(())
}
