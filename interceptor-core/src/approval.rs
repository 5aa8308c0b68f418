//! What a request for approval is: what exactly is approved, what an approver is shown, who may decide, and what the
//! decisions together mean.
//!
//! Promises: what is approved is a digest over everything that gives a statement its meaning and effect, so that an
//! approval never fits anything else; nobody counts twice or in two groups; whoever answers for an agent, or started
//! its run, does not approve for it; what an approver was not shown whole cannot be approved. How many approvals are
//! enough is policy's business, never decided here. Nothing here keeps requests or reads a clock.

mod weigh;

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    enclosure::Terms,
    estimate::Estimate,
    mask::{LabelSet, Labels},
    model::{
        Action, AgentIdentity, ApprovalId, BindValue, OutcomeStatus, PersonName, Phase, Principal,
        ProcessFacts, RecordId, ResourceName, Run, RunId, StatementFacts, Target, Verb,
    },
    permit::{Circumstances, Rule},
    sql::{self, Dialect, Shape},
    text,
};

pub use weigh::{NotYours, may_undo, weigh};

/// How long a request is open when its rule says nothing longer, in seconds.
pub const OPEN_FOR: u64 = 15 * 60;
/// How long an approval lasts at most, in seconds.
pub const LONGEST_GRANT: u64 = 8 * 3600;
/// How many rows a statement may change or return by an approval of its shape, where nobody says otherwise.
pub const SHAPE_ROWS: u64 = 100;
/// The longest reason or suggestion, in bytes.
const LONGEST_WORDS: usize = 2000;
/// The longest card, in bytes of JSON: what a person reads, and what fits a message between our processes.
pub const LONGEST_CARD: usize = 64 * 1024;
/// How much of a text stands on a card that had to be cut, in bytes.
const HEAD: usize = 2000;

/// What is to be approved.
#[derive(Debug, Clone, Copy)]
pub struct What<'a> {
    /// The run.
    pub run: &'a Run,
    /// The resource.
    pub resource: &'a ResourceName,
    /// Who the session is upstream.
    pub principal: &'a Principal,
    /// The session's state, as far as it bears on what the statements mean.
    pub circumstances: &'a Circumstances,
    /// The statements, with their resolved objects and bind values.
    pub actions: &'a [Action],
    /// The hash of the policy in force.
    pub policy: &'a str,
}

impl What<'_> {
    /// SHA-256 over all of it, in hexadecimal.
    pub fn digest(&self) -> Result<String, serde_json::Error> {
        let mut parts = self.around()?;
        for action in self.actions {
            parts.push(action.text.as_bytes().to_vec());
            parts.push(serde_json::to_vec(&(&action.binds, action.facts.kind, &action.facts.effects))?);
        }
        Ok(digest(parts))
    }

    /// What surrounds the statements.
    fn around(&self) -> Result<Vec<Vec<u8>>, serde_json::Error> {
        let circumstances = self.circumstances;
        let state = (circumstances.naming.as_deref(), circumstances.settings.as_deref());
        Ok(vec![
            serde_json::to_vec(&(&self.run.agent.name, self.run.id, self.resource))?,
            // Not what the client claims to be: it changes nothing of what is done.
            serde_json::to_vec(&(&self.principal.user, &self.principal.database))?,
            serde_json::to_vec(&state)?,
            self.policy.as_bytes().to_vec(),
        ])
    }

    /// The shape of its statement, where all of that shape can be approved together: one statement whose effects are
    /// known, and whose changes the server counts.
    pub fn shape(&self) -> Option<Shape> {
        let [action] = self.actions else { return None };
        // Shapes are read by one dialect's rules alone.
        let whole = matches!(action.phase, Phase::Query | Phase::Execute)
            && action.facts.dialect == Dialect::Postgres
            && action.facts.is_counted();
        let shape = Some(&action.text).filter(|text| whole && sql::writes_once(text));
        shape.and_then(|text| sql::shape(text))
    }

    /// The same as [`What::digest`] for all statements of `shape`: the values of its open literals and of its parameters
    /// are left out, and nothing else.
    pub fn shape_digest(&self, shape: &Shape) -> Result<String, serde_json::Error> {
        let mut parts = self.around()?;
        parts.push(b"shape".to_vec());
        for action in self.actions {
            let types: Vec<&str> = action.binds.iter().map(|bind| bind.r#type.as_str()).collect();
            parts.push(serde_json::to_vec(&(&shape.tokens, types))?);
            parts.push(serde_json::to_vec(&(action.facts.kind, &action.facts.effects))?);
        }
        Ok(digest(parts))
    }

    /// What an approver is shown of it, where `rules` hold it for `groups` and the resource's data has `labels`.
    pub fn card(
        &self,
        process: Option<&ProcessFacts>,
        (rules, groups): (&[Rule], &[String]),
        labels: &Labels,
    ) -> Card {
        let naming = self.circumstances.naming.as_deref().cloned().unwrap_or_default();
        let claim = |name: &str| self.run.claims.get(name).cloned();
        let statements = self.actions.iter().map(|action| shown(action, labels));
        let within =
            self.actions.iter().map(|action| labels.within(action)).fold(LabelSet::NONE, LabelSet::or);
        let card = Card {
            about: About::Exchange,
            run: self.run.id,
            agent: self.run.agent.clone(),
            // Whatever a process was started with may have values of any statement: as in records, nobody is shown it
            // where there are labels.
            command: match labels.is_empty() {
                true => claim("command").unwrap_or_default(),
                false => HIDDEN.to_owned(),
            },
            launcher: claim("launcher_user"),
            launcher_uid: claim("launcher_uid").and_then(|uid| uid.parse().ok()),
            process: process.cloned().map(|process| match labels.is_empty() {
                true => process,
                false => process.without_arguments(),
            }),
            resource: self.resource.clone(),
            principal: self.principal.clone(),
            role: naming.role,
            search_path: naming.search_path,
            statements: statements.collect(),
            rules: rules.iter().map(HoldingRule::of).collect(),
            groups: groups.to_vec(),
            policy: self.policy.to_owned(),
            free: self.shape().map(|shape| self.shown_free(shape.free, labels)),
            labels: labels.names(within).map(str::to_owned).collect(),
            estimate: None,
            whole: self.actions.iter().flat_map(|action| &action.binds).all(|bind| bind.cut_from.is_none()),
        };
        card.within(LONGEST_CARD)
    }

    /// What a shape leaves open, without the values where labelled data comes in.
    fn shown_free(&self, free: Vec<String>, labels: &Labels) -> Vec<String> {
        match self.actions.iter().any(|action| labels.come_into(action)) {
            true => vec![HIDDEN.to_owned(); free.len()],
            false => free,
        }
    }
}

/// A statement as people may see it: without passwords, and without literals and values where labelled data comes into it.
fn shown(action: &Action, labels: &Labels) -> Action {
    if !labels.come_into(action) {
        return Action {
            text: action.facts.dialect.redact(&action.text).into_owned().into(),
            ..action.clone()
        };
    }
    let hidden = |bind: &BindValue| BindValue {
        value: bind.value.as_ref().map(|_| HIDDEN.into()),
        cut_from: None,
        ..bind.clone()
    };
    Action {
        text: labels.words(action.facts.dialect.without_literals(&action.text)).into_owned().into(),
        binds: action.binds.iter().map(hidden).collect(),
        ..action.clone()
    }
}

/// What stands for a value that people are not shown.
const HIDDEN: &str = "[masked]";

/// Every part stands behind its length, so that no two lists share a digest.
fn digest(parts: Vec<Vec<u8>>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    format!("{:x}", hash.finalize())
}

/// What people are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum About {
    /// Whether a statement may be carried out.
    #[default]
    Exchange,
    /// Whether a run may go on that asked for more than it may have open. A no ends it.
    Flood,
}

/// What an approver is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// What is asked.
    #[serde(default)]
    pub about: About,
    /// The run.
    pub run: RunId,
    /// The agent, with the person answerable for it.
    pub agent: AgentIdentity,
    /// What was launched.
    pub command: String,
    /// Who launched it.
    pub launcher: Option<String>,
    /// That user's number.
    pub launcher_uid: Option<u32>,
    /// The process that asks, with its ancestry.
    pub process: Option<ProcessFacts>,
    /// The resource.
    pub resource: ResourceName,
    /// Who the session is upstream.
    pub principal: Principal,
    /// The role that it runs as, where that had to be known.
    pub role: String,
    /// Where its names were looked for.
    pub search_path: Vec<String>,
    /// The statements, with bind values and all that they do; without passwords.
    pub statements: Vec<Action>,
    /// The rules that hold it.
    pub rules: Vec<HoldingRule>,
    /// Groups that are asked.
    pub groups: Vec<String>,
    /// The hash of the policy.
    pub policy: String,
    /// The literals that an approval of the statement's shape leaves open, besides its parameters. None where its shape
    /// cannot be approved.
    #[serde(default)]
    pub free: Option<Vec<String>>,
    /// The labels whose data comes into the statements, which are shown without literals and values then.
    #[serde(default)]
    pub labels: Vec<String>,
    /// How many rows the resource guesses that it concerns: a hint, which decides nothing.
    #[serde(default)]
    pub estimate: Option<Estimate>,
    /// Whether everything is on it.
    pub whole: bool,
}

/// A rule that holds, as a card shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldingRule {
    /// Its `@id`.
    pub id: String,
    /// File and line.
    pub at: String,
    /// Its `@say`.
    pub say: Option<String>,
}

impl HoldingRule {
    fn of(rule: &Rule) -> Self {
        Self { id: rule.id.clone(), at: format!("{}:{}", rule.file, rule.line), say: rule.say.clone() }
    }
}

impl Card {
    /// The card itself where it is short enough, else what fits of it, marked as cut.
    fn within(self, limit: usize) -> Self {
        if serde_json::to_vec(&self).is_ok_and(|json| json.len() <= limit) { self } else { self.head(HEAD) }
    }

    /// Its beginning, marked as cut: one statement, `room` bytes of its text, no bind values.
    #[must_use]
    pub fn head(mut self, room: usize) -> Self {
        self.statements.truncate(1);
        for action in &mut self.statements {
            action.text = action.text.split_at(action.text.floor_char_boundary(room)).0;
            action.binds.clear();
            let effects = action.facts.effects.iter().take(8).cloned().collect();
            action.facts = Arc::new(StatementFacts { effects, ..(*action.facts).clone() });
        }
        self.command.truncate(self.command.floor_char_boundary(200));
        self.process = None;
        self.free = None;
        self.whole = false;
        self
    }

    /// Whether both are about doing the same to what has the same names, by the same agent at the same resource.
    pub fn is_like(&self, other: &Self) -> bool {
        let does = |card: &Self| -> HashSet<(Verb, Target)> {
            let effects = card.statements.iter().flat_map(|action| &action.facts.effects);
            effects.map(|effect| (effect.verb, effect.target.clone().without_number())).collect()
        };
        let whose = |card: &Self| (card.about, card.agent.name.clone(), card.resource.clone());
        whose(self) == whose(other) && does(self) == does(other)
    }

    /// The text of its statements, one after the other.
    pub fn text(&self) -> String {
        let texts: Vec<&str> = self.statements.iter().map(|action| &*action.text).collect();
        texts.join("; ")
    }
}

/// How often an approval may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Uses {
    /// Once.
    Once,
    /// Any number of times, while it lasts and its run lives.
    Any,
    /// The same, for whatever has the statement's shape and changes or returns no more rows than this.
    Shape {
        /// The most rows, each time.
        rows: u64,
    },
}

/// What a person says of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Says {
    /// Yes.
    Approve {
        /// How often.
        uses: Uses,
        /// For how long, in seconds.
        seconds: u64,
    },
    /// No, and the request is over.
    Deny {
        /// Why, for the agent.
        reason: String,
        /// What to send instead.
        suggestion: Option<String>,
    },
}

/// A decision that stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// Who decided.
    pub person: PersonName,
    /// The group that the decision counts for.
    pub group: String,
    /// What they said.
    pub says: Says,
    /// When, in microseconds of the Unix epoch.
    pub at: i64,
}

/// How far a request has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It can be decided, and what it is about may pass once enough people have approved.
    Open,
    /// Somebody said no.
    Denied,
    /// What it rested on changed.
    Void {
        /// What.
        why: String,
    },
    /// Its time is over.
    Expired,
    /// It was used up.
    Used {
        /// The record of the exchange.
        record: RecordId,
        /// How that ended, if it has. A list of many does not ask, and says nothing of it.
        outcome: Option<OutcomeStatus>,
    },
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("open"),
            Self::Denied => f.write_str("denied"),
            Self::Void { why } => write!(f, "void ({why})"),
            Self::Expired => f.write_str("expired"),
            Self::Used { record, .. } => write!(f, "used by record {record}"),
        }
    }
}

/// A request and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// The request.
    pub id: ApprovalId,
    /// How far it has come.
    pub state: State,
    /// What was decided, in order.
    pub decisions: Vec<Decision>,
    /// When it was asked, in microseconds of the Unix epoch.
    pub opened_at: i64,
    /// When it closes, in microseconds of the Unix epoch.
    pub closes_at: i64,
    /// What is shown of it.
    pub card: Card,
}

/// A request, with what helps to decide it. None of that is part of what is approved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shown {
    /// The request.
    pub standing: Standing,
    /// The newest requests of the same agent that were about doing the same to the same, and were decided; cut short.
    pub similar: Vec<Standing>,
    /// What else the run did last, newest first.
    pub others: Vec<Told>,
    /// The labels whose values are shown after all, as whoever looks may see them.
    #[serde(default)]
    pub uncovered: Vec<String>,
}

/// What was said of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It went on.
    Allowed,
    /// It waited for people.
    Held,
    /// It did not.
    Refused,
}

/// A statement in a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// Its record.
    pub record: RecordId,
    /// When, in microseconds of the Unix epoch.
    pub at: i64,
    /// What was said of it at first.
    pub fate: Fate,
    /// Its text, as far as the record has it, or else what it did; cut short.
    pub text: String,
}

impl Standing {
    /// How many people of each group have approved: what `context.approvals` says.
    pub fn counts(&self) -> BTreeMap<String, u32> {
        let mut counts = BTreeMap::new();
        for decision in self.decisions.iter().filter(|decision| decision.approves()) {
            let count: &mut u32 = counts.entry(decision.group.clone()).or_default();
            *count = count.saturating_add(1);
        }
        counts
    }

    /// Who has approved.
    pub fn people(&self) -> Vec<PersonName> {
        self.decisions.iter().filter(|decision| decision.approves()).map(|d| d.person.clone()).collect()
    }

    /// The decision that ended it.
    pub fn denial(&self) -> Option<&Decision> {
        self.decisions.iter().find(|decision| !decision.approves())
    }

    /// What it is an approval of: the narrowest of what those who approved said.
    pub fn uses(&self) -> Uses {
        let said = self.decisions.iter().filter_map(|decision| match decision.says {
            Says::Approve { uses, .. } => Some(uses),
            Says::Deny { .. } => None,
        });
        said.min().unwrap_or(Uses::Once)
    }

    /// What an exchange that goes by it must keep to.
    pub fn terms(&self) -> Terms {
        match self.uses() {
            Uses::Shape { rows } => Terms { rows: Some(rows), ..Terms::default() },
            Uses::Once | Uses::Any => Terms::default(),
        }
    }
}

impl Decision {
    /// Whether it is a yes.
    pub fn approves(&self) -> bool {
        matches!(self.says, Says::Approve { .. })
    }
}

/// A person's words as they may be shown to anybody: on one line, without anything that cannot be seen.
pub fn words(text: &str) -> String {
    text::printable(text.trim()).into_owned()
}

#[cfg(test)]
#[path = "approval_tests.rs"]
mod tests;
