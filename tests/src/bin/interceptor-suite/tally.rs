//! How each test of a suite ended.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde_json::Value;

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Passed,
    Failed,
    Skipped,
    /// It is on the other side only.
    Absent,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Absent => "did not run",
        })
    }
}

/// The tests that ran, by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally(BTreeMap<String, Ending>);

impl Tally {
    /// Whether no test was run.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads what the plugin for pytest wrote.
    pub(crate) fn of_pytest(lines: &str) -> Self {
        let read = |line| serde_json::from_str::<Value>(line).expect("the plugin writes JSON");
        let pairs = lines.lines().map(read).map(|line| {
            let name = line[0].as_str().expect("a name").to_owned();
            let ending = match line[1].as_str() {
                Some("passed") => Ending::Passed,
                Some("skipped") => Ending::Skipped,
                _ => Ending::Failed,
            };
            (name, ending)
        });
        Self(pairs.collect())
    }

    /// Reads what a test program of Rust's printed.
    pub(crate) fn of_libtest(printed: &str) -> Self {
        let pairs = printed.lines().filter_map(|line| {
            let (name, word) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
            let ending = match word {
                "ok" => Ending::Passed,
                "ignored" => Ending::Skipped,
                _ => Ending::Failed,
            };
            Some((name.to_owned(), ending))
        });
        Self(pairs.collect())
    }

    /// Whether this test ran.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn ending(&self, name: &str) -> Ending {
        self.0.get(name).copied().unwrap_or(Ending::Absent)
    }

    /// How many ended so.
    pub(crate) fn count(&self, ending: Ending) -> usize {
        self.0.values().filter(|other| **other == ending).count()
    }

    /// The tests that ended differently in `other`.
    pub(crate) fn differences(&self, other: &Self) -> Vec<Difference> {
        let names: BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        let differences = names.into_iter().map(|name| Difference {
            name: name.clone(),
            direct: self.ending(name),
            captured: other.ending(name),
        });
        differences.filter(|difference| difference.direct != difference.captured).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [passed, failed, skipped] =
            [Ending::Passed, Ending::Failed, Ending::Skipped].map(|ending| self.count(ending));
        write!(f, "{passed:>6} {failed:>6} {skipped:>7}")
    }
}

/// A test that ended differently.
#[derive(Debug, Clone)]
pub(crate) struct Difference {
    pub(crate) name: String,
    pub(crate) direct: Ending,
    pub(crate) captured: Ending,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} direct, {} captured", self.name, self.direct, self.captured)
    }
}
