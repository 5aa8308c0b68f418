//! Short statements with TLS on both legs, everything on one core: who copies bytes carries it on, who reads the
//! protocol ends it twice.

use std::time::Duration;

use anyhow::Result;

use crate::{
    Extent,
    measured::Measured,
    pgbench::{Amount, Load, Mode, SELECT, file},
    stage::{Layout, Stage, Transport},
};

/// The targets in turn.
pub(crate) fn part(_: Extent, measured: &mut Measured) -> Result<()> {
    const ROUNDS: usize = 7;
    let mut stage = Stage::start(Layout::OneCore, Transport::Tls)?;
    let script = stage.file("select.sql", SELECT);
    for (mode, clients, load) in [
        (Mode::Simple, 1, "simple, 1 client"),
        (Mode::Simple, 8, "simple, 8 clients"),
        (Mode::Prepared, 8, "prepared, 8 clients"),
    ] {
        let amount = Amount::For(Duration::from_secs(1));
        let call = Load { script: &script, mode, clients, amount, more: "" };
        for round in 0..=ROUNDS {
            for target in 0..stage.targets.len() {
                // The first round only warms up.
                let kept = (round > 0).then_some(&mut *measured);
                file(&call, (&mut stage, target), ("tls", load), kept)?;
            }
        }
    }
    stage.finish();
    Ok(())
}
