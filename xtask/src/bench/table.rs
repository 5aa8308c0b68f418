//! Tables of what was measured, in Markdown, which reads well on a terminal too.

use std::fmt::Write;

use super::measured::{Measured, Middle};

/// What every rate and every processor time is divided by.
const BASE: &str = "relay";

/// What calls take with LSM programs and without, and the ratio of their rates.
pub(crate) fn layer(measured: &Measured) -> String {
    const PART: &str = "layer";
    let mut rows =
        vec![["who", "call", "without, ns", "with, ns", "rate with, of without"].map(str::to_owned)];
    for load in measured.names(PART, |one| &one.load) {
        for call in measured.names(PART, |one| &one.quantity) {
            let middle = |target| number(measured.middle(PART, load, target, call), 0);
            let ratio = with_spread(measured.ratio(PART, load, call, ["without", "with"]), 3);
            rows.push([load.to_owned(), call.to_owned(), middle("without"), middle("with"), ratio]);
        }
    }
    aligned(&rows)
}

/// What `part` measured as rates: a table for each load, a row for each target.
pub(crate) fn rates(measured: &Measured, part: &str) -> String {
    let mut text = String::new();
    let targets = measured.names(part, |one| &one.target);
    for load in measured.names(part, |one| &one.load) {
        let _ = writeln!(text, "\n**{load}**\n");
        let mut rows = vec![
            [
                "by way of",
                "1/s",
                "of direct",
                "of relay",
                "proxy us/tx",
                "of relay's",
                "keeper us/tx",
                "calls/tx",
                "keeper's",
            ]
            .map(str::to_owned),
        ];
        for target in &targets {
            let middle = |quantity| measured.middle(part, load, target, quantity);
            let ratio = |quantity, to| measured.ratio(part, load, quantity, [target, to]);
            rows.push([
                (*target).to_owned(),
                number(
                    middle("rate"),
                    middle("rate").map_or(0, |rate| if rate.median < 100.0 { 2 } else { 0 }),
                ),
                number(ratio("rate", "direct"), 3),
                with_spread(ratio("rate", BASE), 3),
                number(middle("processor proxy"), 1),
                number(ratio("processor proxy", BASE), 2),
                number(middle("processor keeper"), 1),
                number(middle("system calls proxy"), 2),
                number(middle("system calls keeper"), 2),
            ]);
        }
        text += &aligned(&rows);
    }
    text
}

/// Whatever a part measured, a row for each quantity.
pub(crate) fn plain(measured: &Measured, part: &str) -> String {
    let mut rows = vec![["what", "by way of", "quantity", "median", "spread", "unit"].map(str::to_owned)];
    for one in measured.part(part) {
        let Some(Middle { median, spread }) = Middle::of(one.values.clone()) else { continue };
        let decimals = if median >= 1000.0 { 0 } else { 2 };
        rows.push([
            one.load.clone(),
            one.target.clone(),
            one.quantity.clone(),
            format!("{median:.decimals$}"),
            format!("{spread:.decimals$}"),
            one.unit.clone(),
        ]);
    }
    if rows.len() == 1 { String::new() } else { aligned(&rows) }
}

/// The median; nothing where there is none.
fn number(middle: Option<Middle>, decimals: usize) -> String {
    middle.map_or_else(String::new, |middle| format!("{:.decimals$}", middle.median))
}

fn with_spread(middle: Option<Middle>, decimals: usize) -> String {
    middle.map_or_else(String::new, |Middle { median, spread }| {
        format!("{median:.decimals$} ±{spread:.decimals$}")
    })
}

/// Rows with their columns below each other, the first one the head.
pub(crate) fn aligned<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..COLUMNS).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (cell, &width) in row.iter().zip(&widths) {
            let _ = write!(text, "| {cell:width$} ");
        }
        text += "|\n";
        if number == 0 {
            widths.iter().for_each(|width| text += &format!("|{:-<1$}", "", width + 2));
            text += "|\n";
        }
    }
    text
}
