//! Rows that are copied to the client, as it may see them: read out of the stream however that is cut into messages.
//!
//! Promise: what goes on is whole rows, of as many values as before, written as they were; a row that cannot be read has
//! no values. What of a row has come is kept until the rest has, so that nothing is missed where messages end.

use bytes::{Buf as _, BufMut, Bytes, BytesMut};
use interceptor_core::{
    mask::{Form, Hiding, LabelSet, Outputs, Provenance},
    sql::CopyWriting,
};

use super::{
    binary,
    frame::{Malformed, put_value},
    value::{self, Found},
    veil::MAX_ROW,
};

/// What stands before the rows of binary data.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// What stands for NULL in lines of text.
const NULL: &[u8] = b"\\N";

/// The rows of one COPY.
#[derive(Debug, Clone)]
pub(super) struct Copied {
    writing: CopyWriting,
    covers: Vec<Cover>,
    /// The beginning of a row.
    pending: BytesMut,
    /// Whether what stands before the rows is still to come.
    heads: Head,
}

/// What becomes of the values of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cover {
    /// They are looked through.
    Look,
    /// They are NULL.
    Null,
    /// They are documents, in which these labels are borne at places.
    Within(LabelSet),
    /// The label at this place says what stands for each.
    By(usize),
}

/// What stands before rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    ToCome,
    Passed,
}

impl Copied {
    /// Of `count` columns, as the statement's provenance tells of them and `hiding` hides them.
    pub(super) fn new(
        writing: CopyWriting,
        count: usize,
        provenance: Option<&Provenance>,
        hiding: Option<&Hiding>,
    ) -> Self {
        let cover = |labels: LabelSet| match hiding {
            None => Cover::Null,
            Some(hiding) => match (hiding.by(labels), hiding.in_parts(labels)) {
                (None, _) => Cover::Look,
                (_, Some(parts)) => Cover::Within(parts),
                (Some(label), None) if writing == CopyWriting::Binary || hiding.form(label) == Form::Null => {
                    Cover::Null
                }
                (Some(label), None) => Cover::By(label),
            },
        };
        let labels = |place: usize| match provenance {
            None => LabelSet::ALL,
            Some(provenance) => match &provenance.outputs {
                Outputs::Each(_) => provenance.of_output(place, count),
                // Nothing is known of what code gives.
                Outputs::Any(labels) if *labels == LabelSet::ALL => LabelSet::ALL,
                // To copy what a query gives is permitted as such.
                Outputs::Any(_) => LabelSet::NONE,
            },
        };
        let heads = match writing {
            CopyWriting::CsvWithHeader | CopyWriting::Binary => Head::ToCome,
            CopyWriting::Text | CopyWriting::Csv => Head::Passed,
        };
        Self {
            writing,
            covers: (0..count).map(|place| cover(labels(place))).collect(),
            pending: BytesMut::new(),
            heads,
        }
    }

    /// Takes what a message brings; adds the rows that are whole by then to `out`, in one message.
    pub(super) fn take(
        &mut self,
        body: &[u8],
        hiding: Option<&Hiding>,
        out: &mut BytesMut,
    ) -> Result<(), Malformed> {
        self.pending.put_slice(body);
        out.put_u8(b'd');
        let start = out.len();
        out.put_i32(0);
        let mut rows = 0_usize;
        while let Some(length) = self.whole()? {
            let row = self.pending.split_to(length);
            self.row(&row, hiding, out)?;
            rows += 1;
        }
        if self.pending.len() > MAX_ROW {
            return Err(Malformed);
        }
        if rows == 0 {
            out.truncate(start - 1);
            return Ok(());
        }
        let length = u32::try_from(out.len().saturating_sub(start)).map_err(|_| Malformed)?;
        if let Some(place) = out.get_mut(start..).and_then(<[u8]>::first_chunk_mut::<4>) {
            *place = length.to_be_bytes();
        }
        Ok(())
    }

    /// Whether a row has begun that has not ended.
    pub(super) fn is_cut(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The length of the next row, or of what stands before or behind them, once all of it has come.
    fn whole(&self) -> Result<Option<usize>, Malformed> {
        match self.writing {
            CopyWriting::Text => Ok(memchr::memchr(b'\n', &self.pending).map(|end| end + 1)),
            CopyWriting::Csv | CopyWriting::CsvWithHeader => Ok(line(&self.pending)),
            CopyWriting::Binary if self.heads == Head::ToCome => {
                let fixed = SIGNATURE.len() + 8;
                let Some(head) = self.pending.get(..fixed) else { return Ok(None) };
                let more = head.last_chunk::<4>().map_or(0, |length| u32::from_be_bytes(*length));
                let total = fixed.saturating_add(usize::try_from(more).map_err(|_| Malformed)?);
                if !head.starts_with(SIGNATURE) || total > MAX_ROW {
                    return Err(Malformed);
                }
                Ok((self.pending.len() >= total).then_some(total))
            }
            CopyWriting::Binary => tuple(&self.pending),
        }
    }

    fn row(&mut self, row: &[u8], hiding: Option<&Hiding>, out: &mut BytesMut) -> Result<(), Malformed> {
        if self.heads == Head::ToCome {
            // Names, or how the rest is written: no row's values.
            self.heads = Head::Passed;
            out.put_slice(row);
            return Ok(());
        }
        match self.writing {
            CopyWriting::Binary => self.tuple(row, hiding, out),
            writing => {
                let line = row.strip_suffix(b"\n").unwrap_or(row);
                let values = if writing == CopyWriting::Text { texts(line) } else { quoted(line) };
                // The end of data, where an old server writes it.
                if writing == CopyWriting::Text && line == b"\\." {
                    out.put_slice(row);
                } else {
                    self.line(line, values, hiding, out);
                    out.put_u8(b'\n');
                }
                Ok(())
            }
        }
    }

    /// Writes a line whose values are these, each as it is written and as it is meant.
    fn line(&self, line: &[u8], values: Vec<Value<'_>>, hiding: Option<&Hiding>, out: &mut BytesMut) {
        let csv = self.writing != CopyWriting::Text;
        let apart = if csv { b',' } else { b'\t' };
        // Nothing is known of where values end in another encoding, nor which is which if there are more or fewer.
        let known = std::str::from_utf8(line).is_ok()
            && (values.len() == self.covers.len() || (self.covers.is_empty() && line.is_empty()));
        for (place, cover) in self.covers.iter().enumerate() {
            if place > 0 {
                out.put_u8(apart);
            }
            let value = values.get(place).filter(|_| known);
            match value.map(|value| (value, shown(value, *cover, hiding))) {
                Some((value, Shown::Same)) => out.put_slice(value.written),
                Some((_, Shown::Text(text))) if csv => put_quoted(&text, out),
                Some((_, Shown::Text(text))) => put_escaped(&text, out),
                _ if csv => {}
                _ => out.put_slice(NULL),
            }
        }
    }

    fn tuple(&self, row: &[u8], hiding: Option<&Hiding>, out: &mut BytesMut) -> Result<(), Malformed> {
        let mut rest = Bytes::copy_from_slice(row);
        let count = rest.try_get_i16().map_err(|_| Malformed)?;
        out.put_i16(count);
        let known = usize::try_from(count).is_ok_and(|count| count == self.covers.len());
        for place in 0..usize::try_from(count).unwrap_or(0) {
            let length = rest.try_get_i32().map_err(|_| Malformed)?;
            let Ok(length) = usize::try_from(length) else {
                put_value(out, None);
                continue;
            };
            if length > rest.len() {
                return Err(Malformed);
            }
            let value = rest.split_to(length);
            let cover = self.covers.get(place).filter(|_| known).copied().unwrap_or(Cover::Null);
            match (cover, hiding) {
                (Cover::Look, Some(hiding)) if !binary::hides_untyped(&value, hiding) => {
                    put_value(out, Some(&value));
                }
                (Cover::Within(labels), Some(hiding)) => {
                    put_value(out, value::cover_places(&value, labels, hiding).as_deref());
                }
                _ => put_value(out, None),
            }
        }
        Ok(())
    }
}

/// A value in a line.
#[derive(Debug, PartialEq, Eq)]
struct Value<'a> {
    /// As it is written.
    written: &'a [u8],
    /// What that means; none is NULL.
    meant: Option<std::borrow::Cow<'a, [u8]>>,
}

/// What a value has become.
enum Shown {
    Same,
    Null,
    Text(Vec<u8>),
}

fn shown(value: &Value<'_>, cover: Cover, hiding: Option<&Hiding>) -> Shown {
    let (Some(meant), Some(hiding)) = (&value.meant, hiding) else { return Shown::Null };
    match cover {
        Cover::Null => Shown::Null,
        Cover::By(label) => {
            match std::str::from_utf8(meant).ok().and_then(|text| hiding.cover(label, text)) {
                Some(text) => Shown::Text(text.into_bytes()),
                None => Shown::Null,
            }
        }
        Cover::Within(labels) => value::cover_places(meant, labels, hiding).map_or(Shown::Null, Shown::Text),
        Cover::Look => match value::look_untyped(meant, hiding) {
            Found::Nothing => Shown::Same,
            Found::Covered(text) => Shown::Text(text),
            Found::Hidden => Shown::Null,
        },
    }
}

/// The values of a line of text.
fn texts(line: &[u8]) -> Vec<Value<'_>> {
    let values = line.split(|byte| *byte == b'\t');
    values.map(|written| Value { written, meant: (written != NULL).then(|| unescaped(written)) }).collect()
}

/// What a value means in which a backslash stands before what would end it.
fn unescaped(written: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    if memchr::memchr(b'\\', written).is_none() {
        return written.into();
    }
    let mut meant = Vec::with_capacity(written.len());
    let mut bytes = written.iter();
    while let Some(byte) = bytes.next() {
        if *byte != b'\\' {
            meant.push(*byte);
            continue;
        }
        meant.push(match bytes.next() {
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'v') => 11,
            Some(other) => *other,
            None => b'\\',
        });
    }
    meant.into()
}

fn put_escaped(text: &[u8], out: &mut BytesMut) {
    for byte in text {
        let letter = match byte {
            8 => b'b',
            12 => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            11 => b'v',
            b'\\' => b'\\',
            plain => {
                out.put_u8(*plain);
                continue;
            }
        };
        out.put_slice(&[b'\\', letter]);
    }
}

/// The length of the first line: a line that ends inside of quotes goes on.
fn line(text: &[u8]) -> Option<usize> {
    let mut inside = false;
    for at in memchr::memchr2_iter(b'"', b'\n', text) {
        match text.get(at) {
            Some(b'"') => inside = !inside,
            _ if !inside => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// The values of a line with commas; what is empty and not in quotes is NULL.
fn quoted(line: &[u8]) -> Vec<Value<'_>> {
    let mut values = Vec::new();
    let (mut start, mut inside) = (0, false);
    for (at, byte) in line.iter().enumerate() {
        match byte {
            b'"' => inside = !inside,
            b',' if !inside => {
                values.push(unquoted(line.get(start..at).unwrap_or_default()));
                start = at + 1;
            }
            _ => {}
        }
    }
    values.push(unquoted(line.get(start..).unwrap_or_default()));
    values
}

fn unquoted(written: &[u8]) -> Value<'_> {
    if memchr::memchr(b'"', written).is_none() {
        return Value { written, meant: (!written.is_empty()).then(|| written.into()) };
    }
    let inside = written.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(written);
    let mut meant = Vec::with_capacity(inside.len());
    let mut doubled = false;
    for byte in inside {
        doubled = *byte == b'"' && !doubled;
        if !doubled {
            meant.push(*byte);
        }
    }
    Value { written, meant: Some(meant.into()) }
}

fn put_quoted(text: &[u8], out: &mut BytesMut) {
    let plain =
        !text.is_empty() && memchr::memchr3(b'"', b',', b'\n', text).is_none() && !text.contains(&b'\r');
    // A line that reads as the end of data.
    if plain && text != b"\\." {
        return out.put_slice(text);
    }
    out.put_u8(b'"');
    for byte in text {
        if *byte == b'"' {
            out.put_u8(b'"');
        }
        out.put_u8(*byte);
    }
    out.put_u8(b'"');
}

/// The length of the first tuple of binary data, or of what ends it.
fn tuple(data: &[u8]) -> Result<Option<usize>, Malformed> {
    let Some(count) = data.first_chunk::<2>() else { return Ok(None) };
    let mut at = 2_usize;
    let count = match i16::from_be_bytes(*count) {
        // The end.
        -1 => return Ok(Some(at)),
        count => u16::try_from(count).map_err(|_| Malformed)?,
    };
    for _ in 0..count {
        let Some(length) = data.get(at..).and_then(<[u8]>::first_chunk::<4>) else { return Ok(None) };
        let length = match i32::from_be_bytes(*length) {
            -1 => 0,
            length => usize::try_from(length).map_err(|_| Malformed)?,
        };
        at = at.saturating_add(4).saturating_add(length);
        if at > MAX_ROW {
            return Err(Malformed);
        }
        if at > data.len() {
            return Ok(None);
        }
    }
    Ok(Some(at))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use interceptor_core::mask::{Detector, Label, Labels, MaskKey};

    use super::*;

    fn hiding() -> Hiding {
        let label = |name: &str, detect: &[Detector], form| Label {
            name: name.to_owned(),
            columns: Vec::new(),
            detect: detect.to_vec(),
            form,
        };
        let all = vec![
            label("code", &[], Form::Redact),
            label("mail", &[Detector::Email, Detector::Card], Form::Partial),
        ];
        Hiding::new(Arc::new(Labels::new("r", all).expect("labels")), LabelSet::ALL, &MaskKey::new([0; 32]))
    }

    /// What the client gets of three columns, the second of which is labelled, in messages of so many bytes.
    fn told(writing: CopyWriting, data: &[u8], piece: usize) -> Vec<u8> {
        let hiding = hiding();
        let outputs = [LabelSet::NONE, LabelSet::of(0), LabelSet::NONE].map(Some).to_vec();
        let provenance = Provenance { outputs: Outputs::Each(outputs), ..Provenance::clean() };
        let mut copied = Copied::new(writing, 3, Some(&provenance), Some(&hiding));
        let mut out = BytesMut::new();
        for part in data.chunks(piece) {
            copied.take(part, Some(&hiding), &mut out).expect("well-formed");
        }
        assert!(!copied.is_cut());
        let mut rows = Vec::new();
        while !out.is_empty() {
            assert_eq!(out.get_u8(), b'd');
            let length = usize::try_from(out.get_u32()).expect("short") - 4;
            rows.extend_from_slice(&out.split_to(length));
        }
        rows
    }

    #[test]
    fn lines_are_masked_however_they_are_cut() {
        for (writing, data, expected) in [
            (
                CopyWriting::Text,
                &b"1\tses\\tame\tto bob@example.com\\n\n2\t\\N\tx\n"[..],
                &b"1\t[code]\tto ***@******e.com\\n\n2\t\\N\tx\n"[..],
            ),
            (
                CopyWriting::Csv,
                b"1,sesame,\"to \"\"bob@example.com\"\",\nx\"\n2,,x\n3,\"\",\n",
                b"1,[code],\"to \"\"***@******e.com\"\",\nx\"\n2,,x\n3,[code],\n",
            ),
            (CopyWriting::CsvWithHeader, b"a,b,c\n1,sesame,\n", b"a,b,c\n1,[code],\n"),
            // More values than there are columns, and what is no UTF-8.
            (CopyWriting::Text, b"1\tsesame\tx\ty\n\xff\tsesame\tx\n", b"\\N\t\\N\t\\N\n\\N\t\\N\t\\N\n"),
        ] {
            for piece in [1, 2, 5, 1000] {
                let told = told(writing, data, piece);
                assert_eq!(String::from_utf8_lossy(&told), String::from_utf8_lossy(expected), "{piece}");
            }
        }
    }

    #[test]
    fn tuples_are_masked_however_they_are_cut() {
        let head = [SIGNATURE, &[0; 8]].concat();
        let tuple = |values: &[Option<&[u8]>]| {
            let mut out = BytesMut::new();
            out.put_i16(i16::try_from(values.len()).expect("few"));
            values.iter().for_each(|value| put_value(&mut out, *value));
            out.to_vec()
        };
        let rows = |values: &[&[Option<&[u8]>]]| {
            let rows: Vec<u8> = values.iter().flat_map(|values| tuple(values)).collect();
            [head.clone(), rows, vec![0xff, 0xff]].concat()
        };
        let card = 4_111_111_111_111_111_i64.to_be_bytes();
        let data = rows(&[
            &[Some(b"\0\0\0\x01"), Some(b"sesame"), Some(b"bob@example.com")],
            &[Some(&card), None, Some(b"plain")],
            &[Some(b"1"), Some(b"sesame")],
        ]);
        let expected =
            rows(&[&[Some(b"\0\0\0\x01"), None, None], &[None, None, Some(b"plain")], &[None, None]]);
        for piece in [1, 3, 1000] {
            assert_eq!(told(CopyWriting::Binary, &data, piece), expected, "{piece}");
        }
    }

    #[test]
    fn what_code_gives_is_nothing() {
        let hiding = hiding();
        for (provenance, expected) in [
            (Some(Provenance::default()), &b"d\0\0\0\x07\\N\n"[..]),
            (None, b"d\0\0\0\x07\\N\n"),
            (Some(Provenance::clean()), b"d\0\0\0\x0bsesame\n"),
        ] {
            let mut copied = Copied::new(CopyWriting::Text, 1, provenance.as_ref(), Some(&hiding));
            let mut out = BytesMut::new();
            copied.take(b"sesame\n", Some(&hiding), &mut out).expect("well-formed");
            assert_eq!(out, expected, "{provenance:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_ends_it() {
        let hiding = hiding();
        let mut copied = Copied::new(CopyWriting::Binary, 1, None, Some(&hiding));
        assert_eq!(copied.take(&[0; 30], Some(&hiding), &mut BytesMut::new()), Err(Malformed));
        let mut copied = Copied::new(CopyWriting::Text, 1, None, Some(&hiding));
        let mut out = BytesMut::new();
        assert_eq!(copied.take(b"sesame", Some(&hiding), &mut out), Ok(()));
        assert!(copied.is_cut() && out.is_empty());
        assert_eq!(copied.take(&vec![b'x'; MAX_ROW], Some(&hiding), &mut out), Err(Malformed));
    }
}
