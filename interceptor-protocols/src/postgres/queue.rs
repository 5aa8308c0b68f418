//! What the upstream still owes: an entry for each message sent that it answers, in order.
//!
//! Promise: an answer is attributed to the entry at the front or is an error; the queue is bounded.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use interceptor_core::{mask::Provenance, sql::CopyStream};
use smallvec::SmallVec;

use super::{
    copy::Copying,
    described::Described,
    names::Name,
    own::{Ends, Gate},
    recorded::Gathered,
    veil::Veil,
};

/// Room for how many messages a queue keeps when nothing is under way any more.
const KEPT: usize = 16;
/// How many messages may be under way.
pub(super) const MAX_QUEUE: usize = 65_536;

/// One message that the upstream answers.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    /// The exchange that its end is told of; none where nothing was judged, or it was refused.
    pub(super) exchange: Option<u64>,
    /// What the client gets instead of the server's error: the message was replaced by one that fails.
    pub(super) replaced: Option<Bytes>,
    /// The COPY under way.
    pub(super) copying: Option<Copying>,
    /// The server has been told to send what it has to say of it.
    pub(super) flushed: bool,
    /// Rows and bytes of the place under way.
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// The terms that it must keep.
    pub(super) bounds: Bounds,
    /// What is hidden in its answer.
    pub(super) veil: Veil,
    /// What is recorded of the rows of the place under way, once one has come where they are.
    pub(super) gathered: Option<Box<Gathered>>,
}

/// One statement of a Query, and what it changes.
#[derive(Debug)]
pub(super) struct Place<C> {
    /// Whether it answers at all: an empty one does not.
    pub(super) answers: bool,
    /// Which way it may stream.
    pub(super) copy: Option<CopyStream>,
    pub(super) changes: C,
    /// Where the values of its answer come from.
    pub(super) provenance: Option<Arc<Provenance>>,
}

/// The statements of a Query. Nearly always it is one, which takes no memory of its own.
pub(super) type Places<C> = SmallVec<[Place<C>; 1]>;

/// Changes of names, by the number of each; of one message there is hardly ever more than one.
pub(super) type Changes = SmallVec<[(u64, Planned); 1]>;

/// A planned change: what is needed to settle it.
#[derive(Debug)]
pub(super) enum Planned {
    Statement(Name),
    Portal(Name),
    Cursor(Name),
    AllStatements,
    AllCursors,
    AllPortals,
}

/// What kind of answer is owed.
#[derive(Debug)]
pub(super) enum Kind {
    Query {
        places: Places<Changes>,
        at: usize,
        failed: bool,
        /// The text could not be read: it may have any number of statements.
        opaque: bool,
    },
    Function {
        failed: bool,
    },
    Parse(Changes),
    Bind(Changes),
    Describe {
        /// The prepared statement that is described.
        statement: Option<Name>,
        /// Whether the parameters have been told.
        told: bool,
        /// Where what it says of rows is kept.
        rows: Option<Described>,
    },
    Close(Changes),
    Execute {
        changes: Changes,
        /// Which way it may stream.
        copy: Option<CopyStream>,
        /// What it runs is not known: it may stream either way.
        opaque: bool,
    },
    Sync,
    Gate(Box<Gate>),
}

/// Within which terms an answer is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bounds {
    /// There are none.
    None,
    /// So many rows may pass.
    Ceiling(u64),
    /// It is enclosed: what comes of it is weighed at its end.
    Enclosed,
}

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    entries: VecDeque<Entry>,
}

impl Default for Queue {
    fn default() -> Self {
        // Most sessions have one or two under way at most, and keep their places while they are idle.
        Self { entries: VecDeque::with_capacity(1) }
    }
}

impl Entry {
    /// An entry for a message that was judged, or not (`None`).
    pub(super) fn new(kind: Kind, exchange: Option<u64>) -> Self {
        Self {
            kind,
            exchange,
            replaced: None,
            copying: None,
            flushed: false,
            rows: 0,
            bytes: 0,
            bounds: Bounds::None,
            veil: Veil::closed(),
            gathered: None,
        }
    }
}

impl Queue {
    pub(super) fn push(&mut self, entry: Entry) {
        self.entries.push_back(entry);
    }

    pub(super) fn front(&mut self) -> Option<&mut Entry> {
        self.entries.front_mut()
    }

    pub(super) fn first(&self) -> Option<&Entry> {
        self.entries.front()
    }

    pub(super) fn last(&self) -> Option<&Entry> {
        self.entries.back()
    }

    pub(super) fn last_mut(&mut self) -> Option<&mut Entry> {
        self.entries.back_mut()
    }

    pub(super) fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front();
        if self.entries.is_empty() && self.entries.capacity() > KEPT {
            *self = Self::default();
        }
        entry
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= MAX_QUEUE
    }

    /// Whether a message is under way at which a server that passes things over stops doing so.
    pub(super) fn has_sync(&self) -> bool {
        self.entries.iter().any(Entry::ends_skipping)
    }

    /// Whether nothing that is under way does anything, or ends a stretch.
    pub(super) fn only_prepares(&self) -> bool {
        self.entries.iter().all(|entry| entry.kind.only_prepares())
    }

    /// The exchange of our own that a failing server will pass over, if there is one.
    pub(super) fn take_skipped_gate(&mut self) -> Option<Entry> {
        let at = self.entries.iter().take_while(|entry| !entry.ends_skipping()).position(Entry::is_gate)?;
        self.entries.remove(at)
    }
}

impl Entry {
    /// Whether it is an exchange of our own.
    pub(super) fn is_gate(&self) -> bool {
        matches!(self.kind, Kind::Gate(_))
    }

    /// Whether a server that passes things over stops at it.
    pub(super) fn ends_skipping(&self) -> bool {
        match &self.kind {
            Kind::Sync => true,
            Kind::Gate(gate) => gate.ends == Ends::Sync,
            _ => false,
        }
    }
}
