//! Past exchanges as questions: what the record tells of one, put to policy once more.
//!
//! The facts are the record's, so nothing is asked of a server. What the record does not tell is not known here
//! either: who launched the run, who approved, and a text that was redacted before it was written down.

use std::collections::BTreeMap;

use super::{Asked, Policy};
use crate::{
    inventory::Agent,
    model::{AgentIdentity, AgentName, RequestRecord, Run, Spent},
};

/// One recorded statement, made ready to be judged by a policy.
#[derive(Debug)]
pub(super) struct Past<'a> {
    request: &'a RequestRecord,
    run: Run,
    approvals: BTreeMap<String, u32>,
    spent: Spent,
}

impl<'a> Past<'a> {
    /// The agent is who the policy's own inventory says that it is.
    pub(super) fn new(policy: &Policy, request: &'a RequestRecord, spent: Spent) -> Self {
        let known = policy.inventory.agents.get(&request.agent.name);
        let unknown = || AgentIdentity { name: AgentName::unknown(), owner: None, groups: Vec::new() };
        let run = Run {
            id: request.run,
            agent: known.map_or_else(unknown, Agent::identity),
            cgroup: String::new(),
            guarantee: request.guarantee,
            mode: request.verdict.mode,
            claims: BTreeMap::new(),
            started_at: 0,
        };
        Self { request, run, approvals: BTreeMap::new(), spent }
    }

    /// Its question.
    pub(super) fn asked(&self) -> Asked<'_> {
        let (place, statements) = self.request.place;
        Asked {
            run: &self.run,
            process: self.request.process.as_deref(),
            resource: self.request.resource.as_ref(),
            principal: &self.request.principal,
            action: &self.request.action,
            statements: usize::try_from(statements).unwrap_or(usize::MAX),
            place: usize::try_from(place).unwrap_or(usize::MAX),
            approvals: &self.approvals,
            spent: self.spent,
            now: self.request.at / 1_000_000,
            person: None,
        }
    }
}

/// Records for tests.
#[cfg(test)]
pub(super) mod tests {
    use crate::{
        model::{
            Action, AgentIdentity, Author, Binds, Effect, Guarantee, Mode, Object, Phase, Principal,
            RequestRecord, RunId, StatementFacts, Target, Verb, VerdictRecord,
        },
        permit::Judgement,
        policy::Policy,
    };

    pub(in crate::policy) fn table(name: &str) -> Target {
        let (schema, name) = name.split_once('.').expect("schema.name");
        Target::Table(Object {
            database: "app".into(),
            schema: schema.into(),
            name: name.into(),
            oid: Some(7),
        })
    }

    /// A statement of `bot` on `orders` that was allowed by a rule.
    pub(in crate::policy) fn record(effects: &[(Verb, Target)]) -> RequestRecord {
        let effects = effects.iter().cloned().map(|(verb, target)| Effect { verb, target }).collect();
        RequestRecord {
            at: 1_000_000,
            author: Author::Agent,
            run: RunId::from_random(1),
            agent: AgentIdentity { name: "bot".parse().expect("a name"), owner: None, groups: Vec::new() },
            guarantee: Guarantee::Structural,
            connection: None,
            client: None,
            destination: None,
            process: None,
            resource: Some("orders".parse().expect("a name")),
            protocol: "postgres".to_owned(),
            principal: Principal { user: "u".into(), claimed_user: "c".into(), database: "app".into() },
            action: Action {
                phase: Phase::Query,
                text: "a text".into(),
                binds: Binds::new(),
                facts: StatementFacts { effects, ..StatementFacts::single(Verb::DataRead, Target::Resource) }
                    .into(),
            },
            frame_sha256: String::new(),
            place: (0, 1),
            verdict: VerdictRecord {
                allowed: true,
                mode: Mode::Enforce,
                would_be: None,
                rules: vec!["r (p.cedar:1)".to_owned()],
                reason: String::new(),
                said: None,
                policy: String::new(),
                held_for: Vec::new(),
                approval: None,
                break_glass: None,
                rescue: None,
                undo: None,
                masked: Vec::new(),
                tokens: 0,
            },
        }
    }

    /// The record as the gate would have written it under `policy`.
    pub(in crate::policy) fn judged(policy: &Policy, mut record: RequestRecord) -> RequestRecord {
        let judgement =
            policy.judge(&super::Past::new(policy, &record, crate::model::Spent::default()).asked());
        let (allowed, rules, reason, held_for) = match judgement {
            Judgement::Allowed { rules, reason } => (true, rules, reason, Vec::new()),
            Judgement::Denied { rules, reason } => (false, rules, reason, Vec::new()),
            Judgement::Held { rules, reason, approvers } => (false, rules, reason, approvers),
        };
        record.verdict.allowed = allowed;
        record.verdict.rules = rules.into_iter().map(|rule| rule.id).collect();
        (record.verdict.reason, record.verdict.held_for) = (reason, held_for);
        record
    }
}
