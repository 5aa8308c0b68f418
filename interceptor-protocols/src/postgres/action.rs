//! Statements to actions: what each statement of an exchange does, with the meaning of its names, of the prepared
//! statement it executes, and of the cursor it reads.
//!
//! Promise: whatever cannot be told is `unknown` with a reason; nothing is left out of an exchange's actions.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, OnceLock},
};

use interceptor_core::{
    mask::{Comparison, Labels, Provenance},
    model::{
        Action, Actions, BindValue, Binds, Phase, SessionChange, StatementFacts, StatementKind, Target, Text,
        Unknown, Verb,
    },
    sql::{Answer, Meaning, Moment, Question, Reference, Relation, Statement, Statements},
};
use smallvec::{SmallVec, smallvec};
use smol_str::SmolStr;

use super::{
    bind::Given,
    described::Described,
    facts,
    names::{Name, Names, Weighed},
    queue::Place,
    turn::{self, Turn, is_plain},
    veil::Behind,
};

/// How many statements one text may have.
const MAX_STATEMENTS: usize = 1000;

/// A text and what is in it.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) text: Text,
    pub(super) statements: Result<Statements, Unknown>,
}

impl Reading {
    /// Reads `text`.
    pub(super) fn of(text: Text) -> Self {
        let statements = facts::read(&text).and_then(|statements| {
            if statements.len() > MAX_STATEMENTS {
                Err(Unknown(format!("more than {MAX_STATEMENTS} statements in one text")))
            } else {
                Ok(statements)
            }
        });
        Self { text, statements }
    }

    /// The same with a text of its own, for a session that keeps it: what it came in lives no longer than it must.
    pub(super) fn kept(self) -> Self {
        Self { text: Text::from(&*self.text), ..self }
    }

    /// Whether it is one statement that changes rows.
    pub(super) fn is_change(&self) -> bool {
        let changes = |kind| matches!(kind, StatementKind::Update | StatementKind::Delete);
        self.statements.as_deref().is_ok_and(|all| matches!(all, [one] if changes(one.kind)))
    }

    /// A text that is not read, and why.
    pub(super) fn unread(text: Text, why: &str) -> Self {
        Self { text, statements: Err(Unknown(why.to_owned())) }
    }
}

/// A prepared statement.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    pub(super) reading: Arc<Reading>,
    pub(super) types: Vec<u32>,
    /// What a Describe said of its rows.
    pub(super) described: Described,
    /// Where the values of its answer were found to come from.
    pub(super) provenance: Option<Arc<Provenance>>,
    /// Where tokens in its text went to the server as what they stand for.
    pub(super) replaced: Vec<Comparison>,
}

impl Prepared {
    /// A statement that was just prepared.
    pub(super) fn new(reading: Arc<Reading>, types: Vec<u32>, provenance: Option<Arc<Provenance>>) -> Self {
        Self { reading, types, described: Described::default(), provenance, replaced: Vec::new() }
    }

    /// The same, where these tokens in its text were replaced.
    pub(super) fn replacing(self, replaced: Vec<Comparison>) -> Self {
        Self { replaced, ..self }
    }

    /// What a statement runs that executes it by its name.
    fn by_name(&self) -> Result<Arc<Reading>, String> {
        match self.replaced.as_slice() {
            [] => Ok(self.reading.clone()),
            _ => {
                Err("there is a token in the text of what it executes: prepare it with a parameter"
                    .to_owned())
            }
        }
    }
}

impl Weighed for Prepared {
    fn weight(&self) -> usize {
        self.reading
            .text
            .len()
            .saturating_mul(2)
            .saturating_add(self.types.len().saturating_mul(4))
            .saturating_add(256)
    }
}

/// A bound portal.
#[derive(Debug, Clone)]
pub(super) struct Portal {
    pub(super) reading: Arc<Reading>,
    pub(super) binds: Binds,
    /// The values as they came, with the types that were known then, where images of its rows may be wanted.
    pub(super) given: Option<Arc<(Given, Vec<u32>)>>,
    /// What a Describe said of its rows, once there was one.
    pub(super) described: OnceLock<Described>,
    /// What its rows are known by besides.
    pub(super) rows: Behind,
    /// Where tokens in its text and among its values went to the server as what they stand for.
    pub(super) replaced: Vec<Comparison>,
}

impl Portal {
    /// What the rows of an execution that is asked for now are known by besides.
    pub(super) fn behind(&self) -> Behind {
        let mut behind = self.rows.clone();
        if let Some(described) = self.described.get() {
            behind.described.insert(0, described.clone());
        }
        behind
    }
}

impl Weighed for Portal {
    fn weight(&self) -> usize {
        let values =
            self.binds.iter().map(|bind| bind.value.as_ref().map_or(0, SmolStr::len).saturating_add(96));
        let kept = self.given.iter().flat_map(|given| &given.0.values).flatten().map(|value| value.length);
        values.chain(kept).fold(256, usize::saturating_add)
    }
}

/// A cursor that DECLARE made.
#[derive(Debug, Clone)]
pub(super) struct Cursor {
    pub(super) reading: Arc<Reading>,
    /// Where the values of its rows were found to come from then.
    pub(super) provenance: Option<Arc<Provenance>>,
}

impl Weighed for Cursor {
    fn weight(&self) -> usize {
        self.reading.text.len().saturating_mul(2).saturating_add(256)
    }
}

/// What a statement changes of the session's names when it succeeds.
#[derive(Debug)]
pub(super) enum Change {
    Prepare(Name, Prepared),
    Deallocate(Option<Name>),
    Bind(Name, Portal),
    Declare(Name, Cursor),
    ClosePortal(Name),
    Discard,
}

/// The session's names.
#[derive(Debug, Default)]
pub(super) struct Session {
    pub(super) statements: Names<Prepared>,
    pub(super) portals: Names<Portal>,
    pub(super) cursors: Names<Cursor>,
}

/// A statement and what stands behind it.
#[derive(Debug)]
pub(super) struct Expanded<'a> {
    statement: &'a Statement,
    behind: Option<Result<Arc<Reading>, String>>,
    made: Made,
}

/// When what stands behind a statement was given its meaning.
#[derive(Debug)]
enum Made {
    /// It is given it when the statement is carried out.
    Now,
    /// It was given it before, when its values were found to come from there.
    Before(Option<Arc<Provenance>>),
}

/// The statements of a reading with what stands behind them.
#[derive(Debug)]
pub(super) struct Expansion<'a> {
    pub(super) items: SmallVec<[Expanded<'a>; 1]>,
    /// Whether every name was certain.
    pub(super) firm: bool,
}

impl Session {
    /// Finds what stands behind each statement, where changes from `segment` on fail together with it.
    pub(super) fn expand<'a>(&self, text: &str, statements: &'a [Statement], segment: u64) -> Expansion<'a> {
        let mut firm = true;
        let mut local = Local::default();
        let items = statements
            .iter()
            .map(|statement| {
                let mut made = Made::Now;
                let behind = if let Some(name) = &statement.executes {
                    let unknown = || format!("no prepared statement {name:?} is known on this session");
                    Some(match local.prepared(name) {
                        Some(known) => known.ok_or_else(unknown),
                        None => {
                            let found = self.statements.find(name, segment);
                            firm &= found.firm;
                            found.value.ok_or_else(unknown).and_then(|prepared| prepared.by_name())
                        }
                    })
                } else if statement.kind == StatementKind::Fetch {
                    Some(match cursor(text, statement) {
                        None => Err("the cursor's name could not be read".to_owned()),
                        Some(name) => {
                            let (reading, certain, when) = self.cursor(&name, segment, &local);
                            firm &= certain;
                            made = when;
                            reading.ok_or_else(|| format!("no cursor {name:?} is known on this session"))
                        }
                    })
                } else {
                    None
                };
                local.follow(text, statement);
                Expanded { statement, behind, made }
            })
            .collect();
        Expansion { items, firm }
    }

    /// A cursor's declaration. A portal that was bound under the same name is not a cursor, whatever was declared.
    fn cursor(&self, name: &str, segment: u64, local: &Local) -> (Option<Arc<Reading>>, bool, Made) {
        let portal = self.portals.find(name, segment);
        if portal.value.is_some() || !portal.firm {
            return (None, portal.firm, Made::Now);
        }
        if let Some(known) = local.cursors.get(name) {
            return (known.clone(), true, Made::Now);
        }
        let found = self.cursors.find(name, segment);
        let made = found.value.as_ref().and_then(|cursor| cursor.provenance.clone());
        (found.value.map(|cursor| cursor.reading.clone()), found.firm, Made::Before(made))
    }
}

/// What the earlier statements of the same text have changed.
#[derive(Debug, Default)]
struct Local {
    prepared: HashMap<String, Option<Arc<Reading>>>,
    forgot_all: bool,
    cursors: HashMap<String, Option<Arc<Reading>>>,
}

impl Local {
    fn prepared(&self, name: &str) -> Option<Option<Arc<Reading>>> {
        self.prepared.get(name).cloned().or(self.forgot_all.then_some(None))
    }

    fn follow(&mut self, text: &str, statement: &Statement) {
        match &statement.session {
            Some(SessionChange::Prepared { name, text }) => {
                self.prepared.insert(name.clone(), Some(Arc::new(Reading::of(text.as_str().into()))));
            }
            Some(SessionChange::Deallocated(Some(name))) => {
                self.prepared.insert(name.clone(), None);
            }
            Some(SessionChange::Deallocated(None) | SessionChange::Discarded) => {
                self.prepared.clear();
                self.forgot_all = true;
            }
            None => {}
        }
        if matches!(statement.kind, StatementKind::Declare | StatementKind::Close)
            && let Some(name) = cursor(text, statement)
        {
            let declared = (statement.kind == StatementKind::Declare)
                .then(|| text.get(statement.range.clone()).unwrap_or_default().to_owned());
            self.cursors.insert(name, declared.map(|text| Arc::new(Reading::of(text.into()))));
        }
    }
}

/// The cursor that a statement of `text` names.
fn cursor(text: &str, statement: &Statement) -> Option<String> {
    text.get(statement.range.clone()).and_then(|text| facts::cursor(statement.kind, text))
}

/// Whether these statements, or what stands behind them, need the catalogue.
pub(super) fn needs_catalogue(items: &[Expanded<'_>]) -> bool {
    items.iter().any(|item| {
        facts::needs_catalogue(std::slice::from_ref(item.statement))
            || matches!(&item.behind, Some(Ok(reading))
                if reading.statements.as_deref().is_ok_and(facts::needs_catalogue))
    })
}

/// Everything that these statements, and what stands behind them, must have looked up.
pub(super) fn question(items: &[Expanded<'_>]) -> Question {
    let mut question = Question::default();
    for item in items {
        let mut add = |more: Question| {
            question.relations.extend(more.relations);
            question.functions.extend(more.functions);
        };
        add(facts::question(std::slice::from_ref(item.statement)));
        if let Some(Ok(reading)) = &item.behind
            && let Ok(statements) = &reading.statements
        {
            add(facts::question(statements));
        }
    }
    question
}

/// What the facts of statements are joined from.
#[derive(Debug)]
pub(super) enum Basis {
    /// The facts themselves, of the only statement: they were joined before.
    Told(Arc<StatementFacts>),
    /// The catalogue's answer to [`question`], as if it had been asked in that moment.
    Answer(Answer, Moment),
    /// Why there is no answer.
    Nothing(String),
}

/// The actions of these statements. `undecided` is what the transaction under way has turned.
pub(super) fn actions(
    phase: Phase,
    text: &Text,
    items: &[Expanded<'_>],
    basis: &Basis,
    binds: &[BindValue],
    undecided: Turn,
    labels: &Labels,
) -> Actions {
    if items.is_empty() {
        return unknown(phase, text.clone(), binds.into(), "there is no statement in it");
    }
    let mut known = match basis {
        Basis::Told(facts) => {
            let (text, binds) = (text.slice_ref(bare(text)), binds.into());
            return smallvec![Action { phase, text, binds, facts: facts.clone() }];
        }
        Basis::Answer(answer, _) => Ok(answer),
        Basis::Nothing(why) => Err(why.as_str()),
    };
    // Names that an earlier statement of the same text makes: they may hide what the catalogue said.
    let mut made = BTreeSet::new();
    let mut begin = 0;
    let mut undecided = undecided;
    items
        .iter()
        .zip(1..)
        .map(|(item, count)| {
            let known_here = if item.mentions(&made, known.ok()) {
                Err("an earlier statement of the same text makes what it names")
            } else {
                known
            };
            let facts = item_facts(item, known_here, labels);
            let turn = turn::of(item, &facts, undecided);
            undecided = undecided.max(turn);
            match item.makes(&facts) {
                Some(names) => made.extend(names),
                None if turn > Turn::Nothing => {
                    known = Err("an earlier statement of the same text may change what its names mean");
                }
                None => {}
            }
            // All of the text belongs to some statement, comments too: what is recorded is what is sent.
            let end = if count == items.len() { text.len() } else { item.statement.range.end };
            let own = text.get(begin..end).unwrap_or(text);
            begin = end;
            Action { phase, text: text.slice_ref(bare(own)), binds: binds.into(), facts: Arc::new(facts) }
        })
        .collect()
}

/// A statement's text without what only separates it from others.
fn bare(text: &str) -> &str {
    text.trim_matches(|c: char| c == ';' || c.is_whitespace())
}

/// The one action of something that could not be understood.
pub(super) fn unknown(phase: Phase, text: Text, binds: Binds, why: &str) -> Actions {
    smallvec![Action { phase, text, binds, facts: Arc::new(StatementFacts::unknown(why)) }]
}

fn item_facts(item: &Expanded<'_>, known: Result<&Answer, &str>, labels: &Labels) -> StatementFacts {
    let mut facts = statement_facts(item.statement, known, labels);
    match &item.behind {
        None => {}
        Some(Err(why)) => add_unknown(&mut facts, why),
        Some(Ok(reading)) => match reading.statements.as_deref() {
            Ok([inner]) if inner.executes.is_none() && inner.kind != StatementKind::Fetch => {
                facts = facts::running(facts, statement_facts(inner, known, labels), known.ok(), labels);
                if let Made::Before(then) = &item.made {
                    // Its names may mean something else by now, but its rows do not.
                    let holds = match (&facts.provenance, then) {
                        (Some(now), Some(then)) => now.describes_as(then),
                        _ => false,
                    };
                    facts.provenance = facts.provenance.filter(|_| holds);
                }
            }
            Ok(_) => add_unknown(&mut facts, "what it runs is not one plain statement"),
            Err(why) => add_unknown(&mut facts, &why.0),
        },
    }
    facts
}

fn add_unknown(facts: &mut StatementFacts, why: &str) {
    let unknown = StatementFacts::unknown(why);
    facts.effects.extend(
        unknown.effects.into_iter().filter(|effect| !facts.effects.contains(effect)).collect::<Vec<_>>(),
    );
    facts.unknown = unknown.unknown;
    // Of what is not known nothing is clean.
    facts.provenance = None;
}

fn statement_facts(statement: &Statement, known: Result<&Answer, &str>, labels: &Labels) -> StatementFacts {
    match known {
        Ok(answer) => facts::facts(statement, answer, labels),
        Err(why) => {
            let mut facts = facts::facts(statement, &Answer::default(), labels);
            if facts::needs_catalogue(std::slice::from_ref(statement)) {
                add_unknown(&mut facts, why);
            }
            facts
        }
    }
}

/// Whether the statement takes a snapshot when it runs, so that a look-up before it changes nothing.
pub(super) fn takes_snapshot(statement: &Statement) -> bool {
    !matches!(
        statement.kind,
        StatementKind::Transaction
            | StatementKind::Lock
            | StatementKind::Set
            | StatementKind::Reset
            | StatementKind::Show
            | StatementKind::Fetch
            | StatementKind::Close
            | StatementKind::Listen
            | StatementKind::Notify
            | StatementKind::Deallocate
            | StatementKind::Discard
            | StatementKind::Maintenance
            | StatementKind::Empty
            | StatementKind::None
            | StatementKind::Unknown
    )
}

impl Expanded<'_> {
    /// The relations that it makes, where making them is all that it changes for later statements.
    fn makes(&self, facts: &StatementFacts) -> Option<Vec<String>> {
        let only_makes = self.statement.kind == StatementKind::Create
            && facts.unknown.is_none()
            && facts.effects.iter().all(|effect| {
                is_plain(effect.verb)
                    || matches!((effect.verb, &effect.target), (Verb::SchemaCreate, Target::Table(_)))
            });
        only_makes.then(|| {
            let made = self.statement.effects.iter().filter_map(|(_, reference)| match reference {
                Reference::NewRelation(name) => Some(name.name.clone()),
                _ => None,
            });
            made.collect()
        })
    }

    /// Whether it names one of `made` that the catalogue knew as something else. What was missing is judged for
    /// every schema that it could be in.
    fn mentions(&self, made: &BTreeSet<String>, known: Option<&Answer>) -> bool {
        if made.is_empty() {
            return false;
        }
        let asked = question(std::slice::from_ref(self));
        asked.relations.iter().any(|name| {
            made.contains(&name.name)
                && !known.is_some_and(|answer| matches!(answer.relations.get(name), Some(Relation::Missing)))
        })
    }

    /// What it means, where that is all there is to it.
    pub(super) fn meaning(&self) -> Option<&Arc<Meaning>> {
        self.behind.is_none().then_some(&self.statement.meaning)
    }

    /// The statement itself.
    pub(super) fn statement(&self) -> &Statement {
        self.statement
    }

    /// Whether the server answers it on its own.
    fn answers(&self) -> bool {
        self.statement.kind != StatementKind::Empty
    }

    /// It as one place of a Query with this `text`, which does what `facts` say.
    pub(super) fn place(&self, text: &str, facts: &StatementFacts) -> Place<Vec<Change>> {
        let provenance = facts.provenance.clone();
        Place {
            answers: self.answers(),
            copy: self.statement.copy,
            changes: self.changes(text, facts),
            provenance,
        }
    }

    /// What it changes of the session's names, where it does what `facts` say; `text` is the text that it stands in.
    pub(super) fn changes(&self, text: &str, facts: &StatementFacts) -> Vec<Change> {
        let mut changes = Vec::new();
        match &self.statement.session {
            Some(SessionChange::Prepared { name, text }) => {
                let reading = Arc::new(Reading::of(text.as_str().into()));
                changes.push(Change::Prepare(name.into(), Prepared::new(reading, Vec::new(), None)));
            }
            Some(SessionChange::Deallocated(name)) => {
                changes.push(Change::Deallocate(name.as_ref().map(Name::from)));
            }
            Some(SessionChange::Discarded) => changes.push(Change::Discard),
            None => {}
        }
        match (self.statement.kind, cursor(text, self.statement)) {
            (StatementKind::Declare, Some(name)) => {
                let text = text.get(self.statement.range.clone()).unwrap_or_default();
                let reading = Arc::new(Reading::of(text.into()));
                let provenance = facts.provenance.clone();
                changes.push(Change::Declare(name.into(), Cursor { reading, provenance }));
            }
            (StatementKind::Close, Some(name)) => changes.push(Change::ClosePortal(name.into())),
            _ => {}
        }
        changes
    }
}
