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
pub fn find(inventory: &Inventory, destination: OriginalDestination) -> Destination<'_> {
    match inventory.by_destination(destination.0) {
        Match::Resource { resource, .. } => Destination::Resource(resource),
        Match::Nothing if destination.0.port() == DNS_PORT => Destination::NameServer,
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
            destination.0.port()
        )),
    }
}
