//! Policy without a daemon: check a folder, run its expectations, explain what it would say.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use interceptor_core::{
    model::{AgentName, ResourceName, Spent},
    policy::{
        Policy,
        expect::{self, Case, Catalogue, On},
        explain,
    },
    sql::Dialect,
};

use super::{
    output::{Failure, Printer, Tone},
    replay, suggest,
};
use crate::{
    config::{Folder, Trust},
    gate::now_us,
    places::Places,
};

/// What to do with it.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Load a policy folder and list every fault and warning.
    Check(Where),
    /// Run the tables of expected verdicts.
    Test(Where),
    /// Say what policy would answer to a statement, by which file and line, and what would allow it.
    Explain {
        #[command(flatten)]
        folder: Where,
        /// The agent.
        #[arg(long)]
        agent: AgentName,
        /// The resource.
        #[arg(long)]
        resource: ResourceName,
        /// The database that the session is in.
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
        /// Relations that exist, as `schema.name`; without any, a name could mean any schema of the search path. On a
        /// resource without schemas names mean what they say, and are in the session's database unless another is named.
        #[arg(long = "table", value_name = "SCHEMA.NAME")]
        tables: Vec<String>,
        /// The statement.
        sql: String,
    },
    /// Propose the least rules that permit what was recorded, with the verdicts to expect of them.
    Suggest(suggest::Options),
    /// Judge past records again under a candidate policy, and list the verdicts that would change.
    ///
    /// Exit code 1 if any would. The facts are the record's; no database is asked.
    Replay(replay::Options),
}

/// Which folder.
#[derive(Debug, Args)]
pub(super) struct Where {
    /// The policy folder; the installation's by default.
    #[arg(long = "dir", value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// `interceptor policy`
pub(super) fn run(places: &Places, printer: &Printer, command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Check(place) => check(printer, &read(places, &place)?),
        Command::Test(place) => test(printer, &read(places, &place)?),
        Command::Suggest(options) => suggest::suggest(places, printer, &options),
        Command::Replay(options) => replay::replay(places, printer, &options),
        Command::Explain { folder, agent, resource, database, tables, sql } => {
            let rules = load(&read(places, &folder)?)?;
            let known = rules.inventory().resources.get(&resource);
            let has_schemas = known.is_none_or(|known| known.dialect == Some(Dialect::Postgres));
            let case = Case {
                agent,
                resource: Some(resource),
                sql: Some(sql),
                action: None,
                on: On::default(),
                approvals: BTreeMap::new(),
                spent: Spent::default(),
                now: now_us() / 1_000_000,
            };
            let guessed = tables.is_empty() && has_schemas;
            let usual = Catalogue::default();
            let database = database.unwrap_or_else(|| usual.database.clone());
            let catalogue = Catalogue { database, tables, ..usual };
            let text = explain(&rules, &case, &catalogue, &Catalogue::facts).map_err(Failure::usage)?;
            if printer.is_json() {
                printer.json(&serde_json::json!({ "explanation": text }))?;
            } else {
                let text = interceptor_core::text::printable_lines(&text);
                text.lines().try_for_each(|line| printer.line(line))?;
                if guessed {
                    let hint = "without --table a bare name could mean any schema of the search path; all are asked for";
                    printer.line(&printer.paint(hint, Tone::Faint))?;
                }
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

pub(super) fn read(places: &Places, place: &Where) -> Result<Folder, Failure> {
    let read = match &place.folder {
        Some(folder) => Folder::read(folder, Trust::Candidate),
        None => Folder::in_force(places),
    };
    read.map_err(|error| Failure::of(&error))
}

pub(super) fn load(folder: &Folder) -> Result<Policy, Failure> {
    folder.load().map(|rules| rules.policy).map_err(|error| Failure::no(crate::telemetry::chain(&error)))
}

fn check(printer: &Printer, folder: &Folder) -> Result<ExitCode, Failure> {
    let policy = load(folder)?;
    let warnings = policy.warnings();
    if printer.is_json() {
        printer.json(&serde_json::json!({
            "policy": policy.hash(), "rules": policy.rules().len(),
            "warnings": warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }))?;
    } else {
        for warning in &warnings {
            printer.line(&format!("{} {warning}", printer.paint("warning", Tone::Notice)))?;
        }
        printer.line(&format!(
            "{} {} rules, policy {}",
            printer.paint("good", Tone::Good),
            policy.rules().len(),
            policy.hash()
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn test(printer: &Printer, folder: &Folder) -> Result<ExitCode, Failure> {
    let policy = load(folder)?;
    let (mut passed, mut failed) = (0, 0);
    for source in &folder.expectations {
        let results = expect::run(&policy, source, &Catalogue::facts).map_err(|faults| {
            Failure::no(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        })?;
        for result in results {
            let (word, tone) = if result.passed { ("ok  ", Tone::Good) } else { ("FAIL", Tone::Bad) };
            *if result.passed { &mut passed } else { &mut failed } += 1;
            if printer.is_json() {
                printer.json(&serde_json::json!({
                    "file": result.file, "line": result.line, "case": result.what, "passed": result.passed,
                    "found": result.found,
                }))?;
            } else {
                let what = interceptor_core::text::printable(&result.what).into_owned();
                printer.line(&format!(
                    "{} {}:{} {what}",
                    printer.paint(word, tone),
                    result.file,
                    result.line
                ))?;
                if !result.passed {
                    printer.line(&format!("     {}", interceptor_core::text::printable(&result.found)))?;
                }
            }
        }
    }
    if !printer.is_json() {
        printer.line(&format!("{passed} as expected, {failed} not"))?;
    }
    if passed + failed == 0 {
        return Err(Failure::no("the folder has no *.expect.toml: nothing was tested"));
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
