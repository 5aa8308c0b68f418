//! A new session for each transaction: rate, and processor time.

use std::time::Duration;

use anyhow::Result;

use crate::{
    Extent,
    measured::Measured,
    pgbench::{Amount, Load, Mode, SELECT, file},
    stage::{Layout, Stage, Transport},
};

/// Connects, asks one simple query, and ends, over and over.
pub(crate) fn part(extent: Extent, measured: &mut Measured) -> Result<()> {
    let mut stage = Stage::start(Layout::OneCore, Transport::Clear)?;
    stage.with_attached()?;
    let script = stage.file("select.sql", SELECT);
    let amount = Amount::For(Duration::from_secs(1));
    let load = Load { script: &script, mode: Mode::Simple, clients: 1, amount, more: "-C" };
    let rounds = match extent {
        Extent::Usual => 5,
        Extent::Full => 11,
    };
    for round in 0..=rounds {
        for target in 0..stage.targets.len() {
            // The first round only warms up.
            let kept = (round > 0).then_some(&mut *measured);
            file(&load, (&mut stage, target), ("connects", "a session for each query"), kept)?;
        }
    }
    stage.finish();
    Ok(())
}
