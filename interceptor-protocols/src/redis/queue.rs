//! What the upstream still owes, and what the client is owed by us, in order.
//!
//! Promise: an answer is attributed to the entry at the front or is an error; the queue is bounded.

use std::collections::VecDeque;

use bytes::Bytes;
use interceptor_core::mask::Mask;

/// How many commands may be under way.
pub(super) const MOST: usize = 65_536;

/// One command that is owed an answer.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    /// The exchange that its end is told of; none where nothing was judged, or it was refused.
    pub(super) exchange: Option<u64>,
    /// What the client gets instead of the server's answer.
    pub(super) replaced: Option<Bytes>,
    /// What is hidden in its answer.
    pub(super) mask: Mask,
    /// How many keys it may change.
    pub(super) changes: u64,
}

/// What kind of answer is owed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// One answer.
    Plain,
    /// One answer, after which commands are queued.
    Multi,
    /// One answer, with those of the queued commands in it.
    Exec,
    /// One answer, after which the queued commands are forgotten.
    Discard,
    /// So many confirmations, or as many as there are subscriptions of that kind.
    Confirmations { of: Subscription, left: Left },
    /// Nothing that the upstream says: these bytes of ours.
    Ours(Bytes),
}

/// How many confirmations are still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    Count(usize),
    UntilNone,
}

/// What somebody subscribes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subscription {
    Channels,
    Patterns,
    Shards,
}

impl Subscription {
    /// What a confirmation, or the command, with this name is about.
    pub(super) fn of(name: &[u8]) -> Option<Self> {
        let lower = name.to_ascii_lowercase();
        match lower.as_slice() {
            b"subscribe" | b"unsubscribe" => Some(Self::Channels),
            b"psubscribe" | b"punsubscribe" => Some(Self::Patterns),
            b"ssubscribe" | b"sunsubscribe" => Some(Self::Shards),
            _ => None,
        }
    }
}

/// A command that the server has queued.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) exchange: Option<u64>,
    pub(super) mask: Mask,
    pub(super) changes: u64,
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: VecDeque<Entry>,
}

impl Queue {
    pub(super) fn push(&mut self, entry: Entry) {
        self.entries.push_back(entry);
    }

    pub(super) fn front(&self) -> Option<&Entry> {
        self.entries.front()
    }

    pub(super) fn front_mut(&mut self) -> Option<&mut Entry> {
        self.entries.front_mut()
    }

    pub(super) fn pop(&mut self) -> Option<Entry> {
        self.entries.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= MOST
    }
}
