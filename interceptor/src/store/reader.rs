//! Answers for people: tail, one record, search, export. Reads beside a living keeper and without one; what is not
//! in the index yet is read from the segments' end.

use std::path::{Path, PathBuf};

use interceptor_core::model::{ConnectionId, Entry, OutcomeRecord, RecordId, RequestRecord, RunId, Spent};
use rusqlite::{Connection, OptionalExtension, ToSql, params_from_iter};
use serde::Serialize;

use super::{
    Line, StoreError,
    index::{Index, Number, Place, place_in},
    line::{self, Parsed},
    places,
    segment::{self, Lines},
};

/// Records that an export reads at once.
const PAGE: usize = 500;

/// A request and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FullRecord {
    /// Its id.
    pub id: RecordId,
    /// What was asked and decided.
    pub request: RequestRecord,
    /// What came of it, if it has ended.
    pub outcome: Option<OutcomeRecord>,
}

/// What to search for; every field that is set must match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// The run.
    pub run: Option<RunId>,
    /// The connection.
    pub connection: Option<ConnectionId>,
    /// The agent's name.
    pub agent: Option<String>,
    /// The process that connected, in the host's pid namespace.
    pub pid: Option<u32>,
    /// The resource's name.
    pub resource: Option<String>,
    /// A verb, such as `data.read`.
    pub verb: Option<String>,
    /// A statement kind, such as `select`.
    pub kind: Option<String>,
    /// A table or another object, as `schema.name` or the name alone.
    pub table: Option<String>,
    /// A part of the statement, in any case.
    pub text: Option<String>,
    /// A part of a determining rule's `id (file:line)`.
    pub rule: Option<String>,
    /// Whether it was allowed.
    pub allowed: Option<bool>,
    /// How it ended, such as `failed`.
    pub status: Option<String>,
    /// The protocol's error code.
    pub code: Option<String>,
    /// `agent` or `gate`.
    pub author: Option<String>,
    /// Not before, in microseconds of the Unix epoch.
    pub since: Option<i64>,
    /// Not after, in microseconds of the Unix epoch.
    pub until: Option<i64>,
}

/// A condition and its value.
type Condition = (&'static str, Box<dyn ToSql>);

impl Filter {
    fn conditions(&self) -> Vec<Condition> {
        let mut all: Vec<Condition> = Vec::new();
        let mut add = |sql, value: Option<Box<dyn ToSql>>| all.extend(value.map(|value| (sql, value)));
        let text = |value: &Option<String>| value.clone().map(|v| Box::new(v) as Box<dyn ToSql>);
        let part =
            |value: &Option<String>| value.as_deref().map(|v| Box::new(like("%", v, "%")) as Box<dyn ToSql>);
        add("r.run = ?", self.run.map(|run| Box::new(run.to_string()) as _));
        add("r.connection = ?", self.connection.map(|connection| Box::new(Number(connection.0)) as _));
        add("r.agent = ?", text(&self.agent));
        add("r.pid = ?", self.pid.map(|pid| Box::new(pid) as _));
        add("r.resource = ?", text(&self.resource));
        add(r"r.verbs LIKE ? ESCAPE '\'", self.verb.as_deref().map(|v| Box::new(like("% ", v, " %")) as _));
        add("r.kind = ?", text(&self.kind));
        // A name alone is found in any schema.
        add(
            r"replace(r.tables, '.', '. ') LIKE ? ESCAPE '\'",
            self.table.as_deref().map(|v| Box::new(like("% ", &v.replace('.', ". "), " %")) as _),
        );
        add(r"r.text LIKE ? ESCAPE '\'", part(&self.text));
        add(r"r.rules LIKE ? ESCAPE '\'", part(&self.rule));
        add("r.allowed = ?", self.allowed.map(|allowed| Box::new(allowed) as _));
        add("coalesce(o.status, p.status) = ?", text(&self.status));
        add("coalesce(o.code, p.code) = ?", text(&self.code));
        add("r.author = ?", text(&self.author));
        add("r.at >= ?", self.since.map(|at| Box::new(at) as _));
        add("r.at <= ?", self.until.map(|at| Box::new(at) as _));
        all
    }
}

/// A LIKE pattern for `text` as it stands.
fn like(before: &str, text: &str, behind: &str) -> String {
    let text = text.replace('\\', r"\\").replace('%', r"\%").replace('_', r"\_");
    format!("{before}{text}{behind}")
}

/// Reads a store.
pub struct Reader {
    dir: PathBuf,
    connection: Connection,
    /// Whether there is an index on disk.
    disk: bool,
    /// What of the index on disk is asked: not what retention has removed, nor what it gained since.
    from: Place,
    to: Place,
}

/// Where a record's lines stand.
struct Hit {
    seq: u64,
    request: Place,
    outcome: Option<Place>,
}

impl Reader {
    /// Opens the store at `dir`. Sees everything that was in the segments at this moment.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let connection = Connection::open_in_memory()?;
        let from = attach(dir, &connection);
        let disk = from.is_some();
        if !disk {
            connection.execute_batch("ATTACH ':memory:' AS disk")?;
        }
        let to = from.unwrap_or(Place { segment: 0, offset: 0 });
        let mut tail = Index::in_memory(dir, connection, to)?;
        tail.catch_up()?;
        let first = segment::list(dir)?.first().map_or(0, |(number, _)| *number);
        let from = Place { segment: first, offset: 0 };
        Ok(Self { dir: dir.to_owned(), connection: tail.connection, disk, from, to })
    }

    /// The newest `count` lines of the store, oldest first.
    pub fn tail(&self, count: usize) -> Result<Vec<Line>, StoreError> {
        let mut newest: Vec<Line> = Vec::new();
        for (_, path) in segment::list(&self.dir)?.into_iter().rev() {
            let mut lines = Lines::open(&path, 0)?;
            let mut found = std::collections::VecDeque::new();
            while let Some(line) = lines.next()?.filter(|line| line.whole) {
                found.push_back(line.bytes.to_vec());
                if found.len() > count - newest.len() {
                    found.pop_front();
                }
            }
            let parsed = found.iter().filter_map(|bytes| entry(bytes));
            newest.splice(0..0, parsed);
            if newest.len() >= count {
                break;
            }
        }
        Ok(newest)
    }

    /// One record.
    pub fn record(&self, id: RecordId) -> Result<Option<FullRecord>, StoreError> {
        self.hits(vec![("r.seq = ?", Box::new(Number(id.0)))], false, 1)?
            .first()
            .map(|hit| self.load(hit))
            .transpose()
    }

    /// The newest `limit` records that match, newest first.
    pub fn search(&self, filter: &Filter, limit: usize) -> Result<Vec<FullRecord>, StoreError> {
        self.hits(filter.conditions(), false, limit)?.iter().map(|hit| self.load(hit)).collect()
    }

    /// The newest record that matches and was refused.
    pub fn last_refused(&self, filter: &Filter) -> Result<Option<FullRecord>, StoreError> {
        let refused = Filter { allowed: Some(false), ..filter.clone() };
        Ok(self.search(&refused, 1)?.pop())
    }

    /// The newest event that is about something a process tried.
    pub fn last_attempt(&self, pid: u32) -> Result<Option<Line>, StoreError> {
        for schema in ["main", "disk"] {
            if schema == "disk" && !self.disk {
                continue;
            }
            let within = self.within(schema);
            let sql = format!(
                "SELECT r.segment, r.offset FROM {schema}.attempt r WHERE {within} AND r.pid = ?1
                 ORDER BY r.segment DESC, r.offset DESC LIMIT 1"
            );
            let place = self.connection.query_row(&sql, [pid], |row| {
                let (Number(segment), Number(offset)) = (row.get(0)?, row.get(1)?);
                Ok(Place { segment, offset })
            });
            if let Some(place) = place.optional()? {
                return self.line(place).map(Some);
            }
        }
        Ok(None)
    }

    /// All records that match, oldest first.
    pub fn export<'a>(&'a self, filter: &'a Filter) -> Export<'a> {
        Export { reader: self, filter, after: 0, page: Vec::new().into_iter(), done: false }
    }

    /// What a run's statements spent since a time in seconds of the Unix epoch, by the minute: each with the second that
    /// its minute began in. It counts as [`of_record`](interceptor_core::policy::spent::of_record) does.
    pub fn spent(&self, run: RunId, since: i64) -> Result<Vec<(i64, Spent)>, StoreError> {
        let mut minutes = Vec::new();
        for schema in ["disk", "main"] {
            if schema == "disk" && !self.disk {
                continue;
            }
            let rows = "coalesce(o.rows, p.rows, 0)";
            let sql = format!(
                "SELECT r.at / 60000000 AS minute, sum({rows}),
                 sum(CASE WHEN r.verbs LIKE '% data.insert %' OR r.verbs LIKE '% data.update %'
                     OR r.verbs LIKE '% data.delete %' THEN {rows} ELSE 0 END),
                 sum(r.phase IN ('query', 'execute')), sum(coalesce(o.bytes, p.bytes, 0)) {}
                 AND r.run = ?1 AND r.author = 'agent' AND r.allowed AND r.at >= ?2 GROUP BY minute ORDER BY minute",
                self.records_in(schema)
            );
            let mut statement = self.connection.prepare_cached(&sql)?;
            let since = since.saturating_mul(1_000_000);
            let found = statement.query_map(rusqlite::params![run.to_string(), since], |row| {
                let (Number(rows), Number(changed)) = (row.get(1)?, row.get(2)?);
                let (Number(statements), Number(bytes)) = (row.get(3)?, row.get(4)?);
                Ok((row.get::<_, i64>(0)? * 60, Spent { rows, changed, statements, bytes }))
            })?;
            minutes.extend(found.collect::<Result<Vec<_>, _>>()?);
        }
        Ok(minutes)
    }

    /// The records of one of the two schemas with their outcomes, as the end of a query.
    fn records_in(&self, schema: &str) -> String {
        // The outcome may be newer than the index on disk: it is looked for in memory too.
        let outcomes = if self.disk { "disk" } else { "main" };
        let within = self.within(schema);
        format!(
            "FROM {schema}.record r LEFT JOIN main.outcome o ON o.request = r.seq
             LEFT JOIN {outcomes}.outcome p ON p.request = r.seq WHERE {within}"
        )
    }

    /// Which rows of a table, called `r`, of one of the two schemas are asked.
    fn within(&self, schema: &str) -> String {
        match schema {
            "disk" => format!(
                "r.segment >= {} AND (r.segment, r.offset) < ({}, {})",
                self.from.segment, self.to.segment, self.to.offset
            ),
            _ => "true".to_owned(),
        }
    }

    fn hits(&self, conditions: Vec<Condition>, oldest: bool, limit: usize) -> Result<Vec<Hit>, StoreError> {
        let mut hits = Vec::new();
        let (schemas, order) = if oldest { (["disk", "main"], "ASC") } else { (["main", "disk"], "DESC") };
        for schema in schemas {
            if schema == "disk" && !self.disk {
                continue;
            }
            hits.extend(self.hits_in(schema, &conditions, order, limit - hits.len().min(limit))?);
        }
        Ok(hits)
    }

    fn hits_in(
        &self,
        schema: &str,
        conditions: &[Condition],
        order: &str,
        limit: usize,
    ) -> Result<Vec<Hit>, StoreError> {
        let terms: String = conditions.iter().map(|(sql, _)| format!(" AND ({sql})")).collect();
        let sql = format!(
            "SELECT r.seq, r.segment, r.offset, coalesce(o.segment, p.segment), coalesce(o.offset, p.offset)
             {}{terms} ORDER BY r.seq {order} LIMIT {limit}",
            self.records_in(schema)
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let rows =
            statement.query_map(params_from_iter(conditions.iter().map(|(_, value)| value)), |row| {
                let outcome = match (row.get(3)?, row.get(4)?) {
                    (Some(Number(segment)), Some(Number(offset))) => Some(Place { segment, offset }),
                    _ => None,
                };
                let (Number(seq), Number(segment), Number(offset)) = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok(Hit { seq, request: Place { segment, offset }, outcome })
            })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn load(&self, hit: &Hit) -> Result<FullRecord, StoreError> {
        let outcome = match hit.outcome.map(|place| self.line(place)).transpose()?.map(|line| line.entry) {
            Some(Entry::Outcome(outcome)) => Some(outcome),
            _ => None,
        };
        let line = self.line(hit.request)?;
        match line.entry {
            Entry::Request(request) if line.seq == hit.seq => {
                Ok(FullRecord { id: RecordId(line.seq), request: *request, outcome })
            }
            _ => Err(StoreError::damaged(
                &places::index(&self.dir),
                format!("it misplaces record {}", hit.seq),
            )),
        }
    }

    fn line(&self, place: Place) -> Result<Line, StoreError> {
        let path = segment::path(&self.dir, place.segment);
        let mut lines = Lines::open(&path, place.offset)?;
        lines
            .next()?
            .and_then(|found| entry(found.bytes))
            .ok_or_else(|| StoreError::damaged(&path, format!("there is no entry at byte {}", place.offset)))
    }
}

fn entry(bytes: &[u8]) -> Option<Line> {
    match line::parse(line::split(bytes)?.1) {
        Ok(Parsed::Line(line)) => Some(*line),
        Ok(Parsed::Header(_)) | Err(_) => None,
    }
}

/// Attaches the index on disk, where there is one that can be read, and gives how far it goes.
fn attach(dir: &Path, connection: &Connection) -> Option<Place> {
    let path = places::index(dir);
    if !path.exists() {
        return None;
    }
    let uri = format!(
        "file:{}?mode=ro",
        path.display().to_string().replace('%', "%25").replace('?', "%3f").replace('#', "%23")
    );
    connection.execute("ATTACH ?1 AS disk", [&uri]).optional().ok()?;
    let place = place_in(connection, "disk").ok().flatten();
    if place.is_none() {
        // Of no use: read the segments instead.
        let _ = connection.execute_batch("DETACH disk");
    }
    place
}

/// Records, oldest first.
pub struct Export<'a> {
    reader: &'a Reader,
    filter: &'a Filter,
    after: u64,
    page: std::vec::IntoIter<Hit>,
    done: bool,
}

impl Iterator for Export<'_> {
    type Item = Result<FullRecord, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(hit) = self.page.next() {
                return Some(self.reader.load(&hit));
            }
            if self.done {
                return None;
            }
            let mut conditions = self.filter.conditions();
            conditions.push(("r.seq > ?", Box::new(Number(self.after))));
            match self.reader.hits(conditions, true, PAGE) {
                Ok(hits) => {
                    self.done = hits.len() < PAGE;
                    self.after = hits.last().map_or(self.after, |hit| hit.seq);
                    self.page = hits.into_iter();
                }
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            }
        }
    }
}
