//! From where the agent was going to what that means: a resource, a name server, or nothing we know.

use interceptor_core::{
    inventory::{Inventory, Match, Resource},
    model::OriginalDestination,
};

/// What a connection's original destination means.
#[derive(Debug)]
pub enum Destination<'a> {
    /// A resource of the inventory.
    Resource(&'a Resource),
    /// Any name server: ours answers in its place.
    NameServer,
    /// Nothing that the inventory names.
    Unknown(String),
}

/// The port of name servers.
pub const DNS_PORT: u16 = 53;

/// What `destination` means in `inventory`.
pub fn find<'a>(inventory: &'a Inventory, destination: &OriginalDestination) -> Destination<'a> {
    let address = match destination {
        OriginalDestination::Address(address) => *address,
        OriginalDestination::Socket(path) => {
            return match inventory.by_socket(path) {
                Some(resource) => Destination::Resource(resource),
                None => Destination::Unknown(format!("{destination} is no resource's; {}", sockets_hint())),
            };
        }
    };
    match inventory.by_destination(address) {
        Match::Resource { resource, .. } => Destination::Resource(resource),
        Match::Nothing if address.port() == DNS_PORT => Destination::NameServer,
        Match::Nothing => Destination::Unknown(format!(
            "{destination} is no resource; to permit it, name it in resources.toml by host name or address"
        )),
        Match::Loopback => Destination::Unknown(format!(
            "nothing listens at {destination} inside the run; a service of this host is reached by a resource with \
             that address and `dial = \"host\"`"
        )),
        Match::WrongPort { host } => Destination::Unknown(format!(
            "{host} is the name of a resource that is not reached at port {}; to permit it, add the port to its \
             `ports` in resources.toml",
            address.port()
        )),
    }
}

/// What the operator does about a Unix socket that is out of reach.
pub fn sockets_hint() -> &'static str {
    "to serve it as a resource, list it under that one's `sockets` in resources.toml"
}
