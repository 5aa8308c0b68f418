//! `cargo xtask bench`: builds for release as the user, measures as root, and makes tables of what was measured.

mod host;
mod measured;
mod table;

use std::{fs, process::Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    cargo::{as_root, cargo, shown, succeed, target},
    setup,
};
use measured::Measured;

/// How much to measure.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Measures everything there is, with more clients and more rounds; takes an hour
    #[arg(long)]
    full: bool,
    /// Only this part; may be given several times
    #[arg(long, value_name = "PART")]
    only: Vec<String>,
}

/// Builds, measures, and shows.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::bench()?;
    println!("building for release (the first time takes some minutes)");
    succeed(cargo()?.args([
        "build",
        "--release",
        "--package",
        "interceptor",
        "--package",
        "interceptor-tests",
        "--bins",
    ]))?;
    let mut story = as_root(&target()?.join("release/interceptor-bench"));
    if arguments.full {
        story.arg("--full");
    }
    story.args(&arguments.only);
    let line = shown(&story);
    let output = story.stderr(Stdio::inherit()).output().with_context(|| line.clone())?;
    ensure!(output.status.success(), "`{line}` failed: {}", output.status);
    let values: Value = serde_json::from_slice(&output.stdout).context("what was measured")?;
    let report = json!({ "host": host::facts(), "measured": values });
    let file = target()?.join("bench.json");
    fs::write(&file, serde_json::to_string_pretty(&report)?)?;
    let measured = Measured::read(values)?;
    print!("{}", table::throughput(&measured));
    println!("\neverything that was measured: {}", file.display());
    Ok(())
}
