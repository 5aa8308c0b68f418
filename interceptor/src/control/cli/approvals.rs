//! `approvals`: what waits for a person, shown whole, and the person's word.
//!
//! Promise: what an agent wrote is shown as what it is, with nothing in it that a terminal would act on.

use std::{fmt::Write as _, process::ExitCode};

use clap::{Args, Subcommand};
use interceptor_core::{
    approval::{
        About, Card, Fate, LONGEST_GRANT, OPEN_FOR, SHAPE_ROWS, Says, Shown, Standing, State, Told, Uses,
    },
    break_glass::BreakGlass,
    estimate::Estimate,
    model::{Action, ApprovalId, Object, ResourceName, RunId, Target},
};
use jiff::SignedDuration;

use super::{
    break_glass,
    output::{Failure, Printer, Tone, clock, when},
    records,
};
use crate::{
    control::{
        api::ControlError,
        approvals::{self, Answer, Request, Vouching},
    },
    places::Places,
};

/// Commands of `approvals`.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List what is open, or was lately.
    List,
    /// Print what is new as it comes, until interrupted.
    Watch,
    /// Show a request whole: who asks, what it does, which rule holds it.
    Show(Which),
    /// Say yes.
    Approve(Approve),
    /// Say no, which ends it.
    Deny(Deny),
    /// Ask for approval of a statement before the agent sends it.
    Ask(AskAhead),
    /// Say that a run is your own log-in session: for a while, policy knows you there as `context.person`.
    Vouch(Vouch),
    /// Say what was found in the records of a break-glass; the next one waits for that.
    Review(break_glass::Review),
}

/// A request.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// The request, as `list` prints it.
    id: ApprovalId,
}

/// Arguments of `approvals ask`.
#[derive(Debug, Args)]
pub(super) struct AskAhead {
    /// The statement, exactly as it will be sent, with its values in its text.
    statement: String,
    /// The run that will send it, as `ps` prints it; the only one where there is one.
    #[arg(long)]
    run: Option<RunId>,
    /// The resource; the one where the run has a session.
    #[arg(long)]
    resource: Option<ResourceName>,
    /// The database; the one where the run has a session.
    #[arg(long)]
    database: Option<String>,
}

/// Arguments of `approvals vouch`.
#[derive(Debug, Args)]
pub(super) struct Vouch {
    /// The run, as `ps` prints it: a log-in session of yours that `attach` has captured. Say it from another one.
    run: RunId,
    /// For how long, such as `30m`; at most 8 hours.
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    time: SignedDuration,
    /// The process of the shell that you type into, there.
    #[arg(long, value_name = "PID")]
    shell: u32,
    /// A program that you start from that shell, by its whole path; once for each.
    #[arg(long = "program", value_name = "PATH", required = true)]
    programs: Vec<String>,
}

/// Arguments of `approvals approve`.
#[derive(Debug, Args)]
pub(super) struct Approve {
    /// The request, as `list` prints it.
    id: ApprovalId,
    /// It may be done once, within 15 minutes. This is what happens without any of these.
    #[arg(long, conflicts_with_all = ["shape", "run", "time"])]
    once: bool,
    /// Whatever has this statement's shape, that is the same but for the literals that `show` lists and for the values
    /// of its parameters, may be done again and again until its run ends, or for as long as `--for` says.
    #[arg(long, conflicts_with = "run")]
    shape: bool,
    /// The most rows that each of them may change or return; with `--shape`.
    #[arg(long, value_name = "N", requires = "shape", default_value_t = SHAPE_ROWS)]
    rows: u64,
    /// Just this statement may be done again and again until its run ends, at most 8 hours.
    #[arg(long, conflicts_with = "time")]
    run: bool,
    /// Just this statement may be done again and again in its run for this time, such as `30m`; at most 8 hours.
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    time: Option<SignedDuration>,
    /// The group that it counts for, where you are in several that are asked.
    #[arg(long = "as", value_name = "GROUP")]
    group: Option<String>,
}

/// Arguments of `approvals deny`.
#[derive(Debug, Args)]
pub(super) struct Deny {
    /// The request, as `list` prints it.
    id: ApprovalId,
    /// Why; the agent is told.
    #[arg(long)]
    reason: String,
    /// What to send instead; the agent is told.
    #[arg(long, value_name = "SQL")]
    suggest: Option<String>,
    /// The group that it counts for.
    #[arg(long = "as", value_name = "GROUP")]
    group: Option<String>,
}

fn time(text: &str) -> Result<SignedDuration, String> {
    let time: Option<SignedDuration> = text.parse().ok();
    let longest = i64::try_from(LONGEST_GRANT).unwrap_or(i64::MAX);
    time.filter(|time| (1..=longest).contains(&time.as_secs()))
        .ok_or_else(|| "write it as `90s`, `30m` or `2h`; at most 8 hours".to_owned())
}

/// `interceptor approvals`
pub(super) fn run(places: &Places, printer: &Printer, command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::List => match ask(places, Request::List)? {
            Answer::List { approvals, glass, .. } => list(printer, &approvals, &glass),
            other => Err(unexpected(other)),
        },
        Command::Watch => watch(places, printer),
        Command::Show(Which { id }) => match ask(places, Request::Show { id })? {
            Answer::Approval(shown) => show(printer, &shown),
            other => Err(unexpected(other)),
        },
        Command::Approve(options) => {
            let rows = options.rows;
            let uses = match (options.shape, options.run || options.time.is_some()) {
                (true, _) => Uses::Shape { rows },
                (false, true) => Uses::Any,
                (false, false) => Uses::Once,
            };
            let seconds = match options.time {
                Some(time) => u64::try_from(time.as_secs()).unwrap_or(0),
                None if uses == Uses::Once => OPEN_FOR,
                None => LONGEST_GRANT,
            };
            decide(places, printer, options.id, options.group, Says::Approve { uses, seconds })
        }
        Command::Deny(Deny { id, reason, suggest, group }) => {
            decide(places, printer, id, group, Says::Deny { reason, suggestion: suggest })
        }
        Command::Ask(AskAhead { statement, run, resource, database }) => {
            match ask(places, Request::Ask { run, resource, database, text: statement })? {
                Answer::Asked { text, id } if printer.is_json() => {
                    printer.json(&serde_json::json!({ "text": text, "approval": id }))?;
                }
                Answer::Asked { text, .. } => text.lines().try_for_each(|line| printer.line(line))?,
                other => return Err(unexpected(other)),
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Vouch(Vouch { run, time, shell, programs }) => {
            let seconds = u64::try_from(time.as_secs()).unwrap_or(0);
            match ask(places, Request::Vouch { run, said: Vouching { seconds, shell, programs } })? {
                Answer::Vouched { text } => printer.line(&text)?,
                other => return Err(unexpected(other)),
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Review(options) => break_glass::review(places, printer, options),
    }
}

/// Asks the daemon over the approvers' socket.
pub(super) fn ask(places: &Places, request: Request) -> Result<Answer, Failure> {
    approvals::ask(&places.approvals_socket(), request).map_err(|error| match error {
        ControlError::Captured => Failure::usage(error.to_string()),
        error => Failure::of(&error),
    })
}

/// The failure that an answer to something else is.
pub(super) fn unexpected(answer: Answer) -> Failure {
    match answer {
        Answer::Failed { text } => Failure::no(text),
        Answer::List { .. }
        | Answer::Approval(_)
        | Answer::Decided { .. }
        | Answer::Asked { .. }
        | Answer::Glass { .. }
        | Answer::Images { .. }
        | Answer::Undone { .. }
        | Answer::Vouched { .. } => {
            Failure::host("the daemon answered another question than was asked: restart it")
        }
    }
}

fn listed(answer: Answer) -> Result<(u64, Vec<Standing>), Failure> {
    match answer {
        Answer::List { seen, approvals, .. } => Ok((seen, approvals)),
        other => Err(unexpected(other)),
    }
}

fn decide(
    places: &Places,
    printer: &Printer,
    id: ApprovalId,
    group: Option<String>,
    says: Says,
) -> Result<ExitCode, Failure> {
    match ask(places, Request::Decide { id, group, says })? {
        Answer::Decided { approval, .. } if printer.is_json() => printer.json(&approval)?,
        Answer::Decided { text, approval } => {
            printer.line(&text)?;
            if approval.state == State::Open {
                printer.line(&format!(
                    "it goes when policy has what it wants; until {} the same statement may still come",
                    when(approval.closes_at)
                ))?;
            }
        }
        other => return Err(unexpected(other)),
    }
    Ok(ExitCode::SUCCESS)
}

fn list(printer: &Printer, approvals: &[Standing], glass: &[BreakGlass]) -> Result<ExitCode, Failure> {
    if printer.is_json() {
        return printer.json(&approvals).map(|()| ExitCode::SUCCESS);
    }
    break_glass::pending(printer, glass)?;
    if approvals.is_empty() {
        printer.line("nothing waits for a person")?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = approvals.iter().map(row).collect();
    printer.table(&["approval", "state", "asked", "agent", "resource", "groups", "statement"], rows)?;
    Ok(ExitCode::SUCCESS)
}

fn row(standing: &Standing) -> Vec<(String, Tone)> {
    let card = &standing.card;
    let tone = match standing.state {
        State::Open => Tone::Notice,
        State::Denied => Tone::Bad,
        State::Void { .. } | State::Expired | State::Used { .. } => Tone::Faint,
    };
    vec![
        (standing.id.to_string(), Tone::Plain),
        (state(standing), tone),
        (clock(standing.opened_at), Tone::Faint),
        (card.agent.name.to_string(), Tone::Plain),
        (card.resource.to_string(), Tone::Plain),
        (card.groups.join(" and "), Tone::Plain),
        (about(card), Tone::Plain),
    ]
}

/// What people are asked, in a line.
fn about(card: &Card) -> String {
    match card.about {
        About::Exchange => records::one_line(&card.text()),
        About::Flood => format!(
            "FLOOD: may run {} go on? The last of what it asked: {}",
            card.run,
            records::one_line(&card.text())
        ),
    }
}

/// How far it has come, with the yeses that there are.
fn state(standing: &Standing) -> String {
    let people: Vec<String> = standing.people().iter().map(ToString::to_string).collect();
    match (&standing.state, people.is_empty()) {
        (State::Open, false) => format!("open, approved by {}", people.join(" and ")),
        (state, _) => state.to_string(),
    }
}

fn watch(places: &Places, printer: &Printer) -> Result<ExitCode, Failure> {
    let mut told: Vec<(ApprovalId, String)> = Vec::new();
    let (mut seen, mut approvals) = listed(ask(places, Request::List)?)?;
    loop {
        let news: Vec<&Standing> = approvals
            .iter()
            .rev()
            .filter(|standing| !told.contains(&(standing.id, state(standing))))
            .collect();
        for standing in &news {
            if printer.is_json() {
                printer.json(standing)?;
            } else {
                let card = &standing.card;
                printer.line(&format!(
                    "{}  {}  {} on {} for {}: {}",
                    standing.id,
                    state(standing),
                    card.agent.name,
                    card.resource,
                    card.groups.join(" and "),
                    about(card)
                ))?;
            }
        }
        told = approvals.iter().map(|standing| (standing.id, state(standing))).collect();
        (seen, approvals) = listed(ask(places, Request::Watch { seen })?)?;
    }
}

fn show(printer: &Printer, shown: &Shown) -> Result<ExitCode, Failure> {
    if printer.is_json() {
        return printer.json(shown).map(|()| ExitCode::SUCCESS);
    }
    let standing = &shown.standing;
    let card = &standing.card;
    printer.line(&format!("approval {}  {}", standing.id, printer.paint(&state(standing), Tone::Notice)))?;
    let asked = format!("{}, closes {}", when(standing.opened_at), when(standing.closes_at));
    printer.field("asked", &asked)?;
    for decision in &standing.decisions {
        let said = format!("{}, for {}, {}", said(&decision.says), decision.group, clock(decision.at));
        printer.field(decision.person.as_str(), &said)?;
    }
    if !card.whole {
        let text = "NOT WHOLE: this is too long to be shown, so it cannot be approved";
        printer.line(&printer.paint(text, Tone::Bad))?;
    }
    if card.about == About::Flood {
        let text = "FROZEN: this run asks for more than it may have open. A yes lets it go on, a no ends it; what it \
                    asked before waits for its own decisions. The last of what it asked:";
        printer.line(&printer.paint(text, Tone::Bad))?;
    }
    who(printer, card)?;
    for (count, action) in (1..).zip(&card.statements) {
        printer.heading(&format!("statement {count} of {}", card.statements.len()))?;
        statement(printer, action)?;
    }
    if !card.labels.is_empty() {
        printer.field(
            "labels",
            &format!(
                "{}: {}",
                card.labels.join(", "),
                match shown.uncovered.is_empty() {
                    true => "literals and values are masked here",
                    false => "you may see their values, and that you were shown them is recorded",
                }
            ),
        )?;
    }
    match &card.estimate {
        Some(Estimate::Rows(rows)) => {
            printer
                .field("rows", &format!("about {rows}, as the server guesses; nothing holds it to that"))?;
        }
        Some(Estimate::None(why)) => printer.field("rows", &format!("no guess: {why}"))?,
        None => {}
    }
    shape(printer, card)?;
    printer.heading("held")?;
    for rule in &card.rules {
        let say = rule.say.as_deref().map(|say| format!(": {say}")).unwrap_or_default();
        printer.field("rule", &format!("{} ({}){say}", rule.id, rule.at))?;
    }
    printer.field("for", &card.groups.join(" and "))?;
    printer.field("policy", &card.policy)?;
    around(printer, shown)?;
    if standing.state == State::Open && card.whole {
        printer.line(&format!(
            "\nsudo interceptor approvals approve {0}\nsudo interceptor approvals deny {0} --reason ...",
            standing.id
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn said(says: &Says) -> String {
    match says {
        Says::Approve { uses: Uses::Once, .. } => "approved once".to_owned(),
        Says::Approve { uses: Uses::Any, .. } => "approved until it closes".to_owned(),
        Says::Approve { uses: Uses::Shape { rows }, .. } => {
            format!("approved all of its shape until it closes, at most {rows} rows each")
        }
        Says::Deny { reason, .. } => format!("denied: {reason}"),
    }
}

/// What helps to decide: how its like was decided, and what else the run did.
fn around(printer: &Printer, Shown { similar, others, .. }: &Shown) -> Result<(), Failure> {
    if !similar.is_empty() {
        printer.heading("decided before, of this agent")?;
    }
    for Standing { id, opened_at, decisions, card, .. } in similar {
        let words: Vec<String> =
            decisions.iter().map(|one| format!("{} by {}", said(&one.says), one.person)).collect();
        let text = format!("{} {}: {}", clock(*opened_at), words.join(", "), records::one_line(&card.text()));
        printer.field(&id.to_string(), &text)?;
    }
    if !others.is_empty() {
        printer.heading("what else the run did last")?;
    }
    for Told { record, at, fate, text } in others {
        let fate = match fate {
            Fate::Allowed => "allowed",
            Fate::Held => "held",
            Fate::Refused => "refused",
        };
        printer.field(&record.to_string(), &format!("{} {fate} {}", clock(*at), records::one_line(text)))?;
    }
    Ok(())
}

fn who(printer: &Printer, card: &Card) -> Result<(), Failure> {
    let owner = card.agent.owner.as_deref().map(|owner| format!(", owned by {owner}")).unwrap_or_default();
    printer.field("agent", &format!("{}{owner}", card.agent.name))?;
    let launcher = card.launcher.as_deref().map(|user| format!(", started by {user}")).unwrap_or_default();
    printer.field("run", &format!("{}{launcher}: {}", card.run, card.command))?;
    if let Some(process) = &card.process {
        printer.field("process", &format!("{} {}", process.pid, process.argv.join(" ")))?;
        for above in &process.ancestry {
            printer.field("below", &format!("{} {}", above.pid, above.argv.join(" ")))?;
        }
    }
    printer.field("resource", &format!("{}, database {}", card.resource, card.principal.database))?;
    let role = if card.role.is_empty() { &card.principal.user } else { &card.role };
    printer.field("as", &format!("{role}, search path {}", card.search_path.join(", ")))
}

fn statement(printer: &Printer, action: &Action) -> Result<(), Failure> {
    printer.field("text", &action.text)?;
    for (place, bind) in (1..).zip(&action.binds) {
        let value = bind.value.as_deref().map_or("NULL".to_owned(), |value| format!("{value:?}"));
        printer.field(&format!("${place}"), &format!("{value} ({})", bind.r#type))?;
    }
    for effect in &action.facts.effects {
        printer.field("does", &format!("{} {}", effect.verb.as_str(), target(&effect.target)))?;
    }
    if !action.facts.has_where {
        printer.field("note", "an UPDATE or DELETE in it has no WHERE")?;
    }
    match &action.facts.unknown {
        Some(why) => printer.field("note", &format!("not understood: {why}")),
        None => Ok(()),
    }
}

/// What an approval of the shape would leave open.
fn shape(printer: &Printer, card: &Card) -> Result<(), Failure> {
    let Some(free) = &card.free else { return Ok(()) };
    let binds = card.statements.iter().flat_map(|action| &action.binds).count();
    let parameters = (1..=binds).map(|place| format!("${place}"));
    let open: Vec<String> = free.iter().cloned().chain(parameters).collect();
    let open = if open.is_empty() { "nothing".to_owned() } else { open.join(", ") };
    printer.heading("with --shape")?;
    printer.field("open", &open)
}

fn target(target: &Target) -> String {
    let object = |object: &Object| {
        let mut text = object.shown();
        if let Some(oid) = object.oid {
            let _ = write!(text, " ({oid})");
        }
        text
    };
    match target {
        Target::Resource => "on the resource itself".to_owned(),
        Target::Table(table) => object(table),
        Target::Function(function) => format!("{}()", object(function)),
        Target::Other { kind, name } => format!("{kind} {name}"),
        Target::Setting(setting) => format!("setting {setting}"),
        Target::Name(name) => name.clone(),
        Target::Label(name) => format!("label {name}"),
        Target::Program(program) => format!("program {}", program.path),
        Target::Image(image) => format!("image {image}"),
    }
}
