//! What LSM programs cost what any process of the host does, and what a captured one does: the same calls with them and
//! without. Kernels that do not call them are not measured: `cargo xtask vm layer` has some that do.

use anyhow::{Context, Result};
use interceptor_tests::Setup;

use crate::{
    Extent,
    driver::Driver,
    measured::{Measured, Place},
};

/// Makes each call many times, and prints its name and the nanoseconds that one took.
const CALLS: &str = include_str!("layer.py");

pub(crate) fn part(extent: Extent, measured: &mut Measured) -> Result<()> {
    let rounds = match extent {
        Extent::Usual => 7,
        Extent::Full => 15,
    };
    for _ in 0..rounds {
        for (target, setting) in [("without", "lsm = \"off\""), ("with", "lsm = \"required\"")] {
            let installation = Setup::empty().settings(setting).start();
            let line = format!("/usr/bin/python3 {}", installation.script("layer.py", CALLS));
            let drivers = [
                ("a process outside", Driver::outside(&installation)?),
                ("an attached process", Driver::attached(&installation)?),
            ];
            for (load, mut driver) in drivers {
                let said = driver.tell(&line)?;
                let place = Place { part: "layer", load, target };
                for line in said.lines().filter(|line| !line.is_empty()) {
                    let (call, time) = line.rsplit_once(' ').with_context(|| said.clone())?;
                    measured.add(place, call, "ns", time.parse().with_context(|| said.clone())?);
                }
            }
            installation.finish();
        }
    }
    Ok(())
}
