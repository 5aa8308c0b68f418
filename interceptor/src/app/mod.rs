//! Wiring: the only place that builds everything. Roles and commands begin here.

mod ahead;
mod approvals;
pub mod attach;
pub mod daemon;
pub mod engine_runtime;
mod floods;
mod glass;
mod keeper;
mod labels;
mod operators;
mod proxy;
mod rescue;
pub mod run;
mod undo;
mod vouch;

use std::{ffi::OsString, path::Path, process::ExitCode};

use clap::{Args, ValueEnum};

use crate::{control::cli, engine, helper, places::Places, telemetry};

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
}

/// The interceptor's unprivileged processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleName {
    /// Judges and forwards.
    Proxy,
    /// Keeps secrets and evidence.
    Keeper,
    /// Holds listeners when no daemon lives.
    Holder,
    /// Serves a run the container engine's interface, as far as a run may have it.
    Broker,
}

/// Runs a role to its end.
pub fn role(places: &Places, role: &Role) -> ExitCode {
    telemetry::start();
    let ended = match role.name {
        RoleName::Proxy => proxy::run(places),
        RoleName::Keeper => keeper::run(places),
        RoleName::Holder => holder(),
        RoleName::Broker => broker(),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(3)
        }
    }
}

fn holder() -> anyhow::Result<()> {
    Ok(helper::hold()?)
}

fn broker() -> anyhow::Result<()> {
    engine::broker::run(helper::broker_channel()?)?;
    Ok(())
}

/// The arguments with which this program does something else for the same installation.
pub(crate) fn own_arguments<const N: usize>(root: Option<&Path>, words: [&str; N]) -> Vec<OsString> {
    let place = root.map(|root| [OsString::from("--root"), root.as_os_str().to_owned()]);
    place.into_iter().flatten().chain(words.map(OsString::from)).collect()
}
