//! The certificate authority: what agents' programs must trust.

use std::{fs, process::ExitCode};

use clap::Subcommand;

use super::output::{Failure, Printer};
use crate::{places::Places, tls::trust};

/// What to do with it.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print the certificate.
    Print,
    /// Print shell lines that make programs trust it. `run` needs none of them.
    Env,
}

/// `interceptor ca`
pub(super) fn run(places: &Places, printer: &Printer, command: &Command) -> Result<ExitCode, Failure> {
    let path = places.authority().join("ca.pem");
    let pem = fs::read_to_string(&path).map_err(|error| {
        Failure::host(format!(
            "{} cannot be read ({error}): the daemon makes it when it first starts, `interceptor daemon`",
            path.display()
        ))
    })?;
    match command {
        Command::Print if printer.is_json() => printer.json(&serde_json::json!({ "certificate": pem }))?,
        Command::Print => printer.line(pem.trim_end())?,
        Command::Env => {
            let folder = places.state().join("trust");
            fs::create_dir_all(&folder).map_err(|error| Failure::of(&error))?;
            let files = trust::files(pem.as_bytes(), &folder).map_err(|error| Failure::of(&error))?;
            let variables = trust::environment(&files, &[]);
            if printer.is_json() {
                let map: serde_json::Map<_, _> =
                    variables.into_iter().map(|(name, value)| (name, value.into())).collect();
                printer.json(&map)?;
            } else {
                for (name, value) in variables {
                    printer.line(&format!("export {name}='{}'", value.replace('\'', "'\\''")))?;
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
