//! SHOW and DESCRIBE: each is a question to one of the server's own tables, and judged as reading that.

use super::{Name, Reading, Reference, cursor::Cursor, lexer::Kind};
use crate::model::{StatementKind, Verb};

/// What is shown, by its words, and the table of `information_schema` that has the same; none where it is of the
/// session's last statement alone.
const SHOWN: [(&[&str], Option<&str>); 33] = [
    (&["binary", "logs"], Some("processlist")),
    (&["character", "set"], Some("character_sets")),
    (&["charset"], Some("character_sets")),
    (&["collation"], Some("collations")),
    (&["columns"], Some("columns")),
    (&["create", "database"], Some("schemata")),
    (&["create", "schema"], Some("schemata")),
    (&["create", "table"], Some("columns")),
    (&["create", "view"], Some("views")),
    (&["create", "procedure"], Some("routines")),
    (&["create", "function"], Some("routines")),
    (&["create", "trigger"], Some("triggers")),
    (&["databases"], Some("schemata")),
    (&["engines"], Some("engines")),
    (&["errors"], None),
    (&["events"], Some("events")),
    (&["fields"], Some("columns")),
    (&["function", "status"], Some("routines")),
    (&["grants"], Some("user_privileges")),
    (&["index"], Some("statistics")),
    (&["indexes"], Some("statistics")),
    (&["keys"], Some("statistics")),
    (&["plugins"], Some("plugins")),
    (&["procedure", "status"], Some("routines")),
    (&["processlist"], Some("processlist")),
    (&["schemas"], Some("schemata")),
    (&["status"], Some("session_status")),
    (&["storage", "engines"], Some("engines")),
    (&["table", "status"], Some("tables")),
    (&["tables"], Some("tables")),
    (&["triggers"], Some("triggers")),
    (&["variables"], Some("session_variables")),
    (&["warnings"], None),
];

/// What reads that table of `information_schema`.
pub(super) fn of(table: &str, kind: StatementKind) -> Reading {
    let name = Name { database: Some("information_schema".to_owned()), name: table.to_owned() };
    Reading::doing(kind, Verb::DataRead, Reference::Table(name))
}

/// What stands behind SHOW.
pub(super) fn show(cursor: &mut Cursor<'_>) -> Result<Reading, String> {
    while cursor.takes_any(&["full", "extended", "global", "session", "local"]).is_some() {}
    let found = SHOWN.iter().find(|(words, _)| cursor.takes(words));
    let (words, table) = found.ok_or("SHOW of something that is not read here")?;
    if words.first() == Some(&"create") {
        let _ = cursor.takes(&["if", "not", "exists"]);
        cursor.name().ok_or("SHOW CREATE without a name")?;
    }
    while cursor.takes_any(&["from", "in"]).is_some() {
        cursor.name().ok_or("FROM without a name")?;
    }
    if cursor.takes(&["for"]) {
        let _ = cursor.takes(&["current_user"])
            || cursor.identifier().is_some()
            || cursor.takes_kind(Kind::Text).is_some();
        let _ = cursor.takes_kind(Kind::Variable).is_some() || cursor.takes_kind(Kind::Open).is_some();
        cursor.takes_kind(Kind::Close);
    }
    if cursor.takes(&["like"]) && cursor.takes_kind(Kind::Text).is_none() {
        return Err("LIKE without a string".to_owned());
    }
    if cursor.takes(&["limit"]) {
        while cursor.takes_kind(Kind::Number).is_some() || cursor.takes_kind(Kind::Comma).is_some() {}
    }
    Ok(match table {
        Some(table) => of(table, StatementKind::Show),
        None => Reading::of(StatementKind::Show),
    })
}
