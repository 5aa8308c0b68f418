//! `policy replay`: past exchanges judged again under a candidate policy.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use interceptor_core::{
    model::{RunId, WouldBe},
    policy::{Change, LastHour, Policy, Replayed, replay as judge, spent},
};

use super::{
    audit,
    output::{Failure, Printer, Tone},
    past::Past,
    records,
};
use crate::{
    config::{Folder, Trust},
    places::Places,
    store::FullRecord,
};

/// What the record does not tell, so that a rule which reads it may come out differently.
const NOT_TOLD: [&str; 4] = ["launcher_user", "sha256", "approvals", "person"];

/// How long what was spent counts, in microseconds.
const HOUR_US: i64 = 3_600_000_000;

/// Arguments of `policy replay`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The folder of the candidate policy.
    folder: PathBuf,
    #[command(flatten)]
    past: Past,
    /// How many changes to list at most.
    #[arg(short = 'n', long, default_value_t = 50)]
    limit: usize,
}

/// What came out.
#[derive(Default)]
struct Sums {
    judged: u64,
    not_judged: u64,
    /// What each run had spent so far.
    spent: HashMap<RunId, LastHour>,
    changed: BTreeMap<(&'static str, &'static str), u64>,
}

/// `interceptor policy replay`
pub(super) fn replay(places: &Places, printer: &Printer, options: &Options) -> Result<ExitCode, Failure> {
    let folder = Folder::read(&options.folder, Trust::Candidate).map_err(|error| Failure::of(&error))?;
    let policy = super::policy::load(&folder)?;
    let reader = audit::open(places)?;
    let mut filter = options.past.filter();
    let since = filter.since;
    // What was spent in the hour before counts.
    filter.since = since.map(|since| since.saturating_sub(HOUR_US));
    let mut sums = Sums::default();
    let mut rows = Vec::new();
    let mut frame: Vec<FullRecord> = Vec::new();
    let mut ended = |frame: &mut Vec<FullRecord>| -> Result<(), Failure> {
        let wanted = frame.first().is_some_and(|first| since.is_none_or(|since| first.request.at >= since));
        if wanted && let Some((record, change)) = sums.add(&policy, frame) {
            if printer.is_json() {
                printer.json(&json(record, &change))?;
            } else if rows.len() < options.limit {
                rows.push(row(record, &change));
            }
        }
        sums.count(frame);
        frame.clear();
        Ok(())
    };
    for record in reader.export(&filter) {
        let record = record.map_err(|error| Failure::of(&error))?;
        if !frame.last().is_some_and(|last| follows(last, &record)) {
            ended(&mut frame)?;
        }
        frame.push(record);
    }
    ended(&mut frame)?;
    sums.report(printer, &policy, rows)?;
    Ok(if sums.changed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Whether `next` is the next statement of the same frame.
fn follows(last: &FullRecord, next: &FullRecord) -> bool {
    let (one, other) = (&last.request, &next.request);
    one.connection == other.connection
        && one.frame_sha256 == other.frame_sha256
        && one.place.1 == other.place.1
        && one.place.0.checked_add(1) == Some(other.place.0)
}

fn word(verdict: WouldBe) -> &'static str {
    match verdict {
        WouldBe::Allowed => "allowed",
        WouldBe::Denied => "refused",
        WouldBe::Held => "held",
    }
}

fn tone(verdict: WouldBe) -> Tone {
    match verdict {
        WouldBe::Allowed => Tone::Good,
        WouldBe::Denied => Tone::Bad,
        WouldBe::Held => Tone::Notice,
    }
}

fn rules(change: &Change) -> String {
    match change.rules.as_slice() {
        [] => "no rule permits it".to_owned(),
        rules => rules.iter().map(|rule| rule.id.as_str()).collect::<Vec<_>>().join(", "),
    }
}

fn row(record: &FullRecord, change: &Change) -> Vec<(String, Tone)> {
    let statement = records::one_line(&records::statement(&record.request));
    vec![
        (record.id.to_string(), Tone::Plain),
        (record.request.agent.name.to_string(), Tone::Plain),
        (word(change.before).to_owned(), tone(change.before)),
        (word(change.after).to_owned(), tone(change.after)),
        (format!("{}: {}", rules(change), records::cut(&statement, 120)), Tone::Plain),
    ]
}

fn json(record: &FullRecord, change: &Change) -> serde_json::Value {
    let rules: Vec<_> =
        change.rules.iter().map(|rule| format!("{} ({}:{})", rule.id, rule.file, rule.line)).collect();
    serde_json::json!({
        "record": record.id, "agent": record.request.agent.name, "resource": record.request.resource,
        "statement": records::statement(&record.request), "before": word(change.before),
        "after": word(change.after), "rules": rules, "reason": change.reason,
    })
}

impl Sums {
    /// Judges a frame; gives what changed, with the statement that decides.
    fn add<'f>(&mut self, policy: &Policy, frame: &'f [FullRecord]) -> Option<(&'f FullRecord, Change)> {
        let requests: Vec<_> = frame.iter().map(|record| &record.request).collect();
        let first = requests.first()?;
        let hour = self.spent.entry(first.run).or_default();
        match judge(policy, &requests, hour.total(first.at / 1_000_000)) {
            Replayed::NotJudged => self.not_judged += 1,
            Replayed::Same(_) => self.judged += 1,
            Replayed::Changed(change) => {
                self.judged += 1;
                *self.changed.entry((word(change.before), word(change.after))).or_default() += 1;
                return frame.get(change.place).map(|record| (record, change));
            }
        }
        None
    }

    /// What the frame spent counts for those behind it.
    fn count(&mut self, frame: &[FullRecord]) {
        for record in frame {
            let request = &record.request;
            let hour = self.spent.entry(request.run).or_default();
            hour.add(request.at / 1_000_000, spent::of_record(request, record.outcome.as_ref()));
        }
    }

    fn report(
        &self,
        printer: &Printer,
        policy: &Policy,
        rows: Vec<Vec<(String, Tone)>>,
    ) -> Result<(), Failure> {
        let changed: u64 = self.changed.values().sum();
        let unsure = policy.reading(&NOT_TOLD);
        if printer.is_json() {
            let changes: Vec<_> = self
                .changed
                .iter()
                .map(|((before, after), count)| serde_json::json!({ "before": before, "after": after, "count": count }))
                .collect();
            return printer.json(&serde_json::json!({
                "judged": self.judged, "not_judged": self.not_judged, "changed": changed, "changes": changes,
                "unsure_rules": unsure.iter().map(|rule| rule.rule.id.as_str()).collect::<Vec<_>>(),
            }));
        }
        let listed = u64::try_from(rows.len()).unwrap_or(u64::MAX);
        if !rows.is_empty() {
            printer.table(&["record", "agent", "was", "now", "by, and what"], rows)?;
        }
        if changed > listed {
            printer.line(&format!("and {} more: -n lists them", changed - listed))?;
        }
        for rule in unsure {
            let name = &rule.rule.id;
            let what = "reads what the record does not tell (launcher, approvals, or the unredacted text)";
            printer.line(&printer.paint(&format!("rule `{name}` {what}"), Tone::Notice))?;
        }
        for ((before, after), count) in &self.changed {
            printer.line(&format!("{count} {before} then, {after} now"))?;
        }
        let not = if self.not_judged > 0 {
            format!(", {} that policy was not asked about", self.not_judged)
        } else {
            String::new()
        };
        let (text, tone) = match changed {
            0 => (format!("{} exchanges judged again{not}: nothing changes", self.judged), Tone::Good),
            _ => (format!("{} exchanges judged again{not}: {changed} change", self.judged), Tone::Notice),
        };
        printer.line(&printer.paint(&text, tone))
    }
}
