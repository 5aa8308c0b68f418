//! What the detectors cost by themselves.

use std::{hint::black_box, time::Duration};

use anyhow::Result;
use interceptor_core::mask::Detectors;
use nix::time::{ClockId, clock_gettime};

use super::{PART, corpora::Corpora};
use crate::{
    Extent,
    measured::{Measured, Place},
};

/// Every so many cells something is found in.
const SPARSE: usize = 100;

pub(super) fn part(
    corpora: &Corpora,
    detectors: &Detectors,
    extent: Extent,
    measured: &mut Measured,
) -> Result<()> {
    eprintln!("  what it costs");
    let rounds = match extent {
        Extent::Usual => 7,
        Extent::Full => 21,
    };
    let clean: Vec<&str> = corpora.c.iter().map(String::as_str).collect();
    let values: Vec<&str> = corpora.a.iter().map(|one| one.text.as_str()).collect();
    let sparse: Vec<&str> = clean
        .iter()
        .enumerate()
        .map(|(place, cell)| match place % SPARSE {
            0 => values.get(place / SPARSE % values.len()).copied().unwrap_or(cell),
            _ => cell,
        })
        .collect();
    for _ in 0..rounds {
        for (load, cells) in
            [("clean cells", &clean), ("1 % of cells with hits", &sparse), ("A: sentences", &values)]
        {
            let begun = processor()?;
            for cell in cells {
                black_box(detectors.find(black_box(cell.as_bytes())));
            }
            let seconds = processor()?.saturating_sub(begun).as_secs_f64();
            let bytes: usize = cells.iter().map(|cell| cell.len()).sum();
            let place = Place { part: PART, load, target: "detectors" };
            measured.add(place, "time of a cell", "ns", seconds * 1e9 / cells.len() as f64);
            measured.add(place, "rate", "MB/s", bytes as f64 / 1e6 / seconds);
        }
    }
    Ok(())
}

/// The processor time that this thread has used: what others do beside it is not in it.
fn processor() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}
