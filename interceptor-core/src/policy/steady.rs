//! Which answers stay the same: those for which every rule that may take part reads nothing but what a session and the
//! facts of its statement determine. Only such a yes may be given again without asking.
//!
//! Promise: what is not known to be steady is not. An attribute that is new in the schema is unsteady until it is
//! listed here.

use std::collections::{HashMap, HashSet};

use cedar_policy::{Entity, Policy as CedarPolicy, PolicySet};

use super::{Policy, shape};
use crate::model::{StatementFacts, Verb};

/// Attributes of the context that are the same whenever one session does the same thing. Not here: the text's hash,
/// the time, approvals.
const STEADY: [&str; 14] = [
    "phase",
    "kind",
    "parsed",
    "statements",
    "has_where",
    "has_limit",
    "database",
    "user",
    "env",
    "guarantee",
    "mode",
    "launcher_user",
    "executable",
    "argv0",
];

/// The verbs whose every rule is steady.
pub(super) fn verbs(set: &PolicySet, actions: &HashMap<&'static str, Entity>) -> HashSet<Verb> {
    let unsteady: Vec<&CedarPolicy> = set.policies().filter(|rule| !is_steady(rule)).collect();
    let steady = |verb: &Verb| {
        actions.get(verb.as_str()).is_some_and(|action| {
            let (uid, _, groups) = action.clone().into_inner();
            !unsteady.iter().any(|rule| shape::may_apply(rule, &uid, &groups))
        })
    };
    Verb::ALL.into_iter().filter(steady).collect()
}

fn is_steady(rule: &CedarPolicy) -> bool {
    shape::context_reads(rule)
        .is_some_and(|reads| reads.iter().all(|attribute| STEADY.contains(&attribute.as_str())))
}

impl Policy {
    /// Whether a yes to a statement with these facts is a yes to every other with the same, of the same session, in
    /// the same phase and alone in its frame.
    pub fn is_steady(&self, facts: &StatementFacts) -> bool {
        facts.unknown.is_none() && facts.effects.iter().all(|effect| self.steady.contains(&effect.verb))
    }
}
