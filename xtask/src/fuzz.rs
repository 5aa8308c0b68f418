//! `cargo xtask fuzz`: every target's corpus replayed, then mutated for a while. Each target runs in a process of its
//! own, so that an abort or a hang is seen and its input is kept.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{
    cargo::{cargo, succeed, target},
    workspace,
};

/// For how long, and what.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Seconds of mutation for each target
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Where mutation begins; the same seed gives the same inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this target
    target: Option<String>,
}

/// Builds the harness and runs its targets one by one; all are run even when one fails.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    succeed(cargo()?.args(["build", "--workspace", "--bins"]))?;
    let harness = target()?.join("debug/interceptor-fuzz");
    let listed =
        Command::new(&harness).arg("list").output().with_context(|| format!("{}", harness.display()))?;
    let listed = String::from_utf8(listed.stdout).context("the harness's list")?;
    let wanted: Vec<&str> =
        listed.lines().filter(|name| arguments.target.as_deref().is_none_or(|only| only == *name)).collect();
    ensure!(
        !wanted.is_empty(),
        "no such target; there are: {}",
        listed.lines().collect::<Vec<_>>().join(", ")
    );
    let mut failed = Vec::new();
    for name in wanted {
        let corpus = workspace()?.join("fuzz/corpus").join(name);
        let current = target()?.join(format!("fuzz-{name}.input"));
        fs::write(&current, b"")?;
        let mut command = Command::new(&harness);
        command.args(["run", name, &arguments.seconds.to_string(), &arguments.seed.to_string()]);
        let status = command.arg(&corpus).arg(&current).status()?;
        if !status.success() {
            let kept = keep(&current, &corpus)?;
            eprintln!("{name}: {status}; its input is kept as {kept}");
            failed.push(name.to_owned());
        }
        let _ = fs::remove_file(&current);
    }
    ensure!(failed.is_empty(), "targets that failed: {}", failed.join(", "));
    Ok(())
}

/// Moves the input that a target died of into the corpus, where every later replay meets it.
fn keep(current: &Path, corpus: &Path) -> Result<String> {
    use sha2::{Digest, Sha256};
    // The file is a mapping: its first eight bytes say how many of the rest are the input.
    let bytes = fs::read(current)?;
    let length = bytes.first_chunk::<8>().map_or(0, |length| u64::from_le_bytes(*length));
    let input = bytes.get(8..8 + usize::try_from(length)?).context("the harness left no input")?;
    fs::create_dir_all(corpus)?;
    let digest = hex::encode(Sha256::digest(input));
    let path = corpus.join(format!("crash-{}", digest.get(..12).unwrap_or(&digest)));
    fs::write(&path, input)?;
    Ok(path.display().to_string())
}
