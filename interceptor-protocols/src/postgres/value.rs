//! One value of a row, looked through for what is hidden: by the numbers of PostgreSQL's own types (`pg_type.dat`).
//!
//! Promise: whatever the bytes are, an answer comes; what cannot be read as its type says, and might hold a text, is
//! taken for hidden.

use bytes::Bytes;
use interceptor_core::mask::Hiding;

use super::frame::{Fields, Malformed};

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
/// text[], varchar[], bpchar[], name[], record, xml.
const OF_TEXTS: [u32; 6] = [1009, 1015, 1014, 1003, 2249, 142];
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

/// Whether something that is looked for may stand in a value of a type.
pub(super) fn may_hold(kind: u32) -> bool {
    !SHORT.contains(&kind)
}

/// Looks through a value.
pub(super) fn look(value: &[u8], kind: u32, binary: bool, hiding: &Hiding) -> Found {
    if binary && !is_text(kind) && kind != 142 && !JSON.contains(&kind) {
        let hides = hides(&Bytes::copy_from_slice(value), kind, hiding, MAX_DEPTH);
        return if hides { Found::Hidden } else { Found::Nothing };
    }
    // The version stands before a binary jsonb.
    let (before, text) = value.split_at_checked(usize::from(binary && kind == JSONB)).unwrap_or((value, &[]));
    match hiding.clean(text) {
        None if std::str::from_utf8(text).is_err() => Found::Hidden,
        None => Found::Nothing,
        Some(None) => Found::Hidden,
        Some(Some(clean)) if stays_valid(kind, &clean) => Found::Covered([before, &clean].concat()),
        Some(Some(_)) => Found::Hidden,
    }
}

/// Looks through a value in text of whose type nothing is known.
pub(super) fn look_untyped(value: &[u8], hiding: &Hiding) -> Found {
    let is_json = |text: &[u8]| serde_json::from_slice::<&serde_json::value::RawValue>(text).is_ok();
    match hiding.clean(value) {
        None if std::str::from_utf8(value).is_err() => Found::Hidden,
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

/// Whether a text from which values were taken is still one of its type.
fn stays_valid(kind: u32, clean: &[u8]) -> bool {
    if JSON.contains(&kind) {
        return serde_json::from_slice::<&serde_json::value::RawValue>(clean).is_ok();
    }
    is_text(kind) || OF_TEXTS.contains(&kind)
}

/// Whether something hidden stands in a binary value.
fn hides(value: &Bytes, kind: u32, hiding: &Hiding, depth: usize) -> bool {
    let Some(depth) = depth.checked_sub(1) else { return true };
    if SHORT.contains(&kind) {
        return false;
    }
    if is_text(kind) || JSON.contains(&kind) || kind == 142 {
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
        assert_eq!(look(b"{\"a\": 4111111111111111}", 3802, false, &hiding), Found::Hidden);
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
        assert_eq!(look(&array(long.as_bytes()), 1009, true, &hiding), Found::Hidden);
        assert_eq!(look(&array(b"plain"), 1009, true, &hiding), Found::Nothing);
        assert_eq!(look(&array(b"plain")[..20], 1009, true, &hiding), Found::Nothing);
        let mut row = 1_u32.to_be_bytes().to_vec();
        row.extend(1009_u32.to_be_bytes());
        let inner = array(b"123-45-6789");
        row.extend(u32::try_from(inner.len()).expect("short").to_be_bytes());
        row.extend(inner);
        assert_eq!(look(&row, 2249, true, &hiding), Found::Hidden);
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
