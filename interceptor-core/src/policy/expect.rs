//! Tables of expected verdicts: the tests of a policy folder, run by `policy test` and at each load.
//!
//! Here too nothing is read or asked of a server: the catalogue stands in the table. How SQL is analysed is the
//! caller's to say; [`Catalogue::facts`] is how the product does it.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;
use toml::Spanned;

use super::{Asked, Policy, load::line};
use crate::{
    inventory::{Fault, Source},
    model::{
        Action, AgentIdentity, AgentName, Binds, Guarantee, Image, Mode, Phase, Principal, Program,
        ResourceName, Run, RunId, Spent, StatementFacts, Target, Verb,
    },
    permit::Judgement,
    sql::{Answer, Dialect, Function, Name, Question, Relation, Rows},
};

/// How a text becomes facts, with the catalogue of the table.
pub type Analyze<'a> = &'a dyn Fn(&Catalogue, Dialect, &str) -> Vec<StatementFacts>;

/// The catalogue that the statements of a table are read against.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Catalogue {
    /// The database's name.
    pub database: String,
    /// The effective role.
    pub role: String,
    /// The effective search path, the first match first.
    pub search_path: Vec<String>,
    /// Relations, as `schema.name`; on a resource without schemas as `database.name`.
    pub tables: Vec<String>,
    /// Views, as `schema.name`, and what each reads through all levels.
    pub views: BTreeMap<String, Vec<String>>,
    /// Functions that are not built in, as `schema.name`.
    pub functions: Vec<String>,
    /// Built-in functions with their numbers, by name.
    pub builtin: BTreeMap<String, Vec<u32>>,
}

impl Default for Catalogue {
    fn default() -> Self {
        Self {
            database: "app".to_owned(),
            role: "app".to_owned(),
            search_path: vec!["pg_catalog".to_owned(), "public".to_owned()],
            tables: Vec::new(),
            views: BTreeMap::new(),
            functions: Vec::new(),
            builtin: BTreeMap::new(),
        }
    }
}

impl Catalogue {
    /// What a server with this catalogue answers.
    pub fn answer(&self, question: &Question) -> Answer {
        Answer {
            database: self.database.clone(),
            database_oid: None,
            role: self.role.clone(),
            search_path: self.search_path.clone(),
            relations: question.relations.iter().map(|name| (name.clone(), self.relation(name))).collect(),
            functions: question.functions.iter().map(|name| (name.clone(), self.function(name))).collect(),
            numbers: BTreeMap::new(),
            besides: Default::default(),
        }
    }

    /// What a name means: by the search path where it has no schema.
    fn find(&self, name: &Name, exists: impl Fn(&str) -> bool) -> Option<String> {
        let schemas = name.schema.as_ref().map_or(self.search_path.as_slice(), std::slice::from_ref);
        schemas.iter().map(|schema| format!("{schema}.{}", name.name)).find(|name| exists(name))
    }

    fn relation(&self, name: &Name) -> Relation {
        let exists =
            |name: &str| self.tables.iter().any(|table| table == name) || self.views.contains_key(name);
        let Some(found) = self.find(name, exists) else { return Relation::Missing };
        let reads = self.views.get(&found).into_iter().flatten();
        Relation::Found {
            object: self.object(Dialect::Postgres, &found),
            rows: Rows::Own,
            reads: reads.map(|table| self.object(Dialect::Postgres, table)).collect(),
            columns: Vec::new(),
            children: Vec::new(),
            consequences: Vec::new(),
            has_rules: false,
        }
    }

    fn function(&self, name: &Name) -> Function {
        let exists = |name: &str| self.functions.iter().any(|function| function == name);
        let own = name.schema.as_ref().is_none_or(|schema| schema == "pg_catalog");
        Function {
            users: self
                .find(name, exists)
                .map(|found| self.object(Dialect::Postgres, &found))
                .into_iter()
                .collect(),
            built_in: self.builtin.get(&name.name).filter(|_| own).cloned().unwrap_or_default(),
        }
    }
}

/// What somebody would do.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// The agent, by name; `unknown` for one that no entry matches.
    pub agent: AgentName,
    /// The resource. Not needed to resolve a name.
    pub resource: Option<ResourceName>,
    /// The text of one or more statements.
    pub sql: Option<String>,
    /// Or one action by its name, such as `connect`.
    pub action: Option<String>,
    /// What the action acts on; the resource where none is given.
    #[serde(default)]
    pub on: On,
    /// How many people of each group have approved.
    #[serde(default)]
    pub approvals: BTreeMap<String, u32>,
    /// What the run has spent in the last hour.
    #[serde(default)]
    pub spent: Spent,
    /// The time, in seconds of the Unix epoch.
    #[serde(default)]
    pub now: i64,
}

/// The target of a [`Case`]'s action: at most one of these.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct On {
    /// A DNS name.
    pub name: Option<String>,
    /// A relation, as `schema.name`; on a resource without schemas as `database.name`.
    pub table: Option<String>,
    /// A function, as `schema.name`.
    pub function: Option<String>,
    /// A setting.
    pub setting: Option<String>,
    /// Any other object, as `KIND NAME`.
    pub object: Option<String>,
    /// A label.
    pub label: Option<String>,
    /// A program that is launched.
    pub program: Option<Program>,
    /// An image that is fetched, with its tag or digest.
    pub image: Option<String>,
}

/// What is wrong with a target of several parts.
const ONE_OF: &str =
    "`on` names one of `name`, `table`, `function`, `setting`, `object`, `label`, `program` and `image`";

impl On {
    fn target(&self, catalogue: &Catalogue, dialect: Option<Dialect>) -> Result<Target, String> {
        let named = |text: &str| catalogue.object(dialect.unwrap_or_default(), text);
        let object = |text: &str| match text.split_once(' ') {
            Some((kind, name)) => Ok(Target::Other { kind: kind.to_owned(), name: name.to_owned() }),
            None => Err("`object` is a kind and a name, such as \"role alice\"".to_owned()),
        };
        let rest = (&self.object, &self.label);
        if let Some(program) = &self.program {
            let alone = Self { program: self.program.clone(), ..Self::default() };
            let told = || Target::Program(program.clone());
            return (*self == alone).then(told).ok_or_else(|| ONE_OF.to_owned());
        }
        if let Some(name) = &self.image {
            let alone = Self { image: self.image.clone(), ..Self::default() };
            let image = name.parse::<Image>().map_err(|error| error.to_string())?;
            return (*self == alone).then_some(Target::Image(image)).ok_or_else(|| ONE_OF.to_owned());
        }
        match (&self.name, &self.table, &self.function, &self.setting, rest) {
            (None, None, None, None, (None, None)) => Ok(Target::Resource),
            (Some(name), None, None, None, (None, None)) => Ok(Target::Name(name.to_ascii_lowercase())),
            (None, Some(table), None, None, (None, None)) => Ok(Target::Table(named(table))),
            (None, None, Some(function), None, (None, None)) => Ok(Target::Function(named(function))),
            (None, None, None, Some(setting), (None, None)) => {
                Ok(Target::Setting(setting.to_ascii_lowercase()))
            }
            (None, None, None, None, (Some(text), None)) => object(text),
            (None, None, None, None, (None, Some(label))) => Ok(Target::Label(label.clone())),
            _ => Err(ONE_OF.to_owned()),
        }
    }
}

/// A case made ready to be judged.
#[derive(Debug)]
pub struct Trial {
    run: Run,
    resource: Option<ResourceName>,
    principal: Principal,
    actions: Vec<Action>,
    approvals: BTreeMap<String, u32>,
    spent: Spent,
    now: i64,
}

impl Trial {
    /// The question of each statement.
    pub fn questions(&self) -> impl Iterator<Item = Asked<'_>> {
        self.actions.iter().enumerate().map(|(place, action)| Asked {
            run: &self.run,
            process: None,
            resource: self.resource.as_ref(),
            principal: &self.principal,
            action,
            statements: self.actions.len(),
            place,
            approvals: &self.approvals,
            spent: self.spent,
            now: self.now,
            person: None,
        })
    }
}

impl Case {
    /// Analyses the case against a policy's inventory. The error says what about the case makes no sense.
    pub fn prepare(
        &self,
        policy: &Policy,
        catalogue: &Catalogue,
        analyze: Analyze<'_>,
    ) -> Result<Trial, String> {
        let inventory = policy.inventory();
        if let Some(resource) = self.resource.as_ref().filter(|name| !inventory.resources.contains_key(name))
        {
            return Err(format!("resources.toml has no resource `{resource}`"));
        }
        let known = inventory.agents.get(&self.agent);
        if known.is_none() && self.agent != AgentName::unknown() {
            return Err(format!("agents.toml has no agent `{}`", self.agent));
        }
        let identity = known.map_or_else(
            || AgentIdentity { name: AgentName::unknown(), owner: None, groups: Vec::new() },
            crate::inventory::Agent::identity,
        );
        let resource = self.resource.as_ref().and_then(|name| inventory.resources.get(name));
        let credential = resource.and_then(|resource| resource.credential_for(&identity));
        let dialect = resource.and_then(|resource| resource.dialect);
        Ok(Trial {
            principal: Principal {
                user: credential.map(|credential| credential.user.clone()).unwrap_or_default(),
                claimed_user: String::new(),
                database: catalogue.database.clone(),
            },
            run: Run {
                id: RunId::from_random(0),
                agent: identity,
                cgroup: String::new(),
                guarantee: Guarantee::Structural,
                mode: Mode::Enforce,
                claims: BTreeMap::new(),
                started_at: 0,
            },
            resource: self.resource.clone(),
            actions: self.actions(catalogue, dialect, analyze)?,
            approvals: self.approvals.clone(),
            spent: self.spent,
            now: self.now,
        })
    }

    fn actions(
        &self,
        catalogue: &Catalogue,
        dialect: Option<Dialect>,
        analyze: Analyze<'_>,
    ) -> Result<Vec<Action>, String> {
        let (phase, text, facts) = match (&self.sql, &self.action) {
            (Some(sql), None) => {
                let dialect =
                    dialect.ok_or("the resource is not spoken to in SQL: give `action` and `on`, in a table of expected verdicts")?;
                (Phase::Query, sql.as_str(), analyze(catalogue, dialect, sql))
            }
            (None, Some(word)) => {
                let verb = Verb::ALL.into_iter().find(|verb| verb.as_str() == word);
                let verb = verb.ok_or_else(|| format!("there is no action `{word}`"))?;
                let facts = StatementFacts::single(verb, self.on.target(catalogue, dialect)?);
                (phase(verb), "", vec![facts.written_in(dialect.unwrap_or_default())])
            }
            _ => return Err("give either `sql` or `action`".to_owned()),
        };
        if facts.is_empty() {
            // Nothing judged would read as everything allowed.
            return Err("the text has no statement".to_owned());
        }
        let action = |facts| Action { phase, text: text.into(), binds: Binds::new(), facts: Arc::new(facts) };
        Ok(facts.into_iter().map(action).collect())
    }
}

fn phase(verb: Verb) -> Phase {
    match verb {
        Verb::Connect => Phase::Connect,
        Verb::Cancel => Phase::Cancel,
        Verb::Pass | Verb::Replicate => Phase::Pass,
        Verb::Resolve => Phase::Resolve,
        Verb::Launch => Phase::Launch,
        Verb::Pull => Phase::Pull,
        _ => Phase::Query,
    }
}

/// What is expected of a frame: the worst of its statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expected {
    /// Every statement goes on.
    Allow,
    /// Every statement goes on once it is approved.
    Hold,
    /// Some statement is refused.
    Deny,
}

/// How one line of a table came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectResult {
    /// The file.
    pub file: String,
    /// The line of its `[[expect]]`.
    pub line: usize,
    /// Agent, resource and statement, in short.
    pub what: String,
    /// Whether it came out as expected.
    pub passed: bool,
    /// What was expected and what was found, with the policy's reason.
    pub found: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    catalogue: Catalogue,
    #[serde(default)]
    expect: Vec<Spanned<toml::Table>>,
}

/// Runs a table. It fails as a whole where it cannot be read.
pub fn run(policy: &Policy, source: &Source, analyze: Analyze<'_>) -> Result<Vec<ExpectResult>, Vec<Fault>> {
    let fault = |at: usize, message: &str| Fault {
        file: source.file.clone(),
        line: line(&source.text, at),
        message: message.lines().next().unwrap_or_default().to_owned(),
    };
    let table: Table = toml::from_str(&source.text)
        .map_err(|error| vec![fault(error.span().map_or(0, |span| span.start), error.message())])?;
    let mut results = Vec::new();
    let mut faults = Vec::new();
    for entry in table.expect {
        let at = entry.span().start;
        match one(policy, entry.into_inner(), &table.catalogue, analyze) {
            Ok((what, passed, found)) => {
                let (file, line) = (source.file.clone(), line(&source.text, at));
                results.push(ExpectResult { file, line, what, passed, found });
            }
            Err(message) => faults.push(fault(at, &message)),
        }
    }
    if faults.is_empty() { Ok(results) } else { Err(faults) }
}

fn one(
    policy: &Policy,
    mut entry: toml::Table,
    catalogue: &Catalogue,
    analyze: Analyze<'_>,
) -> Result<(String, bool, String), String> {
    let verdict = entry.remove("verdict").ok_or("`verdict` is missing: allow, deny or hold")?;
    let expected: Expected =
        verdict.try_into().map_err(|error: toml::de::Error| error.message().to_owned())?;
    let rule = match entry.remove("rule") {
        None => None,
        Some(toml::Value::String(rule)) => Some(rule),
        Some(_) => return Err("`rule` is a rule's `@id`, or \"default-deny\"".to_owned()),
    };
    let case: Case = entry.try_into().map_err(|error: toml::de::Error| error.message().to_owned())?;
    let trial = case.prepare(policy, catalogue, analyze)?;

    let (mut worst, mut rules, mut reasons) = (Expected::Allow, Vec::new(), Vec::new());
    for asked in trial.questions() {
        let (found, by, reason) = match policy.judge(&asked) {
            Judgement::Allowed { rules, reason } => (Expected::Allow, rules, reason),
            Judgement::Held { rules, reason, .. } => (Expected::Hold, rules, reason),
            Judgement::Denied { rules, reason } => (Expected::Deny, rules, reason),
        };
        if found > worst {
            (worst, rules) = (found, Vec::new());
        }
        if found == worst {
            rules.extend(by.into_iter().map(|rule| rule.id));
            reasons.extend(Some(reason).filter(|reason| !reason.is_empty()));
        }
    }
    if rules.is_empty() && worst == Expected::Deny {
        rules.push("default-deny".to_owned());
    }
    let by_rule = rule.as_ref().is_none_or(|rule| rules.contains(rule));
    let mut found = format!("expected {expected:?}, found {worst:?} by {}", rules.join(", "));
    if let Some(rule) = rule.filter(|_| !by_rule) {
        found = format!("{found}, and not by {rule}");
    }
    if !reasons.is_empty() {
        found = format!("{found}: {}", reasons.join("; "));
    }
    Ok((case.what(), worst == expected && by_rule, found))
}

impl Case {
    fn what(&self) -> String {
        let resource = self.resource.as_ref().map_or("-", ResourceName::as_str);
        let does = self.sql.as_deref().or(self.action.as_deref()).unwrap_or_default();
        format!("{} on {resource}: {does}", self.agent)
    }
}
