//! `undo`: the statements that bring back what a record's statement changed, shown or carried out.

use std::process::ExitCode;

use clap::Args;
use interceptor_core::model::RecordId;
use serde::Serialize;

use super::output::{Failure, Printer, Tone};
use crate::{
    control::{
        api::ControlError,
        approvals::{self, Answer, Request},
    },
    places::Places,
};

/// Arguments of `undo`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The record of the statement, which a rule with `@undo` was about.
    record: RecordId,
    /// Bring the rows back, once; only a person may, from a log-in session. Else the statements are printed.
    #[arg(long)]
    run: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    record: RecordId,
    statements: &'a str,
    used: Option<&'a str>,
}

/// `interceptor undo`
pub(super) fn run(places: &Places, printer: &Printer, options: &Options) -> Result<ExitCode, Failure> {
    let record = options.record;
    if options.run {
        match ask(places, Request::Undo { record })? {
            Answer::Undone { text } => printer.line(&text)?,
            other => return Err(unexpected(other)),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut statements = String::new();
    let used = loop {
        match ask(places, Request::Images { record, from: statements.len() })? {
            Answer::Images { text, used } if text.is_empty() => break used,
            Answer::Images { text, .. } => statements.push_str(&text),
            other => return Err(unexpected(other)),
        }
    };
    if printer.is_json() {
        printer.json(&Shown { record, statements: &statements, used: used.as_deref() })?;
        return Ok(ExitCode::SUCCESS);
    }
    let head = match &used {
        Some(by) => format!("-- used by {by}: it can be used once"),
        None => format!("-- not done yet: `interceptor undo {record} --run` does it in one transaction"),
    };
    printer.line(&printer.paint(&head, Tone::Faint))?;
    statements.lines().try_for_each(|line| printer.line(line))?;
    Ok(ExitCode::SUCCESS)
}

fn ask(places: &Places, request: Request) -> Result<Answer, Failure> {
    approvals::ask(&places.approvals_socket(), request).map_err(|error| match error {
        ControlError::Captured => Failure::usage(error.to_string()),
        error => Failure::of(&error),
    })
}

fn unexpected(answer: Answer) -> Failure {
    match answer {
        Answer::Failed { text } => Failure::no(text),
        _ => Failure::host("the daemon answered another question than was asked: restart it"),
    }
}
