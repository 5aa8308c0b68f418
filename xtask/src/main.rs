//! The project's chores: `cargo xtask TASK`, a file per task.

mod bench;
mod btf;
mod build_ebpf;
mod bypass;
mod cargo;
mod demo;
mod elf;
mod fuzz;
mod oracle;
mod page;
mod setup;
mod suites;
mod test;
mod tidy;
mod upgrade;
mod vm;

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
    /// Builds everything and shows it at work: a private PostgreSQL, captured clients, verdicts, records
    Demo(demo::Arguments),
    /// Builds and runs every test, against the real kernel, a real PostgreSQL and real clients
    Test(test::Arguments),
    /// Tries every way around capture and writes the table into docs/guarantees.md
    Bypass,
    /// Tries what was built on other kernels, each in an emulated machine
    Vm(vm::Arguments),
    /// Tries an earlier build and this one, one after the other, with runs that go on
    Upgrade(upgrade::Arguments),
    /// Installs what demo and tests need and this host lacks, and says what
    Setup,
    /// Checks the house rules: layers, sizes, module documentation, licences
    Tidy,
    /// Measures it against a raw relay and other proxies, in turns, and prints tables
    Bench(bench::Arguments),
    /// Replays every fuzz corpus, then mutates it
    Fuzz(fuzz::Arguments),
    /// Holds the reading of SQL against PostgreSQL's own parser
    Oracle,
    /// Runs the drivers' own test suites direct and captured, and compares
    Suites(suites::Arguments),
    /// Builds the kernel programs into `interceptor-ebpf/prebuilt/`
    BuildEbpf(build_ebpf::Arguments),
}

fn main() -> ExitCode {
    if let Some(code) = build_ebpf::stand_in_for_rustc().or_else(fuzz::stand_in_for_rustc) {
        return code;
    }
    let done = match Arguments::parse().task {
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Test(arguments) => test::run(&arguments),
        Task::Bypass => bypass::run(),
        Task::Vm(arguments) => vm::run(&arguments),
        Task::Upgrade(arguments) => upgrade::run(&arguments),
        Task::Setup => setup::clients(),
        Task::Tidy => tidy::run(),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Fuzz(arguments) => fuzz::run(&arguments),
        Task::Oracle => oracle::run(),
        Task::Suites(arguments) => suites::run(&arguments),
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
