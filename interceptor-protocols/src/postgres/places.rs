//! Places in a JSON document, masked where they stand.
//!
//! Promise: what comes out is a JSON document, and at no place that a path means stands what stood there; names are
//! compared as they are meant, escapes and all, and however often they come. What is no document, or nested too deep, is
//! an error.

use interceptor_core::mask::{Along, Form, Hiding, LabelSet, Path};

use super::frame::Malformed;

/// How deep documents are followed.
const MAX_DEPTH: usize = 128;

/// The document, with what each hidden label of `labels` says at its places; none where nothing stands there.
pub(super) fn cover(text: &[u8], labels: LabelSet, hiding: &Hiding) -> Result<Option<Vec<u8>>, Malformed> {
    let text = std::str::from_utf8(text).map_err(|_| Malformed)?;
    serde_json::from_str::<&serde_json::value::RawValue>(text).map_err(|_| Malformed)?;
    let paths: Vec<(usize, &Path)> = hiding.parts(labels).collect();
    let root = (0..paths.len()).map(|path| (path, Along::ROOT)).collect();
    let mut writing =
        Writing { rest: text, out: String::with_capacity(text.len()), changed: false, hiding, paths };
    writing.blank();
    writing.value(root, MAX_DEPTH)?;
    writing.blank();
    if !writing.rest.is_empty() {
        return Err(Malformed);
    }
    Ok(writing.changed.then(|| writing.out.into_bytes()))
}

/// Paths, by their numbers, and how far along each something is.
type On = Vec<(usize, Along)>;

/// Reads a document, of which it is known that it is one, and writes it.
struct Writing<'a> {
    rest: &'a str,
    out: String,
    changed: bool,
    hiding: &'a Hiding,
    paths: Vec<(usize, &'a Path)>,
}

impl<'a> Writing<'a> {
    fn value(&mut self, on: On, depth: usize) -> Result<(), Malformed> {
        let depth = depth.checked_sub(1).ok_or(Malformed)?;
        let is_array = self.rest.starts_with('[');
        let ends = on.iter().filter_map(|(path, at)| {
            self.paths.get(*path).filter(|(_, path)| path.ends(*at, is_array)).map(|(label, _)| *label)
        });
        // Of several labels the strongest mask holds.
        if let Some(label) = ends.min_by_key(|label| self.hiding.form(*label)) {
            let value = self.passed_over()?;
            let said = instead(value, label, self.hiding)?;
            self.changed |= said != value;
            self.out.push_str(&said);
            return Ok(());
        }
        match self.rest.as_bytes().first() {
            // Nothing in it is meant.
            _ if on.is_empty() => {
                let value = self.passed_over()?;
                self.out.push_str(value);
                Ok(())
            }
            Some(b'{') => self.members(&on, depth),
            Some(b'[') => self.elements(&on, depth),
            _ => {
                let value = self.passed_over()?;
                self.out.push_str(value);
                Ok(())
            }
        }
    }

    fn members(&mut self, on: &On, depth: usize) -> Result<(), Malformed> {
        self.sign("{")?;
        self.blank();
        while !self.rest.starts_with('}') {
            let written = self.passed_over()?;
            let name: String = serde_json::from_str(written).map_err(|_| Malformed)?;
            self.out.push_str(written);
            self.blank();
            self.sign(":")?;
            self.blank();
            let along =
                |(path, at): &(usize, Along)| Some((*path, self.paths.get(*path)?.1.member(*at, &name)?));
            self.value(on.iter().filter_map(along).collect(), depth)?;
            self.behind()?;
        }
        self.sign("}")
    }

    fn elements(&mut self, on: &On, depth: usize) -> Result<(), Malformed> {
        self.sign("[")?;
        self.blank();
        while !self.rest.starts_with(']') {
            let along = |(path, at): &(usize, Along)| Some((*path, self.paths.get(*path)?.1.element(*at)?));
            self.value(on.iter().filter_map(along).collect(), depth)?;
            self.behind()?;
        }
        self.sign("]")
    }

    /// What stands between one member and the next.
    fn behind(&mut self) -> Result<(), Malformed> {
        self.blank();
        if self.rest.starts_with(',') {
            self.sign(",")?;
            self.blank();
        }
        Ok(())
    }

    fn blank(&mut self) {
        let rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
        let (blank, _) = self.rest.split_at(self.rest.len() - rest.len());
        self.out.push_str(blank);
        self.rest = rest;
    }

    fn sign(&mut self, sign: &str) -> Result<(), Malformed> {
        self.rest = self.rest.strip_prefix(sign).ok_or(Malformed)?;
        self.out.push_str(sign);
        Ok(())
    }

    /// The value at the front, as it is written, which is not written on.
    fn passed_over(&mut self) -> Result<&'a str, Malformed> {
        let mut values =
            serde_json::Deserializer::from_str(self.rest).into_iter::<&serde_json::value::RawValue>();
        let value = values.next().and_then(Result::ok).ok_or(Malformed)?;
        let (_, rest) = self.rest.split_at_checked(values.byte_offset()).ok_or(Malformed)?;
        self.rest = rest;
        Ok(value.get())
    }
}

/// What stands for a value, which is written so, of a document.
fn instead(value: &str, label: usize, hiding: &Hiding) -> Result<String, Malformed> {
    let null = || "null".to_owned();
    let quoted = |text: String| serde_json::to_string(&text).map_err(|_| Malformed);
    let plain: String = match value.as_bytes().first() {
        Some(b'"') => serde_json::from_str(value).map_err(|_| Malformed)?,
        // These show something of what stands inside.
        Some(b'{' | b'[') if matches!(hiding.form(label), Form::Partial | Form::Fake) => return Ok(null()),
        Some(b'n') => return Ok(null()),
        _ => value.to_owned(),
    };
    hiding.cover(label, &plain).map_or_else(|| Ok(null()), quoted)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use interceptor_core::mask::{Form, Label, Labels, MaskKey, Pattern};

    use super::*;

    /// What becomes of the column `public.t.doc`, of which these paths are hidden so.
    fn covered(paths: &[(&str, Form)], text: &str) -> Result<Option<String>, Malformed> {
        let label = |(place, (path, form)): (usize, &(&str, Form))| Label {
            name: format!("x{place}"),
            columns: vec![Pattern::parse(&format!("public.t.doc -> {path}")).expect("a pattern")],
            detect: Vec::new(),
            form: *form,
        };
        let labels = Labels::new("r", paths.iter().enumerate().map(label).collect()).expect("labels");
        let borne = labels.of_column("public", "t", "doc");
        let hiding = Hiding::new(Arc::new(labels), LabelSet::ALL, &MaskKey::new([0; 32]));
        let borne = hiding.in_parts(borne).expect("at places only");
        let out = cover(text.as_bytes(), borne, &hiding)?;
        Ok(out.map(|out| String::from_utf8(out).expect("UTF-8")))
    }

    #[test]
    fn what_stands_at_a_place_is_masked_there_and_the_rest_is_as_it_was() {
        let ssn = &[("$.person.ssn", Form::Redact)];
        for (text, told) in [
            (
                r#"{"person": {"ssn": "123", "n": 1.50}, "a": [1]}"#,
                r#"{"person": {"ssn": "[x0]", "n": 1.50}, "a": [1]}"#,
            ),
            (r#"{"person":{"ssn":123}}"#, r#"{"person":{"ssn":"[x0]"}}"#),
            (r#" { "person" : { "ssn" : true } } "#, r#" { "person" : { "ssn" : "[x0]" } } "#),
            (r#"{"person": {"ssn": {"a": "123"}}}"#, r#"{"person": {"ssn": "[x0]"}}"#),
            (r#"{"person": {"ssn": ["123", 5]}}"#, r#"{"person": {"ssn": "[x0]"}}"#),
            (r#"{"person": {"s\u0073n": "1"}}"#, r#"{"person": {"s\u0073n": "[x0]"}}"#),
            (r#"{"person": {"ssn": "1", "ssn": "2"}}"#, r#"{"person": {"ssn": "[x0]", "ssn": "[x0]"}}"#),
            (
                r#"[{"person": [{"ssn": "1"}, [{"ssn": "2"}]]}]"#,
                r#"[{"person": [{"ssn": "[x0]"}, [{"ssn": "[x0]"}]]}]"#,
            ),
        ] {
            assert_eq!(covered(ssn, text), Ok(Some(told.to_owned())), "{text}");
        }
        for same in
            [r#"{"person": {"ssn": null}}"#, r#"{"ssn": "1"}"#, "7", r#"{"person": "ssn"}"#, "{}", "[]"]
        {
            assert_eq!(covered(ssn, same), Ok(None), "{same}");
        }
    }

    #[test]
    fn any_name_and_any_element_can_be_meant() {
        let told = |path, text| covered(&[(path, Form::Redact)], text).map(Option::unwrap_or_default);
        assert_eq!(
            told("$.*.a", r#"{"x": {"a": 1, "b": 2}}"#),
            Ok(r#"{"x": {"a": "[x0]", "b": 2}}"#.to_owned())
        );
        assert_eq!(told("$.l[*]", r#"{"l": ["a", {"b": 1}]}"#), Ok(r#"{"l": ["[x0]", "[x0]"]}"#.to_owned()));
        assert_eq!(told("$.l[*]", r#"{"l": "a"}"#), Ok(r#"{"l": "[x0]"}"#.to_owned()));
        assert_eq!(told("$.l[*].b", r#"{"l": {"b": 1}}"#), Ok(r#"{"l": {"b": "[x0]"}}"#.to_owned()));
    }

    #[test]
    fn masks_show_no_more_than_they_do_of_columns() {
        let told = |form, text| covered(&[("$.a", form)], text).map(Option::unwrap_or_default);
        assert_eq!(told(Form::Null, r#"{"a": "b"}"#), Ok(r#"{"a": null}"#.to_owned()));
        assert_eq!(told(Form::Partial, r#"{"a": "123-45-6789"}"#), Ok(r#"{"a": "***-**-6789"}"#.to_owned()));
        assert_eq!(told(Form::Partial, r#"{"a": {"b": "123-45-6789"}}"#), Ok(r#"{"a": null}"#.to_owned()));
        assert_eq!(told(Form::Fake, r#"{"a": [1]}"#), Ok(r#"{"a": null}"#.to_owned()));
        let both = [("$.a", Form::Partial), ("$.*", Form::Null)];
        assert_eq!(covered(&both, r#"{"a": "123-45-6789"}"#), Ok(Some(r#"{"a": null}"#.to_owned())));
    }

    #[test]
    fn what_is_no_document_is_an_error() {
        let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        let told = |text: &str| covered(&[("$.a", Form::Null)], text);
        for wrong in
            ["", "{", r#"{"a": 1"#, r#"{"a": 1} x"#, r#"{"\ud800": 1}"#, &deep(MAX_DEPTH), &deep(100_000)]
        {
            assert_eq!(told(wrong), Err(Malformed), "{}", wrong.len());
        }
        assert_eq!(told(&deep(MAX_DEPTH - 1)), Ok(None));
        assert_eq!(cover(b"{\"a\xff\": 1}", LabelSet::NONE, &hiding()), Err(Malformed));
    }

    fn hiding() -> Hiding {
        Hiding::new(Arc::new(Labels::none("r")), LabelSet::ALL, &MaskKey::new([0; 32]))
    }
}
