//! `people.toml`: who may approve, and by which user of this host they are known.

use serde::Deserialize;
use sha2::{Digest, Sha256};
use toml::Spanned;

use super::{
    Fault, Inventory, Person, Source,
    load::{Item, Reader},
};
use crate::model::{GroupName, PersonName};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPerson {
    uid: Spanned<u32>,
    #[serde(default)]
    groups: Vec<Spanned<String>>,
}

impl Inventory {
    /// The same inventory with the people of this file. Their groups are checked against its approvers.
    pub fn with_people(mut self, source: &Source) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut reader = Reader::new(source, &mut faults);
        for item in reader.top() {
            if item.key != "person" {
                reader.fault(item.at, format!("unknown key `{}`; a person is `[person.NAME]`", item.key));
                continue;
            }
            for item in reader.table(item) {
                if let Some(person) = person(&mut reader, item, &self) {
                    self.people.insert(person.name.clone(), person);
                }
            }
        }
        if !faults.is_empty() {
            faults.sort();
            return Err(faults);
        }
        let mut hash = Sha256::new();
        hash.update(self.digest);
        hash.update(source.text.as_bytes());
        self.digest = hash.finalize().into();
        Ok(self)
    }

    /// The person whom a user of this host is.
    pub fn by_uid(&self, uid: u32) -> Option<&Person> {
        self.people.values().find(|person| person.uid == uid)
    }
}

fn person(reader: &mut Reader<'_>, item: Item<'_>, inventory: &Inventory) -> Option<Person> {
    let (at, key) = (item.at, item.key.clone());
    let raw: Option<RawPerson> = reader.value(item);
    let name: PersonName = key.parse().map_err(|error| reader.fault(at, format!("{error}"))).ok()?;
    let raw = raw?;
    let uid = *raw.uid.get_ref();
    if uid == 0 || uid == u32::MAX {
        reader.fault(raw.uid.span().start, "`uid` must be a person's own user, never root: sudo keeps it");
    }
    if let Some(other) = inventory.by_uid(uid) {
        reader.fault(
            raw.uid.span().start,
            format!("uid {uid} is `{}` already: one user, one person", other.name),
        );
    }
    for group in &raw.groups {
        if !inventory.approvers.contains(group.get_ref()) {
            let message = format!("`{}` is not among `approvers` in resources.toml", group.get_ref());
            reader.fault(group.span().start, message);
        }
    }
    let groups: Vec<GroupName> = reader.names("group", raw.groups);
    Some(Person { name, uid, groups: groups.into_iter().map(String::from).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::load;

    fn people(text: &str) -> Result<Inventory, Vec<Fault>> {
        let source = |file: &str, text: &str| Source { file: file.to_owned(), text: text.to_owned() };
        let resources = source("resources.toml", "approvers = [\"dba\", \"on-call\"]\n");
        let inventory = load(&resources, &source("agents.toml", ""), &[]).expect("an inventory");
        inventory.with_people(&source("people.toml", text))
    }

    #[test]
    fn people_are_known_by_one_user_and_change_the_digest() {
        let one = people("[person.bob]\nuid = 1002\ngroups = [\"dba\"]\n").expect("people");
        let bob = one.by_uid(1002).expect("bob");
        assert_eq!((bob.name.as_str(), bob.groups.as_slice()), ("bob", ["dba".to_owned()].as_slice()));
        assert!(one.by_uid(1003).is_none());
        let other = people("[person.bob]\nuid = 1002\n").expect("people");
        assert_ne!(one.digest, other.digest);
    }

    #[test]
    fn what_is_wrong_is_listed() {
        for (text, line, part) in [
            ("[people.bob]\nuid = 1\n", 1, "unknown key `people`"),
            ("[person.bob]\nuid = 0\n", 2, "never root"),
            ("[person.bob]\n", 1, "uid"),
            ("[person.bob]\nuid = 5\n[person.eve]\nuid = 5\n", 4, "is `bob` already"),
            ("[person.bob]\nuid = 5\ngroups = [\"boss\"]\n", 3, "`boss` is not among"),
            ("[person.bob]\nuid = 5\nadmin = true\n", 3, "admin"),
        ] {
            let faults = people(text).expect_err(text);
            assert!(faults.iter().any(|f| f.line == line && f.message.contains(part)), "{text}: {faults:?}");
        }
    }
}
