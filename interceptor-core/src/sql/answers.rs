//! Answers of the catalogue that are kept, name by name, for as long as they hold.
//!
//! Promise: what is put together from several answers holds no longer than the oldest of them. What is kept is bounded.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{Answer, Besides, Function, Name, Numbered, Question, Relation};
use crate::{catalogue::Stage, permit::Naming};

/// How much is kept, by a rough count of its bytes.
const MAX_WEIGHT: usize = 256 << 10;
/// How many names are asked for at once, beyond which what has grown old is not asked for again by the way.
const MAX_REFRESHED: usize = 64;

/// When something was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// How many changes the session had sent.
    pub changes: u64,
    /// The stretch of messages between two Syncs; none where another session asked.
    pub segment: Option<u64>,
    /// How many copies of labelled data had been made at the resource.
    pub copies: u64,
    /// How far the catalogue had come. None where the answer was that of an older snapshot.
    pub stage: Option<Stage>,
}

impl Moment {
    /// Whether what was true then can be taken for true `now`.
    pub fn holds(self, now: Self) -> bool {
        self.changes == now.changes
            && self.copies == now.copies
            && (self.segment.is_some() && self.segment == now.segment || self.stage_holds(now))
    }

    fn stage_holds(self, now: Self) -> bool {
        self.stage.zip(now.stage).is_some_and(|(then, now)| then.holds(now))
    }

    /// Whether it holds `now`, and will soon not do so any more.
    pub fn is_ending(self, now: Self) -> bool {
        self.holds(now) && self.stage.zip(now.stage).is_some_and(|(then, now)| then.is_ending(now))
    }
}

/// An answer without its names.
#[derive(Debug, Clone)]
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

    /// Whether it was needed lately, and nothing but time and others' changes speak against it, or soon will.
    fn is_to_be_asked_again(&self, now: Moment) -> bool {
        let gone_or_going = !self.asked.holds(now) || self.asked.is_ending(now);
        self.used && self.asked.changes == now.changes && gone_or_going
    }
}

/// What is kept.
#[derive(Debug, Default)]
pub struct Answers {
    scope: Option<(Moment, Scope)>,
    relations: HashMap<Name, Fact<Relation>>,
    functions: HashMap<Name, Fact<Function>>,
    numbers: HashMap<u32, Fact<Option<Numbered>>>,
    weight: usize,
}

impl Answers {
    /// The answer to `question`, if all of it is known `now`, and a moment that it was asked in as it were: it holds
    /// for as long as what was asked then does.
    pub fn answer(&mut self, question: &Question, now: Moment) -> Option<(Answer, Moment)> {
        let (asked, scope) = self.scope.as_ref()?;
        if !asked.holds(now) {
            return None;
        }
        // What holds in its stretch alone makes all of it do so.
        let mut whole = Moment { stage: asked.stage.filter(|_| asked.stage_holds(now)), ..now };
        let mut part = |asked: Moment| {
            let stage = asked.stage.filter(|_| asked.stage_holds(now));
            whole.stage = whole.stage.zip(stage).map(|(one, other)| one.older(other));
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
    pub fn naming(&self, now: Moment) -> Option<Arc<Naming>> {
        let (asked, scope) = self.scope.as_ref()?;
        (asked.changes == now.changes).then(|| scope.naming.clone())
    }

    /// Adds to a question that is to be asked what was needed lately and has grown old: one look-up then serves the
    /// statements that follow.
    pub fn refresh(&self, question: &mut Question, now: Moment) {
        let room = MAX_REFRESHED.saturating_sub(question.len());
        question.relations.extend(old(&self.relations, now).take(room).cloned());
        let room = MAX_REFRESHED.saturating_sub(question.len());
        question.functions.extend(old(&self.functions, now).take(room).cloned());
        let room = MAX_REFRESHED.saturating_sub(question.len());
        question.numbers.extend(old(&self.numbers, now).take(room).copied());
    }

    /// Takes an answer to what was asked at a moment.
    pub fn learn(&mut self, asked: Moment, answer: Answer) {
        let weight = weight(&answer);
        let stale = self.scope.as_ref().is_some_and(|(then, _)| then.changes != asked.changes);
        if stale || self.weight.saturating_add(weight) > MAX_WEIGHT {
            *self = Self::default();
        }
        self.weight = self.weight.saturating_add(weight);
        let Answer { database, database_oid, role, search_path, relations, functions, numbers, besides } =
            answer;
        let naming = Arc::new(Naming { role, search_path });
        self.scope = Some((asked, Scope { database, database_oid, naming, besides }));
        let relations = relations.into_iter().map(|(name, relation)| (name, Fact::new(asked, relation)));
        self.relations.extend(relations);
        let functions = functions.into_iter().map(|(name, function)| (name, Fact::new(asked, function)));
        self.functions.extend(functions);
        let numbers = numbers.into_iter().map(|(number, function)| (number, Fact::new(asked, function)));
        self.numbers.extend(numbers);
    }
}

/// What of these is to be asked again.
fn old<K, T: Clone>(facts: &HashMap<K, Fact<T>>, now: Moment) -> impl Iterator<Item = &K> {
    facts.iter().filter(move |(_, fact)| fact.is_to_be_asked_again(now)).map(|(name, _)| name)
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

    /// A moment after others' changes.
    fn at(changes: u64, segment: u64, others: u64) -> Moment {
        Moment { changes, segment: Some(segment), copies: 0, stage: Some(Stage { changes: others, part: 0 }) }
    }

    /// A moment so many parts of the age later.
    fn after(parts: u64, moment: Moment) -> Moment {
        let later = |stage: Stage| Stage { part: stage.part + parts, ..stage };
        Moment { segment: Some(99), stage: moment.stage.map(later), ..moment }
    }

    #[test]
    fn answers_hold_within_their_stretch_and_within_their_stage() {
        let mut answers = Answers::default();
        answers.learn(at(0, 1, 7), answer(&["a", "b"]));
        for (now, holds) in [
            (at(0, 1, 7), true),
            (at(0, 9, 7), true),
            (at(0, 1, 8), true),
            (at(0, 2, 8), false),
            (at(1, 1, 7), false),
        ] {
            assert_eq!(answers.answer(&question(&["a"]), now).is_some(), holds, "{now:?}");
        }
        assert!(answers.answer(&question(&["a", "c"]), at(0, 1, 7)).is_none());
        answers.learn(at(0, 2, 8), answer(&["c"]));
        assert!(answers.answer(&question(&["a", "c"]), at(0, 2, 8)).is_none(), "one part is too old");
        assert!(answers.answer(&question(&["c"]), at(0, 3, 8)).is_some());
    }

    #[test]
    fn answers_hold_for_all_parts_of_their_age() {
        let mut answers = Answers::default();
        answers.learn(at(0, 1, 7), answer(&["a"]));
        for (parts, ending) in [(0, false), (6, false), (7, true)] {
            let now = after(parts, at(0, 1, 7));
            let (_, asked) = answers.answer(&question(&["a"]), now).expect("it holds");
            assert_eq!(asked.is_ending(now), ending, "{parts}");
        }
        assert!(answers.answer(&question(&["a"]), after(8, at(0, 1, 7))).is_none());
    }

    #[test]
    fn another_sessions_answer_holds_in_no_stretch() {
        let mut answers = Answers::default();
        answers.learn(Moment { segment: None, ..at(0, 1, 7) }, answer(&["a"]));
        assert!(answers.answer(&question(&["a"]), at(0, 1, 7)).is_some());
        assert!(answers.answer(&question(&["a"]), at(0, 1, 8)).is_none());
        let nobody = Moment { segment: None, ..at(0, 1, 8) };
        assert!(answers.answer(&question(&["a"]), nobody).is_none());
    }

    #[test]
    fn a_copy_makes_every_answer_old() {
        let mut answers = Answers::default();
        answers.learn(at(0, 1, 7), answer(&["a"]));
        let now = Moment { copies: 1, ..at(0, 1, 7) };
        assert!(answers.answer(&question(&["a"]), now).is_none(), "its columns may bear more");
        assert!(answers.naming(now).is_some(), "names mean what they meant");
    }

    #[test]
    fn an_answer_of_several_ages_holds_for_as_long_as_the_oldest() {
        let mut answers = Answers::default();
        answers.learn(at(0, 1, 7), answer(&["a"]));
        answers.learn(at(0, 1, 8), answer(&["b"]));
        let holds = |answers: &mut Answers, names: &[&str], then| {
            let (_, asked) = answers.answer(&question(names), at(0, 1, 8)).expect("it holds now");
            asked.holds(then)
        };
        assert!(holds(&mut answers, &["b"], at(0, 2, 8)));
        assert!(!holds(&mut answers, &["b"], at(0, 2, 9)));
        assert!(holds(&mut answers, &["a", "b"], at(0, 1, 8)));
        assert!(!holds(&mut answers, &["a", "b"], at(0, 2, 8)), "one was asked before this stage");
        let mut answers = Answers::default();
        answers.learn(at(0, 1, 7), answer(&["a"]));
        answers.learn(after(5, at(0, 1, 7)), answer(&["b"]));
        let now = after(6, at(0, 1, 7));
        let (_, asked) = answers.answer(&question(&["a", "b"]), now).expect("both hold");
        let later = Moment { segment: Some(100), ..after(8, at(0, 1, 7)) };
        assert!(!asked.holds(later), "the older one is over");
    }

    #[test]
    fn what_was_needed_lately_is_asked_again_with_the_next_question() {
        let mut answers = Answers::default();
        answers.learn(at(0, 1, 7), answer(&["a", "b", "c"]));
        assert!(answers.answer(&question(&["a", "b"]), at(0, 2, 7)).is_some());
        let asked_with = |now: Moment| {
            let mut next = question(&["d"]);
            answers.refresh(&mut next, now);
            next
        };
        assert_eq!(asked_with(at(0, 2, 7)), question(&["d"]), "nothing is old yet");
        assert_eq!(asked_with(after(7, at(0, 2, 7))), question(&["a", "b", "d"]), "it will be soon");
        assert_eq!(asked_with(at(0, 3, 8)), question(&["a", "b", "d"]));
        assert_eq!(asked_with(at(1, 3, 8)), question(&["d"]), "names may mean something else now");
    }

    #[test]
    fn an_older_snapshots_answer_holds_in_its_stretch_alone() {
        let mut answers = Answers::default();
        answers.learn(Moment { stage: None, ..at(0, 1, 0) }, answer(&["a"]));
        assert!(answers.answer(&question(&["a"]), at(0, 1, 0)).is_some());
        assert!(answers.answer(&question(&["a"]), at(0, 2, 0)).is_none());
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_last_answer_is_always_there() {
        let mut answers = Answers::default();
        for round in 0..10_000 {
            let names = [format!("t{round}")];
            answers.learn(at(0, 1, 1), answer(&[names[0].as_str()]));
            assert!(answers.answer(&question(&[names[0].as_str()]), at(0, 1, 1)).is_some());
        }
        assert!(answers.relations.len() * 256 <= MAX_WEIGHT);
    }
}
