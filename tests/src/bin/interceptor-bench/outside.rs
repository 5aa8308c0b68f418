//! What those pay who are not captured: the same work with the product running on the host, and without.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use interceptor_tests::places;

use crate::{
    Extent,
    driver::Driver,
    measured::{Measured, Place},
    pgbench::{Amount, Load, Mode, SELECT, read},
    stage::{self, Client, Layout, Target, Transport},
};

/// Starts and removes the product in each round.
pub(crate) fn part(extent: Extent, measured: &mut Measured) -> Result<()> {
    Layout::OneCore.enter()?;
    let bed = stage::bed();
    let bare = stage::installation(&bed, Transport::Clear).write();
    let script = bare.script("select.sql", SELECT);
    let mut driver = Driver::outside(&bare)?;
    let direct = Target {
        name: "direct",
        client: Client::Outside,
        host: "127.0.0.1",
        port: bed.port(),
        transport: Transport::Clear,
        watched: Vec::new(),
    };
    let rounds = match extent {
        Extent::Usual => 7,
        Extent::Full => 21,
    };
    for round in 0..=rounds {
        for with in [false, true] {
            let product = with.then(|| stage::installation(&bed, Transport::Clear).start());
            let name = if with { "with the product" } else { "without" };
            let mut add = |load, value| {
                // The first round only warms up.
                if round > 0 {
                    measured.add(Place { part: "outside", load, target: name }, "rate", "1/s", value);
                }
            };
            let amount = Amount::For(Duration::from_secs(1));
            let load = Load { script: &script, mode: Mode::Simple, clients: 8, amount, more: "" };
            let said = driver.tell(&load.line(&direct))?;
            add("simple, 8 clients", read(&said).with_context(|| said.clone())?.rate);
            let client = places::interceptor().with_file_name("bench-client");
            let said = driver.tell(&format!("{} 127.0.0.1 {} flood 1", client.display(), bed.port()))?;
            add(
                "connects",
                said.split(' ').next().and_then(|count| count.parse().ok()).context(said.clone())?,
            );
            let begun = Instant::now();
            driver.tell("i=0; while [ $i -lt 500 ]; do /bin/true; i=$((i+1)); done")?;
            add("processes", 500.0 / begun.elapsed().as_secs_f64());
            if let Some(product) = product {
                product.finish();
            }
        }
    }
    drop(driver);
    bare.finish();
    Ok(())
}
