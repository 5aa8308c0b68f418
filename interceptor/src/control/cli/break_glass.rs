//! `break-glass` and `approvals review`: policy is not carried out for a while, and somebody else looks at it
//! afterwards.

use std::process::ExitCode;

use clap::Args;
use interceptor_core::{
    break_glass::{BreakGlass, LONGEST},
    model::{BreakGlassId, ResourceName},
};
use jiff::SignedDuration;

use super::{
    approvals::{ask, unexpected},
    output::{Failure, Printer, Tone, when},
};
use crate::{
    control::approvals::{Answer, Request},
    places::Places,
};

/// Arguments of `break-glass`.
#[derive(Debug, Args)]
pub(super) struct Break {
    /// The resource at which policy is not carried out. Everything is recorded all the same.
    resource: ResourceName,
    /// Why; it is recorded, and told to whoever is paged.
    #[arg(long, required_unless_present = "end")]
    reason: Option<String>,
    /// For how long, such as `30m`; at most an hour.
    #[arg(long = "for", value_name = "TIME", value_parser = time, required_unless_present = "end")]
    time: Option<SignedDuration>,
    /// It is over: policy is carried out again.
    #[arg(long, conflicts_with_all = ["reason", "time"])]
    end: bool,
}

/// Arguments of `approvals review`.
#[derive(Debug, Args)]
pub(super) struct Review {
    /// The break-glass. Without it, those that wait for a review are listed.
    id: Option<BreakGlassId>,
    /// What you found in its records.
    #[arg(long, requires = "id")]
    note: Option<String>,
}

fn time(text: &str) -> Result<SignedDuration, String> {
    let time: Option<SignedDuration> = text.parse().ok();
    let longest = i64::try_from(LONGEST).unwrap_or(i64::MAX);
    time.filter(|time| (1..=longest).contains(&time.as_secs()))
        .ok_or_else(|| "write it as `90s` or `30m`; at most an hour".to_owned())
}

/// `interceptor break-glass`
pub(super) fn run(places: &Places, printer: &Printer, options: Break) -> Result<ExitCode, Failure> {
    let Break { resource, reason, time, .. } = options;
    let request = match (reason, time) {
        (Some(reason), Some(time)) => {
            Request::BreakGlass { resource, reason, seconds: u64::try_from(time.as_secs()).unwrap_or(0) }
        }
        _ => Request::Mend { resource },
    };
    told(printer, ask(places, request)?)
}

/// `interceptor approvals review`
pub(super) fn review(places: &Places, printer: &Printer, options: Review) -> Result<ExitCode, Failure> {
    match (options.id, options.note) {
        (Some(_), None) => Err(Failure::usage("say what you found with --note")),
        (Some(id), Some(note)) => told(printer, ask(places, Request::Review { id, note })?),
        _ => match ask(places, Request::List)? {
            Answer::List { glass, .. } => list(printer, &glass),
            other => Err(unexpected(other)),
        },
    }
}

fn told(printer: &Printer, answer: Answer) -> Result<ExitCode, Failure> {
    match answer {
        Answer::Glass { glass, .. } if printer.is_json() => printer.json(&glass)?,
        Answer::Glass { text, .. } => text.lines().try_for_each(|line| printer.line(line))?,
        other => return Err(unexpected(other)),
    }
    Ok(ExitCode::SUCCESS)
}

fn list(printer: &Printer, glass: &[BreakGlass]) -> Result<ExitCode, Failure> {
    if printer.is_json() {
        printer.json(&glass)?;
    } else if glass.is_empty() {
        printer.line("no break-glass is open or waits for a review")?;
    } else {
        pending(printer, glass)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is broken, or waits for its review, a line each.
pub(super) fn pending(printer: &Printer, glass: &[BreakGlass]) -> Result<(), Failure> {
    for one in glass {
        let (state, tone) = match one.left {
            Some(_) => (format!("OPEN until {}", when(one.closes_at)), Tone::Bad),
            None => (format!("over since {}, waits for its review", when(one.closes_at)), Tone::Notice),
        };
        printer.line(&format!(
            "break-glass {} on {}: {}; by {}: {}",
            one.id,
            one.resource,
            printer.paint(&state, tone),
            one.by.in_words(),
            interceptor_core::approval::words(&one.reason)
        ))?;
    }
    Ok(())
}
