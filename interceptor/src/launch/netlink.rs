//! A network namespace with nobody else in it: loopback, and a pair of interfaces that both end inside.
//!
//! The pair carries one global address of each family and the default routes, so that look-ups that ask "is this
//! family configured" say yes and `connect` finds a route; whatever is really sent there falls into the void. Uses
//! the kernel's own netlink: no tool needs to be installed.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    libc,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
    },
};

/// The interface that has the addresses.
pub(crate) const INTERFACE: &str = "eth0";
/// Where its packets end.
pub(crate) const VOID: &str = "void0";
/// The run's own IPv4 address, in TEST-NET-1 (RFC 5737): no real host has it.
pub const ADDRESS_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The run's own IPv6 address, in the documentation prefix (RFC 3849).
pub const ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

/// Fills the calling thread's network namespace, which must be new. Says whether it has IPv6.
pub(crate) fn furnish() -> io::Result<bool> {
    let mut netlink = Netlink::open()?;
    netlink.set_up("lo")?;
    netlink.add_pair()?;
    netlink.set_up(VOID)?;
    netlink.set_up(INTERFACE)?;
    netlink.add_address(ADDRESS_V4.into(), 24)?;
    netlink.add_default_route(AddressFamily::Inet)?;
    if !std::path::Path::new("/proc/self/net/if_inet6").exists() {
        return Ok(false);
    }
    netlink.add_address(ADDRESS_V6.into(), 64)?;
    netlink.add_default_route(AddressFamily::Inet6)?;
    Ok(true)
}

struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

const ACKNOWLEDGE: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
const CREATE: u16 = ACKNOWLEDGE | (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
const HEADER: usize = 16;
/// `VETH_INFO_PEER` of `linux/veth.h`.
const VETH_INFO_PEER: u16 = 1;

impl Netlink {
    fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        Ok(Self { socket, sequence: 0 })
    }

    fn set_up(&mut self, name: &str) -> io::Result<()> {
        let up = libc::IFF_UP as u32;
        self.ask(libc::RTM_NEWLINK, ACKNOWLEDGE, &link_body(index(name)?, up))
    }

    fn add_pair(&mut self) -> io::Result<()> {
        let mut peer = link_body(0, 0);
        attribute(&mut peer, libc::IFLA_IFNAME, &terminated(VOID))?;
        let mut data = Vec::new();
        attribute(&mut data, VETH_INFO_PEER, &peer)?;
        let mut kind = Vec::new();
        attribute(&mut kind, libc::IFLA_INFO_KIND, b"veth")?;
        attribute(&mut kind, libc::IFLA_INFO_DATA, &data)?;
        let mut body = link_body(0, 0);
        attribute(&mut body, libc::IFLA_IFNAME, &terminated(INTERFACE))?;
        attribute(&mut body, libc::IFLA_LINKINFO, &kind)?;
        self.ask(libc::RTM_NEWLINK, CREATE, &body)
    }

    fn add_address(&mut self, address: IpAddr, prefix: u8) -> io::Result<()> {
        // Nobody can have taken the address, so duplicate detection would only delay its use.
        const NO_DETECTION: u8 = libc::IFA_F_NODAD as u8;
        let (family, bytes) = match address {
            IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
            IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
        };
        let mut body = vec![family as u8, prefix, NO_DETECTION, libc::RT_SCOPE_UNIVERSE];
        body.extend(index(INTERFACE)?.to_ne_bytes());
        attribute(&mut body, libc::IFA_LOCAL, &bytes)?;
        attribute(&mut body, libc::IFA_ADDRESS, &bytes)?;
        self.ask(libc::RTM_NEWADDR, CREATE, &body)
    }

    fn add_default_route(&mut self, family: AddressFamily) -> io::Result<()> {
        let scope = match family {
            AddressFamily::Inet => libc::RT_SCOPE_LINK,
            _ => libc::RT_SCOPE_UNIVERSE,
        };
        let mut body = vec![
            family as i32 as u8,
            0,
            0,
            0,
            libc::RT_TABLE_MAIN,
            libc::RTPROT_STATIC,
            scope,
            libc::RTN_UNICAST,
        ];
        body.extend(0u32.to_ne_bytes());
        attribute(&mut body, libc::RTA_OIF, &index(INTERFACE)?.to_ne_bytes())?;
        self.ask(libc::RTM_NEWROUTE, CREATE, &body)
    }

    fn ask(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.sequence += 1;
        let length = u32::try_from(HEADER + body.len()).map_err(io::Error::other)?;
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend(0u32.to_ne_bytes());
        message.extend(body);
        sendto(self.socket.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut answer = [0; 4096];
        let length = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        acknowledged(answer.get(..length).unwrap_or_default())
    }
}

/// Reads the acknowledgement: a header, then an errno that is zero or negative.
fn acknowledged(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes);
    let code = answer.get(HEADER..HEADER + 4).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes);
    match (kind.map(i32::from), code) {
        (Some(libc::NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(libc::NLMSG_ERROR), Some(code)) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        _ => Err(io::Error::other("netlink answered with something that is no acknowledgement")),
    }
}

fn index(name: &str) -> io::Result<u32> {
    Ok(nix::net::if_::if_nametoindex(name)?)
}

/// `struct ifinfomsg`: family, padding, type, index, flags, change mask.
fn link_body(index: u32, flags: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body
}

fn terminated(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// Appends an attribute, padded to four bytes.
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) -> io::Result<()> {
    let length = u16::try_from(4 + value.len()).map_err(io::Error::other)?;
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
    Ok(())
}
