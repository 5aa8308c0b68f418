//! `labels.toml`: which data of which resources is of which kind, and what hides it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use toml::Spanned;

use super::{
    DataIn, Fault, Inventory, RecordLevel, Source,
    load::{Item, Reader},
};
use crate::{
    mask::{Detector, Form, Label, LabelSet, Labels, Pattern},
    model::{LabelName, ResourceName},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLabel {
    resources: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    columns: Vec<Spanned<String>>,
    #[serde(default)]
    detect: Vec<Spanned<String>>,
    mask: Spanned<String>,
    #[serde(default)]
    counts: Counts,
}

/// Whether statements that labelled data comes into tell how many rows they come to.
#[derive(Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "kebab-case")]
enum Counts {
    #[default]
    Shown,
    Hidden,
}

/// That somebody looked whether the labels of a resource are all that it needs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawReview {
    by: Spanned<String>,
    on: Spanned<String>,
}

/// A label, and the resources that have it; none means every one.
struct Read {
    label: Label,
    counts: Counts,
    resources: Option<Vec<ResourceName>>,
    at: usize,
}

impl Inventory {
    /// The same inventory with the labels of this file. Its digest, and so the policy's hash, covers them.
    pub fn with_labels(mut self, source: &Source) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut reader = Reader::new(source, &mut faults);
        let mut all = Vec::new();
        let mut reviewed = BTreeSet::new();
        for item in reader.top() {
            match item.key.as_str() {
                "label" => {
                    for item in reader.table(item) {
                        all.extend(label(&mut reader, item, &self));
                    }
                }
                "reviewed" => {
                    for item in reader.table(item) {
                        reviewed.extend(review(&mut reader, item, &self));
                    }
                }
                other => {
                    let message = format!(
                        "unknown key `{other}`; a label is `[label.NAME]`, a review stands in `[reviewed]`"
                    );
                    reader.fault(item.at, message);
                }
            }
        }
        let mut labels = BTreeMap::new();
        for name in self.resources.keys() {
            let own: Vec<&Read> = all
                .iter()
                .filter(|read| read.resources.as_ref().is_none_or(|some| some.contains(name)))
                .collect();
            contradictions(&mut reader, name, &own);
            if self.data.get(name) == Some(&DataIn::Keys) {
                for read in own.iter().filter(|read| !read.label.columns.is_empty()) {
                    reader.fault(
                        read.at,
                        format!(
                            "label `{}` names `columns`, and `{name}` has keys and no columns: list the resources that have \
                             them under `resources`, and label what is in `{name}` by `detect`",
                            read.label.name
                        ),
                    );
                }
            }
            if self.data.get(name) == Some(&DataIn::Unread)
                && let Some(first) = own.first()
            {
                let message = format!(
                    "label `{}` is on `{name}` too, whose protocol masks nothing: list the label's `resources` without it",
                    first.label.name
                );
                reader.fault(first.at, message);
            }
            let uncounted = own.iter().enumerate().filter(|(_, read)| read.counts == Counts::Hidden);
            let uncounted = uncounted.map(|(place, _)| LabelSet::of(place)).collect();
            match Labels::new(name.as_str(), own.into_iter().map(|read| read.label.clone()).collect()) {
                Ok(own) => drop(labels.insert(name.clone(), Arc::new(own.uncounted(uncounted)))),
                Err(error) => reader
                    .whole(format!("interceptor's own detectors are wrong: {error}; please report this")),
            }
        }
        self.rows_are_covered(&mut reader, &labels, &reviewed);
        if !faults.is_empty() {
            faults.sort();
            faults.dedup();
            return Err(faults);
        }
        let mut hash = Sha256::new();
        hash.update(self.digest);
        hash.update(b"labels");
        hash.update(source.text.as_bytes());
        self.digest = hash.finalize().into();
        self.labels = labels;
        Ok(self)
    }

    /// The same inventory, where there is no `labels.toml`: nothing is labelled, and so no rows are recorded.
    pub fn without_labels(self) -> Result<Self, Vec<Fault>> {
        let source = Source { file: "labels.toml".to_owned(), text: String::new() };
        let mut faults = Vec::new();
        let mut reader = Reader::new(&source, &mut faults);
        self.rows_are_covered(&mut reader, &BTreeMap::new(), &BTreeSet::new());
        if faults.is_empty() { Ok(self) } else { Err(faults) }
    }

    /// Rows are recorded only of resources that have labels which somebody has reviewed.
    fn rows_are_covered(
        &self,
        reader: &mut Reader<'_>,
        labels: &BTreeMap<ResourceName, Arc<Labels>>,
        reviewed: &BTreeSet<ResourceName>,
    ) {
        for (name, resource) in self.resources.iter().filter(|(_, one)| one.record == RecordLevel::Rows) {
            let what = if labels.get(name).is_none_or(|labels| labels.is_empty()) {
                format!("`{name}` has no label: label its data in labels.toml, and write there")
            } else if reviewed.contains(name) {
                continue;
            } else {
                "its labels were not reviewed: whoever has looked whether they are complete writes in labels.toml"
                    .to_owned()
            };
            let message = format!(
                "`record = \"rows\"`: {what} `[reviewed]` with `{name} = {{ by = \"NAME\", on = \"YYYY-MM-DD\" }}`"
            );
            reader.fault_at(&resource.at, message);
        }
    }

    /// The labels of a resource; none where nothing says otherwise.
    pub fn labels(&self, resource: &ResourceName) -> Arc<Labels> {
        self.labels.get(resource).cloned().unwrap_or_else(|| Arc::new(Labels::none(resource.as_str())))
    }
}

/// The resource whose labels were reviewed.
fn review(reader: &mut Reader<'_>, item: Item<'_>, inventory: &Inventory) -> Option<ResourceName> {
    let (at, key) = (item.at, item.key.clone());
    let RawReview { by, on } = reader.value(item)?;
    if by.get_ref().trim().is_empty() {
        reader.fault(by.span().start, "`by` must say who has reviewed the labels");
    }
    let date = on.get_ref().parse::<jiff::civil::Date>().ok();
    if date.is_none_or(|date| date.to_string() != *on.get_ref()) {
        reader.fault(on.span().start, "`on` must be the day of the review, as `YYYY-MM-DD`");
    }
    let known = inventory.resources.keys().find(|name| name.as_str() == key);
    if known.is_none() {
        reader.fault(at, format!("resources.toml has no resource `{key}`"));
    }
    known.cloned()
}

fn label(reader: &mut Reader<'_>, item: Item<'_>, inventory: &Inventory) -> Option<Read> {
    let (at, key) = (item.at, item.key.clone());
    let raw: Option<RawLabel> = reader.value(item);
    let name: LabelName = key.parse().map_err(|error| reader.fault(at, format!("{error}"))).ok()?;
    let raw = raw?;
    if name.as_str() == Labels::STATISTICS {
        reader.fault(at, format!("`{name}` is the name of a label that is always there; choose another"));
    }
    let form = word(reader, "mask", &Form::WORDS, raw.mask);
    let detect = raw.detect.into_iter().filter_map(|entry| word(reader, "detector", &Detector::WORDS, entry));
    let detect: Vec<Detector> = detect.collect();
    let mut columns = Vec::new();
    for entry in raw.columns {
        match Pattern::parse(entry.get_ref()) {
            Some(pattern) => columns.push(pattern),
            None => reader.fault(
                entry.span().start,
                format!(
                    "`{}` is not SCHEMA.RELATION.COLUMN, nor SCHEMA.RELATION.COLUMN -> $.PATH; each name before `->` may have `*`",
                    entry.get_ref()
                ),
            ),
        }
    }
    if columns.is_empty() && detect.is_empty() {
        reader.fault(at, "a label needs `columns` or `detect`");
    }
    let resources = raw.resources.map(|entries| {
        for entry in &entries {
            let known = inventory.resources.keys().any(|name| name.as_str() == entry.get_ref().as_str());
            if !known {
                let message = format!("resources.toml has no resource `{}`", entry.get_ref());
                reader.fault(entry.span().start, message);
            }
        }
        reader.names("resource", entries)
    });
    Some(Read {
        label: Label { name: name.into(), columns, detect, form: form? },
        counts: raw.counts,
        resources,
        at,
    })
}

/// One of a closed list.
fn word<T: Copy>(
    reader: &mut Reader<'_>,
    what: &str,
    words: &[(&str, T)],
    entry: Spanned<String>,
) -> Option<T> {
    let found = words.iter().find(|(word, _)| word == entry.get_ref()).map(|(_, value)| *value);
    if found.is_none() {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let message = format!("there is no {what} `{}`; there are {}", entry.get_ref(), known.join(", "));
        reader.fault(entry.span().start, message);
    }
    found
}

/// The same data in two labels of one resource that hide it differently.
fn contradictions(reader: &mut Reader<'_>, resource: &ResourceName, own: &[&Read]) {
    if own.len() >= LabelSet::CAPACITY {
        reader.whole(format!("more than {} labels for `{resource}`", LabelSet::CAPACITY - 1));
    }
    let paths = own.iter().flat_map(|read| &read.label.columns).filter(|pattern| pattern.path().is_some());
    if paths.count() > LabelSet::PARTS {
        reader.whole(format!("more than {} places in documents for `{resource}`", LabelSet::PARTS));
    }
    for (place, one) in own.iter().enumerate() {
        for other in own.iter().skip(place + 1).filter(|other| other.label.form != one.label.form) {
            let column = one.label.columns.iter().find(|column| other.label.columns.contains(column));
            let detector = one.label.detect.iter().find(|detector| other.label.detect.contains(detector));
            let what = match (column, detector) {
                (Some(column), _) => format!("column `{column}`"),
                (None, Some(detector)) => format!("detector {detector:?}"),
                (None, None) => continue,
            };
            reader.fault(
                other.at,
                format!("labels `{}` and `{}` mask {what} differently", one.label.name, other.label.name),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::KnownProtocol;
    use crate::inventory::load;

    fn labelled(text: &str) -> Result<Inventory, Vec<Fault>> {
        let source = |file: &str, text: &str| Source { file: file.to_owned(), text: text.to_owned() };
        let resources = "[resource.orders]\nhosts = [\"a\"]\nports = [1]\n[resource.other]\nhosts = [\"b\"]\nports = [1]\n";
        let inventory = load(&source("resources.toml", resources), &source("agents.toml", ""), &[]);
        inventory.expect("an inventory").with_labels(&source("labels.toml", text))
    }

    #[test]
    fn labels_belong_to_their_resources_and_change_the_digest() {
        let text = "[label.ssn]\nresources = [\"orders\"]\ncolumns = [\"*.*.ssn\"]\nmask = \"null\"\n";
        let one = labelled(text).expect("labels");
        let of = |inventory: &Inventory, name: &str| inventory.labels(&name.parse().expect("a name"));
        assert_eq!(of(&one, "orders").len(), 2);
        assert!(of(&one, "other").is_empty());
        assert_ne!(one.digest, labelled(&text.replace("null", "redact")).expect("labels").digest);
        assert!(of(&labelled("").expect("none"), "orders").is_empty());
    }

    #[test]
    fn what_is_wrong_is_listed_with_its_line() {
        for (text, line, part) in [
            ("[labels.a]\n", 1, "unknown key `labels`"),
            ("[label.a]\nmask = \"null\"\n", 1, "needs `columns` or `detect`"),
            ("[label.a]\ndetect = [\"email\"]\n", 1, "mask"),
            ("[label.a]\ndetect = [\"mail\"]\nmask = \"null\"\n", 2, "there is no detector `mail`"),
            ("[label.a]\ndetect = [\"email\"]\nmask = \"hide\"\n", 3, "there is no mask `hide`"),
            ("[label.a]\ncolumns = [\"ssn\"]\nmask = \"null\"\n", 2, "is not SCHEMA.RELATION.COLUMN"),
            (
                "[label.a]\nresources = [\"x\"]\ndetect = [\"ip\"]\nmask = \"null\"\n",
                2,
                "has no resource `x`",
            ),
            ("[label.a]\ndetect = [\"ip\"]\nmask = \"null\"\nsee = true\n", 4, "see"),
            ("[label.a]\ndetect = [\"ip\"]\nmask = \"null\"\ncounts = \"none\"\n", 4, "none"),
            ("[label.a\ndetect = [\"ip\"]\n", 1, ""),
            ("[label.a]\ndetect = [\"ip\"]\nmask = null\n", 3, ""),
            ("[label.a]\ndetect = \"ip\"\nmask = \"null\"\n", 2, "expected a sequence"),
            ("[label.\"a b\"]\ndetect = [\"ip\"]\nmask = \"null\"\n", 1, ""),
            ("[label]\na = 1\n", 2, "a"),
            ("[label.server-statistics]\ndetect = [\"ip\"]\nmask = \"null\"\n", 1, "always there"),
            (
                "[label.a]\ncolumns = [\"*.*.x\"]\nmask = \"null\"\n[label.b]\ncolumns = [\"*.*.x\"]\nmask = \"hash\"\n",
                4,
                "mask column `*.*.x` differently",
            ),
            (
                "[label.a]\ndetect = [\"ip\"]\nmask = \"null\"\n[label.b]\ndetect = [\"ip\"]\nmask = \"hash\"\n",
                4,
                "mask detector Ip differently",
            ),
        ] {
            let faults = labelled(text).expect_err(text);
            assert!(faults.iter().any(|f| f.line == line && f.message.contains(part)), "{text}: {faults:?}");
        }
    }

    #[test]
    fn columns_are_labelled_only_where_there_are_any() {
        let source = |file: &str, text: &str| Source { file: file.to_owned(), text: text.to_owned() };
        let known = [KnownProtocol { name: "p", port: 1, data: DataIn::Keys, dialect: None }];
        let resources = "[resource.cache]\nprotocol = \"p\"\nhosts = [\"a\"]\n[resource.other]\nhosts = [\"b\"]\nports = [1]\n";
        let with = |text: &str| {
            let inventory = load(&source("resources.toml", resources), &source("agents.toml", ""), &known);
            inventory.expect("an inventory").with_labels(&source("labels.toml", text))
        };
        let columns = "[label.ssn]\ncolumns = [\"*.*.ssn\"]\nmask = \"null\"\n";
        for text in [columns.to_owned(), columns.replace("columns", "resources = [\"cache\"]\ncolumns")] {
            let faults = with(&text).expect_err("no columns are there");
            assert!(faults.iter().any(|f| f.line == 1 && f.message.contains("by `detect`")), "{faults:?}");
        }
        assert!(with(&columns.replace("columns", "resources = [\"other\"]\ncolumns")).is_ok());
        assert!(with("[label.ip]\ndetect = [\"ip\"]\nmask = \"null\"\n").is_ok());
        let rows = resources.replacen("hosts", "record = \"rows\"\nhosts", 1);
        let faults =
            load(&source("resources.toml", &rows), &source("agents.toml", ""), &known).expect_err("rows");
        assert!(faults.iter().any(|fault| fault.message.contains("this one has keys")), "{faults:?}");
    }

    #[test]
    fn what_cannot_be_masked_has_neither_labels_nor_recorded_rows() {
        let source = |file: &str, text: &str| Source { file: file.to_owned(), text: text.to_owned() };
        let known = [KnownProtocol { name: "p", port: 1, data: DataIn::Unread, dialect: None }];
        let of = |record: &str| {
            let resources =
                format!("[resource.shop]\nprotocol = \"p\"\nhosts = [\"a\"]\nrecord = \"{record}\"\n");
            load(&source("resources.toml", &resources), &source("agents.toml", ""), &known)
        };
        let label = source("labels.toml", "[label.ip]\ndetect = [\"ip\"]\nmask = \"null\"\n");
        let faults = of("binds").expect("an inventory").with_labels(&label).expect_err("nothing masks it");
        assert!(
            faults.iter().any(|fault| fault.message.contains("list the label's `resources`")),
            "{faults:?}"
        );
        let faults = of("rows").expect_err("no rows are recorded");
        assert!(faults.iter().any(|fault| fault.message.contains("whose answers are read")), "{faults:?}");
    }

    #[test]
    fn rows_are_recorded_only_where_labels_were_reviewed() {
        let source = |file: &str, text: &str| Source { file: file.to_owned(), text: text.to_owned() };
        let resources =
            "\n[resource.orders]\nprotocol = \"p\"\nhosts = [\"a\"]\nports = [1]\nrecord = \"rows\"\n";
        let known = [KnownProtocol { name: "p", port: 1, data: DataIn::Tables, dialect: None }];
        let inventory = || load(&source("resources.toml", resources), &source("agents.toml", ""), &known);
        let with = |text: &str| inventory().expect("an inventory").with_labels(&source("labels.toml", text));
        let label = "[label.ip]\ndetect = [\"ip\"]\nmask = \"null\"\n";
        let review = "[reviewed]\norders = { by = \"alice\", on = \"2026-11-20\" }\n";
        assert!(with(&format!("{label}{review}")).is_ok());
        let fault = |faults: Vec<Fault>| faults.first().expect("a fault").to_string();
        let unreviewed = fault(with(label).expect_err("nobody has reviewed it"));
        assert!(
            unreviewed.starts_with("resources.toml:2: ") && unreviewed.contains("[reviewed]"),
            "{unreviewed}"
        );
        assert!(fault(with(review).expect_err("nothing is labelled")).contains("no label"));
        let none = inventory().expect("an inventory").without_labels().expect_err("nothing is labelled");
        assert!(fault(none).starts_with("resources.toml:2: "));
        for (wrong, part) in [
            ("orders = { by = \" \", on = \"2026-11-20\" }", "who has reviewed"),
            ("orders = { by = \"alice\", on = \"2026-11-31\" }", "YYYY-MM-DD"),
            ("orders = { by = \"alice\", on = \"2026-11-20T10:00\" }", "YYYY-MM-DD"),
            ("orders = { by = \"alice\", on = \"lately\" }", "YYYY-MM-DD"),
            ("orders = { by = \"alice\" }", "on"),
            ("orders = true", "orders"),
            ("orders = { by = \"alice\", on = \"2026-11-20\", all = true }", "all"),
            ("other = { by = \"alice\", on = \"2026-11-20\" }", "no resource `other`"),
        ] {
            let faults = with(&format!("{label}[reviewed]\n{wrong}\n")).expect_err(wrong);
            let found = faults
                .iter()
                .any(|f| (f.file.as_str(), f.line) == ("labels.toml", 5) && f.message.contains(part));
            assert!(found, "{wrong}: {faults:?}");
        }
        let passed = "[resource.orders]\nhosts = [\"a\"]\nports = [1]\nrecord = \"rows\"\n";
        let faults = load(&source("resources.toml", passed), &source("agents.toml", ""), &known)
            .expect_err("it is passed");
        assert_eq!(faults.first().map(|fault| fault.line), Some(4));
    }
}
