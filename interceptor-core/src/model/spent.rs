//! Amounts that budgets are about.

use serde::{Deserialize, Serialize};

/// Amounts: what a run has spent in the last hour, or one exchange by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spent {
    /// Rows sent back to it.
    pub rows: u64,
    /// Rows that it inserted, updated or deleted, as the server counted them.
    pub changed: u64,
    /// Statements that were sent for it.
    pub statements: u64,
    /// Bytes sent back to it.
    pub bytes: u64,
}

impl Spent {
    /// More than anything.
    pub const UNLIMITED: Self =
        Self { rows: u64::MAX, changed: u64::MAX, statements: u64::MAX, bytes: u64::MAX };

    /// Both together.
    #[must_use]
    pub fn and(self, more: Self) -> Self {
        Self {
            rows: self.rows.saturating_add(more.rows),
            changed: self.changed.saturating_add(more.changed),
            statements: self.statements.saturating_add(more.statements),
            bytes: self.bytes.saturating_add(more.bytes),
        }
    }

    /// Whether there is none of anything.
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }

    /// The attributes of `context.spent`, each with its value.
    pub fn attributes(self) -> [(&'static str, u64); 4] {
        [
            ("rows", self.rows),
            ("changed", self.changed),
            ("statements", self.statements),
            ("bytes", self.bytes),
        ]
    }
}
