//! Words that the server never takes for a name unless they stand in backticks.

/// Reserved words of MySQL or MariaDB that our parser might take for an alias or a table, sorted.
const RESERVED: [&str; 98] = [
    "all", "analyze", "and", "as", "asc", "between", "both", "by", "call", "case", "change", "check",
    "collate", "column", "constraint", "create", "cross", "cube", "database", "databases", "default",
    "delayed", "delete", "desc", "describe", "distinct", "distinctrow", "div", "drop", "dual", "each", "else",
    "elseif", "enclosed", "escaped", "except", "exists", "explain", "fetch", "for", "force", "foreign",
    "from", "fulltext", "grant", "group", "having", "high_priority", "if", "ignore", "in", "index", "inner",
    "insert", "intersect", "interval", "into", "is", "join", "key", "keys", "kill", "lateral", "leading",
    "left", "like", "limit", "lines", "load", "lock", "match", "mod", "natural", "not", "null", "on",
    "optimize", "or", "order", "outer", "outfile", "over", "partition", "procedure", "regexp", "rename",
    "replace", "right", "rlike", "select", "set", "straight_join", "table", "union", "update", "using",
    "where", "with",
];

/// Whether `word`, written without backticks, is reserved.
pub(super) fn is_reserved(word: &str) -> bool {
    RESERVED.binary_search(&word.to_ascii_lowercase().as_str()).is_ok()
}

#[cfg(test)]
#[test]
fn the_list_is_sorted() {
    assert!(RESERVED.is_sorted() && super::builtin::HARMLESS.is_sorted());
}
