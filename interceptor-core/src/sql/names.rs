//! Names as PostgreSQL folds them: lower case where not quoted, escapes decoded, cut at 63 bytes.

use squawk_syntax::{SyntaxKind, SyntaxNode, SyntaxToken};

use super::Name;

/// PostgreSQL's NAMEDATALEN less one.
const MAX_NAME: usize = 63;

/// Words that PostgreSQL does not take as the first part of a relation's name without quotes, in order.
const RESERVED: [&str; 100] = [
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "binary",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "group",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "intersect",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "natural",
    "not",
    "notnull",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "outer",
    "overlaps",
    "placing",
    "primary",
    "references",
    "returning",
    "right",
    "select",
    "session_user",
    "similar",
    "some",
    "symmetric",
    "table",
    "tablesample",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
];

/// A name as written in one token, folded. Says why when it cannot be told for certain.
pub(super) fn fold(written: &str) -> Result<String, String> {
    let name = if let Some(inside) = quoted(written, 2).filter(|_| written.starts_with(['u', 'U'])) {
        unescape_unicode(&inside)?
    } else if let Some(inside) = quoted(written, 0) {
        inside
    } else {
        // A server whose encoding has one byte a character folds these too, one with UTF-8 does not.
        if !written.is_ascii() && written.to_lowercase() != *written {
            return Err(format!("the name {written} is folded differently by different servers"));
        }
        written.to_ascii_lowercase()
    };
    if name.is_empty() {
        return Err("a name is empty".to_owned());
    }
    let end = (0..=MAX_NAME.min(name.len())).rev().find(|&at| name.is_char_boundary(at)).unwrap_or(0);
    Ok(name.get(..end).unwrap_or_default().to_owned())
}

/// What stands between double quotes that begin after `prefix` bytes.
fn quoted(written: &str, prefix: usize) -> Option<String> {
    let inside = written.get(prefix..)?.strip_prefix('"')?.strip_suffix('"')?;
    Some(inside.replace("\"\"", "\""))
}

/// Decodes `\XXXX`, `\+XXXXXX` and `\\`.
fn unescape_unicode(text: &str) -> Result<String, String> {
    let bad = || "a unicode escape is not valid".to_owned();
    let mut name = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        name.push_str(rest.get(..at).unwrap_or_default());
        rest = rest.get(at + 1..).unwrap_or_default();
        if let Some(after) = rest.strip_prefix('\\') {
            name.push('\\');
            rest = after;
            continue;
        }
        let (digits, length) = rest.strip_prefix('+').map_or((rest, 4), |after| (after, 6));
        let code =
            digits.get(..length).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit())).ok_or_else(bad)?;
        let code = u32::from_str_radix(code, 16).map_err(|_| bad())?;
        // Surrogate pairs are refused with the rest of what is no character.
        name.push(char::from_u32(code).filter(|c| *c != '\0').ok_or_else(bad)?);
        rest = digits.get(length..).unwrap_or_default();
    }
    name.push_str(rest);
    Ok(name)
}

fn is_name_token(token: &SyntaxToken) -> bool {
    !token.kind().is_trivia() && token.kind() != SyntaxKind::DOT
}

/// The folded parts of a name, from a node that holds a path or a single name.
pub(super) fn parts(node: &SyntaxNode) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for token in node.descendants_with_tokens().filter_map(|element| element.into_token()) {
        if !is_name_token(&token) || matches!(token.kind(), SyntaxKind::STAR) {
            continue;
        }
        let word =
            token.text().starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '"' || !c.is_ascii());
        if !word {
            return Err(format!("{:?} stands where a name belongs", token.text()));
        }
        found.push(fold(token.text())?);
    }
    Ok(found)
}

/// The parts joined with dots, for objects that are only shown.
pub(super) fn dotted(node: &SyntaxNode) -> Result<String, String> {
    parts(node).map(|parts| parts.join("."))
}

/// Schema and name from one to three parts; a database in front of them can only be the current one.
pub(super) fn from_parts(mut parts: Vec<String>) -> Result<Name, String> {
    let name = parts.pop().filter(|_| parts.len() <= 2).ok_or("a name has too many or no parts")?;
    Ok(Name { schema: parts.pop(), name })
}

/// A relation's name. The node is a reference or a definition, possibly wrapped in ONLY and brackets.
pub(super) fn relation(node: &SyntaxNode) -> Result<Name, String> {
    let path = node
        .descendants()
        .find(|n| matches!(n.kind(), SyntaxKind::PATH_REF | SyntaxKind::PATH))
        .ok_or("a relation has no name")?;
    let first = path.descendants_with_tokens().filter_map(|e| e.into_token()).find(is_name_token);
    if let Some(first) = first {
        let word = first.text().to_ascii_lowercase();
        if RESERVED.binary_search(&word.as_str()).is_ok() {
            return Err(format!("the reserved word {word} stands where a relation belongs"));
        }
    }
    from_parts(parts(&path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folded_as_the_server_does() {
        for (written, folded) in [
            ("Users", "users"),
            ("\"Users\"", "Users"),
            ("\"a\"\"b\"", "a\"b"),
            ("U&\"\\0075sers\"", "users"),
            ("u&\"\\+000075sers\"", "users"),
            ("U&\"a\\\\b\"", "a\\b"),
            ("é", "é"),
        ] {
            assert_eq!(fold(written).as_deref(), Ok(folded), "{written}");
        }
        assert_eq!(fold(&"a".repeat(70)).map(|n| n.len()), Ok(63));
        assert_eq!(fold(&format!("\"{}é\"", "a".repeat(62))).map(|n| n.len()), Ok(62));
        for bad in ["\"\"", "U&\"\\d83d\\de00\"", "U&\"\\00\"", "É", "U&\"\\0000\""] {
            assert!(fold(bad).is_err(), "{bad}");
        }
        assert!(RESERVED.is_sorted());
    }
}
