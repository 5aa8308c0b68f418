//! The table of what was tried.

use std::fmt::Write as _;

use interceptor::kernel::layer;
use serde::{Deserialize, Serialize};

use super::{Mode, Outcome, Report, judge::State};

/// Where and when it was tried.
#[derive(Debug)]
pub struct Facts {
    /// The kernel.
    pub kernel: String,
    /// The machine.
    pub machine: String,
    /// Whether LSM programs are called.
    pub lsm: Lsm,
}

/// Whether the kernel calls LSM programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lsm {
    /// It does.
    Called,
    /// It does not.
    NotCalled,
}

impl Lsm {
    /// In words.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Called => "with LSM",
            Self::NotCalled => "without LSM",
        }
    }
}

impl Facts {
    /// Of this host.
    pub fn find() -> Self {
        let name = nix::sys::utsname::uname().expect("uname");
        let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
        let lsm = if layer::is_called().is_ok() { Lsm::Called } else { Lsm::NotCalled };
        Self { kernel: text(name.release()), machine: text(name.machine()), lsm }
    }
}

/// The table, as Markdown, with a sum.
pub fn text(report: &Report, facts: &Facts) -> String {
    let Facts { kernel, machine, lsm } = facts;
    let mut text = format!("Linux {kernel}, {machine}, {}.\n\n| # | way around |", lsm.words());
    let identities = report.mode.identities();
    for identity in identities {
        let _ = write!(text, " {} |", identity.name);
    }
    text += " closed by | how it showed |\n|---|---|---|---|";
    text += &"---|".repeat(identities.len());
    text.push('\n');
    for outcome in &report.outcomes {
        text += &line(report.mode, outcome);
    }
    let _ = write!(text, "\n{}\n{ROOT_ALONE}\n", sum(report));
    text
}

/// What the mark means.
pub(super) const ROOT_ALONE: &str = "\n\u{2020} without capture, only root gets through.";

/// How many ways came to what, in a line.
pub(super) fn sum(report: &Report) -> String {
    let (mut closed, mut open, mut other) = (0, 0, 0);
    for outcome in &report.outcomes {
        match outcome_word(outcome) {
            "closed" => closed += 1,
            "**open**" => open += 1,
            _ => other += 1,
        }
    }
    let frames = if report.late == 0 { "No frame" } else { "**Frames**" };
    let attempts: usize = report.outcomes.iter().map(|outcome| outcome.tried.len()).sum();
    format!(
        "{} ways: {closed} closed, {open} open, {other} not to be tried or not on this host. {attempts} attempts, each as {} \
         users. {frames} reached the world besides those of open ways.",
        report.outcomes.len(),
        report.mode.identities().len(),
    )
}

/// The worst of a way's states, over all identities.
pub(super) fn outcome_word(outcome: &Outcome) -> &'static str {
    worst(outcome.tried.iter().flat_map(|one| &one.states))
}

fn worst<'a>(states: impl Iterator<Item = &'a State>) -> &'static str {
    let mut word = "-";
    for state in states {
        match state {
            State::Open { .. } => return "**open**",
            State::Closed { .. } => word = "closed",
            State::Absent { .. } => {}
        }
    }
    word
}

fn line(mode: Mode, outcome: &Outcome) -> String {
    let Outcome { row, tried } = outcome;
    let mut line = format!("| {} | {} |", row.number, row.way);
    for number in 0..mode.identities().len() {
        let states = tried.iter().filter_map(|one| one.states.get(number));
        let _ = write!(line, " {} |", worst(states));
    }
    let Shown { by, evidence } = shown(mode, outcome);
    let _ = writeln!(line, " {by} | {evidence} |");
    line
}

/// What is told of a way.
pub(super) struct Shown {
    /// What closed it.
    pub(super) by: String,
    /// How that showed.
    pub(super) evidence: String,
}

/// What is told of a way, over all identities.
pub(super) fn shown(mode: Mode, Outcome { row, tried }: &Outcome) -> Shown {
    let identities = mode.identities();
    let mut means: Vec<&str> = Vec::new();
    let mut shown: Vec<String> = Vec::new();
    for one in tried {
        let mut by_evidence: Vec<(String, Vec<&str>)> = Vec::new();
        for ((identity, state), by_itself) in identities.iter().zip(&one.states).zip(&one.by_itself) {
            let evidence = match state {
                State::Closed { by, evidence } => {
                    if !means.contains(&by.as_str()) {
                        means.push(by);
                    }
                    let root = if *by_itself { "" } else { "\u{2020}" };
                    format!("{evidence}{root}")
                }
                State::Absent { evidence } => evidence.clone(),
                State::Open { evidence } => format!("**open**: {evidence}"),
            };
            match by_evidence.iter_mut().find(|(known, _)| *known == evidence) {
                Some((_, names)) => names.push(identity.name),
                None => by_evidence.push((evidence, vec![identity.name])),
            }
        }
        let everybody = by_evidence.len() == 1;
        let parts: Vec<String> = by_evidence
            .into_iter()
            .map(
                |(evidence, names)| {
                    if everybody { evidence } else { format!("{evidence} [{}]", names.join("; ")) }
                },
            )
            .collect();
        let at = place(one.attempt.at);
        shown.push(format!("{}{at}: {}", one.attempt.name, parts.join(", ")));
    }
    if !mode.said(row).is_empty() {
        shown.push(mode.said(row).to_owned());
    }
    Shown { by: means.join("; "), evidence: shown.join("; ").replace('|', "\\|").replace('\n', " ") }
}

/// Where a Unix socket lies, in words.
fn place(at: super::catalogue::Aim) -> &'static str {
    use super::catalogue::{Aim, Door};
    match at {
        Aim::Door(Door::Run) => " in /run",
        Aim::Door(Door::RunLater) => " in /run, made later",
        Aim::Door(Door::TmpLater) => " in /tmp, made later",
        Aim::Door(Door::Shared) => " in the work folder",
        Aim::Door(Door::SharedLater) => " in the work folder, made later",
        Aim::Door(Door::Abstract) => ", abstract",
        Aim::Door(Door::Control) => " to the operators' socket",
        Aim::Door(Door::Launch) => " to the launchers' socket",
        _ => "",
    }
}
