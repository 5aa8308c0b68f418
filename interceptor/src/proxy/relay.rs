//! The relay: one loop for every protocol.
//!
//! It reads both sides, lets the decoder say what the bytes are, takes each exchange to the gate, and sends on only
//! what came back with a permit. Reading and writing never wait for each other, so that a peer that writes without
//! reading cannot stall the other direction; both directions have bounded buffers, and a full one stops the
//! reading that would fill it. An exchange at the gate stops the client's decoding only.

use std::{future::poll_fn, io, pin::pin, sync::Arc, time::Duration};

use bytes::BytesMut;
use interceptor_core::{
    Decoder, Denial, Gate, Held, Side, Step, Verdict,
    enclosure::exceeded,
    model::Author,
    protocol::{CancelKey, DecodeError, Done},
};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::{
    absent::Absent,
    budget::Budget,
    leg::{FULL, Leg},
    patient::Patient,
    registry::{Cancels, Ending, Told},
    stream::Stream,
    turns::Turn,
    wheel::{Event, Judging, Wheel},
};
use crate::gate::Ledger;

/// A step that may read this much of a client's input is taken in the run's turn, away from its neighbours, and so are those behind
/// smaller ones that together have. In bytes.
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
    /// Judges.
    pub gate: Arc<dyn Gate>,
    /// Outcomes owed.
    pub ledger: Ledger,
    /// The run's share of decoding time.
    pub turn: &'a Turn,
    /// What the session may have sent back to it.
    pub budget: Budget,
}

impl Relay<'_> {
    /// Runs until an end; the client has been told by then, where it could be.
    pub(super) async fn run(mut self, mut decoder: Box<dyn Decoder>, legs: Legs, told: Told) -> End {
        let mut client = Leg::new(legs.client, legs.client_input);
        let mut upstream = Leg::new(legs.upstream, legs.upstream_input);
        let end = self.turn_the_wheel(&mut decoder, &mut client, &mut upstream, told).await;
        if let Some(denial) = last_word(&end) {
            client.out.push(decoder.farewell(&denial));
        }
        if matches!(end, End::Told(_) | End::Internal(_)) {
            // Whoever ended it wants nothing more done there; what was permitted meanwhile ends as `unknown`.
            upstream.out.clear();
        }
        // What the peers have not taken within the deadline, they never will.
        let _ = tokio::join!(
            tokio::time::timeout(LAST_BYTES, client.finish()),
            tokio::time::timeout(LAST_BYTES, upstream.finish()),
        );
        end
    }

    async fn turn_the_wheel(
        &mut self,
        decoder: &mut Box<dyn Decoder>,
        client: &mut Leg,
        upstream: &mut Leg,
        told: Told,
    ) -> End {
        let mut wheel = Wheel::default();
        let cancels = told.cancels();
        let mut told = pin!(async move { told.wait().await });
        loop {
            if let Err(end) = self.advance(decoder, client, upstream, (&mut wheel, &cancels)).await {
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
            if let Some(judging) = wheel.judging.as_ref().filter(|_| !client.open) {
                judging.bedside.left();
            }
            if !client.open && wheel.thirsty {
                // Only now: what the client sent before it closed may have been waiting for a verdict.
                upstream.out.close();
            }
            if wheel.judging.is_none() && client.input.len() < FULL && !upstream.out.is_full() {
                wheel.room = None;
            }
            wheel.gave_way = false;
            match poll_fn(|cx| wheel.poll(cx, told.as_mut(), (&mut *client, &mut *upstream), self.turn)).await
            {
                // What is under way may end first, within the daemon's own deadline.
                Event::Told(Ending::Stopping) => wheel.leaving = true,
                Event::Told(ending) => return End::Told(ending),
                Event::Judged(author, held, verdict) => {
                    let settled =
                        self.settle(&mut **decoder, client, upstream, &mut wheel, (author, held, verdict));
                    if let Err(end) = settled {
                        return end;
                    }
                }
                Event::Moved => {}
                // In the middle of something else it is left out: another follows.
                Event::Notice(notice) => client.out.push(decoder.notice(&notice).unwrap_or_default()),
                Event::Room(room) => wheel.room = Some(room),
                Event::Failed(side, error) => return End::Io(side, error),
            }
        }
    }

    /// Decodes what can be decoded without waiting, within the client's share of steps.
    async fn advance(
        &mut self,
        decoder: &mut Box<dyn Decoder>,
        client: &mut Leg,
        upstream: &mut Leg,
        (wheel, cancels): (&mut Wheel, &Cancels),
    ) -> Result<(), End> {
        (wheel.thirsty, wheel.more) = (false, false);
        let mut light = HEAVY;
        for _ in 0..STEPS {
            self.advance_upstream(&mut **decoder, client, upstream, wheel)?;
            if !wheel.waits_for_nothing() || client.out.is_full() || upstream.out.is_full() {
                return Ok(());
            }
            let there = client.input.len();
            let step = if decoder.next_reads(&client.input) < light {
                decoder.step(Side::Client, &mut client.input)
            } else {
                self.heavy_step(decoder, &mut client.input).await?
            };
            light = light.saturating_sub(there.saturating_sub(client.input.len()));
            let step = step.map_err(End::Broken)?;
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
                Step::Await(ended) => {
                    wheel.awaits(ended);
                    return Ok(());
                }
                Step::Pass(bytes) => {
                    upstream.out.push(bytes);
                    continue;
                }
                Step::Reply(bytes) => {
                    client.out.push(bytes);
                    continue;
                }
                Step::Close(bytes) => {
                    upstream.out.push(bytes);
                    upstream.out.close();
                    client.open = false;
                    client.input.clear();
                    continue;
                }
                Step::Answer { bytes, done } => {
                    client.out.push(bytes);
                    done.into_iter().for_each(|done| self.ledger.ended(done));
                    continue;
                }
                Step::StartTls(_)
                | Step::Open(_)
                | Step::Cancel(_)
                | Step::Pause { .. }
                | Step::Exceeds { .. } => {
                    return Err(End::Internal("a step of the start-up in the middle of a session"));
                }
            };
            if held.actions().len() <= BATCH
                && let Some(verdict) = self.gate.judge_now(&held, author)
            {
                self.settle(&mut **decoder, client, upstream, wheel, (author, held, verdict))?;
            } else {
                wheel.judging = Some(self.judge(held, author, cancels));
                return Ok(());
            }
        }
        wheel.more = true;
        Ok(())
    }

    /// Takes a step that may be long, in the run's turn and off the threads that serve everybody else.
    async fn heavy_step(
        &self,
        decoder: &mut Box<dyn Decoder>,
        input: &mut BytesMut,
    ) -> Result<Result<Step, DecodeError>, End> {
        let mut taken = (std::mem::replace(decoder, Box::new(Absent)), std::mem::take(input));
        let work = move || {
            let (decoder, input) = &mut taken;
            let step = decoder.step(Side::Client, input);
            (step, taken)
        };
        let (step, taken) = self.turn.heavy(work).await.ok_or(End::Internal("decoding panicked"))?;
        (*decoder, *input) = taken;
        Ok(step)
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
                Step::Pass(bytes) => client.out.push(bytes),
                Step::Reply(bytes) => upstream.out.push(bytes),
                Step::Answer { bytes, done } => {
                    client.out.push(bytes);
                    done.into_iter().for_each(|done| self.ledger.ended(done));
                }
                Step::Close(bytes) => {
                    client.out.push(bytes);
                    upstream.open = false;
                    // Its last word: whatever follows is nobody's.
                    upstream.input.clear();
                    break;
                }
                Step::Pause { exchange, place } => {
                    self.judge_again(decoder, client, wheel, (exchange, place));
                }
                Step::Exceeds { exchange, place, rows } => {
                    let (_, record) = self.ledger.under_way(exchange, place);
                    let denial = Denial { record, ..exceeded(None, rows) };
                    let reason = denial.message.clone();
                    self.cut(decoder, client, wheel, (denial, reason));
                }
                Step::Ask(_)
                | Step::Enquire(_)
                | Step::Await(_)
                | Step::StartTls(_)
                | Step::Open(_)
                | Step::Cancel(_) => {
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
        if let Err(words) = self.budget.goes_on(actions, place, record) {
            self.cut(decoder, client, wheel, words);
        }
    }

    /// The answer under way ends here, in words for the agent and the operator.
    fn cut(
        &mut self,
        decoder: &mut dyn Decoder,
        client: &mut Leg,
        wheel: &mut Wheel,
        (denial, reason): (Denial, String),
    ) {
        let stopped = decoder.stop(&denial);
        client.out.push(stopped.client);
        if let Some(done) = stopped.done {
            self.ledger.ended(Done { message: Some(reason), ..done });
        }
        wheel.cancelling = Some(self.budget.cancel());
    }

    fn judge(&self, held: Held, author: Author, cancels: &Cancels) -> Judging {
        let (patient, bedside) = Patient::new(cancels);
        let gate = self.gate.clone();
        let turn = (held.actions().len() > BATCH).then(|| self.turn.clone());
        let verdict = Box::pin(async move {
            let _turn = match &turn {
                Some(turn) => turn.take().await,
                None => None,
            };
            let verdict = gate.judge(&held, author, &patient).await;
            (held, verdict)
        });
        Judging { author, bedside, verdict }
    }

    fn settle(
        &mut self,
        decoder: &mut dyn Decoder,
        client: &mut Leg,
        upstream: &mut Leg,
        wheel: &mut Wheel,
        (author, held, verdict): (Author, Held, Verdict),
    ) -> Result<(), End> {
        let number = held.number();
        match verdict {
            Verdict::Allow(permit, mask) => {
                // Owed from here on, whatever becomes of the bytes.
                self.ledger.sent(number, permit.records());
                if let Some(record) = permit.records().get(0) {
                    decoder.recorded(number, record);
                }
                let (bytes, actions) =
                    held.open(permit).map_err(|_| End::Internal("a permit for another exchange"))?;
                self.ledger.does(number, actions);
                upstream.out.push(bytes);
                decoder.sent(number, mask);
                wheel.enquiring = author == Author::Gate;
            }
            Verdict::Again if client.open => decoder.again(number),
            Verdict::Enclose(terms) if client.open => decoder.enclose(number, terms),
            Verdict::Again | Verdict::Enclose(_) => return Err(End::Closed),
            Verdict::Deny(denial) => {
                let refusal = decoder.refuse(number, &denial);
                client.out.push(refusal.client);
                upstream.out.push(refusal.upstream);
            }
        }
        Ok(())
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
