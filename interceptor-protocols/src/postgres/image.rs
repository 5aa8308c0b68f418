//! Images of the rows that an UPDATE or DELETE is about to change: one question about its table, and one query that
//! finds and locks the same rows by the statement's own condition.
//!
//! Promise: a pack comes out only where it is exact: the rows are locked as they were seen, each is found by its own
//! values, and their values in text form mean the same again. Whatever else there is, is a reason why not.

use bytes::Bytes;
use interceptor_core::{
    model::{Action, BindValue, Binds, Effect, Object, Phase, StatementFacts, StatementKind, Target, Verb},
    sql::{self, Change},
    undo::{Column, LONGEST_PACK, Pack, Role},
};

use super::{
    bind::Given,
    frame::{Fields, Malformed},
    lookup,
    own::{Own, Parameter},
};

/// The question about the table.
const TABLE: &str = include_str!("table.sql");
/// `oid` and `text[]`.
const PARAMETERS: [u32; 2] = [26, 1009];
/// How many columns a table may have; the server itself stops there.
const MAX_COLUMNS: usize = 1600;
/// Types whose text form hangs on the search path or the locale: `money`, and the names of objects.
const LOOSE_TYPES: [u32; 12] = [24, 790, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191];

/// The rows of an answer.
#[derive(Debug, Default)]
pub(super) struct Rows {
    rows: Vec<Vec<Option<String>>>,
    bytes: usize,
    spoilt: bool,
}

impl Rows {
    /// Takes one DataRow's body. Once there is too much, nothing more is kept.
    pub(super) fn row(&mut self, body: Bytes) {
        self.bytes = self.bytes.saturating_add(body.len());
        match read(body) {
            Ok(row) if !self.spoilt && self.bytes <= LONGEST_PACK / 2 => self.rows.push(row),
            _ => {
                self.spoilt = true;
                self.rows = Vec::new();
            }
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    fn whole(self) -> Result<Vec<Vec<Option<String>>>, String> {
        if self.spoilt { Err("its rows are too long for images of them".to_owned()) } else { Ok(self.rows) }
    }
}

fn read(body: Bytes) -> Result<Vec<Option<String>>, Malformed> {
    let mut fields = Fields::new(body);
    let count = fields.count()?;
    let row = (0..count).map(|_| {
        let value = fields.value()?;
        value.map(|value| String::from_utf8(value.to_vec()).map_err(|_| Malformed)).transpose()
    });
    let row = row.collect::<Result<_, _>>()?;
    fields.end()?;
    Ok(row)
}

/// A statement whose rows are being imaged.
#[derive(Debug)]
pub(super) struct Imaging {
    change: Change,
    table: Object,
    parameters: Vec<Parameter>,
    told: Binds,
    most: u64,
    seen: Option<Table>,
}

/// What was seen of the table.
#[derive(Debug)]
struct Table {
    transaction: u64,
    columns: Vec<Column>,
}

/// A statement to be imaged.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub(super) text: &'a str,
    pub(super) facts: &'a StatementFacts,
    /// Its values, with their types as far as they are known.
    pub(super) given: Option<&'a (Given, Vec<u32>)>,
    /// Whether a part of its transaction may be one of its own.
    pub(super) nesting: Nesting,
}

/// Whether there may be a savepoint in the transaction under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Nesting {
    #[default]
    None,
    /// What is written may carry another number than the transaction's.
    Savepoint,
}

impl Imaging {
    /// Begins, where at most `most` rows may change; or says why there can be no images.
    pub(super) fn of(subject: &Subject<'_>, most: u64) -> Result<Self, String> {
        if !subject.facts.is_counted() {
            return Err("it does more than change one table: what triggers, rules, functions and other tables do cannot \
                        be brought back"
                .to_owned());
        }
        let change = sql::change(subject.text)?;
        let table = written(subject.facts).ok_or("its table is not known")?;
        if subject.nesting == Nesting::Savepoint {
            return Err(
                "behind a SAVEPOINT it could not be told later whether it lasted: run it outside of one"
                    .to_owned(),
            );
        }
        let (mut parameters, mut told) = (Vec::new(), Binds::new());
        for number in &change.parameters {
            let place = number.checked_sub(1).ok_or("it has a parameter $0")?;
            let (given, types) = subject.given.ok_or("its values are too long to be looked for")?;
            let (value, format) = given.raw(place).ok_or("its values are too long to be looked for")?;
            let oid = types.get(place).copied().unwrap_or(0);
            parameters.push(Parameter { oid, format, value });
            told.extend(given.told(place, oid));
        }
        Ok(Self { change, table, parameters, told, most, seen: None })
    }

    /// Whether the statement, whose facts are these now, still changes the same table.
    pub(super) fn is_of(&self, facts: &StatementFacts) -> bool {
        written(facts).is_some_and(|table| table.oid == self.table.oid)
    }

    /// The question about the table.
    pub(super) fn table(&self) -> (Own<'static>, Action) {
        let oid = self.table.oid.unwrap_or(0).to_string();
        let calls = lookup::array(self.change.calls.iter().cloned().map(Some));
        let values = [oid, calls];
        let parameters = PARAMETERS.into_iter().zip(&values);
        let parameters = parameters
            .map(|(oid, value)| Parameter {
                oid,
                format: 0,
                value: Some(Bytes::copy_from_slice(value.as_bytes())),
            })
            .collect();
        let told = values.into_iter().zip(["oid", "text[]"]).map(|(value, name)| BindValue {
            r#type: name.into(),
            value: Some(value.into()),
            cut_from: None,
        });
        let catalogue = Target::Other { kind: "catalogue".to_owned(), name: "pg_catalog".to_owned() };
        let action = reading(TABLE, told.collect(), vec![Effect { verb: Verb::DataRead, target: catalogue }]);
        (Own { text: TABLE.into(), parameters }, action)
    }

    /// Takes the answer to [`Imaging::table`].
    pub(super) fn sees(&mut self, rows: Rows) -> Result<(), String> {
        let rows = rows.whole()?;
        let cells = |row: &[Option<String>]| -> Option<[String; 6]> {
            let cells: Vec<String> = row.iter().map(|cell| cell.clone().unwrap_or_default()).collect();
            cells.try_into().ok()
        };
        let (mut transaction, mut named, mut columns) = (None, false, Vec::new());
        for row in &rows {
            let [what, a, b, c, d, e] = cells(row).ok_or("the catalogue's answer has an unknown row")?;
            match what.as_str() {
                "s" => {
                    let lossless =
                        a.starts_with("ISO") && b == "postgres" && c.parse::<i32>().is_ok_and(|c| c >= 1);
                    if !lossless {
                        return Err("DateStyle, IntervalStyle or extra_float_digits are set so that values lose something \
                                    in text form: RESET them"
                            .to_owned());
                    }
                    if !e.is_empty() {
                        return Err(format!("its condition calls what answers differently each time ({e})"));
                    }
                    transaction = d.parse::<u64>().ok();
                }
                "t" => {
                    if a != "r" || b == "t" {
                        return Err("what it changes is not an ordinary table".to_owned());
                    }
                    self.table = Object { database: e, schema: c, name: d, oid: self.table.oid };
                    named = true;
                }
                "c" if columns.len() < MAX_COLUMNS => {
                    let number = a.parse::<u32>().map_err(|_| "the catalogue's answer has an unknown row")?;
                    if c.parse().is_ok_and(|r#type| LOOSE_TYPES.contains(&r#type)) {
                        return Err(format!("the text form of column {b} hangs on settings"));
                    }
                    columns.push((number, self.column(b, &d, &e)?));
                }
                _ => return Err("the catalogue's answer has an unknown row".to_owned()),
            }
        }
        columns.sort_by_key(|(number, _)| *number);
        let columns: Vec<Column> = columns.into_iter().map(|(_, column)| column).collect();
        let transaction = transaction.filter(|_| named && !columns.is_empty());
        let transaction = transaction.ok_or("its table is not there")?;
        if self.change.verb == Verb::DataUpdate && !columns.iter().any(|column| column.role == Role::Key) {
            return Err("its table has no primary key by which its rows could be found again".to_owned());
        }
        self.seen = Some(Table { transaction, columns });
        Ok(())
    }

    fn column(&self, name: String, kind: &str, key: &str) -> Result<Column, String> {
        let set = self.change.sets.contains(&name);
        let role = match (kind, key, set) {
            (_, "key", true) => {
                return Err(format!("it changes {name}, by which its rows would be found again"));
            }
            ("identity", _, true) => return Err(format!("it changes {name}, which only the server sets")),
            ("generated", ..) => Role::Generated,
            (_, "key", false) => Role::Key,
            (_, _, true) => Role::Set,
            (_, _, false) => Role::Plain,
        };
        Ok(Column { name, role })
    }

    /// The query that finds the rows and locks them.
    pub(super) fn rows(&self) -> Option<(Own<'static>, Action)> {
        let Change { table, row, condition, .. } = &self.change;
        let columns: Vec<String> = self
            .seen
            .as_ref()?
            .columns
            .iter()
            .map(|column| format!("{row}.\"{}\"", column.name.replace('"', "\"\"")))
            .collect();
        let columns = columns.join(", ");
        let limit = self.most.saturating_add(1);
        let text = format!(
            "/* interceptor: images of the rows that the next statement changes */ SELECT {columns} FROM {table} \
             {condition} LIMIT {limit} FOR UPDATE OF {row}"
        );
        let effect = |verb| Effect { verb, target: Target::Table(self.table.clone()) };
        let effects = vec![effect(Verb::DataRead), effect(Verb::DataLock)];
        let action = reading(&text, self.told.clone(), effects);
        Some((Own { text: text.into(), parameters: self.parameters.clone() }, action))
    }

    /// The pack that the answer to [`Imaging::rows`] makes.
    pub(super) fn pack(&mut self, rows: Rows) -> Result<Pack, String> {
        let rows = rows.whole()?;
        if u64::try_from(rows.len()).is_ok_and(|count| count > self.most) {
            return Err(format!(
                "it changes more than the {} rows of which images are taken: narrow it",
                self.most
            ));
        }
        let Table { transaction, columns } = self.seen.take().ok_or("its table is not known")?;
        if rows.iter().any(|row| row.len() != columns.len()) {
            return Err("the images of its rows are not whole".to_owned());
        }
        Ok(Pack { verb: self.change.verb, table: self.table.clone(), transaction, columns, rows })
    }
}

/// The table that is written.
fn written(facts: &StatementFacts) -> Option<Object> {
    facts.effects.iter().find_map(|effect| match (effect.verb, &effect.target) {
        (Verb::DataUpdate | Verb::DataDelete, Target::Table(table)) if table.oid.is_some() => {
            Some(table.clone())
        }
        _ => None,
    })
}

fn reading(text: &str, binds: Binds, effects: Vec<Effect>) -> Action {
    Action {
        phase: Phase::Execute,
        text: text.into(),
        binds,
        facts: StatementFacts {
            kind: StatementKind::Select,
            effects,
            has_where: true,
            has_limit: true,
            unknown: None,
            provenance: None,
            dialect: sql::Dialect::Postgres,
        }
        .into(),
    }
}
