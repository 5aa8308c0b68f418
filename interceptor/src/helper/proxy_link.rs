//! The helper's line to one proxy: what goes out is queued, so that a proxy that hangs stops nobody but itself.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    messages::{FromKeeper, FromProxy, ToKeeper, ToProxy},
    supervisor::Event,
};
use crate::channel::{AsyncChannel, Channel};

/// How many messages may wait for a proxy before it is taken for dead.
const QUEUE: usize = 256;

type Outgoing = (ToProxy, Vec<OwnedFd>);

/// A proxy that is there.
#[derive(Debug)]
pub(super) struct ProxyLink {
    queue: mpsc::Sender<Outgoing>,
    tasks: Vec<JoinHandle<()>>,
}

impl ProxyLink {
    /// Listens and speaks on both channels of a pair; reports with the pair's number.
    pub(super) fn open(
        number: u64,
        proxy: Channel<ToProxy, FromProxy>,
        keeper: Channel<ToKeeper, FromKeeper>,
        events: &mpsc::Sender<Event>,
    ) -> io::Result<Self> {
        let proxy = Arc::new(proxy.into_async()?);
        let keeper = keeper.into_async()?;
        let (queue, outgoing) = mpsc::channel(QUEUE);
        let tasks = vec![
            tokio::spawn(speak(number, Arc::clone(&proxy), outgoing, events.clone())),
            tokio::spawn(hear_proxy(number, proxy, events.clone())),
            tokio::spawn(hear_keeper(number, keeper, events.clone())),
        ];
        Ok(Self { queue, tasks })
    }

    /// Queues a message; false when the proxy does not take them.
    pub(super) fn tell(&self, message: ToProxy, descriptors: Vec<OwnedFd>) -> bool {
        self.queue.try_send((message, descriptors)).is_ok()
    }

    /// Queues a message that may be dropped: it never takes the half of the queue that others need.
    pub(super) fn offer(&self, message: ToProxy, descriptors: Vec<OwnedFd>) -> bool {
        self.queue.capacity() > QUEUE / 2 && self.tell(message, descriptors)
    }

    /// The queue, for an answer that takes its time.
    pub(super) fn queue(&self) -> mpsc::Sender<Outgoing> {
        self.queue.clone()
    }
}

impl Drop for ProxyLink {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn speak(
    number: u64,
    proxy: Arc<AsyncChannel<ToProxy, FromProxy>>,
    mut outgoing: mpsc::Receiver<Outgoing>,
    events: mpsc::Sender<Event>,
) {
    while let Some((message, descriptors)) = outgoing.recv().await {
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        if let Err(error) = proxy.send(&message, &borrowed).await {
            let _ = events.send(Event::Gone(number, "proxy", error.to_string())).await;
            return;
        }
    }
}

async fn hear_proxy(number: u64, proxy: Arc<AsyncChannel<ToProxy, FromProxy>>, events: mpsc::Sender<Event>) {
    loop {
        let event = match proxy.receive().await {
            Ok((message, _)) => Event::Proxy(number, message),
            Err(error) => {
                let _ = events.send(Event::Gone(number, "proxy", error.to_string())).await;
                return;
            }
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

async fn hear_keeper(number: u64, keeper: AsyncChannel<ToKeeper, FromKeeper>, events: mpsc::Sender<Event>) {
    loop {
        match keeper.receive().await {
            Ok((FromKeeper::Up, _)) => {
                if events.send(Event::KeeperUp(number)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                let _ = events.send(Event::Gone(number, "keeper", error.to_string())).await;
                return;
            }
        }
    }
}
