//! From tokens to a reading: by the words that a statement begins with. What is short is read here and by `show.rs`,
//! `set.rs` and `ddl.rs`, token by token; queries and changes of rows go to the parser and to `walk.rs`.

use sqlparser::{ast::Statement, dialect::MySqlDialect, parser::Parser, tokenizer};

use super::{
    Change, Reading, Reference,
    cursor::Cursor,
    ddl,
    lexer::{Kind, Token},
    set, show,
    walk::Walk,
};
use crate::model::{StatementKind, Verb};

/// How deep the parser may go.
const RECURSION: usize = 200;

/// What statements of the server's own administration begin with, as far as it tells that they are such.
const ADMINISTRATION: [&[&str]; 23] = [
    &["alter", "user"],
    &["alter", "server"],
    &["backup"],
    &["change"],
    &["create", "or", "replace", "role"],
    &["create", "or", "replace", "user"],
    &["create", "role"],
    &["create", "server"],
    &["create", "user"],
    &["drop", "role"],
    &["drop", "server"],
    &["drop", "user"],
    &["flush"],
    &["grant"],
    &["kill"],
    &["purge"],
    &["rename", "user"],
    &["reset"],
    &["revoke"],
    &["shutdown"],
    &["start", "replica"],
    &["start", "slave"],
    &["stop"],
];

/// What statements begin with by which the server reads or runs something outside of its data.
const REACHING: [&[&str]; 9] = [
    &["binlog"],
    &["cache", "index"],
    &["create", "aggregate"],
    &["create", "tablespace"],
    &["install"],
    &["load", "data"],
    &["load", "index"],
    &["load", "xml"],
    &["uninstall"],
];

/// Reads the statement of these tokens.
pub(super) fn statement(text: &str, tokens: &[Token]) -> Reading {
    let mut cursor = Cursor::new(text, tokens);
    if cursor.is_empty() {
        return Reading::of(StatementKind::Empty);
    }
    if cursor.has(&["into", "outfile"]) || cursor.has(&["into", "dumpfile"]) {
        return reaching(StatementKind::Select, "it writes a file on the server");
    }
    if cursor.has(&["next", "value", "for"]) || cursor.has(&["previous", "value", "for"]) {
        // What it takes from a sequence, the parser would read as a lock.
        return Reading::unknown(kind(&cursor), "the value of a sequence");
    }
    if ADMINISTRATION.iter().any(|words| cursor.sees(words)) {
        return administration(cursor);
    }
    if REACHING.iter().any(|words| cursor.sees(words)) {
        return reaching(StatementKind::Unknown, "it makes the server reach beyond its data");
    }
    let read = read(&mut cursor);
    // A statement whose words go on is another one than was read.
    read.unwrap_or_else(|why| Reading::unknown(kind(&Cursor::new(text, tokens)), why))
}

fn reaching(kind: StatementKind, why: &str) -> Reading {
    let mut reading = Reading::doing(kind, Verb::ServerReach, Reference::Resource);
    reading.not_understood(format!("{why}, and what else it does is not read"));
    reading
}

/// Users, rights, replication, other sessions: whatever it is exactly, it changes who may do what.
fn administration(cursor: Cursor<'_>) -> Reading {
    let kind = kind(&cursor);
    Reading::doing(kind, Verb::AccessChange, Reference::Resource).changing(Change::Names)
}

/// The kind of a statement, by its first word.
fn kind(cursor: &Cursor<'_>) -> StatementKind {
    let words = [
        ("alter", StatementKind::Alter),
        ("call", StatementKind::Call),
        ("create", StatementKind::Create),
        ("delete", StatementKind::Delete),
        ("drop", StatementKind::Drop),
        ("execute", StatementKind::Execute),
        ("explain", StatementKind::Explain),
        ("grant", StatementKind::Grant),
        ("insert", StatementKind::Insert),
        ("prepare", StatementKind::Prepare),
        ("replace", StatementKind::Insert),
        ("revoke", StatementKind::Revoke),
        ("select", StatementKind::Select),
        ("set", StatementKind::Set),
        ("show", StatementKind::Show),
        ("truncate", StatementKind::Truncate),
        ("update", StatementKind::Update),
        ("with", StatementKind::Select),
        ("flush", StatementKind::Maintenance),
        ("kill", StatementKind::Maintenance),
    ];
    words.iter().find(|(word, _)| cursor.sees(&[word])).map_or(StatementKind::Unknown, |(_, kind)| *kind)
}

fn read(cursor: &mut Cursor<'_>) -> Result<Reading, String> {
    if cursor.kind() == Some(Kind::Open)
        || ["select", "with", "insert", "replace", "update", "delete", "values"]
            .iter()
            .any(|word| cursor.sees(&[word]))
    {
        return parsed(cursor);
    }
    for known in [transaction, tables] {
        // What it took before it gave up is still to be read.
        let mut tried = *cursor;
        if let Some(reading) = known(&mut tried) {
            return ended(&tried, reading);
        }
    }
    if cursor.takes(&["use"]) {
        let database = cursor.identifier().ok_or("USE without a database")?;
        let reading = Reading::doing(
            StatementKind::Set,
            Verb::SessionChange,
            Reference::Setting("database".to_owned()),
        );
        return ended(cursor, reading.changing(Change::Database(database)));
    }
    if cursor.takes(&["set"]) {
        return set::read(*cursor);
    }
    if cursor.takes(&["show"]) {
        let reading = show::show(cursor)?;
        return ended(cursor, reading);
    }
    if cursor.takes_any(&["explain", "describe", "desc"]).is_some() {
        return explain(cursor);
    }
    if cursor.takes(&["call"]) {
        return call(cursor);
    }
    if cursor.takes(&["do"]) {
        let mut reading = of_parser(&format!("SELECT {}", cursor.canonical()))?;
        reading.kind = StatementKind::Do;
        return Ok(reading);
    }
    ddl::read(cursor)
}

/// `reading`, if nothing follows.
pub(super) fn ended(cursor: &Cursor<'_>, reading: Reading) -> Result<Reading, String> {
    if cursor.is_empty() { Ok(reading) } else { Err("it goes on where it is not read any more".to_owned()) }
}

fn transaction(cursor: &mut Cursor<'_>) -> Option<Reading> {
    let done = || Reading::doing(StatementKind::Transaction, Verb::Transaction, Reference::Resource);
    if cursor.takes(&["begin"]) {
        cursor.takes(&["work"]);
        return Some(done());
    }
    if cursor.takes(&["start", "transaction"]) {
        for words in [&["with", "consistent", "snapshot"][..], &["read", "only"], &["read", "write"]] {
            cursor.takes(words);
        }
        return Some(done());
    }
    if cursor.takes(&["commit"]) {
        cursor.takes(&["work"]);
        return Some(done());
    }
    if cursor.takes(&["rollback"]) {
        cursor.takes(&["work"]);
        if cursor.takes(&["to"]) {
            cursor.takes(&["savepoint"]);
            cursor.identifier()?;
        }
        return Some(done());
    }
    if cursor.takes(&["savepoint"]) || cursor.takes(&["release", "savepoint"]) {
        cursor.identifier()?;
        return Some(done());
    }
    cursor.takes(&["unlock", "tables"]).then(done)
}

/// LOCK TABLES, TRUNCATE, and what looks after tables.
fn tables(cursor: &mut Cursor<'_>) -> Option<Reading> {
    if cursor.takes(&["lock", "tables"]) || cursor.takes(&["lock", "table"]) {
        let mut reading = Reading::of(StatementKind::Lock);
        loop {
            reading.add(Verb::DataLock, Reference::Table(cursor.name()?));
            if cursor.takes(&["as"]) || !(cursor.sees(&["read"]) || cursor.sees(&["write"])) {
                cursor.identifier()?;
            }
            let _ = cursor.takes(&["read", "local"]) || cursor.takes(&["read"]) || cursor.takes(&["write"]);
            if cursor.takes_kind(Kind::Comma).is_none() {
                return Some(reading);
            }
        }
    }
    if cursor.takes(&["truncate"]) {
        cursor.takes(&["table"]);
        let name = cursor.name()?;
        return Some(Reading::doing(StatementKind::Truncate, Verb::DataTruncate, Reference::Table(name)));
    }
    let words = ["analyze", "optimize", "check", "repair"];
    if words.iter().any(|word| cursor.sees(&[word, "table"])) {
        cursor.takes_any(&words)?;
        cursor.takes(&["table"]);
        let mut reading = Reading::of(StatementKind::Maintenance);
        for name in cursor.names()? {
            reading.add(Verb::Maintenance, Reference::Table(name));
        }
        return Some(reading);
    }
    None
}

fn explain(cursor: &mut Cursor<'_>) -> Result<Reading, String> {
    let explained = ["select", "with", "insert", "replace", "update", "delete"];
    cursor.takes(&["extended"]);
    if cursor.takes(&["format"]) && !(cursor.takes_operator("=") && cursor.identifier().is_some()) {
        return Err("FORMAT without one".to_owned());
    }
    if explained.iter().any(|word| cursor.sees(&[word])) {
        // A server may carry out parts of it to explain it.
        let reading = parsed(cursor)?;
        return Ok(Reading { kind: StatementKind::Explain, ..reading });
    }
    cursor.name().ok_or("it explains neither a statement nor a table")?;
    let _ = cursor.identifier().is_some() || cursor.takes_kind(Kind::Text).is_some();
    ended(cursor, show::of("columns", StatementKind::Explain))
}

fn call(cursor: &mut Cursor<'_>) -> Result<Reading, String> {
    let name = cursor.name().ok_or("CALL without a procedure")?;
    let arguments = if cursor.is_empty() { String::new() } else { cursor.canonical() };
    let mut reading = match arguments.replace(['(', ')', ' '], "").is_empty() {
        true => Reading::of(StatementKind::Call),
        false => of_parser(&format!("SELECT coalesce {arguments}"))?,
    };
    reading.kind = StatementKind::Call;
    reading.add(Verb::FunctionCall, Reference::Function(name));
    // It may set what it likes, and make what it likes.
    Ok(reading.changing(Change::Settings).changing(Change::Names))
}

/// What the parser makes of what is left.
fn parsed(cursor: &Cursor<'_>) -> Result<Reading, String> {
    let words = ["lock", "in", "share", "mode"];
    let canonical = match cursor.without_end(&words) {
        // The parser knows it by its newer name alone.
        Some(before) => format!("{} FOR SHARE", before.canonical()),
        None => cursor.canonical(),
    };
    of_parser(&canonical)
}

/// What the parser makes of a statement, of which no strings and no comments are left.
pub(super) fn of_parser(canonical: &str) -> Result<Reading, String> {
    Ok(Walk::statement(&parse(canonical)?))
}

/// The one statement of a text.
pub(super) fn parse(canonical: &str) -> Result<Statement, String> {
    let parser = Parser::new(&MySqlDialect {}).with_recursion_limit(RECURSION);
    let error = |error| format!("it could not be read: {error}");
    let mut parser = parser.try_with_sql(canonical).map_err(error)?;
    let statement = parser.parse_statement().map_err(error)?;
    // Asked for all statements, the parser would leave off at a word END.
    match parser.peek_token().token {
        tokenizer::Token::EOF => Ok(statement),
        other => Err(format!("it goes on with `{other}` where it is not read any more")),
    }
}
