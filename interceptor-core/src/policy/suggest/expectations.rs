//! The table of expected verdicts that goes with suggested rules: that each does what it is for, and that what could
//! not be understood stays refused.

use std::fmt::Write as _;

use super::{Class, Group, Head};
use crate::{
    inventory::Source,
    model::{Image, RecordId, Verb},
    policy::{Policy, expect},
    sql::Dialect,
};

/// One `[[expect]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Case {
    /// The database that its names are of; empty where it has none.
    pub(super) database: String,
    /// The first record that it rests on.
    pub(super) first: RecordId,
    /// The entry.
    pub(super) text: String,
}

impl Case {
    /// Whether the policy gives the verdict that the entry expects.
    pub(super) fn holds(&self, policy: &Policy) -> bool {
        let table = Source { file: String::new(), text: heading(&self.database) + &self.text };
        let unread = |_: &expect::Catalogue, _: Dialect, _: &str| Vec::new();
        matches!(expect::run(policy, &table, &unread), Ok(results)
            if !results.is_empty() && results.iter().all(|result| result.passed))
    }
}

/// How a table begins.
pub(super) fn heading(database: &str) -> String {
    format!("[catalogue]\ndatabase = {}\n", text(database))
}

/// What a rule for these objects leads to.
pub(super) fn cases(id: &str, head: &Head, group: &Group<'_>) -> Vec<Case> {
    let Some(&first) = group.records.first() else { return Vec::new() };
    let database = match &head.class {
        Class::Table { database, .. } | Class::Function { database, .. } => database.clone(),
        Class::Resource
        | Class::Object { .. }
        | Class::Setting
        | Class::Name
        | Class::Label
        | Class::Program { .. }
        | Class::Image { .. } => String::new(),
    };
    let entry = |text| Case { database: database.clone(), first, text };
    let mut cases = Vec::new();
    for verb in &group.verbs {
        for name in &group.names {
            let on = on(&head.class, name).map(|on| format!("on = {{ {on} }}\n")).unwrap_or_default();
            let verdict = format!("{on}verdict = \"allow\"\nrule = \"{id}\"\n");
            cases.push(entry(case(head, *verb, &verdict)));
        }
    }
    if head.class == Class::Resource {
        cases.push(entry(case(head, Verb::Unknown, "verdict = \"deny\"\n")));
    }
    cases
}

fn case(head: &Head, verb: Verb, rest: &str) -> String {
    let mut entry = format!("\n[[expect]]\nagent = {}\n", text(head.agent.as_str()));
    if let Some(resource) = &head.resource {
        let _ = writeln!(entry, "resource = {}", text(resource.as_str()));
    }
    let _ = write!(entry, "action = \"{}\"\n{rest}", verb.as_str());
    entry
}

/// The target in a table's words.
fn on(class: &Class, name: &str) -> Option<String> {
    let qualified = |schema: &str| text(&format!("{schema}.{name}"));
    match class {
        Class::Resource => None,
        Class::Table { schema, .. } => Some(format!("table = {}", qualified(schema))),
        Class::Function { schema, .. } => Some(format!("function = {}", qualified(schema))),
        Class::Object { kind } => Some(format!("object = {}", text(&format!("{kind} {name}")))),
        Class::Setting => Some(format!("setting = {}", text(name))),
        Class::Name => Some(format!("name = {}", text(name))),
        Class::Label => Some(format!("label = {}", text(name))),
        Class::Program { user, capabilities, profile } => {
            let kept: Vec<_> = capabilities.iter().map(|name| text(name)).collect();
            let (path, user, kept) = (text(name), text(user), kept.join(", "));
            let profile = text(profile);
            Some(format!(
                "program = {{ path = {path}, user = {user}, capabilities = [{kept}], profile = {profile} }}"
            ))
        }
        Class::Image { registry, repository } => {
            let (registry, repository) = (registry.clone(), repository.clone());
            let image = Image { registry, repository, reference: name.to_owned() };
            Some(format!("image = {}", text(&image.to_string())))
        }
    }
}

fn text(text: &str) -> String {
    toml::Value::from(text).to_string()
}
