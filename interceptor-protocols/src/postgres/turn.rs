//! What the session's own statements change of what names mean and how texts are read, and how long a transaction
//! keeps that undecided.
//!
//! Promise: whatever is not on the short list of what changes nothing counts as a change, once when it is sent and
//! once more at every end of a transaction that may undo it or make it visible to others. It must never know what
//! a name means.

use std::sync::Arc;

use interceptor_core::{
    catalogue::Catalogue,
    model::{Action, Effect, StatementFacts, Target, Verb},
    sql::TransactionVerb,
};

use super::action::Expanded;

/// Settings that change neither what a name means nor how a text is read.
const QUIET_SETTINGS: [&str; 22] = [
    "application_name",
    "bytea_output",
    "client_min_messages",
    "datestyle",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "extra_float_digits",
    "geqo",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "intervalstyle",
    "jit",
    "lock_timeout",
    "maintenance_work_mem",
    "statement_timeout",
    "synchronous_commit",
    "timezone",
    "transaction",
    "transaction_isolation",
    "transaction_read_only",
    "work_mem",
    "xmloption",
];

/// Built-in functions that are not harmless, and still define nothing and run nothing of anybody's.
const QUIET_FUNCTIONS: [&str; 23] = [
    "currval",
    "lastval",
    "lo_close",
    "lo_creat",
    "lo_create",
    "lo_from_bytea",
    "lo_get",
    "lo_lseek",
    "lo_lseek64",
    "lo_open",
    "lo_put",
    "lo_tell",
    "lo_tell64",
    "lo_truncate",
    "lo_truncate64",
    "lo_unlink",
    "loread",
    "lowrite",
    "nextval",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
    "setval",
];

/// How far a change of what names mean reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Turn {
    /// Names mean what they meant.
    #[default]
    Nothing,
    /// They may mean something else to this session: its search path, its role.
    Session,
    /// They may mean something else to everybody.
    Catalogue,
}

/// What one statement turns when it runs, where `undecided` is what the transaction under way has turned before.
pub(super) fn of(item: &Expanded<'_>, facts: &StatementFacts, undecided: Turn) -> Turn {
    if facts.unknown.is_some() {
        return Turn::Catalogue;
    }
    let ends = match item.statement().transaction {
        None | Some(TransactionVerb::Begin) => Turn::Nothing,
        Some(TransactionVerb::Commit | TransactionVerb::Rollback | TransactionVerb::Other) => undecided,
        Some(TransactionVerb::Prepared) => Turn::Catalogue,
    };
    facts.effects.iter().map(of_effect).fold(ends, Turn::max)
}

/// What an exchange turns; more or fewer actions than statements mean that it was not understood.
pub(super) fn of_all(items: &[Expanded<'_>], actions: &[Action], undecided: Turn) -> Turn {
    if items.len() != actions.len() {
        return Turn::Catalogue;
    }
    // The end of a transaction publishes what came before it in the same text.
    items.iter().zip(actions).fold(Turn::Nothing, |turned, (item, action)| {
        turned.max(of(item, &action.facts, undecided.max(turned)))
    })
}

/// What a call turns whose facts these are.
pub(super) fn of_call(facts: &StatementFacts) -> Turn {
    if facts.unknown.is_some() {
        return Turn::Catalogue;
    }
    facts.effects.iter().map(of_effect).fold(Turn::Nothing, Turn::max)
}

fn of_effect(effect: &Effect) -> Turn {
    match (effect.verb, &effect.target) {
        (verb, _) if is_plain(verb) => Turn::Nothing,
        (Verb::SessionChange, Target::Setting(name))
            if QUIET_SETTINGS.binary_search(&name.as_str()).is_ok() =>
        {
            Turn::Nothing
        }
        (Verb::SessionChange, _) => Turn::Session,
        // What a column bears may be more afterwards.
        (Verb::LabelFilter | Verb::See, _) => Turn::Nothing,
        (Verb::LabelCopy, _) => Turn::Catalogue,
        (Verb::FunctionCall, Target::Function(function))
            if function.oid.is_none_or(is_servers_own)
                && function.schema == "pg_catalog"
                && (QUIET_FUNCTIONS.binary_search(&function.name.as_str()).is_ok()
                    || is_advisory_lock(&function.name)) =>
        {
            Turn::Nothing
        }
        _ => Turn::Catalogue,
    }
}

/// Whether what is done with a verb defines nothing and runs nothing of anybody's.
pub(super) fn is_plain(verb: Verb) -> bool {
    matches!(
        verb,
        Verb::DataRead
            | Verb::DataInsert
            | Verb::DataUpdate
            | Verb::DataDelete
            | Verb::DataTruncate
            | Verb::DataLock
            | Verb::Transaction
            | Verb::Notify
    )
}

/// Whether a function with this number is there from the beginning.
fn is_servers_own(oid: u32) -> bool {
    oid < 16_384
}

fn is_advisory_lock(name: &str) -> bool {
    name.starts_with("pg_advisory_") || name.starts_with("pg_try_advisory_")
}

/// The session's changes so far.
#[derive(Debug)]
pub(super) struct Turns {
    /// Counts what may have changed what names mean, or how texts are read.
    changes: u64,
    /// The value of `changes` for which it is proven how texts are read.
    proven: u64,
    /// What has been turned, and may still be undone or made visible by the end of a transaction.
    undecided: Turn,
    /// An explicit transaction is certainly under way, so that the end of a stretch of messages ends nothing.
    block: bool,
    catalogue: Arc<Catalogue>,
}

impl Turns {
    /// Nothing has changed yet at a resource that has this catalogue.
    pub(super) fn new(catalogue: Arc<Catalogue>) -> Self {
        Self { changes: 0, proven: 0, undecided: Turn::Nothing, block: false, catalogue }
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// What is shared with the resource's other sessions.
    pub(super) fn catalogue(&self) -> &Arc<Catalogue> {
        &self.catalogue
    }

    /// What the transaction under way has turned.
    pub(super) fn undecided(&self) -> Turn {
        self.undecided
    }

    /// Whether it is proven how texts are read now.
    pub(super) fn is_proven(&self) -> bool {
        self.proven == self.changes
    }

    /// The settings were seen as they were after the first `changes` changes.
    pub(super) fn prove(&mut self, changes: u64) {
        self.proven = changes;
    }

    /// Something has been sent that turns this much.
    pub(super) fn sent(&mut self, turn: Turn) {
        if turn == Turn::Nothing {
            return;
        }
        self.changes = self.changes.saturating_add(1);
        self.undecided = self.undecided.max(turn);
        self.block = false;
        if turn == Turn::Catalogue {
            self.catalogue.advance();
        }
    }

    /// A message has been sent that ends an implicit transaction.
    pub(super) fn stretch_ended(&mut self) {
        if self.undecided > Turn::Nothing && !self.block {
            self.changes = self.changes.saturating_add(1);
        }
    }

    /// The server has answered a stretch of messages.
    pub(super) fn answered(&self) {
        self.publish();
    }

    /// The server has answered everything, and its transaction has this status.
    pub(super) fn settled(&mut self, status: u8) {
        self.proven = self.changes;
        self.block = status == b'T';
        if status == b'I' {
            self.undecided = Turn::Nothing;
        }
    }

    /// What was turned may have become visible to others.
    fn publish(&self) {
        if self.undecided == Turn::Catalogue {
            self.catalogue.advance();
        }
    }
}

impl Drop for Turns {
    /// What was under way when the connection ended is carried out all the same.
    fn drop(&mut self) {
        self.publish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_in_order() {
        assert!(QUIET_SETTINGS.is_sorted());
        assert!(QUIET_FUNCTIONS.is_sorted());
    }

    #[test]
    fn the_end_of_a_transaction_that_turned_something_is_a_change() {
        let catalogue = Arc::new(Catalogue::new(|| 0));
        let seen = || catalogue.stage().changes;
        let mut turns = Turns::new(catalogue.clone());
        turns.stretch_ended();
        assert_eq!((turns.changes(), seen()), (0, 0), "nothing was turned");
        turns.sent(Turn::Catalogue);
        turns.stretch_ended();
        assert_eq!((turns.changes(), seen()), (2, 1));
        turns.answered();
        turns.settled(b'T');
        assert_eq!(seen(), 2, "it may be visible");
        turns.stretch_ended();
        assert_eq!(turns.changes(), 2, "the transaction goes on");
        turns.sent(turns.undecided());
        turns.answered();
        turns.settled(b'I');
        assert_eq!((turns.changes(), seen(), turns.undecided()), (3, 4, Turn::Nothing));
        turns.sent(Turn::Catalogue);
        drop(turns);
        assert_eq!(seen(), 6, "a connection that ends in between publishes too");
    }
}
