//! The relay: one loop for every protocol.
//!
//! It reads both sides, lets the decoder say what the bytes are, takes each exchange to the gate, and sends on only
//! what came back with a permit. Reading and writing never wait for each other, so that a peer that writes without
//! reading cannot stall the other direction; both directions have bounded buffers, and a full one stops the
//! reading that would fill it. An exchange at the gate stops the client's decoding only.

use std::{io, sync::Arc, task::Poll};

use bytes::{Buf, Bytes, BytesMut};
use futures::future::BoxFuture;
use interceptor_core::{
    Decoder, Denial, Gate, Held, Side, Step, Verdict,
    model::{Author, Session},
    protocol::{CancelKey, DecodeError},
};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use super::{registry::Ending, stream::Stream, turns::Turn};
use crate::gate::Ledger;

/// Input is not read while this much of it waits to be decoded or sent, in bytes.
const FULL: usize = 256 * 1024;
/// How much is read at once, in bytes.
const CHUNK: usize = 16 * 1024;
/// Client input of at least this many bytes is decoded in the run's turn, away from its neighbours.
const HEAVY: usize = 16 * 1024;

/// Why a relay ended.
#[derive(Debug)]
pub(super) enum End {
    /// A peer said goodbye or closed.
    Closed,
    /// A peer broke the protocol.
    Broken(DecodeError),
    /// A socket failed.
    Io(Side, io::Error),
    /// The operator, a new policy or the daemon's own end closed it.
    Told(Ending),
    /// A fault of ours.
    Internal(&'static str),
}

/// A session's two streams, and what was already read from them.
pub(super) struct Legs {
    /// The captured process.
    pub client: Stream,
    /// Read from the client and not decoded.
    pub client_input: BytesMut,
    /// The resource.
    pub upstream: Stream,
    /// Read from the upstream and not decoded.
    pub upstream_input: BytesMut,
}

/// Relays one open session until it ends.
pub(super) struct Relay<'a> {
    /// Who it is.
    pub session: Arc<Session>,
    /// Judges.
    pub gate: Arc<dyn Gate>,
    /// Outcomes owed.
    pub ledger: Ledger,
    /// The run's share of decoding time.
    pub turn: &'a Turn,
}

/// What is at the gate.
struct Judging {
    author: Author,
    number: u64,
    verdict: BoxFuture<'static, (Held, Verdict)>,
}

struct Leg {
    read: ReadHalf<Stream>,
    input: BytesMut,
    open: bool,
    out: Out,
}

impl Leg {
    fn new(stream: Stream, input: BytesMut) -> Self {
        let (read, write) = tokio::io::split(stream);
        Self {
            read,
            input,
            open: true,
            out: Out { write, queue: BytesMut::new(), dirty: false, shut: Shut::No },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shut {
    No,
    Wanted,
    Done,
}

/// Bytes on their way to one peer.
struct Out {
    write: WriteHalf<Stream>,
    queue: BytesMut,
    dirty: bool,
    shut: Shut,
}

impl Out {
    fn push(&mut self, bytes: &Bytes) {
        self.queue.extend_from_slice(bytes);
    }

    fn wants(&self) -> bool {
        !self.queue.is_empty() || self.dirty || self.shut == Shut::Wanted
    }

    /// Moves what can be moved. Cancel safe: what was written has left the queue.
    async fn drive(&mut self) -> io::Result<()> {
        if !self.queue.is_empty() {
            let written = self.write.write(&self.queue).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.queue.advance(written);
            self.dirty = true;
        } else if self.dirty {
            self.write.flush().await?;
            self.dirty = false;
        } else if self.shut == Shut::Wanted {
            self.write.shutdown().await?;
            self.shut = Shut::Done;
        }
        Ok(())
    }
}

impl Relay<'_> {
    /// Runs until an end; the client has been told by then, where it could be.
    pub(super) async fn run(
        mut self,
        decoder: &mut dyn Decoder,
        legs: Legs,
        mut told: super::registry::Told,
    ) -> End {
        let mut client = Leg::new(legs.client, legs.client_input);
        let mut upstream = Leg::new(legs.upstream, legs.upstream_input);
        let end = self.turn_the_wheel(decoder, &mut client, &mut upstream, &mut told).await;
        if let Some(denial) = last_word(&end) {
            client.out.push(&decoder.farewell(&denial));
        }
        // What the peers have not taken within the deadline, they never will.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(5), finish(&mut client.out)).await;
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), finish(&mut upstream.out)).await;
        end
    }

    async fn turn_the_wheel(
        &mut self,
        decoder: &mut dyn Decoder,
        client: &mut Leg,
        upstream: &mut Leg,
        told: &mut super::registry::Told,
    ) -> End {
        let mut judging: Option<Judging> = None;
        loop {
            if let Err(end) = self.advance(decoder, client, upstream, &mut judging).await {
                return end;
            }
            if !upstream.open && !client.out.wants() {
                return End::Closed;
            }
            let read_client = client.open && client.input.len() < FULL && upstream.out.queue.len() < FULL;
            let read_upstream = upstream.open && client.out.queue.len() < FULL;
            client.input.reserve(if read_client { CHUNK } else { 0 });
            upstream.input.reserve(if read_upstream { CHUNK } else { 0 });
            tokio::select! {
                biased;
                ending = told.wait() => return End::Told(ending),
                (held, verdict) = async { match judging.as_mut() {
                    Some(judging) => (&mut judging.verdict).await,
                    None => std::future::pending().await,
                }} => {
                    if let Some(done) = judging.take()
                        && let Err(end) = self.settle(decoder, client, upstream, &done, held, verdict)
                    {
                        return end;
                    }
                }
                read = upstream.read.read_buf(&mut upstream.input), if read_upstream => match read {
                    Ok(0) => upstream.open = false,
                    Ok(_) => {}
                    Err(error) => return End::Io(Side::Upstream, error),
                },
                sent = client.out.drive(), if client.out.wants() => {
                    if let Err(error) = sent {
                        return End::Io(Side::Client, error);
                    }
                }
                sent = upstream.out.drive(), if upstream.out.wants() => {
                    if let Err(error) = sent {
                        return End::Io(Side::Upstream, error);
                    }
                }
                read = client.read.read_buf(&mut client.input), if read_client => match read {
                    Ok(0) => {
                        client.open = false;
                        upstream.out.shut = Shut::Wanted;
                    }
                    Ok(_) => {}
                    Err(error) => return End::Io(Side::Client, error),
                },
            }
        }
    }

    /// Decodes all that can be decoded without waiting.
    async fn advance(
        &mut self,
        decoder: &mut dyn Decoder,
        client: &mut Leg,
        upstream: &mut Leg,
        judging: &mut Option<Judging>,
    ) -> Result<(), End> {
        loop {
            self.advance_upstream(decoder, client, upstream)?;
            if judging.is_some() || client.out.queue.len() >= FULL {
                return Ok(());
            }
            let step = self.client_step(decoder, client).await?;
            let (held, author) = match step {
                Step::Wait => return Ok(()),
                Step::Ask(held) => (held, Author::Agent),
                Step::Enquire(held) => (held, Author::Gate),
                Step::Pass(bytes) => {
                    upstream.out.push(&bytes);
                    continue;
                }
                Step::Reply(bytes) => {
                    client.out.push(&bytes);
                    continue;
                }
                Step::Close(bytes) => {
                    upstream.out.push(&bytes);
                    upstream.out.shut = Shut::Wanted;
                    client.open = false;
                    client.input.clear();
                    continue;
                }
                Step::Answer { bytes, done } => {
                    client.out.push(&bytes);
                    done.into_iter().for_each(|done| self.ledger.ended(done));
                    continue;
                }
                Step::StartTls(_) | Step::Open(_) | Step::Cancel(_) => {
                    return Err(End::Internal("a step of the start-up in the middle of a session"));
                }
            };
            let mut pending = self.judge(held, author);
            match futures::poll!(&mut pending.verdict) {
                Poll::Ready((held, verdict)) => {
                    self.settle(decoder, client, upstream, &pending, held, verdict)?;
                }
                Poll::Pending => *judging = Some(pending),
            }
        }
    }

    fn advance_upstream(
        &mut self,
        decoder: &mut dyn Decoder,
        client: &mut Leg,
        upstream: &mut Leg,
    ) -> Result<(), End> {
        while client.out.queue.len() < FULL {
            let step = decoder.step(Side::Upstream, &mut upstream.input).map_err(End::Broken)?;
            match step {
                Step::Wait => break,
                Step::Pass(bytes) => client.out.push(&bytes),
                Step::Reply(bytes) => upstream.out.push(&bytes),
                Step::Answer { bytes, done } => {
                    client.out.push(&bytes);
                    done.into_iter().for_each(|done| self.ledger.ended(done));
                }
                Step::Close(bytes) => {
                    client.out.push(&bytes);
                    upstream.open = false;
                }
                Step::Ask(_) | Step::Enquire(_) | Step::StartTls(_) | Step::Open(_) | Step::Cancel(_) => {
                    return Err(End::Internal("a client's step from the upstream's side"));
                }
            }
        }
        Ok(())
    }

    async fn client_step(&self, decoder: &mut dyn Decoder, client: &mut Leg) -> Result<Step, End> {
        let step = if client.input.len() < HEAVY {
            decoder.step(Side::Client, &mut client.input)
        } else {
            self.turn.heavy(|| decoder.step(Side::Client, &mut client.input)).await
        };
        step.map_err(End::Broken)
    }

    fn judge(&self, held: Held, author: Author) -> Judging {
        let (gate, session) = (self.gate.clone(), self.session.clone());
        let number = held.number();
        let verdict = Box::pin(async move {
            let verdict = gate.judge(&session, &held, author).await;
            (held, verdict)
        });
        Judging { author, number, verdict }
    }

    fn settle(
        &mut self,
        decoder: &mut dyn Decoder,
        client: &mut Leg,
        upstream: &mut Leg,
        judged: &Judging,
        held: Held,
        verdict: Verdict,
    ) -> Result<(), End> {
        match verdict {
            Verdict::Allow(permit) => {
                let records = permit.records().to_vec();
                let bytes =
                    held.release(permit).map_err(|_| End::Internal("a permit for another exchange"))?;
                upstream.out.push(&bytes);
                self.ledger.sent(judged.number, &records);
                decoder.sent(judged.number);
            }
            Verdict::Deny(denial) if judged.author == Author::Gate => {
                return Err(End::Told(Ending::Refused(denial)));
            }
            Verdict::Deny(denial) => {
                let refusal = decoder.refuse(judged.number, &denial);
                client.out.push(&refusal.client);
                upstream.out.push(&refusal.upstream);
            }
        }
        Ok(())
    }
}

async fn finish(out: &mut Out) -> io::Result<()> {
    while out.wants() {
        out.drive().await?;
    }
    out.write.shutdown().await
}

fn last_word(end: &End) -> Option<Denial> {
    let (rule, message, hint) = match end {
        End::Closed | End::Io(..) => return None,
        End::Told(ending) => return Some(ending.denial()),
        End::Broken(error) => (
            "protocol",
            format!("the connection was ended: {error}"),
            "Open a new connection; if it happens again, this client or server speaks what is not supported yet.",
        ),
        End::Internal(what) => (
            "internal",
            format!("the connection was ended by a fault of the interceptor: {what}"),
            "Open a new connection and report this.",
        ),
    };
    Some(Denial { record: None, rule: rule.to_owned(), message, hint: hint.to_owned() })
}

/// A write-only view used where only the last bytes matter, such as a cancel request.
pub(super) async fn say(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await?;
    stream.shutdown().await
}

/// A fresh cancel key for a client: nothing in it tells anything of the upstream's.
pub(super) fn fresh_key() -> io::Result<CancelKey> {
    let mut process = [0; 4];
    let mut secret = vec![0; 4];
    getrandom::fill(&mut process).map_err(|error| io::Error::other(error.to_string()))?;
    getrandom::fill(&mut secret).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(CancelKey { process: u32::from_be_bytes(process) & 0x7fff_ffff, secret: secret.into() })
}
