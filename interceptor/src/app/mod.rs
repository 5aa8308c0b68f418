//! Wiring: the only place that builds everything. Roles and commands begin here.

mod proxy;

use std::{os::fd::RawFd, process::ExitCode};

use clap::{Args, ValueEnum};

use crate::{control::cli, keeper, places::Places, telemetry};

/// Runs the command line.
pub fn main() -> ExitCode {
    cli::main()
}

/// One of the daemon's own processes.
#[derive(Debug, Args)]
pub struct Role {
    /// Which one.
    #[arg(value_enum)]
    name: RoleName,
    /// The descriptor of its channel to the helper.
    #[arg(long)]
    channel: RawFd,
}

/// The daemon's unprivileged processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleName {
    /// Judges and forwards.
    Proxy,
    /// Keeps secrets and evidence.
    Keeper,
}

/// Runs a role to its end.
pub fn role(places: &Places, role: Role) -> ExitCode {
    telemetry::start();
    let ended = match role.name {
        RoleName::Proxy => proxy::run(places, role.channel),
        RoleName::Keeper => keeper::run(places, role.channel).map_err(anyhow::Error::from),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(3)
        }
    }
}
