//! Undo: a session of the gate's own that brings the rows of a pack back.
//!
//! Promises: it logs in as the statement's session did, or not at all; each of its exchanges is recorded as the gate's
//! own before it is sent; the pack is used up on disk before what it brings back can last.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use interceptor_core::{
    Held, Verdict,
    model::RecordId,
    undo::{Restore, RestoreStep, Undo},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Proxy, dial::Opened, stream::Stream};
use crate::{
    gate::{Ledger, Subject},
    keeper::credentials,
    telemetry,
};

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Rows that are to be brought back.
#[derive(Debug)]
pub struct Restoring {
    /// What is brought back, and whose it is.
    pub undo: Undo,
    /// The statement's record.
    pub record: RecordId,
    /// Who wants it.
    pub by: String,
}

/// Why rows were not brought back.
#[derive(Debug, thiserror::Error)]
pub enum NotRestored {
    /// Nothing was changed.
    #[error("nothing was changed: {0}")]
    Unchanged(String),
    /// The end was not seen.
    #[error("whether the rows are back is not known, since the end was not seen: {0}; look at the table")]
    Unknown(String),
}

impl Restoring {
    /// Brings the rows back, once.
    pub async fn run(self, proxy: &Proxy) -> Result<(), NotRestored> {
        let mut asked = Asked { committing: false };
        let done = tokio::time::timeout(PATIENCE, self.restore(proxy, &mut asked)).await;
        let done = done.unwrap_or_else(|_| Err(format!("it took longer than {} s", PATIENCE.as_secs())));
        done.map_err(
            |why| if asked.committing { NotRestored::Unknown(why) } else { NotRestored::Unchanged(why) },
        )
    }

    async fn restore(&self, proxy: &Proxy, asked: &mut Asked) -> Result<(), String> {
        let Undo { run, resource, principal, pack } = &self.undo;
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
        let protocol = protocol.ok_or("the resource's protocol has no undo")?;
        let restore = protocol.restore(pack).ok_or("the resource's protocol has no undo")?;
        let subject = Subject {
            run: Arc::new(run.clone()),
            connection: None,
            resource: Some(resource.name.clone()),
            protocol: protocol.name(),
            principal: principal.clone(),
        };
        let opening = protocol.restoring(principal);
        let opened = proxy.dialler.open(resource, protocol, &run.agent, principal, &opening).await;
        let Opened { stream, input, .. } = opened.map_err(|error| telemetry::chain(&error))?;
        let ledger = Ledger::new(proxy.gate.producer().clone());
        Session { proxy, subject, stream, input, ledger }.drive(self, restore, asked).await
    }
}

/// Whether what was done may last.
struct Asked {
    committing: bool,
}

/// The session.
struct Session<'a> {
    proxy: &'a Proxy,
    subject: Subject,
    stream: Stream,
    input: BytesMut,
    ledger: Ledger,
}

impl Session<'_> {
    async fn drive(
        mut self,
        wanted: &Restoring,
        mut restore: Box<dyn Restore>,
        asked: &mut Asked,
    ) -> Result<(), String> {
        loop {
            match restore.step(&mut self.input).map_err(|error| error.to_string())? {
                RestoreStep::Wait => {
                    let read =
                        self.stream.read_buf(&mut self.input).await.map_err(|error| error.to_string())?;
                    if read == 0 {
                        return Err("the server closed the connection".to_owned());
                    }
                }
                RestoreStep::Send(held) => self.send(held, wanted).await?,
                RestoreStep::Commit(held) => {
                    self.proxy.gate.packs().use_up(wanted.record, wanted.by.clone()).await?;
                    asked.committing = true;
                    self.send(held, wanted).await?;
                }
                RestoreStep::Ended(done) => done.into_iter().for_each(|done| self.ledger.ended(done)),
                RestoreStep::Restored => return Ok(()),
                RestoreStep::Failed(why) => {
                    // The server has said so itself.
                    asked.committing = false;
                    return Err(why);
                }
            }
        }
    }

    async fn send(&mut self, held: Held, wanted: &Restoring) -> Result<(), String> {
        let reason = format!("undo of record {}, wanted by {}", wanted.record, wanted.by);
        let permit = match self.proxy.gate.own(&self.subject, &held, &reason).await {
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
}
