//! `resources.toml`: what there is to reach, and how.

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::{
    AddressPattern, DataIn, InRescue, Inventory, KnownProtocol, Reach, RecordLevel, Resource, Tls, Upstream,
    credential,
    load::{Item, Reader},
    place,
};
use crate::model::{GroupName, Mode, ResourceName};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawResource {
    protocol: Option<Spanned<String>>,
    env: Option<Spanned<String>>,
    #[serde(default)]
    hosts: Vec<Spanned<String>>,
    #[serde(default)]
    addresses: Vec<Spanned<String>>,
    #[serde(default)]
    sockets: Vec<Spanned<String>>,
    ports: Option<Spanned<Vec<u16>>>,
    upstream: Option<Spanned<String>>,
    dial: Option<Spanned<Dial>>,
    #[serde(default = "enforce")]
    mode: Mode,
    record: Option<Spanned<RawRecord>>,
    rescue: Option<RawRescue>,
    facts_max_age: Option<Spanned<String>>,
    hold_max: Option<Spanned<String>>,
    tls: Option<Spanned<RawTls>>,
    keeps: Option<Spanned<Vec<String>>>,
    #[serde(default)]
    credential: Vec<Spanned<credential::RawCredential>>,
}

fn enforce() -> Mode {
    Mode::Enforce
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Dial {
    Host,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum RawRecord {
    Metadata,
    Binds,
    Rows,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum RawRescue {
    Masked,
    Unmasked,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTls {
    roots: Option<std::path::PathBuf>,
    server_name: Option<String>,
    plaintext: Option<String>,
    unverified: Option<String>,
}

/// Reads the whole file into `inventory`, whose agents are read already.
pub(super) fn read(reader: &mut Reader<'_>, protocols: &[KnownProtocol], inventory: &mut Inventory) {
    for item in reader.top() {
        match item.key.as_str() {
            "approvers" => {
                let list = reader.value(item).unwrap_or_default();
                let names: Vec<GroupName> = reader.names("approver group", list);
                inventory.approvers = names.into_iter().map(String::from).collect();
            }
            "resource" => {
                for item in reader.table(item) {
                    if let Some(resource) = resource(reader, item, protocols, inventory) {
                        let named = |known: &&KnownProtocol| resource.protocol.as_deref() == Some(known.name);
                        if let Some(known) = protocols.iter().find(named) {
                            inventory.data.insert(resource.name.clone(), known.data);
                        }
                        inventory.resources.insert(resource.name.clone(), resource);
                    }
                }
            }
            other => {
                let message = format!("unknown key `{other}`; a resource is `[resource.NAME]`");
                reader.fault(item.at, message);
            }
        }
    }
}

fn resource(
    reader: &mut Reader<'_>,
    item: Item<'_>,
    protocols: &[KnownProtocol],
    inventory: &Inventory,
) -> Option<Resource> {
    let (at, key) = (item.at, item.key.clone());
    let raw: Option<RawResource> = reader.value(item);
    let name: ResourceName = key.parse().map_err(|error| reader.fault(at, format!("{error}"))).ok()?;
    let raw = raw?;

    let inspected = raw.protocol.is_some();
    passed_only(reader, &raw, inspected);
    let known = protocol(reader, raw.protocol.as_ref(), protocols);
    let hosts = place::hosts(reader, raw.hosts);
    let addresses = place::addresses(reader, raw.addresses);
    let sockets = place::sockets(reader, raw.sockets);
    let by_port = !hosts.is_empty() || !addresses.is_empty();
    if !by_port && sockets.is_empty() {
        reader.fault(
            at,
            format!(
                "resource `{name}` has neither `hosts` nor `addresses` nor `sockets`, so nothing reaches it"
            ),
        );
    }
    let is_said = raw.ports.is_some();
    let ports = ports(reader, raw.ports, known, &addresses);
    if ports.is_empty() && !is_said && (by_port || sockets.is_empty()) {
        reader.fault(
            at,
            "no `ports`, and no protocol that has a usual one; write `ports = [443]`, for instance",
        );
    }
    let reach = if raw.dial.is_some() { Reach::Host } else { Reach::Network };
    let own = place::Own { hosts: &hosts, addresses: &addresses, sockets: &sockets, ports: &ports, reach };
    let upstream = place::upstream(reader, at, raw.upstream, &own);
    place::check_loopback(reader, at, &addresses, reach);
    let tls = match &upstream {
        Upstream::Network { host, .. } => tls(reader, raw.tls, host),
        Upstream::Socket(_) => tls_of_socket(reader, at, raw.tls, inspected),
    };
    let credentials = credential::read(reader, raw.credential, (&tls, &upstream), inventory);
    Some(Resource {
        env: raw.env.and_then(|env| group(reader, env, "env")),
        protocol: raw.protocol.map(Spanned::into_inner),
        dialect: known.and_then(|known| known.dialect),
        keeps: keeps(reader, raw.keeps, inspected),
        record: record(reader, raw.record, known),
        facts_max_age: facts_max_age(reader, raw.facts_max_age, inspected),
        hold_max: hold_max(reader, raw.hold_max, inspected),
        mode: raw.mode,
        rescue: rescue(raw.rescue),
        at: reader.place(at),
        name,
        hosts,
        addresses,
        sockets,
        ports,
        upstream,
        tls,
        credentials,
    })
}

fn record(
    reader: &mut Reader<'_>,
    raw: Option<Spanned<RawRecord>>,
    known: Option<KnownProtocol>,
) -> RecordLevel {
    let Some(raw) = raw else { return RecordLevel::Binds };
    match raw.get_ref() {
        RawRecord::Metadata => RecordLevel::Metadata,
        RawRecord::Binds => RecordLevel::Binds,
        RawRecord::Rows => {
            let at = raw.span().start;
            match known.map(|known| known.data) {
                Some(DataIn::Tables) => {}
                Some(DataIn::Keys) => reader.fault(
                    at,
                    "`record = \"rows\"` is for protocols with tables, and this one has keys; write \"binds\" or \"metadata\"",
                ),
                Some(DataIn::Unread) => reader.fault(
                    at,
                    "`record = \"rows\"` is for protocols whose answers are read, and this one's are not; write \"binds\" or \"metadata\"",
                ),
                None => reader.fault(
                    at,
                    "`record = \"rows\"` needs `protocol`: rows of what is passed are not seen",
                ),
            }
            RecordLevel::Rows
        }
    }
}

/// What nothing was chosen for stays refused.
fn rescue(raw: Option<RawRescue>) -> InRescue {
    match raw {
        None => InRescue::Refused,
        Some(RawRescue::Masked) => InRescue::Masked,
        Some(RawRescue::Unmasked) => InRescue::Unmasked,
    }
}

/// What is taken for true for longer is too old to judge by.
const LONGEST_FACTS: Duration = Duration::from_secs(60);
/// What is usual: short enough that a change made around us is seen before anybody waits for it.
const USUAL_FACTS: Duration = Duration::from_secs(1);

fn facts_max_age(reader: &mut Reader<'_>, raw: Option<Spanned<String>>, inspected: bool) -> Duration {
    let Some(raw) = raw else { return USUAL_FACTS };
    let at = raw.span().start;
    if !inspected {
        reader.fault(at, "`facts_max_age` has no effect on a resource without `protocol`: it is not read");
    }
    let age = raw.get_ref().parse::<jiff::SignedDuration>().ok().and_then(|age| age.try_into().ok());
    age.filter(|age| *age <= LONGEST_FACTS).unwrap_or_else(|| {
        reader.fault(at, "`facts_max_age` must be from `0s`, for which nothing is kept, to `1m`");
        USUAL_FACTS
    })
}

/// No driver and no agent's tool waits for longer.
const LONGEST_HOLD: Duration = Duration::from_secs(3600);
/// What is usual: less than what most tools of agents wait.
const USUAL_HOLD: Duration = Duration::from_secs(90);

fn hold_max(reader: &mut Reader<'_>, raw: Option<Spanned<String>>, inspected: bool) -> Duration {
    let Some(raw) = raw else { return USUAL_HOLD };
    let at = raw.span().start;
    if !inspected {
        reader.fault(at, "`hold_max` has no effect on a resource without `protocol`: nothing in it is held");
    }
    let longest = raw.get_ref().parse::<jiff::SignedDuration>().ok().and_then(|time| time.try_into().ok());
    longest.filter(|longest| *longest <= LONGEST_HOLD).unwrap_or_else(|| {
        reader.fault(at, "`hold_max` must be from `0s`, where nothing waits on the wire, to `1h`");
        USUAL_HOLD
    })
}

fn group(reader: &mut Reader<'_>, text: Spanned<String>, what: &str) -> Option<String> {
    let at = text.span().start;
    match GroupName::try_from(text.into_inner()) {
        Ok(name) if name.as_str() == super::NO_ENV => {
            reader
                .fault(at, format!("`{what}`: `none` is what a resource without one is in; choose another"));
            None
        }
        Ok(name) => Some(name.into()),
        Err(error) => {
            reader.fault(at, format!("`{what}`: {error}"));
            None
        }
    }
}

fn protocol(
    reader: &mut Reader<'_>,
    name: Option<&Spanned<String>>,
    protocols: &[KnownProtocol],
) -> Option<KnownProtocol> {
    let name = name?;
    let known = protocols.iter().find(|known| known.name == name.get_ref());
    if known.is_none() {
        let names: Vec<_> = protocols.iter().map(|known| known.name).collect();
        reader.fault(
            name.span().start,
            format!(
                "unknown protocol `{}`; this build knows {}; leave it out for a resource that is only passed",
                name.get_ref(),
                names.join(", ")
            ),
        );
    }
    known.copied()
}

fn ports(
    reader: &mut Reader<'_>,
    raw: Option<Spanned<Vec<u16>>>,
    known: Option<KnownProtocol>,
    addresses: &[AddressPattern],
) -> Vec<u16> {
    let Some(raw) = raw else {
        let mut ports: Vec<u16> = known.map(|known| known.port).into_iter().collect();
        if ports.is_empty() {
            ports.extend(addresses.iter().filter_map(|pattern| match pattern {
                AddressPattern::Exact(address) => Some(address.port()),
                AddressPattern::Network(..) => None,
            }));
            ports.sort_unstable();
            ports.dedup();
        }
        return ports;
    };
    let at = raw.span().start;
    let ports = raw.into_inner();
    if ports.is_empty() || ports.contains(&0) {
        reader.fault(at, "`ports` must list at least one port from 1 to 65535, or be left out");
    }
    ports
}

/// What makes no sense for a resource that is relayed opaquely, and the one thing that makes sense only there.
fn passed_only(reader: &mut Reader<'_>, raw: &RawResource, inspected: bool) {
    if inspected {
        return;
    }
    if let Some(tls) = &raw.tls {
        reader.fault(
            tls.span().start,
            "`tls` has no effect on a resource without `protocol`: it is passed as it is",
        );
    }
    if let Some(credential) = raw.credential.first() {
        reader.fault(
            credential.span().start,
            "nothing can log in to a resource without `protocol`: name one, or use `keeps`",
        );
    }
}

fn keeps(reader: &mut Reader<'_>, raw: Option<Spanned<Vec<String>>>, inspected: bool) -> Vec<String> {
    let Some(raw) = raw else { return Vec::new() };
    let at = raw.span().start;
    let keeps = raw.into_inner();
    if inspected {
        reader.fault(
            at,
            "`keeps` is for resources without `protocol`; here use `[[resource.NAME.credential]]`",
        );
    }
    for name in &keeps {
        let fits = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
        if !fits {
            reader.fault(at, format!("`keeps`: {name:?} is not the name of an environment variable"));
        }
    }
    keeps
}

/// No server speaks TLS on its Unix socket, and a path alone says nothing of who listens: the operator has to.
fn tls_of_socket(reader: &mut Reader<'_>, at: usize, raw: Option<Spanned<RawTls>>, inspected: bool) -> Tls {
    let at = raw.as_ref().map_or(at, |raw| raw.span().start);
    let reason = match raw.map(Spanned::into_inner) {
        Some(RawTls { roots: None, server_name: None, plaintext: Some(reason), unverified: None }) => reason,
        // What is passed is not looked at, and has no `tls`.
        None if !inspected => return Tls::Plaintext { reason: String::new() },
        _ => String::new(),
    };
    if reason.trim().is_empty() {
        reader.fault(
            at,
            "there is no TLS over a Unix socket: say why the upstream is who it should be, such as \
             `tls = { plaintext = \"only root can make files there\" }`",
        );
    }
    Tls::Plaintext { reason }
}

fn tls(reader: &mut Reader<'_>, raw: Option<Spanned<RawTls>>, host: &str) -> Tls {
    let verified = |roots, name: Option<String>| Tls::Verified {
        roots,
        server_name: name.unwrap_or_else(|| host.to_owned()),
    };
    let Some(raw) = raw else { return verified(None, None) };
    let at = raw.span().start;
    let raw = raw.into_inner();
    let verifies = raw.roots.is_some() || raw.server_name.is_some();
    let tls = match (verifies, raw.plaintext, raw.unverified) {
        (_, None, None) => verified(raw.roots, raw.server_name),
        (false, Some(reason), None) => Tls::Plaintext { reason },
        (false, None, Some(reason)) => Tls::Unverified { reason },
        _ => {
            reader.fault(at, "`tls` takes either `roots` and `server_name`, or `plaintext`, or `unverified`");
            return verified(None, None);
        }
    };
    match &tls {
        Tls::Plaintext { reason } | Tls::Unverified { reason } if reason.trim().is_empty() => {
            reader.fault(at, "an exception from verified TLS must say why: `plaintext = \"the reason\"`");
        }
        Tls::Verified { roots: Some(roots), .. } if !roots.is_absolute() => {
            reader.fault(at, "`roots` must be an absolute path");
        }
        Tls::Verified { server_name, .. } if server_name.is_empty() => {
            reader.fault(at, "`server_name` is empty; leave it out for the upstream's host");
        }
        _ => {}
    }
    tls
}
