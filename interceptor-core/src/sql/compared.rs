//! Comparisons in a statement's conditions where a token may stand for a value: a plain column, the sign `=`, and a plain
//! string or a parameter, one of WHERE's conditions that AND, OR and NOT alone join.
//!
//! By allow-list: whatever else a column, a string or a parameter stands in is none of these. Nothing here knows what a
//! column is, or whether a string is a token.

use rowan::TextRange;
use squawk_syntax::{SyntaxKind, SyntaxNode};

use super::{
    lexer::{Kind, Style, Token, Tokens},
    lineage::{Uses, name},
    names,
    walk::has_token,
};
use crate::mask::Operand;

/// One comparison, by names as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// The column.
    pub column: String,
    /// What it is compared with.
    pub with: Operand,
}

impl Compared {
    /// What it mentions.
    pub(super) fn uses(&self) -> Uses {
        let names = [self.column.clone()];
        Uses { names: names.clone().into(), fields: names.into(), whole: false }
    }
}

/// The comparisons in a statement of which these are the tokens, each with where it stands.
pub(super) fn find(statement: &SyntaxNode, tokens: &[Token]) -> Vec<(TextRange, Compared)> {
    use SyntaxKind::*;
    if !matches!(statement.kind(), SELECT | COMPOUND_SELECT | PAREN_SELECT | UPDATE | DELETE) {
        return Vec::new();
    }
    let conditions = statement.descendants().filter(|node| node.kind() == BIN_EXPR && is_condition(node));
    let found = conditions.filter_map(|node| Some((node.text_range(), read(&node, tokens)?)));
    let found: Vec<(TextRange, Compared)> = found.collect();
    let count = |number: usize| {
        let is_it = |(_, compared): &&(TextRange, Compared)| compared.with == Operand::Parameter(number);
        found.iter().filter(is_it).count()
    };
    let written = |number: usize| {
        let all = statement.descendants_with_tokens().filter_map(|element| element.into_token());
        all.filter(|token| token.kind() == POSITIONAL_PARAM && parameter(token.text()) == Some(number))
            .count()
    };
    let stands_elsewhere = |compared: &Compared| match compared.with {
        Operand::Parameter(number) => count(number) != written(number),
        Operand::Literal(_) => false,
    };
    let elsewhere: Vec<bool> = found.iter().map(|(_, compared)| stands_elsewhere(compared)).collect();
    found.into_iter().zip(elsewhere).filter(|(_, elsewhere)| !elsewhere).map(|(one, _)| one).collect()
}

/// Whether a node is a condition of WHERE by itself, or one of several that are joined.
fn is_condition(node: &SyntaxNode) -> bool {
    use SyntaxKind::*;
    for above in node.ancestors().skip(1) {
        match above.kind() {
            PAREN_EXPR => {}
            PREFIX_EXPR if has_token(&above, NOT_KW) => {}
            BIN_EXPR if has_token(&above, AND_KW) || has_token(&above, OR_KW) => {}
            WHERE_CLAUSE => {
                return above.parent().is_some_and(|query| matches!(query.kind(), SELECT | UPDATE | DELETE));
            }
            _ => return false,
        }
    }
    false
}

fn read(node: &SyntaxNode, tokens: &[Token]) -> Option<Compared> {
    let mut sides = node.children();
    let (Some(one), Some(other), None) = (sides.next(), sides.next(), sides.next()) else { return None };
    if !has_token(node, SyntaxKind::EQ) {
        return None;
    }
    let sides = match (column(&one), column(&other)) {
        (Some(column), None) => (column, operand(&other, tokens)?),
        (None, Some(column)) => (column, operand(&one, tokens)?),
        _ => return None,
    };
    Some(Compared { column: sides.0, with: sides.1 })
}

/// The name of the column that is all of an expression.
fn column(node: &SyntaxNode) -> Option<String> {
    use SyntaxKind::*;
    let is_name = |part: &SyntaxNode| match part.kind() {
        NAME_REF => true,
        FIELD_EXPR => !has_token(part, STAR),
        _ => false,
    };
    let plain = node.descendants().all(|part| is_name(&part));
    names::parts(node).ok().filter(|_| plain)?;
    let last = node.descendants().filter(|part| part.kind() == NAME_REF).last()?;
    Some(name(&last))
}

fn operand(node: &SyntaxNode, tokens: &[Token]) -> Option<Operand> {
    if node.kind() != SyntaxKind::LITERAL {
        return None;
    }
    let mut parts = node.children_with_tokens().filter(|part| !part.kind().is_trivia());
    let (Some(part), None) = (parts.next(), parts.next()) else { return None };
    let part = part.into_token()?;
    match part.kind() {
        SyntaxKind::POSITIONAL_PARAM => parameter(part.text()).map(Operand::Parameter),
        SyntaxKind::STRING => {
            let start = usize::from(part.text_range().start());
            let place = tokens.iter().position(|token| token.range.start == start)?;
            plain(part.text()).map(|_| Operand::Literal(place))
        }
        _ => None,
    }
}

fn parameter(written: &str) -> Option<usize> {
    written.strip_prefix('$')?.parse().ok()
}

/// What a string says in which nothing is escaped.
fn plain(written: &str) -> Option<&str> {
    let inside = written.strip_prefix('\'')?.strip_suffix('\'')?;
    (!inside.contains(['\'', '\\'])).then_some(inside)
}

/// The string that is the token at `place` of the statement `text`: where it stands there, quotes included, and what it
/// says. None where that is no string in which nothing is escaped.
pub fn literal(text: &str, place: usize) -> Option<(std::ops::Range<usize>, &str)> {
    let mut tokens = Tokens::new(text);
    for _ in 0..place {
        tokens.next().ok()??;
    }
    let token = tokens.next().ok()??;
    let said = plain(text.get(token.range.clone())?).filter(|_| token.kind == Kind::String(Style::Plain))?;
    Some((token.range, said))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::analyze;

    /// The comparisons of a text, as `column=string` or `column=$1`, and the names that decide besides.
    fn told(text: &str) -> (Vec<String>, Vec<String>) {
        let statements = analyze(text).unwrap_or_else(|why| panic!("{text}: {why:?}"));
        let [statement] = statements.as_slice() else { panic!("one statement: {text}") };
        let own = &text[statement.range.clone()];
        let each = statement.lineage.compared.iter().map(|compared| match compared.with {
            Operand::Literal(place) => {
                format!("{}={}", compared.column, literal(own, place).expect("a string").1)
            }
            Operand::Parameter(number) => format!("{}=${number}", compared.column),
        });
        let besides =
            statement.lineage.filters_besides.names.iter().chain(&statement.lineage.filters_besides.fields);
        (each.collect(), besides.cloned().collect())
    }

    #[test]
    fn plain_conditions_alone_are_comparisons() {
        for (text, each, besides) in [
            ("SELECT a FROM t WHERE ssn = 't'", &["ssn=t"][..], &[][..]),
            (" /* x */ SELECT a FROM t WHERE 't' = t.ssn AND b > 1 -- y", &["ssn=t"], &["b"]),
            ("UPDATE t SET a = 1 WHERE (NOT ssn = 't' OR ssn = $2)", &["ssn=t", "ssn=$2"], &[]),
            ("DELETE FROM t WHERE s.t.ssn = 't'", &["ssn=t"], &[]),
            (
                "SELECT a FROM t WHERE id IN (SELECT id FROM t WHERE ssn = 't') ORDER BY a",
                &["ssn=t"],
                &["a", "id", "id"],
            ),
            ("SELECT a FROM t WHERE ssn = 't' OR ssn LIKE '4%'", &["ssn=t"], &["ssn"]),
            ("SELECT a FROM t WHERE ssn = $1 AND b = $1", &["ssn=$1", "b=$1"], &[]),
        ] {
            let (found, others) = told(text);
            assert_eq!(found, each, "{text}");
            let others: std::collections::BTreeSet<&str> = others.iter().map(String::as_str).collect();
            assert_eq!(others, besides.iter().copied().collect(), "{text}");
        }
    }

    #[test]
    fn nothing_else_is() {
        for text in [
            "SELECT ssn = 't' FROM t",
            "SELECT a FROM t WHERE ssn < 't'",
            "SELECT a FROM t WHERE ssn <> 't'",
            "SELECT a FROM t WHERE ssn LIKE 't'",
            "SELECT a FROM t WHERE ssn || 't' = 't'",
            "SELECT a FROM t WHERE ssn = 't' || 't'",
            "SELECT a FROM t WHERE ssn = 't'::text",
            "SELECT a FROM t WHERE ssn::text = 't'",
            "SELECT a FROM t WHERE upper(ssn) = 't'",
            "SELECT a FROM t WHERE ssn = upper('t')",
            "SELECT a FROM t WHERE (ssn, a) = ('t', 'x')",
            "SELECT a FROM t WHERE ROW(ssn) = ROW('t')",
            "SELECT a FROM t WHERE ssn OPERATOR(pg_catalog.=) 't'",
            "SELECT a FROM t WHERE ssn IS NOT DISTINCT FROM 't'",
            "SELECT a FROM t WHERE ssn IN ('t')",
            "SELECT a FROM t WHERE ssn = ANY (ARRAY['t'])",
            "SELECT a FROM t WHERE ssn COLLATE \"C\" = 't'",
            "SELECT a FROM t WHERE (ssn = 't') = true",
            "SELECT a FROM t WHERE (ssn = 't') IS TRUE",
            "SELECT a FROM t WHERE CASE WHEN ssn = 't' THEN true END",
            "SELECT a FROM t WHERE coalesce(ssn = 't', true)",
            "SELECT a FROM t WHERE (x).ssn = 't'",
            "SELECT a FROM t WHERE ssn[1] = 't'",
            "SELECT a FROM t WHERE 't' = 't'",
            "SELECT a FROM t WHERE ssn = ssn",
            "SELECT a FROM t WHERE ssn = E't'",
            "SELECT a FROM t WHERE ssn = 'a''b'",
            "SELECT a FROM t WHERE ssn = $$t$$",
            "SELECT a FROM t WHERE ssn = $1 AND length($1) > 2",
            "SELECT a, $1 FROM t WHERE ssn = $1",
            "SELECT a FROM t GROUP BY a HAVING ssn = 't'",
            "SELECT count(*) FILTER (WHERE ssn = 't') FROM t",
            "SELECT a FROM t JOIN u ON ssn = 't'",
            "SELECT a INTO u FROM t WHERE ssn = 't'",
            "INSERT INTO u SELECT a FROM t WHERE ssn = 't'",
            "INSERT INTO t (ssn) VALUES ('t') ON CONFLICT (ssn) DO UPDATE SET a = 1 WHERE t.ssn = 't'",
            "CREATE TABLE u AS SELECT a FROM t WHERE ssn = 't'",
            "CREATE VIEW v AS SELECT a FROM t WHERE ssn = 't'",
            "EXPLAIN SELECT a FROM t WHERE ssn = 't'",
            "DECLARE c CURSOR FOR SELECT a FROM t WHERE ssn = 't'",
            "PREPARE p AS SELECT a FROM t WHERE ssn = 't'",
            "COPY (SELECT a FROM t WHERE ssn = 't') TO STDOUT",
            "MERGE INTO t USING u ON t.id = u.id WHEN MATCHED AND t.ssn = 't' THEN DELETE",
        ] {
            let (found, _) = told(text);
            assert!(found.is_empty(), "{text}: {found:?}");
        }
    }
}
