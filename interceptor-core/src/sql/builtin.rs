//! Which built-in functions and operators do nothing but compute.
//!
//! The list of functions is explicit, by OID (`builtin.txt`): volatility is trusted for nothing, since
//! `table_to_xml` is STABLE and reads any table. A function that is not listed is asked about.

use std::{collections::BTreeSet, sync::LazyLock};

use crate::model::Verb;

static HARMLESS: LazyLock<BTreeSet<u32>> = LazyLock::new(|| {
    include_str!("builtin.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| line.split_ascii_whitespace().skip(1))
        .filter_map(|oid| oid.parse().ok())
        .collect()
});

/// Names of the operators of `pg_catalog`, in order; `=>` names an argument.
const OPERATORS: [&str; 76] = [
    "!!", "!=", "!~", "!~*", "!~~", "!~~*", "#", "##", "#-", "#>", "#>>", "%", "&", "&&", "&<", "&<|", "&>",
    "*", "*<", "*<=", "*<>", "*=", "*>", "*>=", "+", "-", "->", "->>", "-|-", "/", "<", "<->", "<<", "<<=",
    "<<|", "<=", "<>", "<@", "<^", "=", "=>", ">", ">=", ">>", ">>=", ">^", "?", "?#", "?&", "?-", "?-|",
    "?|", "?||", "@", "@-@", "@>", "@?", "@@", "@@@", "^", "^@", "|", "|&>", "|/", "|>>", "||", "||/", "~",
    "~*", "~<=~", "~<~", "~=", "~>=~", "~>~", "~~", "~~*",
];

/// Whether an operator of this name is built in. One that is not calls a function of a user's.
pub(super) fn is_builtin_operator(name: &str) -> bool {
    OPERATORS.binary_search(&name).is_ok()
}

/// Whether all of `oids` are functions that only compute from their arguments, or tell of the session and of the
/// catalogue what any role may know.
pub(super) fn is_harmless(oids: &[u32]) -> bool {
    !oids.is_empty() && oids.iter().all(|oid| HARMLESS.contains(oid))
}

/// Whether a function is harmless where it is not called by a statement but by what stands in the catalogue:
/// the triggers of foreign keys and of deferred unique keys, those that only compute, and the next value of a
/// sequence.
pub(super) fn is_harmless_besides(oid: u32) -> bool {
    /// `unique_key_recheck`, `suppress_redundant_updates_trigger`, `nextval`, `tsvector_update_trigger` twice.
    const MORE: [u32; 5] = [1250, 1291, 1574, 3752, 3753];
    /// `RI_FKey_check_ins` to `RI_FKey_noaction_upd`.
    const FOREIGN_KEYS: std::ops::RangeInclusive<u32> = 1644..=1655;
    HARMLESS.contains(&oid) || FOREIGN_KEYS.contains(&oid) || MORE.contains(&oid)
}

/// What a built-in function that is not harmless does, where a better word is known than "is called".
pub(super) fn verb_of(name: &str) -> Verb {
    const RUNS_SQL: [&str; 5] = ["query_to_", "table_to_", "schema_to_", "database_to_", "cursor_to_"];
    const REACHES: [&str; 21] = [
        "dblink",
        "lo_export",
        "lo_import",
        "pg_backup_",
        "pg_copy_",
        "pg_create_",
        "pg_current_logfile",
        "pg_drop_replication",
        "pg_file_",
        "pg_hba_",
        "pg_ident_",
        "pg_logical_",
        "pg_ls_",
        "pg_promote",
        "pg_read_",
        "pg_reload_conf",
        "pg_replication_",
        "pg_rotate_",
        "pg_show_all_file",
        "pg_stat_file",
        "pg_wal_replay_",
    ];
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    match name {
        "pg_notify" => Verb::Notify,
        // Where the text names the setting, that is told before anybody comes here.
        "set_config" | "ts_stat" | "ts_rewrite" => Verb::Unknown,
        _ if begins(&RUNS_SQL) => Verb::Unknown,
        _ if begins(&REACHES) => Verb::ServerReach,
        _ => Verb::FunctionCall,
    }
}

/// Grammar of newer servers that older ones read as calls: where no function of the name exists, none is called.
pub(super) fn is_newer_grammar(name: &str) -> bool {
    matches!(
        name,
        "json"
            | "json_array"
            | "json_arrayagg"
            | "json_exists"
            | "json_object"
            | "json_objectagg"
            | "json_query"
            | "json_scalar"
            | "json_serialize"
            | "json_table"
            | "json_value"
            | "merge_action"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_in_order_and_hold_nothing_that_reaches_out() {
        assert!(OPERATORS.is_sorted());
        assert!(HARMLESS.len() > 1000);
        for line in include_str!("builtin.txt").lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(' ').next().unwrap_or_default();
            assert_eq!(verb_of(name), Verb::FunctionCall, "{name}");
            for bad in
                ["advisory", "sleep", "terminate", "cancel", "nextval", "setval", "_stat_get", "to_xml"]
            {
                assert!(!name.contains(bad), "{name}");
            }
        }
        // upper(text), table_to_xml, nothing.
        assert!(is_harmless(&[871]));
        assert!(!is_harmless(&[871, 2923]));
        assert!(!is_harmless(&[]));
    }
}
