//! The certificate authority: what agents' programs must trust.

use std::{fs, process::ExitCode};

use clap::Subcommand;

use super::output::{Failure, Printer};
use crate::{
    places::Places,
    tls::{anchors::Anchors, trust},
};

/// What to do with it.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print the certificate.
    Print,
    /// Print shell lines that make programs trust it. `run` needs none of them.
    Env,
    /// Have this host trust it, for programs that are attached. `run` does not need it.
    Install,
    /// Have this host trust it no more.
    Uninstall,
}

/// What reads no trust store of the host's.
const APART: &str = "not read by Node, Python's own bundles (certifi), Deno, browsers with a store of their own: `interceptor ca env` has \
                     variables for most of them. Programs that run already must be started again";

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
        Command::Install | Command::Uninstall => {
            if !nix::unistd::geteuid().is_root() {
                return Err(Failure::usage("the host's trust store is root's: use sudo"));
            }
            let (anchors, name) = (Anchors::of_host().map_err(|error| Failure::of(&error))?, places.anchor());
            let file = anchors.file(&name).display().to_string();
            let (done, trusted, said) = match command {
                Command::Install => {
                    (anchors.take_in(&name, &pem), true, "what reads this host's trust store trusts it now")
                }
                _ => (anchors.take_out(&name, &pem), false, "this host trusts it no more"),
            };
            done.map_err(|error| Failure::of(&error))?;
            if printer.is_json() {
                printer.json(&serde_json::json!({ "file": file, "trusted": trusted }))?;
            } else {
                printer.line(&format!("{said} ({file})"))?;
                if trusted {
                    printer.line(APART)?;
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
