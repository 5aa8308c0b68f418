//! The part of `docs/performance.md` that is measured. What stands around it is written by hand and stays.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use super::{Report, goals, measured::Measured, plot, table};

const TASK: &str = "written by `cargo xtask bench --page`";

/// Parts that are rates of every target, with their headings.
const RATES: &[(&str, &str)] = &[
    ("throughput", "Short statements, everything on one core"),
    ("throughput-free", "Short statements, wherever the kernel puts everybody"),
    ("loads", "Other loads, everything on one core"),
    ("tls", "Short statements with TLS on both legs, everything on one core"),
];

/// Other parts, with their headings.
const TABLES: &[(&str, &str)] = &[
    ("large", "Large results"),
    ("connects", "New sessions"),
    ("idle", "Memory"),
    ("latency", "Latency at a fixed rate"),
    ("durability", "Records"),
    ("hook", "Hooks"),
    ("outside", "Bystanders"),
    ("launch", "Launches"),
    ("neighbour", "Beside an attack"),
];

/// All of it, as Markdown.
pub(crate) fn text(report: &Report) -> String {
    let Report { command, host, measured } = report;
    let mut text = format!("`{command}`, on:\n\n");
    for (name, fact) in host {
        text += &format!("- {name}: {}\n", fact.as_str().unwrap_or_default());
    }
    text += &format!("\n### Goals\n\n{}", goals::table(goals::GOALS, measured, "audit", "pgbouncer"));
    for (part, heading) in RATES {
        let tables = table::rates(measured, part);
        if !tables.is_empty() {
            text += &format!("\n### {heading}\n{tables}");
        }
    }
    for (part, heading) in TABLES {
        let table = table::plain(measured, part);
        if !table.is_empty() {
            text += &format!("\n### {heading}\n\n{table}");
        }
    }
    text
}

/// Puts it into the page, and its picture beside.
pub(crate) fn write(docs: &Path, text: &str, measured: &Measured) -> Result<()> {
    let path = docs.join("performance.md");
    let page = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    fs::write(&path, crate::page::with(&page, TASK, text)?)?;
    if let Some(picture) = plot::throughput(measured) {
        fs::write(docs.join("performance.svg"), picture)?;
    }
    Ok(())
}
