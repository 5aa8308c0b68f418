//! Undo: a session of the gate's own that brings the rows of a pack back.
//!
//! Promise: the pack is used up on disk before what it brings back can last.

use std::{sync::Arc, time::Duration};

use interceptor_core::{
    Protocol,
    inventory::Resource,
    model::RecordId,
    protocol::Own,
    undo::{Restore, RestoreStep, Undo},
};

use super::{Proxy, own::OwnSession};

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
        let protocol = proxy.gate.rules().inventory.resources.get(resource).and_then(protocol_of);
        let restore = protocol.and_then(|protocol| protocol.restore(pack, principal));
        let Own { opening, work: restore } =
            restore.ok_or("the resource is not there, or its protocol has no undo")?;
        let run = Arc::new(run.clone());
        let session = OwnSession::open(proxy, (&run, resource, principal), &opening).await?;
        self.drive(session, proxy, restore, asked).await
    }

    async fn drive(
        &self,
        mut session: OwnSession<'_>,
        proxy: &Proxy,
        mut restore: Box<dyn Restore>,
        asked: &mut Asked,
    ) -> Result<(), String> {
        let reason = format!("undo of record {}, wanted by {}", self.record, self.by);
        loop {
            match restore.step(&mut session.input).map_err(|error| error.to_string())? {
                RestoreStep::Wait => session.read().await?,
                RestoreStep::Send(held) => session.send(held, &reason).await?,
                RestoreStep::Commit(held) => {
                    proxy.gate.packs().use_up(self.record, self.by.clone()).await?;
                    asked.committing = true;
                    session.send(held, &reason).await?;
                }
                RestoreStep::Ended(done) => session.ended(done),
                RestoreStep::Restored => return Ok(()),
                RestoreStep::Failed(why) => {
                    // The server has said so itself.
                    asked.committing = false;
                    return Err(why);
                }
            }
        }
    }
}

fn protocol_of(resource: &Resource) -> Option<&'static dyn Protocol> {
    resource.protocol.as_deref().and_then(interceptor_protocols::find)
}

/// Whether what was done may last.
struct Asked {
    committing: bool,
}
