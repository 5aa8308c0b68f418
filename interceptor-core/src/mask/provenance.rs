//! Where the values of an answer come from, as far as the statement and the catalogue tell.

use std::collections::{BTreeMap, BTreeSet};

use super::{LabelSet, Stands};
use crate::model::Object;

/// The labels of what a statement answers with.
///
/// Its default knows nothing, so that everything in the answer carries every label.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Provenance {
    /// The columns of each relation that the statement names, by the relation's number: each column's own number, and
    /// the labels that it carries.
    pub origins: BTreeMap<u32, Vec<(i16, LabelSet)>>,
    /// The labels of what comes from no column.
    pub outputs: Outputs,
    /// The labels of everything that comes into it, shown or not.
    pub touched: LabelSet,
    /// Where it puts labelled data.
    pub carried: Vec<Carried>,
    /// Those of the relations in `origins` that have rows of their own.
    pub tables: BTreeSet<u32>,
    /// Where tokens may stand in it.
    pub compared: Compared,
    /// How many tokens in it go to the server as what they stand for.
    pub replaced: u32,
}

/// Where a statement compares columns with what may be tokens, and what decides which rows there are besides.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Compared {
    /// Each comparison.
    pub each: Vec<Comparison>,
    /// The labels that decide by anything but these.
    pub besides: LabelSet,
}

/// A column is compared for being equal, and with what.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Comparison {
    /// With what.
    pub with: Operand,
    /// The column.
    pub stands: Stands,
    /// The place of the one label that it bears.
    pub label: usize,
}

/// What a column is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operand {
    /// The string that is the token of the statement's text at this place, from 0.
    Literal(usize),
    /// The parameter with this number, from 1, which stands nowhere else.
    Parameter(usize),
}

/// Labelled data that a statement puts somewhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Carried {
    /// Where.
    pub to: Destination,
    /// Its labels.
    pub labels: LabelSet,
}

/// Where data is put. Columns go by their numbers; 0 is all of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Destination {
    /// A relation that is there.
    Relation {
        /// The database's OID, if it is known.
        database: Option<u32>,
        /// What it is.
        object: Object,
        /// Which columns, with their names.
        columns: Vec<(i16, String)>,
    },
    /// One that the statement makes.
    New {
        /// The database's OID, if it is known.
        database: Option<u32>,
        /// The schemas that it may be made in, besides those of temporary relations.
        schemas: Vec<String>,
        /// Its name.
        name: String,
        /// Which columns.
        columns: Vec<i16>,
    },
}

/// The labels of outputs, by their places.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Outputs {
    /// One by one. None where any number of columns may stand.
    Each(Vec<Option<LabelSet>>),
    /// All alike.
    Any(LabelSet),
}

impl Default for Provenance {
    fn default() -> Self {
        Self {
            origins: BTreeMap::new(),
            outputs: Outputs::Any(LabelSet::ALL),
            touched: LabelSet::ALL,
            carried: Vec::new(),
            tables: BTreeSet::new(),
            compared: Compared::default(),
            replaced: 0,
        }
    }
}

impl Provenance {
    /// What is known to touch no data.
    pub fn clean() -> Self {
        Self { outputs: Outputs::Any(LabelSet::NONE), touched: LabelSet::NONE, ..Self::default() }
    }

    /// Whether the same relations have the same labels at the same places in both, so that what was described under one
    /// holds under the other.
    pub fn describes_as(&self, other: &Self) -> bool {
        let labelled = |provenance: &Self| -> Vec<(u32, Vec<(i16, LabelSet)>)> {
            let some = |columns: &[(i16, LabelSet)]| {
                columns.iter().copied().filter(|(_, labels)| !labels.is_empty()).collect()
            };
            provenance.origins.iter().map(|(oid, columns)| (*oid, some(columns))).collect()
        };
        labelled(self) == labelled(other)
    }

    /// The labels of column `column` of relation `relation`; 0 is the whole row. What is not known carries all.
    pub fn of_column(&self, relation: u32, column: i16) -> LabelSet {
        let Some(columns) = self.origins.get(&relation) else { return LabelSet::ALL };
        match column {
            0 => columns.iter().map(|(_, labels)| *labels).collect(),
            // What the server adds of its own: where a row lies, and who wrote it.
            ..0 => LabelSet::NONE,
            _ => columns
                .iter()
                .find(|(number, _)| *number == column)
                .map_or(LabelSet::ALL, |(_, labels)| *labels),
        }
    }

    /// The labels of output `place` of `count`, where that comes from no column.
    pub fn of_output(&self, place: usize, count: usize) -> LabelSet {
        match &self.outputs {
            Outputs::Any(labels) => *labels,
            Outputs::Each(each) if each.len() == count && !each.contains(&None) => {
                each.get(place).copied().flatten().unwrap_or(LabelSet::ALL)
            }
            // A star stands for any number of columns, and may bring anything.
            Outputs::Each(each) if each.contains(&None) => self.touched,
            Outputs::Each(_) => LabelSet::ALL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_carries_every_label() {
        let nothing = Provenance::default();
        assert_eq!(nothing.of_column(1, 1), LabelSet::ALL);
        assert_eq!(nothing.of_output(0, 1), LabelSet::ALL);
        let one = LabelSet::of(0);
        let some = Provenance {
            origins: BTreeMap::from([(7, vec![(1, LabelSet::NONE), (2, one)])]),
            outputs: Outputs::Each(vec![Some(LabelSet::NONE), Some(one)]),
            touched: one,
            ..Provenance::default()
        };
        assert_eq!(
            [1, 2, 3, 0, -1].map(|column| some.of_column(7, column)),
            [LabelSet::NONE, one, LabelSet::ALL, one, LabelSet::NONE]
        );
        assert_eq!([0, 1].map(|place| some.of_output(place, 2)), [LabelSet::NONE, one]);
        assert_eq!(some.of_output(0, 3), LabelSet::ALL, "it is not what was read");
        let wider = |column| Provenance {
            origins: BTreeMap::from([(7, vec![(1, LabelSet::NONE), (column, one), (3, LabelSet::NONE)])]),
            ..some.clone()
        };
        assert!(
            wider(2).describes_as(&some) && !wider(4).describes_as(&some) && !nothing.describes_as(&some)
        );
        let star = Provenance { outputs: Outputs::Each(vec![None, Some(LabelSet::NONE)]), ..some };
        assert_eq!(star.of_output(1, 5), one);
    }
}
