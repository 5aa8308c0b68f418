//! Which resource a name or a destination means.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use sha2::{Digest, Sha256};

use super::{Inventory, Resource, place};
use crate::model::{ResourceName, SocketPath, SyntheticAddress};

/// What a destination means.
#[derive(Debug, Clone, Copy)]
pub enum Match<'a> {
    /// This resource. `host` is the name that the agent used, where it used one.
    Resource {
        /// The resource.
        resource: &'a Resource,
        /// The name whose synthetic address was dialled.
        host: Option<&'a str>,
    },
    /// A name of the inventory, at a port that no resource of that name has.
    WrongPort {
        /// The name.
        host: &'a str,
    },
    /// Loopback that no resource names: a listener of the run's own, or nothing.
    Loopback,
    /// No resource.
    Nothing,
}

/// Every name with its synthetic address, and who answers to it.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    names: BTreeMap<String, Named>,
    by_address: HashMap<usize, String>,
    exact: HashMap<SocketAddr, ResourceName>,
    sockets: HashMap<SocketPath, ResourceName>,
}

#[derive(Debug, Clone)]
struct Named {
    address: SyntheticAddress,
    resources: Vec<ResourceName>,
}

impl Index {
    /// None when there are more names than synthetic addresses.
    pub(super) fn build(resources: &BTreeMap<ResourceName, Resource>) -> Option<Self> {
        let mut index = Self::default();
        let mut names: BTreeMap<&str, Vec<ResourceName>> = BTreeMap::new();
        for resource in resources.values() {
            for host in &resource.hosts {
                names.entry(host).or_default().push(resource.name.clone());
            }
            for path in &resource.sockets {
                index.sockets.insert(path.clone(), resource.name.clone());
            }
            for pattern in &resource.addresses {
                if let super::AddressPattern::Exact(address) = pattern {
                    index.exact.insert(*address, resource.name.clone());
                }
            }
        }
        if names.len() > SyntheticAddress::CAPACITY {
            return None;
        }
        for (host, resources) in names {
            let address = index.free_address(host)?;
            index.by_address.insert(address.index(), host.to_owned());
            index.names.insert(host.to_owned(), Named { address, resources });
        }
        Some(index)
    }

    /// From the name's hash, so that a reload which adds a name does not move the others: an agent may still hold
    /// an answer that it was given before.
    fn free_address(&self, host: &str) -> Option<SyntheticAddress> {
        let digest = Sha256::digest(host.as_bytes());
        let start = digest.iter().take(4).fold(0, |sum: usize, byte| (sum << 8) | usize::from(*byte));
        (0..SyntheticAddress::CAPACITY)
            .map(|step| (start + step) % SyntheticAddress::CAPACITY)
            .find(|index| !self.by_address.contains_key(index))
            .and_then(SyntheticAddress::nth)
    }
}

impl Inventory {
    /// The first resource that answers to a name, at whatever port.
    pub fn by_host(&self, name: &str) -> Option<&Resource> {
        self.at_host(name).next()
    }

    /// All resources that answer to a name: more than one when they differ by port.
    pub fn at_host(&self, name: &str) -> impl Iterator<Item = &Resource> {
        let named = self.index.names.get(&place::fold(name));
        let names = named.map_or(&[][..], |named| named.resources.as_slice());
        names.iter().filter_map(|name| self.resources.get(name))
    }

    /// Every name and the address that the resolver answers for it, by name.
    pub fn hosts(&self) -> impl Iterator<Item = (&str, SyntheticAddress)> {
        self.index.names.iter().map(|(host, named)| (host.as_str(), named.address))
    }

    /// The address that the resolver answers for a name of the inventory.
    pub fn synthetic(&self, name: &str) -> Option<SyntheticAddress> {
        self.index.names.get(&place::fold(name)).map(|named| named.address)
    }

    /// What an agent means that dials `destination`: a synthetic address by its name, any other only by an entry
    /// under `addresses`.
    pub fn by_destination(&self, destination: SocketAddr) -> Match<'_> {
        let destination = SocketAddr::new(destination.ip().to_canonical(), destination.port());
        if let Some(address) = SyntheticAddress::from_ip(destination.ip()) {
            return self.by_synthetic(address, destination.port());
        }
        let resource = match self.index.exact.get(&destination) {
            Some(name) => self.resources.get(name),
            None => self.resources.values().find(|resource| {
                resource.addresses.iter().any(|pattern| pattern.matches(destination, &resource.ports))
            }),
        };
        match resource {
            Some(resource) => Match::Resource { resource, host: None },
            // Linux connects the unspecified address to loopback.
            None if destination.ip().is_loopback() || destination.ip().is_unspecified() => Match::Loopback,
            None => Match::Nothing,
        }
    }

    /// The resource that an agent means by the path of a Unix socket, however it is written; nothing for any other path.
    pub fn by_socket(&self, path: &str) -> Option<&Resource> {
        let path: SocketPath = path.parse().ok()?;
        self.resources.get(self.index.sockets.get(&path)?)
    }

    fn by_synthetic(&self, address: SyntheticAddress, port: u16) -> Match<'_> {
        let Some(host) = self.index.by_address.get(&address.index()) else { return Match::Nothing };
        match self.at_host(host).find(|resource| resource.ports.contains(&port)) {
            Some(resource) => Match::Resource { resource, host: Some(host) },
            None => Match::WrongPort { host },
        }
    }
}
