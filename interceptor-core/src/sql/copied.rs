//! COPY to the client: how its rows are written, and which columns they have.
//!
//! Promise: what is told of them holds for every text of the same shape, so that nothing is told where an option has a
//! value of its own.

use squawk_syntax::{SyntaxKind, SyntaxNode};

use super::{Answer, CopyStream, CopyWriting, Reference, Relation, Statement, names, walk::child_of};
use crate::{mask::LabelSet, model::Verb};

/// How the rows of a COPY are written; none where it has an option that is not followed.
pub(super) fn writing(node: &SyntaxNode) -> Option<CopyWriting> {
    use SyntaxKind::*;
    let mut writing = CopyWriting::Text;
    let first =
        child_of(node, COPY_TABLE).is_some_and(|table| words(&table).first().is_some_and(|w| w == "binary"));
    let options =
        node.children().filter(|child| matches!(child.kind(), COPY_OPTION_LIST | COPY_LEGACY_OPTION));
    let each = options.flat_map(|child| match child.kind() {
        COPY_LEGACY_OPTION => vec![words(&child)],
        _ => child.children().map(|option| words(&option)).collect(),
    });
    let each: Vec<Vec<String>> = each.chain(first.then(|| vec!["binary".to_owned()])).collect();
    let each: Vec<Vec<&str>> =
        each.iter().map(|option| option.iter().map(String::as_str).collect()).collect();
    for option in &each {
        writing = match option.as_slice() {
            ["format", "text"] => CopyWriting::Text,
            ["csv"] | ["format", "csv"] => CopyWriting::Csv,
            ["binary"] | ["format", "binary"] => CopyWriting::Binary,
            // Said below of whatever is written.
            ["header"] | ["header", "true" | "on" | "false" | "off"] => writing,
            _ => return None,
        };
    }
    let headed =
        each.iter().any(|option| matches!(option.as_slice(), ["header"] | ["header", "true" | "on"]));
    match (writing, headed) {
        (CopyWriting::Csv, true) => Some(CopyWriting::CsvWithHeader),
        // Only the newest servers take it.
        (CopyWriting::Text | CopyWriting::Binary, true) => None,
        (writing, _) => Some(writing),
    }
}

/// The words that stand below a node, in small letters.
fn words(node: &SyntaxNode) -> Vec<String> {
    let tokens = node.descendants_with_tokens().filter_map(|element| element.into_token());
    tokens.filter(|token| !token.kind().is_trivia()).map(|token| token.text().to_ascii_lowercase()).collect()
}

/// The columns that a COPY of a table names: none of them stands for all. None where it is one of a query, or a name
/// cannot be read.
pub(super) fn columns(node: &SyntaxNode) -> Option<Vec<String>> {
    let table = child_of(node, SyntaxKind::COPY_TABLE)?;
    let Some(list) = child_of(&table, SyntaxKind::COLUMN_REF_LIST) else { return Some(Vec::new()) };
    list.children().map(|column| names::dotted(&column).ok()).collect()
}

/// The labels of the columns of the rows that a COPY of a table streams to the client, in their order. None where they
/// are not known.
pub(super) fn labels(statement: &Statement, answer: &Answer) -> Option<Vec<LabelSet>> {
    let Some(CopyStream::ToClient(Some(_))) = statement.copy else { return None };
    let named = statement.copied.as_ref()?;
    let mut read = statement.effects.iter().filter_map(|(verb, reference)| match (verb, reference) {
        (Verb::DataRead, Reference::Relation(name)) => Some(name),
        _ => None,
    });
    let (relation, None) = (read.next()?, read.next()) else { return None };
    let Some(Relation::Found { columns, .. }) = answer.relations.get(relation) else { return None };
    if named.is_empty() {
        let mut all: Vec<_> = columns.iter().filter(|column| column.number > 0).collect();
        all.sort_by_key(|column| column.number);
        return Some(all.into_iter().map(|column| column.labels).collect());
    }
    named
        .iter()
        .map(|name| columns.iter().find(|column| column.name == *name).map(|found| found.labels))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::analyze;

    fn read(text: &str) -> (Option<CopyStream>, Option<Vec<String>>) {
        let statements = analyze(text).expect("it can be read");
        (statements[0].copy, statements[0].copied.clone())
    }

    #[test]
    fn plain_options_tell_how_rows_are_written() {
        use CopyWriting::*;
        for (options, writing) in [
            ("", Some(Text)),
            ("(FORMAT text)", Some(Text)),
            ("WITH (FORMAT csv)", Some(Csv)),
            ("WITH CSV", Some(Csv)),
            ("(HEADER, FORMAT csv)", Some(CsvWithHeader)),
            ("(FORMAT csv, HEADER true)", Some(CsvWithHeader)),
            ("(FORMAT csv, HEADER off)", Some(Csv)),
            ("CSV HEADER", Some(CsvWithHeader)),
            ("(FORMAT binary)", Some(Binary)),
            ("BINARY", Some(Binary)),
            ("(FORMAT csv, DELIMITER ';')", None),
            ("(FORMAT 'csv')", None),
            ("(HEADER 1, FORMAT csv)", None),
            ("CSV NULL 'x'", None),
            ("(FORMAT csv, FORCE_QUOTE *)", None),
            ("(HEADER)", None),
            ("(ENCODING 'sjis')", None),
        ] {
            let text = format!("COPY t TO STDOUT {options}");
            assert_eq!(read(&text).0, Some(CopyStream::ToClient(writing)), "{text}");
        }
        assert_eq!(read("COPY BINARY t TO STDOUT").0, Some(CopyStream::ToClient(Some(Binary))));
    }

    #[test]
    fn columns_are_told_of_tables_alone() {
        assert_eq!(read("COPY t TO STDOUT").1, Some(Vec::new()));
        assert_eq!(read("COPY t (a, \"B\") TO STDOUT").1, Some(vec!["a".to_owned(), "B".to_owned()]));
        assert_eq!(read("COPY (SELECT 1) TO STDOUT").1, None);
    }
}
