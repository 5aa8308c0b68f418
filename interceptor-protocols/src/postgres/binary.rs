//! Binary values, read for what is hidden in them: by the numbers of PostgreSQL's own types (`pg_type.dat`), or in any way
//! that they can be read.
//!
//! Promise: what cannot be read as its type says, and might hold a text, is taken for hidden.

use bytes::Bytes;
use interceptor_core::mask::Hiding;

use super::{
    frame::{Fields, Malformed},
    value,
};

/// How deep arrays and rows are followed.
const MAX_DEPTH: usize = 6;

const BYTEA: u32 = 17;
const INT8: u32 = 20;
const MONEY: u32 = 790;
const NUMERIC: u32 = 1700;
const RECORD: u32 = 2249;
const TSVECTOR: u32 = 3614;
/// Nothing is known of it.
const UNKNOWN: u32 = value::FIRST_OWN;
const FLOAT4: u32 = 700;
const FLOAT8: u32 = 701;
/// inet, cidr.
const ADDRESSES: [u32; 2] = [869, 650];
/// point, lseg, box, line, circle: with how many numbers.
const SHAPES: [(u32, usize); 5] = [(600, 2), (601, 4), (603, 4), (628, 3), (718, 3)];
/// path, polygon: how many bytes stand before the number of their points.
const POINTS: [(u32, usize); 2] = [(602, 1), (604, 0)];
/// Arrays of PostgreSQL's own types.
const ARRAYS: [u32; 72] = [
    22, 30, 143, 199, 271, 629, 651, 719, 775, 791, 1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009,
    1010, 1011, 1012, 1013, 1014, 1015, 1016, 1017, 1018, 1019, 1020, 1021, 1022, 1027, 1028, 1034, 1040,
    1041, 1115, 1182, 1183, 1185, 1187, 1231, 1270, 1561, 1563, 2201, 2287, 2949, 2951, 3221, 3643, 3644,
    3645, 3735, 3770, 3807, 3905, 3907, 3909, 3911, 3913, 3927, 4073, 4090, 4097, 6150, 6151, 6152, 6153,
    6155, 6157,
];
/// Ranges: of which type, and whether several.
const RANGES: [(u32, u32, Several); 12] = [
    (3904, 23, Several::One),
    (3906, NUMERIC, Several::One),
    (3908, 1114, Several::One),
    (3910, 1184, Several::One),
    (3912, 1082, Several::One),
    (3926, INT8, Several::One),
    (4451, 23, Several::Many),
    (4532, NUMERIC, Several::Many),
    (4533, 1114, Several::Many),
    (4534, 1184, Several::Many),
    (4535, 1082, Several::Many),
    (4536, INT8, Several::Many),
];

/// A range, or several.
#[derive(Debug, Clone, Copy)]
enum Several {
    One,
    Many,
}

/// Whether something hidden stands in a binary value.
pub(super) fn hides(value: &Bytes, kind: u32, hiding: &Hiding) -> bool {
    inside(value, kind, hiding, MAX_DEPTH)
}

/// The same of a value of whose type nothing is known: in any way that it can be read.
pub(super) fn hides_untyped(value: &Bytes, hiding: &Hiding) -> bool {
    hiding.looks() && inside(value, UNKNOWN, hiding, MAX_DEPTH)
}

fn inside(value: &Bytes, kind: u32, hiding: &Hiding, depth: usize) -> bool {
    let Some(depth) = depth.checked_sub(1) else { return true };
    if !value::may_hold(kind) {
        return false;
    }
    if value::is_written(kind) {
        return hiding.finds(value) || std::str::from_utf8(value).is_err();
    }
    let finds = |text: String| hiding.finds(text.as_bytes());
    let found = match kind {
        INT8 => integer(value).map(finds),
        MONEY => integer(value).map(|cents| {
            cents
                .len()
                .checked_sub(2)
                .is_some_and(|whole| cents.get(..whole).is_some_and(|whole| finds(whole.to_owned())))
        }),
        NUMERIC => numeric(value.clone()).map(finds),
        RECORD => record(value.clone(), hiding, depth),
        TSVECTOR => lexemes(value.clone(), hiding),
        BYTEA => Ok(hiding.finds(value)),
        FLOAT4 | FLOAT8 if (kind == FLOAT4) != (value.len() == 4) => Err(Malformed),
        FLOAT4 | FLOAT8 => float(value).map(finds),
        _ if ADDRESSES.contains(&kind) => address(value.clone()).map(finds),
        _ if ARRAYS.contains(&kind) => array(value.clone(), hiding, depth),
        _ if is_shape(kind) => shape(value, kind, hiding),
        _ => match RANGES.iter().find(|(range, ..)| *range == kind) {
            Some((_, of, Several::One)) => range(value.clone(), *of, hiding, depth),
            Some((_, of, Several::Many)) => ranges(value.clone(), *of, hiding, depth),
            None => Ok(unknown(value, hiding, depth)),
        },
    };
    found.unwrap_or(true)
}

/// Whether something hidden stands in a value of whose type nothing is known, in any way that it can be read.
fn unknown(value: &Bytes, hiding: &Hiding, depth: usize) -> bool {
    /// Numbers with fractions read as larger ones.
    const LARGEST: usize = 16;
    // A text of eight letters reads as a larger one.
    let is_number = |text: &String| value.len() == 8 && text.len() <= LARGEST;
    let numbers = [integer(value).ok().filter(is_number), float(value).ok().filter(is_number)];
    let read = [numeric(value.clone()).ok(), address(value.clone()).ok()].into_iter().chain(numbers);
    if read.flatten().any(|text| hiding.finds(text.as_bytes())) {
        return true;
    }
    // What can be read in one of these ways is nothing else, but by chance.
    array(value.clone(), hiding, depth)
        .or_else(|_| record(value.clone(), hiding, depth))
        .or_else(|_| range(value.clone(), UNKNOWN, hiding, depth))
        .or_else(|_| ranges(value.clone(), UNKNOWN, hiding, depth))
        .or_else(|_| raw(value, hiding))
        .unwrap_or(true)
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
    let bytes = <[u8; 8]>::try_from(value).map_err(|_| Malformed)?;
    Ok(i64::from_be_bytes(bytes).unsigned_abs().to_string())
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
    fields.end()?;
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
        hidden |= fields.value()?.is_some_and(|element| inside(&element, kind, hiding, depth));
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
        hidden |= fields.value()?.is_some_and(|part| inside(&part, kind, hiding, depth));
    }
    fields.end()?;
    Ok(hidden)
}

/// A range of values of type `of`.
fn range(value: Bytes, of: u32, hiding: &Hiding, depth: usize) -> Result<bool, Malformed> {
    const EMPTY: u8 = 1;
    const INFINITE: [u8; 2] = [8, 16];
    let mut fields = Fields::new(value);
    let flags = fields.u8()?;
    // Nothing else is sent, so that few other values read as a range.
    if flags & !0x1f != 0 || (flags & EMPTY != 0 && flags != EMPTY) {
        return Err(Malformed);
    }
    let mut hidden = false;
    for infinite in INFINITE {
        if flags & (infinite | EMPTY) == 0 {
            let bound = fields.value()?.ok_or(Malformed)?;
            hidden |= inside(&bound, of, hiding, depth);
        }
    }
    fields.end()?;
    Ok(hidden)
}

/// Several ranges of values of type `of`.
fn ranges(value: Bytes, of: u32, hiding: &Hiding, depth: usize) -> Result<bool, Malformed> {
    let mut fields = Fields::new(value);
    let count = fields.u32()?;
    let mut hidden = false;
    for _ in 0..count {
        let one = fields.value()?.ok_or(Malformed)?;
        hidden |= range(one, of, hiding, depth)?;
    }
    fields.end()?;
    Ok(hidden)
}

/// The words of a tsvector, each with its places.
fn lexemes(value: Bytes, hiding: &Hiding) -> Result<bool, Malformed> {
    let mut fields = Fields::new(value);
    let count = fields.u32()?;
    let mut hidden = false;
    for _ in 0..count {
        hidden |= hiding.finds(&fields.text()?);
        let places = fields.count()?;
        fields.take(places.saturating_mul(2))?;
    }
    fields.end()?;
    Ok(hidden)
}

fn is_shape(kind: u32) -> bool {
    SHAPES.iter().chain(&POINTS).any(|(shape, _)| *shape == kind)
}

/// A geometric value: whether a coordinate of it is hidden.
fn shape(value: &[u8], kind: u32, hiding: &Hiding) -> Result<bool, Malformed> {
    const NUMBER: usize = 8;
    let of =
        |shapes: &[(u32, usize)]| shapes.iter().find(|(shape, _)| *shape == kind).map(|(_, count)| *count);
    let (numbers, count) = match of(&SHAPES) {
        Some(count) => (value, count),
        None => {
            let (_, points) = value.split_at_checked(of(&POINTS).unwrap_or(0)).ok_or(Malformed)?;
            let (count, numbers) = points.split_first_chunk::<4>().ok_or(Malformed)?;
            let count = usize::try_from(u32::from_be_bytes(*count)).map_err(|_| Malformed)?;
            (numbers, count.saturating_mul(2))
        }
    };
    if numbers.len() != count.saturating_mul(NUMBER) {
        return Err(Malformed);
    }
    Ok(numbers
        .chunks_exact(NUMBER)
        .any(|number| float(number).is_ok_and(|text| hiding.finds(text.as_bytes()))))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use interceptor_core::mask::{Detector, Form, Label, LabelSet, Labels, MaskKey};

    use super::*;

    const CARD: i64 = 4_111_111_111_111_111;

    fn hiding() -> Hiding {
        let detect = Detector::WORDS.map(|(_, detector)| detector).to_vec();
        let label = Label { name: "x".to_owned(), columns: Vec::new(), detect, form: Form::Redact };
        let labels = Labels::new("r", vec![label]).expect("labels");
        Hiding::new(Arc::new(labels), LabelSet::ALL, &MaskKey::new([0; 32]))
    }

    fn sized(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).expect("short").to_be_bytes(), bytes].concat()
    }

    fn range(low: &[u8], high: &[u8]) -> Vec<u8> {
        [&[2][..], &sized(low), &sized(high)].concat()
    }

    #[test]
    fn ranges_are_read_whosever_they_are() {
        let hiding = hiding();
        let found = |bytes: &[u8], kind| hides(&Bytes::copy_from_slice(bytes), kind, &hiding);
        let [card, more, few] = [CARD, CARD + 1, 17].map(i64::to_be_bytes);
        for kind in [3926, 70_000] {
            assert!(found(&range(&card, &more), kind) && found(&range(&few, &card), kind), "{kind}");
            assert!(!found(&range(&few, &few), kind) && !found(&[1], kind), "{kind}");
            assert!(found(&[&[8][..], &sized(&card)].concat(), kind) && !found(&[24], kind), "{kind}");
        }
        for kind in [4536, 70_000] {
            let two = |range: &[u8]| [&2_u32.to_be_bytes()[..], &sized(&[1]), &sized(range)].concat();
            assert!(
                found(&two(&range(&few, &card)), kind) && !found(&two(&range(&few, &few)), kind),
                "{kind}"
            );
        }
        assert!(found(&range(b"a@example.com", b"b"), 70_000) && !found(&range(b"a", b"b"), 70_000));
        assert!(found(&[2, 0, 0], 3926), "what cannot be read");
    }

    #[test]
    fn numbers_are_read_in_types_of_few() {
        let hiding = hiding();
        let found = |bytes: &[u8], kind| hides(&Bytes::copy_from_slice(bytes), kind, &hiding);
        assert!(found(&(CARD * 100).to_be_bytes(), 790) && !found(&1700_i64.to_be_bytes(), 790));
        let point = |x: f64, y: f64| [x.to_be_bytes(), y.to_be_bytes()].concat();
        assert!(found(&point(1.0, CARD as f64), 600) && !found(&point(1.0, 2.5), 600));
        let words = |word: &[u8]| [&1_u32.to_be_bytes()[..], word, &[0, 0, 1, 0, 1]].concat();
        assert!(found(&words(b"a@example.com"), 3614) && !found(&words(b"nothing"), 3614));
        assert!(found(&CARD.to_be_bytes(), 70_000) && !found(&17_i64.to_be_bytes(), 70_000));
    }
}
