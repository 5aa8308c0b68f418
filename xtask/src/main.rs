//! The project's chores: `cargo xtask TASK`, a file per task.

mod build_ebpf;
mod elf;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Parser, Subcommand};

/// The project's chores.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Builds the kernel programs into `interceptor-ebpf/prebuilt/`
    BuildEbpf(build_ebpf::Arguments),
}

fn main() -> ExitCode {
    if let Some(code) = build_ebpf::stand_in_for_rustc() {
        return code;
    }
    let done = match Arguments::parse().task {
        Task::BuildEbpf(arguments) => build_ebpf::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's folder.
fn workspace() -> anyhow::Result<PathBuf> {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let root = PathBuf::from(own).join("..");
    root.canonicalize().context("the workspace's folder")
}
