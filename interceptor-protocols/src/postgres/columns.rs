//! The columns of the relations that a look-up was for, with the labels that they carry.
//!
//! A column carries the labels of its own name; those of the columns that it is inherited from or by, under the same
//! name; those of the columns that it is generated from; and, of a view, those of the column that it shows. Promise: what
//! a view computes carries every label that comes into the view, and what cannot be followed carries all.

use std::collections::{BTreeMap, BTreeSet};

use interceptor_core::{
    mask::{LabelSet, Labels},
    sql::Column,
};

use super::shown::{self, Shown};

/// How deep views are followed.
const MAX_DEPTH: usize = 32;

/// What came for one of the names that were asked for.
#[derive(Debug, Default)]
pub(super) struct Kin {
    relations: BTreeMap<u32, Relation>,
}

#[derive(Debug, Default)]
struct Relation {
    schema: String,
    name: String,
    is_view: bool,
    parents: Vec<u32>,
    columns: Vec<Raw>,
    shown: Option<Vec<Shown>>,
}

#[derive(Debug)]
struct Raw {
    number: i16,
    name: String,
    made_of: Vec<i16>,
}

impl Kin {
    /// Takes a row of kind `what`.
    pub(super) fn row(&mut self, what: &str, row: [&str; 5]) -> Result<(), String> {
        let [schema, name, oid, number, more] = row;
        let wrong = || "the catalogue's answer on columns cannot be read".to_owned();
        let relation = self.relations.entry(oid.parse().map_err(|_| wrong())?).or_default();
        match what {
            "t" => {
                (relation.schema, relation.name) = (schema.to_owned(), name.to_owned());
                relation.is_view = matches!(number, "v" | "m");
                relation.parents = numbers(more).ok_or_else(wrong)?;
            }
            "a" => relation.columns.push(Raw {
                number: number.parse().map_err(|_| wrong())?,
                name: name.to_owned(),
                made_of: numbers(more).ok_or_else(wrong)?,
            }),
            "q" => relation.shown = shown::columns(more),
            _ => return Err(wrong()),
        }
        Ok(())
    }

    /// The columns of the relation `oid`.
    pub(super) fn columns(&self, oid: u32, labels: &Labels) -> Vec<Column> {
        let Some(relation) = self.relations.get(&oid) else { return Vec::new() };
        let columns = relation.columns.iter().map(|raw| Column {
            number: raw.number,
            name: raw.name.clone(),
            labels: self.labels(oid, raw.number, labels, MAX_DEPTH),
        });
        columns.collect()
    }

    fn labels(&self, oid: u32, number: i16, labels: &Labels, depth: usize) -> LabelSet {
        let relation = self.relations.get(&oid);
        let column = relation.and_then(|relation| relation.columns.iter().find(|raw| raw.number == number));
        let (Some(relation), Some(depth)) = (relation, depth.checked_sub(1)) else { return LabelSet::ALL };
        let Some(column) = column else {
            // The whole row, or what the server adds of its own.
            return if number == 0 { self.all(labels) } else { LabelSet::NONE };
        };
        let mut carried = self.named(oid, &column.name, labels);
        for part in &column.made_of {
            carried = carried.or(if *part == number {
                LabelSet::ALL
            } else {
                self.labels(oid, *part, labels, depth)
            });
        }
        if relation.is_view {
            let shown =
                relation.shown.as_ref().and_then(|shown| shown.iter().find(|shown| shown.number == number));
            carried = carried.or(match shown {
                Some(Shown { of: Some((of, 0)), .. }) => self.labels(*of, 0, labels, depth),
                Some(Shown { of: Some((of, column)), .. }) => self.labels(*of, *column, labels, depth),
                Some(Shown { of: None, .. }) | None => self.all(labels),
            });
        }
        carried
    }

    /// The labels of all columns called so in the relation and in those that it is inherited from or by.
    fn named(&self, oid: u32, column: &str, labels: &Labels) -> LabelSet {
        let mut family = BTreeSet::from([oid]);
        loop {
            let before = family.len();
            for (oid, relation) in &self.relations {
                if family.contains(oid) {
                    family.extend(relation.parents.iter().copied());
                } else if relation.parents.iter().any(|parent| family.contains(parent)) {
                    family.insert(*oid);
                }
            }
            if family.len() == before {
                break;
            }
        }
        let members = family.iter().filter_map(|oid| self.relations.get(oid));
        members.map(|relation| labels.of_column(&relation.schema, &relation.name, column)).collect()
    }

    /// The labels of everything that comes into it.
    fn all(&self, labels: &Labels) -> LabelSet {
        let each = self.relations.values().flat_map(|relation| {
            let columns = relation.columns.iter();
            columns.map(|column| labels.of_column(&relation.schema, &relation.name, &column.name))
        });
        each.collect()
    }
}

fn numbers<T: std::str::FromStr>(text: &str) -> Option<Vec<T>> {
    text.split_ascii_whitespace().map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Labels {
        use interceptor_core::mask::{Form, Label, Pattern};
        let columns = vec![Pattern::parse("public.customers.ssn").expect("a pattern")];
        let label = Label { name: "ssn".to_owned(), columns, detect: Vec::new(), form: Form::Null };
        Labels::new("r", vec![label]).expect("labels")
    }

    fn of(kin: &Kin, oid: u32) -> Vec<(String, bool)> {
        let columns = kin.columns(oid, &labels());
        columns.into_iter().map(|column| (column.name, !column.labels.is_empty())).collect()
    }

    #[test]
    fn labels_follow_inheritance_generation_and_views() {
        let tree = "({QUERY :targetList ({TARGETENTRY :expr {VAR} :resno 1 :resname a :ressortgroupref 0 :resorigtbl 1 \
            :resorigcol 1 :resjunk false} {TARGETENTRY :expr {VAR} :resno 2 :resname b :ressortgroupref 0 :resorigtbl 1 \
            :resorigcol 2 :resjunk false} {TARGETENTRY :expr {VAR} :resno 3 :resname c :ressortgroupref 0 :resorigtbl 0 \
            :resorigcol 0 :resjunk false})})";
        let mut kin = Kin::default();
        for (what, row) in [
            ("t", ["public", "customers", "1", "p", ""]),
            ("a", ["", "id", "1", "1", ""]),
            ("a", ["", "ssn", "1", "2", ""]),
            ("a", ["", "loud", "1", "3", "2"]),
            ("t", ["other", "part", "2", "r", "1"]),
            ("a", ["", "ssn", "2", "7", ""]),
            ("a", ["", "id", "2", "8", ""]),
            ("t", ["public", "v", "3", "v", ""]),
            ("a", ["", "a", "3", "1", ""]),
            ("a", ["", "b", "3", "2", ""]),
            ("a", ["", "c", "3", "3", ""]),
            ("q", ["", "", "3", "", tree]),
        ] {
            kin.row(what, row).expect("a row");
        }
        let marked = |columns: &[(&str, bool)]| -> Vec<(String, bool)> {
            columns.iter().map(|(name, marked)| ((*name).to_owned(), *marked)).collect()
        };
        assert_eq!(of(&kin, 1), marked(&[("id", false), ("ssn", true), ("loud", true)]));
        assert_eq!(of(&kin, 2), marked(&[("ssn", true), ("id", false)]));
        assert_eq!(of(&kin, 3), marked(&[("a", false), ("b", true), ("c", true)]));
        kin.row("q", ["", "", "3", "", "({QUERY"]).expect("a row");
        assert_eq!(
            of(&kin, 3),
            marked(&[("a", true), ("b", true), ("c", true)]),
            "what cannot be read shows all"
        );
        assert!(kin.row("t", ["", "", "x", "", ""]).is_err() && kin.row("z", ["", "", "1", "", ""]).is_err());
    }
}
