//! A rescue: for a while, what was saved as known to be good is in force in the place of what is configured.
//!
//! Promise: it has a reason and an end.

use serde::{Deserialize, Serialize};

use crate::{
    break_glass::{LONGEST_WORDS, has_words},
    model::RescueId,
};

/// How long it lasts at most, in seconds.
pub const LONGEST: u64 = 24 * 3600;

/// One rescue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rescue {
    /// Its name.
    pub id: RescueId,
    /// Why.
    pub reason: String,
    /// Who began it, in words.
    pub by: String,
    /// When it began, in microseconds of the Unix epoch.
    pub begun_at: i64,
    /// When it ends, in microseconds of the Unix epoch.
    pub until: i64,
}

/// Why none is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSo {
    /// No reason, or too long a one.
    #[error("say why with --reason, in at most {LONGEST_WORDS} bytes: it is recorded")]
    Reason,
    /// Impossible times.
    #[error("a rescue lasts 1 second to 24 hours")]
    Lasting,
}

/// Whether one may be begun so.
pub fn may_begin(reason: &str, seconds: u64) -> Result<(), NotSo> {
    if !has_words(reason) {
        return Err(NotSo::Reason);
    }
    if (1..=LONGEST).contains(&seconds) { Ok(()) } else { Err(NotSo::Lasting) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_a_reason_and_a_day_at_most() {
        assert_eq!(may_begin("the new policy refuses everything", LONGEST), Ok(()));
        assert_eq!(may_begin("\t", 60), Err(NotSo::Reason));
        assert_eq!(may_begin(&"x".repeat(LONGEST_WORDS + 1), 60), Err(NotSo::Reason));
        for seconds in [0, LONGEST + 1, u64::MAX] {
            assert_eq!(may_begin("why", seconds), Err(NotSo::Lasting));
        }
    }
}
