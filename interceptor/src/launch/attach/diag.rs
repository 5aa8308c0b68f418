//! Internet sockets of a network namespace, as sock_diag shows them: looked for, looked at, and reset.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    thread,
};

use nix::{
    libc,
    sched::{CloneFlags, setns},
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
    },
    sys::time::TimeVal,
};

use super::super::syscalls;
use crate::helper::Connection;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const DUMP: u16 = REQUEST | libc::NLM_F_DUMP as u16;
const ACKNOWLEDGED: u16 = REQUEST | libc::NLM_F_ACK as u16;
const HEADER: usize = 16;
/// The length of `struct inet_diag_msg`; attributes follow.
const MESSAGE: usize = 72;
/// `INET_DIAG_CGROUP_ID`
const CGROUP_ID: u16 = 21;
/// All of TCP's states but TIME_WAIT, SYN_RECV's half-open requests and CLOSE: those belong to nobody any more.
const STATES: u32 = !(1 << 6 | 1 << 12);
/// `TCP_ESTABLISHED`, `TCP_FIN_WAIT1`, `TCP_FIN_WAIT2`, `TCP_CLOSE_WAIT`: somebody has it, and there is another end.
const CONNECTED: [u8; 4] = [1, 4, 5, 8];
const TIME_WAIT: u8 = 6;
const CLOSED: u8 = 7;
const LISTENS: u8 = 10;
const TCP: u8 = libc::IPPROTO_TCP as u8;

/// A line to the kernel's tables of one network namespace, whoever holds it.
pub(crate) struct Diag {
    socket: OwnedFd,
    /// The kernel's number of the namespace.
    pub(super) network: u64,
}

impl Diag {
    /// Opens it in `network`.
    pub(crate) fn open(network: &File) -> io::Result<Self> {
        let network = network.try_clone()?;
        let opened = thread::spawn(move || -> io::Result<OwnedFd> {
            // Only this thread changes over, and it ends here.
            setns(&network, CloneFlags::CLONE_NEWNET)?;
            let flags = SockFlag::SOCK_CLOEXEC;
            let diag = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkSockDiag)?;
            setsockopt(&diag, sockopt::ReceiveTimeout, &TimeVal::new(2, 0))?;
            Ok(diag)
        });
        let socket = opened.join().unwrap_or_else(|_| Err(io::Error::other("the thread ended early")))?;
        let network = syscalls::namespace_cookie(socket.as_fd())?;
        Ok(Self { socket, network })
    }

    /// Those of `inodes` that the tables have.
    pub(super) fn all<T>(&self, inodes: &BTreeMap<u64, T>) -> io::Result<BTreeMap<u64, Socket>> {
        let mut found = BTreeMap::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            for protocol in [libc::IPPROTO_TCP, libc::IPPROTO_UDP] {
                let (family, protocol) = (family as u8, protocol as u8);
                self.send(SOCK_DIAG_BY_FAMILY, DUMP, (family, protocol, &Id::ANY))?;
                self.read_dump(protocol, inodes, &mut found)?;
            }
        }
        Ok(found)
    }

    fn read_dump<T>(
        &self,
        protocol: u8,
        inodes: &BTreeMap<u64, T>,
        found: &mut BTreeMap<u64, Socket>,
    ) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let (Some(size), Some(kind)) = (word(rest, 0), half(rest, 4)) {
                let size = size as usize;
                match i32::from(kind) {
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => return Err(io::Error::from_raw_os_error(code(rest))),
                    _ => {}
                }
                let message = rest.get(HEADER..size).unwrap_or_default();
                if let Some((inode, socket)) = Socket::read(message, protocol)
                    && inodes.contains_key(&inode)
                {
                    found.insert(inode, socket);
                }
                rest = rest.get(size.max(HEADER).next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }

    /// Whether a connection still leads somewhere.
    pub(crate) fn has(&self, connection: &Connection) -> io::Result<bool> {
        let (family, id) = Id::of(connection);
        self.send(SOCK_DIAG_BY_FAMILY, REQUEST, (family, TCP, &id))?;
        let mut answer = [0; 1024];
        let length = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        let answer = answered(answer.get(..length).unwrap_or_default(), &id)?;
        match half(answer, 4).map(i32::from) {
            Some(libc::NLMSG_ERROR) => match code(answer) {
                // None, or another.
                libc::ENOENT | libc::ESTALE => Ok(false),
                errno => Err(io::Error::from_raw_os_error(errno)),
            },
            _ => {
                let state = answer.get(HEADER + 1).copied();
                Ok(state.is_some_and(|state| ![TIME_WAIT, CLOSED].contains(&state)))
            }
        }
    }

    /// Resets a connection.
    pub(crate) fn reset(&self, connection: &Connection) -> io::Result<()> {
        let (family, id) = Id::of(connection);
        self.destroy_named(family, TCP, &id)
    }

    pub(super) fn destroy(&self, socket: &Socket) -> io::Result<()> {
        self.destroy_named(socket.family, socket.protocol, &socket.id)
    }

    fn destroy_named(&self, family: u8, protocol: u8, id: &Id) -> io::Result<()> {
        self.send(SOCK_DESTROY, ACKNOWLEDGED, (family, protocol, id))?;
        let mut answer = [0; 1024];
        let length = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        match code(answered(answer.get(..length).unwrap_or_default(), id)?) {
            // Gone by itself.
            0 | libc::ENOENT | libc::ESTALE => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// `struct nlmsghdr` and `struct inet_diag_req_v2`.
    fn send(&self, kind: u16, flags: u16, (family, protocol, id): (u8, u8, &Id)) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(72);
        bytes.extend(72_u32.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(id.sequence().to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend([family, protocol, 0, 0]);
        bytes.extend(STATES.to_ne_bytes());
        bytes.extend(id.0);
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
        Ok(())
    }
}

/// The answer, if it is one to the question about `id`: what another is told decides nothing here.
fn answered<'a>(answer: &'a [u8], id: &Id) -> io::Result<&'a [u8]> {
    match word(answer, 8) {
        Some(sequence) if sequence == id.sequence() => Ok(answer),
        _ => Err(io::Error::other("sock_diag answered another question")),
    }
}

/// The errno of an answer that is one.
fn code(answer: &[u8]) -> i32 {
    word(answer, HEADER).unwrap_or(0).cast_signed().checked_neg().unwrap_or(0)
}

/// A socket as the tables have it.
pub(super) struct Socket {
    family: u8,
    protocol: u8,
    state: u8,
    id: Id,
    /// The number of the cgroup that it was made in, where the kernel says so.
    pub(super) cgroup: Option<u64>,
}

impl Socket {
    fn read(message: &[u8], protocol: u8) -> Option<(u64, Self)> {
        let id = Id(message.get(4..52)?.try_into().ok()?);
        let cgroup = attribute(message.get(MESSAGE..)?, CGROUP_ID);
        let socket = Self { family: *message.first()?, protocol, state: *message.get(1)?, id, cgroup };
        Some((word(message, 68)?.into(), socket))
    }

    /// Whether it is a connection, and might go on.
    pub(super) fn is_connection(&self) -> bool {
        self.protocol == TCP && CONNECTED.contains(&self.state)
    }

    /// The connection, as it can be found again; `holder` has it.
    pub(super) fn connection(&self, (process, name): (u32, String)) -> Connection {
        let (own, peer) = self.id.ends(self.family);
        Connection { own, peer, interface: self.id.interface(), cookie: self.cookie(), process, name }
    }

    /// The kernel's number for it, which no other ever gets.
    pub(super) fn cookie(&self) -> u64 {
        self.id.cookie()
    }
}

impl std::fmt::Display for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (own, peer) = self.id.ends(self.family);
        match (self.protocol, self.state) {
            (TCP, LISTENS) => write!(f, "TCP, listening at {own}"),
            (TCP, _) => write!(f, "TCP, {own} to {peer}"),
            _ if peer.port() == 0 => write!(f, "UDP, {own}"),
            _ => write!(f, "UDP, {own} to {peer}"),
        }
    }
}

/// `struct inet_diag_sockid`
struct Id([u8; 48]);

impl Id {
    const ANY: Self = Self([0; 48]);

    /// That of a connection, with its family.
    fn of(connection: &Connection) -> (u8, Self) {
        let Connection { own, peer, interface, cookie, .. } = connection;
        let mut bytes = Vec::with_capacity(48);
        bytes.extend(own.port().to_be_bytes());
        bytes.extend(peer.port().to_be_bytes());
        for end in [own, peer] {
            match end.ip() {
                IpAddr::V4(v4) => {
                    bytes.extend(v4.octets());
                    bytes.extend([0; 12]);
                }
                IpAddr::V6(v6) => bytes.extend(v6.octets()),
            }
        }
        bytes.extend(interface.to_ne_bytes());
        // Two words, the lower first.
        bytes.extend((*cookie as u32).to_ne_bytes());
        bytes.extend(((cookie >> 32) as u32).to_ne_bytes());
        let family = if own.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        // It is as long as it must be: each part is.
        (family as u8, Self(bytes.try_into().unwrap_or([0; 48])))
    }

    fn ends(&self, family: u8) -> (SocketAddr, SocketAddr) {
        let port =
            |at: usize| self.0.get(at..at + 2).and_then(|p| p.try_into().ok()).map_or(0, u16::from_be_bytes);
        let address = |at: usize| {
            let all =
                self.0.get(at..at + 16).and_then(|all| <[u8; 16]>::try_from(all).ok()).unwrap_or_default();
            match i32::from(family) {
                libc::AF_INET => {
                    let [a, b, c, d, ..] = all;
                    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
                }
                _ => IpAddr::V6(Ipv6Addr::from(all)),
            }
        };
        (SocketAddr::new(address(4), port(0)), SocketAddr::new(address(20), port(2)))
    }

    fn interface(&self) -> u32 {
        word(&self.0, 36).unwrap_or(0)
    }

    /// What a question about it, and the answer, are known by.
    fn sequence(&self) -> u32 {
        word(&self.0, 40).unwrap_or(0)
    }

    fn cookie(&self) -> u64 {
        u64::from(word(&self.0, 40).unwrap_or(0)) | u64::from(word(&self.0, 44).unwrap_or(0)) << 32
    }
}

/// A number of eight bytes among netlink's attributes.
fn attribute(mut rest: &[u8], wanted: u16) -> Option<u64> {
    while let (Some(size), Some(kind)) = (half(rest, 0), half(rest, 2)) {
        let size = usize::from(size);
        if kind == wanted {
            return rest.get(4..size)?.try_into().ok().map(u64::from_ne_bytes);
        }
        rest = rest.get(size.max(4).next_multiple_of(4)..)?;
    }
    None
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}
