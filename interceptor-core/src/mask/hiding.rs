//! What is hidden from one caller, and how.

use std::sync::Arc;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::{Detectors, Form, Label, LabelSet, Labels, Path, Provenance, Sought, Tokens};
use crate::model::{MaskLayer, MaskRecord, RunId};

/// The key that digests are made with. Its `Debug` prints none of it.
#[derive(Clone)]
pub struct MaskKey([u8; 32]);

impl std::fmt::Debug for MaskKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MaskKey(***)")
    }
}

impl MaskKey {
    /// A key from random bytes.
    pub fn new(random: [u8; 32]) -> Self {
        Self(random)
    }

    /// The tokens of one run for a resource with these labels.
    pub fn tokens(&self, labels: &Labels, run: RunId) -> Tokens {
        Tokens::new(&self.0, labels, run)
    }

    /// The key of one label of one resource.
    fn of(&self, resource: &str, label: &str) -> [u8; 32] {
        let mut key = [0; 32];
        // Any length of key will do.
        if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) {
            for part in [resource, label] {
                mac.update(&(part.len() as u64).to_be_bytes());
                mac.update(part.as_bytes());
            }
            key = mac.finalize().into_bytes().into();
        }
        key
    }
}

/// What becomes of the answer to one exchange.
#[derive(Debug, Clone)]
pub enum Mask {
    /// It is shown as it is.
    Nothing,
    /// These labels are hidden in it.
    Of(Arc<Hiding>),
}

/// What stands for a value of which nothing is shown where there is no NULL.
const INSTEAD_OF_NULL: &str = "[masked]";

/// Labels that are hidden from somebody.
#[derive(Debug)]
pub struct Hiding {
    labels: Arc<Labels>,
    hidden: LabelSet,
    keys: Vec<[u8; 32]>,
    detectors: Detectors,
    /// Secrets that are nobody's to see.
    sought: Arc<Sought>,
}

impl Hiding {
    /// Hides those of `labels` that are in `hidden`.
    pub fn new(labels: Arc<Labels>, hidden: LabelSet, key: &MaskKey) -> Self {
        let keys = labels.iter().map(|label| key.of(labels.resource(), &label.name)).collect();
        let wanted: Vec<_> = labels
            .iter()
            .enumerate()
            .filter(|(place, _)| hidden.contains(LabelSet::of(*place)))
            .flat_map(|(_, label)| label.detect.iter().copied())
            .collect();
        // The patterns were built when the labels were loaded.
        let detectors = Detectors::new(&wanted).unwrap_or_else(|_| labels.detectors().clone());
        Self { labels, hidden, keys, detectors, sought: Arc::default() }
    }

    /// The same, and these secrets besides.
    #[must_use]
    pub fn with(self, sought: Arc<Sought>) -> Self {
        Self { sought, ..self }
    }

    /// Whether any label is hidden: where none is, secrets alone are looked for.
    pub fn hides_labels(&self) -> bool {
        !self.hidden.is_empty()
    }

    /// What may be masked in the answer of a statement with that provenance.
    pub fn in_answer_of(&self, provenance: &Provenance) -> Vec<MaskRecord> {
        let touched = provenance.touched;
        let layer = |place: usize, label: &Label| {
            let one = LabelSet::of(place);
            match self.hidden.contains(one) {
                false => None,
                true if touched == LabelSet::ALL => Some(MaskLayer::Unknown),
                true if touched.contains(one) => Some(MaskLayer::Column),
                true => (!label.detect.is_empty()).then_some(MaskLayer::Value),
            }
        };
        let each = self.labels.iter().enumerate();
        each.filter_map(|(place, label)| {
            let by = layer(place, label)?;
            let at = if by == MaskLayer::Column { self.places(place, provenance) } else { Vec::new() };
            Some(MaskRecord { label: label.name.clone(), by, at })
        })
        .collect()
    }

    /// The places in documents where the label at `place` is borne; none where it is by a whole column.
    fn places(&self, place: usize, provenance: &Provenance) -> Vec<String> {
        let borne: LabelSet = provenance.origins.values().flatten().map(|(_, labels)| *labels).collect();
        if !borne.is_in_parts(LabelSet::of(place)) {
            return Vec::new();
        }
        let parts = self.parts(borne).filter(|(label, _)| *label == place);
        parts.map(|(_, path)| path.to_string()).collect()
    }

    /// Whether any of these is hidden.
    pub fn hides(&self, labels: LabelSet) -> bool {
        !self.hidden.and(labels).is_empty()
    }

    /// Whether it is not told how many rows a statement of that provenance comes to.
    pub fn hides_counts(&self, provenance: Option<&Provenance>) -> bool {
        let touched = provenance.map_or(LabelSet::ALL, |provenance| provenance.touched);
        self.hides(touched.and(self.labels.without_counts()))
    }

    /// The label that says how a value with these is hidden, by its place; none where it is shown.
    pub fn by(&self, labels: LabelSet) -> Option<usize> {
        let hidden = self.hidden.and(labels);
        let fits = |place: &usize| hidden.contains(LabelSet::of(*place));
        let all = 0..self.labels.len();
        let strongest = all.filter(fits).min_by_key(|place| self.form(*place));
        // All labels are more than there are.
        strongest.or((!hidden.is_empty()).then_some(usize::MAX))
    }

    /// The same labels, where each hidden one of them is borne only at places of a document, and one is.
    pub fn in_parts(&self, labels: LabelSet) -> Option<LabelSet> {
        let hidden = self.hidden.and(labels);
        (!hidden.is_empty() && labels.is_in_parts(hidden)).then_some(labels)
    }

    /// The places in a document with these labels that are hidden, each with its label's place.
    pub fn parts(&self, labels: LabelSet) -> impl Iterator<Item = (usize, &Path)> {
        labels
            .parts()
            .filter_map(|part| self.labels.part(part))
            .filter(|(label, _)| self.hidden.contains(LabelSet::of(*label)))
    }

    /// How the label at `place` hides.
    pub fn form(&self, place: usize) -> Form {
        self.labels.get(place).map_or(Form::Null, |label| label.form)
    }

    /// What stands for a text that the label at `place` hides; none is NULL.
    pub fn cover(&self, place: usize, value: &str) -> Option<String> {
        let (label, key) = (self.labels.get(place)?, self.keys.get(place)?);
        let kind = match label.form {
            Form::Fake => self.labels.kind(value),
            Form::Null | Form::Redact | Form::Token | Form::Hash | Form::Partial => None,
        };
        label.form.of(value, kind, &label.name, key)
    }

    /// Whether values are looked for at all.
    pub fn looks(&self) -> bool {
        !self.detectors.is_empty() || !self.sought.is_empty()
    }

    /// Whether hidden values stand in `bytes`.
    pub fn finds(&self, bytes: &[u8]) -> bool {
        self.sought.is_in(bytes) || !self.detectors.is_empty() && !self.detectors.find(bytes).is_empty()
    }

    /// A text without the hidden values in it: none where there are none, NULL as the inner none.
    pub fn clean(&self, text: &[u8]) -> Option<Option<Vec<u8>>> {
        self.looks().then(|| self.replaced(text, None)).flatten()
    }

    /// The same where nothing can be NULL: a word stands for each value.
    pub fn inline(&self, text: &[u8]) -> Option<Vec<u8>> {
        self.looks().then(|| self.replaced(text, Some(INSTEAD_OF_NULL))).flatten().flatten()
    }

    /// Words of a message without the hidden values in them.
    pub fn words(&self, text: &str) -> String {
        match self.inline(text.as_bytes()) {
            None => text.to_owned(),
            Some(clean) => String::from_utf8_lossy(&clean).into_owned(),
        }
    }

    fn replaced(&self, text: &[u8], instead: Option<&str>) -> Option<Option<Vec<u8>>> {
        let without = self.sought.cut(text);
        let rest = self.by_form(without.as_deref().unwrap_or(text), instead);
        rest.or_else(|| without.map(Some))
    }

    fn by_form(&self, text: &[u8], instead: Option<&str>) -> Option<Option<Vec<u8>>> {
        let hits = self.detectors.find(text);
        if hits.is_empty() {
            return None;
        }
        let mut out = Vec::with_capacity(text.len());
        let mut at = 0;
        for hit in hits {
            let place = self.labels.iter().enumerate().position(|(place, label)| {
                self.hidden.contains(LabelSet::of(place)) && label.detect.contains(&hit.detector)
            });
            let value = text.get(hit.range.clone()).and_then(|value| std::str::from_utf8(value).ok());
            let cover = place.zip(value).and_then(|(place, value)| self.cover(place, value));
            let Some(cover) = cover.or_else(|| instead.map(str::to_owned)) else { return Some(None) };
            out.extend_from_slice(text.get(at..hit.range.start).unwrap_or_default());
            out.extend_from_slice(cover.as_bytes());
            at = hit.range.end;
        }
        out.extend_from_slice(text.get(at..).unwrap_or_default());
        Some(Some(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::labels::tests::labels;

    #[test]
    fn keys_differ_by_resource_and_by_label() {
        let key = MaskKey::new([1; 32]);
        assert_ne!(key.of("a", "bc"), key.of("ab", "c"));
        assert_ne!(key.of("a", "b"), MaskKey::new([2; 32]).of("a", "b"));
        assert_eq!(format!("{key:?}"), "MaskKey(***)");
    }

    #[test]
    fn only_what_is_hidden_is_covered() {
        let labels = labels(
            "[label.mail]\ndetect = [\"email\"]\nmask = \"redact\"\n[label.ssn]\ndetect = [\"us_ssn\"]\nmask = \"null\"\ncolumns = [\"*.*.ssn\"]\n",
        );
        let [mail, ssn] = [0, 1].map(LabelSet::of);
        let hiding = Hiding::new(labels.clone(), mail, &MaskKey::new([0; 32]));
        assert!(hiding.hides(mail) && !hiding.hides(ssn));
        assert_eq!(hiding.clean(b"a@example.com 123-45-6789"), Some(Some(b"[mail] 123-45-6789".to_vec())));
        assert_eq!(hiding.clean(b"nothing"), None);
        let hiding = Hiding::new(labels, LabelSet::ALL, &MaskKey::new([0; 32]));
        assert_eq!(hiding.clean(b"a@example.com 123-45-6789"), Some(None));
        assert_eq!(hiding.by(mail.or(ssn)), Some(1), "the stronger form holds");
        assert!(hiding.by(LabelSet::ALL).is_some() && hiding.by(LabelSet::NONE).is_none());
        assert_eq!(hiding.words("mail a@example.com"), "mail [mail]");
    }

    #[test]
    fn a_record_names_the_places_where_no_whole_column_bears_a_label() {
        let labels =
            labels("[label.ssn]\ncolumns = [\"*.*.doc -> $.person.ssn\", \"*.*.ssn\"]\nmask = \"null\"\n");
        let [part, whole] = ["doc", "ssn"].map(|column| labels.of_column("public", "t", column));
        let hiding = Hiding::new(labels, LabelSet::ALL, &MaskKey::new([0; 32]));
        assert!(hiding.in_parts(part).is_some() && hiding.in_parts(part.or(whole)).is_none());
        assert!(hiding.in_parts(LabelSet::ALL).is_none() && hiding.in_parts(LabelSet::NONE).is_none());
        let at = |columns: &[LabelSet]| {
            let origins = (1..).zip(columns.iter().copied()).collect();
            let touched = columns.iter().map(|labels| labels.as_whole()).collect();
            let provenance = Provenance { origins: [(7, origins)].into(), touched, ..Provenance::clean() };
            hiding.in_answer_of(&provenance).first().map(|record| record.at.clone())
        };
        assert_eq!(at(&[part]), Some(vec!["$.person.ssn".to_owned()]));
        assert_eq!(at(&[part, whole]), Some(Vec::new()));
    }
}
