//! Holds what `interceptor-core` reads in SQL against PostgreSQL's own parser, over a folder of SQL files:
//!
//!     interceptor-oracle FOLDER
//!
//! `cargo xtask oracle` builds it and runs it over all the SQL that PostgreSQL's source package tests with.
//!
//! Each statement that PostgreSQL's parser accepts either is unknown to us, or means the same: its kind, and every
//! relation and function that it names. What the parser knows and we miss is a fault, unless it is listed here.

use std::{collections::BTreeMap, fs, path::Path, process::ExitCode};

use anyhow::{Context as _, Result};
use interceptor_core::sql::{analyze, compare};
use interceptor_second_opinion::read;

/// What came of one statement.
enum Finding {
    Agrees,
    /// We say that we do not know.
    Unknown(String),
    /// We say less than there is.
    Misses(String),
}

fn main() -> Result<ExitCode> {
    let folder =
        std::env::args().nth(1).context("which folder of SQL files? usage: interceptor-oracle FOLDER")?;
    let (mut agrees, mut missed) = (0_usize, Vec::new());
    let mut unknown: BTreeMap<String, usize> = BTreeMap::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("{folder} cannot be read"))? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "sql") {
            continue;
        }
        let texts = statements(&path)?;
        for text in texts.iter().flat_map(|text| apart(text)) {
            // PostgreSQL's own refusals are no part of this.
            if pg_query::parse(&text, pg_query::ParserOptions::default()).is_err() {
                continue;
            }
            match held_against(&text) {
                Finding::Agrees => agrees += 1,
                Finding::Unknown(why) => *unknown.entry(why).or_default() += 1,
                Finding::Misses(what) => missed.push(format!("{}: {what}: {text}", path.display())),
            }
        }
    }
    let unsure: usize = unknown.values().sum();
    println!("{agrees} agree, {unsure} are unknown to us, {} say less than there is", missed.len());
    let mut reasons: Vec<_> = unknown.into_iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    reasons.iter().take(20).for_each(|(why, count)| println!("  unknown {count}: {why}"));
    missed.iter().for_each(|line| println!("  MISSED {line}"));
    Ok(if missed.is_empty() && agrees > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The statements of a file for `psql`, without its own commands and without the data behind COPY.
fn statements(path: &Path) -> Result<Vec<String>> {
    let bytes = fs::read(path)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut found = Vec::new();
    let mut rest = String::new();
    let mut data = false;
    for line in text.lines() {
        if data {
            data = line != "\\.";
        } else if line.starts_with('\\') {
            found.extend(split(&std::mem::take(&mut rest)));
        } else {
            rest.push_str(line);
            rest.push('\n');
            let lower = line.to_ascii_lowercase();
            data = lower.contains("from stdin") && lower.trim_end().ends_with(';');
        }
    }
    found.extend(split(&rest));
    Ok(found)
}

fn split(text: &str) -> Vec<String> {
    match pg_query::split_with_scanner(text) {
        Ok(parts) => parts.into_iter().map(str::to_owned).collect(),
        Err(_) => text.split(";\n").map(str::to_owned).collect(),
    }
}

/// The statements of a text that could only be split roughly.
fn apart(text: &str) -> Vec<String> {
    let parsed = pg_query::parse(text, pg_query::ParserOptions::default());
    let several = parsed.map(|parsed| parsed.protobuf.stmts).unwrap_or_default();
    if several.len() < 2 {
        return vec![text.to_owned()];
    }
    // The last one has no length.
    let end = |length: i32, begin: usize| if length == 0 { text.len() } else { begin + length as usize };
    let range = |begin: i32, length: i32| begin as usize..end(length, begin as usize);
    several
        .iter()
        .filter_map(|one| text.get(range(one.stmt_location, one.stmt_len)))
        .map(str::to_owned)
        .collect()
}

fn held_against(text: &str) -> Finding {
    let statements = match analyze(text) {
        Ok(statements) => statements,
        Err(why) => return Finding::Unknown(general(&why.0)),
    };
    if let Some(why) = statements.iter().find_map(|statement| statement.unknown.as_ref()) {
        return Finding::Unknown(general(&why.0));
    }
    match compare(&statements, &read(text)) {
        Ok(()) => Finding::Agrees,
        Err(why) => Finding::Misses(why.0),
    }
}

/// A reason without what it quotes.
fn general(why: &str) -> String {
    why.split(|c: char| c.is_ascii_digit() || c == '"').next().unwrap_or_default().to_owned()
}
