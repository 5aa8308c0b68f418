//! Two resources may not answer to one destination.

use std::collections::HashMap;

use super::{AddressPattern, Inventory, Resource, load::Reader};

/// The most networks in one inventory: they are compared pairwise.
const MOST_NETWORKS: usize = 2048;

/// Lists each pair of resources that share a name and port, an address and port, or a path.
pub(super) fn check(reader: &mut Reader<'_>, inventory: &Inventory) {
    let mut names: HashMap<(&str, u16), &Resource> = HashMap::new();
    let mut exact = HashMap::new();
    let mut sockets = HashMap::new();
    let mut networks: Vec<(&AddressPattern, &Resource)> = Vec::new();
    for resource in inventory.resources.values() {
        for host in &resource.hosts {
            for port in &resource.ports {
                if let Some(other) = names.insert((host, *port), resource) {
                    clash(reader, resource, other, &format!("{host}:{port}"));
                }
            }
        }
        for path in &resource.sockets {
            if let Some(other) = sockets.insert(path, resource) {
                clash(reader, resource, other, path.as_str());
            }
        }
        for pattern in &resource.addresses {
            match pattern {
                AddressPattern::Exact(address) => {
                    if let Some(other) = exact.insert(*address, resource) {
                        clash(reader, resource, other, &pattern.to_string());
                    }
                }
                AddressPattern::Network(..) => networks.push((pattern, resource)),
            }
        }
    }
    if networks.len() > MOST_NETWORKS {
        return reader.whole(format!("more than {MOST_NETWORKS} networks under `addresses`; join some"));
    }
    for (place, (network, resource)) in networks.iter().enumerate() {
        for (address, other) in &exact {
            if network.matches(*address, &resource.ports) {
                clash(reader, resource, other, &address.to_string());
            }
        }
        for (other_network, other) in networks.iter().take(place) {
            if network.overlaps(other_network, &resource.ports, &other.ports) {
                clash(reader, resource, other, &format!("{network} and {other_network}"));
            }
        }
    }
}

/// One resource may name a place twice; it is the same resource either way.
fn clash(reader: &mut Reader<'_>, resource: &Resource, other: &Resource, shared: &str) {
    if resource.name != other.name {
        let (later, earlier) = if resource.at.1 > other.at.1 { (resource, other) } else { (other, resource) };
        reader.fault_at(
            &later.at,
            format!(
                "`{}` and `{}` (line {}) both answer to {shared}; a destination has one resource: change one",
                later.name, earlier.name, earlier.at.1
            ),
        );
    }
}
