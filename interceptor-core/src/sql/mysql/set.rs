//! SET: settings of the session and of the server, and users' variables.

use super::{
    Change, Reading, Reference,
    cursor::Cursor,
    ddl,
    lexer::{Kind, unquoted},
    settings::{Charset, reads_otherwise},
    utility,
};
use crate::model::{StatementKind, Verb};

/// Words behind SET by which a session becomes somebody else, or reaches further.
const OF_ACCESS: [&str; 4] = ["password", "role", "default", "resource"];
/// Settings of the engine that tables get that are made without one, or with another.
const OF_ENGINES: [&str; 4] =
    ["default_storage_engine", "default_tmp_storage_engine", "enforce_storage_engine", "storage_engine"];
/// Settings by which statements mean something else, write files, or read a table that they do not name.
const OF_MEANING: [&str; 5] =
    ["debug", "debug_dbug", "innodb_ft_user_stopword_table", "innodb_tmpdir", "system_versioning_asof"];

/// Whose settings an assignment without a word of its own changes: the last such word holds on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Session,
    /// Everybody's.
    Global,
    /// The session's behind a word that says everybody's: servers differ in how far that word holds.
    Either,
}

/// What stands behind SET.
pub(super) fn read(mut cursor: Cursor<'_>) -> Result<Reading, String> {
    let mut reading = Reading::of(StatementKind::Set).changing(Change::Settings);
    if OF_ACCESS.iter().any(|word| cursor.sees(&[word])) {
        reading.add(Verb::AccessChange, Reference::Resource);
        // Servers let other assignments follow.
        let first = cursor.take_part();
        if !cursor.is_empty() || first.has(&["select"]) {
            reading.not_understood("SET of who may do what, and something else besides");
        }
        return Ok(reading);
    }
    if cursor.takes(&["names"]) {
        charset(&mut cursor, &mut reading, "names")?;
        return utility::ended(&cursor, reading);
    }
    if cursor.takes(&["character", "set"]) || cursor.takes(&["charset"]) {
        charset(&mut cursor, &mut reading, "character_set")?;
        return utility::ended(&cursor, reading);
    }
    let mut transaction = cursor;
    let scope = keyword(&mut transaction).unwrap_or(Scope::Session);
    if transaction.takes(&["transaction"]) {
        add(&mut reading, "transaction", scope);
        // It has words and commas alone.
        while transaction.takes_kind(Kind::Word).is_some() || transaction.takes_kind(Kind::Comma).is_some() {}
        return utility::ended(&transaction, reading);
    }
    let mut scope = Scope::Session;
    loop {
        let mut part = cursor.take_part();
        scope = keyword(&mut part).unwrap_or(scope);
        assignment(part, scope, &mut reading)?;
        if cursor.takes_kind(Kind::Comma).is_none() {
            return utility::ended(&cursor, reading);
        }
    }
}

/// The word of a scope.
fn keyword(cursor: &mut Cursor<'_>) -> Option<Scope> {
    let word = cursor.takes_any(&["session", "local", "global", "persist", "persist_only"])?;
    Some(if word <= 1 { Scope::Session } else { Scope::Global })
}

fn add(reading: &mut Reading, name: &str, scope: Scope) {
    let setting = Reference::Setting(name.to_ascii_lowercase());
    if scope != Scope::Global {
        reading.add(Verb::SessionChange, setting.clone());
    }
    if scope != Scope::Session {
        reading.add(Verb::AccessChange, setting);
    }
}

fn charset(cursor: &mut Cursor<'_>, reading: &mut Reading, name: &str) -> Result<(), String> {
    add(reading, name, Scope::Session);
    let (kind, written) = cursor.next().ok_or("SET NAMES without a name")?;
    let written = if kind == Kind::Text { unquoted(written) } else { written.to_owned() };
    if !written.eq_ignore_ascii_case("default") && Charset::named(&written) == Charset::Other {
        reading.not_understood(format!("texts in the character set {written} cannot be read"));
    }
    if cursor.takes(&["collate"]) {
        cursor.next().ok_or("COLLATE without a name")?;
    }
    Ok(())
}

/// One assignment, in a list whose last word of a scope is `listed`.
fn assignment(mut part: Cursor<'_>, listed: Scope, reading: &mut Reading) -> Result<(), String> {
    let variable = part.takes_kind(Kind::Variable);
    let name = match variable.map(|variable| variable.strip_prefix("@@")) {
        Some(None) => None,
        Some(Some(system)) => Some(scoped(system, listed)?),
        None if OF_ACCESS.iter().any(|word| part.sees(&[word])) => {
            return Err("SET of who may do what among other assignments".to_owned());
        }
        None => Some((part.identifier().ok_or("SET without a name")?, listed)),
    };
    if !part.takes_operator("=") && !part.takes_operator(":=") {
        return Err("SET without a value".to_owned());
    }
    if part.is_empty() {
        return Err("SET without a value".to_owned());
    }
    // What it is set to may read tables.
    let value = utility::of_parser(&format!("SELECT {}", in_brackets(part)))?;
    value.effects.into_iter().for_each(|(verb, reference)| reading.add(verb, reference));
    reading.unknown = reading.unknown.take().or(value.unknown);
    match name {
        Some((name, scope)) => system(&name, part, scope, reading),
        // Nobody else sees it, and nothing is read by it.
        None => add(reading, "@", Scope::Session),
    }
    Ok(())
}

/// A word on its own, such as ON, is a value; to the parser it is a column.
fn in_brackets(part: Cursor<'_>) -> String {
    let mut one = part;
    let is_word = matches!(one.next(), Some((Kind::Word, _))) && one.is_empty();
    if is_word { "1".to_owned() } else { format!("( {} )", part.canonical()) }
}

/// The name of a setting behind `@@`, and whose it is.
fn scoped(name: &str, listed: Scope) -> Result<(String, Scope), String> {
    let Some((scope, rest)) = name.split_once('.') else {
        let scope = if listed == Scope::Session { Scope::Session } else { Scope::Either };
        return Ok((name.to_owned(), scope));
    };
    match scope.to_ascii_lowercase().as_str() {
        "session" | "local" => Ok((rest.to_owned(), Scope::Session)),
        "global" => Ok((rest.to_owned(), Scope::Global)),
        _ => Err("a setting of a scope that is not read here".to_owned()),
    }
}

fn system(name: &str, value: Cursor<'_>, scope: Scope, reading: &mut Reading) {
    let name = name.to_ascii_lowercase();
    add(reading, &name, scope);
    let mut one = value;
    let literal = match one.next() {
        Some((Kind::Text, written)) if one.is_empty() => Some(unquoted(written)),
        Some((Kind::Word, written)) if one.is_empty() => Some(written.to_owned()),
        _ => None,
    };
    match name.as_str() {
        "sql_mode" => {
            match literal.as_deref() {
                None => reading.not_understood("`sql_mode` is set to what the text does not tell"),
                // What that is, the session is asked for.
                Some(default) if default.eq_ignore_ascii_case("default") => {}
                Some(mode) => {
                    if let Some(word) = reads_otherwise(mode) {
                        reading
                            .not_understood(format!("with {word} in `sql_mode`, texts mean something else"));
                    }
                }
            }
        }
        "character_set_client" | "character_set_connection" | "collation_connection" => {
            let fits = literal.as_deref().is_some_and(|literal| {
                let charset = literal.split('_').next().unwrap_or_default();
                Charset::named(charset) != Charset::Other
            });
            if !fits {
                reading.not_understood(format!("texts cannot be read once `{name}` is this"));
            }
        }
        engine if OF_ENGINES.contains(&engine) => {
            let fits = literal.as_deref().is_some_and(|literal| {
                // What the server is set up with, its operator answers for.
                ddl::keeps_rows(literal)
                    || ["default", "null"].iter().any(|one| one.eq_ignore_ascii_case(literal))
            });
            if !fits {
                reading.not_understood(format!("`{name}` is set to an engine that may keep rows elsewhere"));
            }
        }
        meaning if OF_MEANING.contains(&meaning) => {
            reading.not_understood(format!("what statements do once `{name}` is set is not read"));
        }
        _ => {}
    }
}
