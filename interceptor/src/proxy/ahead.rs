//! Asking for approval of a statement before anybody sends it: a session of the run's own kind, opened from here, which
//! only asks.
//!
//! Promise: it goes the same road as a session of the agent's, so that what is asked for is what the agent's own
//! statement will be found by; it says itself that it only asks, and the gate lets nothing be carried out in it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use interceptor_core::{
    model::{ClientAddress, Connection, OriginalDestination, ProcessFacts, ResourceName, Run},
    protocol::{AskStep, Asker, DecodeError},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::{
    Proxy,
    session::{Caller, StartError},
    stream::Stream,
    turns::Turn,
};
use crate::gate::now_us;

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How much is under way in each direction, in bytes.
const UNDER_WAY: usize = 64 * 1024;

/// Why nothing was asked.
#[derive(Debug, thiserror::Error)]
pub enum NotAsked {
    /// The resource is not there.
    #[error("resources.toml has no `{0}`")]
    NoResource(ResourceName),
    /// Nothing waits there.
    #[error("`{0}` is not inspected, so that nothing waits there for anybody")]
    Uninspected(ResourceName),
    /// The session was not to be had.
    #[error("the session could not be opened")]
    Start(#[from] StartError),
    /// The session said something odd.
    #[error("the session broke")]
    Broken(#[from] DecodeError),
    /// The session ended without a word.
    #[error("the session ended without an answer")]
    Silent,
    /// It took too long.
    #[error("there was no answer within {} s", PATIENCE.as_secs())]
    Slow,
}

/// Asks for approval of `text` in `database` at `resource`, for whatever of `run` sends it later. What the session said.
pub async fn ask(
    proxy: &Arc<Proxy>,
    run: Arc<Run>,
    process: ProcessFacts,
    (resource, database): (&ResourceName, &str),
    text: &str,
) -> Result<String, NotAsked> {
    let rules = proxy.gate.rules();
    let found = rules.inventory.resources.get(resource);
    let found = found.ok_or_else(|| NotAsked::NoResource(resource.clone()))?;
    let uninspected = || NotAsked::Uninspected(resource.clone());
    let protocol = found.protocol.as_deref().and_then(interceptor_protocols::find).ok_or_else(uninspected)?;
    let asker = protocol.ask(database, text).ok_or_else(uninspected)?;
    let nowhere = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let connection = Arc::new(Connection {
        id: proxy.number(),
        run,
        process: Arc::new(process),
        client: Some(ClientAddress(nowhere(0))),
        destination: OriginalDestination::Address(nowhere(protocol.default_port())),
        accepted_at: now_us(),
    });
    let turn = Turn::default();
    let caller = Caller { proxy, connection, rules: &rules, resource: found, protocol, turn: &turn };
    let (near, far) = tokio::io::duplex(UNDER_WAY);
    let both = async { tokio::join!(caller.serve(Stream::other(far)), converse(asker, near)) };
    let (served, told) = tokio::time::timeout(PATIENCE, both).await.map_err(|_| NotAsked::Slow)?;
    match told {
        Err(NotAsked::Silent) => {
            served?;
            Err(NotAsked::Silent)
        }
        told => told,
    }
}

async fn converse(mut asker: Box<dyn Asker>, mut session: DuplexStream) -> Result<String, NotAsked> {
    let mut input = BytesMut::new();
    loop {
        match asker.step(&mut input)? {
            AskStep::Wait => match session.read_buf(&mut input).await {
                Ok(0) | Err(_) => return Err(NotAsked::Silent),
                Ok(_) => {}
            },
            AskStep::Send(bytes) => session.write_all(&bytes).await.map_err(|_| NotAsked::Silent)?,
            AskStep::Told(told) => return Ok(told),
        }
    }
}
