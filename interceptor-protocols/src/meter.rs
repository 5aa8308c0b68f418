//! Counts what passes to a client, and says where its caller is to be asked again.
//!
//! Promise: nothing passes behind what has used up the room without the caller's having been asked, whatever room is given
//! meanwhile: room that was used up may be followed by more only since nobody has looked yet.

use interceptor_core::model::Spent;

/// Of one connection.
#[derive(Debug)]
pub(crate) struct Meter {
    passed: Spent,
    room: Spent,
    asking: Asking,
}

/// Whether the caller is to be asked before the next value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asking {
    No,
    /// Before it, whatever room there is meanwhile.
    Due,
    /// It was.
    Done,
}

impl Default for Meter {
    fn default() -> Self {
        Self { passed: Spent::default(), room: Spent::UNLIMITED, asking: Asking::No }
    }
}

impl Meter {
    /// So much passes.
    pub(crate) fn count(&mut self, spent: Spent) {
        self.passed = self.passed.and(spent);
        self.room.rows = self.room.rows.saturating_sub(spent.rows);
        self.room.bytes = self.room.bytes.saturating_sub(spent.bytes);
        self.room.changed = self.room.changed.saturating_sub(spent.changed);
        if self.is_full() {
            self.asking = Asking::Due;
        }
    }

    /// What has passed since this was last asked.
    pub(crate) fn take(&mut self) -> Spent {
        std::mem::take(&mut self.passed)
    }

    /// How much more may pass.
    pub(crate) fn allow(&mut self, room: Spent) {
        self.room = room;
    }

    /// Whether the next value may pass; where not, the caller is to be asked.
    pub(crate) fn lets_by(&mut self) -> bool {
        match self.asking {
            Asking::Done => {
                self.asking = Asking::No;
                true
            }
            Asking::No => !self.is_full(),
            Asking::Due => false,
        }
    }

    /// The caller is being asked: unless it cuts the answer, the next value passes.
    pub(crate) fn asks(&mut self) {
        self.asking = Asking::Done;
    }

    fn is_full(&self) -> bool {
        self.room.rows == 0 || self.room.bytes == 0
    }
}
