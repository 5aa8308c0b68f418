//! What a belt consists of, in the words of nftables: its table, chains, rules, counters and sets.
//!
//! Nothing here speaks to the kernel.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use nix::libc;

use super::{
    super::nftables::{Attributes, Verb},
    ENTERED, Girth, LEFT, Passing,
};

/// The loopback interface is the first of every network namespace.
const LOOPBACK: u32 = 1;
/// After every rule of the host's own: what leaves is decided by then.
const LAST: i32 = i32::MAX;

/// A base chain of a belt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chain {
    pub(super) name: &'static str,
    /// `NF_INET_LOCAL_IN` or `NF_INET_LOCAL_OUT`.
    hook: u32,
    /// The `meta` key of the interface that counts there.
    interface: u32,
    counter: &'static str,
}

const OUTPUT: Chain = Chain { name: "output", hook: 3, interface: 5, counter: LEFT };
const INPUT: Chain = Chain { name: "input", hook: 1, interface: 4, counter: ENTERED };

pub(super) fn chains(girth: Girth) -> &'static [Chain] {
    match girth {
        Girth::Namespace => &[OUTPUT, INPUT],
        Girth::Cgroup { .. } => &[OUTPUT],
    }
}

/// Everything of a belt, in place of what has its name.
pub(super) fn ruleset(table: &str, girth: Girth, passing: &Passing) -> Vec<(Verb, Attributes)> {
    let named = Attributes::default().text(table::NAME, table);
    // A table that is not there cannot be deleted, so it is made first.
    let mut batch =
        vec![(Verb::NewTable, named.clone()), (Verb::DeleteTable, named.clone()), (Verb::NewTable, named)];
    for chain in chains(girth) {
        batch.push((Verb::NewObject, counter(table, chain.counter)));
        batch.push((Verb::NewChain, base_chain(table, chain)));
        let elsewhere = expressions::not_through(chain.interface, LOOPBACK);
        match girth {
            Girth::Namespace => {
                // What the kernel itself tells its neighbours. Captured processes have no such sockets.
                for protocol in [libc::IPPROTO_ICMPV6, libc::IPPROTO_IGMP] {
                    let kernels = expressions::of_protocol(protocol as u8);
                    let all = [&elsewhere[..], &kernels, &[expressions::drop()]].concat();
                    batch.push((Verb::NewRule, in_chain(table, chain, &all)));
                }
                let all =
                    [&elsewhere[..], &[expressions::counted(chain.counter), expressions::drop()]].concat();
                batch.push((Verb::NewRule, in_chain(table, chain, &all)));
            }
            Girth::Cgroup { level, id } => {
                batch.extend(set::ALL.iter().map(|set| (Verb::NewSet, set.made(table))));
                batch.extend(elements(table, id, passing));
                let released = expressions::found(set::RELEASED);
                let passes = [
                    vec![released],
                    expressions::among_v4(set::KEPT_V4).to_vec(),
                    expressions::among_v6(set::KEPT_V6).to_vec(),
                ];
                for passes in passes {
                    let all = [
                        &elsewhere[..],
                        &expressions::of_cgroup(level, id),
                        &passes,
                        &[expressions::accept()],
                    ];
                    batch.push((Verb::NewRule, in_chain(table, chain, &all.concat())));
                }
                let all = [
                    &elsewhere[..],
                    &expressions::of_cgroup(level, id),
                    &[expressions::counted(chain.counter), expressions::drop()],
                ];
                batch.push((Verb::NewRule, in_chain(table, chain, &all.concat())));
            }
        }
    }
    batch
}

/// What passes the belt around a cgroup for a while.
fn elements(table: &str, id: u64, passing: &Passing) -> Vec<(Verb, Attributes)> {
    let released =
        passing.released.map(|time| (time, element(table, set::RELEASED, &id.to_ne_bytes(), time)));
    let kept = passing
        .kept
        .iter()
        .map(|connection| (passing.kept_for, kept_element(table, *connection, Some(passing.kept_for))));
    // No time at all would be for ever.
    let lasting = released.into_iter().chain(kept).filter(|(time, _)| !time.is_zero());
    lasting.map(|(_, element)| (Verb::NewElement, element)).collect()
}

/// Something that stands in a set for a time.
pub(super) fn element(table: &str, set: &str, key: &[u8], time: Duration) -> Attributes {
    let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    one_element(table, set, &keyed(key).long(set::TIMEOUT, milliseconds))
}

/// A connection in the set of its family, for a time; without one as it is named when it is removed.
pub(super) fn kept_element(
    table: &str,
    (own, peer): (SocketAddr, SocketAddr),
    time: Option<Duration>,
) -> Attributes {
    let ports = [own, peer].map(|address| [address.port().to_be_bytes(), [0; 2]].concat()).concat();
    let (set, key) = match (own.ip().to_canonical(), peer.ip().to_canonical()) {
        (IpAddr::V4(own), IpAddr::V4(peer)) => {
            (set::KEPT_V4, [&own.octets()[..], &peer.octets(), &ports].concat())
        }
        (own, peer) => {
            let [own, peer] = [own, peer].map(|ip| match ip {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            });
            (set::KEPT_V6, [&own[..], &peer, &ports].concat())
        }
    };
    match time {
        Some(time) => element(table, set, &key, time),
        None => one_element(table, set, &keyed(&key)),
    }
}

fn keyed(key: &[u8]) -> Attributes {
    Attributes::default().nested(set::KEY, &Attributes::default().bytes(set::VALUE, key))
}

fn one_element(table: &str, set: &str, element: &Attributes) -> Attributes {
    Attributes::default()
        .text(set::OF_TABLE, table)
        .text(set::OF_SET, set)
        .nested(set::ELEMENTS, &Attributes::default().nested(set::ELEMENT, element))
}

/// All of the set of cgroups that are let go of.
pub(super) fn released_set(table: &str) -> Attributes {
    Attributes::default().text(set::OF_TABLE, table).text(set::OF_SET, set::RELEASED)
}

fn counter(table: &str, name: &str) -> Attributes {
    let zero = Attributes::default().bytes(object::BYTES, &[0; 8]).bytes(object::PACKETS, &[0; 8]);
    Attributes::default()
        .text(object::TABLE, table)
        .text(object::NAME, name)
        .number(object::KIND, object::COUNTER)
        .nested(object::DATA, &zero)
}

fn base_chain(table: &str, chain: &Chain) -> Attributes {
    let hook = Attributes::default()
        .number(chain::HOOK_NUMBER, chain.hook)
        .number(chain::HOOK_PRIORITY, LAST.cast_unsigned());
    Attributes::default()
        .text(chain::TABLE, table)
        .text(chain::NAME, chain.name)
        .nested(chain::HOOK, &hook)
        .number(chain::POLICY, chain::ACCEPT)
        .text(chain::TYPE, "filter")
}

fn in_chain(table: &str, chain: &Chain, expressions: &[Attributes]) -> Attributes {
    let list = expressions.iter().fold(Attributes::default(), |list, one| list.nested(rule::ELEMENT, one));
    Attributes::default()
        .text(rule::TABLE, table)
        .text(rule::CHAIN, chain.name)
        .nested(rule::EXPRESSIONS, &list)
}

/// `NFTA_TABLE_*`
pub(super) mod table {
    pub(in super::super) const NAME: u16 = 1;
}

/// `NFTA_CHAIN_*` and `NFTA_HOOK_*`
pub(super) mod chain {
    pub(in super::super) const TABLE: u16 = 1;
    pub(in super::super) const NAME: u16 = 3;
    pub(in super::super) const HOOK: u16 = 4;
    pub(in super::super) const POLICY: u16 = 5;
    pub(in super::super) const TYPE: u16 = 7;
    pub(in super::super) const HOOK_NUMBER: u16 = 1;
    pub(in super::super) const HOOK_PRIORITY: u16 = 2;
    /// `NF_ACCEPT`
    pub(in super::super) const ACCEPT: u32 = 1;
}

/// `NFTA_RULE_*`
pub(super) mod rule {
    pub(in super::super) const TABLE: u16 = 1;
    pub(in super::super) const CHAIN: u16 = 2;
    pub(in super::super) const EXPRESSIONS: u16 = 4;
    pub(in super::super) const ELEMENT: u16 = 1;
}

/// `NFTA_SET_*` and `NFTA_SET_ELEM_*`, and the sets that a belt around a cgroup has.
pub(super) mod set {
    use super::Attributes;

    /// Cgroups that are let go of, each for a time.
    pub(in super::super) const RELEASED: &str = "released";
    /// Connections that may go on for a time, by both ends' addresses and ports.
    pub(in super::super) const KEPT_V4: &str = "kept4";
    pub(in super::super) const KEPT_V6: &str = "kept6";
    /// All of them.
    pub(in super::super) const ALL: [Set; 3] = [
        Set { name: RELEASED, id: 1, key_type: CGROUP, key_length: 8 },
        Set { name: KEPT_V4, id: 2, key_type: ends(IPV4), key_length: 16 },
        Set { name: KEPT_V6, id: 3, key_type: ends(IPV6), key_length: 40 },
    ];

    /// A set whose elements have a time.
    pub(in super::super) struct Set {
        name: &'static str,
        id: u32,
        key_type: u32,
        key_length: u32,
    }

    impl Set {
        pub(in super::super) fn made(&self, table: &str) -> Attributes {
            Attributes::default()
                .text(TABLE, table)
                .text(NAME, self.name)
                .number(FLAGS, WITH_TIMEOUTS)
                .number(KEY_TYPE, self.key_type)
                .number(KEY_LENGTH, self.key_length)
                .number(ID, self.id)
        }
    }

    /// Two addresses of a type and two ports, as `nft` puts types together.
    const fn ends(address: u32) -> u32 {
        address << 18 | address << 12 | PORT << 6 | PORT
    }

    pub(in super::super) const TABLE: u16 = 1;
    pub(in super::super) const NAME: u16 = 2;
    pub(in super::super) const FLAGS: u16 = 3;
    pub(in super::super) const KEY_TYPE: u16 = 4;
    pub(in super::super) const KEY_LENGTH: u16 = 5;
    pub(in super::super) const ID: u16 = 10;
    pub(in super::super) const OF_TABLE: u16 = 1;
    pub(in super::super) const OF_SET: u16 = 2;
    pub(in super::super) const ELEMENTS: u16 = 3;
    pub(in super::super) const ELEMENT: u16 = 1;
    pub(in super::super) const KEY: u16 = 1;
    pub(in super::super) const VALUE: u16 = 1;
    pub(in super::super) const TIMEOUT: u16 = 4;
    /// `NFT_SET_TIMEOUT`
    pub(in super::super) const WITH_TIMEOUTS: u32 = 0x10;
    /// What `nft` knows keys of this kind as; the kernel does not look at it.
    const CGROUP: u32 = 48;
    const IPV4: u32 = 7;
    const IPV6: u32 = 8;
    const PORT: u32 = 13;
}

/// `NFTA_OBJ_*` and `NFTA_COUNTER_*`
pub(super) mod object {
    pub(in super::super) const TABLE: u16 = 1;
    pub(in super::super) const NAME: u16 = 2;
    pub(in super::super) const KIND: u16 = 3;
    pub(in super::super) const DATA: u16 = 4;
    pub(in super::super) const BYTES: u16 = 1;
    pub(in super::super) const PACKETS: u16 = 2;
    /// `NFT_OBJECT_COUNTER`
    pub(in super::super) const COUNTER: u32 = 1;
}

/// What rules are made of.
mod expressions {
    use super::{Attributes, object};

    /// The register that values are compared in.
    const REGISTER: u32 = 1;
    const EQUAL: u32 = 0;
    const UNEQUAL: u32 = 1;

    fn expression(name: &str, data: &Attributes) -> Attributes {
        Attributes::default().text(1, name).nested(2, data)
    }

    fn compared(operator: u32, value: &[u8]) -> Attributes {
        let value = Attributes::default().bytes(1, value);
        expression("cmp", &Attributes::default().number(1, REGISTER).number(2, operator).nested(3, &value))
    }

    fn meta(key: u32) -> Attributes {
        expression("meta", &Attributes::default().number(2, key).number(1, REGISTER))
    }

    /// Goes on where the interface is another.
    pub(super) fn not_through(key: u32, interface: u32) -> [Attributes; 2] {
        [meta(key), compared(UNEQUAL, &interface.to_ne_bytes())]
    }

    /// Goes on where the transport is this one.
    pub(super) fn of_protocol(protocol: u8) -> [Attributes; 2] {
        // `NFT_META_L4PROTO`
        [meta(16), compared(EQUAL, &[protocol])]
    }

    /// Goes on where the packet is of a socket of this cgroup, or of one below it.
    pub(super) fn of_cgroup(level: u32, id: u64) -> [Attributes; 2] {
        // `NFT_SOCKET_CGROUPV2`
        let socket = Attributes::default().number(1, 3).number(2, REGISTER).number(3, level);
        [expression("socket", &socket), compared(EQUAL, &id.to_ne_bytes())]
    }

    /// Counts.
    pub(super) fn counted(counter: &str) -> Attributes {
        expression("objref", &Attributes::default().number(1, object::COUNTER).text(2, counter))
    }

    /// Goes on where what was compared last stands in a set.
    pub(super) fn found(set: &str) -> Attributes {
        expression("lookup", &Attributes::default().text(1, set).number(2, REGISTER))
    }

    /// Goes on where a TCP packet is of an IPv4 connection that stands in a set.
    pub(super) fn among_v4(set: &str) -> [Attributes; 9] {
        among(NFPROTO_IPV4, [(NETWORK, 12, 4), (NETWORK, 16, 4)], set)
    }

    /// The same for IPv6.
    pub(super) fn among_v6(set: &str) -> [Attributes; 9] {
        among(NFPROTO_IPV6, [(NETWORK, 8, 16), (NETWORK, 24, 16)], set)
    }

    /// `NFT_PAYLOAD_NETWORK_HEADER` and `NFT_PAYLOAD_TRANSPORT_HEADER`
    const NETWORK: u32 = 1;
    const TRANSPORT: u32 = 2;
    const NFPROTO_IPV4: u8 = 2;
    const NFPROTO_IPV6: u8 = 10;
    const TCP: u8 = 6;
    /// The first of the registers of four bytes; they are [`REGISTER`] and those behind it.
    const SHORT_REGISTERS: u32 = 8;

    /// Puts what lies at the places of both addresses and then both ports into registers, one behind the other, and looks them up.
    fn among(family: u8, addresses: [(u32, u32, u32); 2], set: &str) -> [Attributes; 9] {
        let [own, peer] = addresses;
        let mut register = SHORT_REGISTERS;
        let mut load = |(base, offset, length): (u32, u32, u32)| {
            let loaded = payload(base, offset, length, register);
            register += length.div_ceil(4);
            loaded
        };
        // `NFT_META_NFPROTO`
        let [of_tcp, is_tcp] = of_protocol(TCP);
        [
            meta(15),
            compared(EQUAL, &[family]),
            of_tcp,
            is_tcp,
            load(own),
            load(peer),
            load((TRANSPORT, 0, 2)),
            load((TRANSPORT, 2, 2)),
            found(set),
        ]
    }

    fn payload(base: u32, offset: u32, length: u32, register: u32) -> Attributes {
        let place = Attributes::default().number(1, register).number(2, base).number(3, offset);
        expression("payload", &place.number(4, length))
    }

    /// Ends the packet.
    pub(super) fn drop() -> Attributes {
        verdict(0)
    }

    /// Lets the packet by.
    pub(super) fn accept() -> Attributes {
        verdict(1)
    }

    /// `NF_DROP` or `NF_ACCEPT`, put into the register that holds the verdict.
    fn verdict(code: u32) -> Attributes {
        let code = Attributes::default().number(1, code);
        let verdict = Attributes::default().nested(2, &code);
        expression("immediate", &Attributes::default().number(1, 0).nested(2, &verdict))
    }
}
