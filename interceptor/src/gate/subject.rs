//! Who an exchange belongs to, whether or not it came as far as a session.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, OnceLock},
};

use interceptor_core::{
    mask::Sought,
    model::{Action, Connection, Principal, ProcessFacts, ResourceName, Run, Session, Spent},
    policy::Asked,
};

use super::{Login, now_us};
use crate::store::{RequestHead, Who};

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
    /// The log-in session that its process is in, unless an agent is above it.
    pub login: Option<Login>,
    /// Secrets that are looked for in what it reads, once it is open.
    pub sought: Arc<OnceLock<Arc<Sought>>>,
}

/// Before it is known what is looked for, nothing is read.
static NOTHING: LazyLock<Arc<Sought>> = LazyLock::new(Arc::default);

impl Subject {
    /// The subject of a session's exchanges.
    pub fn of_session(session: &Session) -> Self {
        Self {
            run: session.connection.run.clone(),
            connection: Some(session.connection.clone()),
            resource: Some(session.resource.clone()),
            protocol: session.protocol,
            principal: session.principal.clone(),
            login: None,
            sought: Arc::default(),
        }
    }

    /// The process that connected, where it is known.
    pub fn process(&self) -> Option<&ProcessFacts> {
        self.connection.as_deref().map(|connection| connection.process.as_ref())
    }

    /// Secrets that are looked for in what it reads.
    pub(super) fn sought(&self) -> &Arc<Sought> {
        self.sought.get().unwrap_or(&NOTHING)
    }

    /// Whether a person says, of late, that it is theirs.
    pub(super) fn is_a_persons(&self) -> bool {
        self.login.as_ref().is_some_and(|login| login.of(self.run.id).is_some())
    }

    /// The question of one statement among several, after so much was spent and so many have approved.
    pub(super) fn asks<'a>(
        &'a self,
        action: &'a Action,
        (place, statements): (usize, usize),
        spent: Spent,
        approvals: &'a BTreeMap<String, u32>,
    ) -> Asked<'a> {
        Asked {
            run: &self.run,
            process: self.process(),
            resource: self.resource.as_ref(),
            principal: &self.principal,
            action,
            statements,
            place,
            approvals,
            spent,
            now: now_us() / 1_000_000,
            person: self.login.as_ref().and_then(|login| login.of(self.run.id)),
        }
    }

    /// The half of a request entry that says who, with as much of the process as `process` has.
    pub(super) fn head(&self, process: Option<&ProcessFacts>) -> Result<RequestHead, serde_json::Error> {
        let connection = self.connection.as_deref();
        RequestHead::new(&Who {
            run: self.run.id,
            agent: &self.run.agent,
            guarantee: self.run.guarantee,
            connection: connection.map(|connection| connection.id),
            client: connection.and_then(|connection| connection.client),
            destination: connection.map(|connection| connection.destination.clone()),
            process,
            resource: self.resource.as_ref(),
            protocol: self.protocol,
            principal: &self.principal,
        })
    }
}
