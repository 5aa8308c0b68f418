//! Bytes to frames and back: PostgreSQL's message framing, with a limit for each field.
//!
//! Promise: reading never panics, never allocates more than the bytes it was given, and a length that a peer claims
//! is checked against a limit before anything is waited for. It must never know what a message means.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use interceptor_core::protocol::DecodeError;
use zeroize::Zeroizing;

use super::names::Name;

/// The largest start-up packet, as the server itself has it.
pub(super) const MAX_STARTUP: usize = 10_000;
/// The largest Query or Parse message. Texts beyond what the SQL guard reads are refused long before.
pub(super) const MAX_TEXT: usize = 16 << 20;
/// The largest FunctionCall message.
pub(super) const MAX_CALL: usize = 16 << 20;
/// The largest Bind message that is taken whole. All names and formats of a larger one are within as many bytes.
pub(super) const MAX_BIND: usize = 132 << 10;
/// The largest of the small client messages.
pub(super) const MAX_SMALL: usize = 1 << 10;
/// The largest message at the end of COPY data, as the server itself has it.
pub(super) const MAX_COPY_END: usize = 10_000;
/// The largest upstream message that is taken whole, such as an error.
pub(super) const MAX_WHOLE: usize = 4 << 20;
/// The largest authentication message.
pub(super) const MAX_LOGIN: usize = 1 << 16;
/// The longest name of a statement, portal, or cursor; the server keeps no more.
pub(super) const MAX_NAME: usize = 63;

/// A field was missing, too long or not what it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// The head of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// The message's type.
    pub(super) tag: u8,
    /// Its length with the head.
    pub(super) total: usize,
}

/// The head at the beginning of `input`, once five bytes of it are there.
pub(super) fn head(input: &[u8]) -> Result<Option<Head>, Malformed> {
    let Some((&tag, rest)) = input.split_first() else { return Ok(None) };
    let Some(length) = rest.first_chunk::<4>() else { return Ok(None) };
    let length = i32::from_be_bytes(*length);
    let length = usize::try_from(length).map_err(|_| Malformed)?;
    if length < 4 {
        return Err(Malformed);
    }
    Ok(Some(Head { tag, total: length.saturating_add(1) }))
}

/// Takes the next message of an upstream, whose answers are taken whole: its tag and body, once all of it is there.
pub(super) fn answer(input: &mut BytesMut) -> Result<Option<(u8, Bytes)>, DecodeError> {
    let head = head(input).map_err(|_| DecodeError::upstream("a message of impossible length"))?;
    let Some(head) = head else { return Ok(None) };
    if head.total > MAX_WHOLE {
        return Err(DecodeError::upstream("a message longer than any that is taken"));
    }
    let whole = input.len() >= head.total;
    Ok(whole.then(|| (head.tag, input.split_to(head.total).freeze().slice(5..))))
}

/// Reads the fields of one message's body.
#[derive(Debug, Clone)]
pub(super) struct Fields {
    rest: Bytes,
}

impl Fields {
    /// Reads `body`, which is a message without its head.
    pub(super) fn new(body: Bytes) -> Self {
        Self { rest: body }
    }

    /// Reads the body of the whole message `frame`.
    pub(super) fn of(frame: &Bytes) -> Self {
        Self::new(if frame.len() > 5 { frame.slice(5..) } else { Bytes::new() })
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.rest.try_get_u8().map_err(|_| Malformed)
    }

    pub(super) fn i16(&mut self) -> Result<i16, Malformed> {
        self.rest.try_get_i16().map_err(|_| Malformed)
    }

    /// A count: 16 bits without sign, as newer servers read it.
    pub(super) fn count(&mut self) -> Result<usize, Malformed> {
        self.rest.try_get_u16().map(usize::from).map_err(|_| Malformed)
    }

    pub(super) fn i32(&mut self) -> Result<i32, Malformed> {
        self.rest.try_get_i32().map_err(|_| Malformed)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.rest.try_get_u32().map_err(|_| Malformed)
    }

    pub(super) fn take(&mut self, length: usize) -> Result<Bytes, Malformed> {
        if length > self.rest.len() { Err(Malformed) } else { Ok(self.rest.split_to(length)) }
    }

    /// A text that ends with a zero byte, which is taken too.
    pub(super) fn text(&mut self) -> Result<Bytes, Malformed> {
        let end = self.rest.iter().position(|&byte| byte == 0).ok_or(Malformed)?;
        let text = self.rest.split_to(end);
        self.rest.advance(1);
        Ok(text)
    }

    /// The same, as UTF-8.
    pub(super) fn string(&mut self) -> Result<String, Malformed> {
        String::from_utf8(self.text()?.to_vec()).map_err(|_| Malformed)
    }

    /// A name of a statement or portal.
    pub(super) fn name(&mut self) -> Result<Name, Malformed> {
        let text = self.text()?;
        let name = std::str::from_utf8(&text).map_err(|_| Malformed)?;
        if name.len() > MAX_NAME { Err(Malformed) } else { Ok(name.into()) }
    }

    /// A value with its length before it; a negative length is NULL.
    pub(super) fn value(&mut self) -> Result<Option<Bytes>, Malformed> {
        match self.i32()? {
            -1 => Ok(None),
            length => self.take(usize::try_from(length).map_err(|_| Malformed)?).map(Some),
        }
    }

    /// What has not been read.
    pub(super) fn rest(self) -> Bytes {
        self.rest
    }

    /// Whether all has been read.
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Checks that nothing is left over.
    pub(super) fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

/// Writes messages one after another.
#[derive(Debug, Default)]
pub(super) struct Writer {
    out: BytesMut,
}

impl Writer {
    /// Writes one message, whose body `body` writes.
    pub(super) fn message(&mut self, tag: u8, body: impl FnOnce(&mut BytesMut)) {
        self.out.put_u8(tag);
        self.headless(body);
    }

    /// Puts a message that is written already.
    pub(super) fn whole(&mut self, message: &[u8]) {
        self.out.put_slice(message);
    }

    /// Writes one message without a type, as at start-up.
    pub(super) fn headless(&mut self, body: impl FnOnce(&mut BytesMut)) {
        let start = self.out.len();
        self.out.put_i32(0);
        body(&mut self.out);
        let length = u32::try_from(self.out.len().saturating_sub(start)).unwrap_or(u32::MAX);
        if let Some(place) = self.out.get_mut(start..).and_then(<[u8]>::first_chunk_mut::<4>) {
            *place = length.to_be_bytes();
        }
    }

    /// What was written.
    pub(super) fn finish(self) -> Bytes {
        self.out.freeze()
    }

    /// The same, which is wiped when it is not needed any more.
    pub(super) fn finish_wiped(self) -> Zeroizing<Vec<u8>> {
        // There is one owner, so that this is the same room.
        Zeroizing::new(self.out.into())
    }
}

/// Puts a text and its zero byte. A zero byte inside would end it early: it is left out.
pub(super) fn put_text(out: &mut BytesMut, text: &str) {
    out.extend(text.bytes().filter(|&byte| byte != 0));
    out.put_u8(0);
}

/// Puts a value with its length before it.
pub(super) fn put_value(out: &mut BytesMut, value: Option<&[u8]>) {
    match value.map(|value| (value, i32::try_from(value.len()))) {
        Some((value, Ok(length))) => {
            out.put_i32(length);
            out.put_slice(value);
        }
        Some((_, Err(_))) | None => out.put_i32(-1),
    }
}
