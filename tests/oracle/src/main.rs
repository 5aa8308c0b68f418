//! Holds what `interceptor-core` reads in SQL against PostgreSQL's own parser, over a folder of SQL files:
//!
//!     interceptor-oracle FOLDER
//!
//! `cargo xtask oracle` builds it and runs it over all the SQL that PostgreSQL's source package tests with.
//!
//! Each statement that PostgreSQL's parser accepts either is unknown to us, or means the same: its kind, and every
//! relation and function that it names. What the parser knows and we miss is a fault, unless it is listed here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use interceptor_core::{
    model::StatementKind,
    sql::{Name, Reference, Statement, analyze},
};

/// Functions that the parser makes of grammar: they are no calls in the text, and only compute.
const GRAMMAR: [&str; 17] = [
    "btrim",
    "date_part",
    "extract",
    "is_normalized",
    "like_escape",
    "ltrim",
    "normalize",
    "overlaps",
    "overlay",
    "pg_collation_for",
    "position",
    "rtrim",
    "similar_to_escape",
    "substring",
    "timezone",
    "xmlexists",
    "system_user",
];

/// What came of one statement.
enum Finding {
    Agrees,
    /// We say that we do not know.
    Unknown(String),
    /// We say less than there is.
    Misses(String),
}

fn main() -> Result<ExitCode> {
    let folder =
        std::env::args().nth(1).context("which folder of SQL files? usage: interceptor-oracle FOLDER")?;
    let (mut agrees, mut missed) = (0_usize, Vec::new());
    let mut unknown: BTreeMap<String, usize> = BTreeMap::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("{folder} cannot be read"))? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "sql") {
            continue;
        }
        let texts = statements(&path)?;
        for text in texts.iter().flat_map(|text| apart(text)) {
            // PostgreSQL's own refusals are no part of this.
            let Ok(parsed) = pg_query::parse(&text, pg_query::ParserOptions::default()) else { continue };
            match compare(&text, &format!("{:?}", parsed.protobuf)) {
                Finding::Agrees => agrees += 1,
                Finding::Unknown(why) => *unknown.entry(why).or_default() += 1,
                Finding::Misses(what) => missed.push(format!("{}: {what}: {text}", path.display())),
            }
        }
    }
    let unsure: usize = unknown.values().sum();
    println!("{agrees} agree, {unsure} are unknown to us, {} say less than there is", missed.len());
    let mut reasons: Vec<_> = unknown.into_iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    reasons.iter().take(20).for_each(|(why, count)| println!("  unknown {count}: {why}"));
    missed.iter().for_each(|line| println!("  MISSED {line}"));
    Ok(if missed.is_empty() && agrees > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The statements of a file for `psql`, without its own commands and without the data behind COPY.
fn statements(path: &Path) -> Result<Vec<String>> {
    let bytes = fs::read(path)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut found = Vec::new();
    let mut rest = String::new();
    let mut data = false;
    for line in text.lines() {
        if data {
            data = line != "\\.";
        } else if line.starts_with('\\') {
            found.extend(split(&std::mem::take(&mut rest)));
        } else {
            rest.push_str(line);
            rest.push('\n');
            let lower = line.to_ascii_lowercase();
            data = lower.contains("from stdin") && lower.trim_end().ends_with(';');
        }
    }
    found.extend(split(&rest));
    Ok(found)
}

fn split(text: &str) -> Vec<String> {
    match pg_query::split_with_scanner(text) {
        Ok(parts) => parts.into_iter().map(str::to_owned).collect(),
        Err(_) => text.split(";\n").map(str::to_owned).collect(),
    }
}

/// The statements of a text that could only be split roughly.
fn apart(text: &str) -> Vec<String> {
    let parsed = pg_query::parse(text, pg_query::ParserOptions::default());
    let several = parsed.map(|parsed| parsed.protobuf.stmts).unwrap_or_default();
    if several.len() < 2 {
        return vec![text.to_owned()];
    }
    // The last one has no length.
    let end = |length: i32, begin: usize| if length == 0 { text.len() } else { begin + length as usize };
    let range = |begin: i32, length: i32| begin as usize..end(length, begin as usize);
    several
        .iter()
        .filter_map(|one| text.get(range(one.stmt_location, one.stmt_len)))
        .map(str::to_owned)
        .collect()
}

fn compare(text: &str, tree: &str) -> Finding {
    let statement = match analyze(text).as_deref() {
        Ok([statement]) => statement.clone(),
        Ok(several) => return Finding::Misses(format!("read as {} statements", several.len())),
        Err(why) => return Finding::Unknown(general(&why.0)),
    };
    if let Some(why) = &statement.unknown {
        return Finding::Unknown(general(&why.0));
    }
    if let Some(kinds) = kinds(tree)
        && !kinds.contains(&statement.kind)
    {
        return Finding::Misses(format!("kind {:?}", statement.kind));
    }
    let (relations, functions) = ours(&statement);
    let hidden: BTreeSet<String> = after(tree, "CommonTableExpr { ctename: ").collect();
    // A row type is a relation to the parser and a type to us; what FOR UPDATE OF names are aliases.
    // SET CONSTRAINTS names constraints.
    let typed = |(_, reference): &(_, Reference)| matches!(reference, Reference::Other { kind, .. } if kind == "type");
    let types = tree.contains("ConstraintsSetStmt") || statement.effects.iter().any(typed);
    // It names its tables without the schema that it makes them in.
    let bare = tree.contains("ImportForeignSchemaStmt");
    for (schema, name) in range_vars(&without_locked(tree)) {
        let cte = schema.is_empty() && hidden.contains(&name);
        let schema = if schema == "pg_temp" { String::new() } else { schema };
        let told = relations.contains(&(schema.clone(), name.clone()))
            || bare && relations.iter().any(|(_, known)| *known == name);
        if !cte && !types && !told {
            return Finding::Misses(format!("relation {schema}.{name}"));
        }
    }
    for name in called(tree) {
        if !functions.contains(&name) && !GRAMMAR.contains(&name.as_str()) {
            return Finding::Misses(format!("function {name}"));
        }
    }
    Finding::Agrees
}

/// A reason without what it quotes.
fn general(why: &str) -> String {
    why.split(|c: char| c.is_ascii_digit() || c == '"').next().unwrap_or_default().to_owned()
}

/// Relations and functions as we read them.
fn ours(statement: &Statement) -> (BTreeSet<(String, String)>, BTreeSet<String>) {
    let (mut relations, mut functions) = (BTreeSet::new(), BTreeSet::new());
    for (_, reference) in &statement.effects {
        match reference {
            Reference::Relation(Name { schema, name }) | Reference::Alone(Name { schema, name }) => {
                relations.insert((schema.clone().unwrap_or_default(), name.clone()));
            }
            Reference::NewRelation(Name { schema, name }) => {
                // A temporary one has a schema of ours.
                let schema = schema.clone().filter(|schema| schema != "pg_temp");
                relations.insert((schema.unwrap_or_default(), name.clone()));
            }
            Reference::Function(Name { name, .. })
            | Reference::SetConfig { function: Name { name, .. }, .. }
            | Reference::Attribute(name) => {
                functions.insert(name.clone());
            }
            _ => {}
        }
    }
    (relations, functions)
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
            c => value.push(c),
        }
    }
    None
}

/// The tree without the lists of FOR UPDATE OF.
fn without_locked(tree: &str) -> String {
    let mut parts = tree.split("locked_rels: [");
    let mut kept = parts.next().unwrap_or_default().to_owned();
    parts.for_each(|part| kept.push_str(part.split_once("], strength").map_or(part, |(_, rest)| rest)));
    kept
}

fn range_vars(tree: &str) -> Vec<(String, String)> {
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
fn called(tree: &str) -> Vec<String> {
    const KEY: &str = "FuncCall { funcname: [";
    let one = |at: usize| {
        let list = tree.get(at + KEY.len()..)?;
        let end = list.find("], args")?;
        after(list.get(..end)?, "String { sval: ").last()
    };
    tree.match_indices(KEY).filter_map(|(at, _)| one(at)).collect()
}

/// What a statement may be to us, by the parser's word for it; nothing where the words do not correspond.
fn kinds(tree: &str) -> Option<&'static [StatementKind]> {
    use StatementKind as K;
    const KEY: &str = "stmt: Some(Node { node: Some(";
    let word = tree.split_once(KEY)?.1.split_once('(')?.0;
    Some(match word {
        "SelectStmt" => &[K::Select],
        "InsertStmt" => &[K::Insert],
        "UpdateStmt" => &[K::Update],
        "DeleteStmt" => &[K::Delete],
        "MergeStmt" => &[K::Merge],
        "CopyStmt" => &[K::Copy],
        "TransactionStmt" => &[K::Transaction],
        "VariableSetStmt" => &[K::Set, K::Reset, K::Transaction],
        "VariableShowStmt" => &[K::Show],
        "PrepareStmt" => &[K::Prepare],
        "ExecuteStmt" => &[K::Execute],
        "DeallocateStmt" => &[K::Deallocate],
        "DeclareCursorStmt" => &[K::Declare],
        "FetchStmt" => &[K::Fetch],
        "ClosePortalStmt" => &[K::Close],
        "ExplainStmt" => &[K::Explain],
        "LockStmt" => &[K::Lock],
        "TruncateStmt" => &[K::Truncate],
        "CallStmt" => &[K::Call],
        "DoStmt" => &[K::Do],
        "ListenStmt" | "UnlistenStmt" => &[K::Listen],
        "NotifyStmt" => &[K::Notify],
        "DiscardStmt" => &[K::Discard],
        "VacuumStmt" | "ReindexStmt" | "ClusterStmt" | "CheckPointStmt" | "RefreshMatViewStmt" => {
            &[K::Maintenance]
        }
        "GrantStmt" | "GrantRoleStmt" => &[K::Grant, K::Revoke],
        "DropStmt" | "DropRoleStmt" | "DropdbStmt" | "DropOwnedStmt" => &[K::Drop],
        "CreateStmt" | "CreateTableAsStmt" | "ViewStmt" | "IndexStmt" | "CreateSeqStmt"
        | "CreateSchemaStmt" | "CreateFunctionStmt" | "CreateRoleStmt" | "CreatePolicyStmt" => &[K::Create],
        "AlterTableStmt" | "AlterSeqStmt" | "AlterRoleStmt" | "RenameStmt" | "AlterOwnerStmt" => &[K::Alter],
        _ => return None,
    })
}
