//! MySQL's packets (the internals manual's "MySQL Packets" and "Protocol::Basic Data Types"): three bytes of length, one of
//! sequence, the payload.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// The head of a packet, in bytes.
pub(super) const HEAD: usize = 4;
/// The length with which a packet says that it goes on in the next.
pub(super) const WHOLE: usize = 0xff_ffff;

/// A message that is not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// A packet's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) length: usize,
    pub(super) sequence: u8,
}

impl Head {
    /// How long it is with its head.
    pub(super) fn total(self) -> usize {
        self.length.saturating_add(HEAD)
    }
}

/// The head at the beginning of `input`.
pub(super) fn head(input: &[u8]) -> Option<Head> {
    let [low, middle, high, sequence] = *input.first_chunk::<HEAD>()?;
    let length = usize::from(low) | usize::from(middle) << 8 | usize::from(high) << 16;
    Some(Head { length, sequence })
}

/// Puts `payload` into a packet; what is too long for one is cut.
pub(super) fn packet(sequence: u8, payload: &[u8]) -> Bytes {
    let payload = payload.get(..WHOLE.saturating_sub(1)).unwrap_or(payload);
    let mut out = BytesMut::with_capacity(payload.len().saturating_add(HEAD));
    out.put_uint_le(payload.len() as u64, 3);
    out.put_u8(sequence);
    out.put_slice(payload);
    out.freeze()
}

/// What is left of a payload to be read.
#[derive(Debug, Clone)]
pub(super) struct Fields(Bytes);

impl Fields {
    pub(super) fn new(payload: Bytes) -> Self {
        Self(payload)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn rest(&self) -> Bytes {
        self.0.clone()
    }

    pub(super) fn take(&mut self, length: usize) -> Result<Bytes, Malformed> {
        if self.0.len() < length { Err(Malformed) } else { Ok(self.0.split_to(length)) }
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.take(1).map(|mut bytes| bytes.get_u8())
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.take(2).map(|mut bytes| bytes.get_u16_le())
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.take(4).map(|mut bytes| bytes.get_u32_le())
    }

    /// An integer whose first byte says how long it is.
    pub(super) fn integer(&mut self) -> Result<u64, Malformed> {
        let length = match self.u8()? {
            small @ 0..=0xfa => return Ok(small.into()),
            0xfc => 2,
            0xfd => 3,
            0xfe => 8,
            0xfb | 0xff => return Err(Malformed),
        };
        self.take(length).map(|mut bytes| bytes.get_uint_le(length))
    }

    /// A string behind its length.
    pub(super) fn counted(&mut self) -> Result<Bytes, Malformed> {
        let length = self.integer()?;
        self.take(usize::try_from(length).map_err(|_| Malformed)?)
    }

    /// A string that ends with a zero byte.
    pub(super) fn terminated(&mut self) -> Result<Bytes, Malformed> {
        let end = memchr::memchr(0, &self.0).ok_or(Malformed)?;
        let text = self.take(end)?;
        self.u8()?;
        Ok(text)
    }
}

/// The same as UTF-8.
pub(super) fn text(bytes: &[u8]) -> Result<String, Malformed> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Malformed)
}
