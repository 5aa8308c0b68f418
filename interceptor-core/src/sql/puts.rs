//! Where a statement puts values, as its text tells: column by column where it can be told, else all columns of the
//! relation.
//!
//! Promise: each value that is written into a relation is put into one of its columns, or into all of them.

use squawk_syntax::{SyntaxKind, SyntaxNode};

use super::{
    Name,
    lineage::{Output, Uses, name, outputs, relation, targets, uses},
    walk::child_of,
};

/// Values that go into a relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// The relation as it is written; none is the one that the statement makes.
    pub into: Option<Name>,
    /// The column.
    pub column: Column,
    /// What they are made of.
    pub made_of: Uses,
}

/// A column of what values are put into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Column {
    /// The one of that name.
    Named(String),
    /// The one at that place, from 0.
    Place(usize),
    /// It may be any.
    Any,
}

/// Adds what the node itself puts somewhere.
pub(super) fn node(node: &SyntaxNode, puts: &mut Vec<Put>) {
    use SyntaxKind::*;
    match node.kind() {
        INSERT => {
            let into = child_of(node, RELATION_NAME_REF).map(|target| relation(&target));
            let columns = child_of(node, COLUMN_TARGET_LIST);
            if let (Some(into), Some(source)) = (into, source(node)) {
                rows(Some(&into), columns.as_ref(), &source, puts);
            }
        }
        MERGE_INSERT => {
            let columns = child_of(node, COLUMN_TARGET_LIST);
            if let (Some(into), Some(source)) = (owner(node), source(node)) {
                rows(Some(&into), columns.as_ref(), &source, puts);
            }
        }
        SET_CLAUSE => {
            if let Some(into) = owner(node) {
                set(&into, node, puts);
            }
        }
        CREATE_TABLE_AS => match source(node) {
            Some(source) => rows(None, None, &source, puts),
            None => puts.push(Put { into: None, column: Column::Any, made_of: uses(node) }),
        },
        SELECT_INTO => {
            let outputs = child_of(node, SELECT_CLAUSE).and_then(|clause| targets(&clause));
            by_place(None, None, outputs, node, puts);
        }
        USING_EXPR => moved(node, puts),
        _ => {}
    }
}

/// The query or the values that give the rows.
fn source(node: &SyntaxNode) -> Option<SyntaxNode> {
    use SyntaxKind::*;
    let gives = |kind| matches!(kind, SELECT | COMPOUND_SELECT | PAREN_SELECT | VALUES | TABLE);
    node.children().find(|child| gives(child.kind()))
}

/// The relation that a clause changes.
fn owner(clause: &SyntaxNode) -> Option<Name> {
    use SyntaxKind::*;
    let statement = clause.ancestors().find(|node| matches!(node.kind(), INSERT | UPDATE | MERGE))?;
    let named = |kind| matches!(kind, RELATION_NAME | RELATION_NAME_REF | TABLE_RELATION_NAME);
    statement.children().find(|child| named(child.kind())).map(|target| relation(&target))
}

fn rows(into: Option<&Name>, columns: Option<&SyntaxNode>, source: &SyntaxNode, puts: &mut Vec<Put>) {
    let outputs = if source.kind() == SyntaxKind::VALUES { values(source) } else { outputs(source) };
    by_place(into, columns, outputs, source, puts);
}

fn by_place(
    into: Option<&Name>,
    columns: Option<&SyntaxNode>,
    outputs: Option<Vec<Output>>,
    whole: &SyntaxNode,
    puts: &mut Vec<Put>,
) {
    let named = columns.map(|list| list.children().filter_map(|target| column(&target)).collect::<Vec<_>>());
    let outputs = outputs.filter(|outputs| outputs.iter().all(|output| !output.star));
    let Some(outputs) = outputs else {
        return puts.push(Put { into: into.cloned(), column: Column::Any, made_of: uses(whole) });
    };
    for (place, output) in outputs.into_iter().enumerate() {
        let column = match &named {
            None => Column::Place(place),
            Some(named) => named.get(place).map_or(Column::Any, |name| Column::Named(name.clone())),
        };
        puts.push(Put { into: into.cloned(), column, made_of: output.uses });
    }
}

/// The columns of VALUES, over all of its rows.
fn values(values: &SyntaxNode) -> Option<Vec<Output>> {
    let rows = child_of(values, SyntaxKind::ROW_LIST)?;
    let mut merged: Option<Vec<Output>> = None;
    for row in rows.children().filter(|child| child.kind() == SyntaxKind::ROW) {
        let row: Vec<Output> =
            row.children().map(|value| Output { star: false, uses: uses(&value) }).collect();
        match &mut merged {
            None => merged = Some(row),
            Some(merged) if merged.len() == row.len() => {
                merged.iter_mut().zip(&row).for_each(|(one, other)| one.uses.add(&other.uses));
            }
            Some(_) => return None,
        }
    }
    merged
}

/// The column that a target names.
fn column(target: &SyntaxNode) -> Option<String> {
    let named = target.descendants().find(|part| part.kind() == SyntaxKind::COLUMN_NAME_REF)?;
    Some(name(&named))
}

fn set(into: &Name, clause: &SyntaxNode, puts: &mut Vec<Put>) {
    use SyntaxKind::*;
    let insert = clause.ancestors().find(|node| matches!(node.kind(), INSERT | UPDATE | MERGE));
    let proposed = insert.filter(|node| node.kind() == INSERT).and_then(|insert| source(&insert));
    let columns = clause.descendants().filter(|part| {
        let own = part.ancestors().find(|above| above.kind() == SET_CLAUSE);
        matches!(part.kind(), SET_SINGLE_COLUMN | SET_MULTIPLE_COLUMNS) && own.as_ref() == Some(clause)
    });
    for part in columns {
        let mut made_of = uses(&part);
        let excluded = |node: &SyntaxNode| node.kind() == NAME_REF && name(node) == "excluded";
        if let Some(proposed) = proposed.as_ref().filter(|_| part.descendants().any(|node| excluded(&node))) {
            // What was to be inserted goes into other columns.
            made_of.add(&uses(proposed));
        }
        let list = child_of(&part, COLUMN_TARGET_LIST).unwrap_or_else(|| part.clone());
        for target in list.children().filter(|child| child.kind() == COLUMN_TARGET) {
            let column = column(&target).map_or(Column::Any, Column::Named);
            puts.push(Put { into: Some(into.clone()), column, made_of: made_of.clone() });
        }
    }
}

/// A column that is computed anew when its type is changed.
fn moved(using: &SyntaxNode, puts: &mut Vec<Put>) {
    use SyntaxKind::*;
    let table = using.ancestors().find(|node| node.kind() == ALTER_TABLE);
    let table = table.and_then(|table| child_of(&table, TABLE_RELATION_NAME));
    let altered = using.ancestors().find(|node| node.kind() == ALTER_COLUMN);
    if let Some(table) = table {
        let column = altered.and_then(|altered| column(&altered)).map_or(Column::Any, Column::Named);
        puts.push(Put { into: Some(relation(&table)), column, made_of: uses(using) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::analyze;

    /// What is put where, each as `relation.column <- names`.
    fn told(text: &str) -> Vec<String> {
        let statements = analyze(text).unwrap_or_else(|why| panic!("{text}: {why:?}"));
        let puts = statements.iter().flat_map(|statement| &statement.lineage.puts);
        puts.filter(|put| !put.made_of.is_empty())
            .map(|put| {
                let into = put.into.as_ref().map_or("*new*", |name| name.name.as_str());
                let column = match &put.column {
                    Column::Named(name) => name.clone(),
                    Column::Place(place) => place.to_string(),
                    Column::Any => "*".to_owned(),
                };
                let names = put.made_of.names.iter().chain(&put.made_of.fields);
                let names: Vec<&str> = names.map(String::as_str).collect();
                let whole = if put.made_of.whole { " all" } else { "" };
                format!("{into}.{column} <- {}{whole}", names.join(" "))
            })
            .collect()
    }

    #[test]
    fn values_go_where_the_text_says() {
        for (text, puts) in [
            ("INSERT INTO t (a, b) SELECT x, y || z FROM s", &["t.a <- x", "t.b <- y z"][..]),
            ("INSERT INTO t SELECT 1, y FROM s", &["t.1 <- y"]),
            ("INSERT INTO t TABLE s", &["t.* <-  all"]),
            ("INSERT INTO t SELECT * FROM s", &["t.* <-  all"]),
            ("INSERT INTO t (a) SELECT x FROM s UNION ALL SELECT y FROM r", &["t.a <- x y"]),
            ("INSERT INTO t (a, b) VALUES (1, (SELECT x FROM s)), (y, 2)", &["t.a <- y", "t.b <- x"]),
            ("INSERT INTO t VALUES (1, 'x'), ($1, 2)", &[]),
            (
                "INSERT INTO t (a) SELECT x FROM s ON CONFLICT (a) DO UPDATE SET b = excluded.a, c = 1",
                &["t.a <- x", "t.b <- x a"],
            ),
            (
                "UPDATE ONLY p.t AS u SET a = x, (b, c) = (SELECT y, z) FROM s",
                &["t.a <- x", "t.b <- y z", "t.c <- y z"],
            ),
            ("UPDATE t SET d[1] = x, f.g = y", &["t.d <- x", "t.f <- y"]),
            (
                "MERGE INTO t USING s ON t.i = s.i WHEN MATCHED THEN UPDATE SET a = s.x WHEN NOT MATCHED THEN INSERT (i, b) \
              VALUES (s.i, s.y)",
                &["t.a <- x", "t.i <- i", "t.b <- y"],
            ),
            ("CREATE TABLE t AS SELECT x, y AS q FROM s", &["*new*.0 <- x", "*new*.1 <- y"]),
            ("CREATE TEMP TABLE t (a, b) AS SELECT * FROM s", &["*new*.* <-  all"]),
            ("SELECT x AS a, 1, y INTO t FROM s", &["*new*.0 <- x", "*new*.2 <- y"]),
            ("ALTER TABLE t ALTER COLUMN a TYPE text USING x || 'y', RENAME TO u", &["t.a <- x"]),
            ("ALTER TABLE t RENAME COLUMN a TO b", &[]),
            (
                "WITH q AS (UPDATE t SET a = x RETURNING a) INSERT INTO u SELECT a FROM q",
                &["t.a <- x", "u.0 <- a"],
            ),
            ("CREATE VIEW v AS SELECT x FROM s", &[]),
        ] {
            let mut found = told(text);
            let mut puts: Vec<String> = puts.iter().map(|put| (*put).to_owned()).collect();
            found.sort();
            puts.sort();
            assert_eq!(found, puts, "{text}");
        }
    }
}
