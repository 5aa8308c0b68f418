//! Short statements with TLS on both legs, everything on one core: who copies bytes carries it on, who reads the
//! protocol ends it twice.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::{
    Extent,
    measured::{Measured, Place},
    pgbench::{Amount, Load, Mode, SELECT},
    stage::{Layout, Stage, Transport},
    usage,
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
                let (done, used) = usage::spent(&mut stage, target, |stage| call.run(stage, target))?;
                let known = stage.targets.get(target).context("no such target")?;
                let place = Place { part: "tls", load, target: known.name };
                // The first round only warms up.
                if round > 0 {
                    measured.add(place, "rate", "tx/s", done.rate);
                    for (role, used) in used {
                        let each = used.as_secs_f64() * 1e6 / done.transactions as f64;
                        measured.add(place, &format!("processor {role}"), "us/tx", each);
                    }
                }
            }
        }
    }
    stage.finish();
    Ok(())
}
