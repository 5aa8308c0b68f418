//! A Bind that is too large to be gathered: of each value the beginning is kept for the record, and all of it goes on
//! as it comes.
//!
//! Promise: what is kept of a message is bounded, however long it is. The message is read along as it passes, and its
//! last byte is not passed on before all of it was found well-formed: the server never carries out what was not read.

use bytes::{Buf, Bytes, BytesMut};

use super::{
    bind::{Bind, Formats, Given, KEPT_OF_VALUE, MAX_VALUES, Value},
    frame::{Fields, Malformed},
};

/// How much of all values together is kept.
const KEPT: usize = 256 << 10;

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The length of a value.
    Length,
    /// So many more bytes of a value.
    Value(usize),
    /// How many formats of results there are.
    Formats,
    /// So many more bytes of them.
    Format(usize),
}

/// A Bind that is read as it passes.
#[derive(Debug)]
pub(super) struct LargeBind {
    bind: Bind,
    /// How many values are still to begin.
    to_come: usize,
    next: Next,
    /// The beginning of a number.
    begun: BytesMut,
    kept: usize,
}

impl LargeBind {
    /// Begins with the first bytes of the body, which hold at least all names and formats.
    pub(super) fn begin(first: Bytes) -> Result<Self, Malformed> {
        let mut fields = Fields::new(first);
        let (portal, statement) = (fields.name()?, fields.name()?);
        let (given, to_come) = Given::begin(&mut fields)?;
        let bind = Bind { portal, statement, given, formats: Formats::new() };
        let mut large = Self { bind, to_come, next: Next::Length, begun: BytesMut::new(), kept: 0 };
        large.feed(fields.rest())?;
        Ok(large)
    }

    /// The statement that it binds.
    pub(super) fn statement(&self) -> &str {
        &self.bind.statement
    }

    /// The portal that it makes.
    pub(super) fn portal(&self) -> &str {
        &self.bind.portal
    }

    /// Reads on.
    pub(super) fn feed(&mut self, mut bytes: Bytes) -> Result<(), Malformed> {
        loop {
            self.next = match self.next {
                Next::Length if self.to_come == 0 => Next::Formats,
                Next::Length => {
                    let Some(length) = self.number::<4>(&mut bytes) else { return Ok(()) };
                    self.begin_value(i32::from_be_bytes(length))?
                }
                Next::Value(0) => Next::Length,
                Next::Value(left) if !bytes.is_empty() => {
                    let part = bytes.split_to(left.min(bytes.len()));
                    self.keep(&part);
                    Next::Value(left.saturating_sub(part.len()))
                }
                Next::Formats => {
                    let Some(count) = self.number::<2>(&mut bytes) else { return Ok(()) };
                    Next::Format(usize::from(u16::from_be_bytes(count)).saturating_mul(2))
                }
                Next::Format(0) if bytes.is_empty() => return Ok(()),
                Next::Format(0) => return Err(Malformed),
                Next::Format(left) => {
                    let Some(format) = self.number::<2>(&mut bytes) else { return Ok(()) };
                    self.bind.formats.push(i16::from_be_bytes(format));
                    Next::Format(left.saturating_sub(2))
                }
                Next::Value(_) => return Ok(()),
            };
        }
    }

    /// The whole message, once its last byte has been read.
    pub(super) fn finish(self) -> Result<Bind, Malformed> {
        if self.next == Next::Format(0) { Ok(self.bind) } else { Err(Malformed) }
    }

    fn begin_value(&mut self, length: i32) -> Result<Next, Malformed> {
        self.to_come = self.to_come.saturating_sub(1);
        let value = match length {
            -1 => None,
            length => {
                let length = usize::try_from(length).map_err(|_| Malformed)?;
                Some(Value { head: Bytes::new(), length })
            }
        };
        let left = value.as_ref().map_or(0, |value| value.length);
        if self.bind.given.values.len() < MAX_VALUES {
            self.bind.given.values.push(value);
        } else {
            self.bind.given.omitted = self.bind.given.omitted.saturating_add(1);
        }
        Ok(Next::Value(left))
    }

    /// Keeps the beginning of the value under way.
    fn keep(&mut self, part: &Bytes) {
        if self.bind.given.omitted > 0 {
            return;
        }
        let Some(Some(value)) = self.bind.given.values.last_mut() else { return };
        let room = KEPT_OF_VALUE.saturating_sub(value.head.len()).min(KEPT.saturating_sub(self.kept));
        let more = part.get(..room.min(part.len())).unwrap_or_default();
        if !more.is_empty() {
            self.kept = self.kept.saturating_add(more.len());
            value.head = [&value.head, more].concat().into();
        }
    }

    /// A number of so many bytes, once all of them are there.
    fn number<const N: usize>(&mut self, bytes: &mut Bytes) -> Option<[u8; N]> {
        let missing = N.saturating_sub(self.begun.len()).min(bytes.len());
        self.begun.extend_from_slice(bytes.get(..missing)?);
        bytes.advance(missing);
        let number = self.begun.first_chunk::<N>().copied()?;
        self.begun.clear();
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;

    use super::*;
    use crate::postgres::{bind, frame::put_value};

    fn body(values: &[Option<Vec<u8>>]) -> Bytes {
        let mut out = BytesMut::new();
        out.put_slice(b"portal\0statement\0");
        out.put_u16(1);
        out.put_u16(1);
        out.put_u16(u16::try_from(values.len()).expect("few enough"));
        values.iter().for_each(|value| put_value(&mut out, value.as_deref()));
        out.put_slice(&[0, 2, 0, 0, 0, 1]);
        out.freeze()
    }

    fn read_in_pieces(body: &Bytes, piece: usize) -> Result<Bind, Malformed> {
        let (first, rest) = body.split_at(40.min(body.len()));
        let mut large = LargeBind::begin(Bytes::copy_from_slice(first))?;
        for part in rest.chunks(piece) {
            large.feed(Bytes::copy_from_slice(part))?;
        }
        large.finish()
    }

    #[test]
    fn it_is_told_as_if_it_had_been_gathered() {
        let long = |n: usize| Some((0..n).map(|byte| byte.to_le_bytes()[0]).collect::<Vec<u8>>());
        for values in [
            vec![],
            vec![None],
            vec![Some(vec![])],
            vec![long(1), None, long(5000), long(1024), Some(vec![])],
            vec![long(70_000); 3],
            vec![Some(7_u32.to_be_bytes().to_vec()); 3000],
            vec![long(3000); 200],
        ] {
            let body = body(&values);
            let whole = bind::read(Fields::new(body.clone())).expect("well-formed");
            for piece in [1, 3, 1000, body.len()] {
                let large = read_in_pieces(&body, piece).expect("well-formed");
                assert_eq!((&large.portal, &large.statement), (&whole.portal, &whole.statement));
                assert_eq!(large.values(&[23]), whole.values(&[23]), "{} values", values.len());
            }
        }
    }

    #[test]
    fn every_parameter_that_there_can_be() {
        let values = vec![Some(b"x".to_vec()); 65_535];
        let bind = read_in_pieces(&body(&values), 10_000).expect("well-formed");
        let told = bind.values(&[]);
        assert_eq!(told.len(), MAX_VALUES + 1);
        assert_eq!(told.last().and_then(|last| last.cut_from), Some(65_535 - 1024));
    }

    #[test]
    fn what_is_malformed_is_found_before_its_end() {
        let good = body(&[Some(vec![1; 100])]);
        let longer = [&good[..], b"x"].concat().into();
        let shorter = good.slice(..good.len() - 1);
        let mut negative = BytesMut::from(&good[..]);
        let at = b"portal\0statement\0".len() + 6;
        negative[at..at + 4].copy_from_slice(&(-2_i32).to_be_bytes());
        for body in [longer, shorter, negative.freeze()] {
            assert!(read_in_pieces(&body, 7).is_err());
        }
    }
}
