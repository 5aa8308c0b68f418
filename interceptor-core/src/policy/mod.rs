//! Policy: Cedar with the meanings of `docs/policy.md`, loaded whole or not at all.
//!
//! Promises: one Cedar question per effect, each checked against the schema; a rule that fails to evaluate means
//! no; nothing permitted means no; held only if every reason is a `@hold` and those approvals would indeed make
//! the answer yes. What could not be understood is permitted only by a rule that names it.
//!
//! Nothing here reads files or a clock, talks to a server, or keeps state between two judgements.

mod annotations;
mod check;
mod entities;
pub mod expect;
mod explain;
mod judge;
mod load;
mod past;
mod replay;
mod schema;
mod shape;
pub mod spent;
mod split;
mod steady;
mod suggest;
#[cfg(test)]
mod tests;
mod texts;

use std::collections::{BTreeMap, HashMap, HashSet};

use cedar_policy::{Authorizer, Entity, PolicyId, PolicySet, Schema};

pub use annotations::{Alert, Annotated, Flood};
pub use explain::{WOULD, explain};
pub use replay::{BECAUSE_OF_ANOTHER, Change, Replayed, replay};
pub use schema::{BASE as SCHEMA, SCHEMA_VERSION, text as schema_text};
pub use spent::{LastHour, Thresholds};
pub use suggest::{LeftOut, Suggest, Suggestion};

use crate::{
    inventory::{Fault, Inventory, Source},
    model::{Action, Principal, ProcessFacts, ResourceName, Run, Spent, Verb},
};

/// A policy in force: every rule of a folder, checked, with the inventory that it speaks of.
#[derive(Debug)]
pub struct Policy {
    set: PolicySet,
    schema: Schema,
    authorizer: Authorizer,
    types: schema::Types,
    /// Every Cedar action, with the groups that it is in.
    actions: HashMap<&'static str, Entity>,
    /// Every resource of the inventory.
    resources: HashMap<ResourceName, Entity>,
    rules: HashMap<PolicyId, Annotated>,
    /// Verbs whose answers hang on nothing but the session and the facts.
    steady: HashSet<Verb>,
    thresholds: Thresholds,
    warnings: Vec<Fault>,
    inventory: Inventory,
    hash: String,
}

/// A question: one statement, and who asks in which circumstances.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The run.
    pub run: &'a Run,
    /// The process, where it is known.
    pub process: Option<&'a ProcessFacts>,
    /// The resource; `None` only for the look-up of a name that no resource answers to.
    pub resource: Option<&'a ResourceName>,
    /// Who the session is upstream.
    pub principal: &'a Principal,
    /// The statement.
    pub action: &'a Action,
    /// How many statements its frame has.
    pub statements: usize,
    /// Which of them this is, from 0.
    pub place: usize,
    /// How many people of each group have approved just this.
    pub approvals: &'a BTreeMap<String, u32>,
    /// What the run has spent in the last hour.
    pub spent: Spent,
    /// The time, in seconds of the Unix epoch.
    pub now: i64,
    /// The user of the log-in session that the process is in, where its person says, of late, that the run is theirs.
    pub person: Option<u32>,
}

/// Why a policy could not even be begun. A bug of ours, or of the shipped schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum LoadError {
    /// The schema is wrong.
    #[error("interceptor's own policy schema is wrong: {0}; please report this")]
    Schema(String),
}

impl Policy {
    /// SHA-256 over the schema's version, every source and the inventory, in hexadecimal.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The inventory that it was loaded with.
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// A rule by its `@id`, with what it carries.
    pub fn rule(&self, id: &str) -> Option<&Annotated> {
        self.rules.get(&PolicyId::new(id))
    }

    /// Every rule, in the order of files and lines.
    pub fn rules(&self) -> Vec<&Annotated> {
        let mut rules: Vec<_> = self.rules.values().collect();
        rules.sort_by(|one, other| (&one.rule.file, one.rule.line).cmp(&(&other.rule.file, other.rule.line)));
        rules
    }
}

/// Loads a policy folder from arbitrary bytes: for the fuzzer. The bytes are cut at NULs into the resources, the
/// agents, a policy and expectations; whatever loads must judge without panicking.
pub fn fuzz(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.split('\0');
    let mut source =
        |file: &str| Source { file: file.to_owned(), text: parts.next().unwrap_or_default().to_owned() };
    let protocols = [crate::inventory::KnownProtocol {
        name: "postgres",
        port: 5432,
        data: crate::inventory::DataIn::Tables,
        dialect: Some(crate::sql::Dialect::Postgres),
    }];
    let (resources, agents) = (source("resources.toml"), source("agents.toml"));
    let (rules, expected) = (source("policy.cedar"), source("policy.expect.toml"));
    let inventory = crate::inventory::load(&resources, &agents, &protocols).unwrap_or_default();
    if let Ok(policy) = Policy::load(&[rules], &inventory) {
        let unread = |_: &expect::Catalogue, _: crate::sql::Dialect, _: &str| {
            vec![crate::model::StatementFacts::unknown("fuzz")]
        };
        // Either answer will do: only a panic is a finding.
        drop(expect::run(&policy, &expected, &unread));
    }
}
