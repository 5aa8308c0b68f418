//! Sets of labels, by their place in [`Labels`](super::Labels).

use serde::{Deserialize, Serialize};

/// Labels of one resource, each borne by all of something, or only by what stands at some places of a document.
///
/// Promise: what is borne by all of it in either of two sets is so in both together; what is computed is
/// [whole](Self::as_whole).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct LabelSet {
    labels: u64,
    /// Those of them that are borne by all of it.
    whole: u64,
    /// Where the others are borne, by the numbers of [`Labels::part`](super::Labels::part).
    parts: u64,
}

impl LabelSet {
    /// How many labels a resource may have.
    pub const CAPACITY: usize = 63;
    /// How many places in documents they may name.
    pub const PARTS: usize = 64;
    /// None.
    pub const NONE: Self = Self { labels: 0, whole: 0, parts: 0 };
    /// Every label that there may be.
    pub const ALL: Self = Self { labels: u64::MAX, whole: u64::MAX, parts: 0 };

    /// The one at `place`; all of them where there is no such place.
    pub fn of(place: usize) -> Self {
        bit(place).map_or(Self::ALL, |label| Self { labels: label, whole: label, parts: 0 })
    }

    /// The one at `place`, where the part with that number stands; all of it where there is no such number.
    pub fn of_part(place: usize, part: usize) -> Self {
        let whole = Self::of(place);
        bit(part).filter(|_| whole != Self::ALL).map_or(whole, |parts| Self { whole: 0, parts, ..whole })
    }

    /// Those in either.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let (labels, whole) = (self.labels | other.labels, self.whole | other.whole);
        // Where everything is borne by all of it, nothing is borne elsewhere.
        let parts = if whole == u64::MAX { 0 } else { self.parts | other.parts };
        Self { labels, whole, parts }
    }

    /// Those in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            labels: self.labels & other.labels,
            whole: self.whole & other.whole,
            parts: self.parts & other.parts,
        }
    }

    /// The same, borne by all of it.
    #[must_use]
    pub fn as_whole(self) -> Self {
        Self { labels: self.labels, whole: self.labels, parts: 0 }
    }

    /// Whether none of `others` is borne by all of it.
    pub fn is_in_parts(self, others: Self) -> bool {
        self.whole & others.labels == 0
    }

    /// The numbers of the parts that bear one.
    pub fn parts(self) -> impl Iterator<Item = usize> {
        (0..Self::PARTS).filter(move |part| bit(*part).is_some_and(|part| self.parts & part != 0))
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.labels == 0
    }

    /// Whether all of `other` are in it, wherever they are borne.
    pub fn contains(self, other: Self) -> bool {
        self.labels & other.labels == other.labels
    }
}

fn bit(place: usize) -> Option<u64> {
    u32::try_from(place).ok().and_then(|place| 1_u64.checked_shl(place))
}

impl FromIterator<Self> for LabelSet {
    fn from_iter<I: IntoIterator<Item = Self>>(sets: I) -> Self {
        sets.into_iter().fold(Self::NONE, Self::or)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bears_a_label_whole_bears_it_whole_in_any_company() {
        let (one, part) = (LabelSet::of(3), LabelSet::of_part(3, 7));
        assert!(part.contains(one) && one.contains(part) && part != one);
        assert!(part.is_in_parts(one) && !part.or(one).is_in_parts(one) && !part.as_whole().is_in_parts(one));
        assert_eq!(part.or(LabelSet::of_part(4, 63)).parts().collect::<Vec<_>>(), [7, 63]);
        assert_eq!((part.as_whole(), part.or(LabelSet::ALL)), (one, LabelSet::ALL));
        assert_eq!((LabelSet::of_part(3, 64), LabelSet::of_part(64, 0)), (one, LabelSet::ALL));
    }
}
