//! Values inside of values: arrays, rows and JSON, each written anew without what is hidden in it.
//!
//! Promise: what is written is a valid value of the same type, with as many elements or fields as before; what cannot
//! be read is not written at all.

use bytes::{BufMut, Bytes, BytesMut};

use super::frame::{Fields, Malformed, put_value};

/// What stands for an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Element {
    /// Itself.
    Same,
    /// This.
    Text(Vec<u8>),
    /// NULL.
    Null,
}

/// An array in text, with what `with` says of each element in its place; none where that is each itself.
pub(super) fn array_text(
    text: &[u8],
    mut with: impl FnMut(&[u8]) -> Element,
) -> Result<Option<Vec<u8>>, Malformed> {
    let mut out = Vec::with_capacity(text.len());
    let mut changed = false;
    // Where each dimension begins may stand before it.
    let begins = text.iter().position(|byte| *byte == b'{').ok_or(Malformed)?;
    let (bounds, mut rest) = text.split_at_checked(begins).ok_or(Malformed)?;
    if !bounds.iter().all(|byte| byte.is_ascii_digit() || b"[]:-+=".contains(byte)) {
        return Err(Malformed);
    }
    out.extend_from_slice(bounds);
    let mut depth = 0_usize;
    while let Some((byte, behind)) = rest.split_first() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.checked_sub(1).ok_or(Malformed)?,
            b',' if depth > 0 => {}
            _ if depth > 0 => {
                let Read { written, meant, behind } = element(rest)?;
                rest = behind;
                let is_null = written.eq_ignore_ascii_case(b"NULL");
                match if is_null { Element::Same } else { with(&meant) } {
                    Element::Same => out.extend_from_slice(written),
                    Element::Null => {
                        changed = true;
                        out.extend_from_slice(b"NULL");
                    }
                    Element::Text(text) => {
                        changed = true;
                        put_quoted(&text, &mut out);
                    }
                }
                continue;
            }
            _ => return Err(Malformed),
        }
        out.push(*byte);
        rest = behind;
    }
    if depth == 0 { Ok(changed.then_some(out)) } else { Err(Malformed) }
}

/// An element that was read: as it is written, what it means, and what stands behind it.
struct Read<'a> {
    written: &'a [u8],
    meant: Vec<u8>,
    behind: &'a [u8],
}

/// The first element of `rest`.
fn element(rest: &[u8]) -> Result<Read<'_>, Malformed> {
    let quoted = rest.first() == Some(&b'"');
    let mut meant = Vec::new();
    let mut at = usize::from(quoted);
    loop {
        match rest.get(at).ok_or(Malformed)? {
            b'\\' => {
                meant.push(*rest.get(at + 1).ok_or(Malformed)?);
                at += 2;
                continue;
            }
            b'"' if quoted => {
                at += 1;
                break;
            }
            b',' | b'}' if !quoted => break,
            b'{' | b'"' if !quoted => return Err(Malformed),
            byte => meant.push(*byte),
        }
        at += 1;
    }
    let (written, behind) = rest.split_at_checked(at).ok_or(Malformed)?;
    Ok(Read { written, meant, behind })
}

fn put_quoted(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

/// An array in binary, with what `with` says of each element, given its type, in its place.
pub(super) fn array_binary(
    value: Bytes,
    mut with: impl FnMut(&Bytes, u32) -> Element,
) -> Result<Option<Vec<u8>>, Malformed> {
    /// PostgreSQL's MAXDIM.
    const DIMENSIONS: u32 = 6;
    let mut fields = Fields::new(value);
    let (dimensions, flags, kind) = (fields.u32()?, fields.u32()?, fields.u32()?);
    if dimensions > DIMENSIONS || flags > 1 || kind == 0 {
        return Err(Malformed);
    }
    let mut out = BytesMut::new();
    let mut count = u64::from(dimensions > 0);
    let mut sizes = Vec::new();
    for _ in 0..dimensions {
        let (size, begin) = (fields.u32()?, fields.u32()?);
        count = count.saturating_mul(u64::from(size));
        sizes.push((size, begin));
    }
    let mut nulls = flags;
    let mut changed = false;
    for _ in 0..count {
        let element = fields.value()?;
        put_element(element, &mut changed, &mut out, |element| with(element, kind), || nulls = 1);
    }
    fields.end()?;
    let mut whole = BytesMut::new();
    for number in [dimensions, nulls, kind] {
        whole.put_u32(number);
    }
    for (size, begin) in sizes {
        whole.put_u32(size);
        whole.put_u32(begin);
    }
    whole.put_slice(&out);
    Ok(changed.then(|| whole.to_vec()))
}

/// A row in binary, with what `with` says of each field, given its type, in its place.
pub(super) fn record_binary(
    value: Bytes,
    mut with: impl FnMut(&Bytes, u32) -> Element,
) -> Result<Option<Vec<u8>>, Malformed> {
    let mut fields = Fields::new(value);
    let count = fields.u32()?;
    let mut out = BytesMut::new();
    out.put_u32(count);
    let mut changed = false;
    for _ in 0..count {
        let kind = fields.u32()?;
        out.put_u32(kind);
        let field = fields.value()?;
        put_element(field, &mut changed, &mut out, |field| with(field, kind), || ());
    }
    fields.end()?;
    Ok(changed.then(|| out.to_vec()))
}

fn put_element(
    element: Option<Bytes>,
    changed: &mut bool,
    out: &mut BytesMut,
    with: impl FnOnce(&Bytes) -> Element,
    nulled: impl FnOnce(),
) {
    let Some(element) = element else { return put_value(out, None) };
    match with(&element) {
        Element::Same => put_value(out, Some(&element)),
        Element::Text(text) => {
            *changed = true;
            put_value(out, Some(&text));
        }
        Element::Null => {
            *changed = true;
            nulled();
            put_value(out, None);
        }
    }
}

/// A JSON document, with what `with` says of each text and number in it in its place, by what it means. What stands for
/// a number is a text, and null stands for NULL but in names.
pub(super) fn json(
    text: &[u8],
    mut with: impl FnMut(&[u8]) -> Element,
) -> Result<Option<Vec<u8>>, Malformed> {
    let mut out = Vec::with_capacity(text.len());
    let mut changed = false;
    let mut rest = text;
    while let Some(byte) = rest.first() {
        let length = match byte {
            b'"' => string_length(rest)?,
            b'-' | b'0'..=b'9' => {
                rest.iter().take_while(|byte| byte.is_ascii_digit() || b"+-.eE".contains(byte)).count()
            }
            _ => 0,
        };
        if length == 0 {
            out.push(*byte);
            rest = rest.get(1..).unwrap_or_default();
            continue;
        }
        let (written, behind) = rest.split_at_checked(length).ok_or(Malformed)?;
        rest = behind;
        let is_name = behind.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':');
        let element = if *byte == b'"' {
            with(serde_json::from_slice::<String>(written).map_err(|_| Malformed)?.as_bytes())
        } else {
            with(written)
        };
        let said = match element {
            Element::Same => {
                out.extend_from_slice(written);
                continue;
            }
            Element::Null if is_name => "\"[masked]\"".to_owned(),
            Element::Null => "null".to_owned(),
            Element::Text(text) => {
                serde_json::to_string(&String::from_utf8_lossy(&text)).map_err(|_| Malformed)?
            }
        };
        changed = true;
        out.extend_from_slice(said.as_bytes());
    }
    let valid = || serde_json::from_slice::<&serde_json::value::RawValue>(&out).is_ok();
    if changed && !valid() { Err(Malformed) } else { Ok(changed.then_some(out)) }
}

/// The length of the text at the front, with its quotes.
fn string_length(text: &[u8]) -> Result<usize, Malformed> {
    let mut at = 1;
    loop {
        match text.get(at).ok_or(Malformed)? {
            b'\\' => at += 2,
            b'"' => return Ok(at + 1),
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(value: &[u8]) -> Element {
        match value {
            b"secret" | b"4711" => Element::Text(b"a \"b\"\\".to_vec()),
            b"nothing" => Element::Null,
            _ => Element::Same,
        }
    }

    #[test]
    fn arrays_in_text_stay_arrays() {
        let told = |text: &str| {
            let told = array_text(text.as_bytes(), with)?;
            Ok(told.map(|told| String::from_utf8(told).expect("UTF-8")))
        };
        assert_eq!(told("{}"), Ok(None));
        assert_eq!(told(r#"{a,"b c",NULL,{d,e}}"#), Ok(None));
        assert_eq!(told("{a,secret,nothing}"), Ok(Some(r#"{a,"a \"b\"\\",NULL}"#.to_owned())));
        assert_eq!(told(r#"[0:1]={"se\cret",x}"#), Ok(Some(r#"[0:1]={"a \"b\"\\",x}"#.to_owned())));
        for wrong in ["", "{", "{a", "a", "{a}}", r#"{"a}"#, r#"{a"b}"#, "{\\"] {
            assert_eq!(told(wrong), Err(Malformed), "{wrong}");
        }
    }

    #[test]
    fn arrays_and_rows_in_binary_stay_what_they_are() {
        let value =
            |bytes: &[u8]| [&u32::try_from(bytes.len()).expect("short").to_be_bytes(), bytes].concat();
        let words = |numbers: &[u32]| numbers.iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<_>>();
        let array = |flags, elements: &[Vec<u8>]| [words(&[1, flags, 25, 3, 1]), elements.concat()].concat();
        let null = words(&[u32::MAX]);
        let before = array(0, &[value(b"a"), value(b"secret"), value(b"nothing")]);
        let behind = array(1, &[value(b"a"), value(b"a \"b\"\\"), null.clone()]);
        assert_eq!(array_binary(before.into(), |value, _| with(value)), Ok(Some(behind)));
        let same = array(0, &[value(b"a"), value(b"b"), value(b"c")]);
        assert_eq!(array_binary(same.clone().into(), |value, _| with(value)), Ok(None));
        assert_eq!(array_binary(Bytes::from(same).slice(..20), |value, _| with(value)), Err(Malformed));
        let row = |fields: &[Vec<u8>]| [words(&[2]), fields.concat()].concat();
        let before = row(&[words(&[25]), value(b"secret"), words(&[23]), value(b"nothing")]);
        let behind = row(&[words(&[25]), value(b"a \"b\"\\"), words(&[23]), null]);
        assert_eq!(record_binary(before.into(), |value, _| with(value)), Ok(Some(behind)));
    }

    #[test]
    fn documents_stay_documents() {
        let told = |text: &str| {
            json(text.as_bytes(), with).map(|told| told.map(|told| String::from_utf8(told).expect("UTF-8")))
        };
        assert_eq!(told(r#"{"a": [1, 2.50, "b\n", true, null]}"#), Ok(None));
        assert_eq!(
            told(r#"{"a": 4711, "nothing": "s\u0065cret", "b": "nothing"}"#),
            Ok(Some(r#"{"a": "a \"b\"\\", "[masked]": "a \"b\"\\", "b": null}"#.to_owned()))
        );
        for wrong in [r#"{"a"#, r#"["\x"]"#, r#"["secret"#] {
            assert_eq!(told(wrong), Err(Malformed), "{wrong}");
        }
    }
}
