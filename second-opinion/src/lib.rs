//! What PostgreSQL's own parser reads in a text.
//!
//! Promise: every relation and every function call that stands anywhere in the parser's tree is told, whatever kind of
//! node it stands in: the tree is read as it prints itself, so that no kind can be forgotten. What stands in the text's
//! own strings is never taken for a part of the tree.

use std::collections::BTreeSet;

use interceptor_core::sql::{Opinion, Told};

/// Reads a text.
pub fn read(text: &str) -> Opinion {
    match pg_query::parse(text, pg_query::ParserOptions::default()) {
        Ok(parsed) => Opinion::Read(
            parsed.protobuf.stmts.iter().map(|one| told(&sealed(&format!("{one:?}")))).collect(),
        ),
        Err(why) => Opinion::Refused(why.to_string()),
    }
}

fn told(tree: &str) -> Told {
    Told {
        kind: kind(tree).unwrap_or_default().to_owned(),
        relations: relations(&without_locked(tree)),
        with: after(tree, "CommonTableExpr { ctename: ").collect(),
        functions: functions(tree),
        sets_constraints: tree.contains("ConstraintsSetStmt"),
        imports: tree.contains("ImportForeignSchemaStmt"),
    }
}

/// What brackets and braces are in strings, where they are no part of the tree; characters for private use.
const SEALED: [(char, char); 4] =
    [('[', '\u{e000}'), (']', '\u{e001}'), ('{', '\u{e002}'), ('}', '\u{e003}')];

/// The tree with its strings sealed.
fn sealed(tree: &str) -> String {
    let (mut inside, mut escaped) = (false, false);
    let one = |c: char| {
        let was_inside = inside;
        match c {
            '"' if !escaped => inside = !inside,
            _ => {}
        }
        escaped = was_inside && c == '\\' && !escaped;
        let seal = SEALED.iter().find(|(open, _)| was_inside && *open == c);
        seal.map_or(c, |(_, seal)| *seal)
    };
    tree.chars().map(one).collect()
}

fn unsealed(c: char) -> char {
    SEALED.iter().find(|(_, seal)| *seal == c).map_or(c, |(open, _)| *open)
}

fn kind(tree: &str) -> Option<&str> {
    Some(tree.split_once("stmt: Some(Node { node: Some(")?.1.split_once('(')?.0)
}

fn relations(tree: &str) -> BTreeSet<(String, String)> {
    const KEY: &str = "RangeVar { catalogname: ";
    let one = |at: usize| {
        let (_, rest) = quoted(tree.get(at + KEY.len()..)?)?;
        let (schema, rest) = quoted(rest.strip_prefix(", schemaname: ")?)?;
        let (name, _) = quoted(rest.strip_prefix(", relname: ")?)?;
        Some((schema, name))
    };
    tree.match_indices(KEY).filter_map(|(at, _)| one(at)).collect()
}

/// The last parts of the names of functions that are called.
fn functions(tree: &str) -> BTreeSet<String> {
    const KEY: &str = "FuncCall { funcname: [";
    let one = |at: usize| {
        let list = tree.get(at + KEY.len()..)?;
        let end = list.find("], args")?;
        after(list.get(..end)?, "String { sval: ").last()
    };
    tree.match_indices(KEY).filter_map(|(at, _)| one(at)).collect()
}

/// The tree without the lists of FOR UPDATE OF, which name aliases.
fn without_locked(tree: &str) -> String {
    let mut parts = tree.split("locked_rels: [");
    let mut kept = parts.next().unwrap_or_default().to_owned();
    parts.for_each(|part| kept.push_str(part.split_once("], strength").map_or(part, |(_, rest)| rest)));
    kept
}

/// The quoted values that stand behind `key` in the tree's text.
fn after<'a>(tree: &'a str, key: &'a str) -> impl Iterator<Item = String> + 'a {
    tree.match_indices(key)
        .filter_map(move |(at, _)| quoted(tree.get(at + key.len()..)?).map(|(value, _)| value))
}

/// A quoted value at the beginning of `text`, and what stands behind it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let inside = text.strip_prefix('"')?;
    let mut value = String::new();
    let mut chars = inside.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.push(chars.next()?.1),
            '"' => return Some((value, inside.get(at + 1..)?)),
            c => value.push(unsealed(c)),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_one(text: &str) -> Told {
        match read(text) {
            Opinion::Read(told) => told.into_iter().next().expect("a statement"),
            Opinion::Refused(why) => panic!("{text}: {why}"),
        }
    }

    #[test]
    fn everything_that_is_named_is_told() {
        let told = read_one(
            "WITH w AS (DELETE FROM a.t RETURNING *) SELECT f(x), s.g(1) FROM w JOIN \"U[1]\" ON true FOR UPDATE OF w",
        );
        assert_eq!(told.kind, "SelectStmt");
        let relations: Vec<_> =
            told.relations.iter().map(|(schema, name)| format!("{schema}.{name}")).collect();
        assert_eq!(relations, [".U[1]", ".w", "a.t"]);
        assert_eq!(told.functions.into_iter().collect::<Vec<_>>(), ["f", "g"]);
        assert!(told.with.contains("w"));
    }

    #[test]
    fn strings_are_no_part_of_the_tree() {
        let told = read_one(
            r#"SELECT 'LockingClause { locked_rels: [', "\" FROM t WHERE b = '], strength: \" RangeVar { catalogname: "'"#,
        );
        let relations: Vec<_> = told.relations.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(relations, ["t"]);
    }

    #[test]
    fn what_is_no_sql_is_refused() {
        assert!(matches!(read("SELECT FROM WHERE"), Opinion::Refused(_)));
        assert_eq!(read(""), Opinion::Read(Vec::new()));
    }
}
