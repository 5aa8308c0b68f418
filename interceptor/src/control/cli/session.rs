//! `audit replay`: one session from its beginning, as it went.

use std::{process::ExitCode, str::FromStr};

use clap::Args;
use interceptor_core::model::{Author, ConnectionId, OutcomeStatus, Phase, RecordId};

use super::{
    audit,
    output::{Failure, Printer, Tone, when},
    records,
};
use crate::{
    places::Places,
    store::{Filter, FullRecord},
};

/// Arguments of `audit replay`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// A connection (`c12`), or any record of it.
    session: Named,
    /// The gate's own look-ups too.
    #[arg(short, long)]
    all: bool,
}

/// How a session is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    Connection(ConnectionId),
    Record(RecordId),
}

impl FromStr for Named {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "name a connection, such as c12, or a record's number";
        match text.strip_prefix('c') {
            Some(number) => number.parse().map(|id| Self::Connection(ConnectionId(id))).map_err(|_| WRONG),
            None => text.parse().map(Self::Record).map_err(|_| WRONG),
        }
    }
}

/// `interceptor audit replay`
pub(super) fn replay(places: &Places, printer: &Printer, options: &Options) -> Result<ExitCode, Failure> {
    let connection = match options.session {
        Named::Connection(id) => id,
        Named::Record(id) => audit::find(places, id)?.request.connection.ok_or_else(|| {
            Failure::no(format!("record {id} belongs to no connection: `interceptor audit show {id}`"))
        })?,
    };
    let author = (!options.all).then(|| "agent".to_owned());
    let filter = Filter { connection: Some(connection), author, ..Filter::default() };
    let reader = audit::open(places)?;
    let records: Vec<FullRecord> =
        reader.export(&filter).collect::<Result<_, _>>().map_err(|error| Failure::of(&error))?;
    let Some(first) = records.first() else {
        return Err(Failure::no(format!(
            "no record belongs to connection {connection}; `interceptor audit search` lists records"
        )));
    };
    let begun = first.request.at;
    if printer.is_json() {
        for record in &records {
            let after = record.request.at.saturating_sub(begun);
            printer.json(&serde_json::json!({ "after_us": after, "record": record }))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    heading(printer, connection, &records)?;
    let rows = records.iter().flat_map(|record| std::iter::once(row(record, begun)).chain(came(record)));
    let rows = rows.collect();
    printer.table(&["after", "record", "result", "rows", "took", "what"], rows)?;
    Ok(ExitCode::SUCCESS)
}

/// Who it was, from where, to what.
fn heading(printer: &Printer, connection: ConnectionId, records: &[FullRecord]) -> Result<(), Failure> {
    let Some(first) = records.first() else { return Ok(()) };
    // The log-in is known only behind the start-up.
    let told = &records.get(1).unwrap_or(first).request;
    let request = &first.request;
    printer.line(&format!("session {connection}  {}", printer.paint(&when(request.at), Tone::Faint)))?;
    printer.field("agent", &format!("{}, run {}", request.agent.name, request.run))?;
    if let Some(process) = &request.process {
        printer
            .field("process", &format!("{} {}", process.pid, records::one_line(&process.argv.join(" "))))?;
    }
    let resource = request.resource.as_ref().map_or("-", |name| name.as_str());
    let principal = &told.principal;
    let mut to = resource.to_owned();
    for (word, name) in [("database", &principal.database), ("as", &principal.user)] {
        if !name.is_empty() {
            to = format!("{to}, {word} {name}");
        }
    }
    printer.field("resource", &to)
}

fn row(record: &FullRecord, begun: i64) -> Vec<(String, Tone)> {
    let request = &record.request;
    let outcome = record.outcome.as_ref();
    let (result, tone) = result(record);
    let mut what = records::one_line(&records::statement(request));
    what = match (request.author, request.action.phase) {
        (Author::Gate, _) => "(gate) look-up".to_owned(),
        (Author::Agent, Phase::Prepare) => format!("prepare {what}"),
        (Author::Agent, _) => what,
    };
    what = records::cut(&what, 200);
    if !request.verdict.allowed {
        let by = match request.verdict.rules.as_slice() {
            [] => "nothing permits it".to_owned(),
            rules => format!("by {}", rules.join(", ")),
        };
        what = format!("{what} \u{2192} {by}");
    } else if let Some(message) = outcome.and_then(|outcome| outcome.message.as_ref()) {
        what = format!("{what} \u{2192} {}", records::one_line(message));
    }
    vec![
        (after(request.at.saturating_sub(begun)), Tone::Faint),
        (record.id.to_string(), Tone::Plain),
        (result, tone),
        (
            outcome.and_then(|outcome| outcome.rows).map_or(String::new(), |rows| rows.to_string()),
            Tone::Plain,
        ),
        (outcome.and_then(|outcome| outcome.latency_us).map_or(String::new(), records::took), Tone::Faint),
        (what, if request.author == Author::Gate { Tone::Faint } else { Tone::Plain }),
    ]
}

/// The rows that came, as they are recorded, each in a line below its statement's.
fn came(record: &FullRecord) -> impl Iterator<Item = Vec<(String, Tone)>> {
    let lines = record.outcome.as_ref().and_then(|outcome| outcome.recorded.as_ref()).map(records::row_lines);
    lines.unwrap_or_default().into_iter().map(|(_, line)| {
        let what = records::cut(&records::one_line(&line), 200);
        let mut cells = vec![(String::new(), Tone::Plain); 5];
        cells.push((format!("  {what}"), Tone::Faint));
        cells
    })
}

/// Verdict and outcome in a word.
fn result(record: &FullRecord) -> (String, Tone) {
    let (verdict, tone) = records::verdict_word(&record.request.verdict);
    match &record.outcome {
        _ if !record.request.verdict.allowed => (verdict.to_owned(), tone),
        None => ("under way".to_owned(), Tone::Notice),
        Some(outcome) if outcome.status == OutcomeStatus::Completed => match tone {
            Tone::Good => ("completed".to_owned(), Tone::Good),
            _ => (verdict.to_owned(), tone),
        },
        Some(outcome) => {
            let code = outcome.code.as_ref().map(|code| format!(" {code}")).unwrap_or_default();
            (format!("{}{code}", records::status_word(outcome.status)), Tone::Notice)
        }
    }
}

/// A time since the beginning, as long as it needs to be.
fn after(us: i64) -> String {
    let (seconds, milliseconds) = (us / 1_000_000, us % 1_000_000 / 1000);
    match seconds {
        0..60 => format!("+{seconds}.{milliseconds:03}"),
        60..3600 => format!("+{}:{:02}.{milliseconds:03}", seconds / 60, seconds % 60),
        _ => format!("+{}:{:02}:{:02}", seconds / 3600, seconds % 3600 / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_named_by_a_connection_or_a_record() {
        assert_eq!("c12".parse(), Ok(Named::Connection(ConnectionId(12))));
        assert_eq!("#7".parse(), Ok(Named::Record(RecordId(7))));
        assert!("r12".parse::<Named>().is_err());
        assert!("c".parse::<Named>().is_err());
    }

    #[test]
    fn times_since_the_beginning_are_short() {
        assert_eq!(after(0), "+0.000");
        assert_eq!(after(59_999_900), "+59.999");
        assert_eq!(after(61_001_000), "+1:01.001");
        assert_eq!(after(3_661_000_000), "+1:01:01");
    }
}
