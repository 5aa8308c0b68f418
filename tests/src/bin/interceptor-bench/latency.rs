//! Latency at a fixed rate, wherever the kernel puts everybody: what a person sees.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};

use crate::{
    Extent,
    measured::{Measured, Place},
    pgbench::{Amount, Load, Mode, SELECT},
    stage::{Layout, Stage, Transport},
};

/// Two clients with a thousand transactions a second between them.
pub(crate) fn part(extent: Extent, measured: &mut Measured) -> Result<()> {
    let mut stage = Stage::start(Layout::Free, Transport::Clear)?;
    let script = stage.file("select.sql", SELECT);
    let log = Log::new(&stage)?;
    let (rounds, seconds) = match extent {
        Extent::Usual => (5, 2),
        Extent::Full => (7, 4),
    };
    for round in 0..rounds {
        for target in 0..stage.targets.len() {
            let name = stage.targets.get(target).context("no such target")?.name;
            let (stem, options) = log.options(name, round);
            let more = format!("-R 1000 {options}");
            let amount = Amount::For(Duration::from_secs(seconds));
            let load = Load { script: &script, mode: Mode::Simple, clients: 2, amount, more: &more };
            load.run(&mut stage, target)?;
            let place = Place { part: "latency", load: "1000 simple queries a second", target: name };
            file(&log.times(&stem)?, place, measured);
        }
    }
    stage.finish();
    Ok(())
}

/// Files some percentiles of times in their order.
pub(crate) fn file(times: &[f64], place: Place<'_>, measured: &mut Measured) {
    for (quantity, part) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)] {
        let at = (part * times.len().saturating_sub(1) as f64).round() as usize;
        measured.add(place, quantity, "us", times.get(at).copied().unwrap_or_default());
    }
}

/// Where pgbench logs each transaction, whoever it runs as.
pub(crate) struct Log {
    folder: tempfile::TempDir,
}

impl Log {
    /// An empty folder of the stage's.
    pub(crate) fn new(stage: &Stage) -> Result<Self> {
        Ok(Self { folder: stage.folder("latency")? })
    }

    /// What its logs will be known by, and the options that make them.
    pub(crate) fn options(&self, name: &str, round: usize) -> (String, String) {
        let stem = format!("{name}-{round}.");
        let options =
            format!("-l --log-prefix {}", self.folder.path().join(stem.trim_end_matches('.')).display());
        (stem, options)
    }

    /// What was logged, in order of length: each transaction's time without what it began too late by.
    pub(crate) fn times(&self, stem: &str) -> Result<Vec<f64>> {
        let mut times = Vec::new();
        for entry in fs::read_dir(self.folder.path())?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(stem) {
                times.extend(fs::read_to_string(entry.path())?.lines().filter_map(time));
            }
        }
        ensure!(!times.is_empty(), "pgbench logged nothing");
        times.sort_by(f64::total_cmp);
        Ok(times)
    }
}

/// The third column without the seventh.
fn time(line: &str) -> Option<f64> {
    let words: Vec<&str> = line.split(' ').collect();
    let [_, _, time, _, _, _, late] = words.as_slice() else { return None };
    Some(time.parse::<f64>().ok()? - late.parse::<f64>().ok()?)
}
