//! A fair share for each run: a run has one turn, so that its large inputs, however many connections it opens, keep
//! at most one core busy while its neighbours' small ones go by; and room for a few large messages at once.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many messages of more than the relay's ordinary buffers one run may have in memory at once.
const LARGE: usize = 8;

/// One run's share.
#[derive(Debug, Clone)]
pub(super) struct Turn {
    decoding: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

/// Leave to hold a large message; it ends when this is dropped. The semaphores are never closed; were they, the
/// work would merely lose its turn.
#[derive(Debug)]
pub(super) struct Room(#[expect(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>);

impl Default for Turn {
    fn default() -> Self {
        Self { decoding: Arc::new(Semaphore::new(1)), large: Arc::new(Semaphore::new(LARGE)) }
    }
}

impl Turn {
    /// Does `work` when it is the run's turn, off the threads that serve everybody else. `None` when it panicked.
    pub(super) async fn heavy<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let turn = self.take().await;
        let done = tokio::task::spawn_blocking(move || {
            // Whoever waits may be gone: the turn ends with the work.
            let _turn = turn;
            work()
        });
        done.await.ok()
    }

    /// Waits for the run's turn, for work that gives way to others by itself.
    pub(super) async fn take(&self) -> Option<OwnedSemaphorePermit> {
        self.decoding.clone().acquire_owned().await.ok()
    }

    /// Waits until the run may hold one more large message.
    pub(super) fn room(&self) -> BoxFuture<'static, Room> {
        let large = self.large.clone();
        Box::pin(async move { Room(large.acquire_owned().await.ok()) })
    }
}
