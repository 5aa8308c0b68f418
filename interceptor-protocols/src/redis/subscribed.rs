//! What comes by subscription: messages, which answer nothing, and the confirmations that say how many subscriptions there
//! are (redis.io, "Redis Pub/Sub", "Format of pushed messages"; RESP3 specification, "Push type").
//!
//! Promise: in RESP2 an array is taken for a message only while the server has told that something is subscribed to, when no command
//! that is allowed answers with one.

use bytes::BytesMut;
use interceptor_core::{
    model::Spent,
    protocol::{DecodeError, Endings, Step},
};

use super::{
    decode::RedisDecoder,
    queue::{Kind, Left, Subscription},
    reply::{self, Part},
    upstream::end,
};

/// The longest name of what is pushed, in bytes.
const NAME: usize = 64;
/// The longest confirmation, in bytes.
const CONFIRMATION: usize = 1 << 20;
/// What is pushed to subscribers, as RESP2 names it.
const MESSAGES: [&[u8]; 3] = [b"message", b"pmessage", b"smessage"];

/// Whom an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// The command at the front.
    Front,
    /// Nobody: it was subscribed to.
    Nobody,
}

/// What the next answer is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// More is needed to tell.
    Unknown,
    /// An answer, or what was subscribed to.
    Is(Whose),
    /// A confirmation of the command at the front.
    Confirmation(Confirmation),
}

/// A confirmation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Confirmation {
    of: Subscription,
    /// How many bytes it has.
    total: usize,
    /// How many subscriptions there are, as it counts them.
    count: u64,
    /// Whether it names none.
    nothing: bool,
}

/// A string, or the lack of one, that was read.
struct Channel {
    /// How many bytes it took.
    length: usize,
    /// Whether there is none.
    nothing: bool,
}

/// The string, or the lack of one, at the beginning of `input`; none where more is needed.
fn channel(input: &[u8]) -> Result<Option<Channel>, DecodeError> {
    match reply::part(input)? {
        Some(Part::String { header, length, .. }) => {
            let whole = header.saturating_add(length).saturating_add(2);
            Ok((input.len() >= whole).then_some(Channel { length: whole, nothing: false }))
        }
        Some(Part::Null { total } | Part::Line { mark: b'_', total }) => {
            Ok(Some(Channel { length: total, nothing: true }))
        }
        None => Ok(None),
        Some(Part::Line { .. } | Part::Values { .. }) => {
            Err(DecodeError::upstream("a confirmation of a subscription is not in the form that is read"))
        }
    }
}

impl RedisDecoder {
    /// What the answer at the beginning of `input` is.
    pub(super) fn next(&self, input: &[u8]) -> Result<Next, DecodeError> {
        let front = match self.queue.front() {
            Some(_) => Ok(Next::Is(Whose::Front)),
            None => Err(DecodeError::upstream("it answers what was not asked")),
        };
        let Some(mark) = input.first().copied() else { return Ok(Next::Unknown) };
        let confirms = match self.queue.front().map(|entry| &entry.kind) {
            Some(Kind::Confirmations { of, .. }) => Some(*of),
            _ => None,
        };
        let pushed = mark == b'>';
        if !pushed && (mark != b'*' || (self.subscribed.is_none() && confirms.is_none())) {
            return front;
        }
        let Some(part) = reply::part(input)? else { return Ok(Next::Unknown) };
        let Part::Values { total, .. } = part else { return front };
        let rest = input.get(total..).unwrap_or_default();
        let (header, length) = match reply::part(rest)? {
            None => return Ok(Next::Unknown),
            Some(Part::String { header, length, .. }) if length <= NAME => (header, length),
            Some(_) if pushed => return Ok(Next::Is(Whose::Nobody)),
            Some(_) => return front,
        };
        let behind = header.saturating_add(length).saturating_add(2);
        let Some(name) = rest.get(header..behind).and_then(|text| text.get(..length)) else {
            return Ok(Next::Unknown);
        };
        match (Subscription::of(name), confirms) {
            (Some(of), Some(expected)) if of == expected => {
                confirmation(of, input, total.saturating_add(behind))
            }
            (Some(_), _) => Ok(Next::Is(Whose::Nobody)),
            (None, _) if pushed || MESSAGES.contains(&name) => Ok(Next::Is(Whose::Nobody)),
            (None, _) => front,
        }
    }

    /// Takes a confirmation.
    pub(super) fn confirmed(&mut self, input: &mut BytesMut, confirmation: Confirmation) -> Step {
        let Confirmation { of, total, count, nothing } = confirmation;
        let bytes = input.split_to(total.min(input.len())).freeze();
        let long = u64::try_from(total).unwrap_or(u64::MAX);
        self.meter.count(Spent { bytes: long, ..Spent::default() });
        let subscribed = &mut self.subscribed;
        // Channels and patterns are counted together.
        let own = match of {
            Subscription::Channels => {
                subscribed.channels = count.saturating_sub(subscribed.patterns);
                subscribed.channels
            }
            Subscription::Patterns => {
                subscribed.patterns = count.saturating_sub(subscribed.channels);
                subscribed.patterns
            }
            Subscription::Shards => {
                subscribed.shards = count;
                count
            }
        };
        let mut done = Endings::new();
        let over = match self.queue.front_mut().map(|entry| &mut entry.kind) {
            Some(Kind::Confirmations { left: Left::Count(left), .. }) => {
                *left = left.saturating_sub(1);
                *left == 0
            }
            Some(Kind::Confirmations { left: Left::UntilNone, .. }) => nothing || own == 0,
            _ => false,
        };
        if over && let Some(entry) = self.queue.pop() {
            done.extend(entry.exchange.map(|exchange| end(exchange, None)));
        }
        Step::Answer { bytes, done }
    }
}

/// The confirmation in `input`, of which `at` bytes were read.
fn confirmation(of: Subscription, input: &[u8], at: usize) -> Result<Next, DecodeError> {
    let wrong = || DecodeError::upstream("a confirmation of a subscription is not in the form that is read");
    let rest = input.get(at..).unwrap_or_default();
    let more = || if input.len() > CONFIRMATION { Err(wrong()) } else { Ok(Next::Unknown) };
    let Some(channel) = channel(rest)? else { return more() };
    let at = at.saturating_add(channel.length);
    let rest = input.get(at..).unwrap_or_default();
    match reply::part(rest)? {
        None => more(),
        Some(Part::Line { mark: b':', total }) => {
            let digits = rest.get(1..total.saturating_sub(2)).unwrap_or_default();
            let count = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
            let count = count.ok_or_else(wrong)?;
            let total = at.saturating_add(total);
            Ok(Next::Confirmation(Confirmation { of, total, count, nothing: channel.nothing }))
        }
        Some(_) => Err(wrong()),
    }
}
