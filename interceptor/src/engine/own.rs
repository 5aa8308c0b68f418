//! The containers that a run has made, and the names of the images that it has built, as its broker knows them. Nothing else is
//! the run's.

use std::collections::{BTreeMap, BTreeSet};

use super::{images, refusal::Refusal};

/// How many containers a run may have at a time.
const MOST: usize = 256;
/// How many commands in containers are remembered; the oldest are forgotten.
const MOST_COMMANDS: usize = 4096;
/// How many names of images a run may have; others are not kept.
const MOST_NAMES: usize = 1024;
/// The length of an engine's ids.
const WHOLE: usize = 64;

/// One container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Container {
    /// The name that the run gave it.
    pub(super) name: Option<String>,
    /// Whether anything of the run's working folder is in it.
    pub(super) shows: Shows,
    /// Ports that the run asked to have published, such as `5432/tcp`.
    pub(super) published: BTreeSet<String>,
}

/// What a container shows of the host's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shows {
    /// Something of the run's working folder.
    Folder,
    /// Nothing.
    Nothing,
}

/// What a run has made.
#[derive(Debug, Default)]
pub(super) struct Own {
    containers: BTreeMap<String, Container>,
    commands: Vec<String>,
    /// Ids, all digits, by whole names.
    images: BTreeMap<String, String>,
}

impl Own {
    /// Fails where the run has as many as it may.
    pub(super) fn make_room(&self) -> Result<(), Refusal> {
        if self.containers.len() < MOST {
            return Ok(());
        }
        Err(Refusal::forbidden(format!("a run has at most {MOST} containers: remove some (`docker rm`)")))
    }

    pub(super) fn add(&mut self, id: String, container: Container) {
        self.containers.insert(id, container);
    }

    pub(super) fn remove(&mut self, id: &str) {
        self.containers.remove(id);
    }

    /// The container that the run means by `name`: its id, the beginning of it, or its name.
    pub(super) fn find(&self, name: &str) -> Result<(String, Container), Refusal> {
        let exact = self.containers.iter().find(|(id, one)| *id == name || one.name.as_deref() == Some(name));
        let mut begins = self.containers.iter().filter(|(id, _)| !name.is_empty() && id.starts_with(name));
        let found = exact.or_else(|| match (begins.next(), begins.next()) {
            (Some(one), None) => Some(one),
            _ => None,
        });
        let found = found.map(|(id, container)| (id.clone(), container.clone()));
        found.ok_or_else(|| Refusal::missing("container", name))
    }

    /// Keeps the whole name of an image that the run has built.
    pub(super) fn name_image(&mut self, name: String, id: String) {
        if self.images.len() < MOST_NAMES || self.images.contains_key(&name) {
            self.images.insert(name, id);
        }
    }

    /// The id of an image that the run has built and named so.
    pub(super) fn image(&self, name: &str) -> Option<String> {
        self.images.get(&images::whole(name)?).cloned()
    }

    /// Forgets a name; the id that it was of, if it was one.
    pub(super) fn unname_image(&mut self, name: &str) -> Option<String> {
        self.images.remove(&images::whole(name)?)
    }

    /// Forgets an image under every name.
    pub(super) fn forget_image(&mut self, id: &str) {
        self.images.retain(|_, of| of != id);
    }

    /// The names that the run has given to images.
    pub(super) fn image_names(&self) -> &BTreeMap<String, String> {
        &self.images
    }

    /// Remembers a command that was prepared in a container of the run's.
    pub(super) fn add_command(&mut self, id: String) {
        if self.commands.len() >= MOST_COMMANDS {
            self.commands.remove(0);
        }
        self.commands.push(id);
    }

    /// Fails unless the command was prepared by this run.
    pub(super) fn has_command(&self, id: &str) -> Result<(), Refusal> {
        if self.commands.iter().any(|known| known == id) {
            return Ok(());
        }
        Err(Refusal::missing("exec instance", id))
    }
}

/// An id, as the engine makes them.
pub(super) fn id(text: &str) -> Option<String> {
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    (text.len() == WHOLE && text.chars().all(is_hex)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ones_own_are_found() {
        let mut own = Own::default();
        let one = Container { name: Some("db".into()), shows: Shows::Nothing, published: BTreeSet::new() };
        let ids = ["a".repeat(WHOLE), format!("ab{}", "c".repeat(62))];
        own.add(ids[0].clone(), one.clone());
        own.add(ids[1].clone(), Container { name: None, ..one });
        assert_eq!(own.find("db").map(|(id, _)| id), Ok(ids[0].clone()));
        assert_eq!(own.find(&ids[1]).map(|(id, _)| id), Ok(ids[1].clone()));
        assert_eq!(own.find("ab").map(|(id, _)| id), Ok(ids[1].clone()));
        for name in ["", "a", "b", "../db", "dbx"] {
            assert!(own.find(name).is_err(), "{name:?}");
        }
        own.remove(&ids[0]);
        assert!(own.find("db").is_err());
        assert!(own.has_command("x").is_err());
        own.add_command("x".into());
        assert!(own.has_command("x").is_ok());
        assert_eq!(own.image("app"), None);
        own.name_image("docker.io/library/app:latest".into(), "0a".into());
        assert_eq!(own.image("app").as_deref(), Some("0a"));
        assert_eq!(own.image("docker.io/library/app:latest").as_deref(), Some("0a"));
        assert_eq!(own.image("app:1"), None);
        own.name_image("docker.io/library/app:1".into(), "0a".into());
        assert_eq!(own.unname_image("app:1").as_deref(), Some("0a"));
        assert_eq!((own.unname_image("app:1"), own.image_names().len()), (None, 1));
        own.forget_image("0a");
        assert_eq!(own.image("app"), None);
        assert!(id("short").is_none() && id(&ids[0]).is_some());
    }
}
