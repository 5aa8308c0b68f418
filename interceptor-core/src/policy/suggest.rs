//! The least rules that would permit what was recorded, and the verdicts that they lead to.
//!
//! Promises: nothing is proposed beyond the very objects that were seen; nothing that was not understood, and nothing
//! that a rule forbids, is ever proposed; what is left out is said. A statement counts whole or not at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use super::{Policy, explain::literal, past::Past};
use crate::model::{AgentName, Object, RecordId, RequestRecord, ResourceName, Spent, Target, Verb};

mod expectations;
#[cfg(test)]
mod tests;

/// A rule is limited to 16 KiB; the names in one are far below it.
const MOST_NAMES: usize = 4 * 1024;
/// The width that rules are written to, in characters.
const WIDTH: usize = 100;
/// What an operator should look at twice before permitting it.
const GRAVE: [Verb; 7] = [
    Verb::ServerReach,
    Verb::AccessChange,
    Verb::Pass,
    Verb::SchemaDrop,
    Verb::DataTruncate,
    Verb::LabelCopy,
    Verb::Pull,
];

/// Gathers what records need beyond what a policy permits already.
#[derive(Debug)]
pub struct Suggest<'p> {
    policy: &'p Policy,
    needs: BTreeMap<Head, BTreeMap<String, BTreeMap<Verb, Vec<RecordId>>>>,
    permitted: u64,
    left_out: BTreeMap<String, LeftOut>,
}

/// Rules, and what they rest on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Suggestion {
    /// The rules, as a Cedar file; empty where none is needed.
    pub rules: String,
    /// Tables of expected verdicts for these rules, by database.
    pub expectations: BTreeMap<String, String>,
    /// How many rules there are.
    pub count: usize,
    /// Records that are permitted already.
    pub permitted: u64,
    /// Records, or parts of the tables, that were left out, by reason.
    pub left_out: BTreeMap<String, LeftOut>,
    cases: Vec<expectations::Case>,
}

/// How many records were left out, and the first of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct LeftOut {
    /// How many.
    pub records: u64,
    /// The first.
    pub first: RecordId,
}

/// What the objects of one rule have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    agent: AgentName,
    resource: Option<ResourceName>,
    class: Class,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Resource,
    Table { database: String, schema: String },
    Function { database: String, schema: String },
    Object { kind: String },
    Setting,
    Name,
    Label,
    Program { user: String, capabilities: BTreeSet<String>, profile: String },
    Image { registry: String, repository: String },
}

impl Class {
    fn of(target: &Target) -> (Self, String) {
        let place = |object: &Object| (object.database.clone(), object.schema.clone());
        match target {
            Target::Resource => (Self::Resource, String::new()),
            Target::Table(object) => {
                let (database, schema) = place(object);
                (Self::Table { database, schema }, object.name.clone())
            }
            Target::Function(object) => {
                let (database, schema) = place(object);
                (Self::Function { database, schema }, object.name.clone())
            }
            Target::Other { kind, name } => (Self::Object { kind: kind.clone() }, name.clone()),
            Target::Setting(name) => (Self::Setting, name.clone()),
            Target::Name(name) => (Self::Name, name.clone()),
            Target::Label(name) => (Self::Label, name.clone()),
            Target::Program(program) => {
                let (user, capabilities) = (program.user.clone(), program.capabilities.clone());
                let profile = program.profile.clone();
                (Self::Program { user, capabilities, profile }, program.path.clone())
            }
            Target::Image(image) => {
                let (registry, repository) = (image.registry.clone(), image.repository.clone());
                (Self::Image { registry, repository }, image.reference.clone())
            }
        }
    }

    /// What the class is called in a rule's name.
    fn word(&self) -> String {
        match self {
            Self::Resource => "sessions".to_owned(),
            Self::Table { schema, .. } => format!("{schema}-tables"),
            Self::Function { schema, .. } => format!("{schema}-functions"),
            Self::Object { kind } => format!("{kind}-objects"),
            Self::Setting => "settings".to_owned(),
            Self::Name => "names".to_owned(),
            Self::Label => "labels".to_owned(),
            Self::Program { .. } => "programs".to_owned(),
            Self::Image { .. } => "images".to_owned(),
        }
    }
}

impl<'p> Suggest<'p> {
    /// Nothing seen yet; `policy` is what the suggestion adds to.
    pub fn new(policy: &'p Policy) -> Self {
        Self { policy, needs: BTreeMap::new(), permitted: 0, left_out: BTreeMap::new() }
    }

    /// Leaves a record out, for a reason in words.
    pub fn leave_out(&mut self, id: RecordId, reason: impl Into<String>) {
        self.left_out.entry(reason.into()).or_insert(LeftOut { records: 0, first: id }).records += 1;
    }

    /// Takes a record into account.
    pub fn see(&mut self, id: RecordId, request: &RequestRecord) {
        if !super::replay::was_judged(&request.verdict) {
            return self.leave_out(id, "policy is not asked about it");
        }
        let facts = &request.action.facts;
        if facts.unknown.is_some() || facts.effects.iter().any(|effect| effect.verb == Verb::Unknown) {
            return self.leave_out(id, "not understood, which is never permitted by a suggestion");
        }
        let past = Past::new(self.policy, request, Spent::default());
        let asked = past.asked();
        let answers = match self.policy.answers(&asked, asked.approvals) {
            Ok(answers) => answers,
            Err(error) => return self.leave_out(id, error.to_string()),
        };
        let mut missing = Vec::new();
        for answer in answers.iter().filter(|answer| !answer.allowed) {
            if !answer.errors.is_empty() {
                return self.leave_out(id, "a rule fails on it, which means no");
            }
            if let Some(rule) = answer.rules.first() {
                let rule = &rule.rule;
                let reason = format!("forbidden by `{}` ({}:{})", rule.id, rule.file, rule.line);
                return self.leave_out(id, reason);
            }
            missing.push(&answer.effect);
        }
        if missing.is_empty() {
            self.permitted += 1;
            return;
        }
        for effect in missing {
            let (class, name) = Class::of(&effect.target);
            let resource = request.resource.clone().filter(|_| class != Class::Name);
            let head = Head { agent: asked.run.agent.name.clone(), resource, class };
            let verbs = self.needs.entry(head).or_default().entry(name).or_default();
            let records = verbs.entry(effect.verb).or_default();
            if records.last() != Some(&id) {
                records.push(id);
            }
        }
    }

    /// The rules that all of it needs.
    pub fn finish(self) -> Suggestion {
        let mut suggestion =
            Suggestion { permitted: self.permitted, left_out: self.left_out, ..Suggestion::default() };
        let mut taken: BTreeSet<String> =
            self.policy.rules().iter().map(|rule| rule.rule.id.clone()).collect();
        for (head, names) in &self.needs {
            for group in groups(names) {
                let id = fresh(&mut taken, head);
                suggestion.rules.push_str(&rule(&id, head, &group));
                suggestion.cases.extend(expectations::cases(&id, head, &group));
                suggestion.count += 1;
            }
        }
        suggestion
    }
}

impl Suggestion {
    /// Writes the tables of expected verdicts: those that `policy`, which the rules are part of, does give. The others
    /// are left out, since another rule of it refuses them in the circumstances of a table.
    pub fn prove(&mut self, policy: &Policy) {
        let cases = std::mem::take(&mut self.cases);
        let named = cases.iter().map(|case| case.database.clone()).find(|database| !database.is_empty());
        let database = named.unwrap_or_else(|| super::expect::Catalogue::default().database);
        for mut case in cases {
            if case.database.is_empty() {
                case.database.clone_from(&database);
            }
            if case.holds(policy) {
                let table = self.expectations.entry(case.database.clone());
                let table = table.or_insert_with(|| expectations::heading(&case.database));
                table.push_str(&case.text);
            } else {
                let reason = "no expected verdict, because another rule refuses it to a table's agent";
                let first = case.first;
                let left = self.left_out.entry(reason.to_owned());
                left.or_insert(LeftOut { records: 0, first }).records += 1;
            }
        }
    }
}

/// Objects that need the same verbs.
struct Group<'a> {
    verbs: Vec<Verb>,
    names: Vec<&'a str>,
    /// The records that need any of it, each once, in order.
    records: Vec<RecordId>,
}

/// Objects with the same verbs together, cut where a rule would become too long.
fn groups(names: &BTreeMap<String, BTreeMap<Verb, Vec<RecordId>>>) -> Vec<Group<'_>> {
    let mut by_verbs: BTreeMap<Vec<Verb>, Vec<Group<'_>>> = BTreeMap::new();
    for (name, needs) in names {
        let verbs: Vec<Verb> = needs.keys().copied().collect();
        let groups = by_verbs.entry(verbs.clone()).or_default();
        let length =
            |group: &Group<'_>| -> usize { group.names.iter().map(|name| literal(name).len() + 2).sum() };
        if groups.last().is_none_or(|last| length(last) + literal(name).len() > MOST_NAMES) {
            groups.push(Group { verbs, names: Vec::new(), records: Vec::new() });
        }
        if let Some(group) = groups.last_mut() {
            group.names.push(name);
            group.records.extend(needs.values().flatten());
        }
    }
    let mut groups: Vec<_> = by_verbs.into_values().flatten().collect();
    for group in &mut groups {
        group.records.sort();
        group.records.dedup();
    }
    groups
}

/// A name for a rule that no other has.
fn fresh(taken: &mut BTreeSet<String>, head: &Head) -> String {
    /// The longest name of a rule, less a number behind it.
    const LONGEST: usize = 56;
    let resource = head.resource.as_ref().map(|name| format!("{name}-")).unwrap_or_default();
    let name: String = format!("{}-{resource}{}", head.agent, head.class.word())
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' })
        .take(LONGEST)
        .collect();
    let mut id = name.clone();
    let mut number = 1_u32;
    while !taken.insert(id.clone()) {
        number = number.saturating_add(1);
        id = format!("{name}-{number}");
    }
    id
}

fn rule(id: &str, head: &Head, group: &Group<'_>) -> String {
    let mut text = rests_on(&group.records);
    if let Some(grave) = group.verbs.iter().find(|verb| GRAVE.contains(verb)) {
        let _ = writeln!(text, "// Look twice: {}.", grave.as_str());
    }
    if head.agent == AgentName::unknown() {
        text.push_str("// Look twice: `unknown` is everybody whom agents.toml does not know.\n");
    }
    let verbs: Vec<_> = group.verbs.iter().map(|verb| format!("Action::\"{}\"", verb.as_str())).collect();
    let action = match verbs.as_slice() {
        [one] => format!("action == {one}"),
        several => format!("action in {}", list(several, "  ")),
    };
    let _ = write!(
        text,
        "@id(\"{id}\")\npermit (\n  principal == Agent::\"{}\",\n  {action},\n  {}\n)",
        head.agent,
        scope(head)
    );
    let conditions = conditions(head, &group.names);
    if !conditions.is_empty() {
        let _ = write!(text, "\nwhen {{\n  {}\n}}", conditions.join(" &&\n  "));
    }
    text.push_str(";\n\n");
    text
}

fn rests_on(records: &[RecordId]) -> String {
    match records {
        [] => String::new(),
        [one] => format!("// 1 record: {one}.\n"),
        [first, .., last] => format!("// {} records, from {first} to {last}.\n", records.len()),
    }
}

fn scope(head: &Head) -> String {
    let inside = head.resource.as_ref().map(|name| format!("Resource::{}", literal(name.as_str())));
    let within = inside.as_ref().map(|name| format!(" in {name}")).unwrap_or_default();
    match &head.class {
        Class::Resource => {
            inside.map_or("resource is Resource".to_owned(), |inside| format!("resource == {inside}"))
        }
        Class::Table { .. } => format!("resource is Table{within}"),
        Class::Function { .. } => format!("resource is Function{within}"),
        Class::Object { .. } => format!("resource is Object{within}"),
        Class::Setting => format!("resource is Setting{within}"),
        Class::Name => "resource is Name".to_owned(),
        Class::Label => format!("resource is Label{within}"),
        Class::Program { .. } => "resource is Program".to_owned(),
        Class::Image { .. } => "resource is Image".to_owned(),
    }
}

fn conditions(head: &Head, names: &[&str]) -> Vec<String> {
    let is = |attribute: &str| match names {
        [one] => format!("resource.{attribute} == {}", literal(one)),
        several => {
            let several: Vec<_> = several.iter().map(|name| literal(name)).collect();
            format!("{}.contains(resource.{attribute})", list(&several, "  "))
        }
    };
    let named = || is("name");
    match &head.class {
        Class::Resource => Vec::new(),
        Class::Table { database, schema } | Class::Function { database, schema } if schema.is_empty() => {
            vec![format!("resource.database == {}", literal(database)), named()]
        }
        Class::Table { database, schema } | Class::Function { database, schema } => vec![
            format!("resource.database == {} && resource.schema == {}", literal(database), literal(schema)),
            named(),
        ],
        Class::Object { kind } => vec![format!("resource.kind == {}", literal(kind)), named()],
        Class::Setting | Class::Name | Class::Label => vec![named()],
        Class::Program { user, capabilities, profile } => {
            let kept: Vec<_> = capabilities.iter().map(|name| literal(name)).collect();
            let kept = format!("[{}].containsAll(resource.capabilities)", kept.join(", "));
            let profile = format!("resource.profile == {}", literal(profile));
            vec![is("path"), format!("resource.user == {}", literal(user)), kept, profile]
        }
        Class::Image { registry, repository } => {
            let place = (literal(registry), literal(repository));
            vec![
                format!("resource.registry == {} && resource.repository == {}", place.0, place.1),
                is("reference"),
            ]
        }
    }
}

/// A list in brackets, in lines where it is long.
fn list(items: &[String], indent: &str) -> String {
    let mut lines = vec![String::new()];
    for (at, item) in items.iter().enumerate() {
        let item = if at + 1 < items.len() { format!("{item}, ") } else { item.clone() };
        match lines.last_mut() {
            Some(line) if line.is_empty() || line.chars().count() + item.chars().count() < WIDTH => {
                line.push_str(&item);
            }
            _ => lines.push(item),
        }
    }
    match lines.as_slice() {
        [one] => format!("[{one}]"),
        lines => {
            let lines: String = lines.iter().map(|line| format!("\n{indent}  {}", line.trim_end())).collect();
            format!("[{lines}\n{indent}]")
        }
    }
}
