//! The client's side: commands become exchanges.
//!
//! Promise: nothing of a command is sent before it was judged, but for the rest of one long last value behind its head, and
//! QUIT. The client's own log-in is never sent.

use bytes::{Bytes, BytesMut};
use interceptor_core::{
    mask::{Mask, Provenance},
    model::{Action, Binds, Phase, Principal, StatementFacts, Target, Text, Verb},
    permit::{Circumstances, Denial, Held, Waits},
    protocol::{DecodeError, Inspection, Opening, Refusal, Step},
};

use super::{
    command::{Command, written},
    decode::{Began, RedisDecoder, State, Transaction},
    queue::{Entry, Kind, Left, Subscription},
    reading::{Reading, read},
    table::{Course, find},
    text, words,
};

/// The first byte of a TLS handshake record (RFC 8446, 5.1).
const HANDSHAKE: u8 = 0x16;

/// A command that can be judged.
#[derive(Debug, Clone)]
pub(super) struct Ready {
    action: Action,
    /// What is sent for it.
    send: Bytes,
    kind: Kind,
    changes: u64,
    waits: Waits,
    /// How many bytes follow what is sent.
    rest: usize,
}

/// A command that is being judged.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) number: u64,
    pub(super) ready: Ready,
}

/// The rest of a long value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    /// It goes where its head went.
    Passes(usize),
    /// Its head was refused: it goes nowhere.
    Dropped(usize),
}

impl RedisDecoder {
    pub(super) fn client(&mut self, input: &mut BytesMut) -> Result<Step, DecodeError> {
        match (self.state, input.first()) {
            (State::Start(_), None) => Ok(Step::Wait),
            (State::Start(Began::Plain), Some(&HANDSHAKE)) => {
                self.state = State::Start(Began::Tls);
                Ok(Step::StartTls(Bytes::new()))
            }
            (State::Start(_), Some(_)) => {
                self.state = State::Opening;
                let number = self.number();
                Ok(Step::Open(opening(number)))
            }
            (State::Opening | State::Leaving | State::Over, _) => Ok(Step::Wait),
            (State::Session, _) => self.session(input),
        }
    }

    fn session(&mut self, input: &mut BytesMut) -> Result<Step, DecodeError> {
        if self.asked.is_some() {
            return Ok(Step::Hold);
        }
        if let Some(ready) = self.again.take() {
            return Ok(self.ask(ready));
        }
        if let Some(tail) = self.tail {
            return Ok(self.tail(tail, input));
        }
        if self.queue.is_full() || self.queued.len() >= super::queue::MOST {
            return Ok(Step::Hold);
        }
        let ends_in_a_value = |before: &[&[u8]], count| {
            let known = before.first().and_then(|first| find(first, before.get(1).copied()));
            known.is_some_and(|known| known.ends_in_a_value(count))
        };
        match self.scan.take(input, ends_in_a_value)? {
            Some(command) => Ok(self.command(&command)),
            None => Ok(Step::Wait),
        }
    }

    /// Takes what has come of the rest of a long value.
    fn tail(&mut self, tail: Tail, input: &mut BytesMut) -> Step {
        let (Tail::Passes(rest) | Tail::Dropped(rest)) = tail;
        if input.is_empty() {
            return Step::Wait;
        }
        let part = input.split_to(rest.min(input.len())).freeze();
        let rest = rest.saturating_sub(part.len());
        let (left, step) = match tail {
            Tail::Passes(_) => (Tail::Passes(rest), Step::Pass(part)),
            Tail::Dropped(_) => (Tail::Dropped(rest), Step::Reply(Bytes::new())),
        };
        self.tail = (rest > 0).then_some(left);
        step
    }

    fn command(&mut self, command: &Command) -> Step {
        let arguments = command.arguments();
        let Reading { mut facts, parts, course, changes } = read(&arguments);
        let last = command.more.map(|more| more.length);
        let shown = text::command(parts.into_iter().zip(arguments.iter().copied()), last);
        let open = self.sends_into == Transaction::Open;
        let count = arguments.len();
        let mut send = command.bytes.clone();
        let mut never = None;
        let kind = match course {
            Course::Quit if count == 1 => {
                self.state = State::Leaving;
                self.queue.push(entry(Kind::Plain, None));
                return Step::Close(command.bytes.clone());
            }
            Course::Auth if !open && (2..=3).contains(&count) => {
                return Step::Reply(self.say(Bytes::from_static(words::OK)));
            }
            // What stands behind it was not judged.
            Course::Quit => {
                never = Some("QUIT takes no arguments");
                Kind::Plain
            }
            Course::Auth => {
                never = Some("the log-in is the interceptor's own, and is not changed");
                Kind::Plain
            }
            Course::Hello if !open => {
                send = without_log_in(&arguments);
                Kind::Plain
            }
            Course::Hello | Course::Subscribe | Course::Unsubscribe if open => {
                never = Some("its answer within a transaction could not be told apart");
                Kind::Plain
            }
            Course::Subscribe | Course::Unsubscribe => confirmations(&arguments),
            Course::Never(why) => {
                never = Some(why);
                Kind::Plain
            }
            Course::Plain | Course::Hello => Kind::Plain,
            Course::Multi => Kind::Multi,
            Course::Exec => Kind::Exec,
            Course::Discard => Kind::Discard,
        };
        if let Some(why) = never {
            send = words::failing(&format!("it is never sent, since {why}"));
            if facts.unknown.is_none() {
                facts = StatementFacts::unknown(format!("it is never sent, since {why}"));
            }
        }
        if !self.labels.is_empty() && facts.unknown.is_none() {
            // No label is bound to keys: what is hidden is told by its form.
            facts.provenance = Some(Provenance::clean().into());
        }
        let waits = match (command.more, open) {
            // Whoever approves it would not see all of it.
            (Some(_), _) => Waits::Never,
            (None, true) => Waits::InTransaction,
            (None, false) => Waits::Here,
        };
        let action =
            Action { facts: facts.into(), phase: Phase::Query, text: Text::from(shown), binds: Binds::new() };
        let rest = command.more.map_or(0, |more| more.rest);
        self.ask(Ready { action, send, kind, changes, waits, rest })
    }

    fn ask(&mut self, ready: Ready) -> Step {
        let number = self.number();
        let circumstances = Circumstances { waits: ready.waits, ..Circumstances::default() };
        let held = Held::new(number, vec![ready.action.clone()], ready.send.clone()).under(circumstances);
        self.asked = Some(Asked { number, ready });
        Step::Ask(held)
    }

    pub(super) fn was_sent(&mut self, asked: Asked, mask: Mask) {
        let Asked { number, ready } = asked;
        match ready.kind {
            Kind::Multi => self.sends_into = Transaction::Open,
            Kind::Exec | Kind::Discard => self.sends_into = Transaction::None,
            Kind::Plain | Kind::Confirmations { .. } | Kind::Ours(_) => {}
        }
        self.tail = (ready.rest > 0).then_some(Tail::Passes(ready.rest));
        self.mask = Some(mask.clone());
        let changes = ready.changes;
        self.queue.push(Entry { kind: ready.kind, exchange: Some(number), replaced: None, mask, changes });
    }

    pub(super) fn was_refused(&mut self, asked: Asked, denial: &Denial) -> Refusal {
        let error = words::refusal(denial);
        let Ready { kind, rest, .. } = asked.ready;
        self.tail = (rest > 0).then_some(Tail::Dropped(rest));
        if self.sends_into == Transaction::None {
            return Refusal { client: self.say(error), upstream: Bytes::new() };
        }
        // The transaction must not be carried out without it.
        let (kind, upstream) = match kind {
            Kind::Exec | Kind::Discard => {
                self.sends_into = Transaction::None;
                (Kind::Discard, words::discard())
            }
            Kind::Plain | Kind::Multi | Kind::Confirmations { .. } | Kind::Ours(_) => {
                let record = denial.record.map_or_else(String::new, |record| format!(", record {record}"));
                (Kind::Plain, words::failing(&format!("refused{record}")))
            }
        };
        self.queue.push(entry(kind, Some(error)));
        Refusal { client: Bytes::new(), upstream }
    }
}

/// An entry that nothing is told of.
fn entry(kind: Kind, replaced: Option<Bytes>) -> Entry {
    Entry { kind, exchange: None, replaced, mask: Mask::Nothing, changes: 0 }
}

fn opening(number: u64) -> Opening {
    let action = Action {
        facts: StatementFacts::single(Verb::Connect, Target::Resource).into(),
        phase: Phase::Connect,
        text: Text::new(),
        binds: Binds::new(),
    };
    Opening {
        held: Held::new(number, vec![action], Bytes::new()),
        // It is asked for before the client has said who it is.
        claimed: Principal::default(),
        parameters: Vec::new(),
        version: 0,
        then: Inspection::Full,
    }
}

/// A HELLO without its AUTH, of which two arguments are the log-in.
fn without_log_in(arguments: &[&[u8]]) -> Bytes {
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut place = 0;
    while let Some(argument) = arguments.get(place) {
        let is_auth = place >= 2 && argument.eq_ignore_ascii_case(b"auth");
        let is_name = place >= 2 && argument.eq_ignore_ascii_case(b"setname");
        if is_auth {
            place = place.saturating_add(3);
            continue;
        }
        kept.push(argument);
        place = place.saturating_add(1);
        if is_name {
            kept.extend(arguments.get(place));
            place = place.saturating_add(1);
        }
    }
    written(&kept)
}

/// What a SUBSCRIBE or UNSUBSCRIBE of any kind is answered.
fn confirmations(arguments: &[&[u8]]) -> Kind {
    let Some(of) = arguments.first().and_then(|name| Subscription::of(name)) else { return Kind::Plain };
    let left = match arguments.len().saturating_sub(1) {
        0 => Left::UntilNone,
        count => Left::Count(count),
    };
    Kind::Confirmations { of, left }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_loses_its_log_in_alone() {
        for (line, left) in [
            ("HELLO", "HELLO"),
            ("HELLO 3", "HELLO 3"),
            ("HELLO 3 AUTH u p", "HELLO 3"),
            ("HELLO 3 auth u p SETNAME n", "HELLO 3 SETNAME n"),
            ("HELLO 3 SETNAME auth AUTH u p", "HELLO 3 SETNAME auth"),
            ("HELLO 3 AUTH u", "HELLO 3"),
        ] {
            let words = |line: &str| written(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
            let arguments: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            assert_eq!(without_log_in(&arguments), words(left), "{line}");
        }
    }
}
