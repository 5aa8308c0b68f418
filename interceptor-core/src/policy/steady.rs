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
        // What it may see of the answer is asked with it, where there is anything to be hidden.
        let sees = facts.provenance.is_none() || self.steady.contains(&Verb::See);
        sees && facts.unknown.is_none()
            && facts.effects.iter().all(|effect| self.steady.contains(&effect.verb))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        inventory::{self, Inventory, Source},
        model::Target,
    };

    fn steady(rules: &str) -> Vec<Verb> {
        let source = |file: &str, text: &str| Source { file: file.to_owned(), text: text.to_owned() };
        let resources = source("resources.toml", "approvers = [\"dba\"]\n");
        let inventory: Inventory =
            inventory::load(&resources, &source("agents.toml", ""), &[]).expect("an inventory");
        let policy = Policy::load(&[source("p.cedar", rules)], &inventory);
        let policy = policy.unwrap_or_else(|faults| panic!("{faults:#?}"));
        let facts = |verb| StatementFacts::single(verb, Target::Resource);
        Verb::ALL.into_iter().filter(|verb| policy.is_steady(&facts(*verb))).collect()
    }

    #[test]
    fn facts_and_the_sessions_own_are_steady() {
        let all = steady(
            "@id(\"a\") permit (principal, action == Action::\"data.read\", resource)
             when { context.has_where && context.user == \"app\" && !(context.kind == Kind::\"copy\") };",
        );
        assert_eq!(all.len(), Verb::ALL.len());
    }

    #[test]
    fn a_rule_that_reads_more_makes_unsteady_what_it_may_decide() {
        for more in
            ["context.now < 5", "context.sha256 == \"x\"", "context.approvals.dba >= 1", "5 > context.now"]
        {
            let rule = |head: &str| {
                format!(
                    "@id(\"a\") forbid (principal, {head}, resource) when {{ context.has_where && {more} }};"
                )
            };
            let left = steady(&rule("action == Action::\"data.delete\""));
            assert!(!left.contains(&Verb::DataDelete) && left.contains(&Verb::DataRead), "{more}: {left:?}");
            let left = steady(&rule("action in Action::\"data\""));
            assert!(!left.contains(&Verb::DataRead) && left.contains(&Verb::Connect), "{more}: {left:?}");
            let left = steady(&rule("action in [Action::\"connect\", Action::\"data.read\"]"));
            assert!(!left.contains(&Verb::DataRead) && left.contains(&Verb::DataInsert), "{more}: {left:?}");
            assert_eq!(steady(&rule("action")), [], "{more}");
        }
    }

    #[test]
    fn what_is_not_understood_is_never_steady() {
        let policy = Policy::load(&[], &Inventory::default()).expect("an empty policy");
        assert!(!policy.is_steady(&StatementFacts::unknown("why")));
    }
}
