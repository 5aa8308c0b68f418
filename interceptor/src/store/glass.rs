//! Where each break-glass is kept, beside the docket: from its beginning to its review.
//!
//! Promises: one at a time, and the next only when the last was reviewed; it lasts by the clock of this boot as well as
//! by the calendar, and not beyond either. Who may break it or review it is not known here.

use std::path::Path;

use interceptor_core::{
    break_glass::{BreakGlass, By, Review},
    model::{BreakGlassId, ResourceName},
};
use rusqlite::{OptionalExtension, Transaction, params};
use serde::{Deserialize, Serialize};

use super::{
    StoreError,
    docket::{Moment, SECOND, random},
};

pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS glass (
    id TEXT PRIMARY KEY, resource TEXT NOT NULL, reason TEXT NOT NULL, broken_by TEXT NOT NULL,
    opened INTEGER NOT NULL, closes INTEGER NOT NULL, boot TEXT NOT NULL, closes_boot INTEGER NOT NULL, review TEXT);
";

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum GlassQuestion {
    /// Break it.
    Break {
        /// Where.
        resource: ResourceName,
        /// Why.
        reason: String,
        /// Who.
        by: By,
        /// For how long, in seconds.
        seconds: u64,
    },
    /// It ends now.
    End(BreakGlassId),
    /// Somebody looked at it.
    Review {
        /// At which.
        id: BreakGlassId,
        /// Who, and what they say.
        review: Review,
    },
    /// What is broken, or not reviewed yet.
    Pending,
}

/// What is answered: those that are broken or not reviewed, and the one that was asked about; or why nothing was done.
pub(super) type Answer = Result<Vec<BreakGlass>, String>;

pub(super) fn answer(
    work: &Transaction<'_>,
    now: &Moment,
    question: GlassQuestion,
) -> Result<Answer, StoreError> {
    let books = Books { work, now };
    match question {
        GlassQuestion::Break { resource, reason, by, seconds } => {
            books.open(&resource, &reason, &by, seconds)
        }
        GlassQuestion::End(id) => books.end(id),
        GlassQuestion::Review { id, review } => books.review(id, &review),
        GlassQuestion::Pending => books.pending().map(Ok),
    }
}

struct Books<'a> {
    work: &'a Transaction<'a>,
    now: &'a Moment,
}

impl Books<'_> {
    fn open(
        &self,
        resource: &ResourceName,
        reason: &str,
        by: &By,
        seconds: u64,
    ) -> Result<Answer, StoreError> {
        if let Some(last) = self.pending()?.first() {
            return Ok(Err(format!(
                "break-glass {0} on {1} by {2} was not reviewed yet, and blocks the next: another person closes it with \
                 `interceptor approvals review {0} --note \"...\"`",
                last.id,
                last.resource,
                last.by.in_words()
            )));
        }
        let id = BreakGlassId::from_random(random()?);
        let lasts = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(SECOND);
        self.work.execute(
            "INSERT INTO glass (id, resource, reason, broken_by, opened, closes, boot, closes_boot)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            params![
                id.to_string(),
                resource.as_str(),
                reason,
                serde_json::to_string(by)?,
                self.now.wall,
                self.now.wall.saturating_add(lasts),
                self.now.boot,
                self.now.since_boot.saturating_add(lasts),
            ],
        )?;
        self.one(id)
    }

    fn end(&self, id: BreakGlassId) -> Result<Answer, StoreError> {
        let sql = "UPDATE glass SET closes = min(closes, ?), closes_boot = min(closes_boot, ?) WHERE id = ?";
        self.work.execute(sql, params![self.now.wall, self.now.since_boot, id.to_string()])?;
        self.one(id)
    }

    fn review(&self, id: BreakGlassId, review: &Review) -> Result<Answer, StoreError> {
        let sql = "UPDATE glass SET review = ? WHERE id = ? AND review IS NULL";
        let changed = self.work.execute(sql, params![serde_json::to_string(review)?, id.to_string()])?;
        if changed == 0 {
            return Ok(Err(format!("there is no break-glass {id} that waits for a review")));
        }
        self.one(id)
    }

    fn pending(&self) -> Result<Vec<BreakGlass>, StoreError> {
        let sql = "SELECT id FROM glass WHERE review IS NULL ORDER BY opened DESC";
        let mut statement = self.work.prepare(sql)?;
        let ids = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
        let mut all = Vec::new();
        for id in ids.iter().filter_map(|id| id.parse().ok()) {
            all.extend(self.find(id)?);
        }
        Ok(all)
    }

    fn one(&self, id: BreakGlassId) -> Result<Answer, StoreError> {
        Ok(self
            .find(id)?
            .map_or_else(|| Err(format!("there is no break-glass {id}")), |found| Ok(vec![found])))
    }

    fn find(&self, id: BreakGlassId) -> Result<Option<BreakGlass>, StoreError> {
        type Row = (String, String, String, i64, i64, String, i64, Option<String>);
        let sql = "SELECT resource, reason, broken_by, opened, closes, boot, closes_boot, review FROM glass WHERE id = ?";
        let read = |row: &rusqlite::Row<'_>| -> rusqlite::Result<Row> {
            Ok((
                row.get(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
                row.get(5)?,
                row.get(6)?,
                row.get(7)?,
            ))
        };
        let found = self.work.query_row(sql, [id.to_string()], read).optional()?;
        let Some((resource, reason, by, opened_at, closes_at, boot, closes_boot, review)) = found else {
            return Ok(None);
        };
        let now = self.now;
        let alive = boot == now.boot && (opened_at..closes_at).contains(&now.wall);
        let left = closes_at.saturating_sub(now.wall).min(closes_boot.saturating_sub(now.since_boot));
        Ok(Some(BreakGlass {
            id,
            resource: resource.parse().map_err(|_| {
                StoreError::damaged(Path::new("approvals.sqlite"), "a break-glass names no resource")
            })?,
            reason,
            by: serde_json::from_str(&by)?,
            opened_at,
            closes_at,
            left: u64::try_from(left / SECOND).ok().filter(|left| alive && *left > 0),
            review: review.as_deref().map(serde_json::from_str).transpose()?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    struct Desk {
        connection: Connection,
        now: Moment,
    }

    impl Desk {
        fn new() -> Self {
            let connection = Connection::open_in_memory().unwrap();
            connection.execute_batch(TABLES).unwrap();
            let now = Moment { wall: 1_000 * SECOND, since_boot: 50 * SECOND, boot: "b1".to_owned() };
            Self { connection, now }
        }

        fn ask(&mut self, question: GlassQuestion) -> Answer {
            let work = self.connection.transaction().unwrap();
            let answer = answer(&work, &self.now, question).unwrap();
            work.commit().unwrap();
            answer
        }

        fn open(&mut self, seconds: u64) -> Answer {
            let by = By { uid: 0, login: Some(1001), person: None };
            let resource = "orders".parse().unwrap();
            self.ask(GlassQuestion::Break { resource, reason: "pager".to_owned(), by, seconds })
        }

        fn later(&mut self, seconds: i64) {
            self.now.wall += seconds * SECOND;
            self.now.since_boot += seconds * SECOND;
        }
    }

    fn review() -> Review {
        Review { person: "eve".parse().unwrap(), note: "fine".to_owned(), at: 5 }
    }

    #[test]
    fn the_next_waits_for_the_review_of_the_last() {
        let mut desk = Desk::new();
        let first = desk.open(60).unwrap().remove(0);
        assert_eq!(first.left, Some(60));
        assert!(desk.open(60).unwrap_err().contains("blocks the next"));
        desk.later(61);
        assert_eq!(desk.ask(GlassQuestion::Pending).unwrap()[0].left, None, "it is over");
        assert!(desk.open(60).unwrap_err().contains("not reviewed"), "and blocks all the same");
        let reviewed = desk.ask(GlassQuestion::Review { id: first.id, review: review() }).unwrap();
        assert_eq!(reviewed[0].review, Some(review()));
        assert!(desk.ask(GlassQuestion::Review { id: first.id, review: review() }).is_err(), "once");
        assert_eq!(desk.ask(GlassQuestion::Pending), Ok(Vec::new()));
        assert!(desk.open(60).is_ok());
    }

    #[test]
    fn it_lasts_by_both_clocks_and_ends_when_told() {
        let mut desk = Desk::new();
        let first = desk.open(600).unwrap().remove(0);
        // The calendar was set back, or forth, while the time went on.
        desk.now.since_boot += 599 * SECOND;
        assert_eq!(desk.ask(GlassQuestion::Pending).unwrap()[0].left, Some(1));
        desk.now.since_boot += 2 * SECOND;
        assert_eq!(desk.ask(GlassQuestion::Pending).unwrap()[0].left, None);
        desk.now = Moment { wall: 1_010 * SECOND, since_boot: 60 * SECOND, boot: "b2".to_owned() };
        assert_eq!(desk.ask(GlassQuestion::Pending).unwrap()[0].left, None, "not beyond a boot");
        desk.ask(GlassQuestion::Review { id: first.id, review: review() }).unwrap();
        let second = desk.open(600).unwrap().remove(0);
        assert_eq!(desk.ask(GlassQuestion::End(second.id)).unwrap()[0].left, None);
        assert_eq!(desk.ask(GlassQuestion::Pending).unwrap().len(), 1, "it still waits for its review");
    }
}
