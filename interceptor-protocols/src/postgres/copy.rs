//! COPY: data that streams under the permit of its statement.
//!
//! Promise: data goes upstream only while the server itself has said that it copies in, for a statement that was
//! judged to do so. What stands behind such a statement is held until the server has said whether it does, so that it
//! is always known which messages the server reads as data: its CopyInResponse, or its error, comes at once and is
//! flushed. While it copies in, the server passes over Flush and Sync: here they end, so that it does not matter
//! whether it still reads when they would arrive. Nothing is gathered.

use bytes::{Bytes, BytesMut};
use interceptor_core::{
    protocol::{DecodeError, Step},
    sql::CopyStream,
};

use super::{
    decode::{PostgresDecoder, State},
    frame::{self, Head, MAX_COPY_END},
    part::{Part, Way},
    queue::{Entry, Kind},
    upstream::unexpected,
};

/// A Flush, which a server that copies in passes over.
pub(super) const FLUSH: &[u8] = b"H\0\0\0\x04";

/// A COPY that the server has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copying {
    /// The client streams.
    In,
    /// The client has ended its stream; the server has not answered yet.
    InEnded,
    /// The server streams.
    Out,
}

/// What the client's next message may be to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CopyIn {
    /// A message like any other.
    None,
    /// Hangs on whether the last message that was sent begins a COPY.
    MayBegin,
    /// Data.
    Open,
}

impl Entry {
    /// Whether the server may still begin to copy in.
    fn may_copy_in(&self) -> bool {
        if self.replaced.is_some() {
            return false;
        }
        let in_from = |copy: Option<CopyStream>| copy == Some(CopyStream::FromClient);
        let ended = usize::from(self.copying == Some(Copying::InEnded));
        match &self.kind {
            Kind::Query { failed: true, .. } => false,
            Kind::Query { opaque: true, .. } => true,
            Kind::Query { places, at, .. } => {
                places.iter().skip(at.saturating_add(ended)).any(|place| in_from(place.copy))
            }
            Kind::Execute { copy, opaque, .. } => ended == 0 && (*opaque || in_from(*copy)),
            _ => false,
        }
    }

    /// CopyInResponse, CopyOutResponse, or the server's CopyDone.
    pub(super) fn copy_answer(&mut self, tag: u8) -> Result<(), DecodeError> {
        let (copy, opaque) = match &self.kind {
            Kind::Query { places, at, opaque, .. } => (places.get(*at).and_then(|place| place.copy), *opaque),
            Kind::Execute { copy, opaque, .. } => (*copy, *opaque),
            _ => (None, false),
        };
        let may = |way: fn(CopyStream) -> bool| opaque || copy.is_some_and(way);
        let goes_in = |way| way == CopyStream::FromClient;
        let comes_out = |way| matches!(way, CopyStream::ToClient(_));
        self.copying = match (tag, self.copying) {
            (b'G', None) if may(goes_in) => Some(Copying::In),
            (b'H', None) if may(comes_out) => Some(Copying::Out),
            (b'G' | b'H', None) => {
                return Err(DecodeError::upstream("it began a COPY that was not asked for"));
            }
            (b'c', Some(Copying::Out)) => None,
            _ => return Err(unexpected(tag)),
        };
        Ok(())
    }

    /// Whether the statement under way may end with this message, as far as its COPY is concerned; that ends too.
    pub(super) fn ends_copy(&mut self, tag: u8) -> bool {
        match self.copying {
            None => true,
            Some(Copying::InEnded) if tag == b'C' => {
                self.copying = None;
                true
            }
            Some(_) => false,
        }
    }
}

impl PostgresDecoder {
    /// What the client's next message may be to the server. Nothing is sent behind a message that may begin a copy
    /// until that is known, so it is the last of the queue.
    pub(super) fn copy_in(&self) -> CopyIn {
        match self.queue.last() {
            Some(Entry { copying: Some(Copying::In), .. }) => CopyIn::Open,
            Some(entry) if entry.may_copy_in() && !self.skips_now() => CopyIn::MayBegin,
            _ => CopyIn::None,
        }
    }

    /// The client's next message waits until the server has said whether it copies in. What is known to copy says so at
    /// once; what could not be read may be anything, whose end the server keeps to itself until it is told to flush.
    pub(super) fn hold(&mut self) -> Step {
        match self.queue.last_mut() {
            Some(Entry { kind: Kind::Execute { opaque: true, .. }, flushed: flushed @ false, .. }) => {
                *flushed = true;
                Step::Pass(Bytes::from_static(FLUSH))
            }
            _ => Step::Hold,
        }
    }

    /// Messages while the server copies in: as many whole ones as are there, and the beginning of another.
    pub(super) fn copy_data(&mut self, input: &mut BytesMut) -> Result<Step, DecodeError> {
        let mut ready = 0_usize;
        loop {
            let rest = input.get(ready..).unwrap_or_default();
            let head =
                frame::head(rest).map_err(|_| DecodeError::client("a message of impossible length"))?;
            match head {
                Some(head) if head.tag == b'd' => {
                    let here = head.total.min(rest.len());
                    ready = ready.saturating_add(here);
                    self.count_copied(head.total);
                    if here < head.total {
                        self.part = Some(Part { left: head.total.saturating_sub(here), way: Way::Passed });
                        break;
                    }
                }
                None if ready == 0 => return Ok(Step::Wait),
                Some(head) if ready == 0 => return self.copy_end(head, input),
                _ => break,
            }
        }
        Ok(Step::Pass(input.split_to(ready).freeze()))
    }

    fn count_copied(&mut self, bytes: usize) {
        if let Some(entry) = self.queue.front() {
            entry.bytes = entry.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        }
    }

    /// What is no data while the server copies in.
    fn copy_end(&mut self, head: Head, input: &mut BytesMut) -> Result<Step, DecodeError> {
        match head.tag {
            b'c' | b'f' | b'H' | b'S' | b'X' if head.total <= MAX_COPY_END => {}
            tag => {
                // The server would close as well: it cannot tell data from messages any more.
                return Err(DecodeError::client(format!(
                    "message {:?} of {} bytes in the middle of a COPY",
                    char::from(tag),
                    head.total
                )));
            }
        }
        if input.len() < head.total {
            return Ok(Step::Wait);
        }
        let frame = input.split_to(head.total).freeze();
        match head.tag {
            b'H' | b'S' => Ok(Step::Pass(Bytes::new())),
            b'X' => {
                self.state = State::Leaving;
                Ok(Step::Close(frame))
            }
            _ => {
                if let Some(entry) = self.queue.front() {
                    entry.copying = Some(Copying::InEnded);
                }
                Ok(Step::Pass(frame))
            }
        }
    }
}
