//! What a rule's own text says, read from its syntax: which actions it can permit, and what its condition rests on.

use std::collections::{BTreeSet, HashSet};

use cedar_policy::{ActionConstraint, EntityUid, Policy as CedarPolicy};
use serde_json::Value;

use crate::model::Verb;

/// Why a permit would let through what nobody understood, if it would.
///
/// Such a permit must name [`Verb::Unknown`], and rest on an exact text with an expiry, or on an approval.
pub(super) fn permits_unknown_too_widely(policy: &CedarPolicy) -> Option<&'static str> {
    let unknown = |action: &EntityUid| action.id().unescaped() == Verb::Unknown.as_str();
    let named = match policy.action_constraint() {
        ActionConstraint::Any => {
            return Some(
                "a permit for every action also permits what could not be understood; \
                 list the actions: `action in [Action::\"connect\", Action::\"data.read\"]`",
            );
        }
        ActionConstraint::In(actions) => actions.iter().any(unknown),
        ActionConstraint::Eq(action) => unknown(&action),
    };
    if !named {
        return None;
    }
    let conditions = Conditions::of(policy);
    let by_hash = conditions.compares("==", "sha256") && conditions.expires();
    (!by_hash && !conditions.approved()).then_some(
        "a permit for Action::\"unknown\" must rest on an exact text with an expiry, \
         `when { context.sha256 == \"...\" && context.now < SECONDS }`, or on an approval, \
         `when { context.approvals.GROUP >= 1 }`",
    )
}

/// What must all hold for a rule to apply, as Cedar's JSON spells it.
pub(super) struct Conditions {
    conjuncts: Vec<Value>,
    everything: Value,
}

impl Conditions {
    pub(super) fn of(policy: &CedarPolicy) -> Self {
        let json = policy.to_json().unwrap_or_default();
        let everything = json.get("conditions").cloned().unwrap_or_default();
        let mut conjuncts = Vec::new();
        for condition in everything.as_array().into_iter().flatten() {
            if condition.get("kind").and_then(Value::as_str) == Some("when") {
                flatten(condition.get("body"), &mut conjuncts);
            }
        }
        Self { conjuncts, everything }
    }

    /// Whether it can apply only where `context.ATTRIBUTE` stands in that relation to a literal.
    fn compares(&self, operator: &str, attribute: &str) -> bool {
        self.conjuncts.iter().any(|conjunct| {
            let sides = conjunct.get(operator);
            let side = |name| sides.and_then(|sides| sides.get(name));
            let (left, right) = (side("left"), side("right"));
            (is_attribute(left, attribute) && is_literal(right))
                || (operator == "==" && is_literal(left) && is_attribute(right, attribute))
        })
    }

    fn expires(&self) -> bool {
        self.compares("<", "now") || self.compares("<=", "now")
    }

    fn approved(&self) -> bool {
        self.conjuncts.iter().any(|conjunct| {
            let sides = conjunct.get(">=");
            let group = sides.and_then(|sides| sides.get("left")).and_then(|left| left.get("."));
            let least = sides.and_then(|sides| sides.pointer("/right/Value")).and_then(Value::as_i64);
            is_attribute(group.and_then(|group| group.get("left")), "approvals")
                && least.is_some_and(|least| least >= 1)
        })
    }

    /// The attributes of the context that its condition reads anywhere.
    pub(super) fn reads(&self) -> Vec<String> {
        let mut attributes = Vec::new();
        collect(&self.everything, &mut attributes);
        attributes
    }
}

/// The attributes of the context that a rule's condition reads; `None` where that cannot be told.
pub(super) fn context_reads(policy: &CedarPolicy) -> Option<BTreeSet<String>> {
    let json = policy.to_json().ok()?;
    let mut attributes = BTreeSet::new();
    reads_by_name(json.get("conditions")?, &mut attributes).then_some(attributes)
}

/// Adds the attributes of the context that are read by name; false where the context itself is used.
fn reads_by_name(value: &Value, attributes: &mut BTreeSet<String>) -> bool {
    match value {
        Value::Object(fields) => {
            let read = fields.get(".").or_else(|| fields.get("has")).filter(|_| fields.len() == 1);
            let of_context =
                read.filter(|read| read.pointer("/left/Var").and_then(Value::as_str) == Some("context"));
            if let Some(attribute) = of_context.and_then(|read| read.get("attr")).and_then(Value::as_str) {
                attributes.insert(attribute.to_owned());
                return true;
            }
            fields.get("Var").and_then(Value::as_str) != Some("context")
                && fields.values().all(|field| reads_by_name(field, attributes))
        }
        Value::Array(list) => list.iter().all(|entry| reads_by_name(entry, attributes)),
        _ => true,
    }
}

/// Whether a rule can apply to `action`, which is in `groups`, by its head alone.
pub(super) fn may_apply(policy: &CedarPolicy, action: &EntityUid, groups: &HashSet<EntityUid>) -> bool {
    let covers = |named: &EntityUid| named == action || groups.contains(named);
    match policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::In(actions) => actions.iter().any(covers),
        ActionConstraint::Eq(named) => covers(&named),
    }
}

fn flatten(body: Option<&Value>, conjuncts: &mut Vec<Value>) {
    let Some(body) = body else { return };
    match body.get("&&") {
        Some(sides) => {
            flatten(sides.get("left"), conjuncts);
            flatten(sides.get("right"), conjuncts);
        }
        None => conjuncts.push(body.clone()),
    }
}

fn is_literal(value: Option<&Value>) -> bool {
    value.is_some_and(|value| value.get("Value").is_some())
}

fn is_attribute(value: Option<&Value>, attribute: &str) -> bool {
    let access = value.and_then(|value| value.get("."));
    let of_context =
        access.and_then(|access| access.pointer("/left/Var")).and_then(Value::as_str) == Some("context");
    of_context && access.and_then(|access| access.get("attr")).and_then(Value::as_str) == Some(attribute)
}

fn collect(value: &Value, attributes: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let of_context = value.pointer("/./left/Var").and_then(Value::as_str) == Some("context");
            if let (true, Some(attribute)) = (of_context, value.pointer("/./attr").and_then(Value::as_str)) {
                attributes.push(attribute.to_owned());
            }
            fields.values().for_each(|field| collect(field, attributes));
        }
        Value::Array(list) => list.iter().for_each(|entry| collect(entry, attributes)),
        _ => {}
    }
}
