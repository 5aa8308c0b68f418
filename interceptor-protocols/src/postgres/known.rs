//! What look-ups have brought so far, for as long as it holds.
//!
//! Promise: an answer is given again only while this session has sent nothing that may change what names mean, and
//! then only within the stretch of messages that it was asked in, where the locks of what was parsed keep it true,
//! or while the resource's catalogue is as it was. What is kept is bounded.

use std::sync::Arc;

use interceptor_core::{
    model::StatementFacts,
    permit::Naming,
    sql::{Answer, Answers, Meaning, Moment, Question},
};

/// Of how many meanings a session keeps the facts.
const MAX_TOLD: usize = 64;

/// What a statement of one meaning does by the answers that there are.
#[derive(Debug)]
struct Told {
    /// Held, so that its address is nobody else's.
    meaning: Arc<Meaning>,
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
    told: Vec<Told>,
    answers: Answers,
    /// The last look-up brought nothing.
    failed: Option<(Moment, String)>,
}

impl Known {
    /// The answer to `question`, if all of it is known `now`, and a moment that it was asked in as it were: it holds
    /// for as long as what was asked then does.
    pub(super) fn answer(&mut self, question: &Question, now: Moment) -> Option<(Answer, Moment)> {
        self.answers.answer(question, now)
    }

    /// As what names are looked up, where that is known.
    pub(super) fn naming(&self, now: Moment) -> Option<Arc<Naming>> {
        self.answers.naming(now)
    }

    /// What a statement that means this does, if that has been told and the answers still hold `now`, and when they were
    /// asked for.
    pub(super) fn facts(&self, meaning: &Arc<Meaning>, now: Moment) -> Option<(Arc<StatementFacts>, Moment)> {
        let told = self.told.iter().find(|told| Arc::ptr_eq(&told.meaning, meaning))?;
        told.asked.holds(now).then(|| (told.facts.clone(), told.asked))
    }

    /// A statement that means this does that, by an answer that was asked in that moment.
    pub(super) fn tell(&mut self, meaning: &Arc<Meaning>, asked: Moment, facts: &Arc<StatementFacts>) {
        self.told.retain(|told| !Arc::ptr_eq(&told.meaning, meaning));
        if self.told.len() >= MAX_TOLD {
            self.told.clear();
        }
        if self.told.capacity() == 0 {
            // Many sessions ask one thing only.
            self.told.reserve_exact(1);
        }
        self.told.push(Told { meaning: meaning.clone(), facts: facts.clone(), asked });
    }

    /// Adds to a question that is to be asked what was needed lately and has grown old.
    pub(super) fn refresh(&self, question: &mut Question, now: Moment) {
        self.answers.refresh(question, now);
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

    /// Takes what a look-up of this session's brought that was asked at a moment.
    pub(super) fn learn(&mut self, asked: Moment, answer: Result<Answer, String>) {
        match answer {
            Ok(answer) => {
                self.take(asked, answer);
                self.looked = if asked.stage.is_some() { Looked::Now } else { Looked::Past };
            }
            Err(why) => {
                self.told.clear();
                self.failed = Some((asked, why));
            }
        }
    }

    /// Takes an answer that was asked at a moment.
    pub(super) fn take(&mut self, asked: Moment, answer: Answer) {
        self.failed = None;
        self.told.clear();
        self.answers.learn(asked, answer);
    }
}

#[cfg(test)]
mod tests {
    use interceptor_core::{
        catalogue::Catalogue,
        sql::{Name, Relation},
    };

    use super::*;

    fn question() -> Question {
        let name = Name { schema: None, name: "a".to_owned() };
        Question { relations: [name].into(), ..Question::default() }
    }

    fn answer() -> Answer {
        Answer {
            relations: question().relations.into_iter().map(|name| (name, Relation::Missing)).collect(),
            ..Answer::default()
        }
    }

    /// A moment of a session, and one after somebody else's change.
    fn moments() -> (Moment, Moment) {
        let catalogue = Catalogue::new(|| 0);
        let now = Moment { changes: 0, segment: Some(1), copies: 0, stage: Some(catalogue.stage()) };
        catalogue.advance();
        (now, Moment { segment: Some(2), stage: Some(catalogue.stage()), ..now })
    }

    #[test]
    fn what_was_made_of_an_answer_holds_no_longer_than_it() {
        let meaning =
            || interceptor_core::sql::analyze("SELECT 1").expect("it can be read")[0].meaning.clone();
        let (one, same) = (meaning(), meaning());
        let (now, later) = moments();
        let facts = Arc::new(StatementFacts::unknown("any"));
        let mut known = Known::default();
        known.tell(&one, now, &facts);
        let soon = Moment { segment: Some(2), ..now };
        assert!(known.facts(&one, soon).is_some_and(|(told, _)| Arc::ptr_eq(&told, &facts)));
        assert!(known.facts(&same, soon).is_none(), "it is found by its address");
        assert!(known.facts(&one, later).is_none());
        assert!(known.facts(&one, Moment { changes: 1, ..now }).is_none());
        known.learn(later, Err("why".to_owned()));
        assert!(known.facts(&one, now).is_none());
        for _ in 0..1000 {
            known.tell(&meaning(), now, &facts);
        }
        assert!(known.told.len() <= MAX_TOLD);
    }

    #[test]
    fn a_failure_is_told_once_and_keeps_what_was_known() {
        let (now, later) = moments();
        let mut known = Known::default();
        known.learn(now, Ok(answer()));
        known.learn(Moment { segment: Some(2), ..now }, Err("why".to_owned()));
        assert_eq!(known.failure(later), Some("why"));
        let next = Moment { segment: Some(3), ..now };
        assert_eq!(known.failure(next), None);
        assert!(known.answer(&question(), next).is_some());
    }

    #[test]
    fn only_a_look_up_of_its_own_was_made_for_a_message() {
        let (now, _) = moments();
        let mut known = Known::default();
        known.take(Moment { segment: None, ..now }, answer());
        assert_eq!(known.looked(), Looked::Before);
        known.learn(now, Ok(answer()));
        assert_eq!(known.looked(), Looked::Now);
        known.learn(Moment { stage: None, ..now }, Ok(answer()));
        assert_eq!(known.looked(), Looked::Past);
    }
}
