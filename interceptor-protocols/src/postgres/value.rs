//! One value of a row, looked through for what is hidden: by the numbers of PostgreSQL's own types (`pg_type.dat`).
//!
//! Promise: whatever the bytes are, an answer comes; what cannot be read as its type says, and might hold a text, is
//! taken for hidden.

use bytes::Bytes;
use interceptor_core::mask::{Hiding, LabelSet};

use super::{
    binary,
    frame::Malformed,
    numerals, places,
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

/// text, varchar, bpchar, name, unknown.
const TEXTS: [u32; 5] = [25, 1043, 1042, 19, 705];
/// json, jsonb.
const JSON: [u32; 2] = [114, 3802];
/// text[], varchar[], bpchar[], name[].
const OF_TEXTS: [u32; 4] = [1009, 1015, 1014, 1003];
/// int4multirange, nummultirange, tsmultirange, tstzmultirange, datemultirange, int8multirange.
const MULTIRANGES: [u32; 6] = [4451, 4532, 4533, 4534, 4535, 4536];
/// record, xml.
const ROWS: [u32; 2] = [2249, 142];
const TEXT: u32 = 25;
const XML: u32 = 142;
/// bool, "char", date, time, timestamp, timestamptz, interval, timetz, uuid, xid, cid, tid, void, int2, int4, oid: nothing
/// that is looked for can be written as one.
const SHORT: [u32; 16] = [16, 18, 1082, 1083, 1114, 1184, 1186, 1266, 2950, 28, 29, 27, 2278, 21, 23, 26];
const JSONB: u32 = 3802;
/// What stands before a jsonb in binary.
const VERSION: u8 = 1;
const RECORD: u32 = 2249;
/// Of any kind: numeric.
const NUMBER: u32 = 1700;
/// The first number of a type of somebody's own.
pub(super) const FIRST_OWN: u32 = 16384;

/// Whether a type's values are texts in binary too, whatever is to be found in them.
pub(super) fn is_written(kind: u32) -> bool {
    is_text(kind) || JSON.contains(&kind) || kind == XML
}

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
pub(super) fn look(value: &[u8], kind: u32, is_binary: bool, hiding: &Hiding) -> Found {
    if JSON.contains(&kind) {
        // The version stands before a binary jsonb.
        let head = usize::from(is_binary && kind == JSONB);
        let (before, text) = value.split_at_checked(head).unwrap_or((value, &[]));
        // In binary nothing else is told from what was cut off.
        if is_binary && !(before.iter().all(|version| *version == VERSION) && is_json(text)) {
            return Found::Hidden;
        }
        return match document(text, hiding) {
            Found::Covered(text) => Found::Covered([before, &text].concat()),
            found => found,
        };
    }
    if !is_binary || is_text(kind) || kind == XML {
        return plain(value, kind, hiding);
    }
    if passes_unread(hiding) && !hiding.finds(value) {
        return Found::Nothing;
    }
    let bytes = Bytes::copy_from_slice(value);
    if !binary::hides(&bytes, kind, hiding) {
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

/// Whether a value that cannot be read is shown where nothing is found in its bytes: nobody is to see less of it, and a
/// secret that is looked for stands there as it is.
fn passes_unread(hiding: &Hiding) -> bool {
    !hiding.hides_labels()
}

/// Whether a text is in the encoding that detectors read: most are by their first look.
fn is_read(text: &[u8]) -> bool {
    text.is_ascii() || std::str::from_utf8(text).is_ok()
}

fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<&serde_json::value::RawValue>(text).is_ok()
}

/// Looks through a value in text.
fn plain(text: &[u8], kind: u32, hiding: &Hiding) -> Found {
    match hiding.clean(text) {
        None if !is_read(text) && !passes_unread(hiding) => Found::Hidden,
        None if !is_text(kind) && kind != XML && numerals::hide(text, kind, hiding) => {
            let each = |element: &[u8]| match numerals::hide(element, kind, hiding) {
                true => Element::Null,
                false => Element::Same,
            };
            match within::array_text(text, each) {
                Ok(Some(array)) if is_array(kind) => Found::Covered(array),
                _ => Found::Hidden,
            }
        }
        None => Found::Nothing,
        Some(Some(clean)) if is_text(kind) => Found::Covered(clean),
        Some(_) if is_text(kind) => Found::Hidden,
        Some(clean) => {
            let each = |element: &[u8]| element_of(plain(element, element_kind(kind), hiding));
            match (within::array_text(text, each), clean) {
                (Ok(Some(array)), _) if is_array(kind) => Found::Covered(array),
                // A row's fields are quoted like an array's elements, but between other brackets.
                (_, Some(clean)) if ROWS.contains(&kind) => Found::Covered(clean),
                _ => Found::Hidden,
            }
        }
    }
}

/// Whether a value in text with braces is an array: several ranges have braces too, and rows may have anything.
fn is_array(kind: u32) -> bool {
    kind < FIRST_OWN && !ROWS.contains(&kind) && !MULTIRANGES.contains(&kind)
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
        let passes = passes_unread(hiding) && !hiding.finds(text);
        return if passes { Found::Nothing } else { Found::Hidden };
    }
    let hides = |part: &[u8]| hiding.finds(part) || numerals::hide(part, NUMBER, hiding);
    if memchr::memchr(b'\\', text).is_none() && !hides(text) {
        return Found::Nothing;
    }
    let each = |part: &[u8]| match hiding.clean(part) {
        None if numerals::is_one(part) && numerals::hide(part, NUMBER, hiding) => Element::Null,
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
pub(super) fn cover_elements(
    value: &[u8],
    is_binary: bool,
    label: usize,
    hiding: &Hiding,
) -> Option<Vec<u8>> {
    let cover = |element: &[u8]| {
        let text = std::str::from_utf8(element).ok();
        match text.and_then(|text| hiding.cover(label, text)) {
            Some(text) => Element::Text(text.into_bytes()),
            None => Element::Null,
        }
    };
    let written = if is_binary {
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
    match hiding.clean(value) {
        None if !is_read(value) || numerals::hide(value, NUMBER, hiding) => Found::Hidden,
        None => Found::Nothing,
        Some(None) => Found::Hidden,
        Some(Some(clean)) if value.starts_with(b"{") && is_json(value) && !is_json(&clean) => Found::Hidden,
        Some(Some(clean)) => Found::Covered(clean),
    }
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
        for several in ["{[1,2),[4111111111111111,)}", "{[4111111111111111.00,)}"] {
            assert_eq!(look(several.as_bytes(), 4536, false, &hiding), Found::Hidden, "{several}");
        }
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
        assert_eq!(look(&array(b"plain")[..20], 1009, true, &hiding), Found::Hidden);
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
        assert_eq!(look(&[0, 1, 2, 3, 250], 70_000, true, &hiding), Found::Nothing);
        for cut in 0..40 {
            look(&vec![b'a'; cut], 1009, true, &hiding);
            look(&vec![0; cut], 2249, true, &hiding);
        }
    }

    fn sized(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).expect("short").to_be_bytes(), bytes].concat()
    }

    fn array(kind: u32, elements: &[&[u8]]) -> Vec<u8> {
        let count = u32::try_from(elements.len()).expect("few");
        let elements: Vec<Vec<u8>> = elements.iter().map(|element| sized(element)).collect();
        [[1, 0, kind, count, 1].map(u32::to_be_bytes).concat(), elements.concat()].concat()
    }

    /// Values in which nothing is hidden, by the numbers of types that say how long they are.
    fn whole() -> Vec<(u32, Vec<u8>)> {
        let [few, more] = [7_i64, 19].map(i64::to_be_bytes);
        let numbers = |count: usize| vec![1.5_f64.to_be_bytes(); count].concat();
        let numeric: Vec<u8> = [2_u16, 0, 0, 2, 12, 5000].map(u16::to_be_bytes).concat();
        let address = vec![2, 32, 0, 4, 0, 0, 0, 0];
        let range = |low: &[u8], high: &[u8]| [&[2][..], &sized(low), &sized(high)].concat();
        let ranges = |one: &[u8]| [&2_u32.to_be_bytes()[..], &sized(&[1]), &sized(one)].concat();
        let words = [&2_u32.to_be_bytes()[..], b"a\0\0\x01\0\x01", b"bc\0\0\0"].concat();
        let field = |kind: u32, value: &[u8]| [&kind.to_be_bytes()[..], &sized(value)].concat();
        let record = [&2_u32.to_be_bytes()[..], &field(25, b"plain"), &field(20, &few)].concat();
        vec![
            (20, few.to_vec()),
            (790, few.to_vec()),
            (700, 1.5_f32.to_be_bytes().to_vec()),
            (701, numbers(1)),
            (1700, numeric.clone()),
            (869, address.clone()),
            (650, address.clone()),
            (600, numbers(2)),
            (601, numbers(4)),
            (603, numbers(4)),
            (628, numbers(3)),
            (718, numbers(3)),
            (602, [&[1][..], &2_u32.to_be_bytes(), &numbers(4)].concat()),
            (604, [&2_u32.to_be_bytes()[..], &numbers(4)].concat()),
            (114, b"{\"a\": [1, null, \"b\"]}".to_vec()),
            (3802, b"\x01{\"a\": [1, null, \"b\"]}".to_vec()),
            (3614, words),
            (2249, record.clone()),
            (3904, range(&[0, 0, 0, 1], &[0, 0, 0, 2])),
            (3926, range(&few, &more)),
            (3906, range(&numeric, &numeric)),
            (3908, range(&few, &more)),
            (4536, ranges(&range(&few, &more))),
            (4532, ranges(&range(&numeric, &numeric))),
            (1009, array(25, &[b"plain", b"", b"x"])),
            (1015, array(1043, &[b"plain"])),
            (1007, array(23, &[&[0, 0, 0, 1], &[0, 0, 0, 2]])),
            (1016, array(20, &[&few, &more])),
            (1231, array(1700, &[&numeric])),
            (1041, array(869, &[&address])),
            (1001, array(17, &[&[1, 2, 3]])),
            (199, array(114, &[b"1"])),
            (3807, array(3802, &[b"\x011"])),
            (2287, array(2249, &[&record])),
            (3927, array(3926, &[&range(&few, &more)])),
        ]
    }

    #[test]
    fn what_was_cut_off_is_never_passed() {
        let hiding = hiding();
        for (kind, value) in whole() {
            assert_eq!(look(&value, kind, true, &hiding), Found::Nothing, "all of {kind}");
            for cut in 0..value.len() {
                let found = look(&value[..cut], kind, true, &hiding);
                assert_ne!(found, Found::Nothing, "{cut} of the {} bytes of {kind}", value.len());
            }
            assert_ne!(
                look(&[&value[..], &[0]].concat(), kind, true, &hiding),
                Found::Nothing,
                "{kind} and more"
            );
        }
    }

    #[test]
    fn what_was_cut_off_is_not_shown_where_a_label_is_borne() {
        let hiding = hiding();
        let value = array(25, &[b"anything", b"else"]);
        assert_eq!(cover_elements(&value, true, 0, &hiding), Some(array(25, &[b"[x]", b"[x]"])));
        let cut = (0..value.len()).find_map(|cut| cover_elements(&value[..cut], true, 0, &hiding));
        assert_eq!(cut, None);
        let document = b"\x01{\"a\": {\"ssn\": \"zqx\"}, \"b\": [1]}";
        let at = interceptor_core::mask::Pattern::parse("s.t.c -> $.a.ssn").expect("a pattern");
        let label = Label { name: "x".to_owned(), columns: vec![at], detect: Vec::new(), form: Form::Redact };
        let labels = Labels::new("r", vec![label]).expect("labels");
        let borne = labels.of_column("s", "t", "c");
        let hiding = Hiding::new(Arc::new(labels), LabelSet::ALL, &MaskKey::new([0; 32]));
        let covered = cover_places(document, borne, &hiding).expect("a document");
        assert_eq!(covered, b"\x01{\"a\": {\"ssn\": \"[x]\"}, \"b\": [1]}");
        let cut = (0..document.len()).find_map(|cut| cover_places(&document[..cut], borne, &hiding));
        assert_eq!(cut, None);
    }
}
