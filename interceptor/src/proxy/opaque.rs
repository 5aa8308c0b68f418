//! Relaying without looking: for a resource that policy passes by name, for a replication that it permits, and for a
//! run that an operator released. All are recorded as what they are, with the bytes that went each way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use interceptor_core::{
    Denial, Held, Verdict,
    inventory::Upstream,
    model::{Action, Author, Binds, OutcomeStatus, Phase, StatementFacts, Target, Verb},
};
use tokio::io::copy_bidirectional;

use super::{dial, registry::Told, stream::Stream};
use crate::{
    gate::{Ledger, PolicyGate, Subject},
    telemetry,
};

/// Under whose word a connection is passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// A policy rule's.
    Policy,
    /// An operator's `release`.
    Release,
}

/// What one passed connection is about.
pub(super) struct Passing<'a> {
    /// Whose it is.
    pub subject: &'a Subject,
    /// Under whose word.
    pub leave: Leave,
    /// Where it goes.
    pub target: &'a Upstream,
    /// For how long, where that is limited.
    pub within: Option<Duration>,
}

/// Judges, dials and copies both ways until an end. `client` is closed by being dropped.
pub(super) async fn pass(
    gate: &PolicyGate,
    passing: Passing<'_>,
    mut client: Stream,
    told: Told,
) -> Result<(), Denial> {
    let Passing { subject, leave, target, within } = passing;
    let overdue = async {
        match within {
            Some(within) => tokio::time::sleep(within).await,
            None => std::future::pending().await,
        }
    };
    let action = Action {
        phase: Phase::Pass,
        text: match leave {
            Leave::Policy => format!("uninspected to {target}").into(),
            Leave::Release => format!("uninspected to {target}, released by an operator").into(),
        },
        binds: Binds::new(),
        facts: StatementFacts::single(Verb::Pass, Target::Resource).into(),
    };
    let held = Held::new(0, vec![action], bytes::Bytes::new());
    let verdict = match leave {
        Leave::Policy => gate.judge_for(subject, &held, Author::Agent).await,
        Leave::Release => gate.allow(subject, &held, "released by an operator").await,
    };
    let permit = match verdict {
        Verdict::Allow(permit, _) => permit,
        Verdict::Deny(denial) => return Err(denial),
        // What is relayed opaquely is asked once, and waits for nobody.
        Verdict::Again | Verdict::Enclose(_) => return Err(super::registry::Ending::Stopping.denial()),
    };
    let mut account = Account::new(Ledger::new(gate.producer().clone()), 0);
    account.ledger.sent(0, permit.records());
    if held.release(permit).is_err() {
        return Ok(());
    }
    let counts = account.counts.clone();
    let (status, why) = tokio::select! {
        biased;
        ending = told.wait() => (OutcomeStatus::Completed, Some(ending.denial().message)),
        () = overdue => (OutcomeStatus::Completed, Some("the operator's release ended".to_owned())),
        ended = dial_and_copy(target, &mut client, counts) => ended,
    };
    account.end(status, why.as_deref());
    Ok(())
}

async fn dial_and_copy(
    target: &Upstream,
    client: &mut Stream,
    counts: Arc<Counts>,
) -> (OutcomeStatus, Option<String>) {
    let upstream = match dial::connect(target).await {
        Ok(upstream) => upstream,
        Err(error) => return (OutcomeStatus::Failed, Some(telemetry::chain(&error))),
    };
    copy(client, upstream, counts).await
}

async fn copy(client: &mut Stream, upstream: Stream, counts: Arc<Counts>) -> (OutcomeStatus, Option<String>) {
    let mut counted = Counted { inner: upstream, counts };
    let copied = copy_bidirectional(client, &mut counted).await;
    (OutcomeStatus::Completed, copied.err().map(|error| error.to_string()))
}

/// Copies both ways between a client and an upstream that its judged and recorded exchange `number` has opened, until
/// an end. Both are closed by being dropped.
pub(super) async fn relay(mut client: Stream, upstream: Stream, ledger: Ledger, number: u64, told: Told) {
    let mut account = Account::new(ledger, number);
    let counts = account.counts.clone();
    let (status, why) = tokio::select! {
        biased;
        ending = told.wait() => (OutcomeStatus::Completed, Some(ending.denial().message)),
        ended = copy(&mut client, upstream, counts) => ended,
    };
    account.end(status, why.as_deref());
}

/// The outcome that a passed connection owes, with the bytes that went each way, whatever ends it.
struct Account {
    ledger: Ledger,
    number: u64,
    counts: Arc<Counts>,
}

impl Account {
    /// Of the exchange `number` in `ledger`.
    fn new(ledger: Ledger, number: u64) -> Self {
        Self { ledger, number, counts: Arc::default() }
    }

    /// Only the first end counts.
    fn end(&mut self, status: OutcomeStatus, why: Option<&str>) {
        let (sent, received) =
            (self.counts.sent.load(Ordering::Relaxed), self.counts.received.load(Ordering::Relaxed));
        let why = why.map(|why| format!("; {why}")).unwrap_or_default();
        let text = format!("{sent} bytes sent, {received} received{why}");
        self.ledger.ended_whole(self.number, status, received, Some(text));
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.end(OutcomeStatus::Unknown, Some("its run or the daemon ended"));
    }
}

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    received: AtomicU64,
}

/// Counts what goes through, so that the numbers are there whatever ends the copy.
struct Counted {
    inner: Stream,
    counts: Arc<Counts>,
}

mod counting {
    use std::{
        io,
        pin::Pin,
        sync::atomic::Ordering,
        task::{Context, Poll},
    };

    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    use super::Counted;

    impl AsyncRead for Counted {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let before = buf.filled().len();
            let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
            let read = buf.filled().len().saturating_sub(before) as u64;
            self.counts.received.fetch_add(read, Ordering::Relaxed);
            polled
        }
    }

    impl AsyncWrite for Counted {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let polled = Pin::new(&mut self.inner).poll_write(cx, bytes);
            if let Poll::Ready(Ok(written)) = polled {
                self.counts.sent.fetch_add(written as u64, Ordering::Relaxed);
            }
            polled
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_shutdown(cx)
        }
    }
}
