//! `cargo xtask upgrade`: an earlier build and this one, one after the other, with runs that go on.
//!
//! The earlier one is the last whose kernel programs spoke another ABI with their daemon, or any commit that is named. It is
//! made from the repository's own history, below the build folder.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{
    cargo::{cargo, elevate_tests, shown, succeed, target},
    setup, workspace,
};

/// What to begin with.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The commit of the earlier build; without it, the last with another ABI
    #[arg(long, value_name = "COMMIT")]
    from: Option<String>,
}

/// Builds both and tries it.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::clients()?;
    trial(arguments.from.as_deref())
}

/// The same where everything that it needs is installed.
pub(crate) fn trial(from: Option<&str>) -> Result<()> {
    let commit = match from {
        Some(commit) => commit.to_owned(),
        None => last_with_another_abi()?,
    };
    println!("the earlier build is {}", git(&["log", "-1", "--format=%h %s", &commit])?);
    let earlier = build(&commit)?;
    succeed(cargo()?.args(["build", "--workspace", "--all-targets"]))?;
    let mut command = cargo()?;
    command.args(["test", "--workspace", "--test", "e2e", "--", "--ignored", "upgrade::"]);
    command.env("INTERCEPTOR_BIN", target()?.join("debug/interceptor")).env("INTERCEPTOR_BEFORE", earlier);
    elevate_tests(&mut command)?;
    succeed(&mut command)
}

/// The parent of the commit that changed the number last.
fn last_with_another_abi() -> Result<String> {
    let change = git(&[
        "log",
        "-1",
        "--format=%H",
        "-G^pub const ABI_VERSION",
        "--",
        "interceptor-common/src/lib.rs",
    ])?;
    ensure!(!change.is_empty(), "no commit here changed the ABI: name one with --from");
    git(&["rev-parse", "--verify", "--quiet", &format!("{change}^")])
        .context("the history ends before it: fetch all of it, or name a commit with --from")
}

/// The product's binary of a commit.
fn build(commit: &str) -> Result<PathBuf> {
    let folder = target()?.join("earlier");
    let (source, made) = (folder.join("source"), folder.join("target"));
    if source.exists() {
        fs::remove_dir_all(&source).with_context(|| format!("{}", source.display()))?;
    }
    fs::create_dir_all(&source).with_context(|| format!("{}", source.display()))?;
    let mut archive = Command::new("git");
    archive.current_dir(workspace()?).args(["archive", commit]).stdout(Stdio::piped());
    let line = shown(&archive);
    let mut packed = archive.spawn().with_context(|| line.clone())?;
    let output = packed.stdout.take().context("no output")?;
    succeed(Command::new("tar").arg("-x").arg("-C").arg(&source).stdin(output))?;
    ensure!(packed.wait()?.success(), "`{line}` failed");
    succeed(
        cargo()?.current_dir(&source).args(["build", "--package", "interceptor", "--target-dir"]).arg(&made),
    )?;
    Ok(made.join("debug/interceptor"))
}

fn git(words: &[&str]) -> Result<String> {
    let mut command = Command::new("git");
    command.current_dir(workspace()?).args(words).stderr(Stdio::inherit());
    let line = shown(&command);
    let output = command.output().with_context(|| line.clone())?;
    ensure!(output.status.success(), "`{line}` failed: {}", output.status);
    Ok(String::from_utf8(output.stdout).with_context(|| line.clone())?.trim().to_owned())
}
