//! A fair share of decoding time: a run has one turn, so that its large inputs, however many connections it opens,
//! keep at most one core busy while its neighbours' small ones go by.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// One run's turn.
#[derive(Debug, Clone)]
pub(super) struct Turn(Arc<Semaphore>);

impl Default for Turn {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Turn {
    /// Does `work` when it is the run's turn, off the threads that serve everybody else.
    pub(super) async fn heavy<T>(&self, work: impl FnOnce() -> T) -> T {
        // The semaphore is never closed; were it, the work would merely lose its turn.
        let _turn = self.0.acquire().await.ok();
        tokio::task::block_in_place(work)
    }
}
