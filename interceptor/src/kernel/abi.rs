//! Kernel structures become the model's types here, and nowhere else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use interceptor_common::{FAMILY_V4, FAMILY_V6, RunConfig, TupleKey};
use interceptor_core::model::RunId;

/// One process, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProcessRef {
    /// Thread group id in the host's pid namespace.
    pub pid: u32,
    /// Nanoseconds since boot.
    pub start_time: u64,
}

/// Where a redirected connection was going, and who asked, as of its handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// The client socket's cookie.
    pub cookie: u64,
    /// The run.
    pub run: RunId,
    /// The destination that the agent asked for.
    pub destination: SocketAddr,
    /// Who called connect.
    pub process: ProcessRef,
    /// The caller's user id.
    pub uid: u32,
    /// The caller's own cgroup.
    pub cgroup: u64,
    /// The socket's network namespace.
    pub netns_cookie: u64,
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
}

impl Flow {
    pub(super) fn from_raw(raw: &interceptor_common::Flow) -> Option<Self> {
        Some(Self {
            cookie: raw.cookie,
            run: RunId::from_random(raw.run),
            destination: socket_address(raw.family, raw.address, raw.port)?,
            process: ProcessRef { pid: raw.tgid, start_time: raw.start_boottime },
            uid: raw.uid,
            cgroup: raw.cgroup,
            netns_cookie: raw.netns_cookie,
            at_ns: raw.at_ns,
        })
    }
}

/// Global addresses inside a run's own network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunAddresses {
    /// IPv4, if any.
    pub v4: Option<Ipv4Addr>,
    /// IPv6, if any.
    pub v6: Option<Ipv6Addr>,
}

/// What the kernel side must know of a run before its first process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunSettings {
    /// The run.
    pub run: RunId,
    /// The port of its TCP listener, on 127.0.0.1 and on ::1 in the run's network namespace.
    pub tcp_port: u16,
    /// The port of its resolver, on the same addresses.
    pub dns_port: u16,
    /// The cookie (`SO_NETNS_COOKIE`) of the network namespace that the run is in.
    pub namespace: u64,
    /// The run's own addresses there; none when the namespace is not its own.
    pub own: Option<RunAddresses>,
}

impl RunSettings {
    /// As the kernel side has it. What it lets the run do for a while, by what it had `before`, it goes on with.
    pub(super) fn to_raw(self, before: Option<RunConfig>) -> RunConfig {
        let addresses = self.own.unwrap_or_default();
        let own = if self.own.is_some() { RunConfig::OWN_NETNS } else { 0 };
        RunConfig {
            run: self.run.as_u64(),
            netns_cookie: self.namespace,
            own_v6: addresses.v6.map_or([0; 4], |v6| words(v6.octets())),
            own_v4: addresses.v4.map_or(0, |v4| u32::from_ne_bytes(v4.octets())),
            tcp_port: self.tcp_port.into(),
            dns_port: self.dns_port.into(),
            flags: own | before.map_or(0, |before| before.flags & RunConfig::KEEPS),
            released_until: before.map_or(0, |before| before.released_until),
        }
    }
}

/// The key of a client that a listener of `run` sees.
pub(super) fn tuple_key(run: RunId, client: SocketAddr) -> TupleKey {
    let (family, address) = match client.ip().to_canonical() {
        IpAddr::V4(v4) => (FAMILY_V4, [u32::from_ne_bytes(v4.octets()), 0, 0, 0]),
        IpAddr::V6(v6) => (FAMILY_V6, words(v6.octets())),
    };
    TupleKey { run: run.as_u64(), address, family, port: client.port().into() }
}

/// A family, address and port of the kernel side.
pub(super) fn socket_address(family: u32, address: [u32; 4], port: u32) -> Option<SocketAddr> {
    let port = u16::try_from(port).ok()?;
    let [first, second, third, last] = address;
    match family {
        FAMILY_V4 => Some((Ipv4Addr::from(first.to_ne_bytes()), port).into()),
        FAMILY_V6 => {
            let bits = [first, second, third, last]
                .into_iter()
                .fold(0_u128, |bits, word| (bits << 32) | u128::from(u32::from_be(word)));
            Some((Ipv6Addr::from(bits), port).into())
        }
        _ => None,
    }
}

fn words(octets: [u8; 16]) -> [u32; 4] {
    let bits = u128::from_be_bytes(octets);
    [96, 64, 32, 0].map(|shift| ((bits >> shift) as u32).to_be())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_went() {
        for text in ["192.0.2.7:5432", "[2001:db8::1:2]:443", "[::1]:1"] {
            let address: SocketAddr = text.parse().expect("an address");
            let key = tuple_key(RunId::from_random(7), address);
            assert_eq!(socket_address(key.family, key.address, key.port), Some(address));
        }
        let mapped = tuple_key(RunId::from_random(7), "[::ffff:127.0.0.1]:9".parse().expect("an address"));
        assert_eq!(mapped.family, FAMILY_V4);
        assert_eq!(socket_address(1, [0; 4], 0), None);
        assert_eq!(socket_address(FAMILY_V4, [0; 4], 70_000), None);
    }
}
