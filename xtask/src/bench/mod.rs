//! `cargo xtask bench`: builds for release as the user, measures as root, and makes tables of what was measured.

mod goals;
mod host;
mod masking;
mod measured;
mod page;
mod plot;
mod table;

use std::{fs, path::PathBuf, process::Stdio};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    cargo::{as_root, cargo, shown, succeed, target},
    setup, workspace,
};
use measured::Measured;

/// How much to measure.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What is measured, if not the product as a whole
    what: Option<What>,
    /// Measures everything there is, with more clients and more rounds; takes an hour
    #[arg(long)]
    full: bool,
    /// Only this part; may be given several times
    #[arg(long, value_name = "PART")]
    only: Vec<String>,
    /// Measures nothing: takes what an earlier run left in this bench.json
    #[arg(long, value_name = "FILE", conflicts_with_all = ["full", "only"])]
    from: Option<PathBuf>,
    /// Writes what was measured into docs/performance.md, or docs/masking.md
    #[arg(long)]
    page: bool,
}

/// What has a bench of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// What masking finds and costs, beside Presidio
    Masking,
}

/// Measures, or takes what was measured before, and shows it.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let report: Report = match &arguments.from {
        Some(file) => serde_json::from_slice(&fs::read(file).with_context(|| format!("{}", file.display()))?)
            .with_context(|| format!("{} is no report of this task", file.display()))?,
        None => measure(arguments)?,
    };
    let docs = workspace()?.join("docs");
    match arguments.what {
        Some(What::Masking) => {
            let text = masking::text(&report);
            println!("{text}");
            if arguments.page {
                masking::write(&docs, &text)?
            }
        }
        None => {
            let text = page::text(&report);
            println!("{text}");
            if arguments.page {
                page::write(&docs, &text, &report.measured)?
            }
        }
    }
    Ok(())
}

/// A table of what a machine of `cargo xtask vm` measured of LSM programs.
pub(crate) fn layer(said: &str) -> Result<String> {
    let json = said.lines().find(|line| line.starts_with('[')).context("the machine measured nothing")?;
    Ok(table::layer(&serde_json::from_str(json)?))
}

/// Everything about one run of the story.
#[derive(Deserialize, Serialize)]
pub(crate) struct Report {
    /// The command line.
    pub(crate) command: String,
    /// Where it ran.
    pub(crate) host: Map<String, Value>,
    pub(crate) measured: Measured,
}

fn measure(arguments: &Arguments) -> Result<Report> {
    setup::bench()?;
    if arguments.what == Some(What::Masking) {
        setup::presidio()?;
    }
    println!("building for release (the first time takes some minutes)");
    let mut build = cargo()?;
    build.args(["build", "--release", "--package", "interceptor", "--package", "interceptor-tests"]);
    for program in ["interceptor", "interceptor-bench", "raw-relay", "bench-client"] {
        build.args(["--bin", program]);
    }
    succeed(&mut build)?;
    let (parts, name) = match arguments.what {
        Some(What::Masking) => (vec![masking::PART.to_owned()], "bench-masking.json"),
        None => (arguments.only.clone(), "bench.json"),
    };
    let mut story = as_root(&target()?.join("release/interceptor-bench"));
    if arguments.full {
        story.arg("--full");
    }
    story.args(&parts);
    let before = host::load();
    let line = shown(&story);
    let output = story.stderr(Stdio::inherit()).output().with_context(|| line.clone())?;
    ensure!(output.status.success(), "`{line}` failed: {}", output.status);
    let measured = serde_json::from_slice(&output.stdout).context("what was measured")?;
    let report = Report { command: command(), host: host::facts(&before), measured };
    let file = target()?.join(name);
    fs::write(&file, serde_json::to_string_pretty(&report)?)?;
    println!("everything that was measured: {}\n", file.display());
    Ok(report)
}

/// The command line of this program, as it is typed.
fn command() -> String {
    let words = std::env::args().skip(1);
    ["cargo", "xtask"].into_iter().map(str::to_owned).chain(words).collect::<Vec<_>>().join(" ")
}
