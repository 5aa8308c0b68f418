//! The columns of the relations that a look-up was for, with the labels that they carry.
//!
//! A column carries the labels of its own name; those that it is bound to, whatever it is called; both of the columns that
//! it is inherited from or by, under the same name; those of the columns that it is generated from; and, of a view, those
//! of the column that it shows. Promise: what a view computes carries every label that comes into the view, and what
//! cannot be followed carries all.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
};

use interceptor_core::{
    mask::{BoundColumn, LabelSet, Labelled, Labels, Seen},
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
    /// Of a partition: the numbers of those of its columns that are not numbered as what it is a part of has them.
    numbered: BTreeMap<i16, i16>,
    shown: Option<Vec<Shown>>,
}

#[derive(Debug, Clone)]
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
            "d" => {
                let pairs: Vec<i16> = numbers(more).ok_or_else(wrong)?;
                relation.numbered = pairs.as_chunks::<2>().0.iter().map(|[of, own]| (*of, *own)).collect();
            }
            "q" => relation.shown = shown::columns(more),
            _ => return Err(wrong()),
        }
        Ok(())
    }

    /// All rows have come. A partition's columns were not asked for where it was not named: they are those of what it is a
    /// part of, by the numbers that they have in it, so that they are bound before anybody detaches it.
    pub(super) fn complete(&mut self) {
        let mut left: Vec<u32> = self.relations.keys().copied().collect();
        // As many rounds as partitions may be parts of partitions.
        loop {
            let before = left.len();
            left.retain(|oid| !self.inherits(*oid));
            if left.len() == before {
                break;
            }
        }
    }

    /// Whether a relation's columns are known now.
    fn inherits(&mut self, oid: u32) -> bool {
        let Some(relation) = self.relations.get(&oid) else { return true };
        let ([parent], true) = (relation.parents.as_slice(), relation.columns.is_empty()) else {
            return true;
        };
        let Some(parent) = self.relations.get(parent).filter(|parent| !parent.columns.is_empty()) else {
            return false;
        };
        let own = |number: &i16| relation.numbered.get(number).copied().unwrap_or(*number);
        let columns = parent.columns.iter().map(|raw| Raw {
            number: own(&raw.number),
            name: raw.name.clone(),
            made_of: raw.made_of.iter().map(own).collect(),
        });
        let columns = columns.collect();
        if let Some(relation) = self.relations.get_mut(&oid) {
            relation.columns = columns;
        }
        true
    }

    /// Takes note of what is seen here of the database with that number and name.
    pub(super) fn note(&self, labelled: &Labelled, database: (u32, &str)) {
        let families = self.families();
        let names = |oid: &u32| {
            self.relations.get(oid).map(|relation| (relation.schema.as_str(), relation.name.as_str()))
        };
        let seen = self.relations.iter().filter_map(|(oid, relation)| {
            let (schema, name) = names(oid)?;
            let family = families.values().find(|family| family.contains(oid));
            Some(Seen {
                relation: *oid,
                schema,
                name,
                columns: relation.columns.iter().map(|raw| (raw.number, raw.name.as_str())).collect(),
                family: family.into_iter().flatten().filter_map(names).collect(),
                kin: family.cloned().unwrap_or_default(),
            })
        });
        labelled.bindings.seen(&labelled.labels, database, &seen.collect::<Vec<_>>());
    }

    /// The columns of the relation `oid` of the database with that number.
    pub(super) fn columns(&self, oid: u32, labelled: &Labelled, database: u32) -> Vec<Column> {
        let Some(relation) = self.relations.get(&oid) else { return Vec::new() };
        let Labelled { labels, bindings } = labelled;
        let bound = self.relations.keys().map(|oid| (*oid, bindings.of(labels, database, *oid))).collect();
        let reading = Reading { kin: self, labels, bound, families: self.families(), all: Cell::new(None) };
        let columns = relation.columns.iter().map(|raw| Column {
            number: raw.number,
            name: raw.name.clone(),
            labels: reading.labels(oid, raw.number, MAX_DEPTH),
        });
        columns.collect()
    }

    /// Relations that are inherited from each other, all under the number of one of them.
    fn families(&self) -> BTreeMap<u32, Vec<u32>> {
        let mut neighbours: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (oid, relation) in &self.relations {
            for parent in &relation.parents {
                neighbours.entry(*oid).or_default().push(*parent);
                neighbours.entry(*parent).or_default().push(*oid);
            }
        }
        let mut families = BTreeMap::new();
        for oid in self.relations.keys() {
            if families.values().any(|family: &Vec<u32>| family.contains(oid)) {
                continue;
            }
            let mut family = BTreeSet::from([*oid]);
            let mut left = vec![*oid];
            while let Some(next) = left.pop() {
                left.extend(neighbours.get(&next).into_iter().flatten().filter(|oid| family.insert(**oid)));
            }
            families.insert(*oid, family.into_iter().collect());
        }
        families
    }
}

/// Works out what columns carry.
struct Reading<'a> {
    kin: &'a Kin,
    labels: &'a Labels,
    /// What the columns of each relation are bound to; none where that is not known.
    bound: BTreeMap<u32, Option<Vec<BoundColumn>>>,
    families: BTreeMap<u32, Vec<u32>>,
    all: Cell<Option<LabelSet>>,
}

impl Reading<'_> {
    fn labels(&self, oid: u32, number: i16, depth: usize) -> LabelSet {
        let relation = self.kin.relations.get(&oid);
        let column = relation.and_then(|relation| relation.columns.iter().find(|raw| raw.number == number));
        let (Some(relation), Some(depth)) = (relation, depth.checked_sub(1)) else { return LabelSet::ALL };
        let Some(column) = column else {
            return match number {
                // What the server adds of its own.
                ..0 => LabelSet::NONE,
                // The whole row.
                0 => self.all(),
                _ => LabelSet::ALL,
            };
        };
        let mut carried = self.named(oid, &column.name);
        for part in &column.made_of {
            let part = if *part == number { LabelSet::ALL } else { self.labels(oid, *part, depth) };
            carried = carried.or(part.as_whole());
        }
        if relation.is_view {
            let shown =
                relation.shown.as_ref().and_then(|shown| shown.iter().find(|shown| shown.number == number));
            carried = carried.or(match shown {
                Some(Shown { of: Some((of, column)), .. }) => self.labels(*of, *column, depth),
                Some(Shown { of: None, .. }) | None => self.all(),
            });
        }
        carried
    }

    /// The labels of all columns called so in the relation's family.
    fn named(&self, oid: u32, column: &str) -> LabelSet {
        let family = self.families.values().find(|family| family.contains(&oid));
        let members =
            family.into_iter().flatten().filter_map(|oid| Some((oid, self.kin.relations.get(oid)?)));
        let each = members.map(|(oid, relation)| {
            let by_name = self.labels.of_column(&relation.schema, &relation.name, column);
            by_name.or(self.bound(*oid, relation, column))
        });
        each.collect()
    }

    /// What the column called so is bound to.
    fn bound(&self, oid: u32, relation: &Relation, column: &str) -> LabelSet {
        let Some(Some(bound)) = self.bound.get(&oid) else { return LabelSet::ALL };
        let is_it = |BoundColumn { number, called, .. }: &&BoundColumn| match *number {
            0 => true,
            // A partition's columns are not asked for. Where it was called otherwise, it may be any.
            _ if relation.columns.is_empty() => called == column || !self.is_a_name(oid, called),
            _ => relation.columns.iter().any(|raw| raw.number == *number && raw.name == column),
        };
        bound.iter().filter(is_it).map(|bound| bound.labels).collect()
    }

    /// Whether a column of the relation's family is called so.
    fn is_a_name(&self, oid: u32, column: &str) -> bool {
        let family = self.families.values().find(|family| family.contains(&oid));
        let members = family.into_iter().flatten().filter_map(|oid| self.kin.relations.get(oid));
        members.flat_map(|relation| &relation.columns).any(|raw| raw.name == column)
    }

    /// The labels of everything that comes into it.
    fn all(&self) -> LabelSet {
        if let Some(all) = self.all.get() {
            return all;
        }
        let relations = self.kin.relations.iter();
        let all = relations
            .flat_map(|(oid, relation)| relation.columns.iter().map(|column| self.named(*oid, &column.name)))
            .collect::<LabelSet>()
            .as_whole();
        self.all.set(Some(all));
        all
    }
}

fn numbers<T: std::str::FromStr>(text: &str) -> Option<Vec<T>> {
    text.split_ascii_whitespace().map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use interceptor_core::mask::Bindings;

    use super::*;

    fn marked(columns: &[(&str, bool)]) -> Vec<(String, bool)> {
        columns.iter().map(|(name, marked)| ((*name).to_owned(), *marked)).collect()
    }

    /// `customers(id, ssn)` in its schema, inherited by `part`, with these names of the second column.
    fn family(schema: &str, [parent, child]: [&str; 2], view: bool) -> Kin {
        let mut kin = Kin::default();
        let mut rows = vec![
            ("t", [schema, "customers", "20001", "p", ""]),
            ("a", ["", "id", "20001", "1", ""]),
            ("a", ["", parent, "20001", "2", ""]),
            ("t", ["other", "part", "20002", "r", "20001"]),
        ];
        if view {
            rows.extend([("a", ["", child, "20002", "7", ""]), ("a", ["", "id", "20002", "8", ""])]);
        }
        rows.into_iter().for_each(|(what, row)| kin.row(what, row).expect("a row"));
        kin
    }

    #[test]
    fn what_was_seen_stays_bound_whatever_it_is_called() {
        let labelled = labelled();
        let labels_of = |kin: &Kin, oid| {
            kin.note(&labelled, (5, "d"));
            shown(kin, oid, &labelled)
        };
        let seen = family("public", ["ssn", "ssn"], true);
        assert_eq!(labels_of(&seen, 20_001), marked(&[("id", false), ("ssn", true)]));
        let renamed = family("moved", ["open", "open"], true);
        assert_eq!(labels_of(&renamed, 20_001), marked(&[("id", false), ("open", true)]));
        assert_eq!(labels_of(&renamed, 20_002), marked(&[("open", true), ("id", false)]));
        // A child that is a partition tells no columns, but where their numbers are others.
        let mut below = family("moved", ["again", "again"], false);
        below.row("d", ["", "", "20002", "", "2 7 1 8"]).expect("a row");
        below.complete();
        assert_eq!(labels_of(&below, 20_001), marked(&[("id", false), ("again", true)]));
        assert_eq!(labels_of(&below, 20_002), marked(&[("id", false), ("again", true)]));
        let unknown = Labelled { bindings: Arc::new(Bindings::unknown()), ..labelled.clone() };
        assert_eq!(shown(&seen, 20_001, &unknown), marked(&[("id", true), ("ssn", true)]));
    }

    /// Detached around us, and called as no pattern says: it was bound as a part of the other.
    #[test]
    fn a_partition_is_bound_before_it_is_detached() {
        let labelled = labelled();
        let mut kin = family("public", ["ssn", "ssn"], false);
        for row in [("t", ["other", "below", "20003", "r", "20002"]), ("d", ["", "", "20002", "", "2 7 1 8"])]
        {
            kin.row(row.0, row.1).expect("a row");
        }
        kin.complete();
        kin.note(&labelled, (5, "d"));
        for (oid, number) in [(20_002, 7), (20_003, 7)] {
            let mut detached = Kin::default();
            for (number, name) in [(number, "open"), (8, "id")] {
                detached.row("a", ["", name, &oid.to_string(), &number.to_string(), ""]).expect("a row");
            }
            detached.row("t", ["other", "apart", &oid.to_string(), "r", ""]).expect("a row");
            assert_eq!(shown(&detached, oid, &labelled), marked(&[("open", true), ("id", false)]), "{oid}");
        }
    }

    fn labelled() -> Labelled {
        use interceptor_core::mask::{Form, Label, Pattern};

        let columns = vec![Pattern::parse("public.customers.ssn").expect("a pattern")];
        let label = Label { name: "ssn".to_owned(), columns, detect: Vec::new(), form: Form::Null };
        let labels = Labels::new("r", vec![label]).expect("labels").into();
        Labelled { labels, bindings: Arc::new(Bindings::known(Vec::new(), Vec::new())) }
    }

    fn of(kin: &Kin, oid: u32) -> Vec<(String, bool)> {
        shown(kin, oid, &labelled())
    }

    fn shown(kin: &Kin, oid: u32, labelled: &Labelled) -> Vec<(String, bool)> {
        let columns = kin.columns(oid, labelled, 5);
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
