//! What this host can guarantee, tried live.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    process::ExitCode,
};

use clap::Args;
use interceptor_core::inventory::Inventory;

use super::output::{Failure, Printer, Tone};
use crate::{
    config::Folder,
    control::api::{self, Answer, Request},
    helper::Accounts,
    kernel::probe::{self, Finding, Outcome},
    places::Places,
    tls::trust,
};

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Try the harmless half of the known ways around, in a run and without capture; nothing leaves this host.
    #[arg(long)]
    pub(super) self_test: bool,
}

/// `interceptor doctor`
pub(super) fn doctor(places: &Places, printer: &Printer) -> Result<ExitCode, Failure> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::usage("doctor loads kernel programs to try them: run it with sudo"));
    }
    let findings = probe::probe(places);
    let daemon = match api::ask(&places.control_socket(), Request::Status) {
        Ok(Answer::Status(status)) => format!("running, version {}", status.version),
        Ok(_) => "answers another question than was asked: restart it".to_owned(),
        Err(_) => "not running; `interceptor run` starts it".to_owned(),
    };
    let (policy, unlisted) = match Folder::in_force(places).and_then(|folder| folder.load()) {
        Ok(rules) => (format!("good, {} rules", rules.policy.rules().len()), unlisted(&rules.inventory)),
        Err(error) => (crate::telemetry::chain(&error), Vec::new()),
    };
    let (exposed, authority) = (exposed(places), authority(places));
    let missing: Vec<&Finding> =
        findings.iter().filter(|finding| finding.outcome == Outcome::Missing).collect();
    let broken = findings.iter().filter(|finding| finding.outcome == Outcome::Broken).count();
    let guarantee = if missing.is_empty() {
        "structural: a run has no network but through the interceptor"
    } else {
        "none: `interceptor run` will refuse to start"
    };
    if printer.is_json() {
        printer.json(&serde_json::json!({
            "findings": findings.iter().map(|finding| serde_json::json!({
                "what": finding.what, "works": finding.outcome == Outcome::Works,
                "needed": finding.outcome == Outcome::Works || finding.outcome == Outcome::Missing,
                "broken": finding.outcome == Outcome::Broken, "attached": finding.attached, "detail": finding.detail,
            })).collect::<Vec<_>>(),
            "daemon": daemon, "policy": policy, "authority": authority, "credentials": exposed, "sockets": unlisted,
            "guarantee": guarantee,
        }))?;
    } else {
        let rows = findings.iter().map(|finding| {
            let (word, tone) = match finding.outcome {
                Outcome::Works => ("yes", Tone::Good),
                Outcome::Missing => ("NO", Tone::Bad),
                Outcome::Optional => ("not needed", Tone::Notice),
                Outcome::Broken => ("FAILS", Tone::Bad),
            };
            let attached = match finding.attached {
                Some(true) => "in force",
                Some(false) => "not in force",
                None => "",
            };
            vec![
                (finding.what.clone(), Tone::Plain),
                (word.to_owned(), tone),
                (attached.to_owned(), Tone::Faint),
                (finding.detail.clone(), Tone::Plain),
            ]
        });
        printer.table(&["what", "works", "now", "detail"], rows.collect())?;
        printer.field("daemon", &daemon)?;
        printer.field("policy", &policy)?;
        printer.field("authority", authority)?;
        exposed.iter().try_for_each(|fault| printer.field("credential", fault))?;
        unlisted.iter().try_for_each(|hint| printer.field("socket", hint))?;
        if broken > 0 {
            let text = format!(
                "TROUBLE     {broken} LSM hooks fail although this kernel calls LSM programs: what they would close stays open"
            );
            printer.line(&printer.paint(&text, Tone::Bad))?;
        }
        printer.field("guarantee", guarantee)?;
    }
    Ok(if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

/// Whether this host's programs trust the authority, as far as they go by its store.
fn authority(places: &Places) -> &'static str {
    match fs::read(places.authority().join("ca.pem")) {
        Err(_) => "not made yet: the daemon makes it when it first starts",
        Ok(pem) if trust::is_trusted(&pem) => "trusted by this host",
        Ok(_) => "trusted in runs alone; programs that are attached need `interceptor ca install`",
    }
}

/// Where databases of this host have their Unix sockets.
const DATABASES: &[&str] = &["/run/postgresql", "/run/mysqld", "/run/redis"];

/// Sockets of databases on this host that no resource lists.
fn unlisted(inventory: &Inventory) -> Vec<String> {
    let entries = DATABASES.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let sockets = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()));
    let paths = sockets.map(|entry| entry.path().display().to_string());
    paths
        .filter(|path| inventory.by_socket(path).is_none())
        .map(|path| format!("{path} is out of reach of runs: list it under a resource's `sockets`"))
        .collect()
}

/// Credential files that the keeper will refuse, each with what mends it.
fn exposed(places: &Places) -> Vec<String> {
    let keeper = Accounts::find().keeper.0.as_raw();
    let Ok(entries) = fs::read_dir(places.credentials()) else { return Vec::new() };
    let faults = entries.flatten().filter_map(|entry| {
        let (path, facts) = (entry.path(), entry.metadata().ok()?);
        let shown = path.display();
        if !facts.is_file() {
            None
        } else if facts.uid() != keeper {
            Some(format!("{shown} belongs to uid {}: run `chown {keeper} {shown}`", facts.uid()))
        } else if facts.mode() & 0o077 != 0 {
            Some(format!("{shown} can be read by others than the keeper: run `chmod 600 {shown}`"))
        } else {
            None
        }
    });
    faults.collect()
}
