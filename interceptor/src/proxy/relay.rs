//! The relay: one loop for every protocol.
//!
//! It reads both sides, lets the decoder say what the bytes are, takes each exchange to the gate, and sends on only
//! what came back with a permit. Reading and writing never wait for each other, so that a peer that writes without
//! reading cannot stall the other direction; both directions have bounded buffers, and a full one stops the
//! reading that would fill it. An exchange at the gate stops the client's decoding only.

use std::{io, sync::Arc, task::Poll, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use futures::future::BoxFuture;
use interceptor_core::{
    Decoder, Denial, Gate, Held, Side, Step, Verdict,
    model::{Author, Session},
    protocol::{CancelKey, DecodeError, Done},
};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use super::budget::{Budget, Cancelling};
use super::{
    registry::Ending,
    stream::Stream,
    turns::{Room, Turn},
};
use crate::gate::Ledger;

/// Input is not read while this much of it waits to be decoded or sent, in bytes.
const FULL: usize = 256 * 1024;
/// How much is read at once, in bytes.
const CHUNK: usize = 16 * 1024;
/// Client input of at least this many bytes is decoded in the run's turn, away from its neighbours.
const HEAVY: usize = 16 * 1024;
/// The most undecoded input of one side, in bytes: every decoder's own limits are below it.
const LONGEST: usize = 32 * 1024 * 1024;
/// How many steps of a client are taken before everybody else has had a turn.
const STEPS: usize = 64;
/// A batch of more statements than this is judged in the run's turn.
const BATCH: usize = 16;
/// How long a peer may take to accept the last bytes for it.
const LAST_BYTES: Duration = Duration::from_secs(5);

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
    /// What the session may have sent back to it.
    pub budget: Budget,
}

/// What is at the gate.
struct Judging {
    author: Author,
    number: u64,
    verdict: BoxFuture<'static, (Held, Verdict)>,
}

/// Where the client's decoding stands.
#[derive(Default)]
struct Wheel {
    judging: Option<Judging>,
    /// A look-up has been sent and the client is held until its answer is decoded.
    enquiring: bool,
    /// The decoder has taken all that it can from the client's input and wants more of it.
    thirsty: bool,
    /// It was only stopped so that others get a turn.
    more: bool,
    /// The daemon stops: the session ends as soon as nothing is under way in it.
    leaving: bool,
    /// An answer was cut short, and the upstream is asked to stop. What the client sends next must not be what it stops.
    cancelling: Option<Cancelling>,
    /// Leave to hold a message of more than [`FULL`] bytes.
    room: Option<Room>,
}

impl Wheel {
    /// Whether the client's bytes would have a place.
    fn takes(&self, client: &Leg, upstream: &Leg) -> bool {
        client.open
            && upstream.out.queue.len() < FULL
            && (client.input.len() < FULL || (self.thirsty && self.room.is_some()))
    }

    /// Whether the client's next message may be decoded.
    fn waits_for_nothing(&self) -> bool {
        self.judging.is_none() && self.cancelling.is_none()
    }

    fn wants_room(&self, client: &Leg) -> bool {
        client.open && self.thirsty && self.room.is_none() && client.input.len() >= FULL
    }
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
    Broken,
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
        if self.shut != Shut::Broken {
            self.queue.extend_from_slice(bytes);
        }
    }

    /// The peer takes nothing more. What it said before that may still be read.
    fn give_up(&mut self) {
        self.queue.clear();
        self.dirty = false;
        self.shut = Shut::Broken;
    }

    fn is_full(&self) -> bool {
        self.queue.len() >= FULL
    }

    /// Closes this direction once everything is sent.
    fn close(&mut self) {
        if self.shut == Shut::No {
            self.shut = Shut::Wanted;
        }
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
            if self.queue.is_empty() && self.queue.capacity() > 2 * FULL {
                // One large message does not keep its room for the session's life.
                self.queue = BytesMut::new();
            }
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
        if matches!(end, End::Told(_) | End::Internal(_)) {
            // Whoever ended it wants nothing more done there; what was permitted meanwhile ends as `unknown`.
            upstream.out.queue.clear();
        }
        // What the peers have not taken within the deadline, they never will.
        let _ = tokio::join!(
            tokio::time::timeout(LAST_BYTES, finish(&mut client.out)),
            tokio::time::timeout(LAST_BYTES, finish(&mut upstream.out)),
        );
        end
    }

    async fn turn_the_wheel(
        &mut self,
        decoder: &mut dyn Decoder,
        client: &mut Leg,
        upstream: &mut Leg,
        told: &mut super::registry::Told,
    ) -> End {
        let mut wheel = Wheel::default();
        loop {
            if let Err(end) = self.advance(decoder, client, upstream, &mut wheel).await {
                return end;
            }
            if wheel.leaving && wheel.waits_for_nothing() && decoder.is_idle() {
                return End::Told(Ending::Stopping);
            }
            if !upstream.open && !client.out.wants() {
                return End::Closed;
            }
            if let Err(end) = bounded(client, upstream) {
                return end;
            }
            if !client.open && wheel.thirsty {
                // Only now: what the client sent before it closed may have been waiting for a verdict.
                upstream.out.close();
            }
            if wheel.judging.is_none() && client.input.len() < FULL && !upstream.out.is_full() {
                wheel.room = None;
            }
            let read_client = wheel.takes(client, upstream);
            let read_upstream = upstream.open && !client.out.is_full();
            client.input.reserve(if read_client { CHUNK } else { 0 });
            upstream.input.reserve(if read_upstream { CHUNK } else { 0 });
            tokio::select! {
                biased;
                ending = told.wait(), if !wheel.leaving => {
                    if ending != Ending::Stopping {
                        return End::Told(ending);
                    }
                    // What is under way may end first, within the daemon's own deadline.
                    wheel.leaving = true;
                }
                (held, verdict) = judged(&mut wheel.judging) => {
                    if let Err(end) = self.settle(decoder, client, upstream, &mut wheel, held, verdict) {
                        return end;
                    }
                }
                () = cancelled(&mut wheel.cancelling) => wheel.cancelling = None,
                sent = upstream.out.drive(), if upstream.out.wants() => {
                    if sent.is_err() {
                        // It has closed; why is in what it sent before, which is read to its end.
                        upstream.out.give_up();
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
                room = self.turn.room(), if wheel.wants_room(client) => wheel.room = Some(room),
                read = client.read.read_buf(&mut client.input), if read_client => match read {
                    Ok(0) => client.open = false,
                    Ok(_) => {}
                    Err(error) => return End::Io(Side::Client, error),
                },
                () = tokio::task::yield_now(), if wheel.more => {}
            }
        }
    }

    /// Decodes what can be decoded without waiting, within the client's share of steps.
    async fn advance(
        &mut self,
        decoder: &mut dyn Decoder,
        client: &mut Leg,
        upstream: &mut Leg,
        wheel: &mut Wheel,
    ) -> Result<(), End> {
        (wheel.thirsty, wheel.more) = (false, false);
        for _ in 0..STEPS {
            self.advance_upstream(decoder, client, upstream, wheel)?;
            if !wheel.waits_for_nothing() || client.out.is_full() || upstream.out.is_full() {
                return Ok(());
            }
            let step = self.client_step(decoder, client).await?;
            if !matches!(step, Step::Wait | Step::Hold) {
                wheel.enquiring = false;
            }
            let (held, author) = match step {
                Step::Wait => {
                    wheel.thirsty = !wheel.enquiring;
                    return Ok(());
                }
                Step::Hold => return Ok(()),
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
                    upstream.out.close();
                    client.open = false;
                    client.input.clear();
                    continue;
                }
                Step::Answer { bytes, done } => {
                    client.out.push(&bytes);
                    done.into_iter().for_each(|done| self.ledger.ended(done));
                    continue;
                }
                Step::StartTls(_) | Step::Open(_) | Step::Cancel(_) | Step::Pause { .. } => {
                    return Err(End::Internal("a step of the start-up in the middle of a session"));
                }
            };
            let judging = wheel.judging.insert(self.judge(held, author));
            if let Poll::Ready((held, verdict)) = futures::poll!(&mut judging.verdict) {
                self.settle(decoder, client, upstream, wheel, held, verdict)?;
            }
        }
        wheel.more = true;
        Ok(())
    }

    fn advance_upstream(
        &mut self,
        decoder: &mut dyn Decoder,
        client: &mut Leg,
        upstream: &mut Leg,
        wheel: &mut Wheel,
    ) -> Result<(), End> {
        while !client.out.is_full() {
            decoder.allow(self.budget.room());
            let step = decoder.step(Side::Upstream, &mut upstream.input).map_err(End::Broken)?;
            self.budget.passed(decoder.passed());
            match step {
                Step::Wait | Step::Hold => break,
                Step::Pass(bytes) => client.out.push(&bytes),
                Step::Reply(bytes) => upstream.out.push(&bytes),
                Step::Answer { bytes, done } => {
                    client.out.push(&bytes);
                    done.into_iter().for_each(|done| self.ledger.ended(done));
                }
                Step::Close(bytes) => {
                    client.out.push(&bytes);
                    upstream.open = false;
                    // Its last word: whatever follows is nobody's.
                    upstream.input.clear();
                    break;
                }
                Step::Pause { exchange, place } => {
                    self.judge_again(decoder, client, wheel, (exchange, place));
                }
                Step::Ask(_) | Step::Enquire(_) | Step::StartTls(_) | Step::Open(_) | Step::Cancel(_) => {
                    return Err(End::Internal("a client's step from the upstream's side"));
                }
            }
        }
        Ok(())
    }

    /// What has passed of an answer may have used up a budget: then the answer ends here.
    fn judge_again(
        &mut self,
        decoder: &mut dyn Decoder,
        client: &mut Leg,
        wheel: &mut Wheel,
        (exchange, place): (u64, usize),
    ) {
        let (actions, record) = self.ledger.under_way(exchange, place);
        if let Err((denial, reason)) = self.budget.goes_on(actions, place, record) {
            let stopped = decoder.stop(&denial);
            client.out.push(&stopped.client);
            if let Some(done) = stopped.done {
                self.ledger.ended(Done { message: Some(reason), ..done });
            }
            wheel.cancelling = Some(self.budget.cancel());
        }
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
        let turn = (held.actions().len() > BATCH).then(|| self.turn.clone());
        let verdict = Box::pin(async move {
            let _turn = match &turn {
                Some(turn) => turn.take().await,
                None => None,
            };
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
        wheel: &mut Wheel,
        held: Held,
        verdict: Verdict,
    ) -> Result<(), End> {
        let Some(Judging { author, number, .. }) = wheel.judging.take() else {
            return Err(End::Internal("a verdict that nobody waited for"));
        };
        match verdict {
            Verdict::Allow(permit) => {
                // Owed from here on, whatever becomes of the bytes.
                self.ledger.sent(number, permit.records());
                let (bytes, actions) =
                    held.open(permit).map_err(|_| End::Internal("a permit for another exchange"))?;
                self.ledger.does(number, actions);
                upstream.out.push(&bytes);
                decoder.sent(number);
                wheel.enquiring = author == Author::Gate;
            }
            Verdict::Deny(denial) => {
                let refusal = decoder.refuse(number, &denial);
                client.out.push(&refusal.client);
                upstream.out.push(&refusal.upstream);
            }
        }
        Ok(())
    }
}

/// Waits for the verdict that is under way, for ever where none is.
async fn judged(judging: &mut Option<Judging>) -> (Held, Verdict) {
    match judging {
        Some(judging) => (&mut judging.verdict).await,
        None => std::future::pending().await,
    }
}

/// Waits until the upstream has taken the wish to cancel, for ever where there is none.
async fn cancelled(cancelling: &mut Option<Cancelling>) {
    match cancelling {
        Some(cancelling) => cancelling.await,
        None => std::future::pending().await,
    }
}

/// Decoders bound their fields; one that does not is stopped here.
fn bounded(client: &Leg, upstream: &Leg) -> Result<(), End> {
    const WHAT: &str = "a message longer than any that is taken";
    if client.input.len() > LONGEST {
        return Err(End::Broken(DecodeError::client(WHAT)));
    }
    if upstream.input.len() > LONGEST {
        return Err(End::Broken(DecodeError::upstream(WHAT)));
    }
    Ok(())
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

/// A fresh cancel key for a client. Its process is the upstream's, by which sessions know themselves and who notified
/// them; its secret tells nothing of the upstream's.
pub(super) fn fresh_key(theirs: Option<&CancelKey>) -> io::Result<CancelKey> {
    let random =
        |bytes: &mut [u8]| getrandom::fill(bytes).map_err(|error| io::Error::other(error.to_string()));
    let process = match theirs {
        Some(key) => key.process,
        None => {
            let mut process = [0; 4];
            random(&mut process)?;
            u32::from_be_bytes(process) & 0x7fff_ffff
        }
    };
    let mut secret = vec![0; 4];
    random(&mut secret)?;
    Ok(CancelKey { process, secret: secret.into() })
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
