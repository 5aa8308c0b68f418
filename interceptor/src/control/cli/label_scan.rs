//! `labels scan`: labels that are proposed for columns without one, as a diff of labels.toml that `patch` takes.
//!
//! Promise: what is printed of values is how many of which kind there were.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::ExitCode,
};

use interceptor_core::{mask::Pattern, model::ResourceName, text::is_hidden};

use super::{
    labels::Seen,
    output::{Failure, Printer},
};
use crate::{control::api::ColumnStatus, places::Places};

const FILE: &str = "labels.toml";
/// Of so many values, one that a detector knows makes it what the column is for.
const ONE_OF: u32 = 10;

/// Words in columns' names, with the label that they stand for.
const WORDS: [(&str, &str); 26] = [
    ("birthdate", "birth"),
    ("birthday", "birth"),
    ("card", "card"),
    ("cc", "card"),
    ("dob", "birth"),
    ("email", "email"),
    ("fax", "phone"),
    ("firstname", "name"),
    ("iban", "iban"),
    ("ip", "ip"),
    ("jwt", "secret"),
    ("lastname", "name"),
    ("mail", "email"),
    ("mobile", "phone"),
    ("pan", "card"),
    ("passport", "national-id"),
    ("passwd", "secret"),
    ("password", "secret"),
    ("phone", "phone"),
    ("pwd", "secret"),
    ("secret", "secret"),
    ("ssn", "national-id"),
    ("surname", "name"),
    ("telephone", "phone"),
    ("tin", "national-id"),
    ("token", "secret"),
];

/// Prints the diff.
pub(super) fn print(
    places: &Places,
    printer: &Printer,
    seen: &Seen,
    resource: &ResourceName,
) -> Result<ExitCode, Failure> {
    let path = places.configuration().join(FILE);
    let before = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Failure::host(format!("{}: {error}", path.display()))),
    };
    let proposals = proposals(&seen.columns);
    let added = added(&proposals, resource, &taken(&before)?);
    if printer.is_json() {
        printer.json(&serde_json::json!({ "diff": diff(&before, &added) }))?;
    } else if added.is_empty() {
        printer.line("nothing that has no label looks as if it needed one")?;
    } else {
        printer.line(diff(&before, &added).trim_end_matches('\n'))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The names of labels that there are.
fn taken(labels: &str) -> Result<BTreeSet<String>, Failure> {
    let table: toml::Table = labels.parse().map_err(|error| Failure::no(format!("{FILE}: {error}")))?;
    let names = table.get("label").and_then(toml::Value::as_table);
    Ok(names.into_iter().flat_map(|names| names.keys().cloned()).collect())
}

/// Columns by the label that is proposed for them, each with the reason.
fn proposals(columns: &[ColumnStatus]) -> BTreeMap<&str, Vec<(String, String)>> {
    let mut proposals: BTreeMap<&str, Vec<(String, String)>> = BTreeMap::new();
    for column in columns.iter().filter(|column| column.labels.is_empty()) {
        let ColumnStatus { schema, relation, column: name, sampled, found, .. } = column;
        let pattern = format!("{schema}.{relation}.{name}");
        // A name with a dot or a star in it cannot be written as a pattern, and stands for others with a star.
        if Pattern::parse(&pattern).is_none_or(|pattern| pattern.path().is_some()) || pattern.contains('*') {
            continue;
        }
        let most = found.iter().max_by_key(|(_, times)| *times);
        let by_value = most.filter(|(_, times)| times.saturating_mul(ONE_OF) >= *sampled);
        let by_name = words(name).into_iter().find_map(|word| {
            WORDS.binary_search_by_key(&word.as_str(), |(word, _)| word).ok().and_then(|at| WORDS.get(at))
        });
        let (label, why) = match (by_value, by_name) {
            (Some((detector, times)), _) => {
                (label_of(detector), format!("{detector} in {times} of {sampled} values"))
            }
            (None, Some((word, label))) => (*label, format!("it is called {word}")),
            (None, None) => continue,
        };
        proposals.entry(label).or_default().push((pattern, why));
    }
    proposals
}

/// The label for what a detector finds.
fn label_of(detector: &str) -> &'static str {
    match detector {
        "card" => "card",
        "email" => "email",
        "phone" => "phone",
        "ip" => "ip",
        "iban" => "iban",
        "us_ssn" => "national-id",
        _ => "secret",
    }
}

/// The words in a name: `userEmail`, `user_email` and `USER-EMAIL` have the same.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = '_';
    for c in name.chars() {
        if !c.is_alphanumeric() || (c.is_uppercase() && before.is_lowercase()) {
            words.push(String::new());
        }
        if c.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(c.to_lowercase());
        }
        before = c;
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The lines that are added.
fn added(
    proposals: &BTreeMap<&str, Vec<(String, String)>>,
    resource: &ResourceName,
    taken: &BTreeSet<String>,
) -> Vec<String> {
    let mut lines = Vec::new();
    for (label, columns) in proposals {
        let names = std::iter::once((*label).to_owned()).chain((2..).map(|n: u32| format!("{label}-{n}")));
        let Some(name) = names.into_iter().find(|name| !taken.contains(name)) else { continue };
        lines.extend([String::new(), format!("[label.{name}]"), format!("resources = [\"{resource}\"]")]);
        lines.push("columns = [".to_owned());
        for (pattern, why) in columns {
            lines.push(format!("    {}, # {why}", quoted(pattern)));
        }
        lines.extend(["]".to_owned(), "mask = \"redact\"".to_owned()]);
    }
    lines
}

/// A text as TOML has it, in which everything can be seen.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if is_hidden(c) => out.push_str(&format!("\\U{:08X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A unified diff that adds lines at the end.
fn diff(before: &str, added: &[String]) -> String {
    let count = before.lines().count();
    let (old, context) = match before.lines().last() {
        _ if added.is_empty() => return String::new(),
        None => ("/dev/null", String::new()),
        Some(last) if before.ends_with('\n') => (FILE, format!(" {last}\n")),
        Some(last) => (FILE, format!("-{last}\n\\ No newline at end of file\n+{last}\n")),
    };
    let kept = usize::from(!context.is_empty());
    let start = if kept == 0 { 0 } else { count };
    let mut out = format!(
        "--- {old}\n+++ {FILE}\n@@ -{start},{kept} +{},{} @@\n{context}",
        start.max(1),
        added.len().saturating_add(kept)
    );
    for line in added {
        out += &format!("+{line}\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use interceptor_core::survey::RelationKind;

    use super::*;
    use crate::control::api::Sight;

    fn column(name: &str, sampled: u32, found: &[(&str, u32)]) -> ColumnStatus {
        ColumnStatus {
            database: "d".to_owned(),
            schema: "public".to_owned(),
            relation: "t".to_owned(),
            kind: RelationKind::Table,
            public: false,
            secured: None,
            column: name.to_owned(),
            labels: Vec::new(),
            document: None,
            sight: Sight::All,
            sampled,
            found: found.iter().map(|(word, times)| ((*word).to_owned(), *times)).collect(),
        }
    }

    #[test]
    fn names_and_values_propose_labels() {
        assert!(WORDS.is_sorted());
        let columns = [
            column("id", 200, &[]),
            column("contact", 200, &[("email", 150), ("phone", 2)]),
            column("workEmail", 0, &[]),
            column("body", 200, &[("email", 3)]),
            column("a.email", 1, &[("email", 1)]),
            column("user_password", 200, &[]),
            column("zip\"code", 200, &[("us_ssn", 20)]),
        ];
        let orders = "orders".parse().unwrap();
        let added = added(&proposals(&columns), &orders, &BTreeSet::from(["email".to_owned()]));
        let text = added.join("\n");
        for part in [
            "[label.email-2]\nresources = [\"orders\"]\ncolumns = [\n    \"public.t.contact\", # email in 150 of 200 values\n    \
             \"public.t.workEmail\", # it is called email\n]\nmask = \"redact\"",
            "[label.national-id]\n",
            "    \"public.t.zip\\\"code\", # us_ssn in 20 of 200 values",
            "[label.secret]\n",
        ] {
            assert!(text.contains(part), "no {part} in {text}");
        }
        assert!(!text.contains("body") && !text.contains("public.t.id") && !text.contains("a.email"));
        assert!(text.parse::<toml::Table>().is_ok());
    }

    #[test]
    fn the_diff_is_one() {
        let added = ["".to_owned(), "x".to_owned()];
        assert_eq!(diff("", &added), "--- /dev/null\n+++ labels.toml\n@@ -0,0 +1,2 @@\n+\n+x\n");
        assert_eq!(diff("a\nb\n", &added), "--- labels.toml\n+++ labels.toml\n@@ -2,1 +2,3 @@\n b\n+\n+x\n");
        assert!(
            diff("a\nb", &added).contains("@@ -2,1 +2,3 @@\n-b\n\\ No newline at end of file\n+b\n+\n+x\n")
        );
        assert_eq!(diff("a\n", &[]), "");
    }
}
