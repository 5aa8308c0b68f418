//! `rescue`: what was saved as known to be good is in force for a while, whatever became of the policy folder or the daemon.
//!
//! Root's note is on disk before anybody is told, so that whichever daemon comes up goes by it. A daemon of the saved binary is
//! told; any other, and one that does not answer, is ended, and the saved one is started in its place.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{Args, Subcommand};
use interceptor_core::{
    inventory::InRescue,
    model::{RescueId, ResourceName},
    rescue::{Rescue, may_begin},
};
use jiff::SignedDuration;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    output::{Failure, Printer, Tone, when},
    release::by,
    runs::{ask, finish},
};
use crate::{
    app,
    config::{Basis, Folder, Settings},
    control::api::{self, Answer, ControlError, Request, RescueStatus, Status},
    helper::{self, cgroup::Tree},
    launch,
    places::Places,
    rescue::{Begun, RescueError, Saved, Scope, What, digest_of},
};

/// Arguments of `rescue`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    /// Why; it is recorded.
    #[arg(long, required = true)]
    reason: Option<String>,
    /// For how long, such as `2h`; at most 24 hours.
    #[arg(long = "for", value_name = "TIME", value_parser = super::runs::time, required = true)]
    time: Option<SignedDuration>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Save the binary, the policy and the settings that are in force, as known to be good.
    Save,
    /// Say whether what is saved could be used, and for what.
    Check,
    /// It is over: what is configured is in force again.
    End,
}

/// How long a daemon may take to answer, in seconds.
const ANSWER: i64 = 15;
/// How long one may take to end in good order, and then by force.
const ENDING: Duration = Duration::from_secs(20);
/// How long the saved one may take to be there.
const COMING: Duration = Duration::from_secs(15);

/// `interceptor rescue`
pub(super) fn run(
    places: &Places,
    root: Option<&Path>,
    printer: &Printer,
    options: Options,
) -> Result<ExitCode, Failure> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::usage("a rescue is root's: run it with sudo"));
    }
    // No daemon may be there to look at who asks.
    if Tree::is_captured("self").map_err(|error| Failure::of(&error))? {
        return Err(Failure::usage(ControlError::Captured.to_string()));
    }
    match (options.command, options.reason, options.time) {
        (Some(Command::Save), ..) => save(places, printer),
        (Some(Command::Check), ..) => check(places, printer),
        (Some(Command::End), ..) => end(places, printer),
        (None, Some(reason), Some(time)) => {
            let seconds = u64::try_from(time.as_secs()).unwrap_or(0);
            may_begin(&reason, seconds).map_err(|error| Failure::usage(error.to_string()))?;
            begin(places, root, printer, (reason, seconds))
        }
        (None, ..) => Err(Failure::usage("say why with --reason, and for how long with --for")),
    }
}

/// That what is in force is not what is configured, before anything else.
pub(super) fn loudly(printer: &Printer, status: &RescueStatus) -> Result<(), Failure> {
    let Rescue { id, reason, by, until, .. } = &status.rescue;
    let text = if status.lasts {
        format!(
            "RESCUE      {id} until {}, by {by}: {reason}; what was saved is in force, not what is configured",
            when(*until)
        )
    } else {
        format!(
            "RESCUE      {id} is over, and what is configured cannot be loaded: everything is refused; mend it, see \
             `interceptor policy check`, and `interceptor reload`"
        )
    };
    let text = interceptor_core::text::printable(&text).into_owned();
    printer.line(&printer.paint(&text, Tone::Bad))
}

fn of(error: RescueError) -> Failure {
    match error {
        RescueError::Nothing(_) | RescueError::Changed { .. } => Failure::no(error.to_string()),
        error => Failure::of(&error),
    }
}

fn status(places: &Places) -> Result<Status, Failure> {
    match ask(places, Request::Status)? {
        Answer::Status(status) => Ok(status),
        _ => Err(Failure::host("the daemon answered another question than was asked: restart it")),
    }
}

fn save(places: &Places, printer: &Printer) -> Result<ExitCode, Failure> {
    let status = status(places)?;
    if let Some(RescueStatus { rescue, .. }) = status.rescue {
        return Err(Failure::no(format!("nothing was saved: what is in force is of rescue {}", rescue.id)));
    }
    // What is saved is what serves now, and not what lies there for the next start.
    let folder = Folder::in_force(places).map_err(|error| Failure::of(&error))?;
    let rules = folder.load().map_err(|error| Failure::no(crate::telemetry::chain(&error)))?;
    if rules.policy.hash() != status.policy {
        return Err(Failure::no(
            "nothing was saved: the policy folder is not what is in force; `interceptor reload` first",
        ));
    }
    let daemon = api::daemon(&places.control_socket()).map_err(|error| Failure::of(&error))?;
    let prepared = Saved::prepare(
        places,
        What {
            binary: &executable(daemon),
            version: status.version,
            policy: status.policy,
            by: by(),
            configuration: configuration(places, &folder)?,
        },
    )
    .map_err(of)?;
    let text = format!("what is in force is saved for a rescue, by {}, digest {}", by(), prepared.digest());
    let answer = ask(places, Request::RescueSaved { text })?;
    if matches!(answer, Answer::Done { .. }) {
        prepared.keep().map_err(of)?;
    }
    finish(printer, answer)
}

/// The files of the configuration, by their path in its folder.
fn configuration(places: &Places, folder: &Folder) -> Result<Vec<(PathBuf, String)>, Failure> {
    let mut files = Vec::new();
    for source in folder.sources() {
        let path = Path::new(&source.file);
        let name = path.strip_prefix(places.configuration()).map_err(|error| Failure::of(&error))?;
        files.push((name.to_owned(), source.text.clone()));
    }
    let settings = places.configuration().join(Settings::FILE);
    if settings.exists() {
        Settings::read(places.configuration()).map_err(|error| Failure::of(&error))?;
        let text = fs::read_to_string(&settings).map_err(|error| Failure::of(&error))?;
        files.push((Settings::FILE.into(), text));
    }
    Ok(files)
}

fn check(places: &Places, printer: &Printer) -> Result<ExitCode, Failure> {
    let saved = Saved::open(places).map_err(of)?;
    saved.verify(Scope::Whole).map_err(of)?;
    let chosen = chosen(places, &Begun::now(&saved, String::new(), String::new(), 1).map_err(of)?)?;
    printer.line(&saved.in_words())?;
    printer.line(&in_words(&chosen))?;
    Ok(ExitCode::SUCCESS)
}

fn end(places: &Places, printer: &Printer) -> Result<ExitCode, Failure> {
    // From here on no daemon begins with it, whatever the one that is there says.
    Begun::remove(places).map_err(of)?;
    match api::ask_within(&places.control_socket(), Request::Rescue, ANSWER) {
        Ok(answer) => finish(printer, answer),
        Err(ControlError::NotRunning(_)) => {
            printer.line("no daemon runs: the next one goes by what is configured")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Err(Failure::of(&error)),
    }
}

fn begin(
    places: &Places,
    root: Option<&Path>,
    printer: &Printer,
    (reason, seconds): (String, u64),
) -> Result<ExitCode, Failure> {
    let saved = Saved::open(places).map_err(of)?;
    saved.verify(Scope::Whole).map_err(of)?;
    let begun = Begun::now(&saved, reason, by(), seconds).map_err(of)?;
    let chosen = chosen(places, &begun)?;
    if chosen.is_empty() {
        return Err(Failure::no(
            "no rescue was begun: it would refuse everything, since no resource of what is saved has `rescue` in its \
             resources.toml",
        ));
    }
    begun.write(places).map_err(of)?;
    let how = match take_up(places, root, &saved, begun.rescue.id) {
        Ok(how) => how,
        Err(failure) => {
            // Not even the next daemon begins with it.
            Begun::remove(places).map_err(of)?;
            return Err(failure);
        }
    };
    if printer.is_json() {
        printer.json(&begun.rescue)?;
    } else {
        loudly(printer, &RescueStatus { rescue: begun.rescue, lasts: true })?;
        printer.line(how)?;
        printer.line(&in_words(&chosen))?;
        printer.line("`interceptor rescue end` ends it before its time")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What was chosen for a rescue in what is saved, and how it is used in one.
fn chosen(places: &Places, begun: &Begun) -> Result<Vec<(ResourceName, InRescue)>, Failure> {
    let basis = Basis::Saved(begun.clone(), Duration::ZERO);
    basis.settings(places).map_err(|error| Failure::of(&error))?;
    let rules = basis.rules(places).map_err(|error| {
        Failure::no(format!("this binary cannot load what is saved: {}", crate::telemetry::chain(&error)))
    })?;
    let all = rules.inventory.resources.into_values().map(|resource| (resource.name, resource.rescue));
    Ok(all.filter(|(_, chosen)| *chosen != InRescue::Refused).collect())
}

fn in_words(chosen: &[(ResourceName, InRescue)]) -> String {
    let each = chosen.iter().map(|(name, chosen)| match chosen {
        InRescue::Unmasked => format!("{name} (UNMASKED)"),
        InRescue::Masked | InRescue::Refused => format!("{name} (masked as ever)"),
    });
    match each.collect::<Vec<_>>().as_slice() {
        [] => "no resource was chosen for a rescue: all are refused in one".to_owned(),
        each => format!("of use in a rescue: {}; every other resource is refused in one", each.join(", ")),
    }
}

/// Has a daemon of the saved binary go by the note that was written; in words, how.
fn take_up(
    places: &Places,
    root: Option<&Path>,
    saved: &Saved,
    id: RescueId,
) -> Result<&'static str, Failure> {
    let socket = places.control_socket();
    if let Ok(daemon) = api::daemon(&socket) {
        let binary = digest_of(&executable(daemon)).map_err(of)?;
        if binary == saved.binary_digest() {
            match api::ask_within(&socket, Request::Rescue, ANSWER) {
                Ok(Answer::Done { .. }) => return Ok("the daemon goes on with the policy that was saved"),
                Ok(Answer::Failed { text }) => return Err(Failure::no(text)),
                // It does not answer as it should.
                Ok(_) | Err(_) => {}
            }
        }
        end_daemon(places, daemon)?;
    }
    let words = app::own_arguments(root, ["daemon", "--announce"]);
    let failed =
        launch::start_daemon(&saved.binary(), places, &words).map_err(|error| Failure::of(&error))?;
    // A service manager may have been faster: its daemon hands over to the saved binary, too.
    let begun = Instant::now();
    while begun.elapsed() < COMING {
        if let Ok(Answer::Status(Status { rescue: Some(rescue), .. })) =
            api::ask_within(&socket, Request::Status, ANSWER)
            && rescue.rescue.id == id
        {
            return Ok("the daemon that was saved serves");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let why = failed.unwrap_or_else(|| "it does not answer".to_owned());
    Err(Failure::host(format!(
        "no rescue was begun, and everything is refused: the saved daemon does not serve: {why}"
    )))
}

/// Ends the daemon that has the installation's lock: in good order, else by force.
fn end_daemon(places: &Places, daemon: Pid) -> Result<(), Failure> {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        // It may be gone by now.
        let _ = kill(daemon, signal);
        let begun = Instant::now();
        while begun.elapsed() < ENDING {
            if helper::lock(places).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Err(Failure::host(format!("no rescue was begun: the daemon, process {daemon}, cannot be ended")))
}

fn executable(daemon: Pid) -> PathBuf {
    PathBuf::from(format!("/proc/{daemon}/exe"))
}
