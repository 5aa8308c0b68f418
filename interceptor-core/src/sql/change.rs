//! An UPDATE or DELETE of one table that says by itself which rows it changes: the parts of its text from which the query
//! is made that finds the same rows before.
//!
//! Promise: what is returned changes just the rows that its condition holds for, each looked at alone, so that a row that
//! is locked stays one of them; whatever else there is (other tables, queries inside, cursors) is an error. What its
//! names mean, and whether the functions in it answer the same twice, is for the caller to look up.

use squawk_syntax::{SyntaxKind, SyntaxNode};

use super::{
    analyze::{is_statement, only_statement},
    guard::Guarded,
    lexer::{Kind, Token},
};
use crate::model::Verb;

/// See above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// [`Verb::DataUpdate`] or [`Verb::DataDelete`].
    pub verb: Verb,
    /// The table as it is written, with its other name if it has one.
    pub table: String,
    /// What its columns stand behind.
    pub row: String,
    /// The condition with its WHERE, or nothing; parameters are numbered anew.
    pub condition: String,
    /// Which of the statement's parameters those are, from 1, in order.
    pub parameters: Vec<usize>,
    /// What the condition may call, by the last part of the name.
    pub calls: Vec<String>,
    /// The columns that it sets.
    pub sets: Vec<String>,
}

/// Reads a text whose only statement is such a change; else says what it is or has that does not fit.
pub fn change(text: &str) -> Result<Change, &'static str> {
    only_statement(text, |guarded, node| read(text, guarded, node)).unwrap_or(Err(NEITHER))
}

const NEITHER: &str = "it is not one plain UPDATE or DELETE";

fn read(text: &str, guarded: &Guarded, node: &SyntaxNode) -> Result<Change, &'static str> {
    use SyntaxKind::*;
    let verb = match node.kind() {
        UPDATE => Verb::DataUpdate,
        DELETE => Verb::DataDelete,
        _ => return Err(NEITHER),
    };
    let (mut table, mut name, mut row, mut condition, mut sets) = (0..0, 0..0, None, None, Vec::new());
    for child in node.children() {
        let range = child.text_range().start().into()..child.text_range().end().into();
        match child.kind() {
            RELATION_NAME => {
                name = range.clone();
                table = range;
            }
            OPTIONAL_AS_ALIAS => {
                let alias = child.children().find(|inner| inner.kind() == TABLE_ALIAS).ok_or(NEITHER)?;
                row = Some(alias.text().to_string());
                table.end = range.end;
            }
            SET_CLAUSE => {
                let targets = child.descendants().filter(|inner| inner.kind() == COLUMN_TARGET);
                sets = targets
                    .map(|target| column(&target))
                    .collect::<Option<_>>()
                    .ok_or("it sets what cannot be named")?;
            }
            WHERE_CLAUSE if child.descendants().any(|inner| is_statement(inner.kind())) => {
                return Err("its condition has a query inside, so that its rows hang on others");
            }
            WHERE_CLAUSE => condition = Some(range),
            RETURNING_CLAUSE => {}
            WITH_CLAUSE | FROM_CLAUSE | USING_CLAUSE => {
                return Err("it reads other tables, so that its rows hang on others");
            }
            _ => return Err("it says in an unusual way which rows it changes"),
        }
    }
    let part = |range: std::ops::Range<usize>| -> Vec<&Token> {
        let inside = |token: &&Token| range.start <= token.range.start && token.range.end <= range.end;
        guarded.tokens.iter().filter(inside).collect()
    };
    let own = part(name);
    let last =
        own.iter().rev().find(|token| matches!(token.kind, Kind::Word | Kind::QuotedWord)).ok_or(NEITHER)?;
    let row = row.or_else(|| text.get(last.range.clone()).map(str::to_owned)).ok_or(NEITHER)?;
    let mut written = Written { text, parameters: Vec::new(), calls: Vec::new() };
    let table = written.out(&part(table)).ok_or(NEITHER)?;
    let condition =
        condition.map_or(Some(String::new()), |range| written.out(&part(range))).ok_or(NEITHER)?;
    let Written { parameters, calls, .. } = written;
    Ok(Change { verb, table, row, condition, parameters, calls, sets })
}

/// The column that a target of SET names, folded; none where that cannot be told.
fn column(target: &SyntaxNode) -> Option<String> {
    fold(&target.descendants().find(|inner| inner.kind() == SyntaxKind::COLUMN_NAME_REF)?.text().to_string())
}

/// A name as the server folds it.
fn fold(written: &str) -> Option<String> {
    match written.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(quoted) => Some(quoted.replace("\"\"", "\"")),
        // How other letters fold hangs on the server's locale; `U&"..."` is not unfolded here.
        None if written.is_ascii() && !written.contains('"') => Some(written.to_ascii_lowercase()),
        None => None,
    }
}

/// Writes tokens anew, without what stood between them.
struct Written<'a> {
    text: &'a str,
    parameters: Vec<usize>,
    calls: Vec<String>,
}

impl Written<'_> {
    fn out(&mut self, tokens: &[&Token]) -> Option<String> {
        let mut out = String::new();
        let mut before: Option<(&Token, String)> = None;
        for token in tokens {
            let written = self.text.get(token.range.clone())?;
            if let Some((previous, name)) = before.take() {
                // Strings go on in the next line alone.
                let strings = matches!((previous.kind, token.kind), (Kind::String(_), Kind::String(_)));
                out.push_str(match previous.range.end == token.range.start {
                    true => "",
                    false if strings => "\n",
                    false => " ",
                });
                if token.kind == Kind::Open && matches!(previous.kind, Kind::Word | Kind::QuotedWord) {
                    self.calls.push(fold(&name)?);
                }
            }
            if token.kind == Kind::Parameter {
                let number: usize = written.strip_prefix('$')?.parse().ok()?;
                let known = self.parameters.iter().position(|parameter| *parameter == number);
                let place = known.unwrap_or_else(|| {
                    self.parameters.push(number);
                    self.parameters.len() - 1
                });
                out.push_str(&format!("${}", place + 1));
            } else {
                out.push_str(written);
            }
            before = Some((token, written.to_owned()));
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_are_said_as_they_were() {
        let told = change(
            "/* x */ UPDATE ONLY public.\"T\" /* y */ AS x SET a = $1, (b, \"C\") = (2, random()), d[1] = 3 \
             WHERE x.id IN ($7,$3) -- z\n AND lower ( n ) = 'a'\n'b' OR $7 < 1 RETURNING *;",
        )
        .expect("a plain change");
        assert_eq!((told.verb, told.row.as_str()), (Verb::DataUpdate, "x"));
        assert_eq!(told.table, "ONLY public.\"T\" AS x");
        assert_eq!(told.condition, "WHERE x.id IN ($1,$2) AND lower ( n ) = 'a'\n'b' OR $1 < 1");
        assert_eq!(
            (told.parameters, told.sets),
            (vec![7, 3], ["a", "b", "C", "d"].map(str::to_owned).to_vec())
        );
        assert_eq!(told.calls, ["in", "lower"]);
        let told = change("DELETE FROM s.Notes").expect("a plain change");
        assert_eq!(
            (told.table.as_str(), told.row.as_str(), told.condition.as_str()),
            ("s.Notes", "Notes", "")
        );
    }

    #[test]
    fn what_hangs_on_more_is_not_one() {
        for text in [
            "SELECT 1",
            "DELETE FROM a; DELETE FROM b",
            "INSERT INTO t VALUES (1)",
            "DELETE FROM t USING u WHERE t.id = u.id",
            "DELETE FROM t WHERE id IN (SELECT id FROM u)",
            "DELETE FROM t WHERE EXISTS (VALUES (1))",
            "DELETE FROM t WHERE id = ANY (ARRAY(TABLE u))",
            "UPDATE t SET a = 1 FROM u",
            "WITH x AS (SELECT 1) DELETE FROM t",
            "DELETE FROM t WHERE CURRENT OF c",
            "UPDATE t FOR PORTION OF p FROM 1 TO 2 SET a = 1",
            "TRUNCATE t",
        ] {
            assert!(change(text).is_err(), "{text}");
        }
    }
}
