//! The bench's story, as root: starts everything, measures in turns, prints what it measured as JSON. `cargo xtask
//! bench` builds and starts it, and makes tables and plots of what it prints.
//!
//! Promises: every ratio is of values from the same round; whatever is started ends with the bench, also when it
//! fails or is interrupted. Knows the product only from outside.

mod connects;
mod driver;
mod durability;
mod hook;
mod idle;
mod large;
mod latency;
mod launch;
mod layer;
mod loads;
mod masking;
mod measured;
mod neighbour;
mod outside;
mod pgbench;
mod rivals;
mod stage;
mod throughput;
mod tls;
mod usage;

use std::process::ExitCode;

use anyhow::{Result, bail};
use interceptor_tests::interrupt;

use crate::{measured::Measured, stage::Layout};

fn main() -> ExitCode {
    interrupt::listen();
    let mut measured = Measured::default();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match perform(&arguments, &mut measured) {
        Ok(()) => {
            println!("{}", measured.json());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("interceptor-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures a part.
type Part = fn(Extent, &mut Measured) -> Result<()>;

/// Which parts there are, by name.
const PARTS: &[(&str, Part)] = &[
    ("throughput", |extent, measured| throughput::part(Layout::OneCore, extent, measured)),
    ("large", large::part),
    ("connects", connects::part),
    ("idle", idle::part),
    ("latency", latency::part),
    ("hook", hook::part),
    ("durability", durability::part),
    ("outside", outside::part),
    ("launch", launch::part),
    ("neighbour", neighbour::part),
    ("masking", masking::part),
    ("layer", layer::part),
    ("loads", loads::part),
    ("tls", tls::part),
    ("throughput-free", |extent, measured| throughput::part(Layout::Free, extent, measured)),
];

/// Parts that only `--full` runs, unless they are asked for by name.
const ONLY_FULL: &[&str] = &["throughput-free", "loads", "tls"];

/// Parts that are benches of their own, and are always asked for by name.
const APART: &[&str] = &["masking", "layer"];

/// How much of each part is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// What the goals are about.
    Usual,
    /// Whatever there is.
    Full,
}

fn perform(arguments: &[String], measured: &mut Measured) -> Result<()> {
    let (options, names): (Vec<&str>, Vec<&str>) =
        arguments.iter().map(String::as_str).partition(|word| word.starts_with("--"));
    let extent = match options.as_slice() {
        [] => Extent::Usual,
        ["--full"] => Extent::Full,
        _ => bail!("usage: interceptor-bench [--full] [PART ...]"),
    };
    if let Some(unknown) = names.iter().find(|name| PARTS.iter().all(|(known, _)| known != *name)) {
        let known: Vec<_> = PARTS.iter().map(|(known, _)| *known).collect();
        bail!("there is no part {unknown}; there are: {}", known.join(", "));
    }
    for (name, measure) in PARTS {
        let whole = names.is_empty() && !APART.contains(name);
        let usual = whole && (extent == Extent::Full || !ONLY_FULL.contains(name));
        if usual || names.contains(name) {
            eprintln!("{name}");
            measure(extent, measured)?;
        }
    }
    Ok(())
}
