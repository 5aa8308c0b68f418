//! A session of the gate's own at a resource, for what it has to do there besides an agent's session.
//!
//! Promises: it logs in as the agent's session did, or not at all; each of its exchanges is recorded as the gate's own
//! before it is sent.

use std::sync::Arc;

use bytes::BytesMut;
use interceptor_core::{
    Held, Verdict,
    model::{Principal, ResourceName, Run},
    protocol::{Done, Opening},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Proxy, dial::Opened, stream::Stream};
use crate::{
    gate::{Ledger, Subject},
    keeper::credentials,
    telemetry,
};

/// See above.
pub(super) struct OwnSession<'a> {
    proxy: &'a Proxy,
    subject: Subject,
    stream: Stream,
    /// What came, and was not looked at yet.
    pub(super) input: BytesMut,
    ledger: Ledger,
}

impl<'a> OwnSession<'a> {
    /// Opens one for `run`, as `principal`. What goes wrong is told to the operator.
    pub(super) async fn open(
        proxy: &'a Proxy,
        (run, resource, principal): (&Arc<Run>, &ResourceName, &Principal),
        opening: &Opening,
    ) -> Result<Self, String> {
        let rules = proxy.gate.rules();
        let chosen = credentials::choose(&rules.inventory, resource, &run.agent.name);
        let (resource, _, credential) = chosen.map_err(|error| error.to_string())?;
        if credential.user != principal.user {
            return Err(format!(
                "the agent logs in as {} by now, and then did as {}",
                credential.user, principal.user
            ));
        }
        let protocol = resource.protocol.as_deref().and_then(interceptor_protocols::find);
        let protocol = protocol.ok_or("nothing is known of the resource's protocol")?;
        let subject = Subject {
            run: run.clone(),
            connection: None,
            resource: Some(resource.name.clone()),
            protocol: protocol.name(),
            principal: principal.clone(),
            login: None,
            sought: Arc::default(),
        };
        let opened = proxy.dialler.open(resource, protocol, &run.agent, principal, opening).await;
        let Opened { stream, input, .. } = opened.map_err(|error| telemetry::chain(&error))?;
        let ledger = Ledger::new(proxy.gate.producer().clone());
        Ok(Self { proxy, subject, stream, input, ledger })
    }

    /// Whose exchanges they are.
    pub(super) fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Waits for more input.
    pub(super) async fn read(&mut self) -> Result<(), String> {
        let read = self.stream.read_buf(&mut self.input).await.map_err(|error| error.to_string())?;
        if read == 0 { Err("the server closed the connection".to_owned()) } else { Ok(()) }
    }

    /// Records `held` with the reason for it, and sends it.
    pub(super) async fn send(&mut self, held: Held, reason: &str) -> Result<(), String> {
        let permit = match self.proxy.gate.own(&self.subject, &held, reason).await {
            Verdict::Allow(permit, _) => permit,
            Verdict::Deny(denial) => return Err(denial.message),
            Verdict::Again | Verdict::Enclose(_) => {
                return Err("an exchange of the gate's own was held".to_owned());
            }
        };
        self.ledger.sent(held.number(), permit.records());
        let bytes = held.release(permit).map_err(|error| error.to_string())?;
        let sent = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        };
        sent.await.map_err(|error| error.to_string())
    }

    /// Records how exchanges ended.
    pub(super) fn ended(&mut self, done: Vec<Done>) {
        done.into_iter().for_each(|done| self.ledger.ended(done));
    }
}
