//! A statement with the schemas of its relations written out, so that it means the same under any search path.
//!
//! Promise: what cannot be told for certain is an error; nothing else of the text changes. What a name means is the
//! caller's to say.

use std::{collections::BTreeMap, ops::Range};

use squawk_syntax::{SyntaxKind, SyntaxNode};

use super::{Name, analyze::only_statement, names};

/// Writes `meaning` of each relation into a text of one statement; or says why that cannot be done.
pub fn qualified(
    text: &str,
    meaning: impl Fn(&Name) -> Option<(String, String)>,
) -> Result<String, &'static str> {
    only_statement(text, |_, node| read(text, node, meaning)).unwrap_or(Err("it is not one statement"))
}

fn read(
    text: &str,
    node: &SyntaxNode,
    meaning: impl Fn(&Name) -> Option<(String, String)>,
) -> Result<String, &'static str> {
    use SyntaxKind::*;
    let mut written: BTreeMap<usize, (Range<usize>, String)> = BTreeMap::new();
    for part in node.descendants() {
        match part.kind() {
            // What it names hides relations in a part of the text.
            WITH_CLAUSE => return Err("it has a WITH clause"),
            RELATION_NAME | RELATION_NAME_REF | TABLE_RELATION_NAME => {
                let path = part.descendants().find(|inner| matches!(inner.kind(), PATH_REF | PATH));
                let (path, name) = path.zip(names::relation(&part).ok()).ok_or(UNCLEAR)?;
                let (schema, relation) = meaning(&name).ok_or(UNCLEAR)?;
                let range = path.text_range().start().into()..path.text_range().end().into();
                written.insert(range.start, (range, format!("{}.{}", quoted(&schema), quoted(&relation))));
            }
            _ => {}
        }
    }
    let mut out = String::new();
    let mut at = 0;
    for (range, name) in written.into_values() {
        out.push_str(text.get(at..range.start).ok_or(UNCLEAR)?);
        out.push_str(&name);
        at = range.end;
    }
    out.push_str(text.get(at..).ok_or(UNCLEAR)?);
    Ok(out)
}

const UNCLEAR: &str = "what a name in it means is not clear";

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(text: &str) -> Result<String, &'static str> {
        qualified(text, |name| {
            let known = ["t", "u", "T\""].contains(&name.name.as_str());
            known.then(|| (name.schema.clone().unwrap_or_else(|| "p".to_owned()), name.name.clone()))
        })
    }

    #[test]
    fn relations_get_their_schemas_and_nothing_else_changes() {
        for (text, told) in [
            ("SELECT t.a FROM t", "SELECT t.a FROM \"p\".\"t\""),
            ("DELETE FROM ONLY T WHERE t.id = 3 -- t", "DELETE FROM ONLY \"p\".\"t\" WHERE t.id = 3 -- t"),
            (
                "DELETE FROM t AS t USING s.u WHERE u.id = t.id",
                "DELETE FROM \"p\".\"t\" AS t USING \"s\".\"u\" WHERE u.id = t.id",
            ),
            (
                "UPDATE \"T\"\"\" SET a = (SELECT max(t) FROM u)",
                "UPDATE \"p\".\"T\"\"\" SET a = (SELECT max(t) FROM \"p\".\"u\")",
            ),
            (
                "INSERT INTO t SELECT * FROM u JOIN t x ON true",
                "INSERT INTO \"p\".\"t\" SELECT * FROM \"p\".\"u\" JOIN \"p\".\"t\" x ON true",
            ),
            (
                "MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN DELETE",
                "MERGE INTO \"p\".\"t\" USING \"p\".\"u\" ON t.a = u.a WHEN MATCHED THEN DELETE",
            ),
            (
                "TABLE t UNION SELECT * FROM t, LATERAL (SELECT t.a) q",
                "TABLE \"p\".\"t\" UNION SELECT * FROM \"p\".\"t\", LATERAL (SELECT t.a) q",
            ),
            ("SELECT 1", "SELECT 1"),
        ] {
            assert_eq!(public(text).as_deref(), Ok(told), "{text}");
        }
    }

    #[test]
    fn what_is_not_clear_is_not_written() {
        for text in
            ["WITH t AS (SELECT 1) SELECT * FROM t", "SELECT 1 FROM other", "SELECT 1; SELECT 2", "SELEC"]
        {
            assert!(public(text).is_err(), "{text}");
        }
    }
}
