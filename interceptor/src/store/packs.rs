//! Undo packs: the rows that statements were about to change, as they were. They are not part of the record, which only
//! names them; they are forgotten after a while.
//!
//! Promises: a pack is on disk, whole and as its record says, before the answer that it is kept; of two uses that come
//! together the first wins, and it is on disk before it is answered. What a pack means is not known here.

use std::{path::Path, time::Duration};

use interceptor_core::{model::RecordId, undo::UndoRecord};
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{StoreError, index::Number};

/// Packs are forgotten after so many seconds.
const KEPT: i64 = 7 * 24 * 3600;
const SECOND: i64 = 1_000_000;
/// How long another connection may take.
const PATIENCE: Duration = Duration::from_secs(5);

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS pack (
    record INTEGER PRIMARY KEY, sha256 TEXT NOT NULL, rows INTEGER NOT NULL, made INTEGER NOT NULL, used TEXT);
CREATE TABLE IF NOT EXISTS part (
    record INTEGER NOT NULL, place INTEGER NOT NULL, made INTEGER NOT NULL, text TEXT NOT NULL,
    PRIMARY KEY (record, place));
";

/// What is asked about packs. A pack goes in parts that each fit a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Question {
    /// Keep this part of the pack of a record, from 0.
    Part {
        /// The record.
        record: RecordId,
        /// Which part.
        place: u32,
        /// What it is.
        text: String,
    },
    /// All parts have been given: together they are this.
    Whole {
        /// The record.
        record: RecordId,
        /// What its record says.
        is: UndoRecord,
    },
    /// Is there a whole pack?
    Look(RecordId),
    /// Read one part of it.
    Read {
        /// The record.
        record: RecordId,
        /// Which part.
        place: u32,
    },
    /// It is about to be used, which can be done once.
    Use {
        /// The record.
        record: RecordId,
        /// By whom.
        by: String,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// To all that changes something.
    Done,
    /// To [`Question::Look`].
    Kept {
        /// How many parts it has.
        parts: u32,
        /// What its record says.
        is: UndoRecord,
        /// Who has used it.
        used: Option<String>,
    },
    /// To [`Question::Read`].
    Text(String),
    /// Not done, and why.
    No(String),
}

/// The packs.
#[derive(Debug)]
pub struct Packs(Connection);

impl Packs {
    /// Opens the packs in the store's folder.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let connection = Connection::open(dir.join("packs.sqlite"))?;
        connection.busy_timeout(PATIENCE)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "secure_delete", "ON")?;
        connection.execute_batch(TABLES)?;
        Ok(Self(connection))
    }

    /// Answers a question.
    pub fn answer(&mut self, question: Question, now: i64) -> Result<Answer, StoreError> {
        let work = self.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let shelf = Shelf { work, now };
        let answer = match question {
            Question::Part { record, place, text } => shelf.part(record, place, &text),
            Question::Whole { record, is } => shelf.whole(record, &is),
            Question::Look(record) => shelf.look(record),
            Question::Read { record, place } => shelf.read(record, place),
            Question::Use { record, by } => shelf.use_up(record, &by),
        }?;
        shelf.work.commit()?;
        Ok(answer)
    }
}

/// One transaction.
struct Shelf<'a> {
    work: Transaction<'a>,
    now: i64,
}

impl Shelf<'_> {
    fn part(&self, record: RecordId, place: u32, text: &str) -> Result<Answer, StoreError> {
        if place == 0 {
            self.forget()?;
        }
        if self.is_whole(record)? {
            return Ok(Answer::No(format!("record {record} has a pack already")));
        }
        let sql = "INSERT INTO part (record, place, made, text) VALUES (?, ?, ?, ?)";
        self.work.execute(sql, params![Number(record.0), place, self.now, text])?;
        Ok(Answer::Done)
    }

    /// What is too old is gone.
    fn forget(&self) -> Result<(), StoreError> {
        let old = self.now.saturating_sub(KEPT.saturating_mul(SECOND));
        self.work.execute("DELETE FROM part WHERE made < ?", [old])?;
        self.work.execute("DELETE FROM pack WHERE made < ?", [old])?;
        Ok(())
    }

    fn is_whole(&self, record: RecordId) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM pack WHERE record = ?";
        Ok(self.work.query_row(sql, [Number(record.0)], |_| Ok(())).optional()?.is_some())
    }

    fn whole(&self, record: RecordId, is: &UndoRecord) -> Result<Answer, StoreError> {
        let mut digest = Sha256::new();
        let mut statement = self.work.prepare("SELECT text FROM part WHERE record = ? ORDER BY place")?;
        let texts = statement.query_map([Number(record.0)], |row| row.get::<_, String>(0))?;
        for text in texts {
            digest.update(text?);
        }
        if format!("{:x}", digest.finalize()) != is.sha256 {
            return Ok(Answer::No(format!("the pack of record {record} did not come whole")));
        }
        let sql = "INSERT INTO pack (record, sha256, rows, made) VALUES (?, ?, ?, ?)";
        self.work.execute(sql, params![Number(record.0), is.sha256, Number(is.rows), self.now])?;
        Ok(Answer::Done)
    }

    fn look(&self, record: RecordId) -> Result<Answer, StoreError> {
        self.forget()?;
        let sql = "SELECT sha256, rows, used, (SELECT count(*) FROM part WHERE part.record = pack.record)
                   FROM pack WHERE record = ?";
        let kept = self.work.query_row(sql, [Number(record.0)], |row| {
            let rows = row.get::<_, Number>(1)?.0;
            let is = UndoRecord { sha256: row.get(0)?, rows };
            Ok(Answer::Kept { parts: row.get(3)?, is, used: row.get(2)? })
        });
        Ok(kept.optional()?.unwrap_or_else(|| none(record)))
    }

    fn read(&self, record: RecordId, place: u32) -> Result<Answer, StoreError> {
        let sql = "SELECT text FROM part WHERE record = ? AND place = ?";
        let text = self.work.query_row(sql, params![Number(record.0), place], |row| row.get(0)).optional()?;
        Ok(text.map_or_else(|| none(record), Answer::Text))
    }

    fn use_up(&self, record: RecordId, by: &str) -> Result<Answer, StoreError> {
        let sql = "UPDATE pack SET used = ? WHERE record = ? AND used IS NULL";
        if self.work.execute(sql, params![by, Number(record.0)])? == 1 {
            return Ok(Answer::Done);
        }
        Ok(match self.look(record)? {
            Answer::Kept { used: Some(by), .. } => {
                Answer::No(format!("the pack of record {record} was used by {by}: it can be used once"))
            }
            other => other,
        })
    }
}

fn none(record: RecordId) -> Answer {
    Answer::No(format!(
        "there are no images of what record {record} changed: no rule with `@undo` was about it, or they are older than \
         7 days"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000 * SECOND;

    #[test]
    fn a_pack_is_whole_or_none_is_used_once_and_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let mut packs = Packs::open(folder.path()).unwrap();
        let record = RecordId(7);
        let is = UndoRecord { rows: 2, sha256: format!("{:x}", Sha256::digest("one and two")) };
        let part = |place, text: &str| Question::Part { record, place, text: text.to_owned() };
        let mut ask = |question, now| packs.answer(question, now).unwrap();
        assert_eq!(ask(part(0, "one "), NOW), Answer::Done);
        assert!(
            matches!(ask(Question::Whole { record, is: is.clone() }, NOW), Answer::No(why) if why.contains("whole"))
        );
        assert!(matches!(ask(Question::Look(record), NOW), Answer::No(_)));
        assert_eq!(ask(part(1, "and two"), NOW), Answer::Done);
        assert_eq!(ask(Question::Whole { record, is: is.clone() }, NOW), Answer::Done);
        assert!(matches!(ask(part(2, "more"), NOW), Answer::No(_)));
        assert_eq!(ask(Question::Look(record), NOW), Answer::Kept { parts: 2, is: is.clone(), used: None });
        assert_eq!(ask(Question::Read { record, place: 1 }, NOW), Answer::Text("and two".to_owned()));
        let by = |name: &str| Question::Use { record, by: name.to_owned() };
        assert_eq!(ask(by("bob"), NOW), Answer::Done);
        assert!(matches!(ask(by("eve"), NOW), Answer::No(why) if why.contains("used by bob")));
        assert!(matches!(ask(Question::Look(record), NOW + (KEPT + 1) * SECOND), Answer::No(_)));
        assert!(matches!(ask(by("eve"), NOW), Answer::No(why) if why.contains("no images")));
    }
}
