//! Relaying without looking: for a resource that policy passes by name, and for a run that an operator released.
//! Both are recorded as what they are, with the bytes that went each way.

use interceptor_core::{
    Denial, Held, Verdict,
    model::{Action, Author, OutcomeStatus, Phase, StatementFacts, Target, Verb},
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

/// Judges, dials `target` and copies both ways until an end. `client` is closed by being dropped.
pub(super) async fn pass(
    gate: &PolicyGate,
    subject: &Subject,
    leave: Leave,
    target: &dial::Target,
    mut client: Stream,
    mut told: Told,
) -> Result<(), Denial> {
    let action = Action {
        phase: Phase::Pass,
        text: match leave {
            Leave::Policy => format!("uninspected to {target}"),
            Leave::Release => format!("uninspected to {target}, released by an operator"),
        },
        binds: Vec::new(),
        facts: StatementFacts::single(Verb::Pass, Target::Resource),
    };
    let held = Held::new(0, vec![action], bytes::Bytes::new());
    let author = match leave {
        Leave::Policy => Author::Agent,
        Leave::Release => Author::Gate,
    };
    let permit = match gate.judge_for(subject, &held, author).await {
        Verdict::Allow(permit) => permit,
        Verdict::Deny(denial) => return Err(denial),
    };
    let mut ledger = Ledger::new(gate.producer().clone());
    ledger.sent(0, permit.records());
    if held.release(permit).is_err() {
        return Ok(());
    }
    let mut upstream = match dial::connect(target).await {
        Ok(upstream) => upstream,
        Err(error) => {
            ledger.ended_whole(0, OutcomeStatus::Failed, 0, Some(telemetry::chain(&error)));
            return Ok(());
        }
    };
    let mut counted = Counted { inner: &mut upstream, sent: 0, received: 0 };
    let ended = tokio::select! {
        copied = copy_bidirectional(&mut client, &mut counted) => match copied {
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        },
        ending = told.wait() => Some(ending.denial().message),
    };
    let text = format!(
        "{} bytes sent, {} received{}",
        counted.sent,
        counted.received,
        ended.map(|why| format!("; {why}")).unwrap_or_default()
    );
    ledger.ended_whole(0, OutcomeStatus::Completed, counted.received, Some(text));
    Ok(())
}

/// Counts what goes through, so that the numbers are there whatever ends the copy.
struct Counted<'a> {
    inner: &'a mut Stream,
    sent: u64,
    received: u64,
}

mod counting {
    use std::{
        io,
        pin::Pin,
        task::{Context, Poll},
    };

    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    use super::Counted;

    impl AsyncRead for Counted<'_> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let before = buf.filled().len();
            let polled = Pin::new(&mut *self.inner).poll_read(cx, buf);
            self.received += (buf.filled().len() - before) as u64;
            polled
        }
    }

    impl AsyncWrite for Counted<'_> {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let polled = Pin::new(&mut *self.inner).poll_write(cx, bytes);
            if let Poll::Ready(Ok(written)) = polled {
                self.sent += written as u64;
            }
            polled
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut *self.inner).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut *self.inner).poll_shutdown(cx)
        }
    }
}
