//! Addresses, one type per meaning.

use std::{
    fmt,
    net::{AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The captured socket's own address, in its network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientAddress(pub SocketAddr);

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What stands before a Unix socket's path where an address could stand as well.
pub const UNIX: &str = "unix:";

/// Where the agent asked to go. As text an address, or `unix:` and a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum OriginalDestination {
    /// An address, as the kernel saw it before the redirect. A v4-mapped one is held as IPv4.
    Address(SocketAddr),
    /// The path of a Unix socket, as it was asked for.
    Socket(Arc<str>),
}

impl OriginalDestination {
    /// The address, where it is one.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Socket(_) => None,
        }
    }

    /// The path, where it is one.
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Address(_) => None,
            Self::Socket(path) => Some(path),
        }
    }
}

impl fmt::Display for OriginalDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Socket(path) => write!(f, "{UNIX}{path}"),
        }
    }
}

impl FromStr for OriginalDestination {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Self, AddrParseError> {
        match text.strip_prefix(UNIX) {
            Some(path) => Ok(Self::Socket(path.into())),
            None => text.parse().map(Self::Address),
        }
    }
}

impl Serialize for OriginalDestination {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for OriginalDestination {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The path of a Unix socket in the one form that paths are compared in: absolute, without empty parts and `.`, and with
/// `/run` for `/var/run`. It is a name and nothing more: no file is looked at, and no link followed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketPath(String);

/// The longest path that the address of a Unix socket has room for, in bytes.
const LONGEST_PATH: usize = 107;

impl SocketPath {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SocketPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SocketPath {
    /// What is wrong with it.
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        if !text.starts_with('/') {
            return Err("is not an absolute path");
        }
        if text.len() > LONGEST_PATH {
            return Err("is longer than the 107 bytes that a Unix socket's path may have");
        }
        if text.contains(char::is_control) {
            return Err("has a control character in it");
        }
        if text.split('/').any(|part| part == "..") {
            return Err("has `..` in it, so that where it leads depends on links: write where it leads");
        }
        if text.ends_with('/') || text.ends_with("/.") {
            return Err("names a folder: write the path of the socket in it");
        }
        let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        let parts = match parts.as_slice() {
            ["var", "run", rest @ ..] => [&["run"], rest].concat(),
            _ => parts,
        };
        Ok(Self(format!("/{}", parts.join("/"))))
    }
}

/// An address that the resolver hands out for an inventory name: it names the resource and routes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SyntheticAddress(u16);

impl SyntheticAddress {
    /// How many names there can be: the host part of 198.18.0.0/15 less its first address, capped at 16 bits.
    pub const CAPACITY: usize = u16::MAX as usize;

    /// The address of the inventory's n-th name (from 0), or none when there are too many.
    pub fn nth(index: usize) -> Option<Self> {
        u16::try_from(index.checked_add(1)?).ok().map(Self)
    }

    /// The index that [`SyntheticAddress::nth`] was given.
    pub fn index(self) -> usize {
        usize::from(self.0) - 1
    }

    /// In 198.18.0.0/15, the range kept for benchmarks (RFC 2544), which no real host uses.
    pub fn v4(self) -> Ipv4Addr {
        let [high, low] = self.0.to_be_bytes();
        Ipv4Addr::new(198, 18, high, low)
    }

    /// In a unique local prefix (RFC 4193) of our own.
    pub fn v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd69, 0x6e74, 0x6572, 0, 0, 0, 0, self.0)
    }

    /// The synthetic address that `ip` is, if it is one.
    pub fn from_ip(ip: IpAddr) -> Option<Self> {
        let number = match ip {
            IpAddr::V4(v4) => match v4.octets() {
                [198, 18, high, low] => u16::from_be_bytes([high, low]),
                _ => return None,
            },
            IpAddr::V6(v6) => match v6.segments() {
                [0xfd69, 0x6e74, 0x6572, 0, 0, 0, 0, low] => low,
                _ => return None,
            },
        };
        (number != 0).then_some(Self(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synthetic_addresses_round_trip() {
        for index in [0, 1, 254, 255, 65_533, 65_534] {
            let address = SyntheticAddress::nth(index).expect("within capacity");
            assert_eq!(address.index(), index);
            assert_eq!(SyntheticAddress::from_ip(address.v4().into()), Some(address));
            assert_eq!(SyntheticAddress::from_ip(address.v6().into()), Some(address));
        }
        assert_eq!(SyntheticAddress::nth(65_535), None);
        assert_eq!(SyntheticAddress::from_ip(IpAddr::from([198, 18, 0, 0])), None);
        assert_eq!(SyntheticAddress::from_ip(IpAddr::from([198, 19, 0, 1])), None);
    }

    #[test]
    fn a_destination_is_read_as_it_is_written() {
        for text in
            ["198.18.0.1:5432", "[fd69:6e74:6572::1]:5432", "unix:/var/run/postgresql/.s.PGSQL.5432", "unix:"]
        {
            let destination: OriginalDestination = text.parse().expect("a destination");
            assert_eq!(destination.to_string(), text);
            let json = serde_json::to_string(&destination).expect("JSON");
            assert_eq!(json, format!("{text:?}"));
            assert_eq!(serde_json::from_str::<OriginalDestination>(&json).expect("read"), destination);
        }
        assert!("/run/x".parse::<OriginalDestination>().is_err());
    }

    #[test]
    fn a_socket_has_one_path() {
        let path = |text: &str| text.parse::<SocketPath>().map(|path| path.to_string());
        for text in ["/run/pg/.s", "/var/run/pg/.s", "//var/./run//pg/.s", "/run/pg/./.s"] {
            assert_eq!(path(text), Ok("/run/pg/.s".to_owned()), "{text}");
        }
        assert_eq!(path("/var/runner/s"), Ok("/var/runner/s".to_owned()));
        assert!(path(&format!("/{}", "x".repeat(106))).is_ok());
        for text in ["", "run/s", "@s", "/run/../s", "/..", "/", "/run/", "/run/.", "/a\0b", "/a\n"] {
            assert!(path(text).is_err(), "{text:?}");
        }
        assert!(path(&format!("/{}", "x".repeat(107))).is_err());
    }
}
