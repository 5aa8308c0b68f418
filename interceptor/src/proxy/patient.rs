//! A client whose exchange is at the gate, which may keep it waiting for a person.
//!
//! Promise: what the gate tells it, the relay hears; that it left or cancelled, the gate hears. It must never know what
//! is waited for.

use futures::future::BoxFuture;
use interceptor_core::{Client, Notice, permit::GaveUp};
use tokio::sync::{mpsc, watch};

use super::registry::{Cancelled, Cancels};

/// A client of a relay.
#[derive(Debug)]
pub(super) struct Patient {
    notices: mpsc::UnboundedSender<Notice>,
    left: watch::Receiver<bool>,
    cancels: Cancelled,
}

/// The relay's hold on a [`Patient`].
#[derive(Debug)]
pub(super) struct Bedside {
    /// What it is told. The gate tells a handful of things in an hour.
    pub(super) notices: mpsc::UnboundedReceiver<Notice>,
    left: watch::Sender<bool>,
}

impl Patient {
    /// A client that is there.
    pub(super) fn new(cancels: &Cancels) -> (Self, Bedside) {
        let (tell, notices) = mpsc::unbounded_channel();
        let (leave, left) = watch::channel(false);
        (Self { notices: tell, left, cancels: cancels.listen() }, Bedside { notices, left: leave })
    }
}

impl Bedside {
    /// The client is gone.
    pub(super) fn left(&self) {
        self.left.send_replace(true);
    }
}

impl Client for Patient {
    fn tell(&self, notice: Notice) {
        // A relay that is gone tells nobody anything.
        let _ = self.notices.send(notice);
    }

    fn gave_up(&self) -> BoxFuture<'_, GaveUp> {
        let mut left = self.left.clone();
        Box::pin(async move {
            tokio::select! {
                biased;
                // The sender goes only with the relay, which is as good as the client.
                _ = left.wait_for(|left| *left) => GaveUp::Left,
                () = self.cancels.asked() => GaveUp::Cancelled,
            }
        })
    }
}

/// A client that is not kept waiting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Nobody;

impl Client for Nobody {
    fn tell(&self, _: Notice) {}

    fn gave_up(&self) -> BoxFuture<'_, GaveUp> {
        Box::pin(std::future::pending())
    }
}
