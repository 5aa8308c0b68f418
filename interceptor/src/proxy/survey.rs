//! A look at a whole database for an operator who labels it: a session of the gate's own.
//!
//! Promises: it changes nothing; each of its exchanges is recorded as the gate's own, with who wanted it; what it finds is
//! bound, and kept before it is told.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use interceptor_core::{
    mask::{LabelSet, Labelled, Labels},
    model::{AgentIdentity, AgentName, Guarantee, Mode, Principal, ResourceName, Run, RunId},
    protocol::Own,
    survey::{Depth, SurveyStep, SurveyedColumn},
};

use super::{Proxy, own::OwnSession};
use crate::{
    gate::{Rules, now_us},
    keeper::credentials,
};

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// What is to be looked at.
#[derive(Debug)]
pub struct Surveying {
    /// The resource.
    pub resource: ResourceName,
    /// The database.
    pub database: String,
    /// As which agent; none where that makes no difference.
    pub agent: Option<AgentName>,
    /// How deep.
    pub depth: Depth,
    /// For what, in the words of the command line.
    pub command: &'static str,
}

/// What was seen.
#[derive(Debug)]
pub struct Surveyed {
    /// The columns.
    pub columns: Vec<SurveyedColumn>,
    /// By which labels.
    pub labels: Arc<Labels>,
    /// Those of them that the agent may not see.
    pub hidden: LabelSet,
    /// Who the session was there.
    pub user: String,
}

impl Surveying {
    /// Looks. The error is for the operator.
    pub async fn run(&self, proxy: &Proxy) -> Result<Surveyed, String> {
        let done = tokio::time::timeout(PATIENCE, self.survey(proxy)).await;
        done.unwrap_or_else(|_| Err(format!("it took longer than {} s", PATIENCE.as_secs())))
    }

    async fn survey(&self, proxy: &Proxy) -> Result<Surveyed, String> {
        let rules = proxy.gate.rules();
        let agent = self.agent(&rules)?;
        let chosen = credentials::choose(&rules.inventory, &self.resource, &agent.name);
        let (resource, _, credential) = chosen.map_err(|error| error.to_string())?;
        let none = || format!("the protocol of {} has no columns", self.resource);
        let protocol = resource.protocol.as_deref().and_then(interceptor_protocols::find).ok_or_else(none)?;
        let bindings = proxy.gate.bound().had(&self.resource).await;
        if !bindings.is_known() {
            return Err("what is bound to labels cannot be read; see `interceptor status`".to_owned());
        }
        let labels = rules.inventory.labels(&self.resource);
        let labelled = Labelled { labels: labels.clone(), bindings };
        let user = credential.user.clone();
        let principal = Principal { user: user.clone(), claimed_user: user, database: self.database.clone() };
        let run = Arc::new(self.as_run(agent)?);
        let Own { opening, work: mut survey } =
            protocol.survey(labelled, self.depth, &principal).ok_or_else(none)?;
        let whose = (&run, &self.resource, &principal);
        let mut session = OwnSession::open(proxy, whose, &opening).await?;
        let reason = format!("{}, by an operator", self.command);
        let columns = loop {
            match survey.step(&mut session.input).map_err(|error| error.to_string())? {
                SurveyStep::Wait => session.read().await?,
                SurveyStep::Send(held) => session.send(*held, &reason).await?,
                SurveyStep::Ended(done) => session.ended(done),
                SurveyStep::Surveyed(columns) => break columns,
                SurveyStep::Failed(why) => return Err(why),
            }
        };
        proxy.gate.keep_bound(session.subject()).await?;
        let hidden = proxy.gate.hidden_from(session.subject());
        Ok(Surveyed { columns, labels, hidden, user: principal.user })
    }

    /// The agent whose credential is used; where all agents have the same, it is any of them.
    fn agent(&self, rules: &Rules) -> Result<AgentIdentity, String> {
        let inventory = &rules.inventory;
        let name = match &self.agent {
            Some(name) => name.clone(),
            None => {
                let mut users = BTreeMap::new();
                for agent in inventory.agents.keys() {
                    if let Ok((_, place, _)) = credentials::choose(inventory, &self.resource, agent) {
                        users.entry(place).or_insert(agent);
                    }
                }
                match users.values().collect::<Vec<_>>().as_slice() {
                    [agent] => (**agent).clone(),
                    [] => {
                        return Err(format!("no agent of agents.toml has a credential at {}", self.resource));
                    }
                    _ => {
                        return Err(
                            "agents have different credentials there: say whose with --agent".to_owned()
                        );
                    }
                }
            }
        };
        let found = inventory.agents.get(&name).ok_or_else(|| format!("agents.toml has no agent {name}"))?;
        Ok(AgentIdentity { name, owner: found.owner.clone(), groups: found.groups.clone() })
    }

    /// As what it is recorded: no process of an agent's is in it.
    fn as_run(&self, agent: AgentIdentity) -> Result<Run, String> {
        let mut bits = [0; 8];
        getrandom::fill(&mut bits).map_err(|error| error.to_string())?;
        Ok(Run {
            id: RunId::from_random(u64::from_ne_bytes(bits)),
            agent,
            cgroup: String::new(),
            guarantee: Guarantee::Observed,
            mode: Mode::Enforce,
            claims: BTreeMap::from([("command".to_owned(), self.command.to_owned())]),
            started_at: now_us(),
        })
    }
}
