//! Labels: which columns, and which values wherever they stand, are of one kind, and what hides them.

use std::{borrow::Cow, sync::Arc};

use super::{Bindings, Detector, Detectors, Form, LabelSet, Path};
use crate::model::{Action, Phase};

/// One label of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: String,
    /// The columns that carry it.
    pub columns: Vec<Pattern>,
    /// The values that carry it wherever they stand.
    pub detect: Vec<Detector>,
    /// What stands for a hidden value.
    pub form: Form,
}

/// Columns, by schema, relation and column; `*` stands for any run of characters. Or places in the documents in them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern {
    names: [String; 3],
    path: Option<Path>,
}

/// What stands between a column and a place in it.
const INTO: &str = " -> ";

impl Pattern {
    /// Reads `SCHEMA.RELATION.COLUMN`, each as the catalogue spells it, or `SCHEMA.RELATION.COLUMN -> PATH`.
    pub fn parse(text: &str) -> Option<Self> {
        let (columns, path) = match text.split_once(INTO) {
            Some((columns, path)) => (columns, Some(Path::parse(path)?)),
            None => (text, None),
        };
        let parts: Vec<&str> = columns.split('.').collect();
        let [schema, relation, column] = parts.as_slice() else { return None };
        let names = [*schema, *relation, *column];
        names.iter().all(|part| !part.is_empty()).then(|| Self { names: names.map(str::to_owned), path })
    }

    /// Where in a document it is, if it does not mean all of a column.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_ref()
    }

    fn fits(&self, names: [&str; 3]) -> bool {
        self.names.iter().zip(names).all(|(pattern, name)| matches(pattern, name))
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.names.join("."))?;
        self.path.as_ref().map_or(Ok(()), |path| write!(f, "{INTO}{path}"))
    }
}

/// Whether `name` is what `pattern` says.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at.saturating_add(part.len())..).unwrap_or_default();
    }
    rest.ends_with(last)
}

/// What the server itself keeps of the values in its tables, of others' statements, and of passwords.
const OF_THE_SERVER: [&str; 24] = [
    "pg_catalog.pg_authid.rolpassword",
    "pg_catalog.pg_shadow.passwd",
    "pg_catalog.pg_user_mapping.umoptions",
    "pg_catalog.pg_user_mappings.umoptions",
    "pg_catalog.pg_foreign_server.srvoptions",
    "pg_catalog.pg_subscription.subconninfo",
    "information_schema._pg_user_mappings.umoptions",
    "information_schema.user_mapping_options.option_value",
    "information_schema.foreign_server_options.option_value",
    "pg_toast*.*.chunk_data",
    "pg_catalog.pg_statistic.stavalues*",
    "pg_catalog.pg_statistic_ext_data.*",
    "pg_catalog.pg_stats.most_common_*",
    "pg_catalog.pg_stats.histogram_bounds",
    "pg_catalog.pg_stats.range_*",
    "pg_catalog.pg_stats_ext.most_common_*",
    "pg_catalog.pg_stats_ext_exprs.most_common_*",
    "pg_catalog.pg_stats_ext_exprs.histogram_bounds",
    "pg_catalog.pg_stat_activity.query",
    "pg_catalog.pg_prepared_statements.statement",
    "pg_catalog.pg_cursors.statement",
    "pg_catalog.pg_largeobject.data",
    "pg_catalog.pg_replication_slots.*",
    "*.pg_stat_statements.query",
];

/// The labels of one resource.
#[derive(Debug, Clone)]
pub struct Labels {
    resource: String,
    labels: Vec<Label>,
    /// The places in documents that they name, each with its label's place.
    parts: Vec<(usize, Path)>,
    detectors: Detectors,
    /// Every detector, where a mask is made by a value's kind.
    kinds: Detectors,
    /// Those that decide in statements whose rows are not counted.
    uncounted: LabelSet,
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        (&self.resource, &self.labels, self.uncounted) == (&other.resource, &other.labels, other.uncounted)
    }
}

impl Labels {
    /// The name of the label that every resource with labels has besides: on what the server keeps of its data.
    pub const STATISTICS: &'static str = "server-statistics";

    /// `labels` of `resource`, and the one on the server's own statistics unless there is none at all. An error is a
    /// bug of ours in a pattern.
    pub fn new(resource: &str, mut labels: Vec<Label>) -> Result<Self, String> {
        if !labels.is_empty() {
            labels.push(Label {
                name: Self::STATISTICS.to_owned(),
                columns: OF_THE_SERVER.into_iter().filter_map(Pattern::parse).collect(),
                detect: Vec::new(),
                form: Form::Null,
            });
        }
        let wanted: Vec<Detector> = labels.iter().flat_map(|label| label.detect.iter().copied()).collect();
        let by_kind = labels.iter().any(|label| label.form == Form::Fake);
        let every = Detector::WORDS.map(|(_, detector)| detector);
        let kinds = if by_kind { Detectors::new(&every)? } else { Detectors::none() };
        let mut parts: Vec<(usize, Path)> = Vec::new();
        for (place, label) in labels.iter().enumerate() {
            for path in label.columns.iter().filter_map(Pattern::path) {
                if !parts.contains(&(place, path.clone())) {
                    parts.push((place, path.clone()));
                }
            }
        }
        let (detectors, uncounted) = (Detectors::new(&wanted)?, LabelSet::NONE);
        Ok(Self { resource: resource.to_owned(), labels, parts, detectors, kinds, uncounted })
    }

    /// The same, where nobody from whom one of these is hidden is told how many rows a statement came to that it comes into.
    #[must_use]
    pub fn uncounted(self, uncounted: LabelSet) -> Self {
        Self { uncounted, ..self }
    }

    /// Those that are so.
    pub fn without_counts(&self) -> LabelSet {
        self.uncounted
    }

    /// None, of `resource`.
    pub fn none(resource: &str) -> Self {
        let [detectors, kinds] = [(); 2].map(|()| Detectors::none());
        let (labels, parts, uncounted) = (Vec::new(), Vec::new(), LabelSet::NONE);
        Self { resource: resource.to_owned(), labels, parts, detectors, kinds, uncounted }
    }

    /// The resource's name.
    pub fn resource(&self) -> &str {
        &self.resource
    }

    /// Whether nothing is labelled.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// The one at a place.
    pub fn get(&self, place: usize) -> Option<&Label> {
        self.labels.get(place)
    }

    /// All, by their places.
    pub fn iter(&self) -> impl Iterator<Item = &Label> {
        self.labels.iter()
    }

    /// What finds the values of all of them.
    pub fn detectors(&self) -> &Detectors {
        &self.detectors
    }

    /// The labels that a column carries by its own name.
    pub fn of_column(&self, schema: &str, relation: &str, column: &str) -> LabelSet {
        let names = [schema, relation, column];
        let each = self.labels.iter().enumerate().flat_map(|(place, label)| {
            let fitting = label.columns.iter().filter(|pattern| pattern.fits(names));
            fitting.map(move |pattern| self.of_pattern(place, pattern))
        });
        each.collect()
    }

    /// What a column bears that a pattern of the label at `place` fits.
    pub(super) fn of_pattern(&self, place: usize, pattern: &Pattern) -> LabelSet {
        let Some(path) = pattern.path() else { return LabelSet::of(place) };
        let is_it = |(label, other): &(usize, Path)| *label == place && other == path;
        self.parts.iter().position(is_it).map_or(LabelSet::of(place), |part| LabelSet::of_part(place, part))
    }

    /// How many places in documents they name.
    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// The place in documents with that number, and the place of its label.
    pub fn part(&self, number: usize) -> Option<(usize, &Path)> {
        self.parts.get(number).map(|(label, path)| (*label, path))
    }

    /// The place of the one with that name.
    pub fn place(&self, name: &str) -> Option<LabelSet> {
        self.labels.iter().position(|label| label.name == name).map(LabelSet::of)
    }

    /// The names of labels with those of their patterns that a column fits by its own name.
    pub fn fitting<'a>(
        &'a self,
        schema: &'a str,
        relation: &'a str,
        column: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Pattern)> {
        let all =
            self.labels.iter().flat_map(|label| label.columns.iter().map(move |p| (label.name.as_str(), p)));
        all.filter(move |(_, pattern)| pattern.fits([schema, relation, column]))
    }

    /// What a whole value is by its form, where a mask is made by that.
    pub(super) fn kind(&self, value: &str) -> Option<Detector> {
        let hits = self.kinds.find(value.as_bytes());
        hits.first().filter(|hit| hit.range == (0..value.len())).map(|hit| hit.detector)
    }

    /// Whether data that is labelled comes into what `action` does, or stands in its text or values: then neither
    /// literals nor values of it may be written down or shown to people.
    pub fn come_into(&self, action: &Action) -> bool {
        if self.is_empty() {
            return false;
        }
        !self.touched(action).is_empty() || self.texts(action).any(|text| !self.found(text).is_empty())
    }

    /// The labels of that data.
    pub fn within(&self, action: &Action) -> LabelSet {
        if self.is_empty() {
            return LabelSet::NONE;
        }
        self.texts(action).fold(self.touched(action), |labels, text| labels.or(self.found(text)))
    }

    fn touched(&self, action: &Action) -> LabelSet {
        let is_statement = matches!(action.phase, Phase::Query | Phase::Prepare | Phase::Execute);
        match &action.facts.provenance {
            Some(provenance) => provenance.touched,
            // Of what could not be traced nothing is known.
            None if is_statement => LabelSet::ALL,
            None => LabelSet::NONE,
        }
    }

    fn texts<'a>(&self, action: &'a Action) -> impl Iterator<Item = &'a str> + use<'a> {
        let values = action.binds.iter().filter_map(|bind| bind.value.as_deref());
        std::iter::once(&*action.text).chain(values)
    }

    /// The labels whose values stand in a text.
    fn found(&self, text: &str) -> LabelSet {
        let hits = self.detectors.find(text.as_bytes());
        let found = |label: &Label| hits.iter().any(|hit| label.detect.contains(&hit.detector));
        let places = self.labels.iter().enumerate().filter(|(_, label)| found(label));
        places.map(|(place, _)| LabelSet::of(place)).collect()
    }

    /// A text that is written down: without the values of any label that tell by themselves what they are.
    pub fn words<'a>(&self, text: Cow<'a, str>) -> Cow<'a, str> {
        let hits = self.detectors.find(text.as_bytes());
        if hits.is_empty() {
            return text;
        }
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        for hit in hits {
            out.push_str(text.get(at..hit.range.start).unwrap_or_default());
            let label = self.labels.iter().find(|label| label.detect.contains(&hit.detector));
            out.push('[');
            out.push_str(label.map_or("masked", |label| &label.name));
            out.push(']');
            at = hit.range.end;
        }
        out.push_str(text.get(at..).unwrap_or_default());
        Cow::Owned(out)
    }

    /// The names of those in a set.
    pub fn names(&self, set: LabelSet) -> impl Iterator<Item = &str> {
        let all = self.labels.iter().enumerate();
        all.filter(move |(place, _)| set.contains(LabelSet::of(*place))).map(|(_, label)| label.name.as_str())
    }
}

/// A resource's labels, and which columns are bound to them.
#[derive(Debug, Clone)]
pub struct Labelled {
    /// The labels.
    pub labels: Arc<Labels>,
    /// What is bound to them.
    pub bindings: Arc<Bindings>,
}

impl Labelled {
    /// Nothing is labelled in `resource`, so that nothing is bound.
    pub fn nothing(resource: &str) -> Self {
        let bindings = Arc::new(Bindings::known(Vec::new(), Vec::new()));
        Self { labels: Arc::new(Labels::none(resource)), bindings }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::inventory::{Source, load};

    /// The labels of a resource `orders`, from a labels.toml.
    pub(crate) fn labels(text: &str) -> Arc<Labels> {
        let source = |file: &str, text: &str| Source { file: file.to_owned(), text: text.to_owned() };
        let resources = source("resources.toml", "[resource.orders]\nhosts = [\"db\"]\nports = [5432]\n");
        let inventory = load(&resources, &source("agents.toml", ""), &[]).unwrap_or_else(|f| panic!("{f:?}"));
        let inventory =
            inventory.with_labels(&source("labels.toml", text)).unwrap_or_else(|f| panic!("{f:?}"));
        inventory.labels(&"orders".parse().expect("a name"))
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, fits) in [
            ("email", "email", true),
            ("email", "email2", false),
            ("*", "", true),
            ("*_email", "work_email", true),
            ("*_email", "work_email_", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
        assert!(
            Pattern::parse("a.b").is_none()
                && Pattern::parse("a..b").is_none()
                && Pattern::parse("a.b.c.d").is_none()
        );
    }

    #[test]
    fn columns_are_labelled_by_their_names() {
        let labels =
            labels("[label.ssn]\ncolumns = [\"public.customers.ssn\", \"*.*.*_ssn\"]\nmask = \"null\"\n");
        let ssn = LabelSet::of(0);
        assert_eq!(labels.of_column("public", "customers", "ssn"), ssn);
        assert_eq!(labels.of_column("a", "b", "the_ssn"), ssn);
        assert!(labels.of_column("public", "customers", "id").is_empty());
        assert_eq!(labels.of_column("pg_catalog", "pg_statistic", "stavalues1"), LabelSet::of(1));
        assert_eq!(labels.of_column("pg_catalog", "pg_user_mappings", "umoptions"), LabelSet::of(1));
        assert_eq!(labels.names(ssn).collect::<Vec<_>>(), ["ssn"]);
    }
}
