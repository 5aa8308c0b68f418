//! What the gate writes of a statement: its text as it may be written down, its facts, and the verdict.
//!
//! Promise: no passwords, and at `metadata` neither literals nor bind values.

use std::cell::RefCell;

use interceptor_core::{
    Held,
    inventory::RecordLevel,
    model::{Author, StatementFacts},
    sql,
};
use serde_json::value::{RawValue, to_raw_value};

use super::{Settled, now_us};
use crate::store::{RequestHead, Requests, Statement, What};

/// The most room that a thread keeps for entries, in bytes.
const KEPT: usize = 64 * 1024;

/// The facts and the verdict of one statement, as text.
#[derive(Debug)]
pub(super) struct Told {
    facts: Box<RawValue>,
    verdict: Box<RawValue>,
}

impl Told {
    /// What was settled of the statement at `place`, by the policy with that hash.
    pub(super) fn of(
        settled: &Settled,
        place: usize,
        facts: &StatementFacts,
        policy: &str,
    ) -> Result<Self, serde_json::Error> {
        let verdict = to_raw_value(&settled.record(place, policy))?;
        Ok(Self { facts: to_raw_value(facts)?, verdict })
    }
}

/// Writes the entry of the statement at `place` of `held`; an exchange without that statement has none.
pub(super) fn write(
    requests: &mut Requests,
    head: &RequestHead,
    held: &Held,
    author: Author,
    (place, level): (usize, RecordLevel),
    told: &Told,
) -> Result<(), serde_json::Error> {
    let Some(action) = held.actions().get(place) else { return Ok(()) };
    let (text, binds) = match level {
        RecordLevel::Binds => (sql::redact(&action.text), action.binds.as_slice()),
        RecordLevel::Metadata => (sql::without_literals(&action.text), [].as_slice()),
    };
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let what = What {
        at: now_us(),
        author,
        action: Statement { phase: action.phase, text: &text, binds, facts: &told.facts },
        frame_sha256: held.digest(),
        place: (count(place), count(held.actions().len())),
        verdict: &told.verdict,
    };
    requests.push(head, &what)
}

/// Does `work` with room for entries that this thread keeps.
pub(super) fn with_room<T>(work: impl FnOnce(&mut Requests) -> T) -> T {
    thread_local! {
        static ROOM: RefCell<Requests> = RefCell::default();
    }
    ROOM.with(|room| match room.try_borrow_mut() {
        Ok(mut room) => {
            let done = work(&mut room);
            if room.room() > KEPT {
                *room = Requests::default();
            }
            room.clear();
            done
        }
        // Not reached: `work` does not come back here.
        Err(_) => work(&mut Requests::default()),
    })
}
