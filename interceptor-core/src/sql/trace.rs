//! Which labels come into what a statement answers, decides by, and writes: its lineage, joined with the catalogue.
//!
//! Promise: an output counts as clean only where nothing that may mean a labelled column comes into it. A statement
//! that runs code whose results are not known, or names a relation that is not there yet, has no clean output.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Answer, Column, CopyStream, Lineage, Name, Put, PutColumn, Reference, Relation, Rows, Statement, Uses,
    What, copied,
};
use crate::{
    mask::{
        Carried, Compared, Comparison, Destination, Form, Label, LabelSet, Labels, Outputs, Provenance,
        Stands,
    },
    model::{Effect, Object, StatementFacts, StatementKind, Target, Verb},
};

/// Built-in functions that are not harmless, yet give back nothing that is stored in tables but in the catalogue, by how
/// they begin.
const GIVE_NOTHING_STORED: [&str; 33] = [
    "col_description",
    "current_",
    "currval",
    "format_type",
    "has_",
    "lastval",
    "nextval",
    "obj_description",
    "pg_advisory_",
    "pg_backend_pid",
    "pg_cancel_backend",
    "pg_encoding_to_char",
    "pg_export_snapshot",
    "pg_get_constraintdef",
    "pg_get_expr",
    "pg_get_function",
    "pg_get_indexdef",
    "pg_get_serial_sequence",
    "pg_get_triggerdef",
    "pg_get_userbyid",
    "pg_get_viewdef",
    "pg_notify",
    "pg_relation_size",
    "pg_sleep",
    "pg_table_is_visible",
    "pg_table_size",
    "pg_terminate_backend",
    "pg_total_relation_size",
    "pg_try_advisory_",
    "pg_type_is_visible",
    "setval",
    "shobj_description",
    "version",
];

/// How often names that are given from each other are followed; what changes still is not known.
const MOST_ROUNDS: usize = 64;

/// Adds to `facts`, which are those of `statement` by `answer`, what the labels of the resource say of it: where its
/// answer comes from, and an effect for each label that it filters by or carries away.
pub fn trace(statement: &Statement, answer: &Answer, labels: &Labels, facts: &mut StatementFacts) {
    if labels.is_empty() {
        return;
    }
    let lineage = &statement.lineage;
    let all = labels.iter().enumerate().map(|(place, _)| LabelSet::of(place)).collect();
    let known = Known::of(statement, answer, facts, all);
    let copies = known.copies(statement, facts, all);
    let tokens = known.tokens_made(statement, by_token(labels), copies);
    let filters = known.labels(&lineage.filters).or(tokens);
    let compared = known.compared(statement, facts, labels, tokens);
    let carried = known.carried(statement, all);
    let mut provenance = Provenance { carried, compared, ..known.provenance(statement) };
    if let Some(columns) = known.masked_copy(statement) {
        provenance.outputs = Outputs::Each(columns.into_iter().map(Some).collect());
    }
    facts.provenance = Some(Arc::new(provenance));
    // What is copied to the client and not masked is seen as it is.
    let seen = match statement.copy {
        Some(CopyStream::ToClient(_)) => copies,
        Some(CopyStream::FromClient) | None => LabelSet::NONE,
    };
    for (verb, set) in [(Verb::LabelFilter, filters), (Verb::LabelCopy, copies), (Verb::See, seen)] {
        let names = labels.names(set.and(all)).map(|name| Target::Label(name.to_owned()));
        for effect in names.map(|target| Effect { verb, target }) {
            if !facts.effects.contains(&effect) {
                facts.effects.push(effect);
            }
        }
    }
}

/// A relation that a statement names.
struct Seen<'a> {
    oid: u32,
    rows: Rows,
    columns: &'a [Column],
}

/// What the names of one statement carry.
struct Known<'a> {
    lineage: &'a Lineage,
    answer: &'a Answer,
    /// The relations that it names.
    relations: Vec<Seen<'a>>,
    /// By the names of columns, and those that the statement gives.
    names: BTreeMap<&'a str, LabelSet>,
    /// What the statement puts into columns besides what they bear, by relation and column.
    filled: BTreeMap<(u32, i16), LabelSet>,
    /// All labels of all of them.
    whole: LabelSet,
    /// What runs gives back what is not known.
    loose: bool,
}

impl<'a> Known<'a> {
    fn of(statement: &'a Statement, answer: &'a Answer, facts: &StatementFacts, all: LabelSet) -> Self {
        let lineage = &statement.lineage;
        let mut loose = lineage.odd || facts.effects.iter().any(is_loose);
        let mut relations = Vec::new();
        for name in named(statement) {
            match answer.relations.get(name) {
                Some(Relation::Found { object, rows, columns, .. }) => match object.oid {
                    Some(oid) => relations.push(Seen { oid, rows: *rows, columns }),
                    None => loose = true,
                },
                Some(Relation::Missing) | None => loose = true,
            }
        }
        let mut names: BTreeMap<&str, LabelSet> = BTreeMap::new();
        for column in relations.iter().flat_map(|seen| seen.columns) {
            let labels = names.entry(&column.name).or_default();
            // What is made of a document is not known to be without what stands in it.
            *labels = labels.or(column.labels.as_whole());
        }
        let whole = names.values().copied().collect();
        let filled = BTreeMap::new();
        let mut known = Self { lineage, answer, relations, names, filled, whole, loose };
        known.follow();
        known.fill(statement, all);
        known
    }

    /// What the statement puts into columns is in them when it gives them back.
    fn fill(&mut self, statement: &Statement, all: LabelSet) {
        let mut changed = true;
        for _ in 0..MOST_ROUNDS {
            changed = false;
            for put in &statement.lineage.puts {
                let labels = self.put(statement, put, all);
                for (oid, column) in self.columns(put) {
                    let filled = self.filled.entry((oid, column.number)).or_default();
                    changed |= !filled.contains(labels);
                    *filled = filled.or(labels);
                    let named = self.names.entry(&column.name).or_default();
                    *named = named.or(labels);
                    self.whole = self.whole.or(labels);
                }
            }
            if !changed {
                return;
            }
            self.follow();
        }
        self.loose |= changed;
    }

    /// The labels of what is put somewhere.
    fn put(&self, statement: &Statement, put: &Put, all: LabelSet) -> LabelSet {
        // Of what code of somebody's own gives, and a prepared statement that is named, nothing is known.
        if statement.executes.is_some() || self.brings_unknown(statement) {
            return all;
        }
        let labels = self.labels(&put.made_of);
        if self.loose { labels.or(self.whole) } else { labels }
    }

    /// The columns that it is put into, as far as they are known.
    fn columns(&self, put: &Put) -> Vec<(u32, &'a Column)> {
        let answer = self.answer;
        let found = put.into.as_ref().and_then(|name| answer.relations.get(name));
        let Some(Relation::Found { object: Object { oid: Some(oid), .. }, columns, .. }) = found else {
            return Vec::new();
        };
        let one = match &put.column {
            PutColumn::Any => None,
            PutColumn::Named(name) => columns.iter().find(|column| column.name == *name),
            PutColumn::Place(place) => columns.get(*place),
        };
        match one {
            Some(column) => vec![(*oid, column)],
            None => columns.iter().map(|column| (*oid, column)).collect(),
        }
    }

    /// Follows the names that the statement gives, until nothing changes.
    fn follow(&mut self) {
        let lineage = self.lineage;
        let mut changed = true;
        for _ in 0..MOST_ROUNDS {
            changed = false;
            for (name, made_of) in &lineage.given {
                let more = self.labels(made_of);
                let labels = self.names.entry(name).or_default();
                changed |= !labels.contains(more);
                *labels = labels.or(more);
            }
            if !changed {
                break;
            }
        }
        self.loose |= changed;
        // What has a name that is not told may be meant by any name.
        let unnamed = lineage.unnamed.iter().any(|uses| !self.labels(uses).is_empty());
        self.loose |= unnamed;
    }

    /// The labels that come into what is mentioned.
    fn labels(&self, uses: &Uses) -> LabelSet {
        let stands_for_all =
            |name: &String| self.lineage.rows.contains(name) || self.lineage.renamed.contains(name);
        let mut labels: LabelSet = uses
            .names
            .iter()
            .chain(&uses.fields)
            .filter_map(|name| self.names.get(name.as_str()).copied())
            .collect();
        let any = uses.whole
            || uses.names.iter().any(stands_for_all)
            || uses.fields.iter().any(|name| self.lineage.renamed.contains(name) || self.may_be_of_row(name));
        if any {
            labels = labels.or(self.whole);
        }
        labels
    }

    /// Whether a name behind a dot may be a function of the whole row before it.
    fn may_be_of_row(&self, name: &str) -> bool {
        let labelled = |columns: &[Column]| columns.iter().any(|column| !column.labels.is_empty());
        let has = |columns: &[Column]| columns.iter().any(|column| column.name == name);
        if self.relations.iter().any(|seen| labelled(seen.columns) && has(seen.columns)) {
            return false;
        }
        let is_function = self
            .answer
            .functions
            .get(&Name { schema: None, name: name.to_owned() })
            .is_none_or(|function| !function.built_in.is_empty() || !function.users.is_empty());
        is_function || !self.names.contains_key(name)
    }

    fn provenance(&self, statement: &Statement) -> Provenance {
        let lineage = self.lineage;
        let origins = self
            .relations
            .iter()
            .map(|Seen { oid, columns, .. }| {
                let filled = |column: &Column| {
                    let more = self.filled.get(&(*oid, column.number)).copied().unwrap_or_default();
                    (column.number, column.labels.or(more))
                };
                (*oid, columns.iter().map(filled).collect())
            })
            .collect();
        let tables =
            self.relations.iter().filter(|seen| seen.rows == Rows::Own).map(|seen| seen.oid).collect();
        if self.loose {
            return Provenance { origins, tables, ..Provenance::default() };
        }
        let outputs = match (&lineage.outputs, statement.kind) {
            // A plan tells of what the statement compares with.
            (_, StatementKind::Explain) | (None, _) => Outputs::Any(self.whole),
            (Some(outputs), _) => Outputs::Each(
                outputs.iter().map(|output| (!output.star).then(|| self.labels(&output.uses))).collect(),
            ),
        };
        Provenance { origins, outputs, touched: self.whole, tables, ..Provenance::default() }
    }

    /// The labels of the columns of what it copies to the client, where its rows can be masked.
    fn masked_copy(&self, statement: &Statement) -> Option<Vec<LabelSet>> {
        copied::labels(statement, self.answer).filter(|_| !self.loose)
    }

    /// Whether values come into it out of code that is not known: functions that it calls, and those of views and row
    /// security that it reads.
    fn brings_unknown(&self, statement: &Statement) -> bool {
        let called =
            |name: &Name| self.answer.functions.get(name).is_none_or(|found| !found.users.is_empty());
        let runs = |name: &Name| match self.answer.relations.get(name) {
            Some(Relation::Found { consequences, .. }) => consequences.iter().any(|consequence| {
                consequence.of.contains(&Verb::DataRead)
                    && matches!(&consequence.what, What::Runs(routine) if !routine.built_in)
            }),
            Some(Relation::Missing) | None => true,
        };
        statement.effects.iter().any(|(_, reference)| match reference {
            Reference::Function(name) => called(name),
            Reference::Attribute(name) => called(&Name { schema: None, name: name.clone() }),
            Reference::Relation(name) => runs(name),
            _ => false,
        })
    }

    /// The labels of what is carried to where nothing follows it.
    fn copies(&self, statement: &Statement, facts: &StatementFacts, all: LabelSet) -> LabelSet {
        let mut copies = self.labels(&statement.lineage.written);
        if self.loose && !statement.lineage.written.is_empty() {
            copies = copies.or(self.whole);
        }
        let given_on = statement.executes.is_some()
            || !statement.lineage.written.is_empty()
            || facts.effects.iter().any(|effect| carries_away(effect) && !is_own_function(effect));
        if given_on && self.brings_unknown(statement) {
            // What comes out of it may be anything.
            copies = all;
        }
        if facts.effects.iter().any(carries_away) {
            copies = copies.or(self.labels(&statement.lineage.all));
        }
        let unmasked =
            matches!(statement.copy, Some(CopyStream::ToClient(_))) && self.masked_copy(statement).is_none();
        if unmasked || is_copy_out(statement, facts) {
            // Its rows tell nothing of where they come from.
            let read = if self.loose { all } else { self.whole };
            copies = copies.or(read);
        }
        for effect in &facts.effects {
            copies = copies.or(match (effect.verb, &effect.target) {
                // It may carry another name afterwards, or something else another's.
                (Verb::SchemaAlter, Target::Table(_)) if statement.kind == StatementKind::Alter => self.whole,
                (Verb::SchemaAlter, Target::Other { kind, .. })
                    if matches!(kind.as_str(), "schema" | "database") =>
                {
                    all
                }
                _ => LabelSet::NONE,
            });
        }
        copies
    }

    /// The labels masked by tokens of the columns that it writes into, and of what it copies: whoever has a guess beside what
    /// is hidden, and reads the tokens of both, can tell which rows have the same, as whoever filters can.
    fn tokens_made(&self, statement: &Statement, tokens: LabelSet, copies: LabelSet) -> LabelSet {
        let puts = statement.lineage.puts.iter().flat_map(|put| self.columns(put)).map(|(_, column)| column);
        let loaded = |(verb, reference): &(Verb, Reference)| match (verb, reference) {
            (Verb::DataInsert, Reference::Relation(name)) if statement.kind == StatementKind::Copy => {
                self.answer.relations.get(name)
            }
            _ => None,
        };
        let loaded = statement.effects.iter().filter_map(loaded).flat_map(|relation| match relation {
            Relation::Found { columns, .. } => columns.as_slice(),
            Relation::Missing => &[],
        });
        let written: LabelSet = puts.chain(loaded).map(|column| column.labels).collect();
        written.or(copies).and(tokens)
    }

    /// Where tokens may stand in it, and what decides besides.
    fn compared(
        &self,
        statement: &Statement,
        facts: &StatementFacts,
        labels: &Labels,
        tokens: LabelSet,
    ) -> Compared {
        let lineage = &statement.lineage;
        // Nothing of it may see the text that the server gets, or give a row another name.
        let is_plain = |effect: &Effect| {
            matches!(effect.verb, Verb::DataRead | Verb::DataUpdate | Verb::DataDelete | Verb::DataLock)
        };
        let followed = !self.loose && lineage.unnamed.is_empty() && facts.effects.iter().all(is_plain);
        let mut compared =
            Compared { each: Vec::new(), besides: self.labels(&lineage.filters_besides).or(tokens) };
        for one in &lineage.compared {
            match self.column(&one.column, labels).filter(|_| followed) {
                Some((stands, label)) => compared.each.push(Comparison { with: one.with, stands, label }),
                None => compared.besides = compared.besides.or(self.labels(&one.uses())),
            }
        }
        compared
    }

    /// The column of a table that a name means wherever it stands in the statement, and the place of the one label that it
    /// bears, if that is masked by tokens.
    fn column(&self, name: &str, labels: &Labels) -> Option<(Stands, usize)> {
        let lineage = self.lineage;
        let is_given = lineage.given.iter().any(|(given, _)| given == name);
        if is_given || lineage.renamed.contains(name) || lineage.rows.contains(name) {
            return None;
        }
        let called = |seen: &Seen<'a>| {
            let column = seen.columns.iter().find(|column| column.name == name)?;
            Some((Stands { relation: seen.oid, column: column.number }, seen.rows, column.labels))
        };
        let mut found = self.relations.iter().filter_map(called);
        let first = found.next().filter(|(_, rows, _)| *rows == Rows::Own)?;
        if found.any(|other| other != first) {
            return None;
        }
        let (stands, _, carried) = first;
        let is_it =
            |(place, label): &(usize, &Label)| LabelSet::of(*place) == carried && label.form == Form::Token;
        labels.iter().enumerate().find(is_it).map(|(place, _)| (stands, place))
    }

    /// Where labelled data is put.
    fn carried(&self, statement: &Statement, all: LabelSet) -> Vec<Carried> {
        let mut carried = Vec::new();
        for put in &statement.lineage.puts {
            let labels = self.put(statement, put, all);
            if !labels.is_empty() {
                let to = self.destinations(statement, put);
                carried.extend(to.into_iter().map(|to| Carried { to, labels }));
            }
        }
        carried
    }

    fn destinations(&self, statement: &Statement, put: &Put) -> Vec<Destination> {
        let made = || {
            statement.effects.iter().find_map(|(_, reference)| match reference {
                Reference::NewRelation(name) => Some(name),
                _ => None,
            })
        };
        let Some(name) = put.into.as_ref().or_else(made) else { return Vec::new() };
        match self.answer.relations.get(name) {
            Some(Relation::Found { object, reads, .. }) if put.into.is_some() => {
                let all = || vec![(0, "*".to_owned())];
                let columns = match self.columns(put).as_slice() {
                    [(_, column)] => vec![(column.number, column.name.clone())],
                    _ => all(),
                };
                let to = |object: &Object, columns| Destination::Relation {
                    database: self.answer.database_oid,
                    object: object.clone(),
                    columns,
                };
                // What is written into a view is written into what it shows, under another name.
                let below = reads.iter().map(|object| to(object, all()));
                std::iter::once(to(object, columns)).chain(below).collect()
            }
            _ => {
                let number = |place: usize| i16::try_from(place).ok().and_then(|place| place.checked_add(1));
                let column = match (&put.into, &put.column) {
                    (None, PutColumn::Place(place)) => number(*place),
                    _ => None,
                };
                let path = &self.answer.search_path;
                vec![Destination::New {
                    database: self.answer.database_oid,
                    schemas: name.schema.as_ref().map_or_else(|| path.clone(), |schema| vec![schema.clone()]),
                    name: name.name.clone(),
                    columns: vec![column.unwrap_or(0)],
                }]
            }
        }
    }
}

/// `facts` of a statement where what these columns are compared with goes to the server as what it stands for, of which so
/// many are tokens: those comparisons filter by nothing that is hidden.
pub fn replacing(
    facts: &StatementFacts,
    labels: &Labels,
    with: &[Comparison],
    tokens: u32,
) -> StatementFacts {
    let Some(provenance) = &facts.provenance else { return facts.clone() };
    let Compared { each, besides } = &provenance.compared;
    let others = each.iter().filter(|one| !with.contains(one)).map(|one| LabelSet::of(one.label));
    let filters = others.fold(*besides, LabelSet::or);
    let stays = |effect: &Effect| match (effect.verb, &effect.target) {
        (Verb::LabelFilter, Target::Label(name)) => {
            labels.place(name).is_none_or(|label| filters.contains(label))
        }
        _ => true,
    };
    let effects = facts.effects.iter().filter(|effect| stays(effect)).cloned().collect();
    let provenance = Some(Arc::new(Provenance { replaced: tokens, ..(**provenance).clone() }));
    StatementFacts { effects, provenance, ..facts.clone() }
}

/// Everything that `facts` write, with these labels: what a statement hands to another one is put anywhere by it.
pub fn handed_on(facts: &StatementFacts, answer: &Answer, labels: LabelSet) -> Vec<Carried> {
    let written = facts.effects.iter().filter_map(|effect| match (effect.verb, &effect.target) {
        (Verb::DataInsert | Verb::DataUpdate, Target::Table(object)) => Some(object),
        _ => None,
    });
    let columns = || vec![(0, "*".to_owned())];
    let to = written.map(|object| match object.oid {
        Some(_) => Destination::Relation {
            database: answer.database_oid,
            object: object.clone(),
            columns: columns(),
        },
        None => Destination::New {
            database: answer.database_oid,
            schemas: vec![object.schema.clone()],
            name: object.name.clone(),
            columns: vec![0],
        },
    });
    to.map(|to| Carried { to, labels }).collect()
}

fn named(statement: &Statement) -> impl Iterator<Item = &Name> {
    statement.effects.iter().filter_map(|(_, reference)| match reference {
        Reference::Relation(name) => Some(name),
        _ => None,
    })
}

/// A COPY to a file or a program of the server's.
fn is_copy_out(statement: &Statement, facts: &StatementFacts) -> bool {
    let writes = facts.effects.iter().any(|effect| effect.verb == Verb::DataInsert);
    statement.kind == StatementKind::Copy && statement.copy.is_none() && !writes
}

/// Those of `labels` that are masked by tokens.
fn by_token(labels: &Labels) -> LabelSet {
    let all = labels.iter().enumerate().filter(|(_, label)| label.form == Form::Token);
    all.map(|(place, _)| LabelSet::of(place)).collect()
}

/// Whether what it gives back is not known.
fn is_loose(effect: &Effect) -> bool {
    match (effect.verb, &effect.target) {
        (Verb::FunctionCall, Target::Function(function)) => {
            let nothing = function.schema == "pg_catalog"
                && GIVE_NOTHING_STORED.iter().any(|begin| function.name.starts_with(begin));
            !nothing
        }
        (Verb::FunctionCall | Verb::Unknown | Verb::ServerReach, _) => true,
        _ => false,
    }
}

/// A call of code of somebody's own, which reads for itself what it may read.
fn is_own_function(effect: &Effect) -> bool {
    matches!(&effect.target, Target::Function(function) if function.schema != "pg_catalog")
}

/// Whether what it is given may be found elsewhere afterwards.
fn carries_away(effect: &Effect) -> bool {
    matches!(
        effect.verb,
        Verb::FunctionCall | Verb::ServerReach | Verb::SessionChange | Verb::Notify | Verb::Unknown
    )
}

#[cfg(test)]
mod tests;
