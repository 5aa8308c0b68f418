//! What the kernel side refuses, by closed codes: what ordinary clients try by themselves and go on without, and all else.
//!
//! Promises: a code means one thing, and keeps it; what is not known to be such a probe has the code of what refused it.
//! Nothing is let by for being a probe. Must never know what a policy is.

use std::net::{Ipv6Addr, SocketAddr};

use interceptor_common::Counter;
use interceptor_core::model::SyntheticAddress;

/// The code of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Ordinary clients try it, and go on without.
    Probe(Probe),
    /// Whoever tries it means it.
    Refused(Counter),
}

/// What ordinary clients try by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Whether there is a way out over IPv6: a UDP socket is connected to a public resolver's address, and sends nothing.
    Ipv6,
    /// HTTP/3.
    Quic,
    /// Which of a name's addresses can be reached (RFC 6724, rule 1): a UDP socket is connected, and sends nothing.
    AddressOrder,
    /// The time of day (NTP).
    Time,
    /// Neighbours: mDNS, LLMNR, SSDP, NetBIOS.
    Discovery,
    /// ICMP, of either version.
    Ping,
    /// Multipath TCP.
    Multipath,
}

impl Probe {
    const ALL: [Self; 7] = [
        Self::Ipv6,
        Self::Quic,
        Self::AddressOrder,
        Self::Time,
        Self::Discovery,
        Self::Ping,
        Self::Multipath,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Ipv6 => "probe-ipv6",
            Self::Quic => "probe-quic",
            Self::AddressOrder => "probe-address-order",
            Self::Time => "probe-time",
            Self::Discovery => "probe-discovery",
            Self::Ping => "probe-ping",
            Self::Multipath => "probe-multipath",
        }
    }
}

/// What was refused, as the kernel side tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Why; the same reason is counted.
    pub reason: Counter,
    /// The destination, where there is one.
    pub destination: Option<SocketAddr>,
    /// The protocol, or for an option its level.
    pub protocol: u32,
    /// The port, or for an option its name.
    pub port: u32,
}

impl Refused {
    /// Its code.
    pub fn code(&self) -> Code {
        let probe = match (self.reason, self.protocol) {
            (Counter::RefusedUdp, _) => self.destination.and_then(datagram),
            (Counter::RefusedSocket | Counter::RefusedProtocol, 1 | 58) => Some(Probe::Ping),
            (Counter::RefusedSocket | Counter::RefusedProtocol, 262) => Some(Probe::Multipath),
            _ => None,
        };
        probe.map_or(Code::Refused(self.reason), Code::Probe)
    }

    /// What it was, in words.
    pub fn in_words(&self) -> String {
        let Self { destination, protocol, port, .. } = *self;
        let name = protocol_name(protocol);
        match (self.reason, destination) {
            (Counter::RefusedOption, _) => format!("option {port} of level {protocol} on a socket"),
            (Counter::RefusedBind, _) => format!("a bind to port {port}"),
            (Counter::RefusedSocket, _) => format!("a socket of {name} (protocol {protocol})"),
            (Counter::RefusedUnix, _) => {
                "a Unix socket, by a call that the launcher does not make for it".to_owned()
            }
            (Counter::RefusedFamily, _) => format!("a socket of another family (number {port})"),
            (Counter::RefusedPeer, _) => "a Unix socket that was made outside of the run".to_owned(),
            (Counter::RefusedPassed, _) => {
                "a socket that was made outside of the run, and passed to it".to_owned()
            }
            (Counter::RefusedTrace, _) => format!("process {port}, which is not of the run"),
            (Counter::RefusedRing, _) => "a ring of io_uring".to_owned(),
            (Counter::RefusedRights, _) => "a program that has more rights than who executes it".to_owned(),
            (Counter::RefusedTyping, _) => "input put into a terminal".to_owned(),
            (Counter::RefusedStray, _) => {
                "a socket, by a process that was moved out of the run's cgroup".to_owned()
            }
            (Counter::RefusedForeign, Some(to)) => {
                format!("{name} (protocol {protocol}) to {to}, by a socket that was made outside of the run")
            }
            (_, Some(to)) => format!("{name} (protocol {protocol}) to {to}"),
            (_, None) => format!("{name} (protocol {protocol})"),
        }
    }
}

/// Where Chromium, and all that is built on it, looks for a way out over IPv6, at any port.
const LOOK_OUT: Ipv6Addr = Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888);

/// What a refused datagram is known for by where it goes to.
fn datagram(to: SocketAddr) -> Option<Probe> {
    if to.ip() == LOOK_OUT {
        return Some(Probe::Ipv6);
    }
    match to.port() {
        443 => Some(Probe::Quic),
        123 => Some(Probe::Time),
        137 | 1900 | 5353 | 5355 => Some(Probe::Discovery),
        // No resource is reached by UDP.
        _ => SyntheticAddress::from_ip(to.ip()).map(|_| Probe::AddressOrder),
    }
}

/// The name of a protocol of IP's.
pub fn protocol_name(number: u32) -> &'static str {
    match number {
        1 => "ICMP",
        6 => "TCP",
        17 => "UDP",
        58 => "ICMPv6",
        132 => "SCTP",
        136 => "UDP-Lite",
        255 => "raw IP",
        262 => "MPTCP",
        _ => "another protocol",
    }
}

impl Code {
    /// The name that stands in the record.
    pub fn name(self) -> &'static str {
        match self {
            Self::Probe(probe) => probe.name(),
            Self::Refused(reason) => reason.name(),
        }
    }

    /// The code that has a name.
    pub fn named(name: &str) -> Option<Self> {
        let probe = Probe::ALL.into_iter().find(|probe| probe.name() == name).map(Self::Probe);
        probe.or_else(|| {
            Counter::ALL.iter().find(|reason| reason.name() == name).map(|reason| Self::Refused(*reason))
        })
    }

    /// For the operator: why it is refused, and what to do.
    pub fn explained(self) -> (&'static str, &'static str) {
        match self {
            Self::Probe(probe) => probe.explained(),
            Self::Refused(reason) => explained(reason),
        }
    }
}

impl Probe {
    fn explained(self) -> (&'static str, &'static str) {
        match self {
            Self::Ipv6 => (
                "UDP leads to the resolver alone, whether or not there is a way out over IPv6",
                "nothing: names have an address of either family, and both lead to the same resource",
            ),
            Self::Quic => (
                "HTTP/3 goes by UDP, which leads to the resolver alone",
                "nothing: clients go on by TCP, which is captured",
            ),
            Self::AddressOrder => (
                "a resolver connects a UDP socket to each address of a name, to put them in order, and sends nothing",
                "nothing: the addresses are tried by TCP next",
            ),
            Self::Time => ("UDP leads to the resolver alone", "nothing: the run has the host's clock"),
            Self::Discovery => ("UDP leads to the resolver alone", "nothing: a run has no neighbours"),
            Self::Ping => {
                ("ICMP cannot be judged", "nothing: dial the port that is wanted, which says what is wrong")
            }
            Self::Multipath => {
                ("Multipath TCP cannot be captured", "nothing: clients go on by TCP, which is captured")
            }
        }
    }
}

fn explained(reason: Counter) -> (&'static str, &'static str) {
    const STATUS: &str = "`interceptor status` on this host says what is wrong";
    const TCP: &str = "use TCP, which is captured and judged";
    match reason {
        Counter::RefusedUnknownRun => ("its cgroup is captured, and its run is not known", STATUS),
        Counter::RefusedHeartbeat => ("no proxy was alive to judge it", STATUS),
        Counter::RefusedMode => ("everything is refused for now", STATUS),
        Counter::MapFull | Counter::TupleFull | Counter::ProcessFull | Counter::LabelFull => {
            ("a table of the kernel side is full", STATUS)
        }
        Counter::RefusedNamespace => {
            ("the process is in another network namespace than its run", "dial from the run's own network")
        }
        Counter::RefusedProtocol | Counter::RefusedSocket => ("no socket of this kind can be judged", TCP),
        Counter::RefusedUdp => ("UDP leads to the resolver alone", TCP),
        Counter::RefusedOption => ("the option could lead around the proxy", "leave it out"),
        Counter::RefusedBind => {
            ("the port is that of the run's own listener or resolver", "bind another one")
        }
        Counter::DroppedEgress => ("the packet would have left by another way than to the proxy", TCP),
        Counter::DroppedIngress => ("nobody beyond this host reaches a run", "dial from within the run"),
        Counter::DroppedKept => {
            ("the connection is of before the run's capture, and its time is over", "connect anew")
        }
        Counter::RefusedForeign | Counter::RefusedPassed => {
            ("the socket was made outside of the run", "make it in the run")
        }
        Counter::RefusedQuota => (
            "the run has as many connections as one may have",
            "close some; more descriptors for the daemon (`LimitNOFILE`) are more seats",
        ),
        Counter::RefusedUnix => (
            "Unix sockets of others are out of reach of a run",
            "to serve it as a resource, list its path under that one's `sockets` in resources.toml",
        ),
        Counter::RefusedPeer => (
            "Unix sockets of others are out of reach of a run",
            "if every attached run may have it, list its path under `unix-sockets` in interceptor.toml",
        ),
        Counter::RefusedFamily => ("sockets of other families pass by all that is judged", TCP),
        Counter::RefusedTrace => {
            ("it would reach into a process outside", "look at processes of the run's alone")
        }
        Counter::RefusedRing => {
            ("what a ring does is not seen", "have it use system calls, as all that can use rings can")
        }
        Counter::RefusedRights => {
            ("a run gains no rights", "`run --sudo` lets the host's own sudo decide, on a copy of the system")
        }
        Counter::RefusedTyping => ("the terminal would carry it out, outside of the run", "leave it out"),
        Counter::RefusedStray => (
            "the process was moved out of its run's cgroup",
            "move it back, or end it: somebody outside moved it",
        ),
        // These refuse nothing.
        Counter::Redirected
        | Counter::DnsRedirected
        | Counter::Internal
        | Counter::RingLost
        | Counter::Released
        | Counter::Kept => ("it was not refused", STATUS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp(to: &str) -> Code {
        let destination = to.parse::<SocketAddr>().expect("an address");
        let port = destination.port().into();
        Refused { reason: Counter::RefusedUdp, destination: Some(destination), protocol: 17, port }.code()
    }

    fn socket(protocol: u32) -> Code {
        Refused { reason: Counter::RefusedSocket, destination: None, protocol, port: 0 }.code()
    }

    #[test]
    fn what_clients_try_by_themselves_is_told_from_the_rest() {
        for (code, name) in [
            (udp("[2001:4860:4860::8888]:443"), "probe-ipv6"),
            (udp("[2001:4860:4860::8888]:80"), "probe-ipv6"),
            (udp("[2001:4860:4860::8889]:80"), "refused-udp"),
            (udp("192.0.2.1:443"), "probe-quic"),
            (udp("[2001:db8::1]:443"), "probe-quic"),
            (udp("198.18.0.5:5432"), "probe-address-order"),
            (udp("224.0.0.251:5353"), "probe-discovery"),
            (udp("192.0.2.1:5432"), "refused-udp"),
            (udp("192.0.2.1:444"), "refused-udp"),
            (socket(1), "probe-ping"),
            (socket(58), "probe-ping"),
            (socket(262), "probe-multipath"),
            (socket(132), "refused-socket"),
            (socket(255), "refused-socket"),
        ] {
            assert_eq!(code.name(), name);
            assert_eq!(Code::named(name), Some(code));
        }
        assert_eq!(Code::named("probe-anything"), None);
    }

    #[test]
    fn an_option_is_never_a_probe() {
        let option = Refused { reason: Counter::RefusedOption, destination: None, protocol: 1, port: 262 };
        assert_eq!(option.code(), Code::Refused(Counter::RefusedOption));
    }
}
