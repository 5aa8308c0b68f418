//! `cargo xtask demo`: builds as the user, then starts the story as root.

use anyhow::{Result, ensure};

use crate::{
    cargo::{as_root, cargo, shown, succeed, target},
    setup,
};

/// How to show it.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Leaves the database and the daemon running, to try more
    #[arg(long)]
    keep: bool,
}

/// Builds the product and the story-teller, and runs the latter.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::demo()?;
    println!("building (the first time takes some minutes)");
    succeed(cargo()?.args(["build", "--workspace", "--bins"]))?;
    let mut story = as_root(&target()?.join("debug/interceptor-demo"));
    if arguments.keep {
        story.arg("--keep");
    }
    let status = story.status()?;
    ensure!(status.success(), "`{}` failed: {status}", shown(&story));
    Ok(())
}
