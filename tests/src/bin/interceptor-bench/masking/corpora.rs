//! Texts in which something is to be found, and texts in which nothing is.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, de::DeserializeOwned};

const SCRIPT: &str = include_str!("corpora.py");

/// A text, and what stands in it: from which character, to which, and of which kind.
#[derive(Debug, Deserialize)]
pub(super) struct Marked {
    pub(super) text: String,
    pub(super) spans: Vec<(usize, usize, String)>,
}

/// A table.
#[derive(Debug, Deserialize)]
pub(super) struct Table {
    pub(super) labelled: Vec<String>,
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<String>,
}

/// See `corpora.py`.
#[derive(Debug)]
pub(super) struct Corpora {
    pub(super) a: Vec<Marked>,
    pub(super) b: Table,
    pub(super) c: Vec<String>,
    pub(super) numbers: Vec<String>,
    pub(super) d: Vec<Marked>,
}

impl Corpora {
    /// Makes them in `folder`, anew each time: it takes seconds.
    pub(super) fn made(folder: &Path) -> Result<Self> {
        run(SCRIPT, folder)?;
        Ok(Self {
            a: read(folder, "a.json")?,
            b: read(folder, "b.json")?,
            c: read(folder, "c.json")?,
            numbers: read(folder, "numbers.json")?,
            d: read(folder, "d.json")?,
        })
    }
}

/// What a script of ours prints about `folder`.
pub(super) fn run(script: &str, folder: &Path) -> Result<Vec<u8>> {
    let mut python = Command::new(super::python()?);
    python.arg("-c").arg(script).arg(folder).stderr(Stdio::null());
    let output = python.output().context("Python")?;
    ensure!(output.status.success(), "a script of the masking bench failed: {}", output.status);
    Ok(output.stdout)
}

fn read<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<T> {
    let file = folder.join(name);
    let text = fs::read(&file).with_context(|| format!("{}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{}", file.display()))
}
