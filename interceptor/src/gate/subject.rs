//! Who an exchange belongs to, whether or not it came as far as a session.

use std::sync::Arc;

use interceptor_core::model::{
    Action, Author, Connection, Mode, Phase, Principal, ProcessFacts, RequestRecord, ResourceName, Run,
    Session, StatementFacts, Target, Verb, VerdictRecord,
};

/// The run, and as much of the connection and session as there is.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The run.
    pub run: Arc<Run>,
    /// The connection, unless it was a datagram.
    pub connection: Option<Arc<Connection>>,
    /// The resource, where one was named.
    pub resource: Option<ResourceName>,
    /// The protocol's name; empty where none was found.
    pub protocol: &'static str,
    /// Who the session is upstream.
    pub principal: Principal,
}

impl Subject {
    /// The subject of a session's exchanges.
    pub fn of_session(session: &Session) -> Self {
        Self {
            run: session.connection.run.clone(),
            connection: Some(session.connection.clone()),
            resource: Some(session.resource.clone()),
            protocol: session.protocol,
            principal: session.principal.clone(),
        }
    }

    /// The process that connected, where it is known.
    pub fn process(&self) -> Option<&ProcessFacts> {
        self.connection.as_deref().map(|connection| connection.process.as_ref())
    }

    /// A request entry that says who, with the what still to be filled in.
    pub(super) fn request(&self) -> RequestRecord {
        let connection = self.connection.as_deref();
        RequestRecord {
            at: 0,
            author: Author::Agent,
            run: self.run.id,
            agent: self.run.agent.clone(),
            guarantee: self.run.guarantee,
            connection: connection.map(|connection| connection.id),
            client: connection.map(|connection| connection.client),
            destination: connection.map(|connection| connection.destination),
            process: connection.map(|connection| connection.process.clone()),
            resource: self.resource.clone(),
            protocol: self.protocol.to_owned(),
            principal: self.principal.clone(),
            action: Action {
                phase: Phase::Connect,
                text: String::new(),
                binds: Vec::new(),
                facts: StatementFacts::single(Verb::Unknown, Target::Resource),
            },
            frame_sha256: String::new(),
            place: (0, 1),
            verdict: VerdictRecord {
                allowed: false,
                mode: Mode::Enforce,
                would_be: None,
                rules: Vec::new(),
                reason: String::new(),
                said: None,
                policy: String::new(),
                held_for: Vec::new(),
            },
        }
    }
}
