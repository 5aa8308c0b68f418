//! Masking: what the detectors find and what they take for something, beside Presidio; what they cost; and how fast
//! results pass that have to be masked.
//!
//! Promise: the corpora are the same from run to run, and everybody is asked about the same.

mod corpora;
mod quality;
mod speed;
mod through;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use interceptor_core::mask::{Detector, Detectors};
use interceptor_tests::places;

use crate::{Extent, measured::Measured};

/// The part's name, in measurements.
const PART: &str = "masking";

/// Finds, measures, and passes results.
pub(crate) fn part(extent: Extent, measured: &mut Measured) -> Result<()> {
    let corpora = corpora::Corpora::made(&folder())?;
    let detectors = every()?;
    quality::part(&corpora, &detectors, &folder(), measured)?;
    speed::part(&corpora, &detectors, extent, measured)?;
    through::part(&corpora, extent, measured)
}

/// Where the corpora are made.
fn folder() -> PathBuf {
    places::target().join("masking")
}

/// Everything that can be looked for.
fn every() -> Result<Detectors> {
    let all = Detector::WORDS.map(|(_, detector)| detector);
    Detectors::new(&all).map_err(anyhow::Error::msg).context("the detectors")
}

/// The Python that has Presidio, made by `cargo xtask bench masking`.
fn python() -> Result<PathBuf> {
    let path = places::target().join("clients/presidio/bin/python");
    ensure!(path.exists(), "{} is missing: run `cargo xtask bench masking`", path.display());
    Ok(path)
}
