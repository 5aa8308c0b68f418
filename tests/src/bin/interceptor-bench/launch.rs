//! How long it takes to capture and run something that takes no time itself.

use std::{
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Result, ensure};
use interceptor_tests::interrupt;

use crate::{
    Extent,
    measured::{Measured, Place},
    stage::{self, Layout, Transport},
};

/// `run -- true` as the first thing that a daemon does after its start, then many times, and `true` by itself.
pub(crate) fn part(extent: Extent, measured: &mut Measured) -> Result<()> {
    Layout::Free.enter()?;
    let bed = stage::bed();
    let (starts, runs) = match extent {
        Extent::Usual => (5, 5),
        Extent::Full => (11, 11),
    };
    for _ in 0..starts {
        let product = stage::installation(&bed, Transport::Clear).start();
        for run in 0..=runs {
            let load = if run == 0 { "run -- true, fresh daemon" } else { "run -- true" };
            let place = Place { part: "launch", load, target: "audit" };
            measured.add(place, "time", "ms", time(&mut product.captured("release-bot", &["true"]))?);
            let place = Place { part: "launch", load, target: "direct" };
            measured.add(place, "time", "ms", time(&mut Command::new("true"))?);
        }
        product.finish();
    }
    Ok(())
}

fn time(command: &mut Command) -> Result<f64> {
    interrupt::check()?;
    let begun = Instant::now();
    let output = command.stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}
