//! `labels grants`: the SQL by which the server itself keeps a role from what an agent may not see.
//!
//! Promises: every name in it is quoted, and nothing in it can be hidden from whoever reads it; what cannot be done by the
//! server's means is withheld whole, and said.

use std::{collections::BTreeSet, process::ExitCode};

use interceptor_core::{survey::RowPolicy, text::is_hidden};

use super::{
    label_views::{self, View},
    labels::Seen,
    output::{Failure, Printer},
};
use crate::control::api::{ColumnStatus, Sight};

/// Prints it.
pub(super) fn print(printer: &Printer, seen: &Seen, role: &str) -> Result<ExitCode, Failure> {
    let sql = sql(seen, role)?;
    if printer.is_json() {
        printer.json(&serde_json::json!({ "sql": sql }))?;
    } else {
        printer.line(sql.trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn sql(seen: &Seen, role: &str) -> Result<String, Failure> {
    let who = name(role);
    let views = label_views::schema(role)?;
    let mut out = format!(
        "-- What {who} needs to read all that is not hidden, and no more. The role must be there, must own none of this, and\n\
         -- must be a member of no role that may read it ({} is the one that is used now). Run it as the owner, with psql,\n\
         -- again whenever tables or labels have changed. Views in the schema {} are all replaced.\n",
        name(&seen.user),
        name(&views)
    );
    if !seen.found_anywhere.is_empty() {
        out += &format!(
            "-- Wherever it stands, what these labels' detectors find cannot be withheld by grants: {}.\n",
            seen.found_anywhere.join(", ")
        );
    }
    out += "\\set ON_ERROR_STOP on\n";
    for database in &seen.databases {
        let all = seen.columns.iter().filter(|column| column.database == *database && column.schema != views);
        let columns: Vec<&ColumnStatus> = all.collect();
        out += &format!("\n\\connect {}\n\\encoding UTF8\nBEGIN;\n", name(database));
        let schemas: BTreeSet<&str> = columns.iter().map(|column| column.schema.as_str()).collect();
        for schema in schemas {
            out += &format!("GRANT USAGE ON SCHEMA {} TO {who};\n", name(schema));
        }
        let relations: Vec<&[&ColumnStatus]> = columns.chunk_by(|one, other| of(one) == of(other)).collect();
        let mut shown = Vec::new();
        for relation in relations {
            let (sql, view) = grants(relation, &who);
            out += &sql;
            shown.extend(view);
        }
        out += &label_views::sql(&shown, &views, &who);
        out += "COMMIT;\n";
    }
    Ok(out)
}

fn of(column: &ColumnStatus) -> (&str, &str) {
    (&column.schema, &column.relation)
}

/// What is granted of one relation, and the view that shows more of it.
fn grants<'a>(columns: &[&'a ColumnStatus], who: &str) -> (String, Option<View<'a>>) {
    let Some(first) = columns.first() else { return (String::new(), None) };
    let relation = format!("{}.{}", name(&first.schema), name(&first.relation));
    let mut out = format!("REVOKE ALL ON TABLE {relation} FROM {who};\n");
    if let Some(policies) = &first.secured {
        out += &secured(policies, who);
    }
    let shown: Vec<String> = columns
        .iter()
        .filter(|column| column.sight == Sight::All)
        .map(|column| name(&column.column))
        .collect();
    if shown.len() == columns.len() {
        return (out + &format!("GRANT SELECT ON TABLE {relation} TO {who};\n"), None);
    }
    if first.public {
        out += &format!(
            "-- Everybody may read of it: whoever needs that needs a grant of their own.\nREVOKE ALL ON TABLE {relation} FROM PUBLIC;\n"
        );
    }
    let mut labels: Vec<&str> = columns
        .iter()
        .filter(|column| column.sight != Sight::All)
        .flat_map(|column| column.labels.iter().map(|label| label.label.as_str()))
        .collect();
    labels.sort_unstable();
    labels.dedup();
    out += &format!("-- without {}\n", labels.join(", "));
    if !shown.is_empty() {
        out += &format!("GRANT SELECT ({}) ON TABLE {relation} TO {who};\n", shown.join(", "));
    }
    let (said, view) = label_views::view(columns);
    (out + &said, view)
}

/// What is to be said of row security that stays as it is.
fn secured(policies: &[RowPolicy], who: &str) -> String {
    let each = policies.iter().map(|policy| {
        let roles =
            policy.roles.iter().map(|role| if role == "public" { "all".to_owned() } else { name(role) });
        format!("{} (for {})", name(&policy.name), roles.collect::<Vec<_>>().join(", "))
    });
    let which = match policies {
        [] => "by no policy, so that no row is shown".to_owned(),
        _ => format!("by {}", each.collect::<Vec<_>>().join(", ")),
    };
    format!(
        "-- Its rows are secured {which}. That stays, and binds {who} unless the role has BYPASSRLS, owns the table, or is in\n\
         -- a role that another policy is for.\n"
    )
}

/// A name in quotes, in which everything can be seen.
pub(super) fn name(name: &str) -> String {
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

/// A text in quotes, in which everything can be seen.
pub(super) fn text(text: &str) -> String {
    let mut out = String::from("E'");
    for c in text.chars() {
        match c {
            '\'' => out.push_str("''"),
            '\\' => out.push_str("\\\\"),
            c if is_hidden(c) => out.push_str(&format!("\\U{:08X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

#[cfg(test)]
mod tests {
    use interceptor_core::survey::{Document, RelationKind};

    use super::*;
    use crate::control::api::{LabelStatus, Through};

    fn column(relation: &str, column: &str, sight: Sight) -> ColumnStatus {
        let label = LabelStatus { label: "secret".to_owned(), through: Through::Another, since: None };
        let policy = || RowPolicy { name: "own \"rows".to_owned(), roles: vec!["public".to_owned()] };
        ColumnStatus {
            database: "d".to_owned(),
            schema: "public".to_owned(),
            relation: relation.to_owned(),
            kind: RelationKind::Table,
            public: relation == "open",
            secured: (relation == "rows").then(|| vec![policy()]),
            column: column.to_owned(),
            document: (column == "doc").then_some(Document::Json),
            labels: (sight != Sight::All).then_some(label).into_iter().collect(),
            sight,
            sampled: 0,
            found: Vec::new(),
        }
    }

    fn printed(columns: Vec<ColumnStatus>) -> String {
        let (databases, user) = (vec!["d".to_owned()], "app".to_owned());
        let seen = Seen { columns, databases, user, found_anywhere: vec!["mail".to_owned()] };
        sql(&seen, "re\u{202e}ader").unwrap_or_else(|_| panic!("no SQL"))
    }

    fn without(places: &[&str]) -> Sight {
        Sight::Without(places.iter().map(|place| (*place).to_owned()).collect())
    }

    #[test]
    fn what_is_hidden_is_not_granted() {
        let sql = printed(vec![
            column("all", "id", Sight::All),
            column("none", "code", Sight::Nothing),
            column("open", "id", Sight::All),
            column("open", "co\"de", Sight::Nothing),
            column("rows", "id", Sight::All),
        ]);
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
        assert!(
            sql.contains("secured by \"own \"\"rows\" (for all)") && sql.contains("find cannot be"),
            "{sql}"
        );
        assert!(!sql.contains("CREATE"), "{sql}");
    }

    #[test]
    fn documents_are_shown_by_a_view_without_what_is_hidden() {
        let sql = printed(vec![
            column("paper", "id", Sight::All),
            column("paper", "doc", without(&["$.a.\"it's\"", "$.b"])),
            column("paper", "code", Sight::Nothing),
        ]);
        for part in [
            "CREATE VIEW U&\"interceptor_re\\+00202Eader\".\"paper\" WITH (security_barrier = true) AS",
            "ARRAY[E'a', E'it''s']::pg_catalog.text[]",
            "GRANT SELECT (\"id\") ON TABLE \"public\".\"paper\"",
            "GRANT SELECT ON TABLE U&\"interceptor_re\\+00202Eader\".\"paper\" TO U&\"re\\+00202Eader\";",
        ] {
            assert!(sql.contains(part), "no {part} in {sql}");
        }
        assert!(!sql.contains("\"code\""), "{sql}");
        // Neither by a view that row security does not hold for, nor of what the server cannot take out.
        for columns in [
            vec![column("rows", "id", Sight::All), column("rows", "doc", without(&["$.a"]))],
            vec![column("t", "id", Sight::All), column("t", "doc", without(&["$.a[*]"]))],
            vec![column("t", "id", Sight::All), column("t", "doc", without(&[]))],
            vec![column("t", "id", Sight::All), column("t", "note", without(&["$.a"]))],
        ] {
            let sql = printed(columns);
            assert!(
                !sql.contains("CREATE") && !sql.contains("\"doc\"") && !sql.contains("\"note\""),
                "{sql}"
            );
            assert!(sql.contains("-- No view"), "{sql}");
        }
    }

    #[test]
    fn a_role_with_too_long_a_name_gets_no_schema_of_another() {
        assert!(
            label_views::schema(&"r".repeat(51)).is_ok() && label_views::schema(&"r".repeat(52)).is_err()
        );
    }
}
