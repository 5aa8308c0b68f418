//! `audit checkpoint`: what to keep elsewhere, so that the record can be verified against it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};

use super::{
    audit,
    output::{Failure, Printer},
};
use crate::{
    places::Places,
    store::{SignedCheckpoint, checkpoints},
};

/// What to do with checkpoints.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write the newest checkpoint and the log's public key into a folder, to keep them elsewhere.
    Export(Export),
}

/// Arguments of `audit checkpoint export`.
#[derive(Debug, Args)]
pub(super) struct Export {
    /// The folder; made where it is missing. What is there already is never changed.
    folder: PathBuf,
    /// Every checkpoint, not only the newest.
    #[arg(short, long)]
    all: bool,
}

/// `interceptor audit checkpoint`
pub(super) fn run(places: &Places, printer: &Printer, command: &Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Export(options) => export(places, printer, options),
    }
}

fn export(places: &Places, printer: &Printer, options: &Export) -> Result<ExitCode, Failure> {
    // Says who may read it, where it cannot be read.
    drop(audit::open(places)?);
    let folder = places.audit();
    let key = audit::log_key(&folder.join("log.pub"))?;
    let mut signed = checkpoints(&folder, &key).map_err(|error| Failure::of(&error))?;
    if !options.all {
        signed.drain(..signed.len().saturating_sub(1));
    }
    if signed.is_empty() {
        return Err(Failure::no("no checkpoint is signed yet: one follows within 10 seconds of new lines"));
    }
    fs::create_dir_all(&options.folder).map_err(|error| cannot(&options.folder, &error))?;
    let mut files = vec![put(&options.folder.join("log.pub"), &format!("{key}\n"))?];
    for SignedCheckpoint { checkpoint, note } in &signed {
        let name = format!("{:012}.note", checkpoint.size);
        files.push(put(&options.folder.join(name), note)?);
    }
    let newest = signed.last().map_or(0, |signed| signed.checkpoint.size);
    let names: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
    if printer.is_json() {
        printer.json(&serde_json::json!({ "log": key.name(), "lines": newest, "files": names }))?;
    } else {
        printer.field("log", key.name())?;
        printer.field("covers", &format!("{newest} lines"))?;
        names.iter().try_for_each(|name| printer.field("file", name))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes a file that is not there yet; one that is there must say the same.
fn put(path: &Path, text: &str) -> Result<PathBuf, Failure> {
    match fs::read_to_string(path) {
        Ok(there) if there == text => return Ok(path.to_owned()),
        Ok(_) => {
            return Err(Failure::no(format!(
                "{} is there and says something else: it was kept from another log, or one of both was changed",
                path.display()
            )));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(cannot(path, &error)),
    }
    fs::write(path, text).map_err(|error| cannot(path, &error))?;
    Ok(path.to_owned())
}

fn cannot(path: &Path, error: &io::Error) -> Failure {
    Failure::usage(format!("{} cannot be used: {error}", path.display()))
}
