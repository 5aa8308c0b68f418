//! Where a resource's data has labels: what comes from upstream is shown to the client only as its veil says.
//!
//! Promise: rows, copied data, and the server's words pass here or nowhere. Where the resource has no labels, nothing is
//! looked at and nothing is copied.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use interceptor_core::{
    mask::{Hiding, Mask, Provenance},
    protocol::DecodeError,
    sql::CopyStream,
};

use super::{
    decode::PostgresDecoder,
    described,
    frame::{Fields, Writer},
    queue::{Entry, Kind, Place},
    veil::{self, Copying, MAX_ROW, Plan},
    words::{self, Format, Words},
};

pub(super) fn malformed(tag: u8) -> DecodeError {
    DecodeError::upstream(format!("a malformed {:?} message", char::from(tag)))
}

/// The statement of a Query whose answer comes now.
fn place<C>(places: &[Place<C>], at: usize) -> Option<&Place<C>> {
    places.iter().skip(at).find(|place| place.answers)
}

impl Entry {
    /// Where the values of what comes now are from.
    fn provenance(&self) -> Option<Arc<Provenance>> {
        match &self.kind {
            Kind::Query { places, at, .. } => place(places, *at).and_then(|place| place.provenance.clone()),
            _ => self.veil.provenance().cloned(),
        }
    }
}

impl PostgresDecoder {
    /// The rows that follow in the answer to the Query at the front are described so.
    pub(super) fn describe(&mut self, body: &[u8]) -> Result<(), DecodeError> {
        if self.labels.is_empty() {
            return Ok(());
        }
        let fields = described::read(Bytes::copy_from_slice(body)).map_err(|_| malformed(b'T'))?;
        if let Some(Entry { kind: Kind::Query { places, at, .. }, veil, .. }) = self.queue.front() {
            let provenance = place(places, *at).and_then(|place| place.provenance.as_ref());
            let recording = self.recording.as_deref();
            veil.describe(&fields, provenance.map(|it| &**it), self.bindings.copies(), recording);
        }
        Ok(())
    }

    /// Whether a message at the front of the input must be looked at whole, though it would stream.
    pub(super) fn is_veiled(&mut self, tag: u8) -> bool {
        if self.labels.is_empty() || self.meter.stopped || !matches!(tag, b'D' | b'd') {
            return false;
        }
        match self.queue.front() {
            Some(entry) if entry.is_gate() => false,
            Some(entry) if tag == b'd' => entry.veil.hiding().is_some(),
            Some(entry) => !matches!(**entry.veil.plan(self.bindings.copies()), Plan::Open),
            None => false,
        }
    }

    /// The place of the first value in a row with that body that is not shown as it is; none where all are.
    pub(super) fn first_hidden(&mut self, tag: u8, body: &[u8]) -> Option<usize> {
        let Some(entry) = self.queue.front().filter(|_| tag == b'D') else { return Some(0) };
        let plan = entry.veil.plan(self.bindings.copies()).clone();
        veil::first_hidden(body, &plan, entry.veil.hiding().flatten().map(|hiding| &**hiding))
    }

    /// Adds a row or copied data with that body to `out`, as the client may see it; values before `shown` are known to be
    /// shown as they are.
    pub(super) fn cover(
        &mut self,
        body: &[u8],
        (tag, shown): (u8, usize),
        out: &mut BytesMut,
    ) -> Result<(), DecodeError> {
        let Some(entry) = self.queue.front() else { return Err(malformed(tag)) };
        if tag == b'D' {
            let plan = entry.veil.plan(self.bindings.copies()).clone();
            let hiding = entry.veil.hiding().flatten().map(|hiding| &**hiding);
            return veil::row(body, shown, &plan, (hiding, &self.tokens), out).map_err(|_| malformed(tag));
        }
        let hiding = entry.veil.hiding().map(|hiding| hiding.cloned());
        let hiding = hiding.as_ref().map(|hiding| hiding.as_deref());
        let provenance = entry.provenance();
        let unmasked = || {
            DecodeError::upstream(
                "copied data that cannot be masked; read it with SELECT, or COPY a table without options of its own",
            )
        };
        match entry.veil.copied() {
            Copying::Rows(rows) => rows.take(body, hiding.flatten(), out).map_err(|_| unmasked()),
            Copying::Data(format, line) => {
                let words = Words::about(hiding, provenance.as_deref());
                let whole;
                let body = match format {
                    Format::Binary => body,
                    // What is looked for may stand on both sides of where it was cut.
                    Format::Text => {
                        line.extend_from_slice(body);
                        if line.len() > MAX_ROW {
                            return Err(unmasked());
                        }
                        whole = line.split_to(memchr::memrchr(b'\n', line).map_or(0, |end| end + 1));
                        &whole
                    }
                };
                if !body.is_empty() {
                    out.extend_from_slice(&words::copied(body, *format, words).ok_or_else(unmasked)?);
                }
                Ok(())
            }
        }
    }

    /// What is copied to the client begins: how its rows are written is known now.
    pub(super) fn begin_copy(&mut self, body: &[u8]) -> Result<(), DecodeError> {
        if self.labels.is_empty() {
            return Ok(());
        }
        let Some(entry) = self.queue.front() else { return Err(malformed(b'H')) };
        let provenance = entry.provenance();
        let writing = match &entry.kind {
            Kind::Query { places, at, .. } => place(places, *at).and_then(|place| place.copy),
            Kind::Execute { copy, .. } => *copy,
            _ => None,
        };
        let writing = match writing {
            Some(CopyStream::ToClient(writing)) => writing,
            Some(CopyStream::FromClient) | None => None,
        };
        entry
            .veil
            .copies(Bytes::copy_from_slice(body), writing, provenance.as_deref(), self.bindings.copies())
            .map_err(|_| malformed(b'H'))
    }

    /// What is copied to the client has ended.
    pub(super) fn end_copy(&mut self) -> Result<(), DecodeError> {
        match self.queue.first() {
            Some(entry) if entry.veil.is_cut() => {
                Err(DecodeError::upstream("it ended a COPY in the middle of a row"))
            }
            _ => Ok(()),
        }
    }

    /// Whether the client is not told how many rows the statement comes to whose answer comes now.
    pub(super) fn is_uncounted(&self) -> bool {
        let Some(entry) = self.queue.first().filter(|entry| !entry.is_gate()) else { return false };
        if self.labels.without_counts().is_empty() {
            return false;
        }
        match entry.veil.hiding() {
            None => false,
            Some(None) => true,
            Some(Some(hiding)) => hiding.hides_counts(entry.provenance().as_deref()),
        }
    }

    /// A CommandComplete with that body, as the client may see it.
    pub(super) fn completed(&self, body: &[u8]) -> Bytes {
        let mut out = Writer::default();
        let body = if self.is_uncounted() { words::without_count(body) } else { body.to_vec() };
        out.message(b'C', |out| out.put_slice(&body));
        out.finish()
    }

    /// The message that the client gets instead of this one, if it is one of the server's words.
    pub(super) fn said(&mut self, tag: u8, body: &[u8]) -> Result<Option<Bytes>, DecodeError> {
        if tag == b'C' {
            return Ok(self.is_uncounted().then(|| self.completed(body)));
        }
        if self.labels.is_empty() || !matches!(tag, b'E' | b'N' | b'A' | b'S' | b'V') {
            return Ok(None);
        }
        let last = self.mask.clone();
        let (hiding, provenance) = match (self.queue.front(), tag) {
            // Neither is about the statement that happens to be under way.
            (_, b'A' | b'S') | (None, _) => (hiding_of(last.as_ref()), None),
            (Some(entry), _) => {
                let provenance = entry.provenance();
                match entry.exchange.is_some() && !entry.is_gate() {
                    true => (entry.veil.hiding().map(|hiding| hiding.cloned()), provenance),
                    // What has no words of its own may still tell of what was done before.
                    false => (hiding_of(last.as_ref()), None),
                }
            }
        };
        let hiding = hiding.as_ref().map(|hiding| hiding.as_deref());
        let words = Words::about(hiding, provenance.as_deref());
        // Of no statement: whatever it is, what is looked for is covered.
        let anybody = match hiding {
            None => Words::Shown,
            Some(None) => Words::Withheld,
            Some(Some(hiding)) => Words::Looked(hiding),
        };
        let body = Bytes::copy_from_slice(body);
        let read = || -> Result<Bytes, super::frame::Malformed> {
            match tag {
                b'A' => words::notification(body.clone(), anybody),
                b'S' => {
                    let mut fields = Fields::new(body.clone());
                    let (name, value) = (fields.string()?, fields.string()?);
                    Ok(words::setting(&name, &value, anybody))
                }
                b'V' => words::result(body.clone(), words),
                _ => Ok(words::message(tag, body.clone(), words)),
            }
        };
        read().map(Some).map_err(|_| malformed(tag))
    }
}

/// What is hidden: nothing at all (`None`), what is told, or everything (an inner none).
fn hiding_of(mask: Option<&Mask>) -> Option<Option<Arc<Hiding>>> {
    match mask {
        None => Some(None),
        Some(Mask::Nothing) => None,
        Some(Mask::Of(hiding)) => Some(Some(hiding.clone())),
    }
}
