//! The daemon towards people who want to see, or bring back, what a statement changed.
//!
//! Promises: rows are brought back for a person in a log-in session of theirs alone, who might have approved of the
//! statement and is recorded before anything is
//! sent; what is shown is what would be sent.

use interceptor_core::{
    approval,
    inventory::Person,
    model::{EventKind, EventRecord, RecordId},
    undo::Undo,
};

use super::proxy::Daemon;
use crate::{
    approval::KeptPack,
    control::{approvals::Answer, caller::Caller},
    gate::now_us,
    proxy::Restoring,
};

/// How much of a text goes with one answer, in bytes: whatever has to be escaped in it, that fits a message.
const PART: usize = 20 << 10;

impl Daemon {
    pub(super) async fn images(&self, record: RecordId, from: usize) -> Answer {
        let KeptPack { undo, used } = match self.proxy.gate.packs().find(record).await {
            Ok(kept) => kept,
            Err(text) => return Answer::Failed { text },
        };
        let statements: String = undo.pack.statements().into_iter().map(|text| text + ";\n").collect();
        let rest = statements.get(from..).unwrap_or_default();
        let text = rest.get(..rest.floor_char_boundary(PART)).unwrap_or_default().to_owned();
        Answer::Images { text, used }
    }

    pub(super) async fn undo(&self, caller: &Caller, person: &Person, record: RecordId) -> Answer {
        let failed = |text: String| Answer::Failed { text };
        let undo = match self.proxy.gate.packs().find(record).await {
            Ok(KeptPack { used: Some(by), .. }) => {
                return failed(format!("the pack of record {record} was used by {by}: it can be used once"));
            }
            Ok(KeptPack { undo, .. }) if undo.pack.rows.is_empty() => {
                return failed(format!("record {record} changed no row: there is nothing to bring back"));
            }
            Ok(KeptPack { undo, .. }) => undo,
            Err(text) => return failed(text),
        };
        if let Err(why) = approval::may_undo(person, &undo.run) {
            return failed(format!("nothing was changed: {why}"));
        }
        let (rows, table) = (undo.pack.rows.len(), undo.pack.table_name());
        let by = format!("{} (uid {}, session {})", person.name, person.uid, caller.session);
        if let Err(error) =
            self.wants(&undo, format!("undo of record {record}, {rows} rows of {table}: {by}"))
        {
            return failed(format!("nothing was changed: it could not be recorded ({error})"));
        }
        match (Restoring { undo, record, by }).run(&self.proxy).await {
            Ok(()) => Answer::Undone {
                text: format!("{rows} rows of {table} are as they were before record {record}"),
            },
            Err(error) => failed(error.to_string()),
        }
    }

    fn wants(&self, undo: &Undo, text: String) -> Result<(), String> {
        let event = EventRecord {
            at: now_us(),
            run: Some(undo.run.id),
            agent: Some(undo.run.agent.name.clone()),
            kind: EventKind::Decided,
            text,
            attempt: None,
        };
        self.proxy.gate.producer().append_event(&event).map(drop).map_err(|error| error.to_string())
    }
}
