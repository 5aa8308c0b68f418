//! `interceptor run`: the launcher's arguments.

use std::{ffi::OsString, path::Path, process::ExitCode};

use clap::Args;
use interceptor_core::model::{AgentName, Mode};

use crate::{
    launch::{self, Options},
    places::Places,
};

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The agent that this is; without it, the hints of `agents.toml` decide.
    #[arg(long, value_name = "NAME")]
    agent: Option<AgentName>,
    /// Run the command as this user; by default as whoever called sudo.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Forward everything and only record what would have been refused.
    #[arg(long, requires = "reason")]
    observe: bool,
    /// Why it is only observed; recorded.
    #[arg(long, value_name = "TEXT", requires = "observe")]
    reason: Option<String>,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs the command captured and gives its exit code.
pub fn run(places: &Places, root: Option<&Path>, arguments: Arguments) -> ExitCode {
    launch::run(&Options {
        places: places.clone(),
        agent: arguments.agent,
        mode: if arguments.observe { Mode::Observe } else { Mode::Enforce },
        reason: arguments.reason,
        user: arguments.user,
        command: arguments.command,
        daemon: super::own_arguments(root, ["daemon", "--announce"]),
    })
}
