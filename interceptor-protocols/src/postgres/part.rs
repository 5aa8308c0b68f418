//! A client's message that is taken in parts, since it is too long to be gathered or goes nowhere.

use std::sync::{Arc, OnceLock};

use bytes::{Buf, Bytes, BytesMut};
use interceptor_core::{
    mask::Comparison,
    protocol::{DecodeError, Step},
};
use smallvec::smallvec;

use super::{
    action::{Change, Portal, Prepared},
    bind::Bind,
    decode::PostgresDecoder,
    frame::{Head, Malformed},
    large::LargeBind,
    queue::{Entry, Kind},
    veil::Behind,
};

/// What is left of a message.
#[derive(Debug)]
pub(super) struct Part {
    /// How many bytes.
    pub(super) left: usize,
    /// Where they go.
    pub(super) way: Way,
}

/// Where the bytes of a message go as they come.
#[derive(Debug)]
pub(super) enum Way {
    /// Upstream.
    Passed,
    /// Nowhere.
    Dropped,
    /// Upstream, and are read on the way: a Bind of this statement.
    Bound(Box<LargeBind>, Arc<Prepared>),
}

/// How many bytes of a portal's values are kept as they came.
const KEPT_VALUES: usize = 64 << 10;

impl PostgresDecoder {
    /// Goes on with a message that is taken in parts; `None` where there is none.
    pub(super) fn part(&mut self, input: &mut BytesMut) -> Result<Option<Step>, DecodeError> {
        let Some(mut part) = self.part.take() else { return Ok(None) };
        let here = part.left.min(input.len());
        if here == 0 {
            self.part = Some(part);
            return Ok(Some(Step::Wait));
        }
        part.left = part.left.saturating_sub(here);
        let bytes = input.split_to(here).freeze();
        let passed = match &mut part.way {
            Way::Passed => bytes,
            Way::Dropped => Bytes::new(),
            Way::Bound(large, _) => {
                large.feed(bytes.clone()).map_err(malformed)?;
                bytes
            }
        };
        match part {
            Part { left: 0, way: Way::Bound(large, prepared) } => {
                let bind = large.finish().map_err(malformed)?;
                self.bound(bind, &prepared, prepared.replaced.clone());
            }
            Part { left: 0, way: Way::Passed | Way::Dropped } => {}
            part => self.part = Some(part),
        }
        Ok(Some(Step::Pass(passed)))
    }

    /// Takes a message that goes nowhere, of which the head is there.
    pub(super) fn drop_message(&mut self, head: Head, input: &mut BytesMut) -> Step {
        let here = head.total.min(input.len());
        input.advance(here);
        self.drop_rest(head.total.saturating_sub(here))
    }

    /// The rest of the message under way goes nowhere.
    pub(super) fn drop_rest(&mut self, left: usize) -> Step {
        self.part = (left > 0).then_some(Part { left, way: Way::Dropped });
        Step::Pass(Bytes::new())
    }

    /// A Bind of a statement that was prepared goes upstream, with these tokens replaced.
    pub(super) fn bound(&mut self, bind: Bind, prepared: &Prepared, replaced: Vec<Comparison>) {
        let reading = prepared.reading.clone();
        let kept = reading.is_change().then(|| bind.given.kept(KEPT_VALUES)).flatten();
        let given = kept.map(|given| Arc::new((given, prepared.types.clone())));
        let portal = Portal {
            reading,
            binds: bind.values(&prepared.types),
            given,
            described: OnceLock::new(),
            rows: Behind {
                described: smallvec![prepared.described.clone()],
                prepared_as: prepared.provenance.clone(),
                formats: bind.formats,
            },
            replaced,
        };
        let changes = self.plan(Change::Bind(bind.portal, portal));
        self.queue.push(Entry::new(Kind::Bind(changes), None));
        self.piping = true;
    }
}

fn malformed(_: Malformed) -> DecodeError {
    DecodeError::client("a malformed 'B' message")
}
