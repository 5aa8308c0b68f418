//! Reading the record. It is read from disk, so it can be read with the daemon dead.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Subcommand, ValueEnum};
use interceptor_core::{
    model::{Author, Entry, EventRecord, OutcomeStatus, RecordId, RunId},
    text,
};

use super::{
    checkpoint, ocsf,
    output::{Failure, Printer, Tone, clock, when},
    records, session,
};
use crate::{
    control::api::{self, Request},
    helper::Accounts,
    kernel::refusal::Code,
    places::Places,
    store::{self, Filter, FullRecord, Line, LogKey, NotALogKey, Reader, StoreError, verify, verify_since},
};

/// What to do with it.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show the newest entries.
    Tail {
        /// How many.
        #[arg(short = 'n', long, default_value_t = 20)]
        lines: usize,
        /// Go on as new ones come.
        #[arg(short, long)]
        follow: bool,
        /// Every entry on a line of its own: the gate's look-ups, outcomes and each refusal of the kernel too.
        #[arg(short, long)]
        all: bool,
    },
    /// Show one record whole.
    Show {
        /// The record's number.
        id: RecordId,
    },
    /// Find records.
    Search {
        #[command(flatten)]
        filter: Filters,
        /// How many at most, newest first.
        #[arg(short = 'n', long, default_value_t = 50)]
        limit: usize,
        /// The gate's own look-ups too.
        #[arg(short, long)]
        all: bool,
    },
    /// Write records to standard output, oldest first.
    Export {
        #[command(flatten)]
        filter: Filters,
        /// In which form.
        #[arg(long, value_enum, default_value_t = Form::Jsonl)]
        format: Form,
    },
    /// Check the chain, the checkpoints and their signatures, and say how far the record is proven.
    Verify {
        /// The log's public key, kept elsewhere; the store's own `log.pub` by default.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// A checkpoint that was kept elsewhere: the record must contain it.
        #[arg(long, value_name = "FILE", conflicts_with = "since")]
        checkpoint: Option<PathBuf>,
        /// A checkpoint that was kept elsewhere: only what came since is read and verified.
        #[arg(long, value_name = "FILE")]
        since: Option<PathBuf>,
    },
    /// Checkpoints to keep elsewhere.
    #[command(subcommand)]
    Checkpoint(checkpoint::Command),
    /// Show one session from its beginning: what was asked, decided, and what came of it.
    Replay(session::Options),
    /// Build the index for searching anew from the record itself. The daemon must not be running.
    Reindex,
}

/// The form of an export.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Form {
    /// One JSON object a line.
    Jsonl,
    /// One OCSF event a line: Datastore Activity, Authentication, Network and DNS Activity.
    Ocsf,
    /// Comma-separated, with a heading; text that a spreadsheet would execute is quoted.
    Csv,
}

/// What to look for; all that is given must match.
#[derive(Debug, Args)]
pub(super) struct Filters {
    /// A run, as `ps` prints it.
    #[arg(long)]
    run: Option<RunId>,
    /// An agent.
    #[arg(long)]
    agent: Option<String>,
    /// A resource.
    #[arg(long)]
    resource: Option<String>,
    /// A process.
    #[arg(long)]
    pid: Option<u32>,
    /// A verb, such as `data.delete`.
    #[arg(long)]
    verb: Option<String>,
    /// A table, as `schema.name` or the name alone.
    #[arg(long)]
    table: Option<String>,
    /// A rule that decided.
    #[arg(long)]
    rule: Option<String>,
    /// A part of the statement.
    #[arg(long)]
    text: Option<String>,
    /// An error code, such as an SQLSTATE.
    #[arg(long)]
    code: Option<String>,
    /// Only refused ones.
    #[arg(long, conflicts_with = "allowed")]
    refused: bool,
    /// Only allowed ones.
    #[arg(long)]
    allowed: bool,
}

impl Filters {
    fn filter(self) -> Filter {
        let allowed = match (self.refused, self.allowed) {
            (true, _) => Some(false),
            (_, true) => Some(true),
            _ => None,
        };
        Filter {
            run: self.run,
            agent: self.agent,
            pid: self.pid,
            resource: self.resource,
            verb: self.verb,
            table: self.table,
            text: self.text,
            rule: self.rule,
            allowed,
            code: self.code,
            ..Filter::default()
        }
    }
}

/// Arguments of `why`.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Why {
    /// The record's number, as a refusal names it.
    id: Option<RecordId>,
    /// The newest refusal of this process, those by the kernel side included.
    #[arg(long)]
    pid: Option<u32>,
    /// The newest refusal.
    #[arg(long)]
    last: bool,
}

/// `interceptor audit`
pub(super) fn run(places: &Places, printer: &Printer, command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Tail { lines, follow, all } => tail(places, printer, lines, follow, all),
        Command::Show { id } => {
            let record = find(places, id)?;
            if printer.is_json() {
                printer.json(&record)?
            } else {
                records::show(printer, &record)?
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Search { filter, limit, all } => {
            let author = (!all).then(|| "agent".to_owned());
            search(places, printer, &Filter { author, ..filter.filter() }, limit)
        }
        Command::Export { filter, format } => export(places, printer, filter, format),
        Command::Verify { key, checkpoint, since } => {
            let kept = match (checkpoint, since) {
                (_, Some(since)) => Kept::Since(since),
                (Some(checkpoint), None) => Kept::Contained(checkpoint),
                (None, None) => Kept::Nothing,
            };
            check(places, printer, key, &kept)
        }
        Command::Checkpoint(command) => checkpoint::run(places, printer, &command),
        Command::Replay(options) => session::replay(places, printer, &options),
        Command::Reindex => reindex(places, printer),
    }
}

pub(super) fn open(places: &Places) -> Result<Reader, Failure> {
    let folder = places.audit();
    match fs::metadata(&folder) {
        Ok(_) => Reader::open(&folder).map_err(|error| match error {
            StoreError::Io { path, source } if source.kind() == io::ErrorKind::PermissionDenied => {
                unreadable(&path)
            }
            error => Failure::of(&error),
        }),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(unreadable(&folder)),
        Err(_) => Err(no_record(places)),
    }
}

fn unreadable(path: &Path) -> Failure {
    Failure::usage(format!("{} may be read by root only: run it with sudo", path.display()))
}

fn no_record(places: &Places) -> Failure {
    let folder = places.audit();
    Failure::no(format!(
        "there is no record in {} yet: it begins with the first `interceptor run`",
        folder.display()
    ))
}

pub(super) fn find(places: &Places, id: RecordId) -> Result<FullRecord, Failure> {
    open(places)?.record(id).map_err(|error| Failure::of(&error))?.ok_or_else(|| {
        Failure::no(format!("there is no record {id}; `interceptor audit tail` shows the newest"))
    })
}

fn tail(
    places: &Places,
    printer: &Printer,
    count: usize,
    follow: bool,
    all: bool,
) -> Result<ExitCode, Failure> {
    let all = all || printer.is_json();
    // What is left out or folded is made up for by older lines.
    let mut wanted = if all { count } else { count.saturating_mul(4).saturating_add(100) };
    let mut most = count;
    let mut shown = None;
    let mut gates = BTreeSet::new();
    let width = printer.width();
    loop {
        let mut lines = match open(places) {
            Ok(reader) => reader.tail(wanted).map_err(|error| Failure::of(&error))?,
            Err(failure) if !follow => return Err(failure),
            Err(_) => Vec::new(),
        };
        lines.retain(|line| shown.is_none_or(|before| before < (line.seq, line.sub)));
        shown = lines.last().map(|line| (line.seq, line.sub)).or(shown);
        if printer.is_json() {
            lines.iter().try_for_each(|line| printer.json(line))?;
        } else {
            let briefs = records::briefs(&lines, all, &mut gates);
            let skip = briefs.len().saturating_sub(most);
            briefs.iter().skip(skip).try_for_each(|brief| printer.line(&brief.paint(printer, width)))?;
        }
        if !follow {
            return Ok(ExitCode::SUCCESS);
        }
        (wanted, most) = (1000, usize::MAX);
        std::thread::sleep(Duration::from_millis(300));
    }
}

fn reindex(places: &Places, printer: &Printer) -> Result<ExitCode, Failure> {
    let folder = places.audit();
    if !folder.exists() {
        return Err(no_record(places));
    }
    if api::ask(&places.control_socket(), Request::Status).is_ok() {
        return Err(Failure::usage("the daemon is running and writes the index: stop it first"));
    }
    store::rebuild(&folder).map_err(|error| Failure::of(&error))?;
    // The keeper goes on with it.
    let (uid, gid) = Accounts::find().keeper;
    for end in ["", "-wal", "-shm"] {
        let path = folder.join(format!("index.sqlite{end}"));
        if path.exists() {
            std::os::unix::fs::chown(&path, Some(uid.as_raw()), Some(gid.as_raw())).map_err(|error| {
                Failure::host(format!("{} cannot be given to the keeper: {error}", path.display()))
            })?;
        }
    }
    if printer.is_json() {
        printer.json(&serde_json::json!({ "done": "the index was built anew" }))?;
    } else {
        printer.line("the index was built anew")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn search(places: &Places, printer: &Printer, filter: &Filter, limit: usize) -> Result<ExitCode, Failure> {
    let records = open(places)?.search(filter, limit).map_err(|error| Failure::of(&error))?;
    if printer.is_json() {
        records.iter().try_for_each(|record| printer.json(record))?;
    } else if records.is_empty() {
        printer.line("no record fits; `interceptor audit tail` shows the newest")?;
    } else {
        let rows = records.iter().map(row).collect();
        printer.table(&["record", "when", "agent", "resource", "verdict", "outcome", "statement"], rows)?;
    }
    Ok(if records.is_empty() { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn row(record: &FullRecord) -> Vec<(String, Tone)> {
    let request = &record.request;
    let (word, tone) = records::verdict_word(&request.verdict);
    let outcome = record.outcome.as_ref().map_or("-", |outcome| records::status_word(outcome.status));
    let agent = match request.author {
        Author::Agent => request.agent.name.to_string(),
        Author::Gate => "(gate)".to_owned(),
    };
    vec![
        (record.id.to_string(), Tone::Plain),
        (clock(request.at), Tone::Faint),
        (agent, Tone::Plain),
        (request.resource.as_ref().map_or("-".to_owned(), ToString::to_string), Tone::Plain),
        (word.to_owned(), tone),
        (outcome.to_owned(), Tone::Plain),
        (records::cut(&records::one_line(&records::statement(request)), 120), Tone::Plain),
    ]
}

fn export(places: &Places, printer: &Printer, filters: Filters, form: Form) -> Result<ExitCode, Failure> {
    let reader = open(places)?;
    let filter = filters.filter();
    if matches!(form, Form::Csv) {
        printer.line(records::CSV_HEADING)?;
    }
    for record in reader.export(&filter) {
        let record = record.map_err(|error| Failure::of(&error))?;
        match form {
            Form::Jsonl => printer.json(&record)?,
            Form::Ocsf => printer.json(&ocsf::event(&record))?,
            Form::Csv => printer.line(&records::csv(&record))?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What the verifier kept elsewhere.
enum Kept {
    Nothing,
    /// The record must contain this checkpoint.
    Contained(PathBuf),
    /// Only what came since this checkpoint is verified.
    Since(PathBuf),
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("{} cannot be read: {error}", path.display())))
}

/// A log's public key.
pub(super) fn log_key(path: &Path) -> Result<LogKey, Failure> {
    read(path)?.trim().parse().map_err(|error: NotALogKey| Failure::of(&error))
}

fn check(places: &Places, printer: &Printer, key: Option<PathBuf>, kept: &Kept) -> Result<ExitCode, Failure> {
    let folder = places.audit();
    if !folder.exists() {
        return Err(no_record(places));
    }
    let key = log_key(&key.unwrap_or_else(|| folder.join("log.pub")))?;
    let report = match kept {
        Kept::Nothing => verify(&folder, &key, None),
        Kept::Contained(note) => verify(&folder, &key, Some(&read(note)?)),
        Kept::Since(note) => verify_since(&folder, &key, &read(note)?),
    };
    let report = report.map_err(|error| Failure::of(&error))?;
    if printer.is_json() {
        printer.json(&serde_json::json!({
            "good": report.is_good(), "log": report.log, "since": report.since, "first": report.first_seq, "last": report.last_seq,
            "proven": report.proven.map(|proven| proven.seq), "unproven_lines": report.unproven,
            "faults": report.faults.iter().map(|fault| format!("{}: {}", fault.place, fault.what)).collect::<Vec<_>>(),
        }))?;
    } else {
        printer.field("log", &report.log)?;
        if let Some(since) = report.since {
            printer.field("since", &format!("line {since}, where the checkpoint you kept ends"))?;
        }
        printer.field("entries", &format!("{} lines, up to entry {}", report.lines, report.last_seq))?;
        match report.proven {
            Some(proven) => printer.field(
                "proven",
                &format!(
                    "up to entry {} by a signed checkpoint ({} in all); {} lines behind it are chained only",
                    proven.seq, report.checkpoints, report.unproven
                ),
            )?,
            None => printer.field("proven", "nothing yet: no checkpoint covers these lines")?,
        }
        for fault in &report.faults {
            printer.line(&printer.paint(
                &format!("{}: {}", text::printable(&fault.place), text::printable(&fault.what)),
                Tone::Bad,
            ))?;
        }
        let (word, tone) = if report.is_good() {
            ("the record is whole", Tone::Good)
        } else {
            ("this is not the whole record, or not as it was written: see above", Tone::Bad)
        };
        printer.line(&printer.paint(word, tone))?;
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// `interceptor why`
pub(super) fn why(places: &Places, printer: &Printer, options: &Why) -> Result<ExitCode, Failure> {
    let record = match (options.id, options.pid) {
        (Some(id), _) => find(places, id)?,
        (None, pid) => {
            let reader = open(places)?;
            let filter = Filter { pid, ..Filter::default() };
            let record = reader.last_refused(&filter).map_err(|error| Failure::of(&error))?;
            let attempt = pid.map(|pid| reader.last_attempt(pid)).transpose();
            let attempt = attempt.map_err(|error| Failure::of(&error))?.flatten();
            match (record, attempt) {
                (record, Some(line)) if record.as_ref().is_none_or(|record| record.id.0 < line.seq) => {
                    return why_not(printer, &line);
                }
                (Some(record), _) => record,
                (None, _) => {
                    return Err(Failure::no(match pid {
                        Some(pid) => format!(
                            "nothing of process {pid} was refused: `interceptor audit search --pid {pid}` lists what it asked"
                        ),
                        None => "nothing was refused yet".to_owned(),
                    }));
                }
            }
        }
    };
    let request = &record.request;
    let verdict = &request.verdict;
    let (because, permits) = records::mend(verdict);
    if printer.is_json() {
        printer.json(&serde_json::json!({ "record": record, "because": because, "would_allow": permits }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let (word, tone) = records::verdict_word(verdict);
    let resource = request.resource.as_ref().map_or("-", |name| name.as_str());
    printer.line(&format!("record {}  {}  {}", record.id, printer.paint(word, tone), when(request.at)))?;
    printer.field("agent", &format!("{} on {resource}", request.agent.name))?;
    printer.field("asked", &records::statement(request))?;
    for effect in request.action.facts.effects.iter().filter(|_| !request.action.text.is_empty()) {
        printer.field("effect", &records::describe(effect))?;
    }
    if let Some(unknown) = &request.action.facts.unknown {
        printer.field("unknown", &unknown.0)?;
    }
    verdict.rules.iter().try_for_each(|rule| printer.field("rule", rule))?;
    if verdict.rules.is_empty() {
        printer.field("rule", "none permits it, which is a no")?;
    }
    if !because.is_empty() {
        printer.field("because", &because)?;
    }
    mend(places, printer, &record, &permits)?;
    records::masked(printer, request)?;
    if let Some(outcome) = record.outcome.as_ref().filter(|outcome| outcome.status != OutcomeStatus::Refused)
    {
        printer.field("outcome", &records::ended(outcome))?;
        let recorded = outcome.recorded.as_ref().map(records::rows_in_words);
        recorded.map_or(Ok(()), |rows| printer.field("rows", &rows))?;
    }
    if let Some(undo) = &verdict.undo {
        let how = format!("images of {} rows: interceptor undo {}", undo.rows, record.id);
        printer.field("undo", &how)?;
    }
    let more = format!("everything about it: interceptor audit show {}", record.id);
    printer.line(&printer.paint(&more, Tone::Faint))?;
    Ok(ExitCode::SUCCESS)
}

/// Why a call of a process failed that never became a request.
fn why_not(printer: &Printer, line: &Line) -> Result<ExitCode, Failure> {
    let Entry::Event(EventRecord { at, run, agent, text, attempt: Some(attempt), .. }) = &line.entry else {
        return Err(Failure::host(format!(
            "entry {} is about no process: `interceptor audit verify`",
            line.seq
        )));
    };
    let code = Code::named(&attempt.code);
    // A code of a later version has no words here.
    let (because, mend) = code.map_or(("a code that this version does not know", "-"), Code::explained);
    if printer.is_json() {
        printer.json(&serde_json::json!({ "event": line, "because": because, "mend": mend }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let (word, tone) = match code {
        Some(Code::Probe(_)) => ("refused, as of any client", Tone::Faint),
        Some(Code::Refused(_)) | None => ("REFUSED", Tone::Bad),
    };
    printer.line(&format!("entry {}  {}  {}", line.seq, printer.paint(word, tone), when(*at)))?;
    if let (Some(agent), Some(run)) = (agent, run) {
        printer.field("agent", &format!("{agent}, run {run}"))?;
    }
    printer.field("tried", text)?;
    printer.field("because", because)?;
    printer.field("what now", mend)?;
    Ok(ExitCode::SUCCESS)
}

/// What would allow a refused record.
fn mend(places: &Places, printer: &Printer, record: &FullRecord, permits: &[String]) -> Result<(), Failure> {
    let verdict = &record.request.verdict;
    if verdict.allowed {
        return Ok(());
    }
    permits.iter().try_for_each(|rule| printer.field("would allow", rule))?;
    if !verdict.held_for.is_empty() {
        let groups = verdict.held_for.join(" and ");
        return printer.field("would allow", &format!("approval by {groups} (`interceptor approvals list`)"));
    }
    if !permits.is_empty() {
        let folder = places.policies();
        return printer.field(
            "how",
            &format!(
                "put it into a *.cedar file in {}, then `interceptor policy test` and `interceptor reload`",
                folder.display()
            ),
        );
    }
    if verdict.rules.is_empty() {
        return Ok(());
    }
    printer.field("would allow", "only a change of the rule above: no permit wins over a forbid")
}
