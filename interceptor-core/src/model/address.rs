//! Addresses, one type per meaning.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use serde::{Deserialize, Serialize};

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub SocketAddr);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

address! {
    /// The captured socket's own address, in its network namespace.
    ClientAddress
}
address! {
    /// Where the agent asked to go, as the kernel saw it before the redirect. A v4-mapped address is held as IPv4.
    OriginalDestination
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
}
