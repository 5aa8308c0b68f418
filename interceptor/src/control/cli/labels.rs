//! `labels`: what bears which label, and what to do about it.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use interceptor_core::{mask::Which, model::ResourceName};

use super::{
    output::{Failure, Printer},
    runs::{ask, finish},
};
use crate::{control::api::Request, places::Places};

/// Commands of `labels`.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Take labels from a column that bears them for what it was called, or for what was copied into it; recorded.
    Forget(Forget),
}

/// Arguments of `labels forget`.
#[derive(Debug, Args)]
pub(super) struct Forget {
    /// Where.
    resource: ResourceName,
    /// The column, or a relation for all of its columns, as it was called last: SCHEMA.RELATION or
    /// SCHEMA.RELATION.COLUMN.
    #[arg(value_parser = which)]
    column: Which,
}

fn which(text: &str) -> Result<Which, String> {
    Which::parse(text).ok_or_else(|| "write it as SCHEMA.RELATION or SCHEMA.RELATION.COLUMN".to_owned())
}

/// `interceptor labels`
pub(super) fn run(places: &Places, printer: &Printer, command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Forget(Forget { resource, column }) => {
            finish(printer, ask(places, Request::ForgetLabels { resource, what: column })?)
        }
    }
}
