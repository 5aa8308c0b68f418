//! What a relay waits for, and in which order it is taken.
//!
//! Promise: nothing is lost by waiting again, and whoever has left is noticed before anything more is done for them. It
//! must never know what bytes mean.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use interceptor_core::{Held, Notice, Side, Verdict, catalogue::Ended, model::Author};

use super::{
    budget::Cancelling,
    leg::{FULL, Leg},
    patient::Bedside,
    registry::Ending,
    turns::{Room, Turn},
};

/// How long a session waits for what another one asks.
const OTHERS_LOOK_UP: Duration = Duration::from_millis(250);

/// What is at the gate.
pub(super) struct Judging {
    pub(super) author: Author,
    pub(super) bedside: Bedside,
    pub(super) verdict: BoxFuture<'static, (Held, Verdict)>,
}

/// What the relay waited for.
#[expect(clippy::large_enum_variant, reason = "it is moved once, to whoever waits for it")]
pub(super) enum Event {
    /// The operator, a new policy or the daemon's own end.
    Told(Ending),
    /// A verdict.
    Judged(Author, Held, Verdict),
    /// Something to tell a client that waits.
    Notice(Notice),
    /// Bytes came, or went where that lets others come.
    Moved,
    /// There is room for a large message.
    Room(Room),
    /// A socket failed.
    Failed(Side, io::Error),
}

/// Where the client's decoding stands.
#[derive(Default)]
pub(super) struct Wheel {
    pub(super) judging: Option<Judging>,
    /// A look-up has been sent and the client is held until its answer is decoded.
    pub(super) enquiring: bool,
    /// The decoder has taken all that it can from the client's input and wants more of it.
    pub(super) thirsty: bool,
    /// It was only stopped so that others get a turn.
    pub(super) more: bool,
    /// Others have had it.
    pub(super) gave_way: bool,
    /// The daemon stops: the session ends as soon as nothing is under way in it.
    pub(super) leaving: bool,
    /// An answer was cut short, and the upstream is asked to stop. What the client sends next must not be what it stops.
    pub(super) cancelling: Option<Cancelling>,
    /// Leave to hold a message of more than [`FULL`] bytes.
    pub(super) room: Option<Room>,
    /// Waits for that.
    waiting: Option<BoxFuture<'static, Room>>,
    /// The end of another session's look-up, or of patience with it.
    others: Option<BoxFuture<'static, ()>>,
}

impl Wheel {
    /// Whether the client's bytes would have a place.
    fn takes(&self, client: &Leg, upstream: &Leg) -> bool {
        client.open
            && !upstream.out.is_full()
            && (client.input.len() < FULL || (self.thirsty && self.room.is_some()))
    }

    /// Whether the client's next message may be decoded.
    pub(super) fn waits_for_nothing(&self) -> bool {
        self.judging.is_none() && self.cancelling.is_none() && self.others.is_none()
    }

    /// The client's next message waits for another session's look-up.
    pub(super) fn awaits(&mut self, ended: Ended) {
        self.others = Some(Box::pin(async {
            // Too long, and this session asks itself.
            let _ = tokio::time::timeout(OTHERS_LOOK_UP, ended).await;
        }));
    }

    fn wants_room(&self, client: &Leg) -> bool {
        client.open && self.thirsty && self.room.is_none() && client.input.len() >= FULL
    }

    /// Waits for whichever comes first. Nothing is lost by waiting again.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        told: Pin<&mut impl Future<Output = Ending>>,
        (client, upstream): (&mut Leg, &mut Leg),
        turn: &Turn,
    ) -> Poll<Event> {
        if !self.leaving
            && let Poll::Ready(ending) = told.poll(cx)
        {
            return Poll::Ready(Event::Told(ending));
        }
        // Before the verdict: nothing is done for a client that has left.
        if self.judging.is_some()
            && self.takes(client, upstream)
            && let Poll::Ready(event) = receive(cx, Side::Client, client)
        {
            return Poll::Ready(event);
        }
        if let Some(judging) = &mut self.judging
            && let Poll::Ready(Some(notice)) = judging.bedside.notices.poll_recv(cx)
        {
            return Poll::Ready(Event::Notice(notice));
        }
        if let Some(judging) = &mut self.judging
            && let Poll::Ready((held, verdict)) = judging.verdict.as_mut().poll(cx)
        {
            let author = judging.author;
            self.judging = None;
            return Poll::Ready(Event::Judged(author, held, verdict));
        }
        if let Some(cancelling) = &mut self.cancelling
            && cancelling.as_mut().poll(cx).is_ready()
        {
            self.cancelling = None;
            return Poll::Ready(Event::Moved);
        }
        if let Some(others) = &mut self.others
            && others.as_mut().poll(cx).is_ready()
        {
            self.others = None;
            return Poll::Ready(Event::Moved);
        }
        if let Poll::Ready(event) = send(cx, client, upstream) {
            return Poll::Ready(event);
        }
        if upstream.open
            && !client.out.is_full()
            && let Poll::Ready(event) = receive(cx, Side::Upstream, upstream)
        {
            return Poll::Ready(event);
        }
        if self.wants_room(client) {
            let waiting = self.waiting.get_or_insert_with(|| turn.room());
            if let Poll::Ready(room) = waiting.as_mut().poll(cx) {
                self.waiting = None;
                return Poll::Ready(Event::Room(room));
            }
        } else {
            self.waiting = None;
        }
        if self.takes(client, upstream)
            && let Poll::Ready(event) = receive(cx, Side::Client, client)
        {
            return Poll::Ready(event);
        }
        if self.more && std::mem::replace(&mut self.gave_way, true) {
            return Poll::Ready(Event::Moved);
        }
        if self.more {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

/// Reads once from a peer.
fn receive(cx: &mut Context<'_>, side: Side, leg: &mut Leg) -> Poll<Event> {
    leg.poll_read(cx).map(|read| match read {
        Ok(0) => {
            leg.open = false;
            Event::Moved
        }
        Ok(_) => Event::Moved,
        Err(error) => Event::Failed(side, error),
    })
}

/// Sends what waits for either peer. Ready where that is news to the wheel: a peer failed, or something that stood
/// still may go on.
fn send(cx: &mut Context<'_>, client: &mut Leg, upstream: &mut Leg) -> Poll<Event> {
    let stood = [client.out.is_full(), upstream.out.is_full()];
    let ending = !client.open || !upstream.open;
    let wanted = client.out.wants() || upstream.out.wants();
    if let Poll::Ready(Err(_)) = upstream.poll_send(cx) {
        // It has closed; why is in what it sent before, which is read to its end.
        upstream.out.give_up();
        return Poll::Ready(Event::Moved);
    }
    if let Poll::Ready(Err(error)) = client.poll_send(cx) {
        return Poll::Ready(Event::Failed(Side::Client, error));
    }
    let done = wanted && !client.out.wants() && !upstream.out.wants();
    if (ending && done) || stood != [client.out.is_full(), upstream.out.is_full()] {
        return Poll::Ready(Event::Moved);
    }
    Poll::Pending
}
