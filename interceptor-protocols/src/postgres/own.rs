//! Exchanges of the gate's own on a session's connection: the messages of one, and what is still owed of it.
//!
//! Promise: they use a statement and a portal of their own, so that the client's unnamed ones live on; nothing of their
//! answers reaches the client but what `enclose.rs` makes of their end.

use std::borrow::Cow;

use bytes::{BufMut as _, Bytes, BytesMut};
use interceptor_core::{
    catalogue::Asking,
    protocol::DecodeError,
    sql::{Moment, Question},
};

use super::{
    enclose::Part,
    frame::{Writer, put_text, put_value},
    image::Rows,
    lookup::Reader,
    upstream::unexpected,
};

/// What the names of our own statements and portals begin with. A client's may not.
pub(super) const PREFIX: &str = "_interceptor_";

/// What ends an exchange of our own, so that the server answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    /// Sync: the session is outside of a pipeline.
    Sync,
    /// Flush: what is under way ends with the client's own Sync.
    Flush,
}

/// An exchange of our own that is under way.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) ends: Ends,
    pub(super) errand: Errand,
    /// How many of its answers have come: parse, bind, execute, close, close.
    pub(super) stage: u8,
    pub(super) failed: Option<Failed>,
}

/// The server's error.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) code: String,
    pub(super) message: String,
    /// As it came.
    pub(super) body: Bytes,
}

/// What it is for.
#[derive(Debug)]
pub(super) enum Errand {
    /// A look-up.
    Names {
        sought: Sought,
        reader: Reader,
        /// When it was asked.
        asked: Moment,
        /// Others wait for it.
        _asking: Option<Asking>,
    },
    /// Around an exchange of the client's.
    Enclosing(Part, Rows),
}

/// What a look-up is for.
#[derive(Debug)]
pub(super) enum Sought {
    /// What names mean.
    Names(Question),
    /// As whom the session asks.
    Viewer,
}

impl Errand {
    /// Whether it comes before an exchange of the client's: what cancels it is meant for that.
    pub(super) fn comes_before(&self) -> bool {
        !matches!(self, Self::Enclosing(Part::End, _))
    }
}

impl Gate {
    /// It has been sent.
    pub(super) fn new(ends: Ends, errand: Errand) -> Self {
        Self { ends, errand, stage: 0, failed: None }
    }

    /// Takes one of its answers.
    pub(super) fn answer(&mut self, tag: u8, body: Bytes) -> Result<(), DecodeError> {
        self.stage = match (self.stage, tag) {
            (0, b'1') => 1,
            (1, b'2') => 2,
            (2, b'D') => {
                match &mut self.errand {
                    // Too long an answer is no answer; the rest of it is still read.
                    Errand::Names { reader, .. } => reader.row(body).unwrap_or_else(|_| reader.spoil()),
                    Errand::Enclosing(_, rows) => rows.row(body),
                }
                2
            }
            (2, b'C') => 3,
            (3, b'3') => 4,
            (4, b'3') => 5,
            _ => return Err(unexpected(tag)),
        };
        Ok(())
    }

    /// Whether all has come that comes before ReadyForQuery.
    pub(super) fn is_answered(&self) -> bool {
        self.stage == 5 || self.failed.is_some()
    }

    /// How many rows came.
    pub(super) fn rows(&self) -> Option<u64> {
        match &self.errand {
            Errand::Names { reader, .. } => u64::try_from(reader.len()).ok(),
            Errand::Enclosing(Part::Begin | Part::End, _) => None,
            Errand::Enclosing(_, rows) => u64::try_from(rows.len()).ok(),
        }
    }
}

/// A statement of our own.
#[derive(Debug)]
pub(super) struct Own<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) parameters: Vec<Parameter>,
}

/// One of its parameters.
#[derive(Debug, Clone)]
pub(super) struct Parameter {
    /// Its type; 0 where the server is to find it.
    pub(super) oid: u32,
    /// 0 is text, 1 binary.
    pub(super) format: i16,
    /// None is NULL.
    pub(super) value: Option<Bytes>,
}

/// The messages of exchange `number`.
pub(super) fn messages(number: u64, own: &Own<'_>, ends: Ends) -> Bytes {
    let name = format!("{PREFIX}{number}");
    let parameters = &own.parameters;
    let count = u16::try_from(parameters.len()).unwrap_or(u16::MAX);
    let mut out = Writer::default();
    out.message(b'P', |out| {
        put_text(out, &name);
        put_text(out, &own.text);
        out.put_u16(count);
        parameters.iter().for_each(|parameter| out.put_u32(parameter.oid));
    });
    out.message(b'B', |out| {
        put_text(out, &name);
        put_text(out, &name);
        out.put_u16(count);
        parameters.iter().for_each(|parameter| out.put_i16(parameter.format));
        out.put_u16(count);
        parameters.iter().for_each(|parameter| put_value(out, parameter.value.as_deref()));
        out.put_u16(0);
    });
    out.message(b'E', |out| {
        put_text(out, &name);
        out.put_u32(0);
    });
    for kind in [b'P', b'S'] {
        out.message(b'C', |out: &mut BytesMut| {
            out.put_u8(kind);
            put_text(out, &name);
        });
    }
    let end = match ends {
        Ends::Sync => b'S',
        Ends::Flush => b'H',
    };
    out.message(end, |_| {});
    out.finish()
}
