//! What this host can guarantee, tried live.

use std::process::ExitCode;

use super::output::{Failure, Printer, Tone};
use crate::{
    control::api::{self, Answer, Request},
    kernel::probe::{self, Finding, Outcome},
    places::Places,
};

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
    let missing: Vec<&Finding> =
        findings.iter().filter(|finding| finding.outcome == Outcome::Missing).collect();
    let guarantee = if missing.is_empty() {
        "structural: a run has no network but through the interceptor"
    } else {
        "none: `interceptor run` will refuse to start"
    };
    if printer.is_json() {
        printer.json(&serde_json::json!({
            "findings": findings.iter().map(|finding| serde_json::json!({
                "what": finding.what, "works": finding.outcome == Outcome::Works,
                "needed": finding.outcome != Outcome::Optional, "attached": finding.attached, "detail": finding.detail,
            })).collect::<Vec<_>>(),
            "daemon": daemon, "guarantee": guarantee,
        }))?;
    } else {
        let rows = findings.iter().map(|finding| {
            let (word, tone) = match finding.outcome {
                Outcome::Works => ("yes", Tone::Good),
                Outcome::Missing => ("NO", Tone::Bad),
                Outcome::Optional => ("not needed", Tone::Notice),
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
        printer.field("guarantee", guarantee)?;
    }
    Ok(if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(3) })
}
