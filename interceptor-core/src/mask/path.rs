//! Places in JSON documents, written as in SQL/JSON: `$.person.ssn`, `$.orders[*]."card no"`, `$.*.ssn`.
//!
//! Promise: as there, a name means the same in each element of an array that stands where an object could, and `[*]`
//! means what stands there itself where that is no array: rather too much is meant than too little.

use std::fmt;

/// A place in a document, or several.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Step {
    Key(String),
    AnyKey,
    Element,
}

/// How far along a path what stands somewhere is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Along(usize);

impl Along {
    /// At a document's root.
    pub const ROOT: Self = Self(0);
}

impl Path {
    /// Reads one. It has at least one step: all of a document is its column.
    pub fn parse(text: &str) -> Option<Self> {
        let mut rest = text.strip_prefix('$')?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, behind) = match rest.strip_prefix("[*]") {
                Some(behind) => (Step::Element, behind),
                None => key(rest.strip_prefix('.')?)?,
            };
            steps.push(step);
            rest = behind;
        }
        (!steps.is_empty()).then_some(Self(steps))
    }

    /// The names of the members that it goes through, if it is nothing but those.
    pub fn names(&self) -> Option<Vec<&str>> {
        let mut names = Vec::new();
        for step in &self.0 {
            match step {
                Step::Key(name) => names.push(name.as_str()),
                Step::AnyKey | Step::Element => return None,
            }
        }
        Some(names)
    }

    /// Whether it ends there, where an array stands or something else.
    pub fn ends(&self, at: Along, is_array: bool) -> bool {
        match self.0.get(at.0..) {
            Some([]) => true,
            Some(rest) => !is_array && rest.iter().all(|step| *step == Step::Element),
            None => false,
        }
    }

    /// Where it goes on in the member of an object with that name.
    pub fn member(&self, at: Along, name: &str) -> Option<Along> {
        let rest = self.0.get(at.0..)?;
        // What stands there is no array.
        let skipped = rest.iter().take_while(|step| **step == Step::Element).count();
        let fits = match rest.get(skipped)? {
            Step::Key(key) => key == name,
            Step::AnyKey => true,
            Step::Element => false,
        };
        fits.then_some(Along(at.0 + skipped + 1))
    }

    /// Where it goes on in the elements of an array.
    pub fn element(&self, at: Along) -> Option<Along> {
        match self.0.get(at.0)? {
            Step::Element => Some(Along(at.0 + 1)),
            Step::Key(_) | Step::AnyKey => Some(at),
        }
    }
}

/// The name at the front, and what stands behind it.
fn key(text: &str) -> Option<(Step, &str)> {
    if let Some(rest) = text.strip_prefix('*') {
        return Some((Step::AnyKey, rest));
    }
    if text.starts_with('"') {
        let mut read = serde_json::Deserializer::from_str(text).into_iter::<String>();
        let name = read.next()?.ok()?;
        return Some((Step::Key(name), text.get(read.byte_offset()..)?));
    }
    let end =
        text.find(|letter: char| !letter.is_alphanumeric() && !"_-".contains(letter)).unwrap_or(text.len());
    let (name, rest) = text.split_at_checked(end)?;
    (!name.is_empty()).then(|| (Step::Key(name.to_owned()), rest))
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("$")?;
        for step in &self.0 {
            match step {
                Step::AnyKey => f.write_str(".*")?,
                Step::Element => f.write_str("[*]")?,
                Step::Key(name) => match key(name) {
                    Some((Step::Key(plain), "")) if plain == *name => write!(f, ".{name}")?,
                    _ => write!(f, ".{}", serde_json::Value::from(name.as_str()))?,
                },
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_and_written_as_they_are() {
        for text in ["$.ssn", "$.person.ssn", "$.a[*].b", "$[*]", "$.*.ssn", r#"$."a b"."\"".ü"#, "$.a-b._1"]
        {
            assert_eq!(Path::parse(text).map(|path| path.to_string()).as_deref(), Some(text));
        }
        assert_eq!(Path::parse("$.a.\"b c\"").expect("a path").names(), Some(vec!["a", "b c"]));
        for several in ["$.a[*]", "$.*", "$[*].a"] {
            assert_eq!(Path::parse(several).expect("a path").names(), None);
        }
        assert_eq!(Path::parse(r#"$."s\u0073n""#).map(|path| path.to_string()).as_deref(), Some("$.ssn"));
        for wrong in
            ["", "$", "ssn", "$.", "$ssn", "$.a..b", "$.a[0]", "$.a[", "$.a b", "$.\"a", "$.a ", "$.**"]
        {
            assert_eq!(Path::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn arrays_stand_where_objects_could_and_the_other_way_round() {
        let path = Path::parse("$.a[*].b").expect("a path");
        let a = path.member(Along::ROOT, "a").expect("a member");
        assert_eq!((path.member(Along::ROOT, "b"), path.ends(a, false)), (None, false));
        // An object instead of the array.
        assert!(path.ends(path.member(a, "b").expect("a member"), true));
        let element = path.element(a).expect("an element");
        assert!(path.ends(path.member(element, "b").expect("a member"), false));
        // An array in the array, and one around all of it.
        assert_eq!((path.element(element), path.element(Along::ROOT)), (Some(element), Some(Along::ROOT)));
        let last = Path::parse("$.a[*]").expect("a path");
        let a = last.member(Along::ROOT, "a").expect("a member");
        assert!(last.ends(a, false) && !last.ends(a, true) && last.ends(last.element(a).expect("one"), true));
    }
}
