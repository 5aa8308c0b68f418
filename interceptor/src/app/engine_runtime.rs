//! `interceptor oci-runtime`: what a container engine calls to make the containers of runs.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::Args;

use crate::{
    engine::runtime::{self, Options},
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
    /// The runtime's arguments, behind `--`.
    #[arg(last = true, value_name = "ARGUMENT")]
    arguments: Vec<OsString>,
}

/// Does what the engine asks for.
pub fn run(places: &Places, arguments: Arguments) -> ExitCode {
    let Arguments { runc, data_root, arguments } = arguments;
    runtime::run(&Options { places: places.clone(), runc, engine: data_root, arguments })
}
