//! What the server says besides rows, without what is hidden: errors, notices, notifications, settings, results of calls.
//!
//! Promise: an error or notice about a statement that hidden data comes into tells its code and names, never the
//! server's own words, which quote values; in all other words what is looked for is covered.

use bytes::{BufMut, Bytes, BytesMut};
use interceptor_core::mask::{Hiding, LabelSet, Provenance};

use super::frame::{Fields, Malformed, Writer, put_text};

/// What stands for words that may quote a hidden value.
const WITHHELD: &str = "the server's words are withheld: they may quote masked values";
/// Fields of an ErrorResponse that hold no value: severity (twice), code, position, file, line, routine.
const PLAIN: &[u8] = b"SVCPFLR";
/// Fields that name things: schema, table, column, type, constraint.
const NAMES: &[u8] = b"stcdn";

/// How far words may be shown.
#[derive(Debug, Clone, Copy)]
pub(super) enum Words<'a> {
    /// As they are.
    Shown,
    /// Without what is looked for.
    Looked(&'a Hiding),
    /// Without what is looked for where they are about names, otherwise not at all.
    Named(&'a Hiding),
    /// Not at all.
    Withheld,
}

/// How copied data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// As text or CSV.
    Text,
    /// As lengths and bytes.
    Binary,
}

impl<'a> Words<'a> {
    /// About something with that provenance, where this is hidden (see [`Veil::hiding`](super::veil::Veil::hiding)).
    pub(super) fn about(hiding: Option<Option<&'a Hiding>>, provenance: Option<&Provenance>) -> Self {
        match (hiding, provenance) {
            (None, _) => Self::Shown,
            (Some(Some(hiding)), _) if !hiding.hides_labels() => Self::Looked(hiding),
            // The server was sent more than the client wrote.
            (Some(_), Some(provenance)) if provenance.replaced > 0 => Self::Withheld,
            (Some(Some(hiding)), Some(provenance)) if !hiding.hides(provenance.touched) => {
                Self::Looked(hiding)
            }
            (Some(Some(hiding)), Some(provenance)) if provenance.touched != LabelSet::ALL => {
                Self::Named(hiding)
            }
            (Some(_), _) => Self::Withheld,
        }
    }

    fn text(self, text: &str) -> String {
        match self {
            Self::Shown => text.to_owned(),
            Self::Looked(hiding) => hiding.words(text),
            Self::Named(_) | Self::Withheld => WITHHELD.to_owned(),
        }
    }
}

/// An ErrorResponse or NoticeResponse with that body.
pub(super) fn message(tag: u8, body: Bytes, words: Words<'_>) -> Bytes {
    let words = match words {
        Words::Named(hiding) if is_about_names(&body) => Words::Looked(hiding),
        Words::Named(_) => Words::Withheld,
        words => words,
    };
    let mut fields = Fields::new(body);
    let mut out = Writer::default();
    out.message(tag, |out| {
        while let Ok(kind @ 1..) = fields.u8() {
            let Ok(text) = fields.text() else { break };
            let text = String::from_utf8_lossy(&text).into_owned();
            let said = match (kind, words) {
                // Where in a value the server stopped reading it.
                (b'P', Words::Withheld) => continue,
                (kind, _) if PLAIN.contains(&kind) => text,
                (kind, Words::Withheld) if NAMES.contains(&kind) => text,
                // Detail, hint, context, and the statements of functions.
                (kind, Words::Withheld) if kind != b'M' => continue,
                (_, words) => words.text(&text),
            };
            out.put_u8(kind);
            put_text(out, &said);
        }
        out.put_u8(0);
    });
    out.finish()
}

/// Whether the statement was refused for its names or its form, or for the server's own reasons: before a row was read,
/// or whatever is in it.
///
/// A code that says so is not enough. `ssn::regclass` reads a name out of a row, and fails with the same code as a name in
/// the text; but what is wrong in the text has a position there, and nothing that it was read out of.
fn is_about_names(body: &Bytes) -> bool {
    /// `insufficient_privilege`: about objects, and without a position.
    const PRIVILEGE: &str = "42501";
    let (mut code, mut in_text, mut inside) = (String::new(), false, false);
    let mut fields = Fields::new(body.clone());
    while let Ok(kind @ 1..) = fields.u8() {
        let Ok(text) = fields.text() else { return false };
        match kind {
            b'C' => code = String::from_utf8_lossy(&text).into_owned(),
            b'P' => in_text = true,
            b'W' | b'p' | b'q' => inside = true,
            _ => {}
        }
    }
    match code.get(..2) {
        Some("08" | "25" | "28" | "53" | "55" | "57") => !inside,
        Some("0A" | "3D" | "3F" | "42") => !inside && (in_text || code == PRIVILEGE),
        _ => false,
    }
}

/// A NotificationResponse: its payload may come from anybody.
pub(super) fn notification(body: Bytes, words: Words<'_>) -> Result<Bytes, Malformed> {
    let mut fields = Fields::new(body);
    let (process, channel, payload) = (fields.u32()?, fields.text()?, fields.text()?);
    let said = match words {
        Words::Withheld => String::new(),
        words => words.text(&String::from_utf8_lossy(&payload)),
    };
    let mut out = Writer::default();
    out.message(b'A', |out| {
        out.put_u32(process);
        out.put_slice(&channel);
        out.put_u8(0);
        put_text(out, &said);
    });
    Ok(out.finish())
}

/// A ParameterStatus.
pub(super) fn setting(name: &str, value: &str, words: Words<'_>) -> Bytes {
    let mut out = Writer::default();
    out.message(b'S', |out| {
        put_text(out, name);
        // What it is set to is no row's value: setting one to what is hidden is refused.
        put_text(
            out,
            &match words {
                Words::Withheld => value.to_owned(),
                words => words.text(value),
            },
        );
    });
    out.finish()
}

/// A FunctionCallResponse.
pub(super) fn result(body: Bytes, words: Words<'_>) -> Result<Bytes, Malformed> {
    let value = Fields::new(body).value()?;
    let shown = value.filter(|value| match words {
        Words::Shown => true,
        Words::Looked(hiding) => !hiding.finds(value),
        Words::Named(_) | Words::Withheld => false,
    });
    let mut out = Writer::default();
    out.message(b'V', |out: &mut BytesMut| super::frame::put_value(out, shown.as_deref()));
    Ok(out.finish())
}

/// A CopyData towards the client; none where it cannot be masked.
pub(super) fn copied(body: &[u8], format: Format, words: Words<'_>) -> Option<Bytes> {
    let clean = match words {
        Words::Shown => return Some(framed(body)),
        Words::Withheld => return None,
        Words::Looked(hiding) | Words::Named(hiding) if format == Format::Binary => {
            return (!hiding.finds(body)).then(|| framed(body));
        }
        Words::Looked(hiding) | Words::Named(hiding) => hiding.inline(body),
    };
    Some(framed(clean.as_deref().unwrap_or(body)))
}

fn framed(body: &[u8]) -> Bytes {
    let mut out = Writer::default();
    out.message(b'd', |out| out.put_slice(body));
    out.finish()
}

/// The tag of a command that has ended, without the number of its rows.
pub(super) fn without_count(body: &[u8]) -> Vec<u8> {
    let tag = body.strip_suffix(&[0]).unwrap_or(body);
    let words = tag.rsplitn(2, |byte| *byte == b' ').collect::<Vec<_>>();
    match words.as_slice() {
        [count, command] if !count.is_empty() && count.iter().all(u8::is_ascii_digit) => {
            [*command, b" 0\0"].concat()
        }
        _ => body.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use interceptor_core::mask::{Detector, Form, Label, LabelSet, Labels, MaskKey};

    use super::*;

    fn hiding() -> Hiding {
        let label = Label {
            name: "ssn".to_owned(),
            columns: Vec::new(),
            detect: vec![Detector::UsSsn],
            form: Form::Null,
        };
        let labels = Labels::new("r", vec![label]).expect("labels");
        Hiding::new(Arc::new(labels), LabelSet::ALL, &MaskKey::new([0; 32]))
    }

    #[test]
    fn tags_lose_their_counts_alone() {
        for (tag, without) in [
            (&b"SELECT 3\0"[..], &b"SELECT 0\0"[..]),
            (b"INSERT 0 17\0", b"INSERT 0 0\0"),
            (b"COPY 5\0", b"COPY 0\0"),
            (b"CREATE TABLE\0", b"CREATE TABLE\0"),
            (b"BEGIN\0", b"BEGIN\0"),
        ] {
            assert_eq!(without_count(tag), without);
        }
    }

    #[test]
    fn errors_about_hidden_data_tell_codes_and_names_alone() {
        let body = b"SERROR\0C22P02\0Minvalid input: \"123-45-6789\"\0DKey (ssn)=(123-45-6789)\0tcustomers\0W123-45-6789\0\0";
        let told = message(b'E', Bytes::from_static(body), Words::Withheld);
        let text = String::from_utf8_lossy(&told);
        assert!(text.contains("22P02") && text.contains("customers") && text.contains("withheld"), "{text}");
        assert!(!text.contains("6789") && !text.contains("Key"), "{text}");
        let hiding = hiding();
        let told = message(b'E', Bytes::from_static(body), Words::Looked(&hiding));
        let text = String::from_utf8_lossy(&told);
        assert!(text.contains("invalid input: \"[masked]\"") && !text.contains("6789"), "{text}");
    }

    #[test]
    fn words_are_about_names_where_they_stand_in_the_text() {
        let hiding = hiding();
        for (body, shown) in [
            (&b"SERROR\0C42P01\0Mrelation \"x\" does not exist\0P15\0\0"[..], true),
            (b"SERROR\0C42501\0Mpermission denied for x\0\0", true),
            (b"SERROR\0C57014\0Mcancelled x\0\0", true),
            (b"SERROR\0C42P01\0Mrelation \"x\" does not exist\0\0", false),
            (b"SERROR\0C42601\0Msyntax error at or near \"x\"\0P4\0Winvalid type name\0\0", false),
            (b"SERROR\0C22P02\0Minvalid \"x\"\0P4\0\0", false),
        ] {
            let told = message(b'E', Bytes::from_static(body), Words::Named(&hiding));
            let text = String::from_utf8_lossy(&told);
            assert_eq!(!text.contains("withheld"), shown, "{text}");
            assert!(!text.contains("P4\0"), "{text}");
        }
    }

    #[test]
    fn notifications_and_copies_are_looked_through() {
        let hiding = hiding();
        let looked = Words::Looked(&hiding);
        let told =
            notification(Bytes::from_static(b"\0\0\0\x01c\0x 123-45-6789\0"), looked).expect("a message");
        assert!(String::from_utf8_lossy(&told).contains("x [masked]"));
        let copied = |format| copied(b"1\t123-45-6789\n", format, looked);
        assert_eq!(copied(Format::Text).as_deref(), Some(&b"d\0\0\0\x0f1\t[masked]\n"[..]));
        assert_eq!(copied(Format::Binary), None);
        assert_eq!(
            result(Bytes::from_static(b"\0\0\0\x0b123-45-6789"), looked).as_deref(),
            Ok(&b"V\0\0\0\x08\xff\xff\xff\xff"[..])
        );
    }
}
