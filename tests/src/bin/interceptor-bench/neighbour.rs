//! A well-behaved session beside a client that opens connections and talks nonsense as fast as it can.

use std::time::Duration;

use anyhow::{Context, Result};
use interceptor_tests::places;

use crate::{
    Extent,
    driver::Driver,
    latency::{self, Log},
    measured::{Measured, Place},
    pgbench::{Amount, Load, Mode, SELECT},
    stage::{Layout, Stage, Transport},
};

/// Latency at a fixed rate, alone and beside the attack; through the relay, which defends nobody, and through ours,
/// where the attacker is another run.
pub(crate) fn part(extent: Extent, measured: &mut Measured) -> Result<()> {
    let mut stage = Stage::start(Layout::Free, Transport::Clear)?;
    let script = stage.file("select.sql", SELECT);
    let log = Log::new(&stage)?;
    let mut rude = [
        ("relay", Driver::outside(&stage.ours)?),
        ("audit", Driver::captured(&stage.ours, stage.ours.work())?),
    ];
    let rounds = match extent {
        Extent::Usual => 5,
        Extent::Full => 11,
    };
    for round in 0..rounds {
        for (name, attacker) in &mut rude {
            let target = stage.target(name)?;
            let known = stage.targets.get(target).context("no such target")?;
            let program = places::interceptor().with_file_name("bench-client");
            let attack = format!("{} {} {} flood 3", program.display(), known.host, known.port);
            for attacked in [false, true] {
                let load = if attacked { "beside an attack" } else { "alone" };
                if attacked {
                    attacker.begin(&attack)?;
                }
                let (stem, options) = log.options(name, round * 2 + usize::from(attacked));
                let more = format!("-R 500 {options}");
                let amount = Amount::For(Duration::from_secs(2));
                let call = Load { script: &script, mode: Mode::Simple, clients: 1, amount, more: &more };
                call.run(&mut stage, target)?;
                let place = Place { part: "neighbour", load, target: name };
                latency::file(&log.times(&stem)?, place, measured);
                if attacked {
                    let said = attacker.end(&attack)?;
                    let count: f64 =
                        said.split(' ').next().and_then(|count| count.parse().ok()).context(said.clone())?;
                    measured.add(place, "attacks", "1/s", count / 3.0);
                }
            }
        }
    }
    drop(rude);
    stage.finish();
    Ok(())
}
