//! `release`: what is captured goes out uninspected for a while.
//!
//! With a daemon there, it relays and records. Without one, the kernel side lets go of attached runs by itself, and captures
//! them again when the time is over, whoever is there; what root said is on disk before, and is recorded by the next daemon.

use std::{os::fd::AsFd, process::ExitCode, time::Duration};

use clap::Args;
use interceptor_core::model::{Guarantee, Run, RunId};
use jiff::{SignedDuration, Timestamp};

use super::{
    output::{Failure, Printer, clock},
    runs::{ask, finish},
};
use crate::{
    control::api::{self, Answer, ControlError, Request},
    helper::{self, GroundError, Note, cgroup::Tree},
    kernel::{Belts, KernelError, KnownRuns},
    launch,
    places::Places,
    telemetry,
};

/// Arguments of `release`.
#[derive(Debug, Args)]
pub(super) struct Release {
    #[command(flatten)]
    which: Which,
    /// Why; it is recorded.
    #[arg(long)]
    reason: String,
    /// For how long, such as `10m`; at most 24 hours.
    #[arg(long = "for", value_name = "TIME", value_parser = super::runs::time)]
    duration: SignedDuration,
}

/// What is released.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The run, as `ps` prints it.
    run: Option<RunId>,
    /// Every live run. With the daemon dead: all that were attached.
    #[arg(long)]
    all: bool,
}

/// `interceptor release`
pub(super) fn release(places: &Places, printer: &Printer, options: Release) -> Result<ExitCode, Failure> {
    let Release { which, reason, duration } = options;
    let seconds = u64::try_from(duration.as_secs()).unwrap_or(0);
    if !(1..=86_400).contains(&seconds) {
        return Err(Failure::usage("--for must be between 1s and 24h"));
    }
    if reason.trim().is_empty() {
        return Err(Failure::usage("--reason must say why: it is recorded"));
    }
    let runs = match api::ask(&places.control_socket(), Request::Runs) {
        Ok(Answer::Runs { runs }) => runs.into_iter().map(|run| run.run),
        Ok(other) => return finish(printer, other),
        Err(error @ (ControlError::NotRoot(_) | ControlError::Captured)) => {
            return Err(Failure::usage(error.to_string()));
        }
        Err(error) => return without_daemon(places, printer, which.run, (&reason, seconds), &error),
    };
    let wanted = match which.run {
        Some(run) => vec![run],
        None => runs.collect(),
    };
    if wanted.is_empty() {
        return Err(Failure::no("there are no live runs"));
    }
    for run in wanted {
        finish(printer, ask(places, Request::Release { run, reason: reason.clone(), seconds })?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// By the kernel side alone.
fn without_daemon(
    places: &Places,
    printer: &Printer,
    wanted: Option<RunId>,
    (reason, seconds): (&str, u64),
    error: &ControlError,
) -> Result<ExitCode, Failure> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::usage("only root may let go of what is captured: run it with sudo"));
    }
    // No daemon is there to look at who asks.
    if Tree::is_captured("self").map_err(|error| Failure::of(&error))? {
        return Err(Failure::usage(ControlError::Captured.to_string()));
    }
    // None comes while this goes on.
    let _alone = helper::lock(places).map_err(|locked| match locked {
        GroundError::Running(_) => Failure::host(format!(
            "{error}, though it lives: it must answer, or be ended first (its process is the one that has {} locked)",
            places.runtime().join("daemon.lock").display()
        )),
        other => Failure::of(&other),
    })?;
    let tree = Tree::find(places).map_err(|error| Failure::of(&error))?;
    let runs = attached(places, &tree, wanted)?;
    let mut known = KnownRuns::open(places).map_err(|error| Failure::of(&error))?;
    let belts = Belts::of(places);
    let until = Timestamp::now().as_microsecond().saturating_add_unsigned(seconds.saturating_mul(1_000_000));
    for run in &runs {
        let note = note_of(run, reason, until);
        note.write(places).map_err(|error| {
            Failure::host(format!("run {} was not let go of: that could not be noted: {error}", run.id))
        })?;
        let directory = tree.directory(&run.cgroup);
        let opened =
            helper::network_of(&directory).map_err(|error| Failure::of(&error)).and_then(|network| {
                let time = Duration::from_secs(seconds);
                let opened = belts.let_pass(run.id, network.as_fd(), &directory, time);
                opened
                    .and_then(|()| known.let_go(run.id, time))
                    .map_err(|error: KernelError| Failure::of(&error))
            });
        if let Err(failure) = opened {
            // Nothing came of it, unless nobody can say so: then a record too many is better than one too few.
            let _ = Note::remove(places, note.run, note.at);
            return Err(failure);
        }
        printer.line(&format!(
            "run {} goes out uninspected until {}, and is captured again then, daemon or not; the next daemon records it",
            run.id,
            clock(until)
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The runs that can be let go of without a daemon.
fn attached(places: &Places, tree: &Tree, wanted: Option<RunId>) -> Result<Vec<Run>, Failure> {
    let is_there = |run: &Run| tree.directory(&run.cgroup).is_dir();
    let known = helper::known(places).into_iter().filter(is_there);
    let chosen: Vec<Run> = known.filter(|run| wanted.is_none_or(|wanted| run.id == wanted)).collect();
    let (launched, attached): (Vec<_>, Vec<_>) =
        chosen.into_iter().partition(|run| run.guarantee == Guarantee::Structural);
    match (launched.first(), wanted) {
        (Some(run), Some(_)) => Err(Failure::no(format!(
            "the daemon is dead, and run {0} has no network but through it: it can be killed, `interceptor kill {0}`, or \
             served again by `interceptor daemon`",
            run.id
        ))),
        _ if attached.is_empty() => {
            Err(Failure::no("the daemon is dead, and nothing that was attached is there to be let go of"))
        }
        _ => Ok(attached),
    }
}

fn note_of(run: &Run, reason: &str, until: i64) -> Note {
    let at = Timestamp::now().as_microsecond();
    Note { run: run.id, agent: run.agent.name.clone(), by: by(), reason: reason.to_owned(), at, until }
}

/// Whoever is behind this command, which runs as root, in words.
pub(super) fn by() -> String {
    match launch::launcher() {
        (uid, _) if uid.is_root() => "root".to_owned(),
        (uid, Some(name)) => format!("{name} (uid {uid}), as root"),
        (uid, None) => format!("uid {uid}, as root"),
    }
}

/// Until when a run is let go of by the kernel side, in microseconds of the Unix epoch.
pub(super) fn released_until(places: &Places, run: RunId) -> Option<i64> {
    let known = KnownRuns::open(places).inspect_err(|error| tracing::debug!("{}", telemetry::chain(error)));
    let left = known.ok()?.released_for(run).filter(|left| !left.is_zero())?;
    let left = i64::try_from(left.as_micros()).ok()?;
    Some(Timestamp::now().as_microsecond().saturating_add(left))
}
