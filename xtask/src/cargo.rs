//! Cargo, called so that it builds as the user and only finished programs run as root.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::workspace;

/// What sudo hands on of the environment.
const PRESERVED: &str =
    "--preserve-env=PATH,INTERCEPTOR_BEFORE,INTERCEPTOR_BIN,INTERCEPTOR_SLICE,NO_COLOR,RUST_BACKTRACE";

/// The cargo that runs this task.
pub(crate) fn cargo() -> Result<Command> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What this task was itself built with is no part of what it builds.
    for (name, _) in env::vars() {
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command.current_dir(workspace()?);
    Ok(command)
}

/// The build folder.
pub(crate) fn target() -> Result<PathBuf> {
    Ok(match env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => workspace()?.join(folder),
        None => workspace()?.join("target"),
    })
}

/// Runs a command to its end; an error names it.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let status = command.status().with_context(|| shown.clone())?;
    ensure!(status.success(), "`{shown}` failed: {status}");
    Ok(())
}

/// A command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    // /proc/self belongs to the effective user.
    std::fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
}

/// `program` as root: itself, or by sudo.
pub(crate) fn as_root(program: &Path) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg(PRESERVED).arg(program);
    command
}

/// The target that rustc builds for when none is named.
pub(crate) fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("rustc -vV")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    Ok(host.to_owned())
}

/// Makes cargo run what it built as root: `sudo` when this process is not.
pub(crate) fn elevate_tests(command: &mut Command) -> Result<()> {
    if !is_root() {
        let variable = format!("CARGO_TARGET_{}_RUNNER", host()?.to_uppercase().replace('-', "_"));
        command.env(variable, format!("sudo {PRESERVED}"));
    }
    Ok(())
}
