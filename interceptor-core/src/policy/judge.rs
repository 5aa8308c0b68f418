//! Judging a statement: one question per effect, and what the answers mean together.

use std::{borrow::Cow, collections::BTreeMap};

use cedar_policy::{Decision, Entities, Entity, Request};

use super::{Annotated, Asked, Policy, entities::Unaskable, explain};
use crate::{
    inventory::Person,
    mask::LabelSet,
    model::{Effect, Target, Verb},
    permit::{Judgement, Rule},
};

/// The number of approvals that is assumed to see whether approval could help.
const PLENTY: u32 = u32::MAX;

/// The answer to one question.
#[derive(Debug)]
pub(super) struct Answered<'p> {
    pub(super) effect: Effect,
    pub(super) allowed: bool,
    /// The rules that decided: permits when allowed, else forbids. Empty when nothing permitted it.
    pub(super) rules: Vec<&'p Annotated>,
    /// What went wrong in evaluating rules. Then it is not allowed.
    pub(super) errors: Vec<String>,
}

impl Policy {
    /// What policy says of a statement: all of its effects must be allowed.
    pub fn judge(&self, asked: &Asked<'_>) -> Judgement {
        let answers = match self.answers(asked, asked.approvals) {
            Ok(answers) => answers,
            Err(error) => return Judgement::Denied { rules: Vec::new(), reason: error.to_string() },
        };
        if answers.iter().all(|answer| answer.allowed) {
            return Judgement::Allowed { rules: rules(answers.iter()), reason: String::new() };
        }
        let approvers = self.approvers(asked, &answers);
        let refused = || answers.iter().filter(|answer| !answer.allowed);
        let rules = rules(refused());
        let reason = explain::reason(asked, refused(), &approvers);
        if approvers.is_empty() {
            Judgement::Denied { rules, reason }
        } else {
            Judgement::Held { rules, reason, approvers }
        }
    }

    /// Which labels of the resource are hidden in the answer: those that no rule lets the caller see, and those of
    /// which it cannot be told.
    pub fn hidden(&self, asked: &Asked<'_>) -> LabelSet {
        self.hidden_where(asked, super::entities::agent(&self.types, &asked.run.agent))
    }

    /// The same for `person`, who is shown the statement.
    pub fn hidden_from(&self, person: &Person, asked: &Asked<'_>) -> LabelSet {
        self.hidden_where(asked, super::entities::person(&self.types, person))
    }

    fn hidden_where(&self, asked: &Asked<'_>, sees: Result<Entity, Unaskable>) -> LabelSet {
        let Some(resource) = asked.resource else { return LabelSet::NONE };
        let labels = self.inventory.labels(resource);
        let effects: Vec<Effect> = labels
            .iter()
            .map(|label| Effect { verb: Verb::See, target: Target::Label(label.name.clone()) })
            .collect();
        match sees.and_then(|sees| self.answers_to(asked, &sees, asked.approvals, &effects)) {
            Ok(answers) => {
                let answers = answers.iter().enumerate().filter(|(_, answer)| !answer.allowed);
                answers.map(|(place, _)| LabelSet::of(place)).collect()
            }
            Err(_) => LabelSet::ALL,
        }
    }

    /// The groups whose approval would make every answer yes; none when nothing would.
    fn approvers(&self, asked: &Asked<'_>, answers: &[Answered<'_>]) -> Vec<String> {
        let mut groups = Vec::new();
        for answer in answers.iter().filter(|answer| !answer.allowed) {
            let holds = !answer.rules.is_empty()
                && answer.errors.is_empty()
                && answer.rules.iter().all(|rule| !rule.hold.is_empty());
            if !holds {
                return Vec::new();
            }
            for group in answer.rules.iter().flat_map(|rule| &rule.hold) {
                if !groups.contains(group) {
                    groups.push(group.clone());
                }
            }
        }
        let mut assumed = asked.approvals.clone();
        assumed.extend(groups.iter().map(|group| (group.clone(), PLENTY)));
        // All effects again: a rule may also grow stricter with an approval.
        match self.answers(asked, &assumed) {
            Ok(answers) if answers.iter().all(|answer| answer.allowed) => groups,
            _ => Vec::new(),
        }
    }

    /// The answer for each effect.
    pub(super) fn answers(
        &self,
        asked: &Asked<'_>,
        approvals: &BTreeMap<String, u32>,
    ) -> Result<Vec<Answered<'_>>, Unaskable> {
        let effects = effects(asked);
        if effects.is_empty() {
            return Err(Unaskable("the statement has no effect to judge".to_owned()));
        }
        let agent = super::entities::agent(&self.types, &asked.run.agent)?;
        self.answers_to(asked, &agent, approvals, &effects)
    }

    /// The answer for each of these, where `asking` asks.
    fn answers_to(
        &self,
        asked: &Asked<'_>,
        asking: &Entity,
        approvals: &BTreeMap<String, u32>,
        effects: &[Effect],
    ) -> Result<Vec<Answered<'_>>, Unaskable> {
        if effects.is_empty() {
            return Ok(Vec::new());
        }
        let context = self.context(asked, approvals)?;
        let mut answers = Vec::with_capacity(effects.len());
        for effect in effects {
            let (target, mut entities) = self.target(asked, &effect.target)?;
            let action = self
                .actions
                .get(effect.verb.as_str())
                .ok_or_else(|| Unaskable(format!("the schema has no action {}", effect.verb.as_str())))?;
            let request =
                Request::new(asking.uid(), action.uid(), target, context.clone(), Some(&self.schema))
                    .map_err(Unaskable::from)?;
            entities.extend([asking.clone(), action.clone()]);
            // The entities are our own and fit the schema by construction (a test checks each kind); checking them
            // here again would add every action of the schema to each question.
            let entities = Entities::from_entities(entities, None).map_err(Unaskable::from)?;
            let response = self.authorizer.is_authorized(&request, &self.set, &entities);
            let errors: Vec<_> = response.diagnostics().errors().map(ToString::to_string).collect();
            let mut rules: Vec<_> =
                response.diagnostics().reason().filter_map(|id| self.rules.get(id)).collect();
            rules.sort_by_key(|rule| (&rule.rule.file, rule.rule.line));
            answers.push(Answered {
                effect: effect.clone(),
                allowed: response.decision() == Decision::Allow && errors.is_empty(),
                rules,
                errors,
            });
        }
        Ok(answers)
    }
}

/// The effects to ask about. Facts that say they are not complete are unknown, whatever they list.
fn effects<'a>(asked: &Asked<'a>) -> Cow<'a, [Effect]> {
    let facts = &asked.action.facts;
    if facts.unknown.is_none() || facts.effects.iter().any(|effect| effect.verb == Verb::Unknown) {
        return Cow::Borrowed(&facts.effects);
    }
    let mut effects = facts.effects.clone();
    effects.push(Effect { verb: Verb::Unknown, target: Target::Resource });
    Cow::Owned(effects)
}

/// The rules of some answers, each once. An answer that failed names the rules that would have permitted it, which
/// are not the reason.
fn rules<'a>(answers: impl Iterator<Item = &'a Answered<'a>>) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for answer in answers {
        for annotated in answer.rules.iter().filter(|rule| rule.permits == answer.allowed) {
            if !rules.contains(&annotated.rule) {
                rules.push(annotated.rule.clone());
            }
        }
    }
    // A session remembers them with each of its answers.
    rules.shrink_to_fit();
    rules
}
