//! `cargo xtask bench`: builds for release as the user, measures as root, and makes tables of what was measured.

mod goals;
mod host;
mod measured;
mod page;
mod plot;
mod table;

use std::{fs, process::Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    cargo::{as_root, cargo, shown, succeed, target},
    setup, workspace,
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
    /// Writes what was measured into docs/performance.md
    #[arg(long)]
    page: bool,
}

/// Builds, measures, and shows.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::bench()?;
    println!("building for release (the first time takes some minutes)");
    let mut build = cargo()?;
    build.args(["build", "--release", "--package", "interceptor", "--package", "interceptor-tests"]);
    for program in ["interceptor", "interceptor-bench", "raw-relay", "bench-client"] {
        build.args(["--bin", program]);
    }
    succeed(&mut build)?;
    let mut story = as_root(&target()?.join("release/interceptor-bench"));
    if arguments.full {
        story.arg("--full");
    }
    story.args(&arguments.only);
    let line = shown(&story);
    let output = story.stderr(Stdio::inherit()).output().with_context(|| line.clone())?;
    ensure!(output.status.success(), "`{line}` failed: {}", output.status);
    let values: Value = serde_json::from_slice(&output.stdout).context("what was measured")?;
    let host = host::facts();
    let mut command = "cargo xtask bench".to_owned();
    if arguments.full {
        command += " --full";
    }
    arguments.only.iter().for_each(|part| command += &format!(" --only {part}"));
    let report = json!({ "command": command, "host": host, "measured": values });
    let file = target()?.join("bench.json");
    fs::write(&file, serde_json::to_string_pretty(&report)?)?;
    let measured = Measured::read(values)?;
    let text = page::text(&measured, &host, &command);
    println!("{text}");
    if arguments.page {
        page::write(&workspace()?.join("docs"), &text, &measured)?;
    }
    println!("\neverything that was measured: {}", file.display());
    Ok(())
}
