//! `policy suggest`: rules from what was observed.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::OpenOptions,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use interceptor_core::{
    inventory::Source,
    policy::{Policy, Suggest, Suggestion},
    text,
};

use super::{
    audit,
    output::{Failure, Printer, Tone},
    past::Past,
    policy::Where,
};
use crate::{config::Folder, places::Places};

/// How the suggested rules are called where they are not written to a file.
const NAME: &str = "suggested.cedar";

/// Arguments of `policy suggest`.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    folder: Where,
    #[command(flatten)]
    past: Past,
    /// Also what was refused at the time because nothing permitted it.
    #[arg(long)]
    refused: bool,
    /// Write the rules into this file and the expected verdicts beside it; nothing is overwritten.
    #[arg(long, value_name = "FILE.cedar")]
    write: Option<PathBuf>,
}

/// `interceptor policy suggest`
pub(super) fn suggest(places: &Places, printer: &Printer, options: &Options) -> Result<ExitCode, Failure> {
    let mut folder = super::policy::read(places, &options.folder)?;
    let policy = super::policy::load(&folder)?;
    let mut suggestion = gather(places, &policy, options)?;
    let rules = heading(&suggestion) + suggestion.rules.trim_end() + "\n";
    let name = options.write.as_deref().map_or(NAME.to_owned(), |path| path.display().to_string());
    prove(&mut folder, &mut suggestion, Source { file: name, text: rules.clone() })?;
    let rules = heading(&suggestion) + suggestion.rules.trim_end() + "\n";
    let nothing = suggestion.count == 0;
    if let Some(path) = options.write.as_deref().filter(|_| !nothing) {
        let written = write(path, &rules, &suggestion.expectations)?;
        report(printer, &suggestion, &written)?;
    } else if printer.is_json() {
        report(printer, &suggestion, &[])?;
    } else {
        rules.lines().try_for_each(|line| printer.line(line))?;
        for table in suggestion.expectations.values() {
            printer.line("\n// Expected verdicts, for a *.expect.toml beside it:\n//")?;
            table.lines().try_for_each(|line| printer.line(format!("// {line}").trim_end()))?;
        }
    }
    Ok(if nothing { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn gather(places: &Places, policy: &Policy, options: &Options) -> Result<Suggestion, Failure> {
    let reader = audit::open(places)?;
    let filter = options.past.filter();
    let mut suggest = Suggest::new(policy);
    for record in reader.export(&filter) {
        let record = record.map_err(|error| Failure::of(&error))?;
        if record.request.verdict.allowed || options.refused {
            suggest.see(record.id, &record.request);
        } else {
            suggest.leave_out(record.id, "refused at the time; --refused takes it in");
        }
    }
    Ok(suggest.finish())
}

/// Loads the folder with the rules in it, and keeps of the expected verdicts those that it gives.
fn prove(folder: &mut Folder, suggestion: &mut Suggestion, rules: Source) -> Result<(), Failure> {
    folder.policies.push(rules);
    let whole = super::policy::load(folder)?;
    suggestion.prove(&whole);
    Ok(())
}

/// What stands above the rules: what they rest on, and what was left out.
fn heading(suggestion: &Suggestion) -> String {
    let mut text = "// Suggested by `interceptor policy suggest` from the record: each rule permits just what was seen.\n\
                    // Read them before they decide anything.\n"
        .to_owned();
    if suggestion.permitted > 0 {
        let _ = writeln!(text, "// Permitted already: {} records.", suggestion.permitted);
    }
    for line in left_out(suggestion) {
        let _ = writeln!(text, "// Left out: {line}.");
    }
    text.push('\n');
    text
}

fn left_out(suggestion: &Suggestion) -> Vec<String> {
    let left = suggestion.left_out.iter();
    left.map(|(reason, left)| {
        let records = if left.records == 1 { "record" } else { "records" };
        text::printable(&format!("{} {records}, the first {}: {reason}", left.records, left.first))
            .into_owned()
    })
    .collect()
}

/// Writes rules and tables; gives the files.
fn write(path: &Path, rules: &str, tables: &BTreeMap<String, String>) -> Result<Vec<PathBuf>, Failure> {
    if path.extension().is_none_or(|extension| extension != "cedar") {
        return Err(Failure::usage(format!(
            "{} must end in `.cedar`: only such files are read",
            path.display()
        )));
    }
    let mut files = vec![(path.to_owned(), rules)];
    for (number, (database, table)) in tables.iter().enumerate() {
        let database: String =
            database.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let end =
            if number == 0 { "expect.toml".to_owned() } else { format!("{database}-{number}.expect.toml") };
        files.push((path.with_extension(end), table));
    }
    if let Some((taken, _)) = files.iter().find(|(path, _)| path.exists()) {
        return Err(Failure::usage(format!("{} exists already: choose another name", taken.display())));
    }
    for (path, text) in &files {
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| Failure::usage(format!("{} cannot be written: {error}", path.display())))?;
    }
    Ok(files.into_iter().map(|(path, _)| path).collect())
}

fn report(printer: &Printer, suggestion: &Suggestion, written: &[PathBuf]) -> Result<(), Failure> {
    let files: Vec<_> = written.iter().map(|path| path.display().to_string()).collect();
    if printer.is_json() {
        let left: Vec<_> = suggestion
            .left_out
            .iter()
            .map(|(reason, left)| serde_json::json!({ "reason": reason, "records": left.records, "first": left.first }))
            .collect();
        return printer.json(&serde_json::json!({
            "count": suggestion.count, "rules": suggestion.rules, "expectations": suggestion.expectations,
            "permitted": suggestion.permitted, "left_out": left, "written": files,
        }));
    }
    printer.line(&printer.paint(&format!("{} rules", suggestion.count), Tone::Good))?;
    files.iter().try_for_each(|file| printer.field("written", file))?;
    if suggestion.permitted > 0 {
        printer.field("permitted", &format!("{} records already", suggestion.permitted))?;
    }
    left_out(suggestion).iter().try_for_each(|line| printer.field("left out", line))?;
    printer.line(
        &printer.paint("read them, then `interceptor policy test` and `interceptor reload`", Tone::Faint),
    )
}
