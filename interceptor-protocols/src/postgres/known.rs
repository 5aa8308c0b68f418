//! What look-ups have brought so far, for as long as it holds.
//!
//! Promise: an answer is given again only while this session has sent nothing that may change what names mean, and
//! then only within the stretch of messages that it was asked in, where the locks of what was parsed keep it true,
//! or within the same epoch of the resource. What is kept is bounded.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use interceptor_core::{
    model::StatementFacts,
    permit::Naming,
    sql::{Answer, Besides, Function, Meaning, Name, Numbered, Question, Relation},
};

/// How much a session keeps, by a rough count of its bytes.
const MAX_WEIGHT: usize = 256 << 10;
/// Of how many meanings a session keeps the facts.
const MAX_TOLD: usize = 64;
/// How many names are asked for at once, beyond which what has grown old is not asked for again by the way.
const MAX_REFRESHED: usize = 64;

/// When something was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// How many changes the session had sent.
    pub(super) changes: u64,
    /// The stretch of messages between two Syncs.
    pub(super) segment: u64,
    /// How many copies of labelled data had been made at the resource.
    pub(super) copies: u64,
    /// The resource's epoch. None where the answer was that of an older snapshot.
    pub(super) epoch: Option<u64>,
}

impl Moment {
    /// Whether what was true then can be taken for true `now`.
    fn holds(self, now: Self) -> bool {
        self.changes == now.changes
            && self.copies == now.copies
            && (self.segment == now.segment || self.epoch.is_some() && self.epoch == now.epoch)
    }
}

/// The session's scope: an answer without its names.
#[derive(Debug)]
struct Scope {
    database: String,
    database_oid: Option<u32>,
    naming: Arc<Naming>,
    besides: Arc<Besides>,
}

/// One fact.
#[derive(Debug)]
struct Fact<T> {
    asked: Moment,
    /// Whether it has been needed since.
    used: bool,
    value: T,
}

impl<T: Clone> Fact<T> {
    fn new(asked: Moment, value: T) -> Self {
        Self { asked, used: false, value }
    }

    /// Its value, and when it was asked.
    fn get(&mut self, now: Moment) -> Option<(T, Moment)> {
        self.used |= self.asked.holds(now);
        self.asked.holds(now).then(|| (self.value.clone(), self.asked))
    }

    /// Whether it was needed lately, and nothing but time and others' changes speak against it.
    fn has_grown_old(&self, now: Moment) -> bool {
        self.used && self.asked.changes == now.changes && !self.asked.holds(now)
    }
}

/// What a statement of one meaning does by the answers that there are.
#[derive(Debug)]
struct Told {
    /// Held, so that its address is nobody else's.
    _meaning: Arc<Meaning>,
    facts: Arc<StatementFacts>,
    /// Until when the answers hold.
    asked: Moment,
}

/// Whether the catalogue was looked at for the very message that is being judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Looked {
    /// What is known of it is from before.
    #[default]
    Before,
    /// It was, as it is now.
    Now,
    /// It was, as it is in an older snapshot.
    Past,
}

/// Answers to look-ups.
#[derive(Debug, Default)]
pub(super) struct Known {
    looked: Looked,
    /// What was made of them, by the meaning's address. A new answer empties it.
    told: HashMap<usize, Told>,
    scope: Option<(Moment, Scope)>,
    relations: HashMap<Name, Fact<Relation>>,
    functions: HashMap<Name, Fact<Function>>,
    numbers: HashMap<u32, Fact<Option<Numbered>>>,
    weight: usize,
    /// The last look-up brought nothing.
    failed: Option<(Moment, String)>,
}

impl Known {
    /// The answer to `question`, if all of it is known `now`, and a moment that it was asked in as it were: it holds
    /// for as long as what was asked then does.
    pub(super) fn answer(&mut self, question: &Question, now: Moment) -> Option<(Answer, Moment)> {
        let (asked, scope) = self.scope.as_ref()?;
        if !asked.holds(now) {
            return None;
        }
        // What holds in its stretch alone makes all of it do so.
        let mut whole = Moment { epoch: asked.epoch.filter(|_| asked.epoch == now.epoch), ..now };
        let mut part = |asked: Moment| {
            if asked.epoch != now.epoch {
                whole.epoch = None;
            }
        };
        let mut relations = BTreeMap::new();
        for name in &question.relations {
            let (relation, asked) = self.relations.get_mut(name)?.get(now)?;
            part(asked);
            relations.insert(name.clone(), relation);
        }
        let mut functions = BTreeMap::new();
        for name in &question.functions {
            let (function, asked) = self.functions.get_mut(name)?.get(now)?;
            part(asked);
            functions.insert(name.clone(), function);
        }
        let mut numbers = BTreeMap::new();
        for number in &question.numbers {
            let (function, asked) = self.numbers.get_mut(number)?.get(now)?;
            part(asked);
            numbers.insert(*number, function);
        }
        let answer = Answer {
            database: scope.database.clone(),
            database_oid: scope.database_oid,
            role: scope.naming.role.clone(),
            search_path: scope.naming.search_path.clone(),
            besides: scope.besides.clone(),
            relations,
            functions,
            numbers,
        };
        Some((answer, whole))
    }

    /// As what names are looked up, where that is known: nothing but what the session sends changes it.
    pub(super) fn naming(&self, now: Moment) -> Option<Arc<Naming>> {
        let (asked, scope) = self.scope.as_ref()?;
        (asked.changes == now.changes).then(|| scope.naming.clone())
    }

    /// What a statement that means this does, if that has been told and the answers still hold `now`.
    pub(super) fn facts(&self, meaning: &Arc<Meaning>, now: Moment) -> Option<Arc<StatementFacts>> {
        let told = self.told.get(&address(meaning))?;
        told.asked.holds(now).then(|| told.facts.clone())
    }

    /// A statement that means this does that, by an answer that was asked in that moment.
    pub(super) fn tell(&mut self, meaning: &Arc<Meaning>, asked: Moment, facts: &Arc<StatementFacts>) {
        if self.told.len() >= MAX_TOLD {
            self.told.clear();
        }
        let told = Told { _meaning: meaning.clone(), facts: facts.clone(), asked };
        self.told.insert(address(meaning), told);
    }

    /// Adds to a question that is to be asked what was needed lately and has grown old: one look-up then serves the
    /// statements that follow.
    pub(super) fn refresh(&self, question: &mut Question, now: Moment) {
        let room = MAX_REFRESHED.saturating_sub(question.len());
        let old = |fact: &Fact<Relation>| fact.has_grown_old(now);
        let relations = self.relations.iter().filter(|(_, fact)| old(fact)).map(|(name, _)| name.clone());
        question.relations.extend(relations.take(room));
        let room = MAX_REFRESHED.saturating_sub(question.len());
        let old = |fact: &Fact<Function>| fact.has_grown_old(now);
        let functions = self.functions.iter().filter(|(_, fact)| old(fact)).map(|(name, _)| name.clone());
        question.functions.extend(functions.take(room));
        let room = MAX_REFRESHED.saturating_sub(question.len());
        let old = |fact: &Fact<Option<Numbered>>| fact.has_grown_old(now);
        let numbers = self.numbers.iter().filter(|(_, fact)| old(fact)).map(|(number, _)| *number);
        question.numbers.extend(numbers.take(room));
    }

    /// Why the look-up that was made just before brought nothing.
    pub(super) fn failure(&self, now: Moment) -> Option<&str> {
        let (asked, why) = self.failed.as_ref()?;
        (asked.changes == now.changes && asked.segment == now.segment).then_some(why)
    }

    /// Whether the catalogue was looked at for the message that is being judged.
    pub(super) fn looked(&self) -> Looked {
        self.looked
    }

    /// That message has been judged.
    pub(super) fn is_judged(&mut self) {
        self.looked = Looked::Before;
    }

    /// Takes what a look-up brought that was asked at a moment.
    pub(super) fn learn(&mut self, asked: Moment, answer: Result<Answer, String>) {
        self.failed = None;
        self.told.clear();
        let answer = match answer {
            Ok(answer) => answer,
            Err(why) => {
                self.failed = Some((asked, why));
                return;
            }
        };
        let weight = weight(&answer);
        let stale = self.scope.as_ref().is_some_and(|(then, _)| then.changes != asked.changes);
        if stale || self.weight.saturating_add(weight) > MAX_WEIGHT {
            *self = Self::default();
        }
        self.looked = if asked.epoch.is_some() { Looked::Now } else { Looked::Past };
        self.weight = self.weight.saturating_add(weight);
        let Answer { database, database_oid, role, search_path, relations, functions, numbers, besides } =
            answer;
        self.scope = Some((
            asked,
            Scope { database, database_oid, naming: Arc::new(Naming { role, search_path }), besides },
        ));
        let relations = relations.into_iter().map(|(name, relation)| (name, Fact::new(asked, relation)));
        self.relations.extend(relations);
        let functions = functions.into_iter().map(|(name, function)| (name, Fact::new(asked, function)));
        self.functions.extend(functions);
        let numbers = numbers.into_iter().map(|(number, function)| (number, Fact::new(asked, function)));
        self.numbers.extend(numbers);
    }
}

fn address(meaning: &Arc<Meaning>) -> usize {
    Arc::as_ptr(meaning).addr()
}

/// About how many bytes an answer takes. What replaces something is counted besides it: the sum only grows until
/// all is forgotten.
fn weight(answer: &Answer) -> usize {
    /// Of a name, an object, and their places in a map.
    const EACH: usize = 256;
    let of_relation = |relation: &Relation| match relation {
        Relation::Found { reads, columns, children, consequences, .. } => {
            let all = reads
                .len()
                .saturating_add(columns.len() / 4)
                .saturating_add(children.len())
                .saturating_add(consequences.len());
            EACH.saturating_mul(all.saturating_add(1))
        }
        Relation::Missing => EACH,
    };
    let of_function = |Function { users, built_in }: &Function| {
        let users = EACH.saturating_mul(users.len().saturating_add(1));
        users.saturating_add(built_in.len().saturating_mul(4))
    };
    let of_number = |function: &Option<Numbered>| {
        let parameters = function.as_ref().map_or(0, |function| function.parameters.len());
        EACH.saturating_add(parameters.saturating_mul(4))
    };
    let relations = answer.relations.values().map(of_relation);
    let functions = answer.functions.values().map(of_function);
    let numbers = answer.numbers.values().map(of_number);
    relations.chain(functions).chain(numbers).fold(EACH, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> Name {
        Name { schema: None, name: name.to_owned() }
    }

    fn question(names: &[&str]) -> Question {
        Question { relations: names.iter().map(|part| name(part)).collect(), ..Question::default() }
    }

    fn answer(names: &[&str]) -> Answer {
        Answer {
            database: "d".to_owned(),
            relations: names.iter().map(|part| (name(part), Relation::Missing)).collect(),
            ..Answer::default()
        }
    }

    fn at(changes: u64, segment: u64, epoch: u64) -> Moment {
        Moment { changes, segment, copies: 0, epoch: Some(epoch) }
    }

    #[test]
    fn answers_hold_within_their_stretch_and_within_their_epoch() {
        let mut known = Known::default();
        known.learn(at(0, 1, 7), Ok(answer(&["a", "b"])));
        for (now, holds) in [
            (at(0, 1, 7), true),
            (at(0, 9, 7), true),
            (at(0, 1, 8), true),
            (at(0, 2, 8), false),
            (at(1, 1, 7), false),
        ] {
            assert_eq!(known.answer(&question(&["a"]), now).is_some(), holds, "{now:?}");
        }
        assert!(known.answer(&question(&["a", "c"]), at(0, 1, 7)).is_none());
        known.learn(at(0, 2, 8), Ok(answer(&["c"])));
        assert!(known.answer(&question(&["a", "c"]), at(0, 2, 8)).is_none(), "one part is too old");
        assert!(known.answer(&question(&["c"]), at(0, 3, 8)).is_some());
    }

    #[test]
    fn a_copy_makes_every_answer_old() {
        let mut known = Known::default();
        known.learn(at(0, 1, 7), Ok(answer(&["a"])));
        let now = Moment { copies: 1, ..at(0, 1, 7) };
        assert!(known.answer(&question(&["a"]), now).is_none(), "its columns may bear more");
        assert!(known.naming(now).is_some(), "names mean what they meant");
    }

    #[test]
    fn an_answer_of_several_ages_holds_for_as_long_as_the_oldest() {
        let mut known = Known::default();
        known.learn(at(0, 1, 7), Ok(answer(&["a"])));
        known.learn(at(0, 1, 8), Ok(answer(&["b"])));
        let holds = |known: &mut Known, names: &[&str], then| {
            let (_, asked) = known.answer(&question(names), at(0, 1, 8)).expect("it holds now");
            asked.holds(then)
        };
        assert!(holds(&mut known, &["b"], at(0, 2, 8)));
        assert!(!holds(&mut known, &["b"], at(0, 2, 9)));
        assert!(holds(&mut known, &["a", "b"], at(0, 1, 8)));
        assert!(!holds(&mut known, &["a", "b"], at(0, 2, 8)), "one was asked before this epoch");
    }

    #[test]
    fn what_was_made_of_an_answer_holds_no_longer_than_it() {
        let meaning = interceptor_core::sql::analyze("SELECT 1").expect("it can be read")[0].meaning.clone();
        let same = interceptor_core::sql::analyze("SELECT 1").expect("it can be read")[0].meaning.clone();
        let facts = Arc::new(StatementFacts::unknown("any"));
        let mut known = Known::default();
        known.tell(&meaning, at(0, 1, 7), &facts);
        assert!(known.facts(&meaning, at(0, 2, 7)).is_some_and(|told| Arc::ptr_eq(&told, &facts)));
        assert!(known.facts(&same, at(0, 2, 7)).is_none(), "it is found by its address");
        assert!(known.facts(&meaning, at(0, 2, 8)).is_none());
        assert!(known.facts(&meaning, at(1, 1, 7)).is_none());
        known.learn(at(0, 2, 8), Err("why".to_owned()));
        assert!(known.facts(&meaning, at(0, 1, 7)).is_none());
        for _ in 0..1000 {
            let meaning =
                interceptor_core::sql::analyze("SELECT 1").expect("it can be read")[0].meaning.clone();
            known.tell(&meaning, at(0, 1, 7), &facts);
        }
        assert!(known.told.len() <= MAX_TOLD);
    }

    #[test]
    fn what_was_needed_lately_is_asked_again_with_the_next_question() {
        let mut known = Known::default();
        known.learn(at(0, 1, 7), Ok(answer(&["a", "b", "c"])));
        assert!(known.answer(&question(&["a", "b"]), at(0, 2, 7)).is_some());
        let mut next = question(&["d"]);
        known.refresh(&mut next, at(0, 2, 7));
        assert_eq!(next, question(&["d"]), "nothing is old yet");
        known.refresh(&mut next, at(0, 3, 8));
        assert_eq!(next, question(&["a", "b", "d"]));
        let mut next = question(&["d"]);
        known.refresh(&mut next, at(1, 3, 8));
        assert_eq!(next, question(&["d"]), "names may mean something else now");
    }

    #[test]
    fn an_older_snapshots_answer_holds_in_its_stretch_alone() {
        let mut known = Known::default();
        known.learn(Moment { epoch: None, ..at(0, 1, 0) }, Ok(answer(&["a"])));
        assert!(known.answer(&question(&["a"]), at(0, 1, 0)).is_some());
        assert!(known.answer(&question(&["a"]), Moment { epoch: None, ..at(0, 2, 0) }).is_none());
    }

    #[test]
    fn a_failure_is_told_once_and_keeps_what_was_known() {
        let mut known = Known::default();
        known.learn(at(0, 1, 7), Ok(answer(&["a"])));
        known.learn(at(0, 2, 7), Err("why".to_owned()));
        assert_eq!(known.failure(at(0, 2, 9)), Some("why"));
        assert_eq!(known.failure(at(0, 3, 7)), None);
        assert!(known.answer(&question(&["a"]), at(0, 3, 7)).is_some());
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_last_answer_is_always_there() {
        let mut known = Known::default();
        for round in 0..10_000 {
            let names = [format!("t{round}")];
            known.learn(at(0, 1, 1), Ok(answer(&[names[0].as_str()])));
            assert!(known.answer(&question(&[names[0].as_str()]), at(0, 1, 1)).is_some());
        }
        assert!(known.relations.len() * 256 <= MAX_WEIGHT);
    }
}
