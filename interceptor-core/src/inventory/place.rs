//! Names, addresses and upstreams of one resource.

use std::net::{IpAddr, SocketAddr};

use toml::Spanned;

use super::{AddressPattern, Reach, Upstream, load::Reader};
use crate::model::{SocketPath, SyntheticAddress, UNIX};

const DIAL_HOST: &str = "is this host's loopback; if that is meant, add `dial = \"host\"`";

/// What a resource says of itself, from which its upstream follows.
pub(super) struct Own<'a> {
    pub(super) hosts: &'a [String],
    pub(super) addresses: &'a [AddressPattern],
    pub(super) sockets: &'a [SocketPath],
    pub(super) ports: &'a [u16],
    pub(super) reach: Reach,
}

/// The names of a resource, folded.
pub(super) fn hosts(reader: &mut Reader<'_>, raw: Vec<Spanned<String>>) -> Vec<String> {
    let mut hosts = Vec::new();
    for host in raw {
        let at = host.span().start;
        let name = fold(host.get_ref());
        if name.parse::<IpAddr>().is_ok() {
            reader.fault(at, format!("`{name}` is an address; list it under `addresses`"));
        } else if name.contains('*') {
            reader.fault(
                at,
                format!("`{name}`: a resource has exact names; list each, or a network under `addresses`"),
            );
        } else if is_localhost(&name) {
            reader.fault(
                at,
                format!("`{name}` never reaches a resolver; list `127.0.0.1:PORT` under `addresses`"),
            );
        } else if !is_dns_name(&name) {
            reader.fault(at, format!("`{}` is not a DNS name", name.escape_debug()));
        } else if hosts.contains(&name) {
            reader.fault(at, format!("`{name}` is listed twice"));
        } else {
            hosts.push(name);
        }
    }
    hosts
}

/// A name as it is compared: lower case, without the final dot.
pub(super) fn fold(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    (1..=253).contains(&name.len()) && name.split('.').all(label)
}

fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

/// The addresses that an agent may dial.
pub(super) fn addresses(reader: &mut Reader<'_>, raw: Vec<Spanned<String>>) -> Vec<AddressPattern> {
    let mut patterns = Vec::new();
    for text in raw {
        match pattern(text.get_ref()) {
            Ok(pattern) => patterns.push(pattern),
            Err(wrong) => reader.fault(text.span().start, format!("address `{}` {wrong}", text.get_ref())),
        }
    }
    patterns
}

/// The Unix sockets that an agent may connect to.
pub(super) fn sockets(reader: &mut Reader<'_>, raw: Vec<Spanned<String>>) -> Vec<SocketPath> {
    let mut sockets = Vec::new();
    for text in raw {
        let at = text.span().start;
        match text.get_ref().parse::<SocketPath>() {
            Ok(path) if sockets.contains(&path) => {
                reader.fault(at, format!("socket `{path}` is listed twice"))
            }
            Ok(path) => sockets.push(path),
            Err(wrong) => {
                reader.fault(at, format!("socket `{}` {wrong}", text.get_ref().escape_debug()));
            }
        }
    }
    sockets
}

/// The usable part of the synthetic ranges lies within these.
const SYNTHETIC: [AddressPattern; 2] = [
    AddressPattern::Network(IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 0, 0)), 15),
    AddressPattern::Network(IpAddr::V6(std::net::Ipv6Addr::new(0xfd69, 0x6e74, 0x6572, 0, 0, 0, 0, 0)), 48),
];

fn pattern(text: &str) -> Result<AddressPattern, &'static str> {
    let pattern = parse_pattern(text)
        .ok_or("is neither `IP:PORT`, `[IPv6]:PORT`, an IP nor `NETWORK/LENGTH`; names go under `hosts`")?;
    let ip = pattern.ip();
    if matches!(pattern, AddressPattern::Exact(address) if address.port() == 0) {
        Err("has port 0")
    } else if matches!(pattern, AddressPattern::Network(ip, length) if masked(ip, length) != ip) {
        Err("has bits set beyond its length; write the network's first address")
    } else if ip.is_multicast() || ip.is_unspecified() {
        Err("is no address that one can connect to")
    } else if SYNTHETIC.iter().any(|synthetic| synthetic.overlaps(&pattern, &[], &[]))
        || SyntheticAddress::from_ip(ip).is_some()
    {
        Err("meets 198.18.0.0/15 or fd69:6e74:6572::/48, which stand for names")
    } else {
        Ok(pattern)
    }
}

fn parse_pattern(text: &str) -> Option<AddressPattern> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(AddressPattern::Exact(SocketAddr::new(address.ip().to_canonical(), address.port())));
    }
    let (ip, length) = match text.split_once('/') {
        Some((ip, length)) => (ip.parse::<IpAddr>().ok()?, Some(length.parse::<u8>().ok()?)),
        None => (text.parse::<IpAddr>().ok()?, None),
    };
    // A v4-mapped network would never match: destinations are held as IPv4.
    if length.is_some() && ip.to_canonical() != ip {
        return None;
    }
    let ip = ip.to_canonical();
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let length = length.unwrap_or(most);
    (length <= most).then_some(AddressPattern::Network(ip, length))
}

fn bits(ip: IpAddr) -> (u128, u32) {
    match ip {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    }
}

fn prefix(ip: IpAddr, length: u8) -> u128 {
    let (bits, width) = bits(ip);
    match u32::from(length).min(width) {
        0 => 0,
        length => bits & (u128::MAX << (128 - length)),
    }
}

fn masked(ip: IpAddr, length: u8) -> IpAddr {
    let bits = prefix(ip, length);
    match ip {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::from_bits(u32::try_from(bits >> 96).unwrap_or(0))),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::from_bits(bits)),
    }
}

impl AddressPattern {
    fn ip(&self) -> IpAddr {
        match self {
            Self::Exact(address) => address.ip(),
            Self::Network(ip, _) => *ip,
        }
    }

    fn length(&self) -> u8 {
        match self {
            Self::Exact(address) if address.is_ipv4() => 32,
            Self::Exact(_) => 128,
            Self::Network(_, length) => *length,
        }
    }

    /// Whether an agent that dials `address` means a resource with this pattern and these ports.
    pub fn matches(&self, address: SocketAddr, ports: &[u16]) -> bool {
        match self {
            Self::Exact(exact) => exact.ip() == address.ip() && exact.port() == address.port(),
            Self::Network(ip, length) => {
                ip.is_ipv4() == address.is_ipv4()
                    && prefix(*ip, *length) == prefix(address.ip(), *length)
                    && ports.contains(&address.port())
            }
        }
    }

    /// Whether some destination matches both, each with the ports of its resource; no ports means all.
    pub(super) fn overlaps(&self, other: &Self, ports: &[u16], other_ports: &[u16]) -> bool {
        let shared = self.length().min(other.length());
        if self.ip().is_ipv4() != other.ip().is_ipv4()
            || prefix(self.ip(), shared) != prefix(other.ip(), shared)
        {
            return false;
        }
        let among = |port: u16, ports: &[u16]| ports.is_empty() || ports.contains(&port);
        match (self, other) {
            (Self::Exact(one), Self::Exact(two)) => one.port() == two.port(),
            (Self::Exact(one), Self::Network(..)) => among(one.port(), other_ports),
            (Self::Network(..), Self::Exact(two)) => among(two.port(), ports),
            (Self::Network(..), Self::Network(..)) => {
                ports.is_empty() || ports.iter().any(|port| among(*port, other_ports))
            }
        }
    }
}

/// Where the proxy dials: as written, or the resource's first host or exact address.
pub(super) fn upstream(
    reader: &mut Reader<'_>,
    at: usize,
    raw: Option<Spanned<String>>,
    own: &Own<'_>,
) -> Upstream {
    if let Some(text) = &raw
        && let Some(path) = text.get_ref().strip_prefix(UNIX)
    {
        return match path.parse() {
            Ok(path) => Upstream::Socket(path),
            Err(wrong) => {
                reader.fault(text.span().start, format!("upstream `{}` {wrong}", path.escape_debug()));
                nowhere(own.reach)
            }
        };
    }
    let first_port = own.ports.first().copied();
    let (at, found) = match &raw {
        Some(text) => (text.span().start, parse_upstream(text.get_ref(), first_port)),
        None => (at, own.hosts.first().cloned().zip(first_port).or_else(|| first_exact(own.addresses))),
    };
    let Some((host, port)) = found else {
        let wrong = if raw.is_some() {
            "`upstream` must be `HOST:PORT`, `IP:PORT`, `[IPv6]:PORT` or `unix:/PATH`"
        } else {
            "no `upstream`, and neither a host nor an `IP:PORT` to take it from; write `upstream = \"HOST:PORT\"`, or \
             `\"unix:/PATH\"` for a Unix socket of this host"
        };
        // A port-less resource has been told so already.
        if raw.is_some() || first_port.is_some() || !own.sockets.is_empty() {
            reader.fault(at, wrong);
        }
        return nowhere(own.reach);
    };
    let literal = host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
    if literal
        .is_some_and(|ip| ip.is_unspecified() || ip.is_multicast() || SyntheticAddress::from_ip(ip).is_some())
    {
        reader.fault(at, format!("upstream `{host}` is no address that one can connect to"));
    }
    if own.reach == Reach::Network && (literal.is_some_and(|ip| ip.is_loopback()) || is_localhost(&host)) {
        reader.fault(at, format!("upstream `{host}` {DIAL_HOST}"));
    }
    Upstream::Network { host, port, reach: own.reach }
}

/// In the place of one that is a fault.
fn nowhere(reach: Reach) -> Upstream {
    Upstream::Network { host: String::new(), port: 0, reach }
}

fn first_exact(addresses: &[AddressPattern]) -> Option<(String, u16)> {
    addresses.iter().find_map(|pattern| match pattern {
        AddressPattern::Exact(address) => Some((address.ip().to_string(), address.port())),
        AddressPattern::Network(..) => None,
    })
}

fn parse_upstream(text: &str, first_port: Option<u16>) -> Option<(String, u16)> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return (address.port() != 0).then(|| (address.ip().to_canonical().to_string(), address.port()));
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some((ip.to_canonical().to_string(), first_port?));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
        None => (text, first_port?),
    };
    let host = fold(host);
    // A name of digits and dots that is no address is a mistyped address.
    let numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    (is_dns_name(&host) && !numeric).then_some((host, port))
}

/// Addresses on loopback mean the host's, which must be said.
pub(super) fn check_loopback(reader: &mut Reader<'_>, at: usize, addresses: &[AddressPattern], reach: Reach) {
    let loopback = [
        AddressPattern::Network(IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 0)), 8),
        AddressPattern::Network(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST), 128),
    ];
    for pattern in addresses {
        if reach == Reach::Network && loopback.iter().any(|range| range.overlaps(pattern, &[], &[])) {
            reader.fault(at, format!("address `{pattern}` {DIAL_HOST}"));
        }
    }
}

impl std::fmt::Display for AddressPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(address) => address.fmt(f),
            Self::Network(ip, length) => write!(f, "{ip}/{length}"),
        }
    }
}
