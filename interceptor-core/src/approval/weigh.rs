//! Who may decide on a request.
//!
//! Promise: whoever answers for an agent, or started its run, approves of nothing that it does; what was not shown
//! whole is approved by nobody. It must never know how many approvals are enough.

use super::{Card, LONGEST_GRANT, LONGEST_WORDS, Says, Uses};
use crate::{
    inventory::Person,
    model::{AgentIdentity, PersonName, Run},
};

/// Why somebody may not decide, or not so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotYours {
    /// Not a member of any group that is asked.
    #[error("{person} is in none of the groups that are asked: {}; people.toml says who is", .groups.join(", "))]
    NotAsked {
        /// Who.
        person: PersonName,
        /// Who is asked.
        groups: Vec<String>,
    },
    /// Not a member of any group that approves of anything.
    #[error("{0} is in no group that approves: people.toml says who is")]
    InNoGroup(PersonName),
    /// A member of several, of which one has to be named.
    #[error("{person} is in {}: say for which with --as, since nobody counts twice", .groups.join(" and "))]
    Which {
        /// Who.
        person: PersonName,
        /// Of what.
        groups: Vec<String>,
    },
    /// The agent's owner.
    #[error("{0} is answerable for this agent, and may deny but not approve or undo: another person has to")]
    Owner(PersonName),
    /// Whoever started the run.
    #[error("{0} started this run, and may deny but not approve or undo: another person has to")]
    Starter(PersonName),
    /// The card does not show everything.
    #[error(
        "this is too long to be shown whole, and what was not seen cannot be approved; deny it, or let it expire"
    )]
    Cut,
    /// What it would be an approval of cannot be told.
    #[error(
        "only one statement that reads, or changes one table and calls nothing of anybody's, can be approved by its \
         shape: approve this one alone"
    )]
    Shapeless,
    /// A text is too long.
    #[error("a reason or a suggestion may have {LONGEST_WORDS} bytes")]
    Wordy,
    /// Impossible times.
    #[error("an approval lasts from 1 second to 8 hours")]
    Lasting,
}

/// Whether `person` may say this of what stands on `card`, and for which of their groups it counts.
pub fn weigh(person: &Person, card: &Card, group: Option<&str>, says: &Says) -> Result<String, NotYours> {
    let name = || person.name.clone();
    let asked = card.groups.iter().filter(|asked| person.groups.contains(asked));
    let own: Vec<&String> = asked.filter(|own| group.is_none_or(|group| group == own.as_str())).collect();
    match says {
        Says::Approve { seconds, uses } => {
            is_somebody_else(person, &card.agent, (card.launcher.as_deref(), card.launcher_uid))?;
            if !card.whole {
                return Err(NotYours::Cut);
            }
            if matches!(uses, Uses::Shape { .. }) && card.free.is_none() {
                return Err(NotYours::Shapeless);
            }
            if !(1..=LONGEST_GRANT).contains(seconds) {
                return Err(NotYours::Lasting);
            }
        }
        Says::Deny { reason, suggestion } => {
            if reason.len().max(suggestion.as_ref().map_or(0, String::len)) > LONGEST_WORDS {
                return Err(NotYours::Wordy);
            }
        }
    }
    match own.as_slice() {
        [] => Err(NotYours::NotAsked { person: name(), groups: card.groups.clone() }),
        [one] => Ok((*one).clone()),
        // A no ends it whatever it counts for.
        [one, ..] if matches!(says, Says::Deny { .. }) => Ok((*one).clone()),
        several => Err(NotYours::Which {
            person: name(),
            groups: several.iter().map(|own| (*own).clone()).collect(),
        }),
    }
}

/// Whether `person` neither answers for the agent nor started its run, which this user did.
fn is_somebody_else(
    person: &Person,
    agent: &AgentIdentity,
    (launcher, launcher_uid): (Option<&str>, Option<u32>),
) -> Result<(), NotYours> {
    if agent.owner.as_deref() == Some(person.name.as_str()) {
        return Err(NotYours::Owner(person.name.clone()));
    }
    if launcher == Some(person.name.as_str()) || launcher_uid == Some(person.uid) {
        return Err(NotYours::Starter(person.name.clone()));
    }
    Ok(())
}

/// Whether `person` may have brought back what a statement of `run` changed: whoever may approve something, and this.
pub fn may_undo(person: &Person, run: &Run) -> Result<(), NotYours> {
    if person.groups.is_empty() {
        return Err(NotYours::InNoGroup(person.name.clone()));
    }
    let uid = run.claims.get("launcher_uid").and_then(|uid| uid.parse().ok());
    is_somebody_else(person, &run.agent, (run.claims.get("launcher_user").map(String::as_str), uid))
}
