//! A fair share for each run: a run has one turn, so that its large inputs, however many connections it opens, keep
//! at most one core busy while its neighbours' small ones go by; and room for a few large messages at once.

use std::sync::Arc;

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
    /// Does `work` when it is the run's turn, off the threads that serve everybody else.
    pub(super) async fn heavy<T>(&self, work: impl FnOnce() -> T) -> T {
        let _turn = self.take().await;
        tokio::task::block_in_place(work)
    }

    /// Waits for the run's turn, for work that gives way to others by itself.
    pub(super) async fn take(&self) -> Option<OwnedSemaphorePermit> {
        self.decoding.clone().acquire_owned().await.ok()
    }

    /// Waits until the run may hold one more large message. Cancel safe.
    pub(super) async fn room(&self) -> Room {
        Room(self.large.clone().acquire_owned().await.ok())
    }
}
