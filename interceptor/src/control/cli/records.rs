//! Records in words: the lines of `audit tail`, the sections of `audit show`, the rows of an export. What is said here
//! comes from the record alone; whatever an agent or a server wrote is neutralised before it is shown.

use std::collections::{BTreeMap, BTreeSet};

use interceptor_core::{
    model::{
        Author, Effect, Entry, EventKind, EventRecord, MaskLayer, MaskRecord, OutcomeRecord, OutcomeStatus,
        Principal, RecordedRows, RequestRecord, RunId, Target, VerdictRecord, WouldBe,
    },
    policy::WOULD,
    text,
};

use super::output::{Failure, Printer, Tone, clock, when};
use crate::store::{FullRecord, Line};

/// So many sockets and datagrams the launcher tries in vain before it executes a run's command, at most.
const SELF_TEST: usize = 10;

/// One line of `audit tail`, not yet coloured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Brief {
    at: i64,
    number: String,
    mark: &'static str,
    tone: Tone,
    what: String,
    result: Option<(String, Tone)>,
}

impl Brief {
    /// The line, cut to `width` columns.
    pub(super) fn paint(&self, printer: &Printer, width: Option<usize>) -> String {
        let (clock, number, mark) =
            (clock(self.at), format!("{:>8}", self.number), format!("{:<8}", self.mark));
        let before = clock.chars().count() + number.chars().count() + mark.chars().count() + 3;
        let room = width.map_or(usize::MAX, |width| width.saturating_sub(before).max(20));
        let result = self.result.as_ref().map(|(text, tone)| (cut(&one_line(text), room / 2), *tone));
        let after = result.as_ref().map_or(0, |(text, _)| text.chars().count() + 3);
        let what = cut(&one_line(&self.what), room.saturating_sub(after));
        let mut line = format!(
            "{} {} {} {what}",
            printer.paint(&clock, Tone::Faint),
            printer.paint(&number, Tone::Faint),
            printer.paint(&mark, self.tone)
        );
        if let Some((text, tone)) = result {
            line.push_str(&printer.paint(&format!(" \u{2192} {text}"), tone));
        }
        line
    }
}

/// Entries as lines for people. Unless `all`: without the gate's own look-ups, with an outcome on its request's line,
/// and with refusals of the kernel that follow each other in one line.
pub(super) fn briefs(lines: &[Line], all: bool, gates: &mut BTreeSet<u64>) -> Vec<Brief> {
    if all {
        return lines.iter().map(alone).collect();
    }
    let mut shown: Vec<Brief> = Vec::new();
    let mut requests: BTreeMap<u64, usize> = BTreeMap::new();
    let mut crowd: Option<Crowd> = None;
    let mut begun = None;
    for line in lines {
        if let Entry::Event(event) = &line.entry
            && matches!(event.kind, EventKind::Kernel | EventKind::Probe)
        {
            let process = event.text.split(':').next().unwrap_or_default();
            match &mut crowd {
                Some(crowd) if crowd.has(event, process) => crowd.count += 1,
                _ => {
                    close(&mut shown, crowd.take());
                    shown.push(alone(line));
                    let at_start = event.run.is_some() && event.run == begun.take();
                    let process = process.to_owned();
                    crowd = Some(Crowd { run: event.run, kind: event.kind, process, count: 1, at_start });
                }
            }
            continue;
        }
        close(&mut shown, crowd.take());
        begun = match &line.entry {
            Entry::Event(event) if event.kind == EventKind::RunStarted => event.run,
            _ => None,
        };
        match &line.entry {
            Entry::Request(request) if request.author == Author::Gate => {
                gates.insert(line.seq);
            }
            Entry::Outcome(outcome) if gates.remove(&outcome.request.0) => {}
            Entry::Outcome(outcome) => match requests.get(&outcome.request.0).and_then(|i| shown.get_mut(*i))
            {
                Some(request) if outcome.status == OutcomeStatus::Refused => request.result = None,
                Some(request) => request.result = Some((ended(outcome), ended_tone(outcome.status))),
                None => shown.push(alone(line)),
            },
            Entry::Request(_) => {
                requests.insert(line.seq, shown.len());
                shown.push(alone(line));
            }
            Entry::Event(_) => shown.push(alone(line)),
        }
    }
    close(&mut shown, crowd);
    shown
}

/// Refusals of the kernel that follow each other.
struct Crowd {
    run: Option<RunId>,
    kind: EventKind,
    /// `process N`, as the events begin.
    process: String,
    count: usize,
    /// Whether they follow the run's start. Then they are its self-test's, made by its first process, which never
    /// becomes the agent's.
    at_start: bool,
}

impl Crowd {
    /// Whether another one belongs to it. What clients try by themselves hides nothing that is meant.
    fn has(&self, event: &EventRecord, process: &str) -> bool {
        self.run == event.run && self.process == process && (self.kind == event.kind || self.at_start)
    }
}

/// Says how many refusals of the kernel one line stands for.
fn close(shown: &mut [Brief], crowd: Option<Crowd>) {
    let (Some(crowd), Some(last)) = (crowd, shown.last_mut()) else { return };
    if crowd.at_start && crowd.count <= SELF_TEST {
        last.tone = Tone::Faint;
        let what = format!("{} in all, its own self-test", crowd.count);
        last.result = Some((what, Tone::Faint));
    } else if crowd.count > 1 {
        last.result = Some((format!("{} in all, --all lists them", crowd.count), Tone::Notice));
    }
}

fn alone(line: &Line) -> Brief {
    let (at, mark, tone, what) = match &line.entry {
        Entry::Request(request) => {
            let (mark, tone) = verdict_word(&request.verdict);
            (request.at, mark, tone, asked(request))
        }
        Entry::Outcome(outcome) => {
            let what = format!("{} {}", outcome.request, ended(outcome));
            (outcome.at, "ended", ended_tone(outcome.status), what)
        }
        Entry::Event(event) => {
            let (mark, tone) = event_word(event.kind);
            (event.at, mark, tone, event_text(event))
        }
    };
    let number = match line.sub {
        0 => line.seq.to_string(),
        sub => format!("{}.{sub}", line.seq),
    };
    Brief { at, number, mark, tone, what, result: None }
}

fn asked(request: &RequestRecord) -> String {
    let author = match request.author {
        Author::Agent => request.agent.name.as_str(),
        Author::Gate => "(gate)",
    };
    let resource = request.resource.as_ref().map_or("-", |name| name.as_str());
    format!("{author} {resource}  {}", statement(request))
}

/// The statement, or what is asked where there is none.
pub(super) fn statement(request: &RequestRecord) -> String {
    if !request.action.text.is_empty() {
        return request.action.text.to_string();
    }
    let asked = request.action.facts.effects.iter().map(|effect| match &effect.target {
        Target::Resource => effect.verb.as_str().to_owned(),
        target => format!("{} {}", effect.verb.as_str(), object(target)),
    });
    format!("[{}]", asked.collect::<Vec<_>>().join(", "))
}

/// Whether it went on, in a word.
pub(super) fn verdict_word(verdict: &VerdictRecord) -> (&'static str, Tone) {
    match (verdict.allowed, verdict.would_be) {
        (true, Some(WouldBe::Denied | WouldBe::Held)) => ("observed", Tone::Notice),
        (true, _) => ("allowed", Tone::Good),
        (false, _) => ("REFUSED", Tone::Bad),
    }
}

fn event_word(kind: EventKind) -> (&'static str, Tone) {
    match kind {
        EventKind::DaemonStarted | EventKind::DaemonStopped => ("daemon", Tone::Faint),
        EventKind::RunStarted | EventKind::RunEnded => ("run", Tone::Faint),
        EventKind::PolicyLoaded => ("policy", Tone::Faint),
        EventKind::Internal => ("internal", Tone::Faint),
        EventKind::Probe => ("probe", Tone::Faint),
        EventKind::Engine => ("engine", Tone::Faint),
        EventKind::ReleaseEnded => ("release", Tone::Notice),
        EventKind::Kept => ("KEPT", Tone::Bad),
        EventKind::KeptEnded => ("kept", Tone::Notice),
        EventKind::Recovered => ("recover", Tone::Notice),
        EventKind::Decided => ("approval", Tone::Notice),
        EventKind::Uncovered => ("uncovered", Tone::Notice),
        EventKind::Vouched => ("person", Tone::Notice),
        EventKind::Voided => ("approval", Tone::Faint),
        EventKind::GlassBroken => ("GLASS", Tone::Bad),
        EventKind::GlassMended | EventKind::GlassReviewed => ("glass", Tone::Notice),
        EventKind::RescueBegun => ("RESCUE", Tone::Bad),
        EventKind::RescueSaved | EventKind::RescueEnded => ("rescue", Tone::Notice),
        EventKind::LabelMoved => ("LABEL", Tone::Bad),
        EventKind::SecretFound => ("SECRET", Tone::Bad),
        EventKind::LabelForgotten => ("label", Tone::Notice),
        EventKind::RunFrozen => ("FROZEN", Tone::Bad),
        EventKind::RunThawed => ("run", Tone::Notice),
        EventKind::RunKilled => ("KILLED", Tone::Notice),
        EventKind::Released => ("RELEASED", Tone::Bad),
        EventKind::PolicyRefused => ("POLICY", Tone::Bad),
        EventKind::Kernel | EventKind::ConnectionRefused | EventKind::LaunchRefused => {
            ("refused", Tone::Notice)
        }
        EventKind::Belt => ("BELT", Tone::Bad),
        EventKind::ProtocolError => ("PROTOCOL", Tone::Bad),
        EventKind::Store => ("STORE", Tone::Bad),
    }
}

fn event_text(event: &EventRecord) -> String {
    let text = &event.text;
    let text = match event.kind {
        EventKind::DaemonStarted => format!("started, {text}"),
        EventKind::DaemonStopped => format!("stopped {text}"),
        EventKind::RunStarted => {
            format!("started in cgroup {}", text.split(" as ").next().unwrap_or(text))
        }
        EventKind::RunEnded => format!("ended: {text}"),
        EventKind::PolicyLoaded => format!("in force: {}", text.trim_start_matches("policy ")),
        EventKind::PolicyRefused => format!("not loaded: {text}"),
        EventKind::ReleaseEnded => format!("over, {text}"),
        EventKind::Kernel => format!("by the kernel: {text}"),
        EventKind::Probe => format!("refused, and done without: {text}"),
        _ => text.clone(),
    };
    match (&event.run, event.agent.as_ref()) {
        (Some(run), Some(agent)) => format!("{agent} {run}  {text}"),
        (Some(run), None) => format!("{run}  {text}"),
        _ => text,
    }
}

/// How an exchange ended, in words.
pub(super) fn ended(outcome: &OutcomeRecord) -> String {
    let mut parts = vec![status_word(outcome.status).to_owned()];
    parts
        .extend(outcome.rows.map(|rows| if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") }));
    parts.extend(outcome.latency_us.map(took));
    parts.extend(outcome.code.clone());
    parts.extend(outcome.message.clone());
    parts.join(", ")
}

/// A duration in words.
pub(super) fn took(us: u64) -> String {
    format!("{}.{} ms", us / 1000, us % 1000 / 100)
}

fn ended_tone(status: OutcomeStatus) -> Tone {
    match status {
        OutcomeStatus::Completed => Tone::Faint,
        OutcomeStatus::Refused => Tone::Bad,
        OutcomeStatus::Failed | OutcomeStatus::Skipped | OutcomeStatus::Unknown => Tone::Notice,
    }
}

/// An outcome in a word.
pub(super) fn status_word(status: OutcomeStatus) -> &'static str {
    match status {
        OutcomeStatus::Completed => "completed",
        OutcomeStatus::Failed => "failed",
        OutcomeStatus::Refused => "refused",
        OutcomeStatus::Skipped => "skipped",
        OutcomeStatus::Unknown => "unknown",
    }
}

/// An effect in words.
pub(super) fn describe(effect: &Effect) -> String {
    format!("{} on {}", effect.verb.as_str(), object(&effect.target))
}

fn object(target: &Target) -> String {
    match target {
        Target::Resource => "the resource".to_owned(),
        Target::Table(object) => format!("table {}", object.shown()),
        Target::Function(object) => format!("function {}", object.shown()),
        Target::Other { kind, name } => format!("{kind} {name}"),
        Target::Setting(name) => format!("setting {name}"),
        Target::Name(name) => format!("name {name}"),
        Target::Label(name) => format!("label {name}"),
        Target::Program(program) => format!("program {}", program.path),
        Target::Image(image) => format!("image {image}"),
    }
}

/// Text of any shape in one line: white space of any kind is one blank, and what cannot be seen is shown.
pub(super) fn one_line(text: &str) -> String {
    text::printable(&text.split_whitespace().collect::<Vec<_>>().join(" ")).into_owned()
}

/// At most `room` characters; what is left out is said by a sign.
pub(super) fn cut(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    text.chars().take(room.saturating_sub(1)).chain(std::iter::once('\u{2026}')).collect()
}

/// Everything about one record, in sections: what, who, why, result.
pub(super) fn show(printer: &Printer, record: &FullRecord) -> Result<(), Failure> {
    let request = &record.request;
    let (word, tone) = verdict_word(&request.verdict);
    printer.line(&format!(
        "record {}  {}  {}",
        record.id,
        printer.paint(word, tone),
        printer.paint(&when(request.at), Tone::Faint)
    ))?;
    what(printer, request)?;
    who(printer, request)?;
    why(printer, &request.verdict)?;
    masked(printer, request)?;
    printer.heading("RESULT")?;
    match &record.outcome {
        Some(outcome) => {
            printer.field("outcome", &ended(outcome))?;
            printer.field("bytes", &format!("{} sent back", outcome.bytes))?;
            let lines = outcome.recorded.as_ref().map(row_lines).unwrap_or_default();
            lines.iter().try_for_each(|(name, line)| printer.field(name, line))
        }
        None => printer.field("outcome", "not ended yet"),
    }
}

/// The rows that came, as they are recorded, and how many are not; each with its name.
pub(super) fn row_lines(recorded: &RecordedRows) -> Vec<(&'static str, String)> {
    let word =
        |value: &Option<String>| value.as_ref().map_or("NULL".to_owned(), |value| format!("{value:?}"));
    let line = |row: &Vec<Option<String>>| ("row", row.iter().map(word).collect::<Vec<_>>().join(" | "));
    let mut lines: Vec<_> = recorded.rows.iter().map(line).collect();
    if recorded.rows_left_out > 0 {
        lines.push(("left out", format!("{} rows that came are not recorded", recorded.rows_left_out)));
    }
    lines
}

/// How many rows are recorded, in words.
pub(super) fn rows_in_words(recorded: &RecordedRows) -> String {
    let left_out = match recorded.rows_left_out {
        0 => String::new(),
        rows => format!(", {rows} that came are not recorded"),
    };
    format!("{} recorded{left_out}", recorded.rows.len())
}

fn what(printer: &Printer, request: &RequestRecord) -> Result<(), Failure> {
    printer.heading("WHAT")?;
    if request.author == Author::Gate {
        printer.field("author", "the gate's own look-up, on the agent's connection")?;
    }
    if !request.action.text.is_empty() {
        printer.field("statement", &request.action.text)?;
    }
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
    if let Some(resource) = &request.resource {
        let Principal { user, claimed_user, database } = &request.principal;
        let on = if database.is_empty() { String::new() } else { format!(", database {database}") };
        printer.field("resource", &format!("{resource}{on}"))?;
        printer.field("logged in", &format!("as {user} (the agent said {claimed_user})"))?;
    }
    request.destination.as_ref().map_or(Ok(()), |to| printer.field("dialled", &to.to_string()))
}

fn who(printer: &Printer, request: &RequestRecord) -> Result<(), Failure> {
    printer.heading("WHO")?;
    let owner = request.agent.owner.as_ref().map_or("no owner".to_owned(), |owner| format!("owner {owner}"));
    printer.field("agent", &format!("{} ({owner}), run {}", request.agent.name, request.run))?;
    printer.field("guarantee", &format!("{:?}", request.guarantee).to_lowercase())?;
    let Some(process) = &request.process else { return Ok(()) };
    let executable = process.executable.as_deref().unwrap_or("?");
    printer.field("process", &format!("{} {} (uid {})", process.pid, executable, process.uid))?;
    if let Some(digest) = &process.digest {
        printer.field("sha256", &digest.to_string())?;
    }
    printer.field("argv", &one_line(&process.argv.join(" ")))?;
    for ancestor in &process.ancestry {
        printer.field("under", &format!("{} {}", ancestor.pid, one_line(&ancestor.argv.join(" "))))?;
    }
    Ok(())
}

fn why(printer: &Printer, verdict: &VerdictRecord) -> Result<(), Failure> {
    printer.heading("WHY")?;
    if verdict.rules.is_empty() {
        printer.field("rule", "none permits it, which is a no")?;
    }
    verdict.rules.iter().try_for_each(|rule| printer.field("rule", rule))?;
    let (because, permits) = mend(verdict);
    if !because.is_empty() {
        printer.field("because", &because)?;
    }
    permits.iter().try_for_each(|rule| printer.field("would allow", rule))?;
    if let Some(said) = &verdict.said {
        printer.field("agent read", said)?;
    }
    let mode = format!("{:?}", verdict.mode).to_lowercase();
    match verdict.would_be {
        Some(would_be) => {
            let would_be = format!("{would_be:?}").to_lowercase();
            let why = verdict.break_glass.map(|glass| format!(" by break-glass {glass}")).unwrap_or_default();
            printer.field("mode", &format!("{mode}{why}: enforced, it would have been {would_be}"))?;
        }
        None => printer.field("mode", &mode)?,
    }
    if let Some(rescue) = verdict.rescue {
        printer.field("rescue", &format!("{rescue}: by what was saved, not by what was configured"))?;
    }
    printer.field("policy", &verdict.policy)
}

/// What was hidden in the answer, and what would show it.
pub(super) fn masked(printer: &Printer, request: &RequestRecord) -> Result<(), Failure> {
    let resource = request.resource.as_ref().map_or("", |name| name.as_str());
    if request.verdict.tokens > 0 {
        let count = request.verdict.tokens;
        printer.field("tokens", &format!("{count} in it went to the server as what they stand for"))?;
    }
    for MaskRecord { label, by, at } in &request.verdict.masked {
        let how = match by {
            MaskLayer::Column if at.is_empty() => "columns that carry it come into the statement".to_owned(),
            MaskLayer::Column => {
                format!("columns that carry it at {} come into the statement", at.join(", "))
            }
            MaskLayer::Unknown => "what comes into the statement is not known".to_owned(),
            MaskLayer::Value => "values that look like it, wherever they stand".to_owned(),
        };
        printer.field("masked", &format!("{label}: {how}"))?;
        let agent = &request.agent.name;
        let rule = format!(
            "@id(\"{agent}-sees-{label}\") permit (principal == Agent::\"{agent}\", action == Action::\"see\", \
             resource is Label in Resource::\"{resource}\") when {{ resource.name == \"{label}\" }};"
        );
        printer.field("would show", &rule)?;
    }
    Ok(())
}

/// The reason of a verdict, taken apart: why, and the rules that would permit what none does.
pub(super) fn mend(verdict: &VerdictRecord) -> (String, Vec<String>) {
    const END: &str = ";";
    let mut because: Vec<&str> = Vec::new();
    let mut permits = Vec::new();
    let mut rest = verdict.reason.as_str();
    while let Some((before, after)) = rest.split_once(WOULD) {
        because.push(before);
        // A rule ends with the first semicolon outside of a string.
        let (mut quoted, mut escaped) = (false, false);
        let end = after.find(|c: char| {
            let ends = c == ';' && !quoted;
            quoted ^= c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let (rule, left) = after.split_at(end.map_or(after.len(), |end| end + END.len()));
        permits.push(rule.to_owned());
        rest = left.trim_start_matches([';', ' ']);
    }
    because.extend(Some(rest).filter(|rest| !rest.is_empty()));
    (because.join("\n"), permits)
}

/// The heading of a CSV export.
pub(super) const CSV_HEADING: &str =
    "record,at,author,run,agent,pid,resource,allowed,status,rows,code,rules,statement";

/// One record as a line of CSV; times as in UTC by RFC 3339.
pub(super) fn csv(record: &FullRecord) -> String {
    let request = &record.request;
    let outcome = record.outcome.as_ref();
    let author = match request.author {
        Author::Agent => "agent",
        Author::Gate => "gate",
    };
    [
        record.id.to_string(),
        jiff::Timestamp::from_microsecond(request.at).map(|at| at.to_string()).unwrap_or_default(),
        author.to_owned(),
        request.run.to_string(),
        request.agent.name.to_string(),
        request.process.as_ref().map(|process| process.pid.to_string()).unwrap_or_default(),
        request.resource.as_ref().map(ToString::to_string).unwrap_or_default(),
        request.verdict.allowed.to_string(),
        outcome.map(|outcome| status_word(outcome.status).to_owned()).unwrap_or_default(),
        outcome.and_then(|outcome| outcome.rows).map(|rows| rows.to_string()).unwrap_or_default(),
        outcome.and_then(|outcome| outcome.code.clone()).unwrap_or_default(),
        request.verdict.rules.join("; "),
        request.action.text.to_string(),
    ]
    .map(|field| quote(&field))
    .join(",")
}

/// A CSV field (RFC 4180) that no spreadsheet takes for a formula.
fn quote(field: &str) -> String {
    let field = text::printable(field);
    let guard = if field.trim_start().starts_with(['=', '+', '-', '@']) { "'" } else { "" };
    format!("\"{guard}{}\"", field.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use interceptor_core::model::{Mode, RecordId};

    use super::*;

    fn event(seq: u64, kind: EventKind) -> Line {
        let entry = Entry::Event(EventRecord {
            at: 0,
            run: None,
            agent: None,
            kind,
            text: format!("process 7: n{seq}"),
            attempt: None,
        });
        Line { seq, sub: 0, skipped: None, first_segment: None, entry }
    }

    fn outcome(seq: u64, request: u64) -> Line {
        let entry = Entry::Outcome(OutcomeRecord {
            at: 0,
            request: RecordId(request),
            status: OutcomeStatus::Completed,
            rows: Some(1),
            bytes: 0,
            latency_us: Some(1250),
            code: None,
            message: None,
            recorded: None,
        });
        Line { seq, sub: 0, skipped: None, first_segment: None, entry }
    }

    #[test]
    fn a_cell_is_no_formula() {
        for field in ["=1+1", "+1", "-1", "@x", " =1", "\t=1"] {
            assert!(quote(field).starts_with("\"'") || quote(field).starts_with("\"\\t"), "{field}");
        }
        assert_eq!(quote("say \"no\"\nSELECT"), "\"say \"\"no\"\"\\nSELECT\"");
    }

    #[test]
    fn a_statement_is_one_line() {
        assert_eq!(one_line("SELECT *\n\t FROM  users\r\n"), "SELECT * FROM users");
        assert_eq!(one_line("a\x1b[2Jb\u{202e}"), "a\\u{1b}[2Jb\\u{202e}");
        assert_eq!(cut("abcdef", 4), "abc\u{2026}");
        assert_eq!(cut("abcd", 4), "abcd");
    }

    #[test]
    fn refusals_of_the_kernel_share_a_line() {
        let lines: Vec<_> = [EventKind::RunStarted, EventKind::Kernel, EventKind::Kernel, EventKind::Kernel]
            .into_iter()
            .zip(1..)
            .map(|(kind, seq)| event(seq, kind))
            .collect();
        let shown = briefs(&lines, false, &mut BTreeSet::new());
        assert_eq!(shown.len(), 2);
        assert!(shown[1].result.as_ref().unwrap().0.starts_with("3 in all"));
        assert_eq!(briefs(&lines, true, &mut BTreeSet::new()).len(), 4);
    }

    #[test]
    fn what_the_agent_does_is_never_taken_for_the_self_test() {
        let of = |seq, kind, text: &str| {
            let run = Some("r0123456789".parse().unwrap());
            let entry = Entry::Event(EventRecord {
                at: 0,
                run,
                agent: None,
                kind,
                text: text.to_owned(),
                attempt: None,
            });
            Line { seq, sub: 0, skipped: None, first_segment: None, entry }
        };
        let lines = [
            of(1, EventKind::RunStarted, "x"),
            of(2, EventKind::Kernel, "process 7: a socket"),
            of(3, EventKind::Kernel, "process 7: a socket"),
            of(4, EventKind::Kernel, "process 8: a socket"),
        ];
        let shown = briefs(&lines, false, &mut BTreeSet::new());
        assert_eq!(shown.len(), 3);
        assert_eq!((shown[1].tone, shown[2].tone), (Tone::Faint, Tone::Notice));
    }

    #[test]
    fn an_outcome_without_its_request_is_shown_and_the_gates_is_not() {
        let mut gates = BTreeSet::from([4]);
        let shown = briefs(&[outcome(5, 4), outcome(7, 6)], false, &mut gates);
        assert_eq!(shown.len(), 1);
        assert_eq!(shown[0].what, "6 completed, 1 row, 1.2 ms");
        assert!(gates.is_empty());
    }

    #[test]
    fn a_reason_is_taken_apart() {
        let verdict = VerdictRecord {
            allowed: false,
            mode: Mode::Enforce,
            would_be: None,
            rules: Vec::new(),
            reason: "a: no rule permits it. This would: permit (x) when { n == \"q;\\\"r\" };; b: forbidden by `z` (f:3)"
                .to_owned(),
            said: None,
            policy: String::new(),
            held_for: Vec::new(),
                approval: None,
                break_glass: None,
                rescue: None,
                undo: None,
                masked: Vec::new(),
                tokens: 0,
        };
        let (because, permits) = mend(&verdict);
        assert_eq!(because, "a: no rule permits it\nb: forbidden by `z` (f:3)");
        assert_eq!(permits, ["permit (x) when { n == \"q;\\\"r\" };"]);
    }
}
