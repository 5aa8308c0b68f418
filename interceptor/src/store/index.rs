//! The index: SQLite tables over the segments, for search. It may lag and may be thrown away: the segments are the
//! truth, and every answer is read from them.

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, channel, sync_channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use interceptor_core::model::{Entry, EventRecord, OutcomeRecord, RequestRecord, Target};
use nix::time::ClockId;
use rusqlite::{
    Connection, OptionalExtension, ToSql, Transaction, params,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef},
};
use serde::Serialize;

use super::{
    StoreError,
    line::{self, Line, Parsed},
    places,
    segment::{self, Lines},
};

/// A change of the tables: an index of another version is thrown away.
const VERSION: i64 = 3;
/// Lines that are indexed in one transaction.
const BATCH: u64 = 5000;
/// Lines that are indexed at once beside the keeper.
const AT_ONCE: u64 = 256;
/// How often as long as it worked the index rests while lines come in.
const REST: u32 = 50;
/// The index of a keeper at rest is at most about so much behind.
const LAG: Duration = Duration::from_millis(100);

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS record (
    seq INTEGER PRIMARY KEY, segment INTEGER NOT NULL, offset INTEGER NOT NULL, at INTEGER NOT NULL,
    author TEXT NOT NULL, run TEXT NOT NULL, agent TEXT NOT NULL, pid INTEGER, resource TEXT, protocol TEXT NOT NULL,
    verbs TEXT NOT NULL, kind TEXT NOT NULL, tables TEXT NOT NULL, text TEXT NOT NULL, allowed INTEGER NOT NULL,
    mode TEXT NOT NULL, rules TEXT NOT NULL, connection INTEGER,
    phase TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS record_run ON record (run, seq);
CREATE INDEX IF NOT EXISTS record_pid ON record (pid, seq);
CREATE INDEX IF NOT EXISTS record_connection ON record (connection, seq);
CREATE INDEX IF NOT EXISTS record_refused ON record (seq) WHERE allowed = 0;
CREATE TABLE IF NOT EXISTS outcome (
    request INTEGER PRIMARY KEY, segment INTEGER NOT NULL, offset INTEGER NOT NULL, status TEXT NOT NULL,
    code TEXT, rows INTEGER, bytes INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS attempt (
    segment INTEGER NOT NULL, offset INTEGER NOT NULL, pid INTEGER NOT NULL, PRIMARY KEY (pid, segment, offset)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS place (
    one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER NOT NULL, store TEXT NOT NULL,
    segment INTEGER NOT NULL, offset INTEGER NOT NULL);
";

/// Where a line stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// A number as SQLite holds it: up to 2^63 - 1, which sequence numbers and offsets do not reach.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number(pub(super) u64);

impl ToSql for Number {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        i64::try_from(self.0)
            .map(ToSqlOutput::from)
            .map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))
    }
}

impl FromSql for Number {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let number = value.as_i64()?;
        u64::try_from(number).map(Self).map_err(|_| FromSqlError::OutOfRange(number))
    }
}

/// Builds the index of the store at `dir` anew. The keeper must not be running.
pub fn rebuild(dir: &Path) -> Result<(), StoreError> {
    remove(&places::index(dir))?;
    Index::open(dir)?.catch_up()
}

fn remove(path: &Path) -> Result<(), StoreError> {
    for end in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::io(Path::new(&name), error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The tables, open for writing.
pub(super) struct Index {
    dir: PathBuf,
    pub(super) connection: Connection,
    /// Nothing of a segment before this one is in the tables.
    first: u64,
}

impl Index {
    /// Opens the index, or makes one; one that does not fit the segments is thrown away first.
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = places::index(dir);
        if !fits(dir, &path) {
            remove(&path)?;
        }
        let connection = Connection::open(&path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        Self::prepare(dir, connection)
    }

    /// Tables in memory, of lines from `from` on.
    pub(super) fn in_memory(dir: &Path, connection: Connection, from: Place) -> Result<Self, StoreError> {
        let mut index = Self::prepare(dir, connection)?;
        let transaction = index.connection.transaction()?;
        set_place(&transaction, "", from)?;
        transaction.commit()?;
        Ok(index)
    }

    fn prepare(dir: &Path, connection: Connection) -> Result<Self, StoreError> {
        connection.execute_batch(TABLES)?;
        Ok(Self { dir: dir.to_owned(), connection, first: 0 })
    }

    /// Indexes all whole lines that are there and not yet indexed.
    pub(super) fn catch_up(&mut self) -> Result<(), StoreError> {
        while self.advance(BATCH)? {}
        Ok(())
    }

    /// Indexes the next lines, at most `most`; whether there may be more.
    fn advance(&mut self, most: u64) -> Result<bool, StoreError> {
        let mut place = place_in(&self.connection, "main")?.unwrap_or(Place { segment: 0, offset: 0 });
        let segments = segment::list(&self.dir)?;
        if let Some((first, _)) = segments.first().filter(|(first, _)| *first != self.first) {
            self.connection.execute("DELETE FROM record WHERE segment < ?1", [Number(*first)])?;
            self.connection.execute("DELETE FROM outcome WHERE segment < ?1", [Number(*first)])?;
            self.connection.execute("DELETE FROM attempt WHERE segment < ?1", [Number(*first)])?;
            self.first = *first;
        }
        let begun = place.segment;
        for (number, path) in segments.into_iter().filter(|(number, _)| *number >= begun) {
            let offset = if number == place.segment { place.offset } else { 0 };
            place = Place { segment: number, offset };
            if self.batch(&path, &mut place, most)? > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Indexes up to `most` lines of one segment; how many there were.
    fn batch(&mut self, path: &Path, place: &mut Place, most: u64) -> Result<u64, StoreError> {
        let mut lines = Lines::open(path, place.offset)?;
        let transaction = self.connection.transaction()?;
        let mut count = 0;
        let mut store = String::new();
        while count < most {
            let Some(found) = lines.next()?.filter(|found| found.whole) else { break };
            let at = Place { segment: place.segment, offset: found.offset };
            let parsed = line::split(found.bytes).map(|(_, json)| line::parse(json));
            match parsed {
                Some(Ok(Parsed::Line(line))) => add(&transaction, at, &line)?,
                Some(Ok(Parsed::Header(header))) => store = header.store,
                // Not ours to judge: `verify` does. It cannot be searched for.
                _ => tracing::warn!(path = %path.display(), offset = found.offset, "a line cannot be read"),
            }
            place.offset = found.offset + found.bytes.len() as u64 + 1;
            count += 1;
        }
        if count > 0 {
            set_place(&transaction, &store, *place)?;
        }
        transaction.commit()?;
        Ok(count)
    }
}

/// Whether the index at `path` belongs to the segments that are there.
fn fits(dir: &Path, path: &Path) -> bool {
    let Ok(connection) = Connection::open(path) else { return false };
    let known = connection
        .query_row("SELECT version, store, segment, offset FROM place", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get(2)?, row.get(3)?))
        })
        .optional();
    let Ok(Some((version, store, Number(number), Number(offset)))) = known else { return false };
    version == VERSION
        && ends_a_line(&segment::path(dir, number), offset)
        && store_of(dir).is_some_and(|s| s == store)
}

fn ends_a_line(path: &Path, offset: u64) -> bool {
    use std::os::unix::fs::FileExt;
    let mut byte = [0];
    let read = |file: std::fs::File| file.read_exact_at(&mut byte, offset.checked_sub(1)?).ok();
    std::fs::File::open(path).ok().and_then(read).is_some() && byte == *b"\n"
}

/// The store's id, from the newest segment that has a header.
fn store_of(dir: &Path) -> Option<String> {
    segment::list(dir).ok()?.iter().rev().find_map(|(_, path)| {
        let mut lines = Lines::open(path, 0).ok()?;
        let found = lines.next().ok()??;
        match line::parse(line::split(found.bytes)?.1).ok()? {
            Parsed::Header(header) => Some(header.store),
            Parsed::Line(_) => None,
        }
    })
}

/// How far the tables of `schema` go; `None` where they are of another version.
pub(super) fn place_in(connection: &Connection, schema: &str) -> Result<Option<Place>, StoreError> {
    let query = format!("SELECT segment, offset FROM {schema}.place WHERE version = ?1");
    let place = connection.query_row(&query, [VERSION], |row| {
        let (Number(segment), Number(offset)) = (row.get(0)?, row.get(1)?);
        Ok(Place { segment, offset })
    });
    Ok(place.optional()?)
}

fn set_place(transaction: &Transaction<'_>, store: &str, place: Place) -> Result<(), StoreError> {
    transaction.execute(
        "INSERT INTO place VALUES (1, ?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET segment = ?3, offset = ?4,
         store = CASE WHEN ?2 = '' THEN store ELSE ?2 END",
        params![VERSION, store, Number(place.segment), Number(place.offset)],
    )?;
    Ok(())
}

fn add(transaction: &Transaction<'_>, place: Place, line: &Line) -> Result<(), StoreError> {
    match &line.entry {
        Entry::Request(request) => add_request(transaction, place, line.seq, request),
        Entry::Outcome(outcome) => add_outcome(transaction, place, outcome),
        Entry::Event(event) => add_event(transaction, place, event),
    }
}

fn add_request(
    transaction: &Transaction<'_>,
    place: Place,
    seq: u64,
    request: &RequestRecord,
) -> Result<(), StoreError> {
    let facts = &request.action.facts;
    let verbs: Vec<_> = facts.effects.iter().map(|effect| effect.verb.as_str()).collect();
    let tables: Vec<_> = facts.effects.iter().filter_map(|effect| named(&effect.target)).collect();
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO record VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19)",
        )?
        .execute(params![
            Number(seq),
            Number(place.segment),
            Number(place.offset),
            request.at,
            word(&request.author)?,
            request.run.to_string(),
            request.agent.name.as_str(),
            request.process.as_ref().map(|process| process.pid),
            request.resource.as_ref().map(|resource| resource.as_str()),
            request.protocol,
            spaced(&verbs),
            word(&facts.kind)?,
            spaced(&tables),
            &*request.action.text,
            request.verdict.allowed,
            word(&request.verdict.mode)?,
            request.verdict.rules.join("\n"),
            request.connection.map(|connection| Number(connection.0)),
            word(&request.action.phase)?,
        ])?;
    Ok(())
}

fn add_outcome(
    transaction: &Transaction<'_>,
    place: Place,
    outcome: &OutcomeRecord,
) -> Result<(), StoreError> {
    transaction
        .prepare_cached("INSERT OR REPLACE INTO outcome VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
        .execute(params![
            Number(outcome.request.0),
            Number(place.segment),
            Number(place.offset),
            word(&outcome.status)?,
            outcome.code,
            outcome.rows.map(|rows| i64::try_from(rows).unwrap_or(i64::MAX)),
            i64::try_from(outcome.bytes).unwrap_or(i64::MAX),
        ])?;
    Ok(())
}

fn add_event(transaction: &Transaction<'_>, place: Place, event: &EventRecord) -> Result<(), StoreError> {
    if let Some(attempt) = &event.attempt {
        transaction
            .prepare_cached("INSERT OR REPLACE INTO attempt VALUES (?1, ?2, ?3)")?
            .execute(params![Number(place.segment), Number(place.offset), attempt.process])?;
    }
    Ok(())
}

/// Words with a space around each, so that one can be searched for whole.
fn spaced(words: &[impl AsRef<str>]) -> String {
    words.iter().fold(" ".to_owned(), |line, word| line + word.as_ref() + " ")
}

fn named(target: &Target) -> Option<String> {
    match target {
        Target::Table(object) | Target::Function(object) => Some(object.shown()),
        Target::Other { name, .. } | Target::Name(name) | Target::Label(name) => Some(name.clone()),
        Target::Program(program) => Some(program.path.clone()),
        Target::Image(image) => Some(image.to_string()),
        Target::Resource | Target::Setting(_) => None,
    }
}

/// The word that a value without fields has in the record.
pub(super) fn word(value: &impl Serialize) -> Result<String, StoreError> {
    match serde_json::to_value(value)? {
        serde_json::Value::String(word) => Ok(word),
        other => Ok(other.to_string()),
    }
}

/// Keeps the index up to date beside the keeper, which does not wait for it, out of time that nobody else wants: under
/// load it lags, and readers read what is missing from the segments. It ends when this is dropped, and what is not
/// indexed then is indexed after the next start.
#[derive(Debug)]
pub(super) struct IndexThread {
    bell: Option<SyncSender<()>>,
    going: Option<Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl IndexThread {
    pub(super) fn start(dir: &Path) -> Self {
        let (bell, rung) = sync_channel(1);
        let (going, ended) = channel();
        let dir = dir.to_owned();
        let thread =
            thread::Builder::new().name("index".to_owned()).spawn(move || follow(&dir, &rung, &ended));
        if let Err(error) = &thread {
            tracing::error!(%error, "no thread for the index: searches read the segments");
        }
        Self { bell: Some(bell), going: Some(going), thread: thread.ok() }
    }

    /// There is something new.
    pub(super) fn wake(&self) {
        // A full bell rings already; a thread that is gone has said why.
        let _ = self.bell.as_ref().map(|bell| bell.try_send(()));
    }
}

/// Two of them in one process must not have the same store: SQLite's locks are the process's, so that the second would cut
/// short the memory that the first has mapped.
impl Drop for IndexThread {
    fn drop(&mut self) {
        drop((self.bell.take(), self.going.take()));
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the index's thread panicked: searches read the segments");
        }
    }
}

fn follow(dir: &Path, rung: &Receiver<()>, ended: &Receiver<Infallible>) {
    if let Err(error) = give_way() {
        tracing::warn!(%error, "the index is written at everybody's expense");
    }
    let rests = |time| ended.recv_timeout(time) == Err(RecvTimeoutError::Timeout);
    let mut index = None;
    while rung.recv().is_ok() {
        loop {
            let began = worked();
            let advanced = match &mut index {
                Some(index) => Index::advance(index, AT_ONCE),
                None => Index::open(dir).and_then(|opened| index.insert(opened).advance(AT_ONCE)),
            };
            match advanced {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!(%error, "the index lags behind");
                    index = None;
                    break;
                }
            }
            // The priority counts among the keeper's own threads at most: while there is work, this one takes little.
            match rung.try_recv() {
                Ok(()) if !rests(worked().saturating_sub(began) * REST) => return,
                Err(TryRecvError::Disconnected) => return,
                Ok(()) | Err(TryRecvError::Empty) => {}
            }
        }
        if !rests(LAG) {
            return;
        }
    }
}

/// How long this thread has had a processor. Not by the clock on the wall: on a busy host it waits for long to do little,
/// and resting by that would leave it behind for good.
fn worked() -> Duration {
    // There is such a clock on every kernel that runs us; without it there is no rest.
    nix::time::clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// From here on this thread runs when nothing else wants to.
fn give_way() -> std::io::Result<()> {
    let priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: `priority` outlives the call, which only reads it; 0 means this thread.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const priority) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
