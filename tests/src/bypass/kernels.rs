//! What ways around came to on other kernels: told by a program in a machine that runs one, put side by side here.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::{
    Facts, Mode, Outcome, Report, Tried,
    catalogue::{ROWS, Row},
    judge::State,
    page::{self, Lsm},
};

/// A kernel's reports, as they travel. Ways and attempts are in the catalogue's order, which both ends were built with.
#[derive(Debug, Serialize, Deserialize)]
pub struct Account {
    kernel: String,
    machine: String,
    lsm: Lsm,
    reports: Vec<Told>,
}

/// A mode's report.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    mode: Mode,
    late: usize,
    /// What each attempt came to, and whether it got through by itself.
    attempts: Vec<(Vec<State>, Vec<bool>)>,
}

impl Account {
    /// Of this kernel.
    pub fn of(facts: Facts, reports: &[Report]) -> Self {
        let told = |report: &Report| {
            let tried = report.outcomes.iter().flat_map(|outcome| &outcome.tried);
            let attempts = tried.map(|one| (one.states.clone(), one.by_itself.clone())).collect();
            Told { mode: report.mode, late: report.late, attempts }
        };
        let Facts { kernel, machine, lsm } = facts;
        Self { kernel, machine, lsm, reports: reports.iter().map(told).collect() }
    }

    /// The first two numbers of the kernel's version, by which people know it, and whether it calls LSM programs.
    fn short(&self) -> String {
        let version = self.kernel.split(['.', '-']).take(2).collect::<Vec<_>>().join(".");
        format!("{version} {}", self.lsm.words())
    }

    fn report(&self, mode: Mode) -> Option<Report> {
        let told = self.reports.iter().find(|told| told.mode == mode)?;
        Some(told.report().expect("an account of the same catalogue"))
    }
}

impl Told {
    fn report(&self) -> Option<Report> {
        let mut attempts = self.attempts.iter().cloned();
        let outcomes = ROWS.iter().map(|row| {
            let tried = row.attempts.iter().map(|attempt| {
                let (states, by_itself) = attempts.next()?;
                Some(Tried { attempt, states, by_itself })
            });
            Some(Outcome { row, tried: tried.collect::<Option<_>>()? })
        });
        Some(Report { mode: self.mode, outcomes: outcomes.collect::<Option<_>>()?, late: self.late })
    }
}

/// A table for each mode, as Markdown: each way on each kernel. A kernel may have an account for each mode.
///
/// # Panics
///
/// Where an account is of another catalogue than this one.
pub fn tables(accounts: &[Account]) -> String {
    let name = |one: &Account| format!("{}, {}, {}", one.kernel, one.machine, one.lsm.words());
    let mut named: Vec<_> = accounts.iter().map(name).collect();
    named.dedup();
    let mut text = format!("Linux {}.\n", named.join("; Linux "));
    for mode in Mode::ALL {
        let reports: Vec<(String, Report)> =
            accounts.iter().filter_map(|one| Some((one.short(), one.report(mode)?))).collect();
        if reports.is_empty() {
            continue;
        }
        let _ = write!(text, "\n### {}, on other kernels\n\n| # | way around |", mode.heading());
        for (kernel, _) in &reports {
            let _ = write!(text, " {kernel} |");
        }
        text += " closed by | how it showed |\n|---|---|---|---|";
        text += &"---|".repeat(reports.len());
        text.push('\n');
        for (place, row) in ROWS.iter().enumerate() {
            text += &line(mode, row, place, &reports);
        }
        for (kernel, report) in &reports {
            let _ = write!(text, "\n{kernel}: {}", page::sum(report));
        }
        text.push('\n');
    }
    text + page::ROOT_ALONE + "\n"
}

/// A way, and what it came to on each kernel.
fn line(mode: Mode, row: &Row, place: usize, reports: &[(String, Report)]) -> String {
    let mut line = format!("| {} | {} |", row.number, row.way);
    let outcomes: Vec<(&str, &Outcome)> =
        reports.iter().map(|(kernel, report)| (kernel.as_str(), &report.outcomes[place])).collect();
    for (_, outcome) in &outcomes {
        let _ = write!(line, " {} |", page::outcome_word(outcome));
    }
    let shown: Vec<page::Shown> = outcomes.iter().map(|(_, outcome)| page::shown(mode, outcome)).collect();
    let labelled = |text: fn(&page::Shown) -> String| {
        let mut by_text: Vec<(String, Vec<&str>)> = Vec::new();
        for (shown, (kernel, _)) in shown.iter().zip(&outcomes) {
            let text = text(shown);
            match by_text.iter_mut().find(|(known, _)| *known == text) {
                Some((_, kernels)) => kernels.push(kernel),
                None => by_text.push((text, vec![kernel])),
            }
        }
        let alone = by_text.len() == 1;
        let parts = by_text
            .into_iter()
            .filter(|(text, _)| !text.is_empty())
            .map(|(text, kernels)| if alone { text } else { format!("{}: {text}", kernels.join(", ")) });
        parts.collect::<Vec<_>>().join(" **/** ")
    };
    let by = labelled(|shown| shown.by.clone());
    let evidence = labelled(|shown| shown.evidence.clone());
    let _ = writeln!(line, " {by} | {evidence} |");
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A report in which every attempt came to `state`.
    fn all(mode: Mode, state: &State) -> Report {
        let outcomes = ROWS.iter().map(|row| {
            let count = mode.identities().len();
            let tried = row.attempts.iter().map(|attempt| Tried {
                attempt,
                states: vec![state.clone(); count],
                by_itself: vec![true; count],
            });
            Outcome { row, tried: tried.collect() }
        });
        Report { mode, outcomes: outcomes.collect(), late: 0 }
    }

    fn account(kernel: &str, state: &State) -> String {
        let facts = Facts { kernel: kernel.to_owned(), machine: "m".to_owned(), lsm: Lsm::Called };
        let account = Account::of(facts, &[all(Mode::Launched, state), all(Mode::Attached, state)]);
        serde_json::to_string(&account).expect("an account is JSON")
    }

    #[test]
    fn a_table_says_where_each_way_is_closed() {
        let closed = State::Closed { by: "hook".into(), evidence: "EPERM".into() };
        let open = State::Open { evidence: "done".into() };
        let read = |text: String| serde_json::from_str::<Account>(&text).expect("an account");
        let text = tables(&[read(account("6.1.0-9-x", &closed)), read(account("6.12.1+x", &open))]);
        assert!(text.starts_with("Linux 6.1.0-9-x, m, with LSM; Linux 6.12.1+x, m, with LSM.\n"), "{text}");
        let line = text.lines().find(|line| line.starts_with("| 2 |")).expect("a line each");
        assert_eq!(
            line,
            "| 2 | MPTCP | closed | **open** | 6.1 with LSM: hook | 6.1 with LSM: mptcp: EPERM **/** 6.12 with LSM: mptcp: \
             **open**: done |"
        );
        let text = tables(&[read(account("6.1.0-9-x", &closed)), read(account("6.12.1+x", &closed))]);
        assert!(text.contains("| 2 | MPTCP | closed | closed | hook | mptcp: EPERM |"), "{text}");
    }
}
