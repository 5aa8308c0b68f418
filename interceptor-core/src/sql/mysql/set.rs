//! SET: settings of the session and of the server, and users' variables.

use super::{
    Change, Reading, Reference,
    cursor::Cursor,
    lexer::{Kind, unquoted},
    settings::{Charset, reads_otherwise},
    utility,
};
use crate::model::{StatementKind, Verb};

/// Settings by which a session becomes somebody else, or reaches further.
const OF_ACCESS: [&str; 4] = ["password", "role", "default", "resource"];

/// What stands behind SET.
pub(super) fn read(mut cursor: Cursor<'_>) -> Result<Reading, String> {
    let mut reading = Reading::of(StatementKind::Set).changing(Change::Settings);
    if OF_ACCESS.iter().any(|word| cursor.sees(&[word])) {
        reading.add(Verb::AccessChange, Reference::Resource);
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
    let global = transaction.takes(&["global"]);
    if !global {
        let _ = transaction.takes(&["session"]) || transaction.takes(&["local"]);
    }
    if transaction.takes(&["transaction"]) {
        add(&mut reading, "transaction", global);
        // It has words and commas alone.
        while transaction.takes_kind(Kind::Word).is_some() || transaction.takes_kind(Kind::Comma).is_some() {}
        return utility::ended(&transaction, reading);
    }
    loop {
        let part = cursor.take_part();
        assignment(part, &mut reading)?;
        if cursor.takes_kind(Kind::Comma).is_none() {
            return utility::ended(&cursor, reading);
        }
    }
}

fn add(reading: &mut Reading, name: &str, global: bool) {
    let setting = Reference::Setting(name.to_ascii_lowercase());
    reading.add(if global { Verb::AccessChange } else { Verb::SessionChange }, setting);
}

fn charset(cursor: &mut Cursor<'_>, reading: &mut Reading, name: &str) -> Result<(), String> {
    add(reading, name, false);
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

/// One assignment.
fn assignment(mut part: Cursor<'_>, reading: &mut Reading) -> Result<(), String> {
    let mut global = false;
    let name = if let Some(variable) = part.takes_kind(Kind::Variable) {
        match variable.strip_prefix("@@") {
            None => None,
            Some(system) => Some(scoped(system, &mut global)?),
        }
    } else {
        global = part.takes_any(&["global", "persist", "persist_only"]).is_some();
        let _ = part.takes_any(&["session", "local"]);
        Some(part.identifier().ok_or("SET without a name")?)
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
        Some(name) => system(&name, part, global, reading),
        // Nobody else sees it, and nothing is read by it.
        None => add(reading, "@", false),
    }
    Ok(())
}

/// A word on its own, such as ON, is a value; to the parser it is a column.
fn in_brackets(part: Cursor<'_>) -> String {
    let mut one = part;
    let is_word = matches!(one.next(), Some((Kind::Word, _))) && one.is_empty();
    if is_word { "1".to_owned() } else { format!("( {} )", part.canonical()) }
}

fn scoped(name: &str, global: &mut bool) -> Result<String, String> {
    Ok(match name.split_once('.') {
        None => name.to_owned(),
        Some((scope, rest))
            if scope.eq_ignore_ascii_case("session") || scope.eq_ignore_ascii_case("local") =>
        {
            rest.to_owned()
        }
        Some((scope, rest)) if scope.eq_ignore_ascii_case("global") => {
            *global = true;
            rest.to_owned()
        }
        Some(_) => return Err("a setting of a scope that is not read here".to_owned()),
    })
}

fn system(name: &str, value: Cursor<'_>, global: bool, reading: &mut Reading) {
    let name = name.to_ascii_lowercase();
    add(reading, &name, global);
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
        _ => {}
    }
}
