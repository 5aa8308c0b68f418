//! Why nothing was run, and the exit status that stands for it.

use std::{io, path::PathBuf};

use super::{NOT_EXECUTABLE, NOT_FOUND, OWN_FAILURE};
use crate::channel::ChannelError;

/// Why nothing was run.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Not root.
    #[error("only root may capture: run it with `sudo`; the command itself runs as you")]
    NotRoot,
    /// From inside a run.
    #[error("this process is captured itself: launch from outside of the run")]
    Captured,
    /// Nothing to attach to.
    #[error("there is no process {0}")]
    NoProcess(u32),
    /// Something that cannot be captured.
    #[error("{0}")]
    Obstacle(String),
    /// No command.
    #[error("no command: say what to run after `--`")]
    NoCommand,
    /// The command does not exist.
    #[error("{0}: command not found")]
    NotFound(String),
    /// The command is no program.
    #[error("{} is not an executable file", .0.display())]
    NotExecutable(PathBuf),
    /// An argument or a variable that no program can be given.
    #[error("{0:?} has a NUL byte in it")]
    Nul(String),
    /// It is not said whom to run as.
    #[error("whom should it run as? Use `sudo` from your own account, or say `--user NAME` (also for root)")]
    WhichUser,
    /// No such user.
    #[error("there is no user {0:?} on this host")]
    NoUser(String),
    /// `observe` without a reason.
    #[error("observing instead of enforcing needs a reason: say `--reason \"...\"`")]
    NoReason,
    /// The daemon could not be had.
    #[error("the daemon does not start: {0}")]
    Daemon(String),
    /// The daemon said no.
    #[error("{0}")]
    Refused(String),
    /// The daemon or the run's first process speaks in a way that is not known.
    #[error("{0} answered out of turn")]
    OutOfTurn(&'static str),
    /// The run could not be built.
    #[error("{1}")]
    Inside(u8, String),
    /// The daemon or the run's first process went away.
    #[error("could not talk to {who}")]
    Talk {
        /// Who.
        who: &'static str,
        /// How.
        source: ChannelError,
    },
    /// A step failed.
    #[error("could not {what}")]
    Step {
        /// The step.
        what: &'static str,
        /// The reason.
        source: io::Error,
    },
}

impl LaunchError {
    /// The exit status that stands for it.
    pub fn status(&self) -> u8 {
        match self {
            Self::NotFound(_) => NOT_FOUND,
            Self::NotExecutable(_) => NOT_EXECUTABLE,
            Self::Inside(status, _) => *status,
            _ => OWN_FAILURE,
        }
    }
}

pub(super) fn step(what: &'static str) -> impl FnOnce(io::Error) -> LaunchError {
    move |source| LaunchError::Step { what, source }
}
