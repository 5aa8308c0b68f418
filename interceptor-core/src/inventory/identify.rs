//! Which agent a launch is, decided once, at capture.

use super::{Agent, Hint, Inventory};
use crate::model::{AgentIdentity, AgentName};

/// What is known of a launch before its first process runs.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// The name given by `--agent`.
    pub agent: Option<&'a str>,
    /// The verified user who launches: through sudo, the user behind it.
    pub user: &'a str,
    /// The command's executable, resolved.
    pub executable: &'a str,
    /// The command's argv.
    pub argv: &'a [String],
}

/// Why a launch gets no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentifyError {
    /// No such agent.
    #[error("agents.toml has no agent `{name}`; {}", listed(.known))]
    NoSuchAgent {
        /// The name that was given.
        name: String,
        /// Those that there are.
        known: Vec<AgentName>,
    },
    /// The user may not launch it.
    #[error("`{user}` may not launch agent `{name}`; add the user to its `launchers` in {file}:{line}")]
    NotALauncher {
        /// The agent.
        name: AgentName,
        /// The user.
        user: String,
        /// Where the agent stands.
        file: String,
        /// Where the agent stands.
        line: usize,
    },
}

fn listed(known: &[AgentName]) -> String {
    if known.is_empty() {
        return "it lists none: add `[agent.NAME]`".to_owned();
    }
    let names: Vec<_> = known.iter().take(20).map(AgentName::as_str).collect();
    format!("it has {}", names.join(", "))
}

impl Inventory {
    /// Who a launch is: the agent that it names, else the one whose hint fits best, else `unknown`.
    pub fn identify(&self, launch: &Launch<'_>) -> Result<AgentIdentity, IdentifyError> {
        let Some(name) = launch.agent else {
            return Ok(self.by_hint(launch).map_or_else(unknown, Agent::identity));
        };
        let agent =
            name.parse().ok().and_then(|name: AgentName| self.agents.get(&name)).ok_or_else(|| {
                IdentifyError::NoSuchAgent {
                    name: name.to_owned(),
                    known: self.agents.keys().cloned().collect(),
                }
            })?;
        if agent.launchers.is_empty() || agent.launchers.iter().any(|user| user == launch.user) {
            return Ok(agent.identity());
        }
        Err(IdentifyError::NotALauncher {
            name: agent.name.clone(),
            user: launch.user.to_owned(),
            file: agent.at.0.clone(),
            line: agent.at.1,
        })
    }

    /// The load check left no two agents' hints that fit alike, so the one with most parts is the most specific.
    fn by_hint(&self, launch: &Launch<'_>) -> Option<&Agent> {
        let fitting =
            |agent: &Agent| agent.hints.iter().filter(|hint| hint.fits(launch)).map(Hint::parts).max();
        self.agents
            .values()
            .filter_map(|agent| fitting(agent).map(|parts| (parts, agent)))
            .max_by_key(|(parts, _)| *parts)
            .map(|(_, agent)| agent)
    }
}

fn unknown() -> AgentIdentity {
    AgentIdentity { name: AgentName::unknown(), owner: None, groups: Vec::new() }
}

impl Agent {
    /// What a run of this agent is known as.
    pub fn identity(&self) -> AgentIdentity {
        AgentIdentity { name: self.name.clone(), owner: self.owner.clone(), groups: self.groups.clone() }
    }
}

impl Hint {
    fn fits(&self, launch: &Launch<'_>) -> bool {
        self.user.as_deref().is_none_or(|user| user == launch.user)
            && self.executable.as_deref().is_none_or(|path| path == launch.executable)
            && self.argv.iter().all(|text| launch.argv.contains(text))
    }

    fn parts(&self) -> usize {
        let mut argv: Vec<_> = self.argv.iter().collect();
        argv.sort();
        argv.dedup();
        usize::from(self.user.is_some()) + usize::from(self.executable.is_some()) + argv.len()
    }
}
