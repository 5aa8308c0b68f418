//! Statements that make, change and remove objects.

use sqlparser::{
    ast::{
        AlterTableOperation, ColumnDef, ColumnOption, CreateTable, CreateTableLikeKind, CreateTableOptions,
        DataType, SqlOption, Statement, TableConstraint, helpers::stmt_create_table::CreateTableBuilder,
    },
    tokenizer::Token as Parsed,
};

use super::{
    Change, Name, Reading, Reference,
    cursor::Cursor,
    lexer::Kind,
    utility,
    walk::{Walk, name_of},
    words::is_reserved,
};
use crate::model::{StatementKind, Verb};

/// Storage engines that keep a table's rows themselves: others read files, other tables, or other servers.
const ENGINES: [&str; 4] = ["innodb", "myisam", "aria", "memory"];
/// Types, beside those that the parser knows, that are no more than types.
const TYPES: [&str; 11] = [
    "geometry",
    "geometrycollection",
    "inet4",
    "inet6",
    "linestring",
    "multilinestring",
    "multipoint",
    "multipolygon",
    "point",
    "polygon",
    "year",
];
/// Options of tables that say nothing of where their rows are.
const OPTIONS: [&str; 10] = [
    "auto_increment",
    "avg_row_length",
    "character set",
    "charset",
    "checksum",
    "collate",
    "comment",
    "default character set",
    "default charset",
    "row_format",
];

/// Whether a table of that engine has its rows in itself.
pub(super) fn keeps_rows(engine: &str) -> bool {
    ENGINES.iter().any(|one| one.eq_ignore_ascii_case(engine))
}

/// Whatever is left begins with CREATE, ALTER, DROP or RENAME, or is not read.
pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Reading, String> {
    let whole = *cursor;
    if cursor.takes(&["drop"]) {
        return drop_of(cursor);
    }
    if cursor.takes(&["rename", "table"]) {
        return rename(cursor);
    }
    if cursor.takes(&["create"]) {
        let replaces = cursor.takes(&["or", "replace"]);
        if cursor.takes(&["database"]) || cursor.takes(&["schema"]) {
            return database(cursor);
        }
        if cursor.takes(&["view"]) {
            return view(cursor, replaces);
        }
        if ["index", "unique", "fulltext"].iter().any(|word| cursor.sees(&[word])) {
            return index(cursor);
        }
        return created(&utility::parse(&whole.canonical())?);
    }
    if cursor.sees(&["alter", "table"]) {
        return altered(&utility::parse(&whole.canonical())?);
    }
    Err("a statement that is not read here".to_owned())
}

fn drop_of(cursor: &mut Cursor<'_>) -> Result<Reading, String> {
    let mut reading = Reading::of(StatementKind::Drop).changing(Change::Names);
    let _ = cursor.takes(&["temporary"]);
    let tables = cursor.takes_any(&["table", "tables", "view"]).is_some();
    let routines = !tables && cursor.takes_any(&["function", "procedure"]).is_some();
    let other = ["database", "schema", "trigger", "event", "sequence"];
    let other = if tables || routines { None } else { cursor.takes_any(&other) };
    cursor.takes(&["if", "exists"]);
    match other {
        None if tables => {
            for name in cursor.names().ok_or("DROP without a name")? {
                reading.add(Verb::SchemaDrop, Reference::Table(name));
            }
            let _ = cursor.takes_any(&["restrict", "cascade"]);
        }
        None if routines => {
            reading.add(Verb::SchemaDrop, Reference::Function(cursor.name().ok_or("DROP without a name")?));
        }
        None if cursor.takes(&["index"]) => {
            cursor.takes(&["if", "exists"]);
            let _index = cursor.identifier().ok_or("DROP INDEX without a name")?;
            let table =
                cursor.takes(&["on"]).then(|| cursor.name()).flatten().ok_or("DROP INDEX without a table")?;
            reading.add(Verb::SchemaAlter, Reference::Table(table));
        }
        None => return Err("DROP of something that is not read here".to_owned()),
        Some(place) => {
            let kind = if place <= 1 {
                "database"
            } else if place == 2 {
                "trigger"
            } else if place == 3 {
                "event"
            } else {
                "sequence"
            };
            let name = cursor.name().ok_or("DROP without a name")?;
            reading.add(Verb::SchemaDrop, Reference::Other { kind, name });
        }
    }
    utility::ended(cursor, reading)
}

fn rename(cursor: &mut Cursor<'_>) -> Result<Reading, String> {
    let mut reading = Reading::of(StatementKind::Alter).changing(Change::Names);
    loop {
        let from = cursor.name().ok_or("RENAME without a name")?;
        let to = cursor.takes(&["to"]).then(|| cursor.name()).flatten().ok_or("RENAME without a new name")?;
        renamed(&mut reading, from, to);
        if cursor.takes_kind(Kind::Comma).is_none() {
            return utility::ended(cursor, reading);
        }
    }
}

/// A table that has another name is gone under the old one.
fn renamed(reading: &mut Reading, from: Name, to: Name) {
    reading.add(Verb::SchemaAlter, Reference::Table(from.clone()));
    reading.add(Verb::SchemaDrop, Reference::Table(from));
    reading.add(Verb::SchemaCreate, Reference::Table(to));
}

fn database(cursor: &mut Cursor<'_>) -> Result<Reading, String> {
    cursor.takes(&["if", "not", "exists"]);
    let name = cursor.identifier().ok_or("CREATE DATABASE without a name")?;
    // Its character set and collation.
    while cursor.takes_any(&["default", "character", "set", "charset", "collate"]).is_some() {
        cursor.takes_operator("=");
        if !["character", "set", "charset", "collate"].iter().any(|word| cursor.sees(&[word])) {
            let _ = cursor.takes(&["binary"])
                || cursor.identifier().is_some()
                || cursor.takes_kind(Kind::Text).is_some();
        }
    }
    let reference = Reference::Other { kind: "database", name: Name { database: None, name } };
    utility::ended(
        cursor,
        Reading::doing(StatementKind::Create, Verb::SchemaCreate, reference).changing(Change::Names),
    )
}

fn view(cursor: &mut Cursor<'_>, replaces: bool) -> Result<Reading, String> {
    cursor.takes(&["if", "not", "exists"]);
    let name = cursor.name().ok_or("CREATE VIEW without a name")?;
    if cursor.takes_kind(Kind::Open).is_some() {
        while cursor.identifier().is_some() || cursor.takes_kind(Kind::Comma).is_some() {}
        cursor.takes_kind(Kind::Close).ok_or("columns of a view that are no names")?;
    }
    if !cursor.takes(&["as"]) {
        return Err("CREATE VIEW without a query".to_owned());
    }
    let mut reading = utility::of_parser(&cursor.canonical())?;
    reading.kind = StatementKind::Create;
    reading.add(Verb::SchemaCreate, Reference::Table(name.clone()));
    if replaces {
        reading.add(Verb::SchemaDrop, Reference::Table(name));
    }
    Ok(reading.changing(Change::Names))
}

fn index(cursor: &mut Cursor<'_>) -> Result<Reading, String> {
    let _ = cursor.takes_any(&["unique", "fulltext"]);
    if !cursor.takes(&["index"]) {
        return Err("CREATE of something that is not read here".to_owned());
    }
    cursor.takes(&["if", "not", "exists"]);
    cursor.identifier().ok_or("CREATE INDEX without a name")?;
    let table =
        cursor.takes(&["on"]).then(|| cursor.name()).flatten().ok_or("CREATE INDEX without a table")?;
    cursor.takes_kind(Kind::Open).ok_or("CREATE INDEX without columns")?;
    loop {
        cursor.identifier().ok_or("an index on what is no column")?;
        if cursor.takes_kind(Kind::Open).is_some() {
            cursor
                .takes_kind(Kind::Number)
                .and_then(|_| cursor.takes_kind(Kind::Close))
                .ok_or("an index on an expression")?;
        }
        let _ = cursor.takes_any(&["asc", "desc"]);
        if cursor.takes_kind(Kind::Comma).is_none() {
            break;
        }
    }
    cursor.takes_kind(Kind::Close).ok_or("columns of an index that do not end")?;
    utility::ended(
        cursor,
        Reading::doing(StatementKind::Create, Verb::SchemaAlter, Reference::Table(table))
            .changing(Change::Names),
    )
}

fn created(statement: &Statement) -> Result<Reading, String> {
    let Statement::CreateTable(table) = statement else {
        return Err("CREATE of something that is not read here".to_owned());
    };
    let name = name_of(&table.name)?;
    let mut walk = Walk::of(StatementKind::Create);
    walk.reading.add(Verb::SchemaCreate, Reference::Table(name.clone()));
    if table.or_replace {
        walk.reading.add(Verb::SchemaDrop, Reference::Table(name));
    }
    // What is not among these is as a table has it that says nothing of it, or the statement is not understood.
    let read = CreateTable {
        or_replace: table.or_replace,
        temporary: table.temporary,
        if_not_exists: table.if_not_exists,
        columns: table.columns.clone(),
        constraints: table.constraints.clone(),
        table_options: table.table_options.clone(),
        query: table.query.clone(),
        like: table.like.clone(),
        ..CreateTableBuilder::new(table.name.clone()).build()
    };
    if read != *table {
        walk.reading.not_understood("a table with something that is not read here");
    }
    table.columns.iter().for_each(|column| define(&mut walk, column));
    table.constraints.iter().for_each(|constraint| constrain(&mut walk, constraint));
    options(&mut walk, &table.table_options);
    if let Some(query) = &table.query {
        walk.query(query);
    }
    match &table.like {
        None => {}
        Some(CreateTableLikeKind::Plain(like) | CreateTableLikeKind::Parenthesized(like)) => {
            walk.reading.add(Verb::DataRead, Reference::Table(name_of(&like.name)?));
        }
    }
    Ok(walk.reading.changing(Change::Names))
}

fn define(walk: &mut Walk, column: &ColumnDef) {
    let ColumnDef { name, data_type, options } = column;
    // What is no column to the server may look like one to the parser: (LIKE t) is a column LIKE of type t.
    let is_word = name.quote_style.is_none() && is_reserved(&name.value);
    walk.only_if(!is_word, "a reserved word as a column");
    typed(walk, data_type);
    for option in options {
        match &option.option {
            ColumnOption::Null
            | ColumnOption::NotNull
            | ColumnOption::PrimaryKey(_)
            | ColumnOption::Unique(_)
            | ColumnOption::CharacterSet(_)
            | ColumnOption::Collation(_)
            | ColumnOption::Comment(_) => {}
            ColumnOption::Default(value) | ColumnOption::OnUpdate(value) => walk.expr(value),
            ColumnOption::Check(check) => walk.expr(&check.expr),
            ColumnOption::DialectSpecific(tokens) => {
                let harmless = ["AUTO_INCREMENT", "UNSIGNED", "ZEROFILL", "KEY", "UNIQUE"];
                let is_harmless = |token: &Parsed| matches!(token, Parsed::Word(word) if harmless.iter().any(|one| one.eq_ignore_ascii_case(&word.value)));
                if !tokens.iter().all(is_harmless) {
                    walk.reading.not_understood("a column with something that is not read here");
                }
            }
            ColumnOption::ForeignKey(key) => refer(walk, &key.foreign_table),
            other => walk.reading.not_understood(format!("a column with `{other}`")),
        }
    }
}

/// A column's type: one that the parser does not know may be something else.
fn typed(walk: &mut Walk, data_type: &DataType) {
    let fits = match data_type {
        DataType::Custom(name, arguments) => {
            arguments.is_empty() && TYPES.iter().any(|one| one.eq_ignore_ascii_case(&name.to_string()))
        }
        _ => true,
    };
    walk.only_if(fits, "such a type");
}

/// A foreign key: it tells of the rows of that table, and may change this one's by them.
fn refer(walk: &mut Walk, table: &sqlparser::ast::ObjectName) {
    match name_of(table) {
        Ok(name) => walk.reading.add(Verb::DataRead, Reference::Table(name)),
        Err(why) => walk.reading.not_understood(why),
    }
}

fn constrain(walk: &mut Walk, constraint: &TableConstraint) {
    match constraint {
        TableConstraint::Unique(_)
        | TableConstraint::PrimaryKey(_)
        | TableConstraint::Index(_)
        | TableConstraint::FulltextOrSpatial(_) => {}
        TableConstraint::ForeignKey(key) => refer(walk, &key.foreign_table),
        TableConstraint::Check(check) => walk.expr(&check.expr),
        other => walk.reading.not_understood(format!("a table with `{other}`")),
    }
}

fn options(walk: &mut Walk, options: &CreateTableOptions) {
    let options: &[SqlOption] = match options {
        CreateTableOptions::None => &[],
        CreateTableOptions::Plain(options) => options,
        CreateTableOptions::With(_)
        | CreateTableOptions::Options(_)
        | CreateTableOptions::TableProperties(_) => {
            return walk.reading.not_understood("a table with options that are not read here");
        }
    };
    for option in options {
        let fits = match option {
            SqlOption::Comment(_) => true,
            SqlOption::KeyValue { key, value: _ } => {
                OPTIONS.iter().any(|one| one.eq_ignore_ascii_case(&key.value))
            }
            SqlOption::NamedParenthesizedList(list) => {
                let engine = list.name.as_ref().map(|name| name.value.as_str());
                list.key.value.eq_ignore_ascii_case("engine")
                    && list.values.is_empty()
                    && engine.is_some_and(keeps_rows)
            }
            SqlOption::Ident(_)
            | SqlOption::Clustered(_)
            | SqlOption::Partition { .. }
            | SqlOption::TableSpace(_) => false,
        };
        if !fits {
            walk.reading.not_understood(format!("a table with `{option}`"));
        }
    }
}

fn altered(statement: &Statement) -> Result<Reading, String> {
    let Statement::AlterTable(alter) = statement else {
        return Err("ALTER of something that is not read here".to_owned());
    };
    let name = name_of(&alter.name)?;
    let mut walk = Walk::of(StatementKind::Alter);
    walk.reading.add(Verb::SchemaAlter, Reference::Table(name.clone()));
    if alter.only || alter.location.is_some() || alter.on_cluster.is_some() || alter.table_type.is_some() {
        walk.reading.not_understood("ALTER TABLE with something that is not read here");
    }
    for operation in &alter.operations {
        match operation {
            AlterTableOperation::AddConstraint { constraint, not_valid: false } => {
                constrain(&mut walk, constraint)
            }
            AlterTableOperation::AddColumn { column_def, .. } => define(&mut walk, column_def),
            AlterTableOperation::DropColumn { .. }
            | AlterTableOperation::DropConstraint { .. }
            | AlterTableOperation::DropPrimaryKey { .. }
            | AlterTableOperation::DropForeignKey { .. }
            | AlterTableOperation::DropIndex { .. }
            | AlterTableOperation::RenameColumn { .. } => {}
            AlterTableOperation::ChangeColumn { options, data_type, .. }
            | AlterTableOperation::ModifyColumn { options, data_type, .. } => {
                typed(&mut walk, data_type);
                for option in options {
                    let allowed = matches!(
                        option,
                        ColumnOption::Null
                            | ColumnOption::NotNull
                            | ColumnOption::Comment(_)
                            | ColumnOption::Unique(_)
                    );
                    match option {
                        ColumnOption::Default(value) => walk.expr(value),
                        _ if allowed => {}
                        other => walk.reading.not_understood(format!("a column with `{other}`")),
                    }
                }
            }
            other => walk.reading.not_understood(format!("ALTER TABLE with `{other}`")),
        }
    }
    Ok(walk.reading.changing(Change::Names))
}
