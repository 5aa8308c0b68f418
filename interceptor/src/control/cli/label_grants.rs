//! `labels grants`: the SQL by which the server itself keeps a role from what an agent may not see.
//!
//! Promise: every name in it is in quotes, and nothing in it can be hidden from whoever reads it.

use std::{collections::BTreeSet, process::ExitCode};

use interceptor_core::text::is_hidden;

use super::{
    labels::Seen,
    output::{Failure, Printer},
};
use crate::control::api::ColumnStatus;

/// Prints it.
pub(super) fn print(printer: &Printer, seen: &Seen, role: &str) -> Result<ExitCode, Failure> {
    let sql = sql(seen, role);
    if printer.is_json() {
        printer.json(&serde_json::json!({ "sql": sql }))?;
    } else {
        printer.line(sql.trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn sql(seen: &Seen, role: &str) -> String {
    let who = name(role);
    let mut out = format!(
        "-- What {who} needs to read all that is not hidden, and no more. The role must be there, must own none of this, and\n\
         -- must be a member of no role that may read it ({} is the one that is used now). Run it as the owner, with psql.\n",
        name(&seen.user)
    );
    for database in &seen.databases {
        let columns: Vec<&ColumnStatus> =
            seen.columns.iter().filter(|column| column.database == *database).collect();
        out += &format!("\n\\connect {}\nBEGIN;\n", name(database));
        let schemas: BTreeSet<&str> = columns.iter().map(|column| column.schema.as_str()).collect();
        for schema in schemas {
            out += &format!("GRANT USAGE ON SCHEMA {} TO {who};\n", name(schema));
        }
        for relation in columns.chunk_by(|one, other| of(one) == of(other)) {
            out += &grants(relation, &who);
        }
        out += "COMMIT;\n";
    }
    out
}

fn of(column: &ColumnStatus) -> (&str, &str) {
    (&column.schema, &column.relation)
}

/// What is granted of one relation.
fn grants(columns: &[&ColumnStatus], who: &str) -> String {
    let Some(first) = columns.first() else { return String::new() };
    let relation = format!("{}.{}", name(&first.schema), name(&first.relation));
    let mut out = format!("REVOKE ALL ON TABLE {relation} FROM {who};\n");
    let shown: Vec<String> =
        columns.iter().filter(|column| !column.hidden).map(|column| name(&column.column)).collect();
    if shown.len() == columns.len() {
        return out + &format!("GRANT SELECT ON TABLE {relation} TO {who};\n");
    }
    if first.public {
        out += &format!(
            "-- Everybody may read it: whoever needs that needs a grant of their own.\nREVOKE ALL ON TABLE {relation} FROM PUBLIC;\n"
        );
    }
    let mut labels: Vec<&str> = columns
        .iter()
        .filter(|column| column.hidden)
        .flat_map(|column| column.labels.iter().map(|label| label.label.as_str()))
        .collect();
    labels.sort_unstable();
    labels.dedup();
    out += &format!("-- without {}\n", labels.join(", "));
    if !shown.is_empty() {
        out += &format!("GRANT SELECT ({}) ON TABLE {relation} TO {who};\n", shown.join(", "));
    }
    out
}

/// A name in quotes, in which everything can be seen.
fn name(name: &str) -> String {
    if !name.chars().any(is_hidden) {
        return format!("\"{}\"", name.replace('"', "\"\""));
    }
    let mut out = String::from("U&\"");
    for c in name.chars() {
        match c {
            '"' => out.push_str("\"\""),
            '\\' => out.push_str("\\\\"),
            c if is_hidden(c) => out.push_str(&format!("\\+{:06X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use interceptor_core::survey::RelationKind;

    use super::*;
    use crate::control::api::{LabelStatus, Through};

    fn column(relation: &str, column: &str, hidden: bool) -> ColumnStatus {
        let label = LabelStatus { label: "secret".to_owned(), through: Through::Another, since: None };
        ColumnStatus {
            database: "d".to_owned(),
            schema: "public".to_owned(),
            relation: relation.to_owned(),
            kind: RelationKind::Table,
            public: relation == "open",
            column: column.to_owned(),
            labels: hidden.then_some(label).into_iter().collect(),
            hidden,
            sampled: 0,
            found: Vec::new(),
        }
    }

    #[test]
    fn what_is_hidden_is_not_granted() {
        let columns = vec![
            column("all", "id", false),
            column("none", "code", true),
            column("open", "id", false),
            column("open", "co\"de", true),
        ];
        let seen = Seen { columns, databases: vec!["d".to_owned()], user: "app".to_owned() };
        let sql = sql(&seen, "re\u{202e}ader");
        for line in [
            "\\connect \"d\"",
            "GRANT USAGE ON SCHEMA \"public\" TO U&\"re\\+00202Eader\";",
            "GRANT SELECT ON TABLE \"public\".\"all\" TO U&\"re\\+00202Eader\";",
            "REVOKE ALL ON TABLE \"public\".\"open\" FROM PUBLIC;",
            "GRANT SELECT (\"id\") ON TABLE \"public\".\"open\" TO U&\"re\\+00202Eader\";",
        ] {
            assert!(sql.lines().any(|one| one == line), "no {line} in {sql}");
        }
        assert!(!sql.contains("code") && !sql.contains("GRANT SELECT ON TABLE \"public\".\"none\""), "{sql}");
    }
}
