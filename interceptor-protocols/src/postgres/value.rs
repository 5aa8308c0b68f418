//! One value of a row, looked through for what is hidden: by the numbers of PostgreSQL's own types (`pg_type.dat`).
//!
//! Promise: whatever the bytes are, an answer comes; what cannot be read as its type says, and might hold a text, is
//! taken for hidden.

use bytes::Bytes;
use interceptor_core::mask::{Hiding, LabelSet};

use super::{
    frame::{Fields, Malformed},
    places,
    within::{self, Element},
};

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing hidden.
    Nothing,
    /// This stands for it.
    Covered(Vec<u8>),
    /// Something hidden that nothing can stand for.
    Hidden,
}

/// How deep arrays and rows are followed.
const MAX_DEPTH: usize = 6;

/// text, varchar, bpchar, name, unknown.
const TEXTS: [u32; 5] = [25, 1043, 1042, 19, 705];
/// json, jsonb.
const JSON: [u32; 2] = [114, 3802];
/// text[], varchar[], bpchar[], name[].
const OF_TEXTS: [u32; 4] = [1009, 1015, 1014, 1003];
/// record, xml.
const ROWS: [u32; 2] = [2249, 142];
const TEXT: u32 = 25;
const XML: u32 = 142;
/// bool, "char", date, time, timestamp, timestamptz, interval, timetz, uuid, xid, cid, tid, void, int2, int4, oid: nothing
/// that is looked for can be written as one.
const SHORT: [u32; 16] = [16, 18, 1082, 1083, 1114, 1184, 1186, 1266, 2950, 28, 29, 27, 2278, 21, 23, 26];
/// float4, float8.
const FLOATS: [u32; 2] = [700, 701];
/// inet, cidr.
const ADDRESSES: [u32; 2] = [869, 650];
const JSONB: u32 = 3802;
const NUMERIC: u32 = 1700;
const RECORD: u32 = 2249;
/// The first number of a type of somebody's own.
const FIRST_OWN: u32 = 16384;

/// Whether a type's values are plain texts in both formats.
pub(super) fn is_text(kind: u32) -> bool {
    TEXTS.contains(&kind)
}

/// Whether a type's values are arrays of plain texts.
pub(super) fn is_array_of_texts(kind: u32) -> bool {
    OF_TEXTS.contains(&kind)
}

/// Whether something that is looked for may stand in a value of a type.
pub(super) fn may_hold(kind: u32) -> bool {
    !SHORT.contains(&kind)
}

/// Looks through a value.
pub(super) fn look(value: &[u8], kind: u32, binary: bool, hiding: &Hiding) -> Found {
    if JSON.contains(&kind) {
        // The version stands before a binary jsonb.
        let head = usize::from(binary && kind == JSONB);
        let (before, text) = value.split_at_checked(head).unwrap_or((value, &[]));
        return match document(text, hiding) {
            Found::Covered(text) => Found::Covered([before, &text].concat()),
            found => found,
        };
    }
    if !binary || is_text(kind) || kind == XML {
        return plain(value, kind, hiding);
    }
    let bytes = Bytes::copy_from_slice(value);
    if !hides(&bytes, kind, hiding, MAX_DEPTH) {
        return Found::Nothing;
    }
    let each = |element: &Bytes, kind| element_of(look(element, kind, true, hiding));
    let written = if kind == RECORD {
        within::record_binary(bytes, each)
    } else {
        within::array_binary(bytes.clone(), each).or_else(|_| within::record_binary(bytes, each))
    };
    written.ok().flatten().map_or(Found::Hidden, Found::Covered)
}

/// Whether a text is in the encoding that detectors read: most are by their first look.
fn is_read(text: &[u8]) -> bool {
    text.is_ascii() || std::str::from_utf8(text).is_ok()
}

/// Looks through a value in text.
fn plain(text: &[u8], kind: u32, hiding: &Hiding) -> Found {
    match hiding.clean(text) {
        None if !is_read(text) => Found::Hidden,
        None => Found::Nothing,
        Some(Some(clean)) if is_text(kind) => Found::Covered(clean),
        Some(_) if is_text(kind) => Found::Hidden,
        Some(clean) => {
            let each = |element: &[u8]| element_of(plain(element, element_kind(kind), hiding));
            match (within::array_text(text, each), clean) {
                (Ok(Some(array)), _) if kind < FIRST_OWN && !ROWS.contains(&kind) => Found::Covered(array),
                // A row's fields are quoted like an array's elements, but between other brackets.
                (_, Some(clean)) if ROWS.contains(&kind) => Found::Covered(clean),
                _ => Found::Hidden,
            }
        }
    }
}

/// Of which type the elements of an array in text are: a text may be covered, anything else becomes NULL.
fn element_kind(kind: u32) -> u32 {
    if OF_TEXTS.contains(&kind) { TEXT } else { FIRST_OWN }
}

/// What an element becomes.
fn element_of(found: Found) -> Element {
    match found {
        Found::Nothing => Element::Same,
        Found::Covered(text) => Element::Text(text),
        Found::Hidden => Element::Null,
    }
}

/// Looks through a JSON document: what is found stays in its place.
fn document(text: &[u8], hiding: &Hiding) -> Found {
    // Texts may be written with escapes, so that they do not read as what they mean.
    if std::str::from_utf8(text).is_err() {
        return Found::Hidden;
    }
    if memchr::memchr(b'\\', text).is_none() && !hiding.finds(text) {
        return Found::Nothing;
    }
    let each = |part: &[u8]| match hiding.clean(part) {
        None => Element::Same,
        Some(None) => Element::Null,
        Some(Some(clean)) => Element::Text(clean),
    };
    match within::json(text, each) {
        Ok(Some(clean)) => Found::Covered(clean),
        Ok(None) if !hiding.finds(text) => Found::Nothing,
        // What stands in several parts of it, or cannot be read.
        Ok(None) | Err(Malformed) => Found::Hidden,
    }
}

/// Whether a type's values are documents, or may be.
pub(super) fn is_document(kind: u32) -> bool {
    JSON.contains(&kind) || is_text(kind)
}

/// A document, of which hidden labels of `labels` are borne at places; nothing where it is none.
pub(super) fn cover_places(value: &[u8], labels: LabelSet, hiding: &Hiding) -> Option<Vec<u8>> {
    /// What stands before a document in binary.
    const VERSION: u8 = 1;
    let text = value.strip_prefix(&[VERSION]).unwrap_or(value);
    let head = value.get(..value.len() - text.len())?;
    let covered = places::cover(text, labels, hiding).ok()?;
    let covered = covered.as_deref().unwrap_or(text);
    match if hiding.looks() { document(covered, hiding) } else { Found::Nothing } {
        Found::Nothing => Some([head, covered].concat()),
        Found::Covered(clean) => Some([head, &clean].concat()),
        Found::Hidden => None,
    }
}

/// What stands for an array of texts, each of which the label at `label` hides.
pub(super) fn cover_elements(value: &[u8], binary: bool, label: usize, hiding: &Hiding) -> Option<Vec<u8>> {
    let cover = |element: &[u8]| {
        let text = std::str::from_utf8(element).ok();
        match text.and_then(|text| hiding.cover(label, text)) {
            Some(text) => Element::Text(text.into_bytes()),
            None => Element::Null,
        }
    };
    let written = if binary {
        within::array_binary(Bytes::copy_from_slice(value), |element, kind| match is_text(kind) {
            true => cover(element),
            false => Element::Null,
        })
    } else {
        within::array_text(value, cover)
    };
    match written {
        Ok(Some(array)) => Some(array),
        // It has no elements, or each is NULL.
        Ok(None) => Some(value.to_vec()),
        Err(Malformed) => None,
    }
}

/// Looks through a value in text of whose type nothing is known.
pub(super) fn look_untyped(value: &[u8], hiding: &Hiding) -> Found {
    let is_json = |text: &[u8]| serde_json::from_slice::<&serde_json::value::RawValue>(text).is_ok();
    match hiding.clean(value) {
        None if !is_read(value) => Found::Hidden,
        None => Found::Nothing,
        Some(None) => Found::Hidden,
        Some(Some(clean)) if value.starts_with(b"{") && is_json(value) && !is_json(&clean) => Found::Hidden,
        Some(Some(clean)) => Found::Covered(clean),
    }
}

/// Whether something hidden stands in a binary value of whose type nothing is known: in any way that it can be read.
pub(super) fn hides_untyped(value: &Bytes, hiding: &Hiding) -> bool {
    /// Numbers with fractions read as larger ones.
    const LARGEST: usize = 16;
    let number = integer(value).ok().filter(|text| text.len() <= LARGEST);
    let read = [number, numeric(value.clone()).ok(), address(value.clone()).ok()];
    hiding.looks()
        && (read.into_iter().flatten().any(|text| hiding.finds(text.as_bytes()))
            || hides(value, FIRST_OWN, hiding, MAX_DEPTH))
}

/// Whether something hidden stands in a binary value.
fn hides(value: &Bytes, kind: u32, hiding: &Hiding, depth: usize) -> bool {
    let Some(depth) = depth.checked_sub(1) else { return true };
    if SHORT.contains(&kind) {
        return false;
    }
    if is_text(kind) || JSON.contains(&kind) || kind == XML {
        return hiding.finds(value) || std::str::from_utf8(value).is_err();
    }
    let inside = match kind {
        20 => integer(value).map(|text| hiding.finds(text.as_bytes())),
        NUMERIC => numeric(value.clone()).map(|text| hiding.finds(text.as_bytes())),
        RECORD => record(value.clone(), hiding, depth),
        _ if FLOATS.contains(&kind) => float(value).map(|text| hiding.finds(text.as_bytes())),
        _ if ADDRESSES.contains(&kind) => address(value.clone()).map(|text| hiding.finds(text.as_bytes())),
        17 => Ok(hiding.finds(value)),
        _ if kind < FIRST_OWN => array(value.clone(), hiding, depth).or_else(|_| raw(value, hiding)),
        _ => array(value.clone(), hiding, depth)
            .or_else(|_| record(value.clone(), hiding, depth))
            .or_else(|_| raw(value, hiding)),
    };
    inside.unwrap_or(true)
}

/// A value of which nothing is known: what may hold a text that is no text of its own is taken for hidden.
fn raw(value: &[u8], hiding: &Hiding) -> Result<bool, Malformed> {
    /// The shortest run of letters in which something could be found.
    const RUN: usize = 6;
    if hiding.finds(value) {
        return Ok(true);
    }
    let is_plain = std::str::from_utf8(value).is_ok_and(|text| !text.chars().any(char::is_control));
    let has_text = value.split(|byte| !(b' '..=b'~').contains(byte)).any(|run| run.len() >= RUN);
    Ok(has_text && !is_plain)
}

fn integer(value: &[u8]) -> Result<String, Malformed> {
    if value.is_empty() || value.len() > 8 {
        return Err(Malformed);
    }
    let negative = value.first().is_some_and(|byte| *byte >= 0x80);
    let begin = if negative { -1_i64 } else { 0 };
    Ok(value
        .iter()
        .fold(begin, |sum, byte| sum.wrapping_shl(8) | i64::from(*byte))
        .unsigned_abs()
        .to_string())
}

fn float(value: &[u8]) -> Result<String, Malformed> {
    let number = match *value {
        [a, b, c, d] => f64::from(f32::from_be_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => f64::from_be_bytes([a, b, c, d, e, f, g, h]),
        _ => return Err(Malformed),
    };
    Ok(number.abs().to_string())
}

/// The whole part of a numeric, in decimal: digits in base 10000.
fn numeric(value: Bytes) -> Result<String, Malformed> {
    let mut fields = Fields::new(value);
    let (count, weight) = (fields.count()?, fields.i16()?);
    let (_sign, _scale) = (fields.i16()?, fields.i16()?);
    let digits = (0..count).map(|_| fields.count()).collect::<Result<Vec<_>, _>>()?;
    fields.end()?;
    let whole = usize::try_from(i32::from(weight).saturating_add(1)).unwrap_or(0);
    let mut text = String::new();
    for place in 0..whole.max(digits.len()).min(64) {
        text.push_str(&format!("{:04}", digits.get(place).copied().unwrap_or(0)));
    }
    let trimmed = text.trim_start_matches('0');
    let whole_digits = trimmed.len().min(whole.saturating_mul(4));
    Ok(trimmed.get(..whole_digits).unwrap_or(trimmed).to_owned())
}

fn address(value: Bytes) -> Result<String, Malformed> {
    let mut fields = Fields::new(value);
    for _ in 0..3 {
        fields.u8()?;
    }
    let length = usize::from(fields.u8()?);
    let bytes = fields.take(length)?;
    if let Ok(four) = <[u8; 4]>::try_from(bytes.as_ref()) {
        return Ok(std::net::Ipv4Addr::from(four).to_string());
    }
    let sixteen = <[u8; 16]>::try_from(bytes.as_ref()).map_err(|_| Malformed)?;
    Ok(std::net::Ipv6Addr::from(sixteen).to_string())
}

fn array(value: Bytes, hiding: &Hiding, depth: usize) -> Result<bool, Malformed> {
    /// PostgreSQL's MAXDIM.
    const DIMENSIONS: u32 = 6;
    let mut fields = Fields::new(value);
    let (dimensions, flags, kind) = (fields.u32()?, fields.u32()?, fields.u32()?);
    if dimensions > DIMENSIONS || flags > 1 || kind == 0 {
        return Err(Malformed);
    }
    let mut count = u64::from(dimensions > 0);
    for _ in 0..dimensions {
        count = count.saturating_mul(u64::from(fields.u32()?));
        fields.u32()?;
    }
    let mut hidden = false;
    for _ in 0..count {
        hidden |= fields.value()?.is_some_and(|element| hides(&element, kind, hiding, depth));
    }
    fields.end()?;
    Ok(hidden)
}

fn record(value: Bytes, hiding: &Hiding, depth: usize) -> Result<bool, Malformed> {
    let mut fields = Fields::new(value);
    let count = fields.u32()?;
    let mut hidden = false;
    for _ in 0..count {
        let kind = fields.u32()?;
        hidden |= fields.value()?.is_some_and(|part| hides(&part, kind, hiding, depth));
    }
    fields.end()?;
    Ok(hidden)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use interceptor_core::mask::{Detector, Form, Label, LabelSet, Labels, MaskKey};

    use super::*;

    fn hiding() -> Hiding {
        let detect = Detector::WORDS.map(|(_, detector)| detector).to_vec();
        let label = Label { name: "x".to_owned(), columns: Vec::new(), detect, form: Form::Redact };
        let labels = Labels::new("r", vec![label]).expect("labels");
        Hiding::new(Arc::new(labels), LabelSet::ALL, &MaskKey::new([0; 32]))
    }

    #[test]
    fn texts_are_covered_and_other_types_are_nothing() {
        let hiding = hiding();
        let covered = |text: &str| Found::Covered(text.as_bytes().to_vec());
        assert_eq!(look(b"to a@example.com", 25, false, &hiding), covered("to [x]"));
        assert_eq!(look(b"to a@example.com", 25, true, &hiding), covered("to [x]"));
        assert_eq!(look(b"{\"a\": \"a@example.com\"}", 114, false, &hiding), covered("{\"a\": \"[x]\"}"));
        assert_eq!(look(b"{\"a\": 4111111111111111}", 3802, false, &hiding), covered("{\"a\": \"[x]\"}"));
        assert_eq!(look(b"[\"a\\u0040example.com\"]", 114, false, &hiding), covered("[\"[x]\"]"));
        assert_eq!(look(b"[\"a\\n\"]", 114, false, &hiding), Found::Nothing);
        assert_eq!(look(b"{a@example.com,b}", 1009, false, &hiding), covered("{\"[x]\",b}"));
        assert_eq!(look(b"{4111111111111111,1}", 1016, false, &hiding), covered("{NULL,1}"));
        assert_eq!(look(b"(a@example.com,1)", 2249, false, &hiding), covered("([x],1)"));
        assert_eq!(
            look(b"\x01{\"a\": \"a@example.com\"}", 3802, true, &hiding),
            covered("\x01{\"a\": \"[x]\"}")
        );
        assert_eq!(look(b"4111111111111111", 20, false, &hiding), Found::Hidden);
        assert_eq!(look(b"\xff\xfe", 25, false, &hiding), Found::Hidden);
        assert_eq!(look(b"hello", 25, false, &hiding), Found::Nothing);
    }

    #[test]
    fn binary_numbers_are_read() {
        let hiding = hiding();
        assert_eq!(look(&4_111_111_111_111_111_i64.to_be_bytes(), 20, true, &hiding), Found::Hidden);
        assert_eq!(look(&17_i64.to_be_bytes(), 20, true, &hiding), Found::Nothing);
        let digits = [4, 3, 0, 0, 4111, 1111, 1111, 1111_u16];
        let bytes: Vec<u8> = digits.iter().flat_map(|digit| digit.to_be_bytes()).collect();
        assert_eq!(look(&bytes, 1700, true, &hiding), Found::Hidden);
        assert_eq!(look(&4_111_111_111_111_111_f64.to_be_bytes(), 701, true, &hiding), Found::Hidden);
        assert_eq!(look(&[2, 32, 0, 4, 192, 168, 0, 1], 869, true, &hiding), Found::Hidden);
    }

    #[test]
    fn arrays_and_rows_are_followed() {
        let hiding = hiding();
        let array = |text: &[u8]| {
            let mut bytes = Vec::new();
            for number in [1_u32, 0, 25, 1, 1, u32::try_from(text.len()).expect("short")] {
                bytes.extend(number.to_be_bytes());
            }
            bytes.extend(text);
            bytes
        };
        // 48 is the code of a digit: the length alone must not hide that a value begins.
        let long = format!("4111111111111111{}", " ".repeat(32));
        let covered = format!("[x]{}", " ".repeat(32));
        assert_eq!(
            look(&array(long.as_bytes()), 1009, true, &hiding),
            Found::Covered(array(covered.as_bytes()))
        );
        assert_eq!(look(&array(b"plain"), 1009, true, &hiding), Found::Nothing);
        assert_eq!(look(&array(b"plain")[..20], 1009, true, &hiding), Found::Nothing);
        let row = |text: &[u8]| {
            let inner = array(text);
            let length = u32::try_from(inner.len()).expect("short");
            [&[1_u32, 1009, length].map(u32::to_be_bytes).concat()[..], &inner].concat()
        };
        assert_eq!(look(&row(b"123-45-6789"), 2249, true, &hiding), Found::Covered(row(b"[x]")));
        let masked = cover_elements(&array(b"anything"), true, 0, &hiding);
        assert_eq!(masked, Some(array(b"[x]")));
        let masked = cover_elements(b"{any,\"thing\",NULL}", false, 0, &hiding);
        assert_eq!(masked.as_deref(), Some(&b"{\"[x]\",\"[x]\",NULL}"[..]));
        assert_eq!(cover_elements(b"{any", false, 0, &hiding), None);
    }

    #[test]
    fn what_is_not_known_is_shown_only_without_text_in_it() {
        let hiding = hiding();
        assert_eq!(look(b"an enum's word", 20_000, true, &hiding), Found::Nothing);
        assert_eq!(look(b"\0\0\0\x05something", 20_000, true, &hiding), Found::Hidden);
        assert_eq!(look(&[0, 1, 2, 3, 250], 600, true, &hiding), Found::Nothing);
        for cut in 0..40 {
            look(&vec![b'a'; cut], 1009, true, &hiding);
            look(&vec![0; cut], 2249, true, &hiding);
        }
    }
}
