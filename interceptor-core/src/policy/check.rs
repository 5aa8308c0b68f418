//! What is not wrong in a policy, but odd enough to tell: rules that can never apply, and permits that rest on what
//! a process says of itself.

use cedar_policy::{EntityUid, Policy as CedarPolicy, PrincipalConstraint};

use super::{Annotated, Policy, shape::Conditions};
use crate::{
    inventory::{Fault, NO_ENV},
    model::AgentName,
};

/// What the process itself says.
const HINTS: [&str; 2] = ["executable", "argv0"];

impl Policy {
    /// Everything that `policy check` warns of, in the order of files and lines.
    pub fn warnings(&self) -> Vec<Fault> {
        let mut warnings = self.warnings.clone();
        for policy in self.set.policies() {
            let Some(annotated) = self.rules.get(policy.id()) else { continue };
            let mut literals = policy.entity_literals();
            literals.sort();
            literals.dedup();
            let unknown = literals.iter().filter_map(|literal| self.unknown_name(literal));
            warnings
                .extend(unknown.chain(self.rests_on_hints(policy)).map(|message| at(annotated, &message)));
        }
        warnings.sort();
        warnings
    }

    /// The rules that read any of these attributes of the context, in the order of files and lines.
    pub fn reading(&self, attributes: &[&str]) -> Vec<&Annotated> {
        let reads = |policy: &CedarPolicy| {
            Conditions::of(policy).reads().iter().any(|read| attributes.contains(&read.as_str()))
        };
        let reading = self.set.policies().filter(|policy| reads(policy));
        let mut rules: Vec<_> = reading.filter_map(|policy| self.rules.get(policy.id())).collect();
        rules.sort_by_key(|rule| (&rule.rule.file, rule.rule.line));
        rules
    }

    /// A name in a rule that nothing in the inventory has: what is said of it never applies.
    fn unknown_name(&self, literal: &EntityUid) -> Option<String> {
        let (agents, resources) = (&self.inventory.agents, &self.inventory.resources);
        let of = literal.type_name();
        let name: &str = literal.id().unescaped();
        let (word, known) = if *of == self.types.agent {
            (
                "agent",
                name == AgentName::unknown().as_str() || agents.keys().any(|known| known.as_str() == name),
            )
        } else if *of == self.types.group {
            ("group", agents.values().any(|agent| agent.groups.iter().any(|group| group == name)))
        } else if *of == self.types.resource {
            ("resource", resources.keys().any(|known| known.as_str() == name))
        } else if *of == self.types.env {
            ("env", name == NO_ENV || resources.values().any(|known| known.env.as_deref() == Some(name)))
        } else {
            return None;
        };
        (!known)
            .then(|| format!("no {word} `{name}` in resources.toml or agents.toml: this part never applies"))
    }

    /// A permit that anybody could reach by calling a program by another name.
    fn rests_on_hints(&self, policy: &CedarPolicy) -> Option<String> {
        let annotated = self.rules.get(policy.id()).filter(|annotated| annotated.permits)?;
        let agents = self.permitted_agents(policy);
        let anybody = agents.is_none();
        let read = Conditions::of(policy).reads();
        if let Some(hint) = read.iter().find(|attribute| HINTS.contains(&attribute.as_str()))
            && anybody
        {
            return Some(format!(
                "permit `{}` rests only on a hint: any process can choose its `{hint}`; name an agent or a group",
                annotated.rule.id
            ));
        }
        let hinted = agents?.into_iter().find(|name| {
            let agent = self.inventory.agents.get(name);
            agent.is_some_and(|agent| agent.hints.iter().any(|hint| hint.user.is_none()))
        })?;
        Some(format!(
            "permit `{}` rests only on a hint: `{hinted}` is recognised by executable or argv alone; \
             add `user` to its hints, or launch it by name",
            annotated.rule.id
        ))
    }

    /// The agents that a rule's scope names; `None` when it names none, or the unknown one.
    fn permitted_agents(&self, policy: &CedarPolicy) -> Option<Vec<AgentName>> {
        let scope = match policy.principal_constraint() {
            PrincipalConstraint::Eq(uid)
            | PrincipalConstraint::In(uid)
            | PrincipalConstraint::IsIn(_, uid) => uid,
            PrincipalConstraint::Any | PrincipalConstraint::Is(_) => return None,
        };
        let name: &str = scope.id().unescaped();
        if *scope.type_name() == self.types.group {
            let members =
                self.inventory.agents.values().filter(|agent| agent.groups.iter().any(|g| g == name));
            return Some(members.map(|agent| agent.name.clone()).collect());
        }
        name.parse().ok().filter(|agent| *agent != AgentName::unknown()).map(|agent| vec![agent])
    }
}

fn at(annotated: &Annotated, message: &str) -> Fault {
    Fault { file: annotated.rule.file.clone(), line: annotated.rule.line, message: message.to_owned() }
}
