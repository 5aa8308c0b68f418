//! `labels`: what bears which label, and what to do about it.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use interceptor_core::{
    mask::Which,
    model::{AgentName, ResourceName},
    survey::{Depth, RelationKind},
};

use super::{
    label_grants, label_scan,
    output::{Failure, Printer, Tone, when},
    runs::{ask, finish},
};
use crate::{
    control::api::{self, Answer, ColumnStatus, Errand, Request, Through},
    places::Places,
};

/// Commands of `labels`.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List every column that bears a label: through what, and since when. What is found is bound.
    Show(Place),
    /// Print the SQL that grants a role what an agent may see, and nothing else.
    Grants(Grants),
    /// Propose labels from names of columns and some of their values, as a diff of labels.toml. Values are not printed.
    Scan(Place),
    /// Take labels from a column that bears them for what it was called, or for what was copied into it; recorded.
    Forget(Forget),
}

/// Where to look.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// The resource. It is logged in to with its own credential; what is asked there is recorded.
    pub(super) resource: ResourceName,
    /// The database. Without it, those that something is known to be labelled in.
    #[arg(long)]
    database: Option<String>,
    /// Whose credential to use, and whose sight to go by, where agents have different ones.
    #[arg(long)]
    agent: Option<AgentName>,
}

/// Arguments of `labels grants`.
#[derive(Debug, Args)]
pub(super) struct Grants {
    #[command(flatten)]
    place: Place,
    /// The role at the server. It must be there, and own nothing.
    #[arg(long)]
    role: String,
}

/// Arguments of `labels forget`.
#[derive(Debug, Args)]
pub(super) struct Forget {
    /// Where.
    resource: ResourceName,
    /// The column, or a relation for all of its columns, as it was called last: SCHEMA.RELATION or
    /// SCHEMA.RELATION.COLUMN.
    #[arg(value_parser = which)]
    column: Which,
}

fn which(text: &str) -> Result<Which, String> {
    Which::parse(text).ok_or_else(|| "write it as SCHEMA.RELATION or SCHEMA.RELATION.COLUMN".to_owned())
}

/// `interceptor labels`
pub(super) fn run(places: &Places, printer: &Printer, command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Show(place) => show(places, printer, place),
        Command::Grants(Grants { place, role }) => {
            let seen = survey(places, place, (Depth::Catalogue, Errand::Grants))?;
            label_grants::print(printer, &seen, &role)
        }
        Command::Scan(place) => {
            let resource = place.resource.clone();
            let seen = survey(places, place, (Depth::Values, Errand::Scan))?;
            label_scan::print(places, printer, &seen, &resource)
        }
        Command::Forget(Forget { resource, column }) => {
            finish(printer, ask(places, Request::ForgetLabels { resource, what: column })?)
        }
    }
}

/// What was seen.
pub(super) struct Seen {
    /// The columns.
    pub(super) columns: Vec<ColumnStatus>,
    /// The databases that were looked at.
    pub(super) databases: Vec<String>,
    /// Who the sessions were there.
    pub(super) user: String,
    /// The labels hidden from the agent whose values are found wherever they stand.
    pub(super) found_anywhere: Vec<String>,
}

fn survey(places: &Places, place: Place, (depth, errand): (Depth, Errand)) -> Result<Seen, Failure> {
    let Place { resource, database, agent } = place;
    let request = Request::Survey { resource, database, agent, depth, errand };
    let mut columns = Vec::new();
    let answer = api::ask_for_many(&places.control_socket(), request, |column| columns.push(column));
    match answer.map_err(|error| Failure::of(&error))? {
        Answer::Surveyed { databases, user, found_anywhere } => {
            Ok(Seen { columns, databases, user, found_anywhere })
        }
        Answer::Failed { text } => Err(Failure::no(text)),
        Answer::Status(_) | Answer::Runs { .. } | Answer::Columns { .. } | Answer::Done { .. } => {
            Err(Failure::host("the daemon answered another question than was asked: restart it"))
        }
    }
}

fn show(places: &Places, printer: &Printer, place: Place) -> Result<ExitCode, Failure> {
    let seen = survey(places, place, (Depth::Catalogue, Errand::Show))?;
    let labelled: Vec<&ColumnStatus> =
        seen.columns.iter().filter(|column| !column.labels.is_empty()).collect();
    if printer.is_json() {
        printer.json(&labelled)?;
        return Ok(ExitCode::SUCCESS);
    }
    let several = seen.databases.len() > 1;
    let rows = labelled.iter().flat_map(|column| {
        column.labels.iter().map(move |label| {
            let ColumnStatus { database, schema, relation, kind, column, .. } = column;
            let name = format!("{schema}.{relation}.{column}");
            let name = if several { format!("{database}: {name}") } else { name };
            let (through, tone) = match &label.through {
                Through::Pattern(pattern) if *pattern == format!("{schema}.{relation}.{column}") => {
                    ("its name".to_owned(), Tone::Faint)
                }
                Through::Pattern(pattern) => (format!("the pattern {pattern}"), Tone::Plain),
                Through::Copied(record) => (format!("a copy, record {record}"), Tone::Notice),
                Through::Another => (another(*kind).to_owned(), Tone::Plain),
            };
            let since = label.since.map_or_else(|| "-".to_owned(), when);
            vec![
                (name, Tone::Plain),
                (label.label.clone(), Tone::Plain),
                (since, Tone::Faint),
                (through, tone),
            ]
        })
    });
    printer.table(&["COLUMN", "LABEL", "SINCE", "THROUGH"], rows.collect())?;
    if labelled.is_empty() {
        return Err(Failure::no(format!("no column of {} bears a label", seen.databases.join(", "))));
    }
    Ok(ExitCode::SUCCESS)
}

/// Through what a column bears what it does not bear itself.
fn another(kind: RelationKind) -> &'static str {
    match kind {
        RelationKind::View | RelationKind::MaterializedView => "what the view shows",
        RelationKind::Partition => "what it is a part of",
        RelationKind::Table | RelationKind::Foreign => {
            "a column that it is inherited from or by, or generated from"
        }
    }
}
