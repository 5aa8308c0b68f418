//! Reading the record. It is read from disk, so it can be read with the daemon dead.

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use interceptor_core::{
    model::{Entry, OutcomeStatus, RecordId, RunId, WouldBe},
    text,
};

use super::output::{Failure, Printer, Tone, when};
use crate::{
    places::Places,
    store::{Filter, FullRecord, Line, LogKey, Reader, verify},
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
        #[arg(long, value_name = "FILE")]
        checkpoint: Option<PathBuf>,
    },
}

/// The form of an export.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Form {
    /// One JSON object a line.
    Jsonl,
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
    /// The newest refusal of this process.
    #[arg(long)]
    pid: Option<u32>,
    /// The newest refusal.
    #[arg(long)]
    last: bool,
}

/// `interceptor audit`
pub(super) fn run(places: &Places, printer: &Printer, command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Tail { lines, follow } => tail(places, printer, lines, follow),
        Command::Show { id } => {
            let record = find(places, id)?;
            if printer.is_json() {
                printer.json(&record)?
            } else {
                show(printer, &record)?
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Search { filter, limit } => search(places, printer, filter, limit),
        Command::Export { filter, format } => export(places, printer, filter, format),
        Command::Verify { key, checkpoint } => check(places, printer, key, checkpoint),
    }
}

fn open(places: &Places) -> Result<Reader, Failure> {
    let folder = places.audit();
    if !folder.exists() {
        return Err(Failure::no(format!(
            "there is no record in {} yet: it begins with the first `interceptor run`",
            folder.display()
        )));
    }
    Reader::open(&folder).map_err(|error| Failure::of(&error))
}

fn find(places: &Places, id: RecordId) -> Result<FullRecord, Failure> {
    open(places)?.record(id).map_err(|error| Failure::of(&error))?.ok_or_else(|| {
        Failure::no(format!("there is no record {id}; `interceptor audit tail` shows the newest"))
    })
}

fn tail(places: &Places, printer: &Printer, count: usize, follow: bool) -> Result<ExitCode, Failure> {
    let mut shown = None;
    let mut wanted = count;
    loop {
        let lines = match open(places) {
            Ok(reader) => reader.tail(wanted).map_err(|error| Failure::of(&error))?,
            Err(failure) if !follow => return Err(failure),
            Err(_) => Vec::new(),
        };
        for line in lines {
            let at = (line.seq, line.sub);
            if shown.is_none_or(|before| before < at) {
                shown = Some(at);
                if printer.is_json() { printer.json(&line)? } else { printer.line(&brief(printer, &line))? }
            }
        }
        if !follow {
            return Ok(ExitCode::SUCCESS);
        }
        wanted = 1000;
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// One entry in one line.
fn brief(printer: &Printer, line: &Line) -> String {
    let (at, mark, tone, what) = match &line.entry {
        Entry::Request(request) => {
            let (mark, tone) = match (request.verdict.allowed, request.verdict.would_be) {
                (true, Some(WouldBe::Denied | WouldBe::Held)) => ("observed", Tone::Notice),
                (true, _) => ("allowed", Tone::Good),
                (false, _) => ("REFUSED", Tone::Bad),
            };
            let resource = request.resource.as_ref().map_or("-", |name| name.as_str());
            let author = match request.author {
                interceptor_core::model::Author::Agent => request.agent.name.as_str(),
                interceptor_core::model::Author::Gate => "(gate)",
            };
            let verbs: Vec<_> =
                request.action.facts.effects.iter().map(|effect| effect.verb.as_str()).collect();
            let what =
                if request.action.text.is_empty() { verbs.join(" ") } else { request.action.text.clone() };
            (request.at, mark, tone, format!("{author} {resource}  {what}"))
        }
        Entry::Outcome(outcome) => {
            let tone = if outcome.status == OutcomeStatus::Completed { Tone::Faint } else { Tone::Notice };
            (outcome.at, "  ended", tone, ended(outcome))
        }
        Entry::Event(event) => (event.at, "event", Tone::Faint, event.text.clone()),
    };
    let number = match line.sub {
        0 => line.seq.to_string(),
        sub => format!("{}.{sub}", line.seq),
    };
    let what = text::printable(&what);
    let what: String = what.chars().take(160).collect();
    format!(
        "{} {} {} {what}",
        printer.paint(&when(at), Tone::Faint),
        printer.paint(&format!("{number:>6}"), Tone::Plain),
        printer.paint(&format!("{mark:<8}"), tone)
    )
}

fn ended(outcome: &interceptor_core::model::OutcomeRecord) -> String {
    let status = status_word(outcome.status);
    let mut parts = vec![format!("of {}: {status}", outcome.request)];
    parts.extend(outcome.rows.map(|rows| format!("{rows} rows")));
    parts.extend(outcome.latency_us.map(|us| format!("{}.{:03} ms", us / 1000, us % 1000)));
    parts.extend(outcome.code.clone());
    parts.extend(outcome.message.clone());
    parts.join(", ")
}

fn status_word(status: OutcomeStatus) -> &'static str {
    match status {
        OutcomeStatus::Completed => "completed",
        OutcomeStatus::Failed => "failed",
        OutcomeStatus::Refused => "refused",
        OutcomeStatus::Skipped => "skipped",
        OutcomeStatus::Unknown => "unknown",
    }
}

fn show(printer: &Printer, record: &FullRecord) -> Result<(), Failure> {
    let request = &record.request;
    let verdict = &request.verdict;
    let (word, tone) = if verdict.allowed { ("allowed", Tone::Good) } else { ("refused", Tone::Bad) };
    printer.field("record", &record.id.to_string())?;
    printer.field("when", &when(request.at))?;
    printer.field("verdict", &format!("{word} ({:?} mode)", verdict.mode).to_lowercase())?;
    printer.line(&printer.paint(&"\u{2500}".repeat(40), tone))?;
    let owner = request.agent.owner.as_deref().unwrap_or("nobody");
    printer.field("agent", &format!("{} (owner {owner}), run {}", request.agent.name, request.run))?;
    printer.field("guarantee", &format!("{:?}", request.guarantee).to_lowercase())?;
    if let Some(process) = &request.process {
        let executable = process.executable.as_deref().unwrap_or("?");
        printer.field("process", &format!("{} {} (uid {})", process.pid, executable, process.uid))?;
        if let Some(digest) = &process.digest {
            printer.field("", &format!("sha256 {digest}"))?;
        }
        printer.field("argv", &process.argv.join(" "))?;
        for ancestor in &process.ancestry {
            printer.field("under", &format!("{} {}", ancestor.pid, ancestor.argv.join(" ")))?;
        }
    }
    if let Some(destination) = request.destination {
        printer.field("dialled", &destination.to_string())?;
    }
    if let Some(resource) = &request.resource {
        let Principal { user, claimed_user, database } = &request.principal;
        printer.field(
            "resource",
            &format!("{resource} as {user} (the agent said {claimed_user}), database {database}"),
        )?;
    }
    printer.field("statement", &request.action.text)?;
    for (place, bind) in (1..).zip(&request.action.binds) {
        let value = bind.value.as_deref().map_or("NULL".to_owned(), |value| format!("{value:?}"));
        printer.field("bind", &format!("${place} {} = {value}", bind.r#type))?;
    }
    for effect in &request.action.facts.effects {
        printer.field("effect", &describe(effect))?;
    }
    if let Some(unknown) = &request.action.facts.unknown {
        printer.field("unknown", &unknown.0)?;
    }
    verdict.rules.iter().try_for_each(|rule| printer.field("rule", rule))?;
    if !verdict.reason.is_empty() {
        printer.field("reason", &verdict.reason)?;
    }
    match &record.outcome {
        Some(outcome) => printer.field("outcome", &ended(outcome)),
        None => printer.field("outcome", "not ended yet"),
    }
}

use interceptor_core::model::{Effect, Principal, Target};

fn describe(effect: &Effect) -> String {
    let target = match &effect.target {
        Target::Resource => "the resource".to_owned(),
        Target::Table(object) => format!("table {}.{}", object.schema, object.name),
        Target::Function(object) => format!("function {}.{}", object.schema, object.name),
        Target::Other { kind, name } => format!("{kind} {name}"),
        Target::Setting(name) => format!("setting {name}"),
        Target::Name(name) => format!("name {name}"),
    };
    format!("{} on {target}", effect.verb.as_str())
}

fn search(places: &Places, printer: &Printer, filters: Filters, limit: usize) -> Result<ExitCode, Failure> {
    let records = open(places)?.search(&filters.filter(), limit).map_err(|error| Failure::of(&error))?;
    if printer.is_json() {
        records.iter().try_for_each(|record| printer.json(record))?;
    } else {
        let rows = records.iter().map(row).collect();
        printer.table(&["record", "when", "agent", "resource", "verdict", "outcome", "statement"], rows)?;
    }
    Ok(if records.is_empty() { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn row(record: &FullRecord) -> Vec<(String, Tone)> {
    let request = &record.request;
    let (word, tone) = if request.verdict.allowed { ("allowed", Tone::Good) } else { ("refused", Tone::Bad) };
    let outcome = record.outcome.as_ref().map_or("-", |outcome| status_word(outcome.status));
    let statement: String = request.action.text.chars().take(120).collect();
    vec![
        (record.id.to_string(), Tone::Plain),
        (when(request.at), Tone::Faint),
        (request.agent.name.to_string(), Tone::Plain),
        (request.resource.as_ref().map_or("-".to_owned(), ToString::to_string), Tone::Plain),
        (word.to_owned(), tone),
        (outcome.to_owned(), Tone::Plain),
        (statement, Tone::Plain),
    ]
}

fn export(places: &Places, printer: &Printer, filters: Filters, form: Form) -> Result<ExitCode, Failure> {
    let reader = open(places)?;
    let filter = filters.filter();
    if matches!(form, Form::Csv) {
        printer.line("record,at,run,agent,resource,allowed,status,rows,code,rules,statement")?;
    }
    for record in reader.export(&filter) {
        let record = record.map_err(|error| Failure::of(&error))?;
        match form {
            Form::Jsonl => printer.json(&record)?,
            Form::Csv => printer.line(&csv(&record))?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn csv(record: &FullRecord) -> String {
    let request = &record.request;
    let outcome = record.outcome.as_ref();
    [
        record.id.to_string(),
        when(request.at),
        request.run.to_string(),
        request.agent.name.to_string(),
        request.resource.as_ref().map(ToString::to_string).unwrap_or_default(),
        request.verdict.allowed.to_string(),
        outcome.map(|outcome| status_word(outcome.status).to_owned()).unwrap_or_default(),
        outcome.and_then(|outcome| outcome.rows).map(|rows| rows.to_string()).unwrap_or_default(),
        outcome.and_then(|outcome| outcome.code.clone()).unwrap_or_default(),
        request.verdict.rules.join("; "),
        request.action.text.clone(),
    ]
    .map(|field| quote(&field))
    .join(",")
}

/// A CSV field (RFC 4180) that no spreadsheet takes for a formula.
fn quote(field: &str) -> String {
    let field = text::printable(field);
    let guard = if field.starts_with(['=', '+', '-', '@']) { "'" } else { "" };
    format!("\"{guard}{}\"", field.replace('"', "\"\""))
}

fn check(
    places: &Places,
    printer: &Printer,
    key: Option<PathBuf>,
    checkpoint: Option<PathBuf>,
) -> Result<ExitCode, Failure> {
    let read = |path: &PathBuf| {
        fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("{} cannot be read: {error}", path.display())))
    };
    let folder = places.audit();
    let text = read(&key.unwrap_or_else(|| folder.join("log.pub")))?;
    let key: LogKey = text.trim().parse().map_err(|error| Failure::of(&error))?;
    let known = checkpoint.as_ref().map(read).transpose()?;
    let report = verify(&folder, &key, known.as_deref()).map_err(|error| Failure::of(&error))?;
    if printer.is_json() {
        printer.json(&serde_json::json!({
            "good": report.is_good(), "log": report.log, "first": report.first_seq, "last": report.last_seq,
            "proven": report.proven.map(|proven| proven.seq), "unproven_lines": report.unproven,
            "faults": report.faults.iter().map(|fault| format!("{}: {}", fault.place, fault.what)).collect::<Vec<_>>(),
        }))?;
    } else {
        printer.field("log", &report.log)?;
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
            ("the record was changed", Tone::Bad)
        };
        printer.line(&printer.paint(word, tone))?;
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// `interceptor why`
pub(super) fn why(places: &Places, printer: &Printer, options: &Why) -> Result<ExitCode, Failure> {
    let record = match options.id {
        Some(id) => find(places, id)?,
        None => open(places)?
            .last_refused(&Filter { pid: options.pid, ..Filter::default() })
            .map_err(|error| Failure::of(&error))?
            .ok_or_else(|| Failure::no("nothing was refused"))?,
    };
    if printer.is_json() {
        printer.json(&record)?;
        return Ok(ExitCode::SUCCESS);
    }
    let verdict = &record.request.verdict;
    let (word, tone) = if verdict.allowed { ("was allowed", Tone::Good) } else { ("was refused", Tone::Bad) };
    let id = record.id;
    printer.line(&printer.paint(&format!("record {id} {word}"), tone))?;
    printer.field("agent", record.request.agent.name.as_str())?;
    printer.field("statement", &record.request.action.text)?;
    for effect in &record.request.action.facts.effects {
        printer.field("effect", &describe(effect))?;
    }
    if let Some(unknown) = &record.request.action.facts.unknown {
        printer.field("unknown", &unknown.0)?;
    }
    if verdict.rules.is_empty() {
        printer.field("rule", "none: what no rule permits is refused")?;
    }
    verdict.rules.iter().try_for_each(|rule| printer.field("rule", rule))?;
    if !verdict.reason.is_empty() {
        printer.field("because", &verdict.reason)?;
    }
    if !verdict.held_for.is_empty() {
        printer.field("waits for", &verdict.held_for.join(", "))?;
    }
    printer
        .line(&printer.paint(&format!("everything about it: interceptor audit show {id}"), Tone::Faint))?;
    Ok(ExitCode::SUCCESS)
}
