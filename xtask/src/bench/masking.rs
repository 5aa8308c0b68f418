//! What masking is meant to reach, and the part of `docs/masking.md` that is measured.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use super::{
    Report,
    goals::{self, Goal, goal},
    table,
};

/// The part of the bench.
pub(crate) const PART: &str = "masking";
const TASK: &str = "written by `cargo xtask bench masking --page`";

/// Who else is asked the same.
const PRESIDIO: Option<&str> = Some("presidio");
const MILLION: &str = "a million rows, one column masked";
const TABLE: &str = "B: a table of forty columns";

const GOALS: &[Goal] = &[
    goal(
        "A: masked recall",
        [0.95, 0.98],
        3,
        |m, t| m.middle(PART, "A: sentences", t, "masked recall"),
        PRESIDIO,
    ),
    goal(
        "A: typed precision",
        [0.95, 0.98],
        3,
        |m, t| m.middle(PART, "A: sentences", t, "typed precision"),
        PRESIDIO,
    ),
    goal(
        "C: false positives in 10 000 cells",
        [1.0, 0.1],
        2,
        |m, t| m.middle(PART, "C: cells of a business", t, "false positives"),
        PRESIDIO,
    ),
    goal(
        "D: masked recall",
        [0.95, 0.98],
        3,
        |m, t| m.middle(PART, "D: secrets", t, "masked recall"),
        PRESIDIO,
    ),
    goal(
        "B: labelled values that arrive, in text",
        [0.0, 0.0],
        0,
        |m, _| m.middle(PART, TABLE, "masked", "values leaked, text"),
        None,
    ),
    goal(
        "B: labelled values that arrive, in binary",
        [0.0, 0.0],
        0,
        |m, _| m.middle(PART, TABLE, "masked", "values leaked, binary"),
        None,
    ),
    goal(
        "a clean cell, ns",
        [50.0, 25.0],
        1,
        |m, _| m.middle(PART, "clean cells", "detectors", "time of a cell"),
        None,
    ),
    goal(
        "text through the proxy, no hit, MB/s of a core",
        [250.0, 600.0],
        0,
        |m, _| m.middle(PART, "no hit", "masked", "rate of a core"),
        None,
    ),
    goal(
        "the same, hits in 1 % of cells",
        [200.0, 450.0],
        0,
        |m, _| m.middle(PART, "1 % of cells with hits", "masked", "rate of a core"),
        None,
    ),
    goal(
        "a million rows, one column masked: rate, of the relay's",
        [0.5, 0.8],
        3,
        |m, _| m.ratio(PART, MILLION, "rate", ["masked", "relay"]),
        None,
    ),
    goal(
        "the proxy's growth by them, MiB",
        [16.0, 4.0],
        1,
        |m, _| m.middle(PART, MILLION, "masked", "growth"),
        None,
    ),
];

/// All of it, as Markdown.
pub(crate) fn text(report: &Report) -> String {
    let Report { command, host, measured } = report;
    let facts: Vec<String> =
        host.iter().map(|(name, fact)| format!("{name} {}", fact.as_str().unwrap_or_default())).collect();
    let goals = goals::table(GOALS, measured, "interceptor", "Presidio");
    let all = table::plain(measured, PART);
    format!(
        "`{command}`, on: {}.\n\n{goals}\n<details><summary>All of it</summary>\n\n{all}\n</details>\n",
        facts.join("; ")
    )
}

/// Puts it into the page.
pub(crate) fn write(docs: &Path, text: &str) -> Result<()> {
    let path = docs.join("masking.md");
    let page = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    Ok(fs::write(&path, crate::page::with(&page, TASK, text)?)?)
}
