//! What the gate writes of a statement beside what was ruled: its text as it may be written down, and its values.
//!
//! Promise: no passwords, and at `metadata` neither literals nor bind values. What labelled data comes into is written
//! as at `metadata`, whoever may see it. Arguments of processes may have the same values, at any time: they are written
//! neither at `metadata` nor where there are labels.

use std::cell::RefCell;

use interceptor_core::{
    Held,
    inventory::RecordLevel,
    mask::Labels,
    model::{Author, ProcessFacts},
};

use super::{Subject, now_us};
use crate::store::{RequestHead, RequestRuling, Requests, Statement, What};

/// The most room that a thread keeps for entries, in bytes.
const KEPT: usize = 64 * 1024;

/// The half of `subject`'s entries that says who, at a resource with this level and these labels.
pub(super) fn head(
    subject: &Subject,
    level: RecordLevel,
    labels: &Labels,
) -> Result<RequestHead, serde_json::Error> {
    let process = subject.process();
    match level {
        RecordLevel::Binds | RecordLevel::Rows if labels.is_empty() => subject.head(process),
        RecordLevel::Binds | RecordLevel::Rows | RecordLevel::Metadata => {
            subject.head(process.cloned().map(ProcessFacts::without_arguments).as_ref())
        }
    }
}

/// Writes the entry of the statement at `place` of `held`; an exchange without that statement has none.
pub(super) fn write(
    requests: &mut Requests,
    head: &RequestHead,
    held: &Held,
    author: Author,
    (place, level, labels): (usize, RecordLevel, &Labels),
    ruling: &RequestRuling,
) -> Result<(), serde_json::Error> {
    let Some(action) = held.actions().get(place) else { return Ok(()) };
    let labelled = author == Author::Agent && labels.come_into(action);
    let level = if labelled { RecordLevel::Metadata } else { level };
    let dialect = action.facts.dialect;
    let (text, binds) = match level {
        RecordLevel::Binds | RecordLevel::Rows => (dialect.redact(&action.text), action.binds.as_slice()),
        RecordLevel::Metadata => (dialect.without_literals(&action.text), [].as_slice()),
    };
    let text = labels.words(text);
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let what = What {
        action: Statement { phase: action.phase, text: &text, binds },
        at: now_us(),
        author,
        frame_sha256: held.digest(),
        place: (count(place), count(held.actions().len())),
    };
    requests.push(head, ruling, &what)
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
