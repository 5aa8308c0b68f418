//! `interceptor oci-runtime`: what a container engine calls to make the containers of runs.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};

use crate::{
    engine::runtime::{self, Options, Others},
    places::Places,
};

/// Arguments of `oci-runtime`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The runtime that makes what is captured.
    #[arg(long, value_name = "PROGRAM", default_value = "runc")]
    runc: PathBuf,
    /// Where the engine keeps its own files, if it was told another place.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/docker")]
    data_root: PathBuf,
    /// What becomes of containers that are no run's: where this is the engine's default runtime, they are to be left to the other.
    #[arg(long, value_enum, default_value_t = OfOthers::Refused)]
    others: OfOthers,
    /// The runtime's arguments, behind `--`.
    #[arg(last = true, value_name = "ARGUMENT")]
    arguments: Vec<OsString>,
}

/// [`Others`], as it is said on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OfOthers {
    /// They are not made.
    Refused,
    /// They are the other runtime's.
    Left,
}

/// Does what the engine asks for.
pub fn run(places: &Places, arguments: Arguments) -> ExitCode {
    let Arguments { runc, data_root, others, arguments } = arguments;
    let others = match others {
        OfOthers::Refused => Others::Refused,
        OfOthers::Left => Others::Left,
    };
    runtime::run(&Options { places: places.clone(), runc, engine: data_root, others, arguments })
}
