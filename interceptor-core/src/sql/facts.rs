//! Joins what a statement's text says with what the catalogue says about its names.

use std::collections::BTreeSet;

use super::{
    Answer, Function, Name, Question, Reference, Relation, Routine, Statement, TransactionVerb, What,
    builtin::{is_builtin_operator, is_harmless, is_harmless_besides, is_newer_grammar, verb_of},
    utility::{named_role, says_who},
};
use crate::model::{Effect, Object, StatementFacts, StatementKind, Target, Unknown, Verb};

/// The names that must be looked up before [`facts`] can tell what `statements` do. Empty when there are none.
pub fn question(statements: &[Statement]) -> Question {
    let mut question = Question::default();
    for (_, reference) in statements.iter().flat_map(|statement| &statement.effects) {
        match reference {
            Reference::Relation(name) | Reference::Alone(name) => {
                question.relations.insert(name.clone());
            }
            Reference::Function(name) | Reference::SetConfig { function: name, .. } => {
                question.functions.insert(name.clone());
            }
            Reference::Attribute(name) => {
                question.functions.insert(Name { schema: None, name: name.clone() });
            }
            // Where a new relation goes is told by the search path alone.
            Reference::NewRelation(_)
            | Reference::Resource
            | Reference::Other { .. }
            | Reference::Setting(_) => {}
        }
    }
    question
}

/// Whether `statement` needs the catalogue at all; where not, [`Answer::default`] will do.
pub fn needs_answer(statement: &Statement) -> bool {
    let names = statement.effects.iter().any(|(_, reference)| {
        !matches!(reference, Reference::Resource | Reference::Other { .. } | Reference::Setting(_))
    });
    names || !statement.operators.is_empty() || changes_schema(statement)
}

/// Whether event triggers may fire.
fn changes_schema(statement: &Statement) -> bool {
    statement.effects.iter().any(|(verb, _)| {
        matches!(verb, Verb::SchemaCreate | Verb::SchemaAlter | Verb::SchemaDrop | Verb::AccessChange)
    })
}

/// What `statement` does, with names resolved by `answer`.
///
/// A name that the answer lacks makes the statement unknown: the catalogue was not asked about it. A statement
/// that executes a prepared one has, besides its own effects, those of what it executes: see [`executed`].
pub fn facts(statement: &Statement, answer: &Answer) -> StatementFacts {
    let mut join = Join { answer, effects: Vec::new(), unknown: statement.unknown.clone() };
    if needs_answer(statement) && answer.search_path.is_empty() && answer.database.is_empty() {
        join.not_understood("the catalogue could not be asked".to_owned());
    }
    for (verb, reference) in &statement.effects {
        join.effect(*verb, reference);
    }
    join.besides(statement);
    StatementFacts {
        kind: statement.kind,
        has_where: statement.has_where,
        has_limit: statement.has_limit,
        ..join.finish()
    }
}

/// What a call of `routine` does that no text names.
pub(super) fn call(routine: &Routine, answer: &Answer) -> StatementFacts {
    let mut join = Join { answer, effects: Vec::new(), unknown: None };
    let object = &routine.object;
    if !routine.built_in {
        join.user_function(object);
    } else if !object.oid.is_some_and(|oid| is_harmless(&[oid])) {
        join.builtin(Verb::FunctionCall, &Name { schema: None, name: object.name.clone() });
    }
    // Its values are read as its parameters' types, and those may be domains.
    answer.besides.conversions.iter().for_each(|routine| join.runs(routine));
    join.finish()
}

/// The facts of a statement that executes a prepared one: its own, with those of the text it executes. `prepared`
/// are the facts of that text's only statement, made now, with today's search path; `None` when the name is not
/// known, which makes the whole unknown.
pub fn executed(own: StatementFacts, prepared: Option<StatementFacts>) -> StatementFacts {
    let Some(prepared) = prepared else {
        let reason = Unknown("EXECUTE names a statement that is not known".to_owned());
        let mut own = own;
        own.effects.push(Effect { verb: Verb::Unknown, target: Target::Resource });
        return StatementFacts { unknown: own.unknown.or(Some(reason)), ..own };
    };
    let mut seen = BTreeSet::new();
    // Reading nothing is what a statement without effects is said to do; what it executes says it better.
    let nothing = Effect { verb: Verb::DataRead, target: Target::Resource };
    let own_effects = own.effects.into_iter().filter(|effect| *effect != nothing);
    let effects = own_effects.chain(prepared.effects).filter(|effect| seen.insert(effect.clone())).collect();
    StatementFacts {
        kind: own.kind,
        effects,
        has_where: own.has_where && prepared.has_where,
        has_limit: own.has_limit || prepared.has_limit,
        unknown: own.unknown.or(prepared.unknown),
        provenance: prepared.provenance,
        dialect: crate::sql::Dialect::Postgres,
    }
}

/// [`facts`] of the statements of one batch, which are carried out one after the other without anything being
/// looked up in between: once one of them may change what names mean ([`shifts_names`]), later ones that need
/// the catalogue are unknown.
pub fn batch_facts(statements: &[Statement], answer: &Answer) -> Vec<StatementFacts> {
    let mut shifted = false;
    let mut all = Vec::with_capacity(statements.len());
    for statement in statements {
        let mut told = facts(statement, answer);
        if shifted && needs_answer(statement) && told.unknown.is_none() {
            told.unknown =
                Some(Unknown("an earlier statement of the batch may change what its names mean".to_owned()));
            told.effects.push(Effect { verb: Verb::Unknown, target: Target::Resource });
        }
        let executes = statement.executes.is_some();
        let ends = !matches!(statement.transaction, None | Some(TransactionVerb::Begin));
        shifted |= executes || ends || shifts_names(&told);
        all.push(told);
    }
    all
}

/// Whether, once it is carried out, names may mean something else: the search path or the role may have changed,
/// by a setting or by code that is not known. What makes, changes or removes objects is not meant: it is judged on
/// the objects themselves, and makes cached facts stale all the same.
pub fn shifts_names(facts: &StatementFacts) -> bool {
    facts.unknown.is_some()
        || facts.effects.iter().any(|effect| match (effect.verb, &effect.target) {
            (Verb::SessionChange, Target::Setting(name)) => {
                matches!(name.as_str(), "search_path" | "role" | "session_authorization" | "all")
            }
            (Verb::SessionChange | Verb::FunctionCall | Verb::Unknown, _) => true,
            _ => false,
        })
}

struct Join<'a> {
    answer: &'a Answer,
    effects: Vec<Effect>,
    unknown: Option<Unknown>,
}

fn is_write(verb: Verb) -> bool {
    matches!(verb, Verb::DataInsert | Verb::DataUpdate | Verb::DataDelete | Verb::DataTruncate)
}

/// To what something is done that is done to a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// To it alone.
    Itself,
    /// To its inheritance children as well.
    Children,
}

/// To what is done what is done to a relation that a statement names.
fn reaches_children(verb: Verb) -> Reach {
    match verb {
        Verb::DataRead
        | Verb::DataUpdate
        | Verb::DataDelete
        | Verb::DataTruncate
        | Verb::DataLock
        | Verb::SchemaAlter => Reach::Children,
        _ => Reach::Itself,
    }
}

impl Join<'_> {
    /// All that was gathered, as the facts of something that is no statement.
    fn finish(self) -> StatementFacts {
        let Self { mut effects, unknown, .. } = self;
        if unknown.is_some() {
            effects.push(Effect { verb: Verb::Unknown, target: Target::Resource });
        }
        if effects.is_empty() {
            // `SELECT 1`, SHOW, FETCH: nothing but an answer to the client.
            effects.push(Effect { verb: Verb::DataRead, target: Target::Resource });
        }
        let mut seen = BTreeSet::new();
        effects.retain(|effect| seen.insert(effect.clone()));
        // They are kept for as long as the session is.
        effects.shrink_to_fit();
        StatementFacts { effects, unknown, ..StatementFacts::single(Verb::DataRead, Target::Resource) }
    }

    fn not_understood(&mut self, reason: String) {
        self.unknown.get_or_insert(Unknown(reason));
    }

    fn add(&mut self, verb: Verb, target: Target) {
        self.effects.push(Effect { verb, target });
    }

    fn effect(&mut self, verb: Verb, reference: &Reference) {
        match reference {
            Reference::Resource => self.add(verb, Target::Resource),
            Reference::Relation(name) => self.relation(verb, name, reaches_children(verb)),
            Reference::Alone(name) => self.relation(verb, name, Reach::Itself),
            Reference::NewRelation(name) => self.new_relation(verb, name),
            Reference::Function(name) => self.function(verb, name),
            Reference::SetConfig { function, setting, value } => {
                self.set_config(verb, function, setting.as_deref(), value.as_deref());
            }
            Reference::Attribute(name) => self.attribute(name),
            Reference::Other { kind, name } => {
                self.add(verb, Target::Other { kind: kind.clone(), name: name.clone() });
            }
            Reference::Setting(name) => self.add(verb, Target::Setting(name.clone())),
        }
    }

    fn relation(&mut self, verb: Verb, name: &Name, reach: Reach) {
        let answer = self.answer;
        match answer.relations.get(name) {
            Some(Relation::Found { object, reads, children, consequences, has_rules, .. }) => {
                self.add(verb, Target::Table(object.clone()));
                for child in children.iter().filter(|_| reach == Reach::Children) {
                    self.add(verb, Target::Table(child.clone()));
                }
                for consequence in consequences.iter().filter(|consequence| consequence.of.contains(&verb)) {
                    match &consequence.what {
                        What::Runs(routine) => self.runs(routine),
                        What::Does(verb, object) => self.add(*verb, Target::Table(object.clone())),
                        What::Reaches => self.add(Verb::ServerReach, Target::Resource),
                    }
                }
                for below in reads {
                    self.add(Verb::DataRead, Target::Table(below.clone()));
                    if verb != Verb::DataRead {
                        self.add_below_view(verb, below);
                    }
                }
                if *has_rules && is_write(verb) {
                    self.not_understood(format!("what a rule on {} does is not known", object.name));
                }
            }
            Some(Relation::Missing) => self.anywhere(verb, name, |_| true),
            None => self.not_understood(format!("the catalogue was not asked about {}", name.name)),
        }
    }

    /// What the statement runs without naming it.
    fn besides(&mut self, statement: &Statement) {
        let answer = self.answer;
        for name in &statement.operators {
            match answer.besides.operators.get(name) {
                Some(routines) => routines.iter().for_each(|routine| self.runs(routine)),
                None if is_builtin_operator(name) => {}
                None => {
                    let object = self.object(String::new(), name);
                    self.add(Verb::FunctionCall, Target::Function(object));
                }
            }
        }
        if needs_answer(statement) {
            answer.besides.conversions.iter().for_each(|routine| self.runs(routine));
        }
        // REINDEX and REFRESH fire them as well.
        if changes_schema(statement) || statement.kind == StatementKind::Maintenance {
            answer.besides.event_triggers.iter().for_each(|routine| self.runs(routine));
        }
    }

    /// Code that is run without being named. What the server's own code needs no word for is left out.
    fn runs(&mut self, routine: &Routine) {
        let object = &routine.object;
        if !routine.built_in {
            self.user_function(object);
        } else if !object.oid.is_some_and(is_harmless_besides) {
            self.builtin(Verb::FunctionCall, &Name { schema: None, name: object.name.clone() });
        }
    }

    fn user_function(&mut self, object: &Object) {
        self.add(Verb::FunctionCall, Target::Function(object.clone()));
        if object.name.starts_with("dblink") {
            self.add(Verb::ServerReach, Target::Resource);
        }
    }

    /// A write or a lock goes through a view; changing the view itself does not.
    fn add_below_view(&mut self, verb: Verb, below: &Object) {
        if is_write(verb) || verb == Verb::DataLock {
            self.add(verb, Target::Table(below.clone()));
        }
    }

    /// A relation that does not exist now may exist, in any schema of the path, when the statement is carried out.
    fn anywhere(&mut self, verb: Verb, name: &Name, fits: impl Fn(&str) -> bool) {
        let schemas: Vec<String> = match &name.schema {
            Some(schema) => vec![schema.clone()],
            None => self.answer.search_path.iter().filter(|schema| fits(schema)).cloned().collect(),
        };
        if schemas.is_empty() {
            self.not_understood(format!("no schema of the search path can hold {}", name.name));
        }
        for schema in schemas {
            let object = self.object(schema, &name.name);
            self.add(verb, Target::Table(object));
        }
    }

    fn object(&self, schema: String, name: &str) -> Object {
        Object { database: self.answer.database.clone(), schema, name: name.to_owned(), oid: None }
    }

    fn new_relation(&mut self, verb: Verb, name: &Name) {
        self.anywhere(verb, name, |schema| schema != "pg_catalog" && !schema.starts_with("pg_temp"));
    }

    fn function(&mut self, verb: Verb, name: &Name) {
        let answer = self.answer;
        let Some(Function { users, built_in }) = answer.functions.get(name) else {
            return self.not_understood(format!("the catalogue was not asked about {}", name.name));
        };
        users.iter().for_each(|object| self.user_function(object));
        if !built_in.is_empty() {
            if !is_harmless(built_in) {
                self.builtin(verb, name);
            }
        } else if users.is_empty() && !(name.schema.is_none() && is_newer_grammar(&name.name)) {
            let object = self.object(name.schema.clone().unwrap_or_default(), &name.name);
            self.add(verb, Target::Function(object));
        }
    }

    /// The server's own changes a setting, as SET does; a user's function of that name is like any other.
    fn set_config(&mut self, verb: Verb, name: &Name, setting: Option<&str>, value: Option<&str>) {
        let answer = self.answer;
        match (answer.functions.get(name), setting) {
            (Some(Function { users, built_in }), Some(setting)) if !built_in.is_empty() => {
                users.iter().for_each(|object| self.user_function(object));
                self.add(Verb::SessionChange, Target::Setting(setting.to_owned()));
                if says_who(setting) {
                    match value.map(named_role) {
                        Some(Some(name)) => {
                            let role = Target::Other { kind: "role".to_owned(), name: name.to_owned() };
                            self.add(Verb::SessionChange, role);
                        }
                        Some(None) => {}
                        None => {
                            self.not_understood("as whom the session would go on is not clear".to_owned())
                        }
                    }
                }
            }
            _ => self.function(verb, name),
        }
    }

    fn builtin(&mut self, verb: Verb, name: &Name) {
        match verb_of(&name.name) {
            Verb::Unknown => self.not_understood(format!("what {} works on is not in the text", name.name)),
            Verb::FunctionCall => {
                let object = self.object("pg_catalog".to_owned(), &name.name);
                self.add(verb, Target::Function(object));
            }
            better => self.add(better, Target::Resource),
        }
    }

    /// A column, unless a user's function of that name exists.
    fn attribute(&mut self, name: &str) {
        let answer = self.answer;
        match answer.functions.get(&Name { schema: None, name: name.to_owned() }) {
            // No built-in function that takes a row does more than compute.
            Some(Function { users, .. }) => users.iter().for_each(|object| self.user_function(object)),
            None => self.not_understood(format!("the catalogue was not asked about {name}")),
        }
    }
}
