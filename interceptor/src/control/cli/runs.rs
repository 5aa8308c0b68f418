//! Live runs: list, inspect, end, detach.

use std::{fs, process::ExitCode};

use clap::Args;
use interceptor_core::model::{Mode, RunId};
use jiff::SignedDuration;

use super::{
    output::{Failure, Printer, Tone, clock, when},
    records,
    release::released_until,
    rescue,
};
use crate::{
    control::api::{self, Answer, ControlError, Request, RunStatus, Status},
    helper::{self, Captured, cgroup::Tree},
    kernel::layer::{self, Seen},
    launch::{self, attach::Unit},
    places::Places,
    store,
};

/// Arguments of `kill`.
#[derive(Debug, Args)]
pub(super) struct Kill {
    /// The run, as `ps` prints it.
    run: RunId,
}

/// Arguments of `detach`.
#[derive(Debug, Args)]
pub(super) struct Detach {
    #[command(flatten)]
    which: Detached,
    /// Why; it is recorded.
    #[arg(long)]
    reason: String,
}

/// What is let go of.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Detached {
    /// The run, as `ps` prints it.
    run: Option<RunId>,
    /// The service, which runs or not: its later starts are not captured any more, either.
    #[arg(long, value_name = "NAME")]
    unit: Option<Unit>,
}

pub(super) fn time(text: &str) -> Result<SignedDuration, String> {
    text.parse().map_err(|_| "write it as `90s`, `10m` or `2h`; at most 24 hours".to_owned())
}

/// `interceptor ps`
pub(super) fn list(places: &Places, printer: &Printer) -> Result<ExitCode, Failure> {
    if !printer.is_json()
        && let Ok(Answer::Status(Status { rescue: Some(rescue), .. })) = ask(places, Request::Status)
    {
        rescue::loudly(printer, &rescue)?;
    }
    let runs = match ask(places, Request::Runs) {
        Ok(Answer::Runs { runs }) => runs,
        Ok(other) => return finish(printer, other),
        // It says nothing of the daemon that nobody may ask it from within a run.
        Err(failure) if Tree::is_captured("self").is_ok_and(|captured| captured) => return Err(failure),
        Err(failure) => return orphans(places, printer).ok_or(failure)?,
    };
    if printer.is_json() {
        return printer.json(&runs).map(|()| ExitCode::SUCCESS);
    }
    if runs.is_empty() {
        printer.line("no live runs; start one with `interceptor run --agent NAME -- COMMAND`")?;
        return Ok(ExitCode::SUCCESS);
    }
    let tree = Tree::find(places).ok();
    let is_frozen = |run: RunId| {
        tree.as_ref().is_some_and(|tree| Tree::is_frozen(&helper::directory_of(places, tree, run)))
    };
    let rows = runs.iter().map(|run| row(run, is_frozen(run.run))).collect();
    printer.table(&["run", "agent", "guarantee", "since", "sessions", "state", "command"], rows)?;
    Ok(ExitCode::SUCCESS)
}

fn row(run: &RunStatus, frozen: bool) -> Vec<(String, Tone)> {
    let (state, tone) = match (run.released_until, run.mode) {
        _ if frozen => ("FROZEN, see `approvals list`".to_owned(), Tone::Bad),
        (Some(until), _) => (format!("released until {}", clock(until)), Tone::Bad),
        (None, _) if run.kept.is_some() => (kept_words(run), Tone::Bad),
        (None, Mode::Observe) => ("observe only".to_owned(), Tone::Notice),
        (None, Mode::Enforce) => ("enforced".to_owned(), Tone::Good),
    };
    let guarantee = format!("{:?}", run.guarantee).to_lowercase();
    vec![
        (run.run.to_string(), Tone::Plain),
        (run.agent.to_string(), Tone::Plain),
        (guarantee, Tone::Plain),
        (clock(run.started_at), Tone::Faint),
        (run.sessions.len().to_string(), Tone::Plain),
        (state, tone),
        (records::one_line(&run.command), Tone::Plain),
    ]
}

fn kept_words(run: &RunStatus) -> String {
    run.kept.as_ref().map_or_else(String::new, |kept| {
        let until = clock(kept.until);
        format!("{} from before go on, until {until} at most ({})", kept.connections.len(), kept.existing)
    })
}

/// What `ps` can say with the daemon dead: which runs still have processes. All they can do is be killed.
fn orphans(places: &Places, printer: &Printer) -> Option<Result<ExitCode, Failure>> {
    let tree = Tree::find(places).ok()?;
    let runs: Vec<RunId> = helper::live(places, &tree);
    if runs.is_empty() {
        return None;
    }
    if printer.is_json() {
        let list: Vec<_> = runs
            .iter()
            .map(|run| {
                let until = released_until(places, *run);
                serde_json::json!({"run": run, "state": "daemon-dead", "released_until": until})
            })
            .collect();
        return Some(printer.json(&list).map(|()| ExitCode::SUCCESS));
    }
    let rows = runs.iter().map(|run| {
        vec![
            (run.to_string(), Tone::Plain),
            (
                match released_until(places, *run) {
                    Some(until) => {
                        format!("the daemon is dead: released by the kernel side until {}", clock(until))
                    }
                    None => "the daemon is dead: everything it sends is refused".to_owned(),
                },
                Tone::Bad,
            ),
        ]
    });
    Some(printer.table(&["run", "state"], rows.collect()).map(|()| ExitCode::SUCCESS))
}

/// `interceptor status`
pub(super) fn status(places: &Places, printer: &Printer) -> Result<ExitCode, Failure> {
    let status = match ask(places, Request::Status)? {
        Answer::Status(status) => status,
        other => return finish(printer, other),
    };
    let disk = free(places);
    let layer = nix::unistd::geteuid().is_root().then(|| in_words(&layer::seen(places)));
    let troubles = troubles(&status, disk);
    if printer.is_json() {
        let mut value = serde_json::to_value(&status).map_err(|error| Failure::of(&error))?;
        if let Some(map) = value.as_object_mut() {
            map.insert("disk_free_mib".to_owned(), disk.into());
            map.insert("troubles".to_owned(), troubles.clone().into());
            map.insert("lsm".to_owned(), layer.into());
        }
        printer.json(&value)?;
    } else {
        print_status(printer, &status, disk, &troubles)?;
        if let Some(layer) = layer {
            printer.field("lsm", &layer)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What there is of the LSM programs.
fn in_words(layer: &Seen) -> String {
    match layer {
        Seen::Absent(why) => format!("not used: {why}"),
        Seen::InForce(0, _) => "not in force, although this kernel calls LSM programs".to_owned(),
        Seen::InForce(some, all) if some < all => {
            format!("{some} of {all} programs in force: `interceptor doctor` says why")
        }
        Seen::InForce(..) => "in force".to_owned(),
    }
}

/// What is bad; empty when all is well.
fn troubles(status: &Status, disk: Option<u64>) -> Vec<String> {
    let mut troubles = Vec::new();
    if !status.keeper {
        troubles.push("the keeper does not answer: everything new is refused until it does".to_owned());
    }
    let limits = store::Config::default();
    match disk.map(|mib| mib.saturating_mul(1024 * 1024)) {
        Some(free) if free < limits.free_refuse => {
            troubles.push("the record's disk is full: everything new is refused; free some space".to_owned());
        }
        Some(free) if free < limits.free_warn => {
            troubles.push("the record's disk is nearly full; when it is, everything is refused".to_owned());
        }
        _ => {}
    }
    if status.kept > 0 {
        troubles.push(format!("{} connections from before go on uninspected: see `ps`", status.kept));
    }
    for (name, count) in status.kernel.iter().filter(|(_, count)| *count > 0) {
        match name.as_str() {
            "refused-heartbeat" => troubles
                .push(format!("{count} connections were refused because the daemon was not there in time")),
            "map-full" | "tuple-full" | "process-full" | "label-full" => {
                troubles.push(format!("{count} times a table of the kernel side was full ({name}): refused"))
            }
            "ring-lost" => troubles.push(format!(
                "{count} notices of the kernel side were lost: some process facts are missing"
            )),
            _ => {}
        }
    }
    troubles
}

fn print_status(
    printer: &Printer,
    status: &Status,
    disk: Option<u64>,
    troubles: &[String],
) -> Result<(), Failure> {
    if let Some(rescue) = &status.rescue {
        rescue::loudly(printer, rescue)?;
    }
    for trouble in troubles {
        printer.line(&printer.paint(&format!("TROUBLE     {trouble}"), Tone::Bad))?;
    }
    printer.field(
        "daemon",
        &format!("running, version {}, since {}", status.version, when(status.started_at)),
    )?;
    printer.field("keeper", if status.keeper { "answers" } else { "does not answer" })?;
    printer.field("policy", &format!("{} (resources: {})", status.policy, status.resources))?;
    printer.field("runs", &format!("{} live, {} open sessions", status.runs, status.sessions))?;
    let disk = disk.map_or("unknown".to_owned(), |mib| format!("{mib} MiB"));
    printer.field("record", &format!("on disk up to entry {}; free: {disk}", status.synced))?;
    let counts: Vec<_> = status
        .kernel
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    let counts = if counts.is_empty() { "nothing seen yet".to_owned() } else { counts.join(", ") };
    printer.field("kernel", &counts)
}

/// Free MiB where the record is kept.
fn free(places: &Places) -> Option<u64> {
    let disk = nix::sys::statvfs::statvfs(&places.audit()).ok()?;
    disk.blocks_available().checked_mul(disk.fragment_size()).map(|bytes| bytes / (1024 * 1024))
}

/// `interceptor kill`
pub(super) fn kill(places: &Places, printer: &Printer, options: &Kill) -> Result<ExitCode, Failure> {
    match ask(places, Request::Kill { run: options.run }) {
        Ok(answer) => finish(printer, answer),
        Err(failure) if !nix::unistd::geteuid().is_root() => Err(failure),
        // With the daemon dead the kernel can still do it.
        Err(failure) => {
            let tree = Tree::find(places).map_err(|error| Failure::of(&error))?;
            let directory = helper::directory_of(places, &tree, options.run);
            if !Tree::is_populated(&directory) {
                return Err(failure);
            }
            Tree::kill(&directory).map_err(|error| Failure::of(&error))?;
            finish(printer, Answer::Done { text: format!("killed run {} without the daemon", options.run) })
        }
    }
}

/// `interceptor detach`
pub(super) fn detach(places: &Places, printer: &Printer, options: Detach) -> Result<ExitCode, Failure> {
    let Detach { which, reason } = options;
    if reason.trim().is_empty() {
        return Err(Failure::usage("--reason must say why: it is recorded"));
    }
    let tree = Tree::find(places).map_err(|error| Failure::of(&error))?;
    let run = match which {
        Detached { run: Some(run), .. } => run,
        Detached { unit: Some(unit), .. } => match helper::run_of_unit(places, &unit.to_string()) {
            Some(run) => run,
            None => return forget_unit(places, printer, &unit, reason),
        },
        Detached { run: None, unit: None } => return Err(Failure::usage("say which run, or which unit")),
    };
    let captured = helper::captured(places, &tree, run).ok_or_else(|| {
        Failure::no(format!(
            "run {run} was not attached: it ends with its command, or by `interceptor kill {run}`"
        ))
    })?;
    let answer = ask(places, Request::Detach { run, reason })?;
    if matches!(answer, Answer::Done { .. }) {
        match captured {
            Captured::Moved { cgroup_before } => move_back(places, &tree, run, &cgroup_before)?,
            Captured::InPlace { unit } => {
                if let Some(unit) = unit.as_deref().and_then(|unit| unit.parse().ok()) {
                    // First, so that no start comes in between that is captured again.
                    remove_drop_in(places, &unit)?;
                }
                launch::attach::detach(places, run)
                    .map_err(|error| Failure::host(crate::telemetry::chain(&error)))?;
            }
        }
    }
    finish(printer, answer)
}

/// Lets the later starts of a unit be that does not run.
fn forget_unit(places: &Places, printer: &Printer, unit: &Unit, reason: String) -> Result<ExitCode, Failure> {
    let answer = ask(places, Request::ForgetUnit { unit: unit.to_string(), reason })?;
    if matches!(answer, Answer::Done { .. }) && !remove_drop_in(places, unit)? {
        return Err(Failure::no(format!(
            "{unit} does not run captured, and has no drop-in of the interceptor's"
        )));
    }
    finish(printer, answer)
}

fn remove_drop_in(places: &Places, unit: &Unit) -> Result<bool, Failure> {
    launch::attach::remove_drop_in(places, unit)
        .map_err(|error| Failure::host(crate::telemetry::chain(&error)))
}

/// Takes every process of a run out of it.
fn move_back(places: &Places, tree: &Tree, run: RunId, before: &str) -> Result<(), Failure> {
    // Their own cgroup may be gone by now; the root never is.
    let own = tree.directory(before).join("cgroup.procs");
    let fallback = tree.root().join("cgroup.procs");
    let directory = helper::directory_of(places, tree, run);
    loop {
        let processes = Tree::processes(&directory);
        if processes.is_empty() {
            return Ok(());
        }
        for pid in processes {
            let moved = fs::write(&own, pid.to_string()).or_else(|_| fs::write(&fallback, pid.to_string()));
            match moved {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                    return Err(Failure::host(format!("process {pid} could not be moved: {error}")));
                }
                _ => {}
            }
        }
    }
}

/// `interceptor reload`
pub(super) fn reload(places: &Places, printer: &Printer) -> Result<ExitCode, Failure> {
    finish(printer, ask(places, Request::Reload)?)
}

pub(super) fn ask(places: &Places, request: Request) -> Result<Answer, Failure> {
    api::ask(&places.control_socket(), request).map_err(|error| match error {
        ControlError::NotRoot(_) | ControlError::Captured => Failure::usage(error.to_string()),
        error => Failure::of(&error),
    })
}

pub(super) fn finish(printer: &Printer, answer: Answer) -> Result<ExitCode, Failure> {
    match answer {
        Answer::Done { text } if printer.is_json() => printer.json(&serde_json::json!({ "done": text }))?,
        Answer::Done { text } => printer.line(&text)?,
        Answer::Failed { text } => return Err(Failure::no(text)),
        Answer::Status(_) | Answer::Runs { .. } | Answer::Columns { .. } | Answer::Surveyed { .. } => {
            return Err(Failure::host("the daemon answered another question than was asked: restart it"));
        }
    }
    Ok(ExitCode::SUCCESS)
}
