//! Reads `resources.toml` and `agents.toml` into an [`Inventory`], and lists everything that is wrong with them.

use std::fmt::Display;

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use toml::{
    Spanned,
    de::{DeTable, DeValue, ValueDeserializer},
};

use super::{Fault, Inventory, KnownProtocol, Source, agents, lookup, overlap, resource};

/// The longest file that is read, in bytes. A larger one is a mistake, and would make faults slow to find.
const LIMIT: usize = 8 * 1024 * 1024;

/// Reads both files. `protocols` are those that the registry knows.
///
/// Either everything is right, or all that is wrong is listed, in the order of files and lines.
pub fn load(
    resources: &Source,
    agents: &Source,
    protocols: &[KnownProtocol],
) -> Result<Inventory, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut inventory = Inventory { digest: digest(resources, agents), ..Inventory::default() };

    let mut reader = Reader::new(agents, &mut faults);
    inventory.agents = agents::read(&mut reader);
    let mut reader = Reader::new(resources, &mut faults);
    resource::read(&mut reader, protocols, &mut inventory);
    overlap::check(&mut reader, &inventory);
    match lookup::Index::build(&inventory.resources) {
        Some(index) => inventory.index = index,
        None => reader.whole(format!(
            "more than {} host names; remove some, or name networks by address",
            crate::model::SyntheticAddress::CAPACITY
        )),
    }

    if faults.is_empty() {
        return Ok(inventory);
    }
    faults.sort();
    faults.dedup();
    Err(faults)
}

fn digest(resources: &Source, agents: &Source) -> [u8; 32] {
    let mut hash = Sha256::new();
    for source in [resources, agents] {
        hash.update((source.text.len() as u64).to_be_bytes());
        hash.update(source.text.as_bytes());
    }
    hash.finalize().into()
}

/// One file while it is read: turns places in it into lines, and collects what is wrong.
pub(super) struct Reader<'a> {
    source: &'a Source,
    faults: &'a mut Vec<Fault>,
}

/// An entry of a table: its key, where that stands, and its value.
pub(super) struct Item<'a> {
    pub(super) key: String,
    pub(super) at: usize,
    value: Spanned<DeValue<'a>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a Source, faults: &'a mut Vec<Fault>) -> Self {
        Self { source, faults }
    }

    /// Something wrong at a byte of the file.
    pub(super) fn fault(&mut self, at: usize, message: impl Into<String>) {
        let fault = Fault { file: self.source.file.clone(), line: self.line(at), message: message.into() };
        self.faults.push(fault);
    }

    /// Something wrong with the file as a whole.
    pub(super) fn whole(&mut self, message: impl Into<String>) {
        self.faults.push(Fault { file: self.source.file.clone(), line: 0, message: message.into() });
    }

    /// Something wrong at a place that [`Reader::place`] gave.
    pub(super) fn fault_at(&mut self, (file, line): &(String, usize), message: impl Into<String>) {
        self.faults.push(Fault { file: file.clone(), line: *line, message: message.into() });
    }

    /// File and line of a byte.
    pub(super) fn place(&self, at: usize) -> (String, usize) {
        (self.source.file.clone(), self.line(at))
    }

    fn line(&self, at: usize) -> usize {
        let before = self.source.text.as_bytes().get(..at).unwrap_or(self.source.text.as_bytes());
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    /// The entries of the file's top level, in the order of the file.
    pub(super) fn top(&mut self) -> Vec<Item<'a>> {
        if self.source.text.len() > LIMIT {
            self.whole(format!("longer than {LIMIT} bytes; split the policy over several installations"));
            return Vec::new();
        }
        let (table, errors) = DeTable::parse_recoverable(&self.source.text);
        // What follows from half a table would only hide the cause.
        let broken = !errors.is_empty();
        for error in errors {
            self.fault(error.span().map_or(0, |span| span.start), first_line(error.message()));
        }
        if broken {
            return Vec::new();
        }
        items(table.into_inner())
    }

    /// The entries of a table's value.
    pub(super) fn table<'i>(&mut self, item: Item<'i>) -> Vec<Item<'i>> {
        match item.value.into_inner() {
            DeValue::Table(table) => items(table),
            _ => {
                self.fault(item.at, format!("`{}` must be a table: write `[{}.NAME]`", item.key, item.key));
                Vec::new()
            }
        }
    }

    /// The value of an entry, if it has the right shape.
    pub(super) fn value<T: DeserializeOwned>(&mut self, item: Item<'_>) -> Option<T> {
        match T::deserialize(ValueDeserializer::from(item.value)) {
            Ok(value) => Some(value),
            Err(error) => {
                let at = error.span().map_or(item.at, |span| span.start);
                self.fault(at, format!("`{}`: {}", item.key, first_line(error.message())));
                None
            }
        }
    }

    /// A list whose entries must be names; those that are not are faults and left out.
    pub(super) fn names<T>(&mut self, what: &str, list: Vec<Spanned<String>>) -> Vec<T>
    where
        T: TryFrom<String, Error: Display> + PartialEq,
    {
        let mut names = Vec::new();
        for entry in list {
            let at = entry.span().start;
            match T::try_from(entry.into_inner()) {
                Ok(name) if names.contains(&name) => self.fault(at, format!("{what} is listed twice")),
                Ok(name) => names.push(name),
                Err(error) => self.fault(at, format!("{what}: {error}")),
            }
        }
        names
    }
}

fn items(table: DeTable<'_>) -> Vec<Item<'_>> {
    let mut items: Vec<_> = table
        .into_iter()
        .map(|(key, value)| Item { at: key.span().start, key: key.into_inner().into_owned(), value })
        .collect();
    items.sort_by_key(|item| item.at);
    items
}

fn first_line(message: &str) -> &str {
    message.lines().next().unwrap_or("cannot be read")
}
