//! Reads a policy folder, and lists everything that is wrong with it.

use std::collections::HashMap;

use cedar_policy::{
    Authorizer, Entities, Entity, EntityUid, Policy as CedarPolicy, PolicyId, PolicySet, ValidationMode,
    Validator,
};
use miette::Diagnostic;
use sha2::{Digest, Sha256};

use super::{Annotated, LoadError, Policy, Thresholds, annotations, entities, schema, shape, split};
use crate::{
    inventory::{Fault, Inventory, Source},
    model::Verb,
};

/// The most rules in one policy.
const MOST_RULES: usize = 10_000;

impl Policy {
    /// Checks and loads the `.cedar` files of a folder. Either every rule is right, or all that is wrong is listed,
    /// in the order of files and lines.
    pub fn load(sources: &[Source], inventory: &Inventory) -> Result<Self, Vec<Fault>> {
        let start =
            || -> Result<_, LoadError> { Ok((schema::build(&inventory.approvers)?, schema::Types::new()?)) };
        let (schema, types) = start().map_err(|error| vec![whole("", &error.to_string())])?;
        let actions = actions(&schema).map_err(|error| vec![whole("", &error.to_string())])?;

        let mut loading = Loading {
            inventory,
            set: PolicySet::new(),
            rules: HashMap::new(),
            thresholds: Thresholds::default(),
            faults: Vec::new(),
        };
        for source in sources {
            loading.file(source);
        }
        let warnings = loading.validate(&schema);
        let Loading { set, rules, thresholds, mut faults, .. } = loading;
        if !faults.is_empty() {
            faults.sort();
            faults.dedup();
            return Err(faults);
        }
        let resources = inventory
            .resources
            .values()
            .filter_map(|resource| Some((resource.name.clone(), entities::resource(&types, resource).ok()?)))
            .collect();
        Ok(Self {
            set,
            schema,
            authorizer: Authorizer::new(),
            types,
            actions,
            resources,
            rules,
            thresholds,
            warnings,
            inventory: inventory.clone(),
            hash: hash(sources, inventory),
        })
    }
}

fn whole(file: &str, message: &str) -> Fault {
    Fault { file: file.to_owned(), line: 0, message: message.to_owned() }
}

/// Every action as an entity that knows all groups it is in, so that no question has to work them out.
fn actions(schema: &cedar_policy::Schema) -> Result<HashMap<&'static str, Entity>, LoadError> {
    let wrong = |error: &dyn std::fmt::Display| LoadError::Schema(error.to_string());
    let all: Entities = schema.action_entities().map_err(|error| wrong(&error))?;
    let mut actions = HashMap::new();
    for verb in Verb::ALL {
        let uid: EntityUid =
            format!("Action::\"{}\"", verb.as_str()).parse().map_err(|error| wrong(&error))?;
        let groups = all.ancestors(&uid).ok_or_else(|| wrong(&format!("no action {uid}")))?;
        let entity = Entity::new_no_attrs(uid.clone(), groups.cloned().collect());
        actions.insert(verb.as_str(), entity);
    }
    Ok(actions)
}

fn hash(sources: &[Source], inventory: &Inventory) -> String {
    let mut hash = Sha256::new();
    hash.update(schema::SCHEMA_VERSION.to_be_bytes());
    hash.update(inventory.digest);
    for source in sources {
        for text in [&source.file, &source.text] {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text.as_bytes());
        }
    }
    format!("{:x}", hash.finalize())
}

struct Loading<'a> {
    inventory: &'a Inventory,
    set: PolicySet,
    rules: HashMap<PolicyId, Annotated>,
    thresholds: Thresholds,
    faults: Vec<Fault>,
}

impl Loading<'_> {
    fn file(&mut self, source: &Source) {
        let (slices, unreadable) = split::rules(&source.text);
        for (at, message) in unreadable {
            self.fault(source, at, message);
        }
        for slice in slices {
            match CedarPolicy::parse(None, slice.text) {
                Ok(policy) => {
                    self.thresholds(source, slice.start, slice.text, &policy);
                    self.rule(source, slice.start, &policy);
                }
                Err(errors) => {
                    for error in errors.iter() {
                        let at = slice.start + offset(error).unwrap_or(0);
                        let help = error.help().map(|help| format!("; {help}")).unwrap_or_default();
                        self.fault(source, at, format!("{error}{help}"));
                    }
                }
            }
        }
    }

    fn thresholds(&mut self, source: &Source, at: usize, text: &str, policy: &CedarPolicy) {
        // An attribute may be spelt with escapes.
        if (text.contains("spent") || text.contains('\\'))
            && let Some(message) = self.thresholds.add(policy)
        {
            self.fault(source, at, message);
        }
    }

    fn rule(&mut self, source: &Source, at: usize, policy: &CedarPolicy) {
        let mut wrong = Vec::new();
        let line = line(&source.text, at);
        let annotated = annotations::read(policy, &source.file, line, self.inventory, &mut wrong);
        if annotated.permits {
            wrong.extend(shape::permits_unknown_too_widely(policy).map(str::to_owned));
        }
        let id = PolicyId::new(&annotated.rule.id);
        if let Some(other) = self.rules.get(&id).filter(|_| !annotated.rule.id.is_empty()) {
            let Annotated { rule, .. } = other;
            wrong.push(format!("`@id(\"{}\")` stands already at {}:{}", rule.id, rule.file, rule.line));
        } else if self.rules.len() >= MOST_RULES {
            wrong.push(format!("more than {MOST_RULES} rules"));
        } else if !annotated.rule.id.is_empty() {
            if let Err(error) = self.set.add(policy.new_id(id.clone())) {
                wrong.push(error.to_string());
            }
            self.rules.insert(id, annotated);
        }
        for message in wrong {
            self.fault(source, at, message);
        }
    }

    fn fault(&mut self, source: &Source, at: usize, message: impl Into<String>) {
        let line = line(&source.text, at);
        self.faults.push(Fault { file: source.file.clone(), line, message: message.into() });
    }

    /// Every rule against the schema, strictly; what is odd but not wrong comes back.
    fn validate(&mut self, schema: &cedar_policy::Schema) -> Vec<Fault> {
        let result = Validator::new(schema.clone()).validate(&self.set, ValidationMode::Strict);
        let place = |id: &PolicyId, error: &dyn Diagnostic, rules: &HashMap<PolicyId, Annotated>| {
            let help = error.help().map(|help| format!("; {help}")).unwrap_or_default();
            let message = error.to_string().replace(&format!("for policy `{id}`, "), "");
            let message = only_some_have_it(&message).unwrap_or(message + &help);
            let (file, line) = rules
                .get(id)
                .map(|annotated| (annotated.rule.file.clone(), annotated.rule.line))
                .unwrap_or_default();
            Fault { file, line, message: format!("rule `{id}`: {message}") }
        };
        for error in result.validation_errors() {
            self.faults.push(place(error.policy_id(), error, &self.rules));
        }
        result.validation_warnings().map(|warning| place(warning.policy_id(), warning, &self.rules)).collect()
    }
}

/// Attributes that some of the schema's objects have and others have not.
const ATTRIBUTES_OF_SOME: [&str; 6] = ["schema", "database", "system", "kind", "protocol", "inventory"];

/// One clear message for an attribute that a rule reads of objects which may not have it.
fn only_some_have_it(message: &str) -> Option<String> {
    let rest = message.strip_prefix("attribute `")?;
    let (attribute, rest) = rest.split_once('`')?;
    (rest.starts_with(" on entity type") && ATTRIBUTES_OF_SOME.contains(&attribute)).then(|| {
        format!(
            "not everything that this rule is about has `{attribute}`; say what is meant, such as \
             `resource is Table in Resource::\"...\"`, in the rule's head"
        )
    })
}

fn offset(error: &dyn Diagnostic) -> Option<usize> {
    error.labels().and_then(|mut labels| labels.next()).map(|label| label.offset())
}

/// The line of a byte, from 1.
pub(super) fn line(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}
