//! A connection that speaks a protocol to a resource.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ClientAddress, ConnectionId, OriginalDestination, ProcessFacts, ResourceName, Run};

/// Facts at accept; they never change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Its id.
    pub id: ConnectionId,
    /// The run it came from.
    pub run: Arc<Run>,
    /// The process that called `connect`.
    pub process: Arc<ProcessFacts>,
    /// The captured end; a Unix socket has no address that says anything.
    pub client: Option<ClientAddress>,
    /// Where it was going.
    pub destination: OriginalDestination,
    /// When it was accepted, in microseconds of the Unix epoch.
    pub accepted_at: i64,
}

/// Who the session is upstream.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Principal {
    /// The database user or login that the gate uses upstream.
    pub user: String,
    /// What the agent asked to be; never sent upstream.
    pub claimed_user: String,
    /// The database, where the protocol has one.
    pub database: String,
}

/// A connection, the resource it reached, and the principal it has there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The connection.
    pub connection: Arc<Connection>,
    /// The resource.
    pub resource: ResourceName,
    /// The protocol's name, from the registry.
    pub protocol: &'static str,
    /// The principal.
    pub principal: Principal,
}
