//! `cargo xtask bypass`: builds as the user, tries every way around capture as root, and puts the table into
//! `docs/guarantees.md`.

use std::{fs, process::Stdio};

use anyhow::{Context, Result, ensure};

use crate::{
    cargo::{as_root, cargo, shown, succeed, target},
    page, setup, workspace,
};

const TASK: &str = "written by `cargo xtask bypass`";

/// Tries everything, prints the table, and writes it, open ways and all; fails where one is open that is not known to be.
pub(crate) fn run() -> Result<()> {
    setup::base()?;
    succeed(cargo()?.args(["build", "--workspace", "--bins"]))?;
    let mut trial = as_root(&target()?.join("debug/interceptor-bypass"));
    trial.env("INTERCEPTOR_BIN", target()?.join("debug/interceptor"));
    let line = shown(&trial);
    let output = trial.stderr(Stdio::inherit()).output().with_context(|| line.clone())?;
    let table = String::from_utf8(output.stdout).context("the table")?;
    ensure!(!table.is_empty(), "`{line}` failed: {}", output.status);
    println!("{table}");
    let path = workspace()?.join("docs/guarantees.md");
    let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    fs::write(&path, page::with(&text, TASK, &table)?)?;
    ensure!(output.status.success(), "a way around is open that is not known to be, or could not be tried");
    Ok(())
}
