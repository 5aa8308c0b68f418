//! Requests for approval and what people said of them: the one place where they are kept, beside the evidence.
//!
//! Promises: an answer is on disk before it is given; each change is one transaction that looks before it writes, so
//! that of two decisions, or two uses, the first valid one wins; a request lives by the clock of this boot as well as
//! by the calendar, so that a clock that is set does not keep it alive; one that was used is never used again, unless
//! all who approved it said so. What is enough is not known here.

use std::{fs, path::Path, time::Duration};

use interceptor_core::{
    approval::{Card, Decision, LONGEST_GRANT, Says, Shown, Standing, State, Uses},
    break_glass::BreakGlass,
    model::{ApprovalId, OutcomeStatus, RecordId, RunId},
};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use serde::{Deserialize, Serialize};

use super::{
    StoreError,
    glass::{self, GlassQuestion},
    index::Number,
};

mod shapes;

/// Closed requests are forgotten after so many seconds; the record keeps what was decided.
const KEPT: i64 = 30 * 24 * 3600;
/// How many requests a list has at most, how many bytes of JSON, and how much of each text.
const LISTED: i64 = 100;
const LIST: usize = 64 * 1024;
const HEAD: usize = 120;
/// How many similar requests are shown with one.
const SIMILAR: usize = 5;
/// How long another connection may take.
const PATIENCE: Duration = Duration::from_secs(5);
pub(super) const SECOND: i64 = 1_000_000;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS request (
    id TEXT PRIMARY KEY, digest TEXT NOT NULL, run TEXT NOT NULL, policy TEXT NOT NULL, card TEXT NOT NULL,
    opened INTEGER NOT NULL, closes INTEGER NOT NULL, boot TEXT NOT NULL, closes_boot INTEGER NOT NULL,
    state TEXT NOT NULL, why TEXT, record INTEGER);
CREATE INDEX IF NOT EXISTS request_digest ON request (digest, opened);
CREATE INDEX IF NOT EXISTS request_open ON request (closes) WHERE state = 'open';
CREATE INDEX IF NOT EXISTS request_opened ON request (opened);
CREATE TABLE IF NOT EXISTS decision (
    request TEXT NOT NULL, person TEXT NOT NULL, said TEXT NOT NULL, place INTEGER NOT NULL,
    PRIMARY KEY (request, person));
";

/// Those that are open, and then the others, the newest first. Each half reads an index, and no more than it gives or is open:
/// whoever waits for requests asks this all the time, and a docket keeps them for a month.
const NEWEST: &str = "
SELECT id FROM (
    SELECT * FROM (SELECT id, opened, 0 AS half FROM request INDEXED BY request_open
                   WHERE state = 'open' AND closes > ?1 ORDER BY opened DESC LIMIT ?2)
    UNION ALL
    SELECT * FROM (SELECT id, opened, 1 AS half FROM request INDEXED BY request_opened
                   WHERE NOT (state = 'open' AND closes > ?1) ORDER BY opened DESC LIMIT ?2))
ORDER BY half, opened DESC LIMIT ?2";

/// A wish for approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filing {
    /// What is to be approved.
    pub digest: String,
    /// The shape of what is to be approved, where that could be approved as well.
    pub shape: Option<String>,
    /// What is shown of it.
    pub card: Card,
    /// How long it is open, in seconds.
    pub seconds: u64,
    /// How many undecided requests its run may have.
    pub most: u32,
}

/// What the docket is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Question {
    /// Where does this stand? It is opened where nothing stands in its place.
    File(Box<Filing>),
    /// The same, but nothing is opened.
    Find(Box<Filing>),
    /// Where does this request stand?
    Look(ApprovalId),
    /// The same, with what helps to decide it.
    Show(ApprovalId),
    /// What is open, or was lately.
    List,
    /// Is there an open approval of this shape?
    Shape(String),
    /// Somebody decides; nobody twice, and only what is open.
    Decide {
        /// The request.
        id: ApprovalId,
        /// The decision.
        decision: Decision,
    },
    /// The exchange with this record is about to be sent by this approval.
    Use {
        /// The request.
        id: ApprovalId,
        /// What is about to be sent.
        digest: String,
        /// Its shape.
        shape: Option<String>,
        /// The exchange's record.
        record: RecordId,
    },
    /// Only requests under this policy still mean what was shown.
    Void {
        /// The policy's hash.
        policy: String,
    },
    /// A request is over without having been used: a flooded run goes on.
    Close {
        /// The request.
        id: ApprovalId,
        /// Why.
        why: String,
    },
    /// About break-glass.
    Glass(GlassQuestion),
}

/// What the docket answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// To all that is about one request.
    Standing(Box<Standing>),
    /// To [`Question::Show`]; what else the run did is not known here.
    Shown(Box<Shown>),
    /// To [`Question::File`]: the run has too many.
    TooMany(u32),
    /// Newest first, to [`Question::List`] and [`Question::Shape`]; none to [`Question::Find`].
    All(Vec<Standing>),
    /// How many, to [`Question::Void`].
    Voided(usize),
    /// To [`Question::Glass`]: those that are broken or not reviewed, or the one that was asked about.
    Glass(Vec<BreakGlass>),
    /// Not done, and why.
    No(String),
}

/// A moment, by both clocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// Microseconds of the Unix epoch.
    pub wall: i64,
    /// Microseconds since this boot.
    pub since_boot: i64,
    /// Which boot.
    pub boot: String,
}

impl Moment {
    /// Now.
    pub fn now() -> Result<Self, StoreError> {
        let path = Path::new("/proc/sys/kernel/random/boot_id");
        let boot = fs::read_to_string(path).map_err(|error| StoreError::io(path, error))?;
        let ticks = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
            .map_err(|errno| StoreError::io(path, errno.into()))?;
        let since_boot = ticks.tv_sec().saturating_mul(SECOND).saturating_add(ticks.tv_nsec() / 1000);
        Ok(Self { wall: super::now(), since_boot, boot: boot.trim().to_owned() })
    }
}

/// How an exchange ended, where it has: what the record says.
pub type OutcomeOf<'a> = dyn Fn(RecordId) -> Result<Option<OutcomeStatus>, StoreError> + 'a;

/// Of many requests at once it is not asked what came of each, which may take a look at the record's newest end.
const NOT_ASKED: &OutcomeOf<'static> = &|_| Ok(None);

/// The docket.
#[derive(Debug)]
pub struct Docket(Connection);

impl Docket {
    /// Opens the docket in the store's folder.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let connection = Connection::open(dir.join("approvals.sqlite"))?;
        connection.busy_timeout(PATIENCE)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(TABLES)?;
        connection.execute_batch(glass::TABLES)?;
        shapes::make_room(&connection)?;
        let old = super::now().saturating_sub(KEPT.saturating_mul(SECOND));
        connection.execute("DELETE FROM request WHERE closes < ?", [old])?;
        connection.execute("DELETE FROM decision WHERE request NOT IN (SELECT id FROM request)", [])?;
        Ok(Self(connection))
    }

    /// Answers a question.
    pub fn answer(
        &mut self,
        question: Question,
        now: &Moment,
        outcome: &OutcomeOf<'_>,
    ) -> Result<Answer, StoreError> {
        let work = self.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut books = Books { work, now, outcome };
        let answer = match question {
            Question::File(filing) => books.file(*filing),
            Question::Find(filing) => {
                Ok(books.in_place_of(&filing)?.unwrap_or_else(|| Answer::All(Vec::new())))
            }
            Question::Look(id) => books.look(id),
            Question::Show(id) => books.show(id),
            Question::List => books.list(),
            Question::Shape(shape) => {
                let kept = books.of_shape(Some(&shape))?;
                Ok(Answer::All(kept.into_iter().map(|kept| kept.standing).collect()))
            }
            Question::Decide { id, decision } => books.decide(id, decision),
            Question::Use { id, digest, shape, record } => {
                books.use_up(id, (&digest, shape.as_deref()), record)
            }
            Question::Void { policy } => books.void(&policy),
            Question::Close { id, why } => books.close(id, &why),
            Question::Glass(question) => glass::answer(&books.work, now, question)
                .map(|answer| answer.map_or_else(Answer::No, Answer::Glass)),
        }?;
        books.work.commit()?;
        Ok(answer)
    }
}

/// A request as it is kept.
struct Kept {
    standing: Standing,
    digest: String,
    shape: Option<String>,
    closes_boot: i64,
}

/// One transaction.
struct Books<'a> {
    work: Transaction<'a>,
    now: &'a Moment,
    outcome: &'a OutcomeOf<'a>,
}

impl Books<'_> {
    /// What stands in the place of a new request; none where one can be opened.
    fn in_place_of(&self, filing: &Filing) -> Result<Option<Answer>, StoreError> {
        let newest = "SELECT id FROM request WHERE digest = ? ORDER BY opened DESC, rowid DESC LIMIT 1";
        let id: Option<String> =
            self.work.query_row(newest, [&filing.digest], |row| row.get(0)).optional()?;
        if let Some(standing) =
            id.and_then(|id| id.parse().ok()).map(|id| self.find(id)).transpose()?.flatten()
            && stands(&standing.standing.state)
        {
            let undecided = standing.standing.state == State::Open && standing.standing.decisions.is_empty();
            let of_shape = if undecided { self.of_shape(filing.shape.as_deref())? } else { None };
            return Ok(Some(Answer::Standing(Box::new(of_shape.unwrap_or(standing).standing))));
        }
        if let Some(of_shape) = self.of_shape(filing.shape.as_deref())? {
            return Ok(Some(Answer::Standing(Box::new(of_shape.standing))));
        }
        let pending = self.pending(filing.card.run)?;
        Ok((pending >= filing.most).then_some(Answer::TooMany(pending)))
    }

    fn file(&mut self, filing: Filing) -> Result<Answer, StoreError> {
        if let Some(answer) = self.in_place_of(&filing)? {
            return Ok(answer);
        }
        let id = self.fresh_id()?;
        let lasts = i64::try_from(filing.seconds).unwrap_or(i64::MAX).saturating_mul(SECOND);
        self.work.execute(
            "INSERT INTO request (id, digest, shape, run, policy, card, opened, closes, boot, closes_boot, state)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'open')",
            params![
                id.to_string(),
                filing.digest,
                filing.shape,
                filing.card.run.to_string(),
                filing.card.policy,
                serde_json::to_string(&filing.card)?,
                self.now.wall,
                self.now.wall.saturating_add(lasts),
                self.now.boot,
                self.now.since_boot.saturating_add(lasts),
            ],
        )?;
        self.look(id)
    }

    /// How many undecided requests a run has.
    fn pending(&self, run: RunId) -> Result<u32, StoreError> {
        let sql = "SELECT count(*) FROM request WHERE run = ? AND state = 'open' AND boot = ? AND closes > ?
                   AND closes_boot > ? AND NOT EXISTS (SELECT 1 FROM decision WHERE request = id)";
        let now = self.now;
        let values = params![run.to_string(), now.boot, now.wall, now.since_boot];
        Ok(self.work.query_row(sql, values, |row| row.get(0))?)
    }

    fn fresh_id(&self) -> Result<ApprovalId, StoreError> {
        loop {
            let id = ApprovalId::from_random(random()?);
            if self.find(id)?.is_none() {
                return Ok(id);
            }
        }
    }

    fn look(&self, id: ApprovalId) -> Result<Answer, StoreError> {
        Ok(self.find(id)?.map_or_else(
            || Answer::No(format!("there is no approval {id}: `interceptor approvals list` lists them")),
            |kept| Answer::Standing(Box::new(kept.standing)),
        ))
    }

    fn show(&self, id: ApprovalId) -> Result<Answer, StoreError> {
        let Some(standing) = self.find(id)?.map(|kept| kept.standing) else { return self.look(id) };
        let sql =
            "SELECT id FROM request r WHERE id <> ? AND EXISTS (SELECT 1 FROM decision WHERE request = r.id)
                   ORDER BY opened DESC LIMIT ?";
        let mut statement = self.work.prepare(sql)?;
        let ids = statement.query_map(params![id.to_string(), LISTED], |row| row.get::<_, String>(0))?;
        let ids: Vec<String> = ids.collect::<Result<_, _>>()?;
        let mut similar = Vec::new();
        for id in ids.iter().filter_map(|id| id.parse().ok()) {
            let other = self.read(id, NOT_ASKED)?.map(|kept| kept.standing);
            if let Some(other) = other.filter(|other| other.card.is_like(&standing.card)) {
                similar.push(Standing { card: other.card.head(HEAD), ..other });
            }
            if similar.len() == SIMILAR {
                break;
            }
        }
        Ok(Answer::Shown(Box::new(Shown { standing, similar, others: Vec::new(), uncovered: Vec::new() })))
    }

    fn list(&self) -> Result<Answer, StoreError> {
        let mut statement = self.work.prepare_cached(NEWEST)?;
        let ids = statement.query_map([self.now.wall, LISTED], |row| row.get::<_, String>(0))?;
        let ids: Vec<String> = ids.collect::<Result<_, _>>()?;
        let mut all = Vec::new();
        let mut room = LIST;
        for kept in ids.iter().filter_map(|id| id.parse().ok()).map(|id| self.read(id, NOT_ASKED)) {
            let Some(kept) = kept? else { continue };
            let short = Standing { card: kept.standing.card.head(HEAD), ..kept.standing };
            match room.checked_sub(serde_json::to_vec(&short)?.len()) {
                Some(left) => room = left,
                None => break,
            }
            all.push(short);
        }
        Ok(Answer::All(all))
    }

    fn decide(&mut self, id: ApprovalId, decision: Decision) -> Result<Answer, StoreError> {
        let Some(kept) = self.find(id)? else { return self.look(id) };
        let standing = &kept.standing;
        if let Some(why) = over(&standing.state) {
            return Ok(Answer::No(format!("approval {id} {why}: nothing was changed")));
        }
        if standing.decisions.iter().any(|earlier| earlier.person == decision.person) {
            let text =
                format!("{} has decided on approval {id} already: nobody counts twice", decision.person);
            return Ok(Answer::No(text));
        }
        self.work.execute(
            "INSERT INTO decision (request, person, said, place) VALUES (?, ?, ?, ?)",
            params![
                id.to_string(),
                decision.person.as_str(),
                serde_json::to_string(&decision)?,
                i64::try_from(standing.decisions.len()).unwrap_or(i64::MAX),
            ],
        )?;
        match decision.says {
            Says::Deny { .. } => {
                self.work.execute("UPDATE request SET state = 'denied' WHERE id = ?", [id.to_string()])?;
            }
            Says::Approve { seconds, .. } => self.lasts(&kept, seconds)?,
        }
        self.look(id)
    }

    /// From its first approval on, a request lasts as long as whoever approves says, and never longer than anybody
    /// said.
    fn lasts(&self, kept: &Kept, seconds: u64) -> Result<(), StoreError> {
        let lasts = i64::try_from(seconds.min(LONGEST_GRANT)).unwrap_or(0).saturating_mul(SECOND);
        let (mut closes, mut closes_boot) =
            (self.now.wall.saturating_add(lasts), self.now.since_boot.saturating_add(lasts));
        if kept.standing.decisions.iter().any(Decision::approves) {
            closes = closes.min(kept.standing.closes_at);
            closes_boot = closes_boot.min(kept.closes_boot);
        }
        let sql = "UPDATE request SET closes = ?, closes_boot = ? WHERE id = ?";
        self.work.execute(sql, params![closes, closes_boot, kept.standing.id.to_string()])?;
        Ok(())
    }

    fn use_up(
        &mut self,
        id: ApprovalId,
        (digest, shape): (&str, Option<&str>),
        record: RecordId,
    ) -> Result<Answer, StoreError> {
        let Some(kept) = self.find(id)? else { return self.look(id) };
        if let Some(why) = over(&kept.standing.state) {
            return Ok(Answer::No(format!("approval {id} {why}")));
        }
        let uses = kept.standing.uses();
        let fits = kept.digest == digest
            || (shapes::is_of(uses) && kept.shape.as_deref().is_some_and(|own| shape == Some(own)));
        if !fits || !kept.standing.decisions.iter().any(Decision::approves) {
            return Ok(Answer::No(format!("approval {id} is not for this")));
        }
        let state = if uses == Uses::Once { "used" } else { "open" };
        let sql = "UPDATE request SET state = ?, record = ? WHERE id = ? AND state = 'open'";
        self.work.execute(sql, params![state, Number(record.0), id.to_string()])?;
        self.look(id)
    }

    fn void(&mut self, policy: &str) -> Result<Answer, StoreError> {
        let sql = "UPDATE request SET state = 'void', why = 'the policy changed' WHERE state = 'open'
                   AND policy <> ? AND digest NOT LIKE 'flood %'";
        Ok(Answer::Voided(self.work.execute(sql, [policy])?))
    }

    fn close(&mut self, id: ApprovalId, why: &str) -> Result<Answer, StoreError> {
        let sql = "UPDATE request SET state = 'void', why = ? WHERE id = ? AND state = 'open'";
        self.work.execute(sql, params![why, id.to_string()])?;
        self.look(id)
    }

    fn find(&self, id: ApprovalId) -> Result<Option<Kept>, StoreError> {
        self.read(id, self.outcome)
    }

    fn read(&self, id: ApprovalId, outcome: &OutcomeOf<'_>) -> Result<Option<Kept>, StoreError> {
        let sql = "SELECT card, opened, closes, boot, closes_boot, state, why, record, digest, shape FROM request WHERE id = ?";
        let found = self.work.query_row(sql, [id.to_string()], Raw::read).optional()?;
        let Some(raw) = found else { return Ok(None) };
        let mut statement =
            self.work.prepare_cached("SELECT said FROM decision WHERE request = ? ORDER BY place")?;
        let said = statement.query_map([id.to_string()], |row| row.get::<_, String>(0))?;
        let decisions = said
            .map(|said| Ok(serde_json::from_str(&said?)?))
            .collect::<Result<Vec<Decision>, StoreError>>()?;
        let now = self.now;
        let alive = raw.boot == now.boot
            && (raw.opened..raw.closes).contains(&now.wall)
            && now.since_boot < raw.closes_boot;
        let state = match (raw.state.as_str(), raw.record) {
            // What came of it is told for as long as it could have been used.
            ("used", Some(record)) if alive => State::Used { record, outcome: outcome(record)? },
            ("denied", _) if alive => State::Denied,
            ("void", _) => State::Void { why: raw.why.unwrap_or_default() },
            ("open", _) if alive => State::Open,
            _ => State::Expired,
        };
        let standing = Standing {
            id,
            state,
            decisions,
            opened_at: raw.opened,
            closes_at: raw.closes,
            card: serde_json::from_str(&raw.card)?,
        };
        Ok(Some(Kept { standing, digest: raw.digest, shape: raw.shape, closes_boot: raw.closes_boot }))
    }
}

/// Random bits to name something by.
pub(super) fn random() -> Result<u64, StoreError> {
    let mut bits = [0; 8];
    getrandom::fill(&mut bits)
        .map_err(|error| StoreError::io(Path::new("getrandom"), std::io::Error::other(error.to_string())))?;
    Ok(u64::from_ne_bytes(bits))
}

/// Whether a request in this state is the answer to another wish for the same.
fn stands(state: &State) -> bool {
    match state {
        State::Open | State::Denied => true,
        // What was carried out, well or not, is over; what may have been carried out must not be done again unseen.
        State::Used { outcome, .. } => {
            !matches!(outcome, Some(OutcomeStatus::Completed | OutcomeStatus::Failed))
        }
        State::Void { .. } | State::Expired => false,
    }
}

/// Why nothing can be done any more with a request in this state.
fn over(state: &State) -> Option<String> {
    match state {
        State::Open => None,
        State::Denied => Some("was denied".to_owned()),
        State::Void { why } => Some(format!("is void: {why}")),
        State::Expired => Some("has expired".to_owned()),
        State::Used { record, .. } => Some(format!("was used by record {record}")),
    }
}

/// A row.
struct Raw {
    card: String,
    opened: i64,
    closes: i64,
    boot: String,
    closes_boot: i64,
    state: String,
    why: Option<String>,
    record: Option<RecordId>,
    digest: String,
    shape: Option<String>,
}

impl Raw {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            card: row.get(0)?,
            opened: row.get(1)?,
            closes: row.get(2)?,
            boot: row.get(3)?,
            closes_boot: row.get(4)?,
            state: row.get(5)?,
            why: row.get(6)?,
            record: row.get::<_, Option<Number>>(7)?.map(|number| RecordId(number.0)),
            digest: row.get(8)?,
            shape: row.get(9)?,
        })
    }
}

#[cfg(test)]
#[path = "docket_tests.rs"]
mod tests;
