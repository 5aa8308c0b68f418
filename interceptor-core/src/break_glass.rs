//! Breaking the glass: for a while, what policy says of a resource is recorded and not carried out.
//!
//! Promises: it has a reason and an end; whoever reviews it is somebody else than whoever did it.

use serde::{Deserialize, Serialize};

use crate::{
    inventory::Person,
    model::{BreakGlassId, PersonName, ResourceName},
};

/// How long it lasts at most, in seconds.
pub const LONGEST: u64 = 3600;
/// The longest reason or note, in bytes.
pub(crate) const LONGEST_WORDS: usize = 2000;

/// One break-glass, from its beginning to its review.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakGlass {
    /// Its name.
    pub id: BreakGlassId,
    /// Where policy is not carried out.
    pub resource: ResourceName,
    /// Why.
    pub reason: String,
    /// Who did it.
    pub by: By,
    /// When it began, in microseconds of the Unix epoch.
    pub opened_at: i64,
    /// When it ends or ended, in microseconds of the Unix epoch.
    pub closes_at: i64,
    /// How much of it is left, in seconds; none where it is over.
    pub left: Option<u64>,
    /// What somebody else said of it afterwards.
    pub review: Option<Review>,
}

/// Who breaks the glass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct By {
    /// The user of the process.
    pub uid: u32,
    /// The user of its log-in session, where it has one.
    pub login: Option<u32>,
    /// That user, where people.toml knows them.
    pub person: Option<PersonName>,
}

impl By {
    /// The person's name, else the user's number.
    pub fn in_words(&self) -> String {
        match (&self.person, self.login) {
            (Some(person), _) => person.to_string(),
            (None, Some(login)) => format!("uid {login}"),
            (None, None) => format!("uid {} without a log-in session", self.uid),
        }
    }
}

/// What was found when it was looked at afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Review {
    /// Who looked.
    pub person: PersonName,
    /// What they say.
    pub note: String,
    /// When, in microseconds of the Unix epoch.
    pub at: i64,
}

/// Why the glass stays whole, or a review does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSo {
    /// No reason, or too long a one.
    #[error(
        "say why with --reason, in at most {LONGEST_WORDS} bytes: it is recorded, and told to whoever is paged"
    )]
    Reason,
    /// Impossible times.
    #[error("the glass is broken for 1 second to 1 hour")]
    Lasting,
    /// No note, or too long a one.
    #[error("say what you found with --note, in at most {LONGEST_WORDS} bytes")]
    Note,
    /// Whoever did it.
    #[error("whoever broke the glass does not review it: another person of people.toml has to")]
    Own,
}

/// Whether the glass may be broken so.
pub fn may_break(reason: &str, seconds: u64) -> Result<(), NotSo> {
    if !has_words(reason) {
        return Err(NotSo::Reason);
    }
    if !(1..=LONGEST).contains(&seconds) {
        return Err(NotSo::Lasting);
    }
    Ok(())
}

impl BreakGlass {
    /// Whether `person` may say this of it.
    pub fn may_review(&self, person: &Person, note: &str) -> Result<(), NotSo> {
        let own = self.by.person.as_ref() == Some(&person.name)
            || [Some(self.by.uid), self.by.login].contains(&Some(person.uid));
        if own {
            return Err(NotSo::Own);
        }
        if has_words(note) { Ok(()) } else { Err(NotSo::Note) }
    }
}

pub(crate) fn has_words(text: &str) -> bool {
    !text.trim().is_empty() && text.len() <= LONGEST_WORDS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(login: Option<u32>, person: Option<&str>) -> BreakGlass {
        BreakGlass {
            id: BreakGlassId::from_random(1),
            resource: "orders".parse().expect("a name"),
            reason: "pager".to_owned(),
            by: By { uid: 0, login, person: person.map(|name| name.parse().expect("a name")) },
            opened_at: 0,
            closes_at: 1,
            left: None,
            review: None,
        }
    }

    #[test]
    fn it_takes_a_reason_and_an_hour_at_most() {
        assert_eq!(may_break("the pager went", 60), Ok(()));
        assert_eq!(may_break(" \n", 60), Err(NotSo::Reason));
        assert_eq!(may_break(&"x".repeat(LONGEST_WORDS + 1), 60), Err(NotSo::Reason));
        for seconds in [0, LONGEST + 1, u64::MAX] {
            assert_eq!(may_break("why", seconds), Err(NotSo::Lasting));
        }
    }

    #[test]
    fn nobody_reviews_their_own() {
        let bob = Person { name: "bob".parse().expect("a name"), uid: 1002, groups: Vec::new() };
        assert_eq!(broken(None, None).may_review(&bob, "fine"), Ok(()));
        assert_eq!(broken(Some(1002), None).may_review(&bob, "fine"), Err(NotSo::Own));
        assert_eq!(broken(Some(7), Some("bob")).may_review(&bob, "fine"), Err(NotSo::Own));
        assert_eq!(broken(Some(7), Some("eve")).may_review(&bob, " "), Err(NotSo::Note));
    }
}
