//! Which credential an agent uses at a resource. The proxy, which must know the user to log in as, and the keeper,
//! which proves it, both ask here, so that they never differ.

use interceptor_core::{
    inventory::{Credential, Holders, Inventory, Resource},
    model::{AgentName, ResourceName},
};

/// Why there is no credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoCredential {
    /// The resource is not in the inventory.
    #[error("resources.toml has no resource {0}: write it there, or reload")]
    Resource(ResourceName),
    /// No credential fits the agent.
    #[error("resource {resource} has no credential for agent {agent}: add one for it or for everyone")]
    Agent {
        /// The resource.
        resource: ResourceName,
        /// The agent.
        agent: AgentName,
    },
}

/// The credential of `agent` at `resource`, and its place in the list: the first that names the agent or one of
/// its groups, else one for everyone.
pub fn choose<'a>(
    inventory: &'a Inventory,
    resource: &ResourceName,
    agent: &AgentName,
) -> Result<(&'a Resource, usize, &'a Credential), NoCredential> {
    let found = inventory.resources.get(resource);
    let found = found.ok_or_else(|| NoCredential::Resource(resource.clone()))?;
    let groups = inventory.agents.get(agent).map(|a| a.groups.as_slice()).unwrap_or_default();
    let fits = |credential: &Credential| match &credential.holders {
        Holders::Named { agents, groups: named } => {
            agents.contains(agent) || named.iter().any(|group| groups.contains(group))
        }
        Holders::Everyone => true,
    };
    let chosen = found.credentials.iter().enumerate().find(|(_, credential)| fits(credential));
    let (place, credential) =
        chosen.ok_or_else(|| NoCredential::Agent { resource: resource.clone(), agent: agent.clone() })?;
    Ok((found, place, credential))
}
