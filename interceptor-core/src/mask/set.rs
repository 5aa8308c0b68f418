//! Sets of labels, by their place in [`Labels`](super::Labels).

use serde::{Deserialize, Serialize};

/// Labels of one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct LabelSet(u64);

impl LabelSet {
    /// How many labels a resource may have.
    pub const CAPACITY: usize = 63;
    /// None.
    pub const NONE: Self = Self(0);
    /// Every label that there may be.
    pub const ALL: Self = Self(u64::MAX);

    /// The one at `place`; all of them where there is no such place.
    pub fn of(place: usize) -> Self {
        u32::try_from(place).ok().and_then(|place| 1_u64.checked_shl(place)).map_or(Self::ALL, Self)
    }

    /// Those in either.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` are in it.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl FromIterator<Self> for LabelSet {
    fn from_iter<I: IntoIterator<Item = Self>>(sets: I) -> Self {
        sets.into_iter().fold(Self::NONE, Self::or)
    }
}
