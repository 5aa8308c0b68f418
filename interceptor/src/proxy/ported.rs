//! Connections to the Unix sockets of resources: a run's porter asks for each, and brings it once it is told to come.
//!
//! Promises: nothing is connected but to a path that is a resource's by the rules in force; who is at the other end is the
//! helper's word, never the caller's; such a connection takes a seat of its run and meets the gate as any other.
//! Whatever goes wrong closes the channel to the porter, which refuses.

use std::{
    io,
    os::{fd::OwnedFd, unix::net},
    sync::Arc,
    time::Duration,
};

use interceptor_core::model::{Connection, OriginalDestination, Run};
use socket2::{Domain, SockRef, Type};
use tokio::{net::UnixStream, runtime::Handle, sync::mpsc, task::JoinSet};

use super::{Proxy, listen, seats::Share, turns::Turn};
use crate::{
    channel::{AsyncChannel, Channel, ChannelError},
    gate::now_us,
    helper::messages::{CallerFacts, Ported, Porting},
};

/// How many processes of one run may be at the door at once; one more is refused.
pub const MOST_WANTING: usize = 64;
/// How long the porter may take to bring a connection that may come.
const COMING: Duration = Duration::from_secs(5);

/// A process that wants to be connected to a Unix socket.
#[derive(Debug)]
pub struct Wanting {
    /// Who.
    pub caller: CallerFacts,
    /// Where to, as it said.
    pub path: String,
    /// The channel to its run's porter.
    pub porter: OwnedFd,
}

type Porter = AsyncChannel<Porting, Ported>;

/// Takes in what the porter of `run` asks for, until this is aborted. The connections are spread over the runtimes.
pub(super) async fn accept(
    proxy: Arc<Proxy>,
    run: Arc<Run>,
    turn: Turn,
    seats: Share,
    (mut wanting, runtimes): (mpsc::Receiver<Wanting>, Vec<Handle>),
) {
    let mut runtimes = runtimes.iter().cycle();
    // As with a listener, they live and die with this.
    let mut connections = JoinSet::new();
    while let (Some(wanted), Some(runtime)) = (wanting.recv().await, runtimes.next()) {
        let (proxy, run, turn, seats) = (proxy.clone(), run.clone(), turn.clone(), seats.clone());
        let served = async move {
            if let Err(error) = serve(&proxy, &run, &turn, &seats, wanted).await {
                tracing::debug!(run = %run.id, "nobody came to a Unix socket: {error}");
            }
        };
        connections.spawn_on(served, runtime);
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(
    proxy: &Arc<Proxy>,
    run: &Arc<Run>,
    turn: &Turn,
    seats: &Share,
    wanting: Wanting,
) -> Result<(), ChannelError> {
    let Wanting { caller, path, porter } = wanting;
    let porter: Porter = Channel::from_socket(porter).into_async()?;
    if proxy.gate.rules().inventory.by_socket(&path).is_none() {
        return porter.send(&Porting::Nobodys, &[]).await;
    }
    let destination = OriginalDestination::Socket(path.into());
    let Some(_seat) = listen::seat(proxy, run, seats, &format_args!("to {destination}")) else {
        return Ok(());
    };
    let events = proxy.origins.catch_up();
    proxy.record(events);
    let process = proxy.origins.told(run.id, &caller);
    porter.send(&Porting::Come, &[]).await?;
    let brought = tokio::time::timeout(COMING, porter.receive()).await;
    let (Ported::Connected, descriptors) =
        brought.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let stream = connected(descriptors)?;
    drop(porter);
    let connection = Arc::new(Connection {
        id: proxy.number(),
        run: run.clone(),
        process,
        client: None,
        destination,
        accepted_at: now_us(),
    });
    listen::attend(proxy, turn, connection, stream.into()).await;
    Ok(())
}

/// The other end of the caller's connection, and nothing else.
fn connected(descriptors: Vec<OwnedFd>) -> io::Result<UnixStream> {
    let [end] = <[OwnedFd; 1]>::try_from(descriptors)
        .map_err(|wrong| io::Error::other(format!("a porter brought {} descriptors", wrong.len())))?;
    let socket = SockRef::from(&end);
    if (socket.domain()?, socket.r#type()?) != (Domain::UNIX, Type::STREAM) {
        return Err(io::Error::other("a porter brought something else than a Unix stream"));
    }
    let stream = net::UnixStream::from(end);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}
